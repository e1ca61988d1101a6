"""What only a newer server can do, asked of servers of each age (ADR-44)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.fake_jetstream import refusal
from tests.fakes import FakeServer, Frame
from tests.worlds import open_world, seam
from trionats import Client, JetStream, api, errors
from trionats._jetstream.api import Api
from trionats._protocol.jetstream import levels

pytestmark = pytest.mark.usefixtures("autojump_clock")

STATE = dict.fromkeys(("messages", "bytes", "first_seq", "last_seq", "consumer_count"), 0)
NEWER = ("allow_msg_ttl", "allow_atomic", "allow_batched")


@asynccontextmanager
async def aged(
    level: int | None, *, knows: tuple[str, ...] = (), permitted: bool = True
) -> AsyncIterator[tuple[JetStream, FakeServer]]:
    async with aged_client(level, knows=knows, permitted=permitted) as (nc, server):
        yield nc.jetstream(), server


@asynccontextmanager
async def aged_client(
    level: int | None, *, knows: tuple[str, ...] = (), permitted: bool = True
) -> AsyncIterator[tuple[Client, FakeServer]]:
    """A server of an API level, which below 2 does not look at the header, and leaves out what it does not know."""
    async with open_world() as (server, nc, _):

        def info(_: Frame) -> object:
            if not permitted:
                server.inject(b"-ERR 'Permissions Violation for Publish to \"$JS.API.INFO\"'\r\n")
                return None
            stats = {"total": 1, "errors": 0, **({} if level is None else {"level": level})}
            return {"api": stats}

        def configure(frame: Frame) -> object:
            asked = re.search(rb"Nats-Required-Api-Level: (\d+)", frame.headers)
            if asked and (level or 0) >= 2 and int(asked[1]) > (level or 0):
                return refusal(412, 10185, "JetStream minimum api level required")
            sent = json.loads(frame.payload)
            config = {field: value for field, value in sent.items() if field not in NEWER or field in knows}
            return {"config": config, "state": STATE, "did_create": True}

        server.on("$JS.API.INFO", info)
        server.on("$JS.API.STREAM.CREATE.S", configure)
        server.on("$JS.API.STREAM.UPDATE.S", configure)
        server.on("$JS.API.STREAM.DELETE.S", lambda _: {"success": True})
        yield nc, server


def sent(server: FakeServer) -> list[Frame]:
    return [frame for frame in server.frames if frame.verb in ("PUB", "HPUB") and frame.subject.startswith("$JS.API.")]


def asked(server: FakeServer) -> list[str]:
    return [frame.subject.removeprefix("$JS.API.") for frame in sent(server)]


def levels_asked_for(server: FakeServer) -> list[bytes]:
    return [level for frame in sent(server) for level in re.findall(rb"Nats-Required-Api-Level: (\d+)", frame.headers)]


@pytest.mark.parametrize("level", [None, 1, 2, 5])
async def test_what_every_server_can_do_is_asked_without_a_level(level: int | None) -> None:
    async with aged(level) as (js, server):
        await js.add_stream(name="S", subjects=["s"], max_age=5, allow_msg_ttl=False)
        assert asked(server) == ["STREAM.CREATE.S"]
        assert levels_asked_for(server) == []


@pytest.mark.parametrize("level", [None, 0, 1])
async def test_an_old_server_is_not_asked_for_what_it_would_leave_out(level: int | None) -> None:
    async with aged(level) as (js, server):
        for call in (js.add_stream, js.create_stream):
            with pytest.raises(errors.APIError) as caught:
                await call(name="S", allow_atomic=True)
            said = f"stream 'S': allow_atomic needs a server of 2.12 or later (API level 2); this one has level {level or 0}"
            assert str(caught.value).startswith(said)
            assert (caught.value.code, caught.value.err_code) == (412, 10185)
        assert asked(server) == ["INFO"], "once a context"


async def test_what_the_client_adds_to_a_mirror_is_no_reason_to_refuse_it() -> None:
    async with aged(None) as (js, server):
        for call in (js.add_stream, js.create_stream, js.create_or_update_stream):
            await call(name="S", mirror=api.StreamSource("ORIGIN"))
            assert json.loads(sent(server)[-1].payload)["allow_msg_ttl"] is True
        assert levels_asked_for(server) == []
        with pytest.raises(errors.APIError, match="allow_msg_ttl needs"):
            await js.add_stream(name="S", mirror=api.StreamSource("ORIGIN"), allow_msg_ttl=True)


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ({}, {"allow_msg_ttl": True, "allow_rollup_hdrs": True}),
        ({"allow_msg_ttl": False}, {"allow_msg_ttl": False, "allow_rollup_hdrs": True}),
        ({"allow_rollup_hdrs": False}, {"allow_msg_ttl": True, "allow_rollup_hdrs": False}),
        ({"deny_purge": True}, {"allow_msg_ttl": True, "allow_rollup_hdrs": False}),
    ],
)
async def test_a_mirror_may_forget_unless_something_else_is_said(config: dict[str, Any], more: dict[str, bool]) -> None:
    async with aged(5, knows=NEWER) as (js, server):
        await js.add_stream(name="S", mirror=api.StreamSource("ORIGIN"), **config)
        asked_for = json.loads(sent(server)[-1].payload)
        assert {field: asked_for[field] for field in more} == more


async def test_a_server_that_can_do_it_is_asked_for_its_level_once() -> None:
    async with aged(5, knows=NEWER) as (js, server):
        for _ in range(2):
            assert (await js.add_stream(name="S", allow_msg_ttl=True, allow_batched=True)).config.allow_batched
        assert asked(server) == ["INFO", "STREAM.CREATE.S", "STREAM.CREATE.S"]
        assert levels_asked_for(server) == [b"4", b"4"]


async def test_a_refusal_by_the_server_itself_names_the_field_and_the_version() -> None:
    """Of a cluster in which the one that was asked for its level is newer than the one that leads."""
    async with aged(2) as (js, server):
        server.on("$JS.API.INFO", lambda _: {"api": {"level": 5}}, first=True)
        with pytest.raises(
            errors.APIError, match=r"allow_batched needs a server of 2\.14 or later \(API level 4\)"
        ) as caught:
            await js.add_stream(name="S", allow_batched=True)
        assert (caught.value.code, caught.value.err_code) == (412, 10185)


async def test_where_the_level_may_not_be_asked_what_comes_back_tells() -> None:
    async with aged(1, knows=("allow_msg_ttl",), permitted=False) as (js, server):
        assert (await js.add_stream(name="S", allow_msg_ttl=True)).config.allow_msg_ttl
        with pytest.raises(
            errors.APIError, match=r"allow_atomic needs a server of 2\.12 .*left it out, and did the rest"
        ):
            await js.add_stream(name="S", allow_msg_ttl=True, allow_atomic=True)
        with pytest.raises(errors.APIError, match="allow_atomic needs"):
            await js.update_stream(api.StreamConfig(name="S", allow_atomic=True))
        create = "STREAM.CREATE.S"
        assert asked(server) == ["INFO", create, create, "STREAM.UPDATE.S"], "the level is not asked for again"


@pytest.mark.parametrize("silent", [False, True])
async def test_what_was_certainly_not_there_before_is_deleted_again_for_a_bounded_time(silent: bool) -> None:
    """A consumer that was created strictly; a stream's `did_create` says nothing."""
    async with aged_client(1, permitted=False) as (nc, server):
        server.on("$JS.API.STREAM.DELETE.S", lambda _: None if silent else {"success": True}, first=True)
        started = trio.current_time()
        need = [levels.Need("allow_atomic", 2)]
        request = {"name": "S", "allow_atomic": True}
        jetstream = Api(seam(nc))
        with (
            trio.move_on_after(1),
            pytest.raises(errors.APIError, match=r"stream 'S': allow_atomic needs .*left it out$"),
        ):
            await jetstream.configure("stream 'S'", "STREAM.CREATE.S", request, need, undo="STREAM.DELETE.S")
        assert trio.current_time() - started == (2 if silent else 0)
        assert asked(server)[-1] == "STREAM.DELETE.S"


