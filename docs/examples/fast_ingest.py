"""Publish many messages into one stream as fast as it takes them, and learn which of them are not stored.

Run it with the URL of a server with JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats.testing import NatsServer


async def main(url: str) -> None:
    async with trio.open_nursery() as background, trionats.open_client(background, url) as nc:
        js = nc.jetstream()
        await js.create_stream(name="METERS", subjects=["meters.>"], allow_batched=True)

        async with trionats.open_ingest(background, js) as ingest:
            for number in range(10_000):
                await ingest.publish(f"meters.{number % 10}", b"%d" % number)
        if ingest.ack is not None:
            print(f"{ingest.ack.count} messages, the last one has sequence {ingest.ack.seq}")

        try:
            async with trionats.open_ingest(background, js, on_gap="continue") as ingest:
                for number in range(3):
                    # What is expected of the last one is wrong.
                    expected = 10_000 + number if number < 2 else 0
                    await ingest.publish("meters.0", b"%d" % number, expected_last_seq=expected)
        except trionats.errors.PublishError as error:
            for message, reason in error.failures:
                print(f"{message.payload.decode()} is not stored: {type(reason).__name__}")

        await js.delete_stream("METERS")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
