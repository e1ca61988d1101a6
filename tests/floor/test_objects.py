"""Object stores against a bucket in memory: what is sent, in what order, and what a user is told. What is left behind: `test_purging`."""

from __future__ import annotations

import base64
import enum
import hashlib
import json
from collections import UserList
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any

import pytest
import trio
from multidict import MultiDict

from tests.fake_consumers import Consumer
from tests.fake_jetstream import BUSY, FULL, UNAVAILABLE, WRONG_SEQUENCE, FakeObjects, refusal
from tests.fakes import FakeServer, Frame, matches
from tests.worlds import BucketWorld, cut_into, meta_subject, open_bucket, settled, takes
from trionats import api, errors
from trionats._jetstream.objects import chunks
from trionats._jetstream.objects.chunks import Digest
from trionats._protocol.jetstream.objects.infos import read_info

pytestmark = pytest.mark.usefixtures("autojump_clock")


MIB = 1024 * 1024
TOO_LARGE = refusal(400, 10054, "message size exceeds maximum allowed")
CHUNKS, METAS = "$O.b.C.>", "$O.b.M.>"
LETTERS = bytes(range(100))
IDLE_GET = "get of object 'n' from bucket 'b': the server has not answered for 30 s"


def sha256(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()


# -- put ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 25])
async def test_put_cuts_data_into_chunks_exactly(size: int) -> None:
    data = bytes(range(size))
    async with open_bucket() as (bucket, store, _, _):
        info = await store.put("name", data, cut_into(10))
    assert b"".join(bucket.data(info.nuid)) == data
    assert [len(chunk) for chunk in bucket.data(info.nuid)] == [10] * (size // 10) + ([size % 10] if size % 10 else [])
    said = {"name": "name", "bucket": "b", "nuid": info.nuid, "size": size, "chunks": -(-size // 10)}
    said |= {"digest": f"SHA-256={sha256(data)}", "deleted": False, "options": {"max_chunk_size": 10}}
    assert bucket.metas == [said]
    assert [info.revision] == bucket.sequences(METAS)


async def test_put_of_text_stores_utf8_and_what_the_user_says_of_it() -> None:
    said: dict[str, Any] = {"name": "ignored", "description": "d", "metadata": {"owner": "é"}}
    said["headers"] = {"One": "1", "Two": ["2", "zwei"]}
    meta = api.ObjectMeta(**said)
    async with open_bucket() as (bucket, store, _, _):
        info = await store.put("näme", "tëxt", meta)
        assert bucket.data(info.nuid) == ["tëxt".encode()]
        [stored] = bucket.metas
        assert stored["headers"] == {"One": ["1"], "Two": ["2", "zwei"]}
        assert (stored["name"], stored["description"], stored["metadata"]) == ("näme", "d", {"owner": "é"})
        assert meta == api.ObjectMeta(**said)
        read = await store.get_info("näme")
    assert (read.headers, read.metadata, read.revision) == (stored["headers"], {"owner": "é"}, info.revision)
    assert read.mtime == "2026-11-23T17:00:00Z"
    assert bucket.sequences(meta_subject("b", "näme")) == [info.revision]


class SmallBucket(FakeObjects):
    """A bucket whose stream takes messages of a limited size, and says so when it is asked."""

    limit = 0

    def __init__(self, server: FakeServer, bucket: str) -> None:
        super().__init__(server, bucket)
        self.hook = lambda frame: TOO_LARGE if 0 < self.limit < len(frame.headers) + len(frame.payload) else None

    def about(self) -> dict[str, Any]:
        said = super().about()
        return {**said, "config": {**said["config"], "max_msg_size": self.limit}}

    def asked(self) -> int:
        return len(self.server.sent("PUB", "$JS.API.STREAM.INFO.>"))


@asynccontextmanager
async def open_small_bucket(limit: int) -> AsyncGenerator[BucketWorld[SmallBucket]]:
    async with open_bucket(SmallBucket) as world:
        world.bucket.limit = limit
        yield world._replace(store=await world.nc.jetstream().object_store("b"))


@pytest.mark.parametrize(("limit", "chunk"), [(1000, 1000), (-1, 128 * 1024), (0, 128 * 1024), (MIB * 2, 128 * 1024)])
async def test_chunks_are_never_larger_than_the_bucket_takes(limit: int, chunk: int) -> None:
    data = bytes(300_000)
    async with open_small_bucket(limit) as (bucket, store, _, _):
        info = await store.put("n", data)
        assert b"".join(bucket.data(info.nuid)) == data
        assert {len(one) for one in bucket.data(info.nuid)[:-1]} == {chunk}
        assert info.options is not None
        assert info.options.max_chunk_size == bucket.metas[0]["options"]["max_chunk_size"] == chunk
        assert bucket.asked() == 1, "no more than what finding the bucket takes"


@pytest.mark.parametrize("known", [500_000, 0])
async def test_a_limit_that_was_lowered_since_is_learned_from_the_refusal(known: int) -> None:
    """Nothing is left of the attempt, and the next put knows."""
    data = bytes(300_000)
    async with open_small_bucket(known) as (bucket, store, _, _):
        await store.put("n", b"old")
        bucket.limit = 1000
        info = await store.put("n", data)
        assert b"".join(bucket.data(info.nuid)) == data
        assert (bucket.chunks, bucket.asked()) == (300, 2)
        await store.put("m", data)
        assert bucket.asked() == 2


async def test_a_limit_that_was_raised_since_is_asked_for_before_anything_is_refused() -> None:
    meta = api.ObjectMeta(description="d" * 2000, options=cut_into(40_000).options)
    async with open_small_bucket(1000) as (bucket, store, _, _):
        bucket.limit = 50_000
        info = await store.put("n", bytes(90_000), meta)
        assert [len(chunk) for chunk in bucket.data(info.nuid)] == [40_000, 40_000, 10_000]
        assert bucket.asked() == 2


LONG, FITTING = (api.ObjectMeta(description="d" * size) for size in (64 * 1024, 65_000))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("limit", "refused", "fitting", "text"),
    [
        (
            1000,
            (bytes(1001), cut_into(1001)),
            (bytes(1000), cut_into(1001)),
            "chunks of 1001 bytes were asked for, and the",
        ),
        (65536, (b"data", LONG), (b"data", FITTING), "its meta takes 65[0-9]{3} bytes, and the"),
    ],
    ids=["chunk", "info"],
)
async def test_a_chunk_size_that_was_asked_for_or_an_info_that_does_not_fit_is_an_error_of_its_own(
    known: bool, limit: int, refused: tuple[Any, Any], fitting: tuple[Any, Any], text: str
) -> None:
    """Before any chunk is stored if the limit is known, and with nothing left of it otherwise."""
    async with open_small_bucket(limit if known else 0) as (bucket, store, _, _):
        bucket.limit = limit
        with pytest.raises(
            errors.BadObjectMetaError, match=f"object 'n' in bucket 'b': {text} bucket takes messages of {limit} bytes"
        ):
            await store.put("n", *refused)
        assert bool(bucket.server.sent("PUB", CHUNKS)) is not known or refused[1] is LONG
        assert not bucket.messages
        # What one chunk of the size that fits can hold is no reason to refuse.
        await store.put("n", *fitting)
    assert bucket.chunks == 1


async def test_chunks_are_no_larger_than_the_server_takes_and_none_that_were_asked_for_may_be() -> None:
    async with open_bucket(server=FakeServer(info={"max_payload": 1000})) as (bucket, store, _, _):
        text = "1001 bytes were asked for, and the server takes messages of 1000"
        with pytest.raises(errors.BadObjectMetaError, match=text):
            await store.put("n", bytes(1001), cut_into(1001))
        assert not bucket.server.sent("PUB")
        info = await store.put("n", bytes(2500))
    assert [len(chunk) for chunk in bucket.data(info.nuid)] == [1000, 1000, 500]
    assert info.options is not None
    assert info.options.max_chunk_size == 1000


async def test_a_refusal_for_size_that_nothing_explains_is_passed_on() -> None:
    """As where the bucket is another one's mirror, or may not be asked for its limit."""
    async with open_bucket() as (bucket, store, _, _):
        bucket.answer(CHUNKS, TOO_LARGE)
        with pytest.raises(errors.BadRequestError, match=r"put of object 'n' into bucket 'b': .*10054"):
            await store.put("n", b"data")
    assert not bucket.messages


async def test_a_server_that_takes_less_from_now_on_gets_smaller_chunks() -> None:
    """An account's limit comes behind the first PONG, and another server may have another one."""
    data = bytes(300_000)
    async with open_bucket() as (bucket, store, nc, _):

        def lower(frame: Frame) -> dict[str, Any]:
            bucket.server.announce(max_payload=1000)
            return bucket.get(frame)

        assert nc.max_payload == MIB
        bucket.server.on("$JS.API.STREAM.MSG.GET.>", lower, first=True)
        info = await store.put("n", data)
        assert nc.max_payload == 1000
    assert b"".join(bucket.data(info.nuid)) == data
    assert bucket.chunks == 300


async def test_a_server_that_takes_less_in_the_middle_of_a_put_gets_smaller_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it has stored stays: a stream cannot be read twice, and chunks need not be of one size."""
    monkeypatch.setattr(chunks, "WINDOW_CHUNKS", 1)
    data = bytes(range(250)) * 1200
    async with open_bucket() as (bucket, store, _, _):

        def lower(frame: Frame) -> None:
            if bucket.chunks == 1 and matches(CHUNKS, frame.subject):
                bucket.server.info["max_payload"] = 1000
                bucket.server.announce()

        bucket.hook = lower
        info = await store.put("n", data)
        sizes = [len(chunk) for chunk in bucket.data(info.nuid)]
        assert sizes == [128 * 1024, 128 * 1024, *[1000] * 37, 856]
        assert bucket.contents() == {"n": data}
        assert (info.chunks, info.options) == (40, cut_into(128 * 1024).options)


@pytest.mark.parametrize("stored", [0, 1, 2])
async def test_a_limit_that_is_lowered_in_the_middle_of_a_put_cuts_the_rest_anew(stored: int) -> None:
    """What was stored behind the refused chunk is deleted, and nothing is read twice."""
    async with open_small_bucket(0) as (bucket, store, _, _):

        def lower(frame: Frame) -> Any:  # noqa: ANN401 - whatever a hook may answer
            if not matches(CHUNKS, frame.subject) or bucket.chunks < stored:
                return None
            bucket.limit = 4000
            # The one behind it comes through, as if its limit were another one.
            bucket.hook = lambda _: None
            return TOO_LARGE

        bucket.hook = lower
        data = bytes(range(250)) * 2001
        info = await store.put("n", data)
        sizes = [len(chunk) for chunk in bucket.data(info.nuid)]
        rest = len(data) - stored * 128 * 1024
        assert sizes == [*[128 * 1024] * stored, *[4000] * (rest // 4000), rest % 4000]
        assert bucket.contents() == {"n": data}
        assert info.options == cut_into(128 * 1024 if stored else 4000).options


@pytest.mark.parametrize("known", [1000, 0])
async def test_a_marker_fits_where_the_info_did(known: int) -> None:
    """It has more headers than other clients send; what does not fit any more is left out."""
    async with open_small_bucket(known) as (bucket, store, _, _):
        bucket.limit = 1000
        bucket.add("n", b"x", description="d" * 850)
        await store.delete("n")
    [marker] = bucket.metas
    assert (marker["deleted"], "description" in marker, bucket.chunks) == (True, False, 0)


async def test_replacing_an_object_purges_the_chunks_of_the_old_one() -> None:
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", b"old")
        await store.put("n", b"newer")
    assert bucket.contents() == {"n": b"newer"}
    assert len(bucket.metas) == 1


async def test_the_window_of_unacknowledged_chunks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 50)
    async with open_bucket() as (bucket, store, _, nursery):
        await store.put("before", b"")
        bucket.answer(CHUNKS, *["silence"] * 100)
        nursery.start_soon(store.put, "n", bytes(1000), cut_into(10))
        await settled()
        assert len(bucket.server.sent("PUB", CHUNKS)) == 5
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("pattern", "answers", "error", "text"),
    [
        (
            CHUNKS,
            [None, None, FULL],
            errors.BadRequestError,
            "maximum bytes exceeded",
        ),  # an error is no acknowledgement
        (CHUNKS, [b"hello"], errors.APIError, "no JetStream response"),
        (CHUNKS, [{"seq": "one"}], errors.APIError, "no JetStream response"),
        (CHUNKS, ["503"] * 1000, errors.NoStreamResponseError, "no stream"),
        (METAS, [FULL], errors.BadRequestError, "maximum bytes exceeded"),
        (METAS, ["503"] * 3, errors.NoStreamResponseError, "no stream"),
        (METAS, [WRONG_SEQUENCE], errors.BadRequestError, "somebody else changed it"),  # two writers do not both win
    ],
)
async def test_a_refused_put_says_so_leaves_nothing_and_the_old_object_as_it_was(
    pattern: str, answers: list[Any], error: type[errors.Error], text: str
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        for name, before in (("m", {}), ("n", {"n": b"old"})):
            if before:
                bucket.add("n", b"old")
            bucket.answer(pattern, *answers)
            with pytest.raises(error, match=f"^put of object '{name}' into bucket 'b': .*{text}") as caught:
                await store.put(name, LETTERS, cut_into(10))
            refused = answers[-1].get("error", {}) if isinstance(answers[-1], dict) else {}
            assert getattr(caught.value, "err_code", None) == refused.get("err_code")
            assert bucket.contents() == before
        with pytest.raises(errors.ObjectNotFoundError, match="'m' in bucket 'b'"):
            await store.get_info("m")


@pytest.mark.parametrize("refused", [BUSY, "503"], ids=["too many requests", "no leader"])
async def test_chunks_that_the_server_was_not_ready_for_are_sent_again_in_order(refused: object) -> None:
    """Chunks behind the refused one may have been stored; they must not stay in front of it."""
    async with open_bucket() as (bucket, store, _, _):
        bucket.answer(CHUNKS, None, None, refused, None, refused, None, None, None, None, refused)
        info = await store.put("n", LETTERS, cut_into(10))
    assert b"".join(bucket.data(info.nuid)) == LETTERS
    assert (info.chunks, bucket.chunks) == (10, 10)


async def test_an_info_that_the_server_was_not_ready_for_is_sent_again() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.answer(METAS, "503", "503")
        await store.put("n", b"data")
    assert bucket.contents() == {"n": b"data"}


async def test_what_a_mirror_has_to_take_back_is_deleted_at_its_origin() -> None:
    """Only there is what is put stored; chunks that were refused and sent again lie in order."""
    async with open_bucket() as (bucket, _, nc, _):
        copy = {"name": "OBJ_copy", "mirror": api.StreamSource("OBJ_b").as_dict()}
        bucket.server.on("$JS.API.STREAM.INFO.OBJ_copy", lambda _: {**bucket.about(), "config": copy})
        bucket.server.on("$JS.API.STREAM.MSG.GET.OBJ_copy", bucket.get)
        store = await nc.jetstream().object_store("copy")
        bucket.answer(CHUNKS, None, None, BUSY, None, None)
        info = await store.put("n", LETTERS, cut_into(10))
    assert b"".join(bucket.data(info.nuid)) == LETTERS
    assert bucket.chunks == 10


@pytest.mark.parametrize("chosen", [None, 1.0])
async def test_a_put_that_moves_slowly_goes_on_and_one_that_stalls_fails(chosen: float | None) -> None:
    """What is limited is the time since something last moved, not the time in all, nor that for one reply."""
    async with open_bucket(request_timeout=chosen) as (bucket, store, _, _):
        replies: list[str] = []

        def keep(frame: Frame) -> str | None:
            if not matches(CHUNKS, frame.subject):
                return None
            replies.append(frame.reply)
            return "silence"

        async def put() -> None:
            text = r"put of object 'n' into bucket 'b': .* not answered for 30 s"
            with pytest.raises(errors.TimeoutError, match=text):
                await store.put("n", LETTERS, cut_into(10))

        bucket.hook = keep
        # 7 acknowledgements 20 s apart, then 30 s of silence, then a cleanup behind which nothing is acknowledged.
        with takes(7 * 20 + 30 + 2 - 0.1, 7 * 20 + 30 + 2 + 0.1):
            async with trio.open_nursery() as putting:
                putting.start_soon(put)
                for number in range(7):
                    await trio.sleep(20)
                    bucket.server.publish(replies[number], json.dumps({"stream": "OBJ_b", "seq": number + 1}).encode())
    assert bucket.purged()


def cut_behind(bucket: FakeObjects, *outcomes: str) -> None:
    """Cut the connection behind each of the next infos, which are stored ("lost") or not ("silence")."""
    waiting = list(outcomes)

    def cut(frame: Frame) -> str | None:
        if not (waiting and matches(METAS, frame.subject)):
            return None
        bucket.server.cut()
        return waiting.pop(0)

    bucket.hook = cut


@pytest.mark.parametrize("outcomes", [["lost"], ["silence", "lost"]], ids=["once", "twice"])
async def test_an_info_whose_acknowledgement_was_lost_with_the_connection_is_sent_again_until_that_is_known(
    outcomes: list[str],
) -> None:
    async with open_bucket(reconnect_delay=lambda _: 0.1) as (bucket, store, nc, _):
        cut_behind(bucket, *outcomes)
        info = await store.put("n", b"data")
        await nc.wait_connected()
        assert (await store.get_info("n")).nuid == info.nuid
        assert nc.statistics().reconnects == len(outcomes)
    assert bucket.contents() == {"n": b"data"}
    assert [info.revision] == bucket.sequences(METAS)


@pytest.mark.parametrize("later", ["503", UNAVAILABLE, FULL, "unreadable", "silent"], ids=str)
@pytest.mark.parametrize("cancelled", [False, True])
async def test_no_later_refusal_takes_the_chunks_of_an_object_that_was_stored(
    later: Any,  # noqa: ANN401 - what the server answers
    cancelled: bool,
) -> None:
    """A refusal of the second sending says nothing of the first, whose acknowledgement was lost."""
    async with open_bucket(reconnect_delay=lambda _: 0.1) as (bucket, store, nc, _):
        bucket.add("n", b"old")

        def cut(frame: Frame) -> Any:  # noqa: ANN401 - what the server answers
            if not matches(METAS, frame.subject):
                return None
            if later in ("unreadable", "silent"):
                bucket.hook = lambda _: None
                said = UNAVAILABLE if later == "unreadable" else None
                bucket.server.on("$JS.API.STREAM.MSG.GET.>", lambda _: said, first=True)
            else:
                bucket.answer(METAS, *[later] * 1000)
            bucket.server.cut()
            return "lost"

        bucket.hook = cut
        with trio.move_on_after(2 if cancelled else 1000), suppress(errors.Error):
            await store.put("n", b"new")
        bucket.hook = lambda _: None
        await trio.sleep(10)
        await nc.wait_connected()
        [meta] = bucket.metas
        assert bucket.data(meta["nuid"]) == [b"new"]
        assert meta["size"] == 3


@pytest.mark.parametrize("outcome", ["stored", "not stored", "a rival was faster"])
async def test_an_info_in_doubt_is_settled_by_the_next_connection_however_late_it_comes(outcome: str) -> None:
    """No chunks are left that belong to nothing, and none are purged that belong to something."""
    rival = outcome == "a rival was faster"
    async with open_bucket(reconnect_delay=lambda _: 2.0) as (bucket, store, nc, _):

        def cut(frame: Frame) -> str | None:
            if not matches(METAS, frame.subject):
                return None
            bucket.hook = lambda _: None
            bucket.server.dials = ["refuse", "refuse"]
            bucket.server.cut()
            if rival:
                bucket.take(frame._replace(payload=frame.payload.replace(b'"nuid":"', b'"nuid":"rival')))
            return "lost" if outcome == "stored" else "silence"

        bucket.hook = cut
        with takes(2, 100):  # longer than a cleanup may take
            if rival:
                with pytest.raises(errors.DisconnectedError, match="put of object 'n' into bucket 'b'"):
                    await store.put("n", b"data")
            else:
                info = await store.put("n", b"data")
                assert [info.revision] == bucket.sequences(METAS)
                assert bucket.data(info.nuid) == [b"data"]
        await nc.flush()
        assert (len(bucket.metas), bucket.chunks) == (1, 0 if rival else 1)


async def test_an_info_in_doubt_is_settled_when_the_election_is_over_that_keeps_everybody_from_saying() -> None:
    async with open_bucket(reconnect_delay=lambda _: 0.1) as (bucket, store, _, _):
        outcomes: list[Any] = ["silence", "503", "503", "503"]

        def cut(frame: Frame) -> Any:  # noqa: ANN401 - what the server answers
            if not (outcomes and matches(METAS, frame.subject)):
                return None
            if len(outcomes) == 4:
                bucket.server.cut()
                refused = iter([UNAVAILABLE])
                bucket.server.on(
                    "$JS.API.STREAM.MSG.GET.>", lambda get: next(refused, None) or bucket.get(get), first=True
                )
            return outcomes.pop(0)

        bucket.hook = cut
        info = await store.put("n", b"data")
        assert [info.revision] == bucket.sequences(METAS)
    assert bucket.contents() == {"n": b"data"}


async def test_a_put_ended_by_a_lost_connection_leaves_nothing() -> None:
    async with open_bucket() as (bucket, store, nc, _):
        bucket.hook = lambda frame: (
            bucket.server.cut() if bucket.chunks == 3 and matches(CHUNKS, frame.subject) else None
        )
        with pytest.raises(errors.DisconnectedError):
            await store.put("n", LETTERS, cut_into(10))
        await nc.wait_connected()
        await nc.flush()
    assert not bucket.messages


@pytest.mark.parametrize("name", ["", "x" * 3000, "\ud800"])
async def test_names_that_the_server_cannot_take_are_refused(name: str) -> None:
    async with open_bucket() as (bucket, store, _, _):
        for call in (store.put(name, b""), store.get_info(name), store.delete(name)):
            with pytest.raises(errors.InvalidObjectNameError, match="bucket 'b'"):
                await call
    assert not bucket.server.sent("PUB", "$JS.>")


async def test_a_put_that_fills_the_outbox_waits_for_room() -> None:
    async with open_bucket() as (bucket, store, nc, _):
        info = await store.put("n", bytes(MIB * 9), cut_into(MIB))
        nc.publish_nowait("elsewhere", bytes(MIB))
        nc.publish_nowait("elsewhere", bytes(MIB))
        await store.put("m", b"data")
    assert len(bucket.data(info.nuid)) == 9


# -- what a meta may say -----------------------------------------------------------------------------------------------


def options(**given: Any) -> dict[str, Any]:  # noqa: ANN401 - what they should not be
    return {"options": api.ObjectMetaOptions(**given)}


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({"headers": {"A": 5}}, "header 'A' must be text, or a list of texts, not int"),
        ({"headers": {"A": None}}, "header 'A' must be text, or a list of texts, not NoneType"),
        ({"headers": {"A": b"a"}}, "header 'A' must be text, or a list of texts, not bytes"),
        ({"headers": {"A": {"exposure": "12ms"}}}, "header 'A' must be text, or a list of texts, not dict"),
        ({"headers": {"A": {}}}, "header 'A' must be text, or a list of texts, not dict"),
        ({"headers": {"A": MappingProxyType({"a": "b"})}}, "header 'A' must be .*, not mappingproxy"),
        ({"headers": {"A": MultiDict(a="b")}}, "header 'A' must be .*, not MultiDict"),
        ({"headers": {"A": {"x", "y"}}}, "header 'A' must be .*, not set"),
        ({"headers": {"A": iter(["a"])}}, "header 'A' must be .*, not list_iterator"),
        ({"headers": {"A": {"k": 1}.keys()}}, "header 'A' must be .*, not dict_keys"),
        ({"headers": {"A": [5]}}, "header 'A' must be text, not int"),
        ({"headers": {"A": ["a", {"b": "c"}]}}, "header 'A' must be text, not dict"),
        ({"headers": {"A": [["a"]]}}, "header 'A' must be text, not list"),
        ({"headers": {"A": "\ud800"}}, "header 'A' is no valid text"),
        ({"headers": {5: "a"}}, "the name 5 of a header must be text, not int"),
        ({"headers": [("A", "a")]}, "its headers must be a mapping, not list"),
        ({"headers": ()}, "its headers must be a mapping, not tuple"),
        ({"metadata": {"a": object()}}, "'a' in its metadata must be text, not object"),
        ({"metadata": {"a": {"b": "c"}}}, "'a' in its metadata must be text, not dict"),
        ({"metadata": {"a": ["b"]}}, "'a' in its metadata must be text, not list"),
        ({"metadata": {"a": 5}}, "'a' in its metadata must be text, not int"),
        ({"metadata": {1: "a"}}, "the name 1 in its metadata must be text, not int"),
        ({"metadata": MultiDict([("a", "1"), ("a", "2")])}, "its metadata has 'a' more than once"),
        ({"metadata": ["a"]}, "its metadata must be a mapping, not list"),
        ({"description": {"a": "b"}}, "its description must be text, not dict"),
        ({"description": b"d"}, "its description must be text, not bytes"),
        ({"description": "\udcff"}, "its description is no valid text"),
        ({"name": ["n"]}, "the name in its meta must be text, not list"),
        ({"options": {"max_chunk_size": 10}}, "its options must be ObjectMetaOptions, not dict"),
        ({"options": {}}, "its options must be ObjectMetaOptions, not dict"),
        (options(max_chunk_size=0), "chunks of 0 bytes are none"),
        (options(max_chunk_size=True), "chunks of True bytes are none"),
        (options(max_chunk_size=10.0), "chunks of 10.0 bytes are none"),
        (options(max_chunk_size="1"), "chunks of '1' bytes are none"),
        (options(link={"bucket": "b"}), "a link is no data.*dict is no ObjectLink"),
        (options(link=api.ObjectLink(bucket="other", name="n")), "a link is no data"),
        (options(extra={"link": {"bucket": "b", "name": "m"}}), "options.extra must not name link, which is an option"),
        (options(extra={"max_chunk_size": "x"}), "options.extra must not name max_chunk_size"),
        (options(extra={1: "x"}), "the name 1 in options.extra must be text, not int"),
        (options(extra=[("a", 1)]), "options.extra must be a mapping, not list"),
        (options(extra={"a": {5}}), "its meta cannot be written: Object of type set"),
        (options(extra={"a": float("nan")}), "its meta cannot be written: Out of range"),
        (
            {"description": "x" * 2_000_000},
            "its meta takes 2000[0-9]+ bytes, and the server takes messages of 1048576 bytes",
        ),
    ],
)
async def test_a_meta_that_cannot_be_written_shows_before_anything_is_sent(meta: dict[str, Any], text: str) -> None:
    async with open_bucket() as (bucket, store, _, _):
        with pytest.raises(errors.BadObjectMetaError, match=rf"^object 'n' in bucket 'b': {text}"):
            await store.put("n", b"data", api.ObjectMeta(**meta))
    assert not bucket.server.sent("PUB")


@pytest.mark.parametrize(
    ("data", "meta", "error", "text"),
    [
        (
            5,
            None,
            TypeError,
            "object 'n' in bucket 'b': its data must be bytes, text, a path, a binary file, .*, not int",
        ),
        ("\ud800", None, ValueError, "object 'n' in bucket 'b': its data is no valid text"),
        (b"", {"headers": {}}, TypeError, "object 'n': meta must be an ObjectMeta, not dict"),
        (b"", "n", TypeError, "object 'n': meta must be an ObjectMeta, not str"),
        (b"", api.ObjectMetaOptions(max_chunk_size=5), TypeError, "meta must be an ObjectMeta, not ObjectMetaOptions"),
    ],
)
async def test_what_is_no_data_and_what_is_no_meta_are_refused(
    data: Any,  # noqa: ANN401 - what it should not be
    meta: Any,  # noqa: ANN401 - what it should not be
    error: type[Exception],
    text: str,
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        with pytest.raises(error, match=text):
            await store.put("n", data, meta)
    assert not bucket.server.sent("PUB")


async def test_text_of_every_kind_is_stored_as_the_text_that_it_is_and_headers_that_repeat_are_all_kept() -> None:
    class Colour(str, enum.Enum):  # noqa: UP042 - the older kind, whose str() is not its value
        RED = "red"

    said = api.ObjectMetaOptions(max_chunk_size=7, extra={"shape": "round"})
    meta: Any = api.ObjectMeta(
        description=Colour.RED,
        headers=MappingProxyType({Colour.RED: UserList(["a", Colour.RED])}),  # type: ignore[arg-type]
        metadata=MultiDict({Colour.RED: Colour.RED}),  # type: ignore[arg-type]
        options=said,
    )
    async with open_bucket() as (bucket, store, _, _):
        info = await store.put("n", b"", meta)
        [stored] = bucket.metas
        assert (stored["description"], stored["metadata"]) == ("red", {"red": "red"})
        assert stored["headers"] == info.headers == {"red": ["a", "red"]}
        assert stored["options"] == {"max_chunk_size": 7, "shape": "round"}
        assert info.description == "red"
        assert said == api.ObjectMetaOptions(max_chunk_size=7, extra={"shape": "round"})
        meta.headers = MultiDict([("A", "1"), ("A", "2"), ("B", "3")])
        assert (await store.put("n", b"", meta)).headers == {"A": ["1", "2"], "B": ["3"]}


# -- get ---------------------------------------------------------------------------------------------------------------


async def test_get_reads_chunk_by_chunk() -> None:
    async with open_bucket() as (bucket, store, nc, _):
        info = await store.put("n", LETTERS, cut_into(10))
        result = await store.get("n")
        assert (result.data, result.info.nuid) == (LETTERS, info.nuid)
        assert [info.name for info in await store.list()] == ["n"]
        await nc.flush()
        assert not bucket.consumers


@pytest.mark.parametrize("count", [1, 3])
async def test_a_get_whose_first_chunk_is_lost_with_the_connection_goes_on(count: int) -> None:
    """From the moment that its info was read."""
    async with open_bucket() as (bucket, store, nc, _):
        cuts = [bucket.server.cut] * 2

        def cut(frame: Frame) -> Any:  # noqa: ANN401 - whatever a responder may answer
            return cuts.pop()() if cuts else bucket.create(frame)

        bucket.server.on("$JS.API.CONSUMER.CREATE.OBJ_b.>", cut, first=True)
        if count == 1:
            bucket.server.on("$JS.API.DIRECT.GET.OBJ_b.>", cut, first=True)
        bucket.add("n", *[b"%d" % number for number in range(count)])
        assert (await store.get("n")).data == b"012"[:count]
        assert nc.statistics().reconnects == 2
        await nc.flush()
        assert not bucket.consumers


@pytest.mark.parametrize("count", [1, 3])
async def test_a_get_whose_first_request_is_lost_with_another_server_asks_again(count: int) -> None:
    """The connection stays, so nothing else would tell; the third one gets a reply."""
    async with open_bucket() as (bucket, store, nc, _):
        asked: list[Frame] = []

        def lose_two(frame: Frame) -> Any:  # noqa: ANN401 - whatever a responder may answer
            asked.append(frame)
            respond = bucket.direct_get if count == 1 else bucket.create
            return respond(frame) if len(asked) > 2 else None

        of = "DIRECT.GET" if count == 1 else "CONSUMER.CREATE"
        bucket.server.on(f"$JS.API.{of}.OBJ_b.>", lose_two, first=True)
        bucket.add("n", *[b"%d" % number for number in range(count)])
        with takes(10, 14):
            assert (await store.get("n")).data == b"012"[:count]
        await nc.flush()
        assert len(asked) == 3
        assert not bucket.consumers


@pytest.mark.parametrize(("count", "chosen"), [(1, None), (1, 1.0), (3, None)])
async def test_a_get_whose_first_chunk_does_not_come_waits_for_the_idle_limit(count: int, chosen: float | None) -> None:
    async with open_bucket(request_timeout=chosen) as (bucket, store, _, _):
        asked = "DIRECT.GET" if count == 1 else "CONSUMER.CREATE"
        bucket.server.on(f"$JS.API.{asked}.OBJ_b.>", lambda _: None, first=True)
        bucket.add("n", *[b"x"] * count)
        with takes(30, 33), pytest.raises(errors.TimeoutError, match=IDLE_GET):
            await store.get("n")


class SlowObjects(FakeObjects):
    """Gives one new message to each consumer and then falls silent, so that the reader takes another one in the end."""

    consumers_served = 1000

    def __init__(self, server: FakeServer, bucket: str) -> None:
        super().__init__(server, bucket)
        self.served: list[str] = []

    def serve(self, consumer: Consumer) -> None:
        # A reader that goes on asks for the last one that it has once more.
        limit = 1 if consumer.config["deliver_policy"] == "all" else 2
        if consumer.name not in self.served:
            self.served.append(consumer.name)
        while consumer.delivered < limit and len(self.served) <= self.consumers_served:
            consumer.deliver(next(consumer.pending()), consumer.pulls[0])


async def test_a_get_that_moves_slowly_goes_on() -> None:
    """Ten seconds for each chunk, and more than the idle limit in all."""
    async with open_bucket(SlowObjects) as (_, store, _, _):
        await store.put("n", LETTERS, cut_into(10))
        with takes(80, 1000):
            assert (await store.get("n")).data == LETTERS


async def test_a_get_that_stalls_fails_after_the_idle_limit() -> None:
    """It does not hang, and the last chunk is what the time is counted from."""
    async with open_bucket(SlowObjects) as (bucket, store, nc, _):
        await store.put("n", LETTERS, cut_into(10))
        bucket.consumers_served = 3
        with takes(45, 60), pytest.raises(errors.TimeoutError, match=IDLE_GET):
            await store.get("n")
        assert nc.statistics().subscriptions == 0


# -- delete ------------------------------------------------------------------------------------------------------------


async def test_delete_leaves_a_marker_and_no_data() -> None:
    """And says for a deleted object that it was one."""
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", b"data")
        await store.delete("n")
        assert bucket.chunks == 0
        marker = await store.get_info("n", show_deleted=True)
        assert (marker.deleted, marker.size, marker.chunks, marker.digest) == (True, 0, 0, "")
        for kind in (errors.ObjectDeletedError, errors.ObjectNotFoundError, errors.NotFoundError):
            with pytest.raises(kind, match="object 'n' in bucket 'b' was deleted"):
                await store.get_info("n")
        await store.delete("n")
        with pytest.raises(errors.ObjectNotFoundError, match="no object 'm' in bucket 'b'"):
            await store.delete("m")
        await store.put("n", b"again")
        assert bucket.chunks == 1
        # What another client wrote into an info stays there.
        shape = {"max_chunk_size": 7, "shape": "round"}
        bucket.add("n", b"x", colour="red", options=shape)
        await store.delete("n")
        [last] = bucket.metas
        assert (last["colour"], last["options"], last["deleted"]) == ("red", shape, True)


@pytest.mark.parametrize(
    ("answers", "error", "text"),
    [
        ([WRONG_SEQUENCE], errors.BadRequestError, "somebody else"),
        ([FULL], errors.BadRequestError, "maximum bytes"),
        (["silence"] * 3, errors.TimeoutError, "the server has not answered"),
    ],
)
async def test_a_delete_that_was_refused_keeps_the_data(
    answers: list[Any], error: type[errors.Error], text: str
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", b"data")
        bucket.answer(METAS, *answers)
        with pytest.raises(error, match=f"^deletion of object 'n' from bucket 'b': {text}"):
            await store.delete("n")
    assert bucket.contents() == {"n": b"data"}


async def test_a_lost_connection_names_the_object_and_what_was_done_with_it() -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.hook = lambda _: (bucket.server.cut(), "silence")[1]  # type: ignore[func-returns-value]
        with pytest.raises(errors.DisconnectedError, match=r"^put of object 'm' into bucket 'b': request to"):
            await store.put("m", b"data")


# -- pure parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no JSON object"),
        (b"\xff", "no JSON object"),
        (b"[]", "no JSON object"),
        (b'{"bucket": "b", "nuid": "x"}', "its name is no text"),
        (b'{"name": "n", "bucket": "b"}', "its nuid is no text"),
        (b'{"name": "n", "bucket": "b", "nuid": ">"}', "its nuid cannot be part of a subject"),
        (b'{"name": "n", "bucket": "b", "nuid": "x", "size": -1}', "its size is no count"),
        (b'{"name": "n", "bucket": "b", "nuid": "x", "chunks": "1"}', "its chunks is no count"),
        (b'{"name": "n", "bucket": "b", "nuid": "x", "digest": 5}', "its digest is no text"),
        (b'{"name": "n", "bucket": "b", "nuid": "x", "headers": []}', None),
        (b'{"name": "n", "bucket": "b", "nuid": "x", "headers": [1]}', "its headers is no JSON object"),
        (b'{"name": "n", "bucket": "b", "nuid": "x", "options": {"link": 3}}', "its link is no JSON object"),
        (b'{"name": "n", "bucket": "b", "nuid": "x", "options": null, "mtime": 5, "revision": "r"}', None),
    ],
)
def test_what_is_no_info_is_refused(data: bytes, complaint: str | None) -> None:
    if complaint is None:
        assert read_info("b", data, revision=7, stored_at="now").revision == 7
        return
    with pytest.raises(errors.BadObjectMetaError, match=f"bucket 'b': message 7 .*{complaint}"):
        read_info("b", data, revision=7, stored_at="now")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (1795440575220161869, "2026-11-23T13:29:35.220161869Z"),
        (1795440575220000000, "2026-11-23T13:29:35.22Z"),
        (1795440575000000000, "2026-11-23T13:29:35Z"),
    ],
)
def test_the_time_of_a_message_is_written_as_the_server_writes_it(nanoseconds: int, text: str) -> None:
    data = b'{"name": "n", "bucket": "b", "nuid": "x"}'
    assert read_info("b", data, revision=1, stored_at=nanoseconds).mtime == text


async def test_digests_are_read_in_every_form_that_clients_write() -> None:
    digest = Digest()
    # A value whose base64 has both letters that the two alphabets differ in.
    text = next(b"%d" % n for n in range(1000) if {"-", "_"} <= set(sha256(b"%d" % n)))
    await digest.update([text])
    right = sha256(text)
    assert str(digest) == f"SHA-256={right}"
    for prefix in ("SHA-256=", "sha-256=", "Sha-256="):
        for form in (right, right.rstrip("="), right.replace("-", "+").replace("_", "/")):
            assert digest.matches(prefix + form)
    for wrong in (right, f"SHA-512={right}", f"SHA-256={sha256(b'other')}", "SHA-256=", f"SHA-256={right}="):
        assert not digest.matches(wrong)


async def test_large_pieces_are_hashed_in_a_thread_with_the_same_result() -> None:
    data = bytes(chunks.HASH_IN_THREAD)
    digest = Digest()
    await digest.update([memoryview(data), b"x"])
    assert digest.matches(f"SHA-256={sha256(data + b'x')}")
