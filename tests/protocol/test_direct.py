"""Reading what a stream holds: which replies are believed, and what is asked for again."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from trionats import api, errors
from trionats._protocol.jetstream.acks import LARGEST
from trionats._protocol.jetstream.direct import (
    PAGE_BYTES,
    PAGE_MESSAGES,
    Ask,
    Find,
    Latest,
    Page,
    Pause,
    Stretch,
    Tail,
    checked_latest,
    checked_stretch,
    one_message,
    read_direct,
    read_leaders,
)
from trionats._told.moments import moment_of, read_moment, written_moment

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
STAMP = "2026-11-29T12:00:00Z"
Reply = tuple[int | None, str, MultiDict[str], bytes]


def told(seq: int, *, stream: str = "S", subject: str = "a", **more: object) -> MultiDict[str]:
    names = {"Nats-Stream": stream, "Nats-Subject": subject, "Nats-Sequence": seq, "Nats-Time-Stamp": STAMP}
    paged = {f"Nats-{name.replace('_', '-')}": value for name, value in more.items()}
    return MultiDict({name: str(value) for name, value in {**names, **paged}.items()})


def message(seq: int, before: int, left: int, *, subject: str = "a", stream: str = "S") -> Reply:
    return None, "", told(seq, stream=stream, subject=subject, Num_Pending=left, Last_Sequence=before), b"x"


def end(last: int, left: int = 0, up_to: int | None = None) -> Reply:
    headers = {"Nats-Num-Pending": str(left), "Nats-Last-Sequence": str(last)}
    return 204, "EOB", MultiDict(headers | ({} if up_to is None else {"Nats-UpTo-Sequence": str(up_to)})), b""


NOTHING: Reply = 404, "Message Not Found", MultiDict(), b""


def page_of(*replies: Reply, stream: str = "S") -> Page:
    page = Page(stream)
    for reply in replies:
        if page.received(*reply):
            break
    return page


def run_of(*sequences: int, left: int = 0, up_to: int | None = None, subject: str = "") -> Page:
    """A whole page; each message has a subject of its own unless there is one for all."""
    before = [0, *sequences]
    replies = [
        message(seq, before[index], left + len(sequences) - index - 1, subject=subject or f"a.{seq}")
        for index, seq in enumerate(sequences)
    ]
    return page_of(*replies, end(before[-1], left, up_to))


def sequences(listing: Stretch | Latest) -> list[int]:
    return [found.seq for found in listing.messages]


def asked(listing: Stretch | Latest) -> dict[str, object]:
    step = listing.next()
    assert isinstance(step, Ask)
    return step.request


# -- single messages ---------------------------------------------------------------------------------------------------


def test_the_leaders_word_and_a_direct_get_are_the_same_message() -> None:
    block = b"NATS/1.0\r\nNats-Stream: OTHER\r\nNats-Sequence: 9\r\nA: 1\r\nA: 2\r\n\r\n"
    coded = {"hdrs": base64.b64encode(block).decode(), "data": base64.b64encode(b"x").decode()}
    leaders = read_leaders("S", {"subject": "a", "seq": 3, "time": STAMP, **coded})
    own = [("Nats-Stream", "OTHER"), ("Nats-Sequence", "9"), ("A", "1"), ("A", "2")]
    assert leaders == read_direct(MultiDict([*own, *told(3).items()]), b"x")
    assert list(leaders.headers.items()) == own
    paged = read_direct(MultiDict([*own, *told(3, Num_Pending=1, Last_Sequence=2).items()]), b"x", paged=True)
    assert paged == leaders
    bare = read_leaders("S", {"subject": "a", "seq": 3, "time": STAMP})
    assert (bare.data, len(bare.headers), bare.time) == (b"", 0, NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"subject": 5},
        {"seq": 0},
        {"seq": "3"},
        {"time": None},
        {"time": "x"},
        {"data": 5},
        {"hdrs": "!"},
        {"data": "a"},
    ],
)
def test_what_is_no_stored_message_is_not_read(wrong: dict[str, Any]) -> None:
    whole = {"subject": "a", "seq": 3, "time": STAMP}
    assert read_leaders("S", whole).seq == 3
    with pytest.raises(ValueError, match=r"."):
        read_leaders("S", {**whole, **wrong} if wrong else {})


@pytest.mark.parametrize("name", ["Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp"])
def test_a_direct_get_names_stream_subject_sequence_and_time(name: str) -> None:
    headers = told(3)
    assert read_direct(headers, b"").seq == 3
    del headers[name]
    with pytest.raises(ValueError, match=r"."):
        read_direct(headers, b"")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (STAMP, NOW),
        ("2026-11-29T12:00:00.123456789Z", NOW.replace(microsecond=123456)),
        ("2026-11-29T13:00:00+01:00", NOW),
        ("2026-11-29 12:00:00.123456789 +0000 UTC", NOW.replace(microsecond=123456)),
        ("2026-11-29 12:00:00 +0000 UTC", NOW),
    ],
)
def test_times_are_read_in_the_form_of_today_and_in_that_of_the_first_years(text: str, moment: datetime) -> None:
    assert read_moment(text) == moment


@given(st.integers(0, LARGEST // 1_000_000_000 - 1), st.integers(0, 999_999_999))
def test_a_time_is_the_same_as_text_and_in_nanoseconds(seconds: int, nanoseconds: int) -> None:
    text = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z"
    assert moment_of(seconds * 1_000_000_000 + nanoseconds) == read_moment(text)


@pytest.mark.parametrize("seconds", [0, (1 << 31) - 1, (1 << 32) - 1, 1 << 32, (1 << 33) - 1, 1 << 33, 9_223_372_035])
def test_a_time_in_nanoseconds_is_exact_to_the_microsecond(seconds: int) -> None:
    """Also where a float of seconds is coarser than at any time before."""
    start = datetime.fromtimestamp(seconds, UTC)
    for microsecond in (*range(0, 1_000_000, 499), 999_999):
        nanoseconds = (seconds * 1_000_000 + microsecond) * 1000
        expected = start.replace(microsecond=microsecond)
        assert moment_of(nanoseconds) == moment_of(nanoseconds + 999) == expected


@pytest.mark.parametrize("text", [None, "", "soon", "2026-11-29T12:00:00", "0001-01-01T00:00:00+10:00", 5])
def test_what_is_no_time_is_not_read(text: object) -> None:
    with pytest.raises(ValueError, match="its time"):
        read_moment(text)


def test_times_are_written_with_their_zone() -> None:
    assert written_moment("get_msgs", "start_time", NOW.astimezone(timezone(timedelta(hours=2)))) == STAMP
    with pytest.raises(ValueError, match="get_msgs: start_time has no time zone"):
        written_moment("get_msgs", "start_time", datetime(2026, 1, 1))
    with pytest.raises(TypeError, match="get_msgs: start_time must be a datetime, not str"):
        written_moment("get_msgs", "start_time", STAMP)


def test_where_to_begin_is_said_in_one_way() -> None:
    assert one_message("get_msg", 3, None, None) == {"seq": 3}
    assert one_message("get_msg", 3, None, "a.>") == {"seq": 3, "next_by_subj": "a.>"}
    assert one_message("get_msg", None, NOW, "a") == {"start_time": STAMP, "next_by_subj": "a"}
    for arguments, text in [
        ((None, None, None), "one of seq, start_time and next_by_subj"),
        ((1, NOW, None), "either seq or start_time, not both"),
        ((0, None, None), "seq is 0: it must be 1 or more"),
        ((2**63, None, None), "seq is 9223372036854775808"),
    ]:
        with pytest.raises(ValueError, match=f"get_msg: {text}"):
            one_message("get_msg", *arguments)
    with pytest.raises(ValueError, match=r"get_msg: next_by_subj: .*'a\.\.b'"):
        one_message("get_msg", None, None, "a..b")


FROM: dict[str, Any] = {"seq": 1, "start_time": None, "next_by_subj": None, "batch": 5, "max_bytes": None}
LAST: dict[str, Any] = {"up_to_seq": None, "up_to_time": None, "batch": None}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: checked_stretch("S", **{**FROM, "batch": 0}, replicated=False), "get_msgs: batch is 0"),
        (lambda: checked_stretch("S", **{**FROM, "max_bytes": 0}, replicated=False), "get_msgs: max_bytes is 0"),
        (lambda: checked_stretch("S", **{**FROM, "seq": None}, replicated=False), "get_msgs: one of seq"),
        (lambda: checked_latest("S", [], **LAST, replicated=False), "get_last_msgs: subjects must name one"),
        (lambda: checked_latest("S", "a..b", **LAST, replicated=False), "get_last_msgs: subjects: .*no empty tokens"),
        (
            lambda: checked_latest("S", ">", up_to_seq=1, up_to_time=NOW, batch=None, replicated=False),
            "get_last_msgs: either up_to_seq or up_to_time, not both",
        ),
        (lambda: checked_latest("S", ">", **{**LAST, "up_to_seq": 0}, replicated=False), "up_to_seq is 0"),
        (lambda: checked_latest("S", ">", **{**LAST, "batch": -1}, replicated=False), "batch is -1"),
        (
            lambda: checked_latest("S", ">", **{**LAST, "up_to_time": datetime(2026, 1, 1)}, replicated=False),
            "no time zone",
        ),
    ],
)
def test_what_a_list_cannot_be_asked_for_is_refused(make: Any, text: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=text):
        make()


def test_one_pattern_is_as_good_as_a_list_of_one() -> None:
    for subjects in ("a.>", ["a.>"]):
        assert asked(checked_latest("S", subjects, **LAST, replicated=False))["multi_last"] == ["a.>"]
    assert asked(checked_stretch("S", **FROM, replicated=False))["seq"] == 1


# -- pages -------------------------------------------------------------------------------------------------------------


def test_a_page_is_whole_when_each_message_names_the_one_before() -> None:
    page = page_of(message(3, 0, 1), message(7, 3, 0), end(7))
    assert ([found.seq for found in page.messages], page.announced, page.left) == ([3, 7], 2, 0)


@pytest.mark.parametrize(
    ("replies", "kept"),
    [
        ([message(3, 0, 2), message(9, 7, 0), end(9)], [3]),  # one in the middle was lost
        ([message(7, 3, 1), end(7)], []),  # the first was lost
        ([message(3, 0, 1), end(7)], [3]),  # the last was lost
        ([message(3, 0, 1)], [3]),  # the end was lost
        ([end(7)], []),
        ([], []),
    ],
)
def test_a_page_that_lacks_something_is_kept_as_far_as_it_is_whole(replies: list[Reply], kept: list[int]) -> None:
    page = page_of(*replies)
    assert [found.seq for found in page.messages] == kept
    assert page.left is None


def test_what_comes_twice_or_from_somebody_else_is_passed_over() -> None:
    foreign: Reply = None, "", MultiDict({"A": "b"}), b"hello"
    without_number: Reply = None, "", told(8), b"x"
    page = page_of(foreign, message(3, 0, 1), message(3, 0, 1), foreign, without_number, message(7, 3, 0), end(7))
    assert [found.seq for found in page.messages] == [3, 7]
    assert page.left == 0


def test_what_a_mirror_says_in_the_streams_place_is_not_kept() -> None:
    page = page_of(message(3, 0, 0, stream="M"), end(3))
    assert (page.messages, page.stranger, page.left) == ([], "M", None)


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        ((None, "", told(3), b"x"), errors.APIError, r"server 2\.11"),
        (
            (408, "Empty Request", MultiDict(), b""),
            errors.BadRequestError,
            r"Empty Request; is it older than 2\.11\? \(code 408\)",
        ),
        (
            (413, "Too Many Results", MultiDict(), b""),
            errors.APIError,
            "more than 1024 subjects; only a narrower filter or a lower up_to_seq",
        ),
        ((500, "Oh", MultiDict(), b""), errors.APIError, r"Oh \(code 500\)"),
    ],
)
def test_a_refusal_ends_a_list(reply: Reply, kind: type[errors.APIError], text: str) -> None:
    for listing in (Stretch("S", 5), Latest("S", [">"])):
        with pytest.raises(kind, match=f"messages of stream 'S': .*{text}"):
            listing.page(page_of(reply))


# -- from a place on ---------------------------------------------------------------------------------------------------


def test_a_stream_of_one_replica_is_read_until_nothing_is_left() -> None:
    run = Stretch("S", 5000, seq=4)
    assert asked(run) == {"seq": 4, "batch": PAGE_MESSAGES, "max_bytes": PAGE_BYTES}
    run.page(run_of(4, 6, left=3))
    assert asked(run)["seq"] == 7
    run.page(run_of(7, 8, 9))
    assert run.next() is None
    assert sequences(run) == [4, 6, 7, 8, 9]


def test_a_list_ends_with_as_many_as_were_asked_for() -> None:
    run = Stretch("S", 2, pattern="a.>", replicated=True)
    assert asked(run) == {"seq": 1, "batch": 2, "max_bytes": PAGE_BYTES, "next_by_subj": "a.>"}
    run.page(run_of(1, 2, left=7))
    assert run.next() is None


def test_a_list_ends_with_the_bytes_that_were_asked_for() -> None:
    run = Stretch("S", 9, max_bytes=100)
    assert asked(run)["max_bytes"] == 100
    run.page(run_of(1, 2, left=7))  # the server has counted more than we do
    assert run.next() is None
    run = Stretch("S", 9, max_bytes=2)
    run.page(run_of(1, left=7))
    assert run.next() is None
    run = Stretch("S", 9, max_bytes=PAGE_BYTES * 2)
    run.page(run_of(1, left=7))  # it was our page that was full
    assert asked(run) == {"seq": 2, "batch": 8, "max_bytes": PAGE_BYTES}


def test_what_was_lost_is_asked_for_again_from_there() -> None:
    run = Stretch("S", 9, start_time=NOW)
    assert asked(run) == {"start_time": STAMP, "batch": 9, "max_bytes": PAGE_BYTES}
    run.page(page_of())
    assert asked(run)["start_time"] == STAMP
    run.page(page_of(message(3, 0, 3), message(5, 4, 1)))
    assert asked(run) == {"seq": 4, "batch": 8, "max_bytes": PAGE_BYTES}


def again_and_again(run: Stretch, page: Page, leader: int | None = None) -> None:
    for _ in range(50):
        if leader is not None:
            run.leader(leader, NOW)
        run.page(page)


def test_losing_without_end_is_told() -> None:
    with pytest.raises(errors.Error, match="messages of stream 'S': replies are lost again and again"):
        again_and_again(Stretch("S", 9), page_of())
    with pytest.raises(errors.Error, match="the mirror 'M' answers in its place"):
        again_and_again(Stretch("S", 9), page_of(message(1, 0, 0, stream="M")))


def test_nothing_is_believed_only_when_the_leader_says_so() -> None:
    """It may be a mirror's word, or that of a replica that is behind."""
    run = Stretch("S", 9, seq=4)
    run.page(page_of(NOTHING))
    assert run.next() == Find({"last_by_subj": ">"})
    run.leader(6, NOW)
    assert isinstance(run.next(), Pause)
    assert asked(run)["seq"] == 4
    run.page(run_of(4, 6))
    assert sequences(run) == [4, 6]
    assert run.next() is None


