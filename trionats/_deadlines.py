"""When a wait in a client ends: by an alarm, which is cheaper than a cancel scope, or by the deadline it gets where it has none.

Split off `_link`: what is to happen when is decided in `_protocol.alarms`; here somebody looks at Trio's clock.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import enable_ki_protection

from trionats import errors
from trionats._protocol.alarms import Alarms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trionats._protocol.alarms import Alarm


class Timekeeper:
    """The alarms of one client, rung by a task."""

    def __init__(self) -> None:
        self._alarms = Alarms()
        self._asleep_until = -inf
        self._earlier = trio.Event()

    def alarm(self, when: float, ring: Callable[[], None]) -> Alarm:
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
            self._alarms.ring(trio.current_time())
            self._earlier = trio.Event()
            next_alarm = self._alarms.next()
            self._asleep_until = inf if next_alarm is None else next_alarm
            with trio.move_on_at(self._asleep_until):
                await self._earlier.wait()


@contextmanager
def default_deadline(
    seconds: float, what: str, failure: type[errors.TimeoutError] = errors.TimeoutError
) -> Iterator[None]:
    """Bound a wait for the server where the caller has set no deadline.

    Args:
        seconds: How long.
        what: What was waited for, for the error.
        failure: The error's class.

    Raises:
        nats.errors.TimeoutError: There was no deadline in force, and `seconds` passed.
    """
    if trio.current_effective_deadline() != inf:
        yield
        return
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise errors.explained(failure, f"{what}: no answer within {seconds:g} s")
