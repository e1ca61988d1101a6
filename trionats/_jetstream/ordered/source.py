"""Ordered reading of a stream: messages in order, without gap and without duplicate, through whatever happens.

Who decides
    All decisions are the cellar's. `_protocol.jetstream.ordered.resuming` says what to do next, of a reader's whole life: which consumer to
    make and from where, how much to ask for, when silence becomes doubt, when to begin anew, and when it is over. With `snapshot`
    and `leader` it decides where the end of what was stored is (design 10, 42, 59), and whether it is still the same stream (60).
    It is told what came and what became of what it said; it neither waits nor sends. `OrderedSource` does both.

Two ways in
    * The connection's reader calls `deliver` with each message and status, `connection_lost`, `connection_restored` and `ended`;
      it also calls `push` when the server refuses our pulls, of which no status tells (design 41). These are synchronous. A message that
      is the next one goes straight to the sink, in the same step; what needs no waiting, such as the next pull, is
      done at once, in `_go_on`.
    * Whoever reads calls `step` in a loop, in a task of its own choice: a watcher's feeding task, or a `get` that wants its next chunk.
      There is no task of ours. `step` does what waits: it asks the server (create, inspect, look, find), each question bounded by
      `RESPONSE_LIMIT` and asked again by a later step; or it parks until something is to be done. A cancelled step loses nothing:
      what was not carried out is said again by the next one.

The sink
    says of each message whether it was kept, dropped, or refused for want of room; the cursor moves only for the first two, so that
    what was refused comes again (design 11). For what was kept, `taken` gives the credit back when it leaves the sink (design 9).

Leaving
    is synchronous (`close`): the inbox is unsubscribed and the consumers' deletion queued, also that of one whose creation was
    under way; a creation that was cancelled is undone, shielded and bounded, since the server works on several requests
    at once and could delete first (design 7).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import trio

from trionats import errors, events
from trionats._jetstream.api import api_error
from trionats._protocol import subjects
from trionats._protocol.jetstream.acks import count_of
from trionats._protocol.jetstream.actions import Create, Delete, Fail, Find, Inspect, Look, Wait
from trionats._protocol.jetstream.ordered.leader import read_stream
from trionats._protocol.jetstream.pull import Pull, PullInbox
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._core.message import Msg
    from trionats._core.messaging import Attached, Messaging
    from trionats._jetstream.api import Api
    from trionats._protocol.jetstream.acks import AckSubject
    from trionats._protocol.jetstream.ordered.resuming import Ordered

#: What is refused while a deletion is under way, and when it is tried again: there are too many consumers (one of ours
#: that was left is deleted without waiting, and the server works on several requests at once), or the stream is just
#: going (10096).
DELETION_UNDER_WAY: Final = frozenset({10026, 10002, 10096})
DELETION_PAUSES: Final = (0.01, 0.05, 0.2, 0.5)
#: How many seconds one question to the server may take before it is asked again.
RESPONSE_LIMIT: Final = 5.0
#: How long undoing a creation that was cancelled may take, and when it is tried again.
UNDO_LIMIT: Final = 1.0
UNDO_PAUSES: Final = (0.01, 0.05, 0.2)


class Handed(enum.Enum):
    """What a sink did with a message."""

    KEPT = enum.auto()
    """It takes up room until `OrderedSource.taken`."""
    DROPPED = enum.auto()
    """Nobody wants it; it is done with."""
    REFUSED = enum.auto()
    """There was no room; it has to come again."""


def _ignored(*_: object) -> None:
    pass


def _dropped(*_: object) -> Handed:
    return Handed.DROPPED


@final
@dataclass(frozen=True, slots=True)
class Sink:
    """Where the messages go. The reader calls these: they do not wait and do not raise.

    Attributes:
        take: Takes the next message, with its place in the stream and the size that `OrderedSource.taken` wants to hear.
        stored_read: Called once at the most, when all has been handed over that was stored when reading began.
        ended: Called when the connection was closed (None) or lost for good.
        begun_anew: Called before the first message of a stream that took the place of the one that was read.
    """

    take: Callable[[Msg, AckSubject, int], Handed] = _dropped
    stored_read: Callable[[], None] = _ignored
    ended: Callable[[BaseException | None], None] = _ignored
    begun_anew: Callable[[], None] = _ignored


_NOWHERE: Final = Sink()


@final
class OrderedSource:
    """Messages of a stream in order, without gap and without duplicate, for as long as somebody calls `step`.

    Args:
        jetstream: Where the stream is.
        ordered: The decisions; for this source alone.
        sink: Where the messages go.
    """

    def __init__(self, jetstream: Api[Messaging], ordered: Ordered, sink: Sink) -> None:
        self._api = jetstream
        self._ordered = ordered
        self._sink = sink
        self._inbox = PullInbox(jetstream.connection.new_inbox())
        # What `trio.current_time` looks up each time; this is done for each message.
        self._now = trio.lowlevel.current_clock().current_time
        self._asked = ""
        self._attachment: Attached | None = None
        self._parked: trio.Event | None = None
        self._until = 0.0
        self._told = False
        self._restarts = ordered.restarts
        self._closed = False
        self._lost: BaseException | None = None
        self._refused: errors.Error | None = None

    @property
    def resets(self) -> int:
        """How often it had to begin anew."""
        return self._ordered.resets

    @property
    def refusal(self) -> Exception | None:
        """What keeps it from getting on at the moment, as far as the server says so."""
        return self._ordered.refusal

    async def open(self) -> None:
        """Create the consumer and ask for the first messages.

        Failed or cancelled, nothing is left of it: where the server may have seen the request, the consumer's deletion
        is queued behind it.

        Raises:
            nats.errors.NotFoundError: There is no such stream.
            nats.errors.Error: As for any request to the JetStream API.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._attachment = self._api.connection.attach(self._inbox.pattern, self)
        try:
            action = self._ordered.next(trio.current_time())
            assert isinstance(action, Create), "begun before"
            self._made(action, await self._make(action))
            while self._ordered.opening:
                await self.step()
        except BaseException:
            self.close()
            raise
        self._go_on(trio.current_time())

    async def resume(self) -> None:
        """Go on with decisions that another source was left with, and ask for messages.

        What passes by itself, such as a stream without a leader, is waited for. Failed or cancelled, nothing is left of it.

        Raises:
            nats.errors.Error: As for `step`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._attachment = self._api.connection.attach(self._inbox.pattern, self)
        try:
            while not self._ordered.reading:
                await self.step()
        except BaseException:
            self.close()
            raise
        self._go_on(trio.current_time())

    async def step(self) -> None:
        """Do what is to be done, or wait until something happens: a message for the sink may have come, or not.

        Raises:
            nats.errors.StreamRegressedError: The stream went backwards.
            nats.errors.NotFoundError: The stream is gone.
            nats.errors.ConnectionClosedError: The client was closed, or lost for good.
            trionats.errors.PermissionsViolationError: The server refuses to be asked for messages, or for a consumer,
                or our inbox.
            trionats.errors.MaxSubscriptionsError: The server takes no more subscriptions.
        """
        while True:
            if self._closed:
                if self._refused is not None:
                    raise errors.again(self._refused)
                text = f"reading of stream '{self._ordered.stream}': the client is closed"
                raise errors.explained(errors.ConnectionClosedError, text) from self._lost
            action = self._ordered.next(trio.current_time())
            if isinstance(action, Pull):
                self._pull(action)
            elif isinstance(action, Delete):
                self._delete(action.name)
            elif isinstance(action, Fail):
                raise action.error
            else:
                break
        if isinstance(action, Wait):
            await self._park(action.until)
        elif isinstance(action, Create):
            await self._create(action)
        elif isinstance(action, Inspect):
            await self._inspect(action)
        else:
            await self._ask_leader(action)
        self._go_on(trio.current_time())

    def wake(self) -> None:
        """Let a `step` that waits return."""
        if self._parked is not None:
            self._parked.set()

    def taken(self, size: int, messages: int = 1) -> None:
        """Take note that messages that the sink kept make room for others.

        Args:
            size: Their sizes, together.
            messages: How many they are.
        """
        if self._ordered.taken(size, messages) and not self._closed:
            self._go_on(trio.current_time())

    def close(self, *, keep: bool = False) -> None:
        """End it: the inbox is unsubscribed and the consumer's deletion queued. Synchronous, idempotent.

        Args:
            keep: Keep the consumer for a source that resumes, if it can be (`Ordered.leave`).
        """
        if self._closed:
            return
        self._closed = True
        self._api.connection.remove_listener(self)
        if self._attachment is not None:
            self._attachment.detach()
        for name in self._ordered.leave(keep=keep):
            self._delete(name)
        self.wake()
        # Both know the source, too: circles of some 10 KB would wait for the garbage collector.
        self._attachment = None
        self._sink = _NOWHERE

    # What the reader calls.

    def deliver(self, message: Msg) -> None:
        """Take what came to the inbox."""
        now = self._now()
        ordered = self._ordered
        reply = message.reply
        if reply:
            block = message.header_block
            size = len(message.subject) + len(reply) + len(message.data) + (0 if block is None else len(block))
            ack = ordered.received(reply, size, now)
            if ack is not None:
                handed = self._sink.take(message, ack, size)
                if handed is Handed.KEPT:
                    if not ordered.delivered(ack, size):
                        return
                elif handed is Handed.DROPPED:
                    ordered.dropped(ack)
                else:
                    ordered.refused(now)
        elif message.status is not None:
            number = self._inbox.number(message.subject)
            ordered.status(number, message.status, message.description, message.headers, now)
        self._go_on(now)

    def connection_lost(self, reason: Exception) -> None:
        """Suspend."""
        self._ordered.connection_lost()

    def connection_restored(self) -> None:
        """Begin anew: the consumer may be gone, and what was under way is."""
        self._ordered.connection_restored(trio.current_time())
        self.wake()

    def ended(self, reason: BaseException | None) -> None:
        """End, and let the sink end."""
        if isinstance(reason, REFUSALS):
            # The server refuses the inbox.
            self._refused = reason = refusal_of(f"reading of stream '{self._ordered.stream}'", reason)
        self._lost = reason
        sink = self._sink
        self.close()
        sink.ended(reason)

    # The listener to what the server refuses.

    def push(self, event: events.ConnectionEvent) -> None:
        """Fail when it is our asking that is refused: no status says so, and silence would only lead to another consumer."""
        if isinstance(event, events.PermissionViolation):
            self._ordered.forbidden(refusal_of(f"reading of stream '{self._ordered.stream}'", event.error))
            self.wake()

    def end(self, reason: BaseException | None) -> None:
        """Nothing to do: `ended` is called."""

    # Inside.

    def _go_on(self, now: float) -> None:
        """Do at once what needs no waiting, and wake the task that waits if it has to see to something else."""
        ordered = self._ordered
        if ordered.restarts != self._restarts:
            self._restarts = ordered.restarts
            self._api.connection.emit(events.StreamRecreated(ordered.stream))
            self._sink.begun_anew()
        if ordered.caught_up and not self._told:
            self._told = True
            self._sink.stored_read()
        pull = ordered.pull(now)
        if pull is not None:
            self._pull(pull)
        if self._parked is not None and (ordered.attention or ordered.next_event < self._until):
            self._parked.set()

    async def _park(self, until: float) -> None:
        self._parked, self._until = trio.Event(), until
        try:
            with trio.move_on_at(until):
                await self._parked.wait()
        finally:
            self._parked = None

    def _pull(self, pull: Pull) -> None:
        subject = f"{self._api.prefix}.CONSUMER.MSG.NEXT.{self._ordered.stream}.{pull.name}"
        if subject != self._asked:
            self._asked = subject
            self._api.connection.add_listener(self, refused=subject)
        self._api.connection.publish_aside(subject, pull.body(), self._inbox.reply_to(pull), passing=True)

    def _delete(self, name: str) -> None:
        delete_aside(self._api, self._ordered.stream, name)

    async def _make(self, action: Create) -> dict[str, Any]:
        """Have a consumer created, also where the server has something to delete first."""
        for pause in DELETION_PAUSES:
            try:
                return await self._ask_create(action)
            except errors.APIError as error:
                if not isinstance(error.err_code, int) or error.err_code not in DELETION_UNDER_WAY or self._closed:
                    raise
            await trio.sleep(pause)
        return await self._ask_create(action)

    def _made(self, action: Create, info: dict[str, Any]) -> None:
        if self._closed:
            # Its deletion was queued when it was not there yet.
            self._delete(action.name)
        else:
            self._ordered.created(info, trio.current_time())

    async def _ask_create(self, action: Create) -> dict[str, Any]:
        stream = self._ordered.stream
        subject = subjects.consumer_creation(stream, action.name, action.config.get("filter_subject"))
        try:
            return await self._api.request(
                subject, {"stream_name": stream, "config": action.config, "action": "create"}
            )
        except trio.Cancelled:
            await self._undo_create(action.name)  # noqa: ASYNC102 - shielded and bounded in there
            raise

    async def _undo_create(self, name: str) -> None:
        """Delete what may be just being created: the server works on several requests at once, and deletes too early."""
        with trio.move_on_after(UNDO_LIMIT, shield=True):
            for pause in UNDO_PAUSES:
                try:
                    await self._api.request(f"CONSUMER.DELETE.{self._ordered.stream}.{name}")
                except errors.NotFoundError:
                    await trio.sleep(pause)
                except errors.Error:
                    return
                else:
                    return

    async def _create(self, action: Create) -> None:
        failure: Exception | None = None
        try:
            with trio.move_on_after(RESPONSE_LIMIT):
                self._made(action, await self._make(action))
                return
        except errors.Error as error:
            failure = error
        except BaseException:
            self._ordered.create_failed(trio.current_time())
            raise
        if self._ordered.create_failed(trio.current_time(), failure):
            assert failure is not None, "silence is no refusal"
            self._api.connection.emit(events.ReaderRefused(self._ordered.stream, failure))

    async def _inspect(self, action: Inspect) -> None:
        try:
            with trio.move_on_after(RESPONSE_LIMIT):
                info = await self._api.request(f"CONSUMER.INFO.{self._ordered.stream}.{action.name}")
                self._ordered.inspected(action.name, info, trio.current_time())
                return
        except errors.Error:
            pass
        self._ordered.inspect_failed(action.name, trio.current_time())

    async def _ask_leader(self, action: Look | Find) -> None:
        """Find out what the stream's leader knows."""
        failure: Exception | None = None
        try:
            with trio.move_on_after(RESPONSE_LIMIT):
                if isinstance(action, Find):
                    mark = max([await self._last(pattern) for pattern in action.filters])
                    self._ordered.found(mark, trio.current_time())
                    return
                said = read_stream(await self._api.request(f"STREAM.INFO.{self._ordered.stream}"))
                if said is not None:
                    self._ordered.looked(said, trio.current_time())
                    return
        except errors.Error as error:
            failure = error
        if self._ordered.look_failed(trio.current_time(), failure):
            assert failure is not None, "silence is no refusal"
            for_good = isinstance(failure, errors.PermissionsViolationError)
            told = events.StreamUnverified if for_good else events.ReaderRefused
            self._api.connection.emit(told(self._ordered.stream, failure))

    async def _last(self, pattern: str) -> int:
        message = await self._api.last_stored(self._ordered.stream, pattern)
        if message is None:
            return 0
        sequence = count_of(message.get("seq"))
        if sequence is None:
            text = f"STREAM.MSG.GET.{self._ordered.stream}: what came back is no stored message"
            raise api_error(errors.APIError, text, text)
        return sequence


def delete_aside(jetstream: Api[Messaging], stream: str, name: str) -> None:
    """Queue the deletion of a consumer of ours, without waiting for the response.

    Args:
        jetstream: Where the stream is.
        stream: The stream's name.
        name: The consumer's.
    """
    jetstream.connection.publish_aside(f"{jetstream.prefix}.CONSUMER.DELETE.{stream}.{name}")
