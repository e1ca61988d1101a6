"""Getting a connection, the first one and the next: stages, refusals, garbage, and what is left of an attempt that failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.fakes import FakeServer
from tests.worlds import connected, open_world, reconnected, refusal, settled, watched
from trionats import errors, open_client

Dial = Callable[[str, int], Awaitable[trio.abc.Stream]]

pytestmark = pytest.mark.usefixtures("autojump_clock")

INFO = b'INFO {"server_id":"S","max_payload":1048576,"headers":true}\r\n'


def first(server: FakeServer, *greetings: bytes | None) -> Dial:
    """A `dial` that gives these greetings first, each followed by the end of the stream, and then the server.

    None, in place of a greeting, is a server that says nothing; a greeting that ends with "..." leaves the stream open.
    """
    left = list(greetings)
    peers = []

    async def dial(host: str, port: int) -> trio.abc.Stream:
        if not left:
            return await server.dial(host, port)
        ours, theirs = trio.testing.memory_stream_pair()
        greeting = left.pop(0)
        peers.append(theirs)
        if greeting is not None:
            await theirs.send_all(greeting.removesuffix(b"..."))
            if not greeting.endswith(b"..."):
                await theirs.send_eof()
        return ours

    return dial


ALL = {"name": "me", "user": "u", "password": "p", "verbose": True, "pedantic": True, "no_echo": True}
TOLD = {"name": "me", "user": "u", "pass": "p", "verbose": True, "pedantic": True, "echo": False}


@pytest.mark.parametrize(
    ("options", "told"), [({}, {"verbose": False, "pedantic": False, "echo": True}), (ALL, TOLD)], ids=["none", "all"]
)
async def test_connect_then_ping_and_nothing_else(options: dict[str, Any], told: dict[str, object]) -> None:
    """And what the server is told of us and our wishes."""
    async with open_world(**options) as (server, nc, _):
        assert [frame.verb for frame in server.frames] == ["CONNECT", "PING"]
        assert (nc.is_connected, nc.is_closed, nc.last_error, nc.tls) == (True, False, None, None)
        fields = {"name", "user", "pass", "auth_token", *told}
        assert {name: value for name, value in server.link.options.items() if name in fields} == told
    assert (nc.is_connected, nc.is_closed, nc.connected_url) == (False, True, None)


@pytest.mark.parametrize("stage", ["no accept", "no INFO", "half an INFO", "no PONG"])
async def test_connect_timeout_covers_each_stage(stage: str) -> None:
    server = FakeServer()
    server.dials = ["hang"] if stage == "no accept" else []
    server.mute = {"PING"} if stage == "no PONG" else set()
    dial = {"no INFO": first(server, None), "half an INFO": first(server, INFO[:20] + b"...")}.get(stage, server.dial)
    start = trio.current_time()
    error = await refusal(dial=dial, connect_timeout=3)
    assert trio.current_time() - start == pytest.approx(3)
    assert isinstance(error, errors.NoServersError)
    silent = "connected, but the server said nothing within 3 s; is this a NATS client port (4222, not 8222)?"
    said = silent if "INFO" in stage else "no connection within 3 s"
    assert str(error) == f"no server could be reached: nats://fake:4222: {said}"
    assert all(link.closed for link in server.links)


async def test_each_server_is_tried_once() -> None:
    server = FakeServer()
    server.dials = ["refuse", "hang", "accept"]
    async with connected(server, ["nats://a", "nats://b:1", "nats://c"], dont_randomize=True) as nc:
        assert server.dialled == [("a", 4222), ("b", 1), ("c", 4222)]
        assert nc.connected_url == "nats://c:4222"
    server.dials = ["refuse", "hang"]
    error = await refusal(["nats://u:secret@a", "nats://b"], dial=server.dial, dont_randomize=True)
    assert isinstance(error, errors.NoServersError)
    assert "nats://a:4222: [Errno 111]" in str(error)
    assert "nats://b:4222: no connection within 2 s" in str(error)
    assert "secret" not in str(error)


async def test_wrong_password() -> None:
    server = FakeServer(authorize=lambda options: None if options.get("pass") == "right" else "Authorization Violation")
    error = await refusal(dial=server.dial, user="u", password="wrong-one")
    assert isinstance(error, errors.AuthorizationError)
    assert str(error).startswith("nats://fake:4222: the server says: Authorization Violation")
    assert "wrong-one" not in str(error)
    assert all(link.closed for link in server.links)


async def test_not_one_byte_of_connect_to_a_server_that_demands_tls() -> None:
    server = FakeServer(info={"tls_required": True})
    error = await refusal(dial=server.dial, user="u", password="p")
    assert "fake:4222" in str(error)
    assert b"CONNECT" not in server.link.received
    assert server.link.closed


GARBAGE = {
    "garbage": b"\x00\x01\x02 what?\r\n",
    "no JSON": b"INFO {oops\r\n",
    "no object": b"INFO []\r\n",
    "a TLS alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "the end at once": b"",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "HTTP that goes on": b"HTTP/1.1 400 Bad Request\r\n\r\n...",
    "SSH": b"SSH-2.0-OpenSSH\r\n...",
    "half a TLS alert": b"\x15\x03\x01...",
    "PING before INFO": b"PING\r\n",
    "a refusal before INFO": b"-ERR 'maximum connections exceeded'\r\n",
    "a refusal after INFO": INFO + b"-ERR 'maximum connections exceeded'\r\n",
    "the end after INFO": INFO,
    "half an INFO": INFO[:15],
    "a long line": b"A" * 200_000,
    "odd numbers": b'INFO {"max_payload":"many","connect_urls":7,"proto":null}\r\n',
    "infinite numbers": b'INFO {"max_payload":Infinity,"client_id":[]}\r\n',
    "a welcome and the end of it": INFO + b"-ERR 'Slow Consumer'\r\n",
}


@pytest.mark.parametrize("greeting", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_moves_on_to_the_next_attempt_also_on_a_reconnect(greeting: bytes) -> None:
    server = FakeServer()
    alone = await refusal(dial=first(server, greeting))
    assert "nats://fake:4222" in str(alone)
    assert not server.links
    dials = [first(server, greeting, greeting)]

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return await dials[0](host, port)

    async with connected(server, "a,b,c", dial=dial, dont_randomize=True, reconnect_time_wait=0.1) as nc:
        assert nc.connected_url == "nats://c:4222"
    dials[0] = server.dial
    async with watched(server, dial=dial) as (_, nc, rx):
        dials[0] = first(server, greeting, greeting)
        server.cut()
        await reconnected(nc)
        seen = [type(await rx.receive()).__name__ for _ in range(4)]
        assert seen == ["Disconnected", "ReconnectFailed", "ReconnectFailed", "Reconnected"]


async def test_what_the_server_sends_behind_its_welcome() -> None:
    """INFO coalesced with the PONG counts, max_payload included (nats.go 41c5d2b0)."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return ours

    async def serve() -> None:
        await theirs.send_all(INFO)
        assert (await theirs.receive_some()).startswith(b"CONNECT ")
        await theirs.send_all(b'PONG\r\nINFO {"max_payload":3,"connect_urls":["other:1"]}\r\n')

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_client(nursery, dial=dial, close_timeout=1) as nc:
            assert (nc.max_payload, nc.server_info["server_id"]) == (3, "S")
            with pytest.raises(errors.MaxPayloadError):
                await nc.publish("a", b"1234")


async def test_a_refusal_right_behind_the_welcome_loses_no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """The phase is online for the moment in which the wire is closed: who flushes then must be told."""
    server = FakeServer()
    results: list[object] = []
    streams: list[trio.abc.Stream] = []

    async def flush() -> None:
        try:
            await nc.flush()
            results.append(None)
        except errors.Error as error:
            results.append(error)

    async def close_slowly() -> None:
        with trio.CancelScope(shield=True):
            background.start_soon(flush)
            await settled()
        await trio.lowlevel.checkpoint()

    async def welcome_and_refuse() -> None:
        await theirs.send_all(b"PONG\r\n-ERR 'Slow Consumer'\r\n")

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return streams.pop() if streams else await server.dial(host, port)

    async with connected(server, dial=dial) as nc, trio.open_nursery() as background:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(INFO)
        ours.send_stream.send_all_hook = welcome_and_refuse
        monkeypatch.setattr(ours, "aclose", close_slowly)
        streams.append(ours)
        server.cut()
        await reconnected(nc)
    # Either told that it failed, or answered by the connection that followed: but not left to its timeout.
    assert len(results) == 1
    assert not isinstance(results[0], errors.TimeoutError)
