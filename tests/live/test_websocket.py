"""WebSockets to real servers: in clear, compressed and over TLS, through restarts and from one server to the next."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

import trionats
from tests.certificates import Authority
from tests.keys import House
from trionats import errors, events
from trionats.testing import open_server
from trionats.testing._server import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from trionats.testing import TrioNatsServer

SIZES = (0, 1, 63, 64, 125, 126, 65_535, 65_536, 1_048_576)


def config(port: int, more: str = "no_tls: true") -> str:
    return f'websocket {{ listen: "127.0.0.1:{port}", {more} }}\n'


async def exchange(nursery: trio.Nursery, nc: trionats.Client) -> None:
    """See messages of all sizes that a frame's header knows through, with headers and without."""
    async with trionats.open_subscription(nursery, nc, "greet") as rx:
        for size in SIZES:
            payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            await nc.publish("greet", payload)
            assert (await rx.receive()).data == payload
        await nc.publish("greet", b"y", headers={"A": "b"})
        assert (await rx.receive()).headers["A"] == "b"
        many = 5000
        async with trio.open_nursery() as workers:

            async def publish() -> None:
                for number in range(many):
                    await nc.publish("greet", b"%d" % number)

            workers.start_soon(publish)
            for number in range(many):
                assert (await rx.receive()).data == b"%d" % number


async def reconnected(rx: trionats.Events) -> None:
    async for event in rx:
        if isinstance(event, events.Reconnected):
            return


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_messages_of_all_sizes_before_and_after_a_restart(
    compression: bool, kill: bool, nursery: trio.Nursery
) -> None:
    port = free_port()
    async with (
        open_server(config(port, "no_tls: true, compression: true")) as server,
        trionats.open_client(
            nursery, f"ws://127.0.0.1:{port}", ws_compression=compression, reconnect_time_wait=0.05
        ) as nc,
        trionats.open_events(nursery, nc) as rx,
    ):
        assert nc.connected_url == f"ws://127.0.0.1:{port}"
        await exchange(nursery, nc)
        await server.restart(kill=kill)
        await reconnected(rx)
        await exchange(nursery, nc)
        assert nc.tls is None


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
async def test_wss(compression: bool, tmp_path: Path, nursery: trio.Nursery) -> None:
    authority = Authority(tmp_path)
    port = free_port()
    secured = config(port, f"compression: true, {authority.config('localhost')}")
    options: dict[str, Any] = {"ws_compression": compression, "reconnect_time_wait": 0.05}
    async with open_server(secured + "authorization { user: u, password: s3cret }\n") as server:
        where = f"wss://u:s3cret@localhost:{port}"
        async with (
            trionats.open_client(nursery, where, tls=authority.trusting(), **options) as nc,
            trionats.open_events(nursery, nc) as rx,
        ):
            assert nc.tls is not None
            await exchange(nursery, nc)
            await server.restart(kill=True)
            await reconnected(rx)
            await exchange(nursery, nc)
        with pytest.raises(errors.SecureConnFailedError, match=r"wss://localhost.*its certificate is not accepted"):
            async with trionats.open_client(nursery, where, **options):
                pytest.fail("it let us in")
        with pytest.raises(errors.SecureConnFailedError, match="IP address mismatch"):
            async with trionats.open_client(
                nursery, where.replace("localhost", "127.0.0.1"), tls=authority.trusting(), **options
            ):
                pytest.fail("it let us in")


async def test_wss_to_an_absolute_name(tmp_path: Path, nursery: trio.Nursery) -> None:
    authority = Authority(tmp_path)
    port = free_port()

    async def dial(host: str, port: int) -> trio.abc.Stream:
        assert host == "nats.example."  # for the resolver
        return await trio.open_tcp_stream("127.0.0.1", port)

    async with (
        open_server(config(port, authority.config("nats.example"))),
        trionats.open_client(nursery, f"wss://nats.example.:{port}", tls=authority.trusting(), dial=dial) as nc,
    ):
        await nc.flush()


@pytest.mark.parametrize("max_payload", [64, 300, 1024])
async def test_compressed_messages_stay_below_what_the_server_unpacks(max_payload: int, nursery: trio.Nursery) -> None:
    port = free_port()
    async with (
        open_server(f"max_payload: {max_payload}\n" + config(port, "no_tls: true, compression: true")),
        trionats.open_client(nursery, f"ws://127.0.0.1:{port}", ws_compression=True, allow_reconnect=False) as nc,
        trionats.open_subscription(nursery, nc, "greet") as rx,
    ):
        for _ in range(500):
            await nc.publish("greet", b"x" * max_payload)
        for _ in range(500):
            assert len((await rx.receive()).data) == max_payload


