"""Every public coroutine and every `open_*`, cancelled at each of its steps in each of five ways.

The list is found by looking: a coroutine that is new has no case here, and that fails. After each cancellation there must be
no task, no waiter, no registration and no half frame, nothing at the server, and a client that can still be used. Cancelled
before it began, an operation must not have sent a byte.
"""

from __future__ import annotations

import base64
import inspect
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

import pytest
import trio

import trionats
from tests.cancelling import Cut, cancel_everywhere
from tests.fake_backups import FakeBackups
from tests.fake_consumers import Consumer
from tests.fake_ingest import FakeIngestStream
from tests.fake_jetstream import FakeBatches, FakeKeyValue, FakeObjects, FakeStream, refusal
from tests.fakes import FakeServer, Frame
from tests.worlds import assert_nothing_left, cut_into, find_keys, meta_subject, open_bucket, publish_forced, settled
from trionats import (
    Client,
    Counter,
    Feed,
    JetStream,
    JetStreamMsg,
    KeyValue,
    ObjectStore,
    OrderedConsumer,
    Stream,
    errors,
)
from trionats._jetstream.backups import restoring
from trionats._jetstream.objects import chunks
from trionats._protocol.headers import encode
from trionats.testing import assert_no_leaks

HEADERS = {"A": ["b", "c"]}
MEMORY = trionats.api.StorageType.MEMORY
#: What the bucket holds at the beginning: an object of one chunk and one of several.
STORED: Final = {"one": b"a chunk", "many": b"first.second.third."}
LINK: Final = b'-> {"bucket": "b", "name": "one"}'
NEW: Final = b"what is stored in chunks of ten"
TENS: Final = cut_into(10)
#: What a feed's task does: not called by users, and cancelled with each feed.
TASKS: Final = frozenset[str]()


#: Prepares an operation: a context manager that gives what is to be called.
Case: TypeAlias = "Callable[[Everything], AbstractAsyncContextManager[Callable[[], Awaitable[object]]]]"


@dataclass
class Everything:
    """A client with all that an operation may need."""

    server: FakeServer
    nursery: trio.Nursery
    nc: Client
    objects: FakeObjects
    store: ObjectStore
    #: The stream `S`, with no message in it, nor a consumer.
    stream: FakeStream
    #: The stream of the key-value bucket `b`: an old value under `k`, and the marker of `gone`.
    keys: FakeKeyValue
    #: A bucket that can hold leases, with nothing in it.
    leases: FakeKeyValue
    #: A stream that takes atomic batches, with nothing in it.
    batches: FakeBatches

    @property
    def js(self) -> JetStream:
        return self.nc.jetstream()

    async def full(self) -> None:
        """Fill the outbox, and let the server read again when all wait for it."""
        self.server.link.stall(up=True)
        publish_forced(self.nc, "filler", bytes(100))
        await settled()
        publish_forced(self.nc, "filler", bytes(100_000))
        self.nursery.start_soon(self.later, self.server.link.resume)

    async def later(self, call: Callable[[], object]) -> None:
        await trio.sleep(1)
        call()

    def work(self, messages: int = 3) -> Consumer:
        """Give the stream a consumer `C`, and messages for it."""
        for number in range(messages):
            self.stream.store("s.a", b"%d" % number, rollup=False)
        self.stream.add_consumer("C", ack_policy="explicit")
        return self.stream.consumers["C"]

    async def drop(self) -> None:
        """Lose the connection; it comes back a little later."""
        self.server.dials = ["refuse"]
        self.server.cut()
        await settled()


@asynccontextmanager
async def everything(*, lag: float = 0, **options: Any) -> AsyncIterator[Everything]:  # noqa: ANN401 - any option
    server = FakeServer(sip=7, chunk=11)
    async with open_bucket(server=server, **options) as (bucket, store, nc, _):
        bucket.lag = lag
        bucket.add("gone", deleted=True)
        bucket.add("one", STORED["one"])
        bucket.add("many", b"first.", b"second.", b"third.")
        stream = FakeStream(server, "S", "s.>", timed=True)
        keys = FakeKeyValue(server, "b", history=2)
        keys.set("k", b"old")
        keys.mark("gone", age=3600)
        leases = FakeKeyValue(server, "leases", limit_marker_ttl=5)
        batches = FakeBatches(server, "B", "atomic")
        for subject, answer in {
            "$JS.API.STREAM.CREATE.OBJ_new": lambda _: stream.about(),
            "$JS.API.STREAM.DELETE.OBJ_b": lambda _: {"success": True},
            "$JS.API.STREAM.UPDATE.OBJ_b": lambda _: bucket.about(),
            "$JS.API.STREAM.UPDATE.KV_b": lambda _: keys.about(),
            "$JS.API.STREAM.CREATE.KV_b": lambda _: refusal(400, 10058, "stream name already in use"),
            "$JS.API.STREAM.DELETE.KV_b": lambda _: {"success": True},
            "$JS.API.STREAM.LIST": lambda _: {"total": 2, "streams": [bucket.about(), keys.about()]},
            "echo": lambda frame: frame.payload,
            "void": lambda _: None,
            "$SYS.REQ.SERVER.PING.STATSZ": lambda _: {"statsz": {"active_servers": 2}},
            "$SYS.REQ.SERVER.PING.IDZ": lambda _: {"name": "fake", "id": "FAKE"},
            "$SYS.REQ.>": lambda _: {"server": {"name": "fake", "id": "FAKE"}, "data": {}},
            "$SRV.>": lambda _: {"name": "n", "id": "i", "version": "1.0.0"},
            "traced": lambda frame: reported(server, frame),
            "many": lambda frame: [server.publish(frame.reply, b"%d" % number) for number in range(3)] and None,
            "$JS.API.>": lambda _: {"error": {"code": 404, "err_code": 10059, "description": "not found"}},
        }.items():
            server.on(subject, answer)
        async with trio.open_nursery() as nursery:
            yield Everything(server, nursery, nc, bucket, store, stream, keys, leases, batches)
        # The connection is as good as before.
        assert (await nc.request("echo", b"still there")).data == b"still there"
        await nc.flush()
        assert_nothing_left(nc)
        assert not bucket.consumers
        assert not keys.consumers
        # Those that a program makes stay; those that readers make (prefix and serial) do not.
        assert not [name for name in stream.consumers if "_" in name]
        assert batches.last in (0, 2, 3), "whole or not at all"
        assert [s.subject for s in server.subscriptions if not s.subject.startswith("_INBOX.")] == []


def reported(server: FakeServer, frame: Frame) -> None:
    """Report of a message that is traced; one that is to come twice is announced once more, and does not come."""
    inbox = frame.headers.partition(b"Nats-Trace-Dest: ")[2].partition(b"\r\n")[0].decode()
    gone = [{"type": "eg", "kind": 1, "hop": "1"}] if b"Twice" in frame.headers else []
    server.publish(inbox, json.dumps({"events": [{"type": "in", "kind": 0}, *gone]}).encode())


async def discovered(verb: str, w: Everything) -> None:
    assert await getattr(trionats.ServiceClient(w.nc), verb)()


async def monitored(kind: str, w: Everything) -> None:
    await getattr(trionats.SystemClient(w.nc), kind)()


# -- the cases ---------------------------------------------------------------------------------------------------------


async def opening(opened: AbstractAsyncContextManager[Any]) -> None:
    """Enter a block, stay for a step, and leave it."""
    async with opened:
        await trio.lowlevel.checkpoint()


