"""Objects read as a stream and into files, over links, against the real server: what comes, what is bounded, and what is left there."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import pytest
import trio

from tests.worlds import consumers_are, context_of, cut_into, meta_subject, open_live, open_store, unique, until
from trionats import Client, JetStream, ObjectStore, ObjectStream, api, errors
from trionats._jetstream.objects import chunks
from trionats.testing import TrioNatsServer

MIB = 1024 * 1024


async def rest_of(stream: ObjectStream, pieces: list[bytes] | None = None) -> bytes:
    """Receive to the end; what has come is kept when that fails."""
    pieces = [] if pieces is None else pieces
    async for piece in stream:
        pieces.append(bytes(piece))
    return b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, 128 * 1024, 128 * 1024 + 1, 3 * MIB])
async def test_a_stream_gives_what_was_put_whatever_is_asked_for(
    store: ObjectStore, rng: random.Random, size: int
) -> None:
    data = rng.randbytes(size)
    await store.put("n", data)
    async with store.open_object("n") as stream:
        assert await rest_of(stream) == data
        assert await stream.receive_some() == b""
    received = []
    async with store.open_object("n") as stream:
        while piece := await stream.receive_some(rng.randint(1, 300_000)):
            received.append(piece)
    assert b"".join(received) == data
    await consumers_are(store)


async def test_leaving_early_leaves_nothing(store: ObjectStore, nc: Client) -> None:
    await store.put("n", bytes(16 * MIB))
    before = nc.statistics()
    for _ in range(5):
        async with store.open_object("n") as stream:
            assert len(await stream.receive_some()) == 128 * 1024
    with trio.move_on_after(0.05):
        async with store.open_object("n") as stream:
            await rest_of(stream)
            await trio.sleep_forever()
    after = nc.statistics()
    assert (after.subscriptions, after.pending_requests) == (before.subscriptions, before.pending_requests)
    await consumers_are(store)


async def test_the_server_forgets_a_reader_that_sleeps_and_that_breaks_nothing(
    store: ObjectStore, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits here is used up first, and then another consumer goes on behind it."""
    monkeypatch.setattr(chunks, "CONSUMER_IDLE", 0.2)
    data = rng.randbytes(20 * MIB)
    await store.put("n", data)
    async with store.open_object("n") as stream:
        received: list[bytes] = []
        for enough in (1, 8 * MIB + 1):
            # Up to there it has been sent ahead; the first that is asked for behind that finds no consumer.
            while sum(map(len, received)) < enough:
                received.append(await stream.receive_some())
            await consumers_are(store, 0)
        received.append(await rest_of(stream))
    assert b"".join(received) == data
    await consumers_are(store)


async def test_what_nobody_receives_is_not_sent(store: ObjectStore, nc: Client) -> None:
    await store.put("n", bytes(32 * MIB))
    before = nc.statistics().in_bytes
    async with store.open_object("n") as stream:
        await until(lambda: nc.statistics().in_bytes - before > 7 * MIB)
        await trio.sleep(0.2)
        assert nc.statistics().in_bytes - before < 9 * MIB
        assert len(await rest_of(stream)) == 32 * MIB