async def test_path_and_headers_reach_whoever_listens(nursery: trio.Nursery) -> None:
    """A proxy in between sees them; the server behind it takes any path."""
    port = free_port()
    requests: list[bytes] = []
    calls: list[int] = []

    async def serve(client: trio.SocketStream) -> None:
        async with client, await trio.open_tcp_stream("127.0.0.1", port) as upstream, trio.open_nursery() as pumps:

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

    async with open_server(config(port)), trio.open_nursery() as proxy:
        listeners = await proxy.start(trio.serve_tcp, serve, 0)
        there = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/nats/ws?x=1"
        for _ in range(2):
            async with trionats.open_client(nursery, there, ws_connection_headers=headers) as nc:
                await nc.flush()
        proxy.cancel_scope.cancel()
    assert [request.split(b"\r\n")[0] for request in requests] == [b"GET /nats/ws?x=1 HTTP/1.1"] * 2
    assert b"\r\nX-Ticket: t1\r\n" in requests[0]
    assert b"\r\nX-Ticket: t2\r\n" in requests[1]
    assert requests[0].count(b"X-Two: ") == 2


async def test_the_server_is_told_when_the_client_goes(nursery: trio.Nursery) -> None:
    port = free_port()
    async with open_server(config(port)) as server:
        async with trionats.open_client(nursery, f"ws://127.0.0.1:{port}", name="leaver") as nc:
            await nc.flush()
        with trio.fail_after(5):
            while await server.connections("leaver"):  # noqa: ASYNC110 - another process
                await trio.sleep(0.01)
            # The server files the reason in a goroutine of its own, perhaps after it has forgotten the connection.
            while not (reasons := await reasons_of(server, "leaver")):  # noqa: ASYNC110 - another process
                await trio.sleep(0.01)
    assert reasons == ["Client Closed"]


async def reasons_of(server: TrioNatsServer, name: str) -> list[str]:
    closed = (await server.monitor("connz?state=closed"))["connections"]
    return [entry["reason"] for entry in closed if entry.get("name") == name]


async def test_a_shutdown_is_told_with_its_code_and_in_the_servers_words(nursery: trio.Nursery) -> None:
    port = free_port()
    async with (
        open_server(config(port)) as server,
        trionats.open_client(nursery, f"ws://127.0.0.1:{port}", allow_reconnect=False) as nc,
        trionats.open_events(nursery, nc) as rx,
    ):
        await server.stop()
        told = await rx.receive()
        while not isinstance(told, events.Disconnected):
            told = await rx.receive()
    assert (told.close_code, told.close_reason) == (1001, "Server Shutdown")
    assert "WebSocket close 1001: Server Shutdown" in str(told.reason)


async def test_an_expired_jwt_is_told_with_the_code_of_the_close_frame(nursery: trio.Nursery) -> None:
    house, port = House(), free_port()
    user = house.user(expires=time.time() + 2)
    async with (
        open_server(house.config + config(port)),
        trionats.open_client(
            nursery, f"ws://127.0.0.1:{port}", allow_reconnect=False, user_credentials=user.creds.encode()
        ) as nc,
        trionats.open_events(nursery, nc) as rx,
    ):
        told = await rx.receive()
        while not isinstance(told, events.Disconnected):
            told = await rx.receive()
    # What the server said before its close frame is the better reason.
    assert isinstance(told.reason, errors.AuthorizationError)
    assert "the server says: User Authentication Expired" in str(told.reason)
    assert told.close_code == 1008


async def test_a_server_that_speaks_no_websocket_is_named(nursery: trio.Nursery) -> None:
    async with open_server() as server:
        where = server.url.replace("nats://", "ws://")
        with pytest.raises(errors.ProtocolError, match="did not become a WebSocket: what it answers is no HTTP"):
            async with trionats.open_client(nursery, where):
                pytest.fail("it let us in")


async def test_discovered_servers_keep_the_scheme(nursery: trio.Nursery) -> None:
    ports = free_port(), free_port()
    cluster = 'cluster {{ name: C, listen: "127.0.0.1:-1", routes: [{}] }}\n'
    async with open_server(config(ports[0]) + cluster.format(""), name="one") as one:
        route = one.server._ports["cluster"][0]
        async with (
            trionats.open_client(nursery, f"ws://127.0.0.1:{ports[0]}", reconnect_time_wait=0.05) as nc,
            trionats.open_events(nursery, nc) as rx,
            open_server(config(ports[1]) + cluster.format(f'"{route}"'), name="two"),
        ):
            other = f"ws://127.0.0.1:{ports[1]}"
            async for event in rx:
                if isinstance(event, events.ServersDiscovered) and other in event.servers:
                    break
            await one.stop()
            await reconnected(rx)
            assert nc.connected_url == other
            await nc.flush()
