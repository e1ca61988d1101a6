"""Fetching in memory: what passes over the connection, and what becomes of it; when it ends is in tests/protocol/test_fetching.py."""

from __future__ import annotations

import base64
import gc
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.fake_consumers import SECOND
from tests.fakes import FakeServer, Frame
from tests.worlds import ConsumerWorld, kept, lose, open_consumer_world, regain, sequences, settled, takes
from trionats import errors
from trionats._jetstream.consumers.fetching import Fetching

pytestmark = pytest.mark.usefixtures("autojump_clock")

GROUP: dict[str, Any] = {"priority_groups": ["g"]}


async def later(w: ConsumerWorld, seconds: float, act: Callable[[], object]) -> None:
    """Do something after so many seconds, beside the test."""

    async def wait() -> None:
        await trio.sleep(seconds)
        result = act()
        if isinstance(result, Awaitable):
            await result

    w.nursery.start_soon(wait)
    await settled()


async def cancelled(w: ConsumerWorld, call: Callable[..., Awaitable[object]], *args: object) -> None:
    """Cancel a call after a second, without a deadline that it could see."""
    with trio.CancelScope() as scope:
        await later(w, 1, scope.cancel)
        await call(*args)
    assert scope.cancelled_caught


async def quiet(w: ConsumerWorld) -> None:
    """See that nothing is left of a fetch at the server: no inbox of its own, and no request that anybody listens for."""
    await w.nc.flush()
    await w.nc.flush()
    shared = w.server.subscriptions[:1]
    assert w.server.subscriptions == shared, "but that of all requests"
    assert not [pull for pull in w.fake.pulls if w.stream.heard(pull.inbox)]


# -- what comes ----------------------------------------------------------------------------------------------------------


async def test_as_many_as_are_wanted_in_the_servers_order() -> None:
    async with open_consumer_world(5) as w:
        with takes(0):
            assert sequences(await w.consumer.fetch(3)) == [1, 2, 3]
            assert sequences(await w.consumer.fetch(2)) == [4, 5]
        await quiet(w)


async def test_messages_that_come_one_by_one_are_waited_for() -> None:
    async with open_consumer_world() as w:
        for seconds in (1, 2, 3):
            await later(w, seconds, lambda: w.store(1))
        with takes(3):
            assert len(await w.consumer.fetch(3)) == 3


async def test_what_there_is_when_time_is_up() -> None:
    async with open_consumer_world(2) as w:
        with takes(5):
            assert sequences(await w.consumer.fetch(3)) == [1, 2]
        with takes(0.5):
            assert await w.consumer.fetch(3, expires=0.5) == []
        with takes(0.1):
            assert await w.consumer.fetch(3, no_wait=True) == []
        with takes(0.5):
            assert await w.consumer.next(expires=0.5) is None
        await quiet(w)


async def test_next_gives_one_message() -> None:
    async with open_consumer_world(1) as w:
        msg = await w.consumer.next()
        assert msg is not None
        await msg.ack()
        await w.nc.flush()
        assert w.fake.verdicts == {1: [b"+ACK"]}


async def test_no_wait_ends_also_where_too_much_is_unacknowledged() -> None:
    """The server says nothing at all to a request that only does not wait."""
    async with open_consumer_world(5, max_ack_pending=2) as w:
        assert len(await w.consumer.fetch(2)) == 2
        with takes(0.1):
            assert await w.consumer.fetch(2, no_wait=True) == []


async def test_as_many_bytes_as_are_wanted() -> None:
    async with open_consumer_world(9) as w:
        one = len("s.a" + "$JS.ACK.S.C.1.1.1.1700000000000000001.8" + "x")
        with takes(0):
            assert sequences(await w.consumer.fetch(9, max_bytes=2 * one)) == [1, 2], "used up: no status tells"
            assert sequences(await w.consumer.fetch(9, max_bytes=3 * one - 1)) == [3, 4]
            assert sequences(await w.consumer.fetch(1, max_bytes=2 * one)) == [5]
        await quiet(w)


