"""Object stores against a bucket in memory: what is sent, in what order, and what is left behind when it fails."""

from __future__ import annotations

import base64
import enum
import hashlib
import json
from collections import UserList, deque
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio
import trio.testing
from multidict import MultiDict

from tests.fake_jetstream import Consumer, FakeObjects, FakeStream, Stored
from tests.fakes import NO_RESPONDERS, FakeServer, Frame, matches
from tests.worlds import find_store, seam
from trionats import api, errors, events, open_client, open_events
from trionats._jetstream.api import Api
from trionats._jetstream.objects import chunks
from trionats._jetstream.objects.chunks import ChunkWriter, Digest
from trionats._jetstream.objects.store import ObjectStore
from trionats._protocol.jetstream.objects import read_info

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from trionats import Client, Feed

S = TypeVar("S", bound=FakeStream)
E = TypeVar("E", bound=events.ConnectionEvent)

BUCKET = "b"
MIB = 1024 * 1024
WRONG_SEQUENCE = {"error": {"code": 400, "err_code": 10071, "description": "wrong last sequence: 9"}}
BUSY = {"error": {"code": 429, "err_code": 10167, "description": "too many requests"}}
FULL = {"error": {"code": 400, "err_code": 10077, "description": "maximum bytes exceeded"}}
TOO_LARGE = {"error": {"code": 400, "err_code": 10054, "description": "message size exceeds maximum allowed"}}
CHUNKS, METAS = f"$O.{BUCKET}.C.>", f"$O.{BUCKET}.M.>"


class FakeBucket:
    """The stream of one bucket: stores, reads the last, deletes and purges, as far as an object store needs it.

    `hooks` are asked, in turn, about each message that is published, and may answer in the stream's place: a mapping is
    sent instead of storing, `"503"` and `"silence"` are what they say, `"lost"` stores and keeps silent, None stores.
    """

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.messages: dict[int, Frame] = {}
        self.hook: Callable[[Frame], Any] = lambda _: None
        self.purges = True
        """Whether a purge is done, and answered."""
        self.sequence = 0
        for subject, answer in {
            f"$O.{BUCKET}.>": self.store,
            f"$JS.API.STREAM.MSG.GET.OBJ_{BUCKET}": self.last,
            f"$JS.API.STREAM.MSG.DELETE.OBJ_{BUCKET}": self.delete,
            f"$JS.API.STREAM.PURGE.OBJ_{BUCKET}": self.purge,
        }.items():
            server.on(subject, answer)

    def store(self, frame: Frame) -> Any:  # noqa: ANN401 - whatever a responder may answer
        instead = self.hook(frame)
        if instead == "503":
            self.server.publish(frame.reply, headers=NO_RESPONDERS)
            return None
        if instead is not None and instead != "lost":
            return None if instead == "silence" else instead
        if self.conflicts(frame):
            return WRONG_SEQUENCE
        if b"Nats-Rollup: sub" in frame.headers:
            self.forget(frame.subject)
        self.sequence += 1
        self.messages[self.sequence] = frame
        return None if instead == "lost" else {"stream": f"OBJ_{BUCKET}", "seq": self.sequence}

    def conflicts(self, frame: Frame) -> bool:
        _, _, rest = frame.headers.decode().partition("Nats-Expected-Last-Subject-Sequence: ")
        return bool(rest) and int(rest.split("\r\n")[0]) != max(self.sequences(frame.subject), default=0)

    def last(self, frame: Frame) -> dict[str, Any]:
        found = self.sequences(json.loads(frame.payload)["last_by_subj"])
        if not found:
            return {"error": {"code": 404, "err_code": 10037, "description": "no message found"}}
        message = self.messages[found[-1]]
        data = base64.b64encode(message.payload).decode()
        fields = {"subject": message.subject, "seq": found[-1], "data": data, "time": "2026-11-23T17:00:00Z"}
        return {"message": fields}

    def delete(self, frame: Frame) -> dict[str, Any]:
        del self.messages[json.loads(frame.payload)["seq"]]
        return {"success": True}

    def purge(self, frame: Frame) -> dict[str, Any] | None:
        if not self.purges:
            return None
        self.forget(json.loads(frame.payload)["filter"])
        return {"success": True}

    def forget(self, pattern: str) -> None:
        for sequence in self.sequences(pattern):
            del self.messages[sequence]

    def sequences(self, pattern: str) -> list[int]:
        return [sequence for sequence, frame in self.messages.items() if matches(pattern, frame.subject)]

    def data(self, nuid: str) -> list[bytes]:
        return [self.messages[sequence].payload for sequence in self.sequences(f"$O.{BUCKET}.C.{nuid}")]

    @property
    def metas(self) -> list[dict[str, Any]]:
        return [json.loads(self.messages[sequence].payload) for sequence in self.sequences(METAS)]

    @property
    def chunks(self) -> int:
        return len(self.sequences(CHUNKS))


@asynccontextmanager
async def open_bucket(
    max_payload: int = 1024 * 1024,
    **options: Any,  # noqa: ANN401 - open_client's
) -> AsyncGenerator[tuple[FakeBucket, ObjectStore, Client]]:
    server = FakeServer(info={"max_payload": max_payload})
    bucket = FakeBucket(server)
    async with trio.open_nursery() as nursery, open_client(nursery, dial=server.dial, **options) as nc:
        yield bucket, find_store(nc, BUCKET), nc
    server.check()


def small(size: int) -> api.ObjectMeta:
    return api.ObjectMeta(options=api.ObjectMetaOptions(max_chunk_size=size))


def only(pattern: str, answers: list[Any]) -> Callable[[Frame], Any]:
    """Make a hook that gives these answers to what matches, one after the other, and then none."""
    waiting = deque(answers)

    def hook(frame: Frame) -> Any:  # noqa: ANN401 - whatever a hook may answer
        return waiting.popleft() if waiting and matches(pattern, frame.subject) else None

    return hook


