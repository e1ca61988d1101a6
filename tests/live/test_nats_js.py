"""Buckets and services shared with the npm packages of nats.js: skipped where there is no Node.js, or no registry to get them from.

What nats.js stores is kept as bytes in tests/floor/test_foreign.py, which always runs; here is the original. One process with it runs
for all of the tests, and does what they say.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import trio

from tests.worlds import KeyValueWorld, StoreWorld, open_key_value, open_store, open_stream, open_world, unique
from trionats import (
    Base64Codec,
    ServiceClient,
    ServiceRequest,
    Watcher,
    api,
    errors,
    events,
    open_events,
    open_service,
    open_watcher,
)
from trionats.testing import NatsServer, TrioNatsServer

VERSION = "3.4.0"
PACKAGES = [f"@nats-io/{name}@{VERSION}" for name in ("kv", "obj", "jetstream", "transport-node")]
# Of this one the newest still has a number of its own; it brings the core that it needs.
PACKAGES.append("@nats-io/services@3.0.0-25")
PROGRAM = Path(__file__).parent / "nats_js.mjs"
Maker = Literal["ours", "theirs"]

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=60)]


class Refused(Exception):
    """What nats.js, or the server, says against what was asked of it; `code` is the server's."""

    def __init__(self, text: str, code: int | None) -> None:
        super().__init__(text)
        self.code = code


class NatsJS:
    """A process that runs nats.js."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    async def __call__(self, command: str, *given: object) -> Any:  # noqa: ANN401 - whatever it says
        """Have it do a command of nats_js.mjs."""
        answer = await trio.to_thread.run_sync(self.ask, [command, *given], abandon_on_cancel=True)
        if "error" in answer:
            raise Refused(answer["error"], answer["code"])
        return answer["result"]

    def ask(self, line: list[object]) -> Any:  # noqa: ANN401 - as above
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(line), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def js(tmp_path_factory: pytest.TempPathFactory, shared_server: NatsServer) -> Iterator[NatsJS]:
    """Install the packages, put the program beside them, and start it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js")
    folder = tmp_path_factory.mktemp("nats_js")
    (folder / "package.json").write_text('{"private": true}')
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"the packages of nats.js cannot be installed: {error}")
    command = [node, str(shutil.copy(PROGRAM, str(folder))), shared_server.url]
    pipes = partial(subprocess.Popen[str], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
    with pipes(command, cwd=folder) as process:
        yield NatsJS(process)
        process.kill()


# -- keys and values ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_keys_with(
    js: NatsJS, server: TrioNatsServer, maker: Maker = "ours", *, history: int = 1, marker: int = 0
) -> AsyncIterator[KeyValueWorld]:
    """Have a bucket made by either; to create it once more finds it."""
    limits: dict[str, Any] = {"limit_marker_ttl": marker} if marker else {}
    if maker == "ours":
        async with open_key_value(server, history=history, **limits) as w:
            await js("kv.create_bucket", w.kv.bucket, {"history": history})
            yield w
        return
    async with open_world(server) as (_, nc, nursery):
        name, context = unique("b"), nc.jetstream()
        await js("kv.create_bucket", name, {"history": history, "markerTTL": marker * 1000, "storage": "memory"})
        kv = await context.create_key_value(bucket=name, history=history, storage=api.StorageType.MEMORY, **limits)
        yield KeyValueWorld(context, kv, nc, nursery)
        await context.delete_key_value(name)


Seen = tuple[str, bytes, str | None]


def seen(entry: api.KeyValueEntry) -> Seen:
    return entry.key, entry.value, entry.operation


def told(entries: list[dict[str, Any]]) -> list[Seen]:
    """Say what nats.js read as `seen` says it of ours."""
    return [
        (one["key"], one["value"].encode(), None if one["operation"] == "PUT" else one["operation"]) for one in entries
    ]


async def receive(rx: Watcher[api.KeyValueEntry], count: int) -> list[Seen]:
    return [seen(await rx.receive()) for _ in range(count)]


