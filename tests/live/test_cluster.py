"""Three servers that know each other: discovery, and a rolling restart that nobody notices."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trionats import api, errors, events, open_client, open_events, open_subscription
from trionats.testing import NatsServer, TrioNatsServer
from trionats.testing._server import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trionats import Client, Events

# The shortest that the server takes: it sends its clients away after a second, and ends when they are gone.
LAME_DUCK = 'lame_duck_grace_period: "1s"\nlame_duck_duration: "31s"\n'
NODES = ("n1", "n2", "n3")
ROUNDS = 3 if os.environ.get("TRIONATS_SLOW") else 1

pytestmark = [pytest.mark.live(seconds=120), pytest.mark.usefixtures("server_executable")]


class Cluster:
    """Three servers, on ports that they keep."""

    def __init__(self, config: str = "", *, jetstream: bool = False) -> None:
        self.routes = {name: free_port() for name in NODES}
        self.servers: dict[str, TrioNatsServer] = {}
        self._config, self._jetstream = config, jetstream

    def make(self, name: str) -> TrioNatsServer:
        routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in self.routes.values())
        cluster = f"cluster {{ name: c, listen: 127.0.0.1:{self.routes[name]}, routes: [{routes}] }}\n"
        server = TrioNatsServer(NatsServer(LAME_DUCK + self._config + cluster, name=name, jetstream=self._jetstream))
        self.servers[name] = server
        return server

    def node(self, nc: Client) -> TrioNatsServer:
        """The server that a client is connected to."""
        return self.servers[nc.server_name]

    async def ready(self) -> None:
        """Wait until all servers that run know each other."""
        running = [server for server in self.servers.values() if server.running]
        for server in running:
            while len({r["remote_name"] for r in (await server.monitor("routez"))["routes"]}) < len(running) - 1:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.02)

    async def hear_of(self, subject: str) -> None:
        """Wait until each server that runs knows somebody who is subscribed: a client of its own, or a neighbour."""
        for server in [server for server in self.servers.values() if server.running]:
            while subject not in await server.subscriptions():
                routes = (await server.monitor("routez?subs=1"))["routes"]
                if any(subject in (route.get("subscriptions_list") or ()) for route in routes):
                    break
                await trio.sleep(0.02)

    async def knows(self, server: TrioNatsServer, neighbour: str, subject: str) -> bool:
        """Say whether a server knows that somebody at a neighbour's is subscribed."""
        routes = (await server.monitor("routez?subs=1"))["routes"]
        return any(r["remote_name"] == neighbour and subject in (r.get("subscriptions_list") or ()) for r in routes)

    async def roll(self, server: TrioNatsServer) -> None:
        """Restart one server as an operator would: lame duck, end, start, wait until it is whole."""
        server.lame_duck()
        while server.running:  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.02)
        await server.stop()  # what is left of it
        await server.start()
        await self.ready()


@asynccontextmanager
async def open_cluster(config: str = "", *, jetstream: bool = False) -> AsyncIterator[Cluster]:
    cluster = Cluster(config, jetstream=jetstream)
    async with AsyncExitStack() as stack:
        for name in NODES:
            server = cluster.make(name)
            stack.callback(server.server.close)
            await server.start()
        await cluster.ready()
        yield cluster


async def answer(nc: Client, answered: dict[bytes, int], nursery: trio.Nursery, queue: str = "busy") -> None:
    async with open_subscription(nursery, nc, "work", queue=queue) as requests:
        async for request in requests:
            answered[request.data] = answered.get(request.data, 0) + 1
            await request.respond(request.data)


async def collect(rx: Events, seen: list[events.ConnectionEvent]) -> None:
    async for event in rx:
        seen.append(event)  # noqa: PERF401 - kept when this is cancelled


async def test_c21_a_rolling_restart_fails_no_request() -> None:
    """Each server once (or more often, see ROUNDS), with a request loop running and the responder a queue member."""
    answered: dict[bytes, int] = {}
    asked = 0
    seen: list[events.ConnectionEvent] = []
    async with open_cluster() as cluster, trio.open_nursery() as nursery:
        urls = [server.url for server in cluster.servers.values()]
        async with (
            open_client(nursery, urls) as asking,
            open_client(nursery, urls) as answering,
            open_client(nursery, urls) as helping,
            open_events(nursery, asking) as rx,
            trio.open_nursery() as workers,
        ):
            workers.start_soon(collect, rx, seen)
            for nc in (answering, helping):
                workers.start_soon(answer, nc, answered, nursery)
            await trio.testing.wait_all_tasks_blocked()
            await answering.flush()
            await helping.flush()
            await cluster.hear_of("work")
            restarted = trio.Event()

            async def restart() -> None:
                for server in list(cluster.servers.values()) * ROUNDS:
                    before = len(answered)
                    await cluster.roll(server)
                    assert len(answered) > before, "requests went on meanwhile"
                restarted.set()

            workers.start_soon(restart)
            while not restarted.is_set():
                number = b"%d" % asked
                asked += 1
                assert (await asking.request("work", number)).data == number
                await trio.sleep(0.001)
            workers.cancel_scope.cancel()
            total = asking.statistics().reconnects + answering.statistics().reconnects
            assert total == 0, "a move is no reconnect"
    assert set(answered.values()) == {1}
    assert len(answered) == asked
    assert sum(isinstance(event, events.Moved) for event in seen) >= 1
    assert not [event for event in seen if isinstance(event, (events.Disconnected, events.PublishesLost))]


