"""Members of partitioned consumer groups against a server in memory: what is refused, and how one consumer follows another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio

from tests.fake_jetstream import FakeKeyValue, FakeStream, refusal
from tests.fakes import FakeServer
from tests.worlds import open_world
from trionats import Client, Feed, JetStream, JetStreamMsg, errors, open_partition

pytestmark = pytest.mark.usefixtures("autojump_clock")


class GroupWorld(NamedTuple):
    """An elastic group `g` of the stream `S`, with one member."""

    server: FakeServer
    groups: FakeKeyValue
    queue: FakeStream
    js: JetStream
    nc: Client
    nursery: trio.Nursery

    def set(self, *members: str, **fields: Any) -> None:  # noqa: ANN401 - whatever stands there
        self.groups.set("S.g", json.dumps({"max_members": 2, "members": members, **fields}).encode())

    def open(self, member: str = "m") -> Any:  # noqa: ANN401 - what opens it
        return open_partition(self.nursery, self.js, "S", "g", member, elastic=True)


@asynccontextmanager
async def open_group(*members: str) -> AsyncIterator[GroupWorld]:
    server = FakeServer()
    async with open_world(server) as (_, nc, nursery):
        groups, queue = FakeKeyValue(server, "elastic-consumer-groups"), FakeStream(server, "S-g", timed=True)
        w = GroupWorld(server, groups, queue, nc.jetstream(), nc, nursery)
        w.set(*members)
        yield w


async def test_a_server_that_is_too_old_is_told_so_before_anything_is_stored() -> None:
    async with open_group("m") as w:
        w.groups.level = 0
        text = r"elastic group 'g' of stream 'S': a partitioned consumer group needs a server of 2\.11 or later"
        with pytest.raises(errors.APIError, match=text):
            async with w.open():
                pass
        with pytest.raises(errors.APIError, match=text):
            await w.js.create_group("S", "g", 2, elastic=True)
        assert [frame.subject for frame in w.server.sent("PUB")] == ["$JS.API.INFO"]


async def test_a_server_of_2_11_makes_no_partitions_of_whole_subjects() -> None:
    async with open_group("m") as w:
        w.groups.level = 1
        filters: Any
        for filters in ((), "s.*", {"s.*.*": [1], "t.*": []}):
            with pytest.raises(
                errors.APIError, match=r"without partitioning wildcards needs a server of 2\.12 or later"
            ):
                await w.js.create_group("S", "g", 2, elastic=True, filters=filters)
        assert [frame.subject for frame in w.server.sent("PUB")] == ["$JS.API.INFO"]


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((7, "S", "g", "m"), {}, "js must be a JetStream, not int"),
        (("js", 7, "g", "m"), {}, "stream 7: it must be text"),
        (("js", "S", 7, "m"), {}, "group must be text, not int"),
        (("js", "S", "g", 7), {}, "member must be text, not int"),
        (("js", "S", "g", "m"), {"elastic": "yes"}, "elastic must be True or False, not str"),
        (
            ("js", "S", "g", "m"),
            {"timeout": 1},
            r"open_partition\(\) takes no timeout: deadlines are cancel scopes",
        ),
    ],
)
async def test_what_is_no_argument_is_refused_before_anything_is_asked(
    arguments: tuple[Any, ...], options: dict[str, Any], text: str
) -> None:
    async with open_group() as w:
        given: Any = [w.js if argument == "js" else argument for argument in arguments]
        with pytest.raises(TypeError, match=text):
            async with open_partition(w.nursery, *given, **options):
                pass
        assert not w.server.sent("PUB")


@pytest.mark.parametrize("call", ["create_group", "delete_group", "add_members", "drop_members"])
async def test_a_call_has_no_timeout_and_names_a_member_that_cannot_be(call: str) -> None:
    async with open_group() as w:
        more: tuple[Any, ...] = {"create_group": (2,), "delete_group": ()}.get(call, ("m",))
        with pytest.raises(TypeError, match=f"{call}.. takes no timeout"):
            await getattr(w.js, call)("S", "g", *more, timeout=1)
        if "members" in call:
            with pytest.raises(ValueError, match=f"{call}: members 'a b'"):
                await getattr(w.js, call)("S", "g", ["a b"])
        assert not w.server.sent("PUB")


async def test_a_message_on_its_way_to_who_waits_is_received_or_given_back_when_its_partition_is_lost() -> None:
    """It has left the channel, and nobody has it yet, when the member hears that it is another's: which of both comes first, Trio says."""
    outcomes = set()
    for _ in range(20):
        async with open_group("m") as w, w.open() as rx:
            seen: list[JetStreamMsg] = []

            async def receive(rx: Feed[JetStreamMsg], seen: list[JetStreamMsg]) -> None:
                async for msg in rx:
                    seen.append(msg)
                    await trio.sleep(1)
                    await msg.ack()

            w.nursery.start_soon(receive, rx, seen)
            await trio.sleep(1)
            consumer = w.queue.consumers["m"]
            w.queue.store("1.s.a", b"", rollup=False)
            w.set("m", "n")
            await trio.sleep(0.5)
            outcomes.add(bool(seen))
            if seen:
                assert w.queue.consumers["m"] is consumer, "not before there is a verdict"
            await trio.sleep(2)
            assert consumer.verdicts.get(1, [])[:1] == ([b"+ACK"] if seen else [b"-NAK"])
            assert w.queue.consumers["m"].config["filter_subjects"] == ["0.>"]
            # Nothing is out of step after that.
            w.queue.store("0.s.b", b"", rollup=False)
            await trio.sleep(2)
            assert [msg.subject for msg in seen][-1:] == ["s.b"]
            w.nursery.cancel_scope.cancel()
    assert outcomes == {True, False}


async def test_a_stream_that_is_gone_ends_it() -> None:
    async with open_group("m") as w:
        w.server.on("$JS.API.CONSUMER.INFO.S-g.m", lambda _: refusal(404, 10059, "stream not found"), first=True)
        async with w.open() as rx:
            with pytest.raises(errors.NotFoundError, match="stream not found"):
                await rx.receive()


async def test_what_nobody_answers_and_what_fails_for_a_moment_is_asked_again() -> None:
    async with open_group("m") as w:
        answers: list[Any] = [None, refusal(503, 10008, "no leader"), refusal(404, 10014, "consumer not found")]
        w.server.on("$JS.API.CONSUMER.INFO.S-g.m", lambda _: answers.pop(0), first=True)
        w.queue.store("1.s.a", b"x", rollup=False)
        async with w.open() as rx:
            msg = await rx.receive()
            assert msg.subject == "s.a"
            await msg.ack()
        assert answers == []


async def test_a_bucket_that_is_gone_ends_it_as_a_group_that_is() -> None:
    async with open_group("m") as w, w.open("nobody") as rx:
        await trio.sleep(1)
        for subject in ("STREAM.INFO.KV_elastic-consumer-groups", "CONSUMER.CREATE.KV_elastic-consumer-groups.>"):
            w.server.on(f"$JS.API.{subject}", lambda _: refusal(404, 10059, "stream not found"), first=True)
        for name in list(w.groups.consumers):
            w.groups.delete_consumer(name)
        with pytest.raises(errors.GroupNotFoundError, match="it was deleted"):
            await rx.receive()
