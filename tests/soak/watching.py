"""A bucket of many keys that is watched, and whose snapshots are taken, under constant writes, while the server is killed again and again.

The server keeps the bucket in files and is killed by SIGKILL. What the watcher has at the end is compared with the bucket as batches of
direct gets read it, which share no code with watchers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.worlds import open_live, reconnected, unique, until
from trionats import Client, Stream, Watcher, api, errors, open_client, open_watcher
from trionats._jetstream.kv.store import KeyValue
from trionats.testing import TrioNatsServer

#: How many are written in one burst, of which the last is waited for.
BURST = 50
#: How many messages one batch of direct gets brings.
BATCH = 1000


@dataclass
class Watched:
    """What came of it."""

    keys: int
    kills: int = 0
    written: int = 0
    received: int = 0
    resets: int = 0
    snapshots: int = 0
    latest: int = 0
    #: What must not be, and how often it was.
    wrong: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        said = f"{self.kills} kills, {self.keys} keys, {self.written} written, {self.received} received, {self.resets} resets, "
        return said + f"{self.snapshots} snapshots: {dict(self.wrong) if self.wrong else 'all right'}"


class Writer:
    """Writes keys at random, as fast as the server takes it, through whatever happens."""

    def __init__(self, url: str, bucket: str, keys: int, rng: random.Random) -> None:
        self._url, self._bucket, self._keys, self._rng = url, bucket, keys, rng
        self.written = 0

    async def fill(self) -> None:
        async with trio.open_nursery() as nursery, open_client(nursery, self._url) as nc:
            js = nc.jetstream()
            for number in range(self._keys):
                asks = number % BURST == 0 or number == self._keys - 1
                await (js if asks else nc).publish(f"$KV.{self._bucket}.k.{number}", b"0")

    async def write(self) -> None:
        async with (
            trio.open_nursery() as nursery,
            open_client(nursery, self._url, reconnect_time_wait=0.05, max_reconnect_attempts=-1) as nc,
        ):
            js = nc.jetstream()
            while True:
                try:
                    for _ in range(BURST):
                        self.written += 1
                        await nc.publish(
                            f"$KV.{self._bucket}.k.{self._rng.randrange(self._keys)}", b"%d" % self.written
                        )
                    await js.publish(f"$KV.{self._bucket}.k.{self._rng.randrange(self._keys)}", b"-")
                except errors.Error:
                    # The server was killed; what was under way may be stored or not.
                    await trio.sleep(0.02)


async def by_direct_gets(stream: Stream) -> dict[str, tuple[int, bytes]]:
    """What the bucket holds, by key: revision and value."""
    found: dict[str, tuple[int, bytes]] = {}
    sequence = 1
    while messages := await stream.get_msgs(seq=sequence, batch=BATCH):
        found |= {msg.subject.split(".", 2)[2]: (msg.seq, msg.data) for msg in messages}
        sequence = messages[-1].seq + 1
    return found


async def killed_while_watched(keys: int, kills: int, say: Callable[[str], object] = print) -> Watched:
    """Watch a bucket of so many keys that is written into all the time, through so many kills."""
    outcome = Watched(keys)
    rng = random.Random(keys * kills)
    patient: dict[str, Any] = {"reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}
    async with open_live(jetstream=True, **patient) as (server, nc, nursery):
        name = unique("soak")
        kv = await nc.jetstream().create_key_value(bucket=name, storage=api.StorageType.FILE)
        writer = Writer(server.url, name, keys, rng)
        await writer.fill()
        async with open_watcher(nursery, kv) as rx, trio.open_nursery() as tasks:
            state: dict[str, tuple[int, bytes]] = {}
            tasks.start_soon(watch, rx, state, outcome)
            with trio.CancelScope() as writing:
                async with trio.open_nursery() as writers:
                    writers.start_soon(writer.write)
                    for _ in range(kills):
                        await kill_during_a_snapshot(server, nc, kv, nursery, outcome, rng)
                        say(str(outcome))
                    writing.cancel()
            outcome.written = writer.written
            stream = await nc.jetstream().stream(kv.stream)
            last = (await stream.info()).state.last_seq

            await until(lambda: outcome.latest >= last, within=60, pause=0.01)
            outcome.wrong["final states that differ"] += len(state.items() ^ (await by_direct_gets(stream)).items())
            outcome.received, outcome.resets = rx.statistics().received, rx.statistics().resets
            rx.stop()
    outcome.wrong = +outcome.wrong
    return outcome


async def watch(rx: Watcher[api.KeyValueEntry], state: dict[str, tuple[int, bytes]], outcome: Watched) -> None:
    """Keep the last state of each key, and see that none goes back."""
    async for entry in rx:
        before = state.get(entry.key, (0, b""))[0]
        outcome.wrong["revisions that went back"] += entry.revision <= before
        state[entry.key] = (entry.revision, entry.value)
        outcome.latest = entry.revision


async def kill_during_a_snapshot(
    server: TrioNatsServer, nc: Client, kv: KeyValue, nursery: trio.Nursery, outcome: Watched, rng: random.Random
) -> None:
    """Take a snapshot, and kill the server meanwhile: every key is in it, once."""
    before = nc.statistics().reconnects

    async def kill() -> None:
        await trio.sleep(rng.uniform(0, outcome.keys / 50_000))
        await server.restart(kill=True)
        outcome.kills += 1

    async with open_watcher(nursery, kv) as rx, trio.open_nursery() as killing:
        killing.start_soon(kill)
        seen = Counter(entry.key for entry in await rx.snapshot())
    outcome.snapshots += 1
    outcome.wrong["keys twice in a snapshot"] += sum(seen.values()) - len(seen)
    outcome.wrong["keys missing in a snapshot"] += outcome.keys - len(seen)
    await reconnected(nc, before + 1)
