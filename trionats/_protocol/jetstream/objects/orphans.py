"""Which chunks are orphans: those that no object names, and that are older than a put may still need them.

A put stores its chunks first and its info last, so what nobody names may belong to one that is under way. How long that may
take has no limit, since the source of its data may be slow; so the *newest* chunk decides, and whoever asks says how old it has to be.

An object may be renamed while the infos are read: its old info is gone then before it is read, and the new one stands
behind the end. So the infos are read on, until the last one that was read is the last one that there is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, final

from trionats import api
from trionats._protocol.jetstream.acks import count_of
from trionats._protocol.jetstream.objects.infos import is_sound
from trionats._told.moments import moment_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Candidates", "Found", "checked_age", "claimed"]


def checked_age(call: str, older_than: float) -> float:
    """Check how old an orphan has to be.

    Args:
        call: The call, for texts.
        older_than: The seconds that were asked for.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, or no number after all.
    """
    if isinstance(older_than, bool) or not isinstance(older_than, int | float):
        raise TypeError(f"{call}: older_than must be a number of seconds, not {type(older_than).__name__}")
    if not older_than >= 0:
        raise ValueError(f"{call}: older_than is {older_than}: it is 0 at the least")
    return older_than


def claimed(data: bytes) -> str:
    """Say under which nuid the chunks are that an info names, readable or not; empty for a marker's, which nobody reads any more.

    Args:
        data: The payload of the message that should be an info.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(fields, dict) or fields.get("deleted") is True:
        return ""
    nuid = fields.get("nuid")
    return nuid if is_sound(nuid) else ""


class Found(NamedTuple):
    """An orphan, and up to which sequence it is one.

    Attributes:
        orphan: The orphan.
        last: The sequence of its newest chunk.
    """

    orphan: api.Orphan
    last: int


@dataclass(slots=True)
class _Chunks:
    count: int = 0
    size: int = 0
    last: int = 0
    oldest: int = 0
    newest: int = 0


@final
class Candidates:
    """What is stored of chunks, until somebody names them.

    Args:
        prefix: What stands before the nuid in the subject of a chunk.
        subjects: The subjects under which chunks are stored.
    """

    def __init__(self, prefix: str, subjects: Iterable[str]) -> None:
        self._prefix = prefix
        nuids = (subject.removeprefix(prefix) for subject in subjects)
        self._found = {nuid: _Chunks() for nuid in nuids if is_sound(nuid)}

    def __bool__(self) -> bool:
        return bool(self._found)

    def __contains__(self, nuid: object) -> bool:
        return nuid in self._found

    @property
    def subjects(self) -> list[str]:
        """The subjects of what nobody has named so far."""
        return [self._prefix + nuid for nuid in self._found]

    def named(self, nuid: str) -> None:
        """Take note that an object names them."""
        self._found.pop(nuid, None)

    def chunk(self, subject: str, sequence: int, timestamp: int, size: object) -> None:
        """Take note of one chunk.

        Args:
            subject: Its subject.
            sequence: Its sequence.
            timestamp: When it was stored, in nanoseconds since 1970.
            size: How many bytes it has, as the server's header says.
        """
        chunks = self._found.get(subject.removeprefix(self._prefix))
        if chunks is None:
            return
        chunks.count += 1
        chunks.size += count_of(int(size)) or 0 if isinstance(size, str) and size.isdecimal() else 0
        chunks.oldest = chunks.oldest or timestamp
        chunks.last, chunks.newest = sequence, timestamp

    def old(self, now: datetime, older_than: float) -> list[Found]:
        """Say which are orphans, and forget the others: those with newer chunks, and those that are gone by now.

        Args:
            now: The server's time.
            older_than: How many seconds ago the newest chunk was stored, at the least.
        """
        old = {
            nuid: chunks
            for nuid, chunks in self._found.items()
            if chunks.count and (now - moment_of(chunks.newest)).total_seconds() >= older_than
        }
        self._found = old
        return [
            Found(
                api.Orphan(nuid, chunks.count, chunks.size, moment_of(chunks.oldest), moment_of(chunks.newest)),
                chunks.last,
            )
            for nuid, chunks in old.items()
        ]
