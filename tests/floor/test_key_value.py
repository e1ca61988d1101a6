"""A key-value bucket in memory: who is asked, what a lost comparison is, what creates take the place of, and what is foreign."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.fake_jetstream import (
    NO_TTL,
    UNAVAILABLE,
    WRONG_SEQUENCE,
    WRONG_SEQUENCE_OF_SEVERAL,
    FakeKeyValue,
    refusal,
)
from tests.fakes import FakeServer, Frame
from tests.worlds import (
    KeysWorld,
    arrived,
    assert_failures_are_let_go,
    cut_short,
    find_keys,
    forgets_callers,
    open_keys,
    open_world,
    settled,
    takes,
)
from trionats import (
    Base64Codec,
    KeyValue,
    PathCodec,
    ReadOnlyKeyValue,
    api,
    errors,
    events,
    open_events,
    open_lease,
    open_watcher,
)
from trionats._protocol.jetstream.buckets.origins import Origin
from trionats._protocol.jetstream.kv.writing import CREATE_PAUSES, MOST_CHANGES

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
MSG_GET = "$JS.API.STREAM.MSG.GET.KV_b"
CONFLICTS = [WRONG_SEQUENCE, WRONG_SEQUENCE_OF_SEVERAL]
#: What compares with an expected revision, of a key that has another one.
COMPARING: dict[str, Callable[[KeyValue], Awaitable[object]]] = {
    "create": lambda kv: kv.create("k", b"new"),
    "update": lambda kv: kv.update("k", b"new", 99),
    "update of what never was": lambda kv: kv.update("k", b"new", 0),
    "delete": lambda kv: kv.delete("k", 99),
    "purge": lambda kv: kv.purge("k", last=99),
}


def written(server: FakeServer) -> list[Frame]:
    return server.sent("HPUB", "$KV.>") + server.sent("PUB", "$KV.>")


# -- reading and writing ---------------------------------------------------------------------------------------------------


async def test_what_is_put_is_got_and_an_empty_value_is_empty() -> None:
    async with open_keys() as w:
        assert [await w.kv.put("a", b"1"), await w.kv.put("a.b", "é"), await w.kv.put("c", b"")] == [1, 2, 3]
        found = await w.kv.get("a.b")
        assert (found.bucket, found.key, found.value, found.revision) == ("b", "a.b", "é".encode(), 2)
        assert (found.delta, found.operation) == (0, None)
        assert found.created.isoformat().startswith("2023-11-14T22:13:20")
        assert (await w.kv.get("c")).value == b""
        assert w.bucket.values() == {"a": b"1", "a.b": "é".encode(), "c": b""}
        assert not [frame.headers for frame in written(w.server) if frame.headers]


async def test_update_delete_and_purge_take_the_revision_that_they_expect() -> None:
    async with open_keys(history=5) as w:
        first = await w.kv.create("k", b"1")
        second = await w.kv.update("k", "2", first)
        assert await w.kv.update("new", b"", 0) == second + 1
        third = await w.kv.delete("k", second)
        assert [entry.operation for entry in await w.kv.history("k")] == [None, None, "DEL"]
        assert await w.kv.purge("k", last=third) == third + 1
        assert [entry.operation for entry in await w.kv.history("k")] == ["PURGE"]
        assert await w.kv.delete("nothing") == third + 2


@pytest.mark.parametrize("answer", CONFLICTS, ids=["10071", "10164"])
@pytest.mark.parametrize("name", COMPARING)
async def test_a_lost_comparison_is_one_error_whatever_the_servers_number(name: str, answer: dict[str, Any]) -> None:
    async with open_keys() as w:
        revision = w.bucket.set("k", b"old")
        w.bucket.conflict = answer
        with pytest.raises(errors.KeyWrongLastSequenceError, match=r"^\w+ of key 'k' (in|from) bucket 'b': ") as caught:
            await COMPARING[name](w.kv)
        error = caught.value
        assert isinstance(error, errors.BadRequestError)
        assert error.err_code == answer["error"]["err_code"]
        about = {"create": f"revision {revision} ", "update of what never was": "written before"}
        assert about.get(name, "its last revision is not 99 ") in str(error)
        assert w.bucket.values() == {"k": b"old"}


async def test_a_key_without_a_value_raises_what_it_is_and_what_was_there() -> None:
    async with open_keys() as w:
        with pytest.raises(errors.KeyNotFoundError, match=r"^there is no key 'k' of bucket 'b'$") as nothing:
            await w.kv.get("k")
        assert not isinstance(nothing.value, errors.KeyDeletedError)
        assert (nothing.value.entry, nothing.value.op, nothing.value.code) == (None, None, 404)
        for kind, operation in (
            ("DEL", "DEL"),
            ("PURGE", "PURGE"),
            ("MaxAge", "PURGE"),
            ("Remove", "DEL"),
            ("New", "DEL"),
        ):
            revision = w.bucket.mark("k", kind)
            with pytest.raises(errors.KeyDeletedError, match=rf"\(revision {revision}\)") as gone:
                await w.kv.get("k")
            assert isinstance(gone.value, errors.KeyNotFoundError)
            assert (gone.value.op, gone.value.entry.revision, gone.value.entry.key) == (operation, revision, "k")


async def test_a_revision_is_that_of_this_key() -> None:
    async with open_keys(history=3) as w:
        first, other, marker = w.bucket.set("k", b"1"), w.bucket.set("other"), w.bucket.mark("k")
        assert (await w.kv.get("k", first)).value == b"1"
        for revision in (other, 99):
            with pytest.raises(errors.KeyNotFoundError, match=f"^there is no revision {revision} of key 'k'"):
                await w.kv.get("k", revision)
        with pytest.raises(errors.KeyDeletedError):
            await w.kv.get("k", marker)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda kv: kv.get("a..b"), errors.InvalidKeyError, "key 'a..b' of bucket 'b'"),
        (lambda kv: kv.get("a.*"), errors.InvalidKeyError, "key 'a.*'"),
        (lambda kv: kv.get("k", 0), ValueError, "get of key 'k': revision is 0"),
        (lambda kv: kv.get("k", "1"), TypeError, "revision must be a revision"),
        (lambda kv: kv.get("k", leader=3), TypeError, "leader must be True or False, not int"),
        (lambda kv: kv.put("é", b""), errors.InvalidKeyError, "key 'é'"),
        (lambda kv: kv.put("_kv.x", b""), errors.InvalidKeyError, "reserved"),
        (lambda kv: kv.create("_kv.x"), errors.InvalidKeyError, "reserved"),
        (lambda kv: kv.update("_kv.x", b"", 0), errors.InvalidKeyError, "reserved"),
        (lambda kv: kv.put("k", 7), TypeError, "put of key 'k' into bucket 'b': value must be bytes or str, not int"),
        (lambda kv: kv.put("k", None), TypeError, "NoneType"),
        (lambda kv: kv.put("k", "\ud800"), ValueError, "put of key 'k' into bucket 'b': value is not valid Unicode"),
        (lambda kv: kv.create("k", b"", msg_ttl=0.5), ValueError, "create of key 'k' in bucket 'b': msg_ttl"),
        (lambda kv: kv.create("k", b"", msg_ttl="soon"), TypeError, "msg_ttl"),
        (lambda kv: kv.update("k", b"", None), TypeError, "update of key 'k' in bucket 'b': last must be a revision"),
        (lambda kv: kv.update("k", b"", -1), ValueError, "last is -1"),
        (lambda kv: kv.delete("k", 1.5), TypeError, "last must be a revision"),
        (lambda kv: kv.delete(""), errors.InvalidKeyError, "key ''"),
        (lambda kv: kv.purge("k", msg_ttl=1.5), ValueError, "purge of key 'k' from bucket 'b': msg_ttl"),
        (lambda kv: kv.history("a.>"), errors.InvalidKeyError, "key 'a.>'"),
        (lambda kv: kv.keys("a..b"), errors.InvalidKeyError, "filter 'a..b'"),
        (lambda kv: kv.keys([]), ValueError, "filters is empty"),
        (lambda kv: kv.keys(["a", 7]), TypeError, "filter 7"),
        (lambda kv: kv.purge_deletes("all"), TypeError, "olderthan must be a number"),
        (lambda kv: kv.put("k", b"", ttl=5), TypeError, "ttl"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    call: Callable[[Any], Awaitable[object]], error: type[Exception], text: str
) -> None:
    async with open_keys() as w:
        await w.nc.flush()
        before = len(w.server.frames)
        with pytest.raises(error, match=re.escape(text)):
            await call(w.kv)
        await w.nc.flush()
        assert [frame.verb for frame in w.server.frames[before:]] == ["PING"]


# -- who is asked ------------------------------------------------------------------------------------------------------------


async def test_a_value_may_be_a_replicas_unless_the_leader_is_asked() -> None:
    async with open_keys(replicas=3) as w:
        w.bucket.set("k", b"old")
        w.bucket.lag_behind()
        await w.kv.put("k", b"new")
        assert (await w.kv.get("k")).value == b"old"
        assert not w.server.sent("PUB", MSG_GET)
        assert (await w.kv.get("k", leader=True)).value == b"new"
        assert len(w.server.sent("PUB", "$JS.API.DIRECT.GET.>")) == 1
        w.bucket.catch_up()
        assert (await w.kv.get("k")).value == b"new"


@pytest.mark.parametrize("behind", [None, "DEL", "PURGE", "MaxAge"])
async def test_what_a_replica_denies_the_leader_is_asked_about(behind: str | None) -> None:
    async with open_keys(replicas=3) as w:
        if behind is not None:
            w.bucket.mark("k", behind)
        w.bucket.lag_behind()
        revision = await w.kv.create("k", b"new")
        assert (await w.kv.get("k")).value == b"new"
        assert (await w.kv.get("k", revision)).value == b"new"


async def test_who_may_not_ask_the_leader_gets_a_replicas_word() -> None:
    async with open_keys(server=FakeServer(deny_publish=(MSG_GET,))) as w:
        with pytest.raises(errors.KeyNotFoundError, match="there is no key 'k'"):
            await w.kv.get("k")
        w.bucket.mark("k", "PURGE")
        with pytest.raises(errors.KeyDeletedError, match="purged"):
            await w.kv.get("k")
        with pytest.raises(errors.PermissionsViolationError):
            await w.kv.get("k", leader=True)


async def test_where_nobody_answers_direct_gets_the_leader_does() -> None:
    server = FakeServer()
    server.on(
        "$JS.API.DIRECT.GET.>", lambda frame: server.publish(frame.reply, headers=b"NATS/1.0 503\r\n\r\n") and None
    )
    async with open_keys(server=server) as w:
        w.bucket.set("k", b"v")
        assert (await w.kv.get("k")).value == b"v"
        assert (await w.kv.get("k", 1)).value == b"v"


async def test_a_mirrors_word_is_not_taken_for_the_buckets() -> None:
    server = FakeServer()

    def answer(frame: Frame) -> None:
        lines = b"Nats-Stream: KV_mirror\r\nNats-Subject: $KV.b.k\r\nNats-Sequence: 1\r\nNats-Time-Stamp: 2026-11-29T12:00:00Z"
        server.publish(frame.reply, b"expired", headers=b"NATS/1.0\r\n" + lines + b"\r\n\r\n")

    server.on("$JS.API.DIRECT.GET.>", answer)
    async with open_keys(server=server) as w:
        with pytest.raises(errors.KeyNotFoundError):
            await w.kv.get("k")


@pytest.mark.parametrize(
    "call",
    [
        lambda kv: kv.get("k"),
        lambda kv: kv.get("k", 1),
        lambda kv: kv.get("k", leader=True),
        lambda kv: kv.keys(),
        lambda kv: kv.history("k"),
        lambda kv: kv.purge_deletes(),
    ],
)
async def test_a_bucket_that_is_not_there_is_no_key_that_is_not_there(
    call: Callable[[KeyValue], Awaitable[object]],
) -> None:
    server = FakeServer()
    server.on(
        "$JS.API.DIRECT.GET.>", lambda frame: server.publish(frame.reply, headers=b"NATS/1.0 503\r\n\r\n") and None
    )
    server.on("$JS.API.>", lambda _: refusal(404, 10059, "stream not found"))
    async with open_world(server) as (_, nc, _):
        with pytest.raises(errors.BucketNotFoundError, match="there is no key-value bucket 'b'") as caught:
            await call(find_keys(nc))
        assert not isinstance(caught.value, errors.KeyNotFoundError)


@pytest.mark.parametrize("answer", [b"what", b"{}", b'{"message":7}', b'{"message":{"seq":"x"}}'])
async def test_a_leaders_word_that_cannot_be_read_is_an_error_of_its_own(answer: bytes) -> None:
    server = FakeServer()
    server.on(MSG_GET, lambda _: answer)
    async with open_keys(server=server) as w:
        with pytest.raises(errors.APIError, match=r"key 'k' of bucket 'b': what came back|STREAM\.MSG\.GET"):
            await w.kv.get("k")


# -- writing, and what may happen meanwhile ----------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", CONFLICTS, ids=["10071", "10164"])
@pytest.mark.parametrize("kind", ["DEL", "PURGE", "MaxAge", "Purge", "Remove", "of the future"])
async def test_a_create_takes_the_place_of_any_marker(kind: str, answer: dict[str, Any]) -> None:
    async with open_keys() as w:
        w.bucket.conflict = answer
        revision = w.bucket.mark("k", kind)
        assert await w.kv.create("k", b"new") == revision + 1
        assert w.bucket.values() == {"k": b"new"}
        expected = [frame.headers.decode().partition(f"{EXPECTED}: ")[2].strip() for frame in written(w.server)]
        assert expected == ["0", str(revision)]


async def test_a_create_goes_on_where_its_marker_is_replaced_by_another_or_by_nothing() -> None:
    async with open_keys() as w:
        w.bucket.mark("k")
        meanwhile: list[Callable[[], object]] = [
            lambda: None,
            lambda: w.bucket.mark("k", "PURGE"),
            lambda: w.bucket.forget("$KV.b.k"),
            lambda: w.bucket.mark("k"),
        ]
        w.bucket.hook = lambda _: meanwhile.pop(0)() and None if meanwhile else None
        await w.kv.create("k", b"new")
        assert w.bucket.values() == {"k": b"new"}
        assert not meanwhile


async def test_a_create_that_loses_the_race_for_a_marker_says_who_won() -> None:
    async with open_keys() as w:
        w.bucket.mark("k")
        meanwhile: list[Callable[[], object]] = [lambda: None, lambda: w.bucket.set("k", b"theirs")]
        w.bucket.hook = lambda _: meanwhile.pop(0)() and None if meanwhile else None
        with pytest.raises(
            errors.KeyWrongLastSequenceError, match="create of key 'k' in bucket 'b': it has a value, in revision 2"
        ):
            await w.kv.create("k", b"ours")
        assert w.bucket.values() == {"k": b"theirs"}


async def test_a_create_ends_where_markers_come_and_go_for_ever() -> None:
    async with open_keys() as w:
        w.bucket.hook = lambda _: w.bucket.mark("k") and None
        with pytest.raises(errors.KeyWrongLastSequenceError, match="it changes all the time"):
            await w.kv.create("k", b"new")
        assert len(written(w.server)) == MOST_CHANGES + 1


async def test_a_create_waits_for_what_is_under_way_in_a_replicated_bucket(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_keys(replicas=3) as w:
        w.bucket.answer("$KV.b.k", *[WRONG_SEQUENCE_OF_SEVERAL] * 3)
        with takes(sum(CREATE_PAUSES[:3])):
            await w.kv.create("k", b"new")
        assert w.bucket.values() == {"k": b"new"}
        w.bucket.answer("$KV.b.other", *[WRONG_SEQUENCE_OF_SEVERAL] * 99)
        with takes(sum(CREATE_PAUSES)), pytest.raises(errors.KeyWrongLastSequenceError, match="all the time"):
            await w.kv.create("other", b"new")
        await cut_short(w.kv.create, "other", b"new", after=0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda kv: kv.put("k", b"v"),
        lambda kv: kv.create("k", b"v"),
        lambda kv: kv.update("k", b"v", 0),
        lambda kv: kv.delete("k"),
        lambda kv: kv.purge("k"),
    ],
)
async def test_whether_it_was_stored_is_not_known_where_the_acknowledgement_was_lost(
    call: Callable[[KeyValue], Awaitable[object]],
) -> None:
    async with open_keys() as w:

        def cut(frame: Frame) -> str:
            w.server.cut()
            return "lost"

        w.bucket.hook = cut
        with pytest.raises(
            errors.DisconnectedError, match=r"of key 'k' .* bucket 'b': .*whether it was stored is not known"
        ) as caught:
            await call(w.kv)
        assert caught.value.sent is True
        assert len(w.bucket.messages) == 1, "it was, and once"


async def test_no_acknowledgement_in_time_leaves_it_open_as_well(autojump_clock: trio.testing.MockClock) -> None:
    async with open_keys(client={"request_timeout": 3}) as w:
        w.bucket.answer("$KV.>", "lost")
        with takes(3), pytest.raises(errors.TimeoutError, match="whether it was stored is not known"):
            await w.kv.put("k", b"v")


async def test_a_bucket_without_a_leader_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    async with open_keys() as w:
        w.bucket.answer("$KV.>", "503", "503")
        with takes(0.5):
            assert await w.kv.put("k", b"v") == 1
        w.bucket.answer("$KV.>", "503", "503", "503")
        with pytest.raises(errors.NoStreamResponseError, match="put of key 'k' into bucket 'b'"):
            await w.kv.put("k", b"v")


async def test_a_ttl_needs_limit_markers_and_the_error_says_so() -> None:
    async with open_keys() as w:
        for call in (w.kv.create("k", b"", msg_ttl=5), w.kv.purge("k", msg_ttl="never")):
            with pytest.raises(
                errors.BadRequestError, match=r"bucket 'b': msg_ttl needs .* \(limit_marker_ttl\)"
            ) as caught:
                await call
            assert caught.value.err_code == NO_TTL["error"]["err_code"]


async def test_a_ttl_is_not_left_to_a_server_that_does_not_know_it() -> None:
    """It would store the value for ever, without a word."""
    async with open_keys() as w:
        w.bucket.level = 0
        for call in (w.kv.create("k", b"", msg_ttl=5), w.kv.purge("k", msg_ttl=5)):
            with pytest.raises(errors.APIError, match=r"key 'k' .* bucket 'b': .*msg_ttl.*2\.11"):
                await call
        await w.kv.create("k")
        assert len(w.bucket.messages) == len(w.server.sent("PUB", "$JS.API.INFO")) == 1


async def test_what_expires_leaves_a_marker_over_which_it_is_created_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_keys(limit_marker_ttl=60, timed=True) as w:
        await w.kv.create("k", b"v", msg_ttl=5)
        await w.kv.create("kept", b"v", msg_ttl="never")
        await trio.sleep(6)
        with pytest.raises(errors.KeyDeletedError) as gone:
            await w.kv.get("k")
        assert gone.value.op == "PURGE"
        assert await w.kv.keys() == ["kept"]
        await w.kv.create("k", b"again", msg_ttl=5)
        await w.kv.purge("kept", msg_ttl=5)
        await trio.sleep(70)
        assert not w.bucket.messages


@pytest.mark.parametrize("answer", [UNAVAILABLE, refusal(400, 10054, "message size exceeds maximum allowed")])
async def test_a_refusal_says_what_was_refused(answer: dict[str, Any]) -> None:
    async with open_keys() as w:
        w.bucket.answer("$KV.>", answer)
        with pytest.raises(errors.APIError, match=f"put of key 'k' into bucket 'b': {answer['error']['description']}"):
            await w.kv.put("k", b"v")


async def test_an_acknowledgement_of_another_stream_is_none_of_the_bucket() -> None:
    async with open_keys() as w:
        w.bucket.answer("$KV.>", {"stream": "EVERYTHING", "seq": 7})
        with pytest.raises(
            errors.APIError, match="put of key 'k' into bucket 'b': it was stored in stream 'EVERYTHING'"
        ):
            await w.kv.put("k", b"v")


async def test_an_acknowledgement_counts_from_the_domain_that_was_asked() -> None:
    server = FakeServer()
    server.on("$JS.hub.API.$KV.b.k", lambda _: {"stream": "KV_b", "seq": 3, "domain": "hub"})

    def twice(frame: Frame) -> None:
        for domain, seq in (("leaf", 8), ("hub", 9)):
            server.publish(frame.reply, json.dumps({"stream": "KV_b", "seq": seq, "domain": domain}).encode())

    server.on("$JS.hub.API.$KV.b.both", twice)
    async with open_world(server) as (_, nc, nursery), open_events(nursery, nc) as told:
        kv = find_keys(nc, domain="hub")
        assert await kv.put("k", b"v") == 3
        assert await kv.put("both", b"v") == 9
        assert [event.domain for event in arrived(told, events.StoredElsewhere)] == ["leaf"]


async def test_what_is_written_through_a_mirror_is_acknowledged_and_purged_at_its_origin() -> None:
    server = FakeServer()
    for prefix, stream in (("$JS.hub.API", "KV_origin"), ("$JS.API", "KV_b")):
        server.on(f"{prefix}.STREAM.PURGE.{stream}", lambda _: {"success": True})
    async with open_keys(server=server) as w:
        w.kv.__access__().api.whereabouts.origin_found("KV_b", Origin("$JS.hub.API", "KV_origin", "hub"))
        w.bucket.mark("k", age=3600)
        assert await w.kv.purge_deletes() == 1
        asked = [frame.subject for frame in server.sent("PUB") if ".STREAM.PURGE." in frame.subject]
        assert asked == ["$JS.hub.API.STREAM.PURGE.KV_origin", "$JS.API.STREAM.PURGE.KV_b"]

        def twice(frame: Frame) -> None:
            for stream, domain, seq in (("KV_b", "leaf", 8), ("KV_origin", "hub", 9)):
                server.publish(frame.reply, json.dumps({"stream": stream, "seq": seq, "domain": domain}).encode())

        server.on("$KV.b.k", twice, first=True)
        assert await w.kv.put("k", b"v") == 9


async def test_of_a_mirror_the_leader_is_its_origins_and_a_denial_its_own() -> None:
    server = FakeServer()
    there = {"message": {"subject": "$KV.b.k", "seq": 9, "data": "dg==", "time": "2026-11-29T12:00:00Z"}}
    server.on("$JS.hub.API.STREAM.MSG.GET.KV_origin", lambda _: there)
    async with open_keys(server=server) as w:
        w.kv.__access__().api.whereabouts.origin_found("KV_b", Origin("$JS.hub.API", "KV_origin", "hub"))
        assert (await w.kv.get("k", leader=True)).revision == 9
        with pytest.raises(errors.KeyNotFoundError):
            await w.kv.get("k")
        server.on("$KV.b.k", lambda _: {**WRONG_SEQUENCE, "domain": "hub"}, first=True)
        with pytest.raises(errors.KeyWrongLastSequenceError, match="it has a value, in revision 9"):
            await w.kv.create("k", b"mine")


# -- lists -------------------------------------------------------------------------------------------------------------------


async def test_keys_are_those_with_a_value_each_once_and_the_server_filters() -> None:
    async with open_keys(history=3) as w:
        for key in ("a.x", "a.y", "b.x", "a.z", "a.x"):
            w.bucket.set(key)
        for key, kind in (("a.y", "DEL"), ("b.x", "PURGE"), ("gone", "MaxAge")):
            w.bucket.mark(key, kind)
        w.bucket.set("b.x", b"again")
        assert await w.kv.keys() == ["a.z", "a.x", "b.x"]
        assert await w.kv.keys("a.*") == ["a.z", "a.x"]
        assert await w.kv.keys(["b.>", "a.z"]) == ["a.z", "b.x"]
        assert await w.kv.keys(["x"]) == await w.kv.keys("gone") == []
        created = w.server.sent("PUB", "$JS.API.CONSUMER.CREATE.KV_b.>")
        assert created[1].subject.endswith(".$KV.b.a.*")
        assert all(json.loads(frame.payload)["config"]["headers_only"] for frame in created)
        await w.nc.flush()
        assert not w.bucket.consumers


@pytest.mark.parametrize("kind", ["nothing", "only deleted", "all purged while it is read"])
async def test_lists_of_what_is_not_there_are_empty_and_end(kind: str) -> None:
    async with open_keys(history=3) as w:
        if kind == "only deleted":
            w.bucket.mark("k", "PURGE")
        elif kind == "all purged while it is read":
            w.bucket.set("k")
            create = w.bucket.create

            def purged(frame: Frame) -> Any:  # noqa: ANN401 - as the original
                answer = create(frame)
                w.bucket.forget(">")
                return answer

            w.server.on("$JS.API.CONSUMER.CREATE.KV_b.>", purged, first=True)
        assert await w.kv.keys() == []
        assert [entry.operation for entry in await w.kv.history("k")] == (["PURGE"] if kind == "only deleted" else [])
        assert await w.kv.purge_deletes(-1) == (kind == "only deleted")


async def test_history_is_all_that_is_stored_of_one_key_oldest_first() -> None:
    async with open_keys(history=5) as w:
        for number in range(8):
            await w.kv.put("k", b"%d" % number)
            await w.kv.put("k.other", b"")
        await w.kv.delete("k")
        entries = await w.kv.history("k")
        assert [(entry.value, entry.operation) for entry in entries] == [
            *((b"%d" % number, None) for number in range(4, 8)),
            (b"", "DEL"),
        ]
        assert [entry.revision for entry in entries] == sorted(entry.revision for entry in entries)
        assert {entry.key for entry in entries} == {"k"}
        assert await w.kv.get("k", entries[0].revision) == w_entry(entries[0])


def w_entry(entry: api.KeyValueEntry) -> api.KeyValueEntry:
    """The same as a get gives it: read alone."""
    return api.KeyValueEntry(entry.bucket, entry.key, entry.value, entry.revision, entry.created, 0, entry.operation)


async def test_a_list_waits_for_a_replica_that_lags() -> None:
    async with open_keys(replicas=3, history=2) as w:
        w.bucket.set("old")
        w.bucket.lag_behind()
        w.bucket.set("new")
        w.bucket.set("new")
        found: list[object] = []

        async def read() -> None:
            found.extend([await w.kv.keys(), [entry.revision for entry in await w.kv.history("new")]])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await settled()
            assert not found
            w.bucket.catch_up()
        assert found == [["old", "new"], [2, 3]]


async def test_a_list_of_a_server_that_goes_silent_ends_at_its_idle_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_keys() as w:
        w.bucket.set("k")
        w.server.on("$JS.API.CONSUMER.MSG.NEXT.>", lambda _: None, first=True)
        with pytest.raises(errors.TimeoutError, match="keys of bucket 'b': "):
            await w.kv.keys()


# -- purging markers ---------------------------------------------------------------------------------------------------------


async def test_old_markers_go_younger_ones_and_all_values_stay() -> None:
    async with open_keys(history=5) as w:
        w.bucket.set("old", age=4000)
        w.bucket.mark("old", age=3600)
        w.bucket.set("young", age=4000)
        young = w.bucket.mark("young", age=60)
        purged = w.bucket.mark("purged", "PURGE", age=60)
        w.bucket.set("alive", age=4000)
        w.bucket.mark("expired", "MaxAge", age=3600)
        assert await w.kv.purge_deletes() == 2
        assert [(w.bucket.key(m), m.sequence) for m in w.bucket.messages] == [
            ("young", young),
            ("purged", purged),
            ("alive", purged + 1),
        ]
        assert await w.kv.purge_deletes(-1) == 2
        assert w.bucket.values() == {"alive": b"x"}
        assert len(w.bucket.messages) == 1
        await w.nc.flush()
        assert not w.bucket.consumers


async def test_what_is_put_while_markers_are_purged_stays() -> None:
    async with open_keys() as w:
        w.bucket.mark("k", age=3600)
        purge = w.bucket.purge

        def overtaken(frame: Frame) -> Any:  # noqa: ANN401 - as the original
            w.bucket.set("k", b"new")
            return purge(frame)

        w.server.on("$JS.API.STREAM.PURGE.KV_b", overtaken, first=True)
        assert await w.kv.purge_deletes() == 1
        assert w.bucket.values() == {"k": b"new"}


async def test_purges_of_many_markers_are_under_way_together_and_bounded() -> None:
    async with open_keys() as w:
        for number in range(200):
            w.bucket.mark(f"k{number}", age=3600)
        asked: list[Frame] = []
        w.server.on("$JS.API.STREAM.PURGE.KV_b", lambda frame: asked.append(frame), first=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.kv.purge_deletes)
            await settled()
            assert len(asked) == 64
            nursery.cancel_scope.cancel()
        assert w.nc.statistics().pending_requests == 0


async def test_a_purge_that_is_refused_says_of_what() -> None:
    async with open_keys() as w:
        w.bucket.mark("k", age=3600)
        w.server.on("$JS.API.STREAM.PURGE.KV_b", lambda _: refusal(500, 10047, "no"), first=True)
        with pytest.raises(errors.ServerError, match="purge of deleted keys of bucket 'b': no"):
            await w.kv.purge_deletes()
        w.server.on("$JS.API.STREAM.PURGE.KV_b", lambda _: w.server.cut(), first=True)
        with pytest.raises(errors.DisconnectedError, match="purge of deleted keys of bucket 'b': "):
            await w.kv.purge_deletes()


# -- other forms of keys and values ------------------------------------------------------------------------------------------


def of_codecs(w: KeysWorld) -> KeyValue:
    return w.kv.with_codecs([PathCodec(), Base64Codec()], Base64Codec())


async def test_codecs_are_between_the_program_and_every_call() -> None:
    async with open_keys(history=3) as w:
        kv = of_codecs(w)
        stored = Base64Codec().encode_key("_root_.a b.c")
        await kv.put("/a b/c", "é")
        assert w.bucket.values() == {stored: Base64Codec().encode_value("é".encode())}
        found = await kv.get("/a b/c")
        assert (found.key, found.value) == ("/a b/c", "é".encode())
        assert (await kv.get("/a b/c", found.revision, leader=True)).key == "/a b/c"
        second = await kv.update("/a b/c", b"2", found.revision)
        assert [entry.value for entry in await kv.history("/a b/c")] == ["é".encode(), b"2"]
        async with open_watcher(w.nursery, kv) as watcher:
            assert [(entry.key, entry.value) for entry in await watcher.snapshot()] == [("/a b/c", b"2")]
        assert await kv.keys() == await kv.keys("/a b/*") == await kv.keys(["/x", "/>"]) == ["/a b/c"]
        await kv.delete("/a b/c", second)
        with pytest.raises(errors.KeyDeletedError, match="'/a b/c'") as gone:
            await kv.get("/a b/c")
        assert gone.value.entry.key == "/a b/c"
        await kv.create("/a b/c", b"3")
        await kv.purge("/a b/c")
        assert await kv.keys() == []
        assert await kv.purge_deletes(-1) == 1
        assert not w.bucket.messages


async def test_a_lease_is_held_under_the_stored_key(autojump_clock: trio.testing.MockClock) -> None:
    async with open_keys(limit_marker_ttl=5, timed=True) as w:
        kv = of_codecs(w)
        async with open_lease(w.nursery, kv, "/a b", ttl=9, value=b"me") as lease:
            assert (lease.key, lease.value) == ("/a b", b"me")
            assert list(w.bucket.values()) == [Base64Codec().encode_key("_root_.a b")]
            assert (await kv.get("/a b")).value == b"me"
            await trio.sleep(10)
            assert (await kv.get("/a b")).revision > lease.revision, "it is renewed"
        assert await kv.keys() == []


async def test_what_others_stored_ends_nothing_but_itself(caplog: pytest.LogCaptureFixture) -> None:
    async with open_keys() as w, open_events(w.nursery, w.nc) as told:
        kv = of_codecs(w)
        await kv.put("mine", b"1")
        w.bucket.set("a", b"MQ")
        w.bucket.set(Base64Codec().encode_key("theirs"), b"no base64!")
        with caplog.at_level(logging.WARNING):
            assert await kv.keys() == ["mine", "theirs"]
            async with open_watcher(w.nursery, kv) as watcher:
                assert [entry.key for entry in await watcher.snapshot()] == ["mine"]
                await kv.put("mine", b"2")
                assert (await watcher.receive()).value == b"2"
            assert await kv.history("theirs") == []
        with pytest.raises(
            errors.KeyValueError, match="the value of key 'theirs' of bucket 'b' in revision 3 cannot be decoded"
        ):
            await kv.get("theirs")
        assert len(arrived(told, events.ForeignDataSkipped)) == 1
        assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


class Failing:
    """A codec of which everything fails."""

    def encode_key(self, key: str) -> str:
        raise LookupError(f"no room for {key}")

    decode_key = encode_filter = encode_key

    def encode_value(self, value: bytes) -> bytes:
        raise LookupError("no value for you")

    decode_value = encode_value


@pytest.mark.parametrize(
    "call",
    [
        lambda kv: kv.get("k"),
        lambda kv: kv.put("k", b""),
        lambda kv: kv.create("k", b""),
        lambda kv: kv.update("k", b"", 1),
        lambda kv: kv.delete("k"),
        lambda kv: kv.purge("k"),
        lambda kv: kv.history("k"),
        lambda kv: kv.keys("k"),
    ],
)
async def test_what_a_codec_raises_goes_to_who_called_before_anything_is_sent(
    call: Callable[[KeyValue], Awaitable[object]],
) -> None:
    async with open_keys() as w:
        await w.nc.flush()
        before = len(w.server.frames)
        with pytest.raises(LookupError, match="no room for k"):
            await call(w.kv.with_codecs(keys=Failing()))
        kv = w.kv.with_codecs(values=Failing())
        for writing in (kv.put("k", b""), kv.create("k"), kv.update("k", "v", 1)):
            with pytest.raises(LookupError, match="no value for you"):
                await writing
        with pytest.raises(TypeError, match="put of key 'k' into bucket 'b': value must be bytes or str, not int"):
            await w.kv.with_codecs(values=Base64Codec()).put("k", 7)  # type: ignore[arg-type]
        await w.nc.flush()
        assert len(w.server.frames) == before + 1


async def test_what_a_codec_makes_of_a_key_has_to_be_one() -> None:
    async with open_keys() as w:
        with pytest.raises(
            errors.InvalidKeyError, match=r"^key 'a//b' of bucket 'b', of which its codecs make 'a\.\.b': it must be"
        ):
            await w.kv.with_codecs(PathCodec()).put("a//b", b"")
        assert not written(w.server)


# -- a handle that only reads ------------------------------------------------------------------------------------------------


@forgets_callers
async def test_calls_that_fail_leave_no_cycle_behind() -> None:
    async with open_keys() as w:
        js = w.nc.jetstream()

        async def taken() -> None:
            await w.kv.create("k", b"2")

        async def over_a_marker() -> None:
            await w.kv.delete("m")
            await w.kv.create("m")

        async def updated() -> None:
            await w.kv.update("k", b"2", 77)

        async def missed() -> None:
            await w.kv.get("no")

        async def configured_otherwise() -> None:
            await js.create_key_value(bucket="b", history=5)

        await w.kv.put("k", b"1")
        await assert_failures_are_let_go(taken, over_a_marker, updated, missed, configured_otherwise)


async def test_a_read_only_handle_reads_and_has_nothing_to_write_with() -> None:
    async with open_keys() as w:
        await of_codecs(w).put("/k", b"v")
        kv = of_codecs(w).read_only()
        assert type(kv) is ReadOnlyKeyValue
        assert repr(kv) == "<ReadOnlyKeyValue 'b'>"
        assert (kv.bucket, kv.stream) == ("b", "KV_b")
        assert (await kv.get("/k")).value == b"v"
        assert await kv.keys() == ["/k"]
        assert len(await kv.history("/k")) == 1
        async with open_watcher(w.nursery, kv) as watcher:
            assert [entry.key for entry in await watcher.snapshot()] == ["/k"]
        for name in ("put", "create", "update", "delete", "purge", "purge_deletes", "read_only"):
            assert not hasattr(kv, name)
        assert type(kv.with_codecs()) is ReadOnlyKeyValue


def test_a_bucket_in_memory_is_a_stream_like_the_real_one() -> None:
    bucket = FakeKeyValue(FakeServer(), "b", history=3, limit_marker_ttl=5)
    config = bucket.about()["config"]
    assert (config["name"], config["max_msgs_per_subject"]) == ("KV_b", 3)
    assert config["subject_delete_marker_ttl"] == 5_000_000_000
