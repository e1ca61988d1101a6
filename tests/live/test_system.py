"""What real servers say of themselves: one, and a cluster of three."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.clusters import Cluster, open_cluster
from tests.worlds import connected, open_live, until
from trionats import Client, SystemClient, errors, open_subscription

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=60)]

ACCOUNTS = """
accounts {
    SYS { users = [{user: sys, password: sys}] }
    A { jetstream: enabled, users = [{user: a, password: a}] }
    B { users = [{user: b, password: b}] }
}
system_account: SYS
"""
SYS: dict[str, Any] = {"user": "sys", "password": "sys"}
A: dict[str, Any] = {"user": "a", "password": "a"}


@asynccontextmanager
async def open_servers() -> AsyncIterator[tuple[Cluster, Client, Client]]:
    """A cluster, who asks it, and a client of account A at its first server."""
    async with (
        open_cluster(ACCOUNTS, jetstream=True) as cluster,
        connected(cluster.servers["n1"], **SYS) as nc,
        connected(cluster.servers["n1"], **A, name="app") as app,
    ):

        async def acquainted() -> bool:
            return len(await SystemClient(nc, stall=0.2).varz()) == 3

        await until(acquainted, within=30, pause=0.02)
        yield cluster, nc, app


async def names_of(system: SystemClient) -> list[str]:
    return [one.server.name for one in await system.varz()]


async def test_one_server_answers_each_kind_of_request() -> None:
    config = f"server_name: alone\nserver_tags: [blue]\n{ACCOUNTS}"
    async with (
        open_live(config, jetstream=True, **SYS) as (server, nc, nursery),
        connected(server, **A, name="app") as app,
        open_subscription(nursery, app, "orders.*", queue="q"),
    ):
        await app.jetstream().add_stream(name="S", subjects=["s"])
        await app.flush()
        system = SystemClient(nc)
        with trio.fail_after(5):
            (varz,) = await system.varz()
            assert (varz.server.id, varz.server_id, varz.version) == (nc.server_id, nc.server_id, nc.server_version)
            assert (varz.server.name, varz.server.tags, varz.tags) == ("alone", ("blue",), ("blue",))
            assert (varz.connections, varz.system_account, varz.mem > 0) == (2, "SYS", True)
            assert varz.start is not None
            assert varz.jetstream.config is not None
            assert varz.ping_interval == 120
            (connz,) = await system.connz(auth=True, subscriptions_detail=True)
            by_name = {one.name: one for one in connz.connections}
            assert (by_name["app"].account, by_name["app"].authorized_user) == ("A", "a")
            assert "orders.*" in [sub.subject for sub in by_name["app"].subscriptions_list_detail]
            (connz,) = await system.connz(account="A")
            assert [one.name for one in connz.connections] == ["app"]
            (connz,) = await system.connz(account="A", filter_subject="orders.new")
            assert connz.total == 1
            (subsz,) = await system.subsz(account="A", subscriptions=True, test="orders.new")
            assert [(sub.subject, sub.qgroup) for sub in subsz.subscriptions_list] == [("orders.*", "q")]
            (jsz,) = await system.jsz(account="A", streams=True, config=True)
            assert (jsz.disabled, jsz.streams) == (False, 1)
            (account,) = jsz.account_details
            assert [(one.name, one.config["subjects"]) for one in account.stream_detail] == [("S", ["s"])]
            (healthz,) = await system.healthz(account="A", stream="S")
            assert (healthz.ok, healthz.status_code) == (True, 200)
            (healthz,) = await system.healthz(account="A", stream="T", details=True)
            assert (healthz.ok, healthz.errors[0].type, healthz.errors[0].stream) == (False, "STREAM", "T")
            (accountz,) = await system.accountz()
            assert set(accountz.accounts) >= {"A", "B", "SYS"}
            (accountz,) = await system.accountz(account="A")
            assert accountz.account_detail is not None
            assert (accountz.account_detail.client_connections, accountz.account_detail.jetstream_enabled) == (1, True)
            (routez,), (gatewayz,), (leafz,) = await system.routez(), await system.gatewayz(), await system.leafz()
            assert (routez.num_routes, gatewayz.outbound_gateways, leafz.leafnodes) == (0, {}, 0)
            with pytest.raises(errors.MonitoringError, match="ACCOUNTZ of server 'alone': Account nope does not exist"):
                await system.accountz(account="nope")


async def test_all_of_a_cluster_answer_and_no_time_is_lost_behind_the_last() -> None:
    async with open_servers() as (_, nc, _):
        slow = SystemClient(nc, stall=30)
        with trio.fail_after(5):
            for answers in (await slow.varz(), await slow.connz(), await slow.jsz(), await slow.healthz()):
                assert [one.server.name for one in answers] == ["n1", "n2", "n3"]
                assert (answers.missing, answers.failed) == (0, ())
            assert [one.num_routes > 0 for one in await slow.routez()] == [True] * 3
            (second,) = await slow.varz(server="n2")
            assert (second.server.name, (await slow.varz(server=second.server.id))[0].server.name) == ("n2", "n2")
            with pytest.raises(errors.NoRespondersError, match="no server is called 'n9'; there are n1, n2, n3"):
                await slow.varz(server="n9")
            assert [one.total for one in await slow.connz(account="A")] == [1, 0, 0]


async def test_a_server_that_crashed_is_missing_and_one_that_was_stopped_is_not() -> None:
    async with open_servers() as (cluster, nc, _):
        system = SystemClient(nc)
        await cluster.servers["n3"].stop()

        async def gone() -> bool:
            answers = await system.varz()
            return (len(answers), answers.missing) == (2, 0)

        await until(gone, within=20, pause=0.05)
        await cluster.servers["n2"].kill()
        with trio.fail_after(10):
            answers = await system.varz()
        assert ([one.server.name for one in answers], answers.missing) == (["n1"], 1)


async def test_who_is_not_of_the_system_account_is_told_so() -> None:
    async with open_live(ACCOUNTS, jetstream=True, **A) as (_, nc, _):
        for call in ("varz", "connz", "jsz", "healthz", "accountz"):
            with pytest.raises(errors.NoRespondersError, match="the user is not of the system account"):
                await getattr(SystemClient(nc), call)()


async def test_more_connections_than_a_page_has_are_all_listed() -> None:
    async with open_live(ACCOUNTS, **SYS) as (server, nc, _):
        host, port = server.url.removeprefix("nats://").split(":")
        streams: list[trio.SocketStream] = []
        try:
            for _ in range(1100):
                stream = await trio.open_tcp_stream(host, int(port))
                await stream.send_all(b'CONNECT {"user":"a","pass":"a"}\r\n')
                streams.append(stream)

            async def there() -> bool:
                return int((await server.monitor("varz"))["connections"]) == 1101

            await until(there, within=20, pause=0.05)
            (connz,) = await SystemClient(nc).connz()
            assert connz.total == connz.num_connections == len({one.cid for one in connz.connections}) == 1101
            (connz,) = await SystemClient(nc).connz(limit=1050)
            assert len(connz.connections) == 1050
        finally:
            for stream in streams:
                await trio.aclose_forcefully(stream)


async def test_filters_choose_servers() -> None:
    config = f"server_name: alone\nserver_tags: [blue]\n{ACCOUNTS}"
    async with open_live(config, **SYS) as (_, nc, _):
        assert await names_of(SystemClient(nc, tags=["blue"], stall=0.1)) == ["alone"]
        with trio.move_on_after(0.3) as scope:
            await SystemClient(nc, tags=["green"]).varz()
        assert scope.cancelled_caught
