"""Deadlines that travel with requests (decision 27 of the design): as the milliseconds that are left, so that no two clocks are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from multidict import MultiDict

from trionats._protocol.services.words import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    Headers = Mapping[str, str | Sequence[str]]

__all__ = ["mentions", "seconds_left", "with_timeout"]

_MARK = TIMEOUT.encode()
#: A number of more digits is none that anybody waits for.
_MOST_DIGITS = 15


def with_timeout(headers: Headers | None, seconds: float) -> Headers | None:
    """Say in the headers of a request for how long its response is waited for.

    Args:
        headers: Its headers; one of this name, by whoever made them, stays.
        seconds: How long; infinite for who waits for ever, who says nothing.

    Returns:
        Its headers.
    """
    if seconds == math.inf or (headers and (not isinstance(headers, Mapping) or TIMEOUT in headers)):
        return headers
    told: MultiDict[Any] = MultiDict(headers.items() if headers else ())
    # Never less than it is: who waits longer than is said would see its work stopped.
    told[TIMEOUT] = str(math.ceil(max(seconds, 0.0) * 1000))
    return told


def mentions(header_block: bytes | None) -> bool:
    """Say whether it may be worth looking for a deadline in a header block."""
    return header_block is not None and _MARK in header_block


def seconds_left(headers: Mapping[str, str]) -> float:
    """Read for how long the response to a request is waited for.

    Args:
        headers: Its headers, whoever made them.

    Returns:
        How long; infinite where nobody says so, or nobody could mean what is said.
    """
    said = headers.get(TIMEOUT, "")
    if not (said.isascii() and said.isdigit()) or len(said) > _MOST_DIGITS:
        return math.inf
    return int(said) / 1000
