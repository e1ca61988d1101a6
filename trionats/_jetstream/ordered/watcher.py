"""A watcher: a feed of what a store holds and of what happens to it, read in order (`ordered`).

This room adds when that what was stored at the beginning has been received: the source says after which message that is, and
the watcher counts as the messages leave the channel, so that it is neither said early nor needs a place in the channel.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar, final

import trio
from trio.lowlevel import enable_ki_protection

from trionats._feeds.feed import Feed, feeding
from trionats._jetstream.api import in_store
from trionats._jetstream.ordered.entries import MAX_MESSAGES
from trionats._jetstream.ordered.source import Handed, Sink
from trionats._protocol.fields import check_argument
from trionats._protocol.jetstream.acks import LARGEST
from trionats._protocol.jetstream.actions import ALL, LAST_PER_SUBJECT, Start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import NoReturn

    from trionats._core.message import Msg
    from trionats._jetstream.ordered.entries import Entries
    from trionats._protocol.jetstream.acks import AckSubject

T = TypeVar("T")
#: How many entries that wait are collected between two checkpoints.
AT_ONCE: Final = 64
#: What is done about a store that is deleted and made anew under a watcher.
OnRecreate = Literal["fail", "restart"]


@final
@dataclass(frozen=True, slots=True)
class WatcherStatistics:
    """What a watcher has seen.

    Attributes:
        pending: Entries that wait to be received.
        received: Entries that were received.
        resets: How often it had to begin anew where it was: after a reconnect, and when a message or the server's
            consumer was missing.
    """

    pending: int
    received: int
    resets: int


@final
class Watcher(Feed[T], Generic[T]):
    """What a store holds, and then what happens to it: what `open_watcher` gives.

    Besides what a `Feed` does, it knows when all that was stored when it opened has been received (`caught_up`).
    """

    def __init__(self, entries: Entries[T], start: Start, *, restart: bool) -> None:
        super().__init__(f"watcher of {entries.store}", MAX_MESSAGES, entries.jetstream.connection)
        self._store = entries.store
        self._read = entries.read
        # Where every state is asked for, each counts.
        self._key = None if start == ALL or start.resumes else entries.key
        sink = Sink(self._take, self._stored_read, self._end, self._begun_anew)
        self._source = entries.source(sink, start, restart=restart)
        self._sizes: deque[int] = deque()
        self._received = 0
        self._stored: int | None = None
        self._snapshot: dict[object, T] = {}
        self._outdated = 0
        self._waiting: set[trio.CancelScope] = set()

    @property
    def caught_up(self) -> bool:
        """Whether all that was stored when the watcher opened has been received; also what was skipped counts."""
        return self._stored is not None and self._received >= self._stored

    def statistics(self) -> WatcherStatistics:
        """Count what came and what waits."""
        return WatcherStatistics(len(self), self._received, self._source.resets)

    @enable_ki_protection
    async def snapshot(self) -> list[T]:
        """Receive all that was stored when the watcher opened.

        Entries that were received in other ways before are not in it, and nothing is when it is called again. What is
        written while it is read may be in it; of an entry's several states only the last is, unless the watcher was
        opened with `include_history`. A cancelled call loses nothing: the next one has what this one collected.

        Always a checkpoint.

        Returns:
            The entries, in the server's order.

        Raises:
            trio.EndOfChannel: The watcher ended before all was there.
            nats.errors.Error: What it reads is lost for good, as for `receive`.
            trio.ClosedResourceError: The block was left.
        """
        self._pace.run.check()
        await self._pace.trip()
        if self._left:
            raise self._was_left()
        while not self.caught_up:
            with trio.CancelScope() as scope:
                self._waiting.add(scope)
                try:
                    self._collect([await self.receive()])
                finally:
                    self._waiting.discard(scope)
            # Those that wait already need no scope each; `receive` sees to it that others have their turn.
            self._collect(self._receive_due())
        collected, self._snapshot = list(self._snapshot.values()), {}
        return collected

    @property
    def _due(self) -> int:
        """How many of the entries that wait belong to what was stored, as far as is known."""
        return len(self) if self._stored is None else min(len(self), self._stored - self._received)

    def _receive_due(self) -> list[T]:
        count = min(self._due, AT_ONCE)
        if count < 1:
            return []
        items = self._receive_buffered(count)
        size_of_next = self._sizes.popleft
        self._account(count, sum([size_of_next() for _ in range(count)]))
        return items

    def _collect(self, items: Sequence[T]) -> None:
        """Put what was received just now into the snapshot, each behind all that came before."""
        found, key_of = self._snapshot, self._key
        # What was outdated came first.
        for item in items[max(0, len(items) - (self._received - self._outdated)) :]:
            key: object = object() if key_of is None else key_of(item)
            if key in found:
                del found[key]
            found[key] = item

    # What the source calls.

    def _take(self, msg: Msg, ack: AckSubject, size: int) -> Handed:
        item = self._read(msg, ack)
        if item is None:
            return Handed.DROPPED
        self._sizes.append(size)
        if self._put(item):
            return Handed.KEPT
        self._sizes.pop()
        return Handed.REFUSED

    def _stored_read(self) -> None:
        # What comes from now on is new.
        self._stored = self._received + len(self._sizes)
        self._release()

    def _begun_anew(self) -> None:
        # What comes from now on is of another stream: nothing of this one belongs into a snapshot of that.
        self._outdated = self._received + len(self._sizes)
        self._snapshot.clear()

    # Inside.

    def _taken(self, item: T) -> None:
        self._account(1, self._sizes.popleft())

    def _account(self, count: int, size: int) -> None:
        """Account for so many entries that left the channel, of this size together."""
        self._received += count
        self._source.taken(size, count)
        if self._stored is not None:
            self._release()

    def _release(self) -> None:
        if self.caught_up:
            for scope in self._waiting:
                scope.cancel()

    async def _go_on(self) -> NoReturn:
        with in_store(self._store):
            while True:
                await self._source.step()

    def _undo(self) -> None:
        self._source.close()


def where_to_start(
    include_history: bool,
    updates_only: bool,
    on_recreate: str,
    resume_from_revision: int | None = None,
    *,
    ignore_deletes: bool,
) -> Start:
    """Say where a watcher begins, and check the options that every kind of store has.

    Args:
        include_history: As `open_watcher` takes it.
        updates_only: As `open_watcher` takes it.
        on_recreate: As `open_watcher` takes it.
        resume_from_revision: As `open_watcher` takes it.
        ignore_deletes: As `open_watcher` takes it; where a watcher begins does not depend on it.

    Raises:
        TypeError: One of them is of another kind.
        ValueError: It cannot be.
    """
    for name, flag in (
        ("ignore_deletes", ignore_deletes),
        ("include_history", include_history),
        ("updates_only", updates_only),
    ):
        check_argument("open_watcher", name, bool, flag)
    check_argument("open_watcher", "resume_from_revision", int | None, resume_from_revision)
    resumes = resume_from_revision is not None
    starts = {"include_history": include_history, "updates_only": updates_only, "resume_from_revision": resumes}
    chosen = [name for name, given in starts.items() if given]
    if len(chosen) > 1:
        raise ValueError(f"open_watcher(): {' and '.join(chosen)} exclude each other")
    if on_recreate not in ("fail", "restart"):
        raise ValueError(f"open_watcher(): on_recreate must be 'fail' or 'restart', not {on_recreate!r}")
    if resume_from_revision is not None:
        if not 0 < resume_from_revision <= LARGEST:
            raise ValueError(f"open_watcher(): resume_from_revision must be 1 or more, not {resume_from_revision}")
        return Start("by_start_sequence", resume_from_revision, resumes=True)
    return ALL if include_history else Start("new") if updates_only else LAST_PER_SUBJECT


@asynccontextmanager
async def watching(
    nursery: trio.Nursery, entries: Entries[T], start: Start, on_recreate: OnRecreate
) -> AsyncIterator[Watcher[T]]:
    """Watch a store: the one way to open a watcher, whoever's class the store is.

    Args:
        nursery: Where the feeding task lives.
        entries: What to watch.
        start: Where to begin.
        on_recreate: As `open_watcher` takes it.
    """
    watcher = Watcher(entries, start, restart=on_recreate == "restart")
    with in_store(entries.store):
        await watcher._source.open()
    async with feeding(nursery, watcher, watcher._go_on):
        yield watcher
