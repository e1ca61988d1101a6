"""Who has which partitions of a group, and under which subjects: computed by every member alone, so all must compute the same.

The format is that of the public `pcgroups` extensions (Go's orbit, natsio). Members are sorted by name; each has as many partitions in a
row as all can have, and what is left over is dealt out from the front. So few partitions move when a member comes or goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["destination", "partition_filters", "spread", "without_partition"]


def spread(members: Iterable[str], count: int) -> dict[str, tuple[int, ...]]:
    """Spread partitions over members.

    Args:
        members: Their names, in any order; repeated ones count once. Only the first `count` by name have any.
        count: How many partitions there are.

    Returns:
        The partitions of each who has some.
    """
    owners = sorted(set(members))[:count]
    if not owners:
        return {}
    share = count // len(owners)
    dealt = share * len(owners)
    return {
        owner: (*range(place * share, (place + 1) * share), *range(dealt + place, count, len(owners)))
        for place, owner in enumerate(owners)
    }


def partition_filters(partitions: Iterable[int], filters: Sequence[str], *, mapped: bool) -> tuple[str, ...]:
    """Give the filters with which a consumer reads some partitions.

    Args:
        partitions: The partitions.
        filters: What the group reads of each; nothing for all.
        mapped: Whether the partitions were chosen by hand, for which the format reads all of each, whatever the filters say.

    Returns:
        The filters, in the order in which other clients give them.
    """
    wanted = [">"] if mapped or not filters else filters
    chosen = tuple(partitions)
    return tuple(f"{partition}.{subject}" for subject in wanted for partition in chosen)


def destination(subject: str, wildcards: Sequence[int], count: int) -> str:
    """Give the subject under which the stream of an elastic group holds a message: its partition comes first.

    Args:
        subject: The filter that the message's own subject matches.
        wildcards: Which of its `*`, counted from 1, say to which partition it belongs; nothing for the whole subject.
        count: How many partitions there are.

    Returns:
        The destination of a subject transform.
    """
    tokens = subject.split(".")
    places = [place for place, token in enumerate(tokens) if token == "*"]
    for number, place in enumerate(places, 1):
        tokens[place] = f"{{{{Wildcard({number})}}}}"
    arguments = ",".join(map(str, [count, *wildcards]))
    return f"{{{{Partition({arguments})}}}}.{'.'.join(tokens)}"


def without_partition(subject: str) -> str:
    """Take the partition off a subject; one of a single token stays as it is."""
    _, dot, rest = subject.partition(".")
    return rest if dot else subject
