"""An atomic batch (ADR-50): what of it is under way, when it can be committed, and what is known of it afterwards.

Theory of operation
    A stream sets aside what carries one `Nats-Batch-Id` and is numbered from 1 without a gap. It stores all of it at once when a message
    says that it is the last (`Nats-Batch-Commit`), and nothing otherwise. So the message that was published last is held here: another
    one sends it on its way, and the end of the block sends it as the last. (2.14 can also commit by a message of its own that is
    not stored. 2.12 cannot, and one way for all servers is enough: design 103.)

    Each message is a request, and its reply is empty (it was set aside) or says why not. The first reply is waited for before the second
    message is sent, since a server that knows no batches stores each message by itself. Then a bounded number is under way, so
    that the stream's queue, which drops what is too much, is never full of ours.

    A message that was refused is a gap, and nothing is committed behind one. So the first refusal is the end of all, also of a commit that
    is under way; unless it only says that there is a gap, and the reply is still to come that says why. The same holds for what was lost with a connection: behind it the batch is incomplete, unless nothing of it had left us.

    Only what is lost behind the commit leaves a doubt. It is cleared, as far as it can be, by two questions. The commit is sent once
    more: if all the others are still set aside, that stores them; if the first commit did, the id means nothing any more, and the
    number of the second one (never 1) is refused. Then the stream is asked for the last message of the commit's subject: if it is the
    last one of the batch, all of it is stored. If not, and nothing at all was stored since the commit left us, none of it is, nor ever will be:
    what was refused for a gap is forgotten, so that the first commit, if it comes late, is refused, too. (Not so a batch of one message,
    whose commit needs nothing before it.) Else it stays unknown.

    One refusal leaves the same doubt. A stream that reaches the limit of its account in the midst of a batch keeps what it has stored
    until then (seen of one replica, servers 2.12.8 to 2.15.1), and says so to the commit (2.12) or says nothing.

Invariants
    * Messages are numbered, and sent, in the order in which they were taken; no number twice.
    * Nothing is sent behind the end, and the commit not before it.
    * `committed` is None only from the sending of the commit until it is known what it did.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from multidict import MultiDict

from trionats import errors
from trionats._protocol.jetstream.publishing.publish import CONFLICTS, EXPECTED_LAST, MSG_ID, ROLLUP, Attempts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from trionats._protocol.commands import Frame
    from trionats._protocol.outbox import Queued

__all__ = [
    "COMMIT_SIZE",
    "MOST_AWAITED",
    "MOST_BYTES",
    "Course",
    "Entry",
    "Loss",
    "Phase",
    "Sender",
    "Terms",
    "meaning",
    "stored_as",
    "without_batch",
]

_ID: Final = "Nats-Batch-Id"
_NUMBER: Final = "Nats-Batch-Sequence"
_COMMIT: Final = "Nats-Batch-Commit"
#: How many bytes more a message has as the last one.
COMMIT_SIZE: Final = len(f"{_COMMIT}: 1\r\n")
#: How many messages may be under way, and how many bytes of them. A stream's queue takes 10,000, and 128 MiB.
MOST_AWAITED: Final = 256
MOST_BYTES: Final = 16 * 1024 * 1024
#: By how many seconds the server's clock may jump while a doubt is cleared.
_MARGIN: Final = 0.25
#: Its number for a stream without `allow_atomic`, and for a message that does not follow upon the one before it.
_DISABLED: Final = 10174
_INCOMPLETE: Final = 10176
#: And for a batch that would be one too many.
_TOO_MANY: Final = 10210
#: Its number for an account that has no room for more.
_ACCOUNT_FULL: Final = 10002
#: What a stream says only where it had all of the batch: of a commit that is sent once more, that the first one has not come.
_WEIGHED: Final = CONFLICTS | {10201}
#: What the server's numbers mean for a batch.
_MEANINGS: Final = {
    10002: "the account has no more room; a part of the batch may be stored nevertheless",
    10047: "the server has no room for it",
    10054: "the message is larger than the stream's max_msg_size",
    10060: "the message went to another stream than it expected",
    10070: "the stream's last message is another one than was expected",
    10071: "something else is the last message than was expected",
    10109: "the stream is sealed",
    10158: "a message of this msg_id is being stored right now",
    10164: "something else is the last message than was expected, or a message of the batch goes there, too",
    10167: "the stream is given more than it can take",
    10174: "the stream does not take atomic batches: set its allow_atomic (server 2.12)",
    10175: "the message has no number",
    10176: "a message before this one is missing, or nothing came for too long (10 s, unless the server is configured otherwise), "
    "or the stream has another leader since, or the messages went to several streams",
    10177: "a batch cannot have this header",
    10179: "the id is too long",
    10185: "the server is too old for it",
    10199: "the server takes no more messages in one batch",
    10200: "the server does not know this way to commit",
    10201: "a message of this msg_id is stored already, or stands in the batch twice",
    10210: "too many batches are open (50 for a stream and 1,000 for a server, unless it is configured otherwise); "
    "one that was left without a commit counts for 10 s",
}


def meaning(err_code: int | None, number: int) -> str:
    """Say what the server's number for the refusal of a message means; nothing where it says no more than the server's text.

    Args:
        err_code: The server's number.
        number: Which message of the batch it is.
    """
    if err_code == _INCOMPLETE and number == 1:
        err_code = _TOO_MANY  # as 2.12 says it
    meant = _MEANINGS.get(err_code or 0, "")
    if err_code == _DISABLED and number > 1:
        meant += "; and a batch goes into one stream, but the messages before this one were taken by another"
    return meant


def without_batch(fields: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Leave out what a message that was stored by a batch brings along when it is published again with its headers.

    Args:
        fields: The headers; None for none.

    Returns:
        Those that do not speak of a batch: what was given, where none does.
    """
    if fields is None:
        return {}
    if not any(_speaks_of_batch(name) for name in fields):
        return fields
    return MultiDict((name, value) for name, value in fields.items() if not _speaks_of_batch(name))


