"""Calls from another thread, from another `trio.run`, and from one that comes later: refused, by name, and without a trace.

Every public method of every public object that has to do with a connection is called; a new one has to be entered here.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio

import trionats
from tests.test_exports import CLASSES, FUNCTIONS, members
from tests.worlds import kept, open_store, open_world, payloads, unique
from trionats import KeyValue, Lease, ObjectStore
from trionats.testing import TrioNatsServer

# One object of each class, an ingest among them.
pytestmark = pytest.mark.level(4)

#: The classes whose objects belong to a client.
BELONG = {
    "trionats.Advisories",
    "trionats.Batch",
    "trionats.BoundedFeed",
    "trionats.Client",
    "trionats.Consumer",
    "trionats.Counter",
    "trionats.Events",
    "trionats.Feed",
    "trionats.Group",
    "trionats.Ingest",
    "trionats.IngestReceipt",
    "trionats.JetStream",
    "trionats.JetStreamManager",
    "trionats.JetStreamMsg",
    "trionats.KeyValue",
    "trionats.Lease",
    "trionats.Msg",
    "trionats.ObjectStore",
    "trionats.ObjectStream",
    "trionats.OrderedConsumer",
    "trionats.PendingReply",
    "trionats.Publisher",
    "trionats.ReadOnlyKeyValue",
    "trionats.Receipt",
    "trionats.Replies",
    "trionats.Service",
    "trionats.ServiceClient",
    "trionats.ServiceRequest",
    "trionats.Stream",
    "trionats.Subscription",
    "trionats.SystemClient",
    "trionats.Watcher",
}
#: Modules whose classes are values, or belong to no client.
VALUES = (
    "trionats.advisories.",
    "trionats.api.",
    "trionats.monitoring.",
    "trionats.errors.",
    "trionats.events.",
    "trionats.testing.",
    "trionats.bridge.",
)
CODECS = {"trionats.Base64Codec", "trionats.KeyCodec", "trionats.PathCodec", "trionats.ValueCodec"}

#: What changes nothing, each with its reason.
HARMLESS = {
    "statistics": "reads numbers",
    "group": "makes a view, and sends nothing",
    "jetstream": "makes a view, and sends nothing",
    "processing": "makes a block, and sends nothing",
    "open_batch": "makes a block, and sends nothing",
    "open_object": "makes a block, and sends nothing",
    "read_only": "makes a view, and sends nothing",
    "with_codecs": "makes a view, and sends nothing",
    "with_options": "makes a view, and sends nothing",
}
ARGUMENTS: dict[str, object] = {
    "batch": 1,
    "bucket": "other",
    "code": 400,
    "consumer": "c",
    "data": b"x",
    "description": "not found",
    "group": "g",
    "handler": trionats.ServiceRequest.respond,
    "key": "k",
    "last": 1,
    "max_members": 1,
    "members": "m",
    "n": 1,
    "meta": trionats.api.ObjectMeta(),
    "name": "n",
    "path": __file__,
    "pause_until": "2030-01-01T00:00:00Z",
    "seq": 1,
    "servers": "nats://127.0.0.1:1",
    "stream": "s",
    "stream_name": "s",
    "subject": "s",
    "subjects": "s",
    "target": trionats.api.ObjectInfo("n", "b", "n"),
    "value": b"x",
    "until": datetime(2030, 1, 1, tzinfo=UTC),
}
#: Where the defaults are refused for another reason.
MORE_ARGUMENTS: dict[str, dict[str, object]] = {
    "add_consumer": {"durable_name": "x"},
    "add_stream": {"name": "x"},
    "create_or_update_consumer": {"durable_name": "x"},
    "create_or_update_stream": {"name": "x"},
    "create_key_value": {"bucket": "other"},
    "create_object_store": {"bucket": "other"},
    "create_or_update_key_value": {"bucket": "other"},
    "create_or_update_object_store": {"bucket": "other"},
    "update_key_value": {"bucket": "other"},
    "update_object_store": {"bucket": "other"},
    "create_group": {"elastic": True},
    "create_stream": {"name": "x"},
    "get_msg": {"seq": 1},
    "get_msgs": {"seq": 1},
    "schedule": {"target": "t", "every": 5},
    "update_consumer": {"name": "x"},
    "update_stream": {"name": "x"},
}


def arguments(method: Callable[..., object]) -> dict[str, object]:
    """What a method must be given."""
    return {
        name: ARGUMENTS[name]
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def methods(thing: object, cls: type) -> Iterator[tuple[str, partial[Any]]]:
    """The public methods of an object, and those of its kind that Python calls."""
    for name, member in members(cls).items():
        if inspect.isfunction(member) and name not in HARMLESS:
            method = getattr(thing, name)
            yield f"{type(thing).__name__}.{name}", partial(method, **arguments(method) | MORE_ARGUMENTS.get(name, {}))


def test_all_that_belongs_to_a_client_is_looked_at() -> None:
    found = {
        full
        for full, cls in CLASSES.items()
        if not full.startswith(VALUES)
        and any(inspect.isfunction(member) for member in members(cls).values())
        and not issubclass(cls, (Exception, tuple))
        and not hasattr(cls, "__dataclass_fields__")
    }
    assert found <= BELONG | CODECS


async def awaited(call: Callable[[], Any]) -> object:
    result = call()
    return await result if inspect.isawaitable(result) else result


def in_a_run(call: Callable[[], Any]) -> BaseException | None:
    """Call something in a run of this thread's own, and say what it raised."""

    async def main() -> None:
        with trio.fail_after(5):
            await awaited(call)

    try:
        trio.run(main)
    except Exception as error:
        return error
    return None


