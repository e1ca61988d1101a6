"""The connection kept alive: a client's supervisor dials, runs a session until that ends, and dials again.

The shield and the sentinel (design 6)
--------------------------------------
The client's tasks live in the caller's nursery, so they would be cancelled in the moment in which what uses them is, and no
goodbye could be sent: no UNSUB, no ack, no last publish. So all of them (sessions, timers, migrations) run in a nursery of
their own in a *shielded* scope (`Supervisor.run`), which nothing from outside cancels. A shield must be bounded, or a dead peer
holds the caller's nursery for ever. Three things end this one:

* `close`, when the client's block ends. What was queued is sent, a PING behind it, and the scope is cancelled when its PONG has
  come, after `close_timeout` at the latest. The wait is shielded too, since the block may be leaving by a cancellation.
* No server is left to try, or none is to be tried: the loop returns why.
* The caller's nursery is cancelled while the block stands in another task and may not hear of it. The sentinel beside the
  shield does (`watch_nursery`: no shield, nothing to do but wait), and gives the shielded scope `close_timeout` to live.

However it ends, `_finish` runs once, and wakes whoever waits for anything of the connection: each wait here has its way out.

Only bugs cross the nursery. What the network does is recorded by the session (`Session.reason`) and told as an event, and the
next dial follows.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import errors, events
from trionats._connection.dial_plan import DialPlan
from trionats._connection.handshake import LAST_WORDS_SECONDS, connect, refusal
from trionats._connection.migration import Migrator
from trionats._connection.session import PongWaiter, Session
from trionats._connection.timers import Timekeeper
from trionats._feeds.feed import CLEANUP_SECONDS
from trionats._protocol.commands import LENGTHS
from trionats._protocol.engine import Engine, Phase
from trionats._protocol.happenings import Event, Garbage, InfoChanged, Loss, OverLimit, PongArrived, Refused
from trionats._protocol.server_errors import hint_at_inbox, is_control_line, is_subscription_limit
from trionats._protocol.showing import hidden

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from trionats._connection.options import Options
    from trionats._connection.tls import TLSState
    from trionats._feeds.pace import Pace
    from trionats._protocol.addresses import Server

#: How long a server that is left may take to confirm what it was sent.
FENCE_SECONDS = 1.0
#: How much may wait to be sent while there is a connection, where nothing may wait for one.
LEAST_PENDING = 2 * 1024 * 1024


class Supervisor:
    """One client's connection, through all its sessions.

    Raises:
        ValueError: (from the constructor) A URL or a wait is not valid.
        ImportError: (from the constructor) A URL is a WebSocket's, and the extra `websocket` is not installed.
    """

    def __init__(
        self,
        engine: Engine,
        servers: str | Sequence[str],
        options: Options,
        pace: Pace,
        emit: Callable[[events.ConnectionEvent], None],
    ) -> None:
        self._engine = engine
        self._outbox = engine.outbox
        self._plan = DialPlan(servers, options, engine, emit)
        self._pool = self._plan.pool
        self._options = options
        self.pace = pace
        self._emit = emit
        self._scope = trio.CancelScope(shield=True)
        self._tasks: trio.Nursery | None = None
        self._migrator = Migrator(self, engine, self._plan, options)
        self.current: Session | None = None
        """The session that the client's calls go to; None while there is none."""
        self._aside: Session | None = None
        """The other one, in a migration."""
        self.idle: trio.Event | None = None
        """What wakes its writer; None while that is busy, or there is none."""
        self._room = trio.lowlevel.ParkingLot()
        self.timekeeper = Timekeeper()
        self._online = trio.Event()
        self._settled = trio.Event()
        self._arrival = trio.Event()
        self._hurried = False
        self.finished = trio.Event()
        self.failure: BaseException | None = None
        """Why the connection was given up; None while it lives, and when it was closed on purpose."""
        self.server: Server | None = None
        self.reconnects = 0
        self.accepting = True
        """False once the client is being closed: only goodbyes are queued then."""
        self.max_payload = 1_048_576
        self.small = 0
        """Up to how many bytes a payload without headers takes the short way; none before the server said its limit."""
        self.pending_size = max(options.pending_size, 0)
        """How much may wait: for the writer, or for a connection."""
        self.high_water = self.pending_size
        """From how many waiting bytes on a publish has to look whether it may: `pending_size`, or 0 once it may not."""
        self.draining = False
        self.flushing = False
        """A drain is through with the subscriptions, and sends what is left."""
        self.silent = False
        """A drain found the server silent: the last goodbye is sent, but its PONG not waited for."""

    # In the caller's nursery.

    @enable_ki_protection
    async def run(self) -> None:
        """Connect, and stay connected until `close`, or until there is no server left to try."""
        reason: BaseException | None = None
        try:
            with self._scope:
                async with trio.open_nursery() as tasks:
                    self._tasks = tasks
                    tasks.start_soon(self.timekeeper.run, name="trionats timekeeper")
                    reason = await self._supervise()
                    tasks.cancel_scope.cancel()
        except BaseException as bug:
            reason = bug
            raise
        finally:
            self._finish(reason)

    @enable_ki_protection
    async def watch_nursery(self) -> None:
        """Be the sentinel: when the nursery is cancelled, the shielded scope gets `close_timeout` for its goodbyes."""
        try:
            await self.finished.wait()
        except trio.Cancelled:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + self._options.close_timeout)
            raise

    async def wait_settled(self) -> None:
        """Wait until the first connection stands, or is given up; with `retry_on_failed_connect` for neither.

        Raises:
            nats.errors.Error: Why no connection stands.
        """
        if self._options.retry_on_failed_connect:
            await checkpoint()
            return
        await self._settled.wait()
        if self.finished.is_set():
            raise self.failure or errors.explained(errors.ConnectionClosedError, "closed before it was connected")

    async def close(self) -> None:
        """Say goodbye and end the connection: bounded by `close_timeout`, shielded against cancellation.

        What was queued is sent and confirmed by the server, unless it does not do so in time. Disconnected there is nobody
        to say goodbye to, and it does not wait.
        """
        limit = self._options.close_timeout
        with trio.move_on_after(min(limit, LAST_WORDS_SECONDS) if self.silent else limit, shield=True):
            if self._engine.phase is Phase.ONLINE:
                pong = PongWaiter()
                self._engine.ping(pong)
                self.wake()
                with suppress(errors.Error):
                    await pong.wait()
        self._scope.cancel()
        with trio.move_on_after(CLEANUP_SECONDS, shield=True):
            await self.finished.wait()
            # `watch_nursery` was woken together with us: let it go first.
            await checkpoint()

    # What the client needs.

    def wake(self) -> None:
        """Wake the writers: there is something to send."""
        if self.idle is not None and self.current is not None:
            self.current.wake()
        if self._aside is not None:
            self._aside.wake()

    def push(self) -> None:
        """Send what was just queued at once, if nothing is before it; else as `wake`.

        A request waits for its reply, so a trip through the scheduler before it leaves is pure delay.
        """
        if self.current is not None:
            self.current.push()

    @property
    def tls(self) -> TLSState | None:
        """What secures the connection right now."""
        return None if self.current is None else self.current.wire.tls

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers that are known."""
        return self._pool.servers

    @property
    def has_room(self) -> bool:
        """Whether the outbox is below its high-water mark."""
        return self._outbox.bytes < self.pending_size

    def refuse(self) -> None:
        """Queue nothing more but goodbyes: the client is being closed, or lost."""
        self.accepting = False
        self.high_water = 0

    async def wait_room(self) -> None:
        """Wait until the outbox is below its high-water mark. A checkpoint if it waits, and if it fails.

        Raises:
            nats.errors.OutboundBufferLimitError: It is full, and there is no connection to empty it.
            nats.errors.ConnectionClosedError: The client is closed.
        """
        while not self.has_room or not self.accepting:
            if self.accepting and self._engine.phase is Phase.ONLINE:
                await self._room.park()
                continue
            # A program that tries again at once must not keep us from connecting.
            await checkpoint()
            self.check_open()
            if not self.has_room and self._engine.phase is not Phase.ONLINE:
                raise self._full()

    def check_room(self) -> None:
        """Refuse a frame where `wait_room` would wait.

        Raises:
            trio.WouldBlock: The outbox is full.
            nats.errors.OutboundBufferLimitError: It is full, and there is no connection to empty it.
        """
        if not self.has_room:
            if self._engine.phase is not Phase.ONLINE:
                raise self._full()
            raise trio.WouldBlock

    def check_open(self) -> None:
        """Refuse to go on with a connection that was given up.

        Raises:
            nats.errors.ConnectionClosedError: It was closed or lost; the cause says why.
        """
        if not self.accepting:
            self.pace.run.check()
            why = f": {self.failure}" if self.failure is not None else ""
            raise errors.explained(errors.ConnectionClosedError, f"the client is closed{why}") from self.failure

    async def wait_online(self) -> None:
        """Wait until there is a connection.

        Raises:
            nats.errors.ConnectionClosedError: There will be none.
        """
        while self._engine.phase is not Phase.ONLINE:
            self.check_open()
            await self._online.wait()

    async def barrier(self) -> None:
        """Wait until the server has processed all that was queued before.

        Raises:
            nats.errors.Error: The connection broke or was given up before the PONG came.
        """
        await self.wait_online()
        pong = PongWaiter()
        self._engine.ping(pong)
        self.push()
        await pong.wait()

    async def reconnect(self) -> None:
        """Leave the connection for a new one, and wait until that stands (design 52).

        Raises:
            nats.errors.ConnectionClosedError: There will be none.
        """
        self.check_open()
        old = self.current
        if old is None or old.reason is not None:
            self.hurry()
        elif not old.forced:
            old.forced = True
            self.start_task(self._leave, old)
        while self.current is old or self.current is None or self.current.reason is not None:
            self.check_open()
            await self._arrival.wait()

    async def _leave(self, old: Session) -> None:
        """End a session once the server has taken what was queued before, so that nothing published later overtakes it."""
        reason = errors.explained(errors.DisconnectedError, "reconnect() was called")
        try:
            pong = PongWaiter()
            old.engine.fence(pong)
            old.wake()
            with trio.move_on_after(FENCE_SECONDS), suppress(errors.Error):
                await pong.wait()
        finally:
            # A migration may have left it meanwhile, which sees to what is on its way there.
            if self.current is old:
                old.lose(reason)

    def hurry(self) -> None:
        """End the wait for the next attempt; while one is under way, the wait that follows it."""
        self._hurried = True
        self._plan.hurry()

    def set_servers(self, servers: str | Sequence[str]) -> None:
        """Put other servers in the place of all; a wait for one of the old ones ends.

        Raises:
            ValueError: A URL is not valid.
            ImportError: A URL is a WebSocket's, and the extra `websocket` is not installed.
        """
        self._plan.replace(servers)
        if self.current is not None and self.current.lame:
            self.current.news.set()

    # Dialling, again and again.

    async def _supervise(self) -> BaseException:
        if self._options.retry_on_failed_connect:
            session = await self._redial()
        else:
            session, failures = await self._try_each()
            if session is None:
                return _no_server(failures)
        announce: type[events.Connected | events.Reconnected] = events.Connected
        while session is not None:
            last = await self._run_session(session, announce(str(session.server)))
            assert last.reason is not None, "a session ends for a reason"
            if not (self._options.allow_reconnect or last.forced):
                return last.reason
            session = await self._redial()
            self.reconnects += session is not None
            announce = events.Reconnected
        return self._pool.surrender()

    async def _try_each(self) -> tuple[Session | None, list[tuple[Server, Exception]]]:
        """Try each server once, for the first connection."""
        failures: list[tuple[Server, Exception]] = []
        for _ in self._pool.servers:
            dial = self._pool.next(trio.current_time())
            if dial is None:
                break
            try:
                return await self._dial(dial.server), failures
            except (OSError, errors.Error) as error:
                # The frames of our own say nothing about a dial that failed.
                self._give_up(dial.server, error.with_traceback(None))
                failures.append((dial.server, error))
        return None, failures

    async def _redial(self) -> Session | None:
        """Try the servers as the plan says, until one lets us in or none is left."""
        while (dial := self._plan.next()) is not None:
            if not await self._plan.wait_for(dial):
                continue
            try:
                return await self._dial(dial.server)
            except (OSError, errors.Error) as error:
                self.dial_failed(dial.server, error.with_traceback(None))
            if self._hurried:
                self._plan.hurry()
        return None

    async def _dial(self, server: Server) -> Session:
        self._hurried = False
        wire = await connect(server, self._engine, self._options)
        return Session(self, wire, server, self._engine, self._options)

    def _give_up(self, server: Server, error: Exception) -> None:
        # It may have failed after the welcome, with the server's next word, and somebody may have pinged by then.
        self._tell_loss(self._engine.lost(error), error)
        self._pool.failed(server, error, trio.current_time())

    def dial_failed(self, server: Server, error: Exception) -> None:
        """Note that a server could not be reached, and say so."""
        if self.current is None:
            self._give_up(server, error)
        else:
            self._pool.failed(server, error, trio.current_time())
        self._emit(events.ReconnectFailed(str(server), error))

    # One session.

    async def _run_session(self, session: Session, announcement: events.ConnectionEvent) -> Session:
        """Run a session, and those that follow it by migrations.

        Returns:
            The one that was lost.
        """
        session.in_front = True
        self._connected(session)
        self.start(session)
        self._emit(announcement)
        self.report_oversized()
        self._informed(session, self._engine.info)
        while session.reason is None:
            await session.news.wait()
            session.news = trio.Event()
            if session.reason is None and self._options.allow_reconnect:
                session = await self._migrator.migrate(session) or session
        await session.over.wait()
        self._disconnected(session, session.reason)
        return session

    def _connected(self, session: Session) -> None:
        self.current = session
        self.server = session.server
        self._let_wait(self._options.pending_size if self._options.pending_size > 0 else LEAST_PENDING)
        self._pool.connected(session.server, trio.current_time())
        self._online.set()
        self._settled.set()
        self._arrival.set()
        self._arrival = trio.Event()

    def _let_wait(self, size: int) -> None:
        self.pending_size = size
        self.high_water = size if self.accepting else 0

    def _disconnected(self, session: Session, reason: Exception) -> None:
        self.current = None
        self._let_wait(max(self._options.pending_size, 0))
        self._online = trio.Event()
        self._tell_loss(self._engine.lost(reason), reason)
        self._pool.lost(session.server, trio.current_time(), reason, forced=session.forced)
        code, words = session.wire.goodbye or (None, "")
        self._emit(events.Disconnected(str(session.server), reason, code, words))

    def _tell_loss(self, loss: Loss, reason: Exception) -> None:
        """Tell those who waited for the session that it is over."""
        for pong in loss.pings:
            text = f"the connection was lost before the server answered: {reason}"
            pong.failed(errors.explained(errors.DisconnectedError, text))
        if loss.frames:
            self._emit(events.PublishesLost(loss.frames))
        self._room.unpark_all()

    # What sessions and migrations ask and tell us.

    def start_task(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Start a task that lives no longer than the supervisor."""
        assert self._tasks is not None, "only a running supervisor has sessions"
        self._tasks.start_soon(task, *arguments, name="trionats migration")

    def start(self, session: Session) -> None:
        """Start the tasks of a session."""
        assert self._tasks is not None, "only a running supervisor has sessions"
        if session is not self.current:
            self._aside = session
        self._tasks.start_soon(session.run, name="trionats session")

    def take_over(self, old: Session, new: Session) -> None:
        """Make another session the client's own; its writer waits until its gate is opened."""
        old.engine, new.engine = new.engine, old.engine
        old.in_front, new.in_front = False, True
        new.gate = trio.Event()
        self._aside = old
        self.idle = None
        self._connected(new)

    def migrated(self, session: Session, left: Server) -> None:
        """Open the new session's gate, and tell that the client has migrated."""
        session.open_gate()
        self._emit(events.Moved(str(session.server), str(left)))
        self.report_oversized()
        self._informed(session, self._engine.info)

    def session_ending(self, session: Session) -> None:
        """Take over what a session leaves open: it has begun to end."""
        reason = session.reason
        assert reason is not None, "it says why first"
        if session is self.current:
            self._migrator.interrupt()
        elif session.engine is not self._engine:
            self._aside = None
            loss = session.engine.lost(reason)
            self._tell_loss(Loss(loss.frames + session.engine.outbox.discard(), loss.pings), reason)

    def unpark_room(self) -> None:
        """Let those go on who waited for room in the outbox, if there is some."""
        if self._room and self.has_room:
            self._room.unpark_all()

    def report_oversized(self) -> None:
        """Say what was not sent because the new server takes less than the last one."""
        if self._outbox.oversized:
            self._emit(events.PublishesTooLarge(self._outbox.oversized, self._engine.info["max_payload"]))
            self._outbox.oversized = 0

    # What the server says besides messages.

    def handle(self, session: Session, event: Event) -> None:
        """Take what the server says besides messages."""
        match event:
            case PongArrived(token):
                token.arrived()
            case InfoChanged(info):
                if session is self.current:
                    self._informed(session, info)
            case Refused(text):
                self._refused(session, text)
            case OverLimit(text):
                self._over_limit(session, text)
            case Garbage(error):
                error.args = (hidden(str(error), session.engine.confided),)
                session.lose(error)

    def _informed(self, session: Session, info: Mapping[str, Any]) -> None:
        # The server's word, so it may be anything.
        limit = self._engine.info.get("max_payload")
        if isinstance(limit, int) and limit > 0:
            self.max_payload = limit
        self.small = min(self.max_payload, len(LENGTHS) - 1)
        session.wire.allow(self.max_payload)
        # nats-server puts the addresses for WebSockets here, too, when it talks to one (`ws_connect_urls` is for the others).
        new = self._pool.discovered(info.get("connect_urls") or (), session.server)
        if new:
            self._emit(events.ServersDiscovered(tuple(map(str, new))))
        if info.get("ldm") is True and not session.lame:
            session.lame = True
            self._emit(events.LameDuck(str(session.server)))
            session.news.set()
        elif session.lame and new:
            session.news.set()

    def _refused(self, session: Session, text: str) -> None:
        error = refusal(session.server, text, session.engine.confided)
        if not isinstance(error, errors.PermissionsViolationError):
            session.refused(error)
            if not is_subscription_limit(text):
                self._emit(events.ServerRefusal(error))
            if is_control_line(text):
                self._engine.refuse_overlong(error)
            return
        if error.operation == "subscription":
            hint_at_inbox(error, f"{self._options.inbox_prefix}.")
            self._engine.refuse_subscription(error.subject, error.queue or "", error)
        self._emit(events.PermissionViolation(error))

    def _over_limit(self, session: Session, text: str) -> None:
        """End the subscriptions that were too many, each with an error that names it."""
        refused = session.engine.over_limit()
        said = refusal(session.server, text, session.engine.confided)
        for registration in refused:
            subject, queue = registration.subject.decode(), registration.queue.decode() or None
            error = errors.explained(
                errors.MaxSubscriptionsError,
                f"{said}; {subject!r} is not subscribed",
                subject=subject,
                queue=queue,
            )
            session.engine.refuse(registration, error)
            self._emit(events.ServerRefusal(error))
        if not refused:
            self._emit(events.ServerRefusal(said))

    # The end.

    def _full(self) -> Exception:
        text = f"{self._outbox.bytes} bytes wait for a connection; pending_size is {self.pending_size}"
        return errors.explained(errors.OutboundBufferLimitError, text)

    def _finish(self, reason: BaseException | None) -> None:
        self.failure = reason
        self.refuse()
        closed = errors.explained(errors.ConnectionClosedError, "the client was closed")
        loss = self._engine.lost(closed)
        self.finished.set()
        for pong in loss.pings:
            pong.failed(closed)
        self._engine.end_all(reason)
        if unsent := loss.frames + self._outbox.discard():
            self._emit(events.PublishesLost(unsent))
        self._room.unpark_all()
        self._online.set()
        self._settled.set()
        self._arrival.set()
        self._emit(events.Closed(reason))


def _no_server(failures: list[tuple[Server, Exception]]) -> Exception:
    """Say why the first connection could not be made."""
    for _, error in failures:
        if isinstance(error, errors.Error) and not isinstance(error, (errors.TimeoutError, errors.UnexpectedEOF)):
            return error
    told = "; ".join(f"{server}: {_without(str(error), str(server))}" for server, error in failures)
    failure = errors.explained(errors.NoServersError, f"no server could be reached: {told}")
    failure.__cause__ = failures[-1][1] if failures else None
    return failure


def _without(text: str, prefix: str) -> str:
    return text.removeprefix(f"{prefix}: ")
