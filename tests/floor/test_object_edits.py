"""What is said of objects, their names, links, and chunks that nobody names: against a bucket in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import nats.js.api as nats_api
import pytest
import trio

from tests.cancelling import Cut, cancel_everywhere
from tests.fake_jetstream import FULL, UNAVAILABLE, WRONG_SEQUENCE, FakeObjects, digest_of, refusal
from tests.fakes import NO_RESPONDERS, FakeServer, Frame, matches
from tests.worlds import Listener, cut_into, meta_subject, open_bucket, seam, takes
from trionats import ObjectStore, api, errors, events, open_watcher
from trionats._jetstream.objects import orphans

pytestmark = pytest.mark.usefixtures("autojump_clock")

CHUNKS, METAS = "$O.b.C.>", "$O.b.M.>"
SEALED = refusal(400, 10109, "invalid operation on sealed stream")
SAID = api.ObjectMeta(description="d", headers={"A": ["1"]}, metadata={"m": "n"})
TO_M = api.ObjectMeta(name="m")


def infos(bucket: FakeObjects) -> dict[str, dict[str, Any]]:
    return {info["name"]: info for info in bucket.metas}


def before(bucket: FakeObjects, number: int, act: Any, pattern: str = METAS) -> None:  # noqa: ANN401
    """Do something before the message of that number that is published to what matches."""
    seen = 0

    def hook(frame: Frame) -> object:
        nonlocal seen
        if matches(pattern, frame.subject):
            seen += 1
            if seen == number:
                return act()
        return None

    bucket.hook = hook


# -- what is said ----------------------------------------------------------------------------------------------------------


async def test_what_is_said_is_replaced_and_what_others_wrote_and_the_data_stay() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add(
            "n", b"one", b"two", colour="red", description="old", options={"max_chunk_size": 3, "shape": "round"}
        )
        info = await store.update_meta("n", SAID)
        [written] = bucket.metas
        assert (written["description"], written["headers"], written["metadata"]) == ("d", {"A": ["1"]}, {"m": "n"})
        assert (written["colour"], written["options"]) == ("red", {"max_chunk_size": 3, "shape": "round"})
        assert bucket.contents() == {"n": b"onetwo"}
        assert replace(await store.get_info("n"), mtime=info.mtime) == info
        assert [info.revision] == bucket.sequences(METAS)
        assert not bucket.purged()
        assert (await store.update_meta("n", api.ObjectMeta())).description is None


async def test_a_part_is_changed_by_way_of_the_meta_that_was_read() -> None:
    async with open_bucket() as (_, store, _, _):
        meta = (await store.put("n", b"x", SAID)).meta
        meta.description = "new"
        await store.update_meta("n", meta)
        info = await store.get_info("n")
    assert (info.description, info.headers, info.metadata) == ("new", {"A": ["1"]}, {"m": "n"})


async def test_nats_pys_meta_leaves_the_metadata_that_it_has_no_word_for() -> None:
    async with open_bucket() as (_, store, _, _):
        await store.put("n", b"x", SAID)
        info = await store.update_meta("n", nats_api.ObjectMeta(name="n", description="new"))
    assert (info.description, info.headers, info.metadata) == ("new", None, {"m": "n"})


@pytest.mark.parametrize("meta", [SAID, TO_M])
async def test_what_is_not_there_or_not_any_more_has_nothing_said_of_it(meta: api.ObjectMeta) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("gone", deleted=True)
        with pytest.raises(errors.ObjectDeletedError, match="object 'gone' in bucket 'b' was deleted"):
            await store.update_meta("gone", meta)
        with pytest.raises(errors.ObjectNotFoundError, match="there is no object 'none' in bucket 'b'"):
            await store.update_meta("none", meta)
        bucket.store(meta_subject("b", "odd"), b"{}")
        with pytest.raises(errors.BadObjectMetaError, match="object 'odd' in bucket 'b'"):
            await store.update_meta("odd", meta)
        assert not bucket.server.sent("PUB", METAS)


@pytest.mark.parametrize(
    ("name", "meta", "error", "text"),
    [
        ("", SAID, errors.InvalidObjectNameError, "is empty"),
        ("n", api.ObjectMeta(name=""), errors.InvalidObjectNameError, "is empty"),
        ("n", api.ObjectMeta(name="x" * 3000), errors.InvalidObjectNameError, "is longer than"),
        ("n", None, TypeError, "object 'n': meta must be an ObjectMeta, not NoneType"),
        ("n", api.ObjectMeta(description=5), errors.BadObjectMetaError, "its description must be text, not int"),  # type: ignore[arg-type]
    ],
)
async def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    name: str,
    meta: Any,  # noqa: ANN401 - what it should not be
    error: type[Exception],
    text: str,
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        with pytest.raises(error, match=text):
            await store.update_meta(name, meta)
    assert not bucket.server.sent("PUB")


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda store: store.get_info("n", 1), TypeError, "get_info: show_deleted must be True or False, not int"),
        (lambda store: store.list("all"), TypeError, "list: ignore_deletes must be True or False, not str"),
        (lambda store: store.put_file("a\0b"), ValueError, r"put_file: path 'a\\x00b' is no file's"),
    ],
)
async def test_arguments_of_another_kind_are_refused_before_anything_is_asked(
    call: Callable[[Any], Awaitable[object]], error: type[Exception], text: str
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        with pytest.raises(error, match=text):
            await call(store)
    assert not bucket.server.sent("PUB")


async def test_a_meta_that_is_too_large_is_refused_by_its_size_once_the_limit_is_known() -> None:
    async with open_bucket(server=FakeServer(info={"max_payload": 1000})) as (bucket, store, _, _):
        bucket.add("n", b"x")
        for meta in (api.ObjectMeta(description="d" * 900), api.ObjectMeta(name="m", description="d" * 500)):
            text = "object '[nm]' in bucket 'b': its meta takes .* bytes, and the server takes messages of 1000"
            with pytest.raises(errors.BadObjectMetaError, match=text):
                await store.update_meta("n", replace(meta, headers={"A": ["x" * 300]}))
    assert bucket.contents() == {"n": b"x"}


@pytest.mark.parametrize(
    ("answers", "error", "text"),
    [
        ([WRONG_SEQUENCE], errors.BadRequestError, "update of object 'n' in bucket 'b': somebody else changed it"),
        ([FULL], errors.BadRequestError, "update of object 'n' in bucket 'b': maximum bytes exceeded"),
        (["503"] * 3, errors.NoStreamResponseError, "update of object 'n' in bucket 'b'"),
        ([SEALED], errors.BadRequestError, "update of object 'n' in bucket 'b': .*sealed"),
    ],
)
async def test_an_update_that_is_refused_changes_nothing(answers: list[Any], error: type[Exception], text: str) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", b"x", description="old")
        bucket.answer(METAS, *answers)
        with pytest.raises(error, match=text):
            await store.update_meta("n", SAID)
    assert (infos(bucket)["n"]["description"], bucket.contents()) == ("old", {"n": b"x"})


@pytest.mark.parametrize("other", [False, True])
async def test_an_update_whose_acknowledgement_is_lost_is_found_out_about(other: bool) -> None:
    """Sent again, it is stored once; and somebody else's in its place is not taken for it."""
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", b"x", description="old")
        answers = iter(["lost"])

        def cut(frame: Frame) -> object:
            if not matches(METAS, frame.subject) or next(answers, None) is None:
                return None
            if not other:
                bucket.take(frame)
            else:
                bucket.add("n", b"x", description="theirs")
                bucket.forget("$O.b.C.>")
                bucket.store("$O.b.C.nuid-n", b"x", rollup=False)
            bucket.server.cut()
            return "silence"

        bucket.hook = cut
        if other:
            with pytest.raises(errors.DisconnectedError, match="update of object 'n' in bucket 'b'"):
                await store.update_meta("n", SAID)
        else:
            assert (await store.update_meta("n", SAID)).revision == bucket.sequences(METAS)[0]
        assert infos(bucket)["n"]["description"] == ("theirs" if other else "d")
    assert bucket.contents() == {"n": b"x"}


