"""What an ordered consumer may be asked for: the server's words for it, and what is refused before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from trionats import api
from trionats._protocol.jetstream.actions import Start
from trionats._protocol.jetstream.ordered.options import filters_of, more_of, prefix_of, start_of, threshold_of

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize("given", [None, "a.*", ["a.*"], ("a.*", "b.>")])
def test_one_filter_or_several_or_none(given: Any) -> None:  # noqa: ANN401 - whatever a program gives
    assert filters_of(given) == (() if given is None else ("a.*",) if given == "a.*" else tuple(given))


@pytest.mark.parametrize(
    ("policy", "more", "start"),
    [
        ("all", {}, Start("all")),
        (api.DeliverPolicy.NEW, {}, Start("new")),
        (api.DeliverPolicy.LAST_PER_SUBJECT, {}, Start("last_per_subject")),
        ("by_start_sequence", {"sequence": 7}, Start("by_start_sequence", 7)),
        ("by_start_time", {"when": NOON}, Start("by_start_time", time="2026-11-29T12:00:00Z")),
        (
            "by_start_time",
            {"when": NOON.astimezone(timezone(timedelta(hours=-5))).replace(microsecond=5)},
            Start("by_start_time", time="2026-11-29T12:00:00.000005Z"),
        ),
    ],
)
def test_where_reading_begins(policy: str, more: dict[str, Any], start: Start) -> None:
    assert start_of(policy, **{"sequence": None, "when": None, **more}) == start


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: filters_of(7), TypeError, "filter_subjects must be"),  # type: ignore[arg-type]
    (lambda: filters_of([7]), TypeError, r"filter_subjects"),  # type: ignore[list-item]
    (lambda: filters_of([]), ValueError, "filter_subjects is empty"),
    (lambda: filters_of("a..b"), ValueError, "filter_subjects: .*'a..b'"),
    (lambda: filters_of(["a", "b c"]), ValueError, "filter_subjects: .*'b c'"),
    (lambda: start_of("sometimes", None, None), ValueError, "deliver_policy must be one of all, .*'sometimes'"),
    (lambda: start_of(3, None, None), TypeError, "deliver_policy must be"),  # type: ignore[arg-type]
    (lambda: start_of("all", 3, None), ValueError, "deliver_policy 'all' does not go with opt_start_seq"),
    (
        lambda: start_of("by_start_sequence", None, None),
        ValueError,
        "deliver_policy 'by_start_sequence' needs opt_start_seq",
    ),
    (lambda: start_of("by_start_sequence", 0, None), ValueError, "opt_start_seq must be 1 or more, not 0"),
    (lambda: start_of("by_start_sequence", "1", None), TypeError, "opt_start_seq must be"),  # type: ignore[arg-type]
    (lambda: start_of("by_start_sequence", 1, NOON), ValueError, ".* does not go with opt_start_time"),
    (lambda: start_of("by_start_time", None, None), ValueError, "deliver_policy 'by_start_time' needs opt_start_time"),
    (lambda: start_of("by_start_time", None, "now"), TypeError, "opt_start_time must be a datetime"),  # type: ignore[arg-type]
    (
        lambda: start_of("by_start_time", None, NOON.replace(tzinfo=None)),
        ValueError,
        "opt_start_time has no time zone",
    ),
    (lambda: threshold_of(0), ValueError, "inactive_threshold must be more than 0 s"),
    (lambda: threshold_of(-1), ValueError, "inactive_threshold must be more than 0 s"),
    (lambda: threshold_of("30"), TypeError, "inactive_threshold must be a number of seconds"),  # type: ignore[arg-type]
    (lambda: prefix_of("a.b", "t"), ValueError, "name_prefix: "),
    (lambda: prefix_of("", "t"), ValueError, "name_prefix: "),
    (lambda: prefix_of(3, "t"), TypeError, "name_prefix must be text"),  # type: ignore[arg-type]
    (lambda: more_of("slowly", None), ValueError, "replay_policy must be one of instant, original"),
    (lambda: more_of("instant", {"a": 1}), TypeError, "metadata"),  # type: ignore[dict-item]
]


@pytest.mark.parametrize(("call", "kind", "text"), REFUSED)
def test_what_cannot_be_is_refused_by_its_name(call: Any, kind: type[Exception], text: str) -> None:  # noqa: ANN401
    with pytest.raises(kind, match=f"^ordered_consumer: {text}"):
        call()


def test_what_the_configuration_says_besides() -> None:
    assert (threshold_of(30), prefix_of(None, "t"), prefix_of("mine", "t")) == (30, "t", "mine_t")
    assert more_of("instant", None) == {}
    assert more_of(api.ReplayPolicy.ORIGINAL, {"a": "b"}) == {"replay_policy": "original", "metadata": {"a": "b"}}
