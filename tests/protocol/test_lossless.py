"""Configurations and infos: read, changed, written back, and nothing else is different."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js import api as nats_api

from trionats import api

NAMES = st.text("abcdef_", min_size=1, max_size=8)
TEXTS = st.text(max_size=5)
NUMBERS = st.integers(-(2**63), 2**64 - 1)
DURATIONS = st.integers(-1, 2**63 - 1)
TIMES = st.builds(
    lambda time, digits: f"{time:%Y-%m-%dT%H:%M:%S}{'.' if digits else ''}{digits}Z",
    st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1)),
    st.text("0123456789", max_size=9),
)
#: What a newer server may say, in fields of names that none has.
UNKNOWN = st.dictionaries(
    NAMES.map(lambda name: f"new_{name}"),
    st.recursive(st.none() | st.booleans() | NUMBERS | TEXTS, lambda inner: st.lists(inner, max_size=2), max_leaves=3),
    max_size=2,
)


def made_of(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have some of these fields, a null here and there, and others that nobody knows."""
    optional = {name: value | st.none() for name, value in known.items()}
    return st.builds(lambda told, more: {**told, **more}, st.fixed_dictionaries({}, optional=optional), UNKNOWN)


def with_name(objects: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda told, name: {**told, "name": name}, objects, TEXTS)


TRANSFORM = UNKNOWN.map(lambda more: {"src": "a", "dest": "b", **more})
EXTERNAL = UNKNOWN.map(lambda more: {"api": "$JS.d.API", "deliver": "", **more})
SOURCE = with_name(
    made_of(
        opt_start_seq=NUMBERS,
        opt_start_time=TIMES,
        filter_subject=TEXTS,
        external=EXTERNAL,
        subject_transforms=st.lists(TRANSFORM, max_size=2),
        consumer=UNKNOWN.map(lambda more: {"name": "c", "deliver_subject": "d", **more}),
    )
)
STREAM = made_of(
    name=TEXTS,
    subjects=st.lists(TEXTS, max_size=2),
    retention=st.sampled_from(["limits", "workqueue", "a newer one"]),
    max_age=DURATIONS,
    duplicate_window=DURATIONS,
    subject_delete_marker_ttl=DURATIONS,
    discard=st.sampled_from(["old", "new"]),
    max_msgs=NUMBERS,
    max_msgs_per_subject=NUMBERS,
    no_ack=st.booleans(),
    sealed=st.booleans() | st.just(0),
    compression=st.sampled_from(["none", "s2", "a newer one"]),
    placement=made_of(cluster=TEXTS, tags=st.lists(TEXTS, max_size=2), preferred=TEXTS),
    mirror=SOURCE,
    sources=st.lists(SOURCE, max_size=2),
    republish=made_of(src=TEXTS, dest=TEXTS, headers_only=st.booleans()),
    subject_transform=TRANSFORM,
    consumer_limits=made_of(inactive_threshold=DURATIONS, max_ack_pending=NUMBERS),
    metadata=st.dictionaries(TEXTS, TEXTS, max_size=2),
    persist_mode=st.sampled_from(["default", "async"]),
    allow_msg_counter=st.booleans(),
)
CONSUMER = made_of(
    name=TEXTS,
    deliver_policy=st.sampled_from(["all", "new", "a newer one"]),
    opt_start_time=TIMES,
    pause_until=TIMES,
    ack_wait=DURATIONS,
    backoff=st.lists(DURATIONS, max_size=3),
    max_expires=DURATIONS,
    priority_groups=st.lists(TEXTS, max_size=2),
    priority_policy=st.sampled_from(["none", "overflow", "pinned_client", "prioritized", "a newer one"]),
    priority_timeout=DURATIONS,
    metadata=st.dictionaries(TEXTS, TEXTS, max_size=2),
)
CONFIGS = st.tuples(st.just(api.StreamConfig), STREAM) | st.tuples(st.just(api.ConsumerConfig), CONSUMER)


@given(CONFIGS)
def test_what_was_read_is_written_in_the_same_words(config: tuple[type[api.Whole], dict[str, Any]]) -> None:
    kind, raw = config
    before = copy.deepcopy(raw)
    read = kind.from_response(raw)
    assert json.dumps(read.as_dict(), sort_keys=True) == json.dumps(before, sort_keys=True)
    assert raw == before, "the response is as it was"
    assert kind.from_response(read.as_dict()) == read


