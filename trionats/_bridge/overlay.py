"""Functions of ours in the place of an object's own, and what was there before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Overlay"]


@final
class Overlay:
    """What lies over an object's own functions while it is laid; afterwards the object has the attributes that it had.

    Args:
        target: The object.
    """

    def __init__(self, target: object) -> None:
        self._attributes = vars(target)
        self._laid: dict[str, Callable[..., Any]] = {}
        self._before: dict[str, Any] = {}

    def lay(self, functions: dict[str, Callable[..., Any]]) -> None:
        """Put functions in the place of others, by their names."""
        self._laid = functions
        self._before = {name: self._attributes[name] for name in functions if name in self._attributes}
        self._attributes.update(functions)

    def lift(self) -> None:
        """Put back what was there before. Idempotent."""
        for name, function in self._laid.items():
            # Somebody else may have put something over it in the meantime: it then stays, and does what it did before.
            if self._attributes.get(name) is not function:
                continue
            if name in self._before:
                self._attributes[name] = self._before[name]
            else:
                del self._attributes[name]
        self._laid, self._before = {}, {}
