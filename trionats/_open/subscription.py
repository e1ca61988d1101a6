"""open_subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from trionats import events
from trionats._core.connection import connection_of
from trionats._core.message import Msg
from trionats._feeds.bounded import BoundedFeed, check_limits
from trionats._feeds.feed import feeding
from trionats._feeds.opening import check_nursery, opens
from trionats._protocol.receivers import Intake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trionats._client import Client
    from trionats._core.attachments import Attachment
    from trionats._core.connection import Connection
    from trionats._feeds.bounded import Overflow


@final
class Subscription(BoundedFeed[Msg]):
    """The messages of one subject: what `open_subscription` gives."""

    def __init__(
        self,
        connection: Connection,
        subject: str,
        pending_msgs_limit: float,
        pending_bytes_limit: float,
        overflow: Overflow,
    ) -> None:
        name = f"subscription {subject!r}"
        super().__init__(name, connection, subject, pending_msgs_limit, pending_bytes_limit, overflow)
        self._connection = connection
        self._attachment: Attachment | None = None

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
        with self._connection.limit(f"drain of {self._name}"):
            await self._finished.wait()

    # Inside.

    def _attach(self, queue: str, max_msgs: int) -> None:
        receiver = Intake(self._deliver, self._end)
        self._attachment = self._connection.attach(self._subject, receiver, queue=queue, max_msgs=max_msgs)

    # Two methods again, which run for each message: one more call in each would cost a tenth of a receive.

    def _deliver(self, message: Msg) -> None:
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
        self._connection.emit(events.SlowConsumer(self._subject, self._dropped))

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
    connection = connection_of(nc, "open_subscription")
    check_limits(max_msgs, pending_msgs_limit, pending_bytes_limit, overflow)
    await checkpoint()
    feed = Subscription(connection, subject, pending_msgs_limit, pending_bytes_limit, overflow)
    async with feeding(nursery, feed):
        feed._attach(queue, max_msgs)
        yield feed
