"""Random operations and faults against a dict of objects: in the end the bucket holds what the model does, and nothing else."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fake_jetstream import FULL, FakeObjects, refusal
from tests.fakes import Frame, matches
from tests.worlds import BucketWorld, open_bucket, run
from trionats import ObjectStore, api, errors, open_watcher
from trionats._jetstream.objects import chunks

METAS = "$O.b.M.>"
TENS = api.ObjectMetaOptions(max_chunk_size=10)
NAMES = ("a", "b", "é")
NO_PURGE = refusal(403, 10000, "not now")

#: What a name leads to: data and what is said of it, or where a link leads.
Thing: TypeAlias = "tuple[bytes, str | None] | str"
Model: TypeAlias = "dict[str, Thing]"
Operation: TypeAlias = "tuple[str, str, Any]"

names = st.sampled_from(NAMES)
operations = st.one_of(
    st.tuples(st.just("put"), names, st.sampled_from([0, 5, 35])),
    st.tuples(st.just("delete"), names, st.none()),
    st.tuples(st.just("edit"), names, st.sampled_from(["x", "y"])),
    st.tuples(st.just("rename"), names, names),
    st.tuples(st.just("link"), names, names),
    st.tuples(st.just("link"), names, st.just("/bucket")),
    st.tuples(st.just("purge orphans"), st.just(""), st.none()),
)
faults = st.one_of(
    st.none(),
    st.none(),
    st.tuples(st.just("cancel"), st.integers(0, 12)),
    st.tuples(st.sampled_from(["lose", "refuse", "cut before", "cut behind"]), st.integers(1, 4)),
    st.tuples(st.just("refuse purges"), st.just(0)),
)


def data_of(number: int, size: int) -> bytes:
    return (b"%d." % number * size)[:size]


async def do(store: ObjectStore, operation: Operation, number: int) -> None:
    kind, name, more = operation
    if kind == "put":
        await store.put(name, data_of(number, more), api.ObjectMeta(options=TENS))
    elif kind == "delete":
        await store.delete(name)
    elif kind == "edit":
        await store.update_meta(name, api.ObjectMeta(description=more))
    elif kind == "rename":
        await store.update_meta(name, api.ObjectMeta(name=more, description="renamed"))
    elif kind == "purge orphans":
        await store.purge_orphans(0)
    elif more == "/bucket":
        await store.add_bucket_link(name, more[1:])
    else:
        await store.add_link(name, api.ObjectInfo(more, "b", "any"))


def expected(model: Model, operation: Operation, number: int, twins: set[str]) -> tuple[Model, type[Exception] | None]:
    """Say what an operation makes of the model, and what it raises."""
    kind, name, more = operation
    there = model.get(name)
    others = {key: thing for key, thing in model.items() if key != name}
    if kind == "put":
        return {**others, name: (data_of(number, more), None)}, None
    if kind in ("edit", "rename") and there is None:
        return model, errors.ObjectNotFoundError
    said = "renamed" if kind == "rename" else more
    edited: Thing = there if isinstance(there, str) else (there[0], said) if there is not None else ""
    if kind == "edit" or (kind == "rename" and name == more):
        return {**others, name: edited}, None
    if kind == "rename":
        if more in model and not {name, more} <= twins:
            return model, errors.ObjectAlreadyExists
        if name in twins and more not in twins:
            return model, errors.BadObjectMetaError
        return {**others, more: edited}, None
    if kind == "link":
        if name == more:
            return model, errors.BadObjectMetaError
        return (model, errors.ObjectAlreadyExists) if isinstance(there, tuple) else ({**others, name: more}, None)
    return (others, None) if kind == "delete" else (model, None)


def live(bucket: FakeObjects) -> list[dict[str, Any]]:
    return [info for info in bucket.metas if not info.get("deleted")]


def twins_of(bucket: FakeObjects) -> set[str]:
    """The names that a renaming left of one object which was broken off."""
    nuids = [info["nuid"] for info in live(bucket)]
    return {info["name"] for info in live(bucket) if nuids.count(info["nuid"]) > 1}


async def read(store: ObjectStore) -> Model:
    """Read all that the bucket holds; what is not whole raises."""
    model: Model = {}
    for info in await store.list():
        assert info.name not in model, "two of one name"
        link = None if info.options is None else info.options.link
        if link is not None:
            model[info.name] = link.name or "/bucket"
        else:
            model[info.name] = ((await store.get(info.name)).data, info.description)
    return model


def left_over(bucket: FakeObjects) -> set[str]:
    """The nuids of chunks that no object names."""
    stored = {message.subject.rpartition(".")[2] for message in bucket.messages if ".C." in message.subject}
    return stored - {info["nuid"] for info in live(bucket)}


def fault_hook(bucket: FakeObjects, kind: str, number: int) -> Callable[[Frame], Any]:
    """Make what happens to one of the messages that an operation publishes, or to its info of that number."""
    seen = 0

    def hook(frame: Frame) -> object:
        nonlocal seen
        if kind in ("lose", "refuse") and not matches(METAS, frame.subject):
            return None
        seen += 1
        if seen != number:
            return None
        if kind == "refuse":
            return FULL
        if kind == "cut before":
            bucket.server.cut()
            return "silence"
        bucket.take(frame)
        if kind == "cut behind":
            bucket.server.cut()
        return "silence"

    return hook


@asynccontextmanager
async def watched_bucket() -> AsyncIterator[tuple[BucketWorld[FakeObjects], dict[str, api.ObjectInfo]]]:
    """Open a bucket, with what a watcher knows of it."""
    seen: dict[str, api.ObjectInfo] = {}
    async with open_bucket(reconnect_time_wait=0.1) as w, open_watcher(w.nursery, w.store) as watcher:

        async def note() -> None:
            async for info in watcher:
                assert info.subject is not None
                seen[info.subject] = info

        w.nursery.start_soon(note)
        yield w, seen
        w.nursery.cancel_scope.cancel()


@example([(("put", "b", 5), None), (("delete", "b", None), ("lose", 1))])
@example([(("put", "b", 5), None), (("delete", "b", None), ("cut behind", 1))])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(operations, faults), max_size=12))
def test_a_bucket_is_what_its_model_is_whatever_happens(steps: list[tuple[Operation, Any]]) -> None:
    async def main() -> None:
        async with watched_bucket() as ((bucket, store, nc, _), seen):
            model: Model = {}
            for number, (operation, fault) in enumerate(steps):
                before, twins = dict(model), twins_of(bucket)
                after, error = expected(model, operation, number, twins)
                if fault is None:
                    raised = await attempt(bucket, store, operation, number, None)
                    # Who deletes what never was is told; what once was may be deleted again.
                    if not (operation[0] == "delete" and operation[1] not in model):
                        kind = type(None) if error is None else error
                        assert isinstance(raised, kind), f"{operation}: {raised!r}"
                    model = after
                else:
                    await attempt(bucket, store, operation, number, fault)
                    await nc.wait_connected()
                    await trio.sleep(20)  # until all that goes on by itself is done
                    model = await read(store)
                    allowed = [before, after]
                    if operation[0] == "rename" and error is None:
                        allowed.append({**after, operation[1]: before[operation[1]]})
                    assert model in allowed, f"{operation} with {fault}"
                if not any(fault is not None and fault[0] == "refuse purges" for _, fault in steps[: number + 1]):
                    assert not left_over(bucket), f"{operation} with {fault}"
            assert await read(store) == model
            orphans = {one.nuid for one in await store.orphans(0)}
            assert orphans == left_over(bucket)
            assert {one.nuid for one in await store.purge_orphans(0)} == orphans
            assert not left_over(bucket)
            assert await read(store) == model
            await trio.sleep(30)  # without heartbeats from this server, the watcher takes another consumer now and then
            assert seen == {info.subject: info for info in await store.list(ignore_deletes=False)}

    run(main)


async def attempt(
    bucket: FakeObjects, store: ObjectStore, operation: Operation, number: int, fault: tuple[str, int] | None
) -> errors.Error | None:
    """Do something while something goes wrong; give what it raised."""
    kind, at = fault or ("", 0)
    scope = trio.CancelScope()
    if kind == "cancel":
        bucket.lag = 0.01
        scope.deadline = trio.current_time() + 0.005 * at
    elif kind == "refuse purges":
        bucket.purges = NO_PURGE
    elif kind:
        bucket.hook = fault_hook(bucket, kind, at)
    raised = None
    with scope:
        try:
            await do(store, operation, number)
        except errors.Error as error:
            raised = error
    bucket.hook, bucket.purges, bucket.lag = lambda _: None, True, 0
    return raised


@pytest.mark.parametrize("trouble", ["cancelled", "cut off", "cancelled and cut off"])
@pytest.mark.parametrize("number", range(10))
def test_many_who_change_the_same_names_at_once_lose_nothing_of_each_other(
    number: int, trouble: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every object that is left is whole, and nothing else is left; whoever lost a race was told."""
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 20)
    seed = rng.random() + number
    chance = random.Random(seed)
    patience = [0.02, 0.05, 100] if "cancelled" in trouble else [100]

    async def work(store: ObjectStore, worker: int) -> None:
        for count in range(12):
            kind = chance.choice(["put", "delete", "edit", "rename", "rename", "rename", "link"])
            more = {"put": chance.choice([0, 5, 35]), "edit": "x"}.get(kind, chance.choice(NAMES))
            with trio.move_on_after(chance.choice(patience)), suppress(errors.Error):
                await do(store, (kind, chance.choice(NAMES), more), worker * 100 + count)

    async def cut(w: BucketWorld[FakeObjects]) -> None:
        while True:
            await trio.sleep(chance.choice([0.03, 0.1, 0.3]))
            await w.nc.wait_connected()
            w.bucket.server.cut()

    async def main() -> None:
        async with open_bucket(reconnect_time_wait=0.02) as w:
            w.bucket.lag = 0.01
            async with trio.open_nursery() as troubles:
                if "cut off" in trouble:
                    troubles.start_soon(cut, w)
                async with trio.open_nursery() as workers:
                    for worker in range(3):
                        workers.start_soon(work, w.store, worker)
                troubles.cancel_scope.cancel()
            await w.nc.wait_connected()
            await trio.sleep(60)
            w.bucket.lag = 0
            await read(w.store)
            assert not left_over(w.bucket)

    run(main, seed=seed)