# -- put ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 25])
async def test_put_cuts_data_into_chunks_exactly(size: int) -> None:
    data = bytes(range(size))
    async with open_bucket() as (bucket, store, _):
        info = await store.put("name", data, small(10))
    assert b"".join(bucket.data(info.nuid)) == data
    assert [len(chunk) for chunk in bucket.data(info.nuid)] == [10] * (size // 10) + ([size % 10] if size % 10 else [])
    [meta] = bucket.metas
    assert meta == {
        "name": "name",
        "bucket": BUCKET,
        "nuid": info.nuid,
        "size": size,
        "chunks": -(-size // 10),
        "digest": "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode(),
        "deleted": False,
        "options": {"max_chunk_size": 10},
    }
    assert info.revision == bucket.sequences(METAS)[0]


async def test_put_of_text_stores_utf8_and_what_the_user_says_of_it() -> None:
    meta = api.ObjectMeta(
        name="ignored", description="d", headers={"One": "1", "Two": ["2", "zwei"]}, metadata={"owner": "é"}
    )
    async with open_bucket() as (bucket, store, _):
        info = await store.put("näme", "tëxt", meta)
        assert bucket.data(info.nuid) == ["tëxt".encode()]
        [stored] = bucket.metas
        assert stored["headers"] == {"One": ["1"], "Two": ["2", "zwei"]}
        assert (stored["name"], stored["description"], stored["metadata"]) == ("näme", "d", {"owner": "é"})
        assert meta == api.ObjectMeta(
            name="ignored", description="d", headers={"One": "1", "Two": ["2", "zwei"]}, metadata={"owner": "é"}
        )
        read = await store.get_info("näme")
    assert (read.headers, read.metadata, read.revision) == (stored["headers"], {"owner": "é"}, info.revision)
    assert read.mtime == "2026-11-23T17:00:00Z"
    assert (
        bucket.messages[info.revision or 0].subject
        == f"$O.{BUCKET}.M.{base64.urlsafe_b64encode('näme'.encode()).decode()}"
    )


async def test_chunks_are_never_larger_than_the_server_takes() -> None:
    async with open_bucket(max_payload=1000) as (bucket, store, _):
        info = await store.put("n", bytes(2500))
    assert [len(chunk) for chunk in bucket.data(info.nuid)] == [1000, 1000, 500]
    assert info.options is not None
    assert info.options.max_chunk_size == 1000


class SmallBucket(FakeBucket):
    """A bucket whose stream takes messages of a limited size, and says so when it is asked."""

    def __init__(self, server: FakeServer, limit: int) -> None:
        super().__init__(server)
        self.limit = limit
        server.on(f"$JS.API.STREAM.INFO.OBJ_{BUCKET}", self.info)
        self.hook = self.measured

    def measured(self, frame: Frame) -> Any:  # noqa: ANN401 - whatever a hook may answer
        return TOO_LARGE if 0 < self.limit < len(frame.headers) + len(frame.payload) else None

    def info(self, _: Frame) -> dict[str, Any]:
        config = {"name": f"OBJ_{BUCKET}", "subjects": [f"$O.{BUCKET}.>"], "max_msg_size": self.limit}
        state = {"messages": 0, "bytes": 0, "first_seq": 0, "last_seq": 0, "consumer_count": 0}
        return {"config": config, "created": "2026-11-23T17:00:00Z", "state": state}

    def asked(self) -> int:
        return len(self.server.sent("PUB", "$JS.API.STREAM.INFO.>"))


@asynccontextmanager
async def open_small_bucket(
    limit: int, max_payload: int = MIB
) -> AsyncGenerator[tuple[SmallBucket, ObjectStore, Client]]:
    server = FakeServer(info={"max_payload": max_payload})
    bucket = SmallBucket(server, limit)
    async with trio.open_nursery() as nursery, open_client(nursery, dial=server.dial) as nc:
        yield bucket, await nc.jetstream().object_store(BUCKET), nc
    server.check()


@pytest.mark.parametrize(("limit", "chunk"), [(1000, 1000), (-1, 128 * 1024), (0, 128 * 1024), (MIB * 2, 128 * 1024)])
async def test_chunks_are_never_larger_than_the_bucket_takes(limit: int, chunk: int) -> None:
    data = bytes(300_000)
    async with open_small_bucket(limit) as (bucket, store, _):
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
    async with open_small_bucket(known) as (bucket, store, _):
        await store.put("n", b"old")
        bucket.limit = 1000
        info = await store.put("n", data)
        assert b"".join(bucket.data(info.nuid)) == data
        assert bucket.chunks == 300
        assert bucket.asked() == 2
        await store.put("m", data)
        assert bucket.asked() == 2


async def test_a_limit_that_was_raised_since_is_asked_for_before_anything_is_refused() -> None:
    async with open_small_bucket(1000) as (bucket, store, _):
        bucket.limit = 50_000
        info = await store.put(
            "n", bytes(90_000), api.ObjectMeta(description="d" * 2000, options=small(40_000).options)
        )
        assert [len(chunk) for chunk in bucket.data(info.nuid)] == [40_000, 40_000, 10_000]
        assert bucket.asked() == 2


@pytest.mark.parametrize("known", [True, False])
async def test_a_chunk_size_that_was_asked_for_and_does_not_fit_is_an_error(known: bool) -> None:
    """Before anything is stored if the limit is known, and with nothing left of it otherwise."""
    async with open_small_bucket(1000 if known else 0) as (bucket, store, _):
        bucket.limit = 1000
        text = (
            "object 'n' in bucket 'b': chunks of 1001 bytes were asked for, and the bucket takes messages of 1000 bytes"
        )
        with pytest.raises(errors.BadObjectMetaError, match=text):
            await store.put("n", bytes(1001), small(1001))
        assert bool(bucket.server.sent("PUB", CHUNKS)) is not known
        assert not bucket.messages
        # What one chunk of the size that fits can hold is no reason to refuse.
        await store.put("n", bytes(1000), small(1001))
    assert bucket.chunks == 1


async def test_a_chunk_size_beyond_what_the_server_takes_is_an_error() -> None:
    async with open_bucket(max_payload=1000) as (bucket, store, _):
        text = (
            "object 'n' in bucket 'b': chunks of 1001 bytes were asked for, and the server takes messages of 1000 bytes"
        )
        with pytest.raises(errors.BadObjectMetaError, match=text):
            await store.put("n", bytes(1001), small(1001))
    assert not bucket.server.sent("PUB")


@pytest.mark.parametrize("known", [True, False])
async def test_an_info_that_the_bucket_does_not_take_is_an_error_of_its_own(known: bool) -> None:
    meta = api.ObjectMeta(description="d" * 64 * 1024)
    async with open_small_bucket(65536 if known else 0) as (bucket, store, _):
        bucket.limit = 65536
        text = (
            r"object 'n' in bucket 'b': its meta takes 65[0-9]{3} bytes, and the bucket takes messages of 65536 bytes"
        )
        with pytest.raises(errors.BadObjectMetaError, match=text):
            await store.put("n", b"data", meta)
        assert not bucket.messages
        await store.put("n", b"data", api.ObjectMeta(description="d" * 65_000))
    assert bucket.chunks == 1


async def test_a_refusal_for_size_that_nothing_explains_is_passed_on() -> None:
    """As where the bucket is another one's mirror, or may not be asked for its limit."""
    async with open_bucket() as (bucket, store, _):
        bucket.hook = lambda frame: TOO_LARGE if matches(CHUNKS, frame.subject) else None
        with pytest.raises(errors.BadRequestError, match=r"put of object 'n' into bucket 'b': .*10054"):
            await store.put("n", b"data")
    assert not bucket.messages


async def test_a_server_that_takes_less_from_now_on_gets_smaller_chunks() -> None:
    """An account's limit comes behind the first PONG, and another server may have another one."""
    data = bytes(300_000)
    async with open_bucket() as (bucket, store, nc):
        assert nc.max_payload == MIB

        def lower(frame: Frame) -> dict[str, Any]:
            bucket.server.info["max_payload"] = 1000
            bucket.server.inject(b"INFO " + json.dumps(bucket.server.info).encode() + b"\r\n")
            return bucket.last(frame)

        bucket.server._responders.insert(0, (f"$JS.API.STREAM.MSG.GET.OBJ_{BUCKET}", lower))
        info = await store.put("n", data)
        assert nc.max_payload == 1000
    assert b"".join(bucket.data(info.nuid)) == data
    assert bucket.chunks == 300


async def test_a_server_that_takes_less_in_the_middle_of_a_put_gets_smaller_chunks(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "WINDOW_CHUNKS", 1)
    async with open_bucket() as (bucket, store, _):

        def lower(frame: Frame) -> None:
            if bucket.chunks == 1 and matches(CHUNKS, frame.subject):
                bucket.server.info["max_payload"] = 1000
                bucket.server.inject(b"INFO " + json.dumps(bucket.server.info).encode() + b"\r\n")

        bucket.hook = lower
        info = await store.put("n", bytes(300_000))
        assert [len(chunk) for chunk in bucket.data(info.nuid)] == [1000] * 300
        assert bucket.chunks == 300


async def test_a_marker_fits_where_the_info_did() -> None:
    """It has more headers than other clients send; what does not fit any more is left out."""
    fields = {"name": "n", "bucket": BUCKET, "nuid": "abc", "size": 1, "chunks": 1, "description": "d" * 850}
    for known in (1000, 0):
        async with open_small_bucket(known) as (bucket, store, nc):
            bucket.limit = 1000
            await nc.request(f"$O.{BUCKET}.C.abc", b"x")
            await nc.request(f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(b'n').decode()}", json.dumps(fields).encode())
            await store.delete("n")
        [marker] = bucket.metas
        assert (marker["deleted"], "description" in marker, bucket.chunks) == (True, False, 0)


async def test_replacing_an_object_purges_the_chunks_of_the_old_one() -> None:
    async with open_bucket() as (bucket, store, _):
        old = await store.put("n", b"old")
        new = await store.put("n", b"newer")
    assert bucket.data(old.nuid) == []
    assert bucket.data(new.nuid) == [b"newer"]
    assert len(bucket.metas) == 1


async def test_the_window_of_unacknowledged_chunks_is_bounded(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 50)
    async with open_bucket() as (bucket, store, _), trio.open_nursery() as nursery:
        await store.put("before", b"")
        bucket.hook = only(CHUNKS, ["silence"] * 100)
        nursery.start_soon(store.put, "n", bytes(1000), small(10))
        await trio.testing.wait_all_tasks_blocked()
        assert len(bucket.server.sent("PUB", CHUNKS)) == 5
        nursery.cancel_scope.cancel()


async def test_a_refused_chunk_fails_the_put_and_leaves_nothing() -> None:
    """J7: an acknowledgement that is an error is not one."""
    async with open_bucket() as (bucket, store, _):
        await store.put("n", b"old")
        bucket.hook = only(CHUNKS, [None, None, FULL])
        with pytest.raises(errors.APIError, match="maximum bytes exceeded") as caught:
            await store.put("n", bytes(100), small(10))
        assert caught.value.err_code == 10077
        assert bucket.chunks == 1
        [meta] = bucket.metas
        assert meta["size"] == 3


async def test_a_refused_info_fails_the_put_and_leaves_nothing() -> None:
    async with open_bucket() as (bucket, store, _):
        bucket.hook = only(METAS, [FULL])
        with pytest.raises(errors.APIError, match="maximum bytes exceeded"):
            await store.put("n", bytes(100), small(10))
    assert not bucket.messages


async def test_what_answers_but_is_no_stream_is_an_error() -> None:
    async with open_bucket() as (bucket, store, _):
        bucket.hook = only(CHUNKS, [b"hello"])
        with pytest.raises(errors.APIError, match="no JetStream answer"):
            await store.put("n", b"data")
        bucket.hook = only(CHUNKS, [{"seq": "one"}])
        with pytest.raises(errors.APIError, match="no JetStream answer"):
            await store.put("n", b"data")
    assert not bucket.metas


@pytest.mark.parametrize("refusal", [BUSY, "503"], ids=["too many requests", "no leader"])
async def test_chunks_that_the_server_was_not_ready_for_are_sent_again_in_order(
    refusal: object, autojump_clock: trio.testing.MockClock
) -> None:
    """J6: chunks behind the refused one may have been stored; they must not stay in front of it."""
    data = bytes(range(100))
    async with open_bucket() as (bucket, store, _):
        bucket.hook = only(CHUNKS, [None, None, refusal, None, refusal, None, None, None, None, refusal])
        info = await store.put("n", data, small(10))
    assert b"".join(bucket.data(info.nuid)) == data
    assert (info.chunks, bucket.chunks) == (10, 10)


async def test_what_a_mirror_has_to_take_back_is_deleted_at_its_origin(autojump_clock: trio.testing.MockClock) -> None:
    """Only there is what is put stored; chunks that were refused and sent again lie in order."""
    data = bytes(range(100))
    async with open_bucket() as (bucket, _, nc):
        mirror = api.StreamSource(f"OBJ_{BUCKET}").as_dict()
        state = dict.fromkeys(("messages", "bytes", "first_seq", "last_seq", "consumer_count"), 0)
        answer = {"config": {"name": "OBJ_copy", "mirror": mirror}, "state": state, "created": "2026-11-23T17:00:00Z"}
        bucket.server.on("$JS.API.STREAM.INFO.OBJ_copy", lambda _: answer)
        bucket.server.on("$JS.API.STREAM.MSG.GET.OBJ_copy", bucket.last)
        store = await nc.jetstream().object_store("copy")
        bucket.hook = only(CHUNKS, [None, None, BUSY, None, None])
        info = await store.put("n", data, small(10))
    assert b"".join(bucket.data(info.nuid)) == data
    assert bucket.chunks == 10


def asleep(bucket: FakeBucket, pattern: str) -> list[Frame]:
    """Let another domain refuse what matches, while the one that was meant stands still: gives what waits there."""
    waiting: list[Frame] = []

    def refuse(frame: Frame) -> Any:  # noqa: ANN401 - whatever a hook may answer
        if not matches(pattern, frame.subject):
            return None
        waiting.append(frame)
        return WRONG_SEQUENCE

    bucket.hook = refuse
    return waiting


def far(bucket: FakeBucket, nc: Client) -> ObjectStore:
    """The bucket, found through the domain that it is in."""
    api_of = {"STREAM.MSG.GET": bucket.last, "STREAM.PURGE": bucket.purge, "STREAM.MSG.DELETE": bucket.delete}
    for asked, answer in api_of.items():
        bucket.server.on(f"$JS.far.API.{asked}.OBJ_{BUCKET}", answer)
    return find_store(nc, BUCKET, domain="far")


def wake(bucket: FakeBucket, waiting: list[Frame]) -> None:
    bucket.hook = lambda _: None
    for frame in waiting:
        bucket.store(frame)


async def test_another_domains_refusal_of_an_info_is_not_believed_before_the_stream_itself_was_looked_at(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The chunks of an info that is stored later must not be purged: the object would be listed and have no data."""
    async with open_bucket() as (bucket, _, nc):
        store = far(bucket, nc)
        await store.put("n", b"old")
        waiting = asleep(bucket, METAS)
        looks = []

        def look(frame: Frame) -> dict[str, Any]:
            answer = bucket.last(frame)
            looks.append(frame)
            if len(looks) == 2:  # the API is quicker than what was published before
                wake(bucket, waiting)
            return answer

        bucket.server._responders.insert(0, (f"$JS.far.API.STREAM.MSG.GET.OBJ_{BUCKET}", look))
        info = await store.put("n", b"new")
        assert info.revision == max(bucket.messages)
        assert bucket.data(info.nuid) == [b"new"]
        assert bucket.chunks == 1


async def test_a_refusal_that_stays_leaves_the_old_object_and_nothing_of_the_new_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also where it says that somebody else has changed it, which is another domain's business."""
    async with open_bucket() as (bucket, _, nc):
        store = far(bucket, nc)
        old = await store.put("n", b"old")
        asleep(bucket, METAS)
        with pytest.raises(errors.BadRequestError, match="somebody else changed it"):
            await store.put("n", b"new")
        assert bucket.data(old.nuid) == [b"old"]
        assert bucket.chunks == 1


async def test_another_domains_conflict_behind_a_broken_connection_purges_nothing_of_the_old_object(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """That somebody has overtaken us, and seen to the old data, is for the stream to say."""
    async with open_bucket() as (bucket, _, nc):
        store = far(bucket, nc)
        old = await store.put("n", b"old")
        asked = asleep(bucket, METAS)
        refuse = bucket.hook

        def hook(frame: Frame) -> Any:  # noqa: ANN401 - whatever a hook may answer
            if matches(METAS, frame.subject) and not asked:
                asked.append(frame)
                bucket.server.cut()
                return "silence"
            return refuse(frame)

        bucket.hook = hook
        with pytest.raises(errors.DisconnectedError):
            await store.put("n", b"new")
        assert len(asked) > 1
        assert bucket.data(old.nuid) == [b"old"]
        assert (await store.get_info("n")).nuid == old.nuid


async def test_chunks_that_are_stored_behind_another_domains_refusal_are_purged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_bucket() as (bucket, _, nc):
        store = far(bucket, nc)
        waiting = asleep(bucket, CHUNKS)
        with pytest.raises(errors.BadRequestError):
            await store.put("n", b"data")
        wake(bucket, waiting)
        assert bucket.chunks == 1
        await trio.sleep(6)
        assert not bucket.messages


async def test_a_server_that_is_never_ready_fails_the_put(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, _):
        bucket.hook = only(CHUNKS, ["503"] * 1000)
        with pytest.raises(errors.NoStreamResponseError, match=r"^put of object 'n' into bucket 'b': no stream"):
            await store.put("n", bytes(100), small(10))
    assert not bucket.messages


async def test_an_info_that_the_server_was_not_ready_for_is_sent_again(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, _):
        bucket.hook = only(METAS, ["503", "503"])
        await store.put("n", b"data")
        bucket.hook = only(METAS, ["503"] * 3)
        with pytest.raises(errors.NoStreamResponseError, match=r"^put of object 'm' into bucket 'b': no stream"):
            await store.put("m", b"data")
    assert len(bucket.metas) == bucket.chunks == 1


async def test_somebody_elses_change_in_between_fails_the_put() -> None:
    """J10: two writers of one name do not both win."""
    async with open_bucket() as (bucket, store, _):
        await store.put("n", b"old")
        bucket.hook = only(METAS, [WRONG_SEQUENCE])
        with pytest.raises(errors.BadRequestError, match="put of object 'n' into bucket 'b': somebody else changed it"):
            await store.put("n", b"mine")
        with pytest.raises(errors.ObjectNotFoundError, match="'m' in bucket 'b'"):
            await store.get_info("m")
    assert bucket.chunks == 1


@pytest.mark.parametrize("chosen", [None, 1.0])
async def test_a_put_that_moves_slowly_goes_on_and_one_that_stalls_fails(
    autojump_clock: trio.testing.MockClock, chosen: float | None
) -> None:
    """J5: what is limited is the time since something last moved, not the time in all, nor that for one answer."""
    async with open_bucket(request_timeout=chosen) as (bucket, store, _), trio.open_nursery() as nursery:
        replies: list[str] = []

        def keep(frame: Frame) -> str | None:
            if matches(CHUNKS, frame.subject):
                replies.append(frame.reply)
                return "silence"
            return None

        bucket.hook = keep
        result: list[Exception] = []

        async def put() -> None:
            try:
                await store.put("n", bytes(100), small(10))
            except errors.TimeoutError as error:
                result.append(error)

        start = trio.current_time()
        nursery.start_soon(put)
        for sequence in range(1, 8):
            await trio.sleep(20)
            bucket.server.publish(replies[sequence - 1], json.dumps({"stream": "OBJ_b", "seq": sequence}).encode())
    # 7 acknowledgements 20 s apart, then 30 s of silence, then a cleanup that nobody answers.
    assert trio.current_time() - start == pytest.approx(7 * 20 + 30 + 2, abs=0.1)
    assert "put of object 'n' into bucket 'b': the server has not answered for 30 s" in str(result[0])
    assert bucket.server.sent("PUB", "$JS.API.STREAM.PURGE.>")


async def test_an_info_whose_answer_was_lost_with_the_connection_is_looked_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_bucket() as (bucket, store, nc):

        def cut(frame: Frame) -> str | None:
            if matches(METAS, frame.subject):
                bucket.hook = lambda _: None
                bucket.server.cut()
                return "lost"
            return None

        bucket.hook = cut
        info = await store.put("n", b"data")
        await nc.wait_connected()
        assert await store.get_info("n") is not None
    assert bucket.data(info.nuid) == [b"data"]
    assert info.revision == bucket.sequences(METAS)[0]


UNAVAILABLE = {"error": {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}}


@pytest.mark.parametrize("later", ["503", UNAVAILABLE, FULL, "unreadable", "silent"], ids=str)
@pytest.mark.parametrize("cancelled", [False, True])
async def test_no_later_refusal_takes_the_chunks_of_an_object_that_was_stored(
    autojump_clock: trio.testing.MockClock,
    later: Any,  # noqa: ANN401 - what the server answers
    cancelled: bool,
) -> None:
    """J1: a refusal of the second sending says nothing of the first, whose answer was lost."""
    async with open_bucket(reconnect_delay=lambda _: 0.1) as (bucket, store, nc):
        await store.put("n", b"old")

        def cut(frame: Frame) -> Any:  # noqa: ANN401 - what the server answers
            if not matches(METAS, frame.subject):
                return None
            unread = {"unreadable": UNAVAILABLE, "silent": None}
            if later in ("unreadable", "silent"):
                bucket.hook = lambda _: None
                bucket.server._responders.insert(0, ("$JS.API.STREAM.MSG.GET.>", lambda _: unread[later]))
            else:
                bucket.hook = lambda again: later if matches(METAS, again.subject) else None
            bucket.server.cut()
            return "lost"

        bucket.hook = cut
        with trio.move_on_after(2 if cancelled else 1000):
            with suppress(errors.Error):
                await store.put("n", b"new")
        bucket.hook = lambda _: None
        await trio.sleep(10)
        await nc.wait_connected()
        (meta,) = bucket.metas
        assert meta["size"] == 3
        assert bucket.data(meta["nuid"]) == [b"new"]


async def test_an_info_whose_second_answer_is_lost_too_is_settled_by_the_third(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_bucket(reconnect_delay=lambda _: 0.1) as (bucket, store, nc):
        answers = ["silence", "lost"]

        def cut(frame: Frame) -> str | None:
            if not matches(METAS, frame.subject) or not answers:
                return None
            bucket.server.cut()
            return answers.pop(0)

        bucket.hook = cut
        info = await store.put("n", b"data")
        assert bucket.data(info.nuid) == [b"data"]
        assert nc.statistics().reconnects == 2
        assert bucket.chunks == 1


@pytest.mark.parametrize("outcome", ["stored", "not stored", "a rival was faster"])
async def test_an_info_in_doubt_is_settled_by_the_next_connection_however_late_it_comes(
    autojump_clock: trio.testing.MockClock, outcome: str
) -> None:
    """J1: no chunks are left that belong to nothing, and none are purged that belong to something."""
    async with open_bucket(reconnect_delay=lambda _: 2.0) as (bucket, store, nc):

        def cut(frame: Frame) -> str | None:
            if not matches(METAS, frame.subject):
                return None
            bucket.hook = lambda _: None
            bucket.server.dials = ["refuse", "refuse"]
            bucket.server.cut()
            if outcome == "a rival was faster":
                bucket.store(frame._replace(payload=frame.payload.replace(b'"nuid":"', b'"nuid":"rival')))
            return "lost" if outcome == "stored" else "silence"

        bucket.hook = cut
        start = trio.current_time()
        if outcome == "a rival was faster":
            with pytest.raises(errors.DisconnectedError, match="put of object 'n' into bucket 'b'"):
                await store.put("n", b"data")
        else:
            info = await store.put("n", b"data")
            assert info.revision == bucket.sequences(METAS)[0]
            assert bucket.data(info.nuid) == [b"data"]
        assert trio.current_time() - start > 2, "longer than a cleanup may take"
        await nc.flush()
        assert len(bucket.metas) == 1
        assert bucket.chunks == (0 if outcome == "a rival was faster" else 1)


async def test_a_put_ended_by_a_lost_connection_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, nc):
        bucket.hook = lambda frame: (
            bucket.server.cut() if bucket.chunks == 3 and matches(CHUNKS, frame.subject) else None
        )
        with pytest.raises(errors.DisconnectedError):
            await store.put("n", bytes(100), small(10))
        await nc.wait_connected()
        await nc.flush()
    assert not bucket.messages


@pytest.mark.parametrize("name", ["", "x" * 3000, "\ud800"])
async def test_names_that_the_server_cannot_take_are_refused(name: str) -> None:
    async with open_bucket() as (bucket, store, _):
        for call in (store.put(name, b""), store.get_info(name), store.delete(name)):
            with pytest.raises(errors.InvalidObjectNameError, match="bucket 'b'"):
                await call
    assert not bucket.server.sent("PUB", "$JS.>")


async def test_a_link_in_the_meta_of_a_put_is_refused() -> None:
    link = api.ObjectMetaOptions(link=api.ObjectLink(bucket="other", name="n"))
    async with open_bucket() as (bucket, store, _):
        with pytest.raises(errors.BadObjectMetaError, match="object 'n' in bucket 'b'"):
            await store.put("n", b"", api.ObjectMeta(options=link))
        with pytest.raises(errors.BadObjectMetaError, match="0 bytes"):
            await store.put("n", b"", small(0))
        with pytest.raises(TypeError, match="int"):
            await store.put("n", 5)  # type: ignore[arg-type]
    assert not bucket.messages


# -- get ---------------------------------------------------------------------------------------------------------------


def fill(stream: S, bucket: FakeBucket) -> S:
    """Let consumers read what the bucket holds now."""
    stream.messages = [Stored(seq, frame.subject, frame.payload) for seq, frame in bucket.messages.items()]
    stream.last = bucket.sequence
    return stream


async def test_get_reads_chunk_by_chunk() -> None:
    data = bytes(range(100))
    async with open_bucket() as (bucket, store, nc):
        info = await store.put("n", data, small(10))
        stream = fill(FakeStream(bucket.server, f"OBJ_{BUCKET}"), bucket)
        result = await store.get("n")
        assert (result.data, result.info.nuid) == (data, info.nuid)
        await nc.flush()
        assert not stream.consumers
        assert [info.name for info in await store.list()] == ["n"]
        await nc.flush()
        assert not stream.consumers


@pytest.mark.parametrize("chunks", [1, 3])
async def test_a_get_whose_first_chunk_is_lost_with_the_connection_goes_on(
    autojump_clock: trio.testing.MockClock, chunks: int
) -> None:
    """J3: from the moment that its info was read."""
    server = FakeServer()
    asked: list[str] = []
    subject = "DIRECT.GET.OBJ_b.>" if chunks == 1 else "CONSUMER.CREATE.OBJ_b.>"

    def cut(frame: Frame) -> Any:  # noqa: ANN401 - whatever a responder may answer
        asked.append(frame.subject)
        if len(asked) < 3:
            server.cut()
            return None
        return objects._create(frame)

    server.on(f"$JS.API.{subject}", cut)
    if chunks == 1:
        server.on("$JS.API.CONSUMER.CREATE.OBJ_b.>", cut)
    objects = FakeObjects(server, BUCKET)
    objects.add("n", *[b"%d" % number for number in range(chunks)])
    async with trio.open_nursery() as nursery, open_client(nursery, dial=server.dial) as nc:
        result = await find_store(nc, BUCKET).get("n")
        assert result.data == b"012"[:chunks]
        assert nc.statistics().reconnects == 2
        await nc.flush()
        assert not objects.consumers
    server.check()


@pytest.mark.parametrize(("chunks", "chosen"), [(1, None), (1, 1.0), (3, None)])
async def test_a_get_whose_first_chunk_does_not_come_waits_for_the_idle_limit(
    autojump_clock: trio.testing.MockClock, chunks: int, chosen: float | None
) -> None:
    server = FakeServer()
    server.on(f"$JS.API.{'DIRECT.GET' if chunks == 1 else 'CONSUMER.CREATE'}.OBJ_b.>", lambda _: None)
    FakeObjects(server, BUCKET).add("n", *[b"x"] * chunks)
    async with trio.open_nursery() as nursery, open_client(nursery, dial=server.dial, request_timeout=chosen) as nc:
        start = trio.current_time()
        text = "get of object 'n' from bucket 'b': the server has not answered for 30 s"
        with pytest.raises(errors.TimeoutError, match=text):
            await find_store(nc, BUCKET).get("n")
        assert 30 <= trio.current_time() - start < 33


async def test_refusals_name_the_object_and_what_was_done_with_it(autojump_clock: trio.testing.MockClock) -> None:
    def cut(_: Frame) -> str:
        bucket.server.cut()
        return "silence"

    async with open_bucket() as (bucket, store, _):
        bucket.hook = only(CHUNKS, [FULL])
        with pytest.raises(errors.APIError, match=r"^put of object 'n' into bucket 'b': maximum bytes exceeded"):
            await store.put("n", b"data")
        await store.put("n", b"data")
        bucket.hook = only(METAS, [FULL])
        with pytest.raises(errors.APIError, match=r"^deletion of object 'n' from bucket 'b': maximum bytes"):
            await store.delete("n")
        bucket.hook = cut
        with pytest.raises(errors.DisconnectedError, match=r"^put of object 'm' into bucket 'b': request to"):
            await store.put("m", b"data")


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
        ({"options": api.ObjectMetaOptions(max_chunk_size=True)}, "chunks of True bytes are none"),
        ({"options": api.ObjectMetaOptions(max_chunk_size=10.0)}, "chunks of 10.0 bytes are none"),  # type: ignore[arg-type]
        ({"options": api.ObjectMetaOptions(link={"bucket": "b"})}, "a link is no data.*dict is no ObjectLink"),  # type: ignore[arg-type]
        ({"options": api.ObjectMetaOptions(extra={"a": {5}})}, "its meta cannot be written: Object of type set"),
        ({"options": api.ObjectMetaOptions(extra={"a": float("nan")})}, "its meta cannot be written: Out of range"),
        (
            {"description": "x" * 2_000_000},
            "its meta takes 2000[0-9]+ bytes, and the server takes messages of 1048576 bytes",
        ),
        ({"options": api.ObjectMetaOptions(max_chunk_size="1")}, "chunks of '1' bytes are none"),  # type: ignore[arg-type]
    ],
)
async def test_a_meta_that_cannot_be_written_shows_before_anything_is_sent(meta: dict[str, Any], text: str) -> None:
    async with open_bucket() as (bucket, store, _):
        before = len(bucket.server.frames)
        with pytest.raises(errors.BadObjectMetaError, match=rf"^object 'n' in bucket 'b': {text}"):
            await store.put("n", b"data", api.ObjectMeta(**meta))
        with pytest.raises(TypeError, match="object 'n' in bucket 'b': its data must be bytes or str, not bytearray"):
            await store.put("n", bytearray(b"data"))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="object 'n' in bucket 'b': its data is no valid text"):
            await store.put("n", "\ud800")
        assert len(bucket.server.frames) == before


async def test_what_is_no_meta_is_refused() -> None:
    async with open_bucket() as (bucket, store, _):
        wrongs: list[Any] = [{"headers": {}}, "n", api.ObjectMetaOptions(max_chunk_size=5)]
        for wrong in wrongs:
            with pytest.raises(TypeError, match=f"object 'n': meta must be an ObjectMeta, not {type(wrong).__name__}"):
                await store.put("n", b"", wrong)
    assert not bucket.server.sent("PUB")


async def test_text_of_every_kind_is_stored_as_the_text_that_it_is() -> None:
    class Colour(str, enum.Enum):  # noqa: UP042 - the older kind, whose str() is not its value
        RED = "red"

    options = api.ObjectMetaOptions(max_chunk_size=7, extra={"shape": "round"})
    meta = api.ObjectMeta(
        description=Colour.RED,
        headers=MappingProxyType({Colour.RED: UserList(["a", Colour.RED])}),  # type: ignore[arg-type]
        metadata=MultiDict({Colour.RED: Colour.RED}),  # type: ignore[arg-type]
        options=options,
    )
    async with open_bucket() as (bucket, store, _):
        info = await store.put("n", b"", meta)
    [stored] = bucket.metas
    assert (stored["description"], stored["headers"], stored["metadata"]) == (
        "red",
        {"red": ["a", "red"]},
        {"red": "red"},
    )
    assert stored["options"] == {"max_chunk_size": 7, "shape": "round"}
    assert (info.description, info.headers) == ("red", {"red": ["a", "red"]})
    assert options == api.ObjectMetaOptions(max_chunk_size=7, extra={"shape": "round"})


async def test_headers_that_repeat_are_all_kept() -> None:
    async with open_bucket() as (_, store, _):
        repeated = MultiDict([("A", "1"), ("A", "2"), ("B", "3")])
        info = await store.put("n", b"", api.ObjectMeta(headers=repeated))  # type: ignore[arg-type]
        assert info.headers == {"A": ["1", "2"], "B": ["3"]}


class SlowStream(FakeStream):
    """Gives one new message to each consumer and then falls silent, so that the reader takes another one in the end."""

    consumers_served = 1000

    def _serve(self, consumer: Consumer) -> None:
        # A reader that goes on asks for the last one that it has once more.
        limit = 1 if consumer.config["deliver_policy"] == "all" else 2
        if consumer.name not in self.served:
            self.served.append(consumer.name)
        while consumer.delivered < limit and len(self.served) <= self.consumers_served:
            self._deliver(consumer, next(self._pending(consumer)), consumer.pulls[0].inbox)

    def __init__(self, server: FakeServer, name: str) -> None:
        super().__init__(server, name)
        self.served: list[str] = []


async def test_a_get_that_moves_slowly_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    """J5: ten seconds for each chunk, and more than the idle limit in all."""
    data = bytes(range(100))
    async with open_bucket() as (bucket, store, _):
        await store.put("n", data, small(10))
        fill(SlowStream(bucket.server, f"OBJ_{BUCKET}"), bucket)
        start = trio.current_time()
        assert (await store.get("n")).data == data
        assert trio.current_time() - start > 80


async def test_a_get_that_stalls_fails_after_the_idle_limit(autojump_clock: trio.testing.MockClock) -> None:
    """J3, J5: it does not hang, and the last chunk is what the time is counted from."""
    async with open_bucket() as (bucket, store, nc):
        await store.put("n", bytes(100), small(10))
        stream = fill(SlowStream(bucket.server, f"OBJ_{BUCKET}"), bucket)
        stream.consumers_served = 3
        start = trio.current_time()
        text = "get of object 'n' from bucket 'b': the server has not answered for 30 s"
        with pytest.raises(errors.TimeoutError, match=text):
            await store.get("n")
        assert 45 < trio.current_time() - start < 60
        assert nc.statistics().subscriptions == 0


async def test_a_get_or_list_cancelled_at_any_step_leaves_nothing() -> None:
    """J2, A5."""
    for what in ("get", "list"):
        step, reached = 0, True
        while reached:
            step += 1
            async with open_bucket() as (bucket, store, nc):
                await store.put("n", bytes(100), small(10))
                stream = fill(FakeStream(bucket.server, f"OBJ_{BUCKET}"), bucket)
                call = partial(store.get, "n") if what == "get" else store.list
                reached = await cancelled_at(step, call)
                assert nc.statistics().subscriptions == 0
                assert nc.statistics().pending_requests == 0
                await nc.flush()
                assert not stream.consumers
        assert step >= 3


# -- delete ------------------------------------------------------------------------------------------------------------


async def test_delete_leaves_a_marker_and_no_data() -> None:
    """J14: and says for a deleted object that it was one."""
    async with open_bucket() as (bucket, store, _):
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


async def test_delete_keeps_what_another_client_wrote_into_the_info() -> None:
    fields = {
        "name": "n",
        "bucket": BUCKET,
        "nuid": "abc",
        "size": 1,
        "chunks": 1,
        "colour": "red",
        "options": {"max_chunk_size": 7, "shape": "round"},
    }
    subject = f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(b'n').decode()}"
    async with open_bucket() as (bucket, store, nc):
        await nc.request(subject, json.dumps(fields).encode())
        await store.delete("n")
    [marker] = bucket.metas
    assert marker["colour"] == "red"
    assert marker["options"] == {"max_chunk_size": 7, "shape": "round"}
    assert marker["deleted"] is True


