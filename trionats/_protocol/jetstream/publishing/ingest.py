"""Fast ingest (ADR-50): many messages in one batch, acknowledged in steps, and what became of each of them.

Theory of operation
    A batch has an id, and its messages are numbered from 1. What the server needs to know stands in the subject of the reply,
    `<id>.<flow>.<mode>.<sequence>.<operation>.$FI` below our inbox: nothing in the message. It says few things in return, each to the
    subject of the message that made it say so:

    * a flow ack: the messages up to a sequence have been dealt with, and the next ack comes so many messages later. So many messages,
      times `max_outstanding`, may be under way: this is the back-pressure. The very first one, of sequence 0, says that the batch has
      begun; nothing else is sent before it.
    * a gap: messages did not come. In mode "fail" that ends the batch.
    * an error of one message. In mode "fail" that ends the batch, too, at the message before.
    * a refusal, as to any publish: the message was not looked at by the batch. Where it says that the batch is unknown, that is true of
      all that were sent behind it.
    * a PubAck: the batch is over. It comes when we end it, and without a word of error when a gap does: what says that all is
      well is its count, which is that of our last message.

    The server acknowledges in steps only, so the last messages are not acknowledged until the batch is ended. It is ended, and another
    one begun with the next message, whenever nobody publishes for a while, somebody waits for one of those, or too many bytes are under way; so no batch lies idle,
    which the server would forget after 10 s, and which would slow down the others of the stream.

    A batch is in one of five phases:

    * none: there is no batch; the next message begins one.
    * starting: its first message was sent.
    * flowing: it has begun.
    * asking: something may be missing (the connection broke, nobody listened, no ack came), and a ping asks. Its reply is an ack, if all has
      arrived, or names the gap, or says that the batch is unknown. Nothing else is sent meanwhile.
    * ending: it was ended, and its PubAck is awaited.

    Whether a message is stored is known from acks, PubAcks, gaps and errors. Gaps and errors are not repeated by the server. So in mode
    "continue" what was under way when the connection broke cannot be known to be stored: an error of one of these may be lost. In mode "fail" it
    can, since an error would have ended the batch. What is known not to have been taken is sent again where that keeps the order:
    frames that never left us, and all that comes behind the first one to which the batch was unknown.

Invariants
    * Each message is judged once, and nothing that was sent is forgotten. Not more are under way than the server has asked for.
    * Messages are sent in the order in which they were given, also those that are sent again.
    * In mode "fail" nothing is taken any more once one message is not stored or may not be.
    * No time is looked at here: it is passed in as `now`, in seconds of any clock that runs steadily.
"""

from __future__ import annotations

import enum
import json
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._protocol.outbox import Queued

__all__ = [
    "DISABLED",
    "FLOW",
    "IDLE",
    "MOST_BYTES",
    "MOST_OUTSTANDING",
    "RETRY_PAUSE",
    "SILENCE",
    "WANTED",
    "Committed",
    "Flow",
    "Gap",
    "Ingested",
    "Ingestion",
    "Op",
    "Refusal",
    "Request",
    "Sender",
    "Verdict",
    "read_reply",
]

#: How many messages the server may let come between two acks; it takes no more than this itself.
FLOW: Final = 500
#: How many bytes may be under way, whatever the server asks for: what is not acknowledged is kept here. Before they are reached by
#: messages that are larger than those before, the steps are chosen so that half of them are.
MOST_BYTES: Final = 32 * 1024 * 1024
#: How many acks may be outstanding at the most (ADR-50).
MOST_OUTSTANDING: Final = 3
#: After how many seconds without a publish a batch is ended. The server forgets one after 10 s, unless configured otherwise.
IDLE: Final = 1.0
#: And after how many when somebody waits for a message that only the end of the batch will acknowledge.
WANTED: Final = 0.1
#: After how many seconds without a word it is asked again what has arrived.
SILENCE: Final = 1.0
#: A stream without a leader has no subscriber for a moment: how often its first message is tried again, and all else how soon (ADR-22).
RETRIES: Final = 2
RETRY_PAUSE: Final = 0.25
#: How many tokens stand behind our inbox in the subject of a reply.
TOKENS: Final = 6
#: The server's numbers for: this stream has no fast ingest; this batch is not known.
DISABLED: Final = 10205
UNKNOWN_BATCH: Final = 10208


