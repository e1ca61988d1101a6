"""Object stores on a real server: what other clients read, what fails, and what is left behind."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import nats
import nats.js.api
import pytest
import trio
from nats.js.object_store import ObjectStore as TheirObjectStore

from tests.worlds import (
    assert_only_whole_objects,
    consumers_are,
    context_of,
    cut_into,
    meta_subject,
    next_event,
    open_live,
    open_store,
    open_world,
    stored_chunks,
    unique,
    until,
)
from trionats import Client, ObjectStore, api, errors, events, open_events
from trionats.testing import TrioNatsServer, open_server

KIB, MIB = 1024, 1024 * 1024


def place_of(store: ObjectStore, name: str) -> str:
    return meta_subject(store.bucket, name)


async def tamper(store: ObjectStore, name: str, **changes: object) -> None:
    """Change what an object's info says, as a broken client might."""
    info = await store.get_info(name)
    data = json.dumps({**info.as_dict(), **changes}).encode()
    await context_of(store).publish(place_of(store, name), data, headers={"Nats-Rollup": "sub"})


@pytest.mark.parametrize("size", [0, 1, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, 3 * MIB + 7])
async def test_what_was_put_is_got(store: ObjectStore, rng: random.Random, size: int) -> None:
    """Of every size, the last chunk included."""
    data = rng.randbytes(size)
    info = await store.put("name", data)
    result = await store.get("name")
    assert result.data == data
    assert result.info.chunks == -(-size // (128 * KIB))
    assert replace(result.info, mtime=info.mtime) == info
    assert await store.list() == [result.info]
    await assert_only_whole_objects(store)


@pytest.mark.parametrize("name", ["a", "ä €", "with spaces and > * .", "日本語/π.txt", "line\nbreak", "x" * 2700])
async def test_names_are_any_text(store: ObjectStore, name: str) -> None:
    await store.put(name, "tëxt", api.ObjectMeta(description="d", headers={"A": ["1"]}, metadata={"m": "n"}))
    result = await store.get(name)
    assert (result.data, result.info.name) == ("tëxt".encode(), name)
    assert (result.info.description, result.info.headers, result.info.metadata) == ("d", {"A": ["1"]}, {"m": "n"})
    assert [info.name for info in await store.list()] == [name]
    await store.delete(name)
    assert await store.list() == []


@pytest.mark.parametrize("chunk", [1, 100])
async def test_many_small_chunks(store: ObjectStore, rng: random.Random, chunk: int) -> None:
    """More chunks than a get may have been sent and not yet looked at."""
    data = rng.randbytes(chunk * 2345)
    info = await store.put("n", data, cut_into(chunk))
    assert info.chunks == 2345
    assert (await store.get("n")).data == data


@pytest.mark.live(seconds=60)
async def test_concurrent_puts_and_gets_do_not_mix(store: ObjectStore, nc: Client, rng: random.Random) -> None:
    """Buffers that are reused, or replies that are confused, show in the digest."""
    contents = {f"object {n}": rng.randbytes(rng.choice([0, 1, 1000, 200_000, MIB])) for n in range(32)}

    async def there_and_back(name: str, data: bytes) -> None:
        await store.put(name, data)
        assert (await store.get(name)).data == data

    async with trio.open_nursery() as nursery:
        for name, data in contents.items():
            nursery.start_soon(there_and_back, name, data)
    await assert_only_whole_objects(store)
    await consumers_are(store)
    assert nc.statistics().subscriptions == 0
    assert nc.statistics().pending_requests == 0


async def test_one_name_read_and_written_at_once_is_whole_or_refused(store: ObjectStore) -> None:
    """Never half of one and half of the other; writers that lost are told, and leave nothing."""
    await store.put("n", bytes([0]) * MIB)

    async def replace_it(done: trio.Event) -> None:
        for version in range(1, 15):
            await store.put("n", bytes([version]) * MIB)
        done.set()

    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(replace_it, done)
        while not done.is_set():
            data = (await store.get("n")).data
            assert data == data[:1] * MIB
    await assert_only_whole_objects(store)
    stored: list[int] = []
    refused: list[str] = []

    async def write(number: int) -> None:
        try:
            await store.put("n", bytes([number]) * 300_000)
        except errors.BadRequestError as error:
            refused.append(str(error))
        else:
            stored.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(write, number)
    assert stored
    assert len(stored) + len(refused) == 10
    assert all(f"object 'n' into bucket '{store.bucket}'" in text for text in refused)
    data = (await store.get("n")).data
    assert data == data[:1] * 300_000
    assert data[0] in stored
    await assert_only_whole_objects(store)


async def test_small_payload_limit(rng: random.Random, server_executable: object) -> None:
    """Chunks follow the server's limit, not the default."""
    data = rng.randbytes(MIB)
    async with open_server("max_payload: 32KB", jetstream=True) as server, open_store(server) as (store, _, _):
        info = await store.put("n", data)
        assert info.options is not None
        assert info.options.max_chunk_size == 32 * KIB
        assert (await store.get("n")).data == data


async def test_chunks_follow_the_streams_limit_and_its_changes(
    nats_server: TrioNatsServer, rng: random.Random, store: ObjectStore, nc: Client
) -> None:
    """Beside the server's; and what is refused is what the server would refuse, but for a few digits."""
    data = rng.randbytes(300_000)
    js = nc.jetstream()
    config = (await js.stream_info(store.stream)).config
    for limit in (65536, 20_000, 500):
        await js.update_stream(config, max_msg_size=limit)
        # One that was found before the change, and one that was found behind it.
        for found in (store, await js.object_store(store.bucket)):
            info = await found.put("n", data)
            assert info.options is not None
            assert info.options.max_chunk_size == limit
            assert (await found.get("n")).data == data
            text = f"object 'm' in bucket '{store.bucket}': .* the bucket takes messages of {limit} bytes"
            for payload, meta in ((data, cut_into(limit + 1)), (b"", api.ObjectMeta(description="d" * 65536))):
                with pytest.raises(errors.BadObjectMetaError, match=text):
                    await found.put("m", payload, meta)
            await found.delete("n")
            assert await stored_chunks(found) == {}
    await js.update_stream(config, max_msg_size=2000)
    found = await js.object_store(store.bucket)
    length = 2000
    with pytest.raises(errors.BadObjectMetaError):
        await found.put("n", b"data", api.ObjectMeta(description="d" * length))
    while True:
        length -= 1
        with suppress(errors.BadObjectMetaError):
            await found.put("n", b"data", api.ObjectMeta(description="d" * length))
            break
    stored = await js.get_last_msg(store.stream, place_of(store, "n"))
    assert 1950 < len(stored.data or b"") + 88 <= 2000


async def test_an_account_that_takes_small_messages(rng: random.Random, server_executable: object) -> None:
    """Its limit comes behind the first PONG."""
    account = "accounts { A { jetstream: enabled, users: [{user: a, password: a}], limits { max_payload: 20KB } } }"
    data = rng.randbytes(300_000)
    async with open_live(account, jetstream=True, user="a", password="a") as (_, nc, _):
        store = await nc.jetstream().create_object_store("b")
        info = await store.put("n", data)
        assert info.options is not None
        assert info.options.max_chunk_size == 20 * KIB
        assert (await store.get("n")).data == data
        with pytest.raises(errors.BadObjectMetaError, match="the server takes messages of 20480 bytes"):
            await store.put("n", data, cut_into(30_000))


@pytest.mark.live(seconds=60)
async def test_a_server_with_little_room_is_not_overrun(rng: random.Random, server_executable: object) -> None:
    """What the server refuses because it is busy comes again, in order."""
    data = rng.randbytes(64 * MIB)
    config = "jetstream { max_buffered_size: 1MB, max_buffered_msgs: 4 }"
    async with open_server(config, jetstream=True) as server, open_store(server) as (store, _, _):
        info = await store.put("n", data)
        assert await stored_chunks(store) == {info.nuid: 512}
        assert (await store.get("n")).data == data


async def test_what_is_not_there_or_not_any_more_is_named(store: ObjectStore) -> None:
    """An empty bucket is an empty list, a deleted object has no data."""
    assert await store.list() == []
    await store.put("n", bytes(300_000))
    await store.delete("n")
    assert await stored_chunks(store) == {}
    assert await store.list() == []
    [marker] = await store.list(ignore_deletes=False)
    assert (marker.deleted, marker.size, marker.chunks) == (True, 0, 0)
    assert marker == await store.get_info("n", show_deleted=True)
    await store.delete("n")
    where = f"'nothing' in bucket '{store.bucket}'"
    for call in (store.get, store.get_info, store.delete):
        with pytest.raises(errors.ObjectNotFoundError, match=where):
            await call("nothing")
    await store.put("nothing", b"")
    await store.delete("nothing")
    for read in (store.get, store.get_info):
        with pytest.raises(errors.ObjectDeletedError, match=where):
            await read("nothing")
    await context_of(store).delete_object_store(store.bucket)
    for asked in (store.put("n", b"x"), store.get("n"), store.get_info("n"), store.delete("n"), store.list()):
        with pytest.raises(errors.BucketNotFoundError, match=store.bucket):
            await asked
    await context_of(store).create_object_store(store.bucket)


@pytest.mark.parametrize("size", [100_000, 500_000], ids=["only chunk", "one of four"])
async def test_a_missing_chunk_is_an_error_and_not_a_hang(store: ObjectStore, size: int) -> None:
    info = await store.put("n", bytes(size))
    js = context_of(store)
    message = await js.get_last_msg(store.stream, f"$O.{store.bucket}.C.{info.nuid}")
    await js.delete_msg(store.stream, message.seq or 0)
    with trio.fail_after(5), pytest.raises(errors.ObjectIncompleteError, match=f"'n' from bucket '{store.bucket}'"):
        await store.get("n")
    await consumers_are(store)


@pytest.mark.parametrize("size", [1000, 500_000])
async def test_data_that_is_not_what_was_put_is_refused(store: ObjectStore, size: int) -> None:
    await store.put("n", bytes(size))
    await tamper(store, "n", size=size + 1)
    with pytest.raises(errors.ObjectIncompleteError, match=f"{size} of {size + 1} bytes"):
        await store.get("n")
    await tamper(store, "n", size=size, digest="SHA-256=" + "A" * 43 + "=")
    with pytest.raises(errors.DigestMismatchError, match=f"object 'n' from bucket '{store.bucket}'"):
        await store.get("n")


async def test_infos_of_other_and_of_broken_clients(store: ObjectStore) -> None:
    await store.put("good", b"")
    await context_of(store).publish(place_of(store, "bad"), b"not JSON")
    with pytest.raises(errors.BadObjectMetaError, match=f"bucket '{store.bucket}': message 2"):
        await store.get("bad")
    assert [info.name for info in await store.list()] == ["good"]
    # Golden forms, and fields of the future, which stay.
    info = await store.put("n", b"data")
    right = base64.urlsafe_b64encode(hashlib.sha256(b"data").digest()).decode()
    assert info.digest == f"SHA-256={right}"
    for form in (f"sha-256={right}", f"SHA-256={right.rstrip('=')}"):
        await tamper(store, "n", digest=form, future={"a": 1})
        result = await store.get("n")
        assert (result.data, result.info.extra) == (b"data", {"future": {"a": 1}})
    # A link to nothing is no empty object.
    await tamper(store, "n", size=0, chunks=0, digest=None, options={"link": {"bucket": store.bucket, "name": "m"}})
    with pytest.raises(errors.ObjectNotFoundError, match=f"there is no object 'm' in bucket '{store.bucket}'"):
        await store.get("n")
    # A nuid of ">" in a forged info would purge the bucket when that object is deleted.
    await store.put("n", b"data")
    await store.put("forged", b"")
    await tamper(store, "forged", nuid=">")
    with pytest.raises(errors.BadObjectMetaError, match="its nuid cannot be part of a subject"):
        await store.get("forged")
    await store.delete("forged")
    with pytest.raises(errors.ObjectDeletedError):
        await store.get("forged")
    assert (await store.get("n")).data == b"data"


async def test_a_full_bucket_refuses_and_keeps_what_it_has(nats_server: TrioNatsServer) -> None:
    async with open_store(nats_server, max_bytes=MIB) as (store, _, _):
        await store.put("n", b"old")
        with pytest.raises(errors.APIError, match="maximum bytes exceeded"):
            await store.put("n", bytes(3 * MIB))
        assert (await store.get("n")).data == b"old"
        await assert_only_whole_objects(store)


async def test_a_mirror_and_a_bucket_that_allows_no_direct_reads(store: ObjectStore, nc: Client) -> None:
    """A mirror holds the subjects of the bucket that it mirrors."""
    await store.put("n", bytes(300_000))
    js = nc.jetstream()
    mirror = unique()
    source = api.StreamSource(name=store.stream)
    await js.add_stream(name=f"OBJ_{mirror}", mirror=source, storage=api.StorageType.MEMORY)
    copy = await js.object_store(mirror)

    async def copied() -> bool:
        return (await js.stream_info(copy.stream)).state.messages == 4

    await until(copied)
    assert (await copy.get("n")).data == bytes(300_000)
    assert [info.name for info in await copy.list()] == ["n"]
    await js.delete_object_store(mirror)
    config = (await context_of(store).stream_info(store.stream)).config
    await context_of(store).update_stream(config, allow_direct=False)
    await store.put("n", b"small")
    assert (await store.get("n")).data == b"small"


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 4, 8, 16, 32])
async def test_a_cancelled_transfer_leaves_the_old_object_no_chunks_and_no_consumer(
    store: ObjectStore, nc: Client, milliseconds: int
) -> None:
    await store.put("n", b"old")
    with trio.move_on_after(milliseconds / 1000) as scope:
        await store.put("n", bytes(16 * MIB))
    result = await store.get("n")
    assert result.data in (b"old", bytes(16 * MIB))
    if not scope.cancelled_caught:
        assert result.data != b"old"
    await assert_only_whole_objects(store)
    assert nc.statistics().pending_requests == 0
    await store.put("n", bytes(16 * MIB))
    before = nc.statistics()
    with trio.move_on_after(milliseconds / 1000):
        await store.get("n")
    after = nc.statistics()
    assert (after.subscriptions, after.pending_requests) == (before.subscriptions, before.pending_requests)
    await consumers_are(store)


