"""Connecting, staying connected and giving up: against a server in memory, on a clock that jumps."""

from __future__ import annotations

import itertools
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.fakes import FakeServer, cut_frame
from trionats import errors, events, open_client, open_events, open_subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trionats import Client, Feed, Msg

INFO = b'INFO {"server_id":"S","max_payload":1048576,"headers":true}\r\n'
HOUR = 3600.0
DENIED = "Authorization Violation"


@asynccontextmanager
async def connected(server: FakeServer, **options: Any) -> AsyncIterator[Client]:  # noqa: ANN401 - any option
    options.setdefault("dial", server.dial)
    # Pings go on for ever, so that a clock that jumps would too.
    with trio.fail_after(10 * HOUR):
        async with trio.open_nursery() as nursery, open_client(nursery, "nats://fake", **options) as nc:
            yield nc
    server.check()


async def refusal(servers: str | list[str] = "nats://fake", **options: Any) -> Exception:  # noqa: ANN401 - any option
    """Open a client that cannot be opened; say why, and see that nothing is left."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(errors.Error) as caught:
            async with open_client(nursery, servers, **options):
                pytest.fail("it was opened")
        assert not nursery.child_tasks
    return caught.value


def first(server: FakeServer, *greetings: bytes | None) -> Callable[[str, int], Awaitable[trio.abc.Stream]]:
    """A `dial` that gives these greetings first, each followed by the end of the stream, and then the server.

    None, in place of a greeting, is a server that says nothing; a greeting that ends with "..." leaves the stream open.
    """
    left = list(greetings)
    peers = []

    async def dial(host: str, port: int) -> trio.abc.Stream:
        if not left:
            return await server.dial(host, port)
        ours, theirs = trio.testing.memory_stream_pair()
        greeting = left.pop(0)
        peers.append(theirs)
        if greeting is not None:
            await theirs.send_all(greeting.removesuffix(b"..."))
            if not greeting.endswith(b"..."):
                await theirs.send_eof()
        return ours

    return dial


async def back(nc: Client, times: int = 1) -> None:
    """Wait until the connection came back so often."""
    with trio.fail_after(HOUR):
        while nc.statistics().reconnects < times or not nc.is_connected:  # noqa: ASYNC110 - on a clock that jumps
            await trio.sleep(0.01)


# -- the first connection ----------------------------------------------------------------------------------------------


async def test_connect_then_ping_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server, name="me", user="u", password="p") as nc:
        assert [frame.verb for frame in server.frames] == ["CONNECT", "PING"]
        assert (nc.is_connected, nc.is_closed, nc.last_error) == (True, False, None)
        assert server.link.options["name"] == "me"
        assert (server.link.options["user"], server.link.options["pass"]) == ("u", "p")
    assert nc.is_closed
    assert not nc.is_connected
    assert nc.connected_url is None


@pytest.mark.parametrize("stage", ["no accept", "no INFO", "half an INFO", "no PONG"])
async def test_connect_timeout_covers_each_stage(autojump_clock: trio.testing.MockClock, stage: str) -> None:
    server = FakeServer()
    dial = server.dial
    if stage == "no accept":
        server.dials = ["hang"]
    elif stage == "no INFO":
        dial = first(server, None)  # type: ignore[assignment]
    elif stage == "half an INFO":
        dial = first(server, INFO[:20] + b"...")  # type: ignore[assignment]
    else:
        server.mute = {"PING"}
    start = trio.current_time()
    error = await refusal(dial=dial, connect_timeout=3)
    assert trio.current_time() - start == pytest.approx(3)
    assert isinstance(error, errors.NoServersError)
    silent = "connected, but the server said nothing within 3 s; is this a NATS client port (4222, not 8222)?"
    said = silent if "INFO" in stage else "no connection within 3 s"
    assert str(error) == f"no server could be reached: nats://fake:4222: {said}"
    assert all(link.closed for link in server.links)


async def test_each_server_is_tried_once(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.dials = ["refuse", "hang", "accept"]
    async with trio.open_nursery() as nursery:
        servers = ["nats://a", "nats://b:1", "nats://c"]
        async with open_client(nursery, servers, dial=server.dial, dont_randomize=True) as nc:
            assert server.dialled == [("a", 4222), ("b", 1), ("c", 4222)]
            assert nc.connected_url == "nats://c:4222"


async def test_no_server_there(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.dials = ["refuse", "hang"]
    error = await refusal(["nats://u:secret@a", "nats://b"], dial=server.dial, dont_randomize=True)
    assert isinstance(error, errors.NoServersError)
    text = str(error)
    assert "nats://a:4222: [Errno 111]" in text
    assert "nats://b:4222: no connection within 2 s" in text
    assert "secret" not in text


async def test_wrong_password(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer(authorize=lambda options: None if options.get("pass") == "right" else DENIED)
    error = await refusal(dial=server.dial, user="u", password="wrong-one")
    assert isinstance(error, errors.AuthorizationError)
    assert "nats://fake:4222" in str(error)
    assert DENIED in str(error)
    assert "wrong-one" not in str(error)
    assert all(link.closed for link in server.links)


async def test_not_one_byte_of_connect_to_a_server_that_demands_tls(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer(info={"tls_required": True})
    error = await refusal(dial=server.dial, user="u", password="p")
    assert "fake:4222" in str(error)
    assert b"CONNECT" not in server.link.received
    assert server.link.closed


GARBAGE = {
    "garbage": b"\x00\x01\x02 what?\r\n",
    "no JSON": b"INFO {oops\r\n",
    "no object": b"INFO []\r\n",
    "a TLS alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "the end at once": b"",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "PING before INFO": b"PING\r\n",
    "a refusal before INFO": b"-ERR 'maximum connections exceeded'\r\n",
    "a refusal after INFO": INFO + b"-ERR 'maximum connections exceeded'\r\n",
    "the end after INFO": INFO,
    "half an INFO": INFO[:15],
    "a long line": b"A" * 200_000,
    "odd numbers": b'INFO {"max_payload":"many","connect_urls":7,"proto":null}\r\n',
    "infinite numbers": b'INFO {"max_payload":Infinity,"client_id":[]}\r\n',
    "a welcome and the end of it": INFO + b"-ERR 'Slow Consumer'\r\n",
}


@pytest.mark.parametrize("greeting", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_moves_on_to_the_next_attempt(autojump_clock: trio.testing.MockClock, greeting: bytes) -> None:
    server = FakeServer()
    alone = await refusal(dial=first(server, greeting), dont_randomize=True)
    assert "fake:4222" in str(alone) or isinstance(alone, errors.ProtocolError)
    assert not server.links
    options = {"dial": first(server, greeting, greeting), "dont_randomize": True, "reconnect_time_wait": 0.1}
    async with trio.open_nursery() as nursery:
        async with open_client(nursery, "a,b,c", **options) as nc:  # type: ignore[arg-type]
            assert nc.connected_url == "nats://c:4222"


@pytest.mark.parametrize("greeting", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_on_a_reconnect(autojump_clock: trio.testing.MockClock, greeting: bytes) -> None:
    server = FakeServer()
    dials: list[Callable[[str, int], Awaitable[trio.abc.Stream]]] = [server.dial]

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return await dials[0](host, port)

    async with connected(server, dial=dial) as nc, trio.open_nursery() as nursery:
        async with open_events(nursery, nc) as told:
            dials[0] = first(server, greeting, greeting)
            server.cut()
            await back(nc)
            seen = [await told.receive() for _ in range(4)]
            assert [type(event).__name__ for event in seen] == [
                "Disconnected",
                "ReconnectFailed",
                "ReconnectFailed",
                "Reconnected",
            ]
            await nc.flush()


async def test_what_the_server_sends_behind_its_welcome(autojump_clock: trio.testing.MockClock) -> None:
    """INFO coalesced with the PONG counts, max_payload included (nats.go 41c5d2b0)."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return ours

    async def serve() -> None:
        await theirs.send_all(INFO)
        assert (await theirs.receive_some()).startswith(b"CONNECT ")
        await theirs.send_all(b'PONG\r\nINFO {"max_payload":3,"connect_urls":["other:1"]}\r\n')

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_client(nursery, dial=dial, close_timeout=1) as nc:
            assert nc.max_payload == 3
            assert nc.server_info["server_id"] == "S"
            with pytest.raises(errors.MaxPayloadError):
                await nc.publish("a", b"1234")


