"""What may stand in the fields of configurations, and in those of what the server says.

One checker for all dataclasses (design 53): what a field may hold is read from its annotation. Configurations are checked before
nats-py turns them into JSON, because it multiplies every duration by 10**9 without a look: the text "6" becomes a
gigabyte of sixes. Responses are checked after nats-py has read them, because it keeps whatever stands there.

A float in these classes is always a number of seconds, which the wire carries as nanoseconds in 64 bits.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from multidict import MultiDict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    Wrong = tuple[type[Exception], str, str]
    Check = Callable[[object, bool], Wrong | None]

__all__ = ["MOST_SECONDS", "check", "check_argument", "check_count", "complaint", "forms", "merged", "unknown_option"]

C = TypeVar("C")

#: What the server keeps in nanoseconds has to fit into 63 bits.
MOST_SECONDS: Final = (2**63 - 1) // 10**9
#: And a server may keep that to the last fraction.
_LONGEST: Final = (2**63 - 1) / 10**9
#: The server reads a negative number there as its default.
_MAY_BE_NEGATIVE: Final = frozenset({"inactive_threshold", "idle_heartbeat"})
_ELSEWHERE: Final = {"timeout": "deadlines are cancel scopes, as in `with trio.fail_after(1):`"}
_INT_RANGE: Final = range(-(2**63), 2**64)

_checks: dict[type, dict[str, tuple[Check, bool]]] = {}


def check(config: object) -> None:
    """Check all fields of a configuration, those of what stands in it included.

    Args:
        config: A dataclass of nats-py's or ours.

    Raises:
        TypeError: A field holds what it cannot hold; the text names class, field and what kind of value it is.
        ValueError: A field holds a number that cannot be meant.
    """
    wrong = _fields_wrong(config, True)
    if wrong is not None:
        kind, path, text = wrong
        raise kind(f"{type(config).__name__}{path} {text}")


def check_argument(call: str, name: str, hint: object, value: object) -> None:
    """Check one argument of a call.

    Args:
        call: The call, for the text: "purge_stream".
        name: The argument.
        hint: What it may be, as an annotation.
        value: What was given.

    Raises:
        TypeError: It is of another kind.
        ValueError: It is a number that cannot be meant.
    """
    wrong = _check_of(hint, name)(value, True)
    if wrong is not None:
        kind, path, text = wrong
        raise kind(f"{call}: {name}{path} {text}")


def check_count(call: str, name: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Check an argument that is a number of things.

    Args:
        call: The call, for the text: "open_publisher".
        name: The argument.
        value: What was given.
        least: The least that it may be.
        most: And the most; None for any number.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is less, or more.
    """
    check_argument(call, name, int, value)
    if not isinstance(value, int) or value < least or (most is not None and value > most):
        bounds = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{call}: {name} is {value}: it must be {bounds}")


def complaint(info: object) -> str | None:
    """Say what is wrong with what the server said.

    Args:
        info: A dataclass that nats-py has read from a response.

    Returns:
        Which field holds what it cannot hold, or None.
    """
    wrong = _fields_wrong(info, False)
    return None if wrong is None else f"{wrong[1].removeprefix('.')} {wrong[2]}"


def merged(call: str, kind: type[C], config: object, params: Mapping[str, object]) -> C:
    """Make the configuration that a call is about, and check it.

    Args:
        call: The call, for texts: "add_stream".
        kind: The class of the configuration.
        config: What was given, of `kind` or of nats-py's class of that name; None for the defaults.
        params: The fields that were given by keyword, which replace those of `config`.

    Returns:
        A configuration of its own.

    Raises:
        TypeError: `config` is something else, or a field is unknown or holds what it cannot hold.
        ValueError: A field holds a number that cannot be meant.
    """
    if config is not None and not isinstance(config, forms(kind)):
        hint = _hint_at_name(kind) if isinstance(config, str) else ""
        raise TypeError(f"{call}: config must be {_a(kind.__name__)}, not {_kind_of(config)}{hint}")
    base: Any = kind() if config is None else config if isinstance(config, kind) else kind(**vars(config))
    known = [field.name for field in dataclasses.fields(base)]
    unknown = [name for name in params if name not in known]
    if unknown:
        raise TypeError(unknown_option(call, unknown, known))
    result: C = dataclasses.replace(base, **params)
    check(result)
    return result


def unknown_option(
    call: str, names: Iterable[str], known: Collection[str], elsewhere: Mapping[str, str] = _ELSEWHERE
) -> str:
    """Say that a call does not have some options, and what may be meant.

    Args:
        call: The call.
        names: What was given.
        known: The options that there are.
        elsewhere: What to say of names that stand for something that is had in another way.

    Returns:
        The text for an exception.
    """
    told = []
    for name in names:
        near = difflib.get_close_matches(name, known, 1, 0.7)
        hint = elsewhere.get(name) or (f"did you mean {near[0]!r}?" if near else "")
        told.append(f"{name[:40]!r}{f': {hint}' if hint else ''}")
    return f"{call}() has no option {'; '.join(told)}"


def forms(kind: type) -> tuple[type, ...]:
    """Give the classes of which an instance will do: a class of ours, and the one of nats-py's that it has its name from.

    Args:
        kind: The class that is wanted.
    """
    return tuple(base for base in kind.__mro__ if base.__name__ == kind.__name__)


# Each check gives the exception's class, where in the value it is, and what is wrong; or None.


def _fields_wrong(value: object, strict: bool) -> Wrong | None:
    for name, (test, may_be_none) in _field_checks(type(value)).items():
        held = getattr(value, name, None)
        if held is None and may_be_none:
            continue
        wrong = test(held, strict)
        if wrong is not None:
            kind, path, text = wrong
            return kind, f".{name}{path}", text
    return None


