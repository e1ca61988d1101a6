"""A server in lame duck mode: the planned move, in which nothing is interrupted (two servers in memory, a clock that jumps)."""

from __future__ import annotations

import json
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.fakes import FakeServer, Frame, Link
from trionats import errors, events, open_client, open_events, open_subscription
from trionats._connection.migration import AwaitedReplies
from trionats._protocol.engine import Engine
from trionats._protocol.migration import LONGEST_STAY, QUEUE_OVERLAP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes import Ending
    from trionats import Client, Events

A, B = "nats://a:4222", "nats://b:4222"


class World:
    """Two servers, by the names of their hosts."""

    def __init__(self, **info: Any) -> None:  # noqa: ANN401 - whatever an INFO has
        self.a = FakeServer(info={"server_name": "a"})
        self.b = FakeServer(info={"server_name": "b", **info})
        self.hosts = {"a": self.a, "b": self.b}

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        return await self.hosts[host].dial(host, port)

    def quack(self, server: FakeServer | None = None, **more: Any) -> None:  # noqa: ANN401 - whatever an INFO has
        server = server or self.a
        server.inject(b"INFO " + json.dumps({**server.info, "ldm": True, **more}).encode() + b" \r\n")


@asynccontextmanager
async def connected(
    world: World,
    *servers: str,
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[tuple[Client, Events]]:
    options = {"dial": world.dial, "dont_randomize": True, **options}
    async with (
        trio.open_nursery() as nursery,
        open_client(nursery, list(servers or (A, B)), **options) as nc,
        open_events(nursery, nc) as rx,
    ):
        yield nc, rx
    world.a.check()
    world.b.check()


async def moved(rx: Events) -> events.Moved:
    async for event in rx:
        if isinstance(event, events.Moved):
            return event
    pytest.fail("it did not move")


@pytest.mark.parametrize("problem", ["refuses us", "is down"])
async def test_what_failed_in_the_move_does_not_count_when_the_server_has_gone(
    autojump_clock: trio.testing.MockClock, problem: str
) -> None:
    world = World()
    async with connected(world, max_reconnect_attempts=3, reconnect_time_wait=0.1) as (nc, rx):
        world.b.accepting = problem != "is down"
        world.b.authorize = (lambda _: "Authorization Violation") if problem == "refuses us" else None
        world.quack()
        await trio.sleep(60)
        assert nc.connected_url == A
        world.b.accepting, world.b.authorize = True, None
        world.a.accepting = False
        world.a.cut()
        async for event in rx:
            if isinstance(event, events.Reconnected):
                break
        assert nc.connected_url == B


async def test_the_user_picks_where_to_move(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.hosts["c"] = c = FakeServer()
    async with connected(world, A, B, "nats://c", pick_server=lambda known, _: (known[-1], 0.0)) as (_, rx):
        world.quack()
        assert await moved(rx) == events.Moved("nats://c:4222", A)
    c.check()


def subjects(link: Link) -> set[str]:
    return {subscription.subject for subscription in link.subscriptions.values()}


async def test_c21_lame_duck_is_told_and_the_client_moves(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with connected(world) as (nc, rx):
        world.quack()
        world.quack()
        assert [await rx.receive(), await rx.receive()] == [events.LameDuck(A), events.Moved(B, A)]
        assert nc.connected_url == B
        assert nc.statistics().reconnects == 0
        await nc.flush()
        assert nc.server_name == "b"
        await trio.sleep(LONGEST_STAY + 1)
        assert not world.a.live_links
        assert len(world.b.live_links) == 1


async def test_the_old_server_serves_until_the_new_one_does(autojump_clock: trio.testing.MockClock) -> None:
    """A new server that is slow to answer, or does not, interrupts nothing."""
    world = World()
    world.b.dials = ["hang"]
    world.a.on("work", lambda _: b"done by a")
    async with connected(world, reconnect_time_wait=0.1) as (nc, rx):
        world.quack()
        await trio.sleep(1)
        assert world.b.dialled
        assert (await nc.request("work")).data == b"done by a"
        assert (await moved(rx)).server == B


async def test_without_another_server_it_stays_until_the_end(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with connected(world, A, max_reconnect_attempts=1) as (nc, rx):
        world.quack()
        await trio.sleep(60)
        await nc.flush()
        assert await rx.receive() == events.LameDuck(A)
        world.a.cut()
        event = await rx.receive()
        assert isinstance(event, events.Disconnected)
        assert await rx.receive() == events.Reconnected(A)


async def test_a_server_that_is_discovered_later_is_moved_to(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with connected(world, A) as (_, rx):
        world.quack()
        await trio.sleep(1)
        world.quack(connect_urls=["b:4222"])
        assert (await moved(rx)).server == B


async def test_without_reconnecting_there_is_no_move(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with connected(world, allow_reconnect=False) as (nc, rx):
        world.quack()
        await trio.sleep(5)
        assert await rx.receive() == events.LameDuck(A)
        assert not world.b.dialled
        assert nc.connected_url == A


async def test_a_plain_subscription_is_on_one_side_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    """So that no message comes twice: the new server hears of it only after the old one has confirmed the UNSUB."""
    world = World()
    async with connected(world) as (nc, rx), trio.open_nursery() as nursery:
        async with open_subscription(nursery, nc, "plain") as feed:
            await nc.flush()
            old = world.a.link
            world.a.mute.add("PING")
            world.quack()
            while not world.a.sent("UNSUB"):  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.01)
            assert not subjects(world.b.link)
            old.write(b"MSG plain 1 1\r\nx\r\nPONG\r\n")
            await moved(rx)
            assert (await feed.receive()).data == b"x"
            await nc.flush()
            assert subjects(world.b.link) == {"plain"}
            assert not subjects(old)
            world.b.publish("plain", b"y")
            assert (await feed.receive()).data == b"y"


async def test_a_queue_subscription_overlaps(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with connected(world) as (nc, rx), trio.open_nursery() as nursery:
        async with (
            open_subscription(nursery, nc, "work", queue="q") as feed,
            open_subscription(nursery, nc, "five", queue="q", max_msgs=5),
        ):
            await nc.flush()
            old = world.a.link
            world.quack()
            await moved(rx)
            await nc.flush()
            # A count that two servers keep would be exceeded, so that one crosses like a plain one.
            assert subjects(old) == {"work"}
            assert subjects(world.b.link) == {"work", "five"}
            world.a.publish("work", b"a")
            world.b.publish("work", b"b")
            assert {(await feed.receive()).data, (await feed.receive()).data} == {b"a", b"b"}
            await trio.sleep(QUEUE_OVERLAP * 2)
            assert not old.alive
            assert not old.torn


async def test_leaving_during_the_overlap_unsubscribes_on_both_sides(autojump_clock: trio.testing.MockClock) -> None:
    """Otherwise the old server would go on giving us messages of the group that nobody takes."""
    world = World()
    async with connected(world) as (nc, rx), trio.open_nursery() as nursery:
        async with open_subscription(nursery, nc, "work", queue="q"):
            await nc.flush()
            old = world.a.link
            world.quack()
            await moved(rx)
        await trio.testing.wait_all_tasks_blocked()
        assert not subjects(old)
        assert not subjects(world.b.link)


@pytest.mark.parametrize("ends", ["answers", "breaks", "is silent"])
async def test_a_drain_during_the_overlap_has_what_comes_from_both_sides(
    ends: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The new server has nothing on its way any more; the old one may."""
    world = World()
    async with connected(world) as (nc, rx), trio.open_nursery() as nursery:
        async with open_subscription(nursery, nc, "work", queue="q") as work:
            await nc.flush()
            old = world.a.link
            world.quack()
            await moved(rx)
            old.stall(down=True)
            assert world.a.publish("work", b"old") == 1
            start = trio.current_time()
            nc.drain_nowait()
            await trio.sleep(0.1)
            if ends == "answers":
                old.resume()
            elif ends == "breaks":
                old.cut()
            came = [message.data async for message in work]
            assert came == ([] if ends == "is silent" else [b"old"])
            await nc.drain()
            assert trio.current_time() - start <= (LONGEST_STAY + 1.5 if ends == "is silent" else 1.5)


async def test_a_reconnect_while_the_old_side_is_still_there_loses_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    world.b.sip = 7
    async with connected(world) as (nc, rx), trio.open_nursery() as nursery:
        world.quack()
        await moved(rx)
        assert len(world.a.live_links) == 1
        for number in range(100):
            await nc.publish("p", b"%d" % number)
        await nc.reconnect()
        await nc.flush()
        nursery.cancel_scope.cancel()
    arrived = [int(frame.payload) for server in (world.b, world.a) for frame in server.sent("PUB", "p")]
    assert arrived == list(range(100))


async def test_an_automatic_unsubscribe_counts_on(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with connected(world) as (nc, rx), trio.open_nursery() as nursery:
        async with open_subscription(nursery, nc, "s", max_msgs=5) as feed:
            await nc.flush()
            for _ in range(2):
                world.a.publish("s")
            await feed.receive()
            world.quack()
            await moved(rx)
            await nc.flush()
            for _ in range(10):
                world.b.publish("s")
            assert len([msg async for msg in feed]) == 4


async def test_no_request_in_flight_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    """The answer may come on either side, and as late as the request's own time allows."""
    world = World()
    asked: list[Frame] = []
    world.a.on("work", asked.append)
    world.b.on("work", lambda _: b"done by b")
    async with connected(world) as (nc, rx):
        with nc.request_nowait("work", b"1") as first, nc.request_nowait("work", b"2") as second:
            await nc.flush()
            world.quack()
            await moved(rx)
            assert (await nc.request("work", b"3")).data == b"done by b"
            await trio.sleep(3)
            world.a.publish(asked[0].reply, b"done by a")
            assert (await first.wait()).data == b"done by a"
            world.b.publish(asked[1].reply, b"by way of b")
            world.a.publish(asked[1].reply, b"and again")
            assert (await second.wait()).data in {b"by way of b", b"and again"}
            start = trio.current_time()
            while world.a.live_links:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.01)
            assert trio.current_time() - start < 1
            await nc.flush()


async def test_the_old_side_waits_ten_seconds_at_most(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    asked: list[Frame] = []
    world.a.on("work", asked.append)
    async with connected(world, request_timeout=60.0) as (nc, rx):
        with nc.request_nowait("work") as reply:
            await nc.flush()
            start = trio.current_time()
            world.quack()
            await moved(rx)
            while world.a.live_links:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.1)
            assert LONGEST_STAY < trio.current_time() - start < LONGEST_STAY + 2
            assert not reply.done
            world.b.publish(asked[0].reply, b"late")
            assert (await reply.wait()).data == b"late"


async def test_inboxes_stay_on_the_old_side_and_are_told_when_they_cross(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    told: list[str] = []

    class Receiver:
        def deliver(self, message: Any) -> None:  # noqa: ANN401 - a message
            told.append(message.data.decode())

        def connection_lost(self, reason: Exception) -> None:
            told.append("lost")

        def connection_restored(self) -> None:
            told.append("restored")

        def ended(self, reason: BaseException | None) -> None:
            told.append("ended")

    async with connected(world) as (nc, rx):
        inbox = nc.new_inbox()
        nc.attach(inbox, Receiver())
        await nc.flush()
        world.quack()
        await moved(rx)
        await trio.sleep(5)
        assert subjects(world.a.link) == {inbox}
        world.a.publish(inbox, b"answer")
        await trio.sleep(LONGEST_STAY)
        assert not world.a.live_links
        assert told == ["answer", "lost", "restored"]
        await nc.flush()
        assert subjects(world.b.link) == {inbox}


async def test_what_was_published_goes_out_in_order_and_once(autojump_clock: trio.testing.MockClock) -> None:
    """Before the fence to the old server, behind it to the new one."""
    world = World()
    async with connected(world) as (nc, rx):
        number = 0
        world.quack()
        while nc.connected_url != B:
            await nc.publish("n", b"%d" % number)
            number += 1
            await trio.sleep(0.001)
        for _ in range(5):
            await nc.publish("n", b"%d" % number)
            number += 1
        await moved(rx)
        await nc.flush()
        one, two = ([int(frame.payload) for frame in server.sent("PUB", "n")] for server in (world.a, world.b))
        assert one
        assert len(two) >= 5
        assert one + two == list(range(number))


async def test_the_old_server_dying_at_the_fence_is_told_as_a_loss(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.a.on("work", lambda _: None)
    async with connected(world) as (nc, rx), trio.open_nursery() as nursery:
        async with open_subscription(nursery, nc, "plain"):
            await nc.flush()
            world.a.mute.add("PING")
            world.quack()
            with nc.request_nowait("work") as reply:
                while not world.a.sent("UNSUB"):  # noqa: ASYNC110 - nothing tells of it
                    await trio.sleep(0.01)
                world.a.cut("reset")
                await moved(rx)
                with pytest.raises(errors.DisconnectedError):
                    await reply.wait()
            await nc.flush()
            assert subjects(world.b.link) >= {"plain"}


async def test_an_old_server_that_is_silent_at_the_fence_holds_nothing_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    async with connected(world, connect_timeout=2.0) as (nc, rx), trio.open_nursery() as nursery:
        async with open_subscription(nursery, nc, "plain"):
            await nc.flush()
            world.a.mute.add("PING")
            start = trio.current_time()
            world.quack()
            await moved(rx)
            assert 2 <= trio.current_time() - start < 3
            await nc.flush()
            assert subjects(world.b.link) == {"plain"}


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_the_old_server_dying_before_the_move_is_a_reconnect(
    autojump_clock: trio.testing.MockClock, how: Ending
) -> None:
    world = World()
    world.b.dials = ["hang"]
    async with connected(world, connect_timeout=60.0) as (nc, rx):
        world.quack()
        await trio.sleep(1)
        assert world.b.dialled
        world.a.accepting = False
        world.a.cut(how)
        seen = [await rx.receive() for _ in range(3)]
        assert [type(event) for event in seen] == [events.LameDuck, events.Disconnected, events.Reconnected]
        assert nc.connected_url == B


async def test_the_new_server_dying_at_once_is_a_reconnect(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with connected(world) as (nc, rx):
        world.quack()
        await moved(rx)
        world.b.cut("reset")
        async for event in rx:
            if isinstance(event, events.Reconnected):
                break
        await nc.flush()
        await trio.sleep(1)
        assert len(world.a.live_links) + len(world.b.live_links) == 1


async def test_a_new_server_that_goes_too_is_left_again(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with connected(world) as (nc, rx):
        world.quack()
        assert (await moved(rx)).server == B
        world.quack(world.b)
        assert (await moved(rx)).server == A
        await nc.flush()
        assert nc.connected_url == A


async def test_closing_in_the_middle_of_a_move(autojump_clock: trio.testing.MockClock) -> None:
    for delay in (0.0, 0.1, 0.5, 0.7, 1.0):
        world = World()
        world.a.mute.add("UNSUB")
        async with connected(world) as (nc, _):
            await nc.flush()
            world.quack()
            await trio.sleep(delay)
            start = trio.current_time()
            await nc.aclose()
            assert trio.current_time() - start < 3
        assert not world.a.live_links
        assert not world.b.live_links


async def test_all_clients_of_a_server_do_not_move_in_the_same_moment(autojump_clock: trio.testing.MockClock) -> None:
    """C13, for a move: the others would get all of them at once."""
    world = World()
    times: list[float] = []

    async def dial(host: str, port: int) -> trio.abc.Stream:
        if host == "b":
            times.append(trio.current_time())
        return await world.dial(host, port)

    async with trio.open_nursery() as nursery:
        clients = [
            open_client(nursery, [A, B], dial=dial, dont_randomize=True, rng=random.Random(seed)) for seed in range(100)
        ]
        opened = [await client.__aenter__() for client in clients]
        start = trio.current_time()
        for link in world.a.links:
            link.write(b'INFO {"ldm":true}\r\n')
        await trio.sleep(2)
        assert {nc.connected_url for nc in opened} == {B}
        buckets = [int((when - start) * 100) for when in times]
        assert max(map(buckets.count, set(buckets))) <= 10
        for client in clients:
            await client.__aexit__(None, None, None)


class Hears:
    """A receiver."""

    def deliver(self, message: object) -> None:
        """Take a message."""

    def connection_lost(self, reason: Exception) -> None:
        """See nothing."""

    def connection_restored(self) -> None:
        """See nothing."""

    def ended(self, reason: BaseException | None) -> None:
        """See nothing."""


class Asks(Hears):
    """A receiver of answers."""

    ignores_repeats = True
    names: frozenset[str] = frozenset()

    def waiting(self) -> frozenset[str]:
        return self.names


def test_who_waits_for_answers_is_not_sought_again() -> None:
    """It is asked every 20 ms while a client moves, however many subscriptions it has."""
    requests = Asks()
    engine = Engine()
    engine.subscribe(b"inbox", b"", 0, requests)
    for number in range(10):
        engine.subscribe(b"s.%d" % number, b"", 0, Hears())
    requests.names = frozenset({"a", "b"})
    awaited = AwaitedReplies(engine)
    engine.registrations.clear()
    assert awaited.missing
    requests.names = frozenset({"b", "c"})
    assert awaited.missing
    requests.names = frozenset({"a", "c"})
    assert not awaited.missing, "it was answered, and these came later"
