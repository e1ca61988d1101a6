"""A consumer's configuration: which fields exclude each other, and what of it came back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from trionats import api
from trionats._protocol.jetstream.consumers.configs import all_filters, checked, checked_group, checked_moment, left_out

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "a", "durable_name": "b"}, "name is 'a' and durable_name 'b': they are one"),
    ({"max_deliver": -2}, "max_deliver is -2: it must be 0 or more, or -1 for the server's default"),
    ({"max_ack_pending": -5}, "max_ack_pending is -5"),
    ({"max_batch": -2}, "max_batch is -2"),
    ({"opt_start_seq": 4}, "opt_start_seq does not go with deliver_policy 'all'"),
    (
        {"deliver_policy": "new", "opt_start_time": datetime.now(UTC)},
        "opt_start_time does not go with deliver_policy 'new'",
    ),
    ({"deliver_policy": "by_start_sequence"}, "deliver_policy 'by_start_sequence' needs opt_start_seq"),
    ({"deliver_policy": api.DeliverPolicy.BY_START_TIME}, "deliver_policy 'by_start_time' needs opt_start_time"),
    ({"deliver_policy": "by_start_sequence", "opt_start_seq": -1}, "opt_start_seq is -1: sequences begin at 1"),
    ({"deliver_policy": "by_start_time", "opt_start_time": datetime(2030, 1, 1)}, "opt_start_time has no time zone"),
    ({"max_deliver": 2, "backoff": [1, 2, 3]}, r"backoff has 3 steps, more than max_deliver \(2\)"),
    ({"priority_groups": ["a"]}, "priority_groups need a priority_policy"),
    ({"priority_policy": "overflow"}, "priority_policy 'overflow' needs priority_groups"),
    ({"priority_policy": "overflow", "priority_groups": ["a" * 17]}, "a name has 1 to 16 of"),
    ({"priority_policy": "overflow", "priority_groups": ["a", ""]}, "priority group ''"),
    ({"pause_until": "tomorrow"}, "pause_until is 'tomorrow': no RFC 3339 time"),
    ({"filter_subject": "a", "filter_subjects": ["b", "c"]}, "either filter_subject or filter_subjects, not both"),
]


@pytest.mark.parametrize(("config", "text"), WRONG)
def test_fields_that_exclude_each_other_are_named(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^add_consumer: .*{text}"):
        checked("add_consumer", api.ConsumerConfig(**config))


@pytest.mark.parametrize(
    "field", ["deliver_subject", "deliver_group", "flow_control", "idle_heartbeat", "rate_limit_bps"]
)
def test_a_push_consumer_is_managed_but_not_created_as_a_pull_consumer(field: str) -> None:
    given: Any = {"flow_control": True, "idle_heartbeat": 1.0, "rate_limit_bps": 5}.get(field, "x")
    config = api.ConsumerConfig(**{field: given})
    assert checked("add_consumer", config) == config
    with pytest.raises(ValueError, match=f"create_consumer: {field} is for push consumers.*open_consumer"):
        checked("create_consumer", config, pull_only=True)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"name": "a", "durable_name": "a", "max_deliver": -1, "max_waiting": 0},
        {"max_deliver": 3, "backoff": [1, 2, 3]},
        {"backoff": [1, 2, 3]},
        {"deliver_policy": "by_start_sequence", "opt_start_seq": 4},
        {"deliver_policy": "a newer one", "opt_start_seq": 4},
        {"deliver_policy": None},
        {
            "priority_policy": "pinned_client",
            "priority_groups": ["aZ9-_/=", "b"],
            "pause_until": "2030-01-31T12:00:00Z",
        },
        {"filter_subject": "a.*"},
        {"filter_subjects": ["a.*", "b.>"]},
    ],
)
def test_what_can_be_is_left_as_it_is(config: dict[str, Any]) -> None:
    given = api.ConsumerConfig(**config)
    assert checked("add_consumer", given, pull_only=True) == given


def test_one_filter_in_a_list_is_a_single_one_by_which_permissions_are_granted() -> None:
    sent = checked("add_consumer", api.ConsumerConfig(filter_subjects=["a.>"]))
    assert (sent.filter_subject, sent.filter_subjects) == ("a.>", None)
    with pytest.raises(ValueError, match=r"filter_subjects?: .*'a\.\.b'"):
        checked("add_consumer", api.ConsumerConfig(filter_subjects=["a..b", "c"]))


def test_a_moment_is_a_datetime_with_a_zone_or_text() -> None:
    assert checked_moment("pause_consumer", "pause_until", datetime(2030, 1, 31, tzinfo=UTC)) == "2030-01-31T00:00:00Z"
    assert checked_moment("pause_consumer", "pause_until", "2030-01-31T00:00:00+02:00") == "2030-01-31T00:00:00+02:00"
    with pytest.raises(TypeError, match="pause_until must be a datetime, not int"):
        checked_moment("pause_consumer", "pause_until", 5)


def test_a_group_is_text() -> None:
    assert checked_group("unpin_consumer", "g") == "g"
    with pytest.raises(TypeError, match="a priority group must be text, not int"):
        checked_group("unpin_consumer", 5)


@pytest.mark.parametrize(
    ("sent", "echoed", "missing"),
    [
        ({}, {}, False),
        ({"filter_subject": "a"}, {"filter_subject": "a"}, False),
        ({"filter_subject": "a"}, {"filter_subjects": ["a"]}, False),
        ({"filter_subjects": ["a", "b"]}, {"filter_subjects": ["b", "a"]}, False),
        ({"filter_subjects": ["a", "b"]}, {}, True),
        ({"filter_subjects": ["a", "b"]}, {"filter_subject": ["a"], "filter_subjects": 5}, True),
        ({}, {"filter_subject": "a"}, True),
        ({"filter_subjects": ["a", "b"]}, None, False),
    ],
)
def test_filters_that_a_server_left_out_are_found(sent: dict[str, Any], echoed: Any, missing: bool) -> None:  # noqa: ANN401
    assert left_out(sent, echoed) is missing


def test_filters_stand_in_either_field() -> None:
    assert all_filters({"filter_subjects": ["a", 5, ""], "filter_subject": "b"}) == {"a", "b"}
