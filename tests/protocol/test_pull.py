"""How much a reader asks for, what statuses mean, and when silence is looked into."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats._protocol.jetstream.pull import Ending, Pull, PullInbox, Window

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


def asking(messages: int = 10, size: int = 1000) -> Window:
    opened = window(messages, size)
    pulled(opened)
    return opened


def asks(opened: Window, now: float = 0.0) -> bool:
    return opened.pull("C", now) is not None


def came(opened: Window, size: int = 1, times: int = 1) -> None:
    """Let messages come, and be handed over."""
    for _ in range(times):
        opened.arrived(size, 0)
        opened.buffered(size)


def pulled(opened: Window, now: float = 0.0, at_most: int = 0) -> Pull:
    pull = opened.pull("C", now, at_most)
    assert pull is not None
    return pull


def test_a_request_waits_with_heartbeats_or_not_at_all() -> None:
    waits = {"batch": 10, "max_bytes": 1000, "expires": 30_000_000_000, "idle_heartbeat": 5_000_000_000}
    assert json.loads(pulled(window()).body()) == waits
    assert json.loads(pulled(window(), at_most=3).body()) == {"batch": 3, "max_bytes": 1000, "no_wait": True}


STORIES = {
    "when half is free": "10/1000 pull=10/1000 " + "!asks came:1 !asks taken:1 " * 5 + "pull=5 asked=10",
    "what is not taken counts": "4/1000 pull came:1:4 rests !asks taken:1 !asks taken:1 pull=2",
    "large messages by bytes": f"100/1000 pull came:100:5 {'!asks taken:100 ' * 5} pull=5/500",
    # A request that is complete gives back the bytes it did not need: that alone is no reason to ask.
    "small messages not one by one": f"""100/100000 pull {"came:10 taken:10 " * 50} pull=50 came:10:50
        completed:1:0:99000 taken:10 !asks""",
    "bytes are credit too": "100/1000 pull came:900 exceeded:1:99:0 !asks taken:900 pull=100/1000",
    "bytes that are used up end the request without a word": "10/100 pull came:100 asked=0",
    # The same again would be refused again.
    "what does not fit when there is room": """10/1000 pull came:400 exceeded:1:9:0 pull=9/600 exceeded:2:9:600 !asks
        taken:400 pull=10/1000""",
    "what never fits alone": "10/1000 pull exceeded:1:10:1000 pull=1/0 came:5000 !asks taken:5000 pull=10 asked=10",
}


@pytest.mark.parametrize("title", STORIES)
def test_it_is_refilled(title: str) -> None:
    credit, *words = STORIES[title].split()
    opened = window(*map(int, credit.split("/")))
    for word in words:
        what, _, outcome = word.removeprefix("!").partition("=")
        name, *numbers = what.split(":")
        match name, list(map(int, numbers)):
            case "pull", []:
                pull = pulled(opened)
                assert outcome in ("", f"{pull.batch}", f"{pull.batch}/{pull.max_bytes}"), word
                assert ("max_bytes" in json.loads(pull.body())) is (pull.max_bytes > 0)
            case "asks", []:
                assert asks(opened) is not word.startswith("!"), word
            case "asked", []:
                assert opened.asked == int(outcome)
            case "rests", []:
                assert opened.next_event(0) == inf
            case "came", given:
                came(opened, *given)
            case "taken", [size]:
                opened.taken(size)
            case _, [number, *unanswered]:
                text = SIZE_EXCEEDED if name == "exceeded" else "Batch Completed"
                opened.status(number, 409, text, left(*unanswered), 0)


@given(st.integers(1, 3), st.lists(st.booleans(), max_size=60))
def test_a_small_credit_never_stalls(credit: int, taken: list[bool]) -> None:
    opened = window(credit, 1)
    for take in taken:
        if opened.asked:
            came(opened)
        if take and not opened.asked and not asks(opened):
            opened.taken(1)
            assert asks(opened)


def test_one_request_at_a_time_near_the_end_where_nothing_may_wait() -> None:
    opened = window(10)
    pulled(opened, at_most=19)
    for missing in range(19, 9, -1):
        assert opened.pull("C", 0, missing) is None
        assert not opened.overlaps(missing)
        opened.arrived(1, 0)
    assert pulled(opened, at_most=9).batch == 9


def test_far_from_the_end_the_next_request_does_not_wait_for_the_one_before() -> None:
    opened = window(10)
    pulled(opened, at_most=100)
    for missing in range(100, 95, -1):
        assert opened.pull("C", 0, missing) is None
        opened.arrived(1, 0)
    second = pulled(opened, at_most=95)
    assert (second.batch, second.no_wait, second.expires, opened.asked) == (5, False, 0.0, 10)
    opened.arrived(1, 0)
    # The first one ends, and may have got none of those: the second may still get what it asked for, and no more.
    assert opened.status(1, 404, "No Messages", {}, 0) is Ending.EMPTY
    assert opened.asked == 5
    assert opened.status(2, 404, "No Messages", {}, 0) is Ending.EMPTY
    assert opened.asked == 0


def test_of_a_list_that_the_server_goes_through_one_request_follows_the_other() -> None:
    opened = window(10)
    opened.by_list = True
    pulled(opened, at_most=100)
    for missing in range(100, 90, -1):
        assert opened.pull("C", 0, missing) is None
        assert not opened.overlaps(missing)
        opened.arrived(1, 0)
    assert pulled(opened, at_most=90).batch == 10
    opened.by_list = False
    assert opened.overlaps(90)


def test_where_the_server_has_less_than_was_asked_for_the_next_request_waits_for_those_before() -> None:
    opened = window(10)
    pulled(opened, at_most=100)
    for _ in range(5):
        opened.arrived(1, 0)
    second = pulled(opened, at_most=95)
    assert opened.status(second.number, 408, "Requests Pending", {}, 0) is Ending.ENDED
    for _ in range(5):
        assert opened.pull("C", 0, 95) is None
        opened.arrived(1, 0)
    assert pulled(opened, at_most=90).batch == 10
    assert opened.overlaps(90)


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
        (409, "Exceeded MaxRequestBatch of 5", None, Ending.LIMITED, 1),
        (409, "Exceeded MaxWaiting", None, Ending.LIMITED, 1),
        (409, "Consumer Deleted", None, Ending.GONE, 0),
        (409, "Consumer is push based", None, Ending.GONE, 0),
        (423, "Nats-Wrong-Pin-Id", None, Ending.UNPINNED, 1),
        (503, "", None, Ending.GONE, 0),
        (999, "Something New", None, Ending.STRANGE, 1),
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
        assert (asks(opened, 2.9), opened.next_event(2.9)) == (False, 3.0)
    pulled(opened, 2.0 + pause)


@pytest.mark.parametrize("text", ["Leadership Change", "Server Shutdown"])
def test_what_was_asked_for_behind_the_end_of_all_requests_is_not_asked_for_twice(text: str) -> None:
    """Its request crossed the status, and is answered by who follows."""
    opened = asking()
    for _ in range(6):
        came(opened, 10)
    for _ in range(6):
        opened.taken(10)
    behind = pulled(opened)
    assert opened.asked == 10
    assert opened.status(1, 409, text, {}, 1.0) is Ending.ENDED
    assert opened.asked == behind.batch
    pull = opened.pull("C", 1.0)
    assert pull is None or behind.batch + pull.batch <= 10


def test_a_status_in_a_row_is_not_answered_in_a_hurry() -> None:
    opened = window()
    pauses = []
    for now in range(0, 132, 11):
        pull = pulled(opened, now)
        opened.status(pull.number, 409, "Leadership Change", {}, now)
        pauses.append(0.0 if asks(opened, now) else min(opened.next_event(now), 1000) - now)
        if not pauses[-1]:
            opened.status(pull.number + 1, 409, "Leadership Change", {}, now)
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
    assert (opened.silent_after, opened.unproven_after) == (inf, inf)
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
    pulled(opened, 3.0)
    assert opened.unproven_after == opened.next_event(3.0) == 3.5
    proof = opened.prove("C")
    # No message fits into it: it takes no credit.
    assert json.loads(proof.body()) == {"batch": 1, "max_bytes": 1, "no_wait": True}
    assert (opened.asked, opened.unproven_after) == (10, inf)
    assert opened.status(proof.number, 404, "No Messages", {}, 3.6) is Ending.ENDED
    # Silence is counted from what was heard.
    assert (opened.asked, opened.silent_after) == (10, 13.6)
    # A renewal is proven as the first request is: a deletion may cross it just as well.
    opened.status(1, 408, "Request Timeout", left(10, 1000), 30.0)
    pulled(opened, 30.0)
    assert opened.unproven_after == 30.5


@pytest.mark.parametrize(
    ("code", "ending"), [(404, Ending.ENDED), (408, Ending.ENDED), (409, Ending.ENDED), (503, Ending.GONE)]
)
def test_whatever_is_answered_shows_whether_the_consumer_is_there(code: int, ending: Ending) -> None:
    opened = asking()
    assert opened.status(opened.prove("C").number, code, "Requests Pending", {}, 0) is ending
    assert (opened.asked, opened.next_event(0)) == (10, 10)


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


HAPPENINGS = st.sampled_from(["arrived", "taken", "pull", "404", "408", "409", "size"])


@given(st.integers(1, 5), st.lists(st.tuples(HAPPENINGS, st.integers(0, 30)), max_size=60))
def test_the_sum_never_leaves_its_bounds(credit: int, happenings: list[tuple[str, int]]) -> None:
    """ADR-37's accounting, clamped, against whatever a server may say."""
    opened = window(credit, 20)
    buffered: list[int] = []
    number = 0
    for happening, amount in happenings:
        match happening:
            case "arrived" if opened.asked:
                came(opened, amount)
                buffered.append(amount)
            case "taken" if buffered:
                opened.taken(buffered.pop(0))
            case "pull":
                if pull := opened.pull("C", 0):
                    number = pull.number
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
    assert opened.asked or asks(opened, 1e9)