async def test_a_refusal_right_behind_the_welcome_loses_no_flush(autojump_clock: trio.testing.MockClock) -> None:
    """The phase is online for the moment in which the wire is closed: who flushes then must be told."""
    server = FakeServer()
    results: list[object] = []

    class Stream(trio.abc.Stream):
        """Welcomes and refuses in one segment, and takes its time to close."""

        def __init__(self) -> None:
            self.texts = [INFO, b"PONG\r\n-ERR 'Slow Consumer'\r\n"]

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.lowlevel.checkpoint()

        async def wait_send_all_might_not_block(self) -> None:
            await trio.lowlevel.checkpoint()

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            return self.texts.pop(0)

        async def aclose(self) -> None:
            try:
                await flush()
            finally:
                await trio.lowlevel.checkpoint()  # noqa: ASYNC102 - as a careless stream of a user's does

    async def flush() -> None:
        with trio.CancelScope(shield=True):
            background.start_soon(one_flush)
            await trio.testing.wait_all_tasks_blocked()

    async def one_flush() -> None:
        try:
            await nc.flush()
        except errors.Error as error:
            results.append(error)
        else:
            results.append("flushed")

    streams: list[trio.abc.Stream] = []

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return streams.pop() if streams else await server.dial(host, port)

    async with connected(server, dial=dial) as nc, trio.open_nursery() as background:
        streams.append(Stream())
        server.cut()
        await back(nc)
    # Either told that it failed, or answered by the connection that followed: but not left to its timeout.
    assert len(results) == 1
    assert not isinstance(results[0], errors.TimeoutError)