@pytest.mark.parametrize(("seq", "time"), [(0, None), (3, NOW)])
def test_nothing_is_there_where_the_leader_has_nothing_from_there_on(seq: int, time: datetime | None) -> None:
    run = Stretch("S", 9, seq=4, pattern="a.*")
    run.page(page_of(NOTHING))
    assert run.next() == Find({"last_by_subj": "a.*"})
    run.leader(seq, time)
    assert run.next() is None


def test_a_time_that_is_to_come_ends_with_what_the_leader_has() -> None:
    run = Stretch("S", 9, start_time=NOW)
    run.page(page_of(NOTHING))
    run.leader(6, NOW - timedelta(seconds=1))
    assert run.next() is None


def test_a_replica_that_is_behind_makes_a_list_no_shorter() -> None:
    run = Stretch("S", 9, replicated=True)
    run.page(run_of(1, 2))
    assert run.next() == Find({"last_by_subj": ">"})
    run.leader(4, NOW)
    pauses = []
    for _ in range(3):
        step = run.next()
        assert isinstance(step, Pause)
        pauses.append(step.seconds)
        assert asked(run)["seq"] == 3
        run.page(page_of(NOTHING))
        run.next()
        run.leader(4, NOW)
    assert pauses == [0.05, 0.1, 0.2]
    run.next()
    run.page(run_of(3, 4))
    assert run.next() is None, "the mark is reached"
    assert sequences(run) == [1, 2, 3, 4]


