"""What programs do with a client: publish, flush, close; and what they do wrong with it."""

from __future__ import annotations

import logging
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import nats.aio.client
import pytest
import trio
import trio.testing

import trionats
from tests.fakes import FakeServer
from tests.leaks import held, leaks, told_by
from tests.worlds import (
    HOUR,
    Receiver,
    assert_nothing_left,
    connected,
    hold_back,
    kept,
    lose,
    open_bucket,
    open_world,
    publish_forced,
    regain,
    run,
    seam,
    settled,
    stuck,
    subscribed,
    takes,
)
from trionats import bridge, errors, events, open_client, open_events, open_replies, open_subscription

pytestmark = pytest.mark.usefixtures("autojump_clock")


# -- misuse ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("servers", "options", "error", "text"),
    [
        ("nats://a", {"timeoutt": 3, "namee": "x"}, TypeError, "'namee': did you mean 'name'.; 'timeoutt'"),
        ("nats://a", {"conect_timeout": 3}, TypeError, r"'conect_timeout': did you mean 'connect_timeout'\?$"),
        (
            "nats://a",
            {"timeout": 3},
            TypeError,
            "no option 'timeout': deadlines are cancel scopes: with trio.fail_after",
        ),
        ("nats://a", {"error_cb": print}, TypeError, "no option 'error_cb': use open_events$"),
        ("nats://a", {"disconnected_cb": print}, TypeError, "use open_events$"),
        ("nats://a", {"flush_timeout": 3}, TypeError, "deadlines are cancel scopes"),
        ("nats://a", {"reconnect_to_server_handler": print}, TypeError, "use pick_server"),
        ("nats://a", {"qqq": 3}, TypeError, "no option 'qqq'$"),
        ("nats://a", {"context": 5}, TypeError, "context must be the name of a nats context, or True, not int"),
        ("nats://a", {"close_timeout": None}, TypeError, "close_timeout"),
        ("nats://a", {"close_timeout": -1}, ValueError, "close_timeout"),
        ("nats://a", {"connect_timeout": "2"}, TypeError, "connect_timeout"),
        ("nats://a", {"request_timeout": float("nan")}, ValueError, "request_timeout"),
        ("nats://a", {"drain_timeout": -0.5}, ValueError, "drain_timeout"),
        ("nats://a", {"ping_interval": 0}, ValueError, "ping_interval"),
        ("nats://a", {"max_outstanding_pings": 0}, ValueError, "max_outstanding_pings"),
        ("nats://a", {"max_reconnect_attempts": 1.5}, TypeError, "max_reconnect_attempts"),
        ("nats://a", {"pending_size": "2 MiB"}, TypeError, "pending_size"),
        ("nats://a", {"reconnect_time_wait": True}, TypeError, "reconnect_time_wait"),
        ("nats://a", {"reconnect_time_wait": -1}, ValueError, "reconnect_time_wait"),
        ("nats://a", {"inbox_prefix": None}, TypeError, "inbox prefix"),
        ("nats://a", {"inbox_prefix": "a b"}, errors.BadSubjectError, "a b"),
        ("nats://a", {"name": 5}, TypeError, "name"),
        ("nats://a", {"tls": "yes"}, TypeError, "tls"),
        ("nats://a", {"dial": 5}, TypeError, "dial"),
        ("nats://a", {"rng": 5}, TypeError, "rng"),
        ("http://a", {}, ValueError, "the scheme 'http' is none of nats, tls, ws, wss"),
        ("nats://u:secret@:x", {}, ValueError, "nats"),
        ([], {}, ValueError, "server"),
        *(
            (servers, {}, TypeError, "must be a URL")
            for servers in (None, 5, b"nats://u:secret@h", [None], ["nats://h", 3], [b"nats://u:secret@h"])
        ),
    ],
)
async def test_bad_options(servers: Any, options: dict[str, Any], error: type[Exception], text: str) -> None:  # noqa: ANN401 - wrong on purpose
    """Named, not shown, and found before anything is begun."""
    server = FakeServer()
    async with trio.open_nursery() as nursery:
        with pytest.raises(error, match=text) as caught:
            async with open_client(nursery, servers, **{"dial": server.dial, **options}):
                pytest.fail("it was opened")
        assert "secret" not in str(caught.value)
        assert not nursery.child_tasks
    assert server.dialled == []


