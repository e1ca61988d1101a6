"""The rows of `docs/permissions.rst`: each operation, done by a user who may do just what stands there, and nothing less."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
import trio

from tests.worlds import arrived, connected, consumers_are, delivered, find_keys, open_live, seam, until
from trionats import (
    Client,
    Events,
    JetStream,
    KeyValue,
    ObjectStore,
    ServiceClient,
    Stream,
    SystemClient,
    advisories,
    api,
    errors,
    events,
    open_advisories,
    open_consumer,
    open_events,
    open_ingest,
    open_lease,
    open_partition,
    open_publisher,
    open_replies,
    open_service,
    open_subscription,
    open_watcher,
)
from trionats._jetstream.api import Api

pytestmark = pytest.mark.usefixtures("server_executable")

PAGE = Path(__file__).parents[2] / "docs" / "permissions.rst"
ROW = re.compile(r"^   \* - (?P<operation>.+)\n     - (?P<grants>(?:.|\n(?!   \* -|\n))+)", re.MULTILINE)
LARGE = b"x" * 300_000


def rows() -> dict[str, tuple[str, ...]]:
    """The operations of the page, and what each may publish to."""
    found = {}
    for row in ROW.finditer(PAGE.read_text(encoding="utf-8")):
        if row["operation"] != "operation":
            found[row["operation"]] = tuple(re.findall(r"``([^`]+)``", row["grants"]))
    return found


GRANTS = rows()


@asynccontextmanager
async def open_as(*grants: str, of_system: bool = False) -> AsyncIterator[tuple[Client, Client, Events]]:
    """A server that holds a stream and a bucket: gives the client of who may do all, that of who may do this, and its events."""
    allowed = json.dumps([*grants, "nowhere"])
    boss_is = "{user: boss, password: b0ss}"
    guest_is = f"""{{user: guest, password: guest, permissions: {{
        publish: {{allow: {allowed}}},
        subscribe: {{allow: ["_INBOX.>", "$SRV.>", "listen", "$JS.EVENT.ADVISORY.STREAM.*.*"]}}
    }}}}"""
    users = f"authorization {{ users = [{boss_is}, {guest_is}] }}"
    if of_system:
        users = f"accounts {{ A {{ jetstream: enabled, users = [{boss_is}] }}, SYS {{ users = [{guest_is}] }} }}"
        users += "\nsystem_account: SYS\nserver_name: alone"
    async with (
        open_live(users, jetstream=True, user="boss", password="b0ss") as (server, boss, nursery),
        connected(server, user="guest", password="guest") as guest,
        open_events(nursery, guest) as told,
    ):
        js = boss.jetstream()
        await js.add_stream(name="S", subjects=["s.*"], storage=api.StorageType.MEMORY, allow_direct=True)
        await js.publish("s.a", b"1")
        await js.add_consumer("S", name="c", ack_policy=api.AckPolicy.EXPLICIT)
        store = await js.create_object_store("b")
        await store.put("small", b"x")
        await store.put("large", LARGE)
        kv = await js.create_key_value(bucket="b", storage=api.StorageType.MEMORY, history=2, limit_marker_ttl=60)
        await kv.put("k", b"x")
        await kv.delete("gone")
        yield boss, guest, told


async def refused(guest: Client, told: Events) -> list[str]:
    """What the server has refused so far."""
    await guest.flush()
    return [event.error.subject for event in arrived(told, events.PermissionViolation)]


def monitor(use: Callable[[SystemClient, str], Awaitable[object]]) -> Callable[[Client, Client], Awaitable[None]]:
    """Ask servers how they are, as a user of the system account."""

    async def do(_: Client, guest: Client) -> None:
        assert await use(SystemClient(guest, stall=0.1), guest.server_id)

    return do


async def connections(system: SystemClient, _: str) -> object:
    return await system.connz() and await system.leafz()


async def connections_of_an_account(system: SystemClient, _: str) -> object:
    return await system.connz(account="A") and await system.leafz(account="A")


async def discover(nc: Client, whom: tuple[str, ...] = ()) -> None:
    client = ServiceClient(nc)
    assert [await client.ping(*whom), await client.info(*whom), await client.stats(*whom)] == [[], [], []]


async def trace(boss: Client, guest: Client) -> None:
    assert (await guest.trace("s.a", b"x")).streams[0].stored


# -- the operations ----------------------------------------------------------------------------------------------------


async def take_a_lease(boss: Client, guest: Client) -> None:
    await boss.jetstream().create_key_value(bucket="l", limit_marker_ttl=1, storage=api.StorageType.MEMORY)
    kv = find_keys(guest, "l")
    async with trio.open_nursery() as nursery:
        async with open_lease(nursery, kv, "k", ttl=2) as lease:
            await trio.sleep(0.8)
            assert lease.deadline > trio.current_time() + 1.5, "it was not renewed"
    stored = await boss.jetstream().get_last_msg("KV_l", "$KV.l.k")
    assert (stored.headers or {})["KV-Operation"] == "PURGE"


async def wait_for_a_lease(boss: Client, guest: Client) -> None:
    theirs = await boss.jetstream().create_key_value(bucket="l", limit_marker_ttl=1, storage=api.StorageType.MEMORY)
    await theirs.put("k", b"x")
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            async with open_lease(nursery, find_keys(guest, "l"), "k", ttl=2):
                pass

        async with trio.open_nursery() as waiting:
            waiting.start_soon(wait)
            await until(lambda: boss.jetstream().consumer_names("KV_l"), within=5)
            await theirs.delete("k")


async def subscribe(boss: Client, guest: Client) -> None:
    async with trio.open_nursery() as nursery, open_subscription(nursery, guest, "listen") as rx:
        await guest.flush()
        await boss.publish("listen", b"x")
        assert (await rx.receive()).data == b"x"


async def hear_advisories(boss: Client, guest: Client) -> None:
    async with (
        trio.open_nursery() as nursery,
        open_advisories(nursery, guest.jetstream(), advisories.StreamAction) as rx,
    ):
        await guest.flush()
        await boss.jetstream().create_stream(name="N", storage=api.StorageType.MEMORY)
        assert isinstance(await rx.receive(), advisories.StreamAction)


async def on_disk(boss: Client) -> Stream:
    """Let the stream be one that any server backs up, and that only some restore, of more than one piece."""
    js = boss.jetstream()
    await js.delete_stream("S")
    stream = await js.create_stream(name="S", subjects=["s.*"], allow_msg_ttl=True)
    await js.publish("s.a", os.urandom(300_000))
    return stream


async def back_up(boss: Client, guest: Client) -> None:
    await on_disk(boss)
    stream = await stream_of(boss, guest)
    with TemporaryDirectory() as directory:
        assert (await stream.backup(f"{directory}/b")).messages == 1


async def restore(boss: Client, guest: Client) -> None:
    stream = await on_disk(boss)
    with TemporaryDirectory() as directory:
        await stream.backup(f"{directory}/b")
        await stream.delete()
        assert (await guest.jetstream().restore_stream(f"{directory}/b")).name == "S"


async def serve(boss: Client, guest: Client) -> None:
    async with (
        trio.open_nursery() as nursery,
        open_service(nursery, guest, "svc", "1.0.0") as service,
        trio.open_nursery() as workers,
    ):
        await workers.start(partial(service.serve, "work", lambda request: request.respond(b"done"), subject="listen"))
        with trio.fail_after(0.3):
            assert (await boss.request("$SRV.PING")).data
            assert (await boss.request("listen")).data == b"done"
        service.stop()


async def request_many(boss: Client, guest: Client) -> None:
    assert len(await guest.request_many("s.a", b"x", max_msgs=1)) == 1


async def replies(boss: Client, guest: Client) -> None:
    async with trio.open_nursery() as nursery, open_replies(nursery, guest, "s.a", b"x", max_msgs=1) as rx:
        assert [reply async for reply in rx]


async def publish_many(boss: Client, guest: Client) -> None:
    async with trio.open_nursery() as nursery, open_publisher(nursery, guest.jetstream()) as publisher:
        assert (await (await publisher.publish("s.a", b"x")).wait()).stream == "S"


async def publish_again(boss: Client, guest: Client) -> None:
    """Into a stream that acknowledges nothing, so that it has to be known how long a message may be sent again."""
    js = boss.jetstream()
    config = (await js.stream_info("S")).config
    await js.update_stream(dataclasses.replace(config, no_ack=True, duplicate_window=1.0))
    hasty = guest.with_options(request_timeout=0.1).jetstream()
    async with trio.open_nursery() as nursery, open_publisher(nursery, hasty, resend=True) as publisher:
        receipt = await publisher.publish("s.a", b"x")
        with pytest.raises(errors.DisconnectedError, match="the duplicate window of 1 s is over"):
            await receipt.wait()
    assert (await js.stream_info("S")).state.messages == 2


async def ingest(boss: Client, guest: Client) -> None:
    js = boss.jetstream()
    await (await js.stream("S")).update(allow_batched=True)
    async with trio.open_nursery() as nursery, open_ingest(nursery, guest.jetstream()) as ingest:
        await ingest.publish("s.a", b"x")
    assert (await js.stream_info("S")).state.messages == 2


async def publish_a_batch(boss: Client, guest: Client) -> None:
    await boss.jetstream().update_stream(name="S", allow_atomic=True)
    async with guest.jetstream().open_batch() as batch:
        for _ in range(3):
            await batch.publish("s.a", b"x")
    assert batch.ack is not None
    assert batch.ack.count == 3


NAMED: tuple[dict[str, Any], ...] = ({}, {"name": "n"}, {"durable_name": "d"})


async def consumers_with_a_filter(boss: Client, guest: Client) -> None:
    js = guest.jetstream()
    for pattern in ("s.a", "s.*"):
        for named in NAMED:
            named = {key: f"{value}{pattern[-1] == 'a'}" for key, value in named.items()}
            info = await js.add_consumer("S", filter_subject=pattern, **named)
            assert info.config.filter_subject == pattern
            again = await js.add_consumer("S", info.config)  # which changes nothing
            assert again.name == info.name
    assert len(await boss.jetstream().consumers_info("S")) == 7


async def consumers_without_one(boss: Client, guest: Client) -> None:
    js = guest.jetstream()
    for filter_subjects in (None, ["s.a", "s.b"]):
        for named in NAMED:
            await js.add_consumer("S", None, filter_subjects=filter_subjects, **named)


async def bucket(guest: Client) -> ObjectStore:
    return await guest.jetstream().object_store("b")


async def another_clients_bucket(boss: Client, guest: Client) -> None:
    await boss.jetstream().create_key_value(bucket="n")
    await boss.jetstream().update_stream(name="KV_n", allow_msg_ttl=True)
    await guest.jetstream().create_key_value(bucket="n")


async def update_by_keywords(boss: Client, guest: Client) -> None:
    await boss.jetstream().create_key_value(bucket="n")
    await guest.jetstream().update_key_value(bucket="n", ttl=5)


async def update_what_there_is(boss: Client, guest: Client) -> None:
    await boss.jetstream().create_key_value(bucket="n", ttl=5)
    await guest.jetstream().create_or_update_key_value(bucket="n")


async def key_value_status(guest: Client) -> api.KeyValueStatus:
    return await (await guest.jetstream().key_value("b")).status()


async def object_store_status(guest: Client) -> api.ObjectStoreStatus:
    return await (await bucket(guest)).status()


async def list_buckets_of_keys(guest: Client) -> None:
    js = guest.jetstream()
    assert [status.bucket for status in await js.key_values()] == await js.key_value_names() == ["b"]


async def list_object_stores(guest: Client) -> None:
    js = guest.jetstream()
    assert [status.bucket for status in await js.object_stores()] == await js.object_store_names() == ["b"]


async def about_small(guest: Client) -> api.ObjectInfo:
    return await (await bucket(guest)).get_info("small")


async def pause_and_resume(boss: Client, guest: Client) -> None:
    assert (await guest.jetstream().pause_consumer("S", "c", "2199-01-01T00:00:00Z")).paused
    assert not (await guest.jetstream().resume_consumer("S", "c")).paused


async def list_objects(boss: Client, guest: Client) -> None:
    for _ in range(3):
        assert [info.name for info in await (await bucket(guest)).list()] == ["small", "large"]
    await consumers_are(await bucket(boss))


async def watch(boss: Client, guest: Client) -> None:
    store = await bucket(guest)
    async with trio.open_nursery() as nursery, open_watcher(nursery, store) as rx:
        assert [(await rx.receive()).name for _ in range(2)] == ["small", "large"]
        await (await bucket(boss)).put("new", b"")
        assert (await rx.receive()).name == "new"
    await consumers_are(await bucket(boss))


async def read_bound(boss: Client, guest: Client) -> None:
    """Through a reconnect, too."""
    consumer = await guest.jetstream().consumer("S", "c", bind=True)
    async with trio.open_nursery() as nursery, open_consumer(nursery, consumer) as rx:
        await (await rx.receive()).ack()
        await guest.reconnect()
        await guest.wait_connected()
        await boss.jetstream().publish("s.a", b"2")
        await (await rx.receive()).ack_sync()
    assert (await boss.jetstream().consumer_info("S", "c")).num_ack_pending == 0


async def consume_too_little(boss: Client, guest: Client) -> None:
    consumer = await guest.jetstream().consumer("S", "c")
    await boss.jetstream().publish("s.a", bytes(1000))
    async with trio.open_nursery() as nursery, open_consumer(nursery, consumer, max_bytes=500) as rx:
        await (await rx.receive()).ack()
        with pytest.raises(errors.BadRequestError, match="max_bytes is 500: the next message has 1"):
            await rx.receive()


async def put(boss: Client, guest: Client) -> None:
    store = await bucket(guest)
    await store.put("new", LARGE)
    assert (await (await bucket(boss)).get("new")).data == LARGE


async def put_over_and_delete(boss: Client, guest: Client) -> None:
    store = await bucket(guest)
    await store.put("large", b"y")
    assert (await (await bucket(boss)).get("large")).data == b"y"
    await store.delete("large")
    state = (await boss.jetstream().stream_info("OBJ_b", "$O.b.C.>")).state
    assert len(state.subjects or {}) == 1, "the chunks are gone"


async def say_and_link(boss: Client, guest: Client) -> None:
    store = await bucket(guest)
    await store.update_meta("small", api.ObjectMeta(description="d"))
    info = await store.update_meta("small", api.ObjectMeta(name="new"))
    await store.add_link("link", info)
    await store.add_bucket_link("all", store)
    assert {one.name for one in await (await bucket(boss)).list()} == {"large", "new", "link", "all"}


async def seal(boss: Client, guest: Client) -> None:
    await (await bucket(guest)).seal()
    assert (await boss.jetstream().stream_info("OBJ_b")).config.sealed


def orphans(call: str) -> Callable[[Client, Client], Awaitable[None]]:
    """One alone and several, which are looked at with other filters."""

    async def search(boss: Client, guest: Client) -> None:
        store = await bucket(guest)
        for nuids in ({"lost"}, {"x", "y"}):
            for nuid in nuids:
                await boss.jetstream().publish(f"$O.b.C.{nuid}", b"x")
            assert {one.nuid for one in await getattr(store, call)(0)} >= nuids
        await consumers_are(await bucket(boss))

    return search


async def fetch(boss: Client, guest: Client) -> None:
    consumer = await guest.jetstream().consumer("S", "c", bind=True)
    assert len(await consumer.fetch(1)) == 1
    await boss.jetstream().publish("s.a", b"x")
    assert await consumer.next() is not None


async def verdicts(boss: Client, guest: Client) -> None:
    await boss.publish("s.a", b"2")
    await boss.flush()
    consumer = await guest.jetstream().consumer("S", "c", bind=True)
    (msg,) = await delivered(guest, consumer)
    following = await msg.ack_next()
    assert following is not None
    async with following.processing():
        await following.ack_sync()


async def read_pushed(boss: Client, guest: Client) -> None:
    """There is enough for the server to ask whether it may go on."""
    js = boss.jetstream()
    flow: dict[str, Any] = {"flow_control": True, "idle_heartbeat": 0.2}
    await js.add_consumer("S", name="p", deliver_subject="listen", ack_policy=api.AckPolicy.EXPLICIT, **flow)
    consumer = await guest.jetstream().consumer("S", "p")
    async with trio.open_nursery() as nursery, open_consumer(nursery, consumer) as rx:
        await guest.flush()
        for _ in range(40):
            await js.publish("s.a", LARGE)
        for _ in range(41):
            await (await rx.receive()).ack_sync()


SAME: Final[dict[str, Any]] = {
    "name": "S",
    "subjects": ["s.*"],
    "storage": api.StorageType.MEMORY,
    "allow_direct": True,
}


def simply(call: Callable[[Client], Awaitable[object]]) -> Callable[[Client, Client], Awaitable[None]]:
    async def do(boss: Client, guest: Client) -> None:
        assert await call(guest) is not False

    return do


def manage(call: Callable[[JetStream], Awaitable[object]]) -> Callable[[Client, Client], Awaitable[None]]:
    return simply(lambda nc: call(nc.jetstream()))


def read(name: str, data: bytes) -> Callable[[Client, Client], Awaitable[None]]:
    async def do(boss: Client, guest: Client) -> None:
        store = await bucket(guest)
        assert (await store.get(name)).data == data
        async with store.open_object(name) as stream:
            assert b"".join([bytes(piece) async for piece in stream]) == data
        with TemporaryDirectory() as directory:
            assert (await store.get_file(name, f"{directory}/file")).size == len(data)

    return do


async def stream_of(boss: Client, guest: Client) -> Stream:
    """The handle of who may not ask for the stream."""
    stream = await boss.jetstream().stream("S")
    return Stream(Api(seam(guest)), stream.cached_info)


def on_stream(*calls: Callable[[Stream], Awaitable[object]]) -> Callable[[Client, Client], Awaitable[None]]:
    async def do(boss: Client, guest: Client) -> None:
        stream = await stream_of(boss, guest)
        for call in calls:
            assert await call(stream)

    return do


async def nothing_found(boss: Client, guest: Client) -> None:
    assert await (await stream_of(boss, guest)).get_msgs(seq=1000, batch=5) == []


async def created_and_updated(boss: Client, guest: Client) -> None:
    js = guest.jetstream()
    made = await js.create_consumer("S", durable_name="new", filter_subjects=["s.*"])
    assert made.cached_info is not None
    assert (
        await js.update_consumer("S", made.cached_info.config, description="changed")
    ).config.description == "changed"


async def unpin(boss: Client, guest: Client) -> None:
    with pytest.raises(errors.BadRequestError, match="10160"):
        await guest.jetstream().unpin_consumer("S", "c", "g")


async def scheduling(boss: Client) -> JetStream:
    js = boss.jetstream()
    await js.update_stream(name="S", allow_msg_schedules=True)
    return js


async def schedule(boss: Client, guest: Client) -> None:
    await scheduling(boss)
    await guest.jetstream().schedule("s.a", b"x", target="s.b", every=3600)


async def unschedule(boss: Client, guest: Client) -> None:
    await (await scheduling(boss)).schedule("s.a", b"x", target="s.b", every=3600)
    assert await guest.jetstream().unschedule("s.a")


async def list_schedules(boss: Client, guest: Client) -> None:
    await (await scheduling(boss)).schedule("s.a", b"x", target="s.b", every=3600)
    assert len(await guest.jetstream().schedules("S", "s.*")) == 1


async def counting(boss: Client) -> None:
    js = boss.jetstream()
    await js.delete_stream("S")
    await js.create_stream(**SAME, allow_msg_counter=True)


async def count(boss: Client, guest: Client) -> None:
    await counting(boss)
    counter = await guest.jetstream().counter("S")
    assert await counter.add("s.a", 5) == 5
    assert (await counter.get("s.a")).value == 5


async def list_counters(boss: Client, guest: Client) -> None:
    await counting(boss)
    await (await boss.jetstream().counter("S")).add("s.a", 5)
    assert len(await (await guest.jetstream().counter("S")).entries("s.*")) == 1


async def purge(boss: Client, guest: Client) -> None:
    assert await guest.jetstream().purge_stream("S")
    assert await (await stream_of(boss, guest)).purge() == 0


async def read_in_order(boss: Client, guest: Client) -> None:
    ordered = await guest.jetstream().ordered_consumer("S")
    (first,) = await ordered.fetch(1)
    await boss.publish("s.b", b"2")
    second = await ordered.next()
    assert second is not None
    async with trio.open_nursery() as nursery, open_consumer(nursery, ordered) as rx:
        await boss.publish("s.a", b"3")
        assert [first.data, second.data, (await rx.receive()).data] == [b"1", b"2", b"3"]


def outside_a_cluster(call: Callable[[Stream], Awaitable[bool]]) -> Callable[[Client, Client], Awaitable[None]]:
    async def do(boss: Client, guest: Client) -> None:
        with pytest.raises(errors.APIError, match="cluster"):
            await call(await stream_of(boss, guest))

    return do


DO: dict[str, Callable[[Client, Client], Awaitable[None]]] = {
    "flush": simply(lambda nc: nc.flush()),
    "open_subscription": subscribe,
    "publish": simply(lambda nc: nc.publish("s.a", b"x")),
    "request": simply(lambda nc: nc.request("s.a", b"x")),
    "open_service, open_endpoint and Service.serve": serve,
    "request_many": request_many,
    "open_replies": replies,
    "trace": trace,
    "ServiceClient.ping, info and stats": simply(discover),
    "ServiceClient.ping, info and stats of a name and an id": simply(partial(discover, whom=("n", "i"))),
    "SystemClient.varz, and jsz, healthz, accountz, subsz, routez and gatewayz by their names": monitor(
        lambda system, _: system.varz()
    ),
    "SystemClient.varz of one server by its name": monitor(lambda system, _: system.varz(server="alone")),
    "SystemClient.varz of one server by its id": monitor(lambda system, number: system.varz(server=number)),
    "SystemClient.connz and leafz": monitor(connections),
    "SystemClient.connz and leafz of an account": monitor(connections_of_an_account),
    "JetStream.publish": manage(lambda js: js.publish("s.a", b"x")),
    "open_publisher": publish_many,
    "open_publisher with resend": publish_again,
    "open_ingest": ingest,
    "JetStream.open_batch": publish_a_batch,
    "JetStream.schedule": schedule,
    "JetStream.unschedule": unschedule,
    "JetStream.schedules": list_schedules,
    "JetStream.counter, Counter.add and Counter.get": count,
    "Counter.entries": list_counters,
    "account_info": manage(lambda js: js.account_info()),
    "find_stream_name_by_subject": manage(lambda js: js.find_stream_name_by_subject("s.a")),
    "stream_info": manage(lambda js: js.stream_info("S")),
    "streams_info": manage(lambda js: js.streams_info()),
    "add_stream": manage(lambda js: js.add_stream(**SAME)),
    "stream_names": manage(lambda js: js.stream_names()),
    "update_stream with a configuration": manage(lambda js: js.update_stream(api.StreamConfig(**SAME))),
    "update_stream by keywords alone": manage(lambda js: js.update_stream(name="S", description="changed")),
    "create_or_update_stream of one that exists": manage(lambda js: js.create_or_update_stream(**SAME)),
    "create_or_update_stream of one that does not": manage(lambda js: js.create_or_update_stream(name="N")),
    "purge_stream and Stream.purge": purge,
    "Stream.step_down": outside_a_cluster(lambda stream: stream.step_down()),
    "Stream.remove_peer": outside_a_cluster(lambda stream: stream.remove_peer("n1")),
    "delete_stream": manage(lambda js: js.delete_stream("S")),
    "Stream.backup": back_up,
    "JetStream.restore_stream": restore,
    "open_advisories": hear_advisories,
    "get_msg": manage(lambda js: js.get_msg("S", 1)),
    "get_msg, direct, by sequence": manage(lambda js: js.get_msg("S", 1, direct=True)),
    "get_last_msg, direct": manage(lambda js: js.get_last_msg("S", "s.a", direct=True)),
    "Stream.get_msg of a sequence, and Stream.get_last_msg, with allow_direct": on_stream(
        lambda s: s.get_msg(1, direct=True), lambda s: s.get_last_msg("s.a", direct=True)
    ),
    "Stream.get_msgs and Stream.get_last_msgs, one replica": on_stream(
        lambda s: s.get_msgs(seq=1, batch=5), lambda s: s.get_last_msgs("s.>")
    ),
    "Stream.get_msgs, nothing found or several replicas": nothing_found,
    "Stream.get_last_msgs with up_to_seq, or several replicas": on_stream(
        lambda s: s.get_last_msgs("s.>", up_to_seq=1)
    ),
    "delete_msg and Stream.delete_msg": manage(lambda js: js.delete_msg("S", 1)),
    "add_consumer with one filter, named or not, durable or not": consumers_with_a_filter,
    "add_consumer without a filter, or with several filter_subjects": consumers_without_one,
    "JetStream.create_consumer with one filter, and update_consumer with a configuration": created_and_updated,
    "update_consumer by keywords alone": manage(lambda js: js.update_consumer("S", name="c", description="changed")),
    "Consumer.fetch and Consumer.next": fetch,
    "consumer_info": manage(lambda js: js.consumer_info("S", "c")),
    "consumers_info": manage(lambda js: js.consumers_info("S")),
    "consumer_names": manage(lambda js: js.consumer_names("S")),
    "pause_consumer and resume_consumer": pause_and_resume,
    "unpin_consumer": unpin,
    "reset_consumer": manage(lambda js: js.reset_consumer("S", "c")),
    "reset_consumer to a sequence": manage(lambda js: js.reset_consumer("S", "c", 1)),
    "delete_consumer": manage(lambda js: js.delete_consumer("S", "c")),
    "ordered_consumer with one filter": manage(lambda js: js.ordered_consumer("S", filter_subjects="s.*")),
    "ordered_consumer without a filter, or with several": manage(
        lambda js: js.ordered_consumer("S", filter_subjects=["s.a", "s.b"])
    ),
    "OrderedConsumer.fetch, next, and open_consumer with one": read_in_order,
    "JetStreamMsg.ack and all other verdicts, ack_next and processing": verdicts,
    "open_consumer of a push consumer": read_pushed,
    "create_key_value": manage(lambda js: js.create_key_value(bucket="n")),
    "create_key_value of one that has more than a bucket's configuration says": another_clients_bucket,
    "create_key_value with limit_marker_ttl": manage(lambda js: js.create_key_value(bucket="m", limit_marker_ttl=5)),
    "key_value": manage(lambda js: js.key_value("b")),
    "KeyValue.status": simply(key_value_status),
    "update_key_value": update_by_keywords,
    "create_or_update_key_value of one that exists": update_what_there_is,
    "create_or_update_key_value of one that does not": manage(lambda js: js.create_or_update_key_value(bucket="n")),
    "delete_key_value": manage(lambda js: js.delete_key_value("b")),
    "key_value_names and key_values": simply(list_buckets_of_keys),
    "create_object_store": manage(lambda js: js.create_object_store("b")),
    "object_store": manage(lambda js: js.object_store("b")),
    "ObjectStore.status": simply(object_store_status),
    "update_object_store": manage(lambda js: js.update_object_store("b", ttl=5)),
    "create_or_update_object_store of one that does not exist": manage(
        lambda js: js.create_or_update_object_store("n")
    ),
    "delete_object_store": manage(lambda js: js.delete_object_store("b")),
    "object_store_names and object_stores": simply(list_object_stores),
    "get_info": simply(about_small),
    "list": list_objects,
    "open_watcher": watch,
    "open_lease, free": take_a_lease,
    "open_lease, while somebody else has it": wait_for_a_lease,
    "open_consumer of a consumer that was only bound": read_bound,
    "open_consumer, with messages larger than what was chosen": consume_too_little,
    "get, open_object and get_file of a small object": read("small", b"x"),
    "get, open_object and get_file of an object of several chunks": read("large", LARGE),
    "put": put,
    "put over an object, and delete": put_over_and_delete,
    "update_meta, also with another name, add_link and add_bucket_link": say_and_link,
    "seal": seal,
    "orphans": orphans("orphans"),
    "purge_orphans": orphans("purge_orphans"),
}


async def key_value_consumers_are_gone(boss: Client) -> None:
    async def are() -> bool:
        return not await boss.jetstream().consumers_info("KV_b")

    await until(are, within=5)


def with_keys(*uses: Callable[[KeyValue], Awaitable[object]]) -> Callable[[Client, Client], Awaitable[None]]:
    """Do all of it with a bucket that was found."""

    async def do(boss: Client, guest: Client) -> None:
        kv = await guest.jetstream().key_value("b")
        for use in uses:
            await use(kv)
        await key_value_consumers_are_gone(boss)

    return do


async def get_nothing(kv: KeyValue) -> None:
    for key in ("nothing", "gone"):
        with pytest.raises(errors.KeyNotFoundError):
            await kv.get(key)


def watching(**options: Any) -> Callable[[KeyValue], Awaitable[None]]:  # noqa: ANN401 - open_watcher's
    """Take a snapshot."""

    async def do(kv: KeyValue) -> None:
        async with trio.open_nursery() as nursery, open_watcher(nursery, kv, **options) as rx:
            await rx.snapshot()

    return do


DO |= {
    "KeyValue.get": with_keys(lambda kv: kv.get("k")),
    "KeyValue.get of a key that is not there": with_keys(get_nothing),
    "KeyValue.get with a revision": with_keys(lambda kv: kv.get("k", 1)),
    "KeyValue.get with leader": with_keys(lambda kv: kv.get("k", leader=True), lambda kv: kv.get("k", 1, leader=True)),
    "KeyValue.put, update, delete and purge": with_keys(
        lambda kv: kv.put("k", b"y"),
        lambda kv: kv.update("new", b"y", 0),
        lambda kv: kv.delete("k"),
        lambda kv: kv.purge("k"),
    ),
    "KeyValue.create": with_keys(lambda kv: kv.create("new", b"y"), lambda kv: kv.create("gone", b"y")),
    "KeyValue.create and purge with msg_ttl": with_keys(
        lambda kv: kv.create("new", b"y", msg_ttl=60), lambda kv: kv.purge("k", msg_ttl=60)
    ),
    "KeyValue.history, and keys with one filter or none": with_keys(
        lambda kv: kv.history("k"), lambda kv: kv.keys("k.>"), lambda kv: kv.keys()
    ),
    "KeyValue.keys with several filters": with_keys(lambda kv: kv.keys(["k", "new"])),
    "open_watcher of keys, with one filter or none": with_keys(
        watching(), watching(keys="k.>"), watching(include_history=True), watching(resume_from_revision=1)
    ),
    "open_watcher of keys, with several filters": with_keys(watching(keys=["k", "new"])),
    "KeyValue.purge_deletes": with_keys(lambda kv: kv.purge_deletes(-1)),
}


async def grouping(boss: Client, *, elastic: bool) -> None:
    js = boss.jetstream()
    if not elastic:
        # Such a group reads what begins with a partition.
        await js.delete_stream("S")
        await js.add_stream(name="S", subjects=["0.s.*"], storage=api.StorageType.MEMORY)
    await js.create_group("S", "g", 2, elastic=elastic, members="m")


def with_group(
    use: Callable[[JetStream], Awaitable[object]], *, elastic: bool
) -> Callable[[Client, Client], Awaitable[None]]:
    """Do it where there is a group."""

    async def do(boss: Client, guest: Client) -> None:
        await grouping(boss, elastic=elastic)
        await use(guest.jetstream())

    return do


async def come_and_go(js: JetStream) -> None:
    await js.add_members("S", "g", "n")
    await js.drop_members("S", "g", "n")


async def be_a_static_member(boss: Client, guest: Client) -> None:
    js = boss.jetstream()
    await grouping(boss, elastic=False)
    await js.publish("0.s.a", b"x")
    async with trio.open_nursery() as nursery:
        async with open_partition(nursery, guest.jetstream(), "S", "g", "m") as rx:
            await (await rx.receive()).ack()
        await until(lambda: nobody_is_pinned(js, "S", "g-m"), within=0.4)
        assert (await js.consumer_info("S", "g-m")).num_ack_pending == 0


async def nobody_is_pinned(js: JetStream, stream: str, consumer: str) -> bool:
    states = (await js.consumer_info(stream, consumer)).priority_groups or []
    return not any(state.pinned_client_id for state in states)


async def be_an_elastic_member(boss: Client, guest: Client) -> None:
    js = boss.jetstream()
    await grouping(boss, elastic=True)
    async with trio.open_nursery() as nursery:
        async with open_partition(nursery, guest.jetstream(), "S", "g", "m", elastic=True) as rx:
            msg = await rx.receive()
            await js.add_members("S", "g", {"m": [1], "n": [0]})
            await msg.ack()

            async def has_let_go() -> bool:
                with suppress(errors.NotFoundError):
                    return (await js.consumer_info("S-g", "m")).config.filter_subjects == ["1.>"]
                return False

            await until(has_let_go, within=0.4)
            for number in range(8):
                await js.publish(f"s.{number}", b"of either partition")
            await (await rx.receive()).ack()
        await until(lambda: nobody_is_pinned(js, "S-g", "m"), within=0.4)


DO |= {
    "create_group, static": with_group(lambda js: js.create_group("S", "n", 2, members="m"), elastic=False),
    "create_group, elastic": with_group(lambda js: js.create_group("S", "n", 2, elastic=True), elastic=True),
    "delete_group, static": with_group(lambda js: js.delete_group("S", "g"), elastic=False),
    "delete_group, elastic": with_group(lambda js: js.delete_group("S", "g", elastic=True), elastic=True),
    "add_members and drop_members": with_group(come_and_go, elastic=True),
    "open_partition, static": be_a_static_member,
    "open_partition, elastic": be_an_elastic_member,
}


def test_the_page_and_the_tests_know_the_same_operations() -> None:
    assert set(GRANTS) == set(DO)


#: What a server of 2.14 is needed for.
NEWER = {
    "JetStream.schedule",
    "JetStream.unschedule",
    "JetStream.schedules",
    "open_ingest",
    "reset_consumer",
    "reset_consumer to a sequence",
}


def for_each(operations: Iterable[str]) -> pytest.MarkDecorator:
    marked = [pytest.param(name, marks=[pytest.mark.level(4)] if name in NEWER else []) for name in operations]
    return pytest.mark.parametrize("operation", marked)


@for_each(GRANTS)
async def test_an_operation_needs_what_the_page_says_and_no_more(operation: str) -> None:
    async with open_as(*GRANTS[operation], of_system=operation.startswith("SystemClient")) as (boss, guest, told):
        with trio.fail_after(10):
            await DO[operation](boss, guest)
        assert await refused(guest, told) == []


@for_each(name for name, grants in GRANTS.items() if grants)
async def test_an_operation_is_refused_what_the_page_says_when_it_is_missing(operation: str) -> None:
    """Otherwise the page asks for more than is needed."""
    for missing in GRANTS[operation]:
        rest = [grant for grant in GRANTS[operation] if grant != missing]
        async with open_as(*rest, of_system=operation.startswith("SystemClient")) as (boss, guest, told):
            with trio.move_on_after(0.5):
                with suppress(errors.Error, AssertionError, BaseExceptionGroup):
                    await DO[operation](boss, guest)
            head = missing.partition("*")[0].removesuffix(">")
            assert any(subject.startswith(head) for subject in await refused(guest, told)), missing


async def test_a_small_object_can_be_read_the_longer_way() -> None:
    """Where the direct get is refused."""
    async with open_as(*GRANTS["get, open_object and get_file of an object of several chunks"]) as (_, guest, told):
        assert (await (await bucket(guest)).get("small")).data == b"x"
        assert [subject.partition("$O")[0] for subject in await refused(guest, told)] == ["$JS.API.DIRECT.GET.OBJ_b."]


async def test_another_filter_than_the_one_that_was_granted_is_refused() -> None:
    async with open_as("$JS.API.CONSUMER.CREATE.S.*.s.a") as (_, guest, _told):
        js = guest.jetstream()
        assert (await js.add_consumer("S", filter_subject="s.a")).config.filter_subject == "s.a"
        assert (await js.add_consumer("S", filter_subjects=["s.a"])).config.filter_subject == "s.a"
        wrong: tuple[dict[str, Any], ...] = (
            {"filter_subject": "s.b"},
            {"filter_subject": "s.*"},
            {"filter_subject": "s.>"},
            {"filter_subject": ">"},
            {"filter_subjects": ["s.a", "s.b"]},
            {},
        )
        for params in wrong:
            with pytest.raises(errors.PermissionsViolationError, match=r"CONSUMER\.CREATE"):
                await js.add_consumer("S", **params)
