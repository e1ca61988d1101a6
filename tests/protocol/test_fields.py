"""The checker of configurations: every field of every class, with everything that it cannot hold."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import types
import typing
from decimal import Decimal
from typing import Any

import pytest
from nats.js import api as nats_api

from trionats import api
from trionats._protocol import fields

CONFIGS = (
    nats_api.StreamConfig,
    nats_api.ConsumerConfig,
    nats_api.ObjectStoreConfig,
    nats_api.KeyValueConfig,
    api.ObjectStoreConfig,
    nats_api.Placement,
    nats_api.ExternalStream,
    nats_api.StreamConsumerSource,
    nats_api.StreamSource,
    nats_api.RePublish,
    nats_api.SubjectTransform,
    nats_api.StreamConsumerLimits,
)
#: One value of each kind, each of which is wrong for most fields.
SAMPLES: dict[str, Any] = {
    "text": "6",
    "bytes": b"6",
    "bool": True,
    "int": 6,
    "float": 6.5,
    "decimal": Decimal(6),
    "complex": 6j,
    "timedelta": datetime.timedelta(6),
    "datetime": datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC),
    "date": datetime.date(2026, 11, 28),
    "list of text": ["a"],
    "list of floats": [6.5],
    "list of lists": [["a"]],
    "list of None": [None],
    "list of dicts": [{"name": "a"}],
    "set": {"a"},
    "dict of text": {"a": "b"},
    "dict of ints": {"a": 1},
    "dict by ints": {1: "a"},
    "enum": api.StorageType.FILE,
    "class": api.Placement,
    "placement": api.Placement("c"),
    "object": object(),
}


def right(hint: Any) -> set[str]:  # noqa: ANN401
    """The names of the samples that a field may hold: written down by annotation, not by the checker's code."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set().union(*(right(one) for one in typing.get_args(hint)))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"text", "enum"} if hint is api.StorageType else {"text"}
    table: dict[Any, set[str]] = {
        str: {"text", "enum"},
        int: {"int"},
        float: {"int", "float"},
        bool: {"bool"},
        datetime.datetime: {"datetime", "text", "enum"},
        list[str]: {"list of text"},
        typing.List[str]: {"list of text"},  # noqa: UP006
        typing.List[float]: {"list of floats"},  # noqa: UP006
        typing.Dict[str, str]: {"dict of text"},  # noqa: UP006
        dict[str, str]: {"dict of text"},
        api.Placement: {"placement"},
    }
    return table.get(hint, set())


FIELDS = [(kind, field.name) for kind in CONFIGS for field in dataclasses.fields(kind)]


def made(kind: type, **given: object) -> Any:  # noqa: ANN401
    required = {f.name: "x" for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    return kind(**{**required, **given})


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{k.__module__[:4]}.{k.__name__}.{n}" for k, n in FIELDS])
def test_each_field_takes_what_its_annotation_says_and_nothing_else(kind: type, name: str) -> None:
    fitting = right(typing.get_type_hints(kind)[name])
    for sample, value in SAMPLES.items():
        config = made(kind, **{name: value})
        if sample in fitting:
            fields.check(config)
            continue
        with pytest.raises(TypeError, match=f"^{kind.__name__}.{name}.* must be ") as caught:
            fields.check(config)
        assert len(str(caught.value)) < 150, "the text names the kind of the value, not the value"


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{k.__module__[:4]}.{k.__name__}.{n}" for k, n in FIELDS])
def test_none_is_for_fields_that_can_be_left_out(kind: type, name: str) -> None:
    config = made(kind, **{name: None})
    if next(f for f in dataclasses.fields(kind) if f.name == name).default is dataclasses.MISSING:
        with pytest.raises(TypeError, match=f"{kind.__name__}.{name} must be text, not None"):
            fields.check(config)
    else:
        fields.check(config)


DURATIONS = [(kind, name) for kind, name in FIELDS if right(typing.get_type_hints(kind)[name]) == {"int", "float"}]
DURATIONS_MEASURED = {"max_age", "duplicate_window", "subject_delete_marker_ttl", "ack_wait", "ttl", "limit_marker_ttl"}


def test_the_durations_are_known() -> None:
    assert {name for _, name in DURATIONS} == DURATIONS_MEASURED | {"inactive_threshold", "idle_heartbeat"}


@pytest.mark.parametrize(("kind", "name"), DURATIONS)
def test_a_duration_is_one(kind: type, name: str) -> None:
    for good in (0, 0.1, 1, 1e6, 10**9, 9_223_372_036):
        fields.check(made(kind, **{name: good}))
    for bad in (math.inf, -math.inf, math.nan, 1e300, 10**10, -(10**10), 10**5000):
        with pytest.raises(
            ValueError, match=rf"{kind.__name__}\.{name} must be a number of seconds, at most 9223372036$"
        ):
            fields.check(made(kind, **{name: bad}))
    if name in DURATIONS_MEASURED:
        with pytest.raises(ValueError, match=rf"{kind.__name__}\.{name} is -1.5: a number of seconds is not negative"):
            fields.check(made(kind, **{name: -1.5}))
    else:
        fields.check(made(kind, **{name: -1.5}))


def test_whole_numbers_fit_into_the_wire() -> None:
    for good in (-1, 0, -(2**63), 2**64 - 1):
        fields.check(api.StreamConfig(first_seq=good))
    for bad in (2**64, -(2**63) - 1, 10**5000):
        with pytest.raises(ValueError, match=r"StreamConfig\.max_msgs must fit into 64 bits"):
            fields.check(api.StreamConfig(max_msgs=bad))


def test_what_stands_in_a_field_is_checked_too_and_named() -> None:
    inner = api.StreamSource("s", external=api.ExternalStream(5))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^StreamConfig\.sources\[1\]\.external\.api must be text, not int$"):
        fields.check(api.StreamConfig(sources=[api.StreamSource("a"), inner]))
    with pytest.raises(TypeError, match=r"^StreamConfig\.metadata\['k'\] must be text, not int$"):
        fields.check(api.StreamConfig(metadata={"k": 1}))  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"^StreamConfig\.metadata has a key that must be text, not int$"):
        fields.check(api.StreamConfig(metadata={1: "v"}))  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"^ConsumerConfig\.backoff\[1\] is -1: "):
        fields.check(api.ConsumerConfig(backoff=[1, -1]))
    with pytest.raises(TypeError, match=r"^StreamConfig\.placement must be a Placement, not dict$"):
        fields.check(api.StreamConfig(placement={"cluster": "c"}))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^StreamConfig\.placement must be a Placement, not the class Placement$"):
        fields.check(api.StreamConfig(placement=api.Placement))  # type: ignore[arg-type]


