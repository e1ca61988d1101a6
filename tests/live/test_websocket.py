"""WebSockets to real servers: in clear, compressed and over TLS, through restarts and from one server to the next."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.certificates import Authority
from tests.keys import House
from tests.worlds import connected, next_event, open_world, refusal, until, watched
from trionats import Client, errors, open_subscription
from trionats.events import Disconnected, Reconnected, ServersDiscovered
from trionats.testing import TrioNatsServer, open_server
from trionats.testing._server import free_port

SIZES = (0, 1, 63, 64, 125, 126, 65_535, 65_536, 1_048_576)


@asynccontextmanager
async def serving(
    more: str = "no_tls: true", besides: str = "", name: str = "ws"
) -> AsyncIterator[tuple[TrioNatsServer, str]]:
    """Run a server with a WebSocket listener; gives where that is, behind the scheme."""
    port = free_port()
    config = f'websocket {{ listen: "127.0.0.1:{port}", {more} }}\n{besides}'
    async with open_server(config, name=name) as server:
        yield server, f"127.0.0.1:{port}"


async def exchange(nc: Client) -> None:
    """See messages of all sizes that a frame's header knows through, with headers and without."""
    async with trio.open_nursery() as nursery, open_subscription(nursery, nc, "greet") as rx:
        for size in SIZES:
            payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            await nc.publish("greet", payload)
            assert (await rx.receive()).data == payload
        await nc.publish("greet", b"y", headers={"A": "b"})
        assert (await rx.receive()).headers["A"] == "b"
        many = 5000

        async def publish() -> None:
            for number in range(many):
                await nc.publish("greet", b"%d" % number)

        nursery.start_soon(publish)
        for number in range(many):
            assert (await rx.receive()).data == b"%d" % number


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_messages_of_all_sizes_before_and_after_a_restart(compression: bool, kill: bool) -> None:
    options: dict[str, Any] = {"ws_compression": compression, "reconnect_time_wait": 0.05}
    async with (
        serving("no_tls: true, compression: true") as (server, where),
        watched(server, f"ws://{where}", **options) as (_, nc, rx),
    ):
        assert nc.connected_url == f"ws://{where}"
        await exchange(nc)
        await server.restart(kill=kill)
        await next_event(rx, Reconnected)
        await exchange(nc)
        assert nc.tls is None


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
async def test_wss(compression: bool, authority: Authority) -> None:
    options: dict[str, Any] = {"ws_compression": compression, "reconnect_time_wait": 0.05}
    account = "authorization { user: u, password: s3cret }\n"
    async with serving(f"compression: true, {authority.config('localhost')}", account) as (server, where):
        there = f"wss://u:s3cret@{where}"
        here = there.replace("127.0.0.1", "localhost")
        async with watched(server, here, tls=authority.trusting(), **options) as (_, nc, rx):
            assert nc.tls is not None
            await exchange(nc)
            await server.restart(kill=True)
            await next_event(rx, Reconnected)
            await exchange(nc)
        error = await refusal(here, **options)
        assert isinstance(error, errors.SecureConnFailedError)
        assert re.match(r"wss://localhost.*its certificate is not accepted", str(error))
        error = await refusal(there, tls=authority.trusting(), **options)
        assert isinstance(error, errors.SecureConnFailedError)
        assert "IP address mismatch" in str(error)


async def test_wss_to_an_absolute_name(authority: Authority) -> None:

    async def dial(host: str, port: int) -> trio.abc.Stream:
        assert host == "nats.example."  # for the resolver
        return await trio.open_tcp_stream("127.0.0.1", port)

    async with serving(authority.config("nats.example")) as (server, where):
        url = f"wss://nats.example.:{where.rpartition(':')[2]}"
        async with connected(server, url, tls=authority.trusting(), dial=dial) as nc:
            await nc.flush()


@pytest.mark.parametrize("max_payload", [64, 300, 1024])
async def test_compressed_messages_stay_below_what_the_server_unpacks(max_payload: int) -> None:
    options: dict[str, Any] = {"ws_compression": True, "allow_reconnect": False}
    async with (
        serving("no_tls: true, compression: true", f"max_payload: {max_payload}\n") as (server, where),
        open_world(server, f"ws://{where}", **options) as (_, nc, nursery),
        open_subscription(nursery, nc, "greet") as rx,
    ):
        for _ in range(500):
            await nc.publish("greet", b"x" * max_payload)
        for _ in range(500):
            assert len((await rx.receive()).data) == max_payload