def without_a_run(call: Callable[[], Any]) -> BaseException | None:
    """Call something where there is no run, and say what it raised."""
    try:
        result = call()
        if inspect.iscoroutine(result):
            result.send(None)
    except Exception as error:
        return error
    return None


def check(name: str, error: BaseException | None) -> None:
    assert isinstance(error, RuntimeError), f"{name}: {error!r}"
    assert str(error).startswith(f"{name}() was called"), f"{name}: {error}"
    assert "trio.from_thread.run()" in str(error), name


class Belongings:
    """One object of each class, all of one client."""

    def __init__(self, nc: trionats.Client, things: dict[str, object]) -> None:
        self.nc = nc
        self.things = things

    def calls(self) -> Iterator[tuple[str, partial[Any]]]:
        assert {f"trionats.{name}" for name in self.things} == BELONG
        for name, thing in self.things.items():
            yield from methods(thing, CLASSES[f"trionats.{name}"])

    def state(self) -> object:
        """What no refused call may change."""
        return (*kept(self.nc), self.nc.servers)


@asynccontextmanager
async def open_a_lease(nc: trionats.Client, nursery: trio.Nursery) -> AsyncIterator[tuple[KeyValue, Lease]]:
    bucket = unique("b")
    config: dict[str, Any] = {"limit_marker_ttl": 5, "storage": trionats.api.StorageType.MEMORY}
    kv = await nc.jetstream().create_key_value(bucket=bucket, **config)
    async with trionats.open_lease(nursery, kv, "held", ttl=30) as lease:
        yield kv, lease


@asynccontextmanager
async def open_an_object(store: ObjectStore) -> AsyncIterator[trionats.ObjectStream]:
    await store.put("streamed", b"data")
    async with store.open_object("streamed") as stream:
        yield stream


@asynccontextmanager
async def open_a_counter(nc: trionats.Client) -> AsyncIterator[trionats.Counter]:
    js, name = nc.jetstream(), unique("C")
    await js.create_stream(name=name, subjects=[f"{name}.>"], storage="memory", allow_msg_counter=True)
    yield await js.counter(name)
    await js.delete_stream(name)


