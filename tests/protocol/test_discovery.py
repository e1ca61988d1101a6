"""What services of any client say of themselves: read, or a ValueError."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import api
from trionats._protocol.parser import Message
from trionats._protocol.services.discovery import read_answer
from trionats._protocol.services.names import instance_of, prefix_of

WHO = {"name": "orders", "id": "X1", "version": "1.2.3"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def message(said: object) -> Message:
    return Message(1, "inbox", "", said if isinstance(said, bytes) else json.dumps(said).encode(), None)


def ping(**said: object) -> api.ServicePing:
    return read_answer("PING", api.ServicePing, message({**WHO, **said}))


def stats(**said: object) -> api.ServiceStats:
    return read_answer("STATS", api.ServiceStats, message({**WHO, **said}))


def info(**said: object) -> api.ServiceInfo:
    return read_answer("INFO", api.ServiceInfo, message({**WHO, **said}))


def test_only_who_it_is_has_to_be_there() -> None:
    assert ping() == api.ServicePing("orders", "X1", "1.2.3")
    assert info() == api.ServiceInfo("orders", "X1", "1.2.3")
    assert stats() == api.ServiceStats("orders", "X1", "1.2.3")


def test_null_is_as_good_as_not_there() -> None:
    assert ping(type=None, metadata=None) == ping()
    assert info(description=None, metadata=None, endpoints=None) == info()
    nothing = dict.fromkeys(("queue_group", "num_requests", "num_errors", "last_error", "processing_time", "data"))
    (endpoint,) = stats(started=None, endpoints=[{"name": "e", "subject": "s", **nothing}]).endpoints
    assert endpoint == api.EndpointStats("e", "s")


def test_what_each_client_writes_is_read() -> None:
    found = stats(
        type="io.nats.micro.v1.stats_response",
        started="2026-11-29T12:00:00.123456789Z",
        metadata={"region": "eu", "shard": 3},
        endpoints=[
            {
                "name": "e",
                "subject": "s",
                "queue_group": "q",
                "num_requests": 3,
                "num_errors": 1.0,
                "last_error": {"name": "Error", "message": "boom"},
                "processing_time": 1500.0,
                "average_processing_time": 500,
                "data": {"any": ["thing", None]},
                "newer": 1,
            }
        ],
        newer={"a": None},
    )
    assert found.started == datetime(2026, 11, 29, 12, 0, 0, 123456, UTC)
    assert found.metadata == {"region": "eu", "shard": "3"}
    assert found.extra == {"newer": {"a": None}}
    (endpoint,) = found.endpoints
    assert (endpoint.num_requests, endpoint.num_errors, endpoint.processing_time) == (3, 1, 1500)
    assert (endpoint.last_error, endpoint.data, endpoint.extra) == ("boom", {"any": ["thing", None]}, {"newer": 1})
    (described,) = info(endpoints=[{"name": "e", "subject": "s", "metadata": {"a": "b"}}]).endpoints
    assert described == api.EndpointInfo("e", "s", "", {"a": "b"})


def test_a_mean_with_fractions_is_read() -> None:
    """That of an iterator of nats.js."""
    said = {"name": "e", "subject": "s", "processing_time": 1e6, "average_processing_time": 333333.3333333333}
    (endpoint,) = stats(endpoints=[said]).endpoints
    assert (endpoint.processing_time, endpoint.average_processing_time) == (1_000_000, 333_333)


@pytest.mark.parametrize(
    ("said", "text"),
    [({"description": "why"}, "why"), ({}, "{}"), ({"code": 1}, '{"code": 1}'), ("500:why", "500:why"), ("", "")],
)
def test_an_error_is_a_text_or_an_object(said: object, text: str) -> None:
    (endpoint,) = stats(endpoints=[{"name": "e", "subject": "s", "last_error": said}]).endpoints
    assert endpoint.last_error == text


@pytest.mark.parametrize("said", ["2026-11-29T12:00:00", "2026-11-29T12:00:00+00:00", "2026-11-29T14:00:00+02:00"])
def test_a_time_without_a_zone_is_in_utc(said: str) -> None:
    assert stats(started=said).started == datetime(2026, 11, 29, 12, 0, 0, 0, UTC)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense",
        [],
        {},
        {**WHO, "name": None},
        {**WHO, "id": 3},
        {"name": "orders", "id": "X1"},
        {**WHO, "type": "io.nats.micro.v1.ping_response"},
        {**WHO, "started": "yesterday"},
        {**WHO, "started": 1},
        {**WHO, "metadata": "x"},
        {**WHO, "endpoints": "x"},
        {**WHO, "endpoints": [3]},
        {**WHO, "endpoints": [{"name": "e"}]},
        {**WHO, "endpoints": [{"name": "e", "subject": "s", "num_requests": "3"}]},
        {**WHO, "endpoints": [{"name": "e", "subject": "s", "num_requests": 1.5}]},
        {**WHO, "endpoints": [{"name": "e", "subject": "s", "processing_time": math.inf}]},
        {**WHO, "endpoints": [{"name": "e", "subject": "s", "last_error": 3}]},
    ],
)
def test_what_is_no_answer_is_an_error(said: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"\w"):
        read_answer("STATS", api.ServiceStats, message(said))


@given(st.dictionaries(st.sampled_from(["type", "metadata", "description", "endpoints", "x"]), JSON))
def test_whatever_stands_there_is_read_or_is_an_error(said: dict[str, Any]) -> None:
    with suppress(ValueError, TypeError):
        assert info(**said).name == "orders"


def test_an_instance_is_asked_by_its_name_and_its_id() -> None:
    assert instance_of("ping", "X1", "orders") == "X1"
    for instance, name, error in (
        ("X1", None, ValueError),
        ("a.b", "o", ValueError),
        ("", "o", ValueError),
        (3, "o", TypeError),
    ):
        with pytest.raises(error, match="ping: id"):
            instance_of("ping", instance, name)  # type: ignore[arg-type]


def test_what_services_are_asked_on_begins_with_a_subject() -> None:
    assert prefix_of("c", "b.$SRV") == "b.$SRV"
    for prefix, error in (
        ("", ValueError),
        ("a b", ValueError),
        ("a.*", ValueError),
        (">", ValueError),
        (3, TypeError),
    ):
        with pytest.raises(error, match="c: prefix"):
            prefix_of("c", prefix)  # type: ignore[arg-type]
