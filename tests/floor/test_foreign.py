"""What other programs have stored in a bucket can end nothing but its own entry."""

from __future__ import annotations

import base64
import json
import logging
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import trio

from tests.fake_jetstream import FakeObjects
from tests.worlds import meta_subject, open_bucket, open_keys, settled
from trionats import ObjectStore, errors, events, open_events, open_watcher
from trionats._core.foreign import QUIET, Foreign

pytestmark = pytest.mark.usefixtures("autojump_clock")


BUCKET = "b"


def token(encoded: bytes) -> str:
    return base64.urlsafe_b64encode(encoded).decode()


def subject(name: str) -> str:
    return meta_subject(BUCKET, name)


# -- malformed ---------------------------------------------------------------------------------------------------------

REAL: dict[str, Any] = {
    "name": "bad",
    "bucket": BUCKET,
    "nuid": "nuid-bad",
    "size": 4,
    "chunks": 1,
    "digest": "SHA-256=Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTu2BuYlM=",
    "deleted": False,
    "description": "d",
    "headers": {"A": ["1"]},
    "metadata": {"a": "b"},
    "options": {"max_chunk_size": 7, "link": None},
    "mtime": "2026-11-23T13:29:35Z",
}
LINK = "options.link"
ABSENT = "absent"
DEEP = "deep"
NUMBERS: list[object] = [0, 5, -1, True, False, 2**63, 10**400, 1.5, float("nan"), float("inf")]
TEXTS: list[object] = ["", "text", ">", "a.b *", "\ud800", "x" * 5000]
LISTS: list[object] = [[], [1], [[{"a": [None]}]]]
OBJECTS: list[object] = [{}, {"a": 5}, {"link": {}}, {"link": {"bucket": "b", "name": ["n"]}}, {"max_chunk_size": "7"}]
VALUES = [ABSENT, DEEP, None, *NUMBERS, *TEXTS, *LISTS, *OBJECTS]


HARMLESS = (
    errors.BadObjectMetaError,
    errors.ObjectNotFoundError,
    errors.ObjectIncompleteError,
    errors.DigestMismatchError,
)


def spoilt(field: str, value: object) -> bytes:
    """Write a real info with one field changed."""
    fields = dict(REAL)
    if value is ABSENT:
        fields.pop(field, None)
    elif field == LINK:
        fields["options"] = {"link": "@" if value is DEEP else value}
    else:
        fields[field] = "@" if value is DEEP else value
    data = json.dumps(fields).encode()
    return data.replace(b'"@"', b"[" * 5000 + b"]" * 5000) if value is DEEP else data


async def assert_harmless(bucket: FakeObjects, store: ObjectStore, nursery: trio.Nursery, at: str, data: bytes) -> None:
    """Store something as the info of "bad" beside a whole object, and use the bucket in every way."""
    name = "bad"
    bucket.messages.clear()
    bucket.add("good", b"data")
    bucket.store(f"{bucket.prefix}.C.nuid-bad", b"data", rollup=False)
    bucket.store(at, data)
    listed = {info.name for info in await store.list(ignore_deletes=False)}
    assert "good" in listed
    async with open_watcher(nursery, store) as rx:
        assert {info.name for info in await rx.snapshot()} == listed
        bucket.add("later", b"x")
        assert (await rx.receive()).name == "later"
    bucket.add("later", deleted=True)
    for read in (store.get_info, store.get):
        with suppress(*HARMLESS):
            await read(name)
    await store.delete(name)
    with pytest.raises(errors.ObjectDeletedError):
        await store.get(name)
    bucket.store(at, data)
    await store.put(name, b"new")
    assert (await store.get(name)).data == b"new"
    assert (await store.get("good")).data == b"data"
    assert {info.name for info in await store.list()} == {"bad", "good"}


NO_INFOS = [
    *(b"", b"\xff\xfe", b"null", b"[]", b'"bad"', b"[" * 100_000, b"{" * 100_000, b"9" * 5000),
    b'{"name": "bad", "bucket": "b", "nuid": "N", "options": {"link": {}}}',
    b'{"name": "bad", "name": 5}',
]


