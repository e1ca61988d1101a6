"""Backups of real streams: what comes back is what there was."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.worlds import open_stream
from trionats import Client, JetStream, Stream, api, errors, open_subscription
from trionats.testing import TrioNatsServer, open_server

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=60)]


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def everything_of(stream: Stream) -> Any:  # noqa: ANN401 - whatever it holds
    """What a stream holds, for comparison: its messages whole, and where its consumers stand."""
    info = await stream.info()
    last = info.state.last_seq
    messages = (
        [await stream.get_msg(seq) for seq in range(info.state.first_seq, last + 1)] if info.state.messages else []
    )
    read = [(m.seq, m.subject, m.data, m.time, dict(m.headers)) for m in messages]
    consumers = [
        (c.name, c.ack_floor and (c.ack_floor.stream_seq, c.ack_floor.consumer_seq), c.num_pending)
        for c in await stream.consumers_info()
    ]
    config = info.config.as_dict()
    # What the server notes there is of itself.
    config["metadata"] = {k: v for k, v in (info.config.metadata or {}).items() if not k.startswith("_nats.")}
    return config, info.state.first_seq, last, read, consumers


async def fill(js: JetStream, stream: Stream) -> None:
    """Messages with headers, a purge before the first, a gap, and a consumer that has read some."""
    subject = f"{stream.name}.a"
    for number in range(10):
        await js.publish(subject, os.urandom(2000) + b"%d" % number * 2000, headers={"Number": str(number)})
    await stream.purge(seq=3)
    consumer = await stream.create_consumer(durable_name="C", ack_policy="explicit")
    for msg in await consumer.fetch(4):
        await msg.ack_sync()


@pytest.mark.parametrize("storage", list(api.StorageType))
async def test_a_stream_comes_back_as_it_was(
    storage: api.StorageType, nats_server: TrioNatsServer, tmp_path: Path
) -> None:
    async with open_stream(nats_server, storage=storage, description="d", max_age=3600, metadata={"m": "1"}) as w:
        await fill(w.js, w.stream)
        if storage is api.StorageType.MEMORY and await old(w.js):
            with pytest.raises(errors.ServerError, match="no impl"):
                await w.stream.backup(tmp_path / "b")
            assert names_in(tmp_path) == []
            return
        before = await everything_of(w.stream)
        state = await w.stream.backup(tmp_path / "b")
        assert (state.messages, state.first_seq, state.last_seq) == (8, 3, 10)
        with pytest.raises(errors.BadRequestError, match=r"already in use, cannot restore .*10130"):
            await w.js.restore_stream(tmp_path / "b")
        await w.stream.delete()
        back = await w.js.restore_stream(tmp_path / "b")
        assert await everything_of(back) == before
        assert (await w.js.publish(w.subject, b"next")).seq == 11


async def old(js: JetStream) -> bool:
    """Whether the server is older than 2.15."""
    return ((await js.account_info()).api.level or 0) < 5


async def test_an_empty_stream_that_was_not_always_empty_comes_back(
    nats_server: TrioNatsServer, tmp_path: Path
) -> None:
    async with open_stream(nats_server, storage=api.StorageType.FILE) as w:
        await w.js.publish(w.subject, b"x")
        await w.stream.purge()
        await w.stream.backup(tmp_path / "b")
        await w.stream.delete()
        await w.js.restore_stream(tmp_path / "b")
        assert (await w.js.publish(w.subject, b"next")).seq == 2


async def test_more_than_a_window_is_carried_in_memory_that_does_not_grow(
    nats_server: TrioNatsServer, tmp_path: Path
) -> None:
    """40 MiB that cannot be compressed, against 8 that the server sends ahead."""
    told: list[tuple[int, int | None]] = []
    async with open_stream(nats_server, storage=api.StorageType.FILE) as w:
        for number in range(80):
            await w.js.publish(w.subject, b"%d" % number + os.urandom(500_000))
        await w.stream.backup(tmp_path / "b", lambda *far: told.append(far))
        size = told[-1][0]
        assert size > 40_000_000
        assert told[-1] == (size, size)
        await w.stream.delete()
        told.clear()
        back = await w.js.restore_stream(tmp_path / "b", progress=lambda *far: told.append(far))
        assert (told[-1], back.cached_info.state.messages) == ((size, size), 80)
        assert (await back.get_msg(80)).data.startswith(b"79")


async def test_what_is_purged_while_a_backup_is_made_may_be_missing_from_it(
    nats_server: TrioNatsServer, tmp_path: Path
) -> None:
    """It is the server that leaves it out, or gives up; what is in it comes back under its sequences."""
    async with open_stream(nats_server, storage=api.StorageType.FILE) as w:
        for number in range(80):
            await w.js.publish(w.subject, b"%d" % number + os.urandom(500_000))
        begun = trio.Event()

        async def purge() -> None:
            await begun.wait()
            await w.stream.purge()

        w.nursery.start_soon(purge)

        def hold(*_: object) -> None:
            begun.set()
            time.sleep(0.02)  # where there is no room for more, the server waits

        said = None
        with suppress(errors.ServerError):
            said = await w.stream.backup(tmp_path / "b", hold)
        if said is None:
            assert await old(w.js)
            assert names_in(tmp_path) == []
            return
        await w.stream.delete()
        back = (await w.js.restore_stream(tmp_path / "b")).cached_info.state
        assert (said.messages, said.last_seq, back.last_seq) == (80, 80, 80)
        assert 0 < back.messages < 80


async def test_a_cancelled_backup_is_ended_at_the_server_too(nats_server: TrioNatsServer, tmp_path: Path) -> None:
    async with open_stream(nats_server, storage=api.StorageType.FILE) as w, advised(w.nc, w.stream.name) as ends:
        block = os.urandom(900_000)
        for number in range(40):
            await w.js.publish(w.subject, block[number:] + block[:number])
        scope = trio.CancelScope()
        with scope:
            await w.stream.backup(tmp_path / "b", lambda *_: scope.cancel())
        assert scope.cancelled_caught
        said = await ends("SNAPSHOT_COMPLETE")
        if not await old(w.js):
            assert said.get("error") == "no interest"
    assert names_in(tmp_path) == []


@asynccontextmanager
async def advised(nc: Client, stream: str) -> AsyncIterator[Callable[[str], Awaitable[dict[str, Any]]]]:
    """What the server says of a stream's backups: gives what waits for an advisory of a kind."""
    pattern = f"$JS.EVENT.ADVISORY.STREAM.*.{stream}"
    async with trio.open_nursery() as nursery, open_subscription(nursery, nc, pattern) as rx:

        async def wait_for(kind: str) -> dict[str, Any]:
            with trio.fail_after(20):
                while True:
                    msg = await rx.receive()
                    if f".{kind}." in msg.subject:
                        said: dict[str, Any] = json.loads(msg.data)
                        return said

        await nc.flush()
        yield wait_for