async def test_a_list_leaves_no_consumer_and_ends_under_constant_writes_with_each_object_once(
    store: ObjectStore, nc: Client
) -> None:
    for number in range(20):
        await store.put(f"n{number}", b"")
    for milliseconds in (0, 0.5, 1, 2, 1000):
        with trio.move_on_after(milliseconds / 1000):
            assert len(await store.list()) == 20
    assert nc.statistics().subscriptions == 0
    await consumers_are(store)
    names = {f"n{number}" for number in range(20)}
    data = {name: json.dumps((await store.get_info(name)).as_dict()).encode() for name in names}

    async def write() -> None:
        js = context_of(store)
        while True:
            for name in names:
                await js.publish(place_of(store, name), data[name], headers={"Nats-Rollup": "sub"})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(20):
            with trio.fail_after(5):
                infos = await store.list()
            assert len(infos) == len({info.name for info in infos}) == 20
        nursery.cancel_scope.cancel()


NO_PURGE = """authorization {{ users = [
    {{user: owner, password: x}},
    {{user: guest, password: x, permissions: {{publish: {{deny: "{denied}"}}}}}}
] }}"""


async def test_without_permission_to_purge_a_delete_says_that_the_data_stays(server_executable: object) -> None:
    config = NO_PURGE.format(denied="$JS.API.STREAM.PURGE.>")
    async with (
        open_server(config, jetstream=True) as server,
        open_world(server, user="owner", password="x") as (_, owner, _),
        open_world(server, user="guest", password="x") as (_, nc, nursery),
        open_events(nursery, nc) as told,
    ):
        await owner.jetstream().create_object_store("b")
        store = await nc.jetstream().object_store("b")
        old = await store.put("n", b"old")
        new = await store.put("n", b"new")
        assert (await next_event(told, events.ChunksLeft)).subject == f"$O.b.C.{old.nuid}"
        text = "deletion of object 'n' from bucket 'b': it is deleted, but its data stays in the bucket: .*PURGE"
        with pytest.raises(errors.PermissionsViolationError, match=text):
            await store.delete("n")
        with pytest.raises(errors.ObjectDeletedError):
            await store.get("n")
        assert set(await stored_chunks(store)) == {old.nuid, new.nuid}
        # Whoever may, finishes it by doing it once more.
        await (await owner.jetstream().object_store("b")).delete("n")
        assert set(await stored_chunks(store)) == {old.nuid}


