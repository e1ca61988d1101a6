"""A planned move to another server: what waits, of what `_protocol.move` decides.

The supervisor's task dials and shakes hands, while the old connection goes on as if nothing were; only when the new one
stands does anything change. The old one is then left to a task of its own, until nobody waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from trionats import errors
from trionats._connection.handshake import connect
from trionats._connection.session import Answer, Session
from trionats._protocol.migration import LONGEST_STAY, QUEUE_OVERLAP, Migration, ignores_repeats

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trionats._connection.options import SupervisorOptions
    from trionats._connection.session import Owner
    from trionats._protocol.engine import Engine
    from trionats._protocol.servers import Dial, Server, ServerPool

#: How often the old side is looked at, while it is waited for.
POLL_SECONDS = 0.02
#: How long the old server may take for its last PONG.
FAREWELL_SECONDS = 1.0


class Supervisor(Protocol):
    """The supervisor, as far as a move needs it."""

    current: Session | None

    def next_dial(self, avoiding: Server | None = None) -> Dial | None:
        """Say which server is next, and when."""

    def start(self, session: Session) -> None:
        """Start the tasks of a session."""

    def take_over(self, old: Session, new: Session) -> None:
        """Make another session the client's own."""

    def arrived(self, session: Session, left: Server) -> None:
        """Know that the client's calls are served by the new side now."""

    def dial_failed(self, server: Server, error: Exception) -> None:
        """Note that a server could not be reached."""

    def wake(self) -> None:
        """Let the writer know that there is something to send."""

    def start_task(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Start a task that lives no longer than the supervisor."""


class Migrator:
    """The moves of one client, one after the other."""

    def __init__(
        self,
        supervisor: Supervisor,
        owner: Owner,
        engine: Engine,
        pool: ServerPool,
        options: SupervisorOptions,
    ) -> None:
        self._supervisor = supervisor
        self._owner = owner
        self._engine = engine
        self._pool = pool
        self._options = options
        self._attempt: trio.CancelScope | None = None
        self._left = trio.Event()
        self._left.set()
        self._hurry = False

    def interrupt(self) -> None:
        """Know that a session has ended: what waits for it looks again."""
        if self._attempt is not None:
            self._attempt.cancel()

    async def move(self, old: Session) -> Session | None:
        """Move to another server.

        Args:
            old: The session to leave; it goes on until the new one stands, and a while longer.

        Returns:
            The new session; None where there is no other server, or the old one ended first.
        """
        self._hurry = True
        await self._left.wait()
        self._hurry = False
        spread = self._pool.spread()
        while old.reason is None:
            dial = self._supervisor.next_dial(avoiding=old.server)
            if dial is None:
                return None
            move = Migration(self._engine, self._options.inbox_prefix)
            with trio.CancelScope() as self._attempt:
                await trio.sleep_until(max(dial.not_before, trio.current_time() + spread))
                spread = 0.0
                new = await self._arrive(dial, move)
                if new is not None:
                    await self._cross(old, new, move)
            if self._supervisor.current is not old:
                return self._supervisor.current
        return None

    async def _arrive(self, dial: Dial, move: Migration) -> Session | None:
        """Log in elsewhere, and subscribe there what may be on both sides."""
        server = dial.server
        try:
            wire = await connect(server, move.side, self._options)
        except (OSError, errors.Error) as error:
            self._supervisor.dial_failed(server, error.with_traceback(None))
            return None
        new = Session(self._owner, wire, server, move.side, self._options)
        self._supervisor.start(new)
        try:
            if move.side.info.get("ldm"):
                raise errors.explained(errors.UnexpectedEOF, f"{server} is about to go, too")
            answer = Answer()
            move.arrive(answer)
            new.wake()
            with trio.fail_after(self._options.connect_timeout):
                await answer.wait()
        except (trio.TooSlowError, errors.Error) as error:
            reason = error if isinstance(error, errors.Error) else _silent(server)
            self._supervisor.dial_failed(server, reason)
            new.lose(reason)
            move.abandon()
            return None
        except BaseException:
            new.lose(errors.explained(errors.DisconnectedError, f"the move to {server} was interrupted"))
            move.abandon()
            raise
        return new

    async def _cross(self, old: Session, new: Session, move: Migration) -> None:
        """Switch over; what crosses the fence is on no side meanwhile."""
        fence = Answer()
        move.switch(fence)
        answers = Awaited(self._engine)
        self._supervisor.take_over(old, new)
        reason: Exception | None = _silent(old.server)
        self._left = trio.Event()
        try:
            old.wake()
            with trio.move_on_after(self._options.connect_timeout):
                await fence.wait()
                reason = None
        except errors.Error as error:
            reason = error
        finally:
            if reason is not None:
                old.lose(reason)
            move.crossed(reason)
            self._supervisor.arrived(new, old.server)
            self._supervisor.start_task(self._linger, old, new, move, answers)

    async def _linger(self, old: Session, new: Session, move: Migration, answers: Awaited) -> None:
        """Stay on the old side for answers in flight, then leave it."""
        deadline = trio.current_time() + LONGEST_STAY
        try:
            unqueue_at = trio.current_time() + QUEUE_OVERLAP
            while trio.current_time() < unqueue_at and self._both(old, new):  # noqa: ASYNC110 - several things end it, and it is short
                await trio.sleep(POLL_SECONDS)
            move.unqueue()
            old.wake()
            while not self._hurry and trio.current_time() < deadline and self._both(old, new):
                if not (move.awaited or answers.missing):
                    break
                await trio.sleep(POLL_SECONDS)
            if self._both(old, new):
                farewell = Answer()
                move.leave(farewell)
                old.wake()
                with trio.move_on_after(FAREWELL_SECONDS):
                    await farewell.wait()
        except errors.Error:
            pass  # the old side went first
        finally:
            text = f"the connection moved from {old.server} to {new.server}"
            reason = errors.explained(errors.DisconnectedError, text)
            old.lose(reason)
            move.close(old.reason or reason, still=self._supervisor.current is new and new.reason is None)
            self._supervisor.wake()
            self._left.set()

    def _both(self, old: Session, new: Session) -> bool:
        return old.reason is None and new.reason is None and self._supervisor.current is new


class Awaited:
    """Which answers are waited for right now, by receivers that ignore what comes twice."""

    def __init__(self, engine: Engine) -> None:
        receivers = [row.receiver for row in engine.registrations.values()]
        self._receivers = [receiver for receiver in receivers if ignores_repeats(receiver)]
        self._names = self._now()

    @property
    def missing(self) -> bool:
        """Whether one of them still is."""
        self._names &= self._now()
        return bool(self._names)

    def _now(self) -> frozenset[str]:
        return frozenset().union(*(receiver.waiting() for receiver in self._receivers))


def _silent(server: Server) -> errors.Error:
    return errors.explained(errors.TimeoutError, f"{server} did not answer in time while we moved")
