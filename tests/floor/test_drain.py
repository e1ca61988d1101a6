"""Draining a subscription and a client, and the barrier: what is on its way arrives, consumers finish, nothing waits for ever."""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import trionats
from tests.cancelling import Cut, cancel_everywhere, same_schedule
from tests.fake_jetstream import FakeObjects
from tests.fakes import FakeServer, Frame
from trionats import errors, events
from trionats._core.drain import LEAST_PATIENCE, LOOK_SECONDS, wait_barrier
from trionats._feeds.feed import Feed

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock


@asynccontextmanager
async def client(server: FakeServer, **options: Any) -> AsyncIterator[trionats.Client]:  # noqa: ANN401 - any option
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, dial=server.dial, **{"reconnect_time_wait": 0.01, **options}) as nc,
    ):
        await nc.flush()
        yield nc
    assert nc.statistics().feeds == ()
    assert nc.statistics().subscriptions == 0
    server.check()


async def payloads_of(rx: trionats.Feed[trionats.Msg]) -> list[bytes]:
    return [msg.data async for msg in rx]


async def by_another(call: Callable[..., Any], *args: object) -> None:
    """Let another task call something, and wait until it returns."""
    async with trio.open_nursery() as nursery:  # noqa: ASYNC112 - that it is another task is the point
        nursery.start_soon(call, *args)


def verbs(server: FakeServer) -> list[str]:
    return [frame.verb for frame in server.frames]


# -- one subscription ----------------------------------------------------------------------------------------------------


async def test_what_the_server_sent_before_it_knew_is_received(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a") as rx,
    ):
        await nc.flush()
        server.publish("a", b"1")
        server.link.stall(up=True)
        rx.drain_nowait()
        # The UNSUB is on its way, and so is this.
        server.publish("a", b"2")
        await trio.testing.wait_all_tasks_blocked()
        assert len(rx) == 2
        server.link.resume()
        await rx.drain()
        assert server.publish("a", b"3") == 0
        assert await rx.wait_ended() is None
        assert await payloads_of(rx) == [b"1", b"2"]
    assert verbs(server).count("UNSUB") == 1


async def test_the_ping_stands_behind_the_unsub(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a") as rx,
    ):
        await nc.publish("b")
        await rx.drain()
        assert verbs(server)[-4:] == ["SUB", "PUB", "UNSUB", "PING"]
        await rx.drain()
        assert verbs(server)[-1] == "PING"
        assert verbs(server).count("UNSUB") == 1


async def test_drained_from_inside_its_loop_and_twice_at_once(autojump_clock: MockClock) -> None:
    server = FakeServer()
    seen = []
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a") as rx,
    ):
        await nc.flush()
        for number in range(3):
            server.publish("a", b"%d" % number)
        with trio.fail_after(2):
            async for msg in rx:
                seen.append(msg.data)
                async with trio.open_nursery() as both:
                    both.start_soon(rx.drain)
                    both.start_soon(rx.drain)
    assert seen == [b"0", b"1", b"2"]


async def test_without_a_connection_it_ends_at_once(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a") as rx,
    ):
        await nc.flush()
        server.publish("a", b"1")
        await nc.flush()
        server.accepting = False
        server.cut()
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(0.001):
            await rx.drain()
            assert await payloads_of(rx) == [b"1"]
        server.accepting = True
        await nc.wait_connected()
        await nc.flush()
        assert not server.subscriptions


async def test_a_connection_that_breaks_in_the_middle_ends_it(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a") as rx,
    ):
        await nc.flush()
        server.publish("a", b"1")
        server.mute.add("PING")
        rx.drain_nowait()
        await trio.testing.wait_all_tasks_blocked()
        server.mute.clear()
        server.cut()
        await rx.drain()
        assert await payloads_of(rx) == [b"1"]
        await nc.wait_connected()
        await nc.flush()
        assert not server.subscriptions, "it is not replayed"


