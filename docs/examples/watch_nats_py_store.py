"""Watch an object store of nats-py's, with an end to it.

Run it with the URL of a server that has JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats import bridge
from trionats.bridge import aio_as_trio
from trionats.testing import NatsServer


async def main(url: str) -> None:
    async with trio.open_nursery() as nursery, bridge.open_nats_py(nursery, url) as nc:
        js = nc.jetstream()
        store = await aio_as_trio(js.create_object_store)("reports")
        await aio_as_trio(store.put)("monday.txt", b"all is well")

        async with trionats.open_watcher(nursery, store) as rx:
            for info in await rx.snapshot():
                print(f"stored:  {info.name}, {info.size} bytes")

            await aio_as_trio(store.put)("tuesday.txt", b"all is well still")
            async for info in rx:
                print(f"changed: {info.name}, {info.size} bytes")
                rx.stop()  # and this loop ends

        await aio_as_trio(js.delete_object_store)("reports")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
