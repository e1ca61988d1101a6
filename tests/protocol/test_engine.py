"""The engine: what goes out, what comes back, and what is still true wherever the connection is cut."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.protocol.sessions import BROKEN, INFO, Recorder, Server, drained, joined, msg, online, publish, reconnected
from trionats import errors
from trionats._protocol.commands import Aside, pub
from trionats._protocol.engine import CONTROL_LINE, Engine, Phase
from trionats._protocol.happenings import Garbage, InfoChanged, Loss, PongArrived, Refused
from trionats._protocol.outbox import Queued
from trionats._protocol.parser import Message
from trionats._protocol.receivers import Intake
from trionats._protocol.registrations import Registration


def subscribed(max_msgs: int = 0, receiver: Recorder | None = None) -> tuple[Engine, Recorder, Registration]:
    """Subscribe to "s", and the server knows."""
    engine, receiver = online(), receiver or Recorder()
    row = engine.subscribe(b"s", b"", max_msgs, receiver)
    drained(engine)
    return engine, receiver, row


def test_the_phases_of_a_handshake() -> None:
    engine = Engine()
    assert [engine.phase] == [Phase.OFFLINE]
    engine.begin()
    assert engine.receive(b"PONG\r\n") == []  # nobody asked
    engine.receive(INFO[:10])
    assert [engine.phase] == [Phase.GREETING]
    engine.receive(INFO[10:] + b"PONG\r\n")  # a PONG before CONNECT proves nothing
    assert [engine.phase] == [Phase.GREETED]
    assert engine.greet({"verbose": False}) == b'CONNECT {"verbose":false}\r\nPING\r\n'
    publish(engine.outbox)
    assert engine.receive(b"+OK\r\n") == []
    assert [engine.phase] == [Phase.PROVING]
    engine.receive(b"PONG\r\n")
    assert [engine.phase] == [Phase.ONLINE]


def test_welcome_news_and_messages_in_one_segment() -> None:
    """What comes right behind the PONG counts (nats.go 41c5d2b0); INFO of a new connection replaces the old."""
    engine, receiver = Engine(), Recorder()
    engine.subscribe(b"s", b"", 0, receiver)
    engine.begin()
    engine.receive(INFO)
    engine.greet({})
    events = engine.receive(b'PONG\r\nINFO {"max_payload":7,"ldm":true}\r\n' + msg(1, b"early"))
    assert events == [InfoChanged({"max_payload": 7, "ldm": True})]
    assert engine.info == {"server_id": "A", "max_payload": 7, "ldm": True}
    assert receiver.messages == [b"early"]
    engine.lost(BROKEN)
    engine.begin()
    engine.receive(b'INFO {"server_id":"B"}\r\n')
    assert engine.info == {"server_id": "B"}


def test_what_the_server_says_besides() -> None:
    engine = online()
    assert engine.receive(b"-ERR 'Slow'\r\n+OK\r\nPING\r\nPONG\r\n") == [Refused("Slow")]
    assert drained(engine) == b"PONG\r\n"
    refused, garbage = engine.receive(b"-ERR 'x'\r\nwhat?\r\nPING\r\n")
    assert refused == Refused("x")
    assert isinstance(garbage, Garbage)
    assert isinstance(garbage.error, errors.ProtocolError)
    assert engine.receive(b"PING\r\n") == []


def test_each_piece_is_a_sign_of_life_and_what_is_missing_of_a_payload_is_wanted() -> None:
    engine = online()
    heard = engine.heard
    engine.receive(b"PI")
    engine.receive(b"NG\r\n")
    assert engine.heard == heard + 2
    engine.receive(b"MSG s 1 1000\r\n")
    assert engine.wanted == 1002


def test_a_subscription_is_told_to_the_server_and_delivered_until_it_is_left() -> None:
    engine, receiver = online(), Recorder()
    row = engine.subscribe(b"a.*", b"", 0, receiver)
    queued = engine.subscribe(b"b", b"q", 3, receiver)
    assert drained(engine) == b"SUB a.* 1\r\nSUB b q 2\r\nUNSUB 2 3\r\n"
    engine.receive(msg(1) + msg(2) + msg(99))
    engine.unsubscribe(row)
    engine.unsubscribe(row)
    assert drained(engine) == b"UNSUB 1\r\n"
    engine.receive(msg(1))
    assert receiver.messages == [b"x", b"x"]
    assert list(engine.registrations.values()) == [queued]
    assert engine.subscribe(b"c", b"", 0, receiver).sid == 3
    assert (engine.in_msgs, engine.in_bytes) == (4, 4)
    engine.receive(b"HMSG c 3 12 15\r\nNATS/1.0\r\n\r\nabc\r\n")
    assert (receiver.messages[2:], receiver.told, engine.in_bytes) == ([b"abc"], [], 4 + 15)


def test_a_receiver_unsubscribes_on_the_very_message_that_completes_the_count() -> None:
    engine, receiver, row = subscribed(1, Recorder(lambda _: engine.unsubscribe(row)))
    engine.receive(msg(1) + b"PING\r\n")
    assert (receiver.messages, receiver.told) == ([b"x"], [])
    assert drained(engine) == b"UNSUB 1\r\nPONG\r\n"


def test_who_subscribes_when_the_connection_is_restored_is_not_replayed_twice() -> None:
    engine = Engine()
    engine.subscribe(b"s", b"", 0, Recorder(lambda _: engine.subscribe(b"more", b"", 0, Recorder())))
    online(engine)
    assert drained(engine) == b"SUB s 1\r\nSUB more 2\r\n"


def test_refused_subscriptions_end() -> None:
    engine, receivers = online(), [Recorder() for _ in range(4)]
    for receiver, subject, queue in zip(receivers, (b"s", b"s", b"s", b"t"), (b"", b"q", b"", b""), strict=True):
        engine.subscribe(subject, queue, 0, receiver)
    drained(engine)
    error = errors.PermissionsViolationError()
    assert engine.refuse_subscription("s", "", error)
    assert [receiver.ends for receiver in receivers] == [[error], [], [error], []]
    assert engine.refuse_subscription("s", "q", error)
    assert not engine.refuse_subscription("s", "q", error)
    assert not engine.refuse_subscription("\ud800", "\udfff", error)
    assert drained(engine) == b""
    reconnected(engine)
    assert drained(engine) == b"SUB t 4\r\n"


class Unsearchable(dict[int, Registration]):
    """A table that nobody can go through."""

    __iter__ = keys = values = items = None  # type: ignore[assignment]


@pytest.mark.parametrize("queue", [b"", b"q"])
def test_many_refusals_search_no_table(queue: bytes) -> None:
    engine, receivers = online(), [Recorder() for _ in range(500)]
    engine.registrations = Unsearchable()
    rows = [engine.subscribe(b"s.%d" % number, queue, 0, receiver) for number, receiver in enumerate(receivers)]
    engine.unsubscribe(rows[7])
    engine.complete(rows[8])
    for number in range(500):
        error = errors.PermissionsViolationError()
        assert engine.refuse_subscription(f"s.{number}", queue.decode(), error) == (number not in (7, 8))
    assert all(receiver.told for number, receiver in enumerate(receivers) if number != 7)
    assert not engine.registrations
    assert not len(engine._named)


def test_each_way_to_end_takes_the_name_out() -> None:
    engine = online()
    engine.subscribe(b"s" * CONTROL_LINE, b"", 0, Recorder())
    engine.subscribe(b"s", b"", 1, Recorder())
    engine.refuse_overlong(BROKEN)
    assert list(engine.registrations) == [2]
    engine.receive(msg(2))
    for _ in range(3):
        engine.subscribe(b"s", b"q", 0, Recorder())
    engine.end_all(None)
    assert not len(engine._named)


def test_ending_one_refused_ends_another() -> None:
    engine, _, _ = subscribed(0, Recorder(lambda _: engine.unsubscribe(other)))
    other = engine.subscribe(b"s", b"", 0, Recorder())
    assert engine.refuse_subscription("s", "", errors.PermissionsViolationError())
    assert engine.registrations == {}


def test_all_end_once_and_the_server_is_told() -> None:
    engine, receiver, _ = subscribed()
    engine.subscribe(b"t", b"", 0, receiver)
    drained(engine)
    engine.end_all(None)
    engine.end_all(BROKEN)
    assert receiver.ends == [None] * 2
    assert drained(engine) == b"UNSUB 1\r\nUNSUB 2\r\n"


def test_an_intake_is_told_all_that_a_subscription_is() -> None:
    told: list[object] = []

    def deliver(message: Message) -> None:
        told.append(message.data)

    engine = online()
    intake = Intake(deliver, told.append, told.append, lambda: told.append("restored"))
    row = engine.subscribe(b"s", b"", 2, intake)
    assert row.deliver is deliver, "nothing stands between"
    engine.receive(msg(1))
    reconnected(engine)
    engine.receive(msg(1, b"y"))
    assert told == [b"x", BROKEN, "restored", b"y", None]


def test_of_an_intake_what_makes_no_difference_need_not_be_said() -> None:
    ends: list[BaseException | None] = []
    engine = online()
    engine.subscribe(b"s", b"", 0, Intake(lambda _: None, ends.append))
    reconnected(engine)
    assert drained(engine) == b"SUB s 1\r\n"
    engine.end_all(BROKEN)
    assert ends == [BROKEN]


#: What may happen to a subscription.
STEPS: dict[str, Callable[[Engine, Registration], object]] = {
    "message": lambda engine, _: engine.receive(msg(1)),
    "unsubscribe": lambda engine, row: engine.unsubscribe(row),
    "retire": lambda engine, row: engine.retire(row),
    "complete": lambda engine, row: engine.complete(row),
    "fence": lambda engine, _: engine.ping("fence"),
    "pong": lambda engine, _: engine.receive(b"PONG\r\n"),
    "lose": lambda engine, _: engine.lost(BROKEN),
    "reconnect": lambda engine, _: reconnected(engine),
}


@pytest.mark.parametrize(
    ("max_msgs", "steps", "said", "told"),
    [
        # The last message ends it.
        (2, "message message message unsubscribe", b"", ["message", "message", "ended"]),
        # It is given up without losing what is on its way: what comes before the PONG is delivered.
        (0, "retire retire fence message pong complete complete message", b"UNSUB 1\r\nPING\r\n", ["message", "ended"]),
        # Leaving one that is retired says nothing again, and it is not replayed.
        (0, "retire unsubscribe complete", b"UNSUB 1\r\n", []),
        (0, "retire reconnect complete", b"", ["lost", "restored", "ended"]),
        # The agreed number ends it before the PONG.
        (1, "retire message complete", b"UNSUB 1\r\n", ["message", "ended"]),
        # Without a connection or once it has ended retiring says nothing.
        (0, "lose retire", b"", ["lost"]),
        (0, "unsubscribe retire", b"UNSUB 1\r\n", []),
    ],
)
def test_how_a_subscription_ends(max_msgs: int, steps: str, said: bytes, told: list[str]) -> None:
    seen: list[str] = []
    engine, receiver, row = subscribed(max_msgs, Recorder(seen.append))
    for step in steps.split():
        STEPS[step](engine, row)
    assert (drained(engine), seen) == (said, told)
    assert receiver.ends == [None] * told.count("ended")
    assert (row.sid in engine.registrations) == ("ended" not in told and "unsubscribe" not in steps)


def test_what_the_next_server_does_not_take_is_dropped() -> None:
    engine = Engine()
    engine.outbox.publish(Aside(pub(b"goodbye", b"", b"x" * 101)), 101)
    publish(engine.outbox, b"x" * 101)
    fits = publish(engine.outbox, b"x" * 100)
    online(engine)
    # Of the two, only a program's own is counted.
    assert (engine.outbox.oversized, engine.outbox.bytes, drained(engine)) == (
        1,
        len(bytes(fits.frame)),
        bytes(fits.frame),
    )


def test_what_follows_a_fence_goes_behind_the_replay_of_the_next_connection() -> None:
    engine = online()
    before = publish(engine.outbox, b"1")
    engine.fence("left")
    behind = publish(engine.outbox, b"2")
    engine.subscribe(b"a", b"", 0, Recorder())
    assert drained(engine) == bytes(before.frame) + b"PING\r\n"
    assert engine.receive(b"PONG\r\n") == [PongArrived("left")]
    assert drained(engine) == b""
    assert reconnected(engine).frames == 0
    assert drained(engine) == b"SUB a 1\r\n" + bytes(behind.frame)


def test_pongs_come_in_order_and_only_those_of_this_connection() -> None:
    engine = online()
    for token in ("a", None, "b"):
        engine.ping(token)
    assert drained(engine) == b"PING\r\n" * 3
    assert engine.receive(b"PONG\r\n") == [PongArrived("a")]
    assert engine.receive(b"PONG\r\nPONG\r\nPONG\r\n") == [PongArrived("b")]  # one more than was asked for
    engine.ping("old")
    assert reconnected(engine).pings == ["old"]
    engine.ping("new")
    assert engine.receive(b"PONG\r\n") == [PongArrived("new")]


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_keepalive_gives_up(most: int) -> None:
    engine = online()
    assert [engine.keepalive(most) for _ in range(most + 2)] == [True] * most + [False] * 2
    assert drained(engine) == b"PING\r\n" * most


def test_any_pong_and_a_new_connection_are_signs_of_life() -> None:
    engine = online()
    assert [engine.keepalive(1) for _ in range(2)] == [True, False]
    assert engine.receive(b"PONG\r\n") == []
    assert engine.keepalive(1)
    reconnected(engine)
    assert engine.keepalive(1)


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
    """A client that does what programs do, on a network that does what networks do, and a server that keeps count.

    The server takes bytes, cuts them into frames by its own rules, keeps its own table, and answers. After each step the
    client's numbers must be true; whenever both are at rest the tables must be equal.
    """

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
        token = object()
        self.pings.append(token)
        self.engine.ping(token)

    @connected
    @rule()
    def keepalive(self) -> None:
        if self.engine.keepalive(3):
            self.pings.append(None)
        else:
            assert None in self.pings

    @precondition(lambda self: self.connected and not self.wire)
    @rule(limit=st.integers(1, 1000))
    def take(self, limit: int) -> None:
        self.wire = joined(self.engine.outbox.take(limit))
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
        for frame in map(bytes, self.engine.outbox.frames):
            assert not frame or re.fullmatch(rb"(?:[A-Z]+[^\r\n]*\r\n)+|PUB s \d+\r\n.*\r\n", frame, re.DOTALL)
            assert self.connected or not frame or frame.startswith(b"PUB ")

    def teardown(self) -> None:
        if not self.connected:
            self.reconnect()
        self.come_to_rest()


TestSession = Session.TestCase
TestSession.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
