"""Dialling: names with several addresses, real sockets, and diallers of the user's own."""

from __future__ import annotations

import random
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.worlds import Hosts, connected, events_until, refusal, watched
from trionats import errors, events
from trionats._connection.dial import dial_tcp
from trionats._connection.wire import SocketWire, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes import Frame

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


# -- names with several addresses --------------------------------------------------------------------------------------

ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")


class Resolver(trio.abc.HostnameResolver):
    """A name with several addresses."""

    async def getaddrinfo(self, host: object, port: object, *_: int, **__: int) -> Any:  # noqa: ANN401 - the interface's
        await trio.lowlevel.checkpoint()
        kind = (trio.socket.AF_INET, trio.socket.SOCK_STREAM, 0, "")
        return [(*kind, (address, port)) for address in ADDRESSES]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise NotImplementedError


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


class Network(trio.abc.SocketFactory):
    """How connecting to each address ends, and which were tried when."""

    def __init__(self, endings: dict[str, str]) -> None:
        self.endings = endings
        self.tried: list[tuple[str, float]] = []

    def socket(self, *_: object, **__: object) -> Socket:
        return Socket(self)


@asynccontextmanager
async def network(**endings: str) -> AsyncIterator[Network]:
    made = Network(endings)
    before = trio.socket.set_custom_hostname_resolver(Resolver())
    factory = trio.socket.set_custom_socket_factory(made)
    try:
        yield made
    finally:
        trio.socket.set_custom_hostname_resolver(before)
        trio.socket.set_custom_socket_factory(factory)


ALL_REFUSE = dict.fromkeys(ADDRESSES, "refuse")


async def test_addresses_are_tried_in_turn_and_split_the_time(autojump_clock: Clock) -> None:
    """ADR-11."""
    async with network(**{"10.0.0.1": "hang", "10.0.0.2": "refuse", "10.0.0.3": "hang"}) as net:
        start = trio.current_time()
        with trio.fail_after(4):
            assert isinstance(await dial_tcp("many", 4222), trio.SocketStream)
        tried = [(address, when - start) for address, when in net.tried]
        assert tried == [("10.0.0.1", 0), ("10.0.0.2", 1), ("10.0.0.3", 1), ("10.0.0.4", pytest.approx(2.5))]


async def test_addresses_are_shuffled(autojump_clock: Clock) -> None:
    firsts = set()
    async with network() as net:
        for seed in range(50):
            net.tried.clear()
            await dial_tcp("many", 4222, rng=random.Random(seed))
            firsts.add(net.tried[0][0])
    assert firsts == set(ADDRESSES)


async def test_no_address_answers(autojump_clock: Clock) -> None:
    async with network(**ALL_REFUSE):
        with pytest.raises(OSError, match=r"10\.0\.0\.4 refuses"):
            await dial_tcp("many", 4222)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_client_shuffles_addresses_unless_told_not_to(autojump_clock: Clock, keep: bool) -> None:
    orders = set()
    async with network(**ALL_REFUSE) as net:
        for seed in range(10):
            net.tried.clear()
            error = await refusal("nats://many", rng=random.Random(seed), dont_randomize=keep)
            assert isinstance(error, errors.NoServersError)
            orders.add(tuple(address for address, _ in net.tried))
    assert orders == {ADDRESSES} if keep else len(orders) > 3


# -- diallers of one's own -----------------------------------------------------------------------------------------------


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
