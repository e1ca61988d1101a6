"""What comes for an acknowledgement that asks for the next message (`+NXT`): one message, or a status that says why none does.

It comes to an inbox of its own, since messages keep their subject. What comes when nobody waits for it any more is given back, until
the server has seen that we are gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from trionats import errors
from trionats._jetstream.messages.giving_back import leave
from trionats._protocol.jetstream.acks import NextReply, judge_next, next_body
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    from trionats._core.message import Msg
    from trionats._jetstream.messages.deliverers import Deliverer

__all__ = ["NextMessage"]

#: How many seconds before the deadline in force the server is told to end, so that its word comes in time.
MARGIN: Final = 0.1
#: How many seconds longer than the server we wait for its word that nothing came.
PATIENCE: Final = 2.0


@final
class NextMessage:
    """The next message of one consumer, asked for once.

    Args:
        deliverer: Who is asked.
        doing: What is done, for texts: "ack_next of message on 's.a'".
    """

    ignores_repeats = False

    def __init__(self, deliverer: Deliverer, doing: str) -> None:
        self._deliverer, self._doing = deliverer, doing
        self._happened = trio.Event()
        self._message: Msg | None = None
        self._error: errors.Error | None = None
        self._until = 0.0
        self._inbox = deliverer.connection.new_inbox()
        self._attachment = deliverer.connection.attach(self._inbox, self, max_msgs=1)

    def ask(self, reply: str, expires: float) -> None:
        """Acknowledge, and ask.

        Args:
            reply: The reply subject of the message that is acknowledged.
            expires: How many seconds the server waits at the most.
        """
        now = trio.current_time()
        # Half of what is left, where that is little.
        left = trio.current_effective_deadline() - now
        expires = min(expires, max(left - MARGIN, left / 2))
        self._until = now + expires + PATIENCE
        try:
            self._deliverer.connection.acknowledge_nowait(reply, next_body(expires), self._inbox)
        except BaseException:
            self._attachment.detach()
            raise

    async def wait(self) -> Msg | None:
        """Wait for it.

        Returns:
            The message; None where none came.

        Raises:
            nats.errors.Error: Nothing can come any more.
        """
        with trio.move_on_at(self._until):
            await self._happened.wait()
        if self._error is not None:
            raise self._error
        message, self._message = self._message, None
        return message

    def close(self) -> None:
        """Wait no longer; a message that nobody was handed is given back. Synchronous."""
        leave(self._attachment, self._deliverer, [] if self._message is None else [self._message])

    # What the reader calls.

    def deliver(self, message: Msg) -> None:
        """Take what came."""
        if message.reply:
            self._message = message
        elif message.status is not None:
            self._judge(message.status, message.description)
        self._happened.set()

    def connection_lost(self, reason: Exception) -> None:
        """Fail: what was asked for does not come over another connection."""
        text = f"{self._doing}: the connection was lost before a message came: {reason}"
        self._fail(errors.explained(errors.DisconnectedError, text))

    def connection_restored(self) -> None:
        """Nothing to do: it has failed."""

    def ended(self, reason: BaseException | None) -> None:
        """Fail, unless it is over."""
        if isinstance(reason, REFUSALS):
            self._fail(refusal_of(self._doing, reason))
        else:
            why = "the client was closed" if reason is None else str(reason)
            self._fail(errors.explained(errors.ConnectionClosedError, f"{self._doing}: {why}"))

    # Inside.

    def _fail(self, error: errors.Error) -> None:
        if not self._happened.is_set():
            self._error = error
            self._happened.set()

    def _judge(self, code: int, description: str) -> None:
        meaning = judge_next(code, description)
        if meaning is NextReply.GONE:
            known = {"code": 404, "err_code": None, "description": description, "seq": None}
            text = f"{self._doing}: its {self._deliverer.consumer} is gone"
            self._fail(errors.explained(errors.ConsumerGoneError, text, **known))
        elif meaning is NextReply.REFUSED:
            self._fail(
                errors.explained(
                    errors.Error, f"{self._doing}: {self._deliverer.consumer} refused: {code} {description}"
                )
            )
