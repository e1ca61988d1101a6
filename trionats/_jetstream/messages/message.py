"""A message of a stream, delivered by a consumer: it can be acknowledged.

Who delivered it is a `Deliverer` (`deliverers`), one object for all messages of one life of a consumer.

The server confirms what it does not understand, and what it ignores. So what may be said of a message is decided here
(`Standing`, of `_protocol.jetstream.acks`): one final verdict, which is noted before it is queued and taken back where
nothing was queued. One look at two attributes is all that an acknowledgement costs beside its publish.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Final, Never, final

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import api, errors
from trionats._core.message import Msg
from trionats._jetstream.messages.next_message import NextMessage
from trionats._jetstream.messages.processing import Processing
from trionats._protocol import fields
from trionats._protocol.jetstream.acks import (
    ACK,
    IN_PROGRESS,
    Standing,
    Verdict,
    exception_kinds,
    nak_body,
    parse_ack_subject,
    term_body,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from trionats._jetstream.messages.deliverers import Deliverer
    from trionats._protocol.commands import Payload
    from trionats._protocol.jetstream.acks import AckSubject

__all__ = ["JetStreamMsg"]

OPEN: Final = Standing.OPEN
ACKED: Final = Standing.ACKED
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@final
class JetStreamMsg(Msg):
    """A message of a stream, as a consumer delivered it.

    It gets one final verdict: `ack`, `ack_sync`, `ack_next`, `nak` or `term`. Each that comes after it raises
    `nats.errors.MsgAlreadyAckdError`, since the server would confirm it and do nothing. `in_progress` is none and may be
    repeated. One that gets none is delivered again after the consumer's `ack_wait`.

    What `ack`, `nak`, `in_progress` and `term` queue is sent like a publish: in batches, also when the client is left at once.
    That it arrived is known after `ack_sync` only.

    None of them can be sent for a consumer that takes no acknowledgements (`ack_policy="none"`, ordered consumers), nor once the
    consumer was deleted, made anew or reset through the same context, since the acknowledgement could settle another message:
    then each raises `nats.errors.Error`.

    Attributes:
        due: The time of Trio's clock at which the server delivers the message again unless it is acknowledged or kept in
            progress; infinite where that is not known.
    """

    __slots__ = ("_deliverer", "_metadata", "_standing", "due")

    if TYPE_CHECKING:
        _metadata: api.MsgMetadata

    def __init__(self, message: Msg, deliverer: Deliverer, due: float = inf) -> None:
        # Written out: it is done for each message.
        self.sid = message.sid
        self.subject = message.subject
        self.reply = message.reply
        self.data = message.data
        self.header_block = message.header_block
        self.due = due
        self._deliverer = deliverer
        # Published to no subject at all, an acknowledgement would end the connection.
        self._standing = OPEN if message.reply else Standing.UNASKED

    @property
    def metadata(self) -> api.MsgMetadata:
        """What the server says of it: stream, consumer, sequences, how often it was delivered, when it was stored.

        Raises:
            nats.errors.NotJSMessageError: Its reply subject says nothing of the kind.
        """
        # The slot stays empty until someone asks: most messages are never asked, and a store per message counts.
        try:
            return self._metadata
        except AttributeError:
            found = parse_ack_subject(self.reply)
            if found is None:
                text = f"message on {self.subject!r}: its reply subject {self.reply!r} is none of a consumer's"
                raise errors.explained(errors.NotJSMessageError, text) from None
            self._metadata = _metadata_of(found)
            return self._metadata

    # Verdicts.

    async def ack(self) -> None:
        """Acknowledge the message: it is done.

        Queued as `Client.publish` queues: always a cancellation point, and now and then a scheduling point. Cancelled, nothing was
        queued, and the message can still get any verdict.

        Raises:
            nats.errors.MsgAlreadyAckdError: It has got its verdict.
            nats.errors.Error: See `JetStreamMsg`, or as for `Client.publish`.
        """
        # `_queue`, written out: it is done for each message.
        before, deliverer = self._standing, self._deliverer
        if before is not OPEN or deliverer.void or not deliverer.acknowledges:
            self._decide(Verdict.ACK)
        self._standing = ACKED
        try:
            await deliverer.connection.acknowledge(self.reply, ACK)
        except BaseException:
            self._standing = before
            raise

    def ack_nowait(self) -> None:
        """Acknowledge the message without waiting for room, as `ack` does.

        Raises:
            trio.WouldBlock: The outbox is full.
            nats.errors.Error: As for `ack`.
        """
        self._queue_nowait(Verdict.ACK, ACK)

    @enable_ki_protection
    async def ack_sync(self) -> None:
        """Acknowledge the message, and wait until the server has confirmed it (a double acknowledgement).

        It waits as long as `Client.request` does. Cancelled, timed out or disconnected after it was sent, it is not known
        whether the message is acknowledged. Then it may be acknowledged again, which does no harm, and every other verdict
        raises `nats.errors.MsgAlreadyAckdError`. Where it had not been sent, nothing has happened.

        Raises:
            nats.errors.MsgAlreadyAckdError: It has got its verdict.
            nats.errors.NoRespondersError: There is no such consumer, or nobody leads it at the moment; nothing was
                acknowledged.
            nats.errors.TimeoutError: No confirmation came in time.
            trionats.errors.DisconnectedError: The connection broke after it was sent.
            nats.errors.Error: See `JetStreamMsg`, or as for `Client.request`.
        """
        connection = self._deliverer.connection
        before = self._decide(Verdict.ACK)
        try:
            await connection.wait_writable()
            reply = connection.request_nowait(self.reply, ACK)
        except BaseException:
            self._standing = before
            raise
        try:
            await reply.wait()
        except errors.NoRespondersError:
            self._standing = before
            text = f"ack of {self._what}: its {self._deliverer.consumer} is not there"
            raise errors.explained(errors.NoRespondersError, text) from None
        except BaseException:
            # A confirmation that comes late is one all the same.
            self._standing = Standing.IN_DOUBT
            if not connection.leave(reply, self._confirmed):
                self._standing = before
            raise

    @enable_ki_protection
    async def ack_next(self, expires: float = 5.0) -> JetStreamMsg | None:
        """Acknowledge the message and ask its consumer for the next one, in one (`+NXT`); for pull consumers.

        Always a checkpoint. Cancelled before anything was queued, nothing has happened. Cancelled later, or failed, the message may
        have been acknowledged, as for `ack_sync`; a next message that still comes is given back, unless the consumer
        limits deliveries.

        Args:
            expires: How many seconds the server waits for a next message, more than 0; less where the deadline in force
                ends earlier.

        Returns:
            The next message, which has no part in a feed; None where none came.

        Raises:
            nats.errors.MsgAlreadyAckdError: It has got its verdict.
            nats.errors.NotFoundError: The consumer is gone.
            trionats.errors.DisconnectedError: The connection broke before a message came.
            nats.errors.Error: The consumer cannot be asked in this way: it is a push consumer, has priority groups, or
                limits `expires`. See also `JetStreamMsg`.
            TypeError: `expires` is no number.
            ValueError: It is none that could be meant.
        """
        fields.check_argument("ack_next", "expires", float, expires)
        if not expires > 0:
            raise ValueError(f"ack_next: expires is {expires}: it must be more than 0 seconds")
        deliverer = self._deliverer
        before = self._decide(Verdict.ACK)
        try:
            await deliverer.connection.wait_writable()
            following = NextMessage(deliverer, f"ack_next of {self._what}")
            following.ask(self.reply, expires)
        except BaseException:
            self._standing = before
            raise
        try:
            found = await following.wait()
        except BaseException:
            self._standing = Standing.IN_DOUBT
            raise
        finally:
            following.close()
        return (
            None if found is None else JetStreamMsg(found, deliverer, deliverer.due(found.reply, trio.current_time()))
        )

    async def nak(self, delay: float | None = None) -> None:
        """Give the message back: it is delivered again, to whoever comes first. Waits as `ack` does.

        Args:
            delay: After how many seconds; None for at once.

        Raises:
            nats.errors.MsgAlreadyAckdError: It has got its verdict.
            nats.errors.Error: As for `ack`.
            TypeError: `delay` is no number.
            ValueError: It is negative, or too large.
        """
        await self._queue(Verdict.NAK, nak_body(delay))

    def nak_nowait(self, delay: float | None = None) -> None:
        """Give the message back without waiting for room, as `nak` does.

        Args:
            delay: After how many seconds; None for at once.

        Raises:
            trio.WouldBlock: The outbox is full.
            nats.errors.Error: As for `nak`, and so are the other exceptions.
        """
        self._queue_nowait(Verdict.NAK, nak_body(delay))

    async def in_progress(self) -> None:
        """Say that it is worked on: the ack wait begins anew. May be repeated; waits as `ack` does. See `processing`.

        Raises:
            nats.errors.MsgAlreadyAckdError: It has got its verdict.
            nats.errors.Error: As for `ack`.
        """
        await self._queue(Verdict.IN_PROGRESS, IN_PROGRESS)
        self._begun_anew()

    def in_progress_nowait(self) -> None:
        """Say that it is worked on without waiting for room, as `in_progress` does.

        Raises:
            trio.WouldBlock: The outbox is full.
            nats.errors.Error: As for `in_progress`.
        """
        self._queue_nowait(Verdict.IN_PROGRESS, IN_PROGRESS)
        self._begun_anew()

    async def term(self, reason: str | None = None) -> None:
        """Give the message up: it is not delivered again, though it was not processed. Waits as `ack` does.

        Args:
            reason: Why, in one printable line of at most 1,024 bytes of UTF-8: it stands in the server's advisory. A server before
                2.10.4 ignores a `term` with a reason.

        Raises:
            nats.errors.MsgAlreadyAckdError: It has got its verdict.
            nats.errors.Error: As for `ack`.
            TypeError: `reason` is no text.
            ValueError: It is not printable, or too long.
        """
        await self._queue(Verdict.TERM, term_body(reason))

    def term_nowait(self, reason: str | None = None) -> None:
        """Give the message up without waiting for room, as `term` does.

        Args:
            reason: As for `term`.

        Raises:
            trio.WouldBlock: The outbox is full.
            nats.errors.Error: As for `term`, and so are the other exceptions.
        """
        self._queue_nowait(Verdict.TERM, term_body(reason))

    def processing(
        self, *, term_on: type[Exception] | tuple[type[Exception], ...] = ()
    ) -> AbstractAsyncContextManager[None]:
        """Work on the message in the block that this gives: `async with msg.processing():`.

        While the block lasts, the message is kept in progress: the connection says so to the server at half the consumer's ack
        wait, without a task (each 10 s where the ack wait is not known, as with `bind=True`; the server's default is 30 s).
        At the end it is acknowledged as with `ack`. Where the block raises, it is terminated if the exception is one of `term_on`, with
        the name of its class as the reason, and else given back at once: so also when the block is cancelled, and then without
        waiting for anything. The exception goes on in each case.

        If the block has given a verdict of its own, nothing more is sent. Cancelled between the block's end and its acknowledgement,
        the message is acknowledged all the same: what was to be done was done.

        Entering sends nothing and is a checkpoint; leaving is one unless the block has raised.

        Args:
            term_on: Exceptions after which another delivery would not help. A group counts if all that is in it does.

        Returns:
            An async context manager.

        Raises:
            nats.errors.MsgAlreadyAckdError: On entering: it has got its verdict.
            nats.errors.Error: On entering or leaving: see `JetStreamMsg`. On leaving: as for `ack`.
            TypeError: `term_on` is no class of exceptions, nor a tuple of some.
        """
        return Processing(self, self._deliverer.connection, self._deliverer.wait(self.reply), exception_kinds(term_on))

    # Its reply subject is the server's.

    async def respond(
        self, payload: Payload = b"", *, headers: Mapping[str, str | Sequence[str]] | None = None
    ) -> Never:
        """Refuse: the reply subject of a message of a stream takes acknowledgements, and would take any reply for one.

        Raises:
            nats.errors.Error: Always.
        """
        self._deliverer.connection.pace.run.check()
        await checkpoint()
        raise self._no_reply()

    def respond_nowait(
        self, payload: Payload = b"", *, headers: Mapping[str, str | Sequence[str]] | None = None
    ) -> Never:
        """Refuse, as `respond` does.

        Raises:
            nats.errors.Error: Always.
        """
        self._deliverer.connection.pace.run.check()
        raise self._no_reply()

    # What scopes and feeds use.

    def __check__(self) -> None:
        """Raise where nothing can be said of it any more."""
        self._decide(Verdict.IN_PROGRESS)

    def __standing__(self) -> Standing:
        """Say what was said of it so far."""
        return self._standing

    @enable_ki_protection
    def __say__(self, verdict: Verdict, body: bytes) -> bool:
        """Say something of it without anybody's asking, whether there is room or not.

        Args:
            verdict: What is said.
            body: How.

        Returns:
            Whether it might be said.
        """
        deliverer, after = self._deliverer, self._standing.after(verdict)
        if after is None or deliverer.void or not deliverer.acknowledges:
            return False
        self._standing = after
        deliverer.connection.acknowledge_aside(self.reply, body)
        return True

    # Inside.

    @property
    def _what(self) -> str:
        return f"message on {self.subject!r}"

    def _no_reply(self) -> errors.Error:
        text = f"{self._what} was delivered by {self._deliverer.consumer}: it takes ack, nak or term, and no response"
        return errors.explained(errors.Error, text)

    def _decide(self, verdict: Verdict) -> Standing:
        """Note a verdict that is about to be sent, or refuse it; give what stood before."""
        before, deliverer = self._standing, self._deliverer
        if not deliverer.acknowledges:
            text = f"{self._what}: its {deliverer.consumer} takes no acknowledgements (ack_policy 'none')"
            raise errors.explained(errors.Error, text)
        if deliverer.void:
            raise errors.explained(errors.Error, f"{self._what}: its {deliverer.consumer} {deliverer.void}")
        after = before.after(verdict)
        if after is None:
            kind = errors.NotJSMessageError if before is Standing.UNASKED else errors.MsgAlreadyAckdError
            raise errors.explained(kind, f"{self._what} {before.value}")
        self._standing = after
        return before

    @enable_ki_protection
    async def _queue(self, verdict: Verdict, body: bytes) -> None:
        before = self._decide(verdict)
        try:
            await self._deliverer.connection.acknowledge(self.reply, body)
        except BaseException:
            # What is not final has noted nothing, and another task may have said something final meanwhile.
            if verdict is not Verdict.IN_PROGRESS:
                self._standing = before
            raise

    @enable_ki_protection
    def _queue_nowait(self, verdict: Verdict, body: bytes) -> None:
        before = self._decide(verdict)
        try:
            self._deliverer.connection.acknowledge_nowait(self.reply, body)
        except BaseException:
            self._standing = before
            raise

    def _begun_anew(self) -> None:
        """Note that its ack wait begins now."""
        self.due = self._deliverer.due(self.reply, trio.current_time())

    def _confirmed(self, reply: Msg | Exception) -> None:
        if isinstance(reply, Msg) and self._standing is Standing.IN_DOUBT:
            self._standing = ACKED


def _metadata_of(reply: AckSubject) -> api.MsgMetadata:
    return api.MsgMetadata(
        sequence=api.MsgSequence(reply.consumer_sequence, reply.sequence),
        num_pending=reply.pending,
        num_delivered=reply.deliveries,
        timestamp=EPOCH + timedelta(microseconds=reply.timestamp // 1000),
        stream=reply.stream,
        consumer=reply.consumer,
        domain=reply.domain or None,
    )
