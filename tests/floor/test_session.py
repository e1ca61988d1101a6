"""One connection while it lasts: what ends it and why, its pings, and what goes over the wire in between."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.fakes import FakeServer
from tests.worlds import HOUR, arrived, connected, next_event, open_world, reconnected, settled, subscribed, watched
from trionats import Client, errors, events, open_events, open_replies, open_subscription
from trionats._connection.handshake import READ_SIZE
from trionats._connection.session import READ_AHEAD
from trionats._connection.wire import Wire

pytestmark = pytest.mark.usefixtures("autojump_clock")

DENIED = "Authorization Violation"


def deny(server: FakeServer, nc: Client) -> None:
    server.link.error(DENIED, fatal=True)


def deny_while_sending(server: FakeServer, nc: Client) -> None:
    deny(server, nc)
    nc.publish_nowait("a", b"x")


@pytest.mark.parametrize(
    ("act", "kind", "said"),
    [
        (deny, errors.AuthorizationError, DENIED),
        (deny_while_sending, errors.AuthorizationError, DENIED),
        (lambda server, _: server.cut("reset"), errors.UnexpectedEOF, "broke the connection"),
        (lambda server, _: server.cut(), errors.UnexpectedEOF, "127.0.0.1:4222 closed the connection"),
        (lambda server, _: server.inject(b"MSG what\r\n"), errors.ProtocolError, ""),
    ],
    ids=["the server's last word", "its last word where sending fails first", "it breaks", "it ends", "garbage"],
)
async def test_what_ended_it_is_the_reason(act: Callable[..., None], kind: type[Exception], said: str) -> None:
    """And not an old refusal."""
    async with watched() as (server, nc, rx):
        server.inject(b"-ERR 'Invalid Subject'\r\n")
        await nc.flush()
        await nc.flush()
        act(server, nc)
        why = (await next_event(rx, events.Disconnected)).reason
        assert isinstance(why, kind)
        assert said in str(why)
        await reconnected(nc)


async def test_a_send_that_fails_leads_to_a_reconnect_while_reading_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is broken in one direction only: the reader would wait for ever."""
    async with open_world() as (server, nc, _):

        async def no_way_out() -> None:
            raise trio.BrokenResourceError("no way out")

        monkeypatch.setattr(server.link, "wait_send_all_might_not_block", no_way_out)
        await nc.publish("a", b"lost with the connection")
        await reconnected(nc)
        await nc.publish("a", b"x")
        await nc.flush()
        assert [frame.payload for frame in server.sent("PUB")] == [b"x"]


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
async def test_oddities_end_nothing(text: bytes) -> None:
    async with open_world() as (server, nc, _):
        server.inject(text * 3)
        await nc.flush()
        await nc.publish("a", b"x")
        await nc.flush()
        assert nc.statistics().reconnects == 0


@pytest.mark.parametrize("full", [False, True])
async def test_a_dead_peer_is_found_by_pings(full: bool) -> None:
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

        async with trio.open_nursery() as nursery, open_events(nursery, nc) as rx:
            nursery.start_soon(heal)
            if full:
                assert await rx.receive() == events.PublishesLost(1)
            gone = await rx.receive()
        assert trio.current_time() - start == pytest.approx(30)
        assert isinstance(gone, events.Disconnected)
        assert isinstance(gone.reason, errors.StaleConnectionError)
        assert "2 pings, 10 s apart" in str(gone.reason)
        assert old.closed
        await reconnected(nc)
        await trio.sleep(HOUR)  # no count is inherited
        assert nc.statistics().reconnects == 1


async def test_a_quiet_connection_is_pinged() -> None:
    async with open_world(ping_interval=10) as (server, _, _):
        before = len(server.sent("PING"))
        await trio.sleep(105)
        assert len(server.sent("PING")) == before + 10


async def test_the_servers_pings_are_answered_whoever_reads() -> None:
    async with (
        subscribed(overflow="drop_new", pending_msgs_limit=1) as (server, nc, _),
        trio.open_nursery() as nursery,
        open_events(nursery, nc),
    ):
        for _ in range(100):
            server.publish("a", b"x")
            server.inject(b"PING\r\n")
        await settled()
        assert len(server.sent("PONG")) == 100


async def test_no_subject_from_outside_makes_a_line_of_its_own() -> None:
    """CR, LF, spaces and tabs in a subject, a reply, a queue: in each call that takes one, refused before anything is queued."""
    async with open_world() as (server, nc, nursery):
        await nc.flush()
        before = bytes(server.link.received)
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
        await settled()
        assert server.link.received == before


async def test_what_closes_nothing_is_told_and_closes_nothing() -> None:
    async with watched(FakeServer(deny_publish=("secret.*",))) as (server, nc, rx):
        for text in ("Slow Consumer Detected", "Invalid Subject", "maximum subscriptions exceeded", "anything"):
            server.link.error(text)
            refusal = await rx.receive()
            assert isinstance(refusal, events.ServerRefusal)
            assert text.lower() in str(refusal.error).lower()
        await nc.publish("secret.place")
        violation = await rx.receive()
        assert isinstance(violation, events.PermissionViolation)
        assert isinstance(violation.error, errors.PermissionsViolationError)
        assert (violation.error.operation, violation.error.subject) == ("publish", "secret.place")
        await nc.flush()
        server.announce(ldm=True)
        assert await rx.receive() == events.LameDuck("nats://127.0.0.1:4222")
        server.announce(connect_urls=["x:1", "127.0.0.1:4222", "x:1"])
        assert await rx.receive() == events.ServersDiscovered(("nats://x:1",))
        assert nc.statistics().reconnects == 0


async def test_behind_a_large_payload_more_is_read_at_once_as_long_as_they_follow_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of small messages no more than ever, also where a large one is among them: who receives would fall behind."""
    sizes: list[int] = []
    receive_some = Wire.receive_some

    async def noting(self: Wire, max_bytes: int) -> bytes:
        sizes.append(max_bytes)
        return await receive_some(self, max_bytes)

    monkeypatch.setattr(Wire, "receive_some", noting)

    async def asked_for(payloads: list[bytes]) -> int:
        """Say how much was asked for at once, at the most, while these came."""
        sizes.clear()
        for payload in payloads:
            server.publish("a", payload)
        await nc.flush()
        assert [msg.data for msg in arrived(rx)] == payloads
        return max(sizes)

    large, small = [bytes(100_000)] * 9, [b"small"] * 2000
    async with subscribed("a") as (server, nc, rx):
        assert await asked_for(small) == READ_SIZE
        assert READ_AHEAD < await asked_for(large) <= READ_AHEAD + 100_000
        # As long as there is so much, no read stops at the end of a payload.
        await asked_for([bytes(READ_AHEAD // 2 - at) for at in range(20)])
        assert min(sizes[1:-2]) >= READ_AHEAD
        assert await asked_for([*small, *large[:1], *small]) < READ_AHEAD
        assert await asked_for(small) == READ_SIZE
