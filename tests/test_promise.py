"""The promise, row by row, for every kind of feed: against a server in memory, and against a real one.

A test takes a `Kind` (how to open the feed, and how to make one item of it) and a place for its consumer:

* `inside`: the consumer is the body of the block;
* `parked`: it is a task in a nursery of its own, waiting in `receive` when the feed ends;
* `busy`: it is such a task, between two receives when the feed ends, with items buffered.

The feed's own nursery is either around the block, or belongs to a task that has nothing to do with it.
"""

from __future__ import annotations

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
import trio.testing

import trionats
from tests import bridged
from tests.fake_jetstream import FakeObjects
from tests.worlds import (
    find_store,
    has_ended,
    nursery_elsewhere,
    open_live,
    open_world,
    reconnected,
    settled,
    until,
)
from trionats._feeds.feed import Feed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.fakes import FakeServer
    from trionats.testing import TrioNatsServer

ITEMS = 3
PLACES = ["inside", "parked", "busy"]


# -- the kinds of feeds, and the worlds they live in --------------------------------------------------------------------

Make: TypeAlias = "Callable[[int], Awaitable[object]]"
Open: TypeAlias = "Callable[..., AbstractAsyncContextManager[Feed[Any]]]"


@dataclass
class World:
    """A client, and what it is connected to."""

    nc: trionats.Client
    make: Make
    open: Open
    """Takes the nursery, and for subscriptions their options."""
    lose: Callable[[], None]
    """Lose the server; the client was told not to reconnect."""
    blink: Callable[[], None]
    """Lose the connection, with the server in its place."""

    @asynccontextmanager
    async def opened(self, nursery: trio.Nursery) -> AsyncIterator[Feed[Any]]:
        """Open the feed, and see to it that the server knows."""
        async with self.open(nursery) as rx:
            await self.nc.flush()
            yield rx

    async def fill(self, feed: Feed[Any], first: int = 1, last: int = ITEMS) -> None:
        """Make items, and wait until the feed has them buffered."""
        before = len(feed)
        for number in range(first, last + 1):
            await self.make(number)
        await until(lambda: len(feed) >= before + last - first + 1)


def number_of(item: trionats.Msg | trionats.api.ObjectInfo) -> int:
    return int(item.data) if isinstance(item, trionats.Msg) else bridged.number_of(item)


def opens_subscription(nc: trionats.Client) -> Open:
    return lambda nursery, **how: trionats.open_subscription(nursery, nc, "promise.*", **how)


async def fake_subscription(server: FakeServer, nc: trionats.Client) -> tuple[Make, Open]:
    async def make(number: int) -> None:
        server.publish("promise.kept", b"%d" % number)

    return make, opens_subscription(nc)


async def fake_watcher(server: FakeServer, nc: trionats.Client) -> tuple[Make, Open]:
    bucket = FakeObjects(server, "promise")

    async def make(number: int) -> None:
        bucket.add(str(number))

    return make, lambda nursery: trionats.open_watcher(nursery, find_store(nc, "promise"))


async def fake_replies(server: FakeServer, nc: trionats.Client) -> tuple[Make, Open]:
    server.on("promise.ask", lambda _: None)

    async def make(number: int) -> None:
        server.publish(server.sent("PUB", "promise.ask")[-1].reply, b"%d" % number)

    return make, lambda nursery: trionats.open_replies(nursery, nc, "promise.ask")


