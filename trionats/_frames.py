"""A message checked, and made a frame.

Split off `_client`, which takes a shorter way through `heads` for small messages without headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trionats import errors
from trionats._protocol import commands, headers, subjects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats._link import Link
    from trionats._protocol.commands import Payload

    Headers = Mapping[str, str | Sequence[str]]

#: How many subjects are remembered as checked; programs that use more of them check each one each time they come back.
SUBJECTS_REMEMBERED = 4096


class Frames:
    """Makes the frames of one client.

    Attributes:
        heads: What the frames to subjects that were checked begin with.
    """

    __slots__ = ("_link", "heads")

    def __init__(self, link: Link) -> None:
        self._link = link
        self.heads: dict[str, bytes] = {}

    def make(self, subject: str, payload: Payload, reply: str, fields: Headers | None) -> tuple[bytes, int]:
        """Check a message and make its frame; nothing is queued if it raises."""
        where = (self.heads.get(subject) or self._remember(subject))[4:-1]
        back = subjects.publish_subject(reply) if reply else b""
        if payload.__class__ is not bytes:
            payload = _bytes_like(subject, payload)
        if not fields:
            size = len(payload)
            frame = commands.pub(where, back, payload)
        else:
            if not isinstance(fields, Mapping):
                raise TypeError(f"publish to {subject!r}: headers must be a mapping, not {type(fields).__name__}")
            block = headers.encode(fields)
            size = len(block) + len(payload)
            frame = commands.hpub(where, back, block, payload)
        if size > self._link.max_payload:
            text = f"publish to {subject!r}: {size} bytes of headers and payload, the server takes {self._link.max_payload}"
            raise errors.explained(errors.MaxPayloadError, text)
        return frame, size

    def _remember(self, subject: str) -> bytes:
        head = commands.pub_head(subjects.publish_subject(subject))
        if isinstance(subject, subjects.WildSubject):
            # A plain text that is equal to it is not to be found here.
            return head
        if len(self.heads) >= SUBJECTS_REMEMBERED:
            self.heads.clear()
        self.heads[subject] = head
        return head


def _bytes_like(subject: str, payload: object) -> Payload:
    """Take what can be joined into a frame; it is copied there, and only there."""
    if isinstance(payload, (bytes, bytearray)):
        return payload
    if isinstance(payload, memoryview):
        return payload if payload.c_contiguous and payload.ndim == payload.itemsize == 1 else bytes(payload)
    raise TypeError(f"publish to {subject!r}: the payload must be bytes, not {type(payload).__name__}")
