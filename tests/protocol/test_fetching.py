"""One fetch: what it asks for, what ends it, what it returns and what it raises, by tables and by a state machine."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trionats import errors
from trionats._protocol.jetstream.actions import Fail, Inspect, Measure, Wait
from trionats._protocol.jetstream.consumers.fetching import Fetch, Wanted
from trionats._protocol.jetstream.consumers.priority import Terms
from trionats._protocol.jetstream.pull import Pull
from trionats._protocol.jetstream.refusals import consumer_gone

WHAT = "fetch from consumer 'C' of stream 'S'"
LEADER = (409, "Leadership Change")


def begun(batch: int = 3, *, now: float = 0.0, options: dict[str, Any] | None = None, **wanted: Any) -> Fetch:  # noqa: ANN401
    """A fetch that has asked."""
    life = Fetch(Wanted(batch, **wanted), "S", "C", now, **(options or {}))
    assert isinstance(life.next(now), Pull)
    return life


def body(action: object) -> dict[str, Any]:
    assert isinstance(action, Pull)
    found: dict[str, Any] = json.loads(action.body())
    return found


def failure(life: Fetch, now: float = 1.0) -> Exception:
    action = life.next(now)
    assert isinstance(action, Fail)
    return action.error


# -- what is asked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ({}, {"batch": 3, "expires": 5_000_000_000}),
        ({"expires": 10}, {"batch": 3, "expires": 10_000_000_000, "idle_heartbeat": 5_000_000_000}),
        ({"expires": 2, "heartbeat": 0.5}, {"batch": 3, "expires": 2_000_000_000, "idle_heartbeat": 500_000_000}),
        ({"max_bytes": 99}, {"batch": 3, "max_bytes": 99, "expires": 5_000_000_000}),
        ({"no_wait": True}, {"batch": 3, "expires": 100_000_000, "no_wait": True}),
        (
            {"terms": Terms("g", min_pending=4, min_ack_pending=5)},
            {"batch": 3, "group": "g", "min_pending": 4, "min_ack_pending": 5, "expires": 5_000_000_000},
        ),
    ],
)
def test_a_request_says_what_is_wanted(wanted: dict[str, Any], asked: dict[str, Any]) -> None:
    assert body(Fetch(Wanted(3, **wanted), "S", "C", 0.0).next(0.0)) == asked


@pytest.mark.parametrize(
    ("wanted", "heartbeat"),
    [({}, 0.5), ({"expires": 30}, 0.5), ({"expires": 0.9}, None), ({"no_wait": True}, None), ({"heartbeat": 2}, 2)],
)
def test_a_consumer_that_stands_still_at_what_was_deleted_is_woken_by_heartbeats(
    wanted: dict[str, Any], heartbeat: float | None
) -> None:
    assert Wanted(3, **wanted).waking() == Wanted(3, **{**wanted, "heartbeat": heartbeat})


@pytest.mark.parametrize(
    ("wanted", "kind", "text"),
    [
        ({"batch": 0}, ValueError, "fetch: batch is 0: it must be from 1 to 1000000"),
        ({"batch": 1_000_001}, ValueError, "fetch: batch is 1000001: it must be from 1 to 1000000"),
        ({"batch": "1"}, TypeError, "fetch: batch must be a whole number, not str"),
        ({"expires": 0.0}, ValueError, "fetch: expires is 0: it must be from 0.001 to 86400"),
        ({"expires": inf}, ValueError, "fetch: expires"),
        ({"expires": "1"}, TypeError, "fetch: expires must be"),
        ({"max_bytes": 0}, ValueError, "fetch: max_bytes is 0: it must be from 1 to"),
        ({"no_wait": 1}, TypeError, "fetch: no_wait must be True or False, not int"),
        ({"no_wait": True, "expires": 1.0}, ValueError, "fetch: no_wait and expires exclude each other"),
        ({"no_wait": True, "heartbeat": 1.0}, ValueError, "fetch: no_wait and heartbeat exclude each other"),
        ({"heartbeat": 2.6}, ValueError, "fetch: heartbeat is 2.6: it must be from 0.01 to 2.5"),
        ({"heartbeat": 0.0}, ValueError, "fetch: heartbeat is 0: it must be from 0.01 to 2.5"),
        ({"heartbeat": "1"}, TypeError, "fetch: heartbeat must be"),
        ({"terms": Terms("")}, ValueError, "fetch: group must not be empty"),
        ({"batch": 0, "call": "next"}, ValueError, "next: batch is 0"),
    ],
)
def test_what_cannot_be_wanted_is_refused_by_name(wanted: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        Wanted(**{"batch": 1, **wanted})
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("left", "round_trip", "expires", "returned_at"),
    [
        (30.0, None, 5.0, 29.995),
        (1.0, None, 0.98, 0.995),
        (1.0, 0.1, 0.8, 0.95),
        (1.0, 3.0, 0.5, 0.875),
        (0.01, None, 0.005, 0.00875),
        (0.0, None, 0.001, 0.0),
    ],
)
def test_a_deadline_shortens_what_the_server_is_told(
    left: float, round_trip: float | None, expires: float, returned_at: float
) -> None:
    """By two round trips, half of what is left at the most; and what came is returned before it, whatever the server says."""
    life = Fetch(Wanted(3), "S", "C", 100.0, deadline=100.0 + left, round_trip=round_trip)
    assert body(life.next(100.0))["expires"] == pytest.approx(expires * 1e9)
    life.received()
    if left <= 5:
        action = life.next(100.0 + returned_at - 1e-6)
        assert isinstance(action, Wait)
        assert action.until == pytest.approx(100.0 + returned_at)
        assert life.next(100.0 + returned_at) is None
        assert not life.over


# -- what ends it --------------------------------------------------------------------------------------------------------


def test_a_batch_that_is_full_is_returned() -> None:
    life = begun()
    assert [life.received() for _ in range(3)] == [True, False, True]
    assert life.next(1.0) is None
    assert life.over


def test_bytes_that_are_used_up_end_it_without_a_word_of_the_servers() -> None:
    life = begun(max_bytes=100)
    assert [life.received(60), life.received(40)] == [True, True]
    assert life.next(1.0) is None
    assert life.over


@pytest.mark.parametrize("got", [0, 2])
@pytest.mark.parametrize(
    "status", [(404, "No Messages"), (408, "Request Timeout"), (408, "Interest Expired"), (409, "Batch Completed")]
)
def test_the_servers_word_that_there_is_no_more_ends_it(got: int, status: tuple[int, str]) -> None:
    life = begun()
    for _ in range(got):
        life.received()
    life.status(1, *status, 1.0)
    assert life.next(1.0) is None
    assert life.over


@pytest.mark.parametrize(
    "status", [*[(code, "No Messages") for code in (404, 408, 423, 503, 400)], LEADER, (409, "Consumer Deleted")]
)
def test_a_late_status_of_another_request_changes_nothing(status: tuple[int, str]) -> None:
    life = begun()
    life.status(1, *LEADER, 0.0)
    assert body(life.next(0.0))["batch"] == 3
    before = life.next(0.0)
    life.status(1, *status, 0.0)
    life.status(0, *status, 0.0)
    assert life.next(0.0) == before
    life.status(2, 408, "Request Timeout", 0.0)
    life.status(2, *status, 0.0)
    assert life.next(0.0) is None


def test_nobody_says_anything() -> None:
    """Our own time is longer than what the server is told, and nothing moves it. Silence is not nothing."""
    life = begun()
    assert life.next(3.0) == Wait(6.0)
    assert str(failure(life, 6.0)) == f"{WHAT}: no answer within 5 s"
    assert isinstance(failure(life, 6.0), errors.TimeoutError)
    life = begun()
    life.received()
    assert life.next(3.0) == Wait(6.0)
    assert life.next(6.0) is None
    assert not life.over, "the server may still send"


def test_heartbeats_and_messages_move_no_end() -> None:
    life = begun(10, expires=2.0, heartbeat=0.5)
    life.received()
    for tenths in range(1, 31):
        life.status(1, 100, "Idle Heartbeat", tenths / 10)
        assert life.next(tenths / 10) == Wait(min(3.0, tenths / 10 + 1.0)) if tenths < 30 else life.next(3.0) is None


def test_what_came_is_returned_after_half_its_ack_wait() -> None:
    life = begun(10, expires=60.0, options={"ack_wait": 30.0})
    life.status(1, 100, "Idle Heartbeat", 7.0)
    assert life.received()
    life.noticed(7.0)
    assert life.next(7.0) == Wait(17.0), "the heartbeats' silence"
    life.noticed(9.0)
    life.status(1, 100, "Idle Heartbeat", 16.0)
    assert life.next(16.0) == Wait(22.0)
    assert life.next(22.0) is None
    assert life.due == 37.0


# -- silence ---------------------------------------------------------------------------------------------------------------


def test_silence_of_two_heartbeats_returns_what_came() -> None:
    life = begun(expires=10.0, heartbeat=1.0)
    assert life.next(1.9) == Wait(2.0)
    life.received()
    assert life.next(1.9) == Wait(3.9), "a message is a sign of life"
    assert life.next(3.9) is None
    assert not life.over


def test_silence_without_a_message_is_looked_into() -> None:
    life = begun(expires=10.0, heartbeat=1.0)
    assert life.next(2.0) == Inspect("C") == life.next(2.5)
    life.inspected(1, 512, 2.5)
    assert body(life.next(2.5)) == {"batch": 3, "expires": 7_500_000_000, "idle_heartbeat": 1_000_000_000}
    for _ in range(3):
        life.received()
    assert life.next(3.0) is None
    assert not life.over, "the first request may still be served"


def test_one_request_too_many_that_was_refused_in_silence_is_named() -> None:
    """The server does not tell who asked for heartbeats."""
    life = begun(expires=10.0, heartbeat=1.0)
    assert life.next(2.0) == Inspect("C")
    life.inspected(1, 1, 2.0)
    error = failure(life)
    assert str(error) == f"{WHAT}: 1 requests wait for it, and its max_waiting is 1: ours got no answer"
    assert isinstance(error, errors.BadRequestError)


def test_what_comes_while_it_is_looked_into_is_returned() -> None:
    life = begun(expires=10.0, heartbeat=1.0)
    assert life.next(2.0) == Inspect("C")
    life.received()
    life.inspected(1, 1, 2.0)
    assert life.next(2.0) is None
    life = begun(expires=10.0, heartbeat=1.0)
    assert life.next(2.0) == Inspect("C")
    life.status(1, 408, "Request Timeout", 2.0)
    life.inspect_failed(None, 2.0)
    assert life.next(2.0) is None


@pytest.mark.parametrize("error", [None, errors.PermissionsViolationError("no"), errors.TimeoutError()])
def test_silence_that_cannot_be_looked_into_is_asked_through_and_named_in_the_end(error: Exception | None) -> None:
    life = begun(expires=4.0, heartbeat=1.0)
    assert life.next(2.0) == Inspect("C")
    life.inspect_failed(error, 3.0)
    assert body(life.next(3.0))["expires"] == 1_000_000_000
    assert life.next(4.0) == Inspect("C"), "the heartbeats of a short request are closer"
    life.inspect_failed(error, 4.0)
    assert str(failure(life, 4.0)) == f"{WHAT}: no answer within 1 s"


# -- what is asked again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [LEADER, (409, "Server Shutdown"), (423, "Nats-Pin-Id mismatch")])
def test_what_passes_is_asked_again_within_its_time(status: tuple[int, str]) -> None:
    """At once the first time, then with pauses."""
    life, now = begun(options={"pin": "p"}), 0.0
    asked = []
    for number in range(1, 9):
        life.status(number, *status, now)
        action = life.next(now)
        if isinstance(action, Wait):
            now = action.until
            action = life.next(now)
        asked.append(round(now, 3))
        assert body(action)["expires"] == pytest.approx((5 - now) * 1e9)
        assert ("id" in body(action)) is (status[0] != 423)
    assert asked == [0.0, 0.05, 0.15, 0.35, 0.75, 1.55, 2.35, 3.15]
    life.status(9, *status, 4.9)
    assert life.next(4.9) == Wait(5.0)
    error = failure(life, 5.0)
    assert isinstance(error, errors.ServiceUnavailableError)
    assert status[1] in str(error)


@pytest.mark.parametrize("status", [LEADER, (409, "Server Shutdown"), (423, "Nats-Pin-Id mismatch"), (503, "")])
def test_what_passes_returns_what_came(status: tuple[int, str]) -> None:
    life = begun()
    life.received()
    life.status(1, *status, 1.0)
    assert life.next(1.0) is None
    assert life.over


def test_a_sign_of_life_settles_what_was_wrong() -> None:
    life = begun(expires=4.0, heartbeat=1.0)
    life.status(1, *LEADER, 1.0)
    assert isinstance(life.next(1.0), Pull)
    life.status(2, 100, "Idle Heartbeat", 1.5)
    life.status(2, 408, "Request Timeout", 4.0)
    assert life.next(4.0) is None


def test_who_is_cancelled_at_a_deadline_is_not_told_something_else_before() -> None:
    life = begun(options={"deadline": 1.0})
    life.status(1, *LEADER, 0.5)
    assert isinstance(life.next(0.5), Pull)
    life.status(2, *LEADER, 0.979)
    assert life.next(0.98) == Wait(inf)
    life = Fetch(Wanted(1), "S", "C", 0.0, deadline=1.0, connected=False)
    assert life.next(0.0) == Wait(inf) == life.next(0.99)


# -- the connection ----------------------------------------------------------------------------------------------------------


def test_a_lost_connection_returns_what_came() -> None:
    life = begun()
    life.received()
    life.connection_lost()
    assert life.next(1.0) is None
    assert not life.over


def test_with_nothing_the_next_connection_is_asked_and_without_one_that_is_raised() -> None:
    life = begun()
    life.connection_lost()
    assert life.next(1.0) == Wait(5.0)
    life.connection_restored()
    assert body(life.next(2.0))["expires"] == 3_000_000_000
    life.status(1, 404, "No Messages", 2.0)
    assert life.next(2.0) == Wait(6.0), "the first request is over"
    life.connection_lost()
    error = failure(life, 5.0)
    assert isinstance(error, errors.DisconnectedError)
    assert str(error) == f"{WHAT}: there is no connection"


def test_a_fetch_may_begin_without_a_connection() -> None:
    life = Fetch(Wanted(1), "S", "C", 0.0, connected=False)
    assert life.next(0.0) == Wait(5.0)
    life.connection_restored()
    assert isinstance(life.next(1.0), Pull)
    assert isinstance(failure(Fetch(Wanted(1), "S", "C", 0.0, connected=False), 5.0), errors.DisconnectedError)


def test_a_connection_lost_while_it_was_looked_at_the_consumer() -> None:
    life = begun()
    life.status(1, 503, "", 1.0)
    assert life.next(1.0) == Inspect("C")
    life.connection_lost()
    life.inspect_failed(errors.DisconnectedError("lost"), 1.0)
    assert life.next(1.0) == Wait(5.0)
    life.connection_restored()
    assert isinstance(life.next(2.0), Pull)


# -- what it fails with ------------------------------------------------------------------------------------------------------


def test_a_consumer_that_was_deleted_is_named() -> None:
    """What came of it cannot be acknowledged any more, and comes again to whoever makes it anew."""
    for got in (0, 2):
        life = begun()
        for _ in range(got):
            life.received()
        life.status(1, 409, "Consumer Deleted", 1.0)
        error = failure(life)
        assert isinstance(error, errors.ConsumerGoneError)
        assert str(error) == "consumer 'C' of stream 'S': it was deleted, or its stream"


def test_what_a_consumer_without_acknowledgements_gave_is_returned_though_it_was_deleted() -> None:
    life = begun(options={"acknowledges": False})
    life.received()
    life.status(1, 409, "Consumer Deleted", 1.0)
    assert life.next(1.0) is None


def test_where_nobody_answers_it_is_found_out_what_is_missing() -> None:
    life = begun()
    life.status(1, 503, "", 1.0)
    assert life.next(1.0) == Inspect("C")
    missing = consumer_gone("S", "C", "consumer not found", 10014)
    life.inspect_failed(missing, 1.1)
    error = failure(life)
    assert isinstance(error, errors.ConsumerGoneError)
    assert (str(error), error.err_code) == ("consumer 'C' of stream 'S': consumer not found", 10014)


def test_a_consumer_that_is_there_all_the_same_is_asked_again() -> None:
    life = begun()
    life.status(1, 503, "", 1.0)
    assert life.next(1.0) == Inspect("C")
    life.inspected(0, None, 1.1)
    assert isinstance(life.next(1.1), Pull)


@pytest.mark.parametrize(
    "error", [None, errors.explained(errors.ServiceUnavailableError, "no leader", code=503, err_code=10008)]
)
def test_a_stream_without_a_leader_is_asked_again(error: Exception | None) -> None:
    life = begun()
    life.status(1, 503, "", 1.0)
    assert life.next(1.0) == Inspect("C")
    life.inspect_failed(error, 4.9999)
    assert isinstance(failure(life, 5.0), errors.ServiceUnavailableError)


def test_who_may_not_look_is_told_what_that_can_mean() -> None:
    life = begun()
    life.status(1, 503, "", 1.0)
    assert life.next(1.0) == Inspect("C")
    life.inspect_failed(errors.PermissionsViolationError("no"), 1.0)
    assert str(failure(life)) == f"{WHAT}: nobody answers: it is not there, has no leader, or JetStream is not enabled"


def test_a_refusal_that_stays_is_raised() -> None:
    life = begun()
    life.status(1, 503, "", 1.0)
    assert life.next(1.0) == Inspect("C")
    refusal = errors.explained(errors.ServiceUnavailableError, "not enabled for account", code=503, err_code=10039)
    life.inspect_failed(refusal, 1.0)
    life.failed(errors.Error("a second reason is of no interest"))
    assert failure(life) is refusal


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ((409, "Exceeded MaxRequestBatch of 2"), "batch is 3: 409 Exceeded MaxRequestBatch of 2"),
        ((409, "Exceeded MaxRequestExpires of 1s"), "expires is 5.0: 409 Exceeded MaxRequestExpires of 1s"),
        ((409, "Exceeded MaxRequestMaxBytes of 9"), "max_bytes is 50: 409 Exceeded MaxRequestMaxBytes of 9"),
        ((409, "Exceeded MaxWaiting"), "409 Exceeded MaxWaiting"),
        ((409, "Consumer is push based"), "409 Consumer is push based"),
        ((400, "Bad Request - heartbeat value too large"), "400 Bad Request - heartbeat value too large"),
        ((499, ""), "499"),
    ],
)
def test_what_the_server_refuses_is_raised_with_what_it_is_about(status: tuple[int, str], text: str) -> None:
    life = begun(max_bytes=50)
    life.status(1, *status, 1.0)
    error = failure(life)
    assert isinstance(error, errors.BadRequestError)
    assert (str(error), error.code) == (f"{WHAT}: {text}", status[0])
    life = begun(max_bytes=50)
    life.received(9)
    life.status(1, *status, 1.0)
    assert life.next(1.0) is None, "what came is returned"


TOO_LARGE = (409, "Message Size Exceeds MaxBytes")


def test_a_message_that_does_not_fit_behind_others_is_the_normal_end() -> None:
    life = begun(max_bytes=50)
    life.received(40)
    life.status(1, *TOO_LARGE, 1.0)
    assert life.next(1.0) is None
    assert life.over


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ((90, 7), "max_bytes is 50: the next message (sequence 7) has 90, its subjects and headers included"),
        ((None, None), "max_bytes is 50: the next message is larger"),
    ],
)
def test_a_message_that_does_not_fit_at_all_is_named_with_both_sizes(found: tuple[Any, Any], text: str) -> None:
    life = begun(max_bytes=50)
    life.status(1, *TOO_LARGE, 1.0)
    assert life.next(1.0) == Measure()
    life.measured(*found)
    assert str(failure(life)) == f"{WHAT}: {text}"


# -- and whatever may come -----------------------------------------------------------------------------------------------


STATUSES = [
    (100, "Idle Heartbeat"),
    (404, "No Messages"),
    (408, "Request Timeout"),
    (409, "Batch Completed"),
    LEADER,
    TOO_LARGE,
]
STATUSES += [
    (409, "Server Shutdown"),
    (409, "Consumer Deleted"),
    (423, "Nats-Wrong-Pin-Id"),
    (503, ""),
    (400, "Bad Request"),
    (777, "?"),
]


class FetchMachine(RuleBasedStateMachine):
    """A fetch to which anything may happen: it ends in time, never with more than it was told of, and empty only by the server's word."""

    @initialize(
        batch=st.integers(1, 4),
        expires=st.sampled_from([0.5, 5.0, 20.0]),
        max_bytes=st.sampled_from([None, 100]),
        heartbeat=st.sampled_from([None, 0.2]),
        deadline=st.sampled_from([inf, 0.001, 3.0, 300.0]),
        connected=st.booleans(),
        acknowledges=st.booleans(),
    )
    def begin(
        self,
        batch: int,
        expires: float,
        max_bytes: int | None,
        heartbeat: float | None,
        deadline: float,
        connected: bool,
        acknowledges: bool,
    ) -> None:
        self.now, self.got, self.emptied, self.gone = 0.0, 0, False, False
        self.batch, self.expires, self.deadline, self.connected = batch, expires, deadline, connected
        self.numbers: list[int] = []
        self.over: object = ...
        wanted = Wanted(batch, expires, max_bytes, heartbeat=heartbeat)
        self.life = Fetch(
            wanted, "S", "C", 0.0, deadline=deadline, connected=connected, acknowledges=acknowledges, ack_wait=30.0
        )
        self.advance(0.0)

    def advance(self, now: float) -> None:
        """Do what is to be done at a time."""
        self.now = now
        for _ in range(20):
            action = self.life.next(now)
            self.until = inf
            if isinstance(action, Pull):
                assert self.connected
                self.numbers.append(action.number)
                asked = json.loads(action.body())
                assert asked["batch"] == self.batch
                assert asked.get("idle_heartbeat", 0) * 2 <= asked["expires"]
                assert now + asked["expires"] / 1e9 <= max(min(self.expires, self.deadline), now) + 0.0011
                self.answered = False
            elif isinstance(action, Wait):
                assert action.until > now
                self.until = action.until
                return
            elif isinstance(action, Inspect | Measure):
                self.looking = action
                return
            else:
                self.over = action
                return
        raise AssertionError("it never waits")

    @property
    def running(self) -> bool:
        return self.over is ... and not hasattr(self, "looking")

    @precondition(lambda self: self.running)
    @rule(size=st.sampled_from([30, 60, 100]))
    def message(self, size: int) -> None:
        if self.connected and self.numbers:
            self.got += 1
            if self.life.received(size):
                self.life.noticed(self.now)
            self.advance(self.now)

    @precondition(lambda self: self.running)
    @rule(status=st.sampled_from(STATUSES), back=st.integers(0, 2))
    def status(self, status: tuple[int, str], back: int) -> None:
        if not self.connected:
            return
        number = (self.numbers[-1] if self.numbers else 0) - back
        if not back and self.numbers and (status[0] in (404, 408) or status[1] == "Batch Completed"):
            self.emptied = True
        self.life.status(number, *status, self.now)
        self.advance(self.now)

    @precondition(lambda self: hasattr(self, "looking"))
    @rule(outcome=st.sampled_from(["there", "full", "missing", "refused", "silence", "forbidden"]), late=st.booleans())
    def looked(self, outcome: str, late: bool) -> None:
        action = self.looking
        del self.looking
        if late:
            self.now += 2.0
        if isinstance(action, Measure):
            self.life.measured(*((7, 7) if outcome == "there" else (None, None)))
        elif outcome in ("there", "full"):
            self.life.inspected(1, 1 if outcome == "full" else 512, self.now)
        else:
            told: dict[str, Exception] = {
                "missing": consumer_gone("S", "C", "not found"),
                "refused": errors.explained(errors.APIError, "refused", code=500, err_code=1),
                "forbidden": errors.PermissionsViolationError("no"),
            }
            self.life.inspect_failed(told.get(outcome), self.now)
        self.advance(self.now)

    @precondition(lambda self: self.over is ...)
    @rule()
    def lose(self) -> None:
        if self.connected:
            self.connected = False
            self.life.connection_lost()
            if self.running:
                self.advance(self.now)

    @precondition(lambda self: self.over is ...)
    @rule()
    def restore(self) -> None:
        if not self.connected:
            self.connected = True
            self.life.connection_restored()
            if self.running:
                self.advance(self.now)

    @precondition(lambda self: self.running)
    @rule(part=st.sampled_from([0.3, 1.0]))
    def time(self, part: float) -> None:
        if self.until < inf:
            self.advance(self.now + (self.until - self.now) * part)

    @precondition(lambda self: self.over is not ...)
    @rule(status=st.sampled_from(STATUSES))
    def late(self, status: tuple[int, str]) -> None:
        """What was to be returned stays so, and what was to be raised."""
        self.life.status(self.numbers[-1] if self.numbers else 1, *status, self.now)
        assert self.life.next(self.now) == self.over

    @invariant()
    def it_ends_in_time(self) -> None:
        if self.over is ...:
            # The server's time, our margin, and one look at the consumer under way.
            assert self.now <= self.expires + 1.0 + 2.0
            assert self.until <= self.expires + 1.0 + 1e-9 or self.until == inf

    @invariant()
    def what_ends_it_is_something_that_happened(self) -> None:
        if self.over is None:
            assert self.got or self.emptied
        if self.got and self.running and self.connected:
            assert self.until < inf

    @invariant()
    def it_waits_for_ever_only_for_a_deadline(self) -> None:
        if self.running and self.until == inf:
            assert self.deadline < self.expires + 0.02


TestFetch = FetchMachine.TestCase