async def test_a_delete_that_was_refused_keeps_the_data(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, _):
        await store.put("n", b"data")
        bucket.hook = only(METAS, [WRONG_SEQUENCE])
        with pytest.raises(errors.BadRequestError, match="deletion of object 'n' from bucket 'b'"):
            await store.delete("n")
        assert bucket.chunks == 1
        bucket.hook = lambda _: "silence"
        with pytest.raises(errors.TimeoutError, match="deletion of object 'n'"):
            await store.delete("n")
    assert bucket.chunks == 1


# -- cancelled at every step -------------------------------------------------------------------------------------------


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope just before the n-th step of a task."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.task: trio.lowlevel.Task | None = None
        self.scope = trio.CancelScope()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.step -= 1
            if self.step == 0:
                self.scope.cancel()


async def cancelled_at(step: int, call: Callable[[], Any]) -> bool:
    """Run a coroutine function, cancelled at one of its steps; say whether it got that far."""
    instrument = CancelAtStep(step)
    instrument.task = trio.lowlevel.current_task()
    trio.lowlevel.add_instrument(instrument)
    try:
        with instrument.scope:
            await call()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    return instrument.step <= 0


async def test_a_put_cancelled_at_any_step_is_whole_or_has_left_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """J1: no orphaned chunks, and the old object stays readable; a whole new one is the other honest outcome."""
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 30)
    step, outcomes = 0, set()
    while True:
        step += 1
        async with open_bucket() as (bucket, store, nc):
            old = await store.put("n", b"old")
            reached = await cancelled_at(step, partial(store.put, "n", bytes(100), small(10)))
            await nc.flush()
            info = await store.get_info("n")
            outcomes.add(info.size)
            assert (info.nuid == old.nuid) == (info.size == 3)
            assert bucket.chunks == len(bucket.data(info.nuid)) == info.chunks
            assert nc.statistics().pending_requests == 0
        if not reached:
            break
    assert outcomes == {3, 100}
    assert step > 10


