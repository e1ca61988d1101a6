"""Advisories of real servers: each kind that can be provoked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from tests.clusters import open_cluster
from tests.worlds import StreamWorld, open_stream, open_world
from trionats import Advisories, advisories, api, errors, open_advisories, open_client
from trionats.advisories import Advisory
from trionats.testing import TrioNatsServer

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=60)]

A = TypeVar("A", bound=Advisory)


class Told:
    """A stream of its own, and what is told of it."""

    def __init__(self, w: StreamWorld, rx: Advisories) -> None:
        self.w, self.rx, self.js, self.stream = w, rx, w.js, w.stream

    async def told(self, kind: type[A], **expected: object) -> A:
        """Wait for one of a kind with these fields; others may come before it."""
        with trio.fail_after(20):
            while True:
                advisory = await self.rx.receive()
                if isinstance(advisory, kind) and all(
                    getattr(advisory, name) == value for name, value in expected.items()
                ):
                    assert advisory.id
                    assert advisory.time is not None
                    return advisory

    async def consumer(self, **config: Any) -> Any:  # noqa: ANN401 - a consumer
        return await self.stream.create_consumer(**{"durable_name": "C", "ack_policy": "explicit", **config})


@asynccontextmanager
async def open_told(server: TrioNatsServer, *kinds: type[Advisory], **config: Any) -> AsyncIterator[Told]:  # noqa: ANN401 - any field
    async with open_stream(server, **config) as w, open_advisories(w.nursery, w.js, *kinds) as rx:
        await w.nc.flush()
        yield Told(w, rx)


async def needs(level: int, server: TrioNatsServer) -> None:
    """Skip on a server that cannot do it."""
    async with open_world(server) as (_, nc, _):
        if ((await nc.jetstream().account_info()).api.level or 0) < level:
            pytest.skip(f"the server has not the API level {level}")


async def test_streams_that_are_made_changed_and_deleted_are_told(nats_server: TrioNatsServer) -> None:
    async with open_told(nats_server, advisories.StreamAction) as w:
        name = w.stream.name
        await w.stream.update(description="d")
        await w.told(advisories.StreamAction, stream=name, action="modify")
        await w.stream.delete()
        await w.told(advisories.StreamAction, stream=name, action="delete")
        await w.js.create_stream(name=name, subjects=[f"{name}.>"], storage="memory")
        told = await w.told(advisories.StreamAction, stream=name, action="create")
        assert told.subject == f"$JS.EVENT.ADVISORY.STREAM.CREATED.{name}"


async def test_what_the_api_is_asked_is_told(nats_server: TrioNatsServer) -> None:
    async with open_told(nats_server, advisories.ApiAudit) as w:
        await w.stream.purge()
        subject = f"$JS.API.STREAM.PURGE.{w.stream.name}"
        told = await w.told(advisories.ApiAudit, api_subject=subject)
        assert '"purged"' in told.response
        assert told.client is not None
        assert told.client["acc"] == "$G"


async def test_consumers_and_what_becomes_of_their_messages_are_told(nats_server: TrioNatsServer) -> None:
    async with open_told(nats_server) as w:
        stream = w.stream.name
        consumer = await w.consumer(max_deliver=2, ack_wait=1, sample_freq="100")
        about: dict[str, Any] = {"stream": stream, "consumer": "C"}
        await w.told(advisories.ConsumerAction, action="create", **about)
        for number in range(4):
            await w.js.publish(w.w.subject, b"%d" % number)
        first, second, third, fourth = await consumer.fetch(4)
        await first.ack_sync()
        metric = await w.told(advisories.ConsumerAck, stream_seq=1, deliveries=1, **about)
        assert 0 < metric.ack_time < 20
        await second.term("bad")
        assert (await w.told(advisories.Terminated, stream_seq=2, consumer_seq=2, **about)).reason == "bad"
        await third.nak()
        await w.told(advisories.Nak, stream_seq=3, deliveries=1, **about)
        [again] = await consumer.fetch(1, expires=5)
        await again.nak()
        await fourth.ack_sync()
        with trio.move_on_after(3):
            await consumer.fetch(1, expires=2)
        assert (await w.told(advisories.MaxDeliver, stream_seq=3, **about)).deliveries == 2
        await consumer.delete()
        await w.told(advisories.ConsumerAction, action="delete", **about)


async def test_consumers_that_are_paused_and_pinned_are_told(nats_server: TrioNatsServer) -> None:
    await needs(1, nats_server)
    kinds = (advisories.ConsumerPause, advisories.ConsumerGroupPinned, advisories.ConsumerGroupUnpinned)
    async with open_told(nats_server, *kinds) as w:
        about: dict[str, Any] = {"stream": w.stream.name, "consumer": "C"}
        consumer = await w.consumer(priority_groups=["g"], priority_policy="pinned_client", priority_timeout=60)
        await consumer.pause("2100-01-01T00:00:00Z")
        paused = await w.told(advisories.ConsumerPause, paused=True, **about)
        assert paused.pause_until is not None
        assert paused.pause_until.year == 2100
        await consumer.resume()
        assert (await w.told(advisories.ConsumerPause, paused=False, **about)).pause_until is None
        await w.js.publish(w.w.subject, b"x")
        await consumer.fetch(1, group="g")
        pinned = await w.told(advisories.ConsumerGroupPinned, group="g", **about)
        assert pinned.pinned_id
        await consumer.unpin("g")
        assert (await w.told(advisories.ConsumerGroupUnpinned, group="g", **about)).reason == "admin"


async def test_backups_are_told(nats_server: TrioNatsServer, tmp_path: Path) -> None:
    async with open_told(nats_server, storage=api.StorageType.FILE) as w:
        name = w.stream.name
        await w.js.publish(w.w.subject, b"x")
        await w.stream.backup(tmp_path / "b")
        created = await w.told(advisories.SnapshotCreate, stream=name)
        assert (created.state or {})["messages"] == 1
        completed = await w.told(advisories.SnapshotComplete, stream=name, error="")
        assert completed.start is not None
        assert completed.end is not None
        assert completed.start <= completed.end
        await w.stream.delete()
        await w.js.restore_stream(tmp_path / "b")
        await w.told(advisories.RestoreCreate, stream=name)
        assert (await w.told(advisories.RestoreComplete, stream=name)).bytes > 0


async def test_a_batch_that_is_abandoned_is_told(nats_server: TrioNatsServer) -> None:
    await needs(2, nats_server)
    async with open_told(nats_server, advisories.StreamBatchAbandoned, allow_atomic=True) as w:
        headers = {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1"}
        await w.w.nc.request(w.w.subject, b"1", headers)
        with suppress(errors.Error):
            await w.w.nc.request(w.w.subject, b"3", {**headers, "Nats-Batch-Sequence": "3"})
        told = await w.told(advisories.StreamBatchAbandoned, stream=w.stream.name, batch="b")
        assert told.reason == "incomplete"


SYSTEM = """
accounts {
    A { jetstream: enabled, users: [{user: a, password: p}] }
    SYS { users: [{user: s, password: p}] }
}
system_account: SYS
"""


async def test_who_leads_and_who_lost_its_majority_is_told_to_the_account_and_to_the_system() -> None:
    async with open_cluster(SYSTEM, jetstream=True) as cluster, AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        home, urls = cluster.servers["n1"], cluster.urls
        nc = await stack.enter_async_context(open_client(nursery, urls[0], user="a", password="p"))
        system = await stack.enter_async_context(open_client(nursery, urls[0], user="s", password="p"))
        js = nc.jetstream()
        stream = await eventually(partial(js.create_stream, name="S", subjects=["s.>"], num_replicas=3))
        consumer = await eventually(partial(stream.create_consumer, durable_name="C", ack_policy="explicit"))
        here = await stack.enter_async_context(open_advisories(nursery, js))
        there = await stack.enter_async_context(open_advisories(nursery, system.jetstream()))
        await nc.flush()
        await system.flush()
        await cluster.hear_of("$JS.EVENT.ADVISORY.>")
        await eventually(stream.step_down)
        await eventually(consumer.step_down)
        elected, _ = await first_of_each(here, advisories.StreamLeaderElected, advisories.ConsumerLeaderElected)
        assert isinstance(elected, advisories.StreamLeaderElected)
        assert elected.leader in cluster.servers
        assert {replica.name for replica in elected.replicas or ()} | {elected.leader} == set(cluster.servers)
        assert (await first_of(there, advisories.StreamLeaderElected, stream="S")).account == "A"
        for name in ("n2", "n3"):
            await cluster.servers[name].kill()
        # The servers take some ten seconds to be sure.
        await first_of_each(here, advisories.StreamQuorumLost, advisories.ConsumerQuorumLost)
        await first_of(there, advisories.StreamQuorumLost, stream="S", account="A")
        assert home.running
        stack.callback(nursery.cancel_scope.cancel)


async def eventually(call: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - what it returns
    """Do what needs a leader, as soon as there is one."""
    with trio.fail_after(30):
        while True:
            with suppress(errors.Error), trio.move_on_after(2):
                return await call()
            await trio.sleep(0.1)


async def first_of_each(rx: Advisories, *kinds: type[advisories.Advisory]) -> list[advisories.Advisory]:
    """Wait for one of each kind about `S`, in whatever order they come: they are those of several servers."""
    found: dict[type, advisories.Advisory] = {}
    with trio.fail_after(30):
        while len(found) < len(kinds):
            advisory = await rx.receive()
            if type(advisory) in kinds and getattr(advisory, "stream", None) == "S":
                found.setdefault(type(advisory), advisory)
    return [found[kind] for kind in kinds]


async def first_of(rx: Advisories, kind: type[A], **expected: object) -> A:
    with trio.fail_after(30):
        while True:
            advisory = await rx.receive()
            if isinstance(advisory, kind) and all(getattr(advisory, name) == value for name, value in expected.items()):
                return advisory
