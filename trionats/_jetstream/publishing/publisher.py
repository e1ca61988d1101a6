"""A publisher: many publishes in flight, each with its receipt (design 68, 69)."""

from __future__ import annotations

from collections.abc import Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Unpack, final

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import api, errors
from trionats._jetstream.publishing.flight import Flight, settled
from trionats._jetstream.publishing.publish import asked_for, encoded, joined, publish_ack
from trionats._protocol.headers import texts
from trionats._protocol.jetstream.publishing.publish import MSG_ID, PublishOptions
from trionats._protocol.jetstream.publishing.publisher import Publish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats._feeds.pace import Pace
    from trionats._protocol.commands import Payload


@final
class Receipt:
    """What `Publisher.publish` gives for each message: by it, it is known what became of the message.

    It lives as long as somebody holds it, whoever is cancelled meanwhile, and longer than its publisher.
    """

    __slots__ = ("_flight", "_publish")

    def __init__(self, flight: Flight, publish: Publish) -> None:
        self._flight = flight
        self._publish = publish

    def __repr__(self) -> str:
        outcome = self._publish.outcome
        state = "waiting" if outcome is None else "failed" if isinstance(outcome, Exception) else "stored"
        return f"<Receipt of a publish to {self._publish.subject!r}, {state}>"

    @property
    def done(self) -> bool:
        """Whether `wait` will return or raise at once."""
        return self._publish.outcome is not None

    async def wait(self) -> api.PubAck:
        """Wait until it is known what became of the message; several tasks may.

        There is no time limit but the publisher's own: each message gets an end. A failure that is raised here counts as told:
        leaving the publisher does not list it again. Always a checkpoint.

        Returns:
            The stream's acknowledgement, as `JetStream.publish` gives it.

        Raises:
            trionats.errors.NoStreamResponseError: No stream listens on the subject, or none in the domain that was asked
                for.
            trionats.errors.APIError: The stream refused.
            nats.errors.TimeoutError: No acknowledgement came within `request_timeout`, or 5 s.
            trionats.errors.DisconnectedError: The connection broke behind the message; whether it is stored is not known.
            trionats.errors.PermissionsViolationError: The server refused the message, or the publisher's inbox.
            nats.errors.ConnectionClosedError: The client was closed.
            trio.ClosedResourceError: The publisher was left, or its nursery cancelled, before the acknowledgement came.
        """
        self._flight.pipeline.check_run()
        await checkpoint()
        publish = self._publish
        await settled(publish)
        outcome = publish.outcome
        if isinstance(outcome, bytes):
            outcome = publish.outcome = publish_ack(f"publish to {publish.subject!r}", outcome)
        if isinstance(outcome, api.PubAck):
            return outcome
        assert isinstance(outcome, Exception), "there is one"
        self._flight.failures.pop(publish, None)
        raise errors.again(outcome)


