"""Finding services, in memory: when it ends, and what is made of what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.fakes import FakeServer, Frame
from tests.worlds import arrived, open_world, settled, takes, watched
from trionats import ServiceClient, api, errors, events, open_service

pytestmark = pytest.mark.usefixtures("autojump_clock")


def saying(*answers: object, server: FakeServer | None = None) -> FakeServer:
    """Have services answer whatever they are asked."""
    server = server or FakeServer()

    def answer(frame: Frame) -> None:
        for said in answers:
            server.publish(frame.reply, said if isinstance(said, bytes) else json.dumps(said).encode())

    server.on("$SRV.>", answer)
    return server


def who(instance: str, **said: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {"name": "s", "id": instance, "version": "1.0.0", **said}


@pytest.mark.parametrize("verb", ["ping", "info", "stats"])
async def test_answers_are_collected_until_they_stall_and_come_by_name_and_id(verb: str) -> None:
    async with open_world(saying(who("2"), who("1"), who("1"))) as (server, nc, _):
        with takes(0.3):
            found = await getattr(ServiceClient(nc), verb)()
        assert [(one.name, one.id) for one in found] == [("s", "1"), ("s", "2")]
        with takes(2):
            await getattr(ServiceClient(nc, stall=2), verb)("s")
        with takes(0):
            (one,) = await getattr(ServiceClient(nc), verb)("s", "2")
        assert one.id == "2"
        asked = [frame.subject for frame in server.frames if frame.verb == "PUB"]
        assert asked == [f"$SRV.{verb.upper()}", f"$SRV.{verb.upper()}.s", f"$SRV.{verb.upper()}.s.2"]


async def test_services_of_two_names_may_have_the_same_id() -> None:
    async with open_world(saying(who("1"), {**who("1"), "name": "r"})) as (_, nc, _):
        assert [(one.name, one.id) for one in await ServiceClient(nc).ping()] == [("r", "1"), ("s", "1")]


async def test_where_there_is_no_service_the_list_is_empty_at_once() -> None:
    async with open_world() as (_, nc, _):
        with takes(0):
            assert await ServiceClient(nc).ping() == []
            assert await ServiceClient(nc).stats("s", "1") == []


async def test_a_deadline_ends_it_with_what_has_come() -> None:
    async with open_world(saying(who("1"))) as (_, nc, _):
        with takes(1), trio.move_on_after(1):
            assert len(await ServiceClient(nc, stall=60).ping()) == 1
        with takes(5):
            assert len(await ServiceClient(nc, stall=60).ping()) == 1
    async with open_world(saying()) as (_, nc, _):
        with takes(5):
            assert await ServiceClient(nc).ping() == [], "somebody listens, and says nothing"


async def test_a_broken_answer_harms_only_itself_and_is_told() -> None:
    server = saying(who("1"), b"nonsense", who("2", type="other"), {"name": 1}, who("3"))
    async with watched(server) as (_, nc, told):
        assert [one.id for one in await ServiceClient(nc).ping()] == ["1", "3"]
        skipped = arrived(told, events.ForeignDataSkipped)
        assert [event.where for event in skipped] == ["answers to $SRV.PING"], "once an episode"


async def test_another_prefix_is_asked() -> None:
    server = FakeServer()
    server.on("b.$SRV.PING", lambda frame: server.publish(frame.reply, json.dumps(who("1")).encode()) and None)
    async with open_world(server) as (_, nc, _):
        assert [one.id for one in await ServiceClient(nc, prefix="b.$SRV").ping()] == ["1"]


async def test_who_may_not_ask_is_told() -> None:
    async with open_world(FakeServer(deny_publish=("$SRV.>",))) as (_, nc, _):
        with takes(0), pytest.raises(errors.PermissionsViolationError, match=r"\$SRV\.PING"):
            await ServiceClient(nc).ping()


async def test_our_own_service_is_found() -> None:
    async with (
        open_world() as (_, nc, nursery),
        open_service(nursery, nc, "mine", "1.2.3", description="d", metadata={"a": "b"}) as service,
    ):
        await settled()
        client = ServiceClient(nc)
        assert await client.ping() == [api.ServicePing("mine", service.id, "1.2.3", {"a": "b"})]
        assert await client.info("mine") == [service.info()]
        (stats,) = await client.stats("mine", service.id)
        assert stats == service.stats()


async def test_what_cannot_be_meant_is_refused_before_anything_is_sent() -> None:
    async with open_world() as (server, nc, _):
        client = ServiceClient(nc)
        for arguments, error, text in (
            (("a.b",), ValueError, "ping: name 'a.b'"),
            (("",), ValueError, "ping: name ''"),
            ((3,), TypeError, "ping: name must be text"),
            ((None, "1"), ValueError, "ping: id needs the name"),
            (("s", "a.*"), ValueError, r"ping: id 'a\.\*'"),
        ):
            with pytest.raises(error, match=text):
                await client.ping(*arguments)
        with pytest.raises(TypeError, match=r"ping\(\) takes no timeout: .*services\.ping"):
            await client.ping(timeout=1)  # type: ignore[arg-type]
        options: tuple[tuple[dict[str, Any], type[Exception]], ...] = (
            ({"stall": 0}, ValueError),
            ({"stall": "x"}, TypeError),
            ({"prefix": 3}, TypeError),
            ({"prefix": "a.*"}, ValueError),
            ({"prefix": ""}, ValueError),
        )
        for wrong, kind in options:
            with pytest.raises(kind, match="ServiceClient: "):
                ServiceClient(nc, **wrong)
        with pytest.raises(TypeError, match=r"ServiceClient\(nc, ...\): nc must be a Client, not NoneType"):
            ServiceClient(None)  # type: ignore[arg-type]
        await nc.flush()
        assert not server.sent("PUB")
