"""Pulling: what a request for messages says, how many to ask for, what silence means.

Strategy
    `Window` keeps the credit of one reader. What was asked for and has not come, and what was handed over and has not
    been taken, are together never more than the credit, in messages and in bytes, so that the channel behind it cannot
    overflow. It is refilled when half of it is free, unless other thresholds were chosen.

    What a reader wants besides (thresholds of its own, a priority group, no more than the server's limits allow) is kept here,
    too, since it stands in each request; what follows from a status is for whoever holds the window.

    Messages do not say which request they come for (the server serves several in turn), statuses do: they arrive at the
    reply subject of one request. So what is outstanding is one sum, and a status takes what its request did not get
    out of it (ADR-37). The sum never gets below zero, and when nothing can be left it is zero.

    Where the server walks a list, no request says how many bytes it takes: the entry that does not fit would be lost
    (design 112). There `Fitting` says how many messages to ask for, bytes are counted only as they come, and what was asked for
    ends by its number alone.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from trionats._protocol.jetstream.acks import whole_number
from trionats._protocol.jetstream.fitting import FIRST, Fitting
from trionats._protocol.jetstream.refusals import backoff
from trionats._protocol.replies import NO_RESPONDERS
from trionats._told.moments import NANOSECONDS

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

__all__ = ["PIN_HEADER", "Ending", "Pull", "PullInbox", "Window", "before_deadline", "pull_limit"]

#: What a consumer that gives its messages to one client calls that client; it stands in each of them.
PIN_HEADER: Final = "Nats-Pin-Id"
_REFUSAL_PAUSE: Final = 1.0
# How long a patient request waits: long enough to get past writes, short enough for who waits for an end.
_PATIENCE: Final = 1.0
# How long before a deadline a fetch ends where the way is not known, in seconds.
_NEAR: Final = 0.02
# How many requests are under way at the most, where each may ask for little: a consumer has 512 places unless it says less.
_MOST_REQUESTS: Final = 16
# A request may cross the deletion of its consumer and get lost; so when nothing is heard behind it, another one finds out
# (design 61).
_PROOF_WITHIN: Final = 0.5
# What a request takes of the credit in bytes that says no number: so much that its bytes never end it.
_UNCOUNTED: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Pull:
    """Ask the consumer `name` for messages; statuses come to the reply subject that ends in `number`.

    Without `expires` the server gives what it has and says 404 when that is less than `batch`.
    """

    name: str
    number: int
    batch: int
    max_bytes: int = 0
    expires: float = 0.0
    heartbeat: float = 0.0
    #: What stands in each request of a reader: its priority group, and on which terms.
    terms: Mapping[str, object] = field(default_factory=dict)
    #: What the server has called the one client that it gives messages to.
    pin: str = ""
    #: Do not wait for more messages than there are, though for the first one as long as it says.
    no_wait: bool = False

    def body(self) -> bytes:
        """Give the request's payload."""
        fields: dict[str, object] = {"batch": self.batch, **self.terms}
        if self.pin:
            fields["id"] = self.pin
        if self.max_bytes:
            fields["max_bytes"] = self.max_bytes
        if self.expires:
            fields["expires"] = int(self.expires * NANOSECONDS)
            if self.heartbeat:
                fields["idle_heartbeat"] = int(self.heartbeat * NANOSECONDS)
        if self.no_wait or not self.expires:
            # With a heartbeat but no expiry the server refuses it ("heartbeat value too large").
            fields["no_wait"] = True
        return json.dumps(fields, separators=(",", ":")).encode()


def before_deadline(now: float, deadline: float, round_trip: float | None) -> float:
    """Say how many seconds before a deadline a fetch ends, so that what came is there before it.

    Args:
        now: The time.
        deadline: When the caller is cancelled; infinite for never.
        round_trip: How many seconds the API took to respond the last time, where that is known.
    """
    return min(max(_NEAR, 2 * (round_trip or 0.0)), max(0.0, deadline - now) / 2)


class PullInbox:
    """Where the messages of one reader come, and the statuses, each at the reply subject of the request that it is about.

    Args:
        inbox: A subject that nobody else has.
    """

    __slots__ = ("_prefix",)

    def __init__(self, inbox: str) -> None:
        self._prefix = f"{inbox}."

    @property
    def pattern(self) -> str:
        """What to subscribe to."""
        return f"{self._prefix}*"

    def reply_to(self, pull: Pull) -> str:
        """Make the reply subject of a request."""
        return f"{self._prefix}{pull.number}"

    def number(self, subject: str) -> int:
        """Read which request a status is about, from the subject that it came to; 0 where that names none."""
        token = subject.removeprefix(self._prefix)
        return int(token) if token.isdecimal() and len(token) < 20 else 0


