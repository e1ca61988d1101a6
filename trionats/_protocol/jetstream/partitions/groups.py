"""What is stored of a partitioned consumer group: its names, its configuration as JSON, and how members come and go.

The configurations of all groups of one kind stand in one key-value bucket, each under `<stream>.<group>`. A static group reads the stream
itself, whose subjects begin with the partition already; its consumers are called `<group>-<member>`. An elastic one has a work queue of its own,
`<stream>-<group>`, which takes the stream's messages over and puts the partition before their subjects; its consumers are called as its members.

What is given is refused where it cannot be meant. What is stored may be anybody's, and is read as generously as other clients read it;
fields that are not known here stay in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

from trionats import api, errors
from trionats._protocol import subjects
from trionats._protocol.fields import check_argument, check_count
from trionats._protocol.jetstream.partitions.assignment import spread

__all__ = ["Place", "Stored", "added", "checked_members", "dropped", "read", "unlike", "wanted"]

_BUCKETS: Final = {False: "static-consumer-groups", True: "elastic-consumer-groups"}
#: Each is a filter of somebody's consumer: more would not fit into a request.
_MOST_PARTITIONS: Final = 65_536
#: The server's limit for names of streams and consumers.
_LONGEST_NAME: Final = 255
#: What can be in a key, and in the name of a stream.
_is_token = re.compile(r"[-_=a-zA-Z0-9]++").fullmatch


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where a group is.

    Attributes:
        stream: The stream whose messages it reads.
        group: Its name.
        elastic: Whether members come and go.
    """

    stream: str
    group: str
    elastic: bool

    def __str__(self) -> str:
        return f"{'elastic' if self.elastic else 'static'} group {self.group!r} of stream {self.stream!r}"

    @property
    def bucket(self) -> str:
        """The bucket that holds its configuration."""
        return _BUCKETS[self.elastic]

    @property
    def key(self) -> str:
        """The key of its configuration."""
        return f"{self.stream}.{self.group}"

    @property
    def read_stream(self) -> str:
        """The stream that its members read."""
        return f"{self.stream}-{self.group}" if self.elastic else self.stream

    def consumer(self, member: str) -> str:
        """Name the consumer of a member."""
        return member if self.elastic else f"{self.group}-{member}"

    @classmethod
    def checked(cls, call: str, stream: str, group: str, elastic: bool) -> Place:
        """Check the names of a group.

        Raises:
            TypeError: One of them is no text, or `elastic` no bool.
            ValueError: One of them cannot be.
        """
        check_argument(call, "elastic", bool, elastic)
        subjects.stream_name(stream)
        for name, value in (("stream", stream), ("group", group)):
            check_argument(call, name, str, value)
            if _is_token(value) is None:
                raise ValueError(f"{call}: {name} is {value!r}: letters, digits, '-', '_' and '=' can stand in its key")
        made = cls(stream, group, elastic)
        if len(made.read_stream) > _LONGEST_NAME:
            raise ValueError(f"{call}: group: {made.read_stream!r} is longer than {_LONGEST_NAME} letters")
        return made

    def check_member(self, call: str, member: str, name: str = "member") -> None:
        """Check the name of a member.

        Raises:
            TypeError: It is no text.
            ValueError: No consumer can be called like that.
        """
        check_argument(call, name, str, member)
        try:
            consumer = subjects.consumer_name(self.consumer(member) if member else member)
        except ValueError as error:
            raise ValueError(f"{call}: {name} {member!r}: {error}") from None
        if len(consumer) > _LONGEST_NAME:
            raise ValueError(f"{call}: {name}: consumer {consumer!r} is longer than {_LONGEST_NAME} letters")

    def missing(self, why: str = "not found") -> errors.GroupNotFoundError:
        """Make the error for a group that is not there.

        Args:
            why: What is known of it.
        """
        known = {"code": 404, "err_code": None, "seq": None, "description": why}
        return errors.explained(
            errors.GroupNotFoundError, f"{self}: {why}", stream=self.stream, group=self.group, **known
        )

    def changed(self, why: str) -> errors.GroupChangedError:
        """Make the error for a group that is another one than it was, or is to be."""
        return errors.explained(errors.GroupChangedError, f"{self}: {why}", stream=self.stream, group=self.group)


