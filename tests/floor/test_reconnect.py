"""Which server, when, and with what: every choice that is made when a connection is missing (a clock that jumps).

`test_link.py` has the stages of connecting, garbage, and cuts at every byte; here are options, calls and events. The numbers
are those of the failures that the tests would have caught.
"""

from __future__ import annotations

import itertools
import json
import random
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from nats.errors import ServerNotInPoolError

from tests.fakes import FakeServer, Frame
from trionats import errors, events, open_client, open_events, open_replies, open_subscription
from trionats._connection.dial import dial_tcp
from trionats.events import ConnectionState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trionats import Client, Events, KnownServer

Clock = trio.testing.MockClock
HOUR = 3600.0


class Hosts:
    """Servers by the names of their hosts, and who was dialled when."""

    def __init__(self, *names: str) -> None:
        self.servers = {name: FakeServer(info={"server_name": name}) for name in names}
        self.dials: list[tuple[str, float]] = []
        self.start = trio.current_time()

    def __getitem__(self, name: str) -> FakeServer:
        return self.servers[name]

    @property
    def order(self) -> str:
        return "".join(name for name, _ in self.dials)

    @property
    def urls(self) -> list[str]:
        return [f"nats://{name}" for name in self.servers]

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        self.dials.append((host, trio.current_time() - self.start))
        return await self.servers[host].dial(host, port)


@asynccontextmanager
async def connected(hosts: Hosts, **options: Any) -> AsyncIterator[Client]:  # noqa: ANN401 - any option
    servers = options.pop("servers", hosts.urls)
    options = {"dial": hosts.dial, "dont_randomize": True, "rng": random.Random(7), **options}
    async with trio.open_nursery() as nursery, open_client(nursery, servers, **options) as nc:
        yield nc
    for server in hosts.servers.values():
        server.check()


@asynccontextmanager
async def watched(hosts: Hosts, **options: Any) -> AsyncIterator[tuple[Client, Events]]:  # noqa: ANN401 - any option
    async with (
        connected(hosts, **options) as nc,
        trio.open_nursery() as nursery,
        open_events(nursery, nc) as rx,
    ):
        yield nc, rx


async def until(rx: Events, kind: type[events.ConnectionEvent]) -> list[events.ConnectionEvent]:
    """Receive events up to the first of a kind."""
    seen: list[events.ConnectionEvent] = []
    while not seen or not isinstance(seen[-1], kind):
        seen.append(await rx.receive())
    return seen


async def until_over(rx: Events) -> None:
    async for _ in rx:
        pass


# -- the first connection ----------------------------------------------------------------------------------------------


