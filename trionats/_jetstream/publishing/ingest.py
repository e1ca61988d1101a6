"""Fast ingest: many messages in one stream, as fast as it takes them (design 105)."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Unpack, final

from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import errors
from trionats._jetstream.publishing.flight import settled
from trionats._jetstream.publishing.ingest_flight import IngestFlight
from trionats._jetstream.publishing.publish import asked_for, encoded, joined
from trionats._protocol.jetstream.publishing.ingest import Ingested
from trionats._protocol.jetstream.publishing.publish import PublishOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trionats import api
    from trionats._feeds.pace import Pace
    from trionats._protocol.commands import Payload


@final
class IngestReceipt:
    """What `Ingest.publish` gives for each message: by it, it is known what became of the message.

    It lives as long as somebody holds it, whoever is cancelled meanwhile, and longer than its ingest.
    """

    __slots__ = ("_flight", "_message")

    def __init__(self, flight: IngestFlight, message: Ingested) -> None:
        self._flight = flight
        self._message = message

    def __repr__(self) -> str:
        outcome = self._message.outcome
        state = "waiting" if outcome is None else "failed" if isinstance(outcome, Exception) else "stored"
        return f"<IngestReceipt of a publish to {self._message.subject!r}, {state}>"

    @property
    def done(self) -> bool:
        """Whether `wait` will return or raise at once."""
        return self._message.outcome is not None

    async def wait(self) -> None:
        """Wait until the message is stored; several tasks may.

        The server acknowledges in steps of up to 500 messages, and does not say which sequences they got. For the last ones the batch
        is ended, when somebody has waited for 0.1 s, and the next message begins another one, for a round trip: a program that waits
        for each message is better off with `open_publisher`. There is no time limit but the ingest's own: each message gets
        an end. A failure that is raised here counts as told: leaving the ingest does not list it again. Always a checkpoint.

        Raises:
            trionats.errors.APIError: The stream refused the message; it is not stored.
            trionats.errors.IngestGapError: It is not stored: it did not reach the stream in its turn, or was not sent any more.
            trionats.errors.NoStreamResponseError: It is not stored: no stream was there to hear it.
            trionats.errors.PermissionsViolationError: It is not stored: the server refused it; or the server refused the inbox.
            trionats.errors.DisconnectedError: The connection broke behind it; whether it is stored is not known.
            nats.errors.TimeoutError: No acknowledgement came within `request_timeout`, or 5 s, or its batch ended without one;
                whether it is stored is not known.
            nats.errors.ConnectionClosedError: The client was closed; as above.
            trio.ClosedResourceError: The ingest was left, or its nursery cancelled, before the acknowledgement came; as above.
        """
        self._flight.pipeline.check_run()
        await checkpoint()
        message = self._message
        if message.outcome is None:
            self._flight.want(message)
        await settled(message)
        if isinstance(message.outcome, Exception):
            self._flight.failures.pop(message, None)
            raise errors.again(message.outcome)


@final
class Ingest:
    """Many messages into one stream, as fast as it takes them: what `open_ingest` gives.

    Its calls may be used from any task of the Trio run it was opened in.
    """

    def __init__(self, pace: Pace, flight: IngestFlight) -> None:
        self._pace = pace
        self._flight = flight
        self._ingestion = flight.ingestion
        self._pipeline = flight.pipeline

    def __repr__(self) -> str:
        state = "open" if self._flight.over is None else "closed"
        where = f" into {self._ingestion.stream!r}" if self._ingestion.stream else ""
        return f"<Ingest{where} {state}, {self.pending} pending>"

    @property
    def ack(self) -> api.PubAck | None:
        """The stream's acknowledgement of the last batch, whole: its `batch`, and as `count` how many messages that had.

        None until a batch has ended, as the last one has when the block is left, or where nothing was published. A batch also ends
        when nothing is published for a second, and the next message begins another one.
        """
        return self._flight.ack

    @property
    def pending(self) -> int:
        """How many messages were published that were not acknowledged, and have not failed."""
        return len(self._flight)

    @enable_ki_protection
    async def publish(
        self,
        subject: str,
        payload: bytes | str = b"",
        *,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        **options: Unpack[PublishOptions],
    ) -> IngestReceipt:
        """Publish a message, as soon as the stream wants another one, and do not wait until it is stored.

        It returns once the message is queued, whole. It waits while as many messages are under way as the server has asked for,
        while more than `pending_size` bytes are queued, while there is no connection, and for a round trip when a batch begins.
        Cancelled, nothing was queued, and nothing will be told of it. A cancellation point and a scheduling point as
        `Client.publish` is.

        The first message decides which stream it is. That is asked for before anything is sent, so that no server stores what it
        does not take for a part of a batch, and again for a subject that is none of those which the stream lists.

        Args:
            subject: Where to; the one stream of this ingest must listen there.
            payload: The message; text is encoded as UTF-8.
            headers: More headers. Where an option says something else than one of them, the option holds.
            options: What the stream is asked for, as `JetStream.publish` takes it: `stream`, `msg_id`, `msg_ttl`, `rollup`,
                `expected_last_seq`, `expected_last_subject_seq`, `expected_last_subject_seq_subject`,
                `expected_last_msg_id`. A duplicate counts as stored; nobody says that it is one.

        Returns:
            What tells what became of it. It may be dropped: what fails is told when the ingest is left.

        Raises:
            trionats.errors.NoStreamResponseError: No stream listens there.
            trionats.errors.APIError: The stream does not allow fast ingest, or its server is too old.
            trionats.errors.PublishError: In mode "fail": a message has failed before. Its `failures` are there once the ingest is left.
            nats.errors.Error: As for `Client.publish`.
            trio.ClosedResourceError: The ingest was left, or its nursery was cancelled.
            TypeError: An argument is of a wrong kind.
            ValueError: An argument cannot be meant, the subject is of another stream, or the stream acknowledges nothing (`no_ack`).
        """
        if get_ident() != self._pace.thread:
            self._pipeline.check_run()
        flight, pipeline, ingestion = self._flight, self._pipeline, self._ingestion
        data: Payload
        fields: Mapping[str, str | Sequence[str]] | None
        if options or headers or not isinstance(payload, bytes):
            data, fields = self._asked(subject, payload, headers, options)
        else:
            data, fields = payload, None
        if subject.__class__ is not str or subject not in flight.known:
            pipeline.frame(subject, data, fields, "0")  # for what it raises
            if flight.over is None:
                await flight.find(subject)
        try:
            while True:
                await pipeline.turn()
                if flight.over is not None:
                    raise errors.again(flight.over)
                if ingestion.under_way < ingestion.limit:
                    break
                await flight.room.park()
            frame, size = pipeline.frame(subject, data, fields, ingestion.token())
        except BaseException:
            flight.unpark()  # we may have been woken for a place that we do not take
            raise
        message = Ingested(subject, size)
        flight.send(message, frame, size)
        return IngestReceipt(flight, message)

    # Inside.

    def _asked(
        self,
        subject: str,
        payload: bytes | str,
        headers: Mapping[str, str | Sequence[str]] | None,
        options: PublishOptions,
    ) -> tuple[Payload, Mapping[str, str | Sequence[str]] | None]:
        """Give the message as it is sent."""
        doing = f"publish to {subject!r}"
        return encoded(doing, payload), joined(doing, headers, asked_for(doing, options, "ingest"))
