"""What servers answer to the monitoring requests: what `SystemClient` gives."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, final, overload

from trionats import errors
from trionats._told.reading import Told, nanoseconds
from trionats.monitoring._server import ServerInfo

T = TypeVar("T", bound="Answer")


@dataclass(frozen=True, kw_only=True)
class Answer(Told):
    """What one server answers; `server` says which."""

    server: ServerInfo = field(default_factory=ServerInfo)


@final
@dataclass(frozen=True)
class Answers(Sequence[T], Generic[T]):
    """The answers of several servers, by their names; a sequence of them.

    Attributes:
        answers: What the servers said.
        failed: What servers said instead of an answer.
        missing: How many servers more there should be than have answered; None where their number is not known.
    """

    answers: tuple[T, ...]
    failed: tuple[errors.MonitoringError, ...] = ()
    missing: int | None = None

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...

    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.answers[index]

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[T]:
        return iter(self.answers)


# -- varz ---------------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class ClusterOptions(Told):
    """How a server is in its cluster."""

    name: str = ""
    addr: str = ""
    cluster_port: int = 0
    urls: tuple[str, ...] = ()
    pool_size: int = 0
    tls_required: bool = False
    tls_verify: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class JetStreamConfig(Told):
    """How JetStream is configured: sizes in bytes, -1 for no limit."""

    max_memory: int = 0
    max_storage: int = 0
    store_dir: str = ""
    sync_interval: float = nanoseconds()
    sync_always: bool = False
    domain: str = ""
    compress_ok: bool = False
    unique_tag: str = ""
    strict: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class ApiStats(Told):
    """What was asked of the JetStream API."""

    level: int = 0
    total: int = 0
    errors: int = 0
    inflight: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class JetStreamStats(Told):
    """What JetStream holds on a server, in bytes."""

    memory: int = 0
    storage: int = 0
    reserved_memory: int = 0
    reserved_storage: int = 0
    accounts: int = 0
    ha_assets: int = 0
    api: ApiStats = field(default_factory=ApiStats)


@final
@dataclass(frozen=True, kw_only=True)
class Peer(Told):
    """A member of a RAFT group that does not lead; `active` is how many seconds ago it was heard of."""

    name: str = ""
    current: bool = False
    offline: bool = False
    active: float = nanoseconds()
    lag: int = 0
    peer: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class MetaCluster(Told):
    """The servers that know together which streams there are; `replicas` is only told by who leads them."""

    name: str = ""
    leader: str = ""
    peer: str = ""
    replicas: tuple[Peer, ...] = ()
    cluster_size: int = 0
    pending: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class JetStreamVarz(Told):
    """What `varz` says of JetStream; without it all is None."""

    config: JetStreamConfig | None = None
    stats: JetStreamStats | None = None
    meta: MetaCluster | None = None


@final
@dataclass(frozen=True, kw_only=True)
class SlowConsumers(Told):
    """How many connections of each kind were too slow so far."""

    clients: int = 0
    routes: int = 0
    gateways: int = 0
    leafs: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class Varz(Answer):
    """What a server is, and how busy. `mem` is in bytes, `cpu` in percent of one core."""

    server_id: str = ""
    server_name: str = ""
    version: str = ""
    proto: int = 0
    git_commit: str = ""
    go: str = ""
    host: str = ""
    port: int = 0
    auth_required: bool = False
    tls_required: bool = False
    tls_verify: bool = False
    ip: str = ""
    connect_urls: tuple[str, ...] = ()
    ws_connect_urls: tuple[str, ...] = ()
    max_connections: int = 0
    max_subscriptions: int = 0
    ping_interval: float = nanoseconds()
    ping_max: int = 0
    http_host: str = ""
    http_port: int = 0
    https_port: int = 0
    auth_timeout: float = 0.0
    tls_timeout: float = 0.0
    write_deadline: float = nanoseconds()
    max_control_line: int = 0
    max_payload: int = 0
    max_pending: int = 0
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    gateway: Mapping[str, Any] = field(default_factory=dict)
    leaf: Mapping[str, Any] = field(default_factory=dict)
    mqtt: Mapping[str, Any] = field(default_factory=dict)
    websocket: Mapping[str, Any] = field(default_factory=dict)
    jetstream: JetStreamVarz = field(default_factory=JetStreamVarz)
    start: datetime.datetime | None = None
    now: datetime.datetime | None = None
    uptime: str = ""
    mem: int = 0
    cores: int = 0
    gomaxprocs: int = 0
    gomemlimit: int = 0
    cpu: float = 0.0
    connections: int = 0
    total_connections: int = 0
    routes: int = 0
    remotes: int = 0
    leafnodes: int = 0
    in_msgs: int = 0
    in_bytes: int = 0
    in_client_msgs: int = 0
    in_client_bytes: int = 0
    out_msgs: int = 0
    out_bytes: int = 0
    out_client_msgs: int = 0
    out_client_bytes: int = 0
    slow_consumers: int = 0
    slow_consumer_stats: SlowConsumers = field(default_factory=SlowConsumers)
    stale_connections: int = 0
    stalled_clients: int = 0
    subscriptions: int = 0
    http_req_stats: Mapping[str, int] = field(default_factory=dict)
    config_load_time: datetime.datetime | None = None
    config_digest: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    feature_flags: Mapping[str, bool] = field(default_factory=dict)
    system_account: str = ""


# -- connections ----------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class SubDetail(Told):
    """One subscription: `msgs` it was given, of `max` at the most; 0 for no limit."""

    account: str = ""
    account_tag: str = ""
    subject: str = ""
    qgroup: str = ""
    sid: str = ""
    msgs: int = 0
    max: int = 0
    cid: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class ConnInfo(Told):
    """One connection. Its subscriptions are told where they are asked for; `stop` and `reason` are of a closed one."""

    cid: int = 0
    kind: str = ""
    type: str = ""
    ip: str = ""
    port: int = 0
    start: datetime.datetime | None = None
    last_activity: datetime.datetime | None = None
    stop: datetime.datetime | None = None
    reason: str = ""
    rtt: str = ""
    uptime: str = ""
    idle: str = ""
    pending_bytes: int = 0
    in_msgs: int = 0
    out_msgs: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    stalls: int = 0
    subscriptions: int = 0
    name: str = ""
    lang: str = ""
    version: str = ""
    tls_version: str = ""
    tls_cipher_suite: str = ""
    tls_first: bool = False
    authorized_user: str = ""
    account: str = ""
    subscriptions_list: tuple[str, ...] = ()
    subscriptions_list_detail: tuple[SubDetail, ...] = ()
    issuer_key: str = ""
    name_tag: str = ""
    tags: tuple[str, ...] = ()
    mqtt_client: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Connz(Answer):
    """The connections of a server: `num_connections` of `total`."""

    server_id: str = ""
    now: datetime.datetime | None = None
    num_connections: int = 0
    total: int = 0
    offset: int = 0
    limit: int = 0
    connections: tuple[ConnInfo, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Subsz(Answer):
    """The subscriptions of a server; a list of them where it is asked for."""

    server_id: str = ""
    now: datetime.datetime | None = None
    num_subscriptions: int = 0
    num_cache: int = 0
    num_inserts: int = 0
    num_removes: int = 0
    num_matches: int = 0
    cache_hit_rate: float = 0.0
    max_fanout: int = 0
    avg_fanout: float = 0.0
    total: int = 0
    offset: int = 0
    limit: int = 0
    subscriptions_list: tuple[SubDetail, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class RouteInfo(Told):
    """A connection to a server of the same cluster."""

    rid: int = 0
    remote_id: str = ""
    remote_name: str = ""
    did_solicit: bool = False
    is_configured: bool = False
    ip: str = ""
    port: int = 0
    start: datetime.datetime | None = None
    last_activity: datetime.datetime | None = None
    rtt: str = ""
    uptime: str = ""
    idle: str = ""
    pending_size: int = 0
    in_msgs: int = 0
    out_msgs: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    subscriptions: int = 0
    subscriptions_list: tuple[str, ...] = ()
    subscriptions_list_detail: tuple[SubDetail, ...] = ()
    account: str = ""
    compression: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Routez(Answer):
    """The connections of a server to those of its cluster: several to each."""

    server_id: str = ""
    server_name: str = ""
    now: datetime.datetime | None = None
    num_routes: int = 0
    routes: tuple[RouteInfo, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class RemoteGateway(Told):
    """A connection to a server of another cluster; `accounts` are told where they are asked for."""

    configured: bool = False
    connection: ConnInfo | None = None
    accounts: tuple[Mapping[str, Any], ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Gatewayz(Answer):
    """The connections of a server to other clusters, by their names."""

    server_id: str = ""
    now: datetime.datetime | None = None
    name: str = ""
    host: str = ""
    port: int = 0
    outbound_gateways: Mapping[str, RemoteGateway] = field(default_factory=dict)
    inbound_gateways: Mapping[str, tuple[RemoteGateway, ...]] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class LeafInfo(Told):
    """A connection between a server and a leaf node of it, or what it is a leaf of (`is_spoke`)."""

    id: int = 0
    name: str = ""
    is_spoke: bool = False
    is_isolated: bool = False
    account: str = ""
    ip: str = ""
    port: int = 0
    rtt: str = ""
    in_msgs: int = 0
    out_msgs: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    subscriptions: int = 0
    subscriptions_list: tuple[str, ...] = ()
    compression: str = ""
    websocket: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Leafz(Answer):
    """The leaf nodes of a server."""

    server_id: str = ""
    now: datetime.datetime | None = None
    leafnodes: int = 0
    leafs: tuple[LeafInfo, ...] = ()


# -- JetStream ------------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class StreamDetail(Told):
    """A stream, as it is on one server. What `JetStream.stream_info` tells, too, is as the server writes it."""

    name: str = ""
    created: datetime.datetime | None = None
    cluster: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    consumer_detail: tuple[Mapping[str, Any], ...] = ()
    direct_consumer_detail: tuple[Mapping[str, Any], ...] = ()
    mirror: Mapping[str, Any] | None = None
    sources: tuple[Mapping[str, Any], ...] = ()
    stream_raft_group: str = ""
    consumer_raft_groups: tuple[Mapping[str, Any], ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class AccountStats(Told):
    """What an account has in JetStream on one server, in bytes."""

    name: str = ""
    id: str = ""
    memory: int = 0
    storage: int = 0
    reserved_memory: int = 0
    reserved_storage: int = 0
    accounts: int = 0
    ha_assets: int = 0
    api: ApiStats = field(default_factory=ApiStats)
    stream_detail: tuple[StreamDetail, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Jsz(Answer):
    """JetStream on one server; `disabled` where it has none. Of one account it is what that account has.

    Accounts and their streams are told where they are asked for.
    """

    server_id: str = ""
    now: datetime.datetime | None = None
    disabled: bool = False
    config: JetStreamConfig = field(default_factory=JetStreamConfig)
    memory: int = 0
    storage: int = 0
    reserved_memory: int = 0
    reserved_storage: int = 0
    accounts: int = 0
    ha_assets: int = 0
    api: ApiStats = field(default_factory=ApiStats)
    streams: int = 0
    streams_leader: int = 0
    consumers: int = 0
    consumers_leader: int = 0
    messages: int = 0
    bytes: int = 0
    meta_cluster: MetaCluster | None = None
    account_details: tuple[AccountStats, ...] = ()
    total: int = 0


# -- health and accounts ----------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class HealthError(Told):
    """Something that is not in order: `type` is "CONN", "JETSTREAM", "ACCOUNT", "STREAM" or "CONSUMER"."""

    type: str = ""
    account: str = ""
    stream: str = ""
    consumer: str = ""
    error: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Healthz(Answer):
    """How a server is: `status` is "ok", or says what is not. `errors` are told where details are asked for."""

    status: str = ""
    status_code: int = 0
    error: str = ""
    errors: tuple[HealthError, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all is in order."""
        return self.status == "ok"


@final
@dataclass(frozen=True, kw_only=True)
class AccountDetail(Told):
    """An account, as one server knows it. Imports, exports and claims are as the server writes them."""

    account_name: str = ""
    update_time: datetime.datetime | None = None
    is_system: bool = False
    expired: bool = False
    complete: bool = False
    jetstream_enabled: bool = False
    leafnode_connections: int = 0
    client_connections: int = 0
    subscriptions: int = 0
    mappings: Mapping[str, Any] = field(default_factory=dict)
    exports: tuple[Mapping[str, Any], ...] = ()
    imports: tuple[Mapping[str, Any], ...] = ()
    issuer_key: str = ""
    name_tag: str = ""
    tags: tuple[str, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Accountz(Answer):
    """The accounts that a server knows, or one of them."""

    server_id: str = ""
    now: datetime.datetime | None = None
    system_account: str = ""
    accounts: tuple[str, ...] = ()
    account_detail: AccountDetail | None = None
