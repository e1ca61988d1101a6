"""Bytes in, events out.

Strategy. A chunk is parsed in one loop without a function call per message. Control lines repeat (the same subject,
sid and size), so the loop looks a line up in a bounded cache before it takes it apart; only lines of messages are in
there, which saves the look at the verb as well. What a chunk leaves unfinished is held as a list of pieces: a payload
is joined once when it is complete, a line when its end has come. No byte is copied more than four times.

Invariants. `feed` never raises. The events do not depend on how the bytes were cut. The first violation of the
protocol is told as a `ProtocolError`, the last event of all; afterwards the parser is dead. Nothing is taken to be a
number that was not measured first, and what is held is bounded: a line by `max_control_line` (INFO by `max_info`), a
message by `max_message`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from trionats import errors
from trionats._protocol import headers as header_block_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from multidict import MultiDict

__all__ = ["Event", "Info", "Message", "Ok", "Parser", "Ping", "Pong", "ServerError"]

MAX_INFO = 4 * 1024 * 1024
MAX_CONTROL_LINE = 64 * 1024
MAX_MESSAGE = 64 * 1024 * 1024 + 1024 * 1024


class Message:
    """A message as it came.

    Args:
        sid: The number of the subscription it is for.
        subject: Where it was published to. Bytes that are not UTF-8 are surrogate escapes, here and in `reply`.
        reply: Where an answer is expected, or "".
        data: The payload.
        header_block: The raw header block, None for a message without one.
    """

    __slots__ = ("_parsed", "data", "header_block", "reply", "sid", "subject")

    _parsed: header_block_of.Headers

    def __init__(self, sid: int, subject: str, reply: str, data: bytes, header_block: bytes | None = None) -> None:
        self.sid = sid
        self.subject = subject
        self.reply = reply
        self.data = data
        self.header_block = header_block

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} sid={self.sid} subject={self.subject!r} reply={self.reply!r} size={self.size}>"
        )

    @property
    def size(self) -> int:
        """How many bytes it takes: header block and payload."""
        block = self.header_block
        return len(self.data) if block is None else len(self.data) + len(block)

    @property
    def headers(self) -> MultiDict[str]:
        """The headers, empty when there are none; the same object each time."""
        return self._headers().fields

    @property
    def status(self) -> int | None:
        """The server's status, None for a message of a peer."""
        return self._headers().status

    @property
    def description(self) -> str:
        """The server's words to its status, or ""."""
        return self._headers().description

    def _headers(self) -> header_block_of.Headers:
        # The slot stays empty until someone asks: most messages are never asked, and a store per message counts.
        try:
            return self._parsed
        except AttributeError:
            block = self.header_block
            self._parsed = header_block_of.parse(b"NATS/1.0\r\n\r\n" if block is None else block)
            return self._parsed


@dataclass(frozen=True, slots=True)
class Info:
    """The server said what it is, or that something about it has changed."""

    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ping:
    """The server asked whether we live."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The server answered a PING."""


@dataclass(frozen=True, slots=True)
class Ok:
    """The server accepted a command (it says so in verbose mode only)."""


@dataclass(frozen=True, slots=True)
class ServerError:
    """The server complained; whether it then closes the connection depends on the text."""

    text: str


Event: TypeAlias = Message | Info | Ping | Pong | Ok | ServerError | errors.ProtocolError

_Head: TypeAlias = "tuple[int, str, str, int, int]"  # sid, subject, reply, header length or -1, total length


