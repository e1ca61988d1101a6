"""A planned move, with either connection cut after every byte, in either direction (test_link.py does so for a plain session).

Whatever happens, the client ends up with one connection, each subscription on it exactly once, only whole frames were sent,
and what was published came at most once and in order.
"""

from __future__ import annotations

import contextlib
import json
import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.fakes import FakeServer, cut_frame
from trionats import errors, open_client, open_subscription

if TYPE_CHECKING:
    from trionats import Client

HOUR = 3600.0


async def session(where: str = "", **cut: int) -> dict[str, tuple[int, int]]:
    """A scripted session with a move in it, cut after so many bytes of the first link to one of the servers.

    Returns:
        How many bytes went up and down on the first link to each server.
    """
    servers = {name: FakeServer(info={"server_name": name}) for name in "ab"}
    for server in servers.values():
        server.on("echo", lambda frame: frame.payload)

    async def dial(host: str, port: int) -> trio.abc.Stream:
        server = servers[host]
        stream = await server.dial(host, port)
        if host == where and len(server.links) == 1:
            server.link.cut_after(**cut)
        return stream

    with trio.fail_after(HOUR):
        async with trio.open_nursery() as nursery:
            opening = open_client(nursery, ["a", "b"], dial=dial, dont_randomize=True, rng=random.Random(1))
            async with (
                opening as nc,
                open_subscription(nursery, nc, "plain", max_msgs=100),
                open_subscription(nursery, nc, "work", queue="q"),
            ):
                await script(servers, nc)
                here = servers[nc.server_name]
                assert sorted(s.subject for s in here.link.subscriptions.values() if "INBOX" not in s.subject) == [
                    "plain",
                    "work",
                ]
                assert [link for server in servers.values() for link in server.live_links] == [here.link]
    check(servers)
    return {name: (len(server.links[0].received), len(server.links[0].given)) for name, server in servers.items()}


async def script(servers: dict[str, FakeServer], nc: Client) -> None:
    for step in range(8):
        if step == 2 and servers["a"].live_links:
            lame = {**servers["a"].info, "ldm": True}
            servers["a"].inject(b"INFO " + json.dumps(lame).encode() + b"\r\n")
        await nc.publish("n", b"%d" % step)
        while True:
            try:
                assert (await nc.request("echo", b"question")).data == b"question"
                break
            except (errors.DisconnectedError, errors.NoRespondersError):
                await nc.wait_connected()
        await trio.sleep(0.1)
    # The old side is left within this, and a cut link comes back.
    await trio.sleep(30)
    await settle(nc)


async def settle(nc: Client) -> None:
    """Wait until a connection stands that has been heard to work, and is not found cut behind the last byte of that answer."""
    while True:
        await nc.wait_connected()
        with contextlib.suppress(errors.DisconnectedError):
            await nc.flush()
            await trio.testing.wait_all_tasks_blocked()
            if nc.is_connected:
                return


def check(servers: dict[str, FakeServer]) -> None:
    sent: list[int] = []
    for name in "ab":
        servers[name].check()
        for link in servers[name].links:
            whole = bytearray(link.received)
            verbs = []
            while (frame := cut_frame(whole)) is not None:
                verbs.append(frame.verb)
            assert verbs[:2] == ["CONNECT", "PING"][: len(verbs)]
        sent += [int(frame.payload) for frame in servers[name].sent("PUB", "n")]
    assert len(sent) == len(set(sent)), "at most once"
    assert len(sent) >= 7, "what was in the batch that was cut is all that may be missing"


async def test_uncut(autojump_clock: trio.testing.MockClock) -> None:
    sizes = await session()
    assert all(up > 200 and down > 200 for up, down in sizes.values())


@pytest.mark.parametrize("where", ["a", "b"])
async def test_a_move_cut_after_every_byte(autojump_clock: trio.testing.MockClock, where: str) -> None:
    up, down = (await session())[where]
    for count in range(1, up + 1):
        await session(where, sent=count)
    for count in range(1, down + 1):
        await session(where, given=count)