# -- a list, from which the server loses what does not fit -------------------------------------------------------------------


def listing(messages: int = 500, size: int = 8000) -> Window:
    opened = window(messages, size)
    opened.by_list = True
    return opened


LISTS = {
    # No request says how many bytes, so none of them can end by that.
    "it begins with few, and then with twice as many": """500/1000000 pull=64 came:100:64 taken:100:64 pull=128
        came:100:128 taken:100:128 pull=256 came:100:256 taken:100:256 pull=500""",
    "as many as would fit were all as large as the largest": "500/80000 pull=64 came:1000:64 taken:1000:64 pull=80",
    "what waits to be taken has no room for others": """500/80000 pull=64 came:1000:64 !asks taken:1000:23 !asks
        taken:1000:1 pull=40 came:1000:20 !asks taken:1000:20 pull=20""",
    "more than there is room for is no end of it": """10/1000 pull=10 came:900:4 asked=6 !asks came:900:6 asked=0 !asks
        taken:900:9 !asks taken:900:1 pull=1""",
    "what is larger than all that there is comes alone": "10/1000 pull=10 came:5000:10 taken:5000:10 pull=1 came:5000 taken:5000 pull=1",
    "what a request did not get is asked for again": """10/1000 pull=10 came:10:4 completed:1:6:0 asked=0 taken:10:4
        pull=10""",
    "of two requests one ends": """100/100000 pull=64 came:10:40 taken:10:40 pull=76 asked=100 completed:1:24:0 asked=76
        came:10:76 asked=0 taken:10:76 pull=100""",
    "a leader that changes has taken all of them": """100/100000 pull=64 came:10:40 taken:10:40 pull=76 leader:1 asked=76
        leader:2 asked=0""",
}


