"""What is said of objects, their names, links, sealed buckets and orphans on a real server: what watchers and other clients see, and what is left."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import nats
import nats.js.api
import pytest
import trio

from tests.worlds import (
    assert_only_whole_objects,
    consumers_are,
    context_of,
    meta_subject,
    open_store,
    stored_chunks,
    stored_chunks_in,
    unique,
    until,
)
from trionats import Client, ObjectStore, api, errors, open_watcher
from trionats.testing import TrioNatsServer

KIB = 1024
SAID = api.ObjectMeta(description="d", headers={"A": ["1"]}, metadata={"m": "n"})


async def named(store: ObjectStore) -> dict[str, int]:
    return {info.nuid: info.chunks for info in await store.list() if info.chunks}


async def strew(store: ObjectStore, nuid: str, *chunks: bytes) -> None:
    """Leave chunks that nobody names."""
    for chunk in chunks:
        await context_of(store).publish(f"$O.{store.bucket}.C.{nuid}", chunk)


async def test_a_renamed_object_is_the_same_object_and_watchers_hear_of_both_names(
    store: ObjectStore, nursery: trio.Nursery, rng: random.Random
) -> None:
    data = rng.randbytes(300 * KIB)
    before = await store.put("old", data)
    await store.put("deleted", b"x")
    await store.delete("deleted")
    async with open_watcher(nursery, store) as watcher:
        await watcher.snapshot()
        assert (await store.update_meta("old", SAID)).description == "d"
        assert (await watcher.receive()).metadata == {"m": "n"}
        after = await store.update_meta("old", api.ObjectMeta(name="deleted", description="moved"))
        seen = [await watcher.receive()]
        while not (seen[-1].name == "old" and seen[-1].deleted):
            seen.append(await watcher.receive())
        assert ("deleted", False) in [(info.name, bool(info.deleted)) for info in seen]
    assert (after.name, after.nuid, after.size, after.digest) == ("deleted", before.nuid, before.size, before.digest)
    assert (await store.get("deleted")).data == data
    assert [info.name for info in await store.list()] == ["deleted"]
    assert sorted(info.name for info in await store.list(ignore_deletes=False)) == ["deleted", "old"]
    with pytest.raises(errors.ObjectDeletedError):
        await store.get("old")
    await assert_only_whole_objects(store)
    await store.delete("deleted")
    assert await stored_chunks(store) == {}


async def test_what_nats_py_reads_of_a_renamed_object_and_of_a_link(
    store: ObjectStore, nats_server: TrioNatsServer
) -> None:
    await store.put("old", b"data")
    info = await store.update_meta("old", api.ObjectMeta(name="new", description="d", headers={"A": ["1"]}))
    await store.add_link("link", info)

    async def main() -> tuple[bytes | None, bytes | None, nats.js.api.ObjectInfo, list[str]]:
        theirs = await nats.connect(nats_server.url)
        try:
            bucket = await theirs.jetstream().object_store(store.bucket)
            got, linked = await bucket.get("new"), await bucket.get("link")
            return (
                got.data,
                linked.data,
                await bucket.get_info("new"),
                [one.name for one in await bucket.list() if not one.deleted],
            )
        finally:
            await theirs.close()  # noqa: ASYNC102 - asyncio has no scopes to shield it with

    data, linked, theirs, listed = await trio.to_thread.run_sync(asyncio.run, main())
    assert (data, linked, theirs.description, theirs.headers) == (b"data", b"data", "d", {"A": ["1"]})
    assert sorted(listed) == ["link", "new"]


async def test_what_nats_py_has_renamed_only_in_its_info_is_read_and_can_be_renamed(store: ObjectStore) -> None:
    """Fields that we do not know stay, and an info that other clients wrote under another name is where it stands."""
    await store.put("n", b"data")
    info = (await store.get_info("n")).as_dict()
    data = json.dumps({**info, "colour": "red"}).encode()
    await context_of(store).publish(meta_subject(store.bucket, "n"), data, headers={"Nats-Rollup": "sub"})
    renamed = await store.update_meta("n", api.ObjectMeta(name="m"))
    assert renamed.extra["colour"] == "red"
    assert (await store.get("m")).info.extra == renamed.extra


async def test_a_name_that_is_taken_meanwhile_stays_with_who_was_quicker(store: ObjectStore) -> None:
    """Several rename to one name, and one of them gets it; nothing is lost and nothing left."""
    for number in range(6):
        await store.put(f"{number}", b"%d" % number)

    async def rename(name: str) -> None:
        with suppress(errors.ObjectAlreadyExists, errors.BadRequestError):
            await store.update_meta(name, api.ObjectMeta(name="new"))

    async with trio.open_nursery() as workers:
        for number in range(6):
            workers.start_soon(rename, f"{number}")
    names = {info.name for info in await store.list()}
    [gone] = {f"{number}" for number in range(6)} - names
    assert "new" in names
    for name in names:
        assert (await store.get(name)).data == (gone if name == "new" else name).encode()
    await assert_only_whole_objects(store)


async def test_links_lead_to_names_and_never_replace_objects(store: ObjectStore, nats_server: TrioNatsServer) -> None:
    info = await store.put("n", b"data")
    async with open_store(nats_server) as (other, _, _):
        link = await other.add_link("l", info)
        bucket = await other.add_bucket_link("b", store)
        for read, name in ((link, "n"), (bucket, None)):
            there = await other.get_info(read.name)
            assert there.options is not None
            assert there.options.link == api.ObjectLink(bucket=store.bucket, name=name)
        assert {one.name for one in await other.list()} == {"l", "b"}
        for bad in (link, bucket):
            with pytest.raises(errors.BadObjectMetaError, match="no links to links"):
                await other.add_link("x", bad)
        await other.delete("l")
        with pytest.raises(errors.BadObjectMetaError, match="no links to what was deleted"):
            await other.add_link("x", await other.get_info("l", show_deleted=True))
        # Over a deleted one, over a link to an object, over one to a bucket; not over an object.
        await other.add_link("l", info)
        await other.add_bucket_link("l", "elsewhere")
        await other.add_link("l", info)
        with pytest.raises(errors.ObjectAlreadyExists):
            await store.add_bucket_link("n", other)
        assert (await store.get("n")).data == b"data"


async def test_a_sealed_bucket_takes_nothing_and_loses_nothing(nats_server: TrioNatsServer) -> None:
    async with open_store(nats_server, ttl=3600) as (store, _, _):
        info = await store.put("n", b"data")
        await store.seal()
        await store.seal()
        config = (await context_of(store).stream_info(store.stream)).config
        assert (config.sealed, config.max_age) == (True, 0), "what had a time to live stays"
        calls: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("put of object 'm' into", partial(store.put, "m", b"x")),
            ("put of object 'n' into", partial(store.put, "n", b"")),
            ("deletion of object 'n' from", partial(store.delete, "n")),
            ("update of object 'n' in", partial(store.update_meta, "n", SAID)),
            ("renaming of object 'n' to 'm' in", partial(store.update_meta, "n", api.ObjectMeta(name="m"))),
            ("link 'l' in", partial(store.add_link, "l", info)),
        ]
        for doing, call in calls:
            with pytest.raises(errors.BadRequestError, match=f"{doing} bucket '{store.bucket}': .*sealed") as caught:
                await call()
            assert caught.value.err_code == 10109
        assert (await store.get("n")).data == b"data"
        assert [one.name for one in await store.list()] == ["n"]
        await assert_only_whole_objects(store)


PUT_FOR_EVER = """
import sys, trio, trionats
async def main():
    async with trio.open_nursery() as nursery, trionats.open_client(nursery, sys.argv[1]) as nc:
        store = await nc.jetstream().object_store(sys.argv[2])
        await store.put("n", bytes(1 << 20), trionats.api.ObjectMeta(options=trionats.api.ObjectMetaOptions(max_chunk_size=1)))
