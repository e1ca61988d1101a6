"""One request to the JetStream API, its response, and its errors.

What responds is a server, or whoever may publish to our inbox: nothing that stands in a response ends in anything else
than a value of the kind that was asked for, or an `errors.Error` that says what was asked (design 16, 53).

Each request and each response is told to the log "trionats.jetstream" at DEBUG; what a handler may want of it stands in the
record, too: `api_subject`, and `api_payload`, `api_headers` and, of a response, `api_seconds`.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio

from trionats import errors
from trionats._jetstream.messages.deliverers import Deliverers
from trionats._jetstream.whereabouts import Whereabouts
from trionats._protocol import fields, subjects
from trionats._protocol.jetstream import levels
from trionats._protocol.replies import no_jetstream
from trionats.api import DEFAULT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging

log = logging.getLogger("trionats.jetstream")

T = TypeVar("T")
E = TypeVar("E", bound=errors.APIError)
C = TypeVar("C", bound="Messaging", covariant=True)

_KINDS: dict[int, type[errors.APIError]] = {
    400: errors.BadRequestError,
    404: errors.NotFoundError,
    500: errors.ServerError,
    503: errors.ServiceUnavailableError,
}
#: What reading a response can run into that its reader did not foresee.
_UNFORESEEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_SHOWN = 120
#: The server's number for: there is no such message.
NO_MESSAGE = 10037
#: How long what was cancelled, has failed or was left half done may take to clean up behind itself, in seconds.
CLEANUP_LIMIT: Final = 2.0


def api_error(kind: type[E], text: str, description: str, **numbers: int | None) -> E:
    """Make an `APIError` with all its attributes.

    Args:
        kind: Its class.
        text: What it says.
        description: What the server said.
        numbers: Its `code`, `err_code` and `seq`, where the server said any.
    """
    attributes = {"code": None, "err_code": None, "stream": None, "seq": None, **numbers}
    return errors.explained(kind, text, description=description, **attributes)


def refusal_text(what: str, error: errors.APIError) -> str:
    """Say what was refused, and with which numbers.

    Args:
        what: What was asked: "stream 'ORDERS'".
        error: The refusal.
    """
    named = {"code": error.code, "error": error.err_code}
    numbers = ", ".join(f"{name} {number}" for name, number in named.items() if number is not None)
    missing = "not found" if isinstance(error, errors.NotFoundError) else "refused"
    return f"{what}: {error.description or missing}" + (f" ({numbers})" if numbers else "")


def refusal(what: str, error: object, stream: object = None) -> errors.APIError:
    """Make the exception for the `error` object of a response.

    Args:
        what: What was asked, for the text: "stream 'ORDERS'".
        error: The object as the server sent it.
        stream: The stream that refused, where the response names it.

    Returns:
        An `APIError`, or the subclass that nats-py has for its code.
    """
    said = error if isinstance(error, dict) else {}
    code, err_code = (number if type(number) is int else None for number in (said.get("code"), said.get("err_code")))
    description = said.get("description")
    kind = errors.APIError if code is None else _KINDS.get(code, errors.APIError)
    description = description if isinstance(description, str) else ""
    made = api_error(kind, "", description, code=code, err_code=err_code)
    named = {"stream": stream if isinstance(stream, str) else None}
    return errors.explained(kind, refusal_text(what, made), **{**vars(made), **named})


def unreadable(what: str, why: str) -> errors.APIError:
    """Make the exception for a response that is none.

    Args:
        what: What was asked, for the text.
        why: What is wrong with it.
    """
    description = f"what came back is no JetStream response: {why}"
    return api_error(errors.APIError, f"{what}: {description}", description)


def decode(what: str, data: bytes) -> dict[str, Any]:
    """Read a response.

    Args:
        what: What was asked, for the text of an exception.
        data: Its payload.

    Returns:
        Its fields.

    Raises:
        trionats.errors.APIError: It is a refusal, or no response at all.
    """
    try:
        response = json.loads(data)
    except (ValueError, RecursionError):
        response = None
    if not isinstance(response, dict):
        raise unreadable(what, "it is no JSON object")
    if "error" in response:
        raise refusal(what, response["error"], response.get("stream"))
    return response


@contextmanager
def about(what: str) -> Iterator[None]:
    """Make the exceptions of nats-py and of reading a response say what they are about.

    Only what was read may raise in here: arguments are checked before.

    Args:
        what: What was asked, for their text: "stream 'ORDERS'".
    """
    try:
        yield
    except errors.APIError as error:
        raise errors.explained(type(error), refusal_text(what, error), **vars(error)) from None
    except errors.Error:
        raise
    except _UNFORESEEN as bug:
        why = f"{type(bug).__name__}: {bug}"
        raise unreadable(what, why if len(why) <= _SHOWN else why[:_SHOWN] + "...") from bug


def sound(what: str, info: T) -> T:
    """Check what was read from a response.

    Args:
        what: What was asked, for the text of an exception.
        info: The dataclass that nats-py made of the response.

    Returns:
        The same.

    Raises:
        trionats.errors.APIError: One of its fields is not what its annotation says.
    """
    complaint = fields.complaint(info)
    if complaint is not None:
        raise unreadable(what, complaint)
    return info


def confirmed(what: str, success: object) -> bool:
    """Check what was read from a response that only says whether it was done.

    Args:
        what: What was asked, for the text of an exception.
        success: What stands in the response.

    Returns:
        The same.

    Raises:
        trionats.errors.APIError: It is neither True nor False.
    """
    if not isinstance(success, bool):
        raise unreadable(what, f"its success must be True or False, not {type(success).__name__}")
    return success


@contextmanager
def in_store(store: str) -> Iterator[None]:
    """Say of a stream that is not there that the store is not which it holds. Nothing else says so.

    Args:
        store: The store, for the text: "object store 'b'".
    """
    try:
        yield
    except errors.NotFoundError as error:
        text = f"there is no {store}"
        raise errors.explained(errors.BucketNotFoundError, text, **vars(error)) from None


class Api(Generic[C]):
    """The JetStream API at one prefix, over one connection.

    Args:
        connection: What it is asked over: `Messaging` for those who only read, `Publishing` for those who also write.
        prefix: The prefix of its subjects.
        domain: The domain that was asked for, or None.

    Raises:
        nats.errors.BadSubjectError: The prefix is none.
    """

    def __init__(self, connection: C, prefix: str = DEFAULT_PREFIX, domain: str | None = None) -> None:
        subjects.publish_subject(prefix)
        self._connection = connection
        self.prefix = prefix
        self.whereabouts = Whereabouts(connection, domain)
        """What is known of where this speaks to."""
        self.deliverers = Deliverers()
        """The consumers whose messages are held."""
        self._level: int | None = None
        self._asked_for_level = False

    @property
    def connection(self) -> C:
        """What it is asked over."""
        return self._connection

    async def ask(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> Msg:
        """Ask, and give the response unread.

        Args:
            subject: The subject behind the prefix.
            payload: The request.
            headers: Its headers.

        Raises:
            trionats.errors.ServiceUnavailableError: Nobody responds at this prefix.
            nats.errors.Error: As for `Client.request`.
        """
        self._connection.pace.run.check()
        full = f"{self.prefix}.{subject}"
        where = subjects.WildSubject(full) if isinstance(subject, subjects.WildSubject) else full
        asked = trio.current_time()
        told("request to %s: %d bytes", full, payload, headers)
        try:
            msg = await self._connection.request(where, payload, headers)
        except errors.NoRespondersError:
            raise no_jetstream(full, self.prefix) from None
        self.whereabouts.round_trip = seconds = trio.current_time() - asked
        told("response from %s: %d bytes in %.6f s", full, msg.data, msg.headers, seconds)
        return msg

    async def request(
        self,
        subject: str,
        payload: Mapping[str, object] | bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Ask, and read the response.

        Args:
            subject: What to ask, without the prefix: "STREAM.INFO.ORDERS".
            payload: The request, or what it is encoded to; None for an empty one.
            headers: Its headers.

        Returns:
            The response's fields, as the server sent them.

        Raises:
            trionats.errors.APIError: The server refused.
            trionats.errors.ServiceUnavailableError: Nobody responds at this prefix.
        """
        data = payload if isinstance(payload, bytes) else encoded(subject, payload)
        msg = await self.ask(subject, data, headers)
        response = decode(subject, msg.data)
        self.whereabouts.heard(response)
        return response

    async def level(self) -> int | None:
        """Say which API level the servers here have (ADR-44), which is asked once.

        Returns:
            The level, 0 below server 2.11; None where the user may not ask.

        Raises:
            trionats.errors.APIError: The server refused.
        """
        if not self._asked_for_level:
            try:
                response = await self.request("INFO")
            except errors.PermissionsViolationError:
                pass
            else:
                stats = response.get("api")
                level = stats.get("level", 0) if isinstance(stats, dict) else 0
                self._level = level if type(level) is int else 0
            self._asked_for_level = True
        return self._level

    async def require(self, what: str, need: levels.Need) -> None:
        """See to it that the server can do something that no configuration asks for.

        Args:
            what: What it is done to, for the text of an exception.
            need: What it needs.

        Raises:
            trionats.errors.APIError: The server is too old. Where its level cannot be asked for, nothing is raised.
        """
        level = await self.level()
        if level is not None and level < need.level:
            raise _too_old(what, need, f"has level {level}")

    async def configure(
        self, what: str, subject: str, request: Mapping[str, object], needs: list[levels.Need], undo: str = ""
    ) -> dict[str, Any]:
        """Create or change a stream or a consumer, if the server knows all that the configuration says (ADR-44).

        A server that is too old either refuses by itself, or is not asked. Where its level cannot be asked for, the
        configuration that it echoes tells, after the server has done the rest.

        Args:
            what: What it is, for the text of an exception: "stream 'ORDERS'".
            subject: What to ask, without the prefix: "STREAM.CREATE.ORDERS".
            request: The request.
            needs: What its configuration needs.
            undo: What to ask to delete what was made without a field: only for what certainly was not there before. A server
                outside a cluster says `did_create` of a stream that it found, too.

        Returns:
            The response's fields, as the server sent them.

        Raises:
            trionats.errors.APIError: The server refused, or it is too old: the text then names the field and the version.
        """
        need = levels.greatest(needs)
        if need is None:
            return await self.request(subject, request)
        level = await self.level()
        if level is not None and level < need.level:
            raise _too_old(what, need, f"has level {level}")
        try:
            response = await self.request(subject, request, {levels.HEADER: str(need.level)})
        except errors.APIError as error:
            if error.err_code == levels.REFUSED:
                raise _too_old(what, need, "refuses it") from None
            raise
        absent = levels.absent(needs, response.get("config")) if level is None else None
        if absent is None:
            return response
        if undo:
            with suppress(errors.Error), trio.move_on_after(CLEANUP_LIMIT, shield=True):
                await self.request(undo)
        raise _too_old(what, absent, "left it out" + ("" if undo else ", and did the rest"))

    async def last_stored(self, stream: str, pattern: str) -> dict[str, Any] | None:
        """Read the last message that matches, as the stream's leader has it (design 59).

        Args:
            stream: The stream.
            pattern: What its subject matches.

        Returns:
            The message as the server tells it, which may be anything (`{}` for nothing); None where there is none.

        Raises:
            trionats.errors.NotFoundError: There is no such stream.
            trionats.errors.APIError: The server refused.
        """
        return await self.stored(stream, {"last_by_subj": pattern})

    async def stored(self, stream: str, asked: Mapping[str, object]) -> dict[str, Any] | None:
        """Read one message as the stream's leader has it.

        Args:
            stream: The stream.
            asked: Which message, in the words of the request.

        Returns:
            As for `last_stored`.

        Raises:
            trionats.errors.NotFoundError: There is no such stream.
            trionats.errors.APIError: The server refused.
        """
        try:
            response = await self.request(f"STREAM.MSG.GET.{stream}", asked)
        except errors.NotFoundError as error:
            if error.err_code == NO_MESSAGE:
                return None
            raise
        message = response.get("message")
        return message if isinstance(message, dict) else {}


