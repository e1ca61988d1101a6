"""The fake server does what a real one does, and notices what a real one would not forgive."""

from __future__ import annotations

import errno
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.fakes import FakeServer, Link, cut_frame, matches
from tests.worlds import settled

CONNECT = b'CONNECT {"headers":true,"no_responders":true}\r\n'


async def greeted(server: FakeServer) -> Link:
    link = await server.dial("here", 4222)
    assert link is server.link
    info = await server.link.receive_some()
    assert info.startswith(b"INFO {")
    assert json.loads(info[5:]) == server.info
    return server.link


async def login(server: FakeServer, connect: bytes = CONNECT) -> Link:
    link = await greeted(server)
    await link.send_all(connect)
    return link


async def dialled() -> tuple[FakeServer, Link]:
    server = FakeServer()
    link = await login(server)
    assert server.info["max_payload"] == 1024 * 1024
    return server, link


async def test_a_conversation() -> None:
    server, link = await dialled()
    await link.send_all(b"PI")
    await link.send_all(b"NG\r\nSUB a.* 1\r\nPUB a.b 2\r\nhi\r\nPUB c 0\r\n\r\n")
    assert await link.receive_some() == b"PONG\r\nMSG a.b 1 2\r\nhi\r\n"
    assert [f.verb for f in server.frames] == ["CONNECT", "PING", "SUB", "PUB", "PUB"]
    assert server.sent("PUB", "a.>")[0].payload == b"hi"
    assert [s.subject for s in server.subscriptions] == ["a.*"]
    assert link.options["headers"] is True
    await link.aclose()
    assert server.subscriptions == []
    server.check()


async def test_headers_and_replies() -> None:
    server, link = await dialled()
    await link.send_all(b"SUB a 1\r\nHPUB a r 19 21\r\nNATS/1.0\r\nA: bc\r\n\r\nhi\r\n")
    assert await link.receive_some() == b"HMSG a 1 r 19 21\r\nNATS/1.0\r\nA: bc\r\n\r\nhi\r\n"
    assert server.publish("a", b"x", reply="s") == 1
    assert await link.receive_some() == b"MSG a 1 s 1\r\nx\r\n"
    server.check()


async def test_queue_groups_take_turns_and_others_all_get_theirs() -> None:
    server, link = await dialled()
    await link.send_all(b"SUB a q 1\r\nSUB a q 2\r\nSUB a 3\r\n")
    assert [server.publish("a", b"x") for _ in range(2)] == [2, 2]
    assert await link.receive_some() == b"".join(b"MSG a %d 1\r\nx\r\n" % sid for sid in (3, 1, 3, 2))


async def test_auto_unsubscribe_counts_what_was_delivered() -> None:
    server, link = await dialled()
    await link.send_all(b"SUB a 1\r\nUNSUB 1 2\r\nSUB a 2\r\nUNSUB 2\r\n")
    assert [server.publish("a") for _ in range(3)] == [1, 1, 0]
    await link.send_all(b"SUB b 3\r\n")
    server.publish("b")
    await link.send_all(b"UNSUB 3 1\r\n")
    assert server.subscriptions == []


async def test_nobody_listens() -> None:
    _, link = await dialled()
    await link.send_all(b"SUB in.* 1\r\nPUB nobody in.7 0\r\n\r\n")
    assert await link.receive_some() == b"HMSG in.7 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"


async def test_responders_are_interest() -> None:
    server = FakeServer()
    server.on("$JS.API.>", lambda frame: {"asked": frame.subject})
    server.on("text", lambda frame: frame.payload.decode().upper())
    server.on("nothing", lambda _: None)
    link = await login(server)
    await link.send_all(b"SUB in.* 1\r\nPUB $JS.API.INFO in.1 0\r\n\r\n")
    await link.send_all(b"PUB text in.2 2\r\nab\r\nPUB nothing in.3 0\r\n\r\n")
    assert await link.receive_some() == b'MSG in.1 1 25\r\n{"asked": "$JS.API.INFO"}\r\nMSG in.2 1 2\r\nAB\r\n'


