"""The timers of one client, fired by a task: cheaper than a cancel scope for each wait.

What is to happen when is decided in `_protocol.timers`; here somebody looks at Trio's clock.
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
    """The alarms of one client, rung by a task."""

    def __init__(self) -> None:
        self._alarms = Timers()
        self._asleep_until = -inf
        self._earlier = trio.Event()

    def alarm(self, when: float, ring: Callable[[], None]) -> Timer:
        """Let `ring` be called at a time of Trio's clock, unless it is called off first.

        Args:
            when: The time.
            ring: What is called, synchronously: it must not wait and must not raise.
        """
        if when < self._asleep_until:
            self._earlier.set()
        return self._alarms.add(when, ring)

    @enable_ki_protection
    async def run(self) -> None:
        """Ring what is due, until cancelled."""
        while True:
            self._alarms.fire(trio.current_time())
            self._earlier = trio.Event()
            next_alarm = self._alarms.next()
            self._asleep_until = inf if next_alarm is None else next_alarm
            with trio.move_on_at(self._asleep_until):
                await self._earlier.wait()
