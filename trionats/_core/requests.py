"""Requests and their answers: one inbox for all of a client, and a waiter for each request.

A waiter is entered before its frame is queued and leaves the table with its answer, its failure or its `close`, whichever
comes first; `PendingReply` is a context manager so that nothing else can happen. When the connection breaks, requests
that were sent fail at once, and those whose frame still waits in the outbox go on waiting with it.
"""

from __future__ import annotations

import math
from operator import attrgetter
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, final

import trio
from trio.lowlevel import Abort, checkpoint, enable_ki_protection

from trionats import errors, events
from trionats._core.deadlines import patience, too_late
from trionats._protocol.index import Index, LateIndex
from trionats._protocol.replies import no_responders, nobody_listens
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from trionats._connection.supervisor import Supervisor
    from trionats._core.message import Msg
    from trionats._core.request_many import ManyRequest
    from trionats._protocol.engine import Engine
    from trionats._protocol.outbox import Queued
    from trionats._protocol.registrations import Registration


#: How many choosers are still shown what comes after their choice.
CHOOSERS_REMEMBERED: Final = 64


class Chooser(Protocol):
    """Chooses among several answers to one request. It is called by the reader: it does not wait and does not raise."""

    def choose(self, answer: Msg, /) -> float:
        """Take an answer: 0 if this is the one, else how many seconds to wait at the most for a better one."""

    def give_up(self) -> Msg | Exception:
        """Say what it is when no better one came in time."""


