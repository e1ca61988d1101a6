"""A publisher on real servers: killed, stepped down, and looked at from their side."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Sized
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


async def kill_meanwhile(nc: Client, server: TrioNatsServer, receipts: Sized, messages: int) -> None:
    """Kill the server and start it again, several times, while so many messages are published."""
    for number in range(1, KILLS + 1):
        await until(lambda: len(receipts) >= number * messages // (KILLS + 1), within=60)  # noqa: B023
        await server.restart(kill=True)
        await until(lambda: nc.statistics().reconnects == number, within=60)  # noqa: B023


async def test_what_is_acknowledged_through_kills_is_stored_exactly_once() -> None:
    async with open_live(jetstream=True, **FOR_EVER) as (server, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        receipts: list[Receipt] = []
        async with trio.open_nursery() as killers, open_publisher(nursery, js, resend=True) as publisher:
            killers.start_soon(kill_meanwhile, nc, server, receipts, MESSAGES)
            for number in range(MESSAGES):
                receipts.append(await publisher.publish("s.a", b"%d" % number))  # noqa: PERF401 - it is looked at meanwhile
        assert nc.statistics().out_msgs > MESSAGES + 3 * KILLS, "something was sent again"
        assert await acknowledged(receipts) == set(range(MESSAGES))
        found = await stored(nc, "S")
        assert len(found) == len(set(found)) == MESSAGES


async def test_without_resend_each_message_that_is_not_acknowledged_is_told() -> None:
    async with open_live(jetstream=True, **FOR_EVER) as (server, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        receipts: list[Receipt] = []

        told: dict[int, Exception] = {}
        async with trio.open_nursery() as killers:
            killers.start_soon(kill_meanwhile, nc, server, receipts, 5000)
            try:
                async with open_publisher(nursery, js) as publisher:
                    for number in range(5000):
                        receipts.append(await publisher.publish("s.a", b"%d" % number))  # noqa: PERF401
            except errors.PublishError as error:
                told = {int(message.payload): reason for message, reason in error.failures}
        assert "DisconnectedError" in {type(reason).__name__ for reason in told.values()}
        succeeded = await acknowledged(receipts)
        assert succeeded | set(told) == set(range(5000))
        assert not succeeded & set(told)
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
        # An acknowledgement that a leader owed when it stepped down does not come any more.
        js = nc.with_options(request_timeout=2).jetstream()
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