async def test_a_delete_cancelled_at_any_step_is_done_or_not_begun() -> None:
    """J14: never an info without its chunks."""
    step, outcomes = 0, set()
    while True:
        step += 1
        async with open_bucket() as (bucket, store, nc):
            await store.put("n", b"data")
            reached = await cancelled_at(step, partial(store.delete, "n"))
            await nc.flush()
            info = await store.get_info("n", show_deleted=True)
            outcomes.add(info.deleted)
            assert bucket.chunks == (0 if info.deleted else 1)
        if not reached:
            break
    assert outcomes == {True, False}


@pytest.mark.parametrize("outcome", ["stored", "refused", "never known"])
async def test_a_put_cancelled_while_its_info_is_under_way_waits_for_what_becomes_of_it(
    outcome: str, autojump_clock: trio.testing.MockClock
) -> None:
    """J1: to purge the chunks of an object that was stored would be worse than to leave those of one that was not."""
    async with open_bucket() as (bucket, store, nc), trio.open_nursery() as nursery:
        await store.put("n", b"old")
        replies: list[str] = []

        def late(frame: Frame) -> str | None:
            if not matches(METAS, frame.subject):
                return None
            replies.append(frame.reply)
            return "silence" if outcome == "refused" else "lost"

        async def cancel_and_answer() -> None:
            await trio.sleep(1)
            scope.cancel()
            await trio.sleep(1)
            if outcome != "never known":
                answer = {"stream": "OBJ_b", "seq": bucket.sequence} if outcome == "stored" else FULL
                bucket.server.publish(replies[0], json.dumps(answer).encode())

        bucket.hook = late
        nursery.start_soon(cancel_and_answer)
        with trio.CancelScope() as scope:
            await store.put("n", b"newer")
        assert scope.cancelled_caught
        bucket.hook = lambda _: None
        info = await store.get_info("n")
        assert info.size == (3 if outcome == "refused" else 5)
        assert bucket.data(info.nuid) == [b"old" if outcome == "refused" else b"newer"]
        assert nc.statistics().pending_requests == 0
        # What nobody found out about may leave chunks behind.
        assert bucket.chunks == (2 if outcome == "never known" else 1)


