"""Where an ordered reader resumes, what makes it begin with another consumer, and what ends it."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf

import pytest

from tests.protocol.readers import GONE, MADE, SIZE, Bench, info, reading
from trionats import errors
from trionats._protocol.jetstream.actions import Create, Delete, Start, Wait
from trionats._protocol.jetstream.ordered.leader import StreamSaid
from trionats._protocol.jetstream.pull import Pull, Window


def test_the_consumers_configuration() -> None:
    named = {"name": "pre_1", "deliver_policy": "last_per_subject", "filter_subject": "m.>", "ack_policy": "none"}
    kept = {"mem_storage": True, "num_replicas": 1, "inactive_threshold": 30_000_000_000}
    assert reading().config == {**named, **kept}
    config = reading(headers_only=True, filter_subjects=["a", "b"]).config
    assert (config["headers_only"], config["filter_subjects"]) == (True, ["a", "b"])
    assert "filter_subject" not in config
    assert "filter_subject" not in reading("all", filter_subjects=()).config


def test_the_last_of_each_subject_of_all_needs_a_filter_and_keeps_it() -> None:
    bench = reading(filter_subjects=(), pending=1)
    assert bench.config["filter_subject"] == ">"
    assert bench.feed((10, 0)) == "+!"
    assert bench.reset(1) == ("by_start_sequence", 10)
    assert bench.config["filter_subject"] == ">"


@pytest.mark.parametrize(
    ("start", "at", "unread", "read"),
    [
        (Start("all"), 0, ("by_start_sequence", 1), ("by_start_sequence", 12)),
        (Start("new"), 9, ("by_start_sequence", 10), ("by_start_sequence", 12)),
        (Start("last"), 9, ("by_start_sequence", 10), ("by_start_sequence", 12)),
        (Start("last_per_subject"), 9, ("last_per_subject", None), ("last_per_subject", None)),
        (Start("by_start_sequence", 10), 9, ("by_start_sequence", 10), ("by_start_sequence", 12)),
        (Start("by_start_time", time="2026-01-01T00:00:00Z"), 9, ("by_start_sequence", 10), ("by_start_sequence", 12)),
    ],
)
def test_where_it_resumes(start: Start, at: int, unread: tuple[object, object], read: tuple[object, object]) -> None:
    bench = reading(start=start, at=at)
    assert start.config().items() <= bench.config.items()
    for _ in range(2):
        assert bench.reset(5) == unread
        assert "opt_start_time" not in bench.config
    assert bench.feed((11, 0), (12, 0)) == "++"
    assert [bench.reset(5), bench.reset(5)] == [read, read]


def test_a_snapshot_that_was_read_whole_is_resumed_by_sequence() -> None:
    bench = reading("last_per_subject", pending=2, at=9, filter_subjects=["a", "b"])
    assert bench.reset(2) == ("last_per_subject", None)
    assert bench.feed((10, 1), (12, 0)) == "++!"
    assert [bench.reset(1), bench.reset(1)] == [("by_start_sequence", 12)] * 2
    assert bench.config["filter_subjects"] == ["a", "b"]


# -- one reader after another ---------------------------------------------------------------------------------------------


def window() -> Window:
    return Window(100, 1 << 20, heartbeat=5.0, expires=30.0, rng=random.Random(1))


def leave(bench: Bench, *, given: int | None = None, caught_up: bool = True, keep: bool = False) -> list[str]:
    """Leave a reader that was given so much, and let another one resume; say which consumers are to be deleted."""
    bench.ordered.rewind(bench.ordered.cursor[0] if given is None else given, caught_up=caught_up)
    names = bench.ordered.leave(keep=keep)
    bench.ordered.resume(window())
    return names


@pytest.mark.parametrize(
    ("start", "at", "given", "resumed"),
    [
        # What nobody was given comes again, for every policy; where that is all, by the sequence before the first.
        (Start("all"), 0, 0, 1),
        (Start("all"), 0, 11, 11),
        (Start("new"), 9, 9, 10),
        (Start("last"), 10, 10, 11),
        (Start("by_start_sequence", 11), 10, 10, 11),
        (Start("by_start_time", time="2026-01-01T00:00:00Z"), 9, 9, 10),
        (Start("by_start_time", time="2026-01-01T00:00:00Z"), 9, 12, 12),
    ],
)
def test_the_next_reader_begins_behind_what_this_one_was_given(start: Start, at: int, given: int, resumed: int) -> None:
    bench = reading(start=start, at=at, snapshot=False)
    assert bench.feed((11, 2), (12, 1), (13, 0)) == "+++"
    assert leave(bench, given=given) == ["pre_1"]
    assert bench.create(3) == ("by_start_sequence", resumed)
    again = [seq for seq in (11, 12, 13) if bench.message(seq)]
    assert again == [seq for seq in (11, 12, 13) if seq > given]


def test_a_snapshot_that_nobody_was_given_whole_is_read_again_from_there() -> None:
    bench = reading("last_per_subject", pending=3, at=9)
    assert bench.feed((10, 2), (12, 1), (14, 0)) == "+++!"
    leave(bench, given=10, caught_up=False)
    assert not bench.caught_up()
    assert bench.create(3) == ("last_per_subject", None)
    assert bench.feed((10, 2), (12, 1), (14, 0)) == "-++!"
    leave(bench, given=14)
    assert bench.create(1) == ("by_start_sequence", 14)


def test_a_consumer_that_stands_where_reading_does_can_be_kept() -> None:
    bench = reading("all", pending=2, snapshot=False, max_messages=2)
    assert bench.feed((1, 1), (2, 0)) == "++"
    assert leave(bench, keep=True) == []
    assert (bench.ordered.reading, bench.pull().name) == (True, "pre_1")
    # It goes on counting where it was: a gap is still one.
    assert bench.message(3)
    assert not bench.message(5, consumer_seq=5)
    assert bench.ordered.resets == 1


@pytest.mark.parametrize(
    "happening",
    [
        lambda bench: bench.pull(),  # messages may be on their way
        lambda bench: bench.ordered.rewind(1, caught_up=True),
        lambda bench: bench.ordered.connection_lost(),
    ],
)
def test_a_consumer_that_does_not_is_deleted_all_the_same(happening: Callable[[Bench], object]) -> None:
    bench = reading("all", pending=2, snapshot=False, max_messages=2, takes=True)
    assert bench.feed((1, 1), (2, 0)) == "++"
    happening(bench)
    assert leave(bench, keep=True) == ["pre_1"]
    assert not bench.ordered.reading
    bench = reading("all", pending=1, snapshot=False)
    bench.refused()
    assert leave(bench, keep=True) == ["pre_1"]


def test_what_ended_a_reader_does_not_end_the_next_one() -> None:
    bench = reading("all")
    bench.ordered.forbidden(errors.PermissionsViolationError())
    assert isinstance(bench.failure(), errors.PermissionsViolationError)
    leave(bench)
    assert bench.create(1, at_once=True) == ("by_start_sequence", 1)
    assert bench.message(1)


def test_the_next_reader_of_a_stream_that_was_made_anew_is_told() -> None:
    bench = reading("all", pending=1, snapshot=False, trusting=False)
    bench.message(5)
    for _ in range(2):
        leave(bench)
        bench.create(1)
        bench.look_anew(9)
        assert bench.remade()


def test_of_a_stream_that_was_made_anew_the_next_reader_is_given_all() -> None:
    bench = reading("all", pending=1, snapshot=False, trusting=False, restart=True)
    bench.message(5)
    bench.reset(1)
    bench.look_anew(9)
    bench.create(2)
    bench.look_anew(9)
    assert bench.message(7)
    leave(bench, given=bench.ordered.origin)
    assert bench.create(2) == ("by_start_sequence", 1)
    bench.look_anew(9)
    assert (bench.message(1), bench.ordered.restarts) == (True, 1)


def test_names_are_fresh_and_old_consumers_deleted_once() -> None:
    bench = reading()
    names = []
    for _ in range(5):
        names.append(bench.ordered.name)
        bench.refused()
        assert bench.ordered.next(bench.now) == Delete(names[-1])
        bench.create(5)
    last = bench.ordered.name
    assert (len({*names, last}), bench.ordered.resets) == (6, 5)
    for _ in range(2):  # two reasons are one reset more and no second deletion
        bench.refused()
    assert [bench.ordered.leave(), bench.ordered.leave()] == [[last], []]


def pause(bench: Bench) -> float:
    begun = bench.now
    assert isinstance(bench.due(), Create)
    return bench.now - begun


def test_resets_are_spaced_out_until_there_is_progress() -> None:
    bench = reading("all")
    spaces = []
    for _ in range(12):
        bench.ordered.create_failed(bench.now)
        spaces.append(pause(bench))
    assert 0.02 < spaces[0] <= 0.05
    assert 5 <= min(spaces[-3:]) <= max(spaces) <= 10
    bench.create(5)
    bench.message(1)
    bench.refused()
    assert pause(bench) <= 0.05


@pytest.mark.parametrize(
    ("happening", "resets"),
    [
        (lambda bench: bench.message(4), 0),
        (lambda bench: bench.message(3, consumer_seq=1), 0),
        (lambda bench: bench.message(5, consumer_seq=3), 1),
        (lambda bench: bench.message(4, consumer_seq=1), 1),
        (lambda bench: bench.status(1, 100, "Idle Heartbeat", {"Nats-Last-Consumer": "1"}), 0),
        (lambda bench: bench.status(1, 100, "Idle Heartbeat", {"Nats-Last-Consumer": "2"}), 1),
        (lambda bench: bench.status(1, 503), 1),
        (lambda bench: bench.status(1, 409, "Consumer Deleted"), 1),
        (lambda bench: bench.status(1, 409, "Consumer is push based"), 1),
        (lambda bench: bench.status(1, 409, "Leadership Change"), 0),
        (lambda bench: bench.status(0, 409, "Consumer Deleted"), 0),
        (lambda bench: bench.status(1, 408, "Request Timeout", {"Nats-Pending-Messages": "0"}), 0),
        (lambda bench: bench.ordered.next(bench.now + 9.9), 0),
        (lambda bench: bench.ordered.next(bench.now + 10), 1),
        (lambda bench: bench.ordered.refused(bench.now), 1),
        (lambda bench: bench.ordered.connection_lost(), 0),
        (lambda bench: bench.ordered.connection_restored(bench.now), 1),
        (lambda bench: bench.ordered.inspect_failed("another", bench.now), 0),
        (lambda bench: bench.ordered.inspect_failed("pre_1", bench.now), 1),
    ],
)
def test_what_resets(happening: Callable[[Bench], object], resets: int) -> None:
    bench = reading("all", snapshot=False)
    bench.pull()
    bench.message(3)
    happening(bench)
    assert (bench.ordered.resets, bench.ordered.attention) == (resets, bool(resets))


def test_nothing_of_another_consumer_is_read() -> None:
    bench = reading("all")
    bench.pull()
    reply = f"$JS.ACK.S.{bench.ordered.name}.1.1.1.10.0"
    bench.refused()
    bench.status(1, 503)  # between two of them
    assert bench.ordered.received(reply, SIZE, bench.now) is None
    bench.create(5)
    for old in (reply, "no ack subject"):
        assert bench.ordered.received(old, SIZE, bench.now) is None
    assert bench.ordered.resets == 1


def test_disconnected_it_waits_and_silence_means_nothing() -> None:
    bench = reading("all", snapshot=False)
    bench.pull()
    bench.ordered.connection_lost()
    assert bench.ordered.next(bench.now + 1000) == Wait(inf)
    assert (bench.asks(), bench.ordered.next_event) == (False, inf)
    # Not twice: nothing has begun since.
    for _ in range(2):
        bench.ordered.connection_restored(bench.now)
        assert isinstance(bench.due(), Create)
        assert bench.ordered.resets == 1


def test_a_reader_finds_out_whether_its_consumer_is_there() -> None:
    bench = reading("all", snapshot=False)
    first = bench.pull()
    assert bench.ordered.next_event == bench.now + 0.5
    assert bench.ordered.next(bench.now + 0.4) == Wait(bench.now + 0.5)
    proof = bench.due()
    assert isinstance(proof, Pull)
    assert (proof.name, proof.batch, proof.max_bytes) == (first.name, 1, 1)
    assert bench.ordered.next(bench.now) == Wait(bench.now + 9.5)
    bench.status(proof.number, 503)
    assert bench.ordered.resets == 1


def test_nothing_that_is_asked_while_a_list_is_read_says_how_many_bytes() -> None:
    """The server would lose what does not fit; so a reader that follows with the same consumer does not say it either."""
    bench = reading("last_per_subject", pending=1)
    assert bench.pull().max_bytes == 0
    proof = bench.due()
    assert isinstance(proof, Pull)
    assert (proof.max_bytes, proof.heartbeat * 2 > proof.expires) == (0, True)
    bench.message(4)
    assert bench.caught_up()
    assert bench.pull().max_bytes == 0
    bench.status(bench.number, 408, "Request Timeout")
    assert bench.ordered.leave(keep=True) == []
    bench.ordered.resume(Window(9, 900, heartbeat=5, expires=30, rng=random.Random(1)))
    assert bench.pull().max_bytes == 0
    # By sequence there is no list.
    assert bench.reset() == ("by_start_sequence", 4)
    pull = bench.due()
    assert isinstance(pull, Pull)
    assert pull.max_bytes > 0


@pytest.mark.parametrize("moved", [5, 4])
def test_the_same_sequence_with_a_later_timestamp(moved: int) -> None:
    bench = reading(pending=2)
    bench.message(4, timestamp=70)
    bench.message(5, timestamp=60)
    bench.reset(2)
    # The clocks of two leaders differ: 4 is older than 5 and still has the later timestamp.
    assert not bench.message(4, timestamp=70)
    bench.message(moved, timestamp=71)
    error = bench.failure()
    assert isinstance(error, errors.StreamRegressedError)
    assert "'S'" in str(error)


@pytest.mark.parametrize("lags", [False, True])
def test_a_stream_that_ends_before_the_cursor_is_looked_at_twice(lags: bool) -> None:
    bench = doubtful()
    bench.look(3, created=MADE)
    assert not bench.asks()
    begun = bench.now
    bench.look(5 if lags else 3, created=MADE)
    assert bench.now > begun
    if lags:
        assert (bench.caught_up(), bench.pull().batch) == (True, 499)
        return
    assert isinstance(bench.failure(), errors.StreamRegressedError)
    bench.ordered.looked(StreamSaid(MADE, 9), bench.now)
    bench.ordered.look_failed(bench.now)
    assert isinstance(bench.failure(), errors.StreamRegressedError)


def doubtful() -> Bench:
    """A reader whose second consumer was made, and whose leader is about to say which stream it is."""
    bench = reading("all", pending=1, trusting=False)
    bench.message(5)
    bench.reset(0, 4)
    return bench


def test_a_look_without_a_response_is_a_reset_but_a_stream_that_is_gone_ends_it() -> None:
    bench = doubtful()
    assert not bench.refuse_to_look()
    assert isinstance(bench.due(), Create)
    bench = doubtful()
    assert not bench.refuse_to_look(GONE)
    assert bench.failure() is GONE
    bench = reading("all")
    bench.refused()
    pause(bench)
    bench.ordered.create_failed(bench.now, GONE)
    assert bench.failure() is GONE


def test_a_request_that_the_server_refuses_or_does_not_understand_ends_it() -> None:
    bench = reading("all")
    bench.pull()
    refused = errors.PermissionsViolationError()
    bench.ordered.forbidden(refused)
    assert bench.failure() is refused
    assert not bench.asks()
    assert bench.ordered.leave() == ["pre_1"], "the consumer is deleted all the same"
    bench = reading("all")
    bench.status(bench.pull().number, 400, "Bad Request - heartbeat value too large")
    assert "heartbeat value too large" in str(bench.failure())


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"delivered": None},
        {"delivered": {"stream_seq": "x"}, "num_pending": []},
        {"num_pending": -3, "delivered": {"stream_seq": -1, "consumer_seq": True}},
        {"num_pending": 1e300, "delivered": [], "cluster": 7, "created": 7},
        {"num_pending": None, "cluster": None, "created": "never"},
    ],
)
def test_a_response_that_says_nothing_is_one_of_an_empty_consumer(response: dict[str, object]) -> None:
    bench = reading()
    bench.refused()
    bench.due()
    bench.ordered.created(response, bench.now)
    assert bench.ordered.cursor == (0, 0)
    bench.ordered.inspected("pre_2", info(7), bench.now)  # nobody asked
    assert bench.ordered.cursor == (0, 0)
