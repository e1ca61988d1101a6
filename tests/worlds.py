"""The worlds that tests live in: a client and what it is connected to, each in one line, and how to wait for what is under way.

In memory (`tests/floor`), with a clock that jumps where the test asks for one:

    async with open_world() as (server, nc, nursery):                     # one server, a `FakeServer`
    async with open_world(FakeServer(sip=7), request_timeout=3) as w:     # ... made as the test wants it; options of `open_client`
    async with subscribed("a") as (server, nc, rx):                       # ... with a subscription that the server knows of
    async with open_world(Hosts("a", "b")) as (hosts, nc, nursery):       # several, by the names of their hosts
    async with open_bucket() as (bucket, store, nc, nursery):             # one that holds a bucket, a `FakeObjects`
    async with open_keys(history=5) as (bucket, kv, nc, nursery):         # one that holds keys and values, a `FakeKeyValue`
    async with open_consumer_world() as w:                                # one that holds a stream with a consumer: `w.fake`, `w.consumer`

With a real server (`tests/live`):

    async with open_world(nats_server) as (_, nc, nursery):               # the session's server, or any other that runs
    async with open_live("max_payload: 100") as (server, nc, nursery):    # one of its own
    async with open_store(nats_server) as (store, nc, nursery):           # with a bucket that is gone afterwards
    async with open_stream(nats_server) as w:                             # with a stream: `w.js`, `w.stream`, `w.subject`

`nursery` is for feeds and for tasks of the test's own: the block waits for them, and then the client is closed. What was sent
in memory is checked at the end, and that the client keeps nothing: no feed, no subscription, no request.

What only builders of feeds use of a client is reached through `seam`, `put`, `end` and their neighbours, and nowhere else.
"""

from __future__ import annotations

import base64
import gc
import inspect
import itertools
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, Generic, NamedTuple, Self, TypeVar, overload

import pytest
import trio
import trio.testing

from tests.cancelling import same_schedule
from tests.fake_consumers import Consumer as FakeConsumer
from tests.fake_jetstream import FakeKeyValue, FakeObjects, FakeStream
from tests.fakes import Ending, FakeServer
from trionats import (
    Client,
    Consumer,
    Events,
    Feed,
    JetStream,
    KeyValue,
    Msg,
    ObjectStore,
    Stream,
    Subscription,
    api,
    errors,
    events,
    open_client,
    open_events,
    open_subscription,
)
from trionats._core.connection import Connection
from trionats._core.messaging import Publishing
from trionats._feeds.busy_tasks import BusyTasks
from trionats._jetstream.api import Api
from trionats._jetstream.kv.buckets import KeyValueBucket
from trionats._jetstream.messages.message import JetStreamMsg
from trionats._jetstream.objects.buckets import Bucket
from trionats.testing import NatsServer, TrioNatsServer, open_server

HOUR = 3600.0
#: How often a condition is looked at that takes no time.
MOST_LOOKS = 100_000

T = TypeVar("T")
K = TypeVar("K")
S = TypeVar("S", bound="FakeServer | Hosts | NatsServer | TrioNatsServer")
B = TypeVar("B", bound="FakeObjects")
E = TypeVar("E", bound="events.ConnectionEvent")


class Hosts:
    """Servers in memory by the names of their hosts, and who was dialled when.

    Args:
        names: The names; they are those of INFO, too.
        info: Fields of the INFO of all of them.
    """

    def __init__(self, *names: str, **info: Any) -> None:  # noqa: ANN401 - whatever an INFO has
        self.servers = {name: FakeServer(info={"server_name": name, **info}) for name in names}
        self.dials: list[tuple[str, float]] = []
        self.start = trio.current_time()

    def __getitem__(self, name: str) -> FakeServer:
        return self.servers[name]

    @property
    def order(self) -> str:
        """The names that were dialled, one behind the other."""
        return "".join(name for name, _ in self.dials)

    @property
    def urls(self) -> list[str]:
        return [f"nats://{name}" for name in self.servers]

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        self.dials.append((host, trio.current_time() - self.start))
        return await self.servers[host].dial(host, port)

    def check(self) -> None:
        """Raise AssertionError if any of them was sent anything but whole, well-formed frames."""
        for server in self.servers.values():
            server.check()


