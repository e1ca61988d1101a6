"""The worlds of tests/test_promise.py, and those with the bridge's feeds: nats-py's client against a real server.

There `World.nc` is a stand-in with what that file asks of a client.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig
from nats.js.kv import KeyValue

import trionats
from tests.worlds import until
from trionats import bridge
from trionats._bridge.connection import connection_of
from trionats._bridge.loop import loop_here
from trionats.bridge import aio_as_trio
from trionats.testing import NatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    import nats.aio.client

    from trionats import Feed

    Make: TypeAlias = Callable[[int], Awaitable[object]]
    Open: TypeAlias = Callable[..., AbstractAsyncContextManager[Feed[Any]]]


class Client:
    """nats-py's client under the names of ours, for as much as tests/test_promise.py uses."""

    def __init__(self, nc: nats.aio.client.Client) -> None:
        self.nats_py = nc
        self.loop = loop_here()
        self.connection = connection_of(nc, "tests")

    async def call(self, function: Callable[..., Awaitable[Any]], *args: object) -> Any:  # noqa: ANN401 - nats-py's
        # Also from tasks outside the block, whose context has no loop.
        return await aio_as_trio(function, loop=self.loop)(*args)

    async def flush(self) -> None:
        await self.call(self.nats_py.flush)

    async def aclose(self) -> None:
        await self.call(self.nats_py.close)

    async def drain(self) -> None:
        await self.call(self.nats_py.drain)

    def cut(self) -> None:
        cut(self.nats_py)

    @property
    def is_connected(self) -> bool:
        return self.nats_py.is_connected

    @property
    def is_closed(self) -> bool:
        return self.nats_py.is_closed

    def statistics(self) -> SimpleNamespace:
        feeds = tuple(feed.name for feed in self.connection.feeds)
        return SimpleNamespace(feeds=feeds, reconnects=self.nats_py.stats["reconnects"])


def cut(nc: nats.aio.client.Client) -> None:
    """Lose the connection, as when a router forgets it."""
    transport: Any = nc._transport
    transport._io_writer.transport.abort()


async def ignore(_: Exception) -> None:
    """Say nothing of errors: nats-py logs them where nobody else does."""


@dataclass
class World:
    """A client, of ours or of nats-py, and what it is connected to."""

    nc: Any
    make: Make
    open: Open
    """Takes the nursery, and for subscriptions their options."""
    lose: Callable[[], object]
    """Lose the server; the client was told not to reconnect."""
    blink: Callable[[], object]
    """Lose the connection, with the server in its place."""
    server: NatsServer | None = None

    @asynccontextmanager
    async def opened(self, nursery: trio.Nursery) -> AsyncIterator[Feed[Any]]:
        """Open the feed, and see to it that the server knows."""
        async with self.open(nursery) as rx:
            await self.nc.flush()
            yield rx

    async def fill(self, feed: Feed[Any], first: int = 1, last: int = 3) -> None:
        """Make items, and wait until the feed has them buffered."""
        there = len(feed) + last - first + 1
        for number in range(first, last + 1):
            await self.make(number)
        await until(lambda: len(feed) >= there)


def number_of(item: Any) -> int:  # noqa: ANN401 - of any kind
    """Say which item it is, of those that `World.make` makes."""
    if isinstance(item, (Msg, trionats.Msg, trionats.ServiceRequest)):
        return int(item.data)
    if isinstance(item, trionats.advisories.StreamAction):
        return int(item.stream)
    keyed = isinstance(item, (KeyValue.Entry, trionats.api.KeyValueEntry))
    return int(item.key if keyed else item.name)


async def subscription(nc: Client) -> tuple[Make, Open]:
    async def make(number: int) -> None:
        await nc.call(nc.nats_py.publish, "promise.kept", b"%d" % number)

    return make, lambda nursery, **how: bridge.open_subscription(nursery, nc.nats_py, "promise.*", **how)


async def pull_subscription(nc: Client) -> tuple[Make, Open]:
    js = nc.nats_py.jetstream()
    await aio_as_trio(js.add_stream)(name="PROMISE", subjects=["promise.*"])
    config = ConsumerConfig(max_ack_pending=10_000)  # nobody acknowledges
    psub = await aio_as_trio(js.pull_subscribe)("promise.*", durable="keeper", config=config)
    # nats-py only queues its SUB, and who counts the server's subscriptions before and after should not see it come.
    await nc.flush()

    async def make(number: int) -> None:
        await nc.call(js.publish, "promise.kept", b"%d" % number)

    return make, lambda nursery: bridge.open_pull_subscription(nursery, psub)


async def object_watcher(nc: Client) -> tuple[Make, Open]:
    store = await aio_as_trio(nc.nats_py.jetstream().create_object_store)("promise")
    return lambda number: nc.call(store.put, str(number), b""), lambda nursery: trionats.open_watcher(nursery, store)


async def key_watcher(nc: Client) -> tuple[Make, Open]:
    bucket = await aio_as_trio(nc.nats_py.jetstream().create_key_value)(bucket="promise")
    return lambda number: nc.call(bucket.put, str(number), b""), lambda nursery: trionats.open_watcher(nursery, bucket)


@asynccontextmanager
async def open_world(kind: Callable[[Client], Awaitable[tuple[Make, Open]]], **options: object) -> AsyncIterator[World]:
    """Connect nats-py's client to a server of its own, and make what a kind of feed reads."""
    options = {"reconnect_time_wait": 0.01, "error_cb": ignore} | options
    with NatsServer(jetstream=True) as server:
        async with trio.open_nursery() as background, bridge.open_nats_py(background, server.url, **options) as theirs:
            nc = Client(theirs)
            make, open_ = await kind(nc)
            yield World(nc, make, open_, server.kill, nc.cut, server)


#: For tests/test_promise.py: every one of them talks to a real server.
KINDS = {
    "bridged subscription": partial(open_world, subscription),
    "bridged pull subscription": partial(open_world, pull_subscription),
    "bridged object watcher": partial(open_world, object_watcher),
    "bridged key watcher": partial(open_world, key_watcher),
}
