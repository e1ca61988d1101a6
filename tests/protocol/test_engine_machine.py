"""The engine against a server that keeps count: whatever is done to it, and wherever the connection is cut.

The model is the server: it takes bytes, cuts them into frames by its own rules, keeps its own table, and answers. After each
step the client's numbers must be true; whenever both are at rest the tables must be equal.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.protocol.sessions import BROKEN, Recorder, Server, publish
from trionats import errors
from trionats._protocol.engine import Engine, Phase
from trionats._protocol.happenings import Loss, PongArrived

if TYPE_CHECKING:
    from trionats._protocol.outbox import Queued

SUBJECTS = st.sampled_from([b"a", b"b"])
ANY = st.integers(0, 1 << 16)

connected = precondition(lambda self: self.connected)
disconnected = precondition(lambda self: not self.connected)


class Consumer(Recorder):
    """A receiver that knows what it was promised."""

    def __init__(self, subject: bytes, queue: bytes, max_msgs: int) -> None:
        super().__init__()
        self.subject, self.queue, self.max_msgs = subject, queue, max_msgs


class Session(RuleBasedStateMachine):
    """A client that does what programs do, on a network that does what networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine()
        self.server = Server()
        self.connected = False
        self.consumers: dict[int, Consumer] = {}
        self.wire = b""  # taken from the outbox, and on its way
        self.batch: list[bytes] = []  # the payloads in it
        self.publishing = 0
        self.waiting: dict[bytes, Queued] = {}  # by payload
        self.order: list[bytes] = []  # payloads in the order they were queued, withdrawn ones excepted
        self.withdrawn: set[bytes] = set()
        self.arrived: list[bytes] = []
        self.in_doubt: set[bytes] = set()
        self.pings: list[object] = []
        self.tokens = 0

    # The connection.

    @initialize()
    def connect(self) -> None:
        self.reconnect()

    @disconnected
    @rule()
    def reconnect(self) -> None:
        self.server, self.connected = Server(published=self.arrived), True
        self.engine.begin()
        self.engine.receive(b'INFO {"max_payload":1000}\r\n')
        assert (self.engine.phase, self.engine.info) == (Phase.GREETED, {"max_payload": 1000})
        self.server.take(self.engine.greet({"verbose": False}))
        assert self.server.verbs == ["CONNECT", "PING"]
        self.hear()
        assert self.engine.phase is Phase.ONLINE
        assert not any(self.consumers[sid].told[-1:] == ["lost"] for sid in self.engine.registrations)

    @disconnected
    @rule(stage=st.sampled_from(["silence", "half an INFO", "INFO", "CONNECT", "refusal"]))
    def fail_to_connect(self, stage: str) -> None:
        engine = self.engine
        before = list(engine.outbox.frames)
        engine.begin()
        if stage == "half an INFO":
            engine.receive(b"INFO {")
        elif stage != "silence":
            engine.receive(b"INFO {}\r\n")
        if stage in ("CONNECT", "refusal"):
            engine.greet({})
        if stage == "refusal":
            engine.receive(b"-ERR 'Authorization Violation'\r\n")
        assert engine.lost(BROKEN) == Loss(0, [])
        assert engine.outbox.frames == [frame for frame in before if frame]

    @connected
    @rule(through=ANY, heard=ANY)
    def cut(self, through: int, heard: int) -> None:
        """Break it: part of what is on the way still arrives, in both directions."""
        self.server.take(self.wire[: through % (len(self.wire) + 1)])
        self.hear(heard % (len(self.server.answers) + 1))
        loss = self.engine.lost(BROKEN)
        assert loss.frames == len(self.batch)
        assert loss.pings == [token for token in self.pings if token is not None]
        self.in_doubt.update(self.batch)
        self.batch, self.wire, self.pings, self.connected = [], b"", [], False
        assert all(self.consumers[sid].told[-1:] == ["lost"] for sid in self.engine.registrations)

    @connected
    @rule(subject=SUBJECTS, through=ANY, heard=ANY)
    def break_off_and_return(self, subject: bytes, through: int, heard: int) -> None:
        self.come_to_rest()
        self.deliver(subject, 5)
        self.cut(through, heard)
        self.reconnect()

    # What the client does.

    @rule(subject=SUBJECTS, queue=st.sampled_from([b"", b"q"]), max_msgs=st.sampled_from([0, 1, 3, 6]))
    def subscribe(self, subject: bytes, queue: bytes, max_msgs: int) -> None:
        consumer = Consumer(subject, queue, max_msgs)
        row = self.engine.subscribe(subject, queue, max_msgs, consumer)
        assert row.sid not in self.consumers
        self.consumers[row.sid] = consumer

    @precondition(lambda self: self.consumers)
    @rule(which=ANY)
    def unsubscribe(self, which: int) -> None:
        row = self.engine.registrations.get([*self.consumers][which % len(self.consumers)])
        if row is not None:
            self.engine.unsubscribe(row)
            self.engine.unsubscribe(row)

    @precondition(lambda self: self.consumers)
    @rule(which=ANY)
    def refused(self, which: int) -> None:
        one = [*self.consumers.values()][which % len(self.consumers)]
        table, name = self.engine.registrations, (one.subject, one.queue)
        mine = [sid for sid, row in table.items() if (row.subject, row.queue) == name]
        error = errors.PermissionsViolationError()
        assert self.engine.refuse_subscription(one.subject.decode(), one.queue.decode(), error) == bool(mine)
        assert all(self.consumers[sid].ends == [error] for sid in mine)
        if self.connected:
            # What arrives for it afterwards is nobody's; the server has no row of it.
            self.flow()
            for sid in mine:
                self.server.rows.pop(sid, None)

    @rule(size=st.integers(0, 200))
    def publish(self, size: int) -> None:
        self.publishing += 1
        payload = b"%d:" % self.publishing + b"x" * size
        self.waiting[payload] = publish(self.engine.outbox, payload)
        self.order.append(payload)

    @precondition(lambda self: self.order)
    @rule(which=ANY)
    def withdraw(self, which: int) -> None:
        """What a request does that ends before it was sent."""
        payload = self.order[which % len(self.order)]
        if payload not in self.waiting:
            return
        queued, outbox = self.waiting.pop(payload), self.engine.outbox
        assert outbox.waits(queued)
        assert outbox.withdraw(queued)
        assert not outbox.withdraw(queued)
        self.order.remove(payload)
        self.withdrawn.add(payload)

    @connected
    @rule()
    def ping(self) -> None:
        self.tokens += 1
        self.pings.append(self.tokens)
        self.engine.ping(self.tokens)

    @connected
    @rule()
    def keepalive(self) -> None:
        if self.engine.keepalive(3):
            self.pings.append(None)
        else:
            assert None in self.pings

    # What the session's writer and reader do.

    @precondition(lambda self: self.connected and not self.wire)
    @rule(limit=st.integers(1, 1000))
    def take(self, limit: int) -> None:
        self.wire = self.engine.outbox.take(limit)
        self.batch = [payload for payload, queued in self.waiting.items() if not self.engine.outbox.waits(queued)]
        for payload in self.batch:
            del self.waiting[payload]
        if not self.wire:
            self.engine.outbox.sent()

    @precondition(lambda self: self.connected and self.wire)
    @rule(part=ANY)
    def write(self, part: int) -> None:
        count = 1 + part % len(self.wire)
        self.server.take(self.wire[:count])
        self.wire = self.wire[count:]
        if not self.wire:
            self.engine.outbox.sent()
            self.batch = []

    @precondition(lambda self: self.connected and self.server.answers)
    @rule(part=ANY)
    def read(self, part: int) -> None:
        self.hear(1 + part % len(self.server.answers))

    # What the server does.

    @connected
    @rule(subject=SUBJECTS, size=st.integers(0, 50))
    def deliver(self, subject: bytes, size: int) -> None:
        self.server.deliver(subject, b"m" * size)

    @connected
    @rule(text=st.sampled_from([b"PING\r\n", b"+OK\r\n", b"-ERR 'whatever'\r\n", b'INFO {"more":1}\r\n']))
    def speak(self, text: bytes) -> None:
        self.server.answers += text

    @connected
    @rule()
    def come_to_rest(self) -> None:
        """Let all arrive in both directions: the tables are equal then."""
        self.flow()
        assert {sid: (row.subject, row.queue, row.left) for sid, row in self.server.rows.items()} == {
            sid: (row.subject, row.queue, row.max_msgs - row.delivered if row.max_msgs else None)
            for sid, row in self.engine.registrations.items()
        }
        assert (self.server.unread, self.pings, self.waiting, self.engine.outbox.bytes) == (b"", [], {}, 0)

    # Inside.

    def flow(self) -> None:
        while self.engine.outbox.frames or self.wire or self.server.answers:
            if not self.wire:
                self.take(100)
            if self.wire:
                self.write(len(self.wire) - 1)
            self.hear()

    def hear(self, count: int = 1 << 30) -> None:
        data, self.server.answers = self.server.answers[:count], self.server.answers[count:]
        for event in self.engine.receive(data):
            if isinstance(event, PongArrived):
                # A PONG to a keepalive gives no event; those in front of this one were such.
                while self.pings[0] is None:
                    self.pings.pop(0)
                assert event.token == self.pings.pop(0)
        waiting = len(self.engine._session.pings)
        while len(self.pings) > waiting:
            assert self.pings.pop(0) is None
        assert waiting == len(self.pings)

    @invariant()
    def numbers_are_true(self) -> None:
        outbox = self.engine.outbox
        assert outbox.bytes == sum(map(len, outbox.frames))
        assert all(map(outbox.waits, self.waiting.values()))
        assert outbox.out_msgs == self.publishing - len(self.withdrawn)
        assert outbox.out_bytes == sum(map(len, self.order))

    @invariant()
    def published_in_order_and_once(self) -> None:
        places = {payload: place for place, payload in enumerate(self.order)}
        assert not self.withdrawn.intersection(self.arrived)
        numbers = [places[payload] for payload in self.arrived]
        assert numbers == sorted(set(numbers))
        vanished = set(self.order).difference(self.waiting, self.batch, self.in_doubt, self.arrived)
        assert not vanished

    @invariant()
    def subscriptions_keep_their_word(self) -> None:
        for sid, consumer in self.consumers.items():
            assert len(consumer.ends) <= 1
            assert all(before != after for before, after in pairwise(consumer.told))
            if consumer.max_msgs:
                assert len(consumer.messages) <= consumer.max_msgs
                if len(consumer.messages) == consumer.max_msgs:
                    assert consumer.ends == [None]
            assert (sid in self.engine.registrations) <= (not consumer.ends)

    @invariant()
    def nothing_but_frames(self) -> None:
        for frame in self.engine.outbox.frames:
            assert not frame or re.fullmatch(rb"(?:[A-Z]+[^\r\n]*\r\n)+|PUB s \d+\r\n.*\r\n", frame, re.DOTALL)
            assert self.connected or not frame or frame.startswith(b"PUB ")

    def teardown(self) -> None:
        if not self.connected:
            self.reconnect()
        self.come_to_rest()


TestSession = Session.TestCase
TestSession.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