HISTORY: list[Seen] = [
    ("a", b"1", None),
    ("b.c", b"2", None),
    ("a", b"3", None),
    ("b.d", "€".encode(), None),
    ("b.d", b"", "DEL"),
    ("empty", b"", None),
    ("b.e", b"", "PURGE"),
]


@pytest.mark.parametrize("maker", ["ours", "theirs"])
async def test_what_nats_js_writes_is_read_and_watched(js: NatsJS, nats_server: TrioNatsServer, maker: Maker) -> None:
    async with open_keys_with(js, nats_server, maker, history=5) as w, open_watcher(w.nursery, w.kv) as rx:
        ask = partial(asked, js, w.kv.bucket)
        assert await rx.snapshot() == []
        assert await ask("kv.create", "a", "1") == 1
        assert await ask("kv.put", "b.c", "2") == 2
        assert await ask("kv.update", "a", "3", 1) == 3
        await ask("kv.put", "b.d", "€")
        await ask("kv.delete", "b.d")
        await ask("kv.put", "empty", "")
        await ask("kv.purge", "b.e")
        assert await receive(rx, len(HISTORY)) == HISTORY
        assert seen(await w.kv.get("a")) == HISTORY[2]
        assert seen(await w.kv.get("a", 1)) == HISTORY[0]
        assert [seen(one) for one in await w.kv.history("b.d")] == HISTORY[3:5]
        assert await w.kv.keys() == ["b.c", "a", "empty"]
        assert await w.kv.keys("b.*") == ["b.c"]
        with pytest.raises(errors.KeyDeletedError) as deleted:
            await w.kv.get("b.e")
        assert deleted.value.op == "PURGE"
        async with open_watcher(w.nursery, w.kv, keys=["b.>", "empty"], include_history=True) as all_rx:
            assert [seen(one) for one in await all_rx.snapshot()] == [HISTORY[i] for i in (1, 3, 4, 5, 6)]
        with pytest.raises(errors.KeyWrongLastSequenceError):
            await w.kv.update("a", b"late", last=1)
        with pytest.raises(errors.KeyWrongLastSequenceError):
            await w.kv.create("a", b"late")
        assert await w.kv.create("b.d", b"over theirs") == 8
        status = await w.kv.status()
        assert (status.values, status.history) == (8, 5)


async def asked(js: NatsJS, bucket: str, command: str, *given: object) -> Any:  # noqa: ANN401 - whatever it says
    return await js(command, bucket, *given)


@pytest.mark.parametrize("maker", ["ours", "theirs"])
async def test_what_we_write_is_read_and_watched_by_nats_js(
    js: NatsJS, nats_server: TrioNatsServer, maker: Maker
) -> None:
    async with open_keys_with(js, nats_server, maker, history=5) as w:
        ask = partial(asked, js, w.kv.bucket)
        await ask("kv.watch", {})
        assert await w.kv.create("a", b"1") == 1
        assert await w.kv.put("b.c", b"2") == 2
        assert await w.kv.update("a", b"3", last=1) == 3
        await w.kv.put("b.d", "€")
        await w.kv.delete("b.d")
        await w.kv.put("empty", b"")
        await w.kv.purge("b.e")
        assert told(await ask("next", len(HISTORY))) == HISTORY
        assert told([await ask("kv.get", "a")]) == HISTORY[2:3]
        assert told([await ask("kv.get", "a", {"revision": 1})]) == HISTORY[:1]
        assert told([await ask("kv.get", "b.e")]) == HISTORY[6:]
        assert await ask("kv.get", "none") is None
        assert told(await ask("kv.history", "b.d")) == HISTORY[3:5]
        assert await ask("kv.keys") == ["b.c", "a", "empty"]
        assert await ask("kv.keys", "b.*") == ["b.c"]
        await ask("kv.watch", {"key": ["b.>", "empty"], "include": "history", "ignoreDeletes": True})
        assert told(await ask("next", 4)) == [HISTORY[i] for i in (1, 3, 5, 6)], "there it leaves out DEL, and no PURGE"
        for refused in (ask("kv.update", "a", "late", 1), ask("kv.create", "a", "late")):
            with pytest.raises(Refused) as lost:
                await refused
            assert lost.value.code == 10071
        assert await ask("kv.create", "b.d", "over ours") == 8
        status = await ask("kv.status")
        assert (status["values"], status["history"]) == (8, 5)
        assert w.kv.bucket in await js("kv.list")
        assert w.kv.bucket in await w.js.key_value_names()


