"""Which chunks are orphans: no object names them, and the newest one is old."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.readers import JSON
from trionats import api
from trionats._protocol.jetstream.objects.orphans import Candidates, Found, checked_age, claimed

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
BEGIN = int(NOW.timestamp()) * 1_000_000_000
PREFIX = "$O.b.C."


@pytest.mark.parametrize(
    ("fields", "nuid"),
    [
        ({"nuid": "N1"}, "N1"),
        ({"nuid": "N1", "deleted": False}, "N1"),
        # What nobody can read may name chunks all the same.
        ({"nuid": "N1", "size": "?", "deleted": "yes"}, "N1"),
        ({"nuid": "N1", "deleted": True}, ""),
        ({"nuid": ">"}, ""),
        ({"nuid": 5}, ""),
        ({}, ""),
        ([], ""),
    ],
)
def test_an_info_claims_the_chunks_that_it_names_unless_it_is_a_marker(fields: Any, nuid: str) -> None:  # noqa: ANN401
    assert claimed(json.dumps(fields).encode()) == nuid


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * 100_000])
def test_what_is_no_json_claims_nothing(data: bytes) -> None:
    assert claimed(data) == ""


@given(JSON)
def test_whatever_stands_there_claims_something_or_nothing(fields: object) -> None:
    assert isinstance(claimed(json.dumps(fields).encode()), str)


@pytest.mark.parametrize("age", [0, 0.5, 3600, float("inf")])
def test_an_age_is_seconds(age: float) -> None:
    assert checked_age("orphans", age) == age


@pytest.mark.parametrize("age", [-1, -0.5, float("nan")])
def test_an_age_that_is_none_is_refused_by_its_name(age: float) -> None:
    with pytest.raises(ValueError, match=f"orphans: older_than is {age}: it is 0 at the least"):
        checked_age("orphans", age)


@pytest.mark.parametrize("age", [None, "1", True, timedelta(1)])
def test_what_is_no_number_is_refused_by_its_name(age: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="orphans: older_than must be a number of seconds, not"):
        checked_age("orphans", age)


def test_what_nobody_names_and_is_old_is_found_with_all_its_chunks() -> None:
    page = Candidates(PREFIX, [PREFIX + nuid for nuid in ("kept", "old", "young", "gone", "a.b", "*")])
    assert page.subjects == [PREFIX + nuid for nuid in ("kept", "old", "young", "gone")]
    page.named("kept")
    page.named("nobody's")
    assert "kept" not in page
    second = 1_000_000_000
    page.chunk(PREFIX + "old", 3, BEGIN - 90 * second, "100")
    page.chunk(PREFIX + "young", 4, BEGIN - 80 * second, "1")
    page.chunk(PREFIX + "kept", 5, BEGIN - 90 * second, "1")
    page.chunk(PREFIX + "old", 6, BEGIN - 60 * second, "28")
    # Old as its first chunk is, it is still being put.
    page.chunk(PREFIX + "young", 7, BEGIN - 59 * second, "1")
    oldest, newest = NOW - timedelta(seconds=90), NOW - timedelta(seconds=60)
    assert page.old(NOW, 60) == [Found(api.Orphan("old", 2, 128, oldest, newest), 6)]
    assert ("old" in page, "young" in page, "gone" in page, bool(page)) == (True, False, False, True)
    page.named("old")
    assert not page


@pytest.mark.parametrize(("size", "counted"), [("7", 7), (None, 0), ("x", 0), ("-7", 0), ("9" * 30, 0)])
def test_a_size_that_is_none_counts_nothing(size: str | None, counted: int) -> None:
    page = Candidates(PREFIX, [PREFIX + "n"])
    page.chunk(PREFIX + "n", 1, BEGIN, size)
    [(orphan, _)] = page.old(NOW, 0)
    assert (orphan.chunks, orphan.bytes) == (1, counted)


@given(st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_no_chunk_that_is_named_is_ever_an_orphan(stored: set[str], named: set[str]) -> None:
    page = Candidates(PREFIX, sorted(PREFIX + nuid for nuid in stored))
    for nuid in named:
        page.named(nuid)
    for sequence, nuid in enumerate(stored, 1):
        page.chunk(PREFIX + nuid, sequence, BEGIN, "1")
    assert {orphan.nuid for orphan, _ in page.old(NOW, 0)} == stored - named
