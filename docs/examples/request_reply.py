"""Request and reply, with deadlines that are cancel scopes.

Run it with the URL of a server, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats.testing import NatsServer


async def greet(background: trio.Nursery, nc: trionats.Client, *, task_status: trio.TaskStatus[None]) -> None:
    async with trionats.open_subscription(background, nc, "greet.*", queue="greeters") as rx:
        task_status.started()
        async for msg in rx:
            name = msg.subject.removeprefix("greet.")
            if name != "nobody":
                await msg.respond(f"Hello, {name}!".encode())


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
        trio.open_nursery() as workers,
    ):
        await workers.start(greet, background, nc)

        reply = await nc.request("greet.trio")
        print(reply.data.decode())

        with trio.move_on_after(0.2) as scope:
            await nc.request("greet.nobody")
        print("no reply in time" if scope.cancelled_caught else "a reply")

        try:
            await nc.request("insult.trio")
        except trionats.errors.NoRespondersError:
            print("nobody listens there")

        workers.cancel_scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer() as server:
            trio.run(main, server.url)
