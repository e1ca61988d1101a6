"""What a reader of a consumer may ask for, and what is refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from trionats._protocol.jetstream.consumers.demand import Demand


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_messages": 0}, "max_messages must be from 1 to"),
        ({"max_messages": 1 << 31}, "max_messages must be from 1 to"),
        ({"max_bytes": 0}, "max_bytes must be from 1 to"),
        ({"max_messages": 10, "threshold_messages": 10}, "threshold_messages must be from 0 to 9, not 10"),
        ({"max_bytes": 10, "threshold_bytes": 10}, "threshold_bytes must be from 0 to 9, not 10"),
        ({"threshold_bytes": 8 * 1024 * 1024}, "threshold_bytes must be from 0 to 8388607"),
        ({"stop_after": -1}, "stop_after must be from 0"),
        ({"expires": 0.5}, "expires must be from 1 to 86400 s, not 0.5"),
        ({"expires": float("nan")}, "expires must be a number of seconds"),
        ({"expires": float("inf")}, "expires must be a number of seconds"),
        ({"expires": 10**400}, "expires must be a number of seconds"),
        ({"heartbeat": 10**400}, "heartbeat must be a number of seconds"),
        ({"heartbeat": 0.1}, "heartbeat must be from 0.5"),
        ({"expires": 4, "heartbeat": 3}, "heartbeat must be from 0.5 to 2 s, not 3"),
        ({"expires": 600, "heartbeat": 31}, "heartbeat must be from 0.5 to 30 s, not 31"),
        ({"on_leave": "drop"}, "on_leave must be 'nak' or 'leave', not 'drop'"),
        ({"group": ""}, "group must not be empty"),
        ({"priority": 1}, "priority is for a priority group of the policy 'prioritized': name the group"),
        ({"min_pending": 1}, "min_pending is for a priority group"),
        ({"group": "g", "priority": 10}, "priority is 10: it must be from 0 to 9"),
        ({"group": "g", "min_pending": 0}, "min_pending is 0: it must be 1 or more"),
        ({"group": "g", "priority": 1, "min_ack_pending": 1}, "min_pending and min_ack_pending for 'overflow'"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Demand(**options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_messages", None),
        ("max_messages", True),
        ("max_bytes", 1.5),
        ("stop_after", "5"),
        ("expires", "30"),
        ("heartbeat", True),
        ("group", 5),
    ],
)
def test_what_is_of_another_kind_is_refused_by_its_name(name: str, value: object) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(TypeError, match=rf"open_consumer\(\): {name} must be"):
        Demand(**options)


@pytest.mark.parametrize(
    ("options", "pulse"), [({}, 15), ({"expires": 1}, 0.5), ({"expires": 600}, 30), ({"heartbeat": 2}, 2)]
)
def test_the_server_is_heard_twice_in_a_request_unless_it_is_to_say_more(options: dict[str, Any], pulse: float) -> None:
    assert Demand(**options).pulse == pulse


def test_what_fits_the_consumer_stands_in_each_request() -> None:
    demand = Demand(group="g", min_pending=5, min_ack_pending=6)
    demand.terms.check_against("open_consumer()", "consumer 'C'", ["g"], "overflow")
    assert demand.terms.fields() == {"group": "g", "min_pending": 5, "min_ack_pending": 6}


def test_what_says_nothing_to_a_kind_of_consumer_is_refused() -> None:
    Demand(max_messages=5).only("an ordered consumer", ["max_messages"])
    with pytest.raises(ValueError, match="stop_after does not apply to an ordered consumer"):
        Demand(stop_after=5).only("an ordered consumer", ["max_messages"])
    with pytest.raises(ValueError, match="on_leave does not apply to an ordered consumer"):
        Demand(on_leave="leave").only("an ordered consumer", [])


def test_the_usual_may_be_said_aloud_of_any_kind_of_consumer() -> None:
    usual = Demand(on_leave="nak", max_messages=500, stop_after=0)
    usual.only("an ordered consumer", [])
    assert usual.credit_bytes == Demand(max_bytes=8 * 1024 * 1024).credit_bytes
