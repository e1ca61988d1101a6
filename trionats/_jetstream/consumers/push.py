"""An existing push consumer as a feed: its deliver subject is subscribed, and the server is told when it may go on.

All decisions are the cellar's (`_protocol.jetstream.consumers.push`): when flow control is answered, what silence means, when there is too
much. `PushFeed` carries them out: what needs no waiting at once, in the step in which a message comes or is received, and a
look at the consumer in the feed's task, which mostly sleeps.

What waits here for too long, and what becomes of it when the feed is left, stands in `delivery_feed`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Final, NoReturn, final

import trio

from trionats import errors, events
from trionats._feeds.feed import feeding
from trionats._jetstream.consumers.delivery_feed import DeliveryFeed
from trionats._jetstream.messages.giving_back import give_back
from trionats._jetstream.messages.message import JetStreamMsg
from trionats._jetstream.ordered.source import RESPONSE_LIMIT
from trionats._protocol.jetstream.actions import Inspect
from trionats._protocol.jetstream.consumers.push import Answer, Push, PushNews, PushTraits, Tell
from trionats._protocol.receivers import Intake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trionats import api
    from trionats._core.message import Msg
    from trionats._jetstream.consumers.consumer import Consumer
    from trionats._protocol.jetstream.consumers.demand import Demand, OnLeave
    from trionats._protocol.jetstream.consumers.push import Step

__all__ = ["PushFeed", "pushed"]

#: The options of `open_consumer` that say something to a push consumer.
APPLY: Final = ("max_bytes", "on_leave")
#: How much may wait to be received where the consumer does not wait for us, as for a subscription.
MAX_MESSAGES: Final = 65_536
MAX_BYTES: Final = 64 * 1024 * 1024
#: When it is looked again whether somebody else still listens: the server may not have seen that we have left.
BOUND_PAUSES: Final = (0.05, 0.2)
ACK_PREFIX: Final = "$JS.ACK."


@final
class PushFeed(DeliveryFeed):
    """What a push consumer delivers.

    Args:
        consumer: The consumer.
        traits: What it is like.
        on_leave: What becomes of what was delivered and not received; None to give it back where that costs nothing.
    """

    def __init__(self, consumer: Consumer, traits: PushTraits, on_leave: OnLeave | None) -> None:
        # Its bounds are the cellar's, or the server's.
        super().__init__(consumer, inf, on_leave)
        self._traits = traits
        self._decisions = Push(consumer.stream, consumer.name, traits, trio.current_time())
        self._expired = 0
        self._fresh = True

    # What the connection's reader calls.

    def _deliver(self, message: Msg) -> None:
        now, reply = trio.current_time(), message.reply
        if message.status is not None and not reply.startswith(ACK_PREFIX):
            self._decisions.status(message.status, message.description, message.headers, reply, now)
            self._advance(now)
            return
        if not reply.startswith(ACK_PREFIX):
            # Anybody may publish to the deliver subject.
            self._connection.foreign.read(self._name, _no_delivery, message)
            return
        if self._deliverer.void:
            # The next life of the consumer has begun.
            self._deliverer = self._consumer.__deliverer__()
        deliverer = self._deliverer
        if self._decisions.came(reply, message.size, now):
            self._put(JetStreamMsg(message, deliverer, deliverer.due(reply, now)))
        elif self._gives_back:
            give_back(deliverer, (message,))
        self._advance(now)

    def _lost(self, _: Exception) -> None:
        self._decisions.connection_lost()

    def _restored(self) -> None:
        now = trio.current_time()
        self._decisions.connection_restored(now)
        self._advance(now)

    # What whoever receives calls.

    def _taken(self, item: JetStreamMsg) -> bool:
        now = trio.current_time()
        fresh = self._is_fresh(item, now)
        if not fresh:
            self._expired += 1
            if self._fresh:
                self._connection.emit(events.MessagesExpired(self._consumer.stream, self._consumer.name, self._expired))
        self._fresh = fresh
        if self._decisions.received(item.size) and not self._ended:
            self._advance(now)
        return not fresh

    # The feed's task.

    async def _go_on(self) -> NoReturn:
        while True:
            step = self._advance(trio.current_time())
            if isinstance(step, Inspect):
                await self._inspect()
            else:
                await self._park(step)

    def _advance(self, now: float) -> Step:
        """Do at once what needs no waiting, and wake the task where it has to see to something.

        Returns:
            The first thing that waits.
        """
        while True:
            step = self._decisions.next(now)
            if isinstance(step, Answer):
                self._connection.publish_aside(step.subject, passing=True)
            elif isinstance(step, Tell):
                self._connection.emit(self._event(step))
            else:
                break
        self._wake(step)
        return step

    async def _inspect(self) -> None:
        self._decisions.looking()
        failure: Exception | None = None
        try:
            with trio.move_on_after(RESPONSE_LIMIT):
                info = await self._consumer.info()
                self._decisions.inspected(info.config.deliver_subject, trio.current_time())
                return
        except errors.Error as error:
            failure = error
        self._decisions.inspect_failed(failure, trio.current_time())

    # Its life.

    def _attach(self) -> None:
        receiver = Intake(self._deliver, self._attachment_ended, self._lost, self._restored)
        self._attachment = self._connection.attach(self._traits.subject, receiver, queue=self._traits.group)
        if not self._connection.is_connected:
            self._decisions.connection_lost()

    def _event(self, tell: Tell) -> events.ConnectionEvent:
        stream, consumer = self._consumer.stream, self._consumer.name
        if tell.news is PushNews.SILENT:
            return events.ConsumerHeartbeatMissed(stream, consumer, 2 * self._traits.heartbeat)
        return events.MessagesMissed(stream, consumer, tell.count)


def _no_delivery(message: Msg) -> None:
    raise ValueError(f"it was published to the deliver subject, and no consumer delivered it: reply {message.reply!r}")


async def _free(consumer: Consumer) -> api.ConsumerInfo:
    """Look at a push consumer that nobody else listens to, if it is not for a group.

    Raises:
        ValueError: It is none.
        nats.errors.Error: Somebody does.
    """
    for pause in (*BOUND_PAUSES, None):
        info = await consumer.info()
        if not info.config.deliver_subject:
            raise ValueError(f"{consumer!r} is a pull consumer: it has no deliver_subject")
        if info.config.deliver_group or not info.push_bound:
            break
        if pause is None:
            text = f"{consumer}: somebody listens to it, and it has no deliver_group"
            raise errors.explained(errors.Error, text)
        await trio.sleep(pause)
    return info


@asynccontextmanager
async def pushed(nursery: trio.Nursery, consumer: Consumer, demand: Demand) -> AsyncIterator[PushFeed]:
    """Read a push consumer that there is.

    Entering looks at it, and queues the SUB.

    Args:
        nursery: Where the feeding task lives.
        consumer: The consumer.
        demand: What is wanted of it: what becomes of what is not received, and how many bytes may wait.

    Raises:
        trionats.errors.NotFoundError: There is no such consumer.
        nats.errors.Error: Somebody else listens to it, and it is not for a group; or as for `Consumer.info`.
        ValueError: It is a pull consumer, or an option does not apply.
    """
    demand.only("a push consumer", APPLY)
    consumer.__jetstream__().connection.pace.run.check("open_consumer")
    config = (await _free(consumer)).config
    traits = PushTraits(
        config.deliver_subject or "",
        config.deliver_group or "",
        config.idle_heartbeat or 0.0,
        bool(config.flow_control),
        consumer.__deliverer__().acknowledges,
        MAX_MESSAGES,
        demand.max_bytes or MAX_BYTES,
    )
    feed = PushFeed(consumer, traits, demand.on_leave)
    async with feeding(nursery, feed, feed._go_on):
        feed._attach()
        yield feed