@pytest.mark.parametrize("field", [*REAL, LINK, "all"])
async def test_no_field_of_an_info_can_do_more_than_spoil_its_own_entry(field: str) -> None:
    """Read, listed, watched, deleted, and replaced."""
    async with open_bucket() as (bucket, store, nc, nursery):
        for data in NO_INFOS if field == "all" else [spoilt(field, value) for value in VALUES]:
            await assert_harmless(bucket, store, nursery, subject("bad"), data)
        assert not nc.is_closed


@pytest.mark.parametrize("tail", ["!!!!", "bg", "a.b.c", "\u00e9", "====", token(b"\xff\xfe")])
async def test_an_info_in_a_place_that_no_name_has_is_listed_under_the_name_it_gives_itself(tail: str) -> None:
    async with open_bucket() as (bucket, store, _, nursery):
        bucket.add("good", b"data")
        bucket.store(f"$O.{BUCKET}.M.{tail}", json.dumps(REAL).encode())
        assert [(info.name, info.subject) for info in await store.list()] == [
            ("good", subject("good")),
            ("bad", f"$O.{BUCKET}.M.{tail}"),
        ]
        async with open_watcher(nursery, store) as rx:
            assert [info.name for info in await rx.snapshot()] == ["good", "bad"]
        with pytest.raises(errors.ObjectNotFoundError):
            await store.get_info("bad")


async def test_a_bad_info_names_bucket_object_and_revision() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.store(subject("bad"), b'{"name": 5}')
        for read in (store.get, store.get_info):
            text = "^object 'bad' in bucket 'b': message 1 should be the info of an object, but its name is no text$"
            with pytest.raises(errors.BadObjectMetaError, match=text):
                await read("bad")


async def test_what_was_put_over_a_bad_info_purges_the_chunks_that_it_names() -> None:
    async with open_bucket() as (bucket, store, _, _):
        for change in (store.delete, lambda name: store.put(name, b"new")):
            bucket.store(f"{bucket.prefix}.C.nuid-bad", b"data", rollup=False)
            bucket.store(subject("bad"), b'{"name": 5, "nuid": "nuid-bad"}')
            await change("bad")
        assert bucket.contents() == {"bad": b"new"}


async def test_two_that_put_over_a_bad_info_do_not_both_win() -> None:
    async with open_bucket() as (bucket, store, nc, _):
        bucket.store(subject("bad"), b"no info")
        bucket.lag = 0.01
        results: list[object] = []

        async def put(data: bytes) -> None:
            try:
                results.append(await store.put("bad", data))
            except errors.BadRequestError as error:
                results.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, b"one")
            nursery.start_soon(put, b"two")
        assert len([result for result in results if isinstance(result, errors.BadRequestError)]) == 1
        await nc.flush()
        assert len(bucket.contents()) == 1


@pytest.mark.parametrize(
    "answer",
    [{}, {"message": None}, {"message": []}, {"message": {"seq": 1}}, {"message": {"seq": "x", "time": 5}}],
    ids=str,
)
async def test_an_answer_of_the_server_that_is_none_is_an_error_of_its_own(answer: object) -> None:
    async with open_bucket() as (bucket, store, nc, _):
        bucket.server.on("$JS.API.STREAM.MSG.GET.>", lambda _: answer, first=True)
        for call in (store.get("n"), store.get_info("n"), store.put("n", b""), store.delete("n")):
            with pytest.raises(errors.APIError, match="object 'n' in bucket 'b': what came back is no stored message"):
                await call
        assert not nc.is_closed


# -- told --------------------------------------------------------------------------------------------------------------


async def test_what_is_skipped_is_counted_and_told_once_an_episode(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="trionats")
    async with open_bucket() as (bucket, store, nc, nursery), open_events(nursery, nc) as told:
        bucket.add("good", b"data")
        for number in range(100):
            bucket.store(subject(f"bad {number}"), b"no info")
        assert [info.name for info in await store.list()] == ["good"]
        event = await told.receive()
        assert isinstance(event, events.ForeignDataSkipped)
        assert (event.where, event.skipped) == ("infos of bucket 'b'", 1)
        assert "bucket 'b': message 3 should be the info of an object" in str(event.reason)
        async with open_watcher(nursery, store) as rx:
            assert len(await rx.snapshot()) == 1
            assert nc.statistics().skipped == 200
            # While it goes on, it is one episode.
            for _ in range(5):
                await trio.sleep(QUIET - 1)
                bucket.store(subject("bad 0"), b"no info")
                await settled()
            assert len(told) == 0
            await trio.sleep(QUIET)
            bucket.store(subject("bad 0"), b"no info")
            again = await told.receive()
            assert isinstance(again, events.ForeignDataSkipped)
            assert again.skipped == 206
    assert [record.levelname for record in caplog.records if "skipped" in record.message] == ["WARNING"] * 2


