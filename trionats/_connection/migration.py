"""A planned migration to another server, carried out: what waits, of what `_protocol.migration` decides.

A server in lame duck mode asks its clients to go. The old connection goes on as if nothing were while the supervisor's task
dials and logs in elsewhere (`_arrive`), and only when the new one stands does anything change (design 29). What each server
hears, in this order:

1. The new one: CONNECT; the subscriptions that may be on both sides at once, and a PING. Its PONG says that they stand. If
   another server is about to go, too, or says nothing, it is left, and nothing has happened.
2. The old one: all that was published so far, the UNSUBs of what may be on one side only, and a PING: the fence. From here on
   (`_cross`) the client's calls go to the new session, but its writer waits at a gate, so that nothing published later overtakes
   what the old server still gets (design 30). What the fence guards is on no side meanwhile.
3. The new one, once the old one's PONG has come: those subscriptions, then what was published meanwhile.
4. The old one (`_linger`, a task of its own): after QUEUE_OVERLAP the UNSUBs of queue subscriptions; when no reply is waited for
   there any more, or after LONGEST_STAY, those of the inboxes that stayed, and a last PING. Behind its PONG it is closed.

Each of these waits is bounded, and ends early where a server goes before its turn. If the old one does, what is not on the new
side yet is brought there at once, and receivers are told as of a broken connection; if the new one does, the supervisor dials
again, and all is replayed.

All clients of the old server hear in the same millisecond that it goes, so the first dial waits for a random time (design 33).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from trionats import errors
from trionats._connection.handshake import connect
from trionats._connection.session import PongWaiter, Session, SessionOwner
from trionats._protocol.migration import LONGEST_STAY, QUEUE_OVERLAP, Migration, ignores_repeats

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trionats._connection.dial_plan import DialPlan
    from trionats._connection.options import Options
    from trionats._protocol.addresses import Server
    from trionats._protocol.engine import Engine
    from trionats._protocol.servers import Dial

#: How often it is looked whether the old session is still needed, while it is waited for.
POLL_SECONDS = 0.02
#: How long the old server may take for its last PONG.
FAREWELL_SECONDS = 1.0


class MigrationHost(SessionOwner, Protocol):
    """The supervisor, as far as a migration needs it."""

    current: Session | None

    def start(self, session: Session) -> None:
        """Start the tasks of a session."""

    def take_over(self, old: Session, new: Session) -> None:
        """Make another session the client's own."""

    def migrated(self, session: Session, left: Server) -> None:
        """Open the new session's gate, and tell that the client has migrated."""

    def dial_failed(self, server: Server, error: Exception) -> None:
        """Note that a server could not be reached, and say so."""

    def wake(self) -> None:
        """Wake the writers: there is something to send."""

    def start_task(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Start a task that lives no longer than the supervisor."""


class Migrator:
    """The migrations of one client, one after the other."""

    def __init__(self, host: MigrationHost, engine: Engine, plan: DialPlan, options: Options) -> None:
        self._host = host
        self._engine = engine
        self._plan = plan
        self._options = options
        self._inbox_prefix = f"{options.inbox_prefix}.".encode()
        self._attempt: trio.CancelScope | None = None
        self._left = trio.Event()
        self._left.set()
        self._hurry = False

    def interrupt(self) -> None:
        """End the attempt under way: the client's session has ended by itself."""
        if self._attempt is not None:
            self._attempt.cancel()

    async def migrate(self, old: Session) -> Session | None:
        """Leave a server that is about to go for another one.

        Args:
            old: The session to leave; it goes on until the new one stands, and a while longer.

        Returns:
            The new session; None where there is no other server, or the old one ended first.
        """
        self._hurry = True
        await self._left.wait()
        self._hurry = False
        spread = self._plan.pool.spread()
        while old.reason is None:
            dial = self._plan.next(avoiding=old.server)
            if dial is None:
                return None
            migration = Migration(self._engine, self._inbox_prefix)
            with trio.CancelScope() as self._attempt:
                await trio.sleep_until(max(dial.not_before, trio.current_time() + spread))
                spread = 0.0
                new = await self._arrive(dial, migration)
                if new is not None:
                    await self._cross(old, new, migration)
            if self._host.current is not old:
                return self._host.current
        return None

    async def _arrive(self, dial: Dial, migration: Migration) -> Session | None:
        """Log in elsewhere, and subscribe there what may be on both sides."""
        server = dial.server
        try:
            wire = await connect(server, migration.side, self._options)
        except (OSError, errors.Error) as error:
            self._host.dial_failed(server, error.with_traceback(None))
            return None
        new = Session(self._host, wire, server, migration.side, self._options)
        self._host.start(new)
        try:
            if migration.side.info.get("ldm"):
                raise errors.explained(errors.UnexpectedEOF, f"{server} is about to go, too")
            pong = PongWaiter()
            migration.arrive(pong)
            new.wake()
            with trio.fail_after(self._options.connect_timeout):
                await pong.wait()
        except (trio.TooSlowError, errors.Error) as error:
            reason = error if isinstance(error, errors.Error) else _silent(server)
            self._host.dial_failed(server, reason)
            new.lose(reason)
            migration.abandon()
            return None
        except BaseException:
            new.lose(errors.explained(errors.DisconnectedError, f"the migration to {server} was interrupted"))
            migration.abandon()
            raise
        return new

    async def _cross(self, old: Session, new: Session, migration: Migration) -> None:
        """Make the new session the client's, and bring over what the fence guards."""
        fence = PongWaiter()
        migration.switch(fence)
        replies = AwaitedReplies(self._engine)
        self._host.take_over(old, new)
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
            migration.crossed(reason)
            self._host.migrated(new, old.server)
            self._host.start_task(self._linger, old, new, migration, replies)

    async def _linger(self, old: Session, new: Session, migration: Migration, replies: AwaitedReplies) -> None:
        """Stay on the old side for replies in flight, then leave it."""
        deadline = trio.current_time() + LONGEST_STAY
        try:
            unqueue_at = trio.current_time() + QUEUE_OVERLAP
            while trio.current_time() < unqueue_at and self._both(old, new):  # noqa: ASYNC110 - several things end it, and it is short
                await trio.sleep(POLL_SECONDS)
            migration.unqueue()
            old.wake()
            while not self._hurry and trio.current_time() < deadline and self._both(old, new):
                if not (migration.awaited or replies.missing):
                    break
                await trio.sleep(POLL_SECONDS)
            if self._both(old, new):
                farewell = PongWaiter()
                migration.leave(farewell)
                old.wake()
                with trio.move_on_after(FAREWELL_SECONDS):
                    await farewell.wait()
        except errors.Error:
            pass  # the old side went first
        finally:
            text = f"the connection migrated from {old.server} to {new.server}"
            reason = errors.explained(errors.DisconnectedError, text)
            old.lose(reason)
            migration.close(old.reason or reason, still=self._host.current is new and new.reason is None)
            self._host.wake()
            self._left.set()

    def _both(self, old: Session, new: Session) -> bool:
        return old.reason is None and new.reason is None and self._host.current is new


class AwaitedReplies:
    """Which replies were waited for when the migration began, by receivers that ignore what comes twice."""

    def __init__(self, engine: Engine) -> None:
        receivers = [each.receiver for each in engine.registrations.values()]
        self._receivers = [receiver for receiver in receivers if ignores_repeats(receiver)]
        self._names = self._now()

    @property
    def missing(self) -> bool:
        """Whether one of them is still waited for."""
        self._names &= self._now()
        return bool(self._names)

    def _now(self) -> frozenset[str]:
        return frozenset().union(*(receiver.waiting() for receiver in self._receivers))


def _silent(server: Server) -> errors.Error:
    return errors.explained(errors.TimeoutError, f"{server} was silent for too long during the migration")
