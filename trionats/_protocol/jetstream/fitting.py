"""How many messages to ask for where a request may not say how many bytes: what fits is reckoned from what came.

Strategy
    A server that walks a list (a consumer of the last message of each subject) takes an entry off it before it looks whether that
    fits into the request; one that does not fit is lost for good (design 112). So the bytes stay with whoever asks: it asks for as
    many messages as would fit, were they all as large as the largest that came lately.

    Before anything came that is a guess, so it begins with few, and each message that comes allows one more: each
    round trip doubles them. What came long ago is forgotten by and by, lest one large message make each of the small ones behind it
    take a round trip.

    Where sizes jump, more bytes come than there is room for; nothing is lost by that.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FIRST", "Fitting"]

#: How many messages are asked for when nobody knows how large they are.
FIRST: Final = 64
# A message counts less by this part of itself (2 ** -6) with each that comes behind it.
_FADES: Final = 6


class Fitting:
    """What one reader knows of the sizes.

    Args:
        first: How many messages may be asked for before any came.
    """

    __slots__ = ("_allowed", "_largest")

    def __init__(self, first: int = FIRST) -> None:
        self._allowed, self._largest = first, 1

    def came(self, size: int) -> None:
        """Tell that a message came.

        Args:
            size: Its size, counted as the credit is.
        """
        self._allowed += 1
        largest = self._largest - (self._largest >> _FADES)
        if size > largest:
            largest = size
        self._largest = largest

    def more(self, free: int, asked: int) -> int:
        """Say how many more messages fit.

        Args:
            free: How many bytes there are for those that were asked for and for more.
            asked: How many messages were asked for and have not come.

        Returns:
            That many; 0 while it is less than half of what could be outstanding, since a request for each message would cost more.
        """
        fit = min(self._allowed, free // self._largest)
        more = fit - asked
        return more if 2 * more >= fit and more > 0 else 0
