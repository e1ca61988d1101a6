"""open_pull_subscription: a consumer that nats-py pulls from, message after message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio
from nats.aio.msg import Msg
from nats.js.client import JetStreamContext

from trionats import errors, events
from trionats._bridge.connection import connection_of
from trionats._bridge.messages import ours, size_of
from trionats._feeds.feed import Feed, feeding
from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.api import Api, api_error
from trionats._jetstream.jitter import JITTER
from trionats._protocol.jetstream.acks import count_of, whole_number
from trionats._protocol.jetstream.pull import Ending, PullInbox, Window
from trionats._protocol.jetstream.refusals import Refusals, Retry
from trionats._protocol.server_errors import refusal_of
from trionats._told.moments import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import NoReturn

    from trionats._bridge.attachments import Attachment
    from trionats._bridge.connection import NatsPyConnection
    from trionats._core.message import Msg as OurMsg
    from trionats._protocol.jetstream.pull import Pull

__all__ = ["PullSubscription", "open_pull_subscription"]

NAK: Final = b"-NAK"
#: The server says that it is there this often, and keeps a request for so long.
HEARTBEAT: Final = 5.0
EXPIRES: Final = 30.0
#: How long to wait before the consumer is inspected again.
INSPECT_AGAIN: Final = 1.0


@final
class PullSource:
    """Asks a consumer for messages whenever there is room for them.

    It is the receiver of what comes to its inbox, and a listener to what the server refuses.

    Args:
        connection: Whom it asks through.
        api: The JetStream API, over the same connection.
        where: The stream and the consumer.
        name: What texts call it.
        limits: How many messages, and how many bytes of them, may be asked for or wait to be received.
        put: Takes a message, and says whether it did.
        end: Called when nothing more will come.
    """

    def __init__(
        self,
        connection: NatsPyConnection,
        api: Api[NatsPyConnection],
        where: tuple[str, str],
        name: str,
        limits: tuple[int, int],
        put: Callable[[Msg], bool],
        end: Callable[[BaseException | None], None],
    ) -> None:
        self._connection, self._api = connection, api
        self._stream, self._consumer = where
        self._name = name
        self._asked = f"{api.prefix}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        self._limits = limits
        self._put, self._end = put, end
        self._window: Window
        self._inbox = PullInbox(connection.new_inbox())
        self._attachment: Attachment | None = None
        self._gives_back = False
        self._made: object = None
        self._refusals = Refusals()
        self._connected = True
        self._doubtful = False
        self._closed = False
        self._attention = trio.Event()

    async def open(self) -> None:
        """Find the consumer, and subscribe the inbox."""
        info = await self._inspect()
        config = info.get("config")
        if not isinstance(config, dict):
            text = f"{self._name}: what came back is no consumer info"
            raise api_error(errors.APIError, text, text)
        self._made = info.get("created")
        self._gives_back = config.get("ack_policy") != "none" and not count_of(config.get("max_deliver"))
        self._window = _window(config, *self._limits)
        self._attachment = self._connection.attach_plain(self._inbox.pattern, self)
        self._connection.add_listener(self, refused=self._asked)

    async def run(self) -> NoReturn:
        """Ask for more whenever there is room, and for the consumer when it is silent: what the feeding task does."""
        while True:
            now = trio.current_time()
            if self._connected and (self._doubtful or now >= self._window.silent_after):
                await self._begin_anew()
                continue
            if self._connected and now >= self._window.unproven_after:
                self._pull(self._window.prove(""))
            self._ask(now)
            with trio.move_on_at(self._window.next_event(now) if self._connected else trio.current_time() + EXPIRES):
                await self._attention.wait()
            self._attention = trio.Event()

    def taken(self, message: Msg) -> None:
        """Ask for more in the place of a message that was received."""
        self._window.taken(_size(message))
        if not self._closed:
            self._ask(trio.current_time())

    def give_back(self, message: Msg) -> None:
        """Let the server deliver a message again at once, where that is not one of few deliveries."""
        if self._gives_back and message.reply.startswith("$JS.ACK."):
            self._connection.publish_aside(message.reply, NAK)

    def close(self) -> None:
        """Ask no more, and give back what is still under way. Synchronous, called once."""
        self._closed = True
        if self._attachment is not None:
            self._attachment.detach(self.give_back)
        self._connection.remove_listener(self)

    # The receiver of what comes to the inbox.

    def deliver(self, message: Msg) -> None:
        """Hand on a message; a status says how a request ended."""
        now = trio.current_time()
        if message.reply:
            size = _size(message)
            self._window.arrived(size, now)
            if self._put(message):
                self._window.buffered(size)
            else:
                self.give_back(message)
        elif (status := ours(message)).status is not None:
            number = self._inbox.number(message.subject)
            ending = self._window.status(number, status.status, status.description, status.headers, now)
            if ending is Ending.GONE:
                self._doubtful = True
            elif ending is Ending.MISTAKEN or _exceeds_a_limit(status):
                text = f"{self._name}: the server does not take our pull request: {status.description}"
                self._end(errors.explained(errors.APIError, text))
                return
        self._attention.set()

    def connection_lost(self, reason: Exception) -> None:
        """Ask for nothing more."""
        self._connected = False

    def connection_restored(self) -> None:
        """Ask anew, since the server forgot what was asked; it may have another consumer by now."""
        self._connected = self._doubtful = True
        self._window.forget()
        self._attention.set()

    def ended(self, reason: BaseException | None) -> None:
        """End the feed."""
        self._end(reason)

    # The listener to what the server refuses.

    def push(self, event: events.ConnectionEvent) -> None:
        """End the feed when it is our asking that is refused: nothing would ever come (design 41)."""
        if isinstance(event, events.PermissionViolation):
            self._end(refusal_of(self._name, event.error, subject=self._asked))

    def end(self, reason: BaseException | None) -> None:
        """Nothing to do: `ended` is called."""

    # Inside.

    async def _inspect(self) -> dict[str, object]:
        return await self._api.request(f"CONSUMER.INFO.{self._stream}.{self._consumer}")

    async def _begin_anew(self) -> None:
        """Begin anew if the consumer is still there."""
        self._doubtful = False
        try:
            with trio.move_on_after(HEARTBEAT):
                info = await self._inspect()
                if info.get("created") != self._made:
                    # What was received of the one before cannot be acknowledged to this one: it would settle other
                    # messages.
                    text = f"{self._name} was deleted and made anew"
                    raise api_error(errors.NotFoundError, text, text, code=404)
                self._window.forget()
                self._refusals.forget()
                return
        except errors.NotFoundError:
            raise
        except errors.Error as error:
            retry = self._refusals.judge(error)
            if retry is Retry.NEVER:
                raise
            if retry is Retry.AND_TELL:
                self._connection.emit(events.ReaderRefused(self._stream, error))
        await trio.sleep(INSPECT_AGAIN)
        self._doubtful = True

    def _ask(self, now: float) -> None:
        pull = self._window.pull("", now) if self._connected else None
        if pull is not None:
            self._pull(pull)

    def _pull(self, pull: Pull) -> None:
        self._connection.publish_aside(self._asked, pull.body(), self._inbox.reply_to(pull), passing=True)


@final
class PullSubscription(Feed[Msg]):
    """The messages of a consumer, over nats-py's client: what `open_pull_subscription` gives."""

    def __init__(
        self,
        connection: NatsPyConnection,
        api: Api[NatsPyConnection],
        stream: str,
        consumer: str,
        max_messages: int,
        max_bytes: int,
    ) -> None:
        super().__init__(f"consumer {consumer!r} of stream {stream!r}", max_messages, connection)
        limits = max_messages, max_bytes
        self._source = PullSource(connection, api, (stream, consumer), self._name, limits, self._put, self._end)

    def _taken(self, item: Msg) -> None:
        self._source.taken(item)

    def _undo(self) -> None:
        self._source.close()

    def _leave(self) -> None:
        self._end(None)
        try:
            while True:
                self._source.give_back(self._receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            super()._leave()


@opens
async def open_pull_subscription(
    nursery: trio.Nursery,
    psub: JetStreamContext.PullSubscription,
    *,
    max_messages: int = 500,
    max_bytes: int = 8 * 1024 * 1024,
) -> AsyncIterator[PullSubscription]:
    """Read the consumer behind nats-py's pull subscription, message after message.

    It asks the server for as much as there is room for, over an inbox of its own: nothing is dropped however slow the
    receiver is, and no request is left with the server that would swallow the next message, as a cancelled `fetch` leaves
    one. It keeps to the limits that the consumer has when it is opened; where they are lowered later, `receive` raises
    `trionats.errors.APIError`. `psub` and its consumer stay the caller's, and both stay when the block is left; `psub.fetch`
    may be used beside it.

    Acknowledge with `await aio_as_trio(msg.ack)()`. Messages that were not received when the block is left,
    and those still under way, are given back to the server (NAK), unless the consumer limits deliveries: then its
    ack wait brings them.

    Entering asks the server once. Leaving ends the feed synchronously and waits, shielded and bounded, only until its task
    is gone. The feed ends as every feed does; `receive` raises `nats.errors.NotFoundError` when the consumer is deleted, and
    `trionats.errors.PermissionsViolationError` when the server refuses to be asked for messages.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        psub: What nats-py's `pull_subscribe` or `pull_subscribe_bind` gave.
        max_messages: How many messages may be asked for or wait to be received, unless the consumer allows fewer.
        max_bytes: How many bytes of messages may, unless the consumer allows fewer; an estimate for a consumer of the last message
            of each subject (`last_per_subject`).

    Returns:
        An async context manager that gives the `PullSubscription`, a feed of `nats.aio.msg.Msg`.

    Raises:
        nats.errors.NotFoundError: The consumer is gone.
        nats.errors.ConnectionClosedError: The client is closed.
        nats.errors.ConnectionDrainingError: The client is being drained.
        RuntimeError: The client does not live in a trio-asyncio loop that is open, or was never connected.
        TypeError: `psub` is no pull subscription of nats-py.
        ValueError: A limit is none.
    """
    check_nursery(nursery, "open_pull_subscription")
    _check_psub(psub)
    if max_messages < 1 or max_bytes < 1:
        raise ValueError("open_pull_subscription(): max_messages and max_bytes must be 1 or more")
    connection = connection_of(psub._nc, "open_pull_subscription")
    api = Api(connection, psub._js._prefix)
    feed = PullSubscription(connection, api, psub._stream, psub._consumer, max_messages, max_bytes)
    await feed._source.open()
    async with feeding(nursery, feed, feed._source.run):
        yield feed


def _check_psub(psub: object) -> None:
    if not isinstance(psub, JetStreamContext.PullSubscription):
        text = f"what nats-py's pull_subscribe gives, not {type(psub).__name__}"
        raise TypeError(f"open_pull_subscription(nursery, psub): psub must be {text}")


def _window(config: Mapping[str, object], max_messages: int, max_bytes: int) -> Window:
    """Make the window that a consumer's own limits leave of ours: a request beyond them is refused whole."""
    most, size = whole_number(config, "max_batch"), whole_number(config, "max_bytes")
    expires = min(EXPIRES, whole_number(config, "max_expires") / NANOSECONDS or EXPIRES)
    # The server takes no heartbeat that is longer than half of the time.
    heartbeat = min(HEARTBEAT, expires / 2)
    most, size = min(max_messages, most or max_messages), min(max_bytes, size or max_bytes)
    window = Window(most, size, heartbeat=heartbeat, expires=expires, rng=JITTER)
    window.by_list = config.get("deliver_policy") == "last_per_subject"
    return window


def _exceeds_a_limit(status: OurMsg) -> bool:
    # Somebody lowered a limit since we looked. "Exceeded MaxWaiting" is none of ours: others' requests fill it.
    return status.status == 409 and status.description.lower().startswith("exceeded maxrequest")


def _size(message: Msg) -> int:
    return len(message.subject) + len(message.reply) + size_of(message)
