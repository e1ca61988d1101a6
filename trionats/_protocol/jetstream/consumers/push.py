"""Reading a push consumer: nobody asks for its messages, they come.

Flow control
    Where the consumer has it, the server sends a request for it among the messages, and goes on only a while after it. It is answered
    when all that came before it has been received: so what waits here is bounded by the server, to 32 MiB. Where the request
    got lost, a heartbeat names it. The subjects are the server's, in forms that differ: they are answered and never read (design 83).

Without flow control
    nothing but `max_ack_pending` holds the server back, so the reader has a limit, and beyond it is over.

Silence
    Nothing says that a consumer was deleted: it is silent from then on. With heartbeats, two that are missed lead to a look at it.
    Without, and for a member of a group (a heartbeat goes to one of its members), half a minute does; and so does a connection
    that is back, because the server may have forgotten the consumer meanwhile.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias, final

from trionats import errors
from trionats._protocol import subjects
from trionats._protocol.jetstream.acks import parse_ack_subject, whole_number
from trionats._protocol.jetstream.actions import Fail, Inspect, Wait
from trionats._protocol.jetstream.refusals import consumer_gone

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Answer", "Push", "PushNews", "PushTraits", "Tell"]

#: How many seconds of silence lead to a look at a consumer of which no heartbeats are heard.
QUIET: Final = 30.0
#: How long after a look that has not found the consumer another one makes sure: its leader may be new.
SECOND_LOOK_AFTER: Final = 0.5
#: How many requests for flow control may wait for their answer: the server has one at a time.
MOST_WAITING: Final = 64


@final
@dataclass(frozen=True, slots=True)
class PushTraits:
    """What a push consumer is like.

    Attributes:
        subject: Where it delivers.
        group: To which group; an empty string for none.
        heartbeat: Each how many seconds it gives a sign of life; 0 for never.
        flow_control: Whether it waits for us.
        acknowledges: Whether what does not come will come again.
        max_messages: How many messages may wait to be received, where it does not wait for us.
        max_bytes: How many bytes of headers and payloads.
    """

    subject: str
    group: str = ""
    heartbeat: float = 0.0
    flow_control: bool = False
    acknowledges: bool = True
    max_messages: float = inf
    max_bytes: float = inf


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """Publish an empty message to a subject: the server may go on."""

    subject: str


@final
class PushNews(enum.Enum):
    """What is worth telling."""

    SILENT = enum.auto()
    """Nothing was heard for two heartbeats."""
    MISSED = enum.auto()
    """Messages are lost."""


@final
@dataclass(frozen=True, slots=True)
class Tell:
    """Tell of something."""

    news: PushNews
    count: int = 0


Step: TypeAlias = "Answer | Tell | Inspect | Fail | Wait"


@final
class Push:
    """The decisions of one reader of a push consumer.

    Args:
        stream: The stream's name.
        consumer: The consumer's.
        traits: What it is like.
        now: When reading begins.
    """

    def __init__(self, stream: str, consumer: str, traits: PushTraits, now: float) -> None:
        self._stream, self._name, self._traits = stream, consumer, traits
        self._came = self._received = 0
        self._bytes = 0
        self._requests: deque[tuple[int, str]] = deque()
        self._answers: deque[str] = deque()
        self._news: deque[Tell] = deque()
        self._failure: Exception | None = None
        self._expected = 0
        # A member of a group sees a part of the sequence, and of the heartbeats.
        self._watches_sequence = not (traits.acknowledges or traits.group)
        self._beats = bool(traits.heartbeat) and not traits.group
        self._patience = 2 * traits.heartbeat if self._beats else QUIET
        self._silent = False
        self._blind = False
        self._absences = 0
        self._heard = now
        self._look_at = now + self._patience

    # What comes.

    def came(self, reply: str, size: int, now: float) -> bool:
        """Tell that a message came.

        Args:
            reply: Its reply subject.
            size: Its headers and payload, in bytes.

        Returns:
            Whether it may wait to be received; if not, it is over.
        """
        self._hear(now)
        if self._watches_sequence:
            place = parse_ack_subject(reply)
            if place is not None:
                self._reached(place.consumer_sequence)
        traits = self._traits
        waiting = self._came - self._received
        if not traits.flow_control and (waiting >= traits.max_messages or self._bytes + size > traits.max_bytes):
            text = (
                f"consumer {self._name!r} of stream {self._stream!r}: {waiting} messages ({self._bytes} bytes) wait to be "
                "received, and it has no flow control"
            )
            self._fail(
                errors.explained(errors.SlowConsumerError, text, subject=traits.subject, reply=reply, sid=0, sub=None)
            )
            return False
        self._came += 1
        self._bytes += size
        return True

    def received(self, size: int) -> bool:
        """Tell that one was received.

        Args:
            size: Its size, as it was told before.

        Returns:
            Whether there is something to do.
        """
        self._received += 1
        self._bytes -= size
        self._settle()
        return bool(self._answers)

    def status(self, code: int, description: str, headers: Mapping[str, str], reply: str, now: float) -> None:
        """Tell that a status came.

        Args:
            code: 100, mostly.
            description: Its text.
            headers: Its header fields.
            reply: Its reply subject.
        """
        self._hear(now)
        if code != 100:
            if "consumer deleted" in description.lower():
                self._look_at = now
        elif reply:
            self._requested(reply)
        else:
            stalled = headers.get("Nats-Consumer-Stalled")
            if stalled is not None:
                self._requested(stalled)
            if self._watches_sequence and "Nats-Last-Consumer" in headers:
                self._reached(whole_number(headers, "Nats-Last-Consumer") + 1, came=False)
        self._settle()

    def connection_lost(self) -> None:
        """Tell that nothing can come."""
        self._look_at = inf
        # They are those of a subscription that the server has forgotten; it names what it still waits for.
        self._requests.clear()
        self._answers.clear()

    def connection_restored(self, now: float) -> None:
        """Tell that something can come again."""
        self._heard = now
        self._look_at = inf if self._blind else now

    # What looking found.

    def looking(self) -> None:
        """Tell that somebody looks at the consumer now."""
        self._look_at = inf

    def inspected(self, deliver_subject: str | None, now: float) -> None:
        """Tell what was found out about the consumer.

        Args:
            deliver_subject: Where it delivers; None where it waits to be asked.
        """
        self._absences = 0
        if deliver_subject != self._traits.subject:
            where = (
                "no longer delivers of itself" if deliver_subject is None else f"delivers to {deliver_subject!r} now"
            )
            text = (
                f"consumer {self._name!r} of stream {self._stream!r}: it {where}, no longer to {self._traits.subject!r}"
            )
            self._fail(errors.explained(errors.Error, text))
        self._tell_silence(now)

    def inspect_failed(self, error: Exception | None, now: float) -> None:
        """Tell that nothing could be found out about the consumer.

        Args:
            error: What the server said; None for nothing.
        """
        if isinstance(error, errors.NotFoundError):
            self._absences += 1
            self._look_at = now + SECOND_LOOK_AFTER
            if self._absences > 1:
                self._fail(consumer_gone(self._stream, self._name, error.description or "not found", error.err_code))
            return
        self._blind = isinstance(error, errors.PermissionsViolationError)
        self._tell_silence(now)

    # What is to be done.

    def next(self, now: float) -> Step:
        """Say what to do.

        Returns:
            The first thing. `Inspect` stands until `looking` is told; all others are said once.
        """
        if self._failure is not None:
            return Fail(self._failure)
        if self._answers:
            return Answer(self._answers.popleft())
        if self._news:
            return self._news.popleft()
        return Inspect(self._name) if now >= self._look_at else Wait(self._look_at)

    # Inside.

    def _hear(self, now: float) -> None:
        self._heard = now
        self._silent = False
        if self._look_at < inf:
            self._look_at = now + self._patience

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error

    def _tell_silence(self, now: float) -> None:
        """Tell, once until something is heard again, if it is for silence that the consumer was looked at."""
        silence = now - self._heard >= self._patience
        if self._beats and silence and not self._silent:
            self._silent = True
            self._news.append(Tell(PushNews.SILENT))
        self._look_at = inf if self._blind else (now if silence else self._heard) + self._patience

    def _requested(self, subject: str) -> None:
        """Note a request for flow control; the server repeats in heartbeats the one that it waits for."""
        if any(subject == known for _, known in self._requests):
            return
        try:
            subjects.publish_subject(subject)
        except errors.BadSubjectError:
            return  # that is nobody's but a stranger's
        if len(self._requests) < MOST_WAITING:
            self._requests.append((self._came, subject))

    def _settle(self) -> None:
        while self._requests and self._requests[0][0] <= self._received:
            self._answers.append(self._requests.popleft()[1])

    def _reached(self, sequence: int, *, came: bool = True) -> None:
        """Note where the consumer is: what is left out until there is lost.

        Args:
            sequence: Its sequence of what came, or of what comes next.
            came: Whether it came.
        """
        missed = sequence - self._expected
        if self._expected and missed > 0:
            self._news.append(Tell(PushNews.MISSED, missed))
        if came or missed > 0 or not self._expected:
            self._expected = sequence + came
