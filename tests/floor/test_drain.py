"""Draining a subscription and a client, and the barrier: what is on its way arrives, consumers finish, nothing waits for ever."""
# ruff: noqa: ANN401 - options of a client, and calls of any kind

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio

import trionats
from tests.cancelling import Cut, cancel_everywhere
from tests.fakes import FakeServer
from tests.worlds import (
    busy_tasks,
    consume,
    cut_short,
    deliver,
    elsewhere,
    hold_back,
    lose,
    open_bucket,
    open_world,
    payloads,
    publish_forced,
    regain,
    run,
    seam,
    settled,
    subscribed,
    takes,
)
from trionats import Client, Msg, Subscription, errors, events
from trionats._core.barrier import wait_barrier
from trionats._core.drain import LEAST_PATIENCE, LOOK_SECONDS
from trionats._feeds.feed import Feed

pytestmark = pytest.mark.usefixtures("autojump_clock")

ZERO_TO_TWO = [b"0", b"1", b"2"]
SILENT = {"PING", "SUB", "UNSUB", "PUB"}


def verbs(server: FakeServer) -> list[str]:
    return [frame.verb for frame in server.frames]


async def arrive(server: FakeServer, count: int = 3, *, reply: str = "") -> None:
    """Let so many messages come, and be read."""
    publish(server, count, reply=reply)
    await settled()


def publish(server: FakeServer, count: int = 3, *, reply: str = "") -> None:
    for number in range(count):
        server.publish("a", b"%d" % number, reply=reply)


class Working(NamedTuple):
    """A subscription "a", and those who work on what comes."""

    server: FakeServer
    nc: Client
    rx: Subscription
    seen: list[bytes]
    workers: trio.Nursery


@asynccontextmanager
async def working(
    work: Callable[[Msg], Awaitable[object]] | None = None,
    *,
    readers: int = 1,
    server: FakeServer | None = None,
    **options: Any,
) -> AsyncIterator[Working]:
    """Let consumers do some work with each message, or have others start them; what they were given is noted behind it."""
    seen: list[bytes] = []
    async with subscribed("a", server, options) as (fake, nc, rx), trio.open_nursery() as workers:
        for _ in range(readers):
            workers.start_soon(consume, rx, seen, work)
        await settled()
        yield Working(fake, nc, rx, seen, workers)
        rx.stop()


def for_seconds(seconds: float, reply: bytes = b"") -> Callable[[Msg], Awaitable[None]]:
    """Work that takes so long, and ends with an answer where one is wanted."""

    async def work(msg: Msg) -> None:
        await trio.sleep(seconds)
        if reply:
            await msg.respond(reply)

    return work


# -- one subscription ----------------------------------------------------------------------------------------------------


async def test_what_the_server_sent_before_it_knew_is_received() -> None:
    async with subscribed() as (server, _, rx):
        server.publish("a", b"1")
        server.link.stall(up=True)
        rx.drain_nowait()
        # The UNSUB is on its way, and so is this.
        server.publish("a", b"2")
        await settled()
        assert len(rx) == 2
        server.link.resume()
        await rx.drain()
        assert server.publish("a", b"3") == 0
        assert await rx.wait_ended() is None
        assert await payloads(rx) == [b"1", b"2"]
    assert verbs(server).count("UNSUB") == 1


async def test_the_ping_stands_behind_the_unsub() -> None:
    async with subscribed() as (server, nc, rx):
        await nc.publish("b")
        await rx.drain()
        assert verbs(server)[-4:] == ["PING", "PUB", "UNSUB", "PING"]
        await rx.drain()
        assert verbs(server)[-1] == "PING"
        assert verbs(server).count("UNSUB") == 1


async def test_drained_from_inside_its_loop_and_twice_at_once() -> None:
    seen = []
    async with subscribed() as (server, _, rx):
        publish(server)
        with trio.fail_after(2):
            async for msg in rx:
                seen.append(msg.data)
                async with trio.open_nursery() as both:
                    both.start_soon(rx.drain)
                    both.start_soon(rx.drain)
    assert seen == ZERO_TO_TWO


