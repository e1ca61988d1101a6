"""Pull requests, credit and resuming, decision by decision."""

from __future__ import annotations

import json
import random
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import errors
from trionats._protocol.jetstream.acks import AckSubject, parse_ack_subject, whole_number
from trionats._protocol.jetstream.actions import Action, Create, Delete, Fail, Inspect, Look, Start, Wait
from trionats._protocol.jetstream.leader import StreamSaid
from trionats._protocol.jetstream.ordered import Ordered
from trionats._protocol.jetstream.pull import Ending, Pull, Window
from trionats._protocol.jetstream.refusals import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PENDING = {"Nats-Pending-Messages": "0", "Nats-Pending-Bytes": "0"}


# The reply subject.


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("$JS.ACK.S.C.1.20.3.1795440575220161869.2", AckSubject("S", "C", 1, 20, 3, 1795440575220161869, 2)),
        # Measured with `js_ack_fc_v2`, wire.md section 2.
        (
            "$JS.ACK._.szMpdrwD.S.C.1.1.1.1795440575220161869.2",
            AckSubject("S", "C", 1, 1, 1, 1795440575220161869, 2),
        ),
        ("$JS.ACK.hub.szMpdrwD.S.C.2.7.8.9.10", AckSubject("S", "C", 2, 7, 8, 9, 10, "hub")),
        ("$JS.ACK.hub.szMpdrwD.S.C.2.7.8.9.10.later.still", AckSubject("S", "C", 2, 7, 8, 9, 10, "hub")),
        ("$JS.ACK.S.C.1.2.3.4.5.6", None),
        ("$JS.ACK.S.C.1.2.3.4", None),
        ("$JS.ACK.S.C.1.2.three.4.5", None),
        ("$JS.ACK.S.C.1.2..4.5", None),
        (f"$JS.ACK.S.C.1.{'9' * 5000}.3.4.5", None),
        ("$JS.ACK.S.C.1.-2.3.4.5", None),
        (f"$JS.ACK.S.C.1.2.3.{1 << 63}.5", None),
        (f"$JS.ACK.S.C.1.{1 << 63}.3.4.5", None),
        (f"$JS.ACK.S.C.1.2.3.4.{1 << 63}", None),
        ("$JS.FC.S.C.1.2.3.4.5", None),
        ("_INBOX.a.b.c.d.e.f.g.h", None),
        ("", None),
    ],
)
def test_ack_subject(reply: str, expected: AckSubject | None) -> None:
    assert parse_ack_subject(reply) == expected


@given(
    st.text(max_size=60) | st.lists(st.text(max_size=4), max_size=14).map(lambda parts: ".".join(["$JS.ACK", *parts]))
)
def test_any_reply_subject_is_survived(reply: str) -> None:
    parse_ack_subject(reply)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("12", 12),
        (7, 7),
        ("", 0),
        ("-1", 0),
        ("²", 0),
        ("9" * 30, 0),
        (None, 0),
        ([], 0),
        (-1, 0),
        (True, 0),
        (1 << 63, 0),
        (1.5, 0),
    ],
)
def test_whole_number(value: object, number: int) -> None:
    assert whole_number({"n": value}, "n") == number
    assert whole_number({}, "n") == 0


@given(st.integers(0, 10_000), st.integers())
def test_backoff_grows_to_ten_seconds_and_is_jittered(failures: int, seed: int) -> None:
    longest = min(10.0, 0.05 * 2.0 ** min(failures, 20))
    assert longest / 2 <= backoff(failures, random.Random(seed)) <= longest


# The window.


def window(messages: int = 10, size: int = 1000) -> Window:
    return Window(messages, size, heartbeat=5.0, expires=30.0, rng=random.Random(1))


def pulled(opened: Window, now: float = 0.0, at_most: int = 0) -> Pull:
    pull = opened.pull("C", now, at_most)
    assert pull is not None
    return pull


def test_a_request_waits_with_heartbeats_or_not_at_all() -> None:
    waits = pulled(window())
    assert json.loads(waits.body()) == {
        "batch": 10,
        "max_bytes": 1000,
        "expires": 30_000_000_000,
        "idle_heartbeat": 5_000_000_000,
    }
    assert json.loads(pulled(window(), at_most=3).body()) == {"batch": 3, "max_bytes": 1000, "no_wait": True}


def test_it_is_refilled_when_half_is_free() -> None:
    opened = window(10)
    pulled(opened)
    for count in range(1, 5):
        opened.arrived(1, 0)
        opened.buffered(1)
        opened.taken(1)
        assert opened.pull("C", 0) is None, count
    opened.arrived(1, 0)
    opened.buffered(1)
    assert opened.pull("C", 0) is None
    opened.taken(1)
    assert pulled(opened).batch == 5
    assert opened.asked == 10


def test_large_messages_are_refilled_by_bytes() -> None:
    opened = window(100, 1000)
    pulled(opened)
    for _ in range(5):
        opened.arrived(100, 0)
        opened.buffered(100)
    for _ in range(4):
        opened.taken(100)
        assert opened.pull("C", 0) is None
    opened.taken(100)
    refill = pulled(opened)
    assert (refill.batch, refill.max_bytes) == (5, 500)


