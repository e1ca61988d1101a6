"""Timers fire in order and once, those that were cancelled never, and they take no room for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trionats._protocol.timers import SWEEP_AT, Timers


def test_they_fire_in_order_and_once() -> None:
    timers = Timers()
    fired: list[float] = []
    for when in (3.0, 1.0, 2.0):
        timers.add(when, lambda when=when: fired.append(when))  # type: ignore[misc]
    assert (len(timers), timers.next()) == (3, 1.0)
    timers.fire(0.5)
    assert fired == []
    timers.fire(2.0)
    assert fired == [1.0, 2.0]
    timers.fire(2.0)
    assert fired == [1.0, 2.0]
    assert (len(timers), timers.next()) == (1, 3.0)
    timers.fire(10.0)
    assert fired == [1.0, 2.0, 3.0]
    assert (len(timers), timers.next()) == (0, None)


def test_what_was_cancelled_is_forgotten() -> None:
    timers = Timers()
    fired: list[str] = []
    first = timers.add(1.0, lambda: fired.append("first"))
    timers.add(2.0, lambda: fired.append("second"))
    first.cancel()
    first.cancel()
    assert (len(timers), timers.next()) == (1, 2.0)
    timers.fire(5.0)
    assert fired == ["second"]
    first.cancel()
    assert len(timers) == 0


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


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 50)),
            st.tuples(st.just("cancel"), st.integers(0, 300)),
            st.tuples(st.just("fire"), st.integers(0, 50)),
        ),
        max_size=400,
    )
)
def test_they_do_what_a_sorted_list_would(steps: list[tuple[str, int]]) -> None:
    timers = Timers()
    made: list[tuple[int, object]] = []
    live: dict[int, int] = {}
    fired: list[int] = []
    for step, number in steps:
        if step == "add":
            serial = len(made)
            made.append((number, timers.add(float(number), lambda serial=serial: fired.append(serial))))  # type: ignore[misc]
            live[serial] = number
        elif step == "cancel" and made:
            serial = number % len(made)
            made[serial][1].cancel()  # type: ignore[attr-defined]
            live.pop(serial, None)
        elif step == "fire":
            fired.clear()
            timers.fire(float(number))
            due = {serial for serial, when in live.items() if when <= number}
            assert set(fired) == due
            assert len(fired) == len(due)
            assert [made[serial][0] for serial in fired] == sorted(made[serial][0] for serial in due)
            live = {serial: when for serial, when in live.items() if serial not in due}
        assert len(timers) == len(live)
        assert timers.next() == (min(live.values()) if live else None)
