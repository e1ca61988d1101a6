"""A feed by itself: what no kind of feed shows by its use."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from unittest.mock import Mock

import pytest
import trio

from tests.cancelling import same_schedule
from tests.worlds import Turns, busy_tasks, elsewhere, end, put, settled
from trionats import errors
from trionats._feeds import busy_tasks as house
from trionats._feeds.busy_tasks import AT_THE_DOOR, MOST, ROOMY
from trionats._feeds.feed import Feed, OpenFeeds
from trionats._feeds.opening import opens
from trionats._feeds.pace import Pace


class Owner:
    """What a client is to its feeds."""

    def __init__(self) -> None:
        self.pace, self.feeds = Pace(), OpenFeeds()


@asynccontextmanager
async def at_work(count: int, work: Callable[[], Awaitable[object]]) -> AsyncIterator[trio.Nursery]:
    """Let so many tasks do the same, and wait until they wait; the block waits for their ends."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(work)
            await settled()
            yield nursery


async def test_what_an_opener_returns_is_entered_once() -> None:
    @opens
    async def open_test(number: int) -> AsyncIterator[int]:
        await trio.lowlevel.checkpoint()
        yield number

    opening = open_test(1)
    async with opening as one:
        assert one == 1
        with pytest.raises(RuntimeError, match=r"what open_test\(\) returns is entered once; call open_test\(\) again"):
            await opening.__aenter__()
    with pytest.raises(RuntimeError, match="entered once"):
        await opening.__aenter__()


async def test_opening_and_leaving_are_not_interrupted_half_way() -> None:
    """Ctrl-C comes behind them, or at their next wait; the body of the block is the user's."""
    seen: list[bool] = []
    protected = trio.lowlevel.currently_ki_protected

    @opens
    async def open_test() -> AsyncIterator[None]:
        seen.append(protected())
        await trio.lowlevel.checkpoint()
        seen.append(protected())
        yield
        seen.append(protected())

    async with open_test():
        seen.append(protected())
    assert seen == [True, True, False, True]


async def test_an_empty_feed_is_true_and_one_that_is_full_or_has_ended_takes_nothing() -> None:
    """It has a length, and `if rx:` asks whether there is one."""
    feed = Feed[int]("test", 1, Owner())
    assert len(feed) == 0
    assert feed
    assert put(feed, 1)
    assert not put(feed, 2)
    feed.stop()
    assert not put(feed, 3)
    assert [item async for item in feed] == [1]
    await feed.aclose()
    assert not put(feed, 4)


async def test_consumers_that_have_died_are_forgotten_and_an_observer_may_leave_twice() -> None:
    """A new task for each item must not be remembered for ever."""
    count = 3 * MOST
    feed = Feed[int]("test", count, Owner())
    busy_tasks(feed).observe(observer := Mock())
    for number in range(count):
        put(feed, number)
    for _ in range(count):
        await elsewhere(feed.receive)  # a task of its own for each item is the point
    assert len(busy_tasks(feed).busy) <= MOST
    for _ in range(2):
        busy_tasks(feed).unobserve(observer)
    assert not busy_tasks(feed).observers
    end(feed)


