"""What buckets are as streams: which are some, what their configurations say, and where a mirror's messages come from."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from nats.js import api as nats_api

from trionats import api, errors
from trionats._protocol.jetstream.buckets.configs import asked, duplicate_window, unlike, updated
from trionats._protocol.jetstream.buckets.kinds import KEY_VALUE, OBJECTS, Kind
from trionats._protocol.jetstream.buckets.origins import Origin, held_under, origin_of, written_under
from trionats._protocol.jetstream.kv import configs as key_values
from trionats._protocol.jetstream.objects import configs as object_stores

API = "$JS.API"
HUB = api.ExternalStream("$JS.hub.API")
#: What the server makes of a bucket that was asked for with nothing but a name.
PLAIN: dict[str, Any] = {
    "name": "KV_b",
    "subjects": ["$KV.b.>"],
    "max_msgs_per_subject": 1,
    "max_msg_size": -1,
    "max_bytes": -1,
    "max_age": 0,
    "duplicate_window": 120 * 10**9,
    "storage": "file",
    "num_replicas": 1,
    "discard": "new",
    "compression": "none",
    "allow_direct": True,
    "allow_rollup_hdrs": True,
    "deny_delete": True,
    "mirror_direct": False,
    "metadata": {"_nats.level": "5", "_nats.ver": "2.15.1"},
    "surprise": {"of": "a newer server"},
}


def there(**fields: object) -> api.StreamConfig:
    """What the server says of a bucket's stream."""
    return api.StreamConfig.from_response({**copy.deepcopy(PLAIN), **fields})


def key_value(**fields: Any) -> api.KeyValueConfig:  # noqa: ANN401 - any field
    return key_values.configuration("call", None, {"bucket": "b", **fields})


def stream(**fields: Any) -> dict[str, object]:  # noqa: ANN401 - any field
    """What the stream of a bucket is asked to be."""
    return key_values.stream_of(key_value(**fields)).as_dict()


# -- what a configuration says of the stream ---------------------------------------------------------------------------


def test_a_bucket_says_of_its_stream_what_other_clients_say() -> None:
    assert stream() == {
        "name": "KV_b",
        "subjects": ["$KV.b.>"],
        "max_msgs_per_subject": 1,
        "max_msg_size": -1,
        "max_bytes": -1,
        "max_age": 0,
        "duplicate_window": 120 * 10**9,
        "storage": "file",
        "num_replicas": 1,
        "discard": "new",
        "compression": "none",
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        **{field: value for field, value in api.StreamConfig().as_dict().items() if field not in PLAIN},
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"description": "d"}, {"description": "d"}),
        ({"max_value_size": 1024}, {"max_msg_size": 1024}),
        ({"max_value_size": 0}, {"max_msg_size": -1}),
        ({"history": 64}, {"max_msgs_per_subject": 64}),
        ({"ttl": 0.1}, {"max_age": 10**8, "duplicate_window": 10**8}),
        ({"ttl": 3600}, {"max_age": 3600 * 10**9, "duplicate_window": 120 * 10**9}),
        ({"ttl": 0}, {"max_age": 0, "duplicate_window": 120 * 10**9}),
        ({"max_bytes": 10**6}, {"max_bytes": 10**6}),
        ({"max_bytes": 0}, {"max_bytes": -1}),
        ({"storage": api.StorageType.MEMORY}, {"storage": "memory"}),
        ({"storage": "memory"}, {"storage": "memory"}),
        ({"replicas": 3}, {"num_replicas": 3}),
        ({"placement": api.Placement("c", ["t"])}, {"placement": {"cluster": "c", "tags": ["t"]}}),
        ({"republish": api.RePublish(">", "r.>")}, {"republish": {"src": ">", "dest": "r.>"}}),
        ({"compression": True}, {"compression": "s2"}),
        ({"compression": False}, {"compression": "none"}),
        ({"compression": api.StoreCompression.S2}, {"compression": "s2"}),
        ({"compression": "s2"}, {"compression": "s2"}),
        ({"metadata": {"a": "b"}}, {"metadata": {"a": "b"}}),
        ({"direct": False}, {"allow_direct": False}),
        ({"direct": True}, {"allow_direct": True}),
        ({"limit_marker_ttl": 5}, {"allow_msg_ttl": True, "subject_delete_marker_ttl": 5 * 10**9}),
        (
            {"mirror": api.StreamSource("o")},
            {"mirror": {"name": "KV_o"}, "mirror_direct": True, "subjects": None, "duplicate_window": None},
        ),
        (
            {"mirror": api.StreamSource("KV_o", external=HUB)},
            {"mirror": {"name": "KV_o", "external": {"api": "$JS.hub.API"}}, "mirror_direct": True},
        ),
    ],
    ids=str,
)
def test_each_field_of_a_bucket_is_one_of_its_stream(fields: dict[str, Any], said: dict[str, object]) -> None:
    made = stream(**fields)
    assert {name: made.get(name) for name in said} == said
    assert set(said) | set(stream()) >= set(made)


