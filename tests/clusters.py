"""Three servers that know each other, and what goes on while they are restarted one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar, overload

import trio

from tests.worlds import collect, until
from trionats import Client, errors, events, open_client, open_events, open_subscription
from trionats.testing import NatsServer, TrioNatsServer
from trionats.testing._server import free_port

# The shortest that the server takes: it sends its clients away after a second, and ends when they are gone.
LAME_DUCK = 'lame_duck_grace_period: "1s"\nlame_duck_duration: "31s"\n'
NODES = ("n1", "n2", "n3")

C = TypeVar("C", bound="Cluster")


class Cluster:
    """Three servers, on ports that they keep.

    Args:
        config: More of their configuration.
        jetstream: Whether they have JetStream.
    """

    def __init__(self, config: str = "", *, jetstream: bool = False) -> None:
        self.routes = {name: free_port() for name in NODES}
        self.servers: dict[str, TrioNatsServer] = {}
        self._config, self._jetstream = config, jetstream

    def config(self, name: str) -> str:
        """Write what makes one of them a member."""
        routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in self.routes.values())
        return f"{LAME_DUCK}cluster {{ name: c, listen: 127.0.0.1:{self.routes[name]}, routes: [{routes}] }}\n"

    def make(self, name: str) -> TrioNatsServer:
        """Make one of them, and do not start it."""
        config = self._config + self.config(name)
        self.servers[name] = TrioNatsServer(NatsServer(config, name=name, jetstream=self._jetstream))
        return self.servers[name]

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers.values()]

    @property
    def running(self) -> list[TrioNatsServer]:
        return [server for server in self.servers.values() if server.running]

    def node(self, nc: Client) -> TrioNatsServer:
        """The server that a client is connected to."""
        return self.servers[nc.server_name]

    async def ready(self) -> None:
        """Wait until all servers that run know each other."""

        async def knows_all(server: TrioNatsServer) -> bool:
            routes = (await server.monitor("routez"))["routes"]
            return len({route["remote_name"] for route in routes}) >= len(self.running) - 1

        for server in self.running:
            await until(partial(knows_all, server), within=60, pause=0.02)

    async def hear_of(self, subject: str) -> None:
        """Wait until each server that runs knows somebody who is subscribed: a client of its own, or a neighbour."""

        async def heard(server: TrioNatsServer) -> bool:
            routes = (await server.monitor("routez?subs=1"))["routes"]
            told = any(subject in (route.get("subscriptions_list") or ()) for route in routes)
            return told or subject in await server.subscriptions()

        for server in self.running:
            await until(partial(heard, server), within=60, pause=0.02)

    async def knows(self, server: TrioNatsServer, neighbour: str, subject: str) -> bool:
        """Say whether a server knows that somebody at a neighbour's is subscribed."""
        routes = (await server.monitor("routez?subs=1"))["routes"]
        return any(r["remote_name"] == neighbour and subject in (r.get("subscriptions_list") or ()) for r in routes)

    async def roll(self, server: TrioNatsServer) -> None:
        """Restart one server as an operator would: lame duck, end, start, wait until it is whole."""
        server.lame_duck()
        await until(lambda: not server.running, within=60, pause=0.02)
        await server.stop()  # what is left of it
        await server.start()
        await self.ready()


@overload
def open_cluster(cluster: C) -> AbstractAsyncContextManager[C]: ...


@overload
def open_cluster(cluster: str = "", *, jetstream: bool = False) -> AbstractAsyncContextManager[Cluster]: ...


@asynccontextmanager
async def open_cluster(cluster: Any = "", *, jetstream: bool = False) -> AsyncIterator[Any]:
    """Start a cluster, or one of that configuration."""
    if isinstance(cluster, str):
        cluster = Cluster(cluster, jetstream=jetstream)
    async with AsyncExitStack() as stack:
        for name in NODES:
            server = cluster.make(name)
            stack.callback(server.server.close)
            await server.start()
        await cluster.ready()
        yield cluster


async def make_replicated_stream(nc: Client, subject: str = "s.>") -> None:
    """Make a stream "S" of three replicas, as soon as the cluster has somebody who can."""
    while True:
        try:
            with trio.move_on_after(1):
                await nc.jetstream().add_stream(name="S", subjects=[subject], num_replicas=3)
                return
        except errors.Error:
            await trio.sleep(0.1)


async def no_request_fails_while(
    restart: Callable[[Client, Callable[[], int]], Awaitable[None]],
    cluster: Cluster,
    urls: str | list[str],
    **options: Any,  # noqa: ANN401 - any option
) -> int:
    """Ask, with two members of a queue that answer, while servers are restarted; see that each request is answered once.

    Args:
        restart: Restarts them, given the client that asks, and what says how many answers there were so far.
        cluster: The servers.
        urls: Where the clients connect.
        options: Those of `open_client`.

    Returns:
        How often the client that asks has moved.
    """
    answered: dict[bytes, int] = {}
    asked = 0
    seen: list[events.ConnectionEvent] = []
    over = trio.Event()

    async def answer(nc: Client) -> None:
        async with open_subscription(nursery, nc, "work", queue="busy") as requests:
            async for request in requests:
                answered[request.data] = answered.get(request.data, 0) + 1
                await request.respond(request.data)

    async def restart_all() -> None:
        await restart(asking, lambda: len(answered))
        over.set()

    async with trio.open_nursery() as nursery:
        async with (
            open_client(nursery, urls, **options) as asking,
            open_client(nursery, urls, **options) as answering,
            open_client(nursery, urls, **options) as helping,
            open_events(nursery, asking) as told,
            trio.open_nursery() as workers,
        ):
            workers.start_soon(collect, told, seen)
            workers.start_soon(answer, answering)
            workers.start_soon(answer, helping)
            await cluster.hear_of("work")
            workers.start_soon(restart_all)
            while not over.is_set():
                number = b"%d" % asked
                asked += 1
                assert (await asking.request("work", number)).data == number
                await trio.sleep(0.001)
            workers.cancel_scope.cancel()
        reconnects = [nc.statistics().reconnects for nc in (asking, answering, helping)]
    assert reconnects == [0, 0, 0], "a move is no reconnect"
    assert set(answered.values()) == {1}
    assert len(answered) == asked
    assert not [event for event in seen if isinstance(event, (events.Disconnected, events.PublishesLost))]
    return sum(isinstance(event, events.Moved) for event in seen)
