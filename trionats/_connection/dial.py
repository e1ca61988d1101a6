"""Dial TCP, TLS or WebSocket: a trio.abc.Stream comes back."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, final

import trio

from trionats import errors
from trionats._connection import tls as _tls
from trionats._connection.identity import ask

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from types import ModuleType
    from typing import TypeAlias

    from trionats._connection.websocket import WebSocketStream
    from trionats._protocol.addresses import Server

    Headers: TypeAlias = Mapping[str, str | Sequence[str]]
    HeadersSource: TypeAlias = Headers | Callable[[], Headers | Awaitable[Headers]]

#: A close frame of a WebSocket that nobody reads holds nothing up for longer than this.
GOODBYE_SECONDS = 1.0


async def dial_tcp(host: str, port: int, *, rng: random.Random | None = None) -> trio.abc.Stream:
    """Open a TCP connection, trying all of the host's addresses, one after the other (ADR-11).

    Each has its share of the time that is left until the deadline in force, so that one that does not answer leaves some to
    the others. Not at once, as `trio.open_tcp_stream` does: a race would begin logins that count against the limits of
    several servers, and always go to the one that is nearest.

    Args:
        host: A name or an address.
        port: The port.
        rng: Shuffles the addresses; without it they are tried in the resolver's order.

    Returns:
        The stream, with Nagle's algorithm off.

    Raises:
        OSError: No address answered; the text names the last reason.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{host!r} is not the name of a host: {error}") from None
    except OSError as error:
        raise OSError(error.errno, f"{host!r} is not known: {error.strerror or error}") from None
    addresses = list(dict.fromkeys((family, kind, protocol, where) for family, kind, protocol, _, where in found))
    if rng is not None:
        rng.shuffle(addresses)
    failure = OSError(errno.ETIMEDOUT, "no address answered in time")
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        seconds = trio.current_effective_deadline() - trio.current_time()
        with trio.move_on_after(max(seconds, 0.0) / left):
            try:
                return await _dial_address(*address)
            except OSError as error:
                failure = error
    raise failure


async def _dial_address(family: int, kind: int, protocol: int, where: Any) -> trio.abc.Stream:  # noqa: ANN401 - the system's
    socket = trio.socket.socket(family, kind, protocol)
    try:
        await socket.connect(where)
    except BaseException:
        socket.close()
        raise
    return trio.SocketStream(socket)


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How to reach servers; the names are those of the client's options."""

    dial: Callable[[str, int], Awaitable[trio.abc.Stream]] = field(default=dial_tcp, repr=False)
    tls: _tls.TLSOptions = field(default=_tls.TLSOptions())
    ws_connection_headers: HeadersSource | None = field(default=None, repr=False)
    ws_compression: bool = False


class DialError(OSError):
    """What `dial=` raised besides the errors of a network, or that it gave no stream; the user's exception is the cause."""


async def dialled(server: Server, options: TransportOptions) -> trio.abc.Stream:
    """Reach a server's port.

    Args:
        server: The server.
        options: How to reach it.

    Returns:
        The connection, in clear.

    Raises:
        OSError: Nobody answered; or `dial`, which may be the user's, failed otherwise, which says only that this
            attempt has.
        nats.errors.Error: `dial` said so, or TLS is wanted and cannot be had.
    """
    if server.websocket and options.tls.wanted and not server.secure:
        text = f"TLS is wanted and server {server} is reached in clear; wss:// is WebSocket over TLS"
        raise errors.explained(errors.SecureConnWantedError, text)
    try:
        stream = await options.dial(*server.endpoint)
    except (OSError, errors.Error):
        raise
    except Exception as error:
        raise DialError(f"dial failed: {type(error).__name__}: {error}") from error
    if not isinstance(stream, trio.abc.Stream):
        raise DialError(f"dial failed: it returned no trio.abc.Stream but {type(stream).__name__}")
    return stream