# -- a client, and what it is connected to ---------------------------------------------------------------------------------


class World(NamedTuple, Generic[S]):
    """A client, what it is connected to, and a nursery inside its block."""

    server: S
    nc: Client
    nursery: trio.Nursery


@overload
def open_world(
    server: None = None,
    servers: str | list[str] | None = None,
    **options: Any,  # noqa: ANN401 - any option
) -> AbstractAsyncContextManager[World[FakeServer]]: ...


@overload
def open_world(
    server: S,
    servers: str | list[str] | None = None,
    **options: Any,  # noqa: ANN401 - any option
) -> AbstractAsyncContextManager[World[S]]: ...


@asynccontextmanager
async def open_world(
    server: Any = None,
    servers: str | list[str] | None = None,
    **options: Any,
) -> AsyncIterator[World[Any]]:
    """Connect a client; see the module's text.

    Args:
        server: A server in memory, several of them, or a real one that runs; by default a `FakeServer`.
        servers: URLs in place of those that the server has.
        options: Those of `open_client`. Hosts are tried in their order, unless they say otherwise.
    """
    server = FakeServer() if server is None else server
    options = {**_how_to_reach(server), **options}
    given = options.pop("servers")
    async with trio.open_nursery() as background:
        # Not a deadline: where there is one, requests have no timeout of their own.
        background.start_soon(stuck)
        async with open_client(background, servers or given, **options) as nc, trio.open_nursery() as nursery:
            yield World(server, nc, nursery)
        background.cancel_scope.cancel()
    assert_nothing_left(nc)
    if isinstance(server, (FakeServer, Hosts)):
        server.check()


def _how_to_reach(server: FakeServer | Hosts | NatsServer | TrioNatsServer) -> dict[str, Any]:
    if isinstance(server, FakeServer):
        return {"servers": "nats://127.0.0.1:4222", "dial": server.dial}
    if isinstance(server, Hosts):
        return {"servers": server.urls, "dial": server.dial, "dont_randomize": True}
    return {"servers": server.url}


async def stuck() -> None:
    """Fail a test that still runs after a time that none needs: pings go on for ever, and a clock that jumps would, too."""
    await trio.sleep(10 * HOUR)
    pytest.fail("stuck")