@pytest.mark.parametrize("what", ["subscription", "client"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_without_its_connection_it_ends_at_once_and_is_not_replayed(when: str, what: str) -> None:
    async with subscribed() as (server, nc, rx):
        drained = rx if what == "subscription" else nc
        await arrive(server, 1)
        if when == "meanwhile":
            server.mute = {"PING"} if what == "subscription" else set()
            drained.drain_nowait()
            await settled()
            server.mute.clear()
        await lose(server, nc)
        with takes(0):
            await drained.drain()
            assert await payloads(rx) == [b"0"]
        assert nc.is_closed == (what == "client")
        if what == "subscription":
            await regain(server, nc)
            assert not server.subscriptions


async def test_a_silent_server_is_not_waited_for_longer_than_for_a_request() -> None:
    async with subscribed(client={"close_timeout": 0.1}) as (server, _, rx):
        server.mute.add("PING")
        with takes(5), pytest.raises(errors.TimeoutError, match="drain of subscription 'a'"):
            await rx.drain()
        await cut_short(rx.drain)


async def test_the_agreed_number_comes_before_the_pong() -> None:
    async with subscribed(max_msgs=1) as (server, _, rx):
        server.publish("a", b"1")
        await rx.drain()
        assert await payloads(rx) == [b"1"]


async def test_stop_in_contrast_takes_nothing_more() -> None:
    async with subscribed() as (server, _, rx):
        rx.stop()
        server.publish("a", b"late")
        await rx.drain()
        assert await payloads(rx) == []


def test_draining_a_subscription_cancelled_anywhere() -> None:
    async def scenario(cut: Cut) -> None:
        async with subscribed(server=FakeServer(sip=3)) as (server, nc, rx):
            await arrive(server, 1)
            await cut(rx.drain)
            if cut.way == "already":
                assert "UNSUB" not in verbs(server)
                rx.stop()
            # What was begun goes on by itself.
            assert await payloads(rx) == [b"0"]
            await nc.flush()
            assert not server.subscriptions

    cancel_everywhere(scenario)


# -- the client ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("readers", "seconds"), [(1, 3), (3, 1)])
async def test_consumers_finish_and_may_publish_and_ask(readers: int, seconds: float) -> None:
    """Though nothing is buffered any more, where each of them has one."""

    async def work(msg: Msg) -> None:
        await trio.sleep(1)
        await msg.respond((await nc.request("where")).data)

    async with working(work, readers=readers) as (server, nc, rx, seen, _workers):
        server.on("where", lambda _: b"there")
        await arrive(server, reply="back")
        assert len(rx) == 3 - readers
        with takes(seconds, seconds + 0.01):
            await nc.drain()
        assert nc.is_closed
    assert sorted(seen) == ZERO_TO_TWO
    assert [frame.payload for frame in server.sent("PUB", "back")] == [b"there"] * 3


async def test_all_subscriptions_first_and_the_inbox_of_requests_last() -> None:
    async with open_world() as (server, nc, nursery):
        server.on("ask", lambda _: b"answer")
        await nc.request("ask")
        async with (
            trionats.open_subscription(nursery, nc, "a"),
            trionats.open_subscription(nursery, nc, "b"),
            trionats.open_events(nursery, nc) as happened,
        ):
            await nc.flush()
            before = len(server.frames)
            await nc.drain()
            assert verbs(server)[before:] == ["UNSUB", "UNSUB", "PING", "PING", "UNSUB", "PING"]
            assert [frame.arguments[0] for frame in server.sent("UNSUB")] == ["2", "3", "1"]
            assert [type(event) async for event in happened] == [events.Draining, events.Closed]


async def test_what_is_sent_meanwhile_comes_and_nothing_new_is_taken() -> None:
    async with subscribed() as (server, nc, rx), trio.open_nursery() as nursery:
        await arrive(server, 1)
        nc.drain_nowait()
        nc.drain_nowait()
        with pytest.raises(errors.ConnectionDrainingError, match="'b'"):
            await trionats.open_subscription(nursery, nc, "b").__aenter__()
        server.on("ask", lambda _: b"answer")
        (answer,) = await nc.request_many("ask", max_msgs=1)
        assert answer.data == b"answer"
        await nc.publish("c")
        # From inside the loop: it runs to its end, and then the client is closed.
        async for msg in rx:
            await nc.publish("d", msg.data)
        with trio.fail_after(1):
            await nc.drain()
        assert nc.is_closed
        await nc.drain()
        nc.drain_nowait()
    assert server.sent("PUB", "d")


async def test_a_task_that_drains_is_not_waited_for() -> None:
    seen = []
    async with subscribed() as (server, nc, rx):
        publish(server)
        with trio.fail_after(2):
            async for msg in rx:
                seen.append(msg.data)
                await nc.drain()
        assert nc.is_closed
    assert seen == ZERO_TO_TWO


async def test_twice_at_once_and_from_two_consumers() -> None:
    async def work(msg: Msg) -> None:
        await nc.drain()

    async with (
        working(work) as (server, nc, _, seen, nursery),
        trionats.open_subscription(nursery, nc, "b") as two,
        trio.open_nursery() as workers,
    ):
        workers.start_soon(consume, two, seen, work)
        await nc.flush()
        for subject in ("a", "b", "a", "b"):
            server.publish(subject, subject.encode())
        with trio.fail_after(2):
            await nc.drain()
    assert sorted(seen) == [b"a", b"a", b"b", b"b"]


@pytest.mark.parametrize("reader", ["none", "one that never finishes", "one that raised"])
async def test_it_is_bounded_and_says_what_was_not_drained(reader: str) -> None:
    async def raises(rx: trionats.Feed[Msg]) -> None:
        await rx.receive()
        with pytest.raises(LookupError):
            raise LookupError("mine")

    async def drain() -> None:
        with pytest.raises(errors.DrainTimeoutError, match=r"within 7 s: subscription 'a' \([12] buffered\)"):
            await nc.drain()

    async with working(readers=0, drain_timeout=7) as (server, nc, rx, _, workers):
        if reader == "one that never finishes":
            workers.start_soon(consume, rx, [], for_seconds(1e9))
        elif reader == "one that raised":
            workers.start_soon(raises, rx)
        await arrive(server, 2)
        # Not the task that opened it: that one would know that it does not receive while it waits here.
        with takes(7):
            await elsewhere(drain)
        assert nc.is_closed
        workers.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(8))
def test_a_message_that_its_consumer_was_handed_and_has_not_seen_is_waited_for(seed: int) -> None:
    """The last message and the PONG behind the UNSUB in one read: nothing is buffered, and nobody has come back yet."""

    async def main() -> None:
        async with working(for_seconds(0, b"answer")) as (server, nc, _, seen, _workers):
            server.link.stall(down=True)
            nc.drain_nowait()
            server.publish("a", b"1", reply="answers")
            await settled()
            server.link.resume()
            await nc.drain()
        assert seen == [b"1"]
        assert len(server.sent("PUB", "answers")) == 1

    run(main, seed=seed)


async def test_leaving_the_block_is_finishing() -> None:
    async with open_world() as (server, nc, nursery):

        async def take_one() -> None:
            async with trionats.open_subscription(nursery, nc, "a") as rx:
                await nc.flush()
                await rx.receive()
                await trio.sleep(1)

        nursery.start_soon(take_one)
        await settled()
        await arrive(server, 2)
        with takes(1):
            await nc.drain()


async def test_cancelled_receives_hold_up_no_drain_and_lose_nothing(rng: random.Random) -> None:
    seen: list[int] = []

    async def impatient(rx: trionats.Feed[Msg]) -> None:
        with contextlib.suppress(trio.EndOfChannel):
            while True:
                with trio.move_on_after(rng.choice([0, 0.001, 0.002])):
                    seen.append(int((await rx.receive()).data))

    async with working(readers=0) as (server, nc, rx, _, workers):
        workers.start_soon(impatient, rx)
        for number in range(200):
            server.publish("a", b"%d" % number)
            await trio.sleep(rng.choice([0, 0.001]))
        with trio.fail_after(1):
            await nc.drain()
    assert seen == list(range(200))


async def test_requests_under_way_get_their_answers() -> None:
    replies: list[str] = []
    answers: list[Any] = []
    async with open_world() as (server, nc, nursery):
        server.on("ask", lambda frame: replies.append(frame.reply))

        async def ask() -> None:
            answers.append((await nc.request("ask")).data)

        async def ask_many() -> None:
            answers.append([msg.data for msg in await nc.request_many("ask", max_msgs=1)])

        async def ask_more() -> None:
            async with trionats.open_replies(nursery, nc, "ask", max_msgs=1) as rx:
                answers.append(await payloads(rx))

        async with trio.open_nursery() as askers:
            for kind in (ask, ask_many, ask_more):
                askers.start_soon(kind)
            await settled()
            nc.drain_nowait()
            await trio.sleep(1)
            assert not nc.is_closed
            for reply in replies:
                server.publish(reply, b"late")
            with takes(0, LOOK_SECONDS / 2):
                await nc.drain()
    assert sorted(answers, key=str) == sorted([b"late", [b"late"], [b"late"]], key=str)


async def test_a_request_that_nobody_answers_is_named() -> None:
    async with open_world(drain_timeout=3, request_timeout=60) as (server, nc, _):
        server.on("ask", lambda _: None)
        with nc.request_nowait("ask"), pytest.raises(errors.DrainTimeoutError, match="requests without an answer: 1"):
            await nc.drain()


async def test_what_is_published_last_is_sent() -> None:
    async with open_world(FakeServer(sip=11)) as (server, nc, _):
        for _ in range(1000):
            await nc.publish("a", b"x" * 10)
        await nc.drain()
        with pytest.raises(errors.ConnectionClosedError):
            await nc.publish("a")
    assert len(server.sent("PUB", "a")) == 1000


def test_draining_the_client_cancelled_anywhere() -> None:
    async def scenario(cut: Cut) -> None:
        async with working(for_seconds(0.5), server=FakeServer(sip=5)) as (server, nc, rx, seen, _):
            publish(server)
            await cut(nc.drain)
            if cut.way == "already":
                assert not cut.result
                await nc.flush()
                assert "UNSUB" not in verbs(server)
                assert not nc.is_closed
                rx.stop()
            # Begun, it goes on by itself: all is worked off.
            await rx.wait_ended()
            if cut.way != "already":
                await nc.drain()
                assert nc.is_closed
        assert seen == ZERO_TO_TWO

    cancel_everywhere(scenario)


# -- connections that break ------------------------------------------------------------------------------------------------


async def test_what_waits_for_a_connection_is_sent_by_the_next_one() -> None:
    async with open_world(reconnect_delay=lambda _: 3600.0) as (server, nc, _):
        server.dials = ["refuse"]
        server.cut()
        await settled()
        await nc.publish("b", b"1")
        await trio.sleep(1)
        assert len(server.dialled) == 2, "refused, and the next one would come much later"
        with takes(0):
            await nc.drain()
        assert nc.is_closed
    assert [frame.payload for frame in server.sent("PUB", "b")] == [b"1"]


async def test_what_is_worked_on_when_the_connection_breaks_is_answered_by_the_next_one() -> None:
    async with working(for_seconds(1, b"done"), reconnect_time_wait=4) as (server, nc, _, seen, _workers):
        await arrive(server, reply="back")
        nc.drain_nowait()
        await trio.sleep(0.5)
        server.accepting = False
        server.cut()
        await trio.sleep(5)
        assert seen == ZERO_TO_TWO
        server.accepting = True
        await nc.drain()
        assert nc.is_closed
    assert len(server.sent("PUB", "back")) == 3


async def test_the_next_connection_is_dialled_at_once_when_the_last_one_breaks_meanwhile() -> None:
    patient: dict[str, Any] = {"reconnect_time_wait": 600, "max_reconnect_time_wait": 600}
    async with working(for_seconds(1, b"done"), **patient) as (server, nc, *_):
        await arrive(server, 1, reply="back")
        nc.drain_nowait()
        await trio.sleep(0.5)
        server.cut()
        with takes(0.5, 0.51):
            await nc.drain()
    assert len(server.sent("PUB", "back")) == 1


@pytest.mark.parametrize("when", ["in the last flush", "as soon as the next one stands"])
async def test_what_breaks_with_the_connection_in_the_end_is_told(when: str) -> None:
    async with open_world() as (server, nc, nursery):
        if when == "in the last flush":
            await nc.flush()
            server.link.stall(up=True, down=True)
        else:
            await lose(server, nc)
        for _ in range(5):
            await nc.publish("b", b"x")

        async def cut() -> None:
            await trio.sleep(0.5)
            server.accepting = True
            await nc.wait_connected()
            server.cut()

        nursery.start_soon(cut)
        with pytest.raises(errors.DisconnectedError, match=r"drain: the connection broke, and \d messages"):
            await nc.drain()
        assert nc.is_closed


async def test_it_says_how_far_it_is() -> None:
    async with working(for_seconds(1)) as (server, nc, *_):
        await arrive(server, 1)
        await lose(server, nc)
        await nc.publish("b")
        nc.drain_nowait()
        await settled()
        assert nc.state is events.ConnectionState.DRAINING_SUBS
        await trio.sleep(2)
        assert nc.state.value == events.ConnectionState.DRAINING_PUBS.value
        server.accepting = True
        await nc.drain()


async def test_a_client_that_is_lost_while_it_drains_says_so() -> None:
    async with working(for_seconds(60), allow_reconnect=False) as (server, nc, _, _seen, workers):
        await arrive(server, 1)
        nc.drain_nowait()
        await settled()
        server.cut()
        with takes(0), pytest.raises(errors.ConnectionClosedError, match="drain: the client was lost"):
            await nc.drain()
        workers.cancel_scope.cancel()


async def test_without_any_connection_it_ends_in_time_and_counts_what_was_not_sent() -> None:
    async with subscribed() as (server, nc, rx), trio.open_nursery() as nursery:
        async with trionats.open_events(nursery, nc) as happened:
            await arrive(server, 1)
            await lose(server, nc)
            await nc.publish("b")
            await nc.publish("b")
            text = "not done within 30 s: messages that wait for a connection: 2"
            with takes(30), pytest.raises(errors.ConnectionReconnectingError, match=text):
                await nc.drain()
            assert nc.is_closed
            assert await payloads(rx) == [b"0"]
            assert events.PublishesLost(2) in [event async for event in happened]


@pytest.mark.parametrize("how", ["aclose", "leave", "cancel"])
async def test_an_end_cuts_it_short(how: str) -> None:
    server = FakeServer()
    with takes(0, 0.01):
        async with trio.open_nursery() as background, trionats.open_client(background, dial=server.dial) as nc:
            async with trionats.open_subscription(background, nc, "a") as rx:
                await nc.flush()
                await arrive(server, 1)
                nc.drain_nowait()
                await settled()
                if how == "aclose":
                    await nc.aclose()
                    assert await payloads(rx) == [b"0"]
                elif how == "cancel":
                    background.cancel_scope.cancel()
    assert nc.is_closed
    server.check()


# -- who is waited for ---------------------------------------------------------------------------------------------------


async def take_one(rx: Subscription) -> None:
    await rx.receive()
    await trio.sleep(1)


async def take_one_and_leave(rx: Subscription) -> None:
    await take_one(rx)
    await rx.aclose()
    await trio.sleep(60)


async def close_and_ask(rx: Subscription) -> None:
    await rx.aclose()
    for _ in range(70):  # once through the scheduler at least
        with pytest.raises(trio.ClosedResourceError):
            await rx.receive()
    await trio.sleep(60)


async def poll(rx: Subscription) -> None:
    rx.receive_nowait()
    with pytest.raises(trio.WouldBlock):
        rx.receive_nowait()
    await trio.sleep(60)


@pytest.mark.parametrize(
    ("reader", "what", "seconds"),
    [
        (take_one, "drain", 1),
        (take_one, "barrier", 1),
        (take_one_and_leave, "drain", 1),
        (take_one_and_leave, "barrier", 1),
        (poll, "drain", 0),
        (poll, "barrier", 0),
        (close_and_ask, "drain", 0),
    ],
)
async def test_a_consumer_that_has_done_what_it_will_do_is_not_waited_for(
    reader: Callable[[Subscription], Awaitable[None]], what: str, seconds: float
) -> None:
    """It has ended, left, or found nothing."""
    async with working(readers=0) as (server, nc, rx, _, workers):
        await arrive(server, 1)
        workers.start_soon(reader, rx)
        await settled()
        with takes(seconds, seconds + 2 * LOOK_SECONDS):
            await getattr(nc, what)()
        workers.cancel_scope.cancel()


@pytest.mark.parametrize("received", [0, 1, 3])
@pytest.mark.parametrize("through", ["receive", "receive_nowait", "in vain", "in another block"])
async def test_what_only_the_caller_could_receive_is_not_waited_for(received: int, through: str) -> None:
    """Whoever opened a feed and drains the client cannot receive from it meanwhile, whether it began to before or not."""
    async with (
        open_world() as (server, nc, nursery),
        trionats.open_subscription(nursery, nc, "a") as rx,
        trionats.open_subscription(nursery, nc, "a") as other,
    ):
        await nc.flush()
        if through == "in vain":
            with trio.move_on_after(1):
                await rx.receive()
        await arrive(server)
        for _ in range(received):
            if through == "receive_nowait":
                rx.receive_nowait()
            else:
                await rx.receive()
        with takes(0):
            if through == "in another block":
                async with trionats.open_subscription(nursery, nc, "b"):
                    await nc.drain()
            else:
                await nc.drain()
        assert nc.is_closed
        assert len(await payloads(rx)) == 3 - received
        assert len(await payloads(other)) == 3


async def test_a_worker_that_was_the_only_reader_and_drains_is_not_waited_for() -> None:
    async with subscribed() as (server, nc, rx):

        async def work() -> None:
            await rx.receive()
            with trio.move_on_after(1):
                await rx.receive()
            await arrive(server)
            with takes(0):
                await nc.drain()

        publish(server, 1)
        await elsewhere(work)
        assert nc.is_closed


@pytest.mark.parametrize("began", ["waits", "starts with the drain", "received before", "polls"])
@pytest.mark.parametrize("caller", ["opener", "another"])
async def test_whoever_else_may_receive_is_waited_for(began: str, caller: str) -> None:
    async with working(readers=0) as (server, nc, rx, seen, workers):

        async def work() -> None:
            if began == "received before":
                await rx.receive()
                with trio.move_on_after(0.5):
                    await rx.receive()
            elif began == "polls":
                with pytest.raises(trio.WouldBlock):
                    rx.receive_nowait()
            if began in ("received before", "polls"):
                ready.set()
                await trio.sleep(1)
            await consume(rx, seen, for_seconds(1))

        ready = trio.Event()
        if began != "starts with the drain":
            workers.start_soon(work)
            await settled()
        if began == "received before":
            server.publish("a", b"first")
        if began in ("received before", "polls"):
            await ready.wait()
        publish(server)
        if began == "starts with the drain":
            workers.start_soon(work)
        await (nc.drain() if caller == "opener" else elsewhere(nc.drain))
        assert seen == ZERO_TO_TWO


async def test_one_of_two_readers_that_drains_waits_for_the_other() -> None:
    """It may come back, though it has nothing in hand and does not wait for anything right now."""
    async with working(readers=0) as (server, nc, rx, seen, workers):

        async def look() -> None:
            with trio.move_on_after(1):
                await rx.receive()

        async def come_back() -> None:
            await look()
            await trio.sleep(5)
            await consume(rx, seen, lambda msg: nc.publish("b", msg.data))

        async def drain() -> None:
            await trio.sleep(0.5)
            await look()
            publish(server)
            await nc.drain()

        workers.start_soon(come_back)
        workers.start_soon(drain)
        await rx.wait_ended()
    assert seen == ZERO_TO_TWO
    assert [frame.payload for frame in server.sent("PUB", "b")] == ZERO_TO_TWO


async def test_an_opener_that_reads_is_waited_for_by_another_that_drains() -> None:
    async with working(readers=0) as (server, nc, rx, _, workers):
        await arrive(server)
        workers.start_soon(nc.drain)
        await trio.sleep(5)
        assert not nc.is_closed, "it has not begun yet"
        async for msg in rx:
            await trio.sleep(1)
            await nc.publish("b", msg.data)
        await nc.drain()
    assert len(server.sent("PUB", "b")) == 3


async def test_a_caller_that_gives_up_waiting_is_waited_for_again() -> None:
    async with working(readers=0) as (server, nc, rx, _, workers):
        async with trionats.open_subscription(workers, nc, "b") as slow:
            workers.start_soon(consume, slow, [], for_seconds(2))
            await nc.flush()
            publish(server)
            server.publish("b", b"")
            await settled()
            await cut_short(nc.drain)
            await trio.sleep(10)
            assert not nc.is_closed
            async for msg in rx:
                await nc.publish("c", msg.data)
            await nc.drain()
    assert len(server.sent("PUB", "c")) == 3


@pytest.mark.parametrize("caller", ["opener", "another"])
async def test_a_barrier_by_the_only_one_that_could_receive_passes(caller: str) -> None:
    async with subscribed() as (server, nc, rx):
        await arrive(server)
        with trio.move_on_after(5) as scope:
            await (nc.barrier() if caller == "opener" else elsewhere(nc.barrier))
        # There may be somebody who is about to begin.
        assert scope.cancelled_caught is (caller == "another")
        assert len(rx) == 3


@pytest.mark.parametrize("seed", range(8))
def test_a_barrier_knows_a_consumer_that_was_just_started(seed: int) -> None:
    async def main() -> None:
        async with working(readers=0) as (server, nc, rx, seen, workers):
            await arrive(server)
            await trio.sleep(1)
            workers.start_soon(consume, rx, seen, for_seconds(1))
            await nc.barrier()
            assert seen == ZERO_TO_TWO

    run(main, seed=seed)


# -- many feeds ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def many_feeds(
    count: int, use: Callable[[int, Subscription], Awaitable[None]], drain_timeout: float = 30
) -> AsyncIterator[Client]:
    """Open so many feeds, each in a task of its own that uses it, and put a message in each."""
    async with open_world(drain_timeout=drain_timeout) as (server, nc, workers):

        async def hold(number: int, *, task_status: trio.TaskStatus[None]) -> None:
            async with trionats.open_subscription(workers, nc, f"a.{number}") as rx:
                task_status.started()
                await use(number, rx)

        for number in range(count):
            await workers.start(hold, number)
        await nc.flush()
        for number in range(count):
            server.publish(f"a.{number}", b"")
        await nc.flush()
        yield nc
        workers.cancel_scope.cancel()


