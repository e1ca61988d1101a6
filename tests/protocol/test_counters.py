"""Counters: numbers of any size, written and read; what is none."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import api
from trionats._protocol.jetstream.counters import increment_of, read_entry, value_of

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
# Python prints numbers of up to 4,300 digits.
numbers = st.one_of(st.integers(), st.integers(1, 65).map(lambda power: power - 10 ** (power * 64)))


def entry(data: bytes, headers: dict[str, str] | None = None) -> api.CounterEntry:
    return read_entry("c.a", 7, NOW, headers or {}, data)


@given(numbers)
def test_a_number_of_any_size_is_written_and_read_again(number: int) -> None:
    text = increment_of("add", number)["Nats-Incr"]
    assert text[0] in "+-"
    assert "e" not in text.lower()
    assert value_of(text) == number


@pytest.mark.parametrize("digits", [639, 640, 641, 1281, 4300, 4301, 50_000])
def test_the_limit_of_python_for_digits_is_none_here(digits: int) -> None:
    for number in (10**digits - 1, -(10**digits) + 1, 10 ** (digits - 1)):
        read = value_of(increment_of("add", number)["Nats-Incr"])
        assert (read - number).bit_length() == 0


@pytest.mark.parametrize(("number", "text"), [(0, "+0"), (5, "+5"), (-7, "-7"), (10**20, "+100000000000000000000")])
def test_an_increment_has_its_sign(number: int, text: str) -> None:
    assert increment_of("add", number) == {"Nats-Incr": text}


@pytest.mark.parametrize("number", [1.0, "1", True, None])
def test_what_is_no_whole_number_is_refused(number: object) -> None:
    with pytest.raises(TypeError, match=r"^add to 'c': n must be a whole number, not "):
        increment_of("add to 'c'", number)


@pytest.mark.parametrize("number", [10**65_000, -(10**65_000), 1 << 100_000_000], ids=("large", "small", "huge"))
def test_what_no_message_can_say_is_refused_at_once(number: int) -> None:
    with pytest.raises(ValueError, match=r"^add to 'c': n has more than 65,000 digits"):
        increment_of("add to 'c'", number)


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("+5", 5), ("-0", 0), ("007", 7)])
def test_a_value_is_read_with_and_without_a_sign(text: str, value: int) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize("text", ["", "+", "1.5", "1e5", "1_000", "0x1", " 1", "٣", 5, None])
def test_what_is_no_number_is_no_value(text: object) -> None:
    with pytest.raises(ValueError, match="must be decimal text"):
        value_of(text)


def test_an_entry_says_what_others_brought() -> None:
    brought = {"EU": {"c.a": "5"}, "US": {"c.a": "-2", "c.b": "10"}}
    found = entry(b'{"val":"13"}', {"Nats-Counter-Sources": json.dumps(brought)})
    assert found == api.CounterEntry("c.a", 13, {"EU": {"c.a": 5}, "US": {"c.a": -2, "c.b": 10}}, 7, NOW)


def test_an_entry_without_sources_has_none() -> None:
    assert entry(b'{"val":"-1"}') == api.CounterEntry("c.a", -1, {}, 7, NOW)


@pytest.mark.parametrize(
    ("data", "sources"),
    [
        (b"", None),
        (b"5", None),
        (b'{"val":5}', None),
        (b"{}", None),
        (b'{"val":"5"}', "[]"),
        (b'{"val":"5"}', '{"EU":5}'),
        (b'{"val":"5"}', '{"EU":{"c":5}}'),
        (b'{"val":"5"}', "nonsense"),
    ],
)
def test_what_is_no_counters_message_cannot_be_read(data: bytes, sources: str | None) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says: who reads it says what it was
        entry(data, None if sources is None else {"Nats-Counter-Sources": sources})
