"""What the drivers of all clients share: the job they are given, the clock, and the line that they print."""

from __future__ import annotations

import hashlib
import json
import platform
import random
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any

#: How long one run may take before what has not come counts as lost.
PATIENCE = 120.0
BUCKET = "BENCH"
#: Two buckets of keys: one that is read, its keys `warm.0` ... and `key.0` ..., and one that is written.
KEYS, WRITTEN = "BENCH_KEYS", "BENCH_WRITTEN"
#: What publishers fill.
STREAM = "BENCHED"
#: What consumers read, a stream and its subject, and how much is fetched at once.
STORED, BATCH = "BENCH_STORED", 500
PACKAGES = ("trionats", "nats-py", "natsio", "natsio-jetstream-batch", "trio", "trio-asyncio")


@dataclass(frozen=True, slots=True)
class Job:
    """One run: what to do, and how often."""

    scenario: str
    url: str
    name: str
    count: int
    size: int
    workers: int
    object_size: int

    @property
    def rounds(self) -> tuple[int, int]:
        """How many operations warm up, and how many are measured."""
        return max(self.count // 20, self.workers), self.count

    @property
    def payload(self) -> bytes:
        return b"x" * self.size

    def feed(self, count: int) -> bytes:
        """What asks the peer for messages."""
        return json.dumps({"count": count, "size": self.size}).encode()


class Clock:
    """Wall and CPU time of this process; the last `start` and `stop` count."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.running = False
        #: Operations that were done between `start` and `stop`.
        self.done = 0

    def start(self) -> None:
        self.running = True
        self.done = 0
        self._cpu, self._wall = _cpu(), time.perf_counter()

    def stop(self) -> None:
        if self.running:
            self.wall, self.cpu = time.perf_counter() - self._wall, _cpu() - self._cpu
            self.running = False


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def content(size: int) -> bytes:
    """What is stored in objects: the same everywhere, and nothing that could be compressed."""
    return random.Random(size).randbytes(size)


def fingerprint(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _innermost(problem: BaseException) -> str:
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return f"{type(problem).__name__}: {problem}"


def drive(run: Callable[[Job, Clock], None]) -> None:
    """Run one job, given as JSON on the command line, and print what came of it as a line of JSON."""
    job, clock = Job(**json.loads(sys.argv[1])), Clock()
    error = ""
    try:
        run(job, clock)
    except Exception as problem:  # reported, and the next client has its turn
        error = _innermost(problem)
    clock.stop()
    report: dict[str, Any] = {"wall": clock.wall, "cpu": clock.cpu, "done": clock.done, "error": error}
    print(json.dumps(report | {"versions": versions()}), flush=True)
