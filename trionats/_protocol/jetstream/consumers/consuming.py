"""Reading a pull consumer for as long as somebody wants: what to do next, through whatever happens to it (design 79 to 82).

Strategy
    `Consuming` is told what came (`received`, `status`, `inspected`, ...) and asked what to do (`next`); it never waits, sends or
    reads a clock. `Window` decides with it how much to ask for. The consumer is the user's own, so unlike an ordered reader it never
    makes another one: whatever happens, the same consumer is asked again, until it is known to be gone.

What is done when
    A request ended, or was refused because the leader changes: it is repeated, at once or with a growing pause, and a pause is never
    longer than `_LONGEST_PAUSE`: who waits for a message published after an election waits no longer than that.

    Nothing was heard for two heartbeats although something was asked for: what was asked for is forgotten, a new inbox takes the
    place of the old one (`Renew`), in which what the server had sent before still is worth having, and new requests go out at once. Then
    the consumer is looked at (`Inspect`), since two things are never told: that it is gone in a way that nobody notices, and that it
    has as many requests as it takes (`max_waiting`), which the server keeps from those who asked for heartbeats.

    Nobody listens (503): the consumer or the stream is gone, or has no leader, or JetStream is not up yet. It is looked at; what
    is not found twice is gone. Where looking is forbidden, it is asked again for ever, and an event says so.

    Nothing is asked for because the reader sleeps: silence means nothing then, and where the server forgets consumers that
    nobody asks, a request that no message fits into keeps it alive.

    The next message is larger than the credit: where nobody chose that, it is asked for alone and without a limit; where
    somebody did, its size is found out (`Measure`), and reading fails with both numbers.

    The consumer gives the last message of each subject: it stands still at each one that was deleted since it was made, though
    more wait behind that, until a heartbeat is due or another request comes. So heartbeats are asked for each second. And it
    loses what does not fit into a request's bytes; so no request names a number (design 112), neither to a consumer that nobody looked
    at, and a part of the credit is left for the signs of life, each of which may bring a message.

    Messages waited past their ack wait: the reader is slower than the credit supposes. From then on no more are asked for than it took
    meanwhile, so that another reader has the rest; that grows again slowly while all are taken in time.

Invariants
    * What was asked for and has not come, and what was handed over and not taken, are together never more than the credit.
    * While it runs, is connected, does not pause and has room, something is asked for.
    * It fails once, and says nothing but that from then on. A reconnect never ends it.
    * Each kind of news is told once an episode, which the next message that is taken ends; a pin that comes or goes is always told.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from trionats import errors
from trionats._protocol.jetstream.actions import Fail, Inspect, Measure, Wait
from trionats._protocol.jetstream.pull import Ending, Pull, Window, pull_limit
from trionats._protocol.jetstream.refusals import TOLD_AFTER, backoff, consumer_gone

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from trionats._protocol.jetstream.consumers.demand import Demand

__all__ = ["UNKNOWN", "Consuming", "News", "Renew", "Step", "Tell", "Traits"]

#: How long nothing is asked for at the most while nobody listens.
_LONGEST_PAUSE: Final = 1.0
#: After what time a consumer that was not found is looked for again, before it counts as gone.
_SECOND_LOOK_AFTER: Final = 0.25
#: How often the server is to hear of us within the time after which it forgets a consumer.
_SIGNS: Final = 3
#: How long such a request waits.
_SIGN_SECONDS: Final = 0.1
#: After what time the server forgets a consumer without a name where nobody said so.
_FORGOTTEN_AFTER: Final = 5.0
#: How often a consumer is woken that stands still at what was deleted.
_WAKE_EVERY: Final = 1.0
#: The part of the credit that is left for signs of life of such a consumer.
_SPARE: Final = 8
#: News of one kind come no faster than this.
_QUIET: Final = 1.0


class News(enum.Enum):
    """What somebody should know."""

    SILENT = enum.auto()
    """Nothing was heard for two heartbeats."""
    LIMITED = enum.auto()
    """The server refuses requests because of a limit of the consumer: `text` is what it says."""
    UNREACHABLE = enum.auto()
    """Nobody has listened to several requests in a row."""
    STRANGE = enum.auto()
    """The server sent a status that nobody knows: `number` and `text`."""
    PINNED = enum.auto()
    """The server gives the messages to us alone."""
    UNPINNED = enum.auto()
    """It does so no longer."""
    EXPIRED = enum.auto()
    """Messages waited past their ack wait and were dropped: `number` of them so far."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell somebody."""

    news: News
    number: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Renew:
    """Take a new inbox in place of the one that is used; what still comes to that is received like the rest."""


