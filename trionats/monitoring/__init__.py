"""What servers tell of themselves, and of where a message went: the answers of `SystemClient`, and what `Client.trace` gives.

The names of an answer's fields are the server's own. Times are datetimes in UTC, numbers of seconds are floats; texts such as
"1h2m3s" (`uptime`, `idle`, `rtt`) are as the server writes them. What the server leaves out because it is empty, or because it is an older
one, is 0, empty or None here. What is not known here, a newer server's field for instance, stands in `extra`, under its own name.
"""

from __future__ import annotations

# What the annotations name: they are looked up where a class says that it is.
import datetime  # noqa: F401
from collections.abc import Mapping  # noqa: F401
from typing import Any  # noqa: F401

from trionats import errors  # noqa: F401
from trionats._told.reading import Told
from trionats.monitoring._answers import (
    AccountDetail,
    AccountStats,
    Accountz,
    Answer,
    Answers,
    ApiStats,
    ClusterOptions,
    ConnInfo,
    Connz,
    Gatewayz,
    HealthError,
    Healthz,
    JetStreamConfig,
    JetStreamStats,
    JetStreamVarz,
    Jsz,
    LeafInfo,
    Leafz,
    MetaCluster,
    Peer,
    RemoteGateway,
    RouteInfo,
    Routez,
    SlowConsumers,
    StreamDetail,
    SubDetail,
    Subsz,
    Varz,
)
from trionats.monitoring._server import ServerInfo
from trionats.monitoring._trace import (
    ConnectionKind,
    Trace,
    TraceEgress,
    TraceEvent,
    TraceHop,
    TraceIngress,
    TraceJetStream,
    TraceServiceImport,
    TraceStreamExport,
    TraceSubjectMapping,
    UnknownTraceEvent,
)

__all__ = [
    "AccountDetail",
    "AccountStats",
    "Accountz",
    "Answer",
    "Answers",
    "ApiStats",
    "ClusterOptions",
    "ConnInfo",
    "ConnectionKind",
    "Connz",
    "Gatewayz",
    "HealthError",
    "Healthz",
    "JetStreamConfig",
    "JetStreamStats",
    "JetStreamVarz",
    "Jsz",
    "LeafInfo",
    "Leafz",
    "MetaCluster",
    "Peer",
    "RemoteGateway",
    "RouteInfo",
    "Routez",
    "ServerInfo",
    "SlowConsumers",
    "StreamDetail",
    "SubDetail",
    "Subsz",
    "Told",
    "Trace",
    "TraceEgress",
    "TraceEvent",
    "TraceHop",
    "TraceIngress",
    "TraceJetStream",
    "TraceServiceImport",
    "TraceStreamExport",
    "TraceSubjectMapping",
    "UnknownTraceEvent",
    "Varz",
]

# A traceback or a page shows the name that users import.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
