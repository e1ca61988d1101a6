"""Watchers on a real object store, and ordered reading when the server or the stream misbehaves."""

from __future__ import annotations

import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.worlds import (
    consumers_are,
    context_of,
    events_until,
    meta_info,
    meta_subject,
    open_store,
    open_world,
    reconnected,
    seam,
    settled,
    until,
    write_infos,
)
from trionats import Client, Msg, ObjectStore, Watcher, api, errors, events, open_client, open_events, open_watcher
from trionats._jetstream.api import Api
from trionats._jetstream.ordered.entries import MAX_MESSAGES
from trionats._jetstream.ordered.source import Handed, OrderedSource, Sink
from trionats._protocol.jetstream.acks import AckSubject
from trionats._protocol.jetstream.actions import ALL
from trionats._protocol.jetstream.ordered.resuming import Ordered
from trionats.testing import TrioNatsServer, assert_no_leaks, open_server


def names(infos: list[api.ObjectInfo]) -> list[str]:
    return [info.name for info in infos]


async def received(rx: Watcher[api.ObjectInfo], count: int) -> list[str]:
    seen: list[str] = []
    with trio.fail_after(10):
        while len(seen) < count:
            seen.append((await rx.receive()).name)
    return seen


async def test_puts_replacements_and_deletions(
    store: ObjectStore, nc: Client, nursery: trio.Nursery, nats_server: TrioNatsServer
) -> None:
    async with assert_no_leaks(nc, server=nats_server), open_watcher(nursery, store) as rx:
        assert isinstance(rx, Watcher)
        # One by one: a state that is replaced before the server has sent it does not come.
        first = await store.put("a", b"1")
        seen = [await rx.receive()]
        await store.put("a", b"22")
        seen.append(await rx.receive())
        await store.delete("a")
        seen.append(await rx.receive())
        assert [(info.name, info.size, info.deleted) for info in seen] == [
            ("a", 1, False),
            ("a", 2, False),
            ("a", 0, True),
        ]
        assert seen[0].nuid == first.nuid
        assert seen[2].mtime == (await store.get_info("a", show_deleted=True)).mtime
        rx.stop()
        rx.stop()
        assert [info async for info in rx] == []
    await consumers_are(store, 0)


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({}, ["a", "c", "b"]),
        ({"ignore_deletes": True}, ["a", "c"]),
        ({"include_history": True}, ["a", "c", "b"]),
        ({"updates_only": True}, []),
        ({"updates_only": True, "ignore_deletes": True}, []),
    ],
)
async def test_what_is_stored_and_then_what_happens(
    store: ObjectStore, nursery: trio.Nursery, options: dict[str, Any], stored: list[str]
) -> None:
    for name in ("b", "a", "c"):
        await store.put(name, b"x")
    await store.delete("b")
    async with open_watcher(nursery, store, **options) as rx:
        assert rx.caught_up is (not stored)
        assert names(await rx.snapshot()) == stored
        assert rx.caught_up
        assert await rx.snapshot() == []
        await store.delete("a")
        await store.put("d", b"x")
        expected = ["d"] if "ignore_deletes" in options else ["a", "d"]
        assert [(await rx.receive()).name for _ in expected] == expected


async def test_history_is_what_the_stream_still_holds_and_the_last_one_is_the_end(
    store: ObjectStore, nursery: trio.Nursery
) -> None:
    for size in range(3):
        await context_of(store).publish(meta_subject(store.bucket, "a"), meta_info(store.bucket, "a", size=size))
    async with open_watcher(nursery, store, include_history=True) as rx:
        assert [info.size for info in await rx.snapshot()] == [0, 1, 2]
    async with open_watcher(nursery, store) as rx:
        assert [info.size for info in await rx.snapshot()] == [2]
    await write_infos(store, "a", "b", "c")
    async with open_watcher(nursery, store) as rx:
        seen = []
        async for info in rx:
            seen.append((info.name, rx.caught_up))
            if rx.caught_up:
                break
        assert seen == [("a", False), ("b", False), ("c", True)]
        assert rx.statistics().received == 3


