"""A thousand watchers, ended in each way there is: nothing is left of them, here or on the server.

`TRIONATS_WATCHERS` sets another number; memory is judged from 1,000 on.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats.errors
import pytest
import trio

from tests.worlds import open_world
from trionats import Client, ObjectStore, Watcher, open_watcher
from trionats.api import ObjectInfo, StorageType
from trionats.testing import NatsServer

pytestmark = pytest.mark.live(seconds=180)

COUNT = int(os.environ.get("TRIONATS_WATCHERS", "1000"))
#: Where memory has settled, and what it may grow from there to the end.
SETTLED = COUNT // 5
GROWTH = 2 * 1024 * 1024
#: How many watchers share the fate of one server, or of one nursery: starting one for each would take minutes.
TOGETHER = 50


@asynccontextmanager
async def watching(store: ObjectStore) -> AsyncIterator[tuple[Watcher[ObjectInfo], trio.Nursery]]:
    """A watcher that has received the one object, and its nursery."""
    async with trio.open_nursery() as nursery, open_watcher(nursery, store) as rx:
        await rx.receive()
        yield rx, nursery


async def assert_over(rx: Watcher[ObjectInfo]) -> None:
    with pytest.raises(trio.EndOfChannel):
        await rx.receive()


async def stop(store: ObjectStore) -> None:
    async with watching(store) as (rx, _):
        rx.stop()
        await assert_over(rx)


async def leave_loop(store: ObjectStore) -> None:
    async with trio.open_nursery() as nursery, open_watcher(nursery, store) as rx:
        async for _ in rx:
            break


async def deadline(store: ObjectStore) -> None:
    async with watching(store) as (rx, _):
        with trio.move_on_after(0):
            await rx.receive()


async def nursery_cancelled(store: ObjectStore) -> None:
    async with watching(store) as (rx, nursery):
        nursery.cancel_scope.cancel()
        await rx.receive()


async def body_raises(store: ObjectStore) -> None:
    with pytest.RaisesGroup(LookupError):
        async with watching(store):
            raise LookupError("planted")


WAYS = {way.__name__: way for way in (stop, leave_loop, deadline, nursery_cancelled, body_raises)}


@pytest.fixture
def server(server_executable: Path) -> NatsServer:
    return NatsServer(jetstream=True, executable=server_executable)


@asynccontextmanager
async def one_object(
    server: NatsServer, *, allow_reconnect: bool = True
) -> AsyncIterator[tuple[Client, ObjectStore, trio.Nursery]]:
    """A client, and a store with one object in it."""
    async with open_world(server, allow_reconnect=allow_reconnect) as (_, nc, nursery):
        store = await nc.jetstream().create_object_store("watched", storage=StorageType.MEMORY)
        await store.put("one", b"")
        yield nc, store, nursery


class Census:
    """What lives here and on the server; it must be the same before and after."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self._sizes: list[int] = []

    def watched(self, number: int) -> None:
        """Weigh the process once it has settled, and at the end."""
        if number in (SETTLED, COUNT):
            gc.collect()
            self._sizes.append(resident_size())

    async def count(self) -> dict[str, int]:
        """Count tasks here, and subscriptions and consumers on the server."""
        subsz = await trio.to_thread.run_sync(self._server.monitor, "subsz")
        jsz = await trio.to_thread.run_sync(self._server.monitor, "jsz?consumers=1")
        tasks = trio.lowlevel.current_statistics().tasks_living
        return {"tasks": tasks, "subscriptions": subsz["num_subscriptions"], "consumers": jsz["consumers"]}

    async def settle(self, before: dict[str, int]) -> None:
        """Wait until everything is back: the server deletes consumers beside the connection that asked for it."""
        with trio.move_on_after(5):
            while await self.count() != before:  # noqa: ASYNC110 - the server tells nobody
                await trio.sleep(0.01)
        assert await self.count() == before

    def check_memory(self) -> None:
        """Assert that it has not grown."""
        if COUNT >= 1000 and sys.platform == "linux":
            settled, last = self._sizes
            assert last - settled < GROWTH, f"grew by {(last - settled) / 1024:.0f} KiB"


async def reason(rx: Watcher[ObjectInfo]) -> str:
    """Receive why the watcher ended; without pytest's own record of it, which would be weighed with the rest."""
    try:
        await rx.receive()
    except nats.errors.Error as error:
        return str(error)
    raise AssertionError("it did not end")


def resident_size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_thousand_watchers(way: Callable[[ObjectStore], Awaitable[None]], server: NatsServer) -> None:
    with server:
        census = Census(server)
        async with one_object(server) as (nc, store, _):
            await nc.flush()
            before = await census.count()
            await way(store)
            for number in range(1, COUNT + 1):
                await way(store)
                census.watched(number)
            await nc.flush()
            await census.settle(before)
        census.check_memory()


async def test_thousand_watchers_of_clients_that_are_closed(server: NatsServer) -> None:
    with server:
        census = Census(server)
        async with one_object(server):
            before = await census.count()
            for number in range(1, COUNT + 1):
                async with open_world(server) as (_, nc, _nursery):
                    async with watching(await nc.jetstream().object_store("watched")) as (rx, _):
                        await nc.aclose()
                        await assert_over(rx)
                census.watched(number)
            await census.settle(before)
        census.check_memory()


async def test_thousand_watchers_of_servers_that_are_killed(server: NatsServer) -> None:
    census = Census(server)
    before = trio.lowlevel.current_statistics().tasks_living
    for number in range(TOGETHER, COUNT + 1, TOGETHER):
        with server:
            async with one_object(server, allow_reconnect=False) as (_, store, nursery), AsyncExitStack() as stack:
                opened = [await stack.enter_async_context(open_watcher(nursery, store)) for _ in range(TOGETHER)]
                for rx in opened:
                    await rx.receive()
                await trio.to_thread.run_sync(server.kill)
                for rx in opened:
                    assert server.url in await reason(rx)
        census.watched(number)
        assert trio.lowlevel.current_statistics().tasks_living == before
    census.check_memory()
