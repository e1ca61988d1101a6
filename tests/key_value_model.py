"""What a key-value bucket has to hold: a dict of revisions, and random operations and faults that are compared with it.

`exercise` does one random thing after the other to a bucket and to a `Model`, and compares what both say. What stands between
client and bucket is a `Faults`, of which a bucket in memory and a real server have one each. A write whose acknowledgement was lost
is looked up: it was done whole, and once, or not at all.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple, Protocol, TypeAlias

from tests.fakes import matches
from trionats import KeyValue, api, errors

KEYS = ("a", "a.b", "a.c", "d", "d.e.f")
FILTERS = (">", "a.*", "*", "d.>", "a.b", "nothing")


class Kept(NamedTuple):
    """One message of a key: its value, or None for a marker."""

    revision: int
    value: bytes | None
    operation: str | None = None


class Faults(Protocol):
    """What can go wrong between a client and a bucket."""

    def begin(self, rng: random.Random) -> None:
        """Let something go wrong with what is done next, or not."""

    def end(self) -> None:
        """Let nothing more go wrong with what is done next."""

    def catch_up(self) -> None:
        """Let all replicas have what the leader has: a list waits for that."""

    @property
    def lagging(self) -> bool:
        """Whether a replica is behind, so that a get may give what was before."""


class Model:
    """What is stored, by key."""

    def __init__(self, history: int) -> None:
        self.history = history
        self.last = 0
        self.kept: dict[str, list[Kept]] = {key: [] for key in KEYS}
        #: All values that a key ever had, by revision.
        self.ever: dict[str, dict[int, bytes]] = {key: {} for key in KEYS}

    def store(self, key: str, value: bytes | None, operation: str | None) -> int:
        """Do what a write does; give the revision."""
        self.last += 1
        before = [] if operation == "PURGE" else self.kept[key]
        self.kept[key] = [*before, Kept(self.last, value, operation)][-self.history :]
        if value is not None:
            self.ever[key][self.last] = value
        return self.last

    def top(self, key: str) -> Kept:
        return self.kept[key][-1] if self.kept[key] else Kept(0, None)

    def alive(self) -> list[str]:
        return sorted((key for key in KEYS if self.top(key).value is not None), key=lambda key: self.top(key).revision)


#: A write: what is called, whether it succeeds, and what it stores.
Write: TypeAlias = "tuple[Callable[[], Awaitable[int]], bool, bytes | None, str | None]"


def _a_write(rng: random.Random, kv: KeyValue, model: Model, key: str) -> Write:
    value = b"%d" % rng.randrange(1_000_000) if rng.random() < 0.9 else b""
    top = model.top(key)
    expected = rng.choice([top.revision, top.revision, max(top.revision - 1, 0), 0, model.last + 7])
    fits = expected == top.revision
    writes: list[Write] = [
        (lambda: kv.put(key, value), True, value, None),
        (lambda: kv.create(key, value), top.value is None, value, None),
        (lambda: kv.update(key, value, expected), fits, value, None),
        (lambda: kv.delete(key), True, None, "DEL"),
        (lambda: kv.delete(key, expected), fits, None, "DEL"),
        (lambda: kv.purge(key), True, None, "PURGE"),
        (lambda: kv.purge(key, last=expected), fits, None, "PURGE"),
    ]
    return rng.choice(writes)


async def exercise(kv: KeyValue, model: Model, faults: Faults, rng: random.Random, steps: int) -> None:
    """Do so many random things, and see that bucket and model say the same."""
    for _ in range(steps):
        key = rng.choice(KEYS)
        faults.begin(rng)
        if rng.random() < 0.05:
            faults.catch_up()
            await _purge_deletes(kv, model)
        elif rng.random() < 0.6:
            await _write(_a_write(rng, kv, model, key), kv, model, faults, key)
            faults.end()
            with suppress(errors.DisconnectedError):
                await _compare_last(kv, model, key, leader=False, may_be_old=faults.lagging)
        else:
            await _read(rng, kv, model, faults, key)
        faults.end()
    faults.catch_up()
    for key in KEYS:
        await _compare_history(kv, model, key)
    assert await kv.keys() == model.alive()


async def _write(write: Write, kv: KeyValue, model: Model, faults: Faults, key: str) -> None:
    call, succeeds, value, operation = write
    try:
        revision = await call()
    except errors.KeyWrongLastSequenceError:
        assert not succeeds, "it lost a comparison that it had won"
    except errors.DisconnectedError:
        faults.catch_up()
        stored = (await _history(kv, key))[-1:]
        if stored and stored[0].revision > model.top(key).revision:
            assert succeeds, "it won a comparison that it had lost"
            assert model.store(key, value, operation) == stored[0].revision, "it was done more often than once"
    else:
        assert succeeds, "it won a comparison that it had lost"
        assert revision == model.store(key, value, operation)


async def _history(kv: KeyValue, key: str) -> list[api.KeyValueEntry]:
    while True:
        # Reading is safe to repeat.
        with suppress(errors.DisconnectedError):
            return await kv.history(key)


async def _read(rng: random.Random, kv: KeyValue, model: Model, faults: Faults, key: str) -> None:
    try:
        kind = rng.choice(["get", "get", "leader", "revision", "history", "keys"])
        if kind in ("history", "keys"):
            faults.catch_up()
        if kind == "history":
            await _compare_history(kv, model, key)
        elif kind == "keys":
            pattern = rng.choice(FILTERS)
            found = await kv.keys(pattern)
            assert found == [one for one in model.alive() if matches(pattern, one)]
        elif kind == "revision":
            await _compare_revision(kv, model, key, rng.randrange(1, model.last + 2))
        else:
            await _compare_last(kv, model, key, leader=kind == "leader", may_be_old=faults.lagging)
    except errors.DisconnectedError:
        pass  # nothing has changed


async def _compare_last(kv: KeyValue, model: Model, key: str, *, leader: bool, may_be_old: bool) -> None:
    top = model.top(key)
    try:
        found = await kv.get(key, leader=leader)
    except errors.KeyDeletedError:
        assert top.operation is not None, "what was denied is there"
    except errors.KeyNotFoundError:
        assert top == Kept(0, None), "what was denied is there"
    else:
        if leader or not may_be_old:
            assert (found.revision, found.value) == (top.revision, top.value)
        assert model.ever[key][found.revision] == found.value


async def _compare_revision(kv: KeyValue, model: Model, key: str, revision: int) -> None:
    kept = {one.revision: one for one in model.kept[key]}
    try:
        found = await kv.get(key, revision)
    except errors.KeyDeletedError:
        assert kept[revision].operation is not None
    except errors.KeyNotFoundError:
        assert revision not in kept
    else:
        # A replica that is behind has what is gone at the leader.
        assert model.ever[key][revision] == found.value


async def _compare_history(kv: KeyValue, model: Model, key: str) -> None:
    found = [(entry.revision, entry.value, entry.operation) for entry in await kv.history(key)]
    assert found == [(one.revision, one.value or b"", one.operation) for one in model.kept[key]]


async def _purge_deletes(kv: KeyValue, model: Model) -> None:
    gone = [key for key in KEYS if model.top(key).operation is not None]
    while True:
        try:
            await kv.purge_deletes(-1)
        except errors.DisconnectedError:
            continue  # some of it was done
        break
    for key in gone:
        model.kept[key] = []
