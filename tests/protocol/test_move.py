"""The tables of a planned move: who is told what, on which side, in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trionats import errors
from trionats._protocol import commands
from trionats._protocol.engine import Engine, Phase
from trionats._protocol.migration import Move, Way, way

if TYPE_CHECKING:
    from trionats._protocol.parser import Message
    from trionats._protocol.registrations import Registration

PREFIX = b"_INBOX."
REASON = errors.UnexpectedEOF()


class Recorder:
    """A receiver that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def deliver(self, message: Message) -> None:
        self.told.append(message.data.decode())

    def connection_lost(self, reason: Exception) -> None:
        self.told.append("lost")

    def connection_restored(self) -> None:
        self.told.append("restored")

    def ended(self, reason: BaseException | None) -> None:
        self.told.append("ended")


class Mux(Recorder):
    """A receiver that ignores what comes twice."""

    ignores_repeats = True

    def waiting(self) -> frozenset[str]:
        return frozenset()


def online(engine: Engine, max_payload: int = 100) -> Engine:
    engine.begin()
    engine.receive(b'INFO {"max_payload":%d}\r\n' % max_payload)
    engine.greet({})
    engine.receive(b"PONG\r\n")
    assert engine.phase is Phase.ONLINE
    return engine


def drained(engine: Engine) -> bytes:
    batch = engine.take(1 << 30)
    engine.sent()
    return batch


@pytest.mark.parametrize(
    ("subject", "queue", "count", "receiver", "expected"),
    [
        (b"s", b"", 0, Recorder(), Way.FENCE),
        (b"s", b"", 5, Recorder(), Way.FENCE),
        (b"s", b"q", 0, Recorder(), Way.OVERLAP),
        (b"s", b"q", 5, Recorder(), Way.FENCE),
        (b"_INBOX.x", b"", 0, Recorder(), Way.STAY),
        (b"_INBOX.x.*", b"", 0, Mux(), Way.OVERLAP),
        (b"_INBOXES", b"", 0, Recorder(), Way.FENCE),
    ],
)
def test_ways(subject: bytes, queue: bytes, count: int, receiver: Recorder, expected: Way) -> None:
    assert way(Engine().subscribe(subject, queue, count, receiver), PREFIX) is expected


def test_answers_to_what_we_asked_stay() -> None:
    row = Engine().subscribe(b"elsewhere", b"", 0, Recorder())
    row.for_replies = True
    assert way(row, PREFIX) is Way.STAY


def prepared(max_payload: int = 100) -> tuple[Engine, Move, dict[bytes, Recorder]]:
    engine = online(Engine())
    receivers: dict[bytes, Recorder] = {
        b"plain": Recorder(),
        b"work": Recorder(),
        b"_INBOX.a": Recorder(),
        b"_INBOX.m.*": Mux(),
    }
    for subject, receiver in receivers.items():
        engine.subscribe(subject, b"q" if subject == b"work" else b"", 0, receiver)
    drained(engine)
    move = Move(engine, PREFIX)
    online(move.side, max_payload)
    return engine, move, receivers


def test_the_whole_of_it() -> None:
    engine, move, receivers = prepared()
    move.arrive("arrived")
    assert drained(move.side) == b"SUB work q 2\r\nSUB _INBOX.m.* 4\r\nPING\r\n"
    assert [event.token for event in move.side.receive(b"PONG\r\n")] == ["arrived"]  # type: ignore[union-attr]
    before = commands.pub(b"n", b"", b"before")
    engine.publish(before, 6)
    number = engine.newest
    assert engine.waits(before, number)
    move.switch("fence")
    assert not engine.waits(before, number), "it went to the old side"
    behind = commands.pub(b"n", b"", b"behind")
    engine.publish(behind, 6)
    assert engine.waits(behind, engine.newest)
    assert drained(move.side) == before + b"UNSUB 1\r\nPING\r\n"
    move.side.receive(b"MSG plain 1 1\r\nx\r\nPONG\r\n")
    move.crossed(None)
    assert engine.waits(behind, engine.newest)
    assert drained(engine) == b"SUB plain 1\r\n" + behind
    move.unqueue()
    assert drained(move.side) == b"UNSUB 2\r\n"
    assert move.awaited  # noqa: PGH005 - a property of ours, no mock
    move.leave("farewell")
    assert drained(move.side) == b"UNSUB 3\r\nPING\r\n"
    assert [event.token for event in move.side.receive(b"PONG\r\n")] == ["farewell"]  # type: ignore[union-attr]
    move.close(REASON, still=True)
    assert drained(engine) == b"SUB _INBOX.a 3\r\n"
    assert receivers[b"plain"].told == ["x"]
    assert receivers[b"_INBOX.a"].told == ["lost", "restored"]
    assert receivers[b"work"].told == receivers[b"_INBOX.m.*"].told == []
    assert engine.in_msgs == 1
    assert engine.beside is None


