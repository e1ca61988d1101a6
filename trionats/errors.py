"""What can go wrong: nats-py's exceptions and the few that it lacks.

The names are nats-py's own classes, so that `except nats.errors.TimeoutError` and `except trionats.errors.TimeoutError`
are one thing. Most of them have a fixed text ("nats: timeout"); what this library raises says what it was about, through
`explained`, which makes an instance of the same class with a text of its own.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, final

from nats.errors import (
    AuthorizationError,
    BadHeaderError,
    BadSubjectError,
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    DrainTimeoutError,
    Error,
    FlushTimeoutError,
    InvalidUserCredentialsError,
    MaxPayloadError,
    MsgAlreadyAckdError,
    NoRespondersError,
    NoServersError,
    NotJSMessageError,
    OutboundBufferLimitError,
    ProtocolError,
    SecureConnFailedError,
    SecureConnRequiredError,
    SecureConnWantedError,
    SlowConsumerError,
    StaleConnectionError,
    TimeoutError,  # noqa: A004 - the field's own name
    UnexpectedEOF,
)
from nats.js.errors import (
    APIError,
    BadBucketError,
    BadObjectMetaError,
    BadRequestError,
    BucketNotFoundError,
    ConsumerSequenceMismatchError,
    DigestMismatchError,
    InvalidBucketNameError,
    InvalidKeyError,
    InvalidObjectNameError,
    KeyDeletedError,
    KeyNotFoundError,
    KeyValueError,
    KeyWrongLastSequenceError,
    LinkIsABucketError,
    NoStreamResponseError,
    NotFoundError,
    ObjectAlreadyExists,
    ObjectDeletedError,
    ObjectNotFoundError,
    ServerError,
    ServiceUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "APIError",
    "AuthorizationError",
    "BackupIncompleteError",
    "BadBucketError",
    "BadHeaderError",
    "BadObjectMetaError",
    "BadRequestError",
    "BadSubjectError",
    "BatchError",
    "BucketNotFoundError",
    "ConnectionClosedError",
    "ConnectionDrainingError",
    "ConnectionReconnectingError",
    "ConsumerGoneError",
    "ConsumerSequenceMismatchError",
    "DigestMismatchError",
    "DisconnectedError",
    "DrainTimeoutError",
    "Error",
    "FailedMsg",
    "FlushTimeoutError",
    "GroupChangedError",
    "GroupNotFoundError",
    "IngestGapError",
    "InvalidBucketNameError",
    "InvalidKeyError",
    "InvalidObjectNameError",
    "InvalidUserCredentialsError",
    "KeyDeletedError",
    "KeyNotFoundError",
    "KeyValueError",
    "KeyWrongLastSequenceError",
    "LeaseLostError",
    "LinkIsABucketError",
    "MaxPayloadError",
    "MaxSubscriptionsError",
    "MonitoringError",
    "MsgAlreadyAckdError",
    "NoRespondersError",
    "NoServersError",
    "NoStreamResponseError",
    "NotFoundError",
    "NotJSMessageError",
    "ObjectAlreadyExists",
    "ObjectDeletedError",
    "ObjectIncompleteError",
    "ObjectNotFoundError",
    "OutboundBufferLimitError",
    "PermissionsViolationError",
    "ProtocolError",
    "PublishError",
    "RevisionGoneError",
    "SecureConnFailedError",
    "SecureConnRequiredError",
    "SecureConnWantedError",
    "ServerError",
    "ServerURLError",
    "ServiceUnavailableError",
    "SlowConsumerError",
    "StaleConnectionError",
    "StreamRegressedError",
    "TimeoutError",
    "UnexpectedEOF",
    "again",
    "explained",
]

E = TypeVar("E", bound=Exception)


class _Explained(Exception):
    def __init__(self, text: str = "") -> None:
        Exception.__init__(self, text)

    def __str__(self) -> str:
        return str(self.args[0])


_explained_classes: dict[type[Exception], type[Exception]] = {}


def _explained_class(kind: type[Exception]) -> type[Exception]:
    if issubclass(kind, _Explained):
        return kind
    if kind not in _explained_classes:
        names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
        _explained_classes[kind] = type(kind.__name__, (_Explained, kind), names)
    return _explained_classes[kind]


def explained(kind: type[E], text: str, **attributes: object) -> E:
    """Make an exception of nats-py's class `kind` with a text that says what it was about.

    Args:
        kind: The exception class; the result is an instance of it.
        text: What `str()` of the exception gives.
        attributes: Set on the exception, for classes whose own constructor sets some.

    Returns:
        The exception, ready to be raised.
    """
    error = _explained_class(kind)(text)
    error.__dict__.update(attributes)
    assert isinstance(error, kind)
    return error


def again(error: E) -> E:
    """Copy an exception that is kept and raised more than once, so that each raise has a traceback of its own.

    Args:
        error: The exception that is kept.

    Returns:
        The copy, with the same cause; the exception itself where its class cannot be copied.
    """
    try:
        twin = copy.copy(error)
    except TypeError:
        return error
    twin.__cause__ = error.__cause__
    return twin


class ServerURLError(Error, ValueError):
    """What should name servers does not; nats-py raises its bare `Error` there."""


class DisconnectedError(Error):
    """The connection was lost while a reply was awaited; whether the server acted on it is unknown.

    A request that had not left us when the connection broke does not end in this: it waits, under its deadline, for the next
    connection.

    Attributes:
        sent: Whether what was to be replied to had left us: True where it was given to the socket, so that a server may have
            acted on it; None where that is not known, or nothing of that kind was waited for (`flush`, `drain`, a request
            over nats-py's connection).
    """

    sent: bool | None = None


@final
@dataclass(frozen=True, slots=True)
class FailedMsg:
    """A message that a publisher was given and that failed: enough to publish it again.

    Attributes:
        subject: Where to.
        payload: What it holds.
        headers: Its headers as they were sent, what the options said among them; None where there were none.
        msg_id: Its id among them, given or generated; None where there was none.
    """

    subject: str
    payload: bytes
    headers: Mapping[str, str] | None
    msg_id: str | None


class MonitoringError(Error):
    """A server answered a monitoring request with an error, or with what cannot be read.

    Attributes:
        request: What was asked: "VARZ".
        server: The name of the server that says so; empty where it is not known.
        server_id: Its id.
        code: Its number for it, 400 or 500; None for what cannot be read.
        description: What it says.
    """

    request: str = ""
    server: str = ""
    server_id: str = ""
    code: int | None = None
    description: str = ""


class PublishError(Error):
    """Messages that a publisher was given failed: raised when its block is left, one for all of them.

    Attributes:
        failures: Each of these messages, and why it failed, in the order in which that became known. Those whose receipt has
            raised it are not among them.
    """

    failures: Sequence[tuple[FailedMsg, Exception]] = ()


class BatchError(APIError):
    """A stream refused an atomic batch, by refusing one of its messages or the commit: nothing of it is stored.

    The text says what the server's `err_code` means for a batch. 10071 and 10164 are lost compare-and-sets.

    Attributes:
        batch: The id of the batch.
        number: Which message it was, from 1.
        subject: Where that went.
    """

    batch: str = ""
    number: int = 0
    subject: str = ""


class IngestGapError(Error):
    """A message of a fast ingest is certainly not stored: it did not reach the stream in its turn, or was not sent any more."""


class PermissionsViolationError(Error):
    """The server refused a subject to this user; the connection stays open.

    Attributes:
        operation: What was refused: "publish", "subscription" or "reply".
        subject: The subject that the server named.
        queue: The queue group that it named, or None.
        sid: The subscription that it removed, when a change of permissions took away what had been granted; else None.
    """

    operation: str = ""
    subject: str = ""
    queue: str | None = None
    sid: int | None = None


class MaxSubscriptionsError(Error):
    """The server takes no more subscriptions from this connection, which stays open.

    Attributes:
        subject: The subject that was to be subscribed.
        queue: The queue group, or None.
    """

    subject: str = ""
    queue: str | None = None


class LeaseLostError(Error):
    """A lease was lost while its block ran, or it cannot be known that it was not.

    Attributes:
        bucket: The bucket of its key.
        key: The key.
        why: What is known of it.
    """

    bucket: str = ""
    key: str = ""
    why: str = ""


class StreamRegressedError(Error):
    """A stream went backwards: it was restored from a backup, recreated, or lost acknowledged messages."""


class RevisionGoneError(Error):
    """A watcher was to resume with a revision that is older than everything that is stored.

    What is gone may have been replaced, which a watcher need not see, or purged, which it would never hear of. The server
    does not say which.

    Attributes:
        revision: Where it was to resume.
        first: The first sequence of the bucket's stream.
    """

    revision: int = 0
    first: int = 0


class ConsumerGoneError(NotFoundError):
    """A consumer is not there any more, or never was: somebody deleted it or its stream, or it was not used for too long.

    Attributes:
        stream: The stream that it read.
        consumer: Its name.
    """

    stream: str | None = None
    consumer: str = ""


class GroupNotFoundError(NotFoundError):
    """There is no such partitioned consumer group (any more).

    Attributes:
        stream: The stream that it reads.
        group: Its name.
    """

    stream: str | None = None
    group: str = ""


class GroupChangedError(Error):
    """A partitioned consumer group is not what it was when it was joined, or what it was to be when it was created.

    Attributes:
        stream: The stream that it reads.
        group: Its name.
    """

    stream: str = ""
    group: str = ""


class ObjectIncompleteError(Error):
    """An object's chunks do not add up to what its info promises: some are missing or do not belong to it."""


class BackupIncompleteError(Error):
    """A backup of a stream is not whole: parts of it were lost on the way, or the directory holds none, or a damaged one."""
