"""The messages of one fast ingest that are under way: the ingestion (`_protocol.jetstream.publishing.ingest`) put to work.

The ingestion decides, in the cellar; here is what carries it out: the pipeline that frames leave by, the replies that it gives, one
timer for all, and finding out which stream a subject goes to.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final, final

import trio
from trio.lowlevel import checkpoint

from trionats import errors, events
from trionats._jetstream.api import Api, api_error, refusal
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.publishing.flight import failed
from trionats._jetstream.publishing.publish import publish_ack
from trionats._protocol.commands import Passing
from trionats._protocol.jetstream import levels
from trionats._protocol.jetstream.publishing.ingest import (
    DISABLED,
    Committed,
    Ingested,
    Ingestion,
    Refusal,
    Verdict,
    read_reply,
)
from trionats._protocol.replies import no_stream, nobody_listens
from trionats._protocol.server_errors import REFUSALS, refusal_of
from trionats._protocol.subjects import matches

if TYPE_CHECKING:
    from trionats import api
    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._protocol.commands import Frame
    from trionats._protocol.jetstream.publishing.ingest import Request
    from trionats._protocol.timers import Timer

#: Which level fast ingest needs, as the server itself notes it of a stream that allows it.
NEEDED: Final = levels.Need("fast ingest", 4)
#: How many subjects are remembered as the stream's own.
SUBJECTS_REMEMBERED: Final = 4096


@final
class IngestFlight:
    """What is under way from one ingest: implements `_core.pipeline.PipelineOwner`, and the ingestion's `Sender`.

    Args:
        jetstream: Where the stream is.
        keep_on: Whether a gap does not end it.
        max_outstanding: How many acks may be outstanding.
    """

    def __init__(self, jetstream: Api[Publishing], *, keep_on: bool, max_outstanding: int) -> None:
        self._api = jetstream
        connection = jetstream.connection
        self.pipeline = connection.open_pipeline(self, deep=True)
        self._token_at = self.pipeline.token_at
        self.ingestion = Ingestion(
            self.pipeline.patience,
            self,
            connection.new_token,
            keep_on=keep_on,
            max_outstanding=max_outstanding,
            online=False,
        )
        self.known: dict[str, None] = {}
        """Subjects that go to the stream."""
        self._patterns: list[str] = []
        self._domain: str | None = None
        self.ack: api.PubAck | None = None
        """The last PubAck that confirmed a whole batch."""
        self.failures: dict[Ingested, None] = {}
        """Those that failed and whose failure nobody has heard of yet, in the order of their ends."""
        self.told: list[tuple[errors.FailedMsg, Exception]] = []
        """The same as a `PublishError` tells them, once the ingest is left: also that which `publish` has raised before."""
        self.room = trio.lowlevel.ParkingLot()
        """Who waits until another message may be sent."""
        self.over: Exception | None = None
        """Why nothing more can be published; None while it can."""
        self._finished = trio.Event()
        self._finishing = self._closed = False
        self._lost: Exception | None = None
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self.ingestion)

    def __repr__(self) -> str:
        return f"<IngestFlight of {len(self)}>"

    # Where it goes.

    async def find(self, subject: str) -> None:
        """See to it that a subject goes to the one stream of this ingest, which has to allow it; the first one decides which.

        Args:
            subject: The subject.

        Raises:
            trionats.errors.NoStreamResponseError: No stream listens there.
            trionats.errors.APIError: The stream does not allow it, or its server is too old.
            ValueError: It goes to another stream, also to one of another domain, or to one that acknowledges nothing.
        """
        ingestion = self.ingestion
        if not any(matches(pattern, subject) for pattern in self._patterns):
            doing = f"publish to {subject!r}"
            name = await self._stream_of(self._api, doing, subject)
            if not ingestion.stream:
                patterns = await self._allowed(doing, name)
                await self._alone(doing, subject, name)
                if not ingestion.stream:
                    ingestion.stream, self._patterns, self._domain = name, patterns, self._api.whereabouts.chosen
            if name != ingestion.stream:
                text = f"this ingest goes to stream {ingestion.stream!r}, and that subject to {name!r}"
                raise ValueError(f"{doing}: {text}: one ingest has one stream")
        if len(self.known) >= SUBJECTS_REMEMBERED:
            self.known.clear()
        self.known[subject] = None
        if self.over is None and self.pipeline.listen() and self._api.connection.is_connected:
            # From now on it is told what happens to the connection.
            self.connection_restored()

    async def _stream_of(self, jetstream: Api[Publishing], doing: str, subject: str) -> str:
        try:
            return await JetStreamManager(jetstream).find_stream_name_by_subject(subject)
        except errors.NotFoundError:
            raise no_stream(doing) from None

    async def _allowed(self, doing: str, name: str) -> list[str]:
        """Give a stream's subjects, if it allows fast ingest."""
        config = (await self._api.request(f"STREAM.INFO.{name}")).get("config")
        config = config if isinstance(config, dict) else {}
        if config.get("allow_batched") is not True:
            # A server that does not know it would store the first message as any other.
            await self._api.require(doing, NEEDED)
            raise _disabled(doing, name)
        if config.get("no_ack"):
            raise ValueError(
                f"{doing}: stream {name!r} acknowledges nothing (no_ack), so nothing would be known of an ingest"
            )
        subjects = config.get("subjects")
        return [text for text in subjects if isinstance(text, str)] if isinstance(subjects, list) else []

    async def _alone(self, doing: str, subject: str, name: str) -> None:
        """Refuse a subject that is also heard by a stream of the domain that we are connected to, where another was asked for.

        Acks do not say whose they are.
        """
        if self._api.whereabouts.chosen is None:
            return
        near = Api(self._api.connection)
        try:
            other = await self._stream_of(near, doing, subject)
            await near.request(f"STREAM.INFO.{other}")
        except errors.Error:
            return  # there is none, or nobody may ask
        if near.whereabouts.named != self._api.whereabouts.named:
            text = f"stream {name!r} of domain {self._api.whereabouts.chosen!r} hears it, and stream {other!r} here"
            raise ValueError(f"{doing}: {text}: their acks to a fast ingest could not be told apart")

    # What goes out.

    def send(self, message: Ingested, frame: Frame, size: int) -> None:
        """Queue the next message, for which there is room; its frame has the ingestion's `token`.

        Args:
            message: The message.
            frame: The frame.
            size: Its headers and payload, in bytes.
        """
        message.queued = self.pipeline.queue(frame, size)
        self.ingestion.sent(message, self.pipeline.now())
        if not self.ingestion.limit:
            self._step()
        elif self._timer is None:
            self._set_timer()

    def unpark(self) -> None:
        """Let go on who waits for room, as many as there is room for; all where there will be none any more."""
        if self.room:
            if self.over is not None:
                self.room.unpark_all()
            else:
                self.room.unpark(count=max(0, self.ingestion.limit - self.ingestion.under_way))

    def want(self, message: Ingested) -> None:
        """Have it found out soon what becomes of a message."""
        self.ingestion.want(message, self.pipeline.now())
        self._set_timer()

    async def work(self) -> None:
        """Wait to be cancelled: what the ingest's task does, which knows then that its nursery is."""
        await trio.sleep_forever()

    async def settle_all(self) -> None:
        """Take no more messages, end the batch, and wait until it is known what became of each message. Always a checkpoint."""
        await checkpoint()
        self._finishing = True
        self.ingestion.close()
        self._step()
        await self._finished.wait()

    def account(self) -> list[tuple[errors.FailedMsg, Exception]]:
        """List the messages that failed, and of which nobody has heard: `PublishError`s that were raised before list them, too."""
        self.told += [failed(message) for message in self.failures]
        return self.told

    # Where frames wait, for the ingestion.

    def waits(self, message: Ingested) -> bool:
        """Say whether the frame of a message still waits."""
        return message.queued is not None and self.pipeline.waits(message.queued)

    def withdraw(self, message: Ingested) -> None:
        """Take that frame back."""
        if message.queued is not None:
            self.pipeline.withdraw(message.queued)

    # What comes back, and what happens to the connection.

    ignores_repeats = True
    """An ack that comes twice says nothing new."""

    def waiting(self) -> frozenset[str]:
        """Name what is waited for: in a planned move the old server stays for it."""
        return frozenset(self.ingestion.awaited())

    def deliver(self, message: Msg) -> None:
        """Take a reply."""
        token, now = message.subject[self._token_at :], self.pipeline.now()
        if nobody_listens(message):
            self.ingestion.heard(token, None, now)
        else:
            where = "replies to a fast ingest"
            reply = self._api.connection.foreign.read(where, read_reply, message.data)
            if reply is None or (isinstance(reply, Committed) and self._is_elsewhere(reply)):
                return
            if self.ingestion.heard(token, reply, now):
                self.ack = self._api.connection.foreign.read(where, publish_ack, "end of a fast ingest", message.data)
        self._step()

    def _is_elsewhere(self, ack: Committed) -> bool:
        if self._domain is None or ack.domain == (self._api.whereabouts.named or self._domain):
            return False
        self._api.connection.emit(events.StoredElsewhere(self.ingestion.subject, ack.stream, ack.domain, self._domain))
        return True

    def connection_lost(self, reason: Exception) -> None:
        """Take back what was not sent, and find out later what became of the rest."""
        self._lost = reason
        self.ingestion.lost(self.pipeline.now())
        self._step()

    def connection_restored(self) -> None:
        """Go on."""
        self.ingestion.restored(self.pipeline.now())
        self._step()

    def ended(self, reason: BaseException | None) -> None:
        """Fail everything: the client is closed, or the server refused the inbox."""
        self.pipeline.ended()
        if isinstance(reason, REFUSALS):
            self._give_up(refusal_of("fast ingest", reason))
            return
        why = "the client was closed" if reason is None else str(reason)
        error = errors.explained(errors.ConnectionClosedError, f"fast ingest: {why}")
        error.__cause__ = reason
        self._give_up(error)

    def refused(self, subject: str, token: str, error: errors.PermissionsViolationError) -> None:
        """Fail what the server has refused to pass on; all, where it would refuse the replies."""
        if subject:
            self.ingestion.refused(subject, refusal_of(f"publish to {subject!r}", error), self.pipeline.now())
            self._step()
        elif token:
            self._give_up(refusal_of("fast ingest", error))

    def end(self, reason: Exception) -> None:
        """Take no more messages, and wait for no replies; what was queued is still sent. Idempotent.

        Args:
            reason: Why, for those who publish later, and for the receipts of what is under way.
        """
        if self._closed:
            return
        self._closed = True
        self._give_up(reason)
        self.pipeline.close()
        self._set_timer()

    # Inside.

    def _give_up(self, reason: Exception) -> None:
        """End all that is under way, and tell the server that its batch is over."""
        given_up, farewell = self.ingestion.end()
        if farewell:
            self._say(farewell)
        if self.over is None:
            self.over = reason
        for message in given_up:
            self._settle(message, reason)
        self._tell()

    def _step(self) -> None:
        """Do what the time has come for, and what has become possible."""
        while requests := self.ingestion.requests(self.pipeline.now()):
            for request in requests:
                self._send(request)
        self._tell()
        self._set_timer()

    def _send(self, request: Request) -> None:
        message = request.message
        if message is None:
            self._say(request.token)
            return
        assert message.queued is not None, "it is kept until the message is stored"
        try:
            message.queued = self.pipeline.queue_again(message.queued, request.token)
        except errors.Error as error:
            text = f"publish to {message.subject!r}: {error}"
            self.ingestion.dropped(message, errors.explained(type(error), text))

    def _say(self, token: str) -> None:
        """Send what is no message of the program."""
        frame, size = self.pipeline.frame(self.ingestion.subject, b"", None, token)
        assert isinstance(frame, bytes), "it is small"
        self.pipeline.queue(Passing(frame), size)

    def _tell(self) -> None:
        """Tell whom it may concern what became of messages."""
        ingestion = self.ingestion
        for message, verdict in ingestion.judged:
            if verdict is Verdict.STORED:
                message.queued = None
                if message.told is not None:
                    message.told.set()
            else:
                self._settle(message, self._failure(message, verdict))
        if ingestion.judged:
            ingestion.judged.clear()
            self.pipeline.changed()
        if ingestion.failing and self.over is None:
            first: Any = next(iter(self.failures))
            text = f"the ingest has failed: {first.outcome}"
            self.over = errors.explained(errors.PublishError, text, failures=self.told)
            self.over.__cause__ = first.outcome
        if self._finishing and ingestion.ended:
            self._finished.set()
        self.unpark()

    def _settle(self, message: Ingested, reason: Exception) -> None:
        message.outcome = reason
        self.failures[message] = None
        if message.told is not None:
            message.told.set()

    def _failure(self, message: Ingested, verdict: Verdict) -> Exception:
        """Say why a message failed."""
        doing = f"publish to {message.subject!r}"
        unknown = "whether it is stored is not known"
        if verdict is Verdict.REFUSED:
            said = message.refusal
            if not isinstance(said, Refusal):
                assert isinstance(said, Exception), "it was refused"
                return said
            return _disabled(doing, said.stream) if said.code == DISABLED else refusal(doing, said.error, said.stream)
        if verdict is Verdict.NOBODY:
            return no_stream(doing)
        if verdict is Verdict.DISCONNECTED:
            text = f"{doing}: the connection was lost before it was acknowledged: {self._lost}"
            return errors.explained(errors.DisconnectedError, text, sent=True)
        if verdict is Verdict.FORGOTTEN:
            text = f"{doing}: {unknown}: its batch has ended without a word of it"
            return errors.explained(errors.TimeoutError, text)
        if verdict is Verdict.LATE:
            return errors.explained(errors.TimeoutError, f"{doing}: no answer within {self.pipeline.patience:g} s")
        why = "it was not sent" if verdict is Verdict.UNSENT else "it did not reach the stream in its turn"
        return errors.explained(errors.IngestGapError, f"{doing}: it is not stored: {why}")

    # The one timer.

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._closed and (due := self.ingestion.due()) != inf:
            when = trio.current_time() + max(0.0, due - self.pipeline.now())
            self._timer = self._api.connection.call_at(when, self._time_came)

    def _time_came(self) -> None:
        self._timer = None
        self._step()


def _disabled(doing: str, stream: str) -> errors.APIError:
    text = "fast ingest is not allowed there (allow_batched, server 2.14 or later)"
    error = api_error(errors.BadRequestError, "", "batch publish is disabled", code=400, err_code=DISABLED)
    known = {**vars(error), "stream": stream}
    return errors.explained(
        errors.BadRequestError, f"{doing}: stream {stream!r}: {text} (code 400, error {DISABLED})", **known
    )
