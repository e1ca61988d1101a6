"""A server in lame duck mode: the migration, in which nothing is interrupted (servers in memory, a clock that jumps)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.fakes import Ending, FakeServer, Frame
from tests.worlds import Hosts, Receiver, events_until, next_event, seam, settled, until, watched
from trionats import Client, Events, Subscription, errors, open_client, open_subscription
from trionats._connection.migration import AwaitedReplies
from trionats._protocol.engine import Engine
from trionats._protocol.migration import LONGEST_STAY, QUEUE_OVERLAP
from trionats.events import Disconnected, LameDuck, Moved, Reconnected

pytestmark = pytest.mark.usefixtures("autojump_clock")

A, B = "nats://a:4222", "nats://b:4222"
Hearing = tuple[Hosts, Client, Events, Subscription]


def subjects(server: FakeServer) -> set[str]:
    """What the newest link of a server has, whether it is still alive or not."""
    return {subscription.subject for subscription in server.link.subscriptions.values()}


async def move(hosts: Hosts, rx: Events, name: str = "a") -> Moved:
    """Let a server say that it goes, and wait until the client has moved."""
    hosts[name].announce(ldm=True)
    return await next_event(rx, Moved)


async def gone(hosts: Hosts, name: str) -> None:
    await until(lambda: not hosts[name].live_links, within=60, pause=0.01)


@asynccontextmanager
async def hearing(subject: str, queue: str = "", max_msgs: int = 0, **options: Any) -> AsyncIterator[Hearing]:  # noqa: ANN401 - any option
    """Two servers, and a subscription that the first of them knows of."""
    hosts = Hosts("a", "b")
    async with (
        watched(hosts, **options) as (_, nc, rx),
        trio.open_nursery() as nursery,
        open_subscription(nursery, nc, subject, queue=queue, max_msgs=max_msgs) as feed,
    ):
        await nc.flush()
        yield hosts, nc, rx, feed


async def test_lame_duck_is_told_and_the_client_moves() -> None:
    async with watched(Hosts("a", "b")) as (hosts, nc, rx):
        hosts["a"].announce(ldm=True)
        hosts["a"].announce(ldm=True)
        assert [await rx.receive(), await rx.receive()] == [LameDuck(A), Moved(B, A)]
        assert (nc.connected_url, nc.statistics().reconnects) == (B, 0)
        await nc.flush()
        assert nc.server_name == "b"
        await trio.sleep(LONGEST_STAY + 1)
        assert [len(hosts[name].live_links) for name in "ab"] == [0, 1]


async def test_the_old_server_serves_until_the_new_one_does() -> None:
    """A new server that is slow to answer, or does not, interrupts nothing."""
    hosts = Hosts("a", "b")
    hosts["b"].dials = ["hang"]
    hosts["a"].on("work", lambda _: b"done by a")
    async with watched(hosts, reconnect_time_wait=0.1) as (_, nc, rx):
        hosts["a"].announce(ldm=True)
        await trio.sleep(1)
        assert hosts["b"].dialled
        assert (await nc.request("work")).data == b"done by a"
        assert (await next_event(rx, Moved)).server == B


async def test_where_it_does_not_move_it_stays_until_the_end() -> None:
    async with watched(Hosts("a"), max_reconnect_attempts=1) as (hosts, nc, rx):
        hosts["a"].announce(ldm=True)
        await trio.sleep(60)
        await nc.flush()
        hosts["a"].cut()
        seen = await events_until(rx, Reconnected)
        assert [type(event) for event in seen] == [LameDuck, Disconnected, Reconnected]
    async with watched(Hosts("a", "b"), allow_reconnect=False) as (hosts, nc, rx):
        hosts["a"].announce(ldm=True)
        await trio.sleep(5)
        assert await rx.receive() == LameDuck(A)
        assert not hosts["b"].dialled
        assert nc.connected_url == A


async def test_where_it_moves_to() -> None:
    async with watched(Hosts("a", "b"), A) as (hosts, _, rx):
        hosts["a"].announce(ldm=True)
        await trio.sleep(1)
        hosts["a"].announce(ldm=True, connect_urls=["b:4222"])
        assert (await next_event(rx, Moved)).server == B
    async with watched(Hosts("a", "b", "c"), pick_server=lambda known, _: (known[-1], 0.0)) as (hosts, _, rx):
        assert await move(hosts, rx) == Moved("nats://c:4222", A)


@pytest.mark.parametrize("problem", ["refuses us", "is down"])
async def test_what_failed_in_the_move_does_not_count_when_the_server_has_gone(problem: str) -> None:
    async with watched(Hosts("a", "b"), max_reconnect_attempts=3, reconnect_time_wait=0.1) as (hosts, nc, rx):
        hosts["b"].accepting = problem != "is down"
        hosts["b"].authorize = (lambda _: "Authorization Violation") if problem == "refuses us" else None
        hosts["a"].announce(ldm=True)
        await trio.sleep(60)
        assert nc.connected_url == A
        hosts["b"].accepting, hosts["b"].authorize = True, None
        hosts["a"].accepting = False
        hosts["a"].cut()
        await next_event(rx, Reconnected)
        assert nc.connected_url == B


async def test_all_clients_of_a_server_do_not_move_in_the_same_moment() -> None:
    """The others would get all of them at once."""
    hosts = Hosts("a", "b")
    options = {"dial": hosts.dial, "dont_randomize": True}
    async with trio.open_nursery() as nursery:
        clients = [open_client(nursery, [A, B], rng=random.Random(seed), **options) for seed in range(100)]  # type: ignore[arg-type]
        opened = [await client.__aenter__() for client in clients]
        start = trio.current_time() - hosts.start
        for link in hosts["a"].links:
            link.write(b'INFO {"ldm":true}\r\n')
        await trio.sleep(2)
        assert {nc.connected_url for nc in opened} == {B}
        buckets = [int((when - start) * 100) for name, when in hosts.dials if name == "b"]
        assert (len(buckets), max(map(buckets.count, set(buckets))) <= 10) == (100, True)
        for client in clients:
            await client.__aexit__(None, None, None)


async def test_a_plain_subscription_is_on_one_side_at_a_time() -> None:
    """So that no message comes twice: the new server hears of it only after the old one has confirmed the UNSUB."""
    async with hearing("plain") as (hosts, nc, rx, feed):
        old = hosts["a"].link
        hosts["a"].mute.add("PING")
        hosts["a"].announce(ldm=True)
        await until(lambda: hosts["a"].sent("UNSUB"))
        assert not subjects(hosts["b"])
        old.write(b"MSG plain 1 1\r\nx\r\nPONG\r\n")
        await next_event(rx, Moved)
        assert (await feed.receive()).data == b"x"
        await nc.flush()
        assert (subjects(hosts["b"]), subjects(hosts["a"])) == ({"plain"}, set())
        hosts["b"].publish("plain", b"y")
        assert (await feed.receive()).data == b"y"


async def test_a_queue_subscription_overlaps() -> None:
    async with (
        hearing("work", queue="q") as (hosts, nc, rx, feed),
        trio.open_nursery() as nursery,
        open_subscription(nursery, nc, "five", queue="q", max_msgs=5),
    ):
        await nc.flush()
        old = hosts["a"].link
        await move(hosts, rx)
        await nc.flush()
        # A count that two servers keep would be exceeded, so that one crosses like a plain one.
        assert (subjects(hosts["a"]), subjects(hosts["b"])) == ({"work"}, {"work", "five"})
        hosts["a"].publish("work", b"a")
        hosts["b"].publish("work", b"b")
        assert {(await feed.receive()).data, (await feed.receive()).data} == {b"a", b"b"}
        await trio.sleep(QUEUE_OVERLAP * 2)
        assert (old.alive, old.torn) == (False, b"")


async def test_stopping_during_the_overlap_unsubscribes_on_both_sides() -> None:
    """Otherwise the old server would go on giving us messages of the group that nobody takes."""
    async with hearing("work", queue="q") as (hosts, _, rx, feed):
        await move(hosts, rx)
        feed.stop()
        await settled()
        assert subjects(hosts["a"]) == subjects(hosts["b"]) == set()


@pytest.mark.parametrize("ends", ["answers", "breaks", "is silent"])
async def test_a_drain_during_the_overlap_has_what_comes_from_both_sides(ends: str) -> None:
    """The new server has nothing on its way any more; the old one may."""
    async with hearing("work", queue="q") as (hosts, nc, rx, work):
        old = hosts["a"].link
        await move(hosts, rx)
        old.stall(down=True)
        assert hosts["a"].publish("work", b"old") == 1
        start = trio.current_time()
        nc.drain_nowait()
        await trio.sleep(0.1)
        if ends == "answers":
            old.resume()
        elif ends == "breaks":
            old.cut()
        assert [message.data async for message in work] == ([] if ends == "is silent" else [b"old"])
        await nc.drain()
        assert trio.current_time() - start <= (LONGEST_STAY + 1.5 if ends == "is silent" else 1.5)


async def test_an_automatic_unsubscribe_counts_on() -> None:
    async with hearing("s", max_msgs=5) as (hosts, nc, rx, feed):
        for _ in range(2):
            hosts["a"].publish("s")
        await feed.receive()
        await move(hosts, rx)
        await nc.flush()
        for _ in range(10):
            hosts["b"].publish("s")
        assert len([msg async for msg in feed]) == 4


async def test_inboxes_stay_on_the_old_side_and_are_told_when_they_cross() -> None:
    hosts = Hosts("a", "b")
    receiver = Receiver()
    async with watched(hosts) as (_, nc, rx):
        inbox = nc.new_inbox()
        seam(nc).attach(inbox, receiver)
        await nc.flush()
        await move(hosts, rx)
        await trio.sleep(5)
        assert subjects(hosts["a"]) == {inbox}
        hosts["a"].publish(inbox, b"reply")
        await trio.sleep(LONGEST_STAY)
        assert not hosts["a"].live_links
        assert [getattr(told, "data", told) for told in receiver.told] == [b"reply", "lost", "restored"]
        await nc.flush()
        assert subjects(hosts["b"]) == {inbox}


async def test_no_request_in_flight_is_lost() -> None:
    """The reply may come on either side, and as late as the request's own time allows."""
    hosts = Hosts("a", "b")
    asked: list[Frame] = []
    hosts["a"].on("work", asked.append)
    hosts["b"].on("work", lambda _: b"done by b")
    async with watched(hosts) as (_, nc, rx):
        with nc.request_nowait("work", b"1") as first, nc.request_nowait("work", b"2") as second:
            await nc.flush()
            await move(hosts, rx)
            assert (await nc.request("work", b"3")).data == b"done by b"
            await trio.sleep(3)
            hosts["a"].publish(asked[0].reply, b"done by a")
            assert (await first.wait()).data == b"done by a"
            hosts["b"].publish(asked[1].reply, b"by way of b")
            hosts["a"].publish(asked[1].reply, b"and again")
            assert (await second.wait()).data in {b"by way of b", b"and again"}
            start = trio.current_time()
            await gone(hosts, "a")
            assert trio.current_time() - start < 1
            await nc.flush()


