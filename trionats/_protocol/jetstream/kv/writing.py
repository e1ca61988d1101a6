"""What is asked of a bucket's stream when a key is written, and what its refusals mean (ADR-8, ADR-48)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, final

from trionats._protocol.fields import MOST_SECONDS
from trionats._protocol.jetstream.acks import LARGEST
from trionats._protocol.jetstream.kv.entries import OPERATION, Operation
from trionats._protocol.jetstream.publishing.publish import EXPECTED_LAST, MSG_TTL, ROLLUP, time_to_live

if TYPE_CHECKING:
    from datetime import datetime

    from trionats import api

__all__ = ["NO_MSG_TTL", "Creating", "checked_age", "checked_revision", "purge_request", "write_headers"]

#: The server's number for: messages of this stream have no TTL of their own.
NO_MSG_TTL: Final = 10166
#: After how many seconds a create tries again whose expectation was right and which was refused all the same: something else is
#: under way in a stream of several replicas.
CREATE_PAUSES: Final = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
#: How often a create begins anew because what it found was replaced meanwhile.
MOST_CHANGES: Final = 10


def checked_revision(doing: str, name: str, revision: object, *, least: int = 0) -> int:
    """Check a revision that somebody names.

    Args:
        doing: What it is named for, for the text of an exception.
        name: The argument.
        revision: What was given.
        least: The smallest that can be meant.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is a number that no revision has.
    """
    if not isinstance(revision, int) or isinstance(revision, bool):
        raise TypeError(f"{doing}: {name} must be a revision, a whole number, not {type(revision).__name__}")
    if not least <= revision <= LARGEST:
        raise ValueError(f"{doing}: {name} is {revision}: a revision is from {least} to {LARGEST}")
    return revision


def checked_age(olderthan: object) -> float:
    """Check how old markers have to be that are purged.

    Raises:
        TypeError: It is no number.
        ValueError: It is one that nothing can be compared with.
    """
    if not isinstance(olderthan, (int, float)) or isinstance(olderthan, bool):
        raise TypeError(f"purge_deletes: olderthan must be a number of seconds, not {type(olderthan).__name__}")
    if olderthan != olderthan:
        raise ValueError("purge_deletes: olderthan is not a number")
    # An infinite number will do, so one that is greater than any float does, too.
    return float(min(max(olderthan, -1), MOST_SECONDS)) if isinstance(olderthan, int) else olderthan


def write_headers(
    doing: str,
    *,
    operation: Operation | None = None,
    last: int | None = None,
    msg_ttl: float | Literal["never"] | None = None,
) -> dict[str, str]:
    """Make the headers of a message that writes a key.

    Args:
        doing: What it is written for, for the text of an exception.
        operation: None where it is a value, else which marker.
        last: Which revision the key's last one has to be, 0 for none at all; None for any.
        msg_ttl: How many whole seconds the message is to live, or "never".

    Raises:
        TypeError: An argument is of a wrong kind.
        ValueError: An argument cannot be meant.
    """
    headers: dict[str, str] = {}
    if operation is not None:
        headers[OPERATION] = operation
        if operation == "PURGE":
            headers[ROLLUP] = "sub"
    if last is not None:
        headers[EXPECTED_LAST] = str(checked_revision(doing, "last", last))
    if msg_ttl is not None:
        headers[MSG_TTL] = time_to_live(doing, msg_ttl)
    return headers


@final
@dataclass(slots=True)
class Creating:
    """What a create expects in its place: nothing, or a marker that was found there.

    A marker may be replaced between the look and the next try, by another marker, or by nothing when its time is over.
    That is tried again, a bounded number of times; only a value ends it.

    Attributes:
        expected: The revision to compare with.
    """

    expected: int = 0
    _changes: int = 0
    _refusals: int = 0

    def found(self, revision: int, *, gone: bool) -> float | None:
        """Take note of what the leader has, after the comparison was lost.

        Args:
            revision: The last revision of the key, 0 for none.
            gone: Whether there is no value: it is a marker, or nothing.

        Returns:
            After how many seconds to try again; None where the key is taken, or changes too often.
        """
        if not gone:
            return None
        if revision == self.expected:
            self._refusals += 1
            return CREATE_PAUSES[self._refusals - 1] if self._refusals <= len(CREATE_PAUSES) else None
        self.expected = revision
        self._changes += 1
        return 0 if self._changes <= MOST_CHANGES else None


def purge_request(subject: str, marker: api.KeyValueEntry, now: datetime, olderthan: float) -> dict[str, Any] | None:
    """Decide what to purge of a key that is gone.

    Whatever is stored behind the marker meanwhile stays: what goes is named by its sequence, not by its count.

    Args:
        subject: The key's subject.
        marker: Its marker.
        now: The time.
        olderthan: How many seconds old a marker may be and stay; negative for all to go.

    Returns:
        The request; None where there is nothing to purge.
    """
    if olderthan < 0 or (now - marker.created).total_seconds() > olderthan:
        return {"filter": subject, "seq": marker.revision + 1}
    # Before the marker of a purge there is nothing, nor before the stream's first message; there, servers up to 2.14.0 would purge
    # the marker as well.
    nothing_before = marker.operation == "PURGE" or marker.revision == 1
    return None if nothing_before else {"filter": subject, "seq": marker.revision}
