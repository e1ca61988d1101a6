"""The public names: complete, documented, final, and as `public_api.txt` says.

To change the public API on purpose, run this file with TRIONATS_WRITE_PUBLIC_API=1 and read the difference.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import pkgutil
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ForwardRef, TypeVar, get_type_hints, is_typeddict

import pytest

import trionats

SNAPSHOT = Path(__file__).parent / "public_api.txt"
REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
PUBLIC_MODULES = (
    "trionats",
    *(f"trionats.{name}" for name in ("advisories", "api", "bridge", "errors", "events", "monitoring", "testing")),
)

# Public classes that others derive from, each with its reason.
NOT_FINAL = {
    "trionats.Feed": "Watcher is one",
    "trionats.Group": "Service is one",
    "trionats.BoundedFeed": "Subscription is one",
    "trionats.JetStreamManager": "JetStream is one",
    "trionats.ReadOnlyKeyValue": "KeyValue is one",
    "trionats.api.BucketStatus": "each kind of bucket has one",
    "trionats.Message": "Msg is one",
    "trionats.Msg": "each client makes a class of its own of it, through which a message can be answered",
    "trionats.ConnectionEvent": "every event is one",
    "trionats.events.ConnectionEvent": "every event is one",
    "trionats.events.ConsumerEvent": "what happens to a consumer is one",
    "trionats.advisories.Advisory": "every kind of them is one",
    "trionats.monitoring.Answer": "what each kind of request is answered with is one",
    "trionats.monitoring.Told": "all that servers tell is one",
    "trionats.monitoring.TraceEvent": "each kind of them is one",
}

# Opened without a background task, so without a nursery.
NO_NURSERY = {"trionats.testing.open_server"}

# How many arguments go by position where it is not the nursery, what is read and which of it: what is sent, as `Client.request`
# has it; a service's name and version; and the three names of a member.
BY_POSITION = {"trionats.open_replies": 4, "trionats.open_service": 4, "trionats.open_partition": 5}


def ours(thing: object) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] == "trionats"


def public(module_name: str) -> Iterator[tuple[str, object]]:
    """Yield the public names of a module that are not modules themselves, with their full names."""
    module = importlib.import_module(module_name)
    things = ((f"{module_name}.{name}", getattr(module, name)) for name in module.__all__)
    yield from (item for item in things if not isinstance(item[1], types.ModuleType))


NAMES = {full: thing for module in PUBLIC_MODULES for full, thing in public(module)}
OURS = {full: thing for full, thing in NAMES.items() if ours(thing)}
CLASSES = {full: thing for full, thing in OURS.items() if isinstance(thing, type)}
FUNCTIONS = {full: thing for full, thing in OURS.items() if callable(thing) and not isinstance(thing, type)}


def members(cls: type) -> dict[str, Any]:
    """Return what a class and its private bases define, without names that begin with an underscore."""
    found: dict[str, Any] = {}
    for base in sources(cls):
        found |= {name: thing for name, thing in vars(base).items() if not name.startswith("_")}
    return found


def sources(cls: type) -> Iterator[type]:
    """Yield the classes of this package that a public class is made of, without public ones that have their own entry."""
    for base in reversed(cls.__mro__):
        if ours(base) and (base is cls or base not in NAMES.values()):
            yield base


def plain(member: Any) -> Any:  # noqa: ANN401 - whatever stands in a class
    if isinstance(member, property):
        return member.fget
    return getattr(member, "__func__", member)


def annotation(value: object) -> str:
    value = value.__forward_arg__ if isinstance(value, ForwardRef) else value
    return value if isinstance(value, str) else inspect.formatannotation(value)


class Verbatim(str):
    """An annotation whose `repr` is its text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def verbatim(kind: object) -> object:
    return kind if kind is inspect.Parameter.empty else Verbatim(annotation(kind))


def signature(function: Any) -> str:  # noqa: ANN401 - any callable
    """Write a signature the same way on every Python version."""
    found = inspect.signature(function)
    parameters = [each.replace(annotation=verbatim(each.annotation)) for each in found.parameters.values()]
    return str(found.replace(parameters=parameters, return_annotation=verbatim(found.return_annotation)))


def attributes(cls: type) -> dict[str, Any]:
    """Return the annotations that a class and its private bases have: fields, and what instances hold."""
    found: dict[str, Any] = {}
    for base in sources(cls):
        found |= inspect.get_annotations(base)
    return {name: kind for name, kind in found.items() if not name.startswith("_")}


def describe_class(full: str, cls: type) -> Iterator[str]:
    bases = [base.__name__ for base in cls.__bases__ if base is not object and not base.__name__.startswith("_")]
    yield f"class {full}({', '.join(bases)})"
    known = attributes(cls)
    for name, kind in known.items():
        yield f"  {full}.{name}: {annotation(kind)}"
    for name, member in sorted(members(cls).items()):
        function = plain(member)
        if name in known or isinstance(member, types.MemberDescriptorType):
            continue
        if isinstance(member, property):
            yield f"  {full}.{name}: property{' with setter' if member.fset else ''}"
        elif inspect.isfunction(function):
            yield f"  {definition(f'{full}.{name}', function)}"
        else:
            yield f"  {full}.{name} = {member!r}"


def definition(full: str, function: Any) -> str:  # noqa: ANN401 - any function
    kind = "async def" if inspect.iscoroutinefunction(function) else "def"
    return f"{kind} {full}{signature(function)}"


