"""The checker of configurations: every field of every class, with everything that it cannot hold."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import re
import types
import typing
from decimal import Decimal
from typing import Any

import pytest
from nats.js import api as nats_api

from trionats import api
from trionats._protocol import fields

OF_NATS_PY = """StreamConfig ConsumerConfig ObjectStoreConfig KeyValueConfig Placement ExternalStream
    StreamConsumerSource StreamSource RePublish SubjectTransform StreamConsumerLimits"""
CONFIGS: list[type] = [
    api.ObjectStoreConfig,
    *(getattr(module, name) for name in OF_NATS_PY.split() for module in (nats_api, api) if hasattr(module, name)),
]
#: One value of each kind, each of which is wrong for most fields.
SAMPLES: dict[str, Any] = {
    "None": None,
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
    "placement of nats-py": nats_api.Placement("c"),
    "object": object(),
}


def right(hint: Any) -> set[str]:  # noqa: ANN401
    """The names of the samples that a field may hold: written down by annotation, not by the checker's code."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set().union(*(right(one) for one in typing.get_args(hint)))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"text", "enum"} if hint is api.StorageType else {"text"}
    if isinstance(hint, type) and issubclass(hint, nats_api.Placement):
        return {"placement", "placement of nats-py"}
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
        list[float]: {"list of floats"},
        dict[str, Any]: {"dict of text", "dict of ints"},
    }
    return table.get(hint, set())


FIELDS = [(kind, field.name) for kind in CONFIGS for field in dataclasses.fields(kind)]


def made(kind: type, **given: object) -> Any:  # noqa: ANN401
    missing = dataclasses.MISSING
    required = {f.name: "x" for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing}
    return kind(**{**required, **given})


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{k.__module__[:4]}.{k.__name__}.{n}" for k, n in FIELDS])
def test_each_field_takes_what_its_annotation_says_and_nothing_else(kind: type, name: str) -> None:
    fitting = right(typing.get_type_hints(kind)[name])
    (field,) = (one for one in dataclasses.fields(kind) if one.name == name)
    if field.default is not dataclasses.MISSING:  # it can be left out
        fitting.add("None")
    for sample, value in SAMPLES.items():
        config = made(kind, **{name: value})
        if sample in fitting:
            fields.check(config)
            continue
        with pytest.raises(TypeError, match=f"^{kind.__name__}.{name}.* must be ") as caught:
            fields.check(config)
        assert len(str(caught.value)) < 150, "the text names the kind of the value, not the value"
        assert sample != "None" or re.search(f"{name} must be (text|a dict), not None$", str(caught.value))


DURATIONS = [(kind, name) for kind, name in FIELDS if right(typing.get_type_hints(kind)[name]) == {"int", "float"}]
MEASURED = {"max_age", "duplicate_window", "subject_delete_marker_ttl", "ack_wait", "ttl", "limit_marker_ttl"}
MEASURED |= {"max_expires", "priority_timeout"}


@pytest.mark.parametrize(("kind", "name"), DURATIONS)
def test_a_duration_is_one(kind: type, name: str) -> None:
    assert {name for _, name in DURATIONS} == {*MEASURED, "inactive_threshold", "idle_heartbeat"}
    said = rf"{kind.__name__}\.{name}"
    for good in (0, 0.1, 1, 1e6, 10**9, 9_223_372_036):
        fields.check(made(kind, **{name: good}))
    for bad in (math.inf, -math.inf, math.nan, 1e300, 10**10, -(10**10), 10**5000):
        with pytest.raises(ValueError, match=rf"{said} must be a number of seconds, at most 9223372036$"):
            fields.check(made(kind, **{name: bad}))
    negative = made(kind, **{name: -1.5})
    if name not in MEASURED:
        fields.check(negative)
        return
    with pytest.raises(ValueError, match=rf"{said} is -1.5: a number of seconds is not negative"):
        fields.check(negative)


def test_whole_numbers_fit_into_the_wire() -> None:
    for good in (-1, 0, -(2**63), 2**64 - 1):
        fields.check(api.StreamConfig(first_seq=good))
    for bad in (2**64, -(2**63) - 1, 10**5000):
        with pytest.raises(ValueError, match=r"StreamConfig\.max_msgs must fit into 64 bits"):
            fields.check(api.StreamConfig(max_msgs=bad))


WRONG_INSIDE: dict[str, dict[str, Any]] = {
    ".sources[1].external.api must be text, not int": {
        "sources": [api.StreamSource("a"), made(api.StreamSource, external=made(api.ExternalStream, api=5))]
    },
    ".metadata['k'] must be text, not int": {"metadata": {"k": 1}},
    ".metadata has a key that must be text, not int": {"metadata": {1: "v"}},
    ".placement must be a Placement, not dict": {"placement": {"cluster": "c"}},
    ".placement must be a Placement, not the class Placement": {"placement": api.Placement},
}


@pytest.mark.parametrize("said", WRONG_INSIDE)
def test_what_stands_in_a_field_is_checked_too_and_named(said: str) -> None:
    with pytest.raises(TypeError, match=f"^StreamConfig{re.escape(said)}$"):
        fields.check(api.StreamConfig(**WRONG_INSIDE[said]))
    with pytest.raises(ValueError, match=r"^ConsumerConfig\.backoff\[1\] is -1: "):
        fields.check(api.ConsumerConfig(backoff=[1, -1]))