async def test_a_put_in_a_cancelled_scope_sends_nothing() -> None:
    async with open_bucket() as (bucket, store, nc):
        await nc.flush()
        before = len(bucket.server.frames)
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.put("n", b"data")
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.delete("n")
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert len(bucket.server.frames) == before


async def test_a_purge_that_nobody_answers_does_not_fail_what_is_done(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, _):
        await store.put("n", b"old")
        await store.put("n", b"new")
        purges = len(bucket.server.sent("PUB", "$JS.API.STREAM.PURGE.>"))
        bucket.purges = False
        start = trio.current_time()
        await store.delete("n")
        assert trio.current_time() - start == pytest.approx(2, abs=0.1)
        bucket.purges = True
        # Asked for once more, with nobody waiting: it may be that only the answer was lost.
        await trio.sleep(30)
        assert len(bucket.server.sent("PUB", "$JS.API.STREAM.PURGE.>")) == purges + 2
        assert bucket.chunks == 0
        await trio.sleep(100)
    assert len(bucket.server.sent("PUB", "$JS.API.STREAM.PURGE.>")) == purges + 2


async def test_a_put_that_fills_the_outbox_waits_for_room() -> None:
    async with open_bucket() as (bucket, store, nc):
        info = await store.put("n", bytes(MIB * 9), small(MIB))
        nc.publish_nowait("elsewhere", bytes(MIB))
        nc.publish_nowait("elsewhere", bytes(MIB))
        await store.put("m", b"data")
    assert len(bucket.data(info.nuid)) == 9


