"""A connection of somebody else's making: what reads needs nothing of it but `Messaging`.

`Post` is a third implementation beside ours and the bridge's, written as a user would: no client, no engine, no bytes. What is
published is answered in the same step, by a `Shelf`, which is a stream in a list.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trionats import JetStreamManager, Msg, errors, events
from trionats._core.foreign import Foreign
from trionats._core.messaging import HasMessaging, messaging_of
from trionats._feeds.feed import OpenFeeds
from trionats._feeds.pace import Pace
from trionats._jetstream.api import Api, in_store
from trionats._jetstream.ordered.entries import Entries
from trionats._jetstream.ordered.source import Handed, Sink
from trionats._jetstream.ordered.watcher import watching
from trionats._protocol.jetstream.actions import ALL, LAST_PER_SUBJECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trionats._core.frames import Headers
    from trionats._core.messaging import Listener, Messaging
    from trionats._protocol.commands import Payload
    from trionats._protocol.jetstream.acks import AckSubject
    from trionats._protocol.receivers import Receiver


@dataclass
class Slip:
    """What `Post.attach` gives."""

    subject: str
    detach: Callable[[], None]


class Post:
    """Messages within one process."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.feeds = OpenFeeds()
        self.is_connected = True
        self.server_id = "POST"
        self.told: list[events.ConnectionEvent] = []
        self.foreign = Foreign(self.emit)
        self.receivers: dict[str, Receiver[Msg]] = {}
        self.listeners: dict[Listener, str] = {}
        self.shelf = Shelf(self)
        self._names = (f"N{number}" for number in itertools.count())

    def __messaging__(self) -> Messaging:
        return self

    def new_inbox(self) -> str:
        return f"_INBOX.{self.new_token()}"

    def new_token(self) -> str:
        return next(self._names)

    async def request(self, subject: str, payload: Payload = b"", headers: Headers | None = None) -> Msg:
        await trio.lowlevel.checkpoint()
        response = self.shelf.asked(subject, json.loads(bytes(payload) or b"{}"), "")
        if response is None:
            raise errors.NoRespondersError
        return Msg(0, "", "", json.dumps(response).encode(), None)

    def publish_aside(self, subject: str, payload: bytes = b"", reply: str = "", *, passing: bool = False) -> None:
        self.shelf.asked(subject, json.loads(payload or b"{}"), reply)

    def attach(self, subject: str, receiver: Receiver[Msg], *, queue: str = "", max_msgs: int = 0) -> Slip:
        self.receivers[subject] = receiver

        def detach() -> None:
            self.receivers.pop(subject, None)

        return Slip(subject, detach)

    def add_listener(self, listener: Listener, *, refused: str = "") -> None:
        self.listeners[listener] = refused

    def remove_listener(self, listener: Listener) -> None:
        self.listeners.pop(listener, None)

    def emit(self, event: events.ConnectionEvent) -> None:
        self.told.append(event)

    def deliver(self, inbox: str, msg: Msg) -> None:
        self.receivers[f"{inbox.rpartition('.')[0]}.*"].deliver(msg)


@dataclass
class Consumer:
    """How far it is, and who asked for how many."""

    waiting: list[int]
    inbox: str = ""
    batch: int = 0
    sent: int = 0


