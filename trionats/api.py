"""What the server is told and tells: nats-py's dataclasses and what they lack.

Strategy
    The configuration and info classes are nats-py's own, so that what a program built for one client fits the other. Where
    one of them lacks a field that the server has, a subclass of the same name stands here. A subclass that is read from the
    server keeps the fields it does not know in `extra` and writes them back, so that a newer client's data survives an
    older one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, TypedDict, final

from multidict import MultiDict
from nats.js import api as nats_api
from nats.js.api import (
    DEFAULT_PREFIX,
    AccountInfo,
    AccountLimits,
    AckPolicy,
    APIStats,
    ClusterInfo,
    ConsumerConfig,
    ConsumerInfo,
    ConsumerPause,
    ConsumerReset,
    DeliverPolicy,
    DiscardPolicy,
    ExternalStream,
    Header,
    KeyValueConfig,
    LostStreamData,
    ObjectLink,
    PeerInfo,
    PersistMode,
    Placement,
    PubAck,
    RawStreamMsg,
    ReplayPolicy,
    RePublish,
    RetentionPolicy,
    SequenceInfo,
    StorageType,
    StoreCompression,
    StreamConfig,
    StreamConsumerLimits,
    StreamInfo,
    StreamPurgeRequest,
    StreamSource,
    StreamSourceInfo,
    StreamState,
    SubjectTransform,
    Tier,
)

__all__ = [
    "DEFAULT_PREFIX",
    "APIStats",
    "AccountInfo",
    "AccountLimits",
    "AckPolicy",
    "ClusterInfo",
    "ConsumerConfig",
    "ConsumerInfo",
    "ConsumerPause",
    "ConsumerReset",
    "DeliverPolicy",
    "DiscardPolicy",
    "ExternalStream",
    "Header",
    "KeyValueConfig",
    "LostStreamData",
    "ObjectInfo",
    "ObjectLink",
    "ObjectMeta",
    "ObjectMetaOptions",
    "ObjectResult",
    "ObjectStoreConfig",
    "ObjectStoreParams",
    "PeerInfo",
    "PersistMode",
    "Placement",
    "PubAck",
    "RawStreamMsg",
    "RePublish",
    "ReplayPolicy",
    "RetentionPolicy",
    "SequenceInfo",
    "StorageType",
    "StoreCompression",
    "StoredMsg",
    "StreamConfig",
    "StreamConsumerLimits",
    "StreamInfo",
    "StreamPurgeRequest",
    "StreamSource",
    "StreamSourceInfo",
    "StreamState",
    "SubjectTransform",
    "Tier",
]


class ObjectStoreParams(TypedDict, total=False):
    """The fields of `ObjectStoreConfig` that `create_object_store` takes by keyword."""

    description: str | None
    ttl: float | None
    max_bytes: int | None
    storage: StorageType | None
    replicas: int
    placement: Placement | None
    compression: StoreCompression | bool | None
    metadata: dict[str, str] | None


@dataclass
class ObjectStoreConfig(nats_api.ObjectStoreConfig):
    """The configuration of an object store's bucket; `ttl` is in seconds."""

    compression: StoreCompression | bool | None = None
    metadata: dict[str, str] | None = None


@dataclass
class ObjectMetaOptions(nats_api.ObjectMetaOptions):
    """How an object is stored: its chunk size, or what it is a link to."""

    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_response(cls, resp: dict[str, Any]) -> ObjectMetaOptions:
        """Read the options from a meta message, without changing `resp`."""
        resp = dict(resp)
        options: ObjectMetaOptions = super().from_response(resp)
        options.extra = _unknown(cls, resp)
        return options

    def as_dict(self) -> dict[str, object]:
        """Return what the meta message says."""
        return _with_unknown(super().as_dict())


@dataclass
class ObjectMeta(nats_api.ObjectMeta):
    """What the user says about an object: its name, description, headers, metadata and options."""

    metadata: dict[str, str] | None = None


@dataclass
class ObjectInfo(nats_api.ObjectInfo):
    """What an object store knows of one object.

    `mtime` is the time at which the server stored the info, RFC 3339 in UTC. `revision` is the sequence of its meta
    message in the bucket's stream, and None where there is none yet. `subject` is that message's: the place where the
    object stands, which tells two of one name apart (nats.js has places of its own for names beyond ASCII). `extra`
    holds the fields that another client wrote and that this one does not know.
    """

    metadata: dict[str, str] | None = None
    revision: int | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False)
    subject: str | None = field(default=None, repr=False)

    @classmethod
    def from_response(cls, resp: dict[str, Any]) -> ObjectInfo:
        """Read the info from a meta message, without changing `resp`."""
        resp = {key: value for key, value in resp.items() if key not in _NOT_IN_THE_MESSAGE}
        options = resp.get("options")
        if options is not None:
            resp["options"] = ObjectMetaOptions.from_response(options)
        known = {entry.name for entry in fields(cls)}
        info = cls(**{key: value for key, value in resp.items() if key in known})
        info.extra = _unknown(cls, resp)
        return info

    def as_dict(self) -> dict[str, object]:
        """Return what the meta message says; the time of an object is the time of that message, so it says none."""
        result = _with_unknown(super().as_dict())
        for ours in ("revision", "subject", "mtime"):
            result.pop(ours, None)
        return result


#: Ours alone: a meta message that has fields of these names means something else by them.
_NOT_IN_THE_MESSAGE = frozenset({"revision", "extra", "subject"})


@final
@dataclass(frozen=True, slots=True)
class ObjectResult:
    """An object that was read whole and verified: its info and its data."""

    info: ObjectInfo
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class StoredMsg:
    """A message as its stream holds it: what `Stream.get_msg` and its neighbours give.

    Attributes:
        stream: The stream.
        subject: The subject that it was published to.
        seq: Its sequence in the stream.
        time: When it was stored, in UTC; the nanoseconds that a datetime has no room for are cut off.
        data: Its payload; empty is `b""`.
        headers: Its own headers, as in `Msg.headers`: repeated names are kept, and without any it is empty.
    """

    stream: str
    subject: str
    seq: int
    time: datetime
    data: bytes = b""
    headers: MultiDict[str] = field(default_factory=MultiDict)


def _unknown(kind: type, resp: dict[str, Any]) -> dict[str, Any]:
    known = {entry.name for entry in fields(kind)}
    return {key: value for key, value in resp.items() if key not in known}


def _with_unknown(result: dict[str, object]) -> dict[str, object]:
    extra = result.pop("extra", None)
    return {**extra, **result} if isinstance(extra, dict) else result
