"""Dial TCP, TLS or WebSocket: a trio.abc.Stream comes back."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

#: What `sock.send` would need a private attribute of Trio's socket for, a file descriptor can do; not on Windows.
_CAN_WRITE_SOCKETS = os.name == "posix"


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
        raise OSError(error.errno, _reason(error)) from error


def sender(stream: trio.abc.Stream) -> Callable[[bytes], int] | None:
    """Find a way to send on `stream` at once, without waiting.

    Returns:
        A function that sends what fits and returns how many bytes did, raising `OSError` as the system does; it must
        not be called once the stream is closed. None where there is no such way, as with TLS.
    """
    if _CAN_WRITE_SOCKETS and isinstance(stream, trio.SocketStream):
        return partial(os.write, stream.socket.fileno())
    return None


def _reason(error: OSError) -> str:
    """Dig out what the system said: Trio wraps the errors of several addresses."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    said = cause if isinstance(cause, OSError) else error
    return said.strerror or str(said)
