"""The seam: what a connection offers to what is built on it.

Feeds, JetStream, its stores and the bridge's watchers know a connection by these protocols, and never the class `Client`.
`Connection` (`_core.connection`) is ours, behind `Client`; `NatsPyConnection` (`_bridge.connection`) is nats-py's client. Whoever
writes a third one gives it the members of `Messaging`, a `Pace` and `OpenFeeds` of its own among them, and, if objects are to be
stored through it, those of `Publishing` (design 63).

A program holds the face of a connection, with what programs call; `__messaging__` leads from there to the seam, as
`__fspath__` leads from a path to its text. So what only feeds and clients show each other is in nobody's completion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from trionats._feeds.feed import FeedOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats import events
    from trionats._core.foreign import Foreign
    from trionats._core.frames import Headers
    from trionats._core.message import Msg
    from trionats._core.pipeline import Pipeline, PipelineOwner
    from trionats._core.requests import Chooser, PendingReply
    from trionats._protocol.commands import Payload
    from trionats._protocol.receivers import Receiver
    from trionats._protocol.timers import Timer

__all__ = ["Attached", "HasMessaging", "Listener", "Messaging", "Publishing", "Retirable", "messaging_of"]


class Listener(Protocol):
    """What takes connection events. Its methods are called synchronously; they do not wait and do not raise."""

    def push(self, event: events.ConnectionEvent) -> None:
        """Take one event."""

    def end(self, reason: BaseException | None) -> None:
        """There will be no more events."""


class Attached(Protocol):
    """A subscription without a channel: what `Messaging.attach` gives."""

    @property
    def subject(self) -> str:
        """The subject that was subscribed."""

    def detach(self) -> None:
        """Unsubscribe: nothing is delivered any more when it returns. Synchronous, idempotent, also after the connection."""


class Retirable(Attached, Protocol):
    """One that can be given up without losing what is on its way: what `Publishing.attach` gives."""

    def retire(self, late: Callable[[Msg], None] | None = None) -> None:
        """Unsubscribe, but go on delivering what the server sent before it knew; then the receiver's `ended` is called.

        Synchronous, idempotent, also after the connection. Without a connection `ended` is called at once.

        Args:
            late: Takes what still comes in place of the receiver; it does not wait and does not raise.
        """


class Messaging(FeedOwner, Protocol):
    """What reading needs: feeds, management, ordered readers, watchers."""

    @property
    def foreign(self) -> Foreign:
        """The boundary where what other programs made is read."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now."""

    @property
    def server_id(self) -> str:
        """The id of the server at its other end."""

    def new_inbox(self) -> str:
        """Make a subject that nobody else has."""

    def new_token(self) -> str:
        """Make a name that nobody else has: 22 letters and digits."""

    async def request(self, subject: str, payload: Payload = b"", headers: Headers | None = None) -> Msg:
        """Publish a request and wait for its reply, as `Client.request` does."""

    def publish_aside(self, subject: str, payload: bytes = b"", reply: str = "", *, passing: bool = False) -> None:
        """Queue what no program asked for, such as a goodbye.

        It is queued even where too much is queued already, and nothing happens on a connection that is closed. No drain
        waits for it, and that it was lost is told to nobody.

        Args:
            subject: Where to.
            payload: The message.
            reply: Where a reply is expected.
            passing: It means nothing to the next connection; other goodbyes wait for that.
        """

    def attach(self, subject: str, receiver: Receiver[Msg], *, queue: str = "", max_msgs: int = 0) -> Attached:
        """Subscribe, with a receiver that the reader calls: what the feeds are built on.

        The receiver's methods are called synchronously by the reader; they must not wait and must not raise.

        Args:
            subject: The subject; wildcards allowed.
            receiver: What takes the messages.
            queue: The queue group, or an empty string.
            max_msgs: Unsubscribe after so many messages; 0 for never.

        Raises:
            nats.errors.BadSubjectError: The subject or the queue is not valid.
            nats.errors.ConnectionDrainingError: The connection is being drained.
            nats.errors.ConnectionClosedError: The connection is closed.
        """

    def add_listener(self, listener: Listener, *, refused: str = "") -> None:
        """Register what takes events.

        Args:
            listener: What is called with them, synchronously.
            refused: Only tell it that the server refused a publish to this subject; called again with another one, that
                one takes its place.
        """

    def remove_listener(self, listener: Listener) -> None:
        """Remove a listener. Idempotent."""

    def emit(self, event: events.ConnectionEvent) -> None:
        """Tell the listeners, and the log, of an event."""


