"""Where does a message go? Ask the servers that it passes, without delivering it."""

import trio

import trionats
from trionats.testing import open_server


async def main() -> None:
    async with (
        open_server("mappings { orders.old: orders.new }", jetstream=True, name="hub") as server,
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, server.url, name="worker") as worker,
        trionats.open_subscription(nursery, worker, "orders.*", queue="workers"),
        trionats.open_client(nursery, server.url, name="shop") as nc,
    ):
        await nc.jetstream().add_stream(name="ORDERS", subjects=["orders.>"], max_msg_size=10)
        await worker.flush()
        trace = await nc.trace("orders.old", b"two apples, one pear", only=True)
        for event in trace.hops[0].events:
            print(event)
        for to in trace.deliveries:
            print(f"{to.name} would get it, as a member of {to.queue}")
        for stream in trace.streams:
            print(f"{stream.stream} would not store it: {stream.error}")


trio.run(main)
