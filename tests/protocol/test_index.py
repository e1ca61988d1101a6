"""What goes by a name: as a search through all would find it."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from trionats._protocol.index import Index, LateIndex

NAMES = st.sampled_from("abc")
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), NAMES, st.integers(0, 5)), max_size=60)


@given(STEPS)
def test_it_finds_what_a_search_finds(steps: list[tuple[str, str, int]]) -> None:
    index: Index[str, int] = Index()
    model: set[tuple[str, int]] = set()
    for step, name, thing in steps:
        (index.add if step == "add" else index.remove)(name, thing)
        (model.add if step == "add" else model.discard)((name, thing))
        for one in "abc":
            found = index.find(one)
            assert len(found) == len(set(found))
            assert set(found) == {other for known, other in model if known == one}
        assert len(index) == len({known for known, _ in model})


def test_it_keeps_the_order_and_what_it_gives_is_a_copy() -> None:
    index: Index[str, int] = Index()
    for number in (3, 1, 2):
        index.add("a", number)
    found = index.find("a")
    assert found == [3, 1, 2]
    for number in found:
        index.remove("a", number)
    assert (index.find("a"), len(index)) == ([], 0)


class Entry(NamedTuple):
    name: str
    number: int


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "find"]), NAMES, st.integers(0, 30)), max_size=80))
def test_a_late_one_finds_what_is_in_the_table_now(steps: list[tuple[str, str, int]]) -> None:
    table: dict[int, Entry] = {}
    index: LateIndex[str, int, Entry] = LateIndex(table, lambda entry: entry.name)
    entered = 0
    for step, name, which in steps:
        if step == "enter":
            entered += 1
            table[entered] = Entry(name, entered)
        elif step == "leave" and table:
            del table[sorted(table)[which % len(table)]]
        elif step == "find":
            assert index.find(name) == [entry for entry in table.values() if entry.name == name]


def test_each_entry_is_named_once_and_what_left_is_not_kept() -> None:
    named = 0

    def name(entry: Entry) -> str:
        nonlocal named
        named += 1
        return entry.name

    table: dict[int, Entry] = {}
    index: LateIndex[str, int, Entry] = LateIndex(table, name)
    for number in range(1000):
        table[number] = Entry(str(number), number)
    for number in range(1000):
        assert index.find(str(number)) == [table.pop(number)]
    # Making it anew halves what there is each time.
    assert named <= 2000
    for number in range(1000, 2000):
        table[number] = Entry("x", number)
        assert len(index.find("x")) == 1
        del table[number]
    assert index.find("x") == []
    assert len(index._known) <= 2
