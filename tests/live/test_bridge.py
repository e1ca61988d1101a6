"""The bridge against a real server, with nats-py's own client.

What every feed promises is in tests/test_promise.py, whose table runs the kinds of tests/bridged.py.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import nats
import pytest
import trio
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.kv import KeyValue

import trionats
from tests import bridged
from tests.bridged import cut, ignore
from tests.worlds import collect, elsewhere, nursery_elsewhere, open_world, settled, unique, until
from trionats import bridge, errors
from trionats._bridge import stores as bridged_stores
from trionats._bridge.loop import loop_here, trio_asyncio
from trionats._feeds.feed import CLEANUP_SECONDS
from trionats.bridge import aio_as_trio
from trionats.testing import NatsServer, TrioNatsServer, assert_no_leaks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Container
    from pathlib import Path

    from nats.js.client import JetStreamContext

    from trionats import Feed

    Server: TypeAlias = TrioNatsServer | NatsServer

MANY = 200
RECONNECTS = {"reconnect_time_wait": 0.05, "max_reconnect_attempts": -1, "error_cb": ignore}


def aio_tasks() -> list[str]:
    return sorted(str(task.get_coro()) for task in asyncio.all_tasks(loop_here()))


def spawn(coroutine: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - of any function
    """Start an asyncio task in the loop that is open here."""
    loop = loop_here()
    assert loop is not None
    return loop.create_task(coroutine)


async def reconnected(nc: Client, times: int) -> None:
    """Wait until it is connected again; `is_connected` alone may not have heard of the loss yet."""
    await until(lambda: nc.is_connected and nc.stats["reconnects"] >= times)


@asynccontextmanager
async def connected(server: Server, **options: Any) -> AsyncIterator[tuple[Client, trio.Nursery]]:  # noqa: ANN401 - nats-py's
    """Give a client of nats-py, and a nursery for feeds over it."""
    async with trio.open_nursery() as background, bridge.open_nats_py(background, server.url, **options) as nc:
        async with trio.open_nursery() as nursery:
            yield nc, nursery


@asynccontextmanager
async def subscribed(subject: str, server: Server, **client: Any) -> AsyncIterator[tuple[Client, bridge.Subscription]]:  # noqa: ANN401
    """Give a client of nats-py, and a subscription over it."""
    async with connected(server, **{"error_cb": ignore, "reconnect_time_wait": 0.05, **client}) as (nc, nursery):
        async with bridge.open_subscription(nursery, nc, subject) as rx:
            yield nc, rx


async def create_store(js: JetStreamContext, what: str, name: str) -> tuple[Any, Any]:
    """Create an object store or a bucket of keys; give it, and what deletes it."""
    if what == "objects":
        return await aio_as_trio(js.create_object_store)(name), aio_as_trio(js.delete_object_store)
    return await aio_as_trio(js.create_key_value)(bucket=name), aio_as_trio(js.delete_key_value)


@asynccontextmanager
async def consumed(*feeds: Feed[Any]) -> AsyncIterator[None]:
    """Let a task receive from each feed, to its end."""
    async with trio.open_nursery() as consumers:
        for feed in feeds:
            consumers.start_soon(collect, feed, [])
        yield


# -- nothing is left ------------------------------------------------------------------------------------------------------


async def fill_stores(js: JetStreamContext) -> list[Any]:
    """Give as many stores as are watched; they are the same two again and again."""
    objects, _ = await create_store(js, "objects", "many")
    keys, _ = await create_store(js, "keys", "many")
    for store in (objects, keys):
        await aio_as_trio(store.put)("one", b"1")
    return [objects, keys] * (MANY // 2)


@asynccontextmanager
async def watched(stores: list[Any], elsewhere: trio.Nursery | None = None) -> AsyncIterator[list[Feed[Any]]]:
    async with trio.open_nursery() as here, AsyncExitStack() as stack:
        opened = [trionats.open_watcher(elsewhere or here, store) for store in stores]
        feeds = [await stack.enter_async_context(opening) for opening in opened]
        for feed in feeds:
            assert len(await feed.snapshot()) == 1
        yield feeds


async def watch_and_leave(way: str, nc: Client, stores: list[Any]) -> None:
    match way:
        case "stop":
            async with watched(stores) as feeds:
                for feed in feeds:
                    feed.stop()
                    assert [item async for item in feed] == []
        case "stop while somebody waits":
            async with watched(stores) as feeds, consumed(*feeds):
                await settled()
                for feed in feeds:
                    feed.stop()
        case "leaving":
            async with watched(stores) as feeds:
                assert len(feeds) == MANY
        case "an exception":
            with pytest.RaisesGroup(LookupError):
                async with watched(stores):
                    raise LookupError
        case "cancelling round the block":
            async with trio.open_nursery() as nursery, watched(stores, nursery) as feeds:
                nursery.cancel_scope.cancel()
                await feeds[0].receive()
        case "cancelling elsewhere":
            async with nursery_elsewhere() as nursery, watched(stores, nursery) as feeds, consumed(*feeds):
                nursery.cancel_scope.cancel()
        case "closing" | "draining":
            async with watched(stores) as feeds, consumed(*feeds):
                await aio_as_trio(nc.close if way == "closing" else nc.drain)()


WAYS = "stop,stop while somebody waits,leaving,an exception,cancelling round the block,cancelling elsewhere,closing,draining"


@pytest.mark.parametrize("way", WAYS.split(","))
async def test_200_watchers_leave_nothing(way: str, nats_server: TrioNatsServer) -> None:
    closes = way in ("closing", "draining")
    async with trio.open_nursery() as nursery, bridge.open_nats_py(nursery, nats_server.url) as stays:
        before = aio_tasks()
        async with assert_no_leaks(server=nats_server), bridge.open_nats_py(nursery, nats_server.url) as nc:
            stores = await fill_stores(nc.jetstream())
            at_rest = aio_tasks()
            async with assert_no_leaks(server=None if closes else nats_server):
                await watch_and_leave(way, nc, stores)
            await until(lambda: aio_tasks() == (before if closes else at_rest))
            assert nc.is_closed is closes
            assert not {"_close", "drain"} & set(vars(nc))
        await until(lambda: aio_tasks() == before)
        js = stays.jetstream()
        await aio_as_trio(js.delete_object_store)("many")
        await aio_as_trio(js.delete_key_value)("many")


async def test_200_watchers_of_a_server_that_dies_leave_nothing() -> None:
    with NatsServer(jetstream=True) as server:
        async with connected(server, allow_reconnect=False, error_cb=ignore) as (nc, _):
            before = {task for task in aio_tasks() if "Client" not in task}
            tasks = trio.lowlevel.current_statistics().tasks_living
            async with watched(await fill_stores(nc.jetstream())) as feeds:
                server.kill()
                for feed in feeds:
                    with pytest.raises(nats.errors.Error, match=r"127\.0\.0\.1"):
                        await feed.receive()
                await until(lambda: set(aio_tasks()) == before)
                assert trio.lowlevel.current_statistics().tasks_living <= tasks
        server.start()
        assert server.consumers() == []


@pytest.mark.parametrize("kind", bridged.KINDS.values(), ids=bridged.KINDS)
async def test_an_opening_that_is_cancelled_leaves_nothing(kind: Any) -> None:  # noqa: ANN401 - a world
    async with kind() as world:
        before = aio_tasks()
        async with assert_no_leaks(server=world.server), trio.open_nursery() as nursery:
            for steps in range(12):
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel_after, scope, steps)  # noqa: ASYNC111 - that is the test
                    async with world.open(nursery):
                        await trio.sleep_forever()
        await until(lambda: aio_tasks() == before)


async def cancel_after(scope: trio.CancelScope, steps: int) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()


# -- the seed's own case ---------------------------------------------------------------------------------------------------
# When one of these two fails, nats-py has mended it: say so in docs/bridge.rst.

PLAIN = """
    import asyncio, json, sys, nats

    async def main():
        nc = await nats.connect(sys.argv[1])
        store = await nc.jetstream().create_object_store("seed")
        before = len(asyncio.all_tasks())

        async def consume():
            async for _ in watcher:
                marked.set()

        marked = asyncio.Event()
        watcher = await store.watch()
        consumer = asyncio.create_task(consume())
        await marked.wait()
        await watcher.stop()
        await asyncio.wait([consumer], timeout=0.5)
        hangs = not consumer.done()
        left = len(asyncio.all_tasks()) - before
        await nc.close()
        await asyncio.wait([consumer], timeout=0.5)
        print(json.dumps({"hangs": hangs, "tasks": left, "hangs after close": not consumer.done()}))
        consumer.cancel()

    asyncio.run(main())
