"""How much a reader asks for, what statuses mean, and when silence is looked into."""

from __future__ import annotations

import json
import random
from math import inf
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats._protocol.jetstream.pull import Ending, Pull, PullInbox, Window

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE_EXCEEDED = "Message Size Exceeds MaxBytes"


def left(messages: int, size: int = 0) -> dict[str, str]:
    """What a status says to be unanswered of its request."""
    return {"Nats-Pending-Messages": str(messages), "Nats-Pending-Bytes": str(size)}


def test_a_status_says_by_its_subject_which_request_it_answers() -> None:
    inbox = PullInbox("_INBOX.a")
    assert inbox.pattern == "_INBOX.a.*"
    assert inbox.reply_to(Pull("C", 17, 1)) == "_INBOX.a.17"
    assert inbox.number("_INBOX.a.17") == 17
    for strange in ("_INBOX.a.x", "_INBOX.a.", "_INBOX.a.-1", "_INBOX.b.1", "_INBOX.a.²", f"_INBOX.a.{'9' * 20}"):
        assert inbox.number(strange) == 0


def window(messages: int = 10, size: int = 1000) -> Window:
    return Window(messages, size, heartbeat=5.0, expires=30.0, rng=random.Random(1))


def asking(messages: int = 10, size: int = 1000, at_most: int = 0) -> Window:
    opened = window(messages, size)
    pulled(opened, at_most=at_most)
    return opened


def came(opened: Window, size: int = 1, times: int = 1, *, taken: bool = False) -> None:
    """Let messages come, and be handed over."""
    for _ in range(times):
        opened.arrived(size, 0)
        opened.buffered(size)
        if taken:
            opened.taken(size)


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
    opened = asking(10)
    for count in range(1, 5):
        came(opened, 1)
        opened.taken(1)
        assert opened.pull("C", 0) is None, count
    came(opened, 1)
    assert opened.pull("C", 0) is None
    opened.taken(1)
    assert pulled(opened).batch == 5
    assert opened.asked == 10


def test_large_messages_are_refilled_by_bytes() -> None:
    opened = asking(100, 1000)
    came(opened, 100, 5)
    for _ in range(4):
        opened.taken(100)
        assert opened.pull("C", 0) is None
    opened.taken(100)
    refill = pulled(opened)
    assert (refill.batch, refill.max_bytes) == (5, 500)


def test_small_messages_are_not_refilled_one_by_one() -> None:
    """A request that is complete gives back the bytes it did not need: that alone is no reason to ask."""
    opened = asking(100, 100_000)
    came(opened, 10, 50, taken=True)
    second = pulled(opened)
    assert second.batch == 50
    came(opened, 10, 50)
    opened.status(1, 409, "Batch Completed", left(0, 99_000), 0)
    opened.taken(10)
    assert opened.pull("C", 0) is None


def test_what_is_not_taken_counts() -> None:
    opened = asking(4)
    came(opened, 1, 4)
    assert opened.pull("C", 0) is None
    assert opened.next_event(0) == inf
    opened.taken(1)
    assert opened.pull("C", 0) is None
    opened.taken(1)
    assert pulled(opened).batch == 2


def test_bytes_are_credit_too() -> None:
    opened = asking(100, 1000)
    came(opened, 900)
    opened.status(1, 409, SIZE_EXCEEDED, left(99), 0)
    assert opened.pull("C", 0) is None
    opened.taken(900)
    assert pulled(opened).max_bytes == 1000


@given(st.integers(1, 3), st.lists(st.booleans(), max_size=60))
def test_a_small_credit_never_stalls(credit: int, taken: list[bool]) -> None:
    opened = window(credit, 1)
    for take in taken:
        if opened.asked:
            came(opened, 1)
        if take and not opened.asked and opened.pull("C", 0) is None:
            opened.taken(1)
            assert opened.pull("C", 0) is not None


def test_one_request_at_a_time_while_nothing_may_wait() -> None:
    opened = asking(10, at_most=100)
    for _ in range(6):
        opened.arrived(1, 0)
    assert opened.pull("C", 0, 100) is None
    for _ in range(4):
        opened.arrived(1, 0)
    assert pulled(opened, at_most=100).batch == 10


def test_what_does_not_fit_comes_when_there_is_room() -> None:
    opened = asking(10, 1000)
    came(opened, 400)
    opened.status(1, 409, SIZE_EXCEEDED, left(9), 0)
    second = pulled(opened)
    assert second.max_bytes == 600
    opened.status(2, 409, SIZE_EXCEEDED, left(second.batch, 600), 0)
    # The same again would be refused again.
    assert opened.pull("C", 0) is None
    opened.taken(400)
    assert pulled(opened).max_bytes == 1000


def test_what_never_fits_comes_alone() -> None:
    opened = asking(10, 1000)
    opened.status(1, 409, SIZE_EXCEEDED, left(10, 1000), 0)
    alone = pulled(opened)
    assert (alone.batch, alone.max_bytes) == (1, 0)
    assert "max_bytes" not in json.loads(alone.body())
    came(opened, 5000)
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
        (409, SIZE_EXCEEDED, 3, Ending.ENDED, 0),
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
def test_what_a_status_ends_and_how_long_nothing_is_asked_for(
    code: int, text: str, counts: int | None, ending: Ending, pause: float | None
) -> None:
    opened = asking()
    headers = {} if counts is None else left(counts, 1000)
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
    opened = asking()
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
    opened = asking()
    proof = opened.prove("C")
    assert opened.status(proof.number, code, "Requests Pending", {}, 0) is Ending.ENDED
    assert opened.asked == 10
    assert opened.next_event(0) == 10


def test_the_consumer_is_gone() -> None:
    opened = asking()
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
    opened = asking(2)
    for _ in range(2):
        opened.arrived(1, 0.5)
    pulled(opened, 1.0)
    happening(opened)
    assert (opened.unproven_after == inf) is proven


def test_a_renewal_is_proven_as_the_first_request_is() -> None:
    """A deletion may cross it just as well."""
    opened = asking()
    opened.status(1, 408, "Request Timeout", left(10, 1000), 30.0)
    pulled(opened, 30.0)
    assert opened.unproven_after == 30.5


def test_bytes_that_are_used_up_end_the_request_without_a_word() -> None:
    opened = asking(10, 100)
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
                opened.status(number, 408, "Request Timeout", left(amount, amount), 0)
            case "409":
                opened.status(number, 409, "Leadership Change", {}, 0)
            case "size":
                opened.status(number, 409, SIZE_EXCEEDED, left(amount, amount), 0)
        assert opened.asked >= 0
        assert opened.asked + len(buffered) <= credit
    for size in buffered:
        opened.taken(size)
    assert opened.asked or opened.pull("C", 1e9) is not None
