"""The course of an atomic batch: what is sent when, what ends it, and that nobody is told what is not so."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from multidict import MultiDict

from trionats import errors
from trionats._protocol.jetstream.publishing.batch import (
    COMMIT_SIZE,
    MOST_AWAITED,
    MOST_BYTES,
    Course,
    Entry,
    Loss,
    Phase,
    Terms,
    meaning,
    stored_alone,
    stored_as,
    without_batch,
)
from trionats._protocol.jetstream.publishing.publish import publish_headers

INCOMPLETE = 10176
REFUSED = ValueError("refused")
GAP = ValueError("a gap")


class Outbox:
    """Where frames wait: those that were told to."""

    def __init__(self) -> None:
        self.waiting: list[Entry] = []
        self.withdrawn: list[Entry] = []

    def waits(self, entry: Entry) -> bool:
        return entry in self.waiting

    def withdraw(self, entry: Entry) -> None:
        if entry in self.waiting:
            self.waiting.remove(entry)
            self.withdrawn.append(entry)


class Run:
    """A course, and what is sent of it."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.course = Course("B", self.outbox)
        self.sent: list[Entry] = []

    def send(self, entry: Entry | None, *, waits: bool = False, server: str = "one") -> None:
        if entry is None:
            return
        entry.token = str(entry.number)
        self.course.sent(entry, server)
        self.sent.append(entry)
        if waits:
            self.outbox.waiting.append(entry)

    def publish(self, count: int = 1, *, size: int = 1, waits: bool = False, server: str = "one") -> None:
        for _ in range(count):
            entry = Entry("s.a", b"", None)
            entry.size = size
            self.send(self.course.take(entry), waits=waits, server=server)

    def end(self, *, waits: bool = False) -> None:
        self.send(self.course.end(), waits=waits)

    def reply(self, number: int) -> Entry:
        entry = self.course.replied(str(number))
        assert entry is not None
        return entry

    def stage(self, *numbers: int) -> None:
        for number in numbers:
            assert self.course.staged(self.reply(number))

    def refuse(self, number: int, err_code: int = 10077) -> None:
        self.course.refused(self.reply(number), err_code, GAP if err_code == INCOMPLETE else REFUSED)

    @property
    def numbers(self) -> list[int]:
        return [entry.number for entry in self.sent]


@pytest.fixture
def run() -> Run:
    return Run()


# -- what goes out -----------------------------------------------------------------------------------------------------


def test_a_message_is_sent_when_the_next_one_comes_and_the_last_one_at_the_end(run: Run) -> None:
    run.publish()
    assert run.numbers == []
    run.publish()
    assert run.numbers == [1]
    run.stage(1)
    run.publish()
    run.end()
    assert (run.numbers, run.course.count, run.course.last) == ([1, 2, 3], 3, run.sent[-1])
    assert (run.course.phase, run.course.committed) == (Phase.COMMITTING, None)


def test_a_batch_without_messages_has_nothing_to_commit(run: Run) -> None:
    run.end()
    assert (run.numbers, run.course.phase, run.course.committed) == ([], Phase.ENDED, False)


def test_the_second_message_waits_for_the_word_on_the_first(run: Run) -> None:
    assert run.course.may_send("one")
    run.publish()
    assert run.course.may_send("one")
    run.publish()
    assert not run.course.may_send("one")
    run.stage(1)
    assert run.course.may_send("one")


