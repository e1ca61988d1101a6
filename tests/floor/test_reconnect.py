"""A connection that is missing: when the client is given, what is kept and what is told, and reconnects that are asked for."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.fakes import FakeServer
from tests.worlds import (
    HOUR,
    Hosts,
    collect,
    connected,
    events_until,
    lose,
    open_world,
    reconnected,
    regain,
    seam,
    settled,
    watched,
)
from trionats import errors, events, open_events, open_subscription
from trionats.events import ConnectionState, PublishesLost, PublishesTooLarge, Reconnected, ReconnectFailed

pytestmark = pytest.mark.usefixtures("autojump_clock")


def names(seen: list[events.ConnectionEvent]) -> list[str]:
    return [type(event).__name__ for event in seen]


async def test_retry_on_failed_connect_gives_the_client_at_once() -> None:
    hosts = Hosts("a")
    hosts["a"].dials = ["refuse", "hang", "refuse"]
    async with watched(hosts, retry_on_failed_connect=True) as (_, nc, rx):
        assert trio.current_time() - hosts.start == 0
        assert (nc.state, nc.is_connected, nc.connected_url) == (ConnectionState.CONNECTING, False, None)
        await nc.publish("early", b"1")
        async with trio.open_nursery() as nursery, open_subscription(nursery, nc, "s") as feed:
            assert names(await events_until(rx, events.Connected)) == ["ReconnectFailed"] * 3 + ["Connected"]
            assert nc.state is ConnectionState.CONNECTED
            await nc.flush()
            hosts["a"].publish("s", b"2")
            assert (await feed.receive()).data == b"2"
        assert [frame.payload for frame in hosts["a"].sent("PUB", "early")] == [b"1"]
        assert nc.statistics().reconnects == 0


async def test_retry_on_failed_connect_gives_up_in_the_end() -> None:
    hosts = Hosts("a", "b")
    hosts["a"].accepting = hosts["b"].accepting = False
    async with connected(hosts, retry_on_failed_connect=True, max_reconnect_attempts=3) as nc:
        with pytest.raises(errors.ConnectionClosedError, match=r"no server left to try: nats://a:4222 \(3 x"):
            await nc.wait_connected()
        assert nc.state is ConnectionState.CLOSED
        assert isinstance(nc.last_error, errors.NoServersError)
    assert sorted(hosts.order) == list("aaabbb")


async def test_leaving_before_the_first_connection_loses_and_tells() -> None:
    hosts = Hosts("a")
    hosts["a"].accepting = False
    async with trio.open_nursery() as nursery, watched(hosts, retry_on_failed_connect=True) as (_, nc, rx):
        await nc.publish("early")
        nursery.start_soon(nc.aclose)
        assert PublishesLost(1) in await events_until(rx, events.Closed)


async def test_reconnects_asked_for_at_once_are_one() -> None:
    hosts = Hosts("a", "b")
    async with connected(hosts) as nc:
        for cycle in range(1, 4):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(nc.reconnect)
            assert (nc.statistics().reconnects, len(hosts.dials)) == (cycle, cycle + 1)
        assert hosts.order == "abab"
        assert trio.current_time() - hosts.start == 0, "and nobody waits"


@pytest.mark.parametrize("taken", ["at once", "slowly", "never"])
async def test_reconnecting_loses_nothing_that_was_published_and_keeps_the_order(taken: str) -> None:
    hosts = Hosts("a", "b")
    numbers = [b"%d" % number for number in range(3)]
    async with watched(hosts) as (_, nc, rx):
        link = hosts["a"].link
        if taken != "at once":
            link.stall(up=True)
        for number in numbers:
            await nc.publish("before", number)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nc.reconnect)
            await settled()
            if taken == "slowly":
                await trio.sleep(0.9)
                assert nc.connected_url == "nats://a:4222"
                for number in numbers:
                    await nc.publish("meanwhile", number)
                link.resume()
        assert nc.connected_url == "nats://b:4222"
        await nc.publish("after")
        await nc.flush()
        lost = [event for event in await events_until(rx, Reconnected) if isinstance(event, PublishesLost)]
        on_a, on_b = ([(f.subject, f.payload) for f in hosts[name].sent("PUB")] for name in "ab")
        if taken == "never":
            # It is told, and it took no longer than it was to.
            assert (on_a, lost) == ([], [PublishesLost(3)])
            assert trio.current_time() - start == pytest.approx(1.0)
        else:
            assert (on_a, lost) == ([("before", number) for number in numbers], [])
        meanwhile = [("meanwhile", number) for number in numbers] if taken == "slowly" else []
        assert on_b == [*meanwhile, ("after", b"")]


async def test_reconnecting_ends_a_wait_and_during_a_dial_skips_the_one_behind_it() -> None:
    async with watched(Hosts("a"), reconnect_delay=lambda _: HOUR, connect_timeout=2) as (hosts, nc, rx):
        hosts["a"].dials = ["refuse"]
        hosts["a"].cut()
        await events_until(rx, ReconnectFailed)
        await nc.reconnect()
        assert nc.is_connected
        assert trio.current_time() - hosts.start < 5
        del hosts.dials[1:]
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


async def test_reconnecting_without_reconnects() -> None:
    async with watched(Hosts("a"), allow_reconnect=False) as (hosts, nc, rx):
        await nc.reconnect()
        gone = (await events_until(rx, Reconnected))[0]
        assert isinstance(gone, events.Disconnected)
        assert "reconnect() was called" in str(gone.reason)
        hosts["a"].cut()
        with pytest.raises(errors.UnexpectedEOF):
            await collect(rx, [])


async def test_a_cancelled_reconnect_goes_on_without_its_caller_and_fails_where_nobody_is_left() -> None:
    hosts = Hosts("a")
    async with connected(hosts, max_reconnect_attempts=2) as nc:
        with trio.CancelScope() as scope:
            scope.cancel()
            await nc.reconnect()
        assert hosts.order == "a", "cancelled before it began: nothing happens"
        hosts["a"].dials = ["hang"]
        with trio.move_on_after(1):
            await nc.reconnect()
        await nc.wait_connected()
        assert hosts.order == "aaa"
        hosts["a"].accepting = False
        for _ in range(2):
            with pytest.raises(errors.ConnectionClosedError):
                await nc.reconnect()


async def test_exactly_so_much_is_kept() -> None:
    server = FakeServer()
    async with connected(server, pending_size=5 * len(b"PUB s 10\r\n0123456789\r\n")) as nc:
        await lose(server, nc)
        for number in range(5):
            await nc.publish("s", b"%010d" % number)
        with pytest.raises(errors.OutboundBufferLimitError):
            nc.publish_nowait("s", b"x")
        for call in (nc.publish, nc.request) * 2:
            with pytest.raises(errors.OutboundBufferLimitError):
                await call("s", b"x")
        await regain(server, nc)
        assert [int(frame.payload) for frame in server.sent("PUB", "s")] == list(range(5))


@pytest.mark.parametrize("size", [0, -1])
async def test_nothing_is_kept_where_nothing_may_be(size: int) -> None:
    async with watched(Hosts("a"), pending_size=size) as (hosts, nc, rx):
        for number in range(100):
            await nc.publish("s", b"%d" % number)
        await nc.flush()
        assert len(hosts["a"].sent("PUB", "s")) == 100
        hosts["a"].cut()
        await events_until(rx, events.Disconnected)
        with pytest.raises(errors.OutboundBufferLimitError):
            await nc.publish("s")
        await nc.wait_connected()
        await nc.publish("s")


async def test_blocked_publishers_wake_when_it_gives_up() -> None:
    async with open_world(allow_reconnect=False, pending_size=100) as (server, nc, _):
        server.link.stall(up=True)
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
            await settled()
            server.cut("reset")
        assert len(failures) == 3


async def test_what_is_too_large_for_the_new_server_is_told_and_not_sent() -> None:
    hosts = Hosts("a", "b")
    hosts["b"].info["max_payload"] = 10
    async with watched(hosts) as (_, nc, rx):
        hosts["a"].cut()
        await events_until(rx, events.Disconnected)
        for size in (5, 11, 10, 500):
            await nc.publish("s", b"x" * size)
        await nc.publish("s", b"x" * 5, headers={"Some": "header"})
        with nc.request_nowait("r", b"x" * 11) as too_large, nc.request_nowait("r", b"x") as small:
            hosts["b"].on("r", lambda _: b"ok")
            assert (await events_until(rx, PublishesTooLarge))[-1] == PublishesTooLarge(4, 10)
            assert (await small.wait()).data == b"ok"
            with pytest.raises(errors.MaxPayloadError):
                await too_large.wait()
        with pytest.raises(errors.MaxPayloadError):
            await nc.publish("s", b"x" * 11)
        await nc.flush()
        assert [len(frame.payload) for frame in hosts["b"].sent("PUB", "s")] == [5, 10]
        assert (nc.statistics().outbox_bytes, nc.statistics().reconnects) == (0, 1)


async def test_a_hundred_requests_in_flight_fail_at_once() -> None:
    async with open_world() as (server, nc, _):
        server.on("work", lambda _: None)
        replies = [nc.request_nowait("work") for _ in range(100)]
        await nc.flush()
        start = trio.current_time()
        server.cut("reset")
        for reply in replies:
            with pytest.raises(errors.DisconnectedError, match="request to 'work'"):
                await reply.wait()
        assert trio.current_time() - start < 0.01
        assert nc.statistics().pending_requests == 0


async def test_frames_of_the_batch_being_sent_are_counted_and_told() -> None:
    async with watched(Hosts("a")) as (hosts, nc, rx):
        await nc.flush()
        hosts["a"].link.stall(up=True)
        for batch in (range(3), range(3, 6)):
            for number in batch:
                await nc.publish("s", b"%d" % number)
            if batch[0] == 0:
                await settled()
        hosts["a"].cut("reset")
        lost = [event.count for event in await events_until(rx, Reconnected) if isinstance(event, PublishesLost)]
        await nc.flush()
        got = [int(frame.payload) for frame in hosts["a"].sent("PUB", "s")]
        assert got == sorted(set(got))
        assert sum(lost) + len(got) == 6
        assert got[-3:] == [3, 4, 5]


async def test_publishes_across_outages_keep_their_order() -> None:
    async with watched() as (server, nc, rx):
        for number in range(300):
            await nc.publish("n", b"%d" % number)
            if number % 50 == 25:
                server.cut("reset")
            if number % 10 == 0:
                await trio.sleep(0.05)
        await reconnected(nc)
        got = [int(frame.payload) for frame in server.sent("PUB", "n")]
        assert got == sorted(set(got))
        rx.stop()
        lost = sum([event.count async for event in rx if isinstance(event, PublishesLost)])
        assert len(set(range(300)) - set(got)) <= lost


async def test_one_outage_is_one_reconnect() -> None:
    """Pings that the old server left unanswered are not held against the new one, and its PONGs answer nobody's old flush."""
    async with watched(Hosts("a"), ping_interval=20.0) as (hosts, nc, rx):
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
            gone = (await events_until(rx, events.Disconnected))[-1]
            assert isinstance(gone, events.Disconnected)
            assert isinstance(gone.reason, errors.StaleConnectionError)
            hosts["a"].mute.clear()
        assert len(flushed) == 1
        await trio.sleep(HOUR)
        assert nc.statistics().reconnects == 1
        assert nc.is_connected


