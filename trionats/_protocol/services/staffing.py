"""How many workers an endpoint has whose requests are worked on beside each other: as few as do, and never too few."""

from __future__ import annotations

from typing import Final, final

__all__ = ["Staffing"]


@final
class Staffing:
    """The workers of one endpoint: the first one is there, and waits for a request.

    Each of them waits for requests, or is at work on one; and while it is at work its handler may wait for something else. A worker
    that is hired counts as one that waits from then on.

    Args:
        most: How many there may be.
    """

    __slots__ = ("_most", "_size", "_waiting")

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._size = self._waiting = 1

    def took(self) -> None:
        """One has taken a request."""
        self._waiting -= 1

    def handler_waits(self) -> bool:
        """The handler of one waits for something: say whether to hire another one, so that somebody waits for requests."""
        if self._waiting or self._size == self._most:
            return False
        self._size += 1
        self._waiting += 1
        return True

    def is_done(self, *, more: bool) -> bool:
        """One is done with its request: say whether it goes, since there is nothing to do, and somebody waits for what comes.

        Args:
            more: Whether requests are there.
        """
        if self._waiting and not more:
            self._size -= 1
            return True
        self._waiting += 1
        return False
