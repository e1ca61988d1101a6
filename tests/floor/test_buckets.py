"""Buckets of both kinds in memory: what is not sent, who is asked what, and who was faster."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import pytest

from tests.fake_jetstream import FakeKeyValue, FakeObjects, refusal
from tests.fakes import FakeServer, Frame
from tests.worlds import open_world
from trionats import JetStream, api, errors

pytestmark = pytest.mark.usefixtures("autojump_clock")

Call: TypeAlias = "Callable[[Any], Coroutine[Any, Any, object]]"

TAKEN = refusal(400, 10058, "stream name already in use with a different configuration")
NO_STREAM = refusal(404, 10059, "stream not found")
MEMORY = api.StorageType.MEMORY


class Buckets:
    """A server that holds a bucket of each kind, `b`, and gives these answers first."""

    def __init__(self, server: FakeServer, js: JetStream) -> None:
        self.server, self.js = server, js
        self.keys, self.objects = FakeKeyValue(server, "b"), FakeObjects(server, "b")
        self.answers: dict[str, deque[object]] = {}
        for verb in ("CREATE", "UPDATE", "DELETE", "INFO"):
            self.server.on(f"$JS.API.STREAM.{verb}.KV_b", partial(self._answer, verb), first=True)

    def say(self, verb: str, *answers: object) -> None:
        """Give these answers, one after the other, and then the fake stream's."""
        self.answers[verb] = deque(answers)

    def _answer(self, verb: str, _: Frame) -> object:
        waiting = self.answers.get(verb)
        return waiting.popleft() if waiting else self.keys.about()

    @property
    def asked(self) -> list[str]:
        sent = [frame for frame in self.server.frames if frame.verb in ("PUB", "HPUB")]
        return [frame.subject.removeprefix("$JS.API.STREAM.") for frame in sent]


@asynccontextmanager
async def open_buckets() -> AsyncIterator[Buckets]:
    async with open_world() as (server, nc, _):
        yield Buckets(server, nc.jetstream())


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda js: js.create_key_value(), errors.InvalidBucketNameError, "bucket ''"),
        (lambda js: js.create_key_value(bucket="a.b"), errors.InvalidBucketNameError, r"bucket 'a\.b'"),
        (lambda js: js.create_key_value(bucket="b", history=65), ValueError, "create_key_value: history is 65"),
        (lambda js: js.update_key_value(bucket="b", history=65), ValueError, "update_key_value: history is 65"),
        (lambda js: js.create_or_update_key_value(bucket="b", ttl=-1), ValueError, r"KeyValueConfig\.ttl is -1"),
        (lambda js: js.create_key_value(bucket="b", timeout=5), TypeError, "deadlines are cancel scopes"),
        (lambda js: js.create_key_value({"bucket": "b"}), TypeError, "config must be a KeyValueConfig, not dict"),
        (lambda js: js.update_key_value(ttl=5), errors.InvalidBucketNameError, "bucket ''"),
        (lambda js: js.key_value("x" * 252), errors.InvalidBucketNameError, "at most 251 letters"),
        (lambda js: js.key_value(None), TypeError, "must be text, not NoneType"),
        (lambda js: js.delete_key_value("a b"), errors.InvalidBucketNameError, "bucket 'a b'"),
        (lambda js: js.update_object_store("b", replicas=9), ValueError, "update_object_store: replicas is 9"),
        (lambda js: js.update_object_store(ttl=5), errors.InvalidBucketNameError, "bucket ''"),
        (lambda js: js.create_or_update_object_store("b", max_bytes=-5), ValueError, "max_bytes is -5"),
        (lambda js: js.create_object_store("b", ttl=0.01), ValueError, r"create_object_store: ttl is 0\.01"),
        (lambda js: js.delete_object_store(""), errors.InvalidBucketNameError, "bucket ''"),
    ],
)
async def test_what_cannot_be_a_bucket_is_refused_before_anything_is_sent(
    call: Call, kind: type[Exception], text: str
) -> None:
    async with open_buckets() as w:
        with pytest.raises(kind, match=text):
            await call(w.js)
        assert w.asked == []