def test_small_messages_are_not_refilled_one_by_one() -> None:
    """A request that is complete gives back the bytes it did not need: that alone is no reason to ask."""
    opened = window(100, 100_000)
    pulled(opened)
    for _ in range(50):
        opened.arrived(10, 0)
        opened.buffered(10)
        opened.taken(10)
    second = pulled(opened)
    assert second.batch == 50
    for _ in range(50):
        opened.arrived(10, 0)
        opened.buffered(10)
    opened.status(1, 409, "Batch Completed", {**PENDING, "Nats-Pending-Bytes": "99000"}, 0)
    opened.taken(10)
    assert opened.pull("C", 0) is None


def test_what_is_not_taken_counts() -> None:
    opened = window(4)
    pulled(opened)
    for _ in range(4):
        opened.arrived(1, 0)
        opened.buffered(1)
    assert opened.pull("C", 0) is None
    assert opened.next_event(0) == inf
    opened.taken(1)
    assert opened.pull("C", 0) is None
    opened.taken(1)
    assert pulled(opened).batch == 2


def test_bytes_are_credit_too() -> None:
    opened = window(100, 1000)
    pulled(opened)
    opened.arrived(900, 0)
    opened.buffered(900)
    opened.status(1, 409, "Message Size Exceeds MaxBytes", {**PENDING, "Nats-Pending-Messages": "99"}, 0)
    assert opened.pull("C", 0) is None
    opened.taken(900)
    assert pulled(opened).max_bytes == 1000


@given(st.integers(1, 3), st.lists(st.booleans(), max_size=60))
def test_a_small_credit_never_stalls(credit: int, taken: list[bool]) -> None:
    opened = window(credit, 1)
    for take in taken:
        if opened.asked:
            opened.arrived(1, 0)
            opened.buffered(1)
        if take and not opened.asked and opened.pull("C", 0) is None:
            opened.taken(1)
            assert opened.pull("C", 0) is not None


def test_one_request_at_a_time_while_nothing_may_wait() -> None:
    opened = window(10)
    pulled(opened, at_most=100)
    for _ in range(6):
        opened.arrived(1, 0)
    assert opened.pull("C", 0, 100) is None
    for _ in range(4):
        opened.arrived(1, 0)
    assert pulled(opened, at_most=100).batch == 10


def test_what_does_not_fit_comes_when_there_is_room() -> None:
    opened = window(10, 1000)
    pulled(opened)
    opened.arrived(400, 0)
    opened.buffered(400)
    opened.status(1, 409, "Message Size Exceeds MaxBytes", {**PENDING, "Nats-Pending-Messages": "9"}, 0)
    second = pulled(opened)
    assert second.max_bytes == 600
    refused = {"Nats-Pending-Messages": str(second.batch), "Nats-Pending-Bytes": "600"}
    opened.status(2, 409, "Message Size Exceeds MaxBytes", refused, 0)
    # The same again would be refused again.
    assert opened.pull("C", 0) is None
    opened.taken(400)
    assert pulled(opened).max_bytes == 1000


def test_what_never_fits_comes_alone() -> None:
    opened = window(10, 1000)
    pulled(opened)
    refused = {"Nats-Pending-Messages": "10", "Nats-Pending-Bytes": "1000"}
    opened.status(1, 409, "Message Size Exceeds MaxBytes", refused, 0)
    alone = pulled(opened)
    assert (alone.batch, alone.max_bytes) == (1, 0)
    assert "max_bytes" not in json.loads(alone.body())
    opened.arrived(5000, 0)
    opened.buffered(5000)
    assert opened.pull("C", 0) is None
    opened.taken(5000)
    assert (pulled(opened).batch, opened.asked) == (10, 10)


@pytest.mark.parametrize(
    ("code", "text", "counts", "ending", "pause"),
    [
        (100, "Idle Heartbeat", None, Ending.ALIVE, None),
        (400, "Bad Request - heartbeat value too large", None, Ending.MISTAKEN, 0),
        (404, "No Messages", None, Ending.EMPTY, 0),
        (408, "Request Timeout", 10, Ending.ENDED, 0),
        (408, "Interest Expired", None, Ending.ENDED, 0),
        (408, "Requests Pending", None, Ending.ENDED, 1),
        (409, "Message Size Exceeds MaxBytes", 3, Ending.ENDED, 0),
        (409, "Batch Completed", 0, Ending.ENDED, 0),
        (409, "Leadership Change", None, Ending.ENDED, 0),
        (409, "Server Shutdown", 10, Ending.ENDED, 0),
        (409, "Exceeded MaxRequestBatch of 5", None, Ending.ENDED, 1),
        (409, "Exceeded MaxWaiting", None, Ending.ENDED, 1),
        (409, "Consumer Deleted", None, Ending.GONE, None),
        (409, "Consumer is push based", None, Ending.GONE, None),
        (423, "Nats-Wrong-Pin-Id", None, Ending.ENDED, 1),
        (503, "", None, Ending.GONE, None),
        (999, "Something New", None, Ending.ENDED, 1),
    ],
)
def test_statuses(code: int, text: str, counts: int | None, ending: Ending, pause: float | None) -> None:
    opened = window()
    pulled(opened)
    headers = {} if counts is None else {"Nats-Pending-Messages": str(counts), "Nats-Pending-Bytes": "1000"}
    assert opened.status(1, code, text, headers, 2.0) is ending
    if pause is None:
        assert opened.asked == 10
        return
    assert opened.asked == 0
    if pause:
        assert opened.pull("C", 2.9) is None
        assert opened.next_event(2.9) == 3.0
    pulled(opened, 2.0 + pause)


