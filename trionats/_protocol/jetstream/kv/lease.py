"""What a lease decides: what stands under its key, whether that is its own, when to renew it, and when it is lost.

How a lease holds its key
    It writes a message that the server deletes after `ttl` seconds, and only over what it saw there last (compare-and-set); each
    renewal is another such message over the one before. So the key changes hands in two ways: whoever holds it deletes it, or
    lets `ttl` seconds pass *at the server* after the server took the last renewal.

Why two never hold it
    A lease believes in itself until `ttl` seconds after it *sent* the last renewal that is known to be stored. What was sent
    cannot arrive before, so the server's seconds end later than ours, whatever was delayed on the way, and whatever was lost: a
    renewal that is in doubt changes nothing until it is known. The two clocks have to run at one speed, and need not agree.

What is known of a renewal
    Its acknowledgement says that it was stored. A lost one is found out by looking, since each attempt has a stamp of its own:
    the lease's token and a number. If the last message has the stamp of an attempt, that one was stored, and it was sent when
    that attempt was; then all others fail, since they expect something else to be the last. A refusal alone says nothing: what it
    complains of may be our own renewal from before.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, final

from trionats._protocol.fields import MOST_SECONDS
from trionats._protocol.jetstream.kv.entries import MARKER_REASON, operation_of
from trionats._protocol.jetstream.kv.writing import write_headers
from trionats._protocol.jetstream.publishing.publish import MSG_TTL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trionats import api

__all__ = [
    "SPREAD",
    "STAMP",
    "Attempt",
    "Patience",
    "Sighting",
    "Tenure",
    "checked_ttl",
    "release_headers",
    "sighting",
    "unfit",
]

#: The header by which a lease knows what it wrote.
STAMP: Final = "Trionats-Lease"
#: The server cuts a TTL to whole seconds, and deletes what is due up to a quarter of a second later.
LEAST_TTL: Final = 2
#: In what part of its TTL a lease is renewed, and how long an answer is waited for; and how soon it is tried again after a failure.
RENEWED_AFTER: Final = 1 / 3
RETRIED_AFTER: Final = 1 / 12
#: Over how many seconds those who wait spread their attempts when the key is free.
SPREAD: Final = 0.02
#: How long a lease may be overdue before somebody who waits looks for himself; and how often he does where nothing is due.
GRACE: Final = 0.5
LOOKED_AFTER: Final = 30.0

#: The call, for texts.
_DOING: Final = "open_lease()"


class Sighting(NamedTuple):
    """What stands under a key.

    Attributes:
        revision: The sequence of the key's last message; 0 where there is none.
        taken: Whether that is a value, not a marker.
        stamp: What a lease says of itself in it; empty where none wrote it.
        ttl: How many seconds it lives; infinite where it does not say.
        expired: Whether it is a marker that says that what was there before has lived for so long.
    """

    revision: int
    taken: bool = False
    stamp: str = ""
    ttl: float = inf
    expired: bool = False

    def __str__(self) -> str:
        if self.taken:
            return f"somebody else holds it (revision {self.revision})"
        if not self.revision or self.expired:
            return "it expired before a renewal of it came" if self.expired else "nothing stands there any more"
        return f"it was deleted (revision {self.revision})"


def sighting(revision: int, headers: Mapping[str, str]) -> Sighting:
    """Read a message of a key.

    Args:
        revision: Its sequence.
        headers: Its headers.
    """
    ttl = headers.get(MSG_TTL, "")
    seconds = ttl.removesuffix("s")
    known = ttl != seconds and seconds.isascii() and seconds.isdigit() and len(seconds) <= len(str(MOST_SECONDS))
    lives = float(seconds) if known else inf
    expired = headers.get(MARKER_REASON) == "MaxAge"
    return Sighting(revision, operation_of(headers) is None, headers.get(STAMP, ""), lives, expired)


def checked_ttl(ttl: object) -> int:
    """Check how long a lease lives without a renewal.

    Returns:
        Seconds.

    Raises:
        TypeError: It is no number.
        ValueError: It is one that cannot be.
    """
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool):
        raise TypeError(f"{_DOING}: ttl must be whole seconds, not {type(ttl).__name__}")
    if not LEAST_TTL <= ttl <= MOST_SECONDS or ttl != int(ttl):
        why = "the server cuts it to whole seconds" if LEAST_TTL <= ttl <= MOST_SECONDS else ""
        text = f"{_DOING}: ttl is {_shown(ttl)}: it must be whole seconds, from {LEAST_TTL} to {MOST_SECONDS}"
        raise ValueError(f"{text}; {why}" if why else text)
    return int(ttl)


def _shown(ttl: float) -> str:
    # A whole number of any size is one, and what has hundreds of digits is no float.
    return f"{ttl:g}" if -MOST_SECONDS <= ttl <= MOST_SECONDS or isinstance(ttl, float) else "far off"


def unfit(config: api.StreamConfig, ttl: int) -> list[str]:
    """Say what a bucket lacks to hold a lease.

    Args:
        config: The configuration of its stream.
        ttl: The lease's, in seconds.

    Returns:
        What has to be otherwise, each for itself; nothing where it will do.
    """
    found = []
    if config.mirror is not None:
        found.append("it is a mirror: the lease belongs into the bucket that it mirrors")
    if config.max_msgs_per_subject != 1:
        found.append("its history must be 1: what expires would uncover the value before")
    if not config.allow_msg_ttl or not config.subject_delete_marker_ttl:
        found.append("it has no limit markers (limit_marker_ttl), which tell those who wait that a lease expired")
    if config.max_age and config.max_age < ttl:
        found.append(f"its ttl of {config.max_age:g} s ends a lease before the lease's own of {ttl} s")
    return found


def release_headers(revision: int, ttl: int) -> dict[str, str]:
    """Write the headers of what gives a key back: a marker, which vanishes without a trace when everybody has seen it.

    Args:
        revision: What it is to replace.
        ttl: How many seconds the marker lives.
    """
    # A purge, since that of a deletion would leave a marker of the server's in its turn.
    return write_headers(_DOING, operation="PURGE", last=revision, msg_ttl=ttl)


@final
@dataclass(frozen=True, slots=True)
class Attempt:
    """One message that is to take or to keep the key.

    Attributes:
        stamp: What it is known by.
        headers: Its headers, all of them.
    """

    stamp: str
    headers: dict[str, str]


@final
class Tenure:
    """One lease's hold on its key: what it knows of it, and for how long it may believe that.

    Args:
        token: A name that no other lease has.
        ttl: How many seconds the server keeps what it wrote.
    """

    __slots__ = ("_count", "_prefix", "_sent", "deadline", "due", "revision", "ttl")

    def __init__(self, token: str, ttl: int) -> None:
        self._prefix = f"{token}."
        self._count = 0
        # When what may have been stored was sent, by its stamp.
        self._sent: dict[str, float] = {}
        self.ttl = ttl
        self.revision = 0
        """The sequence of the last message that is known to be its own; 0 for none."""
        self.deadline = -inf
        """Until when nobody else can hold the key. It never goes back."""
        self.due = -inf
        """When to renew it."""

    @property
    def in_doubt(self) -> bool:
        """Whether something that was sent may have been stored without its being known."""
        return bool(self._sent)

    @property
    def response_limit(self) -> float:
        """How many seconds an answer to an attempt is waited for."""
        return self.ttl * RENEWED_AFTER

    def attempt(self, now: float, expected: int) -> Attempt:
        """Make the next message.

        Args:
            now: The time, before it is sent.
            expected: What is to be the key's last message: what `revision` says, for a renewal.
        """
        self._count += 1
        stamp = f"{self._prefix}{self._count}"
        # What was sent longer ago cannot make it last any longer.
        self._sent = {stamp: sent for stamp, sent in self._sent.items() if sent + self.ttl > now}
        self._sent[stamp] = now
        return Attempt(stamp, {**write_headers(_DOING, last=expected, msg_ttl=self.ttl), STAMP: stamp})

    def stored(self, stamp: str, revision: int) -> None:
        """Take note that an attempt is stored.

        Args:
            stamp: The attempt's.
            revision: Its sequence.
        """
        if revision <= self.revision:
            return
        sent = self._sent.get(stamp, -inf)
        # All others expected something else to be the last, and are refused.
        self._sent.clear()
        self.revision = revision
        self.deadline = max(self.deadline, sent + self.ttl)
        self.due = sent + self.ttl * RENEWED_AFTER

    def failed(self, now: float) -> None:
        """Take note that an attempt to renew it came to nothing, or is in doubt."""
        self.due = now + self.ttl * RETRIED_AFTER

    def refused(self, stamp: str) -> None:
        """Take note that the stream has not stored an attempt, and will not."""
        self._sent.pop(stamp, None)

    def owns(self, seen: Sighting) -> bool:
        """Say whether what stands under the key is its own; if it is, it is known to be stored."""
        if not seen.taken or not seen.stamp.startswith(self._prefix):
            return False
        self.stored(seen.stamp, seen.revision)
        return True


@final
class Patience:
    """What somebody who waits for a key knows of it, and when to look at it without having been told anything.

    Whoever holds it is heard of in each third of its TTL. Then it is silent because it is gone: a marker says so, which itself is
    gone after a while. So nobody waits for longer than that without looking.

    Args:
        seen: What stands under the key.
        now: The time.
    """

    __slots__ = ("look_at", "seen")

    def __init__(self, seen: Sighting, now: float) -> None:
        self.looked(seen, now)

    def told(self, seen: Sighting, now: float) -> None:
        """Take note of what a watcher said; what is older than what is known is no news."""
        if seen.revision > self.seen.revision:
            self.looked(seen, now)

    def looked(self, seen: Sighting, now: float) -> None:
        """Take note of what stands there: asked for, it is the truth, also where less is there than before."""
        self.seen = seen
        self.look_at = now + (LOOKED_AFTER if seen.ttl == inf else seen.ttl + GRACE)
