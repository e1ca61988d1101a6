"""Refusals in a row: which of them pass, which end a reader, and when somebody is to know.

A stream without a leader, a server that is just starting or an account that is moved refuse for a while, and that
must not end what is to survive a rolling restart. A limit of consumers or of the account stays; but the consumer of a
process that crashed takes up a place for half a minute, so even that is waited for as long as that (design 62).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from trionats import errors

if TYPE_CHECKING:
    import random

__all__ = [
    "GIVEN_UP_AFTER",
    "TOLD_AFTER",
    "Refusals",
    "Retry",
    "backoff",
    "consumer_gone",
    "is_consumer_missing",
    "is_missing",
    "passes",
]

STREAM_NOT_FOUND: Final = 10059
CONSUMER_NOT_FOUND: Final = 10014
#: The codes of what passes: no leader yet, no quorum, JetStream not switched on yet; too many requests.
PASSING_CODES: Final = frozenset({503, 429})
#: What passes under other codes: no peers at the moment, not assigned, not the leader; a stream or a consumer that is
#: offline, a member that comes or goes.
PASSING: Final = frozenset({10005, 10007, 10009, 10118, 10119, 10194, 10195, 10202})
#: What says 503 and yet stays: JetStream is not enabled for the account; there is no such account.
STAYING: Final = frozenset({10039, 10035})
#: After how many refusals in a row, that do not pass by themselves, an event says so. With the pauses of `backoff`,
#: half a second.
TOLD_AFTER: Final = 3
#: After how many of them it is given up: with those pauses 36 to 73 s, more than a consumer lives that nobody asks.
GIVEN_UP_AFTER: Final = 15
_SHORTEST_BACKOFF: Final = 0.05
_LONGEST_BACKOFF: Final = 10.0
#: How often a stream that is gone is looked for again where it may be made anew: for 0.8 to 1.6 s.
LOOKED_FOR: Final = 5


class Retry(enum.Enum):
    """What a refusal means."""

    AGAIN = enum.auto()
    """It is tried again."""
    AND_TELL = enum.auto()
    """It is tried again, and somebody should know."""
    NEVER = enum.auto()
    """Trying again is of no use."""


class Refusals:
    """The refusals that one reader met in a row.

    Args:
        patient: Whether a stream that is gone may come back at once.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient
        self._count = self._missing = 0

    def forget(self) -> None:
        """Begin to count anew: what was asked for was granted."""
        self._count = self._missing = 0

    def judge(self, error: Exception) -> Retry:
        """Say what the next refusal means.

        Args:
            error: The refusal, or whatever else came instead of a response.
        """
        if isinstance(error, (errors.ConnectionClosedError, errors.PermissionsViolationError)):
            return Retry.NEVER
        if is_missing(error):
            self._missing += 1
            return Retry.AGAIN if self._patient and self._missing < LOOKED_FOR else Retry.NEVER
        if passes(error):
            return Retry.AGAIN
        self._count += 1
        if self._count >= GIVEN_UP_AFTER:
            return Retry.NEVER
        return Retry.AND_TELL if self._count == TOLD_AFTER else Retry.AGAIN


def is_missing(error: Exception) -> bool:
    """Say whether an error means that there is no such stream."""
    return isinstance(error, errors.NotFoundError) and error.err_code == STREAM_NOT_FOUND


def is_consumer_missing(error: Exception) -> bool:
    """Say whether an error means that there is no such consumer, though its stream is there."""
    return isinstance(error, errors.NotFoundError) and error.err_code == CONSUMER_NOT_FOUND


def consumer_gone(stream: str, consumer: str, why: str, err_code: int | None = None) -> errors.ConsumerGoneError:
    """Make the error for a consumer that is not there (any more).

    Args:
        stream: The stream.
        consumer: The consumer.
        why: What is known of it: "it was deleted, or its stream".
        err_code: The server's number for it, where it gave one.
    """
    known = {"code": 404, "err_code": err_code, "description": why, "stream": stream, "consumer": consumer, "seq": None}
    return errors.explained(errors.ConsumerGoneError, f"consumer {consumer!r} of stream {stream!r}: {why}", **known)


def passes(error: Exception) -> bool:
    """Say whether a refusal is one that passes by itself; anything else than a refusal of the JetStream API does."""
    if not isinstance(error, errors.APIError):
        return True
    kind = error.err_code if isinstance(error.err_code, int) else 0
    code = error.code if isinstance(error.code, int) else 0
    return kind in PASSING or (code in PASSING_CODES and kind not in STAYING)


def backoff(failures: int, rng: random.Random) -> float:
    """Say how long to wait after a failure: exponential, at most 10 s, half of it random.

    Args:
        failures: How many there were in a row before this one.
        rng: Where the randomness comes from.

    Returns:
        Seconds.
    """
    longest = min(_LONGEST_BACKOFF, _SHORTEST_BACKOFF * 2.0 ** min(failures, 16))
    return longest * rng.uniform(0.5, 1.0)
