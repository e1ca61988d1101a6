"""nats-py's client as the floors above our own client need one.

`Carrier` offers what they use of `Client`: to attach a receiver, to queue a publish without waiting, to make a request. So
an ordered reader or a watcher runs over nats-py's connection with all of its promises, and nats-py's own watchers, whose
bugs we would inherit, are not used at all.

Strategy
    Trio's side only changes state and queues commands. One asyncio task for each client carries them out in order, looks
    at the connection's state, and ends when nothing is attached and nothing queued. No task of ours ever waits for asyncio
    code, so no cancellation can get lost in it. nats-py calls a receiver from the subscription's own task.

    While something is attached, the client's `close` and `drain` say our goodbyes first, and its error callback tells a
    receiver that its subject was refused. nats-py's names with an underscore that are used: `_error_cb`, `_reading_task`
    of the client (for its loop), `_remove_sub`. Everything else is public.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
import re
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, final

import nats.aio.client
import trio
from nats.aio.msg import Msg as NatsPyMsg
from trio.lowlevel import enable_ki_protection

from trionats import errors
from trionats._answers import Answers, ours
from trionats._asyncio_loop import is_usable, trio_asyncio
from trionats._feed import CLEANUP_SECONDS, Pace
from trionats._message import Msg
from trionats._protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from nats.aio.subscription import Subscription

    from trionats._client import Client

log = logging.getLogger("trionats")

#: How often the state of the connection is looked at, in seconds.
LOOK_EVERY: Final = 0.05

_REFUSED = re.compile(r'permissions violation for subscription to "([^"]*)"', re.IGNORECASE)


class Receiver(Protocol):
    """What takes nats-py's messages; its methods do not wait and do not raise."""

    def deliver(self, message: NatsPyMsg, /) -> None:
        """Take a message."""

    def link_lost(self, reason: Exception) -> None:
        """Know that the connection broke."""

    def link_restored(self) -> None:
        """Know that there is a connection again."""

    def ended(self, reason: BaseException | None) -> None:
        """Know that nothing will come any more: None for an end on purpose."""


class OurReceiver(Protocol):
    """What takes messages of our own class; for the rest like `Receiver`."""

    def deliver(self, message: Msg, /) -> None:
        """Take a message."""

    def link_lost(self, reason: Exception) -> None:
        """Know that the connection broke."""

    def link_restored(self) -> None:
        """Know that there is a connection again."""

    def ended(self, reason: BaseException | None) -> None:
        """Know that nothing will come any more."""


@final
class Attachment:
    """A subscription of nats-py's client: what `Carrier.attach` gives."""

    def __init__(
        self,
        carrier: Carrier,
        subject: str,
        receiver: Receiver | OurReceiver,
        deliver: Callable[[NatsPyMsg], None],
        *,
        patient: bool,
    ) -> None:
        self.subject = subject
        self.receiver = receiver
        self.patient = patient
        """Whether it goes on until a drain has brought the last message."""
        self._carrier = carrier
        self._deliver = deliver
        self._subscription: Subscription | None = None
        self._late: Callable[[NatsPyMsg], None] | None = None
        self._detached = False

    @enable_ki_protection
    def detach(self, late: Callable[[NatsPyMsg], None] | None = None) -> None:
        """Unsubscribe: nothing is delivered any more when it returns. Synchronous, idempotent.

        Args:
            late: Takes the messages that are still under way, until the server has seen that we are gone.
        """
        if not self._detached:
            self._detached = True
            self._late = late
            self._carrier.detached(self)

    async def begin(self, queue: str, max_msgs: int) -> None:
        """Subscribe: a command."""
        if not self._detached:
            self._subscription = await self._carrier.nc.subscribe(
                self.subject, queue, cb=self._arrived, pending_msgs_limit=0, pending_bytes_limit=0
            )
            if max_msgs:
                await self._subscription.unsubscribe(max_msgs)

    async def finish(self) -> None:
        """Unsubscribe: a command."""
        subscription = self._subscription
        if subscription is None or self._carrier.nc.is_closed:
            return
        if self._late is None:
            await subscription.unsubscribe()
            return
        try:
            async with asyncio.timeout(CLEANUP_SECONDS):
                await subscription.drain()  # type: ignore[no-untyped-call]
        finally:
            self._carrier.nc._remove_sub(subscription._id)

    @enable_ki_protection
    async def _arrived(self, message: NatsPyMsg) -> None:
        try:
            if not self._detached:
                self._deliver(message)
            elif self._late is not None:
                self._late(message)
        except Exception as bug:
            log.exception("delivering a message on %r failed", self.subject)
            self.receiver.ended(bug)


