"""The credit of one fetch: so many messages in all, and when to wait for no more.

A `Window` that is not refilled: what was handed over stays in it, so what is missing is asked for again, from whichever
consumer follows, and never more than that. One request is under way at a time, and none lasts longer than the fetch.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from trionats._protocol.jetstream.fitting import FIRST
from trionats._protocol.jetstream.pull import Ending, Pull, Window, before_deadline

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

__all__ = ["FetchCredit", "Limits", "limits_of"]

_UNLIMITED: Final = 1 << 40
#: What is left of the time when asking again is of no use.
_TOO_SHORT: Final = 0.01
#: How long the server's word is waited for that the time is over: without it there may be more on its way.
_GRACE: Final = 0.25


class Limits(NamedTuple):
    """Until when a fetch waits for messages, and for the server's word; and whether that is for a deadline's sake."""

    until: float
    at_most: float
    bounded: bool


def limits_of(now: float, expires: float, deadline: float, round_trip: float | None) -> Limits:
    """Say how long a fetch may take: one that would be cancelled ends just before, with what has come.

    Args:
        expires: For how many seconds messages are wanted.
        deadline: When the caller is cancelled; infinite for never.
        round_trip: How many seconds the API took to respond the last time, where that is known.
    """
    near = before_deadline(now, deadline, round_trip)
    if now + expires <= deadline - near:
        return Limits(now + expires, min(now + expires + _GRACE, deadline - near / 2), bounded=False)
    return Limits(deadline - near, deadline - near / 2, bounded=True)


class FetchCredit(Window):
    """The credit of one fetch, and whether it is over.

    Args:
        batch: How many messages there may be.
        max_bytes: How many bytes of them, counted as the server does; 0 for any number.
        until: When to wait for no more.
        no_wait: Whether the server's word that it has nothing is the end.
        heartbeat: How often the server says that it is there, as far as there is time for that.
        rng: Where the jitter comes from.
    """

    def __init__(
        self, batch: int, max_bytes: int, *, until: float, no_wait: bool, heartbeat: float, rng: random.Random
    ) -> None:
        # Where any number of bytes may come, nobody has to find out how many messages fit.
        first = FIRST if max_bytes else batch
        super().__init__(batch, max_bytes or _UNLIMITED, heartbeat=heartbeat, expires=0.0, rng=rng, first=first)
        self._until, self._no_wait, self._pace = until, no_wait, heartbeat
        self._empty = False
        self.over = False
        """Whether nothing more is to be waited for."""

    @property
    def silent_after(self) -> float:
        """Until when something must have been heard; at the end of its time silence is as good as a word."""
        after = super().silent_after
        return after if after < self._until else inf

    @property
    def listen_until(self) -> float:
        """Until when something should have been heard; at once, when it is over."""
        return -inf if self.over else min(self.unproven_after, self.silent_after)

    def pull(self, name: str, now: float, at_most: int = 0, *, patient: bool = False) -> Pull | None:
        """Say what to ask for now, if anything: as `Window.pull` does, and whether it is over."""
        if self._asked:
            return None
        left = self._until - now
        empty = self._empty and not at_most
        self.over = empty or left < _TOO_SHORT or not self._room()
        if self.over:
            return None
        self._empty = False
        # So that silence is found out, and another consumer gives what is missing, within the time.
        self._expires, self._heartbeat = left, min(self._pace, left / 4)
        at_most = at_most or (self._max_messages if self._no_wait else 0)
        return super().pull(name, now, at_most, patient=patient)

    def _room(self) -> bool:
        """Say whether another message may come; with none yet, one that is too large comes alone, to show its size."""
        messages, size = self._max_messages - self._buffered, self._max_bytes - self._buffered_bytes
        return messages > 0 and (not self._buffered or (size > 0 and not self._too_small))

    def _worth_asking(self, batch: int, size: int) -> bool:
        return True

    def _fits(self, free: int) -> int:
        # Nothing makes room here: whoever collects refuses what does not fit any more.
        return max(1, self._fitting.more(free, 0))

    def status(self, number: int, code: int, description: str, headers: Mapping[str, str], now: float) -> Ending:
        """Tell that a status came, as to `Window.status`."""
        ending = super().status(number, code, description, headers, now)
        self._empty = ending is Ending.EMPTY
        return ending