async def test_messages_know_when_they_are_delivered_again() -> None:
    async with open_consumer_world(2, ack_wait=7 * SECOND) as w:
        began = trio.current_time()
        assert [msg.due for msg in await w.consumer.fetch(1)] == [began + 7]
    async with open_consumer_world(2, backoff=[SECOND, 3 * SECOND], max_deliver=5) as w:
        began = trio.current_time()
        assert [msg.due for msg in await w.consumer.fetch(1)] == [began + 1]
        await trio.sleep(1)
        assert [msg.due for msg in await w.consumer.fetch(2)] == [began + 4, began + 2]


async def test_the_inbox_is_where_the_user_may_listen() -> None:
    async with open_consumer_world(1, client={"inbox_prefix": "_MINE"}) as w:
        assert len(await w.consumer.fetch(1)) == 1
        assert w.server.sent("PUB", "$JS.API.CONSUMER.MSG.NEXT.S.C")[0].reply.startswith("_MINE.")


async def test_a_thousand_fetches_leave_every_registry_as_it_was() -> None:
    async with open_consumer_world(100) as w:
        assert len(await w.consumer.fetch(10)) == 10
        await quiet(w)
        before = kept(w.nc)[1:]
        for number in range(1000):
            (msg,) = await w.consumer.fetch(1)
            if number % 3:
                await msg.nak()
            else:
                await msg.ack()
                w.store(1)
        await quiet(w)
        assert kept(w.nc)[1:] == before


async def test_a_fetch_leaves_no_circle_of_objects() -> None:
    """What it made is gone with it, and does not wait for the garbage collector."""
    async with open_consumer_world(3) as w:
        await w.consumer.fetch(1)
        await cancelled(w, w.consumer.fetch, 9)
        await w.nc.flush()
        gc.collect()
        gc.disable()
        try:
            await w.consumer.fetch(1)
            await w.nc.flush()
            assert not [each for each in gc.get_objects() if isinstance(each, Fetching)]
            with pytest.raises(errors.BadRequestError):
                await w.consumer.fetch(1, max_bytes=1)
            await w.nc.flush()
            assert not [each for each in gc.get_objects() if isinstance(each, Fetching)]
        finally:
            gc.enable()


# -- deadlines and cancellation --------------------------------------------------------------------------------------------


async def test_a_deadline_returns_a_part_instead_of_losing_it() -> None:
    async with open_consumer_world(2) as w:
        with takes(0.98), trio.move_on_after(1) as scope:
            assert len(await w.consumer.fetch(100, expires=30)) == 2
        assert not scope.cancelled_caught
        assert w.pulls()[0]["expires"] == pytest.approx(0.98 * SECOND)
        w.fake.suppressed = {"408"}
        w.store(2)
        with takes(0.995), trio.move_on_after(1) as scope:
            assert len(await w.consumer.fetch(100, expires=30)) == 2
        assert not scope.cancelled_caught


async def test_a_cancelled_fetch_gives_back_what_came_and_what_still_comes() -> None:
    """At once: another worker does not wait for the ack wait."""
    async with open_consumer_world(2, ack_wait=3600 * SECOND) as w:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(w.consumer.fetch, 4)
                await settled()
                w.server.link.stall(down=True)
                w.store(2)
                scope.cancel()
        w.server.link.resume()
        await w.nc.flush()
        await w.nc.flush()
        assert w.fake.verdicts == {sequence: [b"-NAK"] for sequence in (1, 2, 3, 4)}
        with takes(0):
            assert sorted(sequences(await w.consumer.fetch(4))) == [1, 2, 3, 4]


@pytest.mark.parametrize("config", [{"max_deliver": 5}, {"ack_policy": "none"}], ids=str)
async def test_where_deliveries_are_limited_or_not_acknowledged_nothing_is_given_back(config: dict[str, Any]) -> None:
    async with open_consumer_world(2, **config) as w:
        await cancelled(w, w.consumer.fetch, 4)
        await quiet(w)
        assert w.fake.verdicts == {}


