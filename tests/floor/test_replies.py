"""Many answers to one request, against a server in memory: what ends them, what makes them fail, what is left."""

from __future__ import annotations

import contextlib
import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import trionats
from tests.cancelling import Cut, cancel_everywhere
from tests.fakes import FakeServer, Frame
from trionats import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock


@asynccontextmanager
async def client(server: FakeServer, **options: float) -> AsyncIterator[trionats.Client]:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, dial=server.dial, **{"reconnect_time_wait": 0.01, **options}) as nc,  # type: ignore[arg-type]
    ):
        await nc.flush()
        yield nc
        assert_nothing_left(nc, server)
    server.check()


def assert_nothing_left(nc: trionats.Client, server: FakeServer) -> None:
    assert (nc.statistics().subscriptions, nc.statistics().pending_requests) == (0, 0)
    assert nc.statistics().feeds == ()
    assert nc._supervisor.timekeeper._timers.next() is None


def answers(server: FakeServer, *payloads: bytes, pause: float = 0.0) -> Callable[[trio.Nursery], None]:
    """Let the server answer what is published to "ask"; with a pause, in a task that waits before each."""
    replies: list[str] = []

    def asked(frame: Frame) -> None:
        replies.append(frame.reply)
        if not pause:
            for payload in payloads:
                server.publish(frame.reply, payload)

    server.on("ask", asked)

    async def slowly() -> None:
        while not replies:  # noqa: ASYNC110 - the server has no event for it
            await trio.sleep(0.001)
        for payload in payloads:
            await trio.sleep(pause)
            server.publish(replies[0], payload)

    return lambda nursery: nursery.start_soon(slowly)


async def payloads_of(rx: trionats.Feed[trionats.Msg]) -> list[bytes]:
    return [msg.data async for msg in rx]


# -- what ends them ------------------------------------------------------------------------------------------------------


