"""Buckets: created, changed in one field, mirrored, collected, and looked at.

Run it with the URL of a server with JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats import api
from trionats.testing import NatsServer

MEMORY = api.StorageType.MEMORY


async def main(url: str) -> None:
    async with trio.open_nursery() as background, trionats.open_client(background, url) as nc:
        js = nc.jetstream()
        oslo = await js.create_key_value(bucket="OSLO", history=5, ttl=3600, storage=MEMORY)
        rome = await js.create_key_value(bucket="ROME", storage=MEMORY)
        await oslo.put("hall.light", "on")
        await rome.put("yard.light", "off")

        # The rest stays as it is.
        await js.update_key_value(bucket="OSLO", limit_marker_ttl=60)
        status = await oslo.status()
        print(status.values, "value,", status.history, "of each key, for", status.ttl, "s")

        sources = [api.StreamSource("OSLO"), api.StreamSource("ROME")]
        towns = await js.create_key_value(bucket="TOWNS", sources=sources, storage=MEMORY)
        async with trio.open_nursery() as nursery, trionats.open_watcher(nursery, towns) as rx:
            print("collected:", sorted([(await rx.receive()).key, (await rx.receive()).key]))

        copy = await js.create_key_value(bucket="COPY", mirror=api.StreamSource("OSLO"), storage=MEMORY)
        await copy.put("hall.light", "off")  # which goes to its origin
        print("at the origin:", (await oslo.get("hall.light")).value.decode())
        async with trio.open_nursery() as nursery, trionats.open_watcher(nursery, copy) as rx:
            while (await rx.receive()).value != b"off":
                pass
        print("mirrored:", await copy.keys())

        for bucket in await js.key_value_names():
            await js.delete_key_value(bucket)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
