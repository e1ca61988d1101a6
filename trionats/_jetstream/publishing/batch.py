"""An atomic batch: several messages of which a stream stores all or none (ADR-50, design 103)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Unpack, final

from trio.lowlevel import checkpoint, enable_ki_protection

from trionats._jetstream.publishing.publish import asked_for, encoded, joined
from trionats._jetstream.publishing.staging import Staging
from trionats._protocol.jetstream.levels import Need
from trionats._protocol.jetstream.publishing.batch import Entry, without_batch
from trionats._protocol.jetstream.publishing.publish import PublishOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from trionats import api
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api

#: What a server must know.
NEED: Final = Need("open_batch()", 2)


@final
class Batch:
    """Several messages of which a stream stores all or none: what `JetStream.open_batch` gives.

    Its calls may be used from any task of the Trio run it was opened in.
    """

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._course = staging.course

    def __repr__(self) -> str:
        if not self._staging.is_left:
            state = "open"
        elif self.committed is None:
            state = "not known whether it is stored"
        else:
            state = "stored" if self.committed else "not stored"
        return f"<Batch {self.id!r} of {self._course.count} messages, {state}>"

    @property
    def id(self) -> str:
        """What its messages have in their `Nats-Batch-Id` header, also when they are stored."""
        return self._course.id

    @property
    def ack(self) -> api.PubAck | None:
        """The stream's acknowledgement: the sequence of the last message, the `batch`, and the `count` of its messages.

        The messages stand one behind the other in the stream. None until they are stored, and for a batch without messages.
        """
        return self._staging.ack

    @property
    def committed(self) -> bool | None:
        """Whether its messages are stored: all of them, or none; None while that is not known, or where it never will be."""
        return self._course.committed

    @enable_ki_protection
    async def publish(
        self,
        subject: str,
        payload: bytes | str = b"",
        *,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        **options: Unpack[PublishOptions],
    ) -> None:
        """Add a message.

        It returns once the message has its place. It is sent when the next one has come, or as the last one when the block is
        left, so what the stream has against it is raised by a later call, or by leaving. Once the stream has refused one of them,
        each call raises that.

        It waits until the stream has taken the first message, and while 256 messages, or 16 MiB, are under way: `request_timeout`
        bounds that wait, or 5 s where nobody chose one and no deadline is in force. Cancelled or refused, the message
        is no part of the batch, which is as before. A cancellation point and a scheduling point as `Client.publish` is.

        Args:
            subject: Where to; the stream of the batch must listen there.
            payload: The message; text is encoded as UTF-8.
            headers: More headers. Where an option says something else than one of them, the option holds. Those of another batch,
                which a message that was stored brings along, are left out.
            options: What the stream is asked for, as `JetStream.publish` takes it. `expected_last_seq` and `rollup="all"` can be
                asked for by the first message only; `expected_last_subject_seq` and `rollup="sub"` only where no message before
                it went to the same subject; `expected_last_msg_id` not at all.

        Raises:
            trionats.errors.BatchError: The stream refused the batch: nothing of it is, or will be, stored.
            trionats.errors.NoStreamResponseError: No stream listens on the subject of one of the messages.
            trionats.errors.DisconnectedError: The connection broke: nothing is, or will be, stored.
            trionats.errors.PermissionsViolationError: The server refused one of the messages, or the inbox.
            nats.errors.TimeoutError: The stream did not take in time what was sent; the message was not added.
            nats.errors.MaxPayloadError: The message is too large; it was not added.
            trio.ClosedResourceError: The block was left.
            TypeError: An argument is of a wrong kind.
            ValueError: An argument cannot be meant, or cannot be asked for in this place.
            nats.errors.Error: As for `Client.publish`.
        """
        staging = self._staging
        staging.pipeline.check_run()
        doing = f"{staging.doing}: publish to {subject!r}"
        asked = asked_for(doing, options, "batch")
        data, fields = encoded(doing, payload), without_batch(joined(doing, headers, asked))
        await staging.add(Entry(subject, data, fields))


@asynccontextmanager
async def batching(jetstream: Api[Publishing]) -> AsyncIterator[Batch]:
    """Open a batch for as long as the block lasts, and commit it at its end, unless that is an exception.

    Args:
        jetstream: Where the stream is.

    Raises:
        trionats.errors.APIError: The server knows no batches, or refused.
        nats.errors.Error: Why the batch is not stored, or why that is not known.
    """
    jetstream.connection.pace.run.check("open_batch")
    await checkpoint()
    await jetstream.require("atomic batch", NEED)
    staging = Staging(jetstream, known=await jetstream.level() is not None)
    try:
        yield Batch(staging)
        await staging.commit()
    except Exception as error:
        if staging.course.failure is not None and not staging.told:
            error.add_note(f"besides, nothing of the batch is stored: {staging.course.failure}")
        raise
    finally:
        staging.close()
