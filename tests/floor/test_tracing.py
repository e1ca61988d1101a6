"""Tracing a message, against a server in memory: when it ends, what makes it fail, what is left."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.fakes import FakeServer, Frame
from tests.worlds import arrived, cut_short, lose, open_world, regain, settled, takes, watched
from trionats import errors, events

pytestmark = pytest.mark.usefixtures("autojump_clock")


def inbox_of(frame: Frame) -> str:
    """Where a message has servers report to."""
    return frame.headers.partition(b"Nats-Trace-Dest: ")[2].partition(b"\r\n")[0].decode()


def report(*passed_on: str, number: str = "") -> bytes:
    header = {"Nats-Trace-Hop": [number]} if number else {}
    events = [{"type": "in", "kind": 1 if number else 0}, *({"type": "eg", "kind": 1, "hop": hop} for hop in passed_on)]
    return json.dumps({"server": {"name": f"n{number}"}, "request": {"header": header}, "events": events}).encode()


def reporting(server: FakeServer, *reports: bytes) -> FakeServer:
    """Have a server report of what is published to "a"."""

    def answer(frame: Frame) -> None:
        for data in reports:
            server.publish(inbox_of(frame), data)

    server.on("a", answer)
    return server


async def test_it_ends_by_itself_when_all_that_were_announced_have_come_in_any_order() -> None:
    server = reporting(
        FakeServer(), report(number="1"), report("1", "2"), report("2.1", number="2"), report(number="2.1")
    )
    async with open_world(server) as (_, nc, _):
        with takes(0):
            trace = await nc.trace("a", b"x", {"Mine": "1"})
        assert [hop.server.name for hop in trace.hops] == ["n", "n1", "n2", "n2.1"]
        assert trace.complete
        frame = server.sent("HPUB", "a")[0]
        assert (frame.reply, frame.payload) == ("", b"x")
        assert b"Mine: 1\r\n" in frame.headers
        assert b"Nats-Trace-Only" not in frame.headers
        await nc.trace("a", only=True)
        assert b"Nats-Trace-Only: 1\r\n" in server.sent("HPUB", "a")[1].headers


async def test_one_that_does_not_report_is_waited_for_until_it_is_quiet_and_named() -> None:
    async with open_world(reporting(FakeServer(), report("1"))) as (_, nc, _):
        with takes(1):
            trace = await nc.trace("a")
        assert (trace.complete, trace.missing) == (False, ("1",))
        with takes(3):
            await nc.trace("a", stall=3)
        with takes(0.5), trio.move_on_after(0.5):
            assert (await nc.trace("a")).missing == ("1",)


async def test_where_nobody_reports_it_is_a_timeout_or_the_deadline() -> None:
    async with open_world() as (_, nc, _):
        said = r"^trace to 'a': no server reported: no answer within 5 s$"
        with takes(5), pytest.raises(errors.TimeoutError, match=said):
            await nc.trace("a")
        with takes(2), pytest.raises(errors.TimeoutError):
            await nc.with_options(request_timeout=2).trace("a")
        await cut_short(nc.trace, "a", after=3)


async def test_a_report_that_cannot_be_read_harms_only_itself_and_is_told() -> None:
    server = reporting(FakeServer(), b"nonsense", b'{"events": 3}', report())
    async with watched(server) as (_, nc, told):
        assert len((await nc.trace("a")).hops) == 1
        skipped = arrived(told, events.ForeignDataSkipped)
        assert [event.where for event in skipped] == ["trace to 'a'"]


@pytest.mark.parametrize("version", ["2.10.29", "2.9.0"])
async def test_a_server_that_is_too_old_is_asked_nothing(version: str) -> None:
    async with open_world(FakeServer(info={"version": version})) as (server, nc, _):
        with pytest.raises(errors.Error, match=rf"trace needs a server of 2\.11 or later; this one is of {version}"):
            await nc.trace("a", only=True)
        await nc.flush()
        assert not server.sent("HPUB")
        assert not server.sent("SUB")


async def test_who_may_not_publish_there_is_told_at_once() -> None:
    async with open_world(FakeServer(deny_publish=("a",))) as (_, nc, _):
        with takes(0), pytest.raises(errors.PermissionsViolationError, match=r"trace to 'a': .* \"a\""):
            await nc.trace("a")


async def test_who_may_not_publish_there_is_told_by_whichever_comes_first() -> None:
    said = {"type": "in", "kind": 0, "error": 'Permissions Violation for Publish to "a"'}
    async with open_world(reporting(FakeServer(), json.dumps({"events": [said]}).encode())) as (_, nc, _):
        with takes(0), pytest.raises(errors.PermissionsViolationError, match=r"trace to 'a': .* \"a\"") as caught:
            await nc.trace("a")
        assert (caught.value.operation, caught.value.subject) == ("publish", "a")


async def test_who_may_not_publish_to_the_inbox_is_told_at_once() -> None:
    """Servers report in the name of the user."""
    async with open_world() as (server, nc, _):

        def refuse(frame: Frame) -> None:
            server.link.error(f'Permissions Violation for Publish to "{inbox_of(frame)}"')

        server.on("a", refuse)
        with takes(0), pytest.raises(errors.PermissionsViolationError, match=r"trace to 'a'.*_INBOX\."):
            await nc.trace("a")


async def test_who_may_not_listen_at_the_inbox_is_told_at_once() -> None:
    async with open_world(FakeServer(deny_subscribe=("_INBOX.>",))) as (server, nc, _):
        with takes(0), pytest.raises(errors.PermissionsViolationError, match="trace to 'a'"):
            await nc.trace("a")
        await nc.flush()
        assert not server.sent("HPUB"), "nobody would hear of it"


async def test_the_message_is_sent_when_the_server_has_the_inbox() -> None:
    async with open_world(reporting(FakeServer(), report())) as (server, nc, nursery):
        server.mute = {"PING"}
        nursery.start_soon(nc.trace, "a")
        await settled()
        assert not server.sent("HPUB")
        server.mute = set()
        server.inject(b"PONG\r\n")
        await settled()
        verbs = [frame.verb for frame in server.frames if frame.verb in ("SUB", "PING", "HPUB")]
        assert verbs[-4:] == ["SUB", "SUB", "PING", "HPUB"]


async def test_a_connection_that_breaks_fails_it_and_one_that_is_not_there_is_waited_for() -> None:
    async with open_world(max_reconnect_attempts=-1) as (server, nc, nursery):

        def cut(_: Frame) -> None:
            server.cut()

        server.on("a", cut)
        with pytest.raises(errors.DisconnectedError, match="trace to 'a'") as caught:
            await nc.trace("a")
        assert caught.value.sent
        server.on("a", lambda frame: server.publish(inbox_of(frame), report()) and None, first=True)
        await lose(server, nc)

        async def come_back() -> None:
            await trio.sleep(1)
            await regain(server, nc)

        nursery.start_soon(come_back)
        # It may be a while until the client tries once more.
        with trio.fail_after(100):
            assert (await nc.trace("a")).complete


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"stall": 0}, ValueError, "stall is 0"),
        ({"stall": "1"}, TypeError, "stall is '1'"),
        ({"headers": {"Nats-Trace-Hop": "1"}}, ValueError, "Nats-Trace-Hop"),
        ({"headers": ["a"]}, TypeError, "headers must be a mapping"),
        ({"timeout": 1}, TypeError, r"trace\(\) takes no timeout"),
        ({"payload": "x"}, TypeError, "the payload must be bytes"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    async with open_world() as (server, nc, _):
        with pytest.raises(error, match=text):
            await nc.trace("a", **options)
        with pytest.raises(errors.BadSubjectError):
            await nc.trace("a.*")
        await nc.flush()
        assert not server.sent("HPUB")
        assert not server.subscriptions
