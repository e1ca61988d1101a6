"""The connection kept alive: the supervisor, and the reader, writer and pinger of one conversation.

The part of the client that owns tasks (split off `_client`, which is what users call). `Link.run` lives in the caller's
nursery in a shielded scope: it dials, shakes hands, runs the three tasks of the conversation until one of them says why
it ended, and dials again. Reader and writer never raise what the network does to them; they record it (`_lose`) and
cancel the conversation. Only bugs cross the nursery.

The stream has one owner for each direction. `send_all` stands in the writer only, because a cancelled `send_all` leaves
half a frame; everybody else appends whole frames to the engine's outbox, which needs no await and cannot be cancelled.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import _transport, errors, events
from trionats._feed import CLEANUP_SECONDS, TRIP_MESSAGES
from trionats._handshake import READ_SIZE, connect, refusal
from trionats._protocol.alarms import Alarms
from trionats._protocol.commands import LENGTHS
from trionats._protocol.engine import Answered, Engine, Event, Garbage, InfoChanged, Loss, Phase, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trionats._options import LinkOptions
    from trionats._protocol.alarms import Alarm
    from trionats._protocol.servers import Server, ServerPool
    from trionats._tls import TLSState
    from trionats._transport import Wire

#: A payload under way may ask for more than READ_SIZE, up to this.
MAX_READ = 1_048_576
#: A batch for the stream ends before it grows over this: what a broken link can leave in doubt.
BATCH_SIZE = 262_144
#: How long a connection that takes nothing more is still read.
LAST_WORDS_SECONDS = 0.25


class Answer:
    """Somebody waits for the PONG behind a PING."""

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
        """Wait for it.

        Raises:
            nats.errors.Error: The connection broke before the answer came.
        """
        await self._come.wait()
        if self._error is not None:
            raise self._error


class Link:
    """One client's connection, through all its conversations."""

    def __init__(
        self, engine: Engine, pool: ServerPool, options: LinkOptions, emit: Callable[[events.ConnectionEvent], None]
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._options = options
        self._emit = emit
        self._scope = trio.CancelScope(shield=True)
        self._conversation: trio.CancelScope | None = None
        self._reason: Exception | None = None
        self._refusal: Exception | None = None
        self.idle: trio.Event | None = None
        """What wakes the writer; None while it is busy and will look at the outbox by itself."""
        self._wire: Wire | None = None
        self._rest = b""
        self._room = trio.lowlevel.ParkingLot()
        self._alarms = Alarms()
        self._asleep_until = -inf
        self._earlier = trio.Event()
        self._online = trio.Event()
        self._settled = trio.Event()
        self.finished = trio.Event()
        self.failure: BaseException | None = None
        """Why the link was given up; None while it lives, and when it was closed on purpose."""
        self.server: Server | None = None
        self.reconnects = 0
        self.accepting = True
        """False once the client is being closed: only goodbyes are queued then."""
        self.max_payload = 1_048_576
        self.small = 0
        """Up to how many bytes a payload without headers takes the short way; none before the server said its limit."""
        self.pending_size = options.pending_size

    # Its life, in the caller's nursery.

    @enable_ki_protection
    async def run(self) -> None:
        """Connect, and stay connected until `close`, or until there is no server left to try."""
        reason: BaseException | None = None
        try:
            with self._scope:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(self._keep_time, name="trionats timekeeper")
                    reason = await self._supervise()
                    tasks.cancel_scope.cancel()
        except BaseException as bug:
            reason = bug
            raise
        finally:
            self._finish(reason)

    @enable_ki_protection
    async def watch_nursery(self) -> None:
        """Bound the link's shield when the nursery is cancelled: it gets `close_timeout` for its goodbyes."""
        try:
            await self.finished.wait()
        except trio.Cancelled:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + self._options.close_timeout)
            raise

    async def wait_settled(self) -> None:
        """Wait until the first connection stands, or is given up.

        Raises:
            nats.errors.Error: Why no connection stands.
        """
        await self._settled.wait()
        if self.finished.is_set():
            raise self.failure or errors.explained(errors.ConnectionClosedError, "closed before it was connected")

    async def close(self) -> None:
        """Say goodbye and end the link: bounded by `close_timeout`, shielded against cancellation.

        What was queued is sent and acknowledged by the server, unless it does not answer in time. Disconnected there is
        nobody to say goodbye to, and it does not wait.
        """
        with trio.move_on_after(self._options.close_timeout, shield=True):
            if self._engine.phase is Phase.ONLINE:
                answer = Answer()
                self._engine.ping(answer)
                self.wake()
                with suppress(errors.Error):
                    await answer.wait()
        self._scope.cancel()
        with trio.move_on_after(CLEANUP_SECONDS, shield=True):
            await self.finished.wait()
            # `watch_nursery` was woken together with us: let it go first.
            await checkpoint()

    # What the client needs.

    def wake(self) -> None:
        """Let the writer know that there is something to send."""
        if self.idle is not None:
            self.idle.set()
            self.idle = None

    def push(self) -> None:
        """Send what was just queued at once, if nothing is before it; else as `wake`.

        A request waits for its answer, so a trip through the scheduler before it leaves is pure delay.
        """
        engine = self._engine
        send_now = None if self._wire is None else self._wire.send_now
        if send_now is None or self.idle is None or len(engine.outbox) != 1:
            self.wake()
            return
        batch = engine.take(BATCH_SIZE)
        try:
            sent = send_now(batch)
        except OSError:
            sent = 0  # a full socket, or a broken one: the writer finds out which
        if sent == len(batch):
            engine.sent()
        else:
            self._rest = batch[sent:]
            self.wake()

    def alarm(self, when: float, ring: Callable[[], None]) -> Alarm:
        """Let `ring` be called at a time of Trio's clock, unless it is called off first: cheaper than a cancel scope.

        Args:
            when: The time.
            ring: What is called, synchronously: it must not wait and must not raise.
        """
        if when < self._asleep_until:
            self._earlier.set()
        return self._alarms.add(when, ring)

    @property
    def tls(self) -> TLSState | None:
        """What secures the connection right now."""
        return None if self._wire is None else self._wire.tls

    @property
    def has_room(self) -> bool:
        """Whether the outbox is below its high-water mark."""
        return self._engine.outbox_bytes < self.pending_size

    async def wait_room(self) -> None:
        """Wait until the outbox is below its high-water mark.

        Raises:
            nats.errors.OutboundBufferLimitError: It is full, and there is no connection to empty it.
            nats.errors.ConnectionClosedError: The client is closed.
        """
        while True:
            self.check_open()
            if self.has_room:
                return
            if self._engine.phase is not Phase.ONLINE:
                raise self._full()
            await self._room.park()

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
        """Refuse to go on with a link that ended.

        Raises:
            nats.errors.ConnectionClosedError: It was closed or lost; the cause says why.
        """
        if not self.accepting:
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
            nats.errors.Error: The connection broke or was given up before the server answered.
        """
        await self.wait_online()
        answer = Answer()
        self._engine.ping(answer)
        self.push()
        await answer.wait()

    # The supervisor.

    async def _supervise(self) -> BaseException:
        if (refused := await self._first_connect()) is not None:
            return refused
        while True:
            dial = self._pool.next(trio.current_time())
            if dial is None:
                return self._given_up()
            await trio.sleep_until(dial.not_before)
            try:
                wire = await connect(dial.server, self._engine, self._options)
            except (OSError, errors.Error) as error:
                self._dial_failed(dial.server, error)
                self._emit(events.ReconnectFailed(str(dial.server), error))
                continue
            self.reconnects += 1
            if (reason := await self._converse(wire, dial.server, events.Reconnected(str(dial.server)))) is not None:
                return reason

    async def _first_connect(self) -> BaseException | None:
        """Try each server once, and stay with the first that answers until it is lost."""
        failures: list[tuple[Server, Exception]] = []
        for _ in self._pool.servers:
            dial = self._pool.next(trio.current_time())
            if dial is None:
                break
            try:
                wire = await connect(dial.server, self._engine, self._options)
            except (OSError, errors.Error) as error:
                self._dial_failed(dial.server, error)
                failures.append((dial.server, error))
                continue
            return await self._converse(wire, dial.server, events.Connected(str(dial.server)))
        return _no_server(failures)

    def _dial_failed(self, server: Server, error: Exception) -> None:
        # It may have failed after the welcome, with the server's next word, and somebody may have pinged by then.
        self._leave_open(self._engine.lost(error), error)
        self._pool.failed(server, error, trio.current_time())

    def _given_up(self) -> Exception:
        last = self._pool.last_error
        if isinstance(last, errors.AuthorizationError):
            return last
        tried = ", ".join(map(str, self._pool.servers))
        failure = errors.explained(errors.NoServersError, f"no server is left to reconnect to ({tried}): {last}")
        failure.__cause__ = last
        return failure

    # One conversation.

    async def _converse(self, wire: Wire, server: Server, announcement: events.ConnectionEvent) -> BaseException | None:
        """Run a conversation to its end.

        Returns:
            None when it is to be followed by another one, else why not.
        """
        self._connected(server)
        self._emit(announcement)
        self._informed(self._engine.info)
        try:
            async with trio.open_nursery() as tasks:
                self._conversation = tasks.cancel_scope
                self._wire = wire
                tasks.start_soon(self._read, wire, name="trionats reader")
                tasks.start_soon(self._write, wire, name="trionats writer")
                tasks.start_soon(self._ping, name="trionats pinger")
        finally:
            self._wire = None
            self.idle = None
            await wire.aclose()
        reason = self._reason
        assert reason is not None, "a conversation ends for a reason"
        self._online = trio.Event()
        self._leave_open(self._engine.lost(reason), reason)
        self._pool.lost(server, trio.current_time(), reason)
        self._emit(events.Disconnected(str(server), reason))
        return None if self._options.allow_reconnect else reason

    def _connected(self, server: Server) -> None:
        self.server = server
        self._reason = self._refusal = None
        self._rest = b""
        self._pool.connected(server, trio.current_time())
        self._online.set()
        self._settled.set()

    def _leave_open(self, loss: Loss, reason: Exception) -> None:
        """Tell those who waited for the conversation that it is over."""
        for answer in loss.pings:
            text = f"the connection was lost before the server answered: {reason}"
            answer.failed(errors.explained(errors.DisconnectedError, text))
        if loss.frames:
            self._emit(events.PublishesLost(loss.frames))
        self._room.unpark_all()

    def _lose(self, reason: Exception) -> None:
        """End the conversation; the first reason stays."""
        if self._reason is None:
            self._reason = reason
        if self._conversation is not None:
            self._conversation.cancel()

    @enable_ki_protection
    async def _read(self, wire: Wire) -> None:
        engine = self._engine
        while True:
            try:
                data = await wire.receive_some(min(max(READ_SIZE, engine.wanted), MAX_READ))
            except trio.BrokenResourceError as error:
                self._lose(self._broken(error))
                return
            if not data:
                self._lose(self._eof("closed the connection"))
                return
            before = engine.in_msgs
            # Only what the server says last is why it goes.
            self._refusal = None
            for event in engine.receive(data):
                self._handle(event)
            if engine.outbox:
                self.wake()
            # A consumer takes TRIP_MESSAGES in one go; without these trips a fast one could not keep up with the reader.
            for _ in range((engine.in_msgs - before) // TRIP_MESSAGES):
                await checkpoint()

    @enable_ki_protection
    async def _write(self, wire: Wire) -> None:
        engine = self._engine
        while True:
            batch = self._rest or engine.take(BATCH_SIZE)
            self._rest = b""
            if batch:
                try:
                    await wire.send_all(batch)
                except trio.BrokenResourceError as error:
                    # The server may have said why; then the reader is about to hear it.
                    await trio.sleep(LAST_WORDS_SECONDS)
                    self._lose(self._broken(error))
                    return
            engine.sent()
            if self._room and self.has_room:
                self._room.unpark_all()
            if not engine.outbox:
                self.idle = idle = trio.Event()
                await idle.wait()

    @enable_ki_protection
    async def _ping(self) -> None:
        while True:
            await trio.sleep(self._options.ping_interval)
            if not self._engine.keepalive(self._options.max_outstanding_pings):
                count = self._options.max_outstanding_pings
                text = f"{self.server} did not answer {count} pings, {self._options.ping_interval:g} s apart"
                self._lose(errors.explained(errors.StaleConnectionError, text))
                return
            self.wake()

    def _broken(self, error: trio.BrokenResourceError) -> Exception:
        assert self.server is not None
        return self._refusal or _transport.broken(error, self.server)

    def _eof(self, text: str) -> Exception:
        """Say why the stream ended: what the server said last, if it said something."""
        return self._refusal or errors.explained(errors.UnexpectedEOF, f"{self.server} {text}")

    @enable_ki_protection
    async def _keep_time(self) -> None:
        while True:
            self._alarms.ring(trio.current_time())
            self._earlier = trio.Event()
            next_alarm = self._alarms.next()
            self._asleep_until = inf if next_alarm is None else next_alarm
            with trio.move_on_at(self._asleep_until):
                await self._earlier.wait()

    # What the server says besides messages.

    def _handle(self, event: Event) -> None:
        match event:
            case Answered(token):
                token.arrived()
            case InfoChanged(info):
                self._informed(info)
            case Refused(text):
                self._refused(text)
            case Garbage(error):
                self._lose(error)

    def _informed(self, info: Mapping[str, Any]) -> None:
        # The server's word, so it may be anything.
        limit = self._engine.info.get("max_payload")
        if isinstance(limit, int) and limit > 0:
            self.max_payload = limit
        self.small = min(self.max_payload, len(LENGTHS) - 1)
        if self._wire is not None:
            self._wire.allow(self.max_payload)
        if self.server is None:
            return
        if info.get("ldm"):
            self._emit(events.LameDuck(str(self.server)))
        if new := self._pool.discovered(info.get("connect_urls") or ()):
            self._emit(events.ServersDiscovered(tuple(map(str, new))))

    def _refused(self, text: str) -> None:
        error = refusal(self.server, text)
        if not isinstance(error, errors.PermissionsViolationError):
            self._refusal = error
            self._emit(events.ServerRefusal(error))
            return
        if error.operation == "subscription":
            self._engine.refuse_subscription(error.subject, error.queue or "", error)
        self._emit(events.PermissionViolation(error))

    # The end.

    def _full(self) -> Exception:
        text = f"{self._engine.outbox_bytes} bytes wait for a connection; pending_size is {self.pending_size}"
        return errors.explained(errors.OutboundBufferLimitError, text)

    def _finish(self, reason: BaseException | None) -> None:
        self.failure = reason
        self.accepting = False
        closed = errors.explained(errors.ConnectionClosedError, "the client was closed")
        loss = self._engine.lost(closed)
        self.finished.set()
        for answer in loss.pings:
            answer.failed(closed)
        self._engine.end_all(reason)
        if unsent := loss.frames + self._engine.discard():
            self._emit(events.PublishesLost(unsent))
        self._room.unpark_all()
        self._online.set()
        self._settled.set()
        self._emit(events.Closed(reason))


@contextmanager
def default_deadline(seconds: float, what: str) -> Iterator[None]:
    """Bound a wait for the server where the caller has set no deadline.

    Args:
        seconds: How long.
        what: What was waited for, for the error.

    Raises:
        nats.errors.TimeoutError: There was no deadline in force, and `seconds` passed.
    """
    if trio.current_effective_deadline() != inf:
        yield
        return
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise errors.explained(errors.TimeoutError, f"{what}: no answer within {seconds:g} s")


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
