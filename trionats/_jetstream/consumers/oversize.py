"""How large the next message of a consumer is: for whoever has to say that it does not fit into what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trionats import errors
from trionats._protocol.jetstream.acks import count_of

if TYPE_CHECKING:
    from trionats import api
    from trionats._jetstream.api import Api, C

__all__ = ["Upcoming", "upcoming"]

#: An acknowledgement's subject without names and numbers that differ: its beginning, one delivery, the time, the dots.
_ACK_SUBJECT = len("$JS.ACK...1....") + 19


class Upcoming(NamedTuple):
    """Where a message stands in its stream, and how large it is as the server counts it: subjects, headers, payload."""

    sequence: int
    size: int


async def upcoming(jetstream: Api[C], info: api.ConsumerInfo) -> Upcoming | None:
    """Find out which message a consumer would deliver next for the first time, and how large it is.

    Args:
        jetstream: Where its stream is.
        info: What the server says of the consumer now.

    Returns:
        The message; its size is right unless the account has acknowledgements in their new form, whose subjects are longer. None
        where it cannot be found out.
    """
    config, delivered = info.config, info.delivered
    sequences = (delivered.stream_seq, delivered.consumer_seq) if delivered is not None else (0, 0)
    found: list[Upcoming] = []
    for pattern in config.filter_subjects or [config.filter_subject or ">"]:
        asked = {"seq": sequences[0] + 1, "next_by_subj": pattern}
        try:
            response = await jetstream.request(f"STREAM.MSG.GET.{info.stream_name}", asked)
        except errors.Error:
            continue
        message = response.get("message")
        sequence = count_of(message.get("seq")) if isinstance(message, dict) else None
        if isinstance(message, dict) and sequence is not None:
            numbers = f"{sequence}{sequences[1] + 1}{max(0, (info.num_pending or 0) - 1)}"
            reply = _ACK_SUBJECT + len(info.stream_name) + len(info.name) + len(numbers)
            size = len(str(message.get("subject", ""))) + _decoded(message.get("data")) + _decoded(message.get("hdrs"))
            found.append(Upcoming(sequence, size + reply))
    return min(found, default=None)


def _decoded(base64: object) -> int:
    """Say how many bytes a text in base64 stands for."""
    return len(base64) // 4 * 3 - base64[-2:].count("=") if isinstance(base64, str) else 0
