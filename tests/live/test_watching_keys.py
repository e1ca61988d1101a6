"""Watchers of key-value buckets on a real server."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio

from tests.worlds import KeyValueWorld, open_key_value, reconnected, until
from trionats import api, errors, open_watcher
from trionats.testing import open_server

if TYPE_CHECKING:
    from trionats.testing import TrioNatsServer

KEYS = [f"k.{number}" for number in range(40)]


async def fill(w: KeyValueWorld, *keys: str) -> list[int]:
    return [await w.kv.put(key, b"v" * 10) for key in keys]


async def mark(w: KeyValueWorld, key: str, operation: str = "DEL") -> int:
    headers = {"KV-Operation": operation, **({"Nats-Rollup": "sub"} if operation == "PURGE" else {})}
    return (await w.js.publish(f"$KV.{w.kv.bucket}.{key}", headers=headers)).seq


async def consumers(w: KeyValueWorld) -> int:
    return len(await w.js.consumer_names(w.kv.stream))


def keys(entries: list[api.KeyValueEntry]) -> list[str]:
    return [entry.key for entry in entries]


def revisions(entries: list[api.KeyValueEntry]) -> list[int]:
    return [entry.revision for entry in entries]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("a.*", ["a.1", "a.2"]),
        (["a.1", "b.>"], ["a.1", "b.1.x"]),
        (["a.*", "a.1", "a.>"], ["a.1", "a.2"]),
        (["a.*", "*.1", "*.2"], ["a.1", "a.2", "c.1"]),
        (["*.1.x", "b.*.*"], ["b.1.x"]),
    ],
)
async def test_each_key_comes_once_however_the_patterns_overlap(
    nats_server: TrioNatsServer, wanted: str | list[str], expected: list[str]
) -> None:
    async with open_key_value(nats_server, history=2) as w:
        await fill(w, "a.1", "a.2", "b.1.x", "c.1")
        async with open_watcher(w.nursery, w.kv, keys=wanted) as rx:
            assert keys(await rx.snapshot()) == expected
            await fill(w, "a.1", "a.2", "b.1.x", "c.1")
            assert [(await rx.receive()).key for _ in expected] == expected
        await until(lambda: nothing_left(w))


async def nothing_left(w: KeyValueWorld) -> bool:
    return not await consumers(w)


async def test_what_the_options_leave_out_and_add(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server, history=3) as w:
        await fill(w, "a", "b", "a", "c")
        await mark(w, "b")
        await mark(w, "c", "PURGE")

        async def snapshot(**options: Any) -> list[tuple[str, bytes, str | None]]:  # noqa: ANN401 - open_watcher's
            async with open_watcher(w.nursery, w.kv, **options) as rx:
                return [(entry.key, entry.value[:1], entry.operation) for entry in await rx.snapshot()]

        assert await snapshot() == [("a", b"v", None), ("b", b"", "DEL"), ("c", b"", "PURGE")]
        assert await snapshot(ignore_deletes=True) == [("a", b"v", None)]
        assert await snapshot(meta_only=True) == [("a", b"", None), ("b", b"", "DEL"), ("c", b"", "PURGE")]
        assert await snapshot(include_history=True, ignore_deletes=True) == [
            ("a", b"v", None),
            ("b", b"v", None),
            ("a", b"v", None),
        ]
        assert await snapshot(updates_only=True) == []


@pytest.mark.parametrize("ignore_deletes", [False, True])
@pytest.mark.parametrize("state", ["empty", "only deleted", "purged while it opens"])
@pytest.mark.parametrize("history", [1, 5])
async def test_the_end_is_never_lost(
    nats_server: TrioNatsServer, state: str, ignore_deletes: bool, history: int
) -> None:
    async with open_key_value(nats_server, history=history) as w:
        if state == "only deleted":
            for key in ("a", "b"):
                await fill(w, key)
                await mark(w, key)
        elif state == "purged while it opens":
            for number in range(2000):
                await w.nc.publish(f"$KV.{w.kv.bucket}.{number}", b"x")
            await fill(w, *KEYS)
        async with open_watcher(w.nursery, w.kv, ignore_deletes=ignore_deletes) as rx:
            if state == "purged while it opens":
                await w.js.purge_stream(w.kv.stream)
            with trio.fail_after(5):
                seen = await rx.snapshot()
            assert rx.caught_up
            assert len(seen) == (2 if state == "only deleted" and not ignore_deletes else len(seen))
            assert len(seen) < 2000
            await fill(w, "later")
            assert (await rx.receive()).key == "later"


@pytest.mark.parametrize("history", [1, 2, 5])
async def test_snapshots_under_constant_writes_have_each_key_once(nats_server: TrioNatsServer, history: int) -> None:
    async with open_key_value(nats_server, history=history) as w:
        for _ in range(history):
            await fill(w, *KEYS)

        async def keep_writing() -> None:
            while True:
                for _ in range(20):
                    await w.nc.publish(f"$KV.{w.kv.bucket}.{random.choice(KEYS)}", b"x")
                await fill(w, random.choice(KEYS))

        async with trio.open_nursery() as writers:
            writers.start_soon(keep_writing)
            for _ in range(40):
                async with open_watcher(w.nursery, w.kv) as rx:
                    with trio.fail_after(5):
                        seen = await rx.snapshot()
                    assert sorted(keys(seen)) == sorted(KEYS)
                    assert revisions(seen) == sorted(revisions(seen))
            writers.cancel_scope.cancel()


@pytest.mark.parametrize("storage", [api.StorageType.MEMORY, api.StorageType.FILE])
async def test_a_watcher_resumes_where_another_one_was(nats_server: TrioNatsServer, storage: api.StorageType) -> None:
    async with open_key_value(nats_server, storage=storage) as w:
        await fill(w, "a", "b", "c")
        async with open_watcher(w.nursery, w.kv) as rx:
            last = (await rx.snapshot())[-1].revision
        async with open_watcher(w.nursery, w.kv, resume_from_revision=last + 1) as rx:
            assert rx.caught_up
            await fill(w, "d")
            assert (await rx.receive()).revision == 4
        await fill(w, "b", "d")
        async with open_watcher(w.nursery, w.kv, keys=["b", "d"], resume_from_revision=last + 1) as rx:
            assert revisions(await rx.snapshot()) == [5, 6]
        # The first is still there, so what was replaced in between is no gap.
        async with open_watcher(w.nursery, w.kv, resume_from_revision=2) as rx:
            assert revisions(await rx.snapshot()) == [3, 5, 6]
        await until(lambda: nothing_left(w))


async def test_a_revision_that_is_gone_is_named_with_the_first_that_there_is(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server) as w:
        await fill(w, "a", "b", "a", "c")
        with pytest.raises(errors.RevisionGoneError, match="revision 1 is gone: what is stored begins with 2"):
            async with open_watcher(w.nursery, w.kv, resume_from_revision=1):
                pass
        with pytest.raises(errors.RevisionGoneError) as gone:
            async with open_watcher(w.nursery, w.kv, keys="c", resume_from_revision=1):
                pass
        assert (gone.value.revision, gone.value.first) == (1, 2)
        await w.js.purge_stream(w.kv.stream)
        with pytest.raises(errors.RevisionGoneError, match="revision 4 is gone: what is stored begins with 5"):
            async with open_watcher(w.nursery, w.kv, resume_from_revision=4):
                pass
        async with open_watcher(w.nursery, w.kv, resume_from_revision=5) as rx:
            assert rx.caught_up
            await fill(w, "a")
            assert (await rx.receive()).revision == 5
        await until(lambda: nothing_left(w))


@pytest.mark.parametrize("on_recreate", ["fail", "restart"])
async def test_a_bucket_made_anew_is_no_place_to_resume(
    nats_server: TrioNatsServer, on_recreate: Literal["fail", "restart"]
) -> None:
    async with open_key_value(nats_server) as w:
        await fill(w, *KEYS)
        await w.js.delete_stream(w.kv.stream)
        await w.js.create_key_value(bucket=w.kv.bucket, storage=api.StorageType.MEMORY)
        await fill(w, "a")
        with pytest.raises(errors.StreamRegressedError, match="read up to sequence 40, but its last sequence is 1"):
            async with open_watcher(w.nursery, w.kv, resume_from_revision=41, on_recreate=on_recreate):
                pass
        await until(lambda: nothing_left(w))


async def test_a_bucket_made_anew_under_a_watcher_that_resumed_is_read_whole(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server, history=2) as w:
        await fill(w, *KEYS)
        async with (
            open_watcher(w.nursery, w.kv, resume_from_revision=39, on_recreate="restart") as rx,
            open_watcher(w.nursery, w.kv, resume_from_revision=39) as failing,
        ):
            assert revisions(await rx.snapshot()) == [39, 40]
            await failing.snapshot()
            await w.js.delete_stream(w.kv.stream)
            await w.js.create_key_value(bucket=w.kv.bucket, history=2, storage=api.StorageType.MEMORY)
            await fill(w, "a", "a", "b")
            with trio.fail_after(5):
                assert [(await rx.receive()).revision for _ in range(3)] == [1, 2, 3]
                with pytest.raises(errors.StreamRegressedError):
                    await failing.receive()


async def test_what_leaves_no_marker_leaves_no_word(nats_server: TrioNatsServer) -> None:
    """A filtered purge, a deleted message, and a TTL that ends where a key has a history."""
    async with open_key_value(nats_server, history=2) as w:
        config = (await w.js.stream_info(w.kv.stream)).config
        await w.js.update_stream(config, allow_msg_ttl=True)
        revision, *_ = await fill(w, "a", "b", "c")
        await w.js.publish(f"$KV.{w.kv.bucket}.a", b"short", msg_ttl=1)
        async with open_watcher(w.nursery, w.kv) as rx:
            assert keys(await rx.snapshot()) == ["b", "c", "a"]
            await w.js.purge_stream(w.kv.stream, subject=f"$KV.{w.kv.bucket}.b")

            async def uncovered() -> bool:
                return (await w.kv.get("a")).revision == revision

            await until(uncovered)
            await fill(w, "d")
            assert (await rx.receive()).key == "d"
        async with open_watcher(w.nursery, w.kv) as rx:
            assert keys(await rx.snapshot()) == ["a", "c", "d"]


async def test_the_servers_own_markers_come_as_purges(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server) as w:
        config = (await w.js.stream_info(w.kv.stream)).config
        await w.js.update_stream(config, allow_msg_ttl=True, subject_delete_marker_ttl=60)
        await w.js.publish(f"$KV.{w.kv.bucket}.a", b"short", msg_ttl=1)
        async with (
            open_watcher(w.nursery, w.kv) as rx,
            open_watcher(w.nursery, w.kv, ignore_deletes=True) as only_values,
        ):
            with trio.fail_after(5):
                seen = [await rx.receive() for _ in range(2)]
            assert [(entry.key, entry.operation, entry.value) for entry in seen] == [
                ("a", None, b"short"),
                ("a", "PURGE", b""),
            ]
            await fill(w, "b")
            assert keys([await only_values.receive() for _ in range(2)]) == ["a", "b"]


@pytest.mark.parametrize("busy", [True, False])
async def test_a_killed_server_that_comes_back(busy: bool) -> None:
    """Who receives all the time, and who did not receive while it was away, both go on without gap or duplicate."""
    async with (
        open_server(jetstream=True) as server,
        open_key_value(server, {"reconnect_time_wait": 0.05}, storage=api.StorageType.FILE) as w,
        open_watcher(w.nursery, w.kv) as rx,
    ):
        await fill(w, "a", "b")
        seen = revisions([await rx.receive() for _ in range(2)]) if busy else []
        await server.restart(kill=True)
        await reconnected(w.nc)
        await fill(w, "c", "a")
        # Where nobody received, the first state of "a" may have been replaced before it was sent.
        while not seen or seen[-1] < 4:
            seen.append((await rx.receive()).revision)
        assert seen in ([1, 2, 3, 4], [2, 3, 4])
        assert seen[0] == 1 or not busy


async def test_a_mirror_is_watched_under_the_keys_of_its_origin(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server, history=3) as w:
        await fill(w, "a", "b")
        origin = api.StreamSource(w.kv.bucket)
        mirror = await w.js.create_key_value(
            bucket=f"{w.kv.bucket}-m", mirror=origin, history=3, storage=api.StorageType.MEMORY
        )
        try:
            async with (
                open_watcher(w.nursery, mirror) as rx,
                open_watcher(w.nursery, mirror.read_only(), keys="b", updates_only=True) as only_b,
            ):
                # What the mirror holds when it opens is its own affair: it may not have all of the origin yet.
                seen = keys([await rx.receive() for _ in range(2)])
                await mirror.put("b", b"2")
                await mark(w, "a", "PURGE")
                seen += keys([await rx.receive() for _ in range(2)])
                assert seen == ["a", "b", "b", "a"]
                while (entry := await only_b.receive()).value != b"2":
                    assert entry.key == "b"
            async with open_watcher(w.nursery, mirror, resume_from_revision=3) as rx:
                assert [(entry.key, entry.revision, entry.operation) for entry in await rx.snapshot()] == [
                    ("b", 3, None),
                    ("a", 4, "PURGE"),
                ]
        finally:
            with trio.move_on_after(2, shield=True):
                await w.js.delete_stream(mirror.stream)


async def test_twenty_lost_consumers_leave_one_and_no_gap(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server, history=2) as w, open_watcher(w.nursery, w.kv, keys=["k.>", "a"]) as rx:
        for number in range(20):
            revision, *_ = await fill(w, f"k.{number}")
            assert (await rx.receive()).revision == revision
            for name in await w.js.consumer_names(w.kv.stream):
                await w.js.delete_consumer(w.kv.stream, name)
        revision, *_ = await fill(w, "a")
        with trio.fail_after(10):
            assert (await rx.receive()).revision == revision
        assert await consumers(w) == 1
