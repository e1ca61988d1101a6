"""nats-py's own asyncio objects as feeds, through trio-asyncio.

For programs that hold objects of nats-py, or depend on a library that does. `open_nats_py` gives a client of nats-py in a
trio-asyncio loop that lives as long as the block. `open_subscription`, `open_pull_subscription` and `open_watcher` make
feeds over such a client, wherever it came from, with the promise that all feeds make.

nats-py's own coroutines are called from Trio through trio-asyncio, whose `aio_as_trio` is here, too:
`await aio_as_trio(nc.publish)("a", b"1")`.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import nats.aio.client
import trio
from nats.aio.msg import Msg
from nats.js.client import JetStreamContext
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore
from trio.lowlevel import checkpoint

from trionats._bridge.connection import connection_of
from trionats._bridge.loop import Host, trio_asyncio
from trionats._bridge.pull_subscription import PullSubscription, Subscription
from trionats._bridge.stores import bridged_entries, bridged_objects
from trionats._discretion import Given, guarded
from trionats._feeds.bounded import check_limits
from trionats._feeds.feed import feeding
from trionats._feeds.opening import Opening, check_nursery, opens
from trionats._jetstream.api import Api
from trionats._jetstream.watcher import watching, where_to_start
from trionats._protocol import subjects
from trionats._protocol.addresses import list_of_urls

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Sequence

    from trionats import api
    from trionats._feeds.bounded import Overflow
    from trionats._jetstream.watcher import OnRecreate, Watcher

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

aio_as_trio = trio_asyncio.aio_as_trio

for _public in (PullSubscription, Subscription):
    _public.__module__ = __name__
del _public


@opens
async def open_nats_py(
    nursery: trio.Nursery,
    servers: str | Sequence[str] = "nats://127.0.0.1:4222",
    **nats_py_options: Any,  # noqa: ANN401 - nats-py's own
) -> AsyncIterator[nats.aio.client.Client]:
    """Connect a client of nats-py, in a trio-asyncio loop that lives exactly as long as the block.

    Inside the block, and in tasks that are started there, the loop is trio-asyncio's current one, so that any asyncio
    library runs with `aio_as_trio`. Where such a loop is open in this context already, the client joins it,
    and the loop stays as it is when the block is left.

    Entering waits until the client is connected. How long that may take says the deadline in force, or else nats-py,
    which by default tries for two minutes. Failed or cancelled, it leaves nothing. Leaving ends the feeds of the client,
    closes it with what it has to send, cancels every asyncio task that is left in the loop, closes its asynchronous
    generators, and ends the loop. Each of these is shielded and takes 2 s at the most, and 2 s more where asyncio code
    swallows its cancellation; a task that goes on even then is left behind, with a log record, and so is a thread. If the
    nursery is cancelled, the client is closed and the loop ended at once.

    In a loop of our own, KeyboardInterrupt is held back from asyncio code and comes out of the main task. An exception that
    no asyncio task retrieves is logged, at the level ERROR, and ends nothing. A `SystemExit` that asyncio code raises ends
    the block and comes out of the nursery.

    Args:
        nursery: Where the loop's task lives. A cancel scope around this call bounds the opening, not the client.
        servers: As nats-py takes them.
        nats_py_options: What else nats-py's `connect` takes.

    Returns:
        An async context manager that gives the connected `nats.aio.client.Client`.

    Raises:
        nats.errors.ConnectionClosedError: The nursery was cancelled before the client was connected.
        nats.errors.Error: As nats-py's `connect`.
        OSError: As nats-py's `connect` with `allow_reconnect=False`.
        TypeError: The servers are neither a URL nor several.
    """
    given = Given(servers, nats_py_options)
    del servers, nats_py_options  # a traceback may show local variables
    check_nursery(nursery, "open_nats_py")
    given.servers = _checked_servers(given.servers)
    client = nats.aio.client.Client()
    host = Host()
    await checkpoint()
    loop = await nursery.start(partial(host.run, partial(_say_goodbye, client)), name="trionats asyncio loop")
    token = trio_asyncio.current_loop.set(loop)
    try:
        await _connect(host, loop, client, given)
        yield client
    finally:
        # Left in another task than it was entered in: that one's context never had the loop.
        with suppress(ValueError):
            trio_asyncio.current_loop.reset(token)
        await host.leave()  # noqa: ASYNC102 - shielded and bounded inside


@guarded
async def _connect(host: Host, loop: asyncio.AbstractEventLoop, client: nats.aio.client.Client, given: Given) -> None:
    await host.call(loop, client.connect, given.servers, **given.options)


@guarded
def _checked_servers(servers: object) -> str | list[str]:
    """Make of the servers what nats-py takes; it would say of others what is wrong, and not with what."""
    return servers if isinstance(servers, str) else list_of_urls(servers)


async def _say_goodbye(client: nats.aio.client.Client) -> None:
    if client._flush_queue is None:  # `connect` was not called, or did not like its arguments
        return
    try:
        await client.close()
    finally:
        # One that was cancelled between two attempts counts as closed, and `close` does nothing.
        if client._transport:
            client._transport.close()  # type: ignore[no-untyped-call]


@opens
async def open_subscription(
    nursery: trio.Nursery,
    nats_py_client: nats.aio.client.Client,
    subject: str,
    *,
    queue: str = "",
    max_msgs: int = 0,
    pending_msgs_limit: int = 65_536,
    pending_bytes_limit: int = 64 * 1024 * 1024,
    overflow: Overflow = "fail",
) -> AsyncIterator[Subscription]:
    """Subscribe to a subject over a client of nats-py.

    Like `trionats.open_subscription`, with nats-py's messages. Entering is a checkpoint and does not wait for the server;
    what is published over the same client afterwards arrives. Leaving ends the feed synchronously and waits, shielded and
    bounded, only until its task is gone.

    The feed ends as every feed does: with `stop`, with the block, with the nursery; when the client is closed, or, on
    `drain`, when the last message has come; and after `max_msgs`. It survives nats-py's reconnects. `receive` raises what
    nats-py gave up for, and `trionats.errors.PermissionsViolationError` when the server refuses the subject.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        nats_py_client: The client, in a trio-asyncio loop of this Trio run.
        subject: The subject; `*` stands for one token and `>` for all that follow.
        queue: The queue group: each message goes to one member of it.
        max_msgs: End after so many messages; 0 for never.
        pending_msgs_limit: How many messages may wait to be received.
        pending_bytes_limit: How many bytes of headers and payloads may wait to be received.
        overflow: What happens to a message that would be too much: `"fail"` ends the feed, and `receive` raises
            `nats.errors.SlowConsumerError` after what is buffered; `"drop_new"` drops it; `"drop_old"` drops the oldest
            ones that wait. Drops are counted, and nats-py's `error_cb` is told once of each episode.

    Returns:
        An async context manager that gives the `Subscription`, a feed of `nats.aio.msg.Msg`.

    Raises:
        nats.errors.BadSubjectError: The subject or the queue is not valid.
        nats.errors.ConnectionClosedError: The client is closed.
        nats.errors.ConnectionDrainingError: The client is being drained.
        RuntimeError: The client does not live in a trio-asyncio loop that is open, or was never connected.
        ValueError: A limit, or the policy, is none.
    """
    check_nursery(nursery, "open_subscription")
    check_limits(max_msgs, pending_msgs_limit, pending_bytes_limit, overflow)
    subjects.subscribe_subject(subject)
    if queue:
        subjects.queue_name(queue)
    await checkpoint()
    connection = connection_of(nats_py_client, "open_subscription")
    feed = Subscription(connection, subject, max_msgs, pending_msgs_limit, pending_bytes_limit, overflow)
    async with feeding(nursery, feed, connection.wait_stopped):
        feed.attach(queue)
        yield feed


@opens
async def open_pull_subscription(
    nursery: trio.Nursery,
    psub: JetStreamContext.PullSubscription,
    *,
    max_messages: int = 500,
    max_bytes: int = 8 * 1024 * 1024,
) -> AsyncIterator[PullSubscription]:
    """Read the consumer behind nats-py's pull subscription, message after message.

    It asks the server for as much as there is room for, over an inbox of its own: nothing is dropped however slow the
    receiver is, and no request is left with the server that would swallow the next message, as a cancelled `fetch` leaves
    one. It keeps to the limits that the consumer has when it is opened; where they are lowered later, `receive` raises
    `trionats.errors.APIError`. `psub` and its consumer stay the caller's, and both stay when the block is left; `psub.fetch`
    may be used beside it.

    Acknowledge with `await aio_as_trio(msg.ack)()`. Messages that were not received when the block is left,
    and those still under way, are given back to the server (NAK), unless the consumer limits deliveries: then its
    ack wait brings them.

    Entering asks the server once. Leaving ends the feed synchronously and waits, shielded and bounded, only until its task
    is gone. The feed ends as every feed does; `receive` raises `nats.errors.NotFoundError` when the consumer is deleted, and
    `trionats.errors.PermissionsViolationError` when the server refuses to be asked for messages.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        psub: What nats-py's `pull_subscribe` or `pull_subscribe_bind` gave.
        max_messages: How many messages may be asked for or wait to be received, unless the consumer allows fewer.
        max_bytes: How many bytes of messages may, unless the consumer allows fewer.

    Returns:
        An async context manager that gives the `PullSubscription`, a feed of `nats.aio.msg.Msg`.

    Raises:
        nats.errors.NotFoundError: The consumer is gone.
        nats.errors.ConnectionClosedError: The client is closed.
        nats.errors.ConnectionDrainingError: The client is being drained.
        RuntimeError: The client does not live in a trio-asyncio loop that is open, or was never connected.
        TypeError: `psub` is no pull subscription of nats-py.
        ValueError: A limit is none.
    """
    check_nursery(nursery, "open_pull_subscription")
    _check_psub(psub)
    if max_messages < 1 or max_bytes < 1:
        raise ValueError("open_pull_subscription(): max_messages and max_bytes must be 1 or more")
    connection = connection_of(psub._nc, "open_pull_subscription")
    jetstream = Api(connection, psub._js._prefix)
    feed = PullSubscription(connection, jetstream, psub._stream, psub._consumer, max_messages, max_bytes)
    await feed.start()
    async with feeding(nursery, feed, feed.run):
        yield feed


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
        keys: Of a key-value bucket: the pattern of the keys to watch, or several that do not overlap.
        ignore_deletes: Leave out what tells that an entry was deleted or purged.
        include_history: Begin with every state that is stored, not only with the last of each entry.
        updates_only: Leave out what is stored and begin with the next change; it is caught up at once.
        meta_only: Of a key-value bucket: leave the values on the server.
        on_recreate: What to do when the store is deleted and made anew while it is watched: `"fail"` or `"restart"`.
        options: The options above.

    Returns:
        An async context manager that gives the `trionats.Watcher`: of an object store a feed of `trionats.api.ObjectInfo`,
        which is nats-py's class and more; of a key-value bucket a feed of `nats.js.kv.KeyValue.Entry`.

    Raises:
        nats.errors.BucketNotFoundError: There is no such store.
        nats.errors.ConnectionClosedError: The client is closed.
        nats.errors.ConnectionDrainingError: The client is being drained.
        nats.errors.Error: As for any question to the JetStream API.
        RuntimeError: The client does not live in a trio-asyncio loop that is open, or was never connected.
        TypeError: `store` is no store of nats-py.
        ValueError: Both `include_history` and `updates_only`; `keys` is an empty sequence; or `on_recreate` is neither
            of the two.
    """
    if isinstance(store, ObjectStore):
        return _open_objects(nursery, store, **options)
    if isinstance(store, KeyValue):
        return _open_keys(nursery, store, **options)
    raise TypeError(f"open_watcher(nursery, store): the store must be nats-py's, not {type(store).__name__}")


