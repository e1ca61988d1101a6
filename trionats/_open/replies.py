"""open_replies: the many replies to one request, as a feed.

Strategy: an inbox of its own (`_core.request_many`), the decisions of `_protocol.replies`, and the buffer of a subscription. The
feeding task only watches the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import checkpoint_if_cancelled

from trionats import events
from trionats._core.connection import connection_of
from trionats._core.deadlines import seconds_to_wait
from trionats._core.message import Msg
from trionats._core.request_many import MOST_BYTES, MOST_REPLIES
from trionats._feeds.bounded import BoundedFeed
from trionats._feeds.feed import feeding
from trionats._feeds.opening import check_nursery, opens
from trionats._protocol.receivers import Intake
from trionats._protocol.replies import Disposition, ReplyPolicy
from trionats._protocol.server_errors import REFUSALS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from trionats._client import Client
    from trionats._core.connection import Connection
    from trionats._core.request_many import ManyRequest


@final
class Replies(BoundedFeed[Msg]):
    """The replies to one request: what `open_replies` gives."""

    def __init__(self, connection: Connection, subject: str, policy: ReplyPolicy) -> None:
        super().__init__(f"replies to {subject!r}", connection, subject, MOST_REPLIES, MOST_BYTES, "fail")
        self._connection = connection
        self._policy = policy
        self._many_request: ManyRequest | None = None
        self._bug: Exception | None = None
        self._earlier = trio.Event()

    # Inside.

    def _ask(self, data: bytes, headers: Mapping[str, str | Sequence[str]] | None, reply: str, max_msgs: int) -> None:
        self._many_request, frame, size = self._connection.ask_many(self._subject, data, headers, reply)
        self._many_request.start(Intake(self._deliver, self._over, self._connection_lost), frame, size, max_msgs)

    async def _watch_the_time(self) -> None:
        while self._bug is None and trio.current_time() < (ends := self._policy.ends):
            self._earlier = trio.Event()
            with trio.move_on_at(ends):
                await self._earlier.wait()
        if self._bug is not None:
            raise self._bug

    # The receiver of the replies, called by the reader.

    def _deliver(self, message: Msg) -> None:
        ends = self._policy.ends
        try:
            disposition = self._policy.received(message, trio.current_time())
        except Exception as bug:
            self._bug = bug
            self._earlier.set()
            return
        if disposition is Disposition.NOBODY and self._many_request is not None:
            self._end(self._many_request.nobody())
            return
        if disposition is not Disposition.OVER:
            super()._deliver(message)
        if disposition is not Disposition.KEEP:
            self._end(None)
        elif self._policy.ends < ends:
            self._earlier.set()

    def _connection_lost(self, reason: Exception) -> None:
        # One that was not sent waits for the next connection.
        if self._many_request is not None and self._many_request.in_flight:
            self._end(self._many_request.disconnected(reason))

    def _over(self, reason: BaseException | None) -> None:
        if isinstance(reason, REFUSALS) and self._many_request is not None:
            reason = self._many_request.refused(reason)
        self._end(reason)

    def _measure(self, message: Msg) -> int:
        return message.size

    def _slowed(self, message: Msg) -> None:
        self._connection.emit(events.SlowConsumer(self._subject, self._dropped))

    def _undo(self) -> None:
        if self._many_request is not None:
            self._many_request.close()
            self._many_request = None


@opens
async def open_replies(
    nursery: trio.Nursery,
    nc: Client,
    subject: str,
    data: bytes = b"",
    *,
    headers: Mapping[str, str | Sequence[str]] | None = None,
    max_msgs: int = 0,
    stall: float | None = None,
    sentinel: Callable[[Msg], object] | None = None,
    reply: str = "",
) -> AsyncIterator[Replies]:
    """Publish a request, and receive its replies as they come: from many services, or many from one.

    Entering queues the request; it waits only where `Client.publish` would. Leaving ends the feed synchronously: the inbox is
    unsubscribed, a request that was not sent yet is not sent, and it waits, shielded and bounded, only until the task is
    gone.

    The feed ends as every feed does, and with the last reply: after `max_msgs`, when they stall, with the sentinel, and
    when the time is over: a `request_timeout` that was chosen, counted from entering, or else, where no deadline is in
    force on entering, 5 s. What is shorter is a cancel scope's affair. Replies that nobody receives in time are bounded
    like those of a subscription.

    `receive` raises `nats.errors.NoRespondersError` when nobody listens to the request, and
    `trionats.errors.PermissionsViolationError` when the server refuses the request or its inbox. Other than a
    subscription the feed does not survive its connection: replies may have been lost with it, so `receive` raises
    `trionats.errors.DisconnectedError` after what is buffered. A request that was not sent yet waits for the next one.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        nc: The client.
        subject: Where to; no wildcards.
        data: The request.
        headers: Names and values; a sequence of values repeats the name.
        max_msgs: So many replies are enough; 0 for no limit.
        stall: How many seconds after a reply the next one may take, the first one excepted; None for as long as the
            whole.
        sentinel: Called with each reply as it comes, and says whether it is the mark behind the last one: that is not
            received any more. It must not wait; what it raises goes up the nursery.
        reply: The subject for the replies, where the services expect a certain one; a new inbox otherwise.

    Returns:
        An async context manager that gives the `Replies`.

    Raises:
        TypeError: `max_msgs`, `stall` or `sentinel` is of a wrong kind.
        ValueError: `max_msgs` or `stall` is negative.
        nats.errors.Error: As for `Client.publish`.
    """
    check_nursery(nursery, "open_replies")
    connection = connection_of(nc, "open_replies")
    total = seconds_to_wait(connection.request_timeout)
    policy = ReplyPolicy(trio.current_time(), total=total, stall=stall, max_msgs=max_msgs, sentinel=sentinel)
    await checkpoint_if_cancelled()
    with connection.limit(f"request to {subject!r}"):
        await connection.wait_writable()
    feed = Replies(connection, subject, policy)
    async with feeding(nursery, feed, feed._watch_the_time):
        feed._ask(data, headers, reply, max_msgs)
        yield feed
