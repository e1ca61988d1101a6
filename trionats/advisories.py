"""What servers tell of JetStream as it happens: the values that `open_advisories` yields.

Each is a fact that nobody asked for, published once, to whoever listens: a stream was made, a message was delivered for the last time, a
replica lost its majority. The classes have the server's fields under the server's names; `raw` has all of them, also those that a newer server
adds. Seconds are floats, and times are datetimes in UTC.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from trionats._told.reading import nanoseconds, wire

__all__ = [
    "Advisory",
    "ApiAudit",
    "ApiLimitReached",
    "ConsumerAck",
    "ConsumerAction",
    "ConsumerGroupPinned",
    "ConsumerGroupUnpinned",
    "ConsumerLeaderElected",
    "ConsumerPause",
    "ConsumerQuorumLost",
    "DomainLeaderElected",
    "MaxDeliver",
    "MetaRescue",
    "Nak",
    "Replica",
    "RestoreComplete",
    "RestoreCreate",
    "ServerOutOfSpace",
    "ServerRemoved",
    "SnapshotComplete",
    "SnapshotCreate",
    "StreamAction",
    "StreamBatchAbandoned",
    "StreamLeaderElected",
    "StreamQuorumLost",
    "Terminated",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """An advisory or a metric; one that is of no kind below has just this.

    Attributes:
        subject: The subject that it was published to.
        type: Its kind, as the server names it: "io.nats.jetstream.advisory.v1.stream_action".
        id: Its own id.
        time: When it was published ("timestamp" in `raw`).
        domain: The JetStream domain of the server; None where it has none.
        raw: All that the server said.
    """

    subject: str
    type: str = ""
    id: str = ""
    time: datetime.datetime | None = wire("timestamp", None)
    domain: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica that does not lead, as the leader knows it.

    Attributes:
        name: The server.
        current: Whether it has all that the leader has.
        offline: Whether it is known to be gone.
        active: How many seconds ago it was heard of.
        lag: How many operations it is behind.
    """

    name: str
    current: bool = False
    offline: bool = False
    active: float = nanoseconds()
    lag: int = 0


# -- the API -----------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAudit(Advisory):
    """The API was asked something: by whom, what, and what was answered.

    Reading (info, names, lists, the next message) is not audited. What is refused is.

    Attributes:
        server: The server that answered.
        client: Who asked, as the server knows them.
        api_subject: The subject of the request ("subject" in `raw`).
        request: The request.
        response: The response.
    """

    server: str = ""
    client: Mapping[str, Any] | None = None
    api_subject: str = wire("subject")
    request: str = ""
    response: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimitReached(Advisory):
    """Too many requests waited for a server, and it dropped them. Told to the system account.

    Attributes:
        server: The server.
        dropped: How many requests.
    """

    server: str
    dropped: int


# -- streams -----------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAction(Advisory):
    """A stream was created, changed or deleted.

    Attributes:
        stream: The stream.
        action: "create", "modify" or "delete".
    """

    stream: str
    action: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLeaderElected(Advisory):
    """A stream with several replicas has another leader. Told to its account and to the system account.

    Attributes:
        account: The account of the stream, where the system account is told; empty where the account itself is.
        stream: The stream.
        leader: The server that leads.
        replicas: The others.
    """

    account: str = ""
    stream: str
    leader: str
    replicas: tuple[Replica, ...] | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StreamQuorumLost(Advisory):
    """A stream has no majority of its replicas any more, and takes nothing. Told to its account and to the system account.

    Attributes:
        account: The account of the stream, where the system account is told; empty where the account itself is.
        stream: The stream.
        replicas: What is known of its replicas.
    """

    account: str = ""
    stream: str
    replicas: tuple[Replica, ...] | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBatchAbandoned(Advisory):
    """An atomic batch came to nothing (server 2.12): nothing of it is stored.

    Attributes:
        account: The account of the stream, where the system account is told; empty where the account itself is.
        stream: The stream.
        batch: The id of the batch.
        reason: "timeout", "large", "incomplete" or "unsupported".
    """

    account: str = ""
    stream: str
    batch: str
    reason: str = ""


# -- backups -----------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotCreate(Advisory):
    """A backup of a stream begins.

    Attributes:
        stream: The stream.
        state: What it holds, in the server's words.
        client: Who asked for it.
    """

    stream: str
    state: Mapping[str, Any] | None = None
    client: Mapping[str, Any] | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotComplete(Advisory):
    """A backup of a stream was sent, or has failed.

    Attributes:
        stream: The stream.
        start: When it began.
        end: When it ended.
        client: Who asked for it.
        error: Why it failed (server 2.15); empty where it did not.
    """

    stream: str
    start: datetime.datetime | None = None
    end: datetime.datetime | None = None
    client: Mapping[str, Any] | None = None
    error: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreCreate(Advisory):
    """A stream begins to be restored.

    Attributes:
        stream: The stream.
        client: Who asked for it.
    """

    stream: str
    client: Mapping[str, Any] | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreComplete(Advisory):
    """A stream was restored, or that has failed: the server does not say here which.

    Attributes:
        stream: The stream.
        start: When it began.
        end: When it ended.
        bytes: How many bytes came.
        client: Who asked for it.
    """

    stream: str
    start: datetime.datetime | None = None
    end: datetime.datetime | None = None
    bytes: int = 0
    client: Mapping[str, Any] | None = None


