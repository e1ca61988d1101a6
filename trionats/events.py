"""What happens to a connection: the values that `open_events` yields."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from trionats import errors

__all__ = [
    "CallbackFailed",
    "ChunksLeft",
    "Closed",
    "Connected",
    "ConnectionEvent",
    "ConnectionState",
    "ConsumerEvent",
    "ConsumerHeartbeatMissed",
    "ConsumerLimitExceeded",
    "ConsumerPinned",
    "ConsumerUnpinned",
    "ConsumerUnreachable",
    "Disconnected",
    "Draining",
    "ForeignDataSkipped",
    "HandlerFailed",
    "LameDuck",
    "MessagesExpired",
    "MessagesMissed",
    "Moved",
    "PartitionsChanged",
    "PermissionViolation",
    "PublishesLost",
    "PublishesTooLarge",
    "ReaderRefused",
    "ReconnectFailed",
    "Reconnected",
    "ServerRefusal",
    "ServersDiscovered",
    "SlowConsumer",
    "StoredElsewhere",
    "StreamRecreated",
    "StreamUnverified",
    "UnknownStatus",
]


@final
class ConnectionState(Enum):
    """How far a client is: what `Client.state` says."""

    CONNECTING = "connecting"
    """There was no connection yet."""
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    """The connection was lost, and is being made anew."""
    DRAINING_SUBS = "draining subscriptions"
    """The client finishes what it has received, and takes no new subscriptions."""
    DRAINING_PUBS = "draining publishes"
    """It sends what is left, and closes."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """Something that happened to the connection of a client."""


@final
@dataclass(frozen=True, slots=True)
class Connected(ConnectionEvent):
    """The first connection stands.

    Attributes:
        server: The server's address, without secrets.
    """

    server: str


@final
@dataclass(frozen=True, slots=True)
class Disconnected(ConnectionEvent):
    """The connection broke; unless the client was told not to, it now reconnects.

    Attributes:
        server: The server that was lost.
        reason: Why: in the words of the server's last error, if there was one.
        close_code: The code with which the server closed a WebSocket, such as 1001; None where it sent none, or there
            is no WebSocket.
        close_reason: The words that came with it: the server's, in one line of 123 bytes at the most.
    """

    server: str
    reason: Exception
    close_code: int | None = None
    close_reason: str = ""


@final
@dataclass(frozen=True, slots=True)
class Draining(ConnectionEvent):
    """The client begins to be drained; `Closed` follows."""


@final
@dataclass(frozen=True, slots=True)
class PublishesLost(ConnectionEvent):
    """Publishes will not be sent any more.

    Those that were being sent when the connection broke: they may or may not have arrived. And those that still waited
    when the client ended.

    Attributes:
        count: How many.
    """

    count: int


@final
@dataclass(frozen=True, slots=True)
class PublishesTooLarge(ConnectionEvent):
    """Publishes that waited for a connection are more than the new server takes, and are not sent.

    Attributes:
        count: How many.
        max_payload: How many bytes of headers and payload the server takes.
    """

    count: int
    max_payload: int


@final
@dataclass(frozen=True, slots=True)
class ReconnectFailed(ConnectionEvent):
    """One attempt to connect again, or to connect at last, or to migrate, failed.

    Attributes:
        server: The server that was tried.
        reason: Why it failed.
    """

    server: str
    reason: Exception


@final
@dataclass(frozen=True, slots=True)
class Reconnected(ConnectionEvent):
    """The connection is back, and the subscriptions with it.

    Attributes:
        server: The server it is to now.
    """

    server: str


@final
@dataclass(frozen=True, slots=True)
class Moved(ConnectionEvent):
    """The connection went over to another server before the last one went down; nothing was interrupted.

    Attributes:
        server: The server it is to now.
        left: The one it was to.
    """

    server: str
    left: str


@final
@dataclass(frozen=True, slots=True)
class CallbackFailed(ConnectionEvent):
    """A callback of `open_client` failed, or what it returned could not be used; the default took its place.

    Attributes:
        option: The name of the option.
        error: What it raised, or what was wrong with what it returned.
    """

    option: str
    error: Exception


@final
@dataclass(frozen=True, slots=True)
class HandlerFailed(ConnectionEvent):
    """A handler of a service failed: that of one request, to which 500 was responded, or the `stats_handler` of an endpoint.

    Attributes:
        service: The service's name.
        endpoint: The endpoint's name.
        error: What it raised.
    """

    service: str
    endpoint: str
    error: Exception


@final
@dataclass(frozen=True, slots=True)
class ServersDiscovered(ConnectionEvent):
    """The server told of servers that were not known.

    Attributes:
        servers: The addresses that are new.
    """

    servers: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class LameDuck(ConnectionEvent):
    """The server is about to shut down, and asks its clients to go elsewhere.

    If another server is known, `Moved` follows; else, when the server has gone, `Disconnected`.

    Attributes:
        server: The server.
    """

    server: str


@final
@dataclass(frozen=True, slots=True)
class SlowConsumer(ConnectionEvent):
    """A subscription overflowed: one event for each episode.

    Attributes:
        subject: The subject that was subscribed.
        dropped: How many messages the subscription has dropped so far.
    """

    subject: str
    dropped: int


@final
@dataclass(frozen=True, slots=True)
class StoredElsewhere(ConnectionEvent):
    """A stream in another JetStream domain has stored what was published for one domain.

    Where a stream of the hub and one of the leaf listen on the same subject, both take what is published there. It is
    told once for each `JetStream.publish`, and once for each object that is put, changed or deleted.

    Attributes:
        subject: Where it was published.
        stream: The stream that has stored it.
        domain: That stream's domain; an empty string where it has none.
        wanted: The domain that it was meant for.
    """

    subject: str
    stream: str
    domain: str
    wanted: str


@final
@dataclass(frozen=True, slots=True)
class ForeignDataSkipped(ConnectionEvent):
    """Something that another program stored or sent is not what it should be, and was left out.

    One event for an episode: the next for the same place comes at the earliest a minute after the last was skipped
    there.

    Attributes:
        where: What was being read, such as "list of bucket 'configs'".
        reason: What is wrong with it; for an object's info it names the message.
        skipped: How much the client has left out so far, everywhere.
    """

    where: str
    reason: Exception
    skipped: int


@final
@dataclass(frozen=True, slots=True)
class ChunksLeft(ConnectionEvent):
    """Data that belongs to no object any more stays in a bucket, because the server refuses to purge it.

    Of an object that was replaced or deleted, or of a put that failed. Usually the user lacks the permission to publish
    to `$JS.API.STREAM.PURGE.<stream>`. Also where the server did not say for minutes what became of a put or a delete that
    nobody waits for any more: the data may be nobody's, then.

    Attributes:
        stream: The bucket's stream.
        subject: Where in it the data is.
        reason: What the server said.
    """

    stream: str
    subject: str
    reason: Exception


@final
@dataclass(frozen=True, slots=True)
class PermissionViolation(ConnectionEvent):
    """The server refused a subject to this user.

    Attributes:
        error: Names the operation and the subject.
    """

    error: errors.PermissionsViolationError


@final
@dataclass(frozen=True, slots=True)
class ReaderRefused(ConnectionEvent):
    """A reader of a stream (a watcher, a list, a get) goes on, but the server has refused what it needs three times in a row.

    That is a consumer, or to be told about the stream. It is told for a refusal that does not pass by itself, such as a
    limit. If that stays, `receive` raises it.

    Attributes:
        stream: The stream.
        error: What the server said.
    """

    stream: str
    error: Exception


@final
@dataclass(frozen=True, slots=True)
class StreamUnverified(ConnectionEvent):
    """The server refuses to let this user ask a stream's leader (`STREAM.INFO` or `STREAM.MSG.GET`).

    So a snapshot, a list or a get may leave out what a replica that lags does not have yet, and a stream that is made
    anew under a watcher may go unnoticed. One event for each reader.

    Attributes:
        stream: The stream.
        error: The refusal.
    """

    stream: str
    error: Exception


@final
@dataclass(frozen=True, slots=True)
class StreamRecreated(ConnectionEvent):
    """A stream was made anew under a watcher that was opened with `on_recreate="restart"`; it begins anew.

    Attributes:
        stream: The stream.
    """

    stream: str


@dataclass(frozen=True, slots=True)
class ConsumerEvent(ConnectionEvent):
    """Something that happened to a consumer that is read.

    Of each kind it is told once an episode, which the next message that is received ends, and at most once a second.

    Attributes:
        stream: The stream.
        consumer: The consumer.
    """

    stream: str
    consumer: str


@final
@dataclass(frozen=True, slots=True)
class ConsumerHeartbeatMissed(ConsumerEvent):
    """The server has said nothing for two heartbeats of a consumer that is read; it is asked again.

    Attributes:
        seconds: How long it was silent.
    """

    seconds: float


@final
@dataclass(frozen=True, slots=True)
class MessagesMissed(ConsumerEvent):
    """Messages of a push consumer without acknowledgements did not come, and will not: usually the connection was lost.

    Attributes:
        count: How many.
    """

    count: int


@final
@dataclass(frozen=True, slots=True)
class ConsumerLimitExceeded(ConsumerEvent):
    """The server refuses requests for messages because of a limit in the consumer's configuration.

    They are repeated: within the limit where it says how much it allows (`max_batch`, `max_expires`, `max_bytes`), and otherwise
    with pauses. So it is with `max_waiting`, which the server tells nobody who asks for heartbeats; it was found out.

    Attributes:
        limit: What the server says: "Exceeded MaxRequestBatch of 5".
    """

    limit: str


@final
@dataclass(frozen=True, slots=True)
class ConsumerUnreachable(ConsumerEvent):
    """Nobody has responded to several requests for messages: the consumer has no leader, or JetStream is not up yet.

    They are repeated. If the consumer or the stream turns out to be gone, `receive` raises `ConsumerGoneError`; who may not
    publish to `$JS.API.CONSUMER.INFO.<stream>.<consumer>` is not told that.
    """


@final
@dataclass(frozen=True, slots=True)
class ConsumerPinned(ConsumerEvent):
    """The server gives the messages of a priority group to this client alone (policy "pinned_client").

    Attributes:
        group: The group.
    """

    group: str


@final
@dataclass(frozen=True, slots=True)
class ConsumerUnpinned(ConsumerEvent):
    """The server gives them to this client alone no longer; it goes on asking, as one of those that wait.

    Attributes:
        group: The group.
    """

    group: str


@final
@dataclass(frozen=True, slots=True)
class PartitionsChanged(ConnectionEvent):
    """A member of a partitioned consumer group has other partitions from now on; told once when it joins, too.

    It reads them once those who had them have let go.

    Attributes:
        stream: The stream that the group reads.
        group: The group.
        member: The member.
        partitions: Its partitions; none for one that was dropped, or that waits to be added.
    """

    stream: str
    group: str
    member: str
    partitions: tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class MessagesExpired(ConsumerEvent):
    """Messages waited to be received past the consumer's ack wait, and were dropped: the server gives them to somebody else.

    Whoever receives is too slow for so many at a time: less `max_messages`, or a longer `ack_wait`.

    Attributes:
        count: How many so far.
    """

    count: int


@final
@dataclass(frozen=True, slots=True)
class UnknownStatus(ConsumerEvent):
    """The server ended a request for messages with a status that is not known here; it is repeated, with pauses.

    Attributes:
        code: The status.
        description: The server's words.
    """

    code: int
    description: str


@final
@dataclass(frozen=True, slots=True)
class ServerRefusal(ConnectionEvent):
    """The server sent an error: a subscription that is too many, which its own feed raises as well, or one that none stands for.

    Attributes:
        error: What it said.
    """

    error: Exception


@final
@dataclass(frozen=True, slots=True)
class Closed(ConnectionEvent):
    """The client is closed: the last event.

    Attributes:
        reason: None when it was closed on purpose, else why.
    """

    reason: BaseException | None