"""


def test_nats_py_under_asyncio_hangs_after_stop(shared_server: NatsServer) -> None:
    said, _, _ = run_python(PLAIN, shared_server.url)
    assert json.loads(said) == {"hangs": True, "tasks": 1, "hangs after close": True}
    assert shared_server.consumers("OBJ_seed")


async def test_nats_py_under_trio_asyncio_hangs_after_stop_and_outlives_its_nursery(
    nats_server: TrioNatsServer,
) -> None:
    async def iterate(*, task_status: trio.TaskStatus[None]) -> None:
        watcher = await aio_as_trio(bucket.watchall)()
        task_status.started()
        while True:
            await aio_as_trio(watcher.__anext__)()

    async with connected(nats_server) as (nc, _):
        store, delete_store = await create_store(nc.jetstream(), "objects", "seed")
        watcher = await aio_as_trio(store.watch)()
        assert await aio_as_trio(watcher.updates)() is None
        await aio_as_trio(watcher.stop)()
        with trio.move_on_after(0.5) as scope:
            await aio_as_trio(watcher.__anext__)()
        assert scope.cancelled_caught
        assert await nats_server.consumers("OBJ_seed")
        await delete_store("seed")

        bucket, delete = await create_store(nc.jetstream(), "keys", "seed")
        tasks, subscriptions = len(aio_tasks()), len(nc._subs)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                await nursery.start(iterate)
            nursery.cancel_scope.cancel()
        await trio.sleep(0.1)
        assert len(aio_tasks()) == tasks + 15
        assert len(nc._subs) == subscriptions + 5
        assert len(await nats_server.consumers("KV_seed")) == 5
        await delete("seed")


# -- watchers --------------------------------------------------------------------------------------------------------------


async def test_a_bucket_with_markers_patterns_and_values_left_away(nats_server: TrioNatsServer) -> None:
    async with connected(nats_server) as (nc, nursery):
        bucket = await aio_as_trio(nc.jetstream().create_key_value)(bucket="kinds", history=5)
        for key in ("a.1", "a.2", "b.1"):
            await aio_as_trio(bucket.put)(key, b"old")
            await aio_as_trio(bucket.put)(key, b"new")
        await aio_as_trio(bucket.delete)("a.2")
        await aio_as_trio(bucket.purge)("b.1")

        async def snapshot(**options: Any) -> list[tuple[str, bytes | None, str | None]]:  # noqa: ANN401 - open_watcher's
            async with bridge.open_watcher(nursery, bucket, **options) as rx:
                return [(entry.key, entry.value, entry.operation) for entry in await rx.snapshot()]

        new, deleted, purged = ("a.1", b"new", None), ("a.2", b"", "DEL"), ("b.1", b"", "PURGE")
        assert await snapshot() == [new, deleted, purged]
        assert await snapshot(keys="a.*") == [new, deleted]
        assert await snapshot(keys=["a.1", "b.>"]) == [new, purged]
        assert await snapshot(ignore_deletes=True) == [new]
        assert await snapshot(updates_only=True) == []
        assert (await snapshot(meta_only=True))[0] == ("a.1", b"", None)
        assert (await snapshot(include_history=True))[:2] == [("a.1", b"old", None), new]

        theirs = await aio_as_trio(bucket.get)("a.1")
        async with bridge.open_watcher(nursery, bucket, keys="a.1") as rx:
            (entry,) = await rx.snapshot()
            assert rx.caught_up
        assert (entry.bucket, entry.key, entry.value, entry.revision) == ("kinds", "a.1", b"new", theirs.revision)
        assert type(entry) is type(theirs)
        with pytest.raises(ValueError, match="keys is empty"):
            await snapshot(keys=[])
        for wrong in (7, {"a.1"}, iter(["a.1"])):
            with pytest.raises(TypeError, match="keys must be a pattern or several, not"):
                await snapshot(keys=wrong)
        with pytest.raises(ValueError, match="exclude each other"):
            await snapshot(updates_only=True, include_history=True)
        with pytest.raises(TypeError, match=r"^open_watcher\(\) has no option 'filter'"):
            await snapshot(filter="a.1")
        with pytest.raises(AttributeError, match=r"^open_watcher\(\) gives"):
            await bridge.open_watcher(nursery, bucket).receive()
        await aio_as_trio(nc.jetstream().delete_key_value)("kinds")


async def test_snapshots_of_a_bucket_with_history_under_constant_writes_have_each_key_once(
    nats_server: TrioNatsServer,
) -> None:
    names = [f"k.{number}" for number in range(40)]
    async with connected(nats_server) as (nc, nursery), open_world(nats_server) as (_, ours, _):
        bucket = await aio_as_trio(nc.jetstream().create_key_value)(bucket="busy", history=2)
        kv = await ours.jetstream().key_value("busy")
        for name in names * 2:
            await kv.put(name, b"")

        async def keep_writing() -> None:
            while True:
                for _ in range(20):
                    await ours.publish(f"$KV.busy.{random.choice(names)}", b"x")
                await kv.put(random.choice(names), b"x")

        async with trio.open_nursery() as writers:
            writers.start_soon(keep_writing)
            for _ in range(20):
                async with bridge.open_watcher(nursery, bucket) as rx:
                    with trio.fail_after(5):
                        seen = await rx.snapshot()
                assert sorted(entry.key for entry in seen) == sorted(names)
            writers.cancel_scope.cancel()
        await aio_as_trio(nc.jetstream().delete_key_value)("busy")


async def test_patterns_that_overlap_and_a_revision_to_resume_with(nats_server: TrioNatsServer) -> None:
    async with connected(nats_server) as (nc, nursery):
        bucket = await aio_as_trio(nc.jetstream().create_key_value)(bucket="resumed")
        for key in ("a.1", "b.1", "a.1", "c", "b.1"):
            await aio_as_trio(bucket.put)(key, b"1")

        async def revisions(**options: Any) -> list[int]:  # noqa: ANN401 - open_watcher's
            async with trionats.open_watcher(nursery, bucket, **options) as rx:
                return [entry.revision or 0 for entry in await rx.snapshot()]

        assert await revisions(keys=["*.1", "a.>", "a.1"]) == [3, 5]
        assert await revisions(resume_from_revision=4) == [4, 5]
        assert await revisions(resume_from_revision=6) == []
        with pytest.raises(errors.RevisionGoneError, match=r"'KV_resumed': revision 2 is gone: .* with 3"):
            await revisions(resume_from_revision=2)
        with pytest.raises(errors.StreamRegressedError, match="sequence 6, but its last sequence is 5"):
            await revisions(resume_from_revision=7)
        with pytest.raises(ValueError, match="include_history and resume_from_revision exclude each other"):
            await revisions(resume_from_revision=4, include_history=True)
        await aio_as_trio(nc.jetstream().delete_key_value)("resumed")


async def test_snapshots_of_a_bucket_with_history_are_whole_under_constant_writes(nats_server: TrioNatsServer) -> None:
    keys = [f"k{number}" for number in range(20)]
    async with connected(nats_server) as (nc, nursery), open_world(nats_server) as (_, writer, _):
        bucket = await aio_as_trio(nc.jetstream().create_key_value)(bucket="busy", history=2)
        for key in keys:
            await aio_as_trio(bucket.put)(key, b"1")

        async def keep_writing() -> None:
            while True:
                for _ in range(20):
                    await writer.publish(f"$KV.busy.{random.choice(keys)}", b"2")
                await writer.jetstream().publish(f"$KV.busy.{random.choice(keys)}", b"2")

        async with trio.open_nursery() as writers:
            writers.start_soon(keep_writing)
            for _ in range(20):
                async with trionats.open_watcher(nursery, bucket) as rx:
                    with trio.fail_after(5):
                        seen = sorted(str(entry.key) for entry in await rx.snapshot())
                assert seen == sorted(keys)
            writers.cancel_scope.cancel()
        await aio_as_trio(nc.jetstream().delete_key_value)("busy")


ODD = {"objects": ("$O.odd.M.YmFk", b'{"name": "bad", "options": {"link": {}}}'), "keys": ("$KV.odd.bad", b"1")}


@pytest.mark.parametrize("what", ODD)
async def test_what_cannot_be_read_ends_nothing_but_its_own_entry_and_a_deletion_does(
    what: str, nats_server: TrioNatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_entry(*arguments: Any) -> KeyValue.Entry | None:  # noqa: ANN401 - read_entry's
        entry = real(*arguments)
        if entry is not None and entry.key == "bad":
            raise OverflowError("nobody foresaw this")
        return entry

    real = bridged_stores.read_entry
    monkeypatch.setattr(bridged_stores, "read_entry", read_entry)
    async with connected(nats_server) as (nc, nursery):
        store, delete = await create_store(nc.jetstream(), what, "odd")
        await aio_as_trio(store.put)("before", b"1")
        await aio_as_trio(nc.jetstream().publish)(*ODD[what])
        await aio_as_trio(store.put)("behind", b"1")
        async with trionats.open_watcher(nursery, store) as rx:
            names = [getattr(entry, "name", None) or entry.key for entry in await rx.snapshot()]
            assert names == ["before", "behind"]
            assert "skipped what cannot be read" in caplog.text
            await delete("odd")
            # A request that crosses the deletion is not told of it.
            with trio.fail_after(2), pytest.raises(errors.BucketNotFoundError, match="odd"):
                await rx.receive()
        with pytest.raises(errors.BucketNotFoundError, match="odd"):
            await trionats.open_watcher(nursery, store).__aenter__()


async def test_watchers_resume_and_pull_subscriptions_go_on_when_the_server_is_killed() -> None:
    with NatsServer(jetstream=True) as server:
        async with pulled(server, 2, RECONNECTS) as (nc, nursery, psub, name):
            bucket = await aio_as_trio(nc.jetstream().create_key_value)(bucket="survives", history=64)
            opening = bridge.open_pull_subscription(nursery, psub)
            async with trionats.open_watcher(nursery, bucket) as rx, opening as pulling:
                assert [(await pulling.receive()).data for _ in range(2)] == [b"0", b"1"]
                seen: list[int] = []
                for number in range(30):
                    if number % 10 == 5:
                        await trio.to_thread.run_sync(lambda: server.restart(kill=True))
                        await reconnected(nc, number // 10 + 1)
                    await aio_as_trio(bucket.put)("key", b"%d" % number)
                    if number % 10 == 9:
                        seen += [int((await rx.receive()).value or b"") for _ in range(10)]
                assert seen == list(range(30))
                assert rx.statistics().resets >= 3
                await aio_as_trio(nc.jetstream().publish)(name, b"2")
                # A server that is killed may not remember what it delivered and nobody acknowledged.
                while (await pulling.receive()).data != b"2":
                    pass
            await until(lambda: server.consumers("KV_survives") == [])


# -- subscriptions ---------------------------------------------------------------------------------------------------------


async def publish(nc: Client, subject: str, count: int) -> None:
    """Publish messages that say their number."""
    for number in range(count):
        await aio_as_trio(nc.publish)(subject, b"%d" % number)
    await aio_as_trio(nc.flush)()


async def test_messages_can_be_answered_limited_and_shared(nats_server: TrioNatsServer) -> None:
    async def ask() -> None:
        replies.append(await aio_as_trio(nc.request)("ask", b"?", timeout=5, headers={"a": "b"}))

    replies: list[Any] = []
    async with (
        subscribed("ask", nats_server) as (nc, rx),
        trio.open_nursery() as nursery,
        bridge.open_subscription(nursery, nc, "few", max_msgs=3) as few,
        bridge.open_subscription(nursery, nc, "few", queue="q") as one,
        bridge.open_subscription(nursery, nc, "few", queue="q") as other,
    ):
        nursery.start_soon(ask)
        message = await rx.receive()
        assert (rx.subject, message.data, message.headers) == ("ask", b"?", {"a": "b"})
        await aio_as_trio(message.respond)(b"!")
        await publish(nc, "few", 20)
        assert [message.data async for message in few] == [b"0", b"1", b"2"]
        await until(lambda: replies and len(one) + len(other) == 20)
        assert [reply.data for reply in replies] == [b"!"]


async def test_headers_count_as_they_do_in_our_own_subscriptions(nats_server: TrioNatsServer) -> None:
    limits: Any = {"pending_bytes_limit": 50_000, "overflow": "drop_old"}
    async with (
        connected(nats_server) as (nc, nursery),
        trionats.open_client(nursery, nats_server.url) as ours,
        trionats.open_subscription(nursery, ours, "big", **limits) as native,
        bridge.open_subscription(nursery, nc, "big", **limits) as through_nats_py,
    ):
        await ours.flush()
        await aio_as_trio(nc.flush)()
        for _ in range(20):
            await aio_as_trio(nc.publish)("big", b"", headers={"h": "v" * 10_000})
        await until(lambda: native.statistics().delivered == through_nats_py.statistics().delivered == 20)
        assert through_nats_py.statistics() == native.statistics()
        assert native.statistics().dropped == 16
        for _ in range(4):
            await through_nats_py.receive()
        assert through_nats_py.statistics().pending_bytes == 0


async def test_the_error_callback_hears_once_of_each_time_that_a_consumer_is_slow(nats_server: TrioNatsServer) -> None:
    async def hear(error: Exception) -> None:
        heard.append(error)

    heard: list[Exception] = []
    async with (
        connected(nats_server, error_cb=hear) as (nc, nursery),
        bridge.open_subscription(nursery, nc, "slow", pending_msgs_limit=4, overflow="drop_new") as rx,
    ):
        for episode in (1, 2):
            await publish(nc, "slow", 10)
            await until(lambda: (rx.statistics().dropped, len(heard)) == (6 * episode, episode))  # noqa: B023 - waited for here
            for _ in range(4):
                await rx.receive()
    for error in heard:
        assert isinstance(error, errors.SlowConsumerError)
        assert (error.subject, error.sub is rx) == ("slow", True)  # type: ignore[comparison-overlap]


PERMISSIONS = """
    jetstream {{ store_dir: "{directory}" }}
    authorization {{ users = [
        {{ user: admin, password: admin }}
        {{ user: u, password: p, permissions: {{ {denied} }} }}
    ] }}
