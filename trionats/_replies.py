"""open_replies: the many answers to one request, as a feed.

Strategy: an inbox of its own (`_many_request`), the decisions of `_protocol.replies`, and the buffer of a subscription. The
feeding task only watches the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import checkpoint_if_cancelled

from trionats._client import check_client
from trionats._core.deadlines import patience
from trionats._core.request_many import MOST_ANSWERS, MOST_BYTES
from trionats._feeds.feed import check_nursery, feeding, opens
from trionats._protocol.replies import Disposition, ReplyPolicy
from trionats._protocol.server_errors import REFUSALS
from trionats._subscription import Buffered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from trionats._client import Client
    from trionats._core.message import Msg
    from trionats._core.request_many import ManyRequest


@final
class Replies(Buffered):
    """The answers to one request: what `open_replies` gives."""

    def __init__(self, client: Client, subject: str, policy: ReplyPolicy) -> None:
        super().__init__(client, "replies to", subject, MOST_ANSWERS, MOST_BYTES, "fail")
        self._policy = policy
        self._many_request: ManyRequest | None = None
        self._bug: Exception | None = None
        self._earlier = trio.Event()

    def start(self, many_request: ManyRequest) -> None:
        """Know whose answers these are."""
        self._many_request = many_request

    async def run(self) -> None:
        """Watch the time: what the feeding task does."""
        while self._bug is None and trio.current_time() < (ends := self._policy.ends):
            self._earlier = trio.Event()
            with trio.move_on_at(ends):
                await self._earlier.wait()
        if self._bug is not None:
            raise self._bug

    # The receiver of the answers, called by the reader.

    def deliver(self, message: Msg) -> None:
        """Take an answer."""
        ends = self._policy.ends
        try:
            disposition = self._policy.received(message, trio.current_time())
        except Exception as bug:
            self._bug = bug
            self._earlier.set()
            return
        if disposition is Disposition.NOBODY and self._many_request is not None:
            self.end(self._many_request.nobody())
            return
        if disposition is not Disposition.OVER:
            super().deliver(message)
        if disposition is not Disposition.KEEP:
            self.end(None)
        elif self._policy.ends < ends:
            self._earlier.set()

    def connection_lost(self, reason: Exception) -> None:
        """Fail a request that was sent; one that was not waits for the next connection."""
        if self._many_request is not None and self._many_request.in_flight:
            self.end(self._many_request.disconnected(reason))

    def ended(self, reason: BaseException | None) -> None:
        """End the feed."""
        if isinstance(reason, REFUSALS) and self._many_request is not None:
            reason = self._many_request.refused(reason)
        self.end(reason)

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
    """Publish a request, and receive its answers as they come: from many services, or many from one.

    Entering queues the request; it waits only where `Client.publish` would. Leaving ends the feed synchronously: the inbox is
    unsubscribed, a request that was not sent yet is not sent, and it waits, shielded and bounded, only until the task is
    gone.

    The feed ends as every feed does, and with the last answer: after `max_msgs`, when they stall, with the sentinel, and
    when the time is over: a `request_timeout` that was chosen, counted from entering, or else, where no deadline is in
    force on entering, 5 s. What is shorter is a cancel scope's affair. Answers that nobody receives in time are bounded
    like those of a subscription.

    `receive` raises `nats.errors.NoRespondersError` when nobody listens to the request, and
    `trionats.errors.PermissionsViolationError` when the server refuses the request or its inbox. Other than a
    subscription the feed does not survive its connection: answers may have been lost with it, so `receive` raises
    `trionats.errors.DisconnectedError` after what is buffered. A request that was not sent yet waits for the next one.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        nc: The client.
        subject: Where to; no wildcards.
        data: The request.
        headers: Names and values; a sequence of values repeats the name.
        max_msgs: So many answers are enough; 0 for no limit.
        stall: How many seconds after an answer the next one may take, the first one excepted; None for as long as the
            whole.
        sentinel: Called with each answer as it comes, and says whether it is the mark behind the last one: that is not
            received any more. It must not wait; what it raises goes up the nursery.
        reply: The subject for the answers, where the services expect a certain one; a new inbox otherwise.

    Returns:
        An async context manager that gives the `Replies`.

    Raises:
        TypeError: `max_msgs`, `stall` or `sentinel` is of a wrong kind.
        ValueError: `max_msgs` or `stall` is negative.
        nats.errors.Error: As for `Client.publish`.
    """
    check_nursery(nursery, "open_replies")
    check_client(nc, "open_replies")
    total = patience(nc._request_timeout)
    policy = ReplyPolicy(trio.current_time(), total=total, stall=stall, max_msgs=max_msgs, sentinel=sentinel)
    await checkpoint_if_cancelled()
    with nc._limit(f"request to {subject!r}"):
        await nc.wait_writable()
    feed = Replies(nc, subject, policy)
    async with feeding(nursery, feed, feed.run):
        many_request, frame, size = nc._ask_many(subject, data, headers, reply)
        feed.start(many_request)
        many_request.start(feed, frame, size, max_msgs)
        yield feed
