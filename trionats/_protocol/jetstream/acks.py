"""What the reply subject of a JetStream message says, and the numbers that JetStream says elsewhere.

All of it is somebody's word, so what is no number of the kind that was to come is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LARGEST", "NANOSECONDS", "AckSubject", "count_of", "parse_ack_subject", "whole_number"]

NANOSECONDS: Final = 1_000_000_000
#: Sequences, counts and times are 63 bits wide: a year beyond 2262 would be none to those who read it.
LARGEST: Final = (1 << 63) - 1


class AckSubject(NamedTuple):
    """What the reply subject of a JetStream message says about it; the timestamp counts nanoseconds."""

    stream: str
    consumer: str
    deliveries: int
    sequence: int
    consumer_sequence: int
    timestamp: int
    pending: int
    domain: str = ""


def parse_ack_subject(reply: str) -> AckSubject | None:
    """Read the reply subject of a JetStream message, in its old (9 tokens) or new (11 and more) form.

    Args:
        reply: The message's reply subject.

    Returns:
        What it says, or None when it is not such a subject.
    """
    if not reply.startswith("$JS.ACK."):
        return None
    tokens = reply.split(".")
    count = len(tokens)
    # ADR-15: ten tokens are neither form; more than eleven may come one day and mean nothing yet.
    if count == 9:
        first, domain = 2, ""
    elif count >= 11:
        first, domain = 4, "" if tokens[2] == "_" else tokens[2]
    else:
        return None
    try:
        deliveries, sequence, consumer_sequence, timestamp, pending = map(int, tokens[first + 2 : first + 7])
    except ValueError:
        return None
    if not (0 <= sequence <= LARGEST and 0 <= timestamp <= LARGEST and 0 <= pending <= LARGEST):
        return None
    return AckSubject(
        tokens[first], tokens[first + 1], deliveries, sequence, consumer_sequence, timestamp, pending, domain
    )


def whole_number(fields: Mapping[str, object], name: str) -> int:
    """Read a count from a header or a JSON object.

    Args:
        fields: The header fields or the object.
        name: The field's name.

    Returns:
        The number, or 0 when there is none.
    """
    value = fields.get(name)
    if isinstance(value, str):
        return int(value) if len(value) < 20 and value.isascii() and value.isdigit() else 0
    return count_of(value) or 0


def count_of(value: object) -> int | None:
    """Read a count that a response holds.

    Args:
        value: Whatever stands in its place.

    Returns:
        The number, or None when it is no count.
    """
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST else None
