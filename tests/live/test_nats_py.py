"""Buckets and services shared with nats-py, whose client runs beside ours in the loop of `trionats.bridge`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, NamedTuple

import nats.errors
import nats.js.api
import nats.js.errors
import pytest
import trio
from nats.js.client import JetStreamContext
from nats.js.kv import KeyValue as TheirKeyValue
from nats.js.object_store import ObjectStore as TheirObjectStore
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, ServiceConfig
from nats.micro.service import ServiceInfo as TheirInfo
from nats.micro.service import ServicePing as TheirPing
from nats.micro.service import ServiceStats as TheirStats

from tests.worlds import KeyValueWorld, StoreWorld, open_world, unique
from trionats import ServiceClient, ServiceRequest, Watcher, api, bridge, errors, open_service, open_watcher
from trionats.bridge import aio_as_trio
from trionats.testing import TrioNatsServer

Maker = Literal["ours", "theirs"]
Seen = tuple[str, bytes, str | None]

pytestmark = [
    pytest.mark.usefixtures("server_executable"),
    # nats-py 2.16's services ask for the time in a way that Python 3.12 warns of.
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]


class Both(NamedTuple):
    """Where both of them are: their context, and ours."""

    theirs: JetStreamContext
    ours: Any
    nursery: Any
    nc: Any


@asynccontextmanager
async def open_both(server: TrioNatsServer) -> AsyncIterator[Both]:
    async with open_world(server) as (_, nc, nursery), bridge.open_nats_py(nursery, server.url) as theirs:
        yield Both(theirs.jetstream(), nc.jetstream(), nursery, nc)


@asynccontextmanager
async def open_keys_with(
    server: TrioNatsServer, maker: Maker, *, history: int = 1, marker: float | None = None
) -> AsyncIterator[tuple[KeyValueWorld, TheirKeyValue]]:
    """Have a bucket made by either, and found by the other; where nats-py made it, we may create it once more."""
    config = nats.js.api.KeyValueConfig(
        unique("b"), history=history, limit_marker_ttl=marker, storage=nats.js.api.StorageType.MEMORY
    )
    async with open_both(server) as (theirs, ours, nursery, nc):
        if maker == "ours":
            kv = await ours.create_key_value(config)
            their_kv = await aio_as_trio(theirs.key_value)(config.bucket)
        else:
            their_kv = await aio_as_trio(theirs.create_key_value)(config)
            kv = await ours.create_key_value(config)
        yield KeyValueWorld(ours, kv, nc, nursery), their_kv
        await ours.delete_key_value(config.bucket)


def seen(entry: api.KeyValueEntry | TheirKeyValue.Entry) -> Seen:
    """Say what an entry of either says; nats-py reads an empty value as None, but where a consumer sends it."""
    return entry.key, entry.value or b"", entry.operation


async def receive(rx: Watcher[api.KeyValueEntry], count: int) -> list[Seen]:
    return [seen(await rx.receive()) for _ in range(count)]


async def updates(watcher: TheirKeyValue.KeyWatcher | TheirObjectStore.ObjectWatcher, count: int) -> list[Any]:
    """Give the next ones, but for the end of what was stored."""
    found: list[Any] = []
    while len(found) < count:
        one = await aio_as_trio(watcher.updates)()
        if one is not None:
            found.append(one)
    return found


HISTORY: list[Seen] = [
    ("a", b"1", None),
    ("b.c", b"2", None),
    ("a", b"3", None),
    ("b.d", b"4", None),
    ("b.d", b"", "DEL"),
    ("empty", b"", None),
    ("b.e", b"", "PURGE"),
]


@pytest.mark.parametrize("maker", ["ours", "theirs"])
async def test_what_nats_py_writes_is_read_and_watched(nats_server: TrioNatsServer, maker: Maker) -> None:
    async with (
        open_keys_with(nats_server, maker, history=5) as (w, theirs),
        open_watcher(w.nursery, w.kv) as rx,
    ):
        assert await rx.snapshot() == []
        assert await aio_as_trio(theirs.create)("a", b"1") == 1
        assert await aio_as_trio(theirs.put)("b.c", b"2") == 2
        assert await aio_as_trio(theirs.update)("a", b"3", 1) == 3
        await aio_as_trio(theirs.put)("b.d", b"4")
        await aio_as_trio(theirs.delete)("b.d")
        await aio_as_trio(theirs.put)("empty", b"")
        await aio_as_trio(theirs.purge)("b.e")
        assert await receive(rx, len(HISTORY)) == HISTORY
        assert seen(await w.kv.get("a")) == HISTORY[2]
        assert seen(await w.kv.get("a", 1)) == HISTORY[0]
        assert (await w.kv.get("empty")).value == b""
        assert [seen(one) for one in await w.kv.history("b.d")] == HISTORY[3:5]
        assert await w.kv.keys() == ["b.c", "a", "empty"]
        with pytest.raises(errors.KeyDeletedError) as deleted:
            await w.kv.get("b.e")
        assert deleted.value.op == "PURGE"
        async with open_watcher(w.nursery, w.kv, keys="b.>", include_history=True) as all_rx:
            assert [seen(one) for one in await all_rx.snapshot()] == [HISTORY[i] for i in (1, 3, 4, 6)]
        with pytest.raises(errors.KeyWrongLastSequenceError):
            await w.kv.update("a", b"late", last=1)
        assert await w.kv.create("b.d", b"over theirs") == 8


@pytest.mark.parametrize("maker", ["ours", "theirs"])
async def test_what_we_write_is_read_and_watched_by_nats_py(nats_server: TrioNatsServer, maker: Maker) -> None:
    async with open_keys_with(nats_server, maker, history=5) as (w, theirs):
        watcher = await aio_as_trio(theirs.watchall)()
        assert await w.kv.create("a", b"1") == 1
        assert await w.kv.put("b.c", b"2") == 2
        assert await w.kv.update("a", b"3", last=1) == 3
        await w.kv.put("b.d", b"4")
        await w.kv.delete("b.d")
        await w.kv.put("empty", b"")
        await w.kv.purge("b.e")
        assert [seen(one) for one in await updates(watcher, len(HISTORY))] == HISTORY
        assert seen(await aio_as_trio(theirs.get)("a")) == HISTORY[2]
        assert seen(await aio_as_trio(theirs.get)("a", 1)) == HISTORY[0]
        assert (await aio_as_trio(theirs.get)("empty")).value is None
        assert [seen(one) for one in await aio_as_trio(theirs.history)("b.d")] == HISTORY[3:5]
        assert await aio_as_trio(theirs.keys)() == ["b.c", "a", "empty"]
        for key in ("b.d", "b.e", "none"):
            with pytest.raises(nats.js.errors.KeyNotFoundError):
                await aio_as_trio(theirs.get)(key)
        filtered = await aio_as_trio(theirs.watch)("b.>", include_history=True, ignore_deletes=True)
        assert [seen(one) for one in await updates(filtered, 2)] == [HISTORY[1], HISTORY[3]]
        for lost in (aio_as_trio(theirs.update)("a", b"late", 1), aio_as_trio(theirs.create)("a", b"late")):
            with pytest.raises(nats.js.errors.KeyWrongLastSequenceError):
                await lost
        assert await aio_as_trio(theirs.create)("b.d", b"over ours") == 8
        ours, said = await w.kv.status(), await aio_as_trio(theirs.status)()
        assert (ours.values, ours.history) == (said.values, said.history) == (8, 5)
        await aio_as_trio(watcher.stop)()
        await aio_as_trio(filtered.stop)()


@pytest.mark.parametrize("maker", ["ours", "theirs"])
async def test_a_value_that_expires_is_gone_and_can_be_created_again(nats_server: TrioNatsServer, maker: Maker) -> None:
    """Here; nats-py takes the server's marker for a value when it gets, and cannot create over it."""
    async with (
        open_keys_with(nats_server, maker, marker=60) as (w, theirs),
        open_watcher(w.nursery, w.kv) as rx,
    ):
        watcher = await aio_as_trio(theirs.watchall)()
        await aio_as_trio(theirs.create)("theirs", b"1", msg_ttl=1)
        await w.kv.create("ours", b"2", msg_ttl=1)
        there: list[Seen] = [("theirs", b"1", None), ("ours", b"2", None)]
        gone: set[Seen] = {("theirs", b"", "PURGE"), ("ours", b"", "PURGE")}
        assert await receive(rx, 2) == there
        assert set(await receive(rx, 2)) == gone
        told = [seen(one) for one in await updates(watcher, 4)]
        assert (told[:2], set(told[2:])) == (there, gone)
        assert await w.kv.keys() == []
        for key in ("theirs", "ours"):
            with pytest.raises(errors.KeyDeletedError):
                await w.kv.get(key)
            assert seen(await aio_as_trio(theirs.get)(key)) == (key, b"", None)
            with pytest.raises(nats.js.errors.KeyWrongLastSequenceError):
                await aio_as_trio(theirs.create)(key, b"again")
            assert await w.kv.create(key, b"again") > 0
            assert (await aio_as_trio(theirs.get)(key)).value == b"again"
        await aio_as_trio(watcher.stop)()


