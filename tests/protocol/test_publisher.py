"""The window of a publisher: what is under way, what is sent again, and that each publish ends once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trionats._protocol.jetstream.publisher import LONGEST_REACH, SAFE_PART, Publish, Reaches, Verdict, Window
from trionats._protocol.jetstream.publishing import MSG_ID, UNDER_WAY

CONFLICT = 10071
FULL = 10077


class Outbox:
    """Where frames wait: those that were told to."""

    def __init__(self) -> None:
        self.waiting: set[Publish] = set()
        self.withdrawn: list[Publish] = []

    def waits(self, publish: Publish) -> bool:
        return publish in self.waiting

    def withdraw(self, publish: Publish) -> None:
        self.waiting.discard(publish)
        self.withdrawn.append(publish)


class Flown:
    """A window, what was sent through it, and when."""

    def __init__(self, *, resend: bool = False, max_pending: int = 4, online: bool = True) -> None:
        self.outbox = Outbox()
        self.window = Window(max_pending, 5.0, self.outbox, resend=resend, online=online)
        self.now = 100.0
        self._tokens = map(str, itertools.count(1))

    def publish(self, subject: str = "s.a", msg_id: str | None = "i", *, waits: bool = False) -> Publish:
        publish = Publish(subject, None if msg_id is None else {MSG_ID: msg_id})
        self.send(publish, waits=waits)
        return publish

    def send(self, publish: Publish, *, waits: bool = False) -> None:
        self.window.sent(publish, next(self._tokens), self.now)
        if waits:
            self.outbox.waiting.add(publish)

    def reply(self, publish: Publish) -> None:
        del self.window.awaited[publish.token]

    def nobody(self, publish: Publish) -> Verdict:
        self.reply(publish)
        return self.window.nobody(publish, self.now)

    def refused(self, publish: Publish, err_code: int | None) -> Verdict:
        self.reply(publish)
        return self.window.refused(publish, err_code, self.now)

    def after(self, seconds: float) -> list[tuple[Publish, Verdict]]:
        self.now += seconds
        return self.window.step(self.now)

    def known(self, seconds: float = 60.0) -> None:
        self.window.reaches.learn(["s.>"], seconds)


def test_a_window_is_full_when_so_many_are_under_way_whatever_their_state() -> None:
    f = Flown(resend=True, max_pending=4)
    awaited, paused, checked, unsure = (f.publish() for _ in range(4))
    assert not f.window.has_room
    assert f.nobody(paused) is Verdict.WAIT
    assert f.refused(checked, CONFLICT) is Verdict.CHECK
    f.outbox.waiting.add(awaited)
    assert f.window.lost() == []
    assert len(f.window) == 4
    assert not f.window.has_room
    assert f.window.under_way() == [awaited, paused, unsure, checked]
    assert f.window.found(checked)
    assert len(f.window) == 3
    assert f.publish() in f.window.under_way()
    assert f.window.end()[0] is awaited
    assert len(f.window) == 0
    assert f.window.due() == float("inf")


def test_without_resend_what_was_sent_ends_with_the_connection_and_what_waits_stays() -> None:
    f = Flown()
    sent, waiting = f.publish(), f.publish(waits=True)
    unheard, doubtful = f.publish(), f.publish()
    assert f.nobody(unheard) is Verdict.WAIT
    assert f.refused(doubtful, UNDER_WAY) is Verdict.WAIT
    assert f.window.lost() == [sent, doubtful]
    assert f.window.under_way() == [waiting, unheard]
    assert f.window.restored(f.now) == []
    assert f.after(0.25) == [(unheard, Verdict.AGAIN)]


def test_with_resend_what_was_sent_goes_again_once_its_window_is_known() -> None:
    f = Flown(resend=True)
    first, second = f.publish(), f.publish()
    assert f.window.lost() == []
    f.known()
    assert f.after(1) == [], "without a connection it would lie somewhere"
    assert f.window.question() is None
    assert f.window.restored(f.now) == []
    f.window.reaches.forget()
    assert f.window.question() == "s.a"
    assert f.after(1) == []
    f.known()
    assert f.window.question() is None
    assert f.after(0) == [(first, Verdict.AGAIN), (second, Verdict.AGAIN)]
    assert len(f.window) == 0


@pytest.mark.parametrize(("window", "seconds"), [(60.0, 54.0), (0.0, 0.0), (None, LONGEST_REACH * SAFE_PART)])
def test_it_ends_as_unknown_when_its_window_is_over(window: float | None, seconds: float) -> None:
    f = Flown(resend=True)
    publish = f.publish()
    f.window.lost()
    if window is not None:
        f.known(window)
    assert f.window.due() == pytest.approx(f.now + seconds)
    if seconds:
        assert f.after(seconds - 0.1) == []
    assert f.after(0.1) == [(publish, Verdict.UNKNOWN)]


def test_where_nobody_says_how_long_nothing_is_sent_again() -> None:
    f = Flown(resend=True)
    publish = f.publish()
    f.window.lost()
    f.window.restored(f.now)
    f.window.reaches.miss("s.a")
    assert f.after(0) == [(publish, Verdict.UNKNOWN)]


def test_the_window_counts_from_when_it_left_us() -> None:
    f = Flown(resend=True, online=False)
    publish = f.publish(waits=True)
    f.now += 1000
    f.window.restored(f.now)
    f.outbox.waiting.clear()
    f.window.lost()
    f.window.restored(f.now)
    f.known(10)
    assert f.after(1) == [(publish, Verdict.AGAIN)]
    # And not from when it left us again.
    f.send(publish)
    f.window.lost()
    f.known(10)
    assert f.after(8) == [(publish, Verdict.UNKNOWN)]


def test_what_is_sent_again_does_not_lie_in_an_outage() -> None:
    f = Flown(resend=True)
    publish = f.publish()
    f.window.lost()
    f.window.restored(f.now)
    f.known()
    assert f.after(0) == [(publish, Verdict.AGAIN)]
    f.send(publish, waits=True)
    assert f.window.lost() == []
    assert f.outbox.withdrawn == [publish]
    assert not f.window.awaited


def test_a_reply_that_does_not_come_in_time() -> None:
    f = Flown()
    late, waiting = f.publish(), f.publish(waits=True)
    f.now += 1
    later = f.publish()
    assert f.window.due() == 105
    assert f.after(4) == [(late, Verdict.LATE), (waiting, Verdict.LATE)]
    assert f.outbox.withdrawn == [waiting], "it is not sent when nobody expects it any more"
    assert f.window.under_way() == [later]

    f = Flown(resend=True)
    late, waiting = f.publish(), f.publish(waits=True)
    f.known()
    assert f.after(5) == [(late, Verdict.AGAIN)]
    assert f.window.under_way() == [waiting], "it has not even left us"
    assert f.window.due() == 110


def test_nobody_listens_is_tried_as_often_as_the_adr_says() -> None:
    f = Flown()
    publish = f.publish(msg_id=None)
    for _ in range(2):
        assert f.nobody(publish) is Verdict.WAIT
        assert f.after(0.2) == []
        assert f.after(0.05) == [(publish, Verdict.AGAIN)]
        f.send(publish)
    assert f.nobody(publish) is Verdict.FAIL


def test_with_resend_it_is_tried_for_as_long_as_a_reply_may_take() -> None:
    f = Flown(resend=True)
    publish = f.publish()
    attempts = 0
    while f.nobody(publish) is Verdict.WAIT:
        attempts += 1
        assert f.after(0.25) == [(publish, Verdict.AGAIN)]
        f.send(publish)
    assert attempts == 20
    # What may be stored already is never said not to be.
    f.send(publish)
    f.window.lost()
    f.window.restored(f.now)
    f.known()
    assert f.after(0) == [(publish, Verdict.AGAIN)]
    f.send(publish)
    assert f.nobody(publish) is Verdict.WAIT
    assert f.after(100) == [(publish, Verdict.UNKNOWN)]


def test_what_the_stream_refuses_ends_unless_it_may_be_the_message_itself() -> None:
    f = Flown()
    assert f.refused(f.publish(), FULL) is Verdict.FAIL
    assert f.refused(f.publish(), None) is Verdict.FAIL
    assert f.refused(f.publish(msg_id=None), CONFLICT) is Verdict.FAIL
    without_id = Publish("s.a", {"Nats-Expected-Last-Sequence": "1"})
    f.send(without_id)
    assert f.refused(without_id, CONFLICT) is Verdict.FAIL
    publish = f.publish()
    assert f.refused(publish, CONFLICT) is Verdict.CHECK
    assert f.window.found(publish, known=False), "without resend it is what the stream said"

    f = Flown(resend=True)
    publish = f.publish()
    assert f.refused(publish, CONFLICT) is Verdict.CHECK
    assert not f.window.found(publish, known=False)
    f.known()
    assert f.after(0) == [(publish, Verdict.AGAIN)]


def test_while_its_twin_is_being_stored_it_is_waited_for_some_seconds() -> None:
    f = Flown()
    publish = f.publish()
    waited = 0.0
    while f.refused(publish, UNDER_WAY) is Verdict.WAIT:
        due = f.window.due() - f.now
        waited += due
        assert f.after(due) == [(publish, Verdict.AGAIN)]
        f.send(publish)
    assert waited == pytest.approx(3.9)

    f = Flown(resend=True)
    publish = f.publish()
    assert f.refused(publish, UNDER_WAY) is Verdict.WAIT
    assert f.after(1) == [], "it is stored, or about to be: its window has to be known"
    f.known()
    assert f.after(0) == [(publish, Verdict.AGAIN)]


def test_what_a_new_server_does_not_take_ends() -> None:
    f = Flown()
    large, small = f.publish(waits=True), f.publish(waits=True)
    f.window.lost()
    f.outbox.waiting.discard(large)
    assert f.window.restored(f.now) == [large]
    assert f.window.under_way() == [small]


def test_a_window_is_that_of_the_stream_that_listens() -> None:
    reaches = Reaches()
    assert reaches.of("a.b") is None
    reaches.learn(["a.*", "b"], 5)
    reaches.learn(["c.>"], 7)
    reaches.miss("d")
    assert [reaches.of(subject) for subject in ("a.b", "b", "c.x.y", "d", "e")] == [5, 5, 7, 0, None]
    reaches.forget()
    assert [reaches.of(subject) for subject in ("a.b", "d")] == [None, None]


# -- under everything at once ------------------------------------------------------------------------------------------

REACH = 20.0


@dataclass
class Server:
    """A stream, as far as it knows who is who."""

    stored: dict[str, float] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)

    def take(self, msg_id: str, now: float) -> None:
        if msg_id not in self.stored or now - self.stored[msg_id] >= REACH:
            self.stored[msg_id] = now
            self.copies[msg_id] = self.copies.get(msg_id, 0) + 1


class PublisherMachine(RuleBasedStateMachine):
    """A publisher whose connection breaks, whose acknowledgements are lost, late and repeated, and whose stream has moods."""

    resend = True

    def __init__(self) -> None:
        super().__init__()
        self.f = Flown(resend=self.resend, max_pending=5)
        self.server = Server()
        self.online = True
        self.checked: list[Publish] = []
        self.replies: list[tuple[str, str]] = []
        self.on_the_wire: list[Publish] = []
        self.order: list[str] = []
        self.ended: dict[Publish, str] = {}
        self.numbers = itertools.count()

    @initialize(learn=st.booleans())
    def begin(self, learn: bool) -> None:
        if learn:
            self.f.known(REACH)

    def end(self, publishes: Iterable[Publish], how: str) -> None:
        for publish in publishes:
            assert publish not in self.ended, "each ends once"
            self.ended[publish] = how

    def step(self, seconds: float) -> None:
        for publish, verdict in self.f.after(seconds):
            if verdict is Verdict.AGAIN:
                if publish.may_be_stored:
                    assert self.online or not self.resend
                    assert self.f.now - publish.since < REACH
                self.f.send(publish, waits=True)
            else:
                self.end([publish], verdict.name)

    def msg_id(self, publish: Publish) -> str:
        assert publish.asked is not None
        return publish.asked[MSG_ID]

    @precondition(lambda self: self.f.window.has_room)
    @rule()
    def publish(self) -> None:
        self.f.publish(msg_id=str(next(self.numbers)), waits=True)

    @precondition(lambda self: self.online)
    @rule(many=st.integers(1, 5))
    def write(self, many: int) -> None:
        """Some of what waits leaves us, in its order."""
        waiting = [each for each in self.f.window.awaited.values() if each in self.f.outbox.waiting]
        for publish in waiting[:many]:
            self.f.outbox.waiting.discard(publish)
            self.on_the_wire.append(publish)
            if self.msg_id(publish) not in self.order:
                self.order.append(self.msg_id(publish))

    @precondition(lambda self: self.on_the_wire)
    @rule(outcome=st.sampled_from(["stored", "stored", "silent", "503", "under way", "full", "conflict"]))
    def arrive(self, outcome: str) -> None:
        publish = self.on_the_wire.pop(0)
        if outcome in ("stored", "silent", "under way"):
            self.server.take(self.msg_id(publish), self.f.now)
        if outcome != "silent":
            self.replies.append((publish.token, outcome))

    @precondition(lambda self: self.replies)
    @rule(data=st.data(), twice=st.booleans())
    def reply(self, data: st.DataObject, twice: bool) -> None:
        place = data.draw(st.integers(0, len(self.replies) - 1))
        token, outcome = self.replies[place] if twice else self.replies.pop(place)
        publish = self.f.window.awaited.get(token)
        if publish is None:
            return
        if outcome == "503":
            verdict = self.f.nobody(publish)
        elif outcome == "stored":
            self.f.reply(publish)
            self.end([publish], "ack")
            return
        else:
            verdict = self.f.refused(publish, {"under way": UNDER_WAY, "full": FULL, "conflict": CONFLICT}[outcome])
        if verdict is Verdict.FAIL:
            self.end([publish], "refused")
        elif verdict is Verdict.CHECK:
            self.checked.append(publish)

    @precondition(lambda self: self.checked)
    @rule(known=st.booleans())
    def check(self, known: bool) -> None:
        publish = self.checked.pop()
        if self.f.window.found(publish, known=known):
            self.end([publish], "refused")
        self.step(0)

    @precondition(lambda self: self.online)
    @rule(arrives=st.integers(0, 5))
    def lose(self, arrives: int) -> None:
        """The connection breaks; some of what was on the wire arrives, and nobody hears of it, or only later."""
        for publish in self.on_the_wire[:arrives]:
            self.server.take(self.msg_id(publish), self.f.now)
            self.replies.append((publish.token, "stored"))
        self.on_the_wire.clear()
        self.online = False
        self.end(self.f.window.lost(), "lost")

    @precondition(lambda self: not self.online)
    @rule()
    def restore(self) -> None:
        self.online = True
        self.end(self.f.window.restored(self.f.now), "dropped")
        self.step(0)

    @precondition(lambda self: self.f.window.question() is not None)
    @rule(learn=st.booleans())
    def answer(self, learn: bool) -> None:
        if learn:
            self.f.known(REACH)
        else:
            self.f.window.reaches.miss("s.a")
        self.step(0)

    @rule(seconds=st.sampled_from([0.05, 0.25, 1.0, 5.0, 19.0]))
    def time_passes(self, seconds: float) -> None:
        # What is on the wire has arrived long before; only an outage keeps it.
        while self.on_the_wire:
            self.arrive("stored")
        for publish in list(self.f.outbox.waiting):
            if self.online and publish.may_be_stored:
                self.f.outbox.waiting.discard(publish)
                self.server.take(self.msg_id(publish), self.f.now)
        self.step(seconds)

    @invariant()
    def no_more_than_may_be_are_under_way_and_none_is_lost(self) -> None:
        assert len(self.f.window) <= 5
        under_way = self.f.window.under_way()
        assert len(under_way) == len(set(under_way))
        assert not set(under_way) & set(self.ended)
        assert len(under_way) + len(self.ended) == next(self.numbers)
        self.numbers = itertools.count(len(under_way) + len(self.ended))

    @invariant()
    def first_sends_keep_their_order(self) -> None:
        assert self.order == sorted(self.order, key=int)

    @invariant()
    def nothing_is_stored_twice_and_what_is_acknowledged_is_stored(self) -> None:
        assert all(copies == 1 for copies in self.server.copies.values())
        for publish, how in self.ended.items():
            if how == "ack":
                assert self.server.copies.get(self.msg_id(publish)) == 1

    def teardown(self) -> None:
        if self.online:
            self.lose(0)
        for publish in self.checked:
            if self.f.window.found(publish):
                self.end([publish], "refused")
        self.step(2 * LONGEST_REACH)
        self.end(self.f.window.end(), "closed")
        assert len(self.f.window) == 0
        assert len(self.ended) == next(self.numbers)


class WithoutResendMachine(PublisherMachine):
    """The same for a publisher that sends nothing again that may be stored, but for what a twin is under way of."""

    resend = False


TestPublisher = PublisherMachine.TestCase
TestPublisher.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestWithoutResend = WithoutResendMachine.TestCase
TestWithoutResend.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
