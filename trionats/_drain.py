"""Draining: give up subscriptions without losing what is on its way, and let consumers finish.

A subscription is drained by UNSUB and a PING behind it: what the server sent before it knew comes before the PONG, so with
the PONG the feed ends (`retire`). A client is drained (`Draining`) in this order: all subscriptions at once; then its
consumers work off what is buffered, and may publish and ask meanwhile; then the requests that still wait for answers; then
it is flushed and closed. Without a connection it goes on, for as long as somebody works on a message, whose answer is to be
sent, or publishes wait for the next connection. Nothing is polled, but for the one thing that Trio tells nobody: that a
task has ended.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import enable_ki_protection

from trionats import errors, events
from trionats._feed import CLEANUP_SECONDS
from trionats._protocol.engine import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trionats._feed import Feed, Pace
    from trionats._link import Link
    from trionats._protocol.engine import Engine, Subscription
    from trionats._requests import Requests

#: How often it is looked whether a consumer has ended without coming back.
LOOK_SECONDS = 0.1


class Fence:
    """Subscriptions that end with the PONG behind their UNSUB."""

    def __init__(self, engine: Engine, rows: Sequence[Subscription]) -> None:
        self._engine = engine
        self._rows = rows
        self.passed = trio.Event()

    def arrived(self) -> None:
        """End them: the server sends nothing more."""
        for row in self._rows:
            self._engine.complete(row)
        self.passed.set()

    def failed(self, _: Exception) -> None:
        """End them: the connection, and with it what was on its way, is lost."""
        self.arrived()


def retire(engine: Engine, link: Link, rows: Sequence[Subscription]) -> Fence:
    """Unsubscribe, and take what is on its way; without a connection, end at once.

    Args:
        engine: Whose subscriptions they are.
        link: What sends.
        rows: The subscriptions.

    Returns:
        What says when they have ended.
    """
    fence = Fence(engine, rows)
    for row in rows:
        engine.retire(row)
    if engine.phase is Phase.ONLINE:
        engine.ping(fence)
        link.wake()
    else:
        fence.arrived()
    return fence


class Draining:
    """One client's drain: not begun, under way, or over."""

    def __init__(self, engine: Engine, link: Link, requests: Requests, pace: Pace, seconds: float) -> None:
        self._engine = engine
        self._link = link
        self._requests = requests
        self._pace = pace
        self._seconds = seconds
        self._changed = trio.Event()
        self._observed: set[Feed[object]] = set()
        self._callers: dict[trio.lowlevel.Task, None] = {}
        self._late: list[str] = []
        self._failure: type[errors.Error] = errors.DrainTimeoutError
        self._over = trio.Event()
        self._lost = 0
        self.begun = False

    def refuse(self, what: str) -> None:
        """Refuse a new subscription while a drain is under way.

        Raises:
            nats.errors.ConnectionDrainingError: It is.
        """
        if self.begun:
            raise errors.explained(errors.ConnectionDrainingError, f"{what}: the client is being drained")

    async def wait(self) -> None:
        """Wait until it is over; nobody waits for the task that waits here.

        Raises:
            nats.errors.DrainTimeoutError: Something was not drained in time.
            nats.errors.ConnectionReconnectingError: The only thing that was not is what waits for a connection.
            trionats.errors.DisconnectedError: The connection broke while something was being sent.
            nats.errors.ConnectionClosedError: The client was lost for good meanwhile.
        """
        task = trio.lowlevel.current_task()
        self._callers[task] = None
        self._changed.set()
        try:
            await self._link.finished.wait()
        finally:
            self._callers.pop(task, None)
        if self._late:
            text = f"drain: not done within {self._seconds:g} s: {', '.join(self._late)}"
            raise errors.explained(self._failure, text)
        if self._lost:
            text = f"drain: the connection broke, and {self._lost} messages that were being sent may be lost"
            raise errors.explained(errors.DisconnectedError, text)
        if (lost := self._link.failure) is not None:
            raise errors.explained(errors.ConnectionClosedError, f"drain: the client was lost: {lost}") from lost

    async def gone(self) -> None:
        """Wait until the task of a drain has ended, if there is one: shielded, and bounded."""
        if self.begun:
            with trio.move_on_after(CLEANUP_SECONDS, shield=True):
                await self._over.wait()

    @enable_ki_protection
    async def run(self, close: Callable[[], Awaitable[None]]) -> None:
        """Drain, and close: a task of its own, so that it goes on when those who wait for it do not.

        Args:
            close: Closes the client.
        """
        try:
            await self._run(close)
        finally:
            self._over.set()

    async def _run(self, close: Callable[[], Awaitable[None]]) -> None:
        try:
            with trio.move_on_after(self._seconds) as scope:
                await self._drained()
            if scope.cancelled_caught:
                late, unsent = self._open(), self._unsent
                self._failure = errors.ConnectionReconnectingError if unsent and not late else errors.DrainTimeoutError
                self._late = [*late, *unsent] or ["the server does not answer"]
        finally:
            self._requests.settled = None
            for feed in self._observed:
                feed._workers.unobserve(self)
            self._observed.clear()
        self._link.flushing = True
        await close()

    # What tells that something has changed: consumers, requests, the connection.

    def took(self, task: trio.lowlevel.Task) -> None:
        """Nothing to see: there is less to do, and somebody does it."""

    def came_back(self, task: trio.lowlevel.Task) -> None:
        """Look again."""
        self._changed.set()

    def left(self) -> None:
        """Look again."""
        self._changed.set()

    def push(self, event: events.ConnectionEvent) -> None:
        """Look again; where the connection is lost, have the next one tried for at once."""
        if isinstance(event, events.Disconnected):
            self._link.hurry()
        elif isinstance(event, events.PublishesLost):
            self._lost += event.count
        self._changed.set()

    def end(self, reason: BaseException | None) -> None:
        """Look again."""
        self._changed.set()

    # Inside.

    @property
    def _online(self) -> bool:
        return self._engine.phase is Phase.ONLINE

    async def _drained(self) -> None:
        rows = [row for row in self._engine.subscriptions.values() if not row.answers]
        self._requests.settled = self._changed_now
        await retire(self._engine, self._link, rows).passed.wait()
        if not self._online:
            self._link.hurry()
        while not self._link.finished.is_set():
            self._link.flushing = not self._open()
            if not self._link.flushing or self._unsent:
                self._changed = trio.Event()
                with trio.move_on_after(LOOK_SECONDS):
                    await self._changed.wait()
                continue
            if not self._online:
                return
            with suppress(errors.Error):  # what still waits goes with the next connection
                await self._link.barrier()
                return

    def _changed_now(self) -> None:
        self._changed.set()

    @property
    def _unsent(self) -> list[str]:
        """Name what waits for a connection."""
        waiting = 0 if self._online else self._engine.waiting_publishes
        return [f"messages that wait for a connection: {waiting}"] if waiting else []

    def _open(self) -> list[str]:
        """Name what is not drained.

        Without a connection what nobody works on can as well be received once the client is closed.
        """
        names = []
        for feed in list(self._pace.feeds):
            if feed._outlasts:
                continue
            if feed not in self._observed:
                self._observed.add(feed)
                feed._workers.observe(self)
            if not feed._processed(self._callers) and (self._online or feed._workers.working(self._callers)):
                names.append(f"{feed.name} ({len(feed)} buffered)" if len(feed) else feed.name)
        if waiting := len(self._requests):
            names.append(f"requests without an answer: {waiting}")
        return names


