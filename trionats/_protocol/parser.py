"""Bytes in, events out.

Strategy. A chunk is parsed in one loop without a function call per message. Control lines repeat (the same subject,
sid and size), so the loop looks a line up in a bounded cache before it takes it apart; only lines of messages are in
there, which saves the look at the verb as well. What a chunk leaves unfinished is held as a list of pieces: a payload
is joined once when it is complete, a line when its end has come, so that the work grows with the bytes only.

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
MAX_MESSAGE = 64 * 1024 * 1024 + 1024 * 1024  # a server's own limit is 64 MiB

_NO_STATUS = b"NATS/1.0\r\n"
_NO_HEADERS = b"NATS/1.0\r\n\r\n"
_CACHED = 1024
_CACHED_LENGTH = 512
_CACHED_NUMBERS = 4096
_DIGITS = 18
_PIECES = 4096
_SHOWN = 64
_BEGINNING = _SHOWN


class Message:
    """A message as it came, whether or not it can be responded to.

    Args:
        sid: The number of the subscription it is for.
        subject: Where it was published to. Bytes that are not UTF-8 are surrogate escapes, here and in `reply`.
        reply: Where a reply is expected, or "".
        data: The payload.
        header_block: The raw header block, None for a message without one.
    """

    __slots__ = ("_parsed", "data", "header_block", "reply", "sid", "subject")

    if TYPE_CHECKING:
        # Not where the class is read by programs: they know it by `trionats`, in which this name means nothing.
        _parsed: header_block_of.Headers

    def __init__(self, sid: int, subject: str, reply: str, data: bytes, header_block: bytes | None = None) -> None:
        self.sid = sid
        self.subject = subject
        self.reply = reply
        self.data = data
        self.header_block = header_block

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sid={self.sid} subject={self.subject!r} reply={self.reply!r} size={self.size}>"

    @property
    def size(self) -> int:
        """How many bytes header block and payload take together."""
        block = self.header_block
        return len(self.data) if block is None else len(self.data) + len(block)

    @property
    def headers(self) -> MultiDict[str]:
        """The headers, empty when there are none; the same object each time."""
        return self._headers().fields

    @property
    def status(self) -> int | None:
        """The server's status, None for a message of a peer."""
        # Asked of every message, so that for most of them it must not cost a look at all headers.
        block = self.header_block
        return None if block is None or block.startswith(_NO_STATUS) else self._headers().status

    @property
    def description(self) -> str:
        """The server's words to its status, or ""."""
        return "" if self.header_block is None else self._headers().description

    @property
    def headers_problem(self) -> str | None:
        """What is wrong with the header block of a message whose sender made it badly; None for nothing.

        The message is delivered all the same, and `headers` has what could be read.
        """
        return None if self.header_block is None else self._headers().problem

    def _headers(self) -> header_block_of.Headers:
        # The slot stays empty until someone asks: most messages are never asked, and a store per message counts.
        try:
            return self._parsed
        except AttributeError:
            self._parsed = header_block_of.parse(self.header_block or _NO_HEADERS)
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
    """The PONG for a PING of ours."""


@dataclass(frozen=True, slots=True)
class Ok:
    """The server accepted a command (it says so in verbose mode only)."""


@dataclass(frozen=True, slots=True)
class ServerError:
    """The server complained; whether it then closes the connection depends on the text."""

    text: str


Event: TypeAlias = Message | Info | Ping | Pong | Ok | ServerError | errors.ProtocolError

_EVENTS: dict[bytes, Event] = {b"PING": Ping(), b"PONG": Pong(), b"+OK": Ok()}

_Head: TypeAlias = "tuple[int, str, str, int, int]"  # sid, subject, reply, header length or -1, total length