async def test_nats_py_creates_our_bucket_once_more_only_as_it_makes_them_itself(nats_server: TrioNatsServer) -> None:
    """It has direct gets only where it is told, and message TTLs always, which the server calls another configuration."""
    memory = nats.js.api.StorageType.MEMORY
    async with open_both(nats_server) as (theirs, ours, _, _):
        config = nats.js.api.KeyValueConfig(unique("b"), storage=memory, direct=True, limit_marker_ttl=60)
        plain = nats.js.api.KeyValueConfig(unique("b"), storage=memory, direct=True)
        for one in (config, plain):
            kv = await ours.create_key_value(one)
            await kv.put("k", "ours")
        their_kv = await aio_as_trio(theirs.create_key_value)(config)
        assert (await aio_as_trio(their_kv.get)("k")).value == b"ours"
        for refused in (replace(config, direct=None), plain):
            with pytest.raises(nats.js.errors.BadRequestError, match="different configuration"):
                await aio_as_trio(theirs.create_key_value)(refused)
        for one in (config, plain):
            await ours.delete_key_value(one.bucket)


async def test_a_mirror_looks_empty_to_nats_py_and_not_to_us(nats_server: TrioNatsServer) -> None:
    async with open_both(nats_server) as (theirs, ours, nursery, _):
        memory = nats.js.api.StorageType.MEMORY
        origin = await aio_as_trio(theirs.create_key_value)(bucket=unique("b"), storage=memory)
        await aio_as_trio(origin.put)("k", b"origin's")
        bucket = (await aio_as_trio(origin.status)()).bucket
        mirror = await ours.create_key_value(bucket=unique("m"), mirror=api.StreamSource(bucket), storage=memory)
        async with open_watcher(nursery, mirror) as rx:
            assert await receive(rx, 1) == [("k", b"origin's", None)]
        assert seen(await mirror.get("k")) == ("k", b"origin's", None)
        their_mirror = await aio_as_trio(theirs.key_value)(mirror.bucket)
        with pytest.raises(nats.js.errors.NoKeysError):
            await aio_as_trio(their_mirror.keys)()
        await mirror.put("k", "through the mirror")
        assert (await aio_as_trio(origin.get)("k")).value == b"through the mirror"
        for name in (mirror.bucket, bucket):
            await ours.delete_key_value(name)


