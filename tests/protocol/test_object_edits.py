"""What may be said of an object that is there already, what may be a link, and who has data that two names lead to."""

from __future__ import annotations

import base64
import json
from typing import Any

import nats.js.api as nats_api
import pytest

from trionats import api, errors
from trionats._protocol.jetstream.objects import editing, links
from trionats._protocol.jetstream.objects.places import SHARES, Place, read_place
from trionats._protocol.jetstream.objects.writing import Limits, info_bytes, marker

HERE, THERE = "$O.b.M.bg==", "$O.b.M.bQ=="
OPTIONS = api.ObjectMetaOptions(max_chunk_size=7, extra={"shape": "round"})
SAID: dict[str, Any] = {"description": "d", "headers": {"A": ["1"]}, "metadata": {"a": "b"}}


def info(name: str = "n", nuid: str = "N1", **fields: Any) -> api.ObjectInfo:  # noqa: ANN401 - any field
    return api.ObjectInfo(name, "b", nuid, **{"size": 5, "chunks": 1, "digest": "SHA-256=abc", **fields})


def place(subject: str = HERE, revision: int = 7, said: api.ObjectInfo | None = None) -> Place:
    found = info() if said is None else said
    return Place(subject, revision, found, nuid=found.nuid)


def edited(meta: Any, **fields: Any) -> api.ObjectInfo:  # noqa: ANN401
    return editing.edit("n", "b", meta).of(info(**fields))


def test_what_is_said_takes_the_place_of_what_was_said_and_the_data_stays() -> None:
    before = info(**SAID, options=OPTIONS, extra={"colour": "red"})
    new = editing.edit("n", "b", api.ObjectMeta(description="e", headers={"B": "2"})).of(before)
    written = json.loads(info_bytes(new))
    assert (new.description, new.headers, new.metadata) == ("e", {"B": ["2"]}, None)
    kept = ("name", "nuid", "size", "chunks", "digest", "colour", "options")
    assert {key: written[key] for key in kept} == {key: json.loads(info_bytes(before))[key] for key in kept}
    assert new.extra is not before.extra


def test_what_nats_pys_class_has_no_word_for_stays() -> None:
    new = edited(nats_api.ObjectMeta(name="n", description="e"), **SAID)
    assert (new.description, new.headers, new.metadata) == ("e", None, {"a": "b"})
    assert edited(nats_api.ObjectMeta(name="m"), **SAID).name == "m"


def test_what_was_read_can_be_changed_in_part_and_given_back() -> None:
    before = info(**SAID, options=OPTIONS)
    meta = before.meta
    meta.description = "e"
    new = editing.edit("n", "b", meta).of(before)
    assert (new.name, new.description, new.headers, new.metadata) == ("n", "e", {"A": ["1"]}, {"a": "b"})
    assert new.options == OPTIONS


LINK = api.ObjectLink(bucket="b", name="m")


@pytest.mark.parametrize(
    ("wanted", "there", "complaint"),
    [
        (None, OPTIONS, None),
        (api.ObjectMetaOptions(), None, None),
        (nats_api.ObjectMetaOptions(max_chunk_size=7), OPTIONS, None),
        (OPTIONS, OPTIONS, None),
        (api.ObjectMetaOptions(link=api.ObjectLink("b", "m")), api.ObjectMetaOptions(link=LINK), None),
        (
            api.ObjectMetaOptions(max_chunk_size=8),
            OPTIONS,
            "its chunk size cannot be changed: max_chunk_size is 7, not 8",
        ),
        (api.ObjectMetaOptions(max_chunk_size=8), None, "max_chunk_size is None, not 8"),
        (
            api.ObjectMetaOptions(link=LINK),
            OPTIONS,
            r"what it is a link to cannot be changed: options\.link is None, not",
        ),
        (api.ObjectMetaOptions(link=LINK), api.ObjectMetaOptions(link=api.ObjectLink("c")), r"options\.link is .*'c'"),
        (api.ObjectMetaOptions(extra={"a": 1}), OPTIONS, r"its options cannot be changed: options\.extra"),
        ({"max_chunk_size": 7}, OPTIONS, "its options must be ObjectMetaOptions, not dict"),
    ],
)
def test_options_cannot_be_changed_and_the_error_names_them(wanted: Any, there: Any, complaint: str | None) -> None:  # noqa: ANN401
    meta = api.ObjectMeta(options=wanted)
    if complaint is None:
        assert edited(meta, options=there).options == there
        return
    with pytest.raises(errors.BadObjectMetaError, match=f"object 'n' in bucket 'b': .*{complaint}"):
        edited(meta, options=there)


@pytest.mark.parametrize("meta", [None, "n", {"name": "n"}])
def test_what_is_no_meta_is_refused(meta: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="object 'n': meta must be an ObjectMeta, not"):
        editing.edit("n", "b", meta)


# -- two names of one object -----------------------------------------------------------------------------------------------


def shared(subject: str, other: str, nuid: str = "N1", **fields: Any) -> Place:  # noqa: ANN401
    return place(subject, said=info(nuid=nuid, extra={SHARES: other}, **fields))


