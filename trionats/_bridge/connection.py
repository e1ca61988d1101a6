"""nats-py's client as the floors above our own client need one.

`NatsPyConnection` offers what they use of `Client`: to attach a receiver, to queue a publish without waiting, to make a request. So
an ordered reader or a watcher runs over nats-py's connection with all of its promises, and nats-py's own watchers, whose
bugs we would inherit, are not used at all.

Strategy
    Trio's side only changes state and queues commands. One asyncio task for each client carries them out in order, and
    ends when nothing is attached and nothing queued. No task of ours ever waits for asyncio code, so no cancellation can
    get lost in it. nats-py calls a receiver from the subscription's own task.

    A command may get stuck in nats-py: what waits for its flusher waits for ever once the client is closed. So a timer
    looks at the connection's state, whatever the task does, and breaks the command off when the client is closed.

    While something is attached, the client's `drain` and `_close`, which is where every way to close it ends, say our
    goodbyes first, and its error callback tells who needs to know that the server refused a subject. nats-py's names with
    an underscore that are used: `_close`, `_error_cb`, `_reading_task` of the client (for its loop), `_remove_sub`.
    Everything else is public.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast, final

import nats.aio.client
import trio
from trio.lowlevel import enable_ki_protection

from trionats import errors, events
from trionats._bridge.attachments import Attachment, log
from trionats._bridge.loop import is_open, is_usable, trio_asyncio
from trionats._bridge.requests import Answers, ours
from trionats._core.attachments import Listeners
from trionats._core.foreign import Foreign
from trionats._feeds.feed import CLEANUP_SECONDS, OpenFeeds
from trionats._feeds.opening import is_of_this_run
from trionats._feeds.pace import Pace
from trionats._protocol import subjects
from trionats._protocol.index import Index
from trionats._protocol.server_errors import hint_at_inbox, refusal_of, server_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import NoReturn

    from nats.aio.msg import Msg as NatsPyMsg

    from trionats._core.frames import Headers
    from trionats._core.message import Msg
    from trionats._core.messaging import Listener
    from trionats._protocol.commands import Payload
    from trionats._protocol.receivers import Receiver

#: How often the state of the connection is looked at, in seconds.
LOOK_EVERY: Final = 0.05


@final
class NatsPyConnection:
    """A client of nats-py that our receivers are attached to."""

    def __init__(self, nc: nats.aio.client.Client, loop: asyncio.AbstractEventLoop) -> None:
        self.nc = nc
        self.loop = loop
        self.pace = Pace()
        self.feeds = OpenFeeds()
        self._nuid = subjects.Nuid(random.Random())
        self._todo: deque[Callable[[], Awaitable[object]]] = deque()
        self._limit: asyncio.Timeout | None = None
        self._attached: dict[Attachment, None] = {}
        self._named: Index[tuple[str, str], Attachment] = Index()
        self._aside: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle
        self._wake = asyncio.Event()
        self._draining = False
        self._linked = True
        self._reconnects = 0
        self._survived: Exception | None = None
        self._servers = ", ".join(f"{server.hostname}:{server.port}" for server in nc.servers)
        self._answers = Answers(self)
        self._listeners = Listeners(self._answers)
        self.foreign = Foreign(self._listeners.emit)
        """The boundary where what other programs made is read; nats-py has no events, so the log tells."""
        self._wrapped: dict[str, partial[Any]] = {}
        self._before: dict[str, Any] = {}

    def __messaging__(self) -> NatsPyConnection:
        return self

    # What the floors above use of a client.

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now."""
        return self.nc.is_connected

    @property
    def is_closed(self) -> bool:
        """Whether it is closed, or its loop is."""
        return self.nc.is_closed or not is_usable(self.loop)

    def new_inbox(self) -> str:
        """Make a subject that nobody else has, under nats-py's `inbox_prefix`."""
        return self.nc.new_inbox()

    def new_token(self) -> str:
        """Make a name that nobody else has."""
        return self._nuid.next()

    @property
    def server_id(self) -> str:
        """The server's id."""
        return str(self.nc._server_info.get("server_id", ""))

    @enable_ki_protection
    def publish_nowait(self, subject: str, data: bytes = b"", reply: str = "") -> None:
        """Queue a message; on a closed client nothing happens, since only goodbyes come that late.

        Args:
            subject: Where to.
            data: The payload.
            reply: Where an answer is expected.
        """
        self._do(partial(self.nc.publish, subject, data, reply))

    def publish_aside(self, subject: str, payload: bytes = b"", reply: str = "", *, passing: bool = False) -> None:
        """Queue a message of ours as our own client does; nats-py makes no difference."""
        self.publish_nowait(subject, payload, reply)

    async def request(self, subject: str, payload: Payload = b"", headers: Headers | None = None) -> Msg:
        """Make a request as our client does: the deadline in force governs, and else 5 s."""
        assert headers is None, "nobody needs them here"
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_open(f"request to {subject!r}")
        return await self._answers.ask(subject, bytes(payload))

    def attach(self, subject: str, receiver: Receiver[Msg], *, queue: str = "", max_msgs: int = 0) -> Attachment:
        """Subscribe for a receiver of our own messages.

        Args:
            subject: What to subscribe to.
            receiver: Where the messages go.
            queue: The queue group.
            max_msgs: After so many messages the server forgets it; 0 for never.
        """
        return self._attach(
            Attachment(self, subject, receiver, lambda msg: receiver.deliver(ours(msg)), queue=queue, max_msgs=max_msgs)
        )

    def add_listener(self, listener: Listener, *, refused: str = "") -> None:
        """Register what is to know which subjects the server refused: other events there are none.

        Args:
            listener: What is called with them.
            refused: The only subject that it publishes to.
        """
        self._listeners.add(listener, refused)

    def remove_listener(self, listener: Listener) -> None:
        """Remove a listener. Idempotent."""
        self._listeners.remove(listener)

    def emit(self, event: events.ConnectionEvent) -> None:
        """Tell what a reader of a stream met: who listens here, and the client's error callback where something is refused."""
        self._listeners.emit(event)
        if isinstance(event, (events.ReaderRefused, events.StreamUnverified)):
            self._do(partial(self._tell, event.error))

    # What the bridge uses besides.

    def attach_plain(
        self, subject: str, receiver: Receiver[NatsPyMsg], *, queue: str = "", max_msgs: int = 0, patient: bool = False
    ) -> Attachment:
        """Subscribe for a receiver of nats-py's messages.

        Args:
            subject: What to subscribe to.
            receiver: Where the messages go.
            queue: The queue group.
            max_msgs: After so many messages the server forgets it; 0 for never.
            patient: Whether it goes on until a drain has brought the last message.
        """
        return self._attach(
            Attachment(self, subject, receiver, receiver.deliver, queue=queue, max_msgs=max_msgs, patient=patient)
        )

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

    def detached(self, attachment: Attachment) -> None:
        """Know that a receiver left."""
        self._named.remove(_name(attachment.subject, attachment.queue), attachment)
        if self._attached.pop(attachment, self) is None:
            self._do(partial(self._finish_aside, attachment) if attachment.lingers else attachment.finish)
        self.rest()

    def rest(self) -> None:
        """Give up the inbox for answers when nobody else is attached."""
        if not any(other.receiver is not self._answers for other in self._attached):
            self._answers.leave()

    def tell(self, error: Exception) -> None:
        """Tell the client's error callback, as nats-py does for its own subscriptions; called from its loop."""
        task = self.loop.create_task(self._tell(error), name="trionats bridge, error callback")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def wait_stopped(self) -> NoReturn:
        """Wait for the end of the loop, however it comes: what a feeding task does that has nothing else to do.

        Raises:
            nats.errors.ConnectionClosedError: The loop has stopped.
        """
        await cast("Any", self.loop).wait_stopped()
        raise self._loop_ends()

    # Inside.

    def _attach(self, attachment: Attachment) -> Attachment:
        self.check_open(f"subscription {attachment.subject!r}")
        self._attached[attachment] = None
        self._named.add(_name(attachment.subject, attachment.queue), attachment)
        self._do(attachment.begin)
        return attachment

    def _do(self, command: Callable[[], Awaitable[object]]) -> None:
        if not is_usable(self.loop):
            return
        if not self.nc.is_closed:
            self._todo.append(command)
            if self._task is None:
                context = contextvars.copy_context()
                context.run(trio_asyncio.current_loop.set, self.loop)
                self._move_in()
                self._task = self.loop.create_task(self._serve(), name="trionats bridge", context=context)
                self._timer = self.loop.call_later(LOOK_EVERY, self._tick)
        self._wake.set()

    @enable_ki_protection
    async def _serve(self) -> None:
        """Carry out the commands and look at the connection, as long as there is something to serve."""
        task = asyncio.current_task()
        assert task is not None
        try:
            while True:
                await self._work()
                # nats-py swallows a cancellation here and there.
                if task.cancelling():
                    raise asyncio.CancelledError
                if not self._todo and not self._attached and not self._aside:
                    return
                await self._wake.wait()
                self._wake.clear()
        except asyncio.CancelledError:
            # Whoever cancels all tasks of the loop is closing it. What we queue for that is sent still.
            self._end(self._loop_ends())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLEANUP_SECONDS):  # noqa: ASYNC102 - asyncio cancels once
                    await self._work()  # noqa: ASYNC102 - bounded by the line above
            raise
        finally:
            self._timer.cancel()
            self._move_out()
            self._task = None
            # A consumer that opens its feed again when it ends has done so during our last words.
            self._end(self._loop_ends())

    async def _work(self) -> None:
        while self._todo:
            command = self._todo.popleft()
            try:
                async with asyncio.timeout(None) as self._limit:
                    await command()
            except Exception as error:
                # Not only its own: what it writes to a broken socket raises as well.
                log.debug("nats-py's client refused a command: %r", error)
            finally:
                self._limit = None

    async def _finish_aside(self, attachment: Attachment) -> None:
        task = self.loop.create_task(self._last_words(attachment), name="trionats bridge, last words")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)
        task.add_done_callback(lambda _: self._wake.set())
        # Its UNSUB has to stand before the NAKs that are queued behind: else what they give back comes here again.
        await asyncio.sleep(0)

    async def _last_words(self, attachment: Attachment) -> None:
        try:
            await attachment.finish()
        except Exception as error:
            log.debug("unsubscribing %r failed: %r", attachment.subject, error)

    async def _tell(self, error: Exception) -> None:
        try:
            await self.nc._error_cb(error)
        except Exception:
            log.exception("the error callback of nats-py's client of %s failed", self._servers)

    @enable_ki_protection
    def _tick(self) -> None:
        self._timer = self.loop.call_later(LOOK_EVERY, self._tick)
        self._look()

    def _look(self) -> None:
        """See what has become of the connection."""
        if self.nc.is_closed:
            self._end(self._lost())
            if self._limit is not None:
                self._limit.reschedule(self.loop.time())
                self._limit = None
            return
        if self.nc.is_draining:
            # By a bound method that was taken before ours lay over it.
            self._end(None, patient=False)
        reconnects, connected = self.nc.stats["reconnects"], self.nc.is_connected
        if self._linked and (not connected or reconnects != self._reconnects):
            self._linked = False
            text = f"the connection to {self._servers} was lost"
            for attachment in list(self._attached):
                attachment.receiver.connection_lost(errors.explained(errors.DisconnectedError, text))
        if not self._linked and connected:
            self._linked, self._reconnects = True, reconnects
            self._survived = self.nc.last_error
            for attachment in list(self._attached):
                attachment.receiver.connection_restored()

    def _lost(self) -> errors.Error | None:
        """Say why the client is lost for good; None when it is closed on purpose: nats-py then notes no new error."""
        error = self.nc.last_error
        if error is None or error is self._survived:
            return None
        kind = type(error) if isinstance(error, errors.Error) else errors.ConnectionClosedError
        lost = errors.explained(kind, f"nats-py's connection to {self._servers} is lost for good: {error!r}")
        lost.__cause__ = error
        return lost

    def _loop_ends(self) -> errors.Error:
        text = f"nats-py's client of {self._servers}: its asyncio loop ends"
        return errors.explained(errors.ConnectionClosedError, text)

    def _end(self, reason: BaseException | None, *, patient: bool = True) -> None:
        for attachment in list(self._attached):
            if patient or not attachment.patient:
                attachment.receiver.ended(reason)
                attachment.detach()

    # While something is attached.

    def _move_in(self) -> None:
        nc: Any = self.nc
        self._linked, self._reconnects = nc.is_connected, nc.stats["reconnects"]
        self._survived = nc.last_error
        self._wrapped = {
            "_close": partial(self._close, nc._close),
            "drain": partial(self._drain, nc.drain),
            "_error_cb": partial(self._told, nc._error_cb),
        }
        self._before = {name: vars(nc)[name] for name in self._wrapped if name in vars(nc)}
        vars(nc).update(self._wrapped)

    def _move_out(self) -> None:
        mine = vars(self.nc)
        for name, wrapped in self._wrapped.items():
            # Somebody else may have put something over it in the meantime: it then stays, and does what it did before.
            if mine.get(name) is not wrapped:
                continue
            if name in self._before:
                mine[name] = self._before[name]
            else:
                del mine[name]
        self._wrapped, self._before = {}, {}

    async def _close(self, close: Callable[..., Awaitable[None]], *args: object, **kwargs: object) -> None:
        """Say our goodbyes, unless there is nobody to say them to, then close the client."""
        lost = self._lost()
        self._end(lost)
        try:
            if lost is None and self.nc.is_connected and not self.nc.is_draining:
                await self._settled()
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
            await self._settled()
            await drain()
        finally:
            self._draining = False
            if nc.is_draining or nc.is_closed:
                self._end(self._lost())

    async def _settled(self) -> None:
        """Wait until all commands of now are carried out, for a bounded time."""
        if self.is_closed or asyncio.current_task() is self._task:
            return
        reached = asyncio.Event()

        async def reach() -> None:  # noqa: ASYNC124 - a command
            reached.set()

        self._do(reach)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEANUP_SECONDS):
                await reached.wait()
                if self._aside and self.nc.is_connected:
                    await asyncio.wait(self._aside)

    async def _told(self, tell: Callable[[Exception], Awaitable[None]], error: Exception) -> None:
        """Let those know whom a refusal concerns, then the client's own callback of whatever it is."""
        if error is self.nc.last_error:
            # nats-py tells what it survives, and closes without a word for what it does not.
            self._survived = error
        refused = server_error(str(error).removeprefix("nats: "))
        if isinstance(refused, errors.PermissionsViolationError):
            self._refused(refused)
        await tell(error)

    def _refused(self, refused: errors.PermissionsViolationError) -> None:
        if refused.operation == "subscription":
            ours = f"{self.new_inbox().rpartition('.')[0]}."
            for attachment in self._named.find(_name(refused.subject, refused.queue or "")):
                subject = attachment.subject
                error = refusal_of(f"subscription {subject!r}", refused, subject=subject)
                hint_at_inbox(error, ours)
                attachment.receiver.ended(error)
        self._listeners.emit(events.PermissionViolation(refused))


def _name(subject: str, queue: str) -> tuple[str, str]:
    # nats-py tells in lower case whatever the server said.
    return subject.lower(), queue.lower()


_carriers: weakref.WeakValueDictionary[nats.aio.client.Client, NatsPyConnection] = weakref.WeakValueDictionary()


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
    connection = _carriers.get(nc)
    # A client that was closed may have been connected again, in another loop.
    if connection is None or connection.loop is not loop:
        if not is_open(loop):
            if nc.is_closed:
                raise errors.explained(errors.ConnectionClosedError, f"{opener}(): nats-py's client is closed")
            raise RuntimeError(f"{opener}(): nats-py's client does not live in a trio-asyncio loop that is open")
        if not is_of_this_run(loop._nursery):  # type: ignore[attr-defined]
            raise RuntimeError(f"{opener}(): nats-py's client lives in another Trio run; use trio.from_thread.run()")
        connection = _carriers[nc] = NatsPyConnection(nc, loop)
    connection.pace.run.check(opener)
    connection.check_open(f"{opener}()")
    return connection
