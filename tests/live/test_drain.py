"""Draining with a real server: no message that the server had taken for us is lost, and none that we had taken from a program."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import trio

import trionats
from tests.worlds import collect, connected, open_live, open_world, payloads, until
from trionats import ObjectStore, errors, events
from trionats.testing import TrioNatsServer, open_server

pytestmark = pytest.mark.usefixtures("server_executable")


async def test_a_member_of_a_queue_leaves_and_no_request_fails(nats_server: TrioNatsServer) -> None:
    answered = {"first": 0, "second": 0}
    failed = []

    async def serve(name: str, *, task_status: trio.TaskStatus[trionats.Client]) -> None:
        async with (
            open_world(nats_server) as (_, nc, own),
            trionats.open_subscription(own, nc, "work", queue="busy") as rx,
        ):
            await nc.flush()
            task_status.started(nc)
            async for msg in rx:
                await trio.lowlevel.checkpoint()
                await msg.respond(name.encode())
                answered[name] += 1

    async with connected(nats_server) as asker, trio.open_nursery() as members:

        async def ask(count: int) -> None:
            for _ in range(count):
                with trio.move_on_after(5) as scope:
                    await asker.request("work")
                failed.extend([1] * scope.cancelled_caught)

        first: trionats.Client = await members.start(serve, "first")
        await members.start(serve, "second")
        async with trio.open_nursery() as askers:
            for _ in range(20):
                askers.start_soon(ask, 50)
            await until(lambda: answered["first"] >= 100)  # somewhere in the middle
            with trio.fail_after(5):
                await first.drain()
            assert first.is_closed
        assert not failed
        assert sum(answered.values()) == 1000
        members.cancel_scope.cancel()


async def test_a_drained_subscription_gives_all_that_was_under_way(nats_server: TrioNatsServer) -> None:
    async with open_world(nats_server) as (_, nc, nursery), trionats.open_subscription(nursery, nc, "a") as rx:
        for number in range(1000):
            await nc.publish("a", b"%d" % number)
        # The server gets the UNSUB behind all of them.
        await rx.drain()
        await nc.publish("a", b"late")
        assert [int(data) for data in await payloads(rx)] == list(range(1000))


@pytest.mark.parametrize("end", ["drain", "block"])
async def test_what_was_published_before_the_end_arrives(nats_server: TrioNatsServer, end: str) -> None:
    async with open_world(nats_server) as (_, other, nursery), trionats.open_subscription(nursery, other, "a") as rx:
        await other.flush()
        async with connected(nats_server) as nc:
            for number in range(1000):
                nc.publish_nowait("a", b"%d" % number)
            if end == "drain":
                await nc.drain()
        with trio.fail_after(5):
            assert [int((await rx.receive()).data) for _again in range(1000)] == list(range(1000))


async def test_a_killed_server_holds_up_no_drain(nats_server: TrioNatsServer) -> None:
    async with open_world(nats_server) as (_, nc, nursery), trionats.open_subscription(nursery, nc, "a") as rx:
        await nc.publish("a", b"1")
        await nc.flush()
        await nats_server.kill()
        await until(lambda: not nc.is_connected)
        with trio.fail_after(5):
            await nc.drain()
            assert await payloads(rx) == [b"1"]


async def test_watchers_drain_with_the_client(
    store: ObjectStore, nursery: trio.Nursery, nats_server: TrioNatsServer
) -> None:
    for number in range(20):
        await store.put(str(number), b"")
    async with (
        connected(nats_server) as watching,
        trionats.open_watcher(nursery, await watching.jetstream().object_store(store.bucket)) as rx,
    ):
        await until(lambda: len(rx) == 20)
        nursery.start_soon(watching.drain)
        with trio.fail_after(5):
            assert len([info async for info in rx]) == 20
        await watching.drain()
        assert watching.is_closed


async def test_what_waits_for_a_server_that_restarts_is_sent_by_the_drain() -> None:
    async with open_live(reconnect_time_wait=0.1) as (server, nc, _):
        await server.kill()
        await until(lambda: not nc.is_connected)
        await nc.publish("a", b"kept")
        nc.drain_nowait()
        await server.start()
        with trio.fail_after(20):
            await nc.drain()
        assert nc.is_closed

        async def received() -> int:
            return int((await server.monitor("varz"))["in_msgs"])

        # The server counts behind its PONG.
        await until(received, within=5)
        assert await received() == 1


SERVICE = """
import sys, trio
sys.path.insert(0, sys.argv[1])
import graceful_end
trio.run(graceful_end.serve, sys.argv[2])
"""
EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"


@pytest.mark.parametrize("state", ["dead", "frozen", "frozen and dead"])
async def test_what_a_service_does_on_a_signal_ends_in_time(state: str) -> None:
    """The example of the documentation, with all defaults."""
    async with open_server() as server:
        arguments = [sys.executable, "-W", "error", "-c", SERVICE, str(EXAMPLES), server.url]
        service = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - it returns at once
        try:
            assert service.stdout is not None
            assert await trio.to_thread.run_sync(service.stdout.readline) == "ready\n"
            if state.startswith("frozen"):
                server.pause()
            else:
                await server.kill()
            service.send_signal(signal.SIGTERM)
            if state == "frozen and dead":
                await trio.sleep(1)
                await server.kill()
            # What the documentation says, and what a busy machine needs to end a process.
            limit = 8 if state == "frozen" else 3
            said, _ = await trio.to_thread.run_sync(partial(service.communicate, timeout=limit))
        finally:
            service.kill()
            if server.running:
                server.resume()
        assert service.returncode == 0
        assert said.endswith("closed\n")
        assert ("the server has not answered for 5 s" in said) == (state == "frozen")


@pytest.mark.parametrize("state", ["dead", "frozen"])
async def test_watchers_hold_up_no_drain_of_a_server_that_is_gone(state: str) -> None:
    """Their pulls, and the deletion of their consumers, are nothing that the program published."""
    seen: list[trionats.api.ObjectInfo] = []
    async with open_live(jetstream=True, request_timeout=1) as (server, nc, nursery):
        store = await nc.jetstream().create_object_store("watched")
        for number in range(10):
            await store.put(str(number), b"")
        async with (
            trionats.open_events(nursery, nc) as happened,
            trionats.open_watcher(nursery, store) as idle,
            trionats.open_watcher(nursery, store) as busy,
        ):
            await idle.snapshot()
            if state == "dead":
                await server.kill()
            else:
                server.pause()
            try:
                async with trio.open_nursery() as consumers:
                    consumers.start_soon(collect, idle, seen)
                    consumers.start_soon(collect, busy, seen)
                    silent = pytest.raises(errors.DrainTimeoutError, match="the server has not answered for 1 s")
                    with trio.fail_after(3), silent if state == "frozen" else nullcontext():
                        await nc.drain()
            finally:
                if server.running:
                    server.resume()
            assert len(seen) <= 10
            assert not [event async for event in happened if isinstance(event, events.PublishesLost)]
