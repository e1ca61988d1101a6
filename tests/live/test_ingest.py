"""Fast ingest on real servers: refused, killed, stepped down, and looked at from their side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

from tests.clusters import make_replicated_stream, open_cluster
from tests.live.test_publisher import FOR_EVER, MESSAGES, kill_meanwhile, stored
from tests.worlds import open_live, open_stream, open_world, until
from trionats import Client, IngestReceipt, JetStream, api, errors, open_ingest
from trionats.testing import TrioNatsServer

pytestmark = [
    pytest.mark.live(seconds=120),
    pytest.mark.usefixtures("server_executable"),
    pytest.mark.level(4),
]

on_gap = pytest.mark.parametrize("on_gap", ["fail", "continue"])
#: One batch for each stream: another one can only be begun when the server knows that the last is over.
ONE_BATCH = "jetstream { limits { batch { max_inflight_per_stream: 1 } } }"


async def add_stream(js: JetStream, **config: Any) -> None:  # noqa: ANN401 - any field
    storage = {"storage": api.StorageType.FILE, **config}
    await js.create_stream(name="S", subjects=["s.>"], allow_batched=True, **storage)


async def outcomes(receipts: list[IngestReceipt]) -> dict[int, str]:
    """Say what became of each message: "stored", or the name of what its receipt raises."""
    found = {}
    for number, receipt in enumerate(receipts):
        assert receipt.done
        try:
            await receipt.wait()
        except errors.Error as error:
            found[number] = type(error).__name__
        else:
            found[number] = "stored"
    return found


#: What says that a message certainly is not stored.
NOT_STORED = {"IngestGapError", "NoStreamResponseError", "APIError", "BadRequestError", "ServiceUnavailableError"}


async def publish_all(
    nursery: trio.Nursery,
    js: JetStream,
    on_gap: Any,  # noqa: ANN401 - one of the two
    receipts: list[IngestReceipt],
    meanwhile: Callable[[], Awaitable[None]],
) -> set[int]:
    """Ingest messages until all are published, or the ingest has failed; give those of which it tells that they failed."""

    async def disturb() -> None:
        with scope:
            await meanwhile()

    scope = trio.CancelScope()
    nursery.start_soon(disturb)
    try:
        async with open_ingest(nursery, js, on_gap=on_gap) as ingest:
            for number in range(MESSAGES):
                receipts.append(await ingest.publish("s.a", b"%d" % number))  # noqa: PERF401 - it is looked at meanwhile
    except errors.PublishError as error:
        return {int(message.payload) for message, _ in error.failures}
    finally:
        scope.cancel()
    return set()


async def assert_all_is_true(nc: Client, receipts: list[IngestReceipt], failed: set[int]) -> list[int]:
    """See that what was told of each message is so, and give what is stored."""
    told, found = await outcomes(receipts), await stored(nc, "S")
    assert failed == {number for number, outcome in told.items() if outcome != "stored"}
    assert found == sorted(set(found)), "in their order, each once"
    assert {number for number, outcome in told.items() if outcome == "stored"} <= set(found)
    assert not {number for number, outcome in told.items() if outcome in NOT_STORED} & set(found)
    if len(told) < MESSAGES:
        assert found == list(range(len(found))), "nothing is stored behind what failed"
    return found


@on_gap
@pytest.mark.parametrize("max_outstanding", [1, 3])
async def test_many_messages_are_one_batch(nats_server: TrioNatsServer, on_gap: Any, max_outstanding: int) -> None:  # noqa: ANN401
    async with open_stream(nats_server, allow_batched=True) as w:
        async with open_ingest(w.nursery, w.js, on_gap=on_gap, max_outstanding=max_outstanding) as ingest:
            receipts = [await ingest.publish(w.subject, b"%d" % number) for number in range(5000)]
        assert set((await outcomes(receipts)).values()) == {"stored"}
        assert ingest.ack is not None
        assert (ingest.ack.stream, ingest.ack.seq, ingest.ack.count) == (w.stream.name, 5000, 5000)
        found = await w.stream.get_msg(5000)
        assert (found.data, dict(found.headers)) == (b"4999", {}), "nothing of the batch stands in the message"


async def test_the_server_knows_no_batch_any_more_however_an_ingest_ended() -> None:
    async with open_live(ONE_BATCH, jetstream=True) as (server, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        before = Counter(await server.subscriptions())
        async with open_ingest(nursery, js) as ingest:
            await (await ingest.publish("s.a", b"0")).wait()
            await ingest.publish("s.a", b"1")
        with trio.CancelScope() as scope:
            async with open_ingest(nursery, js) as ingest:
                await ingest.publish("s.a", b"2")
                await (await ingest.publish("s.a", b"3")).wait()
                receipt = await ingest.publish("s.a", b"4")
                scope.cancel()
                await receipt.wait()
        with pytest.raises(KeyError):  # noqa: PT012
            async with open_ingest(nursery, js) as ingest:
                await ingest.publish("s.a", b"5")
                raise KeyError
        async with open_ingest(nursery, js) as ingest:
            await ingest.publish("s.a", b"6")
        assert (await js.stream_info("S")).state.messages == 7, "what came is stored, however it ended"
        await nc.flush()
        assert Counter(await server.subscriptions()) == before


async def test_too_many_batches_are_refused_by_name() -> None:
    async with open_live(ONE_BATCH, jetstream=True) as (_, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        async with open_ingest(nursery, js) as first:
            await first.publish("s.a", b"0")
            await first.publish("s.a", b"1")
            with pytest.raises(errors.PublishError, match=r"too many inflight \(code 429, error 10211\)"):
                async with open_ingest(nursery, js) as second:
                    await second.publish("s.a", b"2")


async def test_in_mode_fail_nothing_is_stored_behind_a_refused_message(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_batched=True) as w:
        with pytest.raises(errors.PublishError) as caught:  # noqa: PT012 - leaving is what raises
            async with open_ingest(w.nursery, w.js) as ingest:
                for number in range(10):
                    await ingest.publish(w.subject, b"%d" % number, expected_last_seq=number if number != 7 else 99)
        assert [(message.payload, type(reason).__name__) for message, reason in caught.value.failures] == [
            (b"7", "BadRequestError"),
            (b"8", "IngestGapError"),
            (b"9", "IngestGapError"),
        ]
        assert (await w.js.stream_info(w.stream.name)).state.messages == 7
        assert ingest.ack is None


@pytest.mark.parametrize("large", [False, True])
async def test_in_mode_continue_only_the_refused_messages_fail(nats_server: TrioNatsServer, large: bool) -> None:
    async with open_stream(nats_server, allow_batched=True, max_msg_size=1000) as w:
        with pytest.raises(errors.PublishError) as caught:  # noqa: PT012 - leaving is what raises
            async with open_ingest(w.nursery, w.js, on_gap="continue", max_outstanding=1) as ingest:
                for number in range(3000):
                    refused = 500 <= number < 1700
                    payload = bytes(2000) if refused and large else b"%d" % number
                    expected = 9999 if refused and not large else None
                    await ingest.publish(w.subject, payload, expected_last_seq=expected)
        assert len(caught.value.failures) == 1200
        assert {getattr(reason, "err_code", None) for _, reason in caught.value.failures} == {10054 if large else 10071}
        assert (await w.js.stream_info(w.stream.name)).state.messages == 1800
        assert ingest.ack is not None


async def test_duplicates_count_as_stored(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_batched=True) as w:
        for _ in range(2):
            async with open_ingest(w.nursery, w.js) as ingest:
                for number in range(700):
                    await ingest.publish(w.subject, b"x", msg_id=f"i{number}")
            assert ingest.ack is not None
            assert ingest.ack.count == 700
        assert (await w.js.stream_info(w.stream.name)).state.messages == 700


async def test_large_messages_are_bounded_by_their_bytes(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_batched=True, max_msgs=3) as w:
        payload, most = bytes(1_000_000), 0
        async with open_ingest(w.nursery, w.js, max_outstanding=3) as ingest:
            for _ in range(200):
                await ingest.publish(w.subject, payload)
                most = max(most, ingest.pending)
        assert most * len(payload) <= 35_000_000
        assert (await w.js.stream_info(w.stream.name)).state.last_seq == 200


async def test_a_stream_that_does_not_allow_it_stores_nothing(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w, open_ingest(w.nursery, w.js) as ingest:
        with pytest.raises(errors.BadRequestError, match=r"allow_batched") as caught:
            await ingest.publish(w.subject, b"x")
        assert caught.value.err_code == 10205
        assert (await w.js.stream_info(w.stream.name)).state.messages == 0


async def test_a_batch_that_the_server_forgets_early_is_begun_anew() -> None:
    limits = 'jetstream { limits { batch { timeout: "300ms" } } }'
    async with open_live(limits, jetstream=True) as (_, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        async with open_ingest(nursery, js) as ingest:
            for number in range(3):
                for _ in range(500):
                    await ingest.publish("s.a", b"%d" % number)
                await until(lambda: ingest.pending == 0)
                await trio.sleep(0.6)
            await ingest.publish("s.a", b"3")
        assert (await js.stream_info("S")).state.messages == 1501


async def test_a_batch_outlives_a_connection() -> None:
    async with open_live(jetstream=True, **FOR_EVER) as (_, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        async with open_ingest(nursery, js) as ingest:
            for number in range(3):
                await ingest.publish("s.a", b"%d" % number)
            await nc.flush()
            await nc.reconnect()
            for number in range(3, 6):
                await ingest.publish("s.a", b"%d" % number)
        assert ingest.ack is not None
        assert ingest.ack.count == 6, "nothing was lost, and nothing is to be told"
        assert await stored(nc, "S") == list(range(6))


@on_gap
async def test_what_is_told_through_connections_that_break_is_true(on_gap: Any) -> None:  # noqa: ANN401
    async with open_live(jetstream=True, **FOR_EVER) as (_, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        receipts: list[IngestReceipt] = []

        async def break_it() -> None:
            for number in range(1, 6):
                await until(lambda: len(receipts) >= number * 2000, within=60)  # noqa: B023
                await nc.reconnect()

        failed = await publish_all(nursery, js, on_gap, receipts, break_it)
        found = await assert_all_is_true(nc, receipts, failed)
        if on_gap == "continue":
            assert len(found) > 10_000
            assert failed


@on_gap
async def test_what_is_told_of_a_server_that_is_killed_is_true(on_gap: Any) -> None:  # noqa: ANN401
    async with open_live(jetstream=True, **FOR_EVER) as (server, nc, nursery):
        js = nc.jetstream()
        await add_stream(js)
        receipts: list[IngestReceipt] = []
        failed = await publish_all(
            nursery, js, on_gap, receipts, partial(kill_meanwhile, nc, server, receipts, MESSAGES)
        )
        await nc.wait_connected()
        await assert_all_is_true(nc, receipts, failed)
        assert "DisconnectedError" in (await outcomes(receipts)).values()


@on_gap
async def test_what_is_told_of_leaders_that_step_down_is_true(on_gap: Any) -> None:  # noqa: ANN401
    async with (
        open_cluster(jetstream=True) as cluster,
        open_world(cluster.running[0], cluster.urls) as (_, nc, nursery),
    ):
        js = nc.jetstream()
        with trio.fail_after(60):
            await make_replicated_stream(nc)
        await js.update_stream(name="S", subjects=["s.>"], num_replicas=3, allow_batched=True)
        receipts: list[IngestReceipt] = []

        async def step_down() -> None:
            for number in range(1, 4):
                await until(lambda: len(receipts) >= number * 2000, within=60)  # noqa: B023
                assert json.loads((await nc.request("$JS.API.STREAM.LEADER.STEPDOWN.S")).data)["success"]

        failed = await publish_all(nursery, js, on_gap, receipts, step_down)
        found = await assert_all_is_true(nc, receipts, failed)
        if on_gap == "continue":
            assert len(found) > 6000