@pytest.mark.parametrize("title", LISTS)
def test_of_a_list_messages_are_asked_for_by_their_number(title: str) -> None:
    credit, *words = LISTS[title].split()
    opened = listing(*map(int, credit.split("/")))
    for word in words:
        what, _, outcome = word.removeprefix("!").partition("=")
        name, *numbers = what.split(":")
        match name, list(map(int, numbers)):
            case "pull", []:
                pull = pulled(opened)
                assert f"{pull.batch}" == outcome, word
                assert "max_bytes" not in json.loads(pull.body())
            case "asks", []:
                assert not asks(opened), word
            case "asked", []:
                assert f"{opened.asked}" == outcome, word
            case "came", given:
                came(opened, *given)
            case "taken", [size, times]:
                opened.taken(size * times, times)
            case "taken", [size]:
                opened.taken(size)
            case "leader", [number]:
                opened.status(number, 409, "Leadership Change", {}, 0)
            case _, [number, *unanswered]:
                opened.status(number, 409, "Batch Completed", left(*unanswered), 0)


def test_the_sizes_of_a_list_are_known_however_its_messages_are_told() -> None:
    opened = listing(500, 6400)
    pulled(opened)
    for _ in range(64):
        opened.received(640, 0)
    opened.taken(64 * 640, 64)
    assert pulled(opened).batch == 10


def test_a_limit_of_the_consumer_holds_for_a_list_too() -> None:
    opened = listing()
    opened.most_messages = 5
    assert pulled(opened).batch == 5


def test_what_proves_that_there_is_a_list_takes_nothing_off_it() -> None:
    """Not even one byte is asked for: the server refuses it before it looks for a message."""
    opened = listing()
    pulled(opened)
    body = json.loads(opened.prove("C").body())
    assert body["idle_heartbeat"] * 2 > body["expires"]
    assert opened.status(2, 400, "Bad Request - heartbeat value too large", {}, 0) is Ending.ENDED
    assert opened.status(opened.prove("C").number, 503, "", {}, 0) is Ending.GONE


def test_a_sign_of_life_of_a_list_is_a_message_that_there_is_room_for() -> None:
    opened = listing(16)
    opened.spare = 2
    # A part of the credit is left for it.
    assert pulled(opened).batch == 14
    came(opened, 10, 15)
    assert not asks(opened)
    sign = opened.touch("C", 0.1, certain=True)
    assert sign is not None
    assert json.loads(sign.body()) == {"batch": 1, "expires": 100_000_000}
    assert opened.asked == 1
    came(opened, 10)
    assert opened.asked == 0
    assert opened.touch("C", 0.1, certain=True) is None
    # Nobody knows that it is one.
    doubtful = opened.touch("C", 0.1)
    assert doubtful is not None
    assert (doubtful.max_bytes, opened.asked) == (1, 0)