@asynccontextmanager
async def in_memory(
    kind: Callable[[FakeServer, trionats.Client], Awaitable[tuple[Make, Open]]],
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[World]:
    options = {"reconnect_time_wait": 0.001, "request_timeout": 60, **options}

    def refuse() -> None:
        server.accepting = False
        server.cut()

    async with open_world(**options) as (server, nc, _):
        yield World(nc, *await kind(server, nc), lose=refuse, blink=server.cut)
        if nc.is_connected:
            await nc.flush()
            made, deleted = (server.sent("PUB", f"$JS.API.CONSUMER.{what}.>") for what in ("CREATE", "DELETE"))
            assert len(made) == len(deleted), "a consumer was left on the server"


async def live_subscription(server: TrioNatsServer, nc: trionats.Client, _: trio.Nursery) -> tuple[Make, Open]:
    return lambda number: nc.publish("promise.kept", b"%d" % number), opens_subscription(nc)


async def live_watcher(server: TrioNatsServer, nc: trionats.Client, _: trio.Nursery) -> tuple[Make, Open]:
    store = await nc.jetstream().create_object_store("promise")
    return lambda number: store.put(str(number), b""), lambda nursery: trionats.open_watcher(nursery, store)


async def live_replies(server: TrioNatsServer, nc: trionats.Client, nursery: trio.Nursery) -> tuple[Make, Open]:
    async def serve(*, task_status: trio.TaskStatus[trionats.Subscription]) -> None:
        async with (
            open_world(server) as (_, service, own),
            trionats.open_subscription(own, service, "promise.ask") as asked,
        ):
            await service.flush()
            task_status.started(asked)
            services.append(service)
            await trio.sleep_forever()

    async def make(number: int) -> None:
        while len(asked) or not inboxes:
            inboxes.append((await asked.receive()).reply)
        await services[0].publish(inboxes[-1], b"%d" % number)

    inboxes: list[str] = []
    services: list[trionats.Client] = []
    asked = await nursery.start(serve)
    return make, lambda within: trionats.open_replies(within, nc, "promise.ask")


@asynccontextmanager
async def live(
    kind: Callable[[TrioNatsServer, trionats.Client, trio.Nursery], Awaitable[tuple[Make, Open]]],
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[World]:
    options = {"reconnect_time_wait": 0.01, "request_timeout": 60, **options}
    async with open_live(jetstream=True, **options) as (server, nc, nursery):
        made = await kind(server, nc, nursery)
        yield World(nc, *made, lose=server.server.kill, blink=lambda: nursery.start_soon(nc.reconnect))
        nursery.cancel_scope.cancel()


Kind: TypeAlias = "Callable[..., AbstractAsyncContextManager[World]]"
FAKES = {"subscription": fake_subscription, "watcher": fake_watcher, "replies": fake_replies}
LIVE: dict[str, Any] = {
    "subscription": partial(live, live_subscription),
    "watcher": partial(live, live_watcher),
    "replies": partial(live, live_replies),
    **bridged.KINDS,
}
ALL_KINDS = [
    *(pytest.param(partial(in_memory, kind), id=f"fake {name}") for name, kind in FAKES.items()),
    *(pytest.param(kind, id=f"live {name}", marks=pytest.mark.live(seconds=30)) for name, kind in LIVE.items()),
]


def kinds(*names: str) -> list[Any]:
    """Give those kinds, by the ends of their names: in memory, live, and of the bridge."""
    return [kind for kind in ALL_KINDS if str(kind.id).endswith(names)]


every_kind = pytest.mark.parametrize("kind", ALL_KINDS)
# Replies lose something with their connection, and say so instead of going on; a drain waits for them, within their time:
# see tests/floor/test_replies.py and tests/floor/test_drain.py.
surviving_kinds = pytest.mark.parametrize("kind", kinds("subscription", "watcher"))
dropping_kinds = pytest.mark.parametrize("kind", [kind for kind in kinds("subscription") if "pull" not in str(kind.id)])
holding_back_kinds = pytest.mark.parametrize("kind", kinds("watcher", "pull subscription"))
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
            # No checkpoint until the block is left: a busy consumer goes on only then.
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
async def test_stop_from_inside_the_loop(kind: Kind) -> None:
    seen = []
    async with kind() as world, open_feed(world, "inside", outside=False) as (rx, _, _):
        async for item in rx:
            seen.append(number_of(item))
            rx.stop()
    assert seen == [1, 2, 3]


@every_kind
async def test_stop_cuts_off_what_comes_later(kind: Kind) -> None:
    async with kind() as world, open_feed(world, "inside", outside=False) as (rx, consumer, _):
        rx.stop()
        await world.make(4)
        await world.nc.flush()
        await finish(rx, consumer, "inside")
        consumer.expect(ITEMS, "ended")


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
        with pytest.raises(trio.ClosedResourceError, match=f"{re.escape(rx.name)}: its block was left"):
            await rx.receive()
        with pytest.raises(trio.ClosedResourceError, match=f"{re.escape(rx.name)}: its block was left"):
            rx.receive_nowait()
        rx.stop()


@every_kind
async def test_the_task_is_gone_when_the_block_is(kind: Kind) -> None:
    async with kind() as world, trio.open_nursery() as nursery:
        async with world.opened(nursery):
            assert nursery.child_tasks
        assert not nursery.child_tasks


@every_kind
@block
async def test_the_bodys_exception_is_not_replaced(kind: Kind, outside: bool) -> None:
    async with kind() as world, AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(nursery_elsewhere() if outside else trio.open_nursery())
        with pytest.raises(LookupError, match=r"^mine$"):  # noqa: PT012 - the block is what raises
            async with world.opened(nursery) as rx:
                await world.fill(rx)
                raise LookupError("mine")


@every_kind
async def test_the_bodys_exception_survives_cancellation(kind: Kind) -> None:
    async with kind() as world, nursery_elsewhere() as nursery:
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
        # The way out of `open_feed` lets a busy consumer go on only once the block has been left.
        consumer.expect(*((ITEMS, "ended") if place == "parked" else (1, trio.ClosedResourceError)))


@every_kind
@every_place
@block
async def test_closing_the_client_ends_it(kind: Kind, place: str, outside: bool) -> None:
    async with kind() as world, open_feed(world, place, outside=outside) as (rx, consumer, _):
        await world.nc.aclose()
        await finish(rx, consumer, place)
        consumer.expect(ITEMS, "ended")


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
    async with (
        kind(allow_reconnect=False) as world,
        open_feed(world, place, outside=outside) as (rx, consumer, _),
    ):
        world.lose()
        await finish(rx, consumer, place)
        consumer.expect(ITEMS, nats.errors.Error)
        assert "127.0.0.1" in str(consumer.outcome), "the exception names the server"
        with pytest.raises(nats.errors.Error):
            rx.receive_nowait()


@surviving_kinds
async def test_a_connection_that_comes_back_is_not_seen(kind: Kind) -> None:
    async with kind() as world, open_feed(world, "inside", outside=False) as (rx, _, _):
        for again in range(5):
            reconnects = world.nc.statistics().reconnects
            world.blink()
            await reconnected(world.nc, reconnects + 1)
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
    bug = trio.CancelScope()
    run: Callable[..., Awaitable[None]] = vars(Feed)["_run"]

    def run_until_bug(feed: Feed[Any], produce: Callable[[], Awaitable[None]]) -> Awaitable[None]:
        async def crash() -> None:
            with bug:
                await produce()
            raise ZeroDivisionError("planted")

        return run(feed, crash)

    consumer = Consumer()

    async def trigger() -> None:
        await until(lambda: len(consumer.seen) == (1 if place == "busy" else ITEMS))
        bug.cancel()
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
async def test_a_slow_subscriber_fails_after_what_is_buffered(kind: Kind) -> None:
    consumer = Consumer()
    async with kind() as world, trio.open_nursery() as nursery:
        async with world.open(nursery, pending_msgs_limit=ITEMS) as rx:
            await world.nc.flush()
            for number in range(1, 10):
                await world.make(number)
            await until(lambda: has_ended(rx))
            await consumer.consume(rx)
        consumer.expect(ITEMS, nats.errors.SlowConsumerError)
        assert "promise.*" in str(consumer.outcome)


@dropping_kinds
@pytest.mark.parametrize("overflow", ["drop_new", "drop_old"])
async def test_a_slow_subscriber_drops_and_counts(kind: Kind, overflow: str) -> None:
    async with kind() as world, trio.open_nursery() as nursery:
        async with world.open(nursery, pending_msgs_limit=ITEMS, overflow=overflow) as rx:
            await world.nc.flush()
            for number in range(1, 10):
                await world.make(number)
            assert isinstance(rx, trionats.BoundedFeed)
            await until(lambda: rx.statistics().delivered == 9)
            assert rx.statistics().dropped == 9 - ITEMS
            first = 1 if overflow == "drop_new" else 10 - ITEMS
            assert [number_of(await rx.receive()) for _ in range(ITEMS)] == list(range(first, first + ITEMS))


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
    async with kind() as world, trio.open_nursery() as nursery, world.opened(nursery) as rx:
        seen: list[int] = []
        with trio.fail_after(10):
            for number in range(1, 51):
                await world.make(number)
                with trio.move_on_after(0 if number % 2 else 0.0005):
                    seen.append(number_of(await rx.receive()))
            while len(seen) < 50:
                seen.append(number_of(await rx.receive()))
        assert seen == list(range(1, 51))


@every_kind
async def test_leaving_after_the_client_is_a_no_op(kind: Kind) -> None:
    async with kind() as world, AsyncExitStack() as outer:
        nursery = await outer.enter_async_context(trio.open_nursery())
        rx = await outer.enter_async_context(world.opened(nursery))
        await world.nc.aclose()
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()


@every_kind
@pytest.mark.parametrize("way", ["with", "await", "closed nursery", "no nursery"])
async def test_misuse_is_a_clear_error_and_leaves_nothing(kind: Kind, way: str) -> None:
    async with kind() as world:
        async with trio.open_nursery() as nursery:
            pass
        await world.nc.flush()
        before = tasks(), world.nc.statistics().feeds
        match way:
            case "with":
                with pytest.raises(TypeError, match="'async with'"), world.open(nursery):  # type: ignore[attr-defined]
                    pass
            case "await":
                with pytest.raises(TypeError, match="'async with'"):
                    await world.open(nursery)  # type: ignore[misc]
            case "closed nursery":
                with pytest.raises(RuntimeError, match=r"nursery .* is closed"):
                    await world.open(nursery).__aenter__()
            case _:
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