@pytest.mark.parametrize("maker", ["ours", "theirs"])
async def test_a_value_that_expires_is_gone_for_both(js: NatsJS, nats_server: TrioNatsServer, maker: Maker) -> None:
    """Whoever created it; but nats.js's list has the key for as long as the server's marker stands there."""
    async with open_keys_with(js, nats_server, maker, marker=60) as w, open_watcher(w.nursery, w.kv) as rx:
        ask = partial(asked, js, w.kv.bucket)
        await ask("kv.watch", {})
        await ask("kv.create", "theirs", "1", "1s")
        await w.kv.create("ours", b"2", msg_ttl=1)
        await ask("kv.purge", "purged", {"ttl": "1s"})
        there = [("theirs", b"1", None), ("ours", b"2", None), ("purged", b"", "PURGE")]
        gone: set[Seen] = {("theirs", b"", "PURGE"), ("ours", b"", "PURGE")}
        assert await receive(rx, 3) == there
        assert set(await receive(rx, 2)) == gone
        theirs = told(await ask("next", 5))
        assert (theirs[:3], set(theirs[3:])) == (there, gone)
        assert await w.kv.keys() == []
        assert {"theirs", "ours"} <= set(await ask("kv.keys"))
        for key in ("theirs", "ours"):
            with pytest.raises(errors.KeyDeletedError):
                await w.kv.get(key)
            assert (await ask("kv.get", key))["operation"] == "PURGE"
        assert await w.kv.create("theirs", b"ours now") > 0
        assert await ask("kv.create", "ours", "theirs now") > 0
        assert await receive(rx, 2) == [("theirs", b"ours now", None), ("ours", b"theirs now", None)]
        status, said = await w.kv.status(), await ask("kv.status")
        assert (status.limit_marker_ttl, said["markerTTL"]) == (60, 60_000)


class LatinBase64:
    """Keys as the codec of nats.js stores them: base64 of Latin-1, with its padding."""

    def encode_key(self, key: str) -> str:
        return self.encode_filter(key)

    def decode_key(self, key: str) -> str:
        return ".".join(base64.b64decode(token, validate=True).decode("latin-1") for token in key.split("."))

    def encode_filter(self, pattern: str) -> str:
        tokens = pattern.split(".")
        return ".".join(t if t in ("*", ">") else base64.b64encode(t.encode("latin-1")).decode() for t in tokens)


async def test_keys_in_the_base64_of_nats_js_are_read_with_a_codec_and_with_another_one_left_out(
    js: NatsJS, nats_server: TrioNatsServer
) -> None:
    async with open_key_value(nats_server) as w, open_events(w.nursery, w.nc) as happenings:
        ask = partial(asked, js, w.kv.bucket)
        await ask("kv.open", {"base64": True})
        await ask("kv.put", "grüße.an alle", "theirs")
        kv = w.kv.with_codecs(keys=LatinBase64())
        async with open_watcher(w.nursery, kv, keys="grüße.*") as rx:
            assert await receive(rx, 1) == [("grüße.an alle", b"theirs", None)]
        await kv.put("grüße.an alle", "ours")
        assert (await ask("kv.get", "grüße.an alle"))["value"] == "ours"
        await kv.put("café", "more")
        assert await ask("kv.keys") == await kv.keys() == ["grüße.an alle", "café"]
        with pytest.raises(Refused, match="invalid key"):
            await ask("kv.keys", "grüße.*")
        # The base64 of Go's programs is without padding, and of UTF-8.
        assert await w.kv.with_codecs(keys=Base64Codec()).keys() == []
        happened = await happenings.receive()
        assert isinstance(happened, events.ForeignDataSkipped)


