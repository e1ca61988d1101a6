"""What the reply subject of a JetStream message says, what may be sent there, and the numbers that JetStream says elsewhere.

What comes is somebody's word, so what is no number of the kind that was to come is none.

What is sent there is judged here, because the server does not: it confirms what it does not understand, and a NAK behind an ACK,
and does nothing. So the bodies are exact, and a message gets one final verdict (`Standing`, design 75). Only an ACK whose confirmation was
waited for can be in doubt; then the same may be sent again, which does no harm, and nothing else.
"""

from __future__ import annotations

import enum
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from trionats._protocol import fields
from trionats._told.moments import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ACK",
    "IN_PROGRESS",
    "LARGEST",
    "NAK",
    "AckSubject",
    "NextReply",
    "Standing",
    "Verdict",
    "count_of",
    "exception_kinds",
    "judge_next",
    "nak_body",
    "next_body",
    "parse_ack_subject",
    "term_body",
    "verdict_on",
    "whole_number",
]

#: Sequences, counts and times are 63 bits wide: a year beyond 2262 would be none to those who read it.
LARGEST: Final = (1 << 63) - 1

ACK: Final = b"+ACK"
NAK: Final = b"-NAK"
IN_PROGRESS: Final = b"+WPI"
#: How long the reason of a `+TERM` may be, in bytes: it stands in an advisory, and the server does not bound it.
LONGEST_REASON: Final = 1024


class Verdict(enum.Enum):
    """What is said of a message."""

    ACK = enum.auto()
    NAK = enum.auto()
    TERM = enum.auto()
    IN_PROGRESS = enum.auto()
    """Not final: it may be said again, and others after it."""


class Standing(enum.Enum):
    """What was said of a message so far, in words for an error."""

    OPEN = ""
    ACKED = "was acknowledged already"
    NAKED = "was given back (nak) already"
    TERMINATED = "was terminated (term) already"
    UNASKED = "has no reply subject, so nobody waits for a verdict on it"
    IN_DOUBT = "may have been acknowledged already, so it can only be acknowledged again"

    def after(self, verdict: Verdict) -> Standing | None:
        """Say what is said of it once this verdict was sent.

        Args:
            verdict: What is to be said.

        Returns:
            None where it must not be said.
        """
        return _AFTER.get((self, verdict))


_AFTER: Final = {
    (Standing.OPEN, Verdict.ACK): Standing.ACKED,
    (Standing.OPEN, Verdict.NAK): Standing.NAKED,
    (Standing.OPEN, Verdict.TERM): Standing.TERMINATED,
    (Standing.OPEN, Verdict.IN_PROGRESS): Standing.OPEN,
    (Standing.IN_DOUBT, Verdict.ACK): Standing.ACKED,
}


def nak_body(delay: float | None) -> bytes:
    """Write the body of a NAK.

    Args:
        delay: After how many seconds the message is to be delivered again; None for at once.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, or more than the server can keep.
    """
    if delay is None:
        return NAK
    fields.check_argument("nak", "delay", float | None, delay)
    nanoseconds = int(delay * NANOSECONDS)
    return b'%b {"delay": %d}' % (NAK, nanoseconds) if nanoseconds else NAK


def term_body(reason: str | None) -> bytes:
    """Write the body of a `+TERM`.

    Args:
        reason: Why, for the server's advisory.

    Raises:
        TypeError: It is no text.
        ValueError: It cannot stand in one line, or is too long.
    """
    if reason is None:
        return b"+TERM"
    fields.check_argument("term", "reason", str | None, reason)
    if not reason.isprintable():
        raise ValueError(f"term: reason must be one line of printable text, not {reason[:40]!r}")
    data = reason.strip().encode()
    if len(data) > LONGEST_REASON:
        raise ValueError(f"term: reason has {len(data)} bytes: at most {LONGEST_REASON} are told")
    return b"+TERM " + data if data else b"+TERM"


def next_body(expires: float) -> bytes:
    """Write the body that acknowledges a message and asks for the next one.

    Args:
        expires: How many seconds the server waits for one. Without that it would wait for ever.
    """
    request = {"batch": 1, "expires": max(1, int(expires * NANOSECONDS))}
    return b"+NXT " + json.dumps(request, separators=(",", ":")).encode()


def exception_kinds(given: object) -> tuple[type[Exception], ...]:
    """Read which exceptions terminate a message.

    Args:
        given: A class, or a tuple of classes.

    Raises:
        TypeError: It is something else.
    """
    kinds = given if isinstance(given, tuple) else (given,)
    wrong = [kind for kind in kinds if not (isinstance(kind, type) and issubclass(kind, Exception))]
    if wrong:
        raise TypeError(f"processing: term_on must be a class of exceptions or a tuple of them, not {wrong[0]!r:.80}")
    return kinds


