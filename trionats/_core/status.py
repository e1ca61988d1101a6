"""What is known of a connection and of its server: the properties of a client.

Split off `_client`: nothing here changes anything.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from trionats import events
from trionats._protocol.engine import Phase

if TYPE_CHECKING:
    from trionats._connection.supervisor import Supervisor
    from trionats._connection.tls import TLSState
    from trionats._core.foreign import Foreign
    from trionats._core.requests import Requests
    from trionats._feeds.feed import Pace
    from trionats._protocol.engine import Engine


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
        pending_requests: Requests that wait for their answer.
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


class Facts:
    """The read-only half of a client."""

    _engine: Engine
    _supervisor: Supervisor
    _requests: Requests
    foreign: Foreign
    pace: Pace

    def statistics(self) -> ClientStatistics:
        """Count what was done, and what is held."""
        engine = self._engine
        return ClientStatistics(
            in_msgs=engine.in_msgs,
            out_msgs=engine.outbox.out_msgs,
            in_bytes=engine.in_bytes,
            out_bytes=engine.outbox.out_bytes,
            reconnects=self._supervisor.reconnects,
            subscriptions=sum(row.receiver is not self._requests for row in engine.registrations.values()),
            pending_requests=len(self._requests),
            outbox_bytes=engine.outbox.bytes,
            feeds=tuple(feed.name for feed in self.pace.feeds),
            skipped=self.foreign.skipped,
        )

    @property
    def state(self) -> events.ConnectionState:
        """How far the client is; `open_events` tells of the changes."""
        supervisor = self._supervisor
        if supervisor.finished.is_set():
            return events.ConnectionState.CLOSED
        if supervisor.draining:
            return events.ConnectionState.DRAINING_PUBS if supervisor.flushing else events.ConnectionState.DRAINING_SUBS
        if self.is_connected:
            return events.ConnectionState.CONNECTED
        return events.ConnectionState.CONNECTING if supervisor.server is None else events.ConnectionState.RECONNECTING

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers that are known, without secrets: those given, and those discovered."""
        return tuple(map(str, self._supervisor.servers))

    @property
    def discovered_servers(self) -> tuple[str, ...]:
        """The servers that other servers told of, without secrets."""
        return tuple(str(server) for server in self._supervisor.servers if not server.explicit)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._engine.phase is Phase.ONLINE

    @property
    def is_closed(self) -> bool:
        """Whether the client is closed, or lost for good."""
        return self._supervisor.finished.is_set()

    @property
    def last_error(self) -> BaseException | None:
        """Why the client was lost for good; None while it lives, and when it was closed on purpose."""
        return self._supervisor.failure

    @property
    def connected_url(self) -> str | None:
        """The server that we are connected to, without secrets; None while there is no connection."""
        return str(self._supervisor.server) if self.is_connected else None

    @property
    def tls(self) -> TLSState | None:
        """What secures the connection right now; None for nothing."""
        return self._supervisor.tls

    @property
    def max_payload(self) -> int:
        """How many bytes headers and payload of a message may have together, as the server says."""
        return self._supervisor.max_payload

    @property
    def server_info(self) -> dict[str, Any]:
        """A copy of what the server said of itself, with the names of its INFO."""
        return copy.deepcopy(self._engine.info)

    @property
    def server_id(self) -> str:
        """The server's id."""
        return str(self._engine.info.get("server_id", ""))

    @property
    def server_name(self) -> str:
        """The server's name."""
        return str(self._engine.info.get("server_name", ""))

    @property
    def server_version(self) -> str:
        """The server's version, as it says it."""
        return str(self._engine.info.get("version", ""))

    @property
    def cluster(self) -> str:
        """The name of the server's cluster, empty if it is in none."""
        return str(self._engine.info.get("cluster", ""))

    @property
    def client_id(self) -> int | None:
        """The number that the server gave this connection."""
        return self._engine.info.get("client_id")

    @property
    def client_ip(self) -> str:
        """Our address, as the server sees it."""
        return str(self._engine.info.get("client_ip", ""))

    @property
    def headers_supported(self) -> bool:
        """Whether the server takes messages with headers."""
        return self._engine.info.get("headers") is True

    @property
    def jetstream_enabled(self) -> bool:
        """Whether JetStream runs on the server itself; the account may still not be allowed to use it."""
        return self._engine.info.get("jetstream") is True

    @property
    def auth_required(self) -> bool:
        """Whether the server lets nobody in who does not say who they are."""
        return self._engine.info.get("auth_required") is True

    @property
    def tls_required(self) -> bool:
        """Whether the server demands TLS; `tls` says what secures this connection."""
        return self._engine.info.get("tls_required") is True

    @property
    def is_system_account(self) -> bool:
        """Whether this connection is one of the server's system account; servers before 2.12 do not say."""
        return self._engine.info.get("acc_is_sys") is True
