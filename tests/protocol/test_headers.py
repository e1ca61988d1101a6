"""The header block: strict on the way out, lenient on the way in."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, MultiDict

from trionats import errors
from trionats._protocol import headers


class Golden(NamedTuple):
    block: bytes
    fields: list[tuple[str, str]]
    status: int | None = None
    description: str = ""
    problem: str | None = None


NO_VERSION = "there is no version line"
NO_END = "there is no empty line at its end"
NO_FIELD = "a line is not 'name: value'"
NO_STATUS = "the status is not a number of three digits"

TIMED_OUT = [("Nats-Pending-Messages", "1"), ("Nats-Pending-Bytes", "0")]
TOO_LARGE = "Bad Request - heartbeat value too large"
IDLE = [("Nats-Last-Consumer", "7"), ("Nats-Last-Stream", "9")]


def written(status: str, fields: list[tuple[str, str]]) -> bytes:
    return "".join([f"NATS/1.0 {status}\r\n", *(f"{name}: {value}\r\n" for name, value in fields), "\r\n"]).encode()


GOLDEN = {
    # As a server or a well-behaved peer writes them; those with a status were measured on nats-server 2.15.1.
    "nothing": Golden(b"NATS/1.0\r\n\r\n", []),
    "one": Golden(b"NATS/1.0\r\nK: V\r\n\r\n", [("K", "V")]),
    "names keep their case": Golden(b"NATS/1.0\r\nabc: 1\r\nABC: 2\r\n\r\n", [("abc", "1"), ("ABC", "2")]),
    "names repeat": Golden(b"NATS/1.0\r\nA: 1\r\nB: 2\r\nA: 3\r\n\r\n", [("A", "1"), ("B", "2"), ("A", "3")]),
    "the same twice": Golden(b"NATS/1.0\r\nA: 1\r\nA: 1\r\n\r\n", [("A", "1"), ("A", "1")]),
    "no blank after the colon": Golden(b"NATS/1.0\r\nk:v\r\n\r\n", [("k", "v")]),
    "many blanks": Golden(b"NATS/1.0\r\nk:  \t v w\t \r\n\r\n", [("k", "v w")]),
    "blank before the colon": Golden(b"NATS/1.0\r\nk : v\r\n\r\n", [("k", "v")]),
    "empty value": Golden(b"NATS/1.0\r\nk:\r\nl: \r\n\r\n", [("k", ""), ("l", "")]),
    "colons in a value": Golden(b"NATS/1.0\r\nt: 12:00:00 a::b:\r\n\r\n", [("t", "12:00:00 a::b:")]),
    "UTF-8": Golden("NATS/1.0\r\nk: grüße 🙂\u2028\x85\r\n\r\n".encode(), [("k", "grüße 🙂\u2028\x85")]),
    "Latin-1": Golden(b"NATS/1.0\r\nk: gr\xfc\xdfe\r\nl: 1\r\n\r\n", [("k", "gr\udcfc\udcdfe"), ("l", "1")]),
    "name in UTF-8": Golden("NATS/1.0\r\nü: 1\r\n\r\n".encode(), [("ü", "1")]),
    "NUL and CR in a value": Golden(b"NATS/1.0\r\nk: a\x00b\rc\r\n\r\n", [("k", "a\x00b\rc")]),
    "no responders": Golden(b"NATS/1.0 503\r\n\r\n", [], 503),
    "no responders, 2.15": Golden(b"NATS/1.0 503\r\nNats-Subject: x\r\n\r\n", [("Nats-Subject", "x")], 503),
    "no messages": Golden(b"NATS/1.0 404 No Messages\r\n\r\n", [], 404, "No Messages"),
    "time-out": Golden(written("408 Request Timeout", TIMED_OUT), TIMED_OUT, 408, "Request Timeout"),
    "heartbeat": Golden(written("100 Idle Heartbeat", IDLE), IDLE, 100, "Idle Heartbeat"),
    "bad request": Golden(written(f"400 {TOO_LARGE}", []), [], 400, TOO_LARGE),
    "limit": Golden(b"NATS/1.0 409 Exceeded MaxRequestBatch of 5\r\n\r\n", [], 409, "Exceeded MaxRequestBatch of 5"),
    "status and headers, no words": Golden(b"NATS/1.0 204\r\nA: 1\r\nA: 2\r\n\r\n", [("A", "1"), ("A", "2")], 204),
    "status without a blank": Golden(b"NATS/1.0503\r\n\r\n", [], 503),
    "words without a blank": Golden(b"NATS/1.0 503No Responders\r\n\r\n", [], 503, "No Responders"),
    "neither blank": Golden(b"NATS/1.0100Idle\r\nA: 1\r\n\r\n", [("A", "1")], 100, "Idle"),
    "blanks everywhere": Golden(b"NATS/1.0 \t 404 \t No  Messages  \r\n\r\n", [], 404, "No  Messages"),
    "blank and no status": Golden(b"NATS/1.0 \r\nA: 1\r\n\r\n", [("A", "1")]),
    # As nobody should write them; each is delivered verbatim by the server when somebody does.
    "LF only": Golden(b"NATS/1.0 503\nA: 1\n\n", [("A", "1")], 503),
    "no version line": Golden(b"A: b\r\n\r\n", [("A", "b")], problem=NO_VERSION),
    "another version": Golden(b"NATS/2.0 503\r\nA: b\r\n\r\n", [("A", "b")], problem=NO_VERSION),
    "version in lower case": Golden(b"nats/1.0\r\nA: b\r\n\r\n", [("A", "b")], problem=NO_VERSION),
    "nothing at all": Golden(b"", [], problem=NO_VERSION),
    "binary": Golden(b"\x00\xff\xfe:\x80", [("\x00\udcff\udcfe", "\udc80")], problem=NO_VERSION),
    "version only": Golden(b"NATS/1.0", [], problem=NO_END),
    "version line only": Golden(b"NATS/1.0\r\n", [], problem=NO_END),
    "no empty line": Golden(b"NATS/1.0\r\nA: b\r\n", [("A", "b")], problem=NO_END),
    "cut short": Golden(b"NATS/1.0\r\nA: b\r\nC: d", [("A", "b"), ("C", "d")], problem=NO_END),
    "more behind the end": Golden(b"NATS/1.0\r\nA: b\r\n\r\nC: d\r\n\r\n", [("A", "b")], problem=NO_END),
    "no colon": Golden(b"NATS/1.0\r\nbad\r\nA: b\r\n\r\n", [("A", "b")], problem=NO_FIELD),
    "no name": Golden(b"NATS/1.0\r\n: v\r\nA: b\r\n\r\n", [("A", "b")], problem=NO_FIELD),
    "folded": Golden(b"NATS/1.0\r\nA: b\r\n c: d\r\nE: f\r\n\r\n", [("A", "b"), ("E", "f")], problem=NO_FIELD),
    "status of words": Golden(b"NATS/1.0 Oh no\r\nA: b\r\n\r\n", [("A", "b")], None, "Oh no", NO_STATUS),
    "status of two digits": Golden(b"NATS/1.0 50\r\n\r\n", [], None, "50", NO_STATUS),
    "status of four digits": Golden(b"NATS/1.0 5030 x\r\n\r\n", [], None, "5030 x", NO_STATUS),
    "status in other digits": Golden("NATS/1.0 ٥٠٣\r\n\r\n".encode(), [], None, "٥٠٣", NO_STATUS),
    "the first problem is told": Golden(b"NATS/1.0 x\r\nbad", [], None, "x", NO_STATUS),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_block_is_read_as_it_was_meant(name: str) -> None:
    golden = GOLDEN[name]
    parsed = headers.parse(golden.block)
    assert Golden(golden.block, list(parsed.fields.items()), *parsed[1:]) == golden


tokens = [b"NATS/1.0", b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"503", b"12", b"Key", b"value", b"\xff", "ü".encode()]


@given(st.binary() | st.lists(st.sampled_from(tokens), max_size=20).map(b"".join))
def test_anything_can_be_read(block: bytes) -> None:
    parsed = headers.parse(block)
    assert all(name and ":" not in name for name in parsed.fields)
    assert parsed.status is None or 0 <= parsed.status <= 999
    assert (parsed.problem is None) <= block.startswith(b"NATS/1.0")


@pytest.mark.parametrize(
    ("given_headers", "block"),
    [
        ({}, b"NATS/1.0\r\n\r\n"),
        ({"K": "V"}, b"NATS/1.0\r\nK: V\r\n\r\n"),
        ({"b": "1", "a": "2", "B": ""}, b"NATS/1.0\r\nb: 1\r\na: 2\r\nB: \r\n\r\n"),
        ({"K": ["1", "2"], "L": ()}, b"NATS/1.0\r\nK: 1\r\nK: 2\r\n\r\n"),
        (MultiDict([("K", "1"), ("L", "2"), ("K", "3")]), b"NATS/1.0\r\nK: 1\r\nL: 2\r\nK: 3\r\n\r\n"),
        (CIMultiDict([("k", "1"), ("K", "2")]), b"NATS/1.0\r\nk: 1\r\nK: 2\r\n\r\n"),
        ({"k": "grüße\t🙂"}, "NATS/1.0\r\nk: grüße\t🙂\r\n\r\n".encode()),
        ({"!#$%&'*+-.^_`|~/()<>@,;=?[]{}\"\\": "a:b"}, b"NATS/1.0\r\n!#$%&'*+-.^_`|~/()<>@,;=?[]{}\"\\: a:b\r\n\r\n"),
    ],
)
def test_headers_are_written_as_they_are_given(given_headers: Any, block: bytes) -> None:  # noqa: ANN401 - what users pass
    assert headers.encode(given_headers) == block


class Colour(str, enum.Enum):  # noqa: UP042 - the older kind, whose format() is not its value
    RED = "red"


class Liar(str):
    """Text that says something else of itself."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return "x\r\nInjected: y"

    __str__ = __repr__ = lambda self: "x\r\nInjected: y"
    isprintable = lambda self: True  # noqa: E731