def test_a_boundary_returns_what_it_read_and_stops_no_interrupt() -> None:
    boundary = Foreign(lambda _: None)
    assert boundary.read("a test", int, "7", base=8) == 7

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        boundary.read("a test", interrupted)
    assert boundary.skipped == 0


async def test_each_place_has_episodes_of_its_own_and_what_is_over_takes_up_no_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Place(str):
        __slots__ = ("__weakref__",)

    caplog.set_level(logging.CRITICAL, logger="trionats")  # a record would hold what it tells
    told: list[Any] = []
    boundary = Foreign(told.append)
    first = Place("a")
    room = weakref.ref(first)
    for where in (first, "b", first, "b", "c"):
        assert boundary.read(where, int, "x") is None
    assert [event.where for event in told] == ["a", "b", "c"]
    await trio.sleep(QUIET)
    assert boundary.read("b", int, "x") is None
    assert [event.where for event in told] == ["a", "b", "c", "b"]
    told.clear()
    del first, where
    assert room() is None


# -- as nats.js writes it ----------------------------------------------------------------------------------------------

# The very bytes that @nats-io/obj 3.4.0 stored.
CAFE = '{"bucket":"b","nuid":"MU8mZyxMSxp8OUiV46w3pU","size":5,"chunks":1,"name":"café","description":"","options":{"max_chunk_size":131072},"mtime":"2026-11-28T22:47:58.574Z","digest":"SHA-256=hMtlzNMRbATZK6t5bv3Npo1M4k-cz9-GdvjyDjlE5Qk=","deleted":false}'.encode()
NATS_JS_LINK = b'{"name":"link","bucket":"b","options":{"link":{"bucket":"b","name":"plain"}}}'
NATS_JS_FOLDER = b'{"bucket":"b","nuid":"MU8mZyxMSxp8OUiV46w3lz","size":0,"chunks":0,"name":"folder","description":"","options":{"link":{"bucket":"other"},"max_chunk_size":131072},"mtime":"2026-11-28T22:47:58.573Z","digest":"SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=","deleted":false}'
NATS_JS_DELETED_LINK = b'{"name":"deadlink","bucket":"b","options":{"link":{"bucket":"b","name":"plain"}},"revision":10,"deleted":true,"size":0,"chunks":0,"digest":""}'
NATS_JS_DELETED = '{"bucket":"b","nuid":"MU8mZyxMSxp8OUiV46w43U","size":0,"chunks":0,"name":"goné","description":"","options":{"max_chunk_size":131072},"mtime":"2026-11-28T22:47:58.583Z","digest":"","deleted":true,"revision":20}'.encode()
NATS_JS_RENAMED = '{"bucket":"b","nuid":"MU8mZyxMSxp8OUiV46w3zz","size":8,"chunks":3,"name":"rénamed","description":"","mtime":"2026-11-28T22:47:58.580Z","digest":"SHA-256=nFbMUbN0w7oYkhDVttS_V3kNNRyWxHwCGQ7PHkMGNas=","deleted":false,"revision":17}'.encode()
NATS_JS_PLACE = {name: f"$O.{BUCKET}.M.{token(name.encode('latin-1'))}" for name in ("café", "goné", "rénamed")}


