"""The cancellation harness finds the classic mistakes, each in the way that shows it, and repeats itself."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.cancelling import WAYS, Cut, Way, cancel_everywhere
from tests.worlds import run


async def tidy(table: set[int]) -> str:
    table.add(1)
    try:
        await trio.sleep(1)
        await trio.sleep(1)
    finally:
        table.discard(1)
    return "done"


async def forgets(table: set[int]) -> None:
    table.add(1)
    await trio.sleep(1)
    await trio.sleep(1)
    table.discard(1)


async def waits_in_cleanup(table: set[int]) -> None:
    async def clean_up() -> None:
        await trio.lowlevel.checkpoint()
        table.discard(1)

    table.add(1)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(clean_up)
        await trio.sleep(1)


async def protected_only_once(table: set[int]) -> None:
    """Survives one cancellation: its cleanup runs in a scope that the first one did not reach."""
    table.add(1)
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        table.discard(1)
        raise
    table.discard(1)


async def registers_before_it_looks(table: set[int]) -> None:
    table.add(1)
    await trio.lowlevel.checkpoint()
    table.discard(1)


def leaves_nothing(operation: Callable[[set[int]], Awaitable[object]]) -> Callable[[Cut], Awaitable[None]]:
    async def scenario(cut: Cut) -> None:
        table: set[int] = set()
        await cut(operation, table)
        assert not table

    return scenario


def test_a_tidy_operation_passes_in_every_way() -> None:
    points = cancel_everywhere(leaves_nothing(tidy))
    assert tuple(points) == WAYS
    assert points["parked"] == points["woken"] == 2
    cancel_everywhere(leaves_nothing(protected_only_once))


MISTAKES: dict[Callable[[set[int]], Awaitable[object]], list[Way]] = {
    forgets: ["already", "parked", "woken"],
    waits_in_cleanup: ["already", "parked"],
    registers_before_it_looks: ["already"],
}


@pytest.mark.parametrize(("operation", "way"), [(wrong, way) for wrong, ways in MISTAKES.items() for way in ways])
def test_mistakes_are_found(operation: Callable[[set[int]], Awaitable[object]], way: Way) -> None:
    with pytest.raises(AssertionError) as caught:
        cancel_everywhere(leaves_nothing(operation), ways=[way], seed="s")
    assert f"in the way '{way}' at step 1 (fired: True), seed 's'" in caught.value.__notes__[0]


def test_woken_is_not_parked() -> None:
    """An item that was handed over must not be lost: only the cancellation after the wake-up shows the difference."""
    outcomes = []

    async def scenario(cut: Cut) -> None:
        send, receive = trio.open_memory_channel[int](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send.send, 7)
            outcomes.append((await cut(receive.receive), cut.cancelled))
            nursery.cancel_scope.cancel()

    cancel_everywhere(scenario, ways=["parked"])
    assert (None, True) in outcomes
    outcomes.clear()
    cancel_everywhere(scenario, ways=["woken"])
    assert (None, True) not in outcomes


def test_twice_reaches_the_cleanup() -> None:
    reached: list[bool] = []

    async def asks_again() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(5, shield=True) as cleanup:
                await trio.sleep(1)
            reached.append(not cleanup.cancelled_caught)

    async def scenario(cut: Cut) -> None:
        await cut(asks_again)
        assert cut.cancelled

    with pytest.raises(trio.TooSlowError):  # not cut at the last step of all: it really sleeps for ever
        cancel_everywhere(scenario, ways=["parked-twice"])
    assert all(reached)


def test_a_result_comes_through() -> None:
    results = []

    async def scenario(cut: Cut) -> None:
        results.append(await cut(tidy, set()))
        assert cut.cancelled == (cut.result is None)

    cancel_everywhere(scenario, ways=["parked"])
    assert results == [None, None, "done"]


def test_a_scenario_that_is_stuck_or_without_a_cut_fails() -> None:
    async def stuck(cut: Cut) -> None:
        await cut(trio.lowlevel.checkpoint)
        await trio.sleep_forever()

    async def without(_: Cut) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(trio.TooSlowError):
        cancel_everywhere(stuck)
    with pytest.raises(AssertionError, match="never used"):
        cancel_everywhere(without)


def test_the_schedule_repeats_itself() -> None:
    async def order() -> list[int]:
        ran: list[int] = []

        async def runner(number: int) -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                ran.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(runner, number)
        return ran

    random.seed(0)
    first = [run(order, seed=seed) for seed in range(3)]
    assert first == [run(order, seed=seed) for seed in range(3)]
    assert first[0] != first[1]