async def test_cleaning_up_takes_two_seconds_at_most(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, _):
        bucket.hook = lambda frame: "silence" if matches(CHUNKS, frame.subject) else None
        start = trio.current_time()
        with trio.move_on_after(1):
            await store.put("n", b"data")
        assert trio.current_time() - start == pytest.approx(3)
    assert bucket.server.sent("PUB", "$JS.API.STREAM.PURGE.>")


class Frozen:
    """A server that has stopped: what is published to a pattern waits, and comes to the bucket when it thaws."""

    def __init__(self, bucket: FakeBucket, pattern: str) -> None:
        self.bucket = bucket
        self.pattern = pattern
        self.held: list[Frame] = []
        bucket.hook = self.hold

    def hold(self, frame: Frame) -> str | None:
        if not matches(self.pattern, frame.subject):
            return None
        self.held.append(frame)
        return "silence"

    def thaw(self, count: int = 1000, *, silent: bool = False) -> None:
        """Work off what waits; the purges that came meanwhile were faster, as they are in the real server."""
        self.bucket.hook = lambda _: None
        for frame in self.held[:count]:
            answer = self.bucket.store(frame)
            if not silent:
                self.bucket.server.publish(frame.reply, json.dumps(answer).encode())
        del self.held[:count]
        if self.held:
            self.bucket.hook = self.hold