# -- reconnecting ------------------------------------------------------------------------------------------------------


async def test_reconnect_replays_subscriptions_and_what_is_left_of_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    async with connected(server) as nc, trio.open_nursery() as nursery:
        async with (
            open_subscription(nursery, nc, "plain.*") as plain,
            open_subscription(nursery, nc, "queued", queue="q") as queued,
            open_subscription(nursery, nc, "limited", max_msgs=10) as limited,
        ):
            await nc.flush()
            for _ in range(4):
                server.publish("limited", b"x")
            await nc.flush()
            sids = {s.sid for s in server.subscriptions}
            for outage in range(1, 4):
                server.cut("reset" if outage % 2 else "eof")
                await back(nc, outage)
                await nc.flush()
                assert [(s.subject, s.queue) for s in server.subscriptions] == [
                    ("plain.*", ""),
                    ("queued", "q"),
                    ("limited", ""),
                ]
                assert {s.sid for s in server.subscriptions} == sids
                assert [frame.verb for frame in server.frames].count("CONNECT") == outage + 1
            for _ in range(20):
                server.publish("limited", b"y")
            server.publish("plain.a", b"1")
            server.publish("queued", b"2")
            assert [msg.data async for msg in limited] == [b"x"] * 4 + [b"y"] * 6
            assert (await plain.receive()).data == b"1"
            assert (await queued.receive()).data == b"2"
            assert len(plain) == len(queued) == 0


async def test_backoff_has_jitter_and_a_limit(autojump_clock: trio.testing.MockClock) -> None:
    """A client that cannot come back dials as often as it was told, further and further apart, and says why."""
    times: list[list[float]] = []
    for seed in range(3):
        server = FakeServer()
        dials: list[float] = []

        async def dial(host: str, port: int, server: FakeServer = server, dials: list[float] = dials) -> Any:  # noqa: ANN401 - a stream
            dials.append(trio.current_time())
            return await server.dial(host, port)

        async with trio.open_nursery() as nursery:
            async with open_client(
                nursery, "nats://fake", dial=dial, max_reconnect_attempts=5, rng=random.Random(seed)
            ) as nc:
                lost = trio.current_time()
                server.accepting = False
                server.cut()
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(errors.ConnectionClosedError, match="fake:4222"):
                    await nc.wait_connected()
                assert isinstance(nc.last_error, errors.NoServersError)
                assert isinstance(nc.last_error.__cause__, OSError)
                assert nc.is_closed
        times.append([moment - lost for moment in dials[1:]])
    assert [len(dials) for dials in times] == [5, 5, 5]
    assert len({dials[0] for dials in times}) == 3
    assert all(later - earlier <= 8 for dials in times for earlier, later in itertools.pairwise(dials))