class Parser:
    """A server's side of a conversation, cut into events.

    Args:
        message_type: What is called with sid, subject, reply, data and, if there is one, the header block.
        max_info: The longest INFO line.
        max_control_line: The longest other line.
        max_message: The longest header block and payload together.

    Attributes:
        wanted: How many bytes of the message under way are still missing, 0 if none is: a hint for the next read.
    """

    __slots__ = (
        "_blocks",
        "_dead",
        "_head",
        "_held",
        "_lines",
        "_max_control_line",
        "_max_info",
        "_max_message",
        "_message_type",
        "_numbers",
        "_pieces",
        "wanted",
    )

    def __init__(
        self,
        message_type: Callable[..., Message] = Message,
        *,
        max_info: int = MAX_INFO,
        max_control_line: int = MAX_CONTROL_LINE,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self.wanted = 0
        self._message_type = message_type
        self._max_info = max_info
        self._max_control_line = max_control_line
        self._max_message = max_message
        self._lines: dict[bytes, _Head] = {}
        self._numbers: dict[bytes, int] = {}
        self._head: _Head = (0, "", "", -1, 0)
        self._pieces: list[bytes] = []
        self._blocks: list[bytes] = []
        self._held = 0
        self._dead = False

    def feed(self, data: bytes) -> list[Event]:
        """Take what was read.

        Args:
            data: The next bytes of the stream, cut anywhere.

        Returns:
            What they completed, in order. A `ProtocolError` is the last event there will be.
        """
        events: list[Event] = []
        if self._dead or not data:
            return events
        try:
            self._parse(data, events)
        except errors.ProtocolError as violation:
            self._dead = True
            self.wanted = self._held = 0
            self._pieces = []
            self._blocks = []
            events.append(violation)
        return events

    def _parse(self, buf: bytes, events: list[Event]) -> None:
        pos = 0
        if self._held:
            if self.wanted:
                if len(buf) < self.wanted:
                    self.wanted -= len(buf)
                    self._hold(buf)
                    return
                pos = self.wanted
                self._hold(buf[:pos])
                self.wanted = 0
                events.append(self._complete(self._release()))
            elif b"\n" not in buf:
                self._hold(buf)
                self._check_line_length()
                return
            else:
                self._hold(buf)
                buf = b"".join(self._release())
        message_type = self._message_type
        append = events.append
        find = buf.find
        cached = self._lines.get
        length = len(buf)
        while pos < length:
            end = find(b"\n", pos)
            if end < 0:
                self._hold(buf[pos:])
                self._check_line_length()
                return
            line = buf[pos:end]
            head = cached(line)
            if head is None:
                head = self._control(line, append)
                if head is None:
                    pos = end + 1
                    continue
            sid, subject, reply, header_length, size = head
            start = end + 1
            stop = start + size
            pos = stop + 2
            if pos > length:
                self._head = head
                self.wanted = pos - length
                if start < length:
                    self._hold(buf[start:])
                else:
                    self._held = 1
                return
            if buf[stop:pos] != b"\r\n":
                raise _violation("a message does not end where it should", line)
            if header_length < 0:
                append(message_type(sid, subject, reply, buf[start:stop]))
            else:
                middle = start + header_length
                append(message_type(sid, subject, reply, buf[middle:stop], buf[start:middle]))

    def _control(self, line: bytes, append: Callable[[Event], None]) -> _Head | None:
        first = line[:5].upper()
        if len(line) - 1 > (self._max_info if first[:4] == b"INFO" else self._max_control_line):
            raise _violation("a line is too long", line)
        if line[-1:] != b"\r":
            raise _violation("a line does not end with CR LF", line)
        verb, *rest = line.split(None, 1)[:1] or [b""]
        verb = verb.upper()
        if verb == b"MSG" or verb == b"HMSG":
            head = self._message_head(verb, line)
            if len(line) <= 512:
                if len(self._lines) >= 1024:
                    self._lines.clear()
                self._lines[line] = head
            return head
        if verb == b"PING":
            append(Ping())
        elif verb == b"PONG":
            append(Pong())
        elif verb == b"+OK":
            append(Ok())
        elif verb == b"INFO":
            append(Info(_info(line)))
        elif verb == b"-ERR":
            append(ServerError(line[4:].decode("utf-8", "backslashreplace").strip().strip("'")))
        else:
            raise _violation("an unknown command", line)
        return None

    def _message_head(self, verb: bytes, line: bytes) -> _Head:
        parts = line.split()
        numbers = 1 if verb == b"MSG" else 2
        if len(parts) == 3 + numbers:
            reply = ""
        elif len(parts) == 4 + numbers:
            reply = parts[3].decode("utf-8", "surrogateescape")
        else:
            raise _violation("a wrong number of arguments", line)
        sid = _number(parts[2], line)
        total = _number(parts[-1], line)
        header_length = -1 if numbers == 1 else _number(parts[-2], line)
        if total > self._max_message:
            raise _violation("a message is too long", line)
        if header_length > total:
            raise _violation("a header block is longer than its message", line)
        return sid, parts[1].decode("utf-8", "surrogateescape"), reply, header_length, total

    def _complete(self, pieces: list[bytes]) -> Message:
        sid, subject, reply, header_length, _size = self._head
        tail = pieces.pop()
        if len(tail) < 2 and pieces:
            tail = pieces.pop() + tail
        if tail[-2:] != b"\r\n":
            raise _violation("a message does not end where it should", subject.encode("utf-8", "surrogateescape"))
        pieces.append(tail[:-2])
        body = b"".join(pieces)
        if header_length < 0:
            return self._message_type(sid, subject, reply, body)
        return self._message_type(sid, subject, reply, body[header_length:], body[:header_length])

    def _hold(self, piece: bytes) -> None:
        pieces = self._pieces
        if self._held and len(pieces) == 1 and len(pieces[0]) < 8:
            pieces[0] += piece
        else:
            pieces.append(piece)
        self._held += len(piece)
        if len(pieces) > 4096:
            self._blocks.append(b"".join(pieces))
            pieces.clear()

    def _release(self) -> list[bytes]:
        pieces = self._blocks + self._pieces
        self._blocks = []
        self._pieces = []
        self._held = 0
        return pieces

    def _check_line_length(self) -> None:
        if self._held - 1 > self._max_control_line:
            first = (self._blocks or self._pieces)[0]
            if first[:4].upper() != b"INFO" or self._held - 1 > self._max_info:
                raise _violation("a line is too long", first)


def _number(text: bytes, line: bytes) -> int:
    if len(text) > 18 or not text.isdigit():
        raise _violation("a number is not one", line)
    return int(text)


def _info(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line[4:].decode())
    except (ValueError, RecursionError):
        raise _violation("an INFO that is not JSON", line) from None
    if not isinstance(fields, dict):
        raise _violation("an INFO that is not a JSON object", line)
    return fields


def _violation(what: str, line: bytes) -> errors.ProtocolError:
    return errors.explained(errors.ProtocolError, f"the server sent {what}: {line[:64]!r}")