async def test_a_mirror_that_nats_js_made_is_read_and_written_under_its_origins_keys(
    js: NatsJS, nats_server: TrioNatsServer
) -> None:
    async with open_keys_with(js, nats_server) as w:
        await w.kv.put("k", "origin's")
        mirror, collecting = unique("m"), unique("c")
        await js("kv.create_bucket", mirror, {"mirror": {"name": w.kv.bucket}, "storage": "memory"})
        await js("kv.create_bucket", collecting, {"sources": [{"name": w.kv.bucket}], "storage": "memory"})
        for name in (mirror, collecting):
            other = await w.js.key_value(name)
            async with open_watcher(w.nursery, other) as rx:
                assert await receive(rx, 1) == [("k", b"origin's", None)]
                entry = await other.get("k")
                assert (entry.bucket, seen(entry)) == (name, ("k", b"origin's", None))
                assert await other.keys() == ["k"]
        # To itself it looks empty, once opened anew or not.
        assert await js("kv.keys", mirror) == []
        assert await js("kv.get", mirror, "k") is None
        assert (await js("kv.get", collecting, "k"))["value"] == "origin's"
        await (await w.js.key_value(mirror)).put("k", "through the mirror")
        assert (await js("kv.get", w.kv.bucket, "k"))["value"] == "through the mirror"
        for name in (mirror, collecting):
            await w.js.delete_key_value(name)


# -- objects -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_store_with(js: NatsJS, server: TrioNatsServer, maker: Maker = "ours") -> AsyncIterator[StoreWorld]:
    """Have a bucket made by either; to create it once more finds it."""
    if maker == "ours":
        async with open_store(server) as w:
            await js("obj.create_bucket", w.store.bucket, {})
            yield w
        return
    async with open_world(server) as (_, nc, nursery):
        name, context = unique("b"), nc.jetstream()
        await js("obj.create_bucket", name, {"storage": "memory", "description": "theirs"})
        store = await context.create_object_store(name, storage=api.StorageType.MEMORY, description="theirs")
        yield StoreWorld(store, nc, nursery)
        await context.delete_object_store(name)


META: dict[str, Any] = {
    "description": "d €",
    "headers": {"A": ["1", "2"], "b-c": ["x"]},
    "metadata": {"m": "ü"},
    "options": {"max_chunk_size": 3},
}


