"""Timers fire in order and once, those that were cancelled never, and they take no room for long."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from trionats._protocol.timers import SWEEP_AT, Timer, Timers


def test_a_timer_that_fires_may_change_the_others() -> None:
    timers = Timers()
    fired: list[str] = []

    def first() -> None:
        fired.append("first")
        second.cancel()
        timers.add(0.5, lambda: fired.append("added, due already"))
        timers.add(9.0, lambda: fired.append("added, for later"))

    mine = timers.add(1.0, first)
    second = timers.add(2.0, lambda: fired.append("second"))
    timers.fire(3.0)
    assert fired == ["first", "added, due already"]
    mine.cancel()
    assert (len(timers), timers.next()) == (1, 9.0)


def test_many_cancelled_take_no_room() -> None:
    timers = Timers()
    kept = [timers.add(1e9 + number, lambda: None) for number in range(10)]
    for number in range(10_000):
        timers.add(float(number), lambda: None).cancel()
        assert len(timers._heap) <= max(SWEEP_AT + 1, 2 * len(kept) + 1)
    assert len(timers) == len(kept)
    assert timers.next() == 1e9


STEPS = st.tuples(st.sampled_from(["add", "fire"]), st.integers(0, 50)) | st.tuples(
    st.just("cancel"), st.integers(0, 300)
)


@given(st.lists(STEPS, max_size=400))
@example([("add", 3), ("add", 1), ("add", 2), ("fire", 0), ("fire", 2), ("fire", 2), ("fire", 10)])
@example([("add", 1), ("add", 2), ("cancel", 0), ("cancel", 0), ("fire", 5), ("cancel", 0)])
def test_they_do_what_a_sorted_list_would(steps: list[tuple[str, int]]) -> None:
    timers = Timers()
    made: list[Timer] = []
    live: dict[int, int] = {}
    fired: list[tuple[int, int]] = []
    for step, number in steps:
        if step == "add":
            one = number, len(made)
            made.append(timers.add(float(number), lambda one=one: fired.append(one)))  # type: ignore[misc]
            live[len(made) - 1] = number
        elif step == "cancel" and made:
            made[number % len(made)].cancel()
            live.pop(number % len(made), None)
        elif step == "fire":
            fired.clear()
            timers.fire(float(number))
            due = {serial: when for serial, when in live.items() if when <= number}
            assert sorted(fired) == sorted((when, serial) for serial, when in due.items())
            assert [when for when, _ in fired] == sorted(due.values())
            live = {serial: when for serial, when in live.items() if serial not in due}
        assert (len(timers), timers.next()) == (len(live), min(live.values(), default=None))