@asynccontextmanager
async def open_store_with(server: TrioNatsServer, maker: Maker) -> AsyncIterator[tuple[StoreWorld, TheirObjectStore]]:
    """Have a bucket made by either; to create it once more finds it."""
    config = nats.js.api.ObjectStoreConfig(unique("b"), storage=nats.js.api.StorageType.MEMORY)
    async with open_both(server) as (theirs, ours, nursery, nc):
        if maker == "ours":
            store = await ours.create_object_store(config.bucket, config)
            their_store = await aio_as_trio(theirs.create_object_store)(config.bucket, config)
        else:
            their_store = await aio_as_trio(theirs.create_object_store)(config.bucket, config)
            store = await ours.create_object_store(config.bucket, config)
        yield StoreWorld(store, nc, nursery), their_store
        await ours.delete_object_store(config.bucket)


@pytest.mark.parametrize("maker", ["ours", "theirs"])
async def test_objects_with_all_that_is_said_of_them_and_links(nats_server: TrioNatsServer, maker: Maker) -> None:
    async with (
        open_store_with(nats_server, maker) as ((store, _, nursery), theirs),
        open_watcher(nursery, store) as rx,
    ):
        watcher = await aio_as_trio(theirs.watch)()

        async def both_told(*of: tuple[str, bool]) -> None:
            assert [((one := await rx.receive()).name, one.deleted) for _ in of] == list(of)
            assert [(one.name, one.deleted) for one in await updates(watcher, len(of))] == list(of)

        options = api.ObjectMetaOptions(max_chunk_size=3)
        headers = {"A": ["1", "2"]}
        await aio_as_trio(theirs.put)(
            "theirs", b"abcdefgh", nats.js.api.ObjectMeta(description="d", headers=dict(headers), options=options)
        )
        meta = api.ObjectMeta(description="d", headers=dict(headers), options=options, metadata={"m": "x"})
        await store.put("ours", "abcdefgh", meta)
        await both_told(("theirs", False), ("ours", False))
        for name in ("theirs", "ours"):
            result, said = await store.get(name), await aio_as_trio(theirs.get)(name)
            assert result.data == said.data == b"abcdefgh"
            for info in (result.info, said.info):
                assert (info.description, info.headers) == ("d", headers)
                assert info.options is not None
                assert (info.size, info.chunks, info.options.max_chunk_size) == (8, 3, 3)
            assert result.info.digest == said.info.digest
        # Links, which nats-py follows, but has no call to add.
        await store.add_link("link", await store.get_info("theirs"))
        await store.add_bucket_link("bucket", store)
        await both_told(("link", False), ("bucket", False))
        assert (await aio_as_trio(theirs.get)("link")).data == b"abcdefgh"
        with pytest.raises(nats.js.errors.LinkIsABucketError):
            await aio_as_trio(theirs.get)("bucket")
        # What is changed of the other's; nats-py has no word for metadata, and leaves it out.
        await store.update_meta("theirs", api.ObjectMeta(description="by us", headers=headers))
        await aio_as_trio(theirs.update_meta)("ours", nats.js.api.ObjectMeta(name="ours", description="by them"))
        await both_told(("theirs", False), ("ours", False))
        assert (await aio_as_trio(theirs.get_info)("theirs")).description == "by us"
        changed = await store.get("ours")
        assert (changed.info.description, changed.info.metadata, changed.data) == ("by them", None, b"abcdefgh")
        assert sorted(one.name for one in await aio_as_trio(theirs.list)()) == ["bucket", "link", "ours", "theirs"]
        assert sorted(one.name for one in await store.list()) == ["bucket", "link", "ours", "theirs"]
        # What is deleted of the other's.
        await store.delete("theirs")
        await aio_as_trio(theirs.delete)("ours")
        with pytest.raises(nats.js.errors.ObjectNotFoundError):
            await aio_as_trio(theirs.get)("theirs")
        with pytest.raises(errors.ObjectDeletedError):
            await store.get("ours")
        assert await store.orphans() == []
        await both_told(("theirs", True), ("ours", True))
        await aio_as_trio(watcher.stop)()