@pytest.mark.parametrize("maker", ["ours", "theirs"])
async def test_an_object_with_all_that_is_said_of_it_is_read_by_the_other(
    js: NatsJS, nats_server: TrioNatsServer, maker: Maker
) -> None:
    async with open_store_with(js, nats_server, maker) as (store, _, nursery), open_watcher(nursery, store) as rx:
        ask = partial(asked, js, store.bucket)
        await ask("obj.watch", {"includeHistory": True})
        await ask("obj.put", {"name": "theirs", **META}, "abcdefgh")
        options = api.ObjectMetaOptions(max_chunk_size=3)
        meta = api.ObjectMeta(
            description=META["description"], headers=META["headers"], options=options, metadata=META["metadata"]
        )
        await store.put("ours", "abcdefgh", meta)
        watched = [("theirs", False), ("ours", False)]
        assert [(one.name, one.deleted) for one in [await rx.receive() for _ in range(2)]] == watched
        assert [(one["name"], one["deleted"]) for one in await ask("next", 2)] == watched
        result = await store.get("theirs")
        assert result.data == b"abcdefgh"
        info = await store.get_info("theirs")
        assert (info.description, info.headers, info.metadata) == (meta.description, meta.headers, meta.metadata)
        assert (info.size, info.chunks, info.options) == (8, 3, options)
        assert info == result.info
        assert await ask("obj.get", "ours") == "abcdefgh"
        said = await ask("obj.info", "ours")
        assert {field: said[field] for field in META} == META
        assert (said["size"], said["chunks"], said["digest"]) == (8, 3, info.digest)
        # What is changed of the other's.
        await store.update_meta("theirs", api.ObjectMeta(name="theirs renamed", description="by us"))
        await ask("obj.update", "ours", {"name": "ours renamed", "description": "by them"})
        assert await ask("obj.get", "theirs renamed") == "abcdefgh"
        assert (await ask("obj.info", "theirs renamed"))["description"] == "by us"
        assert (await ask("obj.info", "theirs"))["deleted"] is True
        assert (await store.get("ours renamed")).data == b"abcdefgh"
        assert (await store.get_info("ours renamed")).description == "by them"
        with pytest.raises(errors.ObjectNotFoundError):
            await store.get("ours")
        # What is deleted of the other's.
        await store.delete("theirs renamed")
        await ask("obj.delete", "ours renamed")
        assert await store.list() == []
        assert await ask("obj.list") == []
        with pytest.raises(errors.ObjectDeletedError):
            await store.get("ours renamed")
        assert await ask("obj.get", "theirs renamed") is None
        assert await store.orphans() == []
        # A state that was replaced at once need not come, the last one of each name does.
        last = ("ours renamed", True)
        told: list[tuple[str, bool]] = []
        while last not in told:
            told += [(one["name"], one["deleted"]) for one in await ask("next", 1)]
        ours = [(one.name, one.deleted) for one in await until_last(rx, last)]
        assert dict(ours) == dict(told)
        assert dict(ours).items() >= {("theirs", True), ("theirs renamed", True), last}
        status, theirs = await store.status(), await ask("obj.status")
        assert (status.bytes, status.description or "") == (theirs["size"], theirs["description"])


async def until_last(rx: Watcher[api.ObjectInfo], last: tuple[str, bool]) -> list[api.ObjectInfo]:
    all_of_them: list[api.ObjectInfo] = []
    while not all_of_them or (all_of_them[-1].name, all_of_them[-1].deleted) != last:
        all_of_them.append(await rx.receive())
    return all_of_them


async def test_links_of_nats_js(js: NatsJS, nats_server: TrioNatsServer) -> None:
    """Read, listed, watched, followed, deleted and replaced; and nats.js reads what came of it."""
    async with open_store_with(js, nats_server) as (store, _, nursery), open_watcher(nursery, store) as rx:
        ask = partial(asked, js, store.bucket)
        await ask("obj.put", {"name": "plain"}, "data")
        await ask("obj.link", "one", "plain")
        await ask("obj.link", "two", "plain")
        await ask("obj.link", "three", "plain")
        seen = [await rx.receive() for _ in range(4)]
        await ask("obj.delete", "three")
        seen.append(await rx.receive())
        assert [(info.name, info.is_link(), info.deleted) for info in seen] == [
            ("plain", False, False),
            ("one", True, False),
            ("two", True, False),
            ("three", True, False),
            ("three", True, True),
        ]
        assert {info.name for info in await store.list()} == {"plain", "one", "two"}
        for name in ("one", "two"):
            assert (await store.get_info(name)).is_link()
            result = await store.get(name)
            assert (result.info.name, result.data) == ("plain", b"data")
        await store.delete("one")
        for name in ("two", "three"):
            await store.put(name, f"ours {name}")
        assert await ask("obj.get", "two") == "ours two"
        assert await ask("obj.get", "three") == "ours three"
        assert (await ask("obj.info", "one"))["deleted"] is True
        assert sorted(one["name"] for one in await ask("obj.list")) == ["plain", "three", "two"]
        # And once more, over our marker.
        await ask("obj.link", "one", "plain")
        assert (await store.get_info("one")).is_link()


