"""Partitioned consumer groups: who has which partitions, what is stored, and what is refused before it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import api, errors
from trionats._protocol.jetstream.partitions.assets import consumer_config, filters_of, queue_config, see_partitions
from trionats._protocol.jetstream.partitions.assignment import (
    destination,
    partition_filters,
    spread,
    without_partition,
)
from trionats._protocol.jetstream.partitions.groups import (
    Place,
    Stored,
    added,
    checked_members,
    dropped,
    read,
    unlike,
    wanted,
)

STATIC, ELASTIC = Place("S", "g", elastic=False), Place("S", "g", elastic=True)


def create(elastic: bool = True, max_members: int = 4, **given_: Any) -> Stored:  # noqa: ANN401 - any argument
    arguments = {
        "filters": (),
        "members": (),
        "mappings": None,
        "max_buffered_msgs": None,
        "max_buffered_bytes": None,
        **given_,
    }
    return wanted("create_group", ELASTIC if elastic else STATIC, max_members, **arguments)


# -- who has which partitions -------------------------------------------------------------------------------------------


# Figures of Go's orbit 0.2.2 (its own tests, the first three) and of natsio-pcgroups 0.1.1.
@pytest.mark.parametrize(
    ("members", "count", "assignment"),
    [
        (["m1", "m2", "m3"], 6, {"m1": (0, 1), "m2": (2, 3), "m3": (4, 5)}),
        (["m1", "m2", "m3"], 7, {"m1": (0, 1, 6), "m2": (2, 3), "m3": (4, 5)}),
        (["m1", "m2", "m3"], 8, {"m1": (0, 1, 6), "m2": (2, 3, 7), "m3": (4, 5)}),
        (["b", "a"], 5, {"a": (0, 1, 4), "b": (2, 3)}),
        (["b", "a", "b"], 3, {"a": (0, 2), "b": (1,)}),
        (["d", "c", "b", "a"], 3, {"a": (0,), "b": (1,), "c": (2,)}),
        (["one"], 4, {"one": (0, 1, 2, 3)}),
        (["a10", "a2", "B"], 10, {"B": (0, 1, 2, 9), "a10": (3, 4, 5), "a2": (6, 7, 8)}),
        (["é", "z", "Z"], 4, {"Z": (0, 3), "z": (1,), "é": (2,)}),
        ([], 3, {}),
    ],
)
def test_partitions_are_spread_as_other_clients_spread_them(
    members: list[str], count: int, assignment: dict[str, tuple[int, ...]]
) -> None:
    assert spread(members, count) == assignment


@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=9), st.integers(1, 40))
def test_each_partition_has_one_owner_and_no_member_has_two_more_than_another(members: list[str], count: int) -> None:
    assignment = spread(members, count)
    assert sorted(partition for held in assignment.values() for partition in held) == list(range(count))
    sizes = [len(held) for held in assignment.values()]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("partitions", "filters", "mapped", "expected"),
    [
        ((0, 6), ["foo.*.*.>"], False, ("0.foo.*.*.>", "6.foo.*.*.>")),
        ((1, 2), ["a", "b"], False, ("1.a", "2.a", "1.b", "2.b")),
        ((1, 2), [], False, ("1.>", "2.>")),
        # What is mapped by hand is read whole; natsio and Go ask for the same filter twice where there are two.
        ((1, 2), ["a", "b"], True, ("1.>", "2.>")),
        ((), ["a"], False, ()),
    ],
)
def test_a_member_reads_its_partitions_of_each_filter(
    partitions: tuple[int, ...], filters: list[str], mapped: bool, expected: tuple[str, ...]
) -> None:
    assert partition_filters(partitions, filters, mapped=mapped) == expected


@pytest.mark.parametrize(
    ("subject", "wildcards", "expected"),
    [
        ("foo.*.*.>", (1, 2), "{{Partition(4,1,2)}}.foo.{{Wildcard(1)}}.{{Wildcard(2)}}.>"),
        ("foo.*.*", (2,), "{{Partition(4,2)}}.foo.{{Wildcard(1)}}.{{Wildcard(2)}}"),
        ("foo.*", (), "{{Partition(4)}}.foo.{{Wildcard(1)}}"),
        (">", (), "{{Partition(4)}}.>"),
    ],
)
def test_the_partition_is_put_before_the_subject(subject: str, wildcards: tuple[int, ...], expected: str) -> None:
    assert destination(subject, wildcards, 4) == expected


def test_the_partition_is_taken_off_a_subject() -> None:
    assert without_partition("12.orders.eu") == "orders.eu"
    assert without_partition("alone") == "alone"


# -- names --------------------------------------------------------------------------------------------------------------


def test_names_are_those_of_other_clients() -> None:
    assert (STATIC.bucket, STATIC.key, STATIC.read_stream, STATIC.consumer("m")) == (
        "static-consumer-groups",
        "S.g",
        "S",
        "g-m",
    )
    assert (ELASTIC.bucket, ELASTIC.key, ELASTIC.read_stream, ELASTIC.consumer("m")) == (
        "elastic-consumer-groups",
        "S.g",
        "S-g",
        "m",
    )
    assert str(STATIC) == "static group 'g' of stream 'S'"
    assert Place.checked("f", "S", "g", elastic=False) == STATIC


@pytest.mark.parametrize(
    ("stream", "group", "elastic", "kind", "text"),
    [
        (7, "g", True, TypeError, "stream 7: it must be text, not int"),
        ("a.b", "g", True, ValueError, "stream 'a.b'"),
        ("é", "g", True, ValueError, "f: stream is 'é': letters, digits, '-', '_' and '=' can stand in its key"),
        ("S", "", True, ValueError, "f: group is '': letters"),
        ("S", "a.b", True, ValueError, "f: group is 'a.b': letters"),
        ("S", 7, True, TypeError, "f: group must be text, not int"),
        ("S", "g", 1, TypeError, "f: elastic must be True or False, not int"),
        ("S", "g" * 254, True, ValueError, "longer than 255 letters"),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    stream: Any,  # noqa: ANN401 - also what is none
    group: Any,  # noqa: ANN401
    elastic: Any,  # noqa: ANN401
    kind: type[Exception],
    text: str,
) -> None:
    with pytest.raises(kind) as caught:
        Place.checked("f", stream, group, elastic)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("member", "kind", "text"),
    [
        (7, TypeError, "f: member must be text, not int"),
        ("", ValueError, "f: member '': consumer '': it is empty"),
        ("a b", ValueError, "f: member 'a b': consumer 'g-a b': white space"),
        ("m" * 254, ValueError, "longer than 255 letters"),
    ],
)
def test_a_member_that_cannot_be_is_refused(member: Any, kind: type[Exception], text: str) -> None:  # noqa: ANN401
    with pytest.raises(kind) as caught:
        STATIC.check_member("f", member)
    assert text in str(caught.value)


def test_a_group_that_is_not_there_and_one_that_changed_say_which() -> None:
    missing, changed = STATIC.missing(), ELASTIC.changed("it exists")
    assert isinstance(missing, errors.GroupNotFoundError)
    assert isinstance(missing, errors.NotFoundError)
    assert (missing.stream, missing.group, missing.code) == ("S", "g", 404)
    assert str(missing) == "static group 'g' of stream 'S': not found"
    assert (changed.stream, changed.group, str(changed)) == ("S", "g", "elastic group 'g' of stream 'S': it exists")


# -- what is given ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "kind", "text"),
    [
        ({"max_members": "4"}, TypeError, "max_members must be a whole number, not str"),
        ({"max_members": 0}, ValueError, "max_members is 0: it must be from 1 to 65536"),
        ({"max_members": 65537}, ValueError, "max_members is 65537"),
        ({"max_buffered_msgs": 0}, ValueError, "max_buffered_msgs is 0: it must be 1 or more"),
        ({"max_buffered_bytes": 1.5}, TypeError, "max_buffered_bytes must be a whole number"),
        (
            {"elastic": False, "members": "m", "max_buffered_msgs": 5},
            ValueError,
            "max_buffered_msgs is for elastic groups",
        ),
        ({"filters": 7}, TypeError, "filters must be a subject, or several, not int"),
        ({"filters": b"a"}, TypeError, "filters must be a subject, or several, not bytes"),
        ({"filters": ["a..b"]}, ValueError, "filters: subscribe to 'a..b'"),
        ({"filters": "a.b"}, ValueError, "filters: 'a.b': a filter that makes partitions has a * or ends in >"),
        ({"filters": {"a.*": [2]}}, ValueError, "filters: 'a.*': its wildcards are numbered from 1 to 1"),
        ({"filters": {"a.*": [1, 1]}}, ValueError, "filters: 'a.*': a wildcard is named twice"),
        ({"filters": {"a.>": [1]}}, ValueError, "filters: 'a.>': it has no * to be named"),
        ({"filters": {"a.*": ["1"]}}, TypeError, "filters['a.*'][0] must be a whole number, not str"),
        ({"filters": ["a.*", "a.>"]}, ValueError, "filters: one of them matches all that another one does"),
        ({"filters": ["a.*", "a.*"]}, ValueError, "filters: one of them matches all that another one does"),
        ({"elastic": False, "members": "m", "filters": {"a.*": [1]}}, ValueError, "filters: a static group reads"),
        ({"elastic": False}, ValueError, "a static group keeps the members that it is given here"),
        ({"members": "m", "mappings": {"m": [0, 1, 2, 3]}}, ValueError, "members and mappings exclude each other"),
        ({"members": 7}, TypeError, "members must be a name, or several, not int"),
        ({"members": ["a", ""]}, ValueError, "members '': consumer '': it is empty"),
        ({"members": ["v", "w", "x", "y", "z"]}, ValueError, "members: 1 more than there are partitions (4)"),
        ({"mappings": ["m"]}, TypeError, "mappings must give partitions for each member, not be list"),
        ({"mappings": {"m": 1}}, TypeError, "mappings['m'] must be a list, not int"),
        ({"mappings": {"m": [0, 1, 2]}}, ValueError, "mappings: every partition must be given to somebody; 1 are not"),
        ({"mappings": {"m": [0, 1, 2, 4]}}, ValueError, "mappings: partitions are numbered from 0 to 3"),
        ({"mappings": {"m": [0, 1], "n": [1, 2, 3]}}, ValueError, "mappings: a partition is given to two"),
        ({"max_members": 1, "mappings": {"m": [0], "n": []}}, ValueError, "mappings: 1 more members than there are"),
    ],
)
def test_a_group_that_cannot_be_is_refused_by_the_name_of_the_argument(
    given_: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        create(**given_)
    assert str(caught.value).startswith("create_group: ")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("given_", "stored"),
    [
        ({}, {"max_members": 4, "partitioning_filters": None}),
        (
            {"filters": {"a.*.*": [2], "b.>": []}, "max_buffered_msgs": 5, "max_buffered_bytes": 6, "members": "m"},
            {
                "max_members": 4,
                "partitioning_filters": [
                    {"filter": "a.*.*", "partitioning_wildcards": [2]},
                    {"filter": "b.>", "partitioning_wildcards": []},
                ],
                "max_buffered_msg": 5,
                "max_buffered_bytes": 6,
                "members": ["m"],
            },
        ),
        ({"elastic": False, "members": ["n", "m", "n"]}, {"max_members": 4, "members": ["m", "n"]}),
        (
            {"elastic": False, "filters": "a.*", "mappings": {"n": [3, 0], "m": (1, 2)}},
            {
                "max_members": 4,
                "filters": ["a.*"],
                "member_mappings": [{"member": "n", "partitions": [3, 0]}, {"member": "m", "partitions": [1, 2]}],
            },
        ),
    ],
)
def test_what_is_stored_is_what_other_clients_store_and_is_read_again(
    given_: dict[str, Any], stored: dict[str, Any]
) -> None:
    made = create(**given_)
    assert json.loads(made.data) == stored
    assert read(ELASTIC if made.group.elastic else STATIC, made.data) == made


# -- what others have stored --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elastic", "fields", "text"),
    [
        (True, "[", "no JSON object"),
        (True, [], "no JSON object"),
        (True, {}, "its max_members must be from 1 to 65536"),
        (True, {"max_members": True}, "its max_members"),
        (True, {"max_members": 10**12}, "its max_members"),
        (True, {"max_members": 2, "members": "m"}, "its members must be a list of texts"),
        (True, {"max_members": 2, "members": [1]}, "its members must be a list of texts"),
        (False, {"max_members": 2, "filters": [1]}, "its filters must be a list of texts"),
        (True, {"max_members": 2, "member_mappings": 7}, "a list of objects with member and partitions"),
        (True, {"max_members": 2, "member_mappings": [{"member": "m", "partitions": ["0"]}]}, "a list of objects"),
        (True, {"max_members": 2, "member_mappings": [{"member": "m", "partitions": [0]}]}, "every partition"),
        (
            True,
            {"max_members": 1, "member_mappings": [{"member": "m", "partitions": [0]}, {"member": "m"}]},
            "its member_mappings have 'm' twice",
        ),
        (
            True,
            {"max_members": 1, "members": ["m"], "member_mappings": [{"member": "m", "partitions": [0]}]},
            "it has both members and member_mappings",
        ),
        (
            True,
            {"max_members": 2, "partitioning_filters": [{"filter": "a"}]},
            "its partitioning_filters: 'a': a filter",
        ),
        (True, {"max_members": 2, "partitioning_filters": [7]}, "with filter and partitioning_wildcards"),
    ],
)
def test_what_is_no_configuration_is_told_so(elastic: bool, fields: object, text: str) -> None:
    data = fields.encode() if isinstance(fields, str) else json.dumps(fields).encode()
    with pytest.raises(ValueError, match=r"^its? ") as caught:
        read(ELASTIC if elastic else STATIC, data)
    assert text in str(caught.value)


def test_what_others_store_is_read_generously() -> None:
    stored = {
        "max_members": 2,
        "partitioning_filters": [{"filter": "a.*", "partitioning_wildcards": None}],
        "max_buffered_msg": -1,
        "members": ["z", "a", "z", "b"],
        "member_mappings": None,
        "newer": {"than": "this"},
    }
    group = read(ELASTIC, json.dumps(stored).encode()).group
    assert group.members == ("a", "b", "z")
    assert group.partitions == {"a": (0,), "b": (1,)}
    assert (group.filters, group.max_buffered_msgs) == ({"a.*": ()}, None)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["max_members", "members", "filters", "member_mappings", "member", "partitions", "partitioning_filters", "filter", "partitioning_wildcards"]), inner, max_size=4), max_leaves=12), st.booleans())  # fmt: skip
def test_whatever_is_stored_is_read_or_refused(fields: object, elastic: bool) -> None:
    try:
        group = read(ELASTIC if elastic else STATIC, json.dumps(fields).encode()).group
    except ValueError:
        return
    assert all(0 <= partition < group.max_members for held in group.partitions.values() for partition in held)


# -- members come and go ------------------------------------------------------------------------------------------------


def test_a_member_is_added_and_what_is_not_known_here_stays() -> None:
    before = read(ELASTIC, json.dumps({"max_members": 4, "members": ["b"], "newer": 1}).encode())
    after = added("add_members", ELASTIC, before, ("a", "b"))
    assert after.fields == {"max_members": 4, "members": ["a", "b"], "newer": 1}
    assert after.group.partitions == {"a": (0, 1), "b": (2, 3)}
    gone = dropped("drop_members", ELASTIC, after, ("a", "nobody"))
    assert gone == before
    assert dropped("drop_members", ELASTIC, gone, ("b",)).fields == {"max_members": 4, "newer": 1}


def test_adding_nobody_changes_nothing() -> None:
    before = create(mappings={"m": [0, 1, 2, 3]})
    assert added("add_members", ELASTIC, before, ()) is before


def test_partitions_given_by_hand_are_taken_from_who_has_them() -> None:
    before = create(mappings={"a": [0, 1], "b": [2, 3]})
    after = added("add_members", ELASTIC, before, {"c": (1, 2, 3)})
    assert after.group.partitions == {"a": (0,), "c": (1, 2, 3)}
    assert after.group.members == ("a", "c")
    mapped = added("add_members", ELASTIC, create(members=["x"]), {"c": (0, 1, 2, 3)})
    assert (mapped.group.mapped, mapped.group.members) == (True, ("c",))
    assert "members" not in mapped.fields


@pytest.mark.parametrize(
    ("before", "members", "text"),
    [
        (create(members=["a", "b", "c", "d"]), ("e",), "members: 1 more than there are partitions (4)"),
        (create(members=["a"]), {"b": (0, 1)}, "members: every partition must be given to somebody; 2 are not"),
        (create(mappings={"a": [0, 1, 2, 3]}), ("b",), "members: partitions were chosen by hand"),
        (create(mappings={"a": [0, 1, 2, 3]}), {"b": (4,)}, "members: partitions are numbered from 0 to 3"),
    ],
)
def test_who_cannot_be_added_is_refused(before: Stored, members: Any, text: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="add_members") as caught:
        added("add_members", ELASTIC, before, members)
    assert text in str(caught.value)


def test_all_members_with_partitions_by_hand_are_dropped_or_none() -> None:
    before = create(mappings={"a": [0, 1], "b": [2, 3]})
    with pytest.raises(ValueError, match="give theirs to others first, or drop all members"):
        dropped("drop_members", ELASTIC, before, ("a",))
    after = dropped("drop_members", ELASTIC, before, ("a", "b"))
    assert (after.group.members, after.group.mapped) == ((), False)
    assert after.fields == {"max_members": 4, "partitioning_filters": None}


def test_members_are_checked_before_anything_is_asked() -> None:
    assert checked_members("f", ELASTIC, "a") == ("a",)
    assert checked_members("f", ELASTIC, {"a": [1]}) == {"a": (1,)}
    with pytest.raises(ValueError, match="members 'a b'"):
        checked_members("f", ELASTIC, {"a b": [1]})


# -- what can be another one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elastic", "other", "field"),
    [
        (True, {"members": ["x"]}, ""),
        (True, {"max_members": 5}, "max_members"),
        (True, {"filters": {"b.*": [1]}}, "filters"),
        (True, {"max_buffered_msgs": 7}, "max_buffered_msgs"),
        (True, {"max_buffered_bytes": 7}, "max_buffered_bytes"),
        (False, {"members": ["x"]}, "members"),
        (False, {"mappings": {"m": [0, 1, 2, 3]}}, "mapped"),
        (False, {"mappings": {"m": [3, 0, 1, 2]}}, "partitions"),
        (False, {"members": ["m"]}, ""),
    ],
)
def test_what_cannot_be_changed_is_named(elastic: bool, other: dict[str, Any], field: str) -> None:
    usual: dict[str, Any] = {"elastic": elastic, **({"filters": {"a.*": [1]}} if elastic else {})}
    membership = {} if {"members", "mappings"} & set(other) else {"members": ["m"]}
    one, two = create(members=["m"], **usual), create(**{**usual, **membership, **other})
    assert unlike(one.group, two.group) == field


# -- what the server holds ----------------------------------------------------------------------------------------------


def test_the_work_queue_takes_over_what_the_filters_say() -> None:
    source = api.StreamConfig(name="S", storage=api.StorageType.MEMORY, num_replicas=3)
    group = create(filters={"a.*": [1], "b.>": []}, max_buffered_msgs=10).group
    config = queue_config(ELASTIC, group, source).as_dict()
    assert config["sources"] == [
        {
            "name": "S",
            "subject_transforms": [
                {"src": "a.*", "dest": "{{Partition(4,1)}}.a.{{Wildcard(1)}}"},
                {"src": "b.>", "dest": "{{Partition(4)}}.b.>"},
            ],
        }
    ]
    assert {name: config[name] for name in ("name", "retention", "storage", "num_replicas", "max_msgs", "discard")} == {
        "name": "S-g",
        "retention": "workqueue",
        "storage": "memory",
        "num_replicas": 3,
        "max_msgs": 10,
        "discard": "new",
    }
    everything = queue_config(ELASTIC, create().group, source)
    assert everything.sources is not None
    assert everything.sources[0].subject_transforms == [api.SubjectTransform(">", "{{Partition(4)}}.>")]


@pytest.mark.parametrize(
    "stream",
    [
        {
            "subjects": ["orders.*"],
            "subject_transform": api.SubjectTransform("orders.*", "{{Partition(4,1)}}.{{Wildcard(1)}}"),
        },
        {"subjects": ["orders.*", "3.orders.*"]},
        {"subjects": ["*.orders"]},
        {"subjects": [">"]},
        {"mirror": api.StreamSource(name="T")},
        {"subjects": ["orders.*"], "sources": [api.StreamSource(name="T")]},
    ],
)
def test_a_stream_whose_subjects_may_begin_with_a_partition_has_static_groups(stream: dict[str, Any]) -> None:
    see_partitions(STATIC, api.StreamConfig(name="S", **stream))
    assert queue_config(ELASTIC, create().group, api.StreamConfig(name="S", **stream)).name == "S-g"


def test_a_static_group_that_could_never_read_anything_is_refused() -> None:
    for subjects in (["orders.*"], ["S"], ["orders.>", "returns.1"]):
        with pytest.raises(
            ValueError, match=r"static group 'g' of stream 'S': no subject .* partition: .*elastic=True"
        ):
            see_partitions(STATIC, api.StreamConfig(name="S", subjects=subjects))


def test_a_member_has_one_pinned_consumer_that_gives_one_message_at_a_time() -> None:
    filters = filters_of(create(elastic=False, members=["m", "n"], filters="a.*").group, "n")
    assert filters == ("2.a.*", "3.a.*")
    static, elastic = (consumer_config(place, "n", filters).as_dict() for place in (STATIC, ELASTIC))
    assert (static.get("durable_name"), static.get("name"), static.get("inactive_threshold")) == ("g-n", None, None)
    assert (elastic.get("durable_name"), elastic.get("name")) == (None, "n")
    assert elastic["inactive_threshold"] == 5_000_000_000
    for config in (static, elastic):
        assert config["filter_subjects"] == ["2.a.*", "3.a.*"]
        assert (config["priority_groups"], config["priority_policy"]) == (["PCG"], "pinned_client")
        assert (config["ack_policy"], config["max_ack_pending"]) == ("explicit", 1)
        assert config["ack_wait"] == config["priority_timeout"] == 5_000_000_000


def test_who_is_no_member_reads_nothing() -> None:
    assert filters_of(create(members=["m"]).group, "n") == ()
