"""Atomic batches that are cancelled, or whose server is killed, at random moments: whole or not at all, and nothing left.

The stream is kept in files, where the server also puts what it sets aside, so that what it leaves there can be looked at.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from tests.worlds import open_live, reconnected, until
from trionats import Batch, JetStream, Stream, api, errors
from trionats.testing import TrioNatsServer

#: How many batches may be open for one stream.
ROOM: Final = 50
#: A batch is cancelled so many seconds behind one of its messages at the latest; every second one behind the last.
LATEST: Final = 0.005


@dataclass
class Batches:
    """What became of them."""

    seed: object
    counts: Counter[str] = field(default_factory=Counter)
    #: What must not be.
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = ", ".join(f"{count} {what}" for what, count in self.counts.items())
        return f"{said}, seed {self.seed}: {self.wrong or 'each whole or not at all, and nothing left'}"

    def judge(self, name: str, batch: Batch | None, stored: int, size: int) -> None:
        """Compare what is known of a batch with what is stored of it."""
        known = None if batch is None else batch.committed
        if stored not in (0, size):
            self.wrong.append(f"{name}: {stored} of {size} are stored")
        if known is not None and known is not bool(stored):
            self.wrong.append(f"{name}: committed is {known}, and {stored} are stored")
        self.counts["stored" if stored else "not stored"] += 1
        if batch is not None and batch.committed is None:
            self.counts["of which that is not known"] += 1


async def publish(
    js: JetStream, subject: str, size: int, made: list[Batch], behind: int = -1, later: float = 0
) -> bool:
    """Publish a batch, and cancel it so many seconds behind so many messages; say whether that came in time."""
    with trio.CancelScope() as scope:
        async with js.open_batch() as batch:
            made.append(batch)
            for number in range(size + 1):
                if number == behind:
                    scope.deadline = trio.current_time() + later
                if number < size:
                    await batch.publish(subject, bytes(100))
    return scope.cancelled_caught


async def stored_of(stream: Stream, subject: str) -> int:
    """Ask how many messages a subject has."""
    return ((await stream.info(subjects_filter=subject)).state.subjects or {}).get(subject, 0)


async def cancelled_batches(times: int, size: int, seed: object, forgets_after: float = 10) -> Batches:
    """Cancel so many batches of that size, each at a random moment.

    Args:
        times: How many.
        size: How many messages each has.
        seed: Where the moments come from.
        forgets_after: After how many seconds the server is to forget what nobody commits; its default is 10.
    """
    outcome, rng = Batches(seed), random.Random(repr(seed))
    config = f'jetstream {{ limits {{ batch {{ timeout: "{int(forgets_after * 1000)}ms" }} }} }}'
    async with open_live(config, jetstream=True) as (server, nc, _):
        js = nc.jetstream()
        stream = await js.create_stream(
            name="S", subjects=["s.>"], allow_atomic=True, allow_direct=True, storage=api.StorageType.FILE
        )
        opened = 0
        for number in range(times):
            subject, behind, later = f"s.{number}", rng.randrange(size), rng.random() * LATEST
            made: list[Batch] = []
            cancelled = await publish(js, subject, size, made, size if number % 2 else behind, later)
            outcome.counts["cancelled"] += cancelled
            await nc.flush()
            count = await stored_of(stream, subject)
            outcome.judge(f"{subject}, cancelled {later:.4f} s behind {behind}", made[0] if made else None, count, size)
            opened += not count
            if opened == ROOM:  # so many may be open, whether they were left or not
                opened = 0
                await until(lambda: not left_in(server), within=forgets_after * 3, pause=0.1)
        await until(lambda: not left_in(server), within=forgets_after * 3, pause=0.1)
        await room_for_as_many_as_ever(js, outcome)
    return outcome


def left_in(server: TrioNatsServer) -> list[str]:
    """List what a server has set aside for batches, of which it may just delete something."""
    folders = [(folder, inside) for folder, inside, _ in os.walk(server.server.directory)]
    return [name for folder, inside in folders if Path(folder).name == "batches" for name in inside]


async def room_for_as_many_as_ever(js: JetStream, outcome: Batches) -> None:
    """Open as many batches at once as the server allows."""
    before = (await js.stream_info("S")).state.messages
    try:
        async with AsyncExitStack() as stack:
            for number in range(ROOM):
                batch = await stack.enter_async_context(js.open_batch())
                for _ in range(3):
                    await batch.publish(f"s.last.{number}", b"x")
    except errors.BatchError as error:
        outcome.wrong.append(f"there is no room any more: {error}")
    else:
        after = (await js.stream_info("S")).state.messages
        if after != before + 3 * ROOM:
            outcome.wrong.append(f"{ROOM} batches of 3 are {after - before} messages")


async def killed_batches(times: int, size: int, seed: object) -> Batches:
    """Kill the server at random moments of so many batches of that size."""
    outcome, rng = Batches(seed), random.Random(repr(seed))
    patient: dict[str, Any] = {"reconnect_time_wait": 0.02, "max_reconnect_attempts": -1}
    async with open_live(jetstream=True, **patient) as (server, nc, _):
        js = nc.jetstream()
        stream = await js.create_stream(name="S", subjects=["s.>"], allow_atomic=True, storage=api.StorageType.FILE)
        begun = trio.current_time()
        await publish(js, "s.whole", size, [])
        usual = trio.current_time() - begun
        for number in range(times):
            subject, moment = f"s.{number}", rng.random() * usual
            made: list[Batch] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill_after, server, moment)
                try:
                    await publish(js, subject, size, made)
                except errors.Error as error:
                    outcome.counts[type(error).__name__] += 1
            await reconnected(nc, number + 1)
            count = await stored_when_it_is_back(stream, subject)
            outcome.judge(f"{subject}, killed after {moment:.4f} s", made[0] if made else None, count, size)
    return outcome


async def kill_after(server: TrioNatsServer, seconds: float) -> None:
    await trio.sleep(seconds)
    await server.restart(kill=True)


async def stored_when_it_is_back(stream: Stream, subject: str) -> int:
    """Ask how many messages a subject has, once the stream answers again."""
    while True:
        try:
            return await stored_of(stream, subject)
        except errors.Error:
            await trio.sleep(0.05)
