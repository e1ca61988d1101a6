"""A message that can be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, final

from trionats import errors
from trionats._protocol.parser import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trionats._client import Client
    from trionats._protocol.commands import Payload


@final
class Msg(Message):
    """A message as it was published.

    Attributes:
        subject: The subject it was published to.
        reply: Where an answer is expected, or an empty string.
        data: The payload.
        sid: The number of the subscription on this connection.
    """

    __slots__ = ()

    _client: Client

    async def respond(
        self, payload: Payload = b"", *, headers: Mapping[str, str | Sequence[str]] | None = None
    ) -> None:
        """Publish an answer to the message's reply subject.

        Args:
            payload: The answer.
            headers: Its headers; those of the request are not echoed.

        Raises:
            nats.errors.Error: The message wants no answer, or as for `Client.publish`.
        """
        await self._client.publish(self._reply_subject(), payload, headers=headers)

    def respond_nowait(
        self, payload: Payload = b"", *, headers: Mapping[str, str | Sequence[str]] | None = None
    ) -> None:
        """Queue an answer to the message's reply subject, without waiting.

        Args:
            payload: The answer.
            headers: Its headers; those of the request are not echoed.

        Raises:
            trio.WouldBlock: The outbox is full.
            nats.errors.Error: The message wants no answer, or as for `Client.publish`.
        """
        self._client.publish_nowait(self._reply_subject(), payload, headers=headers)

    def _reply_subject(self) -> str:
        if not self.reply:
            raise errors.Error(f"message on {self.subject!r} has no reply subject to respond to")
        return self.reply


def messages_of(client: Client) -> type[Msg]:
    """Make the class of one client's messages, which know through whom they are answered.

    A class rather than an attribute that is set on each message: most are never answered, and a store per message counts.
    """
    return cast("type[Msg]", type("Msg", (Msg,), {"__slots__": (), "__module__": "trionats", "_client": client}))
