"""Streams of three servers: who leads, who holds a replica, and which stream is nearest."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
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


async def has_consumers(stream: Stream) -> bool:
    return bool(await stream.consumers_info())


async def goes_on_behind(stream: Stream, sequence: int, pending: int) -> bool:
    [told] = await stream.consumers_info()
    assert told.ack_floor is not None
    return (told.ack_floor.stream_seq, told.num_pending) == (sequence, pending)


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


async def test_a_stream_of_three_replicas_is_backed_up_and_comes_back_as_three_or_one(tmp_path: Path) -> None:
    async with open_replicated() as (cluster, js, stream):
        for number in range(100):
            await js.publish("s.a", b"%d" % number * 10_000)
        consumer = await stream.create_consumer(durable_name="C", ack_policy="explicit")
        for msg in await consumer.fetch(10):
            await msg.ack_sync()
        state = await stream.backup(tmp_path / "b")
        assert (state.messages, state.last_seq) == (100, 100)
        for replicas in (3, 1):
            await stream.delete()
            back = await js.restore_stream(tmp_path / "b", num_replicas=replicas)
            await until(partial(is_whole, back), within=20, pause=0.05)
            info = await back.info()
            assert (info.config.num_replicas, info.state.messages) == (replicas, 100)
            # Consumers follow their stream within some seconds.
            await until(partial(has_consumers, back), within=20, pause=0.05)
            # And what is left for them a moment later.
            await until(partial(goes_on_behind, back, 10, 90), within=20, pause=0.05)
            assert (await js.publish("s.a", b"next")).seq == 101
        # Who is asked is not who leads.
        async with trio.open_nursery() as nursery:
            for name, server in cluster.servers.items():
                async with open_client(nursery, server.url) as other:
                    await (await other.jetstream().stream("S")).backup(tmp_path / name)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_restore_that_comes_to_nothing_leaves_no_stream_in_a_cluster(replicas: int, tmp_path: Path) -> None:
    """The server would leave the name taken for good, and after some seconds an empty stream."""
    async with open_replicated(replicas) as (_, js, stream):
        for number in range(30):
            await js.publish("s.a", os.urandom(100_000) + b"%d" % number)
        await stream.backup(tmp_path / "b")
        damaged = tmp_path / "damaged"
        damaged.mkdir()
        for file in (tmp_path / "b").iterdir():
            content = bytearray(file.read_bytes())
            if file.name != "backup.json":
                content[1_000_000] ^= 1
            (damaged / file.name).write_bytes(content)
        await stream.delete()
        for _ in range(3):
            scope = trio.CancelScope()
            with scope:
                await js.restore_stream(tmp_path / "b", progress=lambda *_, scope=scope: scope.cancel())
            assert scope.cancelled_caught
            assert await js.stream_names() == []
            with pytest.raises(errors.APIError, match="restore of stream 'S'"):
                await js.restore_stream(damaged)
            assert await js.stream_names() == []
        back = await js.restore_stream(tmp_path / "b")
        assert back.cached_info.state.messages == 30