@pytest.mark.parametrize("ignore_deletes", [False, True])
@pytest.mark.parametrize("state", ["empty", "only deleted", "only garbage", "purged while it opens"])
async def test_the_end_is_never_lost(
    store: ObjectStore, nursery: trio.Nursery, state: str, ignore_deletes: bool
) -> None:
    if state == "only deleted":
        await write_infos(store, "a", "b", deleted=True)
    elif state == "only garbage":
        for number, data in enumerate((b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000)):
            await context_of(store).publish(f"$O.{store.bucket}.M.{number}", data)
    elif state == "purged while it opens":
        await write_infos(store, *map(str, range(2000)))
    async with open_watcher(nursery, store, ignore_deletes=ignore_deletes) as rx:
        if state == "purged while it opens":
            await context_of(store).purge_stream(store.stream)
        with trio.fail_after(2):
            seen = await rx.snapshot()
        assert rx.caught_up
        assert len(seen) == (2 if state == "only deleted" and not ignore_deletes else len(seen))
        assert len(seen) < 2000
        # A11: that was not the end of the watcher.
        await write_infos(store, "later")
        assert (await rx.receive()).name == "later"


@pytest.mark.parametrize("caught_up", [False, True])
async def test_a_snapshot_after_the_block_is_refused(
    store: ObjectStore, nursery: trio.Nursery, caught_up: bool
) -> None:
    await store.put("a", b"")
    async with open_watcher(nursery, store) as rx:
        if caught_up:
            await rx.snapshot()
    with pytest.raises(trio.ClosedResourceError):
        await rx.snapshot()


async def test_snapshots_under_constant_writes_have_each_name_once(store: ObjectStore, nursery: trio.Nursery) -> None:
    keys = [f"k{number}" for number in range(20)]
    await write_infos(store, *keys)

    async def keep_writing() -> None:
        while True:
            await write_infos(store, random.choice(keys))

    async with trio.open_nursery() as writers:
        writers.start_soon(keep_writing)
        for _ in range(50):
            async with open_watcher(nursery, store) as rx:
                with trio.fail_after(5):
                    seen = names(await rx.snapshot())
                assert sorted(seen) == sorted(keys)
        writers.cancel_scope.cancel()


async def test_a_snapshot_that_is_cancelled_or_stopped(store: ObjectStore, nursery: trio.Nursery) -> None:
    keys = [f"k{number}" for number in range(3000)]
    await write_infos(store, *keys)
    async with open_watcher(nursery, store) as rx:
        cancelled = 0
        while True:
            with trio.move_on_after(0.005) as scope:
                seen = await rx.snapshot()
            if not scope.cancelled_caught:
                break
            cancelled += 1
        assert cancelled
        assert names(seen) == keys
    await write_infos(store, *map(str, range(2000)))
    async with open_watcher(nursery, store) as rx:
        await rx.receive()
        rx.stop()
        with pytest.raises(trio.EndOfChannel):
            await rx.snapshot()


async def test_somebody_else_receives_the_last_one(store: ObjectStore, nursery: trio.Nursery) -> None:
    await write_infos(store, "a", "b", "c")
    async with open_watcher(nursery, store) as rx:
        seen: list[str] = []

        async def collect() -> None:
            seen.extend(names(await rx.snapshot()))

        async def receive() -> None:
            seen.append((await rx.receive()).name)

        with trio.fail_after(2):
            async with trio.open_nursery() as receivers:
                receivers.start_soon(collect)
                for _ in range(3):
                    receivers.start_soon(receive)
                await settled(0.05)
                # Whoever of the three still waits gets what comes next.
                receivers.start_soon(write_infos, store, "d", "e", "f")
        assert {"a", "b", "c"} <= set(seen)


