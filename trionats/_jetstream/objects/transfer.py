"""One transfer into a bucket: its messages, which step waits for what, and when it fails because nothing moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from trionats import errors
from trionats._jetstream.idle import IDLE_LIMIT, idle_error
from trionats._jetstream.publishing.destination import bucket_destination
from trionats._jetstream.publishing.publish import publish_ack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trionats import api
    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._core.requests import PendingReply
    from trionats._jetstream.api import Api
    from trionats._protocol.commands import Payload

__all__ = ["Transfer"]


@final
class Transfer:
    """What is published under one subject of a bucket, each message of it a request for an acknowledgement.

    Args:
        jetstream: Where the bucket is.
        stream: The bucket's stream.
        subject: The subject.
        doing: The transfer, for the text of exceptions.
    """

    def __init__(self, jetstream: Api[Publishing], stream: str, subject: str, doing: str) -> None:
        # A transfer has a limit for standing still, and none for a reply.
        self._connection = jetstream.connection.with_request_timeout(None)
        self._destination = bucket_destination(jetstream, stream, subject, doing)
        self._subject = subject
        self.doing = doing

    def send_nowait(self, data: Payload, headers: Mapping[str, str] | None = None) -> PendingReply:
        """Queue a message.

        Raises:
            trio.WouldBlock: Too much is queued.
            nats.errors.Error: As for `Client.request_nowait`.
        """
        return self._connection.request_nowait(self._subject, data, headers, chooser=self._destination.chooser())

    def leave(self, reply: PendingReply, then: Callable[[Msg | Exception], None]) -> bool:
        """Wait no longer for a reply, as `Publishing.leave` says."""
        return self._connection.leave(reply, then)

    async def wait_writable(self) -> None:
        """Wait until one more message can be queued.

        Raises:
            trionats.errors.TimeoutError: It could not for `IDLE_LIMIT` seconds.
        """
        with trio.move_on_after(IDLE_LIMIT):
            await self._connection.wait_writable()
            return
        raise idle_error(self.doing)

    async def wait_reply(self, reply: PendingReply) -> Msg:
        """Wait for the reply to a message. One that has come is given at once, without a checkpoint.

        Raises:
            nats.errors.NoRespondersError: Nobody is listening.
            trionats.errors.TimeoutError: None came for `IDLE_LIMIT` seconds.
            nats.errors.Error: As for any request; the text says what was being done.
        """
        try:
            if reply.done:
                return self._taken(reply)
            with trio.move_on_after(IDLE_LIMIT):
                return await reply.wait()
        except errors.NoRespondersError:
            raise
        except errors.Error as error:
            raise errors.explained(type(error), f"{self.doing}: {error}", **vars(error)) from error
        raise idle_error(self.doing)

    def _taken(self, reply: PendingReply) -> Msg:
        outcomes: list[Msg | Exception] = []
        self._connection.leave(reply, outcomes.append)
        [outcome] = outcomes
        if isinstance(outcome, Exception):
            raise errors.again(outcome)
        return outcome

    def ack(self, reply: Msg) -> api.PubAck:
        """Read a reply as the stream's acknowledgement.

        Raises:
            trionats.errors.APIError: The stream refused the message, or what replied is no stream.
        """
        return publish_ack(self._destination.doing, reply.data)
