"""nats-py's messages as our own, and the answers to requests among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from trionats import errors
from trionats._link import default_deadline
from trionats._message import Msg
from trionats._protocol import headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.msg import Msg as NatsPyMsg

    from trionats._nats_py import Attachment, Carrier

REQUEST_TIMEOUT: Final = 5.0


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


@final
class Answers:
    """One inbox for the requests of a carrier, and the events that wait for the answers."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._inbox = ""
        self._attachment: Attachment | None = None
        self._waiting: dict[str, list[Msg | Exception]] = {}
        self._events: dict[str, trio.Event] = {}

    async def ask(self, subject: str, payload: bytes) -> Msg:
        """Ask, and wait for the answer."""
        if self._attachment is None:
            self._inbox = f"{self._carrier.new_inbox()}."
            self._attachment = self._carrier.attach(f"{self._inbox}*", self)
        token = self._carrier.new_token()
        event = self._events[token] = trio.Event()
        found = self._waiting[token] = []
        try:
            self._carrier.publish_nowait(subject, payload, f"{self._inbox}{token}")
            with default_deadline(REQUEST_TIMEOUT, f"request to {subject!r}"):
                await event.wait()
        finally:
            del self._events[token], self._waiting[token]
            self._carrier.rest()
        answer = found[0]
        if isinstance(answer, Exception):
            raise answer
        if answer.status == 503 and not answer.data:
            raise errors.explained(errors.NoRespondersError, f"request to {subject!r}: nobody is listening there")
        return answer

    def leave(self) -> None:
        """Unsubscribe, unless somebody waits."""
        if self._attachment is not None and not self._events:
            attachment, self._attachment = self._attachment, None
            attachment.detach()

    def deliver(self, message: Msg) -> None:
        """Hand an answer to its waiter."""
        self._settle(message.subject.removeprefix(self._inbox), message)

    def link_lost(self, reason: Exception) -> None:
        """Fail the requests under way."""
        for token in list(self._events):
            self._settle(token, reason)

    def link_restored(self) -> None:
        """Nothing to do."""

    def ended(self, reason: BaseException | None) -> None:
        """Fail the requests under way, and forget the inbox."""
        error = errors.explained(
            errors.ConnectionClosedError, "nats-py's client was closed while an answer was awaited"
        )
        error.__cause__ = reason
        self.link_lost(error)
        if self._attachment is not None:
            attachment, self._attachment = self._attachment, None
            attachment.detach()

    def _settle(self, token: str, answer: Msg | Exception) -> None:
        if token in self._events and not self._waiting[token]:
            self._waiting[token].append(answer)
            self._events[token].set()