async def test_events_that_nobody_reads_delay_nothing() -> None:
    async with watched(Hosts("a")) as (hosts, nc, rx), trio.open_nursery() as nursery:
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
async def test_closing_in_any_stage_is_immediate(stage: str) -> None:
    async with watched(Hosts("a"), reconnect_delay=lambda _: HOUR, connect_timeout=HOUR) as (hosts, nc, rx):
        server = hosts["a"]
        server.dials = {"dialling": ["hang"], "waiting": ["refuse"]}.get(stage, [])  # type: ignore[assignment]
        server.mute |= {"PING"} if stage == "proving" else set()
        if stage != "online":
            server.cut()
            await events_until(rx, events.Disconnected)
        await trio.sleep(5)
        start = trio.current_time()
        assert stage != "proving" or not nc.is_connected
        await nc.aclose()
        assert trio.current_time() == start
        assert nc.state is ConnectionState.CLOSED


async def test_reconnect_replays_subscriptions_and_what_is_left_of_them() -> None:
    async with (
        open_world() as (server, nc, nursery),
        open_subscription(nursery, nc, "plain.*") as plain,
        open_subscription(nursery, nc, "queued", queue="q") as queued,
        open_subscription(nursery, nc, "limited", max_msgs=10) as limited,
    ):
        await nc.flush()
        for _ in range(4):
            server.publish("limited", b"x")
        await nc.flush()
        before = [(s.sid, s.subject, s.queue) for s in server.subscriptions]
        assert [row[1:] for row in before] == [("plain.*", ""), ("queued", "q"), ("limited", "")]
        for outage in range(1, 4):
            server.cut("reset" if outage % 2 else "eof")
            await reconnected(nc, outage)
            assert [(s.sid, s.subject, s.queue) for s in server.subscriptions] == before
            assert len(server.sent("CONNECT")) == outage + 1
        for _ in range(20):
            server.publish("limited", b"y")
        server.publish("plain.a", b"1")
        server.publish("queued", b"2")
        assert [msg.data async for msg in limited] == [b"x"] * 4 + [b"y"] * 6
        assert ((await plain.receive()).data, (await queued.receive()).data) == (b"1", b"2")
        assert len(plain) == len(queued) == 0


