"""Streams made anew under a reader, live and cut off: there is never a silent gap, and never a mixture of two streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from nats.js.kv import KeyValue

from tests.worlds import cut_into, meta_info, meta_subject, open_world, unique, until, write_infos
from trionats import JetStream, Watcher, api, bridge, errors, events, open_events, open_watcher
from trionats._jetstream.ordered.entries import MAX_MESSAGES
from trionats.bridge import aio_as_trio
from trionats.testing import TrioNatsServer

OLD = [f"old{number}" for number in range(6)]
TOLD = (errors.StreamRegressedError, errors.BucketNotFoundError)


class Gate:
    """A way to the server that can be shut: what goes through it is cut then, and nobody gets in."""

    def __init__(self, nursery: trio.Nursery, server: TrioNatsServer) -> None:
        self._nursery, self._server = nursery, server
        self._open = True
        self._through: set[trio.SocketStream] = set()
        self.url = ""

    async def listen(self) -> None:
        listeners = await self._nursery.start(partial(trio.serve_tcp, self._pass, 0, host="127.0.0.1"))
        self.url = f"nats://127.0.0.1:{listeners[0].socket.getsockname()[1]}"

    def open(self) -> None:
        self._open = True

    async def shut(self) -> None:
        self._open = False
        for stream in list(self._through):
            await stream.aclose()

    async def _pass(self, outer: trio.SocketStream) -> None:
        if not self._open:
            await outer.aclose()
            return
        inner = await trio.open_tcp_stream("127.0.0.1", int(self._server.url.rpartition(":")[2]))
        self._through |= {outer, inner}
        async with outer, inner, trio.open_nursery() as both:
            both.start_soon(self._pump, outer, inner)
            both.start_soon(self._pump, inner, outer)
        self._through -= {outer, inner}

    async def _pump(self, here: trio.SocketStream, there: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in here:
                await there.send_all(data)
        await here.aclose()
        await there.aclose()


class Store:
    """A bucket as a stream, made and filled by raw requests."""

    def __init__(self, js: JetStream, bucket: str, *, keys: bool) -> None:
        self._js, self.bucket, self._keys = js, bucket, keys
        self.stream = f"KV_{bucket}" if keys else f"OBJ_{bucket}"

    async def make(self, **config: Any) -> None:  # noqa: ANN401 - of a stream
        subjects = [f"$KV.{self.bucket}.>"] if self._keys else [f"$O.{self.bucket}.C.>", f"$O.{self.bucket}.M.>"]
        kept = {"max_msgs_per_subject": 1} if self._keys else {}
        fields = {"subjects": subjects, "allow_rollup_hdrs": True, "allow_direct": True, **kept, **config}
        await self._js.add_stream(name=self.stream, storage=api.StorageType.MEMORY, **fields)

    async def delete(self) -> None:
        await self._js.delete_stream(self.stream)

    async def remake(self, **config: Any) -> None:  # noqa: ANN401 - of a stream
        await self._js.delete_stream(self.stream)
        await self.make(**config)

    async def write(self, *names: str) -> None:
        for name in names:
            if self._keys:
                await self._js.publish(f"$KV.{self.bucket}.{name}", b"")
                continue
            at, info = meta_subject(self.bucket, name), meta_info(self.bucket, name)
            await self._js.publish(at, info, headers={"Nats-Rollup": "sub"})

    async def purge(self) -> None:
        await self._js.purge_stream(self.stream)


def new(count: int) -> list[str]:
    return [f"new{number}" for number in range(count)]


class Way(NamedTuple):
    """How a store is made anew: with which configuration, and what is written into it."""

    written: list[str]
    config: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it
    purged: int = 0
    before: list[str] | None = None

    async def __call__(self, store: Store) -> list[str]:
        """Make it anew, and say what it holds then."""
        if self.before is not None:
            await store.remake()
            await store.write(*self.before)
        await store.remake(**self.config)
        await store.write(*new(self.purged))
        if self.purged:
            await store.purge()
        await store.write(*self.written)
        return self.written


MORE = Way(new(10))
WAYS = {
    "fewer": Way(new(2)),
    "as many": Way(new(6)),
    "more": MORE,
    "other configuration": Way(new(10), {"max_bytes": 1_000_000, "description": "another"}),
    "filled and purged": Way(["later"], purged=10),
    "from a high sequence": Way(new(3), {"first_seq": 1000}),
    "with the same again": Way([*OLD, "one more"]),
    "twice": Way(new(10), before=[f"between{number}" for number in range(8)]),
}


class Reading(NamedTuple):
    """A watcher, the bucket below it, and the way to the server that it uses."""

    rx: Watcher[Any]
    store: Store
    gate: Gate
    told: list[str]


def name_of(item: Any) -> str:  # noqa: ANN401 - of either kind
    return item.key if isinstance(item, KeyValue.Entry) else item.name


@asynccontextmanager
async def open_reading(server: TrioNatsServer, kind: str, on_recreate: Any) -> AsyncIterator[Reading]:  # noqa: ANN401
    """Open a watcher that has read what is stored, over a connection that can be cut."""
    told: list[str] = []
    async with open_world(server) as (_, admin, nursery):
        store = Store(admin.jetstream(), unique("recreated"), keys=kind == "keys")
        gate = Gate(nursery, server)
        await gate.listen()
        await store.make()
        await store.write(*OLD)
        options: dict[str, Any] = {"on_recreate": on_recreate}
        if kind in ("keys", "objects"):

            async def tell(error: Exception) -> None:
                told.append(type(error).__name__)

            patient = {"reconnect_time_wait": 0.02, "max_reconnect_attempts": -1, "error_cb": tell}
            async with bridge.open_nats_py(nursery, gate.url, **patient) as nats_py:
                js = nats_py.jetstream()
                find = js.key_value if kind == "keys" else js.object_store
                async with bridge.open_watcher(nursery, await aio_as_trio(find)(store.bucket), **options) as rx:
                    await rx.snapshot()
                    yield Reading(rx, store, gate, told)
        else:
            async with (
                open_world(server, gate.url, reconnect_time_wait=0.02) as (_, nc, _),
                open_events(nursery, nc) as happened,
                open_watcher(
                    nursery,
                    await nc.jetstream().object_store(store.bucket),
                    updates_only=kind == "updates",
                    include_history=kind == "history",
                    **options,
                ) as rx,
            ):
                nursery.start_soon(hear, happened, told)
                await rx.snapshot()
                yield Reading(rx, store, gate, told)
        await admin.jetstream().delete_stream(store.stream)
        nursery.cancel_scope.cancel()


async def hear(happened: Any, told: list[str]) -> None:  # noqa: ANN401 - Events
    async for event in happened:
        if isinstance(event, events.StreamRecreated):
            told.append(event.stream)  # noqa: PERF401 - kept when this is cancelled


async def remade(reading: Reading, way: Way, cut: bool) -> list[str]:
    if not cut:
        return await way(reading.store)
    await reading.gate.shut()
    expected = await way(reading.store)
    reading.gate.open()
    return expected


cut_or_not = pytest.mark.parametrize("cut", [False, True], ids=["live", "cut off"])
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@cut_or_not
@every_way
async def test_it_is_told(nats_server: TrioNatsServer, way: Way, cut: bool) -> None:
    async with open_reading(nats_server, "watcher", "fail") as reading:
        await remade(reading, way, cut)
        # Nothing of the other stream comes before.
        with trio.fail_after(5), pytest.raises(TOLD):
            await reading.rx.receive()


@cut_or_not
@every_way
async def test_it_begins_anew(nats_server: TrioNatsServer, way: Way, cut: bool) -> None:
    async with open_reading(nats_server, "watcher", "restart") as reading:
        expected = await remade(reading, way, cut)
        got = []
        with trio.fail_after(5):
            while expected[-1] not in got:
                got.append(name_of(await reading.rx.receive()))
        # Live, it may have begun with a stream that was made anew once more, or written into, while it was read.
        assert got[-len(expected) :] == expected
        assert set(got) <= {*expected, *(f"between{number}" for number in range(8)), *new(10)}
        assert cut <= (got == expected)
        assert reading.rx.caught_up
        await reading.store.write("afterwards")
        assert name_of(await reading.rx.receive()) == "afterwards"
        assert set(reading.told) == {reading.store.stream}


@cut_or_not
@pytest.mark.parametrize("kind", ["updates", "history", "objects", "keys"])
async def test_all_kinds_of_watchers_are_told(nats_server: TrioNatsServer, kind: str, cut: bool) -> None:
    async with open_reading(nats_server, kind, "fail") as reading:
        await remade(reading, MORE, cut)
        with trio.fail_after(5), pytest.raises(TOLD):
            await reading.rx.receive()


@cut_or_not
@pytest.mark.parametrize("kind", ["updates", "history", "objects", "keys"])
async def test_all_kinds_of_watchers_begin_anew(nats_server: TrioNatsServer, kind: str, cut: bool) -> None:
    async with open_reading(nats_server, kind, "restart") as reading:
        expected = await remade(reading, MORE, cut)
        with trio.fail_after(5):
            for name in expected:
                assert name_of(await reading.rx.receive()) == name


async def test_a_store_that_is_not_made_anew_is_gone(nats_server: TrioNatsServer) -> None:
    async with open_reading(nats_server, "watcher", "restart") as reading:
        await reading.store.remake()
        await reading.store.remake(first_seq=7)
        await reading.store.delete()
        with trio.fail_after(3), pytest.raises(errors.BucketNotFoundError):
            [item async for item in reading.rx]
        await reading.store.make()


async def test_an_empty_store_that_is_made_anew_is_told_of_too(nats_server: TrioNatsServer) -> None:
    async with open_client_and_store(nats_server) as (nursery, store, bucket), open_watcher(nursery, bucket) as rx:
        assert rx.caught_up
        await store.remake()
        with trio.fail_after(5), pytest.raises(TOLD):
            await rx.receive()


@asynccontextmanager
async def open_client_and_store(server: TrioNatsServer) -> AsyncIterator[tuple[trio.Nursery, Store, Any]]:
    async with open_world(server) as (_, nc, nursery):
        js = nc.jetstream()
        store = Store(js, unique("recreated"), keys=False)
        await store.make()
        yield nursery, store, await js.object_store(store.bucket)
        await js.delete_stream(store.stream)


@pytest.mark.parametrize("on_recreate", ["fail", "restart"])
async def test_in_the_middle_of_a_snapshot(nats_server: TrioNatsServer, on_recreate: Any) -> None:  # noqa: ANN401
    async with open_client_and_store(nats_server) as (nursery, store, bucket):
        # More than may be on the way at once.
        await write_infos(bucket, *(f"old{number}" for number in range(MAX_MESSAGES + 200)))
        async with open_watcher(nursery, bucket, on_recreate=on_recreate) as rx:
            assert (await rx.receive()).name == "old0"
            await store.remake()
            await store.write(*new(3))
            with trio.fail_after(5):
                if on_recreate == "fail":
                    with pytest.raises(TOLD):
                        await rx.snapshot()
                else:
                    assert [name_of(item) for item in await rx.snapshot()] == new(3)


async def test_a_list_is_of_one_stream(nats_server: TrioNatsServer) -> None:
    """Each stream has names of its own: a list holds all of the old ones, or some that the new one has by now."""
    async with open_client_and_store(nats_server) as (_, store, bucket):
        lists: list[list[str]] = []

        async def keep_listing() -> None:
            while True:
                with suppress(errors.BucketNotFoundError):
                    lists.append([item.name for item in await bucket.list()])

        async with trio.open_nursery() as listing:
            for _ in range(4):
                listing.start_soon(keep_listing)
            # A pull that crosses the deletion is lost, so this takes half a second each time.
            for turn in range(6):
                await store.write(*(f"{turn}.{number}" for number in range(10)))
                seen = len(lists)
                await store.remake()
                await until(partial(lambda seen: len(lists) >= seen + 4, seen))
            listing.cancel_scope.cancel()
        for names in lists:
            assert len({name.partition(".")[0] for name in names}) <= 1, names
            assert [name.partition(".")[2] for name in names] == [str(number) for number in range(len(names))]


async def test_a_get_is_of_one_stream(nats_server: TrioNatsServer) -> None:
    async with open_client_and_store(nats_server) as (_, store, bucket):
        read: list[bytes] = []
        small = cut_into(10)

        async def keep_reading() -> None:
            while True:
                with suppress(errors.BucketNotFoundError, errors.ObjectNotFoundError):
                    read.append((await bucket.get("a")).data)

        async with trio.open_nursery() as reading:
            for _ in range(4):
                reading.start_soon(keep_reading)
            for turn in range(25):
                await bucket.put("a", b"%02d" % turn * 500, small)
                await trio.sleep(0.002 * (turn % 5))
                await store.remake()
            reading.cancel_scope.cancel()
        assert read
        assert all(data == data[:2] * 500 for data in read)
