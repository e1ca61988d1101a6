"""Watch an object store: first what is stored, then what changes.

Run it with the URL of a server that has JetStream, or without: then it starts a server of its own.
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
        store = await js.create_object_store("configs")
        await store.put("db.toml", b"host = 'localhost'\n")

        async with trionats.open_watcher(nursery, store) as rx:
            for info in await rx.snapshot():
                print(f"stored:  {info.name}, {info.size} bytes")

            await store.put("db.toml", b"host = 'db.example.org'\n")
            await store.put("log.toml", b"level = 'info'\n")

            with trio.move_on_after(5):
                async for info in rx:
                    print(f"changed: {info.name}, {'deleted' if info.deleted else f'{info.size} bytes'}")
                    if info.deleted:
                        break
                    if info.name == "log.toml":
                        await store.delete("db.toml")

        await js.delete_object_store("configs")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