async def test_a_put_in_doubt_that_was_overtaken_by_an_update_leaves_the_data_of_the_object() -> None:
    """Who overtook it has changed what is said of the object, and not replaced it."""
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", b"old")

        def overtake() -> str:
            [written] = bucket.metas
            bucket.store(meta_subject("b", "n"), json.dumps({**written, "description": "new"}).encode())
            bucket.server.cut()
            return "silence"

        before(bucket, 1, overtake)
        with pytest.raises(errors.DisconnectedError):
            await store.put("n", b"newer")
        await trio.sleep(20)
    assert bucket.contents() == {"n": b"old"}


# -- names -----------------------------------------------------------------------------------------------------------------


async def test_a_renamed_object_has_its_data_and_all_that_others_said_and_leaves_a_marker() -> None:
    async with open_bucket() as (bucket, store, _, nursery):
        bucket.add("n", b"one", b"two", colour="red")
        async with open_watcher(nursery, store) as watcher:
            await watcher.snapshot()
            info = await store.update_meta("n", replace(SAID, name="m"))
            seen = [await watcher.receive() for _ in range(3)]
        assert bucket.contents() == {"m": b"onetwo"}
        assert (infos(bucket)["m"]["colour"], info.name, info.nuid) == ("red", "m", "nuid-n")
        assert info.subject == meta_subject("b", "m")
        assert (await store.get("m")).data == b"onetwo"
        with pytest.raises(errors.ObjectDeletedError):
            await store.get_info("n")
        assert [info.name for info in await store.list()] == ["m"]
        assert not bucket.purged()
    # Who watches hears that one has come, and that the other one has gone.
    assert [(one.name, bool(one.deleted)) for one in seen] == [("n", False), ("m", False), ("n", True)]


