"""Three servers that know each other: discovery, and a rolling restart that nobody notices."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.clusters import make_replicated_stream, no_request_fails_while, open_cluster
from tests.worlds import collect, next_event, until
from trionats import Client, Msg, api, events, open_client, open_events, open_subscription
from trionats.testing import TrioNatsServer

ROUNDS = 3 if os.environ.get("TRIONATS_SLOW") else 1

pytestmark = [pytest.mark.live(seconds=120), pytest.mark.usefixtures("server_executable")]


async def test_a_rolling_restart_fails_no_request() -> None:
    """Each server once (or more often, see ROUNDS)."""
    async with open_cluster() as cluster:

        async def restart(_: Client, answered: Callable[[], int]) -> None:
            for server in list(cluster.servers.values()) * ROUNDS:
                before = answered()
                await cluster.roll(server)
                assert answered() > before, "requests went on meanwhile"

        assert await no_request_fails_while(restart, cluster, cluster.urls) >= 1


async def test_servers_are_discovered_and_pruned() -> None:
    """Those that are told of get the credentials of the one that told, and go when nobody tells of them any more."""
    users = "authorization { user: u, password: s3cret }\n"
    async with open_cluster(users) as cluster, trio.open_nursery() as nursery:
        first, second, third = cluster.servers.values()
        others = {second.url, third.url}
        async with (
            open_client(nursery, first.url.replace("nats://", "nats://u:s3cret@")) as nc,
            open_events(nursery, nc) as rx,
        ):
            await until(lambda: set(nc.discovered_servers) == others, within=20)
            assert set(nc.servers) == {first.url, *others}
            assert "s3cret" not in repr(nc.servers)
            await third.stop()
            await until(lambda: nc.discovered_servers == (second.url,), within=20)
            await first.kill()
            with trio.fail_after(5):
                await next_event(rx, events.Reconnected)
            assert nc.connected_url == second.url
            await nc.flush()
            await third.start()
            await until(lambda: third.url in nc.servers, within=20)
            assert first.url in nc.servers, "it was given, so it stays"


async def test_discovery_can_be_switched_off() -> None:
    async with open_cluster() as cluster, trio.open_nursery() as nursery:
        url = cluster.urls[0]
        async with open_client(nursery, url, ignore_discovered_servers=True) as nc:
            await nc.flush()
            assert nc.servers == (url,)
            assert nc.discovered_servers == ()


async def test_plain_subscriptions_hear_nothing_twice_through_a_rolling_restart() -> None:
    heard: list[Msg] = []
    told: list[int] = []
    number = 0
    rolled = trio.Event()
    async with open_cluster() as cluster, trio.open_nursery() as nursery:
        async with (
            open_client(nursery, cluster.urls[:1], ignore_discovered_servers=True) as publishing,
            open_client(nursery, cluster.urls[1:], ignore_discovered_servers=True) as hearing,
            open_subscription(nursery, hearing, "n") as feed,
            trio.open_nursery() as workers,
        ):

            async def roll() -> None:
                left = cluster.node(hearing)
                workers.start_soon(hear_of_the_move, left)
                await cluster.roll(left)
                rolled.set()

            async def hear_of_the_move(left: TrioNatsServer) -> None:
                await until(lambda: cluster.node(hearing) is not left, within=60)
                node = cluster.node(publishing)
                await until(lambda: cluster.knows(node, hearing.server_name, "n"), within=60)
                told.append(number)

            workers.start_soon(collect, feed, heard)
            await hearing.flush()
            await cluster.hear_of("n")
            workers.start_soon(roll)
            while not (rolled.is_set() and told):
                await publishing.publish("n", b"%d" % number)
                number += 1
                await trio.sleep(0.001)
            await publishing.publish("n", b"%d" % number)
            await until(lambda: heard[-1].data == b"%d" % number)
            workers.cancel_scope.cancel()
    got = [int(msg.data) for msg in heard]
    assert got == sorted(set(got)), "none twice, and in order"
    # At most once: what came between the old server's goodbye and the news of the new one is missing, and nothing else.
    missing = sorted(set(range(number)) - set(got))
    assert missing == (list(range(missing[0], missing[-1] + 1)) if missing else [])
    assert not missing or missing[-1] < told[0]


# -- streams of three replicas -----------------------------------------------------------------------------------------


async def test_a_publish_that_is_repeated_is_stored_once_whatever_it_expects() -> None:
    """A stream of three replicas says that the first is under way (10158), where one of one replica says duplicate."""
    async with (
        open_cluster(jetstream=True) as cluster,
        trio.open_nursery() as nursery,
        open_client(nursery, cluster.servers["n1"].url) as nc,
    ):
        await make_replicated_stream(nc)
        js = nc.jetstream()
        acks: dict[int, list[api.PubAck]] = {}

        async def publish(number: int) -> None:
            ack = await js.publish(f"s.{number}", b"x", msg_id=f"id{number}", expected_last_subject_seq=0)
            acks.setdefault(number, []).append(ack)

        with trio.fail_after(60):
            async with trio.open_nursery() as publishers:
                for number in range(50):
                    for _ in range(3):
                        publishers.start_soon(publish, number)
        assert (await js.stream_info("S")).state.messages == 50
        for found in acks.values():
            assert len({ack.seq for ack in found}) == 1
            assert sorted(bool(ack.duplicate) for ack in found) == [False, True, True]