async def test_links_lead_to_other_buckets_for_both(js: NatsJS, nats_server: TrioNatsServer) -> None:
    async with open_store_with(js, nats_server) as (store, nc, _):
        ask = partial(asked, js, store.bucket)
        other = await nc.jetstream().create_object_store(unique("b"), storage=api.StorageType.MEMORY)
        await js("obj.open", other.bucket)
        await other.put("far", "data")
        await ask("obj.link", "theirs", "far", other.bucket)
        await ask("obj.link_bucket", "their bucket", other.bucket)
        await store.add_link("ours", await other.get_info("far"))
        await store.add_bucket_link("our bucket", other)
        for name in ("theirs", "ours"):
            assert (await store.get(name)).data == b"data"
            assert await ask("obj.get", name) == "data"
        for name in ("their bucket", "our bucket"):
            link = (await ask("obj.info", name))["options"]["link"]
            assert link == {"bucket": other.bucket}
            info = await store.get_info(name)
            assert info.options is not None
            assert info.options.link is not None
            assert (info.options.link.bucket, info.options.link.name) == (other.bucket, None)
            with pytest.raises(errors.LinkIsABucketError):
                await store.get(name)
            with pytest.raises(Refused, match="link is a bucket"):
                await ask("obj.get", name)
        # A link to a link is refused by both.
        with pytest.raises(errors.BadObjectMetaError):
            await store.add_link("l", await store.get_info("theirs"))
        with pytest.raises(Refused, match="link"):
            await ask("obj.link", "l", "ours")
        await nc.jetstream().delete_object_store(other.bucket)


@pytest.mark.parametrize("sealer", ["ours", "theirs"])
async def test_a_bucket_that_one_seals_is_sealed_for_the_other(
    js: NatsJS, nats_server: TrioNatsServer, sealer: Maker
) -> None:
    async with open_store_with(js, nats_server) as (store, _, _):
        ask = partial(asked, js, store.bucket)
        await store.put("n", "data")
        await (store.seal() if sealer == "ours" else ask("obj.seal"))
        assert (await ask("obj.status"))["sealed"] is True
        with pytest.raises(errors.BadRequestError, match="sealed"):
            await store.put("n", "more")
        with pytest.raises(Refused):
            await ask("obj.put", {"name": "n"}, "more")
        assert await ask("obj.get", "n") == "data"
        assert (await store.get("n")).data == b"data"


@pytest.mark.parametrize("name", ["café", "\u00ff\u00fe", "\u00c3\u00a9"])
async def test_names_beyond_ascii_of_nats_js(js: NatsJS, nats_server: TrioNatsServer, name: str) -> None:
    async with open_store_with(js, nats_server) as (store, _, _):
        ask = partial(asked, js, store.bucket)
        await ask("obj.put", {"name": name}, "theirs")
        assert (await store.get(name)).data == b"theirs"
        assert [info.name for info in await store.list()] == [name]
        await store.put(name, "ours")
        assert await ask("obj.get", name) == "ours"
        assert [one["name"] for one in await ask("obj.list")] == [name]
        await store.delete(name)
        assert (await ask("obj.info", name))["deleted"] is True
        await ask("obj.put", {"name": name}, "again")
        await ask("obj.delete", name)
        with pytest.raises(errors.ObjectDeletedError):
            await store.get(name)
        await store.put(name, "ours again")
        assert await ask("obj.get", name) == "ours again"


async def test_one_name_of_two_clients_and_a_renamed_object(js: NatsJS, nats_server: TrioNatsServer) -> None:
    async with open_store_with(js, nats_server) as (store, _, _):
        ask = partial(asked, js, store.bucket)
        await store.put("café", "ours")
        await ask("obj.put", {"name": "café"}, "theirs")
        assert (await store.get("café")).data == b"ours"
        assert await ask("obj.get", "café") == "theirs"
        infos = await store.list()
        assert [info.name for info in infos] == ["café"] * 2
        assert len({info.subject for info in infos}) == 2
        await store.delete("café")
        assert (await store.get("café")).data == b"theirs"
        await ask("obj.update", "café", {"name": "thé"})
        assert (await store.get("thé")).data == b"theirs"
        with pytest.raises(errors.ObjectDeletedError):
            await store.get("café")