@final
class Carrier:
    """A client of nats-py that our receivers are attached to."""

    def __init__(self, nc: nats.aio.client.Client, loop: asyncio.AbstractEventLoop) -> None:
        self.nc = nc
        self.pace = Pace()
        self._loop = loop
        self._nuid = subjects.Nuid(random.Random())
        self._todo: deque[Callable[[], Awaitable[object]]] = deque()
        self._attached: dict[Attachment, None] = {}
        self._aside: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._on_purpose = False
        self._linked = True
        self._reconnects = 0
        self._servers = ", ".join(f"{server.hostname}:{server.port}" for server in nc.servers)
        self._answers = Answers(self)
        self._kept: dict[str, partial[Any]] = {}

    # What the floors above use of a client.

    @property
    def is_closed(self) -> bool:
        """Whether it is closed, or its loop is."""
        return self.nc.is_closed or not is_usable(self._loop)

    def new_inbox(self) -> str:
        """Make a subject that nobody else has, under nats-py's `inbox_prefix`."""
        return self.nc.new_inbox()

    def new_token(self) -> str:
        """Make a name that nobody else has."""
        return self._nuid.next()

    @enable_ki_protection
    def publish_nowait(self, subject: str, data: bytes = b"", reply: str = "", *, force: bool = False) -> None:
        """Queue a message; on a closed client nothing happens, since only goodbyes come that late.

        Args:
            subject: Where to.
            data: The payload.
            reply: Where an answer is expected.
            force: Accepted as our own client accepts it: nats-py's buffer has its own limit.
        """
        self._do(partial(self.nc.publish, subject, data, reply))

    async def request(self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None) -> Msg:
        """Make a request as our client does: the deadline in force governs, and else 5 s."""
        assert headers is None, "nobody needs them here"
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_open(f"request to {subject!r}")
        return await self._answers.ask(subject, payload)

    def attach(self, subject: str, receiver: OurReceiver, *, queue: str = "", max_msgs: int = 0) -> Attachment:
        """Subscribe for a receiver of our own messages.

        Args:
            subject: What to subscribe to.
            receiver: Where the messages go.
            queue: The queue group.
            max_msgs: After so many messages the server forgets it; 0 for never.
        """
        return self._attach(
            Attachment(self, subject, receiver, lambda msg: receiver.deliver(ours(msg)), patient=False), queue, max_msgs
        )

    # What the bridge uses besides.

    def attach_plain(
        self, subject: str, receiver: Receiver, *, queue: str = "", max_msgs: int = 0, patient: bool = False
    ) -> Attachment:
        """Subscribe for a receiver of nats-py's messages; arguments as for `attach` and `Attachment`."""
        return self._attach(Attachment(self, subject, receiver, receiver.deliver, patient=patient), queue, max_msgs)

    def as_client(self) -> Client:
        """Pass for a client of ours with those who use nothing but the methods above."""
        return cast("Client", self)

    def check_open(self, what: str) -> None:
        """Raise unless it is open.

        Raises:
            nats.errors.ConnectionClosedError: It is closed.
        """
        if self.is_closed:
            raise errors.explained(errors.ConnectionClosedError, f"{what}: nats-py's client is closed")

    def detached(self, attachment: Attachment) -> None:
        """Know that a receiver left."""
        if self._attached.pop(attachment, self) is None:
            if attachment._late is None:
                self._do(attachment.finish)
            else:
                self._do(partial(self._finish_aside, attachment))
        self.rest()

    def rest(self) -> None:
        """Give up the inbox for answers when nobody else is attached."""
        if not any(other.receiver is not self._answers for other in self._attached):
            self._answers.leave()

    # Inside.

    def _attach(self, attachment: Attachment, queue: str, max_msgs: int) -> Attachment:
        self.check_open(f"subscription {attachment.subject!r}")
        self._attached[attachment] = None
        self._do(partial(attachment.begin, queue, max_msgs))
        return attachment

    def _do(self, command: Callable[[], Awaitable[object]]) -> None:
        if self.is_closed:
            return
        self._todo.append(command)
        if self._task is None:
            context = contextvars.copy_context()
            context.run(trio_asyncio.current_loop.set, self._loop)
            self._move_in()
            self._task = self._loop.create_task(self._serve(), name="trionats bridge", context=context)
        self._wake.set()

    @enable_ki_protection
    async def _serve(self) -> None:
        """Carry out the commands and look at the connection, as long as there is something to serve."""
        try:
            while True:
                await self._work()
                self._look()
                if not self._todo and not self._attached and not self._aside:
                    return
                timer = self._loop.call_later(LOOK_EVERY, self._wake.set)
                await self._wake.wait()
                timer.cancel()
                self._wake.clear()
        except asyncio.CancelledError:
            # Whoever cancels all tasks of the loop is closing it. What we queue for that is sent still.
            text = f"nats-py's client of {self._servers}: its asyncio loop ends"
            self._end(errors.explained(errors.ConnectionClosedError, text))
            async with asyncio.timeout(CLEANUP_SECONDS):  # noqa: ASYNC102 - asyncio cancels once
                await self._work()  # noqa: ASYNC102 - bounded by the line above
            raise
        finally:
            self._move_out()
            self._task = None

    async def _work(self) -> None:
        while self._todo:
            command = self._todo.popleft()
            try:
                await command()
            except Exception as error:
                # Not only its own: what it writes to a broken socket raises as well.
                log.debug("nats-py's client refused a command: %r", error)

    async def _finish_aside(self, attachment: Attachment) -> None:
        task = self._loop.create_task(self._last_words(attachment), name="trionats bridge, last words")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)
        task.add_done_callback(lambda _: self._wake.set())

    async def _last_words(self, attachment: Attachment) -> None:
        try:
            await attachment.finish()
        except Exception as error:
            log.debug("unsubscribing %r failed: %r", attachment.subject, error)

    def _look(self) -> None:
        """See what has become of the connection."""
        if self.nc.is_closed:
            self._end(None if self._on_purpose else self._why())
            return
        reconnects, connected = self.nc.stats["reconnects"], self.nc.is_connected
        if self._linked and (not connected or reconnects != self._reconnects):
            self._linked = False
            text = f"the connection to {self._servers} was lost"
            for attachment in list(self._attached):
                attachment.receiver.link_lost(errors.explained(errors.DisconnectedError, text))
        if not self._linked and connected:
            self._linked, self._reconnects = True, reconnects
            for attachment in list(self._attached):
                attachment.receiver.link_restored()

    def _why(self) -> errors.Error:
        error = self.nc.last_error
        kind = type(error) if isinstance(error, errors.Error) else errors.ConnectionClosedError
        lost = errors.explained(kind, f"nats-py's connection to {self._servers} is lost for good: {error!r}")
        lost.__cause__ = error
        return lost

    def _end(self, reason: BaseException | None, *, patient: bool = True) -> None:
        for attachment in list(self._attached):
            if patient or not attachment.patient:
                attachment.receiver.ended(reason)
                attachment.detach()

    # While something is attached.

    def _move_in(self) -> None:
        nc: Any = self.nc
        self._on_purpose = False
        self._linked, self._reconnects = nc.is_connected, nc.stats["reconnects"]
        self._kept = {
            "close": partial(self._leave_with, nc.close, patient=True),
            "drain": partial(self._leave_with, nc.drain, patient=False),
            "_error_cb": partial(self._told, nc._error_cb),
        }
        vars(nc).update(self._kept)

    def _move_out(self) -> None:
        mine = vars(self.nc)
        for name, wrapped in self._kept.items():
            # Somebody else may have put something over it in the meantime: it then stays, and does what it did before.
            if mine.get(name) is wrapped:
                if name == "_error_cb":
                    mine[name] = wrapped.args[0]
                else:
                    del mine[name]
        self._kept = {}

    async def _leave_with(self, leave: Callable[[], Awaitable[None]], *, patient: bool) -> None:
        """Say our goodbyes, then close or drain the client."""
        # nats-py closes the client by the same name when it has tried every server in vain.
        self._on_purpose = not isinstance(self.nc.last_error, errors.NoServersError)
        self._end(None if self._on_purpose else self._why(), patient=patient)
        await self._settled()
        try:
            await leave()
        finally:
            self._end(None)

    async def _settled(self) -> None:
        """Wait until all commands of now are carried out."""
        if self.is_closed:
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

    async def _told(self, told: Callable[[Exception], Awaitable[None]], error: Exception) -> None:
        """Let a receiver know that its subject is refused, then let the client's own callback know of the error."""
        refused = _REFUSED.search(str(error))
        if refused is not None:
            for attachment in list(self._attached):
                # nats-py tells in lower case whatever the server said.
                if attachment.subject.lower() == refused[1].lower():
                    text = f"subscription {attachment.subject!r}: {error}"
                    attachment.receiver.ended(errors.explained(errors.PermissionsViolationError, text))
        await told(error)