@pytest.mark.live(seconds=60)
@pytest.mark.parametrize("how", ["cancelled", "cut off"])
async def test_a_put_that_ends_while_the_server_stands_still_leaves_nothing(
    how: str, server_executable: object
) -> None:
    """Longer than a cleanup may take; what the server has in its socket is stored when it goes on."""
    options: dict[str, Any] = {"reconnect_time_wait": 0.1, "connect_timeout": 10}
    if how == "cut off":
        options |= {"ping_interval": 0.5, "max_outstanding_pings": 1}
    async with open_live(jetstream=True, **options) as (server, nc, _):
        store = await nc.jetstream().create_object_store("b")
        await store.put("n", b"old")
        async with trio.open_nursery() as writers:
            scope = trio.CancelScope()

            async def put() -> None:
                with scope, suppress(errors.DisconnectedError):
                    await store.put("n", bytes(6 * MIB))

            acknowledged = nc.statistics().in_msgs
            writers.start_soon(put)
            # With the first chunks acknowledged, others are on their way.
            await until(lambda: nc.statistics().in_msgs >= acknowledged + 4, pause=0)
            # In this thread: another one might get its turn only when all is stored.
            server.pause()
            try:
                if how == "cancelled":
                    scope.cancel()
                await until(lambda: not writers.child_tasks, within=6)
            finally:
                server.resume()
        await nc.wait_connected()

        async def purged() -> bool:
            return sum((await stored_chunks(store)).values()) == 1

        await until(purged, within=15, pause=0.05)
        # What was on its way has arrived by now, and been purged; without acknowledgements that takes one purge more.
        await trio.sleep(1 if how == "cancelled" else 6)
        assert await purged()
        assert (await store.get("n")).data == b"old"
        assert nc.statistics().pending_requests == 0