# -- schedules and counters --------------------------------------------------------------------------------------------


@pytest.mark.level(4)
async def test_schedules_of_either_are_read_and_taken_back_by_the_other(
    js: NatsJS, nats_server: TrioNatsServer
) -> None:
    async with open_stream(nats_server, allow_msg_schedules=True, allow_msg_ttl=True) as w:
        theirs, ours, target = (f"{w.subject}.{name}" for name in ("theirs", "ours", "target"))
        options = {
            "schedule": {"specification": "0 0 12 * * *", "target": target, "ttl": "5m", "timezone": "Europe/Berlin"}
        }
        await js("js.publish", theirs, "text", {**options, "headers": {"X-Own": ["1"]}})
        await w.js.schedule(ours, "text", target=target, every=3600, ttl=300, headers={"X-Own": "1"})
        their, our = await w.js.schedules(w.stream.name)
        assert (their.subject, their.target, their.cron, their.time_zone, their.ttl) == (
            theirs,
            target,
            "0 0 12 * * *",
            "Europe/Berlin",
            300.0,
        )
        assert (our.subject, our.target, our.every, our.ttl) == (ours, target, 3600.0, 300.0)
        assert their.data == our.data == b"text"
        assert dict(their.headers) == dict(our.headers) == {"X-Own": "1"}
        read = await js("js.last", w.stream.name, ours)
        assert read["data"] == "text"
        assert read["headers"]["Nats-Schedule"] == ["@every 3600s"]
        assert await w.js.unschedule(theirs)
        await js("js.publish", target, "", {"cancelSchedule": {"scheduleSubject": ours}})
        assert await w.js.schedules(w.stream.name) == []


@pytest.mark.level(2)
async def test_counters_are_counted_on_by_either(js: NatsJS, nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_msg_counter=True) as w:
        counter = await w.js.counter(w.stream.name)
        assert await counter.add(w.subject, 10**20) == 10**20
        await js("js.publish", w.subject, "", {"headers": {"Nats-Incr": ["+5"]}})
        await js("js.publish", w.subject, "", {"headers": {"Nats-Incr": ["-3"]}})
        assert (await counter.get(w.subject)).value == 10**20 + 2
        assert await counter.add(w.subject, -1) == 10**20 + 1
        read = await js("js.last", w.stream.name, w.subject)
        assert json.loads(read["data"]) == {"val": str(10**20 + 1)}


# -- services ------------------------------------------------------------------------------------------------------------


async def test_services_of_nats_js_are_found_and_called(js: NatsJS, nats_server: TrioNatsServer) -> None:
    name, subject = unique("js"), unique("subject")
    config = {"name": name, "version": "1.2.3", "description": "theirs", "metadata": {"a": "b"}}
    instance = await js("svc.add", config, subject, ["echo", {"metadata": {"m": "1"}}], ["other", {"queue": "w"}])
    async with open_world(nats_server) as (_, nc, _):
        client = ServiceClient(nc)
        assert await client.ping(name) == [api.ServicePing(name, instance, "1.2.3", {"a": "b"})]
        assert instance in [one.id for one in await client.ping()]
        (info,) = await client.info(name, instance)
        assert (info.description, info.metadata) == ("theirs", {"a": "b"})
        assert [(one.name, one.subject, one.queue_group, one.metadata) for one in info.endpoints] == [
            ("echo", f"{subject}.echo", "q", {"m": "1"}),
            ("other", f"{subject}.other", "w", {}),
        ]
        (stats,) = await client.stats(name, instance)
        assert [(one.num_requests, one.last_error, one.data) for one in stats.endpoints] == [(0, "", None)] * 2
        assert (await nc.request(f"{subject}.echo", b"hello")).data == b"js: hello"
        refused = await nc.request(f"{subject}.echo", b"refuse")
        assert (refused.headers["Nats-Service-Error-Code"], refused.headers["Nats-Service-Error"]) == (
            "418",
            "not here",
        )
        assert refused.data == b"more"
        thrown = await nc.request(f"{subject}.echo", b"throw")
        assert thrown.headers["Nats-Service-Error"] == "thrown"
        (stats,) = await client.stats(name, instance)
        echo = stats.endpoints[0]
        assert (echo.num_requests, echo.last_error) == (3, "thrown")
        assert stats.started is not None
        assert abs((datetime.now(UTC) - stats.started).total_seconds()) < 60
        await js("svc.stop", name)
        assert await client.ping(name) == []


