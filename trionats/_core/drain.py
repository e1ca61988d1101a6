"""Draining: give up subscriptions without losing what is on its way, and let consumers finish (design 19, 20).

A subscription is drained by UNSUB and a PING behind it: what the server sent before it knew comes before the PONG, so with
the PONG the feed ends (`retire`). A client is drained (`Draining`) in this order: all subscriptions at once; then its
consumers work off what is buffered, and may publish and ask meanwhile; then the requests that still wait for replies; then
it is flushed and closed. Without a connection it goes on, for as long as somebody works on a message, whose reply is to be
sent, or publishes wait for the next connection. A server that is silent for `request_timeout` is taken for dead (design 48).

Each feed says when something happens to it, and only those that did are looked at again, so that a message costs the
same whatever the number of feeds. Nothing is polled, but for the one thing that Trio tells nobody: that a task has
ended.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import errors, events
from trionats._core.attachments import retire
from trionats._feeds.feed import CLEANUP_SECONDS
from trionats._protocol.engine import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from trio.lowlevel import Task

    from trionats._connection.supervisor import Supervisor
    from trionats._core.attachments import Fence
    from trionats._core.requests import Requests
    from trionats._feeds.feed import Feed, OpenFeeds
    from trionats._protocol.engine import Engine

#: How often it is looked whether a consumer has ended without coming back.
LOOK_SECONDS = 0.1
#: How long a server may be silent at least: a program's requests may be in more of a hurry.
LEAST_PATIENCE = 1.0
#: In how many pieces the time is cut for which a server may be silent.
PIECES = 20
#: How many feeds an error names.
MOST_NAMES = 10


class InHand(Protocol):
    """What is worked on by tasks that may not have received it: they were handed it."""

    name: str
    """What it is of, for people."""

    def is_busy(self, besides: Collection[Task]) -> bool:
        """Say whether any task, besides some, works on it."""


class FeedWatch:
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
        requests: What waits for replies.
        feeds: The client's feeds.
        seconds: How long it may take.
        patience: How long the server may say nothing; `LEAST_PATIENCE` at the least.
    """

    def __init__(
        self,
        engine: Engine,
        supervisor: Supervisor,
        requests: Requests,
        feeds: OpenFeeds,
        seconds: float,
        patience: float,
    ) -> None:
        self._engine = engine
        self._supervisor = supervisor
        self._requests = requests
        self._feeds = feeds
        self._seconds = seconds
        self._patience = max(patience, LEAST_PATIENCE)
        self._changed = trio.Event()
        self._watches: dict[Feed[Any], FeedWatch] = {}
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
        self.in_hand: dict[InHand, None] = {}
        """What is to be done before the client is closed; `look` is called when something of it is."""

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
        self._doubt_all()
        try:
            await self._supervisor.finished.wait()
        finally:
            self._callers.pop(task, None)
            self._doubt_all()
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
            self._requests.settled = self._feeds.noticed = None
            for feed, watch in self._watches.items():
                feed._busy.unobserve(watch)
            for feeds in (self._watches, self._open, self._doubtful):
                feeds.clear()
        self._supervisor.flushing = True
        self._supervisor.silent = self._engine.heard == self._silent_at
        await close()

    # What tells that something has changed: consumers, requests, the connection.

    def look(self) -> None:
        """Look again, since something that was in hand is done."""
        self._changed.set()

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
        self._feeds.noticed = self._observe
        for feed in self._feeds:
            self._observe(feed)
        asked_for = [each for each in self._engine.registrations.values() if not each.for_replies]
        fence = retire(self._engine, self._supervisor, asked_for)
        if not await self._passes(fence):
            fence.open()
        if not self._online:
            self._supervisor.hurry()
        while not self._supervisor.finished.is_set():
            self._recheck()
            self._supervisor.flushing = not (self._open or len(self._requests) or await self._is_in_hand())
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
                # It is not silent, or was not told yet what it is to reply.
                heard, until = engine.heard, trio.current_time() + self._patience
            elif trio.current_time() >= until:
                if fence.heard:
                    return False  # it is the server that we are leaving that is silent
                self._silent_at = heard
        return False

    async def _is_in_hand(self) -> bool:
        # Who has just been started with something is known with the first step.
        await checkpoint()
        await checkpoint()
        return any(each.is_busy(self._callers) for each in self.in_hand)

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
        self._recheck()
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
        names += [f"{each.name} (worked on)" for each in islice(self.in_hand, MOST_NAMES)]
        if waiting := len(self._requests):
            names.append(f"requests without an answer: {waiting}")
        return names

    # Which feeds are open: each is looked at when something has happened to it.

    def _observe(self, feed: Feed[Any]) -> None:
        if feed._outlasts:
            return
        self._watches[feed] = watch = FeedWatch(feed, self._doubt)
        feed._busy.forget_ended()
        feed._busy.observe(watch)
        self._doubt(feed)

    def _doubt(self, feed: Feed[Any]) -> None:
        self._doubtful[feed] = None
        self._changed.set()

    def _doubt_all(self) -> None:
        self._all_doubtful = True
        self._changed.set()

    def _seek_ended(self) -> None:
        self._next_look = trio.current_time() + LOOK_SECONDS
        for feed in self._open:
            feed._busy.forget_ended()
        self._doubtful.update(self._open)

    def _recheck(self) -> None:
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