@asynccontextmanager
async def open_an_ingest(
    nc: trionats.Client, nursery: trio.Nursery
) -> AsyncIterator[tuple[trionats.Ingest, trionats.IngestReceipt]]:
    js, name = nc.jetstream(), unique("I")
    await js.create_stream(name=name, subjects=[f"{name}.>"], storage="memory", allow_batched=True)
    async with trionats.open_ingest(nursery, js) as ingest:
        yield ingest, await ingest.publish(f"{name}.a", b"ingested")
    await js.delete_stream(name)


async def with_belongings(server: TrioNatsServer, use: Callable[[Belongings], Awaitable[None]]) -> Belongings:
    async with (
        open_store(server, {"name": "at home"}) as (store, nc, nursery),
        trionats.open_subscription(nursery, nc, "s") as subscription,
        trionats.open_subscription(nursery, nc, "feed"),
        trionats.open_events(nursery, nc) as happened,
        trionats.open_replies(nursery, nc, "feed") as replies,
        trionats.open_watcher(nursery, store) as watcher,
        trionats.open_watcher(nursery, store) as other,
        trionats.open_publisher(nursery, nc.jetstream()) as publisher,
        open_a_lease(nc, nursery) as (kv, lease),
        open_an_object(store) as object_stream,
        trionats.open_service(nursery, nc, "mine", "1.0.0") as service,
        trionats.open_endpoint(nursery, service, "served", subject=unique("served")) as served,
        nc.jetstream().open_batch() as batch,
        open_a_counter(nc) as counter,
        open_an_ingest(nc, nursery) as (ingest, ingested),
        trionats.open_advisories(nursery, nc.jetstream(), prefix=unique("nobody")) as told,
    ):
        js, name = nc.jetstream(), f"OBJ_{store.bucket}"
        stream = await js.stream(name)
        receipt = await publisher.publish(f"$O.{store.bucket}.C.x", b"in a stream")
        consumer = await js.create_consumer(name, name="mine", inactive_threshold=60)
        (delivered,) = await consumer.fetch(1)
        with nc.request_nowait("feed", b"?") as pending:
            await nc.publish("s", b"message", reply="nowhere")
            message = await subscription.receive()
            await receipt.wait()
            await nc.publish(served.subject, b"request", reply="nowhere")
            request = await served.receive()
            ordered = await js.ordered_consumer(name)
            await nc.flush()
            things: dict[str, object] = {
                "Advisories": told,
                "Batch": batch,
                "BoundedFeed": subscription,
                "Client": nc,
                "Consumer": consumer,
                "Counter": counter,
                "Events": happened,
                "Feed": other,
                "Group": service.group("g"),
                "Ingest": ingest,
                "IngestReceipt": ingested,
                "JetStream": js,
                "JetStreamManager": js,
                "JetStreamMsg": delivered,
                "KeyValue": kv,
                "Lease": lease,
                "Msg": message,
                "ObjectStore": store,
                "ObjectStream": object_stream,
                "OrderedConsumer": ordered,
                "PendingReply": pending,
                "Publisher": publisher,
                "ReadOnlyKeyValue": kv.read_only(),
                "Receipt": receipt,
                "Replies": replies,
                "Service": service,
                "ServiceClient": trionats.ServiceClient(nc),
                "ServiceRequest": request,
                "Stream": stream,
                "Subscription": subscription,
                "SystemClient": trionats.SystemClient(nc),
                "Watcher": watcher,
            }
            await use(belongings := Belongings(nc, things))
    return belongings


