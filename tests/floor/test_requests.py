"""Requests: answered, refused, timed out, cancelled and cut off; nothing is left of any of them."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
import trio

from tests.fakes import NO_RESPONDERS, FakeServer, Frame
from tests.worlds import (
    assert_nothing_left,
    connected,
    hold_back,
    lose,
    open_world,
    payloads,
    regain,
    seam,
    settled,
    takes,
)
from trionats import Client, errors, open_client, open_replies
from trionats._core.requests import PendingReply

pytestmark = pytest.mark.usefixtures("autojump_clock")


def answering(**options: Any) -> FakeServer:  # noqa: ANN401 - any option
    """A server that answers "echo" and not "void"."""
    server = FakeServer(**options)
    server.on("echo", lambda frame: frame.payload)
    server.on("void", lambda _: None)
    server.on("void.>", lambda _: None)
    return server


async def test_answered() -> None:
    async with open_world() as (server, nc, _):
        server.on("echo", lambda frame: frame.payload.upper())
        for _again in range(3):
            answer = await nc.request("echo", b"abc", headers={"A": "1"})
            assert answer.data == b"ABC"
        assert [frame.subject for frame in server.sent("SUB")] == [server.subscriptions[0].subject]
        assert len({frame.reply for frame in server.sent("HPUB", "echo")}) == 3
        assert_nothing_left(nc)
        assert (nc.statistics().out_msgs, nc.statistics().in_msgs) == (3, 3)
        with pytest.raises(errors.Error, match="no reply subject"):
            await answer.respond(b"back")


async def test_an_empty_answer_with_another_status_is_an_answer() -> None:
    async with open_world() as (server, nc, _):
        server.on("s", lambda frame: server.publish(frame.reply, headers=b"NATS/1.0 404 No Messages\r\n\r\n") and None)
        answer = await nc.request("s")
        assert (answer.status, answer.description) == (404, "No Messages")


async def test_nobody_there() -> None:
    async with connected(FakeServer()) as nc:
        text = r"request to 'nobody\.here': nobody is listening"
        with takes(0), pytest.raises(errors.NoRespondersError, match=text):
            await nc.request("nobody.here")
        assert_nothing_left(nc)


# -- how long ----------------------------------------------------------------------------------------------------------


async def one_reply(nc: Client) -> None:
    with nc.request_nowait("void") as reply:
        await reply.wait()


#: Every wait for one answer, and what its error names. Of `request_many` the whole is one, of a list each page.
WAITS: dict[str, tuple[Callable[[Client], Awaitable[object]], str]] = {
    "request": (lambda nc: nc.request("void"), "request to 'void'"),
    "flush": (lambda nc: nc.flush(), "flush"),
    "rtt": (lambda nc: nc.rtt(), "rtt"),
    "publish": (lambda nc: nc.jetstream().publish("void"), "request to 'void'"),
    "info": (lambda nc: nc.jetstream().stream_info("S"), r"request to '\$JS\.API\.STREAM\.INFO\.S'"),
    "list": (lambda nc: nc.jetstream().streams_info(), r"request to '\$JS\.API\.STREAM\.LIST'"),
    "reply": (one_reply, "request to 'void'"),
}


def standing_still() -> FakeServer:
    """A server that answers nothing but the first page of a list."""
    server = answering()
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
    wait: str, chosen: float | None, deadline: float | None, ends: str, how: str
) -> None:
    server = standing_still()
    call, what = WAITS[wait]
    kind = errors.FlushTimeoutError if wait in ("flush", "rtt") else errors.TimeoutError
    async with connected(server, request_timeout=chosen if how == "option" else 33.0) as client:
        nc = client if how == "option" else client.with_options(request_timeout=chosen)
        server.mute = {"PING"} if wait in ("flush", "rtt") else set()
        lasts = deadline if ends == "deadline" else float(ends.partition(" ")[0])
        assert lasts
        with takes(lasts), trio.move_on_after(math.inf if deadline is None else deadline) as scope:
            if ends == "deadline":
                await call(nc)
            else:
                with pytest.raises(kind, match=f"{what}: no answer within {ends}"):
                    await call(nc)
        assert scope.cancelled_caught == (ends == "deadline")
        assert client.statistics().pending_requests == 0
        server.mute = set()


@pytest.mark.parametrize(
    ("chosen", "deadline", "lasts"),
    [(None, None, 5.0), (None, 100.0, 100.0), (7.0, None, 7.0), (7.0, 100.0, 7.0), (7.0, 2.0, 2.0)],
)
@pytest.mark.parametrize("came", [[], [b"1", b"2"]])
async def test_the_total_of_many_answers(
    chosen: float | None, deadline: float | None, lasts: float, came: list[bytes]
) -> None:
    """What has come until then is given, whatever it is."""
    async with open_world(request_timeout=chosen) as (server, nc, nursery):
        server.on("many", lambda frame: ([server.publish(frame.reply, payload) for payload in came], None)[1])
        with takes(lasts), trio.move_on_after(math.inf if deadline is None else deadline):
            assert [msg.data for msg in await nc.request_many("many")] == came
        with takes(lasts), trio.move_on_after(math.inf if deadline is None else deadline):
            async with open_replies(nursery, nc, "many") as rx:
                assert await payloads(rx) == came


@pytest.mark.parametrize("chosen", [None, 3.0])
async def test_the_wait_for_room_counts(chosen: float | None) -> None:
    async with open_world(request_timeout=chosen, pending_size=100) as (server, nc, nursery):
        await hold_back(server, nc, 200)
        lasts = chosen or 5.0

        async def opened() -> None:
            async with open_replies(nursery, nc, "void"):
                pytest.fail("it was opened")

        text = f"request to 'void': no answer within {lasts:g} s"
        for call in (lambda: nc.request("void"), lambda: nc.request_many("void"), opened):
            with takes(lasts), pytest.raises(errors.TimeoutError, match=text):
                await call()
        assert nc.statistics().pending_requests == 0
        server.link.resume()


@pytest.mark.parametrize("value", ["5", True, -1, math.nan])
async def test_no_time_that_is_none(value: Any) -> None:  # noqa: ANN401 - wrong on purpose
    async with open_world() as (_, nc, nursery):
        with pytest.raises((TypeError, ValueError), match="request_timeout"):
            nc.with_options(request_timeout=value)
        with pytest.raises((TypeError, ValueError), match="request_timeout"):
            async with open_client(nursery, request_timeout=value):
                pytest.fail("it was opened")


HINT = r"takes no timeout: with trio\.fail_after\(1\): await nc\.%s\(\.\.\.\)"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda nc: nc.request("q", b"", timeout=1), r"request\(\) " + HINT % "request"),
        (lambda nc: nc.request_many("q", timeout=1), r"request_many\(\) " + HINT % "request_many"),
        (lambda nc: nc.flush(timeout=1), r"flush\(\) " + HINT % "flush"),
        (
            lambda nc: nc.jetstream().publish("s.a", b"", timeout=1),
            r"publish\(\) takes no timeout: with trio\.fail_after\(1\): await js\.publish\(\.\.\.\)",
        ),
        (lambda nc: nc.request("q", old_style=True), "request.. got an unexpected keyword argument 'old_style'"),
        (
            lambda nc: nc.request("q", b"", 1),
            "request to 'q': headers must be a mapping, not int; it " + HINT % "request",
        ),
        (lambda nc: nc.request("q", b"", "a: b"), "request to 'q': headers must be a mapping, not str$"),
        (lambda nc: nc.request("q", "text"), "request to 'q': the payload must be bytes, not str"),
        (lambda nc: nc.request(["a"]), r"request to \['a'\]: it must be text, not list"),
        (lambda nc: nc.request(5), "request to 5: it must be text, not int"),
        (lambda nc: nc.request_many(["a"]), r"request to \['a'\]: it must be text, not list"),
        (lambda nc: nc.request_many("a", max_msgs="x"), "^max_msgs is "),
        (lambda nc: nc.request_many("a", stall="x"), "^stall is "),
        (lambda nc: nc.request_many("a", sentinel=5), "^sentinel is "),
        (lambda nc: nc.publish("x", b"", {"a": "1"}), "publish to 'x': reply must be text, not dict"),
        (lambda nc: nc.publish("x", b"", ["a"]), "publish to 'x': reply must be text, not list"),
        (lambda nc: nc.publish("x", headers=5), "headers must be a mapping, not int"),
        (lambda nc: nc.publish({"a": "1"}), "publish to {'a': '1'}: it must be text, not dict"),
        (lambda nc: nc.publish(5), "publish to 5: it must be text, not int"),
    ],
)
async def test_what_is_of_a_wrong_type_is_named_and_a_timeout_is_told_how_it_is_given(
    call: Callable[[Any], Awaitable[object]], text: str
) -> None:
    async with open_world() as (server, nc, _):
        await nc.flush()
        sent = len(server.link.received)
        with pytest.raises(TypeError, match=text):
            await call(nc)
        await settled()
        assert len(server.link.received) == sent
        assert_nothing_left(nc)


async def test_many_timeouts_at_their_own_times() -> None:
    ends: dict[int, float] = {}
    async with connected(answering(), request_timeout=5) as nc:
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


# -- what is left of them ------------------------------------------------------------------------------------------------


async def test_late_and_foreign_answers_are_nobodys() -> None:
    async with open_world(answering()) as (server, nc, _):
        with trio.move_on_after(1):
            await nc.request("void", b"A")
        (asked,) = server.sent("PUB", "void")
        for late in (b"B", b"C"):
            for _again in range(3):
                server.publish(asked.reply, b"late")
            assert (await nc.request("echo", late)).data == late
        assert_nothing_left(nc)


async def test_two_answers_to_one_request() -> None:
    async with open_world() as (server, nc, _):
        server.on("twice", lambda frame: (server.publish(frame.reply, b"1"), b"2")[1])
        assert (await nc.request("twice")).data == b"1"
        assert (await nc.request("twice")).data == b"1"
        await nc.flush()
        assert_nothing_left(nc)


@pytest.mark.parametrize("way", ["a deadline", "a cancellation", "the default timeout"])
async def test_a_request_that_is_given_up_leaves_nothing(way: str) -> None:
    scope = trio.CancelScope()

    def hear(_: Frame) -> None:
        if way == "a cancellation":
            scope.cancel()

    async with open_world() as (server, nc, _):
        server.on("ask", hear)
        if way == "the default timeout":
            with pytest.raises(errors.TimeoutError):
                await nc.request("ask")
        else:
            if way == "a deadline":
                scope.deadline = trio.current_time() + 1
            with scope:
                await nc.request("ask")
            assert scope.cancelled_caught
        assert_nothing_left(nc)
        # A late answer finds nobody.
        server.publish(server.sent("PUB", "ask")[0].reply, b"late")
        await nc.flush()
        assert_nothing_left(nc)


async def test_closed_replies() -> None:
    async with connected(answering()) as nc:
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
        assert_nothing_left(nc)


# -- those that are left to a callback -------------------------------------------------------------------------------------


def told(nc: Client, reply: PendingReply) -> list[Any]:
    """Leave a request, and collect what its callback is called with; False is what `leave` said."""
    came: list[Any] = []
    if not seam(nc).leave(reply, came.append):
        came.append(False)
    return came


async def test_the_answer_to_a_request_that_was_left_goes_to_the_callback() -> None:
    """Nobody waits for it, not even a drain."""
    async with open_world(answering()) as (server, nc, _):
        replies = [nc.request_nowait("void") for _ in range(3)]
        await nc.flush()
        came = [told(nc, reply) for reply in replies]
        assert nc.statistics().pending_requests == 0
        first, second, _third = server.sent("PUB", "void")
        server.publish(first.reply, b"late")
        server.publish(first.reply, b"again")
        server.publish(second.reply, headers=NO_RESPONDERS)
        await nc.flush()
        assert [type(one).__name__ for one in came[0] + came[1]] == ["Msg", "NoRespondersError"]
        assert came[0][0].data == b"late"
        with takes(0):
            await nc.drain()
        assert isinstance(came[2][0], errors.ConnectionClosedError)


async def test_a_request_that_is_done_or_was_not_sent_says_so_at_once() -> None:
    async with open_world(answering()) as (server, nc, _):
        answered, closed = nc.request_nowait("echo", b"x"), nc.request_nowait("void")
        await nc.flush()
        closed.close()
        (answer,) = told(nc, answered)
        assert answer.data == b"x"
        assert isinstance(told(nc, closed)[0], errors.ConnectionClosedError)
        await hold_back(server, nc)
        assert told(nc, nc.request_nowait("void", b"unsent")) == [False]
        server.link.resume()
        await nc.flush()
        assert_nothing_left(nc)
    assert not [frame for frame in server.sent("PUB", "void") if frame.payload == b"unsent"]


@pytest.mark.parametrize("how", ["cut", "refused"])
async def test_a_request_that_was_left_is_told_what_became_of_it(how: str) -> None:
    async with open_world(answering(), reconnect_time_wait=0.1) as (server, nc, _):
        reply = nc.request_nowait("void")
        await nc.flush()
        came = told(nc, reply)
        if how == "cut":
            server.cut()
        else:
            server.link.error('Permissions Violation for Publish to "void"')
        await trio.sleep(1)
        kinds = {"cut": errors.DisconnectedError, "refused": errors.PermissionsViolationError}
        assert [isinstance(one, kinds[how]) for one in came] == [True]
        assert_nothing_left(nc)


async def test_a_reply_has_one_waiter_cannot_be_left_meanwhile_and_wakes_it_when_closed() -> None:
    woken: list[bool] = []
    async with open_world(answering()) as (_, nc, nursery):
        reply = nc.request_nowait("void")

        async def wait() -> None:
            with pytest.raises(errors.ConnectionClosedError):
                await reply.wait()
            woken.append(True)

        nursery.start_soon(wait)
        await settled()
        with pytest.raises(trio.BusyResourceError, match="another task waits for this reply"):
            told(nc, reply)
        with pytest.raises(trio.BusyResourceError):
            await reply.wait()
        with trio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(trio.BusyResourceError):
                await reply.wait()
        reply.close()
        await settled()
        assert woken


async def test_a_reply_that_was_left_is_neither_waited_for_nor_left_again() -> None:
    """Either would take the callback away from it, and the count of those that wait would never be right again."""
    async with open_world(answering()) as (server, nc, _):
        reply = nc.request_nowait("void")
        await nc.flush()
        came = told(nc, reply)
        with pytest.raises(trio.BusyResourceError, match="was left to a callback"):
            told(nc, reply)
        with pytest.raises(trio.BusyResourceError, match="was left to a callback"):
            await reply.wait()
        assert nc.statistics().pending_requests == 0
        server.publish(server.sent("PUB", "void")[0].reply, b"late")
        await nc.flush()
        assert [answer.data for answer in came] == [b"late"]
        assert (await reply.wait()).data == b"late"
        assert (await nc.request("echo", b"x")).data == b"x"
        assert_nothing_left(nc)


async def test_a_goodbye_that_is_asked_for_waits_for_a_connection_and_is_sent_by_a_client_that_closes() -> None:
    came: list[Any] = []
    async with open_world(reconnect_time_wait=0.1, pending_size=10) as (server, nc, _):
        server.on("goodbye", lambda frame: frame.payload)
        server.cut()
        await settled()
        seam(nc).request_aside("goodbye", b"more than may wait for a connection", came.append)
        assert (came, nc.statistics().pending_requests) == ([], 0)
        await nc.wait_connected()
        await nc.flush()
        assert [one.data for one in came] == [b"more than may wait for a connection"]
        seam(nc).request_aside("goodbye", b"last", came.append)
    assert server.sent("PUB", "goodbye")[-1].payload == b"last"
    before = len(came)
    seam(nc).request_aside("goodbye", b"too late", came.append)
    assert len(came) == before == 2


async def test_timers() -> None:
    rung: list[float] = []
    async with connected(FakeServer()) as nc:
        now = trio.current_time()
        seam(nc).call_at(now + 5, lambda: rung.append(trio.current_time() - now))
        seam(nc).call_at(now + 3, lambda: rung.append(trio.current_time() - now)).cancel()
        seam(nc).call_at(now + 20, lambda: rung.append(-1))
        await trio.sleep(10)
    await trio.sleep(20)
    assert rung == [5]


async def test_a_cancelled_wait_may_be_repeated() -> None:
    async with open_world(answering()) as (server, nc, _):
        with nc.request_nowait("void") as reply:
            with trio.move_on_after(1):
                await reply.wait()
            server.publish(server.sent("PUB", "void")[0].reply, b"now")
            assert (await reply.wait()).data == b"now"


# -- disconnected ------------------------------------------------------------------------------------------------------


async def test_a_disconnect_fails_what_was_sent_and_keeps_what_was_not() -> None:
    ended: dict[str, object] = {}
    async with open_world(answering(), reconnect_time_wait=1) as (server, nc, _):

        async def one(name: str, subject: str) -> None:
            try:
                ended[name] = (await nc.request(subject, name.encode())).data
            except errors.Error as error:
                ended[name] = error

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, f"sent {number}", "void")
            await settled()
            assert nc.statistics().pending_requests == 100
            with takes(0):
                await lose(server, nc)
                nursery.start_soon(one, "unsent", "echo")
                for _again in range(20):
                    await trio.lowlevel.checkpoint()
            assert len(ended) == 100
            assert all(isinstance(error, errors.DisconnectedError) for error in ended.values())
            assert "request to 'void': the connection was lost" in str(ended["sent 0"])
            assert nc.statistics().pending_requests == 1
            server.accepting = True
        assert ended["unsent"] == b"unsent"
        assert len(server.sent("PUB", "echo")) == 1
        assert_nothing_left(nc)


@pytest.mark.parametrize("how", ["cancelled", "timed out", "closed"])
async def test_an_unsent_request_that_ends_takes_its_frame_back(how: str) -> None:
    async with open_world(reconnect_time_wait=100, request_timeout=2) as (server, nc, _):
        await lose(server, nc)
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
        assert (nc.statistics().outbox_bytes, nc.statistics().out_msgs) == (outbox, 1)
        await nc.publish("after")
        await regain(server, nc)
        assert [frame.subject for frame in server.sent("PUB")] == ["before", "after"]
        assert_nothing_left(nc)


async def test_a_request_stuck_in_a_full_socket_was_not_sent_until_it_was_taken() -> None:
    async with open_world(answering()) as (server, nc, _):
        await hold_back(server, nc)
        with trio.move_on_after(1):
            await nc.request("echo", b"x")
        server.link.resume()
        await nc.flush()
        assert [frame.subject for frame in server.sent("PUB")] == ["in.hand"]


async def test_closing_fails_requests_and_keeps_back_their_unsent_frames() -> None:
    ended: list[Exception] = []
    async with open_world(answering()) as (server, nc, nursery):

        async def one() -> None:
            text = "request to 'void': the client was closed"
            with pytest.raises(errors.ConnectionClosedError, match=text) as caught:
                await nc.request("void")
            ended.append(caught.value)

        nursery.start_soon(one)
        await settled()
        await hold_back(server, nc)
        nursery.start_soon(one)
        await settled()
        nursery.start_soon(nc.aclose)
        await settled()
        server.link.resume()
        await settled()
        assert len(ended) == 2
        assert len(server.sent("PUB", "void")) == 1
        with pytest.raises(errors.ConnectionClosedError):
            nc.request_nowait("void")


# -- refused -------------------------------------------------------------------------------------------------------------


async def test_many_refused_requests_are_each_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a refusal concerns is found by its name: the number of requests is no factor."""
    looked = 0
    subject: Any = vars(PendingReply)["subject"]

    def counted(reply: PendingReply) -> str:
        nonlocal looked
        looked += 1
        text: str = subject.__get__(reply)
        return text

    async with connected(answering(deny_publish=("secret.>",))) as nc:
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
        assert_nothing_left(nc)