"""


@asynccontextmanager
async def denied(
    what: str, directory: Path, error_cb: Callable[[Exception], Any] = ignore
) -> AsyncIterator[tuple[Client, trio.Nursery, KeyValue, JetStreamContext.PullSubscription]]:
    """Give a client that something is denied to, a nursery, a bucket, and a pull subscription."""
    with NatsServer(PERMISSIONS.format(directory=directory, denied=what)) as server:
        async with (
            connected(server, user="admin", password="admin") as (admin, _),
            connected(server, user="u", password="p", error_cb=error_cb) as (nc, nursery),
        ):
            js, context = admin.jetstream(), nc.jetstream()
            await aio_as_trio(js.create_key_value)(bucket="denied")
            await aio_as_trio(js.add_stream)(name="DENIED", subjects=["denied"])
            theirs = await aio_as_trio(js.pull_subscribe)("denied", durable="d")
            bucket = KeyValue(name="denied", stream="KV_denied", pre="$KV.denied.", js=context, direct=True)
            yield nc, nursery, bucket, context.PullSubscription(context, theirs._sub, "DENIED", "d", b"unused.")


NO_INBOX, NO_CONSUMER = 'subscribe: {deny: "_INBOX.>"}', 'publish: {deny: "$JS.API.CONSUMER.>"}'
NO_PULL, NO_SECRET = 'publish: {deny: "$JS.API.CONSUMER.MSG.NEXT.>"}', 'subscribe: {deny: "secret.>"}'
CREATES, HINT, ASKS = r"CONSUMER\.CREATE\.KV_denied", ".*; set inbox_prefix= to what", r"CONSUMER\.INFO\.DENIED\.d"


@pytest.mark.parametrize(
    ("what", "open_", "says", "opens"),
    [
        (NO_INBOX, lambda n, _nc, kv, _: bridge.open_watcher(n, kv), CREATES + HINT, False),
        (NO_INBOX, lambda n, _nc, _kv, psub: bridge.open_pull_subscription(n, psub), ASKS, False),
        (NO_CONSUMER, lambda n, _nc, kv, _: bridge.open_watcher(n, kv), CREATES, False),
        (NO_CONSUMER, lambda n, _nc, _kv, psub: bridge.open_pull_subscription(n, psub), ASKS, False),
        (NO_SECRET, lambda n, nc, *_: bridge.open_subscription(n, nc, "secret.x"), r"secret\.x", True),
        (NO_PULL, lambda n, _nc, _kv, psub: bridge.open_pull_subscription(n, psub), "consumer 'd'", True),
        (NO_PULL, lambda n, _nc, kv, _: trionats.open_watcher(n, kv, updates_only=True), r"msg\.next\.kv_denied", True),
    ],
)
async def test_what_is_refused_ends_the_opening_or_the_feed(
    what: str, open_: Callable[..., Any], says: str, opens: bool, tmp_path: Path
) -> None:
    opened = False
    async with denied(what, tmp_path) as (nc, nursery, bucket, psub):
        with trio.fail_after(3), pytest.raises(errors.PermissionsViolationError, match=says):  # noqa: PT012 - which is it
            async with open_(nursery, nc, bucket, psub) as rx:
                opened = True
                await rx.receive()
    assert opened is opens


async def test_what_a_reader_may_not_ask_is_told_to_the_error_callback(tmp_path: Path) -> None:
    async def hear(error: Exception) -> None:
        heard.append(error)

    heard: list[Exception] = []
    async with denied('publish: {deny: "$JS.API.STREAM.INFO.>"}', tmp_path, hear) as (nc, nursery, bucket, _):
        async with trionats.open_watcher(nursery, bucket) as rx:
            await rx.snapshot()
            cut(nc)
            # It goes on, though nobody says whether it still is the same stream.
            await until(lambda: rx.statistics().resets == 1)
            await until(lambda: sum(isinstance(error, errors.PermissionsViolationError) for error in heard) == 1)
            await until(lambda: nc.is_connected)
            await aio_as_trio(bucket.put)("a", b"1")
            with trio.fail_after(5):
                assert (await rx.receive()).key == "a"


async def test_a_subscription_too_many_is_told_to_all() -> None:
    with NatsServer("max_subscriptions: 2") as server:
        async with connected(server, error_cb=ignore) as (nc, nursery), AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(bridge.open_subscription(nursery, nc, f"s{n}")) for n in range(3)]
            with trio.fail_after(3):
                for rx in feeds:
                    with pytest.raises(errors.Error, match="maximum subscriptions exceeded"):
                        await rx.receive()


async def test_a_client_of_another_run(nats_server: TrioNatsServer) -> None:
    async def main() -> None:
        async with trio.open_nursery() as foreign:
            with pytest.raises(RuntimeError, match=r"trio\.from_thread"):
                await bridge.open_subscription(foreign, nc, "a").__aenter__()

    async with connected(nats_server.server) as (nc, nursery):
        await trio.to_thread.run_sync(trio.run, main)
        async with bridge.open_subscription(nursery, nc, "a") as rx:
            await trio.to_thread.run_sync(trio.run, main)
            for call in (rx.stop, rx.receive_nowait):
                with pytest.raises(RuntimeError, match=r"trio\.from_thread"):
                    await trio.to_thread.run_sync(call)
            await aio_as_trio(nc.publish)("a", b"1")
            assert (await rx.receive()).data == b"1"


# -- the ends of a client --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def feeds_of(nc: Client) -> AsyncIterator[tuple[Feed[Any], Feed[Any]]]:
    """Give a subscription to `end.>`, which is patient, and a watcher."""
    bucket, _ = await create_store(nc.jetstream(), "keys", "end")
    async with (
        trio.open_nursery() as nursery,
        bridge.open_subscription(nursery, nc, "end.>") as rx,
        trionats.open_watcher(nursery, bucket) as watcher,
    ):
        await aio_as_trio(nc.flush)()
        yield rx, watcher


async def ended_on_purpose(*feeds: Feed[Any]) -> bool:
    return [item for feed in feeds async for item in feed] == []


@asynccontextmanager
async def theirs(server: TrioNatsServer) -> AsyncIterator[Client]:
    """Give a client of nats-py in a loop that is not ours."""
    async with trio_asyncio.open_loop():
        yield await aio_as_trio(nats.connect)(server.url)


async def make_slow(nc: Client, wait: Callable[[], Awaitable[object]]) -> None:
    """Give a client something to do that a drain waits for."""

    async def work(_: object) -> None:
        await wait()

    await aio_as_trio(nc.subscribe)("slow", cb=work)
    await aio_as_trio(nc.publish)("slow", b"")
    await aio_as_trio(nc.flush)()


@pytest.mark.parametrize("end", ["left as a context manager", "a drain that was taken before we came"])
async def test_ends_that_we_do_not_see_are_on_purpose(end: str, nats_server: TrioNatsServer) -> None:
    async with theirs(nats_server) as nc:
        leave = aio_as_trio(nc.drain) if "drain" in end else partial(aio_as_trio(nc.__aexit__), None, None, None)
        await make_slow(nc, lambda: asyncio.sleep(0.3))
        async with feeds_of(nc) as feeds:
            await leave()
            assert await ended_on_purpose(*feeds)
        await until(lambda: nats_server.server.consumers("KV_end") == [])


@pytest.mark.parametrize("drains", [1, 2])
async def test_a_drain_brings_the_last_message_and_takes_no_more_feeds(
    drains: int, nats_server: TrioNatsServer
) -> None:
    async with connected(nats_server) as (nc, _), connected(nats_server) as (other, _), feeds_of(nc) as (rx, watcher):
        await publish(other, "end.it", 5000)
        async with trio.open_nursery() as draining:
            for _ in range(drains):
                draining.start_soon(aio_as_trio(nc.drain))
            await until(lambda: nc.is_draining, pause=0)
            with pytest.raises(errors.ConnectionDrainingError, match="being drained"):
                await bridge.open_subscription(draining, nc, "late").__aenter__()
        assert [int(message.data) async for message in rx] == list(range(5000))
        assert await ended_on_purpose(watcher)


async def test_a_drain_that_is_refused_ends_nothing() -> None:
    with NatsServer(jetstream=True) as server:
        async with connected(server, **RECONNECTS) as (nc, _), feeds_of(nc) as (rx, watcher):
            server.kill()
            await until(lambda: nc.is_reconnecting)
            with pytest.raises(errors.ConnectionReconnectingError):
                await aio_as_trio(nc.drain)()
            await trio.to_thread.run_sync(server.start)
            await until(lambda: nc.is_connected)
            await aio_as_trio(nc.flush)()
            await aio_as_trio(nc.publish)("end.not", b"1")
            assert (await rx.receive()).data == b"1"
            bucket = await aio_as_trio(nc.jetstream().key_value)("end")
            await aio_as_trio(bucket.put)("key", b"1")
            assert (await watcher.receive()).key == "key"


async def test_a_client_that_is_lost_while_a_command_is_stuck() -> None:
    """A command with a full buffer waits for nats-py's flusher, which is gone when the client is closed."""

    async def take_nothing_more() -> None:
        await asyncio.get_running_loop().create_future()

    with NatsServer(jetstream=True) as server:
        options = {"allow_reconnect": False, "error_cb": ignore, "pending_size": 1}
        async with connected(server, **options) as (nc, nursery), feeds_of(nc) as feeds:
            nc._transport.drain = take_nothing_more  # type: ignore[method-assign, union-attr]
            async with bridge.open_subscription(nursery, nc, "one.more") as more:
                # Its SUB waits for the flusher now.
                await until(lambda: "one.more" in [subscription.subject for subscription in nc._subs.values()])
                server.kill()
                with trio.fail_after(5):
                    for feed in (*feeds, more):
                        with pytest.raises(nats.errors.Error, match="lost for good"):
                            await feed.receive()
                await until(lambda: not any("Commands" in task for task in aio_tasks()))
            assert nc.is_closed


