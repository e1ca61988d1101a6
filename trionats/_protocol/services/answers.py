"""What a service answers when it is asked: JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trionats.api import ServiceInfo, ServicePing, ServiceStats

__all__ = ["check_data", "encoded"]


def encoded(answer: ServicePing | ServiceInfo | ServiceStats) -> bytes:
    """Write an answer."""
    return json.dumps(answer.as_dict()).encode()


def check_data(data: object) -> None:
    """Refuse what a program gives as the data of its statistics, where JSON has no such thing.

    Raises:
        TypeError: It holds what cannot be written.
        ValueError: It holds a number that is none, or itself.
    """
    try:
        json.dumps(data, allow_nan=False)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"what the stats_handler returned is nothing that JSON has: {error}") from None
