"""Two workers share a work queue: what one fails at or is cancelled with is done by the other, and nothing is done twice.

Run it with the URL of a server with JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats import api
from trionats.testing import NatsServer


class UnreadableOrder(Exception):
    """Nobody can make anything of it."""


async def pack(order: bytes) -> None:
    if not order.isalpha():
        raise UnreadableOrder(order)
    # Longer than the consumer waits: the server hears all the while that it is worked on.
    await trio.sleep(1.5)


async def work(name: str, consumer: trionats.Consumer) -> None:
    # One at a time: what is slow is not to wait behind something that is slow.
    while (order := await consumer.next(expires=1)) is not None:
        try:
            async with order.processing(term_on=UnreadableOrder):
                await pack(order.data)
                # So the message is known to be gone; without this, `processing` acknowledges it at its end.
                await order.ack_sync()
        except UnreadableOrder:
            print(f"{name} gives up {order.data!r}")
        else:
            print(f"{name} has packed {order.data!r}, delivery {order.metadata.num_delivered}")


async def main(url: str) -> None:
    async with trio.open_nursery() as background, trionats.open_client(background, url) as nc:
        js = nc.jetstream()
        await js.create_stream(name="ORDERS", subjects=["orders.>"], retention=api.RetentionPolicy.WORK_QUEUE)
        try:
            packers = await js.create_consumer("ORDERS", durable_name="packers", ack_wait=1)
            for order in (b"tea", b"???", b"cake"):
                await js.publish("orders.new", order)
            # This one is stopped in the middle of its work.
            with trio.move_on_after(0.5):
                await work("the first", packers)
            await work("the second", packers)
            print(f"left: {(await js.stream_info('ORDERS')).state.messages}")
        finally:
            with trio.move_on_after(2, shield=True):
                await js.delete_stream("ORDERS")


if __name__ == "__main__":
    if sys.argv[1:]:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
