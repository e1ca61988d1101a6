"""nats-py's messages as our own, and the answers to requests among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import trio

from trionats import errors, events
from trionats._core.deadlines import reply_within
from trionats._core.message import Msg
from trionats._protocol import headers
from trionats._protocol.index import Index
from trionats._protocol.replies import no_responders, nobody_listens
from trionats._protocol.server_errors import refusal_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.msg import Msg as NatsPyMsg

    from trionats._bridge.attachments import Attachment
    from trionats._bridge.connection import NatsPyConnection


def ours(message: NatsPyMsg) -> Msg:
    """Make a message of our own class of nats-py's; it cannot be answered."""
    block = None
    fields = message.headers
    if fields:
        status = fields.get("Status", "") if not message.data else ""
        if len(status) == 3 and status.isdigit():
            rest = {name: value for name, value in fields.items() if name not in ("Status", "Description")}
            # Where the server says no words, nats-py takes the next header line for them.
            line = f"NATS/1.0 {status} {fields.get('Description', '')}\r\n".encode()
            block = line + _encode(rest).partition(b"\r\n")[2]
        else:
            block = _encode(fields)
    return Msg(message.sid, message.subject, message.reply, message.data, block)


def _encode(fields: Mapping[str, str]) -> bytes:
    try:
        return headers.encode(fields)
    except errors.BadHeaderError:
        # A peer sent what no client should: that header is left out rather than the message.
        return headers.encode({name: value for name, value in fields.items() if _is_sound(name, value)})


def _is_sound(name: str, value: str) -> bool:
    try:
        headers.encode({name: value})
    except errors.BadHeaderError:
        return False
    return True


@dataclass(slots=True, eq=False)
class _Question:
    """A request under way."""

    subject: str
    answered: trio.Event = field(default_factory=trio.Event)
    answer: Msg | Exception | None = None


@final
class Answers:
    """One inbox for the requests of a connection, and who waits for the answers."""

    def __init__(self, connection: NatsPyConnection) -> None:
        self._connection = connection
        self._inbox = ""
        self._attachment: Attachment | None = None
        self._questions: dict[str, _Question] = {}
        # In lower case, as nats-py tells it.
        self._named: Index[tuple[str, str], _Question] = Index()

    async def ask(self, subject: str, payload: bytes) -> Msg:
        """Ask, and wait for the answer."""
        if self._attachment is None:
            self._inbox = f"{self._connection.new_inbox()}."
            self._attachment = self._connection.attach(f"{self._inbox}*", self)
        token = self._connection.new_token()
        question = self._questions[token] = _Question(subject)
        names = (("publish", subject.lower()), ("reply", f"{self._inbox}{token}".lower()))
        for name in names:
            self._named.add(name, question)
        try:
            self._connection.publish_nowait(subject, payload, f"{self._inbox}{token}")
            with reply_within(None, f"request to {subject!r}"):
                await question.answered.wait()
        finally:
            del self._questions[token]
            for name in names:
                self._named.remove(name, question)
            self._connection.rest()
        answer = question.answer
        assert answer is not None
        if isinstance(answer, Exception):
            raise answer
        if nobody_listens(answer):
            raise no_responders(subject)
        return answer

    def leave(self) -> None:
        """Unsubscribe, unless somebody waits."""
        if self._attachment is not None and not self._questions:
            attachment, self._attachment = self._attachment, None
            attachment.detach()

    def deliver(self, message: Msg) -> None:
        """Hand an answer to its waiter."""
        question = self._questions.get(message.subject.removeprefix(self._inbox))
        if question is not None:
            _settle(question, message)

    def connection_lost(self, reason: Exception) -> None:
        """Fail the requests under way."""
        for question in self._questions.values():
            _settle(question, errors.again(reason))

    def connection_restored(self) -> None:
        """Nothing to do."""

    def ended(self, reason: BaseException | None) -> None:
        """Fail the requests under way, and forget the inbox: the client is closed, or the server refused the inbox."""
        for question in self._questions.values():
            if isinstance(reason, errors.PermissionsViolationError):
                _settle(question, refusal_of(f"request to {question.subject!r}", reason))
                continue
            text = f"request to {question.subject!r}: nats-py's client was closed while an answer was awaited"
            error = errors.explained(errors.ConnectionClosedError, text)
            error.__cause__ = reason
            _settle(question, error)
        if self._attachment is not None:
            attachment, self._attachment = self._attachment, None
            attachment.detach()

    # The listener to what the server refuses.

    def push(self, event: events.ConnectionEvent) -> None:
        """Fail the requests that the server has refused to pass on, or whose answers it would refuse."""
        if not isinstance(event, events.PermissionViolation):
            return
        refused = event.error
        for question in self._named.find((refused.operation, refused.subject.lower())):
            _settle(question, refusal_of(f"request to {question.subject!r}", refused))

    def end(self, reason: BaseException | None) -> None:
        """Nothing to do: `ended` has been called."""


def _settle(question: _Question, answer: Msg | Exception) -> None:
    if question.answer is None:
        question.answer = answer
        question.answered.set()
