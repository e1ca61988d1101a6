"""Telling a program how far a transfer is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias, final

__all__ = ["Progress", "ProgressTeller"]

#: Told how many bytes of an object are done, and of how many; None where that is not known.
Progress: TypeAlias = Callable[[int, int | None], object]


@final
class ProgressTeller:
    """Tells a user's callback how far a transfer is: each time something new.

    Args:
        progress: The callback; None for nobody.
        what: What is transferred, for texts.

    Raises:
        TypeError: It cannot be called, or would have to be awaited.
    """

    def __init__(self, progress: Progress | None, what: str) -> None:
        if progress is not None and not callable(progress):
            raise TypeError(f"{what}: progress must be a function, not {type(progress).__name__}")
        if inspect.iscoroutinefunction(progress):
            raise _awaited(what)
        self._progress = progress
        self._what = what
        self._told: tuple[int, int | None] | None = None

    def __call__(self, done: int, total: int | None) -> None:
        """Tell that so many bytes are done, of so many; None where that is not known."""
        # What was known of a file may have been wrong.
        now = (done, None if total is not None and done > total else total)
        if self._progress is not None and now != self._told:
            self._told = now
            returned = self._progress(*now)
            # Not every callable shows before it is called that it would have to be awaited.
            if inspect.isawaitable(returned):
                if inspect.iscoroutine(returned):
                    returned.close()
                raise _awaited(self._what)


def _awaited(what: str) -> TypeError:
    return TypeError(f"{what}: progress is called and not awaited; it must be no coroutine function")
