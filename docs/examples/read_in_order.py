"""Read a stream in order: first what is stored, in batches, then what comes.

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
        await js.create_stream(name="ACCOUNT", subjects=["account.*"])
        for amount in ("+100", "-30", "-25"):
            await js.publish("account.alice", amount)
        await js.publish("account.bob", "+5")

        ordered = await js.ordered_consumer("ACCOUNT", filter_subjects="account.alice")
        balance = 0
        async with ordered:  # keeps the server's consumer from fetch to fetch
            while messages := await ordered.fetch(2, no_wait=True):
                balance += sum(int(msg.data) for msg in messages)
                print(f"after {messages[-1].metadata.sequence.stream}: {balance}")

        async with trionats.open_consumer(nursery, ordered) as rx:
            await js.publish("account.alice", "+55")
            with trio.move_on_after(5):
                msg = await rx.receive()
                print(f"after {msg.metadata.sequence.stream}: {balance + int(msg.data)}")

        await js.delete_stream("ACCOUNT")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
