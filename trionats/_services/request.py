"""A request to a service: it is responded to, timed, and answered with an error where its handler fails."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Self, final

import trio
from trio.lowlevel import checkpoint, current_task, enable_ki_protection

from trionats import errors
from trionats._protocol.parser import Message
from trionats._protocol.services.failures import failure, failure_of
from trionats._protocol.services.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import TracebackType

    from trio.lowlevel import Task

    from trionats._core.connection import Connection
    from trionats._core.frames import Headers
    from trionats._core.message import Msg
    from trionats._protocol.commands import Payload
    from trionats._protocol.services.failures import Failure

__all__ = ["Desk", "ServiceRequest"]


@final
class Desk:
    """What the requests of one endpoint have in common: where responses go, and what is counted.

    Args:
        connection: Through what they came.
        name: What they are requests to, for people.
        groups: The groups that the endpoint is in, up to the service.

    Attributes:
        tally: The counters.
        working: Those that are worked on, as far as is known, and by whom: `async with request`, and the handlers of `serve`.
    """

    __slots__ = ("_changed", "_draining", "connection", "groups", "name", "now", "tally", "working")

    def __init__(self, connection: Connection, name: str, groups: Sequence[object]) -> None:
        self.connection = connection
        self.name = name
        self.groups = groups
        self._draining = connection.draining
        self.now = connection.pace.now
        self.tally = Tally()
        self.working: dict[ServiceRequest, Task] = {}
        self._changed: trio.Event | None = None

    def begin(self, request: ServiceRequest) -> None:
        """Take note that the current task works on one."""
        if not self.working:
            self._draining.in_hand[self] = None
        self.working[request] = current_task()

    def done(self, request: ServiceRequest) -> None:
        """Take note that one is not worked on any more."""
        self.working.pop(request, None)
        if not self.working:
            self._draining.in_hand.pop(self, None)
        if self._draining.begun:
            self._draining.look()
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def is_busy(self, besides: Collection[Task]) -> bool:
        """Say whether any task, besides some, works on one."""
        return bool(self.working) and any(task not in besides for task in self.working.values())

    async def wait_idle(self, besides: Collection[Task]) -> None:
        """Wait until no task, besides some, works on one."""
        while self.is_busy(besides):
            self._changed = self._changed or trio.Event()
            await self._changed.wait()


@final
class ServiceRequest(Message):
    """A request to an endpoint: what `open_endpoint` yields, and the handlers of `Service.serve` are given.

    `async with request:` times it, and responds 500 for an exception of the block, of which it says no more than the class,
    unless something was responded already. The exception goes on. Cancellation goes on, too, and is responded to by nobody:
    whoever cancels knows better what is to be said. `serve` does all this for its handlers, so they do not enter their requests.

    Attributes:
        subject: The subject it was sent to.
        reply: Where a response is expected; an empty string where none is.
        data: The payload.
        deadline: Until when its response is waited for, by Trio's clock, where the endpoint was opened with
            `honour_deadline` and the requester said so (`Client.with_options(send_deadline=True)`); otherwise infinite.
    """

    __slots__ = ("_answered", "_desk", "_failed", "_started", "deadline")

    def __init__(self, desk: Desk, message: Msg, deadline: float) -> None:
        super().__init__(message.sid, message.subject, message.reply, message.data, message.header_block)
        self._desk = desk
        self._answered = self._failed = False
        self._started = inf
        self.deadline = deadline

    async def respond(self, payload: Payload = b"", *, headers: Headers | None = None) -> None:
        """Publish a response.

        It returns once it is queued, as `Client.publish` does. Where nobody expects one it does nothing. There may be several:
        `Client.request` takes the first one, `Client.request_many` and `open_replies` take all.

        Args:
            payload: The response.
            headers: Its headers; those of the request are not echoed.

        Raises:
            nats.errors.MaxPayloadError: Headers and payload are more than the server takes.
            nats.errors.BadHeaderError: A header is not valid.
            nats.errors.Error: As for `Client.publish`.
        """
        if not self.reply:
            await checkpoint()
            return
        await self._desk.connection.respond(self.reply, payload, headers)
        self._answered = True

    async def respond_error(
        self, code: int | str, description: str, data: Payload = b"", headers: Headers | None = None
    ) -> None:
        """Publish a response that says that the request failed (headers `Nats-Service-Error-Code` and `Nats-Service-Error`).

        It counts as an error of the endpoint, once for each request.

        Args:
            code: The error's number.
            description: What is wrong, in a line.
            data: What there is to say besides.
            headers: Further headers.

        Raises:
            TypeError: `code` is neither a number nor text, `description` is no text, or `headers` no mapping.
            ValueError: One of the first two is empty, or has a line end.
            nats.errors.Error: As for `respond`.
        """
        failed = failure("respond_error", code, description)
        if headers is not None and not isinstance(headers, Mapping):
            raise TypeError(f"respond_error: headers must be a mapping, not {type(headers).__name__}")
        await self.respond(data, headers=failed.headers(headers))
        self._count(failed)

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        if self._started != inf:
            raise RuntimeError("a request is entered once; those of serve() are entered already")
        self._desk.connection.pace.run.check()
        # At once: a drain asks whether it is worked on after the first step of a task that it was handed to.
        self.__begin__()
        try:
            await checkpoint()
        except trio.Cancelled:
            self._started = inf
            self._desk.done(self)
            raise
        return self

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__finish__(error)

    # For who hands it over, and who works on it: synchronous, and total.

    def __begin__(self) -> None:
        """Begin to work on it."""
        self._started = self._desk.now()
        self._desk.begin(self)

    def __finish__(self, error: BaseException | None) -> None:
        """Take note of how the work on it ended.

        Args:
            error: What it raised; None for nothing.
        """
        desk = self._desk
        desk.tally.took(desk.now() - self._started)
        if error is not None and (failed := failure_of(error)) is not None:
            self.__refuse__(failed)
        desk.done(self)

    def __refuse__(self, failed: Failure) -> None:
        """Count it as failed, and say so to whoever waits, unless something was responded already."""
        self._count(failed)
        if self.reply and not self._answered:
            self._answered = True
            with suppress(errors.MaxPayloadError):
                self._desk.connection.respond_aside(self.reply, headers=failed.headers())

    def __give_up__(self, failed: Failure) -> None:
        """Count it as failed, because nobody waits for it any more."""
        self._desk.tally.expired += 1
        self._count(failed)

    def _count(self, failed: Failure) -> None:
        if not self._failed:
            self._failed = True
            self._desk.tally.failed(failed)