@pytest.mark.parametrize("info", [NATS_JS_LINK, NATS_JS_FOLDER, NATS_JS_DELETED_LINK])
async def test_a_link_of_nats_js_does_not_lock_its_name(info: bytes) -> None:
    name = json.loads(info)["name"]
    deleted = json.loads(info).get("deleted", False)
    async with open_bucket() as (bucket, store, _, nursery):
        async with open_watcher(nursery, store) as rx:
            # It comes without Nats-Rollup, so that several of one name may stand beside each other.
            bucket.store(subject(name), info, rollup=False)
            bucket.store(subject(name), info, rollup=False)
            assert [(await rx.receive()).name for _ in range(2)] == [name, name]
        (listed,) = await store.list(ignore_deletes=False)
        assert (listed.name, listed.is_link(), listed.deleted) == (name, True, deleted)
        assert listed == replace(await store.get_info(name, show_deleted=True), mtime=listed.mtime)
        if not deleted:
            wrong = {
                "link": "object 'link' in bucket 'b' -> link to 'plain' in 'b': there is no object",
                "folder": "is a link to bucket 'other'",
            }
            with pytest.raises((errors.ObjectNotFoundError, errors.LinkIsABucketError), match=wrong[name]):
                await store.get(name)
        await store.delete(name)
        marker = await store.get_info(name, show_deleted=True)
        assert (marker.deleted, marker.is_link()) == (True, True)
        with pytest.raises(errors.ObjectDeletedError):
            await store.get(name)
        bucket.store(subject(name), info, rollup=False)
        await store.put(name, b"data")
        assert (await store.get(name)).data == b"data"
        assert [m.sequence for m in bucket.messages if m.subject == subject(name)] == [bucket.last]


async def test_an_object_beyond_ascii_that_nats_js_stored_is_found_and_stays_in_its_place() -> None:
    name = "café"
    async with open_bucket() as (bucket, store, _, nursery):
        bucket.store(f"{bucket.prefix}.C.MU8mZyxMSxp8OUiV46w3pU", b"latin", rollup=False)
        bucket.store(NATS_JS_PLACE[name], CAFE)
        assert (await store.get(name)).data == b"latin"
        info = await store.get_info(name)
        assert (info.name, info.subject) == (name, NATS_JS_PLACE[name])
        (listed,) = await store.list()
        assert replace(listed, mtime=info.mtime) == info
        async with open_watcher(nursery, store) as rx:
            assert await rx.snapshot() == [listed]
        put = await store.put(name, b"new")
        assert put.subject == NATS_JS_PLACE[name]
        assert bucket.contents() == {name: b"new"}
        assert (await store.get(name)).data == b"new"
        await store.delete(name)
        assert bucket.contents() == {}
        for read in (store.get, store.get_info):
            with pytest.raises(errors.ObjectDeletedError, match="object 'café' in bucket 'b' was deleted"):
                await read(name)
        await store.delete(name)
        await store.put(name, b"again")
        assert [m.subject for m in bucket.messages if ".M." in m.subject] == [NATS_JS_PLACE[name]]


async def test_a_marker_and_a_renamed_object_of_nats_js_are_found_too() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.store(NATS_JS_PLACE["goné"], NATS_JS_DELETED)
        with pytest.raises(errors.ObjectDeletedError):
            await store.get("goné")
        for chunk in (b"abc", b"def", b"gh"):
            bucket.store(f"{bucket.prefix}.C.MU8mZyxMSxp8OUiV46w3zz", chunk, rollup=False)
        bucket.store(NATS_JS_PLACE["rénamed"], NATS_JS_RENAMED)
        assert (await store.get("rénamed")).data == b"abcdefgh"


async def test_two_objects_of_one_name_are_both_shown_and_ours_is_the_one_that_is_meant() -> None:
    name = "café"
    async with open_bucket() as (bucket, store, _, nursery):
        await store.put(name, b"ours")
        bucket.store(f"{bucket.prefix}.C.MU8mZyxMSxp8OUiV46w3pU", b"latin", rollup=False)
        bucket.store(NATS_JS_PLACE[name], CAFE)
        assert (await store.get(name)).data == b"ours"
        places = [subject(name), NATS_JS_PLACE[name]]
        assert [(info.name, info.subject) for info in await store.list()] == [(name, place) for place in places]
        async with open_watcher(nursery, store) as rx:
            assert [info.subject for info in await rx.snapshot()] == places
        await store.put(name, b"newer")
        await store.delete(name)
        # With ours gone, the other one is what the name leads to.
        assert (await store.get(name)).data == b"latin"
        await store.delete(name)
        with pytest.raises(errors.ObjectDeletedError):
            await store.get(name)


async def test_nobody_asks_twice_who_need_not() -> None:
    async with open_bucket() as (bucket, store, _, _):
        await store.put("café", b"x")
        for name, requests in {"plain": 1, "\u20ac": 1, "café": 1, "thé": 2}.items():
            before = len(bucket.server.sent("PUB", "$JS.API.STREAM.MSG.GET.>"))
            try:
                await store.get_info(name)
            except errors.ObjectNotFoundError:
                assert name != "café"
            assert len(bucket.server.sent("PUB", "$JS.API.STREAM.MSG.GET.>")) == before + requests