def test_a_replica_that_stays_behind_is_an_error_and_no_short_list() -> None:
    run = Stretch("S", 9, replicated=True)
    run.page(run_of(1, 2))
    with pytest.raises(errors.TimeoutError, match="a replica does not catch up with its leader"):
        again_and_again(run, page_of(NOTHING), 4)


# -- the last of each subject ------------------------------------------------------------------------------------------


def test_the_last_messages_of_one_replica_are_one_page() -> None:
    latest = Latest("S", ["a.>", "b"])
    assert asked(latest) == {"multi_last": ["a.>", "b"], "max_bytes": PAGE_BYTES}
    latest.page(run_of(3, 5, up_to=9))
    assert latest.next() is None
    assert sequences(latest) == [3, 5]


def test_later_pages_are_of_the_same_moment() -> None:
    latest = Latest("S", [">"], batch=3)
    assert asked(latest)["batch"] == 3
    latest.page(run_of(3, left=4, up_to=9))
    assert asked(latest) == {"multi_last": [">"], "max_bytes": PAGE_BYTES, "seq": 4, "up_to_seq": 9, "batch": 2}
    latest.page(run_of(5, 6, left=2, up_to=9))
    assert latest.next() is None
    assert sequences(latest) == [3, 5, 6]


def test_last_messages_of_several_replicas_are_those_of_the_leaders_last_sequence() -> None:
    latest = Latest("S", [">"], replicated=True)
    assert latest.next() == Tail()
    latest.leader(9, None)
    assert asked(latest) == {"multi_last": [">"], "max_bytes": PAGE_BYTES}
    latest.page(run_of(3, up_to=8))
    assert isinstance(latest.next(), Pause), "it is behind"
    assert asked(latest) == {"multi_last": [">"], "max_bytes": PAGE_BYTES}
    latest.page(run_of(3, 9, up_to=9))
    assert latest.next() is None
    assert sequences(latest) == [3, 9]