class Barrier:
    """What one feed has to work off before a barrier lets pass."""

    def __init__(self, feed: Feed[Any], caller: trio.lowlevel.Task, changed: Callable[[], None]) -> None:
        self._feed = feed
        self._workers = feed._workers
        self._changed = changed
        self._tasks = self._workers.working([caller])
        # What only the caller could receive is nothing to wait for.
        self._buffered = 0 if caller in self._workers.busy and not self._tasks else len(feed)
        self._workers.observe(self)

    @property
    def passed(self) -> bool:
        """Whether all has been worked off."""
        self._tasks &= self._workers.working()
        # Some may have been dropped to make room.
        self._buffered = min(self._buffered, len(self._feed))
        return not self._buffered and not self._tasks

    def close(self) -> None:
        """Observe no more."""
        self._workers.unobserve(self)

    def took(self, task: trio.lowlevel.Task) -> None:
        """Count what was buffered, and remember who has it."""
        # A task that is among them already was handed its item before we began to count.
        if self._buffered and task not in self._tasks:
            self._buffered -= 1
            self._tasks.add(task)

    def came_back(self, task: trio.lowlevel.Task) -> None:
        """Know that a task is done with what it took."""
        self._tasks.discard(task)
        self._changed()

    def left(self) -> None:
        """Know that the rest is of no interest to anybody."""
        self._buffered = 0
        self._tasks.clear()
        self._changed()


async def wait_barrier(feeds: Sequence[Feed[Any]]) -> None:
    """Wait until what is buffered in feeds was received, and those who received it came back for more.

    Args:
        feeds: The feeds; what only the caller receives from is not waited for.
    """
    changed = trio.Event()
    caller = trio.lowlevel.current_task()
    barriers = [Barrier(feed, caller, lambda: changed.set()) for feed in feeds]
    try:
        while not all(barrier.passed for barrier in barriers):
            changed = trio.Event()
            with trio.move_on_after(LOOK_SECONDS):
                await changed.wait()
    finally:
        for barrier in barriers:
            barrier.close()
