"""What the server is told and tells: nats-py's dataclasses and what they lack.

Strategy
    The configuration and info classes are nats-py's own, so that what a program built for one client fits the other. What
    is read from the server and written back has a subclass of the same name here: with every field that server 2.15 has,
    parsed into classes of ours all the way down, and without loss (`Whole`).

    Seconds are floats and times are datetimes in UTC, as in nats-py, except for `active` (nanoseconds, -1 for never).
    Numbers of seconds may be ints, too.
"""

# A field that holds a class of nats-py's there holds ours here, and takes nats-py's all the same; hence the errors ignored.
# mypy: disable-error-code="mutable-override"

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, Self, TypedDict, final

from multidict import MultiDict
from nats.js import api as nats_api
from nats.js.api import (
    DEFAULT_PREFIX,
    AckPolicy,
    DeliverPolicy,
    DiscardPolicy,
    Header,
    ObjectLink,
    PersistMode,
    RawStreamMsg,
    ReplayPolicy,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamPurgeRequest,
)

from trionats.api import _lossless

__all__ = [
    "DEFAULT_PREFIX",
    "APIStats",
    "AccountInfo",
    "AccountLimits",
    "AckPolicy",
    "BucketStatus",
    "ClusterInfo",
    "ConsumerConfig",
    "ConsumerGroup",
    "ConsumerInfo",
    "ConsumerPause",
    "ConsumerReset",
    "CounterEntry",
    "DeliverPolicy",
    "DiscardPolicy",
    "EndpointInfo",
    "EndpointStats",
    "ExternalStream",
    "Header",
    "KeyValueConfig",
    "KeyValueEntry",
    "KeyValueParams",
    "KeyValueStatus",
    "LostStreamData",
    "MsgMetadata",
    "MsgSequence",
    "ObjectInfo",
    "ObjectLink",
    "ObjectMeta",
    "ObjectMetaOptions",
    "ObjectResult",
    "ObjectStoreConfig",
    "ObjectStoreParams",
    "ObjectStoreStatus",
    "Orphan",
    "PeerInfo",
    "PersistMode",
    "Placement",
    "PriorityGroupState",
    "PriorityPolicy",
    "PubAck",
    "RawStreamMsg",
    "RePublish",
    "ReplayPolicy",
    "RetentionPolicy",
    "Schedule",
    "SequenceInfo",
    "ServiceInfo",
    "ServicePing",
    "ServiceStats",
    "StorageType",
    "StoreCompression",
    "StoredMsg",
    "StreamAlternate",
    "StreamConfig",
    "StreamConsumerLimits",
    "StreamConsumerSource",
    "StreamInfo",
    "StreamPurgeRequest",
    "StreamSource",
    "StreamSourceInfo",
    "StreamState",
    "SubjectTransform",
    "Tier",
    "Whole",
]


@dataclass
class Whole(nats_api.Base):
    """A dataclass of nats-py's that loses nothing of what it is read from.

    `extra` holds the fields that nobody knows here, and they are written back; in a configuration that is made anew it may
    hold what only a newer server knows. A duration or a time that was read, and that nobody changed, is written with all its
    nanoseconds, and what the server left out is left out again.
    """

    extra: dict[str, Any] = field(default_factory=_lossless.Extra, repr=False, kw_only=True)

    @classmethod
    def from_response(cls, resp: dict[str, Any]) -> Self:
        """Read what the server said, without changing `resp`."""
        return _lossless.read(cls, resp)

    def as_dict(self) -> dict[str, object]:
        """Return what the server is told."""
        return _lossless.written(self)


@final
class PriorityPolicy(StrEnum):
    """Which of several clients, that name a `group` when they pull, the server gives messages to (server 2.11)."""

    NONE = "none"
    OVERFLOW = "overflow"
    PINNED_CLIENT = "pinned_client"
    #: Server 2.12.
    PRIORITIZED = "prioritized"


# -- what streams are told, and tell -----------------------------------------------------------------------------------


@dataclass
class Placement(Whole, nats_api.Placement):
    """Where a stream is to be: in a cluster, on servers with all these tags. `preferred` is who is to lead (server 2.11)."""

    preferred: str | None = None


