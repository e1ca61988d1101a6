"""Ordered reading over a server that refuses, lags or answers oddly; the decisions are in tests/protocol/test_leader.py."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

from tests.fake_consumers import Consumer
from tests.fake_jetstream import UNAVAILABLE, FakeObjects, refusal
from tests.fakes import FakeServer, Frame
from tests.worlds import Listener, open_bucket, seam, settled, until
from trionats import ObjectStore, errors, events, open_watcher

pytestmark = pytest.mark.usefixtures("autojump_clock")


NO_ROOM = refusal(400, 10026, "maximum consumers limit reached")


class Bucket(FakeObjects):
    """A bucket whose server answers as the test says."""

    def __init__(self, server: FakeServer, bucket: str) -> None:
        #: How many consumers are made before others are refused with `refusal`.
        self.room, self.refusal = 1 << 30, NO_ROOM
        #: What the stream's info says besides, and what a consumer's does.
        self.about_it: dict[str, Any] = {}
        self.about_consumers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.silent = False
        super().__init__(server, bucket)

    def about(self) -> dict[str, Any]:
        self.asked.append("STREAM.INFO")
        return {**super().about(), **self.about_it}

    def create(self, frame: Frame) -> dict[str, Any] | None:
        self.asked.append("CONSUMER.CREATE")
        if self.room <= 0:
            return self.refusal
        self.room -= 1
        return super().create(frame)

    def _info(self, consumer: Consumer | None) -> dict[str, Any]:
        return {"created": "2026-11-28T12:00:00.5Z", **super()._info(consumer), **self.about_consumers}

    def serve(self, consumer: Consumer) -> None:
        if not self.silent:
            super().serve(consumer)

    def drop_consumers(self) -> None:
        for name in list(self.consumers):
            self.delete_consumer(name)

    def replicated(self, *answers: object, ahead: int = 5) -> None:
        """Be a cluster's, whose leader has more than the replica that is read, and answers so to who asks for the last one."""
        self.about_consumers = {"cluster": {"name": "c"}}
        self.about_it = {"config": {"num_replicas": 3}, "state": {"last_seq": self.last + ahead}}
        waiting = list(answers)
        self.server.on(
            "$JS.API.STREAM.MSG.GET.>", lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0], first=True
        )


async def first(nursery: trio.Nursery, store: ObjectStore) -> str:
    async with open_watcher(nursery, store) as watcher:
        return (await watcher.receive()).name


# -- what is refused ---------------------------------------------------------------------------------------------------


async def test_a_watcher_whose_next_consumer_is_refused_for_good_is_told() -> None:
    async with open_bucket(Bucket) as (bucket, store, nc, nursery), open_watcher(nursery, store) as watcher:
        seam(nc).add_listener(seen := Listener())
        await watcher.snapshot()
        bucket.room = 0
        bucket.drop_consumers()
        begun = trio.current_time()
        with pytest.raises(errors.BadRequestError, match="maximum consumers limit reached"):
            await watcher.receive()
        # Each try is five requests, in case a deletion is under way.
        assert 36 < trio.current_time() - begun < 73 + 15
        (told,) = seen.heard(events.ReaderRefused)
        assert (told.stream, vars(told.error)["err_code"]) == ("OBJ_b", 10026)


async def test_a_watcher_that_is_never_told_its_end_ends() -> None:
    """Each refusal to find the last message is followed by another consumer, which is granted."""
    async with open_bucket(Bucket) as (bucket, store, nc, nursery):
        seam(nc).add_listener(seen := Listener())
        bucket.add("a")
        bucket.replicated(NO_ROOM)
        begun = trio.current_time()
        async with open_watcher(nursery, store) as watcher:
            with trio.fail_after(600), pytest.raises(errors.BadRequestError, match="maximum consumers limit reached"):
                await watcher.snapshot()
        assert 36 < trio.current_time() - begun < 73
        (told,) = seen.heard(events.ReaderRefused)
        assert (told.stream, vars(told.error)["err_code"]) == ("OBJ_b", 10026)


async def test_a_refusal_that_passes_does_not_end_a_watcher() -> None:
    async with open_bucket(Bucket) as (bucket, store, _, nursery), open_watcher(nursery, store) as watcher:
        await watcher.snapshot()
        bucket.room = 0
        bucket.refusal = UNAVAILABLE
        bucket.drop_consumers()
        await trio.sleep(600)
        bucket.room = 9
        bucket.add("later")
        with trio.fail_after(15):
            assert (await watcher.receive()).name == "later"


