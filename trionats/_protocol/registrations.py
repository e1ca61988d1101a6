"""What an engine has of each subscription: what was subscribed, how much has come, who takes it.

A subscription is what a server is told of, and what programs have, as a feed; its registration stands in the engine's table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trionats._protocol import commands

if TYPE_CHECKING:
    from trionats._protocol.receivers import Receiver

__all__ = ["Registration", "name_of"]


class Registration:
    """One subscription, as a server is told of it.

    Attributes:
        for_replies: Whether it is an inbox for replies to what we asked: a drain lets it be until the end.
        retired: Whether the server was told that no more is wanted, and what it has sent already still comes.
    """

    __slots__ = ("deliver", "delivered", "for_replies", "max_msgs", "queue", "receiver", "retired", "sid", "subject")

    def __init__(self, sid: int, subject: bytes, queue: bytes, max_msgs: int, receiver: Receiver[Any]) -> None:
        self.sid = sid
        self.subject = subject
        self.queue = queue
        self.max_msgs = max_msgs
        self.receiver = receiver
        self.deliver = receiver.deliver
        self.delivered = 0
        self.for_replies = False
        self.retired = False

    def frames(self) -> bytes:
        """What tells a server of it: SUB, and UNSUB with what is left of the count."""
        frames = commands.sub(self.subject, self.queue, self.sid)
        if self.max_msgs:
            frames += commands.unsub(self.sid, self.max_msgs - self.delivered)
        return frames


def name_of(subject: bytes, queue: bytes) -> bytes:
    """Make the one text by which a registration is found that the server names."""
    # Neither holds a space.
    return b"%b %b" % (subject, queue) if queue else subject
