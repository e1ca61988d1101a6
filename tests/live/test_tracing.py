"""Tracing a message over real servers: one, a cluster, a leaf node, accounts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.clusters import NODES, Cluster, make_replicated_stream, open_cluster
from tests.worlds import arrived, connected, open_live, open_world, unique, until
from trionats import SystemClient, api, errors, monitoring, open_subscription, trace_headers
from trionats.monitoring import ConnectionKind
from trionats.testing import TrioNatsServer, open_server
from trionats.testing._server import free_port

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=60)]


async def test_who_gets_a_message_is_told_and_that_nobody_does(nats_server: TrioNatsServer) -> None:
    a, q = unique("a"), unique("q")
    async with (
        open_world(nats_server, name="asker") as (_, nc, nursery),
        connected(nats_server, name="one") as one,
        connected(nats_server, name="two", no_echo=True) as two,
        open_subscription(nursery, one, f"{a}.*") as rx,
        open_subscription(nursery, one, f"{a}.>", queue=q) as of_queue,
        open_subscription(nursery, two, f"{a}.own"),
    ):
        await one.flush()
        await two.flush()
        trace = await nc.trace(f"{a}.b", b"hello", {"Mine": "1"})
        assert trace.complete
        (hop,) = trace.hops
        assert (hop.id, hop.server.id, hop.server.version) == ("", nc.server_id, nc.server_version)
        assert hop.headers["Mine"] == ("1",)
        assert hop.ingress is not None
        assert (hop.ingress.name, hop.ingress.cid, hop.ingress.subject) == ("asker", nc.client_id, f"{a}.b")
        assert {(to.name, to.subscription, to.queue) for to in trace.deliveries} == {
            ("one", f"{a}.*", ""),
            ("one", f"{a}.>", q),
        }
        assert all(to.time is not None for to in trace.deliveries)
        await one.flush()
        assert [msg.data for msg in (*arrived(rx), *arrived(of_queue))] == [b"hello", b"hello"]
        own = await two.trace(f"{a}.own")
        assert {(to.name, to.error) for to in own.hops[0].egress} == {
            ("one", ""),
            ("two", "Not delivered because of no echo"),
        }
        assert own.errors == ("Not delivered because of no echo",)
        nobody = await nc.trace(unique("nobody"))
        assert (len(nobody.hops), nobody.deliveries, nobody.complete) == (1, (), True)


async def test_what_is_only_traced_is_neither_delivered_nor_stored(nats_server: TrioNatsServer) -> None:
    s = unique("s")
    async with (
        open_world(nats_server) as (_, nc, nursery),
        open_subscription(nursery, nc, f"{s}.*") as rx,
    ):
        js = nc.jetstream()
        await js.add_stream(name=s, subjects=[f"{s}.*"], storage=api.StorageType.MEMORY, max_msgs=1, discard="new")
        for only, count in ((True, 0), (False, 1)):
            trace = await nc.trace(f"{s}.a", b"x", only=only)
            assert [(one.stream, one.subject, one.stored) for one in trace.streams] == [(s, f"{s}.a", True)]
            assert trace.only is only
            assert len(trace.deliveries) == 1
            assert (await js.stream_info(s)).state.messages == count
            assert len(arrived(rx)) == count
        full = await nc.trace(f"{s}.a", b"x", only=True)
        assert full.streams[0].stored, "a limit is found out only when it is stored"
        full = await nc.trace(f"{s}.a", b"x")
        assert [(one.stored, one.error) for one in full.streams] == [(False, "maximum messages exceeded")]
        await js.delete_stream(s)


async def test_why_a_stream_does_not_store_is_told(nats_server: TrioNatsServer) -> None:
    s = unique("s")
    async with open_world(nats_server) as (_, nc, _):
        js = nc.jetstream()
        await js.add_stream(name=s, subjects=[s], storage=api.StorageType.MEMORY, retention="interest")
        for only in (True, False):
            (seen,) = (await nc.trace(s, only=only)).streams
            assert (seen.no_interest, seen.stored, seen.error) == (True, False, "")
            expected = {"Nats-Expected-Last-Sequence": "7"}
            (seen,) = (await nc.trace(s, headers=expected, only=only)).streams
            assert not seen.stored
            assert "last sequence mismatch" in seen.error
        await js.delete_stream(s)


async def test_a_trace_leaves_no_subscription_and_asks_for_no_answer(nats_server: TrioNatsServer) -> None:
    subject = unique("svc")
    async with (
        open_world(nats_server, name=subject) as (_, nc, nursery),
        open_subscription(nursery, nc, subject) as rx,
    ):
        await nc.trace(subject)
        await nc.flush()
        before = await nats_server.subscriptions(subject)
        assert len(before) == 2, "one of them is the inbox of all requests"
        assert (await nc.trace(subject)).complete
        assert [(await rx.receive()).reply for _ in range(2)] == ["", ""]
        await nc.flush()
        assert await nats_server.subscriptions(subject) == before


async def test_mappings_of_an_account_are_told() -> None:
    async with open_live("mappings { old: new }") as (_, nc, nursery), open_subscription(nursery, nc, "new") as rx:
        await nc.flush()
        (hop,) = (await nc.trace("old")).hops
        assert hop.events[1] == monitoring.TraceSubjectMapping(time=hop.events[1].time, to="new")
        assert (await rx.receive()).subject == "new"


ACCOUNTS = """
accounts {
    A { users = [{user: a, password: a}], exports = [{stream: "ticker.>"}]
        imports = [{service: {account: B, subject: "add"}, to: "sum"}, {service: {account: B, subject: "dark"}}] }
    B { users = [{user: b, password: b}], exports = [{service: "add", allow_trace: true}, {service: "dark"}]
        imports = [{stream: {account: A, subject: "ticker.>"}, prefix: "from_a", allow_trace: true}] }
}
"""


async def test_services_and_streams_of_other_accounts_are_followed_where_they_allow_it() -> None:
    async with (
        open_live(ACCOUNTS, user="a", password="a", name="a") as (server, nc, nursery),
        connected(server, user="b", password="b", name="b") as other,
        open_subscription(nursery, other, "add"),
        open_subscription(nursery, other, "dark"),
        open_subscription(nursery, other, "from_a.ticker.>"),
    ):
        await other.flush()
        service = await nc.trace("sum")
        assert [
            (e.account, e.origin, e.to) for e in service.hops[0].events if isinstance(e, monitoring.TraceServiceImport)
        ] == [("B", "sum", "add")]
        assert [(to.name, to.account, to.subscription) for to in service.deliveries] == [("b", "B", "add")]
        dark = await nc.trace("dark")
        assert dark.complete
        assert not dark.deliveries
        stream = await nc.trace("ticker.x")
        assert [(e.account, e.to) for e in stream.hops[0].events if isinstance(e, monitoring.TraceStreamExport)] == [
            ("B", "from_a.ticker.x")
        ]
        assert [to.account for to in stream.deliveries] == ["B"]


@pytest.mark.level(2)
async def test_who_may_not_publish_and_whose_inbox_may_not_be_reported_to_are_told() -> None:
    inbox = json.dumps("_INBOX.>")
    users = f"""authorization {{ users = [
        {{user: boss, password: b0ss}}
        {{user: guest, password: guest, permissions: {{publish: {{allow: ["a", {inbox}]}}, subscribe: {inbox}}}}}
        {{user: mute, password: mute, permissions: {{publish: {{allow: ["a"]}}, subscribe: {inbox}}}}}
    ] }}"""
    async with (
        open_live(users, user="boss", password="b0ss") as (server, nc, nursery),
        connected(server, user="guest", password="guest") as guest,
        connected(server, user="mute", password="mute") as mute,
        open_subscription(nursery, nc, ">") as rx,
    ):
        await nc.flush()
        assert len((await guest.trace("a", only=True)).deliveries) == 1
        with (
            trio.fail_after(3),
            pytest.raises(errors.PermissionsViolationError, match=r"trace to 'secret'.*\"secret\""),
        ):
            await guest.trace("secret")
        with trio.fail_after(3), pytest.raises(errors.PermissionsViolationError, match=r"trace to 'a'.*\"_INBOX\."):
            await mute.trace("a")
        for one in (guest, mute):
            await one.flush()
        await nc.flush()
        assert not [msg for msg in arrived(rx) if not msg.subject.startswith("_INBOX.")], "nothing got through"


async def test_over_a_cluster_it_ends_by_itself_when_each_server_has_reported() -> None:
    async with (
        open_cluster(jetstream=True) as cluster,
        open_world(cluster.servers["n1"], name="asker") as (_, nc, nursery),
        connected(cluster.servers["n2"], name="two") as two,
        connected(cluster.servers["n3"], name="three") as three,
        open_subscription(nursery, two, "s.*"),
        open_subscription(nursery, three, "s.*"),
    ):
        await make_replicated_stream(nc)
        await cluster.hear_of("s.*")
        leader = (await nc.jetstream().stream_info("S")).cluster
        assert leader is not None
        for only in (True, False):
            # The sooner it ends the better it knows that it is over: the quiet time would be ten seconds.
            with trio.fail_after(5):
                trace = await nc.trace("s.a", b"x", only=only, stall=10)
            assert trace.complete
            assert trace.hops[0].server.name == "n1"
            assert {hop.server.name for hop in trace.hops} == set(NODES)
            assert {to.name for to in trace.deliveries} == {"two", "three"}
            assert {to.kind for to in trace.hops[0].egress} == {ConnectionKind.ROUTER}
            (hop,) = [hop for hop in trace.hops if any(isinstance(e, monitoring.TraceJetStream) for e in hop.events)]
            assert hop.server.name == leader.leader
            assert trace.streams[0].stored
        assert (await nc.jetstream().stream_info("S")).state.messages == 1


async def test_a_server_that_is_frozen_is_named_after_the_quiet_time() -> None:
    async with (
        open_cluster() as cluster,
        open_world(cluster.servers["n1"]) as (_, nc, nursery),
        connected(cluster.servers["n2"]) as two,
        connected(cluster.servers["n3"]) as three,
        open_subscription(nursery, two, "a"),
        open_subscription(nursery, three, "a"),
    ):
        await cluster.hear_of("a")
        cluster.servers["n3"].pause()
        try:
            with trio.fail_after(5):
                trace = await nc.trace("a", stall=0.5)
        finally:
            cluster.servers["n3"].resume()
        (gone,) = [to for to in trace.hops[0].egress if to.name == "n3"]
        assert trace.missing == (gone.hop,)
        assert {hop.server.name for hop in trace.hops} == {"n1", "n2"}


@asynccontextmanager
async def open_two_clusters(config: str = "") -> AsyncIterator[tuple[TrioNatsServer, TrioNatsServer]]:
    """A server in each of two clusters that know each other by a gateway."""
    ports = {"east": free_port(), "west": free_port()}
    remotes = ", ".join(f'{{name: {name}, url: "nats://127.0.0.1:{port}"}}' for name, port in ports.items())

    def of(name: str) -> str:
        gateway = f'gateway {{ name: {name}, listen: "127.0.0.1:{ports[name]}", gateways: [{remotes}] }}'
        return f"server_name: {name}1\n{config}\n{gateway}"

    async with open_server(of("east")) as east, open_server(of("west")) as west:

        async def acquainted() -> bool:
            told = [await one.monitor("gatewayz") for one in (east, west)]
            return all(one["outbound_gateways"] and one["inbound_gateways"] for one in told)

        await until(acquainted, within=30, pause=0.02)
        yield east, west


async def test_a_gateway_to_another_cluster_is_followed() -> None:
    async with (
        open_two_clusters() as (east, west),
        open_world(east) as (_, nc, nursery),
        connected(west, name="far") as far,
        open_subscription(nursery, far, "a"),
    ):

        async def acquainted() -> bool:
            return len((await nc.trace("a", only=True, stall=0.2)).hops) == 2

        # Servers learn of subscriptions behind a gateway in their own time.
        await until(acquainted, within=30, pause=0.02)
        for _ in range(20):
            with trio.fail_after(5):
                trace = await nc.trace("a", stall=10)
            assert trace.complete
        assert [(hop.id, hop.server.name, hop.server.cluster) for hop in trace.hops] == [
            ("", "east1", "east"),
            ("1", "west1", "west"),
        ]
        assert [(to.kind, to.name) for to in trace.hops[0].egress] == [(ConnectionKind.GATEWAY, "west1")]
        assert [to.name for to in trace.deliveries] == ["far"]
        assert "==> gateway 'west1'" in str(trace)


async def test_servers_of_other_clusters_are_asked_how_they_are_too() -> None:
    accounts = "accounts { SYS { users = [{user: sys, password: sys}] } }\nsystem_account: SYS"
    async with open_two_clusters(accounts) as (east, _), connected(east, user="sys", password="sys") as nc:

        async def both() -> bool:
            return len(await SystemClient(nc, stall=0.2).varz()) == 2

        await until(both, within=30, pause=0.02)
        with trio.fail_after(5):
            answers = await SystemClient(nc, stall=10).gatewayz()
        assert [(one.server.cluster, list(one.outbound_gateways)) for one in answers] == [
            ("east", ["west"]),
            ("west", ["east"]),
        ]
        assert answers.missing == 0
        (west,) = await SystemClient(nc, stall=0.3, cluster="west").varz()
        assert west.server.name == "west1"


@asynccontextmanager
async def open_leaf(cluster: Cluster, port: int) -> AsyncIterator[TrioNatsServer]:
    config = f'server_name: leaf\nleafnodes {{ remotes: [{{ url: "nats-leaf://127.0.0.1:{port}" }}] }}'
    async with open_server(config) as leaf:

        async def known() -> bool:
            return bool((await cluster.servers["n3"].monitor("leafz"))["leafnodes"])

        await until(known, within=30, pause=0.02)
        yield leaf


async def test_a_leaf_node_behind_a_server_of_the_cluster_is_followed_there_and_back() -> None:
    port = free_port()

    class WithLeaf(Cluster):
        def config(self, name: str) -> str:
            listen = f'leafnodes {{ listen: "127.0.0.1:{port}" }}\n' if name == "n3" else ""
            return super().config(name) + listen

    async with (
        open_cluster(WithLeaf()) as cluster,
        open_leaf(cluster, port) as leaf,
        open_world(cluster.servers["n1"]) as (_, nc, nursery),
        connected(leaf, name="far") as far,
        open_subscription(nursery, far, "a"),
        open_subscription(nursery, nc, "b"),
    ):
        await cluster.hear_of("a")
        with trio.fail_after(5):
            trace = await nc.trace("a", stall=10)
        assert [(hop.id, hop.server.name) for hop in trace.hops] == [("", "n1"), ("1", "n3"), ("1.1", "leaf")]
        assert [to.name for to in trace.deliveries] == ["far"]
        assert [hop.ingress.kind for hop in trace.hops if hop.ingress] == [
            ConnectionKind.CLIENT,
            ConnectionKind.ROUTER,
            ConnectionKind.LEAF,
        ]
        await nc.flush()

        async def interest() -> bool:
            return "b" in str(await leaf.monitor("leafz?subs=1"))

        await until(interest, within=30, pause=0.02)
        with trio.fail_after(5):
            trace = await far.trace("b", stall=10)
        assert [hop.server.name for hop in trace.hops] == ["leaf", "n3", "n1"]
        assert "~~> leaf 'n3'" in str(trace)


async def test_headers_of_a_trace_by_hand_still_report_to_a_subject_of_ones_own(nats_server: TrioNatsServer) -> None:
    subject, dest = unique("a"), unique("dest")
    async with open_world(nats_server) as (_, nc, nursery), open_subscription(nursery, nc, dest) as rx:
        await nc.publish(subject, headers=trace_headers(dest, only=True))
        with trio.fail_after(5):
            assert json.loads((await rx.receive()).data)["events"][0]["type"] == "in"
