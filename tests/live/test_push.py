"""Push consumers of a real server: they are read as they were made; tests make them by the management calls."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.worlds import (
    StreamWorld,
    collect,
    connected,
    open_live,
    open_stream,
    until,
)
from trionats import Consumer, Feed, JetStreamMsg, api, errors, open_consumer

if TYPE_CHECKING:
    from trionats.testing import TrioNatsServer

FLOW: dict[str, Any] = {"flow_control": True, "idle_heartbeat": 0.5}


async def make(w: StreamWorld, **config: Any) -> Consumer:  # noqa: ANN401 - any field
    """Make a push consumer; it delivers to a subject of its own."""
    given = {"ack_policy": api.AckPolicy.EXPLICIT, "deliver_subject": f"push.{w.stream.name}", "durable_name": "P"}
    await w.js.add_consumer(w.stream.name, **{**given, **config})
    return await w.js.consumer(w.stream.name, "P")


async def fill(w: StreamWorld, count: int, size: int = 4) -> None:
    for number in range(count):
        await w.nc.publish(w.subject, b"%d" % number + bytes(size - 4))
    await w.js.publish(w.subject, b"last")


async def receive(rx: Feed[JetStreamMsg], count: int) -> list[JetStreamMsg]:
    found: list[JetStreamMsg] = []
    with trio.fail_after(10):
        while len(found) < count:
            found.append(await rx.receive())
    return found


async def settled(consumer: Consumer, floor: int, pending: int = 0) -> None:
    async def are() -> bool:
        info = await consumer.info()
        return (info.ack_floor.stream_seq, info.num_ack_pending) == (floor, pending)  # type: ignore[union-attr]

    await until(are, within=20)


async def test_a_push_consumer_is_read_and_acknowledged(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await make(w)
        async with open_consumer(w.nursery, consumer) as rx:
            await fill(w, 50)
            for number, msg in enumerate(await receive(rx, 51), 1):
                assert msg.metadata.sequence.stream == number
                await msg.ack()
            await settled(consumer, 51)
            await fill(w, 0)
            (last,) = await receive(rx, 1)
            with pytest.raises(errors.Error, match="push based"):
                await last.ack_next()
        with pytest.raises(ValueError, match="heartbeat does not apply to a push consumer"):
            async with open_consumer(w.nursery, consumer, heartbeat=1):
                pytest.fail("it was opened")


@pytest.mark.parametrize("second_form", [False, pytest.param(True, marks=pytest.mark.level(4))])
@pytest.mark.usefixtures("server_executable")
async def test_flow_control_holds_the_server_back_for_as_long_as_nobody_receives(second_form: bool) -> None:
    """Nothing is acknowledged, so nothing but flow control does: 40 MiB are stored, and some arrive."""
    flag = "feature_flags { js_ack_fc_v2: true }" if second_form else ""
    async with open_live(flag, jetstream=True) as (server, _, _nursery), open_stream(server) as w:
        await fill(w, 640, 65_536)
        consumer = await make(w, ack_policy=api.AckPolicy.NONE, **FLOW)
        async with open_consumer(w.nursery, consumer) as rx:
            await until(lambda: len(rx) > 1)
            await trio.sleep(1.2)
            waiting = len(rx)
            assert waiting < 200
            # It is not forgotten meanwhile: heartbeats name the request that was not answered.
            messages = await receive(rx, 641)
            assert [msg.metadata.sequence.stream for msg in messages] == list(range(1, 642))


async def test_what_is_buffered_and_on_its_way_is_another_members_within_a_second(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w, connected(nats_server) as other:
        consumer = await make(w, deliver_group="g", max_ack_pending=2000)
        theirs = await other.jetstream().consumer(w.stream.name, "P")
        async with open_consumer(w.nursery, consumer) as rx:
            await fill(w, 499)
            await until(lambda: len(rx) == 500)
            async with trio.open_nursery() as nursery, open_consumer(nursery, theirs) as taking:
                await other.flush()
                with trio.fail_after(1):
                    await rx.aclose()
                    got = [await taking.receive() for _ in range(500)]
                assert {msg.metadata.sequence.stream for msg in got} == set(range(1, 501))
                for msg in got:
                    await msg.ack()
                await settled(theirs, 500)


@pytest.mark.parametrize("how", ["limited", "none", "leave"])
async def test_what_is_not_to_be_given_back_is_left(nats_server: TrioNatsServer, how: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "limited": {"max_deliver": 3},
        "none": {"ack_policy": api.AckPolicy.NONE},
        "leave": {},
    }
    config = kinds[how]
    async with open_stream(nats_server) as w:
        consumer = await make(w, **config)
        async with open_consumer(w.nursery, consumer, on_leave="leave" if how == "leave" else None) as rx:
            await fill(w, 9)
            await until(lambda: len(rx) == 10)
        await w.nc.flush()
        info = await consumer.info()
        assert (info.num_ack_pending, info.num_redelivered) == (0 if how == "none" else 10, 0)


async def test_where_somebody_listens_already_another_is_refused(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w, AsyncExitStack() as stack:
        consumer = await make(w)
        first = await stack.enter_async_context(open_consumer(w.nursery, consumer))
        await w.nc.flush()
        with pytest.raises(errors.Error, match="somebody listens to it"):
            async with open_consumer(w.nursery, consumer):
                pytest.fail("it was opened")
        await first.aclose()
        # At once again: the server may still be about to see that we left.
        await stack.enter_async_context(open_consumer(w.nursery, consumer))


@pytest.mark.parametrize("what", ["consumer", "stream"])
async def test_a_push_consumer_that_is_deleted_is_found_gone_by_its_silence(
    nats_server: TrioNatsServer, what: str
) -> None:
    async with open_stream(nats_server) as w:
        consumer = await make(w, idle_heartbeat=0.2)
        async with open_consumer(w.nursery, consumer) as rx:
            await fill(w, 0)
            await until(lambda: len(rx) == 1)
            held = await rx.receive()
            await (
                w.js.delete_consumer(w.stream.name, "P") if what == "consumer" else w.js.delete_stream(w.stream.name)
            )
            with (
                trio.fail_after(3),
                pytest.raises(errors.ConsumerGoneError, match=f"consumer 'P' of stream '{w.stream.name}'"),
            ):
                await rx.receive()
            with pytest.raises(errors.Error, match="was deleted"):
                await held.ack()


async def test_a_push_consumer_goes_on_over_the_next_connection(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, {"reconnect_time_wait": 0.01}) as w:
        consumer = await make(w, **FLOW)
        async with connected(nats_server) as other, open_consumer(w.nursery, consumer) as rx:
            for number in range(4):
                await other.jetstream().publish(w.subject, b"%d" % number)
                (msg,) = await receive(rx, 1)
                await msg.ack_sync()
                await w.nc.reconnect()
        await settled(consumer, 4)


@pytest.mark.usefixtures("server_executable")
async def test_a_push_consumer_is_read_through_kills_of_the_server() -> None:
    """What was not confirmed comes again, and all of it comes."""
    away: dict[str, Any] = {"reconnect_time_wait": 0.02, "max_reconnect_attempts": -1}
    async with open_live(jetstream=True, **away) as (server, nc, nursery):
        js = nc.jetstream()
        await js.create_stream(name="S", subjects=["s.>"])
        for number in range(1000):
            nc.publish_nowait("s.a", b"%d" % number)
        await js.publish("s.a", b"last")
        await js.add_consumer("S", durable_name="P", deliver_subject="to.us", ack_policy="explicit", ack_wait=1, **FLOW)
        consumer = await js.consumer("S", "P")
        seen: set[int] = set()

        async def work(rx: Feed[JetStreamMsg]) -> None:
            async for msg in rx:
                async with msg.processing():
                    await trio.sleep(0.0005)
                seen.add(msg.metadata.sequence.stream)

        # Its loop may still be in a message when all is settled: it ends before the block is left.
        async with open_consumer(nursery, consumer) as rx, trio.open_nursery() as workers:
            workers.start_soon(work, rx)
            for fraction in (200, 400, 600):
                await until(lambda fraction=fraction: len(seen) > fraction)  # type: ignore[misc]
                await server.restart(kill=True)
            await settled(consumer, 1001)
            assert seen == set(range(1, 1002))
            rx.stop()


async def test_one_that_is_forgotten_while_we_are_away_is_gone(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, {"reconnect_time_wait": 0.01}) as w:
        consumer = await make(w)
        async with connected(nats_server) as other, open_consumer(w.nursery, consumer) as rx:
            await other.jetstream().delete_consumer(w.stream.name, "P")
            await w.nc.reconnect()
            with trio.fail_after(5), pytest.raises(errors.ConsumerGoneError):
                await rx.receive()


async def test_too_much_for_one_without_flow_control_ends_it_and_loses_nothing(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await make(w)
        async with open_consumer(w.nursery, consumer, max_bytes=50) as rx:
            await fill(w, 19, 8)
            await until(lambda: repr(rx).find("ended") > 0)
            got: list[JetStreamMsg] = []
            with pytest.raises(errors.SlowConsumerError, match=r"10 messages .* wait to be received"):
                await collect(rx, got)
            assert len(got) == 10
            for msg in got:
                await msg.ack()
        async with open_consumer(w.nursery, consumer) as rx:
            again = await receive(rx, 10)
            assert {msg.metadata.sequence.stream for msg in again} == set(range(11, 21))


@pytest.mark.usefixtures("server_executable")
async def test_a_deliver_subject_that_is_refused_is_raised() -> None:
    users = """authorization { users = [
        {user: boss, password: b0ss}
        {user: guest, password: guest, permissions: { subscribe: {allow: ["_INBOX.>"]} }}
    ] }"""
    async with (
        open_live(users, jetstream=True, user="boss", password="b0ss") as (server, boss, _nursery),
        connected(server, user="guest", password="guest") as guest,
    ):
        js = boss.jetstream()
        await js.add_stream(name="S", subjects=["s.>"])
        await js.add_consumer("S", name="P", deliver_subject="to.us", ack_policy=api.AckPolicy.EXPLICIT)
        async with (
            trio.open_nursery() as nursery,
            open_consumer(nursery, await guest.jetstream().consumer("S", "P")) as rx,
        ):
            with (
                trio.fail_after(2),
                pytest.raises(errors.PermissionsViolationError, match="consumer 'P' of stream 'S'"),
            ):
                await rx.receive()
