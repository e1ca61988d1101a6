"""Subscriptions and events as feeds: bounds, policies, accounts, fairness."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import FakeServer
from tests.worlds import (
    Listener,
    Turns,
    assert_nothing_left,
    buffered,
    consume,
    has_ended,
    open_world,
    payloads,
    run,
    seam,
    settled,
    subscribed,
)
from trionats import Client, Msg, Subscription, errors, events, open_events, open_subscription
from trionats._feeds.bounded import Overflow
from trionats._feeds.pace import TRIP_MESSAGES, TRIP_SECONDS
from trionats._open.event_feed import EVENTS_CAPACITY

HEADERS = b"NATS/1.0\r\nA: b\r\n\r\n"

each_overflow = pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "fail"])


async def arrive(server: FakeServer, nc: Client, *payloads: bytes, headers: bytes = b"") -> None:
    """Let messages come, in one segment."""
    for payload in payloads:
        server.publish("a", payload, headers=headers)
    await nc.flush()


def numbered(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last + 1)]


async def take(rx: Subscription) -> None:
    with suppress(errors.SlowConsumerError):
        await rx.receive()


async def rest(rx: Subscription) -> list[bytes]:
    rx.stop()
    return await payloads(rx)


# -- opening -----------------------------------------------------------------------------------------------------------


async def test_what_is_sent() -> None:
    async with open_world() as (server, nc, nursery):
        async with (
            open_subscription(nursery, nc, "a.*.>") as plain,
            open_subscription(nursery, nc, "b", queue="busy", max_msgs=3) as limited,
        ):
            await nc.flush()
            table = [(s.subject, s.queue, s.limit) for s in server.subscriptions]
            assert table == [("a.*.>", "", 0), ("b", "busy", 3)]
            assert (plain.subject, limited.subject) == ("a.*.>", "b")
            assert nc.statistics().subscriptions == 2
            assert nc.statistics().feeds == ("subscription 'a.*.>'", "subscription 'b'")
        await nc.flush()
        assert server.subscriptions == []
        assert_nothing_left(nc)


@pytest.mark.parametrize(
    ("subject", "options", "error", "text"),
    [
        ("a b", {}, errors.BadSubjectError, "a b"),
        ("", {}, errors.BadSubjectError, "''"),
        ("a..b", {}, errors.BadSubjectError, "a..b"),
        ("a", {"queue": "q q"}, errors.BadSubjectError, "q q"),
        ("a", {"max_msgs": -1}, ValueError, "max_msgs is -1"),
        ("a", {"pending_msgs_limit": 0}, ValueError, "pending_msgs_limit"),
        ("a", {"pending_bytes_limit": 0}, ValueError, "pending_bytes_limit"),
        ("a", {"overflow": "explode"}, ValueError, "overflow is 'explode'"),
        ("a", {"max_msgs": 1.5}, TypeError, "max_msgs"),
        ("a", {"max_msgs": None}, TypeError, "max_msgs"),
        ("a", {"pending_msgs_limit": "x"}, TypeError, "pending_msgs_limit"),
        ("a", {"pending_bytes_limit": ""}, TypeError, "pending_bytes_limit"),
    ],
)
async def test_misuse_leaves_nothing(subject: str, options: dict[str, Any], error: type[Exception], text: str) -> None:
    async with open_world() as (server, nc, nursery):
        await settled()
        sent = len(server.link.received)
        with pytest.raises(error, match=text):
            async with open_subscription(nursery, nc, subject, **options):
                pytest.fail("it was opened")
        await settled()
        assert len(server.link.received) == sent
        assert not nursery.child_tasks
        assert_nothing_left(nc)


# -- bounds ------------------------------------------------------------------------------------------------------------


async def test_fail_ends_the_feed_after_what_is_buffered() -> None:
    async with subscribed(pending_msgs_limit=3) as (server, nc, rx):
        await arrive(server, nc, *numbered(1, 5))
        assert [(await rx.receive()).data for _ in range(3)] == numbered(1, 3)
        with pytest.raises(errors.SlowConsumerError, match="subscription 'a': 3 messages, 3 bytes wait") as caught:
            await rx.receive()
        assert caught.value.subject == "a"
        assert repr(caught.value.sub) == repr(rx)
        assert rx.statistics().dropped == 1
        assert rx.statistics().delivered == 4
        await nc.flush()
        assert server.subscriptions == []


@pytest.mark.parametrize(("overflow", "first"), [("drop_new", 1), ("drop_old", 3)])
async def test_what_is_dropped(overflow: Overflow, first: int) -> None:
    async with subscribed(pending_msgs_limit=3, overflow=overflow) as (server, nc, rx):
        await arrive(server, nc, *numbered(1, 5))
        assert rx.statistics().dropped == 2
        assert rx.statistics().pending_bytes == 3
        assert await rest(rx) == numbered(first, first + 2)


@each_overflow
async def test_bytes_bound_with_headers(overflow: Overflow) -> None:
    size = len(HEADERS) + 10
    async with subscribed(pending_bytes_limit=2 * size, overflow=overflow) as (server, nc, rx):
        await arrive(server, nc, *[bytes(10)] * 3, headers=HEADERS)
        statistics = rx.statistics()
        assert (statistics.pending_msgs, statistics.pending_bytes) == (2, 2 * size)
        assert statistics.dropped == 1
        assert statistics.max_pending_msgs == 2


async def test_a_message_that_never_fits() -> None:
    async with subscribed(pending_bytes_limit=5, overflow="drop_old") as (server, nc, rx):
        await arrive(server, nc, b"1", b"too long", b"2")
        assert rx.statistics().dropped == 1
        assert await rest(rx) == [b"1", b"2"]


@each_overflow
async def test_what_a_parked_consumer_was_handed_fills_no_bound(overflow: Overflow) -> None:
    """The message is the consumer's before the consumer has run: no reason to drop, and nothing there to drop."""
    async with subscribed(pending_bytes_limit=10, overflow=overflow) as (server, nc, rx):
        received: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume, rx, received)
            await settled()
            await arrive(server, nc, bytes(10), bytes(5))
            await settled()
            rx.stop()
        assert [len(data) for data in received] == [10, 5]
        assert rx.statistics().dropped == 0
        assert rx.statistics().pending_bytes == 0


