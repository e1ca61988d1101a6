"""What a client's subscription and its events look like as feeds.

The client's side of `_feed` (split off `_client`): how much may wait, and what happens to what is too much. The reader
never waits for a subscriber.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar, final, get_args

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from trionats import errors, events
from trionats._client import Client, check_client
from trionats._core.message import Msg
from trionats._feeds.feed import TRIP_MESSAGES, Feed, check_nursery, feeding, opens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trionats._core.attachments import Attachment
    from trionats._feeds.feed import Pace

Overflow = Literal["fail", "drop_new", "drop_old"]

#: How many events may wait before the oldest are dropped: more than a reconnect gives in an hour.
EVENTS_CAPACITY = 1024


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


class Message(Protocol):
    """What a message has to tell where it waits: ours does, and so does nats-py's."""

    @property
    def reply(self) -> str:
        """Where an answer is expected."""

    @property
    def sid(self) -> int:
        """Which subscription of its client it came for."""


M = TypeVar("M", bound=Message)


class Bounded(Feed[M], Generic[M]):
    """Messages as they come, bounded in number and in bytes, over whichever client.

    Its kinds say how many bytes a message counts (`_measure`), and who is told that a consumer is slow (`_slowed`).
    """

    def __init__(
        self,
        name: str,
        pace: Pace,
        subject: str,
        pending_msgs_limit: float,
        pending_bytes_limit: float,
        overflow: Overflow,
    ) -> None:
        super().__init__(name, pending_msgs_limit, pace)
        self._subject = subject
        self._bytes_limit = pending_bytes_limit
        self._overflow: Overflow = overflow
        self._send_nowait = self._send.send_nowait
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
        """Know that an episode of overflowing begins, with this message."""

    # The receiver's side, called by whoever reads.

    def deliver(self, message: M) -> None:
        """Buffer one message, or do with it what the policy says."""
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

    def connection_lost(self, reason: Exception) -> None:
        """Nothing to see for the consumer."""

    def connection_restored(self) -> None:
        """Nothing to see for the consumer: the subscription was replayed."""

    def ended(self, reason: BaseException | None) -> None:
        """End the feed."""
        self.end(reason)

    # Inside.

    def _taken(self, item: M) -> None:
        self._bytes -= self._measure(item)
        if self._slow:
            self._recover()

    def _recover(self) -> None:
        half_empty = len(self) <= self._receive.statistics().max_buffer_size / 2
        self._slow = not (half_empty and self._bytes <= self._bytes_limit / 2)

    def _looked(self) -> None:
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
            self.end(self._slow_consumer(message))

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


class Buffered(Bounded[Msg]):
    """Messages of a client of ours."""

    def __init__(
        self,
        client: Client,
        kind: str,
        subject: str,
        pending_msgs_limit: float,
        pending_bytes_limit: float,
        overflow: Overflow,
    ) -> None:
        name = f"{kind} {subject!r}"
        super().__init__(name, client.pace, subject, pending_msgs_limit, pending_bytes_limit, overflow)
        self._client = client

    # Two methods again, which run for each message: one more call in each would cost a tenth of a receive.

    def deliver(self, message: Msg) -> None:
        """Buffer one message, or do with it what the policy says."""
        size = len(message.data) if message.header_block is None else message.size
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

    def _taken(self, item: Msg) -> None:
        self._bytes -= len(item.data) if item.header_block is None else item.size
        if self._slow:
            self._recover()

    def _measure(self, message: Msg) -> int:
        return message.size

    def _slowed(self, message: Msg) -> None:
        self._client.emit(events.SlowConsumer(self._subject, self._dropped))


@final
class Subscription(Buffered):
    """The messages of one subject: what `open_subscription` gives."""

    def __init__(
        self, client: Client, subject: str, pending_msgs_limit: int, pending_bytes_limit: int, overflow: Overflow
    ) -> None:
        super().__init__(client, "subscription", subject, pending_msgs_limit, pending_bytes_limit, overflow)
        self._attachment: Attachment | None = None

    def attach(self, queue: str, max_msgs: int) -> None:
        """Subscribe."""
        self._attachment = self._client.attach(self._subject, self, queue=queue, max_msgs=max_msgs)

    @enable_ki_protection
    def drain_nowait(self) -> None:
        """Begin to drain: unsubscribe, and end once all has come that the server sent before it knew. Idempotent.

        What has come and what still comes is received as ever, and then the loop ends. `stop` in contrast takes nothing
        more from the moment it is called.
        """
        self._pace.run.check()
        if self._attachment is not None:
            self._attachment.retire()

    async def drain(self) -> None:
        """Unsubscribe, and wait until all has come that the server sent before it knew; then the feed has ended.

        It does not wait for the consumer, so it may be called from inside the loop: what is buffered can still be received.
        The deadline in force governs, and beside it a `request_timeout` that was chosen; where there is neither, it
        waits 5 s. Cancelled after it began, it goes on by itself, like `drain_nowait`. Without a connection there is
        nothing to wait for. Idempotent.

        Raises:
            nats.errors.TimeoutError: That time passed.
        """
        self._pace.run.check()
        await checkpoint_if_cancelled()
        self.drain_nowait()
        with self._client._limit(f"drain of {self._name}"):
            await self._finished.wait()

    def _undo(self) -> None:
        if self._attachment is not None:
            self._attachment.detach()
            # The attachment knows the feed, too: no circle for the garbage collector.
            self._attachment = None


