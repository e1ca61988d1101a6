"""Requests and their replies: one inbox for all of a client, and a waiter for each request.

A waiter is entered before its frame is queued and leaves the table with its reply, its failure or its `close`, whichever
comes first; `PendingReply` is a context manager so that nothing else can happen. When the connection breaks, requests
that were sent fail at once, and those whose frame still waits in the outbox go on waiting with it (design 13).
"""

from __future__ import annotations

import math
from operator import attrgetter
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, final

import trio
from trio.lowlevel import Abort, checkpoint, enable_ki_protection

from trionats import errors, events
from trionats._core.deadlines import seconds_to_wait, too_late
from trionats._protocol.index import Index, LateIndex
from trionats._protocol.replies import no_responders, nobody_listens
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from trionats._connection.supervisor import Supervisor
    from trionats._core.message import Msg
    from trionats._protocol.commands import Frame
    from trionats._protocol.engine import Engine
    from trionats._protocol.outbox import Queued
    from trionats._protocol.registrations import Registration


#: How many choosers are still shown what comes after their choice.
CHOOSERS_REMEMBERED: Final = 64


class Chooser(Protocol):
    """Chooses among several replies to one request. It is called by the reader: it does not wait and does not raise."""

    def choose(self, message: Msg, /) -> float:
        """Take a reply: 0 if this is the one, else how many seconds to wait at the most for a better one."""

    def give_up(self) -> Msg | Exception:
        """Say what it is when no better one came in time."""


class WithInbox(Protocol):
    """A request with an inbox of its own, as far as it is looked for when the server refuses something."""

    @property
    def subject(self) -> str:
        """Where it went."""

    @property
    def inbox(self) -> str:
        """Where its replies come to."""

    @property
    def in_flight(self) -> bool:
        """Whether it has left us, so that a server may have seen it."""

    def fail(self, error: errors.PermissionsViolationError) -> None:
        """End it: the server refused it."""


class Pipelined(Protocol):
    """Many requests that have an inbox of their own together, as far as they count among all."""

    def __len__(self) -> int:
        """How many replies are still to come."""

    def refused(self, error: errors.PermissionsViolationError, /) -> None:
        """Take note of what the server has refused: a publish, or one with a certain reply subject."""


@final
class PendingReply:
    """A request under way: its frame is queued, its reply is to come.

    Use it as a context manager, or call `close`: what is left of the request is forgotten then.
    """

    __slots__ = (
        "_error",
        "_message",
        "_queued",
        "_requests",
        "_seconds",
        "_task",
        "_then",
        "_timeout",
        "_token",
        "given_up",
        "subject",
    )

    def __init__(self, requests: Requests, token: str, subject: str, timeout: float | None) -> None:
        self._requests = requests
        self._token = token
        self._timeout = timeout
        self._seconds = 0.0
        self._queued: Queued
        self._message: Msg | None = None
        self._error: Exception | None = None
        self._task: trio.lowlevel.Task | None = None
        self._then: Callable[[Msg | Exception], None] | None = None
        # It was settled by its chooser because the time was up: who was really meant may still reply.
        self.given_up = False
        self.subject = subject

    def __repr__(self) -> str:
        return f"<PendingReply to {self.subject!r}, {'done' if self.done else 'waiting'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def done(self) -> bool:
        """Whether `wait` will return or raise at once."""
        return self._message is not None or self._error is not None

    @enable_ki_protection
    async def wait(self) -> Msg:
        """Wait for the reply.

        The deadline in force governs, and beside it a `request_timeout` that was chosen, counted from here; where there
        is neither, it waits 5 s.

        Returns:
            The reply.

        Raises:
            nats.errors.NoRespondersError: Nobody listens on the subject.
            nats.errors.TimeoutError: That time passed.
            trionats.errors.DisconnectedError: The connection broke after the request was sent (`sent` is True).
            nats.errors.ConnectionClosedError: The client, or this reply, was closed.
            trio.BusyResourceError: Another task waits for it, or it was left.
        """
        if get_ident() != self._requests.run.thread:
            self._requests.run.check()
        return await self._requests.wait(self)

    @enable_ki_protection
    def close(self) -> None:
        """Forget the request: a reply that still comes is ignored, a frame that still waits is not sent."""
        if get_ident() != self._requests.run.thread:
            self._requests.run.check()
        self._requests.forget(self)

    def _timed_out(self) -> None:
        self._requests.forget(self, too_late(self._seconds, f"request to {self.subject!r}"))

    def _check_free(self) -> None:
        if self._task is not None:
            raise trio.BusyResourceError("another task waits for this reply")
        if self._then is not None:
            raise trio.BusyResourceError("this reply was left to a callback")

    async def _park(self) -> None:
        self._check_free()
        self._task = trio.lowlevel.current_task()

        def abort(_: Callable[[], Any]) -> Abort:
            self._task = None
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _settle(self, message: Msg | None, error: Exception | None = None) -> None:
        self._message = message
        self._error = error
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
        elif self._then is not None:
            self._requests.left -= 1
            then, self._then = self._then, None
            if message is not None:
                then(message)
            elif error is not None:
                then(error)


