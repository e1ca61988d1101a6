"""Streams: created, read, changed in one field, mirrored and purged.

Run it with the URL of a server with JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys

import trio

import trionats
from trionats import api
from trionats.testing import NatsServer


async def main(url: str) -> None:
    async with trio.open_nursery() as background, trionats.open_client(background, url) as nc:
        js = nc.jetstream()
        orders = await js.create_or_update_stream(
            name="ORDERS", subjects=["orders.>"], storage="memory", retention="limits", max_age=3600
        )
        for number in range(5):
            await js.publish(f"orders.{number % 2}", b"an order")

        # The rest stays as it is.
        await orders.update(max_msgs_per_subject=10)

        info = await orders.info(subjects_filter="orders.*")
        print(info.state.messages, "messages:", info.state.subjects)
        print("at most", info.config.max_age, "s old,", info.config.max_msgs_per_subject, "of each subject")

        print(await orders.purge(subject="orders.0", keep=1), "deleted")

        copy = await js.create_stream(name="COPY", mirror=api.StreamSource("ORDERS"), storage="memory")
        print(
            await js.stream_names("orders.*"),
            "is copied, and the copy expires with it:",
            copy.cached_info.config.allow_msg_ttl,
        )
        await copy.delete()
        await orders.delete()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
