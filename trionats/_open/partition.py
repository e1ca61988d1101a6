"""open_partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.context import JetStream, jetstream_of
from trionats._jetstream.partitions.reading import partition
from trionats._protocol.jetstream.partitions.groups import Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio

    from trionats._feeds.feed import Feed
    from trionats._jetstream.messages.message import JetStreamMsg


@opens
async def open_partition(
    nursery: trio.Nursery,
    js: JetStream,
    stream: str,
    group: str,
    member: str,
    *,
    elastic: bool = False,
) -> AsyncIterator[Feed[JetStreamMsg]]:
    """Read what one member of a partitioned consumer group is given: the messages of its partitions.

    Groups are in the format of the public `pcgroups` extensions, so the other members may be other clients. Server 2.11.

    Each member has a consumer of its own, over which its messages come one at a time: the next one when this one has its verdict (`ack`,
    `nak`, `term`), or when the ack wait of 5 s is over without one (see `JetStreamMsg.processing`). So what has one key is read in its
    order, by one member at a time, also while partitions change hands and after a process has died. A consumer that another client has
    created with another configuration is read as it is.

    Of several processes of one member the server serves one at a time. Another one follows at once when that one leaves, and when it was not
    heard of for 5 s. What it held then comes again after the ack wait.

    Entering asks for the group's configuration and watches it from then on; it waits for no consumer, so what is wrong with that is an
    error of `receive`. A member of an elastic group that is none yet, or is dropped, is given nothing until it is added;
    `events.PartitionsChanged` says which partitions it has, at once and whenever that changes. What it holds when it loses a partition it
    finishes first. Who follows takes over then, within half a second, or once a member whose processes are all gone has not been heard of for 5 s.
    What was not received comes again, to whose it is.

    Leaving ends the feed synchronously, gives back what was not received, and lets another process of the member follow. The
    consumer of a static member stays, with its position; that of an elastic one is gone 5 s after the last of its processes.

    `receive` raises `errors.GroupNotFoundError` when the group is deleted; `errors.GroupChangedError` when something of its configuration
    is changed that cannot be, in a static one anything, or its consumer is another group's; `errors.ConsumerGoneError` when that of a
    static member is deleted. For what else ends it see `open_consumer`.

    Args:
        nursery: Where the feeding task and the watcher's live. A cancel scope around this call bounds the opening, not the feed.
        js: The context.
        stream: The stream that the group reads.
        group: The group's name.
        member: The member's name.
        elastic: Whether it is an elastic group.

    Returns:
        An async context manager that gives a `Feed` of `JetStreamMsg`, whose subjects are without the partition.

    Raises:
        trionats.errors.GroupNotFoundError: There is no such group.
        trionats.errors.GroupChangedError: What is stored is no configuration.
        trionats.errors.APIError: The server refused, or is too old.
        nats.errors.Error: As for `Client.request`.
        TypeError: An argument is of another kind.
        ValueError: A name is none; or the group is static, and this is none of its members.
    """
    check_nursery(nursery, "open_partition")
    jetstream = jetstream_of(js, "open_partition")
    place = Place.checked("open_partition", stream, group, elastic)
    place.check_member("open_partition", member)
    async with partition(nursery, jetstream, place, member) as feed:
        yield feed
