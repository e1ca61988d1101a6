"""A real server that is killed and comes back, again and again."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from tests.worlds import arrived, connected, consume, events_until, open_live, open_world, reconnected, until, watched
from trionats import Subscription, errors, events, open_events, open_subscription
from trionats.testing import TrioNatsServer, open_server

ROUNDS = 20

pytestmark = [pytest.mark.live(seconds=120), pytest.mark.usefixtures("server_executable")]

# (what is subscribed, queue group, count) and a subject that it hears: fifty of them, of four kinds.
PLAIN = [(f"plain.{n}", "", 0, f"plain.{n}") for n in range(15)]
QUEUE = [(f"work.{n}", "q", 0, f"work.{n}") for n in range(15)]
WILD = [(f"wild.{n}.*", "", 0, f"wild.{n}.x") for n in range(10)]
COUNTED = [(f"some.{n}", "", 10, f"some.{n}") for n in range(10)]
FOR_EVER: dict[str, Any] = {"reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}


async def test_fifty_subscriptions_through_many_deaths_of_the_server() -> None:
    """Each message after each restart exactly once, and those with a count end at it and not a message later."""
    heard: dict[str, list[bytes]] = {}
    rows = PLAIN + QUEUE + WILD + COUNTED

    async def hear(rx: Subscription, subject: str) -> None:
        heard[subject] = [msg.data async for msg in rx]

    # The bound, too: connections that live as shortly as these would be waited for longer and longer.
    options: dict[str, Any] = {**FOR_EVER, "max_reconnect_time_wait": 0.1}
    async with open_live(**options) as (server, nc, nursery), connected(server, **options) as publisher:
        async with AsyncExitStack() as stack, trio.open_nursery() as workers:
            feeds = []
            for pattern, queue, count, subject in rows:
                opening = open_subscription(nursery, nc, pattern, queue=queue, max_msgs=count)
                feeds.append(await stack.enter_async_context(opening))
                workers.start_soon(hear, feeds[-1], subject)
            await nc.flush()
            for number in range(ROUNDS):
                await server.restart(kill=number % 2 == 0)
                await reconnected(nc, number + 1)
                await reconnected(publisher, number + 1)
                for *_, subject in rows:
                    await publisher.publish(subject, b"%d" % number)
                await publisher.flush()
                await nc.flush()
            for feed in feeds:
                feed.stop()
        assert (nc.statistics().reconnects, nc.statistics().subscriptions) == (ROUNDS, 0)
    expected = [b"%d" % number for number in range(ROUNDS)]
    for *_, count, subject in rows:
        assert heard[subject] == expected[: count or None], subject


async def test_publishes_through_an_outage_arrive_in_order_and_at_most_once() -> None:
    got: list[bytes] = []
    async with (
        open_live(**FOR_EVER) as (server, nc, nursery),
        open_events(nursery, nc) as rx,
        open_subscription(nursery, nc, "n") as feed,
    ):
        nursery.start_soon(consume, feed, got)
        for number in range(3000):
            if number % 1000 == 500:
                await nc.flush()
                await server.kill()
                await until(lambda: not nc.is_connected)
            if number % 1000 == 750:
                await server.start()
            await nc.publish("n", b"%d" % number)
        while len(got) < 3000:
            await nc.flush()
        assert not arrived(rx, events.PublishesLost)
    assert got == [b"%d" % number for number in range(3000)]


async def test_a_frozen_server_is_found_by_pings() -> None:
    async with (
        open_live(ping_interval=0.1, max_outstanding_pings=2, connect_timeout=0.3) as (server, nc, nursery),
        open_events(nursery, nc) as rx,
    ):
        server.pause()
        event = await rx.receive()
        assert isinstance(event, events.Disconnected)
        assert isinstance(event.reason, errors.StaleConnectionError)
        server.resume()
        await nc.wait_connected()
        await nc.flush()


async def test_forced_reconnects() -> None:
    async with open_live() as (server, nc, nursery), open_subscription(nursery, nc, "s") as feed:
        for number in range(1, 6):
            before = nc.client_id
            await nc.reconnect()
            assert nc.client_id != before
            assert nc.statistics().reconnects == number
            await nc.publish("s", b"%d" % number)
            assert (await feed.receive()).data == b"%d" % number

        async def one_is_left() -> bool:
            return len(await server.connections()) == 1

        await until(one_is_left, within=5, pause=0.01)  # it hears of a closed socket later than we do


async def test_retry_on_failed_connect() -> None:
    async with open_server() as server:
        await server.stop()
        async with connected(server, retry_on_failed_connect=True, **FOR_EVER) as nc:
            await nc.publish("early")
            await trio.sleep(0.2)
            assert not nc.is_connected
            await server.start()
            with trio.fail_after(5):
                await nc.wait_connected()
                await nc.flush()
            assert nc.state is events.ConnectionState.CONNECTED


async def test_lame_duck_of_a_single_server() -> None:
    """Nowhere to go: it stays until the end, and comes back with the server."""
    config = 'lame_duck_grace_period: "1s"\nlame_duck_duration: "31s"\n'
    async with open_live(config, **FOR_EVER) as (server, nc, nursery), open_events(nursery, nc) as rx:
        server.lame_duck()
        assert isinstance(await rx.receive(), events.LameDuck)
        await nc.flush()
        await events_until(rx, events.Disconnected)
        await server.stop()
        await server.start()
        await nc.wait_connected()
        await nc.flush()


async def test_reconnecting_in_the_middle_of_publishing_loses_nothing_and_keeps_the_order(
    nats_server: TrioNatsServer,
) -> None:
    count = 20_000
    async with (
        open_world(nats_server) as (_, other, nursery),
        open_subscription(nursery, other, "ordered", pending_msgs_limit=count) as rx,
        watched(nats_server) as (_, nc, happened),
    ):
        await other.flush()
        done = trio.Event()

        async def publish() -> None:
            for number in range(count):
                await nc.publish("ordered", b"%d" % number)
            done.set()

        async with trio.open_nursery() as workers:
            workers.start_soon(publish)
            while not done.is_set():
                await nc.reconnect()
        await nc.flush()
        await other.flush()
        assert [int((await rx.receive()).data) for _ in range(count)] == list(range(count))
        assert nc.statistics().reconnects > 3
        assert not arrived(happened, events.PublishesLost)