@pytest.mark.parametrize(
    ("call", "deleted"),
    [
        ("create_consumer", True),
        ("add_consumer", False),
        ("update_consumer", False),
        ("create_or_update_consumer", False),
    ],
)
async def test_a_consumer_that_may_have_been_there_is_not_deleted_for_what_an_old_server_leaves_out(
    call: str, deleted: bool
) -> None:
    async with aged(0, permitted=False) as (js, server):

        def create(frame: Frame) -> object:
            config = json.loads(frame.payload)["config"]
            config.pop("priority_groups")
            return {"stream_name": "S", "name": "C", "config": config, "created": "2026-11-29T12:00:00Z"}

        server.on("$JS.API.CONSUMER.CREATE.S.C", create)
        server.on("$JS.API.CONSUMER.DELETE.S.C", lambda _: {"success": True})
        config = api.ConsumerConfig(
            durable_name="C", priority_groups=["g"], priority_policy=api.PriorityPolicy.OVERFLOW
        )
        with pytest.raises(errors.APIError, match=r"consumer 'C' of stream 'S': priority_groups needs"):
            await getattr(js, call)("S", config)
        assert ("CONSUMER.DELETE.S.C" in asked(server)) is deleted


@pytest.mark.parametrize("odd", [{}, {"api": None}, {"api": {"level": "5"}}, {"api": {"level": True}}])
async def test_a_level_that_is_none_is_none(odd: dict[str, Any]) -> None:
    async with aged(5) as (js, server):
        server.on("$JS.API.INFO", lambda _: odd, first=True)
        with pytest.raises(errors.APIError, match="this one has level 0"):
            await js.add_stream(name="S", allow_msg_ttl=True)


async def test_where_the_level_was_refused_it_is_asked_again() -> None:
    async with aged(5, knows=NEWER) as (js, server):
        answers: list[Callable[[], object]] = [
            lambda: {"error": {"code": 503, "err_code": 10008, "description": "system temporarily unavailable"}},
            lambda: {"api": {"level": 5}},
        ]
        server.on("$JS.API.INFO", lambda _: answers.pop(0)(), first=True)
        with pytest.raises(errors.ServiceUnavailableError, match="stream 'S'"):
            await js.add_stream(name="S", allow_msg_ttl=True)
        assert (await js.add_stream(name="S", allow_msg_ttl=True)).config.allow_msg_ttl
