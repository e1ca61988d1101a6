"""A lease that goes back and forth between two clients: how long it is nobody's when it is given back in order."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from itertools import pairwise

import trio

from tests.worlds import connected, open_key_value
from trionats import KeyValue, open_lease
from trionats.testing import NatsServer, TrioNatsServer, open_server

#: What is promised of an idle machine, in seconds.
MEDIAN, LONGEST = 0.05, 0.5
#: How long a body lasts, and how long its client lets the other one come before it wants the lease again.
BODY, PAUSE = 0.01, 0.03


@dataclass
class HandOvers:
    """How many seconds each hand-over to the other client took."""

    took: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The one in the middle."""
        return statistics.median(self.took)

    @property
    def wrong(self) -> bool:
        """Whether it is more than is promised of an idle machine."""
        return min(self.took) <= 0 or self.median > MEDIAN or max(self.took) > LONGEST

    def __str__(self) -> str:
        times = f"{self.median * 1000:.0f} ms in the median, {max(self.took) * 1000:.0f} ms at the most"
        return f"{len(self.took)} hand-overs, {times}"


async def hand_overs(server: NatsServer | TrioNatsServer, turns: int = 150) -> HandOvers:
    """Let two clients hold one lease in turns, and more than a hundred times each after the other.

    Args:
        server: Where.
        turns: How many bodies there are; in some of them the client that gave it back is the next one, too.
    """
    taken: list[tuple[int, float]] = []
    left: list[float] = []

    async def hold(nursery: trio.Nursery, kv: KeyValue, number: int) -> None:
        while len(left) <= turns:
            async with open_lease(nursery, kv, "k", ttl=5):
                taken.append((number, trio.current_time()))
                await trio.sleep(BODY)
                left.append(trio.current_time())
            # Whoever waits is the next one.
            await trio.sleep(PAUSE)

    async with open_key_value(server, limit_marker_ttl=1) as w, connected(server) as other:
        theirs = await other.jetstream().key_value(w.kv.bucket)
        async with trio.open_nursery() as workers:
            workers.start_soon(hold, w.nursery, w.kv, 1)
            workers.start_soon(hold, w.nursery, theirs, 2)
    bodies = pairwise(zip(taken, left, strict=False))
    return HandOvers([begun - ended for ((one, _), ended), ((another, begun), _) in bodies if one != another])


async def handed_over() -> HandOvers:
    """Do it on a server of its own."""
    async with open_server(jetstream=True) as server:
        return await hand_overs(server)
