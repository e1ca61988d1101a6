"""Requests: answered, refused, timed out, cancelled and cut off; nothing is left of any of them."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.fakes import NO_RESPONDERS, FakeServer, Frame
from tests.worlds import connected
from trionats import errors, open_client, open_replies
from trionats._core.requests import PendingReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trionats import Client


def silent(server: FakeServer) -> None:
    """Let requests to "void" have no answer."""
    server.on("void", lambda _: None)


def assert_forgotten(nc: Client) -> None:
    statistics = nc.statistics()
    assert (statistics.pending_requests, statistics.subscriptions) == (0, 0)


async def test_answered(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.on("echo", lambda frame: frame.payload.upper())
    async with connected(server) as nc:
        for _ in range(3):
            answer = await nc.request("echo", b"abc", headers={"A": "1"})
            assert answer.data == b"ABC"
        assert [frame.subject for frame in server.sent("SUB")] == [server.subscriptions[0].subject]
        assert len({frame.reply for frame in server.sent("HPUB", "echo")}) == 3
        assert_forgotten(nc)
        assert (nc.statistics().out_msgs, nc.statistics().in_msgs) == (3, 3)
        with pytest.raises(errors.Error, match="no reply subject"):
            await answer.respond(b"back")


async def test_an_empty_answer_with_another_status_is_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.on("s", lambda frame: server.publish(frame.reply, headers=b"NATS/1.0 404 No Messages\r\n\r\n") and None)
    async with connected(server) as nc:
        answer = await nc.request("s")
        assert (answer.status, answer.description) == (404, "No Messages")


async def test_nobody_there(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server) as nc:
        start = trio.current_time()
        with pytest.raises(errors.NoRespondersError, match=r"request to 'nobody\.here': nobody is listening"):
            await nc.request("nobody.here")
        assert trio.current_time() == start
        assert_forgotten(nc)


async def one_reply(nc: Client) -> None:
    with nc.request_nowait("void") as reply:
        await reply.wait()


async def pages(nc: Client) -> None:
    """A list of two pages, of which only the first is answered."""
    await nc.jetstream().streams_info()


#: Every wait for one answer, and what its error names. Of `request_many` the whole is one.
WAITS: dict[str, tuple[Callable[[Client], Awaitable[object]], str, type[errors.TimeoutError]]] = {
    "request": (lambda nc: nc.request("void"), "request to 'void'", errors.TimeoutError),
    "flush": (lambda nc: nc.flush(), "flush", errors.FlushTimeoutError),
    "rtt": (lambda nc: nc.rtt(), "rtt", errors.FlushTimeoutError),
    "publish": (lambda nc: nc.jetstream().publish("void"), "request to 'void'", errors.TimeoutError),
    "info": (
        lambda nc: nc.jetstream().stream_info("S"),
        r"request to '\$JS\.API\.STREAM\.INFO\.S'",
        errors.TimeoutError,
    ),
    "list": (pages, r"request to '\$JS\.API\.STREAM\.LIST'", errors.TimeoutError),
    "reply": (one_reply, "request to 'void'", errors.TimeoutError),
}


def standing_still() -> FakeServer:
    """A server that answers nothing, but for the first page of a list, which takes it a second."""
    server = FakeServer()
    silent(server)
    server.on("$JS.API.STREAM.INFO.S", lambda _: None)

    def first_page(frame: Frame) -> object:
        offset = json.loads(frame.payload or b"{}").get("offset", 0)
        state = dict.fromkeys(("messages", "bytes", "first_seq", "last_seq", "consumer_count"), 0)
        one = {"config": {"name": "S"}, "state": state, "created": "2026-01-01T00:00:00Z"}
        return None if offset else {"total": 2, "offset": 0, "limit": 1, "streams": [one]}

    server.on("$JS.API.STREAM.LIST", first_page)
    return server


@pytest.mark.parametrize("wait", list(WAITS))
@pytest.mark.parametrize(
    ("chosen", "deadline", "ends"),
    [
        (None, None, "5 s"),  # nobody has said anything
        (None, 100.0, "deadline"),  # the default gives way
        (None, 2.0, "deadline"),
        (7.0, None, "7 s"),  # what was chosen counts ...
        (7.0, 100.0, "7 s"),  # ... whichever comes first
        (7.0, 2.0, "deadline"),
        (60.0, None, "60 s"),
        (0.5, 100.0, "0.5 s"),
    ],
)
@pytest.mark.parametrize("how", ["option", "view"])
async def test_what_was_chosen_counts_and_the_default_gives_way(
    autojump_clock: trio.testing.MockClock, wait: str, chosen: float | None, deadline: float | None, ends: str, how: str
) -> None:
    server = standing_still()
    call, what, kind = WAITS[wait]
    async with connected(server, request_timeout=chosen if how == "option" else 33.0) as client:
        nc = client if how == "option" else client.with_options(request_timeout=chosen)
        server.mute = {"PING"} if wait in ("flush", "rtt") else set()
        start = trio.current_time()
        with trio.move_on_after(math.inf if deadline is None else deadline) as scope:
            if ends == "deadline":
                await call(nc)
            else:
                with pytest.raises(kind, match=f"{what}: no answer within {ends}") as caught:
                    await call(nc)
                assert isinstance(caught.value, kind)
        assert scope.cancelled_caught == (ends == "deadline")
        lasted = deadline if ends == "deadline" else float(ends.partition(" ")[0])
        assert trio.current_time() - start == pytest.approx(lasted)
        assert client.statistics().pending_requests == 0
        server.mute = set()


@pytest.mark.parametrize(
    ("chosen", "deadline", "lasts"),
    [(None, None, 5.0), (None, 100.0, 100.0), (7.0, None, 7.0), (7.0, 100.0, 7.0), (7.0, 2.0, 2.0)],
)
async def test_the_total_of_many_answers(
    autojump_clock: trio.testing.MockClock, chosen: float | None, deadline: float | None, lasts: float
) -> None:
    server = FakeServer()
    server.on("many", lambda _: b"one")
    async with connected(server, request_timeout=chosen) as nc, trio.open_nursery() as nursery:
        start = trio.current_time()
        with trio.move_on_after(math.inf if deadline is None else deadline):
            assert [msg.data for msg in await nc.request_many("many")] == [b"one"]
        assert trio.current_time() - start == pytest.approx(lasts)
        start = trio.current_time()
        with trio.move_on_after(math.inf if deadline is None else deadline):
            async with open_replies(nursery, nc, "many") as rx:
                assert [msg.data async for msg in rx] == [b"one"]
        assert trio.current_time() - start == pytest.approx(lasts)


@pytest.mark.parametrize("chosen", [None, 3.0])
async def test_the_wait_for_room_counts(autojump_clock: trio.testing.MockClock, chosen: float | None) -> None:
    server = FakeServer()
    async with connected(server, request_timeout=chosen, pending_size=100) as nc, trio.open_nursery() as nursery:
        await nc.flush()
        server.link.stall(up=True)
        lasts = chosen or 5.0

        async def opened() -> None:
            async with open_replies(nursery, nc, "void"):
                pytest.fail("it was opened")

        while True:
            try:
                nc.publish_nowait("filling", bytes(50))
            except trio.WouldBlock:
                if nc._supervisor.idle is None:
                    break
            await trio.lowlevel.checkpoint()
        for call in (lambda: nc.request("void"), lambda: nc.request_many("void"), opened):
            start = trio.current_time()
            with pytest.raises(errors.TimeoutError, match=f"request to 'void': no answer within {lasts:g} s"):
                await call()
            assert trio.current_time() - start == pytest.approx(lasts)
        assert nc.statistics().pending_requests == 0
        server.link.resume()


@pytest.mark.parametrize("value", ["5", True, -1, math.nan])
async def test_no_time_that_is_none(autojump_clock: trio.testing.MockClock, value: Any) -> None:  # noqa: ANN401
    async with connected(FakeServer()) as nc:
        with pytest.raises((TypeError, ValueError), match="request_timeout"):
            nc.with_options(request_timeout=value)
        async with trio.open_nursery() as nursery:
            with pytest.raises((TypeError, ValueError), match="request_timeout"):
                async with open_client(nursery, request_timeout=value):
                    pytest.fail("it was opened")


HINT = r"takes no timeout: with trio\.fail_after\(1\): await nc\.%s\(\.\.\.\)"


async def test_a_timeout_is_told_how_it_is_given(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    async with connected(server) as nc:
        await nc.flush()
        sent = len(server.link.received)
        wrong: Any = nc
        calls: list[tuple[Any, str]] = [
            (lambda: wrong.request("quote", b"", timeout=1), r"request\(\) " + HINT % "request"),
            (lambda: wrong.request_many("quote", timeout=1), r"request_many\(\) " + HINT % "request_many"),
            (lambda: wrong.flush(timeout=1), r"flush\(\) " + HINT % "flush"),
            (
                lambda: wrong.request("quote", old_style=True),
                "request.. got an unexpected keyword argument 'old_style'",
            ),
            (
                lambda: wrong.request("quote", b"", 1),
                "request to 'quote': headers must be a mapping, not int; it " + HINT % "request",
            ),
            (lambda: wrong.request("quote", b"", "a: b"), "request to 'quote': headers must be a mapping, not str$"),
            (lambda: wrong.request("quote", "text"), "request to 'quote': the payload must be bytes, not str"),
            (lambda: wrong.publish("x", b"", {"a": "1"}), "publish to 'x': reply must be text, not dict"),
            (lambda: wrong.publish({"a": "1"}), "publish to {'a': '1'}: it must be text, not dict"),
            (lambda: wrong.publish("x", b"", ["a"]), "publish to 'x': reply must be text, not list"),
            (lambda: wrong.request(["a"]), r"request to \['a'\]: it must be text, not list"),
            (lambda: wrong.request_many(["a"]), r"request to \['a'\]: it must be text, not list"),
            (lambda: wrong.request(5), "request to 5: it must be text, not int"),
            (
                lambda: wrong.jetstream().publish("s.a", b"", timeout=1),
                r"publish\(\) takes no timeout: with trio\.fail_after\(1\): await js\.publish\(\.\.\.\)",
            ),
        ]
        for call, text in calls:
            with pytest.raises(TypeError, match=text):
                await call()
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.link.received) == sent
        assert_forgotten(nc)


async def test_many_timeouts_at_their_own_times(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    silent(server)
    ends: dict[int, float] = {}
    async with connected(server, request_timeout=5) as nc:
        start = trio.current_time()

        async def one(number: int) -> None:
            await trio.sleep(number)
            with pytest.raises(errors.TimeoutError):
                await nc.request("void")
            ends[number] = trio.current_time() - start

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
        assert ends == pytest.approx({number: number + 5.0 for number in range(20)})


async def test_late_and_foreign_answers_are_nobodys(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    replies: list[str] = []
    server.on("void", lambda frame: replies.append(frame.reply))
    server.on("echo", lambda frame: frame.payload)
    async with connected(server) as nc:
        with trio.move_on_after(1):
            await nc.request("void", b"A")
        for _ in range(3):
            server.publish(replies[0], b"late")
        assert (await nc.request("echo", b"B")).data == b"B"
        for _ in range(2):
            server.publish(replies[0], b"later")
        assert (await nc.request("echo", b"C")).data == b"C"
        assert_forgotten(nc)


async def test_two_answers_to_one_request(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.on("twice", lambda frame: (server.publish(frame.reply, b"1"), b"2")[1])
    async with connected(server) as nc:
        assert (await nc.request("twice")).data == b"1"
        assert (await nc.request("twice")).data == b"1"
        await nc.flush()
        assert_forgotten(nc)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("a b",), errors.BadSubjectError),
        (("a.*",), errors.BadSubjectError),
        (("a", b"x", {"a:": "b"}), errors.BadHeaderError),
        (("a", bytes(1024 * 1024 + 1)), errors.MaxPayloadError),
        (("a", "text"), TypeError),
    ],
)
async def test_a_request_that_cannot_be_sent_leaves_nothing(
    autojump_clock: trio.testing.MockClock, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    server = FakeServer()
    async with connected(server) as nc:
        sent = len(server.link.received)
        for call in (nc.request_nowait, nc.request):
            with pytest.raises(error):
                _ = call(*arguments) if call == nc.request_nowait else await nc.request(*arguments)
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.link.received) == sent
        assert_forgotten(nc)
        assert (nc.statistics().out_msgs, nc.statistics().outbox_bytes) == (0, 0)


@pytest.mark.parametrize("way", ["a deadline", "a cancellation", "the default timeout"])
async def test_a_request_that_is_given_up_leaves_nothing(autojump_clock: trio.testing.MockClock, way: str) -> None:
    server = FakeServer()
    heard: list[str] = []
    scope = trio.CancelScope()

    def hear(frame: Frame) -> None:
        heard.append(frame.reply)
        if way == "a cancellation":
            scope.cancel()

    server.on("ask", hear)
    async with connected(server) as nc:
        if way == "the default timeout":
            with pytest.raises(errors.TimeoutError):
                await nc.request("ask")
        else:
            if way == "a deadline":
                scope.deadline = trio.current_time() + 1
            with scope:
                await nc.request("ask")
            assert scope.cancelled_caught
        assert nc.statistics().pending_requests == 0
        # A late answer finds nobody.
        server.publish(heard[0], b"late")
        await nc.flush()
        assert nc.statistics().pending_requests == 0


async def test_closed_replies(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    silent(server)
    server.on("echo", lambda frame: frame.payload)
    async with connected(server) as nc:
        reply = nc.request_nowait("void")
        assert repr(reply) == "<PendingReply to 'void', waiting>"
        assert (nc.statistics().pending_requests, reply.done, reply.subject) == (1, False, "void")
        reply.close()
        reply.close()
        assert reply.done
        with pytest.raises(errors.ConnectionClosedError, match="closed before an answer came"):
            await reply.wait()
        with nc.request_nowait("echo", b"x") as reply:
            await nc.flush()
            assert reply.done
            assert repr(reply) == "<PendingReply to 'echo', done>"
            assert (await reply.wait()).data == b"x"
            assert (await reply.wait()).data == b"x"
        assert_forgotten(nc)


def told(reply: PendingReply) -> list[Any]:
    """Leave a request, and collect what its callback is called with; False is what `leave` said."""
    came: list[Any] = []
    if not reply.leave(came.append):
        came.append(False)
    return came


async def test_the_answer_to_a_request_that_was_left_goes_to_the_callback(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nobody waits for it, not even a drain."""
    server = FakeServer()
    silent(server)
    async with connected(server) as nc:
        replies = [nc.request_nowait("void") for _ in range(3)]
        await nc.flush()
        came = [told(reply) for reply in replies]
        assert nc.statistics().pending_requests == 0
        first, second, _ = server.sent("PUB", "void")
        server.publish(first.reply, b"late")
        server.publish(first.reply, b"again")
        server.publish(second.reply, headers=NO_RESPONDERS)
        await nc.flush()
        assert [type(one).__name__ for one in came[0] + came[1]] == ["Msg", "NoRespondersError"]
        assert came[0][0].data == b"late"
        start = trio.current_time()
        await nc.drain()
        assert trio.current_time() == start
        assert isinstance(came[2][0], errors.ConnectionClosedError)


