"""Commands in, bytes out.

Each function makes one whole frame as one object, so that half a frame cannot be queued: bytes, or a `LargeFrame`. Subjects, queue groups
and header blocks come checked and encoded from `subjects` and `headers`; nothing is checked again here.

Frames with a payload are joined, not formatted: `%` grows its result while it writes, which makes a frame of 128 KiB
25 times as expensive.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = [
    "CRLF",
    "LARGE",
    "LENGTHS",
    "PING",
    "PONG",
    "Aside",
    "Frame",
    "LargeFrame",
    "Passing",
    "Payload",
    "connect",
    "hpub",
    "is_programs",
    "is_publish",
    "pub",
    "pub_head",
    "publish",
    "sub",
    "taken_apart",
    "unsub",
    "with_reply",
]

#: What a payload may be; it is copied once, into its frame, or never (`LargeFrame`).
Payload: TypeAlias = "bytes | bytearray | memoryview"

CRLF = b"\r\n"
_SMALL = 4096
#: The ends of control lines with a small payload: joining what is there takes half the time of formatting.
LENGTHS = tuple(b"%d\r\n" % length for length in range(_SMALL))
#: From how many bytes on a payload that cannot change is left where it is: below that, its copy costs less than its pieces.
LARGE: Final = 32_768
PING = b"PING\r\n"
PONG = b"PONG\r\n"


class Aside(bytes):
    """A publish of our own, that no program asked for: no end waits for it, and nobody is told that it was lost."""


class Passing(Aside):
    """One that means nothing to the next connection."""


@final
class LargeFrame:
    """A PUB or HPUB with a large payload, which is not copied: it stays where it is until it is sent.

    Args:
        head: What stands before the payload.
        payload: The payload, which nobody can change any more.
    """

    __slots__ = ("head", "payload")

    def __init__(self, head: bytes, payload: bytes | memoryview) -> None:
        self.head = head
        self.payload = payload

    def __len__(self) -> int:
        return len(self.head) + len(self.payload) + len(CRLF)

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def pieces(self) -> tuple[bytes, bytes | memoryview, bytes]:
        """What the frame consists of, in order."""
        return self.head, self.payload, CRLF


#: One whole command.
Frame: TypeAlias = "bytes | LargeFrame"


def is_publish(frame: Frame) -> bool:
    """Say whether a frame is a PUB or HPUB."""
    return isinstance(frame, LargeFrame) or frame.startswith((b"PUB ", b"HPUB "))


def is_programs(frame: Frame) -> bool:
    """Say whether a frame is a publish that a program asked for."""
    return not isinstance(frame, Aside) and is_publish(frame)


def connect(options: Mapping[str, Any]) -> bytes:
    """Say who we are and what we understand.

    Args:
        options: The fields of the CONNECT document.

    Returns:
        The frame. JSON escapes all that could end its line.
    """
    return b"CONNECT %b\r\n" % json.dumps(options, separators=(",", ":"), allow_nan=False).encode("ascii")


def pub(subject: bytes, reply: bytes, data: Payload) -> bytes:
    """Publish a message without headers.

    Args:
        subject: Where to.
        reply: Where replies are expected, b"" for nowhere.
        data: The payload.

    Returns:
        The frame.
    """
    length = len(data)
    end = LENGTHS[length] if length < _SMALL else b"%d\r\n" % length
    if reply:
        return b"".join((b"PUB ", subject, b" ", reply, b" ", end, data, CRLF))
    return b"".join((b"PUB ", subject, b" ", end, data, CRLF))


def pub_head(subject: bytes) -> bytes:
    """Make what a PUB without reply begins with; its length (as in `LENGTHS`), payload and CRLF are to follow.

    Args:
        subject: Where to.

    Returns:
        The beginning, which a publisher of many messages to one subject keeps.
    """
    return b"PUB %b " % subject


def hpub(subject: bytes, reply: bytes, header_block: bytes, data: Payload) -> bytes:
    """Publish a message with headers.

    Args:
        subject: Where to.
        reply: Where replies are expected, b"" for nowhere.
        header_block: What `headers.encode` made.
        data: The payload.

    Returns:
        The frame.
    """
    length = len(header_block)
    total = length + len(data)
    to = subject + b" " + reply if reply else subject
    return b"".join((b"HPUB ", to, b" %d %d\r\n" % (length, total), header_block, data, CRLF))


def publish(subject: bytes, reply: bytes, header_block: bytes, data: Payload) -> Frame:
    """Publish a message of any kind and size.

    Args:
        subject: Where to.
        reply: Where replies are expected, b"" for nowhere.
        header_block: What `headers.encode` made, b"" for no headers.
        data: The payload.

    Returns:
        The frame. It holds a large payload that cannot change as it is.
    """
    length = len(data)
    if length >= LARGE and (fixed := _unchanging(data)) is not None:
        to = subject + b" " + reply if reply else subject
        if not header_block:
            return LargeFrame(b"PUB %b %d\r\n" % (to, length), fixed)
        block = len(header_block)
        return LargeFrame(b"HPUB %b %d %d\r\n%b" % (to, block, block + length, header_block), fixed)
    return hpub(subject, reply, header_block, data) if header_block else pub(subject, reply, data)


def _unchanging(data: Payload) -> bytes | memoryview | None:
    if isinstance(data, memoryview):
        # A view of its own: who made the other one may release it.
        return memoryview(data) if type(data.obj) is bytes else None
    return data if type(data) is bytes else None


def publish_size(frame: Frame) -> int:
    """Read back how many bytes of headers and payload a PUB or HPUB has.

    Args:
        frame: The frame, whole, as it was made here.

    Returns:
        What counts towards the server's `max_payload`.
    """
    head = frame.head if isinstance(frame, LargeFrame) else frame
    line = head[: head.index(CRLF)]
    return int(line[line.rindex(b" ") + 1 :])


def taken_apart(frame: Frame) -> tuple[bytes | None, bytes]:
    """Read back what a PUB or HPUB says.

    Args:
        frame: The frame, whole, as it was made here.

    Returns:
        Its header block, None where there is none, and its payload.
    """
    line, _, rest = bytes(frame).partition(CRLF)
    payload = len(rest) - len(CRLF)
    if line.startswith(b"PUB "):
        return None, rest[:payload]
    block = int(line.split(b" ")[-2])
    return rest[:block], rest[block:payload]


def with_reply(frame: Frame, reply: bytes) -> Frame:
    """Make a PUB or HPUB with another reply subject, and all else the same.

    Args:
        frame: The frame, whole, as it was made here with a reply subject.
        reply: The other one.
    """
    head = frame.head if isinstance(frame, LargeFrame) else frame
    verb, subject, _, rest = head.split(b" ", 3)
    anew = b" ".join((verb, subject, reply, rest))
    return LargeFrame(anew, frame.payload) if isinstance(frame, LargeFrame) else anew


def sub(subject: bytes, queue: bytes, sid: int) -> bytes:
    """Subscribe.

    Args:
        subject: What to, with or without wildcards.
        queue: The queue group, b"" for none.
        sid: The subscription's number, never used before on this connection.

    Returns:
        The frame.
    """
    if queue:
        return b"SUB %b %b %d\r\n" % (subject, queue, sid)
    return b"SUB %b %d\r\n" % (subject, sid)


def unsub(sid: int, max_msgs: int = 0) -> bytes:
    """Unsubscribe, now or later.

    Args:
        sid: The subscription's number.
        max_msgs: After how many messages since it was subscribed; 0 for now.

    Returns:
        The frame.
    """
    if max_msgs:
        return b"UNSUB %d %d\r\n" % (sid, max_msgs)
    return b"UNSUB %d\r\n" % sid
