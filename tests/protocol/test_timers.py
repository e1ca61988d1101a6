"""Timers ring in order and once, those that were called off never, and they take no room for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trionats._protocol.timers import SWEEP_AT, Timers


def test_in_order_and_once() -> None:
    alarms = Timers()
    rung: list[float] = []
    for when in (3.0, 1.0, 2.0):
        alarms.add(when, lambda when=when: rung.append(when))  # type: ignore[misc]
    assert (len(alarms), alarms.next()) == (3, 1.0)
    alarms.fire(0.5)
    assert rung == []
    alarms.fire(2.0)
    assert rung == [1.0, 2.0]
    alarms.fire(2.0)
    assert rung == [1.0, 2.0]
    assert (len(alarms), alarms.next()) == (1, 3.0)
    alarms.fire(10.0)
    assert rung == [1.0, 2.0, 3.0]
    assert (len(alarms), alarms.next()) == (0, None)


def test_called_off_is_forgotten() -> None:
    alarms = Timers()
    rung: list[str] = []
    first = alarms.add(1.0, lambda: rung.append("first"))
    alarms.add(2.0, lambda: rung.append("second"))
    first.cancel()
    first.cancel()
    assert (len(alarms), alarms.next()) == (1, 2.0)
    alarms.fire(5.0)
    assert rung == ["second"]
    first.cancel()
    assert len(alarms) == 0


def test_a_ring_may_change_the_rest() -> None:
    alarms = Timers()
    rung: list[str] = []

    def first() -> None:
        rung.append("first")
        second.cancel()
        alarms.add(0.5, lambda: rung.append("added, due already"))
        alarms.add(9.0, lambda: rung.append("added, for later"))

    mine = alarms.add(1.0, first)
    second = alarms.add(2.0, lambda: rung.append("second"))
    alarms.fire(3.0)
    assert rung == ["first", "added, due already"]
    mine.cancel()
    assert (len(alarms), alarms.next()) == (1, 9.0)


def test_many_called_off_take_no_room() -> None:
    alarms = Timers()
    kept = [alarms.add(1e9 + number, lambda: None) for number in range(10)]
    for number in range(10_000):
        alarms.add(float(number), lambda: None).cancel()
        assert len(alarms._heap) <= max(SWEEP_AT + 1, 2 * len(kept) + 1)
    assert len(alarms) == len(kept)
    assert alarms.next() == 1e9


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 50)),
            st.tuples(st.just("off"), st.integers(0, 300)),
            st.tuples(st.just("ring"), st.integers(0, 50)),
        ),
        max_size=400,
    )
)
def test_like_a_list(steps: list[tuple[str, int]]) -> None:
    alarms = Timers()
    made: list[tuple[int, object]] = []
    live: dict[int, int] = {}
    rung: list[int] = []
    for step, number in steps:
        if step == "add":
            serial = len(made)
            made.append((number, alarms.add(float(number), lambda serial=serial: rung.append(serial))))  # type: ignore[misc]
            live[serial] = number
        elif step == "off" and made:
            serial = number % len(made)
            made[serial][1].cancel()  # type: ignore[attr-defined]
            live.pop(serial, None)
        elif step == "ring":
            rung.clear()
            alarms.fire(float(number))
            due = {serial for serial, when in live.items() if when <= number}
            assert set(rung) == due
            assert len(rung) == len(due)
            assert [made[serial][0] for serial in rung] == sorted(made[serial][0] for serial in due)
            live = {serial: when for serial, when in live.items() if serial not in due}
        assert len(alarms) == len(live)
        assert alarms.next() == (min(live.values()) if live else None)
