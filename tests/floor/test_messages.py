"""Messages of a consumer in memory: what is said of them, and what becomes of that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.fake_consumers import SECOND
from tests.worlds import (
    ConsumerWorld,
    Listener,
    cut_short,
    delivered,
    hold_back,
    lose,
    open_consumer_world,
    regain,
    seam,
    settled,
    until,
)
from trionats import JetStreamMsg, Msg, errors, events
from trionats._jetstream.messages.deliverers import Deliverer
from trionats._protocol.jetstream.acks import Verdict

pytestmark = pytest.mark.usefixtures("autojump_clock")


#: Each way to say something final, and what the server reads.
FINAL: dict[str, tuple[Callable[[JetStreamMsg], Any], bytes]] = {
    "ack": (lambda msg: msg.ack(), b"+ACK"),
    "ack_nowait": (lambda msg: msg.ack_nowait(), b"+ACK"),
    "ack_sync": (lambda msg: msg.ack_sync(), b"+ACK"),
    "ack_next": (lambda msg: msg.ack_next(1), b'+NXT {"batch":1,"expires":1000000000}'),
    "nak": (lambda msg: msg.nak(), b"-NAK"),
    "nak, later": (lambda msg: msg.nak(30), b'-NAK {"delay": 30000000000}'),
    "nak_nowait": (lambda msg: msg.nak_nowait(30), b'-NAK {"delay": 30000000000}'),
    "term": (lambda msg: msg.term(), b"+TERM"),
    "term_nowait": (lambda msg: msg.term_nowait("poison"), b"+TERM poison"),
}
NOT_FINAL: dict[str, Callable[[JetStreamMsg], Any]] = {
    "in_progress": lambda msg: msg.in_progress(),
    "in_progress_nowait": lambda msg: msg.in_progress_nowait(),
    "processing": lambda msg: enter(msg),
}
each_final = pytest.mark.parametrize("way", FINAL)


async def enter(msg: JetStreamMsg) -> None:
    async with msg.processing():
        pytest.fail("it was entered")


async def do(way: Callable[[JetStreamMsg], Any], msg: JetStreamMsg) -> object:
    found = way(msg)
    return await found if isinstance(found, Awaitable) else found


async def one(w: ConsumerWorld) -> JetStreamMsg:
    return (await delivered(w.nc, w.consumer))[0]


async def verdicts(w: ConsumerWorld, sequence: int = 1) -> list[bytes]:
    """What the server has been told of a message."""
    await w.nc.flush()
    return w.fake.verdicts.get(sequence, [])


# -- one final verdict ---------------------------------------------------------------------------------------------------------


@each_final
async def test_a_message_gets_one_final_verdict(way: str) -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        say, body = FINAL[way]
        await do(say, msg)
        assert await verdicts(w) == [body]
        for again in [*(say for say, _ in FINAL.values()), *NOT_FINAL.values()]:
            with pytest.raises(
                errors.MsgAlreadyAckdError, match=r"message on 's.a' was (acknowledged|given|terminated)"
            ):
                await do(again, msg)
        assert await verdicts(w) == [body]


async def test_progress_may_be_told_again_and_again() -> None:
    async with open_consumer_world(1, ack_wait=4 * SECOND) as w:
        msg = await one(w)
        before = msg.due
        assert before == trio.current_time() + 4
        await trio.sleep(3)
        await msg.in_progress()
        await msg.in_progress()
        msg.in_progress_nowait()
        assert msg.due == before + 3
        await msg.ack()
        assert await verdicts(w) == [b"+WPI"] * 3 + [b"+ACK"]


async def test_progress_that_was_not_told_takes_back_no_verdict_of_another_task() -> None:
    async with open_consumer_world(1, client={"pending_size": 1000}) as w:
        msg = await one(w)
        await hold_back(w.server, w.nc, 2000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(msg.in_progress)
            await settled()
            assert msg.__say__(Verdict.ACK, b"+ACK")
            nursery.cancel_scope.cancel()
        with pytest.raises(errors.MsgAlreadyAckdError):
            await msg.nak()
        w.server.link.resume()


@pytest.mark.parametrize("way", [*FINAL, *NOT_FINAL])
async def test_what_nobody_may_acknowledge_says_so(way: str) -> None:
    say = FINAL[way][0] if way in FINAL else NOT_FINAL[way]
    async with open_consumer_world(1) as w:
        msg = await one(w)
        deliverer = w.consumer.__deliverer__()
        deliverer.void = "was reset"
        with pytest.raises(errors.Error, match=r"message on 's.a': its consumer 'C' of stream 'S' was reset"):
            await do(say, msg)
        deliverer.void, deliverer.acknowledges = "", False
        with pytest.raises(errors.Error, match="takes no acknowledgements"):
            await do(say, msg)
        assert await verdicts(w) == []


async def test_a_verdict_that_was_not_queued_was_not_said() -> None:
    """Without room, without a connection, or cancelled before: then another one may follow."""
    async with open_consumer_world(1, client={"pending_size": 100}) as w:
        msg = await one(w)
        await cut_short(msg.ack, after=0)
        await cut_short(msg.ack_sync, after=0)
        await cut_short(msg.ack_next, after=0)
        await lose(w.server, w.nc)
        await w.nc.publish("filler", bytes(100))
        for way in (msg.ack, msg.term, msg.ack_sync, msg.ack_next):
            with pytest.raises(errors.OutboundBufferLimitError):
                await way()
        for way_nowait in (msg.ack_nowait, msg.nak_nowait, msg.in_progress_nowait):
            with pytest.raises((errors.OutboundBufferLimitError, trio.WouldBlock)):
                way_nowait()
        await regain(w.server, w.nc)
        await msg.nak(60)
        assert await verdicts(w) == [b'-NAK {"delay": 60000000000}']


@pytest.mark.parametrize("way", [*FINAL, *NOT_FINAL])
async def test_what_no_consumer_delivered_is_not_acknowledged(way: str) -> None:
    async with open_consumer_world() as w:
        core = JetStreamMsg(Msg(1, "s.a", "", b"x"), w.consumer.__deliverer__())
        with pytest.raises(errors.NotJSMessageError, match=r"message on 's.a' has no reply subject"):
            await do(FINAL[way][0] if way in FINAL else NOT_FINAL[way], core)
        await w.nc.flush()


async def test_a_response_is_refused_for_it_would_be_an_acknowledgement() -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        with pytest.raises(
            errors.Error, match=r"message on 's.a' was delivered by consumer 'C' of stream 'S': it takes ack"
        ):
            await msg.respond(b"thanks")
        with pytest.raises(errors.Error, match="and no response"):
            msg.respond_nowait(b"thanks")
        assert await verdicts(w) == []


@pytest.mark.parametrize("expires", [0, -1, float("nan"), "1", None])
async def test_a_time_that_is_none_acknowledges_nothing(expires: Any) -> None:  # noqa: ANN401 - whatever is given
    async with open_consumer_world(1) as w:
        msg = await one(w)
        with pytest.raises((TypeError, ValueError), match="ack_next: expires"):
            await msg.ack_next(expires)
        with pytest.raises(TypeError, match="term_on"):
            msg.processing(term_on=BaseException)  # type: ignore[arg-type]
        assert await verdicts(w) == []
        await msg.ack()


# -- the double acknowledgement --------------------------------------------------------------------------------------------------


def silent(w: ConsumerWorld) -> None:
    """Let the server confirm nothing."""
    w.server.on("$JS.ACK.>", lambda _: None, first=True)


async def in_doubt(w: ConsumerWorld, msg: JetStreamMsg) -> None:
    """See that it can be acknowledged once more, and nothing else."""
    for other in (msg.nak, msg.term, msg.in_progress):
        with pytest.raises(errors.MsgAlreadyAckdError, match="may have been acknowledged already, so it can only be"):
            await other()
    with pytest.raises(errors.MsgAlreadyAckdError):
        await enter(msg)
    await msg.ack()
    with pytest.raises(errors.MsgAlreadyAckdError, match="was acknowledged already"):
        await msg.ack()


async def test_a_double_ack_that_is_cancelled_or_disconnected_can_only_be_repeated() -> None:
    async with open_consumer_world(3, client={"reconnect_time_wait": 0.001}) as w:
        cancelled, late, broken = await delivered(w.nc, w.consumer, 3)
        silent(w)
        await cut_short(cancelled.ack_sync)
        await in_doubt(w, cancelled)
        with pytest.raises(errors.TimeoutError):
            await late.ack_sync()
        await in_doubt(w, late)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(errors.DisconnectedError):
                    await broken.ack_sync()

            await settled()
            w.server.cut()
        await w.nc.wait_connected()
        await in_doubt(w, broken)


async def test_a_confirmation_that_comes_late_is_one() -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        silent(w)
        await cut_short(msg.ack_sync)
        w.server.publish(w.server.sent("PUB", "$JS.ACK.>")[-1].reply)
        await w.nc.flush()
        with pytest.raises(errors.MsgAlreadyAckdError, match="was acknowledged already"):
            await msg.ack_sync()


async def test_a_double_ack_that_was_never_sent_was_not_said() -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        await lose(w.server, w.nc)
        await cut_short(msg.ack_sync)
        await regain(w.server, w.nc)
        assert await verdicts(w) == []
        await msg.nak(60)


async def test_a_double_ack_that_nobody_hears_says_so_and_can_be_repeated() -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        w.server.on(
            "$JS.ACK.>",
            lambda frame: w.server.publish(frame.reply, headers=b"NATS/1.0 503\r\n\r\n") and None,
            first=True,
        )
        with pytest.raises(
            errors.NoRespondersError, match=r"ack of message on 's.a': its consumer 'C' of stream 'S' is not"
        ):
            await msg.ack_sync()
        await msg.nak()


# -- ack and next ------------------------------------------------------------------------------------------------------------------


async def test_one_call_acknowledges_and_gives_the_next_message_or_none() -> None:
    async with open_consumer_world(2) as w:
        first = await one(w)
        second = await first.ack_next()
        assert second is not None
        assert (second.metadata.sequence.stream, second.due) == (2, trio.current_time() + 30)
        start = trio.current_time()
        assert await second.ack_next(3) is None
        assert trio.current_time() == start + 3
        assert [await verdicts(w, 1), await verdicts(w, 2)] == [
            [b'+NXT {"batch":1,"expires":5000000000}'],
            [b'+NXT {"batch":1,"expires":3000000000}'],
        ]
        assert not w.fake.unacked


async def test_a_next_message_is_asked_for_within_the_deadline() -> None:
    async with open_consumer_world(2) as w:
        first = await one(w)
        second = await first.ack_next()
        assert second is not None
        with trio.fail_after(2):
            assert await second.ack_next(60) is None


@pytest.mark.parametrize("limited", [False, True])
async def test_a_next_message_that_nobody_waits_for_any_more_is_given_back(limited: bool) -> None:
    """Unless each delivery counts."""
    async with open_consumer_world(1, max_deliver=3 if limited else -1) as w:
        msg = await one(w)
        w.server.mute.add("UNSUB")  # the server has not seen it yet when the message is on its way
        async with trio.open_nursery() as nursery:
            nursery.start_soon(msg.ack_next, 60)
            await settled()
            w.server.link.stall(up=True)
            nursery.cancel_scope.cancel()
        w.store(1)
        w.server.link.resume()
        await settled()
        await in_doubt(w, msg)
        assert await verdicts(w, 2) == ([] if limited else [b"-NAK"])


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        ("409 Consumer Deleted", errors.NotFoundError, "its consumer 'C' of stream 'S' is gone"),
        ("503", errors.NotFoundError, "is gone"),
        ("409 Consumer is push based", errors.Error, "refused: 409 Consumer is push based"),
        ("400 Bad Request - Priority Group missing", errors.Error, "Priority Group missing"),
    ],
)
async def test_why_no_next_message_can_come_is_raised(status: str, kind: type[Exception], text: str) -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        block = f"NATS/1.0 {status}\r\n\r\n".encode()
        w.server.on("$JS.ACK.>", lambda frame: w.server.publish(frame.reply, headers=block) and None, first=True)
        with pytest.raises(kind, match=text):
            await msg.ack_next()
        await in_doubt(w, msg)


async def test_a_next_message_does_not_come_over_another_connection() -> None:
    async with open_consumer_world(2, client={"reconnect_time_wait": 0.001}) as w:
        ends: list[tuple[Callable[[], Any], type[Exception]]] = [
            (w.server.cut, errors.DisconnectedError),
            (w.nc.aclose, errors.ConnectionClosedError),
        ]
        for end, kind in ends:
            msg = await one(w)
            silent(w)
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def ask(msg: JetStreamMsg = msg, kind: type[Exception] = kind) -> None:
                    with pytest.raises(kind, match=r"ack_next of message on 's.a'"):
                        await msg.ack_next(60)

                await settled()
                done = end()
                if isinstance(done, Awaitable):
                    await done
            await trio.sleep(0.1)


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever() -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        silent(w)
        start = trio.current_time()
        assert await msg.ack_next(3) is None
        assert trio.current_time() - start == 5


# -- processing --------------------------------------------------------------------------------------------------------------------


class Hopeless(Exception): ...


async def fail(msg: JetStreamMsg, error: BaseException) -> None:
    async with msg.processing(term_on=Hopeless):
        raise error


async def test_what_is_worked_on_is_kept_in_progress_at_half_its_ack_wait() -> None:
    async with open_consumer_world(1, ack_wait=4 * SECOND) as w:
        msg = await one(w)
        await trio.sleep(1)
        async with msg.processing():
            assert await verdicts(w) == []
            for seconds, count in [(0.9, 0), (0.2, 1), (1.8, 1), (0.2, 2), (20, 12)]:
                await trio.sleep(seconds)
                assert await verdicts(w) == [b"+WPI"] * count
        assert await verdicts(w) == [b"+WPI"] * 12 + [b"+ACK"]
        await trio.sleep(10)
        assert len(await verdicts(w)) == 13
        assert w.fake.deliveries == {1: 1}


async def test_the_wait_of_a_later_delivery_is_that_of_the_backoff() -> None:
    async with open_consumer_world(1, backoff=[1 * SECOND, 10 * SECOND]) as w:
        deliverer = w.consumer.__deliverer__()
        replies = [f"$JS.ACK.S.C.{number}.1.1.1.0" for number in (1, 2, 3, 0, -5)]
        assert [deliverer.wait(reply) for reply in [*replies, "none"]] == [1, 10, 10, 1, 1, 1]


async def test_where_the_ack_wait_is_not_known_it_is_said_at_once_and_each_ten_seconds() -> None:
    async with open_consumer_world(1, bind=True) as w:
        msg = await one(w)
        async with msg.processing():
            await trio.sleep(25)
        assert await verdicts(w) == [b"+WPI"] * 3 + [b"+ACK"]


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (KeyError("secret"), b"-NAK"),
        (Hopeless("secret"), b"+TERM Hopeless"),
        (ExceptionGroup("secret", [Hopeless()]), b"+TERM ExceptionGroup"),
        (KeyboardInterrupt(), b"-NAK"),
    ],
)
async def test_a_block_that_fails_gives_back_or_terminates_and_its_exception_goes_on(
    error: BaseException, body: bytes
) -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        with pytest.raises(type(error)) as caught:
            await fail(msg, error)
        assert caught.value is error
        assert (await verdicts(w))[0] == body


async def test_a_block_that_is_cancelled_gives_back_at_once() -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)

        async def work() -> None:
            async with msg.processing():
                await trio.sleep_forever()

        await cut_short(work)
        assert (await verdicts(w))[0] == b"-NAK"
        assert w.fake.deliveries == {1: 1}  # nobody asks yet
        assert (await one(w)).metadata.num_delivered == 2


async def test_a_block_that_is_cancelled_when_it_is_done_acknowledges_all_the_same() -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        with trio.CancelScope() as scope:
            async with msg.processing():
                scope.cancel()
        assert scope.cancelled_caught
        assert await verdicts(w) == [b"+ACK"]


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("way", ["ack", "nak, later", "term_nowait"])
async def test_a_verdict_of_the_blocks_own_stands(way: str, raises: bool) -> None:
    async with open_consumer_world(1, ack_wait=4 * SECOND) as w:
        msg = await one(w)
        say, body = FINAL[way]
        try:
            async with msg.processing():
                await do(say, msg)
                await trio.sleep(10)
                if raises:
                    raise Hopeless
        except Hopeless:
            pass
        assert await verdicts(w) == [body]


async def test_an_ack_in_doubt_is_repeated_at_the_end_of_the_block_and_never_contradicted() -> None:
    async with open_consumer_world(2) as w:
        done, failed = await delivered(w.nc, w.consumer, 2)
        silent(w)
        for msg, error in [(done, None), (failed, Hopeless())]:
            try:
                async with msg.processing():
                    await cut_short(msg.ack_sync)
                    if error is not None:
                        raise error
            except Hopeless:
                pass
        await w.nc.flush()
        sent = [frame.payload for frame in w.server.sent("PUB", "$JS.ACK.>")]
        assert sent == [b"+ACK"] * 3


async def test_an_ack_that_fails_at_the_end_of_the_block_is_raised() -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        with pytest.raises(errors.ConnectionClosedError):
            async with msg.processing():
                await w.nc.aclose()


async def test_a_connection_that_is_back_is_told_soon_that_the_message_is_worked_on() -> None:
    async with open_consumer_world(1, ack_wait=8 * SECOND) as w:
        msg = await one(w)
        async with msg.processing():
            await lose(w.server, w.nc)
            await trio.sleep(30)
            await regain(w.server, w.nc)
            start = trio.current_time()
            await until(lambda: b"+WPI" in w.fake.verdicts.get(1, []), pause=0.1)
            assert trio.current_time() - start <= 1.2
            assert w.fake.verdicts[1] == [b"+WPI"]


async def test_a_scope_is_entered_once() -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        scope = msg.processing()
        async with scope:
            with pytest.raises(RuntimeError, match="entered once"):
                await scope.__aenter__()


# -- what the server says of it ----------------------------------------------------------------------------------------------------


def message(reply: str) -> JetStreamMsg:
    return JetStreamMsg(Msg(1, "s.a", reply, b"x"), Deliverer(None, "consumer 'C' of stream 'S'"))  # type: ignore[arg-type]


def test_metadata_are_read_from_both_forms_of_reply_subject() -> None:
    old = message("$JS.ACK.S.C.3.20.7.1795440575220161869.2").metadata
    new = message("$JS.ACK.hub.hash.S.C.3.20.7.1795440575220161869.2.more").metadata
    assert (old.stream, old.consumer, old.domain, new.domain) == ("S", "C", None, "hub")
    for found in (old, new):
        assert (found.sequence.stream, found.sequence.consumer) == (20, 7)
        assert (found.num_delivered, found.num_pending) == (3, 2)
        assert found.timestamp == datetime(2026, 11, 23, 13, 29, 35, 220161, tzinfo=UTC)
    again = message("$JS.ACK.S.C.3.20.7.1795440575220161869.2")
    assert again.metadata is again.metadata


@pytest.mark.parametrize(
    "reply", ["", "back", "$JS.ACK.S.C.1.2.three.4.5", "$JS.ACK.S.C.1.2.3.4.5.6", "$JS.ACK.\udcff"]
)
def test_a_reply_subject_of_another_kind_says_nothing(reply: str) -> None:
    with pytest.raises(errors.NotJSMessageError, match=r"message on 's.a': its reply subject"):
        _ = message(reply).metadata


@pytest.mark.parametrize("reply", ["$JS.ACK.*.>", "$JS.ACK...x", "a" * 500])
async def test_no_reply_subject_breaks_the_connection(reply: str) -> None:
    async with open_consumer_world() as w:
        for say in (JetStreamMsg.ack, JetStreamMsg.nak):
            await say(JetStreamMsg(Msg(1, "s.a", reply, b"x"), w.consumer.__deliverer__()))
        async with JetStreamMsg(Msg(1, "s.a", reply, b"x"), w.consumer.__deliverer__()).processing():
            await trio.sleep(40)
        hostile = JetStreamMsg(Msg(1, "s.a", reply, b"x"), w.consumer.__deliverer__())
        with trio.move_on_after(1), pytest.raises(errors.Error):
            await hostile.ack_sync()
        await w.nc.flush()
        assert w.nc.is_connected


async def test_what_is_lost_with_the_client_is_told_and_what_was_given_back_is_not() -> None:
    async with open_consumer_world(2) as w:
        asked, aside = await delivered(w.nc, w.consumer, 2)
        told = Listener()
        seam(w.nc).add_listener(told)
        await lose(w.server, w.nc)
        await asked.ack()
        with pytest.raises(Hopeless):
            await fail(aside, Hopeless())
        await w.nc.aclose()
        assert [event.count for event in told.heard(events.PublishesLost)] == [1]


async def test_verdicts_wait_where_publishes_wait() -> None:
    async with open_consumer_world(1) as w:
        msg = await one(w)
        for way in (partial(msg.in_progress), partial(msg.ack)):
            with trio.testing.assert_checkpoints():
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await way()
            assert scope.cancelled_caught
        assert await verdicts(w) == []
