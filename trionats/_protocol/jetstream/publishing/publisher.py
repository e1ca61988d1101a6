"""Many publishes in flight: what is under way, what is to be sent again (design 68), and what it is not known of any more.

Theory of operation
    A publish takes a place in the window from its first frame to its one end. Each time it is sent its reply is expected under a
    new token, so a reply that comes late, to an earlier attempt, finds nobody. In between it is in one of four states:

    * awaited: its frame was queued, and its reply has not come; the oldest attempt stands first.
    * paused: nobody listened, or its own twin is being stored; it is sent again after a while.
    * unsure: it was sent, and its reply will not come any more, because the connection broke or its time is over. Whether it is
      stored is not known. It is sent again, under the id that makes it a duplicate if it is, or it ends as unknown.
    * checked: the stream refused it for what it expected; somebody looks whether what stands in the way is the message itself.

    Nothing is ever sent again that may be stored already unless three things hold: it has an id, there is a connection (so that it
    does not lie somewhere while time passes), and the stream's duplicate window, counted from the first time that it was sent,
    is known and not over yet. Without `resend` nothing is unsure: that is an end.

    A publish that never left us is never in doubt. Its frame waits where all frames do, over any number of connections, and is
    not sent twice by us.

Invariants
    * At most `max_pending` are under way, and each ends once.
    * No time is looked at here: it is passed in as `now`, in seconds of any clock that runs steadily.
"""

from __future__ import annotations

import enum
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from trionats._protocol.jetstream.publishing.publish import CONFLICTS, MSG_ID, PUBLISH_RETRY_WAIT, UNDER_WAY, Attempts
from trionats._protocol.subjects import matches

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from trionats._protocol.outbox import Queued

__all__ = ["LONGEST_REACH", "Fate", "Publish", "Reaches", "Sender", "Window"]

#: What a server takes for the duplicate window where nobody chose one: a window that is not known is taken for no longer.
LONGEST_REACH: Final = 120.0
#: What part of a window is made use of: what is sent at its very end would arrive behind it.
SAFE_PART: Final = 0.9


class Publish:
    """One publish under way.

    Attributes:
        subject: Where it goes.
        asked: What the stream is asked for (`publishing.publish_headers`), the message's id among it.
        token: What its reply is expected under.
        queued: Its frame, until it is acknowledged.
        outcome: What became of it: the acknowledgement, as it came or read, or why it failed; None while it is under way.
        told: Is set when there is an outcome, if somebody waits for it.
    """

    __slots__ = (
        "asked",
        "attempts",
        "may_be_stored",
        "outcome",
        "queued",
        "sent_at",
        "since",
        "subject",
        "token",
        "told",
    )

    def __init__(self, subject: str, asked: Mapping[str, str] | None) -> None:
        self.subject = subject
        self.asked = asked
        self.token = ""
        self.queued: Queued | None = None
        self.outcome: Any = None
        self.told: Any = None
        self.since = self.sent_at = -inf
        self.may_be_stored = False
        self.attempts: Attempts | None = None


class Fate(enum.Enum):
    """What becomes of a publish."""

    AGAIN = enum.auto()
    """It is sent again, now."""
    LATE = enum.auto()
    """It ends: its reply has not come in time."""
    UNKNOWN = enum.auto()
    """It ends: it may be stored, and can be sent again no more."""
    CHECK = enum.auto()
    """It is looked whether it is itself what stands in its way."""
    WAIT = enum.auto()
    """Nothing, for now."""
    FAIL = enum.auto()
    """It ends: as the reply says."""


class Sender(Protocol):
    """Where frames wait."""

    def waits(self, publish: Publish, /) -> bool:
        """Say whether the frame of a publish still waits, so that no server can have seen it."""

    def withdraw(self, publish: Publish, /) -> None:
        """Take that frame back."""