async def test_subscribing_while_it_comes_back_makes_no_sid_twice() -> None:
    async with open_world() as (server, nc, nursery), trio.open_nursery() as workers:

        async def hold(number: int) -> None:
            async with open_subscription(nursery, nc, f"s.{number}"):
                await trio.sleep_forever()

        for number in range(60):
            workers.start_soon(hold, number)
            if number % 10 == 5:
                server.cut()
            await trio.lowlevel.checkpoint()
        await nc.wait_connected()
        await nc.flush()
        table = {s.sid: s.subject for s in server.link.subscriptions.values()}
        assert sorted(table.values()) == sorted(f"s.{number}" for number in range(60))
        assert len(table) == 60
        workers.cancel_scope.cancel()


async def test_every_state_and_what_tells_of_it() -> None:
    hosts = Hosts("a")
    hosts["a"].dials = ["refuse"]
    told: list[tuple[str, ConnectionState]] = []
    async with watched(hosts, retry_on_failed_connect=True) as (_, nc, rx), trio.open_nursery() as nursery:

        async def listen() -> None:
            async for event in rx:
                told.append((type(event).__name__, nc.state))  # noqa: PERF401 - the state at that moment

        def state() -> str:
            return nc.state.value

        nursery.start_soon(listen)
        assert state() == "connecting"
        await nc.wait_connected()
        assert state() == "connected"
        async with open_subscription(nursery, nc, "s"):
            await nc.flush()
            hosts["a"].cut()
            await settled()
            assert state() == "reconnecting"
            assert "reconnecting" in repr(nc)
            await nc.wait_connected()
            await settled()
            for draining in ("draining subscriptions", "draining publishes"):
                hosts["a"].mute.add("PING")
                nursery.start_soon(nc.drain)
                await settled()
                assert state() == draining
                hosts["a"].inject(b"PONG\r\n")
            await nc.drain()
        assert state() == "closed"
    assert [(name, state.name) for name, state in told] == [
        *(("ReconnectFailed", "CONNECTING"), ("Connected", "CONNECTED"), ("Disconnected", "RECONNECTING")),
        *(("Reconnected", "CONNECTED"), ("Draining", "DRAINING_SUBS"), ("Closed", "CLOSED")),
    ]