class Shelf:
    """The stream "S" of a post, with the consumers that an ordered reader makes."""

    def __init__(self, post: Post) -> None:
        self.post = post
        self.messages: list[tuple[str, bytes]] = []
        self.consumers: dict[str, Consumer] = {}

    def put(self, subject: str, data: bytes) -> None:
        self.messages.append((subject, data))
        for name, consumer in self.consumers.items():
            consumer.waiting.append(len(self.messages))
            self.serve(name, consumer)

    def asked(self, subject: str, asked: dict[str, Any], reply: str) -> dict[str, Any] | None:
        verb, _, name = subject.removeprefix("$JS.API.").partition(".S")
        name = name.split(".")[1] if name else ""
        consumer = self.consumers.get(name)
        match verb:
            case "STREAM.INFO":
                state = {"messages": 1, "bytes": 1, "first_seq": 1, "last_seq": len(self.messages), "consumer_count": 0}
                return {"config": {"name": "S"}, "created": "2026-11-28T12:00:00Z", "state": state, "domain": "post"}
            case "CONSUMER.CREATE":
                made = self.consumers[name] = Consumer(self.chosen(asked["config"]))
                return {"name": name, "num_pending": len(made.waiting), "delivered": {"stream_seq": 0}}
            case "CONSUMER.DELETE":
                self.consumers.pop(name, None)
                return {"success": True}
            case "CONSUMER.MSG.NEXT" if consumer is not None:
                consumer.inbox, consumer.batch = reply, consumer.batch + asked["batch"]
                self.serve(name, consumer)
                return {}
            case "META":
                return {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
        return None

    def chosen(self, config: dict[str, Any]) -> list[int]:
        every = list(range(config.get("opt_start_seq", 1), len(self.messages) + 1))
        if config["deliver_policy"] != "last_per_subject":
            return every
        return sorted({self.messages[number - 1][0]: number for number in every}.values())

    def serve(self, name: str, consumer: Consumer) -> None:
        while consumer.batch and consumer.waiting:
            number = consumer.waiting.pop(0)
            subject, data = self.messages[number - 1]
            consumer.batch, consumer.sent = consumer.batch - 1, consumer.sent + 1
            place = f"1.{number}.{consumer.sent}.{1000 + number}.{len(consumer.waiting)}"
            self.post.deliver(consumer.inbox, Msg(0, subject, f"$JS.ACK.S.{name}.{place}", data, None))


@pytest.fixture
async def post() -> AsyncIterator[Post]:
    post = Post()
    yield post
    assert (post.receivers, post.listeners, post.shelf.consumers, list(post.feeds)) == ({}, {}, {}, [])


def entries(post: Post) -> Entries[tuple[str, bytes]]:
    def read(msg: Msg, ack: AckSubject) -> tuple[str, bytes] | None:
        return None if msg.data == b"skipped" else (msg.subject, msg.data)

    return Entries("shelf 'S'", Api(post), "S", [">"], read=read, key=lambda entry: entry[0])


async def lose_and_regain(post: Post) -> None:
    for receiver in list(post.receivers.values()):
        receiver.connection_lost(errors.DisconnectedError())
    post.shelf.consumers.clear()
    for receiver in list(post.receivers.values()):
        receiver.connection_restored()


async def test_it_passes_for_a_connection(post: Post) -> None:
    assert isinstance(post, HasMessaging)
    assert messaging_of(post, "open_x") is post


async def test_the_api_is_asked_over_it_and_its_errors_say_what_was_asked(post: Post) -> None:
    jetstream = Api(post)
    assert (await JetStreamManager(jetstream).stream_info("S")).state.last_seq == 0
    assert jetstream.whereabouts.named == "post"
    with pytest.raises(errors.ServiceUnavailableError, match=r"\$JS\.API\.NOBODY"):
        await jetstream.request("NOBODY")
    with pytest.raises(errors.BucketNotFoundError, match="there is no shelf 'S'"), in_store("shelf 'S'"):
        await jetstream.request("META")


async def test_an_ordered_reader_reads_over_it_without_gap_or_duplicate_across_a_loss(post: Post) -> None:
    seen: list[bytes] = []
    ends: list[str] = []

    def take(msg: Msg, ack: AckSubject, size: int) -> Handed:
        seen.append(msg.data)
        return Handed.DROPPED

    source = entries(post).source(Sink(take, lambda: ends.append("stored")), ALL)
    post.shelf.put("a", b"0")
    await source.open()
    for number in range(1, 10):
        if number % 3 == 0:
            await lose_and_regain(post)
        post.shelf.put("a", b"%d" % number)
        with trio.fail_after(5):
            while len(seen) <= number:
                await source.step()
    source.close()
    assert seen == [b"%d" % number for number in range(10)]
    assert (ends, source.resets) == (["stored"], 3)


async def test_a_watcher_watches_over_it(post: Post) -> None:
    for subject, data in (("a", b"old"), ("b", b"1"), ("c", b"skipped"), ("a", b"new")):
        post.shelf.put(subject, data)
    async with trio.open_nursery() as nursery:
        async with watching(nursery, entries(post), LAST_PER_SUBJECT, "fail") as rx:
            assert list(post.feeds) == [rx]
            assert await rx.snapshot() == [("b", b"1"), ("a", b"new")]
            post.shelf.put("d", b"2")
            assert await rx.receive() == ("d", b"2")
            await lose_and_regain(post)
            post.shelf.put("e", b"3")
            with trio.fail_after(5):
                assert await rx.receive() == ("e", b"3")
            rx.stop()
            assert [entry async for entry in rx] == []


@pytest.mark.parametrize("reason", [None, errors.ConnectionClosedError()], ids=["closed", "lost"])
async def test_a_watcher_over_it_ends_with_the_connection(post: Post, reason: errors.Error | None) -> None:
    async with trio.open_nursery() as nursery, watching(nursery, entries(post), ALL, "fail") as rx:
        post.shelf.put("a", b"buffered")
        for receiver in list(post.receivers.values()):
            receiver.ended(reason)
        assert await rx.receive() == ("a", b"buffered")
        with pytest.raises(trio.EndOfChannel if reason is None else errors.ConnectionClosedError):
            await rx.receive()


async def test_a_watcher_over_it_fails_when_its_asking_is_refused(post: Post) -> None:
    async with trio.open_nursery() as nursery, watching(nursery, entries(post), ALL, "fail") as rx:
        [(listener, subject)] = post.listeners.items()
        known = {"operation": "publish", "subject": subject, "queue": None}
        refused = errors.explained(errors.PermissionsViolationError, "refused", **known)
        listener.push(events.PermissionViolation(refused))
        with pytest.raises(errors.PermissionsViolationError, match="refused"):
            await rx.receive()
