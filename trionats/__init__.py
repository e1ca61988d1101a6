"""A Trio structured-concurrency client for NATS.

Everything that arrives over time is the receive end of a memory channel whose feeding task lives in a nursery that the
caller passes in. `open_client` is where to begin; `errors`, `api` and `events` hold the exceptions, the server's data and the
values of `open_events`; `trionats.testing` starts a real server.
"""

# The floors. A module imports only from rows above its own; tests/test_architecture.py holds this table as data.
#
#   errors            what can go wrong: nats-py's exceptions and the few that it lacks
#   api               what the server is told and tells: nats-py's dataclasses and what they lack
#   events            what happens to a connection
#   _discretion       complaints that hold no secret
#
#   _protocol/        THE CELLAR: no trio, no asyncio, no socket, no clock
#     showing           what may be shown of what may be a secret, or is somebody else's
#     subjects          names: check them, match them, make inboxes
#     headers           the NATS/1.0 header block
#     addresses         a server's URL
#     alarms            what is to happen when, unless it is called off
#     fields            what configurations and answers must hold, by their annotations
#     index             who is found by a name
#     admission         which subscriptions were refused because there are too many
#     numbering         the numbers of frames, some of which are taken back
#     happenings        what an engine says has happened
#     credentials       who we are by an NKey: seeds, signatures, and the files that hold them
#     issuing           JWTs for users
#     contexts          what the nats command line tool's contexts say
#     parser            bytes in, events out
#     commands          commands in, bytes out
#     subscriptions     one row of the table of what is subscribed
#     servers           which server next, and how long to wait before it
#     pulling           how many to ask for, and what silence means
#     acks              what a publish may ask for, and which answer counts
#     leader            which stream it is, and what a snapshot must have reached
#     refusals          which refusals pass, and which end a reader
#     snapshot          where a snapshot ends
#     ordered           where to resume
#     objects           an object's info: where it stands, and what it may say
#     remnants          when to ask for a purge, until nothing can be left
#     login             what CONNECT says about who we are
#     engine            one session: handshake, sids, pings, what to replay
#     replies           many answers to one request: when there are enough
#     move              two sessions at once, and which of them hears what
#
#   _identity         who we are, found out anew at each connect
#   _tls              contexts, handshakes, and what their failures mean
#   _websocket        frames over a stream: a trio.abc.Stream
#   _tracing          headers that have a message traced
#   _transport        dial TCP, TLS or WebSocket: a trio.abc.Stream comes back
#   _busy          which tasks work on what they took from a feed
#   _deadlines        when a wait ends: alarms, and the deadline where none is set
#   _foreign          the boundary where what other programs made is read
#   _logbook          what of a client's events goes to the log
#   _run              the Trio run that an object belongs to
#   _feed             a channel pair opened in a nursery: the promise
#   _message          a message that can be answered
#   _options          what open_client is told, checked and sorted
#   _contexts         contexts of the nats command line tool, read and turned into options
#   _handshake        one attempt to get in: INFO, TLS, CONNECT
#   _session     one connection while it lasts: reader, writer, pinger
#   _moving           a planned move to another server
#   _link             the connection kept alive: the supervisor
#   _requests         requests and their answers
#   _many_request          requests with an inbox of their own, for many answers
#   _drain            give up subscriptions without losing what is on its way
#   _frames           a message checked, and made a frame
#   _attachment       the seam below the feeds
#   _facts            what is known of a connection and of its server
#   _client           open_client: publish, subscribe, request, reconnect
#   _subscription     open_subscription and open_events
#   _replies          open_replies
#   _api              one question to the JetStream API, its answer, its errors
#   _management       streams and consumers: nats-py's JetStreamManager on our client
#   _destination      the domain that a publish is meant for
#   _jetstream        acknowledged publish, object stores' buckets
#   _consumer         ordered reading of a stream
#   _purging          what no object names any more is purged
#   _chunks           an object's chunks, in and out
#   _infos            an object's info, read and written
#   _objects          object stores
#   _watcher          open_watcher
#   _asyncio_loop     a trio-asyncio loop in a nursery, its traps contained
#   _answers          nats-py's messages as our own, and the answers among them
#   _carried          receivers, each with a subscription of nats-py's client
#   _nats_py          nats-py's client as the floors above our own client need one
#   _bridged          what the bridge's feeds and entries are
#   bridge            nats-py's own asyncio objects as feeds, through trio-asyncio
#   _nats_server      a real nats-server as a process
#   testing           a real nats-server for tests and demos; leak assertions
#   _demo, __main__   python -m trionats

from __future__ import annotations

from trionats import api, errors, events
from trionats._client import Client, open_client
from trionats._connection.identity import issue_user_jwt
from trionats._connection.options import ClientOptions
from trionats._connection.tls import TLSState
from trionats._core.message import Msg
from trionats._core.requests import PendingReply
from trionats._core.status import ClientStatistics
from trionats._core.tracing import trace_headers
from trionats._event_feed import Events, open_events
from trionats._feeds.bounded import BoundedFeed, SubscriptionStatistics
from trionats._feeds.feed import Feed
from trionats._jetstream.context import JetStream
from trionats._jetstream.objects.store import ObjectStore
from trionats._jetstream.watcher import Watcher, WatcherStatistics
from trionats._protocol.servers import KnownServer
from trionats._replies import Replies, open_replies
from trionats._subscription import Subscription, open_subscription
from trionats._version import __version__
from trionats._watch import open_watcher

__all__ = [
    "BoundedFeed",
    "Client",
    "ClientOptions",
    "ClientStatistics",
    "Events",
    "Feed",
    "JetStream",
    "KnownServer",
    "Msg",
    "ObjectStore",
    "PendingReply",
    "Replies",
    "Subscription",
    "SubscriptionStatistics",
    "TLSState",
    "Watcher",
    "WatcherStatistics",
    "__version__",
    "api",
    "errors",
    "events",
    "issue_user_jwt",
    "open_client",
    "open_events",
    "open_replies",
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
