"""Store a file as an object, copy the object as a stream, and read it into a file again.

Run it with the URL of a server that has JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

import trionats
from trionats.testing import NatsServer


def show(done: int, total: int | None) -> None:
    if done == total:
        print(f"stored: all {total} bytes")


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, url) as nc,
    ):
        js = nc.jetstream()
        store = await js.create_object_store("films")
        with TemporaryDirectory() as folder:
            film = Path(folder) / "film.bin"
            film.write_bytes(bytes(1_000_000))
            info = await store.put_file(film, progress=show)
            print(f"{info.name} has {info.chunks} chunks")

            async with store.open_object("film.bin") as stream:
                await store.put("a copy", stream)

            copy = Path(folder) / "copy.bin"
            await store.get_file("a copy", copy)
            print(f"the copy is the same: {copy.read_bytes() == film.read_bytes()}")
        await js.delete_object_store("films")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