async def test_what_comes_after_the_end_of_our_own_time_is_given_back() -> None:
    """The server sent it before it knew that nobody waits any more."""
    async with open_consumer_world() as w:
        w.fake.suppressed = {"408"}
        w.server.link.stall(down=True)
        await later(w, 4, lambda: w.store(1))
        with (
            takes(6),
            pytest.raises(errors.TimeoutError, match=r"^fetch from consumer 'C' of stream 'S': no answer within 5 s$"),
        ):
            await w.consumer.fetch(2)
        w.server.link.resume()
        await w.nc.flush()
        await w.nc.flush()
        assert w.fake.verdicts == {1: [b"-NAK"]}


async def test_what_waited_here_past_its_ack_wait_is_not_handed_over() -> None:
    """A process that stood still: the server has given it to somebody else, and two would work on it."""
    async with open_consumer_world(2, ack_wait=2 * SECOND) as w:
        with pytest.raises(errors.TimeoutError, match=r"2 messages waited here for longer than its ack wait, 2 s$"):
            with FrozenTask():
                await w.consumer.fetch(2)
        await w.nc.flush()
        assert w.fake.verdicts == {}


class FrozenTask(trio.abc.Instrument):
    """Lets a minute pass between the moment in which this task could go on and the one in which it does."""

    def __init__(self) -> None:
        self._task = trio.lowlevel.current_task()
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        self._clock = clock

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._clock.jump(60)

    def __enter__(self) -> None:
        trio.lowlevel.add_instrument(self)

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)


async def test_what_came_first_is_returned_after_half_its_ack_wait() -> None:
    async with open_consumer_world(1, ack_wait=4 * SECOND) as w:
        with takes(2):
            assert len(await w.consumer.fetch(2, expires=60)) == 1
        await quiet(w)


# -- two at once, and late words --------------------------------------------------------------------------------------------


async def test_two_fetches_at_once_do_not_disturb_each_other() -> None:
    async with open_consumer_world() as w:
        found: dict[int, list[int]] = {}

        async def fetch(number: int) -> None:
            found[number] = sequences(await w.consumer.fetch(10))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, 1)
            nursery.start_soon(fetch, 2)
            await settled()
            w.store(20)
        assert sorted(found[1] + found[2]) == list(range(1, 21))
        assert len(found[1]) == len(found[2]) == 10


async def test_a_late_status_of_an_earlier_fetch_touches_no_later_one() -> None:
    async with open_consumer_world(1) as w:
        await cancelled(w, w.consumer.fetch, 2)
        old = w.server.sent("PUB", "$JS.API.CONSUMER.MSG.NEXT.S.C")[-1].reply

        def say() -> None:
            for status in ("408 Request Timeout", "404 No Messages", "409 Consumer Deleted"):
                w.server.publish(old, headers=f"NATS/1.0 {status}\r\n\r\n".encode())

        await later(w, 1, say)
        await later(w, 2, lambda: w.store(1))
        with takes(2):
            assert len(await w.consumer.fetch(2)) == 2


async def test_a_late_status_within_one_fetch_is_of_the_request_before() -> None:
    async with open_consumer_world() as w:

        def step_down() -> None:
            inbox = w.fake.pulls[0].inbox
            w.fake.change_leader()
            w.nursery.start_soon(late, inbox)

        async def late(inbox: str) -> None:
            await trio.sleep(1)
            w.server.publish(inbox, headers=b"NATS/1.0 408 Request Timeout\r\n\r\n")
            await trio.sleep(1)
            w.store(1)

        await later(w, 1, step_down)
        with takes(3):
            assert len(await w.consumer.fetch(1)) == 1


# -- leaders and connections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["change_leader", "shut_down"])
async def test_a_change_of_leader_returns_what_came_and_with_nothing_asks_again(event: str) -> None:
    async with open_consumer_world(1) as w:
        await later(w, 1, getattr(w.fake, event))
        with takes(1):
            assert len(await w.consumer.fetch(2)) == 1
        await later(w, 1, getattr(w.fake, event))
        await later(w, 2, lambda: w.store(1))
        with takes(2):
            assert len(await w.consumer.fetch(1)) == 1
        assert w.pulls()[-1]["expires"] == pytest.approx(4 * SECOND)
        await quiet(w)