@asynccontextmanager
async def connected(
    server: FakeServer | Hosts | NatsServer | TrioNatsServer,
    servers: str | list[str] | None = None,
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[Client]:
    """Open a world of which only the client is wanted."""
    async with open_world(server, servers, **options) as world:
        yield world.nc


class Watched(NamedTuple, Generic[S]):
    """A client, what it is connected to, and what it tells of that."""

    server: S
    nc: Client
    rx: Events


@overload
def watched(
    server: None = None,
    servers: str | list[str] | None = None,
    **options: Any,  # noqa: ANN401 - any option
) -> AbstractAsyncContextManager[Watched[FakeServer]]: ...


@overload
def watched(
    server: S,
    servers: str | list[str] | None = None,
    **options: Any,  # noqa: ANN401 - any option
) -> AbstractAsyncContextManager[Watched[S]]: ...


@asynccontextmanager
async def watched(
    server: Any = None, servers: str | list[str] | None = None, **options: Any
) -> AsyncIterator[Watched[Any]]:
    """Open a world as `open_world` does, with a feed of its events."""
    async with open_world(server, servers, **options) as (made, nc, nursery), open_events(nursery, nc) as rx:
        yield Watched(made, nc, rx)


class Subscribed(NamedTuple):
    """A subscription that the server knows of."""

    server: FakeServer
    nc: Client
    rx: Subscription


@asynccontextmanager
async def subscribed(
    subject: str = "a",
    server: FakeServer | None = None,
    client: dict[str, Any] | None = None,
    waiting: Sequence[bytes] = (),
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[Subscribed]:
    """Open a world in memory with a subscription.

    Args:
        subject: What is subscribed.
        server: The server, if not an ordinary one.
        client: Options of `open_client`.
        waiting: Messages that have come already.
        options: Those of `open_subscription`.
    """
    async with (
        open_world(server or FakeServer(), **(client or {})) as (fake, nc, nursery),
        open_subscription(nursery, nc, subject, **options) as rx,
    ):
        await nc.flush()
        for payload in waiting:
            fake.publish(subject, payload)
        if waiting:
            await nc.flush()
        yield Subscribed(fake, nc, rx)


class BucketWorld(NamedTuple, Generic[B]):
    """A bucket in memory, and a store that is connected to it."""

    bucket: B
    store: ObjectStore
    nc: Client
    nursery: trio.Nursery


@overload
def open_bucket(
    *,
    server: FakeServer | None = None,
    **options: Any,  # noqa: ANN401 - any option
) -> AbstractAsyncContextManager[BucketWorld[FakeObjects]]: ...


@overload
def open_bucket(
    kind: Callable[[FakeServer, str], B],
    *,
    server: FakeServer | None = None,
    **options: Any,  # noqa: ANN401 - any option
) -> AbstractAsyncContextManager[BucketWorld[B]]: ...


@asynccontextmanager
async def open_bucket(
    kind: Callable[[FakeServer, str], Any] = FakeObjects, *, server: FakeServer | None = None, **options: Any
) -> AsyncIterator[BucketWorld[Any]]:
    """Open a world in memory with a bucket "b".

    Args:
        kind: Makes the stream of the bucket, given the server and the bucket's name.
        server: The server, if not an ordinary one.
        options: Those of `open_client`.
    """
    server = server or FakeServer()
    bucket = kind(server, "b")
    async with open_world(server, **options) as (_, nc, nursery):
        yield BucketWorld(bucket, find_store(nc), nc, nursery)


class KeysWorld(NamedTuple):
    """A key-value bucket in memory, and what is connected to it."""

    bucket: FakeKeyValue
    kv: KeyValue
    nc: Client
    nursery: trio.Nursery

    @property
    def server(self) -> FakeServer:
        return self.bucket.server


@asynccontextmanager
async def open_keys(
    *,
    server: FakeServer | None = None,
    client: dict[str, Any] | None = None,
    **options: Any,  # noqa: ANN401 - any of those of the bucket
) -> AsyncIterator[KeysWorld]:
    """Open a world in memory with a key-value bucket "b".

    Args:
        server: The server, if not an ordinary one.
        client: Options of `open_client`.
        options: Those of `FakeKeyValue`.
    """
    server = server or FakeServer()
    bucket = FakeKeyValue(server, "b", **options)
    async with open_world(server, **(client or {})) as (_, nc, nursery):
        yield KeysWorld(bucket, find_keys(nc), nc, nursery)


class ConsumerWorld(NamedTuple):
    """A stream "S" in memory that takes `s.>`, its consumer "C", and a handle on that."""

    stream: FakeStream
    fake: FakeConsumer
    consumer: Consumer
    nc: Client
    nursery: trio.Nursery

    @property
    def server(self) -> FakeServer:
        return self.stream.server

    def store(self, count: int, payload: bytes = b"x") -> None:
        """Store so many messages more."""
        for _ in range(count):
            self.stream.store("s.a", payload, rollup=False)

    def pulls(self) -> list[dict[str, Any]]:
        """What was asked for, one request after the other."""
        return [json.loads(frame.payload) for frame in self.server.sent("PUB", "$JS.API.CONSUMER.MSG.NEXT.S.C")]


@asynccontextmanager
async def open_consumer_world(
    stored: int = 0,
    *,
    server: FakeServer | None = None,
    client: dict[str, Any] | None = None,
    bind: bool = False,
    **config: Any,  # noqa: ANN401 - any field, as the server is told it: nanoseconds
) -> AsyncIterator[ConsumerWorld]:
    """Open a world in memory with a consumer; time passes for it, too.

    Args:
        stored: How many messages of one byte the stream holds.
        server: The server, if not an ordinary one.
        client: Options of `open_client`.
        bind: Whether the handle is made without asking the server.
        config: What the consumer has besides acknowledgements.
    """
    server = server or FakeServer()
    stream = FakeStream(server, "S", "s.>", timed=True)
    fake = stream.add_consumer("C", **{"ack_policy": "explicit", **config})
    async with open_world(server, **(client or {})) as (_, nc, nursery):
        consumer = await nc.jetstream().consumer("S", "C", bind=bind)
        w = ConsumerWorld(stream, fake, consumer, nc, nursery)
        w.store(stored)
        yield w


@asynccontextmanager
async def open_live(
    config: str = "",
    *,
    jetstream: bool = False,
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[World[TrioNatsServer]]:
    """Open a world with a real server of its own; `options` are those of `open_client`."""
    async with open_server(config, jetstream=jetstream) as server, open_world(server, **options) as world:
        yield world


class StoreWorld(NamedTuple):
    """A bucket on a real server."""

    store: ObjectStore
    nc: Client
    nursery: trio.Nursery


@asynccontextmanager
async def open_store(
    server: NatsServer | TrioNatsServer,
    client: dict[str, Any] | None = None,
    **config: Any,  # noqa: ANN401 - any field
) -> AsyncIterator[StoreWorld]:
    """Make a bucket on a real server, of a name that no other has; it is gone afterwards.

    Args:
        server: The server, with JetStream.
        client: Options of `open_client`.
        config: Fields of the bucket's configuration; it is kept in memory unless they say otherwise.
    """
    async with open_world(server, **(client or {})) as (_, nc, nursery):
        js = nc.jetstream()
        store = await js.create_object_store(unique(), **{"storage": api.StorageType.MEMORY, **config})
        yield StoreWorld(store, nc, nursery)
        nursery.cancel_scope.cancel()
        with trio.move_on_after(2, shield=True), suppress(errors.NotFoundError):
            await js.delete_object_store(store.bucket)


class StreamWorld(NamedTuple):
    """A stream on a real server."""

    js: JetStream
    stream: Stream
    nc: Client
    nursery: trio.Nursery

    @property
    def subject(self) -> str:
        """One of the subjects that it takes."""
        return f"{self.stream.name}.a"


@asynccontextmanager
async def open_stream(
    server: NatsServer | TrioNatsServer,
    client: dict[str, Any] | None = None,
    **config: Any,  # noqa: ANN401 - any field
) -> AsyncIterator[StreamWorld]:
    """Make a stream on a real server, of a name that no other has; it is gone afterwards.

    Args:
        server: The server, with JetStream.
        client: Options of `open_client`.
        config: Fields of its configuration; it is kept in memory, and takes what begins with its name, unless they say otherwise.
    """
    async with open_world(server, **(client or {})) as (_, nc, nursery):
        js = nc.jetstream()
        name = config.pop("name", None) or unique("S")
        defaults = {"storage": api.StorageType.MEMORY, "subjects": [f"{name}.>"]}
        stream = await js.create_stream(name=name, **{**defaults, **config})
        yield StreamWorld(js, stream, nc, nursery)
        nursery.cancel_scope.cancel()
        with trio.move_on_after(2, shield=True), suppress(errors.NotFoundError):
            await js.delete_stream(name)


class KeyValueWorld(NamedTuple):
    """A key-value bucket on a real server.

    Attributes:
        js: Where it is.
        kv: The bucket.
        nc: A client of the server.
        nursery: A nursery, for feeds.
    """

    js: JetStream
    kv: KeyValue
    nc: Client
    nursery: trio.Nursery


@asynccontextmanager
async def open_key_value(
    server: NatsServer | TrioNatsServer,
    client: dict[str, Any] | None = None,
    **config: Any,  # noqa: ANN401 - any field
) -> AsyncIterator[KeyValueWorld]:
    """Make a key-value bucket on a real server, of a name that no other has; it is gone afterwards.

    Args:
        server: The server, with JetStream.
        client: Options of `open_client`.
        config: Fields of its configuration; it is kept in memory unless they say otherwise.
    """
    async with open_world(server, **(client or {})) as (_, nc, nursery):
        js = nc.jetstream()
        name = config.pop("bucket", None) or unique("b")
        kv = await js.create_key_value(bucket=name, **{"storage": api.StorageType.MEMORY, **config})
        yield KeyValueWorld(js, kv, nc, nursery)
        nursery.cancel_scope.cancel()
        with trio.move_on_after(2, shield=True), suppress(errors.NotFoundError):
            await js.delete_stream(kv.stream)


_numbers = itertools.count(1)


def unique(prefix: str = "t") -> str:
    """Make a name for a stream, a bucket or a subject that nothing else on the session's server has."""
    return f"{prefix}{next(_numbers)}"


async def refusal(servers: str | list[str] = "nats://fake", **options: Any) -> Exception:  # noqa: ANN401 - any option
    """Open a client that cannot be opened; say why, and see that nothing is left."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(errors.Error) as caught:
            async with open_client(nursery, servers, **options):
                pytest.fail("it was opened")
        assert not nursery.child_tasks
    return caught.value


def assert_nothing_left(nc: Client) -> None:
    """See that a client keeps nothing of what it was asked for."""
    now = nc.statistics()
    assert (now.feeds, now.subscriptions, now.pending_requests) == ((), 0, 0)


# -- waiting -----------------------------------------------------------------------------------------------------------------

#: Wait until all tasks have done what they can do without a step of the clock.
settled = trio.testing.wait_all_tasks_blocked


async def until(
    condition: Callable[[], object | Awaitable[object]], *, within: float = 10, pause: float = 0.001
) -> None:
    """Wait for what nobody tells.

    Args:
        condition: Says whether it has come about; may be a coroutine function.
        within: How many seconds it may take.
        pause: How long to wait before it is looked at again; 0 is without a step of the clock.
    """
    looks = 0
    with trio.fail_after(within):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            looks += 1
            assert pause or looks < MOST_LOOKS, "it does not come about"
            await trio.sleep(pause)


#: For tests of circles through the frames of calls that failed.
forgets_callers = pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="a coroutine's frame that ended knows its caller's from Python 3.12 on (3.12.1, 3.13.0), which makes circles of its own",
)


async def assert_failures_are_let_go(*calls: Callable[[], Awaitable[object]]) -> None:
    """See to it that no exception of a failed call is kept by a circle, until somebody collects garbage."""

    async def fail() -> None:
        for call in calls:
            with suppress(errors.Error):
                await call()

    def living() -> set[int]:
        return {id(each) for each in gc.get_objects() if isinstance(each, errors.Error)}

    # What the first time leaves may be kept for good.
    await fail()
    gc.collect()
    gc.disable()
    try:
        there = living()
        await fail()
        assert living() <= there
    finally:
        gc.enable()


@contextmanager
def takes(least: float, most: float | None = None) -> Iterator[None]:
    """See that what is done in the block takes so many seconds, or from so many to so many."""
    start = trio.current_time()
    yield
    lasted = trio.current_time() - start
    assert least - 1e-5 <= lasted <= (least if most is None else most) + 1e-5, f"it took {lasted:g} s"


async def cut_short(call: Callable[..., Awaitable[object]], *args: object, after: float = 1) -> None:
    """Cancel a call after so many seconds; see that it has not returned before, nor with 0 when it is cancelled already."""
    with trio.move_on_after(after) as scope:
        await call(*args)
    assert scope.cancelled_caught, "it has not waited"


async def hold_back(server: FakeServer, nc: Client, size: int = 0) -> None:
    """Let the server read nothing more: something is in the writer's hands, and so many bytes wait behind it."""
    server.link.stall(up=True)
    await nc.publish("in.hand", bytes(50))
    await settled()
    if size:
        await nc.publish("waits", bytes(size))


async def lose(server: FakeServer, nc: Client, how: Ending = "eof") -> None:
    """Lose the connection, for as long as the server does not accept again."""
    server.accepting = False
    server.cut(how)
    await until(lambda: not nc.is_connected, pause=0)


async def regain(server: FakeServer, nc: Client) -> None:
    """Let the server accept again, and wait for the connection."""
    server.accepting = True
    await nc.wait_connected()
    await nc.flush()


async def reconnected(nc: Client, times: int = 1) -> None:
    """Wait until a client has come back so many times, and the server knows of its subscriptions."""
    await until(lambda: nc.is_connected and nc.statistics().reconnects >= times, within=20)
    await nc.flush()


async def consumers_are(store: ObjectStore, count: int = 0) -> None:
    """Wait until a bucket has so many consumers: nobody waits for the answer when one is deleted."""

    async def are() -> bool:
        return len(await context_of(store).consumers_info(f"OBJ_{store.bucket}")) == count

    await until(are, within=5)


async def events_until(rx: Events, *kinds: type[events.ConnectionEvent]) -> list[events.ConnectionEvent]:
    """Receive events up to the first of some kinds, which is the last in the list."""
    seen: list[events.ConnectionEvent] = []
    while not seen or not isinstance(seen[-1], kinds):
        seen.append(await rx.receive())
    return seen


async def next_event(rx: Events, kind: type[E]) -> E:
    """Receive events up to the first of a kind, and give that."""
    while True:
        event = await rx.receive()
        if isinstance(event, kind):
            return event


@overload
def arrived(feed: Feed[T]) -> list[T]: ...


@overload
def arrived(feed: Feed[T], kind: type[K]) -> list[K]: ...


def arrived(feed: Feed[Any], kind: type[Any] = object) -> list[Any]:
    """Take what a feed has buffered, without waiting; those of a kind."""
    found = []
    with suppress(trio.WouldBlock, trio.EndOfChannel):
        while True:
            found.append(feed.receive_nowait())
    return [item for item in found if isinstance(item, kind)]


# -- consumers ---------------------------------------------------------------------------------------------------------------


async def collect(feed: Feed[T], seen: list[T]) -> None:
    """Receive until the end; what has come is kept when this is cancelled."""
    async for item in feed:
        seen.append(item)  # noqa: PERF401 - kept when this is cancelled


async def consume(rx: Feed[Msg], seen: list[bytes], work: Callable[[Msg], Awaitable[object]] | None = None) -> None:
    """Receive until the end: do the work with each message, then note its payload."""
    async for msg in rx:
        if work is not None:
            await work(msg)
        seen.append(msg.data)


async def payloads(rx: Feed[Msg]) -> list[bytes]:
    """Receive until the end."""
    return [msg.data async for msg in rx]


async def respond(rx: Feed[Msg], reply: Callable[[Msg], bytes] = lambda msg: msg.data) -> None:
    """Answer each request, by default with its own payload."""
    async for msg in rx:
        await msg.respond(reply(msg))


def sequences(messages: list[JetStreamMsg]) -> list[int]:
    """Say where in their stream messages stand."""
    return [msg.metadata.sequence.stream for msg in messages]


def numbers(messages: list[JetStreamMsg]) -> list[int]:
    """Read the numbers that messages consist of."""
    return [int(msg.data) for msg in messages]


async def delivered(nc: Client, consumer: Consumer, count: int = 1) -> list[JetStreamMsg]:
    """Ask a pull consumer for so many messages by hand, and give them as a reader of ours would."""
    connection, receiver = seam(nc), Receiver()
    inbox = nc.new_inbox()
    attachment = connection.attach(inbox, receiver)
    request = b'{"batch":%d,"expires":5000000000}' % count
    await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}", request, reply=inbox)
    await until(lambda: len(receiver.told) == count, pause=0)
    attachment.detach()
    deliverer, now = consumer.__deliverer__(), trio.current_time()
    return [JetStreamMsg(msg, deliverer, deliverer.due(msg.reply, now)) for msg in receiver.told]


async def elsewhere(call: Callable[..., Awaitable[object]], *args: object) -> None:
    """Let another task call something, and wait until it returns."""
    async with trio.open_nursery() as nursery:  # noqa: ASYNC112 - that it is another task is the point
        nursery.start_soon(call, *args)


@asynccontextmanager
async def nursery_elsewhere() -> AsyncIterator[trio.Nursery]:
    """Give a nursery that belongs to another task: the block that uses it stands outside it."""

    async def hold(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await trio.sleep_forever()

    async with trio.open_nursery() as holder:
        nursery = await holder.start(hold)
        try:
            yield nursery
        finally:
            nursery.cancel_scope.cancel()


def run(main: Callable[[], Awaitable[T]], *, seed: object = None, clock: trio.abc.Clock | None = None) -> T:
    """Run something on a clock that jumps, or another one; with a seed, Trio chooses its tasks by that."""
    clock = clock or trio.testing.MockClock(autojump_threshold=0)
    if seed is None:
        return trio.run(main, clock=clock)
    with same_schedule(seed):
        return trio.run(main, clock=clock)


class Turns(trio.abc.Instrument):
    """Counts how often tasks are given their turn: those chosen, or all."""

    def __init__(self, chosen: Callable[[trio.lowlevel.Task], bool] = lambda _: True) -> None:
        self.count = 0
        self._chosen = chosen

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += self._chosen(task)

    def __enter__(self) -> Self:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)


# -- what stands in buckets ----------------------------------------------------------------------------------------------------


def meta_subject(bucket: str, name: str) -> str:
    """The subject of an object's info."""
    return f"$O.{bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def meta_info(bucket: str, name: str, **fields: object) -> bytes:
    """Write the info of an object without chunks, with fields changed."""
    return json.dumps({"name": name, "bucket": bucket, "nuid": "n", "size": 0, "chunks": 0, **fields}).encode()


async def write_infos(store: ObjectStore, *names: str, **fields: object) -> None:
    """Write infos without the objects: what a watcher sees of many puts, in a fraction of their time."""
    connection = store._access.api.connection
    assert isinstance(connection, Connection)
    for name in names[:-1]:
        subject, data = meta_subject(store.bucket, name), meta_info(store.bucket, name, **fields)
        publish_forced(connection, subject, data, headers={"Nats-Rollup": "sub"})
    # The acknowledgement of the last one says that the stream has them all, which a flush does not.
    last = meta_subject(store.bucket, names[-1]), meta_info(store.bucket, names[-1], **fields)
    await context_of(store).publish(*last, headers={"Nats-Rollup": "sub"})


# -- what only builders use -------------------------------------------------------------------------------------------------------


def seam(nc: Client) -> Connection:
    """What a client offers to those who build on it: attachments, listeners, alarms, and what is sent besides."""
    return nc.__messaging__()


def find_store(nc: Client, bucket: str = "b", *, domain: str | None = None) -> ObjectStore:
    """Give a store without asking whether there is one."""
    prefix = f"$JS.{domain}.API" if domain is not None else api.DEFAULT_PREFIX
    return ObjectStore(Api(seam(nc), prefix, domain), Bucket(bucket, bucket))


def find_keys(nc: Client, bucket: str = "b", *, domain: str | None = None) -> KeyValue:
    """Give a key-value bucket without asking whether there is one."""
    prefix = f"$JS.{domain}.API" if domain is not None else api.DEFAULT_PREFIX
    subjects = f"$KV.{bucket}."
    names = KeyValueBucket(bucket, subjects, subjects if domain is None else f"{prefix}.{subjects}")
    return KeyValue(Api(seam(nc), prefix, domain), names)


def context_of(store: ObjectStore) -> JetStream:
    """Give the JetStream context that a store stands on."""
    jetstream = store._access.api
    return JetStream(
        jetstream.connection,
        domain=jetstream.whereabouts.chosen,
        prefix=None if jetstream.whereabouts.chosen else jetstream.prefix,
    )


def cut_into(size: int) -> api.ObjectMeta:
    """Ask for chunks of so many bytes."""
    return api.ObjectMeta(options=api.ObjectMetaOptions(max_chunk_size=size))


async def stored_chunks(store: ObjectStore) -> dict[str, int]:
    """Count the chunks in a bucket, by the nuid of their object."""
    return await stored_chunks_in(context_of(store), store.stream, store.bucket)


async def stored_chunks_in(js: JetStream, stream: str, bucket: str) -> dict[str, int]:
    """Count the chunks of a bucket in any stream that holds them, such as a mirror."""
    info = await js.stream_info(stream, f"$O.{bucket}.C.>")
    return {subject.split(".")[-1]: count for subject, count in (info.state.subjects or {}).items()}


async def assert_only_whole_objects(store: ObjectStore) -> None:
    """See that a bucket has all chunks of its objects, and no others."""
    assert await stored_chunks(store) == {info.nuid: info.chunks for info in await store.list() if info.chunks}


def publish_forced(
    nc: Client | Publishing, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None
) -> None:
    """Queue a message whether there is room or not."""
    connection = nc.__messaging__() if isinstance(nc, Client) else nc
    assert isinstance(connection, Connection)
    connection.engine.outbox.publish(*connection.frames.make(subject, payload, "", headers))
    connection.supervisor.wake()


def put(feed: Feed[T], item: T) -> bool:
    """Buffer an item as a feed's producer does; says whether there was room."""
    return feed._put(item)


def end(feed: Feed[Any], reason: BaseException | None = None) -> None:
    """End a feed as its producer does."""
    feed._end(reason)


def deliver(rx: Subscription, *data: bytes) -> None:
    """Deliver messages to a subscription in the middle of a step, as the client's reader does."""
    for payload in data:
        rx._deliver(Msg(1, rx.subject, "", payload, None))


def has_ended(feed: Feed[Any]) -> bool:
    """Whether a feed's end has come, though something may be buffered."""
    return re.search(r" ended, \d+ buffered>$", repr(feed)) is not None


def buffered(feed: Feed[T]) -> list[T]:
    """What waits in a feed."""
    return list(feed._receive._state.data)


def busy_tasks(feed: Feed[Any]) -> BusyTasks[Any]:
    """What a feed knows of its consumers: those at work, and who is told of it."""
    return feed._busy


def kept(nc: Client) -> tuple[object, ...]:
    """All that a client keeps and counts, to see whether a call has changed anything."""
    engine, listeners = seam(nc).engine, seam(nc)._listeners
    return (nc.statistics(), len(engine.outbox.frames), list(engine.registrations), len(listeners))


def alarms(nc: Client) -> int:
    """How many timers are set."""
    return int(seam(nc).supervisor.timekeeper._timers.next() is not None)


class Listener:
    """Keeps the events that a client tells it of."""

    def __init__(self) -> None:
        self.events: list[events.ConnectionEvent] = []
        self.ends: list[BaseException | None] = []

    def push(self, event: events.ConnectionEvent) -> None:
        self.events.append(event)

    def end(self, reason: BaseException | None) -> None:
        self.ends.append(reason)

    def heard(self, kind: type[E]) -> list[E]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


class Receiver:
    """Receives what comes to an attachment, and notes it: messages, "lost", "restored", and the reason of the end."""

    def __init__(self, on_message: Callable[[Any], object] = lambda _: None) -> None:
        self.told: list[Any] = []
        self._on_message = on_message

    def deliver(self, message: Any, /) -> None:  # noqa: ANN401 - of any connection
        self.told.append(message)
        self._on_message(message)

    def connection_lost(self, reason: Exception) -> None:
        self.told.append("lost")

    def connection_restored(self) -> None:
        self.told.append("restored")

    def ended(self, reason: BaseException | None) -> None:
        self.told.append(reason)