class Reaches:
    """How long the duplicate windows are of the streams that take what is published."""

    def __init__(self) -> None:
        self._known: list[tuple[Collection[str], float]] = []
        self._missing: dict[str, None] = {}

    def learn(self, patterns: Collection[str], seconds: float) -> None:
        """Take note of a stream.

        Args:
            patterns: The subjects that it listens to.
            seconds: Its duplicate window.
        """
        self._known.append((patterns, seconds))

    def miss(self, subject: str) -> None:
        """Take note that nobody says what window there is for a subject."""
        self._missing[subject] = None

    def forget(self) -> None:
        """Know nothing any more: streams may have been changed."""
        self._known.clear()
        self._missing.clear()

    def of(self, subject: str) -> float | None:
        """Say for how long what is published to a subject may be sent again: 0 for not at all, None where it is not known yet."""
        for patterns, seconds in self._known:
            if any(matches(pattern, subject) for pattern in patterns):
                return seconds
        return 0.0 if subject in self._missing else None


class Window:
    """The publishes of one publisher that are under way.

    Args:
        max_pending: How many there may be.
        patience: How many seconds a reply may take; where what may be stored is sent again for it, a quarter at least.
        sender: Where frames wait.
        resend: Whether what may be stored is sent again; all have ids then.
        online: Whether there is a connection.
    """

    def __init__(self, max_pending: int, patience: float, sender: Sender, *, resend: bool, online: bool) -> None:
        self._patience = max(patience, PUBLISH_RETRY_WAIT) if resend else patience
        self._sender = sender
        self._resend = resend
        self._online = online
        self._paused: dict[Publish, float] = {}
        self._unsure: dict[Publish, None] = {}
        self._checked: dict[Publish, None] = {}
        self.awaited: dict[str, Publish] = {}
        """Those whose reply is expected, by its token."""
        self.max_awaited = self._max_pending = max_pending
        """How many of these there may be, beside those that are in another state."""
        self.reaches = Reaches()

    def __len__(self) -> int:
        return len(self.awaited) + self._aside

    @property
    def has_room(self) -> bool:
        """Whether another one may come."""
        return len(self.awaited) < self.max_awaited

    def under_way(self) -> list[Publish]:
        """List all of them."""
        return [*self.awaited.values(), *self._paused, *self._unsure, *self._checked]

    # What is sent, and what comes back.

    def sent(self, publish: Publish, token: str, now: float) -> None:
        """Take note that a publish was queued, the first time or again; there is room for it.

        Args:
            publish: The publish.
            token: What its reply is expected under.
            now: The time.
        """
        publish.token = token
        publish.sent_at = now
        if publish.since == -inf:
            publish.since = now
        self.awaited[token] = publish

    def nobody(self, publish: Publish, now: float) -> Fate:
        """Judge the reply, to one that was awaited, that nobody listens.

        With `resend` it is tried again for as long as a reply may take; one that may be stored already for as long as it may
        be sent again. Without, as often as ADR-22 says.
        """
        if self._resend:
            again = publish.may_be_stored or now - publish.since < self._patience
            return self._pause(publish, now, PUBLISH_RETRY_WAIT if again else None)
        return self._pause(publish, now, _attempts(publish).nobody())

    def refused(self, publish: Publish, err_code: int | None, now: float) -> Fate:
        """Judge the refusal of one that was awaited.

        Args:
            publish: The publish.
            err_code: What the server calls it.
            now: The time.
        """
        if err_code == UNDER_WAY:
            publish.may_be_stored = True
            return self._pause(publish, now, _attempts(publish).under_way())
        if err_code in CONFLICTS and publish.asked is not None and MSG_ID in publish.asked:
            self._checked[publish] = None
            self._count()
            return Fate.CHECK
        return Fate.FAIL

    def resumes(self, publish: Publish) -> float:
        """Say when one that waits (`Fate.WAIT`) is to be sent again."""
        return self._paused[publish]

    def found(self, publish: Publish, *, known: bool = True) -> bool:
        """Take back one that was checked.

        Args:
            publish: The publish.
            known: Whether it was found out. If not, one that may be sent again is.

        Returns:
            Whether it ends now.
        """
        del self._checked[publish]
        self._count()
        if not known and self._resend:
            self._doubt(publish)
            return False
        return True

    # The connection.

    def lost(self) -> list[Publish]:
        """Take note that the connection broke.

        Returns:
            Those that end: they may be stored, and are not sent again.
        """
        self._online = False
        self.reaches.forget()
        broken = []
        for token, publish in list(self.awaited.items()):
            if self._sender.waits(publish):
                if not publish.may_be_stored:
                    continue
                # It was sent before, and would lie there while its time passes.
                self._sender.withdraw(publish)
            del self.awaited[token]
            broken.append(publish)
        for publish in list(self._paused):
            if publish.may_be_stored:
                del self._paused[publish]
                broken.append(publish)
        if not self._resend:
            self._count()
            return broken
        for publish in broken:
            self._doubt(publish)
        return []

    def restored(self, now: float) -> list[Publish]:
        """Take note that there is a connection again.

        Returns:
            Those that end: they were dropped, since the new server does not take so much.
        """
        self._online = True
        dropped = [publish for publish in self.awaited.values() if not self._sender.waits(publish)]
        for publish in dropped:
            del self.awaited[publish.token]
        for publish in self.awaited.values():
            # They never left us, and are about to.
            publish.since = now
        return dropped

    # Time.

    def due(self) -> float:
        """Say when `step` has something to do, unless something else happens before."""
        first = next(iter(self.awaited.values()), None)
        times = [inf if first is None else first.sent_at + self._patience, *self._paused.values()]
        times += [publish.since + self._limit(publish) for publish in self._unsure]
        return min(times)

    def step(self, now: float) -> list[tuple[Publish, Fate]]:
        """Do what the time has come for, and what has become possible.

        Args:
            now: The time.

        Returns:
            What becomes of those that something happens to. `AGAIN` is to be followed by `sent`, or by an end; nothing else is
            under way any more.
        """
        told: list[tuple[Publish, Fate]] = []
        self._look_at_replies(now, told)
        for publish in [publish for publish, when in self._paused.items() if when <= now]:
            del self._paused[publish]
            if publish.may_be_stored and self._resend:
                self._unsure[publish] = None
            else:
                told.append((publish, Fate.AGAIN))
        for publish in list(self._unsure):
            if now - publish.since >= self._limit(publish):
                told.append((publish, Fate.UNKNOWN))
            elif self._online and self.reaches.of(publish.subject) is not None:
                told.append((publish, Fate.AGAIN))
            else:
                continue
            del self._unsure[publish]
        self._count()
        return told

    def question(self) -> str | None:
        """Give a subject whose duplicate window is to be found out, if there is one."""
        if not self._online:
            return None
        return next((each.subject for each in self._unsure if self.reaches.of(each.subject) is None), None)

    def end(self) -> list[Publish]:
        """Give up all of them."""
        all_of_them = self.under_way()
        for table in (self.awaited, self._paused, self._unsure, self._checked):
            table.clear()
        self._count()
        return all_of_them

    # Inside.

    @property
    def _aside(self) -> int:
        return len(self._paused) + len(self._unsure) + len(self._checked)

    def _count(self) -> None:
        self.max_awaited = self._max_pending - self._aside

    def _pause(self, publish: Publish, now: float, seconds: float | None) -> Fate:
        if seconds is None:
            return Fate.FAIL
        self._paused[publish] = now + seconds
        self._count()
        return Fate.WAIT

    def _doubt(self, publish: Publish) -> None:
        publish.may_be_stored = True
        self._unsure[publish] = None
        self._count()

    def _limit(self, publish: Publish) -> float:
        reach = self.reaches.of(publish.subject)
        return SAFE_PART * (LONGEST_REACH if reach is None else reach)

    def _look_at_replies(self, now: float, told: list[tuple[Publish, Fate]]) -> None:
        for token, publish in list(self.awaited.items()):
            if publish.sent_at + self._patience > now:
                return
            del self.awaited[token]
            waits = self._sender.waits(publish)
            if not self._resend:
                if waits:
                    self._sender.withdraw(publish)
                told.append((publish, Fate.LATE))
            elif waits:
                # It waits for a connection, or for one that is slow, and no reply is late.
                publish.sent_at = now
                self.awaited[token] = publish
            else:
                self._doubt(publish)


def _attempts(publish: Publish) -> Attempts:
    if publish.attempts is None:
        publish.attempts = Attempts()
    return publish.attempts