class Stored(NamedTuple):
    """A configuration as it is stored.

    Attributes:
        group: What it says.
        fields: All its fields, also those that nobody here knows.
    """

    group: api.ConsumerGroup
    fields: Mapping[str, Any]

    @property
    def data(self) -> bytes:
        """What stands in the bucket."""
        return json.dumps(self.fields).encode()


# What is given.


def wanted(
    call: str,
    place: Place,
    max_members: int,
    filters: str | Sequence[str] | Mapping[str, Sequence[int]],
    members: str | Sequence[str],
    mappings: Mapping[str, Sequence[int]] | None,
    max_buffered_msgs: int | None,
    max_buffered_bytes: int | None,
) -> Stored:
    """Check what a group is to be; errors name the argument.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: One cannot be, or two exclude each other.
    """
    check_count(call, "max_members", max_members, most=_MOST_PARTITIONS)
    buffered = {"max_buffered_msgs": max_buffered_msgs, "max_buffered_bytes": max_buffered_bytes}
    for name, value in buffered.items():
        if value is None:
            continue
        check_count(call, name, value)
        if not place.elastic:
            raise ValueError(f"{call}: {name} is for elastic groups: a static one has no stream of its own")
    chosen = _checked_filters(call, place, filters)
    names = _checked_names(call, place, members)
    by_hand = None if mappings is None else _checked_mappings(call, place, mappings)
    if names and by_hand:
        raise ValueError(f"{call}: members and mappings exclude each other")
    if not names and not by_hand and not place.elastic:
        raise ValueError(f"{call}: a static group keeps the members that it is given here: members or mappings")
    group = _group(place, max_members, chosen, names, by_hand, **buffered)
    _check_membership(call, "members" if by_hand is None else "mappings", group)
    return Stored(group, _fields(group))


