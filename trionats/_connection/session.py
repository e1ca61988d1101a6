"""One connection while it lasts: its reader, writer and pinger.

The three tasks never raise what the network does to them. Whichever meets the end of the connection says why (`lose`), all
three end, and the supervisor reads `reason`: only bugs cross the nursery.

The stream has one owner for each direction. `send_all` stands in the writer only, because a cancelled `send_all` leaves half a
frame (design 5); everybody else appends whole frames to the engine's outbox, which needs no await and cannot be cancelled, and
wakes the writer. The one shortcut is `push`: with the writer idle and nothing queued before it, a frame may be given to the
socket at once, and the writer gets what that did not take.

In a migration there are two sessions at once, and they exchange the engines that they speak for (see `migration`). So the tasks
ask for `engine` anew after each wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import errors
from trionats._connection.handshake import LAST_WORDS_SECONDS, READ_SIZE
from trionats._connection.wire import broken, told_goodbye
from trionats._feeds.pace import TRIP_MESSAGES, TRIP_SECONDS

if TYPE_CHECKING:
    from trionats._connection.options import Options
    from trionats._connection.wire import Wire
    from trionats._feeds.pace import Pace
    from trionats._protocol.addresses import Server
    from trionats._protocol.engine import Engine
    from trionats._protocol.happenings import Event

#: A payload under way may ask for more than READ_SIZE, up to this.
MAX_READ = 1_048_576
#: How much is read behind a large payload while one follows the other: the next ones, whole, which are two chunks of an object,
#: with what stands before them. Of many small messages as much would be too many at once (design 35).
READ_AHEAD = 270_336
#: A batch for the stream ends before it grows over this: what a connection that breaks can leave in doubt. Two chunks of an
#: object, with what stands before them.
BATCH_SIZE = 270_336
#: How much more than its share a consumer gets that is behind.
PATIENCE = 4


class PongWaiter:
    """Somebody waits for the PONG behind a PING: what a PING's token is in the engine."""

    __slots__ = ("_come", "_error")

    def __init__(self) -> None:
        self._come = trio.Event()
        self._error: Exception | None = None

    def arrived(self) -> None:
        """Wake the waiter: the server has processed all that was sent before."""
        self._come.set()

    def failed(self, error: Exception) -> None:
        """Wake the waiter: the connection broke first."""
        self._error = error
        self._come.set()

    async def wait(self) -> None:
        """Wait for the PONG.

        Raises:
            nats.errors.Error: The connection broke first.
        """
        await self._come.wait()
        if self._error is not None:
            raise self._error


class SessionOwner(Protocol):
    """The supervisor, as far as a session needs it."""

    idle: trio.Event | None
    """As `Session.idle`, of the session that the client's calls go to."""
    pace: Pace

    def handle(self, session: Session, event: Event) -> None:
        """Take what the server says besides messages."""

    def unpark_room(self) -> None:
        """Let those go on who wait for room in the outbox: something was sent."""

    def session_ending(self, session: Session) -> None:
        """Take over what the session leaves open: it has begun to end, and `reason` says why."""


