"""Processes that want one lease, and are stopped and killed at random: no step of one body is begun once another has begun one.

All of them note by one clock when they began a step and when it ended; the clock is the machine's, which is the same for all
processes. What was stopped in the middle of a step goes on with it when it is woken, whatever has happened: such steps are counted,
and so are those that `Lease.check` stopped before they did anything, since a process may also be stopped between Trio's look at the
clock and the step.

`python -m tests.soak.leases URL BUCKET FILE` is one of the processes.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import trio

from tests.worlds import open_live, until
from trionats import KeyValue, errors, open_client, open_lease

ROOT: Final = Path(__file__).parent.parent.parent
KEY: Final = "the.one"
TTL: Final = 2
#: How long a body lasts at the most, and how long it waits between two steps.
LONGEST: Final = 1.5
PAUSE: Final = 0.002
#: How long a process is stopped at the most, and how often one is stopped or killed.
LONGEST_STOP: Final = 2.5 * TTL
SHORTEST_PEACE, LONGEST_PEACE = 0.1, 0.8
RECORD: Final = struct.Struct("<qqq?")


class Step(NamedTuple):
    """One step of a body, or with the revision 0 the loss of its lease.

    When it was begun and ended in nanoseconds, of which lease, and whether that was held by its own clock.
    """

    begun: int
    ended: int
    revision: int
    taken: bool


@dataclass
class Leases:
    """What became of it."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    longest_gap: float = 0.0

    def __str__(self) -> str:
        lines = [f"{count} {what}" for what, count in self.counts.items()]
        lines.append(f"{self.longest_gap:.2f} s at the most in which nobody began a step")
        return "\n".join([*lines, *self.wrong[:10], f"{len(self.wrong)} wrong"])


def judge(steps: list[Step], outcome: Leases) -> None:
    """Compare the steps of all bodies."""
    outcome.counts["lost"] = sum(not step.revision for step in steps)
    steps = sorted(step for step in steps if step.revision)
    began: dict[int, int] = {}
    for step in steps:
        if step.taken:
            began.setdefault(step.revision, step.begun)
    held = sorted(began.items())
    outcome.counts |= {"bodies": len(began), "steps": len(steps)}
    for step in steps:
        later = next(((revision, first) for revision, first in held if revision > step.revision), None)
        if later is None or step.ended < later[1]:
            continue
        if step.begun < later[1]:
            outcome.counts["steps in which a process was stopped until another had the lease"] += 1
        elif step.taken:
            late = (step.begun - later[1]) / 1e6
            outcome.wrong.append(f"a step of {step.revision} was begun {late:.3f} ms after one of {later[0]}")
        else:
            outcome.counts["steps begun too late and not taken"] += 1
    gaps = [b.begun - a.begun for a, b in pairwise(steps)]
    outcome.longest_gap = max(gaps, default=0) / 1e9


# -- one of the processes ------------------------------------------------------------------------------------------------------


async def contend(url: str, bucket: str, path: str) -> None:
    """Take the lease, again and again, and note each step."""
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with trio.open_nursery() as nursery, open_client(nursery, url, max_reconnect_attempts=-1) as nc:
        kv = await nc.jetstream().key_value(bucket)
        while True:
            try:
                await one_body(nursery, kv, notes)
            except errors.LeaseLostError:
                os.write(notes, RECORD.pack(0, 0, 0, False))
            # So that it is not always the same one.
            await trio.sleep(random.uniform(0, 0.05))


async def one_body(nursery: trio.Nursery, kv: KeyValue, notes: int) -> None:
    async with open_lease(nursery, kv, KEY, ttl=TTL, value=str(os.getpid())) as lease:
        ends = trio.current_time() + random.uniform(0, LONGEST)
        while trio.current_time() < ends:
            await trio.sleep(PAUSE)
            begun, taken = time.monotonic_ns(), True
            try:
                lease.check()
            except errors.LeaseLostError:
                taken = False
            os.write(notes, RECORD.pack(begun, time.monotonic_ns(), lease.revision, taken))


# -- and who disturbs them -----------------------------------------------------------------------------------------------------