async def test_one_names_place_in_one_alphabet_is_anothers_in_the_other() -> None:
    """ "\u00c3\u00a9" in Latin-1 is "\u00e9" in UTF-8: nobody's object is taken for another's."""
    theirs, name = "\u00c3\u00a9", "\u00e9"
    shared = f"$O.{BUCKET}.M.{token(name.encode())}"
    fields = {"name": theirs, "bucket": BUCKET, "nuid": "nuid-theirs", "size": 1, "chunks": 1, "deleted": False}
    async with open_bucket() as (bucket, store, _, _):
        await store.put(name, b"ours")
        with pytest.raises(errors.ObjectNotFoundError):
            await store.get_info(theirs)
        await store.put(theirs, b"another")
        assert ((await store.get(name)).data, (await store.get(theirs)).data) == (b"ours", b"another")
        await store.delete(theirs)
        bucket.store(shared, json.dumps(fields).encode())
        assert (await store.get_info(theirs)).nuid == "nuid-theirs"
        for call in (store.get, store.get_info, store.delete):
            with pytest.raises(errors.ObjectNotFoundError, match="no object '\u00e9' in bucket 'b'"):
                await call(name)
        with pytest.raises(errors.BadObjectMetaError, match="in its place stands object '\u00c3\u00a9'"):
            await store.put(name, b"mine")
        await store.delete(theirs)
        await store.put(name, b"mine")
        assert (await store.get(name)).data == b"mine"


# -- objects as nats-py and nats.go write them -------------------------------------------------------------------------

# The very bytes that nats-py 2.16.0 and the nats tool 0.5.0 stored, with Nats-Rollup.
NATS_PY_OBJECT = b'{"name": "n", "bucket": "b", "nuid": "00mRYO0LfwcB6adyy3Brt9", "size": 4, "mtime": "2026-11-29T10:13:30.200815+00:00", "chunks": 1, "digest": "SHA-256=Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTuyOtyLc=", "deleted": false, "description": "d", "headers": {"A": ["1"]}, "options": {"max_chunk_size": 131072}}'
NATS_PY_DELETED = b'{"name": "gone", "bucket": "b", "nuid": "00mRYO0LfwcB6adyy3Bs1X", "size": 0, "mtime": "", "chunks": 0, "digest": "", "deleted": true, "options": {"max_chunk_size": 131072}}'
NATS_GO_OBJECT = b'{"name":"n","headers":{"A":["1"]},"options":{"max_chunk_size":131072},"bucket":"b","nuid":"hTAJ3wShtZqGfmv3oADZwa","size":4,"mtime":"0001-01-01T00:00:00Z","chunks":1,"digest":"SHA-256=Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTuyOtyLc="}'
NATS_GO_DELETED = b'{"name":"gone","options":{"max_chunk_size":131072},"bucket":"b","nuid":"00JKZkq5rqGAkYOJWrGPz0","size":0,"mtime":"0001-01-01T00:00:00Z","chunks":0,"deleted":true}'


@pytest.mark.parametrize(
    ("stored", "gone"), [(NATS_PY_OBJECT, NATS_PY_DELETED), (NATS_GO_OBJECT, NATS_GO_DELETED)], ids=["py", "go"]
)
async def test_objects_and_markers_of_nats_py_and_nats_go_are_read_and_replaced(stored: bytes, gone: bytes) -> None:
    async with open_bucket() as (bucket, store, _, nursery), open_watcher(nursery, store) as rx:
        bucket.store(f"{bucket.prefix}.C.{json.loads(stored)['nuid']}", b"data", rollup=False)
        bucket.store(subject("n"), stored)
        bucket.store(subject("gone"), gone)
        assert [((info := await rx.receive()).name, info.deleted) for _ in range(2)] == [("n", False), ("gone", True)]
        result = await store.get("n")
        assert (result.data, result.info.headers) == (b"data", {"A": ["1"]})
        with pytest.raises(errors.ObjectDeletedError):
            await store.get("gone")
        assert [info.name for info in await store.list()] == ["n"]
        for name in ("n", "gone"):
            await store.put(name, b"ours")
        assert bucket.contents() == {"n": b"ours", "gone": b"ours"}


# -- keys and values as others write them ------------------------------------------------------------------------------


