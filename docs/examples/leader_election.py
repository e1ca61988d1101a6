"""Leader election: of several nodes one leads; when it leaves, or is cut off, another takes over.

Run it with the URL of a server with JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats import api, errors
from trionats.testing import NatsServer


async def lead(name: str, term: float) -> None:
    """What only the leader does. It is cancelled where it is not certain any more that this node leads."""
    print(f"{name} leads")
    await trio.sleep(term)


async def node(nursery: trio.Nursery, kv: trionats.KeyValue, name: str, term: float) -> None:
    """Stand for election until this node has led for its whole term."""
    while True:
        try:
            async with trionats.open_lease(nursery, kv, "leader", ttl=3, value=name):
                await lead(name, term)
            return
        except errors.LeaseLostError:
            # Its `why` says what is known of it.
            print(f"{name} leads no longer")


async def leader(kv: trionats.KeyValue) -> str:
    """Say who leads, as far as anybody can know."""
    try:
        return (await kv.get("leader")).value.decode()
    except errors.KeyValueError:
        return "nobody"


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
    ):
        js = nc.jetstream()
        kv = await js.create_key_value(bucket="election", limit_marker_ttl=60, storage=api.StorageType.MEMORY)
        async with trio.open_nursery() as nodes:
            nodes.start_soon(node, background, kv, "north", 1)
            await trio.sleep(0.2)
            nodes.start_soon(node, background, kv, "south", 30)
            await trio.sleep(0.1)
            print("everybody sees:", await leader(kv))
            await trio.sleep(1.2)
            print("everybody sees:", await leader(kv))
            # An operator takes the lead away: the leader is told at its next renewal, and stands for election again.
            await kv.delete("leader")
            await trio.sleep(1.5)
            print("everybody sees:", await leader(kv))
            nodes.cancel_scope.cancel()
        print("everybody sees:", await leader(kv))
        await js.delete_key_value("election")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