@pytest.mark.parametrize("operation", ["publish", "reply"])
async def test_a_refusal_fails_the_request_of_its_subject_or_inbox_alone(operation: str) -> None:
    async with open_world(answering()) as (server, nc, _):
        with nc.request_nowait("void.a") as one, nc.request_nowait("void.b") as two:
            await nc.flush()
            (sent,) = server.sent("PUB", "void.a")
            words = {"publish": 'to "void.a"', "reply": f'with Reply of "{sent.reply}"'}
            server.inject(f"-ERR 'Permissions Violation for Publish {words[operation]}'\r\n".encode())
            await nc.flush()
            assert (one.done, two.done) == (True, False)
            with pytest.raises(errors.PermissionsViolationError, match=r"request to 'void\.a'"):
                await one.wait()


async def test_a_full_outbox() -> None:
    answers = []
    async with open_world(answering(), pending_size=100) as (server, nc, nursery):
        await hold_back(server, nc, 500)
        with pytest.raises(trio.WouldBlock):
            nc.request_nowait("echo")

        async def ask() -> None:
            answers.append((await nc.request("echo", b"x")).data)

        nursery.start_soon(ask)
        await settled()
        assert nc.statistics().pending_requests == 0
        server.link.resume()
    assert answers == [b"x"]


async def test_inbox_prefix() -> None:
    async with open_world(answering(), inbox_prefix="my.place") as (server, nc, _):
        await nc.request("echo")
        assert server.sent("PUB", "echo")[0].reply.startswith("my.place.")
        assert nc.new_inbox().startswith("my.place.")
        assert nc.new_inbox() != nc.new_inbox()


class Watching(dict[str, str]):
    """Headers that tell whether Ctrl-C is held back where they are read."""

    def __init__(self) -> None:
        super().__init__(a="b")
        self.seen: list[bool] = []

    def items(self) -> Any:  # noqa: ANN401 - what a dict gives
        self.seen.append(trio.lowlevel.currently_ki_protected())
        return super().items()


async def test_a_request_is_not_interrupted_between_its_queueing_and_its_wait() -> None:
    """Not those of JetStream either, which come by the seam: what is queued is always taken back."""
    async with open_world() as (server, nc, _):
        server.on("a", lambda _: b"reply")
        headers = Watching()
        await nc.request("a", b"", headers)
        await nc.request_many("a", b"", headers, max_msgs=1)
        await seam(nc).request("a", b"", headers)
        nc.request_nowait("a", b"", headers).close()
        assert headers.seen
        assert all(headers.seen)