def of_feed(use: Callable[[Feed[Any]], Awaitable[object]], opener: str, *, items: bool) -> Case:
    """An operation on a feed that was opened before, with items or without."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        async with OPENERS[opener](w) as rx:
            await w.nc.flush()
            if opener == "Watcher" and not items:
                await rx.snapshot()  # type: ignore[attr-defined]
            if items and opener == "Subscription":
                w.server.publish("a", b"x")
            elif items and opener == "Advisories":
                w.server.publish("$JS.EVENT.ADVISORY.API", b"{}")
            elif items and opener == "Events":
                w.server.inject(b"-ERR 'whatever'\r\n")
            elif not items:
                w.nursery.start_soon(w.later, rx.stop)
            await w.nc.flush()
            yield partial(use, rx)

    return prepared


OPENERS: Final[dict[str, Callable[[Everything], AbstractAsyncContextManager[Feed[Any]]]]] = {
    "Subscription": lambda w: trionats.open_subscription(w.nursery, w.nc, "a"),
    "Events": lambda w: trionats.open_events(w.nursery, w.nc),
    "Replies": lambda w: trionats.open_replies(w.nursery, w.nc, "many", max_msgs=3),
    "Watcher": lambda w: trionats.open_watcher(w.nursery, w.store),
    "Advisories": lambda w: trionats.open_advisories(w.nursery, w.js),
}


def simply(
    use: Callable[[Everything], Awaitable[object]], prepare: Callable[[Everything], Awaitable[object]] | None = None
) -> Case:
    """An operation, and what is to be done before it."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        if prepare is not None:
            await prepare(w)
        yield partial(use, w)

    return prepared


