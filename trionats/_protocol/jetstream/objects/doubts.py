"""An info that was sent, and nobody waits any more for what became of it: what to do until that is known (design 40).

Strategy
    It may be stored, lost, or still on its way, and a look at its place cannot tell the last two apart. So the same info is sent again, which
    expects the same one in its place: it is stored once at the most, and what is refused as overtaken cannot be stored later
    either. Only then a look says which of the two has happened, and whose chunks are to go.

Invariants
    Nothing is to be purged before the stream itself has acknowledged it, or said that something else stands in its place.
    Chunks that an info names, wherever the object was renamed to, are not to be purged.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trionats import api
    from trionats._protocol.jetstream.objects.places import Place

__all__ = ["ATTEMPTS", "PAUSE", "RESPONSE_TIME", "Doubt", "is_ours"]

#: After how many seconds it is tried again, where the server was not ready for it.
PAUSE: Final = 5.0
#: After how many seconds something without a response is tried again.
RESPONSE_TIME: Final = 30.0
#: How often that is done.
ATTEMPTS: Final = 24


def is_ours(found: Place, info: api.ObjectInfo, place: Place) -> bool:
    """Say whether what stands there is what was written, or somebody's later word on that.

    Args:
        found: What stands there.
        info: What was written.
        place: What it was to take the place of.
    """
    if found.info is None:
        return False
    if info.nuid and info.nuid != place.nuid:
        return found.nuid == info.nuid
    # Only what is said of the data was changed: whoever says the very same has made ours true.
    return found.info.as_dict() == info.as_dict()


class Doubt:
    """One info of which it is not known whether it is stored.

    Args:
        info: The info.
        place: What it is to take the place of.
    """

    def __init__(self, info: api.ObjectInfo, place: Place) -> None:
        self._info, self._place = info, place
        self._asking = self._overtaken = False
        self._attempts = 0
        self._seen: set[str] = set()
        # Chunks that have to go unless a place is found that has them.
        self._unclaimed: set[str] = set()
        self.look_at = -inf
        """When to call `look`."""
        self.reading = ""
        """The place that is to be read; empty where the info is to be sent again."""
        self.over = False
        """Whether nothing is left to do, but what the other attributes say."""
        self.given_up = False
        """Whether it was in vain."""
        self.old_goes = self.new_goes = False
        """Whose chunks nobody has any more: those of the info before, those of this one."""

    def __repr__(self) -> str:
        return f"<Doubt, {'over' if self.over else self.reading or 'sending'}>"

    def ask(self, now: float) -> bool:
        """Say whether to send or to read now; True means that it is done."""
        if self.over or self._asking or now < self.look_at:
            return False
        self._asking = True
        self.look_at = now + RESPONSE_TIME
        return True

    def look(self, now: float) -> None:
        """Look again: the time has come that `look_at` named."""
        if self._asking and now >= self.look_at:
            self.postponed(now)

    def acknowledged(self) -> None:
        """The stream has stored it; the chunks before it may have another place."""
        self._unclaimed = {self._place.nuid} - {""}
        self._seen = {self._place.subject}
        self._follow("")

    def refused(self, *, overtaken: bool) -> None:
        """It was refused, which says nothing of what was sent before; the place does.

        Args:
            overtaken: Whether the stream itself says that something else is the last one there.
        """
        self._overtaken = overtaken
        self._seen.clear()
        self._next(self._place.subject)

    def lost(self) -> None:
        """The response was lost with the connection: once more with the next one."""
        self._next()

    def postponed(self, now: float) -> None:
        """The server was not ready for it: later, again."""
        self._next(when=now + PAUSE)
        self._attempts += 1
        if self._attempts > ATTEMPTS:
            self._end()
            self.given_up = True

    def found(self, place: Place, now: float) -> None:
        """The place was read that was to be.

        Args:
            place: What stands there.
            now: The time.
        """
        if not self._seen:
            # It cannot be older than what it has replaced: a leader that was one says so.
            newer = place.revision > self._place.revision
            if newer and is_ours(place, self._info, self._place):
                self.acknowledged()
                return
            if not newer or not self._overtaken:
                self.postponed(now)
                return
            if self._info.nuid == self._place.nuid:
                self._end()  # whoever overtook a marker purges what it was about
                return
            self._unclaimed = {self._place.nuid, self._info.nuid} - {""}
        self._seen.add(place.subject)
        self._unclaimed.discard(place.claim)
        self._follow(place.shared)

    def _follow(self, shared: str) -> None:
        """Read the next place where the chunks may be named, or know that they are nowhere."""
        for subject in (shared, self._place.shared) if self._unclaimed else ():
            if subject and subject not in self._seen:
                self._next(subject)
                return
        # Who overtook us has replaced the one before, or ours that had.
        old, new = self._place.nuid, self._info.nuid
        self._end(old=old in self._unclaimed, new=new != old and new in self._unclaimed)

    def _next(self, reading: str = "", *, when: float = -inf) -> None:
        self.reading = reading
        self._asking = False
        self.look_at = when

    def _end(self, *, old: bool = False, new: bool = False) -> None:
        self.over = True
        self._asking = False
        self.old_goes, self.new_goes = old, new
