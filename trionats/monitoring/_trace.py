"""Where a message went: what `Client.trace` gives (ADR-41, server 2.11)."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, final

from trionats._told.reading import Told, wire
from trionats.monitoring._server import ServerInfo

E = TypeVar("E", bound="TraceEvent")


@final
class ConnectionKind(enum.IntEnum):
    """What is at the other end of a connection of a server's. A number that is none of these may be a newer server's."""

    CLIENT = 0
    ROUTER = 1
    """A server of the same cluster."""
    GATEWAY = 2
    """A server of another cluster."""
    SYSTEM = 3
    LEAF = 4
    """A leaf node, or what it is a leaf of."""
    JETSTREAM = 5
    ACCOUNT = 6


#: What leads to another server, which reports of itself.
FORWARDING: Final = frozenset({ConnectionKind.ROUTER, ConnectionKind.GATEWAY, ConnectionKind.LEAF})
_ARROWS: Final[Mapping[int, str]] = {
    ConnectionKind.CLIENT: "--C",
    ConnectionKind.ROUTER: "-->",
    ConnectionKind.GATEWAY: "==>",
    ConnectionKind.LEAF: "~~>",
}


@dataclass(frozen=True, kw_only=True)
class TraceEvent(Told):
    """What a server did with a message.

    Attributes:
        time: When, by the server's clock.
    """

    time: datetime.datetime | None = wire("ts", None)


@final
@dataclass(frozen=True, kw_only=True)
class TraceIngress(TraceEvent):
    """The message came in.

    Attributes:
        kind: From whom.
        cid: The server's number for the connection.
        name: What the client calls itself, or the other server's name.
        account: The account that it belongs to there.
        subject: Its subject.
        error: Why it went no further; empty if it did.
    """

    kind: ConnectionKind | int = ConnectionKind.CLIENT
    cid: int = 0
    name: str = ""
    account: str = wire("acc", "")
    subject: str = wire("subj", "")
    error: str = ""

    def __str__(self) -> str:
        return _joined(f"in from {_kind(self.kind)} {self.name!r} as {self.subject!r} of {self.account}", self.error)


@final
@dataclass(frozen=True, kw_only=True)
class TraceSubjectMapping(TraceEvent):
    """A mapping of the account gave it another subject, `to`."""

    to: str = ""

    def __str__(self) -> str:
        return f"mapped to {self.to!r}"


@final
@dataclass(frozen=True, kw_only=True)
class TraceStreamExport(TraceEvent):
    """It went to who imports a stream of subjects: into `account`, as `to`."""

    account: str = wire("acc", "")
    to: str = ""

    def __str__(self) -> str:
        return f"exported to {self.account} as {self.to!r}"


@final
@dataclass(frozen=True, kw_only=True)
class TraceServiceImport(TraceEvent):
    """It went to who exports a service: into `account`, from the subject `origin` to the subject `to`.

    Where that account does not allow to be traced (`allow_trace`), nothing is reported of what came of it there.
    """

    account: str = wire("acc", "")
    origin: str = wire("from", "")
    to: str = ""

    def __str__(self) -> str:
        return f"imported from {self.account}: {self.origin!r} as {self.to!r}"


@final
@dataclass(frozen=True, kw_only=True)
class TraceJetStream(TraceEvent):
    """It came to a stream.

    Attributes:
        stream: The stream.
        subject: The subject that it is stored under.
        no_interest: It was not stored, since no consumer of a stream that is kept for interest wants it.
        error: Why it was not stored; empty where it was.
    """

    stream: str = ""
    subject: str = ""
    no_interest: bool = wire("nointerest", False)
    error: str = ""

    @property
    def stored(self) -> bool:
        """Whether it was stored; of what was only traced, whether it would be."""
        return not self.error and not self.no_interest

    def __str__(self) -> str:
        why = self.error or ("no interest" if self.no_interest else "")
        return _joined(f"--J stream {self.stream!r} as {self.subject!r}", why)


@final
@dataclass(frozen=True, kw_only=True)
class TraceEgress(TraceEvent):
    """It went out.

    Attributes:
        kind: To whom.
        cid: The server's number for the connection.
        name: What the client calls itself, or the other server's name.
        hop: The `TraceHop.id` of the server that it went to; empty for a client.
        account: The account of who got it, where that is another one than it came in with.
        subscription: The client's subscription that it matched.
        queue: Its queue group.
        error: Why it did not go out, or why its server reports nothing; else empty.
    """

    kind: ConnectionKind | int = ConnectionKind.CLIENT
    cid: int = 0
    name: str = ""
    hop: str = ""
    account: str = wire("acc", "")
    subscription: str = wire("sub", "")
    queue: str = ""
    error: str = ""

    def __str__(self) -> str:
        arrow = _ARROWS.get(self.kind, "-->")
        where = f" on {self.subscription!r}" if self.subscription else ""
        queue = f" of queue {self.queue!r}" if self.queue else ""
        return _joined(f"{arrow} {_kind(self.kind)} {self.name!r}{where}{queue}", self.error)


@final
@dataclass(frozen=True, kw_only=True)
class UnknownTraceEvent(TraceEvent):
    """Something that is not known here, a newer server's for instance: `type` is what the server calls it, `extra` all else."""

    type: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {dict(self.extra)}"