async def test_a_client_that_is_connected_again_in_another_loop(nats_server: TrioNatsServer) -> None:
    nc = Client()
    for _ in range(2):
        async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
            await aio_as_trio(nc.connect)(nats_server.url, reconnect_time_wait=0.01)
            async with bridge.open_subscription(nursery, nc, "again") as rx:
                await aio_as_trio(nc.publish)("again", b"1")
                assert (await rx.receive()).data == b"1"
            await aio_as_trio(nc.close)()


async def test_a_loop_that_ends_under_a_feed_ends_it_and_takes_no_other(nats_server: TrioNatsServer) -> None:
    async def insist(nursery: trio.Nursery, nc: Client) -> None:
        for _ in range(5):
            try:
                async with bridge.open_subscription(nursery, nc, "again") as rx:
                    ready.set()
                    await rx.receive()
            except errors.ConnectionClosedError as error:
                refused.append(str(error))

    ready = trio.Event()
    refused: list[str] = []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery, theirs(nats_server) as nc:
            nursery.start_soon(insist, nursery, nc)
            await ready.wait()
            # Leaving a loop with an open client leaves its socket; that is another story.
            transport: Any = nc._transport
            transport._io_writer.close()
        with pytest.raises(errors.ConnectionClosedError):
            await bridge.open_subscription(nursery, nc, "late").__aenter__()
    assert "loop ends" in refused[0]
    assert len(refused) == 5


