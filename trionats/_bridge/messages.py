"""nats-py's messages as our own, and how much they count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trionats import errors
from trionats._core.message import Msg
from trionats._protocol import headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.msg import Msg as NatsPyMsg

__all__ = ["ours", "size_of"]


def ours(message: NatsPyMsg) -> Msg:
    """Make a message of our own class of nats-py's; it cannot be responded to."""
    block = None
    fields = message.headers
    if fields:
        status = fields.get("Status", "") if not message.data else ""
        if len(status) == 3 and status.isdigit():
            rest = {name: value for name, value in fields.items() if name not in ("Status", "Description")}
            # Where the server says no words, nats-py takes the next header line for them.
            line = f"NATS/1.0 {status} {fields.get('Description', '')}\r\n".encode()
            block = line + _encode(rest).partition(b"\r\n")[2]
        else:
            block = _encode(fields)
    return Msg(message.sid, message.subject, message.reply, message.data, block)


def _encode(fields: Mapping[str, str]) -> bytes:
    try:
        return headers.encode(fields)
    except errors.BadHeaderError:
        # A peer sent what no client should: that header is left out rather than the message.
        return headers.encode({name: value for name, value in fields.items() if _is_sound(name, value)})


def _is_sound(name: str, value: str) -> bool:
    try:
        headers.encode({name: value})
    except errors.BadHeaderError:
        return False
    return True


def size_of(message: NatsPyMsg) -> int:
    """Count the bytes of a message's headers and payload, as they came."""
    if not message.headers:
        return len(message.data)
    return sum(len(name) + len(value) + 4 for name, value in message.headers.items()) + 12 + len(message.data)