def test_an_empty_stream_has_no_last_messages() -> None:
    latest = Latest("S", [">"], replicated=True)
    latest.leader(0, None)
    assert latest.next() is None


@pytest.mark.parametrize(("last", "limit"), [(9, 7), (7, 7), (5, 5)])
def test_a_limit_beyond_the_end_is_one_at_the_end(last: int, limit: int) -> None:
    """A replica says that it has nothing up to a sequence that it has not."""
    latest = Latest("S", [">"], up_to_seq=7)
    assert latest.next() == Tail()
    latest.leader(last, None)
    assert asked(latest)["up_to_seq"] == limit


@pytest.mark.parametrize(("first_too_late", "limit"), [(8, 7), (0, 9)])
def test_a_time_is_a_limit_that_the_leader_knows(first_too_late: int, limit: int) -> None:
    latest = Latest("S", [">"], up_to_time=NOW)
    assert latest.next() == Find({"start_time": STAMP})
    latest.leader(first_too_late, None)
    assert latest.next() == Tail()
    latest.leader(9, None)
    assert asked(latest)["up_to_seq"] == limit


def test_nothing_was_there_before_the_first_message() -> None:
    latest = Latest("S", [">"], up_to_time=NOW)
    latest.leader(1, None)
    latest.leader(9, None)
    assert latest.next() is None


