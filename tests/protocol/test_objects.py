"""An object's info: where it stands, what may be read of it, and what may be written."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.readers import JSON
from trionats import api, errors
from trionats._protocol import headers
from trionats._protocol.jetstream.objects import infos, names, writing
from trionats._protocol.jetstream.objects.places import Place, read_place
from trionats._protocol.jetstream.objects.writing import Limits

BUCKET = "b"
NAMED: dict[str, Any] = {"name": "n", "bucket": BUCKET, "nuid": "N1", "deleted": False}
KEPT: dict[str, Any] = {"description": "d", "headers": {"A": ["1"]}, "metadata": {"a": "b"}}
#: What is written of a whole info.
WRITTEN = {**NAMED, **KEPT, "size": 5, "chunks": 1, "digest": "SHA-256=abc", "options": {"max_chunk_size": 7}}
SOUND = {**WRITTEN, "mtime": "2026-11-23T13:29:35Z"}
LINK = {"name": "n", "bucket": BUCKET, "options": {"link": {"bucket": "other", "name": "m"}}}


def token(name: bytes) -> str:
    return base64.urlsafe_b64encode(name).decode()


def encoded(fields: object) -> bytes:
    return fields if isinstance(fields, bytes) else json.dumps(fields).encode()


def message(fields: object) -> dict[str, Any]:
    return {"data": base64.b64encode(encoded(fields)).decode(), "seq": 7, "time": "2026-11-23T17:00:00Z"}


def read(fields: object) -> api.ObjectInfo:
    return infos.read_info(BUCKET, encoded(fields), revision=7, stored_at="now", subject="s")


def place_of(fields: object) -> Place:
    return read_place(BUCKET, "n", "$O.b.M.bg==", message(fields))


def test_a_whole_info_is_read_and_written_back_as_it_was() -> None:
    info = read({**SOUND, "colour": "red", "revision": 3, "subject": "x", "extra": "y"})
    assert (info.revision, info.subject, info.mtime, info.extra) == (7, "s", "now", {"colour": "red"})
    assert json.loads(writing.info_bytes(info)) == {**WRITTEN, "colour": "red"}


@pytest.mark.parametrize(
    "fields",
    [
        LINK,
        {**LINK, "options": {"link": {"bucket": "other"}}},
        {**LINK, "nuid": None},
        # The marker that nats.js writes over one.
        {**LINK, "revision": 10, "deleted": True, "size": 0, "chunks": 0, "digest": ""},
        {"name": "n", "bucket": BUCKET, "deleted": True},
    ],
)
def test_what_has_no_chunks_needs_no_nuid(fields: dict[str, Any]) -> None:
    info = read(fields)
    assert info.nuid == ""
    assert info.is_link() is ("options" in fields)
    assert read(json.loads(writing.info_bytes(info))) == info


@pytest.mark.parametrize("absent", [None, False, 0, "", [], {}])
def test_what_is_left_out_is_left_out_in_any_form_but_for_an_empty_description(absent: object) -> None:
    info = read({**SOUND, "headers": absent, "metadata": absent, "options": absent})
    assert (info.headers, info.metadata, info.options) == (None, None, None)
    assert read({**SOUND, "description": ""}).description == ""
    assert read({**SOUND, "description": None, "deleted": False, "digest": None}).description is None


NAMELESS: list[dict[str, Any]] = [{}, {"bucket": 5}, {"bucket": "b", "name": 0}]
COMPLAINTS: dict[str, list[dict[str, Any]]] = {
    "its name is no text": [{"name": None}, {"name": 5}],
    "its bucket is no text": [{"bucket": ["b"]}],
    "its nuid is no text": [{"nuid": None}, {"nuid": 5}, {"nuid": 5, "deleted": True}],
    "its nuid cannot be part of a subject": [{"nuid": nuid} for nuid in (">", "a.b", "\ud800", "x" * 200)],
    "its size is no count": [{"size": size} for size in (-1, True, 2**63, "5")],
    "its chunks is no count": [{"chunks": 1.0}],
    "its digest is no text": [{"digest": 5}],
    "its description is no text": [{"description": []}],
    "its headers is no JSON object": [{"headers": [1]}],
    "its metadata is no JSON object": [{"metadata": "x"}],
    "its options is no JSON object": [{"options": 3}],
    "its chunk size is no count": [{"options": {"max_chunk_size": "7"}}],
    "its link is no JSON object": [{"options": {"link": 3}}, {"options": {"link": []}}],
    "its link names no bucket or object": [{"options": {"link": link}} for link in NAMELESS],
    "whether it is deleted is neither true nor false": [{"deleted": deleted} for deleted in (1, "no", None)],
}


@pytest.mark.parametrize(
    ("changes", "complaint"), [(changes, complaint) for complaint, many in COMPLAINTS.items() for changes in many]
)
def test_what_is_no_info_says_what_is_wrong(changes: dict[str, Any], complaint: str) -> None:
    wrong = {**SOUND, **changes}
    with pytest.raises(errors.BadObjectMetaError, match=f"^bucket 'b': message 7 should be .*{complaint}"):
        read(wrong)
    with pytest.raises(errors.BadObjectMetaError, match=f"^object 'n' in bucket 'b': message 7 .*{complaint}"):
        infos.read_info(BUCKET, encoded(wrong), revision=7, stored_at=0, name="n")


NUMBERS = [b'{"name": "n", "size": NaN}', b'{"name": "n", "x": -Infinity}', b'{"size": ' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"null", b'"n"', b"[" * 100_000, *NUMBERS])
def test_what_is_no_json_is_no_info(data: bytes) -> None:
    with pytest.raises(errors.BadObjectMetaError, match="it is no JSON object"):
        read(data)


def test_what_nobody_foresaw_ends_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.ObjectInfo, "from_response", lambda fields: fields["no such field"])
    with pytest.raises(errors.BadObjectMetaError, match=r"message 7 .* it cannot be read: KeyError"):
        read(SOUND)
    monkeypatch.undo()
    with pytest.raises(errors.BadObjectMetaError, match="message 7"):
        infos.read_info(BUCKET, encoded(SOUND), revision=7, stored_at=10**40)


@given(st.dictionaries(st.sampled_from([*SOUND, "x"]), JSON) | JSON | st.just(LINK))
def test_whatever_stands_there_is_an_info_or_a_complaint(fields: Any) -> None:  # noqa: ANN401 - anything
    place = place_of({**SOUND, **fields} if isinstance(fields, dict) else fields)
    assert place.taken is (place.info is None or not place.info.deleted)
    written = writing.marker(place, "n", BUCKET, Limits(1_000_000))
    again = read(writing.info_bytes(written))
    assert (again.deleted, again.nuid) == (True, place.nuid)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("plain", [b"plain"]),
        ("café", ["café".encode(), "café".encode("latin-1")]),
        ("\u20ac", [b"\xe2\x82\xac"]),
        ("\u00e9\u20ac", [b"\xc3\xa9\xe2\x82\xac"]),
    ],
)
def test_a_name_within_latin_1_has_two_places(name: str, tokens: list[bytes]) -> None:
    assert names.places(name, BUCKET) == [token(one) for one in tokens]


@pytest.mark.parametrize("name", ["", "\ud800", "x" * 3000])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(errors.InvalidObjectNameError, match="for bucket 'b'"):
        names.places(name, BUCKET)
    with pytest.raises(TypeError, match="it must be text, not bytes"):
        names.places(b"n", BUCKET)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "at", "stored", "elsewhere"),
    [
        ("n", b"n", "n", None),
        # Whatever name an info gives itself, it stands in this place and in no other.
        ("n", b"n", "m", None),
        ("n", b"n", "\ud800", None),
        ("café", "café".encode(), "café", None),
        ("café", "café".encode("latin-1"), "café", None),
        # What one name is in Latin-1, another one is in UTF-8.
        ("cafÃ©", "café".encode(), "cafÃ©", None),
        ("cafÃ©", "café".encode(), "café", "café"),
        ("café", "café".encode(), "cafÃ©", "cafÃ©"),
        # And where the info does not say whose it is, it is whose everybody but nats.js takes it to be.
        ("cafÃ©", "café".encode(), None, "café"),
        ("café", "café".encode(), None, None),
        ("café", "café".encode("latin-1"), None, None),
    ],
)
def test_one_names_place_may_be_anothers(name: str, at: bytes, stored: str | None, elsewhere: str | None) -> None:
    subject = f"$O.b.M.{token(at)}"
    place = read_place(BUCKET, name, subject, message({**SOUND, "name": stored}))
    assert (place.subject, place.revision, place.nuid) == (subject, 7, "N1")
    assert place.elsewhere == elsewhere
    assert place.taken is (elsewhere is None)


def test_a_bad_info_names_its_chunks_where_that_can_be_true() -> None:
    for nuid, sound in {"N1": "N1", ">": "", "": "", "x" * 129: "", 5: "", None: ""}.items():
        place = place_of({"size": "?", "nuid": nuid})
        assert (place.info, place.nuid, place.taken) == (None, sound, True)
    for data in (b"", b"[]", b"{}", b"[" * 100_000):
        assert place_of(data).nuid == ""
    assert Place("s").taken is False


PARTIAL = [{}, {"seq": 1}, {"seq": None, "time": ""}, {"seq": 1, "time": "", "data": 5}, {**message({}), "seq": "x"}]


@pytest.mark.parametrize("answer", [None, [], "x", 5, *PARTIAL])
def test_an_answer_that_is_none_is_an_error_of_its_own(answer: object) -> None:
    with pytest.raises(errors.APIError, match="object 'n' in bucket 'b': what came back is no stored message"):
        read_place(BUCKET, "n", "$O.b.M.bg==", answer)


@pytest.mark.parametrize(
    ("server", "bucket", "asked", "size", "chunk"),
    [
        (1 << 20, 0, None, 1 << 30, 128 * 1024),
        (1 << 20, 65536, None, 1 << 30, 65536),
        (1000, 65536, None, 5, 1000),
        (1 << 20, -1, 1 << 20, 1 << 30, 1 << 20),
        (1 << 20, 65536, 65536, 1 << 30, 65536),
        (1 << 20, 65536, 65537, 65536, 65536),
        (1000, 0, 1000, None, 1000),
        (1000, 0, None, None, 1000),
        (1000, 0, 1001, None, "1001 bytes were asked for, and the server takes messages of 1000 bytes"),
        (1 << 20, 65536, 65537, 65537, "65537 bytes were asked for, and the bucket takes messages of 65536 bytes"),
        (1000, 0, 1001, 1001, "1001 bytes were asked for, and the server takes messages of 1000 bytes"),
    ],
)
def test_chunks_are_as_large_as_was_asked_or_as_fits(
    server: int, bucket: int, asked: int | None, size: int | None, chunk: int | str
) -> None:
    limits, info = Limits(server, bucket), read(SOUND)
    if isinstance(chunk, int):
        assert limits.chunk_size(info, asked, size) == chunk
        return
    with pytest.raises(errors.BadObjectMetaError, match=f"object 'n' in bucket 'b': chunks of {chunk}"):
        limits.chunk_size(info, asked, size)


def test_an_info_is_measured_as_it_will_be_written() -> None:
    info = writing.new_info("n", BUCKET, "x" * 22, api.ObjectMeta(description="d" * 64 * 1024))
    digest = "SHA-256=" + token(bytes(32))
    written = writing.info_bytes(api.ObjectInfo(**{**vars(info), "size": 10**9, "chunks": 10**4, "digest": digest}))
    needed = len(written) + len(headers.encode(writing.expecting(123_456)))
    Limits(needed + 30).check_info(info, 10**9)
    # Where nobody knows how much data comes, it may be any number.
    with pytest.raises(errors.BadObjectMetaError, match="its meta takes"):
        Limits(needed + 30).check_info(info, None)
    Limits(needed + 40).check_info(info, None)
    said = f"its meta takes 6[0-9]+ bytes, and the bucket takes messages of {needed - 1}"
    with pytest.raises(errors.BadObjectMetaError, match=said):
        Limits(1 << 20, needed - 1).check_info(info, 10**9)


BARE = {**NAMED, "size": 0, "chunks": 0, "digest": "", "deleted": True}


@pytest.mark.parametrize(
    ("changes", "limit", "kept"),
    [
        ({"colour": "red"}, 1 << 20, {**WRITTEN, "colour": "red", **BARE}),
        ({"description": "x" * 1000}, 500, BARE),
        ({"size": "?"}, 1 << 20, BARE),
    ],
)
def test_a_marker_keeps_what_can_be_kept(changes: dict[str, Any], limit: int, kept: dict[str, Any]) -> None:
    marker = writing.marker(place_of({**SOUND, **changes}), "n", BUCKET, Limits(limit))
    assert json.loads(writing.info_bytes(marker)) == kept