async def test_a_request_that_is_done_or_was_not_sent_says_so_at_once(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    silent(server)
    server.on("echo", lambda frame: frame.payload)
    async with connected(server) as nc:
        answered, closed = nc.request_nowait("echo", b"x"), nc.request_nowait("void")
        await nc.flush()
        closed.close()
        (answer,) = told(answered)
        assert answer.data == b"x"
        assert isinstance(told(closed)[0], errors.ConnectionClosedError)
        server.link.stall(up=True)
        nc.publish_nowait("in.hand")
        await trio.testing.wait_all_tasks_blocked()
        assert told(nc.request_nowait("void", b"unsent")) == [False]
        server.link.resume()
        await nc.flush()
        assert_forgotten(nc)
    assert not [frame for frame in server.sent("PUB", "void") if frame.payload == b"unsent"]


@pytest.mark.parametrize("how", ["cut", "refused"])
async def test_a_request_that_was_left_is_told_what_became_of_it(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    server = FakeServer()
    silent(server)
    async with connected(server, reconnect_time_wait=0.1) as nc:
        reply = nc.request_nowait("void")
        await nc.flush()
        came = told(reply)
        if how == "cut":
            server.cut()
        else:
            server.link.error('Permissions Violation for Publish to "void"')
        await trio.sleep(1)
        kinds = {"cut": errors.DisconnectedError, "refused": errors.PermissionsViolationError}
        assert [isinstance(one, kinds[how]) for one in came] == [True]
        assert_forgotten(nc)


async def test_a_reply_that_somebody_waits_for_cannot_be_left(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    silent(server)
    async with connected(server) as nc, trio.open_nursery() as nursery:
        reply = nc.request_nowait("void")
        nursery.start_soon(reply.wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="a task waits for this reply"):
            told(reply)
        nursery.cancel_scope.cancel()


async def test_a_reply_that_was_left_is_neither_waited_for_nor_left_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Either would take the callback away from it, and the count of those that wait would never be right again."""
    server = FakeServer()
    silent(server)
    server.on("echo", lambda frame: frame.payload)
    async with connected(server) as nc:
        reply = nc.request_nowait("void")
        await nc.flush()
        came = told(reply)
        with pytest.raises(trio.BusyResourceError, match="was left to a callback"):
            told(reply)
        with pytest.raises(trio.BusyResourceError, match="was left to a callback"):
            await reply.wait()
        assert nc.statistics().pending_requests == 0
        server.publish(server.sent("PUB", "void")[0].reply, b"late")
        await nc.flush()
        assert [answer.data for answer in came] == [b"late"]
        assert (await reply.wait()).data == b"late"
        assert (await nc.request("echo", b"x")).data == b"x"
        assert_forgotten(nc)


async def test_a_goodbye_that_is_asked_for_waits_for_a_connection_and_is_sent_by_a_client_that_closes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    server.on("goodbye", lambda frame: frame.payload)
    came: list[Any] = []
    async with connected(server, reconnect_time_wait=0.1, pending_size=10) as nc:
        server.cut()
        await trio.testing.wait_all_tasks_blocked()
        nc.ask_nowait("goodbye", b"more than may wait for a connection", came.append)
        assert (came, nc.statistics().pending_requests) == ([], 0)
        await nc.wait_connected()
        await nc.flush()
        assert [one.data for one in came] == [b"more than may wait for a connection"]
        nc.ask_nowait("goodbye", b"last", came.append)
    assert server.sent("PUB", "goodbye")[-1].payload == b"last"
    before = len(came)
    nc.ask_nowait("goodbye", b"too late", came.append)
    assert len(came) == before == 2


async def test_alarms(autojump_clock: trio.testing.MockClock) -> None:
    rung: list[float] = []
    async with connected(FakeServer()) as nc:
        now = trio.current_time()
        nc.alarm(now + 5, lambda: rung.append(trio.current_time() - now))
        nc.alarm(now + 3, lambda: rung.append(trio.current_time() - now)).cancel()
        nc.alarm(now + 20, lambda: rung.append(-1))
        await trio.sleep(10)
    await trio.sleep(20)
    assert rung == [5]


async def test_one_waiter_for_each_reply(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    silent(server)
    async with connected(server) as nc, trio.open_nursery() as nursery:
        with nc.request_nowait("void") as reply:
            nursery.start_soon(reply.wait)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await reply.wait()
            with trio.CancelScope() as scope:
                scope.cancel()
                with pytest.raises(trio.BusyResourceError):
                    await reply.wait()
            nursery.cancel_scope.cancel()


async def test_close_wakes_the_waiter(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    silent(server)
    async with connected(server) as nc:
        reply = nc.request_nowait("void")

        async def wait() -> None:
            with pytest.raises(errors.ConnectionClosedError):
                await reply.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            reply.close()


async def test_a_cancelled_wait_may_be_repeated(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    replies: list[str] = []
    server.on("slow", lambda frame: replies.append(frame.reply))
    async with connected(server) as nc:
        with nc.request_nowait("slow") as reply:
            with trio.move_on_after(1):
                await reply.wait()
            server.publish(replies[0], b"now")
            assert (await reply.wait()).data == b"now"


# -- disconnected ------------------------------------------------------------------------------------------------------


async def test_a_disconnect_fails_what_was_sent_and_keeps_what_was_not(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    silent(server)
    server.on("echo", lambda frame: frame.payload)
    ended: dict[str, object] = {}
    async with connected(server, reconnect_time_wait=1) as nc:

        async def one(name: str, subject: str) -> None:
            try:
                ended[name] = (await nc.request(subject, name.encode())).data
            except errors.Error as error:
                ended[name] = error

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, f"sent {number}", "void")
            await trio.testing.wait_all_tasks_blocked()
            assert nc.statistics().pending_requests == 100
            server.dials = ["hang"]
            start = trio.current_time()
            server.cut()
            while nc.is_connected:  # noqa: ASYNC110 - without a step of the clock
                await trio.lowlevel.checkpoint()
            nursery.start_soon(one, "unsent", "echo")
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            assert trio.current_time() == start
            assert len(ended) == 100
            assert all(isinstance(error, errors.DisconnectedError) for error in ended.values())
            assert "request to 'void': the connection was lost" in str(ended["sent 0"])
            assert nc.statistics().pending_requests == 1
        assert ended["unsent"] == b"unsent"
        assert trio.current_time() > start
        assert len(server.sent("PUB", "echo")) == 1
        assert_forgotten(nc)


@pytest.mark.parametrize("how", ["cancelled", "timed out", "closed"])
async def test_an_unsent_request_that_ends_takes_its_frame_back(
    autojump_clock: trio.testing.MockClock, how: str
) -> None:
    server = FakeServer()
    async with connected(server, reconnect_time_wait=100, request_timeout=2) as nc:
        await nc.flush()
        server.accepting = False
        server.cut()
        while nc.is_connected:  # noqa: ASYNC110 - without a step of the clock
            await trio.lowlevel.checkpoint()
        await nc.publish("before")
        outbox = nc.statistics().outbox_bytes
        if how == "cancelled":
            with trio.move_on_after(1):
                await nc.request("echo", b"never")
        elif how == "timed out":
            with pytest.raises(errors.TimeoutError):
                await nc.request("echo", b"never")
        else:
            nc.request_nowait("echo", b"never").close()
        assert nc.statistics().outbox_bytes == outbox
        assert nc.statistics().out_msgs == 1
        await nc.publish("after")
        server.accepting = True
        await nc.wait_connected()
        await nc.flush()
        assert [frame.subject for frame in server.sent("PUB")] == ["before", "after"]
        assert_forgotten(nc)


async def test_a_request_stuck_in_a_full_socket_was_not_sent_until_it_was_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    server.on("echo", lambda frame: frame.payload)
    async with connected(server) as nc:
        server.link.stall(up=True)
        await nc.publish("first")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await nc.request("echo", b"x")
        server.link.resume()
        await nc.flush()
        assert [frame.subject for frame in server.sent("PUB")] == ["first"]


async def test_closing_fails_requests_and_keeps_back_their_unsent_frames(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    silent(server)
    ended: list[Exception] = []
    async with connected(server) as nc:

        async def one() -> None:
            with pytest.raises(
                errors.ConnectionClosedError, match="request to 'void': the client was closed"
            ) as caught:
                await nc.request("void")
            ended.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked()
            server.link.stall(up=True)
            await nc.publish("in.the.pipe")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(nc.aclose)
            await trio.testing.wait_all_tasks_blocked()
            server.link.resume()
        assert len(ended) == 2
        assert len(server.sent("PUB", "void")) == 1
        with pytest.raises(errors.ConnectionClosedError):
            nc.request_nowait("void")


async def test_an_inbox_that_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer(deny_subscribe=("_INBOX.>",))
    silent(server)
    async with connected(server) as nc:
        for _ in range(2):
            with pytest.raises(errors.PermissionsViolationError, match=r"request to 'void'.*_INBOX"):
                await nc.request("void")
            assert_forgotten(nc)
        await nc.flush()


async def test_many_refused_requests_are_each_looked_at_once(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a refusal concerns is found by its name: the number of requests is no factor."""
    server = FakeServer(deny_publish=("secret.>",))
    silent(server)
    looked = 0
    subject: Any = vars(PendingReply)["subject"]

    def counted(reply: PendingReply) -> str:
        nonlocal looked
        looked += 1
        text: str = subject.__get__(reply)
        return text

    async with connected(server) as nc:
        with ExitStack() as stack:
            replies = [stack.enter_context(nc.request_nowait(f"secret.{number // 2}")) for number in range(400)]
            others = [stack.enter_context(nc.request_nowait("void")) for _ in range(400)]
            monkeypatch.setattr(PendingReply, "subject", property(counted))
            await nc.flush()
            # Its name, and that once more in its error.
            assert looked <= 2 * len(replies) + len(others)
            assert all(reply.done for reply in replies)
            assert not any(reply.done for reply in others)
            for number, reply in enumerate(replies):
                with pytest.raises(errors.PermissionsViolationError, match=rf"'secret\.{number // 2}'"):
                    await reply.wait()
        assert_forgotten(nc)


@pytest.mark.parametrize("operation", ["publish", "reply"])
async def test_a_refusal_fails_the_request_of_its_subject_or_inbox_alone(
    autojump_clock: trio.testing.MockClock, operation: str
) -> None:
    server = FakeServer()
    server.on("void.>", lambda _: None)
    async with connected(server) as nc:
        with nc.request_nowait("void.a") as one, nc.request_nowait("void.b") as two:
            await nc.flush()
            (sent,) = server.sent("PUB", "void.a")
            words = {
                "publish": 'Permissions Violation for Publish to "void.a"',
                "reply": f'Permissions Violation for Publish with Reply of "{sent.reply}"',
            }
            server.inject(f"-ERR '{words[operation]}'\r\n".encode())
            await nc.flush()
            assert (one.done, two.done) == (True, False)
            with pytest.raises(errors.PermissionsViolationError, match=r"request to 'void\.a'"):
                await one.wait()


async def test_a_full_outbox(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.on("echo", lambda frame: frame.payload)
    async with connected(server, pending_size=100) as nc:
        server.link.stall(up=True)
        await nc.publish("a", bytes(50))
        await trio.testing.wait_all_tasks_blocked()
        await nc.publish("a", bytes(500))
        with pytest.raises(trio.WouldBlock):
            nc.request_nowait("echo")
        answers = []

        async def ask() -> None:
            answers.append((await nc.request("echo", b"x")).data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert nc.statistics().pending_requests == 0
            server.link.resume()
        assert answers == [b"x"]


async def test_inbox_prefix(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.on("echo", lambda frame: frame.payload)
    async with connected(server, inbox_prefix="my.place") as nc:
        await nc.request("echo")
        assert server.sent("PUB", "echo")[0].reply.startswith("my.place.")
        assert nc.new_inbox().startswith("my.place.")
        assert nc.new_inbox() != nc.new_inbox()
