"""What operators are told: each thing once an episode, and never a secret."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.fakes import FakeServer
from tests.worlds import Hosts, lose, open_world, regain, until
from trionats import Client, errors, events, open_subscription
from trionats._core.logbook import MOST_TOLD, Logbook

pytestmark = pytest.mark.usefixtures("autojump_clock")

URL = "nats://user:hunter2@a"
LOST = ("INFO", r"disconnected from nats://a:4222: nats://a:4222 closed the connection")
BACK = ("INFO", "reconnected to nats://a:4222")


class Log:
    """What was logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def told(self) -> list[tuple[str, str]]:
        """Level and text of what was logged since this was asked."""
        assert {record.name for record in self._caplog.records} <= {"trionats"}
        found = [(record.levelname, record.getMessage()) for record in self._caplog.records]
        self._caplog.clear()
        assert "hunter2" not in str(found)
        return found

    def check(self, *expected: tuple[str, str]) -> None:
        """See that this was logged, levels and patterns, and nothing else."""
        found = self.told()
        assert len(found) == len(expected), found
        for (level, text), (wanted, pattern) in zip(found, expected, strict=True):
            assert level == wanted
            assert re.fullmatch(pattern, text), text


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    with caplog.at_level(logging.INFO, "trionats"):
        yield Log(caplog)


async def blink(server: FakeServer, nc: Client) -> None:
    """Lose the connection, and wait for the next one."""
    await lose(server, nc)
    await regain(server, nc)


async def test_connections_that_come_and_go(log: Log) -> None:
    async with open_world(servers=URL, max_reconnect_attempts=2) as (server, nc, _):
        log.check()
        await blink(server, nc)
        log.check(LOST, BACK)
        await nc.reconnect()
        log.check(("INFO", r"disconnected from nats://a:4222: reconnect\(\) was called"), BACK)
        server.accepting = False
        server.cut()
        await until(lambda: nc.is_closed, pause=1)
        log.check(LOST, ("INFO", r"the connection is lost for good: no server left to try: .*"))


async def test_a_planned_move(log: Log) -> None:
    async with open_world(Hosts("a", "b"), [URL, "nats://user:hunter2@b"]) as (hosts, nc, _):
        hosts["a"].announce(ldm=True)
        await until(lambda: nc.connected_url == "nats://b:4222", pause=0.1)
        await nc.flush()
        log.check(
            ("INFO", "nats://a:4222 is about to shut down"),
            ("INFO", "moved from nats://a:4222 to nats://b:4222"),
        )


async def test_refused_permissions_once_a_connection(log: Log) -> None:
    strict = FakeServer(deny_publish=("secret.>",), deny_subscribe=("private",))
    async with open_world(strict, URL) as (server, nc, nursery):
        for _ in range(2):
            for _ in range(50):
                await nc.publish("secret.a")
                with pytest.raises(errors.PermissionsViolationError):
                    await nc.request("secret.b")
                async with open_subscription(nursery, nc, "private") as rx:
                    with pytest.raises(errors.PermissionsViolationError):
                        await rx.receive()
            refused = r'refused: nats://a:4222: the server says: Permissions Violation for %s to "%s"'
            log.check(
                ("WARNING", refused % ("Publish", "secret.a")),
                ("WARNING", refused % ("Publish", "secret.b")),
                ("WARNING", refused % ("Subscription", "private")),
            )
            await blink(server, nc)
            log.check(LOST, BACK)


async def test_a_subscription_too_many(log: Log) -> None:
    async with open_world(servers=URL) as (server, nc, nursery):
        for _ in range(3):
            async with open_subscription(nursery, nc, "many") as rx:
                server.inject(b"-ERR 'maximum subscriptions exceeded'\r\n")
                with pytest.raises(errors.MaxSubscriptionsError):
                    await rx.receive()
        log.check(("WARNING", r"refused: .*maximum subscriptions exceeded; 'many' is not subscribed"))


async def test_a_subscription_too_many_is_not_told_with_what_was_confided(log: Log) -> None:
    async with open_world(servers=URL) as (server, nc, nursery):
        async with open_subscription(nursery, nc, "many") as rx:
            server.inject(b"-ERR 'maximum subscriptions exceeded for hunter2'\r\n")
            with pytest.raises(errors.MaxSubscriptionsError) as caught:
                await rx.receive()
        server.inject(b"-ERR 'maximum subscriptions exceeded for hunter2'\r\n")
        await nc.flush()
    assert "hunter2" not in f"{caught.value}{log.told()}"