@pytest.mark.parametrize("caller", [in_a_run, without_a_run])
async def test_calls_from_another_thread(
    caller: Callable[[Callable[[], Any]], BaseException | None], nats_server: TrioNatsServer
) -> None:
    async def use(mine: Belongings) -> None:
        before = mine.state()
        count = 0
        for name, call in mine.calls():
            check(name, await trio.to_thread.run_sync(caller, call))
            assert mine.state() == before, name
            count += 1
        assert count > 50
        nc = mine.nc
        with trio.fail_after(3):
            await nc.flush()
            subscription = mine.things["Subscription"]
            assert isinstance(subscription, trionats.Subscription)
            await nc.publish("s", b"1")
            assert (await subscription.receive()).data == b"1"

    await with_belongings(nats_server, use)


def test_calls_from_a_later_run_and_when_all_is_over(nats_server: TrioNatsServer) -> None:
    async def use(_: Belongings) -> None:
        pass

    mine = trio.run(with_belongings, nats_server, use)
    for name, call in mine.calls():
        if name.endswith((".end", "PendingReply.close", ".new_inbox", ".new_token")):
            continue  # it has ended, and nothing is done; or a name is made, in the one thread that makes them
        check(name, in_a_run(call))
        if not inspect.iscoroutinefunction(call.func):
            check(name, without_a_run(call))


OPENERS: dict[str, Callable[[trio.Nursery, Any], Any]] = {
    "open_advisories": lambda nursery, mine: trionats.open_advisories(nursery, mine.things["JetStream"]),
    "open_batch": lambda _, mine: mine.things["JetStream"].open_batch(),
    "open_consumer": lambda nursery, mine: trionats.open_consumer(nursery, mine.things["Consumer"]),
    "open_endpoint": lambda nursery, mine: trionats.open_endpoint(nursery, mine.things["Service"], "n"),
    "open_events": lambda nursery, mine: trionats.open_events(nursery, mine.nc),
    "open_ingest": lambda nursery, mine: trionats.open_ingest(nursery, mine.things["JetStream"]),
    "open_lease": lambda nursery, mine: trionats.open_lease(nursery, mine.things["KeyValue"], "k", ttl=30),
    "open_partition": lambda nursery, mine: trionats.open_partition(nursery, mine.things["JetStream"], "S", "g", "m"),
    "open_publisher": lambda nursery, mine: trionats.open_publisher(nursery, mine.things["JetStream"]),
    "open_replies": lambda nursery, mine: trionats.open_replies(nursery, mine.nc, "s"),
    "open_service": lambda nursery, mine: trionats.open_service(nursery, mine.nc, "n", "1.0.0"),
    "open_subscription": lambda nursery, mine: trionats.open_subscription(nursery, mine.nc, "s"),
    "open_watcher": lambda nursery, mine: trionats.open_watcher(nursery, mine.things["ObjectStore"]),
}


def test_all_that_opens_is_looked_at() -> None:
    openers = {full.removeprefix("trionats.") for full in FUNCTIONS if full.startswith("trionats.open_")}
    assert openers - {"open_client"} == set(OPENERS) - {"open_batch"}


@pytest.mark.parametrize("opener", list(OPENERS))
async def test_what_opens_in_another_run(opener: str, nats_server: TrioNatsServer) -> None:
    async def use(mine: Belongings) -> None:
        before = mine.state()

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                with pytest.raises(RuntimeError, match=rf"{opener}\(\) .*trio\.from_thread"):
                    async with OPENERS[opener](nursery, mine):
                        raise AssertionError("it opened")

        await trio.to_thread.run_sync(trio.run, main)
        assert mine.state() == before

    await with_belongings(nats_server, use)


async def test_the_way_that_the_error_names_works(nats_server: TrioNatsServer) -> None:
    async with open_world(nats_server) as (_, nc, nursery), trionats.open_subscription(nursery, nc, "s") as rx:

        def thread() -> None:
            trio.from_thread.run(nc.publish, "s", b"1")
            trio.from_thread.run_sync(nc.publish_nowait, "s", b"2")
            assert trio.from_thread.run(rx.receive).data == b"1"
            trio.from_thread.run_sync(rx.stop)

        await trio.to_thread.run_sync(thread)
        assert await payloads(rx) in ([b"2"], [])
