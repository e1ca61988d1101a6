"""Ordered reading over a server that refuses, lags or answers oddly; the decisions are in tests/protocol/test_leader.py."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.fake_jetstream import Consumer, FakeObjects
from tests.fakes import FakeServer
from tests.worlds import find_store
from trionats import ObjectStore, errors, events, open_client, open_watcher

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.fakes import Frame
    from trionats import Client

NOW = "2026-11-28T12:00:00.5Z"
FULL = {"error": {"code": 400, "err_code": 10026, "description": "maximum consumers limit reached"}}


class Bucket(FakeObjects):
    """A bucket whose server answers as the test says."""

    def __init__(self, server: FakeServer, bucket: str) -> None:
        #: How many consumers are made before others are refused with `refusal`.
        self.room, self.refusal = 1 << 30, FULL
        #: What the stream's info says besides, and what a consumer's does.
        self.about_it: dict[str, Any] = {}
        self.about_consumers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.silent = False
        super().__init__(server, bucket)

    def about(self) -> dict[str, Any]:
        self.asked.append("STREAM.INFO")
        return {**super().about(), **self.about_it}

    def _create(self, frame: Frame) -> dict[str, Any] | None:
        self.asked.append("CONSUMER.CREATE")
        if self.room <= 0:
            return self.refusal
        self.room -= 1
        return super()._create(frame)

    def _info(self, consumer: Consumer | None) -> dict[str, Any]:
        return {"created": NOW, **super()._info(consumer), **self.about_consumers}

    def _serve(self, consumer: Consumer) -> None:
        if not self.silent:
            super()._serve(consumer)

    def drop_consumers(self) -> None:
        for consumer in list(self.consumers.values()):
            del self.consumers[consumer.name]
            for pull in consumer.pulls:
                self._status(pull, "409 Consumer Deleted")


@asynccontextmanager
async def open_bucket(**options: Any) -> AsyncGenerator[tuple[Bucket, ObjectStore, trio.Nursery, Client]]:  # noqa: ANN401 - open_client's
    server = FakeServer()
    bucket = Bucket(server, "b")
    async with trio.open_nursery() as nursery, open_client(nursery, dial=server.dial, **options) as nc:
        yield bucket, find_store(nc, "b"), nursery, nc
    server.check()


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def push(self, event: events.ConnectionEvent) -> None:
        self.events.append(event)

    def end(self, reason: BaseException | None) -> None:
        pass


async def first(nursery: trio.Nursery, store: ObjectStore) -> str:
    async with open_watcher(nursery, store) as watcher:
        return (await watcher.receive()).name


# -- what is refused ---------------------------------------------------------------------------------------------------


async def test_a_watcher_whose_next_consumer_is_refused_for_good_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_bucket() as (bucket, store, nursery, nc), open_watcher(nursery, store) as watcher:
        nc.add_listener(seen := Heard())
        await watcher.snapshot()
        bucket.room = 0
        bucket.drop_consumers()
        begun = trio.current_time()
        with pytest.raises(errors.BadRequestError, match="maximum consumers limit reached"):
            await watcher.receive()
        # Each try is five requests, in case a deletion is under way.
        assert 36 < trio.current_time() - begun < 73 + 15
        (told,) = [event for event in seen.events if isinstance(event, events.ReaderRefused)]
        assert (told.stream, vars(told.error)["err_code"]) == ("OBJ_b", 10026)


async def test_a_watcher_that_is_never_told_its_end_ends(autojump_clock: trio.testing.MockClock) -> None:
    """Each refusal to find the last message is followed by another consumer, which is granted."""
    async with open_bucket() as (bucket, store, nursery, nc):
        nc.add_listener(seen := Heard())
        bucket.add("a")
        bucket.about_consumers = {"cluster": {"name": "c"}}
        bucket.about_it = {"config": {"num_replicas": 3}, "state": {"last_seq": bucket.last + 5}}
        bucket.server._responders.insert(0, ("$JS.API.STREAM.MSG.GET.>", lambda _: FULL))
        begun = trio.current_time()
        async with open_watcher(nursery, store) as watcher:
            with trio.fail_after(600), pytest.raises(errors.BadRequestError, match="maximum consumers limit reached"):
                await watcher.snapshot()
        assert 36 < trio.current_time() - begun < 73
        (told,) = [event for event in seen.events if isinstance(event, events.ReaderRefused)]
        assert (told.stream, vars(told.error)["err_code"]) == ("OBJ_b", 10026)


async def test_a_refusal_that_passes_does_not_end_a_watcher(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, nursery, _), open_watcher(nursery, store) as watcher:
        await watcher.snapshot()
        bucket.room = 0
        bucket.refusal = {"error": {"code": 503, "err_code": 10008, "description": "temporarily unavailable"}}
        bucket.drop_consumers()
        await trio.sleep(600)
        bucket.room = 9
        bucket.add("later")
        with trio.fail_after(15):
            assert (await watcher.receive()).name == "later"


async def test_a_limit_that_is_gone_in_a_moment_is_no_refusal() -> None:
    """Ours is deleted without waiting, and the server makes another one before it has."""

    async def make_room(bucket: Bucket) -> None:
        while bucket.asked.count("CONSUMER.CREATE") < 3:  # noqa: ASYNC110 - the fake tells nobody
            await trio.lowlevel.checkpoint()
        bucket.room = 9

    async with open_bucket() as (bucket, store, nursery, _):
        bucket.add("a")
        bucket.room = 0
        nursery.start_soon(make_room, bucket)
        assert [info.name for info in await store.list()] == ["a"]
    async with open_bucket() as (bucket, store, nursery, _):
        bucket.room = 0
        nursery.start_soon(make_room, bucket)
        async with open_watcher(nursery, store) as watcher:
            assert watcher.caught_up


@pytest.mark.parametrize("kind", ["list", "get"])
async def test_a_list_or_get_that_does_not_get_on_says_why(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, nursery, _):
        bucket.add("a", b"1", b"2")
        bucket.room = 1
        bucket.silent = True

        async def drop() -> None:
            await trio.sleep(1)
            bucket.drop_consumers()

        nursery.start_soon(drop)
        with pytest.raises(errors.BadRequestError, match=r"nothing came for 30 s.*maximum consumers limit reached"):
            await (store.list() if kind == "list" else store.get("a"))


async def test_who_may_not_ask_for_the_stream_is_told_once_and_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, nursery, nc), open_watcher(nursery, store) as watcher:
        nc.add_listener(seen := Heard())
        bucket.server.deny_publish = ("$JS.API.STREAM.INFO.>",)
        for name in ("a", "b", "c"):
            bucket.drop_consumers()
            bucket.add(name)
            assert (await watcher.receive()).name == name
        (told,) = [event for event in seen.events if isinstance(event, events.StreamUnverified)]
        assert told.stream == "OBJ_b"
        assert isinstance(told.error, errors.PermissionsViolationError)


async def test_an_inbox_that_is_refused_ends_it_with_the_servers_words() -> None:
    """And the consumer that was just being made is deleted."""
    for kind in ("watcher", "list"):
        async with open_bucket() as (bucket, store, nursery, _):
            bucket.lag = 0.05

            async def refuse(bucket: Bucket = bucket) -> None:
                await trio.testing.wait_all_tasks_blocked()
                # The reader's comes before that of the request.
                inbox = next(iter(bucket.server.subscriptions))
                del bucket.server.link.subscriptions[inbox.sid]
                bucket.server.link.error(f'Permissions Violation for Subscription to "{inbox.subject}"')

            nursery.start_soon(refuse)
            with pytest.raises(errors.PermissionsViolationError, match="OBJ_b"):
                await (store.list() if kind == "list" else first(nursery, store))
            with trio.fail_after(2):
                while bucket.consumers:  # noqa: ASYNC110 - the fake tells nobody
                    await trio.sleep(0.01)


# -- odd answers -------------------------------------------------------------------------------------------------------

ODD: list[Any] = [None, "x", -1, 1.5, True, [], {}, 1 << 70, "9" * 30]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["state", "created", "config", "last_seq"])
async def test_an_odd_stream_info_ends_nothing(field: str, odd: Any, autojump_clock: trio.testing.MockClock) -> None:  # noqa: ANN401
    """It is asked again, until it is one."""
    async with open_bucket() as (bucket, store, nursery, _), open_watcher(nursery, store) as watcher:
        bucket.about_it = {"state": {"last_seq": odd}} if field == "last_seq" else {field: odd}
        bucket.drop_consumers()
        bucket.add("a")
        await trio.sleep(3)
        bucket.about_it = {}
        with trio.fail_after(30):
            assert (await watcher.receive()).name == "a"


@pytest.mark.parametrize("odd", [*ODD, {"seq": None}, {"seq": "9"}, {"seq": True}, {"seq": -1}, {"seq": 1 << 64}])
async def test_an_odd_last_message_ends_nothing(odd: Any, autojump_clock: trio.testing.MockClock) -> None:  # noqa: ANN401
    """It is asked for again, and a list ends when it has come to the true one."""
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("a")
        bucket.about_consumers = {"cluster": {"name": "c"}}
        bucket.about_it = {"config": {"num_replicas": 3}, "state": {"last_seq": bucket.last + 5}}
        answers = [{"message": odd}] * 3

        def found(_: Frame) -> dict[str, Any]:
            return answers.pop() if answers else {"message": {"seq": bucket.last}}

        bucket.server._responders.insert(0, ("$JS.API.STREAM.MSG.GET.>", found))
        assert [info.name for info in await store.list()] == ["a"]
        assert not answers


async def test_a_list_that_no_replica_can_complete_gives_up_at_its_idle_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("a")
        bucket.about_consumers = {"cluster": {"name": "c"}}
        bucket.about_it = {"config": {"num_replicas": 3}, "state": {"last_seq": bucket.last + 5}}
        ahead = {"message": {"seq": bucket.last + 3}}
        bucket.server._responders.insert(0, ("$JS.API.STREAM.MSG.GET.>", lambda _: ahead))
        begun = trio.current_time()
        with pytest.raises(errors.TimeoutError, match="list of bucket 'b'"):
            await store.list()
        assert 30 <= trio.current_time() - begun < 62


async def test_the_error_for_an_odd_last_message_is_like_any_other(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, _, _):
        bucket.add("a")
        bucket.about_consumers = {"cluster": {"name": "c"}}
        bucket.about_it = {"config": {"num_replicas": 3}, "state": {"last_seq": bucket.last + 5}}
        bucket.server._responders.insert(0, ("$JS.API.STREAM.MSG.GET.>", lambda _: {"message": None}))
        with pytest.raises(errors.APIError, match="what came back is no stored message") as caught:
            await store.list()
        error = caught.value
        assert (error.code, error.err_code, error.stream, error.seq) == (None, None, None, None)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["num_pending", "delivered", "created", "cluster", "stream_seq", "consumer_seq"])
async def test_an_odd_consumer_info_ends_nothing(field: str, odd: Any, autojump_clock: trio.testing.MockClock) -> None:  # noqa: ANN401
    async with open_bucket() as (bucket, store, nursery, _):
        bucket.add("a")
        bucket.about_consumers = {"delivered": {field: odd}} if field.endswith("seq") else {field: odd}
        with trio.move_on_after(40):
            try:
                async with open_watcher(nursery, store) as watcher:
                    assert (await watcher.receive()).name == "a"
            except errors.Error:
                pass
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
async def test_an_odd_status_ends_nothing(headers: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, nursery, _), open_watcher(nursery, store) as watcher:
        (consumer,) = bucket.consumers.values()
        await trio.testing.wait_all_tasks_blocked()
        for inbox in (consumer.pulls[0].inbox, consumer.pulls[0].inbox.rpartition(".")[0] + ".x" * 30):
            bucket.server.publish(inbox, headers=headers)
            bucket.server.publish(inbox, reply="$JS.ACK.OBJ_b.c.1.9.9.9.9" + "9" * 500, headers=headers)
            bucket.server.publish(inbox, b"x", reply="$JS.ACK." + ".".join("x" * 9))
        await trio.sleep(0.1)
        bucket.add("a")
        with trio.fail_after(30):
            assert (await watcher.receive()).name == "a"


@pytest.mark.parametrize("answer", [b"", b"null", b"[]", b"7", b'{"error": 7}', b'{"error": {"code": {}}}', b"\xff"])
async def test_what_is_no_answer_of_the_api_ends_nothing(answer: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket() as (bucket, store, nursery, _), open_watcher(nursery, store) as watcher:
        broken = {"CREATE": True, "INFO": True}
        create, about = bucket._create, bucket.about

        def created(frame: Frame) -> Any:  # noqa: ANN401 - whatever a responder may answer
            return answer if broken["CREATE"] else create(frame)

        def told(_: Frame) -> Any:  # noqa: ANN401 - whatever a responder may answer
            return answer if broken["INFO"] else about()

        bucket.server._responders[:0] = [("$JS.API.CONSUMER.CREATE.>", created), ("$JS.API.STREAM.INFO.>", told)]
        bucket.drop_consumers()
        bucket.add("a")
        await trio.sleep(2)
        broken["CREATE"] = False
        await trio.sleep(2)
        broken["INFO"] = False
        with trio.fail_after(30):
            assert (await watcher.receive()).name == "a"
