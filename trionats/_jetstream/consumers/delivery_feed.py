"""What feeds of a consumer's messages have in common, whether they are asked for (`consuming`) or come by themselves (`push`).

Waiting too long
    The server gives a message to somebody else when its ack wait is over. So what has waited here as long is dropped when its turn
    comes, and what has waited for half of it is kept in progress when it is handed over: the whole ack wait is for whoever
    works on it (design 80). What was delivered in a life of the consumer that is over is dropped, too.

Leaving
    in whatever way unsubscribes at once; what still comes until the PONG behind that is given back (`giving_back`), and so is
    what is buffered when the block is left or the client closed. That comes after UNSUB: else the server might give it to us
    again.

The feed's task
    carries out what waits, and mostly sleeps (`_park`). What needs no waiting is done at once, by whoever noticed, who wakes the
    task where it has to see to something (`_wake`).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import errors
from trionats._feeds.feed import Feed
from trionats._jetstream.messages.deliverers import overtaken
from trionats._jetstream.messages.giving_back import give_back, leave
from trionats._jetstream.messages.message import JetStreamMsg
from trionats._protocol.jetstream.acks import IN_PROGRESS
from trionats._protocol.jetstream.actions import Fail, Wait
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._core.messaging import Retirable
    from trionats._jetstream.consumers.consumer import Consumer
    from trionats._protocol.jetstream.consumers.demand import OnLeave

__all__ = ["DeliveryFeed"]

#: How long before the end of its ack wait, in seconds and at the most, a message is not handed over any more.
LONGEST_MARGIN: Final = 1.0


class DeliveryFeed(Feed[JetStreamMsg]):
    """What a consumer delivers.

    Args:
        consumer: The consumer.
        capacity: How many messages the channel takes.
        on_leave: What becomes of what was delivered and not received; None to give it back where that costs nothing.
    """

    def __init__(self, consumer: Consumer, capacity: float, on_leave: OnLeave | None) -> None:
        self._api = consumer.__jetstream__()
        self._connection = self._api.connection
        super().__init__(str(consumer), capacity, self._connection)
        self._consumer, self._on_leave = consumer, on_leave
        self._deliverer = consumer.__deliverer__()
        self._parked: Callable[[], object] | None = None
        self._until = inf
        self._attachment: Retirable | None = None

    # What waits to be received.

    def _is_fresh(self, item: JetStreamMsg, now: float) -> bool:
        """Say whether a message may be handed over, and keep it in progress if it has waited for long."""
        deliverer = item.__deliverer__()
        if deliverer.void and overtaken(deliverer, self._deliverer):
            return False
        left, wait = item.due - now, deliverer.wait(item.reply)
        if left < wait / 2:
            # What is nearly over is taken for over: our word would not come in time.
            if left <= min(LONGEST_MARGIN, wait / 20):
                return False
            # Else whoever takes it now might have a moment left for its work.
            item.due = now + wait
            self._connection.acknowledge_aside(item.reply, IN_PROGRESS)
        return True

    # The feed's task.

    async def _park(self, step: object) -> bool:
        """Sleep until somebody wakes the task; for good where there is nothing to wait for, since what ended cancels it.

        Args:
            step: What is to be done, if nothing happens.

        Returns:
            Whether it is time, and nobody did.
        """
        woken, self._until = trio.Event(), step.until if isinstance(step, Wait) else inf
        self._parked = woken.set
        try:
            with trio.move_on_at(self._until) as scope:
                await woken.wait()
        finally:
            self._parked = None
        if scope.cancelled_caught:
            # If nobody could do anything until now, neither could the reader: what it reads now was there in time.
            await checkpoint()
        return scope.cancelled_caught

    def _wake(self, step: object) -> None:
        """Let the task see to what does not happen at once, unless that is to wait no less than it does. It may wait for something else."""
        if isinstance(step, Fail):
            self._fail(step.error)
        elif self._parked is not None and not (isinstance(step, Wait) and step.until >= self._until):
            self._parked()

    # Its end.

    @property
    def _gives_back(self) -> bool:
        if self._on_leave is None:
            return self._deliverer.takes_back
        return self._on_leave == "nak" and self._deliverer.acknowledges

    def _fail(self, error: Exception) -> None:
        """End in an error; where it says that the consumer is gone, so are the messages that somebody holds."""
        if self._ended:
            return
        if isinstance(error, errors.ConsumerGoneError):
            self._api.deliverers.gone(self._consumer.stream, self._consumer.name)
        self._end(error)

    def _attachment_ended(self, reason: BaseException | None) -> None:
        """End, because nothing can come any more."""
        if self._ended:
            return
        if isinstance(reason, REFUSALS):
            reason = refusal_of(self._name, reason)
        closing = reason is None and not self._connection.accepting
        self._end(reason)
        if closing:
            # Nobody could acknowledge it any more.
            self._give_back_buffered()

    def _undo(self) -> None:
        if self._attachment is not None:
            leave(self._attachment, self._deliverer, nak=self._gives_back)
            self._attachment = None

    @enable_ki_protection
    def _leave(self) -> None:
        self._end(None)
        self._give_back_buffered()
        super()._leave()

    def _give_back_buffered(self) -> None:
        now = trio.current_time()
        held = []
        try:
            while True:
                message = self._receive.receive_nowait()
                # What is overdue is somebody else's.
                if message.due > now and not message.__deliverer__().void:
                    held.append(message)
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            pass
        if self._gives_back:
            give_back(self._deliverer, held)
