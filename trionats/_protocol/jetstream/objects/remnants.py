"""What is left of an object that is no more: when to ask for a purge, until nothing of it can be left.

Strategy
    A purge and the chunks that it is to take go different ways through the server, and the purge is the faster one. So
    what was sent and not acknowledged may be stored behind a purge that was done: each acknowledgement that comes
    late says that there is something to purge again. Where the acknowledgements were lost with the connection, nothing
    says when the chunks have arrived that were on their way, so one more purge follows some time after the next
    connection responded.

Invariants
    What may be stored is followed by a purge that was asked for later, for as long as there is a client.
    Only one purge is under way at a time.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["ATTEMPTS", "RESPONSE_TIME", "SETTLING", "Remnant"]

#: After how many seconds a purge that was refused for the moment is asked for again; and how long what was on its way
#: when a connection broke may take to arrive, counted from the next connection's first response.
SETTLING: Final = 5.0
#: After how many seconds a purge without a response is asked for again.
RESPONSE_TIME: Final = 30.0
#: How often that is done.
ATTEMPTS: Final = 3


class Remnant:
    """The chunks of one object that are to go."""

    def __init__(self) -> None:
        self._coming = 0
        self._dirty = True
        self._asking = False
        self._hurried = False
        self._unsettled = False
        self._attempts = 0
        self._response_by = inf
        self._again_at = inf
        self.given_up = False
        """Whether it was in vain: the server refuses, or never responds."""

    def __repr__(self) -> str:
        return f"<Remnant, {self._coming} chunks to come, {'done' if self.done else 'not done'}>"

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.given_up or (self.rests and self._again_at == inf)

    @property
    def rests(self) -> bool:
        """Whether nothing is under way: it is done, or comes back to it at a time that is far away."""
        return self.given_up or not (self._coming or self._dirty or self._asking)

    @property
    def look_at(self) -> float | None:
        """When to call `look`; None where there is nothing to wait for."""
        when = min(self._response_by, self._again_at)
        return None if self.given_up or when == inf else when

    def ask(self, now: float) -> bool:
        """Say whether to ask for a purge now; True means that it is asked for."""
        if self.given_up or not self._dirty or self._asking or (self._coming and not self._hurried):
            return False
        self._dirty = False
        self._asking = True
        self._response_by = now + RESPONSE_TIME
        return True

    def hurry(self) -> None:
        """Do not wait for acknowledgements any more, but purge now what there is; each that still comes leads to one more."""
        self._hurried = True

    # The chunks that were sent.

    def sent(self) -> None:
        """Count a chunk whose acknowledgement may still come."""
        self._coming += 1

    def landed(self) -> None:
        """It came: the chunk is stored, or was refused."""
        self._coming -= 1
        self._dirty = True

    def unsent(self) -> None:
        """The chunk never left us."""
        self._coming -= 1

    def missed(self) -> None:
        """Its acknowledgement was lost with the connection."""
        self._coming -= 1
        self._dirty = self._unsettled = True

    # The purge.

    def purged(self, now: float) -> None:
        """The server has done it."""
        self._over()
        self._attempts = 0
        if self._unsettled:
            self._unsettled = False
            self._again_at = now + SETTLING

    def lost(self) -> None:
        """The response was lost with the connection."""
        self._over()
        self._dirty = True

    def postponed(self, now: float) -> None:
        """The server was not ready for it: later, again."""
        self._over()
        self._again_at = now + SETTLING
        self._count()

    def refused(self) -> None:
        """The server will not do it."""
        self._over()
        self.given_up = True

    def look(self, now: float) -> None:
        """Look again: the time has come that `look_at` named."""
        if now >= self._again_at:
            self._again_at = inf
            self._dirty = True
        if now >= self._response_by:
            self._over()
            self._dirty = True
            self._count()

    def _over(self) -> None:
        self._asking = False
        self._response_by = inf

    def _count(self) -> None:
        self._attempts += 1
        self.given_up = self._attempts > ATTEMPTS