@pytest.mark.parametrize("sealer", ["ours", "theirs"])
async def test_a_bucket_that_one_seals_is_sealed_for_the_other(nats_server: TrioNatsServer, sealer: Maker) -> None:
    async with open_store_with(nats_server, "ours") as ((store, _, _), theirs):
        await store.put("n", "data")
        seal: Callable[[], Awaitable[object]] = store.seal if sealer == "ours" else aio_as_trio(theirs.seal)
        await seal()
        with pytest.raises(errors.BadRequestError, match="sealed"):
            await store.put("n", "more")
        with pytest.raises(nats.js.errors.APIError):
            await aio_as_trio(theirs.put)("n", b"more")
        assert (await aio_as_trio(theirs.get)("n")).data == (await store.get("n")).data == b"data"


# -- services ------------------------------------------------------------------------------------------------------------


async def answer(request: Request) -> None:
    """What a service of nats-py does with a request: echoes it, unless it says what else."""
    if request.data == b"refuse":
        await request.respond_error("418", "not here", b"more")
    elif request.data == b"throw":
        raise ValueError("thrown")
    else:
        await request.respond(b"py: " + request.data)


async def test_services_of_nats_py_are_found_and_called(nats_server: TrioNatsServer) -> None:
    name, subject = unique("py"), unique("subject")
    async with open_world(nats_server) as (_, nc, nursery), bridge.open_nats_py(nursery, nats_server.url) as theirs:
        config = ServiceConfig(name=name, version="1.2.3", description="theirs", metadata={"a": "b"})
        service = await aio_as_trio(add_service)(theirs, config)
        group = service.add_group(name=subject)
        await aio_as_trio(group.add_endpoint)(EndpointConfig(name="echo", handler=answer, metadata={"m": "1"}))
        await aio_as_trio(theirs.flush)()
        client = ServiceClient(nc)
        assert await client.ping(name) == [api.ServicePing(name, service.id, "1.2.3", {"a": "b"})]
        (info,) = await client.info(name, service.id)
        assert (info.description, [(one.name, one.subject, one.queue_group) for one in info.endpoints]) == (
            "theirs",
            [("echo", f"{subject}.echo", "q")],
        )
        (stats,) = await client.stats(name)
        assert [(one.num_requests, one.last_error, one.data) for one in stats.endpoints] == [(0, "", None)]
        assert (await nc.request(f"{subject}.echo", b"hello")).data == b"py: hello"
        refused = await nc.request(f"{subject}.echo", b"refuse")
        assert (refused.headers["Nats-Service-Error-Code"], refused.headers["Nats-Service-Error"]) == (
            "418",
            "not here",
        )
        thrown = await nc.request(f"{subject}.echo", b"throw")
        assert thrown.headers["Nats-Service-Error-Code"] == "500"
        (stats,) = await client.stats(name)
        (echo,) = stats.endpoints
        assert (echo.num_requests, "thrown" in echo.last_error, echo.processing_time > 0) == (3, True, True)
        assert stats.started is not None
        assert abs((datetime.now(UTC) - stats.started).total_seconds()) < 60
        await aio_as_trio(service.stop)()


