"""One row of an engine's table of subscriptions, and who takes its messages."""

from __future__ import annotations

from typing import Any, Protocol

from trionats._protocol import commands

__all__ = ["Receiver", "Subscription", "name_of"]


class Receiver(Protocol):
    """What takes the messages of one subscription; called from the reader, so total and never waiting."""

    def deliver(self, message: Any, /) -> None:  # noqa: ANN401 - of the type that the engine was made for
        """Take one message."""

    def connection_lost(self, reason: Exception) -> None:
        """Know that the connection broke; the subscription stays."""

    def connection_restored(self) -> None:
        """Know that the connection is back and the subscription replayed."""

    def ended(self, reason: BaseException | None) -> None:
        """Know that nothing will come any more: None on purpose, else why."""


class Subscription:
    """One row of the table: what was subscribed, how much has come, who takes it."""

    __slots__ = ("answers", "deliver", "delivered", "max_msgs", "queue", "receiver", "retired", "sid", "subject")

    def __init__(self, sid: int, subject: bytes, queue: bytes, max_msgs: int, receiver: Receiver) -> None:
        self.sid = sid
        self.subject = subject
        self.queue = queue
        self.max_msgs = max_msgs
        self.receiver = receiver
        self.deliver = receiver.deliver
        self.delivered = 0
        self.answers = False
        """Whether it is for answers to what we asked: a drain lets it be until the end."""
        self.retired = False
        """Whether the server was told that no more is wanted, and what it has sent already still comes."""

    def frames(self) -> bytes:
        """What tells a server of it: SUB, and UNSUB with what is left of the count."""
        frames = commands.sub(self.subject, self.queue, self.sid)
        if self.max_msgs:
            frames += commands.unsub(self.sid, self.max_msgs - self.delivered)
        return frames


def name_of(subject: bytes, queue: bytes) -> bytes:
    """Make the one text by which a subscription is found that the server names."""
    # Neither holds a space.
    return b"%b %b" % (subject, queue) if queue else subject