PEAK = """
import resource, sys, trio, trionats

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

async def main():
    async with trio.open_nursery() as nursery, trionats.open_client(nursery, sys.argv[1]) as nc:
        store = await nc.jetstream().object_store(sys.argv[2])
        async with store.open_object("warm") as stream:
            async for piece in stream:
                pass
        before, size = peak(), 0
        if sys.argv[3] == "stream":
            async with store.open_object("n") as stream:
                async for piece in stream:
                    size += len(piece)
                    if size % (32 * 1024 * 1024) == 0:
                        await trio.sleep(0.1)  # all that may be sent ahead comes meanwhile
        else:
            size = (await store.get_file("n", sys.argv[3])).size
        print(size, peak() - before)

trio.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="in KiB there")
@pytest.mark.parametrize("into", ["stream", "file"])
async def test_memory_does_not_grow_with_the_object(
    store: ObjectStore, nats_server: TrioNatsServer, into: str, tmp_path: Path
) -> None:
    await store.put("warm", bytes(MIB))
    await store.put("n", bytes(64 * MIB))
    target = "stream" if into == "stream" else str(tmp_path / "file")
    command = [sys.executable, "-c", PEAK, nats_server.url, store.bucket, target]
    done = await trio.run_process(command, capture_stdout=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    size, grown = done.stdout.split()
    assert int(size) == 64 * MIB
    assert float(grown) < 32


@pytest.mark.parametrize("number", [0, 5, 39])
async def test_a_missing_chunk_is_found_within_two_heartbeats(store: ObjectStore, number: int, tmp_path: Path) -> None:
    await store.put("n", bytes(40_000), cut_into(1000))
    await context_of(store).delete_msg(store.stream, 1 + number)  # the first thing that this bucket has stored
    text = "39 of 40 chunks with 39000 of 40000 bytes are there"
    for read in (store.get("n"), store.get_file("n", tmp_path / "file")):
        with trio.fail_after(10), pytest.raises(errors.ObjectIncompleteError, match=text):
            await read
    with trio.fail_after(10), pytest.raises(errors.ObjectIncompleteError, match=text):
        async with store.open_object("n") as stream:
            await rest_of(stream)
    assert os.listdir(tmp_path) == []
    await consumers_are(store)


async def test_an_object_without_any_of_its_chunks_is_an_error_of_the_opening(store: ObjectStore) -> None:
    await store.put("n", bytes(40_000), cut_into(1000))
    await context_of(store).purge_stream(store.stream, subject=f"$O.{store.bucket}.C.>")
    with trio.fail_after(10), pytest.raises(errors.ObjectIncompleteError, match="0 of 40 chunks"):
        async with store.open_object("n"):
            pytest.fail("it was opened")


async def test_an_object_that_is_replaced_while_it_is_read_is_never_mixed(
    store: ObjectStore, rng: random.Random
) -> None:
    old, new = rng.randbytes(20 * MIB), rng.randbytes(3 * MIB)
    await store.put("n", old)
    async with store.open_object("n") as stream:
        received = [await stream.receive_some()]
        await store.put("n", new)
        with pytest.raises(errors.ObjectIncompleteError, match="the object was replaced or deleted while it was read"):
            await rest_of(stream, received)
    assert len(received) > 1
    assert old.startswith(b"".join(received))


async def test_what_reads_an_object_whole_begins_again_when_it_is_replaced(
    store: ObjectStore, rng: random.Random, tmp_path: Path
) -> None:
    old, new = rng.randbytes(20 * MIB), rng.randbytes(3 * MIB)
    await store.put("n", old)
    totals: list[int | None] = []

    async with trio.open_nursery() as nursery:

        def tell(done: int, total: int | None) -> None:
            if not totals:
                nursery.start_soon(store.put, "n", new)
            totals.append(total)

        info = await store.get_file("n", tmp_path / "file", tell)
    assert (tmp_path / "file").read_bytes() == (new if info.size == len(new) else old)
    assert totals[-1] == info.size


async def test_a_stream_goes_on_when_the_server_was_killed(rng: random.Random) -> None:
    data = rng.randbytes(24 * MIB)
    async with open_live(jetstream=True, reconnect_time_wait=0.1) as (server, nc, _):
        store = await nc.jetstream().create_object_store("b")
        await store.put("n", data)
        async with store.open_object("n") as stream:
            received = [await stream.receive_some()]
            server.server.kill()
            await server.start()
            received.append(await rest_of(stream))
        assert b"".join(received) == data
        assert nc.statistics().reconnects >= 1


async def test_a_mirror_is_read_as_a_stream_and_into_a_file(
    store: ObjectStore, nc: Client, rng: random.Random, tmp_path: Path
) -> None:
    data = rng.randbytes(MIB)
    await store.put("n", data)
    js, name = nc.jetstream(), unique()
    source = api.StreamSource(name=store.stream)
    await js.add_stream(name=f"OBJ_{name}", mirror=source, storage=api.StorageType.MEMORY)
    mirror = await js.object_store(name)

    async def copied() -> bool:
        return (await js.stream_info(mirror.stream)).state.messages == 9

    await until(copied)
    async with mirror.open_object("n") as stream:
        assert await rest_of(stream) == data
    await mirror.get_file("n", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    await consumers_are(mirror)
    await js.delete_object_store(name)


# -- links -------------------------------------------------------------------------------------------------------------


async def write_link(js: JetStream, bucket: str, name: str, to_bucket: str, to_name: str | None) -> None:
    """Write a link as nats.js does: no nuid, size, chunks or digest, and no roll-up."""
    link = {"bucket": to_bucket, **({} if to_name is None else {"name": to_name})}
    info = {"name": name, "bucket": bucket, "options": {"link": link}}
    await js.publish(meta_subject(bucket, name), json.dumps(info).encode())


async def test_links_of_other_clients_lead_to_the_data_or_to_an_error_that_names_them(
    store: ObjectStore, nats_server: TrioNatsServer, tmp_path: Path
) -> None:
    """Never to an empty object."""
    async with open_store(nats_server) as (other, nc, _):
        js, here, there = nc.jetstream(), store.bucket, other.bucket
        data = bytes(range(256)) * 2000
        await store.put("near", data)
        await other.put("far", data)
        await store.put("gone", b"x")
        for name, to in (
            ("to-near", (here, "near")),
            ("to-far", (there, "far")),
            ("to-to-far", (here, "to-far")),
        ):
            await write_link(js, here, name, *to)
            result = await store.get(name)
            assert ((result.info.bucket, result.info.name), result.data) == (
                to if name != "to-to-far" else (there, "far"),
                data,
            )
            assert await store.get_file(name, tmp_path / name) == result.info
            assert (tmp_path / name).read_bytes() == data
            async with store.open_object(name) as stream:
                assert (stream.info, await rest_of(stream)) == (result.info, data)
            assert (await store.get_info(name)).is_link()
        files = sorted(os.listdir(tmp_path))
        await store.delete("gone")
        links: list[tuple[tuple[str, str | None], type[errors.Error], str]] = [
            ((here, "gone"), errors.ObjectDeletedError, "link to 'gone' in '.*': object 'gone' .* was deleted"),
            ((here, "none"), errors.ObjectNotFoundError, "link to 'none' in '.*': there is no object 'none'"),
            (
                ("nowhere", "n"),
                errors.BucketNotFoundError,
                "link to 'n' in 'nowhere': there is no object store 'nowhere'",
            ),
            ((there, None), errors.LinkIsABucketError, f"is a link to bucket '{there}'"),
            ((here, "l"), errors.BadObjectMetaError, "its links go round in a circle"),
        ]
        for goal, error, text in links:
            await write_link(js, here, "l", *goal)
            with pytest.raises(error, match=f"object 'l' in bucket '{here}'.*{text}"):
                await store.get("l")
            with pytest.raises(error, match=text):
                await store.get_file("l", tmp_path / "l")
            with pytest.raises(error, match=text):
                async with store.open_object("l"):
                    pytest.fail("it was opened")
        assert sorted(os.listdir(tmp_path)) == files


async def test_links_of_ours_lead_there_too(store: ObjectStore, nats_server: TrioNatsServer) -> None:
    async with open_store(nats_server) as (other, _, _):
        target = await other.put("far", bytes(300_000))
        await store.add_link("link", target)
        await store.add_bucket_link("bucket", other)
        assert (await store.get("link")).data == bytes(300_000)
        with pytest.raises(errors.LinkIsABucketError, match=f"'bucket' .* is a link to bucket '{other.bucket}'"):
            await store.get("bucket")
