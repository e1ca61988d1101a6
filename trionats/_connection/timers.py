"""The timers of one client, run by a task: cheaper than a cancel scope for each wait.

Which is due when is decided in `_protocol.timers`; here somebody looks at Trio's clock.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import enable_ki_protection

from trionats._protocol.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._protocol.timers import Timer


class Timekeeper:
    """The timers of one client, and the task that runs them."""

    def __init__(self) -> None:
        self._timers = Timers()
        self._asleep_until = -inf
        self._earlier = trio.Event()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call something at a time of Trio's clock, unless the timer is cancelled first.

        Args:
            when: The time.
            callback: Called synchronously: it must not wait and must not raise.
        """
        if when < self._asleep_until:
            self._earlier.set()
        return self._timers.add(when, callback)

    @enable_ki_protection
    async def run(self) -> None:
        """Call what is due, until cancelled."""
        while True:
            self._timers.fire(trio.current_time())
            self._earlier = trio.Event()
            due = self._timers.next()
            self._asleep_until = inf if due is None else due
            with trio.move_on_at(self._asleep_until):
                await self._earlier.wait()