# -- pull subscriptions ----------------------------------------------------------------------------------------------------


Pulled: TypeAlias = "AsyncIterator[tuple[Client, trio.Nursery, JetStreamContext.PullSubscription, str]]"


@asynccontextmanager
async def pulled(server: Server, count: int = 10, client: Any = None, **config: Any) -> Pulled:  # noqa: ANN401 - options
    """Make a stream whose only subject is its name, which no other has, with a consumer `d`; give its pull subscription, too."""
    async with connected(server, **(client or {})) as (nc, nursery):
        js, name = nc.jetstream(), unique("PULLED")
        await aio_as_trio(js.add_stream)(name=name, subjects=[name])
        for number in range(count):
            await aio_as_trio(js.publish)(name, b"%d" % number)
        kept = ConsumerConfig(**{"ack_wait": 60.0, **config})
        psub = await aio_as_trio(js.pull_subscribe)(name, durable="d", config=kept)
        yield nc, nursery, psub, name
        if nc.is_connected:
            await aio_as_trio(js.delete_stream)(name)


async def test_nothing_large_is_lost_from_a_list(nats_server: TrioNatsServer) -> None:
    """The server loses what does not fit into a request that says how many bytes it takes."""
    sizes = {f"k.{number}": random.Random(number).randrange(60_000, 160_000) for number in range(120)}
    async with connected(nats_server) as (nc, nursery):
        js = nc.jetstream()
        bucket = await aio_as_trio(js.create_key_value)(bucket="large", history=3)
        for key, size in sizes.items():
            await aio_as_trio(bucket.put)(key, bytes(size))
        with trio.fail_after(60):
            async with trionats.open_watcher(nursery, bucket) as watcher:
                assert {entry.key: len(entry.value or b"") for entry in await watcher.snapshot()} == sizes
            config = ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, ack_policy=AckPolicy.NONE)
            psub = await aio_as_trio(js.pull_subscribe)("$KV.large.>", durable="d", config=config)
            async with bridge.open_pull_subscription(nursery, psub) as rx:
                assert [len((await rx.receive()).data) for _ in sizes] == list(sizes.values())
        await aio_as_trio(js.delete_key_value)("large")


