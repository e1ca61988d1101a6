"""What a counter says (ADR-49): numbers of any size, as decimal text.

A counter is a subject of a stream that adds up: each message says what is added (`Nats-Incr`), and the stream stores the sum as its
payload. Where a stream adds up what others count, it says beside it what each of them has brought (`Nats-Counter-Sources`).

Python refuses to turn text of more than 4,300 digits into a number, or back, since that takes time in proportion to their square. The
limit belongs to the program and is not touched here. So a number is read in pieces that are put together two by two, since anybody
may have stored it (a megabyte of digits takes half a second), and written by `decimal`, which has no limit.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from trionats import api

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["INCREMENT", "increment_of", "read_entry", "value_of"]

INCREMENT: Final = "Nats-Incr"
SOURCES: Final = "Nats-Counter-Sources"
#: The server takes 64 KiB of headers (error 10097); writing a number takes time in proportion to the square of its digits, too.
_TOO_LARGE: Final = 10**65_000
#: Below the least limit that a program may set (`sys.set_int_max_str_digits`).
_PIECE: Final = 640
_is_whole: Final = re.compile(r"[+-]?[0-9]+").fullmatch


def increment_of(doing: str, number: object) -> dict[str, str]:
    """Write what is to be added.

    Args:
        doing: What is done, for the text of an exception.
        number: The number.

    Raises:
        TypeError: It is no whole number.
        ValueError: It has more digits than a message can say.
    """
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{doing}: n must be a whole number, not {type(number).__name__}")
    if not -_TOO_LARGE < number < _TOO_LARGE:
        raise ValueError(f"{doing}: n has more than 65,000 digits: no message can have more")
    return {INCREMENT: f"{Decimal(number):+f}"}


def value_of(text: object) -> int:
    """Read a number.

    Args:
        text: What stands in its place.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(text, str) or not _is_whole(text):
        raise ValueError("a counter's number must be decimal text")
    return -_number(text[1:]) if text[0] == "-" else _number(text.lstrip("+"))


def _number(digits: str) -> int:
    # The least piece first; each round puts neighbours together, and doubles what a piece is worth.
    pieces = [int(digits[max(0, end - _PIECE) : end]) for end in range(len(digits), 0, -_PIECE)]
    worth = 10**_PIECE
    while len(pieces) > 1:
        pieces.append(0)
        pieces = [low + high * worth for low, high in zip(pieces[::2], pieces[1::2], strict=False)]
        worth *= worth
    return pieces[0]


def read_entry(subject: str, seq: int, time: datetime, headers: Mapping[str, str], data: bytes) -> api.CounterEntry:
    """Read what a counter has come to.

    Args:
        subject: The counter.
        seq: The sequence of its last message.
        time: When that was stored.
        headers: That message's headers.
        data: Its payload.

    Raises:
        ValueError: It is no counter's.
    """
    said = json.loads(data)
    if not isinstance(said, dict):
        raise ValueError("its payload must be a JSON object")
    return api.CounterEntry(subject, value_of(said.get("val")), _sources(headers.get(SOURCES)), seq, time)


def _sources(text: str | None) -> Mapping[str, Mapping[str, int]]:
    if text is None:
        return MappingProxyType({})
    said = json.loads(text)
    if not isinstance(said, dict) or not all(isinstance(brought, dict) for brought in said.values()):
        raise ValueError("its sources must be JSON objects")
    return MappingProxyType(
        {
            stream: MappingProxyType({subject: value_of(value) for subject, value in brought.items()})
            for stream, brought in said.items()
        }
    )
