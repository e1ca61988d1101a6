"""Draining: give up subscriptions without losing what is on its way, and let consumers finish.

A subscription is drained by UNSUB and a PING behind it: what the server sent before it knew comes before the PONG, so with
the PONG the feed ends (`retire`). A client is drained (`Draining`) in this order: all subscriptions at once; then its
consumers work off what is buffered, and may publish and ask meanwhile; then the requests that still wait for answers; then
it is flushed and closed. Without a connection it goes on, for as long as somebody works on a message, whose answer is to be
sent, or publishes wait for the next connection. A server that is silent for `request_timeout` is taken for dead.

Each feed says when something happens to it, and only those that did are looked at again, so that a message costs the
same whatever the number of feeds. Nothing is polled, but for the one thing that Trio tells nobody: that a task has
ended.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import enable_ki_protection

from trionats import errors, events
from trionats._feeds.feed import CLEANUP_SECONDS
from trionats._protocol.engine import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trio.lowlevel import Task

    from trionats._connection.supervisor import Supervisor
    from trionats._core.requests import Requests
    from trionats._feeds.feed import Feed, Pace
    from trionats._protocol.engine import Engine
    from trionats._protocol.registrations import Registration

#: How often it is looked whether a consumer has ended without coming back.
LOOK_SECONDS = 0.1
#: How long a server may be silent at least: a program's requests may be in more of a hurry.
LEAST_PATIENCE = 1.0
#: In how many pieces the time is cut for which a server may be silent.
PIECES = 20
#: How many feeds an error names.
MOST_NAMES = 10


class Fence:
    """Subscriptions that end with the PONG behind their UNSUB; in a planned move, with those of both servers.

    Args:
        engine: Whose subscriptions they are.
        rows: The subscriptions.
        pongs: How many PONGs are waited for.
    """

    def __init__(self, engine: Engine, rows: Sequence[Registration], pongs: int = 1) -> None:
        self._engine = engine
        self._rows = rows
        self._missing = pongs
        self.passed = trio.Event()
        self.answered = False
        """Whether a server has answered."""
        self.broken = False
        """Whether it is passed because the connection was lost."""

    def arrived(self) -> None:
        """Know that a server sends nothing more."""
        self.answered = True
        self._one_less()

    def failed(self, _: Exception) -> None:
        """Know that a connection, and with it what was on its way, is lost."""
        self.broken = True
        self._one_less()

    def open(self) -> None:
        """End them."""
        for row in self._rows:
            self._engine.complete(row)
        self.passed.set()

    def _one_less(self) -> None:
        self._missing -= 1
        if not self._missing:
            self.open()


def retire(engine: Engine, supervisor: Supervisor, rows: Sequence[Registration]) -> Fence:
    """Unsubscribe, and take what is on its way; without a connection, end at once.

    Args:
        engine: Whose subscriptions they are.
        supervisor: What sends.
        rows: The subscriptions.

    Returns:
        What says when they have ended.
    """
    beside = engine.beside if rows else None
    # In a planned move the other server may have sent something, too.
    asked = [each for each in (engine, beside) if each is not None and each.phase is Phase.ONLINE]
    fence = Fence(engine, rows, len(asked))
    for row in rows:
        engine.retire(row)
    for each in asked:
        each.ping(fence)
    if asked:
        supervisor.wake()
    else:
        fence.open()
    return fence


class Watch:
    """One feed, as a drain observes it."""

    __slots__ = ("_changed", "_feed")

    def __init__(self, feed: Feed[Any], changed: Callable[[Feed[Any]], None]) -> None:
        self._feed = feed
        self._changed = changed

    def took(self, task: Task) -> None:
        """Nothing to see: there is less to do, and somebody does it."""

    def came_back(self, task: Task) -> None:
        """Have it looked at."""
        self._changed(self._feed)

    def ended(self) -> None:
        """Have it looked at."""
        self._changed(self._feed)

    def left(self) -> None:
        """Have it looked at."""
        self._changed(self._feed)


class Draining:
    """One client's drain: not begun, under way, or over.

    Args:
        engine: Whose subscriptions are given up.
        supervisor: What sends.
        requests: What waits for answers.
        pace: What knows the feeds.
        seconds: How long it may take.
        patience: How long the server may say nothing; `LEAST_PATIENCE` at the least.
    """

    def __init__(
        self, engine: Engine, supervisor: Supervisor, requests: Requests, pace: Pace, seconds: float, patience: float
    ) -> None:
        self._engine = engine
        self._supervisor = supervisor
        self._requests = requests
        self._pace = pace
        self._seconds = seconds
        self._patience = max(patience, LEAST_PATIENCE)
        self._changed = trio.Event()
        self._watches: dict[Feed[Any], Watch] = {}
        self._open: dict[Feed[Any], None] = {}
        self._doubtful: dict[Feed[Any], None] = {}
        self._all_doubtful = False
        self._was_online = False
        self._next_look = 0.0
        self._silent_at = -1
        self._callers: dict[Task, None] = {}
        self._failure: tuple[type[errors.Error], str] | None = None
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
        self._look_at_all()
        try:
            await self._supervisor.finished.wait()
        finally:
            self._callers.pop(task, None)
            self._look_at_all()
        if self._failure is not None:
            raise errors.explained(*self._failure)
        if self._lost:
            text = f"drain: the connection broke, and {self._lost} messages that were being sent may be lost"
            raise errors.explained(errors.DisconnectedError, text)
        if (lost := self._supervisor.failure) is not None:
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
                self._failure = self._late()
        finally:
            self._requests.settled = self._pace.noticed = None
            for feed, watch in self._watches.items():
                feed._busy.unobserve(watch)
            for feeds in (self._watches, self._open, self._doubtful):
                feeds.clear()
        self._supervisor.flushing = True
        self._supervisor.silent = self._engine.heard == self._silent_at
        await close()

    # What tells that something has changed: consumers, requests, the connection.

    def push(self, event: events.ConnectionEvent) -> None:
        """Look again; where the connection is lost, have the next one tried for at once."""
        if isinstance(event, events.Disconnected):
            self._supervisor.hurry()
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
        self._requests.settled = self._changed_now
        self._pace.noticed = self._observe
        for feed in self._pace.feeds:
            self._observe(feed)
        rows = [row for row in self._engine.registrations.values() if not row.for_replies]
        fence = retire(self._engine, self._supervisor, rows)
        if not await self._passes(fence):
            fence.open()
        if not self._online:
            self._supervisor.hurry()
        while not self._supervisor.finished.is_set():
            self._look()
            self._supervisor.flushing = not (self._open or len(self._requests))
            if not self._supervisor.flushing or (not self._online and self._engine.outbox.holds_publishes):
                await self._wait_for_changes()
                continue
            if not self._online:
                return
            last = retire(self._engine, self._supervisor, [])
            if not await self._passes(last):
                text = f"drain: the server has not answered for {self._patience:g} s"
                self._failure = errors.DrainTimeoutError, text
                return
            if not last.broken:
                return  # otherwise what still waits goes with the next connection

    async def _passes(self, fence: Fence) -> bool:
        """Wait for a fence; where the server is silent, only until it counts as dead: still, or again."""
        engine = self._engine
        heard, until = engine.heard, trio.current_time() + self._patience
        while engine.heard != self._silent_at:
            with trio.move_on_after(self._patience / PIECES):
                await fence.passed.wait()
                return True
            if engine.heard != heard or (self._online and engine.outbox.holds_publishes):
                # It is not silent, or was not told yet what it is to answer.
                heard, until = engine.heard, trio.current_time() + self._patience
            elif trio.current_time() >= until:
                if fence.answered:
                    return False  # it is the server that we are leaving that is silent
                self._silent_at = heard
        return False

    async def _wait_for_changes(self) -> None:
        self._changed = trio.Event()
        with trio.move_on_at(self._next_look):
            await self._changed.wait()
        if trio.current_time() >= self._next_look:
            self._seek_ended()

    def _changed_now(self) -> None:
        self._changed.set()

    def _late(self) -> tuple[type[errors.Error], str]:
        """Say what was not done in time."""
        self._seek_ended()
        self._look()
        late, unsent = self._names(), self._engine.outbox.unsent_publishes
        failure = (
            errors.ConnectionReconnectingError if unsent and not (late or self._online) else errors.DrainTimeoutError
        )
        if unsent:
            late.append(f"messages that wait {'to be sent' if self._online else 'for a connection'}: {unsent}")
        text = ", ".join(late) or "the server does not answer"
        return failure, f"drain: not done within {self._seconds:g} s: {text}"

    def _names(self) -> list[str]:
        """Name what is not drained."""
        some = islice(self._open, MOST_NAMES)
        names = [f"{feed.name} ({len(feed)} buffered)" if len(feed) else feed.name for feed in some]
        if len(self._open) > MOST_NAMES:
            names.append(f"{len(self._open) - MOST_NAMES} more")
        if waiting := len(self._requests):
            names.append(f"requests without an answer: {waiting}")
        return names

    # Which feeds are open: each is looked at when something has happened to it.

    def _observe(self, feed: Feed[Any]) -> None:
        if feed._outlasts:
            return
        self._watches[feed] = watch = Watch(feed, self._doubt)
        feed._busy.forget_ended()
        feed._busy.observe(watch)
        self._doubt(feed)

    def _doubt(self, feed: Feed[Any]) -> None:
        self._doubtful[feed] = None
        self._changed.set()

    def _look_at_all(self) -> None:
        self._all_doubtful = True
        self._changed.set()

    def _seek_ended(self) -> None:
        self._next_look = trio.current_time() + LOOK_SECONDS
        for feed in self._open:
            feed._busy.forget_ended()
        self._doubtful.update(self._open)

    def _look(self) -> None:
        """Look at what may have changed; without a connection a feed is open in another sense."""
        online = self._online
        if self._all_doubtful or online is not self._was_online:
            self._doubtful.update(dict.fromkeys(self._watches))
        self._all_doubtful, self._was_online = False, online
        for feed in self._doubtful:
            if feed._processed():
                # Whoever may have to wait for it, it will never be open again.
                feed._busy.unobserve(self._watches.pop(feed))
                self._open.pop(feed, None)
            elif self._is_open(feed):
                self._open[feed] = None
            else:
                self._open.pop(feed, None)
        self._doubtful.clear()

    def _is_open(self, feed: Feed[Any]) -> bool:
        """Say whether a feed is to be waited for.

        Without a connection what nobody works on can as well be received once the client is closed.
        """
        return not feed._processed(self._callers) and (self._online or feed._busy.occupied(self._callers))


class Barrier:
    """What one feed has to work off before a barrier lets pass.

    Args:
        feed: The feed.
        caller: The task that waits.
        passed: Called, perhaps more than once, when all has been worked off.
    """

    def __init__(self, feed: Feed[Any], caller: Task, passed: Callable[[Barrier], None]) -> None:
        self._feed = feed
        self._busy = feed._busy
        self._passed = passed
        self._tasks = self._busy.working([caller])
        # What only the caller could receive is nothing to wait for.
        only_mine = not self._tasks and self._busy.belongs_to([caller])
        self._buffered = 0 if only_mine else len(feed)
        self._busy.observe(self)

    def look(self) -> None:
        """See whether it can pass: nobody says that a task has ended, or that items were dropped to make room."""
        self._tasks &= self._busy.working()
        self._look()

    def close(self) -> None:
        """Observe no more."""
        self._busy.unobserve(self)

    def took(self, task: Task) -> None:
        """Count what was buffered, and remember who has it."""
        # A task that is among them already was handed its item before we began to count.
        if self._buffered and task not in self._tasks:
            self._buffered -= 1
            self._tasks.add(task)

    def came_back(self, task: Task) -> None:
        """Know that a task is done with what it took."""
        self._tasks.discard(task)
        self._look()

    def ended(self) -> None:
        """Nothing to see: what is buffered can still be received."""

    def left(self) -> None:
        """Know that the rest is of no interest to anybody."""
        self._buffered = 0
        self._tasks.clear()
        self._look()

    def _look(self) -> None:
        self._buffered = min(self._buffered, len(self._feed))
        if not self._buffered and not self._tasks:
            self._passed(self)


async def wait_barrier(feeds: Sequence[Feed[Any]]) -> None:
    """Wait until what is buffered in feeds was received, and those who received it came back for more.

    Args:
        feeds: The feeds; what only the caller receives from is not waited for.
    """
    caller = trio.lowlevel.current_task()
    all_passed = trio.Event()

    def passed(barrier: Barrier) -> None:
        waiting.pop(barrier, None)
        if not waiting:
            all_passed.set()

    barriers = [Barrier(feed, caller, passed) for feed in feeds]
    waiting = dict.fromkeys(barriers)
    try:
        while True:
            for barrier in list(waiting):
                barrier.look()
            if not waiting:
                return
            with trio.move_on_after(LOOK_SECONDS):
                await all_passed.wait()
    finally:
        for barrier in barriers:
            barrier.close()
