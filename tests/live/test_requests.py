"""Requests with many answers, permissions, tracing and headers, with a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

import trionats
from trionats import errors
from trionats.testing import NatsServer

if TYPE_CHECKING:
    from pathlib import Path

    from trionats.testing import TrioNatsServer

PERMISSIONS = """
authorization: {
  users: [
    {user: "free", password: "x"}
    {user: "tied", password: "x", permissions: {
      publish: {deny: ["secret"]}, subscribe: {deny: ["_INBOX.>", "private"]}}}
    {user: "mute", password: "x", permissions: {publish: {deny: ["secret", "$JS.>"]}}}
  ]
}
"""


async def serve(
    nursery: trio.Nursery,
    nc: trionats.Client,
    answers: list[bytes],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with trionats.open_subscription(nursery, nc, "ask") as rx:
        await nc.flush()
        task_status.started()
        async for msg in rx:
            for answer in answers:
                await msg.respond(answer)


async def test_scatter_and_gather(nats_server: TrioNatsServer) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, nats_server.url) as nc,
        trio.open_nursery() as services,
    ):
        for number in range(5):
            await services.start(serve, background, nc, [b"%d" % number])
        found = await nc.request_many("ask", max_msgs=5)
        assert sorted(msg.data for msg in found) == [b"0", b"1", b"2", b"3", b"4"]
        assert len(await nc.request_many("ask", stall=1)) == 5
        with trio.move_on_after(1) as scope:
            found = await nc.request_many("ask")
        assert len(found) == 5
        assert not scope.cancelled_caught
        async with trionats.open_replies(background, nc, "ask", max_msgs=3) as rx:
            assert len([msg async for msg in rx]) == 3
        services.cancel_scope.cancel()


async def test_a_stream_of_answers_with_a_sentinel(nats_server: TrioNatsServer) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, nats_server.url) as nc,
        trio.open_nursery() as services,
    ):
        await services.start(serve, background, nc, [b"1", b"2", b"3", b""])
        found = await nc.request_many("ask", sentinel=lambda msg: not msg.data)
        assert [msg.data for msg in found] == [b"1", b"2", b"3"]
        services.cancel_scope.cancel()


async def test_nobody_listens(nats_server: TrioNatsServer) -> None:
    async with trio.open_nursery() as background, trionats.open_client(background, nats_server.url) as nc:
        with trio.fail_after(2):
            with pytest.raises(errors.NoRespondersError, match="nobody is listening"):
                await nc.request("nobody-there")
            with pytest.raises(errors.NoRespondersError, match="'nobody-there'"):
                await nc.request_many("nobody-there")
            async with trionats.open_replies(background, nc, "nobody-there") as rx:
                with pytest.raises(errors.NoRespondersError):
                    await rx.receive()


@pytest.mark.parametrize(("user", "subject"), [("tied", "anything"), ("mute", "secret")])
async def test_permissions_fail_a_request_at_once(server_executable: Path, user: str, subject: str) -> None:
    with NatsServer(config=PERMISSIONS, executable=server_executable) as server:
        url = server.url.replace("//", f"//{user}:x@")
        async with trio.open_nursery() as background, trionats.open_client(background, url) as nc:
            with trio.fail_after(2):
                # The inbox that is refused is nothing that the caller named.
                match = f"{subject}.*_INBOX.*; set inbox_prefix= to what" if user == "tied" else subject
                for _ in range(2):
                    with pytest.raises(errors.PermissionsViolationError, match=match):
                        await nc.request(subject)
                    with pytest.raises(errors.PermissionsViolationError, match=match):
                        await nc.request_many(subject)
                    async with trionats.open_replies(background, nc, subject) as rx:
                        with pytest.raises(errors.PermissionsViolationError, match=match):
                            await rx.receive()
            await nc.flush()


async def test_a_refused_subscription_ends_alone(server_executable: Path) -> None:
    with NatsServer(config=PERMISSIONS, executable=server_executable) as server:
        url = server.url.replace("//", "//tied:x@")
        async with (
            trio.open_nursery() as background,
            trionats.open_client(background, url) as nc,
            trionats.open_subscription(background, nc, "public") as other,
        ):
            for queue in ("", "busy"):
                async with trionats.open_subscription(background, nc, "private", queue=queue) as rx:
                    with (
                        trio.fail_after(2),
                        pytest.raises(errors.PermissionsViolationError, match='"private"') as caught,
                    ):
                        await rx.receive()
                    assert "inbox_prefix" not in str(caught.value)
            await nc.publish("public", b"1")
            assert (await other.receive()).data == b"1"


async def test_a_message_is_traced(nats_server: TrioNatsServer) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, nats_server.url) as nc,
        trionats.open_subscription(background, nc, "traces") as traces,
        trionats.open_subscription(background, nc, "traced") as rx,
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
        with pytest.raises(trio.WouldBlock):
            rx.receive_nowait()  # the second one was traced only
        with pytest.raises(errors.BadSubjectError):
            trionats.trace_headers("a.*")


async def test_headers_arrive_as_they_were_sent(nats_server: TrioNatsServer) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, nats_server.url) as nc,
        trionats.open_subscription(background, nc, "a") as rx,
    ):
        await nc.publish("a", headers={"Key": ["1", "2"], "key": "3", "Empty": "", "Text": "Ärger"})
        msg = await rx.receive()
        assert list(msg.headers.items()) == [("Key", "1"), ("Key", "2"), ("key", "3"), ("Empty", ""), ("Text", "Ärger")]
        assert msg.headers.getall("Key") == ["1", "2"]
        assert (msg.status, msg.description, msg.headers_problem) == (None, "", None)
        for wrong in ({"a b": "c"}, {"a:": "c"}, {"a": "b\r\nc: d"}, {"": "c"}):
            with pytest.raises(errors.BadHeaderError):
                await nc.publish("a", headers=wrong)


async def test_malformed_headers_cost_neither_the_message_nor_the_connection(nats_server: TrioNatsServer) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, nats_server.url) as nc,
        trionats.open_subscription(background, nc, "a") as rx,
    ):
        # The server passes on what any peer sends as its headers.
        nc._engine.outbox.publish(b"HPUB a 8 9\r\nA: b\r\n\r\n!\r\n", 9)
        await nc.flush()
        msg = await rx.receive()
        assert (msg.data, msg.headers["A"], msg.headers_problem) == (b"!", "b", "there is no version line")
        await nc.flush()
        assert nc.statistics().reconnects == 0


async def test_an_answer_has_no_headers_of_the_request(nats_server: TrioNatsServer) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, nats_server.url) as nc,
        trionats.open_subscription(background, nc, "a") as rx,
        trionats.open_subscription(background, nc, "answers") as answers,
    ):
        await nc.publish("a", headers={"Echo": "no"}, reply="answers")
        msg = await rx.receive()
        msg.respond_nowait(b"plain")
        await msg.respond(b"mine", headers={"Mine": "1"})
        with trio.fail_after(2):
            assert (await answers.receive()).header_block is None
            assert list((await answers.receive()).headers.items()) == [("Mine", "1")]


async def test_headers_count_towards_the_limit(nats_server: TrioNatsServer) -> None:
    async with trio.open_nursery() as background, trionats.open_client(background, nats_server.url) as nc:
        with pytest.raises(errors.MaxPayloadError):
            await nc.publish("a", b"x" * (nc.max_payload - 10), headers={"Key": "value"})
        await nc.publish("a", b"x" * nc.max_payload)
        await nc.flush()
        assert nc.statistics().reconnects == 0


async def test_the_agreed_number_arrives_whole(nats_server: TrioNatsServer) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, nats_server.url) as nc,
        trionats.open_subscription(background, nc, "a", max_msgs=10) as rx,
    ):
        for number in range(20):
            await nc.publish("a", b"%d" % number)
        await nc.flush()
        assert [int(msg.data) async for msg in rx] == list(range(10))
