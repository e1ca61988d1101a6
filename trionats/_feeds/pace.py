"""When the fast paths of a client go through Trio's scheduler (design 15)."""

from __future__ import annotations

import time

import trio
from trio.lowlevel import checkpoint

from trionats._feeds.run import Run

#: A fast path goes through the scheduler at least once in this many messages of the whole client ...
TRIP_MESSAGES = 64
#: ... and whenever this many seconds have passed since the last trip.
TRIP_SECONDS = 0.001


class Pace:
    """When the fast paths of one client owe the scheduler a trip.

    A full trip through Trio's scheduler costs several times what the rest of a receive costs, so `receive`, `publish`
    and `ack` make one only when they wait, every `TRIP_MESSAGES` operations and every `TRIP_SECONDS`. They stay
    cancellation points each time. One object for the whole client, so that ten busy feeds do not add up to 640.

    It also knows the Trio run that the client belongs to, and whether somebody who receives from it is behind.
    """

    __slots__ = ("behind", "due", "left", "now", "run", "thread", "worked")

    def __init__(self) -> None:
        self.run = Run()
        self.thread = self.run.thread
        clock = trio.lowlevel.current_clock()
        # Trio's own clock is this counter, moved by a random number that makes no difference here: twice as fast to
        # read.
        self.now = time.perf_counter if type(clock).__name__ == "SystemClock" else clock.current_time
        # The one time here that is not Trio's: how long this thread had the processor, whatever the clock says.
        self.worked = time.thread_time
        self.left = 0
        self.due = 0.0
        self.behind = False

    async def trip(self) -> None:
        """Go through the scheduler, and start counting anew."""
        self.run.check()
        await checkpoint()
        # The operation that made the trip is the first of those it counts for.
        self.left = TRIP_MESSAGES - 1
        self.due = self.now() + TRIP_SECONDS
