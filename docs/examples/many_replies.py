"""Ask many services at once, read a reply in parts, and shut a service down without losing a request.

Run it with the URL of a server, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats.testing import NatsServer


async def weather(url: str, city: str, *, task_status: trio.TaskStatus[trionats.Client]) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
        trionats.open_subscription(background, nc, "weather.>") as rx,
    ):
        await nc.flush()
        task_status.started(nc)
        async for msg in rx:
            if msg.subject == "weather.here":
                await msg.respond(f"{city}: fine".encode())
            elif msg.subject == f"weather.{city}.hours":
                for hour in (6, 12, 18):
                    await msg.respond(f"{hour}:00 fine".encode())
                await msg.respond()
    # The loop has come to its end, and every reply is sent.
    print(f"{city} is closed")


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
        trio.open_nursery() as services,
    ):
        oslo: trionats.Client = await services.start(weather, url, "oslo")
        rome: trionats.Client = await services.start(weather, url, "rome")

        # All that reply within a second; no longer than 0.3 s between two of them.
        with trio.move_on_after(1):
            reports = await nc.request_many("weather.here", stall=0.3)
            print(sorted(report.data.decode() for report in reports))

        # One after the other, until an empty one says that there are no more.
        async with trionats.open_replies(
            background, nc, "weather.oslo.hours", sentinel=lambda msg: not msg.data
        ) as replies:
            async for reply in replies:
                print(reply.data.decode())

        await oslo.drain()
        await rome.drain()

        try:
            await nc.request_many("weather.here")
        except trionats.errors.NoRespondersError:
            print("nobody is left")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer() as server:
            trio.run(main, server.url)