class Op(enum.IntEnum):
    """What a message is to its batch, as the server counts."""

    START = 0
    APPEND = 1
    END = 3
    """The batch ends with the message before; this one is not stored."""
    PING = 4
    """What was the last of what has arrived? This one is not counted."""


class Verdict(enum.Enum):
    """What became of a message."""

    STORED = enum.auto()
    """The stream has it, or had one of the same id."""
    REFUSED = enum.auto()
    """The stream has said why not (`Ingested.refusal`)."""
    NOBODY = enum.auto()
    """No stream was there to hear it."""
    MISSED = enum.auto()
    """It is not stored: it did not arrive, or behind a gap."""
    UNSENT = enum.auto()
    """It is not stored: it was not sent."""
    DISCONNECTED = enum.auto()
    """It may be stored: the connection broke behind it."""
    FORGOTTEN = enum.auto()
    """It may be stored: its batch ended without a word of it."""
    LATE = enum.auto()
    """It may be stored: nothing has come back in time."""


class Phase(enum.Enum):
    """Where a batch is."""

    NONE = enum.auto()
    STARTING = enum.auto()
    FLOWING = enum.auto()
    ASKING = enum.auto()
    ENDING = enum.auto()


class Ingested:
    """One message of an ingest.

    Attributes:
        subject: Where it goes.
        size: Its headers and payload, in bytes.
        queued: Its frame, until it is stored.
        seq: Its number in its batch.
        outcome: What became of it; None while that is not known.
        refusal: Why it was refused, where it was: a `Refusal`, or an exception.
        told: Is set when there is an outcome, if somebody waits for it.
    """

    __slots__ = ("outcome", "queued", "refusal", "seq", "size", "subject", "told")

    def __init__(self, subject: str, size: int = 0) -> None:
        self.subject = subject
        self.size = size
        self.queued: Queued | None = None
        self.seq = 0
        self.outcome: Any = None
        self.refusal: Any = None
        self.told: Any = None


class Sender(Protocol):
    """Where frames wait."""

    def waits(self, message: Ingested, /) -> bool:
        """Say whether the frame of a message still waits, so that no server can have seen it."""

    def withdraw(self, message: Ingested, /) -> None:
        """Take that frame back."""


class Request(NamedTuple):
    """Something to be sent.

    Attributes:
        op: What it is.
        token: What stands behind our inbox in the subject of its reply.
        message: The message that is sent again; None for what is no message of the program.
    """

    op: Op
    token: str
    message: Ingested | None


# What comes back.


class Flow(NamedTuple):
    """An ack: the messages up to `seq` were dealt with; the next one comes `step` messages later."""

    seq: int
    step: int


class Gap(NamedTuple):
    """Messages did not come: from `first` to the one before `current`. Where that is none, `current` came twice, or late."""

    first: int
    current: int


class Refusal(NamedTuple):
    """An error.

    Attributes:
        error: As the server sent it.
        stream: The stream that says so, or an empty string.
        code: What the server calls it, or None.
        seq: The message that it is of; None for that to which it was sent.
    """

    error: Any
    stream: str
    code: int | None
    seq: int | None


class Committed(NamedTuple):
    """A PubAck.

    Attributes:
        stream: The stream.
        domain: Its domain, or an empty string.
        batch: The batch that is over; an empty string where it is that of a single message.
        last: The last message of the batch.
    """

    stream: str
    domain: str
    batch: str
    last: int


def read_reply(data: bytes) -> Flow | Gap | Refusal | Committed:
    """Read what the server says.

    Args:
        data: A reply's payload.

    Raises:
        ValueError: It is none of what a server says to an ingest.
    """
    said: Any = json.loads(data)
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")
    kind, stream = said.get("type"), said.get("stream")
    if kind == "ack":
        return Flow(_number(said, "seq"), max(1, _number(said, "msgs")))
    if kind == "gap":
        return Gap(_number(said, "last_seq"), _number(said, "seq"))
    stream = stream if isinstance(stream, str) else ""
    if "error" in said:
        error = said["error"]
        code = error.get("err_code") if isinstance(error, dict) else None
        return Refusal(
            error, stream, code if type(code) is int else None, _number(said, "seq") if kind == "err" else None
        )
    if not stream:
        raise ValueError("it is neither an ack nor a gap, nor an error, nor that of a stream")
    _number(said, "seq")
    batch, domain = (text if isinstance(text, str) else "" for text in (said.get("batch"), said.get("domain")))
    return Committed(stream, domain, batch, _number(said, "count") if batch else 0)


