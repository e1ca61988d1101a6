"""What two shops sold, and what they sold together.

Run it with the URL of a server that has JetStream (2.12 or later), or without: then it starts a server of its own.
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
        for shop in ("OSLO", "ROME"):
            await js.create_stream(name=shop, subjects=[f"{shop}.*"], storage="memory", allow_msg_counter=True)
        sources = [
            trionats.api.StreamSource(
                name=shop,
                subject_transforms=[trionats.api.SubjectTransform(src=f"{shop}.*", dest="sold.{{wildcard(1)}}")],
            )
            for shop in ("OSLO", "ROME")
        ]
        await js.create_stream(name="SOLD", sources=sources, storage="memory", allow_msg_counter=True)

        oslo, rome, sold = await js.counter("OSLO"), await js.counter("ROME"), await js.counter("SOLD")
        print("in Oslo:", await oslo.add("OSLO.tea", 3))
        print("in Oslo:", await oslo.add("OSLO.tea", -1), "after one came back")
        await rome.add("ROME.tea", 10**30)
        await rome.add("ROME.cake", 5)

        # A source is a little behind: wait for what was counted.
        arriving = await js.ordered_consumer("SOLD")
        for _ in range(4):
            await arriving.next()
        tea = await sold.get("sold.tea")
        print("of it in Oslo:", tea.sources["OSLO"]["OSLO.tea"])
        print("together:", tea.value)
        for name in ("SOLD", "OSLO", "ROME"):
            await js.delete_stream(name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
