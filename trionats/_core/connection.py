"""Our own connection, as what is built on it sees it: one end of the seam (`messaging`).

`Client` is the face of one of these, and adds what programs call; both work with the parts that are put together here.
"""

from __future__ import annotations

import copy
from threading import get_ident
from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from trionats import errors, events
from trionats._connection.supervisor import Supervisor
from trionats._core.attachments import Attachment
from trionats._core.barrier import wait_barrier
from trionats._core.deadlines import REQUEST_TIMEOUT, reply_within, seconds_to_wait
from trionats._core.drain import Draining
from trionats._core.foreign import Foreign
from trionats._core.frames import Frames
from trionats._core.listeners import Listeners
from trionats._core.logbook import Logbook
from trionats._core.message import messages_of
from trionats._core.messaging import messaging_of
from trionats._core.pipeline import Pipeline
from trionats._core.request_many import ManyRequest, ReplyCollector
from trionats._core.requests import Requests
from trionats._feeds.feed import OpenFeeds
from trionats._feeds.pace import Pace
from trionats._protocol import subjects
from trionats._protocol.commands import CRLF, LENGTHS, Aside, Passing, pub
from trionats._protocol.engine import Engine, Phase
from trionats._protocol.replies import ReplyPolicy
from trionats._protocol.services.deadlines import with_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from trionats._connection.options import Options
    from trionats._core.frames import Headers
    from trionats._core.message import Msg, Responder
    from trionats._core.messaging import Listener
    from trionats._core.pipeline import PipelineOwner
    from trionats._core.requests import Chooser, PendingReply
    from trionats._protocol.commands import Frame, Payload
    from trionats._protocol.receivers import Receiver
    from trionats._protocol.timers import Timer


