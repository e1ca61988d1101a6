"""Many messages consumed and acknowledged, in memory that does not grow with their number.

The peak of a whole process is looked at, so it has to be one of its own: `python -m tests.soak steady`.
"""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.worlds import open_live, unique, until
from trionats import open_consumer

SIZE = 128
#: After how many messages everything has its size that ever will: buffers, caches, interned names.
WARM = 100_000
#: By how many bytes the peak may grow after that: it was seen to grow by none. One number kept of each of 50,000 messages is twice
#: as much.
MOST_GROWTH = 1024 * 1024
#: The server drops what comes faster than it stores, so it is waited for after so many.
AT_ONCE = 500


@dataclass
class Steady:
    """What was consumed, and how large the process was at its largest: warm, and at the end; bytes."""

    consumed: int
    left: int
    warm: int
    end: int

    @property
    def wrong(self) -> bool:
        return self.left != 0 or self.end - self.warm > MOST_GROWTH

    def __str__(self) -> str:
        sizes = f"peak {self.warm / 1e6:.1f} MB warm and {self.end / 1e6:.1f} MB at the end"
        return f"{self.consumed} consumed, {self.left} not acknowledged, {sizes}: {'GREW' if self.wrong else 'flat'}"


def peak() -> int:
    """The largest that this process has been.

    Its resource usage begins with the peak of the process that has started it, and would hide what is smaller than a run of tests.
    """
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


async def many_consumed(count: int) -> Steady:
    """Store so many, and consume and acknowledge all of them in one loop."""
    name = unique("steady")
    async with open_live(jetstream=True) as (_, nc, nursery):
        js = nc.jetstream()
        await js.create_stream(name=name, subjects=[name], storage="memory")
        for number in range(1, count + 1):
            await (js if number % AT_ONCE == 0 or number == count else nc).publish(name, b"x" * SIZE)
        consumer = await js.create_consumer(name, durable_name=name, ack_policy="explicit")
        done = warm = 0
        async with open_consumer(nursery, consumer) as rx:
            async for msg in rx:
                await msg.ack()
                done += 1
                if done == min(WARM, count // 2):
                    warm = peak()
                if done == count:
                    break
        end = peak()

        async def left() -> int:
            info = await consumer.info()
            return (info.num_pending or 0) + (info.num_ack_pending or 0)

        async def all_acknowledged() -> bool:
            return not await left()

        # The server counts an acknowledgement when it has come to it.
        with suppress(trio.TooSlowError):
            await until(all_acknowledged)
        return Steady(done, await left(), warm, end)