@pytest.mark.parametrize("what", ["drain", "barrier"])
async def test_many_feeds_are_looked_at_when_something_happens_to_them(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Each of many consumers is done at a time of its own: what is looked at grows with their number, not its square."""
    many, looks = 300, 0

    async def work(number: int, rx: Subscription) -> None:
        async for _ in rx:
            await trio.sleep(0.01 + number * LOOK_SECONDS / 1000)

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def look(*args: Any) -> Any:
            nonlocal looks
            looks += 1
            return method(*args)

        return look

    async with many_feeds(many, work) as nc:
        for name in ("_processed", "__len__"):
            monkeypatch.setattr(Feed, name, counted(getattr(Feed, name)))
        await getattr(nc, what)()
        assert many <= looks <= 20 * many


async def test_only_the_first_of_many_feeds_are_named() -> None:
    async def hold(*_: object) -> None:
        await trio.sleep_forever()

    async with many_feeds(25, hold, drain_timeout=1) as nc:
        text = r"'a.0' \(1 buffered\), .*'a.9' \(1 buffered\), 15 more$"
        with pytest.raises(errors.DrainTimeoutError, match=text):
            await nc.drain()


async def test_a_feed_that_opens_meanwhile_is_waited_for() -> None:
    """Answers may still be asked for, and those who work on them are consumers as others are."""
    async with working(for_seconds(1)) as (server, nc, _, _seen, workers):
        server.on("ask", lambda frame: [server.publish(frame.reply, b"%d" % number) for number in range(3)] and None)

        async def ask() -> None:
            await trio.sleep(0.5)
            async with trionats.open_replies(workers, nc, "ask", max_msgs=3) as replies:
                async for msg in replies:
                    await trio.sleep(1)
                    await nc.publish("b", msg.data)

        await arrive(server, 1)
        workers.start_soon(ask)
        with takes(3.5):
            await nc.drain()
    assert len(server.sent("PUB", "b")) == 3


# -- a server that is silent, and what nobody published --------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "patience"), [(3, 3), (0.01, LEAST_PATIENCE)])
async def test_a_silent_server_is_given_up_after_the_time_of_a_request(limit: float, patience: float) -> None:
    async with subscribed(client={"request_timeout": limit}) as (server, nc, rx):
        await arrive(server, 1)
        server.mute.update(SILENT)
        await nc.publish("b")
        text = f"drain: the server has not answered for {patience:g} s"
        with takes(patience, patience + 0.5), pytest.raises(errors.DrainTimeoutError, match=text):
            await nc.drain()
        assert nc.is_closed
        assert await payloads(rx) == [b"0"]


async def test_consumers_of_a_silent_server_finish_all_the_same() -> None:
    async with working(for_seconds(6)) as (server, nc, _, seen, _workers):
        await arrive(server)
        server.mute.update(SILENT)
        with takes(18, 19), pytest.raises(errors.DrainTimeoutError, match="not answered"):
            await nc.drain()
        assert seen == ZERO_TO_TWO


async def test_a_server_that_was_silent_and_speaks_again_is_believed() -> None:
    async def work(msg: Msg) -> None:
        await trio.sleep(20)
        server.mute.clear()
        server.inject(b"PONG\r\n")

    async with working(work) as (server, nc, *_):
        await arrive(server, 1)
        server.mute.update({"PING", "UNSUB"})
        await nc.drain()
        assert nc.is_closed


async def test_a_slow_server_is_not_a_silent_one() -> None:
    """While anything comes it is waited for, and while something of a program's waits to be sent."""
    async with subscribed() as (server, nc, rx):
        await hold_back(server, nc)
        nc.drain_nowait()
        await trio.sleep(12)
        assert not nc.is_closed, "something waits to be sent"
        server.mute.update({"PING", "UNSUB"})
        server.link.resume()
        for number in range(3):
            await trio.sleep(4)
            server.publish("a", b"%d" % number)
        server.mute.clear()
        server.inject(b"PONG\r\n")
        assert await payloads(rx) == ZERO_TO_TWO
        await nc.drain()


async def test_what_waits_to_be_sent_to_a_silent_server_is_named() -> None:
    async with open_world() as (server, nc, _):
        await hold_back(server, nc)
        text = "not done within 30 s: messages that wait to be sent: 1"
        with takes(35), pytest.raises(errors.DrainTimeoutError, match=text):  # and the goodbye
            await nc.drain()


@pytest.mark.parametrize("what", ["forced", "aside"])
async def test_only_what_a_program_published_is_waited_for(what: str) -> None:
    async with open_world() as (server, nc, nursery), trionats.open_events(nursery, nc) as happened:
        await lose(server, nc)
        if what == "forced":
            publish_forced(nc, "b")
            with pytest.raises(errors.ConnectionReconnectingError, match="wait for a connection: 1"):
                await nc.drain()
        else:
            seam(nc).publish_aside("b")
            with takes(0):
                await nc.drain()
        lost = [event.count async for event in happened if isinstance(event, events.PublishesLost)]
        assert lost == ([1] if what == "forced" else [])


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_watcher_holds_up_no_drain_without_a_connection(when: str) -> None:
    async with open_bucket() as (bucket, store, nc, nursery):
        bucket.add("one", b"1")
        async with (
            trionats.open_watcher(nursery, store) as watcher,
            trionats.open_events(nursery, nc) as happened,
        ):
            await watcher.snapshot()
            if when == "meanwhile":
                # The UNSUB, the consumer's deletion and perhaps a pull are on their way, and so is the PING.
                bucket.server.link.stall(up=True)
                nc.drain_nowait()
                await settled()
            bucket.server.accepting = False
            bucket.server.cut()
            await settled()
            with takes(0):
                await nc.drain()
            assert not [event async for event in happened if isinstance(event, events.PublishesLost)]
            assert [info async for info in watcher] == []


# -- the barrier ---------------------------------------------------------------------------------------------------------


async def test_a_barrier_waits_for_what_is_buffered_and_under_work() -> None:
    async def publish_on() -> None:
        while True:
            await trio.sleep(0.1)
            server.publish("a", b"later")

    async with working(for_seconds(1), readers=2) as (server, nc, _, seen, workers):
        await nc.barrier()
        await arrive(server, 5)
        workers.start_soon(publish_on)
        await nc.barrier()
        assert sorted(seen)[:5] == [b"0", b"1", b"2", b"3", b"4"]
        assert len(seen) < 8, "what came later does not count"
        workers.cancel_scope.cancel()


async def test_a_barrier_waits_for_the_message_under_work_and_one_that_was_handed_over_and_not_seen_yet() -> None:
    async with working(for_seconds(1)) as (server, nc, rx, seen, _workers):
        await arrive(server, 1)
        assert not seen
        await nc.barrier()
        assert seen == [b"0"]
        with takes(0):
            await nc.barrier()
        deliver(rx, b"1", b"2")
        assert len(rx) == 1
        await wait_barrier([rx])
        assert seen == ZERO_TO_TWO


async def test_a_barrier_does_not_wait_for_its_own_caller_nor_for_those_who_left() -> None:
    async with working(readers=0) as (server, nc, mine, _, workers):
        async with trionats.open_subscription(workers, nc, "a") as theirs:
            await nc.flush()
            await arrive(server, 2)
            workers.start_soon(take_one_and_leave, theirs)
            async for _ in mine:
                with trio.fail_after(2):
                    await nc.barrier()
                mine.stop()
            workers.cancel_scope.cancel()


async def test_a_barrier_does_not_wait_for_a_receive_that_was_cancelled() -> None:
    async with working(readers=0) as (_, _nc, rx, _seen, workers):

        async def cancelled() -> None:
            with scope:
                await rx.receive()
            await trio.sleep(60)

        scope = trio.CancelScope()
        workers.start_soon(cancelled)
        await settled()
        scope.cancel()
        with takes(0, LOOK_SECONDS / 2):
            await wait_barrier([rx])
        workers.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["polled", "dropped"])