async def test_the_old_side_waits_ten_seconds_at_most() -> None:
    hosts = Hosts("a", "b")
    asked: list[Frame] = []
    hosts["a"].on("work", asked.append)
    async with watched(hosts, request_timeout=60.0) as (_, nc, rx):
        with nc.request_nowait("work") as reply:
            await nc.flush()
            start = trio.current_time()
            await move(hosts, rx)
            await gone(hosts, "a")
            assert LONGEST_STAY < trio.current_time() - start < LONGEST_STAY + 2
            assert not reply.done
            hosts["b"].publish(asked[0].reply, b"late")
            assert (await reply.wait()).data == b"late"


async def test_what_was_published_goes_out_in_order_and_once() -> None:
    """Before the fence to the old server, behind it to the new one."""
    async with watched(Hosts("a", "b")) as (hosts, nc, rx):
        number = behind = 0
        hosts["a"].announce(ldm=True)
        while behind < 5:
            behind += nc.connected_url == B
            await nc.publish("n", b"%d" % number)
            number += 1
            await trio.sleep(0.001)
        await next_event(rx, Moved)
        await nc.flush()
        one, two = ([int(frame.payload) for frame in hosts[name].sent("PUB", "n")] for name in "ab")
        assert one
        assert len(two) >= 5
        assert one + two == list(range(number))