@opens
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
    start = where_to_start(include_history, updates_only, on_recreate)
    objects = bridged_objects(connection_of(store._js._nc, "open_watcher"), store, ignore_deletes=ignore_deletes)
    async with watching(nursery, objects, start, on_recreate) as watcher:
        yield watcher


@opens
async def _open_keys(
    nursery: trio.Nursery,
    store: KeyValue,
    *,
    keys: str | Sequence[str] = ">",
    ignore_deletes: bool = False,
    include_history: bool = False,
    updates_only: bool = False,
    meta_only: bool = False,
    on_recreate: OnRecreate = "fail",
) -> AsyncIterator[Watcher[KeyValue.Entry]]:
    check_nursery(nursery, "open_watcher")
    start = where_to_start(include_history, updates_only, on_recreate)
    patterns = [f"{store._pre}{key}" for key in ([keys] if isinstance(keys, str) else keys)]
    if not patterns:
        raise ValueError("open_watcher(): keys is empty, and to the server no pattern at all means every key")
    for pattern in patterns:
        subjects.subscribe_subject(pattern)
    connection = connection_of(store._js._nc, "open_watcher")
    entries = bridged_entries(connection, store, patterns, ignore_deletes=ignore_deletes, meta_only=meta_only)
    async with watching(nursery, entries, start, on_recreate) as watcher:
        yield watcher


def _check_psub(psub: object) -> None:
    if not isinstance(psub, JetStreamContext.PullSubscription):
        text = f"what nats-py's pull_subscribe gives, not {type(psub).__name__}"
        raise TypeError(f"open_pull_subscription(nursery, psub): psub must be {text}")