@opens
async def open_subscription(
    nursery: trio.Nursery,
    nc: Client,
    subject: str,
    *,
    queue: str = "",
    max_msgs: int = 0,
    pending_msgs_limit: int = 65_536,
    pending_bytes_limit: int = 64 * 1024 * 1024,
    overflow: Overflow = "fail",
) -> AsyncIterator[Subscription]:
    """Subscribe to a subject.

    Entering queues the SUB and is a checkpoint; it does not wait for the server (`Client.flush` does). Leaving ends the
    feed synchronously and waits, shielded and bounded, only until its task is gone.

    The feed ends as every feed does: with `stop`, with the block, with the nursery, with the client; and after
    `max_msgs`. It survives reconnects; what is published while there is no connection is lost, as core NATS has it. It
    is raised by `receive` when the server refuses the subject.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        nc: The client.
        subject: The subject; `*` stands for one token and `>` for all that follow.
        queue: The queue group: each message goes to one member of it.
        max_msgs: End after so many messages; 0 for never.
        pending_msgs_limit: How many messages may wait to be received. Below what one read of 16 KiB can hold (about 100
            messages of 128 bytes, 1,300 empty ones) a burst overflows it although the consumer keeps up.
        pending_bytes_limit: How many bytes of headers and payloads may wait to be received.
        overflow: What happens to a message that would be too much: `"fail"` ends the feed, and `receive` raises
            `nats.errors.SlowConsumerError` after what is buffered; `"drop_new"` drops it; `"drop_old"` drops the oldest
            ones that wait. Drops are counted, with one `trionats.events.SlowConsumer` event for each episode.

    Returns:
        An async context manager that gives the `Subscription`.

    Raises:
        nats.errors.BadSubjectError: The subject or the queue is not valid.
        nats.errors.ConnectionDrainingError: The client is being drained.
        nats.errors.ConnectionClosedError: The client is closed.
        ValueError: A limit, or the policy, is none.
    """
    check_nursery(nursery, "open_subscription")
    check_client(nc, "open_subscription")
    check_limits(max_msgs, pending_msgs_limit, pending_bytes_limit, overflow)
    await checkpoint()
    feed = Subscription(nc, subject, pending_msgs_limit, pending_bytes_limit, overflow)
    async with feeding(nursery, feed):
        feed.attach(queue, max_msgs)
        yield feed


@final
class Events(Feed[events.ConnectionEvent]):
    """What happens to a connection: what `open_events` gives."""

    _outlasts = True

    def __init__(self, client: Client) -> None:
        super().__init__("events", EVENTS_CAPACITY, client.pace)
        self._client = client
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many events were dropped, the oldest first, because nobody received them."""
        return self._dropped

    def push(self, event: events.ConnectionEvent) -> None:
        """Hand over an event; where too many wait, the oldest goes."""
        if len(self) >= EVENTS_CAPACITY:
            self._receive.receive_nowait()
            self._dropped += 1
        self.put(event)

    def _undo(self) -> None:
        self._client.remove_listener(self)


@opens
async def open_events(nursery: trio.Nursery, nc: Client) -> AsyncIterator[Events]:
    """Watch what happens to a client's connection.

    Entering and leaving are as for `open_subscription`. A reader that never receives delays nothing: beyond 1,024
    waiting events the oldest are dropped, and counted. The last event is `trionats.events.Closed`; on a client that is
    closed already it is the only one.

    Args:
        nursery: Where the feeding task lives.
        nc: The client.

    Returns:
        An async context manager that gives the feed of `trionats.events.ConnectionEvent`.
    """
    check_nursery(nursery, "open_events")
    check_client(nc, "open_events")
    await checkpoint()
    feed = Events(nc)
    async with feeding(nursery, feed):
        nc.add_listener(feed)
        yield feed


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