async def test_no_echo() -> None:
    server = FakeServer()
    link = await login(server, b'CONNECT {"echo":false}\r\n')
    other = await login(server)
    await other.send_all(b"SUB a 1\r\n")
    await link.send_all(b"SUB a 1\r\nPUB a 1\r\nx\r\nPING\r\n")
    assert await link.receive_some() == b"PONG\r\n"
    assert await other.receive_some() == b"MSG a 1 1\r\nx\r\n"


async def test_refusals() -> None:
    server = FakeServer(
        authorize=lambda options: None if options.get("user") == "me" else "Authorization Violation",
        deny_publish=("secret.>",),
        deny_subscribe=("private",),
        info={"max_payload": 3},
    )
    link = await login(server, b'CONNECT {"user":"you"}\r\n')
    assert await link.receive_some() == b"-ERR 'Authorization Violation'\r\n"
    assert await link.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await link.send_all(b"PING\r\n")

    link = await login(server, b'CONNECT {"user":"me","verbose":true}\r\n')
    await link.send_all(b"PUB secret.x 0\r\n\r\nSUB private 1\r\nPUB a 4\r\nfour\r\n")
    assert (await link.receive_some()).decode() == (
        "+OK\r\n-ERR 'Permissions Violation for Publish to \"secret.x\"'\r\n"
        "-ERR 'Permissions Violation for Subscription to \"private\"'\r\n-ERR 'Maximum Payload Violation'\r\n"
    )
    assert await link.receive_some() == b""
    server.check()


async def test_dials_can_be_refused_and_swallowed(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.dials = ["refuse", "hang", "accept"]
    with pytest.raises(OSError, match="refuses") as caught:
        await server.dial("there", 1)
    assert caught.value.errno == errno.ECONNREFUSED
    with trio.move_on_after(5) as scope:
        await server.dial("there", 2)
    assert scope.cancelled_caught
    await server.dial("there", 3)
    server.accepting = False
    with pytest.raises(OSError, match="refuses"):
        await server.dial("there", 4)
    assert server.dialled == [("there", n) for n in (1, 2, 3, 4)]
    assert len(server.links) == 1


async def test_cut_after_bytes() -> None:
    server, link = await dialled()
    before = len(link.received)
    link.cut_after(sent=8)
    with pytest.raises(trio.BrokenResourceError):
        await link.send_all(b"PING\r\nPING\r\n")
    assert link.received[before:] == b"PING\r\nPI"
    assert not link.alive
    with pytest.raises(trio.BrokenResourceError):
        await link.receive_some()
    server.check()

    _, link = await dialled()
    link.cut_after(given=3)
    await link.send_all(b"PING\r\n")
    assert await link.receive_some() == b"PON"
    with pytest.raises(trio.BrokenResourceError):
        await link.receive_some()


async def ends(call: Callable[..., Awaitable[object]], how: type[Exception] | None, *args: object) -> None:
    if how is None:
        assert await call(*args) == b""
    else:
        with pytest.raises(how):
            await call(*args)


@pytest.mark.parametrize(
    ("how", "sending", "receiving"),
    [
        ("eof", trio.BrokenResourceError, None),
        ("reset", trio.BrokenResourceError, trio.BrokenResourceError),
        ("close", trio.ClosedResourceError, trio.ClosedResourceError),
    ],
)
async def test_a_cut_and_closing_wake_both_ends(how: Any, sending: Any, receiving: Any) -> None:  # noqa: ANN401 - rows
    server, link = await dialled()
    link.stall(up=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends, link.send_all, sending, b"PING\r\n")
        nursery.start_soon(ends, link.receive_some, receiving)
        await settled()
        assert len(nursery.child_tasks) == 2
        await ends(link.receive_some, trio.BusyResourceError)
        await ends(link.send_all, trio.BusyResourceError, b"")
        if how == "close":
            await link.aclose()
        else:
            server.cut(how)


async def test_stalls_end() -> None:
    server, link = await dialled()
    link.stall(up=True, down=True)
    server.inject(b"later")
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await link.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.send_all, b"PING\r\n")
        nursery.start_soon(receive)
        await settled()
        assert (got, server.sent("PING")) == ([], [])
        link.resume()
    assert b"".join(got).startswith(b"later")
    assert len(server.frames) == 2


