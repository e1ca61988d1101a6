"""What an object store knows of an object: its info, read from and written as a meta message."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from trionats import errors
from trionats._jetstream.destination import bucket_destination
from trionats._jetstream.objects.chunks import IDLE_LIMIT, answer, idle_error, writable
from trionats._jetstream.objects.purging import CLEANUP_LIMIT
from trionats._jetstream.ordered import JITTER, Handed, OrderedSource, Sink
from trionats._jetstream.publish import PUBLISH_RETRIES, PUBLISH_RETRY_WAIT, publish_ack
from trionats._protocol.jetstream.actions import Start
from trionats._protocol.jetstream.objects import expecting, info_bytes, read_info
from trionats._protocol.jetstream.ordered import Ordered
from trionats._protocol.replies import no_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trionats import api
    from trionats._core.foreign import Foreign
    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging, Publishing
    from trionats._core.requests import PendingReply
    from trionats._jetstream.api import Api
    from trionats._protocol.jetstream.acks import AckSubject

#: How often a list begins anew because another stream took the place of the one that was read.
READ_ATTEMPTS = 10
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})


class InfoWrite:
    """One replacement of an object's info, sent once or more often, and what is known of its outcome."""

    def __init__(self, jetstream: Api[Publishing], stream: str, subject: str, doing: str) -> None:
        # As for the chunks.
        self._connection = jetstream.connection.with_request_timeout(None)
        self._subject = subject
        self._doing = doing
        self._destination = bucket_destination(jetstream, stream, subject, doing)
        self.revision: int | None = None
        """The sequence under which it was stored; None unless that is known."""
        self._under_way = False
        self._lost = False
        # Another domain may have refused it, and the one that was meant have stored it, or do so when it is awake again.
        self._disputed = False
        self._looks = 0
        self._reply: PendingReply | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether it may have been stored without our knowing: a refusal says nothing of what was sent and lost before."""
        return self.revision is None and (self._under_way or self._lost or self._disputed)

    def is_not_stored(self) -> None:
        """Know that it is not, and will not be: somebody else's stands in its place."""
        self._under_way = self._lost = self._disputed = False

    def is_unchanged(self) -> None:
        """Know that the stream itself says that nothing has changed, some time after it was refused."""
        self._looks += 1
        if self._looks > 1:
            self._disputed = False

    async def send(self, info: api.ObjectInfo, expected: int) -> int:
        """Store `info` if the last one is that of the sequence `expected`.

        Returns:
            The new sequence.
        """
        headers = expecting(expected)
        data = info_bytes(info)
        for attempt in range(PUBLISH_RETRIES + 1):
            if attempt:
                await trio.sleep(PUBLISH_RETRY_WAIT)
            self.close()
            self._reply = await self._queue(data, headers)
            try:
                return self._stored(await self._answer(self._reply))
            except errors.NoRespondersError:
                self._under_way = False
        raise no_stream(self._doing)

    def close(self) -> None:
        """Forget what was sent. Synchronous, idempotent."""
        if self._reply is not None:
            self._reply.close()
            self._reply = None

    def leave(self, stored: Callable[[], object], refused: Callable[[], object]) -> None:
        """Wait no longer, and call one of two callbacks if it still becomes known what happened to it. Synchronous.

        Args:
            stored: Called when it was stored.
            refused: Called when it was not, and will not be.
        """

        def told(outcome: Msg | Exception) -> None:
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                publish_ack(self._destination.doing, outcome)
            except (errors.NoRespondersError, errors.APIError):
                # What was sent and lost before may have been stored all the same.
                if not (self._lost or self._disputed):
                    refused()
            except errors.Error:
                pass  # nobody will ever know
            else:
                stored()

        reply, self._reply = self._reply, None
        if reply is not None and not self._connection.leave(reply, told) and not (self._lost or self._disputed):
            refused()

    async def _queue(self, data: bytes, headers: Mapping[str, str]) -> PendingReply:
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                reply = self._connection.request_nowait(
                    self._subject, data, headers, chooser=self._destination.chooser()
                )
            except trio.WouldBlock:
                await writable(self._connection, self._doing)
                continue
            self._lost = self._lost or self._under_way
            self._under_way = True
            return reply

    async def _answer(self, reply: PendingReply) -> Msg:
        try:
            return await answer(reply, self._doing)
        except trio.Cancelled:
            # It is under way: whether the chunks are to stay depends on what becomes of it.
            with trio.move_on_after(CLEANUP_LIMIT, shield=True):
                try:
                    self._stored(await reply.wait())
                except errors.NoRespondersError:
                    self._under_way = False
                except errors.Error:
                    pass
            raise

    def _stored(self, msg: Msg) -> int:
        self._under_way = False
        self._disputed = self._disputed or (self._reply is not None and self._reply.given_up)
        try:
            self.revision = publish_ack(self._destination.doing, msg).seq
        except errors.APIError as error:
            if error.err_code not in WRONG_LAST_SEQUENCE:
                raise
            text = f"{self._doing}: somebody else changed it at the same time ({error.description})"
            raise errors.explained(type(error), text, **vars(error)) from None
        return self.revision