async def test_a_name_is_free_where_something_was_deleted_and_its_left_over_data_goes() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", b"data")
        bucket.add("m", deleted=True)
        bucket.store("$O.b.C.nuid-m", b"left", rollup=False)
        await store.update_meta("n", TO_M)
    assert bucket.contents() == {"m": b"data"}


async def test_the_name_of_a_live_object_cannot_be_taken() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", b"data")
        bucket.add("m", b"other")
        with pytest.raises(errors.ObjectAlreadyExists, match="there is an object 'm' in bucket 'b' already"):
            await store.update_meta("n", TO_M)
        assert bucket.contents() == {"n": b"data", "m": b"other"}
        assert not bucket.server.sent("PUB", METAS)


async def test_a_link_can_be_renamed_and_still_leads_there() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", b"data")
        # As nats.js writes one: without a nuid.
        link = {"name": "l", "bucket": "b", "options": {"link": {"bucket": "b", "name": "n"}}}
        bucket.store(meta_subject("b", "l"), json.dumps(link).encode())
        info = await store.update_meta("l", TO_M)
        assert info.options is not None
        assert (info.name, info.options.link) == ("m", api.ObjectLink(bucket="b", name="n"))
    assert infos(bucket)["l"]["deleted"] is True


async def test_names_beyond_ascii_stay_in_the_place_in_which_they_stand() -> None:
    """And a new name goes where everybody looks, unless nats.js has one there that was deleted."""
    latin = f"$O.b.M.{base64.urlsafe_b64encode('café'.encode('latin-1')).decode()}"
    async with open_bucket() as (bucket, store, _, _):
        written = {"name": "café", "bucket": "b", "nuid": "N1", "size": 0, "chunks": 0}
        bucket.store(latin, json.dumps(written).encode())
        assert (await store.update_meta("café", SAID)).subject == latin
        assert (await store.update_meta("café", replace(SAID, name="été"))).subject == meta_subject("b", "été")
        assert (await store.update_meta("été", replace(SAID, name="café"))).subject == latin
        assert len(bucket.sequences(METAS)) == 2


def theirs(bucket: FakeObjects, name: str, purged: str = "") -> None:
    """Put an object as another client does that was quicker."""
    bucket.store("$O.b.C.T", b"theirs", rollup=False)
    data = {"name": name, "bucket": "b", "nuid": "T", "deleted": False}
    counts = {"size": 6, "chunks": 1, "digest": digest_of(b"theirs")}
    bucket.store(meta_subject("b", name), json.dumps({**data, **counts}).encode())
    bucket.forget(f"$O.b.C.{purged}")


