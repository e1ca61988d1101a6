"""Objects that are put from a stream and read as one, or from file to file, in memory that does not grow with their size.

How large the process is, is looked at with each block, where it holds the most.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path

from tests.worlds import open_live, unique

MIB = 1024 * 1024
#: By how many bytes a transfer may make the process larger than it was after a small one.
MOST_GROWTH = 32 * MIB


def resident() -> int:
    """How many bytes of memory this process has (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Streamed:
    """By how many bytes each transfer made the process larger: (what, MiB) -> bytes; and which objects came back damaged."""

    start: int = 0
    growth: dict[tuple[str, int], int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> bool:
        return bool(self.damaged) or max(self.growth.values()) > MOST_GROWTH

    def look(self, what: str, size: int) -> None:
        """Look how large the process is now."""
        self.growth[what, size] = max(self.growth.get((what, size), 0), resident() - self.start)

    def __str__(self) -> str:
        lines = [f"  {what:12} {size:5} MiB: {grown / MIB:5.1f} MiB" for (what, size), grown in self.growth.items()]
        return "\n".join([*lines, *(f"  damaged: {name}" for name in self.damaged)])


async def streamed(sizes: list[int]) -> Streamed:
    """Put and get objects of so many MiB, each as a stream and as a file."""
    found = Streamed()
    block = random.Random(0).randbytes(MIB - 8)

    def blocks(size: int) -> Iterator[bytes]:
        yield from (number.to_bytes(8) + block for number in range(size))

    async def produced(size: int) -> AsyncIterator[bytes]:
        for each in blocks(size):
            found.look("put", size)
            yield each

    async with open_live(jetstream=True) as (_, nc, _), temporary() as (source, copy):
        store = await nc.jetstream().create_object_store(unique("streamed"))
        for size in (1, *sizes):
            if size == sizes[0]:
                # Now all is imported, and what does not depend on the size of an object is as large as it gets.
                found = Streamed(resident())
            wanted, came = sha256(), sha256()
            with source.open("wb") as original:
                for each in blocks(size):
                    wanted.update(each)
                    original.write(each)
            await store.put("stream", produced(size))
            async with store.open_object("stream") as stream:
                async for piece in stream:
                    came.update(piece)
                    found.look("open_object", size)
            await store.put_file(source, "file", progress=lambda *_: found.look("put_file", size))  # noqa: B023
            await store.get_file("file", copy, progress=lambda *_: found.look("get_file", size))  # noqa: B023
            with copy.open("rb") as file:
                if {came.digest(), file_digest(file, "sha256").digest()} != {wanted.digest()}:
                    found.damaged.append(f"{size} MiB")
    return found


@asynccontextmanager
async def temporary() -> AsyncIterator[tuple[Path, Path]]:
    """Give two places for files that are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="trionats-streamed-") as folder:
        yield Path(folder) / "source", Path(folder) / "copy"