async def test_a_lost_connection_returns_what_came() -> None:
    async with open_consumer_world(1, client={"reconnect_time_wait": 0.5}) as w:
        await later(w, 1, w.server.cut)
        with takes(1):
            assert len(await w.consumer.fetch(2)) == 1
        await w.nc.wait_connected()


async def test_with_nothing_the_next_connection_is_asked() -> None:
    async with open_consumer_world(client={"reconnect_time_wait": 0.5}) as w:
        await later(w, 1, w.server.cut)
        await later(w, 3, lambda: w.store(1))
        with takes(3):
            assert len(await w.consumer.fetch(1)) == 1
        assert len(w.pulls()) == 2
        await quiet(w)


async def test_without_a_connection_it_waits_for_one_within_its_time() -> None:
    async with open_consumer_world(1, client={"reconnect_time_wait": 0.01}) as w:
        await lose(w.server, w.nc)
        with (
            takes(2),
            pytest.raises(
                errors.DisconnectedError, match=r"^fetch from consumer 'C' of stream 'S': there is no connection$"
            ),
        ):
            await w.consumer.fetch(1, expires=2)
        await cancelled(w, w.consumer.fetch, 1)
        await later(w, 1, lambda: regain(w.server, w.nc))
        with takes(1, 30):
            assert len(await w.consumer.fetch(1, expires=30)) == 1


# -- silence ----------------------------------------------------------------------------------------------------------------


async def test_a_long_fetch_asks_for_heartbeats() -> None:
    async with open_consumer_world() as w:
        with takes(12):
            assert await w.consumer.fetch(1, expires=12) == []
        assert w.pulls()[0]["idle_heartbeat"] == 5 * SECOND


async def test_a_request_that_got_lost_is_made_again_after_two_heartbeats() -> None:
    async with open_consumer_world(1) as w:
        w.fake.lose_pulls = 1
        with takes(2):
            assert len(await w.consumer.fetch(1, heartbeat=1)) == 1


async def test_a_message_that_got_lost_is_not_waited_for_longer_than_its_time() -> None:
    async with open_consumer_world(3) as w:
        w.fake.lose_messages = 1
        with takes(6):
            assert sequences(await w.consumer.fetch(3)) == [2, 3]


async def test_heartbeats_that_stop_return_what_came() -> None:
    async with open_consumer_world(1) as w:
        w.fake.suppressed = {"100"}
        with takes(2):
            assert len(await w.consumer.fetch(2, heartbeat=1)) == 1
        await quiet(w)


async def test_max_waiting_that_is_refused_in_silence_is_found_out_and_named() -> None:
    async with open_consumer_world(max_waiting=1) as w:
        await later(w, 0, lambda: w.consumer.fetch(1, expires=60))
        with (
            takes(0),
            pytest.raises(
                errors.BadRequestError, match=r"^fetch from consumer 'C' of stream 'S': 409 Exceeded MaxWaiting$"
            ),
        ):
            await w.consumer.fetch(1)
        with takes(2), pytest.raises(errors.BadRequestError, match=r"1 requests wait for it, and its max_waiting is 1"):
            await w.consumer.fetch(1, heartbeat=1)
        w.store(1)


# -- what is refused ------------------------------------------------------------------------------------------------------------


async def test_a_consumer_that_is_deleted_meanwhile_is_named_at_once() -> None:
    """And what came of it is void: acknowledged, it would settle a message of the next one of that name."""
    async with open_consumer_world(3) as w:
        held = await w.consumer.next()
        assert held is not None
        await later(w, 1, lambda: w.stream.delete_consumer("C"))
        with (
            takes(1),
            pytest.raises(
                errors.ConsumerGoneError, match=r"^consumer 'C' of stream 'S': it was deleted, or its stream$"
            ),
        ):
            await w.consumer.fetch(9)
        with pytest.raises(errors.Error, match=r"was deleted"):
            await held.ack()
        with takes(0), pytest.raises(errors.ConsumerGoneError, match=r"^consumer 'C' of stream 'S': .*not found"):
            await w.consumer.next()
        w.stream.add_consumer("C", ack_policy="explicit")
        for msg in await w.consumer.fetch(3):
            await msg.ack()
        await w.nc.flush()
        assert sorted(w.stream.consumers["C"].verdicts) == [1, 2, 3]


