"""What a service answers when it is asked: JSON."""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING, Any

from trionats.api import ServiceStats

if TYPE_CHECKING:
    from trionats.api import ServiceInfo, ServicePing

__all__ = ["as_json", "encoded"]


def encoded(answer: ServicePing | ServiceInfo | ServiceStats) -> bytes:
    """Write an answer, with all that other clients cannot do without."""
    said: dict[str, Any] = answer.as_dict()
    if isinstance(answer, ServiceStats):
        # nats-py reads no endpoint without data, and no time without a fraction of a second.
        for endpoint in said["endpoints"]:
            endpoint.setdefault("data", None)
        if answer.started is not None:
            said["started"] = answer.started.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return json.dumps(said).encode()


def as_json(data: object) -> object:
    """Make of what a program gives as the data of its statistics what others will read, and nobody will change.

    Raises:
        TypeError: It holds what cannot be written.
        ValueError: It holds a number that is none, or itself.
    """
    try:
        return json.loads(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"what the stats_handler returned is nothing that JSON has: {error}") from None