class Ending(enum.Enum):
    """What a status means."""

    ALIVE = enum.auto()
    """Nothing ended: a heartbeat."""
    ENDED = enum.auto()
    """A request ended, and others may follow."""
    EMPTY = enum.auto()
    """A request ended because the server has nothing."""
    GONE = enum.auto()
    """There is no such consumer, or it cannot be pulled from."""
    MISTAKEN = enum.auto()
    """The server does not understand the request: repeating it is useless."""
    UNKNOWN = enum.auto()
    """It is about a request that ended before."""
    TOO_LARGE = enum.auto()
    """A request ended because the next message needs more than the whole credit in bytes."""
    LIMITED = enum.auto()
    """A request was refused because it asks for more than the consumer allows; `pull_limit` says which."""
    UNPINNED = enum.auto()
    """The server gives messages to one client, and this is not it, or is no longer."""
    STRANGE = enum.auto()
    """A request ended with a status that nobody knows."""


class Window:
    """The credit of one reader and the requests that are under way.

    Args:
        max_messages: The credit in messages.
        max_bytes: The credit in bytes, counted as the server does.
        heartbeat: How often the server says that it is there; twice as long a silence means that it is not.
        expires: How long the server keeps a request.
        rng: Where the jitter comes from.
        threshold_messages: It is refilled when no more than so many messages are outstanding; None for half of the credit.
        threshold_bytes: The same in bytes.
        terms: What stands in each request besides.
        first: How many messages of a list are asked for before any came.

    Attributes:
        pin: What the server calls us while it gives messages to us alone.
        most_messages: How many messages one request may ask for.
        most_bytes: How many bytes it may ask for.
        wanted: How many more messages are wanted in all, those that are buffered included.
        one_at_a_time: Whether nothing is asked for while a request is under way.
        by_list: Whether the server may be walking a list, so that no request says how many bytes it takes, and of what is not waited
            for one request follows the other. It is told before anything is asked of a consumer.
        spare: How many messages of a list are not asked for, but left to `touch`.
    """

    def __init__(
        self,
        max_messages: int,
        max_bytes: int,
        *,
        heartbeat: float,
        expires: float,
        rng: random.Random,
        threshold_messages: int | None = None,
        threshold_bytes: int | None = None,
        terms: Mapping[str, object] | None = None,
        first: int = FIRST,
    ) -> None:
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._heartbeat, self._expires, self._rng = heartbeat, expires, rng
        self._threshold = max_messages // 2 if threshold_messages is None else threshold_messages
        # How much has to be free.
        self._least = max_messages - self._threshold
        self._least_bytes = max_bytes - (max_bytes // 2 if threshold_bytes is None else threshold_bytes)
        self._terms = terms or {}
        self._group = {"group": self._terms["group"]} if "group" in self._terms else {}
        self.pin = ""
        self.most_messages, self.most_bytes = max_messages, max_bytes
        self.wanted = inf
        self.one_at_a_time = self.by_list = False
        self.spare = 0
        self._fitting = Fitting(first)
        self._number = 0
        self._usual_size = 0.0
        self._worth_a_look = max_messages - self._enough
        self._buffered = self._buffered_bytes = 0
        self.forget()

    def forget(self) -> None:
        """Forget all requests, since another consumer follows. What is buffered stays."""
        self._last_forgotten = self._number
        self._pulls: dict[int, Pull] = {}
        self._asked = self._asked_bytes = 0
        self._heard = self._pause_until = -inf
        self._proof_until = inf
        self._proof = 0
        self._refusals = self._too_small = 0
        # Whether the server has less than what was asked for, in its own words.
        self._crowded = False

    @property
    def asked(self) -> int:
        """How many messages were asked for and have not come."""
        return self._asked

    @property
    def buffered_messages(self) -> int:
        """How many messages were handed over and not taken."""
        return self._buffered

    @property
    def credit(self) -> int:
        """The credit in messages."""
        return self._max_messages

    def resize(self, messages: int) -> None:
        """Change the credit in messages; what is outstanding beyond it stays."""
        self._max_messages = messages
        self._least = messages - min(self._threshold, messages - 1)
        self._worth_a_look = messages - self._enough

    def limit_time(self, longest: float) -> None:
        """Let no request wait longer than this: the server would refuse it.

        Args:
            longest: That many seconds.
        """
        self._expires = min(self._expires, longest)
        self._heartbeat = min(self._heartbeat, self._expires / 2)

    def pause(self, now: float, seconds: float) -> None:
        """Ask for nothing for a while."""
        self._pause_until = max(self._pause_until, now + seconds)

    @property
    def patience(self) -> float:
        """How many seconds of silence are too long."""
        return 2 * self._heartbeat

    @property
    def silent_after(self) -> float:
        """Until when something must have been heard."""
        return self._heard + self.patience if self._asked else inf

    @property
    def unproven_after(self) -> float:
        """Until when something should have been heard behind a request; then `prove` is due."""
        return self._proof_until if self._asked else inf

    @property
    def listen_until(self) -> float:
        """Until when something should have been heard: the earlier of the two."""
        if not self._asked:
            return inf
        return min(self._proof_until, self._heard + self.patience)

    def prove(self, name: str) -> Pull:
        """Say what to ask for to find out whether the consumer is there.

        Args:
            name: The consumer's name.

        Returns:
            A request that the server responds to at once, whatever it has, and that no message fits into: it takes no
            credit. Of a list even that would take an entry, so there it is one that the server refuses (400).
        """
        self._proof_until = inf
        self._number += 1
        self._proof = self._number
        if self.by_list:
            return Pull(name, self._proof, 1, expires=_PATIENCE, heartbeat=_PATIENCE)
        return Pull(name, self._proof, 1, max_bytes=1)

    def touch(self, name: str, seconds: float, *, certain: bool = False) -> Pull | None:
        """Say what to ask for to keep a consumer alive: as `prove`, but it waits a moment, since the server forgets without a
        word a request that does not wait where acknowledgements are due.

        Args:
            name: The consumer's name.
            seconds: How long it waits.
            certain: Whether there is a list for certain.

        Returns:
            The request. Of what may be a list it is one for a message, as long as there is room for one; then None, if it is certain.
        """
        room = self.by_list and self._buffered < self._max_messages
        if certain and not room:
            return None
        self._number += 1
        if room:
            pull = Pull(name, self._number, 1, expires=seconds, terms=self._terms, pin=self.pin)
            self._count(pull, _UNCOUNTED)
            return pull
        return Pull(name, self._number, 1, max_bytes=1, expires=seconds, terms=self._group)

    def wakes_at(self, now: float) -> float:
        """Say when time alone changes something, for who proves nothing.

        Returns:
            That time.
        """
        pause = self._pause_until if self._pause_until > now else inf
        return min(self.silent_after, pause)

    def next_event(self, now: float) -> float:
        """Say when time alone changes something.

        Returns:
            That time.
        """
        pause = self._pause_until if self._pause_until > now else inf
        return min(self.listen_until, pause)

    def pull(self, name: str, now: float, at_most: int = 0, *, patient: bool = False) -> Pull | None:
        """Say what to ask for now, if anything.

        Args:
            name: The consumer's name.
            at_most: When not 0: so many are missing; ask for no more, and for nothing that is not there.
            patient: With `at_most`: wait a moment for what is not there yet.

        Returns:
            The request, which counts as sent.
        """
        batch = self._max_messages - self._asked - self._buffered
        free = self._max_bytes - self._buffered_bytes
        size = free if self.by_list else free - self._asked_bytes
        if not self._worth_asking(batch, size) or now < self._pause_until:
            return None
        if not self._asked:
            self._crowded = False
        elif not self.overlaps(at_most) or len(self._pulls) >= _MOST_REQUESTS:
            return None
        if self.wanted < inf:
            batch = min(batch, int(self.wanted) - self._asked - self._buffered)
            if batch < 1:
                return None
        if self.by_list:
            batch, size = min(batch, self._fits(free)), 0
            if batch < 1:
                return None
        elif self.most_messages < batch:
            # Several are needed, so none of them may have all of the bytes.
            size = max(size * self.most_messages // batch, min(size, self._too_small + 1))
        size = min(size, self.most_bytes)
        # One that does not fit into the whole credit comes alone and without a limit, instead of never.
        alone = self._too_small >= self.most_bytes
        batch = 1 if alone else min(batch, at_most or batch, self.most_messages)
        expires, heartbeat = self._expires, self._heartbeat
        if at_most:
            expires, heartbeat = (_PATIENCE, _PATIENCE / 2) if patient else (0.0, 0.0)
        self._number += 1
        pull = Pull(name, self._number, batch, 0 if alone else size, expires, heartbeat, self._terms, self.pin)
        if not self._asked:
            self._heard = now
            self._proof_until = now + _PROOF_WITHIN
        self._count(pull, _UNCOUNTED if self.by_list else size)
        return pull

    def _fits(self, free: int) -> int:
        """Say how many messages of a list to ask for: one at the least where there is none yet, however large it may be."""
        outstanding = self._asked + self._buffered
        most = min(self._max_messages - self.spare - outstanding, self._fitting.more(free, self._asked))
        return most if outstanding else max(1, most)

    def _count(self, pull: Pull, size: int) -> None:
        """Count a request as sent."""
        self._pulls[pull.number] = pull
        self._asked += pull.batch
        self._asked_bytes += size

    def _bytes_of(self, pull: Pull) -> int:
        """Say how much of the credit in bytes a request has taken, at the most."""
        return _UNCOUNTED if self.by_list else pull.max_bytes or self._max_bytes

    def overlaps(self, at_most: int = 0) -> bool:
        """Say whether more may be asked for while a request is under way.

        Of what is not waited for, only while far more is missing than was asked for: the 404 that ends such a request does not
        say how much it did not get, and the server refuses a second one when it has little left.

        Args:
            at_most: As for `pull`.
        """
        if self.one_at_a_time or self._crowded:
            return False
        return not at_most or (not self.by_list and at_most - self._asked >= self._max_messages)

    def _worth_asking(self, batch: int, size: int) -> bool:
        # A message that did not fit into a part of the credit needs more than was offered then.
        if batch < 1 or size < max(1, min(self.most_bytes, self._too_small + 1)):
            return False
        # As much of the credit in messages or in bytes, whichever runs out first with messages as they are usually.
        enough_bytes = min(self._least_bytes, self._least * self._usual_size / 2)
        if batch >= self._least and size >= enough_bytes:
            return True
        return size >= self._least_bytes and batch >= self._enough

    @property
    def _enough(self) -> float:
        """How many messages have to be free at the least."""
        return min(self._least, self._least_bytes / (2 * self._usual_size or 1))

    def arrived(self, size: int, now: float) -> None:
        """Tell that a message came.

        Args:
            size: Its size as the server counts it: subject, reply subject, headers, payload.
        """
        self._heard = now
        self._proof_until = inf
        self._refusals = self._too_small = 0
        self._usual_size += (size - self._usual_size) / 16 if self._usual_size else size
        self._asked -= 1
        self._asked_bytes -= size
        if self.by_list:
            self._fitting.came(size)
        if self._asked <= 0 or self._asked_bytes <= 0 or not self._pulls:
            self._settle(0, 0)

    def received(self, size: int, now: float) -> None:
        """Tell that a message came and was handed over: `arrived` and `buffered` in one, since it is done for each message.

        Args:
            size: Its size.
        """
        self._heard = now
        self._buffered += 1
        self._buffered_bytes += size
        self._asked -= 1
        self._asked_bytes -= size
        if self.by_list:
            self._fitting.came(size)
        if not self._asked & 15 or not self._usual_size:
            # A sample is enough.
            self._proof_until = inf
            self._usual_size += (size - self._usual_size) / 4 if self._usual_size else size
            self._worth_a_look = self._max_messages - self._enough
        if self._refusals or self._too_small:
            self._refusals = self._too_small = 0
        if self._asked <= 0 or self._asked_bytes <= 0:
            self._settle(0, 0)

    def buffered(self, size: int) -> None:
        """Tell that a message was handed over and takes up room until it is taken.

        Args:
            size: Its size.
        """
        self._buffered += 1
        self._buffered_bytes += size

    def taken(self, size: int, messages: int = 1) -> bool:
        """Tell that messages have made room again.

        Args:
            size: Their sizes, together.
            messages: How many they are.

        Returns:
            Whether more may be worth asking for; `pull` knows.
        """
        self._buffered -= messages
        self._buffered_bytes -= size
        return self._asked + self._buffered <= self._worth_a_look

    def status(self, number: int, code: int, description: str, headers: Mapping[str, str], now: float) -> Ending:
        """Tell that a status came.

        Args:
            number: Which request it is about.
            code: 100, 404, 409, ...
            description: Its text.
            headers: Its header fields.

        Returns:
            What it means.
        """
        # Statuses of earlier consumers come late; not the least of them is "Consumer Deleted", since we delete them.
        if number <= self._last_forgotten:
            return Ending.UNKNOWN
        self._heard = now
        if number == self._proof or number in self._pulls:
            # What is about an earlier request may have crossed this one.
            self._proof_until = inf
        if code == 100:
            self._refusals = 0
            return Ending.ALIVE
        text = description.lower()
        pull = self._pulls.pop(number, None)
        if pull is not None and code == 409 and _ends_all(text):
            self._end_before(number)
        elif pull is not None:
            # Whatever stands there: it cannot have got more than it asked for.
            missing, missing_bytes = pull.batch, self._bytes_of(pull)
            if "Nats-Pending-Messages" in headers:
                missing = min(missing, whole_number(headers, "Nats-Pending-Messages"))
                missing_bytes = min(missing_bytes, whole_number(headers, "Nats-Pending-Bytes"))
            elif code == 404:
                # It may have got some: what is left is no more than what the others can have.
                others = self._pulls.values()
                missing = self._asked - sum(other.batch for other in others)
                missing_bytes = self._asked_bytes - sum(map(self._bytes_of, others))
                missing, missing_bytes = max(0, missing), max(0, missing_bytes)
            if code == 409 and "exceeds maxbytes" in text and missing == pull.batch:
                self._too_small = pull.max_bytes
            self._settle(missing, missing_bytes)
        if code == NO_RESPONDERS or (code == 409 and ("consumer deleted" in text or "push based" in text)):
            return Ending.GONE
        if number == self._proof:
            return Ending.ENDED
        if pull is None:
            return Ending.UNKNOWN
        return self._meaning(pull, code, text, now)

    def _meaning(self, pull: Pull, code: int, text: str, now: float) -> Ending:
        if code == 400:
            return Ending.MISTAKEN
        if code == 404:
            return Ending.EMPTY
        if any(end in text for end in ("request timeout", "interest expired", "batch completed")):
            return Ending.ENDED
        if code == 408 and self._asked:
            # "Requests Pending": those under way can take all that there is.
            self._crowded = True
            return Ending.ENDED
        if code == 409 and "exceeds maxbytes" in text:
            return Ending.TOO_LARGE if self._too_small >= self.most_bytes else Ending.ENDED
        if code == 423:
            if pull.pin:
                # Asked again at once, but by that name no more; who was pinned meanwhile has another one.
                self.pin = "" if self.pin == pull.pin else self.pin
                return Ending.UNPINNED
            self._back_off(now)
            return Ending.UNPINNED
        if code == 409 and _ends_all(text):
            # The first is repeated at once.
            self._pause_until = now + (backoff(self._refusals, self._rng) if self._refusals else 0.0)
            self._refusals += 1
            return Ending.ENDED
        # A limit of the server or the consumer, or something new: not to be repeated in a hurry.
        self._back_off(now)
        if code == 408:
            return Ending.ENDED
        return Ending.LIMITED if code == 409 and text.startswith("exceeded ") else Ending.STRANGE

    def _back_off(self, now: float) -> None:
        self._pause_until = now + max(_REFUSAL_PAUSE, backoff(self._refusals, self._rng))
        self._refusals += 1

    def _end_before(self, number: int) -> None:
        """Take all requests up to this one for ended; what was sent behind it has crossed its status, and is asked of who follows."""
        self._pulls = {pull.number: pull for pull in self._pulls.values() if pull.number > number}
        self._asked = sum(pull.batch for pull in self._pulls.values())
        self._asked_bytes = sum(map(self._bytes_of, self._pulls.values()))

    def _settle(self, messages: int, size: int) -> None:
        self._asked -= messages
        self._asked_bytes -= size
        # The server ends a request without a word when its batch or its bytes are used up.
        if self._asked <= 0 or self._asked_bytes <= 0 or not self._pulls:
            self._pulls.clear()
            self._asked = self._asked_bytes = 0


def _ends_all(text: str) -> bool:
    """Whether a status tells of the end of all requests that the consumer had; not each of them says how much was left."""
    return "leadership change" in text or "server shutdown" in text


_LIMIT: Final = re.compile(
    r"exceeded max(requestbatch|requestexpires|requestmaxbytes) of (\S+)", re.IGNORECASE | re.ASCII
)
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(h|ms|m|s|us|µs|ns)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def pull_limit(description: str) -> tuple[str, float]:
    """Read from a refusal which limit of the consumer a request exceeds.

    Args:
        description: The status's text: "Exceeded MaxRequestBatch of 5".

    Returns:
        "batch", "expires" (in seconds) or "max_bytes", with the limit; ("", 0) for another one, or one that is no number.
    """
    found = _LIMIT.fullmatch(description)
    if found is None:
        return "", 0
    kind, text = found[1].lower().removeprefix("request").removeprefix("max"), found[2]
    kind = {"bytes": "max_bytes"}.get(kind, kind)
    if kind != "expires":
        return (kind, int(text)) if text.isdecimal() and 0 < len(text) < 19 and int(text) > 0 else ("", 0)
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        return "", 0
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return (kind, seconds) if seconds > 0 else ("", 0)