async def test_what_a_consumer_without_acknowledgements_gave_before_it_was_deleted_is_returned() -> None:
    async with open_consumer_world(1, ack_policy="none") as w:
        await later(w, 1, lambda: w.stream.delete_consumer("C"))
        with takes(1):
            assert len(await w.consumer.fetch(2)) == 1


@pytest.mark.parametrize(
    ("config", "options", "text"),
    [
        ({"max_batch": 5}, {}, "batch is 9: 409 Exceeded MaxRequestBatch of 5"),
        ({"max_expires": SECOND}, {}, "expires is 5.0: 409 Exceeded MaxRequestExpires of 1s"),
        ({"max_bytes": 5}, {"max_bytes": 9}, "max_bytes is 9: 409 Exceeded MaxRequestMaxBytes of 5"),
        ({"deliver_subject": "d"}, {}, "409 Consumer is push based"),
        (GROUP, {}, "400 Bad Request - Priority Group missing"),
        (GROUP, {"group": "h"}, "400 Bad Request - Invalid Priority Group"),
    ],
)
async def test_what_the_server_refuses_is_named(config: dict[str, Any], options: dict[str, Any], text: str) -> None:
    async with open_consumer_world(bind=True, **config) as w:
        with takes(0), pytest.raises(errors.BadRequestError) as caught:
            await w.consumer.fetch(9, **options)
        assert str(caught.value) == f"fetch from consumer 'C' of stream 'S': {text}"


