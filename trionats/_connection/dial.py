"""Reach a server: dial, and secure what came of it, or make a WebSocket of it, so that it can be spoken over."""

from __future__ import annotations

import errno
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trionats import errors
from trionats._connection import tls as _tls
from trionats._connection.callbacks import ask
from trionats._connection.wire import WebSocketWire, Wire, wire
from trionats._protocol.addresses import parse_servers

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from types import ModuleType

    from trionats._connection.options import Dialler, Options
    from trionats._protocol.addresses import Server


async def dial_tcp(host: str, port: int, *, rng: random.Random | None = None) -> trio.abc.Stream:
    """Open a TCP connection, trying all of the host's addresses, one after the other (ADR-11, design 31).

    Each has its share of the time that is left until the deadline in force, so that one that is silent leaves some to
    the others. Not at once, as `trio.open_tcp_stream` does: a race would begin logins that count against the limits of
    several servers, and always go to the one that is nearest.

    Args:
        host: A name or an address.
        port: The port.
        rng: Shuffles the addresses; without it they are tried in the resolver's order.

    Returns:
        The stream, with Nagle's algorithm off.

    Raises:
        OSError: Nobody is at any of the addresses; the text names the last reason.
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


class DialError(OSError):
    """What `dial=` raised besides the errors of a network, or that it gave no stream; the user's exception is the cause."""


async def dialled(server: Server, options: Options) -> trio.abc.Stream:
    """Reach a server's port.

    Args:
        server: The server.
        options: How to reach it.

    Returns:
        The connection, in clear.

    Raises:
        OSError: Nobody is there; or `dial`, which may be the user's, failed otherwise, which says only that this
            attempt has.
        nats.errors.Error: `dial` said so, or TLS is wanted and cannot be had.
    """
    if server.websocket and options.tls_wanted and not server.secure:
        text = f"TLS is wanted and server {server} is reached in clear; wss:// is WebSocket over TLS"
        raise errors.explained(errors.SecureConnWantedError, text)
    try:
        stream = await _dialler(options)(*server.endpoint)
    except (OSError, errors.Error):
        raise
    except Exception as error:
        raise DialError(f"dial failed: {type(error).__name__}: {error}") from error
    if not isinstance(stream, trio.abc.Stream):
        raise DialError(f"dial failed: it returned no trio.abc.Stream but {type(stream).__name__}")
    return stream


def _dialler(options: Options) -> Dialler:
    return options.dial or partial(dial_tcp, rng=None if options.dont_randomize else options.rng)


async def open_wire(stream: trio.abc.Stream, server: Server, options: Options) -> Wire:
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
        if options.tls_handshake_first:
            return _secured(await _tls.secure(stream, options, server))
        return wire(stream)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def upgrade(plain: Wire, server: Server, options: Options) -> Wire:
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
    return _secured(await _tls.secure(plain.stream, options, server))


def usable_servers(servers: str | Sequence[str]) -> list[Server]:
    """Read a list of servers, and make sure that they can be reached with what is installed.

    Args:
        servers: One URL or several.

    Returns:
        The servers.

    Raises:
        ValueError: A URL is not valid.
        ImportError: A URL is a WebSocket's, and the extra `websocket` is not installed.
    """
    parsed = parse_servers(servers)
    for server in parsed:
        if server.websocket:
            require_websocket(server)
    return parsed


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


async def _open_websocket(stream: trio.abc.Stream, server: Server, options: Options) -> Wire:
    websocket = require_websocket(server)
    secured = None
    if server.secure:
        secured = await _tls.secure(stream, options, server)
        stream = secured
    headers = await ask("ws_connection_headers", options.ws_connection_headers or {})
    opened = await websocket.open_websocket(stream, server, headers, compression=options.ws_compression)
    return WebSocketWire(opened, tls=None if secured is None else _tls.state(secured))


def _secured(stream: trio.SSLStream[trio.abc.Stream]) -> Wire:
    return Wire(stream, tls=_tls.state(stream))