async def test_a_silent_server_is_not_waited_for_longer_than_for_a_request(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with (
        client(server, close_timeout=0.1) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a") as rx,
    ):
        server.mute.add("PING")
        start = trio.current_time()
        with pytest.raises(errors.TimeoutError, match="drain of subscription 'a'"):
            await rx.drain()
        assert trio.current_time() - start == pytest.approx(5)
        with trio.move_on_after(1) as scope:
            await rx.drain()
        assert scope.cancelled_caught


async def test_the_agreed_number_comes_before_the_pong(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a", max_msgs=1) as rx,
    ):
        await nc.flush()
        server.publish("a", b"1")
        await rx.drain()
        assert await payloads_of(rx) == [b"1"]


async def test_stop_in_contrast_takes_nothing_more(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a") as rx,
    ):
        await nc.flush()
        rx.stop()
        server.publish("a", b"late")
        await rx.drain()
        assert await payloads_of(rx) == []


def test_draining_a_subscription_cancelled_anywhere() -> None:
    async def scenario(cut: Cut) -> None:
        server = FakeServer(sip=3)
        async with client(server) as nc, trio.open_nursery() as nursery:
            async with trionats.open_subscription(nursery, nc, "a") as rx:
                await nc.flush()
                server.publish("a", b"1")
                await nc.flush()
                await cut(rx.drain)
                if cut.way == "already":
                    assert "UNSUB" not in verbs(server)
                    rx.stop()
                # What was begun goes on by itself.
                assert await payloads_of(rx) == [b"1"]
            await nc.flush()
            assert not server.subscriptions

    cancel_everywhere(scenario)


# -- the client ----------------------------------------------------------------------------------------------------------


async def consume(rx: trionats.Feed[trionats.Msg], seen: list[bytes], work: Callable[[trionats.Msg], Any]) -> None:
    async for msg in rx:
        await work(msg)
        seen.append(msg.data)


async def test_consumers_finish_and_may_publish_and_ask(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.on("where", lambda frame: b"there")
    seen: list[bytes] = []
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(1)
            answer = await nc.request("where")
            await msg.respond(answer.data)

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, seen, work)
            await nc.flush()
            for number in range(3):
                server.publish("a", b"%d" % number, reply="back")
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            await nc.drain()
            assert trio.current_time() - start == pytest.approx(3, abs=0.01)
            assert nc.is_closed
    assert seen == [b"0", b"1", b"2"]
    assert [frame.payload for frame in server.sent("PUB", "back")] == [b"there"] * 3


async def test_the_last_message_is_worked_off_though_nothing_is_buffered(autojump_clock: MockClock) -> None:
    server = FakeServer()
    seen: list[bytes] = []
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(2)
            await msg.respond(b"done")

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            for _ in range(3):
                workers.start_soon(consume, rx, seen, work)
            await nc.flush()
            await trio.testing.wait_all_tasks_blocked()
            for number in range(3):
                server.publish("a", b"%d" % number, reply="back")
            await trio.testing.wait_all_tasks_blocked()
            assert not len(rx)
            await nc.drain()
    assert sorted(seen) == [b"0", b"1", b"2"]
    assert len(server.sent("PUB", "back")) == 3


async def test_all_subscriptions_first_and_the_inbox_of_requests_last(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.on("ask", lambda frame: b"answer")
    async with client(server) as nc, trio.open_nursery() as nursery:
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
            sids = [frame.arguments[0] for frame in server.sent("UNSUB")]
            assert sids == ["2", "3", "1"]
            assert [type(event) async for event in happened] == [events.Draining, events.Closed]


async def test_what_is_sent_meanwhile_comes_and_nothing_new_is_taken(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx:
            await nc.flush()
            server.publish("a", b"1")
            await nc.flush()
            nc.drain_nowait()
            nc.drain_nowait()
            with pytest.raises(errors.ConnectionDrainingError, match="'b'"):
                await trionats.open_subscription(nursery, nc, "b").__aenter__()
            server.on("ask", lambda frame: b"answer")
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


async def test_a_task_that_drains_is_not_waited_for(autojump_clock: MockClock) -> None:
    server = FakeServer()
    seen = []
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a") as rx,
    ):
        await nc.flush()
        for number in range(3):
            server.publish("a", b"%d" % number)
        with trio.fail_after(2):
            async for msg in rx:
                seen.append(msg.data)
                await nc.drain()
        assert nc.is_closed
    assert seen == [b"0", b"1", b"2"]


async def test_twice_at_once_and_from_two_consumers(autojump_clock: MockClock) -> None:
    server = FakeServer()
    seen: list[bytes] = []
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await nc.drain()

        async with (
            trionats.open_subscription(nursery, nc, "a") as one,
            trionats.open_subscription(nursery, nc, "b") as two,
            trio.open_nursery() as workers,
        ):
            workers.start_soon(consume, one, seen, work)
            workers.start_soon(consume, two, seen, work)
            await nc.flush()
            for subject in ("a", "b", "a", "b"):
                server.publish(subject, subject.encode())
            with trio.fail_after(2):
                await nc.drain()
    assert sorted(seen) == [b"a", b"a", b"b", b"b"]


@pytest.mark.parametrize("reader", ["none", "one that never finishes", "one that raised"])
async def test_it_is_bounded_and_says_what_was_not_drained(autojump_clock: MockClock, reader: str) -> None:
    server = FakeServer()

    async def work(msg: trionats.Msg) -> None:
        await trio.sleep_forever()

    async def raises(rx: trionats.Feed[trionats.Msg]) -> None:
        await rx.receive()
        with pytest.raises(LookupError):
            raise LookupError("mine")

    async with client(server, drain_timeout=7) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            if reader == "one that never finishes":
                workers.start_soon(consume, rx, [], work)
            elif reader == "one that raised":
                workers.start_soon(raises, rx)
            await nc.flush()
            server.publish("a", b"1")
            server.publish("a", b"2")
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()

            async def drain() -> None:
                with pytest.raises(errors.DrainTimeoutError, match=r"within 7 s: subscription 'a' \([12] buffered\)"):
                    await nc.drain()

            # Not the task that opened it: that one would know that it does not receive while it waits here.
            await by_another(drain)
            assert trio.current_time() - start == pytest.approx(7)
            assert nc.is_closed
            workers.cancel_scope.cancel()


async def test_a_consumer_that_ended_is_not_waited_for(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:

            async def take_one() -> None:
                await rx.receive()
                await trio.sleep(1)

            workers.start_soon(take_one)
            await nc.flush()
            server.publish("a", b"1")
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            await nc.drain()
            assert 1 <= trio.current_time() - start <= 1 + 2 * LOOK_SECONDS


@pytest.mark.parametrize("seed", range(8))
def test_a_message_that_its_consumer_was_handed_and_has_not_seen_is_waited_for(seed: int) -> None:
    """The last message and the PONG behind the UNSUB in one read: nothing is buffered, and nobody has come back yet."""

    async def main() -> None:
        server = FakeServer()
        seen: list[bytes] = []
        async with client(server) as nc, trio.open_nursery() as nursery:

            async def work(msg: trionats.Msg) -> None:
                await trio.lowlevel.checkpoint()
                await msg.respond(b"answer")

            async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
                await nc.flush()
                workers.start_soon(consume, rx, seen, work)
                await trio.testing.wait_all_tasks_blocked()
                server.link.stall(down=True)
                nc.drain_nowait()
                server.publish("a", b"1", reply="answers")
                await trio.testing.wait_all_tasks_blocked()
                server.link.resume()
                await nc.drain()
        assert seen == [b"1"]
        assert len(server.sent("PUB", "answers")) == 1

    with same_schedule(seed):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_leaving_the_block_is_finishing(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery, trio.open_nursery() as workers:

        async def take_one() -> None:
            async with trionats.open_subscription(nursery, nc, "a") as rx:
                await nc.flush()
                await rx.receive()
                await trio.sleep(1)

        workers.start_soon(take_one)
        await trio.testing.wait_all_tasks_blocked()
        server.publish("a", b"1")
        server.publish("a", b"2")
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        await nc.drain()
        assert trio.current_time() - start == pytest.approx(1)


async def test_cancelled_receives_hold_up_no_drain_and_lose_nothing(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    server = FakeServer()
    seen: list[int] = []

    async def impatient(rx: trionats.Feed[trionats.Msg]) -> None:
        with contextlib.suppress(trio.EndOfChannel):
            while True:
                with trio.move_on_after(rng.choice([0, 0.001, 0.002])):
                    seen.append(int((await rx.receive()).data))

    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(impatient, rx)
            await nc.flush()
            for number in range(200):
                server.publish("a", b"%d" % number)
                await trio.sleep(rng.choice([0, 0.001]))
            with trio.fail_after(1):
                await nc.drain()
    assert seen == list(range(200))


async def test_requests_under_way_get_their_answers(autojump_clock: MockClock) -> None:
    server = FakeServer()
    replies: list[str] = []
    server.on("ask", lambda frame: replies.append(frame.reply))
    async with client(server) as nc, trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append((await nc.request("ask")).data)

        async def ask_many() -> None:
            answers.append([msg.data for msg in await nc.request_many("ask", max_msgs=1)])

        async def ask_more() -> None:
            async with trionats.open_replies(nursery, nc, "ask", max_msgs=1) as rx:
                answers.append(await payloads_of(rx))

        async with trio.open_nursery() as askers:
            for kind in (ask, ask_many, ask_more):
                askers.start_soon(kind)
            await trio.testing.wait_all_tasks_blocked()
            nc.drain_nowait()
            await trio.sleep(1)
            assert not nc.is_closed
            for reply in replies:
                server.publish(reply, b"late")
            start = trio.current_time()
            await nc.drain()
            assert trio.current_time() == pytest.approx(start, abs=LOOK_SECONDS / 2)
    assert sorted(answers, key=str) == sorted([b"late", [b"late"], [b"late"]], key=str)


async def test_a_request_that_nobody_answers_is_named(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.on("ask", lambda frame: None)
    async with client(server, drain_timeout=3, request_timeout=60) as nc:
        with nc.request_nowait("ask"), pytest.raises(errors.DrainTimeoutError, match="requests without an answer: 1"):
            await nc.drain()


async def test_what_waits_for_a_connection_is_sent_by_the_next_one(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server, reconnect_delay=lambda _: 3600.0) as nc:
        server.dials = ["refuse"]
        server.cut()
        await trio.testing.wait_all_tasks_blocked()
        await nc.publish("b", b"1")
        await trio.sleep(1)
        assert len(server.dialled) == 2, "refused, and the next one would come much later"
        with trio.fail_after(0.001):
            await nc.drain()
        assert nc.is_closed
    assert [frame.payload for frame in server.sent("PUB", "b")] == [b"1"]


async def test_what_is_worked_on_when_the_connection_breaks_is_answered_by_the_next_one(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer()
    seen: list[bytes] = []
    async with client(server, reconnect_time_wait=4) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(1)
            await msg.respond(b"done")

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, seen, work)
            await nc.flush()
            for number in range(3):
                server.publish("a", b"%d" % number, reply="back")
            await trio.testing.wait_all_tasks_blocked()
            nc.drain_nowait()
            await trio.sleep(0.5)
            server.accepting = False
            server.cut()
            await trio.sleep(5)
            assert seen == [b"0", b"1", b"2"]
            server.accepting = True
            await nc.drain()
            assert nc.is_closed
    assert len(server.sent("PUB", "back")) == 3


async def test_the_next_connection_is_dialled_at_once_when_the_last_one_breaks_meanwhile(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer()
    async with (
        client(server, reconnect_time_wait=600, max_reconnect_time_wait=600) as nc,
        trio.open_nursery() as nursery,
    ):

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(1)
            await msg.respond(b"done")

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, [], work)
            await nc.flush()
            server.publish("a", b"1", reply="back")
            await trio.testing.wait_all_tasks_blocked()
            nc.drain_nowait()
            await trio.sleep(0.5)
            server.cut()
            with trio.fail_after(0.51):
                await nc.drain()
    assert len(server.sent("PUB", "back")) == 1


@pytest.mark.parametrize("when", ["in the last flush", "as soon as the next one stands"])
async def test_what_breaks_with_the_connection_in_the_end_is_told(autojump_clock: MockClock, when: str) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        if when == "in the last flush":
            server.link.stall(up=True, down=True)
        else:
            server.accepting = False
            server.cut()
            await trio.testing.wait_all_tasks_blocked()
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


async def test_it_says_how_far_it_is(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(1)

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, [], work)
            await nc.flush()
            server.publish("a", b"1")
            await trio.testing.wait_all_tasks_blocked()
            server.accepting = False
            server.cut()
            await trio.testing.wait_all_tasks_blocked()
            await nc.publish("b")
            nc.drain_nowait()
            await trio.testing.wait_all_tasks_blocked()
            assert nc.state is events.ConnectionState.DRAINING_SUBS
            await trio.sleep(2)
            assert nc.state.value == events.ConnectionState.DRAINING_PUBS.value
            server.accepting = True
            await nc.drain()


async def test_a_feed_that_was_closed_holds_up_nothing(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:

            async def close_and_ask() -> None:
                await rx.aclose()
                for _ in range(70):  # once through the scheduler at least
                    with pytest.raises(trio.ClosedResourceError):
                        await rx.receive()
                await trio.sleep(60)

            workers.start_soon(close_and_ask)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(1):
                await nc.drain()
            workers.cancel_scope.cancel()


async def test_a_poller_that_found_nothing_before_is_not_waited_for(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:

            async def poll() -> None:
                rx.receive_nowait()
                with pytest.raises(trio.WouldBlock):
                    rx.receive_nowait()
                await trio.sleep(60)

            rx.deliver(msg_of("a", b"1"))
            workers.start_soon(poll)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(1):
                await nc.drain()
            workers.cancel_scope.cancel()


async def test_a_client_that_is_lost_while_it_drains_says_so(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server, allow_reconnect=False) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(60)

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, [], work)
            await nc.flush()
            server.publish("a", b"1")
            await trio.testing.wait_all_tasks_blocked()
            nc.drain_nowait()
            await trio.testing.wait_all_tasks_blocked()
            server.cut()
            with (
                trio.fail_after(0.001),
                pytest.raises(errors.ConnectionClosedError, match="drain: the client was lost"),
            ):
                await nc.drain()
            workers.cancel_scope.cancel()


async def test_without_any_connection_it_ends_in_time_and_counts_what_was_not_sent(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with (
            trionats.open_subscription(nursery, nc, "a") as rx,
            trionats.open_events(nursery, nc) as happened,
        ):
            await nc.flush()
            server.publish("a", b"1")
            await nc.flush()
            server.accepting = False
            server.cut()
            await trio.testing.wait_all_tasks_blocked()
            await nc.publish("b")
            await nc.publish("b")
            start = trio.current_time()
            text = "not done within 30 s: messages that wait for a connection: 2"
            with pytest.raises(errors.ConnectionReconnectingError, match=text):
                await nc.drain()
            assert trio.current_time() - start == pytest.approx(30)
            assert nc.is_closed
            assert await payloads_of(rx) == [b"1"]
            assert events.PublishesLost(2) in [event async for event in happened]


async def test_without_a_connection_and_with_nothing_to_send_it_is_no_error(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc:
        server.accepting = False
        server.cut()
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(0.001):
            await nc.drain()
        assert nc.is_closed


async def test_a_connection_that_breaks_while_it_drains_ends_it_at_once(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx:
            await nc.flush()
            server.publish("a", b"1")
            await nc.flush()
            nc.drain_nowait()
            await trio.testing.wait_all_tasks_blocked()
            server.accepting = False
            server.cut()
            with trio.fail_after(0.001):
                await nc.drain()
            assert await payloads_of(rx) == [b"1"]


@pytest.mark.parametrize("how", ["aclose", "leave", "cancel"])
async def test_an_end_cuts_it_short(autojump_clock: MockClock, how: str) -> None:
    server = FakeServer()
    start = trio.current_time()
    async with trio.open_nursery() as background:
        async with trionats.open_client(background, dial=server.dial) as nc:
            async with trionats.open_subscription(background, nc, "a") as rx:
                await nc.flush()
                server.publish("a", b"1")
                await nc.flush()
                nc.drain_nowait()
                await trio.testing.wait_all_tasks_blocked()
                if how == "aclose":
                    await nc.aclose()
                    assert await payloads_of(rx) == [b"1"]
                elif how == "cancel":
                    background.cancel_scope.cancel()
    assert trio.current_time() == pytest.approx(start, abs=0.01)
    assert nc.is_closed
    server.check()


async def test_what_is_published_last_is_sent(autojump_clock: MockClock) -> None:
    server = FakeServer(sip=11)
    async with client(server) as nc:
        for _ in range(1000):
            await nc.publish("a", b"x" * 10)
        await nc.drain()
        with pytest.raises(errors.ConnectionClosedError):
            await nc.publish("a")
    assert len(server.sent("PUB", "a")) == 1000


def test_draining_the_client_cancelled_anywhere() -> None:
    async def scenario(cut: Cut) -> None:
        server = FakeServer(sip=5)
        seen: list[bytes] = []
        async with client(server) as nc, trio.open_nursery() as nursery:

            async def work(msg: trionats.Msg) -> None:
                await trio.sleep(0.5)

            async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
                workers.start_soon(consume, rx, seen, work)
                await nc.flush()
                for number in range(3):
                    server.publish("a", b"%d" % number)
                await cut(nc.drain)
                if cut.way == "already":
                    assert not cut.result
                    await nc.flush()
                    assert "UNSUB" not in verbs(server)
                    assert not nc.is_closed
                    rx.stop()
            # Begun, it goes on by itself: all is worked off.
            assert seen == [b"0", b"1", b"2"]
            if cut.way != "already":
                await nc.drain()
                assert nc.is_closed

    cancel_everywhere(scenario)


# -- who is waited for ---------------------------------------------------------------------------------------------------


def holds(server: FakeServer, count: int = 3) -> None:
    for number in range(count):
        server.publish("a", b"%d" % number)


@pytest.mark.parametrize("received", [0, 1, 3])
@pytest.mark.parametrize("through", ["receive", "receive_nowait", "in vain", "in another block"])
async def test_what_only_the_caller_could_receive_is_not_waited_for(
    autojump_clock: MockClock, received: int, through: str
) -> None:
    """Whoever opened a feed and drains the client cannot receive from it meanwhile, whether it began to before or not."""
    server = FakeServer()
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a") as rx,
        trionats.open_subscription(nursery, nc, "a") as other,
    ):
        await nc.flush()
        if through == "in vain":
            with trio.move_on_after(1):
                await rx.receive()
        holds(server)
        await nc.flush()
        for _ in range(received):
            if through == "receive_nowait":
                rx.receive_nowait()
            else:
                await rx.receive()
        with trio.fail_after(0.001):
            if through == "in another block":
                async with trionats.open_subscription(nursery, nc, "b"):
                    await nc.drain()
            else:
                await nc.drain()
        assert nc.is_closed
        assert len(await payloads_of(rx)) == 3 - received
        assert len(await payloads_of(other)) == 3


async def test_a_worker_that_was_the_only_reader_and_drains_is_not_waited_for(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:

            async def work() -> None:
                await rx.receive()
                with trio.move_on_after(1):
                    await rx.receive()
                holds(server)
                await trio.testing.wait_all_tasks_blocked()
                with trio.fail_after(0.001):
                    await nc.drain()

            workers.start_soon(work)
            await nc.flush()
            server.publish("a", b"1")


@pytest.mark.parametrize("began", ["waits", "starts with the drain", "received before", "polls"])
@pytest.mark.parametrize("caller", ["opener", "another"])
async def test_whoever_else_may_receive_is_waited_for(autojump_clock: MockClock, began: str, caller: str) -> None:
    server = FakeServer()
    seen: list[bytes] = []
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:

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
                async for msg in rx:
                    await trio.sleep(1)
                    seen.append(msg.data)

            ready = trio.Event()
            await nc.flush()
            if began != "starts with the drain":
                workers.start_soon(work)
                await trio.testing.wait_all_tasks_blocked()
            if began == "received before":
                server.publish("a", b"first")
            if began in ("received before", "polls"):
                await ready.wait()
            holds(server)
            if began == "starts with the drain":
                workers.start_soon(work)
            if caller == "opener":
                await nc.drain()
            else:
                await by_another(nc.drain)
            assert seen == [b"0", b"1", b"2"]


async def test_one_of_two_readers_that_drains_waits_for_the_other(autojump_clock: MockClock) -> None:
    """It may come back, though it has nothing in hand and does not wait for anything right now."""
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:

            async def look() -> None:
                with trio.move_on_after(1):
                    await rx.receive()

            async def come_back() -> None:
                await look()
                await trio.sleep(5)
                async for msg in rx:
                    await nc.publish("b", msg.data)

            async def drain() -> None:
                await trio.sleep(0.5)
                await look()
                holds(server)
                await nc.drain()

            workers.start_soon(come_back)
            workers.start_soon(drain)
            await nc.flush()
    assert [frame.payload for frame in server.sent("PUB", "b")] == [b"0", b"1", b"2"]


async def test_an_opener_that_reads_is_waited_for_by_another_that_drains(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx:
            await nc.flush()
            holds(server)
            await nc.flush()
            nursery.start_soon(nc.drain)
            await trio.sleep(5)
            assert not nc.is_closed, "it has not begun yet"
            async for msg in rx:
                await trio.sleep(1)
                await nc.publish("b", msg.data)
            await nc.drain()
    assert len(server.sent("PUB", "b")) == 3


async def test_a_caller_that_gives_up_waiting_is_waited_for_again(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with (
            trionats.open_subscription(nursery, nc, "a") as rx,
            trionats.open_subscription(nursery, nc, "b") as slow,
            trio.open_nursery() as workers,
        ):

            async def work(msg: trionats.Msg) -> None:
                await trio.sleep(2)

            workers.start_soon(consume, slow, [], work)
            await nc.flush()
            holds(server)
            server.publish("b", b"")
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(1) as scope:
                await nc.drain()
            assert scope.cancelled_caught
            await trio.sleep(10)
            assert not nc.is_closed
            async for msg in rx:
                await nc.publish("c", msg.data)
            await nc.drain()
    assert len(server.sent("PUB", "c")) == 3


@pytest.mark.parametrize("caller", ["opener", "another"])
async def test_a_barrier_by_the_only_one_that_could_receive_passes(autojump_clock: MockClock, caller: str) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx:
            await nc.flush()
            holds(server)
            await nc.flush()
            with trio.move_on_after(5) as scope:
                if caller == "opener":
                    await nc.barrier()
                else:
                    await by_another(nc.barrier)
            # There may be somebody who is about to begin.
            assert scope.cancelled_caught is (caller == "another")
            assert len(rx) == 3


@pytest.mark.parametrize("seed", range(8))
def test_a_barrier_knows_a_consumer_that_was_just_started(seed: int) -> None:
    async def main() -> None:
        server = FakeServer()
        seen: list[bytes] = []
        async with client(server) as nc, trio.open_nursery() as nursery:

            async def work(msg: trionats.Msg) -> None:
                await trio.sleep(1)

            async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
                await nc.flush()
                holds(server)
                await nc.flush()
                await trio.sleep(1)
                workers.start_soon(consume, rx, seen, work)
                await nc.barrier()
                assert seen == [b"0", b"1", b"2"]
                rx.stop()

    with same_schedule(seed):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# -- many feeds ----------------------------------------------------------------------------------------------------------


class Looks:
    """How often feeds are asked whether they were worked off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for owner, name in ((Feed, "_processed"), (Feed, "__len__")):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def look(*args: Any) -> Any:  # noqa: ANN401 - whatever it is
            self.count += 1
            return method(*args)

        return look


@pytest.mark.parametrize("what", ["drain", "barrier"])
async def test_many_feeds_are_looked_at_when_something_happens_to_them(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Each of many consumers is done at a time of its own: what is looked at grows with their number, not its square."""
    many, step = 300, LOOK_SECONDS / 1000
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(number: int, *, task_status: trio.TaskStatus[None]) -> None:
            async with trionats.open_subscription(nursery, nc, f"a.{number}") as rx:
                task_status.started()
                async for _ in rx:
                    await trio.sleep(0.01 + number * step)

        async with trio.open_nursery() as workers:
            for number in range(many):
                await workers.start(work, number)
            await nc.flush()
            for number in range(many):
                server.publish(f"a.{number}", b"")
            await trio.testing.wait_all_tasks_blocked()
            looks = Looks(monkeypatch)
            await (nc.drain() if what == "drain" else nc.barrier())
            assert looks.count <= 20 * many
            workers.cancel_scope.cancel()


async def test_a_feed_that_opens_meanwhile_is_waited_for(autojump_clock: MockClock) -> None:
    """Answers may still be asked for, and those who work on them are consumers as others are."""
    server = FakeServer()

    def answer(frame: Frame) -> None:
        for number in range(3):
            server.publish(frame.reply, b"%d" % number)

    server.on("ask", answer)
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(1)

        async def ask() -> None:
            await trio.sleep(0.5)
            async with trionats.open_replies(nursery, nc, "ask", max_msgs=3) as replies:
                async for msg in replies:
                    await trio.sleep(1)
                    await nc.publish("b", msg.data)

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, [], work)
            await nc.flush()
            server.publish("a", b"1")
            await trio.testing.wait_all_tasks_blocked()
            workers.start_soon(ask)
            start = trio.current_time()
            await nc.drain()
            assert trio.current_time() - start == pytest.approx(3.5)
    assert len(server.sent("PUB", "b")) == 3


async def test_only_the_first_of_many_feeds_are_named(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server, drain_timeout=1) as nc, trio.open_nursery() as nursery:

        async def hold(number: int, *, task_status: trio.TaskStatus[None]) -> None:
            async with trionats.open_subscription(nursery, nc, f"a.{number}"):
                task_status.started()
                await trio.sleep(10)

        async with trio.open_nursery() as holders:
            for number in range(25):
                await holders.start(hold, number)
            await nc.flush()
            for number in range(25):
                server.publish(f"a.{number}", b"")
            await nc.flush()
            with pytest.raises(
                errors.DrainTimeoutError, match=r"'a.0' \(1 buffered\), .*'a.9' \(1 buffered\), 15 more$"
            ):
                await nc.drain()


# -- a server that is silent, and what nobody published --------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "patience"), [(3, 3), (0.01, LEAST_PATIENCE)])
async def test_a_silent_server_is_given_up_after_the_time_of_a_request(
    autojump_clock: MockClock, limit: float, patience: float
) -> None:
    server = FakeServer()
    async with client(server, request_timeout=limit) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx:
            await nc.flush()
            server.publish("a", b"1")
            await nc.flush()
            server.mute.update({"PING", "SUB", "UNSUB", "PUB"})
            await nc.publish("b")
            start = trio.current_time()
            with pytest.raises(
                errors.DrainTimeoutError, match=f"drain: the server has not answered for {patience:g} s"
            ):
                await nc.drain()
            assert trio.current_time() - start == pytest.approx(patience + 0.25, abs=0.25)
            assert nc.is_closed
            assert await payloads_of(rx) == [b"1"]
        server.mute.clear()


async def test_consumers_of_a_silent_server_finish_all_the_same(autojump_clock: MockClock) -> None:
    server = FakeServer()
    seen: list[bytes] = []
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(6)

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, seen, work)
            await nc.flush()
            holds(server)
            await trio.testing.wait_all_tasks_blocked()
            server.mute.update({"PING", "SUB", "UNSUB", "PUB"})
            start = trio.current_time()
            with pytest.raises(errors.DrainTimeoutError, match="not answered"):
                await nc.drain()
            assert trio.current_time() - start == pytest.approx(18.5, abs=0.5)
            assert seen == [b"0", b"1", b"2"]
        server.mute.clear()


async def test_a_server_that_was_silent_and_speaks_again_is_believed(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(20)
            server.mute.clear()
            server.inject(b"PONG\r\n")

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, [], work)
            await nc.flush()
            server.publish("a", b"1")
            await trio.testing.wait_all_tasks_blocked()
            server.mute.update({"PING", "UNSUB"})
            await nc.drain()
            assert nc.is_closed


async def test_a_slow_server_is_not_a_silent_one(autojump_clock: MockClock) -> None:
    """While anything comes it is waited for, and while something of a program's waits to be sent."""
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx:
            await nc.flush()
            server.link.stall(up=True)
            await nc.publish("b", b"x")
            await trio.testing.wait_all_tasks_blocked()
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
            assert await payloads_of(rx) == [b"0", b"1", b"2"]
            await nc.drain()


async def test_what_waits_to_be_sent_to_a_silent_server_is_named(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc:
        server.link.stall(up=True)
        await nc.publish("b", b"x")
        start = trio.current_time()
        with pytest.raises(errors.DrainTimeoutError, match="not done within 30 s: messages that wait to be sent: 1"):
            await nc.drain()
        assert trio.current_time() - start == pytest.approx(35), "and the goodbye"


@pytest.mark.parametrize("what", ["forced", "aside"])
async def test_only_what_a_program_published_is_waited_for(autojump_clock: MockClock, what: str) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_events(nursery, nc) as happened:
            server.accepting = False
            server.cut()
            await trio.testing.wait_all_tasks_blocked()
            if what == "forced":
                nc.publish_nowait("b", force=True)
                with pytest.raises(errors.ConnectionReconnectingError, match="wait for a connection: 1"):
                    await nc.drain()
            else:
                nc.publish_aside("b")
                with trio.fail_after(0.001):
                    await nc.drain()
            lost = [event.count async for event in happened if isinstance(event, events.PublishesLost)]
            assert lost == ([1] if what == "forced" else [])


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_watcher_holds_up_no_drain_without_a_connection(autojump_clock: MockClock, when: str) -> None:
    server = FakeServer()
    bucket = FakeObjects(server, "x")
    bucket.add("one", b"1")
    async with client(server) as nc, trio.open_nursery() as nursery:
        store = await nc.jetstream().object_store("x")
        async with (
            trionats.open_watcher(nursery, store) as watcher,
            trionats.open_events(nursery, nc) as happened,
        ):
            await watcher.snapshot()
            if when == "meanwhile":
                # The UNSUB, the consumer's deletion and perhaps a pull are on their way, and so is the PING.
                server.link.stall(up=True)
                nc.drain_nowait()
                await trio.testing.wait_all_tasks_blocked()
            server.accepting = False
            server.cut()
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(0.001):
                await nc.drain()
            assert not [event async for event in happened if isinstance(event, events.PublishesLost)]
            assert [info async for info in watcher] == []


# -- the barrier ---------------------------------------------------------------------------------------------------------


async def test_a_barrier_waits_for_what_is_buffered_and_under_work(autojump_clock: MockClock) -> None:
    server = FakeServer()
    seen: list[bytes] = []
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(1)

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, seen, work)
            workers.start_soon(consume, rx, seen, work)
            await nc.flush()
            await nc.barrier()
            for number in range(5):
                server.publish("a", b"%d" % number)
            await nc.flush()
            workers.start_soon(publish_on, server)
            await nc.barrier()
            assert sorted(seen)[:5] == [b"0", b"1", b"2", b"3", b"4"]
            assert len(seen) < 8, "what came later does not count"
            workers.cancel_scope.cancel()


async def publish_on(server: FakeServer) -> None:
    while True:
        await trio.sleep(0.1)
        server.publish("a", b"later")


async def test_a_barrier_waits_for_the_message_under_work_alone(autojump_clock: MockClock) -> None:
    server = FakeServer()
    seen: list[bytes] = []
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(1)

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, seen, work)
            await nc.flush()
            server.publish("a", b"1")
            await trio.testing.wait_all_tasks_blocked()
            assert not seen
            await nc.barrier()
            assert seen == [b"1"]
            start = trio.current_time()
            await nc.barrier()
            assert trio.current_time() == start
            workers.cancel_scope.cancel()


async def test_a_barrier_does_not_wait_for_its_own_caller_nor_for_those_who_left(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with (
            trionats.open_subscription(nursery, nc, "a") as mine,
            trionats.open_subscription(nursery, nc, "a") as theirs,
            trio.open_nursery() as workers,
        ):
            await nc.flush()
            server.publish("a", b"1")
            server.publish("a", b"2")
            await nc.flush()

            async def leave() -> None:
                await theirs.receive()
                await trio.sleep(1)
                await theirs.aclose()

            workers.start_soon(leave)
            async for _ in mine:
                with trio.fail_after(2):
                    await nc.barrier()
                mine.stop()


async def test_a_barrier_does_not_wait_for_a_task_that_ended(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:

            async def take_one() -> None:
                await rx.receive()
                await trio.sleep(1)

            workers.start_soon(take_one)
            await nc.flush()
            server.publish("a", b"1")
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(1 + 2 * LOOK_SECONDS):
                await nc.barrier()


async def test_a_barrier_waits_for_a_message_that_was_handed_over_and_not_seen_yet(autojump_clock: MockClock) -> None:
    server = FakeServer()
    seen: list[bytes] = []
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def work(msg: trionats.Msg) -> None:
            await trio.sleep(1)

        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
            workers.start_soon(consume, rx, seen, work)
            await trio.testing.wait_all_tasks_blocked()
            # As the client's reader does, in the middle of a step.
            rx.deliver(msg_of("a", b"1"))
            rx.deliver(msg_of("a", b"2"))
            assert len(rx) == 1
            await wait_barrier([rx])
            assert seen == [b"1", b"2"]
            rx.stop()


async def test_a_barrier_does_not_wait_for_a_receive_that_was_cancelled(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:

            async def wait_in_vain() -> None:
                with scope:
                    await rx.receive()
                await trio.sleep(60)

            scope = trio.CancelScope()
            workers.start_soon(wait_in_vain)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            with trio.fail_after(LOOK_SECONDS / 2):
                await wait_barrier([rx])
            workers.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["polled", "dropped"])
async def test_a_barrier_sees_what_leaves_without_a_receive(autojump_clock: MockClock, how: str) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        limits: dict[str, Any] = {"pending_msgs_limit": 2, "overflow": "drop_old"} if how == "dropped" else {}
        async with trionats.open_subscription(nursery, nc, "a", **limits) as rx, trio.open_nursery() as workers:

            async def poll() -> None:
                await trio.sleep(1)
                if how == "dropped":
                    for number in range(2, 5):
                        rx.deliver(msg_of("a", b"%d" % number))
                for _ in range(2):
                    rx.receive_nowait()
                await trio.sleep(1)
                done.append(trio.current_time())
                with pytest.raises(trio.WouldBlock):
                    rx.receive_nowait()
                await trio.sleep(60)

            done: list[float] = []
            rx.deliver(msg_of("a", b"0"))
            rx.deliver(msg_of("a", b"1"))
            workers.start_soon(poll)
            await by_another(wait_barrier, [rx])
            # Whoever takes without waiting is waited for until it comes back as well.
            assert done == [trio.current_time()]
            workers.cancel_scope.cancel()


async def test_a_barrier_sees_that_one_large_message_drops_many_small_ones(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        bounds: dict[str, Any] = {"pending_bytes_limit": 100, "overflow": "drop_old"}
        async with trionats.open_subscription(nursery, nc, "a", **bounds) as rx, trio.open_nursery() as workers:

            async def drop_and_receive() -> None:
                await trio.sleep(1)
                rx.deliver(msg_of("a", b"y" * 90))
                async for _ in rx:
                    pass

            for _ in range(5):
                rx.deliver(msg_of("a", b"x" * 15))
            workers.start_soon(drop_and_receive)
            with trio.fail_after(2):
                await by_another(wait_barrier, [rx])
            assert rx.statistics().dropped >= 4
            rx.stop()


def msg_of(subject: str, data: bytes) -> trionats.Msg:
    return trionats.Msg(1, subject, "", data, None)


def test_a_barrier_cancelled_anywhere() -> None:
    async def scenario(cut: Cut) -> None:
        server = FakeServer()
        seen: list[bytes] = []
        async with client(server) as nc, trio.open_nursery() as nursery:

            async def work(msg: trionats.Msg) -> None:
                await trio.sleep(0.5)

            async with trionats.open_subscription(nursery, nc, "a") as rx, trio.open_nursery() as workers:
                workers.start_soon(consume, rx, seen, work)
                await nc.flush()
                server.publish("a", b"1")
                server.publish("a", b"2")
                await nc.flush()
                await cut(nc.barrier)
                assert not rx._busy.observers
                rx.stop()
        assert seen == [b"1", b"2"]

    cancel_everywhere(scenario)


# -- how a feed ends -----------------------------------------------------------------------------------------------------


async def test_wait_ended_says_why(autojump_clock: MockClock) -> None:
    server = FakeServer(deny_subscribe=("secret",))
    async with client(server) as nc, trio.open_nursery() as nursery:
        async with trionats.open_subscription(nursery, nc, "secret") as rx:
            why = await rx.wait_ended()
            assert isinstance(why, errors.PermissionsViolationError)
        async with trionats.open_subscription(nursery, nc, "a") as rx:
            with trio.move_on_after(1) as scope:
                await rx.wait_ended()
            assert scope.cancelled_caught
            rx.stop()
            assert await rx.wait_ended() is None
        assert await rx.wait_ended() is None


# -- flush and round trip ------------------------------------------------------------------------------------------------


async def test_a_flush_stands_behind_all_that_was_queued(autojump_clock: MockClock) -> None:
    server = FakeServer(sip=4)
    async with client(server) as nc, trio.open_nursery() as nursery:
        before = len(server.frames)
        for _ in range(50):
            nc.publish_nowait("a", b"x")
        async with trionats.open_subscription(nursery, nc, "b"):
            await nc.flush()
            assert verbs(server)[before:] == ["PUB"] * 50 + ["SUB", "PING"]


async def test_a_flush_waits_for_its_own_answer(autojump_clock: MockClock) -> None:
    server = FakeServer()
    done: list[str] = []

    async def flush(nc: trionats.Client, name: str) -> None:
        await nc.flush()
        done.append(name)

    async with client(server) as nc, trio.open_nursery() as nursery:
        server.mute.add("PING")
        for name in ("first", "second"):
            nursery.start_soon(flush, nc, name)
            await trio.testing.wait_all_tasks_blocked()
        server.inject(b"PONG\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["first"]
        server.inject(b"PONG\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["first", "second"]
        server.mute.clear()


async def test_the_round_trip_is_measured(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        server.mute.add("PING")

        async def answer() -> None:
            await trio.sleep(0.25)
            server.mute.clear()
            server.inject(b"PONG\r\n")

        nursery.start_soon(answer)
        assert await nc.rtt() == pytest.approx(0.25)


async def test_the_most_that_waited(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, "a") as rx,
    ):
        await nc.flush()
        for _ in range(1000):
            server.publish("a", b"x")
        await nc.flush()
        for _ in range(1000):
            await rx.receive()
        statistics = rx.statistics()
        assert (statistics.delivered, statistics.pending_msgs, statistics.pending_bytes) == (1000, 0, 0)
        assert 1000 - 64 <= statistics.max_pending_msgs <= 1000
