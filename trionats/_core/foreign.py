"""The boundary where what other programs stored or sent is read (design 56).

Whatever stands there can end nothing but its own entry: what a parser raises, foreseen or not, is counted here, told
once an episode, and the entry is left out.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, final

import trio

from trionats import events

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

log = logging.getLogger("trionats")

#: An episode ends when nothing was skipped in one place for so many seconds.
QUIET: Final = 60.0


@final
class Foreign:
    """The boundary of one client."""

    def __init__(self, emit: Callable[[events.ConnectionEvent], None]) -> None:
        self._emit = emit
        self._last: dict[str, float] = {}
        self.skipped = 0
        """How much was left out so far."""

    def read(self, where: str, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Read something that another program made.

        Args:
            where: What is being read, for people; the same text for the same source, since it names the episode.
            read: Reads it, and raises whatever it likes where it is not what it should be.
            args: What it is called with.
            kwargs: What it is called with by name.

        Returns:
            What `read` returns; None for what is to be left out.
        """
        try:
            return read(*args, **kwargs)
        except Exception as error:  # that is what this is for: no stranger's data may end a task
            self._skip(where, error)
            return None

    def reader(self, where: str, read: Callable[[A, B], T]) -> Callable[[A, B], T | None]:
        """Make what reads many things of one source, one after the other, as `read` does each of them.

        Args:
            where: As for `read`.
            read: As for `read`.
        """

        def guarded(first: A, second: B) -> T | None:
            try:
                return read(first, second)
            except Exception as error:  # as in `read`
                self._skip(where, error)
                return None

        return guarded

    def _skip(self, where: str, error: Exception) -> None:
        self.skipped += 1
        now = trio.current_time()
        last = self._last.pop(where, -QUIET)
        self._last[where] = now
        if last + QUIET > now:
            log.debug("%s: skipped: %s", where, error)
            return
        # The oldest come first, since each is put behind the others whenever it is told of.
        while self._last[oldest := next(iter(self._last))] + QUIET <= now:
            del self._last[oldest]
        log.warning("%s: skipped what cannot be read: %s", where, error)
        self._emit(events.ForeignDataSkipped(where, error, self.skipped))
