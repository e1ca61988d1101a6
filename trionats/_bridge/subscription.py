"""open_subscription, over nats-py's client."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from nats.aio.msg import Msg
from trio.lowlevel import checkpoint

from trionats._bridge.connection import connection_of
from trionats._bridge.messages import size_of
from trionats._feeds.bounded import BoundedFeed, check_limits
from trionats._feeds.feed import feeding
from trionats._feeds.opening import check_nursery, opens
from trionats._protocol import subjects
from trionats._protocol.receivers import Intake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import nats.aio.client
    import trio

    from trionats._bridge.attachments import Attachment
    from trionats._bridge.connection import NatsPyConnection
    from trionats._feeds.bounded import Overflow

__all__ = ["Subscription", "open_subscription"]


@final
class Subscription(BoundedFeed[Msg]):
    """The messages of one subject, over nats-py's client: what `open_subscription` gives."""

    def __init__(
        self,
        connection: NatsPyConnection,
        subject: str,
        max_msgs: int,
        pending_msgs_limit: float,
        pending_bytes_limit: float,
        overflow: Overflow,
    ) -> None:
        name = f"subscription {subject!r} of nats-py's client"
        super().__init__(name, connection, subject, pending_msgs_limit, pending_bytes_limit, overflow)
        self._connection = connection
        self._max_msgs = max_msgs
        self._attachment: Attachment | None = None

    # Inside.

    def _attach(self, queue: str) -> None:
        receiver = Intake(self._deliver, self._end)
        self._attachment = self._connection.attach_plain(
            self._subject, receiver, queue=queue, max_msgs=self._max_msgs, patient=True
        )

    def _deliver(self, message: Msg) -> None:
        super()._deliver(message)
        # nats-py does not say which was the last.
        if self._max_msgs and self._delivered >= self._max_msgs:
            self._end(None)

    def _measure(self, message: Msg) -> int:
        return size_of(message)

    def _slowed(self, message: Msg) -> None:
        self._connection.tell_error_cb(self._slow_consumer(message))

    def _undo(self) -> None:
        if self._attachment is not None:
            self._attachment.detach()
            # The attachment knows the feed, too: no circle for the garbage collector.
            self._attachment = None


@opens
async def open_subscription(
    nursery: trio.Nursery,
    nats_py_client: nats.aio.client.Client,
    subject: str,
    *,
    queue: str = "",
    max_msgs: int = 0,
    pending_msgs_limit: int = 65_536,
    pending_bytes_limit: int = 64 * 1024 * 1024,
    overflow: Overflow = "fail",
) -> AsyncIterator[Subscription]:
    """Subscribe to a subject over a client of nats-py.

    Like `trionats.open_subscription`, with nats-py's messages. Entering is a checkpoint and does not wait for the server;
    what is published over the same client afterwards arrives. Leaving ends the feed synchronously and waits, shielded and
    bounded, only until its task is gone.

    The feed ends as every feed does: with `stop`, with the block, with the nursery; when the client is closed, or, on
    `drain`, when the last message has come; and after `max_msgs`. It survives nats-py's reconnects. `receive` raises what
    nats-py gave up for, and `trionats.errors.PermissionsViolationError` when the server refuses the subject.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        nats_py_client: The client, in a trio-asyncio loop of this Trio run.
        subject: The subject; `*` stands for one token and `>` for all that follow.
        queue: The queue group: each message goes to one member of it.
        max_msgs: End after so many messages; 0 for never.
        pending_msgs_limit: How many messages may wait to be received.
        pending_bytes_limit: How many bytes of headers and payloads may wait to be received.
        overflow: What happens to a message that would be too much: `"fail"` ends the feed, and `receive` raises
            `nats.errors.SlowConsumerError` after what is buffered; `"drop_new"` drops it; `"drop_old"` drops the oldest
            ones that wait. Drops are counted, and nats-py's `error_cb` is told once of each episode.

    Returns:
        An async context manager that gives the `Subscription`, a feed of `nats.aio.msg.Msg`.

    Raises:
        nats.errors.BadSubjectError: The subject or the queue is not valid.
        nats.errors.ConnectionClosedError: The client is closed.
        nats.errors.ConnectionDrainingError: The client is being drained.
        RuntimeError: The client does not live in a trio-asyncio loop that is open, or was never connected.
        ValueError: A limit, or the policy, is none.
    """
    check_nursery(nursery, "open_subscription")
    check_limits(max_msgs, pending_msgs_limit, pending_bytes_limit, overflow)
    subjects.subscribe_subject(subject)
    if queue:
        subjects.queue_name(queue)
    await checkpoint()
    connection = connection_of(nats_py_client, "open_subscription")
    feed = Subscription(connection, subject, max_msgs, pending_msgs_limit, pending_bytes_limit, overflow)
    async with feeding(nursery, feed, connection.wait_stopped):
        feed._attach(queue)
        yield feed
