"""Many answers to one request, against a server in memory: what ends them, what makes them fail, what is left."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.cancelling import Cut, cancel_everywhere
from tests.fakes import FakeServer, Frame
from tests.worlds import (
    World,
    alarms,
    assert_nothing_left,
    connected,
    hold_back,
    lose,
    open_world,
    payloads,
    settled,
    takes,
)
from trionats import Client, Msg, errors, open_replies, open_subscription

pytestmark = pytest.mark.usefixtures("autojump_clock")


@asynccontextmanager
async def answered(
    *payloads: bytes,
    pause: float = 0.0,
    server: FakeServer | None = None,
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[World[FakeServer]]:
    """A server that answers what is published to "ask"; with a pause before each answer. Nothing is left in the end."""
    async with open_world(server or FakeServer(), **options) as world:

        async def answer(reply: str) -> None:
            for payload in payloads:
                await trio.sleep(pause)
                world.server.publish(reply, payload)

        def asked(frame: Frame) -> None:
            if pause:
                world.nursery.start_soon(answer, frame.reply)
            for payload in () if pause else payloads:
                world.server.publish(frame.reply, payload)

        world.server.on("ask", asked)
        yield world
        assert_nothing_left(world.nc)
        assert not alarms(world.nc)
        world.nursery.cancel_scope.cancel()


def data(messages: list[Msg]) -> list[bytes]:
    return [msg.data for msg in messages]


# -- what ends them ------------------------------------------------------------------------------------------------------


async def test_request_many_ends_with_the_count() -> None:
    async with answered(b"1", b"2", b"3") as (server, nc, _):
        with takes(0):
            assert data(await nc.request_many("ask", b"q", max_msgs=2)) == [b"1", b"2"]
        await nc.flush()
        assert not server.subscriptions


async def test_a_deadline_in_force_governs_and_loses_nothing() -> None:
    async with answered(b"1", b"2", b"3", pause=4.0) as (_, nc, _nursery):
        with takes(10), trio.move_on_after(10) as scope:
            assert data(await nc.request_many("ask")) == [b"1", b"2"]
        assert not scope.cancelled_caught


async def test_the_checkpoint_behind_a_deadline_is_cancelled() -> None:
    async with answered(b"1") as (_, nc, _nursery):
        found = []
        with trio.move_on_after(1) as scope:
            found = await nc.request_many("ask")
            await trio.lowlevel.checkpoint()
        assert len(found) == 1
        assert scope.cancelled_caught


async def test_a_cancellation_is_not_a_deadline() -> None:
    outcome = []
    async with answered(b"1") as (_, nc, nursery):

        async def ask() -> None:
            with trio.fail_after(100):
                outcome.append(await nc.request_many("ask"))

        nursery.start_soon(ask)
        await settled()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await settled()
    assert not outcome


async def test_a_stall_counts_between_answers_only() -> None:
    """The first one takes longer than the stall, and the second one, too late, is not waited for."""
    async with answered(b"1", b"2", pause=2.0) as (_, nc, _nursery):
        with takes(2.5, 2.51):
            assert data(await nc.request_many("ask", stall=0.5)) == [b"1"]


async def test_answers_put_off_the_stall() -> None:
    async with answered(*[b"%d" % n for n in range(9)], pause=0.4) as (_, nc, nursery):
        assert len(await nc.request_many("ask", stall=0.5)) == 9
        with takes(4.1, 4.11):
            async with open_replies(nursery, nc, "ask", stall=0.5) as rx:
                assert len(await payloads(rx)) == 9


async def test_the_sentinel_ends_it_and_is_not_given() -> None:
    async with answered(b"1", b"", b"late") as (_, nc, nursery):
        with takes(0):
            assert data(await nc.request_many("ask", sentinel=lambda msg: not msg.data)) == [b"1"]
            async with open_replies(nursery, nc, "ask", sentinel=lambda msg: not msg.data) as rx:
                assert await payloads(rx) == [b"1"]


async def test_open_replies_ends_with_the_count_and_tells_no_reason() -> None:
    async with answered(b"1", b"2", b"3") as (_, nc, nursery):
        async with open_replies(nursery, nc, "ask", b"q", max_msgs=2) as rx:
            assert await rx.wait_ended() is None
            assert await payloads(rx) == [b"1", b"2"]


async def test_open_replies_leaves_the_time_to_a_deadline() -> None:
    async with answered(b"1", pause=20.0) as (_, nc, nursery):
        with trio.fail_after(60):
            async with open_replies(nursery, nc, "ask") as rx:
                assert (await rx.receive()).data == b"1"


async def test_answers_can_come_to_a_subject_of_the_callers() -> None:
    async with answered(b"1", inbox_prefix="me") as (server, nc, _):
        (found,) = await nc.request_many("ask", reply="where.i.live", max_msgs=1)
        assert found.subject == server.sent("PUB", "ask")[0].reply == "where.i.live"
        (found,) = await nc.request_many("ask", max_msgs=1)
        assert found.subject.startswith("me.")


async def test_an_inbox_is_not_the_one_that_requests_share() -> None:
    async with answered(b"1") as (server, nc, _):
        server.on("one", lambda _: b"answer")
        await nc.request("one")
        await nc.request_many("ask", max_msgs=1)
        await nc.flush()
    shared, own = (frame.arguments[0] for frame in server.sent("SUB"))
    assert shared.endswith(".*")
    assert not own.endswith("*")
    assert server.sent("UNSUB")[0].arguments[1] == "1", "the server is told the count"


async def test_answers_can_be_answered() -> None:
    server = FakeServer()
    server.on("ask", lambda frame: server.publish(frame.reply, b"1", reply="go.on") and None)
    async with connected(server) as nc:
        (found,) = await nc.request_many("ask", max_msgs=1)
        await found.respond(b"more")
        await nc.flush()
    assert server.sent("PUB", "go.on")


# -- what makes them fail ------------------------------------------------------------------------------------------------

WAYS = ["request", "request_many", "open_replies"]


async def ask(way: str, nc: Client, nursery: trio.Nursery) -> None:
    if way == "open_replies":
        async with open_replies(nursery, nc, "ask") as rx:
            await rx.receive()
    else:
        await getattr(nc, way)("ask")


@pytest.mark.parametrize("way", WAYS)
async def test_nobody_listens(way: str) -> None:
    async with open_world() as (_, nc, nursery):
        with takes(0), pytest.raises(errors.NoRespondersError, match="'ask'"):
            await ask(way, nc, nursery)
        async with open_replies(nursery, nc, "ask") as rx:
            assert isinstance(await rx.wait_ended(), errors.NoRespondersError)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("denied", ["the request", "the inbox"])
async def test_a_refused_request_fails_at_once(way: str, denied: str) -> None:
    server, named = (
        (FakeServer(deny_publish=("ask",)), "ask")
        if denied == "the request"
        else (FakeServer(deny_subscribe=("_INBOX.>",)), "_INBOX.")
    )
    async with answered(server=server) as (_, nc, nursery):
        for _again in range(2):
            with (
                takes(0),
                pytest.raises(errors.PermissionsViolationError, match=f"request to 'ask'.*{named}") as caught,
            ):
                await ask(way, nc, nursery)
            assert caught.value.subject.startswith(named)
            assert_nothing_left(nc)
        assert nc.is_connected
        await nc.flush()


async def test_the_servers_refusal_of_the_reply_subject_fails_the_request() -> None:
    server = FakeServer()
    refusal = 'Permissions Violation for Publish with Reply of "{}"'
    server.on("ask", lambda frame: server.link.error(refusal.format(frame.reply)))
    server.on("other", lambda _: None)
    async with connected(server) as nc:
        with nc.request_nowait("other") as other:
            for call in (nc.request, nc.request_many):
                with pytest.raises(errors.PermissionsViolationError, match="'ask'"):
                    await call("ask")
            assert not other.done


async def test_a_refusal_of_something_else_fails_nothing() -> None:
    async with answered(server=FakeServer(deny_publish=("secret",), deny_subscribe=("private",))) as (_, nc, nursery):
        async with trio.open_nursery() as inner:
            with nc.request_nowait("ask") as one:
                inner.start_soon(nc.request_many, "ask")
                await nc.publish("secret")
                async with open_subscription(nursery, nc, "private") as rx:
                    with pytest.raises(errors.PermissionsViolationError):
                        await rx.receive()
                assert not one.done
            await settled()
            assert nc.statistics().pending_requests == 1


async def test_a_request_that_waits_here_is_not_refused_with_another() -> None:
    async with open_world() as (server, nc, _):
        await hold_back(server, nc)
        with nc.request_nowait("ask") as waits:
            server.inject(b"-ERR 'Permissions Violation for Publish to \"ask\"'\r\n")
            await settled()
            assert not waits.done
        server.link.resume()


async def test_the_connection_breaks_after_the_request_was_sent() -> None:
    async with answered(b"1") as (server, nc, nursery):

        async def cut() -> None:
            await trio.sleep(0.1)
            server.cut()

        nursery.start_soon(cut)
        with pytest.raises(errors.DisconnectedError, match="'ask'"):
            await nc.request_many("ask")
        await nc.wait_connected()
        nursery.start_soon(cut)
        async with open_replies(nursery, nc, "ask") as rx:
            assert (await rx.receive()).data == b"1"
            with pytest.raises(errors.DisconnectedError, match="'ask'"):
                await rx.receive()
        await nc.wait_connected()


async def test_a_request_that_was_not_sent_waits_for_the_next_connection() -> None:
    found: list[bytes] = []
    async with answered(b"1", b"2") as (server, nc, nursery):
        await lose(server, nc)

        async def ask() -> None:
            found.extend(data(await nc.request_many("ask", max_msgs=2)))

        nursery.start_soon(ask)
        async with open_replies(nursery, nc, "ask", max_msgs=2) as rx:
            await settled()
            server.accepting = True
            assert await payloads(rx) == [b"1", b"2"]
        await nc.flush()
    assert found == [b"1", b"2"]


async def test_one_that_ends_first_takes_its_frame_back() -> None:
    async with answered() as (server, nc, nursery):
        await lose(server, nc)
        with trio.move_on_after(0.1):
            assert await nc.request_many("ask") == []
        async with open_replies(nursery, nc, "ask"):
            pass
        assert nc.statistics().outbox_bytes == 0
        server.accepting = True
        await nc.wait_connected()
        await nc.flush()
    assert not server.sent("PUB")


async def test_closing_the_client_ends_both() -> None:
    outcome: list[BaseException] = []
    async with answered(b"1") as (_, nc, nursery):

        async def ask() -> None:
            with pytest.raises(errors.ConnectionClosedError) as caught:
                await nc.request_many("ask")
            outcome.append(caught.value)

        nursery.start_soon(ask)
        async with open_replies(nursery, nc, "ask") as rx:
            await nc.flush()
            await nc.aclose()
            assert await payloads(rx) == [b"1"]
        await settled()
        assert len(outcome) == 1
        await ask()


async def test_a_bug_in_the_sentinel_is_the_callers() -> None:
    def broken(msg: Msg) -> bool:
        raise LookupError("mine")

    async with answered(b"1") as (_, nc, _nursery):
        with pytest.raises(LookupError, match=r"^mine$"):
            await nc.request_many("ask", sentinel=broken)
        with pytest.RaisesGroup(pytest.RaisesExc(LookupError, match=r"^mine$"), flatten_subgroups=True):
            async with trio.open_nursery() as nursery, open_replies(nursery, nc, "ask", sentinel=broken) as rx:
                with pytest.raises(trio.BrokenResourceError):
                    await rx.receive()
        await nc.flush()


async def test_too_many_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trionats._core.request_many.MOST_REPLIES", 3)
    monkeypatch.setattr("trionats._open.replies.MOST_REPLIES", 3)
    async with answered(b"1", b"2", b"3", b"4", b"5") as (_, nc, nursery):
        with pytest.raises(errors.SlowConsumerError, match="'ask'"):
            await nc.request_many("ask")
        async with open_replies(nursery, nc, "ask") as rx:
            await settled()
            assert data([await rx.receive() for _ in range(3)]) == [b"1", b"2", b"3"]
            with pytest.raises(errors.SlowConsumerError, match="'ask'"):
                await rx.receive()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"subject": "a b"}, errors.BadSubjectError),
        ({"reply": "a b"}, errors.BadSubjectError),
        ({"headers": {"a b": "c"}}, errors.BadHeaderError),
        ({"stall": -1.0}, ValueError),
        ({"max_msgs": "x"}, TypeError),
        ({"stall": "x"}, TypeError),
        ({"sentinel": 5}, TypeError),
    ],
)
async def test_what_cannot_be_sent_leaves_nothing(wrong: dict[str, Any], error: type[Exception]) -> None:
    async with answered() as (server, nc, nursery):
        arguments = {"subject": "ask", **wrong}
        with pytest.raises(error):
            await nc.request_many(**arguments)
        with pytest.raises(error):
            await open_replies(nursery, nc, **arguments).__aenter__()
        assert_nothing_left(nc)
    assert not server.sent("SUB")


async def test_late_answers_disturb_nobody() -> None:
    async with answered() as (server, nc, _):
        server.on("again", lambda _: b"fresh")
        with trio.move_on_after(1):
            assert await nc.request_many("ask") == []
        # Written as a server would that had not heard of the UNSUB yet.
        server.inject(f"MSG {server.sent('PUB', 'ask')[0].reply} 1 4\r\nlate\r\n".encode() * 3)
        assert (await nc.request("again")).data == b"fresh"


async def test_no_garbage_is_left() -> None:
    async with answered(b"1") as (_, nc, nursery):

        async def once(subject: str) -> None:
            with contextlib.suppress(errors.NoRespondersError):
                await nc.request_many(subject, max_msgs=1)
            async with open_replies(nursery, nc, subject, max_msgs=1) as rx:
                with contextlib.suppress(errors.NoRespondersError):
                    await payloads(rx)
            await nc.flush()

        for subject in ("ask", "nobody"):
            await once(subject)
            gc.collect()
            gc.disable()
            try:
                for _again in range(10):
                    await once(subject)
                assert gc.collect() < 10
            finally:
                gc.enable()


# -- what is left when they are cancelled --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["request_many", "open_replies"])
def test_cancelled_anywhere(way: str) -> None:
    async def scenario(cut: Cut) -> None:
        async def use() -> None:
            if way == "request_many":
                await nc.request_many("ask", b"question", stall=0.5)
            else:
                async with open_replies(nursery, nc, "ask", max_msgs=2) as rx:
                    assert await payloads(rx) == [b"1", b"2"]

        async with answered(b"1", b"2", b"3", pause=0.1, server=FakeServer(sip=7)) as (server, nc, nursery):
            await cut(use)
            assert_nothing_left(nc)
            await nc.flush()
            assert not server.subscriptions
            if cut.way == "already":
                assert not server.sent("PUB")

    cancel_everywhere(scenario)