def test_a_subclass_of_str_is_the_text_that_it_holds() -> None:
    given_headers: dict[str, Any] = {Colour.RED: Colour.RED, Liar("A"): [Liar("b"), Colour.RED]}
    assert headers.encode(given_headers) == b"NATS/1.0\r\nred: red\r\nA: b\r\nA: red\r\n\r\n"
    with pytest.raises(errors.BadHeaderError, match="no line ends"):
        headers.encode({"A": Liar("a\r\nB: c")})


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", ":", "a\r\nb", "a\n", "\tb", "a\x00", "a\x7f", "ü", "\ud800", 7]
)
def test_a_bad_name_is_refused_by_name(name: Any) -> None:  # noqa: ANN401 - what users pass
    with pytest.raises(errors.BadHeaderError, match="a name is printable ASCII") as caught:
        headers.encode({"fine": "1", name: "v"})
    assert str(caught.value).startswith(f"header {name!r}: ")
    assert caught.value.key == name


BAD_VALUES: dict[str, list[Any]] = {
    "no line ends": ["a\r\nb", "a\nb", "\r", ["fine", "a\r\nX: y"]],
    "control characters": ["a\x00", "a\x0bb", "\x7f"],
    "not valid Unicode": ["\ud800", ["fine", "x\udcff"]],
    "a value must be str, not int": [7, ["fine", 7]],
    "not NoneType": [None],
    "not bytes": [b"bytes", [b"bytes"]],
    "not bytearray": [bytearray(b"bytes")],
    "not dict": [{"a": "b"}, {}, ["fine", {"a": "b"}]],
    "not set": [{"a", "b"}],
    "not dict_keys": [{"a": "b"}.keys()],
    "not list_iterator": [iter(["a"])],
    "not MultiDict": [MultiDict(a="b")],
    "not list": [[["a"]]],
    "not float": [1.5],
}