@final
class Connection:
    """A connection to NATS through all its sessions, and who uses it: implements `messaging.Publishing`.

    Args:
        servers: One URL or several.
        options: Those of `open_client`.
        responder: Through whom messages are responded to.
    """

    def __init__(self, servers: str | Sequence[str], options: Options, responder: Responder) -> None:
        self._logbook = Logbook()
        self._nuid = subjects.Nuid(options.rng)
        self._inbox_prefix = subjects.inbox_prefix(options.inbox_prefix)
        self.request_timeout = options.request_timeout
        self.send_deadline = False
        self.pace = Pace()
        self.feeds = OpenFeeds()
        self.engine = Engine(messages_of(responder))
        self._outbox = self.engine.outbox
        self.supervisor = Supervisor(self.engine, servers, options, self.pace, self.emit)
        self.requests = Requests(self._nuid.next, self.engine, self.supervisor, self.new_inbox())
        self.frames = Frames(self.supervisor)
        self._listeners = Listeners(self.requests)
        self.foreign = Foreign(self.emit)
        silence = REQUEST_TIMEOUT if self.request_timeout is None else self.request_timeout
        self.draining = Draining(
            self.engine, self.supervisor, self.requests, self.feeds, options.drain_timeout, silence
        )

    def __messaging__(self) -> Connection:
        return self

    # What reading needs.

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now."""
        return self.engine.phase is Phase.ONLINE

    @property
    def server_id(self) -> str:
        """The id of the server at the other end."""
        return str(self.engine.info.get("server_id", ""))

    def new_inbox(self) -> str:
        """Make a subject that nobody else has, under `inbox_prefix`."""
        if get_ident() != self.pace.thread:
            self.pace.run.check()
        return f"{self._inbox_prefix}.{self._nuid.next()}"

    def new_token(self) -> str:
        """Make a name that nobody else has: 22 letters and digits."""
        if get_ident() != self.pace.thread:
            self.pace.run.check()
        return self._nuid.next()

    @enable_ki_protection
    async def request(self, subject: str, payload: Payload = b"", headers: Headers | None = None) -> Msg:
        """Publish a request and wait for its reply, as `Client.request`, which says more, does."""
        if get_ident() != self.pace.thread:
            self.pace.run.check()
        await checkpoint_if_cancelled()
        return await self.ask(subject, payload, headers)

    @enable_ki_protection
    def publish_aside(self, subject: str, payload: bytes = b"", reply: str = "", *, passing: bool = False) -> None:
        """Queue what no program asked for, as `Messaging.publish_aside` says."""
        self.pace.run.check()
        if self.supervisor.finished.is_set() or (passing and not self.is_connected):
            return
        frame, size = self.frames.make(subject, payload, reply, None)
        self.engine.outbox.publish((Passing if passing else Aside)(frame), size)
        self.supervisor.wake()

    @enable_ki_protection
    def attach(self, subject: str, receiver: Receiver[Msg], *, queue: str = "", max_msgs: int = 0) -> Attachment:
        """Subscribe, with a receiver that the reader calls, as `Messaging.attach` says."""
        self.pace.run.check()
        self.check_open(f"subscribe to {subject!r}")
        where = subjects.subscribe_subject(subject)
        group = subjects.queue_name(queue) if queue else b""
        registration = self.engine.subscribe(where, group, max_msgs, receiver)
        self.supervisor.wake()
        return Attachment(self.engine, self.supervisor, registration)

    def add_listener(self, listener: Listener, *, refused: str = "") -> None:
        """Register what takes events, as `Messaging.add_listener` says."""
        self.pace.run.check()
        if not self.supervisor.finished.is_set():
            self._listeners.add(listener, refused)
        elif not refused:
            listener.push(events.Closed(self.supervisor.failure))
            listener.end(self.supervisor.failure)

    def remove_listener(self, listener: Listener) -> None:
        """Remove a listener. Idempotent."""
        self.pace.run.check()
        self._listeners.remove(listener)

    def emit(self, event: events.ConnectionEvent) -> None:
        """Tell the listeners, and the log, of an event."""
        self.pace.run.check()
        self._logbook.write(event)
        self._listeners.emit(event)

    # What writing needs besides.

    @property
    def accepting(self) -> bool:
        """Whether what programs publish is still taken, as `Publishing.accepting` says."""
        return self.supervisor.accepting

    @property
    def max_payload(self) -> int:
        """How many bytes headers and payload of a message may have together, as the server says."""
        return self.supervisor.max_payload

    def check_open(self, doing: str) -> None:
        """Refuse what cannot be done any more, as `Publishing.check_open` says."""
        self.supervisor.check_open()
        self.draining.refuse(doing)

    async def wait_writable(self) -> None:
        """Wait until a message can be queued, as `Client.wait_writable` does; always a checkpoint."""
        self.pace.run.check()
        await checkpoint()
        self.supervisor.check_open()
        await self.supervisor.wait_room()

    @enable_ki_protection
    async def acknowledge(self, reply: str, body: bytes) -> None:
        """Publish to the reply subject of a message, as `Publishing.acknowledge` says."""
        pace = self.pace
        if get_ident() != pace.thread:
            pace.run.check()
        supervisor, outbox = self.supervisor, self._outbox
        # A subject of its own for each message: remembering it, as `Frames` does, would only push out those that come again.
        # The frame is that of `pub`, written out: bodies are short.
        size = len(body)
        frame = b"".join((b"PUB ", reply.encode("utf-8", "surrogateescape"), b" ", LENGTHS[size], body, CRLF))
        pace.left -= 1
        if pace.left < 0 or pace.now() >= pace.due:
            await pace.trip()
        else:
            await checkpoint_if_cancelled()
        if outbox.bytes >= supervisor.high_water:
            supervisor.check_open()
            await supervisor.wait_room()
        # As `Client.publish` queues it, written out as there.
        outbox.frames.append(frame)
        outbox.bytes += len(frame)
        outbox.out_bytes += size
        if supervisor.idle is not None:
            supervisor.wake()

    @enable_ki_protection
    def acknowledge_nowait(self, reply: str, body: bytes, inbox: str = "") -> None:
        """Queue what `acknowledge` publishes, as `Publishing.acknowledge_nowait` says."""
        if get_ident() != self.pace.thread:
            self.pace.run.check()
        self.supervisor.check_open()
        self.supervisor.check_room()
        frame = _acknowledgement(reply, body, inbox.encode())
        self.engine.outbox.publish(frame, len(body))
        self.supervisor.wake()

    @enable_ki_protection
    def acknowledge_aside(self, reply: str, body: bytes) -> None:
        """Queue an acknowledgement that no program asked for, as `Publishing.acknowledge_aside` says."""
        self.pace.run.check()
        if not self.supervisor.finished.is_set():
            self.engine.outbox.publish(Aside(_acknowledgement(reply, body)), len(body))
            self.supervisor.wake()

    @enable_ki_protection
    def request_nowait(
        self, subject: str, payload: Payload = b"", headers: Headers | None = None, *, chooser: Chooser | None = None
    ) -> PendingReply:
        """Queue a request, as `Publishing.request_nowait` says."""
        if get_ident() != self.pace.thread:
            self.pace.run.check()
        return self._begin(subject, payload, headers, chooser)

    def open_pipeline(self, owner: PipelineOwner, *, deep: bool = False) -> Pipeline:
        """Open a way for many publishes in flight, as `Publishing.open_pipeline` says."""
        self.pace.run.check()
        self.supervisor.check_open()
        parts = self.requests, self.engine, self.supervisor, self.frames, self.pace
        return Pipeline(owner, self.new_inbox(), *parts, self.request_timeout, deep=deep)

    @enable_ki_protection
    async def request_many(
        self,
        subject: str,
        payload: Payload = b"",
        headers: Headers | None = None,
        *,
        max_msgs: int = 0,
        stall: float | None = None,
        sentinel: Callable[[Msg], object] | None = None,
        reply: str = "",
    ) -> list[Msg]:
        """Publish a request and collect its replies, as `Client.request_many` does."""
        await checkpoint_if_cancelled()
        total = seconds_to_wait(self.request_timeout)
        policy = ReplyPolicy(trio.current_time(), total=total, stall=stall, max_msgs=max_msgs, sentinel=sentinel)
        if not self.supervisor.has_room or not self.supervisor.accepting:
            with self.limit(f"request to {subject!r}"):
                await self.supervisor.wait_room()
        many_request, frame, size = self.ask_many(subject, payload, headers, reply)
        collector = ReplyCollector(many_request, self.requests, policy)
        try:
            many_request.start(collector, frame, size, max_msgs)
            return await collector.wait()
        finally:
            collector.close()

    @enable_ki_protection
    def request_aside(
        self,
        subject: str,
        payload: Payload,
        then: Callable[[Msg | Exception], None],
        headers: Headers | None = None,
        *,
        chooser: Chooser | None = None,
    ) -> PendingReply | None:
        """Queue a request whose reply goes to a callback, as `Publishing.request_aside` says."""
        self.pace.run.check()
        if self.supervisor.finished.is_set():
            return None
        reply, inbox = self.requests.prepare(subject, self.request_timeout)
        frame, size = self.frames.make(subject, payload, inbox, headers)
        self.requests.start_left(reply, Aside(frame), size, then, chooser)
        self.supervisor.push()
        return reply

    @enable_ki_protection
    def leave(self, reply: PendingReply, then: Callable[[Msg | Exception], None]) -> bool:
        """Let what still comes of a request go to a callback, as `Publishing.leave` says."""
        self.pace.run.check()
        return self.requests.leave(reply, then)

    def call_at(self, when: float, then: Callable[[], None]) -> Timer:
        """Have a callback called at a time of Trio's clock, as `Publishing.call_at` says."""
        self.pace.run.check()
        return self.supervisor.timekeeper.call_at(when, then)

    def with_request_timeout(self, seconds: float | None) -> Connection:
        """Make a view of this connection whose requests have another `request_timeout`."""
        view = copy.copy(self)
        view.request_timeout = seconds
        return view

    def with_send_deadline(self, wanted: bool) -> Connection:
        """Make a view of this connection whose requests say, or do not, for how long their replies are waited for."""
        view = copy.copy(self)
        view.send_deadline = wanted
        return view

    # What services use besides.

    async def confirm(self, what: str) -> None:
        """Wait until the server has all subscriptions; where the connection breaks meanwhile, until the next one has.

        Args:
            what: What waits, for the error.

        Raises:
            nats.errors.TimeoutError: It took longer than a reply may.
            nats.errors.ConnectionClosedError: The client is closed.
        """
        with self.limit(what):
            while True:
                self.supervisor.check_open()
                try:
                    await self.supervisor.barrier()
                except errors.DisconnectedError:
                    continue  # they are replayed
                return

    async def respond(self, reply: str, payload: Payload, headers: Headers | None) -> None:
        """Publish to the reply subject of a message: what a program responds, at the price of `Client.publish`.

        Cancelled, nothing was queued. A cancellation point and a scheduling point as `Client.publish` is.

        Args:
            reply: The reply subject, as the server gave it: it is not checked again, and not remembered.
            payload: The response.
            headers: Its headers.

        Raises:
            nats.errors.Error: As for `Client.publish`.
        """
        pace = self.pace
        if get_ident() != pace.thread:
            pace.run.check()
        frame, size = self.frames.response(reply, payload, headers)
        pace.left -= 1
        if pace.left < 0 or pace.now() >= pace.due:
            await pace.trip()
        else:
            await checkpoint_if_cancelled()
        supervisor, outbox = self.supervisor, self._outbox
        if outbox.bytes >= supervisor.high_water:
            supervisor.check_open()
            await supervisor.wait_room()
        # As `Client.publish` queues it, written out as there.
        outbox.frames.append(frame)
        outbox.bytes += len(frame)
        outbox.out_bytes += size
        if supervisor.idle is not None:
            supervisor.wake()

    def respond_aside(self, reply: str, payload: bytes = b"", headers: Headers | None = None) -> None:
        """Queue what `respond` publishes where no program asked for it, as `publish_aside` does: whatever the reply subject is.

        Args:
            reply: As for `respond`.
            payload: The response.
            headers: Its headers.

        Raises:
            nats.errors.MaxPayloadError: They are more than the server takes.
        """
        self.pace.run.check()
        if not self.supervisor.finished.is_set():
            frame, size = self.frames.response(reply, payload, headers)
            self.engine.outbox.publish(Aside(frame) if isinstance(frame, bytes) else frame, size)
            self.supervisor.wake()

    # What the client and its feeds use besides.

    async def ask(self, subject: str, payload: Payload, headers: Headers | None) -> Msg:
        """Publish a request and wait for its reply, for whom it has been seen who calls.

        As `with request_nowait() as reply: wait()`, of which each part would look once more.
        """
        if not self.supervisor.has_room or not self.supervisor.accepting:
            with self.limit(f"request to {subject!r}"):
                await self.supervisor.wait_room()
                return await self.ask(subject, payload, headers)  # there is room now
        reply = self._begin(subject, payload, headers, None)
        try:
            return await self.requests.wait(reply)
        finally:
            self.requests.forget(reply)

    def limit(self, what: str) -> AbstractContextManager[None]:
        """Bound a wait for one reply of the server."""
        return reply_within(self.request_timeout, what)

    def ask_many(
        self, subject: str, payload: Payload, headers: Headers | None, reply: str, *, doing: str = "request"
    ) -> tuple[ManyRequest, Frame, int]:
        """Make a request with an inbox of its own, and its frame with its size; nothing is queued.

        Args:
            subject: Where to.
            payload: The request.
            headers: Names and values.
            reply: The inbox; a new one where it is empty.
            doing: "request"; or "trace", whose message has no reply subject, since its headers name the inbox.
        """
        self.supervisor.check_open()
        inbox = reply or self.new_inbox()
        if self.send_deadline and doing == "request":
            headers = with_timeout(headers, self._seconds_left())
        frame, size = self.frames.make(subject, payload, "" if doing == "trace" else inbox, headers, doing)
        return ManyRequest(self.requests, self.engine, self.supervisor, subject, inbox, doing), frame, size

    async def barrier(self) -> None:
        """Wait until what is buffered in the feeds was worked off, as `Client.barrier` does."""
        await wait_barrier([feed for feed in self.feeds if not feed._outlasts])

    def begin_drain(self, nursery: trio.Nursery) -> None:
        """Begin to drain, as `Client.drain_nowait` does: in a task of its own. Idempotent."""
        if self.draining.begun or not self.supervisor.accepting:
            return
        self.draining.begun = self.supervisor.draining = True
        self.add_listener(self.draining)
        self.emit(events.Draining())
        nursery.start_soon(self.draining.run, self.aclose, name="trionats drain")

    async def aclose(self) -> None:
        """End all feeds, send what is queued, and say goodbye, as `Client.aclose` does."""
        self.pace.run.check()
        self.supervisor.refuse()
        self.engine.end_all(None)
        await self.supervisor.close()

    # Inside.

    def _begin(self, subject: str, payload: Payload, headers: Headers | None, chooser: Chooser | None) -> PendingReply:
        self.supervisor.check_open()
        self.supervisor.check_room()
        reply, inbox = self.requests.prepare(subject, self.request_timeout)
        if self.send_deadline:
            headers = with_timeout(headers, self._seconds_left())
        frame, size = self.frames.make(subject, payload, inbox, headers, "request")
        self.requests.start(reply, frame, size, chooser)
        # Alone, it leaves at once; many together leave in one batch, which takes a third off each (design 34).
        if len(self.requests) == 1:
            self.supervisor.push()
        else:
            self.supervisor.wake()
        return reply

    def _seconds_left(self) -> float:
        """Say for how long a reply is waited for, all in all."""
        left = trio.current_effective_deadline() - trio.current_time()
        return min(left, seconds_to_wait(self.request_timeout))


def _acknowledgement(reply: str, body: bytes, inbox: bytes = b"") -> bytes:
    # As the server gave it: what came through it may hold bytes that are no text.
    return pub(reply.encode("utf-8", "surrogateescape"), inbox, body)


def connection_of(nc: object, opener: str, form: str = "(nursery, nc, ...)") -> Connection:
    """Give the connection behind what was passed to an `open_*` function as its client, or refuse it.

    Args:
        nc: What was passed as the client.
        opener: The name of the function, for the error.
        form: How it is called, for the error.

    Raises:
        TypeError: It is no client.
        RuntimeError: It belongs to another Trio run.
    """
    messaging = messaging_of(nc, opener, form)
    if not isinstance(messaging, Connection):
        raise TypeError(f"{opener}{form}: nc must be a Client, not {type(nc).__name__}")
    return messaging
