"""A fetch: one request for messages, and what comes of it. When it is over and with what, `_protocol.jetstream.consumers.fetching` decides.

Each fetch has an inbox of its own, in which each of its requests has a reply subject: so what comes late for an earlier one
touches no other (a fetch that asked again included), and two fetches on one consumer know nothing of each other.

The connection's reader calls `deliver` with each message: it is appended to a list, and that is all, until the last one has
come. The caller's own task does the rest, so there is nothing to clean up but the inbox. Whatever ends a fetch without
returning them gives its messages back at once, in the same step, with those that still come (`giving_back`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import enable_ki_protection

from trionats import errors, events
from trionats._jetstream.consumers.oversize import upcoming
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.messages.giving_back import give_back, leave
from trionats._jetstream.messages.message import JetStreamMsg
from trionats._protocol.jetstream.actions import Fail, Inspect, Measure, Wait
from trionats._protocol.jetstream.consumers.fetching import Fetch
from trionats._protocol.jetstream.pull import PIN_HEADER, Pull, PullInbox
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing, Retirable
    from trionats._jetstream.api import Api
    from trionats._jetstream.messages.deliverers import Deliverer
    from trionats._protocol.jetstream.consumers.fetching import Wanted

__all__ = ["Fetching", "fetch"]

#: How many seconds the server may take to say what it knows of the consumer.
RESPONSE_LIMIT = 2.0


@enable_ki_protection
async def fetch(
    jetstream: Api[Publishing], stream: str, consumer: str, deliverer: Deliverer, wanted: Wanted, pins: dict[str, str]
) -> list[JetStreamMsg]:
    """Ask a consumer for messages once, and wait for what comes of it.

    Args:
        jetstream: Where the stream is.
        stream: The stream.
        consumer: The consumer.
        deliverer: What its messages are made with.
        wanted: What is asked for.
        pins: What the server calls us, by priority group; kept here for the next fetch.

    Returns:
        What came, in the server's order.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    fetching = Fetching(jetstream, stream, consumer, deliverer, wanted, pins)
    return await fetching.run()


