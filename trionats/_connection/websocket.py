"""WebSocket: the sans-I/O protocol of the package `websockets`, over a stream of ours, as a trio.abc.Stream.

Frames carry bytes and no meaning: where they begin and end says nothing about NATS messages, so the payloads of all data
frames are one stream of bytes. What is sent goes as binary frames.

The library logs headers and payloads at DEBUG, passwords among them, so it gets a logger that leads nowhere.

Imported only when a `ws://` or `wss://` server is used: it needs the extra `websocket`.
"""

from __future__ import annotations

import logging
import operator
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, final

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import CLIENT, OPEN
from websockets.uri import parse_uri

from trionats import errors
from trionats._protocol.showing import foreign, hidden

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from websockets.protocol import Event, Protocol

    from trionats._protocol.addresses import Server

MAX_FRAME = 64 * 1024 * 1024 + 65_536
"""No server sends more than its `max_pending` (64 MiB) in one frame."""
SMALLEST_COMPRESSED = 64
"""Less than this is not worth it; nats-server thinks so too."""
LARGEST_COMPRESSED = 65_536
CLOSE_SECONDS = 1.0
"""How long the close frame may take."""
READ_SIZE = 65_536

_DATA = frozenset({Opcode.BINARY, Opcode.CONT, Opcode.TEXT})
_RESERVED = frozenset({"upgrade", "connection", "content-length", "transfer-encoding"})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_NOT_IN_VALUES = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")

_silent = logging.Logger("trionats.websocket", logging.CRITICAL)
_silent.addHandler(logging.NullHandler())


