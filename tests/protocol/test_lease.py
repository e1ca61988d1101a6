"""What a lease decides: what stands under its key, until when it is held for certain, and when to do something."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from trionats import api
from trionats._protocol.jetstream.kv.lease import (
    GRACE,
    LOOKED_AFTER,
    STAMP,
    Patience,
    Sighting,
    Tenure,
    checked_ttl,
    release_headers,
    sighting,
    unfit,
)

EXPECTED = "Nats-Expected-Last-Subject-Sequence"


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({}, Sighting(7, taken=True)),
        ({"Nats-TTL": "10s"}, Sighting(7, taken=True, ttl=10)),
        ({"Nats-TTL": "10s", STAMP: "t.3"}, Sighting(7, taken=True, stamp="t.3", ttl=10)),
        ({"KV-Operation": "DEL"}, Sighting(7)),
        ({"KV-Operation": "PURGE", "Nats-TTL": "2s"}, Sighting(7, ttl=2)),
        ({"Nats-Marker-Reason": "MaxAge", "Nats-TTL": "1m0s"}, Sighting(7, expired=True)),
        ({"Nats-Marker-Reason": "Purge"}, Sighting(7)),
        # What is not known to be a number of seconds says nothing.
        *(
            ({"Nats-TTL": ttl}, Sighting(7, taken=True))
            for ttl in ("", "s", "10", "-1s", "never", "1.5s", "\u0661s", "9" * 30 + "s")
        ),
    ],
)
def test_what_stands_under_a_key(headers: dict[str, str], seen: Sighting) -> None:
    assert sighting(7, headers) == seen


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (Sighting(0), "nothing stands there any more"),
        (Sighting(7, taken=True), "somebody else holds it (revision 7)"),
        (Sighting(7), "it was deleted (revision 7)"),
        (Sighting(7, expired=True), "it expired before a renewal of it came"),
    ],
)
def test_what_is_said_of_it(seen: Sighting, text: str) -> None:
    assert str(seen) == text


@pytest.mark.parametrize("ttl", [2, 2.0, 10, 86400])
def test_a_ttl_of_whole_seconds(ttl: float) -> None:
    assert (checked_ttl(ttl), type(checked_ttl(ttl))) == (int(ttl), int)


@pytest.mark.parametrize(
    ("ttl", "kind", "text"),
    [
        (1, ValueError, "ttl is 1: it must be whole seconds, from 2 to"),
        (0, ValueError, "ttl is 0"),
        (-3, ValueError, "ttl is -3"),
        (2.5, ValueError, "ttl is 2.5: .* the server cuts it to whole seconds"),
        (inf, ValueError, "ttl is inf"),
        (10**400, ValueError, "ttl is far off: it must be whole seconds"),
        (-(10**400), ValueError, "ttl is far off: it must be whole seconds"),
        (float("nan"), ValueError, "ttl is nan"),
        (True, TypeError, "ttl must be whole seconds, not bool"),
        ("10s", TypeError, "ttl must be whole seconds, not str"),
        (None, TypeError, "ttl must be whole seconds, not NoneType"),
    ],
)
def test_a_ttl_that_cannot_be(ttl: object, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        checked_ttl(ttl)


FIT: dict[str, Any] = {"max_msgs_per_subject": 1, "allow_msg_ttl": True, "subject_delete_marker_ttl": 1.0}


@pytest.mark.parametrize("more", [{}, {"max_age": 0.0}, {"max_age": 5.0}, {"max_age": 60.0}])
def test_a_bucket_that_can_hold_a_lease(more: dict[str, Any]) -> None:
    assert unfit(api.StreamConfig(**FIT, **more), 5) == []


@pytest.mark.parametrize(
    ("wrong", "missing"),
    [
        ({"max_msgs_per_subject": 5}, ["history must be 1"]),
        ({"allow_msg_ttl": None}, ["limit_marker_ttl"]),
        ({"subject_delete_marker_ttl": None}, ["limit_marker_ttl"]),
        ({"subject_delete_marker_ttl": 0.0}, ["limit_marker_ttl"]),
        ({"max_age": 4.0}, ["its ttl of 4 s ends a lease before the lease's own of 5 s"]),
        ({"mirror": api.StreamSource(name="KV_a")}, ["it is a mirror"]),
        ({"max_msgs_per_subject": 64, "max_age": 1.0}, ["history must be 1", "its ttl of 1 s"]),
    ],
)
def test_a_bucket_that_cannot_says_what_is_missing(wrong: dict[str, Any], missing: list[str]) -> None:
    found = unfit(api.StreamConfig(**{**FIT, **wrong}), 5)
    assert len(found) == len(missing)
    assert all(part in text for part, text in zip(missing, found, strict=True))


def test_each_attempt_expects_what_was_seen_and_has_a_stamp_of_its_own() -> None:
    tenure = Tenure("t", 9)
    before = tenure.in_doubt
    first, second = tenure.attempt(100, 0), tenure.attempt(101, 0)
    assert (before, tenure.in_doubt) == (False, True)
    assert first.headers == {EXPECTED: "0", "Nats-TTL": "9s", STAMP: "t.1"}
    assert (second.stamp, second.headers[STAMP]) == ("t.2", "t.2")
    assert tenure.deadline == -inf


def test_it_is_held_for_as_long_after_it_was_sent_and_renewed_after_a_third_of_that() -> None:
    tenure = Tenure("t", 9)
    tenure.stored(tenure.attempt(100, 0).stamp, 5)
    assert (tenure.revision, tenure.deadline, tenure.due, tenure.response_limit) == (5, 109, 103, 3)
    assert not tenure.in_doubt
    tenure.stored(tenure.attempt(103, 5).stamp, 6)
    assert (tenure.revision, tenure.deadline, tenure.due) == (6, 112, 106)


def test_after_a_failure_it_is_tried_again_soon_and_held_no_longer() -> None:
    tenure = Tenure("t", 12)
    tenure.stored(tenure.attempt(100, 0).stamp, 5)
    tenure.attempt(104, 5)
    tenure.failed(108)
    assert (tenure.deadline, tenure.due) == (112, 109)
    assert tenure.in_doubt


def test_an_acknowledgement_that_was_lost_is_found_by_its_stamp() -> None:
    tenure = Tenure("t", 9)
    tenure.stored(tenure.attempt(100, 0).stamp, 5)
    lost = tenure.attempt(103, 5)
    refused = tenure.attempt(106, 5)
    tenure.refused(refused.stamp)
    assert tenure.owns(Sighting(6, taken=True, stamp=lost.stamp, ttl=9))
    # Judged by when that one was sent, not by the one that was refused.
    assert (tenure.revision, tenure.deadline, tenure.in_doubt) == (6, 112, False)


def test_what_is_still_under_way_stays_in_doubt_when_nothing_has_changed() -> None:
    tenure = Tenure("t", 9)
    first = tenure.attempt(100, 0)
    tenure.stored(first.stamp, 5)
    under_way = tenure.attempt(103, 5)
    assert tenure.owns(Sighting(5, taken=True, stamp=first.stamp))
    assert (tenure.deadline, tenure.in_doubt) == (109, True)
    tenure.stored(under_way.stamp, 6)
    assert tenure.deadline == 112


def test_what_was_stored_too_long_ago_is_its_own_and_holds_nothing() -> None:
    tenure = Tenure("t", 9)
    first = tenure.attempt(100, 0)
    second = tenure.attempt(109, 0)
    assert tenure.owns(Sighting(5, taken=True, stamp=first.stamp))
    assert (tenure.revision, tenure.deadline, tenure.due) == (5, -inf, -inf)
    tenure.refused(second.stamp)
    assert not tenure.in_doubt


def test_the_end_never_goes_back() -> None:
    tenure = Tenure("t", 9)
    tenure.stored(tenure.attempt(100, 0).stamp, 5)
    tenure.stored("t.99", 6)
    assert (tenure.revision, tenure.deadline) == (6, 109)


@pytest.mark.parametrize(
    "seen",
    [
        Sighting(0),
        Sighting(6),
        Sighting(6, taken=True),
        Sighting(6, taken=True, stamp="other.1"),
        Sighting(6, taken=True, stamp="tt.1"),
        Sighting(6, stamp="t.1"),
    ],
)
def test_what_is_somebody_elses(seen: Sighting) -> None:
    tenure = Tenure("t", 9)
    tenure.stored(tenure.attempt(100, 0).stamp, 5)
    assert not tenure.owns(seen)
    assert tenure.revision == 5


def test_a_key_is_given_back_by_a_marker_that_vanishes() -> None:
    assert release_headers(6, 9) == {"KV-Operation": "PURGE", "Nats-Rollup": "sub", EXPECTED: "6", "Nats-TTL": "9s"}


def test_who_waits_looks_when_the_holder_has_been_silent_for_too_long() -> None:
    patience = Patience(Sighting(5, taken=True, ttl=10), 100)
    assert patience.look_at == 110 + GRACE
    patience.told(Sighting(6, taken=True, ttl=10), 103)
    assert (patience.seen.revision, patience.look_at) == (6, 113 + GRACE)
    # No news.
    patience.told(Sighting(6, taken=True, ttl=10), 105)
    patience.told(Sighting(5), 106)
    assert (patience.seen, patience.look_at) == (Sighting(6, taken=True, ttl=10), 113 + GRACE)
    # What does not say how long it lives is looked at now and then.
    patience.told(Sighting(7, taken=True), 110)
    assert patience.look_at == 110 + LOOKED_AFTER
    # What was looked at counts, also where less is there than before.
    patience.looked(Sighting(0), 120)
    assert (patience.seen, patience.look_at) == (Sighting(0), 120 + LOOKED_AFTER)