def transforms(*pairs: str) -> list[dict[str, str]]:
    return [{"src": src, "dest": dest} for src, dest in (pair.split() for pair in pairs)]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (api.StreamSource("o"), {"name": "KV_o", "subject_transforms": transforms("$KV.o.> $KV.b.>")}),
        (api.StreamSource("KV_o"), {"name": "KV_o", "subject_transforms": transforms("$KV.o.> $KV.b.>")}),
        (
            nats_api.StreamSource("o", filter_subject="$KV.o.a.*.*.>"),
            {
                "name": "KV_o",
                "subject_transforms": transforms("$KV.o.a.*.*.> $KV.b.a.{{wildcard(1)}}.{{wildcard(2)}}.>"),
            },
        ),
        (
            api.StreamSource("o", filter_subject="$KV.o.k"),
            {"name": "KV_o", "subject_transforms": transforms("$KV.o.k $KV.b.k")},
        ),
        (api.StreamSource("o", filter_subject="x.>"), {"name": "KV_o", "filter_subject": "x.>"}),
        (
            api.StreamSource("o", subject_transforms=[api.SubjectTransform("$KV.o.>", "$KV.b.o.>")]),
            {"name": "KV_o", "subject_transforms": transforms("$KV.o.> $KV.b.o.>")},
        ),
        (api.StreamSource("b", external=HUB), {"name": "KV_b", "external": {"api": "$JS.hub.API"}}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_a_bucket_collects_gets_keys_of_its_own_unless_somebody_said_which(
    source: api.StreamSource, said: dict[str, object]
) -> None:
    before = copy.deepcopy(source)
    assert stream(sources=[source])["sources"] == [said]
    assert source == before, "it is the program's"
    assert stream(sources=[source])["subjects"] == ["$KV.b.>"]


def test_an_object_store_says_of_its_stream_what_other_clients_say() -> None:
    wanted = object_stores.configuration("call", "b", api.ObjectStoreConfig(ttl=60), {"compression": True})
    said = object_stores.stream_of(wanted).as_dict()
    expected = {
        "name": "OBJ_b",
        "subjects": ["$O.b.C.>", "$O.b.M.>"],
        "discard": "new",
        "storage": "file",
        "max_age": 60 * 10**9,
        "max_bytes": -1,
        "num_replicas": 1,
        "compression": "s2",
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }
    assert {name: said[name] for name in expected} == expected
    assert object_stores.configuration("call", None, api.ObjectStoreConfig("c"), {}).bucket == "c"


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"history": 65}, ValueError, r"call: history is 65: it is from 1 to 64"),
    ({"history": 0}, ValueError, r"call: history is 0: it is from 1 to 64"),
    ({"history": "5"}, TypeError, r"KeyValueConfig\.history must be a whole number, not str"),
    ({"max_value_size": -2}, ValueError, r"call: max_value_size is -2: it is from -1 to 2147483647"),
    ({"max_value_size": 2**31}, ValueError, r"call: max_value_size is 2147483648: it is from -1 to 2147483647"),
    ({"max_bytes": -2}, ValueError, r"call: max_bytes is -2: it is from -1 to 9223372036854775807"),
    ({"max_bytes": 1 << 63}, ValueError, r"call: max_bytes is 9223372036854775808: it is from"),
    ({"ttl": 0.05}, ValueError, r"call: ttl is 0\.05: values live for 0\.1 s at the least"),
    ({"ttl": -1}, ValueError, r"KeyValueConfig\.ttl is -1"),
    ({"replicas": 0}, ValueError, r"call: replicas is 0: it is from 1 to 5"),
    ({"replicas": 6}, ValueError, r"call: replicas is 6: it is from 1 to 5"),
    ({"limit_marker_ttl": 0}, ValueError, r"call: limit_marker_ttl is 0: it is a whole number of seconds, at least 1"),
    ({"limit_marker_ttl": 1.5}, ValueError, r"call: limit_marker_ttl is 1\.5: it is a whole number of seconds"),
    (
        {"limit_marker_ttl": 5, "mirror": api.StreamSource("o")},
        ValueError,
        r"call: either mirror or limit_marker_ttl, not both",
    ),
    (
        {"mirror": api.StreamSource("o"), "sources": [api.StreamSource("o")]},
        ValueError,
        r"call: either mirror or sources, not both",
    ),
    ({"mirror": api.StreamSource("a.b")}, errors.InvalidBucketNameError, r"bucket 'a\.b'"),
    ({"sources": [api.StreamSource("")]}, errors.InvalidBucketNameError, r"bucket ''"),
    (
        {"mirror": api.StreamSource("o", external=api.ExternalStream("a b"))},
        ValueError,
        r"call: mirror\.external\.api: .*'a b'",
    ),
    (
        {"sources": [api.StreamSource("o"), api.StreamSource("o", external=api.ExternalStream("a.*"))]},
        ValueError,
        r"call: sources\[1\]\.external\.api: ",
    ),
    ({"mirror": "o"}, TypeError, r"KeyValueConfig\.mirror must be a StreamSource, not str"),
    ({"bucket": "a.b"}, errors.InvalidBucketNameError, r"bucket 'a\.b'"),
    ({"bucket": "x" * 252}, errors.InvalidBucketNameError, r"a name has at most 251 letters"),
    ({"bucket": None}, TypeError, r"KeyValueConfig\.bucket must be text, not None"),
    ({"colour": 1}, TypeError, r"call\(\) has no option 'colour'"),
    ({"timeout": 1}, TypeError, r"deadlines are cancel scopes"),
]


