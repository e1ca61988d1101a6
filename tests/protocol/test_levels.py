"""API levels: what needs which, what was left out, and how that is said."""

from __future__ import annotations

from typing import Any

import pytest

from trionats._protocol.jetstream import levels
from trionats._protocol.jetstream.levels import Need

SOURCE = {"name": "O", "consumer": {"name": "c", "deliver_subject": "d"}}


@pytest.mark.parametrize(
    ("config", "needs"),
    [
        ({"name": "S", "max_age": 5, "allow_direct": True}, []),
        ({"allow_msg_ttl": True}, [("allow_msg_ttl", 1)]),
        ({"allow_msg_ttl": False, "subject_delete_marker_ttl": 0, "allow_atomic": None}, []),
        ({"subject_delete_marker_ttl": 10**9}, [("subject_delete_marker_ttl", 1)]),
        ({"allow_msg_counter": True}, [("allow_msg_counter", 2)]),
        ({"allow_atomic": True, "allow_batched": True}, [("allow_atomic", 2), ("allow_batched", 4)]),
        ({"allow_msg_schedules": True}, [("allow_msg_schedules", 2)]),
        ({"persist_mode": "default"}, []),
        ({"persist_mode": "async"}, [("persist_mode", 2)]),
        ({"mirror": {"name": "O"}, "sources": [{"name": "O"}]}, []),
        ({"mirror": SOURCE}, [("mirror.consumer", 4)]),
        ({"sources": [{"name": "P"}, SOURCE, SOURCE]}, [("sources.consumer", 4)]),
        ({"mirror": 5, "sources": 5}, []),
        ({"mirror": "O", "sources": [None, "O"]}, []),
    ],
)
def test_what_the_configuration_of_a_stream_needs(config: dict[str, Any], needs: list[tuple[str, int]]) -> None:
    assert levels.of_stream(config) == needs


@pytest.mark.parametrize(
    ("config", "needs"),
    [
        ({"name": "c", "ack_policy": "explicit", "metadata": {}}, []),
        ({"pause_until": "2026-11-28T17:00:00Z"}, [("pause_until", 1)]),
        ({"priority_groups": ["a"], "priority_policy": "overflow"}, [("priority_groups", 1), ("priority_policy", 1)]),
        ({"priority_groups": [], "priority_policy": "none", "priority_timeout": 0}, []),
        ({"priority_timeout": 5}, [("priority_timeout", 1)]),
        ({"priority_policy": "prioritized"}, [("priority_policy", 2)]),
        ({"ack_policy": "flow_control"}, [("ack_policy", 4)]),
    ],
)
def test_what_the_configuration_of_a_consumer_needs(config: dict[str, Any], needs: list[tuple[str, int]]) -> None:
    assert levels.of_consumer(config) == needs


def test_the_greatest_need_is_what_a_request_asks_for() -> None:
    assert levels.greatest([]) is None
    assert levels.greatest([Need("a", 1), Need("b", 4), Need("c", 2)]) == ("b", 4)


@pytest.mark.parametrize(
    ("echoed", "left_out"),
    [
        ({"allow_msg_ttl": True, "ack_policy": "flow_control", "sources": [SOURCE]}, None),
        ({"allow_msg_ttl": False, "ack_policy": "flow_control", "sources": [SOURCE]}, "allow_msg_ttl"),
        ({"allow_msg_ttl": True, "ack_policy": "none", "sources": [SOURCE]}, "ack_policy"),
        ({"allow_msg_ttl": True, "ack_policy": "flow_control", "sources": [{"name": "O"}]}, "sources.consumer"),
        ({}, "allow_msg_ttl"),
        (None, None),
        ("text", None),
    ],
)
def test_what_a_server_left_out_is_found(echoed: object, left_out: str | None) -> None:
    found = levels.absent([Need("allow_msg_ttl", 1), Need("ack_policy", 4), Need("sources.consumer", 4)], echoed)
    assert (found and found.field) == left_out


def test_a_complaint_names_the_field_and_the_version() -> None:
    need = Need("allow_atomic", 2)
    said = "allow_atomic needs a server of 2.12 or later (API level 2); this one has level 1"
    assert need.complaint("has level 1") == said
