"""nats-py's own asyncio objects as feeds, through trio-asyncio.

For programs that hold objects of nats-py, or depend on a library that does. `open_nats_py` gives a client of nats-py in a
trio-asyncio loop that lives as long as the block. `open_subscription`, `open_pull_subscription` and `open_watcher` make
feeds over such a client, wherever it came from, with the promise that all feeds make.

nats-py's own coroutines are called from Trio through trio-asyncio, whose `aio_as_trio` is here, too:
`await aio_as_trio(nc.publish)("a", b"1")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from nats.aio.msg import Msg
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from trionats._bridge.client import open_nats_py
from trionats._bridge.connection import connection_of
from trionats._bridge.loop import trio_asyncio
from trionats._bridge.pull_subscription import PullSubscription, open_pull_subscription
from trionats._bridge.stores import bridged_entries, bridged_objects
from trionats._bridge.subscription import Subscription, open_subscription
from trionats._feeds.opening import Opening, check_nursery, opens
from trionats._jetstream.ordered.watcher import watching, where_to_start
from trionats._protocol import subjects

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import trio

    from trionats import api
    from trionats._jetstream.ordered.watcher import OnRecreate, Watcher

__all__ = [
    "Msg",
    "PullSubscription",
    "Subscription",
    "aio_as_trio",
    "open_nats_py",
    "open_pull_subscription",
    "open_subscription",
    "open_watcher",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")

aio_as_trio = trio_asyncio.aio_as_trio

for _public in (PullSubscription, Subscription, open_nats_py, open_pull_subscription, open_subscription):
    _public.__module__ = __name__
del _public


@overload
def open_watcher(
    nursery: trio.Nursery,
    store: ObjectStore,
    *,
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> Opening[Watcher[api.ObjectInfo]]: ...


@overload
def open_watcher(
    nursery: trio.Nursery,
    store: KeyValue,
    *,
    keys: str | Sequence[str] = ">",
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    resume_from_revision: int | None = None,
    meta_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> Opening[Watcher[KeyValue.Entry]]: ...


def open_watcher(nursery: trio.Nursery, store: Any, **options: Any) -> Opening[Any]:
    """Watch an object store or a key-value bucket of nats-py: the last state of each entry first, then every change.

    `trionats.open_watcher` does the same with the options that all stores have. It is our own watcher, over the
    connection of nats-py's client: a pull consumer, so that nothing is dropped however slow the receiver is, without gap or
    duplicate across reconnects, deleted on the server when the block is left. nats-py's own `watch` is not used. There
    is no `None` between what was stored and what is new: that is what `caught_up` and `snapshot` are for.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        store: nats-py's store; its client lives in a trio-asyncio loop of this Trio run.
        keys: Of a key-value bucket: the pattern of the keys to watch, or several, which may overlap.
        ignore_deletes: Leave out what tells that an entry was deleted or purged.
        include_history: Begin with every state that is stored, not only with the last of each entry.
        updates_only: Leave out what is stored and begin with the next change; it is caught up at once.
        resume_from_revision: Of a key-value bucket: begin with this revision, or the next one that there is.
        meta_only: Of a key-value bucket: leave the values on the server.
        on_recreate: What to do when the store is deleted and made anew while it is watched: `"fail"` or `"restart"`.
        options: The options above.

    Returns:
        An async context manager that gives the `trionats.Watcher`: of an object store a feed of `trionats.api.ObjectInfo`,
        which is nats-py's class and more; of a key-value bucket a feed of `nats.js.kv.KeyValue.Entry`.

    Raises:
        nats.errors.BucketNotFoundError: There is no such store.
        trionats.errors.RevisionGoneError: The revision to resume with is older than all that is stored.
        trionats.errors.StreamRegressedError: The revision before the one to resume with was never stored.
        nats.errors.ConnectionClosedError: The client is closed.
        nats.errors.ConnectionDrainingError: The client is being drained.
        nats.errors.Error: As for any question to the JetStream API.
        RuntimeError: The client does not live in a trio-asyncio loop that is open, or was never connected.
        TypeError: `store` is no store of nats-py, or an option is not one for this kind of store.
        ValueError: Two of `include_history`, `updates_only` and `resume_from_revision`; `keys` is an empty sequence; or
            `on_recreate` is neither of the two.
    """
    if isinstance(store, ObjectStore):
        return _open_objects(nursery, store, **options)
    if isinstance(store, KeyValue):
        return _open_keys(nursery, store, **options)
    raise TypeError(f"open_watcher(nursery, store): the store must be nats-py's, not {type(store).__name__}")


def _as_open_watcher(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let what Python and we say of misuse name what was called."""
    function.__name__ = function.__qualname__ = open_watcher.__name__
    return function


@opens
@_as_open_watcher
async def _open_objects(
    nursery: trio.Nursery,
    store: ObjectStore,
    *,
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> AsyncIterator[Watcher[api.ObjectInfo]]:
    check_nursery(nursery, "open_watcher")
    start = where_to_start(include_history, updates_only, on_recreate, ignore_deletes=ignore_deletes)
    objects = bridged_objects(connection_of(store._js._nc, "open_watcher"), store, ignore_deletes=ignore_deletes)
    async with watching(nursery, objects, start, on_recreate) as watcher:
        yield watcher


@opens
@_as_open_watcher
async def _open_keys(
    nursery: trio.Nursery,
    store: KeyValue,
    *,
    keys: str | Sequence[str] = ">",
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    resume_from_revision: int | None = None,
    meta_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> AsyncIterator[Watcher[KeyValue.Entry]]:
    check_nursery(nursery, "open_watcher")
    start = where_to_start(
        include_history, updates_only, on_recreate, resume_from_revision, ignore_deletes=ignore_deletes
    )
    if not isinstance(keys, (str, Sequence)):
        raise TypeError(f"open_watcher(): keys must be a pattern or several, not {type(keys).__name__}")
    patterns = subjects.widest([f"{store._pre}{key}" for key in ([keys] if isinstance(keys, str) else keys)])
    if not patterns:
        raise ValueError("open_watcher(): keys is empty, and to the server no pattern at all means every key")
    for pattern in patterns:
        subjects.subscribe_subject(pattern)
    connection = connection_of(store._js._nc, "open_watcher")
    entries = bridged_entries(connection, store, patterns, ignore_deletes=ignore_deletes, meta_only=meta_only)
    async with watching(nursery, entries, start, on_recreate) as watcher:
        yield watcher
