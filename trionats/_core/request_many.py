"""A request that has an inbox of its own, for many replies (design 21): its frame, its inbox, and what can happen to both.

`Client.request_many` collects the replies in the caller's own task (`ReplyCollector`); `open_replies` gives them as a feed. Both
are the receiver behind a `ManyRequest`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import Abort, checkpoint

from trionats import errors
from trionats._core.requests import Requests
from trionats._protocol.replies import Disposition, ReplyPolicy, no_responders
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._connection.supervisor import Supervisor
    from trionats._core.message import Msg
    from trionats._protocol.commands import Frame
    from trionats._protocol.engine import Engine
    from trionats._protocol.outbox import Queued
    from trionats._protocol.receivers import Receiver
    from trionats._protocol.registrations import Registration
    from trionats._protocol.server_errors import Refusal
    from trionats._protocol.timers import Timer

#: How many replies, and how many bytes of them, are held before it is too much.
MOST_REPLIES = 65_536
MOST_BYTES = 64 * 1024 * 1024


class ManyRequest:
    """One request under way, and the inbox of its replies."""

    def __init__(
        self, requests: Requests, engine: Engine, supervisor: Supervisor, subject: str, inbox: str, doing: str
    ) -> None:
        self._requests = requests
        self._engine = engine
        self._supervisor = supervisor
        self.subject = subject
        self.inbox = inbox
        self.what = f"{doing} to {subject!r}"
        self._receiver: Receiver[Msg] | None = None
        self._registration: Registration | None = None
        self._queued: Queued | None = None

    def start(self, receiver: Receiver[Msg], frame: Frame, size: int, max_msgs: int) -> None:
        """Subscribe to the inbox and queue the request.

        Args:
            receiver: Who takes the replies.
            frame: The request.
            size: Its headers and payload, in bytes.
            max_msgs: After how many replies the server needs to send no more; 0 for never.
        """
        self.listen(receiver, max_msgs)
        self.send(frame, size)

    def listen(self, receiver: Receiver[Msg], max_msgs: int = 0) -> None:
        """Subscribe to the inbox: the first half of `start`."""
        self._receiver = receiver
        self._registration = self._engine.subscribe(self.inbox.encode(), b"", max_msgs, receiver)
        self._registration.for_replies = True
        self._requests.track(self)
        self._supervisor.wake()

    def send(self, frame: Frame, size: int) -> None:
        """Queue the request: the second half of `start`."""
        self._queued = self._engine.outbox.publish_tracked(frame, size)
        self._supervisor.wake()

    @property
    def in_flight(self) -> bool:
        """Whether the request has left us, so that a server may have seen it."""
        return self._queued is not None and not self._engine.outbox.waits(self._queued)

    def fail(self, error: errors.PermissionsViolationError) -> None:
        """End it: the server refused it."""
        if self._receiver is not None:
            self._receiver.ended(error)

    def close(self) -> None:
        """Unsubscribe, and take the request back if it still waits here. Synchronous, idempotent."""
        if self._registration is not None:
            if self._queued is not None:
                self._engine.outbox.withdraw(self._queued)
            self._engine.unsubscribe(self._registration)
            # Each knows the other: no circle for the garbage collector.
            self._registration = self._receiver = None
            self._supervisor.wake()
        self._requests.untrack(self)

    # What both receivers say.

    def nobody(self) -> Exception:
        """Make the error for a request that nobody listens to."""
        return no_responders(self.subject)

    def refused(self, why: Refusal) -> Exception:
        """Make the error for a request or an inbox that the server refused."""
        return refusal_of(self.what, why)

    def disconnected(self, reason: Exception) -> Exception:
        """Make the error for a request whose replies may have been lost with the connection."""
        text = f"{self.what}: the connection was lost while replies were awaited: {reason}"
        return errors.explained(errors.DisconnectedError, text, sent=True)


class ReplyCollector:
    """The replies to one request, in a list, for the one task that waits for them."""

    def __init__(self, many_request: ManyRequest, requests: Requests, policy: ReplyPolicy) -> None:
        self._many_request = many_request
        self._requests = requests
        self._policy = policy
        self._messages: list[Msg] = []
        self._bytes = 0
        self._done = False
        self._error: BaseException | None = None
        self._task: trio.lowlevel.Task | None = None
        self._timer: Timer | None = None

    async def wait(self) -> list[Msg]:
        """Wait until there are enough of them.

        Returns:
            The replies: when the deadline in force comes first, those that have come until then.
        """
        self._look_again_at(self._policy.ends)
        if self._done:
            await checkpoint()
        else:
            await self._park(trio.current_effective_deadline())
        if self._error is not None:
            try:
                raise self._error
            finally:
                # Its traceback knows us: no circle for the garbage collector.
                self._error = None
        return self._messages

    @property
    def done(self) -> bool:
        """Whether `wait` will return or raise at once."""
        return self._done

    def close(self) -> None:
        """Take no more replies. Synchronous, idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._many_request.close()

    # The receiver of the replies, called by the reader.

    def deliver(self, message: Msg) -> None:
        """Take a reply."""
        if self._done:
            return
        try:
            disposition = self._policy.received(message, trio.current_time())
        except Exception as bug:
            self._finish(bug)
            return
        if disposition is Disposition.NOBODY:
            self._finish(self._many_request.nobody())
            return
        if disposition is not Disposition.OVER:
            self._messages.append(message)
            self._bytes += message.size
        if disposition is not Disposition.KEEP:
            self._finish()
        elif len(self._messages) > MOST_REPLIES or self._bytes > MOST_BYTES:
            self._finish(self._too_many())
        else:
            self._look_again_at(self._policy.ends)

    def connection_lost(self, reason: Exception) -> None:
        """Fail a request that was sent; one that was not waits for the next connection."""
        if self._many_request.in_flight:
            self._finish(self._many_request.disconnected(reason))

    def connection_restored(self) -> None:
        """Nothing to do: the inbox is replayed, and the request still waits behind it."""

    def ended(self, reason: BaseException | None) -> None:
        """Finish: nothing more will come."""
        if self._done:
            return
        if isinstance(reason, REFUSALS):
            self._finish(self._many_request.refused(reason))
        else:
            why = "the client was closed" if reason is None else str(reason)
            error = errors.explained(errors.ConnectionClosedError, f"{self._many_request.what}: {why}")
            error.__cause__ = reason
            self._finish(error)

    # Inside.

    def _look_again_at(self, when: float) -> None:
        """See to it that the time is looked at when it may be over: once for many replies, which only put it off."""
        if self._timer is not None:
            if when >= self._timer.when:
                return
            self._timer.cancel()
        self._timer = None if when == math.inf else self._requests.call_at(when, self._time_came)

    def _time_came(self) -> None:
        self._timer = None
        if trio.current_time() >= self._policy.ends:
            self._finish()
        else:
            self._look_again_at(self._policy.ends)

    def _finish(self, error: BaseException | None = None) -> None:
        if self._done:
            return
        self._done = True
        self._error = error
        self.close()
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def _park(self, deadline: float) -> None:
        self._task = task = trio.lowlevel.current_task()

        def abort(_: Callable[[], Any]) -> Abort:
            self._task = None
            if trio.current_time() < deadline:
                return Abort.SUCCEEDED
            # The time that the caller gave has passed, and what came in it is what was asked for. The next checkpoint of
            # the same scope will be cancelled.
            self._finish()
            trio.lowlevel.reschedule(task)
            return Abort.FAILED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _too_many(self) -> Exception:
        text = (
            f"{self._many_request.what}: more than {MOST_REPLIES} replies or {MOST_BYTES} bytes of them; "
            "set max_msgs, or take them one by one with open_replies"
        )
        return errors.explained(
            errors.SlowConsumerError,
            text,
            subject=self._many_request.subject,
            reply=self._many_request.inbox,
            sid=0,
            sub=None,
        )
