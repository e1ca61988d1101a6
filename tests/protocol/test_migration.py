"""The tables of a planned move: who is told what, on which side, in which order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.sessions import BROKEN, Recorder, Server, drained, msg, online, publish
from trionats._protocol.engine import Engine
from trionats._protocol.happenings import PongArrived
from trionats._protocol.migration import Migration, Way, way
from trionats._protocol.registrations import Registration

PREFIX = b"_INBOX."


class Mux(Recorder):
    """A receiver that ignores what comes twice."""

    ignores_repeats = True

    def waiting(self) -> frozenset[str]:
        return frozenset()


@pytest.mark.parametrize(
    ("subject", "queue", "count", "receiver", "expect"),
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
def test_how_a_subscription_goes_over(
    subject: bytes, queue: bytes, count: int, receiver: Recorder, expect: Way
) -> None:
    assert way(Engine().subscribe(subject, queue, count, receiver), PREFIX) is expect


def test_inboxes_for_replies_stay_wherever_they_are() -> None:
    row = Engine().subscribe(b"elsewhere", b"", 0, Recorder())
    row.for_replies = True
    assert way(row, PREFIX) is Way.STAY


def prepared(max_payload: int = 100) -> tuple[Engine, Migration, dict[bytes, Recorder]]:
    engine = online(Engine())
    receivers = {b"plain": Recorder(), b"work": Recorder(), b"_INBOX.a": Recorder(), b"_INBOX.m.*": Mux()}
    for subject, receiver in receivers.items():
        engine.subscribe(subject, b"q" if subject == b"work" else b"", 0, receiver)
    drained(engine)
    move = Migration(engine, PREFIX)
    online(move.side, b'INFO {"max_payload":%d}\r\n' % max_payload)
    move.arrive("arrived")
    return engine, move, receivers


def test_a_move_from_the_newcomers_greeting_to_the_old_sides_end() -> None:
    engine, move, receivers = prepared()
    assert drained(move.side) == b"SUB work q 2\r\nSUB _INBOX.m.* 4\r\nPING\r\n"
    assert move.side.receive(b"PONG\r\n") == [PongArrived("arrived")]
    before = publish(engine.outbox, b"before")
    assert engine.outbox.waits(before)
    move.switch("fence")
    assert not engine.outbox.waits(before), "it went to the old side"
    behind = publish(engine.outbox, b"behind")
    assert engine.outbox.waits(behind)
    assert drained(move.side) == bytes(before.frame) + b"UNSUB 1\r\nPING\r\n"
    move.side.receive(msg(1) + b"PONG\r\n")
    move.crossed(None)
    assert engine.outbox.waits(behind)
    assert drained(engine) == b"SUB plain 1\r\n" + bytes(behind.frame)
    move.unqueue()
    assert drained(move.side) == b"UNSUB 2\r\n"
    assert move.awaited  # noqa: PGH005 - a property of ours, no mock
    move.leave("farewell")
    assert drained(move.side) == b"UNSUB 3\r\nPING\r\n"
    assert move.side.receive(b"PONG\r\n") == [PongArrived("farewell")]
    move.close(BROKEN, still=True)
    assert drained(engine) == b"SUB _INBOX.a 3\r\n"
    assert (receivers[b"plain"].messages, receivers[b"plain"].told) == ([b"x"], [])
    assert receivers[b"_INBOX.a"].told == ["lost", "restored"]
    assert receivers[b"work"].told == receivers[b"_INBOX.m.*"].told == []
    assert engine.in_msgs == 1
    assert engine.beside is None


def test_without_a_fence_everybody_is_told() -> None:
    engine, move, receivers = prepared()
    drained(move.side)
    move.switch("fence")
    assert move.side.lost(BROKEN).pings == ["fence"]
    move.crossed(BROKEN)
    assert drained(engine) == b"SUB _INBOX.a 3\r\nSUB plain 1\r\n"
    assert all(receiver.told == ["lost", "restored"] for receiver in receivers.values())
    assert not move.awaited
    move.close(BROKEN, still=True)
    assert drained(engine) == b""


def test_who_leaves_over_the_loss_is_not_told_of_the_return() -> None:
    engine, move, receivers = prepared()
    receivers[b"plain"].then = lambda _: engine.unsubscribe(engine.registrations[1])
    move.switch("fence")
    move.side.lost(BROKEN)
    move.crossed(BROKEN)
    assert receivers[b"plain"].told == ["lost"]
    assert receivers[b"work"].told == ["lost", "restored"]


def test_what_is_too_large_for_the_new_side_is_dropped_at_the_fence() -> None:
    engine, move, _ = prepared(max_payload=10)
    move.switch("fence")
    drained(move.side)
    drained(engine)
    publish(engine.outbox, b"x" * 11)
    fits = publish(engine.outbox, b"x" * 10)
    move.crossed(None)
    assert engine.outbox.oversized == 1
    assert engine.outbox.bytes == sum(map(len, engine.outbox.frames))
    assert drained(engine) == b"SUB plain 1\r\n" + bytes(fits.frame)


def test_a_move_that_was_abandoned_or_overtaken_changes_nothing() -> None:
    engine, move, receivers = prepared()
    move.abandon()
    assert engine.beside is None
    engine, move, receivers = prepared()
    move.switch("fence")
    move.crossed(None)
    drained(engine)
    engine.lost(BROKEN)
    move.close(BROKEN, still=False)
    assert engine.outbox.frames == []
    assert receivers[b"_INBOX.a"].told == ["lost"]


STEPS: list[Callable[[Migration], object]] = [
    lambda move: move.arrive("arrive"),
    lambda move: move.switch("switch"),
    lambda move: move.crossed(None),
    lambda move: move.unqueue(),
    lambda move: move.leave("leave"),
    lambda move: move.close(BROKEN, still=True),
]


ACTIONS = st.sampled_from(["plain", "queue", "inbox", "mux", "unsubscribe", "publish", "send", "step"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(ACTIONS, st.integers(0, 9)), max_size=40))
def test_no_plain_subscription_is_ever_on_both_sides(actions: list[tuple[str, int]]) -> None:
    """Whatever is subscribed, unsubscribed and published at whatever stage; in the end, all are on the new side, once."""
    engine = online(Engine())
    move = Migration(engine, PREFIX)
    online(move.side)
    old, new = Server(), Server()
    rows: list[Registration] = []
    stage = number = 0

    def send() -> None:
        """Let both writers write; between the fence and its answer, the new side's does not."""
        mine, theirs = (old, new) if stage < 2 else (new, old)
        if stage != 2:
            mine.take(drained(engine))
        theirs.take(drained(move.side))
        plain = {row.sid for row in rows if way(row, PREFIX) is not Way.OVERLAP}
        assert not plain & old.rows.keys() & new.rows.keys()

    def step() -> None:
        nonlocal stage
        send()
        STEPS[stage](move)
        stage += 1
        send()

    for action, argument in actions:
        if action == "step" and stage < len(STEPS):
            step()
        elif action == "send":
            send()
        elif action == "publish":
            publish(engine.outbox, b"%d" % number)
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
    assert [(sid, row.subject) for sid, row in sorted(new.rows.items())] == [
        (sid, row.subject) for sid, row in engine.registrations.items()
    ]
    # In order, once, and the old side first.
    assert list(map(int, old.published + new.published)) == list(range(number))
    assert engine.outbox.out_msgs == number