def test_that_there_are_no_last_messages_is_asked_of_the_leader_filter_by_filter() -> None:
    latest = Latest("S", ["a", "b"], up_to_seq=7)
    latest.leader(9, None)
    latest.page(page_of(NOTHING))
    assert latest.next() == Find({"seq": 1, "next_by_subj": "b"})
    latest.leader(8, None)
    assert latest.next() == Find({"seq": 1, "next_by_subj": "a"})
    latest.leader(7, None)
    assert isinstance(latest.next(), Pause)
    assert asked(latest)["up_to_seq"] == 7
    latest.page(page_of(NOTHING))
    latest.leader(0, None)
    latest.leader(0, None)
    assert latest.next() is None


def test_a_page_that_is_not_known_to_be_recent_enough_is_not_kept() -> None:
    latest = Latest("S", [">"])
    latest.page(page_of(message(3, 0, 2), message(5, 3, 1)))
    assert sequences(latest) == []
    assert asked(latest) == {"multi_last": [">"], "max_bytes": PAGE_BYTES}
    latest.page(page_of(message(3, 0, 2, stream="M")))
    latest.page(run_of(3, left=1, up_to=9))
    latest.page(page_of(message(5, 0, 1), end(6, 0, 9)))
    assert asked(latest)["seq"] == 6, "of a page of a moment that is known, what is whole is kept"


