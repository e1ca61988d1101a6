"""A barrier: wait until what is buffered in feeds was worked off (design 23)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio.lowlevel import Task

    from trionats._feeds.feed import Feed

#: How often it is looked whether a consumer has ended without coming back: the one thing that Trio tells nobody.
LOOK_SECONDS = 0.1


class Barrier:
    """What one feed has to work off before a barrier lets pass.

    Args:
        feed: The feed.
        caller: The task that waits.
        passed: Called, perhaps more than once, when all has been worked off.
    """

    def __init__(self, feed: Feed[Any], caller: Task, passed: Callable[[Barrier], None]) -> None:
        self._feed = feed
        self._busy = feed._busy
        self._passed = passed
        self._tasks = self._busy.working([caller])
        # What only the caller could receive is nothing to wait for.
        only_mine = not self._tasks and self._busy.belongs_to([caller])
        self._buffered = 0 if only_mine else len(feed)
        self._busy.observe(self)

    def recheck(self) -> None:
        """See whether it can pass: nobody says that a task has ended, or that items were dropped to make room."""
        self._tasks &= self._busy.working()
        self._pass_if_done()

    def close(self) -> None:
        """Observe no more."""
        self._busy.unobserve(self)

    def took(self, task: Task) -> None:
        """Count what was buffered, and remember who has it."""
        # A task that is among them already was handed its item before we began to count.
        if self._buffered and task not in self._tasks:
            self._buffered -= 1
            self._tasks.add(task)

    def came_back(self, task: Task) -> None:
        """Cross off a task that is done with what it took."""
        self._tasks.discard(task)
        self._pass_if_done()

    def ended(self) -> None:
        """Nothing to see: what is buffered can still be received."""

    def left(self) -> None:
        """Wait for nothing more: the rest is of no interest to anybody."""
        self._buffered = 0
        self._tasks.clear()
        self._pass_if_done()

    def _pass_if_done(self) -> None:
        self._buffered = min(self._buffered, len(self._feed))
        if not self._buffered and not self._tasks:
            self._passed(self)


async def wait_barrier(feeds: Sequence[Feed[Any]]) -> None:
    """Wait until what is buffered in feeds was received, and those who received it came back for more.

    Args:
        feeds: The feeds; what only the caller receives from is not waited for.
    """
    caller = trio.lowlevel.current_task()
    all_passed = trio.Event()

    def passed(barrier: Barrier) -> None:
        waiting.pop(barrier, None)
        if not waiting:
            all_passed.set()

    barriers = [Barrier(feed, caller, passed) for feed in feeds]
    waiting = dict.fromkeys(barriers)
    try:
        while True:
            for barrier in list(waiting):
                barrier.recheck()
            if not waiting:
                return
            with trio.move_on_after(LOOK_SECONDS):
                await all_passed.wait()
    finally:
        for barrier in barriers:
            barrier.close()