async def test_retry_on_failed_connect_gives_the_client_at_once(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    hosts["a"].dials = ["refuse", "hang", "refuse"]
    async with watched(hosts, retry_on_failed_connect=True) as (nc, rx):
        assert trio.current_time() - hosts.start == 0
        assert (nc.state, nc.is_connected, nc.connected_url) == (ConnectionState.CONNECTING, False, None)
        await nc.publish("early", b"1")
        async with trio.open_nursery() as nursery, open_subscription(nursery, nc, "s") as feed:
            seen = await until(rx, events.Connected)
            assert [type(event).__name__ for event in seen] == ["ReconnectFailed"] * 3 + ["Connected"]
            assert nc.state is ConnectionState.CONNECTED
            await nc.flush()
            hosts["a"].publish("s", b"2")
            assert (await feed.receive()).data == b"2"
        assert [frame.payload for frame in hosts["a"].sent("PUB", "early")] == [b"1"]
        assert nc.statistics().reconnects == 0


async def test_retry_on_failed_connect_gives_up_in_the_end(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b")
    hosts["a"].accepting = hosts["b"].accepting = False
    async with connected(hosts, retry_on_failed_connect=True, max_reconnect_attempts=3) as nc:
        with pytest.raises(errors.ConnectionClosedError, match=r"no server left to try: nats://a:4222 \(3 x"):
            await nc.wait_connected()
        assert nc.state is ConnectionState.CLOSED
        assert isinstance(nc.last_error, errors.NoServersError)
        assert sorted(hosts.order) == list("aaabbb")


async def test_leaving_before_the_first_connection_loses_and_tells(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    hosts["a"].accepting = False
    async with trio.open_nursery() as nursery:
        async with watched(hosts, retry_on_failed_connect=True) as (nc, rx):
            await nc.publish("early")
            nursery.start_soon(nc.aclose)
            seen = await until(rx, events.Closed)
            assert events.PublishesLost(1) in seen


# -- where to, and when ------------------------------------------------------------------------------------------------


async def test_c14_the_server_just_lost_comes_last(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b", "c")
    async with watched(hosts) as (_, rx):
        for name in "abc":
            hosts[name].accepting = False
        hosts["a"].cut()
        while len(hosts.dials) < 4:
            await rx.receive()
        assert hosts.order[:4] == "abca"


async def test_c13_two_hundred_clients_do_not_come_back_as_a_herd(autojump_clock: Clock) -> None:
    """No 10 ms see more than a tenth of the first dials after the loss."""
    hosts = Hosts("a")
    async with trio.open_nursery() as nursery:
        clients = [
            open_client(nursery, "nats://a", dial=hosts.dial, rng=random.Random(seed), max_reconnect_attempts=-1)
            for seed in range(200)
        ]
        for client in clients:
            await client.__aenter__()
        hosts.dials.clear()
        hosts["a"].dials = ["refuse"] * 200
        hosts.start = trio.current_time()
        hosts["a"].cut("reset")
        await trio.sleep(10)
        first = [int(when * 100) for _, when in hosts.dials[:200]]
        histogram = {bucket: first.count(bucket) for bucket in sorted(set(first))}
        assert max(histogram.values()) <= 20
        assert len(histogram) > 30
        assert len(hosts["a"].live_links) == 200
        for client in clients:
            await client.__aexit__(None, None, None)


async def test_the_backoff_ends_where_it_is_told_to(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with connected(hosts, max_reconnect_attempts=40, reconnect_time_wait=0.5, max_reconnect_time_wait=1.0) as nc:
        hosts["a"].accepting = False
        hosts["a"].cut()
        with pytest.raises(errors.ConnectionClosedError):
            await until_closed(nc)
        waits = [later - sooner for (_, sooner), (_, later) in zip(hosts.dials[1:], hosts.dials[2:], strict=False)]
        assert len(waits) == 39
        assert 0.9 < max(waits) <= 1.0


async def until_closed(nc: Client) -> None:
    while True:
        await nc.wait_connected()
        await trio.sleep(0.1)


async def test_the_users_own_delay(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with watched(hosts, reconnect_delay=lambda attempts: attempts * 10.0, max_reconnect_attempts=4) as (_, rx):
        hosts["a"].dials = ["refuse"] * 3
        hosts["a"].cut()
        await until(rx, events.Reconnected)
        times = [when for _, when in hosts.dials[1:]]
        assert [round(b - a) for a, b in itertools.pairwise(times)] == [10, 20, 30]


def bad_delay(attempts: int) -> float:
    raise RuntimeError("the user's bug")


@pytest.mark.parametrize("delay", [bad_delay, lambda _: -1.0, lambda _: float("nan"), lambda _: "soon"])
async def test_a_delay_that_fails_is_told_and_replaced(autojump_clock: Clock, delay: Callable[[int], float]) -> None:
    hosts = Hosts("a")
    async with watched(hosts, reconnect_delay=delay) as (_, rx):
        hosts["a"].dials = ["refuse"]
        hosts["a"].cut()
        seen = await until(rx, events.Reconnected)
        failed = [event for event in seen if isinstance(event, events.CallbackFailed)]
        assert [event.option for event in failed] == ["reconnect_delay"]


async def test_no_delay_of_the_users_own_is_the_usual_one(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with watched(hosts, reconnect_delay=None) as (_, rx):
        hosts["a"].dials = ["refuse"] * 3
        hosts["a"].cut()
        seen = await until(rx, events.Reconnected)
        assert not [event for event in seen if isinstance(event, events.CallbackFailed)]


async def test_the_user_picks_the_server(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b", "c")
    asked: list[tuple[list[str], str]] = []

    def pick(servers: tuple[KnownServer, ...], info: dict[str, Any]) -> tuple[KnownServer | None, float]:
        asked.append(([server.url for server in servers], info["server_name"]))
        assert [server.did_connect for server in servers] == [True, False, False]
        assert not any(server.discovered for server in servers)
        return servers[2], 7.5

    async with watched(hosts, pick_server=pick) as (nc, rx):
        hosts["c"].dials = ["refuse"]
        hosts["a"].cut()
        await until(rx, events.Reconnected)
        assert nc.connected_url == "nats://c:4222"
        assert asked[0] == (["nats://a:4222", "nats://b:4222", "nats://c:4222"], "a")
        assert [round(when, 1) for _, when in hosts.dials] == [0.0, 7.5, 15.0]
        assert hosts.order == "acc"


async def test_the_user_picks_none_for_the_usual(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b")
    async with watched(hosts, pick_server=lambda servers, info: (None, 5.0)) as (nc, rx):
        hosts["a"].cut()
        await until(rx, events.Reconnected)
        assert nc.connected_url == "nats://b:4222"
        assert hosts.dials[-1][1] >= 5


def foreign(servers: tuple[KnownServer, ...], info: dict[str, Any]) -> tuple[KnownServer, float]:
    from dataclasses import replace  # noqa: PLC0415 - only here

    return replace(servers[0], url="nats://elsewhere:4222"), 0.0


@pytest.mark.parametrize(
    ("pick", "kind"),
    [
        (foreign, ServerNotInPoolError),
        (lambda servers, info: 1 / 0, ZeroDivisionError),
        (lambda servers, info: servers[0], TypeError),
        (lambda servers, info: (servers[0], -1.0), ValueError),
        (lambda servers, info: ("nats://a", 0.0), Exception),
    ],
)
async def test_a_pick_that_fails_is_told_and_replaced(autojump_clock: Clock, pick: Any, kind: type[Exception]) -> None:  # noqa: ANN401 - whatever the user writes
    hosts = Hosts("a", "b")
    async with watched(hosts, pick_server=pick) as (nc, rx):
        hosts["a"].cut()
        seen = await until(rx, events.Reconnected)
        failed = [event for event in seen if isinstance(event, events.CallbackFailed)]
        assert [event.option for event in failed] == ["pick_server"]
        assert isinstance(failed[0].error, kind)
        assert nc.connected_url == "nats://b:4222"


async def test_servers_replaced_at_run_time(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b", "c")
    async with watched(hosts, servers=["nats://a"]) as (nc, rx):
        nc.set_servers(["nats://u:s3cret@b", "c:4222"])
        assert nc.servers == ("nats://b:4222", "nats://c:4222")
        assert nc.connected_url == "nats://a:4222"
        with pytest.raises(ValueError, match="port"):
            nc.set_servers("nats://d:99999999")
        hosts["a"].cut()
        await until(rx, events.Reconnected)
        assert nc.connected_url == "nats://b:4222"
        assert hosts["b"].link.options["user"] == "u"


async def test_replacing_servers_ends_the_wait_for_an_old_one(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b")
    async with watched(hosts, servers=["nats://a"], reconnect_delay=lambda _: HOUR) as (nc, rx):
        hosts["a"].accepting = False
        hosts["a"].cut()
        await until(rx, events.ReconnectFailed)
        await trio.sleep(1)
        assert nc.state is ConnectionState.RECONNECTING
        nc.set_servers("nats://b")
        await nc.wait_connected()
        assert trio.current_time() - hosts.start < 5


# -- discovery ---------------------------------------------------------------------------------------------------------


def tell(server: FakeServer, *urls: str) -> None:
    server.inject(b"INFO " + json.dumps({**server.info, "connect_urls": urls}).encode() + b"\r\n")


async def test_c15_servers_come_and_go_and_inherit_credentials(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b", "c")
    async with watched(hosts, servers=["nats://u:s3cret@a"]) as (nc, rx):
        tell(hosts["a"], "a:4222", "b:4222")
        assert await rx.receive() == events.ServersDiscovered(("nats://b:4222",))
        tell(hosts["a"], "c:4222", "a:4222")
        assert await rx.receive() == events.ServersDiscovered(("nats://c:4222",))
        assert nc.discovered_servers == ("nats://c:4222",)
        assert nc.servers == ("nats://a:4222", "nats://c:4222")
        tell(hosts["a"])
        await nc.flush()
        assert nc.discovered_servers == ("nats://c:4222",)
        hosts["a"].cut()
        await until(rx, events.Reconnected)
        assert nc.connected_url == "nats://c:4222"
        assert {"user": "u", "pass": "s3cret"}.items() <= hosts["c"].link.options.items()


async def test_discovered_servers_can_be_ignored(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b")
    async with connected(hosts, servers=["nats://a"], ignore_discovered_servers=True) as nc:
        tell(hosts["a"], "b:4222")
        await nc.flush()
        assert nc.servers == ("nats://a:4222",)


# -- forced ------------------------------------------------------------------------------------------------------------


async def test_c25_reconnects_asked_for_at_once_are_one(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b")
    async with connected(hosts) as nc:
        for cycle in range(1, 4):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(nc.reconnect)
            assert nc.statistics().reconnects == cycle
            assert len(hosts.dials) == cycle + 1
        assert hosts.order == "abab"
        assert trio.current_time() - hosts.start == 0, "and nobody waits"


@pytest.mark.parametrize("taken", ["at once", "slowly", "never"])
async def test_reconnecting_loses_nothing_that_was_published_and_keeps_the_order(
    autojump_clock: Clock, taken: str
) -> None:
    hosts = Hosts("a", "b")
    async with watched(hosts) as (nc, rx):
        link = hosts["a"].link
        if taken != "at once":
            link.stall(up=True)
        for number in range(3):
            await nc.publish("before", b"%d" % number)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nc.reconnect)
            await trio.testing.wait_all_tasks_blocked()
            if taken == "slowly":
                await trio.sleep(0.9)
                assert nc.connected_url == "nats://a:4222"
                for number in range(3):
                    await nc.publish("meanwhile", b"%d" % number)
                link.resume()
        assert nc.connected_url == "nats://b:4222"
        await nc.publish("after")
        await nc.flush()
        lost = [event for event in await until(rx, events.Reconnected) if isinstance(event, events.PublishesLost)]
        on_a = [(f.subject, f.payload) for f in hosts["a"].frames if f.verb == "PUB"]
        on_b = [(f.subject, f.payload) for f in hosts["b"].frames if f.verb == "PUB"]
        before = [("before", b"%d" % number) for number in range(3)]
        meanwhile = [("meanwhile", b"%d" % number) for number in range(3)] if taken == "slowly" else []
        if taken == "never":
            # It is told, and it took no longer than it was to.
            assert (on_a, lost) == ([], [events.PublishesLost(3)])
            assert trio.current_time() - start == pytest.approx(1.0)
        else:
            assert (on_a, lost) == (before, [])
        assert on_b == [*meanwhile, ("after", b"")]


async def test_reconnecting_ends_a_wait(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with watched(hosts, reconnect_delay=lambda _: HOUR) as (nc, rx):
        hosts["a"].dials = ["refuse"]
        hosts["a"].cut()
        await until(rx, events.ReconnectFailed)
        await nc.reconnect()
        assert nc.is_connected
        assert trio.current_time() - hosts.start < 5


async def test_reconnecting_during_a_dial_skips_the_wait_behind_it(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with connected(hosts, reconnect_delay=lambda _: HOUR, connect_timeout=2) as nc:
        hosts["a"].dials = ["hang", "refuse", "accept"]
        hosts["a"].cut()
        while len(hosts.dials) < 2:  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.01)
        with trio.move_on_after(100):
            await nc.reconnect()
        assert hosts.order == "aaa", "the one attempt, and then the usual wait"
        assert hosts.dials[2][1] - hosts.dials[1][1] == pytest.approx(2)
        await nc.reconnect()
        assert nc.is_connected


async def test_reconnecting_without_reconnects(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with watched(hosts, allow_reconnect=False) as (nc, rx):
        await nc.reconnect()
        seen = await until(rx, events.Reconnected)
        assert isinstance(seen[0], events.Disconnected)
        assert "reconnect() was called" in str(seen[0].reason)
        hosts["a"].cut()
        with pytest.raises(errors.UnexpectedEOF):
            await until_over(rx)


async def test_reconnecting_where_nobody_is_left(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with connected(hosts, max_reconnect_attempts=2) as nc:
        hosts["a"].accepting = False
        with pytest.raises(errors.ConnectionClosedError):
            await nc.reconnect()
        with pytest.raises(errors.ConnectionClosedError):
            await nc.reconnect()


async def test_a_cancelled_reconnect_goes_on_without_its_caller(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with connected(hosts) as nc:
        with trio.CancelScope() as scope:
            scope.cancel()
            await nc.reconnect()
        assert hosts.order == "a", "cancelled before it began: nothing happens"
        hosts["a"].dials = ["hang"]
        with trio.move_on_after(1):
            await nc.reconnect()
        await nc.wait_connected()
        assert hosts.order == "aaa"


# -- what is kept, and what is told ------------------------------------------------------------------------------------


async def test_c7_exactly_so_much_is_kept(autojump_clock: Clock) -> None:
    frame = len(b"PUB s 10\r\n\r\n") + 10
    hosts = Hosts("a")
    async with connected(hosts, pending_size=frame * 5) as nc:
        hosts["a"].accepting = False
        hosts["a"].cut()
        while nc.is_connected:  # noqa: ASYNC110 - nothing else tells of it in time
            await trio.sleep(0.001)
        for number in range(5):
            await nc.publish("s", b"%010d" % number)
        for _ in range(2):
            with pytest.raises(errors.OutboundBufferLimitError):
                await nc.publish("s", b"x")
            with pytest.raises(errors.OutboundBufferLimitError):
                nc.publish_nowait("s", b"x")
            with pytest.raises(errors.OutboundBufferLimitError):
                await nc.request("s", b"x")
        hosts["a"].accepting = True
        await nc.flush()
        assert [int(frame.payload) for frame in hosts["a"].sent("PUB", "s")] == list(range(5))


@pytest.mark.parametrize("size", [0, -1])
async def test_nothing_is_kept_where_nothing_may_be(autojump_clock: Clock, size: int) -> None:
    hosts = Hosts("a")
    async with watched(hosts, pending_size=size) as (nc, rx):
        for number in range(100):
            await nc.publish("s", b"%d" % number)
        await nc.flush()
        assert len(hosts["a"].sent("PUB", "s")) == 100
        hosts["a"].cut()
        await until(rx, events.Disconnected)
        with pytest.raises(errors.OutboundBufferLimitError):
            await nc.publish("s")
        await nc.wait_connected()
        await nc.publish("s")


async def test_c7_blocked_publishers_wake_when_it_gives_up(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with connected(hosts, allow_reconnect=False, pending_size=100) as nc:
        hosts["a"].link.stall(up=True)
        failures: list[Exception] = []

        async def publish() -> None:
            try:
                while True:
                    await nc.publish("s", b"x" * 50)
            except errors.Error as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(publish)
            await trio.testing.wait_all_tasks_blocked()
            hosts["a"].cut("reset")
        assert len(failures) == 3


async def test_c23_what_is_too_large_for_the_new_server_is_told_and_not_sent(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b")
    hosts["b"].info["max_payload"] = 10
    async with watched(hosts) as (nc, rx):
        hosts["a"].cut()
        await until(rx, events.Disconnected)
        for size in (5, 11, 10, 500):
            await nc.publish("s", b"x" * size)
        await nc.publish("s", b"x" * 5, headers={"Some": "header"})
        with nc.request_nowait("r", b"x" * 11) as too_large, nc.request_nowait("r", b"x") as small:
            hosts["b"].on("r", lambda _: b"ok")
            seen = await until(rx, events.PublishesTooLarge)
            assert seen[-1] == events.PublishesTooLarge(4, 10)
            assert (await small.wait()).data == b"ok"
            with pytest.raises(errors.MaxPayloadError):
                await too_large.wait()
        with pytest.raises(errors.MaxPayloadError):
            await nc.publish("s", b"x" * 11)
        await nc.flush()
        assert [len(frame.payload) for frame in hosts["b"].sent("PUB", "s")] == [5, 10]
        assert nc.statistics().outbox_bytes == 0
        assert nc.statistics().reconnects == 1


async def test_max_payload_follows_the_servers_word(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with connected(hosts) as nc:
        hosts["a"].inject(b'INFO {"max_payload":10}\r\n')
        await nc.flush()
        assert nc.max_payload == 10
        with pytest.raises(errors.MaxPayloadError, match="12 bytes of headers and payload"):
            await nc.publish("s", b"x" * 12)
        with pytest.raises(errors.MaxPayloadError):
            await nc.publish("s", b"", headers={"A": "b"})


async def test_c24_a_hundred_requests_in_flight_fail_at_once(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    hosts["a"].on("work", lambda _: None)
    async with connected(hosts) as nc:
        replies = [nc.request_nowait("work") for _ in range(100)]
        await nc.flush()
        start = trio.current_time()
        hosts["a"].cut("reset")
        for reply in replies:
            with pytest.raises(errors.DisconnectedError, match="request to 'work'"):
                await reply.wait()
        assert trio.current_time() - start < 0.01
        assert nc.statistics().pending_requests == 0


async def test_c6_frames_of_the_batch_being_sent_are_counted_and_told(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with watched(hosts) as (nc, rx):
        await nc.flush()
        hosts["a"].link.stall(up=True)
        for number in range(3):
            await nc.publish("s", b"%d" % number)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3, 6):
            await nc.publish("s", b"%d" % number)
        hosts["a"].cut("reset")
        seen = await until(rx, events.Reconnected)
        lost = [event.count for event in seen if isinstance(event, events.PublishesLost)]
        await nc.flush()
        got = [int(frame.payload) for frame in hosts["a"].sent("PUB", "s")]
        assert got == sorted(set(got))
        assert sum(lost) + len(got) == 6
        assert got[-3:] == [3, 4, 5]


async def test_c8_one_outage_is_one_reconnect(autojump_clock: Clock) -> None:
    """Pings that the old server left unanswered are not held against the new one, and its PONGs answer nobody's old flush."""
    hosts = Hosts("a")
    async with watched(hosts, ping_interval=20.0) as (nc, rx):
        hosts["a"].mute.add("PING")
        flushed: list[Exception] = []

        async def flush() -> None:
            try:
                with trio.move_on_after(HOUR):
                    await nc.flush()
            except errors.DisconnectedError as error:
                flushed.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            seen = await until(rx, events.Disconnected)
            assert isinstance(seen[-1], events.Disconnected)
            assert isinstance(seen[-1].reason, errors.StaleConnectionError)
            hosts["a"].mute.clear()
        assert len(flushed) == 1
        await trio.sleep(HOUR)
        assert nc.statistics().reconnects == 1
        assert nc.is_connected


async def test_c10_events_that_nobody_reads_delay_nothing(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with watched(hosts) as (nc, rx), trio.open_nursery() as nursery:
        async with open_subscription(nursery, nc, "s") as feed:
            for number in range(1100):
                hosts["a"].inject(b"-ERR 'something'\r\n")
                if number % 500 == 100:
                    await nc.flush()
                    hosts["a"].cut()
                    await nc.reconnect()
            await nc.flush()
            hosts["a"].publish("s", b"x")
            assert (await feed.receive()).data == b"x"
            assert rx.dropped > 0


@pytest.mark.parametrize("stage", ["dialling", "waiting", "greeting", "proving", "online"])
async def test_c12_closing_in_any_stage_is_immediate(autojump_clock: Clock, stage: str) -> None:
    hosts = Hosts("a")
    async with watched(hosts, reconnect_delay=lambda _: HOUR, connect_timeout=HOUR) as (nc, rx):
        server = hosts["a"]
        if stage == "dialling":
            server.dials = ["hang"]
        elif stage == "waiting":
            server.dials = ["refuse"]
        elif stage == "proving":
            server.mute.add("PING")
        if stage != "online":
            server.cut()
            await until(rx, events.Disconnected)
        await trio.sleep(5)
        start = trio.current_time()
        if stage == "proving":
            assert not nc.is_connected
        await nc.aclose()
        assert trio.current_time() == start
        assert nc.state is ConnectionState.CLOSED


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_c16_only_a_finished_login_counts(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with connected(hosts, max_reconnect_attempts=5) as nc:
        hosts["a"].authorize = lambda _: "maximum connections exceeded"
        hosts["a"].cut()
        with pytest.raises(errors.ConnectionClosedError):
            await until_closed(nc)
        assert len(hosts.dials) == 6


async def test_c17_the_same_refusal_twice_ends_it(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with connected(hosts, token="old") as nc:
        hosts["a"].authorize = lambda _: "Authorization Violation"
        hosts["a"].cut()
        with pytest.raises(errors.ConnectionClosedError):
            await until_closed(nc)
        assert len(hosts.dials) == 3
        assert isinstance(nc.last_error, errors.AuthorizationError)


async def test_c17_unless_it_is_told_to_go_on(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with watched(hosts, token="old", ignore_auth_error_abort=True, max_reconnect_attempts=-1) as (nc, rx):
        refusals = 0

        def authorize(_: dict[str, Any]) -> str | None:
            nonlocal refusals
            refusals += 1
            return "Authorization Violation" if refusals < 10 else None

        hosts["a"].authorize = authorize
        hosts["a"].cut()
        await until(rx, events.Reconnected)
        assert refusals == 10
        assert nc.is_connected


async def test_c19_limits_of_the_account_are_tried_again(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with watched(hosts) as (_, rx):
        refusals = iter(["maximum account active connections exceeded"] * 5)
        hosts["a"].authorize = lambda _: next(refusals, None)
        hosts["a"].cut()
        seen = await until(rx, events.Reconnected)
        assert sum(isinstance(event, events.ReconnectFailed) for event in seen) == 5


async def test_c20_an_error_that_closes_nothing_closes_nothing(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    hosts["a"].deny_publish = ("secret",)
    async with watched(hosts) as (nc, rx):
        for text in ("Invalid Subject", "maximum subscriptions exceeded", "something that nobody has heard of"):
            hosts["a"].inject(f"-ERR '{text}'\r\n".encode())
            event = await rx.receive()
            assert isinstance(event, events.ServerRefusal)
            assert text.lower() in str(event.error).lower()
        await nc.publish("secret")
        assert isinstance(await rx.receive(), events.PermissionViolation)
        await nc.flush()
        assert nc.statistics().reconnects == 0


# -- events and states -------------------------------------------------------------------------------------------------


async def test_states(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with watched(hosts) as (nc, rx):
        states = [nc.state]
        hosts["a"].cut()
        await until(rx, events.Disconnected)
        states.append(nc.state)
        assert "reconnecting" in repr(nc)
        await nc.wait_connected()
        states.append(nc.state)
    states.append(nc.state)
    assert [state.value for state in states] == ["connected", "reconnecting", "connected", "closed"]


async def test_every_state_and_what_tells_of_it(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    hosts["a"].dials = ["refuse"]
    told: list[tuple[str, ConnectionState]] = []
    async with watched(hosts, retry_on_failed_connect=True) as (nc, rx), trio.open_nursery() as nursery:

        async def listen() -> None:
            async for event in rx:
                told.append((type(event).__name__, nc.state))  # noqa: PERF401 - the state at that moment

        nursery.start_soon(listen)
        assert nc.state.value == "connecting"
        await nc.wait_connected()
        async with open_subscription(nursery, nc, "s"):
            await nc.flush()
            hosts["a"].cut()
            await trio.testing.wait_all_tasks_blocked()
            await nc.wait_connected()
            await trio.testing.wait_all_tasks_blocked()
            for state in (ConnectionState.DRAINING_SUBS, ConnectionState.DRAINING_PUBS):
                hosts["a"].mute.add("PING")
                nursery.start_soon(nc.drain)
                await trio.testing.wait_all_tasks_blocked()
                assert nc.state is state
                hosts["a"].inject(b"PONG\r\n")
            await nc.drain()
    assert told == [
        ("ReconnectFailed", ConnectionState.CONNECTING),
        ("Connected", ConnectionState.CONNECTED),
        ("Disconnected", ConnectionState.RECONNECTING),
        ("Reconnected", ConnectionState.CONNECTED),
        ("Draining", ConnectionState.DRAINING_SUBS),
        ("Closed", ConnectionState.CLOSED),
    ]


async def test_every_event_in_its_place(autojump_clock: Clock) -> None:
    hosts = Hosts("a", "b")
    async with watched(hosts, servers=["nats://a"]) as (nc, rx), trio.open_nursery() as nursery:
        tell(hosts["a"], "b:4222")
        hosts["a"].dials = ["refuse"]
        hosts["b"].dials = ["refuse"]
        hosts["a"].cut()
        seen = await until(rx, events.Reconnected)
        async with open_subscription(nursery, nc, "s", pending_msgs_limit=2, overflow="drop_new"):
            await nc.flush()
            here = hosts[nc.server_name]
            for _ in range(10):
                here.publish("s")
            here.inject(b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n-ERR 'oh'\r\n")
            seen += await until(rx, events.ServerRefusal)
        here.inject(b'INFO {"ldm":true}\r\n')
        seen += await until(rx, events.Moved)
        await nc.aclose()
        seen += [event async for event in rx]
        names = [type(event).__name__ for event in seen]
        assert names == [
            "ServersDiscovered",
            "Disconnected",
            "ReconnectFailed",
            "ReconnectFailed",
            "Reconnected",
            "SlowConsumer",
            "PermissionViolation",
            "ServerRefusal",
            "LameDuck",
            "Moved",
            "Closed",
        ]


async def test_statistics_go_on_across_reconnects(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with connected(hosts) as nc, trio.open_nursery() as nursery, open_subscription(nursery, nc, "s") as feed:
        for number in range(1, 4):
            await nc.publish("s", b"four", headers={"A": "b"})
            assert (await feed.receive()).data == b"four"
            now = nc.statistics()
            assert (now.in_msgs, now.out_msgs, now.reconnects) == (number, number, number - 1)
            assert now.in_bytes == now.out_bytes == number * len(b"NATS/1.0\r\nA: b\r\n\r\nfour")
            await nc.reconnect()


# -- subscriptions -----------------------------------------------------------------------------------------------------


async def test_c3_subscribing_while_it_comes_back_makes_no_sid_twice(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    async with connected(hosts) as nc, trio.open_nursery() as nursery, trio.open_nursery() as workers:

        async def hold(number: int) -> None:
            async with open_subscription(nursery, nc, f"s.{number}"):
                await trio.sleep_forever()

        for number in range(60):
            workers.start_soon(hold, number)
            if number % 10 == 5:
                hosts["a"].cut()
            await trio.lowlevel.checkpoint()
        await nc.wait_connected()
        await nc.flush()
        table = {s.sid: s.subject for s in hosts["a"].link.subscriptions.values()}
        assert sorted(table.values()) == sorted(f"s.{number}" for number in range(60))
        assert len(table) == 60
        workers.cancel_scope.cancel()


# -- names with several addresses --------------------------------------------------------------------------------------


class Resolver(trio.abc.HostnameResolver):
    """A name with several addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def getaddrinfo(
        self,
        host: object,
        port: object,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the interface's
        proto: int = 0,
        flags: int = 0,
    ) -> Any:  # noqa: ANN401 - the interface's
        await trio.lowlevel.checkpoint()
        kind = (trio.socket.AF_INET, trio.socket.SOCK_STREAM, 0, "")
        return [(*kind, (address, port)) for address in self._addresses]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise NotImplementedError


class Socket(trio.socket.SocketType):
    """A socket that goes nowhere: it knows only how connecting ends."""

    answers: dict[str, str] = {}  # noqa: RUF012 - each test sets it
    tried: list[tuple[str, float]] = []  # noqa: RUF012 - each test sets it

    type = trio.socket.SOCK_STREAM

    def __init__(self) -> None:
        self.closed = False

    def setsockopt(self, *_: object) -> None: ...

    def close(self) -> None:
        self.closed = True

    async def connect(self, address: tuple[str, int]) -> None:
        self.tried.append((address[0], trio.current_time()))
        match self.answers.get(address[0]):
            case "refuse":
                raise ConnectionRefusedError(111, f"{address[0]} refuses")
            case "hang":
                await trio.sleep_forever()
        await trio.lowlevel.checkpoint()


class Factory(trio.abc.SocketFactory):
    def socket(self, family: object = None, type: object = None, proto: object = None) -> Socket:  # noqa: A002 - as above
        return Socket()


@asynccontextmanager
async def resolving(*addresses: str, **answers: str) -> AsyncIterator[None]:
    before = trio.socket.set_custom_hostname_resolver(Resolver(*addresses))
    factory = trio.socket.set_custom_socket_factory(Factory())
    Socket.answers = {address.replace("_", "."): answer for address, answer in answers.items()}
    Socket.tried = []
    try:
        yield
    finally:
        trio.socket.set_custom_hostname_resolver(before)
        trio.socket.set_custom_socket_factory(factory)


ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")


async def test_addresses_are_tried_in_turn_and_split_the_time(autojump_clock: Clock) -> None:
    """ADR-11."""
    async with resolving(*ADDRESSES, **{"10.0.0.1": "hang", "10.0.0.2": "refuse", "10.0.0.3": "hang"}):
        start = trio.current_time()
        with trio.fail_after(4):
            stream = await dial_tcp("many", 4222)
        assert isinstance(stream, trio.SocketStream)
        tried = [(address, when - start) for address, when in Socket.tried]
        assert tried == [("10.0.0.1", 0), ("10.0.0.2", 1), ("10.0.0.3", 1), ("10.0.0.4", pytest.approx(2.5))]


async def test_addresses_are_shuffled(autojump_clock: Clock) -> None:
    firsts = set()
    async with resolving(*ADDRESSES):
        for seed in range(50):
            Socket.tried = []
            await dial_tcp("many", 4222, rng=random.Random(seed))
            firsts.add(Socket.tried[0][0])
        assert firsts == set(ADDRESSES)


async def test_no_address_answers(autojump_clock: Clock) -> None:
    async with resolving(*ADDRESSES, **dict.fromkeys(ADDRESSES, "refuse")):
        with pytest.raises(OSError, match=r"10\.0\.0\.4 refuses"):
            await dial_tcp("many", 4222)


async def test_a_client_shuffles_addresses_unless_told_not_to(autojump_clock: Clock) -> None:
    async with resolving(*ADDRESSES, **dict.fromkeys(ADDRESSES, "refuse")):
        orders = set()
        for seed in range(20):
            Socket.tried = []
            async with trio.open_nursery() as nursery:
                with pytest.raises(errors.NoServersError):
                    async with open_client(nursery, "nats://many", rng=random.Random(seed), dont_randomize=seed >= 10):
                        pass
            order = tuple(address for address, _ in Socket.tried)
            if seed >= 10:
                assert order == ADDRESSES
            orders.add(order)
        assert len(orders) > 3


async def test_a_dialler_of_ones_own(autojump_clock: Clock) -> None:
    """Whatever returns a stream: in-process servers, local addresses, tunnels."""
    hosts = Hosts("a")
    asked: list[Frame] = []
    hosts["a"].on("q", asked.append)
    async with connected(hosts, dial=hosts.dial) as nc:
        with pytest.raises(errors.TimeoutError):
            await nc.request("q")
        assert len(asked) == 1


async def test_a_dialler_that_fails_in_its_own_way_fails_the_attempt_only(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    failures: list[Exception | None] = [trio.TooSlowError("mine"), KeyError("mine"), OSError("mine"), None]

    async def dial(host: str, port: int) -> Any:  # noqa: ANN401 - whatever the user gives
        if not hosts.dials or not failures:
            return await hosts.dial(host, port)
        if (failure := failures.pop(0)) is not None:
            raise failure
        return None

    async with watched(hosts, dial=dial) as (nc, rx):
        hosts["a"].cut()
        seen = await until(rx, events.Reconnected)
        reasons = [str(event.reason) for event in seen if isinstance(event, events.ReconnectFailed)]
        assert reasons == [
            "dial failed: TooSlowError: mine",
            "dial failed: KeyError: 'mine'",
            "mine",
            "dial failed: it returned no trio.abc.Stream but NoneType",
        ]
        assert nc.is_connected


@pytest.mark.parametrize("keep", [False, True])
async def test_a_client_shuffles_its_servers_unless_told_not_to(autojump_clock: Clock, keep: bool) -> None:
    firsts = set()
    for seed in range(30):
        hosts = Hosts("a", "b", "c")
        async with connected(hosts, dont_randomize=keep, rng=random.Random(seed)):
            firsts.add(hosts.order)
    assert firsts == ({"a"} if keep else {"a", "b", "c"})


async def test_what_the_server_is_told_of_us_and_our_wishes(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    fields = ("name", "verbose", "pedantic", "echo")
    async with connected(hosts, name="me", verbose=True, pedantic=True, no_echo=True):
        assert [hosts["a"].link.options[field] for field in fields] == ["me", True, True, False]
    async with connected(hosts):
        assert [hosts["a"].link.options.get(field) for field in fields] == [None, False, False, True]


async def test_no_subject_from_outside_makes_a_line_of_its_own(autojump_clock: Clock) -> None:
    """CR, LF, spaces and tabs in a subject, a reply, a queue: in each call that takes one, refused before anything is queued."""
    hosts = Hosts("a")
    async with connected(hosts) as nc, trio.open_nursery() as nursery:
        await nc.flush()
        before = bytes(hosts["a"].link.received)
        for evil in ("a\r\nPUB b 0\r\n\r\n", "a b", "a\tb", "a\nb", "", "a..b", ".a", "a."):
            calls: list[Callable[[], Any]] = [
                partial(nc.publish, evil),
                partial(nc.request, evil),
                partial(nc.request_many, evil, max_msgs=1),
                open_subscription(nursery, nc, evil).__aenter__,
                open_replies(nursery, nc, evil, b"").__aenter__,
            ]
            if evil:
                calls.append(partial(nc.publish, "a", b"", evil))
            if set(evil) & set(" \r\n\t"):
                calls.append(open_subscription(nursery, nc, "a", queue=evil).__aenter__)
            for call in calls:
                with pytest.raises(errors.BadSubjectError):
                    await call()
        await trio.testing.wait_all_tasks_blocked()
        assert hosts["a"].link.received == before