def test_a_status_in_a_row_is_not_answered_in_a_hurry() -> None:
    opened = window()
    pauses = []
    now = 0.0
    for _ in range(12):
        pull = pulled(opened, now)
        opened.status(pull.number, 409, "Leadership Change", {}, now)
        pauses.append(min(opened.next_event(now), 1000) - now if opened.pull("C", now) is None else 0.0)
        if not pauses[-1]:
            opened.status(pull.number + 1, 409, "Leadership Change", {}, now)
        now += 11.0
    assert pauses[0] == 0
    assert all(0 < pause <= 10 for pause in pauses[1:])
    assert pauses[-1] >= 5


def test_a_status_of_an_earlier_request_or_consumer_changes_nothing() -> None:
    opened = window()
    pulled(opened)
    assert opened.status(1, 408, "Request Timeout", {}, 0) is Ending.ENDED
    second = pulled(opened)
    assert opened.status(1, 408, "Request Timeout", {}, 0) is Ending.UNKNOWN
    assert opened.asked == second.batch
    opened.forget()
    third = pulled(opened, 7.0)
    for code, text in [(409, "Consumer Deleted"), (503, ""), (100, "Idle Heartbeat"), (404, "No Messages")]:
        assert opened.status(second.number, code, text, {}, 9.0) is Ending.UNKNOWN
    assert opened.asked == third.batch
    assert opened.silent_after == 17.0


def test_silence_counts_from_the_last_sign_of_life_and_only_while_something_is_asked() -> None:
    opened = window(2)
    assert opened.silent_after == inf
    pulled(opened, 3.0)
    assert opened.silent_after == 13.0
    opened.status(1, 100, "Idle Heartbeat", {}, 8.0)
    assert opened.silent_after == 18.0
    opened.arrived(1, 9.0)
    assert opened.next_event(9.0) == 19.0
    opened.arrived(1, 9.5)
    assert opened.silent_after == inf


def test_a_request_that_nothing_is_heard_behind_is_looked_into() -> None:
    opened = window()
    assert opened.unproven_after == inf
    pulled(opened, 3.0)
    assert opened.unproven_after == opened.next_event(3.0) == 3.5
    proof = opened.prove("C")
    # No message fits into it: it takes no credit.
    assert json.loads(proof.body()) == {"batch": 1, "max_bytes": 1, "no_wait": True}
    assert opened.asked == 10
    assert opened.unproven_after == inf
    assert opened.status(proof.number, 404, "No Messages", {}, 3.6) is Ending.ENDED
    assert opened.asked == 10
    # Silence is counted from what was heard.
    assert opened.silent_after == 13.6


@pytest.mark.parametrize("code", [404, 408, 409])
def test_whatever_is_answered_shows_that_the_consumer_is_there(code: int) -> None:
    opened = window()
    pulled(opened)
    proof = opened.prove("C")
    assert opened.status(proof.number, code, "Requests Pending", {}, 0) is Ending.ENDED
    assert opened.asked == 10
    assert opened.next_event(0) == 10


def test_the_consumer_is_gone() -> None:
    opened = window()
    pulled(opened)
    assert opened.status(opened.prove("C").number, 503, "", {}, 0) is Ending.GONE


@pytest.mark.parametrize(
    ("happening", "proven"),
    [
        (lambda opened: opened.arrived(1, 1.0), True),
        (lambda opened: opened.status(2, 100, "Idle Heartbeat", {}, 1.0), True),
        (lambda opened: opened.status(1, 409, "Batch Completed", {}, 1.0), False),
        (lambda opened: opened.status(1, 100, "Idle Heartbeat", {}, 1.0), False),
        (lambda opened: opened.forget(), True),
    ],
)
def test_only_what_answers_the_request_proves_anything(happening: Callable[[Window], object], proven: bool) -> None:
    """What the server said of an earlier one may have crossed this one."""
    opened = window(2)
    pulled(opened)
    for _ in range(2):
        opened.arrived(1, 0.5)
    pulled(opened, 1.0)
    happening(opened)
    assert (opened.unproven_after == inf) is proven


def test_a_renewal_is_proven_as_the_first_request_is() -> None:
    """A deletion may cross it just as well."""
    opened = window()
    pulled(opened)
    opened.status(1, 408, "Request Timeout", {"Nats-Pending-Messages": "10", "Nats-Pending-Bytes": "1000"}, 30.0)
    pulled(opened, 30.0)
    assert opened.unproven_after == 30.5


