"""Work through a stream in batches: fetch, work, acknowledge, until there is nothing left.

Run it with the URL of a server with JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats import api
from trionats.testing import NatsServer


async def work(consumer: trionats.Consumer) -> None:
    # An empty list is the server's word that there is nothing: without a connection, fetch raises.
    while batch := await consumer.fetch(4, expires=0.5):
        print(f"{len(batch)} orders:", *(msg.data.decode() for msg in batch))
        for msg in batch:
            await msg.ack()
    print("nothing left")


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
    ):
        js = nc.jetstream()
        await js.create_stream(name="ORDERS", subjects=["orders.*"], storage=api.StorageType.MEMORY)
        for number in range(1, 11):
            await js.publish("orders.new", f"no. {number}")
        consumer = await js.create_consumer("ORDERS", durable_name="workers")
        await work(consumer)

        # A deadline shortens what the server is told, so that nothing is lost by it.
        await js.publish("orders.new", "no. 11")
        with trio.move_on_after(5):
            msg = await consumer.next(expires=60)
            if msg is not None:
                print("one more:", msg.data.decode())
                await msg.ack()
        await js.delete_stream("ORDERS")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
