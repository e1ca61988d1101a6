"""What goes by a name: found without looking through all that there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")
N = TypeVar("N")
T = TypeVar("T")


class Index(Generic[N, T]):
    """Things by their names; several may have the same."""

    __slots__ = ("_first", "_more")

    def __init__(self) -> None:
        # Most names are those of one thing alone, which does without a table of its own.
        self._first: dict[N, T] = {}
        self._more: dict[N, dict[T, None]] = {}

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._first)

    def add(self, name: N, thing: T) -> None:
        """Enter a thing. Idempotent."""
        if self._first.setdefault(name, thing) is not thing:
            self._more.setdefault(name, {})[thing] = None

    def remove(self, name: N, thing: T) -> None:
        """Take it out again. Idempotent."""
        more = self._more.get(name)
        if self._first.get(name) is not thing:
            if more is not None:
                more.pop(thing, None)
        elif more is None:
            del self._first[name]
        else:
            # The last one: to find the first would be to pass by all that were taken out before it.
            self._first[name] = more.popitem()[0]
        if not more:
            self._more.pop(name, None)

    def find(self, name: N) -> list[T]:
        """Say what goes by a name: in the order of their coming as long as none was taken out."""
        if name not in self._first:
            return []
        return [self._first[name], *self._more.get(name, ())]


class LateIndex(Generic[N, K, V]):
    """An index of a table that is made when it is asked, so that entering something into the table costs nothing more.

    Each entry is looked at once, at the first question that comes after it; what has left the table is dropped when it
    is more than what is in it.

    Args:
        table: The table; its new entries come last, as in any that is only entered into and taken from.
        name: Says what an entry goes by.
    """

    def __init__(self, table: dict[K, V], name: Callable[[V], N]) -> None:
        self._table = table
        self._name = name
        self._named: Index[N, K] = Index()
        self._known: set[K] = set()

    def find(self, name: N) -> list[V]:
        """Say which entries go by a name, in the table's order."""
        table = self._table
        if len(self._known) > 2 * len(table):
            self._named, self._known = Index(), set()
        new = []
        for key in reversed(table):
            if key in self._known:
                break
            new.append(key)
        for key in reversed(new):
            self._named.add(self._name(table[key]), key)
        self._known.update(new)
        return [table[key] for key in self._named.find(name) if key in table]