trio.run(main)
"""


@pytest.mark.live(seconds=60)
async def test_what_a_killed_put_leaves_is_found_when_it_is_old_and_purged(
    store: ObjectStore, nc: Client, nats_server: TrioNatsServer
) -> None:
    await store.put("kept", bytes(300 * KIB))
    process = await trio.lowlevel.open_process([sys.executable, "-c", PUT_FOR_EVER, nats_server.url, store.bucket])

    async def some() -> bool:
        assert process.poll() is None
        return sum((await stored_chunks(store)).values()) > 100

    try:
        await until(some, within=20)
    finally:
        process.kill()
    await process.wait()
    left = {nuid: count for nuid, count in (await stored_chunks(store)).items() if nuid not in await named(store)}
    assert await store.orphans() == [], "it could still go on"
    [found] = await store.orphans(0)
    # The last ones may have been on their way.
    assert {found.nuid} == set(left)
    assert found.chunks == found.bytes >= left[found.nuid]
    assert found.oldest <= found.newest <= datetime.now(UTC)
    assert [one.nuid for one in await store.purge_orphans(0)] == [found.nuid]
    await assert_only_whole_objects(store)
    assert await store.purge_orphans(0) == []
    await consumers_are(store, 0)


async def test_many_orphans_among_many_objects_are_all_found_and_nothing_else(store: ObjectStore, nc: Client) -> None:
    for number in range(30):
        await store.put(f"{number}", b"data")
    await store.delete("0")
    await store.update_meta("1", api.ObjectMeta(name="renamed"))
    lost = {unique() for _ in range(250)}
    async with trio.open_nursery() as writers:
        for nuid in lost:
            writers.start_soon(strew, store, nuid, b"x", b"yy")
    found = await store.orphans(0)
    assert {one.nuid for one in found} == lost
    assert {(one.chunks, one.bytes) for one in found} == {(2, 3)}
    before = nc.statistics().in_bytes
    assert {one.nuid for one in await store.purge_orphans(0)} == lost
    assert nc.statistics().in_bytes - before < 500_000
    await assert_only_whole_objects(store)
    assert len(await store.list()) == 29


async def test_no_object_is_an_orphan_while_all_of_them_are_renamed(store: ObjectStore) -> None:
    """Each old info may go before it is read, and its new one come behind the end."""
    for number in range(40):
        await store.put(f"{number}", b"data")

    async def rename(number: int) -> None:
        name = f"{number}"
        for count in range(1000):
            name = (await store.update_meta(name, api.ObjectMeta(name=f"{number}/{count}"))).name

    async with trio.open_nursery() as workers:
        for number in range(40):
            workers.start_soon(rename, number)
        for _ in range(8):
            assert await store.orphans(0) == []
        workers.cancel_scope.cancel()
    assert len(await stored_chunks(store)) == 40


async def test_a_mirror_loses_what_its_origin_has_purged_and_keeps_what_stands(
    store: ObjectStore, nc: Client, nats_server: TrioNatsServer
) -> None:
    """A mirror is not told of purges: what was replaced in its origin stays in it until somebody purges it there."""
    js = context_of(store)
    name = unique()
    await js.add_stream(
        name=f"OBJ_{name}",
        mirror=api.StreamSource(store.stream),
        storage=api.StorageType.MEMORY,
        allow_direct=True,
        mirror_direct=True,
    )
    try:
        mirror = await js.object_store(name)
        old = await store.put("n", b"old")

        async def holds(info: api.ObjectInfo) -> bool:
            return info.nuid in await stored_chunks_in(js, mirror.stream, store.bucket)

        await until(partial(holds, old))
        new = await store.put("n", b"new")
        await until(partial(holds, new))
        assert await store.orphans(0) == []
        assert [one.nuid for one in await mirror.purge_orphans(0)] == [old.nuid]
        assert (await mirror.get("n")).data == (await store.get("n")).data == b"new"
        with pytest.raises(errors.BadRequestError, match=f"is a mirror of stream '{store.stream}'"):
            await mirror.seal()
    finally:
        with trio.move_on_after(2, shield=True):
            await js.delete_stream(f"OBJ_{name}")


@pytest.mark.live(seconds=60)
async def test_random_operations_and_a_dict_of_objects_agree(store: ObjectStore, rng: random.Random) -> None:
    """On the real server, some of them cancelled; what the model in memory shows in more ways."""
    model: dict[str, Any] = {}
    names = ["a", "b", "é", "ü/x"]
    for number in range(150):
        kind, name, other = (
            rng.choice(["put", "put", "delete", "rename", "rename", "edit"]),
            rng.choice(names),
            rng.choice(names),
        )
        data = rng.randbytes(rng.choice([0, 1, 300 * KIB]))
        after = dict(model)
        if kind == "put":
            after[name] = data
        elif kind == "delete":
            after.pop(name, None)
        elif kind == "rename" and name in model and (other not in model or other == name):
            after[other] = after.pop(name)
        with trio.move_on_after(rng.choice([0, 0.0005, 0.002, 10, 10])) as scope, suppress(errors.Error):
            if kind == "put":
                await store.put(name, data)
            elif kind == "delete":
                await store.delete(name)
            else:
                meta = api.ObjectMeta(name=other if kind == "rename" else None, description=f"{number}")
                await store.update_meta(name, meta)
        now = {info.name: (await store.get(info.name)).data for info in await store.list()}
        allowed = [after] if not scope.cancelled_caught else [model, after]
        assert now in allowed, f"{kind} {name} {other}"
        model = now
        assert await stored_chunks(store) == await named(store), f"{kind} {name} {other}"
    assert await store.orphans(0) == []
    await consumers_are(store, 0)