@pytest.mark.parametrize(
    ("step", "name", "purged", "left"),
    [
        (1, "n", "nuid-n", {"n": b"theirs"}),
        (2, "m", "", {"n": b"data", "m": b"theirs"}),
        # Whoever replaces the old one before the new one is there finds that nobody else has its data.
        (2, "n", "nuid-n", {"n": b"theirs"}),
        (3, "n", "", {"n": b"theirs"}),
    ],
)
async def test_a_renaming_gives_way_to_whoever_was_quicker(
    step: int, name: str, purged: str, left: dict[str, bytes]
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", b"data")
        before(bucket, step, lambda: theirs(bucket, name, purged))
        with pytest.raises(errors.BadRequestError, match="somebody else changed it at the same time"):
            await store.update_meta("n", TO_M)
    assert bucket.contents() == left


async def test_a_new_name_goes_and_the_data_stays_where_the_old_one_was_edited_meanwhile() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", b"data")

        def edit() -> None:
            bucket.store(meta_subject("b", "n"), json.dumps({**infos(bucket)["n"], "description": "new"}).encode())

        before(bucket, 3, edit)
        with pytest.raises(errors.BadRequestError, match="renaming of object 'n' to 'm' in bucket 'b': somebody else"):
            await store.update_meta("n", TO_M)
    assert bucket.contents() == {"n": b"data"}


async def broken_off(bucket: FakeObjects, store: ObjectStore) -> None:
    """Let a renaming from "n" to "m" be broken off when both names are there."""
    bucket.add("n", b"data")
    bucket.answer(METAS, None, None, FULL)
    text = "maximum bytes exceeded.*; it has its new name, and may have the old one, too, until that is done again"
    with pytest.raises(errors.BadRequestError, match=f"renaming of object 'n' to 'm' in bucket 'b': {text}"):
        await store.update_meta("n", TO_M)
    assert sorted(info["name"] for info in bucket.metas if info["nuid"] == "nuid-n") == ["m", "n"]
    assert (await store.get("n")).data == (await store.get("m")).data == b"data"


@pytest.mark.parametrize(
    ("calls", "left"),
    [
        ([("delete", "n")], {"m": b"data"}),
        ([("delete", "m")], {"n": b"data"}),
        ([("put", "n", b"new")], {"n": b"new", "m": b"data"}),
        ([("put", "m", b"new")], {"n": b"data", "m": b"new"}),
        ([("delete", "n"), ("delete", "n"), ("put", "n", b"new")], {"n": b"new", "m": b"data"}),
        ([("delete", "n"), ("delete", "m")], {}),
        ([("put", "n", b"new"), ("put", "m", b"newer")], {"n": b"new", "m": b"newer"}),
        ([("update_meta", "n", TO_M)], {"m": b"data"}),
        ([("update_meta", "m", api.ObjectMeta(name="n"))], {"n": b"data"}),
        ([("update_meta", "n", SAID), ("update_meta", "m", SAID), ("update_meta", "n", TO_M)], {"m": b"data"}),
        ([("delete", "n"), ("update_meta", "m", api.ObjectMeta(name="k")), ("delete", "k")], {}),
    ],
)
async def test_two_names_of_one_object_do_not_take_its_data_from_each_other(
    calls: list[tuple[Any, ...]], left: dict[str, bytes]
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        await broken_off(bucket, store)
        for call, *arguments in calls:
            await getattr(store, call)(*arguments)
    assert bucket.contents() == left


async def test_an_object_with_two_names_gets_no_third_one() -> None:
    async with open_bucket() as (bucket, store, _, _):
        await broken_off(bucket, store)
        for name, other in (("n", "m"), ("m", "n")):
            text = (
                f"object '{name}' in bucket 'b': a renaming was broken off, and it is also '{other}': do that again, or"
            )
            with pytest.raises(errors.BadObjectMetaError, match=text):
                await store.update_meta(name, api.ObjectMeta(name="k"))


async def test_data_stays_and_says_so_where_nobody_can_say_whether_it_has_another_name() -> None:
    async with open_bucket() as (bucket, store, nc, _):
        bucket.add("n", b"data")
        await store.update_meta("n", TO_M)
        looks = 0

        def get(frame: Frame) -> object:
            nonlocal looks
            looks += 1
            return bucket.get(frame) if looks == 1 else UNAVAILABLE

        bucket.server.on("$JS.API.STREAM.MSG.GET.>", get, first=True)
        told = Listener()
        seam(nc).add_listener(told)
        await store.put("m", b"newer")
        [left] = told.heard(events.ChunksLeft)
        assert (left.subject, "temporarily unavailable" in str(left.reason)) == ("$O.b.C.nuid-n", True)
        text = "deletion of object 'm' from bucket 'b': it is deleted, but its data stays in the bucket: .*unavailable"
        bucket.add("m", b"data", shares_chunks_with=meta_subject("b", "n"))
        looks = 0
        with pytest.raises(errors.ServiceUnavailableError, match=text):
            await store.delete("m")
        seam(nc).remove_listener(told)


@pytest.mark.parametrize("call", ["put", "delete"])
async def test_data_whose_other_name_is_asked_for_during_an_election_goes_when_that_is_over(call: str) -> None:
    async with open_bucket() as (bucket, store, nc, _):
        bucket.add("n", b"data")
        await store.update_meta("n", TO_M)
        answers = [None, UNAVAILABLE, UNAVAILABLE, "503"]

        def get(frame: Frame) -> object:
            answer = answers.pop(0) if answers else None
            if answer == "503":
                bucket.server.publish(frame.reply, headers=NO_RESPONDERS)
                return None
            return answer or bucket.get(frame)

        bucket.server.on("$JS.API.STREAM.MSG.GET.>", get, first=True)
        told = Listener()
        seam(nc).add_listener(told)
        await (store.put("m", b"newer") if call == "put" else store.delete("m"))
        seam(nc).remove_listener(told)
        assert not answers, "it was asked for until there was a leader"
        assert not told.heard(events.ChunksLeft)
        assert bucket.data("nuid-n") == []


@pytest.mark.parametrize("elsewhere", [False, True], ids=["no other place", "another place"])
async def test_a_put_that_learns_of_its_success_when_nobody_waits_any_more_looks_whether_what_it_replaced_has_another_place(
    elsewhere: bool,
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", b"data")
        if elsewhere:  # a renaming was broken off between its two steps
            data: dict[str, Any] = {"nuid": "nuid-n", "size": 4, "chunks": 1, "digest": digest_of(b"data")}
            bucket.add("m", **data, shares_chunks_with=meta_subject("b", "n"))
        else:
            await store.update_meta("n", TO_M)
        late: list[Frame] = []
        bucket.hook = lambda frame: (late.append(frame), "silence")[1] if matches(METAS, frame.subject) else None  # type: ignore[func-returns-value]
        with trio.move_on_after(1):
            await store.put("m", b"newer")
        [frame] = late
        bucket.server.publish(frame.reply, json.dumps(bucket.take(frame)).encode())
        await trio.sleep(1)
        assert bucket.chunks == (2 if elsewhere else 1)
    assert bucket.contents() == {"m": b"newer", **({"n": b"data"} if elsewhere else {})}


# -- links -----------------------------------------------------------------------------------------------------------------


async def test_a_link_takes_the_place_of_what_was_deleted_and_of_links_and_of_no_object() -> None:
    async with open_bucket() as (bucket, store, _, _):
        target = await store.put("n", b"data")
        bucket.add("l", deleted=True)
        bucket.store("$O.b.C.nuid-l", b"left", rollup=False)
        first = await store.add_link("l", target)
        assert bucket.contents() == {"n": b"data", "l": b'-> {"bucket": "b", "name": "n"}'}
        assert replace(await store.get_info("l"), mtime=first.mtime) == first
        await store.add_bucket_link("l", store)
        assert bucket.contents()["l"] == b'-> {"bucket": "b"}'
        await store.add_link("l", nats_api.ObjectInfo(name="far", bucket="other", nuid="N"))
        assert bucket.contents()["l"] == b'-> {"bucket": "other", "name": "far"}'
        for call, leads_to in ((store.add_link, replace(target, name="k")), (store.add_bucket_link, "c")):
            with pytest.raises(errors.ObjectAlreadyExists, match="there is an object 'n' in bucket 'b', and a link"):
                await call("n", leads_to)  # type: ignore[arg-type]
        assert bucket.contents()["n"] == b"data"


async def test_what_cannot_be_a_link_is_refused_before_anything_is_sent() -> None:
    target = api.ObjectInfo("n", "b", "N1")
    async with open_bucket() as (bucket, store, _, _):
        with pytest.raises(errors.InvalidObjectNameError):
            await store.add_link("", target)
        with pytest.raises(errors.InvalidObjectNameError):
            await store.add_link("l", replace(target, name=""))
        for no_bucket in ("", "no bucket", "b.c", "b" * 252):
            with pytest.raises(errors.InvalidBucketNameError):
                await store.add_link("l", replace(target, bucket=no_bucket))
        with pytest.raises(errors.InvalidObjectNameError):
            await store.add_bucket_link("", "c")
        with pytest.raises(errors.InvalidBucketNameError):
            await store.add_bucket_link("l", "no bucket")
        with pytest.raises(errors.BadObjectMetaError, match="deleted"):
            await store.add_link("l", replace(target, deleted=True))
        with pytest.raises(TypeError, match="target must be an ObjectInfo, not str"):
            await store.add_link("l", "n")  # type: ignore[arg-type]
    assert not bucket.server.sent("PUB")


async def test_of_two_who_add_a_link_at_once_one_is_told() -> None:
    async with open_bucket() as (bucket, store, _, _):
        before(bucket, 1, lambda: theirs(bucket, "l"))
        with pytest.raises(errors.BadRequestError, match="link 'l' in bucket 'b': somebody else changed it"):
            await store.add_link("l", api.ObjectInfo("n", "b", "N1"))
    assert bucket.contents() == {"l": b"theirs"}


async def test_a_link_whose_acknowledgement_comes_when_nobody_waits_purges_what_was_left_in_its_place() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("l", deleted=True)
        bucket.store("$O.b.C.nuid-l", b"left", rollup=False)
        late: list[Frame] = []
        bucket.hook = lambda frame: (late.append(frame), "silence")[1]  # type: ignore[func-returns-value]
        with trio.move_on_after(1):
            await store.add_link("l", api.ObjectInfo("n", "b", "N1"))
        bucket.server.publish(late[0].reply, json.dumps(bucket.take(late[0])).encode())
        await trio.sleep(1)
    assert bucket.contents() == {"l": b'-> {"bucket": "b", "name": "n"}'}


# -- sealed ----------------------------------------------------------------------------------------------------------------


async def test_sealing_changes_this_one_field() -> None:
    async with open_bucket() as (bucket, store, _, _):
        config = {"name": "OBJ_b", "max_age": 5, "subjects": ["$O.b.>"], "colour": "red"}
        bucket.server.on("$JS.API.STREAM.INFO.OBJ_b", lambda _: {**bucket.about(), "config": config}, first=True)
        bucket.server.on("$JS.API.STREAM.UPDATE.OBJ_b", lambda _: {**bucket.about(), "config": config})
        await store.seal()
        [asked] = bucket.server.sent("PUB", "$JS.API.STREAM.UPDATE.>")
        assert json.loads(asked.payload) == {**config, "sealed": True}


@pytest.mark.parametrize(
    ("config", "answer", "error", "text"),
    [
        ({"mirror": {"name": "OBJ_a"}}, {}, errors.BadRequestError, "object store 'b' is a mirror of stream 'OBJ_a'"),
        ({}, refusal(500, 10052, "no"), errors.ServerError, "object store 'b': no .*10052"),
        ({}, refusal(404, 10059, "stream not found"), errors.BucketNotFoundError, "there is no object store 'b'"),
    ],
)
async def test_what_cannot_be_sealed_is_named(
    config: dict[str, Any], answer: dict[str, Any], error: type[Exception], text: str
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        config = {"name": "OBJ_b", **config}
        bucket.server.on("$JS.API.STREAM.INFO.OBJ_b", lambda _: {**bucket.about(), "config": config}, first=True)
        bucket.server.on("$JS.API.STREAM.UPDATE.OBJ_b", lambda _: answer)
        with pytest.raises(error, match=text):
            await store.seal()


@pytest.mark.parametrize("after", [0, 2])
async def test_a_sealed_bucket_says_so_of_data_that_stays_in_it(after: int) -> None:
    """And is silent where it has taken none."""
    async with open_bucket() as (bucket, store, nc, _):
        bucket.purges = SEALED
        bucket.answer(CHUNKS, *[None] * after, *[SEALED] * 9)
        told = Listener()
        seam(nc).add_listener(told)
        with pytest.raises(errors.BadRequestError, match=r"put of object 'n' into bucket 'b': .*sealed"):
            await store.put("n", b"x" * 50, cut_into(10))
        assert len(told.heard(events.ChunksLeft)) == bool(after)
        seam(nc).remove_listener(told)


# -- orphans ---------------------------------------------------------------------------------------------------------------


def strew(bucket: FakeObjects, *nuids: str, count: int = 2) -> None:
    """Leave chunks that nobody names."""
    for nuid in nuids:
        for number in range(count):
            bucket.store(f"$O.b.C.{nuid}", b"x" * (number + 1), rollup=False)


async def test_chunks_that_no_object_names_are_found_and_purged() -> None:
    """Those of a deleted one, too; not what an info names that nobody can read, nor what is no object's at all."""
    async with open_bucket() as (bucket, store, nc, _):
        bucket.add("n", b"data", b"more")
        bucket.add("gone", deleted=True)
        bucket.store(meta_subject("b", "odd"), json.dumps({"nuid": "odd", "size": "?"}).encode())
        bucket.store(meta_subject("b", "none"), b"{}")
        strew(bucket, "a", "nuid-gone", "odd", "z.z")
        found = await store.orphans()
        assert [(one.nuid, one.chunks, one.bytes) for one in found] == [("a", 2, 3), ("nuid-gone", 2, 3)]
        assert all(one.oldest <= one.newest for one in found)
        before = len(bucket.messages)
        assert await store.purge_orphans() == found
        assert len(bucket.messages) == before - 4
        assert await store.orphans() == await store.purge_orphans() == []
        await nc.flush()
        assert not bucket.consumers
        # Their data was never read.
        assert not bucket.server.sent("PUB", "$JS.API.DIRECT.GET.>")


async def test_what_a_put_under_way_has_stored_is_no_orphan_while_it_goes_on() -> None:
    async with open_bucket() as (bucket, store, _, _):
        strew(bucket, "a")
        bucket.now = "2023-11-14T22:13:30Z"  # ten seconds behind the chunks
        assert await store.orphans() == await store.orphans(11) == []
        assert [one.nuid for one in await store.orphans(9)] == ["a"]
        assert await store.purge_orphans(11) == []
        assert [one.nuid for one in await store.purge_orphans(0)] == ["a"]
    assert not bucket.messages


@pytest.mark.parametrize("page", [1, 2, 3, 100])
async def test_large_buckets_are_looked_at_page_by_page(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is purged moves the rest of the list, and nothing is left out for that."""
    monkeypatch.setattr(orphans, "LOOKED_AT", 2)
    async with open_bucket() as (bucket, store, _, _):
        bucket.page = page
        for number in range(4):
            bucket.add(f"{number}", b"data")
        lost = [f"{letter}{number}" for letter in "az" for number in range(4)]
        strew(bucket, *lost, count=1)
        assert sorted(one.nuid for one in await store.orphans()) == lost
        assert sorted(one.nuid for one in await store.purge_orphans()) == lost
    assert len(bucket.contents()) == 4


async def test_what_is_named_meanwhile_and_what_is_stored_meanwhile_is_not_purged() -> None:
    async with open_bucket() as (bucket, store, _, _):
        strew(bucket, "a", "b", "c")
        consumers = 0

        def create(frame: Frame) -> object:
            nonlocal consumers
            consumers += 1
            if consumers == 3:  # behind the infos, and the chunks
                info = {"name": "a", "bucket": "b", "nuid": "a", "size": 3, "chunks": 2, "digest": digest_of(b"xxx")}
                bucket.store(meta_subject("b", "a"), json.dumps({**info, "deleted": False}).encode())
                strew(bucket, "b", count=1)
                bucket.forget("$O.b.C.c")
            return bucket.create(frame)

        bucket.server.on("$JS.API.CONSUMER.CREATE.OBJ_b.>", create, first=True)
        assert [one.nuid for one in await store.purge_orphans()] == ["b"]
        assert bucket.data("b") == [b"x"]
        bucket.forget("$O.b.C.b")
    assert bucket.contents() == {"a": b"xxx"}


async def test_an_object_that_is_renamed_while_the_infos_are_read_is_no_orphan() -> None:
    """Its old info goes before it is read, and the new one comes behind the end."""
    async with open_bucket() as (bucket, store, _, _):
        for number in range(3):
            bucket.add(f"{number}", b"data")

        def look(frame: Frame) -> object:
            asked = json.loads(frame.payload)
            if asked["last_by_subj"] == METAS and "late" not in infos(bucket):
                # Whoever looked for the end found that there is more.
                bucket.add("late", b"late")
            return bucket.get(frame)

        bucket.server.on("$JS.API.STREAM.MSG.GET.>", look, first=True)
        bucket.add("late", b"late")
        bucket.forget(meta_subject("b", "late"))
        assert await store.orphans() == []


async def test_infos_that_change_all_the_time_are_an_error_and_not_a_guess() -> None:
    async with open_bucket() as (bucket, store, _, _):
        strew(bucket, "a")
        end = iter(range(1000, 10_000))
        bucket.server.on(
            "$JS.API.STREAM.MSG.GET.>",
            lambda _: {"message": {"subject": "x", "seq": next(end), "time": "2026-11-29T12:00:00Z"}},
            first=True,
        )
        with pytest.raises(errors.TimeoutError, match="search for orphans in bucket 'b': the infos change faster"):
            await store.purge_orphans()
        assert bucket.chunks == 2


async def test_orphans_of_a_mirror_are_its_own_and_what_its_origin_names_is_none() -> None:
    """A purge of the origin is not told to a mirror, and what was put there may not have come yet."""
    async with open_bucket() as (bucket, _, nc, _):
        copy = FakeObjects(bucket.server, "copy")
        about = {"name": "OBJ_copy", "mirror": api.StreamSource("OBJ_b").as_dict()}
        answer = copy.about_subjects
        bucket.server.on("$JS.API.STREAM.INFO.OBJ_copy", lambda frame: {**answer(frame), "config": about}, first=True)
        store = await nc.jetstream().object_store("copy")
        bucket.add("n", b"data")
        for nuid in ("nuid-n", "old"):
            copy.store(f"$O.b.C.{nuid}", b"x", rollup=False)
        assert [one.nuid for one in await store.orphans()] == ["old"]
        assert [one.nuid for one in await store.purge_orphans()] == ["old"]
        assert copy.sequences(CHUNKS) == [1]
    assert bucket.contents() == {"n": b"data"}


@pytest.mark.parametrize("call", ["orphans", "purge_orphans"])
async def test_a_search_for_orphans_that_does_not_get_on_says_why(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_bucket() as (bucket, store, _, _):
        strew(bucket, "a")
        with pytest.raises(ValueError, match=f"{call}: older_than is -1"):
            await getattr(store, call)(-1)
        monkeypatch.setattr(bucket, "serve", lambda _: None)
        with (
            takes(30, 40),
            pytest.raises(errors.TimeoutError, match="search for orphans in bucket 'b': the server has"),
        ):
            await getattr(store, call)()
        monkeypatch.undo()
        bucket.server.on("$JS.API.STREAM.INFO.OBJ_b", lambda _: {"total": "x", "state": {"subjects": []}}, first=True)
        with pytest.raises(errors.APIError, match=r"object store 'b': .*it lists no subjects"):
            await getattr(store, call)()
        missing = refusal(404, 10059, "stream not found")
        bucket.server.on("$JS.API.STREAM.INFO.OBJ_b", lambda _: missing, first=True)
        with pytest.raises(errors.BucketNotFoundError, match="there is no object store 'b'"):
            await getattr(store, call)()


async def test_servers_that_do_not_say_what_time_it_is_are_compared_with_this_machine() -> None:
    async with open_bucket() as (bucket, store, _, _):
        strew(bucket, "a")
        page = {**bucket.about(), "state": {"subjects": {"$O.b.C.a": 2}}}
        bucket.server.on("$JS.API.STREAM.INFO.OBJ_b", lambda _: page, first=True)
        assert [one.nuid for one in await store.orphans()] == ["a"]


async def test_a_refused_purge_of_orphans_says_so() -> None:
    async with open_bucket() as (bucket, store, _, _):
        strew(bucket, "a")
        bucket.purges = SEALED
        with pytest.raises(errors.BadRequestError, match=r"stream 'OBJ_b': .*sealed"):
            await store.purge_orphans()


def test_purging_orphans_cancelled_anywhere_takes_nothing_else() -> None:
    async def scenario(cut: Cut) -> None:
        async with open_bucket() as (bucket, store, nc, _):
            bucket.add("n", b"data")
            strew(bucket, "a", "b")
            gone = await cut(store.purge_orphans)
            assert (gone is None) is cut.cancelled
            assert {one.nuid for one in [*(gone or []), *await store.purge_orphans()]} <= {"a", "b"}
            assert bucket.contents() == {"n": b"data"}
            await nc.flush()
            assert not bucket.consumers

    cancel_everywhere(scenario)


async def test_through_a_mirror_the_other_name_is_looked_for_where_it_was_written() -> None:
    """The mirror may not have it yet, and the data would go that it leads to."""
    async with open_bucket() as (bucket, store, nc, _):
        await broken_off(bucket, store)
        copy = {"name": "OBJ_copy", "mirror": api.StreamSource("OBJ_b").as_dict()}
        lagging = FakeObjects(bucket.server, "copy")
        bucket.server.on("$JS.API.STREAM.INFO.OBJ_copy", lambda _: {**bucket.about(), "config": copy}, first=True)
        lagging.messages = [message for message in bucket.messages if message.subject == meta_subject("b", "n")]
        await (await nc.jetstream().object_store("copy")).delete("n")
    assert bucket.contents() == {"m": b"data"}


@pytest.mark.parametrize("cut", [False, True])
async def test_a_deletion_whose_acknowledgement_is_lost_is_found_out_about_and_purges(cut: bool) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("n", b"data")

        def lose() -> str:
            if cut:
                bucket.take(bucket.server.sent("HPUB", METAS)[-1])
                bucket.server.cut()
                return "silence"
            return "lost"

        before(bucket, 1, lose)
        await store.delete("n")
        assert (bucket.contents(), len(bucket.metas)) == ({}, 1)
        with pytest.raises(errors.ObjectDeletedError):
            await store.get_info("n")
