"""What is known of a connection: how far it is, and what it has done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from trionats.events import ConnectionState

if TYPE_CHECKING:
    from trionats._core.connection import Connection


@final
@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """What a client has done, and what it holds.

    Attributes:
        in_msgs: Messages that came.
        out_msgs: Messages that were published, those that still wait to be sent included.
        in_bytes: Their headers and payloads.
        out_bytes: Their headers and payloads.
        reconnects: How often the connection came back.
        subscriptions: Subscriptions that are open; the one that requests share comes with the first and stays, and is
            not counted.
        pending_requests: Requests that wait for their reply.
        outbox_bytes: Bytes that wait to be sent.
        feeds: The names of the feeds that are open.
        skipped: Entries of other programs' making that could not be read, and were left out.
    """

    in_msgs: int
    out_msgs: int
    in_bytes: int
    out_bytes: int
    reconnects: int
    subscriptions: int
    pending_requests: int
    outbox_bytes: int
    feeds: tuple[str, ...]
    skipped: int = 0


def statistics_of(connection: Connection) -> ClientStatistics:
    """Count what was done, and what is held."""
    engine = connection.engine
    return ClientStatistics(
        in_msgs=engine.in_msgs,
        out_msgs=engine.outbox.out_msgs,
        in_bytes=engine.in_bytes,
        out_bytes=engine.outbox.out_bytes,
        reconnects=connection.supervisor.reconnects,
        subscriptions=sum(each.receiver is not connection.requests for each in engine.registrations.values()),
        pending_requests=len(connection.requests),
        outbox_bytes=engine.outbox.bytes,
        feeds=tuple(feed.name for feed in connection.feeds),
        skipped=connection.foreign.skipped,
    )


def state_of(connection: Connection) -> ConnectionState:
    """Say how far it is."""
    supervisor = connection.supervisor
    if supervisor.finished.is_set():
        return ConnectionState.CLOSED
    if supervisor.draining:
        return ConnectionState.DRAINING_PUBS if supervisor.flushing else ConnectionState.DRAINING_SUBS
    if connection.is_connected:
        return ConnectionState.CONNECTED
    return ConnectionState.CONNECTING if supervisor.server is None else ConnectionState.RECONNECTING