async def test_a_slow_receiver_loses_nothing(store: ObjectStore, nursery: trio.Nursery) -> None:
    async with open_watcher(nursery, store) as rx:
        keys = [f"k{number}" for number in range(3000)]
        await write_infos(store, *keys)
        await trio.sleep(0.3)
        assert rx.statistics().pending <= MAX_MESSAGES
        seen = [(await rx.receive()).name for _ in keys]
        assert seen == keys
        assert rx.statistics().resets == 0


@pytest.mark.parametrize("busy", [True, False])
async def test_a_killed_server_that_comes_back(busy: bool) -> None:
    client = {"reconnect_time_wait": 0.05}
    async with (
        open_server(jetstream=True) as server,
        open_store(server, client, storage=api.StorageType.FILE) as (store, nc, nursery),
        open_watcher(nursery, store) as rx,
        trio.open_nursery() as readers,
    ):
        seen: list[str] = []

        async def read() -> None:
            seen.extend([info.name async for info in rx])

        await store.put("a", b"")
        await store.put("b", b"")
        if busy:
            readers.start_soon(read)
            await settled(0.05)
        await server.restart(kill=True)
        await reconnected(nc)
        await store.put("c", b"")
        if busy:
            await until(lambda: rx.statistics().received == 3)
            rx.stop()
        else:
            seen = await received(rx, 3)
    assert seen == ["a", "b", "c"]


class Cuttable:
    """A `dial` that can cut the connection it made last."""

    def __init__(self) -> None:
        self.stream: trio.SocketStream | None = None

    async def __call__(self, host: str, port: int) -> trio.abc.Stream:
        self.stream = await trio.open_tcp_stream(host, port)
        return self.stream

    def cut(self) -> None:
        assert self.stream is not None
        self.stream.socket.shutdown(socket.SHUT_RDWR)


async def test_twenty_disconnects_leave_one_consumer_and_lose_nothing(nats_server: TrioNatsServer) -> None:
    dial = Cuttable()
    async with (
        open_store(nats_server, {"dial": dial, "reconnect_time_wait": 0.01}) as (store, nc, nursery),
        open_watcher(nursery, store) as rx,
    ):
        expected: list[str] = []
        seen: list[str] = []
        for number in range(20):
            await write_infos(store, f"before {number}")
            dial.cut()
            await reconnected(nc, number + 1)
            await write_infos(store, f"after {number}")
            expected += [f"before {number}", f"after {number}"]
            if number % 3 == 0:
                seen += await received(rx, len(expected) - len(seen))
        seen += await received(rx, len(expected) - len(seen))
        assert seen == expected
        await consumers_are(store, 1)


async def test_a_consumer_that_is_deleted_is_replaced(store: ObjectStore, nursery: trio.Nursery) -> None:
    async with open_watcher(nursery, store) as rx:
        for number in range(5):
            await write_infos(store, f"k{number}")
            js = context_of(store)
            for consumer in await js.consumers_info(store.stream):
                await js.delete_consumer(store.stream, consumer.name)
            assert await received(rx, 1) == [f"k{number}"]
        assert rx.statistics().resets
        await consumers_are(store, 1)


@pytest.mark.parametrize("denied", ["$JS.API.CONSUMER.MSG.NEXT.>", "$JS.API.CONSUMER.CREATE.>"])
async def test_a_permission_that_is_missing_ends_it_at_once(denied: str) -> None:
    """No status tells of a refused pull, and silence alone would lead from consumer to consumer for ever."""
    users = f"""authorization {{ users = [
        {{user: boss, password: b0ss}}
        {{user: guest, password: guest, permissions: {{publish: {{deny: "{denied}"}}}}}}
    ] }}"""
    async with (
        open_server(users, jetstream=True) as server,
        open_world(server, user="boss", password="b0ss") as (_, boss, _),
        open_world(server, user="guest", password="guest") as (_, guest, nursery),
    ):
        mine = await boss.jetstream().create_object_store("b")
        await mine.put("a", b"")
        store = await guest.jetstream().object_store("b")
        async with assert_no_leaks(guest, server=server):
            with trio.fail_after(3), pytest.raises(errors.PermissionsViolationError, match="CONSUMER"):
                async with open_watcher(nursery, store) as rx:
                    await rx.receive()


