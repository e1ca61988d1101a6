"""A list that the server gives in pages, and that may change while they are read.

Strategy
    The server sorts by name, and a page begins behind as many entries as its request says. What is created or deleted
    meanwhile shifts the rest. So each page but the first begins with the last entry of the page before: where another one
    stands there, something was shifted, and what lies behind it may have been left out. Then reading begins anew, keeping
    what was found, three times at the most: what was there all the time is in the list, unless the list changed before each
    page of four readings. Nothing is in it twice (design 74).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Pages"]

#: How often reading begins anew.
MOST_RESTARTS = 3


@final
class Pages:
    """Where to read next.

    Args:
        offset: How many entries are to be left out.
    """

    def __init__(self, offset: int = 0) -> None:
        self._begin = self.offset = offset
        self._last: str | None = None
        self._seen: set[str] = set()
        self._restarts = 0
        self.ended = False

    def take(self, names: Sequence[str], total: int) -> None:
        """Look at a page; then `ended` says whether that was all, or `offset` where the next one begins.

        Args:
            names: What the entries are called, in the page's order.
            total: How many entries there are, as the server says.
        """
        shifted = self._last is not None and list(names[:1]) != [self._last]
        if shifted and self._restarts < MOST_RESTARTS:
            self._restarts += 1
            self._seen.clear()
            self.offset, self._last = self._begin, None
            return
        fresh = set(names) - self._seen
        self._seen |= fresh
        behind = self.offset + len(names)
        # Nothing new: whatever the total says, this would go on for ever.
        if not fresh or behind >= total:
            self.ended = True
        elif len(names) > 1:
            self.offset, self._last = behind - 1, names[-1]
        else:  # which is no page of a real server
            self.offset, self._last = behind, None
