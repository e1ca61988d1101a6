"""The messages of a fast ingest: what is sent when, and what each message ends in, against a model of the server."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fake_ingest import IDLE_LIMIT, FastBatches
from trionats._protocol.jetstream.publishing.ingest import (
    IDLE,
    MOST_BYTES,
    RETRY_PAUSE,
    SILENCE,
    WANTED,
    Committed,
    Flow,
    Gap,
    Ingested,
    Ingestion,
    Op,
    Refusal,
    Request,
    Verdict,
    read_reply,
)

PATIENCE = 5.0
CERTAINLY_NOT = {Verdict.REFUSED, Verdict.NOBODY, Verdict.MISSED, Verdict.UNSENT}
UNCERTAIN = {Verdict.DISCONNECTED, Verdict.FORGOTTEN, Verdict.LATE}


class Wire:
    """An ingestion, the stream that it speaks to, and all that lies between them; nothing moves unless it is told to."""

    def __init__(self, *, keep_on: bool = False, max_outstanding: int = 2, step: int = 4, online: bool = True) -> None:
        self.server = FastBatches(step)
        self.now = 100.0
        ids = (f"b{number}" for number in itertools.count(1))
        self.ingestion = Ingestion(
            PATIENCE,
            self,
            lambda: next(ids),
            keep_on=keep_on,
            max_outstanding=max_outstanding,
            online=online,
        )
        self.ingestion.stream = "S"
        #: Frames that have not left us, that are on their way, and what is on its way to us.
        self.outbox: list[tuple[str, Ingested | None]] = []
        self.going: deque[tuple[str, bytes, int]] = deque()
        self.coming: deque[tuple[str, Any]] = deque()
        self.published: list[Ingested] = []
        self.names: dict[Ingested, bytes] = {}
        self.outcomes: dict[Ingested, Verdict] = {}
        self.confirmed = 0

    # Where frames wait.

    def waits(self, message: Ingested) -> bool:
        return any(message is each for _, each in self.outbox)

    def withdraw(self, message: Ingested) -> None:
        self.outbox = [each for each in self.outbox if each[1] is not message]

    # What the program does.

    def room(self) -> bool:
        return self.ingestion.under_way < self.ingestion.limit

    def publish(self, payload: bytes | None = None, size: int = 1) -> Ingested:
        assert self.room()
        message = Ingested("s.a", size)
        self.names[message] = b"%d" % len(self.published) if payload is None else payload
        self.published.append(message)
        self.outbox.append((self.ingestion.token(), message))
        self.ingestion.sent(message, self.now)
        self.step()
        return message

    def step(self) -> None:
        while requests := self.ingestion.requests(self.now):
            self.outbox += [(request.token, request.message) for request in requests]
        for message, verdict in self.ingestion.judged:
            assert message not in self.outcomes, "it is judged once"
            assert message.outcome is verdict
            self.outcomes[message] = verdict
        self.ingestion.judged.clear()

    # What the network does.

    def transmit(self) -> None:
        for token, message in self.outbox:
            self.going.append((token, self.names.get(message, b"") if message else b"", int(token.split(".")[4])))
        self.outbox.clear()

    def arrive(self, count: int = 10_000) -> None:
        """Let the server take so many messages."""
        for _ in range(min(count, len(self.going))):
            token, payload, _ = self.going.popleft()
            self.server.now = self.now
            self.coming += [(token, said) for said in self.server.heard(token, payload)]

    def come_back(self, count: int = 10_000) -> None:
        """Let so many replies come."""
        for _ in range(min(count, len(self.coming))):
            token, said = self.coming.popleft()
            self.hear(token, None if said is None else read_reply(json.dumps(said).encode()))

    def hear(self, token: str, reply: Flow | Gap | Refusal | Committed | None) -> None:
        self.confirmed += self.ingestion.heard(token, reply, self.now)
        self.step()

    def settle(self) -> None:
        """Let everything come and go until nothing moves."""
        while self.outbox or self.going or self.coming:
            self.transmit()
            self.arrive()
            self.come_back()

    def nobody_hears(self) -> None:
        """Let all that is on its way find no subscriber."""
        self.transmit()
        self.coming += [(token, None) for token, _, _ in self.going]
        self.going.clear()

    def lose(self) -> None:
        self.going.clear()
        self.coming.clear()
        self.outbox = [(token, message) for token, message in self.outbox if message is not None]
        self.ingestion.lost(self.now)
        self.step()

    def regain(self) -> None:
        self.ingestion.restored(self.now)
        self.step()

    def after(self, seconds: float) -> None:
        """Let time pass, and do what is due on the way."""
        until = self.now + seconds
        for _ in range(1000):
            due = self.ingestion.due()
            if due > until:
                break
            self.now = max(self.now, due)
            self.step()
        self.now = until
        self.step()

    def finish(self) -> None:
        self.ingestion.close()
        self.step()
        self.settle()
        assert self.ingestion.ended

    def verdicts(self) -> list[Verdict | None]:
        return [self.outcomes.get(message) for message in self.published]

    def operations(self) -> list[Op]:
        return [Op(int(token.split(".")[4])) for token, _ in self.outbox]


STORED, REFUSED, NOBODY, MISSED = Verdict.STORED, Verdict.REFUSED, Verdict.NOBODY, Verdict.MISSED
UNSENT, DISCONNECTED, FORGOTTEN, LATE = Verdict.UNSENT, Verdict.DISCONNECTED, Verdict.FORGOTTEN, Verdict.LATE

modes = pytest.mark.parametrize("keep_on", [False, True], ids=["fail", "continue"])


def flowing(**options: Any) -> Wire:  # noqa: ANN401 - those of Wire
    """Give one whose batch has begun, with one message."""
    w = Wire(**options)
    w.publish()
    w.settle()
    return w


# -- what the server says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b'{"type":"ack","seq":0,"msgs":4}', Flow(0, 4)),
        (b'{"type":"ack","seq":8,"msgs":0}', Flow(8, 1)),
        (b'{"type":"gap","last_seq":3,"seq":5}', Gap(3, 5)),
        (
            b'{"type":"err","seq":2,"error":{"code":400,"err_code":10071}}',
            Refusal({"code": 400, "err_code": 10071}, "", 10071, 2),
        ),
        (b'{"error":{"err_code":10208},"stream":"S","seq":0}', Refusal({"err_code": 10208}, "S", 10208, None)),
        (b'{"error":7,"stream":7}', Refusal(7, "", None, None)),
        (b'{"error":{"err_code":"x"}}', Refusal({"err_code": "x"}, "", None, None)),
        (b'{"stream":"S","seq":9,"batch":"B","count":2}', Committed("S", "", "B", 2)),
        (b'{"stream":"S","seq":9,"domain":"hub"}', Committed("S", "hub", "", 0)),
    ],
)
def test_what_the_server_says_is_read(data: bytes, reply: object) -> None:
    assert read_reply(data) == reply


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"type":"ack","seq":"1","msgs":4}',
        b'{"type":"ack","seq":1}',
        b'{"type":"gap","last_seq":-1,"seq":4}',
        b'{"type":"gap","seq":true,"last_seq":1}',
        b'{"type":"err","error":{}}',
        b'{"stream":"S"}',
        b'{"stream":"S","seq":1,"batch":"B"}',
    ],
)
def test_what_nobody_understands_is_an_error_of_its_own(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"it|its|Expecting"):
        read_reply(data)


# -- how a batch begins and ends ------------------------------------------------------------------------------------------


@modes
def test_the_second_message_waits_until_the_batch_has_begun_and_then_the_server_says_how_many(keep_on: bool) -> None:
    w = Wire(keep_on=keep_on)
    w.publish()
    assert [token for token, _ in w.outbox] == [f"b1.500.{'ok' if keep_on else 'fail'}.1.0.$FI"]
    assert not w.room()
    w.settle()
    for number in range(2, 9):
        w.publish()
        assert w.outbox[-1][0].endswith(f".{number}.1.$FI")
    assert not w.room(), "two acks, of four messages each, are outstanding"
    w.settle()
    assert w.room()
    assert w.verdicts() == [STORED] * 8


def test_what_was_acknowledged_needs_no_end_and_the_rest_is_known_by_it() -> None:
    w = flowing()
    for _ in range(5):
        w.publish()
    w.settle()
    assert w.verdicts() == [STORED] * 4 + [None] * 2
    assert len(w.ingestion) == 2
    assert w.ingestion.awaited() == ["b1.5", "b1.6"]
    w.finish()
    assert w.verdicts() == [STORED] * 6
    assert w.confirmed == 1
    assert w.server.batches == {}
    assert w.ingestion.due() == math.inf


def test_an_ingest_of_nothing_sends_nothing() -> None:
    w = Wire()
    assert w.ingestion.due() == math.inf
    w.finish()
    assert (w.confirmed, w.server.batches, w.outbox) == (0, {}, [])
    assert not w.room()


def test_a_batch_that_nobody_adds_to_is_ended_and_the_next_message_begins_another() -> None:
    w = flowing()
    w.after(IDLE - 0.01)
    assert not w.outbox
    w.after(0.01)
    assert w.operations() == [Op.END]
    assert not w.room()
    w.settle()
    assert w.verdicts() == [STORED]
    w.publish()
    assert w.outbox[0][0] == "b2.500.fail.1.0.$FI"
    w.finish()
    assert w.confirmed == 2


def test_a_slow_ack_gives_those_who_waited_for_it_time_to_publish() -> None:
    w = Wire(max_outstanding=1)
    w.publish()
    w.transmit()
    w.arrive()
    w.after(SILENCE - 0.01)
    w.come_back()
    w.after(SILENCE - 0.01)
    assert not w.outbox
    for _ in range(3):
        w.publish()
    w.transmit()
    w.arrive()
    w.after(SILENCE - 0.01)
    w.come_back()
    w.after(SILENCE - 0.01)
    assert not w.outbox, "it is not ended"
    assert w.room()


def test_the_last_messages_are_found_out_when_somebody_waits() -> None:
    w = flowing()
    first, second = w.published[0], w.publish()
    w.settle()
    w.ingestion.want(first, w.now)
    w.ingestion.want(second, w.now)
    w.ingestion.want(first, w.now)
    assert w.ingestion.due() == w.now + WANTED
    w.after(WANTED)
    w.settle()
    assert w.verdicts() == [STORED] * 2
    assert w.ingestion.due() == math.inf


def test_what_is_acknowledged_before_it_is_waited_for_long_ends_no_batch() -> None:
    w = flowing()
    w.ingestion.want(w.published[0], w.now)
    for _ in range(3):
        w.publish()
    w.settle()
    w.now += WANTED
    w.step()
    assert not w.outbox
    assert w.ingestion.due() == pytest.approx(w.now - WANTED + IDLE)


def test_a_batch_that_begins_or_is_full_is_ended_as_soon_as_it_can_be() -> None:
    w = Wire()
    w.publish()
    w.ingestion.close()
    w.step()
    w.finish()
    assert w.verdicts() == [STORED]
    w = flowing(max_outstanding=1)
    for _ in range(3):
        w.publish()
    assert not w.room()
    w.ingestion.close()
    w.step()
    assert w.operations()[-1] is Op.END
    w.finish()
    assert w.verdicts() == [STORED] * 4


def test_large_messages_end_a_batch_before_too_many_are_under_way_and_the_next_has_smaller_steps() -> None:
    w = flowing(step=500)
    for _ in range(4):
        assert w.room()
        w.publish(size=MOST_BYTES // 4)
    assert not w.room()
    assert w.operations() == [*[Op.APPEND] * 4, Op.END]
    w.settle()
    assert w.verdicts() == [STORED] * 5
    w.publish(size=MOST_BYTES // 4)
    assert w.outbox[0][0] == "b2.1.fail.1.0.$FI"
    w.settle()
    w.publish(size=MOST_BYTES)
    assert w.operations() == [Op.APPEND, Op.END]
    w.finish()
    assert w.verdicts() == [STORED] * 7


def test_large_messages_that_are_sent_again_are_bounded_too() -> None:
    w = flowing(step=500, keep_on=True)
    for _ in range(3):
        w.publish(size=MOST_BYTES // 3 + 1)
    w.lose()
    w.server.batches.clear()
    w.regain()
    w.settle()
    assert w.verdicts() == [DISCONNECTED, STORED, STORED, STORED]
    for _ in range(2):
        w.publish(size=MOST_BYTES // 2)
        w.settle()
    w.finish()
    assert w.server.stored == [b"%d" % number for number in range(6)]


# -- what is not stored ---------------------------------------------------------------------------------------------------


def test_a_refused_message_ends_the_ingest_and_what_follows_is_not_stored() -> None:
    w = flowing()
    w.server.takes = lambda payload: "late" if payload == b"2" else ""
    for _ in range(4):
        w.publish()
    w.settle()
    assert w.verdicts() == [STORED, STORED, REFUSED, MISSED, MISSED]
    assert w.published[2].refusal.code == 10071
    assert w.ingestion.failing
    assert not w.room()
    w.finish()
    assert w.confirmed == 0


@pytest.mark.parametrize("how", ["early", "late"])
def test_a_refused_first_message_ends_the_ingest(how: str) -> None:
    w = Wire()
    w.server.takes = lambda _: how
    w.publish()
    w.settle()
    assert w.verdicts() == [REFUSED]
    assert w.ingestion.failing
    w.finish()


@pytest.mark.parametrize("how", ["early", "late"])
def test_where_it_goes_on_only_the_refused_messages_fail(how: str) -> None:
    w = Wire(keep_on=True)
    w.server.takes = lambda payload: how if payload in (b"0", b"2", b"5") else ""
    for _ in range(6):
        w.publish()
        w.settle()
    w.finish()
    assert w.verdicts() == [REFUSED, STORED, REFUSED, STORED, STORED, REFUSED]
    assert w.server.stored == [b"1", b"3", b"4"]


def test_refused_messages_take_no_room() -> None:
    """The server counts only what it stores: it would never say that a window full of refused messages is over."""
    w = flowing(keep_on=True)
    w.server.takes = lambda payload: "late" if 1 <= int(payload) <= 30 else ""
    for _ in range(40):
        assert w.room()
        w.publish()
        w.settle()
    w.finish()
    assert Counter(w.verdicts()) == {STORED: 11, REFUSED: 30}


def test_a_full_window_without_an_ack_is_asked_for() -> None:
    w = flowing(keep_on=True, max_outstanding=1)
    for _ in range(3):
        w.publish()
    w.transmit()
    w.going.pop()  # by a leader that has just stepped down
    w.settle()
    assert not w.room()
    w.after(SILENCE)
    assert w.operations() == [Op.PING]
    w.settle()
    assert w.verdicts() == [STORED, STORED, STORED, MISSED]
    assert w.room()


@modes
def test_a_gap_is_told_of_those_that_are_missing(keep_on: bool) -> None:
    w = flowing(keep_on=keep_on)
    for _ in range(4):
        w.publish()
    w.transmit()
    del w.going[1]  # the third message
    w.settle()
    w.finish()
    expected = [STORED, STORED, MISSED, STORED, STORED] if keep_on else [STORED, STORED, MISSED, MISSED, MISSED]
    assert w.verdicts() == expected
    assert w.confirmed == keep_on


@modes
def test_messages_that_are_missing_at_the_end_are_told_too(keep_on: bool) -> None:
    w = flowing(keep_on=keep_on)
    for _ in range(2):
        w.publish()
    w.transmit()
    w.going.pop()
    w.finish()
    assert w.verdicts() == [STORED, STORED, MISSED]
    assert w.confirmed == keep_on


def test_a_message_that_comes_twice_ends_the_batch_but_not_the_ingest() -> None:
    w = flowing(keep_on=True)
    w.publish()
    w.transmit()
    w.going.append(w.going[0])
    w.settle()
    assert w.verdicts() == [STORED, STORED]
    w.publish()
    w.finish()
    assert w.verdicts() == [STORED] * 3


def test_behind_a_gap_that_ends_a_batch_nothing_is_stored() -> None:
    w = flowing()
    for _ in range(2):
        w.publish()
    w.hear("b1.500.fail.3.1.$FI", Gap(2, 3))
    assert w.verdicts() == [None, MISSED, MISSED], "the PubAck need not come for that"


def test_a_slow_stream_that_says_that_it_lives_is_waited_for() -> None:
    w = flowing(max_outstanding=1)
    for _ in range(3):
        w.publish()
    w.transmit()
    for _ in range(8):
        w.after(SILENCE)
        assert w.operations() == [Op.PING]
        token, _ = w.outbox.pop()
        w.hear(token, Flow(0, 4))
        assert not w.outbox
    w.settle()
    assert w.verdicts() == [STORED] * 4


def test_a_puback_that_does_not_come_behind_a_gap_is_asked_for() -> None:
    w = flowing()
    w.publish()
    w.hear("b1.500.fail.2.1.$FI", Gap(2, 1))
    w.transmit()
    w.going.clear()
    w.after(SILENCE)
    assert w.operations() == [Op.END]
    w.settle()
    assert w.verdicts() == [STORED, MISSED]


# -- nobody listens -------------------------------------------------------------------------------------------------------


@modes
def test_a_first_message_that_nobody_hears_is_tried_again(keep_on: bool) -> None:
    w = Wire(keep_on=keep_on)
    w.publish()
    for _ in range(2):
        w.nobody_hears()
        w.come_back()
        assert not w.outbox
        w.after(RETRY_PAUSE)
        assert w.operations() == [Op.START]
    w.nobody_hears()
    w.come_back()
    assert w.verdicts() == [NOBODY]
    assert w.room() is keep_on
    w.finish()
    w = Wire()
    w.publish()
    w.nobody_hears()
    w.come_back()
    w.after(RETRY_PAUSE)
    w.finish()
    assert w.verdicts() == [STORED]


def test_a_first_message_that_is_tried_again_is_the_one_that_nobody_heard() -> None:
    """And not one before it that nobody has heard either, which is told already."""
    w = Wire(keep_on=True)
    for tries in (2, 1):
        w.publish()
        for _ in range(tries):
            w.nobody_hears()
            w.come_back()
            w.after(RETRY_PAUSE)
        if tries == 2:
            w.nobody_hears()
            w.come_back()
    w.finish()
    assert w.verdicts() == [NOBODY, STORED]
    assert w.server.stored == [b"1"]


@modes
def test_a_stream_without_a_leader_is_asked_again_until_it_answers(keep_on: bool) -> None:
    w = flowing(keep_on=keep_on)
    for _ in range(2):
        w.publish()
    w.nobody_hears()
    w.come_back()
    assert w.verdicts() == [None, NOBODY, NOBODY]
    assert not w.room()
    w.after(RETRY_PAUSE)
    w.nobody_hears()
    w.come_back()
    w.after(RETRY_PAUSE)
    assert w.operations() == [Op.PING]
    w.settle()
    assert w.room() is keep_on
    w.finish()
    assert w.verdicts() == [STORED, NOBODY, NOBODY]


def test_a_stream_that_stays_away_is_given_up() -> None:
    w = flowing(keep_on=True)
    w.publish()
    w.nobody_hears()
    w.come_back()
    for _ in range(30):
        w.after(RETRY_PAUSE)
        w.nobody_hears()
        w.come_back()
    assert w.verdicts() == [LATE, NOBODY]
    assert w.room()


# -- the connection -------------------------------------------------------------------------------------------------------


@modes
def test_where_all_has_arrived_it_goes_on_as_if_nothing_were(keep_on: bool) -> None:
    w = flowing(keep_on=keep_on)
    w.publish()
    w.transmit()
    w.arrive()
    left = w.publish()
    w.lose()
    assert not w.room()
    assert not w.outbox, "what has not left waits here"
    w.after(1)
    w.regain()
    assert w.operations() == [Op.PING]
    w.settle()
    assert w.ingestion.awaited()[-1] == f"b1.{left.seq}"
    w.finish()
    unknown = DISCONNECTED if keep_on else STORED
    assert w.verdicts() == [unknown, unknown, STORED], "an error may have been lost"
    assert w.server.stored == [b"0", b"1", b"2"]


@modes
def test_what_has_not_arrived_is_known(keep_on: bool) -> None:
    w = flowing(keep_on=keep_on)
    for _ in range(2):
        w.publish()
    w.transmit()
    w.arrive(1)
    w.publish()
    w.lose()
    w.regain()
    w.settle()
    w.finish()
    if keep_on:
        assert w.verdicts() == [DISCONNECTED, DISCONNECTED, MISSED, STORED]
    else:
        assert w.verdicts() == [STORED, STORED, MISSED, UNSENT]


@modes
def test_what_the_server_has_forgotten_is_not_known_and_what_never_left_begins_anew(keep_on: bool) -> None:
    w = flowing(keep_on=keep_on)
    w.publish()
    w.lose()
    w.server.batches.clear()
    w.regain()
    w.settle()
    w.finish()
    assert w.verdicts() == [DISCONNECTED, STORED if keep_on else UNSENT]


def test_a_batch_of_which_all_is_known_may_be_forgotten() -> None:
    w = flowing()
    for _ in range(3):
        w.publish()
    w.settle()
    w.server.batches.clear()
    for _ in range(3):
        w.publish()
    w.settle()
    w.finish()
    assert w.verdicts() == [STORED] * 7
    assert not w.ingestion.failing
    assert w.server.stored == [b"%d" % number for number in range(7)]


@modes
def test_a_batch_that_is_forgotten_with_something_unknown_is_told(keep_on: bool) -> None:
    w = flowing(keep_on=keep_on)
    w.server.batches.clear()
    for _ in range(2):
        w.publish()
    w.settle()
    w.finish()
    assert w.verdicts() == ([FORGOTTEN, STORED, STORED] if keep_on else [FORGOTTEN, MISSED, MISSED])


def test_a_connection_that_does_not_come_back_is_not_waited_for_for_ever() -> None:
    w = flowing(keep_on=True)
    w.publish()
    w.lose()
    w.after(PATIENCE)
    assert w.verdicts() == [DISCONNECTED, UNSENT]
    assert not w.room()
    w.regain()
    assert w.room()
    w = Wire()
    w.publish()
    w.lose()
    assert w.ingestion.due() == w.now + PATIENCE
    w.after(PATIENCE)
    assert w.verdicts() == [UNSENT]
    assert w.ingestion.failing


def test_a_connection_that_breaks_before_anything_left_changes_nothing() -> None:
    w = Wire()
    w.publish()
    w.lose()
    assert w.ingestion.due() == w.now + PATIENCE
    w.regain()
    assert w.operations() == [Op.START]
    w.finish()
    assert w.verdicts() == [STORED]
    w = flowing()
    for _ in range(3):
        w.publish()
    w.settle()
    w.lose()
    w.regain()
    assert w.room(), "all of it is known"
    w.finish()
    assert w.confirmed == 1


@pytest.mark.parametrize(("keep_on", "second"), [(False, Verdict.STORED), (True, Verdict.DISCONNECTED)])
def test_an_end_says_what_is_missing_also_behind_a_broken_connection(keep_on: bool, second: Verdict) -> None:
    w = Wire(keep_on=keep_on)
    w.publish()
    w.settle()
    two, three = w.publish(), w.publish()
    w.transmit()
    batch = w.going[0][0].split(".")[0]
    w.lose()
    w.ingestion.restored(w.now)
    w.step()
    w.hear(w.outbox[-1][0], Committed("S", "", batch, 2))
    assert (w.outcomes[two], w.outcomes[three]) == (second, Verdict.MISSED)


def test_an_end_that_lacks_messages_is_not_the_one_that_was_asked_for() -> None:
    w = Wire(keep_on=True)
    w.publish()
    w.settle()
    two, three = w.publish(), w.publish()
    w.ingestion.close()
    w.step()
    w.transmit()
    token = w.going[-1][0]
    w.hear(token, Committed("S", "", token.split(".")[0], 2))
    assert (w.outcomes[two], w.outcomes[three], w.confirmed) == (Verdict.STORED, Verdict.MISSED, 0)


def test_an_end_that_is_lost_with_the_connection_is_sent_again() -> None:
    w = flowing()
    w.ingestion.close()
    w.step()
    w.transmit()
    w.lose()
    w.regain()
    w.settle()
    assert w.ingestion.ended
    assert (w.verdicts(), w.confirmed) == ([STORED], 1)


def test_without_a_connection_there_is_no_room() -> None:
    w = Wire(online=False)
    assert not w.room()
    w.regain()
    w.publish()
    w.finish()
    assert w.verdicts() == [STORED]


# -- silence ----------------------------------------------------------------------------------------------------------------


def test_a_stream_that_does_not_begin_is_asked_and_given_up() -> None:
    w = Wire()
    w.publish()
    w.transmit()
    w.going.clear()
    w.after(SILENCE)
    assert w.operations() == [Op.PING]
    w.after(PATIENCE)
    assert w.verdicts() == [LATE]
    assert w.ingestion.failing
    w = Wire(keep_on=True)
    w.publish()
    w.transmit()
    w.arrive()
    w.coming.clear()
    w.after(SILENCE)
    w.settle()
    assert w.room()
    w.finish()
    assert w.verdicts() == [STORED]


def test_what_has_not_left_when_it_is_given_up_is_not_sent() -> None:
    w = Wire()
    w.publish()
    w.after(PATIENCE)
    assert w.verdicts() == [UNSENT]
    assert not [message for _, message in w.outbox if message is not None]


def test_an_ack_in_time_gives_another_time() -> None:
    w = flowing()
    for _ in range(3):
        w.publish()
    w.transmit()
    w.arrive()
    w.after(IDLE)
    assert w.operations() == [Op.END]
    w.after(PATIENCE - 0.1)
    w.come_back()
    w.after(PATIENCE - 0.1)
    assert w.verdicts() == [STORED] * 4
    w.after(0.2)
    assert w.ingestion.ended


# -- replies of nobody ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token", ["", "b1", "b0.500.fail.1.0.$FI", "b1.500.fail.x.1.$FI", "b1.500.fail.1.x.$FI", "b1.500.fail.1.1.1.$FI"]
)
def test_replies_to_nothing_are_ignored(token: str) -> None:
    w = flowing()
    w.hear(token, Flow(1, 9))
    assert w.verdicts() == [None]
    w.finish()
    w.hear(token, None)


@pytest.mark.parametrize(
    "reply",
    [
        Flow(7, 4),
        Committed("S", "", "b1", 7),
        Committed("S", "", "b9", 1),
        Committed("T", "", "b1", 1),
        Gap(5, 9),
        Refusal({}, "S", 1, 9),
    ],
)
def test_replies_about_what_was_never_sent_are_ignored(reply: Flow | Committed) -> None:
    w = flowing(keep_on=True)
    w.hear("b1.500.ok.1.1.$FI", reply)
    assert w.verdicts() == [None]
    assert w.room()
    w.finish()
    assert w.verdicts() == [STORED]


def test_a_stream_that_takes_it_for_a_plain_publish_has_stored_it() -> None:
    w = Wire()
    w.publish()
    w.hear("b1.500.fail.1.0.$FI", Committed("S", "", "", 0))
    assert w.verdicts() == [STORED]
    assert w.room()
    w = flowing()
    w.publish()
    w.hear("b1.500.fail.2.1.$FI", Committed("S", "", "", 0))
    assert w.verdicts() == [None, STORED]


def test_what_another_stream_refuses_is_its_message_alone() -> None:
    w = flowing(keep_on=True)
    w.publish()
    w.publish()
    w.hear("b1.500.ok.2.1.$FI", Refusal({}, "T", 10208, None))
    assert w.verdicts() == [None, REFUSED, None]


@modes
def test_an_end_that_is_refused_leaves_the_rest_unknown(keep_on: bool) -> None:
    w = flowing(keep_on=keep_on)
    w.ingestion.close()
    w.step()
    w.hear("b1.500.fail.2.3.$FI", Refusal({}, "S", 10002, None))
    assert w.verdicts() == [FORGOTTEN]
    assert w.ingestion.ended


def test_what_the_server_does_not_pass_on_is_refused() -> None:
    w = flowing(keep_on=True)
    other = Ingested("s.b")
    w.published.append(other)
    w.outbox.append((w.ingestion.token(), other))
    w.ingestion.sent(other, w.now)
    w.ingestion.refused("s.b", "no", w.now)
    w.step()
    assert w.verdicts() == [None, None], "it has not left us"
    w.settle()
    w.published.append(third := Ingested("s.b"))
    w.outbox.append((w.ingestion.token(), third))
    w.ingestion.sent(third, w.now)
    w.transmit()
    w.going.clear()
    w.ingestion.refused("s.b", "no", w.now)
    w.step()
    assert w.operations() == [Op.PING]
    w.ingestion.refused("s.b", "no", w.now)
    w.settle()
    w.finish()
    assert w.verdicts() == [STORED, REFUSED, REFUSED]
    assert third.refusal == "no"


def test_a_batch_whose_first_subject_is_refused_cannot_be_ended() -> None:
    w = flowing()
    w.publish()
    w.ingestion.refused("s.a", "no", w.now)
    w.step()
    assert w.verdicts() == [REFUSED, UNSENT]
    assert w.ingestion.ended


# -- messages that cannot be sent again, and the end -------------------------------------------------------------------------


@modes
def test_a_message_that_the_new_server_does_not_take_fails_alone_or_ends_the_ingest(keep_on: bool) -> None:
    w = flowing(keep_on=keep_on)
    for _ in range(3):
        w.publish()
    w.transmit()
    w.arrive()
    w.come_back()
    for _ in range(2):
        w.publish()
    w.lose()
    w.ingestion.restored(w.now)
    requests = w.ingestion.requests(w.now)
    assert [request.op for request in requests] == [Op.APPEND] * 2
    dropped = requests[0].message
    assert dropped is not None
    w.ingestion.dropped(dropped, "too large")
    w.outbox.append((requests[1].token, requests[1].message))
    w.step()
    w.finish()
    assert w.verdicts()[4:] == ([REFUSED, STORED] if keep_on else [REFUSED, MISSED])


def test_a_first_message_that_the_new_server_does_not_take_begins_nothing() -> None:
    w = Wire(keep_on=True)
    w.publish()
    w.lose()
    w.ingestion.restored(w.now)
    (request,) = w.ingestion.requests(w.now)
    assert request == Request(Op.START, request.token, w.published[0])
    w.ingestion.dropped(w.published[0], "too large")
    w.step()
    assert w.verdicts() == [REFUSED]
    assert w.room()


def test_the_end_gives_up_what_is_under_way_and_says_so_to_the_server() -> None:
    w = flowing()
    w.publish()
    given_up, farewell = w.ingestion.end()
    assert given_up == w.published
    assert farewell == "b1.500.fail.3.3.$FI"
    assert w.ingestion.ended
    assert not w.room()
    assert w.ingestion.end() == ([], "")
    w = flowing()
    w.publish()
    w.lose()
    assert w.ingestion.end() == (w.published, ""), "nobody would hear it"


# -- anything, in any order --------------------------------------------------------------------------------------------------


class AnIngest(RuleBasedStateMachine):
    """An ingest, a server, and a network that loses what it likes."""

    keep_on = False

    def __init__(self) -> None:
        super().__init__()
        self.w = Wire(keep_on=self.keep_on, step=3)
        self.w.server.takes = lambda payload: payload.decode().partition("-")[2]
        self.online = True
        self.clean = True

    @precondition(lambda self: self.w.room())
    @rule(
        how=st.sampled_from(["", "", "", "", "", "early", "late"]),
        left=st.booleans(),
        size=st.sampled_from([1, 1, 1, MOST_BYTES // 3 + 1]),
    )
    def publish(self, how: str, left: bool, size: int) -> None:
        self.w.publish(f"{len(self.w.published)}-{how}".encode(), size=size)
        if left and self.online:
            self.w.transmit()

    @precondition(lambda self: self.online)
    @rule()
    def transmit(self) -> None:
        self.w.transmit()

    @rule(count=st.integers(1, 4))
    def arrive(self, count: int) -> None:
        self.w.arrive(count)

    @rule(count=st.integers(1, 4))
    def come_back(self, count: int) -> None:
        self.w.come_back(count)

    @precondition(lambda self: self.w.going)
    @rule(data=st.data())
    def lose_one(self, data: st.DataObject) -> None:
        """A leader that has just stepped down drops what it has not looked at."""
        place = data.draw(st.integers(0, len(self.w.going) - 1))
        del self.w.going[place]

    @precondition(lambda self: self.online and self.w.outbox)
    @rule()
    def nobody(self) -> None:
        self.w.arrive()
        self.w.nobody_hears()

    @precondition(lambda self: self.online)
    @rule(times=st.integers(1, 4))
    def have_no_leader(self, times: int) -> None:
        for _ in range(times):
            self.w.arrive()
            self.w.nobody_hears()
            self.w.come_back()
            self.w.after(RETRY_PAUSE)

    @precondition(lambda self: self.online)
    @rule(arrived=st.integers(0, 4))
    def lose(self, arrived: int) -> None:
        self.w.arrive(arrived)
        self.w.lose()
        self.online = False

    @precondition(lambda self: not self.online)
    @rule()
    def regain(self) -> None:
        self.w.regain()
        self.online = True

    @rule()
    def forget(self) -> None:
        self.w.server.batches.clear()

    @rule(seconds=st.sampled_from([0.05, 0.25, 1.0, 5.0, IDLE_LIMIT]))
    def wait(self, seconds: float) -> None:
        self.w.after(seconds)

    @precondition(lambda self: any(message.outcome is None for message in self.w.published))
    @rule(data=st.data())
    def want(self, data: st.DataObject) -> None:
        waiting = [message for message in self.w.published if message.outcome is None]
        self.w.ingestion.want(data.draw(st.sampled_from(waiting)), self.w.now)
        self.w.step()

    @invariant()
    def what_is_said_is_true(self) -> None:
        w = self.w
        stored = Counter(w.server.stored)
        assert not stored or max(stored.values()) == 1
        for message, verdict in w.outcomes.items():
            if verdict is Verdict.STORED:
                assert w.names[message] in stored
            elif verdict in CERTAINLY_NOT:
                assert w.names[message] not in stored

    @invariant()
    def the_order_is_kept(self) -> None:
        numbers = [int(payload.partition(b"-")[0]) for payload in self.w.server.stored]
        assert numbers == sorted(numbers)
        if not self.keep_on:
            assert numbers == list(range(len(numbers))), "none is stored behind one that is not"

    @invariant()
    def books_are_kept(self) -> None:
        w = self.w
        assert len(w.ingestion) == len(w.published) - len(w.outcomes)
        assert w.ingestion.under_way >= 0
        assert w.ingestion.due() > 0
        assert sum(message.size for message in w.published if message.outcome is None) <= 2 * MOST_BYTES
        if not self.keep_on:
            assert w.ingestion.failing == any(verdict is not STORED for verdict in w.outcomes.values())

    def teardown(self) -> None:
        w = self.w
        if not self.online:
            w.regain()
        w.ingestion.close()
        w.step()
        for _ in range(100):
            w.settle()
            if w.ingestion.ended:
                break
            w.after(1.0)
        assert w.ingestion.ended
        assert len(w.outcomes) == len(w.published)
        assert len(w.ingestion) == 0
        self.what_is_said_is_true()
        self.the_order_is_kept()


class AnIngestThatGoesOn(AnIngest):
    """The same, where a gap does not end it."""

    keep_on = True


TestAnIngest = AnIngest.TestCase
TestAnIngest.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestAnIngestThatGoesOn = AnIngestThatGoesOn.TestCase
TestAnIngestThatGoesOn.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
