"""A member of a partitioned consumer group: what to do next, as its group's configuration changes.

Strategy
    `Member` is told what came (`configured`, `found`, `failed`, ...) and asked what to do (`next`); it never waits, sends or reads a clock.
    All processes of all members decide alone, from the same configuration. What keeps two of them from one partition is the server: in the
    work queue of an elastic group it takes no two consumers whose filters overlap. So a partition changes hands when its old owner's consumer
    is deleted, and whoever is refused meanwhile asks again, soon.

What a change of partitions is
    `Settle`: nothing more is asked for, what nobody has seen is given back, and what somebody holds gets its verdict, unless its ack wait
    is over first. `Delete`: the consumer is deleted, since one that got more partitions has passed by what is in them. `Look`, `Create`,
    `Read`: the configuration is read once more (what a watcher says may be late), the consumer is created anew, and read.

Several processes of one member
    share its consumer, and one of them is pinned. That one deletes it. Where nobody is, any of them does, a moment later: another one
    may not have heard of the change yet, and be given a message just now. The others look at it until it has the right filters, and
    delete it all the same when that has not come true within an ack wait: the one that was pinned is gone, too. Whoever finds the
    consumer deleted under it looks, and creates it if nobody has.

Static groups
    have no changes: a member ends when its group's configuration is another one, and when its consumer reads something else than it should.

Invariants
    * A member that has partitions reads them, or something is on its way or due that leads there, or it has failed.
    * It reads nothing but what the newest configuration that it knows gives it.
    * A configuration that is older than one that it knows changes nothing. It fails once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias, final

from trionats import errors
from trionats._protocol.jetstream.actions import Fail, Wait
from trionats._protocol.jetstream.partitions.assets import ACK_WAIT, PRIORITY_GROUP, filters_of
from trionats._protocol.jetstream.partitions.groups import read, unlike
from trionats._protocol.jetstream.refusals import GIVEN_UP_AFTER, Refusals, Retry, backoff, is_missing

if TYPE_CHECKING:
    import random

    from trionats import api
    from trionats._protocol.jetstream.partitions.groups import Place

__all__ = ["Create", "Delete", "Inspect", "Look", "Member", "Read", "Settle", "Step", "Tell"]

#: How much longer than an ack wait others have to change a consumer of which we are not the pinned one.
_MARGIN: Final = 1.0
#: How much later than we another process may hear of a change.
_LAG: Final = 0.25
#: How often whoever waits for somebody else looks, at least.
_LONGEST_PAUSE: Final = 0.5
#: The server's numbers for: a consumer's filters overlap with another's in a work queue; there is one of that name with another configuration.
_OVERLAPS: Final = 10100
_EXISTS: Final = frozenset({10148, 10105, 10013})


@dataclass(frozen=True, slots=True)
class Look:
    """Read the configuration as the leader of its bucket has it, then tell `looked`, `deleted` or `failed`."""


@dataclass(frozen=True, slots=True)
class Inspect:
    """Look at the member's consumer, then tell `found` or `failed`."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create the consumer, then tell `created` or `failed`."""

    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the consumer, then tell `released` or `failed`."""


@dataclass(frozen=True, slots=True)
class Read:
    """Begin to read the consumer; until `Settle`, or until it is `gone`."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Read it no longer; wait until each message that somebody holds has its verdict, or its ack wait is over; then tell `settled`."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell somebody which partitions the member has."""

    partitions: tuple[int, ...]


Step: TypeAlias = "Look | Inspect | Create | Delete | Read | Settle | Tell | Fail | Wait"


class _State(enum.Enum):
    IDLE = enum.auto()
    """It has no partitions."""
    LOOKING = enum.auto()
    """Its consumer is to be looked at."""
    ABSENT = enum.auto()
    """There is no consumer: the configuration is looked at once more before one is created."""
    CREATING = enum.auto()
    FOUND = enum.auto()
    """There is the one that it is to read."""
    READING = enum.auto()
    SETTLING = enum.auto()
    RELEASING = enum.auto()
    """The consumer is to be deleted."""
    DOUBTING = enum.auto()
    """Something is gone that should not be: the configuration says whether the group is, too."""


@final
class Member:
    """The decisions of one process of one member.

    Args:
        place: The group.
        member: The member's name.
        group: Its configuration, as it was found.
        revision: The revision of that.
        rng: Where the jitter comes from.
    """

    def __init__(self, place: Place, member: str, group: api.ConsumerGroup, revision: int, rng: random.Random) -> None:
        self._place, self._name, self._rng = place, member, rng
        self._group, self._revision = group, revision
        self._filters = filters_of(group, member)
        self._state = _State.LOOKING if self._filters else _State.IDLE
        self._news: list[Tell] = [Tell(self._partitions)]
        self._failure: Exception | None = None
        self._failing: Exception | None = None
        # When it is looked, or tried, again; how often it was in a row; how long somebody else has to change the consumer.
        self._at = -inf
        self._tries = 0
        self._theirs_until = self._nobodys_until = inf
        self._ack_wait = ACK_WAIT
        self._refusals = Refusals()

    @property
    def _partitions(self) -> tuple[int, ...]:
        return tuple(self._group.partitions.get(self._name, ()))

    # What to do

    def next(self, now: float) -> Step:
        """Say what to do now; `Tell` and `Read` count as done, the others are said again.

        Returns:
            One thing to do.
        """
        if self._news:
            return self._news.pop(0)
        if self._failure is not None:
            return Fail(self._failure)
        state = self._state
        if state is _State.SETTLING:
            return Settle()
        if state is _State.FOUND:
            self._state = _State.READING
            return Read()
        if state in (_State.IDLE, _State.READING):
            return Wait(inf)
        if now < self._at:
            return Wait(self._at)
        if state is _State.CREATING:
            return Create(self._filters)
        if state is _State.RELEASING:
            return Delete()
        return Inspect() if state is _State.LOOKING else Look()

    # What the configuration is

    def stored(self, data: bytes, revision: int) -> None:
        """Tell what stands in the group's bucket, as somebody says.

        Args:
            data: The configuration.
            revision: Its revision.
        """
        if revision <= self._revision:
            return
        self._revision = revision
        try:
            group = read(self._place, data).group
        except ValueError as error:
            self._leave(self._place.changed(str(error)))
            return
        self._configured(group)

    def looked(self, data: bytes, revision: int) -> None:
        """Tell what stands there now, as the leader says: what `Look` asks for.

        Args:
            data: The configuration.
            revision: Its revision.
        """
        doubting = self._state is _State.DOUBTING
        self.stored(data, revision)
        if doubting:
            self._fail(self._failing)
        elif self._state is _State.ABSENT:
            self._state = _State.CREATING

    def _configured(self, group: api.ConsumerGroup) -> None:
        if field := unlike(self._group, group):
            self._leave(self._place.changed(f"{field} is another one than it was"))
            return
        had, self._group = self._partitions, group
        if self._partitions != had:
            self._news.append(Tell(self._partitions))
        filters, self._filters = self._filters, filters_of(group, self._name)
        if self._filters == filters:
            return
        if self._state is _State.READING:
            self._state = _State.SETTLING
        elif self._state not in (_State.SETTLING, _State.RELEASING, _State.DOUBTING):
            self._look_anew()

    def deleted(self, revision: int) -> None:
        """Tell that the group was deleted, or that nothing stands there.

        Args:
            revision: The revision of the marker; 0 for none.
        """
        if revision > self._revision or not revision:
            self._fail(self._place.missing("it was deleted"))

    # What came of it

    def found(self, info: api.ConsumerInfo | None, pin: str, now: float) -> None:
        """Tell what there is of the consumer.

        Args:
            info: What the server says of it; None where there is none.
            pin: What this process was called when it read it last; empty where it has not, or nobody has called it anything.
        """
        self._refusals.forget()
        if info is None:
            self.released()
            return
        config = info.config
        self._ack_wait = config.ack_wait or ACK_WAIT
        there = set(config.filter_subjects or ([config.filter_subject] if config.filter_subject else []))
        fits = there == set(self._filters) and PRIORITY_GROUP in (config.priority_groups or [])
        if self._failing is None and fits:
            self._state, self._tries = _State.FOUND, 0
        elif not self._place.elastic and not fits:
            consumer = self._place.consumer(self._name)
            another = self._place.changed(f"consumer {consumer!r} reads other subjects: it is another one's")
            self._fail(self._failing or another)
        else:
            pinned = next((state.pinned_client_id for state in info.priority_groups or []), None) or ""
            self._unfit(pinned, pin, now)

    def _unfit(self, pinned: str, pin: str, now: float) -> None:
        """Decide what becomes of a consumer that nobody is to read as it is.

        Args:
            pinned: Who is pinned; empty for nobody.
            pin: What this process was called.
        """
        if pinned and pinned != pin and (self._failing is not None or not self._filters):
            # That one sees to it.
            self._rest()
            return
        if pinned:
            self._theirs_until = min(self._theirs_until, now + self._ack_wait + _MARGIN)
            ours = pinned == pin or now >= self._theirs_until
        else:
            self._nobodys_until = min(self._nobodys_until, now + _LAG)
            ours = now >= self._nobodys_until
        if ours:
            self._release()
        else:
            self._pause(now)

    def created(self) -> None:
        """Tell that the consumer was created."""
        self._refusals.forget()
        self._state, self._tries, self._ack_wait = _State.FOUND, 0, ACK_WAIT
        self._theirs_until = self._nobodys_until = inf

    def released(self) -> None:
        """Tell that the consumer was deleted, or is not there."""
        self._refusals.forget()
        self._theirs_until = self._nobodys_until = inf
        if self._failing is None and self._filters:
            self._state, self._at = _State.ABSENT, -inf
        else:
            self._rest()

    def settled(self) -> None:
        """Tell that it is read no longer, and that what somebody held has got its verdict, or has had its time."""
        self._look_anew()

    def gone(self, error: Exception) -> None:
        """Tell that the consumer is not there any more, which was read.

        Args:
            error: What said so.
        """
        if self._state is _State.READING:
            if self._place.elastic:
                self._state, self._at = _State.LOOKING, -inf
            else:
                self._failing, self._state, self._at = error, _State.DOUBTING, -inf

    def failed(self, error: Exception, now: float) -> None:
        """Tell that what was to be done was not.

        Args:
            error: What the server said, or whatever else came instead.
        """
        number = error.err_code if isinstance(error, errors.APIError) else None
        if number in _EXISTS and self._state is _State.CREATING:
            self._state, self._at = _State.LOOKING, -inf
        elif number == _OVERLAPS and self._state is _State.CREATING:
            # Somebody has not let go yet. Meanwhile it may be somebody else's again.
            self._state = _State.ABSENT
            self._pause(now)
        elif is_missing(error) and self._state is not _State.DOUBTING:
            self._failing, self._state, self._at = error, _State.DOUBTING, -inf
        elif self._refusals.judge(error) is Retry.NEVER:
            self._fail(error)
        else:
            self._pause(now)

    # Inside

    def _pause(self, now: float) -> None:
        self._at = now + min(_LONGEST_PAUSE, backoff(self._tries, self._rng))
        self._tries = min(self._tries + 1, GIVEN_UP_AFTER)

    def _release(self) -> None:
        self._state, self._at, self._tries = _State.RELEASING, -inf, 0

    def _look_anew(self) -> None:
        self._state, self._at, self._tries = _State.LOOKING, -inf, 0
        self._theirs_until = self._nobodys_until = inf

    def _rest(self) -> None:
        """Have nothing to do any more."""
        self._state = _State.IDLE
        if self._failing is not None:
            self._fail(self._failing)

    def _leave(self, error: Exception) -> None:
        """Let go of what it has before it fails."""
        self._failing = error
        if self._state is _State.READING:
            self._state = _State.SETTLING
        elif self._state not in (_State.SETTLING, _State.RELEASING):
            self._fail(error)

    def _fail(self, error: Exception | None) -> None:
        self._failure = self._failure or error
