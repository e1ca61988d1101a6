"""Lists that are read in pages: whole, without anything twice, also when they change meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats._protocol.jetstream.listing import MOST_RESTARTS, Pages

NAMES = st.sets(st.text("abc", min_size=1, max_size=4), max_size=40)


def listed(there: set[str], limit: int, between: Callable[[int], None] = lambda _: None, offset: int = 0) -> list[str]:
    """Read as a server sorts and cuts; `between` is called before each page but the first."""
    pages, found, asked = Pages(offset), dict[str, None](), 0
    while not pages.ended:
        if asked:
            between(asked)
        asked += 1
        assert asked < 200, "it ends"
        page = sorted(there)[pages.offset : pages.offset + limit]
        found |= dict.fromkeys(page)
        pages.take(page, len(there))
    return list(found)


@given(NAMES, st.integers(1, 50), st.integers(0, 45))
def test_a_list_that_does_not_change_is_read_whole_in_order(there: set[str], limit: int, offset: int) -> None:
    assert listed(there, limit, offset=offset) == sorted(there)[offset:]


@given(
    NAMES, st.integers(2, 10), st.lists(st.tuples(st.booleans(), st.text("abc", min_size=1, max_size=4)), max_size=3)
)
def test_what_was_there_all_the_time_is_in_it(there: set[str], limit: int, changes: list[tuple[bool, str]]) -> None:
    """As many changes as there are restarts, one before a page each, wherever they fall."""
    for first in range(1, 6):
        now, all_the_time, waiting = set(there), set(there), list(changes)

        def between(asked: int) -> None:
            if asked >= first and waiting:  # noqa: B023 - called before the next one
                create, name = waiting.pop(0)  # noqa: B023
                (now.add if create else now.discard)(name)  # noqa: B023
                all_the_time.discard("" if create else name)  # noqa: B023

        found = listed(now, limit, between)
        assert all_the_time <= set(found)
        assert len(found) == len(set(found))


def test_a_deletion_between_pages_does_not_hide_what_moved_up() -> None:
    there = {"a", "b", "c", "d", "e"}
    assert listed(there, 2, lambda asked: there.discard("a") if asked == 1 else None) == ["a", "b", "c", "d", "e"]


def test_a_list_that_never_rests_is_read_to_its_end_all_the_same() -> None:
    there = {f"n{number:03}" for number in range(20)}
    found = listed(there, 5, lambda asked: there.add(f"m{asked:03}"))
    assert {f"n{number:03}" for number in range(20)} <= set(found), "what shifts to the right is only seen twice"


@pytest.mark.parametrize("page", [["a", "a"], ["a"], ["a", "b"], []])
def test_a_server_that_repeats_itself_is_not_believed_for_ever(page: list[str]) -> None:
    pages, asked = Pages(), 0
    while not pages.ended:
        asked += 1
        pages.take(page, 10**9)
    assert asked <= 2 + 2 * MOST_RESTARTS