def _field_checks(kind: type) -> dict[str, tuple[Check, bool]]:
    found = _checks.get(kind)
    if found is None:
        hints = typing.get_type_hints(kind)
        found = _checks[kind] = {
            # Where there is a default, None is as good as nothing: it is left out.
            field.name: (
                _check_of(hints[field.name], field.name),
                field.default is not dataclasses.MISSING,
            )
            for field in dataclasses.fields(kind)
        }
    return found


@functools.lru_cache(maxsize=512)
def _check_of(hint: Any, name: str) -> Check:  # noqa: ANN401 - an annotation may be anything
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _any_of([_check_of(one, name) for one in inner])
    if origin in (list, Sequence):
        return _list_of(_check_of(inner[0], name))
    if origin in (dict, Mapping) and inner:
        return _dict_of(*(_check_of(one, name) for one in inner))
    if origin is typing.Literal:
        return _one_of(*inner)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _nested(hint)
    if hint is float:
        return _seconds(negative=name in _MAY_BE_NEGATIVE)
    if hint is int:
        return _whole
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _member(hint)
    return _SIMPLE[hint]


def _must(text: str, value: object) -> Wrong:
    return TypeError, "", f"must be {text}, not {_kind_of(value)}"


def _of_kind(text: str, *kinds: type) -> Check:
    def test(value: object, _: bool) -> Wrong | None:
        return None if isinstance(value, kinds) else _must(text, value)

    return test


def _one_of(*texts: str) -> Check:
    form = " or ".join(map(repr, texts))

    def test(value: object, _: bool) -> Wrong | None:
        if isinstance(value, str):
            return None if value in texts else (ValueError, "", f"must be {form}, not {value!r}")
        return _must(form, value)

    return test


def _member(kind: type[enum.Enum]) -> Check:
    def test(value: object, _: bool) -> Wrong | None:
        # Text that is none of ours may be a newer server's; the members of the other enums are text, too.
        if isinstance(value, kind) or (isinstance(value, str) and not isinstance(value, enum.Enum)):
            return None
        return _must(f"{_a(kind.__name__)} or its text", value)

    return test


def _anything(_value: object, _strict: bool) -> Wrong | None:
    return None


_SIMPLE: Final[dict[object, Check]] = {
    str: _of_kind("text", str),
    # nats-py leaves the headers of a stored message as the base64 that they came in.
    bytes: _of_kind("bytes", bytes, str),
    bool: _of_kind("True or False", bool),
    # nats-py passes text on as it is.
    datetime: _of_kind("a datetime or RFC 3339 text", datetime, str),
    type(None): _of_kind("None", type(None)),
    # Without a word of what stands in it.
    dict: _of_kind("a dict", dict),
    MultiDict[str]: _of_kind("a multidict", MultiDict),
    typing.Dict: _of_kind("a dict", dict),  # noqa: UP006 - nats-py's
    Any: _anything,
}


def _whole(value: object, _: bool) -> Wrong | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return _must("a whole number", value)
    if not _INT_RANGE.start <= value < _INT_RANGE.stop:
        return ValueError, "", "must fit into 64 bits"
    return None


def _seconds(*, negative: bool) -> Check:
    def test(value: object, strict: bool) -> Wrong | None:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return _must("a number of seconds", value)
        # NaN is not less than anything.
        if not abs(value) <= _LONGEST:
            return ValueError, "", f"must be a number of seconds, at most {MOST_SECONDS}"
        if strict and value < 0 and not negative:
            return ValueError, "", f"is {value:g}: a number of seconds is not negative"
        return None

    return test


def _any_of(checks: list[Check]) -> Check:
    def test(value: object, strict: bool) -> Wrong | None:
        first: Wrong | None = None
        for one in checks:
            wrong = one(value, strict)
            if wrong is None:
                return None
            first = first or wrong
        # The first one is what is mostly meant, and None comes last.
        return first

    return test


def _list_of(inner: Check) -> Check:
    def test(value: object, strict: bool) -> Wrong | None:
        if not isinstance(value, (list, tuple)):
            return _must("a list", value)
        for index, entry in enumerate(value):
            wrong = inner(entry, strict)
            if wrong is not None:
                return wrong[0], f"[{index}]{wrong[1]}", wrong[2]
        return None

    return test


def _dict_of(key_check: Check, value_check: Check) -> Check:
    def test(value: object, strict: bool) -> Wrong | None:
        if not isinstance(value, Mapping):
            return _must("a dict", value)
        for key, entry in value.items():
            wrong = key_check(key, strict)
            if wrong is not None:
                return wrong[0], "", f"has a key that {wrong[2]}"
            wrong = value_check(entry, strict)
            if wrong is not None:
                return wrong[0], f"[{str(key)[:40]!r}]{wrong[1]}", wrong[2]
        return None

    return test


def _nested(kind: type) -> Check:
    def test(value: object, strict: bool) -> Wrong | None:
        return _fields_wrong(value, strict) if isinstance(value, forms(kind)) else _must(_a(kind.__name__), value)

    return test


def _hint_at_name(kind: type) -> str:
    names = {field.name for field in dataclasses.fields(kind)}
    named = next((name for name in ("bucket", "name") if name in names), None)
    return f"; a name goes by keyword: {named}=..." if named else ""


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


def _kind_of(value: object) -> str:
    return (
        f"the class {value.__name__}" if isinstance(value, type) else "None" if value is None else type(value).__name__
    )
