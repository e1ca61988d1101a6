"""open_watcher: our own stores, or the bridge's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from trionats._core.deadlines import unexpected
from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.kv.store import ReadOnlyKeyValue
from trionats._jetstream.objects.store import ObjectStore
from trionats._jetstream.ordered.watcher import Watcher, watching, where_to_start
from trionats._protocol.fields import check_argument
from trionats._protocol.jetstream.kv.codecs import ALL_KEYS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    import nats.js.kv
    import nats.js.object_store
    import trio

    from trionats import api
    from trionats._feeds.opening import Opening
    from trionats._jetstream.ordered.entries import Entries
    from trionats._jetstream.ordered.watcher import OnRecreate


@overload
def open_watcher(
    nursery: trio.Nursery,
    store: ObjectStore | nats.js.object_store.ObjectStore,
    *,
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> Opening[Watcher[api.ObjectInfo]]: ...


@overload
def open_watcher(
    nursery: trio.Nursery,
    store: ReadOnlyKeyValue,
    *,
    keys: str | Sequence[str] = ">",
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    resume_from_revision: int | None = None,
    meta_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> Opening[Watcher[api.KeyValueEntry]]: ...


@overload
def open_watcher(
    nursery: trio.Nursery,
    store: nats.js.kv.KeyValue,
    *,
    keys: str | Sequence[str] = ">",
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    resume_from_revision: int | None = None,
    meta_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> Opening[Watcher[nats.js.kv.KeyValue.Entry]]: ...


@opens
async def open_watcher(
    nursery: trio.Nursery,
    store: ObjectStore | ReadOnlyKeyValue | nats.js.object_store.ObjectStore | nats.js.kv.KeyValue,
    *,
    keys: str | Sequence[str] | None = None,
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    resume_from_revision: int | None = None,
    meta_only: bool | None = None,
    on_recreate: OnRecreate = "fail",
    **unknown: object,
) -> AsyncIterator[Watcher[Any]]:
    """Watch an object store or a key-value bucket: the last state of each object or key first, then every change.

    Entering asks the server once, and waits for the response as `Client.request` does.
    Failed or cancelled, it leaves nothing on the server. Leaving ends the feed synchronously and waits, shielded and
    bounded, only until its task is gone; the server is told to delete its consumer, and nobody waits for its response.

    No entry's last state is lost and no change comes twice, whatever happens to the connection or to the server's
    consumer, and however slow the receiver is: it is asked for what there is room for. A state that is replaced before the
    server has sent it does not come, since the bucket does not hold it any more. Nor is there a word of what leaves no marker: a key that was
    purged by the stream's own means, or a value whose TTL ended in a bucket with history, which uncovers the one before. Where the store has replicas, what is
    stored is what the leader of its stream has: a replica that lags is waited for or left.

    `receive` raises `nats.errors.BucketNotFoundError` when the store is deleted, within 2 s; `StreamRegressedError`
    when it went back to an earlier state or was made anew (see `on_recreate`); `PermissionsViolationError` when the
    server refuses to be asked for more; and what the server said when it has refused 15 times in a row, in 36 to 73 s,
    to create a consumer, for a reason that does not pass by itself, such as a limit (`events.ReaderRefused` says so
    before). For what else ends it see `Feed`.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        store: The store; also nats-py's own object stores and key-value buckets, see `trionats.bridge.open_watcher`.
        keys: Of a key-value bucket: the keys to watch, as a pattern in which `*` stands for a token and a final `>` for all the
            rest, or as several of them, which may overlap. All when not given.
        ignore_deletes: Leave out what tells that an object or key was deleted or purged, or that its time was up.
        include_history: Begin with every state that is stored, not only with the last of each object or key.
        updates_only: Leave out what is stored and begin with the next change; it is caught up at once.
        resume_from_revision: Of a key-value bucket: begin with this revision, or the next one that there is, and all that
            follow, of whichever key: usually one more than the last that an earlier watcher received. It is caught up when
            what was stored at the opening has been received. Asks the server once more.
        meta_only: Of a key-value bucket: leave the values on the server; those of the entries are empty.
        on_recreate: What to do when the store is deleted and made anew while it is watched: `"fail"`, or `"restart"`,
            which begins with what the new one holds (all of it, with `updates_only`); an `events.StreamRecreated` says
            so, and `snapshot` gives nothing of the old one. A store that is not there again within about a second is
            gone.

    Returns:
        An async context manager that gives the `Watcher`.

    Raises:
        nats.errors.BucketNotFoundError: There is no such store.
        trionats.errors.RevisionGoneError: The revision to resume with is older than all that is stored: what came in between
            may have been replaced, or lost.
        trionats.errors.StreamRegressedError: The revision before the one to resume with was never stored: the bucket was made anew,
            or restored from a backup.
        trionats.errors.InvalidKeyError: A pattern of `keys` is none.
        nats.errors.Error: As for `Client.request`.
        TypeError: `store` is no store, or an option is of another kind, or not one for this kind of store.
        ValueError: Two of `include_history`, `updates_only` and `resume_from_revision`; `keys` is empty; or `on_recreate` is
            neither of the two.
    """
    if unknown:
        raise unexpected("open_watcher", unknown, None)
    of_keys = {"keys": keys, "resume_from_revision": resume_from_revision, "meta_only": meta_only}
    given = {name: value for name, value in of_keys.items() if value is not None}
    if type(store).__module__.startswith("nats.js."):
        from trionats import bridge  # noqa: PLC0415 - it brings trio-asyncio, which patches asyncio

        open_bridged: Callable[..., Opening[Watcher[Any]]] = bridge.open_watcher
        async with open_bridged(
            nursery,
            store,
            ignore_deletes=ignore_deletes,
            include_history=include_history,
            updates_only=updates_only,
            on_recreate=on_recreate,
            **given,
        ) as bridged:
            yield bridged
        return
    check_nursery(nursery, "open_watcher")
    start = where_to_start(
        include_history, updates_only, on_recreate, resume_from_revision, ignore_deletes=ignore_deletes
    )
    entries = _entries_of(store, given, ignore_deletes=ignore_deletes)
    entries.jetstream.connection.pace.run.check("open_watcher")
    async with watching(nursery, entries, start, on_recreate) as watcher:
        yield watcher


def _entries_of(store: object, of_keys: Mapping[str, Any], *, ignore_deletes: bool) -> Entries[Any]:
    """Say what is to be watched of a store, with those options that only key-value buckets have."""
    if isinstance(store, ObjectStore):
        if of_keys:
            raise TypeError(f"open_watcher(): {next(iter(of_keys))} is for key-value buckets, not for an ObjectStore")
        return store.__entries__(ignore_deletes=ignore_deletes)
    if isinstance(store, ReadOnlyKeyValue):
        meta_only = of_keys.get("meta_only", False)
        check_argument("open_watcher", "meta_only", bool, meta_only)
        return store.__entries__(of_keys.get("keys", ALL_KEYS), ignore_deletes=ignore_deletes, meta_only=meta_only)
    wrong = type(store).__name__
    raise TypeError(f"open_watcher(nursery, store): the store must be an ObjectStore or a KeyValue, not {wrong}")
