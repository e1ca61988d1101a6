"""How large the message is that a consumer would deliver next: for those who cannot get it because it is too large."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from trionats import errors
from trionats._protocol.jetstream.acks import NANOSECONDS, count_of

if TYPE_CHECKING:
    from trionats import api
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api

__all__ = ["size_of_next"]


async def size_of_next(jetstream: Api[Publishing], info: api.ConsumerInfo) -> int:
    """Ask the stream's leader for the next message behind what a consumer has delivered, and count as the server does.

    The subject of the acknowledgement is part of it, and can only be reckoned: a few bytes more or less.

    Args:
        jetstream: Where the stream is.
        info: What the server says of the consumer.

    Returns:
        Its size in bytes; 0 where there is none: it may be one that is delivered again.

    Raises:
        trionats.errors.APIError: The server refused.
        nats.errors.Error: As for `Client.request`.
    """
    config = info.config
    delivered = info.delivered
    start, count = (delivered.stream_seq, delivered.consumer_seq) if delivered is not None else (0, 0)
    found: list[tuple[int, dict[str, Any]]] = []
    for pattern in config.filter_subjects or [config.filter_subject or ">"]:
        try:
            request = {"seq": start + 1, "next_by_subj": pattern}
            response = await jetstream.request(f"STREAM.MSG.GET.{info.stream_name}", request)
        except errors.NotFoundError:
            continue
        message = response.get("message")
        if isinstance(message, dict) and (sequence := count_of(message.get("seq"))) is not None:
            found.append((sequence, message))
    if not found:
        return 0
    sequence, message = min(found, key=lambda one: one[0])
    time = NANOSECONDS**2
    reply = f"$JS.ACK.{info.stream_name}.{info.name}.1.{sequence}.{count + 1}.{time}.{info.num_pending or 0}"
    subject = message.get("subject")
    sizes = [len(reply), len(subject) if isinstance(subject, str) else 0]
    return sum(sizes) + sum(_decoded(message.get(part)) for part in ("hdrs", "data"))


def _decoded(text: object) -> int:
    try:
        return len(base64.b64decode(text)) if isinstance(text, str) else 0
    except binascii.Error:
        return 0
