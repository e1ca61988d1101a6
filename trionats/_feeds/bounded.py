"""A feed of messages that is bounded in number and in bytes, and what happens to what is too much.

Whoever reads never waits for a subscriber.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar, final, get_args

import trio

from trionats import errors
from trionats._feeds.feed import Feed
from trionats._feeds.pace import TRIP_MESSAGES

if TYPE_CHECKING:
    from trionats._feeds.feed import FeedOwner

__all__ = ["BoundedFeed", "Overflow", "SubscriptionStatistics", "check_limits"]

Overflow = Literal["fail", "drop_new", "drop_old"]


@final
@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """What a subscription has seen.

    Attributes:
        pending_msgs: Messages that wait to be received.
        pending_bytes: Their headers and payloads, in bytes.
        max_pending_msgs: The most messages that were seen to wait: looked at when they overflow, when somebody asks, and
            while they are received, at least once in 64 messages of the client.
        delivered: Messages that came from the server, dropped ones included.
        dropped: Messages that were dropped because too many waited.
    """

    pending_msgs: int
    pending_bytes: int
    max_pending_msgs: int
    delivered: int
    dropped: int


class HasReply(Protocol):
    """What a message has to tell where it waits: ours does, and so does nats-py's."""

    @property
    def reply(self) -> str:
        """Where a reply is expected."""

    @property
    def sid(self) -> int:
        """Which subscription of its client it came for."""


M = TypeVar("M", bound=HasReply)


class BoundedFeed(Feed[M], Generic[M]):
    """Messages as they come, bounded in number and in bytes: what `Subscription` and its like have in common.

    Attributes and methods are those of a `Feed`, and besides `subject` and `statistics`.
    """

    # Its kinds say how many bytes a message counts (`_measure`), and who is told that a consumer is slow (`_slowed`).

    def __init__(
        self,
        name: str,
        owner: FeedOwner,
        subject: str,
        pending_msgs_limit: float,
        pending_bytes_limit: float,
        overflow: Overflow,
    ) -> None:
        super().__init__(name, pending_msgs_limit, owner)
        self._subject = subject
        self._bytes_limit = pending_bytes_limit
        self._overflow: Overflow = overflow
        self._bytes = 0
        self._most = 0
        self._delivered = 0
        self._dropped = 0
        self._slow = False

    @property
    def subject(self) -> str:
        """The subject that was subscribed, or that the request went to."""
        return self._subject

    def statistics(self) -> SubscriptionStatistics:
        """Count what has come, what waits, and what was dropped."""
        waiting = len(self)
        most = max(self._most, waiting)
        return SubscriptionStatistics(waiting, self._bytes, most, self._delivered, self._dropped)

    # What the kinds add.

    def _measure(self, message: M) -> int:
        """Say how many bytes a message counts."""
        raise NotImplementedError

    def _slowed(self, message: M) -> None:
        """Tell that an episode of overflowing begins, with this message."""

    # Called by whoever reads.

    def _deliver(self, message: M) -> None:
        size = self._measure(message)
        self._delivered += 1
        if self._bytes + size <= self._bytes_limit:
            try:
                self._send_nowait(message)
            except trio.WouldBlock:
                self._overflowed(message, size)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                pass
            else:
                self._bytes += size
        else:
            self._overflowed(message, size)

    # Inside.

    def _taken(self, item: M) -> bool | None:
        self._bytes -= self._measure(item)
        if self._slow:
            self._recover()
        return None

    def _recover(self) -> None:
        half_empty = len(self) <= self._receive.statistics().max_buffer_size / 2
        self._slow = not (half_empty and self._bytes <= self._bytes_limit / 2)

    def _sampled(self) -> None:
        waiting = len(self)
        self._most = max(self._most, waiting)
        self._pace.behind = self._pace.behind or waiting > TRIP_MESSAGES

    def _overflowed(self, message: M, size: int) -> None:
        waiting = len(self)
        if not waiting and size <= self._bytes_limit:
            # What fills the bound is in the hands of consumers that were handed it and did not run yet.
            self._buffer(message, size)
            return
        self._most = max(self._most, waiting)
        if self._overflow == "drop_old" and size <= self._bytes_limit:
            self._make_room(size)
            self._buffer(message, size)
        else:
            self._dropped += 1
        if not self._slow:
            self._slow = True
            self._slowed(message)
        if self._overflow == "fail":
            self._end(self._slow_consumer(message))

    def _buffer(self, message: M, size: int) -> None:
        self._send_nowait(message)
        self._bytes += size

    def _make_room(self, size: int) -> None:
        """Drop the oldest messages until one more fits."""
        limit = self._receive.statistics().max_buffer_size
        while len(self) and (self._bytes + size > self._bytes_limit or len(self) >= limit):
            self._bytes -= self._measure(self._receive.receive_nowait())
            self._dropped += 1

    def _slow_consumer(self, message: M) -> errors.SlowConsumerError:
        text = (
            f"{self._name}: {len(self)} messages, {self._bytes} bytes wait to be received, and no "
            "more may; receive faster, raise the limits, or choose another overflow policy"
        )
        return errors.explained(
            errors.SlowConsumerError, text, subject=self._subject, reply=message.reply, sid=message.sid, sub=self
        )


def check_limits(max_msgs: float, pending_msgs_limit: float, pending_bytes_limit: float, overflow: str) -> None:
    """Refuse limits that are none.

    Raises:
        TypeError: One of them is no number.
        ValueError: One of them, or the policy, is none.
    """
    for name, value in (("max_msgs", max_msgs), ("pending_msgs_limit", pending_msgs_limit)):
        if not isinstance(value, int) and (value != math.inf or name == "max_msgs"):
            raise TypeError(f"{name} is {value!r}: it must be a whole number")
    if not isinstance(pending_bytes_limit, (int, float)):
        raise TypeError(f"pending_bytes_limit is {pending_bytes_limit!r}: it must be a number")
    if max_msgs < 0:
        raise ValueError(f"max_msgs is {max_msgs}: it must be 0, for no limit, or more")
    if pending_msgs_limit < 1 or pending_bytes_limit < 1:
        raise ValueError("pending_msgs_limit and pending_bytes_limit must be 1 or more")
    if overflow not in get_args(Overflow):
        raise ValueError(f"overflow is {overflow!r}: it must be one of {', '.join(get_args(Overflow))}")
