"""The wire: the two directions of a stream, each used in the shortest way that it has.

Whatever `dial` gave, the rooms above see a `Wire`: bytes to send and bytes received, what secures it, and how its end is told.
"""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, final

import trio

from trionats import errors
from trionats._connection import tls as _tls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from trionats._connection.websocket import WebSocketStream
    from trionats._protocol.addresses import Server

#: A close frame of a WebSocket that nobody reads holds nothing up for longer than this.
GOODBYE_SECONDS = 1.0


class Wire:
    """The two directions of a stream, as a session uses them.

    This one passes everything on to the stream; `SocketWire` has a shorter way. Where `send_now` is None, what is sent has
    to be waited for.
    """

    send_now: Callable[[bytes], int] | None = None

    def __init__(self, stream: trio.abc.Stream, tls: _tls.TLSState | None = None) -> None:
        self.stream = stream
        self.tls = tls
        """What secures it; None for nothing."""
        self.send_all: Callable[[bytes | memoryview], Awaitable[None]] = stream.send_all

    async def send_pieces(self, pieces: list[bytes | memoryview]) -> None:
        """Write all of several pieces, as one; as `send_all`."""
        await self.send_all(b"".join(pieces))

    async def receive_some(self, max_bytes: int) -> bytes:
        """Read what is there, waiting for it; nothing at the end of the stream."""
        return bytes(await self.stream.receive_some(max_bytes))

    @property
    def goodbye(self) -> tuple[int, str] | None:
        """The code and the words with which the other end has closed a WebSocket; None without any."""
        return None

    def confide(self, secrets: Iterable[str]) -> None:
        """Leave what we told the other end out of what it is quoted with."""

    def allow(self, max_payload: int) -> None:
        """Take in how large a message the server takes; a WebSocket compresses none that is larger."""

    def close(self) -> None:
        """Let go of the stream, which is about to be closed or secured."""
        self.send_now = None

    async def aclose(self) -> None:
        """Close the stream at once: forcefully, so that nothing is waited for."""
        self.close()
        await trio.aclose_forcefully(self.stream)


@final
class WebSocketWire(Wire):
    """A WebSocket, which says goodbye with a close frame."""

    def __init__(self, stream: WebSocketStream, tls: _tls.TLSState | None = None) -> None:
        super().__init__(stream, tls)
        self._websocket = stream

    @property
    def goodbye(self) -> tuple[int, str] | None:
        """The code and the words of the other end's close frame; None while there was none."""
        return self._websocket.goodbye

    def confide(self, secrets: Iterable[str]) -> None:
        """Leave what we told the other end out of the words of its close frame."""
        self._websocket.confide(secrets)

    def allow(self, max_payload: int) -> None:
        """Compress messages up to this size, where that was negotiated."""
        self._websocket.compress_up_to(max_payload)

    async def aclose(self) -> None:
        """Close the stream with a close frame: shielded, and bounded."""
        self.close()
        with trio.move_on_after(GOODBYE_SECONDS, shield=True):
            await self.stream.aclose()


@final
class SocketWire(Wire):
    """A plain TCP connection, read and written by its file descriptor.

    `trio.SocketStream` first tries to read, which fails each time for a client that waits for replies, and costs a
    system call and an exception. Here the wait comes first (design 34); in the other direction, where there nearly always is room, it
    comes second. A file descriptor also lets `send_now` do what Trio's socket has no public call for. Not on Windows,
    where descriptors and sockets are different things.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._fd = stream.socket.fileno()
        self.send_now = partial(os.write, self._fd)
        self.send_all = self._write_all

    async def _write_all(self, data: bytes | memoryview) -> None:
        """Write all of `data`; a checkpoint only if it must wait for room. Cancelled, part of it may have been written."""
        left = memoryview(data)
        while True:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error
            if not left:
                return
            await trio.lowlevel.wait_writable(self._fd)

    async def send_pieces(self, pieces: list[bytes | memoryview]) -> None:
        """Write all of several pieces, each from where it is; as `send_all`."""
        left = deque([memoryview(piece) for piece in pieces])
        while True:
            try:
                sent = os.writev(self._fd, left)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error
            while left and sent >= len(left[0]):
                sent -= len(left.popleft())
            if not left:
                return
            left[0] = left[0][sent:]
            await trio.lowlevel.wait_writable(self._fd)

    async def receive_some(self, max_bytes: int) -> bytes:
        """Read what is there, waiting for it; nothing at the end of the stream."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return os.read(self._fd, max_bytes)
            except BlockingIOError:  # pragma: no cover - readable, and then not: allowed to the kernel, seen by nobody
                continue
            except OSError as error:
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error


def wire(stream: trio.abc.Stream) -> Wire:
    """Choose how to use a stream."""
    if os.name == "posix" and isinstance(stream, trio.SocketStream):
        return SocketWire(stream)
    return Wire(stream)


def broken(error: trio.BrokenResourceError, server: Server) -> errors.Error:
    """Say why a connection broke.

    Args:
        error: What the stream raised.
        server: The other end.

    Returns:
        The exception that tells it.
    """
    if _tls.has_tls_cause(error):
        return _tls.failure(error, server, "TLS broke")
    why = error.__cause__ or error
    return errors.explained(errors.UnexpectedEOF, f"{server} broke the connection{f': {why}' if str(why) else ''}")


def told_goodbye(goodbye: tuple[int, str] | None) -> str:
    """Say how the other end closed a WebSocket: the end of a complaint, empty where there is nothing to say."""
    if goodbye is None:
        return ""
    code, reason = goodbye
    return f" (WebSocket close {code}{f': {reason}' if reason else ''})"