class Parser:
    """A server's side of a session, cut into events.

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
        "_heads",
        "_held",
        "_max_control_line",
        "_max_info",
        "_max_message",
        "_message_type",
        "_numbers",
        "_pieces",
        "_sizes",
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
        self._heads: dict[bytes, _Head] = {}
        # Keys of `_sizes` have the CR of the line's end, so that finding one proves that it is there.
        self._numbers: dict[bytes, int] = {}
        self._sizes: dict[bytes, int] = {}
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
        if self._dead:
            return events
        try:
            self._parse(data, events)
        except errors.ProtocolError as violation:
            self._dead = True
            self.wanted = 0
            self._release()
            events.append(violation)
        return events

    def _parse(self, buf: bytes, events: list[Event]) -> None:
        pos = 0
        if self.wanted or self._held:
            buf, pos = self._resume(buf, events)
        append = events.append
        message_type = self._message_type
        find = buf.find
        known = self._heads.get
        length = len(buf)
        while pos < length:
            end = find(b"\n", pos)
            if end < 0:
                self._hold_line(buf[pos:])
                return
            line = buf[pos:end]
            head = known(line)
            if head is None:
                head = self._head_of(line) or self._control(line, append)
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
                self._hold(buf[start:])
                return
            if buf[stop:pos] != b"\r\n":
                raise _unterminated(head)
            if header_length < 0:
                append(message_type(sid, subject, reply, buf[start:stop]))
            else:
                middle = start + header_length
                append(message_type(sid, subject, reply, buf[middle:stop], buf[start:middle]))

    def _head_of(self, line: bytes) -> _Head | None:
        """Read a message's line in the form that servers write, or return None."""
        parts = line.split(b" ")
        reply = b""
        header_length = -1
        try:
            if parts[0] == b"MSG":
                if len(parts) == 5:
                    _, subject, sid, reply, size = parts
                else:
                    _, subject, sid, size = parts
            elif parts[0] == b"HMSG":
                if len(parts) == 6:
                    _, subject, sid, reply, headers_size, size = parts
                else:
                    _, subject, sid, headers_size, size = parts
                header_length = self._numbers[headers_size]
            else:
                return None
            total = self._sizes[size]
            head = self._numbers[sid], subject.decode(), reply.decode(), header_length, total
        except KeyError:
            return self._head_of(line) if self._learn(parts) else None
        except UnicodeDecodeError:
            head = self._numbers[sid], _text(subject), _text(reply), header_length, total
        except ValueError:
            return None
        if header_length > total or not subject or len(line) > self._max_control_line:
            return None
        if not reply and len(line) <= _CACHED_LENGTH:
            # Replies hardly ever repeat: lines with one are not worth a place.
            if len(self._heads) == _CACHED:
                self._heads.clear()
            self._heads[line] = head
        return head

    def _learn(self, parts: list[bytes]) -> bool:
        """Take up the numbers of a message's line; False if they are not all numbers."""
        if len(parts) < 4 or parts[-1][-1:] != b"\r":
            return False
        digits = parts[-1][:-1]
        # `int` takes "1_0", "+1" and a million digits; a number on the wire is none of these.
        numbers = [parts[2], parts[-2]] if parts[0] == b"HMSG" else [parts[2]]
        if not all(number.isdigit() and len(number) <= _DIGITS for number in (digits, *numbers)):
            return False
        if int(digits) > self._max_message:
            raise _violation("a message that is too long", b" ".join(parts))
        for table in (self._numbers, self._sizes):
            if len(table) > _CACHED_NUMBERS:
                table.clear()
        self._sizes[parts[-1]] = int(digits)
        for number in numbers:
            self._numbers[number] = int(number)
        return True

    def _control(self, line: bytes, append: Callable[[Event], None]) -> _Head | None:
        """Read any line, in whatever form; the head of a message is returned, anything else appended."""
        if len(line) > self._line_limit(line):
            raise _violation("a line that is too long", line)
        if line[-1:] != b"\r":
            raise _violation("a line that does not end with CR LF", line)
        verb, _, rest = line.replace(b"\t", b" ").rstrip(b" \r").partition(b" ")
        verb = verb.upper()
        if verb in (b"MSG", b"HMSG"):
            words = [verb, *(word for word in rest.split(b" ") if word)]
            plain = b" ".join(words) + b"\r"
            head = self._head_of(plain) if plain != line else None
            if head is None:
                raise _violation("a malformed command", line)
            return head
        if verb == b"INFO":
            append(Info(_info(rest)))
        elif verb == b"-ERR":
            append(ServerError(_error_text(rest)))
        elif verb in _EVENTS:
            append(_EVENTS[verb])
        else:
            raise _violation("an unknown command", line)
        return None

    def _line_limit(self, line: bytes) -> int:
        # One more than the limit: the CR is still there.
        return 1 + (self._max_info if line[:4].upper() == b"INFO" else self._max_control_line)

    def _resume(self, data: bytes, events: list[Event]) -> tuple[bytes, int]:
        """Add to what is held; return what there is to parse now, and where it begins."""
        missing = self.wanted
        if missing > len(data):
            self.wanted = missing - len(data)
            self._hold(data)
        elif missing:
            self._hold(data[:missing])
            self.wanted = 0
            events.append(self._complete(self._release()))
            return data, missing
        elif b"\n" in data:
            self._hold(data)
            return b"".join(self._release()), 0
        else:
            self._hold_line(data)
        return b"", 0

    def _complete(self, pieces: list[bytes]) -> Message:
        # The line end comes off before the pieces are joined: a slice of the whole would copy it once more.
        tail = pieces.pop()
        if len(tail) < 2:
            tail = pieces.pop() + tail
        if tail[-2:] != b"\r\n":
            raise _unterminated(self._head)
        pieces.append(tail[:-2])
        body = b"".join(pieces)
        sid, subject, reply, header_length, _ = self._head
        if header_length < 0:
            return self._message_type(sid, subject, reply, body)
        return self._message_type(sid, subject, reply, body[header_length:], body[:header_length])

    def _hold_line(self, piece: bytes) -> None:
        self._hold(piece)
        if self._held > self._max_control_line + 1:
            beginning = (self._blocks or self._pieces)[0]
            if self._held > self._line_limit(beginning):
                raise _violation("a line that is too long", beginning)

    def _hold(self, piece: bytes) -> None:
        pieces = self._pieces
        if self._held < _BEGINNING and pieces:
            # The first piece is long enough to be judged, and to be shown.
            pieces[0] += piece
        elif piece:
            pieces.append(piece)
        self._held += len(piece)
        if len(pieces) == _PIECES:
            # A list of a great many tiny pieces takes far more memory than the bytes in them.
            self._blocks.append(b"".join(pieces))
            pieces.clear()

    def _release(self) -> list[bytes]:
        pieces = self._blocks + self._pieces
        self._blocks = []
        self._pieces = []
        self._held = 0
        return pieces


def _info(rest: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(rest.decode())
    except (ValueError, RecursionError):
        raise _violation("an INFO that is not JSON", rest) from None
    if not isinstance(fields, dict):
        raise _violation("an INFO that is not a JSON object", rest)
    return fields


def _text(raw: bytes) -> str:
    # A peer may publish to a subject that is not UTF-8, and the server delivers it.
    return raw.decode("utf-8", "surrogateescape")


def _error_text(rest: bytes) -> str:
    text = rest.decode("utf-8", "backslashreplace").strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text


def _unterminated(head: _Head) -> errors.ProtocolError:
    sid, subject, _, _, size = head
    which = f"subject {subject[:_SHOWN]!r}, sid {sid}"
    text = f"the server sent a message that does not end after its {size} bytes: {which}"
    return errors.explained(errors.ProtocolError, text)


def _violation(what: str, line: bytes) -> errors.ProtocolError:
    return errors.explained(errors.ProtocolError, f"the server sent {what}: {line[:_SHOWN]!r}")
