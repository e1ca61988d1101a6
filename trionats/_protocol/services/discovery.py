"""What services say of themselves, read by who finds them: those of any client.

Strategy
    Only who a service is (name, id, version) has to be there. Clients leave out what is empty, or write null, or numbers as
    floats; times have nanoseconds, or no zone; an error is a text or an object. So all of that is brought into one form, and then
    read as what our own services say. What nobody knows here is kept (`extra`). An answer of another type, or one that does not say
    whose it is, is none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, TypeVar

from trionats import api
from trionats._protocol.fields import complaint
from trionats._protocol.services.words import INFO_TYPE, PING_TYPE, STATS_TYPE
from trionats._told.moments import read_moment

if TYPE_CHECKING:
    from trionats._protocol.parser import Message
    from trionats._protocol.services.words import Verb

__all__ = ["read_answer"]

A = TypeVar("A", api.ServicePing, api.ServiceInfo, api.ServiceStats)


_TYPES: Final[Mapping[str, str]] = {"PING": PING_TYPE, "INFO": INFO_TYPE, "STATS": STATS_TYPE}


def read_answer(verb: Verb, answer: type[A], message: Message) -> A:
    """Read what a service says.

    Args:
        verb: What it was asked.
        answer: The class of its answer.
        message: What it said.

    Raises:
        ValueError: It is no answer to that.
    """
    said = json.loads(message.data)
    if not isinstance(said, dict):
        raise ValueError(f"an answer to {verb} is an object")
    expected = _TYPES[verb]
    if said.get("type") not in (None, expected):
        raise ValueError(f"an answer to {verb} is of type {expected}, not {str(said['type'])[:80]!r}")
    for name in ("name", "id", "version"):
        if not isinstance(said.get(name), str):
            raise ValueError(f"an answer to {verb} says its {name}")
    found: A = answer.from_response(_in_form(said, _FORMS))
    wrong = complaint(found)
    if wrong is not None:
        raise ValueError(wrong)
    return found


def _in_form(said: Mapping[str, Any], forms: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    # What is null is as good as not there.
    return {name: forms.get(name, _as_it_is)(value) for name, value in said.items() if value is not None}


def _as_it_is(value: object) -> object:
    return value


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _nanoseconds(value: object) -> object:
    # A mean of nats.js has fractions, where requests come to an iterator.
    return round(value) if isinstance(value, float) and math.isfinite(value) else value


def _texts(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {name: text if isinstance(text, str) else json.dumps(text) for name, text in value.items()}


def _error(value: object) -> object:
    """Give the text of an error: nats.js writes an object."""
    if isinstance(value, dict):
        return str(value.get("message") or value.get("description") or json.dumps(value))
    return value


def _time(value: object) -> object:
    # Without a zone it is meant in UTC, as ADR-32 has it.
    return read_moment(value, UTC).isoformat()


def _endpoints(value: object) -> object:
    if not isinstance(value, list):
        return value
    return [_in_form(one, _ENDPOINT_FORMS) if isinstance(one, dict) else one for one in value]


_ENDPOINT_FORMS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "metadata": _texts,
    "last_error": _error,
    **dict.fromkeys(("num_requests", "num_errors"), _whole),
    **dict.fromkeys(("processing_time", "average_processing_time"), _nanoseconds),
}
_FORMS: Final[Mapping[str, Callable[[Any], Any]]] = {"metadata": _texts, "started": _time, "endpoints": _endpoints}