async def test_a_bucket_that_is_deleted(nats_server: TrioNatsServer) -> None:
    async with open_store(nats_server) as (store, nc, nursery), assert_no_leaks(nc), open_watcher(nursery, store) as rx:
        await write_infos(store, "a")
        # What is buffered comes first.
        await until(lambda: rx.statistics().pending)
        await context_of(store).delete_object_store(store.bucket)
        assert await received(rx, 1) == ["a"]
        with trio.fail_after(20), pytest.raises(errors.BucketNotFoundError, match=store.bucket):
            await rx.receive()


@pytest.mark.parametrize("read", [False, True])
async def test_a_bucket_that_is_deleted_right_behind_the_opening(nats_server: TrioNatsServer, read: bool) -> None:
    """The request for messages crosses the deletion, and nobody answers it: the next one finds out."""
    for _ in range(3):
        async with open_store(nats_server) as (store, _, nursery):
            await write_infos(store, "a")
            async with open_watcher(nursery, store) as rx:
                if read:
                    await rx.snapshot()
                await context_of(store).delete_object_store(store.bucket)
                with trio.fail_after(2), pytest.raises(errors.BucketNotFoundError, match=store.bucket):
                    [info async for info in rx]


async def test_a_bucket_that_is_made_anew_went_backwards(nats_server: TrioNatsServer) -> None:
    gate = trio.Event()
    gate.set()

    async def dial(host: str, port: int) -> trio.abc.Stream:
        await gate.wait()
        return await trio.open_tcp_stream(host, port)

    async with (
        open_store(nats_server, {"dial": dial, "connect_timeout": 20}) as (store, nc, nursery),
        open_watcher(nursery, store) as rx,
        open_events(nursery, nc) as happened,
        open_world(nats_server) as (_, other, _),
    ):
        await write_infos(store, *map(str, range(5)))
        await received(rx, 5)
        config = (await other.jetstream().stream_info(store.stream)).config
        # While we are away: seen in between, the bucket would be gone.
        gate = trio.Event()
        nursery.start_soon(nc.reconnect)
        await events_until(happened, events.Disconnected)
        await other.jetstream().delete_stream(store.stream)
        await other.jetstream().add_stream(config)
        gate.set()
        with trio.fail_after(20), pytest.raises(errors.StreamRegressedError, match=store.stream):
            await rx.receive()


async def test_a_bucket_that_was_restored_from_a_backup_went_backwards(tmp_path: Path) -> None:
    store_dir, backup = tmp_path / "js", tmp_path / "backup"
    async with (
        open_server(jetstream=True, store=store_dir) as server,
        open_store(server, {"reconnect_time_wait": 0.05}, storage=api.StorageType.FILE) as (store, nc, nursery),
        open_watcher(nursery, store) as rx,
    ):
        await store.put("a", b"")
        await store.put("b", b"")
        await server.stop()
        shutil.copytree(store_dir, backup)
        await server.start()
        await nc.wait_connected()
        await store.put("c", b"")
        await store.put("d", b"")
        assert await received(rx, 4) == ["a", "b", "c", "d"]
        await server.stop()
        shutil.rmtree(store_dir)
        shutil.copytree(backup, store_dir)
        await server.start()
        with trio.fail_after(10), pytest.raises(errors.StreamRegressedError, match="sequence 4"):
            await rx.receive()


async def test_the_client_is_closed(store: ObjectStore, nats_server: TrioNatsServer) -> None:
    async with trio.open_nursery() as nursery:
        async with open_client(nursery, nats_server.url) as other:
            mine = await other.jetstream().object_store(store.bucket)
            manager = open_watcher(nursery, mine)
            rx = await manager.__aenter__()
            await write_infos(store, "a")
            await until(lambda: rx.statistics().pending)
        assert [info.name async for info in rx] == ["a"]
        await manager.__aexit__(None, None, None)
        with pytest.raises(trio.ClosedResourceError):
            await rx.receive()
        await consumers_are(store, 0)


