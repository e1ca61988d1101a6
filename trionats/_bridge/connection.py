"""nats-py's client as a connection: the other end of the seam (`_core.messaging`).

`NatsPyConnection` offers feeds what our own connection does. So an ordered reader or a watcher runs over nats-py's connection with
all of its promises, and nats-py's own watchers, whose bugs we would inherit, are not used at all.

Strategy
    Trio's side only changes state and queues commands, which one asyncio task for each client carries out (`commands`). No task
    of ours ever waits for asyncio code, so no cancellation can get lost in it. nats-py calls a receiver from the
    subscription's own task.

    nats-py tells nobody that its connection broke or came back. So a timer looks whether it did, whatever the commands do
    (design 38), and a reconnect is noticed that late.

    While something is attached, functions of ours lie over three of the client's own (`overlay`). `drain`, and `_close`, which
    is where every way to close it ends, say our goodbyes first; its error callback tells who needs to know that the server refused
    a subject. Whether the client was closed on purpose is asked of the error that it notes, not of the way that it was
    closed in (design 37).

    nats-py's names with an underscore that are used: `_close`, `_error_cb`, `_server_info`, `_reading_task` of the client (for
    its loop), `_remove_sub`. Everything else is public.
"""

from __future__ import annotations

import logging
import random
import weakref
from functools import partial
from typing import TYPE_CHECKING, final

import nats.aio.client
import trio
from trio.lowlevel import enable_ki_protection

from trionats import errors, events
from trionats._bridge.attachments import Attachment
from trionats._bridge.commands import Commands
from trionats._bridge.loop import is_open, runs_here, wait_stopped
from trionats._bridge.messages import ours
from trionats._bridge.overlay import Overlay
from trionats._bridge.requests import SharedInbox
from trionats._core.foreign import Foreign
from trionats._core.listeners import Listeners
from trionats._feeds.feed import OpenFeeds
from trionats._feeds.pace import Pace
from trionats._protocol import subjects
from trionats._protocol.index import Index
from trionats._protocol.receivers import Intake
from trionats._protocol.server_errors import hint_at_inbox, refusal_of, server_error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from typing import NoReturn

    from nats.aio.msg import Msg as NatsPyMsg

    from trionats._core.frames import Headers
    from trionats._core.message import Msg
    from trionats._core.messaging import Listener, Messaging
    from trionats._protocol.commands import Payload
    from trionats._protocol.receivers import Receiver

__all__ = ["NatsPyConnection", "connection_of"]

log = logging.getLogger("trionats")


