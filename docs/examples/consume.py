"""Work on the messages of a stream, with two workers, of which one leaves early: nothing is lost, nothing is done twice.

Run it with the URL of a server that has JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats.testing import NatsServer


async def worker(nursery: trio.Nursery, consumer: trionats.Consumer, done: set[int], most: int) -> None:
    async with trionats.open_consumer(nursery, consumer, max_messages=20, stop_after=most) as rx:
        async for msg in rx:
            done.add(int(msg.data))
            await msg.ack()


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, url) as nc,
    ):
        js = nc.jetstream()
        stream = await js.create_stream(name="ORDERS", subjects=["orders.*"])
        consumer = await js.create_consumer("ORDERS", durable_name="billing")
        for number in range(100):
            await js.publish("orders.new", b"%d" % number)

        first: set[int] = set()
        second: set[int] = set()
        async with trio.open_nursery() as workers:
            workers.start_soon(worker, nursery, consumer, first, 30)
            workers.start_soon(worker, nursery, consumer, second, 70)
        print(f"{len(first)} and {len(second)} were done, {len(first | second)} in all")
        await nc.flush()
        print(f"{(await consumer.info()).num_pending} are left")
        await js.delete_stream(stream.name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