async def test_path_and_headers_reach_whoever_listens() -> None:
    """A proxy in between sees them; the server behind it takes any path."""
    requests: list[bytes] = []
    calls: list[int] = []

    async def serve(client: trio.SocketStream) -> None:
        upstream = await trio.open_tcp_stream("127.0.0.1", int(where.rpartition(":")[2]))
        async with client, upstream, trio.open_nursery() as pumps:

            async def pump(source: trio.SocketStream, sink: trio.SocketStream, keep: bool) -> None:
                async for data in source:
                    if keep and data.startswith(b"GET "):
                        requests.append(bytes(data))
                    await sink.send_all(data)
                pumps.cancel_scope.cancel()

            pumps.start_soon(pump, client, upstream, True)
            pumps.start_soon(pump, upstream, client, False)

    async def headers() -> dict[str, str | list[str]]:
        await trio.lowlevel.checkpoint()
        calls.append(1)
        return {"X-Ticket": f"t{len(calls)}", "X-Two": ["1", "2"]}

    async with serving() as (server, where), trio.open_nursery() as proxy:
        listeners = await proxy.start(trio.serve_tcp, serve, 0)
        there = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/nats/ws?x=1"
        for _ in range(2):
            async with connected(server, there, ws_connection_headers=headers) as nc:
                await nc.flush()
        proxy.cancel_scope.cancel()
    assert [request.split(b"\r\n")[0] for request in requests] == [b"GET /nats/ws?x=1 HTTP/1.1"] * 2
    assert b"\r\nX-Ticket: t1\r\n" in requests[0]
    assert b"\r\nX-Ticket: t2\r\n" in requests[1]
    assert requests[0].count(b"X-Two: ") == 2


async def test_the_server_is_told_when_the_client_goes() -> None:
    async with serving() as (server, where):
        async with connected(server, f"ws://{where}", name="leaver") as nc:
            await nc.flush()

        async def has_gone() -> bool:
            # The server files the reason in a goroutine of its own, perhaps after it has forgotten the connection.
            return not await server.connections("leaver") and bool(await reasons_of(server, "leaver"))

        await until(has_gone, within=5, pause=0.01)
        assert await reasons_of(server, "leaver") == ["Client Closed"]


async def reasons_of(server: TrioNatsServer, name: str) -> list[str]:
    closed = (await server.monitor("connz?state=closed"))["connections"]
    return [entry["reason"] for entry in closed if entry.get("name") == name]


async def test_a_shutdown_is_told_with_its_code_and_in_the_servers_words() -> None:
    async with serving() as (server, where), watched(server, f"ws://{where}", allow_reconnect=False) as (_, _, rx):
        await server.stop()
        told = await next_event(rx, Disconnected)
    assert (told.close_code, told.close_reason) == (1001, "Server Shutdown")
    assert "WebSocket close 1001: Server Shutdown" in str(told.reason)


async def test_an_expired_jwt_is_told_with_the_code_of_the_close_frame() -> None:
    house = House()
    creds = house.user(expires=time.time() + 2).creds.encode()
    async with (
        serving(besides=house.config) as (server, where),
        watched(server, f"ws://{where}", allow_reconnect=False, user_credentials=creds) as (_, _, rx),
    ):
        told = await next_event(rx, Disconnected)
    # What the server said before its close frame is the better reason.
    assert isinstance(told.reason, errors.AuthorizationError)
    assert "the server says: User Authentication Expired" in str(told.reason)
    assert told.close_code == 1008


async def test_a_server_that_speaks_no_websocket_is_named() -> None:
    async with open_server() as server:
        error = await refusal(server.url.replace("nats://", "ws://"))
        assert isinstance(error, errors.ProtocolError)
        assert "did not become a WebSocket: what it answers is no HTTP" in str(error)


async def test_discovered_servers_keep_the_scheme() -> None:
    route = free_port()
    cluster = 'cluster {{ name: C, listen: "127.0.0.1:{}", routes: [{}] }}\n'
    async with (
        serving(besides=cluster.format(route, ""), name="one") as (one, where),
        watched(one, f"ws://{where}", reconnect_time_wait=0.05) as (_, nc, rx),
        serving(besides=cluster.format(-1, f'"nats://127.0.0.1:{route}"'), name="two") as (_, elsewhere),
    ):
        while f"ws://{elsewhere}" not in (await next_event(rx, ServersDiscovered)).servers:
            pass
        await one.stop()
        await next_event(rx, Reconnected)
        assert nc.connected_url == f"ws://{elsewhere}"
        await nc.flush()