@pytest.mark.parametrize(
    ("said", "other"),
    [
        (THERE, THERE),
        (HERE, ""),
        (None, ""),
        (5, ""),
        ("$O.c.M.bQ==", ""),
        ("$O.b.M.>", ""),
        ("$O.b.M.", ""),
        ("bQ==", ""),
    ],
)
def test_the_other_place_is_one_of_the_same_bucket_or_none(said: object, other: str) -> None:
    assert place(said=info(extra={SHARES: said})).shared == other
    assert Place(HERE).shared == ""


def test_data_is_claimed_by_whoever_is_not_deleted() -> None:
    assert place().claim == "N1"
    assert place(said=info(deleted=True)).claim == ""
    assert Place(HERE, 7, problem=errors.BadObjectMetaError(), nuid="N1").claim == "N1"
    assert Place(HERE).claim == ""


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (Place(THERE), True),
        (place(THERE, said=info("m", "N2", deleted=True)), True),
        (place(THERE, said=info("m", "N2")), False),
        (Place(THERE, 7, problem=errors.BadObjectMetaError()), False),
        # The same data, and it says so: what a renaming left that was broken off.
        (shared(THERE, HERE), True),
        (shared(THERE, HERE, "N2"), False),
        (shared(THERE, "$O.b.M.eA=="), False),
        (place(THERE, said=info("m")), False),
    ],
)
def test_a_name_that_another_object_has_cannot_be_taken(target: Place, allowed: bool) -> None:
    if allowed:
        editing.check_target(target, place(), "m", "b")
        return
    with pytest.raises(errors.ObjectAlreadyExists, match="there is an object 'm' in bucket 'b' already"):
        editing.check_target(target, place(), "m", "b")


def test_each_of_two_names_says_where_the_other_one_is_and_a_marker_of_one_has_no_data() -> None:
    source, target = place(), Place(THERE)
    assert editing.announced(info(**SAID, extra={"colour": "red"}), target).extra == {"colour": "red", SHARES: THERE}
    assert editing.renamed(info(), source).extra == {SHARES: HERE}
    gone = editing.gone(info(**SAID), "N9", target)
    written = json.loads(info_bytes(gone))
    said = {"name": "n", "bucket": "b", "nuid": "N9", "size": 0, "chunks": 0, "digest": "", "deleted": True}
    assert written == {**said, SHARES: THERE}


@pytest.mark.parametrize("limit", [1 << 20, 500])
def test_a_marker_keeps_the_other_name_of_the_data(limit: int) -> None:
    long = info(description="x" * 1000, extra={SHARES: THERE})
    data = {"data": base64.b64encode(info_bytes(long)).decode(), "seq": 7, "time": ""}
    made = marker(read_place("b", "n", HERE, data), "n", "b", Limits(limit))
    assert (made.extra, made.description is None) == ({SHARES: THERE}, limit == 500)


# -- links -----------------------------------------------------------------------------------------------------------------


def test_a_link_holds_names_and_no_data() -> None:
    written = json.loads(info_bytes(links.object_link("l", "b", "N9", info("m"))))
    said = {"name": "l", "bucket": "b", "nuid": "N9", "size": 0, "chunks": 0, "deleted": False}
    assert written == {**said, "options": {"link": {"bucket": "b", "name": "m"}}}
    written = json.loads(info_bytes(links.bucket_link("l", "b", "N9", "c")))
    assert written == {**said, "options": {"link": {"bucket": "c"}}}


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (
            info("m", deleted=True),
            errors.BadObjectMetaError,
            "no links to what was deleted, and object 'm' in bucket 'b' was",
        ),
        (
            info("m", options=api.ObjectMetaOptions(link=LINK)),
            errors.BadObjectMetaError,
            "no links to links, and object 'm' in bucket 'b' is one",
        ),
        (info("l"), errors.BadObjectMetaError, "it cannot be a link to itself"),
        (info(""), errors.InvalidObjectNameError, "is empty"),
        ("m", TypeError, "link 'l' in bucket 'b': target must be an ObjectInfo, not str"),
    ],
)
def test_what_cannot_be_linked_to_is_refused(target: Any, error: type[Exception], text: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=text):
        links.object_link("l", "b", "N9", target)


@pytest.mark.parametrize(
    ("there", "allowed"),
    [
        (Place(HERE), True),
        (place(said=info(deleted=True)), True),
        (place(said=info(options=api.ObjectMetaOptions(link=LINK))), True),
        (place(said=info(options=api.ObjectMetaOptions(link=api.ObjectLink("c")))), True),
        (place(), False),
        (Place(HERE, 7, problem=errors.BadObjectMetaError()), False),
    ],
)
def test_a_link_replaces_links_and_what_was_deleted_and_no_object(there: Place, allowed: bool) -> None:
    if allowed:
        links.check_place(there, "n", "b")
        return
    with pytest.raises(errors.ObjectAlreadyExists, match="object 'n' in bucket 'b', and a link does not replace one"):
        links.check_place(there, "n", "b")
