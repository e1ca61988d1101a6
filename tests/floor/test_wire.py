"""The two directions of a stream, of any kind and of a socket: read, written, full and broken."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trionats._connection.wire import Wire, wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def pair() -> tuple[Wire, trio.SocketStream]:
    left, right = trio.socket.socketpair()
    return wire(trio.SocketStream(left)), trio.SocketStream(right)


async def test_a_stream_of_any_kind() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    end = wire(ours)
    assert (type(end), end.send_now) == (Wire, None)
    await end.send_all(b"abc")
    assert await theirs.receive_some() == b"abc"
    await end.send_pieces([b"in ", memoryview(b"pieces")])
    assert await theirs.receive_some() == b"in pieces"
    await theirs.send_all(bytearray(b"def"))
    data = await end.receive_some(100)
    assert (data, type(data)) == (b"def", bytes)
    await theirs.send_eof()
    assert await end.receive_some(100) == b""
    await end.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


async def test_a_socket() -> None:
    end, theirs = await pair()
    assert end.send_now is not None
    assert end.send_now(b"now,") == 4
    await end.send_all(b"then")
    assert await theirs.receive_some() == b"now,then"
    await theirs.send_all(b"answer")
    assert [await end.receive_some(size) for size in (2, 100)] == [b"an", b"swer"]
    with trio.move_on_after(0.01) as scope:
        await end.receive_some(1)
    assert scope.cancelled_caught
    await theirs.aclose()
    assert await end.receive_some(1) == b""
    with pytest.raises(trio.BrokenResourceError, match="the connection broke"):
        await end.send_all(b"x")
    await end.aclose()
    assert end.send_now is None


async def through_a_full_socket(
    end: Wire, theirs: trio.SocketStream, send: Callable[[], Awaitable[None]], size: int
) -> bytes:
    """Give what comes of sending so much, where nobody reads before the socket is full."""
    received = bytearray()

    async def read() -> None:
        while len(received) < size:
            received.extend(await theirs.receive_some(100_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert end.send_now is not None
        with pytest.raises(BlockingIOError):
            end.send_now(b"more")
        nursery.start_soon(read)
    return bytes(received)


async def test_a_full_socket() -> None:
    end, theirs = await pair()
    data = os.urandom(4 * 1024 * 1024)
    assert await through_a_full_socket(end, theirs, partial(end.send_all, data), len(data)) == data
    with trio.move_on_after(0.01) as scope:
        await end.send_all(data)
    assert scope.cancelled_caught
    await end.aclose()
    await theirs.aclose()


async def test_pieces_on_a_full_socket() -> None:
    end, theirs = await pair()
    pieces: list[bytes | memoryview] = [
        b"head",
        memoryview(os.urandom(4 * 1024 * 1024)),
        b"",
        b"\r\n",
        os.urandom(300_000),
    ]
    data = b"".join(pieces)
    assert await through_a_full_socket(end, theirs, partial(end.send_pieces, pieces), len(data)) == data
    await end.send_pieces([b"a", b"b"])
    assert await theirs.receive_some() == b"ab"
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError, match="the connection broke"):
        await end.send_pieces([b"x"])
    await end.aclose()


async def test_a_reset() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0]:
        end = wire(await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1]))
        theirs = await listeners[0].accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError, match=r"the connection broke.*reset"):
            await end.receive_some(1)
        await end.aclose()
