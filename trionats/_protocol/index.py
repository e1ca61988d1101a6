"""What goes by a name: found without looking through all that there is."""

from __future__ import annotations

from typing import Generic, TypeVar

N = TypeVar("N")
T = TypeVar("T")


class Index(Generic[N, T]):
    """Things by their names; several may have the same."""

    __slots__ = ("_named",)

    def __init__(self) -> None:
        self._named: dict[N, dict[T, None]] = {}

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._named)

    def add(self, name: N, thing: T) -> None:
        """Enter a thing. Idempotent."""
        self._named.setdefault(name, {})[thing] = None

    def remove(self, name: N, thing: T) -> None:
        """Take it out again. Idempotent."""
        things = self._named.get(name)
        if things is not None:
            things.pop(thing, None)
            if not things:
                del self._named[name]

    def find(self, name: N) -> list[T]:
        """Say what goes by a name, the oldest first."""
        return list(self._named.get(name, ()))
