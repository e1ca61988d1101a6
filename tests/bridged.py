"""The worlds of tests/test_promise.py for the bridge's feeds: nats-py's client against a real server.

Each function here is one for its table of kinds; `World.nc` is a stand-in with what that file asks of a client.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import trio
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig
from nats.js.kv import KeyValue

import trionats
from trionats import bridge
from trionats._bridge.connection import _carriers
from trionats._bridge.loop import loop_here
from trionats.bridge import aio_as_trio
from trionats.testing import NatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    import nats.aio.client

    from trionats import Feed


class Client:
    """nats-py's client under the names of ours, for as much as tests/test_promise.py uses."""

    def __init__(self, nc: nats.aio.client.Client) -> None:
        self.nats_py = nc
        self.loop = loop_here()

    async def flush(self) -> None:
        # Shared by tasks from outside the block, whose context has no loop.
        await aio_as_trio(self.nats_py.flush, loop=self.loop)()

    async def aclose(self) -> None:
        await aio_as_trio(self.nats_py.close, loop=self.loop)()

    async def drain(self) -> None:
        await aio_as_trio(self.nats_py.drain, loop=self.loop)()

    def cut(self) -> None:
        """Lose the connection, as when a router forgets it."""
        transport: Any = self.nats_py._transport
        transport._io_writer.transport.abort()

    @property
    def is_connected(self) -> bool:
        return self.nats_py.is_connected

    @property
    def is_closed(self) -> bool:
        return self.nats_py.is_closed

    def statistics(self) -> SimpleNamespace:
        connection = _carriers.get(self.nats_py)
        return SimpleNamespace(
            feeds=tuple(attachment.subject for attachment in connection._attached) if connection else (),
            reconnects=self.nats_py.stats["reconnects"],
        )

    def asyncio_tasks(self) -> int:
        return len(asyncio.all_tasks(self.loop))


@dataclass
class World:
    """A client of nats-py, and what it is connected to; for its fields see tests/test_promise.py."""

    background: trio.Nursery
    nc: Client
    server: NatsServer
    make: Callable[[int], Awaitable[None]]
    open: Callable[..., AbstractAsyncContextManager[Feed[Any]]]
    lose: Callable[[], None]
    blink: Callable[[], None] | None = None

    @asynccontextmanager
    async def opened(self, nursery: trio.Nursery) -> AsyncIterator[Feed[Any]]:
        async with self.open(nursery) as rx:
            await self.nc.flush()
            yield rx

    async def fill(self, feed: Feed[Any], first: int = 1, last: int = 3) -> None:
        before = len(feed)
        for number in range(first, last + 1):
            await self.make(number)
        with trio.fail_after(10):
            while len(feed) < before + last - first + 1:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.001)


def number_of(item: Any) -> int:  # noqa: ANN401 - of any kind
    """Say which item it is, of those that `World.make` makes."""
    if isinstance(item, Msg):
        return int(item.data)
    return int(item.key) if isinstance(item, KeyValue.Entry) else int(item.name)


@asynccontextmanager
async def client(**options: object) -> AsyncIterator[tuple[NatsServer, trio.Nursery, Client]]:
    """Connect nats-py's client to a server of its own."""

    async def quiet(_: Exception) -> None:
        pass

    options = {"reconnect_time_wait": 0.01, "error_cb": quiet} | options
    with NatsServer(jetstream=True) as server:
        async with trio.open_nursery() as background, bridge.open_nats_py(background, server.url, **options) as nc:
            yield server, background, Client(nc)


@asynccontextmanager
async def subscription(**options: object) -> AsyncIterator[World]:
    async with client(**options) as (server, background, nc):

        async def make(number: int) -> None:
            await aio_as_trio(nc.nats_py.publish, loop=nc.loop)("promise.kept", b"%d" % number)

        yield World(
            background=background,
            nc=nc,
            server=server,
            make=make,
            open=lambda nursery, **how: bridge.open_subscription(nursery, nc.nats_py, "promise.*", **how),
            lose=server.kill,
            blink=nc.cut,
        )


@asynccontextmanager
async def pull_subscription(**options: object) -> AsyncIterator[World]:
    async with client(**options) as (server, background, nc):
        js = nc.nats_py.jetstream()
        await aio_as_trio(js.add_stream)(name="PROMISE", subjects=["promise.*"])
        config = ConsumerConfig(max_ack_pending=10_000)  # nobody acknowledges
        psub = await aio_as_trio(js.pull_subscribe)("promise.*", durable="keeper", config=config)
        # nats-py only queues its SUB, and who counts the server's subscriptions before and after should not see it come.
        await aio_as_trio(nc.nats_py.flush)()

        async def make(number: int) -> None:
            await aio_as_trio(js.publish, loop=nc.loop)("promise.kept", b"%d" % number)

        yield World(
            background=background,
            nc=nc,
            server=server,
            make=make,
            open=lambda nursery: bridge.open_pull_subscription(nursery, psub),
            lose=server.kill,
            blink=nc.cut,
        )


@asynccontextmanager
async def object_watcher(**options: object) -> AsyncIterator[World]:
    async with client(**options) as (server, background, nc):
        store = await aio_as_trio(nc.nats_py.jetstream().create_object_store)("promise")

        async def make(number: int) -> None:
            await aio_as_trio(store.put, loop=nc.loop)(str(number), b"")

        yield World(
            background=background,
            nc=nc,
            server=server,
            make=make,
            open=lambda nursery: trionats.open_watcher(nursery, store),
            lose=server.kill,
            blink=nc.cut,
        )


@asynccontextmanager
async def key_watcher(**options: object) -> AsyncIterator[World]:
    async with client(**options) as (server, background, nc):
        bucket = await aio_as_trio(nc.nats_py.jetstream().create_key_value)(bucket="promise")

        async def make(number: int) -> None:
            await aio_as_trio(bucket.put, loop=nc.loop)(str(number), b"")

        yield World(
            background=background,
            nc=nc,
            server=server,
            make=make,
            open=lambda nursery: trionats.open_watcher(nursery, bucket),
            lose=server.kill,
            blink=nc.cut,
        )


#: For tests/test_promise.py: every one of them talks to a real server.
KINDS = {
    "bridged subscription": subscription,
    "bridged pull subscription": pull_subscription,
    "bridged object watcher": object_watcher,
    "bridged key watcher": key_watcher,
}
