"""Schedules: what is written, what is refused before it is sent, what is read of whoever wrote it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from trionats import api
from trionats._protocol.jetstream.levels import Need
from trionats._protocol.jetstream.schedules import hint_of, need_of, read_schedule, schedule_headers

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def written(**given: Any) -> dict[str, str]:  # noqa: ANN401 - any argument of any kind
    return schedule_headers("schedule 's'", "s", **{"target": "t", **given})


@pytest.mark.parametrize(
    ("given", "headers"),
    [
        ({"at": NOON}, {"Nats-Schedule": "@at 2030-01-01T12:00:00Z"}),
        (
            {"at": datetime(2030, 1, 1, 12, 0, 0, 250_000, timezone(timedelta(hours=2)))},
            {"Nats-Schedule": "@at 2030-01-01T10:00:00.250000Z"},
        ),
        ({"at": datetime(1678, 1, 1, tzinfo=UTC)}, {"Nats-Schedule": "@at 1678-01-01T00:00:00Z"}),
        ({"at": datetime(2262, 4, 11, tzinfo=UTC)}, {"Nats-Schedule": "@at 2262-04-11T00:00:00Z"}),
        ({"every": 100 * 365 * 86_400}, {"Nats-Schedule": "@every 3153600000s"}),
        ({"every": 1}, {"Nats-Schedule": "@every 1s"}),
        ({"every": 90.0}, {"Nats-Schedule": "@every 90s"}),
        ({"cron": "@daily"}, {"Nats-Schedule": "@daily"}),
        ({"cron": " 0  */5 9-17 1,15 jan-Mar MON-fri "}, {"Nats-Schedule": "0 */5 9-17 1,15 jan-Mar MON-fri"}),
        ({"cron": "5/15 ? 23 31 DEC 0-6/2"}, {"Nats-Schedule": "5/15 ? 23 31 DEC 0-6/2"}),
        (
            {"cron": "0 0 12 * * *", "time_zone": "Europe/Berlin"},
            {"Nats-Schedule": "0 0 12 * * *", "Nats-Schedule-Time-Zone": "Europe/Berlin"},
        ),
        ({"every": 5, "ttl": 60}, {"Nats-Schedule": "@every 5s", "Nats-Schedule-TTL": "60s"}),
        ({"every": 5, "ttl": "never"}, {"Nats-Schedule": "@every 5s", "Nats-Schedule-TTL": "never"}),
        (
            {"every": 5, "source": "in", "rollup": True},
            {"Nats-Schedule": "@every 5s", "Nats-Schedule-Source": "in", "Nats-Schedule-Rollup": "sub"},
        ),
    ],
)
def test_a_schedule_is_written_as_headers(given: dict[str, Any], headers: dict[str, str]) -> None:
    assert written(**given) == {"Nats-Schedule-Target": "t", **headers}


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({}, ValueError, "one of at, every and cron says when, not none of them"),
        ({"at": NOON, "cron": "@daily"}, ValueError, "one of at, every and cron says when, not at and cron"),
        ({"at": datetime(2030, 1, 1)}, ValueError, "at has no time zone"),
        ({"at": "2030-01-01"}, TypeError, "at must be a datetime, not str"),
        ({"at": datetime(2262, 4, 11, 0, 0, 1, tzinfo=UTC)}, ValueError, "must be from 1678-01-01 to 2262-04-11"),
        ({"at": datetime(1677, 12, 31, tzinfo=UTC)}, ValueError, "at is 1677-12-31 00:00:00\\+00:00: it must be from"),
        ({"at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}, ValueError, "no moment of the years"),
        ({"at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}, ValueError, "no moment of the years"),
        ({"every": 100 * 365 * 86_400 + 1}, ValueError, "whole seconds, from 1 to 3153600000"),
        ({"every": 0}, ValueError, "every is 0 s: it must be whole seconds, from 1"),
        ({"every": 1.5}, ValueError, "every is 1.5 s: it must be whole seconds"),
        ({"every": 10**12}, ValueError, "every is 1e"),
        ({"every": float("nan")}, ValueError, "every is nan s"),
        ({"every": True}, TypeError, "every must be whole seconds, not bool"),
        ({"every": "5s"}, TypeError, "every must be whole seconds, not str"),
        ({"cron": 5}, TypeError, "cron must be text, not int"),
        ({"cron": "* * * * *"}, ValueError, "it has 5 fields, and six are needed"),
        ({"cron": "@fortnightly"}, ValueError, "it has 1 fields, and six"),
        ({"cron": "60 * * * * *"}, ValueError, r"'60' is no second: it must be \*, or from 0 to 59"),
        ({"cron": "0 0 24 * * *"}, ValueError, "'24' is no hour"),
        ({"cron": "0 0 0 0 * *"}, ValueError, "'0' is no day of the month"),
        ({"cron": "0 0 0 * 13 *"}, ValueError, "'13' is no month"),
        ({"cron": "0 0 0 * mon *"}, ValueError, "'mon' is no month"),
        ({"cron": "0 0 0 * * 7"}, ValueError, "'7' is no day of the week"),
        ({"cron": "0 0 0 L * *"}, ValueError, "'L' is no day of the month"),
        ({"cron": "10-5 * * * * *"}, ValueError, "it ends before it begins"),
        ({"cron": "1-2-3 * * * * *"}, ValueError, "'1-2-3' is no second"),
        ({"cron": "*/0 * * * * *"}, ValueError, "a step is a whole number, from 1"),
        ({"cron": "*/x * * * * *"}, ValueError, "a step is a whole number, from 1"),
        ({"cron": "1,,2 * * * * *"}, ValueError, "'' is no second"),
        ({"cron": "-1 * * * * *"}, ValueError, "'-1' is no second"),
        ({"every": 5, "time_zone": "UTC"}, ValueError, "time_zone is for cron"),
        ({"cron": "@daily", "time_zone": "not a zone"}, ValueError, "time_zone is 'not a zone'"),
        ({"cron": "@daily", "time_zone": UTC}, TypeError, "time_zone must be text, not timezone"),
        ({"every": 5, "target": "s"}, ValueError, "target is its own subject"),
        ({"every": 5, "target": "t.*"}, ValueError, "target: .*wildcards"),
        ({"every": 5, "target": None}, TypeError, "target must be text, not NoneType"),
        ({"every": 5, "source": "a..b"}, ValueError, "source: "),
        ({"every": 5, "source": 5}, TypeError, "source must be text, not int"),
        ({"every": 5, "source": "s"}, ValueError, "source is its own subject, too"),
        ({"every": 5, "source": "t"}, ValueError, "source is its target, too"),
        ({"every": 5, "ttl": 0}, ValueError, "ttl must be from 1"),
        ({"every": 5, "ttl": 1.5}, ValueError, "ttl is 1.5 s"),
        ({"every": 5, "ttl": "soon"}, TypeError, 'ttl must be whole seconds or "never"'),
        ({"every": 5, "rollup": "sub"}, TypeError, "rollup must be True or False, not str"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_named(given: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^schedule 's': .*{text}"):
        written(**given)


@pytest.mark.parametrize(
    ("given", "need"),
    [
        ({"at": NOON}, Need("a schedule", 2)),
        ({"at": NOON, "ttl": 5}, Need("a schedule", 2)),
        ({"at": NOON, "source": "in"}, Need("source", 4)),
        ({"at": NOON, "rollup": True}, Need("rollup", 4)),
        ({"every": 5}, Need("every", 4)),
        ({"cron": "@daily"}, Need("cron", 4)),
        ({"cron": "@daily", "time_zone": "UTC"}, Need("time_zone", 4)),
    ],
)
def test_only_one_moment_is_known_to_the_first_servers(given: dict[str, Any], need: Need) -> None:
    assert need_of(written(**given)) == need


@pytest.mark.parametrize("number", [10166, 10188, 10189, 10190, 10203, 10212, 10223])
def test_a_refusal_has_a_hint(number: int) -> None:
    assert hint_of(number)


@pytest.mark.parametrize("number", [None, 0, 10071])
def test_another_refusal_has_none(number: int | None) -> None:
    assert not hint_of(number)


def read(headers: dict[str, str]) -> api.Schedule | None:
    return read_schedule("s", 7, NOON, MultiDict(headers), b"x")


@given(
    st.one_of(
        st.fixed_dictionaries(
            {"at": st.datetimes(datetime(1678, 1, 1), datetime(2262, 4, 11), timezones=st.just(UTC))}
        ),
        st.fixed_dictionaries({"every": st.integers(1, 10**9)}),
        st.fixed_dictionaries({"cron": st.just("0 0 12 * * *"), "time_zone": st.sampled_from([None, "Europe/Berlin"])}),
    ),
    st.sampled_from([None, 1, 3600, "never"]),
    st.sampled_from([None, "in.a"]),
    st.booleans(),
)
def test_what_was_written_is_read(
    when: dict[str, Any], ttl: float | str | None, source: str | None, rollup: bool
) -> None:
    found = read({"X-Own": "1", "Nats-Rollup": "sub", **written(**when, ttl=ttl, source=source, rollup=rollup)})
    assert found is not None
    told = {"at": found.at, "every": found.every, "cron": found.cron, "time_zone": found.time_zone}
    assert {name: value for name, value in told.items() if value is not None} == {
        name: value for name, value in when.items() if value is not None
    }
    assert (found.ttl, found.source, found.rollup, found.target) == (ttl, source, rollup, "t")
    assert (found.subject, found.seq, found.created, found.data) == ("s", 7, NOON, b"x")
    assert list(found.headers.items()) == [("X-Own", "1")], (
        "what makes it a schedule, and what the server adds, is no header of it"
    )


@pytest.mark.parametrize(
    ("expression", "at", "every", "cron"),
    [
        ("@every 1h30m", None, 5400.0, None),
        ("@every 1.5s", None, 1.5, None),
        ("@every 2ms3us4µs5ns", None, 0.002007005, None),
        ("@every soon", None, None, None),
        (f"@every {'9' * 40}h", None, None, None),
        ("@at 2030-01-01T12:00:00.000000001+00:00", NOON, None, None),
        ("@at noon", None, None, None),
        ("@sometimes", None, None, "@sometimes"),
        ("TZ=UTC 0 0 0 * * *", None, None, "TZ=UTC 0 0 0 * * *"),
    ],
)
def test_what_others_wrote_is_read_as_far_as_it_can_be(
    expression: str, at: datetime | None, every: float | None, cron: str | None
) -> None:
    found = read({"Nats-Schedule": expression})
    assert found is not None
    assert (found.expression, found.at, found.cron, found.target) == (expression, at, cron, "")
    assert found.every == (None if every is None else pytest.approx(every))


@pytest.mark.parametrize(
    ("text", "ttl"), [("5", 5.0), ("5s", 5.0), ("1h", 3600.0), ("Never", "never"), ("soon", None), ("", None)]
)
def test_a_time_to_live_is_read_in_each_form(text: str, ttl: float | str | None) -> None:
    found = read({"Nats-Schedule": "@daily", "Nats-Schedule-TTL": text})
    assert found is not None
    assert found.ttl == ttl


def test_a_rollup_of_another_kind_is_none_of_the_target() -> None:
    found = read({"Nats-Schedule": "@daily", "Nats-Schedule-Rollup": "all"})
    assert found is not None
    assert found.rollup is False


def test_a_plain_message_is_no_schedule() -> None:
    assert read({"Nats-Scheduler": "s", "Nats-Schedule-Next": "purge"}) is None
    assert read({}) is None
