"""A message that can be responded to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from trionats import errors
from trionats._protocol.parser import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trionats._protocol.commands import Payload


class Responder(Protocol):
    """Through whom a message is responded to: a client."""

    async def publish(
        self,
        subject: str,
        payload: Payload = b"",
        reply: str = "",
        headers: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        """Publish, as `Client.publish` does."""

    def publish_nowait(
        self,
        subject: str,
        payload: Payload = b"",
        reply: str = "",
        headers: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        """Publish without waiting, as `Client.publish_nowait` does."""


class Msg(Message):
    """A message as it was published.

    Attributes:
        subject: The subject it was published to.
        reply: Where a reply is expected, or an empty string.
        data: The payload.
        sid: The number of the subscription on this connection.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        # Not where the class is read by programs: by its `__module__` this would be `trionats.Responder`.
        _responder: Responder

    async def respond(
        self, payload: Payload = b"", *, headers: Mapping[str, str | Sequence[str]] | None = None
    ) -> None:
        """Publish a reply to the message's reply subject.

        Args:
            payload: The reply.
            headers: Its headers; those of the request are not echoed.

        Raises:
            nats.errors.Error: The message wants no reply, or as for `Client.publish`.
        """
        await self._responder.publish(self._reply_subject(), payload, headers=headers)

    def respond_nowait(
        self, payload: Payload = b"", *, headers: Mapping[str, str | Sequence[str]] | None = None
    ) -> None:
        """Queue a reply to the message's reply subject, without waiting.

        Args:
            payload: The reply.
            headers: Its headers; those of the request are not echoed.

        Raises:
            trio.WouldBlock: The outbox is full.
            nats.errors.Error: The message wants no reply, or as for `Client.publish`.
        """
        self._responder.publish_nowait(self._reply_subject(), payload, headers=headers)

    def _reply_subject(self) -> str:
        if not self.reply:
            raise errors.Error(f"message on {self.subject!r} has no reply subject to respond to")
        return self.reply


def messages_of(responder: Responder) -> type[Msg]:
    """Make the class of one client's messages, which know through whom they are responded to (design 34).

    A class rather than an attribute that is set on each message: most get no reply, and a store per message counts.
    """
    made = type("Msg", (Msg,), {"__slots__": (), "__module__": "trionats", "_responder": responder})
    assert issubclass(made, Msg)
    return made