@final
class WebSocketStream(trio.abc.Stream):
    """The bytes that two ends of a WebSocket send each other.

    Closing sends a close frame, waiting for it at most `CLOSE_SECONDS`, and not for the other side's. A `send_all` that is
    cancelled while it sends leaves half a frame, and the stream cannot send any more.

    Args:
        transport: What the WebSocket runs on; it is closed with this.
        protocol: The state of the WebSocket, its handshake done.
        unread: What was received behind the handshake.
        confided: Secrets that the other end must not be quoted with.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        protocol: Protocol,
        unread: Sequence[Event] = (),
        confided: Iterable[str] = (),
    ) -> None:
        self._confided = tuple(confided)
        self._transport = transport
        self._protocol = protocol
        self._unread = b""
        self._position = 0
        self._at_end = self._closed = self._torn = self._sending = self._receiving = False
        self._lock = trio.Lock()
        self._compress_up_to = 0
        self._take_in(unread)

    @property
    def goodbye(self) -> tuple[int, str] | None:
        """The code and the words of the other end's close frame, made fit to be shown; None while there was none."""
        close = self._protocol.close_rcvd
        return None if close is None else (int(close.code), foreign(hidden(close.reason, self._confided)))

    def confide(self, secrets: Iterable[str]) -> None:
        """Leave more out of what the other end is quoted with."""
        self._confided = (*self._confided, *secrets)

    def compress_up_to(self, size: int) -> None:
        """Compress what is sent, where that was negotiated, in messages of at most this size.

        nats-server closes the connection over a message that unpacks to more than its `max_payload`, whatever NATS messages
        it holds. Until this is called nothing is compressed.
        """
        self._compress_up_to = min(size, LARGEST_COMPRESSED) if self._protocol.extensions else 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, as one binary frame; compressed, as several.

        Raises:
            trio.BusyResourceError: Another task is sending.
            trio.ClosedResourceError: This end was closed.
            trio.BrokenResourceError: The connection broke, or the other end closed it.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._check_open()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._sending = True
        try:
            async with self._lock:
                await self._send_frames(memoryview(data))
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room, as the stream below sees it."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._check_open()
        self._sending = True
        try:
            await self._transport.wait_send_all_might_not_block()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive bytes; nothing once the other end has closed the WebSocket.

        Raises:
            trio.BusyResourceError: Another task is receiving.
            trio.ClosedResourceError: This end was closed.
            trio.BrokenResourceError: The connection broke, ended without a close frame, or what came is no WebSocket; the
                cause says which.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._check_open(sending=False)
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._unread and not self._at_end:
                await self._receive(max_bytes)
            return self._next(max_bytes)
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        """Send a close frame and close the stream below. Idempotent; cancelled, it closes at once."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        try:
            if self._protocol.state is OPEN and not self._torn and not self._lock.locked():
                self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
                with trio.move_on_after(CLOSE_SECONDS), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async with self._lock:
                        await self._transmit()
        finally:
            await trio.aclose_forcefully(self._transport)
        await trio.lowlevel.checkpoint()

    # Inside.

    def _check_open(self, *, sending: bool = True) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this WebSocket was closed")
        if sending and (self._torn or self._protocol.state is not OPEN):
            raise trio.BrokenResourceError("the other end has closed the WebSocket") from self._failure()

    async def _send_frames(self, data: memoryview) -> None:
        step = self._compress_up_to or max(len(data), 1)
        for start in range(0, len(data), step):
            # The reader may have taken in a close frame while we waited.
            self._check_open()
            await self._transmit(self._frame(bytes(data[start : start + step])))
        if not data:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _frame(self, data: bytes) -> bytes:
        protocol = self._protocol
        compressed = SMALLEST_COMPRESSED <= len(data) <= self._compress_up_to
        extensions = protocol.extensions if compressed else []
        return Frame(Opcode.BINARY, data).serialize(mask=protocol.side is CLIENT, extensions=extensions)

    async def _transmit(self, frame: bytes = b"") -> None:
        """Send a frame, and what the protocol itself has to say; to be called with the lock held."""
        while ready := b"".join([frame, *self._protocol.data_to_send()]):
            frame = b""
            self._torn = True
            await self._transport.send_all(ready)
            self._torn = False

    async def _receive(self, max_bytes: int | None) -> None:
        data = await self._transport.receive_some(READ_SIZE if max_bytes is None else max(max_bytes, READ_SIZE))
        if data:
            self._protocol.receive_data(bytes(data))
        else:
            self._protocol.receive_eof()
            self._at_end = True
        self._take_in(self._protocol.events_received())
        # What is due for a ping or a close frame. Whoever holds the lock sends it along with its own.
        if not self._lock.locked() and not self._torn and not self._closed:
            with suppress(trio.BrokenResourceError):
                async with self._lock:
                    await self._transmit()

    def _take_in(self, events: Sequence[Event]) -> None:
        frames = [event for event in events if isinstance(event, Frame)]
        data = b"".join(frame.data for frame in frames if frame.opcode in _DATA)
        if data:
            self._unread = self._unread[self._position :] + data
            self._position = 0
        if self._protocol.close_rcvd is not None or self._protocol.parser_exc is not None:
            self._at_end = True

    def _next(self, max_bytes: int | None) -> bytes:
        if not self._unread:
            if self._protocol.close_rcvd is None:
                raise trio.BrokenResourceError("the WebSocket broke") from self._failure()
            return b""
        end = len(self._unread) if max_bytes is None else self._position + max_bytes
        piece = self._unread[self._position : end] if self._position or end < len(self._unread) else self._unread
        self._position += len(piece)
        if self._position >= len(self._unread):
            self._unread, self._position = b"", 0
        return piece

    def _failure(self) -> Exception | None:
        """Say why the WebSocket is over."""
        protocol = self._protocol
        if (goodbye := self.goodbye) is not None:
            return errors.explained(errors.UnexpectedEOF, "the WebSocket was closed ({}: {})".format(*goodbye))
        if isinstance(protocol.parser_exc, EOFError):
            return errors.explained(errors.UnexpectedEOF, "the WebSocket ended without a close frame")
        if protocol.parser_exc is not None:
            return errors.explained(
                errors.ProtocolError, f"what came is no WebSocket: {foreign(str(protocol.parser_exc))}"
            )
        return None


async def open_websocket(
    transport: trio.abc.Stream, server: Server, headers: Mapping[str, str | Sequence[str]], *, compression: bool
) -> WebSocketStream:
    """Make a WebSocket of a connection.

    Args:
        transport: The connection; secured already for `wss://`. It is not closed if this fails.
        server: The other end: its URL says host and path of the request.
        headers: More headers for the request.
        compression: Offer permessage-deflate; the server decides.

    Returns:
        The stream.

    Raises:
        nats.errors.ProtocolError: The other end does not want to; the text says what it said instead.
        nats.errors.BadHeaderError: A header is not valid.
        trio.BrokenResourceError: The connection broke.
    """
    protocol = ClientProtocol(
        _uri(server), extensions=_extensions(compression), max_size=(None, MAX_FRAME), logger=_silent
    )
    request = protocol.connect()
    pairs = _checked(headers)
    for name, value in pairs:
        if name.lower() == "host" and "Host" in request.headers:
            del request.headers["Host"]
        request.headers[name] = value
    protocol.send_request(request)
    await transport.send_all(b"".join(protocol.data_to_send()))
    events: list[Event] = []
    while not events and protocol.handshake_exc is None:
        data = await transport.receive_some(READ_SIZE)
        protocol.receive_data(bytes(data)) if data else protocol.receive_eof()
        events = protocol.events_received()
    # Of "Bearer" and a token somebody may repeat the token alone.
    confided = [server.path, *(value for _, value in pairs), *(value.rpartition(" ")[2] for _, value in pairs)]
    if protocol.handshake_exc is not None:
        text = f"{server} did not become a WebSocket: {hidden(_told(protocol.handshake_exc), confided)}"
        raise errors.explained(errors.ProtocolError, text)
    return WebSocketStream(transport, protocol, events[1:], confided)


def _uri(server: Server) -> Any:  # noqa: ANN401 - the library's own
    path = server.path if server.path.startswith("/") else f"/{server.path}"
    with suppress(InvalidURI):
        # The name of the request's Host, too, is one without the final dot.
        return parse_uri(f"{server.scheme}://{server.authority}{path}")
    raise errors.explained(errors.ProtocolError, f"{server}: its path cannot stand in an HTTP request")


def _extensions(compression: bool) -> list[ClientPerMessageDeflateFactory] | None:
    if not compression:
        return None
    # Without context takeover, which nats-server does not do.
    return [
        ClientPerMessageDeflateFactory(
            server_no_context_takeover=True, client_no_context_takeover=True, client_max_window_bits=None
        )
    ]


def _checked(headers: object) -> list[tuple[str, str]]:
    """Flatten the user's headers; complaints show names only."""
    if not isinstance(headers, Mapping):
        text = f"ws_connection_headers: a mapping is wanted, not {type(headers).__name__}"
        raise errors.explained(errors.BadHeaderError, text)
    pairs: list[tuple[str, str]] = []
    for name, values in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise errors.explained(
                errors.BadHeaderError, f"ws_connection_headers: {_shown(name)} is no name of a header"
            )
        if name.lower() in _RESERVED or name.lower().startswith("sec-websocket-"):
            raise errors.explained(errors.BadHeaderError, f"ws_connection_headers: {name} is the WebSocket's own")
        for value in values if isinstance(values, (list, tuple)) else [values]:
            if not isinstance(value, str) or _NOT_IN_VALUES.search(value):
                text = f"ws_connection_headers: the value of {name} holds what no header can"
                raise errors.explained(errors.BadHeaderError, text)
            pairs.append((name, value))
    return pairs


def _shown(name: object) -> str:
    """Show what stands in the place of a header's name; that may be a whole line, value included."""
    before, colon, _ = name.partition(":") if isinstance(name, str) else ("", "", "")
    return f"what begins with {before!r}" if colon and _NAME.fullmatch(before) else "one of them"


def _told(error: Exception) -> str:
    if isinstance(error, InvalidStatus):
        return f"it answers HTTP {error.response.status_code} {foreign(error.response.reason_phrase)}".rstrip()
    if isinstance(error, InvalidHandshake) and error.__cause__ is None:
        return foreign(str(error))
    return "what it answers is no HTTP"