async def test_what_was_not_received_goes_back_at_once(nats_server: TrioNatsServer) -> None:
    """And no request is left that swallows the next message."""
    async with pulled(nats_server) as (nc, nursery, psub, name):
        async with bridge.open_pull_subscription(nursery, psub, max_messages=4) as rx:
            for number in range(3):
                message = await rx.receive()
                assert message.data == b"%d" % number
                await aio_as_trio(message.ack)()
            await until(lambda: len(rx) >= 1)
        with trio.fail_after(5):
            rest = [message for _ in range(7) for message in await aio_as_trio(psub.fetch)(1)]
        assert sorted(int(message.data) for message in rest) == [3, 4, 5, 6, 7, 8, 9]
        assert (await aio_as_trio(psub.consumer_info)()).num_waiting == 0
        async with bridge.open_pull_subscription(nursery, psub) as rx:
            with trio.move_on_after(0.1):
                await rx.receive()
        await aio_as_trio(nc.flush)()
        await aio_as_trio(nc.publish)(name, b"next")
        (message,) = await aio_as_trio(psub.fetch)(1, timeout=5)
        assert (message.data, message.metadata.num_delivered) == (b"next", 1)


async def test_deliveries_that_are_limited_are_not_spent(nats_server: TrioNatsServer) -> None:
    async with pulled(nats_server, 3, max_deliver=2) as (_, nursery, psub, _):
        async with bridge.open_pull_subscription(nursery, psub) as rx:
            await until(lambda: len(rx) == 3)
        await trio.sleep(0.1)
        info = await aio_as_trio(psub.consumer_info)()
        assert (info.num_ack_pending, info.num_redelivered) == (3, 0)


async def test_nothing_that_is_given_back_comes_to_who_left(nats_server: TrioNatsServer) -> None:
    """It would be given back once more, or be on its way there when nobody takes it any more."""
    async with pulled(nats_server, 300) as (_, nursery, psub, _):
        async with bridge.open_pull_subscription(nursery, psub, max_messages=600) as rx:
            await until(lambda: len(rx) == 300)
        async with bridge.open_pull_subscription(nursery, psub) as rx:
            with trio.fail_after(5):
                again = [await rx.receive() for _ in range(300)]
        assert {message.metadata.num_delivered for message in again} == {2}


@pytest.mark.parametrize("limit", [{"max_batch": 10}, {"max_expires": 2_000_000_000}, {"max_bytes": 1000}])
async def test_a_consumer_with_limits_of_its_own(limit: dict[str, int], nats_server: TrioNatsServer) -> None:
    async with pulled(nats_server, 30) as (_, nursery, psub, _):
        await limit_consumer(psub, limit)
        async with bridge.open_pull_subscription(nursery, psub) as rx:
            received = [await rx.receive() for _ in range(30)]
        assert [(int(msg.data), msg.metadata.num_delivered) for msg in received] == [(n, 1) for n in range(30)]


async def test_a_limit_that_is_lowered_meanwhile_is_told(nats_server: TrioNatsServer) -> None:
    async with pulled(nats_server, 30) as (_, nursery, psub, _):
        async with bridge.open_pull_subscription(nursery, psub, max_messages=20) as rx:
            await until(lambda: len(rx) == 20)
            await limit_consumer(psub, {"max_batch": 5})
            with pytest.raises(errors.APIError, match="Exceeded MaxRequestBatch of 5"):
                await collect(rx, [])


