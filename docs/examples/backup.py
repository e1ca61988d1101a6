"""Back a stream up into a directory, delete it, and restore it.

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
        print("all of it is there")


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, url) as nc,
    ):
        js = nc.jetstream()
        stream = await js.create_stream(name="ORDERS", subjects=["orders.*"])
        for number in range(100):
            await js.publish(f"orders.{number % 3}", b"%d" % number)
        with TemporaryDirectory() as folder:
            state = await stream.backup(Path(folder) / "ORDERS", show)
            print(f"backed up: {state.messages} messages")
            await stream.delete()

            stream = await js.restore_stream(Path(folder) / "ORDERS", description="restored")
            print(f"restored: {(await stream.get_msg(100)).data!r} is the last one")
        await stream.delete()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
