"""Advisories: which subjects each kind has, and that what stands in one is read or refused, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import advisories
from trionats._protocol.jetstream.advisories import checked_kinds, patterns, read
from trionats._protocol.subjects import matches
from trionats.advisories import Advisory, Replica

KINDS = [getattr(advisories, name) for name in advisories.__all__ if name not in ("Advisory", "Replica")]
TIME = datetime(2026, 11, 29, 12, 30, 1, 123456, UTC)
BASE = {"id": "I", "timestamp": "2026-11-29T12:30:01.123456789Z", "domain": "hub"}
REPLICAS = [
    {"name": "n2", "current": True, "active": 1_500_000_000, "lag": 3, "peer": "x"},
    {"name": "n3", "offline": True},
]
READ_REPLICAS = (Replica(name="n2", current=True, active=1.5, lag=3), Replica(name="n3", offline=True))
CLIENT = {"acc": "A", "user": "u"}

#: As the server writes one of each kind, and what it is read as.
EXAMPLES: list[tuple[str, dict[str, Any], type[Advisory], dict[str, Any]]] = [
    (
        "ADVISORY.API",
        {
            "type": "advisory.v1.api_audit",
            "server": "n1",
            "client": CLIENT,
            "subject": "$JS.API.STREAM.CREATE.S",
            "request": "{}",
            "response": "{}",
        },
        advisories.ApiAudit,
        {"server": "n1", "client": CLIENT, "api_subject": "$JS.API.STREAM.CREATE.S", "request": "{}", "response": "{}"},
    ),
    (
        "ADVISORY.API.LIMIT_REACHED",
        {"type": "advisory.v1.api_limit_reached", "server": "n1", "dropped": 7},
        advisories.ApiLimitReached,
        {"server": "n1", "dropped": 7},
    ),
    (
        "ADVISORY.STREAM.CREATED.S",
        {"type": "advisory.v1.stream_action", "stream": "S", "action": "create"},
        advisories.StreamAction,
        {"stream": "S", "action": "create"},
    ),
    (
        "ADVISORY.STREAM.LEADER_ELECTED.S",
        {
            "type": "advisory.v1.stream_leader_elected",
            "account": "A",
            "stream": "S",
            "leader": "n1",
            "replicas": REPLICAS,
        },
        advisories.StreamLeaderElected,
        {"account": "A", "stream": "S", "leader": "n1", "replicas": READ_REPLICAS},
    ),
    (
        "ADVISORY.STREAM.QUORUM_LOST.S",
        {"type": "advisory.v1.stream_quorum_lost", "stream": "S", "replicas": None},
        advisories.StreamQuorumLost,
        {"account": "", "stream": "S", "replicas": None},
    ),
    (
        "ADVISORY.STREAM.BATCH_ABANDONED.S",
        {"type": "advisory.v1.stream_batch_abandoned", "stream": "S", "batch": "b", "reason": "timeout"},
        advisories.StreamBatchAbandoned,
        {"stream": "S", "batch": "b", "reason": "timeout"},
    ),
    (
        "ADVISORY.STREAM.SNAPSHOT_CREATE.S",
        {"type": "advisory.v1.snapshot_create", "stream": "S", "state": {"messages": 3}, "client": CLIENT},
        advisories.SnapshotCreate,
        {"stream": "S", "state": {"messages": 3}, "client": CLIENT},
    ),
    (
        "ADVISORY.STREAM.SNAPSHOT_COMPLETE.S",
        {
            "type": "advisory.v1.snapshot_complete",
            "stream": "S",
            "start": BASE["timestamp"],
            "end": BASE["timestamp"],
            "error": "no",
        },
        advisories.SnapshotComplete,
        {"stream": "S", "start": TIME, "end": TIME, "error": "no"},
    ),
    (
        "ADVISORY.STREAM.RESTORE_CREATE.S",
        {"type": "advisory.v1.restore_create", "stream": "S", "client": CLIENT},
        advisories.RestoreCreate,
        {"stream": "S", "client": CLIENT},
    ),
    (
        "ADVISORY.STREAM.RESTORE_COMPLETE.S",
        {
            "type": "advisory.v1.restore_complete",
            "stream": "S",
            "start": BASE["timestamp"],
            "end": BASE["timestamp"],
            "bytes": 9,
        },
        advisories.RestoreComplete,
        {"stream": "S", "start": TIME, "end": TIME, "bytes": 9},
    ),
    (
        "ADVISORY.CONSUMER.CREATED.S.C",
        {"type": "advisory.v1.consumer_action", "stream": "S", "consumer": "C", "action": "create"},
        advisories.ConsumerAction,
        {"stream": "S", "consumer": "C", "action": "create"},
    ),
    (
        "ADVISORY.CONSUMER.PAUSE.S.C",
        {
            "type": "advisory.v1.consumer_pause",
            "stream": "S",
            "consumer": "C",
            "paused": False,
            "pause_until": "0001-01-01T00:00:00Z",
        },
        advisories.ConsumerPause,
        {"stream": "S", "consumer": "C", "paused": False, "pause_until": None},
    ),
    (
        "ADVISORY.CONSUMER.LEADER_ELECTED.S.C",
        {
            "type": "advisory.v1.consumer_leader_elected",
            "stream": "S",
            "consumer": "C",
            "leader": "n1",
            "replicas": REPLICAS,
        },
        advisories.ConsumerLeaderElected,
        {"stream": "S", "consumer": "C", "leader": "n1", "replicas": READ_REPLICAS},
    ),
    (
        "ADVISORY.CONSUMER.QUORUM_LOST.S.C",
        {"type": "advisory.v1.consumer_quorum_lost", "stream": "S", "consumer": "C", "replicas": []},
        advisories.ConsumerQuorumLost,
        {"stream": "S", "consumer": "C", "replicas": ()},
    ),
    (
        "ADVISORY.CONSUMER.PINNED.S.C",
        {"type": "advisory.v1.consumer_group_pinned", "stream": "S", "consumer": "C", "group": "g", "pinned_id": "p"},
        advisories.ConsumerGroupPinned,
        {"stream": "S", "consumer": "C", "group": "g", "pinned_id": "p"},
    ),
    (
        "ADVISORY.CONSUMER.UNPINNED.S.C",
        {
            "type": "advisory.v1.consumer_group_unpinned",
            "stream": "S",
            "consumer": "C",
            "group": "g",
            "reason": "admin",
        },
        advisories.ConsumerGroupUnpinned,
        {"stream": "S", "consumer": "C", "group": "g", "reason": "admin"},
    ),
    (
        "ADVISORY.CONSUMER.MAX_DELIVERIES.S.C",
        {"type": "advisory.v1.max_deliver", "stream": "S", "consumer": "C", "stream_seq": 4, "deliveries": 2},
        advisories.MaxDeliver,
        {"stream": "S", "consumer": "C", "stream_seq": 4, "deliveries": 2},
    ),
    (
        "ADVISORY.CONSUMER.MSG_NAKED.S.C",
        {
            "type": "advisory.v1.nak",
            "stream": "S",
            "consumer": "C",
            "consumer_seq": 1,
            "stream_seq": 4,
            "deliveries": 2,
        },
        advisories.Nak,
        {"stream": "S", "consumer": "C", "consumer_seq": 1, "stream_seq": 4, "deliveries": 2},
    ),
    (
        "ADVISORY.CONSUMER.MSG_TERMINATED.S.C",
        {
            "type": "advisory.v1.terminated",
            "stream": "S",
            "consumer": "C",
            "consumer_seq": 1,
            "stream_seq": 4,
            "reason": "bad",
        },
        advisories.Terminated,
        {"stream": "S", "consumer": "C", "consumer_seq": 1, "stream_seq": 4, "deliveries": 0, "reason": "bad"},
    ),
    (
        "METRIC.CONSUMER.ACK.S.C",
        {
            "type": "metric.v1.consumer_ack",
            "stream": "S",
            "consumer": "C",
            "consumer_seq": 1,
            "stream_seq": 4,
            "ack_time": 2_500_000,
            "deliveries": 1,
        },
        advisories.ConsumerAck,
        {"stream": "S", "consumer": "C", "consumer_seq": 1, "stream_seq": 4, "ack_time": 0.0025, "deliveries": 1},
    ),
    (
        "ADVISORY.DOMAIN.LEADER_ELECTED",
        {"type": "advisory.v1.domain_leader_elected", "leader": "n1", "replicas": REPLICAS, "cluster": "c"},
        advisories.DomainLeaderElected,
        {"leader": "n1", "replicas": READ_REPLICAS, "cluster": "c"},
    ),
    (
        "ADVISORY.SERVER.OUT_OF_STORAGE",
        {"type": "advisory.v1.server_out_of_space", "server": "n1", "server_id": "N", "stream": "S", "cluster": "c"},
        advisories.ServerOutOfSpace,
        {"server": "n1", "server_id": "N", "stream": "S", "cluster": "c"},
    ),
    (
        "ADVISORY.SERVER.REMOVED",
        {"type": "advisory.v1.server_removed", "server": "n1", "server_id": "N", "cluster": "c"},
        advisories.ServerRemoved,
        {"server": "n1", "server_id": "N", "cluster": "c"},
    ),
    (
        "ADVISORY.SERVER.META_RESCUE",
        {"type": "advisory.v1.meta_rescue", "server": "n1", "prev_quorum": 3, "new_quorum": 1, "cluster": "c"},
        advisories.MetaRescue,
        {"server": "n1", "prev_quorum": 3, "new_quorum": 1, "cluster": "c"},
    ),
]
each_example = pytest.mark.parametrize(
    ("subject", "said", "kind", "expected"), EXAMPLES, ids=[kind.__name__ for _, _, kind, _ in EXAMPLES]
)


def as_told(said: dict[str, Any]) -> dict[str, Any]:
    return {**said, **BASE, "type": f"io.nats.jetstream.{said['type']}"}


def test_there_is_an_example_of_each_kind() -> None:
    assert sorted((kind for _, _, kind, _ in EXAMPLES), key=repr) == sorted(KINDS, key=repr)


@each_example
def test_each_kind_is_read(subject: str, said: dict[str, Any], kind: type[Advisory], expected: dict[str, Any]) -> None:
    told = as_told(said)
    advisory = read(f"$JS.EVENT.{subject}", json.dumps(told).encode())
    assert type(advisory) is kind
    known = {name: getattr(advisory, name) for name in expected}
    assert known == expected
    assert (advisory.type, advisory.id, advisory.time, advisory.domain) == (told["type"], "I", TIME, "hub")
    assert (advisory.subject, advisory.raw) == (f"$JS.EVENT.{subject}", told)


@each_example
def test_each_kind_is_asked_for_by_its_own_subjects(
    subject: str, said: dict[str, Any], kind: type[Advisory], expected: dict[str, Any]
) -> None:
    assert any(matches(pattern, f"e.{subject}") for pattern in patterns("e", [kind]))
    others = [other for other in KINDS if other is not kind]
    assert not any(matches(pattern, f"e.{subject}") for pattern in patterns("e", others))


@each_example
def test_what_is_missing_or_of_another_kind_is_refused(
    subject: str, said: dict[str, Any], kind: type[Advisory], expected: dict[str, Any]
) -> None:
    for field in dataclasses.fields(kind):
        if (
            field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
            and field.name != "subject"
        ):
            wire = "subject" if field.name == "api_subject" else field.name
            without = {name: value for name, value in as_told(said).items() if name != wire}
            with pytest.raises((TypeError, ValueError)):
                read("s", json.dumps(without).encode())
    for name in said:
        if name != "type":
            with pytest.raises((TypeError, ValueError, AttributeError)):
                read(
                    "s",
                    json.dumps({**as_told(said), name: {"a": 1} if name != "client" else [1]} | nothing(name)).encode(),
                )


def nothing(name: str) -> dict[str, Any]:
    # An object is what a state is.
    return {"state": 1} if name == "state" else {}


def test_a_kind_that_is_not_known_is_kept_as_it_is() -> None:
    for named in ({"type": "io.nats.jetstream.advisory.v9.new"}, {"type": "something else"}, {}):
        said = {**named, "id": "I", "news": [1]}
        advisory = read("$JS.EVENT.ADVISORY.NEW", json.dumps(said).encode())
        assert type(advisory) is Advisory
        assert (advisory.type, advisory.raw, advisory.time) == (named.get("type", ""), said, None)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"1", b"null", b'{"id": 1}', b'{"timestamp": "soon"}', b'{"domain": []}']
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises((TypeError, ValueError)):
        read("s", data)


@given(
    st.sampled_from(EXAMPLES), st.dictionaries(st.text(max_size=8), st.recursive(st.integers() | st.text(), st.lists))
)
def test_what_a_newer_server_adds_changes_nothing(example: Any, added: dict[str, Any]) -> None:  # noqa: ANN401
    subject, said, kind, expected = example
    advisory = read(subject, json.dumps({**added, **as_told(said)}).encode())
    assert type(advisory) is kind
    assert {name: getattr(advisory, name) for name in expected} == expected


def test_kinds_are_classes_of_advisories() -> None:
    assert checked_kinds([]) == (Advisory,)
    assert checked_kinds([advisories.Nak, advisories.Nak]) == (advisories.Nak,)
    for wrong in (
        "nak",
        int,
        advisories.Nak(subject="s", stream="S", consumer="C", consumer_seq=1, stream_seq=1),
        Replica,
    ):
        with pytest.raises(TypeError, match=r"open_advisories\(\): a kind must be a class of trionats\.advisories"):
            checked_kinds([wrong])


def test_all_kinds_are_two_subjects_and_nothing_is_subscribed_twice() -> None:
    assert patterns("$JS.EVENT", [Advisory]) == ["$JS.EVENT.ADVISORY.>", "$JS.EVENT.METRIC.>"]
    assert patterns("$JS.EVENT", [Advisory, advisories.Nak]) == ["$JS.EVENT.ADVISORY.>", "$JS.EVENT.METRIC.>"]
    assert patterns("e", [advisories.ApiAudit]) == ["e.ADVISORY.API"]
