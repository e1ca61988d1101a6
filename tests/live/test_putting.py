"""Objects put from every kind of source, on a real server; many at once; and where the server has little room."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.soak.putting import pieces
from tests.worlds import assert_only_whole_objects, consumers_are, context_of, open_store, stored_chunks
from trionats import Client, ObjectStore, api, errors
from trionats.testing import TrioNatsServer, open_server

KIB, MIB = 1024, 1024 * 1024


async def stored_sizes(store: ObjectStore, info: api.ObjectInfo) -> list[int]:
    """Look at the sizes of an object's chunks, in the stream itself."""
    js, sizes = context_of(store), list[int]()
    for seq in range(1, (await js.stream_info(store.stream)).state.last_seq + 1):
        try:
            message = await js.get_msg(store.stream, seq)
        except errors.NotFoundError:
            continue
        if (message.subject or "").endswith(info.nuid):
            sizes.append(len(message.data or b""))
    return sizes


@pytest.mark.parametrize("size", [0, 1, 256 * KIB, 700_001])
async def test_the_same_object_comes_of_every_kind_of_source(
    store: ObjectStore, rng: random.Random, size: int, tmp_path: Path
) -> None:
    data = rng.randbytes(size)
    path = tmp_path / "data"
    path.write_bytes(data)

    async def iterable() -> AsyncGenerator[bytes]:
        start = 0
        while start < size:
            piece = rng.randrange(1, 200_000)
            yield data[start : start + piece]
            start += piece

    async def over_the_network() -> api.ObjectInfo:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = listeners[0].socket.getsockname()

        async def serve(stream: trio.SocketStream) -> None:
            await stream.send_all(data)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            async with await trio.open_tcp_stream(*address) as stream:
                info = await store.put("stream", stream)
            nursery.cancel_scope.cancel()
        return info

    infos = [await store.put("bytes", data), await store.put("view", memoryview(bytearray(data)))]
    infos += [await store.put_file(path), await store.put("path", path), await over_the_network()]
    with path.open("rb") as file:
        infos.append(await store.put("file", file))
    async with await trio.open_file(path, "rb") as async_file:
        infos.append(await store.put("async file", async_file))
    async with aclosing(iterable()) as pieces_of_it:
        infos.append(await store.put("iterable", pieces_of_it))
    assert {(info.size, info.chunks, info.digest) for info in infos} == {
        (size, -(-size // (128 * KIB)), infos[0].digest)
    }
    for info in infos:
        assert (await store.get(info.name)).data == data
    sizes = [128 * KIB] * (size // (128 * KIB)) + ([size % (128 * KIB)] if size % (128 * KIB) else [])
    assert await stored_sizes(store, infos[-1]) == sizes
    await assert_only_whole_objects(store)


@pytest.mark.live(seconds=60)
async def test_many_put_and_got_at_once_do_not_mix(store: ObjectStore, nc: Client, rng: random.Random) -> None:
    """Buffers that are used again, or replies that are confused, show in the digest."""
    sizes = [0, 1, 128 * KIB, 3 * MIB, *(rng.randrange(3 * MIB) for _ in range(60))]

    async def there_and_back(number: int, size: int) -> None:
        data = random.Random(number).randbytes(size)
        sender, receiver = trio.testing.memory_stream_one_way_pair()
        if number % 2:
            await sender.send_all(data)
            await sender.aclose()
            await store.put(f"n{number}", receiver)
        else:
            await store.put(f"n{number}", data)
        assert (await store.get(f"n{number}")).data == data

    async with trio.open_nursery() as nursery:
        for number, size in enumerate(sizes):
            nursery.start_soon(there_and_back, number, size)
    assert len(await store.list()) == 64
    await assert_only_whole_objects(store)
    await consumers_are(store)
    assert nc.statistics().pending_requests == 0


@pytest.mark.live(seconds=60)
async def test_of_many_puts_of_one_name_one_whole_object_stays_and_only_its_chunks(
    store: ObjectStore, nc: Client
) -> None:
    """Those that lost are told so, and what each of them stored is gone, as is what stood there before."""
    await store.put("n", b"before" * 50_000)
    told: dict[int, str] = {}

    async def write(number: int) -> None:
        async def data() -> AsyncGenerator[bytes]:
            for _ in range(10):
                await trio.lowlevel.checkpoint()
                yield bytes([number]) * 30_000

        try:
            async with aclosing(data()) as source:
                await store.put("n", source)
            told[number] = "stored"
        except errors.BadRequestError as error:
            told[number] = str(error)

    async with trio.open_nursery() as nursery:
        for number in range(64):
            nursery.start_soon(write, number)
    assert len(told) == 64
    text = f"put of object 'n' into bucket '{store.bucket}'"
    assert all(said == "stored" or said.startswith(text) for said in told.values())
    data = (await store.get("n")).data or b""
    assert data == data[:1] * 300_000
    assert told[data[0]] == "stored"
    await assert_only_whole_objects(store)
    assert nc.statistics().pending_requests == 0


@pytest.mark.live(seconds=60)
async def test_a_stream_is_not_sent_faster_than_a_server_with_little_room_takes_it(server_executable: object) -> None:
    """What it refuses because it is busy comes again, in order, and out of what is kept of the stream."""
    config = "jetstream { max_buffered_size: 1MB, max_buffered_msgs: 4 }"
    async with open_server(config, jetstream=True) as server, open_store(server) as (store, _, _):
        async with aclosing(pieces(64 * MIB)) as source:
            info = await store.put("n", source)
        assert await stored_chunks(store) == {info.nuid: 512}
        assert (await store.get("n")).info.digest == info.digest


async def test_a_stream_is_cut_into_what_the_server_takes(server_executable: object) -> None:
    async with open_server("max_payload: 32KB", jetstream=True) as server, open_store(server) as (store, _, _):
        async with aclosing(pieces(MIB)) as source:
            info = await store.put("n", source)
        assert (info.chunks, info.options) == (32, api.ObjectMetaOptions(max_chunk_size=32 * KIB))
        assert (await store.get("n")).info.digest == info.digest


async def test_a_limit_that_is_lowered_in_the_middle_of_a_stream_does_not_stop_it(
    store: ObjectStore, nc: Client
) -> None:
    """It cannot be read twice: what was refused is cut anew, and what was stored before stays as it is."""
    js = nc.jetstream()
    config = (await js.stream_info(store.stream)).config

    async def source() -> AsyncGenerator[bytes]:
        yield bytes(400_000)
        await nc.flush()
        await js.update_stream(config, max_msg_size=50_000)
        yield b"\1" * 400_000

    async with aclosing(source()) as data:
        info = await store.put("n", data)
    assert (await store.get("n")).data == bytes(400_000) + b"\1" * 400_000
    sizes = await stored_sizes(store, info)
    assert set(sizes[:3]) == {128 * KIB}
    assert set(sizes[3:-1]) == {50_000}
    assert info.chunks == len(sizes)
    await assert_only_whole_objects(store)


async def test_a_copy_is_a_put_of_what_is_read(
    store: ObjectStore, nc: Client, rng: random.Random, nats_server: TrioNatsServer
) -> None:
    """From one bucket into another, by way of no memory but a window."""
    data, told = rng.randbytes(3 * MIB), list[tuple[int, int | None]]()
    await store.put("n", data)
    async with open_store(nats_server) as (other, _, _):
        async with store.open_object("n") as stream:
            info = await other.put("copy", stream, progress=lambda done, total: told.append((done, total)))
        assert (await other.get("copy")).data == data
        assert info.digest == (await store.get_info("n")).digest
        await assert_only_whole_objects(other)
    assert told[-1] == (3 * MIB, 3 * MIB)
    assert nc.statistics().pending_requests == 0
