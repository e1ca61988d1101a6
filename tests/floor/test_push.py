"""Push consumers in memory: flow control, heartbeats, what waits too long, and what becomes of it when we leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.fake_consumers import SECOND
from tests.worlds import ConsumerWorld, Listener, lose, open_consumer_world, regain, seam, settled
from trionats import errors, events, open_consumer

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

pytestmark = pytest.mark.usefixtures("autojump_clock")

BEAT = 5 * SECOND


def push_world(**config: Any) -> AbstractAsyncContextManager[ConsumerWorld]:  # noqa: ANN401 - any field
    return open_consumer_world(deliver_subject="to.us", **config)


def beat(w: ConsumerWorld, **headers: str) -> None:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    w.server.publish("to.us", headers=f"NATS/1.0 100 Idle Heartbeat\r\n{lines}\r\n".encode())


def ask(w: ConsumerWorld, subject: str) -> None:
    w.server.publish("to.us", headers=b"NATS/1.0 100 FlowControl Request\r\n\r\n", reply=subject)


def answered(w: ConsumerWorld) -> list[str]:
    return [frame.subject for frame in w.server.sent("PUB", "$JS.FC.>")]


async def test_flow_control_is_answered_when_what_came_before_was_received() -> None:
    async with push_world(flow_control=True, idle_heartbeat=BEAT) as w, open_consumer(w.nursery, w.consumer) as rx:
        await w.nc.flush()
        w.store(3)
        ask(w, "$JS.FC.S.C.1")
        w.store(1)
        await w.nc.flush()
        for count in range(4):
            await w.nc.flush()
            assert answered(w) == (["$JS.FC.S.C.1"] if count > 2 else [])
            await (await rx.receive()).ack()
        beat(w, Nats_Consumer_Stalled="$JS.FC._.hash.S.C.2")
        beat(w, Nats_Consumer_Stalled="a b 3")
        await settled()
        await w.nc.flush()
        assert answered(w) == ["$JS.FC.S.C.1", "$JS.FC._.hash.S.C.2"]


async def test_missed_heartbeats_are_told_and_lead_to_a_look() -> None:
    async with push_world(idle_heartbeat=BEAT) as w, open_consumer(w.nursery, w.consumer) as rx:
        told = Listener()
        seam(w.nc).add_listener(told)
        asked = len(w.server.sent("PUB", "$JS.API.CONSUMER.INFO.>"))
        await trio.sleep(9)
        beat(w)
        await trio.sleep(9)
        assert len(w.server.sent("PUB", "$JS.API.CONSUMER.INFO.>")) == asked
        await trio.sleep(2)
        missed = [events.ConsumerHeartbeatMissed("S", "C", 10.0)]
        assert told.heard(events.ConsumerHeartbeatMissed) == missed
        await trio.sleep(60)
        assert told.heard(events.ConsumerHeartbeatMissed) == missed
        w.stream.delete_consumer("C")
        with trio.fail_after(12), pytest.raises(errors.ConsumerGoneError, match="consumer 'C' of stream 'S'"):
            await rx.receive()


@pytest.mark.parametrize("group", [None, "g"])
async def test_without_heartbeats_a_deletion_is_found_within_a_minute(group: str | None) -> None:
    more = {} if group is None else {"deliver_group": group, "idle_heartbeat": BEAT}
    async with push_world(**more) as w, open_consumer(w.nursery, w.consumer) as rx:
        await trio.sleep(100)
        w.stream.delete_consumer("C")
        with trio.fail_after(60), pytest.raises(errors.ConsumerGoneError):
            await rx.receive()


async def test_who_may_not_look_is_not_told_of_a_deletion_but_of_silence() -> None:
    async with push_world(idle_heartbeat=BEAT) as w, open_consumer(w.nursery, w.consumer) as rx:
        told = Listener()
        seam(w.nc).add_listener(told)
        w.server.deny_publish = ("$JS.API.>",)
        with trio.move_on_after(100):
            await rx.receive()
        assert len(told.heard(events.ConsumerHeartbeatMissed)) == 1
        assert len(told.heard(events.PermissionViolation)) == 1


async def test_silence_without_a_connection_says_nothing() -> None:
    async with push_world(idle_heartbeat=BEAT) as w, open_consumer(w.nursery, w.consumer) as rx:
        told = Listener()
        seam(w.nc).add_listener(told)
        await lose(w.server, w.nc)
        await trio.sleep(100)
        await regain(w.server, w.nc)
        w.store(1)
        assert (await rx.receive()).data == b"x"
        assert not told.heard(events.ConsumerHeartbeatMissed)


async def test_what_waited_past_its_ack_wait_is_not_handed_over() -> None:
    async with push_world(ack_wait=10 * SECOND) as w, open_consumer(w.nursery, w.consumer) as rx:
        told = Listener()
        seam(w.nc).add_listener(told)
        await w.nc.flush()
        w.store(2)
        await settled()
        await trio.sleep(6)
        first = await rx.receive()
        assert first.due == trio.current_time() + 10  # it was kept in progress
        await trio.sleep(5)
        # The second one has come again.
        second = await rx.receive()
        assert (second.metadata.sequence.stream, second.metadata.num_delivered) == (2, 2)
        assert told.heard(events.MessagesExpired) == [events.MessagesExpired("S", "C", 1)]


@pytest.mark.parametrize("closing", [False, True])
async def test_what_is_buffered_is_given_back_when_the_block_is_left_or_the_client_closed(closing: bool) -> None:
    async with push_world() as w:
        async with open_consumer(w.nursery, w.consumer) as rx:
            await w.nc.flush()
            w.store(3)
            await settled()
            kept = await rx.receive()
            if closing:
                await w.nc.aclose()
                with pytest.raises(trio.EndOfChannel):
                    await rx.receive()
                with pytest.raises(errors.ConnectionClosedError):
                    await kept.ack()
        if not closing:
            await settled()
            await w.nc.flush()
        assert [w.fake.verdicts.get(number, []) for number in (1, 2, 3)] == [[], [b"-NAK"], [b"-NAK"]]


async def test_a_drain_hands_over_what_is_buffered_and_its_acks_still_go_out() -> None:
    async with push_world() as w, open_consumer(w.nursery, w.consumer) as rx:
        await w.nc.flush()
        w.store(3)
        await settled()

        async def work() -> None:
            async for msg in rx:
                await trio.sleep(0.1)
                await msg.ack()

        w.nursery.start_soon(work)
        await w.nc.drain()
        assert [w.fake.verdicts[number] for number in (1, 2, 3)] == [[b"+ACK"]] * 3


async def test_what_a_consumer_without_acknowledgements_lost_is_told() -> None:
    async with push_world(ack_policy="none", idle_heartbeat=BEAT) as w, open_consumer(w.nursery, w.consumer) as rx:
        told = Listener()
        seam(w.nc).add_listener(told)
        await w.nc.flush()
        w.store(1)
        w.fake.lose_messages = 2
        w.store(3)
        await settled()
        assert len(rx) == 2
        assert told.heard(events.MessagesMissed) == [events.MessagesMissed("S", "C", 2)]
        msg = await rx.receive()
        with pytest.raises(errors.Error, match="takes no acknowledgements"):
            await msg.ack()


async def test_a_consumer_made_anew_under_the_feed_makes_what_was_held_void() -> None:
    async with push_world(idle_heartbeat=BEAT) as w, open_consumer(w.nursery, w.consumer) as rx:
        await w.nc.flush()
        w.store(2)
        held = await rx.receive()
        w.stream.delete_consumer("C")
        again = w.stream.add_consumer("C", ack_policy="explicit", deliver_subject="to.us", idle_heartbeat=BEAT)
        await trio.sleep(11)  # nothing was heard, so it was looked
        w.stream.serve(again)
        await settled()
        with pytest.raises(errors.Error, match="was made anew"):
            await held.ack()
        seen = [await rx.receive(), await rx.receive()]
        assert [msg.metadata.sequence.stream for msg in seen] == [1, 2]
        for msg in seen:
            await msg.ack_sync()
        assert not again.unacked


async def test_one_that_delivers_elsewhere_is_lost() -> None:
    async with push_world(idle_heartbeat=BEAT) as w, open_consumer(w.nursery, w.consumer) as rx:
        w.fake.config["deliver_subject"] = "to.them"
        with trio.fail_after(11), pytest.raises(errors.Error, match=r"delivers to 'to.them' now, no longer to 'to.us'"):
            await rx.receive()


async def test_a_stored_message_with_a_status_of_its_own_is_a_message() -> None:
    async with push_world() as w, open_consumer(w.nursery, w.consumer) as rx:
        await w.nc.flush()
        w.stream.store("s.a", b"x", headers=b"NATS/1.0 100 FlowControl Request\r\n\r\n")
        assert (await rx.receive()).status == 100


@pytest.mark.parametrize("reply", ["", "back"])
async def test_what_somebody_else_publishes_to_the_deliver_subject_is_left_out(reply: str) -> None:
    async with push_world() as w, open_consumer(w.nursery, w.consumer) as rx:
        told = Listener()
        seam(w.nc).add_listener(told)
        await w.nc.flush()
        for _ in range(3):
            w.server.publish("to.us", b"forged", reply=reply)
        w.store(1)
        assert (await rx.receive()).data == b"x"
        assert len(told.heard(events.ForeignDataSkipped)) == 1


async def test_options_that_say_nothing_to_it_are_refused() -> None:
    async with push_world() as w:
        sent = len(w.server.frames)
        refused: list[dict[str, Any]] = [{"expires": 5}, {"max_messages": 10}, {"stop_after": 3}, {"group": "g"}]
        for options in refused:
            with pytest.raises(ValueError, match="does not apply to a push consumer"):
                async with open_consumer(w.nursery, w.consumer, **options):
                    pytest.fail("it was opened")
        assert len(w.server.frames) == sent
        del w.fake.config["deliver_subject"]
        with pytest.raises(ValueError, match="is a pull consumer"):
            async with open_consumer(w.nursery, w.consumer):
                pytest.fail("it was opened")


async def test_what_was_buffered_before_a_reset_is_dropped_since_it_comes_again() -> None:
    async with push_world() as w, open_consumer(w.nursery, w.consumer) as rx:
        await w.nc.flush()
        w.store(1)
        await w.nc.flush()
        assert len(rx) == 1
        await trio.sleep(1)
        with w.consumer.__jetstream__().deliverers.ending("S", "C", "was reset"):
            pass
        with pytest.raises(trio.WouldBlock):
            rx.receive_nowait()
        w.store(1)
        await (await rx.receive()).ack()
        await w.nc.flush()
        assert w.fake.verdicts == {2: [b"+ACK"]}