async def limit_consumer(psub: JetStreamContext.PullSubscription, limit: dict[str, int]) -> None:
    name = psub._stream
    config = {"durable_name": "d", "ack_policy": "explicit", "ack_wait": 60_000_000_000, "filter_subject": name}
    body = json.dumps({"stream_name": name, "config": config | limit}).encode()
    subject = f"$JS.API.CONSUMER.DURABLE.CREATE.{name}.d"
    response = json.loads((await aio_as_trio(psub._nc.request)(subject, body, timeout=5)).data)
    assert limit.items() <= response["config"].items(), response


@pytest.mark.parametrize("count", [1, 0])
async def test_a_consumer_that_is_deleted_ends_its_feed_soon(count: int, nats_server: TrioNatsServer) -> None:
    """Right behind the opening the first request crosses the deletion, and then nobody answers it."""
    async with pulled(nats_server, count) as (nc, nursery, psub, name):
        async with bridge.open_pull_subscription(nursery, psub) as rx:
            if count:
                await rx.receive()
            await aio_as_trio(nc.jetstream().delete_consumer)(name, "d")
            with trio.fail_after(2), pytest.raises(errors.NotFoundError, match="not found"):
                await rx.receive()
        with pytest.raises(errors.NotFoundError):
            await bridge.open_pull_subscription(nursery, psub).__aenter__()


@pytest.mark.parametrize("what", ["consumer", "stream"])
@pytest.mark.parametrize("live", [True, False], ids=["live", "cut off"])
async def test_a_consumer_that_is_made_anew_ends_its_feed(what: str, live: bool, nats_server: TrioNatsServer) -> None:
    """What was received of the one before would settle other messages of this one."""
    options = {"reconnect_time_wait": 0.5, "error_cb": ignore}
    async with connected(nats_server) as (admin, _), pulled(nats_server, 1, options) as (nc, nursery, psub, name):
        js = admin.jetstream()
        async with bridge.open_pull_subscription(nursery, psub) as rx:
            await rx.receive()
            if not live:
                cut(nc)
                await until(lambda: not nc.is_connected)
            if what == "consumer":
                await aio_as_trio(js.delete_consumer)(name, "d")
            else:
                await aio_as_trio(js.delete_stream)(name)
                await aio_as_trio(js.add_stream)(name=name, subjects=[name])
            config = ConsumerConfig(durable_name="d", ack_policy=AckPolicy.EXPLICIT)
            await aio_as_trio(js.add_consumer)(name, config)
            await aio_as_trio(js.publish)(name, b"of another stream")
            with trio.fail_after(3), pytest.raises(errors.NotFoundError, match=r"made anew|not found"):
                await rx.receive()
        await until(lambda: nc.is_connected)


# -- the loop --------------------------------------------------------------------------------------------------------------


async def test_the_bodys_exception_comes_out_as_it_is_and_another_task_may_leave(nats_server: TrioNatsServer) -> None:
    async with assert_no_leaks(server=nats_server), trio.open_nursery() as nursery:
        with pytest.raises(LookupError, match=r"^mine$"):
            async with bridge.open_nats_py(nursery, nats_server.url):
                raise LookupError("mine")
        assert loop_here() is None
        opening = bridge.open_nats_py(nursery, nats_server.url)
        await elsewhere(opening.__aenter__)
        await opening.__aexit__(None, None, None)
        assert not nursery.child_tasks


async def test_an_open_loop_is_joined_and_stays_as_it_is(nats_server: TrioNatsServer) -> None:
    async with trio_asyncio.open_loop() as loop:
        mine = loop.create_task(asyncio.sleep(3600))
        async with assert_no_leaks(server=nats_server):
            async with subscribed("joined", nats_server) as (nc, rx):
                assert loop_here() is loop
                await aio_as_trio(nc.publish)("joined", b"1")
                assert (await rx.receive()).data == b"1"
            assert nc.is_closed
        assert not mine.done()
        assert asyncio.all_tasks(loop) == {mine}
        mine.cancel()


async def test_a_client_that_others_made(nats_server: TrioNatsServer) -> None:
    """Also where the feed's nursery and the calling task know nothing of the loop."""
    async with trio.open_nursery() as outer, theirs(nats_server) as nc:
        loop = trio_asyncio.current_loop.get()
        trio_asyncio.current_loop.set(None)
        async with bridge.open_subscription(outer, nc, "theirs") as rx:
            await aio_as_trio(nc.publish, loop=loop)("theirs", b"1")
            assert (await rx.receive()).data == b"1"
            await aio_as_trio(nc.close, loop=loop)()
            assert await ended_on_purpose(rx)


async def test_a_cancelled_nursery_ends_the_loop_of_a_block_outside(nats_server: TrioNatsServer) -> None:
    async with assert_no_leaks(server=nats_server), nursery_elsewhere() as nursery, trio.open_nursery() as feeds:
        async with bridge.open_nats_py(nursery, nats_server.url) as nc:
            async with bridge.open_subscription(feeds, nc, "outside") as rx:
                nursery.cancel_scope.cancel()
                with trio.fail_after(3):
                    assert await ended_on_purpose(rx)
            await until(lambda: nc.is_closed)


async def test_a_connect_that_is_cancelled_leaves_nothing(nats_server: TrioNatsServer) -> None:
    for steps in (0, 1, 5, 20, 60, 200):
        async with assert_no_leaks(server=nats_server), trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_after, scope, steps)  # noqa: ASYNC111 - that is the test
                async with bridge.open_nats_py(nursery, nats_server.url):
                    await trio.sleep_forever()


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "own loop"])
async def test_a_nursery_that_is_cancelled_elsewhere_while_we_connect(
    joined: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """nats-py's `close` would not stop its `connect`, which would go on to a client that nobody closes."""

    async def cancel_when_connecting() -> None:
        await settled(0.1)
        nursery.cancel_scope.cancel()

    async with AsyncExitStack() as stack:
        server = stack.enter_context(NatsServer())
        if joined:
            await stack.enter_async_context(trio_asyncio.open_loop())
        nursery = await stack.enter_async_context(nursery_elsewhere())
        before = aio_tasks() if joined else []
        server.pause()
        stack.callback(server.resume)
        async with trio.open_nursery() as waiting:
            waiting.start_soon(cancel_when_connecting)
            with trio.fail_after(3), pytest.raises(errors.ConnectionClosedError, match="passed in was cancelled"):
                await bridge.open_nats_py(nursery, server.url, error_cb=ignore).__aenter__()
        server.resume()
        await until(lambda: not server.connections())
        assert not joined or aio_tasks() == before
    assert logged(caplog) == []


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "trionats"]