@given(
    CONFIGS, st.sampled_from([dataclasses.replace, copy.deepcopy, copy.copy, lambda c: pickle.loads(pickle.dumps(c))])
)
def test_copies_are_written_in_the_same_words(
    config: tuple[type[api.Whole], dict[str, Any]], copied: Callable[[Any], Any]
) -> None:
    kind, raw = config
    assert copied(kind.from_response(raw)).as_dict() == raw


@given(STREAM)
def test_one_field_that_is_changed_is_the_only_difference(raw: dict[str, Any]) -> None:
    config = api.StreamConfig.from_response(raw)
    assert dataclasses.replace(config, max_bytes=5).as_dict() == {**raw, "max_bytes": 5}
    config.description = "changed in place"
    assert config.as_dict() == {**raw, "description": "changed in place"}


def test_what_is_changed_inside_is_written_as_it_is_now() -> None:
    raw = {
        "subjects": ["a"],
        "metadata": {"k": "v"},
        "sources": [{"name": "O", "opt_start_time": "2026-11-28T17:00:00.123456789Z"}],
    }
    config = api.StreamConfig.from_response(raw)
    assert config.subjects is not None
    assert config.metadata is not None
    assert config.sources is not None
    config.subjects.append("b")
    config.metadata["l"] = "w"
    config.sources[0].filter_subject = "f"
    assert raw["subjects"] == ["a"], "that is the response's"
    assert config.as_dict() == {
        "subjects": ["a", "b"],
        "metadata": {"k": "v", "l": "w"},
        "sources": [{"name": "O", "opt_start_time": "2026-11-28T17:00:00.123456789Z", "filter_subject": "f"}],
    }


def test_a_field_that_is_set_to_none_is_left_out() -> None:
    config = api.StreamConfig.from_response({"name": "S", "republish": {"src": "a", "dest": "b"}, "max_age": 5})
    config.republish = None
    assert config.as_dict() == {"name": "S", "max_age": 5}


def test_false_is_not_zero() -> None:
    config = api.StreamConfig.from_response({"max_msgs": 1, "sealed": 0})
    config.sealed = False
    config.max_msgs = True
    assert json.dumps(config.as_dict()) == '{"max_msgs": true, "sealed": false}'


def test_durations_and_times_of_a_new_configuration_are_exact() -> None:
    config = api.ConsumerConfig(ack_wait=0.29, backoff=[1, 1.1, 123456789.123], inactive_threshold=9_000_000_000)
    said = config.as_dict()
    assert (said["ack_wait"], said["inactive_threshold"]) == (290_000_000, 9_000_000_000 * 10**9)
    assert said["backoff"] == [1_000_000_000, 1_100_000_000, 123_456_789_123_000_000]
    assert api.ConsumerConfig(ack_wait=(2**63 - 1) / 10**9).as_dict()["ack_wait"] == 2**63 - 1
    assert api.ConsumerConfig(idle_heartbeat=-1.5).as_dict()["idle_heartbeat"] == -1_500_000_000
    naive = datetime(2026, 11, 28, 17, 0, 0, 5)
    there = datetime(2026, 11, 28, 18, tzinfo=timezone(timedelta(hours=1)))
    times = [api.ConsumerConfig(opt_start_time=time, pause_until=time).as_dict() for time in (naive, there)]
    assert [time["opt_start_time"] for time in times] == ["2026-11-28T17:00:00.000005Z", "2026-11-28T17:00:00Z"]
    assert [time["pause_until"] for time in times] == [time["opt_start_time"] for time in times]


@pytest.mark.parametrize(
    "written", ["2026-11-28T17:00:00Z", "2026-11-28T17:00:00.5Z", "2026-11-28T18:00:00.500000001+01:00"]
)
def test_each_form_of_a_time_is_read_as_utc(written: str) -> None:
    state = api.StreamState.from_response({**dict.fromkeys(STATE, 0), "first_ts": written})
    assert state.first_ts is not None
    assert (state.first_ts.tzinfo, state.first_ts.hour) == (UTC, 17)
    assert state.as_dict()["first_ts"] == written


STATE = ("messages", "bytes", "first_seq", "last_seq", "consumer_count")


