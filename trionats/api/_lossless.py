"""Dataclasses that are read from JSON and written back, without losing anything.

Strategy
    A field's annotation says what stands on the wire: a float is a number of seconds here and of nanoseconds there, a
    datetime is RFC 3339 text, a dataclass is an object. A float cannot hold each number of nanoseconds, nor a datetime the
    last three digits of a time. So what was read is remembered as it was written (`Extra`), and a field that still holds
    what was read from there is written in the same words; a field that was left out, and still has its default, is left
    out again. Fields that nobody knows are kept and written back (design 72).

    What cannot be read is left as it stands; `_protocol.fields` says what is wrong with it.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar, final

from nats.js.api import Base

from trionats._told.moments import NANOSECONDS, read_moment

__all__ = ["Extra", "read", "written"]

T = TypeVar("T")
#: How many nanoseconds a server can count.
MOST = 2**63 - 1
#: The field that holds what none of the others does.
EXTRA = "extra"


@final
class Extra(dict[str, Any]):
    """The fields that were read and that nobody knows. It remembers how the known ones were written.

    It goes along with a copy that `dataclasses.replace` makes of what holds it.

    Args:
        unknown: The fields.
        said: All of what was read; None where nothing was.
    """

    __slots__ = ("said",)

    def __init__(
        self,
        unknown: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        said: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(unknown)
        self.said = said


class _Form(NamedTuple):
    """How a field's values are read and written."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


def read(kind: Callable[..., T], said: Mapping[str, Any]) -> T:
    """Make an instance of what was read, which stays as it is.

    Args:
        kind: A dataclass that has a field `extra`.
        said: The fields, as JSON has them.

    Raises:
        TypeError: A field is missing that has no default.
        ValueError: A time is none.
        ArithmeticError: A number is too large for what it means.
    """
    forms = _forms(kind)
    known = {name: form.read(said[name]) for name, form in forms.items() if name in said}
    unknown = {name: copy.deepcopy(value) for name, value in said.items() if name not in forms}
    return kind(**known, extra=Extra(unknown, dict(said)))


def written(instance: Any) -> dict[str, object]:  # noqa: ANN401 - a dataclass of any kind
    """Give what JSON says of an instance: in the words that were read, where they still hold."""
    extra: dict[str, Any] = instance.extra
    said = extra.said if isinstance(extra, Extra) else None
    result: dict[str, object] = dict(extra)
    for name, form in _forms(instance.__class__).items():
        value = getattr(instance, name)
        if said is not None and name in said and _same(form, said[name], value):
            result[name] = said[name]
        elif value is not None and not (said is not None and name not in said and value == _default(instance, name)):
            result[name] = form.write(value)
    return result


def _same(form: _Form, words: object, value: object) -> bool:
    now = form.read(words)
    # False is 0 to Python, and not to a server.
    return bool(now == value) and type(now) is type(value)


def _default(instance: object, name: str) -> object:
    return getattr(type(instance), name, None)  # where a dataclass keeps it


@functools.cache
def _forms(kind: Any) -> dict[str, _Form]:  # noqa: ANN401 - a dataclass
    hints = typing.get_type_hints(kind)
    return {field.name: _form(hints[field.name]) for field in dataclasses.fields(kind) if field.name != EXTRA}


def _form(hint: Any) -> _Form:  # noqa: ANN401 - an annotation may be anything
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _form(inner[0])
    if origin is list:
        return _of_list(_form(inner[0]))
    if origin is dict and len(inner) == 2:
        return _of_dict(_form(inner[1]))
    if hint is float:
        return _Form(_seconds, _nanoseconds)
    if hint is datetime:
        return _Form(_time, _plain)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _Form(functools.partial(_member, hint), _plain)
    if isinstance(hint, type) and issubclass(hint, Base):
        return _Form(functools.partial(_nested, hint), _plain)
    return _Form(_copied, _plain)


def _of_list(inner: _Form) -> _Form:
    def each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda value: [convert(entry) for entry in value] if isinstance(value, (list, tuple)) else value

    return _Form(each(inner.read), each(inner.write))


def _of_dict(inner: _Form) -> _Form:
    def each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda value: {key: convert(entry) for key, entry in value.items()} if isinstance(value, dict) else value

    return _Form(each(inner.read), each(inner.write))


def _seconds(value: object) -> object:
    return value / NANOSECONDS if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _nanoseconds(value: Any) -> object:  # noqa: ANN401 - a number, as has been checked
    # As the number is shown: 0.29 s are 290 ms, and not a nanosecond less. The longest that a server keeps is no float.
    exact = value if isinstance(value, int) else Decimal(float.__repr__(value))
    return min(round(exact * NANOSECONDS), MOST)


def _time(value: object) -> object:
    return read_moment(value) if isinstance(value, str) else value


def _member(kind: type[enum.Enum], value: object) -> object:
    try:
        return kind(value)
    except ValueError:
        return value  # a newer server's


def _nested(kind: type[Base], value: object) -> object:
    return kind.from_response(value) if isinstance(value, dict) else value


def _copied(value: object) -> object:
    return copy.deepcopy(value) if isinstance(value, (dict, list)) else value


def _plain(value: object) -> object:
    """Write what is neither a list nor a number of seconds."""
    if isinstance(value, Base):
        return value.as_dict()
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.value if isinstance(value, enum.Enum) else value
