"""What replies say: that nobody is listening, and, of many to one request, when there are enough (ADR-47).

Four things end a request for many, whichever comes first: the total time, a stall (no further reply for a while; the first one
has the whole total), a number of replies, and a sentinel, which is a reply that says that it is the last and is not kept
itself. And one makes it fail: nobody is listening.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any, Final

from trionats import errors
from trionats._protocol.fields import check_argument

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._protocol.parser import Message

__all__ = [
    "NO_RESPONDERS",
    "Disposition",
    "ReplyPolicy",
    "check_stall",
    "no_jetstream",
    "no_responders",
    "no_stream",
    "nobody_listens",
]

#: The status of the server's word that nobody listens to what was published with a reply subject.
NO_RESPONDERS: Final = 503


def nobody_listens(reply: Message) -> bool:
    """Say whether a reply is the server's word that nobody listens to the request."""
    return reply.header_block is not None and not reply.data and reply.status == NO_RESPONDERS


def no_responders(subject: str) -> errors.NoRespondersError:
    """Make the error for a request that nobody listens to."""
    return errors.explained(errors.NoRespondersError, f"request to {subject!r}: nobody is listening there")


def no_stream(doing: str, why: str = "no stream answers there") -> errors.NoStreamResponseError:
    """Make the error for a publish into a stream, where none is listening.

    Args:
        doing: What was published, for the text.
        why: What is known of it.
    """
    text = f"{doing}: {why}"
    return errors.explained(errors.NoStreamResponseError, text, description=text)


def no_jetstream(subject: str, prefix: str) -> errors.ServiceUnavailableError:
    """Make the error for a request to the JetStream API, where no server is listening.

    Args:
        subject: Where the request went.
        prefix: The API's prefix.
    """
    text = f"nobody answers {subject!r}: JetStream is not enabled, has no leader, or is not at {prefix!r}"
    known = {"code": NO_RESPONDERS, "err_code": None, "stream": None, "seq": None}
    return errors.explained(errors.ServiceUnavailableError, text, description=text, **known)


def check_stall(call: str, stall: object) -> None:
    """Check after how many seconds without a further reply there are enough.

    Args:
        call: Who is given it, for the text: "SystemClient".
        stall: What was given.

    Raises:
        TypeError: It is no number.
        ValueError: It is not positive.
    """
    check_argument(call, "stall", float, stall)
    if not isinstance(stall, (int, float)) or not stall > 0:
        raise ValueError(f"{call}: stall is {stall}: it must be more than 0 seconds")


class Disposition(enum.Enum):
    """What becomes of a reply."""

    KEEP = enum.auto()
    """It is kept, and more may come."""
    LAST = enum.auto()
    """It is kept, and the last."""
    OVER = enum.auto()
    """It is not kept, and nothing after it is."""
    NOBODY = enum.auto()
    """It is the server's, and says that nobody listens."""


class ReplyPolicy:
    """The replies to one request, as far as they are counted and timed.

    Args:
        now: When the request was made.
        total: How long the whole may take.
        stall: How long after a reply another one may take; None for as long as the whole.
        max_msgs: How many replies are enough; 0 for no limit.
        sentinel: Says of a reply whether it is the mark behind the last one. What it raises comes out of `received`.

    Raises:
        TypeError: An argument is of a wrong kind.
        ValueError: A number is none that could be meant.
    """

    def __init__(
        self,
        now: float,
        *,
        total: float = math.inf,
        stall: float | None = None,
        max_msgs: int = 0,
        sentinel: Callable[[Any], object] | None = None,
    ) -> None:
        if not isinstance(max_msgs, int):
            raise TypeError(f"max_msgs is {max_msgs!r}: it must be a whole number")
        if not isinstance(stall, (int, float, type(None))):
            raise TypeError(f"stall is {stall!r}: it must be a number of seconds, or None")
        if not (sentinel is None or callable(sentinel)):
            raise TypeError(f"sentinel is {sentinel!r}: it must be a function of an answer")
        if max_msgs < 0:
            raise ValueError(f"max_msgs is {max_msgs}: it must be 0, for no limit, or more")
        if stall is not None and not stall > 0:
            raise ValueError(f"stall is {stall}: it must be more than 0 seconds, or None")
        self._stall = math.inf if stall is None else stall
        self._left = max_msgs or math.inf
        self._sentinel = sentinel
        self._total_ends = now + total
        self.ends = self._total_ends
        """When it is over unless something comes before; `received` moves it."""

    def received(self, reply: Message, now: float) -> Disposition:
        """Take a reply.

        Args:
            reply: The reply.
            now: When it came.

        Returns:
            What becomes of it.
        """
        if nobody_listens(reply):
            return Disposition.NOBODY
        if now >= self.ends or (self._sentinel is not None and self._sentinel(reply)):
            return Disposition.OVER
        self._left -= 1
        if self._left <= 0:
            return Disposition.LAST
        self.ends = min(self._total_ends, now + self._stall)
        return Disposition.KEEP