@pytest.mark.parametrize(("fields", "kind", "text"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_a_bucket_cannot_be_is_refused_by_its_field(
    fields: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        key_value(**fields)


def test_a_bucket_without_a_name_is_refused() -> None:
    with pytest.raises(errors.InvalidBucketNameError):
        key_values.configuration("call", None, {})
    with pytest.raises(errors.InvalidBucketNameError):
        object_stores.configuration("call", None, None, {})
    wrong: Any = {}
    with pytest.raises(TypeError, match="call: config must be a KeyValueConfig, not dict"):
        key_values.configuration("call", wrong, {"bucket": "b"})


# -- which streams are buckets -----------------------------------------------------------------------------------------

MIRROR = {"subjects": None, "mirror": {"name": "KV_o"}}
OBJECT_STREAM = {"name": "OBJ_b", "subjects": ["$O.b.C.>", "$O.b.M.>"], "max_msgs_per_subject": -1}


@pytest.mark.parametrize(
    ("kind", "fields", "bucket", "complaint"),
    [
        (KEY_VALUE, {}, "b", None),
        (KEY_VALUE, {"subjects": ["$KV.b.a.>", "x"]}, "b", None),
        (KEY_VALUE, {"subjects": None, "sources": [{"name": "KV_o"}]}, "b", None),
        (KEY_VALUE, MIRROR, "b", None),
        (KEY_VALUE, {**MIRROR, "max_msgs_per_subject": -1}, "b", None),
        (
            KEY_VALUE,
            {**MIRROR, "mirror": {"name": "ORDERS"}},
            None,
            r"it mirrors stream 'ORDERS', which is no key-value",
        ),
        (KEY_VALUE, {"subjects": ["orders.>"]}, None, r"its subjects are \['orders\.>'\], and not \$KV\.b\.>"),
        (KEY_VALUE, {"subjects": None}, None, r"its subjects are \[\], and not \$KV\.b\.>"),
        (KEY_VALUE, {"max_msgs_per_subject": -1}, None, r"it has no limit for the history of a key"),
        (KEY_VALUE, {"max_msgs_per_subject": None}, None, r"no limit for the history"),
        (OBJECTS, OBJECT_STREAM, "b", None),
        (OBJECTS, {**OBJECT_STREAM, **MIRROR}, None, r"it mirrors stream 'KV_o', which is no object store's"),
        (OBJECTS, {**OBJECT_STREAM, "subjects": None, "mirror": {"name": "OBJ_o"}}, "b", None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_stream_of_a_buckets_name_is_one_if_it_holds_what_is_read_there(
    kind: Kind, fields: dict[str, Any], bucket: str | None, complaint: str | None
) -> None:
    config = there(**fields)
    assert kind.found_in(config) == bucket
    assert kind.title("b") == f"{kind.noun} 'b'"
    said = kind.complaint("b", config)
    if complaint is None:
        assert said is None
    else:
        with pytest.raises(ValueError, match=complaint):
            raise ValueError(said)


@pytest.mark.parametrize("name", ["ORDERS", "OBJ_b", "KV_", "KV_a.b", None, "b"])
def test_a_stream_of_another_name_is_no_bucket(name: str | None) -> None:
    assert KEY_VALUE.found_in(there(name=name)) is None


# -- where a mirror's messages come from -------------------------------------------------------------------------------


def mirror(name: str, external: str | None = None, *dests: str) -> api.StreamConfig:
    said: dict[str, object] = {"name": name}
    if external is not None:
        said["external"] = {"api": external, "deliver": ""}
    if dests:
        said["subject_transforms"] = [{"src": "$KV.o.>", "dest": dest} for dest in dests]
    return there(subjects=None, mirror=said)


@pytest.mark.parametrize(
    ("config", "prefix", "origin", "read", "written"),
    [
        (there(), API, None, "$KV.b.", "$KV.b."),
        (there(), "$JS.leaf.API", None, "$KV.b.", "$JS.leaf.API.$KV.b."),
        (there(), "from.a", None, "$KV.b.", "from.a.$KV.b."),
        (mirror("KV_o"), API, Origin(API, "KV_o", None), "$KV.o.", "$KV.o."),
        (
            mirror("KV_o"),
            "$JS.leaf.API",
            Origin("$JS.leaf.API", "KV_o", None),
            "$KV.o.",
            "$JS.leaf.API.$KV.o.",
        ),
        (mirror("KV_o", ""), API, Origin(API, "KV_o", None), "$KV.o.", "$KV.o."),
        (mirror("KV_o", "$JS.hub.API"), API, Origin("$JS.hub.API", "KV_o", "hub"), "$KV.o.", "$JS.hub.API.$KV.o."),
        (mirror("KV_b", "$JS.hub.API"), API, Origin("$JS.hub.API", "KV_b", "hub"), "$KV.b.", "$JS.hub.API.$KV.b."),
        (mirror("KV_o", "other.js"), API, Origin("other.js", "KV_o", ""), "$KV.o.", "other.js.$KV.o."),
        (mirror("KV_o", API), "$JS.leaf.API", Origin(API, "KV_o", ""), "$KV.o.", "$KV.o."),
        (mirror("KV_o", None, "$KV.b.>"), API, Origin(API, "KV_o", None), "$KV.b.", "$KV.o."),
        (mirror("KV_o", None, "$KV.o.a.>"), API, Origin(API, "KV_o", None), "$KV.o.", "$KV.o."),
        (mirror("KV_o", None, "$KV.b.>", "$KV.o.>"), API, Origin(API, "KV_o", None), "$KV.o.", "$KV.o."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mirror_is_read_under_its_origins_subjects_and_written_where_that_is(
    config: api.StreamConfig, prefix: str, origin: Origin | None, read: str, written: str
) -> None:
    assert origin_of(config, prefix) == origin
    assert held_under(KEY_VALUE, "b", config) == read
    assert written_under(KEY_VALUE, "b", config, prefix) == written


# -- what an update changes --------------------------------------------------------------------------------------------


def change(now: api.StreamConfig, **fields: Any) -> dict[str, object]:  # noqa: ANN401 - any field
    """What the server is told when these fields are changed by keyword."""
    said = key_values.said_of_stream(key_value(**fields))
    return updated("bucket 'b'", now, asked(said, fields)).as_dict()


@pytest.mark.parametrize(
    ("now", "fields", "said"),
    [
        ({}, {}, {}),
        ({}, {"description": "d"}, {"description": "d"}),
        ({}, {"history": 5}, {"max_msgs_per_subject": 5}),
        ({}, {"metadata": {"a": "b"}}, {"metadata": {"a": "b"}}),
        ({}, {"ttl": 5}, {"max_age": 5 * 10**9, "duplicate_window": 5 * 10**9}),
        ({}, {"ttl": 3600}, {"max_age": 3600 * 10**9}),
        (
            {"max_age": 5 * 10**9, "duplicate_window": 5 * 10**9},
            {"ttl": 3600},
            {"max_age": 3600 * 10**9, "duplicate_window": 120 * 10**9},
        ),
        ({"max_age": 5 * 10**9, "duplicate_window": 5 * 10**9}, {"ttl": 0}, {"max_age": 0, "duplicate_window": 120 * 10**9}),
        # Somebody chose it, and it still can be.
        ({"duplicate_window": 2 * 10**9}, {"ttl": 3600}, {"max_age": 3600 * 10**9}),
        ({"duplicate_window": 2 * 10**9}, {"ttl": 0}, {"max_age": 0}),
        ({"duplicate_window": 2 * 10**9}, {"ttl": 1}, {"max_age": 10**9, "duplicate_window": 10**9}),
        # A mirror has none.
        ({**MIRROR, "duplicate_window": 0}, {"ttl": 1}, {"max_age": 10**9}),
        ({}, {"limit_marker_ttl": 5}, {"subject_delete_marker_ttl": 5 * 10**9, "allow_msg_ttl": True}),
        ({"max_age": 123_456_789_012_345_678}, {"description": "d"}, {"description": "d"}),
        ({}, {"compression": True}, {"compression": "s2"}),
        ({}, {"direct": False}, {"allow_direct": False}),
        ({}, {"sources": [api.StreamSource("o")]}, {"sources": [
            {"name": "KV_o", "subject_transforms": transforms("$KV.o.> $KV.b.>")}
        ]}),
        (MIRROR, {"mirror": api.StreamSource("o"), "description": "d"}, {"description": "d"}),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_an_update_by_keywords_changes_just_these_and_loses_nothing(
    now: dict[str, Any], fields: dict[str, Any], said: dict[str, object]
) -> None:
    before = there(**now)
    assert change(before, **fields) == {**before.as_dict(), **said}
    assert before == there(**now)


def test_a_whole_configuration_says_all_that_a_bucket_can_say_and_keeps_the_rest() -> None:
    now = there(description="old", max_msgs_per_subject=5, allow_msg_ttl=True)
    told = updated("bucket 'b'", now, key_values.said_of_stream(key_value(ttl=60))).as_dict()
    expected = {"max_msgs_per_subject": 1, "max_age": 60 * 10**9, "allow_msg_ttl": True, "surprise": PLAIN["surprise"]}
    assert {name: told[name] for name in expected} == expected
    assert "description" not in told


@pytest.mark.parametrize(
    ("now", "fields", "text"),
    [
        ({"subject_delete_marker_ttl": 5 * 10**9}, {"limit_marker_ttl": None}, r"bucket 'b': limit_marker_ttl cannot be turned off again, and the bucket has 5 s"),
        ({}, {"mirror": api.StreamSource("o")}, r"bucket 'b': mirror cannot be changed"),
        (MIRROR, {"mirror": api.StreamSource("p")}, r"bucket 'b': mirror cannot be changed"),
        (MIRROR, {"mirror": None}, r"bucket 'b': mirror cannot be changed"),
        ({"sealed": True}, {"ttl": 5}, r"bucket 'b': ttl cannot be set: the bucket is sealed"),
    ],
)  # fmt: skip
def test_what_a_bucket_keeps_cannot_be_updated(now: dict[str, Any], fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        change(there(**now), **fields)


def test_the_duplicate_window_is_no_longer_than_what_it_looks_at() -> None:
    assert [duplicate_window(ttl) for ttl in (0, 0.1, 120, 3600)] == [120, 0.1, 120, 120]


# -- what is another configuration -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "now"),
    [
        ({}, {}),
        ({"description": ""}, {}),
        ({"metadata": {}}, {}),
        # nats-py always sets the first, and has no direct gets unless they are asked for.
        ({}, {"allow_msg_ttl": True, "allow_direct": False, "duplicate_window": 10**9}),
        ({"storage": "memory"}, {"storage": "memory"}),
        ({"compression": True}, {"compression": "s2"}),
        ({"metadata": {"a": "b"}}, {"metadata": {"a": "b", "_nats.level": "5"}}),
        ({"republish": api.RePublish(">", "r.>")}, {"republish": {"src": ">", "dest": "r.>", "headers_only": False}}),
        (
            {"mirror": api.StreamSource("o", external=HUB)},
            {"mirror": {"name": "KV_o", "external": {"api": "$JS.hub.API", "deliver": ""}}},
        ),
        (
            {"sources": [api.StreamSource("o")]},
            {"sources": [{"name": "KV_o", "subject_transforms": transforms("$KV.o.> $KV.b.>")}]},
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_the_server_or_another_client_adds_makes_no_other_bucket(
    fields: dict[str, Any], now: dict[str, Any]
) -> None:
    assert unlike(key_values.said_of_stream(key_value(**fields)), there(**now)) == []


@pytest.mark.parametrize(
    ("fields", "now", "names"),
    [
        ({"history": 5, "ttl": 60}, {}, ["ttl", "history"]),
        ({}, {"max_msg_size": 10, "num_replicas": 3, "storage": "memory"}, ["storage", "replicas", "max_value_size"]),
        ({}, {"subject_delete_marker_ttl": 10**9}, ["limit_marker_ttl"]),
        ({"direct": False}, {}, ["direct"]),
        ({"metadata": {"a": "b"}}, {"metadata": {"a": "c"}}, ["metadata"]),
        ({"placement": api.Placement("c")}, {}, ["placement"]),
        ({"mirror": api.StreamSource("o")}, {}, ["mirror"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_another_bucket_is_told_by_the_names_of_its_fields(
    fields: dict[str, Any], now: dict[str, Any], names: list[str]
) -> None:
    assert unlike(key_values.said_of_stream(key_value(**fields)), there(**now)) == names


# -- what is said of a bucket ------------------------------------------------------------------------------------------


def info(config: api.StreamConfig, **more: object) -> api.StreamInfo:
    state = {"messages": 3, "bytes": 99, "first_seq": 1, "last_seq": 3, "consumer_count": 0}
    said = api.StreamInfo.from_response({"config": PLAIN, "state": state, "created": "2026-11-29T09:00:00Z", **more})
    return replace(said, config=config)


def test_a_status_says_what_the_bucket_holds_and_is() -> None:
    rich = there(
        description="d",
        max_age=60 * 10**9,
        max_msgs_per_subject=5,
        max_msg_size=1024,
        max_bytes=10**6,
        storage="memory",
        num_replicas=3,
        compression="s2",
        sealed=True,
        subject_delete_marker_ttl=5 * 10**9,
        metadata={"a": "b", "_nats.level": "5"},
    )
    status = api.KeyValueStatus("b", info(rich))
    assert (status.bucket, status.values, status.bytes, status.history) == ("b", 3, 99, 5)
    assert (status.description, status.ttl, status.max_value_size, status.max_bytes) == ("d", 60, 1024, 10**6)
    assert (status.storage, status.replicas, status.compressed, status.sealed) == ("memory", 3, True, True)
    assert (status.limit_marker_ttl, status.marker_ttl, status.metadata, status.lag) == (5, 5, {"a": "b"}, None)
    assert api.ObjectStoreStatus("b", info(rich)).size == 99


def test_a_status_says_none_where_there_is_no_limit() -> None:
    status = api.KeyValueStatus("b", info(there()))
    assert (status.ttl, status.max_bytes, status.max_value_size, status.limit_marker_ttl) == (None, None, None, None)
    assert (status.replicas, status.compressed, status.sealed, status.metadata) == (1, False, False, {})
    assert api.KeyValueStatus("b", info(there(**MIRROR, max_msgs_per_subject=None))).history == -1


def test_a_status_says_how_far_behind_a_mirror_or_the_sources_are() -> None:
    one, other = {"name": "KV_o", "lag": 3, "active": 1}, {"name": "KV_p", "lag": 4, "active": 1}
    assert api.KeyValueStatus("b", info(there(), mirror=one)).lag == 3
    assert api.KeyValueStatus("b", info(there(), sources=[one, other])).lag == 7
