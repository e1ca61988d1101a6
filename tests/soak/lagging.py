"""Lists, snapshots and gets of a bucket with three replicas, while one of its followers comes back again and again.

A server that comes back lags for some seconds behind what was written meanwhile, and consumers are placed on it all the
same. Whatever was acknowledged before a list, a snapshot or a get began has to be in it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from tests.clusters import NODES, Cluster, open_cluster
from tests.worlds import cut_into, meta_info, meta_subject, publish_forced
from trionats import Client, ObjectStore, api, errors, open_client, open_watcher
from trionats.testing import TrioNatsServer

T = TypeVar("T")

NAMES = 40
#: How long a follower stays away, and how long after that it is looked at: lagging, it was seen for up to 2.8 s.
AWAY = 0.5
#: How many messages of 1 KB it misses meanwhile.
BALLAST = 3000
LOOKED_AT = 4.0
#: How many of each kind are under way at once: the replica lags for a moment only.
AT_ONCE = 8


@dataclass
class Outcome:
    """How many of each kind there were, and what was wrong."""

    done: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def count(self, kind: str, complaint: str = "") -> None:
        self.done[kind] = self.done.get(kind, 0) + 1
        if complaint:
            self.wrong.setdefault(kind, []).append(complaint)

    def __str__(self) -> str:
        done = sorted(self.done.items())
        lines = [f"{len(self.wrong.get(kind, ()))} wrong of {count} {kind}" for kind, count in done]
        lines += [f"  {kind}: {complaints[0]}" for kind, complaints in sorted(self.wrong.items())]
        return "\n".join(lines)


class Bucket:
    """A bucket, what was acknowledged of it, and what was found wrong."""

    def __init__(self, nursery: trio.Nursery, nc: Client, store: ObjectStore) -> None:
        self.nursery, self.nc, self.store = nursery, nc, store
        self.stored: dict[str, int] = {}
        self.begun_for_nothing: dict[str, int] = {}
        self.outcome, self.turn = Outcome(), 0

    async def write(self, name: str) -> None:
        """Write an info as a put does, without its object."""
        info = meta_subject(self.store.bucket, name), meta_info(self.store.bucket, name)
        ack = await self.nc.jetstream().publish(*info, headers={"Nats-Rollup": "sub"})
        self.stored[name] = max(self.stored.get(name, 0), ack.seq)

    async def write_on(self) -> None:
        while True:
            try:
                await self.write(f"k{random.randrange(NAMES)}")
            except errors.Error:
                await trio.sleep(0.05)
            await trio.sleep(0.002)

    def check(self, kind: str, before: dict[str, int], found: list[api.ObjectInfo]) -> None:
        revisions = {info.name: info.revision or 0 for info in found}
        missing = sorted(name for name, revision in before.items() if revisions.get(name, 0) < revision)
        complaint = f"{len(missing)} of {len(before)} are missing or old: {missing[:5]}"
        self.outcome.count(kind, complaint if missing else "")

    async def list(self) -> None:
        before = dict(self.stored)
        self.check("lists", before, await self.store.list())

    async def snapshot(self) -> None:
        before = dict(self.stored)
        async with open_watcher(self.nursery, self.store) as rx:
            found = await rx.snapshot()
        self.check("snapshots", before, found)

    async def updates(self) -> None:
        newest = max(self.stored.values())
        async with open_watcher(self.nursery, self.store, updates_only=True) as rx:
            info = await rx.receive()
        old = (info.revision or 0) <= newest
        self.outcome.count("updates", f"{info.name} of {info.revision} came, and {newest} was known" if old else "")

    async def get(self) -> None:
        self.turn += 1
        name, content = f"object {self.turn % 200}", random.randbytes(700)
        try:
            await self.store.put(name, content, cut_into(100))
        except errors.Error:
            self.begun_for_nothing["gets"] = self.begun_for_nothing.get("gets", 0) + 1
            return  # refused while a leader is elected: nothing was promised
        try:
            read = (await self.store.get(name)).data
        except (errors.ObjectNotFoundError, errors.ObjectIncompleteError, errors.DigestMismatchError) as error:
            self.outcome.count("gets", str(error))
        else:
            self.outcome.count("gets", "" if read == content else "other content")


async def lagging_replica(restarts: int, wanted: int, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Restart a follower again and again, and do so many of each kind in all; `say` is told how it goes."""
    async with open_cluster(jetstream=True) as cluster, trio.open_nursery() as nursery:
        leader = "n1"
        url = cluster.servers[leader].url
        async with open_client(nursery, url, ignore_discovered_servers=True, request_timeout=10) as nc:
            js = nc.jetstream()
            store = await _when_ready(lambda: js.create_object_store("soak", replicas=3))
            bucket = Bucket(nursery, nc, store)
            for number in range(NAMES):
                await bucket.write(f"k{number}")
            async with trio.open_nursery() as workers:
                workers.start_soon(bucket.write_on)
                for turn in range(restarts):
                    follower = await _follower(nc, cluster, besides=leader)
                    await follower.stop()
                    await trio.sleep(AWAY)
                    for number in range(BALLAST):
                        publish_forced(nc, "$O.soak.C.ballast", b"x" * 1000 + b"%d" % number)
                    await bucket.write("k0")
                    await follower.start()
                    await _look(bucket, wanted * (turn + 1) // restarts)
                    say(f"restart {turn + 1}: {str(bucket.outcome).splitlines()[0]}")
                workers.cancel_scope.cancel()
    return bucket.outcome


async def _look(bucket: Bucket, up_to: int) -> None:
    """Do all kinds at once until there are enough of each, and at least as long as a replica may lag."""
    ends = trio.current_time() + LOOKED_AT
    begun = dict(bucket.outcome.done)

    async def again(kind: str, one: Callable[[], Awaitable[None]]) -> None:
        while begun.get(kind, 0) < up_to:
            begun[kind] = begun.get(kind, 0) + 1
            with trio.move_on_after(60) as limit:
                await one()
            if limit.cancelled_caught:
                bucket.outcome.count(kind, "not done within 60 s")
            begun[kind] -= bucket.begun_for_nothing.pop(kind, 0)
        await trio.sleep_until(ends)

    kinds = {"lists": bucket.list, "snapshots": bucket.snapshot, "gets": bucket.get, "updates": bucket.updates}
    async with trio.open_nursery() as nursery:
        for kind, one in [*kinds.items()] * AT_ONCE:
            nursery.start_soon(again, kind, one)


async def _follower(nc: Client, cluster: Cluster, besides: str) -> TrioNatsServer:
    info = await _when_ready(lambda: nc.jetstream().api_request("STREAM.INFO.OBJ_soak"))
    followers = [name for name in NODES if name not in (besides, info["cluster"]["leader"])]
    return cluster.servers[random.choice(followers)]


async def _when_ready(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until a leader has been elected."""
    with trio.fail_after(30):
        while True:
            # What is asked while there is no leader gets no answer.
            with suppress(errors.Error), trio.move_on_after(1):
                return await ask()
            await trio.sleep(0.1)
    raise AssertionError