async def read_infos(jetstream: Api[Messaging], bucket: str, stream: str, subject: str) -> list[api.ObjectInfo]:
    """Read the last info of every object in a bucket.

    Args:
        jetstream: Where the bucket is.
        bucket: The bucket's name, for texts.
        stream: The stream that holds it.
        subject: The pattern that all infos match.

    Returns:
        The infos, markers of deleted objects included, in the order of their last change.

    Raises:
        nats.errors.Error: As for any question to the JetStream API.
    """
    for _ in range(READ_ATTEMPTS - 1):
        # The stream was made anew, or went back: what was read belongs to no list.
        with suppress(errors.StreamRegressedError):
            return await _read_infos(jetstream, bucket, stream, subject)
    return await _read_infos(jetstream, bucket, stream, subject)


async def _read_infos(jetstream: Api[Messaging], bucket: str, stream: str, subject: str) -> list[api.ObjectInfo]:
    reader = _InfoReader(jetstream.connection.foreign, bucket)
    ordered = Ordered(
        stream,
        jetstream.connection.new_token(),
        JITTER,
        filter_subjects=[subject],
        start=Start("last_per_subject"),
        snapshot=True,
        # An info replaces the one before (`Nats-Rollup`).
        one_per_subject=True,
    )
    reader.source = source = OrderedSource(jetstream, ordered, Sink(reader.take, reader.stored_read))
    try:
        await source.open()
        with reader.patience:
            reader.patience.deadline = trio.current_time() + IDLE_LIMIT
            while not reader.complete:
                await source.step()
    finally:
        source.close()
    if not reader.complete:
        raise idle_error(f"list of bucket {bucket!r}", source.refusal)
    return list(reader.infos.values())


def read_entry(foreign: Foreign, bucket: str, msg: Msg, ack: AckSubject) -> api.ObjectInfo | None:
    """Read one info of many, as lists and watchers do; None for what is to be left out.

    Args:
        foreign: The boundary that it crosses.
        bucket: The bucket, for texts.
        msg: The meta message.
        ack: Its place in the stream.
    """
    where = f"infos of bucket {bucket!r}"
    return foreign.read(
        where, read_info, bucket, msg.data, revision=ack.sequence, stored_at=ack.timestamp, subject=msg.subject
    )


class _InfoReader:
    """Collects infos; what is none is left out, since anybody may write into the bucket's subjects."""

    source: OrderedSource

    def __init__(self, foreign: Foreign, bucket: str) -> None:
        self._foreign = foreign
        self._bucket = bucket
        self.infos: dict[str, api.ObjectInfo] = {}
        self.complete = False
        self.patience = trio.CancelScope()

    def take(self, msg: Msg, ack: AckSubject, size: int) -> Handed:
        """Take an info; a later one of the same subject replaces it."""
        self.patience.deadline = trio.current_time() + IDLE_LIMIT
        self.infos.pop(msg.subject, None)
        info = read_entry(self._foreign, self._bucket, msg, ack)
        if info is not None:
            self.infos[msg.subject] = info
        return Handed.DROPPED

    def stored_read(self) -> None:
        """Know that these were all."""
        self.complete = True
        self.source.wake()
