"""open_watcher.

A watcher is a feed of what a store holds and of what happens to it, read in order (`_consumer`). This module adds when
that what was stored at the beginning has been received: the source says after which message that is, and the watcher
counts as the messages leave the channel, so the answer neither comes early nor needs a place in the channel.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    NoReturn,
    Protocol,
    TypeVar,
    cast,
    final,
    overload,
    runtime_checkable,
)

import trio
from trio.lowlevel import enable_ki_protection

from trionats import api, errors
from trionats._feeds.feed import Feed, feeding
from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.context import bucket_not_found
from trionats._jetstream.objects.infos import read_entry
from trionats._jetstream.ordered import JITTER, Handed, OrderedSource
from trionats._protocol.jetstream.actions import Start
from trionats._protocol.jetstream.ordered import Ordered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import nats.js.kv
    import nats.js.object_store

    from trionats._core.foreign import Foreign
    from trionats._core.message import Msg
    from trionats._feeds.opening import Opening
    from trionats._feeds.pace import Pace
    from trionats._jetstream.context import JetStream
    from trionats._protocol.jetstream.acks import AckSubject

T = TypeVar("T")
#: What is done about a store that is deleted and made anew under a watcher.
OnRecreate = Literal["fail", "restart"]

#: How many entries, and how many bytes of messages, may wait to be received; no more are asked for.
MAX_MESSAGES: Final = 500
MAX_BYTES: Final = 8 * 1024 * 1024


@runtime_checkable
class WatchableObjects(Protocol):
    """What `open_watcher` needs to know of an object store."""

    @property
    def bucket(self) -> str:
        """The bucket's name, for people."""

    @property
    def stream(self) -> str:
        """The stream that holds it."""

    @property
    def js(self) -> JetStream:
        """Where the stream is."""

    @property
    def meta_subject(self) -> str:
        """The pattern that the infos of all objects match."""


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

    def __init__(
        self,
        name: str,
        pace: Pace,
        read: Callable[[Msg, AckSubject], T | None],
        key: Callable[[T], object] | None,
    ) -> None:
        super().__init__(name, MAX_MESSAGES, pace)
        self._read = read
        self._key = key
        self._source: OrderedSource | None = None
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
        return WatcherStatistics(len(self), self._received, 0 if self._source is None else self._source.resets)

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
                    item = await self.receive()
                    if self._received > self._outdated:
                        key: object = object() if self._key is None else self._key(item)
                        self._snapshot.pop(key, None)
                        self._snapshot[key] = item
                finally:
                    self._waiting.discard(scope)
        collected, self._snapshot = list(self._snapshot.values()), {}
        return collected

    # Opening.

    async def start(self, js: JetStream, ordered: Ordered) -> None:
        """Begin to read."""
        self._source = OrderedSource(js, ordered, self, self._begun_anew)
        await self._source.open()

    async def run(self, missing: Callable[[errors.NotFoundError], Exception]) -> NoReturn:
        """Read on: what the feeding task does.

        Args:
            missing: Makes the exception for a store that is gone.
        """
        assert self._source is not None, "not started"
        try:
            while True:
                await self._source.step()
        except errors.NotFoundError as error:
            raise missing(error) from None

    # What the source calls.

    def take(self, msg: Msg, ack: AckSubject, size: int) -> Handed:
        """Take a message."""
        item = self._read(msg, ack)
        if item is None:
            return Handed.DROPPED
        self._sizes.append(size)
        if self.put(item):
            return Handed.KEPT
        self._sizes.pop()
        return Handed.REFUSED

    def stored_read(self) -> None:
        """Know that what comes from now on is new."""
        self._stored = self._received + len(self._sizes)
        self._look_up()

    def ended(self, reason: BaseException | None) -> None:
        """End the feed."""
        self.end(reason)

    # Inside.

    def _begun_anew(self) -> None:
        # What comes from now on is of another stream: nothing of this one belongs into a snapshot of that.
        self._outdated = self._received + len(self._sizes)
        self._snapshot.clear()

    def _taken(self, item: T) -> None:
        self._received += 1
        size = self._sizes.popleft()
        if self._source is not None:
            self._source.taken(size)
        self._look_up()

    def _look_up(self) -> None:
        if self.caught_up:
            for scope in self._waiting:
                scope.cancel()

    def _undo(self) -> None:
        if self._source is not None:
            self._source.close()


