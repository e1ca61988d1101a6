"""Message tracing (ADR-41, server 2.11): what servers report of one message, put together.

Strategy
    Each server that a message passes sends one report, when it is done with it, so the reports come in any order. A server
    that passes the message on gives the next one a number of its own behind its own: "1" and "2" from the first server, "2.1" from
    that. Its report names these numbers where it lists what went out, and the reports of those that got it have them in the
    message's headers. So the trace is whole once the first server's report is there, and one for each number that was named
    anywhere, whatever the order. What went out with an error reports nothing: it did not go, or the other side is too old.

    The count that a report has besides (`hops`) includes those, so it says nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from trionats import errors, monitoring
from trionats._protocol.server_errors import server_error
from trionats._told.reading import read

if TYPE_CHECKING:
    from trionats._protocol.parser import Message

__all__ = ["DEST", "LEAST_VERSION", "Gathering", "check_headers", "read_hop", "trace_fields"]

LEAST_VERSION: Final = (2, 11)
DEST: Final = "Nats-Trace-Dest"
ONLY: Final = "Nats-Trace-Only"
HOP: Final = "Nats-Trace-Hop"
_OURS: Final = "nats-trace-"
_COMPRESSION: Final = "accept-encoding"
_EVENTS: Final[Mapping[object, type[monitoring.TraceEvent]]] = {
    "in": monitoring.TraceIngress,
    "sm": monitoring.TraceSubjectMapping,
    "se": monitoring.TraceStreamExport,
    "si": monitoring.TraceServiceImport,
    "js": monitoring.TraceJetStream,
    "eg": monitoring.TraceEgress,
}


def trace_fields(dest: str, *, only: bool) -> dict[str, str]:
    """Make the headers that have a message traced.

    Args:
        dest: Where the servers report to.
        only: Deliver it to nobody.
    """
    return {DEST: dest, ONLY: "1"} if only else {DEST: dest}


def check_headers(headers: Mapping[str, Any]) -> None:
    """Refuse headers that would spoil the reports.

    Args:
        headers: What the message is to have besides.

    Raises:
        ValueError: One of them is the tracing's own, or asks for reports that are compressed.
    """
    for name in headers:
        lower = str(name).lower()
        if lower.startswith(_OURS):
            raise ValueError(f"trace: headers: {name!r} is set by the trace itself, and by servers")
        if lower == _COMPRESSION:
            raise ValueError(f"trace: headers: {name!r} would have the servers compress their reports")


def read_hop(message: Message) -> monitoring.TraceHop:
    """Read a server's report.

    Args:
        message: What it sent.

    Raises:
        ValueError: It is none.
    """
    said = json.loads(message.data)
    if not isinstance(said, dict) or not isinstance(said.get("events"), list):
        raise ValueError("a server's report of a message has a list of events")
    request = read(_Request, said.get("request") or {}, "request")
    events = tuple(map(_read_event, said["events"]))
    # What a publisher wrote there itself is not the servers'.
    first = any(
        isinstance(one, monitoring.TraceIngress) and one.kind == monitoring.ConnectionKind.CLIENT for one in events
    )
    number = "" if first else next(iter(request.header.get(HOP, ())), "")
    rest = {name: value for name, value in said.items() if name not in ("request", "events")}
    return read(
        monitoring.TraceHop, rest, "the report", id=number, headers=request.header, size=request.msgsize, events=events
    )


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What a report says of the message itself."""

    header: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    msgsize: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


def _read_event(said: object) -> monitoring.TraceEvent:
    if not isinstance(said, dict):
        raise ValueError("an event of a server's report is an object")
    kind = said.get("type")
    rest = {name: value for name, value in said.items() if name != "type"}
    try:
        return read(_EVENTS[kind], rest, "the event")
    except (KeyError, TypeError, ValueError):
        # A newer server's: what else the report says is as good as before.
        return monitoring.UnknownTraceEvent(type=str(kind), extra=rest)


@final
class Gathering:
    """The reports of one message.

    Args:
        subject: Where it was published.
        only: Whether it was only traced.
    """

    def __init__(self, subject: str, *, only: bool) -> None:
        self._subject = subject
        self._only = only
        self._hops: dict[tuple[str, str], monitoring.TraceHop] = {}
        self._came: set[str] = set()
        self._announced = {""}

    def take(self, hop: monitoring.TraceHop) -> bool:
        """Take a report; says whether that was all: each hop that was announced has come."""
        # The same one twice is one: an account may import its own inbox, too.
        self._hops.setdefault((hop.id, hop.server.id), hop)
        self._came.add(hop.id)
        self._announced.update(hop.announced)
        return self.complete

    @property
    def complete(self) -> bool:
        """Whether each hop that was announced has come."""
        return self._announced <= self._came

    @property
    def empty(self) -> bool:
        """Whether nothing has come at all."""
        return not self._hops

    def refusal(self) -> errors.PermissionsViolationError | None:
        """Say what the server says to a user who may not publish there; None where that is not so.

        It says so in a complaint, too, and either of them may come first.
        """
        first = next((hop for hop in self._hops.values() if not hop.id), None)
        if first is None or first.ingress is None:
            return None
        error = server_error(first.ingress.error)
        return error if isinstance(error, errors.PermissionsViolationError) else None

    def trace(self) -> monitoring.Trace:
        """Give what has come: each hop behind the one that announced it."""
        hops = sorted(self._hops.values(), key=lambda hop: _place(hop.id))
        missing = sorted(self._announced - self._came, key=_place)
        return monitoring.Trace(subject=self._subject, only=self._only, hops=tuple(hops), missing=tuple(missing))


def _place(number: str) -> list[tuple[int, str]]:
    # By number, not as text: the tenth comes behind the second.
    return [(len(part), part) for part in number.split(".")] if number else []
