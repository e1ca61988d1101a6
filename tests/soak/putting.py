"""Puts of objects that are cancelled at random moments."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.worlds import context_of, open_live, until
from trionats import Client, ObjectStore, api

MIB = 1024 * 1024
PIECE = bytes(range(256)) * 1000


async def pieces(size: int) -> AsyncGenerator[bytes]:
    """Give so many bytes, in pieces that are no chunks."""
    for start in range(0, size, len(PIECE)):
        yield PIECE[: size - start]


async def put(store: ObjectStore, size: int, path: Path | None) -> api.ObjectInfo:
    """Put an object of that size under the name "n": the file, or else pieces."""
    if path is not None:
        return await store.put_file(path, "n")
    async with aclosing(pieces(size)) as data:
        return await store.put("n", data)


async def chunks_in(store: ObjectStore) -> dict[str, int]:
    """Count the chunks in a bucket, by the nuid of their object."""
    info = await context_of(store).stream_info(store.stream, f"$O.{store.bucket}.C.>")
    return {subject.split(".")[-1]: count for subject, count in (info.state.subjects or {}).items()}


@dataclass
class Cancelled:
    """What became of the puts that were cancelled, and what was wrong behind which."""

    seed: object
    cancelled: int = 0
    in_time: int = 0
    seconds: float = 0
    faults: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> bool:
        return bool(self.faults) or not self.cancelled

    def __str__(self) -> str:
        done = f"{self.cancelled} cancelled and {self.in_time} done before that, of {self.seconds:.2f} s each"
        return f"{done}, seed {self.seed}: {self.faults or 'each object whole, no chunk left'}"


async def cancelled_puts(size: int, times: int, seed: object) -> Cancelled:
    """Cancel puts of that size, of a file and of an iterable by turns, each at a moment of its own."""
    outcome, rng = Cancelled(seed), random.Random(repr(seed))
    old = PIECE * 10
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        with path.open("wb") as file:
            file.truncate(size)
        async with open_live(jetstream=True) as (_, nc, _):
            store = await nc.jetstream().create_object_store("b", storage=api.StorageType.MEMORY)
            start = trio.current_time()
            await put(store, size, None)
            outcome.seconds = trio.current_time() - start
            await store.put("n", old)
            for number in range(times):
                moment = rng.random() * outcome.seconds
                with trio.move_on_after(moment) as scope:
                    await put(store, size, path if number % 2 else None)
                if fault := await fault_of(store, nc, size, old, may_be_new=not scope.cancelled_caught):
                    outcome.faults.append(f"no. {number + 1}, cancelled after {moment:.4f} s: {fault}")
                outcome.cancelled += scope.cancelled_caught
                outcome.in_time += not scope.cancelled_caught
                if (await store.get_info("n")).size != len(old):
                    await store.put("n", old)
    return outcome


async def fault_of(store: ObjectStore, nc: Client, size: int, old: bytes, *, may_be_new: bool) -> str:
    """Say what is wrong: the object is there as a whole, and no chunk of any other."""
    info = await store.get_info("n")
    if info.size == len(old):
        if (await store.get("n")).data != old:
            return "the old object is another one"
    elif info.size != size or not may_be_new:
        return f"an object of {info.size} bytes"
    if nc.statistics().pending_requests:
        return "requests are left"

    async def alone() -> bool:
        # What was acknowledged behind the end of the put may be purged once more.
        return await chunks_in(store) == {info.nuid: info.chunks}

    try:
        await until(alone, within=10, pause=0.01)
    except trio.TooSlowError:
        return f"chunks are left: {await chunks_in(store)}, and the object has {info.chunks} of {info.nuid}"
    return ""