async def test_a_herd_does_not_thunder(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    redials: list[float] = []

    async def dial(host: str, port: int) -> trio.abc.Stream:
        redials.append(trio.current_time())
        return await server.dial(host, port)

    async with trio.open_nursery() as nursery, trio.open_nursery() as clients:

        async def one(seed: int) -> None:
            async with open_client(nursery, "nats://fake", dial=dial, rng=random.Random(seed)) as nc:
                await back(nc)

        for seed in range(200):
            clients.start_soon(one, seed)
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.live_links) == 200
        redials.clear()
        server.cut()
    buckets: dict[int, int] = {}
    for moment in redials:
        buckets[int(moment * 100)] = buckets.get(int(moment * 100), 0) + 1
    assert len(redials) == 200
    assert max(buckets.values()) <= 20


async def test_publishes_across_outages_keep_their_order(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server) as nc, trio.open_nursery() as nursery, open_events(nursery, nc) as told:
        for number in range(300):
            await nc.publish("n", b"%d" % number)
            if number % 50 == 25:
                server.cut("reset")
            if number % 10 == 0:
                await trio.sleep(0.05)
        await back(nc)
        await nc.flush()
        arrived = [int(frame.payload) for frame in server.sent("PUB", "n")]
        assert arrived == sorted(set(arrived))
        told.stop()
        lost = sum([event.count async for event in told if isinstance(event, events.PublishesLost)])
        assert len(set(range(300)) - set(arrived)) <= lost


