"""Partitions: the orders of each customer are worked on one after the other, by members that come and go.

Run it with the URL of a server with JetStream (2.11 or later), or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import trio

import trionats
from trionats import api
from trionats.testing import NatsServer

CUSTOMERS = ("ann", "bob", "cyd", "dan", "eve", "fay")
ORDERS = 10


class Shop:
    """What was packed for whom."""

    def __init__(self) -> None:
        self.done: dict[str, list[int]] = defaultdict(list)
        self.packed = trio.Event()

    async def work(self, nursery: trio.Nursery, js: trionats.JetStream, name: str) -> None:
        """Be a member, for as long as nobody cancels it."""
        async with trionats.open_partition(nursery, js, "ORDERS", "packing", name, elastic=True) as rx:
            async for order in rx:
                # The subject is that of the stream: the partition is not seen.
                customer = order.subject.split(".")[1]
                self.done[customer].append(int(order.data))
                await order.ack()
                if sum(map(len, self.done.values())) % (len(CUSTOMERS) * ORDERS) == 0:
                    self.packed.set()

    async def finished(self) -> None:
        """Wait until all that was ordered is packed."""
        await self.packed.wait()
        self.packed = trio.Event()


async def order(js: trionats.JetStream) -> None:
    """Let each customer order something."""
    for number in range(ORDERS):
        for customer in CUSTOMERS:
            await js.publish(f"orders.{customer}", str(number))


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
    ):
        js = nc.jetstream()
        await js.create_stream(name="ORDERS", subjects=["orders.*"], storage=api.StorageType.MEMORY)
        group = await js.create_group(
            "ORDERS", "packing", 6, elastic=True, filters={"orders.*": [1]}, members=["left", "right"]
        )
        print("partitions:", {member: list(held) for member, held in group.partitions.items()})
        shop = Shop()
        async with trio.open_nursery() as members:
            for name in ("left", "right", "middle"):
                members.start_soon(shop.work, background, js, name)
            await order(js)
            await shop.finished()
            # One more hand. It waits until the others have let go of what becomes its own.
            group = await js.add_members("ORDERS", "packing", "middle")
            print("partitions:", {member: list(held) for member, held in group.partitions.items()})
            await order(js)
            await shop.finished()
            members.cancel_scope.cancel()
        in_order = all(done == [*range(ORDERS), *range(ORDERS)] for done in shop.done.values())
        print("each customer's orders were packed in order:", in_order)
        await js.delete_group("ORDERS", "packing", elastic=True)
        await js.delete_stream("ORDERS")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
