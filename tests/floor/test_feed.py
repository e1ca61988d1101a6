"""A feed by itself: what no kind of feed shows by its use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from trionats._feed import Feed, Pace, opens
from trionats._workers import MOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Nobody:
    """An observer."""

    def took(self, task: trio.lowlevel.Task) -> None:
        """See nothing."""

    def came_back(self, task: trio.lowlevel.Task) -> None:
        """See nothing."""

    def ended(self) -> None:
        """See nothing."""

    def left(self) -> None:
        """See nothing."""


async def test_an_empty_feed_is_true() -> None:
    """It has a length, and `if rx:` asks whether there is one."""
    feed = Feed[int]("test", 1, Pace())
    assert len(feed) == 0
    assert feed
    feed.end(None)


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

    @opens
    async def open_test() -> AsyncIterator[None]:
        seen.append(trio.lowlevel.currently_ki_protected())
        await trio.lowlevel.checkpoint()
        seen.append(trio.lowlevel.currently_ki_protected())
        try:
            yield
        finally:
            seen.append(trio.lowlevel.currently_ki_protected())

    async with open_test():
        seen.append(trio.lowlevel.currently_ki_protected())
    assert seen == [True, True, False, True]


async def test_what_is_put_into_a_full_or_ended_feed_is_not_taken_and_disturbs_nobody() -> None:
    feed = Feed[int]("test", 1, Pace())
    assert feed.put(1)
    assert not feed.put(2)
    feed.stop()
    assert not feed.put(3)
    assert [item async for item in feed] == [1]
    await feed.aclose()
    assert not feed.put(4)


async def test_an_observer_may_leave_twice() -> None:
    feed = Feed[int]("test", 1, Pace())
    observer = Nobody()
    feed._workers.observe(observer)
    feed._workers.unobserve(observer)
    feed._workers.unobserve(observer)
    feed.end(None)


async def test_consumers_that_have_died_are_forgotten() -> None:
    """A new task for each item must not be remembered for ever."""
    count = 3 * MOST
    feed = Feed[int]("test", count, Pace())
    feed._workers.observe(Nobody())
    for number in range(count):
        feed.put(number)
    for _ in range(count):
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112 - a task of its own for each item is the point
            nursery.start_soon(feed.receive)
    assert len(feed._workers.busy) <= MOST
    feed.end(None)
