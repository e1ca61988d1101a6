"""Puts of objects that are cancelled at random moments."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.worlds import open_live, stored_chunks, until
from trionats import Client, ObjectStore, api, errors

MIB = 1024 * 1024
#: How many seconds behind some number of bytes a put is cancelled at the latest.
LATEST = 0.01
PIECE = bytes(range(256)) * 1000


async def pieces(size: int) -> AsyncGenerator[bytes]:
    """Give so many bytes, in pieces that are no chunks."""
    for start in range(0, size, len(PIECE)):
        yield PIECE[: size - start]


async def put(
    store: ObjectStore, size: int, path: Path | None, progress: Callable[[int, int | None], object] | None = None
) -> api.ObjectInfo:
    """Put an object of that size under the name "n": the file, or else pieces."""
    if path is not None:
        return await store.put_file(path, "n", progress=progress)
    async with aclosing(pieces(size)) as data:
        return await store.put("n", data, progress=progress)


@dataclass
class Cancelled:
    """What became of the puts that were cancelled, and what was wrong behind which."""

    seed: object
    cancelled: int = 0
    in_time: int = 0
    stored: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> bool:
        return bool(self.faults) or not self.cancelled

    def __str__(self) -> str:
        done = f"{self.cancelled} cancelled ({self.stored} in their last step, and stored) and {self.in_time} done before that"
        return f"{done}, seed {self.seed}: {self.faults or 'each object whole, no chunk left'}"


def cancel_behind(scope: trio.CancelScope, behind: int, later: float, done: int, _: int | None) -> None:
    """Be told of progress, and cancel so many seconds after so many bytes."""
    if done > behind:
        scope.deadline = min(scope.deadline, trio.current_time() + later)


async def cancelled_puts(size: int, times: int, seed: object) -> Cancelled:
    """Cancel puts of that size, of a file and of an iterable by turns, each some time behind some number of bytes."""
    outcome, rng = Cancelled(seed), random.Random(repr(seed))
    old = PIECE * 10
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        with path.open("wb") as file:
            file.truncate(size)
        async with open_live(jetstream=True) as (_, nc, _):
            store = await nc.jetstream().create_object_store("b", storage=api.StorageType.MEMORY)
            await store.put("n", old)
            for number in range(times):
                behind, later = rng.randrange(size), rng.random() * LATEST
                with trio.CancelScope() as scope:
                    await put(store, size, path if number % 2 else None, partial(cancel_behind, scope, behind, later))
                if fault := await fault_of(store, nc, size, old, done=not scope.cancelled_caught):
                    outcome.faults.append(f"no. {number + 1}, cancelled {later:.4f} s behind {behind} bytes: {fault}")
                outcome.cancelled += scope.cancelled_caught
                outcome.in_time += not scope.cancelled_caught
                if (await store.get_info("n")).size != len(old):
                    outcome.stored += scope.cancelled_caught
                    await store.put("n", old)
    return outcome


async def fault_of(store: ObjectStore, nc: Client, size: int, old: bytes, *, done: bool) -> str:
    """Say what is wrong: the object is there as a whole, and no chunk of any other."""
    info = await store.get_info("n")
    # One that was cancelled in its last step may have been stored.
    if info.size != size and (done or info.size != len(old)):
        return f"an object of {info.size} bytes"
    try:
        if info.size == len(old) and (await store.get("n")).data != old:
            return "the old object is another one"
        async with store.open_object("n") as stream:
            async for _ in stream:
                pass
    except errors.Error as error:
        return str(error)
    if nc.statistics().pending_requests:
        return "requests are left"

    async def alone() -> bool:
        # What was acknowledged behind the end of the put may be purged once more.
        return await stored_chunks(store) == {info.nuid: info.chunks}

    try:
        await until(alone, within=10, pause=0.01)
    except trio.TooSlowError:
        return f"chunks are left: {await stored_chunks(store)}, and the object has {info.chunks} of {info.nuid}"
    return ""
