"""A message checked, and made a frame.

`Client.publish` takes a shorter way, through `Frames.heads`, for small messages without headers (design 34).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trionats import errors
from trionats._core.deadlines import within
from trionats._protocol import commands, headers, subjects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats._connection.supervisor import Supervisor
    from trionats._protocol.commands import Frame, Payload

    Headers = Mapping[str, str | Sequence[str]]

#: How many subjects are remembered as checked; programs that use more of them check each one each time they come back.
SUBJECTS_REMEMBERED = 4096


class Frames:
    """Makes the frames of one client.

    Attributes:
        heads: What the frames to subjects that were checked begin with.
    """

    __slots__ = ("_supervisor", "heads")

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.heads: dict[str, bytes] = {}

    def make(
        self, subject: str, payload: Payload, reply: str, fields: Headers | None, doing: str = "publish"
    ) -> tuple[Frame, int]:
        """Check a message and make its frame; nothing is queued if it raises.

        Args:
            subject: Where to.
            payload: The message.
            reply: Where a reply is expected, or nothing.
            fields: The headers, or nothing.
            doing: "publish" or "request", for texts.
        """
        try:
            head = self.heads.get(subject)
        except TypeError:
            # What has no hash is no text, and is told so.
            head = None
        where = (head or self._remember(subject, doing))[4:-1]
        if not reply:
            back = b""
        elif reply.__class__ is str:
            back = subjects.publish_subject(reply)
        else:
            back = _reply(f"{doing} to {subject!r}", reply)
        if payload.__class__ is not bytes:
            payload = _bytes_like(f"{doing} to {subject!r}", payload)
        return self._framed(doing, subject, where, back, payload, fields)

    def response(self, reply: str, payload: Payload, fields: Headers | None) -> tuple[Frame, int]:
        """Make the frame of what goes to the reply subject of a message, as `make` does.

        Args:
            reply: The reply subject, as the server gave it: it is not checked again, and not remembered.
            payload: The response.
            fields: Its headers, or nothing.
        """
        where = reply.encode("utf-8", "surrogateescape")
        if not fields and payload.__class__ is bytes and (size := len(payload)) <= self._supervisor.small:
            return b"".join((b"PUB ", where, b" ", commands.LENGTHS[size], payload, commands.CRLF)), size
        if payload.__class__ is not bytes:
            payload = _bytes_like(f"respond to {reply!r}", payload)
        return self._framed("respond", reply, where, b"", payload, fields)

    def _framed(
        self, doing: str, subject: str, where: bytes, back: bytes, payload: Payload, fields: Headers | None
    ) -> tuple[Frame, int]:
        if not fields:
            size = len(payload)
            frame = commands.publish(where, back, b"", payload)
        else:
            if not isinstance(fields, Mapping):
                raise _no_headers(doing, subject, fields)
            block = headers.encode(fields)
            size = len(block) + len(payload)
            frame = commands.publish(where, back, block, payload)
        if size > self._supervisor.max_payload:
            text = f"{doing} to {subject!r}: {size} bytes of headers and payload, the server takes {self._supervisor.max_payload}"
            raise errors.explained(errors.MaxPayloadError, text)
        return frame, size

    def _remember(self, subject: str, doing: str) -> bytes:
        head = commands.pub_head(subjects.publish_subject(subject, f"{doing} to"))
        if isinstance(subject, subjects.WildSubject):
            # A plain text that is equal to it is not to be found here.
            return head
        if len(self.heads) >= SUBJECTS_REMEMBERED:
            self.heads.clear()
        self.heads[subject] = head
        return head


def _no_headers(doing: str, subject: str, fields: object) -> TypeError:
    # Where nats-py has the timeout.
    hint = f"; it takes no timeout: {within(doing)}" if doing == "request" and isinstance(fields, (int, float)) else ""
    return TypeError(f"{doing} to {subject!r}: headers must be a mapping, not {type(fields).__name__}{hint}")


def _reply(what: str, reply: object) -> bytes:
    if not isinstance(reply, str):
        raise TypeError(f"{what}: reply must be text, not {type(reply).__name__}")
    return subjects.publish_subject(reply)


def _bytes_like(what: str, payload: object) -> Payload:
    """Take what can be joined into a frame; it is copied there, and only there, or not at all (`commands.LargeFrame`).

    Its length must be that of what is joined: what has a length of its own mind would have the server read on in the
    wrong place, so it is copied first.
    """
    if type(payload) is bytes or type(payload) is bytearray:
        return payload
    if isinstance(payload, (bytes, bytearray)):
        return memoryview(payload).tobytes()
    if isinstance(payload, memoryview):
        return payload if payload.c_contiguous and payload.ndim == payload.itemsize == 1 else payload.tobytes()
    raise TypeError(f"{what}: the payload must be bytes, not {type(payload).__name__}")
