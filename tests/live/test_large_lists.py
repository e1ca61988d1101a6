"""Lists of what is last, of more bytes than are asked for at once: the server loses what does not fit into a request that says how
many bytes it takes (findings/last_per_subject_loses_what_does_not_fit.sh), so none of our requests may say so.

Each bucket and stream keeps three messages of a subject: of one the server keeps no list.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.worlds import StreamWorld, open_key_value, open_store, open_stream, unique, write_infos
from trionats import Consumer, JetStreamMsg, api, open_consumer, open_watcher
from trionats._jetstream.jitter import JITTER
from trionats._protocol.jetstream.pull import Window
from trionats.testing import TrioNatsServer

pytestmark = pytest.mark.usefixtures("server_executable")

COUNT = 120
#: How large each value is: together they are more than 12 MB, and no two requests end at the same place.
SIZES = [random.Random(number).randrange(60_000, 160_000) for number in range(COUNT)]
NAMES = [f"k.{number}" for number in range(COUNT)]
CREDIT = 8 * 1024 * 1024
assert sum(SIZES) > 1.5 * CREDIT


def sizes(values: list[bytes]) -> list[int]:
    return [len(value) for value in values]


@pytest.mark.parametrize("history", [1, 3])
async def test_a_bucket_of_large_values_is_seen_whole(nats_server: TrioNatsServer, history: int) -> None:
    async with open_key_value(nats_server, history=history) as w:
        for name, size in zip(NAMES, SIZES, strict=True):
            await w.kv.put(name, bytes(size))
        with trio.fail_after(60):
            async with open_watcher(w.nursery, w.kv) as rx:
                seen = await rx.snapshot()
                assert [(entry.key, len(entry.value or b"")) for entry in seen] == list(zip(NAMES, SIZES, strict=True))
                assert rx.statistics().resets == 0
            async with open_watcher(w.nursery, w.kv, meta_only=True) as rx:
                assert [entry.key for entry in await rx.snapshot()] == NAMES
            async with open_watcher(w.nursery, w.kv, include_history=True) as rx:
                assert [entry.key for entry in await rx.snapshot()] == NAMES
            assert sorted(await w.kv.keys()) == sorted(NAMES)
            # A reader that is slower than what comes.
            async with open_watcher(w.nursery, w.kv) as rx:
                for name in NAMES:
                    assert (await rx.receive()).key == name
                await w.kv.put("later", b"1")
                assert (await rx.receive()).key == "later"


async def test_entries_whose_metadata_are_large_are_seen_whole(nats_server: TrioNatsServer) -> None:
    """Headers come where values stay on the server."""
    async with open_key_value(nats_server, history=3) as w:
        names = [f"k.{number}" for number in range(200)]
        for name in names:
            await w.js.publish(f"$KV.{w.kv.bucket}.{name}", b"1", headers={"Large": "x" * 60_000})
        with trio.fail_after(60):
            async with open_watcher(w.nursery, w.kv, meta_only=True) as rx:
                assert [entry.key for entry in await rx.snapshot()] == names
            assert sorted(await w.kv.keys()) == sorted(names)


async def test_a_bucket_of_objects_with_large_metadata_is_seen_whole(nats_server: TrioNatsServer) -> None:
    async with open_store(nats_server) as w:
        await write_infos(w.store, *NAMES, metadata={"large": "x" * 100_000})
        with trio.fail_after(60):
            async with open_watcher(w.nursery, w.store) as rx:
                assert [info.name for info in await rx.snapshot()] == NAMES
            assert sorted(info.name for info in await w.store.list()) == sorted(NAMES)


async def test_chunks_that_only_one_of_many_large_infos_names_are_no_orphans(nats_server: TrioNatsServer) -> None:
    async with open_store(nats_server) as w:
        for name in NAMES:
            await w.store.put(name, b"1", api.ObjectMeta(name=name, metadata={"large": "x" * 100_000}))
        with trio.fail_after(60):
            assert await w.store.orphans(0) == []


# -- consumers ---------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def filled(server: TrioNatsServer) -> AsyncIterator[StreamWorld]:
    async with open_stream(server, max_msgs_per_subject=3) as w:
        for name, size in zip(NAMES, SIZES, strict=True):
            await w.js.publish(f"{w.stream.name}.{name}", bytes(size))
        yield w


async def list_consumer(w: StreamWorld, **config: Any) -> Consumer:  # noqa: ANN401 - any field
    filters = {"deliver_policy": "last_per_subject", "filter_subject": f"{w.stream.name}.>"}
    return await w.js.create_consumer(w.stream.name, **{"durable_name": unique("C"), **filters, **config})


async def fetches(fetch: Callable[[], Awaitable[list[JetStreamMsg]]]) -> list[int]:
    """Fetch until nothing comes; give the sizes."""
    came: list[int] = []
    while messages := await fetch():
        came += sizes([msg.data for msg in messages])
    return came


@pytest.mark.parametrize("max_bytes", [None, 300_000])
async def test_an_ordered_consumer_of_the_last_ones_gives_all_of_them(
    nats_server: TrioNatsServer, max_bytes: int | None
) -> None:
    async with filled(nats_server) as w:

        async def fetch() -> list[JetStreamMsg]:
            messages = await ordered.fetch(50, max_bytes=max_bytes, no_wait=True)
            size = sum(len(msg.subject) + len(msg.reply) + len(msg.data) for msg in messages)
            assert size <= (max_bytes or size)
            return messages

        with trio.fail_after(60):
            ordered = await w.js.ordered_consumer(w.stream.name, deliver_policy="last_per_subject")
            assert await fetches(fetch) == SIZES
            ordered = await w.js.ordered_consumer(w.stream.name, deliver_policy="last_per_subject")
            async with ordered:
                assert await fetches(fetch) == SIZES
            ordered = await w.js.ordered_consumer(w.stream.name, deliver_policy="last_per_subject")
            async with open_consumer(w.nursery, ordered, max_bytes=max_bytes) as rx:
                assert sizes([(await rx.receive()).data for _ in NAMES]) == SIZES


async def test_an_ordered_consumer_gives_the_last_ones_one_by_one(nats_server: TrioNatsServer) -> None:
    async with filled(nats_server) as w:
        ordered = await w.js.ordered_consumer(w.stream.name, deliver_policy="last_per_subject")
        with trio.fail_after(60):
            async with ordered:
                for size in SIZES:
                    message = await ordered.next()
                    assert message is not None
                    assert len(message.data) == size


@pytest.mark.parametrize("ack_policy", ["explicit", "none"])
@pytest.mark.parametrize("bind", [False, True])
@pytest.mark.parametrize("max_bytes", [None, 500_000])
async def test_a_consumer_of_the_last_ones_gives_all_of_them(
    nats_server: TrioNatsServer, ack_policy: str, bind: bool, max_bytes: int | None
) -> None:
    async with filled(nats_server) as w:
        made = await list_consumer(w, ack_policy=ack_policy)
        consumer = await w.js.consumer(w.stream.name, made.name, bind=bind)
        with trio.fail_after(60):
            async with open_consumer(w.nursery, consumer, max_bytes=max_bytes) as rx:
                came = []
                for _ in NAMES:
                    message = await rx.receive()
                    came.append(len(message.data))
                    if ack_policy == "explicit":
                        await message.ack()
        assert came == SIZES
        await w.nc.flush()
        info = await made.info()
        assert (info.num_pending, info.num_ack_pending) == (0, 0)


async def test_fetches_of_the_last_ones_give_all_of_them_where_no_bytes_are_named(nats_server: TrioNatsServer) -> None:
    async with filled(nats_server) as w:
        consumer = await list_consumer(w, ack_policy="none")
        assert await fetches(lambda: consumer.fetch(50, no_wait=True)) == SIZES


async def test_a_reader_that_sleeps_keeps_a_consumer_of_the_last_ones_alive_and_loses_nothing(
    nats_server: TrioNatsServer,
) -> None:
    async with filled(nats_server) as w:
        consumer = await list_consumer(w, ack_policy="none", inactive_threshold=1.5)
        async with open_consumer(w.nursery, consumer, max_messages=32) as rx:
            with trio.move_on_after(2.5):
                await trio.sleep_forever()
            with trio.fail_after(30):
                for size in SIZES:
                    assert len((await rx.receive()).data) == size


async def test_what_proves_that_a_list_is_there_takes_nothing_off_it(nats_server: TrioNatsServer) -> None:
    async with filled(nats_server) as w:
        consumer = await list_consumer(w, ack_policy="none")
        window = Window(1, 1, heartbeat=1.0, expires=2.0, rng=JITTER)
        window.by_list = True
        for _ in range(5):
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{w.stream.name}.{consumer.name}"
            assert (await w.nc.request(subject, window.prove(consumer.name).body())).status == 400
        assert await fetches(lambda: consumer.fetch(50, no_wait=True)) == SIZES
