"""Dialling: names with several addresses, real sockets, and diallers of the user's own (as in all tests in memory)."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.worlds import Hosts, events_until, refusal, watched
from trionats import errors, events
from trionats._connection.dial import dial_tcp
from trionats._connection.wire import SocketWire, wire

Clock = trio.testing.MockClock


async def test_a_dialled_socket_sends_at_once_and_a_closed_port_is_told() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with listeners[0]:
        stream = await dial_tcp("127.0.0.1", port)
        assert isinstance(stream, trio.SocketStream)
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert isinstance(wire(stream), SocketWire)
        await stream.aclose()
    with pytest.raises(ConnectionRefusedError, match=f"(?s)refused.*{port}|{port}.*refused"):
        await dial_tcp("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("a..b", "is not the name of a host"),
        ("x" * 70 + ".example", "is not the name of a host"),  # what the name's codec refuses is no OSError by itself
        ("nosuch.invalid", r"'nosuch\.invalid'"),
    ],
)
async def test_no_name_of_a_host(host: str, said: str) -> None:
    with pytest.raises(OSError, match=said):
        await dial_tcp(host, 4222)


ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")


class Socket(trio.socket.SocketType):
    """A socket that goes nowhere: it knows only how connecting ends."""

    type = trio.socket.SOCK_STREAM

    def __init__(self, network: Network) -> None:
        self._network = network

    def setsockopt(self, *_: object) -> None: ...

    def close(self) -> None: ...

    async def connect(self, address: tuple[str, int]) -> None:
        self._network.tried.append((address[0], trio.current_time()))
        match self._network.endings.get(address[0]):
            case "refuse":
                raise ConnectionRefusedError(111, f"{address[0]} refuses")
            case "hang":
                await trio.sleep_forever()
        await trio.lowlevel.checkpoint()


class Network(trio.abc.HostnameResolver, trio.abc.SocketFactory):
    """One name with several addresses: how connecting to each of them ends, and which were tried when."""

    def __init__(self) -> None:
        self.endings: dict[str, str] = {}
        self.tried: list[tuple[str, float]] = []

    async def getaddrinfo(self, host: object, port: object, *_: int, **__: int) -> Any:  # noqa: ANN401 - the interface's
        await trio.lowlevel.checkpoint()
        kind = (trio.socket.AF_INET, trio.socket.SOCK_STREAM, 0, "")
        return [(*kind, (address, port)) for address in ADDRESSES]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise NotImplementedError

    def socket(self, *_: object, **__: object) -> Socket:
        return Socket(self)


@pytest.fixture
async def network(autojump_clock: Clock) -> AsyncIterator[Network]:
    made = Network()
    before = trio.socket.set_custom_hostname_resolver(made), trio.socket.set_custom_socket_factory(made)
    yield made
    trio.socket.set_custom_hostname_resolver(before[0])
    trio.socket.set_custom_socket_factory(before[1])


async def test_addresses_are_tried_in_turn_and_split_the_time(network: Network) -> None:
    """ADR-11."""
    network.endings = {"10.0.0.1": "hang", "10.0.0.2": "refuse", "10.0.0.3": "hang"}
    start = trio.current_time()
    with trio.fail_after(4):
        assert isinstance(await dial_tcp("many", 4222), trio.SocketStream)
    tried = [(address, when - start) for address, when in network.tried]
    assert tried == [("10.0.0.1", 0), ("10.0.0.2", 1), ("10.0.0.3", 1), ("10.0.0.4", pytest.approx(2.5))]


async def test_addresses_are_shuffled(network: Network) -> None:
    firsts = set()
    for seed in range(50):
        network.tried.clear()
        await dial_tcp("many", 4222, rng=random.Random(seed))
        firsts.add(network.tried[0][0])
    assert firsts == set(ADDRESSES)


async def test_no_address_answers(network: Network) -> None:
    network.endings = dict.fromkeys(ADDRESSES, "refuse")
    with pytest.raises(OSError, match=r"10\.0\.0\.4 refuses"):
        await dial_tcp("many", 4222)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_client_shuffles_addresses_unless_told_not_to(network: Network, keep: bool) -> None:
    network.endings = dict.fromkeys(ADDRESSES, "refuse")
    orders = set()
    for seed in range(10):
        network.tried.clear()
        error = await refusal("nats://many", rng=random.Random(seed), dont_randomize=keep)
        assert isinstance(error, errors.NoServersError)
        orders.add(tuple(address for address, _ in network.tried))
    assert orders == {ADDRESSES} if keep else len(orders) > 3


async def test_a_dialler_that_fails_in_its_own_way_fails_the_attempt_only(autojump_clock: Clock) -> None:
    hosts = Hosts("a")
    failures: list[Exception | None] = [trio.TooSlowError("mine"), KeyError("mine"), OSError("mine"), None]

    async def dial(host: str, port: int) -> Any:  # noqa: ANN401 - whatever the user gives
        if not hosts.dials or not failures:
            return await hosts.dial(host, port)
        if (failure := failures.pop(0)) is not None:
            raise failure
        return None

    async with watched(hosts, dial=dial) as (_, nc, rx):
        hosts["a"].cut()
        seen = await events_until(rx, events.Reconnected)
        assert [str(event.reason) for event in seen if isinstance(event, events.ReconnectFailed)] == [
            "dial failed: TooSlowError: mine",
            "dial failed: KeyError: 'mine'",
            "mine",
            "dial failed: it returned no trio.abc.Stream but NoneType",
        ]
        assert nc.is_connected