def test_what_took_the_place_of_a_message_before_its_page_came_is_read_too() -> None:
    latest = Latest("S", [">"])
    latest.page(run_of(3, left=2, up_to=9))  # two more were announced
    latest.page(run_of(7, up_to=9))  # and one came
    assert asked(latest) == {"multi_last": [">"], "max_bytes": PAGE_BYTES, "seq": 10}
    latest.page(page_of(message(11, 0, 0, subject="a.3"), end(11, 0, 11)))
    assert latest.next() is None
    assert [(found.subject, found.seq) for found in latest.messages] == [("a.7", 7), ("a.3", 11)]


def test_what_was_replaced_in_the_middle_of_a_page_or_is_gone_is_looked_for() -> None:
    latest = Latest("S", [">"])
    latest.page(page_of(message(3, 0, 2), end(3, 0, 9)))
    assert asked(latest)["seq"] == 10
    latest = Latest("S", [">"])
    latest.page(run_of(3, left=2, up_to=9))
    latest.page(page_of(NOTHING))
    latest.leader(0, None)
    assert asked(latest)["seq"] == 10


def test_what_was_replaced_is_gone_where_a_limit_was_chosen() -> None:
    latest = Latest("S", [">"], up_to_seq=9)
    latest.leader(20, None)
    latest.page(run_of(3, left=2, up_to=9))
    latest.page(run_of(7, up_to=9))
    assert latest.next() is None


# -- all of it, against a stream that loses and shuffles -----------------------------------------------------------------