@final
class Publisher:
    """Many publishes in flight, each acknowledged: what `open_publisher` gives.

    Its calls may be used from any task of the Trio run it was opened in.
    """

    def __init__(self, pace: Pace, flight: Flight) -> None:
        self._pace = pace
        self._flight = flight
        self._window = flight.window
        self._pipeline = flight.pipeline

    def __repr__(self) -> str:
        state = "open" if self._flight.over is None else "closed"
        return f"<Publisher {state}, {self.pending} pending>"

    @property
    def pending(self) -> int:
        """How many messages were published whose acknowledgement has not come, and that have not failed."""
        return len(self._flight)

    @enable_ki_protection
    async def publish(
        self,
        subject: str,
        payload: bytes | str = b"",
        *,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        **options: Unpack[PublishOptions],
    ) -> Receipt:
        """Publish a message, and do not wait until it is stored.

        It returns once the message is queued, whole, and is to be acknowledged. It waits while `max_pending` messages are
        under way, or more than `pending_size` bytes are queued. Cancelled, nothing was queued, and nothing will be told of it.
        A cancellation point and a scheduling point as `Client.publish` is.

        Args:
            subject: Where to; a stream must listen there.
            payload: The message; text is encoded as UTF-8.
            headers: More headers. Where an option says something else than one of them, the option holds.
            options: What the stream is asked for, as `JetStream.publish` takes it: `stream`, `msg_id`, `msg_ttl`, `rollup`,
                `expected_last_seq`, `expected_last_subject_seq`, `expected_last_subject_seq_subject`,
                `expected_last_msg_id`.

        Returns:
            What tells what became of it. It may be dropped: what fails is told when the publisher is left.

        Raises:
            trio.ClosedResourceError: The publisher was left, or its nursery was cancelled.
            TypeError: An argument is of a wrong kind.
            ValueError: An argument cannot be meant.
            nats.errors.Error: As for `Client.publish`.
        """
        if get_ident() != self._pace.thread:
            self._pipeline.check_run()
        flight, pipeline, window = self._flight, self._pipeline, self._window
        token = pipeline.next_token()
        if options or headers or flight.resend or not isinstance(payload, bytes):
            data, fields, asked = self._asked(subject, payload, headers, token, options)
        else:
            data, fields, asked = payload, None, None
        frame, size = pipeline.frame(subject, data, fields, token)
        try:
            while True:
                await pipeline.turn()
                if flight.over is not None:
                    raise errors.again(flight.over)
                if len(window.awaited) < window.max_awaited:
                    break
                await flight.room.park()
        except BaseException:
            flight.unpark()  # we may have been woken for a place that we do not take
            raise
        publish = Publish(subject, asked)
        flight.send(publish, token, frame, size)
        return Receipt(flight, publish)

    @enable_ki_protection
    def publish_nowait(
        self,
        subject: str,
        payload: bytes | str = b"",
        *,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        **options: Unpack[PublishOptions],
    ) -> Receipt:
        """Publish a message, without waiting for room either.

        Args:
            subject: As for `publish`.
            payload: As for `publish`.
            headers: As for `publish`.
            options: As for `publish`.

        Returns:
            As for `publish`.

        Raises:
            trio.WouldBlock: `max_pending` messages are under way, or `pending_size` bytes are queued.
            trio.ClosedResourceError: As for `publish`, and so are the other exceptions.
        """
        if get_ident() != self._pace.thread:
            self._pipeline.check_run()
        token = self._pipeline.next_token()
        data, fields, asked = self._asked(subject, payload, headers, token, options)
        frame, size = self._pipeline.frame(subject, data, fields, token)
        if self._flight.over is not None:
            self._pipeline.check_run()
            raise errors.again(self._flight.over)
        self._pipeline.check()
        if not self._window.has_room:
            raise trio.WouldBlock
        publish = Publish(subject, asked)
        self._flight.send(publish, token, frame, size)
        return Receipt(self._flight, publish)

    async def wait_all(self) -> None:
        """Wait until it is known what became of each message that was published before.

        It raises nothing for those that failed: their receipts do, and leaving the publisher. Always a checkpoint.
        """
        self._pipeline.check_run()
        await self._flight.settle_all()

    # Inside.

    def _asked(
        self,
        subject: str,
        payload: bytes | str,
        headers: Mapping[str, str | Sequence[str]] | None,
        token: str,
        options: PublishOptions,
    ) -> tuple[Payload, Mapping[str, str | Sequence[str]] | None, Mapping[str, str] | None]:
        """Give the message as it is sent, and what the stream is asked for."""
        if self._flight.resend and not options and not headers and isinstance(payload, bytes):
            alone = {MSG_ID: self._flight.new_id(token)}
            return payload, alone, alone
        doing = f"publish to {subject!r}"
        asked = asked_for(doing, options, "publisher")
        if self._flight.resend and MSG_ID not in asked:
            asked[MSG_ID] = _given_id(headers) or self._flight.new_id(token)
        return encoded(doing, payload), joined(doing, headers, asked), asked or None


def _given_id(headers: Mapping[str, str | Sequence[str]] | None) -> str | None:
    """Give the id that a caller has put among the headers by hand, if it can be one."""
    given = texts(headers.get(MSG_ID)) if isinstance(headers, Mapping) else None
    return given[0] if given and isinstance(given[0], str) and given[0] else None
