"""Points in time, as the server writes them and takes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import tzinfo

__all__ = ["NANOSECONDS", "moment_of", "read_moment", "written_moment"]

#: In a second.
NANOSECONDS: Final = 10**9

#: How the server wrote times until ADR-31 was in order: as Go prints them.
_as_go_prints: Final = re.compile(r"(\S+ \S+) ([+-]\d{4}) \S+").fullmatch

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
#: Up to where a float of seconds is exact to the microsecond: 2 ** 33 seconds, in the year 2242.
_EXACT: Final = (1 << 33) * 1_000_000


def moment_of(nanoseconds: int) -> datetime:
    """Give a time that the server says in nanoseconds since 1970: the same as `read_moment` of its text.

    A float has no room for the nanoseconds of our days: the last microsecond would be another one, now and then. For whole
    microseconds it has, as long as it is off by less than half of one, which is what it is rounded to.
    """
    microseconds = nanoseconds // 1000
    if microseconds < _EXACT:
        return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
    return _EPOCH + timedelta(0, 0, microseconds)


def read_moment(text: object, zone: tzinfo | None = None) -> datetime:
    """Read a time that the server says: RFC 3339, or as Go prints it (servers of the first years of direct get).

    Args:
        text: Whatever stands in its place.
        zone: In which zone it is meant where it names none; None where it has to.

    Returns:
        The time, in UTC. The nanoseconds that it has no room for are cut off.

    Raises:
        ValueError: It is no time.
    """
    if not isinstance(text, str):
        raise ValueError(f"its time must be text, not {type(text).__name__}")
    printed = _as_go_prints(text)
    try:
        moment = datetime.fromisoformat("".join(printed.groups()) if printed else text)
        if moment.tzinfo is not None or zone is not None:
            return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"its time is {text[:40]!r}")


def written_moment(call: str, name: str, moment: object) -> str:
    """Write a time that the server is told, as RFC 3339 text.

    Args:
        call: The call that it is an argument of, for texts: "get_msgs".
        name: The argument.
        moment: A datetime that knows its zone.

    Raises:
        TypeError: It is something else.
        ValueError: It does not know its zone, or is none of the years 1 to 9999 in UTC.
    """
    if not isinstance(moment, datetime):
        raise TypeError(f"{call}: {name} must be a datetime, not {type(moment).__name__}")
    if moment.utcoffset() is None:
        raise ValueError(f"{call}: {name} has no time zone, as in datetime.now(UTC)")
    try:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise ValueError(f"{call}: {name} is {moment}, which is no moment of the years 1 to 9999 in UTC") from None