@final
class PendingReply:
    """A request under way: its frame is queued, its answer is to come.

    Use it as a context manager, or call `close`: what is left of the request is forgotten then.
    """

    __slots__ = (
        "_answer",
        "_error",
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
        self._queued: Queued
        self._answer: Msg | None = None
        self._error: Exception | None = None
        self._task: trio.lowlevel.Task | None = None
        self._then: Callable[[Msg | Exception], None] | None = None
        # Its answer may be another one's than that which was asked: that one's was not waited for any longer.
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
        return self._answer is not None or self._error is not None

    @enable_ki_protection
    async def wait(self) -> Msg:
        """Wait for the answer.

        The deadline in force governs, and beside it a `request_timeout` that was chosen, counted from here; where there
        is neither, it waits 5 s.

        Returns:
            The answer.

        Raises:
            nats.errors.NoRespondersError: Nobody listens on the subject.
            nats.errors.TimeoutError: That time passed.
            trionats.errors.DisconnectedError: The connection broke after the request was sent.
            nats.errors.ConnectionClosedError: The client, or this reply, was closed.
            trio.BusyResourceError: Another task waits for it, or it was left.
        """
        if get_ident() != self._requests.run.thread:
            self._requests.run.check()
        return await self._answered()

    async def _answered(self) -> Msg:
        if self._answer is not None or self._error is not None:
            await checkpoint()
        elif (seconds := patience(self._timeout)) == math.inf:
            await self._park()
        else:
            self._seconds = seconds
            alarm = self._requests.alarm(trio.current_time() + seconds, self._timed_out)
            try:
                await self._park()
            finally:
                alarm.cancel()
        if self._answer is None:
            self._requests.run.check()
            assert self._error is not None, "woken without an answer"
            raise self._error
        return self._answer

    @enable_ki_protection
    def close(self) -> None:
        """Forget the request: an answer that still comes is ignored, a frame that still waits is not sent."""
        if get_ident() != self._requests.run.thread:
            self._requests.run.check()
        self._requests.forget(self)

    @enable_ki_protection
    def leave(self, then: Callable[[Msg | Exception], None]) -> bool:
        """Wait no longer, and let what still comes go to a callback, for those who clean up behind themselves.

        A drain does not wait for it, and a closed client tells it.

        Args:
            then: Called once, synchronously, with the answer or with what `wait` would raise; at once if it has come
                already. It must not wait and must not raise.

        Returns:
            False where the request had not left us: it is not sent then, and nothing comes.

        Raises:
            trio.BusyResourceError: A task waits for it, or it was left already.
        """
        self._requests.run.check()
        if self._task is not None:
            raise trio.BusyResourceError("a task waits for this reply")
        self._refuse_left()
        return self._requests.leave(self, then)

    def _timed_out(self) -> None:
        self._requests.forget(self, too_late(self._seconds, f"request to {self.subject!r}"))

    def _refuse_left(self) -> None:
        if self._then is not None:
            raise trio.BusyResourceError("this reply was left to a callback")

    async def _park(self) -> None:
        if self._task is not None:
            raise trio.BusyResourceError("another task waits for this reply")
        if self._then is not None:
            self._refuse_left()
        self._task = trio.lowlevel.current_task()

        def abort(_: Callable[[], Any]) -> Abort:
            self._task = None
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _settle(self, answer: Msg | None, error: Exception | None = None) -> None:
        self._answer = answer
        self._error = error
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
        elif self._then is not None:
            self._requests.left -= 1
            then, self._then = self._then, None
            if answer is not None:
                then(answer)
            elif error is not None:
                then(error)


class Requests:
    """The requests of one client, and the receiver of their answers."""

    def __init__(self, new_token: Callable[[], str], engine: Engine, supervisor: Supervisor, prefix: str) -> None:
        self._new_token = new_token
        self.alarm = supervisor.timekeeper.alarm
        self.run = supervisor.pace.run
        self._engine = engine
        self._outbox = engine.outbox
        self._prefix = prefix + "."
        self._inbox: Registration | None = None
        self._waiting: dict[str, PendingReply] = {}
        self._by_subject = LateIndex(self._waiting, attrgetter("subject"))
        self.many_requests: dict[ManyRequest, None] = {}
        """The requests with an inbox of their own, for many answers."""
        self._choosers: dict[str, Chooser] = {}
        self.left = 0
        """How many of those that wait are left to a callback: nobody waits for them."""
        self._many_by: Index[tuple[str, str], ManyRequest] = Index()
        self.settled: Callable[[], None] | None = None
        """Called whenever one of them is done, while somebody wants to know."""

    ignores_repeats = True
    """An answer that comes twice finds nobody the second time."""

    def waiting(self) -> frozenset[str]:
        """Name the requests whose answer is waited for."""
        return frozenset(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting) - self.left + len(self.many_requests)

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

    def start(self, reply: PendingReply, frame: bytes, size: int, chooser: Chooser | None = None) -> None:
        """Enter a waiter, and queue its frame.

        Args:
            reply: The waiter.
            frame: The request.
            size: Its headers and payload, in bytes.
            chooser: Chooses among the answers; None for the first one.
        """
        if self._inbox is None:
            self._inbox = self._engine.subscribe(f"{self._prefix}*".encode(), b"", 0, self)
            self._inbox.for_replies = True
        reply._queued = self._outbox.publish_tracked(frame, size)
        self._waiting[reply._token] = reply
        if chooser is not None:
            self._remember(reply._token, chooser)

    def leave(self, reply: PendingReply, then: Callable[[Msg | Exception], None]) -> bool:
        """Let what still comes of a request go to a callback; see `PendingReply.leave`."""
        if reply._token in self._waiting:
            if self._outbox.waits(reply._queued):
                self.forget(reply)
                return False
            self._leave(reply, then)
            self._tell()
        elif reply._answer is not None:
            then(reply._answer)
        elif reply._error is not None:
            then(reply._error)
        return True

    def start_left(self, reply: PendingReply, frame: bytes, size: int, then: Callable[[Msg | Exception], None]) -> None:
        """Enter a request that nobody waits for from the beginning, and queue its frame; as `start`, and then `leave`."""
        self.start(reply, frame, size)
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

    def track(self, many_request: ManyRequest) -> None:
        """Know of a request with an inbox of its own."""
        self.many_requests[many_request] = None
        self._many_by.add(("publish", many_request.subject), many_request)
        self._many_by.add(("reply", many_request.inbox), many_request)

    def untrack(self, many_request: ManyRequest) -> None:
        """Know that it is over. Idempotent."""
        if self.many_requests.pop(many_request, self) is not self:
            self._many_by.remove(("publish", many_request.subject), many_request)
            self._many_by.remove(("reply", many_request.inbox), many_request)
            self._tell()

    # The receiver of the answers.

    def deliver(self, message: Msg) -> None:
        """Hand an answer to its waiter; one that nobody waits for is ignored."""
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
                text = f"request to {reply.subject!r}: the connection was lost while an answer was awaited: {reason}"
                self._fail(reply, errors.explained(errors.DisconnectedError, text))

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
        """Fail the requests that the server has refused to pass on, or whose answers it would refuse."""
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
        for many_request in self._many_by.find((refused.operation, refused.subject)):
            if many_request.in_flight:
                many_request.fail(refused)

    def end(self, reason: BaseException | None) -> None:
        """Nothing to do: `ended` has been called."""

    # Choosing.

    def _remember(self, token: str, chooser: Chooser) -> None:
        """Let a chooser see all answers, and for a while those that come after its choice."""
        choosers = self._choosers
        choosers[token] = chooser
        while len(choosers) > CHOOSERS_REMEMBERED + len(self._waiting):
            oldest = next(iter(choosers))
            done = choosers.pop(oldest)
            if oldest in self._waiting:
                choosers[oldest] = done

    def _chosen(self, message: Msg) -> bool:
        """Say whether an answer is the one."""
        token = message.subject[len(self._prefix) :]
        chooser = self._choosers.get(token)
        if chooser is None or nobody_listens(message):
            return True
        patience = chooser.choose(message)
        if patience and token in self._waiting:
            self.alarm(trio.current_time() + patience, lambda: self._give_up(token, chooser))
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
