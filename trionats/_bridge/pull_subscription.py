"""What the bridge's feeds and entries are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio
from nats.aio.msg import Msg

from trionats import errors, events
from trionats._bridge.requests import ours
from trionats._feeds.bounded import BoundedFeed, Overflow
from trionats._feeds.feed import Feed
from trionats._jetstream.api import api_error
from trionats._jetstream.ordered import JITTER
from trionats._protocol.jetstream.acks import NANOSECONDS, count_of, whole_number
from trionats._protocol.jetstream.pull import Ending, PullInbox, Window
from trionats._protocol.jetstream.refusals import Refusals, Retry
from trionats._protocol.receivers import Intake
from trionats._protocol.server_errors import refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from trionats._bridge.attachments import Attachment
    from trionats._bridge.connection import NatsPyConnection
    from trionats._core.message import Msg as OurMsg
    from trionats._core.messaging import Messaging
    from trionats._jetstream.api import Api
    from trionats._protocol.jetstream.pull import Pull

NAK: Final = b"-NAK"
#: The server says that it is there this often, and keeps a request for so long.
HEARTBEAT: Final = 5.0
EXPIRES: Final = 30.0
#: How long to wait before the consumer is looked for again.
LOOK_AGAIN: Final = 1.0


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

    def attach(self, queue: str) -> None:
        """Subscribe."""
        self._attachment = self._connection.attach_plain(
            self._subject, Intake(self._deliver, self._end), queue=queue, max_msgs=self._max_msgs, patient=True
        )

    # The receiver's side.

    def _deliver(self, message: Msg) -> None:
        super()._deliver(message)
        # nats-py does not say which was the last.
        if self._max_msgs and self._delivered >= self._max_msgs:
            self._end(None)

    # Inside.

    def _measure(self, message: Msg) -> int:
        return _headers_size(message) + len(message.data)

    def _slowed(self, message: Msg) -> None:
        self._connection.tell(self._slow_consumer(message))

    def _undo(self) -> None:
        if self._attachment is not None:
            self._attachment.detach()


@final
class PullSubscription(Feed[Msg]):
    """The messages of a consumer, over nats-py's client: what `open_pull_subscription` gives."""

    def __init__(
        self,
        connection: NatsPyConnection,
        jetstream: Api[Messaging],
        stream: str,
        consumer: str,
        max_messages: int,
        max_bytes: int,
    ) -> None:
        super().__init__(f"consumer {consumer!r} of stream {stream!r}", max_messages, connection)
        self._connection, self._api = connection, jetstream
        self._where = f"{stream}.{consumer}"
        self._asking = f"{jetstream.prefix}.CONSUMER.MSG.NEXT.{self._where}"
        self._limits = max_messages, max_bytes
        self._window: Window
        self._inbox = PullInbox(connection.new_inbox())
        self._attachment: Attachment | None = None
        self._gives_back = False
        self._made: object = None
        self._stream, self._refusals = stream, Refusals()
        self._linked = True
        self._doubtful = False
        self._attention = trio.Event()
        self._listener = _Listener(self._refused)

    # The feeding task.

    async def start(self) -> None:
        """Find the consumer, and subscribe the inbox."""
        info = await self._api.request(f"CONSUMER.INFO.{self._where}")
        config = info.get("config")
        if not isinstance(config, dict):
            text = f"{self.name}: what came back is no consumer info"
            raise api_error(errors.APIError, text, text)
        self._made = info.get("created")
        self._gives_back = config.get("ack_policy") != "none" and not count_of(config.get("max_deliver"))
        self._window = _window(config, *self._limits)
        self._attachment = self._connection.attach_plain(
            self._inbox.pattern,
            Intake(self._deliver, self._end, self._connection_lost, self._connection_restored),
        )
        self._connection.add_listener(self._listener, refused=self._asking)

    async def run(self) -> NoReturn:
        """Ask for more whenever there is room, and for the consumer when it is silent: what the feeding task does."""
        while True:
            now = trio.current_time()
            if self._linked and (self._doubtful or now >= self._window.silent_after):
                await self._look()
                continue
            if self._linked and now >= self._window.unproven_after:
                self._pull(self._window.prove(""))
            self._ask(now)
            with trio.move_on_at(self._window.next_event(now) if self._linked else trio.current_time() + EXPIRES):
                await self._attention.wait()
            self._attention = trio.Event()

    async def _look(self) -> None:
        """See whether the consumer is there still, and begin anew if it is."""
        self._doubtful = False
        try:
            with trio.move_on_after(HEARTBEAT):
                info = await self._api.request(f"CONSUMER.INFO.{self._where}")
                if info.get("created") != self._made:
                    # What was received of the one before cannot be acknowledged to this one: it would settle other
                    # messages.
                    text = f"{self.name} was deleted and made anew"
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
        await trio.sleep(LOOK_AGAIN)
        self._doubtful = True

    def _ask(self, now: float) -> None:
        pull = self._window.pull("", now) if self._linked else None
        if pull is not None:
            self._pull(pull)

    def _pull(self, pull: Pull) -> None:
        self._connection.publish_nowait(self._asking, pull.body(), self._inbox.reply_to(pull))

    # The receiver's side.

    def _deliver(self, message: Msg) -> None:
        now = trio.current_time()
        if message.reply:
            size = _size(message)
            self._window.arrived(size, now)
            if self._put(message):
                self._window.buffered(size)
            else:
                self._give_back(message)
        elif (status := ours(message)).status is not None:
            number = self._inbox.number(message.subject)
            ending = self._window.status(number, status.status, status.description, status.headers, now)
            if ending is Ending.GONE:
                self._doubtful = True
            elif ending is Ending.MISTAKEN or _exceeds_a_limit(status):
                text = f"{self.name}: the server does not take our pull request: {status.description}"
                self._end(errors.explained(errors.APIError, text))
                return
        self._attention.set()

    def _connection_lost(self, reason: Exception) -> None:
        self._linked = False

    def _connection_restored(self) -> None:
        # The server forgot what was asked; it may have another consumer by now.
        self._linked = self._doubtful = True
        self._window.forget()
        self._attention.set()

    def _refused(self, event: events.ConnectionEvent) -> None:
        if isinstance(event, events.PermissionViolation):
            self._end(refusal_of(self.name, event.error, subject=self._asking))

    # Inside.

    def _taken(self, item: Msg) -> None:
        self._window.taken(_size(item))
        if not self._ended:
            self._ask(trio.current_time())

    def _undo(self) -> None:
        if self._attachment is not None:
            self._attachment.detach(self._give_back)
        self._connection.remove_listener(self._listener)

    def _leave(self) -> None:
        self._end(None)
        try:
            while True:
                self._give_back(self._receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            super()._leave()

    def _give_back(self, message: Msg) -> None:
        if self._gives_back and message.reply.startswith("$JS.ACK."):
            self._connection.publish_nowait(message.reply, NAK)


@final
class _Listener:
    """Hears what the server refuses."""

    def __init__(self, push: Callable[[events.ConnectionEvent], None]) -> None:
        self.push = push

    def end(self, reason: BaseException | None) -> None:
        """Nothing to do: the receiver is told."""


def _window(config: Mapping[str, object], max_messages: int, max_bytes: int) -> Window:
    """Make the window that a consumer's own limits leave of ours: a request beyond them is refused whole."""
    most, size = whole_number(config, "max_batch"), whole_number(config, "max_bytes")
    expires = min(EXPIRES, whole_number(config, "max_expires") / NANOSECONDS or EXPIRES)
    # The server takes no heartbeat that is longer than half of the time.
    heartbeat = min(HEARTBEAT, expires / 2)
    most, size = min(max_messages, most or max_messages), min(max_bytes, size or max_bytes)
    return Window(most, size, heartbeat=heartbeat, expires=expires, rng=JITTER)


def _exceeds_a_limit(status: OurMsg) -> bool:
    # Somebody lowered a limit since we looked. "Exceeded MaxWaiting" is none of ours: others' requests fill it.
    return status.status == 409 and status.description.lower().startswith("exceeded maxrequest")


def _headers_size(message: Msg) -> int:
    if not message.headers:
        return 0
    return sum(len(name) + len(value) + 4 for name, value in message.headers.items()) + 12


def _size(message: Msg) -> int:
    return len(message.subject) + len(message.reply) + _headers_size(message) + len(message.data)