def _speaks_of_batch(name: str) -> bool:
    return name.lower().startswith("nats-batch-")


class Entry:
    """One message of a batch.

    Attributes:
        subject: Where it goes.
        payload: What it holds; nobody can change it any more.
        fields: Its headers, without those of the batch.
        number: Which one it is, from 1.
        frame: Its frame as one of many, with that number; None where there is none yet.
        size: Its headers and payload, in bytes.
        token: What its reply is expected under.
        queued: Its frame, once it was sent.
    """

    __slots__ = ("fields", "frame", "number", "payload", "queued", "size", "subject", "token")

    def __init__(self, subject: str, payload: bytes, fields: Mapping[str, Any] | None) -> None:
        self.subject = subject
        self.payload = payload
        self.fields = fields
        self.frame: Frame | None = None
        self.number = self.size = 0
        self.token = ""
        self.queued: Queued | None = None


@final
class Terms:
    """What the messages of one batch may ask the stream for, as servers have it: what they would refuse at the end is refused at once."""

    def __init__(self) -> None:
        self._subjects: set[str] = set()
        self._ids: set[str] = set()

    def check(self, doing: str, subject: str, fields: Mapping[str, Any]) -> None:
        """Look at what a message asks for.

        Args:
            doing: What it is published for, for the text of an exception.
            subject: Where it goes.
            fields: Its headers.

        Raises:
            ValueError: It cannot ask for that here; the text names the argument.
        """
        why = self._complaint(subject, fields)
        if why:
            raise ValueError(f"{doing}: {why}")

    def _complaint(self, subject: str, fields: Mapping[str, Any]) -> str:
        def get(name: str) -> str | None:
            return _first(fields, name)

        if get("Nats-Expected-Last-Msg-Id") is not None:
            return "expected_last_msg_id cannot be asked for in a batch"
        if get("Nats-Expected-Last-Sequence") is not None and self._subjects:
            return "expected_last_seq can only be asked for by the first message of a batch"
        expected = get("Nats-Expected-Last-Subject-Sequence-Subject") or subject
        if get(EXPECTED_LAST) is not None and expected in self._subjects:
            return f"expected_last_subject_seq cannot be asked for: the batch has a message to {expected!r} already"
        if get(ROLLUP) == "all" and self._subjects:
            return "rollup 'all' can only be asked for by the first message of a batch"
        if get(ROLLUP) == "sub" and subject in self._subjects:
            return f"rollup 'sub' cannot be asked for: the batch has a message to {subject!r} already"
        if get(MSG_ID) in self._ids:
            return f"msg_id {get(MSG_ID)!r} stands in the batch already"
        return ""

    def taken(self, subject: str, fields: Mapping[str, Any]) -> None:
        """Take note of a message of the batch."""
        self._subjects.add(subject)
        given = _first(fields, MSG_ID)
        if given is not None:
            self._ids.add(given)