async def test_a_server_that_is_not_there(nursery: trio.Nursery) -> None:
    async def connect(**options: Any) -> None:  # noqa: ANN401 - nats-py's
        await bridge.open_nats_py(nursery, "nats://127.0.0.1:1", error_cb=ignore, **options).__aenter__()

    before = nursery.child_tasks
    with pytest.raises(errors.NoServersError):
        await connect(reconnect_time_wait=0.01, max_reconnect_attempts=1)
    with trio.move_on_after(0.2) as scope:
        await connect()
    assert scope.cancelled_caught
    assert nursery.child_tasks == before
    with pytest.raises(TypeError, match="nonsense"):
        await connect(nonsense=1)


@pytest.mark.parametrize("milliseconds", [0, 0.2, 0.5, 1, 2, 3, 5, 55])
async def test_leaving_right_after_the_connection_broke(milliseconds: float) -> None:
    """nats-py is in the middle of its reconnecting then, and swallows its cancellation."""
    with NatsServer() as server, pytest.RaisesGroup(LookupError, flatten_subgroups=True):
        async with subscribed("x", server):
            server.kill()
            await trio.sleep(milliseconds / 1000)
            raise LookupError("mine")


class Busy:
    """What asyncio code may be doing when its loop ends."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.heard = 0

    async def deaf(self, times: int = 10**9) -> None:
        for _ in range(times):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:  # noqa: ASYNC103 - that is the test
                self.heard += 1

    async def clean_up(self, coroutine: Callable[..., Any] | None = None) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            self.heard += 1
            if coroutine:
                spawn(coroutine())

    async def run_in_executor(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.done.wait, 10)

    async def generate(self) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(60)  # noqa: ASYNC102 - that is the test

    async def iterate(self) -> None:
        self.generator = self.generate()
        assert await anext(self.generator) == 1


@pytest.mark.parametrize(
    ("work", "least", "most", "heard", "levels"),
    [
        (Busy.deaf, CLEANUP_SECONDS, CLEANUP_SECONDS + 1, range(6, 10**9), ["ERROR"]),
        (lambda busy: busy.deaf(times=5), 0, CLEANUP_SECONDS + 1, [5], []),
        (lambda busy: busy.clean_up(busy.clean_up), 0, CLEANUP_SECONDS, [2], []),
        (lambda busy: asyncio.to_thread(busy.done.wait, 10), 0, CLEANUP_SECONDS, [0], []),
        (Busy.run_in_executor, 0, CLEANUP_SECONDS, [0], []),
        (Busy.iterate, CLEANUP_SECONDS, CLEANUP_SECONDS + 1, [0], []),
    ],
    ids=["deaf", "deaf at first", "begins another", "to_thread", "run_in_executor", "generator"],
)
async def test_the_end_of_a_loop_is_held_up_for_a_bounded_time(
    work: Callable[[Busy], Awaitable[None]],
    least: float,
    most: float,
    heard: Container[int],
    levels: list[str],
    nats_server: TrioNatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    busy = Busy()
    async with connected(nats_server):
        task = spawn(work(busy))
        await settled()
        start = trio.current_time()
    lasted = trio.current_time() - start
    busy.done.set()
    assert least <= lasted < most
    assert busy.heard in heard
    assert task.done() is not bool(levels)
    assert [record.levelname for record in logged(caplog)] == levels
    assert ("left behind" in caplog.text) is bool(levels)


async def test_a_drain_that_swallows_its_cancellation_does_not_crash_the_loop(nats_server: TrioNatsServer) -> None:
    """In a loop that is not ours, the stray exception that nats-py leaves behind comes out of `open_loop`."""

    async def cancel_when_draining() -> None:
        with trio.CancelScope(shield=True):
            await until(lambda: nc.is_draining)
            # Its subscription has sent a PING when the first one is answered, and had its PONG with the second. A PONG for what was
            # cancelled ends nats-py's reader.
            for _ in range(2):
                await aio_as_trio(nc.flush)()
        scope.cancel()

    async with connected(nats_server) as (nc, _):
        await make_slow(nc, lambda: asyncio.sleep(3))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_draining)
                await aio_as_trio(nc.drain)()
        assert scope.cancel_called
        assert not scope.cancelled_caught
        assert nc.is_closed
        await trio.sleep(0.1)


async def test_a_stray_exception_is_logged_and_ends_nothing(
    nats_server: TrioNatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def stray() -> None:
        raise ZeroDivisionError("stray")

    async with subscribed("goes.on", nats_server) as (nc, rx):
        spawn(stray())
        # Python 3.13 forgets the task only with its cycle.
        await until(lambda: gc.collect() >= 0 and "never retrieved" in caplog.text)
        await aio_as_trio(nc.publish)("goes.on", b"1")
        assert (await rx.receive()).data == b"1"
    (record,) = logged(caplog)
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


# -- Ctrl-C and SystemExit -------------------------------------------------------------------------------------------------

INTERRUPTED = """
    import asyncio, sys, trio
    from trionats import bridge
    from trionats.bridge import aio_as_trio

    how, url = sys.argv[1:]

    async def spin():
        print("ready", flush=True)
        while True:
            sum(range(500_000))
            await asyncio.sleep(0)

    async def leave():
        await asyncio.sleep(0.05)
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt}[how.partition("-")[0]]("planted")

    async def main():
        async with trio.open_nursery() as nursery, bridge.open_nats_py(nursery, url) as nc:
            loop, work = bridge.trio_asyncio.current_loop.get(), spin if how.startswith("spin") else leave
            async with bridge.open_subscription(nursery, nc, "x") as rx:
                if how == "idle":
                    print("ready", flush=True)
                elif how.endswith("-task"):
                    loop.create_task(work())
                else:
                    await aio_as_trio(work)()
                await trio.sleep_forever()

    trio.run(main)
"""


def run_python(program: str, *arguments: str, interrupt: bool = False) -> tuple[str, str, int]:
    """Give what was printed, and the exit status."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            if interrupt:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                process.send_signal(signal.SIGINT)
            return *process.communicate(timeout=10), process.returncode
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        *((how, "KeyboardInterrupt") for how in ("idle", "spin", "spin-task")),
        *((how, "SystemExit: planted") for how in ("exit", "exit-task")),
        *((how, "KeyboardInterrupt: planted") for how in ("interrupt", "interrupt-task")),
    ],
)
def test_ctrl_c_and_exits_of_asyncio_code_end_the_program(how: str, says: str, shared_server: NatsServer) -> None:
    _, complaint, status = run_python(INTERRUPTED, how, shared_server.url, interrupt="planted" not in says)
    assert says in complaint
    assert status == 1
    deadline = time.monotonic() + 5  # the server hears of a closed socket later than we do
    while shared_server.connections():
        assert time.monotonic() < deadline
        time.sleep(0.01)