def test_bytes_that_are_used_up_end_the_request_without_a_word() -> None:
    opened = window(10, 100)
    pulled(opened)
    opened.arrived(100, 0)
    assert opened.asked == 0


@given(
    st.integers(1, 5),
    st.lists(
        st.tuples(st.sampled_from(["arrived", "taken", "pull", "404", "408", "409", "size"]), st.integers(0, 30)),
        max_size=60,
    ),
)
def test_the_sum_never_leaves_its_bounds(credit: int, happenings: list[tuple[str, int]]) -> None:
    """ADR-37's accounting, clamped, against whatever a server may say."""
    opened = window(credit, 20)
    buffered: list[int] = []
    number = 0
    for happening, amount in happenings:
        match happening:
            case "arrived" if opened.asked:
                opened.arrived(amount, 0)
                opened.buffered(amount)
                buffered.append(amount)
            case "taken" if buffered:
                opened.taken(buffered.pop(0))
            case "pull":
                pull = opened.pull("C", 0)
                number = pull.number if pull else number
            case "404":
                opened.status(number, 404, "No Messages", {}, 0)
            case "408":
                headers = {"Nats-Pending-Messages": str(amount), "Nats-Pending-Bytes": str(amount)}
                opened.status(number, 408, "Request Timeout", headers, 0)
            case "409":
                opened.status(number, 409, "Leadership Change", {}, 0)
            case "size":
                headers = {"Nats-Pending-Messages": str(amount), "Nats-Pending-Bytes": str(amount)}
                opened.status(number, 409, "Message Size Exceeds MaxBytes", headers, 0)
        assert opened.asked >= 0
        assert opened.asked + len(buffered) <= credit
    for size in buffered:
        opened.taken(size)
    assert opened.asked or opened.pull("C", 1e9) is not None


# The ordered reader.


