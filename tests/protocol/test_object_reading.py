"""What an info promises of an object's data, and the way over links to the object."""

from __future__ import annotations

from typing import Any

import pytest

from trionats import api, errors
from trionats._protocol.jetstream.objects.links import MOST_LINKS, Way
from trionats._protocol.jetstream.objects.promises import Arrivals, Promise, promise_of

WHOLE: dict[str, Any] = {"name": "n", "bucket": "b", "nuid": "x", "size": 6, "chunks": 2, "digest": "SHA-256=abc"}


def link_to(bucket: str, name: str | None) -> api.ObjectInfo:
    options = api.ObjectMetaOptions(link=api.ObjectLink(bucket=bucket, name=name))
    return api.ObjectInfo("l", "b", "", options=options)


def test_an_info_promises_size_chunks_and_digest() -> None:
    assert promise_of(api.ObjectInfo(**WHOLE), "b") == Promise(6, 2, "SHA-256=abc")
    empty = api.ObjectInfo(**{**WHOLE, "size": 0, "chunks": 0})
    assert promise_of(empty, "b") == Promise(0, 0, "SHA-256=abc")


@pytest.mark.parametrize(
    ("size", "chunks", "credit", "fitting"),
    [
        (64 << 20, 512, 8 << 20, 63),
        (64 << 20, 64, 8 << 20, 7),
        (5 * (128 << 10) + 1, 6, 8 << 20, 76),
        (6, 2, 8 << 20, 32388),
        (0, 3, 1024, 4),
        (0, 0, 1024, 4),
        (64 << 20, 4, 8 << 20, 1),
        (6, 2, 1, 1),
    ],
)
def test_it_is_known_how_many_chunks_fit_into_a_credit(size: int, chunks: int, credit: int, fitting: int) -> None:
    assert Promise(size, chunks, "SHA-256=abc").chunks_in(credit) == fitting


@pytest.mark.parametrize("field", ["size", "chunks", "digest", "nuid"])
def test_an_info_that_leaves_out_what_could_be_kept_is_no_promise(field: str) -> None:
    info = api.ObjectInfo(**{**WHOLE, field: "" if field == "nuid" else None})
    with pytest.raises(errors.BadObjectMetaError, match="object 'n' in bucket 'b': its info names no size"):
        promise_of(info, "b")


@pytest.mark.parametrize(
    ("chunks", "missing", "complaint"),
    [
        ([], 2, "0 of 2 chunks with 0 of 6 bytes are there"),
        ([b"abc"], 1, "1 of 2 chunks with 3 of 6 bytes are there"),
        ([b"abc", b"def"], 0, None),
        ([b"abcdef", b""], 0, None),
        ([b"abc", b"de"], 0, "2 of 2 chunks with 5 of 6 bytes are there"),
        ([b"abc", b"defg"], 0, "2 of 2 chunks with 7 of 6 bytes are there"),
        ([b"ab", b"cd", b"ef"], 0, "3 of 2 chunks with 6 of 6 bytes are there"),
    ],
)
def test_what_has_come_is_all_or_too_little_or_too_much(
    chunks: list[bytes], missing: int, complaint: str | None
) -> None:
    arrived = Arrivals(promise_of(api.ObjectInfo(**WHOLE), "b"))
    for chunk in chunks:
        arrived.count([chunk])
    assert arrived.missing == missing
    if complaint is None:
        arrived.check("get")
        return
    with pytest.raises(errors.ObjectIncompleteError, match=f"^get: {complaint}$"):
        arrived.check("get")


def test_an_object_ends_the_way() -> None:
    way = Way("b", "n")
    assert way.follow(api.ObjectInfo(**WHOLE)) is None
    assert way.follow(api.ObjectInfo(**WHOLE, options=api.ObjectMetaOptions(max_chunk_size=5))) is None
    assert str(way) == "object 'n' in bucket 'b'"


def test_each_link_of_the_way_is_named() -> None:
    way = Way("b", "n")
    assert way.follow(link_to("c", "m")) == ("c", "m")
    assert way.follow(link_to("c", "o")) == ("c", "o")
    assert str(way) == "object 'n' in bucket 'b' -> link to 'm' in 'c' -> link to 'o' in 'c'"


@pytest.mark.parametrize("name", [None, ""])
def test_a_link_to_a_bucket_leads_to_no_data(name: str | None) -> None:
    way = Way("b", "n")
    way.follow(link_to("b", "m"))
    text = "object 'n' in bucket 'b' -> link to 'm' in 'b' is a link to bucket 'c', which has no data"
    with pytest.raises(errors.LinkIsABucketError, match=text):
        way.follow(link_to("c", name))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_is_an_error_that_names_it(length: int) -> None:
    way = Way("b", "0")
    for number in range(1, length):
        way.follow(link_to("b", str(number)))
    with pytest.raises(errors.BadObjectMetaError, match=r"'0' in bucket 'b': its links go round in a circle: .*'0'"):
        way.follow(link_to("b", "0"))


def test_a_way_that_does_not_end_is_given_up() -> None:
    way = Way("b", "0")
    for number in range(1, MOST_LINKS + 1):
        assert way.follow(link_to("b", str(number))) == ("b", str(number))
    with pytest.raises(
        errors.BadObjectMetaError, match=r"it leads through more than 8 links: .* -> link to '9' in 'b'"
    ):
        way.follow(link_to("b", "9"))
