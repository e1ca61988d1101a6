"""A real server that is killed and comes back, again and again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import trio

from trionats import Client, Subscription, errors, events, open_client, open_events, open_subscription
from trionats.testing import open_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trionats import Events
    from trionats.testing import TrioNatsServer

ROUNDS = 20

pytestmark = [pytest.mark.live(seconds=120), pytest.mark.usefixtures("server_executable")]

# (what is subscribed, queue group, count) and a subject that it hears: fifty of them, of four kinds.
PLAIN = [(f"plain.{n}", "", 0, f"plain.{n}") for n in range(15)]
QUEUE = [(f"work.{n}", "q", 0, f"work.{n}") for n in range(15)]
WILD = [(f"wild.{n}.*", "", 0, f"wild.{n}.x") for n in range(10)]
COUNTED = [(f"some.{n}", "", 10, f"some.{n}") for n in range(10)]


async def test_c1_c2_fifty_subscriptions_through_many_deaths_of_the_server() -> None:
    """Each message after each restart exactly once, and those with a count end at it and not a message later."""
    heard: dict[str, list[bytes]] = {}
    rows = PLAIN + QUEUE + WILD + COUNTED

    async def hear(rx: Subscription, subject: str) -> None:
        heard[subject] = [msg.data async for msg in rx]

    async with open_server() as server, trio.open_nursery() as nursery:
        # The bound, too: connections that live as shortly as these would be waited for longer and longer.
        options = {"reconnect_time_wait": 0.05, "max_reconnect_time_wait": 0.1, "max_reconnect_attempts": -1}
        async with (
            open_client(nursery, server.url, **options) as nc,  # type: ignore[arg-type]
            open_client(nursery, server.url, **options) as publisher,  # type: ignore[arg-type]
        ):
            async with trio.open_nursery() as workers:
                feeds = []
                for pattern, queue, count, subject in rows:
                    manager = open_subscription(nursery, nc, pattern, queue=queue, max_msgs=count)
                    feed = await manager.__aenter__()
                    feeds.append((manager, feed))
                    workers.start_soon(hear, feed, subject)
                await nc.flush()
                for number in range(ROUNDS):
                    await server.restart(kill=number % 2 == 0)
                    await settled(nc, number + 1)
                    await settled(publisher, number + 1)
                    for *_, subject in rows:
                        await publisher.publish(subject, b"%d" % number)
                    await publisher.flush()
                    await nc.flush()
                for _, feed in feeds:
                    feed.stop()
            for manager, _ in feeds:
                await manager.__aexit__(None, None, None)
            assert nc.statistics().reconnects == ROUNDS
            assert nc.statistics().subscriptions == 0
    expected = [b"%d" % number for number in range(ROUNDS)]
    for *_, count, subject in rows:
        assert heard[subject] == expected[: count or None], subject


async def settled(nc: Client, reconnects: int) -> None:
    """Wait until a client has come back, and the server knows of its subscriptions."""
    with trio.fail_after(20):
        while nc.statistics().reconnects < reconnects:  # noqa: ASYNC110 - counted, so that none is missed
            await trio.sleep(0.005)
        await nc.flush()


async def test_c6_publishes_through_an_outage_arrive_in_order_and_at_most_once() -> None:
    got: list[int] = []
    async with open_server() as server, trio.open_nursery() as nursery:
        async with (
            open_client(nursery, server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1) as nc,
            open_events(nursery, nc) as rx,
            open_subscription(nursery, nc, "n") as feed,
            trio.open_nursery() as workers,
        ):

            async def hear() -> None:
                async for msg in feed:
                    got.append(int(msg.data))  # noqa: PERF401 - kept when this is cancelled

            workers.start_soon(hear)
            for number in range(3000):
                if number % 1000 == 500:
                    await nc.flush()
                    await server.kill()
                    while nc.is_connected:  # noqa: ASYNC110 - the network is not ours to hear of at once
                        await trio.sleep(0.001)
                if number % 1000 == 750:
                    await server.start()
                await nc.publish("n", b"%d" % number)
            while len(got) < 3000:
                await nc.flush()
            workers.cancel_scope.cancel()
            told = [event for event in drained(rx) if isinstance(event, events.PublishesLost)]
    assert got == list(range(3000))
    assert not told


def drained(rx: Events) -> Iterator[events.ConnectionEvent]:
    """Give the events that have come."""
    with contextlib.suppress(trio.WouldBlock):
        while True:
            yield rx.receive_nowait()


async def test_c9_a_frozen_server_is_found_by_pings() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        async with (
            open_client(nursery, server.url, ping_interval=0.1, max_outstanding_pings=2, connect_timeout=0.3) as nc,
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
    async with open_server() as server, trio.open_nursery() as nursery:
        async with open_client(nursery, server.url) as nc, open_subscription(nursery, nc, "s") as feed:
            for number in range(1, 6):
                before = nc.client_id
                await nc.reconnect()
                assert nc.client_id != before
                assert nc.statistics().reconnects == number
                await nc.publish("s", b"%d" % number)
                assert (await feed.receive()).data == b"%d" % number
            with trio.fail_after(5):
                while len(await server.connections()) != 1:  # noqa: ASYNC110 - it hears of a closed socket later than we do
                    await trio.sleep(0.01)


async def test_retry_on_failed_connect() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        url = server.url
        await server.stop()
        async with open_client(
            nursery, url, retry_on_failed_connect=True, reconnect_time_wait=0.05, max_reconnect_attempts=-1
        ) as nc:
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
    async with open_server(config) as server, trio.open_nursery() as nursery:
        async with (
            open_client(nursery, server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1) as nc,
            open_events(nursery, nc) as rx,
        ):
            server.lame_duck()
            seen = [await rx.receive()]
            await nc.flush()
            while not isinstance(seen[-1], events.Disconnected):
                seen.append(await rx.receive())
            assert isinstance(seen[0], events.LameDuck)
            await server.stop()
            await server.start()
            await nc.wait_connected()
            await nc.flush()


async def test_reconnecting_in_the_middle_of_publishing_loses_nothing_and_keeps_the_order(
    nats_server: TrioNatsServer,
) -> None:
    count = 20_000
    async with (
        trio.open_nursery() as nursery,
        open_client(nursery, nats_server.url) as other,
        open_subscription(nursery, other, "ordered", pending_msgs_limit=count) as rx,
        open_client(nursery, nats_server.url) as nc,
        open_events(nursery, nc) as happened,
    ):
        await other.flush()
        done = trio.Event()

        async def publish() -> None:
            for number in range(count):
                await nc.publish("ordered", b"%d" % number)
            done.set()

        async def reconnect() -> None:
            while not done.is_set():
                await nc.reconnect()

        async with trio.open_nursery() as workers:
            workers.start_soon(publish)
            workers.start_soon(reconnect)
        await nc.flush()
        await other.flush()
        assert [int((await rx.receive()).data) for _ in range(count)] == list(range(count))
        assert nc.statistics().reconnects > 3
        happened.stop()
        assert not [event async for event in happened if isinstance(event, events.PublishesLost)]