async def test_consumers_that_live_are_not_sought_for_each_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large pool at work: each item costs the same, however many have one."""
    sought = 0
    lives: Callable[[trio.lowlevel.Task], bool] = vars(house)["_lives"]

    def counted(task: trio.lowlevel.Task) -> bool:
        nonlocal sought
        sought += 1
        return lives(task)

    def copied(nursery: trio.Nursery) -> frozenset[trio.lowlevel.Task]:
        raise AssertionError("the set of all siblings was copied")

    monkeypatch.setattr(house, "_lives", counted)
    pool, items = 1000, 5000
    feed = Feed[int]("test", items, Owner())

    async def work() -> None:
        async for _ in feed:
            await trio.lowlevel.checkpoint()

    async with at_work(pool, work):
        with monkeypatch.context() as during:
            during.setattr(trio.Nursery, "child_tasks", property(copied))
            for number in range(items):
                put(feed, number)
                if number % 100 == 0:
                    await settled()
            end(feed)
            await settled()
    # To double the number of those that are remembered takes one look at each.
    assert sought <= 4 * pool


async def test_a_burst_wakes_no_more_tasks_than_it_takes() -> None:
    pool, burst = 1000, 100
    feed = Feed[int]("test", ROOMY, Owner())
    seen: list[int] = []

    async def work() -> None:
        seen.extend([number async for number in feed])

    steps = 0
    async with at_work(pool, work):
        for _ in range(10):
            with Turns() as turns:
                for number in range(burst):
                    put(feed, number)
                await settled()
            steps += turns.count
        end(feed)
    assert sorted(seen) == sorted(list(range(burst)) * 10)
    assert steps <= 10 * 3 * AT_THE_DOOR


async def test_slow_consumers_are_soon_all_at_work() -> None:
    pool = 1000
    feed = Feed[int]("test", ROOMY, Owner())
    hold = trio.Event()
    begun = 0

    async def work() -> None:
        nonlocal begun
        async for _ in feed:
            begun += 1
            await hold.wait()

    async with at_work(pool, work):
        for number in range(pool):
            put(feed, number)
        passes = 0
        while begun < pool:
            await trio.lowlevel.checkpoint()
            passes += 1
        # Each time twice as many: 2 ** 10 is more than all of them.
        assert passes <= 12
        hold.set()
        end(feed)


@pytest.mark.parametrize("seed", range(40))
def test_nobody_waits_where_something_is_buffered(seed: int) -> None:
    """Many tasks that receive, are slow, fast, impatient or cancelled, in any order: nobody is forgotten on the bench."""

    async def main() -> None:
        feed = Feed[int]("test", 10_000, Owner())
        seen: list[int] = []
        scopes: dict[trio.CancelScope, None] = {}
        hold = trio.Event()
        waiting = 0

        async def work(slow: bool) -> None:
            nonlocal waiting
            with trio.CancelScope() as scope:
                scopes[scope] = None
                while True:
                    waiting += 1
                    try:
                        item = await feed.receive()
                    except trio.EndOfChannel:
                        break
                    finally:
                        waiting -= 1
                    seen.append(item)
                    if slow:
                        await hold.wait()
            scopes.pop(scope, None)

        def release() -> None:
            nonlocal hold
            hold.set()
            hold = trio.Event()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                count = 0
                for _ in range(60):
                    match rng.choice(["start", "start slow", "put", "put many", "cancel", "release", "run"]):
                        case "start" | "start slow" as how:
                            for _ in range(rng.randrange(2 * AT_THE_DOOR)):
                                nursery.start_soon(work, how == "start slow")
                        case "put" | "put many" as how:
                            for _ in range(1 if how == "put" else rng.randrange(60)):
                                put(feed, count)
                                count += 1
                        case "cancel":
                            for scope in rng.sample(list(scopes), rng.randrange(len(scopes) + 1)):
                                scope.cancel()
                        case "release":
                            release()
                        case _:
                            await trio.lowlevel.checkpoint()
                    if rng.random() < 0.3:
                        await settled()
                        assert not (waiting and len(feed)), f"{waiting} wait, {len(feed)} are buffered"
                for _ in range(3):
                    nursery.start_soon(work, False)
                end(feed)
                while len(feed):
                    release()
                    await trio.lowlevel.checkpoint()
                await settled()
                hold.set()
        assert sorted(seen) == list(range(count))

    rng = random.Random(seed)
    with same_schedule(seed):
        trio.run(main)


@pytest.mark.parametrize("how", ["stopped", "failed", "left"])
async def test_each_of_many_that_wait_learns_of_the_end(how: str) -> None:
    feed = Feed[int]("test", ROOMY, Owner())
    ends: list[type[BaseException]] = []

    async def work() -> None:
        with pytest.raises((trio.EndOfChannel, errors.TimeoutError)) as caught:
            await feed.receive()
        ends.append(caught.type)

    async with at_work(5 * AT_THE_DOOR, work):
        if how == "left":
            await feed.aclose()
        else:
            end(feed, errors.TimeoutError() if how == "failed" else None)
    assert ends == [errors.TimeoutError if how == "failed" else trio.EndOfChannel] * (5 * AT_THE_DOOR)


async def test_who_waits_behind_takes_the_place_of_those_who_are_cancelled() -> None:
    feed = Feed[int]("test", ROOMY, Owner())
    seen: list[int] = []

    async def work(scope: trio.CancelScope) -> None:
        with scope:
            seen.append(await feed.receive())

    scopes = [trio.CancelScope() for _ in range(2 * AT_THE_DOOR)]
    async with at_work(0, settled) as nursery:
        for scope in scopes:
            nursery.start_soon(work, scope)
            await settled()
        for scope in scopes[:AT_THE_DOOR]:
            scope.cancel()
        for number in range(3):
            put(feed, number)
            await settled()
            assert seen == list(range(number + 1))
        nursery.cancel_scope.cancel()


async def test_the_pool_may_shrink_again() -> None:
    """Tasks that have ended are not kept because there once were many."""
    feed = Feed[int]("test", 2000, Owner())
    hold = trio.Event()

    async def take_one() -> None:
        await feed.receive()
        await hold.wait()

    async with trio.open_nursery() as nursery:
        for number in range(500):
            put(feed, number)
            nursery.start_soon(take_one)
        await settled()
        hold.set()
    for number in range(1000):
        put(feed, number)
        await elsewhere(take_one)  # a task of its own for each item is the point
    assert len(busy_tasks(feed).busy) <= MOST
    end(feed)


@pytest.mark.parametrize("limit", [1, 10])
async def test_a_burst_finds_room_with_all_that_wait(limit: int) -> None:
    """However little is buffered: each of those who wait takes one."""
    feed = Feed[int]("test", limit, Owner())
    waiting = 5 * AT_THE_DOOR
    seen: list[int] = []

    async def work() -> None:
        seen.append(await feed.receive())

    async with at_work(waiting, work):
        for number in range(waiting + limit):
            assert put(feed, number)
        assert not put(feed, waiting + limit)
    assert sorted(seen) == list(range(waiting))
    end(feed)
