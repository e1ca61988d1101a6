"""Messages of a consumer of a real server: what is said of them, and what the server makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.worlds import delivered, open_live, open_stream, open_world, until
from trionats import api, errors, open_subscription

if TYPE_CHECKING:
    from tests.worlds import StreamWorld
    from trionats import Consumer
    from trionats.testing import TrioNatsServer


async def filled(w: StreamWorld, count: int, **config: Any) -> Consumer:  # noqa: ANN401 - any field
    """Store so many messages; make a consumer of them."""
    for number in range(count):
        await w.js.publish(w.subject, b"%d" % number)
    return await w.js.create_consumer(w.stream.name, name="C", **{"ack_policy": api.AckPolicy.EXPLICIT, **config})


async def settled(consumer: Consumer, acked: int, pending: int) -> None:
    """Wait until the server has so many of the first acknowledged, and waits for so many."""

    async def are() -> bool:
        info = await consumer.info()
        return (info.ack_floor.stream_seq, info.num_ack_pending) == (acked, pending)  # type: ignore[union-attr]

    await until(are, within=5)


async def test_a_thousand_acks_survive_leaving_at_once(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        for number in range(1000):
            w.nc.publish_nowait(w.subject, b"%d" % number)
        await w.nc.flush()
        consumer = await filled(w, 0, max_ack_pending=2000)
        async with open_world(nats_server) as (_, nc, _nursery):
            other = await nc.jetstream().consumer(w.stream.name, "C")
            for msg in await delivered(nc, other, 1000):
                await msg.ack()
        # It took all of them before the connection ended; it works them off behind that.
        await settled(consumer, 1000, 0)
        assert (await consumer.info()).num_redelivered == 0


async def test_each_verdict_is_what_the_server_makes_of_it(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w, open_subscription(w.nursery, w.nc, "$JS.EVENT.ADVISORY.>") as told:
        consumer = await filled(w, 6)
        first, second, third, fourth, fifth = await delivered(w.nc, consumer, 5)
        await first.ack_sync()
        assert (await consumer.info()).ack_floor.stream_seq == 1  # type: ignore[union-attr]
        await second.ack()
        await third.term("no use: \u00fc")
        while not (await told.receive()).subject.startswith("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED"):
            pass
        sixth = await fourth.ack_next()
        assert sixth is not None
        assert sixth.metadata.sequence == api.MsgSequence(6, 6)
        await sixth.ack()
        await fifth.in_progress()
        await settled(consumer, 4, 1)
        await fifth.nak(0.1)
        start = trio.current_time()
        (again,) = await delivered(w.nc, consumer)
        assert trio.current_time() - start > 0.05
        assert again.metadata.num_delivered == 2
        assert again.metadata.sequence.stream == 5
        await again.nak()
        (again,) = await delivered(w.nc, consumer)
        assert again.metadata.num_delivered == 3
        assert await again.ack_next(0.2) is None
        await settled(consumer, 6, 0)


async def test_what_the_next_message_is_asked_of_says_why_it_has_none(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await filled(w, 2)
        first, second = await delivered(w.nc, consumer, 2)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(errors.NotFoundError, match="is gone"):
                    await first.ack_next()

            await settled(consumer, 1, 1)
            await w.js.delete_consumer(w.stream.name, "C")
        again = type(second)(
            second, type(consumer.__deliverer__())(consumer.__deliverer__().connection, "consumer 'C'")
        )
        with pytest.raises(errors.NotFoundError, match="is gone"):
            await again.ack_next()
        with pytest.raises(errors.Error, match="was deleted"):
            await second.ack()


async def test_a_cancelled_ack_next_leaves_nothing_with_the_client(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await filled(w, 1)
        (msg,) = await delivered(w.nc, consumer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(msg.ack_next, 30)
            await settled(consumer, 1, 0)
            nursery.cancel_scope.cancel()
        await w.js.publish(w.subject, b"next")
        (following,) = await delivered(w.nc, consumer)
        assert following.data == b"next"


async def test_work_that_takes_three_times_the_ack_wait_is_delivered_once(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await filled(w, 1, ack_wait=1)
        (msg,) = await delivered(w.nc, consumer)
        async with msg.processing():
            await trio.sleep(3)
            info = await consumer.info()
            assert (info.num_ack_pending, info.num_redelivered, info.delivered.consumer_seq) == (1, 0, 1)  # type: ignore[union-attr]
        await settled(consumer, 1, 0)
        assert (await consumer.info()).delivered.consumer_seq == 1  # type: ignore[union-attr]


async def test_work_on_a_later_delivery_is_kept_in_progress_by_its_backoff(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await filled(w, 1, backoff=[0.4, 1.2], max_deliver=5)
        for delivery, seconds in [(1, 1.0), (2, 2.0)]:
            (msg,) = await delivered(w.nc, consumer)
            assert msg.metadata.num_delivered == delivery
            async with msg.processing():
                await trio.sleep(seconds)
                assert (await consumer.info()).delivered.consumer_seq == delivery  # type: ignore[union-attr]
                if delivery == 1:
                    await msg.nak()
        await settled(consumer, 1, 0)


async def test_work_that_is_cancelled_is_done_by_another_at_once(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await filled(w, 1, ack_wait=30)
        (msg,) = await delivered(w.nc, consumer)
        with trio.move_on_after(0.05):
            async with msg.processing():
                await trio.sleep_forever()
        with trio.fail_after(1):
            (again,) = await delivered(w.nc, consumer)
        assert again.metadata.num_delivered == 2


@pytest.mark.usefixtures("server_executable")
@pytest.mark.level(4)
async def test_subjects_of_the_second_form_are_read_and_acknowledged() -> None:
    async with (
        open_live("feature_flags { js_ack_fc_v2: true }", jetstream=True) as (server, _, _nursery),
        open_stream(server) as w,
    ):
        consumer = await filled(w, 2)
        msg, other = await delivered(w.nc, consumer, 2)
        assert msg.reply.count(".") == 10
        found = msg.metadata
        assert (found.stream, found.consumer, found.domain) == (w.stream.name, "C", None)
        assert (found.sequence, found.num_delivered, found.num_pending) == (api.MsgSequence(1, 1), 1, 1)
        assert abs((await w.js.get_msg(w.stream.name, 1)).time - found.timestamp).total_seconds() < 1e-5  # type: ignore[operator]
        await msg.ack_sync()
        async with other.processing():
            pass
        await settled(consumer, 2, 0)


async def test_no_reply_subject_makes_the_server_end_the_connection(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        consumer = await filled(w, 0)
        connection = consumer.__deliverer__().connection
        for reply in ("$JS.ACK.\udcff\udcfe", "$JS.ACK.*.>", "$JS.ACK...x", "a" * 500):
            await connection.acknowledge(reply, b"+ACK")
            connection.acknowledge_aside(reply, b"-NAK")
        await w.nc.flush()
        assert w.nc.statistics().reconnects == 0