async def test_c15_servers_are_discovered_and_pruned() -> None:
    """Those that are told of get the credentials of the one that told, and go when nobody tells of them any more."""
    users = "authorization { user: u, password: s3cret }\n"
    async with open_cluster(users) as cluster, trio.open_nursery() as nursery:
        first, second, third = cluster.servers.values()
        where = first.url.removeprefix("nats://")
        async with (
            open_client(nursery, f"nats://u:s3cret@{where}") as nc,
            open_events(nursery, nc) as rx,
        ):
            others = {second.url, third.url}
            with trio.fail_after(5):
                while set(nc.discovered_servers) != others:  # noqa: ASYNC110 - nothing tells of it
                    await trio.sleep(0.02)
            assert set(nc.servers) == {first.url, *others}
            assert "s3cret" not in repr(nc.servers)
            await third.stop()
            with trio.fail_after(5):
                while nc.discovered_servers != (second.url,):  # noqa: ASYNC110 - nothing tells of it
                    await trio.sleep(0.02)
            await first.kill()
            with trio.fail_after(5):
                async for event in rx:
                    if isinstance(event, events.Reconnected):
                        break
            assert nc.connected_url == second.url
            await nc.flush()
            await third.start()
            with trio.fail_after(5):
                while third.url not in nc.servers:  # noqa: ASYNC110 - nothing tells of it
                    await trio.sleep(0.02)
            assert first.url in nc.servers, "it was given, so it stays"


async def test_discovery_can_be_switched_off() -> None:
    async with open_cluster() as cluster, trio.open_nursery() as nursery:
        url = cluster.servers["n1"].url
        async with open_client(nursery, url, ignore_discovered_servers=True) as nc:
            await nc.flush()
            assert nc.servers == (url,)
            assert nc.discovered_servers == ()


async def test_plain_subscriptions_hear_nothing_twice_through_a_rolling_restart() -> None:
    got: list[int] = []
    async with open_cluster() as cluster, trio.open_nursery() as nursery:
        urls = [server.url for server in cluster.servers.values()]
        async with (
            open_client(nursery, urls[:1], ignore_discovered_servers=True) as publishing,
            open_client(nursery, urls[1:], ignore_discovered_servers=True) as hearing,
            open_subscription(nursery, hearing, "n") as feed,
            trio.open_nursery() as workers,
        ):

            async def hear() -> None:
                async for msg in feed:
                    got.append(int(msg.data))  # noqa: PERF401 - kept when this is cancelled

            workers.start_soon(hear)
            await hearing.flush()
            await cluster.hear_of("n")
            rolled = trio.Event()
            number = 0
            told: list[int] = []

            async def roll() -> None:
                left = cluster.node(hearing)
                workers.start_soon(hear_of_the_move, left)
                await cluster.roll(left)
                rolled.set()

            async def hear_of_the_move(left: TrioNatsServer) -> None:
                while cluster.node(hearing) is left:  # noqa: ASYNC110 - nothing tells of it
                    await trio.sleep(0.001)
                while not await cluster.knows(cluster.node(publishing), hearing.server_name, "n"):  # noqa: ASYNC110 - nor of that
                    await trio.sleep(0.001)
                told.append(number)

            workers.start_soon(roll)
            while not (rolled.is_set() and told):
                await publishing.publish("n", b"%d" % number)
                number += 1
                await trio.sleep(0.001)
            await publishing.publish("n", b"%d" % number)
            with trio.fail_after(10):
                while got[-1] != number:  # noqa: ASYNC110 - counted by another task
                    await trio.sleep(0.01)
            workers.cancel_scope.cancel()
    assert got == sorted(set(got)), "none twice, and in order"
    # At most once: what came between the old server's goodbye and the news of the new one is missing, and nothing else.
    missing = sorted(set(range(number)) - set(got))
    assert missing == list(range(missing[0], missing[-1] + 1)) if missing else True
    assert not missing or missing[-1] < told[0]


# -- streams of three replicas -----------------------------------------------------------------------------------------


async def make_stream(nc: Client) -> None:
    """Make a stream of three replicas, as soon as the cluster has somebody who can."""
    while True:
        try:
            with trio.move_on_after(1):
                await nc.jetstream().add_stream(name="S", subjects=["s.>"], num_replicas=3)
                return
        except errors.Error:
            await trio.sleep(0.1)


async def test_a_publish_that_is_repeated_is_stored_once_whatever_it_expects() -> None:
    """A stream of three replicas says that the first is under way (10158), where one of one replica says duplicate."""
    async with (
        open_cluster(jetstream=True) as cluster,
        trio.open_nursery() as nursery,
        open_client(nursery, cluster.servers["n1"].url) as nc,
    ):
        await make_stream(nc)
        js = nc.jetstream()
        acks: dict[int, list[api.PubAck]] = {}

        async def publish(number: int) -> None:
            ack = await js.publish(f"s.{number}", b"x", msg_id=f"id{number}", expected_last_subject_sequence=0)
            acks.setdefault(number, []).append(ack)

        with trio.fail_after(60):
            async with trio.open_nursery() as publishers:
                for number in range(50):
                    for _ in range(3):
                        publishers.start_soon(publish, number)
        assert (await js.stream_info("S")).state.messages == 50
        for found in acks.values():
            assert len({ack.seq for ack in found}) == 1
            assert sorted(bool(ack.duplicate) for ack in found) == [False, True, True]
