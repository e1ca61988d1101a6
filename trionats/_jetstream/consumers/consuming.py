"""A pull consumer as a feed: what is asked for is what there is room for.

Who decides
    All decisions are the cellar's (`_protocol.jetstream.consumers.consuming`): how much to ask for and when, what statuses and silence mean, when
    it is over. `ConsumerFeed` carries them out. The connection's reader calls `_deliver` with each message and status, and whoever
    receives calls `_taken`; both do at once what needs no waiting (`_advance`: requests, news, another inbox). What waits is done by
    the feed's task, which mostly sleeps until silence would be too long.

Inboxes
    Each life of a connection has an inbox of its own, and so has what follows a silence: requests of before then find nobody who
    listens, and the server drops them instead of sending more than there is room for. What it had sent is received all the same.

What waits here for too long, and what becomes of it when the feed is left, stands in `delivery_feed`.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import trio
from trio.lowlevel import checkpoint

from trionats import api, errors, events
from trionats._feeds.feed import feeding
from trionats._jetstream.consumers.delivery_feed import DeliveryFeed
from trionats._jetstream.consumers.oversize import upcoming
from trionats._jetstream.jitter import JITTER
from trionats._jetstream.messages.giving_back import give_back
from trionats._jetstream.messages.message import JetStreamMsg
from trionats._jetstream.ordered.source import RESPONSE_LIMIT
from trionats._protocol.jetstream.actions import Inspect, Measure
from trionats._protocol.jetstream.consumers.consuming import UNKNOWN, Consuming, News, Renew, Tell, Traits
from trionats._protocol.jetstream.pull import PIN_HEADER, Pull, PullInbox
from trionats._protocol.receivers import Intake
from trionats._protocol.server_errors import refusal_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trionats._core.message import Msg
    from trionats._jetstream.consumers.consumer import Consumer
    from trionats._protocol.jetstream.consumers.consuming import Step
    from trionats._protocol.jetstream.consumers.demand import Demand

__all__ = ["ConsumerFeed", "consuming"]


class ConsumerFeed(DeliveryFeed):
    """What a pull consumer delivers.

    Args:
        consumer: The consumer.
        demand: What is wanted of it.

    Raises:
        ValueError: It is not what the consumer has.
    """

    def __init__(self, consumer: Consumer, demand: Demand) -> None:
        super().__init__(consumer, demand.max_messages, demand.on_leave)
        self._demand = demand
        self._send_nowait = self._send.send_nowait
        self._sizes: deque[int] = deque()
        # Trio's clock, in half the time that it takes to ask it.
        self._now = self._pace.now
        self._ahead = trio.current_time() - self._now()
        self._inbox = PullInbox(self._connection.new_inbox())
        self._take_up(consumer)

    def _take_up(self, consumer: Consumer) -> None:
        """Let it be this consumer that is read; nothing may be buffered."""
        demand = self._demand
        if consumer.cached_info is not None:
            config = consumer.cached_info.config
            groups, policy = config.priority_groups or [], config.priority_policy
            demand.terms.check_against("open_consumer()", str(consumer), groups, policy)
        self._consumer, self._deliverer = consumer, consumer.__deliverer__()
        self._decisions = Consuming(consumer.stream, consumer.name, demand, traits_of(consumer.cached_info), JITTER)
        self._received = self._decisions.received
        self._subject = f"{self._api.prefix}.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}"

    # What the connection's reader calls.

    def _deliver(self, message: Msg) -> None:
        reply = message.reply
        now = self._now() + self._ahead
        if not reply:
            self._hear(message, now)
            return
        block = message.header_block
        size = len(message.subject) + len(reply) + len(message.data)
        if block is not None:
            size += len(block)
            if self._demand.group is not None and (pin := message.headers.get(PIN_HEADER)):
                self._decisions.tagged(pin)
        deliverer = self._deliverer
        if deliverer.void:
            # The next life of the consumer has begun.
            deliverer = self._deliverer = self._consumer.__deliverer__()
        try:
            if self._demand.stop_after and self._decisions.enough:
                raise trio.WouldBlock
            due = deliverer.due(reply, now) if deliverer.backoff else now + deliverer.ack_wait
            self._send_nowait(JetStreamMsg(message, deliverer, due))
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            self._decisions.overflowed(size, now)
            if self._gives_back:
                give_back(deliverer, (message,))
        else:
            self._received(size, now)
            self._sizes.append(size)

    def _hear(self, message: Msg, now: float) -> None:
        if message.status is not None:
            number = self._inbox.number(message.subject)
            self._decisions.status(number, message.status, message.description, message.headers, now)
            self._advance(now)

    def _lost(self, inbox: PullInbox, _: Exception) -> None:
        # One that was left is listened to until the PONG behind its UNSUB, and is not taken again.
        if inbox is self._inbox and not self._ended:
            self._decisions.connection_lost()
            former = self._attachment
            if self._attach_again() and former is not None:
                former.detach()
            if self._connection.is_connected:
                # A planned move: there is another one already, and whoever tells of it does not know the new inbox.
                self._restored(self._inbox)

    def _restored(self, inbox: PullInbox) -> None:
        if inbox is self._inbox:
            now = trio.current_time()
            self._decisions.connection_restored(now)
            self._advance(now)

    def _inbox_ended(self, inbox: PullInbox, reason: BaseException | None) -> None:
        if inbox is self._inbox:
            self._attachment_ended(reason)

    # The listener to what the server refuses: no status says so.

    def push(self, event: events.ConnectionEvent) -> None:
        """Fail when it is our asking that is refused."""
        if isinstance(event, events.PermissionViolation):
            self._decisions.forbidden(refusal_of(self._name, event.error))
            self._advance(trio.current_time())

    def end(self, reason: BaseException | None) -> None:
        """Nothing to do: the inbox ends, too."""

    # What whoever receives calls.

    def _taken(self, item: JetStreamMsg) -> bool:
        now = self._now() + self._ahead
        fresh = self._is_fresh(item, now)
        if self._decisions.taken(self._sizes.popleft(), now, handed_over=fresh):
            self._advance(now)
        if fresh and self._demand.stop_after and self._decisions.done:
            self._end(None)
        return not fresh

    # The feed's task.

    async def _go_on(self) -> NoReturn:
        while True:
            await self._see_to_it()

    async def _see_to_it(self) -> None:
        """Do one thing that waits, or wait until there is something to do."""
        step = self._advance(trio.current_time())
        if isinstance(step, Inspect):
            await self._inspect()
        elif isinstance(step, Measure):
            await self._measure()
        elif await self._park(step):
            self._decisions.overdue(trio.current_time())

    def _advance(self, now: float) -> Step:
        """Do at once what needs no waiting, and wake the task where it has to see to something.

        Returns:
            The first thing that waits.
        """
        while True:
            step = self._decisions.next(now)
            if isinstance(step, Pull):
                reply = self._inbox.reply_to(step)
                self._connection.publish_aside(self._subject, step.body(), reply, passing=True)
            elif isinstance(step, Tell):
                self._connection.emit(self._event(step))
            elif isinstance(step, Renew):
                self._renew()
            else:
                break
        self._wake(step)
        return step

    async def _inspect(self) -> None:
        failure: Exception | None = None
        try:
            # An answer that takes longer than two heartbeats is none.
            with trio.move_on_after(min(RESPONSE_LIMIT, self._decisions.patience)):
                info = await self._consumer.info()
                self._decisions.inspected(info.num_waiting or 0, info.config.max_waiting or 0, trio.current_time())
                return
        except errors.Error as error:
            failure = error
        self._decisions.inspect_failed(failure, trio.current_time())

    async def _measure(self) -> None:
        size = 0
        try:
            with trio.move_on_after(RESPONSE_LIMIT):
                found = await upcoming(self._api, await self._consumer.info())
                size = 0 if found is None else found.size
        except errors.Error:
            pass
        self._decisions.measured(size)

    # Inboxes.

    def _open(self) -> None:
        if not self._connection.is_connected:
            self._decisions.connection_lost()
        self._connection.add_listener(self, refused=self._subject)
        self._attach()
        self._advance(trio.current_time())

    def _attach(self) -> None:
        inbox = PullInbox(self._connection.new_inbox())
        receiver = Intake(
            self._deliver,
            partial(self._inbox_ended, inbox),
            partial(self._lost, inbox),
            partial(self._restored, inbox),
        )
        self._attachment = self._connection.attach(inbox.pattern, receiver)
        self._inbox = inbox

    def _attach_again(self) -> bool:
        try:
            self._attach()
        except (errors.ConnectionDrainingError, errors.ConnectionClosedError):
            # Nobody wants more. What ends the inbox that there is ends the feed.
            self._decisions.stop()
            return False
        return True

    def _renew(self) -> None:
        former = self._attachment
        if self._attach_again() and former is not None:
            former.retire(self._deliver)

    # Its end.

    def _undo(self) -> None:
        self._decisions.stop()
        self._connection.remove_listener(self)
        super()._undo()

    def _event(self, tell: Tell) -> events.ConnectionEvent:
        stream, consumer, group = self._consumer.stream, self._consumer.name, self._demand.group or ""
        match tell.news:
            case News.SILENT:
                return events.ConsumerHeartbeatMissed(stream, consumer, self._decisions.patience)
            case News.LIMITED:
                return events.ConsumerLimitExceeded(stream, consumer, tell.text)
            case News.UNREACHABLE:
                return events.ConsumerUnreachable(stream, consumer)
            case News.PINNED:
                return events.ConsumerPinned(stream, consumer, group)
            case News.UNPINNED:
                return events.ConsumerUnpinned(stream, consumer, group)
            case News.EXPIRED:
                return events.MessagesExpired(stream, consumer, tell.number)
            case News.STRANGE:
                return events.UnknownStatus(stream, consumer, tell.number, tell.text)


def traits_of(info: api.ConsumerInfo | None) -> Traits:
    """Say what is known of a consumer.

    Args:
        info: What the server said of it; None where nobody has looked.
    """
    if info is None:
        return UNKNOWN
    config = info.config
    return Traits(
        forgotten_after=max(0.0, config.inactive_threshold or 0),
        max_waiting=config.max_waiting or 0,
        max_batch=config.max_batch or 0,
        max_expires=config.max_expires or 0.0,
        max_bytes=config.max_bytes or 0,
        pin_seconds=config.priority_timeout or 0.0,
        halts=config.deliver_policy == api.DeliverPolicy.LAST_PER_SUBJECT,
    )


@asynccontextmanager
async def consuming(nursery: trio.Nursery, consumer: Consumer, demand: Demand) -> AsyncIterator[ConsumerFeed]:
    """Read a pull consumer.

    Args:
        nursery: Where the feeding task lives.
        consumer: The consumer.
        demand: What is wanted of it.
    """
    consumer.__jetstream__().connection.pace.run.check("open_consumer")
    await checkpoint()
    feed = ConsumerFeed(consumer, demand)
    async with feeding(nursery, feed, feed._go_on):
        feed._open()
        yield feed
