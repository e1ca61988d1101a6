"""The messages of one atomic batch under way: its course (`_protocol.jetstream.publishing.batch`) put to work.

The course decides, in the cellar; here is what carries it out: the pipeline that the frames leave by, the replies that it gives, and what
is asked when a connection, or the stream, owes the reply to the commit.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final, final

import trio

from trionats import api, errors
from trionats._core.deadlines import too_late
from trionats._jetstream.api import CLEANUP_LIMIT, refusal_text, unreadable
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.publishing.destination import Choosers, chosen_destination
from trionats._jetstream.publishing.publish import publish_ack, queue_request
from trionats._protocol.index import LateIndex
from trionats._protocol.jetstream.publishing.batch import (
    COMMIT_SIZE,
    Course,
    Entry,
    Loss,
    Phase,
    Terms,
    meaning,
    stored_alone,
    stored_as,
)
from trionats._protocol.jetstream.publishing.publish import PUBLISH_RETRY_WAIT
from trionats._protocol.replies import no_stream, nobody_listens
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._protocol.timers import Timer

__all__ = ["Staging"]

#: After how many seconds each a stream of several replicas is looked at, which stores a moment later what was proposed to it.
LOOKS: Final = (0.0, 0.1, 0.3, 0.6)


@final
class Staging:
    """What is under way of one batch: implements `_core.pipeline.PipelineOwner`, and the course's `Sender`.

    Args:
        jetstream: Where the stream is.
        known: Whether it is known that the server knows batches.
    """

    def __init__(self, jetstream: Api[Publishing], *, known: bool) -> None:
        self._api = jetstream
        self._connection = jetstream.connection
        self._known = known
        self.course = course = Course(self._connection.new_token(), self)
        self._terms = Terms()
        self.pipeline = self._connection.open_pipeline(self)
        self._by_subject = LateIndex(course.awaited, attrgetter("subject"))
        self._choosers = Choosers(jetstream, course.awaited, self._give_up)
        self._waiters = trio.lowlevel.ParkingLot()
        self._timer: Timer | None = None
        self._committed_at = 0.0
        self.ack: api.PubAck | None = None
        """The acknowledgement of the whole."""
        self.is_left = False
        """Whether it takes no more messages, since its block has ended."""
        self.told = False
        """Whether somebody was told why it has failed."""

    def __len__(self) -> int:
        return len(self.course.awaited) + (self._timer is not None)

    def __repr__(self) -> str:
        return f"<Staging of {self.course.count}>"

    @property
    def doing(self) -> str:
        """What is done, for texts."""
        return f"batch {self.course.id!r}"

    def about(self, entry: Entry) -> str:
        """Say which message is meant, for texts."""
        return f"{self.doing}: message {entry.number}, to {entry.subject!r}"

    # What goes out.

    async def add(self, entry: Entry) -> None:
        """Take a message, and send the one before it; cancelled or refused, nothing was done.

        Args:
            entry: The message.

        Raises:
            trio.ClosedResourceError: The block has ended.
            ValueError: The message asks for what it cannot ask for in its place.
            nats.errors.TimeoutError: The stream did not reply in time to what was sent.
            nats.errors.Error: It cannot be sent, or why the batch has failed.
        """
        entry.number = self.course.count + 1
        self._make_frame(entry, last=False)
        if entry.size + COMMIT_SIZE > self._connection.max_payload:
            text = f"{entry.size} bytes of headers and payload, and {COMMIT_SIZE} more if it is the last; the server takes "
            raise errors.explained(errors.MaxPayloadError, f"{self.about(entry)}: {text}{self._connection.max_payload}")
        if entry.payload.__class__ is not bytes:
            # It is held, and whoever gave it may change it meanwhile.
            entry.payload = memoryview(entry.payload).tobytes()
        await self._wait_turn()
        self._terms.check(self.about(entry), entry.subject, entry.fields or {})
        self._terms.taken(entry.subject, entry.fields or {})
        before = self.course.take(entry)
        if before is not None:
            self._send(before, last=False)

    async def commit(self) -> None:
        """Send the last message, and wait until it is known what became of all of them.

        Cancelled before that is sent, nothing is committed. Behind it the wait is shielded for `CLEANUP_LIMIT` seconds.

        Raises:
            nats.errors.Error: Why nothing is stored, or why it is not known whether it is.
        """
        self.is_left = True
        self._waiters.unpark_all()
        await self._wait_turn(leaving=True)
        last = self.course.end()
        if last is None:
            return
        self._send(last, last=True)
        self._committed_at = trio.current_time()
        until = self._committed_at + self.pipeline.seconds_to_wait()
        with trio.move_on_after(CLEANUP_LIMIT, shield=True):
            await self._know(until)
        if self.course.phase is not Phase.ENDED:
            await self._know(until)
        self._raise_failure()

    def close(self) -> None:
        """Send no more, and take no more replies. Synchronous, idempotent."""
        self.is_left = True
        course = self.course
        if course.phase is Phase.OPEN or (course.phase is Phase.COMMITTING and not course.commit_left):
            course.fail(None)
        elif course.phase is not Phase.ENDED:
            course.unknown()
        if self._timer is not None:
            self._timer.cancel()
        self.pipeline.close()
        self._waiters.unpark_all()
        # It was told, and this and the pipeline know each other: no exception is to wait for the garbage collector.
        course.failure = None

    # Where frames wait, for the course.

    def waits(self, entry: Entry) -> bool:
        """Say whether the frame of a message still waits."""
        return entry.queued is not None and self.pipeline.waits(entry.queued)

    def withdraw(self, entry: Entry) -> None:
        """Take that frame back."""
        if entry.queued is not None:
            self.pipeline.withdraw(entry.queued)

    # What comes back, and what happens to the connection.

    ignores_repeats = True
    """A reply that comes twice finds nobody the second time."""

    def waiting(self) -> frozenset[str]:
        """Name the replies that are waited for: in a planned move the old server stays for them."""
        return frozenset(map(self.pipeline.reply, self.course.awaited))

    def deliver(self, message: Msg) -> None:
        """Take a reply; one that nobody waits for is ignored."""
        token = message.subject[self.pipeline.token_at :]
        if self._choosers.anywhere or self._choosers.chosen(token, message):
            self._judge(token, message)

    def connection_lost(self, reason: Exception) -> None:
        """End it, unless nothing of it had left us."""
        self._choosers.forget()
        loss = self.course.lost()
        if loss is Loss.BATCH:
            text = (
                f"{self.doing}: the connection was lost before it was committed, so nothing of it is stored: {reason}"
            )
            self._fail(errors.explained(errors.DisconnectedError, text, sent=True))
        elif loss is Loss.ACK:
            text = f"{self.doing}: the connection was lost behind its commit, whose reply will not come: {reason}"
            self._doubt(errors.explained(errors.DisconnectedError, text, sent=True))

    def connection_restored(self) -> None:
        """End it if a part of it is more than the new server takes; what waits in the outbox goes by itself."""
        dropped = self.course.dropped()
        if dropped is not None:
            text = f"{self.about(dropped)}: {dropped.size} bytes are more than the new server takes"
            self._fail(errors.explained(errors.MaxPayloadError, text))

    def ended(self, reason: BaseException | None) -> None:
        """End it: the client is closed, or the server refused the inbox."""
        self.pipeline.ended()
        error: Exception
        if isinstance(reason, REFUSALS):
            error = refusal_of(self.doing, reason)
        else:
            why = "the client was closed" if reason is None else str(reason)
            error = errors.explained(errors.ConnectionClosedError, f"{self.doing}: {why}")
            error.__cause__ = reason
        if self.course.lost() is Loss.ACK:
            self._doubt(error)
        else:
            self._fail(error)

    def refused(self, subject: str, token: str, error: errors.PermissionsViolationError) -> None:
        """End it, if it is one of its messages that the server has refused to pass on, or whose reply it would refuse."""
        found = self._by_subject.find(subject) if subject else [self.course.awaited.get(token)]
        for entry in found:
            # One whose frame still waits here was not refused yet.
            if entry is not None and not self.waits(entry):
                self._fail(refusal_of(self.about(entry), error))
                return

    # Inside: sending.

    def _make_frame(self, entry: Entry, *, last: bool) -> None:
        entry.token = self.pipeline.next_token()
        fields = self.course.fields(entry, entry.number, last=last)
        entry.frame, entry.size = self.pipeline.frame(entry.subject, entry.payload, fields, entry.token)

    def _send(self, entry: Entry, *, last: bool) -> None:
        try:
            if last or entry.frame is None:
                self._make_frame(entry, last=last)
        except errors.Error as error:  # the server takes less than it did
            self._fail(error.with_traceback(None))
            self._raise_failure()
        assert entry.frame is not None, "it was made"
        entry.queued = self.pipeline.queue(entry.frame, entry.size)
        entry.frame = None
        if not self._choosers.anywhere:
            self._choosers.add(entry.subject, entry.token)
        self.course.sent(entry, self._connection.server_id)

    def _send_again(self, entry: Entry) -> None:
        """Send the first message once more, which nobody has heard."""
        self._timer = None
        assert entry.queued is not None, "it was sent"
        entry.token = self.pipeline.next_token()
        try:
            entry.queued = self.pipeline.queue_again(entry.queued, entry.token)
        except errors.Error as error:
            self._fail(errors.explained(type(error), f"{self.about(entry)}: {error}"))
            return
        if not self._choosers.anywhere:
            self._choosers.add(entry.subject, entry.token)
        self.course.sent(entry, self._connection.server_id)

    async def _wait_turn(self, *, leaving: bool = False) -> None:
        """Wait until the message that is held may be sent; always a checkpoint."""
        while True:
            await self.pipeline.turn()
            if self.is_left and not leaving:
                raise trio.ClosedResourceError(f"{self.doing}: its block was left")
            self._raise_failure()
            if self.course.may_send(self._connection.server_id):
                return
            seconds = self.pipeline.seconds_to_wait()
            with trio.move_on_after(seconds) as limit:
                await self._waiters.park()
            if limit.cancelled_caught and not self.course.overdue():
                raise too_late(seconds, f"{self.doing}: {len(self.course.awaited)} messages under way")

    def _raise_failure(self) -> None:
        if self.course.failure is not None:
            self.told = True
            raise errors.again(self.course.failure)

    # Inside: judging.

    def _judge(self, token: str, message: Msg) -> None:
        entry = self.course.replied(token)
        if entry is None:
            return
        if nobody_listens(message):
            self._nobody(entry)
        elif message.data:
            self._read(entry, message.data)
        elif not self.course.staged(entry):
            self.course.doubt(unreadable(self.about(entry), "the commit was set aside"))
        self._changed()

    def _nobody(self, entry: Entry) -> None:
        pause = self.course.nobody(entry)
        if pause is None:
            self.course.fail(no_stream(self.about(entry)))
        else:
            self._timer = self._connection.call_at(trio.current_time() + pause, lambda: self._send_again(entry))

    def _read(self, entry: Entry, data: bytes) -> None:
        """Take a reply that says something: why not, or that it is stored."""
        try:
            ack = publish_ack(self.about(entry), data)
        except errors.APIError as error:
            if error.code is None and error.err_code is None and entry is self.course.last:
                self.course.doubt(error.with_traceback(None))  # it may be anybody's
            else:
                self.course.refused(entry, error.err_code, self._refusal(entry, error))
            return
        if self.course.acknowledged(entry, ack.batch, ack.count):
            self.ack = ack
        else:
            self.course.fail(stored_alone(self.about(entry), ack.stream, ack.seq))

    def _refusal(self, entry: Entry, error: errors.APIError) -> errors.BatchError:
        where = self.about(entry) + (f" of stream {error.stream!r}" if error.stream else "")
        meant = meaning(error.err_code, entry.number)
        text = refusal_text(where, error) + (f": {meant}" if meant else "")
        about = {"batch": self.course.id, "number": entry.number, "subject": entry.subject}
        return errors.explained(errors.BatchError, text, **{**vars(error), **about})

    def _give_up(self, token: str, last: Msg | Exception) -> None:
        """Take what has come for all that comes, where the domain is to be a certain one."""
        if not isinstance(last, Exception):
            self._judge(token, last)
        elif (entry := self.course.replied(token)) is not None:
            self._fail(no_stream(self.about(entry), str(last)))

    def _fail(self, error: Exception) -> None:
        self.course.fail(error)
        self._changed()

    def _doubt(self, error: Exception) -> None:
        self.course.doubt(error)
        self._changed()

    def _changed(self) -> None:
        self._waiters.unpark_all()
        self.pipeline.changed()

    # Inside: what became of the commit.

    async def _know(self, until: float) -> None:
        """Wait until it is known what became of the commit, or that it will not be."""
        course = self.course
        with trio.move_on_at(until) as limit:
            while course.phase is Phase.COMMITTING:
                await self._waiters.park()
        if limit.cancelled_caught and not course.overdue():
            late = too_late(until - self._committed_at, f"{self.doing}: its commit")
            if course.commit_left:
                self._doubt(late)
            else:
                self._fail(late)
        if course.phase is Phase.DOUBT:
            with trio.move_on_at(max(until, trio.current_time() + CLEANUP_LIMIT)) as limit:
                await self._find_out()
            if course.phase is Phase.DOUBT:
                self._leave_unknown()

    def _leave_unknown(self) -> None:
        failure = self.course.failure
        assert failure is not None, "there is a doubt"
        text = f"{failure}; and whether the batch is stored is not known"
        self.course.unknown(errors.explained(type(failure), text, **vars(failure)))

    async def _find_out(self) -> None:
        """Clear the doubt, as far as that can be; interrupted, it can be done again."""
        course, last = self.course, self.course.last
        assert last is not None, "there is no doubt without a commit"
        if course.count == 1 and not self._known:
            return  # a server that knows no batches would store it once more
        stream = await self._commit_again(last)
        if stream is None or course.phase is Phase.ENDED:
            return
        manager = JetStreamManager(self._api)
        try:
            info = await manager.stream_info(stream)
            alone = info.config.num_replicas == 1
        except (errors.Error, ValueError):
            info, alone = None, True
        passed = trio.current_time() - self._committed_at
        for pause in LOOKS[:1] if alone else LOOKS:
            await trio.sleep(pause)
            try:
                found = await manager.get_msg(stream, subject=last.subject)
            except errors.NotFoundError:
                continue
            except (errors.Error, ValueError):
                break
            seq = stored_as(course.id, course.count, found.headers, found.seq)
            if seq is not None:
                self._done(stream, seq)
                return
        if info is not None and alone and course.failure is not None:
            text = f"{self.doing}: nothing of it is stored, since its commit did not arrive: {course.failure}"
            error = errors.explained(type(course.failure), text, **vars(course.failure))
            course.look_at(passed, info.ts, info.state.last_ts, error)

    async def _commit_again(self, last: Entry) -> str | None:
        """Send the commit once more.

        Returns:
            The stream that refuses it; None where nothing more can be asked.
        """
        course = self.course
        fields = course.fields(last, course.asked_as, last=True)
        destination = None
        if not self._choosers.anywhere:
            destination = chosen_destination(self._api, last.subject, self.about(last))
        while True:
            try:
                with await queue_request(self._connection, last.subject, last.payload, fields, destination) as pending:
                    reply = await pending.wait()
                break
            except (errors.NoRespondersError, errors.DisconnectedError):
                await trio.sleep(PUBLISH_RETRY_WAIT)
            except errors.Error:
                return None
        try:
            ack = publish_ack(self.about(last), reply.data)
        except errors.APIError as error:
            course.refused_again(error.err_code, self._refusal(last, error))
            return error.stream
        if course.is_whole(ack.batch, ack.count):
            self.ack = ack
            course.done()
        return None

    def _done(self, stream: str, seq: int) -> None:
        self.ack = api.PubAck(stream, seq, self._api.whereabouts.named, None, self.course.id, self.course.count)
        self.course.done()