@each_overflow
async def test_the_last_of_max_msgs_is_too_much(overflow: Overflow) -> None:
    """The message that completes the count also overflows: one of the two ends the feed, and the reader lives."""
    async with subscribed(max_msgs=3, pending_msgs_limit=2, overflow=overflow) as (server, nc, rx):
        await arrive(server, nc, *numbered(1, 5))
        kept = numbered(2, 3) if overflow == "drop_old" else numbered(1, 2)
        assert [(await rx.receive()).data for _ in range(2)] == kept
        with pytest.raises(errors.SlowConsumerError if overflow == "fail" else trio.EndOfChannel):
            await rx.receive()
        await nc.flush()
        assert nc.is_connected
        assert server.subscriptions == []


@pytest.mark.parametrize("bound", [{"pending_msgs_limit": 10}, {"pending_bytes_limit": 10}])
@pytest.mark.parametrize("overflow", ["drop_new", "drop_old"])
async def test_one_event_for_each_episode(overflow: Overflow, bound: dict[str, Any]) -> None:
    async with subscribed(overflow=overflow, **bound) as (server, nc, rx), trio.open_nursery() as nursery:
        async with open_events(nursery, nc) as told:
            await arrive(server, nc, *[b"x"] * 1010)
            assert rx.statistics().dropped == 1000
            for _ in range(3):  # a consumer that takes one now and then is slow all the same
                await rx.receive()
                await arrive(server, nc, b"x", b"x")
            assert rx.statistics().dropped == 1003
            for _ in range(5):
                await rx.receive()
            await arrive(server, nc, *[b"x"] * 6)
            told.stop()
            assert [event async for event in told] == [events.SlowConsumer("a", count) for count in (1, 1004)]