async def test_a_barrier_sees_what_leaves_without_a_receive(how: str) -> None:
    limits: dict[str, Any] = {"pending_msgs_limit": 2, "overflow": "drop_old"} if how == "dropped" else {}
    done: list[float] = []
    async with subscribed(**limits) as (_, _nc, rx), trio.open_nursery() as workers:

        async def take() -> None:
            await trio.sleep(1)
            if how == "dropped":
                deliver(rx, b"2", b"3", b"4")
            rx.receive_nowait()
            rx.receive_nowait()
            await trio.sleep(1)
            done.append(trio.current_time())
            with pytest.raises(trio.WouldBlock):
                rx.receive_nowait()
            await trio.sleep(60)

        deliver(rx, b"0", b"1")
        workers.start_soon(take)
        await elsewhere(wait_barrier, [rx])
        # Whoever takes without waiting is waited for until it comes back as well.
        assert done == [trio.current_time()]
        workers.cancel_scope.cancel()


async def test_a_barrier_sees_that_one_large_message_drops_many_small_ones() -> None:
    async with subscribed(pending_bytes_limit=100, overflow="drop_old") as (_, _nc, rx), trio.open_nursery() as workers:

        async def drop_and_receive() -> None:
            await trio.sleep(1)
            deliver(rx, b"y" * 90)
            await payloads(rx)

        deliver(rx, *[b"x" * 15] * 5)
        workers.start_soon(drop_and_receive)
        with trio.fail_after(2):
            await elsewhere(wait_barrier, [rx])
        assert rx.statistics().dropped >= 4
        rx.stop()


def test_a_barrier_cancelled_anywhere() -> None:
    async def scenario(cut: Cut) -> None:
        async with working(for_seconds(0.5)) as (server, nc, rx, seen, _):
            await arrive(server, 2)
            await cut(nc.barrier)
            assert not busy_tasks(rx).observers
        assert seen == [b"0", b"1"]

    cancel_everywhere(scenario)


# -- how a feed ends -----------------------------------------------------------------------------------------------------


async def test_wait_ended_says_why() -> None:
    async with open_world(FakeServer(deny_subscribe=("secret",))) as (_, nc, nursery):
        async with trionats.open_subscription(nursery, nc, "secret") as rx:
            assert isinstance(await rx.wait_ended(), errors.PermissionsViolationError)
        async with trionats.open_subscription(nursery, nc, "a") as rx:
            await cut_short(rx.wait_ended)
            rx.stop()
            assert await rx.wait_ended() is None
        assert await rx.wait_ended() is None