# -- consumers ---------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerAction(Advisory):
    """A consumer was created or deleted.

    Attributes:
        stream: The stream.
        consumer: The consumer.
        action: "create" or "delete".
    """

    stream: str
    consumer: str
    action: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPause(Advisory):
    """A consumer was paused, or goes on (server 2.11).

    Attributes:
        stream: The stream.
        consumer: The consumer.
        paused: Whether it is paused.
        pause_until: Until when.
    """

    stream: str
    consumer: str
    paused: bool
    pause_until: datetime.datetime | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerLeaderElected(Advisory):
    """A consumer with several replicas has another leader. Told to its account and to the system account.

    Attributes:
        account: The account of the stream, where the system account is told; empty where the account itself is.
        stream: The stream.
        consumer: The consumer.
        leader: The server that leads.
        replicas: The others.
    """

    account: str = ""
    stream: str
    consumer: str
    leader: str
    replicas: tuple[Replica, ...] | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerQuorumLost(Advisory):
    """A consumer has no majority of its replicas any more, and delivers nothing. Told to its account and to the system account.

    Attributes:
        account: The account of the stream, where the system account is told; empty where the account itself is.
        stream: The stream.
        consumer: The consumer.
        replicas: What is known of its replicas.
    """

    account: str = ""
    stream: str
    consumer: str
    replicas: tuple[Replica, ...] | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerGroupPinned(Advisory):
    """Another client of a priority group is served (server 2.11).

    Attributes:
        account: The account of the stream, where the system account is told; empty where the account itself is.
        stream: The stream.
        consumer: The consumer.
        group: The group.
        pinned_id: The id that the server gave to the client.
    """

    account: str = ""
    stream: str
    consumer: str
    group: str
    pinned_id: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerGroupUnpinned(Advisory):
    """A client of a priority group is served alone no more (server 2.11).

    Attributes:
        account: The account of the stream, where the system account is told; empty where the account itself is.
        stream: The stream.
        consumer: The consumer.
        group: The group.
        reason: "admin" or "timeout".
    """

    account: str = ""
    stream: str
    consumer: str
    group: str
    reason: str = ""


# -- messages ----------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MaxDeliver(Advisory):
    """A message was delivered as often as its consumer allows, and not acknowledged: it does not come again.

    It stays in its stream, where `Stream.get_msg` reads it.

    Attributes:
        stream: The stream.
        consumer: The consumer.
        stream_seq: The sequence of the message in its stream.
        deliveries: How often it was delivered.
    """

    stream: str
    consumer: str
    stream_seq: int
    deliveries: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Nak(Advisory):
    """A message was given back.

    Attributes:
        stream: The stream.
        consumer: The consumer.
        consumer_seq: Which delivery of the consumer it was.
        stream_seq: The sequence of the message in its stream.
        deliveries: How often it was delivered.
    """

    stream: str
    consumer: str
    consumer_seq: int
    stream_seq: int
    deliveries: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated(Advisory):
    """A message was terminated by its consumer: it does not come again.

    Attributes:
        stream: The stream.
        consumer: The consumer.
        consumer_seq: Which delivery of the consumer it was.
        stream_seq: The sequence of the message in its stream.
        deliveries: How often it was delivered.
        reason: The reason that was given.
    """

    stream: str
    consumer: str
    consumer_seq: int
    stream_seq: int
    deliveries: int = 0
    reason: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerAck(Advisory):
    """A message was acknowledged: a metric, of as many of them as the consumer's `sample_freq` says.

    Attributes:
        stream: The stream.
        consumer: The consumer.
        consumer_seq: Which delivery of the consumer it was.
        stream_seq: The sequence of the message in its stream.
        ack_time: How many seconds the acknowledgement took.
        deliveries: How often it was delivered.
    """

    stream: str
    consumer: str
    consumer_seq: int
    stream_seq: int
    ack_time: float = nanoseconds()
    deliveries: int = 0


# -- servers: told to the system account -------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DomainLeaderElected(Advisory):
    """The servers of a domain have another leader. Told to the system account.

    Attributes:
        leader: The server that leads.
        replicas: The others.
        cluster: The leader's cluster.
    """

    leader: str
    replicas: tuple[Replica, ...] | None = None
    cluster: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOutOfSpace(Advisory):
    """A server has no room left. Told to the system account.

    Attributes:
        server: The server.
        server_id: Its id.
        stream: The stream for which it had none.
        cluster: Its cluster.
    """

    server: str
    server_id: str = ""
    stream: str = ""
    cluster: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRemoved(Advisory):
    """A server was taken out of a cluster. Told to the system account.

    Attributes:
        server: The server.
        server_id: Its id.
        cluster: Its cluster.
    """

    server: str
    server_id: str = ""
    cluster: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MetaRescue(Advisory):
    """A server was told to do with fewer for a majority, to rescue a cluster (server 2.15). Told to the system account.

    Attributes:
        server: The server.
        server_id: Its id.
        prev_quorum: What was a majority.
        new_quorum: What is one now.
        cluster: Its cluster.
    """

    server: str
    server_id: str = ""
    prev_quorum: int = 0
    new_quorum: int = 0
    cluster: str = ""
