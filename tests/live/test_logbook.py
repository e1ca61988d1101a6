"""Normal operation with a real server is no news: connections that come and go at INFO, and not one warning."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio

import trionats
from tests.worlds import open_live, payloads, refusal, respond
from trionats import errors


async def operate(nursery: trio.Nursery, nc: trionats.Client, bucket: str) -> None:
    """What programs do: watch, read, ask, be cancelled in the middle of all that."""
    js = nc.jetstream()
    store = await js.create_object_store(bucket)
    await store.put("n", bytes(300_000))
    async with (
        trionats.open_watcher(nursery, store) as watcher,
        trionats.open_subscription(nursery, nc, "echo") as asked,
        trio.open_nursery() as workers,
    ):
        workers.start_soon(respond, asked)
        assert [info.name for info in await watcher.snapshot()] == ["n"]
        for _ in range(3):
            await nc.request("echo", b"1")
            await store.get("n")
            await store.list()
        for call in (watcher.receive, asked.receive, lambda: store.put("m", bytes(3_000_000)), lambda: store.get("n")):
            with trio.move_on_after(0.002):
                await call()
        with trio.move_on_after(0):
            await nc.request("echo")
        workers.cancel_scope.cancel()
    async with trionats.open_watcher(nursery, store) as watcher:
        assert (await watcher.receive()).name in ("n", "m")
    await js.delete_object_store(bucket)


async def test_normal_operation_is_no_warning(server_executable: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_live(jetstream=True) as (server, nc, nursery):
        await operate(nursery, nc, "one")
        await server.restart()
        await nc.wait_connected()
        await operate(nursery, nc, "two")
        with trio.CancelScope() as scope:
            async with trionats.open_watcher(nursery, await nc.jetstream().create_object_store("three")) as rx:
                scope.cancel()
                await rx.receive()
        async with trionats.open_subscription(nursery, nc, "last") as last:
            nc.drain_nowait()
            await payloads(last)
        await nc.drain()
        async with trio.open_nursery() as cancelled, trionats.open_client(cancelled, server.url) as nc:
            cancelled.cancel_scope.cancel()
        assert isinstance(await refusal("nats://127.0.0.1:1", max_reconnect_attempts=1), errors.NoServersError)
    ours = [(record.levelname, record.getMessage()) for record in caplog.records if record.name.startswith("trionats")]
    assert [line for line in ours if line[0] != "INFO"] == []
    assert [text.partition(" ")[0] for _, text in ours] == ["disconnected", "reconnected", "the"]
