"""A Trio structured-concurrency client for NATS.

Everything that arrives over time is the receive end of a memory channel whose feeding task lives in a nursery that the
caller passes in. `open_client` is where to begin; `errors`, `api`, `events` and `advisories` hold the exceptions, the server's data and the
values of `open_events` and `open_advisories`; `trionats.testing` starts a real server.
"""

# Which rooms there are and who may import whom: tests/test_architecture.py. What lives in a folder: its `__init__`.

from __future__ import annotations

from trionats import advisories, api, errors, events, monitoring
from trionats._client import Client, open_client
from trionats._connection.identity import issue_user_jwt
from trionats._connection.options import ClientOptions
from trionats._connection.tls import TLSState
from trionats._core.message import Msg
from trionats._core.requests import PendingReply
from trionats._core.status import ClientStatistics
from trionats._core.tracing import trace_headers
from trionats._feeds.bounded import BoundedFeed, SubscriptionStatistics
from trionats._feeds.feed import Feed
from trionats._jetstream.consumers.consumer import Consumer
from trionats._jetstream.consumers.ordered_consumer import OrderedConsumer
from trionats._jetstream.context import JetStream
from trionats._jetstream.counters import Counter
from trionats._jetstream.kv.lease import Lease, open_lease
from trionats._jetstream.kv.store import KeyValue, ReadOnlyKeyValue
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.messages.message import JetStreamMsg
from trionats._jetstream.objects.store import ObjectStore
from trionats._jetstream.objects.stream import ObjectStream
from trionats._jetstream.ordered.watcher import Watcher, WatcherStatistics
from trionats._jetstream.publishing.batch import Batch
from trionats._jetstream.publishing.ingest import Ingest, IngestReceipt
from trionats._jetstream.publishing.publisher import Publisher, Receipt
from trionats._jetstream.streams import Stream
from trionats._open.advisories import Advisories, open_advisories
from trionats._open.consumer import open_consumer
from trionats._open.event_feed import Events, open_events
from trionats._open.ingest import open_ingest
from trionats._open.partition import open_partition
from trionats._open.publisher import open_publisher
from trionats._open.replies import Replies, open_replies
from trionats._open.service import open_endpoint, open_service
from trionats._open.subscription import Subscription, open_subscription
from trionats._open.watcher import open_watcher
from trionats._protocol.jetstream.kv.codecs import Base64Codec, KeyCodec, PathCodec, ValueCodec
from trionats._protocol.jetstream.publishing.publish import PublishOptions
from trionats._protocol.parser import Message
from trionats._protocol.servers import KnownServer
from trionats._services.discovery import ServiceClient
from trionats._services.request import ServiceRequest
from trionats._services.service import Group, Service
from trionats._system import SystemClient
from trionats._version import __version__

__all__ = [
    "Advisories",
    "Base64Codec",
    "Batch",
    "BoundedFeed",
    "Client",
    "ClientOptions",
    "ClientStatistics",
    "Consumer",
    "Counter",
    "Events",
    "Feed",
    "Group",
    "Ingest",
    "IngestReceipt",
    "JetStream",
    "JetStreamManager",
    "JetStreamMsg",
    "KeyCodec",
    "KeyValue",
    "KnownServer",
    "Lease",
    "Message",
    "Msg",
    "ObjectStore",
    "ObjectStream",
    "OrderedConsumer",
    "PathCodec",
    "PendingReply",
    "PublishOptions",
    "Publisher",
    "ReadOnlyKeyValue",
    "Receipt",
    "Replies",
    "Service",
    "ServiceClient",
    "ServiceRequest",
    "Stream",
    "Subscription",
    "SubscriptionStatistics",
    "SystemClient",
    "TLSState",
    "ValueCodec",
    "Watcher",
    "WatcherStatistics",
    "__version__",
    "advisories",
    "api",
    "errors",
    "events",
    "issue_user_jwt",
    "monitoring",
    "open_advisories",
    "open_client",
    "open_consumer",
    "open_endpoint",
    "open_events",
    "open_ingest",
    "open_lease",
    "open_partition",
    "open_publisher",
    "open_replies",
    "open_service",
    "open_subscription",
    "open_watcher",
    "trace_headers",
]

# A traceback or a page shows the name that users import.
for _name in __all__:
    _thing = globals()[_name]
    if getattr(_thing, "__module__", "").startswith("trionats._"):
        _thing.__module__ = __name__
del _name, _thing
