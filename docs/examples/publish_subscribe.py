"""Publish and subscribe: two readers of their own speed, and one writer.

Run it with the URL of a server, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats.testing import NatsServer


async def read(rx: trionats.Feed[trionats.Msg], who: str) -> None:
    async for msg in rx:
        print(f"{who}: {msg.subject} {msg.data.decode()}")


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
        trionats.open_subscription(background, nc, "room.*.temperature") as all_rooms,
        trionats.open_subscription(background, nc, "room.kitchen.>", max_msgs=1) as kitchen,
        trio.open_nursery() as workers,
    ):
        workers.start_soon(read, all_rooms, "all")
        workers.start_soon(read, kitchen, "kitchen")

        await nc.publish("room.kitchen.temperature", b"21")
        await nc.publish("room.hall.temperature", b"18", headers={"Unit": "C"})
        await nc.publish("room.kitchen.temperature", b"22")

        await nc.flush()  # the server has had them all, and we have had what it sent
        all_rooms.stop()  # `kitchen` has ended by itself: it wanted one message


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer() as server:
            trio.run(main, server.url)
