"""Publish several messages of which a stream stores all or none.

Run it with the URL of a server with JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats.testing import NatsServer


async def transfer(js: trionats.JetStream, giver: str, taker: str, amount: int, last: int) -> int | None:
    """Move money from one account to another, if the giver's account has not changed since `last`."""
    try:
        async with js.open_batch() as batch:
            await batch.publish(f"accounts.{giver}", b"%d" % -amount, expected_last_subject_seq=last)
            await batch.publish(f"accounts.{taker}", b"+%d" % amount)
    except trionats.errors.BatchError as error:
        print(f"nothing was moved: {error.description}")
        return None
    assert batch.ack is not None
    print(f"stored as {batch.ack.seq - 1} and {batch.ack.seq}")
    return batch.ack.seq - 1


async def main(url: str) -> None:
    async with trio.open_nursery() as background, trionats.open_client(background, url) as nc:
        js = nc.jetstream()
        await js.create_stream(name="ACCOUNTS", subjects=["accounts.*"], allow_atomic=True)
        await js.publish("accounts.alice", b"+100")

        await transfer(js, "alice", "bob", 30, last=1)
        await transfer(js, "alice", "bob", 80, last=1)

        try:
            async with js.open_batch() as batch:
                await batch.publish("accounts.alice", b"-5")
                raise RuntimeError("the taker was not found")
        except RuntimeError as error:
            print(f"{error}; committed: {batch.committed}")

        await js.delete_stream("ACCOUNTS")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
