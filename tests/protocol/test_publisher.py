"""The window of a publisher: what is under way, what is sent again, and that each publish ends once."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trionats._protocol.jetstream.publishing.publish import MSG_ID, UNDER_WAY
from trionats._protocol.jetstream.publishing.publisher import LONGEST_REACH, SAFE_PART, Fate, Publish, Reaches, Window

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

    def nobody(self, publish: Publish) -> Fate:
        self.reply(publish)
        return self.window.nobody(publish, self.now)

    def refused(self, publish: Publish, err_code: int | None) -> Fate:
        self.reply(publish)
        return self.window.refused(publish, err_code, self.now)

    def after(self, seconds: float) -> list[tuple[Publish, Fate]]:
        self.now += seconds
        return self.window.step(self.now)

    def known(self, seconds: float = 60.0) -> None:
        self.window.reaches.learn(["s.>"], seconds)


def test_a_window_is_full_when_so_many_are_under_way_whatever_their_state() -> None:
    f = Flown(resend=True, max_pending=4)
    awaited, paused, checked, unsure = (f.publish() for _ in range(4))
    assert not f.window.has_room
    assert f.nobody(paused) is Fate.WAIT
    assert f.refused(checked, CONFLICT) is Fate.CHECK
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
    assert f.nobody(unheard) is Fate.WAIT
    assert f.refused(doubtful, UNDER_WAY) is Fate.WAIT
    assert f.window.lost() == [sent, doubtful]
    assert f.window.under_way() == [waiting, unheard]
    assert f.window.restored(f.now) == []
    assert f.after(0.25) == [(unheard, Fate.AGAIN)]


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
    assert f.after(0) == [(first, Fate.AGAIN), (second, Fate.AGAIN)]
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
    assert f.after(0.1) == [(publish, Fate.UNKNOWN)]


def test_where_nobody_says_how_long_nothing_is_sent_again() -> None:
    f = Flown(resend=True)
    publish = f.publish()
    f.window.lost()
    f.window.restored(f.now)
    f.window.reaches.miss("s.a")
    assert f.after(0) == [(publish, Fate.UNKNOWN)]


def test_the_window_counts_from_when_it_left_us() -> None:
    f = Flown(resend=True, online=False)
    publish = f.publish(waits=True)
    f.now += 1000
    f.window.restored(f.now)
    f.outbox.waiting.clear()
    f.window.lost()
    f.window.restored(f.now)
    f.known(10)
    assert f.after(1) == [(publish, Fate.AGAIN)]
    # And not from when it left us again.
    f.send(publish)
    f.window.lost()
    f.known(10)
    assert f.after(8) == [(publish, Fate.UNKNOWN)]


def test_what_is_sent_again_does_not_lie_in_an_outage() -> None:
    f = Flown(resend=True)
    publish = f.publish()
    f.window.lost()
    f.window.restored(f.now)
    f.known()
    assert f.after(0) == [(publish, Fate.AGAIN)]
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
    assert f.after(4) == [(late, Fate.LATE), (waiting, Fate.LATE)]
    assert f.outbox.withdrawn == [waiting], "it is not sent when nobody expects it any more"
    assert f.window.under_way() == [later]

    f = Flown(resend=True)
    late, waiting = f.publish(), f.publish(waits=True)
    f.known()
    assert f.after(5) == [(late, Fate.AGAIN)]
    assert f.window.under_way() == [waiting], "it has not even left us"
    assert f.window.due() == 110


def test_however_little_patience_there_is_a_message_is_not_sent_again_at_once() -> None:
    for patience in (0.0, 0.01):
        window = Window(4, patience, Outbox(), resend=True, online=True)
        window.reaches.learn(["s.>"], 60)
        publish = Publish("s.a", {MSG_ID: "i"})
        window.sent(publish, "1", 100)
        assert window.due() == 100.25
        assert window.step(100.2) == []
        assert window.step(100.25) == [(publish, Fate.AGAIN)]


def test_nobody_listens_is_tried_as_often_as_the_adr_says() -> None:
    f = Flown()
    publish = f.publish(msg_id=None)
    for _ in range(2):
        assert f.nobody(publish) is Fate.WAIT
        assert f.window.resumes(publish) == f.now + 0.25
        assert f.after(0.2) == []
        assert f.after(0.05) == [(publish, Fate.AGAIN)]
        f.send(publish)
    assert f.nobody(publish) is Fate.FAIL


def test_with_resend_it_is_tried_for_as_long_as_a_reply_may_take() -> None:
    f = Flown(resend=True)
    publish = f.publish()
    attempts = 0
    while f.nobody(publish) is Fate.WAIT:
        attempts += 1
        assert f.after(0.25) == [(publish, Fate.AGAIN)]
        f.send(publish)
    assert attempts == 20
    # What may be stored already is never said not to be.
    f.send(publish)
    f.window.lost()
    f.window.restored(f.now)
    f.known()
    assert f.after(0) == [(publish, Fate.AGAIN)]
    f.send(publish)
    assert f.nobody(publish) is Fate.WAIT
    assert f.after(100) == [(publish, Fate.UNKNOWN)]


def test_what_the_stream_refuses_ends_unless_it_may_be_the_message_itself() -> None:
    f = Flown()
    assert f.refused(f.publish(), FULL) is Fate.FAIL
    assert f.refused(f.publish(), None) is Fate.FAIL
    assert f.refused(f.publish(msg_id=None), CONFLICT) is Fate.FAIL
    without_id = Publish("s.a", {"Nats-Expected-Last-Sequence": "1"})
    f.send(without_id)
    assert f.refused(without_id, CONFLICT) is Fate.FAIL
    publish = f.publish()
    assert f.refused(publish, CONFLICT) is Fate.CHECK
    assert f.window.found(publish, known=False), "without resend it is what the stream said"

    f = Flown(resend=True)
    publish = f.publish()
    assert f.refused(publish, CONFLICT) is Fate.CHECK
    assert not f.window.found(publish, known=False)
    f.known()
    assert f.after(0) == [(publish, Fate.AGAIN)]


def test_while_its_twin_is_being_stored_it_is_waited_for_some_seconds() -> None:
    f = Flown()
    publish = f.publish()
    waited = 0.0
    while f.refused(publish, UNDER_WAY) is Fate.WAIT:
        due = f.window.due() - f.now
        waited += due
        assert f.after(due) == [(publish, Fate.AGAIN)]
        f.send(publish)
    assert waited == pytest.approx(3.9)

    f = Flown(resend=True)
    publish = f.publish()
    assert f.refused(publish, UNDER_WAY) is Fate.WAIT
    assert f.after(1) == [], "it is stored, or about to be: its window has to be known"
    f.known()
    assert f.after(0) == [(publish, Fate.AGAIN)]


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


class Frames(Outbox):
    """An outbox that keeps each frame by the token of its reply, in order, over any number of connections."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[Publish, str]] = []

    def waits(self, publish: Publish) -> bool:
        return (publish, publish.token) in self.frames

    def withdraw(self, publish: Publish) -> None:
        self.frames.remove((publish, publish.token))


