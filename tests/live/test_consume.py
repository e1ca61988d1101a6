"""Reading pull consumers of a real server, for as long as somebody wants, through whatever happens; the server is looked at, too."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import trio

from tests.clusters import make_replicated_stream, open_cluster
from tests.worlds import (
    StreamWorld,
    arrived,
    collect,
    events_until,
    next_event,
    open_live,
    open_stream,
    open_world,
    unique,
    until,
)
from trionats import (
    Client,
    Consumer,
    Feed,
    JetStreamMsg,
    errors,
    events,
    open_client,
    open_consumer,
    open_events,
    open_subscription,
)
from trionats.testing import TrioNatsServer

pytestmark = [pytest.mark.live(seconds=60), pytest.mark.usefixtures("server_executable")]


async def fill(w: StreamWorld, count: int, first: int = 0) -> None:
    """Publish numbers."""
    for number in range(first, first + count):
        await w.nc.publish(w.subject, b"%d" % number)
    await w.js.publish(f"{w.stream.name}.end", b"")
    await w.stream.info()


async def consumer_of(w: StreamWorld, **config: Any) -> Consumer:  # noqa: ANN401 - any field
    return await w.js.create_consumer(
        w.stream.name, **{"durable_name": unique("C"), "filter_subject": w.subject, **config}
    )


async def pending(consumer: Consumer) -> int:
    """How many messages the server has not seen settled."""
    return (await consumer.info()).num_ack_pending or 0


async def settled_all(consumer: Consumer) -> bool:
    info = await consumer.info()
    return (info.num_ack_pending, info.num_pending) == (0, 0)


async def nobody_waits(consumer: Consumer) -> bool:
    return not (await consumer.info()).num_waiting


@asynccontextmanager
async def other_client(server: TrioNatsServer, consumer: Consumer) -> AsyncIterator[tuple[Client, Consumer]]:
    """Give another client of the same server, and the consumer as it sees it."""
    async with trio.open_nursery() as nursery, open_client(nursery, server.url) as nc:
        yield nc, await nc.jetstream().consumer(consumer.stream, consumer.name)


async def work(rx: Feed[JetStreamMsg], seen: list[bytes]) -> None:
    async for msg in rx:
        await msg.ack()
        seen.append(msg.data)


async def test_messages_are_received_in_order_and_acknowledged(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 2000)
        consumer = await consumer_of(w)
        seen: list[int] = []
        async with open_consumer(w.nursery, consumer, max_messages=100, stop_after=2000) as rx:
            async for msg in rx:
                await msg.ack()
                seen.append(int(msg.data))
                assert len(rx) <= 100
        assert seen == list(range(2000))
        await until(partial(settled_all, consumer))
        await until(partial(nobody_waits, consumer))


@pytest.mark.parametrize("options", [{"max_messages": 1}, {"max_bytes": 300}, {"max_messages": 3, "max_bytes": 500}])
async def test_small_credits_do_not_get_stuck(nats_server: TrioNatsServer, options: dict[str, Any]) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 50)
        consumer = await consumer_of(w)
        with trio.fail_after(10):
            async with open_consumer(w.nursery, consumer, stop_after=50, **options) as rx:
                assert [int(msg.data) async for msg in rx] == list(range(50))


async def test_a_cancelled_workers_messages_are_with_another_one_at_once(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 500)
        consumer = await consumer_of(w, ack_wait=30)
        async with other_client(nats_server, consumer) as (_, elsewhere):
            with trio.CancelScope() as worker:
                async with open_consumer(w.nursery, consumer) as rx:
                    await until(lambda: len(rx) == 500)
                    worker.cancel()
                    await trio.lowlevel.checkpoint()
            seen: set[bytes] = set()
            with trio.fail_after(1):
                async with open_consumer(w.nursery, elsewhere, stop_after=500) as rx:
                    async for msg in rx:
                        await msg.ack()
                        seen.add(msg.data)
            assert len(seen) == 500
        await until(partial(settled_all, consumer))


async def test_what_is_left_stays_with_the_ack_wait_where_deliveries_are_limited(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 10)
        consumer = await consumer_of(w, max_deliver=2)
        async with open_consumer(w.nursery, consumer) as rx:
            await until(lambda: len(rx) == 10)
        async with open_consumer(w.nursery, consumer) as rx:
            await w.nc.flush()
            assert await pending(consumer) == 10
            assert not arrived(rx)
        # Whoever says so gives back all the same.
        chosen = await consumer_of(w, max_deliver=2)
        async with open_consumer(w.nursery, chosen, on_leave="nak") as rx:
            await until(lambda: len(rx) == 10)
        async with open_consumer(w.nursery, chosen) as rx:
            await until(lambda: len(rx) == 10, within=20)


async def test_after_stop_what_is_buffered_is_received_and_what_is_on_its_way_given_back(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 100)
        consumer = await consumer_of(w, ack_wait=30)
        async with open_consumer(w.nursery, consumer, max_messages=20) as rx:
            await until(lambda: len(rx) == 20)
            rx.stop()
            rx.stop()
            first = []
            async for msg in rx:
                await msg.ack()
                first.append(msg.data)
            assert len(first) == 20
        async with open_consumer(w.nursery, consumer, stop_after=80) as rx:
            with trio.fail_after(2):
                rest = [msg.data async for msg in rx]
        assert len({*first, *rest}) == 100


async def test_two_workers_never_work_on_one_message_though_one_of_them_is_slower_than_the_ack_wait(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 500)
        consumer = await consumer_of(w, ack_wait=2)
        done: list[bytes] = []
        async with (
            other_client(nats_server, consumer) as (_, elsewhere),
            open_events(w.nursery, w.nc) as told,
            open_consumer(w.nursery, consumer) as slow,
        ):
            await until(lambda: len(slow) == 500)

            async def idle() -> None:
                async for msg in slow:
                    await trio.sleep(0.22)
                    await msg.ack()
                    await w.nc.flush()
                    done.append(msg.data)

            async with trio.open_nursery() as workers, open_consumer(workers, elsewhere) as quick:
                workers.start_soon(idle)
                workers.start_soon(work, quick, done)
                await until(lambda: len(done) >= 500, within=20)
                await until(partial(settled_all, consumer))
                workers.cancel_scope.cancel()
            assert sorted(map(int, done)) == list(range(500))
            with trio.fail_after(2):
                event = await next_event(told, events.MessagesExpired)
            assert event.count > 400


@pytest.mark.parametrize("what", ["consumer", "stream"])
async def test_a_consumer_that_is_deleted_ends_it_within_a_second(nats_server: TrioNatsServer, what: str) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 3)
        consumer = await consumer_of(w)
        seen: list[JetStreamMsg] = []
        async with open_consumer(w.nursery, consumer) as rx:
            await until(lambda: len(rx) == 3)
            if what == "consumer":
                await w.js.delete_consumer(w.stream.name, consumer.name)
            else:
                await w.js.delete_stream(w.stream.name)
            says = f"consumer '{consumer.name}' of stream"
            with trio.fail_after(1), pytest.raises(errors.ConsumerGoneError, match=says):
                await collect(rx, seen)
        assert len(seen) == 3
        with pytest.raises(errors.Error, match="was deleted"):
            await seen[0].ack()


async def test_a_consumer_that_is_not_there_is_an_error_within_a_second(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        missing = await w.js.consumer(w.stream.name, "missing", bind=True)
        async with open_consumer(w.nursery, missing) as rx:
            with trio.fail_after(1), pytest.raises(errors.ConsumerGoneError, match="not found"):
                await rx.receive()


async def test_a_killed_server_is_survived_and_nothing_is_lost() -> None:
    async with open_live(jetstream=True, reconnect_time_wait=0.01) as (server, nc, nursery):
        js = nc.jetstream()
        await js.create_stream(name="S", subjects=["s"])
        for number in range(1000):
            await nc.publish("s", b"%d" % number)
        await js.publish("s", b"1000")
        consumer = await js.create_consumer("S", durable_name="C", ack_wait=2)
        seen: list[int] = []

        async def read(rx: Feed[JetStreamMsg]) -> None:
            async for msg in rx:
                seen.append(int(msg.data))
                await msg.ack()
                if len(seen) in (100, 500):
                    await server.kill()
                    await server.start()

        async with open_consumer(nursery, consumer, max_messages=50) as rx:
            nursery.start_soon(read, rx)
            await until(lambda: set(seen) == set(range(1001)), within=20)
            await until(partial(settled_all, consumer))


async def test_the_reader_sleeps_and_its_ephemeral_consumer_is_kept_alive(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 30)
        consumer = await w.js.create_consumer(w.stream.name, filter_subject=w.subject, inactive_threshold=0.5)
        async with open_consumer(w.nursery, consumer, max_messages=10, stop_after=30) as rx:
            await until(lambda: len(rx) == 10)
            await trio.sleep(2)
            assert len(rx) == 10
            info = await consumer.info()
            assert (info.num_pending, info.num_redelivered) == (20, 0)
            assert [int(msg.data) async for msg in rx] == list(range(30))


async def test_an_ephemeral_consumer_whose_acknowledgements_are_due_is_kept_alive_as_well(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 30)
        config: dict[str, Any] = {"filter_subject": w.subject, "inactive_threshold": 0.5, "max_ack_pending": 10}
        consumer = await w.js.create_consumer(w.stream.name, **config)
        async with open_consumer(w.nursery, consumer, max_messages=10) as rx:
            await until(lambda: len(rx) == 10)
            await trio.sleep(2)
            info = await consumer.info()
            assert (info.num_ack_pending, info.num_waiting) == (10, 0) or info.num_waiting == 1


async def test_a_message_larger_than_what_was_chosen_is_an_error_with_both_sizes(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await consumer_of(w)
        await w.js.publish(w.subject, bytes(100))
        await w.js.publish(w.subject, bytes(5000))
        async with open_consumer(w.nursery, consumer, max_bytes=1000) as rx:
            await (await rx.receive()).ack()
            with trio.fail_after(2), pytest.raises(errors.BadRequestError) as caught:
                await rx.receive()
        size = int(str(caught.value).split(" has ")[1].split(",")[0])
        async with open_consumer(w.nursery, consumer, max_bytes=10_000) as rx:
            msg = await rx.receive()
            assert abs(size - len(msg.subject) - len(msg.reply) - msg.size) < 5
        assert "max_bytes is 1000" in str(caught.value)


async def test_a_message_larger_than_the_usual_credit_comes_alone(
    nats_server: TrioNatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trionats._protocol.jetstream.consumers.demand.MAX_BYTES", 1000)
    async with open_stream(nats_server) as w:
        consumer = await consumer_of(w)
        for size in (10, 5000, 20, 3000, 30):
            await w.js.publish(w.subject, bytes(size))
        async with open_consumer(w.nursery, consumer, stop_after=5) as rx:
            with trio.fail_after(5):
                assert [len(msg.data) async for msg in rx] == [10, 5000, 20, 3000, 30]


@pytest.mark.parametrize(
    ("config", "limit"),
    [({"max_batch": 5}, "MaxRequestBatch of 5"), ({"max_expires": 2.0}, "MaxRequestExpires of 2s")],
)
async def test_limits_that_are_not_known_are_told_and_kept_to(
    nats_server: TrioNatsServer, config: dict[str, Any], limit: str
) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 50)
        made = await consumer_of(w, **config)
        known: list[JetStreamMsg] = []
        async with open_events(w.nursery, w.nc) as told:
            async with open_consumer(w.nursery, made, stop_after=20) as rx:
                with trio.fail_after(2):
                    await collect(rx, known)
            assert not arrived(told, events.ConsumerLimitExceeded)
            bound = await w.js.consumer(w.stream.name, made.name, bind=True)
            async with open_consumer(w.nursery, bound, stop_after=30) as rx:
                with trio.fail_after(5):
                    await collect(rx, known)
            (event,) = arrived(told, events.ConsumerLimitExceeded)
            assert limit in event.limit
        assert len({msg.data for msg in known}) == 50


async def test_two_readers_of_a_consumer_with_one_place_both_get_on_and_are_told(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await consumer_of(w, max_waiting=1)
        bound = await w.js.consumer(w.stream.name, consumer.name, bind=True)
        counts = [0, 0]

        async def read(index: int, what: Consumer) -> None:
            async with open_consumer(readers, what, max_messages=2, expires=30, heartbeat=0.5) as rx:
                async for msg in rx:
                    counts[index] += 1
                    await trio.sleep(0.05)
                    await msg.ack()

        async with open_events(w.nursery, w.nc) as told, trio.open_nursery() as readers:
            readers.start_soon(read, 0, consumer)
            readers.start_soon(read, 1, bound)
            # Nothing comes, so one of them has the place for half a minute.
            with trio.fail_after(20):
                event = await next_event(told, events.ConsumerLimitExceeded)
            assert "MaxWaiting" in event.limit
            await fill(w, 2000)
            await until(lambda: min(counts) >= 5, within=20)
            # At most one a second.
            assert len(arrived(told, events.ConsumerLimitExceeded)) <= 10
            readers.cancel_scope.cancel()


async def test_the_pinned_reader_is_followed_by_another_within_its_time(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        config: dict[str, Any] = {"priority_groups": ["g"], "priority_policy": "pinned_client", "priority_timeout": 1.0}
        consumer = await consumer_of(w, **config)
        other = await w.js.consumer(w.stream.name, consumer.name)
        numbers = itertools.count()

        async def publish() -> None:
            while True:
                await w.js.publish(w.subject, b"%d" % next(numbers))
                await trio.sleep(0.02)

        seen: list[bytes] = []
        async with open_events(w.nursery, w.nc) as told, trio.open_nursery() as others:
            others.start_soon(publish)
            async with open_consumer(others, other, group="g") as second:
                async with open_consumer(others, consumer, group="g") as first:
                    with trio.fail_after(5):
                        await next_event(told, events.ConsumerPinned)
                    pinned, waiting = (first, second) if len(first) else (second, first)
                    for _ in range(20):
                        await (await pinned.receive()).ack()
                    assert not len(waiting)
                    pinned.stop()
                    others.start_soon(work, waiting, seen)
                    await until(lambda: len(seen) > 20, within=20)
                    others.cancel_scope.cancel()


async def test_who_is_no_longer_pinned_is_told_and_goes_on_when_it_is_again(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        config: dict[str, Any] = {
            "priority_groups": ["g"],
            "priority_policy": "pinned_client",
            "priority_timeout": 60.0,
        }
        consumer = await consumer_of(w, **config)
        async with (
            open_events(w.nursery, w.nc) as told,
            open_consumer(w.nursery, consumer, group="g", max_messages=2) as rx,
        ):
            await fill(w, 6)
            await next_event(told, events.ConsumerPinned)
            await w.nc.request(f"$JS.API.CONSUMER.UNPIN.{consumer.stream}.{consumer.name}", b'{"group": "g"}')
            with trio.fail_after(5):
                for _ in range(6):
                    await (await rx.receive()).ack()
                await next_event(told, events.ConsumerUnpinned)
                await next_event(told, events.ConsumerPinned)


async def test_a_consumer_that_is_paused_is_waited_for(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await consumer_of(w)
        async with (
            open_events(w.nursery, w.nc) as told,
            open_consumer(w.nursery, consumer, expires=1, heartbeat=0.5) as rx,
        ):
            until_then = datetime.now(UTC) + timedelta(seconds=3)
            await w.js.pause_consumer(consumer.stream, consumer.name, until_then.isoformat())
            await fill(w, 1)
            with trio.fail_after(5):
                await (await rx.receive()).ack()
            assert datetime.now(UTC) >= until_then
            assert not arrived(told, events.ConsumerEvent)


async def test_the_last_of_each_subject_comes_though_others_were_deleted_meanwhile(nats_server: TrioNatsServer) -> None:
    """The consumer stands still at each of those until something wakes it."""
    async with open_stream(nats_server) as w:
        for number in range(20):
            await w.js.publish(f"{w.stream.name}.{number}", b"%d" % number)
        policy = {"deliver_policy": "last_per_subject", "filter_subject": f"{w.stream.name}.*"}
        readers = [await consumer_of(w, **policy) for _ in range(2)]
        for seq in (8, 9):
            await w.stream.delete_msg(seq)
        rest = [number for number in range(20) if number not in (7, 8)]
        with trio.fail_after(5):
            async with open_consumer(w.nursery, readers[0], stop_after=18) as rx:
                assert [int(msg.data) async for msg in rx] == rest
        fetched: list[int] = []
        with trio.fail_after(5):
            while len(fetched) < 18:
                messages = await readers[1].fetch(6)
                assert messages
                fetched += [int(msg.data) for msg in messages]
        assert fetched == rest


async def test_overflow_helps_when_enough_waits(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await consumer_of(w, priority_groups=["g"], priority_policy="overflow")
        async with open_consumer(w.nursery, consumer, group="g", min_pending=20, max_messages=10) as rx:
            await fill(w, 10)
            await w.nc.flush()
            assert not len(rx)
            await fill(w, 20, 10)
            await until(lambda: len(rx) == 10)


async def test_the_first_priority_is_served_first(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await consumer_of(w, priority_groups=["g"], priority_policy="prioritized")
        async with (
            open_consumer(w.nursery, consumer, group="g", priority=5) as second,
            open_consumer(w.nursery, consumer, group="g", priority=1) as first,
        ):
            await until(lambda: consumer_waits(consumer, 2))
            await fill(w, 20)
            await until(lambda: len(first) == 20)
            assert not len(second)


async def consumer_waits(consumer: Consumer, count: int) -> bool:
    return (await consumer.info()).num_waiting == count


async def test_a_drain_hands_over_what_is_buffered_while_acknowledgements_still_go_out(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 50)
        consumer = await consumer_of(w, ack_wait=30)
        seen: list[bytes] = []
        async with trio.open_nursery() as nursery, open_client(nursery, nats_server.url) as nc:
            mine = await nc.jetstream().consumer(consumer.stream, consumer.name)
            async with open_consumer(nursery, mine, max_messages=50) as rx:
                await until(lambda: len(rx) == 50)
                async with trio.open_nursery() as workers:
                    workers.start_soon(work, rx, seen)
                    await nc.drain()
        assert len(seen) == 50
        assert await settled_all(consumer)


async def test_closing_gives_back_what_is_buffered_and_ends_the_loop(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 50)
        consumer = await consumer_of(w, ack_wait=30)
        async with trio.open_nursery() as nursery, open_client(nursery, nats_server.url) as nc:
            mine = await nc.jetstream().consumer(consumer.stream, consumer.name)
            async with open_consumer(nursery, mine, max_messages=50) as rx:
                held = await rx.receive()
                await until(lambda: len(rx) == 49)
                await nc.aclose()
                assert [msg async for msg in rx] == []
                with pytest.raises(errors.ConnectionClosedError):
                    await held.ack()
        async with open_consumer(w.nursery, consumer, stop_after=49) as rx:
            with trio.fail_after(1):
                assert len({msg.data async for msg in rx}) == 49


@pytest.mark.level(4)
async def test_a_new_reader_has_no_more_than_its_own_though_the_consumer_was_set_back(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 20)
        consumer = await consumer_of(w)
        async with open_consumer(w.nursery, consumer, max_messages=5) as rx:
            await until(lambda: len(rx) == 5)
            await w.js.reset_consumer(consumer.stream, consumer.name)
            numbers: list[int] = []
            with trio.fail_after(5):
                while len(numbers) < 20:
                    msg = await rx.receive()
                    await msg.ack()
                    numbers.append(int(msg.data))
        assert set(numbers) == set(range(20))


@pytest.mark.parametrize("bind", [False, True])
@pytest.mark.level(4)
async def test_what_is_buffered_of_a_consumer_that_was_set_back_is_dropped_and_no_more_than_that(
    nats_server: TrioNatsServer, *, bind: bool
) -> None:
    async with open_stream(nats_server) as w, open_events(w.nursery, w.nc) as told:
        await fill(w, 20)
        made = await consumer_of(w)
        # Another context: it knows nothing of the consumer that it does not ask.
        consumer = await w.nc.jetstream().consumer(made.stream, made.name, bind=bind)
        async with open_consumer(w.nursery, consumer, max_messages=20) as rx:
            await until(lambda: len(rx) == 20)
            await consumer.reset()
            # Now its ack wait is known, also to whoever only bound it.
            await consumer.info()
            with trio.fail_after(5):
                while not await settled_all(consumer):
                    msg = await rx.receive()
                    await msg.ack_sync()
        assert sum(event.count for event in arrived(told, events.MessagesExpired)) == 20


async def test_the_whole_ack_wait_is_left_to_who_receives_and_in_progress_is_said_where_it_is_needed(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, 3)
        made = await consumer_of(w)
        bound = await w.nc.jetstream().consumer(made.stream, made.name, bind=True)
        async with open_subscription(w.nursery, w.nc, f"$JS.ACK.{made.stream}.>") as verdicts:
            async with open_consumer(w.nursery, bound, max_messages=1) as rx:
                await (await rx.receive()).ack()
                # Looked at while it is read: its ack wait is known from here on.
                await bound.info()
                for _ in range(2):
                    await (await rx.receive()).ack()
            await w.nc.flush()
            assert [msg.data for msg in arrived(verdicts)] == [b"+ACK"] * 3


async def test_leaders_step_down_and_a_message_comes_within_a_second_and_a_half() -> None:
    async with (
        open_cluster(jetstream=True) as cluster,
        open_world(cluster.servers["n1"], cluster.urls) as (_, nc, nursery),
    ):
        js = nc.jetstream()
        await make_replicated_stream(nc, "s")
        consumer = await js.create_consumer("S", durable_name="C", ack_wait=2, num_replicas=3)
        confirmed: set[bytes] = set()
        left: set[bytes] = set()
        seen: list[bytes] = []
        numbers = itertools.count()

        async def publish() -> bytes:
            data = b"%d" % next(numbers)
            while True:
                try:
                    with trio.move_on_after(1):
                        await js.publish("s", data, msg_id=data.decode())
                        return data
                except errors.Error:
                    await trio.sleep(0.05)

        async with open_consumer(nursery, consumer, heartbeat=0.5) as rx:
            for what in ("CONSUMER.LEADER.STEPDOWN.S.C", "STREAM.LEADER.STEPDOWN.S", "CONSUMER.LEADER.STEPDOWN.S.C"):
                assert json.loads((await nc.request(f"$JS.API.{what}", b"")).data)["success"]
                data = await publish()
                with trio.fail_after(1.5):
                    while True:
                        msg = await rx.receive()
                        assert msg.data not in confirmed
                        seen.append(msg.data)
                        # Every other one is confirmed at once, and the others are not until they come again.
                        if int(msg.data) % 2 or msg.data in left:
                            await msg.ack_sync()
                            confirmed.add(msg.data)
                        else:
                            left.add(msg.data)
                        if msg.data == data:
                            break
            await publish()
            with trio.fail_after(10):
                while not left <= confirmed:
                    msg = await rx.receive()
                    assert msg.data not in confirmed
                    await msg.ack_sync()
                    confirmed.add(msg.data)
        assert len(seen) >= 3
        assert left


async def test_a_planned_move_loses_nothing() -> None:
    """What was not acknowledged before the old server went may come again."""
    async with (
        open_cluster(jetstream=True) as cluster,
        open_world(cluster.servers["n1"], cluster.urls) as (_, nc, nursery),
        open_events(nursery, nc) as told,
    ):
        js = nc.jetstream()
        await make_replicated_stream(nc, "s")
        consumer = await js.create_consumer("S", durable_name="C", num_replicas=3, ack_wait=2)
        async with (
            open_client(nursery, [url for url in cluster.urls if url != nc.connected_url]) as other,
            open_consumer(nursery, consumer, heartbeat=0.5) as rx,
        ):
            seen: list[bytes] = []
            nursery.start_soon(work, rx, seen)
            cluster.node(nc).lame_duck()
            for number in range(200):
                with trio.fail_after(10):
                    while True:
                        try:
                            with trio.move_on_after(1):
                                await other.jetstream().publish("s", b"%d" % number, msg_id=f"{number}")
                                break
                        except errors.Error:
                            await trio.sleep(0.05)
                await trio.sleep(0.01)
            with trio.fail_after(10):
                await events_until(told, events.Moved, events.Reconnected)
            await until(lambda: {int(data) for data in seen} == set(range(200)), within=20)
            await until(partial(settled_all, consumer), within=20)
