"""What the stream's leader says, and what an ordered reader makes of it, decision by decision."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.readers import EARLY, GONE, LATER, MADE, Bench, reading
from trionats import errors
from trionats._protocol.jetstream.actions import Create, Delete, Fail, Find, Look, Start
from trionats._protocol.jetstream.leader import Leader, StreamSaid, read_stream
from trionats._protocol.jetstream.pull import Pull

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


# What a response says.


NO_STATES: list[object] = [None, [], {}, *({"last_seq": number} for number in (None, True, -1, 1 << 63))]


@pytest.mark.parametrize(
    ("state", "config", "said"),
    [
        ({"last_seq": 7}, {}, StreamSaid(MADE, 7)),
        ({"last_seq": 7}, {"num_replicas": 1}, StreamSaid(MADE, 7)),
        ({"last_seq": 0}, {"num_replicas": 3}, StreamSaid(MADE, 0, True)),
        ({"last_seq": 7}, {"num_replicas": "3"}, StreamSaid(MADE, 7)),
        ({"last_seq": 7}, None, StreamSaid(MADE, 7)),
        *((state, {}, None) for state in NO_STATES),
    ],
)
def test_a_stream_info(state: object, config: object, said: StreamSaid | None) -> None:
    info = {"created": MADE, "state": state}
    assert read_stream({**info, "config": config}) == said
    if config == {}:
        assert read_stream(info) == said
    assert read_stream({**info, "created": None}) is read_stream({}) is None


@given(st.dictionaries(st.sampled_from(["created", "state", "config", "x"]), JSON))
def test_any_stream_info_is_survived(info: dict[str, object]) -> None:
    read_stream(info)


@pytest.mark.parametrize(
    ("made", "stream", "known"),
    [
        (MADE, EARLY, True),
        (MADE, MADE, True),
        (MADE, LATER, False),
        ("2026-11-28T22:53:55.1Z", "2026-11-28T22:53:55.12Z", False),
        ("2026-11-28T22:53:55.12Z", "2026-11-28T22:53:55.1Z", True),
        ("2026-11-28T22:53:55Z", "2026-11-28T17:53:55-05:00", True),
        ("2026-11-28T22:53:55", "2026-11-28T22:53:54Z", True),
        # What cannot be compared is no evidence.
        (None, LATER, True),
        ("yesterday", LATER, True),
        (MADE, "today", True),
    ],
)
def test_a_stream_that_is_younger_than_its_consumer_is_another_one(made: object, stream: str, known: bool) -> None:
    leader = Leader()
    leader.consumer_made({"created": made})
    # The second consumer is younger than both, and says nothing.
    leader.consumer_made({"created": "2026-11-28T23:00:00Z"})
    assert leader.recognizes(StreamSaid(stream, 1)) is known


def test_once_it_is_known_which_stream_it_is_no_clock_matters() -> None:
    leader = Leader()
    leader.consumer_made({"created": MADE})
    leader.hear(StreamSaid(EARLY, 1))
    assert leader.recognizes(StreamSaid(EARLY, 9))
    assert not leader.recognizes(StreamSaid("2026-11-28T22:53:50Z", 9))
    leader.meet(StreamSaid(LATER, 9))
    assert leader.recognizes(StreamSaid(LATER, 9))
    assert not leader.recognizes(StreamSaid(EARLY, 9))


# An ordered reader of a stream in a cluster, unless something else is said.


def reader(policy: str = "last_per_subject", pending: int = 0, **options: object) -> Bench:
    given: dict[str, Any] = {"clustered": True, "trusting": False, "takes": True, "one_per_subject": True, **options}
    return reading(policy, pending, **given)


def test_only_in_a_cluster_the_leader_is_asked_and_reading_goes_on_meanwhile() -> None:
    bench = reader(pending=2, clustered=False)
    assert bench.feed((1, 1), (2, 0)) == "++!"
    assert not bench.ordered.attention
    bench = reader(pending=2)
    assert bench.feed((1, 1)) == "+"
    bench.look(2, replicated=False)
    assert not bench.ordered.attention
    assert bench.feed((2, 0)) == "+!"


@pytest.mark.parametrize(("last", "mark"), [(5, None), (9, 0), (9, 4), (9, 5)])
def test_an_end_before_the_leader_has_answered_waits_for_it(last: int, mark: int | None) -> None:
    """What matches may end before the stream does."""
    bench = reader(pending=1)
    assert bench.feed((5, 0)) == "+"
    # Nothing is asked for that would wait for what is new.
    assert not bench.asks()
    assert bench.look(last) is (mark is None)
    if mark is not None:
        assert not bench.asks()
        assert bench.find(mark)
    assert bench.pull().expires == 30


def test_an_empty_replica_is_not_an_empty_stream() -> None:
    bench = reader()
    assert not bench.caught_up()
    assert not bench.look(3, mark=3)
    # Another consumer, at once, from where it is.
    assert bench.create(3, at_once=True) == ("by_start_sequence", 1)
    bench.look(3)
    assert bench.feed((1, 2), (2, 1), (3, 0)) == "+++!"


def test_a_bucket_with_history_begins_from_the_beginning() -> None:
    bench = reader(pending=1, one_per_subject=False)
    assert bench.feed((1, 0)) == "+"
    bench.look(3, mark=3)
    assert bench.create(2) == ("last_per_subject", None)
    bench.look(3)
    assert bench.feed((1, 1), (3, 0)) == "-+!"


def test_a_second_replica_that_lags_is_waited_for() -> None:
    bench = reader("all")
    bench.look(3, mark=3)
    bench.create(1)
    bench.look(4)
    assert bench.feed((1, 0)) == "+"
    bench.find(3)
    waiting = bench.pull()
    # What was missing begins to come; nobody asks again as long as it does.
    bench.message(2)
    more = bench.pull()
    assert [(pull.batch, pull.expires) for pull in (waiting, more)] == [(1, 1.0)] * 2
    assert bench.feed((3, 0)) == "+!"


def test_a_mark_that_was_purged_is_asked_for_again() -> None:
    bench = reader("all")
    bench.look(3, mark=3)
    bench.create(0, at=0)
    bench.look(3, mark=3)
    bench.status(bench.pull().number, 408, "Request Timeout", {"Nats-Pending-Messages": "1"})
    assert not bench.nothing(bench.pull().number)
    assert bench.find(0)


def test_replicas_that_lag_for_long_are_left_and_waited_for_by_turns() -> None:
    bench = reader("all")
    bench.look(3)
    courses = ""
    for _ in range(6):
        bench.find(3)
        action = bench.ordered.next(bench.now)
        if isinstance(action, Delete):
            courses += "left "
            bench.create(0)
            bench.look(3)
        else:
            courses += "waited "
            assert isinstance(action, Pull)
            bench.status(action.number, 408, "Request Timeout")
            bench.nothing(bench.pull().number)
    assert courses == "left waited left waited left waited "


def test_a_lazy_reader_asks_at_the_end() -> None:
    bench = reader("all", 2, lazy=True)
    bench.pull()
    assert not bench.ordered.attention
    assert bench.feed((1, 1), (2, 0)) == "++"
    bench.look(3, mark=3)
    bench.create(1, at=1)
    bench.look(3)
    assert bench.feed((2, 1), (3, 0)) == "-+!"


# What is new.


@pytest.mark.parametrize("reset", [False, True])
def test_what_a_replica_that_lags_takes_for_new_is_not(reset: bool) -> None:
    bench = reader("new", at=4)
    if reset:  # before the leader has answered: it still has to find out
        assert not bench.refuse_to_look()
        assert bench.create(0, at=4) == ("by_start_sequence", 5)
    assert (bench.opening(), bench.asks()) == (True, False)
    bench.look(9)
    assert not bench.opening()
    assert bench.feed((5, 0), (7, 0), (9, 0), (10, 0)) == "---+"
    assert bench.reset(0) == ("by_start_sequence", 10)


@pytest.mark.parametrize("how", ["alone", "without replicas", "not allowed to ask"])
def test_the_consumer_is_taken_by_its_word_for_what_is_new(how: str) -> None:
    bench = reader("new", clustered=how != "alone", at=4)
    if how == "without replicas":
        bench.look(9, replicated=False)
    elif how == "not allowed to ask":
        assert bench.refuse_to_look(REFUSED)
    assert not bench.opening()
    assert bench.message(5)


# Another stream.


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("policy", ["all", "last_per_subject", "new"])
def test_a_stream_made_anew_is_told(policy: str, clustered: bool) -> None:
    bench = reader(policy, 1, clustered=clustered)
    if clustered:
        bench.look(4, replicated=False)
    bench.message(4)
    bench.reset(5)
    # Nothing of it is handed over before.
    assert not bench.message(7)
    bench.look(9, created=LATER)
    error = bench.failure()
    assert isinstance(error, errors.StreamRegressedError)
    assert "made anew at 2026-11-28T22:53:59" in str(error)


def test_an_empty_stream_made_anew_is_told_too() -> None:
    bench = reader("all", 0, clustered=False)
    assert bench.caught_up()
    bench.reset(0)
    bench.look(0, created=LATER)
    assert isinstance(bench.failure(), errors.StreamRegressedError)


def test_where_nothing_was_handed_over_there_is_nothing_to_tell() -> None:
    bench = reader(pending=3, clustered=False)
    bench.reset(3)
    bench.look(9, created=LATER)
    assert bench.create(1) == ("last_per_subject", None)
    # It could have been made anew once more.
    bench.look(9, created=LATER)
    assert bench.feed((9, 0)) == "+!"
    assert bench.ordered.restarts == 0


@pytest.mark.parametrize(
    ("policy", "again"), [("new", "all"), ("all", "all"), ("last_per_subject", "last_per_subject"), ("last", "last")]
)
def test_it_begins_anew(policy: str, again: str) -> None:
    bench = reader(policy, 1, clustered=False, restart=True)
    bench.message(4)
    assert bench.caught_up()
    assert bench.reset(5) == ("by_start_sequence", 4)
    bench.look(9, created=LATER)
    assert bench.ordered.restarts == 1
    assert bench.create(2) == (again, None)
    bench.look(9, created=LATER)
    bench.pull()
    assert bench.message(2, 1, timestamp=1)
    assert bench.message(3, 0, timestamp=2)
    assert bench.caught_up()


@pytest.mark.parametrize(("restart", "asked"), [(False, 1), (True, 5)])
def test_a_store_that_is_not_there_may_come_back_at_once(restart: bool, asked: int) -> None:
    bench = reader("all", 1, clustered=False, restart=restart)
    bench.message(4)
    bench.refused()
    begun = bench.now
    assert refuse(bench, GONE, asked) == [False] * asked
    assert bench.due() == Fail(GONE)
    assert bench.now - begun < 1.6


# Who may not ask.


REFUSED = errors.PermissionsViolationError("no")


def test_who_may_not_ask_for_the_stream_goes_on_without() -> None:
    bench = reader(pending=1)
    assert bench.refuse_to_look(REFUSED), "somebody is told"
    assert bench.feed((4, 0)) == "+!"
    bench.reset(0, at=3)
    # It is not asked again.
    assert bench.feed((9, 0)) == "+"
    # The end may have been reached before.
    bench = reader()
    assert bench.refuse_to_look(REFUSED)
    assert bench.caught_up()


def test_who_may_not_ask_for_messages_goes_on_without() -> None:
    bench = reader(pending=1)
    assert bench.feed((4, 0)) == "+"
    bench.look(9)
    assert bench.refuse_to_look(REFUSED)
    assert bench.caught_up()
    bench.reset(1)
    bench.look(9, created=LATER)
    assert isinstance(bench.due(), Fail), "which stream it is can be asked still"


@pytest.mark.parametrize("asks", ["look", "find"])
def test_a_leader_that_does_not_answer_is_asked_through_another_consumer(asks: str) -> None:
    bench = reader(pending=1)
    assert bench.feed((4, 0)) == "+"
    if asks == "find":
        bench.look(9)
    assert not bench.refuse_to_look(errors.TimeoutError())
    assert not bench.caught_up()
    assert bench.create(1) == ("last_per_subject", None)


def test_answers_that_nobody_waits_for_change_nothing() -> None:
    bench = reader(pending=1, clustered=False)
    bench.ordered.looked(StreamSaid(LATER, 0, True), bench.now)
    bench.ordered.found(99, bench.now)
    assert not bench.ordered.look_failed(bench.now, REFUSED)
    assert bench.feed((4, 0)) == "+!"


def test_a_place_that_was_sought_beyond_the_end_is_not_behind_it() -> None:
    bench = reader(
        start=Start("by_start_sequence", 1000), clustered=False, snapshot=False, one_per_subject=False, at=999
    )
    bench.reset(0, at=999)
    bench.look(10)
    assert bench.feed((1000, 0)) == "+"


# Refusals in a row.


def refuse(bench: Bench, error: Exception, times: int) -> list[bool]:
    told = []
    for _ in range(times):
        assert isinstance(bench.due(), Create)
        told.append(bench.ordered.create_failed(bench.now, error))
    return told


LIMIT = errors.BadRequestError(code=400, err_code=10026, description="maximum consumers limit reached")


def test_a_refusal_that_stays_is_told_and_then_ends_it() -> None:
    bench = reader("all", 1, clustered=False)
    bench.refused()
    begun = bench.now
    assert refuse(bench, LIMIT, 15) == [False, False, True] + [False] * 12
    assert bench.due() == Fail(LIMIT)
    assert bench.ordered.refusal is LIMIT
    # Longer than the consumer of a process that crashed takes up its place.
    assert 36 < bench.now - begun < 73


def test_progress_and_what_passes_do_not_add_up() -> None:
    bench = reader("all", 1, clustered=False)
    bench.refused()
    refuse(bench, LIMIT, 14)
    refuse(bench, errors.ServiceUnavailableError(code=503, err_code=10008), 30)
    bench.create(1)
    bench.look(9)
    assert bench.ordered.refusal is None
    bench.refused()
    assert refuse(bench, LIMIT, 14)[2]
    assert isinstance(bench.due(), Create)


def read_until_find(bench: Bench) -> None:
    """Grant what is asked for, until it is to find the last message that matches; there is one more than is given."""
    while (action := bench.due()) != Find(("m.>",)):
        if isinstance(action, Create):
            bench.create(1)
        elif isinstance(action, Look):
            bench.look(9)
        else:
            assert isinstance(action, Pull)
            bench.message(4)


def refuse_to_find(bench: Bench, times: int) -> list[bool]:
    told = []
    for _ in range(times):
        read_until_find(bench)
        told.append(bench.ordered.look_failed(bench.now, LIMIT))
    return told


def test_refusals_to_find_the_end_add_up_although_each_time_a_consumer_is_granted() -> None:
    bench = reader()
    assert refuse_to_find(bench, 15) == [False, False, True] + [False] * 12
    assert bench.due() == Fail(LIMIT)
    # They are forgotten with an answer.
    bench = reader()
    refuse_to_find(bench, 14)
    read_until_find(bench)
    bench.find(9)
    assert refuse_to_find(bench, 14)[2]
    assert isinstance(bench.due(), Create)