async def test_not_with_and_not_await() -> None:
    """What reads from a client is in tests/test_promise.py, but for its events."""
    async with open_world() as (_, nc, nursery):
        before = set(nursery.child_tasks)
        for name, opening in (("open_client", open_client(nursery)), ("open_events", open_events(nursery, nc))):
            with pytest.raises(TypeError, match=rf"{name}\(\) is entered with 'async with', not with 'with'"):
                with opening:
                    pass
            with pytest.raises(TypeError, match=rf"{name}\(\) is entered with 'async with', it cannot be awaited"):
                await opening
        remedy = r"open_client\(\) gives an async context manager: async with open_client\(...\) as nc"
        with pytest.raises(AttributeError, match=f"{remedy}: 'publish'"):
            await open_client(nursery).publish("a")  # type: ignore[attr-defined,unused-ignore]
        with pytest.raises(TypeError, match=remedy):
            async for _ in open_client(nursery):
                pass
        with pytest.raises(AttributeError, match=r"async with open_events\(...\) as rx: 'receive'"):
            open_events(nursery, nc).receive  # type: ignore[attr-defined,unused-ignore]  # noqa: B018
        assert not hasattr(open_client(nursery), "publish")
        assert set(nursery.child_tasks) == before


async def test_whatever_opens_says_that_a_deadline_is_no_argument() -> None:
    async with open_world() as (_, nc, nursery):
        wrong: Any = {"timeout": 1}
        calls: list[Callable[[], Any]] = [
            lambda: open_subscription(nursery, nc, "a", **wrong),
            lambda: trionats.open_service(nursery, nc, "a", "1.0.0", **wrong),
            lambda: trionats.open_ingest(nursery, nc.jetstream(), **wrong),
            lambda: nc.jetstream().open_batch(**wrong),
        ]
        for call in calls:
            with pytest.raises(
                TypeError, match=r"open_\w+\(\) takes no timeout: deadlines are cancel scopes, as in `with trio"
            ):
                call()
        with pytest.raises(TypeError, match=r"open_events\(\) has no option 'timeuot'"):
            open_events(nursery, nc, timeuot=1)  # type: ignore[call-arg,unused-ignore]


async def test_nurseries_that_cannot_be_used() -> None:
    other = FakeServer()
    async with open_world() as (_, nc, _nursery):
        async with trio.open_nursery() as closed:
            pass
        wrong: Any = "nats://a"
        openers: list[Callable[[trio.Nursery], Any]] = [
            lambda nursery: open_client(nursery, dial=other.dial),
            lambda nursery: open_events(nursery, nc),
        ]
        for opener in openers:
            with pytest.raises(RuntimeError, match=r"nursery .*is closed"):
                await opener(closed).__aenter__()
            with pytest.raises(TypeError, match=r"must be a trio\.Nursery, not str"):
                await opener(wrong).__aenter__()
        assert_nothing_left(nc)
    assert other.dialled == []


