"""Which answer to a publish counts, and how long a message may be asked to live."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import errors
from trionats._protocol.jetstream.publishing import publish as acks
from trionats._protocol.jetstream.publishing.publish import AckKind


class Answer(NamedTuple):
    data: bytes


def answer(**fields: object) -> Answer:
    return Answer(json.dumps(fields).encode())


OURS = answer(stream="S", seq=1, domain="hub")
THEIRS = answer(stream="S", seq=1, domain="leaf")
NAMELESS = answer(stream="S", seq=1)
REFUSAL = answer(stream="S", seq=0, error={"code": 503})


@pytest.mark.parametrize(
    ("given", "strict", "expected"),
    [
        (OURS, True, (AckKind.OURS, "S", "hub")),
        (THEIRS, True, (AckKind.ELSEWHERE, "S", "leaf")),
        (THEIRS, False, (AckKind.ELSEWHERE, "S", "leaf")),
        (NAMELESS, True, (AckKind.ELSEWHERE, "S", "")),
        (NAMELESS, False, (AckKind.OURS, "S", "")),
        (REFUSAL, True, (AckKind.REFUSAL, "S", "")),
        (answer(stream="S", seq=1, domain=5), False, (AckKind.OURS, "S", "")),
        (answer(stream=5, seq=1, domain="leaf"), True, (AckKind.OURS, "", "leaf")),
        (answer(error=None, stream="S", domain="hub"), True, (AckKind.REFUSAL, "S", "hub")),
    ],
)
def test_whose_answer_it_is(given: Answer, strict: bool, expected: tuple[AckKind, str, str]) -> None:
    assert acks.judge(given.data, "hub", strict=strict) == expected


NO_ANSWERS = [b"", b"x", b"\xff", b"[]", b"null", b"5", b"[" * 100_000, b'{"a":' * 100_000]


@pytest.mark.parametrize("data", NO_ANSWERS)
def test_what_is_no_answer_of_a_stream_is_not_waited_behind(data: bytes) -> None:
    assert acks.judge(data, "hub", strict=True) == (AckKind.OURS, "", "")


KEYS = st.text() | st.sampled_from(["stream", "domain", "error"])
VALUES = st.none() | st.text() | st.integers()
JSON = st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_answer_is_judged(data: bytes) -> None:
    assert isinstance(acks.judge(data, "hub", strict=True)[0], AckKind)


def choose(*answers: Answer, patience: float = 0.3) -> tuple[list[float], Any, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    chooser = acks.AckChooser[Answer]("hub", strict=True, patience=patience, tell=lambda *what: told.append(what))
    waits = [chooser.choose(one) for one in answers]
    return waits, chooser.give_up() if all(waits) else None, told


def test_our_own_acknowledgement_counts_at_once_wherever_it_comes() -> None:
    assert choose(OURS) == ([0], None, [])
    assert choose(THEIRS, OURS) == ([3.0, 0], None, [("S", "leaf")])
    assert choose(REFUSAL, OURS) == ([0.3, 0], None, [])
    assert choose(THEIRS, REFUSAL, OURS) == ([3.0, 0.3, 0], None, [("S", "leaf")])


def test_a_refusal_counts_when_nothing_better_comes() -> None:
    other = answer(error={"code": 400})
    for answers in ((REFUSAL,), (REFUSAL, other), (THEIRS, REFUSAL), (REFUSAL, THEIRS)):
        waits, last, _ = choose(*answers)
        assert waits[-1] == 0.3
        assert last is REFUSAL
    assert choose(REFUSAL, patience=0) == ([0], None, [])


def test_where_only_others_have_stored_it_that_is_said() -> None:
    for one, where in ((THEIRS, "'leaf'"), (NAMELESS, "'no domain'")):
        waits, last, told = choose(one)
        assert waits == [3.0]
        assert isinstance(last, errors.NoStreamResponseError)
        assert str(last) == f"no stream in domain 'hub' has answered, but one in {where}"
        assert len(told) == 1


def test_the_patience_follows_the_distance() -> None:
    assert acks.patience(None) == 0.5
    assert acks.patience(0.0) == 0.1
    assert acks.patience(0.2) == pytest.approx(0.9)
    assert acks.patience(60.0) == 3.0, "a server that stood still once is not far away for that"


@pytest.mark.parametrize(
    ("ttl", "text"),
    [
        (1, "1s"),
        (60.0, "60s"),
        (123_456, "123456s"),
        (123_457.0, "123457s"),
        (1_000_000, "1000000s"),
        (1e9, "1000000000s"),
        (9_223_372_036, "9223372036s"),
        ("never", "never"),
    ],
)
def test_a_time_to_live_is_written_as_the_server_reads_it(ttl: object, text: str) -> None:
    assert acks.time_to_live("publish to 'a'", ttl) == text


REFUSALS: list[tuple[list[Any], type[Exception], str]] = [
    ([0, -1, 0.5, math.nan, math.inf, -math.inf], ValueError, r"must be from 1 to 9223372036 seconds, or \"never\"$"),
    ([9_223_372_037, 1e300, 10**400], ValueError, r"must be from 1 to 9223372036 seconds, or \"never\"$"),
    ([1.5, 123_456.7, 1_000_000.1], ValueError, "is .* cuts it to whole seconds"),
    (["5", "5s", "Never", "", b"never"], TypeError, r"must be whole seconds or \"never\", not \w+$"),
    ([True, False, Decimal(5), [5], 5j], TypeError, r"must be whole seconds or \"never\", not \w+$"),
]


@pytest.mark.parametrize(
    ("ttl", "error", "said"), [(ttl, error, said) for ttls, error, said in REFUSALS for ttl in ttls]
)
def test_a_time_that_the_server_does_not_take_is_refused(ttl: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"^publish to 'a': msg_ttl {said}"):
        acks.time_to_live("publish to 'a'", ttl)


# -- what is asked of a stream -----------------------------------------------------------------------------------------


def test_each_argument_is_written_as_its_header() -> None:
    asked = acks.publish_headers(
        "publish to 'a'",
        stream="S",
        msg_id="i",
        msg_ttl=60,
        rollup="sub",
        expected_last_seq=0,
        expected_last_subject_seq=2**64 - 1,
        expected_last_subject_seq_subject="s.*.>",
        expected_last_msg_id="before",
    )
    assert asked == {
        "Nats-Expected-Stream": "S",
        "Nats-Msg-Id": "i",
        "Nats-TTL": "60s",
        "Nats-Rollup": "sub",
        "Nats-Expected-Last-Sequence": "0",
        "Nats-Expected-Last-Subject-Sequence": "18446744073709551615",
        "Nats-Expected-Last-Subject-Sequence-Subject": "s.*.>",
        "Nats-Expected-Last-Msg-Id": "before",
    }
    assert acks.publish_headers("publish to 'a'") == {}
    assert acks.publish_headers("publish to 'a'", rollup="all") == {"Nats-Rollup": "all"}


SEQUENCES = ("expected_last_seq", "expected_last_subject_seq")
TEXTS = ("msg_id", "expected_last_msg_id")
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    *[({name: value}, TypeError, f"{name} must be a whole number") for name in SEQUENCES for value in ("1", 1.0, True)],
    *[({name: value}, ValueError, f"{name} is .*: it must be from 0") for name in SEQUENCES for value in (-1, 2**64)],
    *[({name: value}, TypeError, f"{name} must be text") for name in TEXTS for value in (1, b"x")],
    *[
        ({name: value}, ValueError, f"{name} is .*: it must not be empty")
        for name in TEXTS
        for value in ("", " x", "x ")
    ],
    ({"stream": "a.b"}, ValueError, "stream 'a.b'"),
    ({"stream": ""}, ValueError, "stream ''"),
    ({"stream": 5}, TypeError, "stream 5: it must be text"),
    ({"rollup": "SUB"}, ValueError, "rollup must be 'sub' or 'all', not 'SUB'"),
    ({"rollup": True}, ValueError, "rollup must be 'sub' or 'all', not True"),
    ({"expected_last_subject_seq_subject": "a"}, ValueError, "expected_last_subject_seq_subject .* which is missing"),
    (
        {"expected_last_subject_seq_subject": "a..b", "expected_last_subject_seq": 1},
        ValueError,
        "expected_last_subject_seq_subject: .*empty tokens",
    ),
    ({"expected_last_subject_seq_subject": 5, "expected_last_subject_seq": 1}, TypeError, "must be text"),
]


@pytest.mark.parametrize(("arguments", "kind", "text"), BAD)
def test_what_cannot_be_meant_is_refused_by_its_name(
    arguments: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        acks.publish_headers("publish to 'a'", **arguments)
    assert "publish to 'a'" in str(caught.value)


def test_a_message_that_was_stored_stands_behind_what_was_expected() -> None:
    def place(**expected: Any) -> dict[str, Any]:  # noqa: ANN401 - any expectation
        return acks.own_place("a", acks.publish_headers("publish", msg_id="i", **expected))

    assert place(expected_last_seq=7) == {"seq": 8}
    assert place(expected_last_subject_seq=0) == {"seq": 1, "subject": "a", "next": True}
    assert place(expected_last_seq=7, expected_last_subject_seq=3) == {"seq": 8}
    assert place(expected_last_msg_id="x") == {"subject": "a"}


def test_a_publish_is_tried_again_as_often_as_may_help() -> None:
    attempts = acks.Attempts()
    assert [attempts.nobody() for _ in range(4)] == [0.25, 0.25, None, None]
    assert [attempts.under_way() for _ in range(8)] == [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, None, None]


PLAIN = [
    b'{"stream":"S","seq":1}',
    b'{"stream":"S", "seq":12345678901234}',
    b'{"stream":"S","seq":9,"duplicate": true}',
    b'{"stream":"KV_b-1","seq":1,"domain":"hub"}',
    b'{"stream":"S","seq":1,"domain":"hub","duplicate":true}',
]
NOT_PLAIN = [
    *NO_ANSWERS,
    b'{"stream":"S","seq":0}',
    b'{"stream":"","seq":1}',
    b'{"stream":"S","seq":-1}',
    b'{"stream":"S","seq":1.5}',
    b'{"stream":"S","seq":"1"}',
    b'{"stream":"S","seq":1}x',
    b'{"stream":"S\\u0041","seq":1}',
    b'{"stream":"\xff","seq":1}',
    b'{"stream":"S","seq":1,"val":"5"}',
    b'{"error":{"code":503},"stream":"S","seq":1}',
    b'{"stream":"S","seq":1,"error":{"code":503}}',
]


@pytest.mark.parametrize("data", PLAIN)
def test_a_plain_acknowledgement_is_known_without_reading_it(data: bytes) -> None:
    assert acks.is_plain_ack(data)
    read = json.loads(data)
    assert isinstance(read["stream"], str)
    assert type(read["seq"]) is int


@pytest.mark.parametrize("data", NOT_PLAIN)
def test_what_is_not_plain_is_read(data: bytes) -> None:
    assert acks.is_plain_ack(data) is None


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (errors.explained(errors.BadRequestError, "", err_code=10071), True),
        (errors.explained(errors.ServerError, "", err_code=10164), True),
        (errors.explained(errors.BadRequestError, "", err_code=10070), False),
        (errors.explained(errors.BadRequestError, "", err_code=None), False),
        (errors.explained(errors.DisconnectedError, ""), False),
    ],
)
def test_a_lost_comparison_is_known_by_either_number(error: Exception, is_one: bool) -> None:
    assert acks.is_conflict(error) is is_one
