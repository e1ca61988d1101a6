"""Servers that are asked how they are, in memory: how many answers are waited for, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio

from tests.fakes import FakeServer, Frame
from tests.worlds import arrived, cut_short, open_world, takes, watched
from trionats import Client, Events, SystemClient, errors, events, open_events

pytestmark = pytest.mark.usefixtures("autojump_clock")

KINDS = ("varz", "connz", "subsz", "routez", "gatewayz", "leafz", "jsz", "healthz", "accountz")


def number_of(name: str) -> str:
    """The id of a server."""
    return "N" + name.upper().translate(str.maketrans("1089", "BCDE")).ljust(55, "A")


class Servers:
    """A cluster of servers: what they say of themselves, and how many of them there are to be."""

    def __init__(self, *names: str, count: int | None = None) -> None:
        self.fake = FakeServer(info={"server_name": names[0], "acc_is_sys": True})
        self.names = names
        self.count = len(names) if count is None else count
        #: What each says: its data, or all of its answer if that has an error; bytes are as they are; None is nothing.
        self.says: Callable[[str, str, dict[str, Any]], Any] = lambda name, kind, options: {"server_name": name}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fake.on("$SYS.REQ.>", self._answer)

    def _answer(self, frame: Frame) -> None:
        self.asked.append((frame.subject, options := json.loads(frame.payload or b"{}")))
        _, _, about, whom, kind = frame.subject.split(".")
        for name in self.names:
            if about == "SERVER" and whom not in ("PING", number_of(name)):
                continue
            if options.get("server_name", name) != name:
                continue
            said = self._said(name, kind, options)
            if said is not None:
                self.fake.publish(frame.reply, said if isinstance(said, bytes) else json.dumps(said).encode())

    def _said(self, name: str, kind: str, options: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        server = {"name": name, "id": number_of(name)}
        if kind == "IDZ":
            return server
        if kind == "STATSZ":
            return {"server": server, "statsz": {"active_servers": self.count}}
        said = self.says(name, kind, options)
        if said is None or isinstance(said, bytes):
            return said
        return {"server": server, **said} if "error" in said else {"server": server, "data": said}


class AskedServers(NamedTuple):
    servers: Servers
    system: SystemClient
    told: Events
    nc: Client


@asynccontextmanager
async def asked(servers: Servers, **options: Any) -> AsyncIterator[AskedServers]:  # noqa: ANN401 - any option
    async with open_world(servers.fake) as (_, nc, nursery), open_events(nursery, nc) as told:
        yield AskedServers(servers, SystemClient(nc, **options), told, nc)


@pytest.mark.parametrize("kind", KINDS)
async def test_all_are_asked_and_the_last_answer_ends_it(kind: str) -> None:
    async with asked(Servers("n2", "n1", "n3")) as w:
        with takes(0):
            answers = await getattr(w.system, kind)()
        assert [one.server.name for one in answers] == ["n1", "n2", "n3"]
        assert (answers.failed, answers.missing) == ((), 0)
        assert w.servers.asked[-1][0] == f"$SYS.REQ.SERVER.PING.{kind.upper()}"


@pytest.mark.parametrize("kind", KINDS)
async def test_one_is_asked_by_its_name_or_its_id(kind: str) -> None:
    async with asked(Servers("n1", "n2", "n3")) as w:
        for server in ("n2", number_of("n2")):
            with takes(0):
                (one,) = await getattr(w.system, kind)(server=server)
            assert one.server.name == "n2"
            assert w.servers.asked[-1][0] == f"$SYS.REQ.SERVER.{number_of('n2')}.{kind.upper()}"


async def test_one_that_is_silent_is_waited_for_until_it_is_quiet_and_counted() -> None:
    async with asked(Servers("n1", "n2", count=4)) as w:
        with takes(1):
            answers = await w.system.varz()
        assert (len(answers), answers.missing) == (2, 2)
        with takes(3):
            await SystemClient(w.nc, stall=3).varz()
        with takes(0.5), trio.move_on_after(0.5):
            assert len(await w.system.varz()) == 2


async def test_with_filters_it_is_not_known_how_many_there_are() -> None:
    async with asked(Servers("n1", "n2"), cluster="c", tags=["a"], stall=0.25) as w:
        with takes(0.25):
            answers = await w.system.varz()
        assert answers.missing is None
        assert w.servers.asked[-1][1] == {"cluster": "c", "tags": ["a"], "exact_match": True}


async def test_where_the_number_may_not_be_asked_it_ends_when_it_is_quiet() -> None:
    servers = Servers("n1", "n2")
    servers.fake.deny_publish = ("$SYS.REQ.SERVER.PING.STATSZ",)
    async with asked(servers) as w:
        with takes(1):
            answers = await w.system.varz()
        assert (len(answers), answers.missing) == (2, None)


async def test_one_that_fails_is_told_beside_those_that_answer() -> None:
    servers = Servers("n1", "n2", "n3")
    servers.says = lambda name, *_: {"error": {"code": 500, "description": "no"}} if name == "n2" else {"mem": 1}
    async with asked(servers) as w:
        answers = await w.system.varz()
        assert [one.server.name for one in answers] == ["n1", "n3"]
        assert [(error.server, error.code, str(error)) for error in answers.failed] == [
            ("n2", 500, "VARZ of server 'n2': no (500)")
        ]
        with pytest.raises(errors.MonitoringError, match="VARZ of server 'n2': no"):
            await w.system.varz(server="n2")
        servers.says = lambda *_: {"error": {"code": 500, "description": "no"}}
        with pytest.raises(errors.MonitoringError, match="VARZ of server 'n1': no"):
            await w.system.varz()


async def test_an_answer_that_cannot_be_read_harms_only_itself_and_is_told() -> None:
    servers = Servers("n1", "n2", "n3")
    servers.says = lambda name, *_: b"nonsense" if name == "n2" else {"mem": "x"} if name == "n3" else {"mem": 1}
    async with asked(servers) as w:
        with takes(0):
            answers = await w.system.varz()
        assert ([one.server.name for one in answers], answers.missing) == (["n1"], 0)
        skipped = arrived(w.told, events.ForeignDataSkipped)
        assert [event.where for event in skipped] == ["answers to VARZ"], "once an episode"
        with pytest.raises(errors.MonitoringError, match="cannot be read"):
            await w.system.varz(server="n2")


async def test_who_is_not_of_the_system_account_is_told_so_whatever_is_asked() -> None:
    async with open_world() as (_, nc, _):
        for kind in KINDS:
            with pytest.raises(errors.NoRespondersError, match="the user is not of the system account"):
                await getattr(SystemClient(nc), kind)()
        with pytest.raises(errors.NoRespondersError, match=r"there is no server N.*, or the user is not of the system"):
            await SystemClient(nc).varz(server=number_of("n1"))


async def test_a_server_that_is_not_there_is_named_with_those_that_are() -> None:
    async with asked(Servers("n1", "n2")) as w:
        with takes(0), pytest.raises(errors.NoRespondersError, match=r"no server is called 'n7'; there are n1, n2$"):
            await w.system.varz(server="n7")


async def test_where_nobody_answers_it_is_a_timeout_or_the_deadline() -> None:
    servers = Servers("n1")
    servers.says = lambda *_: None
    async with asked(servers) as w:
        with takes(5), pytest.raises(errors.TimeoutError, match="VARZ of all servers: no answer within 5 s"):
            await w.system.varz()
        await cut_short(w.system.varz, after=2)


async def test_the_connections_of_each_server_come_in_pages_and_are_one_list() -> None:
    there = {"n1": range(1, 2500), "n2": range(3)}

    def says(name: str, _: str, options: dict[str, Any]) -> dict[str, Any]:
        offset, limit = options.get("offset", 0), options.get("limit", 1024)
        page = [{"cid": cid} for cid in there[name][offset : offset + min(limit, 1024)]]
        return {"total": len(there[name]), "num_connections": len(page), "connections": page}

    servers = Servers("n1", "n2")
    servers.says = says
    async with asked(servers) as w:
        first, second = await w.system.connz(account="A")
        assert [one.cid for one in first.connections] == list(there["n1"])
        assert first.num_connections == 2499
        assert [one.cid for one in second.connections] == list(there["n2"])
        pages = [
            (subject, options["offset"], options["acc"]) for subject, options in w.servers.asked if "offset" in options
        ]
        one = f"$SYS.REQ.SERVER.{number_of('n1')}.CONNZ"
        assert pages == [(one, 1023, "A"), (one, 2046, "A")]
        some = await w.system.connz(limit=1500)
        assert [len(one.connections) for one in some] == [1500, 3]
        assert w.servers.asked[-2][1]["limit"] == 1500


async def test_a_list_whose_next_page_fails_is_no_answer() -> None:
    def says(name: str, _: str, options: dict[str, Any]) -> dict[str, Any]:
        if "offset" in options:
            return {"error": {"code": 500, "description": "later"}}
        return {"total": 5 if name == "n2" else 1, "connections": [{"cid": 1}]}

    servers = Servers("n1", "n2")
    servers.says = says
    async with asked(servers) as w:
        answers = await w.system.connz()
        assert [one.server.name for one in answers] == ["n1"]
        assert [str(error) for error in answers.failed] == ["CONNZ of server 'n2': later (500)"]


async def test_only_the_leader_answers_who_asks_for_it_and_nobody_else_is_waited_for() -> None:
    servers = Servers("n1", "n2", "n3")
    servers.says = lambda name, *_: {"streams": 1} if name == "n2" else None
    async with asked(servers) as w:
        with takes(0):
            (leader,) = await w.system.jsz(leader_only=True)
        assert leader.server.name == "n2"


async def test_what_cannot_be_meant_is_refused_before_anything_is_sent() -> None:
    async with asked(Servers("n1")) as w:
        for call, text in (
            (lambda: w.system.connz(sort="stop"), "state='closed'"),
            (lambda: w.system.healthz(stream="S"), "account"),
            (lambda: w.system.subsz(limit=-1), "limit"),
            (lambda: w.system.varz(server=""), "server is empty"),
        ):
            with pytest.raises(ValueError, match=text):
                await call()
        with pytest.raises(TypeError, match="varz: server must be text"):
            await w.system.varz(server=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"varz\(\) takes no timeout: .*await system\.varz"):
            await w.system.varz(timeout=1)  # type: ignore[arg-type]
        assert not w.servers.asked
        for options, error in (({"stall": 0}, ValueError), ({"stall": "x"}, TypeError), ({"cluster": ""}, ValueError)):
            with pytest.raises(error, match="SystemClient: "):
                SystemClient(w.nc, **options)
    for wrong in (None, 3, FakeServer()):
        with pytest.raises(TypeError, match=r"SystemClient\(nc, ...\): nc must be a Client, not "):
            SystemClient(wrong)  # type: ignore[arg-type]


async def test_a_connection_that_breaks_fails_it() -> None:
    servers = Servers("n1", "n2")

    def cut(*_: object) -> None:
        servers.fake.cut()

    servers.says = cut
    async with watched(servers.fake) as (_, nc, _):
        with pytest.raises(errors.DisconnectedError):
            await SystemClient(nc).varz()
