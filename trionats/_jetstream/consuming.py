"""A pull consumer as a feed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

from trio.lowlevel import checkpoint

from trionats._feeds.feed import Feed, feeding
from trionats._jetstream.message import JetStreamMsg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio

    from trionats._jetstream.consumers import Consumer
    from trionats._protocol.jetstream.demand import Demand

__all__ = ["ConsumerFeed", "consuming"]


@final
class ConsumerFeed(Feed[JetStreamMsg]):
    """What a pull consumer delivers."""

    def __init__(self, consumer: Consumer, demand: Demand) -> None:
        connection = consumer.__jetstream__().connection
        super().__init__(f"consumer {consumer.name!r} of stream {consumer.stream!r}", demand.max_messages, connection)


@asynccontextmanager
async def consuming(nursery: trio.Nursery, consumer: Consumer, demand: Demand) -> AsyncIterator[ConsumerFeed]:
    """Read a pull consumer.

    Args:
        nursery: Where the feeding task lives.
        consumer: The consumer.
        demand: What is wanted of it.
    """
    await checkpoint()
    feed = ConsumerFeed(consumer, demand)
    async with feeding(nursery, feed):
        yield feed