def told(text: str, subject: str, payload: bytes, headers: object, *seconds: float) -> None:
    """Tell the log of a request or a response, for those who do not go through `Api.ask`.

    Args:
        text: What is told, with places for the subject, the payload's size and the seconds.
        subject: The subject of the request.
        payload: What was sent, or came.
        headers: Its headers.
        seconds: How long a response took.
    """
    if log.isEnabledFor(logging.DEBUG):
        more = {"api_subject": subject, "api_payload": payload, "api_headers": headers}
        log.debug(text, subject, len(payload), *seconds, extra=more | ({"api_seconds": seconds[0]} if seconds else {}))


def _too_old(what: str, need: levels.Need, how: str) -> errors.APIError:
    complaint = need.complaint(how)
    return api_error(errors.APIError, f"{what}: {complaint}", complaint, code=412, err_code=levels.REFUSED)


def encoded(what: str, payload: Mapping[str, object] | None) -> bytes:
    """Make the payload of a request.

    Args:
        what: What is asked, for the text of an exception.
        payload: Its fields; None for an empty one.

    Raises:
        TypeError: A field holds what JSON has no form for.
        ValueError: A field holds a number that JSON has no form for.
    """
    if payload is None:
        return b""
    try:
        return json.dumps(payload, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what}: {error}") from None
