"""The numbers of frames in a queue out of which some are taken back.

A frame's number says how many frames were queued before it, and finds it again in constant time, or, where gaps were
closed in front of it, by halving. Frames that are taken back leave gaps, so that the numbers of those behind them stay
true; once there are more gaps than frames they are closed, and what stays keeps its number by having it written down.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FEW_GAPS", "Numbering"]

#: Below this many gaps it is not worth closing them.
FEW_GAPS = 64


class Numbering:
    """Which number stands at which place of a queue.

    Attributes:
        taken: How many numbers lie before those that are counted through.
        gaps: How many places are empty.
    """

    __slots__ = ("_written", "gaps", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.gaps = 0
        self._written: list[int] = []

    def at(self, place: int) -> int:
        """Say which number stands at a place."""
        return self._written[place] if place < len(self._written) else self.taken + place + 1

    def up_to(self, number: int) -> int:
        """Say how many places have this number or a lower one; if it stands anywhere, then at the last of them."""
        count = number - self.taken
        return count if count >= len(self._written) else bisect_right(self._written, number)

    def too_many_gaps(self, length: int) -> bool:
        """Say whether the gaps of a queue are to be closed."""
        return self.gaps > FEW_GAPS and self.gaps * 2 > length

    def shortened(self, length: int) -> None:
        """Know that an empty place at the end of the queue is gone."""
        self.gaps -= 1
        del self._written[length:]

    def lengthened(self, places: int) -> None:
        """Know that something was put in front, whose numbers nobody asks for."""
        if self._written:
            first = self._written[0]
            self._written[:0] = range(first - places, first)
        self.taken -= places

    def went(self, places: int, gaps: int) -> None:
        """Know that the first of the queue went, and how many of them were empty."""
        self.taken += places
        self.gaps -= gaps
        del self._written[:places]

    def emptied(self, places: int) -> None:
        """Know that all of the queue went."""
        self.taken += places
        if self.gaps or self._written:
            self.gaps = 0
            self._written = []

    def closed(self, kept: Sequence[int], places: int) -> None:
        """Know that the gaps of the queue were closed.

        Args:
            kept: The places that stay.
            places: How many there were.
        """
        self._written = list(map(self.at, kept))
        self.taken += places - len(kept)
        self.gaps = 0