async def open_wire(stream: trio.abc.Stream, server: Server, options: TransportOptions) -> Wire:
    """Make a connection ready for the server's INFO: with TLS where that comes first, then WebSocket.

    Args:
        stream: The connection; it is closed if this fails.
        server: The server.
        options: How to reach it.

    Returns:
        The connection.

    Raises:
        nats.errors.Error: TLS or WebSocket failed; the text names the server and the reason.
        trio.BrokenResourceError: The connection broke meanwhile.
    """
    try:
        if server.websocket:
            return await _open_websocket(stream, server, options)
        if options.tls.handshake_first:
            return _secured(await _tls.secure(stream, options.tls, server))
        return wire(stream)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def upgrade(plain: Wire, server: Server, options: TransportOptions) -> Wire:
    """Secure a connection after the server's INFO.

    Args:
        plain: The connection; it is not used any more afterwards, except to be closed if this fails.
        server: The other end.
        options: How to secure it.

    Returns:
        The secured connection.

    Raises:
        nats.errors.SecureConnFailedError: It failed; the text names the server and the reason.
    """
    plain.close()
    return _secured(await _tls.secure(plain.stream, options.tls, server))


def require_websocket(server: Server) -> ModuleType:
    """Import what speaks WebSocket.

    Args:
        server: Who needs it, for the complaint.

    Returns:
        The module `trionats._connection.websocket`.

    Raises:
        ImportError: The extra `websocket` is not installed; the text says how to install it.
    """
    with suppress(ImportError):
        from trionats._connection import websocket as _websocket  # noqa: PLC0415 - it needs an extra, and only who uses it pays for its import

        return _websocket
    raise ImportError(f"{server}: WebSocket needs websockets 17 or later: pip install 'trionats[websocket]'")


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


async def _open_websocket(stream: trio.abc.Stream, server: Server, options: TransportOptions) -> Wire:
    websocket = require_websocket(server)
    secured = None
    if server.secure:
        secured = await _tls.secure(stream, options.tls, server)
        stream = secured
    headers = await ask("ws_connection_headers", options.ws_connection_headers or {})
    opened = await websocket.open_websocket(stream, server, headers, compression=options.ws_compression)
    return WebSocketWire(opened, tls=None if secured is None else _tls.state(secured))


def _secured(stream: trio.SSLStream[trio.abc.Stream]) -> Wire:
    return Wire(stream, tls=_tls.state(stream))


class Wire:
    """The two directions of a stream, as the supervisor uses them.

    This one passes everything on to the stream; `SocketWire` knows a shorter way. `send_now` is None: what is sent has
    to be waited for.
    """

    send_now: Callable[[bytes], int] | None = None

    def __init__(self, stream: trio.abc.Stream, tls: _tls.TLSState | None = None) -> None:
        self.stream = stream
        self.tls = tls
        """What secures it; None for nothing."""
        self.send_all: Callable[[bytes | memoryview], Awaitable[None]] = stream.send_all

    async def receive_some(self, max_bytes: int) -> bytes:
        """Read what is there, waiting for it; nothing at the end of the stream."""
        return bytes(await self.stream.receive_some(max_bytes))

    @property
    def goodbye(self) -> tuple[int, str] | None:
        """The code and the words with which the other end has closed a WebSocket; None without any."""
        return None

    def confide(self, secrets: Iterable[str]) -> None:
        """Know what the other end is told, and must not be quoted with."""

    def allow(self, max_payload: int) -> None:
        """Know how much the server takes in one message."""

    def close(self) -> None:
        """Forget the stream, before it is closed."""
        self.send_now = None

    async def aclose(self) -> None:
        """Close the stream at once: forcefully, so that nothing is waited for."""
        self.close()
        await trio.aclose_forcefully(self.stream)


@final
class WebSocketWire(Wire):
    """A WebSocket, which is told how much it may compress, and when we go."""

    def __init__(self, stream: WebSocketStream, tls: _tls.TLSState | None = None) -> None:
        super().__init__(stream, tls)
        self._websocket = stream

    @property
    def goodbye(self) -> tuple[int, str] | None:
        """The code and the words of the other end's close frame; None while there was none."""
        return self._websocket.goodbye

    def confide(self, secrets: Iterable[str]) -> None:
        """Leave it out of the words of the close frame."""
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


def told_goodbye(goodbye: tuple[int, str] | None) -> str:
    """Say how the other end closed a WebSocket: the end of a complaint, empty where there is nothing to say."""
    if goodbye is None:
        return ""
    code, reason = goodbye
    return f" (WebSocket close {code}{f': {reason}' if reason else ''})"


def wire(stream: trio.abc.Stream) -> Wire:
    """Choose how to use a stream."""
    if os.name == "posix" and isinstance(stream, trio.SocketStream):
        return SocketWire(stream)
    return Wire(stream)