@pytest.mark.trio(run=trio.run)  # on the real clock, as the thread is
async def test_a_nursery_of_another_run() -> None:
    async with trio.open_nursery() as outer:

        async def other() -> None:
            with pytest.raises(RuntimeError, match="another Trio run"):
                async with open_client(outer, dial=FakeServer().dial):
                    pass

        await trio.to_thread.run_sync(trio.run, other)
        assert not outer.child_tasks


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"subject": "a b"}, errors.BadSubjectError, "'a b'"),
        ({"subject": "a..b"}, errors.BadSubjectError, r"'a\.\.b'"),
        ({"subject": ""}, errors.BadSubjectError, "''"),
        ({"subject": "a.*"}, errors.BadSubjectError, "wildcard"),
        ({"subject": "a\r\nPUB b 0\r\n"}, errors.BadSubjectError, "(publish|request) to"),
        ({"reply": "b c"}, errors.BadSubjectError, "'b c'"),
        ({"headers": {"A": "b\r\nC: d"}}, errors.BadHeaderError, "A"),
        ({"headers": {"A B": "c"}}, errors.BadHeaderError, "A B"),
        ({"headers": {"a:": "b"}}, errors.BadHeaderError, "a:"),
        ({"payload": "text"}, TypeError, "to 'a': the payload must be bytes, not str"),
        ({"payload": bytes(101)}, errors.MaxPayloadError, "101 bytes of headers and payload, the server takes 100"),
        ({"payload": bytes(90), "headers": {"A": "b"}}, errors.MaxPayloadError, "'a'"),
    ],
)
async def test_bad_publishes(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """And requests, which are publishes: nothing is sent, and nothing is left."""
    async with open_world(FakeServer(info={"max_payload": 100})) as (server, nc, _):
        await settled()
        sent = len(server.link.received)
        arguments = {"subject": "a", **options}
        for kind in ["publish"] if "reply" in options else ["publish", "request"]:
            with pytest.raises(error, match=text):
                await getattr(nc, kind)(**arguments)
            with pytest.raises(error, match=text):
                getattr(nc, f"{kind}_nowait")(**arguments)
        await settled()
        assert len(server.link.received) == sent
        assert_nothing_left(nc)
        assert nc.is_connected
        assert (nc.statistics().out_msgs, nc.statistics().outbox_bytes) == (0, 0)


async def test_what_is_opened_from_something_wrong_is_a_clear_error() -> None:
    theirs: Any = nats.aio.client.Client()
    wrong: Any = 5
    its_class: Any = trionats.Client
    async with open_world() as (_, nc, nursery):
        ours: Any = nc
        for opening, text in (
            (open_subscription(nursery, wrong, "a"), "nc must be a Client, not int"),
            (open_events(nursery, wrong), "nc must be a Client, not int"),
            (open_replies(nursery, wrong, "a"), "nc must be a Client, not int"),
            (open_subscription(nursery, its_class, "a"), "nc must be a Client, not type"),
            (open_events(nursery, its_class), "nc must be a Client, not type"),
            (open_subscription(nursery, theirs, "a"), "nc must be a Client, not nats-py's, for which there is"),
            (
                bridge.open_pull_subscription(nursery, ours),
                "psub must be what nats-py's pull_subscribe gives, not Client",
            ),
        ):
            with pytest.raises(TypeError, match=text):
                async with opening:
                    pytest.fail("it was opened")


async def test_objects_of_something_wrong_are_a_clear_error() -> None:
    wrong: Any = 5
    async with open_bucket() as (_, store, _nc, _nursery):
        for call in (store.put(wrong, b""), store.get(wrong), store.get_info(wrong), store.delete(wrong)):
            with pytest.raises(TypeError, match="object name 5 for bucket 'b': it must be text"):
                await call
        with pytest.raises(TypeError, match="meta must be an ObjectMeta, not int"):
            await store.put("a", b"", wrong)


# -- publishing --------------------------------------------------------------------------------------------------------


async def test_publishing() -> None:
    server = FakeServer(info={"max_payload": 100})
    async with connected(server) as nc:
        await nc.publish("a", b"1")
        await nc.publish("a", bytearray(b"2"), reply="back")
        nc.publish_nowait("a", memoryview(b"3"), headers={"K": ["v", "w"]})
        await nc.publish("a", bytes(100))
        await nc.publish("a", bytes(100 - len(b"NATS/1.0\r\nA: b\r\n\r\n")), headers={"A": "b"})
        await nc.flush()
        frames = [frame for frame in server.frames if frame.verb.endswith("PUB")]
        first = [("PUB", "", b"1"), ("PUB", "back", b"2"), ("HPUB", "", b"3")]
        assert [(f.verb, f.reply, f.payload) for f in frames[:3]] == first
        assert frames[2].headers == b"NATS/1.0\r\nK: v\r\nK: w\r\n\r\n"
        statistics = nc.statistics()
        assert (statistics.out_msgs, statistics.outbox_bytes) == (5, 0)
        assert statistics.out_bytes == sum(len(f.headers) + len(f.payload) for f in frames)


class Liar(bytes):
    """Bytes with a length of their own mind."""

    def __len__(self) -> int:
        return 2

    def __bytes__(self) -> bytes:
        return b"something else"


class LiarArray(bytearray):
    """The same, of the other kind."""

    def __len__(self) -> int:
        return 2


class Text(str):
    """Text that shows itself in another way."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"not this\r\n"

    def __str__(self) -> str:
        return "nor this\r\n"

    def __format__(self, _: str) -> str:
        return "nor this\r\n"

    def isprintable(self) -> bool:
        return True


@pytest.mark.parametrize(
    "payload",
    [
        Liar(b"longer than two"),
        LiarArray(b"longer than two"),
        memoryview(Liar(b"longer than two")),
        memoryview(bytes(range(16))).cast("I"),
        memoryview(bytes(range(16)))[::2],
        memoryview(bytes(range(16))).cast("B", (4, 4)),
        memoryview(b"abcd").cast("c"),
        memoryview(b"a").cast("B", ()),
        memoryview(b""),
    ],
    ids=range(9),
)
async def test_what_is_sent_is_what_is_counted(payload: Any) -> None:  # noqa: ANN401 - as wrong as can be
    async with open_world() as (server, nc, nursery), open_subscription(nursery, nc, "in") as rx:
        server.on("s", lambda _: None)
        await nc.publish("s", payload)
        nc.publish_nowait("s", payload)
        await nc.publish("s", payload, headers={"A": Text("b"), "C": [Text("d")]})
        await nc.publish("s", payload, Text("back"))
        await nc.publish("in", reply="s")
        await (await rx.receive()).respond(payload)
        for ask in (nc.request, nc.request_many):
            with trio.move_on_after(1):
                await ask(Text("s"), payload)
        await nc.flush()
        frames = [frame for frame in server.frames if frame.verb.endswith("PUB") and frame.subject == "s"]
        assert [frame.payload for frame in frames] == [memoryview(payload).tobytes()] * 7
        assert frames[2].headers == b"NATS/1.0\r\nA: b\r\nC: d\r\n\r\n"
        assert frames[3].reply == "back"
        assert nc.is_connected


async def test_text_of_another_mind_is_what_it_is() -> None:
    async with open_world(inbox_prefix=Text("_IN")) as (server, nc, nursery):
        server.on("ask", lambda _: None)
        async with open_subscription(nursery, nc, Text("sub"), queue=Text("group")):
            with trio.move_on_after(1):
                await nc.request(Text("ask"))
            with pytest.raises(errors.BadHeaderError, match="no line ends"):
                await nc.publish("s", headers={"A": Text("b\r\nC: d")})
            await nc.flush()
        subs = [frame.arguments for frame in server.sent("SUB")]
        assert subs[0][:2] == ("sub", "group")
        assert subs[1][0].startswith("_IN.")


async def test_many_subjects_are_not_remembered_for_ever() -> None:
    async with open_world() as (server, nc, _):
        for number in range(10_000):
            nc.publish_nowait(f"s.{number}", b"x")
        await nc.flush()
        assert [frame.subject for frame in server.sent("PUB")] == [f"s.{number}" for number in range(10_000)]
        server.frames.clear()
        assert max(len(each) for each in held(nc) if isinstance(each, dict)) <= 4096


async def test_max_payload_follows_info() -> None:
    async with open_world(FakeServer(info={"max_payload": 100})) as (server, nc, _):
        await nc.publish("a", bytes(100))
        server.inject(b'INFO {"max_payload":10}\r\n')
        await nc.flush()
        assert nc.max_payload == 10
        with pytest.raises(errors.MaxPayloadError):
            await nc.publish("a", bytes(11))
        server.inject(b'INFO {"max_payload":5000}\r\n')
        await nc.flush()
        server.info["max_payload"] = 5000
        for size in (4095, 4096, 5000):
            await nc.publish("a", bytes(size))
        with pytest.raises(errors.MaxPayloadError):
            await nc.publish("a", bytes(5001))
        await nc.flush()


async def test_publish_waits_above_the_mark_and_goes_on() -> None:
    done: list[int] = []
    writable = []
    async with open_world(pending_size=1000) as (server, nc, _):
        await hold_back(server, nc)

        async def publish(number: int) -> None:
            await nc.publish("a", b"%d" % number + bytes(400))
            done.append(number)

        async def wait_writable() -> None:
            await nc.wait_writable()
            writable.append(nc.statistics().outbox_bytes)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(publish, number)
                await settled()
            assert done == [0, 1, 2]
            with pytest.raises(trio.WouldBlock):
                nc.publish_nowait("a", b"x")
            publish_forced(nc, "goodbye", b"x")
            nursery.start_soon(wait_writable)
            await settled()
            assert writable == []
            server.link.resume()
        assert sorted(done) == list(range(10))
        assert writable
        assert writable[0] < 1000
        await nc.wait_writable()
        await nc.flush()
        assert len(server.sent("PUB", "a")) == 10


async def test_a_cancelled_publish_is_queued_whole_or_not_at_all() -> None:
    async with open_world(FakeServer(sip=1), pending_size=100) as (server, nc, _):
        await hold_back(server, nc, 200)
        with trio.move_on_after(1) as scope:
            await nc.publish("b", b"never")
        assert scope.cancelled_caught
        server.link.resume()
        await nc.flush()
        assert [frame.subject for frame in server.sent("PUB")] == ["in.hand", "waits"]


async def test_disconnected_and_full() -> None:
    async with open_world(pending_size=1000) as (server, nc, _):
        await lose(server, nc)
        await nc.publish("a", bytes(990))
        for call in (nc.publish("a", b"x"), nc.request("a"), nc.wait_writable()):
            with pytest.raises(errors.OutboundBufferLimitError, match="bytes wait for a connection"):
                await call
        with pytest.raises(errors.OutboundBufferLimitError):
            nc.publish_nowait("a", b"x")
        await regain(server, nc)
        assert [len(frame.payload) for frame in server.sent("PUB", "a")] == [990]


@pytest.mark.parametrize("what", ["the connection is lost", "the client is closed"])
async def test_blocked_publishers_wake_when(what: str) -> None:
    """Also those for whom the goodbye makes room: a closed client takes nothing more."""
    error = errors.OutboundBufferLimitError if what == "the connection is lost" else errors.ConnectionClosedError
    async with open_world(pending_size=1000) as (server, nc, _):
        await hold_back(server, nc, 2000)

        async def publish() -> None:
            with pytest.raises(error, match=what if what == "the client is closed" else None):
                await nc.publish("late", b"x")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await settled()
            if what == "the connection is lost":
                await lose(server, nc)
                server.accepting = True
            else:
                nursery.start_soon(nc.aclose)
                await settled()
                server.link.resume()
    assert [frame.subject for frame in server.sent("PUB")] == (["in.hand", "waits"] if "closed" in what else [])


# -- flush and round trip ------------------------------------------------------------------------------------------------


async def test_a_flush_stands_behind_all_that_was_queued() -> None:
    async with open_world(FakeServer(sip=4)) as (server, nc, nursery):
        for count in (1, 50):
            await nc.flush()
            before = len(server.frames)
            for _ in range(count):
                nc.publish_nowait("a", b"x")
            async with open_subscription(nursery, nc, "b"):
                await nc.flush()
                assert [frame.verb for frame in server.frames[before:]] == ["PUB"] * count + ["SUB", "PING"]


async def test_the_round_trip_is_measured() -> None:
    async with open_world() as (server, nc, nursery):
        assert await nc.rtt() == 0.0
        server.mute = {"PING"}

        async def answer() -> None:
            await trio.sleep(0.25)
            server.inject(b"PONG\r\n")

        nursery.start_soon(answer)
        assert await nc.rtt() == pytest.approx(0.25)
        server.mute = set()


async def test_flush_fails_with_the_connection_and_is_not_answered_by_the_next() -> None:
    failed: list[int] = []
    async with open_world() as (server, nc, _):
        server.mute = {"PING"}

        async def flush() -> None:
            with pytest.raises(errors.DisconnectedError, match="the connection was lost before the server answered"):
                await nc.flush()
            failed.append(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            nursery.start_soon(flush)
            await settled()
            server.mute = set()
            server.cut()
        assert len(failed) == 2
        await nc.flush()  # waits for the next connection
        assert nc.statistics().reconnects == 1


async def test_each_flush_waits_for_its_own_answer_also_behind_one_that_was_cancelled() -> None:
    ended: list[str] = []
    async with open_world() as (server, nc, nursery):

        async def flush(name: str) -> None:
            await nc.flush()
            ended.append(name)

        server.mute = {"PING"}
        with trio.move_on_after(1):
            await nc.flush()
        for name in ("first", "second"):
            nursery.start_soon(flush, name)
            await settled()
        for answered in ([], ["first"], ["first", "second"]):
            server.inject(b"PONG\r\n")
            await settled()
            assert ended == answered
        server.mute = set()


# -- closing -----------------------------------------------------------------------------------------------------------


async def test_the_goodbye() -> None:
    async with open_world() as (server, nc, nursery):
        async with open_subscription(nursery, nc, "a"):
            nc.publish_nowait("last", b"x")
    assert [frame.verb for frame in server.frames[-4:]] == ["SUB", "PUB", "UNSUB", "PING"]
    assert server.link.closed
    assert nc.is_closed


async def test_closing_again_and_at_once() -> None:
    async with open_world() as (_, nc, nursery):
        for _again in range(5):
            nursery.start_soon(nc.aclose)
        with trio.CancelScope() as scope:
            scope.cancel()
            await nc.aclose()
        await nc.aclose()
        assert nc.is_closed
        assert repr(nc) == "<Client closed >"


@pytest.mark.parametrize("state", ["waiting", "dialling", "INFO", "PONG"])
async def test_closing_during_a_reconnect_waits_for_nothing(state: str) -> None:
    server = FakeServer()
    silent, _peer = trio.testing.memory_stream_pair()

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return silent if server.links and state == "INFO" else await server.dial(host, port)

    wait = HOUR if state == "waiting" else 0.0
    async with open_world(server, dial=dial, connect_timeout=HOUR, reconnect_time_wait=wait) as (_, nc, _nursery):
        if state == "dialling":
            server.dials = ["hang"]
        elif state == "PONG":
            server.mute = {"PING"}
        server.cut()
        await settled()
        assert not nc.is_connected
        with takes(0):
            await nc.aclose()


async def test_leaving_a_feed_after_its_client() -> None:
    server = FakeServer()
    async with trio.open_nursery() as nursery, AsyncExitStack() as feeds:
        async with open_client(nursery, dial=server.dial) as nc:
            rx = await feeds.enter_async_context(open_subscription(nursery, nc, "a"))
            told = await feeds.enter_async_context(open_events(nursery, nc))
            await nc.flush()
        frames = len(server.frames)
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()
        rx.stop()
        told.stop()
    assert len(server.frames) == frames


@pytest.mark.parametrize("place", ["inside", "outside"])
@pytest.mark.parametrize("peer", ["alive", "mute", "stalled", "gone", "never there"])
async def test_a_cancelled_nursery_ends_in_time(place: str, peer: str) -> None:
    """Wherever the block stands and however dead the peer is."""
    server = FakeServer()
    if peer == "never there":
        server.dials = ["hang"] * 10
    ended, left = trio.Event(), trio.Event()

    async def own(task_status: trio.TaskStatus[trio.Nursery]) -> None:
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await trio.Event().wait()
        ended.set()

    async def use(nursery: trio.Nursery) -> None:
        try:
            async with open_client(nursery, dial=server.dial, close_timeout=5, connect_timeout=HOUR) as nc:
                async with open_subscription(nursery, nc, "a"):
                    await nc.flush()
                    if peer == "mute":
                        server.mute = {"PING"}
                    elif peer == "stalled":
                        server.link.stall(up=True, down=True)
                    elif peer == "gone":
                        server.accepting = False
                        server.cut()
                    nc.publish_nowait("last", b"x")
                    await trio.sleep_forever()
        except errors.ConnectionClosedError:
            assert (peer, place) == ("never there", "outside")
        finally:
            left.set()

    async with trio.open_nursery() as outside:
        outside.start_soon(stuck)
        nursery = await outside.start(own)
        (nursery if place == "inside" else outside).start_soon(use, nursery)
        await settled()
        with takes(0, 0 if (peer, place) == ("alive", "inside") else 5):
            nursery.cancel_scope.cancel()
            await ended.wait()
        assert left.is_set() or place == "outside"
        outside.cancel_scope.cancel()
    if peer == "alive" and place == "inside":
        assert [frame.verb for frame in server.frames[-3:]] == ["PUB", "UNSUB", "PING"]


async def test_what_could_not_be_sent_is_told_at_the_end() -> None:
    async with open_world() as (server, nc, nursery), open_events(nursery, nc) as told:
        await lose(server, nc)
        for _ in range(3):
            await nc.publish("a", b"x")
        await nc.aclose()
        assert events.PublishesLost(3) in [event async for event in told]
        assert nc.statistics().outbox_bytes == 0


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["deliver", "dial", "send", "a feed's hook"])
def test_ctrl_c_goes_to_the_main_task_and_the_goodbye_is_sent(where: str) -> None:
    """Wherever the signal arrives, in our tasks too."""
    server = FakeServer()
    armed = True

    def strike(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            signal.raise_signal(signal.SIGINT)

    async def dial(host: str, port: int) -> trio.abc.Stream:
        if where == "dial":
            strike()
        return await server.dial(host, port)

    async def main() -> None:
        with trio.fail_after(HOUR):
            async with trio.open_nursery() as nursery, open_client(nursery, dial=dial) as nc:
                server.on("hit", strike if where == "send" else lambda _: None)
                seam(nc).attach("me", Receiver(strike))
                async with open_subscription(nursery, nc, "me"):
                    await nc.flush()
                    nc.publish_nowait("hit")
                    if where == "deliver":
                        server.publish("me")
                    elif where == "a feed's hook":
                        trio.lowlevel.current_trio_token().run_sync_soon(strike)
                    await trio.sleep_forever()

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:  # noqa: ASYNC401 - either, by where it strikes
        run(main)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        assert len(error.exceptions) == 1
        error = error.exceptions[0]
    assert isinstance(error, KeyboardInterrupt)
    if where != "dial":
        assert [frame.verb for frame in server.frames[-2:]] == ["UNSUB", "PING"]
        server.check()


# -- introspection -----------------------------------------------------------------------------------------------------


async def test_what_the_server_says() -> None:
    server = FakeServer(info={"cluster": "C", "client_id": 7, "client_ip": "1.2.3.4"})
    async with connected(server) as nc:
        assert (nc.server_id, nc.server_name, nc.server_version) == ("FAKE", "fake", "2.15.1")
        assert (nc.cluster, nc.client_id, nc.client_ip) == ("C", 7, "1.2.3.4")
        nc.server_info["server_id"] = "changed"
        assert nc.server_id == "FAKE"
        assert nc.connected_url == "nats://127.0.0.1:4222"
        assert repr(nc) == "<Client connected nats://127.0.0.1:4222>"
        await lose(server, nc)
        assert "reconnecting" in repr(nc)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({}, (True, True, False, False, False)),
        (
            {"auth_required": True, "acc_is_sys": True, "headers": False, "jetstream": False},
            (False, False, True, False, True),
        ),
        (
            {"headers": "no", "jetstream": 1, "auth_required": [], "acc_is_sys": {}, "tls_required": None},
            (False, False, False, False, False),
        ),
    ],
)
async def test_what_the_server_says_of_itself_may_be_anything(info: dict[str, Any], said: tuple[bool, ...]) -> None:
    async with connected(FakeServer(info=info)) as nc:
        can = (nc.headers_supported, nc.jetstream_enabled)
        assert (*can, nc.auth_required, nc.tls_required, nc.is_system_account) == said


async def test_names_repeat_with_the_seed() -> None:
    names = []
    for _ in range(2):
        async with connected(FakeServer(), rng=random.Random(5)) as nc:
            names.append((nc.new_inbox(), seam(nc).new_token()))
    assert names[0] == names[1]
    assert names[0][0].startswith("_INBOX.")


@pytest.mark.parametrize(
    ("servers", "options"),
    [
        ("nats://v1ctor:hunter2@fake", {}),
        ("nats://t0ken@fake", {}),
        ("nats://fake", {"user": "v1ctor", "password": "hunter2"}),
        ("nats://fake", {"token": "t0ken"}),
    ],
)
@pytest.mark.parametrize("welcome", [True, False])
async def test_secrets_show_nowhere(
    caplog: pytest.LogCaptureFixture, servers: str, options: dict[str, Any], welcome: bool
) -> None:
    """Nor in what any object of ours says of itself."""
    caplog.set_level(logging.DEBUG)
    server = FakeServer(authorize=lambda _: None if welcome else "Authorization Violation")
    texts: list[tuple[str, str]] = []
    async with trio.open_nursery() as nursery:
        try:
            async with open_client(nursery, servers, dial=server.dial, max_reconnect_attempts=1, **options) as nc:
                async with open_events(nursery, nc) as told:
                    texts += told_by(nc)
                    assert {"Client", "Supervisor", "Engine", "Server"} <= {kind for kind, _ in texts}
                    server.authorize = lambda _: "Authorization Violation"
                    server.cut()
                    texts += [("event", repr(event)) async for event in told]
        except errors.Error as error:
            texts += [("error", str(error)), ("error", repr(error)), ("cause", repr(error.__cause__))]
    credentials = server.links[0].options
    secrets = ["hunter2", "t0ken", "v1ctor"]
    assert set(secrets) & {credentials.get("user"), credentials.get("pass"), credentials.get("auth_token")}
    assert [leaks(secret, *texts, ("log", caplog.text)) for secret in secrets] == [[], [], []]


async def test_nothing_is_logged_in_normal_operation(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as (server, nc, nursery), open_subscription(nursery, nc, "a") as rx:
        server.on("echo", lambda frame: frame.payload)
        await nc.request("echo")
        await nc.flush()
        for _ in range(1000):
            server.publish("a", b"x")
        await rx.receive()
        with trio.move_on_after(0):
            await nc.request("echo")
        await lose(server, nc)
        await regain(server, nc)
        server.inject(b"MSG gone 999 1\r\nx\r\n")
        nursery.cancel_scope.cancel()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_public_names_are_there() -> None:
    assert {"Client", "open_client", "open_subscription", "open_events"} <= set(trionats.__all__)


@pytest.mark.trio(run=trio.run)  # on the real clock, as the thread is
async def test_a_call_from_another_thread_does_not_put_the_writer_to_sleep_for_good() -> None:
    async with connected(FakeServer()) as nc:
        await settled()
        with pytest.raises(RuntimeError):
            await trio.to_thread.run_sync(nc.publish_nowait, "a")
        with trio.fail_after(5):
            await nc.flush()


@pytest.mark.trio(run=trio.run)  # on the real clock, as the thread is
async def test_calls_from_another_run_while_the_client_is_busy_change_nothing() -> None:
    """The writer needs no waking then, and the last trip through the scheduler was a moment ago."""
    async with subscribed(waiting=[b"1"]) as (server, nc, rx):
        await hold_back(server, nc)
        before = kept(nc)
        for call in (
            lambda: nc.publish("s", b"x"),
            rx.receive,
            trio_wrapped(lambda: nc.publish_nowait("s", b"x")),
            trio_wrapped(rx.receive_nowait),
        ):
            seam(nc).pace.due, seam(nc).pace.left = float("inf"), 1000
            with pytest.raises(RuntimeError, match=r"was called"):
                await trio.to_thread.run_sync(trio.run, call)
            assert kept(nc) == before
        seam(nc).pace.left = 0
        server.link.resume()
        assert (await rx.receive()).data == b"1"


def trio_wrapped(call: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def wrapped() -> object:
        await trio.lowlevel.checkpoint()
        return call()

    return wrapped