async def test_allow_reconnect_false(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with trio.open_nursery() as nursery:
        async with (
            open_client(nursery, "nats://fake", dial=server.dial, allow_reconnect=False) as nc,
            open_subscription(nursery, nc, "a") as rx,
            open_events(nursery, nc) as told,
        ):
            await nc.flush()
            server.publish("a", b"buffered")
            server.link.error(DENIED, fatal=True)
            assert (await rx.receive()).data == b"buffered"
            with pytest.raises(errors.AuthorizationError, match=DENIED):
                await rx.receive()
            seen = [await told.receive() for _ in range(3)]
            assert [type(event).__name__ for event in seen] == ["ServerRefusal", "Disconnected", "Closed"]
            with pytest.raises(errors.AuthorizationError):
                await told.receive()
            for call in (nc.flush, nc.wait_connected, nc.wait_writable, nc.rtt):
                with pytest.raises(errors.ConnectionClosedError, match=DENIED) as caught:
                    await call()
                assert isinstance(caught.value.__cause__, errors.AuthorizationError)
            with pytest.raises(errors.ConnectionClosedError, match=DENIED):
                await nc.publish("a")
            with pytest.raises(errors.ConnectionClosedError, match=DENIED):
                await nc.request("a")
            with pytest.raises(errors.ConnectionClosedError, match=DENIED):
                async with open_subscription(nursery, nc, "a"):
                    pass
            async with open_events(nursery, nc) as late:
                assert isinstance(await late.receive(), events.Closed)
                with pytest.raises(errors.AuthorizationError):
                    await late.receive()
            nc.publish_nowait("a", force=True)
    assert len(server.dialled) == 1


# -- why it went -------------------------------------------------------------------------------------------------------


async def reason(nc: Client, act: Callable[[], object]) -> Exception:
    """Say why a connection went that `act` ends."""
    async with trio.open_nursery() as nursery, open_events(nursery, nc) as told:
        act()
        async for event in told:
            if isinstance(event, events.Disconnected):
                return event.reason  # noqa: ASYNC121 - nothing else lives in this nursery
    raise AssertionError("it did not go")


async def test_the_servers_last_word_is_the_reason(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server) as nc:
        why = await reason(nc, lambda: server.link.error(DENIED, fatal=True))
        assert isinstance(why, errors.AuthorizationError)


async def test_the_servers_last_word_is_heard_also_where_sending_fails_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    async with connected(server) as nc:

        def act() -> None:
            server.link.error(DENIED, fatal=True)
            nc.publish_nowait("a", b"x")

        assert isinstance(await reason(nc, act), errors.AuthorizationError)


async def test_a_send_that_fails_leads_to_a_reconnect_also_where_reading_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A path that is broken in one direction only: the reader would wait for ever."""
    server = FakeServer()
    broken = trio.Event()

    class OneWay(trio.abc.Stream):
        def __init__(self, stream: trio.abc.Stream) -> None:
            self.stream = stream

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if broken.is_set() and len(server.links) == 1:
                raise trio.BrokenResourceError("no way out")
            await self.stream.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self.stream.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await self.stream.receive_some(max_bytes)

        async def aclose(self) -> None:
            await self.stream.aclose()

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return OneWay(await server.dial(host, port))

    async with connected(server, dial=dial) as nc:
        broken.set()
        await nc.publish("a", b"lost with the link")
        await back(nc)
        await nc.publish("a", b"x")
        await nc.flush()
        assert [frame.payload for frame in server.sent("PUB")] == [b"x"]


async def test_an_old_refusal_is_not_the_reason(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server) as nc:
        server.inject(b"-ERR 'Invalid Subject'\r\n")
        await nc.flush()
        await nc.flush()
        why = await reason(nc, server.cut)
        assert isinstance(why, errors.UnexpectedEOF)
        assert "fake:4222 closed the connection" in str(why)


async def test_a_connection_that_breaks(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server) as nc:
        why = await reason(nc, lambda: server.cut("reset"))
        assert isinstance(why, errors.UnexpectedEOF)
        assert "broke the connection" in str(why)


async def test_garbage_ends_the_connection_and_not_the_client(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server) as nc:
        why = await reason(nc, lambda: server.inject(b"MSG what\r\n"))
        assert isinstance(why, errors.ProtocolError)
        await back(nc)
        await nc.flush()


@pytest.mark.parametrize(
    "text",
    [
        b"-ERR\r\n",
        b"-ERR 'Permissions Violation for Subscription to \"\\ud800\"'\r\n",
        b"-ERR 'Permissions Violation'\r\n",
        b'INFO {"max_payload":-1,"ldm":"yes","connect_urls":[null,7,"a b","x:99999999"]}\r\n',
        b'INFO {"max_payload":null}\r\n',
        b"PONG\r\nPONG\r\n",
        b"MSG nobody 999 1\r\nx\r\n",
        b"HMSG nobody 999 3 4\r\nabcd\r\n",
        b"ping\r\n",
    ],
)
async def test_oddities_end_nothing(autojump_clock: trio.testing.MockClock, text: bytes) -> None:
    server = FakeServer()
    async with connected(server) as nc:
        server.inject(text * 3)
        await nc.flush()
        await nc.publish("a", b"x")
        await nc.flush()
        assert nc.statistics().reconnects == 0


# -- pings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
async def test_a_dead_peer_is_found_by_pings(autojump_clock: trio.testing.MockClock, full: bool) -> None:
    server = FakeServer()
    async with connected(server, ping_interval=10, max_outstanding_pings=2, close_timeout=1) as nc:
        start = trio.current_time()
        if full:
            server.link.stall(up=True, down=True)
            await nc.publish("a", bytes(1000))
        else:
            server.mute = {"PING"}
        old = server.link

        async def heal() -> None:
            await trio.sleep(25)
            server.mute = set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(heal)
            async with open_events(nursery, nc) as told:
                lost = await told.receive()
                if full:
                    assert lost == events.PublishesLost(1)
                    lost = await told.receive()
        assert trio.current_time() - start == pytest.approx(30)
        assert isinstance(lost, events.Disconnected)
        assert isinstance(lost.reason, errors.StaleConnectionError)
        assert "2 pings, 10 s apart" in str(lost.reason)
        assert old.closed
        await back(nc)
        assert nc.statistics().reconnects == 1
        await trio.sleep(HOUR)  # no count is inherited
        assert nc.statistics().reconnects == 1
        server.check()


async def test_a_quiet_connection_is_pinged(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server, ping_interval=10):
        before = len(server.sent("PING"))
        await trio.sleep(105)
        assert len(server.sent("PING")) == before + 10


async def test_the_servers_pings_are_answered_whoever_reads(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server) as nc, trio.open_nursery() as nursery:
        async with open_subscription(nursery, nc, "a", overflow="drop_new", pending_msgs_limit=1):
            async with open_events(nursery, nc):
                await nc.flush()
                for _ in range(100):
                    server.publish("a", b"x")
                    server.inject(b"PING\r\n")
                await trio.testing.wait_all_tasks_blocked()
                assert len(server.sent("PONG")) == 100


# -- cut anywhere ------------------------------------------------------------------------------------------------------


async def hear(server: FakeServer, nc: Client, rx: Feed[Msg]) -> None:
    """Wait until a message comes through: those of an outage are lost, as core NATS has it."""
    while True:
        await nc.wait_connected()
        server.publish("s.y", b"after")
        with trio.move_on_after(5):
            async for msg in rx:
                if msg.data == b"after":
                    return


async def session(server: FakeServer, **cut: int) -> tuple[int, int]:
    """A scripted session, cut after so many bytes: it must come through, and the wire must be whole frames.

    Returns:
        How many bytes went up and down on the first link.
    """
    replies: list[bytes] = []
    server.on("echo", lambda frame: frame.payload)

    async def dial(host: str, port: int) -> trio.abc.Stream:
        stream = await server.dial(host, port)
        if len(server.links) == 1 and cut:
            server.link.cut_after(**cut)
        return stream

    with trio.fail_after(HOUR):
        async with trio.open_nursery() as nursery:
            opening = open_client(nursery, ["a", "b"], dial=dial, dont_randomize=True, rng=random.Random(1))
            async with opening as nc, open_subscription(nursery, nc, "s.*", max_msgs=50) as rx:
                for number in range(3):
                    await nc.publish("s.x", b"%d" % number, headers={"N": str(number)})
                for attempt in range(20):
                    try:
                        replies.append((await nc.request("echo", b"question")).data)
                        await nc.flush()
                        break
                    except (errors.DisconnectedError, errors.NoRespondersError):
                        assert attempt < 19
                await hear(server, nc, rx)
    server.check()
    assert set(replies) == {b"question"}
    for link in server.links:
        whole = bytearray(link.received)
        verbs = []
        while (frame := cut_frame(whole)) is not None:
            verbs.append(frame.verb)
        assert verbs[:2] == ["CONNECT", "PING"][: len(verbs)]
        if link is not server.links[0]:
            assert not whole
    assert server.links[0] is server.link or cut
    return len(server.links[0].received), len(server.links[0].given)


async def test_cut_after_every_byte(autojump_clock: trio.testing.MockClock) -> None:
    up, down = await session(FakeServer())
    assert up > 300
    for count in range(1, up + 1):
        await session(FakeServer(), sent=count)
    for count in range(1, down + 1):
        await session(FakeServer(), given=count)


async def test_cut_after_every_byte_of_a_stream_in_sips(autojump_clock: trio.testing.MockClock) -> None:
    up, _ = await session(FakeServer(sip=7, chunk=5))
    for count in range(1, up + 1, 3):
        await session(FakeServer(sip=7, chunk=5), sent=count)


# -- what else the server says -----------------------------------------------------------------------------------------


async def test_events_tell_the_story(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server) as nc, trio.open_nursery() as nursery, open_events(nursery, nc) as told:
        server.inject(b'INFO {"ldm":true}\r\n')
        assert await told.receive() == events.LameDuck("nats://fake:4222")
        server.inject(b'INFO {"connect_urls":["x:1","fake:4222","x:1"]}\r\n')
        assert await told.receive() == events.ServersDiscovered(("nats://x:1",))
        server.inject(b"-ERR 'Slow Consumer Detected'\r\n")
        refusal = await told.receive()
        assert isinstance(refusal, events.ServerRefusal)
        assert "Slow Consumer Detected" in str(refusal.error)
        server.inject(b"-ERR 'Permissions Violation for Publish to \"secret.place\"'\r\n")
        violation = await told.receive()
        assert isinstance(violation, events.PermissionViolation)
        assert isinstance(violation.error, errors.PermissionsViolationError)
        assert (violation.error.operation, violation.error.subject) == ("publish", "secret.place")


async def test_info_of_a_reconnect_is_that_servers(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server) as nc, trio.open_nursery() as nursery, open_events(nursery, nc) as told:
        server.info |= {"max_payload": 10, "server_id": "OTHER", "ldm": True}
        server.cut()
        await back(nc)
        assert nc.max_payload == 10
        assert nc.server_id == "OTHER"
        with pytest.raises(errors.MaxPayloadError, match="11 bytes of headers and payload, the server takes 10"):
            await nc.publish("a", bytes(11))
        await nc.publish("a", bytes(10))
        seen = [type(await told.receive()).__name__ for _ in range(3)]
        assert seen == ["Disconnected", "Reconnected", "LameDuck"]
