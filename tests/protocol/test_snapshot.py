"""When all has come that was stored: what is counted, what makes the count doubtful, and how the doubt ends."""

from __future__ import annotations

import json

import pytest

from tests.protocol.readers import SIZE, info, reading
from trionats._protocol.jetstream.actions import Delete, Inspect


@pytest.mark.parametrize(
    ("policy", "pending", "snapshot", "caught_up"),
    [
        ("last_per_subject", 0, True, True),
        ("new", 0, True, True),
        ("new", 3, True, True),
        ("all", 3, False, True),
        ("last_per_subject", 3, False, False),
    ],
)
def test_an_empty_store_is_caught_up_at_once(policy: str, pending: int, snapshot: bool, caught_up: bool) -> None:
    assert reading(policy, pending, snapshot=snapshot).caught_up() is caught_up


def test_it_is_the_count_that_ends_it_and_not_what_is_said_to_be_pending() -> None:
    assert reading(pending=5).feed((1, 2), (2, 0), (3, 10), (4, 9), (5, 0)) == "+++++!"
    # Measured: of s.0 to s.5, s.0 was read, then s.0, s.2 and s.9 written; s.2 came after the sixth message.
    bench = reading(pending=6)
    assert bench.feed((1, 5), (2, 6), (4, 5), (5, 4), (6, 3), (7, 2), (8, 1), (9, 0)) == "++++++++"
    assert bench.inspect()


def test_what_nobody_wants_counts() -> None:
    bench = reading(pending=2)
    for seq in (1, 2):
        assert not bench.caught_up()
        ack = bench.ordered.received(f"$JS.ACK.S.pre_1.1.{seq}.{seq}.{seq}.0", SIZE, bench.now)
        assert ack is not None
        bench.ordered.dropped(ack)
    assert (bench.caught_up(), bench.ordered.cursor) == (True, (2, 2))


@pytest.mark.parametrize("asking", [False, True])
def test_neither_constant_writes_nor_second_opinions_put_it_off_for_ever(asking: bool) -> None:
    bench = reading(pending=2, one_per_subject=asking)
    bench.message(1, 3 if asking else 2)
    seq = 1
    while not bench.caught_up():
        seq += 1
        assert seq < 200
        bench.message(seq, 0 if asking else 2)
        while isinstance(bench.ordered.next(bench.now), Inspect):
            assert asking
            if not bench.inspect():
                bench.create(2)
    assert 10 < seq < (200 if asking else 100)


def test_while_it_is_read_requests_do_not_wait() -> None:
    bench = reading(pending=5, max_messages=3, takes=True)
    assert json.loads(bench.pull().body())["no_wait"] is True
    assert bench.feed((1, 4), (2, 3), (3, 2)) == "+++"
    second = bench.pull()
    assert (second.batch, second.expires) == (2, 0)
    bench.takes = False
    assert bench.feed((4, 1), (5, 0)) == "++!"
    assert not bench.asks()
    bench.ordered.taken(SIZE)
    assert bench.pull().expires == 30


def test_purged_while_it_opens() -> None:
    bench = reading(pending=5)
    bench.status(bench.pull().number, 404, "No Messages")
    assert (bench.ordered.attention, bench.asks()) == (True, False)
    bench.ordered.inspected("pre_0", info(), bench.now)
    assert not bench.caught_up()
    assert bench.inspect()
    # Its consumer would stop at each of the five that are gone: it goes on with another one, at once.
    assert (bench.ordered.attention, bench.asks()) == (True, False)
    assert bench.ordered.next(bench.now) == Delete("pre_1")
    assert bench.create(1, at_once=True) == ("by_start_sequence", 1)
    assert bench.pull().expires == 30


