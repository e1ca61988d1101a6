"""Watch keys of a bucket: first what is stored, then what changes; and later go on where another watcher was.

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
        kv = await js.create_key_value(bucket="lamps", history=5)
        for key, state in {"hall.left": b"on", "hall.right": b"off", "attic": b"off"}.items():
            await kv.put(key, state)

        async with trionats.open_watcher(nursery, kv, keys=["hall.*", "cellar"]) as rx:
            for entry in await rx.snapshot():
                print(f"is:   {entry.key} {entry.value.decode()}")

            await kv.put("hall.right", b"on")
            await kv.delete("hall.left")

            with trio.move_on_after(5):
                async for entry in rx:
                    print(f"gets: {entry.key} {entry.operation or entry.value.decode()}")
                    last = entry.revision
                    if entry.operation is not None:
                        break

        # Nobody watches while these are written.
        await kv.put("hall.left", b"dim")
        await kv.put("hall.left", b"on")

        async with trionats.open_watcher(nursery, kv, resume_from_revision=last + 1) as rx:
            for entry in await rx.snapshot():
                print(f"got:  {entry.key} {entry.value.decode()}")

        await js.delete_key_value("lamps")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
