"""An ordered reader against a model of the server, with all that can go wrong between them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trionats._protocol.jetstream.acks import AckSubject
from trionats._protocol.jetstream.actions import Create, Delete, Find, Inspect, Look, Start, Wait
from trionats._protocol.jetstream.ordered.leader import StreamSaid
from trionats._protocol.jetstream.ordered.resuming import Ordered
from trionats._protocol.jetstream.pull import Pull, Window

SUBJECTS = ("a", "b", "c", "d")
#: What is written while a consumer is being made.
MEANWHILE = st.just(()) | st.lists(st.sampled_from(SUBJECTS), max_size=2)
#: The server's clock begins here, in nanoseconds, and goes on by a millisecond each time that it is looked at.
EPOCH, TICK = 1_795_824_000_000_000_000, 1_000_000
#: Where a reader by sequence begins, and one by time: the fourth message of the first stream was stored later.
FIRST, TIME = 3, EPOCH + 4 * TICK + 1
STARTS = {"by_start_sequence": Start("by_start_sequence", FIRST), "by_start_time": Start("by_start_time", time="then")}


@dataclass
class Stored:
    seq: int
    subject: str
    size: int
    generation: int
    timestamp: int


@dataclass
class Asked:
    number: int
    batch: int
    max_bytes: int
    no_wait: bool
    ends: float
    heartbeat: float
    beats: float
    unlimited: bool


@dataclass
class Consumer:
    name: str
    first: list[int]
    then: int
    lags: bool
    last: int
    #: By how many it says too few to be left.
    short: int = 0
    sequence: int = 0
    asked: list[Asked] = field(default_factory=list)


class Server:
    """A stream and its consumers; what it says goes into `wire`, in order."""

    def __init__(self, history: int, kind: str, stored: list[tuple[str, int]]) -> None:
        self.history = history
        self.clustered, self.replicated = kind != "alone", kind == "replicated"
        #: Up to where the replica has come that lags; None when none does.
        self.lag: int | None = None
        self.generation = self.ticks = self.last = 0
        self.made = self.moment()
        self.stored: dict[int, Stored] = {}
        self.consumers: dict[str, Consumer] = {}
        self.wire: list[tuple[Any, ...]] = []
        self.now = 0.0
        for subject, size in stored:
            self.write(subject, size)

    def tick(self) -> int:
        """The next moment of the server's clock, which is never the same twice."""
        self.ticks += 1
        return EPOCH + self.ticks * TICK

    def moment(self) -> str:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.tick() // 1000)).isoformat()

    def remake(self) -> None:
        """Delete the stream and make one of the same name."""
        for name in list(self.consumers):
            self.delete(name)
        self.stored, self.last, self.lag = {}, 0, None
        self.generation += 1
        self.made = self.moment()

    def said(self) -> StreamSaid:
        return StreamSaid(self.made, self.last, self.replicated)

    def write(self, subject: str, size: int) -> None:
        self.last += 1
        self.stored[self.last] = Stored(self.last, subject, size, self.generation, self.tick())
        same = [stored.seq for stored in self.stored.values() if stored.subject == subject]
        for seq in same[: -self.history]:
            del self.stored[seq]
            for consumer in self.consumers.values():
                # As measured: also what it did not have any more counts for it as if it had.
                if consumer.first and seq > consumer.last and seq not in consumer.first:
                    consumer.short += 1
        self.serve_all()

    def remove(self, seqs: list[int]) -> None:
        for seq in seqs:
            del self.stored[seq]
        self.serve_all()

    def seen(self, lags: bool) -> list[Stored]:
        """What a replica has of what is stored."""
        return [one for seq, one in sorted(self.stored.items()) if not lags or self.lag is None or seq <= self.lag]

    def newest(self, lags: bool = False) -> list[int]:
        return sorted({stored.subject: stored.seq for stored in self.seen(lags)}.values())

    def create(self, config: dict[str, Any], lags: bool = False, meanwhile: Sequence[str] = ()) -> dict[str, Any]:
        """Make a consumer, be it on the replica that lags; it is never told that these were written meanwhile."""
        assert config["name"] not in self.consumers
        last = self.last if not lags or self.lag is None else self.lag
        first: list[int] = []
        then = last + 1
        match config["deliver_policy"]:
            case "all":
                then = 1
            case "last":
                then = max((one.seq for one in self.seen(lags)), default=then)
            case "by_start_time":
                then = min((one.seq for one in self.seen(lags) if one.timestamp >= TIME), default=then)
            case "by_start_sequence":
                # As measured: it goes on to the first there is, but never back to the last there is.
                then = max(config["opt_start_seq"], min((one.seq for one in self.seen(lags)), default=then))
            case "last_per_subject":
                first = self.newest(lags)
        consumer = Consumer(config["name"], first, then, lags, (first[0] if first else then) - 1)
        self.consumers[consumer.name] = consumer
        cluster = {"cluster": {"name": "c"}} if self.clustered else {}
        info = {**cluster, "created": self.moment(), **self.info(consumer)}
        for subject in meanwhile if first else ():
            self.write(subject, 10)
            consumer.short += 1
        return info

    def info(self, consumer: Consumer) -> dict[str, Any]:
        delivered = {"consumer_seq": consumer.sequence, "stream_seq": consumer.last}
        return {"name": consumer.name, "num_pending": self.left(consumer), "delivered": delivered}

    def left(self, consumer: Consumer) -> int:
        """What a consumer says to be left."""
        return max(0, len(self.pending(consumer)) - consumer.short)

    def pending(self, consumer: Consumer) -> list[Stored]:
        early = [self.stored[seq] for seq in consumer.first if seq in self.stored]
        return early + [stored for stored in self.seen(consumer.lags) if stored.seq >= consumer.then]

    def pull(self, pull: Pull) -> None:
        body = json.loads(pull.body())
        assert not ("no_wait" in body and "idle_heartbeat" in body)
        consumer = self.consumers.get(pull.name)
        if consumer is None:
            self.say(pull.number, 503, "")
            return
        if body.get("idle_heartbeat", 0) * 2 > body.get("expires", 0):
            self.say(pull.number, 400, "Bad Request - heartbeat value too large")
            return
        limit, ends = body.get("max_bytes", 1 << 40), self.now + body.get("expires", inf) / 1e9
        pace, no_wait = body.get("idle_heartbeat", 0) / 1e9, body.get("no_wait", False)
        asked = Asked(pull.number, body["batch"], limit, no_wait, ends, pace, self.now, "max_bytes" not in body)
        pending = self.left(consumer)
        if asked.no_wait and not pending:
            self.say(pull.number, 404, "No Messages")
        elif asked.no_wait and pending < sum(other.batch for other in consumer.asked):
            self.say(pull.number, 408, "Requests Pending")
        else:
            consumer.asked.append(asked)
            self.serve(consumer)

    def say(self, number: int, code: int, text: str, **headers: str) -> None:
        self.wire.append(("status", number, code, text, headers))

    def end(self, consumer: Consumer, asked: Asked, code: int, text: str, *, counts: bool = True) -> None:
        consumer.asked.remove(asked)
        headers = {"Nats-Pending-Messages": str(asked.batch), "Nats-Pending-Bytes": str(asked.max_bytes)}
        self.wire.append(("status", asked.number, code, text, headers if counts else {}))

    def serve_all(self) -> None:
        for consumer in self.consumers.values():
            self.serve(consumer)

    def serve(self, consumer: Consumer) -> None:
        while consumer.asked:
            # As measured (2.15.1): where an entry of its list is gone, it stops until something wakes it.
            gone = consumer.first and consumer.first[0] not in self.stored
            if gone:
                consumer.first.pop(0)
            pending = self.pending(consumer)
            asked = consumer.asked[0]
            if gone or not pending:
                for waiting in [one for one in consumer.asked if one.no_wait]:
                    self.end(consumer, waiting, 404, "No Messages", counts=False)
                return
            stored = pending[0]
            if stored.size > asked.max_bytes:
                self.end(consumer, asked, 409, "Message Size Exceeds MaxBytes")
                if self.history > 1 and len(consumer.first) > 1 and not consumer.asked:
                    # As measured (2.15.1): it is off the list before it is looked whether it fits, and nobody else takes it. The
                    # last of the list is kept.
                    consumer.first.pop(0)
                continue
            self.give(consumer, asked, stored)
            consumer.asked.remove(asked)
            if asked.max_bytes and (asked.batch or not asked.unlimited):
                consumer.asked.append(asked)
                if not asked.batch:
                    self.end(consumer, asked, 409, "Batch Completed")

    def give(self, consumer: Consumer, asked: Asked, stored: Stored) -> None:
        asked.batch -= 1
        asked.max_bytes -= stored.size
        asked.beats = self.now
        consumer.sequence += 1
        consumer.last = stored.seq
        if stored.seq in consumer.first:
            consumer.first = consumer.first[consumer.first.index(stored.seq) + 1 :]
        else:
            consumer.first, consumer.then = [], stored.seq + 1
        reply = f"$JS.ACK.S.{consumer.name}.1.{stored.seq}.{consumer.sequence}.{stored.timestamp}.{self.left(consumer)}"
        self.wire.append(("message", reply, stored.size, stored))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for consumer in self.consumers.values():
            for asked in list(consumer.asked):
                if self.now >= asked.ends:
                    self.end(consumer, asked, 408, "Request Timeout")
                elif asked.heartbeat and self.now - asked.beats >= asked.heartbeat:
                    asked.beats = self.now
                    last = {"Nats-Last-Consumer": str(consumer.sequence), "Nats-Last-Stream": str(consumer.last)}
                    self.say(asked.number, 100, "Idle Heartbeat", **last)

    def delete(self, name: str) -> None:
        for asked in self.consumers.pop(name).asked if name in self.consumers else ():
            self.say(asked.number, 409, "Consumer Deleted")

    def disconnect(self) -> None:
        self.wire.clear()
        for consumer in self.consumers.values():
            consumer.asked.clear()


