"""An existing push consumer as a feed: its deliver subject is subscribed, and the server is told when it may go on.

All decisions are the cellar's (`_protocol.jetstream.push`): when flow control is answered, what silence means, when there is too
much. `PushFeed` carries them out: what needs no waiting at once, in the step in which a message comes or is received, and a
look at the consumer in the feed's task, which mostly sleeps.

As with a pull consumer (`consuming`), what has waited here past its ack wait is somebody else's and not handed over (design 23), and
what is left is given back (`giving_back`).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Final, NoReturn, final

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import errors, events
from trionats._feeds.feed import Feed, feeding
from trionats._jetstream.messages.giving_back import give_back, leave, takes_back
from trionats._jetstream.messages.message import JetStreamMsg
from trionats._protocol.jetstream.acks import IN_PROGRESS
from trionats._protocol.jetstream.actions import Fail, Inspect, Wait
from trionats._protocol.jetstream.push import Answer, Push, PushNews, PushTraits, Tell
from trionats._protocol.receivers import Intake
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trionats import api
    from trionats._core.message import Msg
    from trionats._core.messaging import Retirable
    from trionats._jetstream.consumers.consumer import Consumer
    from trionats._protocol.jetstream.demand import Demand, OnLeave
    from trionats._protocol.jetstream.push import Step

__all__ = ["PushFeed", "pushed"]

#: The options of `open_consumer` that say something to a push consumer.
APPLY: Final = ("max_bytes", "on_leave")
#: How much may wait to be received where the consumer does not wait for us, as for a subscription.
MAX_MESSAGES: Final = 65_536
MAX_BYTES: Final = 64 * 1024 * 1024
#: How many seconds one look at the consumer may take.
RESPONSE_LIMIT: Final = 5.0
#: When it is looked again whether somebody else still listens: the server may not have seen that we have left.
BOUND_PAUSES: Final = (0.05, 0.2)
#: How long before the end of its ack wait, in seconds and at the most, a message is not handed over any more.
LONGEST_MARGIN: Final = 1.0
ACK_PREFIX: Final = "$JS.ACK."
DELETED: Final = "was deleted"


@final
class PushFeed(Feed[JetStreamMsg]):
    """What a push consumer delivers.

    Args:
        consumer: The consumer.
        traits: What it is like.
        on_leave: What becomes of what was delivered and not received; None to give it back where that costs nothing.
    """

    def __init__(self, consumer: Consumer, traits: PushTraits, on_leave: OnLeave | None) -> None:
        jetstream = consumer.__jetstream__()
        self._connection = jetstream.connection
        # Its bounds are the cellar's, or the server's.
        super().__init__(f"consumer {consumer.name!r} of stream {consumer.stream!r}", inf, jetstream.connection)
        self._api, self._consumer, self._traits, self._on_leave = jetstream, consumer, traits, on_leave
        self._deliverer = consumer.__deliverer__()
        self._decisions = Push(consumer.stream, consumer.name, traits, trio.current_time())
        # What is due before that was delivered in a former life of the consumer.
        self._void_until = -inf
        self._expired = 0
        self._fresh = True
        self._parked: trio.Event | None = None
        self._until = inf
        self._attachment: Retirable | None = None

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
            self._begin_life(now)
        deliverer = self._deliverer
        if self._decisions.came(reply, message.size, now):
            self._put(JetStreamMsg(message, deliverer, deliverer.due(reply, now)))
        elif self._gives_back:
            give_back(deliverer, (message,))
        self._advance(now)

    def _begin_life(self, now: float) -> None:
        """Go on with messages of the consumer's next life; what is buffered of the last one cannot be acknowledged any more."""
        self._void_until = now + self._deliverer.ack_wait if self._deliverer.acknowledges else -inf
        self._deliverer = self._consumer.__deliverer__()

    def _lost(self, _: Exception) -> None:
        self._decisions.connection_lost()

    def _restored(self) -> None:
        now = trio.current_time()
        self._decisions.connection_restored(now)
        self._advance(now)

    def _subscription_ended(self, reason: BaseException | None) -> None:
        if self._ended:
            return
        if isinstance(reason, REFUSALS):
            reason = refusal_of(self._name, reason)
        closing = reason is None and not self._connection.accepting
        self._end(reason)
        if closing:
            # Nobody could acknowledge it any more.
            self._give_back_buffered()

    # What whoever receives calls.

    def _taken(self, item: JetStreamMsg) -> bool:
        now = trio.current_time()
        wait = self._deliverer.wait(item.reply)
        left = item.due - now
        fresh = left > min(LONGEST_MARGIN, wait / 20) and item.due >= self._void_until
        if not fresh:
            self._expired += 1
            if self._fresh:
                self._connection.emit(events.MessagesExpired(self._consumer.stream, self._consumer.name, self._expired))
        elif left < wait / 2:
            # Else whoever takes it now might have a moment left for its work.
            item.due = now + wait
            self._connection.acknowledge_aside(item.reply, IN_PROGRESS)
        self._fresh = fresh
        if self._decisions.received(item.size) and not self._ended:
            self._advance(now)
        return not fresh

    # The feed's task.

    async def _go_on(self) -> NoReturn:
        while True:
            step = self._advance(trio.current_time())
            if isinstance(step, Fail):
                self._lose(step.error)
                raise step.error
            if isinstance(step, Inspect):
                await self._inspect()
            elif isinstance(step, Wait):
                await self._park(step.until)

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
        if isinstance(step, Fail):
            self._lose(step.error)
            self._end(step.error)
        elif self._parked is not None and (isinstance(step, Inspect) or step.until < self._until):
            self._parked.set()
        return step

    async def _park(self, until: float) -> None:
        self._parked, self._until = trio.Event(), until
        try:
            with trio.move_on_at(until) as scope:
                await self._parked.wait()
        finally:
            self._parked = None
        if scope.cancelled_caught:
            # If nobody could do anything until now, neither could the reader: what it reads now was there in time.
            await checkpoint()

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
        receiver = Intake(self._deliver, self._subscription_ended, self._lost, self._restored)
        self._attachment = self._connection.attach(self._traits.subject, receiver, queue=self._traits.group)
        if not self._connection.is_connected:
            self._decisions.connection_lost()

    @property
    def _gives_back(self) -> bool:
        if self._on_leave is None:
            return takes_back(self._deliverer)
        return self._on_leave == "nak" and self._deliverer.acknowledges

    def _lose(self, error: Exception) -> None:
        if isinstance(error, errors.ConsumerGoneError):
            with self._api.deliverers.ending(self._consumer.stream, self._consumer.name, DELETED):
                pass

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
                if message.due > now and message.due >= self._void_until:
                    held.append(message)
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            pass
        if self._gives_back:
            give_back(self._deliverer, held)

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
            text = f"consumer {consumer.name!r} of stream {consumer.stream!r}: somebody listens to it, and it has no deliver_group"
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
