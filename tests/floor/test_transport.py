"""Real sockets: dialled, read, written, full and broken."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from trionats._connection import wire as _transport
from trionats._connection.dial import dial_tcp
from trionats._connection.wire import SocketWire, Wire


async def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    left, right = trio.socket.socketpair()
    return trio.SocketStream(left), trio.SocketStream(right)


async def test_dialling() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with listeners[0]:
        stream = await dial_tcp("127.0.0.1", port)
        assert isinstance(stream, trio.SocketStream)
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert isinstance(_transport.wire(stream), SocketWire)
        await stream.aclose()
    with pytest.raises(ConnectionRefusedError) as caught:
        await dial_tcp("127.0.0.1", port)
    assert str(port) in str(caught.value)
    assert "refused" in str(caught.value)


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example"])
async def test_no_name_of_a_host(host: str) -> None:
    """What the name's codec refuses is no OSError by itself."""
    with pytest.raises(OSError, match="is not the name of a host"):
        await dial_tcp(host, 4222)


async def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(OSError, match=r"'nosuch\.invalid'"):
        await dial_tcp("nosuch.invalid", 4222)


async def test_a_stream_of_any_kind() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    wire = _transport.wire(ours)
    assert type(wire) is Wire
    assert wire.send_now is None
    await wire.send_all(b"abc")
    assert await theirs.receive_some() == b"abc"
    await theirs.send_all(bytearray(b"def"))
    data = await wire.receive_some(100)
    assert (data, type(data)) == (b"def", bytes)
    await theirs.send_eof()
    assert await wire.receive_some(100) == b""
    await wire.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


async def test_a_socket() -> None:
    ours, theirs = await pair()
    wire = _transport.wire(ours)
    assert wire.send_now is not None
    assert wire.send_now(b"now,") == 4
    await wire.send_all(b"then")
    assert await theirs.receive_some() == b"now,then"
    await theirs.send_all(b"answer")
    assert await wire.receive_some(2) == b"an"
    assert await wire.receive_some(100) == b"swer"
    with trio.move_on_after(0.01) as scope:
        await wire.receive_some(1)
    assert scope.cancelled_caught
    await theirs.aclose()
    assert await wire.receive_some(1) == b""
    with pytest.raises(trio.BrokenResourceError, match="the connection broke"):
        await wire.send_all(b"x")
    await wire.aclose()
    assert wire.send_now is None


async def test_a_full_socket() -> None:
    ours, theirs = await pair()
    wire = _transport.wire(ours)
    data = os.urandom(4 * 1024 * 1024)
    received = bytearray()

    async def read() -> None:
        while len(received) < len(data):
            received.extend(await theirs.receive_some(100_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.send_all, data)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.send_now is not None
        with pytest.raises(BlockingIOError):
            wire.send_now(b"more")
        nursery.start_soon(read)
    assert received == data
    with trio.move_on_after(0.01) as scope:
        await wire.send_all(data)
    assert scope.cancelled_caught
    await wire.aclose()
    await theirs.aclose()


async def test_a_reset() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0]:
        ours = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
        theirs = await listeners[0].accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        wire = _transport.wire(ours)
        await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError, match=r"the connection broke.*reset"):
            await wire.receive_some(1)
        await wire.aclose()