def test_sequences_may_be_tuples_and_policies_text_even_unknown_ones() -> None:
    fields.check(api.StreamConfig(subjects=("a", "b"), retention="limits", sources=(api.StreamSource("a"),)))  # type: ignore[arg-type]
    fields.check(api.StreamConfig(retention="what a newer server knows"))  # type: ignore[arg-type]


def test_a_configuration_is_merged_into_one_of_its_own() -> None:
    given = api.StreamConfig(name="a", subjects=["s"])
    result = fields.merged("add_stream", api.StreamConfig, given, {"max_age": 5})
    assert (result.name, result.subjects, result.max_age, given.max_age) == ("a", ["s"], 5, None)
    assert fields.merged("add_stream", api.StreamConfig, None, {}) == api.StreamConfig()


def test_a_configuration_of_nats_py_becomes_one_of_ours() -> None:
    given = nats_api.StreamConfig(name="a", max_age=1, placement=nats_api.Placement("c"))
    result = fields.merged("add_stream", api.StreamConfig, given, {"max_age": 5})
    assert type(result) is api.StreamConfig
    assert (result.name, result.max_age, given.max_age) == ("a", 5, 1)
    assert result.as_dict()["placement"] == {"cluster": "c"}


@pytest.mark.parametrize("config", [{"name": "a"}, "a", 5, api.StreamConfig, api.ConsumerConfig()])
def test_what_is_no_configuration_is_none(config: object) -> None:
    with pytest.raises(TypeError, match=r"^add_stream: config must be a StreamConfig, not "):
        fields.merged("add_stream", api.StreamConfig, config, {})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("max_ages", r"'max_ages': did you mean 'max_age'\?$"),
        ("foo", "'foo'$"),
        ("timeout", "'timeout': deadlines are cancel scopes"),
    ],
)
def test_an_unknown_field_is_named_with_the_one_that_may_be_meant(name: str, said: str) -> None:
    with pytest.raises(TypeError, match=rf"^add_stream\(\) has no option {said}"):
        fields.merged("add_stream", api.StreamConfig, None, {name: 1})


def test_an_argument_is_checked_like_a_field() -> None:
    fields.check_argument("purge_stream", "seq", int | None, None)
    with pytest.raises(TypeError, match=r"^purge_stream: seq must be a whole number, not str$"):
        fields.check_argument("purge_stream", "seq", int | None, "5")


def of_stream(**config: Any) -> api.StreamInfo:  # noqa: ANN401
    return api.StreamInfo(api.StreamConfig(**config), api.StreamState(0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (of_stream(max_age=-1.0), None),
        (of_stream(max_age=(2**63 - 1) / 10**9), None),
        (of_stream(max_age=math.nan), "config.max_age must be a number of seconds, at most 9223372036"),
        (of_stream(max_age="6"), "config.max_age must be a number of seconds, not str"),
        (made(api.StreamInfo, config=api.StreamConfig(), state=None), "state must be a StreamState, not None"),
        (made(api.ConsumerPause, paused=True, pause_remaining=5), None),
        (made(api.RawStreamMsg, headers={"a": 1}, data=b"x", hdrs="bm8="), None),
        (made(api.RawStreamMsg, headers=[]), "headers must be a dict, not list"),
        (made(api.StreamSourceInfo, name="a", error={"code": object()}), None),
    ],
)
def test_an_answer_may_hold_what_a_configuration_may_not(answer: Any, complaint: str | None) -> None:  # noqa: ANN401
    """The server tells what was stored, by whomever: a negative duration is no reason not to read it."""
    assert fields.complaint(answer) == complaint


@pytest.mark.parametrize(
    ("operation", "complaint"),
    [(None, None), ("DEL", None), ("PUT", "operation must be 'DEL' or 'PURGE', not 'PUT'"), (1, "operation must be")],
)
def test_one_of_a_few_texts_may_be_held(operation: Any, complaint: str | None) -> None:  # noqa: ANN401 - also a wrong one
    moment = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
    found = fields.complaint(api.KeyValueEntry("b", "k", b"", 1, moment, 0, operation))
    assert found is None if complaint is None else complaint in (found or "")


def test_all_classes_of_the_api_can_be_checked() -> None:
    for name in api.__all__:
        kind = getattr(api, name)
        if dataclasses.is_dataclass(kind):
            assert isinstance(fields.complaint(made(kind)), (str, type(None)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "bounds", "kind", "text"),
    [
        (0, {}, ValueError, "^serve: most is 0: it must be 1 or more$"),
        (4, {"most": 3}, ValueError, "^serve: most is 4: it must be from 1 to 3$"),
        (-1, {"least": 0}, ValueError, "^serve: most is -1: it must be 0 or more$"),
        (True, {}, TypeError, "^serve: most must be a whole number, not bool$"),
        (1.0, {}, TypeError, "^serve: most must be a whole number, not float$"),
        (None, {}, TypeError, "^serve: most must be a whole number, not None$"),
    ],
)
def test_a_number_of_things_that_cannot_be_is_refused(
    value: object, bounds: dict[str, int], kind: type[Exception], text: str
) -> None:
    fields.check_count("serve", "most", 1, **bounds)
    with pytest.raises(kind, match=text):
        fields.check_count("serve", "most", value, **bounds)
