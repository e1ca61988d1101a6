"""Streams of three servers: who leads, who holds a replica, and which stream is nearest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio

from tests.clusters import NODES, Cluster, open_cluster
from tests.worlds import until
from trionats import JetStream, Stream, api, errors, open_client

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=60)]


@asynccontextmanager
async def open_replicated(replicas: int = 3, **config: Any) -> AsyncIterator[tuple[Cluster, JetStream, Stream]]:  # noqa: ANN401 - any field
    """Three servers that hold a stream, and a client of the first of them."""
    async with (
        open_cluster(jetstream=True) as cluster,
        trio.open_nursery() as nursery,
        open_client(nursery, cluster.servers["n1"].url) as nc,
    ):
        js = nc.jetstream()
        while True:  # until there is a leader of all
            with trio.move_on_after(2):
                try:
                    stream = await js.create_stream(name="S", subjects=["s.>"], num_replicas=replicas, **config)
                    break
                except errors.APIError:
                    await trio.sleep(0.1)
        await until(partial(is_whole, stream), within=20, pause=0.05)
        yield cluster, js, stream


async def where(stream: Stream) -> api.ClusterInfo:
    """While somebody is elected, nobody responds."""
    with suppress(errors.Error), trio.move_on_after(0.5):
        return (await stream.info()).cluster or api.ClusterInfo()
    return api.ClusterInfo()


async def is_whole(stream: Stream) -> bool:
    cluster = await where(stream)
    return bool(cluster.leader) and all(peer.current for peer in cluster.replicas or ())


async def is_led_by(stream: Stream, *names: str) -> bool:
    return (await where(stream)).leader in names


async def test_another_replica_leads_after_a_step_down() -> None:
    async with open_replicated() as (_, js, stream):
        first = (await where(stream)).leader
        others = [name for name in NODES if name != first]
        assert await stream.step_down()
        await until(partial(is_led_by, stream, *others), within=20, pause=0.05)
        await until(partial(is_whole, stream), within=20, pause=0.05)
        now = (await where(stream)).leader
        chosen = next(name for name in NODES if name != now)
        assert await stream.step_down(chosen)
        await until(partial(is_led_by, stream, chosen), within=20, pause=0.05)
        assert (await js.publish("s.a", b"x")).seq == 1, "a publish waits for who leads"
        with pytest.raises(errors.APIError, match="stream 'S'"):
            await stream.step_down("nobody")


async def test_a_replica_is_taken_away() -> None:
    async with open_replicated(replicas=2) as (_, _, stream):
        cluster = await where(stream)
        gone = (cluster.replicas or [])[0].name or ""
        with pytest.raises(errors.APIError, match=r"stream 'S': peer not a member"):
            await stream.remove_peer("nobody")
        assert await stream.remove_peer(gone)

        async def has_moved() -> bool:
            now = await where(stream)
            return bool(now.leader) and gone not in {now.leader, *(peer.name for peer in now.replicas or ())}

        await until(has_moved, within=20, pause=0.05)


async def test_a_replica_that_nobody_can_replace_stays() -> None:
    async with open_replicated() as (_, _, stream):
        with pytest.raises(errors.ServiceUnavailableError, match=r"stream 'S': peer remap failed .*10075"):
            await stream.remove_peer("n2")


async def test_mirrors_are_named_by_the_info_of_their_origin() -> None:
    async with open_replicated() as (_, js, stream):
        await js.create_stream(name="M", mirror=api.StreamSource("S"))

        async def is_told() -> bool:
            return len((await stream.info()).alternates or ()) == 2

        await until(is_told, within=20, pause=0.05)
        alternates = stream.cached_info.alternates or []
        assert {(alternate.name, alternate.cluster) for alternate in alternates} == {("S", "c"), ("M", "c")}
        assert await stream.nearest() is stream, "a mirror in the same cluster is no nearer"


async def test_a_configuration_of_a_cluster_is_read_and_written_back() -> None:
    async with open_replicated(placement=api.Placement(cluster="c")) as (_, js, stream):
        before = (await js.api_request("STREAM.INFO.S"))["config"]
        assert before["placement"] == {"cluster": "c"}
        await stream.update(description="d")
        raw = await js.api_request("STREAM.INFO.S")
        assert raw["config"] == {**before, "description": "d"}
        told = stream.cached_info.cluster
        assert told is not None
        assert (told.name, told.raft_group is not None, told.leader_since is not None) == ("c", True, True)
        assert told.extra == {}
        assert [peer.extra for peer in told.replicas or ()] == [{}, {}]