class Publishing(Messaging, Protocol):
    """What writing needs besides: acknowledged publishes, stores, transfers."""

    @property
    def accepting(self) -> bool:
        """Whether what programs publish is still taken: not any more once the connection is being closed."""

    @property
    def max_payload(self) -> int:
        """How many bytes headers and payload of a message may have together."""

    def check_open(self, doing: str) -> None:
        """Refuse what the end of the connection no longer lets be done.

        Args:
            doing: What is to be done, for the text.

        Raises:
            nats.errors.ConnectionClosedError: It is closed, or closing.
            nats.errors.ConnectionDrainingError: It is being drained.
        """

    async def wait_writable(self) -> None:
        """Wait until a message can be queued, as `Client.wait_writable` does."""

    def attach(self, subject: str, receiver: Receiver[Msg], *, queue: str = "", max_msgs: int = 0) -> Retirable:
        """Subscribe, with a receiver that the reader calls, as `Messaging.attach` says."""

    async def acknowledge(self, reply: str, body: bytes) -> None:
        """Publish to the reply subject of a message: a program's publish, at the price of `Client.publish`.

        Cancelled, nothing was queued. A cancellation point and a scheduling point as `Client.publish` is.

        Args:
            reply: The reply subject, as the server gave it: it is not checked again, and not remembered.
            body: The payload.

        Raises:
            nats.errors.OutboundBufferLimitError: There is no connection, and `pending_size` bytes wait for one.
            nats.errors.ConnectionClosedError: The connection is closed.
        """

    def acknowledge_nowait(self, reply: str, body: bytes, inbox: str = "") -> None:
        """Queue what `acknowledge` publishes, without waiting.

        Args:
            reply: As for `acknowledge`.
            body: The payload.
            inbox: Where the server is to send what it has to say to it.

        Raises:
            trio.WouldBlock: `pending_size` bytes are queued.
            nats.errors.Error: As for `acknowledge`.
        """

    def acknowledge_aside(self, reply: str, body: bytes) -> None:
        """Queue what `acknowledge` publishes where no program asked for it: what is given back, and signs of life.

        As for `publish_aside`: it is queued even where too much is queued already, nothing happens on a connection that is
        closed, and no reply subject makes it raise.

        Args:
            reply: As for `acknowledge`.
            body: The payload.
        """

    def request_nowait(
        self, subject: str, payload: Payload = b"", headers: Headers | None = None, *, chooser: Chooser | None = None
    ) -> PendingReply:
        """Queue a request, as `Client.request_nowait` does.

        Args:
            subject: Where to.
            payload: The request.
            headers: Names and values.
            chooser: Chooses among the replies where the first one may not be the one.
        """

    def open_pipeline(self, owner: PipelineOwner, *, deep: bool = False) -> Pipeline:
        """Open a way for many publishes in flight that each get a reply; it sends nothing, and is closed by who opened it.

        Args:
            owner: Who keeps the books, and takes the replies.
            deep: Whether replies come any number of tokens below its inbox, instead of one.

        Raises:
            nats.errors.ConnectionClosedError: The connection is closed.
        """

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

    def request_aside(
        self,
        subject: str,
        payload: Payload,
        then: Callable[[Msg | Exception], None],
        headers: Headers | None = None,
        *,
        chooser: Chooser | None = None,
    ) -> PendingReply | None:
        """Queue a request whose reply goes to a callback: for goodbyes, which must not fail and whose reply matters.

        It is queued even where too much is queued already, waits for a connection where there is none, and does nothing
        on a connection that is closed.

        Args:
            subject: Where to.
            payload: The request.
            then: Called once, synchronously, with the reply or with what waiting for it would have raised.
            headers: Names and values.
            chooser: As for `request_nowait`.

        Returns:
            The request, which is left already; None on a connection that is closed.
        """

    def leave(self, reply: PendingReply, then: Callable[[Msg | Exception], None]) -> bool:
        """Wait no longer for a reply, and let what still comes go to a callback: for those who clean up behind themselves.

        A drain does not wait for it, and a closed connection tells it.

        Args:
            reply: The request under way.
            then: As for `request_aside`; called at once if something has come already.

        Returns:
            False where the request had not left us: it is not sent then, and nothing comes.

        Raises:
            trio.BusyResourceError: A task waits for it, or it was left already.
        """

    def call_at(self, when: float, then: Callable[[], None]) -> Timer:
        """Have a callback called at a time of Trio's clock, unless it is cancelled first or the connection is closed.

        Args:
            when: The time.
            then: Called synchronously; it must not wait and must not raise.
        """

    def with_request_timeout(self, seconds: float | None) -> Publishing:
        """Make a view of this connection whose requests have another `request_timeout`."""


@runtime_checkable
class HasMessaging(Protocol):
    """The face of a connection, or a connection itself: what can be passed where a client is expected."""

    def __messaging__(self) -> Messaging:
        """Give the seam."""


def messaging_of(nc: object, opener: str, form: str = "(nursery, nc, ...)") -> Messaging:
    """Give the seam of what was passed to an `open_*` function as its client, or refuse it.

    Args:
        nc: What was passed as the client.
        opener: The name of the function, for the error.
        form: How it is called, for the error.

    Raises:
        TypeError: It is no client.
        RuntimeError: It belongs to another Trio run.
    """
    # The class of our clients has the method, too.
    if isinstance(nc, type) or not isinstance(nc, HasMessaging):
        of_nats_py = type(nc).__module__.startswith("nats.")
        given = "nats-py's, for which there is trionats.bridge" if of_nats_py else type(nc).__name__
        raise TypeError(f"{opener}{form}: nc must be a Client, not {given}")
    messaging = nc.__messaging__()
    messaging.pace.run.check(opener)
    return messaging