async def test_small_pieces_both_ways() -> None:
    server = FakeServer(chunk=2, sip=3)
    link = await server.dial()
    await link.send_all(CONNECT + b"PING\r\n")
    text = b""
    while not text.endswith(b"PONG\r\n"):
        piece = await link.receive_some()
        assert len(piece) <= 2
        text += piece
    assert server.link.given == text


async def test_mute() -> None:
    server, link = await dialled()
    server.mute.add("PING")
    await link.send_all(b"PING\r\n")
    assert server.sent("PING")
    server.inject(b"the first after all")
    assert await link.receive_some() == b"the first after all"


BAD = [
    b"HELLO",
    b"PING now",
    b"PUB a b x",
    b"PUB a 1\r\nxy",
    b"PUB a  1\r\nx",
    b"PUB \xff 0\r\n",
    b"HPUB a 5 4\r\nabcd",
]
BAD += [b"HPUB a 4 4\r\nabcd", b"SUB a x", b"UNSUB 1 x", b"CONNECT [1]", b"CONNECT {", b"x" * (1024 * 1024 + 1)]


@pytest.mark.parametrize("bad", BAD)
async def test_malformed_frames_are_found(bad: bytes) -> None:
    server, link = await dialled()
    await link.send_all(bad if bad.startswith(b"xx") else bad + b"\r\n")
    assert b"-ERR" in await link.receive_some()
    assert await link.receive_some() == b""
    with pytest.raises(AssertionError):
        server.check()


async def test_what_a_real_server_would_not_forgive_is_found() -> None:
    server, link = await dialled()
    await link.send_all(b"PUB a 10\r\nfour")
    server.check()
    await link.aclose()
    with pytest.raises(AssertionError, match="half a frame"):
        server.check()
    with pytest.raises(trio.ClosedResourceError):
        await link.send_all(b"")

    server = FakeServer()
    await (await server.dial()).send_all(b"PING\r\n")
    with pytest.raises(AssertionError, match="PING before CONNECT"):
        server.check()

    server, link = await dialled()
    await link.send_all(b"SUB a 1\r\nSUB b 1\r\n")
    with pytest.raises(AssertionError, match="sid in use"):
        server.check()

    with pytest.raises(AssertionError, match="nobody"):
        _ = FakeServer().link


def test_frames_are_cut_anywhere() -> None:
    text = b"PUB a r 3\r\na\r\n\r\nHPUB b r 14 15\r\nNATS/1.0\r\n\r\n\r\n"
    for end in range(len(b"PUB a r 3\r\na\r\n\r\n")):
        assert cut_frame(bytearray(text[:end])) is None
    frame = cut_frame(bytearray(text))
    assert frame is not None
    assert (frame.subject, frame.reply, frame.payload) == ("a", "r", b"a\r\n")
    assert cut_frame(bytearray(b"pub a 0\r\n\r\n")) == ("PUB", ("a", "0"), b"", b"")


def test_matching() -> None:
    fit = [("a.*.c", "a.b.c"), ("a.>", "a.b.c"), ("a", "a")]
    do_not = [("a.>", "a"), ("a.*", "a.b.c"), ("a.b", "a"), ("a", "a.b")]
    assert [pair for pair in fit + do_not if matches(*pair)] == fit


async def test_a_responder_may_be_put_before_the_others_and_info_may_change() -> None:
    server, link = await dialled()
    server.on("a", lambda _: b"second")
    server.on("a", lambda _: b"first", first=True)
    await link.send_all(b"SUB in 1\r\nPUB a in 0\r\n\r\n")
    assert await link.receive_some() == b"MSG in 1 5\r\nfirst\r\n"
    server.announce(ldm=True)
    assert json.loads((await link.receive_some())[5:]) == {**server.info, "ldm": True}
