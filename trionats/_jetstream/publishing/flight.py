"""The publishes of one publisher that are under way: the window (`_protocol.jetstream.publishing.publisher`) put to work.

Strategy
    The window decides, in the cellar; here is what carries it out: the pipeline that frames leave by, the replies that it gives, one
    timer for all, and what has to be asked (which takes a task): how long a stream's duplicate window is, and whether it is the
    message itself that stands in its way.

    Most replies are acknowledgements in the form that servers give them. They are known by that form, kept as they came, and read
    when somebody asks. Everything else goes the long way.
"""

from __future__ import annotations

from collections import deque
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Final, final

import trio
from trio.lowlevel import checkpoint

from trionats import errors
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.publishing.destination import Choosers
from trionats._jetstream.publishing.publish import publish_ack, stored_before
from trionats._protocol import commands, headers
from trionats._protocol.index import LateIndex
from trionats._protocol.jetstream.publishing.publish import MSG_ID, is_plain_ack
from trionats._protocol.jetstream.publishing.publisher import LONGEST_REACH, Fate, Publish, Window
from trionats._protocol.jetstream.refusals import passes
from trionats._protocol.replies import no_stream, nobody_listens
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trionats import api
    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._protocol.commands import Frame
    from trionats._protocol.jetstream.publishing.ingest import Ingested
    from trionats._protocol.timers import Timer

#: How often, and after how many seconds each, a stream is looked for that is not there.
LOOKED_FOR: Final = 20
LOOK_PAUSE: Final = 0.25


