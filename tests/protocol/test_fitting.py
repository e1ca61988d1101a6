"""How many messages of a list are asked for, so that they fit into the bytes that there are."""

from __future__ import annotations

import pytest

from trionats._protocol.jetstream.fitting import FIRST, Fitting

MANY = 1 << 40


def fitting(*sizes: int, first: int = FIRST) -> Fitting:
    made = Fitting(first)
    for size in sizes:
        made.came(size)
    return made


def test_it_begins_with_few_and_each_round_trip_doubles_them() -> None:
    made = Fitting()
    asked = []
    for _ in range(5):
        asked.append(made.more(MANY, 0))
        for _ in range(asked[-1]):
            made.came(100)
    assert asked == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize(
    ("sizes", "free", "fit"),
    [
        ((), 1000, 64),
        ((), 10, 10),
        ((100,), 1000, 10),
        ((100, 10, 10), 1000, 10),
        ((10, 10, 200), 1000, 5),
        ((2000,), 1000, 0),
        ((100,), 0, 0),
        ((100,), -5, 0),
    ],
)
def test_as_many_fit_as_were_all_of_them_as_large_as_the_largest(sizes: tuple[int, ...], free: int, fit: int) -> None:
    assert fitting(*sizes).more(free, 0) == fit


def test_a_large_one_is_forgotten_by_and_by() -> None:
    made = fitting(1 << 20)
    fits = []
    for _ in range(8):
        fits.append(made.more(1 << 23, 0))
        for _ in range(64):
            made.came(100)
    assert fits == sorted(fits)
    assert (fits[0], fits[1]) == (8, 21)
    assert fits[-1] == FIRST + 1 + 7 * 64


@pytest.mark.parametrize(("asked", "more"), [(0, 10), (4, 6), (5, 5), (6, 0), (10, 0), (12, 0)])
def test_less_than_half_is_not_worth_a_request(asked: int, more: int) -> None:
    assert fitting(100).more(1000, asked) == more
