"""A subscription without a channel, over nats-py's client."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, final

from trio.lowlevel import enable_ki_protection

from trionats import errors
from trionats._feeds.feed import CLEANUP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    import nats.aio.client
    from nats.aio.msg import Msg as NatsPyMsg
    from nats.aio.subscription import Subscription

    from trionats._protocol.receivers import Receiver

__all__ = ["Attachment"]

log = logging.getLogger("trionats")


@final
class Attachment:
    """A subscription of nats-py's client: what `NatsPyConnection.attach` gives.

    Args:
        nc: The client.
        subject: What is subscribed.
        receiver: What takes the messages.
        detached: Called once when it is detached.
        queue: The queue group, or an empty string.
        max_msgs: After so many messages the server forgets it; 0 for never.
        patient: Whether it goes on until a drain has brought the last message.
    """

    def __init__(
        self,
        nc: nats.aio.client.Client,
        subject: str,
        receiver: Receiver[NatsPyMsg],
        detached: Callable[[Attachment], None],
        *,
        queue: str = "",
        max_msgs: int = 0,
        patient: bool = False,
    ) -> None:
        self.subject = subject
        self.queue = queue
        self.receiver = receiver
        self.patient = patient
        self._nc = nc
        self._tell_detached = detached
        self._max_msgs = max_msgs
        self._subscription: Subscription | None = None
        self._late: Callable[[NatsPyMsg], None] | None = None
        self._detached = False

    @property
    def lingers(self) -> bool:
        """Whether it takes what is still under way after it was detached."""
        return self._late is not None

    @enable_ki_protection
    def detach(self, late: Callable[[NatsPyMsg], None] | None = None) -> None:
        """Unsubscribe: nothing is delivered any more when it returns. Synchronous, idempotent.

        Args:
            late: Takes the messages that are still under way, until the server has seen that we are gone.
        """
        if not self._detached:
            self._detached = True
            self._late = late
            self._tell_detached(self)

    # Commands (`commands`): what nats-py is to do, and when.

    async def begin(self) -> None:
        """Subscribe."""
        if self._detached:
            return
        try:
            self._subscription = await self._nc.subscribe(
                self.subject, self.queue, cb=self._arrived, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except errors.Error as error:
            # nats-py refuses before it knows the subscription, so not even a reconnect would bring anything.
            self.receiver.ended(error)
            return
        if self._max_msgs:
            await self._subscription.unsubscribe(self._max_msgs)

    async def finish(self) -> None:
        """Unsubscribe, and wait for what is still under way where somebody takes it."""
        subscription = self._subscription
        if subscription is None or self._nc.is_closed:
            return
        if self._late is None:
            await subscription.unsubscribe()
            return
        try:
            async with asyncio.timeout(CLEANUP_SECONDS):
                await subscription.drain()  # type: ignore[no-untyped-call]
        finally:
            self._nc._remove_sub(subscription._id)

    @enable_ki_protection
    async def _arrived(self, message: NatsPyMsg) -> None:
        try:
            if not self._detached:
                self.receiver.deliver(message)
            elif self._late is not None:
                self._late(message)
        except Exception as bug:
            log.exception("delivering a message on %r failed", self.subject)
            self.receiver.ended(bug)
