"""The promise, row by row, for every kind of feed: against a server in memory, and against a real one.

A test takes a `Kind` (how to open the feed, and how to make one item of it) and a place for its consumer:

* `inside`: the consumer is the body of the block;
* `parked`: it is a task in a nursery of its own, waiting in `receive` when the feed ends;
* `workers`: it is such a task, between two receives when the feed ends, with items buffered.

The feed's own nursery is either around the block, or belongs to a task that has nothing to do with it.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import nats.errors
import pytest
import trio

from tests import bridged
from tests.bridged import World, number_of
from tests.fake_jetstream import FakeKeyValue, FakeStream
from tests.fakes import FakeServer
from tests.worlds import find_keys, find_store, has_ended, nursery_elsewhere, settled, until
from trionats import (
    Client,
    open_advisories,
    open_client,
    open_consumer,
    open_endpoint,
    open_partition,
    open_replies,
    open_service,
    open_subscription,
    open_watcher,
)
from trionats._feeds.bounded import BoundedFeed as Bounded
from trionats._feeds.feed import Feed
from trionats.advisories import StreamAction
from trionats.testing import NatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.bridged import Make, Open

    Source: TypeAlias = AsyncIterator[tuple[Make, Open]]
    Kind: TypeAlias = Callable[..., AbstractAsyncContextManager[World]]

ITEMS = 3
PLACES = ["inside", "parked", "busy"]


# -- the kinds of feeds, and the worlds they live in --------------------------------------------------------------------


@asynccontextmanager
async def fake(kind: Callable[..., Any], **options: Any) -> AsyncIterator[World]:  # noqa: ANN401 - open_client's
    """Connect a client to a server in memory."""
    server, options = FakeServer(), {"reconnect_time_wait": 0.001, **options}
    async with trio.open_nursery() as background, open_client(background, dial=server.dial, **options) as nc:

        def refuse() -> None:
            server.accepting = False
            server.cut()

        async with kind(server, nc) as (make, open_):
            yield World(nc, make, open_, lose=refuse, blink=server.cut)
            if nc.is_connected:
                await nc.flush()
    server.check()


@asynccontextmanager
async def live(kind: Callable[..., Any], **options: Any) -> AsyncIterator[World]:  # noqa: ANN401 - open_client's
    """Connect a client to a server of its own."""
    options = {"reconnect_time_wait": 0.01, **options}
    with NatsServer(jetstream=True) as server:
        async with trio.open_nursery() as background, open_client(background, server.url, **options) as nc:
            async with kind(server, nc) as (make, open_):
                yield World(nc, make, open_, server.kill, lambda: background.start_soon(nc.reconnect))


@asynccontextmanager
async def subscription(server: FakeServer | NatsServer, nc: Client) -> Source:
    async def make(number: int) -> None:
        if isinstance(server, FakeServer):
            server.publish("promise.kept", b"%d" % number)
        else:
            await nc.publish("promise.kept", b"%d" % number)

    yield make, lambda nursery, **how: open_subscription(nursery, nc, "promise.*", **how)


@asynccontextmanager
async def fake_watcher(server: FakeServer, nc: Client) -> Source:
    async def make(number: int) -> None:
        meta = {"name": str(number), "bucket": "promise", "nuid": str(number), "size": 0, "chunks": 0}
        stream.store(f"$O.promise.M.{number}", json.dumps(meta).encode())

    stream, store = FakeStream(server, "OBJ_promise", "$O.promise.>"), find_store(nc, "promise")
    yield make, lambda nursery: open_watcher(nursery, store)
    assert not nc.is_connected or not stream.consumers, "a consumer was left on the server"


@asynccontextmanager
async def fake_key_watcher(server: FakeServer, nc: Client) -> Source:
    async def make(number: int) -> None:
        bucket.set(str(number))

    bucket, kv = FakeKeyValue(server, "promise"), find_keys(nc, "promise")
    yield make, lambda nursery: open_watcher(nursery, kv)
    assert not nc.is_connected or not bucket.consumers, "a consumer was left on the server"


@asynccontextmanager
async def live_watcher(_: NatsServer, nc: Client) -> Source:
    store = await nc.jetstream().create_object_store("promise")
    yield lambda number: store.put(str(number), b""), lambda nursery: open_watcher(nursery, store)


@asynccontextmanager
async def fake_ordered(server: FakeServer, nc: Client) -> Source:
    async def make(number: int) -> None:
        stream.store("promise.kept", b"%d" % number, rollup=False)

    stream = FakeStream(server, "P")
    ordered = await nc.jetstream().ordered_consumer("P")
    yield make, lambda nursery: open_consumer(nursery, ordered)
    assert not nc.is_connected or not stream.consumers, "a consumer was left on the server"


@asynccontextmanager
async def live_ordered(_: NatsServer, nc: Client) -> Source:
    js = nc.jetstream()
    await js.create_stream(name="P", subjects=["promise.*"])
    ordered = await js.ordered_consumer("P")
    yield lambda number: nc.publish("promise.kept", b"%d" % number), lambda nursery: open_consumer(nursery, ordered)


@asynccontextmanager
async def fake_replies(server: FakeServer, nc: Client) -> Source:
    async def make(number: int) -> None:
        server.publish(server.sent("PUB", "promise.ask")[-1].reply, b"%d" % number)

    server.on("promise.ask", lambda _: None)
    yield make, lambda nursery: open_replies(nursery, nc, "promise.ask")


@asynccontextmanager
async def live_replies(server: NatsServer, nc: Client) -> Source:
    async with (
        trio.open_nursery() as background,
        open_client(background, server.url) as service,
        open_subscription(background, service, "promise.ask") as asked,
    ):
        await service.flush()
        inboxes: list[str] = []

        async def make(number: int) -> None:
            while len(asked) or not inboxes:
                inboxes.append((await asked.receive()).reply)
            await service.publish(inboxes[-1], b"%d" % number)

        yield make, lambda nursery: open_replies(nursery, nc, "promise.ask")


@asynccontextmanager
async def fake_consumer(server: FakeServer, nc: Client) -> Source:
    async def make(number: int) -> None:
        stream.store("promise.kept", b"%d" % number, rollup=False)

    stream = FakeStream(server, "PROMISE", "promise.*")
    stream.add_consumer("C", ack_policy="explicit", max_ack_pending=-1)
    consumer = await nc.jetstream().consumer("PROMISE", "C")
    yield make, lambda nursery: open_consumer(nursery, consumer)


@asynccontextmanager
async def live_consumer(_: NatsServer, nc: Client) -> Source:
    js = nc.jetstream()
    await js.create_stream(name="PROMISE", subjects=["promise.*"])
    consumer = await js.create_consumer("PROMISE", durable_name="C", max_ack_pending=-1)
    yield lambda number: js.publish("promise.kept", b"%d" % number), lambda nursery: open_consumer(nursery, consumer)


@asynccontextmanager
async def fake_push(server: FakeServer, nc: Client) -> Source:
    async def make(number: int) -> None:
        await nc.flush()  # nothing is delivered to nobody
        stream.store("promise.kept", b"%d" % number, rollup=False)

    stream = FakeStream(server, "PROMISE", "promise.*")
    stream.add_consumer("P", ack_policy="explicit", max_ack_pending=-1, deliver_subject="to.us")
    consumer = await nc.jetstream().consumer("PROMISE", "P")
    yield make, lambda nursery: open_consumer(nursery, consumer)


@asynccontextmanager
async def live_push(_: NatsServer, nc: Client) -> Source:
    js = nc.jetstream()
    await js.create_stream(name="PROMISE", subjects=["promise.*"])
    config: dict[str, Any] = {"ack_policy": "explicit", "max_ack_pending": -1, "deliver_subject": "to.us"}
    await js.add_consumer("PROMISE", durable_name="P", **config)
    consumer = await js.consumer("PROMISE", "P")
    yield lambda number: js.publish("promise.kept", b"%d" % number), lambda nursery: open_consumer(nursery, consumer)


@asynccontextmanager
async def endpoint(server: FakeServer | NatsServer, nc: Client) -> Source:
    async def make(number: int) -> None:
        if isinstance(server, FakeServer):
            await nc.flush()  # what it has not heard of yet it cannot know
            server.publish("promise.kept", b"%d" % number)
        else:
            await nc.publish("promise.kept", b"%d" % number)

    async with trio.open_nursery() as background, open_service(background, nc, "promise", "1.0.0") as service:
        yield make, lambda nursery: open_endpoint(nursery, service, "kept", subject="promise.*")


def stream_made(number: int) -> tuple[str, bytes]:
    said = {"type": "io.nats.jetstream.advisory.v1.stream_action", "stream": str(number), "action": "create"}
    return f"$JS.EVENT.ADVISORY.STREAM.CREATED.{number}", json.dumps(said).encode()


@asynccontextmanager
async def fake_advisories(server: FakeServer, nc: Client) -> Source:
    async def make(number: int) -> None:
        server.publish(*stream_made(number))

    yield make, lambda nursery: open_advisories(nursery, nc.jetstream(), StreamAction)


@asynccontextmanager
async def live_advisories(_: NatsServer, nc: Client) -> Source:
    # A server tells of what it did in any order.
    yield (
        lambda number: nc.publish(*stream_made(number)),
        lambda nursery: open_advisories(nursery, nc.jetstream(), StreamAction),
    )


#: A member whose consumer somebody else has created: it gives more than one message at a time.
MEMBER: dict[str, Any] = {
    "ack_policy": "explicit",
    "max_ack_pending": -1,
    "filter_subjects": ["0.>"],
    "priority_groups": ["PCG"],
    "priority_policy": "pinned_client",
}


@asynccontextmanager
async def fake_partition(server: FakeServer, nc: Client) -> Source:
    async def make(number: int) -> None:
        stream.store("0.promise.kept", b"%d" % number, rollup=False)

    stream, groups = FakeStream(server, "PROMISE", "0.promise.*"), FakeKeyValue(server, "static-consumer-groups")
    groups.set("PROMISE.g", b'{"max_members": 1, "members": ["m"]}')
    stream.add_consumer("g-m", **MEMBER)
    js = nc.jetstream()
    yield make, lambda nursery: open_partition(nursery, js, "PROMISE", "g", "m")
    assert not nc.is_connected or not groups.consumers, "a consumer was left on the server"


@asynccontextmanager
async def live_partition(_: NatsServer, nc: Client) -> Source:
    js = nc.jetstream()
    await js.create_stream(name="PROMISE", subjects=["0.promise.*"])
    await js.create_group("PROMISE", "g", 1, members="m")
    await js.create_consumer("PROMISE", durable_name="g-m", **MEMBER)
    yield (
        lambda number: js.publish("0.promise.kept", b"%d" % number),
        lambda nursery: open_partition(nursery, js, "PROMISE", "g", "m"),
    )


def has_come_back(nc: Client, reconnects: int) -> bool:
    return nc.is_connected and nc.statistics().reconnects > reconnects


WAITING = {"request_timeout": 60}
FAKES = {
    "subscription": partial(fake, subscription),
    "watcher": partial(fake, fake_watcher),
    "key watcher": partial(fake, fake_key_watcher),
    "pull consumer": partial(fake, fake_consumer),
    "member's pull consumer": partial(fake, fake_partition),
    "push consumer": partial(fake, fake_push),
    "ordered consumer": partial(fake, fake_ordered),
    "endpoint": partial(fake, endpoint),
    "replies": partial(fake, fake_replies, **WAITING),
    "advisories": partial(fake, fake_advisories),
}
LIVE = {
    "subscription": partial(live, subscription),
    "watcher": partial(live, live_watcher),
    "pull consumer": partial(live, live_consumer),
    "member's pull consumer": partial(live, live_partition),
    "push consumer": partial(live, live_push),
    "ordered consumer": partial(live, live_ordered),
    "endpoint": partial(live, endpoint),
    "replies": partial(live, live_replies, **WAITING),
    "advisories": partial(live, live_advisories),
    **bridged.KINDS,
}
ALL_KINDS = [
    *(pytest.param(world, id=f"fake {name}") for name, world in FAKES.items()),
    *(pytest.param(world, id=f"live {name}", marks=pytest.mark.live(seconds=30)) for name, world in LIVE.items()),
]


def kinds(*names: str) -> list[Any]:
    """Give those kinds, by the ends of their names: in memory, live, and of the bridge."""
    return [kind for kind in ALL_KINDS if str(kind.id).endswith(names)]


every_kind = pytest.mark.parametrize("kind", ALL_KINDS)
# Replies lose something with their connection, and say so instead of going on; a drain waits for them, within their time:
# see tests/floor/test_replies.py and tests/floor/test_drain.py.
surviving_kinds = pytest.mark.parametrize(
    "kind",
    kinds("subscription", "watcher", "pull consumer", "push consumer", "ordered consumer", "endpoint", "advisories"),
)
# What is buffered of a consumer is given back when the client is closed: nobody could acknowledge it any more. Nor could anybody
# respond to a request, and who waits for that is told.
CONSUMERS = "pull consumer", "push consumer", "endpoint"
consumer_kinds = pytest.mark.parametrize("kind", kinds(*CONSUMERS))
other_kinds = pytest.mark.parametrize("kind", [kind for kind in ALL_KINDS if kind not in kinds(*CONSUMERS)])
dropping_kinds = pytest.mark.parametrize("kind", [kind for kind in kinds("subscription") if "pull" not in str(kind.id)])
holding_back_kinds = pytest.mark.parametrize(
    "kind", kinds("watcher", "pull consumer", "ordered consumer", "pull subscription")
)
every_place = pytest.mark.parametrize("place", PLACES)
block = pytest.mark.parametrize("outside", [False, True], ids=["inside its nursery", "outside its nursery"])


@pytest.fixture(autouse=True)
def _needs_a_server(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("live"):
        request.getfixturevalue("server_executable")


# -- consumers -----------------------------------------------------------------------------------------------------------


@dataclass
class Consumer:
    """Receives, and tells what it saw."""

    seen: list[int] = field(default_factory=list)
    outcome: str | BaseException = ""
    holding: trio.Event = field(default_factory=trio.Event)
    go: trio.Event = field(default_factory=trio.Event)

    async def consume(self, rx: Feed[Any], *, pause: bool = False) -> None:
        """Receive until the end; with `pause`, stand still behind the first item until `go` is set."""
        try:
            async for item in rx:
                self.seen.append(number_of(item))
                if pause and len(self.seen) == 1:
                    self.holding.set()
                    await self.go.wait()
            self.outcome = "ended"
        except (nats.errors.Error, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.outcome = error
        except trio.Cancelled:
            self.outcome = "cancelled"
            raise

    def expect(self, seen: int, outcome: str | type[BaseException]) -> None:
        """Assert what was seen, and how it ended."""
        assert self.seen == list(range(1, seen + 1))
        if isinstance(outcome, str):
            assert self.outcome == outcome
        else:
            assert isinstance(self.outcome, outcome), repr(self.outcome)


@asynccontextmanager
async def open_feed(
    world: World, place: str, *, outside: bool
) -> AsyncIterator[tuple[Feed[Any], Consumer, trio.Nursery]]:
    """Open the feed with its consumer in its place; three items are buffered, or (parked) have been received."""
    consumer = Consumer()
    async with AsyncExitStack() as stack:
        elsewhere = await stack.enter_async_context(trio.open_nursery())
        nursery = await stack.enter_async_context(nursery_elsewhere() if outside else trio.open_nursery())
        rx = await stack.enter_async_context(world.opened(nursery))
        if place == "parked":
            elsewhere.start_soon(consumer.consume, rx)
            await settled()
            for number in range(1, ITEMS + 1):
                await world.make(number)
            await until(lambda: len(consumer.seen) == ITEMS)
            await settled()
        else:
            await world.fill(rx)
            if place == "busy":
                elsewhere.start_soon(lambda: consumer.consume(rx, pause=True))
                await consumer.holding.wait()
        try:
            yield rx, consumer, nursery
        finally:
            # No checkpoint until the block is left: a workers consumer goes on only then.
            consumer.go.set()


async def finish(rx: Feed[Any], consumer: Consumer, place: str) -> None:
    """Let the consumer see the end of the feed, from inside the block."""
    consumer.go.set()
    if place == "inside":
        await consumer.consume(rx)
    await until(lambda: bool(consumer.outcome))


# -- the rows ------------------------------------------------------------------------------------------------------------


@every_kind
@every_place
@block
async def test_stop_gives_what_is_buffered_and_ends(kind: Kind, place: str, outside: bool) -> None:
    async with kind() as world, open_feed(world, place, outside=outside) as (rx, consumer, _):
        rx.stop()
        rx.stop()
        await finish(rx, consumer, place)
        consumer.expect(ITEMS, "ended")
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()


@every_kind
async def test_stop_from_inside_the_loop_cuts_off_what_comes_later(kind: Kind) -> None:
    async with kind() as world, open_feed(world, "inside", outside=False) as (rx, _, _):
        seen = []
        async for item in rx:
            seen.append(number_of(item))
            rx.stop()
            if len(seen) == 1:
                await world.make(4)
                await world.nc.flush()
        assert seen == [1, 2, 3]


@every_kind
@pytest.mark.parametrize("place", ["parked", "busy"])
@block
async def test_leaving_the_block_ends_it_for_all(kind: Kind, place: str, outside: bool) -> None:
    async with kind() as world:
        await world.nc.flush()
        before = tasks()
        async with open_feed(world, place, outside=outside) as (rx, consumer, nursery):
            pass
        consumer.expect(*((ITEMS, "ended") if place == "parked" else (1, trio.ClosedResourceError)))
        assert not nursery.child_tasks
        assert tasks() == before
        says = f"{re.escape(rx.name)}: its block was left"
        with pytest.raises(trio.ClosedResourceError, match=says):
            await rx.receive()
        with pytest.raises(trio.ClosedResourceError, match=says):
            rx.receive_nowait()
        rx.stop()


@every_kind
@block
async def test_the_bodys_exception_is_not_replaced(kind: Kind, outside: bool) -> None:
    async with kind() as world, AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(nursery_elsewhere() if outside else trio.open_nursery())
        with pytest.raises(LookupError, match=r"^mine$"):  # noqa: PT012 - the block is what raises
            async with world.opened(nursery) as rx:
                await world.fill(rx)
                raise LookupError("mine")
        with trio.CancelScope() as scope, pytest.raises(LookupError, match=r"^mine$"):  # noqa: PT012 - the block is what raises
            async with world.opened(nursery):
                scope.cancel()
                raise LookupError("mine")
        assert not scope.cancelled_caught


@every_kind
async def test_a_deadline_round_the_loop_leaves_the_feed_usable(kind: Kind) -> None:
    async with kind() as world, open_feed(world, "inside", outside=False) as (rx, _, _):
        seen: list[int] = []
        with trio.CancelScope() as scope:
            async for item in rx:
                seen.append(number_of(item))
                if len(seen) == 3:
                    scope.deadline = trio.current_time() + 0.05
        assert seen == [1, 2, 3]
        await world.make(4)
        assert number_of(await rx.receive()) == 4


@every_kind
@every_place
async def test_cancelling_the_nursery_ends_it_for_a_block_outside(kind: Kind, place: str) -> None:
    async with kind() as world, open_feed(world, place, outside=True) as (rx, consumer, nursery):
        nursery.cancel_scope.cancel()
        await until(lambda: not nursery.child_tasks)
        await finish(rx, consumer, place)
        consumer.expect(ITEMS, "ended")


@every_kind
@pytest.mark.parametrize("place", ["parked", "busy"])
async def test_cancelling_the_nursery_cancels_a_block_inside(kind: Kind, place: str) -> None:
    async with kind() as world:
        body = []
        async with open_feed(world, place, outside=False) as (_, consumer, nursery):
            nursery.cancel_scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                body.append("cancelled")
                raise
        assert body == ["cancelled"]
        # The way out of `open_feed` lets a workers consumer go on only once the block has been left.
        consumer.expect(*((ITEMS, "ended") if place == "parked" else (1, trio.ClosedResourceError)))


@other_kinds
@every_place
@block
async def test_closing_the_client_ends_it(kind: Kind, place: str, outside: bool) -> None:
    async with kind() as world, open_feed(world, place, outside=outside) as (rx, consumer, _):
        await world.nc.aclose()
        await finish(rx, consumer, place)
        consumer.expect(ITEMS, "ended")
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()


@consumer_kinds
@every_place
@block
async def test_closing_the_client_ends_a_consumer_with_what_is_in_hand(kind: Kind, place: str, outside: bool) -> None:
    async with kind() as world, open_feed(world, place, outside=outside) as (rx, consumer, _):
        await world.nc.aclose()
        await finish(rx, consumer, place)
        consumer.expect({"inside": 0, "busy": 1, "parked": ITEMS}[place], "ended")
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()


@surviving_kinds
@every_place
@block
async def test_draining_the_client_ends_it(kind: Kind, place: str, outside: bool) -> None:
    async with kind() as world, open_feed(world, place, outside=outside) as (rx, consumer, _):
        async with trio.open_nursery() as draining:
            draining.start_soon(world.nc.drain)
            await finish(rx, consumer, place)
        consumer.expect(ITEMS, "ended")
        assert world.nc.is_closed


@every_kind
@every_place
@block
async def test_losing_the_connection_for_good_raises_why(kind: Kind, place: str, outside: bool) -> None:
    async with kind(allow_reconnect=False) as world, open_feed(world, place, outside=outside) as (rx, consumer, _):
        world.lose()
        await finish(rx, consumer, place)
        consumer.expect(ITEMS, nats.errors.Error)
        assert "127.0.0.1" in str(consumer.outcome), "the exception names the server"
        with pytest.raises(nats.errors.Error):
            rx.receive_nowait()


@surviving_kinds
async def test_a_connection_that_comes_back_is_not_seen(kind: Kind) -> None:
    async with kind() as world, open_feed(world, "inside", outside=False) as (rx, _, _):
        assert world.blink is not None
        for again in range(5):
            reconnects = world.nc.statistics().reconnects
            world.blink()
            await until(partial(has_come_back, world.nc, reconnects))
            await world.nc.flush()
            await world.fill(rx, ITEMS + again + 1, ITEMS + again + 1)
        assert [number_of(await rx.receive()) for _ in range(ITEMS + 5)] == list(range(1, ITEMS + 6))
        with pytest.raises(trio.WouldBlock):
            rx.receive_nowait()


@every_kind
@every_place
@block
async def test_a_bug_never_looks_like_an_end(
    kind: Kind, place: str, outside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By feed: a kind may have one of its own behind the one that is looked at.
    bugs: dict[Feed[Any], trio.CancelScope] = {}
    run: Callable[..., Awaitable[None]] = vars(Feed)["_run"]

    def run_until_bug(feed: Feed[Any], produce: Callable[[], Awaitable[None]]) -> Awaitable[None]:
        async def crash() -> None:
            with bugs.setdefault(feed, trio.CancelScope()):
                await produce()
            raise ZeroDivisionError("planted")

        return run(feed, crash)

    consumer = Consumer()

    async def trigger() -> None:
        await until(lambda: len(consumer.seen) == (1 if place == "busy" else ITEMS))
        bugs[rx].cancel()
        await until(lambda: has_ended(rx))
        consumer.go.set()
        await until(lambda: bool(consumer.outcome))

    with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError, match="planted"), flatten_subgroups=True):
        async with kind() as world, trio.open_nursery() as elsewhere, AsyncExitStack() as stack:
            # From here on: a kind may have feeds of its own.
            monkeypatch.setattr(Feed, "_run", run_until_bug)
            nursery = await stack.enter_async_context(nursery_elsewhere() if outside else trio.open_nursery())
            rx = await stack.enter_async_context(world.opened(nursery))
            await world.fill(rx)
            elsewhere.start_soon(trigger)
            if place == "inside":
                await consumer.consume(rx)
            else:
                elsewhere.start_soon(lambda: consumer.consume(rx, pause=place == "busy"))
                with trio.CancelScope(shield=True):
                    await until(lambda: bool(consumer.outcome))
    consumer.expect(ITEMS, trio.BrokenResourceError)
    assert isinstance(consumer.outcome, BaseException)
    assert isinstance(consumer.outcome.__cause__, ZeroDivisionError)


@dropping_kinds
@pytest.mark.parametrize(("overflow", "first"), [("fail", 1), ("drop_new", 1), ("drop_old", 10 - ITEMS)])
async def test_a_slow_subscriber_fails_or_drops_and_counts(kind: Kind, overflow: str, first: int) -> None:
    async with kind() as world, trio.open_nursery() as nursery:
        async with world.open(nursery, pending_msgs_limit=ITEMS, overflow=overflow) as rx:
            await world.nc.flush()
            for number in range(1, 10):
                await world.make(number)
            assert isinstance(rx, Bounded)
            await until(lambda: has_ended(rx) if overflow == "fail" else rx.statistics().delivered == 9)
            assert rx.statistics().dropped == (1 if overflow == "fail" else 9 - ITEMS)
            assert [number_of(await rx.receive()) for _ in range(ITEMS)] == list(range(first, first + ITEMS))
            with pytest.raises(nats.errors.SlowConsumerError if overflow == "fail" else trio.WouldBlock) as caught:
                rx.receive_nowait()
            assert overflow != "fail" or "promise.*" in str(caught.value)


@holding_back_kinds
async def test_a_slow_watcher_loses_nothing(kind: Kind) -> None:
    count = 1200
    async with kind() as world, trio.open_nursery() as nursery, world.opened(nursery) as rx:
        for number in range(1, count + 1):
            await world.make(number)
        await settled()
        assert len(rx) < count, "nothing is held back from it"
        assert [number_of(await rx.receive()) for _ in range(count)] == list(range(1, count + 1))


@every_kind
async def test_a_cancelled_receive_loses_nothing(kind: Kind) -> None:
    """And the feed has a task in its nursery, for as long as its block lasts."""
    async with kind() as world, trio.open_nursery() as nursery:
        async with world.opened(nursery) as rx:
            assert nursery.child_tasks
            seen: list[int] = []
            with trio.fail_after(10):
                for number in range(1, 51):
                    await world.make(number)
                    with trio.move_on_after(0 if number % 2 else 0.0005):
                        seen.append(number_of(await rx.receive()))
                while len(seen) < 50:
                    seen.append(number_of(await rx.receive()))
            assert seen == list(range(1, 51))
        assert not nursery.child_tasks


@every_kind
async def test_misuse_is_a_clear_error_and_leaves_nothing(kind: Kind) -> None:
    async with kind() as world:
        async with trio.open_nursery() as nursery:
            pass
        await world.nc.flush()
        before = tasks(), world.nc.statistics().feeds
        with pytest.raises(TypeError, match="'async with'"), world.open(nursery):  # type: ignore[attr-defined]
            pass
        with pytest.raises(TypeError, match="'async with'"):
            await world.open(nursery)  # type: ignore[misc]
        with pytest.raises(RuntimeError, match=r"nursery .* is closed"):
            await world.open(nursery).__aenter__()
        with pytest.raises(TypeError, match=r"must be a trio\.Nursery, not int"):
            await world.open(42).__aenter__()
        assert (tasks(), world.nc.statistics().feeds) == before
        await world.nc.flush()


@every_kind
async def test_a_nursery_of_another_run_is_refused(kind: Kind) -> None:
    async def other_run() -> None:
        async with trio.open_nursery() as theirs:
            foreign.append(theirs)
            there.set()
            await trio.to_thread.run_sync(back.wait)

    foreign: list[trio.Nursery] = []
    there, back = threading.Event(), threading.Event()
    async with kind() as world, trio.open_nursery() as threads:
        threads.start_soon(trio.to_thread.run_sync, trio.run, other_run)
        await trio.to_thread.run_sync(there.wait)
        try:
            with pytest.raises(RuntimeError, match="another Trio run"):
                await world.open(foreign[0]).__aenter__()
        finally:
            back.set()


@every_kind
@every_place
@pytest.mark.skipif(sys.platform == "win32", reason="raise_signal is not Ctrl-C there")
def test_ctrl_c_in_the_middle(kind: Kind, place: str) -> None:
    left: list[Any] = []

    async def main() -> None:
        async with kind() as world, open_feed(world, place, outside=False) as (rx, _, _):
            left.append((world, rx))
            await world.nc.flush()
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        trio.run(main)
    world, _ = left[0]
    assert world.nc.is_closed
    assert world.nc.statistics().feeds == ()


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