@dataclass
class ExternalStream(Whole, nats_api.ExternalStream):
    """Where a stream of another domain or account is reached: `api` is the prefix of its API, `deliver` of what it delivers."""

    @classmethod
    def in_domain(cls, domain: str, deliver: str | None = None) -> Self:
        """Say where the streams of a domain are reached.

        Args:
            domain: The domain.
            deliver: The prefix of what they deliver, where another than the server's own is needed.
        """
        return cls(f"$JS.{domain}.API", deliver)


@dataclass
class SubjectTransform(Whole, nats_api.SubjectTransform):
    """What is published to `src` is stored as `dest`."""


@dataclass
class RePublish(Whole, nats_api.RePublish):
    """What is stored under `src` is published again to `dest`, its payload left out where `headers_only` says so."""


@dataclass
class StreamConsumerSource(Whole, nats_api.StreamConsumerSource):
    """The consumer through which a stream is sourced or mirrored, instead of one that the server makes (server 2.14)."""


@dataclass
class StreamSource(Whole, nats_api.StreamSource):
    """The stream that a mirror repeats, or one of several that a stream collects."""

    opt_start_time: datetime.datetime | None = None
    external: ExternalStream | None = None
    subject_transforms: list[SubjectTransform] | None = None  # type: ignore[assignment]
    consumer: StreamConsumerSource | None = None


@dataclass
class StreamConsumerLimits(Whole, nats_api.StreamConsumerLimits):
    """What the consumers of a stream may have at the most; `inactive_threshold` is in seconds."""


@dataclass
class StreamConfig(Whole, nats_api.StreamConfig):
    """The configuration of a stream. `max_age`, `duplicate_window` and `subject_delete_marker_ttl` are in seconds."""

    placement: Placement | None = None
    mirror: StreamSource | None = None
    sources: list[StreamSource] | None = None  # type: ignore[assignment]
    republish: RePublish | None = None
    subject_transform: SubjectTransform | None = None
    consumer_limits: StreamConsumerLimits | None = None


@dataclass
class StreamSourceInfo(Whole, nats_api.StreamSourceInfo):
    """How far a mirror or a source is: `active` is how many nanoseconds ago something came, -1 for never; `seq` is the
    last sequence that came from there."""

    external: ExternalStream | None = None
    seq: int | None = None
    filter_subject: str | None = None
    subject_transforms: list[SubjectTransform] | None = None


@dataclass
class LostStreamData(Whole, nats_api.LostStreamData):
    """What the server found to be lost of a stream."""


@dataclass
class StreamState(Whole, nats_api.StreamState):
    """What a stream holds. `first_ts` and `last_ts` are of the year 1 where it never held anything."""

    lost: LostStreamData | None = None
    first_ts: datetime.datetime | None = None
    last_ts: datetime.datetime | None = None
    num_subjects: int | None = None


@dataclass
class PeerInfo(Whole, nats_api.PeerInfo):
    """A replica that does not lead: `active` is how many nanoseconds ago it was heard of, `peer` its id."""

    peer: str | None = None
    pending: bool | None = None


@dataclass
class ClusterInfo(Whole, nats_api.ClusterInfo):
    """Where a stream or a consumer is in a cluster.

    `traffic_acc` is nats-py's name for `traffic_account`, and never set: the server's name is the other. `desired` is where
    it is on its way to (server 2.15).
    """

    replicas: list[PeerInfo] | None = None  # type: ignore[assignment]
    leader_since: datetime.datetime | None = None
    system_account: bool | None = None
    traffic_account: str | None = None
    desired: dict[str, Any] | None = None


@dataclass
class StreamAlternate(Whole):
    """A stream that holds the same messages: the stream itself, or a mirror of it."""

    name: str
    cluster: str | None = None
    domain: str | None = None


@dataclass
class StreamInfo(Whole, nats_api.StreamInfo):
    """What the server says of a stream.

    `alternates` are the stream and its mirrors, the nearest first, where it has any; `ts` is when this was said.
    """

    config: StreamConfig
    state: StreamState
    mirror: StreamSourceInfo | None = None
    sources: list[StreamSourceInfo] | None = None  # type: ignore[assignment]
    cluster: ClusterInfo | None = None
    created: datetime.datetime | None = None
    domain: str | None = None
    alternates: list[StreamAlternate] | None = None
    ts: datetime.datetime | None = None


