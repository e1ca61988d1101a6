"""open_consumer: whatever kind of consumer it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.consumers import Consumer
from trionats._jetstream.consuming import consuming
from trionats._jetstream.ordered_consumer import OrderedConsumer, reading
from trionats._jetstream.push import pushed
from trionats._protocol.jetstream.demand import Demand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio

    from trionats._feeds.feed import Feed
    from trionats._jetstream.message import JetStreamMsg
    from trionats._protocol.jetstream.demand import OnLeave


@opens
async def open_consumer(
    nursery: trio.Nursery,
    consumer: Consumer | OrderedConsumer,
    *,
    max_messages: int = 500,
    max_bytes: int | None = None,
    expires: float = 30.0,
    heartbeat: float | None = None,
    threshold_messages: int | None = None,
    threshold_bytes: int | None = None,
    stop_after: int = 0,
    on_leave: OnLeave | None = None,
    group: str | None = None,
    min_pending: int | None = None,
    min_ack_pending: int | None = None,
    priority: int | None = None,
) -> AsyncIterator[Feed[JetStreamMsg]]:
    """Read what a consumer delivers.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        consumer: The consumer: what `JetStream.consumer` and `create_consumer` give.
        max_messages: How many messages are asked for, or wait to be received, at the most.
        max_bytes: How many bytes of them, counted as the server does. None for 8 MiB, where a larger message is asked for
            alone; a number that was chosen and is smaller than a message is an error.
        expires: How many seconds the server keeps a request.
        heartbeat: How often the server says that it is there.
        threshold_messages: More is asked for once no more than so many messages are asked for or wait.
        threshold_bytes: The same in bytes.
        stop_after: End after so many messages; 0 for never.
        on_leave: What becomes of messages that were delivered and not received.
        group: The priority group.
        min_pending: See the priority policy "overflow".
        min_ack_pending: See the priority policy "overflow".
        priority: See the priority policy "prioritized".

    Returns:
        An async context manager that gives a `Feed` of `JetStreamMsg`.

    Raises:
        TypeError: `consumer` is none, or an option is of another kind.
        ValueError: An option cannot be, or does not apply to this kind of consumer.
    """
    check_nursery(nursery, "open_consumer")
    demand = Demand(
        max_messages,
        max_bytes,
        expires,
        heartbeat,
        threshold_messages,
        threshold_bytes,
        stop_after,
        on_leave,
        group,
        min_pending,
        min_ack_pending,
        priority,
    )
    if isinstance(consumer, OrderedConsumer):
        async with reading(nursery, consumer, demand) as ordered:
            yield ordered
        return
    _check_consumer(consumer)
    if consumer.cached_info is not None and consumer.cached_info.config.deliver_subject:
        async with pushed(nursery, consumer, demand) as arriving:
            yield arriving
        return
    async with consuming(nursery, consumer, demand) as pulled:
        yield pulled


def _check_consumer(consumer: object) -> None:
    if not isinstance(consumer, Consumer):
        text = f"open_consumer(nursery, consumer): the consumer must be a Consumer, not {type(consumer).__name__}"
        raise TypeError(text)
