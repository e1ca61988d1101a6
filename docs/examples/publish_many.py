"""Publish many messages into a stream, with a bounded number of them in flight, and learn what became of each.

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
        # A small stream, that says so when it is full.
        await js.add_stream(name="READINGS", subjects=["readings.>"], max_msgs=1000, discard="new")

        async with trionats.open_publisher(background, js, resend=True) as publisher:
            for number in range(999):
                await publisher.publish(f"readings.{number % 10}", b"%d" % number)
            receipt = await publisher.publish("readings.last", b"999")
            print(f"the last one has sequence {(await receipt.wait()).seq}")

        try:
            async with trionats.open_publisher(background, js) as publisher:
                for number in range(3):
                    await publisher.publish("readings.more", b"%d" % number)
        except trionats.errors.PublishError as error:
            for message, reason in error.failures:
                print(f"{message.payload.decode()} to {message.subject} was not stored: {reason}")

        await js.delete_stream("READINGS")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