def describe() -> str:
    lines: list[str] = []
    for full, thing in NAMES.items():
        if not ours(thing):
            lines.append(f"{full} = {getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing)}")
        elif isinstance(thing, type):
            lines += describe_class(full, thing)
        elif callable(thing):
            lines.append(definition(full, thing))
        else:
            lines.append(f"{full}: {type(thing).__name__}")
    return "\n".join(lines) + "\n"


def test_the_public_api_is_as_recorded() -> None:
    now = describe()
    if os.environ.get("TRIONATS_WRITE_PUBLIC_API"):
        SNAPSHOT.write_text(now, encoding="utf-8")
    recorded = SNAPSHOT.read_text(encoding="utf-8")
    changes = list(difflib.unified_diff(recorded.splitlines(), now.splitlines(), lineterm="", n=0))
    assert not changes, "\n".join(changes)


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_all_is_complete(module_name: str) -> None:
    """That it is sorted is ruff's to say (RUF022)."""
    module = importlib.import_module(module_name)
    assert len(set(module.__all__)) == len(module.__all__)
    here = {name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module_name}
    assert {
        name for name in here if not name.startswith("_") and not isinstance(getattr(module, name), TypeVar)
    } <= set(module.__all__)


def test_every_public_module_is_known_here() -> None:
    found = {info.name for info in pkgutil.iter_modules(trionats.__path__) if not info.name.startswith("_")}
    assert {"trionats", *(f"trionats.{name}" for name in found)} == set(PUBLIC_MODULES)


def test_names_say_where_users_find_them() -> None:
    homes = {full: f"{thing.__module__}" for full, thing in (CLASSES | FUNCTIONS).items()}
    assert not {full: home for full, home in homes.items() if home not in PUBLIC_MODULES}, "they show a private module"
    top = {full: home for full, home in homes.items() if full.count(".") == 1}
    assert set(top.values()) <= {"trionats", "trionats.events"}, top


@pytest.mark.parametrize("full", sorted(CLASSES))
def test_classes_are_final_and_derive_from_public_ones(full: str) -> None:
    cls, public_names = CLASSES[full], set(NAMES.values())
    assert not [base.__qualname__ for base in cls.__bases__ if ours(base) and base not in public_names]
    if issubclass(cls, Exception) or is_typeddict(cls) or getattr(cls, "_is_protocol", False) or full in NOT_FINAL:
        return
    if any(base.__module__.startswith("nats.") for base in cls.__mro__):
        return  # nats-py's dataclass with a field more
    assert getattr(cls, "__final__", False)


@pytest.mark.parametrize("full", sorted(OURS))
def test_everything_public_is_documented(full: str) -> None:
    thing = OURS[full]
    assert not callable(thing) or inspect.getdoc(thing), full
    if isinstance(thing, type):
        for name, member in members(thing).items():
            if inspect.isfunction(plain(member)) or isinstance(member, property):
                assert documented(thing, name), name


def test_every_name_stands_in_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.rst"))
    words = set(pages.replace("()", "").split())
    assert not [full for full in OURS if full.count(".") == 1 and callable(OURS[full]) and full not in words]
    assert not [module for module in PUBLIC_MODULES[1:] if module not in words]


def test_the_reference_says_what_each_exception_of_nats_py_means() -> None:
    """Their own docstrings are nats-py's: that of `BucketNotFoundError` speaks of a key-value bucket."""
    page = (REFERENCE / "errors.rst").read_text(encoding="utf-8")
    rows = re.findall(r"^   \* - ``(\w+)``\n     - \w", page, re.MULTILINE)
    borrowed = {name for name in trionats.errors.__all__ if not ours(getattr(trionats.errors, name))}
    assert sorted(rows) == sorted(borrowed)


def documented(cls: type, name: str) -> bool:
    """Whether the member has a docstring of its own or overrides something of Trio's that has one."""
    member = inspect.getattr_static(cls, name)
    return bool(inspect.getdoc(plain(member)) or inspect.getdoc(getattr(cls, name)))


def callables() -> Iterator[tuple[str, Any]]:
    yield from FUNCTIONS.items()
    for full, cls in CLASSES.items():
        for name, member in members(cls).items():
            function = plain(member)
            if inspect.isfunction(function) and not isinstance(member, property) and inspect.getdoc(function):
                yield f"{full}.{name}", function


CALLABLES = dict(callables())


@pytest.mark.parametrize("full", sorted(CALLABLES))
def test_docstrings_name_the_arguments(full: str) -> None:
    """More than three parameters are named in an `Args` section; fewer may be plain from the summary line."""
    function = CALLABLES[full]
    found = inspect.signature(function).parameters.values()
    named = [parameter.name for parameter in found if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = [name for name in named if name not in {"self", "cls"}]
    if len(parameters) > 3:
        section = (inspect.getdoc(function) or "").partition("Args:")[2]
        assert not [name for name in parameters if f" {name}:" not in section and f" {name}, " not in section]


@pytest.mark.parametrize("full", sorted(name for name in FUNCTIONS if name.rpartition(".")[2].startswith("open_")))
def test_the_nursery_comes_first(full: str) -> None:
    parameters = list(inspect.signature(FUNCTIONS[full]).parameters.values())
    if full in NO_NURSERY:
        assert "nursery" not in {parameter.name for parameter in parameters}
        return
    assert parameters[0].name == "nursery"
    positional = BY_POSITION.get(full, 3)
    assert all(parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters[positional:])


@pytest.mark.parametrize("cls", [trionats.ClientOptions, trionats.Message, trionats.Msg])
def test_the_annotations_can_be_read(cls: type) -> None:
    """Where a class says that it is of another module than its names are, they could not."""
    assert "_parsed" not in get_type_hints(cls)
