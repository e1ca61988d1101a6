"""A message of a stream, delivered by a consumer: it can be acknowledged.

Who delivered it is a `Deliverer`, one object for all messages of one life of a consumer: when that life is over (it was
deleted, made anew, or reset), one store makes all of its messages void, so that no acknowledgement of theirs settles
another message.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, final

from trionats import errors
from trionats._core.message import Msg

if TYPE_CHECKING:
    from datetime import datetime

    from trionats._core.messaging import Publishing

__all__ = ["Deliverer", "JetStreamMsg"]

ACK = b"+ACK"


@final
class Deliverer:
    """A consumer, as far as the messages need to know it that it delivered.

    Args:
        connection: What acknowledgements are sent over.
        consumer: The consumer, for texts: "consumer 'C' of stream 'S'".
        ack_wait: After how many seconds without acknowledgement the server delivers a message again; infinite where it never
            does so, or where that is not known.
        acknowledges: Whether the consumer takes acknowledgements at all.
    """

    __slots__ = ("__weakref__", "ack_wait", "acknowledges", "connection", "consumer", "created", "void")

    def __init__(
        self, connection: Publishing, consumer: str, *, ack_wait: float = inf, acknowledges: bool = True
    ) -> None:
        self.connection = connection
        self.consumer = consumer
        self.ack_wait = ack_wait
        self.acknowledges = acknowledges
        self.created: datetime | None = None
        """When this life of the consumer began; None where the server was not asked."""
        self.void = ""
        """Why its messages must not be acknowledged any more: "was reset"; an empty string while they may."""


@final
class JetStreamMsg(Msg):
    """A message of a stream, as a consumer delivered it."""

    __slots__ = ("_deliverer", "_verdict")

    def __init__(self, message: Msg, deliverer: Deliverer) -> None:
        # Written out: it is done for each message.
        self.sid = message.sid
        self.subject = message.subject
        self.reply = message.reply
        self.data = message.data
        self.header_block = message.header_block
        self._deliverer = deliverer
        self._verdict: bytes | None = None

    async def ack(self) -> None:
        """Acknowledge the message: it is done."""
        self._check(ACK)
        self._verdict = ACK
        try:
            await self._deliverer.connection.acknowledge(self.reply, ACK)
        except BaseException:
            self._verdict = None
            raise

    def _check(self, verdict: bytes) -> None:
        if self._verdict is not None:
            raise errors.MsgAlreadyAckdError(self)
        if self._deliverer.void:
            text = f"message on {self.subject!r}: its {self._deliverer.consumer} {self._deliverer.void}"
            raise errors.explained(errors.Error, text)
