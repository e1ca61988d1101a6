"""What is to happen when, unless it is cancelled first: a heap that forgets.

Nearly every timer is cancelled (a reply comes long before the request's timeout), so cancelling only marks it, and the heap
is swept when more than half of it is marked: adding and cancelling cost the same however many timers there are.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SWEEP_AT", "Timer", "Timers"]

#: Below this many timers a sweep is not worth it.
SWEEP_AT = 64


class Timer:
    """Something that will happen."""

    __slots__ = ("_timers", "fire", "when")

    def __init__(self, timers: Timers, when: float, fire: Callable[[], None]) -> None:
        self._timers = timers
        self.when = when
        self.fire: Callable[[], None] | None = fire

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Let it not happen. Idempotent, also once it has."""
        if self.fire is not None:
            self.fire = None
            self._timers.count_cancelled()


class Timers:
    """All that will happen to one client."""

    __slots__ = ("_cancelled", "_heap")

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def add(self, when: float, fire: Callable[[], None]) -> Timer:
        """Let `fire` be called once it is `when`."""
        timer = Timer(self, when, fire)
        heappush(self._heap, timer)
        return timer

    def count_cancelled(self) -> None:
        """Count a timer that was cancelled, and sweep if they are many."""
        self._cancelled += 1
        if len(self._heap) > SWEEP_AT and self._cancelled * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.fire is not None]
            heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """Say when the next one is due; None when there is none."""
        heap = self._heap
        while heap and heap[0].fire is None:
            heappop(heap)
            self._cancelled -= 1
        return heap[0].when if heap else None

    def fire(self, now: float) -> None:
        """Let happen what is due, in order."""
        while (when := self.next()) is not None and when <= now:
            timer = heappop(self._heap)
            fire, timer.fire = timer.fire, None
            assert fire is not None, "`next` leaves none that was cancelled"
            fire()
