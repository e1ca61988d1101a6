"""What the server holds for a group: the work queue of an elastic one, and each member's consumer."""

from __future__ import annotations

from typing import Final

from trionats import api
from trionats._protocol.jetstream.partitions.assignment import destination, partition_filters
from trionats._protocol.jetstream.partitions.groups import Place

__all__ = ["ACK_WAIT", "PRIORITY_GROUP", "consumer_config", "filters_of", "queue_config", "see_partitions"]

#: The priority group of each member's consumer: one of the member's processes is pinned.
PRIORITY_GROUP: Final = "PCG"
#: For how many seconds a message may be held; after how many without a request a process loses its pin, and the consumer of an elastic
#: group is forgotten. Other clients have it so.
ACK_WAIT: Final = 5.0


def filters_of(group: api.ConsumerGroup, member: str) -> tuple[str, ...]:
    """Give the filters of a member's consumer; none where it has no partitions."""
    return partition_filters(group.partitions.get(member, ()), list(group.filters), mapped=group.mapped)


def see_partitions(place: Place, source: api.StreamConfig) -> None:
    """Refuse a static group of a stream in which nothing can begin with a partition: its members would wait for ever.

    Where a subject begins with a wildcard, or messages come from other streams, it may be.

    Raises:
        ValueError: No subject can.
    """
    if source.subject_transform or source.mirror or source.sources:
        return
    if any(first in {"*", ">"} or first.isdigit() for first in (s.partition(".")[0] for s in source.subjects or ())):
        return
    raise ValueError(
        f"create_group: {place}: no subject of the stream begins with a partition: with a subject_transform it would; an elastic"
        " group (elastic=True) needs none"
    )


def queue_config(place: Place, group: api.ConsumerGroup, source: api.StreamConfig) -> api.StreamConfig:
    """Make the configuration of the work queue that an elastic group has.

    Args:
        place: Where the group is.
        group: The group.
        source: The configuration of the stream that it reads.
    """
    transforms = [
        api.SubjectTransform(src=subject, dest=destination(subject, wildcards, group.max_members))
        for subject, wildcards in (group.filters or {">": ()}).items()
    ]
    return api.StreamConfig(
        name=place.read_stream,
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=source.storage,
        num_replicas=source.num_replicas,
        max_msgs=group.max_buffered_msgs,
        max_bytes=group.max_buffered_bytes,
        # What is full takes no more until somebody has done its work.
        discard=api.DiscardPolicy.NEW,
        sources=[api.StreamSource(name=place.stream, subject_transforms=transforms)],
        allow_direct=True,
    )


def consumer_config(place: Place, member: str, filters: tuple[str, ...]) -> api.ConsumerConfig:
    """Make the configuration of a member's consumer.

    One message at a time: what is behind it waits until it has its verdict, whatever becomes of the process that holds it. So the
    order of each key is kept, also where another process takes over.

    Args:
        place: The group.
        member: The member's name.
        filters: What it reads; a list also where there is one, as other clients give it, since they compare.
    """
    name = place.consumer(member)
    return api.ConsumerConfig(
        # That of an elastic group is made anew whenever partitions move, so nobody misses one that nobody asks.
        name=name if place.elastic else None,
        durable_name=None if place.elastic else name,
        inactive_threshold=ACK_WAIT if place.elastic else None,
        filter_subjects=list(filters),
        deliver_policy=api.DeliverPolicy.ALL,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT,
        max_ack_pending=1,
        priority_groups=[PRIORITY_GROUP],
        priority_policy=api.PriorityPolicy.PINNED_CLIENT,
        priority_timeout=ACK_WAIT,
    )
