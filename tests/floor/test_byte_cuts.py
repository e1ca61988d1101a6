"""A connection cut after every byte, in either direction: that of a plain session, and either one of a migration.

Whatever happens, the client ends up with one connection, each subscription on it exactly once, only whole frames were sent,
and what was published came at most once and in order.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio
import trio.testing

from tests.fakes import cut_frame
from tests.worlds import HOUR, Hosts, settled
from trionats import Client, Feed, Msg, errors, open_client, open_subscription

pytestmark = pytest.mark.usefixtures("autojump_clock")

Sizes: TypeAlias = dict[str, tuple[int, int]]
Script: TypeAlias = Callable[[Hosts, "Client", trio.Nursery], Awaitable[None]]


async def session(script: Script, where: str, *, sip: int = 0, chunk: int = 0, **cut: int) -> Sizes:
    """A scripted session with two servers, cut after so many bytes of the first link to one of them.

    Returns:
        How many bytes went up and down on the first link to each server that was dialled.
    """
    hosts = Hosts("a", "b")
    for server in hosts.servers.values():
        server.sip, server.chunk = sip, chunk
        server.on("echo", lambda frame: frame.payload)

    async def dial(host: str, port: int) -> trio.abc.Stream:
        stream = await hosts.dial(host, port)
        if cut and host == where and len(hosts[host].links) == 1:
            hosts[host].link.cut_after(**cut)
        return stream

    with trio.fail_after(HOUR):
        async with trio.open_nursery() as nursery:
            options = {"dial": dial, "dont_randomize": True, "rng": random.Random(1)}
            async with open_client(nursery, hosts.urls, **options) as nc:  # type: ignore[arg-type]
                await script(hosts, nc, nursery)
    hosts.check()
    for server in hosts.servers.values():
        for link in server.links:
            verbs, rest = frames(link.received)
            assert verbs[:2] == ["CONNECT", "PING"][: len(verbs)]
            assert link is server.links[0] or not rest
    assert cut or all(len(server.links) <= 1 for server in hosts.servers.values())
    links = {name: server.links[0] for name, server in hosts.servers.items() if server.links}
    return {name: (len(link.received), len(link.given)) for name, link in links.items()}


def frames(sent: bytearray) -> tuple[list[str], bytearray]:
    """Give the verbs of the whole frames, and what is left."""
    rest, found = bytearray(sent), []
    while (frame := cut_frame(rest)) is not None:
        found.append(frame.verb)
    return found, rest


async def ask(nc: Client) -> None:
    """Ask until an answer comes through."""
    while True:
        try:
            assert (await nc.request("echo", b"question")).data == b"question"
            await nc.flush()
            return
        except (errors.DisconnectedError, errors.NoRespondersError):
            await nc.wait_connected()


async def plain(hosts: Hosts, nc: Client, nursery: trio.Nursery) -> None:
    """Publish, ask and hear."""
    async with open_subscription(nursery, nc, "s.*", max_msgs=50) as rx:
        for number in range(3):
            await nc.publish("s.x", b"%d" % number, headers={"N": str(number)})
        await ask(nc)
        await hear(hosts, nc, rx)


async def hear(hosts: Hosts, nc: Client, rx: Feed[Msg]) -> None:
    """Wait until a message comes through: those of an outage are lost, as core NATS has it."""
    while True:
        await nc.wait_connected()
        hosts[nc.server_name].publish("s.y", b"after")
        with trio.move_on_after(5):
            async for msg in rx:
                if msg.data == b"after":
                    return


async def migrating(hosts: Hosts, nc: Client, nursery: trio.Nursery) -> None:
    """Publish and ask, while the first server goes."""
    async with open_subscription(nursery, nc, "plain", max_msgs=100), open_subscription(nursery, nc, "work", queue="q"):
        for step in range(8):
            if step == 2 and hosts["a"].live_links:
                hosts["a"].announce(ldm=True)
            await nc.publish("n", b"%d" % step)
            await ask(nc)
            await trio.sleep(0.1)
        # The old side is left within this, and a cut link comes back.
        await trio.sleep(30)
        await settle(nc)
        here = hosts[nc.server_name]
        assert sorted(s.subject for s in here.subscriptions if "INBOX" not in s.subject) == ["plain", "work"]
        assert [link for server in hosts.servers.values() for link in server.live_links] == [here.link]
    sent = [int(frame.payload) for server in hosts.servers.values() for frame in server.sent("PUB", "n")]
    assert len(sent) == len(set(sent)), "at most once"
    assert len(sent) >= 7, "what was in the batch that was cut is all that may be missing"


async def settle(nc: Client) -> None:
    """Wait until a connection stands that has been heard to work, and is not found cut behind the last byte of that answer."""
    while True:
        await nc.wait_connected()
        with contextlib.suppress(errors.DisconnectedError):
            await nc.flush()
            await settled()
            if nc.is_connected:
                return


SIPS = {"sip": 7, "chunk": 5}


@pytest.mark.parametrize(
    ("script", "where", "pieces", "step"),
    [(plain, "a", {}, 1), (plain, "a", SIPS, 3), (migrating, "a", {}, 1), (migrating, "b", {}, 1)],
)
async def test_cut_after_every_byte(script: Script, where: str, pieces: dict[str, int], step: int) -> None:
    up, down = (await session(script, where, **pieces))[where]
    for way, most in (("sent", up), ("given", down)):
        assert most > 200
        for count in range(1, most + 1, step):
            await session(script, where, **pieces, **{way: count})
