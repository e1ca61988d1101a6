"""Processes of the members of a group against a work queue, as its members come and go.

The queue takes no two consumers whose filters overlap, gives each consumer's messages to one process at a time, one by one, and forgets a
consumer that nobody asks. Watchers tell each process late what has changed. Whatever the order of all that: what a partition holds is
in one pair of hands, and each partition that has a living owner is read in the end.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trionats import api, errors
from trionats._protocol.jetstream.actions import Fail, Wait
from trionats._protocol.jetstream.partitions.assets import ACK_WAIT, consumer_config, filters_of
from trionats._protocol.jetstream.partitions.groups import Place, Stored, wanted
from trionats._protocol.jetstream.partitions.member import (
    Create,
    Delete,
    Inspect,
    Look,
    Member,
    Read,
    Settle,
    Tell,
)

PLACE = Place("S", "g", elastic=True)
PARTITIONS = 4
#: Two members with two processes each, and one with one.
NAMES = ("a", "a", "b", "b", "c")
MEMBERSHIPS = st.sets(st.sampled_from("abc"), max_size=3)
WHOSE = st.integers(0, len(NAMES) - 1)


def stored(members: set[str]) -> Stored:
    return wanted("create_group", PLACE, PARTITIONS, (), sorted(members), None, None, None)


def refusal(err_code: int) -> errors.APIError:
    known = {"code": 400, "err_code": err_code, "description": "no", "stream": None, "seq": None}
    return errors.explained(errors.APIError, "no", **known)


@dataclass(eq=False)
class Consumer:
    """A consumer of the work queue, and who is pinned."""

    filters: tuple[str, ...]
    asked_at: float
    pinned: Process | None = None


@dataclass(eq=False)
class Process:
    """One process of a member: what it has been told, what it reads, what it holds and until when that is its own."""

    name: str
    number: int
    member: Member
    told: deque[tuple[int, bytes]] = field(default_factory=deque)
    reads: Consumer | None = None
    pin: str = ""
    held: int | None = None
    held_of: Consumer | None = None
    due: float = 0.0
    alive: bool = True
    partitions: tuple[int, ...] = ()


class Group(RuleBasedStateMachine):
    @initialize(members=MEMBERSHIPS)
    def begin(self, members: set[str]) -> None:
        self.now = 0.0
        self.rng = random.Random(1)
        self.config, self.revision = stored(members), 1
        self.consumers: dict[str, Consumer] = {}
        self.processes = [
            Process(name, number, Member(PLACE, name, self.config.group, 1, self.rng))
            for number, name in enumerate(NAMES)
        ]
        self.settle_down()

    # What happens.

    @rule(members=MEMBERSHIPS)
    def change(self, members: set[str]) -> None:
        self.config, self.revision = stored(members), self.revision + 1
        for process in self.processes:
            process.told.append((self.revision, self.config.data))

    @rule(whose=WHOSE)
    def hear(self, whose: int) -> None:
        process = self.processes[whose]
        if process.told and process.alive:
            revision, data = process.told.popleft()
            process.member.stored(data, revision)

    @rule(whose=WHOSE, steps=st.integers(1, 5))
    def go_on(self, whose: int, steps: int) -> None:
        process = self.processes[whose]
        while steps and process.alive and self.carry_out(process):
            steps -= 1

    @rule()
    def settle_down(self) -> None:
        """Let all do what they can at once."""
        for _ in range(3):
            for process in self.processes:
                self.go_on(process.number, 10)

    @rule(whose=WHOSE, lost=st.sampled_from([errors.TimeoutError(), errors.DisconnectedError()]))
    def fail(self, whose: int, lost: Exception) -> None:
        if self.processes[whose].alive:
            self.carry_out(self.processes[whose], lost)

    @precondition(lambda self: self.readers())
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """Let a consumer give a message to the process that is pinned, or is so from now on."""
        process = data.draw(st.sampled_from(self.readers()))
        consumer = process.reads
        assert consumer is not None
        consumer.pinned, process.pin = process, f"pin{process.number}"
        process.held = data.draw(st.sampled_from(sorted(int(one.partition(".")[0]) for one in consumer.filters)))
        process.held_of, process.due = consumer, self.now + ACK_WAIT

    def readers(self) -> list[Process]:
        """Who may be given a message."""
        return [
            process
            for process in self.processes
            if process.reads is not None
            and process.reads.pinned in (None, process)
            and not self.outstanding(process.reads)
        ]

    @rule(whose=WHOSE)
    def give_a_verdict(self, whose: int) -> None:
        self.processes[whose].held = None

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0]))
    def pass_time(self, seconds: float) -> None:
        # Nobody hears of a change later than that, nor goes on reading for so long when it has.
        for process in self.processes:
            while process.told and process.alive:
                revision, data = process.told.popleft()
                process.member.stored(data, revision)
            self.go_on(process.number, 10)
        self.let_time_pass(seconds)

    @precondition(lambda self: sum(process.alive for process in self.processes) > 3)
    @rule(whose=WHOSE)
    def crash(self, whose: int) -> None:
        process = self.processes[whose]
        process.alive, process.reads, process.held = False, None, None

    # What must hold.

    @invariant()
    def a_partition_is_in_one_pair_of_hands(self) -> None:
        held = [process.held for process in self.processes if process.held is not None and self.now < process.due]
        assert len(set(held)) == len(held)

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            return
        for process in self.processes:
            process.held = None
        for _ in range(60):
            self.pass_time(0.5)
            for process in self.processes:
                while process.alive and self.carry_out(process):
                    pass
        for name in set(NAMES):
            living = [process for process in self.processes if process.name == name and process.alive]
            filters = filters_of(self.config.group, name)
            for process in living:
                assert process.partitions == tuple(self.config.group.partitions.get(name, ()))
                assert (process.reads is None) is (not filters)
                assert process.reads is None or process.reads is self.consumers[name]
            assert name not in self.consumers or (living and set(self.consumers[name].filters) == set(filters))

    # How it is carried out.

    def outstanding(self, consumer: Consumer) -> bool:
        """Whether a consumer waits for a verdict, and gives nothing more."""
        return any(
            process.held is not None and process.held_of is consumer and self.now < process.due
            for process in self.processes
        )

    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        for name, consumer in list(self.consumers.items()):
            if any(process.reads is consumer for process in self.processes if process.alive):
                consumer.asked_at = self.now
            elif self.now >= consumer.asked_at + ACK_WAIT:
                self.delete(name)
            if consumer.pinned is not None and consumer.pinned.reads is not consumer:
                consumer.pinned = None if self.now >= consumer.pinned.due else consumer.pinned

    def delete(self, name: str) -> None:
        consumer = self.consumers.pop(name, None)
        for process in self.processes:
            if consumer is not None and process.reads is consumer:
                process.reads = None
                process.member.gone(refusal(10014))

    def begin_to_read(self, process: Process) -> None:
        process.reads, process.pin = self.consumers.get(process.name), ""
        if process.reads is None:
            process.member.gone(refusal(10014))

    def carry_out(self, process: Process, lost: Exception | None = None) -> bool:
        """Let a process do one thing, whose answer may get lost; say whether there was one."""
        member, name = process.member, process.name
        step = member.next(self.now)
        assert not isinstance(step, Fail), step
        if isinstance(step, Wait):
            # Whoever has nothing to do reads what it was given, and nothing else.
            assert process.told or process.reads is None or self.reads_its_own(process)
            return False
        if isinstance(step, Tell):
            process.partitions = step.partitions
        elif isinstance(step, Read):
            self.begin_to_read(process)
        elif isinstance(step, Settle):
            process.reads = None
            if process.held is None or self.now >= process.due:
                member.settled()
        elif lost is not None:
            member.failed(lost, self.now)
        elif isinstance(step, Look):
            member.looked(self.config.data, self.revision)
        elif isinstance(step, Inspect):
            member.found(self.info(name), process.pin, self.now)
        elif isinstance(step, Create):
            self.create(process, step.filters)
        else:
            assert isinstance(step, Delete)
            self.delete(name)
            member.released()
        return True

    def reads_its_own(self, process: Process) -> bool:
        assert process.reads is not None
        return set(process.reads.filters) == set(filters_of(self.config.group, process.name))

    def create(self, process: Process, filters: tuple[str, ...]) -> None:
        there = self.consumers.get(process.name)
        others = {one for name, other in self.consumers.items() if name != process.name for one in other.filters}
        if there is not None and there.filters != filters:
            process.member.failed(refusal(10148), self.now)
        elif others & set(filters):
            process.member.failed(refusal(10100), self.now)
        else:
            self.consumers.setdefault(process.name, Consumer(filters, self.now))
            process.member.created()

    def info(self, name: str) -> api.ConsumerInfo | None:
        consumer = self.consumers.get(name)
        if consumer is None:
            return None
        pinned = {} if consumer.pinned is None else {"pinned_client_id": f"pin{consumer.pinned.number}"}
        return api.ConsumerInfo.from_response(
            {
                "name": name,
                "stream_name": PLACE.read_stream,
                "config": consumer_config(PLACE, name, consumer.filters).as_dict(),
                "created": "2026-11-29T12:00:00Z",
                "priority_groups": [{"group": "PCG", **pinned}],
            }
        )


TestGroup = Group.TestCase
TestGroup.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


def test_what_two_hold_is_seen() -> None:
    """The machine fails where a process lets go of its consumer while it holds a message."""
    machine = Group()
    machine.begin({"a"})
    holder = machine.readers()[0]
    assert holder.reads is not None
    holder.reads.pinned, holder.pin = holder, f"pin{holder.number}"
    holder.held, holder.held_of, holder.due = 0, holder.reads, ACK_WAIT
    machine.a_partition_is_in_one_pair_of_hands()
    machine.delete("a")
    machine.settle_down()
    other = next(reader for reader in machine.readers() if reader is not holder)
    other.held, other.due = 0, ACK_WAIT
    with pytest.raises(AssertionError):
        machine.a_partition_is_in_one_pair_of_hands()
