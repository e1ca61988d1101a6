"""Which server is dialled next, and when: the pool's choice, the user's own, and what servers tell of each other.

The numbers are those of the failures that the tests would have caught.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from nats.errors import ServerNotInPoolError

from tests.worlds import HOUR, Hosts, connected, events_until, reconnected, settled, watched
from trionats import Client, KnownServer, errors, events, open_client
from trionats.events import CallbackFailed, ConnectionState, Reconnected, ReconnectFailed, ServersDiscovered

pytestmark = pytest.mark.usefixtures("autojump_clock")


DENIED = "Authorization Violation"


async def until_closed(nc: Client) -> None:
    while True:
        await nc.wait_connected()
        await trio.sleep(0.1)


def failed_callbacks(seen: list[events.ConnectionEvent]) -> list[tuple[str, Exception]]:
    return [(event.option, event.error) for event in seen if isinstance(event, CallbackFailed)]


async def test_the_server_just_lost_comes_last() -> None:
    async with watched(Hosts("a", "b", "c")) as (hosts, _, rx):
        for name in "abc":
            hosts[name].accepting = False
        hosts["a"].cut()
        while len(hosts.dials) < 4:
            await rx.receive()
        assert hosts.order[:4] == "abca"


@pytest.mark.parametrize("refused", [False, True], ids=["welcome", "refused first"])
async def test_two_hundred_clients_do_not_come_back_as_a_herd(refused: bool) -> None:
    """No 10 ms see more than a tenth of the first dials after the loss."""
    hosts = Hosts("a")
    async with trio.open_nursery() as nursery, trio.open_nursery() as clients:

        async def one(seed: int) -> None:
            rng = random.Random(seed)
            async with open_client(nursery, "nats://a", dial=hosts.dial, rng=rng, max_reconnect_attempts=-1) as nc:
                await reconnected(nc)

        for seed in range(200):
            clients.start_soon(one, seed)
        await settled()
        assert len(hosts["a"].live_links) == 200
        hosts.dials.clear()
        hosts["a"].dials = ["refuse"] * (200 if refused else 0)
        hosts["a"].cut("reset")
    first = [int(when * 100) for _, when in hosts.dials[:200]]
    histogram = [first.count(bucket) for bucket in set(first)]
    assert (sum(histogram), max(histogram) <= 20, len(histogram) > 30) == (200, True, True)
    assert len(hosts.dials) == (400 if refused else 200)


async def test_backoff_has_jitter_and_a_limit() -> None:
    """A client that cannot come back dials as often as it was told, further and further apart, and says why."""
    times: list[list[float]] = []
    for seed in range(3):
        hosts = Hosts("fake")
        async with connected(hosts, max_reconnect_attempts=5, rng=random.Random(seed)) as nc:
            hosts["fake"].accepting = False
            hosts["fake"].cut()
            await settled()
            with pytest.raises(errors.ConnectionClosedError, match="fake:4222"):
                await nc.wait_connected()
            assert isinstance(nc.last_error, errors.NoServersError)
            assert isinstance(nc.last_error.__cause__, OSError)
            assert nc.is_closed
        times.append([when for _, when in hosts.dials[1:]])
    assert [len(dials) for dials in times] == [5, 5, 5]
    assert len({dials[0] for dials in times}) == 3
    assert all(later - earlier <= 8 for dials in times for earlier, later in itertools.pairwise(dials))


async def test_the_backoff_ends_where_it_is_told_to() -> None:
    hosts = Hosts("a")
    options: dict[str, Any] = {"max_reconnect_attempts": 40, "reconnect_time_wait": 0.5, "max_reconnect_time_wait": 1.0}
    async with connected(hosts, rng=random.Random(7), **options) as nc:
        hosts["a"].accepting = False
        hosts["a"].cut()
        with pytest.raises(errors.ConnectionClosedError):
            await until_closed(nc)
    waits = [later - sooner for (_, sooner), (_, later) in itertools.pairwise(hosts.dials[1:])]
    assert len(waits) == 39
    assert 0.9 < max(waits) <= 1.0


@pytest.mark.parametrize("keep", [False, True])
async def test_a_client_shuffles_its_servers_unless_told_not_to(keep: bool) -> None:
    firsts = set()
    for seed in range(30):
        hosts = Hosts("a", "b", "c")
        async with connected(hosts, dont_randomize=keep, rng=random.Random(seed)):
            firsts.add(hosts.order)
    assert firsts == ({"a"} if keep else {"a", "b", "c"})


async def test_the_users_own_delay() -> None:
    options: dict[str, Any] = {"reconnect_delay": lambda attempts: attempts * 10.0, "max_reconnect_attempts": 4}
    async with watched(Hosts("a"), **options) as (hosts, _, rx):
        hosts["a"].dials = ["refuse"] * 3
        hosts["a"].cut()
        await events_until(rx, Reconnected)
    assert [round(b - a) for (_, a), (_, b) in itertools.pairwise(hosts.dials[1:])] == [10, 20, 30]


def bug(*_: object) -> Any:  # noqa: ANN401 - the user's bug
    raise ZeroDivisionError("the user's bug")


@pytest.mark.parametrize(
    ("delay", "told"), [(bug, 1), (lambda _: -1.0, 1), (lambda _: float("nan"), 1), (lambda _: "soon", 1), (None, 0)]
)
async def test_a_delay_that_fails_is_told_and_replaced(delay: Callable[[int], float] | None, told: int) -> None:
    async with watched(Hosts("a"), reconnect_delay=delay) as (hosts, _, rx):
        hosts["a"].dials = ["refuse"]
        hosts["a"].cut()
        seen = await events_until(rx, Reconnected)
    assert [option for option, _ in failed_callbacks(seen)] == ["reconnect_delay"] * told


async def test_the_user_picks_the_server() -> None:
    hosts = Hosts("a", "b", "c")
    asked: list[tuple[list[str], str]] = []

    def pick(servers: tuple[KnownServer, ...], info: dict[str, Any]) -> tuple[KnownServer | None, float]:
        asked.append(([server.url for server in servers], info["server_name"]))
        assert [server.did_connect for server in servers] == [True, False, False]
        assert not any(server.discovered for server in servers)
        return servers[2], 7.5

    async with watched(hosts, pick_server=pick) as (_, nc, rx):
        hosts["c"].dials = ["refuse"]
        hosts["a"].cut()
        await events_until(rx, Reconnected)
        assert nc.connected_url == "nats://c:4222"
    assert asked[0] == (["nats://a:4222", "nats://b:4222", "nats://c:4222"], "a")
    assert [(name, round(when, 1)) for name, when in hosts.dials] == [("a", 0.0), ("c", 7.5), ("c", 15.0)]


async def test_the_user_picks_none_for_the_usual() -> None:
    async with watched(Hosts("a", "b"), pick_server=lambda servers, info: (None, 5.0)) as (hosts, nc, rx):
        hosts["a"].cut()
        await events_until(rx, Reconnected)
        assert nc.connected_url == "nats://b:4222"
    assert hosts.dials[-1][1] >= 5


@pytest.mark.parametrize(
    ("pick", "kind"),
    [
        (lambda servers, info: (replace(servers[0], url="nats://elsewhere:4222"), 0.0), ServerNotInPoolError),
        (bug, ZeroDivisionError),
        (lambda servers, info: servers[0], TypeError),
        (lambda servers, info: (servers[0], -1.0), ValueError),
        (lambda servers, info: ("nats://a", 0.0), Exception),
    ],
)
async def test_a_pick_that_fails_is_told_and_replaced(pick: Any, kind: type[Exception]) -> None:  # noqa: ANN401 - whatever the user writes
    async with watched(Hosts("a", "b"), pick_server=pick) as (hosts, nc, rx):
        hosts["a"].cut()
        ((option, error),) = failed_callbacks(await events_until(rx, Reconnected))
        assert (option, isinstance(error, kind)) == ("pick_server", True)
        assert nc.connected_url == "nats://b:4222"


async def test_servers_replaced_at_run_time_which_ends_the_wait_for_an_old_one() -> None:
    async with watched(Hosts("a", "b", "c"), "nats://a", reconnect_delay=lambda _: HOUR) as (hosts, nc, rx):
        nc.set_servers(["nats://u:s3cret@b", "c:4222"])
        assert nc.servers == ("nats://b:4222", "nats://c:4222")
        assert nc.connected_url == "nats://a:4222"
        with pytest.raises(ValueError, match="port"):
            nc.set_servers("nats://d:99999999")
        hosts["a"].cut()
        await events_until(rx, Reconnected)
        assert nc.connected_url == "nats://b:4222"
        assert hosts["b"].link.options["user"] == "u"
        nc.set_servers("nats://b")
        hosts["b"].accepting = False
        hosts["b"].cut()
        await events_until(rx, ReconnectFailed)
        await trio.sleep(1)
        assert nc.state is ConnectionState.RECONNECTING
        nc.set_servers("nats://a")
        await nc.wait_connected()
        assert trio.current_time() - hosts.start < 5


async def test_discovered_servers_come_and_go_inherit_credentials_or_are_ignored() -> None:
    async with watched(Hosts("a", "b", "c"), "nats://u:s3cret@a") as (hosts, nc, rx):
        hosts["a"].announce(connect_urls=["a:4222", "b:4222"])
        assert await rx.receive() == ServersDiscovered(("nats://b:4222",))
        hosts["a"].announce(connect_urls=["c:4222", "a:4222"])
        assert await rx.receive() == ServersDiscovered(("nats://c:4222",))
        assert nc.discovered_servers == ("nats://c:4222",)
        assert nc.servers == ("nats://a:4222", "nats://c:4222")
        hosts["a"].announce(connect_urls=[])
        await nc.flush()
        assert nc.discovered_servers == ("nats://c:4222",)
        hosts["a"].cut()
        await events_until(rx, Reconnected)
        assert nc.connected_url == "nats://c:4222"
        assert {"user": "u", "pass": "s3cret"}.items() <= hosts["c"].link.options.items()
    async with watched(Hosts("a", "b"), "nats://a", ignore_discovered_servers=True) as (hosts, nc, _):
        hosts["a"].announce(connect_urls=["b:4222"])
        await nc.flush()
        assert nc.servers == ("nats://a:4222",)


@pytest.mark.parametrize(
    ("text", "dials", "kind"),
    # Only a finished login counts; the same refusal twice is enough.
    [("maximum connections exceeded", 6, errors.NoServersError), (DENIED, 3, errors.AuthorizationError)],
)
async def test_refusals_end_it(text: str, dials: int, kind: type[Exception]) -> None:
    hosts = Hosts("a")
    async with connected(hosts, token="old", max_reconnect_attempts=5) as nc:
        hosts["a"].authorize = lambda _: text
        hosts["a"].cut()
        with pytest.raises(errors.ConnectionClosedError):
            await until_closed(nc)
        assert len(hosts.dials) == dials
        assert isinstance(nc.last_error, kind)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (DENIED, {"ignore_auth_error_abort": True, "max_reconnect_attempts": -1}),
        ("maximum account active connections exceeded", {}),
    ],
)
async def test_a_refusal_is_tried_again(text: str, options: dict[str, Any]) -> None:
    async with watched(Hosts("a"), token="old", **options) as (hosts, nc, rx):
        refusals = iter([text] * 9)
        hosts["a"].authorize = lambda _: next(refusals, None)
        hosts["a"].cut()
        seen = await events_until(rx, Reconnected)
        assert sum(isinstance(event, ReconnectFailed) for event in seen) == 9
        assert nc.is_connected