class Stream:
    """A stream: it knows an id for a while."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}
        self.copies: Counter[str] = Counter()

    def take(self, publish: Publish, now: float) -> None:
        msg_id = id_of(publish)
        if now - self.since.get(msg_id, -math.inf) >= REACH:
            self.since[msg_id] = now
            self.copies[msg_id] += 1


def id_of(publish: Publish) -> str:
    assert publish.asked is not None
    return publish.asked[MSG_ID]


class PublisherMachine(RuleBasedStateMachine):
    """A publisher whose connection breaks, whose acknowledgements are lost, late and repeated, and whose stream has moods."""

    resend = True

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Frames()
        self.window = Window(5, 5.0, self.outbox, resend=self.resend, online=True)
        self.stream = Stream()
        self.now = 100.0
        self.online = True
        self.tokens = map(str, itertools.count(1))
        self.published = 0
        self.checked: list[Publish] = []
        self.replies: list[tuple[str, str]] = []
        self.first_sends: list[int] = []
        self.ended: dict[Publish, str] = {}

    # What the machine does for the publisher.

    def send(self, publish: Publish) -> None:
        self.window.sent(publish, next(self.tokens), self.now)
        self.outbox.frames.append((publish, publish.token))

    def end(self, publishes: Iterable[Publish], how: str) -> None:
        for publish in publishes:
            assert publish not in self.ended, "each ends once"
            self.ended[publish] = how

    def step(self) -> None:
        for publish, fate in self.window.step(self.now):
            if fate is Fate.AGAIN:
                self.send(publish)
            else:
                self.end([publish], fate.name)

    # What happens.

    @precondition(lambda self: self.window.has_room)
    @rule()
    def publish(self) -> None:
        self.send(Publish("s.a", {MSG_ID: str(self.published)}))
        self.published += 1

    @precondition(lambda self: self.online and self.outbox.frames)
    @rule(outcomes=st.lists(st.sampled_from(["stored", "stored", "silent", "503", "under way", "full", "conflict"])))
    def write(self, outcomes: list[str]) -> None:
        """Some of what waits leaves us, in its order, and is answered one day."""
        for outcome in outcomes[: len(self.outbox.frames)]:
            publish, token = self.outbox.frames.pop(0)
            if int(id_of(publish)) not in self.first_sends:
                self.first_sends.append(int(id_of(publish)))
            if outcome in ("stored", "silent", "under way"):
                self.stream.take(publish, self.now)
            if outcome != "silent":
                self.replies.append((token, outcome))

    @precondition(lambda self: self.replies)
    @rule(data=st.data(), twice=st.booleans())
    def reply(self, data: st.DataObject, twice: bool) -> None:
        place = data.draw(st.integers(0, len(self.replies) - 1))
        token, outcome = self.replies[place] if twice else self.replies.pop(place)
        publish = self.window.awaited.pop(token, None)
        if publish is None:
            return
        if outcome == "stored":
            self.end([publish], "acknowledged")
            return
        if outcome == "503":
            fate = self.window.nobody(publish, self.now)
        else:
            code = {"under way": UNDER_WAY, "full": FULL, "conflict": CONFLICT}[outcome]
            fate = self.window.refused(publish, code, self.now)
        if fate is Fate.FAIL:
            self.end([publish], "refused")
        elif fate is Fate.CHECK:
            self.checked.append(publish)

    @precondition(lambda self: self.checked)
    @rule(known=st.booleans())
    def check(self, known: bool) -> None:
        publish = self.checked.pop()
        if self.window.found(publish, known=known):
            self.end([publish], "refused")
        self.step()

    @precondition(lambda self: self.online)
    @rule(heard=st.booleans())
    def lose(self, heard: bool) -> None:
        """The connection breaks; what was on its way to us comes by another, or never."""
        self.online = False
        if not heard:
            self.replies.clear()
        self.end(self.window.lost(), "lost")

    @precondition(lambda self: not self.online)
    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 15.0]), told=st.sampled_from([True, True, False, None]))
    def restore(self, seconds: float, told: bool | None) -> None:
        """It is back after a while, and somebody says how long the window is, or that nobody says so, or nothing yet."""
        self.pass_time(seconds)
        self.online = True
        self.end(self.window.restored(self.now), "dropped")
        self.step()
        if told is not None:
            self.tell(told)

    @precondition(lambda self: self.window.question() is not None)
    @rule(told=st.booleans())
    def tell(self, told: bool) -> None:
        if told:
            self.window.reaches.learn(["s.>"], REACH)
        else:
            self.window.reaches.miss("s.a")
        self.step()

    @rule(seconds=st.sampled_from([0.05, 0.25, 1.0, 5.0, 12.0]))
    def pass_time(self, seconds: float) -> None:
        """While there is a connection nothing waits for long."""
        if self.online:
            self.write(["stored"] * len(self.outbox.frames))
        self.now += seconds
        self.step()

    # What holds.

    @invariant()
    def no_more_than_may_be_are_under_way_and_none_is_forgotten(self) -> None:
        under_way = self.window.under_way()
        assert len(under_way) == len(set(under_way)) == len(self.window) <= 5
        assert not set(under_way) & set(self.ended)
        assert len(under_way) + len(self.ended) == self.published

    @invariant()
    def first_sends_keep_their_order(self) -> None:
        assert self.first_sends == sorted(self.first_sends)

    @invariant()
    def nothing_is_stored_twice_and_what_is_acknowledged_is_stored(self) -> None:
        assert not self.stream.copies or max(self.stream.copies.values()) == 1
        assert all(self.stream.copies[id_of(one)] for one, how in self.ended.items() if how == "acknowledged")

    def teardown(self) -> None:
        """Left alone, without a connection, each ends."""
        if self.online:
            self.lose(heard=False)
        while self.checked:
            self.check(known=True)
        for _ in range(3):
            self.pass_time(2 * LONGEST_REACH)
        assert all(self.outbox.waits(publish) for publish in self.window.under_way())
        self.end(self.window.end(), "closed")
        assert (len(self.window), len(self.ended)) == (0, self.published)


class WithoutResendMachine(PublisherMachine):
    """The same for a publisher that sends nothing again that may be stored, but for what a twin is under way of."""

    resend = False


TestPublisher = PublisherMachine.TestCase
TestPublisher.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestWithoutResend = WithoutResendMachine.TestCase
TestWithoutResend.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
