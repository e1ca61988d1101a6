"""The inbox that the requests of one client share, and who waits for the replies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import trio

from trionats import errors, events
from trionats._core.deadlines import reply_within
from trionats._protocol.index import Index
from trionats._protocol.replies import no_responders, nobody_listens
from trionats._protocol.server_errors import refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._core.message import Msg
    from trionats._core.messaging import Attached, Messaging

__all__ = ["SharedInbox"]


@dataclass(slots=True, eq=False)
class _PendingReply:
    """A request under way."""

    subject: str
    settled: trio.Event = field(default_factory=trio.Event)
    outcome: Msg | Exception | None = None

    def settle(self, outcome: Msg | Exception) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.settled.set()

    def refuse(self, refused: errors.PermissionsViolationError) -> None:
        self.settle(refusal_of(f"request to {self.subject!r}", refused))


@final
class SharedInbox:
    """One subscription for the replies to all requests, from the first of them until `leave`.

    It is the receiver of the replies, and a listener to what the server refuses.

    Args:
        messaging: The connection.
    """

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging
        self._prefix = ""
        self._attachment: Attached | None = None
        self._waiting: dict[str, _PendingReply] = {}
        # By operation and subject, in lower case, as nats-py tells of a refusal.
        self._by_name: Index[tuple[str, str], _PendingReply] = Index()

    @property
    def attached(self) -> bool:
        """Whether it is subscribed."""
        return self._attachment is not None

    async def request(self, subject: str, publish: Callable[[str], None]) -> Msg:
        """Make a request, and wait for its reply: within the deadline in force, or else 5 s.

        Args:
            subject: Where to.
            publish: Publishes the request, given the subject for the reply.
        """
        if self._attachment is None:
            self._prefix = f"{self._messaging.new_inbox()}."
            self._attachment = self._messaging.attach(f"{self._prefix}*", self)
        token = self._messaging.new_token()
        inbox = f"{self._prefix}{token}"
        pending = self._waiting[token] = _PendingReply(subject)
        names = (("publish", subject.lower()), ("reply", inbox.lower()))
        for name in names:
            self._by_name.add(name, pending)
        try:
            publish(inbox)
            with reply_within(None, f"request to {subject!r}"):
                await pending.settled.wait()
        finally:
            del self._waiting[token]
            for name in names:
                self._by_name.remove(name, pending)
        reply = pending.outcome
        assert reply is not None, "woken without a reply"
        if isinstance(reply, Exception):
            raise reply
        if nobody_listens(reply):
            raise no_responders(subject)
        return reply

    def leave(self) -> None:
        """Unsubscribe, unless somebody waits."""
        if not self._waiting:
            self._detach()

    # The receiver of the replies.

    def deliver(self, message: Msg) -> None:
        """Hand a reply to its waiter."""
        pending = self._waiting.get(message.subject.removeprefix(self._prefix))
        if pending is not None:
            pending.settle(message)

    def connection_lost(self, reason: Exception) -> None:
        """Fail the requests under way."""
        for pending in self._waiting.values():
            pending.settle(errors.again(reason))

    def connection_restored(self) -> None:
        """Nothing to do: nobody waits for what was lost."""

    def ended(self, reason: BaseException | None) -> None:
        """Fail the requests under way, and leave: the client is closed, or the server refused the inbox."""
        for pending in self._waiting.values():
            if isinstance(reason, errors.PermissionsViolationError):
                pending.refuse(reason)
                continue
            text = f"request to {pending.subject!r}: nats-py's client was closed while a reply was awaited"
            error = errors.explained(errors.ConnectionClosedError, text)
            error.__cause__ = reason
            pending.settle(error)
        self._detach()

    # The listener to what the server refuses.

    def push(self, event: events.ConnectionEvent) -> None:
        """Fail the requests that the server has refused to pass on, or whose replies it would refuse."""
        if isinstance(event, events.PermissionViolation):
            for pending in self._by_name.find((event.error.operation, event.error.subject.lower())):
                pending.refuse(event.error)

    def end(self, reason: BaseException | None) -> None:
        """Nothing to do: `ended` has been called."""

    # Inside.

    def _detach(self) -> None:
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.detach()