@pytest.mark.parametrize(("value", "words"), [(value, words) for words, many in BAD_VALUES.items() for value in many])
def test_a_bad_value_is_refused_and_its_name_told(value: Any, words: str) -> None:  # noqa: ANN401 - what users pass
    with pytest.raises(errors.BadHeaderError, match=words) as caught:
        headers.encode({"fine": "ü", "The-Key": value, "also-fine": "1"})
    assert str(caught.value).startswith("header 'The-Key': ")
    assert caught.value.key == "The-Key"


def test_a_refusal_does_not_show_the_value_and_not_all_of_an_endless_name() -> None:
    with pytest.raises(errors.BadHeaderError) as caught:
        headers.encode({"Authorization": "secret\n"})
    assert "secret" not in str(caught.value)
    with pytest.raises(errors.BadHeaderError, match="Late") as caught:
        headers.encode({"Authorization": "secret", "Late": "\ud800"})
    assert caught.value.__context__ is None
    with pytest.raises(errors.BadHeaderError) as caught:
        headers.encode({"x" * 100_000 + " ": "v"})
    assert len(str(caught.value)) < 300


names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1)
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(32)), "\x7f"]))


@given(st.lists(st.tuples(names, values.map(lambda value: value.strip(" \t")))))
@example([("k", "a\u2028b\x85c"), ("k", "\u00a0")])
def test_what_was_encoded_is_read_back(pairs: list[tuple[str, str]]) -> None:
    parsed = headers.parse(headers.encode(MultiDict(pairs)))
    assert list(parsed.fields.items()) == pairs
    assert parsed[1:] == (None, "", None)