def _first(fields: Mapping[str, Any], name: str) -> str | None:
    """Give what a header says: of several values, servers look at the first."""
    value = fields.get(name)
    return value if value is None or isinstance(value, str) else next(iter(value), None)


class Phase(enum.Enum):
    """How far a batch is."""

    OPEN = enum.auto()
    """It takes messages."""
    COMMITTING = enum.auto()
    """Its last message was sent, and it is not known yet what became of it."""
    DOUBT = enum.auto()
    """The reply to that will not come any more."""
    ENDED = enum.auto()
    """Nothing more happens to it."""


class Loss(enum.Enum):
    """What a connection that broke has done to a batch."""

    NOTHING = enum.auto()
    """Nothing of it had left us: it goes on with the next connection."""
    BATCH = enum.auto()
    """It is incomplete, and never committed."""
    ACK = enum.auto()
    """The commit had left us, and its reply will not come any more."""


class Sender(Protocol):
    """Where frames wait."""

    def waits(self, entry: Entry, /) -> bool:
        """Say whether the frame of a message still waits, so that no server can have seen it."""

    def withdraw(self, entry: Entry, /) -> None:
        """Take that frame back."""


@final
class Course:
    """One batch, from its first message to what became of it.

    Args:
        batch: Its id.
        sender: Where frames wait.
    """

    def __init__(self, batch: str, sender: Sender) -> None:
        self.id = batch
        self._sender = sender
        self.phase = Phase.OPEN
        self.count = 0
        """How many messages were taken."""
        self.awaited: dict[str, Entry] = {}
        """Those whose reply is expected, by its token."""
        self.committed: bool | None = False
        """Whether all of it is stored; None where that is not known."""
        self.failure: Exception | None = None
        """Why it was not committed, or why that is not known."""
        self.last: Entry | None = None
        """The message that was sent as the last one."""
        self._held: Entry | None = None
        self._bytes = self._staged = 0
        self._server = ""
        self._attempts = Attempts()
        self._gap: tuple[int, Exception] | None = None

    # What goes out.

    def fields(self, entry: Entry, number: int, *, last: bool) -> Mapping[str, Any]:
        """Give a message's headers as they are sent.

        Args:
            entry: The message.
            number: Its number.
            last: Whether it commits.
        """
        own = {_ID: self.id, _NUMBER: str(number)}
        if last:
            own[_COMMIT] = "1"
        if not entry.fields:
            return own
        joined = MultiDict(entry.fields)
        joined.update(own)
        return joined

    def may_send(self, server: str) -> bool:
        """Say whether the message that is held may be sent now; also where there is none.

        Args:
            server: The server that we are connected to: what goes over two connections may arrive in another order, so of a new
                one nothing is asked while something of the old one is under way.
        """
        held = self._held
        if held is None or held.number == 1:
            return True
        if not self._staged:
            return False
        return not self.awaited or (
            server == self._server and len(self.awaited) < MOST_AWAITED and self._bytes + held.size <= MOST_BYTES
        )

    def take(self, entry: Entry) -> Entry | None:
        """Take the next message, which is held.

        Returns:
            The one before it, which is to be sent now.
        """
        self.count += 1
        if entry.number != self.count:  # another task was faster
            entry.number, entry.frame = self.count, None
        before, self._held = self._held, entry
        return before

    def end(self) -> Entry | None:
        """Take no more messages, since the block has ended well.

        Returns:
            The last one, which is to be sent as that; None where there is none, and nothing to commit.
        """
        self.last, self._held = self._held, None
        if self.last is None:
            self.phase = Phase.ENDED
        else:
            self.phase, self.committed = Phase.COMMITTING, None
        return self.last

    def sent(self, entry: Entry, server: str) -> None:
        """Take note that a message was queued.

        Args:
            entry: The message.
            server: The server that we are connected to.
        """
        self.awaited[entry.token] = entry
        self._bytes += entry.size
        self._server = server

    # What comes back.

    def replied(self, token: str) -> Entry | None:
        """Take a reply.

        Args:
            token: What it came under.

        Returns:
            The message that it is the reply to; None where nobody waits for it.
        """
        entry = self.awaited.pop(token, None)
        if entry is not None:
            self._bytes -= entry.size
        return entry

    def staged(self, entry: Entry) -> bool:
        """Take note that a message was set aside.

        Returns:
            Whether that can be: it is no reply to the last one.
        """
        self._staged += 1
        self._look_at_gap()
        return entry is not self.last

    def refused(self, entry: Entry, err_code: int | None, error: Exception) -> None:
        """Take note that the stream has refused a message.

        Args:
            entry: The message.
            err_code: What the server calls it.
            error: What it is.
        """
        if err_code == _ACCOUNT_FULL and entry is self.last and self.count > 1:
            self.doubt(error)
            return
        if err_code != _INCOMPLETE:
            self.fail(error)
            return
        if self._gap is None or entry.number < self._gap[0]:
            self._gap = entry.number, error
        self._look_at_gap()

    def overdue(self) -> bool:
        """Wait no longer for the reply that says why there is a gap, if there is one.

        Returns:
            Whether there is, so that it has ended.
        """
        return self._gap is not None and self.fail(self._gap[1])

    def _look_at_gap(self) -> None:
        if self._gap is not None and not any(entry.number < self._gap[0] for entry in self.awaited.values()):
            self.fail(self._gap[1])

    def acknowledged(self, entry: Entry, batch: str | None, count: int | None) -> bool:
        """Take note that a message was stored.

        Args:
            entry: The message.
            batch: The batch that the acknowledgement names.
            count: And how many messages.

        Returns:
            Whether that is the whole batch. If not, the message was stored by itself.
        """
        if entry is not self.last or not self.is_whole(batch, count):
            return False
        self.done()
        return True

    def is_whole(self, batch: str | None, count: int | None) -> bool:
        """Say whether an acknowledgement speaks of the whole batch; of one message anybody's does."""
        return (batch, count) == (self.id, self.count) or (self.count == 1 and batch is None)

    def nobody(self, entry: Entry) -> float | None:
        """Take note that nobody listens to a message.

        Returns:
            After how many seconds to send it again, or None for not at all: only the first one, as often as ADR-22 says.
        """
        return self._attempts.nobody() if entry.number == 1 else None

    # How it ends.

    def done(self) -> None:
        """Take note that all of it is stored."""
        self.phase, self.committed, self.failure = Phase.ENDED, True, None
        self.awaited.clear()

    def fail(self, why: Exception | None) -> bool:
        """End it, unless it has ended: it is not committed, and nothing more of it is sent.

        Args:
            why: Why; None where it was left.

        Returns:
            Whether it had not ended.
        """
        if self.phase is Phase.ENDED:
            return False
        self.phase, self.committed, self.failure, self._held = Phase.ENDED, False, why, None
        for entry in self.awaited.values():
            self._sender.withdraw(entry)
        self.awaited.clear()
        return True

    def doubt(self, why: Exception) -> None:
        """Take note that the reply to the commit will not come any more.

        Args:
            why: Why.
        """
        self.phase, self.failure = Phase.DOUBT, why
        self.awaited.clear()

    def unknown(self, error: Exception | None = None) -> None:
        """Take note that what became of it is not to be found out.

        Args:
            error: What says so; None where nobody is told.
        """
        self.phase, self.failure = Phase.ENDED, error

    def refused_again(self, err_code: int | None, error: Exception) -> None:
        """Take note that the stream has refused the commit that was sent once more.

        Where it has weighed the whole batch, the first commit had not come, and nothing is stored: it is as if that had been refused.

        Args:
            err_code: What the server calls it.
            error: What it is.
        """
        if err_code in _WEIGHED:
            self.fail(error)

    def look_at(self, passed: float, now: datetime | None, last: datetime | None, error: Exception) -> None:
        """Clear the doubt if it is certain that nothing was stored since the commit left us, which was refused meanwhile.

        Then the first commit, should it still arrive, is refused as well, unless it is the whole batch.

        Args:
            passed: How many seconds ago it was sent, the first time.
            now: The time of the server that says the rest; None where it does not.
            last: When the stream stored its last message, by the same clock.
            error: What says that nothing is stored.
        """
        if self.count == 1 or now is None or last is None:
            return
        if (now - last).total_seconds() > passed + _MARGIN:
            self.fail(error)

    # The connection.

    @property
    def commit_left(self) -> bool:
        """Whether a server may have seen the commit."""
        return self.last is not None and self.last.token in self.awaited and not self._sender.waits(self.last)

    def lost(self) -> Loss:
        """Say what it means that there is no connection any more."""
        if self.phase in (Phase.DOUBT, Phase.ENDED):
            return Loss.NOTHING
        if self.commit_left:
            return Loss.ACK
        left = self._staged or any(not self._sender.waits(entry) for entry in self.awaited.values())
        return Loss.BATCH if left else Loss.NOTHING

    def dropped(self) -> Entry | None:
        """Find a message, of those that waited for a connection, that was dropped because the new server does not take so much."""
        return next((entry for entry in self.awaited.values() if not self._sender.waits(entry)), None)

    # What is done in doubt.

    @property
    def asked_as(self) -> int:
        """The number that the commit has when it is sent once more: never 1, with which a batch begins."""
        return max(self.count, 2)


def stored_as(batch: str, count: int, fields: Mapping[str, Any] | None, sequence: int | None) -> int | None:
    """Say under which sequence the last message of a batch is stored, if a message that was found is that.

    Another one of the batch says nothing: a stream without room for all of it may have kept a part.

    Args:
        batch: The batch.
        count: How many messages it has.
        fields: The headers of what was found.
        sequence: Its sequence.

    Returns:
        The sequence; None where it is another message.
    """
    if fields is None or (fields.get(_ID), fields.get(_NUMBER)) != (batch, str(count)):
        return None
    return sequence


def stored_alone(doing: str, stream: str, seq: int) -> errors.BatchError:
    """Make the error for a message that was to be one of several, and was stored by itself.

    Args:
        doing: What was published, for the text.
        stream: The stream.
        seq: The message's sequence.
    """
    why = f"stream {stream!r} is on a server that knows no batches, and has stored this message by itself, as {seq}"
    known = {"code": None, "err_code": None, "stream": stream, "seq": seq}
    return errors.explained(errors.BatchError, f"{doing}: {why}", description=why, **known)