async def test_a_reconnect_while_the_old_side_is_still_there_loses_nothing() -> None:
    hosts = Hosts("a", "b")
    hosts["b"].sip = 7
    async with watched(hosts) as (_, nc, rx):
        await move(hosts, rx)
        assert len(hosts["a"].live_links) == 1
        for number in range(100):
            await nc.publish("p", b"%d" % number)
        await nc.reconnect()
        await nc.flush()
    assert [int(frame.payload) for name in "ba" for frame in hosts[name].sent("PUB", "p")] == list(range(100))


async def test_the_old_server_dying_at_the_fence_is_told_as_a_loss() -> None:
    async with hearing("plain") as (hosts, nc, rx, _):
        hosts["a"].on("work", lambda _: None)
        hosts["a"].mute.add("PING")
        hosts["a"].announce(ldm=True)
        with nc.request_nowait("work") as reply:
            await until(lambda: hosts["a"].sent("UNSUB"))
            hosts["a"].cut("reset")
            await next_event(rx, Moved)
            with pytest.raises(errors.DisconnectedError):
                await reply.wait()
        await nc.flush()
        assert subjects(hosts["b"]) >= {"plain"}


async def test_an_old_server_that_is_silent_at_the_fence_holds_nothing_up() -> None:
    async with hearing("plain", connect_timeout=2.0) as (hosts, nc, rx, _):
        hosts["a"].mute.add("PING")
        start = trio.current_time()
        await move(hosts, rx)
        assert 2 <= trio.current_time() - start < 3
        await nc.flush()
        assert subjects(hosts["b"]) == {"plain"}


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_the_old_server_dying_before_the_move_is_a_reconnect(how: Ending) -> None:
    hosts = Hosts("a", "b")
    hosts["b"].dials = ["hang"]
    async with watched(hosts, connect_timeout=60.0) as (_, nc, rx):
        hosts["a"].announce(ldm=True)
        await trio.sleep(1)
        assert hosts["b"].dialled
        hosts["a"].accepting = False
        hosts["a"].cut(how)
        seen = await events_until(rx, Reconnected)
        assert [type(event) for event in seen] == [LameDuck, Disconnected, Reconnected]
        assert nc.connected_url == B