async def test_a_bucket_that_is_in_the_way_is_as_good_or_named_by_what_differs() -> None:
    async with open_buckets() as w:
        w.say("CREATE", TAKEN, TAKEN)
        kv = await w.js.create_key_value(bucket="b", storage=MEMORY)
        assert (kv.bucket, w.asked) == ("b", ["CREATE.KV_b", "INFO.KV_b"])
        with pytest.raises(errors.BadRequestError, match=r"^key-value bucket 'b': .*error 10058\): another ttl$"):
            await w.js.create_key_value(bucket="b", storage=MEMORY, ttl=5)


@pytest.mark.parametrize("why", [NO_STREAM, refusal(500, 10000, "no")], ids=["deleted", "refused"])
async def test_where_the_bucket_in_the_way_cannot_be_looked_at_the_first_refusal_is_told(why: object) -> None:
    async with open_buckets() as w:
        w.say("CREATE", TAKEN)
        w.say("INFO", why)
        with pytest.raises(
            errors.BadRequestError, match=r"^key-value bucket 'b': stream name already in use"
        ) as caught:
            await w.js.create_key_value(bucket="b", storage=MEMORY)
        assert caught.value.err_code == 10058


async def test_create_or_update_changes_what_somebody_has_created_meanwhile() -> None:
    async with open_buckets() as w:
        w.say("INFO", NO_STREAM)
        w.say("CREATE", TAKEN)
        await w.js.create_or_update_key_value(bucket="b", ttl=5, storage=MEMORY)
        assert w.asked == ["INFO.KV_b", "CREATE.KV_b", "INFO.KV_b", "INFO.KV_b", "UPDATE.KV_b"]
        sent = json.loads(w.server.sent("PUB", "$JS.API.STREAM.UPDATE.KV_b")[0].payload)
        assert (sent["name"], sent["max_age"]) == ("KV_b", 5 * 10**9)


async def test_create_or_update_tells_another_refusal_at_once() -> None:
    async with open_buckets() as w:
        w.say("INFO", NO_STREAM)
        w.say("CREATE", refusal(500, 10047, "insufficient storage resources available"))
        with pytest.raises(errors.ServerError, match=r"^key-value bucket 'b': insufficient storage resources"):
            await w.js.create_or_update_key_value(bucket="b")
        assert w.asked == ["INFO.KV_b", "CREATE.KV_b"]


async def test_a_bucket_that_is_deleted_while_it_is_updated_is_not_found() -> None:
    async with open_buckets() as w:
        w.say("UPDATE", NO_STREAM)
        with pytest.raises(errors.BucketNotFoundError, match="there is no key-value bucket 'b'"):
            await w.js.update_key_value(bucket="b", ttl=5)


@pytest.mark.parametrize("call", ["create_key_value", "update_key_value", "create_or_update_key_value"])
async def test_limit_markers_are_not_asked_of_a_server_that_does_not_know_them(call: str) -> None:
    async with open_buckets() as w:
        w.server.on("$JS.API.INFO", lambda _: {"api": {"total": 1, "errors": 0}}, first=True)
        said = r"^key-value bucket 'b': limit_marker_ttl needs a server of 2\.11 or later \(API level 1\); this one has level 0$"
        with pytest.raises(errors.APIError, match=said):
            await getattr(w.js, call)(bucket="b", limit_marker_ttl=5)
        assert w.asked == ["$JS.API.INFO"]


@pytest.mark.parametrize(
    ("transform", "origin"), [(None, "b"), ("$O.b.M.>", "b"), ("$O.copy.>", "copy")], ids=["none", "filter", "own"]
)
async def test_a_mirrored_object_store_is_read_under_the_subjects_that_its_messages_have(
    transform: str | None, origin: str
) -> None:
    async with open_buckets() as w:
        mirror: dict[str, object] = {"name": "OBJ_b"}
        if transform is not None:
            mirror["subject_transforms"] = [{"src": "$O.b.>", "dest": transform}]
        config = {"name": "OBJ_copy", "mirror": mirror, "allow_direct": True}
        w.server.on("$JS.API.STREAM.INFO.OBJ_copy", lambda _: {**w.objects.about(), "config": config}, first=True)
        w.server.on("$JS.API.STREAM.MSG.GET.OBJ_copy", lambda _: refusal(404, 10037, "no message found"), first=True)
        store = await w.js.object_store("copy")
        with pytest.raises(errors.ObjectNotFoundError):
            await store.get_info("n")
        asked = json.loads(w.server.sent("PUB", "$JS.API.STREAM.MSG.GET.OBJ_copy")[0].payload)
        assert asked == {"last_by_subj": f"$O.{origin}.M.bg=="}