async def test_our_services_are_found_and_called_by_nats_js(js: NatsJS, nats_server: TrioNatsServer) -> None:
    name, subject = unique("ours"), unique("subject")

    async def handle(request: ServiceRequest) -> None:
        if request.data == b"refuse":
            await request.respond_error(418, "not here", b"more")
        elif request.data == b"throw":
            raise KeyError("secret")
        else:
            await request.respond(b"trio: " + request.data)

    async with (
        open_world(nats_server) as (_, nc, nursery),
        open_service(nursery, nc, name, "1.2.3", description="ours", metadata={"a": "b"}) as service,
        trio.open_nursery() as workers,
    ):
        await workers.start(partial(service.serve, "echo", handle, subject=subject, metadata={"m": "1"}))
        who = {"name": name, "id": service.id, "version": "1.2.3", "metadata": {"a": "b"}}
        assert await js("svc.ping", name) == [{**who, "type": "io.nats.micro.v1.ping_response"}]
        (info,) = await js("svc.info", name, service.id)
        assert info["endpoints"] == [
            {"name": "echo", "subject": subject, "queue_group": "q", "metadata": {"m": "1"}},
        ]
        assert await js("svc.request", subject, "hello") == {"data": "trio: hello", "error": None}
        assert await js("svc.request", subject, "refuse") == {"data": "more", "error": [418, "not here"]}
        assert (await js("svc.request", subject, "throw"))["error"] == [500, "KeyError"]
        (stats,) = await js("svc.stats", name)
        (endpoint,) = stats["endpoints"]
        assert (endpoint["num_requests"], endpoint["num_errors"]) == (3, 2)
        assert endpoint["processing_time"] > 0
        assert stats["started"].endswith("Z")
        workers.cancel_scope.cancel()


@pytest.mark.level(2)
async def test_atomic_batches_of_either_are_whole_for_the_other(js: NatsJS, nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_atomic=True, allow_direct=True) as w:
        messages = [[f"{w.stream.name}.{name}", data] for name, data in (("a", "1"), ("b", "€"), ("a", ""), ("c", "4"))]
        ack = await js("js.batch", messages)
        assert (ack["stream"], ack["seq"], ack["count"]) == (w.stream.name, 4, 4)
        read = await w.stream.get_msgs(seq=1, batch=10)
        assert [[msg.subject, msg.data.decode()] for msg in read] == messages
        assert [msg.headers["Nats-Batch-Id"] for msg in read] == [ack["batch"]] * 4
        async with w.js.open_batch() as batch:
            for msg in read:
                await batch.publish(msg.subject, msg.data, headers={"A": "1"})
        for number, message in enumerate(messages, 1):
            seen = await js("js.message", w.stream.name, 4 + number)
            assert [seen["subject"], seen["data"]] == message
            assert seen["headers"]["Nats-Batch-Id"] == [batch.id]
            assert seen["headers"]["Nats-Batch-Sequence"] == [str(number)]
            assert seen["headers"]["A"] == ["1"]
        await w.stream.update(allow_atomic=False)
        with pytest.raises(Refused, match="atomic publish is disabled") as refused:
            await js("js.batch", messages)
        with pytest.raises(errors.BatchError, match="atomic publish is disabled") as ours:
            async with w.js.open_batch() as batch:
                await batch.publish(w.subject, b"x")
        assert refused.value.code == ours.value.err_code == 10174