@final
@dataclass(frozen=True, kw_only=True)
class TraceHop(Told):
    """A server that the message passed.

    Attributes:
        id: Where it stands: empty for the server that the message was published to, "2" for the second one that it passed it on
            to, "2.1" for the first one that this one did.
        server: The server.
        headers: The message's headers, as they came there.
        size: The message's headers and payload, in bytes.
        forwarded: To how many servers it was to be passed on.
        events: What the server did, in this order.
    """

    id: str = ""
    server: ServerInfo = field(default_factory=ServerInfo)
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    size: int = 0
    forwarded: int = wire("hops", 0)
    events: tuple[TraceEvent, ...] = ()

    @property
    def ingress(self) -> TraceIngress | None:
        """How it came in."""
        return next(_of(TraceIngress, [self]), None)

    @property
    def egress(self) -> tuple[TraceEgress, ...]:
        """To whom it went out."""
        return tuple(_of(TraceEgress, [self]))

    @property
    def announced(self) -> tuple[str, ...]:
        """The ids of the servers that it was passed on to, and that are to report of it."""
        return tuple(one.hop for one in self.egress if one.hop and not one.error and one.kind in FORWARDING)


@final
@dataclass(frozen=True, kw_only=True)
class Trace:
    """Where a message went. As text it is a tree of servers.

    Attributes:
        subject: Where it was published.
        only: It was only traced, and delivered to nobody.
        hops: The servers that it passed: each behind the one that passed it on.
        missing: The ids of hops that were announced, and of which nothing was heard in time.
    """

    subject: str
    only: bool
    hops: tuple[TraceHop, ...]
    missing: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether each server has reported that was to."""
        return not self.missing

    @property
    def deliveries(self) -> tuple[TraceEgress, ...]:
        """The clients that it went to, or would go to where it was only traced."""
        return tuple(one for one in _of(TraceEgress, self.hops) if one.kind == ConnectionKind.CLIENT and not one.error)

    @property
    def streams(self) -> tuple[TraceJetStream, ...]:
        """The streams that it came to, stored or not."""
        return tuple(_of(TraceJetStream, self.hops))

    @property
    def errors(self) -> tuple[str, ...]:
        """Whatever went wrong, anywhere."""
        return tuple(text for hop in self.hops for one in hop.events if (text := str(getattr(one, "error", ""))))

    def __str__(self) -> str:
        lines = []
        for hop in self.hops:
            indent = "    " * (hop.id.count(".") + 1 if hop.id else 0)
            cluster = f" in {hop.server.cluster!r}" if hop.server.cluster else ""
            lines.append(f"{indent}server {hop.server.name!r}{cluster}, {hop.server.version}")
            lines += [f"{indent}  {one}" for one in hop.events]
        lines += [f"no report of hop {one}" for one in self.missing]
        return "\n".join(lines)


def _of(kind: type[E], hops: Iterable[TraceHop]) -> Iterator[E]:
    return (one for hop in hops for one in hop.events if isinstance(one, kind))


def _kind(kind: ConnectionKind | int) -> str:
    return kind.name.lower() if isinstance(kind, ConnectionKind) else f"kind {kind}"


def _joined(text: str, error: str) -> str:
    return f"{text}: --X {error}" if error else text