def _checked_filters(
    call: str, place: Place, filters: str | Sequence[str] | Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    if not isinstance(filters, (str, Sequence, Mapping)) or isinstance(filters, (bytes, bytearray, memoryview)):
        raise TypeError(f"{call}: filters must be a subject, or several, not {type(filters).__name__}")
    given = [filters] if isinstance(filters, str) else filters
    if not place.elastic and isinstance(filters, Mapping):
        text = "a static group reads partitions that are there: wildcards that make them are for elastic ones"
        raise ValueError(f"{call}: filters: {text}")
    chosen = {}
    for one in given:
        subjects.pattern(f"{call}: filters", one)
        numbers = filters[one] if isinstance(filters, Mapping) else ()
        check_argument(call, f"filters[{one!r}]", list[int], numbers)
        if place.elastic and (complaint := _wildcards_wrong(one, numbers)):
            raise ValueError(f"{call}: filters: {one!r}: {complaint}")
        chosen[one] = tuple(numbers)
    if len(subjects.widest(list(chosen))) < len(given):
        raise ValueError(f"{call}: filters: one of them matches all that another one does")
    return chosen


def _checked_names(call: str, place: Place, members: str | Sequence[str], name: str = "members") -> tuple[str, ...]:
    if not isinstance(members, (str, Sequence)) or isinstance(members, (bytes, bytearray, memoryview)):
        raise TypeError(f"{call}: {name} must be a name, or several, not {type(members).__name__}")
    names = [members] if isinstance(members, str) else members
    for one in names:
        place.check_member(call, one, name)
    return tuple(sorted(set(names)))


def _checked_mappings(
    call: str, place: Place, mappings: Mapping[str, Sequence[int]], name: str = "mappings"
) -> dict[str, tuple[int, ...]]:
    if not isinstance(mappings, Mapping):
        raise TypeError(f"{call}: {name} must give partitions for each member, not be {type(mappings).__name__}")
    for member, partitions in mappings.items():
        place.check_member(call, member, name)
        check_argument(call, f"{name}[{member!r}]", list[int], partitions)
    return {member: tuple(partitions) for member, partitions in mappings.items()}


def _check_membership(call: str, name: str, group: api.ConsumerGroup) -> None:
    if group.mapped:
        complaint = _mappings_wrong(group.partitions, group.max_members)
    else:
        more = len(group.members) - group.max_members
        complaint = f"{more} more than there are partitions ({group.max_members})" if more > 0 else ""
    if complaint:
        raise ValueError(f"{call}: {name}: {complaint}")


# How members come and go.


def checked_members(
    call: str, place: Place, members: str | Sequence[str] | Mapping[str, Sequence[int]]
) -> tuple[str, ...] | dict[str, tuple[int, ...]]:
    """Check who is to be a member: names, or the partitions of each by hand.

    Raises:
        TypeError: They are of another kind.
        ValueError: A name is none.
    """
    if isinstance(members, Mapping):
        return _checked_mappings(call, place, members, "members")
    return _checked_names(call, place, members)


def added(call: str, place: Place, stored: Stored, members: tuple[str, ...] | Mapping[str, tuple[int, ...]]) -> Stored:
    """Say how a group is with more members.

    Args:
        call: The call, for texts.
        place: The group.
        stored: What it is now.
        members: Who is to be added; or who is to have which partitions, which are taken from who has them. `checked_members` gives it.

    Raises:
        ValueError: They cannot be added.
    """
    group = stored.group
    if isinstance(members, Mapping):
        moved = {partition for partitions in members.values() for partition in partitions}
        kept = {
            member: tuple(partition for partition in partitions if partition not in moved)
            for member, partitions in (group.partitions.items() if group.mapped else ())
            if member not in members
        }
        after = _changed(place, stored, mappings={**{one: left for one, left in kept.items() if left}, **members})
    elif not members:
        return stored
    else:
        if group.mapped:
            text = f"partitions were chosen by hand in {place}: say which those are to have, or drop all members first"
            raise ValueError(f"{call}: members: {text}")
        after = _changed(place, stored, names=tuple(sorted({*group.members, *members})))
    _check_membership(call, "members", after.group)
    return after


def dropped(call: str, place: Place, stored: Stored, members: Collection[str]) -> Stored:
    """Say how a group is without some members; who is none is as good as dropped.

    Args:
        call: The call, for texts.
        place: The group.
        stored: What it is now.
        members: Who is to go. `checked_members` gives it.

    Raises:
        ValueError: They cannot be dropped: nobody would have their partitions.
    """
    group = stored.group
    if not group.mapped:
        return _changed(place, stored, names=tuple(one for one in group.members if one not in members))
    left = {member: tuple(held) for member, held in group.partitions.items() if member not in members}
    if left and _mappings_wrong(left, group.max_members):
        text = f"partitions were chosen by hand in {place}: give theirs to others first, or drop all members"
        raise ValueError(f"{call}: members: {text}")
    return _changed(place, stored, mappings=left)


def _changed(
    place: Place,
    stored: Stored,
    *,
    names: tuple[str, ...] = (),
    mappings: Mapping[str, tuple[int, ...]] | None = None,
) -> Stored:
    was = stored.group
    group = _group(
        place,
        was.max_members,
        was.filters,
        names,
        mappings,
        max_buffered_msgs=was.max_buffered_msgs,
        max_buffered_bytes=was.max_buffered_bytes,
    )
    membership = _membership(group)
    kept = {name: value for name, value in stored.fields.items() if name not in ("members", "member_mappings")}
    return Stored(group, {**kept, **membership})


# What is stored.


def read(place: Place, data: bytes) -> Stored:
    """Read a configuration.

    Args:
        place: Whose it is.
        data: What stands in the bucket.

    Raises:
        ValueError: It is none; the text says why.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ValueError("its configuration is no JSON object")
    count = fields.get("max_members")
    if type(count) is not int or not 1 <= count <= _MOST_PARTITIONS:
        raise ValueError(f"its max_members must be from 1 to {_MOST_PARTITIONS}")
    names = _texts(fields, "members")
    mappings = _read_mappings(fields)
    if names and mappings:
        raise ValueError("it has both members and member_mappings")
    if mappings and (complaint := _mappings_wrong(mappings, count)):
        raise ValueError(f"its member_mappings: {complaint}")
    filters = _read_filters(fields) if place.elastic else dict.fromkeys(_texts(fields, "filters"), ())
    group = _group(
        place,
        count,
        filters,
        tuple(sorted(set(names))),
        mappings or None,
        max_buffered_msgs=_limit(fields, "max_buffered_msg"),
        max_buffered_bytes=_limit(fields, "max_buffered_bytes"),
    )
    return Stored(group, fields)


def _texts(fields: Mapping[str, Any], name: str) -> list[str]:
    found = fields.get(name)
    entries = [] if found is None else found
    if not isinstance(entries, list) or not all(isinstance(one, str) for one in entries):
        raise ValueError(f"its {name} must be a list of texts")
    return entries


def _objects(fields: Mapping[str, Any], name: str, text: str, numbers: str) -> dict[str, tuple[int, ...]]:
    """Read a list of objects that give some numbers for a text."""
    entries = fields.get(name)
    found: dict[str, tuple[int, ...]] = {}
    for entry in [] if entries is None else entries if isinstance(entries, list) else [None]:
        held = entry if isinstance(entry, dict) else {}
        key, values = held.get(text), held.get(numbers)
        values = [] if values is None else values
        if not isinstance(key, str) or not isinstance(values, list) or not all(type(one) is int for one in values):
            raise ValueError(f"its {name} must be a list of objects with {text} and {numbers}")
        if key in found:
            raise ValueError(f"its {name} have {key!r} twice")
        found[key] = tuple(values)
    return found


def _read_mappings(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return _objects(fields, "member_mappings", "member", "partitions")


def _read_filters(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    found = _objects(fields, "partitioning_filters", "filter", "partitioning_wildcards")
    for subject, wildcards in found.items():
        if complaint := _wildcards_wrong(subject, wildcards):
            raise ValueError(f"its partitioning_filters: {subject!r}: {complaint}")
    return found


def _limit(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    return value if type(value) is int and value > 0 else None


def _fields(group: api.ConsumerGroup) -> dict[str, Any]:
    """Give the configuration as other clients write it."""
    fields: dict[str, Any] = {"max_members": group.max_members}
    if group.elastic:
        # Where there are none, Go writes null, and takes an empty list for something else.
        fields["partitioning_filters"] = [
            {"filter": subject, "partitioning_wildcards": list(wildcards)}
            for subject, wildcards in group.filters.items()
        ] or None
        fields |= {"max_buffered_msg": group.max_buffered_msgs} if group.max_buffered_msgs else {}
        fields |= {"max_buffered_bytes": group.max_buffered_bytes} if group.max_buffered_bytes else {}
    elif group.filters:
        fields["filters"] = list(group.filters)
    return fields | _membership(group)


def _membership(group: api.ConsumerGroup) -> dict[str, Any]:
    if group.mapped:
        entries = [{"member": name, "partitions": list(held)} for name, held in group.partitions.items()]
        return {"member_mappings": entries}
    return {"members": list(group.members)} if group.members else {}


def _group(
    place: Place,
    count: int,
    filters: Mapping[str, Sequence[int]],
    names: tuple[str, ...],
    mappings: Mapping[str, tuple[int, ...]] | None,
    *,
    max_buffered_msgs: int | None,
    max_buffered_bytes: int | None,
) -> api.ConsumerGroup:
    return api.ConsumerGroup(
        place.stream,
        place.group,
        place.elastic,
        count,
        filters,
        tuple(sorted(mappings)) if mappings else names,
        mappings or spread(names, count),
        bool(mappings),
        max_buffered_msgs,
        max_buffered_bytes,
    )


# What both have to be.


def _wildcards_wrong(subject: str, wildcards: Sequence[int]) -> str:
    tokens = subject.split(".")
    count = tokens.count("*")
    if not count and tokens[-1] != ">":
        return "a filter that makes partitions has a * or ends in >"
    if len(set(wildcards)) < len(wildcards):
        return "a wildcard is named twice"
    if not all(1 <= number <= count for number in wildcards):
        return f"its wildcards are numbered from 1 to {count}" if count else "it has no * to be named"
    return ""


def _mappings_wrong(mappings: Mapping[str, Sequence[int]], count: int) -> str:
    given = [partition for partitions in mappings.values() for partition in partitions]
    if len(mappings) > count:
        return f"{len(mappings) - count} more members than there are partitions ({count})"
    if not all(0 <= partition < count for partition in given):
        return f"partitions are numbered from 0 to {count - 1}"
    if len(set(given)) < len(given):
        return "a partition is given to two"
    if len(given) < count:
        return f"every partition must be given to somebody; {count - len(given)} are not"
    return ""


def unlike(group: api.ConsumerGroup, other: api.ConsumerGroup) -> str:
    """Say in which field two configurations differ that cannot be changed; nothing where they do not.

    Members of an elastic group can, and are not compared.
    """
    kept = ["max_members", "filters", "max_buffered_msgs", "max_buffered_bytes"]
    kept += [] if group.elastic else ["members", "partitions", "mapped"]
    return next((name for name in kept if getattr(group, name) != getattr(other, name)), "")
