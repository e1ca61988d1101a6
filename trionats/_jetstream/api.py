"""One question to the JetStream API, its answer, and its errors.

What answers is a server, or whoever may publish to our inbox: nothing that stands in an answer ends in anything else
than a value of the kind that was asked for, or an `errors.Error` that says what was asked.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, final

import trio

from trionats import errors
from trionats._protocol import fields, subjects
from trionats._protocol.replies import no_jetstream
from trionats.api import DEFAULT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging

T = TypeVar("T")
E = TypeVar("E", bound=errors.APIError)
C = TypeVar("C", bound="Messaging", covariant=True)

_KINDS: dict[int, type[errors.APIError]] = {
    400: errors.BadRequestError,
    404: errors.NotFoundError,
    500: errors.ServerError,
    503: errors.ServiceUnavailableError,
}
#: What reading an answer can run into that its reader did not foresee.
_UNFORESEEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_SHOWN = 120


def api_error(kind: type[E], text: str, description: str, **numbers: int | None) -> E:
    """Make an `APIError` with all its attributes.

    Args:
        kind: Its class.
        text: What it says.
        description: What the server said.
        numbers: Its `code` and `err_code`, where the server said any.
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
    """Make the exception for the `error` object of a JetStream answer.

    Args:
        what: What was asked, for the text: "stream 'ORDERS'".
        error: The object as the server sent it.
        stream: The stream that refused, where the answer names it.

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
    """Make the exception for an answer that is none.

    Args:
        what: What was asked, for the text.
        why: What is wrong with it.
    """
    description = f"what came back is no JetStream answer: {why}"
    return api_error(errors.APIError, f"{what}: {description}", description)


def decode(what: str, data: bytes) -> dict[str, Any]:
    """Read a JetStream answer.

    Args:
        what: What was asked, for the text of an exception.
        data: The payload of the answer.

    Returns:
        The answer's fields.

    Raises:
        trionats.errors.APIError: The answer is a refusal, or is no JetStream answer at all.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise unreadable(what, "it is no JSON object")
    if "error" in answer:
        raise refusal(what, answer["error"], answer.get("stream"))
    return answer


@contextmanager
def about(what: str) -> Iterator[None]:
    """Make the exceptions of nats-py and of reading an answer say what they are about.

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
    """Check what was read from an answer.

    Args:
        what: What was asked, for the text of an exception.
        info: The dataclass that nats-py made of the answer.

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
    """Check what was read from an answer that only says whether it was done.

    Args:
        what: What was asked, for the text of an exception.
        success: What stands in the answer.

    Returns:
        The same.

    Raises:
        trionats.errors.APIError: It is neither True nor False.
    """
    if not isinstance(success, bool):
        raise unreadable(what, f"its success must be True or False, not {type(success).__name__}")
    return success


class Origin(NamedTuple):
    """Where the messages of a mirror are stored first.

    Attributes:
        prefix: Of the API there.
        stream: The stream that is mirrored.
        domain: None for the mirror's own, or an empty string where it cannot be told.
    """

    prefix: str
    stream: str
    domain: str | None


@final
class Whereabouts:
    """What is known of where a JetStream context speaks to: its domain, and how far away that is.

    Args:
        nc: The client that it speaks through.
        chosen: The domain that was asked for, or None.
    """

    def __init__(self, nc: Messaging, chosen: str | None) -> None:
        self._nc = nc
        self.chosen = chosen
        self.round_trip: float | None = None
        """How many seconds the API took to answer, the last time."""
        self._named: tuple[str, str] | None = None
        self._origins: dict[str, Origin] = {}

    def origin_found(self, stream: str, origin: Origin | None) -> None:
        """Learn where the messages of a bucket are stored that was found here.

        Args:
            stream: The bucket's stream here. A mirror and a bucket of its origin's name may both be here, with the same subjects.
            origin: None for here.
        """
        if origin is None:
            self._origins.pop(stream, None)
        else:
            self._origins[stream] = origin

    def origin(self, stream: str) -> Origin | None:
        """Say where the messages of a bucket are stored, if not in its own stream."""
        return self._origins.get(stream)

    def domain_of(self, stream: str) -> str | None:
        """Say which domain stores what is written into a bucket; None where any may."""
        origin = self.origin(stream)
        if origin is not None and origin.domain is not None:
            return origin.domain or None
        return self.named or self.chosen

    def answered(self, answer: Mapping[str, Any]) -> None:
        """Learn the domain from an answer of the API, if it is one that names it."""
        domain = answer.get("domain")
        if isinstance(domain, str):
            self._named = (self._nc.server_id, domain)

    @property
    def named(self) -> str | None:
        """The domain as the API has named itself; None where it has not, or did so on another connection's server."""
        # The same prefix may lead to another domain from there.
        return self._named[1] if self._named is not None and self._named[0] == self._nc.server_id else None


class Api(Generic[C]):
    """The JetStream API at one prefix, over one connection.

    Args:
        connection: What it is asked over: `Messaging` for those who only read, `Publishing` for those who also write.
        prefix: The prefix of its subjects.
        domain: The domain that was asked for, or None.
    """

    def __init__(self, connection: C, prefix: str = DEFAULT_PREFIX, domain: str | None = None) -> None:
        self._connection = connection
        self.prefix = prefix
        self.whereabouts = Whereabouts(connection, domain)
        """What is known of where this speaks to."""

    @property
    def connection(self) -> C:
        """What it is asked over."""
        return self._connection

    async def ask(self, subject: str, payload: bytes) -> Msg:
        """Ask, and give the response unread.

        Args:
            subject: The subject behind the prefix.
            payload: The request.

        Raises:
            trionats.errors.ServiceUnavailableError: Nobody responds at this prefix.
            nats.errors.Error: As for `Client.request`.
        """
        self._connection.pace.run.check()
        full = f"{self.prefix}.{subject}"
        where = subjects.WildSubject(full) if isinstance(subject, subjects.WildSubject) else full
        asked = trio.current_time()
        try:
            msg = await self._connection.request(where, payload)
        except errors.NoRespondersError:
            raise no_jetstream(full, self.prefix) from None
        self.whereabouts.round_trip = trio.current_time() - asked
        return msg

    async def request(self, subject: str, payload: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Ask, and read the response.

        Args:
            subject: What to ask, without the prefix: "STREAM.INFO.ORDERS".
            payload: The request; None for an empty one.

        Returns:
            The response's fields, as the server sent them.

        Raises:
            trionats.errors.APIError: The server refused.
            trionats.errors.ServiceUnavailableError: Nobody responds at this prefix.
        """
        msg = await self.ask(subject, encoded(subject, payload))
        response = decode(subject, msg.data)
        self.whereabouts.answered(response)
        return response


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