def fields(*lines: str) -> bytes:
    return "\r\n".join(("NATS/1.0", *lines, "", "")).encode()


# What @nats-io/kv 3.4.0, nats-py 2.16.0 and the nats tool 0.5.0 stored, in headers that are alike to the byte but for the form of a
# time to live, and what nats-server 2.15.1 stored when that was over: key, headers, value, and what it is to us.
CREATED = fields("Nats-Expected-Last-Subject-Sequence: 0")
DELETED = fields("KV-Operation: DEL")
WRITTEN: list[tuple[str, bytes, bytes, str | None]] = [
    ("put", b"", b"v", None),
    ("created", CREATED, b"v", None),
    ("js-ttl", fields("Nats-Expected-Last-Subject-Sequence: 0", "Nats-TTL: 60s"), b"v", None),
    ("py-ttl", fields("Nats-Expected-Last-Subject-Sequence: 0", "Nats-TTL: 60"), b"v", None),
    ("updated", fields("Nats-Expected-Last-Subject-Sequence: 1"), b"w", None),
    ("empty", b"", b"", None),
    ("deleted", DELETED, b"", "DEL"),
    ("deleted-at", fields("KV-Operation: DEL", "Nats-Expected-Last-Subject-Sequence: 4"), b"", "DEL"),
    ("purged", fields("KV-Operation: PURGE", "Nats-Rollup: sub"), b"", "PURGE"),
    ("js-purged", fields("KV-Operation: PURGE", "Nats-Rollup: sub", "Nats-TTL: 60s"), b"", "PURGE"),
    ("py-purged", fields("KV-Operation: PURGE", "Nats-Rollup: sub", "Nats-TTL: 60"), b"", "PURGE"),
    ("expired", fields("Nats-Marker-Reason: MaxAge", "Nats-TTL: 60s", "Nats-Rollup: sub"), b"", "PURGE"),
]


@pytest.mark.parametrize(("key", "headers", "value", "operation"), WRITTEN, ids=[key for key, *_ in WRITTEN])
async def test_what_other_clients_and_the_server_store_of_a_key_is_read_and_replaced(
    key: str, headers: bytes, value: bytes, operation: str | None
) -> None:
    async with open_keys(history=2, limit_marker_ttl=60) as (bucket, kv, _, nursery):
        async with open_watcher(nursery, kv) as rx:
            bucket.store(f"{bucket.prefix}.{key}", value, rollup=b"Nats-Rollup" in headers, headers=headers)
            entry = await rx.receive()
            assert (entry.key, entry.value, entry.operation) == (key, value, operation)
        (kept,) = await kv.history(key)
        assert kept == replace(entry, delta=kept.delta)
        if operation is None:
            assert replace(await kv.get(key), delta=entry.delta) == entry
            assert await kv.keys() == [key]
            with pytest.raises(errors.KeyWrongLastSequenceError):
                await kv.create(key, b"ours")
            await kv.update(key, b"ours", last=entry.revision)
        else:
            with pytest.raises(errors.KeyDeletedError) as gone:
                await kv.get(key)
            assert gone.value.op == operation
            assert await kv.keys() == []
            await kv.create(key, b"ours")
        assert (await kv.get(key)).value == b"ours"


async def test_what_we_store_of_a_key_is_what_other_clients_store() -> None:
    async with open_keys(history=5, limit_marker_ttl=60) as (bucket, kv, _, _):
        await kv.put("put", b"v")
        await kv.create("created", b"v")
        await kv.create("js-ttl", b"v", msg_ttl=60)
        await kv.update("updated", b"w", last=0)
        await kv.delete("deleted")
        await kv.purge("purged")
        stored = {m.subject.removeprefix(f"{bucket.prefix}."): m.headers for m in bucket.messages}
        assert stored["put"] == b""
        assert named(stored["created"]) == named(stored["updated"]) == named(CREATED)
        assert named(stored["js-ttl"]) | {b"Nats-TTL: 60s"} >= named(CREATED)
        assert named(stored["deleted"]) == named(DELETED)
        assert named(stored["purged"]) == {b"KV-Operation: PURGE", b"Nats-Rollup: sub"}


def named(headers: bytes) -> set[bytes]:
    """Give the lines of headers, whose order means nothing."""
    return set(headers.split(b"\r\n")) - {b"NATS/1.0", b""}