async def kill_behind(server: TrioNatsServer, nc: Client, counter: str, call: Callable[[], Awaitable[object]]) -> None:
    """Kill the server when 8 MiB of a transfer have gone one way, and let it come back."""
    async with trio.open_nursery() as nursery:
        before = getattr(nc.statistics(), counter)
        nursery.start_soon(call)
        await until(lambda: getattr(nc.statistics(), counter) >= before + 8 * MIB, pause=0)
        # In this thread: another one might get its turn only when all has gone.
        server.server.kill()
        await server.start()


async def test_transfers_when_the_server_is_killed(rng: random.Random, server_executable: object) -> None:
    """A get goes on where it was: the digest tells that nothing is missing or came twice. A put says so, and leaves nothing."""
    data = rng.randbytes(64 * MIB)
    async with open_live(jetstream=True, reconnect_time_wait=0.1) as (server, nc, _):
        store = await nc.jetstream().create_object_store("b")
        await store.put("n", data)
        result: list[bytes] = []

        async def get() -> None:
            result.append((await store.get("n")).data)

        await kill_behind(server, nc, "in_bytes", get)
        assert result == [data]
        assert nc.statistics().reconnects >= 1
        await store.put("n", b"old")

        async def put() -> None:
            with pytest.raises(errors.DisconnectedError):
                await store.put("n", bytes(64 * MIB))

        await kill_behind(server, nc, "out_bytes", put)
        await nc.wait_connected()

        async def purged() -> bool:
            return len(await stored_chunks(store)) == 1

        await until(purged)
        assert (await store.get("n")).data == b"old"