# -- what consumers are told, and tell ---------------------------------------------------------------------------------


@dataclass
class ConsumerConfig(Whole, nats_api.ConsumerConfig):
    """The configuration of a consumer.

    All durations are in seconds. `max_batch`, `max_expires` and `max_bytes` limit what one pull may ask for. The clients
    of a priority group (`priority_groups`, one of at most 16 letters) are served by `priority_policy`; who is pinned and
    silent for `priority_timeout` loses the pin (server 2.11). `pause_until` is a datetime or RFC 3339 text; text where it
    was read. `direct` and `sourcing` are the server's own.
    """

    opt_start_time: datetime.datetime | None = None
    backoff: list[float] | None = None
    pause_until: str | datetime.datetime | None = None  # type: ignore[assignment]
    max_batch: int | None = None
    max_expires: float | None = None
    max_bytes: int | None = None
    priority_groups: list[str] | None = None
    priority_policy: PriorityPolicy | None = None
    priority_timeout: float | None = None
    direct: bool | None = None
    sourcing: bool | None = None


@dataclass
class SequenceInfo(Whole, nats_api.SequenceInfo):
    """A place in a consumer and in its stream, and when it was reached."""

    last_active: datetime.datetime | None = None


@dataclass
class PriorityGroupState(Whole):
    """Who is pinned in a priority group, by the id of `Nats-Pin-Id`, and since when."""

    group: str
    pinned_client_id: str | None = None
    pinned_ts: datetime.datetime | None = None


@dataclass
class ConsumerInfo(Whole, nats_api.ConsumerInfo):
    """What the server says of a consumer; `pause_remaining` is in seconds, and `ts` is when this was said."""

    config: ConsumerConfig
    created: datetime.datetime
    delivered: SequenceInfo | None = None
    ack_floor: SequenceInfo | None = None
    cluster: ClusterInfo | None = None
    pause_remaining: float | None = None  # type: ignore[assignment]
    priority_groups: list[PriorityGroupState] | None = None
    ts: datetime.datetime | None = None


@dataclass
class ConsumerPause(Whole, nats_api.ConsumerPause):
    """Whether a consumer is paused, until when (RFC 3339), and for how many seconds more."""

    pause_remaining: float | None = None  # type: ignore[assignment]


@dataclass
class ConsumerReset(Whole, nats_api.ConsumerReset):
    """What became of a consumer that was reset: its info, and the stream sequence it begins at."""

    info: ConsumerInfo

    @classmethod
    def from_response(cls, resp: dict[str, Any]) -> Self:
        """Read the response, which is the info with one field more."""
        rest = {key: value for key, value in resp.items() if key != "reset_seq"}
        return cls(ConsumerInfo.from_response(rest), resp["reset_seq"])

    def as_dict(self) -> dict[str, object]:
        """Return what the server said."""
        return {**self.info.as_dict(), "reset_seq": self.reset_seq}


# -- what accounts tell ------------------------------------------------------------------------------------------------


@dataclass
class AccountLimits(Whole, nats_api.AccountLimits):
    """What an account, or a tier of it, may use; -1 for any amount."""


@dataclass
class Tier(Whole, nats_api.Tier):
    """What an account uses of what it may have with one number of replicas; `memory` and `storage` are in bytes."""

    limits: AccountLimits
    reserved_memory: int | None = None
    reserved_storage: int | None = None


@dataclass
class APIStats(Whole, nats_api.APIStats):
    """How often the API was asked. `level` is what it can do (ADR-44): absent below server 2.11."""

    inflight: int | None = None


@dataclass
class AccountInfo(Whole, nats_api.AccountInfo):
    """What an account uses, and what it may; `tiers` by number of replicas ("R1", "R3"), where there are any."""

    limits: AccountLimits
    api: APIStats
    tiers: dict[str, Tier] | None = None  # type: ignore[assignment]
    reserved_memory: int | None = None
    reserved_storage: int | None = None


# -- what services tell ------------------------------------------------------------------------------------------------


