"""Messages that are held of a consumer whose life is over."""

from __future__ import annotations

from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.worlds import open_world, until
from trionats import Consumer, JetStream, JetStreamMsg, Msg, errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.fakes import FakeServer

pytestmark = pytest.mark.usefixtures("autojump_clock")

SEQUENCE = {"consumer_seq": 0, "stream_seq": 0}
CONSUMER: dict[str, Any] = {
    "stream_name": "S",
    "name": "c",
    "created": "2026-11-28T17:00:00.123456789Z",
    "config": {
        "name": "c",
        "ack_policy": "explicit",
        "ack_wait": 5_000_000_000,
        "backoff": [5_000_000_000, 1_000_000_000],
    },
    "delivered": SEQUENCE,
    "ack_floor": SEQUENCE,
}
DONE = {"success": True}
#: A reset looks at the consumer first.
LOOKED = CONSUMER
REFUSED = {"error": {"code": 400, "err_code": 10204, "description": "invalid reset request"}}
ANEW = {**CONSUMER, "created": "2027-01-01T00:00:00Z"}
RESET = {**CONSUMER, "reset_seq": 1}


@asynccontextmanager
async def answering(*answers: object) -> AsyncIterator[tuple[JetStream, FakeServer]]:
    left = list(answers)
    async with open_world() as (server, nc, _):
        server.on("$JS.API.INFO", lambda _: {"api": {"level": 4}})
        server.on("$JS.API.>", lambda _: left.pop(0))
        yield nc.jetstream(), server


async def assert_acknowledged(server: FakeServer, msg: JetStreamMsg) -> None:
    await msg.ack()
    await until(lambda: server.sent("PUB", msg.reply))
    assert server.sent("PUB", msg.reply)[0].payload == b"+ACK"


def held(consumer: Consumer) -> JetStreamMsg:
    return JetStreamMsg(Msg(1, "s.a", "$JS.ACK.S.c.1.1.1.1.0", b""), consumer.__deliverer__())


@pytest.mark.parametrize(
    ("answers", "end", "why"),
    [
        ([LOOKED, RESET], lambda js: js.reset_consumer("S", "c"), "was reset"),
        ([DONE], lambda js: js.delete_consumer("S", "c"), "was deleted"),
        ([ANEW], lambda js: js.consumer_info("S", "c"), "was made anew"),
    ],
)
async def test_what_is_held_cannot_be_acknowledged_after_its_consumers_life(
    answers: list[object], end: Callable[[Any], Awaitable[object]], why: str
) -> None:
    async with answering(CONSUMER, CONSUMER, *answers) as (js, server):
        one, other = await js.consumer("S", "c"), await js.consumer("S", "c")
        before = held(one), held(other)
        await end(js)
        for msg in before:
            with pytest.raises(errors.Error, match=f"consumer 'c' of stream 'S' {why}$"):
                await msg.ack()
        after = held(one)
        assert one.__deliverer__() is other.__deliverer__() is not None
        assert (one.__deliverer__().ack_wait, one.__deliverer__().acknowledges) == (1, True)
        await assert_acknowledged(server, after)


async def test_a_reset_that_was_refused_leaves_what_is_held_as_it_was() -> None:
    async with answering(CONSUMER, LOOKED, REFUSED) as (js, server):
        msg = held(await js.consumer("S", "c"))
        with pytest.raises(errors.BadRequestError, match="10204"):
            await js.reset_consumer("S", "c")
        await assert_acknowledged(server, msg)


@pytest.mark.parametrize("answer", [None, b"{}", b"no JSON", {**RESET, "reset_seq": "x"}])
async def test_what_is_held_is_void_where_it_is_not_known_whether_the_reset_was_done(answer: object) -> None:
    async with answering(CONSUMER, LOOKED, answer) as (js, _):
        msg = held(await js.consumer("S", "c"))
        with trio.move_on_after(1), pytest.raises(errors.APIError):
            await js.reset_consumer("S", "c")
        with pytest.raises(errors.Error, match="was reset, or may have been"):
            await msg.ack()


async def test_what_a_consumer_says_of_itself_later_counts_for_what_is_held() -> None:
    longer = {**CONSUMER, "config": {**CONSUMER["config"], "backoff": [], "ack_wait": 60_000_000_000}}
    async with answering(longer) as (js, _):
        bound = await js.consumer("S", "c", bind=True)
        assert bound.__deliverer__().ack_wait == inf
        await bound.info()
        assert bound.__deliverer__().ack_wait == 60


async def test_a_consumer_that_takes_no_acknowledgements_has_no_ack_wait() -> None:
    without = {**CONSUMER, "config": {**CONSUMER["config"], "ack_policy": "none"}}
    async with answering(without) as (js, _):
        deliverer = (await js.consumer("S", "c")).__deliverer__()
        assert (deliverer.acknowledges, deliverer.ack_wait) == (False, inf)