async def test_one_slow_consumer_is_nobody_elses_problem() -> None:
    async with open_world() as (server, nc, nursery):
        async with (
            open_subscription(nursery, nc, "a", pending_msgs_limit=1, overflow="drop_new") as slow,
            open_subscription(nursery, nc, "a", pending_msgs_limit=1, overflow="fail") as failing,
            open_subscription(nursery, nc, "a") as quick,
        ):
            await nc.flush()
            await arrive(server, nc, *numbered(1, 10_000))
            await nc.publish("elsewhere", b"still possible")
            assert slow.statistics().dropped == 9_999
            assert len(failing) == 1
            assert [msg.data for msg in [await quick.receive() for _ in range(10_000)]] == numbered(1, 10_000)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.lists(st.integers(0, 12), max_size=6)),
        st.tuples(st.just("arrive with headers"), st.lists(st.integers(0, 12), max_size=3)),
        st.tuples(st.just("receive"), st.just([])),
        st.tuples(st.just("receive_nowait"), st.just([])),
        st.tuples(st.just("cancelled"), st.lists(st.integers(0, 12), max_size=2)),
        st.tuples(st.just("parked"), st.lists(st.integers(0, 12), max_size=4)),
    ),
    max_size=25,
)


@given(STEPS, st.sampled_from(["drop_new", "drop_old", "fail"]), st.integers(1, 6), st.integers(1, 60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_account_is_true(
    steps: Sequence[tuple[str, list[int]]], overflow: Overflow, most: int, most_bytes: int
) -> None:
    """Whatever comes and goes, the bytes said to wait are those of the messages that do."""
    async with subscribed(pending_msgs_limit=most, pending_bytes_limit=most_bytes, overflow=overflow) as (
        server,
        nc,
        rx,
    ):
        received: list[Msg] = []
        for step, sizes in steps:
            if step.startswith("arrive"):
                headers = HEADERS if step.endswith("headers") else b""
                await arrive(server, nc, *map(bytes, sizes), headers=headers)
            elif step == "receive" and len(rx):
                received.append(await rx.receive())
            elif step == "receive_nowait" and len(rx):
                received.append(rx.receive_nowait())
            elif step == "cancelled":
                with trio.CancelScope() as scope:
                    if not len(rx) and not has_ended(rx):
                        # Cancelled in the very moment in which something comes.
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(take, rx)
                            await settled()
                            for size in sizes:
                                server.publish("a", bytes(size))
                            nursery.cancel_scope.cancel()
                    else:
                        scope.cancel()
                        await rx.receive()
                await nc.flush()
            elif step == "parked" and not len(rx) and not has_ended(rx):
                async with trio.open_nursery() as nursery:
                    for _ in range(2):
                        nursery.start_soon(take, rx)
                    await settled()
                    await arrive(server, nc, *map(bytes, sizes))
                    nursery.cancel_scope.cancel()
            statistics = rx.statistics()
            waiting = buffered(rx)
            assert statistics.pending_msgs == len(waiting) <= most
            assert statistics.pending_bytes == sum(msg.size for msg in waiting) <= most_bytes
        assert nc.is_connected


async def test_the_most_that_waited() -> None:
    async with subscribed() as (server, nc, rx):
        await arrive(server, nc, *[b"x"] * 1000)
        for _ in range(1000):
            await rx.receive()
        statistics = rx.statistics()
        assert (statistics.delivered, statistics.pending_msgs, statistics.pending_bytes) == (1000, 0, 0)
        assert 1000 - 64 <= statistics.max_pending_msgs <= 1000


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_a_refused_subscription_ends_with_the_reason() -> None:
    server = FakeServer(deny_subscribe=("secret.>",))
    async with open_world(server) as (_, nc, nursery):
        async with (
            open_events(nursery, nc) as told,
            open_subscription(nursery, nc, "open") as other,
            open_subscription(nursery, nc, "secret.place") as refused,
        ):
            with pytest.raises(errors.PermissionsViolationError, match=r"secret\.place") as caught:
                await refused.receive()
            assert (caught.value.operation, caught.value.subject) == ("subscription", "secret.place")
            event = await told.receive()
            assert isinstance(event, events.PermissionViolation)
            assert str(event.error) == str(caught.value)
            server.publish("open", b"x")
            assert (await other.receive()).data == b"x"
            assert nc.statistics().reconnects == 0


async def test_a_refusal_is_told_to_those_who_publish_there() -> None:
    """However many others there are that publish elsewhere: else each of many refusals would be told to all of them."""
    async with open_world(FakeServer(deny_publish=("secret.>",))) as (server, nc, _):
        client = seam(nc)
        askers = [Listener() for _ in range(100)]
        general, closed = Listener(), Listener()
        client.add_listener(general)
        for number, asker in enumerate(askers):
            client.add_listener(asker, refused="secret.before")
            client.add_listener(asker, refused=f"secret.{number}")
        client.remove_listener(askers[7])
        client.remove_listener(askers[7])
        for number in range(100):
            await nc.publish(f"secret.{number}")
        await nc.publish("secret.before")
        server.inject(b"-ERR 'Permissions Violation for Subscription to \"secret.1\"'\r\n")
        await nc.flush()
        told = [[event.error.subject for event in asker.heard(events.PermissionViolation)] for asker in askers]
        assert told == [[f"secret.{number}"] if number != 7 else [] for number in range(100)]
        assert len(general.events) == 102
        client.remove_listener(general)
        await nc.aclose()
        assert (len(general.events), general.ends) == (102, [])
        assert not any(asker.ends for asker in askers)
        client.add_listener(closed)
        client.add_listener(closed, refused="secret.1")
        assert (closed.events, closed.ends) == ([events.Closed(None)], [None])


async def test_many_listeners_leave_without_being_sought() -> None:
    compared = 0

    class Compared(Listener):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        def __hash__(self) -> int:
            return id(self)

    async with open_world() as (_, nc, _nursery):
        listeners = [Compared() for _ in range(300)]
        for listener in listeners:
            seam(nc).add_listener(listener)
        for listener in reversed(listeners):
            seam(nc).remove_listener(listener)
        # Those whose hashes end alike.
        assert compared <= len(listeners)


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opened", [open_events, partial(open_subscription, subject="a")], ids=["events", "subscription"]
)
async def test_no_garbage_is_left(opened: Any) -> None:  # noqa: ANN401 - either, with what it takes
    async with open_world() as (_, nc, nursery):

        async def once() -> None:
            async with opened(nursery, nc):
                await nc.flush()

        await once()
        gc.collect()
        gc.disable()
        try:
            for _again in range(10):
                await once()
            assert gc.collect() < 10
        finally:
            gc.enable()


async def test_events_that_nobody_reads_hold_up_nothing() -> None:
    async with open_world() as (server, nc, nursery), open_events(nursery, nc) as told:
        for _ in range(EVENTS_CAPACITY + 10):
            server.inject(b"-ERR 'whatever'\r\n")
        await nc.flush()
        assert len(told) == EVENTS_CAPACITY
        assert told.dropped == 10
        assert nc.statistics().feeds == ("events",)
        told.stop()
        assert len([event async for event in told]) == EVENTS_CAPACITY


# -- fairness ----------------------------------------------------------------------------------------------------------


def own_turns() -> Turns:
    """Count how often this task is given its turn."""
    me = trio.lowlevel.current_task()
    return Turns(lambda task: task is me)


async def test_a_trip_at_least_every_64_messages_of_the_whole_client(mock_clock: trio.testing.MockClock) -> None:
    async with open_world() as (server, nc, nursery):
        async with open_subscription(nursery, nc, "a") as one, open_subscription(nursery, nc, "a") as two:
            await nc.flush()
            await arrive(server, nc, *[b"x"] * 1000)
            operations = 0
            trips = []
            with own_turns() as turns:
                for _again in range(600):
                    for operation in (one.receive, lambda: nc.publish("b", b"y"), two.receive):
                        before = turns.count
                        await operation()
                        operations += 1
                        if turns.count != before:
                            trips.append(operations)
            gaps = [later - earlier for earlier, later in zip([0, *trips], trips, strict=False)]
            assert max(gaps) == TRIP_MESSAGES
            assert gaps[1:] == [TRIP_MESSAGES] * (len(gaps) - 1)


async def test_a_trip_after_a_millisecond(mock_clock: trio.testing.MockClock) -> None:
    async with subscribed() as (server, nc, rx):
        await arrive(server, nc, *[b"x"] * 100)
        await rx.receive()
        with own_turns() as turns:
            await rx.receive()
            await nc.publish("b")
            assert turns.count == 0
            mock_clock.jump(TRIP_SECONDS)
            await rx.receive()
            assert turns.count == 1
            mock_clock.jump(TRIP_SECONDS)
            await nc.publish("b")
            assert turns.count == 2
            await nc.publish("b")
            assert turns.count == 2


class LoadedMachine(trio.abc.Clock):
    """A clock by which each look at the time takes 50 us: a receive is slow, and a millisecond ends 20 of them."""

    now = 0.0

    def start_clock(self) -> None:
        """Start at 0."""

    def current_time(self) -> float:
        self.now += 0.00005
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0 if deadline <= self.now else 999


@pytest.mark.parametrize("consumers", [1, 3])
def test_a_consumer_that_receives_without_a_pause_keeps_up_also_on_a_loaded_machine(consumers: int) -> None:
    """Far more messages than may wait: the reader gives turns until they are taken, not a number that a fast machine needs."""
    count = 20_000

    async def main() -> None:
        async with subscribed(pending_msgs_limit=1000) as (server, nc, rx), trio.open_nursery() as workers:
            seam(nc).pace.worked = lambda: 0.0  # others have the processor
            for _ in range(consumers):
                workers.start_soon(take_all, rx)
            await settled()
            server.inject(b"MSG a 1 8\r\n12345678\r\n" * count)
            await nc.flush()
            assert rx.statistics().delivered == count
            assert await rx.wait_ended() is None

    async def take_all(rx: Subscription) -> None:
        async for _ in rx:
            if rx.statistics().delivered == count and not len(rx):
                rx.stop()

    run(main, clock=LoadedMachine())


@pytest.mark.parametrize("own", [False, True], ids=["the machine is slow", "its own work is slow"])
def test_a_consumer_that_is_slow_by_its_own_work_holds_up_no_reading(own: bool) -> None:
    """It gets the turns that so many messages are worth, a millisecond each, and no more: the rest waits in its buffer."""
    count = 780 * 10  # ten reads

    async def main() -> None:
        async with subscribed(pending_msgs_limit=2 * count) as (server, nc, rx), trio.open_nursery() as workers:
            # Each message takes 50 us on the clock, and that of the processor's time or nothing.
            seam(nc).pace.worked = (lambda: taken * 0.00005) if own else (lambda: 0.0)
            taken = 0

            async def work() -> None:
                nonlocal taken
                async for _ in rx:
                    taken += 1

            workers.start_soon(work)
            await settled()
            server.inject(b"MSG a 1 8\r\n12345678\r\n" * count)
            await nc.flush()
            # Ten reads, 12 turns each, 20 messages in a turn; what the machine took away is given back.
            assert (taken < 1.5 * 10 * 12 * 20) == own
            workers.cancel_scope.cancel()

    run(main, clock=LoadedMachine())


async def test_a_consumer_that_does_not_receive_holds_up_no_reading(autojump_clock: trio.testing.MockClock) -> None:
    """Somebody else uses all turns of the client: the reader gives its usual share of them, and no more."""

    async def publish() -> None:
        while True:
            await nc.publish("b", b"")

    async with subscribed() as (server, nc, rx), trio.open_nursery() as workers:
        workers.start_soon(publish, name="publish")
        with Turns(lambda task: task.name == "publish") as turns:
            server.inject(b"MSG a 1 8\r\n12345678\r\n" * 6820)
            await nc.flush()
        workers.cancel_scope.cancel()
        assert len(rx) == 6820
        assert 0.9 * 6820 / 64 < turns.count < 1.2 * 6820 / 64


async def test_always_a_cancellation_point() -> None:
    async with subscribed() as (server, nc, rx):
        await arrive(server, nc, *[b"x"] * 100)
        await rx.receive()
        for operation in (rx.receive, lambda: nc.publish("b", b"never")):
            with trio.CancelScope() as scope:
                scope.cancel()
                await operation()
            assert scope.cancelled_caught
        assert len(rx) == 99
        await nc.flush()
        assert server.sent("PUB", "b") == []