def test_what_stands_inside_is_of_our_classes_all_the_way_down() -> None:
    source = {"name": "O", "external": {"api": "a", "x": 1}, "subject_transforms": [{"src": "a", "dest": "b"}]}
    source |= {"consumer": {"name": "c", "deliver_subject": "d"}}
    info = api.StreamInfo.from_response(
        {
            "config": {"sources": [source], "placement": {"preferred": "n1"}, "consumer_limits": {}, "republish": {}},
            "state": {**dict.fromkeys(STATE, 0), "lost": {"msgs": [1]}},
            "cluster": {"leader_since": "2026-11-28T17:00:00Z", "replicas": [{"peer": "p"}], "traffic_account": "A"},
            "sources": [source],
            "alternates": [{"name": "M", "cluster": "c", "domain": "d"}],
        }
    )
    assert info.config.sources is not None
    assert info.sources is not None
    assert info.cluster is not None
    inside: list[Any] = [
        info,
        info.config,
        info.state,
        info.cluster,
        info.config.placement,
        info.config.consumer_limits,
    ]
    inside += [
        info.config.sources[0],
        info.config.sources[0].external,
        info.config.sources[0].consumer,
        info.state.lost,
    ]
    inside += [
        info.config.republish,
        info.sources[0].external,
        *(info.alternates or ()),
        *(info.cluster.replicas or ()),
    ]
    assert [type(one).__module__ for one in inside] == ["trionats.api"] * len(inside)
    assert all(isinstance(one, api.Whole) for one in inside)
    external = info.config.sources[0].external
    assert external is not None
    assert external.extra == {"x": 1}
    assert (info.cluster.traffic_account, info.cluster.leader_since) == ("A", datetime(2026, 11, 28, 17, tzinfo=UTC))


def test_text_of_a_policy_is_its_member_and_a_newer_one_stays_text() -> None:
    config = api.ConsumerConfig.from_response({"ack_policy": "flow_control", "priority_policy": "a newer one"})
    assert config.ack_policy is api.AckPolicy.FLOW_CONTROL
    assert config.priority_policy == "a newer one"


def test_instances_of_nats_py_inside_are_written_too() -> None:
    limits: Any = nats_api.StreamConsumerLimits(inactive_threshold=2)
    config = api.StreamConfig("S", sources=[nats_api.StreamSource("O")], consumer_limits=limits)  # type: ignore[list-item]
    said = config.as_dict()
    assert (said["sources"], said["consumer_limits"]) == ([{"name": "O"}], {"inactive_threshold": 2_000_000_000})


def test_a_new_configuration_may_hold_what_only_a_newer_server_knows() -> None:
    assert api.Placement("c", extra={"room": 5}).as_dict() == {"cluster": "c", "room": 5}


def test_the_response_to_a_reset_is_an_info_with_one_field_more() -> None:
    raw = {"name": "c", "stream_name": "S", "created": "2026-11-28T17:00:00.123456789Z", "config": {"ack_wait": 7}}
    reset = api.ConsumerReset.from_response({**raw, "reset_seq": 9})
    assert (reset.reset_seq, reset.info.name, reset.as_dict()) == (9, "c", {**raw, "reset_seq": 9})


def test_a_domain_is_a_prefix() -> None:
    assert api.ExternalStream.in_domain("hub").as_dict() == {"api": "$JS.hub.API"}


def test_an_account_tells_its_tiers() -> None:
    limits = dict.fromkeys(("max_memory", "max_storage", "max_streams", "max_consumers", "max_ack_pending"), -1)
    limits |= {"memory_max_stream_bytes": -1, "storage_max_stream_bytes": -1, "max_bytes_required": False}
    used = {"memory": 1, "storage": 2, "reserved_storage": 7, "streams": 3, "consumers": 4, "limits": limits}
    raw = {
        **used,
        "api": {"level": 5, "total": 1, "errors": 0, "inflight": 2},
        "tiers": {"R1": used, "R3": {**used, "new": 1}},
    }
    info = api.AccountInfo.from_response(raw)
    assert info.tiers is not None
    assert (info.api.level, info.api.inflight, info.tiers["R1"].reserved_storage) == (5, 2, 7)
    assert (type(info.tiers["R3"]), info.tiers["R3"].extra, info.tiers["R3"].limits.max_streams) == (
        api.Tier,
        {"new": 1},
        -1,
    )
    assert info.as_dict() == raw