async def test_what_cannot_be_opened_or_is_cancelled_leaves_no_consumer(
    store: ObjectStore, nc: Client, nursery: trio.Nursery, nats_server: TrioNatsServer
) -> None:
    async with assert_no_leaks(nc, server=nats_server):
        async with trio.open_nursery() as closed:
            pass
        gone = await nc.jetstream().create_object_store("gone")
        await nc.jetstream().delete_object_store("gone")
        wrong: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
            (nursery, store, {"include_history": True, "updates_only": True}, ValueError, "exclude"),
            (nursery, store, {"on_recreate": "begin"}, ValueError, "must be 'fail' or 'restart', not 'begin'"),
            (nursery, "configs", {}, TypeError, "str"),
            (store, store, {}, TypeError, "nursery"),
            (nursery, gone, {}, errors.BucketNotFoundError, "'gone'"),
            (closed, store, {}, RuntimeError, "closed"),
        ]
        for where, what, options, kind, text in wrong:
            with pytest.raises(kind, match=text):
                async with open_watcher(where, what, **options):
                    pass
    async with assert_no_leaks(nc, server=nats_server):
        for microseconds in range(0, 2000, 50):
            with trio.move_on_after(microseconds / 1e6):
                async with open_watcher(nursery, store):
                    await trio.sleep_forever()
    await consumers_are(store, 0)
    before = nc.statistics()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_watcher(nursery, store):
            pass
    assert scope.cancelled_caught
    assert nc.statistics() == before


class Collector:
    """Reads a stream to its end, with room for some messages."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.messages: list[Msg] = []
        self.sizes: list[int] = []
        self.done = False
        self.room = room
        self.wake: Callable[[], None] = lambda: None

    def take(self, msg: Msg, ack: AckSubject, size: int) -> Handed:
        assert ack.sequence
        self.wake()
        if len(self.messages) >= self.room:
            self.room += 1
            return Handed.REFUSED
        self.messages.append(msg)
        self.sizes.append(size)
        return Handed.KEPT

    def stored_read(self) -> None:
        self.done = True
        self.wake()

    async def read(self, nc: Client, stream: str, **options: Any) -> OrderedSource:  # noqa: ANN401 - of `Ordered`
        ordered = Ordered(stream, seam(nc).new_token(), random.Random(1), start=ALL, snapshot=True, **options)
        source = OrderedSource(Api(seam(nc)), ordered, Sink(self.take, self.stored_read))
        self.wake = source.wake
        await source.open()
        try:
            with trio.fail_after(5):
                while not self.done:
                    while self.sizes:
                        source.taken(self.sizes.pop(0))
                    if not self.done:
                        await source.step()
        finally:
            source.close()
            source.close()
        return source


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_messages": 1},
        {"max_messages": 2, "max_bytes": 1000},
        {"max_bytes": 300},
        {"max_bytes": 1},
        {"headers_only": True},
    ],
)
async def test_any_credit_is_enough(store: ObjectStore, nc: Client, options: dict[str, Any]) -> None:
    """Also one that the largest messages do not fit into: they come alone."""
    lengths = [1 + number * 37 % 900 for number in range(60)]
    for length in lengths:
        await context_of(store).publish(f"$O.{store.bucket}.C.x", b"x" * length)
    collector = Collector()
    source = await collector.read(nc, store.stream, **options)
    assert source.resets == 0
    read = [len(msg.data) for msg in collector.messages]
    assert read == ([0] * 60 if options.get("headers_only") else lengths)
    await consumers_are(store, 0)


async def test_what_is_refused_comes_again(store: ObjectStore, nc: Client) -> None:
    for number in range(30):
        await context_of(store).publish(f"$O.{store.bucket}.C.x", str(number).encode())
    collector = Collector(room=7)
    source = await collector.read(nc, store.stream)
    assert [int(msg.data) for msg in collector.messages] == list(range(30))
    assert source.resets
    await consumers_are(store, 0)