_carriers: weakref.WeakValueDictionary[nats.aio.client.Client, Carrier] = weakref.WeakValueDictionary()


def carrier_of(nc: nats.aio.client.Client, opener: str) -> Carrier:
    """Give the carrier of a client; there is one for each that is in use.

    Args:
        nc: The client.
        opener: The name of the function, for the errors.

    Raises:
        TypeError: It is no client of nats-py.
        RuntimeError: It does not live in a trio-asyncio loop that runs.
        nats.errors.ConnectionClosedError: It is closed.
    """
    if not isinstance(nc, nats.aio.client.Client):
        raise TypeError(f"{opener}(): expected nats-py's nats.aio.client.Client, not {type(nc).__name__}")
    carrier = _carriers.get(nc)
    if carrier is None:
        reading = nc._reading_task
        loop = trio_asyncio.current_loop.get() if reading is None else reading.get_loop()
        if not is_usable(loop):
            if reading is not None and nc.is_closed:
                raise errors.explained(errors.ConnectionClosedError, f"{opener}(): nats-py's client is closed")
            raise RuntimeError(f"{opener}(): nats-py's client does not live in a trio-asyncio loop that is open")
        carrier = _carriers[nc] = Carrier(nc, loop)
    carrier.check_open(f"{opener}()")
    return carrier