@dataclass
class ServicePing(Whole):
    """Who a service is: one running instance of a program that others may run, too (ADR-32).

    Attributes:
        name: What it is called; several may be called alike.
        id: What nobody else is called.
        version: Its version (SemVer).
        metadata: What its program says of it besides.
        type: What kind of answer this is.
    """

    name: str
    id: str
    version: str
    metadata: dict[str, str] = field(default_factory=dict)
    type: str = "io.nats.micro.v1.ping_response"


@dataclass
class EndpointInfo(Whole):
    """What an endpoint of a service is: a subject that is responded to.

    Attributes:
        name: What it is called.
        subject: Where requests go.
        queue_group: Its queue group, one member of which is given a request; an empty string for none.
        metadata: What its program says of it besides.
    """

    name: str
    subject: str
    queue_group: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class ServiceInfo(Whole):
    """What a service is, with its endpoints; see `ServicePing` for the fields that are not listed here.

    Attributes:
        description: What it does.
        endpoints: What it responds to.
    """

    name: str
    id: str
    version: str
    description: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    endpoints: list[EndpointInfo] = field(default_factory=list)
    type: str = "io.nats.micro.v1.info_response"


@dataclass
class EndpointStats(Whole):
    """What an endpoint has done since its service was started or reset.

    Attributes:
        name: What it is called.
        subject: Where requests go.
        queue_group: Its queue group; an empty string for none.
        num_requests: How many requests were handed over.
        num_errors: How many of them were answered with an error.
        last_error: The last error: "code:description"; an empty string for none.
        processing_time: How long they took together, in nanoseconds.
        average_processing_time: How long one took, in nanoseconds; 0 where there was none.
        data: What the program's own `stats_handler` gave: anything that JSON has.
    """

    name: str
    subject: str
    queue_group: str = ""
    num_requests: int = 0
    num_errors: int = 0
    last_error: str = ""
    processing_time: int = 0
    average_processing_time: int = 0
    data: Any = None


@dataclass
class ServiceStats(Whole):
    """What the endpoints of a service have done; see `ServicePing` for the fields that are not listed here.

    Attributes:
        started: Since when it runs, or when it was reset.
        endpoints: What each of them has done.
    """

    name: str
    id: str
    version: str
    started: datetime.datetime | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    endpoints: list[EndpointStats] = field(default_factory=list)
    type: str = "io.nats.micro.v1.stats_response"


# -- keys and values -----------------------------------------------------------------------------------------------------


class KeyValueParams(TypedDict, total=False):
    """The fields of `KeyValueConfig` that `create_key_value` and its neighbours take by keyword."""

    bucket: str
    description: str | None
    max_value_size: int | None
    history: int
    ttl: float | None
    max_bytes: int | None
    storage: StorageType | None
    replicas: int
    placement: Placement | None
    republish: RePublish | None
    compression: StoreCompression | bool | None
    metadata: dict[str, str] | None
    direct: bool | None
    limit_marker_ttl: float | None
    mirror: StreamSource | None
    sources: list[StreamSource] | None


@dataclass
class KeyValueConfig(nats_api.KeyValueConfig):
    """The configuration of a key-value bucket.

    Attributes:
        bucket: Its name: ASCII letters, digits, `-` and `_`.
        description: What is told of it to who lists buckets.
        max_value_size: How many bytes a value may have, its headers included; 0 or -1 for as many as the server takes.
        history: How many states of a key are kept, 1 to 64.
        ttl: For how many seconds a value lives, at least 0.1; 0 for ever.
        max_bytes: How many bytes all of it may have; 0 or -1 for any number. What is put into a full bucket is refused.
        storage: In files, or in memory; cannot be changed.
        replicas: On how many servers of a cluster, 1 to 5.
        placement: On which servers.
        republish: What is stored is published again under other subjects.
        direct: Whether any replica is asked for a value; True unless it is False, which leaves that to the leader.
        compression: S2, or none.
        metadata: What users want to note.
        limit_marker_ttl: Mark keys whose values expire, for so many seconds, a whole number, and let keys have a TTL of their own
            (server 2.11). It can be turned on later, and changed, but not turned off again.
        mirror: Hold what another bucket holds; its `name` is the bucket's, or its stream's. What is written goes there. Cannot be
            changed.
        sources: Collect what other buckets hold, beside what is written here. Where a source does not say which subjects its
            entries get (`subject_transforms`), its keys are keys of this bucket.
    """

    placement: Placement | None = None
    republish: RePublish | None = None
    compression: StoreCompression | bool | None = None
    metadata: dict[str, str] | None = None
    mirror: StreamSource | None = None
    sources: list[StreamSource] | None = None


