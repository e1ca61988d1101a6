"""One fetch: a request for messages and its life, until there is something to return or a reason why not.

Strategy
    `Fetch` is told what came (messages, statuses, a lost connection, what the server says of the consumer) and says what to do
    next: ask (`Pull`), wait (`Wait`), look at the consumer (`Inspect`), find out how large the next message is (`Measure`), give up
    (`Fail`), or return (None).

    What came is returned as soon as nothing more can be expected in a straight line: the batch or the bytes are full, the server
    ended the request, it fell silent, the connection broke, or time is up. Only a fetch that has got nothing asks again, within
    its own time: after a change of leader, with the next connection, without a pin that is not ours any more.

    Nothing to return is the server's word, a 404 or a 408, and never our guess (design 78): where nobody answered, or what was said last is
    that the consumer cannot be served just now, that is raised when time is up. So a program that works until there is
    nothing left does not take an outage for the end.

Time
    `expires` is what the server is told; our own timer is a margin longer, and is set once a request: neither messages nor
    heartbeats move it (a trickle of them would keep a fetch alive for ever). A deadline in force shortens what the server is
    told, so that its last word, and what came, are there before it; if only messages are, they are returned just before it. And
    what came first is returned after half its ack wait, while there is time to work on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final

from trionats import errors
from trionats._protocol import fields
from trionats._protocol.jetstream.actions import Fail, Inspect, Measure, Wait
from trionats._protocol.jetstream.consumers.priority import Terms
from trionats._protocol.jetstream.pull import Pull, before_deadline
from trionats._protocol.jetstream.refusals import consumer_gone, passes
from trionats._protocol.replies import NO_RESPONDERS

if TYPE_CHECKING:
    from trionats._protocol.jetstream.actions import Action

__all__ = ["EXPIRES", "Fetch", "Wanted"]

#: How many seconds a fetch takes at the most, where nobody says.
EXPIRES: Final = 5.0
#: How long a fetch that does not wait does: without that the server parks it where too much is unacknowledged.
_NO_WAIT: Final = 0.1
_SHORTEST: Final = 0.001
_LONGEST: Final = 86_400.0
_SHORTEST_HEARTBEAT: Final = 0.01
_MOST: Final = 1_000_000
_MOST_BYTES: Final = (1 << 63) - 1
#: How much longer than `expires` the server's word may take.
_MARGIN: Final = 1.0
#: From how long on heartbeats are asked for, and how often.
_LONG: Final = 10.0
_HEARTBEAT: Final = 5.0
#: How often from a consumer that stands still at what was deleted until it is woken.
_WAKE_EVERY: Final = 0.5
#: Which part of the time before a deadline is left when what came is returned without the server's word.
_PART: Final = 4
#: When a request that was refused for the moment is repeated: at once, then after these.
_PAUSES: Final = (0.0, 0.05, 0.1, 0.2, 0.4)
_LONGEST_PAUSE: Final = 0.8
#: Made once: to make a union takes longer than to check one.
_KINDS: Final[dict[str, Any]] = {
    "batch": int,
    "expires": float,
    "max_bytes": int | None,
    "no_wait": bool,
    "heartbeat": float | None,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The arguments of `Consumer.fetch`, which says what they mean.

    Raises:
        TypeError: One of them is of another kind.
        ValueError: One of them cannot be, or two exclude each other.
    """

    batch: int
    expires: float = EXPIRES
    max_bytes: int | None = None
    no_wait: bool = False
    heartbeat: float | None = None
    terms: Terms = field(default_factory=Terms)
    call: str = "fetch"

    def __post_init__(self) -> None:
        for name, hint in _KINDS.items():
            fields.check_argument(self.call, name, hint, getattr(self, name))
        self._within("batch", self.batch, 1, _MOST)
        self._within("expires", self.expires, _SHORTEST, _LONGEST)
        if self.max_bytes is not None:
            self._within("max_bytes", self.max_bytes, 1, _MOST_BYTES)
        if self.no_wait and self.expires != EXPIRES:
            raise ValueError(f"{self.call}: no_wait and expires exclude each other")
        if self.heartbeat is not None:
            if self.no_wait:
                raise ValueError(f"{self.call}: no_wait and heartbeat exclude each other")
            # The server's rule.
            self._within("heartbeat", self.heartbeat, _SHORTEST_HEARTBEAT, self.expires / 2)
        self.terms.check(self.call)

    def _within(self, name: str, value: float, least: float, most: float) -> None:
        if not (isfinite(value) and least <= value <= most):
            raise ValueError(f"{self.call}: {name} is {value:.12g}: it must be from {least:.12g} to {most:.12g}")

    def waking(self) -> Wanted:
        """Give the same for a consumer of the last message of each subject.

        It stands still at each one that was deleted since it was made, though more wait behind that, until a heartbeat is due.
        """
        if self.no_wait or self.heartbeat is not None or self.expires < 2 * _WAKE_EVERY:
            return self
        return replace(self, heartbeat=_WAKE_EVERY)

    @property
    def seconds(self) -> float:
        """How long the whole may take."""
        return _NO_WAIT if self.no_wait else self.expires


