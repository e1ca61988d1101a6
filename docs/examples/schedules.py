"""A message that the server stores every second, until that is taken back.

Run it with the URL of a server that has JetStream (2.14 or later), or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats.testing import NatsServer


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, url) as nc,
    ):
        js = nc.jetstream()
        house = await js.create_stream(
            name="HOUSE", subjects=["timer.*", "water.*"], storage="memory", allow_msg_schedules=True
        )
        await js.schedule("timer.garden", "10 minutes", target="water.garden", every=1)

        consumer = await house.create_consumer(name="valves", filter_subject="water.*", inactive_threshold=60)
        async with trionats.open_consumer(nursery, consumer) as rx:
            for _ in range(2):
                msg = await rx.receive()
                print(f"{msg.subject}: {msg.data.decode()}, by {msg.headers['Nats-Scheduler']}")
                await msg.ack()

        for schedule in await js.schedules("HOUSE"):
            print(f"{schedule.subject} every {schedule.every:.0f} s to {schedule.target}")
        print("taken back:", await js.unschedule("timer.garden"))
        await house.delete()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
