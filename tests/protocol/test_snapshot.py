"""When all has come that was stored: what is counted, what makes the count doubtful, and how the doubt ends."""

from __future__ import annotations

import json

import pytest

from tests.protocol.readers import SIZE, info, reading
from trionats._protocol.jetstream.actions import Delete, Inspect


def test_an_empty_store_is_caught_up_at_once() -> None:
    assert reading(pending=0).caught_up()
    assert reading("new", 0).caught_up()
    assert reading("new", 3).caught_up()
    assert reading("all", 3, snapshot=False).caught_up()
    assert not reading("last_per_subject", 3, snapshot=False).caught_up()


def test_it_is_the_count_that_ends_it_and_not_what_is_said_to_be_pending() -> None:
    assert reading(pending=5).feed((1, 2), (2, 0), (3, 10), (4, 9), (5, 0)) == "+++++!"


def test_what_nobody_wants_counts() -> None:
    bench = reading(pending=2)
    for seq in (1, 2):
        assert not bench.caught_up()
        ack = bench.ordered.received(f"$JS.ACK.S.pre_1.1.{seq}.{seq}.{seq}.0", SIZE, bench.now)
        assert ack is not None
        bench.ordered.dropped(ack)
    assert bench.caught_up()
    assert bench.ordered.cursor == (2, 2)


def test_an_entry_that_was_overtaken_is_waited_for() -> None:
    """Measured: of s.0 to s.5, s.0 was read, then s.0, s.2 and s.9 written; s.2 came after the sixth message."""
    bench = reading(pending=6)
    assert bench.feed((1, 5), (2, 6), (4, 5), (5, 4), (6, 3), (7, 2), (8, 1), (9, 0)) == "++++++++"
    bench.inspect()
    assert bench.caught_up()


def test_constant_writes_do_not_put_it_off_for_ever() -> None:
    bench = reading(pending=2)
    seq = 0
    while not bench.caught_up():
        seq += 1
        assert seq < 100
        bench.message(seq, 2)
    assert seq > 10


def test_while_it_is_read_requests_do_not_wait() -> None:
    bench = reading(pending=5, max_messages=3, takes=True)
    assert json.loads(bench.pull().body())["no_wait"] is True
    assert bench.feed((1, 4), (2, 3), (3, 2)) == "+++"
    second = bench.pull()
    assert (second.batch, second.expires) == (2, 0)
    bench.takes = False
    assert bench.feed((4, 1), (5, 0)) == "++!"
    assert bench.ordered.pull(bench.now) is None
    bench.ordered.taken(SIZE)
    assert bench.pull().expires == 30


def test_purged_while_it_opens() -> None:
    bench = reading(pending=5)
    bench.pull()
    bench.status(1, 404, "No Messages")
    assert bench.ordered.attention
    assert bench.ordered.pull(bench.now) is None
    bench.ordered.inspected("pre_0", info(), bench.now)
    assert not bench.caught_up()
    bench.inspect()
    assert bench.caught_up()
    # Its consumer would stop at each of the five that are gone: it goes on with another one, at once.
    now = bench.now
    assert bench.ordered.attention
    assert bench.ordered.pull(now) is None
    assert bench.ordered.next(now) == Delete("pre_1")
    assert bench.create(1) == ("by_start_sequence", 1)
    assert bench.now == now
    assert bench.pull().expires == 30


def test_a_list_with_holes_is_left_for_the_sequence() -> None:
    bench = reading(pending=5, one_per_subject=True)
    first = bench.pull()
    assert bench.feed((1, 4)) == "+"
    bench.nothing(first.number, 4)
    now = bench.now
    assert bench.create(3) == ("by_start_sequence", 1)
    assert bench.now == now
    assert bench.feed((1, 2), (7, 1), (9, 0)) == "-++"
    # What it says to have left lags behind the writes that made the holes (measured): it is asked.
    bench.inspect(1)
    assert bench.pull().batch == 1
    assert bench.feed((10, 0)) == "+"
    # Nor is that believed before another consumer finds nothing besides what was handed over last.
    bench.inspect()
    assert not bench.caught_up()
    assert bench.create(1) == ("by_start_sequence", 10)
    assert bench.feed((10, 0)) == "-!"
    assert not bench.ordered.attention
    assert bench.ordered.resets == 2


@pytest.mark.parametrize("overtaken_by_another", [False, True])
def test_a_pending_that_stays_too_low_is_no_end(overtaken_by_another: bool) -> None:
    """Measured: of s.1 to s.3, s.1 was written again while the consumer was made, which was never told of s.1 anew."""
    bench = reading(pending=3, one_per_subject=True)
    pull = bench.pull()
    assert bench.feed((2, 1), (3, 0)) == "++"
    if overtaken_by_another:
        # s.2 is written again, too, and comes first: as many as were expected, and still not all.
        assert bench.feed((4, 0)) == "+"
        bench.inspect()
    else:
        bench.nothing(pull.number)
    last, now = bench.ordered.cursor[0], bench.now
    assert not bench.caught_up()
    assert bench.create(2) == ("by_start_sequence", last)
    assert bench.feed((last, 1), (5, 0)) == "-+"
    bench.inspect()
    assert not bench.caught_up()
    bench.create(1)
    assert bench.feed((5, 0)) == "-!"
    assert bench.now == now


def test_a_second_opinion_that_finds_nothing_is_the_end() -> None:
    bench = reading(pending=2, one_per_subject=True)
    bench.nothing(bench.pull().number)
    assert not bench.caught_up()
    bench.create(0, at=7)
    assert bench.caught_up()


def test_second_opinions_come_to_an_end() -> None:
    bench = reading(pending=2, one_per_subject=True)
    bench.message(1, 3)
    seq = 1
    while not bench.caught_up():
        seq += 1
        assert seq < 200
        bench.message(seq)
        while isinstance(bench.ordered.next(bench.now), Inspect):
            bench.inspect()
            if not bench.caught_up():
                bench.create(2)
    assert seq > 10


def test_a_list_with_holes_that_was_read_to_its_end_is_left_then() -> None:
    bench = reading()
    bench.nothing(bench.pull().number, 1)
    assert bench.feed((7, 0)) == "+!"
    assert bench.ordered.attention
    assert bench.create(1)[0] == "by_start_sequence"


def test_a_404_is_not_believed_while_messages_are_under_way() -> None:
    bench = reading()
    first = bench.pull()
    bench.message(1, 4)
    bench.nothing(first.number, sent=2)
    assert not bench.caught_up()
    assert bench.feed((2, 0)) == "+!"


def test_a_server_that_has_something_and_gives_nothing_is_asked_through_another_consumer() -> None:
    bench = reading()
    for resets in (0, 0, 0, 1):
        bench.nothing(bench.pull().number, 5)
        assert (bench.ordered.resets, bench.caught_up()) == (resets, False)


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


def test_what_becomes_last_before_anything_was_read_is_read() -> None:
    bench = reading(pending=1, at=1)
    bench.reset(1, at=0)
    assert bench.message(1)


def test_a_reset_begins_the_snapshot_anew_and_drops_what_was_seen() -> None:
    bench = reading(pending=3)
    assert bench.feed((1, 2), (2, 1)) == "++"
    assert bench.reset(3) == ("last_per_subject", None)
    assert bench.feed((1, 2), (2, 1), (3, 0)) == "--+!"


def test_a_reset_that_finds_only_what_was_seen_is_caught_up() -> None:
    bench = reading(pending=3)
    assert bench.feed((1, 2)) == "+"
    bench.reset(1)
    assert bench.feed((1, 0)) == "-!"