async def test_a_new_server_that_goes_too_is_left_again_and_where_it_dies_at_once_that_is_a_reconnect() -> None:
    async with watched(Hosts("a", "b")) as (hosts, nc, rx):
        assert (await move(hosts, rx, "a")).server == B
        assert (await move(hosts, rx, "b")).server == A
        await nc.flush()
        assert nc.connected_url == A
        await gone(hosts, "b")
        assert (await move(hosts, rx, "a")).server == B
        hosts["b"].cut("reset")
        await next_event(rx, Reconnected)
        await nc.flush()
        await trio.sleep(1)
        assert len(hosts["a"].live_links) + len(hosts["b"].live_links) == 1


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.5, 0.7, 1.0])
async def test_closing_in_the_middle_of_a_move(delay: float) -> None:
    hosts = Hosts("a", "b")
    hosts["a"].mute.add("UNSUB")
    async with watched(hosts) as (_, nc, _):
        await nc.flush()
        hosts["a"].announce(ldm=True)
        await trio.sleep(delay)
        start = trio.current_time()
        await nc.aclose()
        assert trio.current_time() - start < 3
    assert not hosts["a"].live_links + hosts["b"].live_links


class Asks(Receiver):
    """A receiver of replies."""

    ignores_repeats = True
    names: frozenset[str] = frozenset()

    def waiting(self) -> frozenset[str]:
        return self.names


def test_who_waits_for_replies_is_not_sought_again() -> None:
    """It is asked every 20 ms while a client moves, however many subscriptions it has."""
    requests = Asks()
    engine = Engine()
    engine.subscribe(b"inbox", b"", 0, requests)
    for number in range(10):
        engine.subscribe(b"s.%d" % number, b"", 0, Receiver())
    requests.names = frozenset({"a", "b"})
    awaited = AwaitedReplies(engine)
    engine.registrations.clear()
    assert awaited.missing
    requests.names = frozenset({"b", "c"})
    assert awaited.missing
    requests.names = frozenset({"a", "c"})
    assert not awaited.missing, "it was answered, and these came later"
