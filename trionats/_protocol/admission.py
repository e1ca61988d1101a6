"""Which subscriptions a server refused whose limit of them is reached: it says that it did, and not which.

Strategy
    nats-server has a limit of subscriptions for each connection (`max_subscriptions`, or `subs` of an account or a
    user). Of each SUB beyond it, it says "maximum subscriptions exceeded", and the connection goes on. It takes what we
    say in order, and what it says comes in order: so a PONG is a fence, and the SUBs that were refused stand between
    the PING before the last one and the last one, in which there are as many refusals as words. Which of them is found
    by playing the server: each SUB takes a place, each UNSUB of one that has a place gives it back. One number is not
    known, how many places were free in the beginning; with one more of them one SUB less is refused, or more, so the
    number of refusals gives it. What is refused for its subject has never had a place, and is named; it counts for
    nothing.

A PING is sent when there is something to find out, and when much was said since the last one, so that what is
remembered stays small.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from trionats._protocol.registrations import Registration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["MOST_TOLD", "Admissions"]

#: How many subscriptions and ends of subscriptions are told to the server before a PING has to follow.
MOST_TOLD = 256


#: A registration that the server was told of, and whether it begins.
Told: TypeAlias = tuple[Registration, bool]


class Admissions:
    """What the server of one session was told of subscriptions and has not confirmed."""

    __slots__ = ("_denied", "_due", "_fenced", "_refusals", "_told")

    def __init__(self) -> None:
        self._told: list[Told] = []
        self._fenced: deque[list[Told]] = deque()
        self._due: deque[tuple[list[Told], int]] = deque()
        self._refusals = 0
        self._denied: set[tuple[bytes, bytes]] = set()
        """What was refused for its subject, and is still among what was told."""

    def subscribed(self, registration: Registration) -> bool:
        """Note that a SUB was queued.

        Returns:
            Whether so much was told since the last PING that another one has to follow.
        """
        if (registration.subject, registration.queue) in self._denied:
            self._forget_denied()
        self._told.append((registration, True))
        return len(self._told) >= MOST_TOLD

    def unsubscribed(self, registration: Registration) -> bool:
        """Note that an UNSUB was queued, or that the subscription has had all it was to get; as `subscribed`."""
        self._told.append((registration, False))
        return len(self._told) >= MOST_TOLD

    def replayed(self, registrations: Iterable[Registration], waiting: int) -> None:
        """Note that SUBs were put in front of what is queued.

        Args:
            registrations: The subscriptions.
            waiting: How many PINGs are queued behind them.
        """
        self._forget_denied()
        window = self._fenced[-waiting] if waiting else self._told
        window[:0] = [(registration, True) for registration in registrations]

    def pinged(self) -> None:
        """Note that a PING was queued."""
        self._fenced.append(self._told)
        self._told = []

    def refused(self) -> bool:
        """Note that the server has refused a subscription for its limit.

        Returns:
            Whether a PING has to follow, so that it is found out which one.
        """
        self._refusals += 1
        return bool(self._told)

    def denied(self, subject: bytes, queue: bytes) -> None:
        """Note that the server has refused a subscription for its subject."""
        # Thousands may be refused at once: to look for each of them would be to look through all the others each time.
        self._denied.add((subject, queue))
        if len(self._denied) >= MOST_TOLD:
            self._forget_denied()

    def ponged(self) -> bool:
        """Note that the PONG for the first PING came.

        Returns:
            Whether subscriptions were refused before it for the limit: `settle` is due.
        """
        window = self._fenced.popleft()
        if not self._refusals:
            return False
        self._due.append((window, self._refusals))
        self._refusals = 0
        return True

    def settle(self) -> list[Registration]:
        """Say which subscriptions were refused before the PONG, once all is noted that the server said before it."""
        self._forget_denied()
        refused = _refused(*self._due.popleft())
        # Their ends, if they were told already, give nothing back.
        self._forget(set(refused).__contains__)
        return refused

    def _forget_denied(self) -> None:
        if self._denied:
            denied, self._denied = self._denied, set()
            self._forget(lambda registration: (registration.subject, registration.queue) in denied)

    def _forget(self, which: Callable[[Registration], bool]) -> None:
        for window in (*(window for window, _ in self._due), *self._fenced, self._told):
            window[:] = [told for told in window if not which(told[0])]


def _refused(window: Sequence[Told], count: int) -> list[Registration]:
    """Find which subscriptions were refused, given how many; rather too few of them than one that was not."""
    least, most = 0, sum(begins for _, begins in window)
    while least < most:
        middle = (least + most) // 2
        if len(_played(window, middle)) > count:
            least = middle + 1
        else:
            most = middle
    return _played(window, least)


def _played(window: Sequence[Told], places: int) -> list[Registration]:
    """Say which subscriptions a server with so many free places refuses."""
    refused: dict[Registration, None] = {}
    for registration, begins in window:
        if not begins:
            places += registration not in refused
        elif places:
            places -= 1
        else:
            refused[registration] = None
    return list(refused)