def test_so_many_are_under_way_at_the_most(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.publish(MOST_AWAITED)
    assert not run.course.may_send("one")
    run.stage(2)
    assert run.course.may_send("one")


def test_so_many_bytes_are_under_way_at_the_most_unless_one_message_has_more(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.publish(size=MOST_BYTES + 1)
    run.stage(2)
    assert run.course.may_send("one")
    run.publish()
    assert not run.course.may_send("one")
    run.stage(3)
    assert run.course.may_send("one")


def test_nothing_is_asked_of_another_server_while_something_of_the_first_one_is_under_way(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.publish()
    assert (run.course.may_send("one"), run.course.may_send("two")) == (True, False)
    run.stage(2)
    assert run.course.may_send("two")


def test_a_message_that_another_task_overtook_has_another_number_and_no_frame(run: Run) -> None:
    first, second, third = (Entry("s.a", b"", None) for _ in range(3))
    first.number, first.frame = 1, b"first"
    second.number, second.frame = 1, b"second, which was to be the first"
    third.number, third.frame = 3, b"third"
    for entry in (first, second, third):
        run.course.take(entry)
    assert [(entry.number, entry.frame) for entry in (first, second, third)] == [
        (1, b"first"),
        (2, None),
        (3, b"third"),
    ]


def test_headers_say_which_batch_which_message_and_whether_it_is_the_last(run: Run) -> None:
    own = {"Nats-Batch-Id": "B", "Nats-Batch-Sequence": "3"}
    assert run.course.fields(Entry("s.a", b"", None), 3, last=False) == own
    assert run.course.fields(Entry("s.a", b"", {}), 3, last=True) == {**own, "Nats-Batch-Commit": "1"}
    given = MultiDict([("a", "1"), ("a", "2")])
    sent = run.course.fields(Entry("s.a", b"", given), 3, last=False)
    assert list(sent.items()) == [("a", "1"), ("a", "2"), *own.items()]
    assert list(given.items()) == [("a", "1"), ("a", "2")]
    assert len(b"Nats-Batch-Commit: 1\r\n") == COMMIT_SIZE


def test_headers_of_another_batch_are_left_out() -> None:
    assert without_batch(None) == {}
    plain: dict[str, Any] = {"a": "1"}
    assert without_batch(plain) is plain
    stored = MultiDict([("Nats-Batch-Id", "x"), ("a", "1"), ("nats-batch-commit", "1"), ("a", "2")])
    assert list(without_batch(stored).items()) == [("a", "1"), ("a", "2")]


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_the_acknowledgement_of_the_whole_commits(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.end()
    assert run.course.acknowledged(run.reply(2), "B", 2)
    assert (run.course.phase, run.course.committed, run.course.failure) == (Phase.ENDED, True, None)
    assert run.course.replied("2") is None


@pytest.mark.parametrize(("batch", "count"), [(None, None), ("B", 1), ("C", 2), (None, 2)])
def test_an_acknowledgement_of_something_else_does_not(run: Run, batch: str | None, count: int | None) -> None:
    run.publish(2)
    run.stage(1)
    run.end()
    assert not run.course.acknowledged(run.reply(2), batch, count)
    assert run.course.committed is None


def test_a_message_before_the_last_one_is_not_to_be_stored(run: Run) -> None:
    run.publish(2)
    assert not run.course.acknowledged(run.reply(1), None, None)
    assert not run.course.committed


def test_a_batch_of_one_message_is_whole_for_who_knows_no_batches(run: Run) -> None:
    run.publish()
    run.end()
    assert run.course.acknowledged(run.reply(1), None, None)
    assert run.course.committed


def test_the_commit_cannot_be_set_aside(run: Run) -> None:
    run.publish()
    run.end()
    assert not run.course.staged(run.reply(1))


def test_the_first_message_is_sent_again_where_nobody_listens(run: Run) -> None:
    run.publish(2)
    entry = run.reply(1)
    assert [run.course.nobody(entry) for _ in range(3)] == [0.25, 0.25, None]


def test_no_other_message_is_sent_again(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.publish()
    assert run.course.nobody(run.reply(2)) is None


def test_a_refusal_ends_it_and_what_still_waits_is_not_sent(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.publish()
    run.publish(waits=True)
    run.refuse(2)
    assert (run.course.phase, run.course.failure, run.course.committed) == (Phase.ENDED, REFUSED, False)
    assert run.outbox.withdrawn == run.sent[2:]
    assert not run.course.fail(GAP)
    assert run.course.failure is REFUSED


def test_an_account_without_room_leaves_a_doubt_only_behind_a_commit_of_several(run: Run) -> None:
    run.publish(3)
    run.stage(1)
    run.end()
    run.refuse(3, 10002)
    assert (run.course.phase, run.course.committed, run.course.failure) == (Phase.DOUBT, None, REFUSED)


@pytest.mark.parametrize(("count", "refused"), [(1, 1), (3, 2)])
def test_elsewhere_an_account_without_room_is_a_refusal_like_any_other(run: Run, count: int, refused: int) -> None:
    run.publish(count)
    run.end()
    run.refuse(refused, 10002)
    assert (run.course.phase, run.course.committed, run.course.failure) == (Phase.ENDED, False, REFUSED)


def test_a_refusal_of_a_message_before_it_ends_a_commit_that_is_under_way(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.publish()
    run.end()
    run.refuse(2)
    assert (run.course.phase, run.course.failure, run.course.committed) == (Phase.ENDED, REFUSED, False)


def test_a_gap_is_told_once_it_is_known_that_nothing_else_is_the_matter(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.publish(2)
    run.end()
    run.refuse(4, INCOMPLETE)
    assert run.course.phase is Phase.COMMITTING
    first = run.reply(3)
    other = ValueError("the first gap")
    run.course.refused(first, INCOMPLETE, other)
    run.stage(2)
    assert (run.course.failure, run.course.committed) == (other, False)


def test_of_two_gaps_the_first_one_is_told(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.publish(2)
    run.end()
    first = ValueError("the first gap")
    run.course.refused(run.reply(3), INCOMPLETE, first)
    run.refuse(4, INCOMPLETE)
    run.stage(2)
    assert run.course.failure is first


def test_what_made_the_gap_is_told_in_place_of_the_gap(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.publish()
    run.end()
    run.refuse(3, INCOMPLETE)
    run.refuse(2)
    assert run.course.failure is REFUSED


def test_a_gap_with_nothing_before_it_under_way_is_told_at_once(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.end()
    run.refuse(2, INCOMPLETE)
    assert run.course.failure is GAP


def test_the_reply_that_explains_a_gap_is_not_waited_for_for_ever(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.publish()
    run.end()
    assert not run.course.overdue()
    run.refuse(3, INCOMPLETE)
    assert run.course.overdue()
    assert run.course.failure is GAP
    assert not run.course.overdue()


# -- the connection ----------------------------------------------------------------------------------------------------


def test_what_never_left_us_goes_on_with_the_next_connection(run: Run) -> None:
    assert run.course.lost() is Loss.NOTHING
    run.publish(2, waits=True)
    assert run.course.lost() is Loss.NOTHING
    assert run.course.dropped() is None


def test_what_the_next_server_does_not_take_is_found(run: Run) -> None:
    run.publish(2, waits=True)
    run.outbox.waiting.clear()
    assert run.course.dropped() is run.sent[0]


def test_a_batch_of_which_a_part_has_left_us_is_lost_with_the_connection(run: Run) -> None:
    run.publish(2)
    assert run.course.lost() is Loss.BATCH
    run.stage(1)
    assert run.course.lost() is Loss.BATCH
    run.end(waits=True)
    assert (run.course.commit_left, run.course.lost()) == (False, Loss.BATCH)


def test_behind_the_commit_it_is_not_known_what_was_lost(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.end()
    assert (run.course.commit_left, run.course.lost()) == (True, Loss.ACK)


def test_a_connection_that_breaks_in_doubt_or_behind_the_end_changes_nothing(run: Run) -> None:
    run.publish(2)
    run.stage(1)
    run.end()
    run.course.doubt(REFUSED)
    assert (run.course.lost(), run.course.committed, run.course.failure) == (Loss.NOTHING, None, REFUSED)
    run.course.unknown()
    assert (run.course.lost(), run.course.committed, run.course.phase) == (Loss.NOTHING, None, Phase.ENDED)
    assert run.course.failure is None


def test_a_commit_that_nobody_heard_has_not_left_us(run: Run) -> None:
    run.publish()
    run.end()
    entry = run.reply(1)
    assert run.course.nobody(entry) == 0.25
    assert (run.course.commit_left, run.course.lost()) == (False, Loss.NOTHING)


# -- doubt -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "number"), [(1, 2), (2, 2), (3, 3)])
def test_the_commit_that_is_sent_again_begins_no_batch(run: Run, count: int, number: int) -> None:
    run.course.count = count
    assert run.course.asked_as == number


@pytest.mark.parametrize(
    ("fields", "sequence", "expected"),
    [
        ({"Nats-Batch-Id": "B", "Nats-Batch-Sequence": "3"}, 17, 17),
        ({"Nats-Batch-Id": "B", "Nats-Batch-Sequence": "2"}, 16, None),
        ({"Nats-Batch-Id": "B", "Nats-Batch-Sequence": "x"}, 17, None),
        ({"Nats-Batch-Id": "B"}, 17, None),
        ({"Nats-Batch-Id": "C", "Nats-Batch-Sequence": "3"}, 17, None),
        ({}, 17, None),
        (None, 17, None),
        ({"Nats-Batch-Id": "B", "Nats-Batch-Sequence": "3"}, None, None),
    ],
)
def test_only_its_last_message_says_that_all_of_it_is_stored(
    fields: dict[str, str] | None, sequence: int | None, expected: int | None
) -> None:
    assert stored_as("B", 3, fields, sequence) == expected


@pytest.mark.parametrize(
    ("err_code", "certain"), [(10071, True), (10164, True), (10201, True), (10176, False), (None, False)]
)
def test_a_second_commit_that_was_weighed_says_that_the_first_had_not_come(
    run: Run, err_code: int | None, certain: bool
) -> None:
    run.publish(2)
    run.stage(1)
    run.end()
    run.course.doubt(GAP)
    run.course.refused_again(err_code, REFUSED)
    assert (run.course.committed, run.course.failure) == ((False, REFUSED) if certain else (None, GAP))


NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "now", "last", "certain"),
    [
        (2, NOW, NOW - timedelta(seconds=3), True),
        (2, NOW, NOW - timedelta(seconds=2.1), False),
        (2, NOW, NOW - timedelta(seconds=1), False),
        (1, NOW, NOW - timedelta(seconds=3), False),
        (2, None, NOW - timedelta(seconds=3), False),
        (2, NOW, None, False),
    ],
)
def test_where_nothing_was_stored_since_none_of_it_is(
    run: Run, count: int, now: datetime | None, last: datetime | None, certain: bool
) -> None:
    run.publish(2)
    run.stage(1)
    run.end()
    run.course.count = count
    run.course.doubt(REFUSED)
    run.course.look_at(2.0, now, last, GAP)
    assert run.course.committed is (False if certain else None)
    assert run.course.phase is (Phase.ENDED if certain else Phase.DOUBT)


# -- what the messages ask for -----------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A message that comes behind one to s.a with the id "i"."""

    subject: str
    options: dict[str, Any]
    complaint: str


@pytest.mark.parametrize(
    "asked",
    [
        Asked("s.b", {"expected_last_msg_id": "x"}, "expected_last_msg_id cannot"),
        Asked("s.b", {"expected_last_seq": 7}, "expected_last_seq can only"),
        Asked("s.a", {"expected_last_subject_seq": 7}, "expected_last_subject_seq cannot.*'s.a' already"),
        Asked(
            "s.b",
            {"expected_last_subject_seq": 7, "expected_last_subject_seq_subject": "s.a"},
            "expected_last_subject_seq cannot.*'s.a' already",
        ),
        Asked("s.b", {"rollup": "all"}, "rollup 'all' can only"),
        Asked("s.a", {"rollup": "sub"}, "rollup 'sub' cannot.*'s.a' already"),
        Asked("s.b", {"msg_id": "i"}, "msg_id 'i' stands in the batch already"),
    ],
    ids=lambda asked: f"{asked.subject} {' '.join(asked.options)}",
)
def test_what_servers_would_refuse_at_the_end_is_refused_at_once(asked: Asked) -> None:
    terms = Terms()
    if "expected_last_msg_id" not in asked.options:
        terms.check("p", asked.subject, publish_headers("p", **asked.options))
    terms.taken("s.a", {"Nats-Msg-Id": "i"})
    with pytest.raises(ValueError, match=f"^p: {asked.complaint}"):
        terms.check("p", asked.subject, publish_headers("p", **asked.options))


@pytest.mark.parametrize(
    ("subject", "options"),
    [
        ("s.a", {}),
        ("s.b", {"expected_last_subject_seq": 7}),
        ("s.a", {"expected_last_subject_seq": 7, "expected_last_subject_seq_subject": "s.*"}),
        ("s.b", {"rollup": "sub"}),
        ("s.b", {"msg_id": "j", "msg_ttl": 5, "stream": "S"}),
    ],
)
def test_all_else_may_be_asked_for(subject: str, options: dict[str, Any]) -> None:
    terms = Terms()
    terms.taken("s.a", {"Nats-Msg-Id": "i"})
    terms.taken("s.a", {"Nats-Msg-Id": []})
    fields = publish_headers("p", **options)
    terms.check("p", subject, fields)
    assert "Nats-Expected-Last-Sequence" not in fields


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"Nats-Msg-Id": ["of", "several"]}, "msg_id 'of' stands in the batch already"),
        ({"Nats-Expected-Last-Subject-Sequence": ["7"]}, "expected_last_subject_seq cannot"),
        (
            {
                "Nats-Expected-Last-Subject-Sequence": "7",
                "Nats-Expected-Last-Subject-Sequence-Subject": ["s.a", "s.b"],
            },
            "expected_last_subject_seq cannot.*'s.a' already",
        ),
        ({"Nats-Rollup": ("sub",)}, "rollup 'sub' cannot"),
    ],
)
def test_headers_of_several_values_say_what_the_first_of_them_does(fields: dict[str, Any], complaint: str) -> None:
    terms = Terms()
    terms.taken("s.a", {"Nats-Msg-Id": ("of", "others")})
    terms.check("p", "s.a", {"Nats-Msg-Id": ["several", "of"]})
    with pytest.raises(ValueError, match=f"^p: {complaint}"):
        terms.check("p", "s.a", fields)


@pytest.mark.parametrize("err_code", [10174, 10175, 10176, 10177, 10179, 10199, 10200, 10201, 10210, 10071, 10164])
def test_the_numbers_of_the_server_have_a_meaning(err_code: int) -> None:
    assert meaning(err_code, 1)


def test_a_number_that_says_no_more_than_its_text_has_none() -> None:
    assert (meaning(10077, 1), meaning(None, 1)) == ("", "")


def test_a_first_message_is_incomplete_only_where_too_many_batches_are_open() -> None:
    assert meaning(INCOMPLETE, 1) == meaning(10210, 1)
    assert meaning(INCOMPLETE, 2) != meaning(10210, 2)
    assert "too many batches are open" in meaning(INCOMPLETE, 1)


def test_a_stream_that_is_reached_half_way_is_another_one() -> None:
    assert "set its allow_atomic" in meaning(10174, 1)
    assert "were taken by another" in meaning(10174, 2)
    assert "were taken by another" not in meaning(10174, 1)


def test_a_message_that_was_stored_by_itself_is_told() -> None:
    error = stored_alone("batch 'B': message 1", "S", 7)
    assert isinstance(error, errors.BatchError)
    assert (error.stream, error.seq, error.err_code) == ("S", 7, None)
    assert str(error).startswith("batch 'B': message 1: stream 'S' is on a server that knows no batches")


# -- any course --------------------------------------------------------------------------------------------------------


class Server:
    """What a stream makes of the messages of one batch, of which the last one carries the commit."""

    def __init__(self) -> None:
        self.staged: list[int] | None = None
        self.stored: list[int] = []

    def take(self, number: int, *, last: bool, refuse: bool) -> int | str:
        """Give the reply: nothing, the number of a refusal, or "stored"."""
        if refuse:
            return 10077  # such as a message that is too large: what was set aside stays so
        if self.staged is None:
            if number != 1:
                return INCOMPLETE
            self.staged = []
        self.staged.append(number)
        if self.staged != list(range(1, number + 1)):
            self.staged = None
            return INCOMPLETE
        if not last:
            return 0
        assert not self.stored, "a batch is stored once"
        self.stored, self.staged = self.staged, None
        return "stored"


class BatchMachine(RuleBasedStateMachine):
    """A batch, the connections that it goes over, and a server that takes, refuses, loses and delays."""

    @initialize()
    def begin(self) -> None:
        self.outbox = Outbox()
        self.course = Course("B", self.outbox)
        self.server = Server()
        self.online = True
        self.tokens = map(str, itertools.count(1))
        #: What left us and was not processed yet: by the connection that there is, and by those that there were.
        self.wire: list[Entry] = []
        self.ghosts: list[Entry] = []
        self.replies: list[tuple[str, int | str]] = []
        self.sent: list[int] = []
        self.left = False

    def send(self, entry: Entry) -> None:
        entry.token = next(self.tokens)
        self.outbox.waiting.append(entry)
        self.course.sent(entry, "one")
        self.sent.append(entry.number)

    @precondition(lambda self: self.course.phase is Phase.OPEN and self.course.may_send("one"))
    @rule()
    def publish(self) -> None:
        before = self.course.take(Entry("s.a", b"", None))
        if before is not None:
            self.send(before)

    @precondition(lambda self: self.course.phase is Phase.OPEN and self.course.may_send("one"))
    @rule()
    def commit(self) -> None:
        last = self.course.end()
        if last is not None:
            self.send(last)

    @rule()
    def abandon(self) -> None:
        """The block is left by an exception, or what is waited for there takes too long."""
        if self.course.phase is Phase.OPEN or (self.course.phase is Phase.COMMITTING and not self.course.commit_left):
            self.course.fail(None)

    @precondition(lambda self: self.online and self.outbox.waiting)
    @rule(count=st.integers(1, 4))
    def write(self, count: int) -> None:
        self.wire += self.outbox.waiting[:count]
        del self.outbox.waiting[:count]

    def process(self, entry: Entry, *, refuse: bool) -> None:
        answer = self.server.take(entry.number, last=entry is self.course.last, refuse=refuse)
        self.replies.append((entry.token, answer))

    @precondition(lambda self: self.wire)
    @rule(refuse=st.sampled_from([False, False, False, True]))
    def arrive(self, refuse: bool) -> None:
        self.process(self.wire.pop(0), refuse=refuse)

    @precondition(lambda self: self.ghosts)
    @rule()
    def arrive_late(self) -> None:
        """What a connection that broke had passed on comes to the stream all the same."""
        self.process(self.ghosts.pop(0), refuse=False)

    @precondition(lambda self: self.replies)
    @rule(data=st.data(), lost=st.booleans())
    def reply(self, data: st.DataObject, lost: bool) -> None:
        token, answer = self.replies.pop(data.draw(st.integers(0, len(self.replies) - 1)))
        entry = None if lost else self.course.replied(token)
        if entry is None:
            return
        if answer == "stored":
            assert self.course.acknowledged(entry, "B", self.course.count)
        elif isinstance(answer, int) and answer:
            self.course.refused(entry, answer, REFUSED)
        else:
            assert self.course.staged(entry)

    @precondition(lambda self: self.online)
    @rule(passed_on=st.integers(0, 5))
    def lose(self, passed_on: int) -> None:
        self.online = False
        self.ghosts += self.wire[:passed_on]
        self.wire.clear()
        self.replies.clear()
        loss = self.course.lost()
        if loss is Loss.BATCH:
            self.course.fail(REFUSED)
        elif loss is Loss.ACK:
            self.course.doubt(REFUSED)

    @precondition(lambda self: not self.online)
    @rule()
    def restore(self) -> None:
        self.online = True
        assert self.course.dropped() is None

    @precondition(lambda self: self.course.phase is Phase.COMMITTING and self.course.commit_left)
    @rule()
    def wait_too_long(self) -> None:
        if not self.course.overdue():
            self.course.doubt(REFUSED)

    @precondition(lambda self: self.online and self.course.phase is Phase.DOUBT)
    @rule(removed=st.booleans(), conflict=st.booleans())
    def find_out(self, removed: bool, conflict: bool) -> None:
        """The commit is sent once more, and the stream looked at, from which somebody may have removed what was stored."""
        if self.server.staged == list(range(1, self.course.asked_as)) and conflict:
            self.server.staged = None
            self.course.refused_again(10071, REFUSED)
            assert self.course.committed is False
            return
        answer = self.server.take(self.course.asked_as, last=True, refuse=False)
        if answer == "stored":
            assert self.course.is_whole("B", len(self.server.stored))
            self.course.done()
            return
        stored = self.server.stored
        if stored and not removed:
            count = self.course.count
            assert stored_as("B", count, {"Nats-Batch-Id": "B", "Nats-Batch-Sequence": str(count)}, 1) == 1
            self.course.done()
            return
        since = timedelta(seconds=1 if stored else 9)
        self.course.look_at(5, NOW, NOW - since, REFUSED)
        if self.course.phase is Phase.DOUBT:
            self.course.unknown()

    @invariant()
    def it_is_whole_or_not_at_all(self) -> None:
        if self.server.stored:
            assert self.server.stored == list(range(1, self.course.count + 1))
            assert self.course.last is not None, "only what was to be committed is"

    @invariant()
    def what_is_said_to_be_so_is_so(self) -> None:
        if self.course.committed:
            assert self.server.stored
        if self.course.committed is False:
            assert not self.server.stored

    @invariant()
    def messages_are_sent_in_their_order(self) -> None:
        assert self.sent == list(range(1, len(self.sent) + 1))
        assert len(self.course.awaited) <= MOST_AWAITED

    def teardown(self) -> None:
        """What was on its way arrives, also behind the end."""
        for entry in self.wire + self.ghosts:
            self.process(entry, refuse=False)
        self.it_is_whole_or_not_at_all()
        if self.course.phase is Phase.ENDED:
            self.what_is_said_to_be_so_is_so()


TestAnyBatch = BatchMachine.TestCase
TestAnyBatch.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