def _number(said: dict[str, Any], name: str) -> int:
    number = said.get(name)
    if type(number) is not int or number < 0:
        raise ValueError(f"its {name} is {number!r:.40}")
    return number


class Ingestion:
    """The messages of one ingest that are under way.

    After each call that takes note of something, `requests` says what is to be sent, and `judged` what became of which message.

    Args:
        patience: How many seconds anything may take that the server has to answer.
        sender: Where frames wait.
        new_id: Makes an id that no batch has.
        keep_on: Whether a gap does not end the ingest (mode "continue").
        max_outstanding: How many acks may be outstanding.
        online: Whether there is a connection.
    """

    def __init__(
        self,
        patience: float,
        sender: Sender,
        new_id: Callable[[], str],
        *,
        keep_on: bool,
        max_outstanding: int,
        online: bool,
    ) -> None:
        self._patience = patience
        self._sender = sender
        self._new_id = new_id
        self._keep_on = keep_on
        self._max_outstanding = max_outstanding
        self._online = online
        self.stream = ""
        """The stream that all goes to."""
        self.subject = ""
        """The subject of the batch's first message: pings and the end go there, too."""
        self.under_way = 0
        """How many were sent and not judged."""
        self.limit = 1 if online else 0
        """How many of these there may be: one more may be sent while there are fewer."""
        self.failing = False
        """Whether no more messages are taken: in mode "fail", once one was not stored or may not be."""
        self.judged: list[tuple[Ingested, Verdict]] = []
        """What became of messages since this was last looked at; who looks empties it."""
        self._sent: deque[Ingested] = deque()  # in their order; those judged before their turn stay until it comes
        self._held: deque[Ingested] = deque()  # to be sent again, before anything else
        self._closing = False
        self._since = 0.0  # when we began to wait for an answer, or for a connection
        self._sent_at = self._heard_at = 0.0
        self._step = 1
        self._bytes = 0  # of those under way
        self._largest = 1
        # Of the batch that there is:
        self._phase = Phase.NONE
        self._id = self._head = ""
        self._last = 0  # the message that was sent last
        self._unsure = 0  # behind which one the connection broke
        self._tries = 0  # how often nobody has heard the first one
        self._again = False  # and whether that is why it is to be sent again
        self._act_at = inf  # when a first message, a ping or an end is to be sent
        self._wanted: Ingested | None = None  # what somebody waits for
        self._wanted_at = inf
        self._no_batch()

    def __len__(self) -> int:
        return self.under_way + len(self._held)

    @property
    def ended(self) -> bool:
        """Whether nothing is under way, and the server has no batch of ours."""
        return self._phase is Phase.NONE and not self._held

    def awaited(self) -> list[str]:
        """Name the messages under way, each by a text that no other has."""
        return [f"{self._id}.{message.seq}" for message in self._between(0, inf)]

    # What is sent.

    def token(self) -> str:
        """Give what stands behind our inbox in the subject of the next message's reply; there is room for it."""
        return f"{self._head}{self._last + 1}.1.$FI" if self._last else f"{self._head}1.0.$FI"

    def sent(self, message: Ingested, now: float) -> None:
        """Take note that the next message was queued, with that token.

        Args:
            message: The message.
            now: The time.
        """
        self._last += 1
        message.seq = self._last
        self._sent.append(message)
        self.under_way += 1
        self._bytes += message.size
        if message.size > self._largest:
            self._largest = message.size
        if self._bytes >= MOST_BYTES:
            self.limit = 0
        self._sent_at = now
        if self._phase is Phase.NONE:
            self.subject = message.subject
            self._wait(Phase.STARTING, now, SILENCE)
            self._set_limit()

    def want(self, message: Ingested, now: float) -> None:
        """Take note that somebody waits for what becomes of a message that is under way."""
        if self._wanted is None:
            self._wanted_at = now
        if self._wanted is None or self._wanted.seq < message.seq:
            self._wanted = message

    def close(self) -> None:
        """Take no more messages, and end the batch as soon as all are sent."""
        self._closing = True
        self._set_limit()

    def requests(self, now: float) -> list[Request]:
        """Do what the time has come for.

        Args:
            now: The time.

        Returns:
            What is to be sent, in this order; a message that cannot be is to be passed to `dropped`.
        """
        self._look_at_time(now)
        asked: list[Request] = []
        if not self._online:
            return asked
        while self._held and self._may_send:
            op, token = (Op.APPEND if self._last else Op.START), self.token()
            message = self._held.popleft()
            self.sent(message, now)
            asked.append(Request(op, token, message))
        if self._phase is Phase.FLOWING and self._is_time_to_end(now):
            self._wait(Phase.ENDING, now, 0.0)
        if self._act_at <= now:
            self._act_at = now + SILENCE
            asked.append(self._request())
        self._set_limit()
        return asked

    def dropped(self, message: Ingested, refusal: object) -> None:
        """Take note that a message of `requests` was not sent.

        Args:
            message: The message.
            refusal: Why.
        """
        message.refusal = refusal
        self._judge(message, Verdict.REFUSED)
        if self._phase is Phase.STARTING:
            self._no_batch()
        self._set_limit()

    # What comes back.

    def heard(self, token: str, reply: Flow | Gap | Refusal | Committed | None, now: float) -> bool:
        """Take a reply.

        Args:
            token: What it came to, behind our inbox.
            reply: What it says; None that nobody listens.
            now: The time.

        Returns:
            Whether the end of the batch was confirmed, as we ended it.
        """
        parts = token.split(".")
        if len(parts) != TOKENS or parts[0] != self._id or self._phase is Phase.NONE:
            return False  # it is of an earlier batch, or of nobody
        if not (parts[3].isdecimal() and parts[4].isdecimal()):
            return False
        seq, op, confirmed = int(parts[3]), int(parts[4]), False
        if reply is None:
            self._nobody(seq, op, now)
        elif isinstance(reply, Flow):
            self._flow(reply, op, now)
        elif isinstance(reply, Gap):
            self._gap(reply, now)
        elif isinstance(reply, Refusal):
            self._refused(reply, seq if reply.seq is None else reply.seq, op)
        else:
            confirmed = self._committed(reply, seq)
        self._set_limit()
        return confirmed

    def _flow(self, ack: Flow, op: int, now: float) -> None:
        if ack.seq > self._last:
            return
        self._heard_at = now
        self._step = ack.step
        self._stored(ack.seq)
        if self._phase is Phase.STARTING or (self._phase is Phase.ASKING and op == Op.PING):
            self._phase = Phase.FLOWING
            self._act_at = inf

    def _gap(self, gap: Gap, now: float) -> None:
        ended = not self._keep_on or gap.current < gap.first
        for message in self._between(gap.first, gap.current if self._keep_on else inf):
            self._judge(message, Verdict.MISSED)
        if ended and self._phase is not Phase.ENDING:
            # A PubAck is about to say how far it came.
            self._wait(Phase.ENDING, now, SILENCE)

    def _refused(self, refusal: Refusal, seq: int, op: int) -> None:
        ours = not refusal.stream or refusal.stream == self.stream
        if op == Op.APPEND and refusal.code == UNKNOWN_BATCH and ours:
            self._forgotten(seq)
        elif op in (Op.START, Op.APPEND):
            for message in self._between(seq, seq + 1):
                message.refusal = refusal
                self._judge(message, Verdict.REFUSED)
            if self._phase is Phase.STARTING:
                self._no_batch()
        else:
            # Of a batch that is not known, or will not end as it should, nothing more will be heard.
            self._forgotten(inf)

    def _nobody(self, seq: int, op: int, now: float) -> None:
        if op in (Op.PING, Op.END):
            self._act_at = now + RETRY_PAUSE
        elif self._phase is Phase.STARTING and self._tries < RETRIES:
            self._tries += 1
            self._again = True
            self._act_at = now + RETRY_PAUSE
        else:
            for message in self._between(seq, seq + 1):
                self._judge(message, Verdict.NOBODY)
            if self._phase is Phase.STARTING:
                self._no_batch()
            elif self._phase is Phase.FLOWING:
                self._wait(Phase.ASKING, now, RETRY_PAUSE)

    def _committed(self, ack: Committed, seq: int) -> bool:
        if self.stream and ack.stream != self.stream:
            return False
        if not ack.batch:
            # A stream that takes it for a message like any other has stored it.
            for message in self._between(seq, seq + 1):
                self._judge(message, Verdict.STORED)
            if self._phase is Phase.STARTING:
                self._no_batch()
            return False
        if ack.batch != self._id or ack.last > self._last:
            return False
        confirmed = self._phase is Phase.ENDING and ack.last == self._last and not self.failing
        self._stored(ack.last)
        self._over(Verdict.MISSED)
        return confirmed

    # What happens to the connection, and around it.

    def lost(self, now: float) -> None:
        """Take note that the connection broke."""
        self._online = False
        self._since = now
        waiting = [message for message in self._between(0, inf) if self._sender.waits(message)]
        for message in waiting:
            self._sender.withdraw(message)
        if waiting:
            # These are the last ones, since frames go in their order.
            self._held.extendleft(reversed(self._taken_back(waiting[0].seq)))
            self._last = waiting[0].seq - 1
        if not self._last:
            self._no_batch()
        elif self.under_way:
            self._unsure = self._last
            if self._phase is not Phase.ENDING:
                self._phase = Phase.ASKING
        self._set_limit()

    def restored(self, now: float) -> None:
        """Take note that there is a connection again."""
        self._online = True
        if self._phase in (Phase.ASKING, Phase.ENDING):
            self._wait(self._phase, now, 0.0)
        self._set_limit()

    def refused(self, subject: str, refusal: object, now: float) -> None:
        """Take note that the server has not passed on what was published to a subject.

        Args:
            subject: The subject.
            refusal: Why.
            now: The time.
        """
        for message in self._between(0, inf):
            if message.subject == subject and not self._sender.waits(message):
                message.refusal = refusal
                self._judge(message, Verdict.REFUSED)
        if self.subject == subject:
            # So will be pings and the end.
            self._forgotten(inf)
        elif self._phase is Phase.FLOWING:
            self._wait(Phase.ASKING, now, 0.0)
        self._set_limit()

    def end(self) -> tuple[list[Ingested], str]:
        """Give up what is under way.

        Returns:
            What that is, and the token of what still ends the batch for the server, or an empty string.
        """
        given_up = self._between(0, inf) + list(self._held)
        begun = self._online and self._phase is not Phase.NONE
        farewell = f"{self._head}{self._last + 1}.{Op.END:d}.$FI" if begun else ""
        self._held.clear()
        self.under_way = self._bytes = 0
        self.failing = True
        self._no_batch()
        self._set_limit()
        return given_up, farewell

    # Time.

    def due(self) -> float:
        """Say when `requests` has something to do, unless something else happens before."""
        if not self._online:
            return inf if self.ended else self._since + self._patience
        if self._phase is Phase.NONE:
            return inf
        if self._phase is not Phase.FLOWING:
            return min(self._act_at, self._given_up_at)
        if self._is_stalled:
            return self._moved_at + SILENCE
        return min(self._moved_at + IDLE, self._wanted_at + WANTED)

    def _look_at_time(self, now: float) -> None:
        if self._wanted is not None and self._wanted.outcome is not None:
            self._wanted, self._wanted_at = None, inf
        if not self._online:
            if not self.ended and self._since + self._patience <= now:
                self._over(Verdict.DISCONNECTED)
                if self._held:
                    self._unsend()
                    self._fail()
        elif self._phase is Phase.FLOWING:
            if self._is_stalled and not self._closing and self._moved_at + SILENCE <= now:
                self._wait(Phase.ASKING, now, 0.0)
        elif self._phase is not Phase.NONE and self._given_up_at <= now:
            self._over(Verdict.LATE)

    def _is_time_to_end(self, now: float) -> bool:
        if self._bytes >= MOST_BYTES:
            return True
        if self._held:
            return False
        if self._closing or self.failing:
            return True
        return not self._is_stalled and (self._moved_at + IDLE <= now or self._wanted_at + WANTED <= now)

    @property
    def _moved_at(self) -> float:
        """When a message was sent last, or an ack came, before which perhaps none could be."""
        return max(self._sent_at, self._heard_at)

    @property
    def _is_stalled(self) -> bool:
        """Whether an ack has to come before anything else may be sent."""
        return self.under_way >= self._step * self._max_outstanding

    @property
    def _given_up_at(self) -> float:
        return max(self._since, self._heard_at) + self._patience

    # Inside.

    @property
    def _may_send(self) -> bool:
        if self._phase is Phase.FLOWING:
            return not self._is_stalled and self._bytes < MOST_BYTES
        return self._phase is Phase.NONE

    def _set_limit(self) -> None:
        if not self._online or self._held or self.failing or self._closing or self._bytes >= MOST_BYTES:
            self.limit = 0
        elif self._phase is Phase.FLOWING:
            self.limit = self._step * self._max_outstanding
        else:
            self.limit = 1 if self._phase is Phase.NONE else 0

    def _no_batch(self) -> None:
        """There is none any more: all of its messages are judged. The next one has another id."""
        self._phase = Phase.NONE
        self._sent.clear()
        self._id = self._new_id()
        flow = max(1, min(FLOW, MOST_BYTES // (2 * self._max_outstanding * self._largest)))
        self._head = f"{self._id}.{flow}.{'ok' if self._keep_on else 'fail'}."
        self._last = self._unsure = self._tries = 0
        self._again = False
        self._wanted = None
        self._act_at = self._wanted_at = inf

    def _wait(self, phase: Phase, now: float, pause: float) -> None:
        """Wait for an answer, and ask for it after a while."""
        self._phase = phase
        self._since = now
        self._act_at = now + pause

    def _request(self) -> Request:
        """Say what is due: the first message once more, where nobody has heard it, an end or a ping."""
        if self._phase is Phase.ENDING:
            return Request(Op.END, f"{self._head}{self._last + 1}.{Op.END:d}.$FI", None)
        if self._phase is Phase.STARTING and self._again:
            self._again = False
            return Request(Op.START, f"{self._head}1.{Op.START:d}.$FI", self._sent[0])
        self._phase = Phase.ASKING
        return Request(Op.PING, f"{self._head}{self._last}.{Op.PING:d}.$FI", None)

    def _between(self, first: float, behind: float) -> list[Ingested]:
        """List the messages of the batch that are under way, from a sequence to the one before another."""
        return [message for message in self._sent if first <= message.seq < behind and message.outcome is None]

    def _taken_back(self, first: float) -> list[Ingested]:
        """Take those from a sequence on out of the batch."""
        taken = self._between(first, inf)
        while self._sent and self._sent[-1].seq >= first:
            self._sent.pop()
        self.under_way -= len(taken)
        self._bytes -= sum(message.size for message in taken)
        return taken

    def _stored(self, seq: int) -> None:
        """All up to this one were dealt with: those of which nothing else was said are stored."""
        # Where a batch goes on behind errors, one of these may have been lost.
        sent, unsure = self._sent, self._unsure if self._keep_on else 0
        while sent and sent[0].seq <= seq:
            message = sent.popleft()
            if message.outcome is None:
                self._judge(message, Verdict.STORED if message.seq > unsure else Verdict.DISCONNECTED)

    def _forgotten(self, first: float) -> None:
        """The batch is not known any more, and so was none of what was sent from a sequence on: that is sent again."""
        again = self._taken_back(first)
        self._over(Verdict.FORGOTTEN)
        if self.failing:
            for message in again:
                self._tell(message, Verdict.MISSED)
        else:
            self._held.extendleft(reversed(again))

    def _over(self, verdict: Verdict) -> None:
        """The batch is over, and this is what became of all that was not judged before."""
        rest = self._taken_back(0)
        for message in rest:
            if self._sender.waits(message):
                self._sender.withdraw(message)
                self._tell(message, Verdict.UNSENT)
            elif message.seq <= self._unsure and verdict is not Verdict.MISSED:
                self._tell(message, Verdict.DISCONNECTED)
            else:
                self._tell(message, verdict)
        self._no_batch()
        if rest:
            self._fail()

    def _judge(self, message: Ingested, verdict: Verdict) -> None:
        self.under_way -= 1
        self._bytes -= message.size
        self._tell(message, verdict)
        if verdict is not Verdict.STORED:
            self._fail()

    def _tell(self, message: Ingested, verdict: Verdict) -> None:
        message.outcome = verdict
        self.judged.append((message, verdict))

    def _fail(self) -> None:
        """A message is not stored, or may not be."""
        if not self._keep_on:
            self.failing = True
            self._unsend()

    def _unsend(self) -> None:
        """What was not sent will not be."""
        while self._held:
            self._tell(self._held.popleft(), Verdict.UNSENT)