@pytest.mark.parametrize("count", [1, 5, 10])
async def test_chunks_that_are_stored_after_a_cancelled_put_are_purged_when_they_are(
    count: int, autojump_clock: trio.testing.MockClock
) -> None:
    """J1: the purge overtakes what is on its way; the acknowledgements say when to purge again, be they together or not."""
    async with open_bucket() as (bucket, store, nc):
        await store.put("n", b"old")
        frozen = Frozen(bucket, CHUNKS)
        with trio.move_on_after(1) as scope:
            await store.put("n", bytes(100), small(10))
        assert scope.cancelled_caught
        assert trio.current_time() < 3.5, "leaving is bounded"
        assert nc.statistics().pending_requests == 0
        while frozen.held:
            await trio.sleep(600)
            frozen.thaw(count)
        await trio.sleep(1)
        assert bucket.chunks == 1
        assert (await store.get_info("n")).size == 3
        # And then it is over.
        purges = len(bucket.server.sent("PUB", "$JS.API.STREAM.PURGE.>"))
        await trio.sleep(1000)
        assert len(bucket.server.sent("PUB", "$JS.API.STREAM.PURGE.>")) == purges


async def test_a_client_that_drains_or_closes_does_not_wait_for_late_chunks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for drained in (True, False):
        async with open_bucket() as (bucket, store, nc):
            Frozen(bucket, CHUNKS)
            with trio.move_on_after(1):
                await store.put("n", bytes(100), small(10))
            start = trio.current_time()
            if drained:
                await nc.drain()
        assert trio.current_time() - start < 1
        assert bucket.server.sent("PUB", "$JS.API.STREAM.PURGE.>")


@pytest.mark.parametrize("again", [False, True], ids=["cancelled and then cut off", "cut off"])
async def test_chunks_whose_acknowledgements_were_lost_with_the_connection_are_purged_behind_the_next_one(
    again: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """J1: nothing says when they arrive, so one more purge follows."""
    async with open_bucket(reconnect_delay=lambda _: 50.0) as (bucket, store, nc):
        frozen = Frozen(bucket, CHUNKS)
        with trio.move_on_after(1 if not again else 1000), suppress(errors.DisconnectedError):
            if again:
                async with trio.open_nursery() as nursery:

                    async def cut() -> None:
                        await trio.sleep(1)
                        bucket.server.dials = ["refuse"]
                        bucket.server.cut()

                    nursery.start_soon(cut)
                    with suppress(errors.DisconnectedError):
                        await store.put("n", bytes(100), small(10))
            else:
                await store.put("n", bytes(100), small(10))
        if not again:
            bucket.server.dials = ["refuse"]
            bucket.server.cut()
        assert trio.current_time() < 3.5
        await trio.testing.wait_all_tasks_blocked()
        assert not nc.is_connected
        await nc.wait_connected()
        # The server reads what was left in its socket a moment after it has answered the purge.
        await trio.sleep(1)
        frozen.thaw(silent=True)
        assert bucket.chunks == 10
        await trio.sleep(10)
        assert bucket.chunks == 0


async def test_a_purge_whose_answer_was_lost_with_the_connection_is_asked_for_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_bucket(reconnect_delay=lambda _: 50.0) as (bucket, store, nc):
        await store.put("n", b"old")
        bucket.purges = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.delete, "n")
            await trio.sleep(1)
            bucket.server.dials = ["refuse"]
            bucket.server.cut()
        bucket.purges = True
        assert bucket.chunks == 1
        await nc.wait_connected()
        await nc.flush()
        assert bucket.chunks == 0


async def test_a_purge_that_the_server_is_not_ready_for_is_asked_for_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for answer in (UNAVAILABLE, NO_RESPONDERS):
        async with open_bucket() as (bucket, store, _):
            await store.put("n", b"old")
            refusals = [answer] * 2

            def purge(
                frame: Frame, bucket: FakeBucket = bucket, refusals: list[Any] = refusals
            ) -> dict[str, Any] | None:
                if not refusals:
                    return bucket.purge(frame)
                refusal = refusals.pop()
                if refusal is not NO_RESPONDERS:
                    return dict(refusal)
                bucket.server.publish(frame.reply, headers=NO_RESPONDERS)
                return None

            bucket.server._responders.insert(0, ("$JS.API.STREAM.PURGE.>", purge))
            await store.delete("n")
            assert bucket.chunks == 1
            await trio.sleep(11)
            assert bucket.chunks == 0


