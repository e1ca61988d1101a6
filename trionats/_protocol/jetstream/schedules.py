"""What a schedule of messages says, and how it is written and read (ADR-51).

A schedule is a message: its headers say when the server is to store its payload under another subject of the same stream. There is
one for each subject, which is the last message of it: a plain message on top of it disarms it, though it stays.

What cannot be meant is refused here. Servers of 2.12 know only one moment ("@at"), and take the headers that came later
without a look, so it is known what each form needs (`need_of`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from multidict import MultiDict

from trionats import api, errors
from trionats._protocol import subjects
from trionats._protocol.fields import check_argument
from trionats._protocol.jetstream.levels import Need
from trionats._protocol.jetstream.publishing.publish import time_to_live
from trionats._told.moments import read_moment, written_moment

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["hint_of", "is_schedule", "need_of", "read_schedule", "schedule_headers"]

SCHEDULE: Final = "Nats-Schedule"
TARGET: Final = "Nats-Schedule-Target"
SOURCE: Final = "Nats-Schedule-Source"
TTL: Final = "Nats-Schedule-TTL"
TIME_ZONE: Final = "Nats-Schedule-Time-Zone"
ROLLUP: Final = "Nats-Schedule-Rollup"
#: What the server adds to a schedule, so that it replaces the one before; nobody's own header.
_ADDED: Final = "Nats-Rollup"
_OWN: Final = frozenset(name.lower() for name in (SCHEDULE, TARGET, SOURCE, TTL, TIME_ZONE, ROLLUP, _ADDED))

#: The server counts nanoseconds from 1970 in 63 bits, and looks at no overflow: what is due later is made at once, what was due
#: earlier never, and an interval that leads out of them is over four times a second.
_FIRST: Final = datetime(1678, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2262, 4, 11, tzinfo=UTC)
#: A hundred years from now are still within them.
_MOST_EVERY: Final = 100 * 365 * 86_400
_WORDS: Final = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: The six fields: their names, the least and the greatest number, and the words for numbers.
_FIELDS: Final[tuple[tuple[str, int, int, dict[str, int]], ...]] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_is_zone: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*").fullmatch
_is_number: Final = re.compile(r"[0-9]{1,9}").fullmatch
_duration_parts: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)").findall
_is_duration: Final = re.compile(r"(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:h|ms|m|s|us|µs|ns))+").fullmatch
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
#: What is to be done about a refusal, by the server's numbers.
_HINTS: Final = {
    10188: "the stream needs allow_msg_schedules",
    10166: "with a ttl the stream needs allow_msg_ttl, too",
    10190: "target must be a subject of the same stream",
    10203: "source must be a subject of the same stream",
    10189: "the server knows no such time, or it never comes",
    10223: "time_zone must be an IANA name that the server knows",
    10212: "another schedule's subject is meant",
}


def schedule_headers(
    doing: str,
    subject: str,
    *,
    target: str,
    at: datetime | None = None,
    every: float | None = None,
    cron: str | None = None,
    ttl: float | str | None = None,
    time_zone: str | None = None,
    source: str | None = None,
    rollup: bool = False,
) -> dict[str, str]:
    """Write a schedule as headers.

    Args:
        doing: What is done, for the text of an exception.
        subject: The schedule's own subject.
        target: As `JetStream.schedule` takes it, and so is the rest.

    Raises:
        TypeError: An argument is of a wrong kind.
        ValueError: An argument cannot be meant, or does not go with another one; the text names it.
    """
    _check_subject(f"{doing}: target", target)
    if target == subject:
        raise ValueError(f"{doing}: target is its own subject: what it makes has to be stored under another one")
    said = {SCHEDULE: _time(doing, at, every, cron), TARGET: target}
    if source is not None:
        _check_subject(f"{doing}: source", source)
        if source in (subject, target):
            raise ValueError(f"{doing}: source is its {'own subject' if source == subject else 'target'}, too")
        said[SOURCE] = source
    if ttl is not None:
        said[TTL] = time_to_live(doing, ttl, "ttl")
    if time_zone is not None:
        if not isinstance(time_zone, str):
            raise TypeError(f"{doing}: time_zone must be text, not {type(time_zone).__name__}")
        if cron is None:
            raise ValueError(f"{doing}: time_zone is for cron; a datetime knows its own zone")
        if not _is_zone(time_zone):
            raise ValueError(f"{doing}: time_zone is {time_zone!r}: it must be an IANA name, as 'Europe/Berlin'")
        said[TIME_ZONE] = time_zone
    check_argument(doing, "rollup", bool, rollup)
    if rollup:
        said[ROLLUP] = "sub"
    return said


def _check_subject(where: str, subject: str) -> None:
    if not isinstance(subject, str):
        raise TypeError(f"{where} must be text, not {type(subject).__name__}")
    try:
        subjects.publish_subject(subject)
    except errors.BadSubjectError as error:
        raise ValueError(f"{where}: {error}") from None


def _time(doing: str, at: datetime | None, every: float | None, cron: str | None) -> str:
    given = [name for name, value in (("at", at), ("every", every), ("cron", cron)) if value is not None]
    if len(given) != 1:
        raise ValueError(f"{doing}: one of at, every and cron says when, not {' and '.join(given) or 'none of them'}")
    if at is not None:
        written = written_moment(doing, "at", at)
        if not _FIRST <= at <= _LAST:
            raise ValueError(f"{doing}: at is {at}: it must be from {_FIRST:%Y-%m-%d} to {_LAST:%Y-%m-%d}")
        return "@at " + written
    if cron is not None:
        return _cron(doing, cron)
    if not isinstance(every, (int, float)) or isinstance(every, bool):
        raise TypeError(f"{doing}: every must be whole seconds, not {type(every).__name__}")
    if not 1 <= every <= _MOST_EVERY or every != int(every):
        raise ValueError(f"{doing}: every is {every:g} s: it must be whole seconds, from 1 to {_MOST_EVERY}")
    return f"@every {int(every)}s"


def _cron(doing: str, cron: str) -> str:
    if not isinstance(cron, str):
        raise TypeError(f"{doing}: cron must be text, not {type(cron).__name__}")
    if cron in _WORDS:
        return cron
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        text = f"it has {len(fields)} fields, and six are needed: second, minute, hour, day, month, day of the week"
        raise ValueError(f"{doing}: cron is {cron!r}: {text}")
    for field, (name, least, most, words) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            complaint = _part_wrong(part.lower(), least, most, words)
            if complaint is not None:
                raise ValueError(f"{doing}: cron is {cron!r}: {part!r} is no {name}: {complaint}")
    return " ".join(fields)


def _part_wrong(part: str, least: int, most: int, words: Mapping[str, int]) -> str | None:
    spread, slash, step = part.partition("/")
    if slash and (not _is_number(step) or not int(step)):
        return "a step is a whole number, from 1"
    if spread in ("*", "?"):
        return None
    ends = spread.split("-")
    numbers = [words[end] if end in words else int(end) if _is_number(end) else -1 for end in ends]
    if len(ends) > 2 or not all(least <= number <= most for number in numbers):
        return f"it must be *, or from {least} to {most}"
    return None if numbers == sorted(numbers) else "it ends before it begins"


def need_of(headers: Mapping[str, str]) -> Need:
    """Say which server a schedule needs: one of 2.12 knows one moment only, and leaves out the rest without a word.

    Args:
        headers: What `schedule_headers` wrote.
    """
    for name, called in ((SOURCE, "source"), (ROLLUP, "rollup"), (TIME_ZONE, "time_zone")):
        if name in headers:
            return Need(called, 4)
    time = headers[SCHEDULE]
    if time.startswith("@at "):
        return Need("a schedule", 2)
    return Need("every" if time.startswith("@every ") else "cron", 4)


def hint_of(err_code: int | None) -> str:
    """Say what is to be done about a refusal, or "".

    Args:
        err_code: The server's number.
    """
    return _HINTS.get(err_code or 0, "")


def is_schedule(headers: Mapping[str, str]) -> bool:
    """Say whether a message, the last one of its subject, is a schedule."""
    return SCHEDULE in headers


def read_schedule(
    subject: str, seq: int, created: datetime, headers: MultiDict[str], data: bytes
) -> api.Schedule | None:
    """Read a schedule, whoever wrote it.

    Args:
        subject: The subject of the message.
        seq: Its sequence.
        created: When it was stored.
        headers: Its headers.
        data: Its payload.

    Returns:
        The schedule; None for a message that is none. What is not readable in it is None there.
    """
    if not is_schedule(headers):
        return None
    expression = headers[SCHEDULE]
    at, every, cron = _read_time(expression)
    return api.Schedule(
        subject=subject,
        target=headers.get(TARGET, ""),
        expression=expression,
        at=at,
        every=every,
        cron=cron,
        time_zone=headers.get(TIME_ZONE),
        ttl=_read_ttl(headers.get(TTL)),
        source=headers.get(SOURCE),
        rollup=headers.get(ROLLUP) == "sub",
        data=data,
        headers=MultiDict((name, value) for name, value in headers.items() if name.lower() not in _OWN),
        seq=seq,
        created=created,
    )


def _read_time(expression: str) -> tuple[datetime | None, float | None, str | None]:
    kind, _, rest = expression.partition(" ")
    if kind == "@at":
        try:
            return read_moment(rest), None, None
        except ValueError:
            return None, None, None
    if kind == "@every":
        return None, _read_duration(rest), None
    return None, None, expression


def _read_duration(text: str) -> float | None:
    if not _is_duration(text):
        return None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _duration_parts(text))
    return seconds if seconds <= timedelta.max.total_seconds() else None


def _read_ttl(text: str | None) -> float | str | None:
    if text is None or text.lower() == "never":
        return text and "never"
    return float(text) if _is_number(text) else _read_duration(text)