class Source:
    """A stream with replicas that are behind, a mirror of a part, and a connection that loses replies."""

    def __init__(self, stored: list[int], draw: Any) -> None:  # noqa: ANN401 - Hypothesis's
        self.stored, self.draw = stored, draw
        self.trouble = 4  # less than what is given up after

    def chance(self, choices: list[str]) -> str:
        """What goes wrong now: only so often, so that it ends."""
        if not self.trouble:
            return "fine"
        chosen: str = self.draw(st.sampled_from(["fine", *choices]))
        self.trouble -= chosen != "fine"
        return chosen

    def page(self, request: dict[str, Any]) -> Page:
        kind = self.chance(["behind", "mirror", "lost", "cut", "twice", "foreign"])
        has, stream = self.stored, "S"
        if kind == "behind":
            has = has[: self.draw(st.integers(0, len(has)))]
        if kind == "mirror":
            has, stream = has[::2], "M"
        last = has[-1] if has else 0
        replies = self.replies(has, stream, last, request)
        if kind == "lost" and replies:
            del replies[self.draw(st.integers(0, len(replies) - 1))]
        if kind == "cut":
            replies = replies[: self.draw(st.integers(0, len(replies)))]
        if kind == "twice":
            replies = [reply for reply in replies[:-1] for _ in range(2)] + replies[-1:]
        if kind == "foreign":
            replies.insert(0, (None, "", MultiDict({"Nats-Sequence": "1"}), b"?"))
        return page_of(*replies)

    def replies(self, has: list[int], stream: str, last: int, request: dict[str, Any]) -> list[Reply]:
        found = [seq for seq in has if seq >= request.get("seq", 1)]
        up_to: int | None = None
        if "multi_last" in request:
            up_to = request.get("up_to_seq", last)
            if up_to > last:
                return [NOTHING]
            newest = {seq % 5: seq for seq in has if seq <= up_to}
            found = [seq for seq in sorted(newest.values()) if seq >= request.get("seq", 1)]
        if not found:
            return [NOTHING]
        page = found[: min(request.get("batch", 3), 3)]
        before = [0, *page]
        replies = [
            message(seq, before[index], len(found) - index - 1, stream=stream, subject=f"a.{seq % 5}")
            for index, seq in enumerate(page)
        ]
        return [*replies, end(page[-1], len(found) - len(page), up_to)]

    def leader(self, request: dict[str, Any]) -> int:
        if "last_by_subj" in request:
            return self.stored[-1] if self.stored else 0
        return next((seq for seq in self.stored if seq >= request["seq"]), 0)


def read(source: Source, listing: Stretch | Latest) -> list[api.StoredMsg]:
    while (step := listing.next()) is not None:
        if isinstance(step, Ask):
            listing.page(source.page(step.request))
        elif isinstance(step, Tail):
            listing.leader(source.stored[-1] if source.stored else 0, None)
        elif isinstance(step, Find):
            listing.leader(source.leader(step.request), None)
    return listing.messages


STORED = st.lists(st.integers(1, 40), unique=True, max_size=20).map(sorted)


@given(STORED, st.integers(1, 30), st.integers(1, 45), st.data())
def test_a_list_is_exact_whatever_is_lost_and_whoever_is_behind(
    stored: list[int], batch: int, seq: int, data: st.DataObject
) -> None:
    run = Stretch("S", batch, seq=seq, replicated=True)
    read(Source(stored, data.draw), run)
    assert sequences(run) == [number for number in stored if number >= seq][:batch]


@given(STORED, st.none() | st.integers(1, 45), st.data())
def test_last_messages_are_exact_whatever_is_lost_and_whoever_is_behind(
    stored: list[int], limit: int | None, data: st.DataObject
) -> None:
    latest = Latest("S", [">"], up_to_seq=limit, replicated=True)
    read(Source(stored, data.draw), latest)
    newest = {number % 5: number for number in stored if limit is None or number <= limit}
    assert sequences(latest) == sorted(newest.values())
