"""Fetching from a real server: what comes, and what the server says of the consumer afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.clusters import make_replicated_stream, open_cluster
from tests.worlds import StreamWorld, numbers, open_live, open_stream, until
from trionats import Consumer, api, errors, open_client
from trionats.testing import TrioNatsServer, open_server

GROUP: dict[str, Any] = {"priority_groups": ["g"]}


async def publish(w: StreamWorld, *numbers: int) -> None:
    for number in numbers:
        await w.js.publish(w.subject, b"%d" % number)


async def later(seconds: float, call: Callable[..., Awaitable[object]], *args: object) -> None:
    await trio.sleep(seconds)
    await call(*args)


@asynccontextmanager
async def open_fetching(
    server: TrioNatsServer,
    stored: int = 0,
    **config: Any,  # noqa: ANN401 - any field
) -> AsyncIterator[tuple[StreamWorld, Consumer]]:
    """Make a stream with messages that say their number, and a consumer."""
    async with open_stream(server) as w:
        await publish(w, *range(1, stored + 1))
        yield w, await w.js.create_consumer(w.stream.name, name="C", **config)


async def test_count_bytes_no_wait_and_time(nats_server: TrioNatsServer) -> None:
    async with open_fetching(nats_server, 10) as (_, consumer):
        assert numbers(await consumer.fetch(3)) == [1, 2, 3]
        one = await consumer.next()
        assert one is not None
        size = len(one.subject) + len(one.reply) + one.size
        assert numbers(await consumer.fetch(9, max_bytes=2 * size)) == [5, 6], (
            "used up to the byte: the server says nothing"
        )
        assert numbers(await consumer.fetch(9, max_bytes=2 * size - 1)) == [7]
        with trio.fail_after(1):
            assert numbers(await consumer.fetch(9, no_wait=True)) == [8, 9, 10]
            assert await consumer.fetch(9, no_wait=True) == []
            assert await consumer.fetch(9, expires=0.2) == []
            assert await consumer.next(expires=0.2) is None
        info = await consumer.info()
        assert (info.num_ack_pending, info.num_waiting) == (10, 0)


async def test_what_was_acknowledged_is_settled(nats_server: TrioNatsServer) -> None:
    async with open_fetching(nats_server, 500) as (w, consumer):
        messages = await consumer.fetch(500)
        for msg in messages:
            await msg.ack()
        await w.nc.flush()

        async def settled() -> bool:
            return (await consumer.info()).num_ack_pending == 0

        await until(settled, within=20)
        assert numbers(messages) == list(range(1, 501))


async def test_a_part_of_a_batch_is_returned_before_a_deadline(nats_server: TrioNatsServer) -> None:
    async with open_fetching(nats_server, 2) as (_, consumer):
        with trio.move_on_after(0.5) as scope:
            assert numbers(await consumer.fetch(100, expires=30)) == [1, 2]
        assert not scope.cancelled_caught
        info = await consumer.info()
        assert (info.num_ack_pending, info.num_waiting) == (2, 0)


async def test_a_cancelled_fetch_is_at_once_somebody_elses(nats_server: TrioNatsServer) -> None:
    """500 messages in hand, and an ack wait of half a minute: another worker has them all within a second."""
    async with open_fetching(nats_server, 500) as (w, consumer):
        with trio.CancelScope() as scope:
            w.nursery.start_soon(later, 0.3, _cancel, scope)
            await consumer.fetch(501)
        assert scope.cancelled_caught
        with trio.fail_after(1):
            messages = await consumer.fetch(500)
        assert sorted(numbers(messages)) == list(range(1, 501))
        assert {msg.metadata.num_delivered for msg in messages} == {2}


async def test_a_cancelled_fetch_takes_nothing_that_comes_later(nats_server: TrioNatsServer) -> None:
    async with open_fetching(nats_server) as (w, consumer):
        with trio.CancelScope() as scope:
            w.nursery.start_soon(later, 0.1, _cancel, scope)
            await consumer.fetch(5, expires=10)
        assert scope.cancelled_caught
        await publish(w, 1, 2, 3, 4, 5)
        with trio.fail_after(1):
            messages = await consumer.fetch(5)
        assert [(int(msg.data), msg.metadata.num_delivered) for msg in messages] == [(n, 1) for n in range(1, 6)]


async def _cancel(scope: trio.CancelScope) -> None:
    scope.cancel()


async def test_two_fetches_on_one_consumer_share_what_there_is(nats_server: TrioNatsServer) -> None:
    async with open_fetching(nats_server) as (w, consumer):
        found: list[list[int]] = []

        async def fetch() -> None:
            found.append(numbers(await consumer.fetch(10)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            nursery.start_soon(fetch)
            await publish(w, *range(1, 21))
        assert [len(each) for each in found] == [10, 10]
        assert sorted(found[0] + found[1]) == list(range(1, 21))
        assert all(each == sorted(each) for each in found)


@pytest.mark.parametrize("what", ["consumer", "stream"])
async def test_a_consumer_deleted_meanwhile_is_told_at_once(what: str, nats_server: TrioNatsServer) -> None:
    async with open_fetching(nats_server) as (w, consumer):
        name = w.stream.name
        delete = w.js.delete_consumer(name, "C") if what == "consumer" else w.js.delete_stream(name)
        w.nursery.start_soon(later, 0.2, lambda: delete)
        with trio.fail_after(1), pytest.raises(errors.ConsumerGoneError, match=r": it was deleted, or its stream$"):
            await consumer.fetch(5)
        text = "consumer not found" if what == "consumer" else "stream not found"
        with (
            trio.fail_after(1),
            pytest.raises(errors.ConsumerGoneError, match=rf"^consumer 'C' of stream '{name}': {text}") as caught,
        ):
            await consumer.next()
        assert (caught.value.stream, caught.value.consumer) == (name, "C")
        assert caught.value.err_code == (10014 if what == "consumer" else 10059)


async def test_what_the_consumer_does_not_allow_is_named(nats_server: TrioNatsServer) -> None:
    limits = {"max_batch": 5, "max_expires": 1, "max_bytes": 1000, "max_waiting": 1}
    async with open_fetching(nats_server, **limits) as (w, consumer):
        for options, said in {
            (("batch", 6), ("expires", 0.5)): "batch is 6: 409 Exceeded MaxRequestBatch of 5",
            (("batch", 1), ("expires", 2.0)): "expires is 2.0: 409 Exceeded MaxRequestExpires of 1s",
            (
                ("batch", 1),
                ("expires", 0.5),
                ("max_bytes", 1001),
            ): "max_bytes is 1001: 409 Exceeded MaxRequestMaxBytes of 1000",
        }.items():
            arguments: dict[str, Any] = dict(options)
            with pytest.raises(errors.BadRequestError) as caught:
                await consumer.fetch(**arguments)
            assert str(caught.value) == f"fetch from consumer 'C' of stream '{w.stream.name}': {said}"

        async def wait() -> None:
            assert await consumer.fetch(1, expires=1) == []

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await w.nc.flush()
            with pytest.raises(errors.BadRequestError, match=r": 409 Exceeded MaxWaiting$"):
                await consumer.fetch(1, expires=0.9)
            with pytest.raises(errors.BadRequestError, match=r"1 requests wait for it, and its max_waiting is 1"):
                await consumer.fetch(1, expires=0.9, heartbeat=0.2)


async def test_a_message_larger_than_max_bytes_is_named_with_its_size_as_the_server_counts_it(
    nats_server: TrioNatsServer,
) -> None:
    """What is said is just enough, and one byte less is not."""
    async with open_fetching(nats_server) as (w, consumer):
        await w.js.publish(w.subject, bytes(300), headers={"A": "b"})
        with pytest.raises(
            errors.BadRequestError, match=r"max_bytes is 50: the next message \(sequence 1\) has \d+, "
        ) as caught:
            await consumer.fetch(9, max_bytes=50)
        size = int(str(caught.value).split(" has ")[1].split(",")[0])
        with pytest.raises(errors.BadRequestError, match=rf"max_bytes is {size - 1}: "):
            await consumer.fetch(9, max_bytes=size - 1)
        assert len(await consumer.fetch(9, max_bytes=size, expires=0.2)) == 1


async def test_a_push_consumer_is_not_fetched_from(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await w.js.add_consumer(w.stream.name, name="C", deliver_subject="d")
        consumer = await w.js.consumer(w.stream.name, "C")
        with pytest.raises(ValueError, match=r"is push based"):
            await consumer.fetch(1)
        bound = await w.js.consumer(w.stream.name, "C", bind=True)
        with pytest.raises(errors.BadRequestError, match=r"409 Consumer is push based$"):
            await bound.fetch(1)


@pytest.mark.parametrize("signal", ["stop", "kill"])
async def test_a_server_that_goes_returns_what_came_and_the_next_one_is_asked(signal: str) -> None:
    async with (
        open_live(jetstream=True, reconnect_time_wait=0.05) as (server, nc, nursery),
    ):
        js = nc.jetstream()
        await js.create_stream(name="S", subjects=["s"], storage=api.StorageType.FILE)
        consumer = await js.create_consumer("S", durable_name="C")
        await js.publish("s", b"1")

        async def restart() -> None:
            await trio.sleep(0.2)
            await getattr(server, signal)()
            await server.start()

        nursery.start_soon(restart)
        with trio.fail_after(2):
            first = await consumer.fetch(2, expires=30)
        assert numbers(first) == [1]
        await nc.wait_connected()
        await first[0].ack()
        await nc.flush()
        nursery.start_soon(restart)

        async def publish_then() -> None:
            await until(lambda: nc.statistics().reconnects == 2, within=20)
            await js.publish("s", b"2")

        nursery.start_soon(publish_then)
        with trio.fail_after(20):
            assert numbers(await consumer.fetch(1, expires=25)) == [2]


@pytest.mark.level(4)
async def test_acknowledgements_in_their_new_form(server_executable: object) -> None:
    async with (
        open_server("feature_flags { js_ack_fc_v2: true }", jetstream=True) as server,
        open_fetching(server, 3) as (w, consumer),
    ):
        messages = await consumer.fetch(3)
        assert messages[0].reply.startswith("$JS.ACK._.")
        for msg in messages:
            await msg.ack()
        await w.nc.flush()
        assert numbers(await consumer.fetch(9, no_wait=True)) == []
        await publish(w, 4)
        with pytest.raises(errors.BadRequestError, match=r"max_bytes is 5: the next message \(sequence 4\) has"):
            await consumer.fetch(1, max_bytes=5)


async def test_overflow_and_priorities(nats_server: TrioNatsServer) -> None:
    async with open_fetching(nats_server, 3, priority_policy="overflow", **GROUP) as (w, consumer):
        assert await consumer.fetch(1, group="g", min_pending=4, expires=0.3) == []
        assert numbers(await consumer.fetch(1, group="g", min_pending=3)) == [1]
        assert await consumer.fetch(1, group="g", min_ack_pending=2, expires=0.3) == []
        assert numbers(await consumer.fetch(1, group="g", min_ack_pending=1)) == [2]
        with pytest.raises(ValueError, match=r"say which, as in group='g'"):
            await consumer.fetch(1)
        bound = await w.js.consumer(w.stream.name, "C", bind=True)
        with pytest.raises(errors.BadRequestError, match=r"400 Bad Request - Priority Group missing"):
            await bound.fetch(1)
    async with open_fetching(nats_server, priority_policy="prioritized", **GROUP) as (w, consumer):
        found: list[int] = []

        async def fetch(priority: int) -> None:
            found.extend(priority for _ in await consumer.fetch(1, group="g", priority=priority))

        async with trio.open_nursery() as nursery:
            for priority in (5, 1):
                nursery.start_soon(fetch, priority)
                await trio.testing.wait_all_tasks_blocked()
                await w.nc.flush()
            await publish(w, 1)
            await until(lambda: found == [1], within=20)
            await publish(w, 2)
        assert found == [1, 5]


async def test_who_is_pinned_gets_all_until_it_is_silent(nats_server: TrioNatsServer) -> None:
    config: dict[str, Any] = {"priority_policy": "pinned_client", "priority_timeout": 1.0, **GROUP}
    async with open_fetching(nats_server, 5, **config) as (w, consumer):
        other = await w.js.consumer(w.stream.name, "C")
        assert numbers(await consumer.fetch(1, group="g")) == [1]
        assert await other.fetch(1, group="g", expires=0.3) == []
        assert numbers(await consumer.fetch(1, group="g")) == [2]
        await consumer.fetch(1, group="g")
        # Silent for its timeout, it loses the pin to who asks.
        with trio.fail_after(4):
            assert numbers(await other.fetch(1, group="g")) == [4]
        # And is not told: it waits like any other, without the id that was refused.
        assert await consumer.fetch(1, group="g", expires=0.3) == []
        assert numbers(await other.fetch(1, group="g")) == [5]


@pytest.mark.live(seconds=120)
async def test_a_fetch_survives_a_new_leader(server_executable: object) -> None:
    """With nothing in hand it asks the next one: what is published afterwards is there at once."""
    async with open_cluster(jetstream=True) as cluster, trio.open_nursery() as nursery:
        async with open_client(nursery, cluster.urls) as nc:
            js = nc.jetstream()

            await make_replicated_stream(nc)
            consumer = await js.create_consumer("S", durable_name="C")
            found: list[int] = []

            async def fetch() -> None:
                found.extend(numbers(await consumer.fetch(1, expires=20)))

            for number, subject in enumerate(("CONSUMER.LEADER.STEPDOWN.S.C", "STREAM.LEADER.STEPDOWN.S")):
                async with trio.open_nursery() as fetching:
                    fetching.start_soon(fetch)
                    await trio.sleep(0.2)
                    await nc.request(f"$JS.API.{subject}")
                    await trio.sleep(0.2)
                    await js.publish("s.a", b"%d" % number)
                    await until(lambda number=number: len(found) == number + 1, within=15)  # type: ignore[misc]
            assert found == [0, 1]
            nursery.cancel_scope.cancel()