@dataclass(frozen=True)
class BucketStatus:
    """How a bucket is, and what it is configured to be.

    Attributes:
        bucket: Its name.
        stream_info: What the server says of the stream that holds it.
    """

    bucket: str
    stream_info: StreamInfo

    @property
    def description(self) -> str | None:
        """What is told of it."""
        return self.stream_info.config.description

    @property
    def ttl(self) -> float | None:
        """For how many seconds what is stored lives; None for ever."""
        return self.stream_info.config.max_age or None

    @property
    def bytes(self) -> int:
        """How many bytes it takes, headers and what the server notes included."""
        return self.stream_info.state.bytes

    @property
    def max_bytes(self) -> int | None:
        """How many they may be; None for any number."""
        return _limit(self.stream_info.config.max_bytes)

    @property
    def storage(self) -> StorageType | None:
        """Whether it is in files or in memory."""
        return self.stream_info.config.storage

    @property
    def replicas(self) -> int:
        """On how many servers it is."""
        return self.stream_info.config.num_replicas or 1

    @property
    def compressed(self) -> bool:
        """Whether the server compresses it."""
        return self.stream_info.config.compression not in (None, StoreCompression.NONE)

    @property
    def sealed(self) -> bool:
        """Whether nothing can be written any more."""
        return bool(self.stream_info.config.sealed)

    @property
    def metadata(self) -> dict[str, str]:
        """What users have noted; not what the server notes itself (`_nats.`)."""
        noted = self.stream_info.config.metadata or {}
        return {key: value for key, value in noted.items() if not key.startswith("_nats.")}

    @property
    def lag(self) -> int | None:
        """How many messages a mirror, or all sources together, are behind; None where it neither mirrors nor collects.

        What each is behind, and whether it was heard of, stands in `stream_info.mirror` and `stream_info.sources`.
        """
        info = self.stream_info
        behind = [source.lag or 0 for source in ([info.mirror] if info.mirror is not None else info.sources or [])]
        return sum(behind) if behind else None


@final
@dataclass(frozen=True)
class KeyValueStatus(BucketStatus):
    """How a key-value bucket is."""

    @property
    def values(self) -> int:
        """How many entries it holds, with those of the history and the markers of what was deleted."""
        return self.stream_info.state.messages

    @property
    def history(self) -> int:
        """How many states of a key are kept; -1 for all, which only a mirror may do."""
        return self.stream_info.config.max_msgs_per_subject or -1

    @property
    def max_value_size(self) -> int | None:
        """How many bytes a value may have, its headers included; None for as many as the server takes."""
        return _limit(self.stream_info.config.max_msg_size)

    @property
    def limit_marker_ttl(self) -> float | None:
        """For how many seconds keys whose values expired are marked; None where they are not."""
        return self.stream_info.config.subject_delete_marker_ttl or None

    @property
    def marker_ttl(self) -> float | None:
        """The same, under nats-py's name."""
        return self.limit_marker_ttl


@final
@dataclass(frozen=True, slots=True, init=False)
class KeyValueEntry:
    """One state of a key: a value, or the marker of what was deleted.

    Attributes:
        bucket: The bucket.
        key: The key.
        value: The value; empty for a marker.
        revision: The sequence of its message in the bucket's stream.
        created: When the server stored it.
        delta: How many entries the server had to send behind it, as it said with it; 0 where it was read alone.
        operation: None for a value; "DEL" or "PURGE" for a marker.
    """

    bucket: str
    key: str
    value: bytes
    revision: int
    created: datetime.datetime
    delta: int
    operation: Literal["DEL", "PURGE"] | None

    def __init__(
        self,
        bucket: str,
        key: str,
        value: bytes,
        revision: int,
        created: datetime.datetime,
        delta: int,
        operation: Literal["DEL", "PURGE"] | None,
    ) -> None:
        # What a frozen dataclass does, in half the time: a snapshot has one of these for each key.
        _set_bucket(self, bucket)
        _set_key(self, key)
        _set_value(self, value)
        _set_revision(self, revision)
        _set_created(self, created)
        _set_delta(self, delta)
        _set_operation(self, operation)