class Contenders:
    """The processes."""

    def __init__(self, url: str, bucket: str, folder: Path, count: int) -> None:
        self._command = [sys.executable, "-m", "tests.soak.leases", url, bucket]
        self._folder = folder
        self._made = 0
        self.running = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        self._made += 1
        return subprocess.Popen([*self._command, str(self._folder / str(self._made))], cwd=ROOT)

    def pick(self, holder: bytes) -> int:
        """Choose one, rather whoever holds the lease."""
        pids = [str(process.pid).encode() for process in self.running]
        return pids.index(holder) if holder in pids and random.random() < 0.7 else random.randrange(len(pids))

    def kill(self, which: int) -> None:
        self.running[which].kill()
        self.running[which].wait()
        self.running[which] = self._start()

    async def stop(self, which: int, seconds: float) -> None:
        process = self.running[which]
        process.send_signal(signal.SIGSTOP)
        await trio.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()

    def failed(self) -> list[str]:
        return [f"a process ended by itself: {process.returncode}" for process in self.running if process.poll()]

    def steps(self) -> Iterator[Step]:
        for path in self._folder.iterdir():
            notes = path.read_bytes()
            whole = len(notes) - len(notes) % RECORD.size
            yield from (Step(*fields) for fields in RECORD.iter_unpack(notes[:whole]))


async def holder_of(kv: KeyValue) -> bytes:
    """Say who holds the lease; empty where nobody does."""
    with suppress(errors.KeyNotFoundError, errors.KeyDeletedError):
        return (await kv.get(KEY)).value or b""
    return b""


async def stop_the_holder(contenders: Contenders, kv: KeyValue) -> None:
    """Stop whoever holds the lease in the middle of it, and wake it when another one has it."""
    while True:
        holder = await holder_of(kv)
        process = next((one for one in contenders.running if str(one.pid).encode() == holder), None)
        if process is None:
            await trio.sleep(0.01)
            continue
        process.send_signal(signal.SIGSTOP)
        if await holder_of(kv) == holder:
            break
        process.send_signal(signal.SIGCONT)

    async def is_anothers() -> bool:
        return await holder_of(kv) not in (holder, b"")

    await until(is_anothers, within=TTL + 10, pause=0.01)
    before = sum(1 for _ in contenders.steps())
    # It has begun a step.
    await until(lambda: sum(1 for _ in contenders.steps()) > before, within=10, pause=0.01)
    process.send_signal(signal.SIGCONT)


async def disturb(contenders: Contenders, kv: KeyValue, seconds: float, outcome: Leases) -> None:
    """Stop and kill processes at random, and first of all one of which another one takes the lease."""
    await stop_the_holder(contenders, kv)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(seconds):
            while True:
                await trio.sleep(random.uniform(SHORTEST_PEACE, LONGEST_PEACE))
                which = contenders.pick(await holder_of(kv))
                if random.random() < 0.15:
                    contenders.kill(which)
                    outcome.counts["killed"] += 1
                else:
                    nursery.start_soon(contenders.stop, which, random.uniform(0, LONGEST_STOP))
                    outcome.counts["stopped"] += 1
        nursery.cancel_scope.cancel()


async def many_leases(seconds: float, processes: int = 8, say: Callable[[str], None] = lambda _: None) -> Leases:
    """Let so many processes want one lease for so long."""
    outcome = Leases(Counter({"stopped": 0, "killed": 0}))
    async with open_live(jetstream=True) as (server, nc, _):
        js = nc.jetstream()
        kv = await js.create_key_value(bucket="leases", limit_marker_ttl=1)
        with tempfile.TemporaryDirectory() as folder:
            contenders = Contenders(server.url, kv.bucket, Path(folder), processes)
            try:
                await until(lambda: any(contenders.steps()), within=30, pause=0.05)
                say(f"{processes} processes are there")
                await disturb(contenders, kv, seconds, outcome)
                outcome.wrong += contenders.failed()
            finally:
                contenders.end()
            judge(list(contenders.steps()), outcome)
    return outcome


if __name__ == "__main__":
    trio.run(contend, sys.argv[1], sys.argv[2], sys.argv[3])