def test_without_a_fence_everybody_is_told() -> None:
    engine, move, receivers = prepared()
    move.arrive("arrived")
    drained(move.side)
    move.switch("fence")
    assert move.side.lost(REASON).pings == ["fence"]
    move.crossed(REASON)
    assert drained(engine) == b"SUB _INBOX.a 3\r\nSUB plain 1\r\n"
    assert all(receiver.told == ["lost", "restored"] for receiver in receivers.values())
    assert not move.awaited
    move.close(REASON, still=True)
    assert drained(engine) == b""


def test_who_leaves_over_the_loss_is_not_told_of_the_return(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, move, receivers = prepared()
    (row,) = [row for row in engine.registrations.values() if row.subject == b"plain"]
    monkeypatch.setattr(receivers[b"plain"], "connection_lost", lambda _: engine.unsubscribe(row))
    move.arrive("arrived")
    move.switch("fence")
    move.side.lost(REASON)
    move.crossed(REASON)
    assert receivers[b"plain"].told == []
    assert receivers[b"work"].told == ["lost", "restored"]


def test_what_is_too_large_for_the_new_side_is_dropped_at_the_fence() -> None:
    engine, move, _ = prepared(max_payload=10)
    move.arrive("arrived")
    move.switch("fence")
    drained(move.side)
    drained(engine)
    engine.publish(commands.pub(b"n", b"", b"x" * 11), 11)
    engine.publish(commands.pub(b"n", b"", b"x" * 10), 10)
    move.crossed(None)
    assert engine.oversized == 1
    assert engine.outbox_bytes == sum(map(len, engine.outbox))
    assert drained(engine) == b"SUB plain 1\r\n" + commands.pub(b"n", b"", b"x" * 10)


def test_a_move_that_was_abandoned_or_overtaken_changes_nothing() -> None:
    engine, move, receivers = prepared()
    move.arrive("arrived")
    move.abandon()
    assert engine.beside is None
    engine, move, receivers = prepared()
    move.arrive("arrived")
    move.switch("fence")
    move.crossed(None)
    drained(engine)
    engine.lost(REASON)
    move.close(REASON, still=False)
    assert engine.outbox == []
    assert receivers[b"_INBOX.a"].told == ["lost"]


STEPS = ("arrive", "switch", "crossed", "unqueue", "leave", "close")


class Table:
    """A server's table of subscriptions, kept from the bytes it gets."""

    def __init__(self) -> None:
        self.live: dict[int, bytes] = {}
        self.published: list[int] = []

    def take(self, data: bytes) -> None:
        for line in data.split(b"\r\n"):
            verb, *words = line.split(b" ")
            if verb == b"SUB":
                assert int(words[-1]) not in self.live, "twice"
                self.live[int(words[-1])] = words[0]
            elif verb == b"UNSUB":
                self.live.pop(int(words[0]), None)
            elif verb.isdigit():
                self.published.append(int(verb))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["plain", "queue", "inbox", "mux", "unsubscribe", "publish", "send", "step"]),
            st.integers(0, 9),
        ),
        max_size=40,
    )
)
def test_no_plain_subscription_is_ever_on_both_sides(actions: list[tuple[str, int]]) -> None:
    """Whatever is subscribed, unsubscribed and published at whatever stage; in the end, all are on the new side, once."""
    engine = online(Engine())
    move = Move(engine, PREFIX)
    online(move.side)
    old, new = Table(), Table()
    rows: list[Registration] = []
    stage = number = 0

    def send() -> None:
        """Let both writers write; between the fence and its answer, the new side's does not."""
        mine, theirs = (old, new) if stage < 2 else (new, old)
        if stage != 2:
            mine.take(drained(engine))
        theirs.take(drained(move.side))
        plain = {row.sid for row in rows if way(row, PREFIX) is not Way.OVERLAP}
        assert not plain & old.live.keys() & new.live.keys()

    def step() -> None:
        nonlocal stage
        name = STEPS[stage]
        send()
        match name:
            case "arrive" | "switch" | "leave":
                getattr(move, name)(name)
            case "crossed":
                move.crossed(None)
            case "close":
                move.close(REASON, still=True)
            case _:
                move.unqueue()
        stage += 1
        send()

    for action, argument in actions:
        if action == "step" and stage < len(STEPS):
            step()
        elif action == "send":
            send()
        elif action == "publish":
            engine.publish(commands.pub(b"n", b"", b"%d" % number), 1)
            number += 1
        elif action == "unsubscribe" and rows:
            engine.unsubscribe(rows[argument % len(rows)])
        elif action in ("plain", "queue", "inbox", "mux"):
            subject = b"_INBOX.%d" % argument if action in ("inbox", "mux") else b"s.%d" % argument
            receiver = Mux() if action == "mux" else Recorder()
            rows.append(engine.subscribe(subject, b"q" if action == "queue" else b"", 0, receiver))
    while stage < len(STEPS):
        step()
    send()
    assert new.live == {sid: row.subject for sid, row in engine.registrations.items()}
    assert old.published + new.published == list(range(number)), "in order, once, and the old side first"
    assert engine.out_msgs == number