async def test_every_event_in_its_place() -> None:
    async with watched(Hosts("a", "b"), "nats://a") as (hosts, nc, rx), trio.open_nursery() as nursery:
        hosts["a"].inject(b'INFO {"connect_urls":["b:4222"]}\r\n')
        hosts["a"].dials = ["refuse"]
        hosts["b"].dials = ["refuse"]
        hosts["a"].cut()
        seen = await events_until(rx, Reconnected)
        async with open_subscription(nursery, nc, "s", pending_msgs_limit=2, overflow="drop_new"):
            await nc.flush()
            here = hosts[nc.server_name]
            for _ in range(10):
                here.publish("s")
            here.inject(b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n-ERR 'oh'\r\n")
            seen += await events_until(rx, events.ServerRefusal)
        here.inject(b'INFO {"ldm":true}\r\n')
        seen += await events_until(rx, events.Moved)
        await nc.aclose()
        seen += [event async for event in rx]
    assert names(seen) == [
        *("ServersDiscovered", "Disconnected", "ReconnectFailed", "ReconnectFailed", "Reconnected", "SlowConsumer"),
        *("PermissionViolation", "ServerRefusal", "LameDuck", "Moved", "Closed"),
    ]


async def test_allow_reconnect_false_makes_the_first_loss_the_end() -> None:
    async with (
        open_world(allow_reconnect=False) as (server, nc, nursery),
        open_subscription(nursery, nc, "a") as rx,
        open_events(nursery, nc) as told,
    ):
        await nc.flush()
        server.publish("a", b"buffered")
        server.link.error("Authorization Violation", fatal=True)
        assert (await rx.receive()).data == b"buffered"
        with pytest.raises(errors.AuthorizationError, match="Authorization Violation"):
            await rx.receive()
        assert names([await told.receive() for _ in range(3)]) == ["ServerRefusal", "Disconnected", "Closed"]
        with pytest.raises(errors.AuthorizationError):
            await told.receive()
        calls: list[Any] = [nc.flush, nc.wait_connected, nc.wait_writable, nc.rtt]
        calls += [lambda: nc.publish("a"), lambda: nc.request("a"), open_subscription(nursery, nc, "a").__aenter__]
        for call in calls:
            with pytest.raises(errors.ConnectionClosedError, match="Authorization Violation") as caught:
                await call()
            assert isinstance(caught.value.__cause__, errors.AuthorizationError)
        async with open_events(nursery, nc) as late:
            assert isinstance(await late.receive(), events.Closed)
            with pytest.raises(errors.AuthorizationError):
                await late.receive()
        seam(nc).publish_aside("a")
    assert len(server.dialled) == 1


async def test_max_payload_and_all_of_info_follow_the_servers_word_and_a_reconnect() -> None:
    async with watched() as (server, nc, rx):
        server.inject(b'INFO {"max_payload":9}\r\n')
        await nc.flush()
        assert nc.max_payload == 9
        with pytest.raises(errors.MaxPayloadError, match="12 bytes of headers and payload"):
            await nc.publish("s", b"x" * 12)
        with pytest.raises(errors.MaxPayloadError):
            await nc.publish("s", b"", headers={"A": "b"})
        server.info |= {"max_payload": 10, "server_id": "OTHER", "ldm": True}
        server.cut()
        await reconnected(nc)
        assert (nc.max_payload, nc.server_id) == (10, "OTHER")
        with pytest.raises(errors.MaxPayloadError, match="11 bytes of headers and payload, the server takes 10"):
            await nc.publish("a", bytes(11))
        await nc.publish("a", bytes(10))
        assert names([await rx.receive() for _ in range(3)]) == ["Disconnected", "Reconnected", "LameDuck"]


async def test_statistics_go_on_across_reconnects() -> None:
    async with open_world() as (_, nc, nursery), open_subscription(nursery, nc, "s") as feed:
        for number in range(1, 4):
            await nc.publish("s", b"four", headers={"A": "b"})
            assert (await feed.receive()).data == b"four"
            now = nc.statistics()
            assert (now.in_msgs, now.out_msgs, now.reconnects) == (number, number, number - 1)
            assert now.in_bytes == now.out_bytes == number * len(b"NATS/1.0\r\nA: b\r\n\r\nfour")
            await nc.reconnect()