class Session:
    """One connection, from the login to its end."""

    def __init__(self, owner: SessionOwner, wire: Wire, server: Server, engine: Engine, options: Options) -> None:
        self._owner = owner
        self._options = options
        self.wire = wire
        self.server = server
        self.engine = engine
        """What speaks here."""
        self.in_front = False
        """Whether this is the one that the client's calls go to; then the owner's `idle` is ours."""
        self.idle: trio.Event | None = None
        """What wakes the writer; None while it is busy and will look at the outbox by itself."""
        self.gate: trio.Event | None = None
        """What the writer waits for before it sends anything more; None for nothing."""
        self.rest: bytes | memoryview | list[bytes | memoryview] = b""
        """What is left of a batch that was sent in part."""
        self.reason: Exception | None = None
        """Why it ended."""
        self.forced = False
        """It is left on purpose, for another connection."""
        self.lame = False
        """The server has said that it is about to go."""
        self.over = trio.Event()
        """Its tasks are gone, and the connection is closed."""
        self.news = trio.Event()
        """The supervisor has something to decide: it has begun to end, or the server goes."""
        self._refusal: Exception | None = None
        self._scope = trio.CancelScope()

    @enable_ki_protection
    async def run(self) -> None:
        """Read, write and ping, until the connection is lost or closed."""
        try:
            with self._scope:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(self._read, name="trionats reader")
                    tasks.start_soon(self._write, name="trionats writer")
                    tasks.start_soon(self._ping, name="trionats pinger")
        finally:
            self.idle = None
            if self.in_front:
                self._owner.idle = None
            await self.wire.aclose()
            self.over.set()

    def lose(self, reason: Exception) -> None:
        """End it; the first reason stays."""
        self._scope.cancel()
        if self.reason is None:
            self.reason = reason
            self.wire.close()
            self.news.set()
            self._owner.session_ending(self)

    def refused(self, error: Exception) -> None:
        """Keep what the server said last: if it goes now, that is why."""
        self._refusal = error

    def wake(self) -> None:
        """Wake the writer: there is something to send."""
        if self.idle is not None:
            self.idle.set()
            self.idle = None
            if self.in_front:
                self._owner.idle = None

    def open_gate(self) -> None:
        """Let the writer send again."""
        if self.gate is not None:
            self.gate.set()
            self.gate = None
        self.wake()

    def push(self) -> None:
        """Send what was just queued at once, if nothing is before it; else as `wake`."""
        engine = self.engine
        send_now = self.wire.send_now
        if send_now is None or self.idle is None or self.gate is not None or len(engine.outbox.frames) != 1:
            self.wake()
            return
        batch = engine.outbox.take(BATCH_SIZE)
        if not batch:
            return
        if isinstance(batch, list):
            # So much seldom fits at once.
            self.rest = batch
            self.wake()
            return
        try:
            sent = send_now(batch)
        except OSError:
            sent = 0  # a full socket, or a broken one: the writer finds out which
        if sent == len(batch):
            engine.outbox.sent()
        else:
            self.rest = memoryview(batch)[sent:]
            self.wake()

    @enable_ki_protection
    async def _read(self) -> None:
        wire = self.wire
        ahead, run = READ_AHEAD, False
        while True:
            wanted = self.engine.wanted
            # In a run the end of a payload is no reason to stop there: it is the next one that begins behind it.
            size = min(wanted + ahead, MAX_READ) if run or wanted > READ_SIZE else READ_SIZE
            try:
                data = await wire.receive_some(size)
            except trio.BrokenResourceError as error:
                self.lose(self._broken(error))
                return
            if not data:
                self.lose(self._closed())
                return
            engine = self.engine
            before = engine.in_msgs
            # Only what the server says last is why it goes.
            self._refusal = None
            for event in engine.receive(data):
                self._owner.handle(self, event)
            if engine.outbox.frames:
                self.wake()
            messages = engine.in_msgs - before
            ahead = READ_AHEAD if messages * READ_SIZE <= len(data) else 0
            run = len(data) >= ahead > 0
            if messages >= TRIP_MESSAGES:
                await self._share(messages)

    async def _share(self, messages: int) -> None:
        """Let consumers run: as often as it takes to receive so many messages, where they receive as fast as they can.

        Each takes TRIP_MESSAGES in one go, or ends its turn after a millisecond, however little of it the operating system
        gave it. So those that are behind get more turns, until they have had the processor for as long as those turns are:
        who is slow by its own work holds up no reading.
        """
        pace = self._owner.pace
        turns = messages // TRIP_MESSAGES
        enough = pace.worked() + turns * TRIP_SECONDS
        for turn in range(turns * PATIENCE):
            before, pace.behind = pace.behind, False
            await checkpoint()
            # Trio runs the tasks of one turn in any order: in one turn alone a consumer may not have had its own.
            if turn + 1 >= turns and (not (pace.behind or before) or pace.worked() > enough):
                return

    @enable_ki_protection
    async def _write(self) -> None:
        while True:
            if self.gate is not None:
                await self.gate.wait()
            batch = self.rest or self.engine.outbox.take(BATCH_SIZE)
            self.rest = b""
            if batch:
                try:
                    if isinstance(batch, list):
                        await self.wire.send_pieces(batch)
                    else:
                        await self.wire.send_all(batch)
                except trio.BrokenResourceError as error:
                    # The server may have said why; then the reader is about to hear it.
                    await trio.sleep(LAST_WORDS_SECONDS)
                    self.lose(self._broken(error))
                    return
            outbox = self.engine.outbox
            outbox.sent()
            self._owner.unpark_room()
            if not (outbox.frames and outbox.sendable):
                self.idle = idle = trio.Event()
                if self.in_front:
                    self._owner.idle = idle
                await idle.wait()

    @enable_ki_protection
    async def _ping(self) -> None:
        while True:
            await trio.sleep(self._options.ping_interval)
            if not self.engine.keepalive(self._options.max_outstanding_pings):
                count = self._options.max_outstanding_pings
                text = f"{self.server} did not answer {count} pings, {self._options.ping_interval:g} s apart"
                self.lose(errors.explained(errors.StaleConnectionError, text))
                return
            self.wake()

    def _closed(self) -> Exception:
        """Say why the server closed the connection: in its own last words if it had some, with those of a WebSocket behind."""
        told = told_goodbye(self.wire.goodbye)
        if self._refusal is None:
            return errors.explained(errors.UnexpectedEOF, f"{self.server} closed the connection{told}")
        reason = errors.again(self._refusal)
        reason.args = (f"{reason}{told}",)
        return reason

    def _broken(self, error: trio.BrokenResourceError) -> Exception:
        return self._refusal or broken(error, self.server)
