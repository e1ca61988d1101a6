"""What is to happen when, unless it is called off first: a heap that forgets.

Nearly every alarm is called off (a request is answered long before its timeout), so calling off only marks it, and the
heap is swept when more than half of it is marked: adding and calling off cost the same however many alarms there are.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Below this many alarms a sweep is not worth it.
SWEEP_AT = 64


class Timer:
    """Something that will happen."""

    __slots__ = ("_alarms", "ring", "when")

    def __init__(self, alarms: Timers, when: float, ring: Callable[[], None]) -> None:
        self._alarms = alarms
        self.when = when
        self.ring: Callable[[], None] | None = ring

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Let it not happen. Idempotent, also once it has."""
        if self.ring is not None:
            self.ring = None
            self._alarms.called_off()


class Timers:
    """All that will happen to one client."""

    __slots__ = ("_heap", "_off")

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._off = 0

    def __len__(self) -> int:
        return len(self._heap) - self._off

    def add(self, when: float, ring: Callable[[], None]) -> Timer:
        """Let `ring` be called once it is `when`."""
        alarm = Timer(self, when, ring)
        heappush(self._heap, alarm)
        return alarm

    def called_off(self) -> None:
        """Count an alarm that was called off, and sweep if they are many."""
        self._off += 1
        if len(self._heap) > SWEEP_AT and self._off * 2 > len(self._heap):
            self._heap = [alarm for alarm in self._heap if alarm.ring is not None]
            heapify(self._heap)
            self._off = 0

    def next(self) -> float | None:
        """Say when the next one is; None when there is none."""
        heap = self._heap
        while heap and heap[0].ring is None:
            heappop(heap)
            self._off -= 1
        return heap[0].when if heap else None

    def ring(self, now: float) -> None:
        """Let happen what is due, in order."""
        while (when := self.next()) is not None and when <= now:
            alarm = heappop(self._heap)
            ring, alarm.ring = alarm.ring, None
            assert ring is not None, "`next` leaves none that was called off"
            ring()
