"""FastStream, which is built on nats-py and asyncio, beside trionats in one Trio program.

Run it with the URL of a server, or without: then it starts a server of its own. It needs `pip install 'faststream[nats]'`.
"""

from __future__ import annotations

import json
import sys

import trio
from faststream.nats import NatsBroker

import trionats
from trionats import bridge
from trionats.bridge import aio_as_trio
from trionats.testing import NatsServer

PRICES = {"tea": 3, "cake": 5}


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, url) as nc,
        bridge.open_nats_py(nursery, url),  # its loop is FastStream's, too
    ):
        broker = NatsBroker(url, logger=None)

        @broker.subscriber("orders.new")
        @broker.publisher("orders.priced")
        async def price(order: dict[str, str]) -> dict[str, object]:  # noqa: ASYNC124 - a plain one runs in a thread
            return order | {"price": PRICES[order["item"]]}

        await aio_as_trio(broker.start)()

        async with (
            # Over our own connection, and over FastStream's.
            trionats.open_subscription(nursery, nc, "orders.priced") as priced,
            bridge.open_subscription(nursery, broker.connection, "orders.new") as new,
        ):
            await nc.flush()
            await aio_as_trio(broker.connection.flush)()
            for item in PRICES:
                await nc.publish("orders.new", json.dumps({"item": item}).encode())
                order, reply = await new.receive(), await priced.receive()
                print(f"{json.loads(order.data)['item']} costs {json.loads(reply.data)['price']}")

        await aio_as_trio(broker.stop)()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer() as server:
            trio.run(main, server.url)
