"""Leases of one key against a server that keeps what was sent for as long as it was told, and a network that does what it likes.

Whatever is lost, late or overtaken, of all leases at most one believes at any time that it holds the key, though each goes by its own
time of sending, and the server by its time of receiving.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal, TypeAlias, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trionats._protocol.jetstream.kv.lease import Sighting, Tenure, release_headers, sighting

TTLS = st.integers(2, 3)
WHOSE = st.integers(0, 1)
Fate: TypeAlias = Literal["fine", "unanswered", "late"]
#: What becomes of what is sent: it arrives and is answered at once; its answer is late or never comes; or it is late itself.
FATES = st.sampled_from(get_args(Fate))
ANY = st.integers(0, 1000)
NOTHING = Sighting(0)


@dataclass
class Contender:
    """One who wants the key: waits for it, holds it, and has lost or left it after that."""

    name: str
    ttl: int
    tenure: Tenure = field(init=False)
    seen: Sighting = NOTHING
    looked: bool = False
    holds: bool = False
    lives: int = 0

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.lives += 1
        self.tenure, self.looked, self.holds = Tenure(f"{self.name}{self.lives}", self.ttl), False, False

    def believes(self, now: float) -> bool:
        return self.holds and now < self.tenure.deadline


@dataclass
class Write:
    """A message under way to the server, or its answer on the way back."""

    tenure: Tenure
    headers: dict[str, str]
    stamp: str
    revision: int | None = None


class Leases(RuleBasedStateMachine):
    @initialize(ttls=st.tuples(TTLS, TTLS))
    def begin(self, ttls: tuple[int, int]) -> None:
        self.now = 0.0
        self.contenders = [Contender(name, ttl) for name, ttl in zip("ab", ttls, strict=True)]
        self.last = 0
        self.there = Sighting(0)
        self.ends = inf
        self.under_way: list[Write] = []
        self.answers: list[Write] = []
        self.looks: list[tuple[Contender, Tenure, Sighting]] = []

    # Time, and what the server does by itself.

    @rule(seconds=st.sampled_from([0.5, 1.0]), marked=st.booleans())
    def time_passes(self, seconds: float, marked: bool) -> None:
        """The server may be late to delete what is due, and here it never is: that is the worst for who holds the key."""
        self.now += seconds
        if self.there.taken and self.ends <= self.now:
            self.last += marked
            self.there, self.ends = Sighting(self.last, expired=True) if marked else Sighting(0), inf
        for one in self.contenders:
            if one.holds and self.now >= one.tenure.deadline:
                one.begin()

    # What contenders do: each what it has to do next, and what the network does with that.

    @rule(whose=WHOSE, fate=FATES)
    def goes_on(self, whose: int, fate: Fate) -> None:
        one = self.contenders[whose]
        free = not one.seen.taken or one.tenure.owns(one.seen)
        if one.holds:
            self.send(one, one.tenure.revision, fate)
        elif one.tenure.deadline > self.now:
            one.holds = True
        elif free and one.looked:
            one.looked = False
            self.send(one, one.seen.revision, fate)
        else:
            self.looks.append((one, one.tenure, self.there))
            if fate != "late":
                self.is_seen(-1)

    @rule(whose=WHOSE, fate=FATES)
    def leaves(self, whose: int, fate: Fate) -> None:
        one = self.contenders[whose]
        if one.holds:
            self.dispatch(Write(one.tenure, release_headers(one.tenure.revision, one.ttl), ""), fate)
            one.begin()

    def send(self, one: Contender, expected: int, fate: Fate) -> None:
        attempt = one.tenure.attempt(self.now, expected)
        self.dispatch(Write(one.tenure, attempt.headers, attempt.stamp), fate)

    def dispatch(self, write: Write, fate: Fate) -> None:
        self.under_way.append(write)
        if fate != "late":
            self.arrives(-1)
            if fate == "fine":
                self.is_answered(-1)

    # What the network does: nothing keeps its order.

    @precondition(lambda self: self.under_way)
    @rule(which=ANY)
    def arrives(self, which: int) -> None:
        write = self.under_way.pop(which % len(self.under_way))
        if int(write.headers["Nats-Expected-Last-Subject-Sequence"]) == self.there.revision:
            self.last += 1
            self.there = sighting(self.last, write.headers)
            self.ends = self.now + self.there.ttl
            write.revision = self.last
        self.answers.append(write)

    @precondition(lambda self: self.answers)
    @rule(which=ANY)
    def is_answered(self, which: int) -> None:
        write = self.answers.pop(which % len(self.answers))
        if write.stamp and write.revision is None:
            write.tenure.refused(write.stamp)
        elif write.stamp and write.revision is not None:
            write.tenure.stored(write.stamp, write.revision)

    @precondition(lambda self: self.looks)
    @rule(which=ANY)
    def is_seen(self, which: int) -> None:
        one, tenure, seen = self.looks.pop(which % len(self.looks))
        if tenure is one.tenure:
            one.seen, one.looked = seen, True
            tenure.owns(seen)

    @invariant()
    def nobody_else_believes_to_hold_it(self) -> None:
        believers = [one.name for one in getattr(self, "contenders", []) if one.believes(self.now)]
        assert len(believers) <= 1, f"{believers} at {self.now}"

    @invariant()
    def who_believes_it_has_it(self) -> None:
        """The server still has a message of theirs: nobody could have written over it."""
        for one in getattr(self, "contenders", []):
            if one.believes(self.now):
                assert self.there.taken, self.there
                assert self.there.stamp.startswith(f"{one.name}{one.lives}."), self.there


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


def test_a_lease_that_counts_from_later_than_its_sending_is_found_out() -> None:
    """So the machine sees what it is there for."""
    machine = Leases()
    machine.begin((2, 2))
    machine.send(machine.contenders[0], 0, "unanswered")
    machine.time_passes(1.0, marked=True)
    answer = machine.answers[0]
    answer.stamp = answer.tenure.attempt(machine.now, 0).stamp
    machine.is_answered(0)
    machine.goes_on(0, "fine")
    machine.who_believes_it_has_it()
    machine.time_passes(1.0, marked=True)
    with pytest.raises(AssertionError):
        machine.who_believes_it_has_it()
