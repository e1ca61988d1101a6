"""Cancel an operation at each of its steps, one run for each, the same every time.

    def test_request_cancelled_anywhere() -> None:
        async def scenario(cut: Cut) -> None:
            server = FakeServer()
            async with trio.open_nursery() as nursery, trionats.open_client(nursery, dial=server.dial) as nc:
                async with assert_no_leaks(nc):
                    await cut(nc.request, "a.b", b"question")
                await nc.flush()
            server.check()

        cancel_everywhere(scenario)

A step is what a task does between two waits. There are five ways in which a cancellation can meet one, and each of them has
found bugs that the others could not:

* `already`: the scope was cancelled before the operation began;
* `parked`: it waits, and is cancelled there, as by a deadline: what it waited for has not happened;
* `woken`: what it waited for has happened, and the cancellation came before it ran: the next checkpoint tells it;
* `parked-twice`, `woken-twice`: the same, and one step later an outer scope is cancelled too, in the middle of the cleanup.

Each run has its own `trio.run`, on a clock that jumps ahead when everybody waits; a scenario that still stands after an hour
of that is stuck, and fails. Trio's choice of the next task is drawn from the seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Literal, TypeVar, get_args

import trio
import trio.testing
from trio._core import _run as trio_run  # how pytest-trio and Hypothesis make the scheduler repeat itself, too

__all__ = ["Cut", "Way", "cancel_everywhere", "same_schedule"]

T = TypeVar("T")
Way = Literal["already", "parked", "woken", "parked-twice", "woken-twice"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)
MOST_STEPS = 2000
STUCK_SECONDS = 3600.0


class Cut(trio.abc.Instrument):
    """One run's cancellation: given to the scenario, which calls it once with the operation."""

    def __init__(self, way: Way, at: int) -> None:
        self.way, self.at = way, at
        #: Whether the operation was still running at the step in question, and was cancelled there.
        self.fired = False
        #: Whether the operation ended by being cancelled.
        self.cancelled = False
        self.called = False
        self.steps = 0
        #: What it returned, if it did.
        self.result: object = None
        self._task: trio.lowlevel.Task | None = None
        self._inner = trio.CancelScope()
        self._outer = trio.CancelScope()

    async def __call__(self, operation: Callable[..., Awaitable[T]], *args: object, **options: object) -> T | None:
        """Run the operation in the task that calls, and cancel it at the appointed step; None if it was cancelled."""
        assert not self.called, "a scenario cuts once"
        self.called = True
        if self.way == "already":
            self.fired = True
            self._inner.cancel()
        self._task = trio.lowlevel.current_task()
        try:
            with self._outer, self._inner:
                self.result = result = await operation(*args, **options)
                return result
        finally:
            self._task = None
            self.cancelled = self._inner.cancelled_caught or self._outer.cancelled_caught
        return None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self.way.startswith("woken"):
            self._step()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and not self.way.startswith("woken"):
            self._step()

    def _step(self) -> None:
        self.steps += 1
        if self.way == "already":
            return
        if self.steps == self.at:
            self.fired = True
            self._inner.cancel()
        elif self.steps == self.at + 1 and self.way.endswith("twice"):
            self._outer.cancel()


@contextlib.contextmanager
def same_schedule(seed: object) -> Iterator[None]:
    """Make Trio choose the next task by a seed, for all of its runs inside the block."""
    allowed, state = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(repr(seed))
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]
        trio_run._r.setstate(state)


def cancel_everywhere(
    scenario: Callable[[Cut], Awaitable[None]], *, seed: object = 0, ways: Sequence[Way] = WAYS
) -> dict[Way, int]:
    """Run a scenario once for each step of the operation that it cuts, and for each way of cancelling it there.

    The scenario prepares, awaits `cut(operation, ...)` once, and raises if anything is wrong afterwards; a note says where
    the operation was cancelled. Returns at how many steps it was, for each way.
    """
    return {way: _one_way(scenario, way, seed) for way in ways}


def _one_way(scenario: Callable[[Cut], Awaitable[None]], way: Way, seed: object) -> int:
    for at in range(1, MOST_STEPS):
        cut = Cut(way, at)
        try:
            _run(scenario, cut, seed)
        except BaseException as error:
            error.add_note(f"cancelled in the way {way!r} at step {at} (fired: {cut.fired}), seed {seed!r}")
            raise
        assert cut.called, "the scenario never used its cut"
        if way == "already":
            return 1
        if not cut.fired:
            return at - 1
    raise AssertionError(f"the operation takes more than {MOST_STEPS} steps")


def _run(scenario: Callable[[Cut], Awaitable[None]], cut: Cut, seed: object) -> None:
    async def main() -> None:
        with trio.fail_after(STUCK_SECONDS):
            await scenario(cut)

    with same_schedule(seed):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[cut])