async def with_nats_py(url: str, bucket: str, use: Callable[[TheirObjectStore], Awaitable[Any]]) -> Any:  # noqa: ANN401
    """Use a bucket with nats-py, under asyncio in a thread."""

    async def main() -> Any:  # noqa: ANN401
        theirs = await nats.connect(url)
        try:
            return await use(await theirs.jetstream().object_store(bucket))
        finally:
            await theirs.close()  # noqa: ASYNC102 - asyncio has no scopes to shield it with

    return await trio.to_thread.run_sync(asyncio.run, main())


@pytest.mark.parametrize("size", [0, 5, 300_000])
async def test_nats_py_and_we_read_what_the_other_put(
    store: ObjectStore, nats_server: TrioNatsServer, rng: random.Random, size: int
) -> None:
    data = rng.randbytes(size)
    info = await store.put("näme", data, api.ObjectMeta(description="d", headers={"A": "1"}))

    async def read(theirs: TheirObjectStore) -> tuple[bytes | None, nats.js.api.ObjectInfo]:
        result = await theirs.get("näme")
        return result.data, result.info

    got, their_info = await with_nats_py(nats_server.url, store.bucket, read)
    assert got == data
    for field in ("name", "bucket", "nuid", "size", "chunks", "digest", "deleted", "description", "headers"):
        assert getattr(their_info, field) == getattr(info, field)

    async def write(theirs: TheirObjectStore) -> None:
        await theirs.put("näme", data, nats.js.api.ObjectMeta(description="d", headers={"A": ["1"]}))
        await theirs.put("gone", b"data")
        await theirs.delete("gone")

    await with_nats_py(nats_server.url, store.bucket, write)
    result = await store.get("näme")
    assert result.data == data
    assert (result.info.description, result.info.headers) == ("d", {"A": ["1"]})
    assert [info.name for info in await store.list()] == ["näme"]
    with pytest.raises(errors.ObjectDeletedError):
        await store.get("gone")
    await store.put("näme", b"ours")
    await store.delete("näme")
    assert await stored_chunks(store) == {}


async def test_nats_pys_meta_and_config_classes_are_welcome(store: ObjectStore, nc: Client) -> None:
    meta = nats.js.api.ObjectMeta(options=nats.js.api.ObjectMetaOptions(max_chunk_size=10))
    assert (await store.put("n", bytes(95), meta)).chunks == 10
    config = nats.js.api.ObjectStoreConfig(description="theirs", storage=nats.js.api.StorageType.MEMORY)
    js, bucket = nc.jetstream(), unique()
    await js.create_object_store(bucket, config)
    assert (await js.stream_info(f"OBJ_{bucket}")).config.description == "theirs"
    await js.delete_object_store(bucket)


async def test_putting_and_getting_leaves_other_tasks_their_turn(store: ObjectStore) -> None:
    """A transfer is not alone in the world: nobody waits long for the event loop."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            # Of this thread's own: what other programs take of the machine is not held against us.
            start = time.thread_time()
            await trio.lowlevel.checkpoint()
            longest = max(longest, time.thread_time() - start)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await store.put("n", bytes(32 * MIB))
        await store.get("n")
        nursery.cancel_scope.cancel()
    assert longest < 0.25
