"""Frames taken back: their numbers stay true, and the gaps they leave take no room."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trionats import errors
from trionats._protocol import commands, numbering
from trionats._protocol.engine import Engine
from trionats._protocol.numbering import FEW_GAPS


def queued(engine: Engine, payload: bytes = b"x") -> tuple[bytes, int]:
    frame = commands.pub(b"s", b"", payload)
    engine.publish(frame, len(payload))
    return frame, engine.newest


def test_a_request_that_stays_open_lets_no_gaps_pile_up_behind_it() -> None:
    engine = Engine()
    for _ in range(20_000):
        given_up, kept = queued(engine), queued(engine)
        assert engine.withdraw(*given_up, 1)
        assert engine.waits(*kept)
        # The next one is queued before this one is given up: no gap is ever the last.
        later = queued(engine)
        assert engine.withdraw(*kept, 1)
        assert engine.withdraw(*later, 1) or not engine.waits(*later)
    assert len(engine.outbox) <= 2 * FEW_GAPS


def test_requests_that_overlap_leave_no_more_than_a_few_gaps() -> None:
    engine = Engine()
    first = queued(engine)
    before = queued(engine)
    looked = 0
    most = 0
    for _ in range(20_000):
        now = queued(engine)
        assert engine.withdraw(*before, 1)
        before = now
        most = max(most, len(engine.outbox))
        looked += not engine._numbers.gaps
    assert most <= 2 * FEW_GAPS + 2
    # Each closing looks at all, and is worth it: one for as many gaps as there are frames.
    assert looked <= 20_000 / FEW_GAPS
    assert engine.waits(*first)
    assert engine.waits(*before)
    assert engine.out_msgs == 2
    assert engine.take(1_000_000) == first[0] + before[0]


def test_a_dial_that_fails_closes_the_gaps() -> None:
    engine = Engine()
    frames = [queued(engine) for _ in range(20)]
    for frame, number in frames[::2]:
        engine.withdraw(frame, number, 1)
    engine.begin()
    engine.lost(errors.UnexpectedEOF())
    assert len(engine.outbox) == 10
    assert all(engine.waits(frame, number) for frame, number in frames[1::2])
    assert not any(engine.waits(frame, number) for frame, number in frames[::2])


class Queue(RuleBasedStateMachine):
    """The model knows each frame by itself; gaps are closed as soon as there are more of them than frames."""

    @initialize()
    def begin(self) -> None:
        self.few, numbering.FEW_GAPS = numbering.FEW_GAPS, 0
        self.engine = Engine()
        self.waiting: dict[bytes, int] = {}  # in order
        self.gone: dict[bytes, int] = {}
        self.count = 0
        self.fenced: set[bytes] | None = None

    def teardown(self) -> None:
        numbering.FEW_GAPS = self.few

    @rule(more=st.integers(1, 5))
    def queue(self, more: int) -> None:
        for _ in range(more):
            self.count += 1
            frame, number = queued(self.engine, b"%d" % self.count)
            assert number not in self.waiting.values()
            self.waiting[frame] = number

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 100), many=st.integers(1, 4))
    def withdraw(self, which: int, many: int) -> None:
        for frame in list(self.waiting)[which % len(self.waiting) :][:many]:
            number = self.waiting.pop(frame)
            assert self.engine.withdraw(frame, number, 1)
            self.gone[frame] = number
            assert self.engine._numbers.gaps * 2 <= len(self.engine.outbox)

    @rule(frames=st.integers(1, 3))
    def put_first(self, frames: int) -> None:
        self.engine.put_first([b"SUB a 1\r\n"] * frames)

    @rule()
    def lose(self) -> None:
        self.engine.begin()
        assert self.engine.lost(errors.UnexpectedEOF()).frames == 0
        self.fenced = None

    @rule(limit=st.integers(1, 100))
    def take(self, limit: int) -> None:
        batch = self.engine.take(limit)
        self.engine.sent()
        for frame in list(self.waiting):
            if frame in batch:
                assert self.fenced is None or frame in self.fenced
                self.gone[frame] = self.waiting.pop(frame)

    @precondition(lambda self: self.fenced is None)
    @rule()
    def fence(self) -> None:
        """What comes from now on waits for the next connection."""
        self.engine.fence("left")
        self.fenced = set(self.waiting)

    @rule()
    def discard(self) -> None:
        assert self.engine.discard() == len(self.waiting)
        self.gone |= self.waiting
        self.waiting.clear()

    @rule()
    def move(self) -> None:
        """A planned move takes what waits over to the other side."""
        other = Engine(main=self.engine)
        self.engine.exchange(other)
        self.fenced = None
        assert [frame for frame in other.outbox if frame in self.waiting] == list(self.waiting)
        self.gone |= self.waiting
        self.waiting.clear()

    @invariant()
    def numbers_are_true(self) -> None:
        engine = self.engine
        assert [frame for frame in engine.outbox if frame.startswith(b"PUB")] == list(self.waiting)
        assert all(engine.waits(frame, number) for frame, number in self.waiting.items())
        assert not any(engine.waits(frame, number) for frame, number in self.gone.items())
        assert engine.outbox_bytes == sum(map(len, engine.outbox))
        assert engine._numbers.gaps == engine.outbox.count(b"")
        if not engine.sendable:
            assert not (self.waiting if self.fenced is None else self.fenced & set(self.waiting))


Queue.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestQueue = Queue.TestCase