Step: TypeAlias = "Pull | Wait | Inspect | Fail | Tell | Renew | Measure"


@dataclass(frozen=True, slots=True)
class Traits:
    """What is known of a consumer; 0 for what is not limited.

    Attributes:
        known: Whether anything is.
        forgotten_after: After how many seconds without a request the server deletes it; 0 for never.
        max_waiting: How many requests may wait there.
        max_batch: How many messages one may ask for.
        max_expires: How many seconds one may wait.
        max_bytes: How many bytes one may ask for.
        pin_seconds: After how many seconds without a request a client loses its pin.
        halts: Whether it stands still at what was deleted since it was made, and loses what does not fit (`last_per_subject`).
    """

    known: bool = True
    forgotten_after: float = 0.0
    max_waiting: int = 0
    max_batch: int = 0
    max_expires: float = 0.0
    max_bytes: int = 0
    pin_seconds: float = 0.0
    halts: bool = False


#: A consumer that nobody has looked at.
UNKNOWN: Final = Traits(known=False, forgotten_after=_FORGOTTEN_AFTER)


class Consuming:
    """The decisions of one reader of a pull consumer.

    Args:
        stream: The stream's name.
        consumer: The consumer's.
        demand: What is wanted of it.
        traits: What is known of it.
        rng: Where the jitter comes from.

    Attributes:
        failure: Why it is over; None while it is not.
        expired: How many messages waited past their ack wait.
    """

    def __init__(self, stream: str, consumer: str, demand: Demand, traits: Traits, rng: random.Random) -> None:
        self.failure: Exception | None = None
        self.expired = 0
        self._stream, self._name, self._rng = stream, consumer, rng
        self._chosen_bytes = demand.max_bytes
        self._known, self._halts = traits.known, traits.halts
        self._window = window = Window(
            demand.max_messages,
            demand.credit_bytes,
            heartbeat=min(demand.pulse, _WAKE_EVERY) if traits.halts and demand.heartbeat is None else demand.pulse,
            expires=demand.expires,
            rng=rng,
            threshold_messages=demand.threshold_messages,
            threshold_bytes=demand.threshold_bytes,
            terms=demand.terms.fields(),
        )
        self._credit, self._handed_over = demand.max_messages, 0
        self._wanted = demand.stop_after
        window.wanted = demand.stop_after or inf
        for kind, limit in (
            ("batch", traits.max_batch),
            ("expires", traits.max_expires),
            # Whoever is pinned has to be heard of in time.
            ("expires", traits.pin_seconds / 2),
            ("max_bytes", traits.max_bytes),
        ):
            if limit > 0:
                self._limit(kind, limit)
        window.one_at_a_time = traits.max_waiting == 1
        window.by_list = traits.halts or not traits.known
        self._sign_every = traits.forgotten_after / _SIGNS or inf
        if window.by_list and self._sign_every < inf:
            window.spare = demand.max_messages // _SPARE
        self._sign_at = inf
        self._linked, self._stopped = True, False
        self._renew = self._measure = self._mute = self._expiring = False
        self._look_at = inf
        self._silences = self._absences = self._misses = 0
        self._episode: set[News] = set()
        self._told_at: dict[News, float] = {}
        self._news: list[Tell] = []
        # Done for each message: nothing stands between.
        self.received = window.received

    @property
    def done(self) -> bool:
        """Whether as many messages were handed over as were wanted."""
        return self._window.wanted <= 0

    @property
    def enough(self) -> bool:
        """Whether as many messages are buffered or were handed over as are wanted."""
        return self._window.buffered_messages >= self._window.wanted

    @property
    def pin(self) -> str:
        """What the server calls us as long as we are the pinned one, as far as is known; else nothing."""
        return self._window.pin

    @property
    def patience(self) -> float:
        """How many seconds of silence are too long."""
        return self._window.patience

    @property
    def silent_after(self) -> float:
        """Until when something must have been heard."""
        return self._window.silent_after if self._linked and not self._stopped else inf

    # What to do

    def next(self, now: float) -> Step:
        """Say what to do now; `Pull`, `Tell` and `Renew` count as done, the others are said again.

        Returns:
            One thing to do.
        """
        if self._news:
            return self._news.pop(0)
        if self.failure is not None:
            return Fail(self.failure)
        if not self._linked or self._stopped:
            return Wait(inf)
        if self._renew:
            self._renew = False
            return Renew()
        if self._measure:
            return Measure()
        window = self._window
        pull = window.pull(self._name, now)
        if pull is None and now >= self._sign_at:
            self._sign_at = now + self._sign_every
            if not window.asked:
                pull = window.touch(self._name, _SIGN_SECONDS, certain=self._halts)
        if pull is not None:
            self._sign_at = now + self._sign_every
            return pull
        if now >= self._look_at:
            return Inspect(self._name)
        # No status says that a request for messages of a list is complete.
        sign_at = inf if window.asked and not window.by_list else self._sign_at
        return Wait(min(window.wakes_at(now), self._look_at, sign_at))

    def overdue(self, now: float) -> None:
        """Tell that time has passed, and that nothing waits to be read: now silence is silence."""
        if now < self.silent_after:
            return
        self._silences += 1
        self._window.forget()
        self._renew = True
        self._look_at = inf if self._mute else now
        self._tell(News.SILENT, now)

    # What came

    def overflowed(self, size: int, now: float) -> None:
        """Tell that a message came that there is no room for, or that is more than was wanted; it was given back."""
        self._window.arrived(size, now)

    def taken(self, size: int, now: float, *, handed_over: bool) -> bool:
        """Tell that a message left the buffer.

        Args:
            size: Its size.
            handed_over: Whether somebody has it now; else it had waited past its ack wait.

        Returns:
            Whether something may be to be done now.
        """
        worth_a_look = self._window.taken(size)
        if handed_over:
            self._handed_over += 1
            if self._wanted:
                self._window.wanted -= 1
            if self._episode:
                self._episode.clear()
            if self._silences or self._misses:
                self._silences = self._misses = self._absences = 0
        else:
            self.expired += 1
            self._expiring = True
        if self._expiring and (handed_over or not self._window.buffered_messages):
            # All of them have been seen that waited too long together.
            self._expiring = False
            self._tell(News.EXPIRED, now, self.expired)
            # So many were taken while the others waited.
            self._window.resize(max(1, min(self._window.credit, self._handed_over)))
            self._handed_over = 0
            return True
        if self._window.credit < self._credit and not self._window.buffered_messages:
            # All were taken in time: a little more will be, too.
            credit = self._window.credit
            self._window.resize(min(self._credit, credit + credit // 8 + 1))
        return worth_a_look

    def tagged(self, pin: str) -> None:
        """Tell what the server called us in a message.

        Args:
            pin: The value of its `Nats-Pin-Id`.
        """
        if pin != self._window.pin:
            self._window.pin = pin
            self._news.append(Tell(News.PINNED))

    def status(self, number: int, code: int, description: str, headers: Mapping[str, str], now: float) -> None:
        """Tell that a status came.

        Args:
            number: Which request it is about; 0 for one to an inbox that was replaced.
            code: 100, 404, 409, ...
            description: Its text.
            headers: Its header fields.
        """
        window = self._window
        was_pinned = bool(window.pin)
        match window.status(number, code, description, headers, now):
            case Ending.ALIVE:
                self._episode.discard(News.SILENT)
                self._silences = self._misses = 0
            case Ending.GONE if code == 503:
                self._missed(now)
            case Ending.GONE:
                push = "push based" in description.lower()
                why = "it is push based now" if push else "it was deleted, or its stream"
                self._fail(consumer_gone(self._stream, self._name, why))
            case Ending.MISTAKEN:
                self._fail(self._refusal(400, f"the server does not understand our request: {description}"))
            case Ending.TOO_LARGE:
                # Where nobody chose so little, the window asks for it alone.
                self._measure = window.most_bytes == self._chosen_bytes
            case Ending.LIMITED:
                self._limit(*pull_limit(description))
                self._tell(News.LIMITED, now, text=description)
            case Ending.UNPINNED if was_pinned and not window.pin:
                self._news.append(Tell(News.UNPINNED))
            case Ending.STRANGE:
                self._tell(News.STRANGE, now, code, description)
            case Ending.UNKNOWN if description == "Consumer Deleted" and not self._mute:
                # Somebody may have deleted the consumer, and made another one of that name.
                self._look_at = min(self._look_at, now)
            case _:
                pass

    # What came of it

    def inspected(self, waiting: int, max_waiting: int, now: float) -> None:
        """Tell what the server says of the consumer: it is there.

        Args:
            waiting: How many requests wait there.
            max_waiting: How many may.
        """
        self._look_at, self._absences = inf, 0
        # The one that is there may be our own new request: so with one place, only what was lost twice was refused.
        if 0 < max_waiting <= waiting and self._silences > int(max_waiting == 1):
            self._window.one_at_a_time = True
            text = f"Exceeded MaxWaiting: {waiting} requests wait, and there is room for {max_waiting}"
            self._tell(News.LIMITED, now, text=text)

    def inspect_failed(self, error: Exception | None, now: float) -> None:
        """Tell that nothing could be found out about the consumer.

        Args:
            error: What the server said; None for nothing.
        """
        self._look_at = inf
        if isinstance(error, errors.NotFoundError):
            self._absences += 1
            self._look_at = now + _SECOND_LOOK_AFTER
            if self._absences > 1:
                why = error.description or "not found"
                self._fail(consumer_gone(self._stream, self._name, why, error.err_code))
        elif isinstance(error, errors.PermissionsViolationError):
            self._mute = True

    def measured(self, size: int) -> None:
        """Tell how large the next message is.

        Args:
            size: Its size as the server counts it; 0 where that could not be found out.
        """
        told = f"has {size}, its subjects and headers included" if size else "is larger"
        self._fail(self._refusal(409, f"max_bytes is {self._chosen_bytes}: the next message {told}"))

    def forbidden(self, error: Exception) -> None:
        """Tell that the server refuses to be asked for messages.

        Args:
            error: What says so.
        """
        self._fail(error)

    # What happened to the connection, and to who reads

    def connection_lost(self) -> None:
        """Tell that the connection is lost: what was asked for is, too, and a new inbox was taken."""
        self._linked = self._renew = False
        self._window.forget()
        self._look_at = inf
        self._silences = self._misses = self._absences = 0
        self._episode.clear()

    def connection_restored(self, now: float) -> None:
        """Tell that there is a connection again; it may be another consumer of that name."""
        self._linked = True
        if self._known and not self._mute:
            self._look_at = now

    def stop(self) -> None:
        """Tell that nobody wants more."""
        self._stopped = True

    # Inside

    def _missed(self, now: float) -> None:
        self._misses += 1
        self._window.pause(now, min(_LONGEST_PAUSE, backoff(self._misses - 1, self._rng)))
        if not self._mute:
            self._look_at = min(self._look_at, now)
        if self._misses == TOLD_AFTER:
            self._tell(News.UNREACHABLE, now)

    def _limit(self, kind: str, limit: float) -> None:
        window = self._window
        if kind == "batch":
            window.most_messages = min(window.most_messages, int(limit))
        elif kind == "max_bytes":
            window.most_bytes = min(window.most_bytes, int(limit))
        elif kind == "expires":
            window.limit_time(limit)

    def _refusal(self, code: int, description: str) -> Exception:
        text = f"consumer {self._name!r} of stream {self._stream!r}: {description}"
        known = {"code": code, "err_code": None, "description": description, "stream": self._stream, "seq": None}
        return errors.explained(errors.BadRequestError, text, **known)

    def _tell(self, news: News, now: float, number: int = 0, text: str = "") -> None:
        if news not in self._episode and now >= self._told_at.get(news, -inf) + _QUIET:
            self._episode.add(news)
            self._told_at[news] = now
            self._news.append(Tell(news, number, text))

    def _fail(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error