_set_bucket, _set_key, _set_value, _set_revision, _set_created, _set_delta, _set_operation = (
    getattr(KeyValueEntry, entry.name).__set__ for entry in fields(KeyValueEntry)
)


# -- objects -----------------------------------------------------------------------------------------------------------


class ObjectStoreParams(TypedDict, total=False):
    """The fields of `ObjectStoreConfig` that `create_object_store` and its neighbours take by keyword."""

    description: str | None
    ttl: float | None
    max_bytes: int | None
    storage: StorageType | None
    replicas: int
    placement: Placement | None
    compression: StoreCompression | bool | None
    metadata: dict[str, str] | None


@final
@dataclass(frozen=True)
class ObjectStoreStatus(BucketStatus):
    """How an object store is."""

    @property
    def size(self) -> int:
        """How many bytes it takes: nats-py's name for `bytes`."""
        return self.bytes


@final
@dataclass
class PubAck(nats_api.PubAck):
    """What a stream says of a message that it stored.

    `seq` of a duplicate is that of the first, which may have been deleted since. `batch` and `count` are what the wire and
    the other clients call nats-py's `batch_id` and `batch_size`: the id of an atomic batch, and how many messages it had.
    """

    @property
    def batch(self) -> str | None:
        """The id of the batch that the message ended, if it did."""
        return self.batch_id

    @property
    def count(self) -> int | None:
        """How many messages the batch had."""
        return self.batch_size


@dataclass
class ObjectStoreConfig(nats_api.ObjectStoreConfig):
    """The configuration of an object store.

    Attributes:
        bucket: Its name: ASCII letters, digits, `-` and `_`.
        description: What is told of it to who lists buckets.
        ttl: For how many seconds an object lives, at least 0.1; 0 for ever.
        max_bytes: How many bytes all of it may have; 0 or -1 for any number.
        storage: In files, or in memory; cannot be changed.
        replicas: On how many servers of a cluster, 1 to 5.
        placement: On which servers.
        compression: S2, or none.
        metadata: What users want to note.
    """

    placement: Placement | None = None
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
    """What the user says about an object: its name, description, headers, metadata and options.

    Attributes:
        name: Its name; in `ObjectStore.update_meta` another one, by which it is renamed. What is put takes the name that `put` is given.
        description: What is told of it to who lists objects.
        headers: Texts, or lists of them, under names. What was read has lists, as they are stored: `{"a": "b"}` comes back as `{"a": ["b"]}`.
        metadata: What users want to note: a text under each name.
        options: The size of chunks (`max_chunk_size`); of a link, what it leads to.
    """

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

    @property
    def meta(self) -> ObjectMeta:
        """What the user says of it, to change a part of and hand to `ObjectStore.update_meta`."""
        return ObjectMeta(self.name, self.description, self.headers, self.options, metadata=self.metadata)

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
class MsgSequence:
    """Where a message stands.

    Attributes:
        consumer: How many messages its consumer had delivered with it: another delivery has another number.
        stream: Its sequence in the stream.
    """

    consumer: int
    stream: int


@final
@dataclass(frozen=True, slots=True)
class MsgMetadata:
    """What the server says of a message that a consumer delivered: what `JetStreamMsg.metadata` gives.

    Attributes:
        sequence: Where it stands.
        num_pending: How many messages waited for the consumer when it was delivered.
        num_delivered: The how manieth delivery of it this is, from 1.
        timestamp: When it was stored, in UTC, to the microsecond.
        stream: The stream's name.
        consumer: The consumer's name.
        domain: The JetStream domain; None where there is none, or the server does not say it.
    """

    sequence: MsgSequence
    num_pending: int
    num_delivered: int
    timestamp: datetime.datetime
    stream: str
    consumer: str
    domain: str | None = None


