"""Reading a push consumer: when the server may go on, when there is too much, and what silence means."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trionats import errors
from trionats._protocol.jetstream.actions import Fail, Inspect, Wait
from trionats._protocol.jetstream.consumers.push import Answer, Push, PushNews, PushTraits, Tell

BEAT = 5.0


def reader(**traits: object) -> Push:
    return Push("S", "C", PushTraits("to.us", **traits), 0.0)  # type: ignore[arg-type]


def ack(sequence: int) -> str:
    return f"$JS.ACK.S.C.1.{sequence}.{sequence}.1.0"


def steps(push: Push, now: float) -> list[object]:
    """All that is to be done at once, and what is waited for then."""
    found: list[object] = []
    while not isinstance(step := push.next(now), Wait | Inspect | Fail):
        found.append(step)
    return [*found, step]


def news(push: Push, now: float = 0.0) -> list[object]:
    return steps(push, now)[:-1]


def beat(push: Push, now: float, last: int | None = None, stalled: str | None = None) -> None:
    headers = {} if last is None else {"Nats-Last-Consumer": str(last), "Nats-Last-Stream": str(last)}
    push.status(100, "Idle Heartbeat", headers | ({"Nats-Consumer-Stalled": stalled} if stalled else {}), "", now)


def ask(push: Push, subject: str) -> None:
    push.status(100, "FlowControl Request", {}, subject, 0.0)


# -- flow control ----------------------------------------------------------------------------------------------------------------


def test_flow_control_is_answered_once_what_came_before_was_received() -> None:
    push = reader(flow_control=True, max_messages=1, max_bytes=1)
    assert all(push.came(ack(n), 100, 0.0) for n in (1, 2))
    ask(push, "$JS.FC.S.C.x")
    assert push.came(ack(3), 100, 0.0)
    assert news(push) == []
    assert not push.received(100)
    assert push.received(100)
    assert news(push) == [Answer("$JS.FC.S.C.x")]
    assert not push.received(100)
    ask(push, "$JS.FC._.hash.S.C.y")
    assert news(push) == [Answer("$JS.FC._.hash.S.C.y")]


def test_a_heartbeat_names_the_request_that_the_server_waits_for() -> None:
    push = reader(flow_control=True, heartbeat=BEAT)
    push.came(ack(1), 1, 0.0)
    ask(push, "fc.1")
    beat(push, 1.0, stalled="fc.1")
    assert news(push) == []
    push.received(1)
    assert news(push) == [Answer("fc.1")]
    # The answer got lost, or the request did.
    beat(push, 2.0, stalled="fc.1")
    beat(push, 2.0, stalled="fc.2")
    assert news(push) == [Answer("fc.1"), Answer("fc.2")]


@pytest.mark.parametrize("subject", ["a b", "a\r\nPUB b 0", "", "a.*", "a..b", "\udcff"])
def test_what_is_no_subject_is_not_answered(subject: str) -> None:
    push = reader(flow_control=True)
    beat(push, 0.0, stalled=subject)
    ask(push, subject)
    assert news(push) == []


def test_a_stranger_who_asks_for_much_is_not_remembered() -> None:
    push = reader(flow_control=True)
    push.came(ack(1), 1, 0.0)
    for number in range(1000):
        ask(push, f"a.{number}")
    push.received(1)
    assert len(news(push)) == 64


def test_requests_of_a_connection_that_is_lost_are_void() -> None:
    push = reader(flow_control=True)
    push.came(ack(1), 1, 0.0)
    ask(push, "fc.1")
    push.connection_lost()
    push.received(1)
    assert steps(push, 1e9) == [Wait(inf)]


class Flow(RuleBasedStateMachine):
    """The server never has more in flight than it may: an answer means that all before its request was received."""

    def __init__(self) -> None:
        super().__init__()
        self.push = reader(flow_control=True)
        self.came = self.received = self.number = 0
        self.asked: dict[str, int] = {}
        self.answered: list[str] = []

    def settle(self) -> None:
        for step in news(self.push):
            assert isinstance(step, Answer)
            assert self.asked[step.subject] <= self.received
            self.answered.append(step.subject)

    @rule(size=st.integers(0, 10**6))
    def message(self, size: int) -> None:
        assert self.push.came(ack(self.came + 1), size, 0.0)
        self.came += 1

    @rule()
    def request(self) -> None:
        self.number += 1
        self.asked[f"fc.{self.number}"] = self.came
        ask(self.push, f"fc.{self.number}")
        self.settle()

    @precondition(lambda self: self.received < self.came)
    @rule()
    def receive(self) -> None:
        self.received += 1
        self.push.received(0)
        self.settle()

    @invariant()
    def what_may_be_answered_is(self) -> None:
        ready = [subject for subject, place in self.asked.items() if place <= self.received]
        assert self.answered == ready


test_flow_control_is_answered_in_order_and_neither_early_nor_late = Flow.TestCase


# -- too much ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limits", "fit"), [({"max_messages": 2}, 2), ({"max_bytes": 25}, 2), ({}, 10)])
def test_without_flow_control_what_waits_is_limited(limits: dict[str, int], fit: int) -> None:
    push = reader(**limits)
    assert [push.came(ack(n), 10, 0.0) for n in range(10)].count(True) == fit
    step = push.next(0.0)
    if limits:
        assert isinstance(step, Fail)
        assert isinstance(step.error, errors.SlowConsumerError)
        assert f"consumer 'C' of stream 'S': {fit} messages (20 bytes) wait to be received" in str(step.error)
    else:
        assert step == Wait(30.0)


def test_what_was_received_makes_room() -> None:
    push = reader(max_messages=1, max_bytes=10)
    for number in range(100):
        assert push.came(ack(number), 10, 0.0)
        push.received(10)


# -- silence -------------------------------------------------------------------------------------------------------------------------


def test_two_missed_heartbeats_lead_to_a_look_and_are_told_once() -> None:
    push = reader(heartbeat=BEAT)
    beat(push, 4.0)
    assert push.next(13.9) == Wait(14.0)
    assert push.next(14.0) == Inspect("C") == push.next(14.0)
    push.looking()
    assert push.next(15.0) == Wait(inf)
    push.inspected("to.us", 15.0)
    assert steps(push, 15.0) == [Tell(PushNews.SILENT), Wait(25.0)]
    push.looking()
    push.inspected("to.us", 25.0)
    assert steps(push, 25.0) == [Wait(35.0)]
    push.came(ack(1), 1, 30.0)
    assert push.next(30.0) == Wait(40.0)
    push.looking()
    push.inspect_failed(None, 40.0)
    assert steps(push, 40.0) == [Tell(PushNews.SILENT), Wait(50.0)]


def test_what_is_heard_while_it_is_looked_is_no_silence() -> None:
    push = reader(heartbeat=BEAT)
    push.looking()
    beat(push, 11.0)
    assert push.next(11.0) == Wait(inf)
    push.inspected("to.us", 12.0)
    assert steps(push, 12.0) == [Wait(21.0)]


@pytest.mark.parametrize("traits", [{}, {"heartbeat": BEAT, "group": "g"}])
def test_without_heartbeats_of_its_own_half_a_minute_of_silence_leads_to_a_look(traits: dict[str, object]) -> None:
    push = reader(**traits)
    push.came(ack(1), 1, 10.0)
    assert push.next(39.0) == Wait(40.0)
    assert push.next(40.0) == Inspect("C")
    push.looking()
    push.inspected("to.us", 40.0)
    assert steps(push, 40.0) == [Wait(70.0)]


@pytest.mark.parametrize("text", ["Consumer Deleted", "Something Else"])
def test_a_connection_that_is_back_and_a_status_lead_to_a_look(text: str) -> None:
    push = reader(heartbeat=BEAT)
    push.connection_lost()
    assert push.next(1000.0) == Wait(inf)
    push.connection_restored(1000.0)
    assert push.next(1000.0) == Inspect("C")
    push.looking()
    push.inspected("to.us", 1000.5)
    assert steps(push, 1000.5) == [Wait(1010.0)]
    push.status(409, text, {}, "", 1001.0)
    assert push.next(1001.0) == (Inspect("C") if text == "Consumer Deleted" else Wait(1011.0))


def test_a_consumer_that_is_gone_is_looked_for_twice() -> None:
    push = reader(heartbeat=BEAT)
    gone = errors.explained(errors.NotFoundError, "x", description="consumer not found", err_code=10014)
    push.looking()
    push.inspect_failed(gone, 10.0)
    assert push.next(10.0) == Wait(10.5)
    push.looking()
    push.inspected("to.us", 10.5)
    for at in (20.5, 21.0):
        assert push.next(at) == Inspect("C") or steps(push, at)[-1] == Inspect("C")
        push.looking()
        push.inspect_failed(gone, at)
    step = push.next(21.0)
    assert isinstance(step, Fail)
    assert isinstance(step.error, errors.ConsumerGoneError)
    push.came(ack(1), 1, 22.0)
    assert push.next(22.0) == step


def test_who_may_not_look_hears_of_silence_and_looks_no_more() -> None:
    push = reader(heartbeat=BEAT)
    push.looking()
    push.inspect_failed(errors.PermissionsViolationError("no"), 10.0)
    assert steps(push, 10.0) == [Tell(PushNews.SILENT), Wait(inf)]
    push.connection_lost()
    push.connection_restored(20.0)
    beat(push, 21.0)
    assert push.next(1e9) == Wait(inf)


@pytest.mark.parametrize(
    ("subject", "text"), [("to.them", "delivers to 'to.them' now"), (None, "no longer delivers of itself")]
)
def test_a_consumer_that_delivers_elsewhere_is_lost(subject: str | None, text: str) -> None:
    push = reader()
    push.looking()
    push.inspected(subject, 30.0)
    step = push.next(30.0)
    assert isinstance(step, Fail)
    assert text in str(step.error)


# -- gaps ------------------------------------------------------------------------------------------------------------------------------


def test_what_does_not_come_again_is_told_as_missed() -> None:
    push = reader(acknowledges=False, heartbeat=BEAT)
    for sequence in (7, 8, 11):
        push.came(ack(sequence), 1, 0.0)
    assert news(push) == [Tell(PushNews.MISSED, 2)]
    beat(push, 0.0, last=11)
    beat(push, 0.0, last=14)
    beat(push, 0.0, last=14)
    beat(push, 0.0)
    assert news(push) == [Tell(PushNews.MISSED, 3)]
    push.came(ack(15), 1, 0.0)
    push.came(ack(1), 1, 0.0)  # it was reset
    push.came(ack(2), 1, 0.0)
    push.came("none", 1, 0.0)
    assert news(push) == []


def test_what_is_missed_before_the_first_message_is_found_by_a_heartbeat() -> None:
    push = reader(acknowledges=False, heartbeat=BEAT)
    beat(push, 0.0, last=3)
    push.came(ack(6), 1, 0.0)
    assert news(push) == [Tell(PushNews.MISSED, 2)]


@pytest.mark.parametrize("traits", [{"acknowledges": True}, {"acknowledges": False, "group": "g"}])
def test_what_comes_again_or_goes_to_another_member_is_not_missed(traits: dict[str, object]) -> None:
    push = reader(**traits)
    push.came(ack(1), 1, 0.0)
    push.came(ack(9), 1, 0.0)
    beat(push, 0.0, last=20)
    assert news(push) == []