class Requests:
    """The requests of one client, and the receiver of their replies."""

    def __init__(self, new_token: Callable[[], str], engine: Engine, supervisor: Supervisor, prefix: str) -> None:
        self._new_token = new_token
        self.call_at = supervisor.timekeeper.call_at
        self.run = supervisor.pace.run
        self._engine = engine
        self._outbox = engine.outbox
        self._prefix = prefix + "."
        self._inbox: Registration | None = None
        self._waiting: dict[str, PendingReply] = {}
        self._by_subject = LateIndex(self._waiting, attrgetter("subject"))
        self._with_inbox: dict[WithInbox, None] = {}
        self._choosers: dict[str, Chooser] = {}
        self._pipelines: dict[Pipelined, None] = {}
        self.left = 0
        """How many of those that wait are left to a callback: nobody waits for them."""
        self._with_inbox_by: Index[tuple[str, str], WithInbox] = Index()
        self.settled: Callable[[], None] | None = None
        """Called whenever one of them is done, while somebody wants to know."""

    ignores_repeats = True
    """A reply that comes twice finds nobody the second time."""

    def waiting(self) -> frozenset[str]:
        """Name the requests whose reply is waited for."""
        return frozenset(self._waiting)

    def __len__(self) -> int:
        alone = len(self._waiting) - self.left + len(self._with_inbox)
        return alone + sum(map(len, self._pipelines)) if self._pipelines else alone

    def prepare(self, subject: str, timeout: float | None) -> tuple[PendingReply, str]:
        """Make a waiter; it is in no table before `start`.

        Args:
            subject: Where the request goes, for texts.
            timeout: The `request_timeout` that somebody chose.

        Returns:
            The waiter and the reply subject.
        """
        token = self._new_token()
        return PendingReply(self, token, subject, timeout), self._prefix + token

    def new_inbox(self) -> str:
        """Make a subject within the inbox that all requests share: servers everywhere know it, once it was used."""
        return self._prefix + self._new_token()

    def listen(self) -> None:
        """Subscribe to the inbox that all requests share. Idempotent; it stays."""
        if self._inbox is None:
            self._inbox = self._engine.subscribe(f"{self._prefix}*".encode(), b"", 0, self)
            self._inbox.for_replies = True

    def start(self, reply: PendingReply, frame: Frame, size: int, chooser: Chooser | None = None) -> None:
        """Enter a waiter, and queue its frame.

        Args:
            reply: The waiter.
            frame: The request.
            size: Its headers and payload, in bytes.
            chooser: Chooses among the replies; None for the first one.
        """
        self.listen()
        reply._queued = self._outbox.publish_tracked(frame, size)
        self._waiting[reply._token] = reply
        if chooser is not None:
            self._remember(reply._token, chooser)

    async def wait(self, reply: PendingReply) -> Msg:
        """Wait for a reply, as `PendingReply.wait` says, by whom it has been seen who calls."""
        if reply._message is not None or reply._error is not None:
            await checkpoint()
        elif (seconds := seconds_to_wait(reply._timeout)) == math.inf:
            await reply._park()
        else:
            reply._seconds = seconds
            timer = self.call_at(trio.current_time() + seconds, reply._timed_out)
            try:
                await reply._park()
            finally:
                timer.cancel()
        if reply._message is None:
            self.run.check()
            assert reply._error is not None, "woken without a reply"
            # The reply would know its own error's traceback, whose frames know the reply: a circle for the garbage collector.
            raise errors.again(reply._error)
        return reply._message

    def leave(self, reply: PendingReply, then: Callable[[Msg | Exception], None]) -> bool:
        """Let what still comes of a request go to a callback, as `messaging.Publishing.leave` says."""
        reply._check_free()
        if reply._token in self._waiting:
            if self._outbox.waits(reply._queued):
                self.forget(reply)
                return False
            self._leave(reply, then)
            self._tell()
        elif reply._message is not None:
            then(reply._message)
        elif reply._error is not None:
            then(reply._error)
        return True

    def start_left(
        self,
        reply: PendingReply,
        frame: Frame,
        size: int,
        then: Callable[[Msg | Exception], None],
        chooser: Chooser | None = None,
    ) -> None:
        """Enter a request that nobody waits for from the beginning, and queue its frame; as `start`, and then `leave`."""
        self.start(reply, frame, size, chooser)
        self._leave(reply, then)

    def _leave(self, reply: PendingReply, then: Callable[[Msg | Exception], None]) -> None:
        reply._then = then
        self.left += 1

    def forget(self, reply: PendingReply, why: Exception | None = None) -> None:
        """Take a waiter out of the table, and its frame out of the outbox if it still waits there. Idempotent.

        Args:
            reply: The waiter.
            why: What it raises; that it was closed unless something else is said.
        """
        if self._waiting.pop(reply._token, None) is None:
            return
        self._outbox.withdraw(reply._queued)
        text = f"request to {reply.subject!r}: closed before an answer came"
        reply._settle(None, why or errors.explained(errors.ConnectionClosedError, text))
        self._tell()

    def track(self, request: WithInbox) -> None:
        """Enter a request with an inbox of its own."""
        self._with_inbox[request] = None
        for refusable in _refusable(request):
            self._with_inbox_by.add(refusable, request)

    def untrack(self, request: WithInbox) -> None:
        """Take it out again. Idempotent."""
        if self._with_inbox.pop(request, self) is not self:
            for refusable in _refusable(request):
                self._with_inbox_by.remove(refusable, request)
            self._tell()

    def enter(self, pipeline: Pipelined) -> None:
        """Count the requests of a pipeline, too."""
        self._pipelines[pipeline] = None

    def leave_out(self, pipeline: Pipelined) -> None:
        """Count them no more. Idempotent."""
        if self._pipelines.pop(pipeline, self) is not self:
            self._tell()

    # The receiver of the replies.

    def deliver(self, message: Msg) -> None:
        """Hand a reply to its waiter; one that nobody waits for is ignored."""
        if self._choosers and not self._chosen(message):
            return
        reply = self._waiting.pop(message.subject[len(self._prefix) :], None)
        if reply is None:
            return
        if nobody_listens(message):
            reply._settle(None, no_responders(reply.subject))
        else:
            reply._settle(message)
        if self.settled is not None:
            self.settled()

    def connection_lost(self, reason: Exception) -> None:
        """Fail the requests that were sent; the others wait for the next connection."""
        for reply in list(self._waiting.values()):
            if not self._outbox.waits(reply._queued):
                text = f"request to {reply.subject!r}: the connection was lost while a reply was awaited: {reason}"
                self._fail(reply, errors.explained(errors.DisconnectedError, text, sent=True))

    def connection_restored(self) -> None:
        """Fail the requests whose frame is more than the new server takes; the others are replayed, and so is the inbox."""
        for reply in list(self._waiting.values()):
            if not self._outbox.waits(reply._queued):
                text = f"request to {reply.subject!r}: {reply._queued.size} bytes are more than the new server takes"
                self._fail(reply, errors.explained(errors.MaxPayloadError, text))

    def ended(self, reason: BaseException | None) -> None:
        """Fail all requests: the client is closed, or the server refused the inbox."""
        self._inbox = None
        for reply in list(self._waiting.values()):
            if isinstance(reason, REFUSALS):
                self._fail(reply, refusal_of(f"request to {reply.subject!r}", reason))
                continue
            why = "the client was closed" if reason is None else str(reason)
            error = errors.explained(errors.ConnectionClosedError, f"request to {reply.subject!r}: {why}")
            error.__cause__ = reason
            self._fail(reply, error)

    # The listener to what the server says besides.

    def push(self, event: events.ConnectionEvent) -> None:
        """Fail the requests that the server has refused to pass on, or whose replies it would refuse (design 22)."""
        if not isinstance(event, events.PermissionViolation) or event.error.operation not in ("publish", "reply"):
            return
        refused = event.error
        if refused.operation == "publish":
            replies = self._by_subject.find(refused.subject)
        else:
            reply = self._waiting.get(refused.subject.removeprefix(self._prefix))
            replies = [] if reply is None else [reply]
        for reply in replies:
            # One whose frame still waits here was not refused yet.
            if not self._outbox.waits(reply._queued):
                self._fail(reply, refusal_of(f"request to {reply.subject!r}", refused))
        for request in self._with_inbox_by.find((refused.operation, refused.subject)):
            if request.in_flight:
                request.fail(refused)
        for pipeline in list(self._pipelines):
            pipeline.refused(refused)

    def end(self, reason: BaseException | None) -> None:
        """Nothing to do: `ended` has been called."""

    # Choosing.

    def _remember(self, token: str, chooser: Chooser) -> None:
        """Let a chooser see all replies, and for a while those that come after its choice."""
        choosers = self._choosers
        choosers[token] = chooser
        while len(choosers) > CHOOSERS_REMEMBERED + len(self._waiting):
            oldest = next(iter(choosers))
            done = choosers.pop(oldest)
            if oldest in self._waiting:
                choosers[oldest] = done

    def _chosen(self, message: Msg) -> bool:
        """Say whether a reply is the one."""
        token = message.subject[len(self._prefix) :]
        chooser = self._choosers.get(token)
        if chooser is None or nobody_listens(message):
            return True
        patience = chooser.choose(message)
        if patience and token in self._waiting:
            self.call_at(trio.current_time() + patience, lambda: self._give_up(token, chooser))
        return not patience

    def _give_up(self, token: str, chooser: Chooser) -> None:
        reply = self._waiting.pop(token, None)
        if reply is None:
            return
        reply.given_up = True
        last = chooser.give_up()
        if isinstance(last, Exception):
            reply._settle(None, last)
        else:
            reply._settle(last)
        self._tell()

    def _fail(self, reply: PendingReply, error: Exception) -> None:
        del self._waiting[reply._token]
        if reply._then is None:
            # Of those that are left to a callback only goodbyes wait to be sent.
            self._outbox.withdraw(reply._queued)
        reply._settle(None, error)
        self._tell()

    def _tell(self) -> None:
        if self.settled is not None:
            self.settled()


def _refusable(request: WithInbox) -> tuple[tuple[str, str], ...]:
    """List what the server may refuse of a request with an inbox, and how it calls it: a trace's inbox is published to."""
    return ("publish", request.subject), ("reply", request.inbox), ("publish", request.inbox)
