"""Requests with many answers, permissions, tracing and headers, with a real server."""

from __future__ import annotations

import json

import pytest
import trio

import trionats
from tests.worlds import arrived, open_live, open_world, payloads
from trionats import errors, events, open_events, open_replies, open_subscription
from trionats.testing import TrioNatsServer

pytestmark = pytest.mark.usefixtures("server_executable")

PERMISSIONS = """authorization: { users: [
    {user: "tied", password: "x", permissions: {
        publish: {deny: ["secret"]}, subscribe: {deny: ["_INBOX.>", "private"]}}}
    {user: "mute", password: "x", permissions: {publish: {deny: ["secret", "$JS.>"]}}}
] }"""


async def serve(
    nursery: trio.Nursery, nc: trionats.Client, answers: list[bytes], *, task_status: trio.TaskStatus[None]
) -> None:
    async with open_subscription(nursery, nc, "ask") as rx:
        await nc.flush()
        task_status.started()
        async for msg in rx:
            for answer in answers:
                await msg.respond(answer)


async def test_scatter_and_gather_and_a_stream_of_answers_with_a_sentinel(nats_server: TrioNatsServer) -> None:
    async with open_world(nats_server) as (_, nc, nursery), trio.open_nursery() as services:
        for number in range(5):
            await services.start(serve, nursery, nc, [b"%d" % number])
        found = await nc.request_many("ask", max_msgs=5)
        assert sorted(msg.data for msg in found) == [b"0", b"1", b"2", b"3", b"4"]
        assert len(await nc.request_many("ask", stall=1)) == 5
        with trio.move_on_after(1) as scope:
            found = await nc.request_many("ask")
        assert len(found) == 5
        assert not scope.cancelled_caught
        async with open_replies(nursery, nc, "ask", max_msgs=3) as rx:
            assert len(await payloads(rx)) == 3
        services.cancel_scope.cancel()
    async with open_world(nats_server) as (_, nc, nursery), trio.open_nursery() as services:
        await services.start(serve, nursery, nc, [b"1", b"2", b"3", b""])
        found = await nc.request_many("ask", sentinel=lambda msg: not msg.data)
        assert [msg.data for msg in found] == [b"1", b"2", b"3"]
        services.cancel_scope.cancel()


async def assert_each_request_fails(
    nursery: trio.Nursery, nc: trionats.Client, subject: str, kind: type[errors.Error], text: str
) -> None:
    """At once, whatever kind of request it is."""
    with trio.fail_after(2):
        for ask in (nc.request, nc.request_many):
            with pytest.raises(kind, match=text):
                await ask(subject)
        async with open_replies(nursery, nc, subject) as rx:
            with pytest.raises(kind, match=text):
                await rx.receive()


async def test_nobody_listens(nats_server: TrioNatsServer) -> None:
    text = "request to 'nobody-there': nobody is listening"
    async with open_world(nats_server) as (_, nc, nursery):
        await assert_each_request_fails(nursery, nc, "nobody-there", errors.NoRespondersError, text)


# The inbox that is refused is nothing that the caller named.
@pytest.mark.parametrize(
    ("user", "subject", "text"),
    [("tied", "anything", "anything.*_INBOX.*; set inbox_prefix= to what"), ("mute", "secret", "secret")],
)
async def test_permissions_fail_a_request_at_once(user: str, subject: str, text: str) -> None:
    async with open_live(PERMISSIONS, user=user, password="x") as (_, nc, nursery):
        for _again in range(2):
            await assert_each_request_fails(nursery, nc, subject, errors.PermissionsViolationError, text)
        await nc.flush()


