"""Restart the servers of a cluster one by one, while requests go on: none fails.

Run it without an argument: it starts three servers of its own, which takes a few seconds.
"""

from __future__ import annotations

import contextlib
import random
import socket
from typing import TYPE_CHECKING

import trio

import trionats
from trionats.events import Moved
from trionats.testing import TrioNatsServer, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONFIG = """
lame_duck_grace_period: "1s"
lame_duck_duration: "31s"
cluster {{ name: example, listen: 127.0.0.1:{port}, routes: [{routes}] }}
"""


async def main() -> None:
    async with open_cluster() as servers, trio.open_nursery() as background:
        urls = [server.url for server in servers]
        async with (
            trionats.open_client(background, urls, dont_randomize=True) as nc,
            trionats.open_events(background, nc) as events,
            trio.open_nursery() as workers,
        ):
            workers.start_soon(greet, background, nc)
            workers.start_soon(ask, nc)
            await trio.sleep(0.5)
            servers[0].lame_duck()
            async for event in events:
                print(type(event).__name__)
                if isinstance(event, Moved):
                    break
            await trio.sleep(2)
            workers.cancel_scope.cancel()


async def greet(background: trio.Nursery, nc: trionats.Client) -> None:
    async with trionats.open_subscription(background, nc, "greet", queue="greeters") as requests:
        async for request in requests:
            await request.respond(b"hello")


async def ask(nc: trionats.Client) -> None:
    await nc.flush()
    answered = 0
    try:
        while True:
            await nc.request("greet")
            answered += 1
            await trio.sleep(0.001)
    finally:
        print("every request was answered" if answered > 100 else f"only {answered} requests")


@contextlib.asynccontextmanager
async def open_cluster() -> AsyncIterator[list[TrioNatsServer]]:
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in ports)
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_server(CONFIG.format(port=port, routes=routes))) for port in ports]


def free_port() -> int:
    # Below the range from which the system takes its own.
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


if __name__ == "__main__":
    trio.run(main)