def verdict_on(error: BaseException, terminal: tuple[type[Exception], ...]) -> tuple[Verdict, bytes]:
    """Say what becomes of a message whose processing failed.

    Args:
        error: What it raised.
        terminal: The exceptions after which another delivery would not help; a group counts if all that is in it does.

    Returns:
        The verdict and its body.
    """
    hopeless = bool(terminal) and isinstance(error, terminal)
    if terminal and not hopeless and isinstance(error, BaseExceptionGroup):
        hopeless = error.split(terminal)[1] is None
    if hopeless:
        return Verdict.TERM, b"+TERM " + type(error).__name__.encode()
    return Verdict.NAK, NAK


class NextReply(enum.Enum):
    """What the status means that comes instead of a next message."""

    NOTHING = enum.auto()
    """There is none."""
    GONE = enum.auto()
    """There is no such consumer any more."""
    REFUSED = enum.auto()
    """The consumer cannot be asked in this way."""


#: What ends a request without being anybody's fault: the time is up, or the consumer moves to another server.
_NO_FAULT: Final = ("request timeout", "interest expired", "leadership change", "server shutdown")


def judge_next(code: int, description: str) -> NextReply:
    """Say what a status means that comes instead of the next message.

    Args:
        code: 404, 408, 409, 503, ...
        description: Its text.
    """
    text = description.lower()
    if code == 503 or (code == 409 and "consumer deleted" in text):
        return NextReply.GONE
    if code == 404 or any(end in text for end in _NO_FAULT):
        return NextReply.NOTHING
    return NextReply.REFUSED


class AckSubject(NamedTuple):
    """What the reply subject of a JetStream message says about it; the timestamp counts nanoseconds."""

    stream: str
    consumer: str
    deliveries: int
    sequence: int
    consumer_sequence: int
    timestamp: int
    pending: int
    domain: str = ""


_new: Final = tuple.__new__


def parse_ack_subject(reply: str) -> AckSubject | None:
    """Read the reply subject of a JetStream message, in its old (9 tokens) or new (11 and more) form.

    Args:
        reply: The message's reply subject.

    Returns:
        What it says, or None when it is not such a subject.
    """
    try:
        prefix, attempts, place, consumer_place, time, left = reply.rsplit(".", 5)
        names = _names_in(prefix)
        if names is None:
            return _without_what_follows(reply)
        deliveries, sequence, consumer_sequence = int(attempts), int(place), int(consumer_place)
        timestamp, pending = int(time), int(left)
    except ValueError:
        return None
    if not (0 <= sequence <= LARGEST and 0 <= timestamp <= LARGEST and 0 <= pending <= LARGEST):
        return None
    stream, consumer, domain = names
    # What `AckSubject(...)` does, at half the price: this is done for each message.
    return _new(AckSubject, (stream, consumer, deliveries, sequence, consumer_sequence, timestamp, pending, domain))


@lru_cache(maxsize=64)
def _names_in(prefix: str) -> tuple[str, str, str] | None:
    """Read what is the same in all reply subjects of one consumer: the stream, the consumer and the domain.

    Kept, since most messages are of the same consumers as those before.
    """
    tokens = prefix.split(".")
    if tokens[:2] != ["$JS", "ACK"]:
        return None
    if len(tokens) == 4:
        return tokens[2], tokens[3], ""
    # ADR-15: ten tokens are neither form.
    if len(tokens) != 6:
        return None
    return tokens[4], tokens[5], "" if tokens[2] == "_" else tokens[2]


def _without_what_follows(reply: str) -> AckSubject | None:
    """Read one with more than eleven tokens: they may come one day, and mean nothing yet."""
    tokens = reply.split(".", 11)
    return parse_ack_subject(".".join(tokens[:11])) if len(tokens) > 11 else None


def whole_number(said: Mapping[str, object], name: str) -> int:
    """Read a count from a header or a JSON object.

    Args:
        said: The header fields or the object.
        name: The field's name.

    Returns:
        The number, or 0 when there is none.
    """
    value = said.get(name)
    if isinstance(value, str):
        return int(value) if len(value) < 20 and value.isascii() and value.isdigit() else 0
    return count_of(value) or 0


def count_of(value: object) -> int | None:
    """Read a count that a response holds.

    Args:
        value: Whatever stands in its place.

    Returns:
        The number, or None when it is no count.
    """
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST else None