async def test_what_is_refused_ends_alone() -> None:
    async with (
        open_live(PERMISSIONS, user="tied", password="x") as (_, nc, nursery),
        open_subscription(nursery, nc, "public") as other,
        open_events(nursery, nc) as told,
    ):
        for queue in ("", "busy"):
            async with open_subscription(nursery, nc, "private", queue=queue) as rx:
                with trio.fail_after(2), pytest.raises(errors.PermissionsViolationError, match='"private"') as caught:
                    await rx.receive()
                assert "inbox_prefix" not in str(caught.value)
        await nc.publish("secret")
        await nc.publish("public", b"1")
        assert (await other.receive()).data == b"1"
        await nc.flush()
        assert "publish" in [event.error.operation for event in arrived(told, events.PermissionViolation)]
        assert nc.statistics().reconnects == 0


async def test_a_message_is_traced(nats_server: TrioNatsServer) -> None:
    async with (
        open_world(nats_server) as (_, nc, nursery),
        open_subscription(nursery, nc, "traces") as traces,
        open_subscription(nursery, nc, "traced") as rx,
    ):
        for only in (False, True):
            mine = {"Mine": "kept"}
            await nc.publish("traced", b"x", headers={**mine, **trionats.trace_headers("traces", only=only)})
            with trio.fail_after(2):
                trace = json.loads((await traces.receive()).data)
            assert trace["request"]["header"]["Mine"] == ["kept"]
            assert {event["type"] for event in trace["events"]} == {"in", "eg"}
        await nc.flush()
        assert (await rx.receive()).headers["Mine"] == "kept"
        assert not arrived(rx), "the second one was traced only"
        with pytest.raises(errors.BadSubjectError):
            trionats.trace_headers("a.*")


async def test_headers_arrive_as_they_were_sent_and_malformed_ones_cost_nothing(nats_server: TrioNatsServer) -> None:
    async with open_world(nats_server) as (_, nc, nursery), open_subscription(nursery, nc, "a") as rx:
        await nc.publish("a", headers={"Key": ["1", "2"], "key": "3", "Empty": "", "Text": "Ärger"})
        msg = await rx.receive()
        assert list(msg.headers.items()) == [("Key", "1"), ("Key", "2"), ("key", "3"), ("Empty", ""), ("Text", "Ärger")]
        assert msg.headers.getall("Key") == ["1", "2"]
        assert (msg.status, msg.description, msg.headers_problem) == (None, "", None)
        for wrong in ({"a b": "c"}, {"a:": "c"}, {"a": "b\r\nc: d"}, {"": "c"}):
            with pytest.raises(errors.BadHeaderError):
                await nc.publish("a", headers=wrong)
        # The server passes on what any peer sends as its headers.
        await nc.flush()
        async with await trio.open_tcp_stream("127.0.0.1", int(nats_server.url.rpartition(":")[2])) as peer:
            await peer.send_all(b'CONNECT {"headers":true}\r\nHPUB a 8 9\r\nA: b\r\n\r\n!\r\n')
            msg = await rx.receive()
        assert (msg.data, msg.headers["A"], msg.headers_problem) == (b"!", "b", "there is no version line")
        await nc.flush()
        assert nc.statistics().reconnects == 0


async def test_an_answer_has_no_headers_of_the_request(nats_server: TrioNatsServer) -> None:
    async with (
        open_world(nats_server) as (_, nc, nursery),
        open_subscription(nursery, nc, "a") as rx,
        open_subscription(nursery, nc, "answers") as answers,
    ):
        await nc.publish("a", headers={"Echo": "no"}, reply="answers")
        msg = await rx.receive()
        msg.respond_nowait(b"plain")
        await msg.respond(b"mine", headers={"Mine": "1"})
        with trio.fail_after(2):
            assert (await answers.receive()).header_block is None
            assert list((await answers.receive()).headers.items()) == [("Mine", "1")]


async def test_the_agreed_number_arrives_whole(nats_server: TrioNatsServer) -> None:
    async with open_world(nats_server) as (_, nc, nursery), open_subscription(nursery, nc, "a", max_msgs=10) as rx:
        for number in range(20):
            await nc.publish("a", b"%d" % number)
        await nc.flush()
        assert await payloads(rx) == [b"%d" % number for number in range(10)]