@pytest.mark.parametrize(
    ("config", "options", "text"),
    [
        ({}, {"batch": 0}, "fetch: batch is 0"),
        ({}, {"heartbeat": 3.0}, "fetch: heartbeat is 3: it must be from 0.01 to 2.5"),
        ({}, {"group": "g"}, "fetch: group is 'g': consumer 'C' of stream 'S' has no priority groups"),
        (GROUP, {}, "fetch: consumer 'C' of stream 'S' has priority groups: say which, as in group='g'"),
        ({"deliver_subject": "d"}, {}, "fetch: consumer 'C' of stream 'S' is push based: read it with open_consumer"),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_sent(
    config: dict[str, Any], options: dict[str, Any], text: str
) -> None:
    async with open_consumer_world(**config) as w:
        sent = len(w.server.link.received)
        with pytest.raises(ValueError, match=r"^fetch: ") as caught:
            await w.consumer.fetch(**{"batch": 1, **options})
        assert str(caught.value).startswith(text)
        await settled()
        assert len(w.server.link.received) == sent


@pytest.mark.parametrize("call", ["fetch", "next"])
async def test_a_timeout_is_a_cancel_scope(call: str) -> None:
    async with open_consumer_world() as w:
        with pytest.raises(
            TypeError, match=rf"{call}\(\) takes no timeout: with trio.fail_after\(1\): await consumer.{call}"
        ):
            await getattr(w.consumer, call)(*([1] if call == "fetch" else []), timeout=1)
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'batches'"):
            await getattr(w.consumer, call)(*([1] if call == "fetch" else []), batches=1)


async def test_a_message_larger_than_max_bytes_is_named_with_both_sizes() -> None:
    async with open_consumer_world() as w:
        asked: list[Frame] = []

        def stored(frame: Frame) -> dict[str, Any]:
            asked.append(frame)
            data = base64.b64encode(bytes(1000)).decode()
            return {
                "message": {
                    "subject": "s.a",
                    "seq": 1,
                    "data": data,
                    "hdrs": base64.b64encode(bytes(10)).decode(),
                    "time": "",
                }
            }

        w.server.on("$JS.API.STREAM.MSG.GET.S", stored)
        w.stream.store("s.a", bytes(1000), headers=b"NATS/1.0\r\n\r\n"[:10])
        size = 1000 + 10 + len("s.a$JS.ACK.S.C.1.1.1.1700000000000000001.0")
        text = rf"max_bytes is 500: the next message \(sequence 1\) has {size}, its subjects and headers included$"
        with takes(0), pytest.raises(errors.BadRequestError, match=text):
            await w.consumer.fetch(9, max_bytes=500)
        assert [json.loads(frame.payload) for frame in asked] == [{"seq": 1, "next_by_subj": ">"}]
        await quiet(w)


@pytest.mark.parametrize("denied", ["$JS.API.STREAM.MSG.GET.S", "$JS.API.CONSUMER.INFO.S.C"])
async def test_where_its_size_cannot_be_found_out_what_is_known_is_said(denied: str) -> None:
    async with open_consumer_world(1, server=FakeServer(deny_publish=(denied,)), bind=True) as w:
        with pytest.raises(errors.BadRequestError, match=r"max_bytes is 5: the next message is larger$"):
            await w.consumer.fetch(9, max_bytes=5)


async def test_who_may_not_ask_is_told_at_once() -> None:
    denied = "$JS.API.CONSUMER.MSG.NEXT.S.C"
    async with open_consumer_world(1, server=FakeServer(deny_publish=(denied,))) as w:
        with (
            takes(0),
            pytest.raises(
                errors.PermissionsViolationError, match=r"^fetch from consumer 'C' of stream 'S': "
            ) as caught,
        ):
            await w.consumer.fetch(9)
        assert caught.value.subject == denied
        await quiet(w)


async def test_an_inbox_that_is_refused_is_told_at_once() -> None:
    async with open_consumer_world(1, server=FakeServer(deny_subscribe=("_INBOX.*.*",)), bind=True) as w:
        with (
            takes(0),
            pytest.raises(errors.PermissionsViolationError, match=r"^fetch from consumer 'C' of stream 'S': "),
        ):
            await w.consumer.fetch(9)


@pytest.mark.parametrize(
    ("headers", "payload"),
    [
        (b"", b"{}"),
        (b"NATS/1.0 abc\r\n\r\n", b""),
        (b"NATS/1.0 \r\nNats-Pending-Messages\r\n\r\n", b""),
        (b"A: b\r\n\r\n", b""),
        (b"NATS/1.0 99999999999999999999 x\r\n\r\n", b""),
    ],
)
async def test_what_is_foreign_in_its_inbox_ends_nothing(headers: bytes, payload: bytes) -> None:
    async with open_consumer_world() as w:

        def say() -> None:
            inbox = w.fake.pulls[0].inbox
            for where in (inbox.rpartition(".")[0] + ".x", inbox.rpartition(".")[0] + ".0"):
                w.server.publish(where, payload, headers=headers)
            w.server.publish(inbox.rpartition(".")[0] + ".7", headers=b"NATS/1.0 409 Consumer Deleted\r\n\r\n")

        await later(w, 1, say)
        await later(w, 2, lambda: w.store(1))
        with takes(2):
            assert len(await w.consumer.fetch(1)) == 1


async def test_a_consumer_that_is_reset_meanwhile_voids_what_came() -> None:
    """An acknowledgement from before a reset settles another message."""
    async with open_consumer_world(1) as w:
        deliverer = w.consumer.__deliverer__()

        def reset() -> None:
            deliverer.void = "was reset"

        await later(w, 1, reset)
        with (
            takes(5),
            pytest.raises(errors.Error, match=r"^fetch from consumer 'C' of stream 'S': it was reset meanwhile$"),
        ):
            await w.consumer.fetch(2)
        await w.nc.flush()
        assert w.fake.verdicts == {}


@pytest.mark.parametrize("answer", [{"message": None}, {"message": {"seq": "1"}}, {"message": {"seq": 1, "data": 5}}])
async def test_a_stored_message_that_is_none_has_no_size(answer: dict[str, Any]) -> None:
    async with open_consumer_world(1) as w:
        w.server.on("$JS.API.STREAM.MSG.GET.S", lambda _: answer)
        with pytest.raises(errors.BadRequestError, match=r"max_bytes is 5: the next message "):
            await w.consumer.fetch(9, max_bytes=5)


# -- the end of the client ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["aclose", "drain"])
async def test_a_client_that_ends_gives_back_what_came(how: str) -> None:
    """It could not be acknowledged any more."""
    async with open_consumer_world(2) as w:
        await later(w, 1, getattr(w.nc, how))
        kind = errors.ConnectionClosedError if how == "aclose" else errors.ConnectionDrainingError
        with takes(1), pytest.raises(kind):
            await w.consumer.fetch(9)
        with trio.fail_after(5):
            await w.nc.aclose()
        assert w.fake.verdicts == {1: [b"-NAK"], 2: [b"-NAK"]}
        with pytest.raises(errors.ConnectionClosedError):
            await w.consumer.fetch(9)


async def test_a_client_that_was_lost_for_good_says_why() -> None:
    async with open_consumer_world(client={"allow_reconnect": False}) as w:
        await later(w, 1, w.server.cut)
        with pytest.raises(errors.ConnectionClosedError) as caught:
            await w.consumer.fetch(9)
        assert caught.value.__cause__ is not None


# -- priority groups ----------------------------------------------------------------------------------------------------------


async def test_who_is_pinned_stays_so_from_one_fetch_to_the_next() -> None:
    async with open_consumer_world(4, priority_policy="pinned_client", priority_timeout=60 * SECOND, **GROUP) as w:
        other = await w.nc.jetstream().consumer("S", "C")
        assert len(await w.consumer.fetch(2, group="g")) == 2
        with takes(1):
            assert await other.fetch(1, group="g", expires=1) == []
        assert len(await w.consumer.fetch(1, group="g")) == 1
        assert "id" not in w.pulls()[0]
        assert w.pulls()[-1]["id"] == "pin1"


async def test_a_pin_that_is_lost_is_given_up_and_asked_without() -> None:
    async with open_consumer_world(4, priority_policy="pinned_client", priority_timeout=60 * SECOND, **GROUP) as w:
        assert len(await w.consumer.fetch(1, group="g")) == 1
        w.fake.unpin()
        with takes(0):
            assert len(await w.consumer.fetch(1, group="g")) == 1
        assert [asked.get("id") for asked in w.pulls()] == [None, "pin1", None]
        assert w.fake.pinned == "pin2"
        # Somebody else is pinned: it waits, and is told so in the end as the server does.
        w.fake.pinned = "theirs"
        with takes(1):
            assert await w.consumer.fetch(1, group="g", expires=1) == []
        assert "id" not in w.pulls()[-1]


async def test_a_fetch_that_got_nothing_forgets_no_pin_that_another_one_got() -> None:
    async with open_consumer_world(priority_policy="pinned_client", priority_timeout=60 * SECOND, **GROUP) as w:

        async def fetch(expires: float) -> None:
            await w.consumer.fetch(1, group="g", expires=expires)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, 2)
            await settled()
            nursery.start_soon(fetch, 5)
            await settled()
            w.store(1)
        w.store(1)
        assert len(await w.consumer.fetch(1, group="g")) == 1
        assert w.pulls()[-1]["id"] == "pin1"


async def test_the_terms_of_a_group_are_kept() -> None:
    async with open_consumer_world(3, priority_policy="overflow", **GROUP) as w:
        assert await w.consumer.fetch(1, group="g", min_pending=4, expires=1) == []
        assert len(await w.consumer.fetch(1, group="g", min_pending=3)) == 1
        assert len(await w.consumer.fetch(1, group="g", min_ack_pending=1)) == 1
    async with open_consumer_world(priority_policy="prioritized", **GROUP) as w:
        found: list[str] = []

        async def fetch(priority: int) -> None:
            found.extend(f"{priority}" for _ in await w.consumer.fetch(1, group="g", priority=priority))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, 2)
            await settled()
            nursery.start_soon(fetch, 1)
            await settled()
            w.store(1)
            await settled()
            assert found == ["1"]
            w.store(1)
