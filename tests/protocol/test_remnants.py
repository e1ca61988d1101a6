"""A purge is asked for until nothing can be left, whatever the server and the network do meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trionats._protocol.jetstream.remnants import ATTEMPTS, RESPONSE_TIME, SETTLING, Remnant


def begun(chunks: int = 0) -> Remnant:
    remnant = Remnant()
    for _ in range(chunks):
        remnant.sent()
    return remnant


def test_what_is_acknowledged_is_purged_once() -> None:
    remnant = begun()
    assert [remnant.ask(0), remnant.ask(0)] == [True, False]
    assert repr(remnant) == "<Remnant, 0 chunks to come, not done>"
    remnant.purged(1)
    assert repr(remnant) == "<Remnant, 0 chunks to come, done>"
    assert not remnant.ask(1)


def test_it_waits_for_what_is_on_its_way() -> None:
    remnant = begun(2)
    for left in (2, 1):
        assert not remnant.ask(0)
        assert f"{left} chunks to come, not done" in repr(remnant)
        remnant.landed()
    assert remnant.ask(0)
    remnant.purged(0)
    assert remnant.done


def test_it_rests_while_it_only_waits_for_a_time_to_come() -> None:
    remnant = begun(1)
    rests = [remnant.rests]
    remnant.missed()
    assert remnant.ask(0)
    rests.append(remnant.rests)
    remnant.purged(0)
    rests.append(remnant.rests)
    assert not remnant.done
    remnant.look(SETTLING)
    rests.append(remnant.rests)
    assert remnant.ask(SETTLING)
    remnant.refused()
    assert [*rests, remnant.rests] == [False, False, True, False, True]


def test_one_that_is_in_a_hurry_purges_again_after_each_that_comes_late() -> None:
    remnant = begun(3)
    remnant.hurry()
    assert remnant.ask(0)
    remnant.purged(0)
    assert (remnant.done, remnant.ask(0)) == (False, False)
    remnant.landed()
    assert remnant.ask(1)
    remnant.landed()
    assert not remnant.ask(1), "one is under way"
    remnant.purged(1)
    assert remnant.ask(1)
    remnant.purged(1)
    assert not remnant.done
    remnant.unsent()
    assert remnant.done


def test_what_was_on_its_way_when_the_connection_broke_is_purged_some_time_after_the_next_one_stands() -> None:
    remnant = begun(2)
    remnant.missed()
    remnant.missed()
    assert remnant.ask(0)
    remnant.purged(100)
    assert (remnant.look_at, remnant.done) == (100 + SETTLING, False)
    remnant.look(100 + SETTLING - 1)
    assert not remnant.ask(100)
    remnant.look(100 + SETTLING)
    assert remnant.ask(105)
    remnant.purged(106)
    assert remnant.done


def test_a_response_that_was_lost_is_asked_for_again() -> None:
    remnant = begun()
    for _ in range(10):
        assert remnant.ask(0)
        remnant.lost()
        assert remnant.look_at is None
    assert remnant.ask(0)
    remnant.purged(0)
    assert remnant.done


@pytest.mark.parametrize("how", ["silent", "not ready"])
def test_a_server_that_never_responds_is_given_up(how: str) -> None:
    remnant, now, asked = begun(), 0.0, 0
    while remnant.ask(now):
        asked += 1
        if how == "not ready":
            remnant.postponed(now)
        if remnant.look_at is not None:
            assert remnant.look_at == now + (RESPONSE_TIME if how == "silent" else SETTLING)
            now = remnant.look_at
            remnant.look(now)
    assert asked == ATTEMPTS + 1
    assert (remnant.given_up, remnant.done, remnant.look_at) == (True, True, None)


def test_a_refusal_ends_it() -> None:
    remnant = begun(1)
    remnant.hurry()
    assert remnant.ask(0)
    remnant.refused()
    remnant.landed()
    remnant.look(1000)
    assert not remnant.ask(1000)
    assert remnant.done


class Bucket(RuleBasedStateMachine):
    """A server that stores chunks and purges in any order, over a connection that breaks at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.remnant = Remnant()
        self.now = 0.0
        self.stored = False
        self.flying = self.adrift = 0
        self.adrift_until = 0.0
        self.purging = False
        self.online = True

    def go_on(self) -> None:
        if self.remnant.ask(self.now):
            self.purging = True

    @initialize(flying=st.integers(0, 4), stored=st.booleans(), hurried=st.booleans())
    def begin(self, flying: int, stored: bool, hurried: bool) -> None:
        self.flying, self.stored = flying, stored
        for _ in range(flying):
            self.remnant.sent()
        if hurried:
            self.remnant.hurry()
        self.go_on()

    @precondition(lambda self: self.online and self.flying)
    @rule(refused=st.booleans())
    def a_chunk_lands(self, refused: bool) -> None:
        self.flying -= 1
        self.stored = self.stored or not refused
        self.remnant.landed()
        self.go_on()

    @precondition(lambda self: self.online and self.purging)
    @rule()
    def the_purge_is_done(self) -> None:
        self.stored = self.purging = False
        # What was adrift lands soon after the server is there again.
        self.adrift_until = min(self.adrift_until, self.now + SETTLING / 2)
        self.remnant.purged(self.now)
        self.go_on()

    @precondition(lambda self: self.adrift)
    @rule()
    def one_that_was_adrift_lands(self) -> None:
        self.adrift -= 1
        self.stored = True

    @precondition(lambda self: self.online)
    @rule(answer_too_late=st.booleans())
    def the_connection_breaks(self, answer_too_late: bool) -> None:
        self.online = False
        purging, self.purging = self.purging, False
        if self.flying:
            self.adrift_until = float("inf")
        while self.flying:
            self.flying -= 1
            self.adrift += 1
            self.remnant.missed()
            self.go_on()
        if purging:
            self.stored = self.stored and not answer_too_late
            self.remnant.lost()
        self.go_on()

    @precondition(lambda self: not self.online)
    @rule()
    def it_comes_back(self) -> None:
        self.online = True

    @rule()
    def in_a_hurry(self) -> None:
        self.remnant.hurry()
        self.go_on()

    @precondition(lambda self: self.online and self.remnant.look_at is not None and not self.purging)
    @rule()
    def time_passes(self) -> None:
        assert self.remnant.look_at is not None
        self.now = self.remnant.look_at
        if self.adrift and self.adrift_until <= self.now:
            self.adrift, self.stored = 0, True
        self.remnant.look(self.now)
        self.go_on()

    @invariant()
    def nothing_is_left_when_it_is_done(self) -> None:
        if self.remnant.done:
            assert not self.stored
            assert not self.flying
            assert not self.adrift

    def teardown(self) -> None:
        self.online = True
        for _ in range(1000):
            if self.remnant.done:
                break
            if self.flying:
                self.a_chunk_lands(False)
            elif self.purging:
                self.the_purge_is_done()
            else:
                self.time_passes()
        assert self.remnant.done
        self.nothing_is_left_when_it_is_done()


TestBucket = Bucket.TestCase
TestBucket.settings = settings(max_examples=200, stateful_step_count=30)
