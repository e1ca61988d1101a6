"""The processes of a service restarted one after the other, while it is asked all the time: no request fails."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE

import trio

from tests.worlds import connected
from trionats import Client, errors
from trionats.testing import open_server

ROOT = Path(__file__).parent.parent.parent
#: How often a second requests are made in one go.
TICKS = 200


@dataclass
class Restarts:
    """What became of the requests."""

    restarts: int = 0
    done: int = 0
    seconds: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    served_by: Counter[bytes] = field(default_factory=Counter)
    slowest: float = 0.0

    @property
    def wrong(self) -> bool:
        """Whether a request failed, or a process did nothing."""
        return bool(self.failed) or not self.restarts or min(self.served_by.values(), default=0) == 0

    def __str__(self) -> str:
        rate = self.done / self.seconds if self.seconds else 0
        return (
            f"{self.restarts} restarts, {self.done} requests, {rate:.0f} a second, done by {len(self.served_by)} processes, "
            f"the slowest in {self.slowest * 1000:.0f} ms; failed: {dict(self.failed) or 'none'}"
        )


@asynccontextmanager
async def service_process(url: str) -> AsyncIterator[trio.Process]:
    """Run one process of the service; entering waits until it serves."""
    command = [sys.executable, "-m", "tests.soak.serving", url]
    process = await trio.lowlevel.open_process(command, cwd=ROOT, stdout=PIPE)
    try:
        assert process.stdout is not None
        said = await process.stdout.receive_some(100)
        assert said.startswith(b"ready"), "it does not serve"
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()


async def ask(nc: Client, outcome: Restarts) -> None:
    """Make one request."""
    start = trio.current_time()
    try:
        response = await nc.request("work", b"x" * 128)
    except errors.Error as error:
        outcome.failed[type(error).__name__] += 1
        return
    if "Nats-Service-Error" in response.headers:
        outcome.failed[response.headers["Nats-Service-Error"]] += 1
        return
    outcome.done += 1
    outcome.served_by[response.data] += 1
    outcome.slowest = max(outcome.slowest, trio.current_time() - start)


async def ask_steadily(nc: Client, rate: int, outcome: Restarts, over: trio.Event) -> None:
    """Make so many requests a second, whether the ones before are done or not."""
    async with trio.open_nursery() as asking:
        start, made = trio.current_time(), 0
        while not over.is_set():
            due = int((trio.current_time() - start) * rate)
            # What the machine could not do in time is not made up for at once.
            for _ in range(min(due - made, rate // 10)):
                asking.start_soon(ask, nc, outcome)
            made = due
            await trio.sleep(1 / TICKS)
    outcome.seconds = trio.current_time() - start


async def rolling_restart(rounds: int = 1, rate: int = 2000, processes: int = 5) -> Restarts:
    """Restart each process so many times.

    Args:
        rounds: How often.
        rate: How many requests are made a second.
        processes: How many there are.
    """
    outcome = Restarts()
    over, answered, served = trio.Event(), trio.Event(), [trio.Event() for _ in range(processes)]
    turns = [trio.Event() for _ in range(processes)]

    async def keep_one(url: str, number: int) -> None:
        for _ in range(rounds):
            async with service_process(url) as process:
                served[number].set()
                await turns[number].wait()
                turns[number] = trio.Event()
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0, "it failed"
            served[number] = trio.Event()
            returned.set()
        async with service_process(url):
            served[number].set()
            await answered.wait()

    async def ask_until(over: trio.Event) -> None:
        await ask_steadily(nc, rate, outcome, over)
        answered.set()

    async with open_server() as server, connected(server) as nc, trio.open_nursery() as nursery:
        returned = trio.Event()
        for number in range(processes):
            nursery.start_soon(keep_one, server.url, number)
        for event in served:
            await event.wait()
        nursery.start_soon(ask_until, over)
        for _ in range(rounds):
            for number in range(processes):
                await trio.sleep(0.2)
                returned = trio.Event()
                turns[number].set()
                await returned.wait()
                await served[number].wait()
                outcome.restarts += 1
        await trio.sleep(0.2)
        over.set()
    return outcome