@final
class NatsPyConnection:
    """A client of nats-py that our receivers are attached to: implements `messaging.Messaging`, and `commands.Keeper`.

    Args:
        nc: The client.
        loop: The trio-asyncio loop that it lives in.
    """

    def __init__(self, nc: nats.aio.client.Client, loop: asyncio.AbstractEventLoop) -> None:
        self.nc = nc
        self.loop = loop
        self.pace = Pace()
        self.feeds = OpenFeeds()
        self.foreign = Foreign(self.emit)
        self._nuid = subjects.Nuid(random.Random())
        self._attached: dict[Attachment, None] = {}
        self._by_name: Index[tuple[str, str], Attachment] = Index()
        self._commands = Commands(nc, loop, self)
        self._overlay = Overlay(nc)
        self._telling: set[asyncio.Task[None]] = set()
        self._draining = False
        self._was_connected = True
        self._reconnects = 0
        self._survived: Exception | None = None
        self._servers = ", ".join(f"{server.hostname}:{server.port}" for server in nc.servers)
        self._shared_inbox = SharedInbox(self)
        self._listeners = Listeners(self._shared_inbox)

    def __messaging__(self) -> Messaging:
        # That this passes the type checker is the proof that the seam is implemented.
        return self

    # What reading needs.

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now."""
        return self.nc.is_connected

    @property
    def server_id(self) -> str:
        """The server's id."""
        return str(self.nc._server_info.get("server_id", ""))

    def new_inbox(self) -> str:
        """Make a subject that nobody else has, under nats-py's `inbox_prefix`."""
        return self.nc.new_inbox()

    def new_token(self) -> str:
        """Make a name that nobody else has: 22 letters and digits."""
        return self._nuid.next()

    async def request(self, subject: str, payload: Payload = b"", headers: Headers | None = None) -> Msg:
        """Publish a request and wait for its reply: the deadline in force governs, and else 5 s."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_open(f"request to {subject!r}")
        data, fields = bytes(payload), _single_values(subject, headers)
        try:
            return await self._shared_inbox.request(
                subject, lambda inbox: self._commands.add(partial(self.nc.publish, subject, data, inbox, fields))
            )
        finally:
            self._rest()

    @enable_ki_protection
    def publish_aside(self, subject: str, payload: bytes = b"", reply: str = "", *, passing: bool = False) -> None:
        """Queue what no program asked for, as `Messaging.publish_aside` says."""
        if passing and not self.nc.is_connected:
            return
        self._commands.add(partial(self.nc.publish, subject, payload, reply))

    def attach(self, subject: str, receiver: Receiver[Msg], *, queue: str = "", max_msgs: int = 0) -> Attachment:
        """Subscribe, with a receiver of our own messages, as `Messaging.attach` says."""
        subjects.subscribe_subject(subject)
        if queue:
            subjects.queue_name(queue)

        def deliver(message: NatsPyMsg) -> None:
            receiver.deliver(ours(message))

        intake = Intake(deliver, receiver.ended, receiver.connection_lost, receiver.connection_restored)
        return self.attach_plain(subject, intake, queue=queue, max_msgs=max_msgs)

    def add_listener(self, listener: Listener, *, refused: str = "") -> None:
        """Register what takes events, as `Messaging.add_listener` says: refusals, and what is emitted here."""
        self._listeners.add(listener, refused)

    def remove_listener(self, listener: Listener) -> None:
        """Remove a listener. Idempotent."""
        self._listeners.remove(listener)

    def emit(self, event: events.ConnectionEvent) -> None:
        """Tell the listeners of an event, and the client's error callback where it is a refusal that a reader met."""
        self._listeners.emit(event)
        if isinstance(event, (events.ReaderRefused, events.StreamUnverified)):
            self._commands.add(partial(self._tell_error_cb, event.error))

    # What the bridge uses besides.

    def attach_plain(
        self, subject: str, receiver: Receiver[NatsPyMsg], *, queue: str = "", max_msgs: int = 0, patient: bool = False
    ) -> Attachment:
        """Subscribe, with a receiver of nats-py's messages.

        Args:
            subject: What to subscribe to; checked.
            receiver: What takes the messages.
            queue: The queue group, or an empty string; checked.
            max_msgs: After so many messages the server forgets it; 0 for never.
            patient: Whether it goes on until a drain has brought the last message.
        """
        self.check_open(f"subscription {subject!r}")
        attachment = Attachment(
            self.nc, subject, receiver, self._detached, queue=queue, max_msgs=max_msgs, patient=patient
        )
        self._attached[attachment] = None
        self._by_name.add(_name(subject, queue), attachment)
        self._commands.add(attachment.begin)
        return attachment

    def check_open(self, what: str) -> None:
        """Raise unless it is open.

        Raises:
            nats.errors.ConnectionClosedError: It is closed, or its loop ends.
            nats.errors.ConnectionDrainingError: It is being drained.
        """
        if self.nc.is_closed or not is_open(self.loop):
            raise errors.explained(errors.ConnectionClosedError, f"{what}: nats-py's client is closed")
        if self._draining or self.nc.is_draining:
            raise errors.explained(errors.ConnectionDrainingError, f"{what}: nats-py's client is being drained")

    def tell_error_cb(self, error: Exception) -> None:
        """Tell the client's error callback, as nats-py does for its own subscriptions; called from its loop."""
        task = self.loop.create_task(self._tell_error_cb(error), name="trionats bridge, error callback")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def wait_stopped(self) -> NoReturn:
        """Wait for the end of the loop, however it comes: what a feeding task does that has nothing else to do.

        Raises:
            nats.errors.ConnectionClosedError: The loop has stopped.
        """
        await wait_stopped(self.loop)
        raise self._loop_error()

    # What its commands ask and tell.

    @property
    def in_use(self) -> bool:
        """Whether something is attached."""
        return bool(self._attached)

    def task_starts(self) -> None:
        """Lay our functions over the client's."""
        nc = self.nc
        self._was_connected, self._reconnects = nc.is_connected, nc.stats["reconnects"]
        self._survived = nc.last_error
        self._overlay.lay(
            {
                "_close": partial(self._close, nc._close),
                "drain": partial(self._drain, nc.drain),
                "_error_cb": partial(self._hear_error, nc._error_cb),
            }
        )

    def task_ends(self) -> None:
        """Take them away again."""
        self._overlay.lift()

    def loop_ends(self) -> None:
        """End what is attached."""
        self._end(self._loop_error())

    def check_connection(self) -> None:
        """See whether the connection broke, came back, or is lost for good, and tell the receivers."""
        if self.nc.is_closed:
            self._end(self._loss())
            return
        if self.nc.is_draining:
            # By a bound method that was taken before ours lay over it.
            self._end(None, patient=False)
        reconnects, connected = self.nc.stats["reconnects"], self.nc.is_connected
        if self._was_connected and (not connected or reconnects != self._reconnects):
            self._was_connected = False
            text = f"the connection to {self._servers} was lost"
            for attachment in list(self._attached):
                attachment.receiver.connection_lost(errors.explained(errors.DisconnectedError, text))
        if not self._was_connected and connected:
            self._was_connected, self._reconnects = True, reconnects
            self._survived = self.nc.last_error
            for attachment in list(self._attached):
                attachment.receiver.connection_restored()

    # Inside.

    def _detached(self, attachment: Attachment) -> None:
        self._by_name.remove(_name(attachment.subject, attachment.queue), attachment)
        if self._attached.pop(attachment, self) is None:
            queue = self._commands.add_aside if attachment.lingers else self._commands.add
            queue(attachment.finish)
        self._rest()

    def _rest(self) -> None:
        """Give up the inbox that requests share when nothing else is attached."""
        if self._shared_inbox.attached and len(self._attached) <= 1:
            self._shared_inbox.leave()

    def _end(self, reason: BaseException | None, *, patient: bool = True) -> None:
        for attachment in list(self._attached):
            if patient or not attachment.patient:
                attachment.receiver.ended(reason)
                attachment.detach()

    def _loss(self) -> errors.Error | None:
        """Say why the client is lost for good; None when it is closed on purpose: nats-py then notes no new error."""
        error = self.nc.last_error
        if error is None or error is self._survived:
            return None
        kind = type(error) if isinstance(error, errors.Error) else errors.ConnectionClosedError
        lost = errors.explained(kind, f"nats-py's connection to {self._servers} is lost for good: {error!r}")
        lost.__cause__ = error
        return lost

    def _loop_error(self) -> errors.Error:
        text = f"nats-py's client of {self._servers}: its asyncio loop ends"
        return errors.explained(errors.ConnectionClosedError, text)

    async def _tell_error_cb(self, error: Exception) -> None:
        try:
            await self.nc._error_cb(error)
        except Exception:
            log.exception("the error callback of nats-py's client of %s failed", self._servers)

    # What lies over the client's own functions while something is attached.

    async def _close(self, close: Callable[..., Awaitable[None]], *args: object, **kwargs: object) -> None:
        """Say our goodbyes, unless there is nobody to say them to, then close the client."""
        loss = self._loss()
        self._end(loss)
        try:
            if loss is None and self.nc.is_connected and not self.nc.is_draining:
                await self._commands.settled()
        finally:
            await close(*args, **kwargs)  # noqa: ASYNC102 - what was called is done, whoever cancels us meanwhile

    async def _drain(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Say the goodbyes of all that do not wait for their last message, then drain the client."""
        nc = self.nc
        if self._draining or nc.is_draining:
            return  # as nats-py does, for whoever comes second
        if not nc.is_connected:
            await drain()  # which is refused, and the client lives on
            return
        self._draining = True
        try:
            self._end(None, patient=False)
            await self._commands.settled()
            await drain()
        finally:
            self._draining = False
            if nc.is_draining or nc.is_closed:
                self._end(self._loss())

    async def _hear_error(self, tell: Callable[[Exception], Awaitable[None]], error: Exception) -> None:
        """Let those know whom a refusal concerns, then the client's own callback of whatever it is."""
        if error is self.nc.last_error:
            # nats-py tells what it survives, and closes without a word for what it does not.
            self._survived = error
        refused = server_error(str(error).removeprefix("nats: "))
        if isinstance(refused, errors.PermissionsViolationError):
            self._hear_refusal(refused)
        await tell(error)

    def _hear_refusal(self, refused: errors.PermissionsViolationError) -> None:
        if refused.operation == "subscription":
            inboxes = f"{self.new_inbox().rpartition('.')[0]}."
            for attachment in self._by_name.find(_name(refused.subject, refused.queue or "")):
                subject = attachment.subject
                error = refusal_of(f"subscription {subject!r}", refused, subject=subject)
                hint_at_inbox(error, inboxes)
                attachment.receiver.ended(error)
        self._listeners.emit(events.PermissionViolation(refused))


def _name(subject: str, queue: str) -> tuple[str, str]:
    # nats-py tells in lower case whatever the server said.
    return subject.lower(), queue.lower()


def _single_values(subject: str, headers: Headers | None) -> dict[str, str] | None:
    """Give headers as nats-py takes them: it has one value for each name."""
    if not headers:
        return None
    fields = {}
    for name, value in headers.items():
        values = [value] if isinstance(value, str) else value
        if len(values) != 1:
            text = f"request to {subject!r}: nats-py sends one value of header {name!r}, not {len(values)}"
            raise errors.explained(errors.BadHeaderError, text)
        fields[name] = values[0]
    return fields


_connections: weakref.WeakValueDictionary[nats.aio.client.Client, NatsPyConnection] = weakref.WeakValueDictionary()


def connection_of(nc: nats.aio.client.Client, opener: str) -> NatsPyConnection:
    """Give the connection of a client; there is one for each that is in use.

    Args:
        nc: The client.
        opener: The name of the function, for the errors.

    Raises:
        TypeError: It is no client of nats-py.
        RuntimeError: It does not live in a trio-asyncio loop that is open, or was never connected.
        nats.errors.ConnectionClosedError: It is closed.
        nats.errors.ConnectionDrainingError: It is being drained.
    """
    if not isinstance(nc, nats.aio.client.Client):
        raise TypeError(f"{opener}(): expected nats-py's nats.aio.client.Client, not {type(nc).__name__}")
    reading = nc._reading_task
    if reading is None:
        text = "does not live in a trio-asyncio loop that is open, since it was never connected"
        raise RuntimeError(f"{opener}(): nats-py's client {text}")
    loop = reading.get_loop()
    connection = _connections.get(nc)
    # A client that was closed may have been connected again, in another loop.
    if connection is None or connection.loop is not loop:
        if not is_open(loop):
            if nc.is_closed:
                raise errors.explained(errors.ConnectionClosedError, f"{opener}(): nats-py's client is closed")
            raise RuntimeError(f"{opener}(): nats-py's client does not live in a trio-asyncio loop that is open")
        if not runs_here(loop):
            raise RuntimeError(f"{opener}(): nats-py's client lives in another Trio run; use trio.from_thread.run()")
        connection = _connections[nc] = NatsPyConnection(nc, loop)
    connection.pace.run.check(opener)
    connection.check_open(f"{opener}()")
    return connection
