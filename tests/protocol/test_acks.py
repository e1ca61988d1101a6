"""What the reply subject of a JetStream message says, and which numbers are taken for some."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats._protocol.jetstream.acks import AckSubject, parse_ack_subject, whole_number


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("$JS.ACK.S.C.1.20.3.1795440575220161869.2", AckSubject("S", "C", 1, 20, 3, 1795440575220161869, 2)),
        # Measured with `js_ack_fc_v2`.
        ("$JS.ACK._.szMpdrwD.S.C.1.1.1.1795440575220161869.2", AckSubject("S", "C", 1, 1, 1, 1795440575220161869, 2)),
        ("$JS.ACK.hub.szMpdrwD.S.C.2.7.8.9.10", AckSubject("S", "C", 2, 7, 8, 9, 10, "hub")),
        ("$JS.ACK.hub.szMpdrwD.S.C.2.7.8.9.10.later.still", AckSubject("S", "C", 2, 7, 8, 9, 10, "hub")),
        ("$JS.ACK.S.C.1.2.3.4.5.6", None),
        ("$JS.ACK.S.C.1.2.3.4", None),
        ("$JS.ACK.S.C.1.2.three.4.5", None),
        ("$JS.ACK.S.C.1.2..4.5", None),
        (f"$JS.ACK.S.C.1.{'9' * 5000}.3.4.5", None),
        ("$JS.ACK.S.C.1.-2.3.4.5", None),
        (f"$JS.ACK.S.C.1.2.3.{1 << 63}.5", None),
        (f"$JS.ACK.S.C.1.{1 << 63}.3.4.5", None),
        (f"$JS.ACK.S.C.1.2.3.4.{1 << 63}", None),
        ("$JS.FC.S.C.1.2.3.4.5", None),
        ("_INBOX.a.b.c.d.e.f.g.h", None),
        ("", None),
    ],
)
def test_a_reply_subject_is_read_in_both_forms(reply: str, expected: AckSubject | None) -> None:
    assert parse_ack_subject(reply) == expected


@given(
    st.text(max_size=60) | st.lists(st.text(max_size=4), max_size=14).map(lambda parts: ".".join(["$JS.ACK", *parts]))
)
def test_any_reply_subject_is_survived(reply: str) -> None:
    assert isinstance(parse_ack_subject(reply), AckSubject | None)


NO_NUMBERS: list[object] = ["", "-1", "²", "9" * 30, None, [], -1, True, 1 << 63, 1.5]


@pytest.mark.parametrize(("value", "number"), [("12", 12), (7, 7), *((value, 0) for value in NO_NUMBERS)])
def test_what_is_no_count_counts_nothing(value: object, number: int) -> None:
    assert whole_number({"n": value}, "n") == number
    assert whole_number({}, "n") == 0