class Fetch:
    """The life of one fetch.

    Args:
        wanted: What is wanted.
        stream: The stream, for texts.
        consumer: The consumer's name.
        now: The time, on the clock that all times here are of.
        deadline: When the caller is cancelled; infinite for never.
        round_trip: How many seconds the API took to respond the last time, where that is known.
        connected: Whether there is a connection.
        acknowledges: Whether the consumer takes acknowledgements.
        ack_wait: After how many seconds it delivers again what was not acknowledged; infinite where that is not known.
        pin: What the server called whoever fetches here, while it gave its messages to that one alone.
    """

    def __init__(
        self,
        wanted: Wanted,
        stream: str,
        consumer: str,
        now: float,
        *,
        deadline: float = inf,
        round_trip: float | None = None,
        connected: bool = True,
        acknowledges: bool = True,
        ack_wait: float = inf,
        pin: str = "",
    ) -> None:
        self._wanted = wanted
        self._stream, self._name = stream, consumer
        self._what = f"{wanted.call} from consumer {consumer!r} of stream {stream!r}"
        self._connected = connected
        self._acknowledges, self._ack_wait = acknowledges, ack_wait
        self.pin = pin
        """What the server calls us; an empty string where it does not, or not any more."""
        near = before_deadline(now, deadline, round_trip)
        self._until = min(now + wanted.seconds, deadline - near)
        # Who is cancelled at a deadline is not told why it has got nothing by then.
        self._bounded = deadline - near < now + wanted.seconds
        self._in_time = deadline - near / _PART
        self.due = inf
        """When the server begins to deliver what came to somebody else."""
        self._batch = wanted.batch
        self._bytes = inf if wanted.max_bytes is None else wanted.max_bytes
        self._got = 0
        self._number = 0
        self._pull: Pull | None = None
        self._ends = inf
        self._heard, self._got_then = now, 0
        self._repeats = 0
        self._pause_until = -inf
        self._ask: Inspect | Measure | None = None
        self._missing = False
        self._done = self._ended = self._abandoned = False
        self._failure: Exception | None = None
        # Why it asks again; raised where time is up before the server has said anything better.
        self._excuse: Exception | None = None
        if not connected:
            self._excuse = self._disconnected()

    @property
    def over(self) -> bool:
        """Whether the server has ended all that was asked for: nothing comes any more."""
        return self._ended and not self._abandoned

    # What to do.

    def next(self, now: float) -> Action | Measure | None:
        """Say what to do.

        Args:
            now: The time.

        Returns:
            An action, after which this is asked again; None where what came is to be returned.
        """
        if self._failure is not None:
            return Fail(self._failure)
        if self._done:
            return None
        if self._ask is not None:
            return self._ask
        silent_after = self._silent_after(now)
        # Something may also have come for a request that was given up.
        if self._got and (self._pull is None or now >= min(self._in_time, self._ends, silent_after)):
            self._done = True
            return None
        if self._pull is None:
            return self._next_pull(now)
        if now >= self._ends:
            return self._fail(self._silent(self._wanted.seconds))
        if now >= silent_after:
            # The one request that a consumer refuses without a word is one too many that asked for heartbeats.
            self._ask = Inspect(self._name)
            return self._ask
        return Wait(min(self._ends, silent_after, self._in_time if self._got else inf))

    def _next_pull(self, now: float) -> Action | None:
        due = max(self._pause_until, now) if self._connected else inf
        if due >= self._until - _SHORTEST and (self._number or not self._connected):
            if now >= self._until and not self._bounded:
                return self._fail(self._excuse or self._silent(self._wanted.seconds))
            return Wait(inf if self._bounded else self._until)
        if due > now:
            return Wait(due)
        # Without the last digits of the clock, which would make 9.999999 s of 10.
        left = max(round(self._until - now, 6), _SHORTEST)
        heartbeat = self._wanted.heartbeat
        if heartbeat is None:
            heartbeat = _HEARTBEAT if left >= _LONG else 0.0
        self._number += 1
        self._ended = False
        self._pull = Pull(
            self._name,
            self._number,
            self._batch,
            self._wanted.max_bytes or 0,
            left,
            min(heartbeat, left / 2),
            self._wanted.terms.fields(),
            self.pin,
            self._wanted.no_wait,
        )
        self._ends = now + left + _MARGIN
        self._heard, self._got_then = now, self._got
        return self._pull

    def _silent_after(self, now: float) -> float:
        if self._pull is None or not self._pull.heartbeat:
            return inf
        if self._got != self._got_then:
            # Not timed one by one: that would cost more than the rest.
            self._heard, self._got_then = now, self._got
        return self._heard + 2 * self._pull.heartbeat

    # What came.

    def received(self, size: int = 0) -> bool:
        """Tell that a message came.

        Args:
            size: Its size as the server counts it, with both subjects and the headers; needed only where bytes are limited.

        Returns:
            Whether that changes what is to be done: it was the first, or the last. Then tell `noticed`.
        """
        self._got += 1
        self._bytes -= size
        if self._got < self._batch and self._bytes > 0:
            return self._got == 1
        # The server ends a request without a word when its batch or its bytes are used up.
        self._done = self._ended = True
        return True

    def noticed(self, now: float) -> None:
        """Tell when `received` said that something changes: not for each message, since that would cost more than the rest.

        Args:
            now: The time.
        """
        if self.due == inf:
            self.due = now + self._ack_wait
            self._in_time = min(self._in_time, now + self._ack_wait / 2)

    def status(self, number: int, code: int, text: str, now: float) -> None:
        """Tell that a status came.

        Args:
            number: Which request it is about; those of others change nothing.
            code: 100, 404, 409, ...
            text: Its description.
            now: The time.
        """
        if self._pull is None or number != self._pull.number or self._done:
            return
        self._heard = now
        if code == 100:
            self._excuse = None
            return
        said, lower = f"{code} {text}".strip(), text.lower()
        if code in (404, 408) or (code == 409 and "completed" in lower):
            self._done = self._ended = True
        elif code == NO_RESPONDERS:
            self._again(
                now, self._unavailable("nobody answers: it is not there, has no leader, or JetStream is not enabled")
            )
            if not self._done:
                self._missing, self._ask = True, Inspect(self._name)
        elif code == 423:
            self.pin = ""
            self._again(now, self._unavailable(f"messages are given to another client ({said})"))
        elif code == 409 and ("leadership change" in lower or "server shutdown" in lower):
            self._again(now, self._unavailable(f"it has no leader just now ({said})"))
        elif code == 409 and "consumer deleted" in lower:
            self._gone("it was deleted, or its stream")
        elif code == 409 and "exceeds maxbytes" in lower:
            self._pull, self._ended = None, True
            if self._got:
                self._done = True
            else:
                self._ask = Measure()
        else:
            self._refused(code, said, lower)

    def connection_lost(self) -> None:
        """Tell that the connection broke, and the request with it."""
        self._connected = self._missing = False
        self._abandoned = self._abandoned or self._pull is not None
        self._pull, self._ask = None, None
        self._done = self._done or self._got > 0
        self._excuse = self._disconnected()

    def connection_restored(self) -> None:
        """Tell that there is a connection again."""
        self._connected = True

    def failed(self, error: Exception) -> None:
        """Tell that it cannot go on."""
        self._failure = self._failure or error
        self._pull = None

    # What was found out.

    def inspected(self, waiting: int, most: int | None, now: float) -> None:
        """Tell that the consumer is there.

        Args:
            waiting: How many requests wait for messages of it.
            most: How many may; None where that is not known.
            now: The time.
        """
        self._ask = None
        missing, self._missing = self._missing, False
        if missing:
            return
        if most and waiting >= most and not self._got:
            text = f"{waiting} requests wait for it, and its max_waiting is {most}: ours got no answer"
            self.failed(self._error(errors.BadRequestError, 409, text))
        else:
            self._abandon(now)

    def inspect_failed(self, error: Exception | None, now: float) -> None:
        """Tell that the server did not say whether the consumer is there.

        Args:
            error: What it said instead; None for nothing in time.
            now: The time.
        """
        self._ask = None
        missing, self._missing = self._missing, False
        if isinstance(error, errors.NotFoundError):
            self._gone(error.description or "not found", error.err_code)
        elif isinstance(error, errors.PermissionsViolationError) and missing:
            # We may not ask, and most often it is not there.
            self.failed(self._excuse or error)
        elif isinstance(error, errors.APIError) and not passes(error):
            self.failed(error)
        elif missing:
            self._excuse = error or self._excuse
        else:
            self._abandon(now)

    def measured(self, size: int | None, sequence: int | None) -> None:
        """Tell how large the message is that did not fit.

        Args:
            size: Its size as the server counts it; None where that could not be found out.
            sequence: Its sequence.
        """
        self._ask = None
        next_one = "the next message" if sequence is None else f"the next message (sequence {sequence})"
        has = "is larger" if size is None else f"has {size}, its subjects and headers included"
        self.failed(
            self._error(errors.BadRequestError, 409, f"max_bytes is {self._wanted.max_bytes}: {next_one} {has}")
        )

    # Inside.

    def _fail(self, error: Exception) -> Fail:
        self.failed(error)
        return Fail(error)

    def _abandon(self, now: float) -> None:
        """Ask again, though what was asked for may still be served."""
        silence = 2 * self._pull.heartbeat if self._pull is not None else 0.0
        self._abandoned = True
        self._again(now, self._silent(silence))

    def _again(self, now: float, excuse: Exception) -> None:
        """Return what came, or ask again."""
        self._pull, self._ended = None, True
        if self._got:
            self._done = True
            return
        self._excuse = excuse
        pause = _PAUSES[self._repeats] if self._repeats < len(_PAUSES) else _LONGEST_PAUSE
        self._pause_until = now + pause
        self._repeats += 1

    def _gone(self, why: str, err_code: int | None = None) -> None:
        self._pull, self._ended = None, True
        if self._got and not self._acknowledges:
            # They are not given to anybody else.
            self._done = True
        else:
            self.failed(consumer_gone(self._stream, self._name, why, err_code))

    def _refused(self, code: int, said: str, lower: str) -> None:
        self._ended = True
        if self._got:
            self._done = True
            return
        wanted = self._wanted
        asked = {"maxrequestbatch": "batch", "maxrequestexpires": "expires", "maxrequestmaxbytes": "max_bytes"}
        named = next((f"{name} is {getattr(wanted, name)}: " for limit, name in asked.items() if limit in lower), "")
        self.failed(self._error(errors.BadRequestError, code, f"{named}{said}"))

    def _disconnected(self) -> Exception:
        return errors.explained(errors.DisconnectedError, f"{self._what}: there is no connection")

    def _silent(self, seconds: float) -> Exception:
        return errors.explained(errors.TimeoutError, f"{self._what}: no answer within {seconds:g} s")

    def _unavailable(self, why: str) -> Exception:
        return self._error(errors.ServiceUnavailableError, NO_RESPONDERS, why)

    def _error(self, kind: type[errors.APIError], code: int, why: str) -> Exception:
        known = {"code": code, "err_code": None, "description": why, "stream": self._stream, "seq": None}
        return errors.explained(kind, f"{self._what}: {why}", **known)