async def test_request_many_ends_with_the_count(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1", b"2", b"3")
    async with client(server) as nc:
        start = trio.current_time()
        assert [msg.data for msg in await nc.request_many("ask", b"q", max_msgs=2)] == [b"1", b"2"]
        assert trio.current_time() == start
        await nc.flush()
        assert not server.subscriptions


@pytest.mark.parametrize("seconds", [1.5, 5.0])
async def test_request_many_gives_what_came_when_the_time_is_over(autojump_clock: MockClock, seconds: float) -> None:
    server = FakeServer()
    answers(server, b"1", b"2")
    async with client(server, request_timeout=seconds) as nc:
        start = trio.current_time()
        assert [msg.data for msg in await nc.request_many("ask")] == [b"1", b"2"]
        assert trio.current_time() - start == pytest.approx(seconds)


async def test_request_many_gives_nothing_when_nothing_came(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server)
    async with client(server) as nc:
        assert await nc.request_many("ask") == []


async def test_a_deadline_in_force_governs_and_loses_nothing(autojump_clock: MockClock) -> None:
    server = FakeServer()
    begin = answers(server, b"1", b"2", b"3", pause=4.0)
    async with client(server) as nc, trio.open_nursery() as nursery:
        begin(nursery)
        start = trio.current_time()
        with trio.move_on_after(10) as scope:
            found = await nc.request_many("ask")
        assert [msg.data for msg in found] == [b"1", b"2"]
        assert not scope.cancelled_caught
        assert trio.current_time() - start == pytest.approx(10)
        await trio.sleep(4)


async def test_the_checkpoint_behind_a_deadline_is_cancelled(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1")
    async with client(server) as nc:
        found = []
        with trio.move_on_after(1) as scope:
            found = await nc.request_many("ask")
            await trio.lowlevel.checkpoint()
        assert len(found) == 1
        assert scope.cancelled_caught


async def test_a_cancellation_is_not_a_deadline(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1")
    async with client(server) as nc, trio.open_nursery() as nursery:
        outcome = []

        async def ask() -> None:
            with trio.fail_after(100):
                outcome.append(await nc.request_many("ask"))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not outcome


async def test_a_stall_counts_between_answers_only(autojump_clock: MockClock) -> None:
    server = FakeServer()
    begin = answers(server, b"1", b"2", pause=2.0)
    async with client(server) as nc, trio.open_nursery() as nursery:
        begin(nursery)
        start = trio.current_time()
        # The first one takes longer than the stall, and the second one, too late, is not waited for.
        assert [msg.data for msg in await nc.request_many("ask", stall=0.5)] == [b"1"]
        assert trio.current_time() - start == pytest.approx(2.5, abs=0.01)


async def test_answers_put_off_the_stall(autojump_clock: MockClock) -> None:
    server = FakeServer()
    begin = answers(server, *[b"%d" % n for n in range(9)], pause=0.4)
    async with client(server) as nc, trio.open_nursery() as nursery:
        begin(nursery)
        assert len(await nc.request_many("ask", stall=0.5)) == 9


async def test_the_sentinel_ends_it_and_is_not_given(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1", b"", b"late")
    async with client(server) as nc, trio.open_nursery() as nursery:
        start = trio.current_time()
        found = await nc.request_many("ask", sentinel=lambda msg: not msg.data)
        assert [msg.data for msg in found] == [b"1"]
        async with trionats.open_replies(nursery, nc, "ask", sentinel=lambda msg: not msg.data) as rx:
            assert await payloads_of(rx) == [b"1"]
        assert trio.current_time() == start


async def test_open_replies_ends_with_the_count_and_tells_no_reason(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1", b"2", b"3")
    async with (
        client(server) as nc,
        trio.open_nursery() as nursery,
        trionats.open_replies(nursery, nc, "ask", b"q", max_msgs=2) as rx,
    ):
        assert await rx.wait_ended() is None
        assert await payloads_of(rx) == [b"1", b"2"]


async def test_open_replies_ends_when_they_stall(autojump_clock: MockClock) -> None:
    server = FakeServer()
    begin = answers(server, b"1", b"2", b"3", pause=0.4)
    async with client(server) as nc, trio.open_nursery() as nursery:
        begin(nursery)
        start = trio.current_time()
        async with trionats.open_replies(nursery, nc, "ask", stall=0.5) as rx:
            assert await payloads_of(rx) == [b"1", b"2", b"3"]
        assert trio.current_time() - start == pytest.approx(1.7, abs=0.01)


async def test_open_replies_ends_after_request_timeout_where_no_deadline_is_in_force(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1")
    async with client(server, request_timeout=3) as nc, trio.open_nursery() as nursery:
        start = trio.current_time()
        async with trionats.open_replies(nursery, nc, "ask") as rx:
            assert await payloads_of(rx) == [b"1"]
        assert trio.current_time() - start == pytest.approx(3)


async def test_open_replies_leaves_the_time_to_a_deadline(autojump_clock: MockClock) -> None:
    server = FakeServer()
    begin = answers(server, b"1", pause=20.0)
    async with client(server) as nc, trio.open_nursery() as nursery:
        begin(nursery)
        with trio.fail_after(60):
            async with trionats.open_replies(nursery, nc, "ask") as rx:
                assert (await rx.receive()).data == b"1"


async def test_answers_can_come_to_a_subject_of_the_callers(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1")
    async with client(server, inbox_prefix="me") as nc:  # type: ignore[arg-type]
        (found,) = await nc.request_many("ask", reply="where.i.live", max_msgs=1)
        assert found.subject == "where.i.live"
        (found,) = await nc.request_many("ask", max_msgs=1)
        assert found.subject.startswith("me.")
    assert server.sent("PUB", "ask")[0].reply == "where.i.live"


async def test_an_inbox_is_not_the_one_that_requests_share(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.on("one", lambda frame: b"answer")
    answers(server, b"1")
    async with client(server) as nc:
        await nc.request("one")
        await nc.request_many("ask", max_msgs=1)
        await nc.flush()
    shared, own = (frame.arguments[0] for frame in server.sent("SUB"))
    assert shared.endswith(".*")
    assert not own.endswith("*")
    assert server.sent("UNSUB")[0].arguments[1] == "1", "the server is told the count"


async def test_answers_can_be_answered(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.on("ask", lambda frame: server.publish(frame.reply, b"1", reply="go.on") and None)
    async with client(server) as nc:
        (found,) = await nc.request_many("ask", max_msgs=1)
        await found.respond(b"more")
        await nc.flush()
    assert server.sent("PUB", "go.on")


# -- what makes them fail ------------------------------------------------------------------------------------------------


async def test_nobody_listens(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        start = trio.current_time()
        with pytest.raises(errors.NoRespondersError, match="'ask'"):
            await nc.request_many("ask")
        async with trionats.open_replies(nursery, nc, "ask", max_msgs=1) as rx:
            with pytest.raises(errors.NoRespondersError, match="'ask'"):
                await rx.receive()
            assert isinstance(await rx.wait_ended(), errors.NoRespondersError)
        assert trio.current_time() == start


async def ask(way: str, nc: trionats.Client, nursery: trio.Nursery) -> None:
    if way == "request":
        await nc.request("ask")
    elif way == "request_many":
        await nc.request_many("ask")
    else:
        async with trionats.open_replies(nursery, nc, "ask") as rx:
            await rx.receive()


@pytest.mark.parametrize("way", ["request", "request_many", "open_replies"])
@pytest.mark.parametrize("denied", ["the request", "the inbox"])
async def test_a_refused_request_fails_at_once(autojump_clock: MockClock, way: str, denied: str) -> None:
    if denied == "the request":
        server = FakeServer(deny_publish=("ask",))
        named = "ask"
    else:
        server = FakeServer(deny_subscribe=("_INBOX.>",))
        named = "_INBOX."
    server.on("ask", lambda frame: None)
    async with client(server) as nc, trio.open_nursery() as nursery:
        start = trio.current_time()
        with pytest.raises(errors.PermissionsViolationError, match="'ask'") as caught:
            await ask(way, nc, nursery)
        assert caught.value.subject.startswith(named)
        assert trio.current_time() == start
        assert nc.is_connected


async def test_the_servers_refusal_of_the_reply_subject_fails_the_request(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.on(
        "ask", lambda frame: server.link.error(f'Permissions Violation for Publish with Reply of "{frame.reply}"')
    )
    server.on("other", lambda frame: None)
    async with client(server) as nc:
        with nc.request_nowait("other") as other:
            with pytest.raises(errors.PermissionsViolationError, match="'ask'"):
                await nc.request("ask")
            with pytest.raises(errors.PermissionsViolationError, match="'ask'"):
                await nc.request_many("ask")
            assert not other.done


async def test_a_refusal_of_something_else_fails_nothing(autojump_clock: MockClock) -> None:
    server = FakeServer(deny_publish=("secret",), deny_subscribe=("private",))
    server.on("ask", lambda frame: None)
    async with client(server) as nc, trio.open_nursery() as nursery, trio.open_nursery() as inner:
        with nc.request_nowait("ask") as one:
            inner.start_soon(nc.request_many, "ask")
            await nc.publish("secret")
            async with trionats.open_subscription(nursery, nc, "private") as rx:
                with pytest.raises(errors.PermissionsViolationError):
                    await rx.receive()
            assert not one.done
        await trio.testing.wait_all_tasks_blocked()
        assert nc.statistics().pending_requests == 1


async def test_a_request_that_waits_here_is_not_refused_with_another(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc:
        server.link.stall(up=True)
        await nc.publish("fill")
        await trio.testing.wait_all_tasks_blocked()
        with nc.request_nowait("ask") as waits:
            server.inject(b"-ERR 'Permissions Violation for Publish to \"ask\"'\r\n")
            await trio.testing.wait_all_tasks_blocked()
            assert not waits.done
        server.link.resume()


async def test_the_connection_breaks_after_the_request_was_sent(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1")
    async with client(server) as nc, trio.open_nursery() as nursery:

        async def lose() -> None:
            await trio.sleep(0.1)
            server.cut()

        nursery.start_soon(lose)
        with pytest.raises(errors.DisconnectedError, match="'ask'"):
            await nc.request_many("ask")
        await nc.wait_connected()
        nursery.start_soon(lose)
        async with trionats.open_replies(nursery, nc, "ask") as rx:
            assert (await rx.receive()).data == b"1"
            with pytest.raises(errors.DisconnectedError, match="'ask'"):
                await rx.receive()
        await nc.wait_connected()


async def test_a_request_that_was_not_sent_waits_for_the_next_connection(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1", b"2")
    async with client(server) as nc, trio.open_nursery() as nursery:
        server.accepting = False
        server.cut()
        await trio.testing.wait_all_tasks_blocked()
        found: list[bytes] = []

        async def ask() -> None:
            found.extend([msg.data for msg in await nc.request_many("ask", max_msgs=2)])

        nursery.start_soon(ask)
        async with trionats.open_replies(nursery, nc, "ask", max_msgs=2) as rx:
            await trio.testing.wait_all_tasks_blocked()
            server.accepting = True
            assert await payloads_of(rx) == [b"1", b"2"]
        await nc.flush()
    assert found == [b"1", b"2"]


async def test_one_that_ends_first_takes_its_frame_back(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        server.accepting = False
        server.cut()
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.1):
            assert await nc.request_many("ask") == []
        async with trionats.open_replies(nursery, nc, "ask"):
            pass
        assert nc.statistics().outbox_bytes == 0
        server.accepting = True
        await nc.wait_connected()
        await nc.flush()
    assert not server.sent("PUB")


async def test_closing_the_client_ends_both(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1")
    async with client(server) as nc, trio.open_nursery() as nursery:
        outcome: list[BaseException] = []

        async def ask() -> None:
            try:
                await nc.request_many("ask")
            except errors.ConnectionClosedError as error:
                outcome.append(error)

        nursery.start_soon(ask)
        async with trionats.open_replies(nursery, nc, "ask") as rx:
            await nc.flush()
            await nc.aclose()
            assert await payloads_of(rx) == [b"1"]
        await trio.testing.wait_all_tasks_blocked()
        assert len(outcome) == 1
        with pytest.raises(errors.ConnectionClosedError):
            await nc.request_many("ask")


async def test_a_bug_in_the_sentinel_is_the_callers(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1")

    def broken(msg: trionats.Msg) -> bool:
        raise LookupError("mine")

    async with client(server) as nc:
        with pytest.raises(LookupError, match=r"^mine$"):
            await nc.request_many("ask", sentinel=broken)
        with pytest.RaisesGroup(pytest.RaisesExc(LookupError, match=r"^mine$"), flatten_subgroups=True):
            async with trio.open_nursery() as nursery, trionats.open_replies(nursery, nc, "ask", sentinel=broken) as rx:
                with pytest.raises(trio.BrokenResourceError):
                    await rx.receive()
        await nc.flush()


async def test_too_many_answers(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trionats._core.request_many.MOST_REPLIES", 3)
    monkeypatch.setattr("trionats._replies.MOST_REPLIES", 3)
    server = FakeServer()
    answers(server, b"1", b"2", b"3", b"4", b"5")
    async with client(server) as nc, trio.open_nursery() as nursery:
        with pytest.raises(errors.SlowConsumerError, match="'ask'"):
            await nc.request_many("ask")
        async with trionats.open_replies(nursery, nc, "ask") as rx:
            await trio.testing.wait_all_tasks_blocked()
            assert [(await rx.receive()).data for _ in range(3)] == [b"1", b"2", b"3"]
            with pytest.raises(errors.SlowConsumerError, match="'ask'"):
                await rx.receive()


@pytest.mark.parametrize("wrong", [{"subject": "a b"}, {"reply": "a b"}, {"headers": {"a b": "c"}}, {"stall": -1.0}])
async def test_what_cannot_be_sent_leaves_nothing(autojump_clock: MockClock, wrong: dict[str, Any]) -> None:
    server = FakeServer()
    async with client(server) as nc, trio.open_nursery() as nursery:
        arguments = {"subject": "ask", **wrong}
        with pytest.raises((errors.Error, ValueError)):
            await nc.request_many(**arguments)
        with pytest.raises((errors.Error, ValueError)):
            await trionats.open_replies(nursery, nc, **arguments).__aenter__()
        assert_nothing_left(nc, server)
    assert not server.sent("SUB")


async def test_late_answers_disturb_nobody(autojump_clock: MockClock) -> None:
    server = FakeServer()
    replies: list[str] = []
    server.on("ask", lambda frame: replies.append(frame.reply))
    server.on("again", lambda frame: b"fresh")
    async with client(server) as nc:
        with trio.move_on_after(1):
            assert await nc.request_many("ask") == []
        # Written as a server would that had not heard of the UNSUB yet.
        server.inject(f"MSG {replies[0]} 1 4\r\nlate\r\n".encode() * 3)
        assert (await nc.request("again")).data == b"fresh"


async def test_no_garbage_is_left(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answers(server, b"1")

    async with client(server) as nc, trio.open_nursery() as nursery:

        async def once(subject: str) -> None:
            with contextlib.suppress(errors.NoRespondersError):
                await nc.request_many(subject, max_msgs=1)
            async with trionats.open_replies(nursery, nc, subject, max_msgs=1) as rx:
                with contextlib.suppress(errors.NoRespondersError):
                    await payloads_of(rx)
            await nc.flush()

        for subject in ("ask", "nobody"):
            await once(subject)
            gc.collect()
            gc.disable()
            try:
                for _ in range(10):
                    await once(subject)
                assert gc.collect() < 10
            finally:
                gc.enable()


# -- what is left when they are cancelled --------------------------------------------------------------------------------


def test_request_many_cancelled_anywhere() -> None:
    async def scenario(cut: Cut) -> None:
        server = FakeServer(sip=7)
        begin = answers(server, b"1", b"2", b"3", pause=0.1)
        async with trio.open_nursery() as background, trionats.open_client(background, dial=server.dial) as nc:
            async with trio.open_nursery() as nursery:
                begin(nursery)
                await cut(nc.request_many, "ask", b"question", stall=0.5)
                assert_nothing_left(nc, server)
                await nc.flush()
                assert not server.subscriptions
                if cut.way == "already":
                    assert not server.sent("PUB")
                nursery.cancel_scope.cancel()
        server.check()

    cancel_everywhere(scenario)


def test_open_replies_cancelled_anywhere() -> None:
    async def scenario(cut: Cut) -> None:
        server = FakeServer(sip=7)
        begin = answers(server, b"1", b"2", pause=0.1)

        async def use(nc: trionats.Client, nursery: trio.Nursery) -> None:
            async with trionats.open_replies(nursery, nc, "ask", max_msgs=2) as rx:
                assert await payloads_of(rx) == [b"1", b"2"]

        async with trio.open_nursery() as background, trionats.open_client(background, dial=server.dial) as nc:
            async with trio.open_nursery() as nursery:
                begin(nursery)
                await cut(use, nc, background)
                assert_nothing_left(nc, server)
                await nc.flush()
                assert not server.subscriptions
                if cut.way == "already":
                    assert not server.sent("PUB")
                nursery.cancel_scope.cancel()
        server.check()

    cancel_everywhere(scenario)
