"""Reading a pull consumer in memory: what passes over the connection, and who is told; what is decided is in tests/protocol."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.fake_consumers import SECOND
from tests.fake_jetstream import UNAVAILABLE
from tests.fakes import FakeServer
from tests.worlds import (
    ConsumerWorld,
    Listener,
    arrived,
    assert_nothing_left,
    has_ended,
    lose,
    open_consumer_world,
    regain,
    seam,
    sequences,
    settled,
    until,
)
from trionats import Feed, JetStreamMsg, errors, events, open_consumer

pytestmark = pytest.mark.usefixtures("autojump_clock")

NEXT = "$JS.API.CONSUMER.MSG.NEXT.S.C"


def listen(w: ConsumerWorld) -> Listener:
    """Note the events."""
    listener = Listener()
    seam(w.nc).add_listener(listener)
    return listener


def told(listener: Listener) -> list[type[events.ConnectionEvent]]:
    """What was told of consumers."""
    return [type(event) for event in listener.events if isinstance(event, events.ConsumerEvent)]


async def exchanged(w: ConsumerWorld) -> None:
    """Let what was sent, and what was said to it, arrive."""
    await w.nc.flush()
    await w.nc.flush()


async def filled(rx: Feed[JetStreamMsg], count: int) -> None:
    await until(lambda: len(rx) == count, pause=0)


# -- what is asked for ---------------------------------------------------------------------------------------------------


async def test_what_is_asked_for_says_how_long_and_how_often_the_server_speaks() -> None:
    async with open_consumer_world() as w, open_consumer(w.nursery, w.consumer):
        await exchanged(w)
        expected = {"batch": 500, "max_bytes": 8 * 1024 * 1024, "expires": 30 * SECOND, "idle_heartbeat": 15 * SECOND}
        assert w.pulls() == [expected]


async def test_its_inboxes_are_where_the_user_may_listen() -> None:
    client = {"inbox_prefix": "_MINE", "reconnect_time_wait": 0.01}
    async with open_consumer_world(1, client=client) as w, open_consumer(w.nursery, w.consumer) as rx:
        await (await rx.receive()).ack()
        await lose(w.server, w.nc)
        await regain(w.server, w.nc)
        await w.nc.flush()
        replies = [frame.reply for frame in w.server.sent("PUB", "$JS.API.CONSUMER.MSG.NEXT.S.C")]
        assert len(replies) == len(set(replies)) > 1
        assert all(reply.startswith("_MINE.") for reply in replies)


async def test_nothing_is_asked_for_while_the_reader_sleeps_and_its_sleep_is_no_silence() -> None:
    async with open_consumer_world(10) as w, open_consumer(w.nursery, w.consumer, max_messages=10) as rx:
        listener = listen(w)
        await filled(rx, 10)
        await trio.sleep(29)
        w.store(5)
        await exchanged(w)
        assert (len(rx), len(w.pulls()), told(listener)) == (10, 1, [])


async def test_an_event_that_was_missed_is_told_at_exactly_two_heartbeats_and_asked_into_at_once() -> None:
    async with open_consumer_world() as w, open_consumer(w.nursery, w.consumer, heartbeat=1) as rx:
        listener = listen(w)
        await exchanged(w)
        start = trio.current_time()
        w.fake.suppressed.add("100")
        await trio.sleep(1.999)
        await exchanged(w)
        assert len(w.pulls()) == 1
        await trio.sleep(0.002)
        await exchanged(w)
        assert (len(w.pulls()), told(listener)) == (2, [events.ConsumerHeartbeatMissed])
        assert trio.current_time() - start < 2.1
        w.fake.suppressed.clear()
        w.store(1)
        await filled(rx, 1)
        # What was asked for before finds nobody any more.
        assert [pull.inbox for pull in w.fake.pulls if w.stream.heard(pull.inbox)] == [w.fake.pulls[-1].inbox]


async def test_what_was_sent_before_a_silence_is_received_all_the_same() -> None:
    async with open_consumer_world() as w, open_consumer(w.nursery, w.consumer, heartbeat=1) as rx:
        await exchanged(w)
        w.fake.suppressed.add("100")
        await trio.sleep(1.9)
        w.server.mute.add("PING")
        await trio.sleep(0.2)
        w.server.mute.clear()
        w.store(1)
        await filled(rx, 1)
        await exchanged(w)
        assert not w.fake.verdicts


async def test_there_is_no_silence_without_a_connection_and_it_asks_at_once_when_it_is_back() -> None:
    async with (
        open_consumer_world(3, client={"reconnect_time_wait": 1}) as w,
        open_consumer(w.nursery, w.consumer, heartbeat=1, max_messages=10) as rx,
    ):
        listener = listen(w)
        await filled(rx, 3)
        await lose(w.server, w.nc)
        await trio.sleep(20)
        assert told(listener) == []
        before = len(w.pulls())
        await regain(w.server, w.nc)
        assert [pull["batch"] for pull in w.pulls()[before:]] == [7]
        w.store(7)
        await filled(rx, 10)
        assert sequences(arrived(rx)) == list(range(1, 11))


@pytest.mark.parametrize(
    "status", ["409 Leadership Change", "409 Server Shutdown", "408 Request Timeout", "404 No Messages"]
)
async def test_a_request_that_ends_is_repeated_within_no_time(status: str) -> None:
    async with open_consumer_world() as w, open_consumer(w.nursery, w.consumer) as rx:
        await exchanged(w)
        w.fake.end(status)
        start = trio.current_time()
        await exchanged(w)
        assert (len(w.pulls()), trio.current_time()) == (2, start)
        w.store(1)
        await filled(rx, 1)


async def test_a_status_of_a_request_from_before_a_reconnect_changes_nothing() -> None:
    async with open_consumer_world() as w, open_consumer(w.nursery, w.consumer) as rx:
        await exchanged(w)
        old = w.fake.pulls[0].inbox
        await lose(w.server, w.nc)
        await regain(w.server, w.nc)
        for status in (b"408 Request Timeout", b"409 Leadership Change", b"400 Bad Request"):
            w.server.publish(old, headers=b"NATS/1.0 %b\r\n\r\n" % status)
        await exchanged(w)
        assert len(w.pulls()) == 2
        assert not has_ended(rx)


async def test_what_is_no_message_of_a_consumer_and_no_status_changes_nothing() -> None:
    async with open_consumer_world() as w, open_consumer(w.nursery, w.consumer) as rx:
        await exchanged(w)
        inbox = w.fake.pulls[0].inbox
        w.server.publish(inbox, b"whatever")
        w.server.publish(inbox, headers=b"NATS/1.0 abc\r\n\r\n")
        w.store(1)
        await filled(rx, 1)


async def test_limits_that_refuse_are_told_and_not_repeated_in_a_hurry() -> None:
    async with open_consumer_world(max_waiting=1) as w:
        listener = listen(w)
        async with (
            open_consumer(w.nursery, w.consumer, heartbeat=0.5),
            open_consumer(w.nursery, w.consumer, heartbeat=0.5),
        ):
            await exchanged(w)
            before = len(w.pulls())
            await trio.sleep(10)
            assert len(w.pulls()) - before <= 11
            assert told(listener).count(events.ConsumerLimitExceeded) == 1
            (limit,) = listener.heard(events.ConsumerLimitExceeded)
            assert "MaxWaiting" in limit.limit


# -- waiting too long ----------------------------------------------------------------------------------------------------


async def test_what_waited_past_its_ack_wait_is_not_handed_over_but_counted_and_told_once() -> None:
    async with open_consumer_world(5, ack_wait=10 * SECOND) as w:
        listener = listen(w)
        async with open_consumer(w.nursery, w.consumer, max_messages=5) as rx:
            await filled(rx, 5)
            first = await rx.receive()
            await first.ack()
            await trio.sleep(9.9)
            # It is delivered again to whoever asks; we do, as soon as there is room.
            again = await rx.receive()
            assert again.metadata.num_delivered == 2
            assert sequences([again]) == [2]
            await exchanged(w)
            (event,) = listener.heard(events.MessagesExpired)
            assert (event.stream, event.consumer, event.count) == ("S", "C", 4)


async def test_what_waited_for_half_of_it_is_kept_in_progress_when_it_is_handed_over() -> None:
    async with (
        open_consumer_world(2, ack_wait=10 * SECOND) as w,
        open_consumer(w.nursery, w.consumer, max_messages=2) as rx,
    ):
        await filled(rx, 2)
        await trio.sleep(4)
        early = await rx.receive()
        await trio.sleep(2)
        late = await rx.receive()
        assert late.due == pytest.approx(trio.current_time() + 10)
        await trio.sleep(3)
        await early.ack()
        await trio.sleep(6)
        await late.ack()
        await exchanged(w)
        assert w.fake.verdicts == {1: [b"+ACK"], 2: [b"+WPI", b"+ACK"]}
        assert w.fake.deliveries == {1: 1, 2: 1}


async def test_a_wait_that_differs_by_delivery_is_that_of_the_delivery() -> None:
    async with open_consumer_world(2, backoff=[4 * SECOND, 100 * SECOND], max_deliver=5) as w:
        async with open_consumer(w.nursery, w.consumer, max_messages=2) as rx:
            await filled(rx, 2)
            await trio.sleep(4.5)
            again = [await rx.receive(), await rx.receive()]
            assert [msg.metadata.num_delivered for msg in again] == [2, 2]
            assert again[0].due == pytest.approx(trio.current_time() + 100, abs=1)


# -- leaving -------------------------------------------------------------------------------------------------------------


async def test_leaving_unsubscribes_first_and_gives_back_what_is_buffered_in_its_order() -> None:
    async with open_consumer_world(5) as w:
        async with open_consumer(w.nursery, w.consumer) as rx:
            await filled(rx, 5)
            await (await rx.receive()).ack()
            before = len(w.server.frames)
        await exchanged(w)
        sent = [(frame.verb, frame.payload) for frame in w.server.frames[before:]]
        assert sent.index(("UNSUB", b"")) < sent.index(("PUB", b"-NAK"))
        assert w.fake.verdicts == {1: [b"+ACK"], **{number: [b"-NAK"] for number in range(2, 6)}}
        assert list(w.fake.again) == [2, 3, 4, 5]


async def test_what_was_on_its_way_when_the_block_was_left_is_given_back() -> None:
    async with open_consumer_world() as w:
        async with open_consumer(w.nursery, w.consumer) as rx:
            await exchanged(w)
            w.server.link.stall(up=True)
            w.store(3)
        assert len(w.fake.unacked) == 3
        w.server.link.resume()
        await exchanged(w)
        assert (w.fake.verdicts, has_ended(rx)) == ({number: [b"-NAK"] for number in (1, 2, 3)}, True)


@pytest.mark.parametrize(
    ("config", "options", "given_back"),
    [
        ({"max_deliver": 3}, {}, False),
        ({"max_deliver": 3}, {"on_leave": "nak"}, True),
        ({}, {"on_leave": "leave"}, False),
        ({"ack_policy": "none"}, {}, False),
        ({"ack_policy": "none"}, {"on_leave": "nak"}, False),
    ],
)
async def test_what_is_left_behind_is_given_back_unless_that_could_lose_it(
    config: dict[str, Any], options: dict[str, Any], given_back: bool
) -> None:
    async with open_consumer_world(3, **config) as w:
        async with open_consumer(w.nursery, w.consumer, **options) as rx:
            await filled(rx, 3)
        await exchanged(w)
        assert bool(w.fake.verdicts) is given_back


async def test_a_consumer_that_was_only_bound_is_read_and_what_is_left_stays_with_the_ack_wait() -> None:
    server = FakeServer(deny_publish=("$JS.API.CONSUMER.INFO.>",))
    async with open_consumer_world(3, server=server, bind=True) as w:
        async with open_consumer(w.nursery, w.consumer) as rx:
            await filled(rx, 3)
            await (await rx.receive()).ack()
            await exchanged(w)
            await lose(w.server, w.nc)
            await regain(w.server, w.nc)
        await exchanged(w)
        assert w.fake.verdicts == {1: [b"+ACK"]}
        assert not server.sent("PUB", "$JS.API.CONSUMER.INFO.>")


async def test_stop_wakes_a_reader_that_waits_and_may_be_repeated() -> None:
    async with open_consumer_world() as w, open_consumer(w.nursery, w.consumer) as rx:
        seen: list[JetStreamMsg] = []

        async def read() -> None:
            seen.extend([msg async for msg in rx])

        async with trio.open_nursery() as readers:
            readers.start_soon(read)
            await settled()
            rx.stop()
            rx.stop()
        assert seen == []


# -- what ends it --------------------------------------------------------------------------------------------------------


async def test_whoever_may_not_ask_for_messages_is_told_so_by_receive() -> None:
    async with open_consumer_world(server=FakeServer(deny_publish=(NEXT,))) as w:
        async with open_consumer(w.nursery, w.consumer) as rx:
            with pytest.raises(
                errors.PermissionsViolationError, match=r"consumer .C. of stream .S.: .*MSG\.NEXT\.S\.C"
            ):
                await rx.receive()


async def test_whoever_may_not_subscribe_to_inboxes_is_told_so_by_receive() -> None:
    async with open_consumer_world(1) as w:
        w.server.deny_subscribe = ("_INBOX.>",)
        async with open_consumer(w.nursery, w.consumer) as rx:
            with pytest.raises(errors.PermissionsViolationError, match="consumer 'C' of stream 'S'"):
                await rx.receive()


async def test_a_deletion_is_told_at_once_also_while_the_server_keeps_silent_about_the_consumer() -> None:
    async with open_consumer_world() as w, open_consumer(w.nursery, w.consumer, heartbeat=10) as rx:
        await exchanged(w)
        w.server.on("$JS.API.CONSUMER.INFO.S.C", lambda _: None, first=True)
        w.fake.suppressed.add("100")
        await trio.sleep(20.1)
        assert w.server.sent("PUB", "$JS.API.CONSUMER.INFO.S.C")
        start = trio.current_time()
        w.fake.end("409 Consumer Deleted")
        with pytest.raises(errors.ConsumerGoneError):
            await rx.receive()
        assert trio.current_time() == start


@pytest.mark.parametrize("stopped", [False, True])
async def test_one_that_has_ended_takes_no_inbox_when_the_connection_breaks_behind_its_goodbye(
    *, stopped: bool
) -> None:
    async with open_consumer_world(3) as w:
        async with open_consumer(w.nursery, w.consumer) as rx:
            await filled(rx, 3)
            w.server.mute.add("PING")  # the PONG behind its UNSUB does not come
            if stopped:
                rx.stop()
        await lose(w.server, w.nc)
        w.server.mute.clear()
        await regain(w.server, w.nc)
        assert_nothing_left(w.nc)


async def test_a_drain_without_a_connection_ends_it() -> None:
    async with open_consumer_world(3) as w:
        async with open_consumer(w.nursery, w.consumer, heartbeat=1) as rx:
            await filled(rx, 3)
            w.nc.drain_nowait()
            await lose(w.server, w.nc)
            with trio.fail_after(5):
                assert len([msg async for msg in rx]) == 3


async def test_a_drain_that_the_server_does_not_answer_brings_no_request_and_no_other_inbox() -> None:
    async with open_consumer_world(1, client={"drain_timeout": 9}) as w:
        async with open_consumer(w.nursery, w.consumer, heartbeat=1) as rx:
            await filled(rx, 1)
            w.server.mute.add("PING")
            w.nc.drain_nowait()
            await trio.sleep(3)
            assert len(w.pulls()) == 1
            w.server.mute.clear()


async def test_no_leader_for_a_while_does_not_end_it() -> None:
    async with open_consumer_world() as w, open_consumer(w.nursery, w.consumer) as rx:
        listener = listen(w)
        await exchanged(w)
        consumer = w.stream.consumers.pop("C")
        w.server.on("$JS.API.CONSUMER.INFO.S.C", lambda _: UNAVAILABLE, first=True)
        consumer.end("409 Leadership Change")
        await trio.sleep(20)
        await exchanged(w)
        assert told(listener) == [events.ConsumerUnreachable]
        w.stream.consumers["C"] = consumer
        w.store(1)
        await until(lambda: len(rx) == 1, within=1.1)


async def test_a_reader_refuses_what_is_no_consumer_and_a_group_that_it_does_not_have() -> None:
    async with open_consumer_world() as w:
        with pytest.raises(TypeError, match="must be a Consumer, not Client"):
            async with open_consumer(w.nursery, w.nc):  # type: ignore[arg-type]
                pytest.fail("it was opened")
        with pytest.raises(ValueError, match="has no priority groups"):
            async with open_consumer(w.nursery, w.consumer, group="g"):
                pytest.fail("it was opened")
        assert w.pulls() == []
