"""Frozen dataclasses that are read from what servers say as JSON, and keep what nobody knows here.

Strategy
    A field's annotation says what stands on the wire, where it is called the same unless `wire` says otherwise. What is absent
    or null leaves the field at its default, since servers leave out what is empty; what is of another kind is a
    ValueError that names it. What no field is for stands in `extra`, where there is one.

    `api._lossless` is for what is also written back.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from trionats._told.moments import NANOSECONDS, read_moment

__all__ = ["Told", "nanoseconds", "read", "wire"]

T = TypeVar("T")
Convert = Callable[[Any, str], Any]

#: The field that holds what none of the others does.
EXTRA: Final = "extra"
_WIRE: Final = "wire"
_SCALE: Final = "scale"


def wire(name: str, default: T = dataclasses.MISSING) -> T:  # type: ignore[assignment]  # as `dataclasses.field` does
    """Make a field that has another name on the wire.

    Args:
        name: Its name there.
        default: What it holds where nothing is said; without it, it has to be said.
    """
    made: T = dataclasses.field(default=default, metadata={_WIRE: name})
    return made


def nanoseconds() -> float:
    """Make a field that is a number of seconds here, and of nanoseconds on the wire."""
    made: float = dataclasses.field(default=0.0, metadata={_SCALE: NANOSECONDS})
    return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What a server says.

    Attributes:
        extra: What is not known here, by the server's names.
    """

    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)


class _Form(NamedTuple):
    """What becomes of what stands under a name."""

    field: str
    convert: Convert


def read(kind: Callable[..., T], said: object, where: str = "it", **known: object) -> T:
    """Make an instance of what was said.

    Args:
        kind: A frozen dataclass.
        said: What JSON has in its place; it becomes the instance's, and must not be changed any more.
        where: What it is called, for texts.
        known: Fields that are known from elsewhere, and not looked for.

    Raises:
        TypeError: A field that has no default is not said.
        ValueError: It is of another kind than it should be; the text says where.
    """
    if not isinstance(said, Mapping):
        raise _is_not("an object", said, where)
    forms = _forms(kind)
    unknown = {}
    for name, value in said.items():
        form = forms.get(name)
        if form is None:
            unknown[name] = value
        elif value is not None and form.field not in known:
            known[form.field] = form.convert(value, f"{where}.{name}")
    if _keeps_the_rest(kind):
        known[EXTRA] = unknown
    return kind(**known)


@functools.cache
def _keeps_the_rest(kind: Any) -> bool:  # noqa: ANN401 - a dataclass
    return any(field.name == EXTRA for field in dataclasses.fields(kind))


@functools.cache
def _forms(kind: Any) -> dict[str, _Form]:  # noqa: ANN401 - a dataclass
    hints = typing.get_type_hints(kind)
    made = {}
    for field in dataclasses.fields(kind):
        if field.name != EXTRA and field.init:
            scale = field.metadata.get(_SCALE)
            convert = _conversion(hints[field.name])
            made[field.metadata.get(_WIRE, field.name)] = _Form(field.name, _scaled(scale) if scale else convert)
    return made


def _conversion(hint: Any) -> Convert:  # noqa: ANN401 - an annotation may be anything
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _conversion(inner[0])
    if origin is tuple:
        return _list_of(_conversion(inner[0]))
    if origin is Mapping:
        return _mapping_of(_conversion(inner[1]))
    if hint is Any:
        return _anything
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return functools.partial(_nested, hint)
    if issubclass(hint, enum.Enum):
        return functools.partial(_member, hint)
    return _SIMPLE[hint]


def _is_not(what: str, value: object, where: str) -> ValueError:
    return ValueError(f"{where} is {type(value).__name__}, not {what}")


def _anything(value: object, _: str) -> object:
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _is_not("text", value, where)
    return value


def _truth(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _is_not("true or false", value, where)
    return value


def _number(value: object, where: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _is_not("a number", value, where)
    return value


def _whole(value: object, where: str) -> int:
    number = _number(value, where)
    if not isinstance(number, int):
        if not number.is_integer():
            raise _is_not("a whole number", value, where)
        number = int(number)
    return number


def _time(value: object, where: str) -> datetime.datetime | None:
    text = _text(value, where)
    try:
        moment = read_moment(text)
    except ValueError:
        raise ValueError(f"{where} is {text[:40]!r}, not a time") from None
    # Go writes a time that was never set.
    return None if moment.year == 1 else moment


_SIMPLE: Final[dict[object, Convert]] = {
    str: _text,
    bool: _truth,
    float: _number,
    int: _whole,
    datetime.datetime: _time,
}


def _scaled(by: int) -> Convert:
    return lambda value, where: _number(value, where) / by


def _member(kind: type[enum.Enum], value: object, where: str) -> object:
    plain = _text(value, where) if issubclass(kind, str) else _whole(value, where)
    try:
        return kind(plain)
    except ValueError:
        return plain  # a newer server's


def _nested(kind: Callable[..., Any], value: object, where: str) -> object:
    return read(kind, value, where)


def _list_of(convert: Convert) -> Convert:
    def each(value: object, where: str) -> tuple[object, ...]:
        if not isinstance(value, list):
            raise _is_not("a list", value, where)
        return tuple(convert(entry, f"{where}[{index}]") for index, entry in enumerate(value))

    return each


def _mapping_of(convert: Convert) -> Convert:
    def each(value: object, where: str) -> dict[str, object]:
        if not isinstance(value, dict):
            raise _is_not("an object", value, where)
        return {name: convert(entry, f"{where}.{name}") for name, entry in value.items()}

    return each