async def test_a_cancelled_restore_leaves_no_stream_and_its_name_is_free(
    nats_server: TrioNatsServer, tmp_path: Path
) -> None:
    async with open_stream(nats_server, storage=api.StorageType.FILE) as w, advised(w.nc, w.stream.name) as ends:
        block = os.urandom(900_000)
        for number in range(20):
            await w.js.publish(w.subject, block[number:] + block[:number])
        await w.stream.backup(tmp_path / "b")
        await w.stream.delete()
        scope = trio.CancelScope()
        with scope:
            await w.js.restore_stream(tmp_path / "b", progress=lambda *_: scope.cancel())
        assert scope.cancelled_caught
        await ends("RESTORE_COMPLETE")
        assert w.stream.name not in await w.js.stream_names()
        back = await w.js.restore_stream(tmp_path / "b")
        assert back.cached_info.state.messages == 20


async def test_a_damaged_archive_is_refused_by_the_server_and_leaves_no_stream(
    nats_server: TrioNatsServer, tmp_path: Path
) -> None:
    """A bit that is wrong inside a block is the server's to see: it has the checksum."""
    async with open_stream(nats_server, storage=api.StorageType.FILE) as w:
        for _ in range(30):
            await w.js.publish(w.subject, os.urandom(100_000))
        await w.stream.backup(tmp_path / "b")
        await w.stream.delete()
        [archive] = (tmp_path / "b").glob("stream.*")
        content = bytearray(archive.read_bytes())
        content[500_000] ^= 1
        archive.write_bytes(content)
        with pytest.raises(errors.APIError, match=f"restore of stream '{w.stream.name}': .*1006"):
            await w.js.restore_stream(tmp_path / "b")
        assert w.stream.name not in await w.js.stream_names()


async def test_a_backup_ends_with_its_connection_and_leaves_nothing(tmp_path: Path) -> None:
    async with open_server(jetstream=True) as server, open_stream(server, storage=api.StorageType.FILE) as w:
        for _ in range(40):
            await w.js.publish(w.subject, os.urandom(900_000))
        killed: list[bool] = []

        def kill(*_: object) -> None:
            if not killed:
                killed.append(True)
                w.nursery.start_soon(w.nc.reconnect)

        with pytest.raises(errors.DisconnectedError, match="backup of stream"):
            await w.stream.backup(tmp_path / "b", kill)
        assert names_in(tmp_path) == []
        await w.stream.backup(tmp_path / "b")