async def test_lost_publishes(log: Log) -> None:
    async with open_world(FakeServer(info={"max_payload": 100}), URL) as (server, nc, _):
        server.link.stall(up=True)
        await nc.publish("a", b"1")
        await trio.sleep(1)
        await lose(server, nc, "reset")
        (level, text), *rest = (line for line in log.told() if "disconnected" not in line[1])
        assert (level, text, rest) == ("WARNING", "1 publishes are lost, or may be", [])
        for _ in range(3):
            await nc.publish("a", bytes(50))
        server.info["max_payload"] = 10
        await regain(server, nc)
        log.check(BACK, ("WARNING", "3 publishes are lost: the server takes 10 bytes"))


async def test_a_slow_consumer_once_an_episode(log: Log) -> None:
    async with open_world(servers=URL) as (server, nc, nursery):
        async with open_subscription(nursery, nc, "a", pending_msgs_limit=10, overflow="drop_new"):
            await nc.flush()
            for _ in range(500):
                server.publish("a", b"x")
            await nc.flush()
            log.check(("WARNING", "the consumer of 'a' is slow; 1 messages were dropped so far"))


async def test_a_callback_that_fails_once_an_outage_and_without_its_text(log: Log) -> None:
    def fail(*_: object) -> Any:  # noqa: ANN401 - as both want it
        raise ValueError("hunter2")

    async with open_world(servers=URL, pick_server=fail, reconnect_delay=fail) as (server, nc, _):
        for _ in range(2):
            log.told()
            server.accepting = False
            server.cut()
            await trio.sleep(60)
            await regain(server, nc)
            log.check(
                LOST,
                ("WARNING", "the callback pick_server failed: ValueError"),
                ("WARNING", "the callback reconnect_delay failed: ValueError"),
                BACK,
            )


def test_what_is_refused_to_readers_and_stores_once_a_stream(log: Log) -> None:
    logbook = Logbook()
    for number in range(3):
        logbook.write(events.ReaderRefused("OBJ_b", errors.Error("maximum consumers limit reached")))
        logbook.write(events.ChunksLeft("OBJ_b", f"$O.b.C.{number}", errors.Error("it may not purge")))
    log.check(
        ("WARNING", "refused: reading stream 'OBJ_b': maximum consumers limit reached"),
        ("WARNING", r"data of no object stays in stream 'OBJ_b', at '\$O\.b\.C\.0': it may not purge"),
    )
    logbook.write(events.Reconnected("nats://a:4222"))
    logbook.write(events.ReaderRefused("OBJ_b", errors.Error("maximum consumers limit reached")))
    log.check(BACK, ("WARNING", "refused: reading stream 'OBJ_b': maximum consumers limit reached"))


def test_what_goes_wrong_with_a_consumer_once_each_and_a_pin_not_at_all(log: Log) -> None:
    logbook = Logbook()
    for number in (1, 2):
        logbook.write(events.ConsumerHeartbeatMissed("S", "C", 10.0))
        logbook.write(events.ConsumerLimitExceeded("S", "C", "Exceeded MaxRequestBatch of 5"))
        logbook.write(events.ConsumerUnreachable("S", "C"))
        logbook.write(events.MessagesExpired("S", "C", number))
        logbook.write(events.UnknownStatus("S", "C", 499, "What"))
        logbook.write(events.ConsumerPinned("S", "C", "g"))
        logbook.write(events.ConsumerUnpinned("S", "C", "g"))
    log.check(
        ("WARNING", "consumer 'C' of stream 'S': silent for 10 s"),
        ("WARNING", "consumer 'C' of stream 'S': refused: Exceeded MaxRequestBatch of 5"),
        ("WARNING", "consumer 'C' of stream 'S': nobody responds"),
        ("WARNING", "consumer 'C' of stream 'S': 1 messages waited past their ack wait so far"),
        ("WARNING", "consumer 'C' of stream 'S': unknown status 499 What"),
    )


def test_an_episode_tells_of_so_many_things_and_no_more(log: Log) -> None:
    logbook = Logbook()
    for number in range(10 * MOST_TOLD):
        refused = errors.explained(
            errors.PermissionsViolationError, f"{number}", operation="publish", subject=f"s{number}"
        )
        logbook.write(events.PermissionViolation(refused))
    found = log.told()
    assert len(found) == MOST_TOLD + 1
    assert found[-1] == ("WARNING", "more was refused than is told here, until the next connection")


def test_what_is_nothing_for_the_log(log: Log) -> None:
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
    log.check()
    logbook.write(events.Closed(KeyError("hunter2")))
    log.check(("INFO", "the connection is lost for good: KeyError"))