def test_sequences_may_be_tuples_and_policies_text_even_unknown_ones() -> None:
    fields.check(api.StreamConfig(subjects=("a", "b"), retention="limits", sources=(api.StreamSource("a"),)))  # type: ignore[arg-type]
    fields.check(api.StreamConfig(retention="what a newer server knows"))  # type: ignore[arg-type]


def test_a_configuration_is_merged_into_one_of_its_own() -> None:
    given = api.StreamConfig(name="a", subjects=["s"])
    result = fields.merged("add_stream", api.StreamConfig, given, {"max_age": 5})
    assert (result.name, result.subjects, result.max_age, given.max_age) == ("a", ["s"], 5, None)
    assert fields.merged("add_stream", api.StreamConfig, None, {}) == api.StreamConfig()


@pytest.mark.parametrize("config", [{"name": "a"}, "a", 5, api.StreamConfig, api.ConsumerConfig()])
def test_what_is_no_configuration_is_none(config: object) -> None:
    with pytest.raises(TypeError, match=r"^add_stream: config must be a StreamConfig, not "):
        fields.merged("add_stream", api.StreamConfig, config, {})


def test_an_unknown_field_is_named_with_the_one_that_may_be_meant() -> None:
    for name, text in (
        ("max_ages", r"^add_stream\(\) has no option 'max_ages': did you mean 'max_age'\?$"),
        ("foo", r"^add_stream\(\) has no option 'foo'$"),
        ("timeout", r"^add_stream\(\) has no option 'timeout': deadlines are cancel scopes"),
    ):
        with pytest.raises(TypeError, match=text):
            fields.merged("add_stream", api.StreamConfig, None, {name: 1})


def test_an_argument_is_checked_like_a_field() -> None:
    fields.check_argument("purge_stream", "seq", int | None, None)
    with pytest.raises(TypeError, match=r"^purge_stream: seq must be a whole number, not str$"):
        fields.check_argument("purge_stream", "seq", int | None, "5")


def test_an_answer_may_hold_what_a_configuration_may_not() -> None:
    """The server tells what was stored, by whomever: a negative duration is no reason not to read it."""
    state = api.StreamState(0, 0, 0, 0, 0)
    assert fields.complaint(api.StreamInfo(api.StreamConfig(max_age=-1.0), state)) is None
    assert fields.complaint(api.StreamInfo(api.StreamConfig(max_age=(2**63 - 1) / 10**9), state)) is None
    assert fields.complaint(api.StreamInfo(api.StreamConfig(max_age=math.nan), state)) is not None
    info = api.StreamInfo(api.StreamConfig(max_age="6"), state)  # type: ignore[arg-type]
    assert fields.complaint(info) == "config.max_age must be a number of seconds, not str"
    assert fields.complaint(api.StreamInfo(api.StreamConfig(), None)) == "state must be a StreamState, not None"  # type: ignore[arg-type]
    pause = api.ConsumerPause(True, pause_remaining=5)  # type: ignore[arg-type]
    assert fields.complaint(pause) is None
    assert fields.complaint(api.RawStreamMsg(headers={"a": 1}, data=b"x", hdrs="bm8=")) is None  # type: ignore[arg-type]
    assert fields.complaint(api.RawStreamMsg(headers=[])) == "headers must be a dict, not list"  # type: ignore[arg-type]
    source = api.StreamSourceInfo("a", error={"code": object()})
    assert fields.complaint(source) is None


def test_all_classes_of_the_api_can_be_checked() -> None:
    for name in api.__all__:
        kind = getattr(api, name)
        if dataclasses.is_dataclass(kind):
            fields.complaint(made(kind))  # type: ignore[arg-type]