async def test_our_services_are_read_and_called_by_nats_py(nats_server: TrioNatsServer) -> None:
    """It has nobody who finds services, but the classes that its own services answer with."""
    name, subject = unique("ours"), unique("subject")

    async def handle(request: ServiceRequest) -> None:
        if request.data == b"throw":
            raise KeyError("secret")
        await request.respond(b"trio: " + request.data)

    async with (
        open_world(nats_server) as (_, nc, nursery),
        bridge.open_nats_py(nursery, nats_server.url) as theirs,
        open_service(nursery, nc, name, "1.2.3", description="ours", metadata={"a": "b"}) as service,
        trio.open_nursery() as workers,
    ):
        await workers.start(partial(service.serve, "echo", handle, subject=subject, metadata={"m": "1"}))

        async def ask(about: str, data: bytes = b"") -> Any:  # noqa: ANN401 - their message
            return await aio_as_trio(theirs.request)(about, data, timeout=5)

        ping = TheirPing.from_dict(json.loads((await ask("$SRV.PING." + name)).data))
        assert (ping.name, ping.id, ping.version, ping.metadata) == (name, service.id, "1.2.3", {"a": "b"})
        info = TheirInfo.from_dict(json.loads((await ask(f"$SRV.INFO.{name}.{service.id}")).data))
        assert [(one.name, one.subject, one.queue_group, one.metadata) for one in info.endpoints] == [
            ("echo", subject, "q", {"m": "1"})
        ]
        assert (await ask(subject, b"hello")).data == b"trio: hello"
        assert (await ask(subject, b"throw")).headers["Nats-Service-Error-Code"] == "500"
        said = json.loads((await ask("$SRV.STATS")).data)
        assert (said["name"], said["endpoints"][0]["num_errors"]) == (name, 1)
        stats = TheirStats.from_dict(said)
        assert (stats.endpoints[0].num_requests, stats.endpoints[0].num_errors) == (2, 1)
        workers.cancel_scope.cancel()
