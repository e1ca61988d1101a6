"""A publisher on real servers: killed, stepped down, and looked at from their side."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from typing import Any

import pytest
import trio

from tests.clusters import make_replicated_stream, open_cluster
from tests.worlds import open_live, open_stream, open_world, until
from trionats import Client, JetStream, Receipt, api, errors, open_publisher, open_subscription
from trionats.testing import TrioNatsServer

pytestmark = [pytest.mark.live(seconds=120), pytest.mark.usefixtures("server_executable")]

MESSAGES = 20_000
KILLS = 4
FOR_EVER: dict[str, Any] = {"reconnect_time_wait": 0.02, "max_reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}


async def stored(nc: Client, stream: str) -> list[int]:
    """Read the numbers that a stream holds, in its order."""
    js, inbox, found = nc.jetstream(), nc.new_inbox(), list[int]()
    total = (await js.stream_info(stream)).state.messages
    async with trio.open_nursery() as nursery, open_subscription(nursery, nc, inbox) as rx:
        await nc.flush()
        config = {"deliver_subject": inbox, "ack_policy": "none", "deliver_policy": "all", "name": "reader"}
        await js.api_request(f"CONSUMER.CREATE.{stream}.reader", {"stream_name": stream, "config": config})
        with trio.fail_after(20):
            while len(found) < total:
                found.append(int((await rx.receive()).data))
    await js.delete_consumer(stream, "reader")
    return found


async def add_stream(js: JetStream, **config: Any) -> None:  # noqa: ANN401 - any field
    await js.add_stream(name="S", subjects=["s.>"], storage=api.StorageType.FILE, **config)


async def acknowledged(receipts: list[Receipt]) -> set[int]:
    """See which of the messages were acknowledged; leave the failures of the others untold."""
    numbers = set()
    for number, receipt in enumerate(receipts):
        assert receipt.done
        try:
            await receipt.wait()
        except errors.Error:
            continue
        numbers.add(number)
    return numbers


async def test_what_is_acknowledged_through_kills_is_stored_exactly_once() -> None:
    async with open_live(jetstream=True, **FOR_EVER) as (server, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        receipts: list[Receipt] = []

        async def kill() -> None:
            for number in range(1, KILLS + 1):
                await until(lambda: len(receipts) >= number * MESSAGES // (KILLS + 1), within=60)  # noqa: B023
                await server.restart(kill=True)

        async with trio.open_nursery() as killers, open_publisher(nursery, js, resend=True) as publisher:
            killers.start_soon(kill)
            for number in range(MESSAGES):
                receipts.append(await publisher.publish("s.a", b"%d" % number))  # noqa: PERF401 - it is looked at meanwhile
        assert nc.statistics().out_msgs > MESSAGES + KILLS, "something was sent again"
        assert nc.statistics().reconnects == KILLS
        assert await acknowledged(receipts) == set(range(MESSAGES))
        found = await stored(nc, "S")
        assert len(found) == len(set(found)) == MESSAGES
        assert set(found) == set(range(MESSAGES))


async def test_without_resend_each_unacknowledged_message_is_told_and_none_is_lost_in_silence() -> None:
    async with open_live(jetstream=True, **FOR_EVER) as (server, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        receipts: list[Receipt] = []
        failures: dict[int, Exception] = {}

        async def publish_all() -> None:
            async with open_publisher(nursery, js) as publisher:
                for number in range(5000):
                    receipts.append(await publisher.publish("s.a", b"%d" % number))
                    if number % 1000 == 500:
                        # Between the frames' leaving and the acknowledgements' coming.
                        nursery.start_soon(server.restart)
                        await until(lambda: not nc.is_connected, within=10, pause=0)

        try:
            await publish_all()
        except errors.PublishError as error:
            failures = {int(message.payload): reason for message, reason in error.failures}
        assert all(isinstance(reason, errors.Error) for reason in failures.values())
        succeeded = await acknowledged(receipts)
        assert succeeded | set(failures) == set(range(5000))
        assert not succeeded & set(failures)
        found = Counter(await stored(nc, "S"))
        assert succeeded <= set(found)
        assert max(found.values()) == 1


async def test_a_leader_that_steps_down_loses_nothing() -> None:
    async with (
        open_cluster(jetstream=True) as cluster,
        open_world(cluster.running[0], cluster.urls) as (_, nc, nursery),
    ):
        js = nc.jetstream()
        with trio.fail_after(60):
            await make_replicated_stream(nc)
        receipts: list[Receipt] = []
        stepped = trio.Event()

        async def step_down() -> None:
            for number in range(1, 4):
                await until(lambda: len(receipts) >= number * 1000, within=60)  # noqa: B023
                assert json.loads((await nc.request("$JS.API.STREAM.LEADER.STEPDOWN.S")).data)["success"]
            stepped.set()

        async with trio.open_nursery() as operators, open_publisher(nursery, js, resend=True) as publisher:
            operators.start_soon(step_down)
            number = 0
            while number < 4000 or not stepped.is_set():
                receipts.append(await publisher.publish("s.a", b"%d" % number))
                number += 1
        assert await acknowledged(receipts) == set(range(number))
        found = await stored(nc, "S")
        assert sorted(found) == list(range(number))


async def test_a_refusal_is_told_for_the_very_message(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        with pytest.raises(errors.PublishError) as caught:  # noqa: PT012 - leaving is what raises
            async with open_publisher(w.nursery, w.js) as publisher:
                for number in range(10):
                    await publisher.publish(w.subject, b"%d" % number, expected_last_seq=min(number, 7))
        assert [message.payload for message, _ in caught.value.failures] == [b"8", b"9"]
        assert {type(reason).__name__ for _, reason in caught.value.failures} == {"BadRequestError"}
        assert (await w.js.stream_info(w.stream.name)).state.messages == 8


async def test_a_repeated_publish_of_a_chain_of_expectations_is_no_conflict(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        for attempt in range(2):
            async with open_publisher(w.nursery, w.js) as publisher:
                receipts = [
                    await publisher.publish(w.subject, b"x", msg_id=f"i{number}", expected_last_subject_seq=number)
                    for number in range(20)
                ]
            acks = [await receipt.wait() for receipt in receipts]
            assert [(ack.seq, bool(ack.duplicate)) for ack in acks] == [(n + 1, attempt == 1) for n in range(20)]
        assert (await w.js.stream_info(w.stream.name)).state.messages == 20


async def test_acknowledged_messages_are_forgotten_though_their_receipts_are_kept(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, max_msgs=10) as w, open_publisher(w.nursery, w.js, max_pending=20) as publisher:
        await (await publisher.publish(w.subject, bytes(100_000))).wait()
        tracemalloc.start()
        try:
            receipts = [await publisher.publish(w.subject, bytes(100_000)) for _ in range(500)]
            await publisher.wait_all()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 2_000_000
        assert all(receipt.done for receipt in receipts)


async def test_a_publisher_leaves_no_subscription_on_the_server() -> None:
    async with open_live(jetstream=True) as (server, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        before = Counter(await server.subscriptions())
        async with open_publisher(nursery, js) as publisher:
            await publisher.publish("s.a", b"x")
            await publisher.wait_all()
            assert len(await server.subscriptions()) == before.total() + 1
        await nc.flush()
        assert Counter(await server.subscriptions()) == before
