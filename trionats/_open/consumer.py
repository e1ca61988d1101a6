"""open_consumer: whatever kind of consumer it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.consumers.consumer import Consumer
from trionats._jetstream.consumers.consuming import consuming
from trionats._jetstream.consumers.ordered_consumer import OrderedConsumer, reading
from trionats._jetstream.consumers.push import pushed
from trionats._protocol.jetstream.consumers.demand import Demand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio

    from trionats._feeds.feed import Feed
    from trionats._jetstream.messages.message import JetStreamMsg
    from trionats._protocol.jetstream.consumers.demand import OnLeave


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
    """Read a consumer for as long as somebody receives: a pull consumer, an ordered one, or an existing push consumer.

    What a consumer is decides which of the options apply; the others are refused. An ordered consumer takes all that say how much
    is asked for and when, and none about acknowledgements and groups. A push consumer, which nobody asks, takes `max_bytes` and `on_leave`.
    How these two are read, and what ends them, :doc:`/consumers` says; what follows is said of pull consumers.

    Entering sends a request for messages and is a checkpoint; it waits for no response, so a consumer that is not there is an
    error of `receive`. (With the other two it waits: an ordered one is created, and at a push consumer it is looked.) Leaving ends the feed synchronously and waits, shielded and bounded, only until its task is gone. What was
    delivered and not received is given back (NAK), also what is on its way, so that another worker has it at once; where the
    consumer limits deliveries (`max_deliver`), or that is not known, it is left to the ack wait. `stop` gives back only what is
    on its way.

    What is asked for is what there is room for, in messages and in bytes, so nothing is ever dropped and a reader that sleeps
    holds back the server; a consumer that the server would delete meanwhile (`inactive_threshold`) is kept alive. A message that has
    waited here past its `ack_wait` is not handed over, since somebody else has it (`events.MessagesExpired`).

    A connection that comes back, another leader, and a server that starts do not end it; it asks again. Silence of two heartbeats is
    told (`events.ConsumerHeartbeatMissed`), and so is what the server refuses (`events.ConsumerLimitExceeded`). `receive` raises
    `errors.ConsumerGoneError` when the consumer or its stream is deleted, `errors.PermissionsViolationError` when the server refuses
    to be asked, and `errors.BadRequestError` where it does not understand, or the next message is larger than the `max_bytes`
    that was chosen. For what else ends it see `Feed`.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        consumer: The consumer: what `JetStream.consumer`, `create_consumer` and `ordered_consumer` give. With `bind=True` nobody has looked,
            and it is taken for a pull consumer.
        max_messages: How many messages are asked for, or wait to be received, at the most.
        max_bytes: How many bytes of them, counted as the server does: subject, acknowledgement subject, headers, payload. None for
            8 MiB, where a larger message is asked for alone; a number that was chosen and is smaller than a message is an error. An
            estimate for a consumer of the last message of each subject (`last_per_subject`), and one that was only bound. For
            a push consumer without flow control: how many bytes of headers and payloads may wait before it ends in a
            `nats.errors.SlowConsumerError`; None for 64 MiB.
        expires: How many seconds the server keeps a request, from 1 to 86400.
        heartbeat: How often the server says that it is there, in seconds: from 0.5 to 30, and to half of `expires`, which is the
            default; 1 s is for consumers of the last message of each subject (`last_per_subject`).
        threshold_messages: More is asked for once no more than so many messages are asked for or wait; None for half of
            `max_messages`.
        threshold_bytes: The same in bytes.
        stop_after: Ask for so many messages in all, and end the loop behind the last of them; 0 for no end.
        on_leave: For pull and push consumers: what becomes of messages that were delivered and not received. `"nak"` gives them back at
            once, `"leave"` lets the ack wait pass. None for `"nak"`, unless the consumer limits deliveries or that is not known. A
            `"nak"` that was chosen holds there, too, and uses up a delivery: a message whose last one it was does not come again.
        group: The priority group (server 2.11), for pull consumers that have such.
        min_pending: Take part while at least so many messages wait (policy "overflow").
        min_ack_pending: Take part while at least so many are not acknowledged (policy "overflow").
        priority: From 0 to 9; lower numbers are served first (policy "prioritized", server 2.12).

    Returns:
        An async context manager that gives a `Feed` of `JetStreamMsg`.

    Raises:
        TypeError: `consumer` is none, or an option is of another kind.
        ValueError: An option cannot be, or does not apply to this kind of consumer.
        nats.errors.ConnectionDrainingError: The client is being drained.
        nats.errors.ConnectionClosedError: The client is closed.
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
