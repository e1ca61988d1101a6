"""Frozen dataclasses that are read from what servers say."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import FrozenInstanceError, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats._told.reading import nanoseconds, read, wire
from trionats.monitoring import (
    Accountz,
    Connz,
    Gatewayz,
    Healthz,
    Jsz,
    Leafz,
    Routez,
    Subsz,
    TraceEgress,
    TraceHop,
    Varz,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


class Color(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 1


@dataclass(frozen=True, kw_only=True)
class Inner:
    name: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outer:
    text: str = ""
    number: int = 0
    share: float = 0.0
    wait: float = nanoseconds()
    on: bool = False
    when: datetime | None = wire("ts", None)
    color: Color | str = ""
    size: Size | int = 0
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    named: Mapping[str, int] = field(default_factory=dict)
    whatever: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Strict:
    name: str = wire("called")


def test_each_kind_of_field_is_read_and_what_nobody_knows_is_kept() -> None:
    said = {
        "text": "a",
        "number": 3,
        "share": 2,
        "wait": 1_500_000_000,
        "on": True,
        "ts": "2026-11-29T12:00:00.123456789+02:00",
        "color": "red",
        "size": 1,
        "inner": {"name": "i", "newer": 1},
        "many": [{"name": "x"}, {}],
        "named": {"a": 1.0},
        "whatever": [1],
        "unheard": {"of": None},
    }
    found = read(Outer, said)
    assert found == Outer(
        text="a",
        number=3,
        share=2,
        wait=1.5,
        on=True,
        when=datetime(2026, 11, 29, 10, 0, 0, 123456, UTC),
        color=Color.RED,
        size=Size.SMALL,
        inner=Inner(name="i", extra={"newer": 1}),
        many=(Inner(name="x"), Inner()),
        named={"a": 1},
        whatever=[1],
        extra={"unheard": {"of": None}},
    )
    with pytest.raises(FrozenInstanceError):
        found.text = "b"  # type: ignore[misc]


def test_what_is_missing_or_null_is_at_its_default() -> None:
    names = ("text", "number", "share", "wait", "on", "ts", "color", "size", "inner", "many", "named", "whatever")
    assert read(Outer, {}) == read(Outer, dict.fromkeys(names)) == Outer()


def test_a_time_that_was_never_set_is_none() -> None:
    assert read(Outer, {"ts": "0001-01-01T00:00:00Z"}) == Outer(when=None)


def test_what_has_no_place_for_the_rest_leaves_it_out_and_what_has_to_be_said_is_missed() -> None:
    assert read(Strict, {"called": "a", "unheard": 1}) == Strict(name="a")
    with pytest.raises(TypeError, match="name"):
        read(Strict, {"name": "a"})


def test_a_value_of_a_newer_server_is_kept_as_it_is() -> None:
    assert read(Outer, {"color": "blue", "size": 9}) == Outer(color="blue", size=9)


def test_what_is_known_from_elsewhere_is_not_looked_for() -> None:
    assert read(Outer, {"text": 1, "number": 2}, text="known") == Outer(text="known", number=2)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ([], "it is list, not an object"),
        ({"text": 1}, "it.text is int, not text"),
        ({"number": "1"}, "it.number is str, not a number"),
        ({"number": True}, "it.number is bool, not a number"),
        ({"number": 1.5}, "it.number is float, not a whole number"),
        ({"wait": []}, "it.wait is list, not a number"),
        ({"on": 1}, "it.on is int, not true or false"),
        ({"ts": "soon"}, "it.ts is 'soon', not a time"),
        ({"ts": 1}, "it.ts is int, not text"),
        ({"ts": "2026-11-29T12:00:00"}, "it.ts is '2026-11-29T12:00:00', not a time"),
        ({"color": 1}, "it.color is int, not text"),
        ({"size": "1"}, "it.size is str, not a number"),
        ({"inner": "x"}, "it.inner is str, not an object"),
        ({"many": {}}, "it.many is dict, not a list"),
        ({"many": [{}, {"name": 1}]}, r"it.many\[1\].name is int, not text"),
        ({"named": []}, "it.named is list, not an object"),
        ({"named": {"a": "b"}}, "it.named.a is str, not a number"),
    ],
)
def test_what_is_of_another_kind_is_named(said: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}$"):
        read(Outer, said)


KINDS = [Accountz, Connz, TraceEgress, Gatewayz, Healthz, TraceHop, Jsz, Leafz, Routez, Subsz, Varz]


@given(st.sampled_from(KINDS), st.data())
def test_whatever_stands_there_is_read_or_is_a_value_error(kind: type[Any], data: st.DataObject) -> None:
    names = st.sampled_from(sorted(kind.__dataclass_fields__)) | st.text(max_size=3)
    said = data.draw(st.dictionaries(names, JSON, max_size=4))
    with suppress(ValueError):
        assert isinstance(read(kind, said), kind)