@final
class Flight:
    """What is under way from one publisher: implements `_core.pipeline.PipelineOwner`, and the window's `Sender`.

    Args:
        jetstream: Where the streams are.
        max_pending: How many may be under way.
        resend: Whether what may be stored is sent again.
    """

    def __init__(self, jetstream: Api[Publishing], max_pending: int, *, resend: bool) -> None:
        self._api = jetstream
        self.pipeline = jetstream.connection.open_pipeline(self)
        self._token_at = self.pipeline.token_at
        online = jetstream.connection.is_connected
        self.window = Window(max_pending, self.pipeline.patience, self, resend=resend, online=online)
        self._by_subject = LateIndex(self.window.awaited, attrgetter("subject"))
        self._choosers = Choosers(jetstream, self.window.awaited, self._give_up)
        self._anywhere = self._choosers.anywhere
        self.resend = resend
        self._ids = f"{jetstream.connection.new_token()}-" if resend else ""
        self.failures: dict[Publish, None] = {}
        """Those that failed and whose failure nobody has heard of yet, in the order of their ends."""
        self.room = trio.lowlevel.ParkingLot()
        """Who waits for a place in the window."""
        self.over: Exception | None = None
        """Why nothing more can be published; None while it can."""
        self._timer: Timer | None = None
        self._asked = trio.Event()
        self._conflicts: deque[tuple[Publish, errors.APIError]] = deque()

    def __len__(self) -> int:
        return len(self.window)

    def __repr__(self) -> str:
        return f"<Flight of {len(self)}>"

    # What goes out.

    def new_id(self, token: str) -> str:
        """Make a message id that nobody else has."""
        return self._ids + token

    def send(self, publish: Publish, token: str, frame: Frame, size: int) -> None:
        """Queue a publish for which there is room.

        Args:
            publish: The publish.
            token: What its reply is expected under, as its frame says.
            frame: The frame.
            size: Its headers and payload, in bytes.
        """
        publish.queued = self.pipeline.queue(frame, size)
        if not self._anywhere:
            self._choosers.add(publish.subject, token)
        self.window.sent(publish, token, self.pipeline.now())
        if self._timer is None:
            self._set_timer()

    def unpark(self) -> None:
        """Let one go on who waits for a place, if there is one."""
        if self.room and (self.over is not None or self.window.has_room):
            self.room.unpark()

    # Where frames wait, for the window.

    def waits(self, publish: Publish) -> bool:
        """Say whether the frame of a publish still waits."""
        return publish.queued is not None and self.pipeline.waits(publish.queued)

    def withdraw(self, publish: Publish) -> None:
        """Take that frame back."""
        if publish.queued is not None:
            self.pipeline.withdraw(publish.queued)

    # What comes back, and what happens to the connection.

    ignores_repeats = True
    """A reply that comes twice finds nobody the second time."""

    def waiting(self) -> frozenset[str]:
        """Name the replies that are waited for: in a planned move the old server stays for them."""
        return frozenset(map(self.pipeline.reply, self.window.awaited))

    def deliver(self, message: Msg) -> None:
        """Take a reply; one that nobody waits for is ignored."""
        token = message.subject[self._token_at :]
        if not self._anywhere and not self._choosers.chosen(token, message):
            return
        publish = self.window.awaited.pop(token, None)
        if publish is None:
            return
        data = message.data
        if message.header_block is None and is_plain_ack(data):
            # As `_settle`, for nearly all of them.
            publish.outcome = data
            publish.queued = None
            if publish.told is not None:
                publish.told.set()
            if self.room:
                self.unpark()
            self.pipeline.changed()
            return
        self._judge(publish, message)

    def connection_lost(self, reason: Exception) -> None:
        """Fail what was sent, or hold it back until it can be sent again."""
        self._choosers.forget()
        for publish in self.window.lost():
            text = f"{_doing(publish)}: the connection was lost while its acknowledgement was awaited: {reason}"
            self._settle(publish, errors.explained(errors.DisconnectedError, text, sent=True))
        self._set_timer()

    def connection_restored(self) -> None:
        """Fail what the new server would not take, and send again what is due; what waits in the outbox goes by itself."""
        for publish in self.window.restored(self.pipeline.now()):
            size = 0 if publish.queued is None else publish.queued.size
            text = f"{_doing(publish)}: {size} bytes are more than the new server takes"
            self._settle(publish, errors.explained(errors.MaxPayloadError, text))
        self._step()

    def ended(self, reason: BaseException | None) -> None:
        """Fail everything: the client is closed, or the server refused the inbox."""
        self.pipeline.ended()
        for publish in self.window.end():
            if isinstance(reason, REFUSALS):
                self._settle(publish, refusal_of(_doing(publish), reason))
                continue
            why = "the client was closed" if reason is None else str(reason)
            error = errors.explained(errors.ConnectionClosedError, f"{_doing(publish)}: {why}")
            error.__cause__ = reason
            self._settle(publish, error)

    def refused(self, subject: str, token: str, error: errors.PermissionsViolationError) -> None:
        """Fail what the server has refused to pass on, or whose replies it would refuse."""
        found = self._by_subject.find(subject) if subject else [self.window.awaited.get(token)]
        for publish in found:
            # One whose frame still waits here was not refused yet.
            if publish is not None and not self.waits(publish):
                del self.window.awaited[publish.token]
                self._settle(publish, refusal_of(_doing(publish), error))

    def end(self, reason: Exception) -> None:
        """Take no more publishes, and wait for no replies; what was queued is still sent. Idempotent.

        Args:
            reason: Why, for those who publish later, and for the receipts of what is under way.
        """
        if self.over is not None:
            return
        self.over = reason
        for publish in self.window.end():
            self._settle(publish, errors.again(reason))
        self.pipeline.close()
        if self._timer is not None:
            self._timer.cancel()
        self.room.unpark_all()

    # What has to be asked.

    async def work(self) -> None:
        """Ask what has to be known, whenever there is something, until cancelled: what the publisher's task does."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            while self._conflicts:
                await self._look_at(*self._conflicts.popleft())
            looks = 0
            while (subject := self.window.question()) is not None:
                looks = await self._find_reach(subject, looks)
                self._step()

    async def settle_all(self) -> None:
        """Wait until it is known what became of each message that was sent before. Always a checkpoint."""
        await checkpoint()
        for publish in self.window.under_way():
            await settled(publish)

    def account(self) -> list[tuple[errors.FailedMsg, Exception]]:
        """List the messages that failed, and of which nobody has heard."""
        return [failed(publish) for publish in self.failures]

    async def _look_at(self, publish: Publish, error: errors.APIError) -> None:
        """Find out whether a refusal speaks of the message itself."""
        before = None
        assert publish.asked is not None, "it has an id"
        with trio.move_on_after(self.pipeline.patience):
            before = await stored_before(self._api, error.stream, publish.subject, publish.asked)
        if publish.outcome is not None:
            return  # it ended meanwhile
        known = before is not None or self._api.connection.is_connected
        if self.window.found(publish, known=known):
            self._settle(publish, error if before is None else before)
        self._step()

    async def _find_reach(self, subject: str, looks: int) -> int:
        """Ask for how long what is published to a subject may be sent again.

        Args:
            subject: The subject.
            looks: How often it was asked in vain.

        Returns:
            The same, for the next call.
        """
        reaches, manager = self.window.reaches, JetStreamManager(self._api)
        with trio.move_on_after(self.pipeline.patience):
            try:
                config = (await manager.stream_info(await manager.find_stream_name_by_subject(subject))).config
            except (errors.PermissionsViolationError, errors.ConnectionClosedError, ValueError):
                looks = LOOKED_FOR  # nobody may say it, or a name was said that no stream can have
            except errors.Error as error:
                looks += not passes(error)
            else:
                reaches.learn(config.subjects or (config.name or "",), config.duplicate_window or 0.0)
                if reaches.of(subject) is not None:
                    return 0
                looks = LOOKED_FOR  # it comes there by another way, of which nothing is known
            if looks < LOOKED_FOR:
                await trio.sleep(LOOK_PAUSE)
                return looks
        if looks >= LOOKED_FOR:
            reaches.miss(subject)
            return 0
        return looks

    # Inside.

    def _judge(self, publish: Publish, message: Msg) -> None:
        """Take the reply to one that was awaited, whatever it says."""
        now = self.pipeline.now()
        error: Exception
        if nobody_listens(message):
            fate, error = self.window.nobody(publish, now), no_stream(_doing(publish))
        else:
            try:
                ack = publish_ack(_doing(publish), message.data)
            except errors.APIError as refusal:
                fate, error = self.window.refused(publish, refusal.err_code, now), refusal
                if fate is Fate.CHECK:
                    self._conflicts.append((publish, refusal))
                    self._asked.set()
            else:
                self._settle(publish, ack)
                return
        if fate is Fate.FAIL:
            self._settle(publish, error)
        elif fate is Fate.WAIT:
            self._wake_by(self.window.resumes(publish))

    def _settle(self, publish: Publish, outcome: api.PubAck | Exception) -> None:
        """End a publish, which is in no table any more."""
        publish.outcome = outcome
        if isinstance(outcome, Exception):
            self.failures[publish] = None
        else:
            publish.queued = None
        if publish.told is not None:
            publish.told.set()
        self.unpark()
        self.pipeline.changed()

    def _step(self) -> None:
        """Do what the time has come for, and what has become possible."""
        for publish, fate in self.window.step(self.pipeline.now()):
            if fate is Fate.AGAIN:
                self._send_again(publish)
            elif fate is Fate.LATE:
                text = f"{_doing(publish)}: no answer within {self.pipeline.patience:g} s"
                self._settle(publish, errors.explained(errors.TimeoutError, text))
            else:
                self._settle(publish, self._unknown(publish))
        if self.window.question() is not None:
            self._asked.set()
        self._set_timer()

    def _send_again(self, publish: Publish) -> None:
        assert publish.queued is not None, "it is kept until there is an acknowledgement"
        token = self.pipeline.next_token()
        try:
            queued = self.pipeline.queue_again(publish.queued, token)
        except errors.Error as error:
            text = f"{_doing(publish)}: {error}"
            self._settle(publish, errors.explained(type(error), text))
            return
        publish.queued = queued
        if not self._anywhere:
            self._choosers.add(publish.subject, token)
        self.window.sent(publish, token, self.pipeline.now())

    def _unknown(self, publish: Publish) -> Exception:
        reach = self.window.reaches.of(publish.subject)
        if reach == 0:
            why = "and how long it could be sent again nobody says"
        elif reach is None:
            why = f"and within {LONGEST_REACH:g} s nobody said how long it could be sent again"
        else:
            why = f"and the duplicate window of {reach:g} s is over"
        text = f"{_doing(publish)}: whether it is stored is not known: its acknowledgement was lost, {why}"
        return errors.explained(errors.DisconnectedError, text, sent=True)

    # The one timer.

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.over is None and (due := self.window.due()) != inf:
            self._wake_by(due)

    def _wake_by(self, due: float) -> None:
        """Look again when something is due, unless that is done before."""
        when = trio.current_time() + max(0.0, due - self.pipeline.now())
        if self._timer is not None:
            if self._timer.when <= when:
                return
            self._timer.cancel()
        self._timer = self._api.connection.call_at(when, self._time_came)

    def _time_came(self) -> None:
        self._timer = None
        self._step()

    def _give_up(self, token: str, last: Msg | Exception) -> None:
        """Take what has come for all that comes, where the domain is to be a certain one."""
        publish = self.window.awaited.pop(token, None)
        if publish is None:
            return
        if isinstance(last, Exception):
            self._settle(publish, no_stream(_doing(publish), str(last)))
        else:
            self._judge(publish, last)


def _doing(publish: Publish) -> str:
    return f"publish to {publish.subject!r}"


async def settled(publish: Publish | Ingested) -> None:
    """Wait until a publish, of a publisher or of an ingest, has an outcome."""
    while publish.outcome is None:
        if publish.told is None:
            publish.told = trio.Event()
        await publish.told.wait()


def failed(publish: Publish | Ingested) -> tuple[errors.FailedMsg, Exception]:
    """Say of a publish that failed what it was, and why.

    Args:
        publish: The publish, of a publisher or of an ingest.
    """
    assert publish.queued is not None, "it is kept until there is an acknowledgement"
    block, payload = commands.taken_apart(publish.queued.frame)
    fields: Mapping[str, str] | None = None if block is None else headers.parse(block).fields
    message = errors.FailedMsg(publish.subject, payload, fields, None if fields is None else fields.get(MSG_ID))
    return message, publish.outcome