@final
class Fetching:
    """What receives for one fetch, and does what `Fetch` says. The arguments are those of `fetch`."""

    def __init__(
        self,
        jetstream: Api[Publishing],
        stream: str,
        consumer: str,
        deliverer: Deliverer,
        wanted: Wanted,
        pins: dict[str, str],
    ) -> None:
        connection = jetstream.connection
        self._api, self._stream, self._consumer = jetstream, stream, consumer
        self._deliverer, self._wanted, self._pins = deliverer, wanted, pins
        self._group = wanted.terms.group or ""
        self._pin = pins.get(self._group, "")
        self._life = Fetch(
            wanted,
            stream,
            consumer,
            trio.current_time(),
            deadline=trio.current_effective_deadline(),
            round_trip=jetstream.whereabouts.round_trip,
            connected=connection.is_connected,
            acknowledges=deliverer.acknowledges,
            ack_wait=deliverer.ack_wait,
            pin=self._pin,
        )
        self._messages: list[Msg] = []
        self._counts_bytes = wanted.max_bytes is not None
        self._inbox = PullInbox(connection.new_inbox())
        self._changed = trio.Event()

    async def run(self) -> list[JetStreamMsg]:
        """Do what is to be done until it is over."""
        # Not an attribute: it knows us, and a circle would wait for the garbage collector.
        attachment = self._api.connection.attach(self._inbox.pattern, self)
        try:
            while True:
                action = self._life.next(trio.current_time())
                if action is None:
                    return self._handed_over(attachment)
                if isinstance(action, Fail):
                    # What is kept would know the frames that it was raised through, and so itself.
                    raise errors.again(action.error)
                if isinstance(action, Wait):
                    await self._park(action.until)
                elif isinstance(action, Pull):
                    self._pull(action)
                elif isinstance(action, Inspect):
                    await self._inspect()
                else:
                    assert isinstance(action, Measure)
                    await self._measure()
        except BaseException as reason:
            self._remember_pin()
            if isinstance(reason, errors.ConsumerGoneError):
                self._api.deliverers.gone(self._stream, self._consumer)
            leave(attachment, self._deliverer, [] if self._too_late else self._taken())
            raise
        finally:
            self._api.connection.remove_listener(self)

    # What the reader calls.

    def deliver(self, message: Msg) -> None:
        """Take what came to the inbox."""
        if message.reply:
            self._messages.append(message)
            size = len(message.subject) + len(message.reply) + message.size if self._counts_bytes else 0
            if self._life.received(size):
                self._life.noticed(trio.current_time())
                self._changed.set()
        elif message.status is not None:
            number = self._inbox.number(message.subject)
            self._life.status(number, message.status, message.description, trio.current_time())
            self._changed.set()

    def connection_lost(self, reason: Exception) -> None:
        """Return what came, or wait for the next connection."""
        self._life.connection_lost()
        self._changed.set()

    def connection_restored(self) -> None:
        """Ask again."""
        self._life.connection_restored()
        self._changed.set()

    def ended(self, reason: BaseException | None) -> None:
        """Give all back: the client is closed or drained, or the server refuses our inbox."""
        what = f"{self._wanted.call} from {self._deliverer.consumer}"
        try:
            self._api.connection.check_open(what)
        except errors.Error as closed:
            closed.__cause__ = reason
            self._life.failed(closed)
        else:
            if isinstance(reason, REFUSALS):
                reason = refusal_of(what, reason)
            if isinstance(reason, Exception):
                self._life.failed(reason)
        # Now, while something can still be sent.
        messages = self._taken()
        if self._deliverer.takes_back:
            give_back(self._deliverer, messages)
        self._changed.set()

    # The listener to what the server refuses.

    def push(self, event: events.ConnectionEvent) -> None:
        """Fail where it is our asking that is refused: no status says so."""
        if isinstance(event, events.PermissionViolation):
            self._life.failed(refusal_of(f"{self._wanted.call} from {self._deliverer.consumer}", event.error))
            self._changed.set()

    def end(self, reason: BaseException | None) -> None:
        """Nothing to do: `ended` is called."""

    # Inside.

    def _handed_over(self, attachment: Retirable) -> list[JetStreamMsg]:
        deliverer, batch = self._deliverer, self._wanted.batch
        what = f"{self._wanted.call} from {deliverer.consumer}"
        if deliverer.void:
            raise errors.explained(errors.Error, f"{what}: it {deliverer.void} meanwhile")
        if self._too_late:
            # This process stood still, and they belong to somebody else now.
            text = f"{what}: {len(self._messages)} messages waited here for longer than its ack wait, {deliverer.ack_wait:g} s"
            raise errors.explained(errors.TimeoutError, text)
        self._remember_pin()
        messages = self._taken()
        if self._life.over:
            attachment.detach()
        else:
            # Asked for again without knowing what became of the first request, more may have come than was wanted.
            leave(attachment, deliverer, messages[batch:])
        if deliverer.backoff:
            began = self._life.due - deliverer.ack_wait
            return [JetStreamMsg(each, deliverer, deliverer.due(each.reply, began)) for each in messages[:batch]]
        return [JetStreamMsg(message, deliverer, self._life.due) for message in messages[:batch]]

    @property
    def _too_late(self) -> bool:
        return trio.current_time() >= self._life.due

    def _taken(self) -> list[Msg]:
        """Take what came, so that nobody else does: without a connection, leaving ends us at once."""
        messages, self._messages = self._messages, []
        return messages

    def _remember_pin(self) -> None:
        if not self._group:
            return
        pin = self._messages[-1].headers.get(PIN_HEADER) if self._messages else None
        if pin is not None:
            self._pins[self._group] = pin
        elif self._life.pin != self._pin and self._pins.get(self._group) == self._pin:
            # It was refused; but another fetch may have got a new one meanwhile.
            del self._pins[self._group]

    async def _park(self, until: float) -> None:
        with trio.move_on_at(until):
            await self._changed.wait()
        self._changed = trio.Event()

    def _pull(self, pull: Pull) -> None:
        connection = self._api.connection
        subject = f"{self._api.prefix}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        connection.add_listener(self, refused=subject)
        connection.publish_aside(subject, pull.body(), self._inbox.reply_to(pull), passing=True)

    async def _inspect(self) -> None:
        failure: Exception | None = None
        try:
            with trio.move_on_after(RESPONSE_LIMIT):
                info = await JetStreamManager(self._api).consumer_info(self._stream, self._consumer)
                self._life.inspected(info.num_waiting or 0, info.config.max_waiting, trio.current_time())
                return
        except errors.Error as error:
            failure = error
        self._life.inspect_failed(failure, trio.current_time())

    async def _measure(self) -> None:
        found = None
        try:
            with trio.move_on_after(RESPONSE_LIMIT):
                info = await JetStreamManager(self._api).consumer_info(self._stream, self._consumer)
                found = await upcoming(self._api, info)
        except errors.Error:
            pass
        self._life.measured(*((None, None) if found is None else (found.size, found.sequence)))