class Reader(RuleBasedStateMachine):
    """The machine: rules are what may happen, invariants what must hold whatever happens."""

    @initialize(
        server=st.builds(
            Server,
            st.sampled_from([1, 1, 2, 64]),
            st.sampled_from(["alone", "clustered", "replicated", "replicated"]),
            st.lists(st.tuples(st.sampled_from(SUBJECTS), st.integers(2, 60)), max_size=8),
        ),
        policy=st.sampled_from(["last_per_subject", "all", "new"]),
        other=st.none()
        | st.sampled_from(["last", "by_start_sequence", "by_start_time", "last_per_subject", "new", "all"]),
        seed=st.integers(0, 1000),
        lag=st.none() | st.integers(0, 8),
        meanwhile=MEANWHILE,
        options=st.fixed_dictionaries(
            {"max_messages": st.integers(1, 6), "max_bytes": st.sampled_from([40, 100, 1000]), "lazy": st.booleans()}
        ),
    )
    def begin(
        self,
        server: Server,
        policy: str,
        other: str | None,
        seed: int,
        lag: int | None,
        meanwhile: list[str],
        options: dict[str, Any],
    ) -> None:
        """Begin as a watcher does, or as an ordered consumer: then several may read one after the other (`other`)."""
        self.server = server
        self.shared, self.policy = other is not None, other or policy
        if server.replicated and lag is not None:
            server.lag = min(lag, server.last)
        self.credit, self.size = options["max_messages"], options["max_bytes"]
        fixed: dict[str, Any] = {"snapshot": not self.shared, "heartbeat": 5, "expires": 30, "restart": True}
        start = STARTS.get(self.policy, Start(self.policy))
        options = {**options, **fixed, "start": start, "one_per_subject": server.history == 1 and not self.shared}
        self.ordered = Ordered("S", "c", random.Random(seed), **options)
        self.generation, self.restarts = 0, 0
        self.before = self.server.last if self.policy == "new" else 0
        self.first = FIRST if self.policy == "by_start_sequence" else 0
        self.channel: list[Stored] = []
        self.delivered: list[Stored] = []
        self.old_wire: list[tuple[Any, ...]] = []
        self.linked = True
        self.caught_up_seen = False
        self.stored_at = 0
        # What has to have come of each subject before all has come that was stored: this or something later.
        self.newest = {one.subject: one.seq for one in self.server.stored.values()}
        # What was replaced before reading began, unless it becomes the last again, since the last was deleted; for a replica that
        # lags it still is the last.
        self.replaced = set(self.server.stored) - set(self.newest.values()) - set(self.server.newest(lags=True))
        # What need not come: what was there, with `new`; else `create` says it.
        self.unwanted = set(self.server.stored) if self.policy == "new" else set()
        action, there = self.ordered.next(self.server.now), set(self.server.stored)
        assert isinstance(action, Create)
        self.create(action.config, "ok", lags=True, meanwhile=meanwhile)
        waits_for = ("last_per_subject",) if self.shared else ("last_per_subject", "all")
        self.at_start = there - self.unwanted if self.policy in waits_for else set()
        while self.ordered.opening:
            assert self.ordered.next(self.server.now) == Look()
            self.ordered.looked(self.server.said(), self.server.now)
        self.look_up()

    # What the client does.

    @rule(outcome=st.sampled_from(["ok", "ok", "ok", "refused", "unanswered"]), lags=st.booleans(), meanwhile=MEANWHILE)
    def step(self, outcome: str, lags: bool = False, meanwhile: Sequence[str] = ()) -> None:
        now = self.server.now
        for _ in range(20):
            action = self.ordered.next(now)
            match action:
                case Wait():
                    break
                case Pull():
                    self.send(action)
                case Delete(name):
                    self.server.delete(name)
                case Create(_, config):
                    self.create(config, outcome, lags, meanwhile)
                    break
                case Inspect(name):
                    if outcome == "ok" and (consumer := self.server.consumers.get(name)):
                        self.ordered.inspected(name, self.server.info(consumer), now)
                    else:
                        self.ordered.inspect_failed(name, now)
                case Look() | Find() if outcome != "ok":
                    self.ordered.look_failed(now)
                case Look():
                    self.ordered.looked(self.server.said(), now)
                    self.begun_anew()
                case Find():
                    self.ordered.found(max(self.server.stored, default=0), now)
                case _:
                    pytest.fail(f"it gave up: {action}")
        else:
            pytest.fail("it never rests")
        self.look_up()

    def begun_anew(self) -> None:
        """Forget the old stream where the reader says that it has begun anew, or nothing of the old was handed over."""
        if self.ordered.restarts != self.restarts or not (self.delivered or self.ordered.caught_up):
            self.restarts = self.ordered.restarts
            self.generation = self.server.generation
            self.delivered.clear()

    def create(self, config: dict[str, Any], outcome: str, lags: bool, meanwhile: Sequence[str]) -> None:
        if outcome != "refused":
            info = self.server.create(config, lags, meanwhile)
            match config["deliver_policy"]:
                case "last_per_subject":
                    # A snapshot that begins anew shows what is the last state then.
                    self.unwanted |= set(self.server.stored) - set(self.server.newest())
                case "last" | "by_start_time":
                    begins = self.server.consumers[config["name"]].then
                    self.unwanted |= {seq for seq in self.server.stored if seq < begins}
        if outcome == "ok":
            self.ordered.created(info, self.server.now)
        else:
            self.ordered.create_failed(self.server.now)

    def send(self, pull: Pull | None) -> None:
        if pull is not None:
            assert self.linked
            self.server.pull(pull)

    @rule(count=st.integers(1, 12))
    def hear(self, count: int) -> None:
        for _ in range(min(count, len(self.server.wire))):
            heard = self.server.wire.pop(0)
            self.old_wire.append(heard)
            self.handle(heard)

    def handle(self, heard: tuple[Any, ...]) -> None:
        now = self.server.now
        if heard[0] == "status":
            _, number, code, text, headers = heard
            self.ordered.status(number, code, text, headers, now)
        else:
            _, reply, size, stored = heard
            if (ack := self.ordered.received(reply, size, now)) is not None:
                assert ack.sequence == stored.seq
                self.hand_over(ack, stored)
        self.look_up()
        self.send(self.ordered.pull(now))

    def hand_over(self, ack: AckSubject, stored: Stored) -> None:
        assert stored.generation == self.generation, "nobody was told that it is of another stream"
        assert stored.seq > self.before, "it is not new"
        if self.policy == "last_per_subject" and not self.shared:
            assert stored.seq not in self.replaced, f"{stored} was replaced before"
        self.delivered.append(stored)
        # What is still on its way from a stream that is gone is in order, too, but nothing is left to compare it with.
        missing = self.missing(below=stored.seq) if stored.generation == self.server.generation else []
        assert not missing, f"{stored} came before {missing}"
        if stored.size % 7 == 0:
            self.ordered.dropped(ack)
            return
        self.channel.append(stored)
        assert len(self.channel) <= self.credit
        self.ordered.delivered(ack, stored.size)

    def missing(self, below: int) -> list[Stored]:
        missing = set(self.server.stored) - {one.seq for one in self.delivered} - self.unwanted
        return [self.server.stored[seq] for seq in sorted(missing) if self.first <= seq < below]

    @rule(count=st.integers(1, 8))
    def take(self, count: int) -> None:
        for _ in range(min(count, len(self.channel))):
            self.ordered.taken(self.channel.pop(0).size)
            self.send(self.ordered.pull(self.server.now))

    @precondition(lambda self: self.shared)
    @rule(keep=st.booleans())
    def leave_to_another(self, keep: bool) -> None:
        """Another reads on: what nobody took from the channel comes again, and no message of the old inbox."""
        waiting = self.channel[0] if self.channel else None
        given, origin = self.ordered.cursor[0], self.ordered.origin
        if waiting is not None:
            there = waiting in self.delivered
            self.delivered = self.delivered[: self.delivered.index(waiting)] if there else []
            given = self.delivered[-1].seq if self.delivered else origin
        caught_up = self.ordered.caught_up and given >= self.stored_at
        self.caught_up_seen = self.caught_up_seen and (caught_up or self.policy != "last_per_subject")
        self.ordered.rewind(given, caught_up=caught_up)
        for name in self.ordered.leave(keep=keep):
            self.server.delete(name)
        for consumer in self.server.consumers.values():
            consumer.asked.clear()
        self.channel, self.old_wire = [], []
        self.server.wire.clear()
        self.ordered.resume(Window(self.credit, self.size, heartbeat=5, expires=30, rng=random.Random(1)))
        if not self.linked:
            self.ordered.connection_lost()

    @rule(takes=st.sampled_from([0, 0, 0, 1, 4]), writes=st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=6))
    def go_on_well(self, takes: int, writes: list[str]) -> None:
        """For a moment nothing goes wrong: by far the most frequent thing, and where all that goes wrong begins."""
        if not self.linked:
            self.disconnect_or_reconnect()
        for _ in range(3):
            self.step("ok")
            self.server.advance(0.2)
        for subject in writes:
            self.write(subject, 10)
        self.hear(20)
        self.take(takes)

    # What the world does.

    @rule(subject=st.sampled_from(SUBJECTS), size=st.integers(2, 60))
    def write(self, subject: str, size: int) -> None:
        self.server.write(subject, size)

    @precondition(lambda self: self.server.stored)
    @rule(data=st.data(), purge=st.booleans())
    def delete_messages(self, data: st.DataObject, purge: bool) -> None:
        stored = sorted(self.server.stored)
        gone = stored if purge else [data.draw(st.sampled_from(stored))]
        subjects = {self.server.stored[seq].subject for seq in gone}
        self.newest = {subject: seq for subject, seq in self.newest.items() if subject not in subjects}
        self.replaced -= {one.seq for one in self.server.stored.values() if one.subject in subjects}
        self.server.remove(gone)

    @precondition(lambda self: self.server.wire)
    @rule(data=st.data(), times=st.sampled_from([0, 2]))
    def lose_or_double(self, data: st.DataObject, times: int) -> None:
        place = data.draw(st.integers(0, len(self.server.wire) - 1))
        self.server.wire[place : place + 1] = [self.server.wire[place]] * times

    @precondition(lambda self: self.old_wire)
    @rule(data=st.data())
    def come_late(self, data: st.DataObject) -> None:
        """Something from before comes again, from whichever consumer it was."""
        self.handle(data.draw(st.sampled_from(self.old_wire)))

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.9, 5.0, 10.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.server.advance(seconds)

    @rule()
    def delete_consumers(self) -> None:
        for name in list(self.server.consumers):
            self.server.delete(name)

    @rule(text=st.sampled_from(["Leadership Change", "Server Shutdown", "Exceeded MaxWaiting"]))
    def end_requests(self, text: str) -> None:
        for consumer in self.server.consumers.values():
            for asked in list(consumer.asked):
                self.server.end(consumer, asked, 409, text, counts=text == "Server Shutdown")

    @precondition(lambda self: self.server.replicated)
    @rule(behind=st.booleans())
    def fall_behind_or_catch_up(self, behind: bool) -> None:
        self.server.lag = self.server.last if behind else None
        self.server.serve_all()

    @rule(writes=st.integers(0, 4))
    def remake(self, writes: int) -> None:
        self.server.remake()
        for number in range(writes):
            self.server.write(SUBJECTS[number], 10)
        self.unwanted, self.at_start, self.before = set(), set(), 0
        self.newest, self.replaced = {}, set()

    @rule()
    def disconnect_or_reconnect(self) -> None:
        if self.linked:
            self.server.disconnect()
            self.ordered.connection_lost()
        else:
            self.ordered.connection_restored(self.server.now)
        self.linked = not self.linked

    # What must hold.

    def look_up(self) -> None:
        if self.ordered.caught_up and not self.caught_up_seen:
            self.caught_up_seen, self.stored_at = True, self.ordered.cursor[0]
            came = {one.seq for one in self.delivered if one.generation == self.server.generation}
            early = (self.at_start & set(self.server.stored)) - came - self.unwanted
            assert not early, f"caught up before {early}"
            if self.policy == "last_per_subject" and not self.shared:
                self.whole()

    def whole(self) -> None:
        """No key is missing that is there: what it was when reading began has come, or what it was later."""
        came = {one.subject: one.seq for one in self.delivered if one.generation == self.server.generation}
        now = {one.subject: one.seq for one in self.server.stored.values()}
        for subject, seq in self.newest.items():
            assert came.get(subject, 0) >= seq or subject not in now, f"caught up without {subject}"

    @invariant()
    def in_order_and_once_and_alive(self) -> None:
        seqs = [one.seq for one in self.delivered]
        assert seqs == sorted(set(seqs))
        assert self.ordered.failure is None

    def teardown(self) -> None:
        if not hasattr(self, "ordered"):
            return
        if not self.linked:
            self.disconnect_or_reconnect()
        self.settle(5)
        self.fall_behind_or_catch_up(False)
        # A minute for what went wrong; and where there is little room, a message takes two requests, with one a second.
        self.settle(60 + 2 * self.server.last)
        assert not self.missing(below=self.server.last + 1)
        assert self.caught_up_seen
        assert set(self.server.consumers) == {self.ordered.name}
        assert self.ordered.leave() == list(self.server.consumers)

    def settle(self, seconds: int) -> None:
        for _ in range(seconds):
            self.step("ok")
            self.hear(1000)
            self.take(1000)
            self.server.advance(1.0)


TestReader = Reader.TestCase
TestReader.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


@given(
    history=st.sampled_from([1, 2, 3]),
    stored=st.lists(st.sampled_from("abcdef"), max_size=16),
    meanwhile=st.lists(st.sampled_from("abcdef"), max_size=2),
    bursts=st.lists(st.lists(st.sampled_from("abcdefg"), max_size=8), min_size=6, max_size=20),
    credit=st.integers(1, 4),
)
@settings(max_examples=300, deadline=None)
def test_a_snapshot_of_the_last_under_writes_is_whole(
    history: int, stored: list[str], meanwhile: list[str], bursts: list[list[str]], credit: int
) -> None:
    """Nothing goes wrong but that somebody writes faster than is read, for a while; `look_up` looks whether all is there."""
    reader = Reader()
    options = {"max_messages": credit, "max_bytes": 1000, "lazy": False}
    server = Server(history, "alone", [(subject, 10) for subject in stored])
    reader.begin(server, "last_per_subject", None, 0, None, meanwhile, options)
    for burst in bursts:
        for subject in burst:
            reader.write(subject, 10)
        reader.step("ok")
        reader.hear(20)
        reader.take(1)
    reader.teardown()
    assert reader.caught_up_seen
