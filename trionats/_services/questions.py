"""What a service is asked by everybody: PING, INFO and STATS (ADR-32), on three subjects each, and in no queue group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from trionats import errors, events
from trionats._core.message import Msg
from trionats._feeds.bounded import BoundedFeed
from trionats._protocol.receivers import Intake
from trionats._protocol.server_errors import REFUSALS, refusal_of
from trionats._protocol.services.words import PREFIX, VERBS, control_subject

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._core.attachments import Attachment
    from trionats._core.connection import Connection

__all__ = ["Questions"]

#: How many questions may wait, in messages and bytes; more are left out, and told.
PENDING: Final = 4096
PENDING_BYTES: Final = 1024 * 1024


@final
class Questions(BoundedFeed[Msg]):
    """The questions to one service, which its own task answers.

    Args:
        connection: Through what they come.
        service: The service's name.
        instance: Its id.
        answer: Gives the answer to a verb.
        over: Called when nothing more comes: None on purpose, else why.
    """

    def __init__(
        self,
        connection: Connection,
        service: str,
        instance: str,
        answer: Callable[[str], bytes],
        over: Callable[[BaseException | None], None],
    ) -> None:
        limits: Any = PENDING, PENDING_BYTES, "drop_new"
        super().__init__(f"service {service!r}", connection, f"{PREFIX}.>", *limits)
        self._connection = connection
        self._service, self._instance = service, instance
        self._answer, self._over = answer, over
        self._attachments: list[Attachment] = []
        self._refusal: errors.Error | None = None
        self._stopping = False

    # A drain waits for what it is asked, and not for it.
    _outlasts = True

    def attach(self) -> None:
        """Subscribe to all that it may be asked."""
        levels = (), (self._service,), (self._service, self._instance)
        for subject in [control_subject(verb, *level) for verb in VERBS for level in levels]:
            self._attachments.append(self._connection.attach(subject, Intake(self._deliver, self._ended_one)))

    async def confirm(self) -> None:
        """Wait until the server has the subscriptions.

        Raises:
            nats.errors.Error: It refuses one, or says nothing, or the client was lost.
        """
        await self._connection.confirm(self._name)
        if self._failure is not None:
            raise self._why()
        if self._refusal is not None:
            raise errors.again(self._refusal)

    def retire(self) -> None:
        """Be asked no more, but answer what was asked before the server knew. Synchronous and idempotent."""
        self._stopping = True
        for attachment in self._attachments:
            attachment.retire()

    async def respond(self) -> None:
        """Answer, one question after the other, and no faster than the server takes it."""
        supervisor = self._connection.supervisor
        while True:
            question = await self._receive.receive()
            self._taken(question)
            if not question.reply:
                continue
            try:
                if not supervisor.has_room:
                    await supervisor.wait_room()
            except errors.OutboundBufferLimitError:
                continue  # whoever asked does not wait until there is a connection again
            self._respond_to(question)

    def _respond_to(self, question: Msg) -> None:
        verb = question.subject.split(".")[1]
        try:
            self._connection.respond_aside(question.reply, self._answer(verb))
        except errors.MaxPayloadError as error:
            self._connection.emit(events.HandlerFailed(self._service, verb, error))

    def _ended_one(self, reason: BaseException | None) -> None:
        if isinstance(reason, REFUSALS):
            # What does not concern the requests does not end them; it was told as an event.
            self._refusal = refusal_of(self._name, reason)
        elif reason is not None or not (self._stopping and self._connection.accepting):
            self._end(reason)

    def _measure(self, message: Msg) -> int:
        return message.size

    def _slowed(self, message: Msg) -> None:
        self._connection.emit(events.SlowConsumer(message.subject, self._dropped))

    def _undo(self) -> None:
        for attachment in self._attachments:
            attachment.detach()
        self._attachments.clear()
        self._over(self._failure)