@asynccontextmanager
async def reply_of(w: Everything, subject: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    with w.nc.request_nowait(subject, b"x") as reply:
        yield reply.wait


@asynccontextmanager
async def message_to_answer(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    async with trionats.open_subscription(w.nursery, w.nc, "a") as rx:
        await w.nc.flush()
        w.server.publish("a", b"x", reply="back")
        msg = await rx.receive()
        yield partial(msg.respond, b"y", headers=HEADERS)


def of_service(use: Callable[[trionats.Group], Awaitable[object]], *, group: bool = False, stops: bool = False) -> Case:
    """An operation on a service with an endpoint that has a request in hand, or on a group; perhaps it is stopped a little later."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        async with trionats.open_service(w.nursery, w.nc, "s", "1.0.0") as service, trio.open_nursery() as workers:
            where = service.group("g") if group else service
            await workers.start(partial(where.serve, "late", lambda _: trio.sleep(1)))  # noqa: ASYNC105 - it is awaited there
            w.server.publish("g.late" if group else "late", b"x", reply="back")
            await w.nc.flush()
            if stops:
                workers.start_soon(w.later, where.stop)
            yield partial(use, where)
            where.stop()

    return prepared


async def served(where: trionats.Group) -> None:
    """Serve until it is stopped."""
    await where.serve("more", lambda request: request.respond(b"y"), concurrency=2)


async def endpoint_of(where: trionats.Group, w: Everything) -> None:
    """Enter an endpoint's block, take a request, and leave it."""
    async with trionats.open_endpoint(w.nursery, where, "more") as rx:
        w.server.publish("more", b"x", reply="back")
        async with await rx.receive() as request:
            await request.respond(b"y")


def of_request(use: Callable[[trionats.ServiceRequest], Awaitable[object]]) -> Case:
    """An operation on a request to a service."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        async with (
            trionats.open_service(w.nursery, w.nc, "s", "1.0.0") as service,
            trionats.open_endpoint(w.nursery, service, "more") as rx,
        ):
            w.server.publish("more", b"x", reply="back")
            yield partial(use, await rx.receive())

    return prepared


async def work_on_request(request: trionats.ServiceRequest) -> None:
    async with request:
        await request.respond(b"y", headers=HEADERS)


def of_publisher(use: Callable[[trionats.Publisher], Awaitable[object]], *, before: int = 0) -> Case:
    """An operation on a publisher with room for one, before which so many messages were published that are acknowledged late."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        def acknowledge_later(frame: Frame) -> None:
            w.nursery.start_soon(w.later, partial(w.server.publish, frame.reply, b'{"stream":"S","seq":1}'))

        w.server.on("late", acknowledge_later)
        async with trionats.open_publisher(w.nursery, w.js, max_pending=1) as publisher:
            for _ in range(before):
                await publisher.publish("late", b"x")
            await settled()
            yield partial(use, publisher)

    return prepared


@asynccontextmanager
async def batch_under_way(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """A batch of two messages, of which the stream takes the first one a moment later."""

    def reply_later(frame: Frame) -> str:
        w.batches.hook = lambda _: None
        w.nursery.start_soon(w.later, partial(w.server.publish, frame.reply, w.batches.take(frame)))
        return "silence"

    w.batches.hook = reply_later
    async with w.js.open_batch() as batch:
        for _ in range(2):
            await batch.publish("atomic.a", b"x")
        await settled()
        yield partial(batch.publish, "atomic.a", b"x", headers=HEADERS)


async def batched(w: Everything) -> None:
    """Enter a batch's block, publish, and leave it."""
    async with w.js.open_batch() as batch:
        for _ in range(3):
            await batch.publish("atomic.a", b"x", headers=HEADERS)


@asynccontextmanager
async def broken_batch(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """The connection breaks behind the commit, which is stored."""

    def cut(frame: Frame) -> str | None:
        if b"Commit" not in frame.headers or len(w.server.links) > 1:
            return None
        w.batches.take(frame)
        w.server.cut()
        return "silence"

    w.batches.hook = cut
    yield partial(batched, w)


async def receipt_of(publisher: trionats.Publisher) -> None:
    await (await publisher.publish("late", b"x")).wait()


async def published(w: Everything) -> None:
    """Enter a publisher's block, publish, and leave it."""
    async with trionats.open_publisher(w.nursery, w.js) as publisher:
        await publisher.publish("s.a", b"x", headers=HEADERS)


def of_ingest(use: Callable[[trionats.Ingest], Awaitable[object]], *, before: int = 0) -> Case:
    """An operation on an ingest, before which so many messages were published whose batch begins late."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        stream = FakeIngestStream(w.server, name="I", subject="i.>")
        async with trionats.open_ingest(w.nursery, w.js) as ingest:
            if before:
                stream.hook = partial(take_later, w, stream)
            for _ in range(before):
                await ingest.publish("i.a", b"x")
            await settled()
            yield partial(use, ingest)
        assert stream.fast.batches == {}

    return prepared


def take_later(w: Everything, stream: FakeIngestStream, frame: Frame) -> str:
    stream.hook = lambda _: None
    w.nursery.start_soon(w.later, partial(stream.take, frame))
    return "silence"


async def ingest_receipt_of(ingest: trionats.Ingest) -> None:
    await (await ingest.publish("i.a", b"x")).wait()


async def ingested(w: Everything) -> None:
    """Enter an ingest's block, publish, and leave it."""
    FakeIngestStream(w.server, name="I", subject="i.>")
    async with trionats.open_ingest(w.nursery, w.js) as ingest:
        for _ in range(3):
            await ingest.publish("i.a", b"x", headers=HEADERS)


@asynccontextmanager
async def fresh_snapshot(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Nothing of it has come yet."""
    async with trionats.open_watcher(w.nursery, w.store) as watcher:
        yield watcher.snapshot


@asynccontextmanager
async def fetching(
    w: Everything,
    name: str,
    *arguments: object,
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Fetch from a consumer that was found before: each message that came is given to the program, or given back at once."""
    fake = w.work()
    consumer = await w.js.consumer("S", "C")
    given: list[str] = []

    async def fetch() -> None:
        found = await getattr(consumer, name)(*arguments, **options)
        given.extend(msg.reply for msg in (found if isinstance(found, list) else [found]) if msg is not None)

    yield fetch
    with trio.CancelScope(shield=True):
        await nothing_is_left_to_the_ack_wait(w, given)
        assert not fake.pulls or not given


async def nothing_is_left_to_the_ack_wait(w: Everything, given: list[str]) -> None:
    """See that each message that was delivered is with the program, or was given back."""
    fake = w.stream.consumers["C"]
    await w.nc.flush()
    await w.nc.flush()
    given_back = sum(verdicts.count(b"-NAK") for verdicts in fake.verdicts.values())
    assert len(given) + given_back == fake.delivered, "not until the ack wait"


@asynccontextmanager
async def consuming(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Read a consumer that was found before, leave it in the middle: as for a fetch."""
    w.work()
    consumer = await w.js.consumer("S", "C")
    given: list[str] = []

    async def consume() -> None:
        async with trionats.open_consumer(w.nursery, consumer, max_messages=2) as rx:
            given.append((await rx.receive()).reply)
            given.append((await rx.receive()).reply)

    yield consume
    with trio.CancelScope(shield=True):
        await nothing_is_left_to_the_ack_wait(w, given)


@asynccontextmanager
async def ordered_consumer(w: Everything, messages: int = 3, *, kept: bool = False) -> AsyncIterator[OrderedConsumer]:
    """An ordered consumer with something to read; with one on the server that is kept behind the first of it, or none."""
    for number in range(messages):
        w.stream.store("s.a", b"%d" % number, rollup=False)
    handle = await w.js.ordered_consumer("S")
    async with AsyncExitStack() as stack:
        if kept:
            await stack.enter_async_context(handle)
            await handle.next()
        await w.nc.flush()
        yield handle


@asynccontextmanager
async def ordered(
    w: Everything, use: Callable[[OrderedConsumer], Awaitable[object]], messages: int = 3, *, kept: bool = False
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    async with ordered_consumer(w, messages, kept=kept) as handle:
        yield partial(use, handle)


async def read_one(w: Everything, handle: OrderedConsumer) -> None:
    async with trionats.open_consumer(w.nursery, handle) as rx:
        await rx.receive()


async def within_its_block(handle: OrderedConsumer) -> None:
    async with handle:
        await handle.next()


@asynccontextmanager
async def of_message(
    w: Everything, use: Callable[[JetStreamMsg], Awaitable[object]]
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """What is done with a message: the server hears one verdict of it at the most, and none of the next one that it does not keep."""
    fake = w.work(2)
    msg = await (await w.js.consumer("S", "C")).next()
    assert msg is not None
    await w.nc.flush()
    yield partial(use, msg)
    with trio.CancelScope(shield=True):
        await w.nc.flush()
        await w.nc.flush()
        final = [body for body in fake.verdicts.get(1, []) if body != b"+WPI"]
        assert len(final) <= 1
        assert not fake.pulls


async def work_on(msg: JetStreamMsg) -> None:
    async with msg.processing():
        await trio.sleep(0.1)


async def ack_and_take_the_next(msg: JetStreamMsg) -> None:
    following = await msg.ack_next(1)
    if following is not None:
        following.nak_nowait()


@asynccontextmanager
async def push_consumer(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """A push consumer with three messages: each is received or given back."""
    w.work(0)
    w.stream.add_consumer("P", ack_policy="explicit", deliver_subject="to.us")
    fake = w.stream.consumers["P"]
    consumer = await w.js.consumer("S", "P")
    seen = 0

    async def read() -> None:
        nonlocal seen
        async with trionats.open_consumer(w.nursery, consumer) as rx:
            await w.nc.flush()
            for number in range(3):
                w.stream.store("s.a", b"%d" % number, rollup=False)
            await rx.receive()
            seen += 1

    yield read
    with trio.CancelScope(shield=True):
        await w.nc.flush()
        await w.nc.flush()
        given_back = sum(verdicts.count(b"-NAK") for verdicts in fake.verdicts.values())
        assert seen + given_back == fake.delivered
        fake.unacked.clear()


async def limited(use: Callable[[], Awaitable[object]], seconds: float = 2) -> None:
    with trio.move_on_after(seconds):
        await use()


async def consumer_info(w: Everything) -> None:
    w.work()
    await (await w.js.consumer("S", "C", bind=True)).info()


def of_keys(use: Callable[[KeyValue], Awaitable[object]], *outcomes: dict[str, bytes]) -> Case:
    """An operation on keys, and what the bucket may hold afterwards besides what it held before."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        yield partial(use, find_keys(w.nc))
        with trio.CancelScope(shield=True):
            await w.nc.flush()
        assert w.keys.values() in ({"k": b"old"}, *outcomes)

    return prepared


async def key_value_status(w: Everything) -> None:
    await (await w.js.key_value("b")).status()


async def sealable(w: Everything) -> None:
    w.server.on("$JS.API.STREAM.UPDATE.OBJ_b", lambda _: w.objects.about(), first=True)


async def delete_one(w: Everything) -> None:
    await w.store.delete("one")


def objects(name: str, *arguments: object) -> Case:
    return simply(lambda w: getattr(w.store, name)(*arguments))


def putting_a_file(use: Callable[[Everything, Path], Awaitable[object]]) -> Case:
    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            path.write_bytes(NEW)
            yield partial(use, w, path)

    return prepared


@asynccontextmanager
async def put_from_a_stream(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    sender, receiver = trio.testing.memory_stream_one_way_pair()
    await sender.send_all(NEW)
    await sender.aclose()
    yield lambda: w.store.put("new", receiver, TENS)


async def pieces(*, fails: bool = False) -> AsyncGenerator[bytes]:
    for start in range(0, len(NEW), 7):
        await trio.lowlevel.checkpoint()
        yield NEW[start : start + 7]
        if fails and start > 14:
            raise OSError("the disk is gone")


async def put_from_an_iterable(w: Everything) -> None:
    async with aclosing(pieces()) as given:
        await w.store.put("new", given, TENS)


async def put_of_what_fails(w: Everything) -> None:
    async with aclosing(pieces(fails=True)) as given:
        with suppress(OSError):
            await w.store.put("one", given, TENS)
            pytest.fail("it was put")


async def at_once(call: Callable[..., Any], *args: object, **_: object) -> Any:  # noqa: ANN401 - whatever it returns
    """Do what a thread would do: its steps would be other ones each time."""
    await trio.lowlevel.checkpoint_if_cancelled()
    result = call(*args)
    await trio.lowlevel.cancel_shielded_checkpoint()
    return result


def files_in(directory: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def names_in(directory: str) -> list[str]:
    return [path.name for path in Path(directory).iterdir()]


def write_files(directory: str, **files: bytes) -> None:
    for name, content in files.items():
        Path(directory, name.replace("_", ".")).write_bytes(content)


def into_file(name: str) -> Case:
    """Read an object into a file; see that there is a whole one or none, and no other."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        result: list[object] = []
        with TemporaryDirectory() as directory:

            async def use() -> None:
                result.append(await w.store.get_file(name, f"{directory}/file"))

            yield use
            assert files_in(directory) == ({"file": STORED[name]} if result else {})

    return prepared


@asynccontextmanager
async def backing_up(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Back a stream up; see that all of it is there or nothing, and that nobody listens any more."""
    backups, stream = FakeBackups(w.server, "S"), await w.js.stream("S")
    result: list[object] = []
    with TemporaryDirectory() as directory:

        async def use() -> None:
            result.append(await stream.backup(f"{directory}/b"))

        yield use
        await w.nc.flush()
        assert not backups.heard
        assert names_in(directory) == (["b"] if result else [])
        if result:
            assert files_in(f"{directory}/b")["stream.arc.s2"] == backups.archive


@asynccontextmanager
async def restoring_a_stream(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Restore a stream; see that the server has all of it, or was told that it never will."""
    backups = FakeBackups(w.server, "S")
    with TemporaryDirectory() as directory:
        said = json.dumps({"config": {"name": "S"}, "state": backups.state}).encode()
        write_files(directory, backup_json=said, stream_arc_s2=backups.archive)
        yield lambda: w.js.restore_stream(directory)
        await w.nc.flush()
        assert backups.restored or backups.called_off or not backups.asked
        assert backups.taken == backups.archive or not backups.restored


@asynccontextmanager
async def lease(
    w: Everything, *, taken: bool = False, marked: bool = False
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Take a lease and give it back; see that nobody has it afterwards, without the server's having to end it."""
    bucket = w.leases
    if marked:
        bucket.mark("k")
    if taken:
        bucket.set("k")
        w.nursery.start_soon(w.later, lambda: bucket.mark("k"))
    before = bucket.last

    async def use() -> None:
        await opening(trionats.open_lease(w.nursery, find_keys(w.nc, "leases"), "k", ttl=2))
        assert bucket.last >= before + 2

    yield use
    await w.nc.flush()
    assert bucket.values() == ({"k": b"x"} if taken and bucket.last == before else {})
    assert not bucket.consumers


def groups_in(w: Everything) -> None:
    """The groups of the server: an elastic one of `S`, called `g`, with its work queue."""
    kept = FakeKeyValue(w.server, "elastic-consumer-groups")
    kept.set("S.g", b'{"max_members": 2, "partitioning_filters": null, "members": ["m"]}')
    queue = FakeStream(w.server, "S-g")
    w.server.on("$JS.API.STREAM.CREATE.*", lambda _: queue.about(), first=True)
    w.server.on("$JS.API.STREAM.DELETE.S-g", lambda _: {"success": True}, first=True)
    w.server.on("$JS.API.STREAM.INFO.S-g", lambda _: {**queue.about(), "config": QUEUE}, first=True)


QUEUE: Final = {"name": "S-g", "retention": "workqueue", "sources": [{"name": "S"}]}


def of_group(use: Callable[[Everything], Awaitable[object]]) -> Case:
    """What is done with a group."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        groups_in(w)
        yield partial(use, w)

    return prepared


@asynccontextmanager
async def partition(w: Everything, *, moves: bool = False) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Read what a member is given, and leave; see that nobody watches, and that nobody is pinned."""
    kept = FakeKeyValue(w.server, "elastic-consumer-groups")
    kept.set("S.g", b'{"max_members": 2, "members": ["m"]}')
    queue = FakeStream(w.server, "S-g")
    queue.clock = w.stream.clock
    for number in range(2):
        queue.store("0.s.a", b"%d" % number, rollup=False)

    async def use() -> None:
        async with trionats.open_partition(w.nursery, w.js, "S", "g", "m", elastic=True) as rx:
            msg = await rx.receive()
            assert msg.subject == "s.a"
            if moves:
                # The other partition becomes another's while this one is held.
                kept.set("S.g", b'{"max_members": 2, "members": ["m", "n"]}')
                await trio.sleep(0.1)
            await msg.ack()
            await rx.receive()

    yield use
    with trio.CancelScope(shield=True):
        await w.nc.flush()
        await w.nc.flush()
    assert not kept.consumers
    for consumer in queue.consumers.values():
        assert not consumer.pinned
        consumer.unacked.clear()


Pieces: TypeAlias = "list[bytes]"


async def receive_one(stream: trionats.ObjectStream, pieces: Pieces, size: int | None = None) -> None:
    pieces.append(await stream.receive_some(size))


async def receive_next(stream: trionats.ObjectStream, pieces: Pieces) -> None:
    pieces.append(bytes(await stream.__anext__()))


async def receive_all(stream: trionats.ObjectStream, pieces: Pieces) -> None:
    async for piece in stream:
        pieces.append(bytes(piece))


def of_object(use: Callable[[trionats.ObjectStream, Pieces], Awaitable[object]], name: str = "many") -> Case:
    """An operation on a stream of an object: with what is read behind it, all has been received, and nothing twice."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        pieces: Pieces = []
        async with w.store.open_object(name) as stream:
            yield lambda: use(stream, pieces)
            with suppress(trio.ClosedResourceError):
                await receive_all(stream, pieces)
                assert b"".join(pieces) == STORED[name]

    return prepared


@asynccontextmanager
async def over_a_link(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    w.objects.add("link", nuid="", options={"link": {"bucket": "b", "name": "many"}})
    yield lambda: w.store.get("link")
    w.objects.forget(meta_subject("b", "link"))


def management(name: str, *arguments: object) -> Case:
    return simply(lambda w: getattr(w.js, name)(*arguments))


CONSUMER_CALLS: Final[dict[str, tuple[object, ...]]] = {
    "update": (trionats.api.ConsumerConfig(description="d"),),
    "delete": (),
    "pause": ("2030-01-01T00:00:00Z",),
    "resume": (),
    "reset": (3,),
    "unpin": ("g",),
    "step_down": (),
}


def of_consumer(name: str, *arguments: object) -> Case:
    async def use(w: Everything) -> object:
        consumer = await w.js.consumer("s", "c", bind=True)
        return await getattr(consumer, name)(*arguments)

    return asked_first(use)


@asynccontextmanager
async def _levelled(
    w: Everything, use: Callable[[Everything], Awaitable[object]]
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    w.server.on("$JS.API.INFO", lambda _: {"api": {"level": 5}}, first=True)
    yield partial(use, w)


def asked_first(use: Callable[[Everything], Awaitable[object]]) -> Case:
    """An operation of a server that knows all levels."""
    return partial(_levelled, use=use)


def a_page(w: Everything) -> None:
    """Answer a list of stored messages with one, and the end."""

    def answer(frame: Frame) -> None:
        last = {"Nats-Num-Pending": "0", "Nats-Last-Sequence": "1", "Nats-UpTo-Sequence": "1"}
        first = {
            "Nats-Stream": "S",
            "Nats-Subject": "s.a",
            "Nats-Sequence": "1",
            "Nats-Time-Stamp": "2030-01-01T00:00:00Z",
        }
        first |= {"Nats-Num-Pending": "0", "Nats-Last-Sequence": "0"}
        w.server.publish(frame.reply, b"x", headers=encode(first))
        w.server.publish(frame.reply, headers=encode(last).replace(b"NATS/1.0", b"NATS/1.0 204 EOB"))

    w.server.on("$JS.API.DIRECT.GET.S", answer, first=True)


def listing(use: Callable[[Stream], Awaitable[object]]) -> Case:
    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        stream = await w.js.stream("S")
        a_page(w)
        yield partial(use, stream)

    return prepared


def of_stream(name: str, *arguments: object, **options: object) -> Case:
    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        stream = await w.js.stream("S")
        yield partial(getattr(stream, name), *arguments, **options)

    return prepared


def of_schedules(name: str, *arguments: object, retention: str = "limits") -> Case:
    """An operation on a stream with a schedule, which is work in a work queue, and a message."""

    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        schedule = {"Nats-Schedule": "@daily", "Nats-Schedule-Target": "s.t"}
        hdrs = base64.b64encode(encode(schedule)).decode()
        w.stream.store("s.a", b"x", headers=encode(schedule))
        about = w.stream.about()
        about["config"] = {"name": "S", "allow_msg_schedules": True, "retention": retention}
        about["state"]["subjects"] = {"s.a": 1}
        message = {"subject": "s.a", "seq": 1, "hdrs": hdrs, "time": "2030-01-01T00:00:00Z"}
        answers: dict[str, dict[str, Any]] = {
            "STREAM.INFO.S": about,
            "STREAM.NAMES": {"total": 1, "streams": ["S"]},
            "STREAM.MSG.GET.S": {"message": message},
            "STREAM.PURGE.S": {"success": True, "purged": 1},
            "INFO": {"api": {"level": 5}},
        }
        for what in answers:
            w.server.on(f"$JS.API.{what}", lambda frame: answers[frame.subject.removeprefix("$JS.API.")], first=True)
        yield partial(getattr(w.js, name), *arguments)

    return prepared


async def counted(w: Everything) -> object:
    """Look for the counters of a stream that counts nothing."""
    with suppress(errors.APIError):
        return await w.js.counter("S")
    return None


def of_counter(use: Callable[[Counter], Awaitable[object]]) -> Case:
    @asynccontextmanager
    async def prepared(w: Everything) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        counting = {"config": {"name": "S", "subjects": ["s.>"], "allow_msg_counter": True}}
        w.server.on("$JS.API.STREAM.INFO.S", lambda _: w.stream.about() | counting, first=True)
        w.server.on("s.a", lambda _: {"stream": "S", "seq": 1, "val": "5"}, first=True)
        message = {"subject": "s.a", "seq": 1, "data": base64.b64encode(b'{"val":"5"}').decode()}
        found = {"message": {**message, "time": "2030-01-01T00:00:00Z"}}
        w.server.on("$JS.API.STREAM.MSG.GET.S", lambda _: found, first=True)
        w.stream.store("s.a", b'{"val":"5"}')
        yield partial(use, await w.js.counter("S"))

    return prepared


CASES: Final[dict[str, Case]] = {
    "Client.publish": simply(lambda w: w.nc.publish("a", b"x" * 50, reply="b", headers=HEADERS)),
    "Client.publish, waiting for room": simply(lambda w: w.nc.publish("a", b"x" * 50), Everything.full),
    "Client.publish, without a connection": simply(lambda w: w.nc.publish("a", b"x"), Everything.drop),
    "Client.request": simply(lambda w: w.nc.request("echo", b"x", HEADERS)),
    "Client.request, nobody there": simply(lambda w: w.nc.request("nobody", b"x")),
    "Client.request, no answer": simply(lambda w: limited(partial(w.nc.request, "void"))),
    "Client.request, waiting for room": simply(lambda w: w.nc.request("echo", b"x"), Everything.full),
    "Client.request, without a connection": simply(lambda w: w.nc.request("echo", b"x"), Everything.drop),
    **{
        f"SystemClient.{kind}": simply(partial(monitored, kind))
        for kind in ("varz", "connz", "subsz", "routez", "gatewayz", "leafz", "jsz", "healthz", "accountz")
    },
    **{f"ServiceClient.{verb}": simply(partial(discovered, verb)) for verb in ("ping", "info", "stats")},
    "ServiceClient.ping, one instance": simply(lambda w: trionats.ServiceClient(w.nc).ping("n", "i")),
    "SystemClient.varz, of one server": simply(lambda w: trionats.SystemClient(w.nc).varz(server="fake")),
    "Client.trace": simply(lambda w: w.nc.trace("traced", b"x", only=True)),
    "Client.trace, until it is quiet": simply(lambda w: w.nc.trace("traced", b"x", {"Twice": "1"}, stall=0.1)),
    "Client.request_many": simply(lambda w: w.nc.request_many("many", b"x", max_msgs=3)),
    "Client.request_many, until a deadline": simply(lambda w: limited(partial(w.nc.request_many, "many"))),
    "Client.flush": simply(lambda w: w.nc.flush()),
    "Client.flush, without a connection": simply(lambda w: w.nc.flush(), Everything.drop),
    "Client.rtt": simply(lambda w: w.nc.rtt()),
    "Client.barrier": simply(lambda w: w.nc.barrier()),
    "Client.wait_connected": simply(lambda w: w.nc.wait_connected(), Everything.drop),
    "Client.wait_writable": simply(lambda w: w.nc.wait_writable(), Everything.full),
    "Client.reconnect": simply(lambda w: w.nc.reconnect()),
    "Client.reconnect, without a connection": simply(lambda w: w.nc.reconnect(), Everything.drop),
    "PendingReply.wait": partial(reply_of, subject="echo"),
    "PendingReply.wait, nobody there": partial(reply_of, subject="nobody"),
    "Msg.respond": message_to_answer,
    "Publisher.publish": of_publisher(lambda publisher: publisher.publish("late", b"x", headers=HEADERS)),
    "Publisher.publish, waiting for a place": of_publisher(lambda publisher: publisher.publish("late", b"x"), before=1),
    "Batch.publish": batch_under_way,
    "JetStream.open_batch": simply(batched),
    "JetStream.open_batch, behind whose commit the connection breaks": broken_batch,
    "Publisher.wait_all": of_publisher(trionats.Publisher.wait_all, before=1),
    "Receipt.wait": of_publisher(receipt_of),
    "Ingest.publish": of_ingest(lambda ingest: ingest.publish("i.a", b"x", headers=HEADERS)),
    "Ingest.publish, in a row": of_ingest(lambda ingest: ingest.publish("i.a", b"x"), before=1),
    "IngestReceipt.wait": of_ingest(ingest_receipt_of),
    "Subscription.drain": of_feed(lambda rx: rx.drain(), "Subscription", items=False),  # type: ignore[attr-defined]
    "Watcher.snapshot": of_feed(lambda rx: rx.snapshot(), "Watcher", items=True),  # type: ignore[attr-defined]
    "Watcher.snapshot, nothing there yet": fresh_snapshot,
    "Consumer.fetch": lambda w: fetching(w, "fetch", 3),
    "Consumer.fetch, until time is up": lambda w: fetching(w, "fetch", 9, expires=1.0, heartbeat=0.3),
    "Consumer.fetch, without waiting": lambda w: fetching(w, "fetch", 9, no_wait=True),
    "Consumer.fetch, too large": lambda w: fetching(w, "fetch", 9, max_bytes=10),
    "Consumer.next": lambda w: fetching(w, "next"),
    "Consumer.info": simply(consumer_info),
    **{f"Consumer.{name}": of_consumer(name, *arguments) for name, arguments in CONSUMER_CALLS.items()},
    "ObjectStore.put, one chunk": objects("put", "new", NEW),
    "ObjectStore.put, several chunks": objects("put", "new", NEW, TENS),
    "ObjectStore.put, no chunk": objects("put", "new", b""),
    "ObjectStore.put, in place of one chunk": objects("put", "one", NEW, TENS),
    "ObjectStore.put, in place of several": objects("put", "many", NEW),
    "ObjectStore.put, in place of a deleted one": objects("put", "gone", NEW, TENS),
    "ObjectStore.put, from a path": putting_a_file(lambda w, path: w.store.put("new", path, TENS)),
    "ObjectStore.put, from a file": simply(lambda w: w.store.put("new", io.BytesIO(NEW), TENS)),
    "ObjectStore.put, from an async file": simply(lambda w: w.store.put("new", trio.wrap_file(io.BytesIO(NEW)), TENS)),
    "ObjectStore.put, from a stream": put_from_a_stream,
    "ObjectStore.put, from an iterable": simply(put_from_an_iterable),
    "ObjectStore.put, of an iterable that fails": simply(put_of_what_fails),
    "ObjectStore.put_file": putting_a_file(lambda w, path: w.store.put_file(path, "new", TENS)),
    "ObjectStore.get, one chunk": objects("get", "one"),
    "ObjectStore.get, several chunks": objects("get", "many"),
    "ObjectStore.get, nothing there": objects("get", "none"),
    "ObjectStore.get, over a link": over_a_link,
    "ObjectStore.get_file, one chunk": into_file("one"),
    "ObjectStore.get_file, several chunks": into_file("many"),
    "ObjectStore.open_object, one chunk": simply(lambda w: opening(w.store.open_object("one"))),
    "ObjectStore.open_object, several chunks": simply(lambda w: opening(w.store.open_object("many"))),
    "ObjectStream.receive_some": of_object(receive_one),
    "ObjectStream.receive_some, part of a chunk": of_object(partial(receive_one, size=4), "one"),
    "ObjectStream.receive_some, to the end": of_object(receive_all),
    "ObjectStream.__anext__": of_object(receive_next),
    "ObjectStream.aclose": of_object(lambda stream, _: stream.aclose()),
    "ObjectStore.get_info": objects("get_info", "many"),
    "ObjectStore.get_info, deleted": objects("get_info", "gone", True),
    "ObjectStore.delete": objects("delete", "many"),
    "ObjectStore.delete, once more": simply(delete_one, delete_one),
    "ObjectStore.update_meta": objects("update_meta", "many", trionats.api.ObjectMeta(description="d")),
    "ObjectStore.update_meta, renamed": objects("update_meta", "many", trionats.api.ObjectMeta(name="new")),
    "ObjectStore.update_meta, in place of a deleted one": objects(
        "update_meta", "many", trionats.api.ObjectMeta("gone")
    ),
    "ObjectStore.add_link": objects("add_link", "new", trionats.api.ObjectInfo("one", "b", "nuid-one")),
    "ObjectStore.add_link, in place of a deleted one": objects(
        "add_link", "gone", trionats.api.ObjectInfo("one", "b", "nuid-one")
    ),
    "ObjectStore.add_bucket_link": objects("add_bucket_link", "new", "c"),
    "ObjectStore.seal": objects("seal"),
    "ObjectStore.seal, sealed": simply(lambda w: w.store.seal(), sealable),
    "ObjectStore.orphans": objects("orphans"),
    "ObjectStore.purge_orphans": objects("purge_orphans"),
    "ObjectStore.list": objects("list"),
    "ObjectStore.list, with what is deleted": objects("list", False),
    "open_subscription": simply(lambda w: opening(OPENERS["Subscription"](w))),
    "open_consumer": consuming,
    "open_events": simply(lambda w: opening(OPENERS["Events"](w))),
    "open_replies": simply(lambda w: opening(OPENERS["Replies"](w))),
    "open_ingest": simply(ingested),
    "open_publisher": simply(published),
    "open_service": simply(lambda w: opening(trionats.open_service(w.nursery, w.nc, "s", "1.0.0"))),
    "open_endpoint": lambda w: of_service(partial(endpoint_of, w=w))(w),
    "Service.serve": of_service(served, stops=True),
    "Service.drain": of_service(lambda service: service.drain()),
    "Group.serve": of_service(served, group=True, stops=True),
    "Group.drain": of_service(lambda group: group.drain(), group=True),
    "ServiceRequest.respond": of_request(lambda request: request.respond(b"y", headers=HEADERS)),
    "ServiceRequest.respond, in its block": of_request(work_on_request),
    "ServiceRequest.respond_error": of_request(lambda request: request.respond_error(404, "not there")),
    "open_partition": partition,
    "open_partition, which changes": partial(partition, moves=True),
    "open_lease": lease,
    "open_lease, over a marker": partial(lease, marked=True),
    "open_lease, while somebody else has it": partial(lease, taken=True),
    "open_watcher": simply(lambda w: opening(OPENERS["Watcher"](w))),
    "open_advisories": simply(lambda w: opening(OPENERS["Advisories"](w))),
    "open_watcher, keys": simply(
        lambda w: opening(trionats.open_watcher(w.nursery, find_keys(w.nc), keys=["a", "b.>"]))
    ),
    "open_watcher, resuming": simply(
        lambda w: opening(trionats.open_watcher(w.nursery, find_keys(w.nc), resume_from_revision=1))
    ),
    "open_consumer, ordered": lambda w: ordered(w, partial(read_one, w)),
    "open_consumer, push": push_consumer,
    "JetStreamMsg.ack": partial(of_message, use=lambda msg: msg.ack()),
    "JetStreamMsg.ack, at the end of its processing": partial(of_message, use=work_on),
    "JetStreamMsg.ack_sync": partial(of_message, use=lambda msg: msg.ack_sync()),
    "JetStreamMsg.ack_next": partial(of_message, use=ack_and_take_the_next),
    "JetStreamMsg.nak": partial(of_message, use=lambda msg: msg.nak(60)),
    "JetStreamMsg.in_progress": partial(of_message, use=lambda msg: msg.in_progress()),
    "JetStreamMsg.term": partial(of_message, use=lambda msg: msg.term("no use")),
    "JetStreamMsg.respond": partial(of_message, use=lambda msg: msg.respond(b"no")),
    "OrderedConsumer.fetch": partial(ordered, use=lambda handle: handle.fetch(3)),
    "OrderedConsumer.fetch, less than there may be": partial(ordered, use=lambda handle: handle.fetch(5)),
    "OrderedConsumer.fetch, without waiting": partial(ordered, use=lambda handle: handle.fetch(5, no_wait=True)),
    "OrderedConsumer.fetch, with a consumer that was kept": partial(
        ordered, use=lambda handle: handle.fetch(2), kept=True
    ),
    "OrderedConsumer.next": partial(ordered, use=lambda handle: handle.next()),
    "OrderedConsumer.next, in its block": partial(ordered, use=within_its_block),
    "OrderedConsumer.next, nothing there": partial(ordered, use=lambda handle: handle.next(), messages=0),
    "OrderedConsumer.info": partial(ordered, use=lambda handle: handle.info()),
    "OrderedConsumer.info, of one that was kept": partial(ordered, use=lambda handle: handle.info(), kept=True),
    "JetStream.create_group": of_group(lambda w: w.js.create_group("S", "new", 2, elastic=True, members="m")),
    "JetStream.create_group, already there": of_group(lambda w: w.js.create_group("S", "g", 2, elastic=True)),
    "JetStream.delete_group": of_group(lambda w: w.js.delete_group("S", "g", elastic=True)),
    "JetStream.add_members": of_group(lambda w: w.js.add_members("S", "g", "n")),
    "JetStream.drop_members": of_group(lambda w: w.js.drop_members("S", "g", "m")),
    "JetStream.account_info": management("account_info"),
    "JetStream.add_consumer": management("add_consumer", "s", trionats.api.ConsumerConfig(durable_name="c")),
    "JetStream.add_stream": management("add_stream", trionats.api.StreamConfig(name="s")),
    "JetStream.create_or_update_consumer": management(
        "create_or_update_consumer", "s", trionats.api.ConsumerConfig(durable_name="c")
    ),
    "JetStream.consumer": management("consumer", "s", "c"),
    "JetStream.create_consumer": management("create_consumer", "s", trionats.api.ConsumerConfig(durable_name="c")),
    "JetStream.update_consumer": management("update_consumer", "s", trionats.api.ConsumerConfig(durable_name="c")),
    "JetStream.unpin_consumer": asked_first(lambda w: w.js.unpin_consumer("s", "c", "g")),
    "JetStream.api_request": management("api_request", "INFO"),
    "JetStream.consumer_info": management("consumer_info", "s", "c"),
    "JetStream.consumers_info": management("consumers_info", "s"),
    "JetStream.create_key_value": simply(lambda w: w.js.create_key_value(bucket="x")),
    "JetStream.create_key_value, already there": simply(lambda w: w.js.create_key_value(bucket="b", storage=MEMORY)),
    "JetStream.create_key_value, with limit markers": asked_first(
        lambda w: w.js.create_key_value(bucket="b", storage=MEMORY, limit_marker_ttl=5)
    ),
    "JetStream.create_object_store": management("create_object_store", "x"),
    "JetStream.create_object_store, created": management("create_object_store", "new"),
    "JetStream.create_or_update_key_value": simply(lambda w: w.js.create_or_update_key_value(bucket="x")),
    "JetStream.create_or_update_key_value, updated": simply(lambda w: w.js.create_or_update_key_value(bucket="b")),
    "JetStream.create_or_update_object_store": management("create_or_update_object_store", "new"),
    "JetStream.create_or_update_object_store, updated": management("create_or_update_object_store", "b"),
    "JetStream.delete_consumer": management("delete_consumer", "s", "c"),
    "JetStream.delete_key_value": management("delete_key_value", "x"),
    "JetStream.delete_key_value, deleted": management("delete_key_value", "b"),
    "JetStream.delete_msg": management("delete_msg", "s", 1),
    "JetStream.delete_object_store": management("delete_object_store", "x"),
    "JetStream.delete_object_store, deleted": management("delete_object_store", "b"),
    "JetStream.delete_stream": management("delete_stream", "s"),
    "JetStream.find_stream_name_by_subject": management("find_stream_name_by_subject", "a"),
    "JetStream.get_last_msg": management("get_last_msg", "s", "a"),
    "JetStream.get_last_msg, found": management("get_last_msg", "OBJ_b", "$O.b.C.nuid-one"),
    "JetStream.get_msg": management("get_msg", "s", 1),
    "JetStream.get_msg, found": management("get_msg", "OBJ_b", 2),
    "JetStream.key_value": management("key_value", "x"),
    "JetStream.key_value, found": management("key_value", "b"),
    "JetStream.key_value_names": management("key_value_names"),
    "JetStream.key_values": management("key_values"),
    "JetStream.object_store": management("object_store", "x"),
    "JetStream.object_store, found": management("object_store", "b"),
    "JetStream.object_store_names": management("object_store_names"),
    "JetStream.object_stores": management("object_stores"),
    "JetStream.update_key_value": simply(lambda w: w.js.update_key_value(bucket="x", ttl=5)),
    "JetStream.update_key_value, found": simply(lambda w: w.js.update_key_value(bucket="b", ttl=5)),
    "JetStream.update_object_store": simply(lambda w: w.js.update_object_store("x", ttl=5)),
    "JetStream.update_object_store, found": simply(lambda w: w.js.update_object_store("b", ttl=5)),
    "KeyValue.status": simply(key_value_status),
    "KeyValue.get": of_keys(lambda kv: kv.get("k")),
    "KeyValue.get, nothing there": of_keys(lambda kv: kv.get("nothing")),
    "KeyValue.get, of the leader": of_keys(lambda kv: kv.get("k", leader=True)),
    "KeyValue.get, a revision": of_keys(lambda kv: kv.get("k", 1)),
    "KeyValue.put": of_keys(lambda kv: kv.put("k", b"new"), {"k": b"new"}),
    "KeyValue.create": of_keys(lambda kv: kv.create("new", b"1"), {"k": b"old", "new": b"1"}),
    "KeyValue.create, over a marker": of_keys(lambda kv: kv.create("gone", b"1"), {"k": b"old", "gone": b"1"}),
    "KeyValue.create, over a value": of_keys(lambda kv: kv.create("k", b"new")),
    "KeyValue.update": of_keys(lambda kv: kv.update("k", b"new", 1), {"k": b"new"}),
    "KeyValue.delete": of_keys(lambda kv: kv.delete("k", 1), {}),
    "KeyValue.purge": of_keys(lambda kv: kv.purge("k"), {}),
    "KeyValue.history": of_keys(lambda kv: kv.history("k")),
    "KeyValue.keys": of_keys(lambda kv: kv.keys(["k", "gone"])),
    "KeyValue.purge_deletes": of_keys(lambda kv: kv.purge_deletes()),
    "ObjectStore.status": simply(lambda w: w.store.status()),
    "JetStream.ordered_consumer": management("ordered_consumer", "S"),
    "JetStream.ordered_consumer, nothing there": management("ordered_consumer", "s"),
    "JetStream.pause_consumer": asked_first(lambda w: w.js.pause_consumer("s", "c", "2030-01-01T00:00:00Z")),
    "JetStream.publish": simply(lambda w: w.js.publish("s.a", b"x", headers=HEADERS, msg_id="1")),
    "JetStream.publish, nobody there": management("publish", "nobody", b"x"),
    "JetStream.purge_stream": management("purge_stream", "s"),
    "JetStream.reset_consumer": asked_first(lambda w: w.js.reset_consumer("s", "c")),
    "JetStream.resume_consumer": asked_first(lambda w: w.js.resume_consumer("s", "c")),
    "JetStream.schedule": asked_first(lambda w: w.js.schedule("s.a", b"x", target="s.t", every=5)),
    "JetStream.unschedule": of_schedules("unschedule", "s.a"),
    "JetStream.unschedule, nothing there": management("unschedule", "a"),
    "JetStream.schedules": of_schedules("schedules", "S"),
    "JetStream.schedules, of a work queue": of_schedules("schedules", "S", retention="workqueue"),
    "JetStream.counter": asked_first(counted),
    "JetStream.counter, nothing there": management("counter", "s"),
    "Counter.add": of_counter(lambda counter: counter.add("s.a", 5)),
    "Counter.get": of_counter(lambda counter: counter.get("s.a")),
    "Counter.entries": of_counter(lambda counter: counter.entries("s.*")),
    "JetStream.stream_info": management("stream_info", "s"),
    "JetStream.stream_info, found": management("stream_info", "S"),
    "JetStream.stream_names": management("stream_names"),
    "JetStream.streams_info": management("streams_info"),
    "JetStream.streams_info_iterator": management("streams_info_iterator"),
    "JetStream.stream": management("stream", "S"),
    "JetStream.create_stream": management("create_stream", trionats.api.StreamConfig(name="s")),
    "JetStream.create_or_update_stream": management("create_or_update_stream", trionats.api.StreamConfig(name="s")),
    "JetStream.consumer_names": management("consumer_names", "s"),
    "Stream.get_msg": of_stream("get_msg", 1),
    "Stream.get_last_msg": of_stream("get_last_msg", "s.a", direct=True),
    "Stream.get_msgs": listing(lambda stream: stream.get_msgs(seq=1, batch=3)),
    "Stream.get_last_msgs": listing(lambda stream: stream.get_last_msgs("s.a")),
    "Stream.delete_msg": of_stream("delete_msg", 1),
    "Stream.info": of_stream("info"),
    "Stream.nearest": of_stream("nearest"),
    "Stream.update": of_stream("update", max_age=5),
    "Stream.purge": of_stream("purge", subject="s.a"),
    "Stream.delete": of_stream("delete"),
    "Stream.create_consumer": of_stream("create_consumer", durable_name="c"),
    "Stream.consumer": of_stream("consumer", "c"),
    "Stream.consumer, unasked": of_stream("consumer", "c", bind=True),
    "Stream.consumer_names": of_stream("consumer_names"),
    "Stream.consumers_info": of_stream("consumers_info"),
    "Stream.delete_consumer": of_stream("delete_consumer", "c"),
    "Stream.backup": backing_up,
    "JetStream.restore_stream": restoring_a_stream,
    "Stream.step_down": of_stream("step_down"),
    "Stream.remove_peer": of_stream("remove_peer", "n1"),
    "JetStream.update_stream": management("update_stream", trionats.api.StreamConfig(name="s")),
    "JetStream.update_stream, by keyword": simply(lambda w: w.js.update_stream(name="S", max_age=5)),
    "JetStream.add_stream, of a newer server": simply(lambda w: w.js.add_stream(name="s", allow_atomic=True)),
}
for _kind in OPENERS:
    CASES.update(
        {
            f"{_kind}.receive": of_feed(lambda rx: rx.receive(), _kind, items=True),
            f"{_kind}.receive, nothing there": of_feed(lambda rx: rx.receive(), _kind, items=False),
            f"{_kind}.__anext__": of_feed(lambda rx: rx.__anext__(), _kind, items=True),
            f"{_kind}.wait_ended": of_feed(lambda rx: rx.wait_ended(), _kind, items=False),
            f"{_kind}.aclose": of_feed(lambda rx: rx.aclose(), _kind, items=True),
        }
    )
FROM_A_SOURCE: Final = ("ObjectStore.put, from", "ObjectStore.put_file")
#: What else the bucket may hold after these, and does when they were not cancelled.
EFFECTS: Final[dict[str, dict[str, bytes]]] = {
    "ObjectStore.put, one chunk": {**STORED, "new": NEW},
    "ObjectStore.put, several chunks": {**STORED, "new": NEW},
    "ObjectStore.put, no chunk": {**STORED, "new": b""},
    "ObjectStore.put, in place of one chunk": {**STORED, "one": NEW},
    "ObjectStore.put, in place of several": {**STORED, "many": NEW},
    "ObjectStore.put, in place of a deleted one": {**STORED, "gone": NEW},
    **{name: {**STORED, "new": NEW} for name in CASES if name.startswith(FROM_A_SOURCE)},
    "ObjectStore.delete": {"one": STORED["one"]},
    "ObjectStore.update_meta, renamed": {"one": STORED["one"], "new": STORED["many"]},
    "ObjectStore.update_meta, in place of a deleted one": {"one": STORED["one"], "gone": STORED["many"]},
    "ObjectStore.add_link": {**STORED, "new": LINK},
    "ObjectStore.add_link, in place of a deleted one": {**STORED, "gone": LINK},
    "ObjectStore.add_bucket_link": {**STORED, "new": b'-> {"bucket": "c"}'},
}
#: Here it is another one from the beginning.
WITHOUT_ONE: Final = ("ObjectStore.delete, once more",)
#: What closes is meant to do so also when it is cancelled already.
CLOSES: Final = (*(f"{kind}.aclose" for kind in OPENERS), "ObjectStream.aclose")
#: Here something is on its way before the operation begins.
UNDER_WAY: Final = (
    "PendingReply.",
    "ObjectStream.",
    "Publisher.publish, waiting",
    "Publisher.wait_all",
    "Client.publish, waiting",
    "Client.request, waiting",
    "Client.wait_writable",
    "Watcher.snapshot, nothing",
)
#: These end or outlive the client, and have tests of their own below.
CLIENTS: Final = frozenset({"Client.aclose", "Client.drain", "open_client"})


def public_coroutines() -> set[str]:
    """Find every coroutine function that users can call."""
    found = set()
    for name in trionats.__all__:
        thing = getattr(trionats, name)
        if name.startswith("open_"):
            found.add(name)
        elif inspect.isclass(thing):
            for attribute, function in inspect.getmembers(thing, callable):
                public = not attribute.startswith("_") or attribute == "__anext__"
                opens = attribute.startswith("open_")
                if opens or (public and inspect.iscoroutinefunction(inspect.unwrap(function))):
                    found.add(f"{name}.{attribute}")
        elif inspect.iscoroutinefunction(thing):
            found.add(name)
    return found


def test_every_public_coroutine_has_a_case() -> None:
    have = {name.split(",")[0] for name in CASES} | CLIENTS | TASKS
    missing = {
        name
        for name in public_coroutines() - have
        if name.split(".")[0]
        not in ("Feed", "BoundedFeed", "JetStreamManager", "ReadOnlyKeyValue")  # bases: their kinds are there
    }
    assert missing == set()
    assert have - TASKS <= public_coroutines()


SLOW: Final = [name for name in CASES if name.startswith(("ObjectStore.", "Watcher.", "open_watcher"))]


@pytest.mark.parametrize(("name", "lag"), [*((name, 0) for name in CASES), *((name, 0.005) for name in SLOW)])
def test_cancelled_everywhere(name: str, lag: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the stream is slow: what cleans up must not overtake what it is to clean up."""
    # So small that a put waits for it to move on.
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 20)
    monkeypatch.setattr(restoring, "PIECE", 200)
    monkeypatch.setattr(restoring, "WINDOW", 2)
    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    before = {"many": STORED["many"]} if name in WITHOUT_ONE else STORED
    outcomes = []

    async def scenario(cut: Cut) -> None:
        async with everything(lag=lag, pending_size=10_000, reconnect_time_wait=0.5) as w:
            async with assert_no_leaks(w.nc), CASES[name](w) as operation:
                sent = len(w.server.link.received)

                async def run() -> None:
                    with suppress(errors.Error, trio.EndOfChannel, StopAsyncIteration):
                        await operation()

                await cut(run)
                if cut.way == "already":
                    assert cut.cancelled or name in CLOSES
                    if name not in CLOSES and not name.startswith(UNDER_WAY):
                        await settled()
                        assert len(w.server.link.received) == sent
                # Let what the case has set in motion come to rest: a link held back, a connection dropped, a feed to be stopped.
                await trio.sleep(1.5)
                await w.nc.wait_connected()
            await w.nc.flush()
            contents = w.objects.contents()
            assert contents == EFFECTS.get(name, before) or (cut.cancelled and contents == before)
            outcomes.append(contents)

    cancel_everywhere(scenario)
    assert before in outcomes
    assert EFFECTS.get(name, before) in outcomes


def test_a_snapshot_cancelled_anywhere_loses_nothing() -> None:
    """What the cancelled call had collected is in the next one, once."""

    async def scenario(cut: Cut) -> None:
        async with everything() as w, trionats.open_watcher(w.nursery, w.store) as watcher:
            first = await cut(watcher.snapshot) or []
            assert not (cut.cancelled and first)
            names = [info.name for info in first + await watcher.snapshot()]
            assert names == ["gone", *STORED]

    cancel_everywhere(scenario)


@pytest.mark.parametrize("kept", [False, True])
def test_a_fetch_cancelled_anywhere_loses_nothing(kept: bool) -> None:
    """What it had collected comes with the next one, once; also with a consumer that is kept, and from a feed."""

    async def scenario(cut: Cut) -> None:
        async with everything() as w, ordered_consumer(w, 6, kept=kept) as handle:
            first = await cut(handle.fetch, 3) or []
            assert not (cut.cancelled and first)
            async with trionats.open_consumer(w.nursery, handle) as rx:
                second = [await rx.receive()]
            numbers = [int(msg.data) for msg in (*first, *second, *await handle.fetch(9, no_wait=True))]
            assert numbers == list(range(kept, 6))

    cancel_everywhere(scenario)


@pytest.mark.parametrize("dials", [[], ["refuse", "accept"], ["hang", "accept"], ["refuse", "refuse"]])
def test_opening_a_client_cancelled_anywhere(dials: Any) -> None:  # noqa: ANN401 - the fake's
    """No task, no socket, and no half frame is left of a client that did not come to be."""

    async def scenario(cut: Cut) -> None:
        server = FakeServer(sip=13, chunk=17)
        server.dials = list(dials)
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                with suppress(errors.NoServersError):
                    await opening(trionats.open_client(nursery, ["a", "b"], dial=server.dial))

            async with assert_no_leaks():
                await cut(run)
            assert not nursery.child_tasks
        assert all(link.closed for link in server.links)
        assert [problem for problem in server.problems if "half" not in problem] == []

    cancel_everywhere(scenario)


@pytest.mark.parametrize("how", ["aclose", "drain"])
def test_closing_a_client_cancelled_anywhere(how: str) -> None:
    """Closing ends the client however often it is cancelled, and says goodbye."""

    async def scenario(cut: Cut) -> None:
        server = FakeServer(sip=5)
        async with assert_no_leaks(), trio.open_nursery() as nursery:
            async with trionats.open_client(nursery, dial=server.dial) as nc, trio.open_nursery() as feeds:
                async with trionats.open_subscription(feeds, nc, "a"):
                    await nc.flush()
                    nc.publish_nowait("last", b"x")
                    await cut(getattr(nc, how))
                    if how == "aclose":
                        assert nc.is_closed
            assert not nursery.child_tasks
        assert server.sent("PUB", "last")
        assert server.sent("UNSUB")
        assert server.link.closed
        server.check()

    cancel_everywhere(scenario)