@pytest.mark.parametrize("outcome", ["stored", "refused"])
async def test_an_info_that_is_answered_after_all_has_its_chunks_or_those_before_it_purged(
    outcome: str, autojump_clock: trio.testing.MockClock
) -> None:
    """J1: cancelled in its last step, and the server stands still for longer than anybody waits."""
    async with open_bucket() as (bucket, store, _):
        await store.put("n", b"old")
        frozen = Frozen(bucket, METAS)
        with trio.move_on_after(1) as scope:
            await store.put("n", b"newer")
        assert scope.cancelled_caught
        assert bucket.chunks == 2, "it is not known which of the two is to go"
        await trio.sleep(100)
        if outcome == "refused":
            bucket.forget(METAS)
        frozen.thaw()
        await trio.sleep(1)
        infos = bucket.metas
        assert [info["size"] for info in infos] == ([] if outcome == "refused" else [5])
        assert bucket.chunks == 1
        if outcome == "stored":
            assert bucket.data(infos[0]["nuid"]) == [b"newer"]


async def test_a_marker_that_is_answered_after_all_has_the_data_purged(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, _):
        await store.put("n", b"old")
        frozen = Frozen(bucket, METAS)
        with trio.move_on_after(1):
            await store.delete("n")
        assert bucket.chunks == 1
        await trio.sleep(100)
        frozen.thaw()
        await trio.sleep(1)
        assert (bucket.chunks, bucket.metas[0]["deleted"]) == (0, True)


async def test_an_info_that_never_left_us_has_its_chunks_purged(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, nc):
        await store.put("n", b"old")

        def stop(frame: Frame) -> None:
            if matches(CHUNKS, frame.subject):
                bucket.server.link.stall(up=True)
                # What the writer has in hand, and is not through with.
                nc.publish_nowait("before")

        bucket.hook = stop
        with trio.move_on_after(1):
            await store.put("n", b"newer")
        bucket.hook = lambda _: None
        bucket.server.link.resume()
        await nc.flush()
        await trio.sleep(1)
        assert bucket.chunks == 1
        assert bucket.metas[0]["size"] == 3


# -- purges that are refused -------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_unpurgeable() -> AsyncGenerator[tuple[FakeBucket, ObjectStore, Client, Feed[events.ConnectionEvent]]]:
    async with open_bucket() as (bucket, store, nc), trio.open_nursery() as nursery, open_events(nursery, nc) as told:
        bucket.server.deny_publish = ("$JS.API.STREAM.PURGE.>",)
        yield bucket, store, nc, told


async def next_of(told: Feed[events.ConnectionEvent], kind: type[E]) -> E:
    with trio.fail_after(5):
        while not isinstance(event := await told.receive(), kind):
            pass
        return event


async def test_a_delete_that_may_not_purge_says_that_the_data_stays() -> None:
    text = (
        "^deletion of object 'n' from bucket 'b': it is deleted, but its data stays in the bucket: .*"
        r"\$JS\.API\.STREAM\.PURGE\.OBJ_b"
    )
    async with open_unpurgeable() as (bucket, store, _, _):
        await store.put("n", b"data")
        for _ in range(2):
            with pytest.raises(errors.PermissionsViolationError, match=text) as caught:
                await store.delete("n")
            assert caught.value.subject == "$JS.API.STREAM.PURGE.OBJ_b"
            assert (bucket.chunks, bucket.metas[0]["deleted"]) == (1, True)
        bucket.server.deny_publish = ()
        await store.delete("n")
        assert bucket.chunks == 0


async def test_a_put_that_may_not_purge_what_it_replaced_is_done_and_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    async with open_unpurgeable() as (bucket, store, _, told):
        old = await store.put("n", b"old")
        info = await store.put("n", b"new")
        event = await next_of(told, events.ChunksLeft)
        assert (event.stream, event.subject) == ("OBJ_b", f"$O.b.C.{old.nuid}")
        assert isinstance(event.reason, errors.PermissionsViolationError)
        assert bucket.data(info.nuid) == [b"new"]
        assert "data of no object stays in stream 'OBJ_b', at '$O.b.C." in caplog.text


async def test_a_failed_put_that_may_not_purge_fails_as_it_would_and_tells_it() -> None:
    async with open_unpurgeable() as (bucket, store, _, told):
        bucket.hook = only(CHUNKS, [None, FULL])
        with pytest.raises(errors.BadRequestError, match="maximum bytes exceeded"):
            await store.put("n", bytes(100), small(10))
        assert (await next_of(told, events.ChunksLeft)).stream == "OBJ_b"
        assert bucket.chunks


async def test_a_cancelled_delete_that_may_not_purge_is_cancelled_and_tells_it() -> None:
    async with open_unpurgeable() as (bucket, store, _, told):
        await store.put("n", b"data")
        with trio.CancelScope() as scope:

            def cancel(frame: Frame) -> None:
                if matches(METAS, frame.subject):
                    scope.cancel()

            bucket.hook = cancel
            await store.delete("n")
        assert scope.cancelled_caught
        assert (await next_of(told, events.ChunksLeft)).stream == "OBJ_b"
        assert (bucket.chunks, bucket.metas[0]["deleted"]) == (1, True)


def _same(answer: object, _: Frame) -> object:
    return answer


async def test_a_purge_that_the_server_refuses_and_one_of_a_stream_that_is_gone() -> None:
    denied = {"error": {"code": 500, "err_code": 10109, "description": "invalid operation on sealed stream"}}
    gone = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
    for answer in (denied, gone):
        async with open_bucket() as (bucket, store, _):
            bucket.server._responders.insert(0, ("$JS.API.STREAM.PURGE.>", partial(_same, answer)))
            await store.put("n", b"data")
            if answer is gone:
                await store.delete("n")
                continue
            with pytest.raises(errors.ServerError, match=r"its data stays in the bucket: .*sealed stream"):
                await store.delete("n")


async def test_a_purge_that_is_never_answered_is_given_up_and_told(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_bucket(ping_interval=10_000) as (bucket, store, nc),
        trio.open_nursery() as nursery,
        open_events(nursery, nc) as told,
    ):
        await store.put("n", b"data")
        bucket.purges = False
        await store.delete("n")
        event = await told.receive()
        assert isinstance(event, events.ChunksLeft)
        assert "deletion of object 'n' from bucket 'b': the server does not answer" in str(event.reason)
        assert 100 < trio.current_time() < 130
        await trio.sleep(1000)
        assert len(bucket.server.sent("PUB", "$JS.API.STREAM.PURGE.>")) == 4


async def test_the_exception_of_the_body_is_the_one_that_comes_out(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, _, nc):
        writer = ChunkWriter(Api(seam(nc)), "OBJ_b", "$O.b.C.x", "a test")
        bucket.hook = lambda _: "503"
        await writer.write(b"1")
        with pytest.raises(errors.NoStreamResponseError):
            await writer.drain()
        await writer.abandon()
    assert not bucket.messages


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
    """J12."""
    digest = Digest()
    # A value whose base64 has both letters that the two alphabets differ in.
    text = next(str(n) for n in range(1000) if {"-", "_"} <= set(_digest(str(n))))
    await digest.update([text.encode()])
    right = _digest(text)
    assert str(digest) == f"SHA-256={right}"
    for prefix in ("SHA-256=", "sha-256=", "Sha-256="):
        for form in (right, right.rstrip("="), right.replace("-", "+").replace("_", "/")):
            assert digest.matches(prefix + form)
    for wrong in (right, f"SHA-512={right}", f"SHA-256={_digest('other')}", "SHA-256=", f"SHA-256={right}="):
        assert not digest.matches(wrong)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()


async def test_large_pieces_are_hashed_in_a_thread_with_the_same_result() -> None:
    data = bytes(chunks.HASH_IN_THREAD)
    digest = Digest()
    await digest.update([memoryview(data), b"x"])
    assert digest.matches("SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(data + b"x").digest()).decode())
