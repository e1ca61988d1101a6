"""Many answers to one request: which are kept, and when there are enough (ADR-47).

Four things end it, whichever comes first: the total time, a stall (no further answer for a while; the first one has the
whole total), a number of answers, and a sentinel, which is an answer that says that it is the last and is not kept itself.
And one makes it fail: nobody listens to the request.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._protocol.parser import Message

__all__ = ["ReplyPolicy", "Verdict", "nobody_listens"]

NO_RESPONDERS = 503


class Verdict(enum.Enum):
    """What becomes of an answer."""

    KEEP = enum.auto()
    """It is kept, and more may come."""
    LAST = enum.auto()
    """It is kept, and the last."""
    OVER = enum.auto()
    """It is not kept, and nothing after it is."""
    NOBODY = enum.auto()
    """It is the server's, and says that nobody listens."""


def nobody_listens(message: Message) -> bool:
    """Say whether an answer is the server's word that nobody listens to the request."""
    return message.header_block is not None and not message.data and message.status == NO_RESPONDERS


class ReplyPolicy:
    """The answers to one request, as far as they are counted and timed.

    Args:
        now: When the request was made.
        total: How long the whole may take.
        stall: How long after an answer another one may take; None for as long as the whole.
        max_msgs: How many answers are enough; 0 for no limit.
        sentinel: Says of an answer whether it is the mark behind the last one. What it raises comes out of `received`.

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

    def received(self, message: Message, now: float) -> Verdict:
        """Take an answer.

        Args:
            message: The answer.
            now: When it came.

        Returns:
            What becomes of it.
        """
        if nobody_listens(message):
            return Verdict.NOBODY
        if now >= self.ends or (self._sentinel is not None and self._sentinel(message)):
            return Verdict.OVER
        self._left -= 1
        if self._left <= 0:
            return Verdict.LAST
        self.ends = min(self._total_ends, now + self._stall)
        return Verdict.KEEP