class Bench:
    """An ordered reader on the bench, and the little of a server that it needs."""

    def __init__(self, policy: str = "last_per_subject", *, at: int = 0, pending: int = 5, **options: object) -> None:
        given: dict[str, Any] = {"filter_subjects": ["$O.b.M.>"], "start": Start(policy), "snapshot": True, **options}
        self.ordered = Ordered("OBJ_b", "pre", random.Random(3), **given)
        self.now = 100.0
        self.sequence = 0
        self.created = self.create(at=at, pending=pending)

    def create(self, *, at: int = 0, pending: int = 0, look: bool = True) -> Create:
        create = self.due()
        assert isinstance(create, Create)
        self.sequence = 0
        self.ordered.created(info(pending=pending, at=at), self.now)
        # Of a second consumer's stream the leader has to say that it is the same.
        if look and self.ordered.attention and self.due() == Look():
            self.ordered.looked(said(), self.now)
        return create

    def due(self) -> Action:
        """Let time pass until there is something to do; deletions aside."""
        while True:
            action = self.ordered.next(self.now)
            if isinstance(action, Delete):
                continue
            if not isinstance(action, Wait) or action.until == inf:
                return action
            self.now = action.until

    def pull(self) -> Pull:
        action = self.ordered.next(self.now)
        assert isinstance(action, Pull)
        return action

    def message(
        self, seq: int, *, pending: int = 0, timestamp: int | None = None, consumer_seq: int | None = None
    ) -> bool:
        """Deliver a message; say whether it was handed over."""
        self.sequence = self.sequence + 1 if consumer_seq is None else consumer_seq
        when = seq * 10 if timestamp is None else timestamp
        reply = f"$JS.ACK.OBJ_b.{self.ordered.name}.1.{seq}.{self.sequence}.{when}.{pending}"
        ack = self.ordered.received(reply, 50, self.now)
        if ack is not None:
            self.ordered.delivered(ack, 50)
        return ack is not None

    def caught_up(self) -> bool:
        return self.ordered.caught_up

    def status(self, number: int, code: int, text: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.ordered.status(number, code, text, headers or {}, self.now)


MADE = "2026-11-28T22:53:55.165045997Z"


def info(*, pending: int = 0, sent: int = 0, at: int = 0) -> dict[str, object]:
    return {"num_pending": pending, "delivered": {"consumer_seq": sent, "stream_seq": at}, "created": MADE}


def said(last: int = 1 << 40, created: str = MADE, *, replicated: bool = False) -> StreamSaid:
    return StreamSaid(created, last, replicated)


def test_the_consumers_configuration() -> None:
    assert Bench().created == Create(
        "pre_1",
        {
            "name": "pre_1",
            "deliver_policy": "last_per_subject",
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 30_000_000_000,
            "filter_subject": "$O.b.M.>",
        },
    )
    config = Bench(headers_only=True, filter_subjects=["a", "b"]).created.config
    assert config["headers_only"] is True
    assert config["filter_subjects"] == ["a", "b"]
    assert "filter_subject" not in config
    assert Bench(filter_subjects=()).created.config["filter_subject"] == ">"


@pytest.mark.parametrize(
    ("start", "at", "unread", "read"),
    [
        (Start("all"), 0, Start("by_start_sequence", 1), Start("by_start_sequence", 12)),
        (Start("new"), 9, Start("by_start_sequence", 10), Start("by_start_sequence", 12)),
        (Start("last"), 9, Start("by_start_sequence", 10), Start("by_start_sequence", 12)),
        (Start("last_per_subject"), 9, Start("last_per_subject"), Start("last_per_subject")),
        (Start("by_start_sequence", 10), 9, Start("by_start_sequence", 10), Start("by_start_sequence", 12)),
        (
            Start("by_start_time", time="2026-01-01T00:00:00Z"),
            9,
            Start("by_start_sequence", 10),
            Start("by_start_sequence", 12),
        ),
    ],
)
def test_where_it_resumes(start: Start, at: int, unread: Start, read: Start) -> None:
    bench = Bench(start=start, at=at, pending=5)
    assert start.config().items() <= bench.created.config.items()
    for expected in (unread, unread):
        bench.ordered.refused(bench.now)
        config = bench.create(pending=5).config
        assert {key: config.get(key) for key in ("deliver_policy", "opt_start_seq", "opt_start_time")} == {
            "deliver_policy": expected.policy,
            "opt_start_seq": expected.sequence or None,
            "opt_start_time": None,
        }
    assert bench.message(11)
    assert bench.message(12)
    for _ in range(2):
        bench.ordered.refused(bench.now)
        config = bench.create(pending=5).config
        assert read.config().items() <= config.items()


def test_after_the_snapshot_it_resumes_where_it_was() -> None:
    bench = Bench(pending=2)
    bench.message(3, pending=1)
    bench.message(8)
    assert bench.caught_up()
    bench.ordered.refused(bench.now)
    config = bench.create(pending=1).config
    assert (config["deliver_policy"], config["opt_start_seq"]) == ("by_start_sequence", 8)
    assert not bench.message(8)
    assert bench.message(9)


def test_names_are_fresh_and_old_consumers_deleted() -> None:
    bench = Bench()
    names = {bench.ordered.name}
    for _ in range(5):
        old = bench.ordered.name
        bench.ordered.refused(bench.now)
        assert bench.ordered.next(bench.now) == Delete(old)
        names.add(bench.create(pending=5).name)
    assert len(names) == 6
    assert bench.ordered.resets == 5
    assert bench.ordered.leave() == [bench.ordered.name or "pre_6"]
    assert bench.ordered.leave() == []


def test_two_reasons_are_one_reset_more_and_no_second_deletion() -> None:
    bench = Bench()
    bench.ordered.refused(bench.now)
    bench.ordered.refused(bench.now)
    assert bench.ordered.leave() == ["pre_1"]


def test_resets_are_spaced_out() -> None:
    bench = Bench()
    spaces = []
    for _ in range(12):
        bench.ordered.create_failed(bench.now)
        begun = bench.now
        assert isinstance(bench.due(), Create)
        spaces.append(bench.now - begun)
    assert 0.02 < spaces[0] <= 0.05
    assert max(spaces) <= 10
    assert all(space >= 5 for space in spaces[-3:])


def test_progress_forgives() -> None:
    bench = Bench("all")
    for _ in range(8):
        bench.ordered.refused(bench.now)
        bench.create(pending=5)
    bench.message(1)
    bench.ordered.refused(bench.now)
    begun = bench.now
    bench.due()
    assert bench.now - begun <= 0.05


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
        (lambda bench: bench.status(1, 408, "Request Timeout", PENDING), 0),
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
    bench = Bench("all", snapshot=False)
    bench.pull()
    bench.message(3)
    happening(bench)
    assert bench.ordered.resets == resets
    assert bench.ordered.attention is bool(resets)


def test_nothing_of_another_consumer_is_read() -> None:
    bench = Bench("all")
    reply = f"$JS.ACK.OBJ_b.{bench.ordered.name}.1.1.1.10.0"
    bench.ordered.refused(bench.now)
    assert bench.ordered.received(reply, 50, bench.now) is None
    bench.create(pending=5)
    assert bench.ordered.received(reply, 50, bench.now) is None
    assert bench.ordered.received("no ack subject", 50, bench.now) is None
    assert bench.ordered.resets == 1


def test_disconnected_it_waits_and_silence_means_nothing() -> None:
    bench = Bench("all", snapshot=False)
    bench.pull()
    bench.ordered.connection_lost()
    assert bench.ordered.next(bench.now + 1000) == Wait(inf)
    assert bench.ordered.pull(bench.now) is None
    assert bench.ordered.next_event == inf
    bench.ordered.connection_restored(bench.now)
    assert isinstance(bench.due(), Create)
    # Not twice: nothing has begun since.
    bench.ordered.connection_restored(bench.now)
    assert bench.ordered.resets == 1


def test_a_status_between_two_consumers_changes_nothing() -> None:
    bench = Bench("all")
    bench.pull()
    bench.ordered.refused(bench.now)
    bench.status(1, 503)
    assert bench.ordered.resets == 1


# The snapshot.


def test_an_empty_store_is_caught_up_at_once() -> None:
    assert Bench(pending=0).ordered.caught_up
    assert Bench("new", pending=0).ordered.caught_up
    assert Bench("new", pending=3).ordered.caught_up
    assert Bench("all", snapshot=False, pending=3).ordered.caught_up
    assert not Bench("last_per_subject", snapshot=False, pending=3).ordered.caught_up


def test_pending_is_not_monotonic() -> None:
    """It is the count that ends a snapshot (failures.md A9)."""
    bench = Bench(pending=5)
    for seq, pending in enumerate([2, 0, 10, 9], 1):
        bench.message(seq, pending=pending)
        assert not bench.caught_up()
    bench.message(5, pending=0)
    assert bench.caught_up()


def test_what_nobody_wants_counts() -> None:
    bench = Bench(pending=2)
    for seq in (1, 2):
        assert not bench.caught_up()
        ack = bench.ordered.received(f"$JS.ACK.OBJ_b.pre_1.1.{seq}.{seq}.{seq}.0", 50, bench.now)
        assert ack is not None
        bench.ordered.dropped(ack)
    assert bench.caught_up()
    assert bench.ordered.cursor == (2, 2)


def test_an_entry_that_was_overtaken_is_waited_for() -> None:
    """Measured: of s.0 to s.5, s.0 was read, then s.0, s.2 and s.9 written; s.2 came after the sixth message."""
    bench = Bench(pending=6)
    for seq, pending in [(1, 5), (2, 6), (4, 5), (5, 4), (6, 3), (7, 2), (8, 1)]:
        bench.message(seq, pending=pending)
        assert not bench.caught_up()
    bench.message(9, pending=0)
    assert bench.ordered.next(bench.now) == Inspect("pre_1")
    bench.ordered.inspected("pre_1", info(sent=8), bench.now)
    assert bench.caught_up()


def test_constant_writes_do_not_put_it_off_for_ever() -> None:
    bench = Bench(pending=2)
    seq = 0
    while not bench.caught_up():
        seq += 1
        assert seq < 100
        bench.message(seq, pending=2)
    assert seq > 10


def test_while_it_is_read_requests_do_not_wait() -> None:
    bench = Bench(pending=5, max_messages=3)
    assert json.loads(bench.pull().body())["no_wait"] is True
    for seq in (1, 2, 3):
        bench.message(seq, pending=5 - seq)
        bench.ordered.taken(50)
    second = bench.pull()
    assert (second.batch, second.expires) == (2, 0)
    bench.message(4, pending=1)
    bench.message(5)
    assert bench.ordered.pull(bench.now) is None
    bench.ordered.taken(50)
    assert bench.pull().expires == 30


def test_purged_while_it_opens() -> None:
    bench = Bench(pending=5)
    bench.pull()
    bench.status(1, 404, "No Messages")
    assert bench.ordered.attention
    assert bench.ordered.pull(bench.now) is None
    assert bench.ordered.next(bench.now) == Inspect("pre_1")
    bench.ordered.inspected("pre_0", info(), bench.now)
    assert not bench.caught_up()
    bench.ordered.inspected("pre_1", info(), bench.now)
    assert bench.caught_up()
    # Its consumer would stop at each of the five that are gone: it goes on with another one, at once.
    now = bench.now
    assert bench.ordered.attention
    assert bench.ordered.pull(now) is None
    assert bench.ordered.next(now) == Delete("pre_1")
    config = bench.create(pending=1).config
    assert (config["deliver_policy"], config["opt_start_seq"]) == ("by_start_sequence", 1)
    assert bench.now == now
    assert bench.pull().expires == 30


def test_a_list_with_holes_is_left_for_the_sequence() -> None:
    bench = Bench(pending=5, one_per_subject=True)
    bench.pull()
    bench.message(1, pending=4)
    bench.status(1, 404, "No Messages")
    bench.ordered.inspected("pre_1", info(sent=1, pending=4), bench.now)
    now = bench.now
    config = bench.create(pending=3).config
    assert (config["deliver_policy"], config["opt_start_seq"]) == ("by_start_sequence", 1)
    assert bench.now == now
    assert not bench.message(1, pending=2)
    assert bench.message(7, pending=1)
    assert not bench.caught_up()
    assert bench.message(9)
    # What it says to have left lags behind the writes that made the holes (measured): it is asked.
    assert not bench.caught_up()
    assert bench.ordered.next(bench.now) == Inspect("pre_2")
    bench.ordered.inspected("pre_2", info(sent=3, pending=1), bench.now)
    assert bench.pull().batch == 1
    assert bench.message(10)
    # Nor is that believed before another consumer finds nothing besides what was handed over last.
    bench.ordered.inspected("pre_2", info(sent=4), bench.now)
    assert not bench.caught_up()
    config = bench.create(pending=1).config
    assert (config["deliver_policy"], config["opt_start_seq"]) == ("by_start_sequence", 10)
    assert not bench.message(10)
    assert bench.caught_up()
    assert not bench.ordered.attention
    assert bench.ordered.resets == 2


@pytest.mark.parametrize("overtaken_by_another", [False, True])
def test_a_pending_that_stays_too_low_is_no_end(overtaken_by_another: bool) -> None:
    """Measured: of s.1 to s.3, s.1 was written again while the consumer was made, which was never told of s.1 anew."""
    bench = Bench(pending=3, one_per_subject=True)
    pull = bench.pull()
    assert bench.message(2, pending=1)
    assert bench.message(3, pending=0)
    if overtaken_by_another:
        # s.2 is written again, too, and comes first: as many as were expected, and still not all.
        assert bench.message(4, pending=0)
    else:
        bench.status(pull.number, 404, "No Messages")
    last = bench.ordered.cursor[0]
    assert not bench.caught_up()
    assert bench.ordered.next(bench.now) == Inspect("pre_1")
    bench.ordered.inspected("pre_1", info(sent=last - 1, pending=0), bench.now)
    assert not bench.caught_up()
    now = bench.now
    config = bench.create(pending=2).config
    assert (config["deliver_policy"], config["opt_start_seq"]) == ("by_start_sequence", last)
    assert not bench.message(last, pending=1)
    assert not bench.caught_up()
    assert bench.message(5, pending=0)
    assert bench.ordered.next(bench.now) == Inspect("pre_2")
    bench.ordered.inspected("pre_2", info(sent=2), bench.now)
    assert not bench.caught_up()
    bench.create(pending=1)
    assert not bench.message(5, pending=0)
    assert bench.caught_up()
    assert bench.now == now


def test_a_second_opinion_that_finds_nothing_is_the_end() -> None:
    bench = Bench(pending=2, one_per_subject=True)
    pull = bench.pull()
    bench.status(pull.number, 404, "No Messages")
    bench.ordered.inspected("pre_1", info(), bench.now)
    assert not bench.caught_up()
    bench.create(pending=0, at=7)
    assert bench.caught_up()


def test_second_opinions_come_to_an_end() -> None:
    bench = Bench(pending=2, one_per_subject=True)
    bench.message(1, pending=3)
    seq = 1
    while not bench.caught_up():
        seq += 1
        assert seq < 200
        bench.message(seq, pending=0)
        while isinstance(inspect := bench.ordered.next(bench.now), Inspect):
            bench.ordered.inspected(inspect.name, info(sent=bench.sequence), bench.now)
            if not bench.caught_up():
                bench.create(pending=2)
    assert seq > 10


def test_a_list_with_holes_that_was_read_to_its_end_is_left_then() -> None:
    bench = Bench(pending=5)
    bench.pull()
    bench.status(1, 404, "No Messages")
    bench.ordered.inspected("pre_1", info(pending=1), bench.now)
    assert bench.message(7)
    assert bench.caught_up()
    assert bench.ordered.attention
    assert bench.create(pending=1).config["deliver_policy"] == "by_start_sequence"


def test_a_404_is_not_believed_while_messages_are_under_way() -> None:
    bench = Bench(pending=5)
    bench.pull()
    bench.message(1, pending=4)
    bench.status(1, 404, "No Messages")
    bench.ordered.inspected("pre_1", info(sent=2), bench.now)
    assert not bench.caught_up()
    bench.message(2, pending=0)
    assert bench.caught_up()


def test_a_server_that_has_something_and_gives_nothing_is_asked_through_another_consumer() -> None:
    bench = Bench(pending=5)
    for resets in (0, 0, 0, 1):
        pull = bench.pull()
        bench.status(pull.number, 404, "No Messages")
        bench.ordered.inspected("pre_1", info(pending=5), bench.now)
        assert bench.ordered.resets == resets
        assert not bench.caught_up()


def test_a_server_that_gives_nothing_of_what_it_has_is_waited_for_a_moment() -> None:
    """Writes that overtake a snapshot make the server answer 404 at once, each time, as long as they go on."""
    bench = Bench(pending=5)
    assert "no_wait" in json.loads(bench.pull().body())
    bench.status(1, 404, "No Messages")
    bench.ordered.inspected("pre_1", info(pending=5), bench.now)
    waiting = bench.pull()
    assert json.loads(waiting.body()).items() >= {"expires": 1_000_000_000, "idle_heartbeat": 500_000_000}.items()
    assert "no_wait" not in json.loads(waiting.body())
    # Only once: when what is left goes away in the meantime, a request that does not wait finds out.
    left = {"Nats-Pending-Messages": "5", "Nats-Pending-Bytes": str(waiting.max_bytes)}
    bench.status(waiting.number, 408, "Request Timeout", left)
    assert "no_wait" in json.loads(bench.pull().body())


def test_what_becomes_last_before_anything_was_read_is_read() -> None:
    bench = Bench(pending=1, at=1)
    bench.ordered.refused(bench.now)
    bench.create(pending=1, at=0)
    assert bench.message(1, pending=0)


def test_a_reset_begins_the_snapshot_anew_and_drops_what_was_seen() -> None:
    bench = Bench(pending=3)
    bench.message(1, pending=2)
    bench.message(2, pending=1)
    bench.ordered.refused(bench.now)
    assert bench.create(pending=3).config["deliver_policy"] == "last_per_subject"
    assert not bench.message(1, pending=2)
    assert not bench.message(2, pending=1)
    assert not bench.caught_up()
    assert bench.message(3, pending=0)
    assert bench.caught_up()


def test_a_reset_that_finds_only_what_was_seen_is_caught_up() -> None:
    bench = Bench(pending=3)
    bench.message(1, pending=2)
    bench.ordered.refused(bench.now)
    bench.create(pending=1)
    assert not bench.message(1)
    assert bench.caught_up()


def test_a_reader_finds_out_whether_its_consumer_is_there() -> None:
    bench = Bench("all", snapshot=False)
    first = bench.pull()
    assert bench.ordered.next_event == bench.now + 0.5
    assert bench.ordered.next(bench.now + 0.4) == Wait(bench.now + 0.5)
    bench.now += 0.5
    proof = bench.pull()
    assert (proof.name, proof.batch, proof.max_bytes) == (first.name, 1, 1)
    assert bench.ordered.next(bench.now) == Wait(bench.now + 9.5)
    bench.status(proof.number, 503)
    assert bench.ordered.resets == 1


# A stream that goes backwards, and what cannot be mended.


def failure(bench: Bench) -> Exception:
    action = bench.due()
    assert isinstance(action, Fail)
    assert bench.ordered.attention
    assert not bench.message(99)
    bench.ordered.refused(bench.now)
    assert bench.due() == action
    return action.error


@pytest.mark.parametrize("moved", [5, 4])
def test_the_same_sequence_with_a_later_timestamp(moved: int) -> None:
    bench = Bench(pending=2)
    bench.message(4, timestamp=70)
    bench.message(5, timestamp=60)
    bench.ordered.refused(bench.now)
    bench.create(pending=2)
    # The clocks of two leaders differ: 4 is older than 5 and still has the later timestamp.
    assert not bench.message(4, timestamp=70)
    bench.message(moved, timestamp=71)
    error = failure(bench)
    assert isinstance(error, errors.StreamRegressedError)
    assert "'OBJ_b'" in str(error)


def quiet_after_reset(last_read: int = 5) -> Bench:
    bench = Bench("all", pending=1)
    bench.message(last_read)
    bench.ordered.refused(bench.now)
    bench.create(pending=0, at=last_read - 1, look=False)
    return bench


def test_a_stream_that_ends_before_the_cursor_is_looked_at_twice() -> None:
    bench = quiet_after_reset()
    assert bench.due() == Look()
    assert bench.ordered.pull(bench.now) is None
    bench.ordered.looked(said(3), bench.now)
    begun = bench.now
    assert bench.due() == Look()
    assert bench.now > begun
    bench.ordered.looked(said(3), bench.now)
    assert isinstance(failure(bench), errors.StreamRegressedError)
    bench.ordered.looked(said(9), bench.now)
    bench.ordered.look_failed(bench.now)
    assert isinstance(failure(bench), errors.StreamRegressedError)


def test_a_replica_that_lags_is_forgiven() -> None:
    bench = quiet_after_reset()
    bench.due()
    bench.ordered.looked(said(3), bench.now)
    bench.due()
    bench.ordered.looked(said(5), bench.now)
    assert bench.caught_up()
    assert bench.pull().batch == 499


def test_a_stream_that_was_purged_did_not_go_backwards() -> None:
    bench = Bench("all", pending=1)
    bench.message(5)
    bench.ordered.refused(bench.now)
    bench.create(pending=0, at=9)
    assert bench.pull().batch == 499


def test_a_look_without_an_answer_is_a_reset() -> None:
    bench = quiet_after_reset()
    bench.ordered.look_failed(bench.now)
    assert isinstance(bench.due(), Create)
    gone = errors.NotFoundError(code=404, err_code=10059)
    bench = quiet_after_reset()
    assert not bench.ordered.look_failed(bench.now, gone)
    assert failure(bench) is gone


def test_a_stream_that_is_gone() -> None:
    bench = Bench("all")
    bench.ordered.refused(bench.now)
    gone = errors.NotFoundError(code=404, err_code=10059)
    assert isinstance(bench.due(), Create)
    bench.ordered.create_failed(bench.now, gone)
    assert failure(bench) is gone


def test_a_request_that_the_server_refuses() -> None:
    bench = Bench("all")
    bench.pull()
    refused = errors.PermissionsViolationError()
    bench.ordered.forbidden(refused)
    assert failure(bench) is refused
    assert bench.ordered.pull(bench.now) is None
    assert bench.ordered.leave() == ["pre_1"], "the consumer is deleted all the same"


def test_a_request_that_the_server_does_not_understand() -> None:
    bench = Bench("all")
    bench.pull()
    bench.status(1, 400, "Bad Request - heartbeat value too large")
    assert "heartbeat value too large" in str(failure(bench))


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"delivered": None},
        {"delivered": {"stream_seq": "x"}, "num_pending": []},
        {"num_pending": -3, "delivered": {"stream_seq": -1, "consumer_seq": True}},
        {"num_pending": 1e300, "delivered": [], "cluster": 7, "created": 7},
        {"num_pending": None, "cluster": None, "created": "never"},
    ],
)
def test_an_answer_that_says_nothing(answer: dict[str, object]) -> None:
    bench = Bench()
    bench.ordered.refused(bench.now)
    bench.due()
    bench.ordered.created(answer, bench.now)
    assert bench.ordered.cursor == (0, 0)