@final
@dataclass(frozen=True, slots=True)
class ObjectResult:
    """An object that was read whole and verified: its info and its data."""

    info: ObjectInfo
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A partitioned consumer group, as its configuration says.

    Attributes:
        stream: The stream whose messages it reads.
        name: The group's name.
        elastic: Whether members come and go; else they are what they were when it was created.
        max_members: How many partitions there are, and so how many members can have any.
        filters: What it reads; of an elastic group with the numbers, from 1, of those `*` of each filter that say to which
            partition a message belongs, and none of them for the whole subject. Nothing for the whole stream.
        members: Its members, sorted.
        partitions: The partitions of each member that has some.
        mapped: Whether they were chosen by hand; else they are spread over the members.
        max_buffered_msgs: How many messages an elastic group's own stream holds at the most; None for any number.
        max_buffered_bytes: The same in bytes.
    """

    stream: str
    name: str
    elastic: bool
    max_members: int
    filters: Mapping[str, Sequence[int]]
    members: Sequence[str]
    partitions: Mapping[str, Sequence[int]]
    mapped: bool = False
    max_buffered_msgs: int | None = None
    max_buffered_bytes: int | None = None


@final
@dataclass(frozen=True, slots=True)
class Orphan:
    """Chunks in an object store that no object names: what a put left that was broken off, or a deletion that was refused.

    Attributes:
        nuid: Under which they are.
        chunks: How many they are.
        bytes: How large they are, together.
        oldest: When the first of them was stored, in UTC, by the server's clock.
        newest: When the last of them was.
    """

    nuid: str
    chunks: int
    bytes: int
    oldest: datetime.datetime
    newest: datetime.datetime


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
    time: datetime.datetime
    data: bytes = b""
    headers: MultiDict[str] = field(default_factory=MultiDict)


# -- schedules and counters --------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Schedule:
    """A message that the server is to store again and again, or once, as its stream holds it (ADR-51).

    Attributes:
        subject: The schedule's own subject.
        target: What the server stores is stored under this one.
        expression: When, as it stands in the stream: `@at 2030-01-01T00:00:00Z`, `@every 60s`, `0 0 12 * * *`.
        at: The one moment, in UTC; None where it has none, or it cannot be read.
        every: So many seconds apart, likewise.
        cron: Six fields, or a word as "@hourly"; also whatever a later server may understand.
        time_zone: The IANA name of the zone that `cron` is meant in; None for UTC.
        ttl: For how many seconds what is stored is kept, or "never"; None for as long as the stream keeps anything.
        source: The subject whose last message's payload is stored; None for this one's.
        rollup: Whether what is stored replaces what was stored under the target before.
        data: The payload.
        headers: Its headers, without those above; they are stored with it.
        seq: The sequence of the schedule in the stream.
        created: When it was stored, in UTC.
    """

    subject: str
    target: str
    expression: str
    at: datetime.datetime | None
    every: float | None
    cron: str | None
    time_zone: str | None
    ttl: float | str | None
    source: str | None
    rollup: bool
    data: bytes
    headers: MultiDict[str]
    seq: int
    created: datetime.datetime


@final
@dataclass(frozen=True, slots=True)
class CounterEntry:
    """What a counter has come to (ADR-49).

    Attributes:
        subject: The counter.
        value: Its value, of any size.
        sources: What was counted elsewhere and is part of it: by stream, and by the counter's subject there; empty where there
            is none.
        seq: The sequence of its last message in the stream.
        time: When that was stored, in UTC.
    """

    subject: str
    value: int
    sources: Mapping[str, Mapping[str, int]]
    seq: int
    time: datetime.datetime


def _limit(number: int | None) -> int | None:
    return number if number is not None and number > 0 else None


def _unknown(kind: type, resp: dict[str, Any]) -> dict[str, Any]:
    known = {entry.name for entry in fields(kind)}
    return {key: value for key, value in resp.items() if key not in known}


def _with_unknown(result: dict[str, object]) -> dict[str, object]:
    extra = result.pop("extra", None)
    return {**extra, **result} if isinstance(extra, dict) else result
