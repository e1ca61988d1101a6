"""See what happens to the connection: a server goes and comes back.

Run it without an argument: it starts a server of its own and restarts that. With a server's URL it says what happens to
the connection for ten seconds.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats.events import Reconnected
from trionats.testing import open_server


async def main() -> None:
    async with (
        open_server() as server,
        trio.open_nursery() as background,
        trionats.open_client(background, server.url, reconnect_time_wait=0.1) as nc,
        trionats.open_events(background, nc) as events,
    ):
        await server.restart()
        async for event in events:
            print(type(event).__name__)
            if isinstance(event, Reconnected):
                break


async def listen(url: str) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
        trionats.open_events(background, nc) as events,
    ):
        with trio.move_on_after(10):
            async for event in events:
                print(event)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(listen, sys.argv[1])
    else:
        trio.run(main)
