"""Settings under keys: written by several at once without losing a change, read, listed, and kept under other names.

Run it with the URL of a server that has JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats import errors
from trionats.testing import NatsServer


async def count(kv: trionats.KeyValue, visits: int) -> None:
    """Add to a number that others add to as well."""
    for _ in range(visits):
        while True:
            entry = await kv.get("visits", leader=True)
            try:
                await kv.update("visits", str(int(entry.value) + 1), entry.revision)
            except errors.KeyWrongLastSequenceError:
                continue  # somebody else was faster
            break


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
    ):
        js = nc.jetstream()
        kv = await js.create_key_value(bucket="settings", history=5)

        await kv.put("lamp.hall", "on")
        await kv.put("lamp.kitchen", "off")
        await kv.put("lamp.hall", "dimmed")
        print("the hall:", [entry.value.decode() for entry in await kv.history("lamp.hall")])

        await kv.delete("lamp.kitchen")
        print("lamps:", await kv.keys("lamp.*"))
        try:
            await kv.get("lamp.kitchen")
        except errors.KeyNotFoundError as error:
            print("the kitchen:", error)

        await kv.create("visits", "0")
        async with trio.open_nursery() as workers:
            for _ in range(3):
                workers.start_soon(count, kv, 5)
        print("visits:", (await kv.get("visits", leader=True)).value.decode())

        paths = kv.with_codecs(keys=trionats.PathCodec())
        await paths.put("/lamp/garden", "off")
        print("paths:", await paths.keys("/lamp/*"), "are", await kv.keys("_root_.>"))

        await js.delete_key_value("settings")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