@overload
def open_watcher(
    nursery: trio.Nursery,
    store: WatchableObjects | nats.js.object_store.ObjectStore,
    *,
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> Opening[Watcher[api.ObjectInfo]]: ...


@overload
def open_watcher(
    nursery: trio.Nursery,
    store: nats.js.kv.KeyValue,
    *,
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> Opening[Watcher[nats.js.kv.KeyValue.Entry]]: ...


@opens
async def open_watcher(
    nursery: trio.Nursery,
    store: WatchableObjects | nats.js.object_store.ObjectStore | nats.js.kv.KeyValue,
    *,
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> AsyncIterator[Watcher[Any]]:
    """Watch an object store: the last state of each object first, then every change.

    Entering asks the server once, and waits for the answer as `Client.request` does.
    Failed or cancelled, it leaves nothing on the server. Leaving ends the feed synchronously and waits, shielded and
    bounded, only until its task is gone; the server is told to delete its consumer, and nobody waits for its answer.

    No object's last state is lost and no change comes twice, whatever happens to the connection or to the server's
    consumer, and however slow the receiver is: it is asked for what there is room for. A state that is replaced before the
    server has sent it does not come, since the bucket does not hold it any more. Where the store has replicas, what is
    stored is what the leader of its stream has: a replica that lags is waited for or left.

    `receive` raises `nats.errors.BucketNotFoundError` when the store is deleted, within 2 s; `StreamRegressedError`
    when it went back to an earlier state or was made anew (see `on_recreate`); `PermissionsViolationError` when the
    server refuses to be asked for more; and what the server said when it has refused 15 times in a row, in 36 to 73 s,
    to create a consumer, for a reason that does not pass by itself, such as a limit (`events.ReaderRefused` says so
    before). For what else ends it see `Feed`.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        store: The store; also nats-py's own object stores and key-value buckets, see `trionats.bridge.open_watcher`.
        ignore_deletes: Leave out what tells that an object was deleted.
        include_history: Begin with every state that is stored, not only with the last of each object.
        updates_only: Leave out what is stored and begin with the next change; it is caught up at once.
        on_recreate: What to do when the store is deleted and made anew while it is watched: `"fail"`, or `"restart"`,
            which begins with what the new one holds (all of it, with `updates_only`); an `events.StreamRecreated` says
            so, and `snapshot` gives nothing of the old one. A store that is not there again within about a second is
            gone.

    Returns:
        An async context manager that gives the `Watcher`.

    Raises:
        nats.errors.BucketNotFoundError: There is no such store.
        nats.errors.Error: As for `Client.request`.
        TypeError: `store` is no object store.
        ValueError: Both `include_history` and `updates_only`, or `on_recreate` is neither of the two.
    """
    if type(store).__module__.startswith("nats.js."):
        from trionats import bridge  # noqa: PLC0415 - it brings trio-asyncio, which patches asyncio

        options: dict[str, Any] = {
            "ignore_deletes": ignore_deletes,
            "include_history": include_history,
            "updates_only": updates_only,
            "on_recreate": on_recreate,
        }
        async with bridge.open_watcher(nursery, cast("Any", store), **options) as bridged:
            yield bridged
        return
    check_nursery(nursery, "open_watcher")
    if not isinstance(store, WatchableObjects):
        raise TypeError(f"open_watcher(nursery, store): the store must be an ObjectStore, not {type(store).__name__}")
    start = where_to_start(include_history, updates_only, on_recreate)
    nc = store.js.nc
    nc.pace.run.check("open_watcher")
    ordered = _ordered(store, start, on_recreate)
    read = partial(_read_object, nc.foreign, store.bucket, ignore_deletes)
    key = None if include_history else _object_name
    watcher = Watcher(f"watcher of object store {store.bucket!r}", nc.pace, read, key)
    missing = partial(bucket_not_found, store.bucket)
    try:
        await watcher.start(store.js, ordered)
    except errors.NotFoundError as error:
        raise missing(error) from None
    async with feeding(nursery, watcher, partial(watcher.run, missing)):
        yield watcher


def _ordered(store: WatchableObjects, start: Start, on_recreate: OnRecreate) -> Ordered:
    return Ordered(
        store.stream,
        store.js.nc.new_token(),
        JITTER,
        filter_subjects=[store.meta_subject],
        start=start,
        snapshot=True,
        # An object's info replaces the one before (`Nats-Rollup`).
        one_per_subject=True,
        max_messages=MAX_MESSAGES,
        max_bytes=MAX_BYTES,
        restart=on_recreate == "restart",
    )


def where_to_start(include_history: bool, updates_only: bool, on_recreate: str) -> Start:
    """Say where a watcher begins.

    Args:
        include_history: As `open_watcher` takes it.
        updates_only: As `open_watcher` takes it.
        on_recreate: As `open_watcher` takes it; it is checked.

    Raises:
        ValueError: It cannot be.
    """
    if include_history and updates_only:
        raise ValueError("open_watcher(): include_history and updates_only exclude each other")
    if on_recreate not in ("fail", "restart"):
        raise ValueError(f"open_watcher(): on_recreate must be 'fail' or 'restart', not {on_recreate!r}")
    return Start("all" if include_history else "new" if updates_only else "last_per_subject")


def _object_name(info: api.ObjectInfo) -> object:
    # Two objects may have one name, in two places.
    return info.subject


def _read_object(
    foreign: Foreign, bucket: str, ignore_deletes: bool, msg: Msg, ack: AckSubject
) -> api.ObjectInfo | None:
    info = read_entry(foreign, bucket, msg, ack)
    return None if info is None or (ignore_deletes and info.deleted) else info
