"""What keys may be, what a message says of one, what a write asks for, and what codecs make of both."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from trionats import Base64Codec, KeyCodec, PathCodec, api, errors
from trionats._protocol.jetstream.kv.codecs import Codecs
from trionats._protocol.jetstream.kv.entries import operation_of
from trionats._protocol.jetstream.kv.keys import (
    KEY_LIMIT,
    checked_filter,
    checked_key,
    checked_new_key,
    several_filters,
)
from trionats._protocol.jetstream.kv.writing import (
    CREATE_PAUSES,
    MOST_CHANGES,
    Creating,
    checked_age,
    checked_revision,
    purge_request,
    write_headers,
)

NOW = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)

# -- keys ----------------------------------------------------------------------------------------------------------------

KEYS = ["a", "a.b", "A/b_c=d-e.f", "1", "_kvetch.not", "a" * KEY_LIMIT]
NO_KEYS = ["", ".", ".a", "a.", "a..b", "a b", "a\tb", "a\r\nb", "*", "a.*", ">", "a.>", "é", "a.\ud800", "a:b", "a\0"]
FILTERS = [*KEYS, ">", "*", "a.*", "*.b.*", "a.>", "*.>"]
NO_FILTERS = ["", ".", "a..b", "a.", ".>", ">.a", "a*", "a.>b", "a b", "é.*", "a" * (KEY_LIMIT + 1)]


@pytest.mark.parametrize("key", KEYS)
def test_keys(key: str) -> None:
    assert checked_key("b", key) == key


@pytest.mark.parametrize("key", [*NO_KEYS, "a" * (KEY_LIMIT + 1)], ids=ascii)
def test_what_is_no_key(key: str) -> None:
    for check in (checked_key, checked_new_key):
        with pytest.raises(errors.InvalidKeyError, match=r"^key .* of bucket 'b': it ") as caught:
            check("b", key)
        assert len(str(caught.value)) < 250


def test_reserved_keys_are_read_but_not_written() -> None:
    assert checked_key("b", "_kv.a") == "_kv.a"
    assert checked_new_key("b", "a._kv") == "a._kv"
    with pytest.raises(errors.InvalidKeyError, match=r"key '_kv\.a' of bucket 'b': .* reserved"):
        checked_new_key("b", "_kv.a")


@pytest.mark.parametrize("pattern", FILTERS)
def test_filters(pattern: str) -> None:
    assert checked_filter("b", pattern) == pattern


@pytest.mark.parametrize("pattern", NO_FILTERS)
def test_what_is_no_filter(pattern: str) -> None:
    with pytest.raises(errors.InvalidKeyError, match=r"^filter .* of bucket 'b': it "):
        checked_filter("b", pattern)


@pytest.mark.parametrize("key", [None, b"a", 1])
def test_a_key_is_text(key: Any) -> None:  # noqa: ANN401 - whatever a program passes
    with pytest.raises(TypeError, match=f"key .*: it must be text, not {type(key).__name__}"):
        checked_key("b", key)


def test_one_filter_or_several() -> None:
    assert several_filters("b", "a.*") == ["a.*"]
    assert several_filters("b", ("a", "b.>")) == ["a", "b.>"]
    with pytest.raises(ValueError, match="filters is empty"):
        several_filters("b", [])
    for wrong in (b"a", 7, {"a": 1}, bytearray(b"a"), memoryview(b"a")):
        with pytest.raises(TypeError, match=f"filters must be .*, not {type(wrong).__name__}"):
            several_filters("b", wrong)  # type: ignore[arg-type]


# -- what a message says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "operation"),
    [
        ({}, None),
        ({"Nats-TTL": "5s"}, None),
        ({"KV-Operation": "DEL"}, "DEL"),
        ({"KV-Operation": "PURGE"}, "PURGE"),
        ({"KV-Operation": "PUT"}, "DEL"),
        ({"KV-Operation": ""}, "DEL"),
        ({"KV-Operation": "whatever comes"}, "DEL"),
        ({"Nats-Marker-Reason": "MaxAge"}, "PURGE"),
        ({"Nats-Marker-Reason": "Purge"}, "PURGE"),
        ({"Nats-Marker-Reason": "Remove"}, "DEL"),
        ({"Nats-Marker-Reason": "a reason of the future"}, "DEL"),
        ({"KV-Operation": "DEL", "Nats-Marker-Reason": "MaxAge"}, "DEL"),
    ],
)
def test_what_a_message_did_to_its_key(headers: dict[str, str], operation: str | None) -> None:
    assert operation_of(headers) == operation


# -- what a write asks for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "headers"),
    [
        ({}, {}),
        ({"last": 0}, {"Nats-Expected-Last-Subject-Sequence": "0"}),
        ({"last": 7, "msg_ttl": 5}, {"Nats-Expected-Last-Subject-Sequence": "7", "Nats-TTL": "5s"}),
        ({"msg_ttl": "never"}, {"Nats-TTL": "never"}),
        ({"msg_ttl": 1_000_000.0}, {"Nats-TTL": "1000000s"}),
        ({"operation": "DEL"}, {"KV-Operation": "DEL"}),
        ({"operation": "PURGE"}, {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}),
    ],
)
def test_what_the_headers_of_a_write_say(asked: dict[str, Any], headers: dict[str, str]) -> None:
    assert write_headers("put of key 'k'", **asked) == headers


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"last": -1}, ValueError, "put: last is -1"),
        ({"last": 2**63}, ValueError, "put: last is 9223372036854775808"),
        ({"last": True}, TypeError, "put: last must be a revision, a whole number, not bool"),
        ({"last": 1.0}, TypeError, "put: last must be a revision, a whole number, not float"),
        ({"msg_ttl": 1.5}, ValueError, "put: msg_ttl is 1.5 s"),
        ({"msg_ttl": 0}, ValueError, "put: msg_ttl must be from 1"),
        ({"msg_ttl": "5s"}, TypeError, "put: msg_ttl must be whole seconds"),
    ],
)
def test_what_cannot_be_asked_of_a_write(asked: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        write_headers("put", **asked)


def test_a_revision_that_is_none_at_all_is_no_revision() -> None:
    for missing in (None, "7"):
        with pytest.raises(TypeError, match="update: last must be a revision"):
            checked_revision("update", "last", missing)
    with pytest.raises(ValueError, match="get: revision is 0"):
        checked_revision("get", "revision", 0, least=1)


# -- create ------------------------------------------------------------------------------------------------------------


def test_a_create_expects_nothing_and_then_what_a_marker_left() -> None:
    creating = Creating()
    assert creating.expected == 0
    assert creating.found(7, gone=True) == 0
    assert creating.expected == 7
    # The marker's time was over.
    assert creating.found(0, gone=True) == 0
    assert creating.expected == 0
    assert creating.found(9, gone=False) is None


def test_a_create_whose_expectation_was_right_waits_for_what_is_under_way() -> None:
    creating = Creating()
    assert creating.found(7, gone=True) == 0
    assert [creating.found(7, gone=True) for _ in CREATE_PAUSES] == list(CREATE_PAUSES)
    assert creating.found(7, gone=True) is None


def test_a_create_ends_where_a_key_changes_all_the_time() -> None:
    creating = Creating()
    assert [creating.found(n + 1, gone=True) for n in range(MOST_CHANGES)] == [0] * MOST_CHANGES
    assert creating.found(99, gone=True) is None


class Creators(RuleBasedStateMachine):
    """One that creates a key, others that delete, purge and expire it: it takes the place of no value."""

    @initialize(revision=st.integers(0, 3), gone=st.booleans())
    def begin(self, revision: int, gone: bool) -> None:
        self.creating: Creating | None = Creating()
        self.last, self.gone = (revision, gone) if revision else (0, True)
        self.newest = revision
        self.looks = 0

    @precondition(lambda self: self.creating is not None)
    @rule()
    def try_once(self) -> None:
        assert self.creating is not None
        if self.creating.expected == self.last:
            assert self.gone, "it took the place of a value"
            self.creating = None

    @precondition(lambda self: self.creating is not None)
    @rule()
    def look(self) -> None:
        assert self.creating is not None
        if self.creating.expected != self.last:
            self.looks += 1
            pause = self.creating.found(self.last, gone=self.gone)
            if pause is None:
                assert not self.gone or self.looks > MOST_CHANGES
                self.creating = None
            else:
                assert self.creating.expected == self.last

    @rule(gone=st.booleans())
    def others_write(self, gone: bool) -> None:
        self.newest += 1
        self.last, self.gone = self.newest, gone

    @rule()
    def its_time_is_over(self) -> None:
        self.last, self.gone = 0, True


test_a_create_never_takes_the_place_of_a_value = Creators.TestCase


# -- purging markers ------------------------------------------------------------------------------------------------------


def entry(operation: Any, *, age: float = 0, revision: int = 7) -> api.KeyValueEntry:  # noqa: ANN401 - a row
    return api.KeyValueEntry("b", "k", b"", revision, NOW - datetime.timedelta(seconds=age), 0, operation)


@pytest.mark.parametrize(
    ("operation", "age", "olderthan", "seq"),
    [
        ("DEL", 1801, 1800, 8),
        ("DEL", 1800, 1800, 7),
        ("PURGE", 1801, 1800, 8),
        ("PURGE", 10, 1800, None),
        ("DEL", 10, 0, 8),
        ("DEL", -5, -1, 8),
        ("PURGE", 0, -0.5, 8),
        ("DEL", 1e9, math.inf, 7),
    ],
)
def test_old_markers_are_purged_and_of_younger_ones_what_stands_before(
    operation: str, age: float, olderthan: float, seq: int | None
) -> None:
    asked = purge_request("$KV.b.k", entry(operation, age=age), NOW, olderthan)
    assert asked == (None if seq is None else {"filter": "$KV.b.k", "seq": seq})


def test_below_the_first_message_nothing_is_purged() -> None:
    """Servers up to 2.14.0 take that for no limit, and would purge the marker that is to stay."""
    assert purge_request("$KV.b.k", entry("DEL", revision=1), NOW, 1800) is None
    assert purge_request("$KV.b.k", entry("DEL", revision=1), NOW, -1) == {"filter": "$KV.b.k", "seq": 2}


def test_how_old_markers_have_to_be_is_a_number() -> None:
    assert (checked_age(5), checked_age(math.inf)) == (5.0, math.inf)
    assert checked_age(10**400) > 200 * 365 * 86400
    assert checked_age(-(10**400)) < 0
    for wrong in (None, "5", True, datetime.timedelta(1)):
        with pytest.raises(TypeError, match="olderthan must be a number of seconds"):
            checked_age(wrong)
    with pytest.raises(ValueError, match="olderthan is not a number"):
        checked_age(math.nan)


# -- codecs ------------------------------------------------------------------------------------------------------------

PATHS = [
    ("/config/app/database", "_root_.config.app.database", "/config/app/database"),
    ("config/app", "config.app", "config/app"),
    ("/", "_root_", "/"),
    ("/a/", "_root_.a", "/a"),
    ("a", "a", "a"),
    ("_root_x/a", "_root_x.a", "_root_x/a"),
]


@pytest.mark.parametrize(("key", "stored", "back"), PATHS)
def test_paths_are_stored_as_gos_programs_store_them(key: str, stored: str, back: str) -> None:
    codec = PathCodec()
    assert codec.encode_key(key) == stored
    assert codec.decode_key(stored) == back
    assert codec.encode_key(back) == stored


@pytest.mark.parametrize("key", ["a.b", "/notes/today.txt", "a/b.", "_root_/a", "_root_"])
def test_a_path_that_would_come_back_as_another_one_is_refused(key: str) -> None:
    for encode in (PathCodec().encode_key, PathCodec().encode_filter):
        with pytest.raises(ValueError, match="would stand for a slash in the bucket") as caught:
            encode(key)
        assert repr(key) in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "stored"),
    [("/a/*", "_root_.a.*"), ("/>", "_root_.>"), ("a/*/b", "a.*.b"), ("*/b", "*.b"), ("a/>", "a.>")],
)
def test_wildcards_of_paths_stay(pattern: str, stored: str) -> None:
    assert PathCodec().encode_filter(pattern) == stored
    assert checked_filter("b", stored) == stored


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        ("Acme Inc.contact", "QWNtZSBJbmM.Y29udGFjdA"),
        ("a", "YQ"),
        ("é>?", "w6k-Pw"),
        ("*", "Kg"),
    ],
)
def test_base64_is_what_gos_programs_make_of_keys(key: str, stored: str) -> None:
    codec = Base64Codec()
    assert codec.encode_key(key) == stored
    assert codec.decode_key(stored) == key


def test_base64_leaves_wildcards_of_patterns_alone() -> None:
    assert Base64Codec().encode_filter("orders.*.a b.>") == "b3JkZXJz.*.YSBi.>"


def test_base64_of_values_has_no_padding() -> None:
    codec = Base64Codec()
    assert codec.encode_value(b"info@acme.com") == b"aW5mb0BhY21lLmNvbQ"
    assert codec.decode_value(b"aW5mb0BhY21lLmNvbQ") == b"info@acme.com"
    assert codec.decode_value(b"") == b""


@pytest.mark.parametrize("stored", ["a", "Y Q", "\xe9", "_w"])
def test_what_is_no_base64_is_no_key(stored: str) -> None:
    with pytest.raises(ValueError, match=r"is no base64|codec can't decode"):
        Base64Codec().decode_key(stored)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="."), min_size=1), min_size=1))
def test_any_text_without_empty_tokens_is_a_key_in_base64(tokens: list[str]) -> None:
    key, codecs = ".".join(tokens), Codecs().before(Base64Codec(), None)
    stored = codecs.encode_key(key)
    assert checked_key("b", stored[:KEY_LIMIT]) == stored[:KEY_LIMIT] or stored[KEY_LIMIT - 1] == "."
    assert codecs.decode_key(stored) == key


@given(st.binary())
def test_any_value_comes_back_from_base64(value: bytes) -> None:
    codecs = Codecs().before(None, [Base64Codec(), Base64Codec()])
    assert codecs.decode_value(codecs.encode_value(value)) == value


class Upper:
    """A codec as a program may write one: keys in capitals, values backwards."""

    def encode_key(self, key: str) -> str:
        return key.upper()

    def decode_key(self, key: str) -> str:
        return key.lower()

    def encode_filter(self, pattern: str) -> str:
        return pattern.upper()

    def encode_value(self, value: bytes) -> bytes:
        return value[::-1]

    def decode_value(self, value: bytes) -> bytes:
        return value[::-1]


class Wrong(Upper):
    """One that gives what it must not give."""

    def encode_key(self, key: str) -> Any:  # noqa: ANN401 - that is what it is for
        return key.encode()

    def encode_filter(self, pattern: str) -> Any:  # noqa: ANN401
        return pattern.encode()

    decode_key = encode_key

    def encode_value(self, value: bytes) -> Any:  # noqa: ANN401
        return value.decode()

    decode_value = encode_value


def test_several_codecs_are_applied_one_after_the_other_and_undone_backwards() -> None:
    codecs = Codecs().before([PathCodec(), Upper(), Base64Codec()], [Upper(), Base64Codec()])
    assert codecs.encode_key("/a/b") == Base64Codec().encode_key("_ROOT_.A.B")
    assert codecs.encode_filter("a/*") == "QQ.*"
    assert codecs.encode_value(b"ab") == Base64Codec().encode_value(b"ba")
    assert codecs.decode_value(codecs.encode_value(b"ab")) == b"ab"
    assert codecs.decode_key(codecs.encode_key("x/y")) == "x/y"


def test_further_codecs_come_before_those_that_are_there() -> None:
    once = Codecs().before(Base64Codec(), Base64Codec())
    twice = once.before(PathCodec(), Upper())
    assert twice.encode_key("a/b") == "YQ.Yg"
    assert twice.encode_value(b"ab") == b"YmE"
    assert once.before(None, None) == once


def test_all_keys_are_asked_for_without_a_codec() -> None:
    class Deaf(Upper):
        def encode_filter(self, pattern: str) -> str:
            raise ValueError("no patterns here")

    codecs = Codecs().before(Deaf(), None)
    assert codecs.encode_filter(">") == ">"
    with pytest.raises(ValueError, match="no patterns here"):
        codecs.encode_filter("a.*")


@pytest.mark.parametrize(
    ("keys", "stored"),
    [
        (Base64Codec(), "YR"),
        (Base64Codec(), "YQ=="),
        (PathCodec(), "a/b"),
        (Upper(), "lower"),
        ([Upper(), Base64Codec()], "YQ"),
    ],
)
def test_a_stored_key_that_the_codecs_would_store_elsewhere_is_foreign(
    keys: KeyCodec | Sequence[KeyCodec], stored: str
) -> None:
    codecs = Codecs().before(keys, None)
    with pytest.raises(ValueError, match="is none of these codecs"):
        codecs.decode_key(stored)


def test_without_codecs_of_keys_every_key_is_itself() -> None:
    codecs = Codecs().before(None, Upper())
    assert codecs.decode_key("a..b") == "a..b"
    assert codecs.encode_key("a") == codecs.encode_filter("a") == "a"


def test_markers_and_values_left_on_the_server_are_not_decoded() -> None:
    codecs = Codecs().before(Upper(), Base64Codec())
    value = api.KeyValueEntry("b", "K", b"YQ", 7, NOW, 0, None)
    assert codecs.decoded(value, meta_only=False) == api.KeyValueEntry("b", "k", b"a", 7, NOW, 0, None)
    assert codecs.decoded(value, meta_only=True).value == b"YQ"
    marker = api.KeyValueEntry("b", "K", b"?", 7, NOW, 0, "DEL")
    assert codecs.decoded(marker, meta_only=False) == api.KeyValueEntry("b", "k", b"?", 7, NOW, 0, "DEL")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda codecs: codecs.encode_key("k"), r"Wrong\.encode_key\(\) must give text, not bytes"),
        (lambda codecs: codecs.decode_key("k"), r"Wrong\.decode_key\(\) must give text, not bytes"),
        (lambda codecs: codecs.encode_filter("k"), r"Wrong\.encode_filter\(\) must give text, not bytes"),
        (lambda codecs: codecs.encode_value(b"v"), r"Wrong\.encode_value\(\) must give bytes, not str"),
        (lambda codecs: codecs.decode_value(b"v"), r"Wrong\.decode_value\(\) must give bytes, not str"),
        (lambda codecs: codecs.encode_key(7), r"key 7: it must be text, not int"),
        (lambda codecs: codecs.encode_filter(7), r"key 7: it must be text, not int"),
    ],
)
def test_a_codec_that_gives_something_else_is_named(call: Callable[[Codecs], object], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        call(Codecs().before(Wrong(), Wrong()))


@pytest.mark.parametrize(
    ("keys", "values", "text"),
    [
        ("base64", None, r"keys: it must be a codec, with encode_key, .* and a str is none"),
        (Base64Codec, None, "keys: .* and the class Base64Codec is none"),
        (None, PathCodec(), "values: it must be a codec, with encode_value, decode_value, .* and a PathCodec is none"),
        ([PathCodec(), 7], None, "keys: .* and a int is none"),
    ],
)
def test_what_is_no_codec(keys: Any, values: Any, text: str) -> None:  # noqa: ANN401 - rows
    with pytest.raises(TypeError, match=text):
        Codecs().before(keys, values)
