"""Dial TCP, TLS or WebSocket: a trio.abc.Stream comes back."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def dial_tcp(host: str, port: int) -> trio.abc.Stream:
    """Open a TCP connection, trying all of the host's addresses.

    Args:
        host: A name or an address.
        port: The port.

    Returns:
        The stream, with Nagle's algorithm off.

    Raises:
        OSError: No address answered; the text names host, port and the reason.
    """
    try:
        return await trio.open_tcp_stream(host, port)
    except OSError as error:
        said = _said(error)
        text = said.strerror or str(said)
        raise OSError(text) if said.errno is None else OSError(said.errno, text) from error
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{host!r} is not the name of a host: {error}") from error


class Wire:
    """The two directions of a stream, as the link uses them.

    This one passes everything on to the stream; `SocketWire` knows a shorter way. `send_now` is None: what is sent has
    to be waited for.
    """

    send_now: Callable[[bytes], int] | None = None

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.send_all: Callable[[bytes], Awaitable[None]] = stream.send_all

    async def receive_some(self, max_bytes: int) -> bytes:
        """Read what is there, waiting for it; nothing at the end of the stream."""
        return bytes(await self._stream.receive_some(max_bytes))

    def close(self) -> None:
        """Forget the stream, before it is closed."""
        self.send_now = None

    async def aclose(self) -> None:
        """Close the stream at once: forcefully, so that nothing is waited for."""
        self.close()
        await trio.aclose_forcefully(self._stream)


class SocketWire(Wire):
    """A plain TCP connection, read and written by its file descriptor.

    `trio.SocketStream` first tries to read, which fails each time for a client that waits for answers, and costs a
    system call and an exception. Here the wait comes first; in the other direction, where there nearly always is room, it
    comes second. A file descriptor also lets `send_now` do what Trio's socket has no public call for. Not on Windows,
    where descriptors and sockets are different things.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._fd = stream.socket.fileno()
        self.send_now = partial(os.write, self._fd)
        self.send_all = self._write_all

    async def _write_all(self, data: bytes) -> None:
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


def _said(error: OSError) -> OSError:
    """Dig out what the system said: Trio wraps the errors of several addresses."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error