async def test_a_limit_that_is_gone_in_a_moment_is_no_refusal() -> None:
    """Ours is deleted without waiting, and the server makes another one before it has."""

    async def make_room(bucket: Bucket) -> None:
        await until(lambda: bucket.asked.count("CONSUMER.CREATE") >= 3)
        bucket.room = 9

    async with open_bucket(Bucket) as (bucket, store, _, nursery):
        bucket.add("a")
        bucket.room = 0
        nursery.start_soon(make_room, bucket)
        assert [info.name for info in await store.list()] == ["a"]
    async with open_bucket(Bucket) as (bucket, store, _, nursery):
        bucket.room = 0
        nursery.start_soon(make_room, bucket)
        async with open_watcher(nursery, store) as watcher:
            assert watcher.caught_up


@pytest.mark.parametrize("kind", ["list", "get"])
async def test_a_list_or_get_that_does_not_get_on_says_why(kind: str) -> None:
    async with open_bucket(Bucket) as (bucket, store, _, nursery):
        bucket.add("a", b"1", b"2")
        bucket.room = 1
        bucket.silent = True

        async def drop() -> None:
            await trio.sleep(1)
            bucket.drop_consumers()

        nursery.start_soon(drop)
        with pytest.raises(errors.BadRequestError, match=r"nothing came for 30 s.*maximum consumers limit reached"):
            await (store.list() if kind == "list" else store.get("a"))


async def test_who_may_not_ask_for_the_stream_is_told_once_and_goes_on() -> None:
    async with open_bucket(Bucket) as (bucket, store, nc, nursery), open_watcher(nursery, store) as watcher:
        seam(nc).add_listener(seen := Listener())
        bucket.server.deny_publish = ("$JS.API.STREAM.INFO.>",)
        for name in ("a", "b", "c"):
            bucket.drop_consumers()
            bucket.add(name)
            assert (await watcher.receive()).name == name
        (told,) = seen.heard(events.StreamUnverified)
        assert told.stream == "OBJ_b"
        assert isinstance(told.error, errors.PermissionsViolationError)


@pytest.mark.parametrize("kind", ["watcher", "list"])
async def test_an_inbox_that_is_refused_ends_it_with_the_servers_words(kind: str) -> None:
    """And the consumer that was just being made is deleted."""
    async with open_bucket(Bucket) as (bucket, store, _, nursery):
        bucket.lag = 0.05

        async def refuse() -> None:
            await settled()
            # The reader's comes before that of the request.
            inbox = next(iter(bucket.server.subscriptions))
            del bucket.server.link.subscriptions[inbox.sid]
            bucket.server.link.error(f'Permissions Violation for Subscription to "{inbox.subject}"')

        nursery.start_soon(refuse)
        with pytest.raises(errors.PermissionsViolationError, match="OBJ_b"):
            await (store.list() if kind == "list" else first(nursery, store))
        await until(lambda: not bucket.consumers, within=2)


# -- odd answers -------------------------------------------------------------------------------------------------------

ODD: list[Any] = [None, "x", -1, 1.5, True, [], {}, 1 << 70, "9" * 30]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["state", "created", "config", "last_seq"])
async def test_an_odd_stream_info_ends_nothing(field: str, odd: Any) -> None:  # noqa: ANN401
    """It is asked again, until it is one."""
    async with open_bucket(Bucket) as (bucket, store, _, nursery), open_watcher(nursery, store) as watcher:
        bucket.about_it = {"state": {"last_seq": odd}} if field == "last_seq" else {field: odd}
        bucket.drop_consumers()
        bucket.add("a")
        await trio.sleep(3)
        bucket.about_it = {}
        with trio.fail_after(30):
            assert (await watcher.receive()).name == "a"