def test_a_list_with_holes_is_left_for_the_sequence() -> None:
    bench = reading(pending=5, one_per_subject=True)
    first = bench.pull()
    assert bench.feed((1, 4)) == "+"
    bench.nothing(first.number, 4)
    assert bench.create(3, at_once=True) == ("by_start_sequence", 1)
    assert bench.feed((1, 2), (7, 1), (9, 0)) == "-++"
    # What it says to have left lags behind the writes that made the holes (measured): it is asked.
    bench.inspect(1)
    assert bench.pull().batch == 1
    assert bench.feed((10, 0)) == "+"
    # Nor is that believed before another consumer finds nothing besides what was handed over last.
    assert not bench.inspect()
    assert bench.create(1) == ("by_start_sequence", 10)
    assert bench.feed((10, 0)) == "-!"
    assert (bench.ordered.attention, bench.ordered.resets) == (False, 2)
    # One that is read to its end all the same is left then.
    bench = reading()
    bench.nothing(bench.pull().number, 1)
    assert bench.feed((7, 0)) == "+!"
    assert bench.ordered.attention
    assert bench.create(1)[0] == "by_start_sequence"


@pytest.mark.parametrize("overtaken_by_another", [False, True])
def test_a_pending_that_stays_too_low_is_no_end(overtaken_by_another: bool) -> None:
    """Measured: of s.1 to s.3, s.1 was written again while the consumer was made, which was never told of s.1 anew."""
    bench = reading(pending=3, one_per_subject=True)
    pull = bench.pull()
    assert bench.feed((2, 1), (3, 0)) == "++"
    if overtaken_by_another:
        # s.2 is written again, too, and comes first: as many as were expected, and still not all.
        assert bench.feed((4, 0)) == "+"
        assert not bench.inspect()
    else:
        assert not bench.nothing(pull.number)
    last = bench.ordered.cursor[0]
    assert bench.create(2, at_once=True) == ("by_start_sequence", last)
    assert bench.feed((last, 1), (5, 0)) == "-+"
    assert not bench.inspect()
    bench.create(1, at_once=True)
    assert bench.feed((5, 0)) == "-!"


def test_a_second_opinion_that_finds_nothing_is_the_end() -> None:
    bench = reading(pending=2, one_per_subject=True)
    assert not bench.nothing(bench.pull().number)
    bench.create(0, at=7)
    assert bench.caught_up()


def test_a_404_is_not_believed_while_messages_are_under_way() -> None:
    bench = reading()
    first = bench.pull()
    bench.message(1, 4)
    assert not bench.nothing(first.number, sent=2)
    assert bench.feed((2, 0)) == "+!"


def test_a_server_that_has_something_and_gives_nothing_is_asked_through_another_consumer() -> None:
    bench = reading()
    for resets in (0, 0, 0, 1):
        assert (bench.nothing(bench.pull().number, 5), bench.ordered.resets) == (False, resets)


def test_a_server_that_gives_nothing_of_what_it_has_is_waited_for_a_moment() -> None:
    """Writes that overtake a snapshot make the server answer 404 at once, each time, as long as they go on."""
    bench = reading()
    first = bench.pull()
    assert "no_wait" in json.loads(first.body())
    bench.nothing(first.number, 5)
    waiting = bench.pull()
    asked = json.loads(waiting.body())
    assert asked.items() >= {"expires": 1_000_000_000, "idle_heartbeat": 500_000_000}.items()
    assert "no_wait" not in asked
    # Only once: when what is left goes away in the meantime, a request that does not wait finds out.
    left = {"Nats-Pending-Messages": "5", "Nats-Pending-Bytes": str(waiting.max_bytes)}
    bench.status(waiting.number, 408, "Request Timeout", left)
    assert "no_wait" in json.loads(bench.pull().body())


def test_a_reset_begins_the_snapshot_anew_and_drops_what_was_seen() -> None:
    bench = reading(pending=3)
    assert bench.feed((1, 2), (2, 1)) == "++"
    assert bench.reset(3) == ("last_per_subject", None)
    assert bench.feed((1, 2), (2, 1), (3, 0)) == "--+!"
    bench = reading(pending=3)
    assert bench.feed((1, 2)) == "+"
    bench.reset(1)
    assert bench.feed((1, 0)) == "-!"
    # What becomes the last before anything was read is read.
    bench = reading(pending=1, at=1)
    bench.reset(1, at=0)
    assert bench.message(1)
