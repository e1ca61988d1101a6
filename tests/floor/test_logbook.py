"""What operators are told: each thing once an episode, and never a secret."""

from __future__ import annotations

import json
import logging
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.fakes import FakeServer
from trionats import Client, errors, events, open_client, open_subscription
from trionats._core.logbook import MOST_TOLD, Logbook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(autouse=True)
def all_of_it(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "trionats"):
        yield


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of what was logged since this was asked."""
    assert {record.name for record in caplog.records} <= {"trionats"}
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def check(found: list[tuple[str, str]], *expected: tuple[str, str]) -> None:
    assert len(found) == len(expected), found
    for (level, text), (wanted, pattern) in zip(found, expected, strict=True):
        assert level == wanted
        assert re.fullmatch(pattern, text), text


@asynccontextmanager
async def connected(server: FakeServer, **options: Any) -> AsyncIterator[Client]:  # noqa: ANN401 - any option
    async with (
        trio.open_nursery() as nursery,
        open_client(nursery, "nats://user:hunter2@a", dial=server.dial, **options) as nc,
    ):
        await nc.flush()
        yield nc
    server.check()


async def lose(server: FakeServer, nc: Client) -> None:
    """Lose the connection, and wait for the next one."""
    server.cut()
    while nc.is_connected:  # noqa: ASYNC110 - without a step of the clock
        await trio.lowlevel.checkpoint()
    await nc.wait_connected()
    await nc.flush()


LOST = ("INFO", r"disconnected from nats://a:4222: nats://a:4222 closed the connection")
BACK = ("INFO", "reconnected to nats://a:4222")


async def test_connections_that_come_and_go(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeServer()
    async with connected(server, max_reconnect_attempts=2) as nc:
        check(told(caplog))
        await lose(server, nc)
        check(told(caplog), LOST, BACK)
        await nc.reconnect()
        check(told(caplog), ("INFO", r"disconnected from nats://a:4222: reconnect\(\) was called"), BACK)
        server.accepting = False
        server.cut()
        while not nc.is_closed:  # noqa: ASYNC110
            await trio.sleep(1)
        check(told(caplog), LOST, ("INFO", r"the connection is lost for good: no server left to try: .*"))


async def test_a_planned_move(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    hosts = {"a": FakeServer(), "b": FakeServer()}

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return await hosts[host].dial(host, port)

    async with (
        trio.open_nursery() as nursery,
        open_client(nursery, ["nats://u:hunter2@a", "nats://u:hunter2@b"], dial=dial, dont_randomize=True) as nc,
    ):
        hosts["a"].inject(b"INFO " + json.dumps({**hosts["a"].info, "ldm": True}).encode() + b"\r\n")
        while nc.connected_url != "nats://b:4222":  # noqa: ASYNC110
            await trio.sleep(0.1)
        await nc.flush()
        check(
            told(caplog),
            ("INFO", "nats://a:4222 is about to shut down"),
            ("INFO", "moved from nats://a:4222 to nats://b:4222"),
        )


async def test_refused_permissions_once_a_connection(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeServer()
    server.deny_publish, server.deny_subscribe = ("secret.>",), ("private",)
    async with connected(server) as nc, trio.open_nursery() as nursery:
        for _ in range(2):
            for _ in range(50):
                await nc.publish("secret.a")
                with pytest.raises(errors.PermissionsViolationError):
                    await nc.request("secret.b")
                async with open_subscription(nursery, nc, "private") as rx:
                    with pytest.raises(errors.PermissionsViolationError):
                        await rx.receive()
            refused = r'refused: nats://a:4222: the server says: Permissions Violation for %s to "%s"'
            check(
                told(caplog),
                ("WARNING", refused % ("Publish", "secret.a")),
                ("WARNING", refused % ("Publish", "secret.b")),
                ("WARNING", refused % ("Subscription", "private")),
            )
            await lose(server, nc)
            check(told(caplog), LOST, BACK)


async def test_a_subscription_too_many(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeServer()
    async with connected(server) as nc, trio.open_nursery() as nursery:
        for _ in range(3):
            async with open_subscription(nursery, nc, "many") as rx:
                server.inject(b"-ERR 'maximum subscriptions exceeded'\r\n")
                with pytest.raises(errors.MaxSubscriptionsError):
                    await rx.receive()
        check(told(caplog), ("WARNING", r"refused: .*maximum subscriptions exceeded; 'many' is not subscribed"))


async def test_a_subscription_too_many_is_not_told_with_what_was_confided(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeServer()
    async with connected(server) as nc, trio.open_nursery() as nursery:
        async with open_subscription(nursery, nc, "many") as rx:
            server.inject(b"-ERR 'maximum subscriptions exceeded for hunter2'\r\n")
            with pytest.raises(errors.MaxSubscriptionsError) as caught:
                await rx.receive()
        server.inject(b"-ERR 'maximum subscriptions exceeded for hunter2'\r\n")
        await nc.flush()
    assert "hunter2" not in f"{caught.value}{told(caplog)}"


async def test_lost_publishes(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer(info={"max_payload": 100})
    async with connected(server) as nc:
        server.link.stall(up=True)
        await nc.publish("a", b"1")
        await trio.sleep(1)
        server.accepting = False
        server.cut("reset")
        while nc.is_connected:  # noqa: ASYNC110
            await trio.lowlevel.checkpoint()
        (level, text), *rest = (line for line in told(caplog) if "disconnected" not in line[1])
        assert (level, text, rest) == ("WARNING", "1 publishes are lost, or may be", [])
        for _ in range(3):
            await nc.publish("a", bytes(50))
        server.info["max_payload"] = 10
        server.accepting = True
        await nc.wait_connected()
        await nc.flush()
        check(told(caplog), BACK, ("WARNING", "3 publishes are lost: the server takes 10 bytes"))


async def test_a_slow_consumer_once_an_episode(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeServer()
    async with connected(server) as nc, trio.open_nursery() as nursery:
        async with open_subscription(nursery, nc, "a", pending_msgs_limit=10, overflow="drop_new"):
            await nc.flush()
            for _ in range(500):
                server.publish("a", b"x")
            await nc.flush()
            check(told(caplog), ("WARNING", "the consumer of 'a' is slow; 1 messages were dropped so far"))


async def test_a_callback_that_fails_once_an_outage_and_without_its_text(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeServer()

    def fail(*_: object) -> Any:  # noqa: ANN401
        raise ValueError("hunter2")

    async with connected(server, pick_server=fail, reconnect_delay=fail) as nc:
        for _ in range(2):
            told(caplog)
            server.accepting = False
            server.cut()
            await trio.sleep(60)
            server.accepting = True
            await nc.wait_connected()
            found = told(caplog)
            assert "hunter2" not in str(found)
            check(
                found,
                LOST,
                ("WARNING", "the callback pick_server failed: ValueError"),
                ("WARNING", "the callback reconnect_delay failed: ValueError"),
                BACK,
            )


def test_what_is_refused_to_readers_and_stores_once_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    logbook = Logbook()
    for number in range(3):
        logbook.write(events.ReaderRefused("OBJ_b", errors.Error("maximum consumers limit reached")))
        logbook.write(events.ChunksLeft("OBJ_b", f"$O.b.C.{number}", errors.Error("it may not purge")))
    check(
        told(caplog),
        ("WARNING", "refused: reading stream 'OBJ_b': maximum consumers limit reached"),
        ("WARNING", r"data of no object stays in stream 'OBJ_b', at '\$O\.b\.C\.0': it may not purge"),
    )
    logbook.write(events.Reconnected("nats://a:4222"))
    logbook.write(events.ReaderRefused("OBJ_b", errors.Error("maximum consumers limit reached")))
    check(told(caplog), BACK, ("WARNING", "refused: reading stream 'OBJ_b': maximum consumers limit reached"))


def test_an_episode_tells_of_so_many_things_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    logbook = Logbook()
    for number in range(10 * MOST_TOLD):
        refused = errors.explained(
            errors.PermissionsViolationError, f"{number}", operation="publish", subject=f"s{number}"
        )
        logbook.write(events.PermissionViolation(refused))
    found = told(caplog)
    assert len(found) == MOST_TOLD + 1
    assert found[-1] == ("WARNING", "more was refused than is told here, until the next connection")


def test_what_is_nothing_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logbook = Logbook()
    for event in (
        events.Connected("nats://a:4222"),
        events.Draining(),
        events.Closed(None),
        events.ServersDiscovered(("nats://b:4222",)),
        events.ReconnectFailed("nats://a:4222", OSError("refused")),
        events.ServerRefusal(errors.Error("server shutdown")),
    ):
        logbook.write(event)
    check(told(caplog))
    logbook.write(events.Closed(KeyError("hunter2")))
    check(told(caplog), ("INFO", "the connection is lost for good: KeyError"))