@pytest.mark.parametrize("odd", [*ODD, {"seq": None}, {"seq": "9"}, {"seq": True}, {"seq": -1}, {"seq": 1 << 64}])
async def test_an_odd_last_message_ends_nothing(odd: Any) -> None:  # noqa: ANN401
    """It is asked for again, and a list ends when it has come to the true one."""
    async with open_bucket(Bucket) as (bucket, store, _, _):
        bucket.add("a")
        bucket.replicated(*[{"message": odd}] * 3, {"message": {"seq": bucket.last}})
        assert [info.name for info in await store.list()] == ["a"]
        assert len(bucket.server.sent("PUB", "$JS.API.STREAM.MSG.GET.>")) == 4


async def test_the_error_for_an_odd_last_message_is_like_any_other() -> None:
    async with open_bucket(Bucket) as (bucket, store, _, _):
        bucket.add("a")
        bucket.replicated({"message": None})
        with pytest.raises(errors.APIError, match="what came back is no stored message") as caught:
            await store.list()
        error = caught.value
        assert (error.code, error.err_code, error.stream, error.seq) == (None, None, None, None)


async def test_a_list_that_no_replica_can_complete_gives_up_at_its_idle_limit() -> None:
    async with open_bucket(Bucket) as (bucket, store, _, _):
        bucket.add("a")
        bucket.replicated({"message": {"seq": bucket.last + 3}})
        begun = trio.current_time()
        with pytest.raises(errors.TimeoutError, match="list of bucket 'b'"):
            await store.list()
        assert 30 <= trio.current_time() - begun < 62


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["num_pending", "delivered", "created", "cluster", "stream_seq", "consumer_seq"])
async def test_an_odd_consumer_info_ends_nothing(field: str, odd: Any) -> None:  # noqa: ANN401
    async with open_bucket(Bucket) as (bucket, store, _, nursery):
        bucket.add("a")
        bucket.about_consumers = {"delivered": {field: odd}} if field.endswith("seq") else {field: odd}
        with trio.move_on_after(40), suppress(errors.Error):
            assert await first(nursery, store) == "a"
        bucket.about_consumers = {}
        assert [info.name for info in await store.list()] == ["a"]


@pytest.mark.parametrize(
    "headers",
    [
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: many\r\nNats-Last-Stream: \r\n\r\n",
        b"NATS/1.0 100\r\nNats-Last-Consumer: -4\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: -1\r\nNats-Pending-Bytes: x\r\n\r\n",
        b"NATS/1.0 409\r\n\r\n",
        b"NATS/1.0 999 \xff\xfe\r\n\r\n",
        b"NATS/1.0 \r\nNats-Last-Consumer 1\r\n\r\n",
        b"NATS/1.0 abc\r\n\r\n",
        b"no header at all\r\n\r\n",
    ],
)
async def test_an_odd_status_ends_nothing(headers: bytes) -> None:
    async with open_bucket(Bucket) as (bucket, store, _, nursery), open_watcher(nursery, store) as watcher:
        (consumer,) = bucket.consumers.values()
        await settled()
        for inbox in (consumer.pulls[0].inbox, consumer.pulls[0].inbox.rpartition(".")[0] + ".x" * 30):
            bucket.server.publish(inbox, headers=headers)
            bucket.server.publish(inbox, reply="$JS.ACK.OBJ_b.c.1.9.9.9.9" + "9" * 500, headers=headers)
            bucket.server.publish(inbox, b"x", reply="$JS.ACK." + ".".join("x" * 9))
        await trio.sleep(0.1)
        bucket.add("a")
        with trio.fail_after(30):
            assert (await watcher.receive()).name == "a"


@pytest.mark.parametrize("answer", [b"", b"null", b"[]", b"7", b'{"error": 7}', b'{"error": {"code": {}}}', b"\xff"])
async def test_what_is_no_response_of_the_api_ends_nothing(answer: bytes) -> None:
    async with open_bucket(Bucket) as (bucket, store, _, nursery), open_watcher(nursery, store) as watcher:
        broken = {"CREATE", "INFO"}
        create, about = bucket.create, bucket.about
        bucket.server.on(
            "$JS.API.CONSUMER.CREATE.>", lambda frame: answer if "CREATE" in broken else create(frame), first=True
        )
        bucket.server.on("$JS.API.STREAM.INFO.>", lambda _: answer if "INFO" in broken else about(), first=True)
        bucket.drop_consumers()
        bucket.add("a")
        for part in ("CREATE", "INFO"):
            await trio.sleep(2)
            broken.remove(part)
        with trio.fail_after(30):
            assert (await watcher.receive()).name == "a"
