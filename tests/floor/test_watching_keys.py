"""Watchers of key-value buckets over a bucket in memory: their options, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio

from tests.worlds import find_store, open_keys, settled, until
from trionats import Base64Codec, Watcher, errors, open_watcher
from trionats.api import KeyValueEntry

pytestmark = pytest.mark.usefixtures("autojump_clock")


def shown(entries: list[KeyValueEntry]) -> list[tuple[str, bytes, int, str | None]]:
    return [(entry.key, entry.value, entry.revision, entry.operation) for entry in entries]


def keys(entries: list[KeyValueEntry]) -> list[str]:
    return [entry.key for entry in entries]


async def test_a_watcher_gives_what_is_stored_and_then_what_happens() -> None:
    async with open_keys(history=2) as w:
        for key, value in (("a", b"1"), ("b.c", b"2"), ("a", b"3")):
            w.bucket.set(key, value)
        async with open_watcher(w.nursery, w.kv) as rx:
            assert isinstance(rx, Watcher)
            assert shown(await rx.snapshot()) == [("b.c", b"2", 2, None), ("a", b"3", 3, None)]
            w.bucket.mark("a", "DEL")
            w.bucket.mark("b.c", "MaxAge")
            seen = [await rx.receive() for _ in range(2)]
            assert shown(seen) == [("a", b"", 4, "DEL"), ("b.c", b"", 5, "PURGE")]


@pytest.mark.parametrize("marker", ["DEL", "PURGE", "MaxAge", "Purge", "Remove", "SomethingNew"])
async def test_markers_of_all_kinds_are_left_out_where_nobody_wants_deletes(marker: str) -> None:
    async with open_keys() as w:
        w.bucket.set("a")
        w.bucket.mark("b", marker)
        async with open_watcher(w.nursery, w.kv, ignore_deletes=True) as rx:
            assert keys(await rx.snapshot()) == ["a"]
            w.bucket.mark("a", marker)
            w.bucket.set("c")
            assert (await rx.receive()).key == "c"
        async with open_watcher(w.nursery, w.kv) as rx:
            expected = "DEL" if marker in ("DEL", "Remove", "SomethingNew") else "PURGE"
            assert [entry.operation for entry in await rx.snapshot()] == [expected, expected, None]


@pytest.mark.parametrize(
    ("wanted", "sent", "expected"),
    [
        (">", "$KV.b.>", ["a", "b.c", "b.d.e", "f"]),
        ("b.*", "$KV.b.b.*", ["b.c"]),
        (["a", "b.>"], ["$KV.b.a", "$KV.b.b.>"], ["a", "b.c", "b.d.e"]),
        (("b.c", "b.*", "b.>", "b.c"), "$KV.b.b.>", ["b.c", "b.d.e"]),
        (["f", ">"], "$KV.b.>", ["a", "b.c", "b.d.e", "f"]),
        (["b.*.e", "*.d.*"], ["$KV.b.b.*.e", "$KV.b.*.d.*"], ["b.d.e"]),
    ],
)
async def test_keys_are_chosen_by_the_server_and_patterns_may_overlap(
    wanted: str | list[str], sent: str | list[str], expected: list[str]
) -> None:
    async with open_keys() as w:
        for key in ("a", "b.c", "b.d.e", "f"):
            w.bucket.set(key)
        async with open_watcher(w.nursery, w.kv, keys=wanted) as rx:
            assert keys(await rx.snapshot()) == expected
            (consumer,) = w.bucket.consumers.values()
            assert consumer.config["filter_subject" if isinstance(sent, str) else "filter_subjects"] == sent
            created = w.bucket.server.sent("PUB", "$JS.API.CONSUMER.CREATE.>")[-1].subject
            # One filter stands in the subject, where permissions see it.
            assert created.endswith(f".{sent}") is isinstance(sent, str)


async def test_history_updates_and_values_left_on_the_server() -> None:
    async with open_keys(history=3) as w:
        for number in b"123":
            w.bucket.set("a", bytes([number]))
        async with open_watcher(w.nursery, w.kv, include_history=True) as rx:
            assert [entry.value for entry in await rx.snapshot()] == [b"1", b"2", b"3"]
        async with open_watcher(w.nursery, w.kv, updates_only=True) as rx:
            assert rx.caught_up
            assert await rx.snapshot() == []
            w.bucket.set("b", b"4")
            assert (await rx.receive()).key == "b"
        async with open_watcher(w.nursery, w.kv, meta_only=True):
            (consumer,) = w.bucket.consumers.values()
            assert consumer.config["headers_only"] is True


async def test_a_watcher_resumes_with_a_revision() -> None:
    async with open_keys(history=5) as w:
        for key in "abab":
            w.bucket.set(key)
        async with open_watcher(w.nursery, w.kv, resume_from_revision=2) as rx:
            assert not rx.caught_up
            assert [entry.revision for entry in await rx.snapshot()] == [2, 3, 4]
            w.bucket.set("c")
            assert (await rx.receive()).revision == 5
        async with open_watcher(w.nursery, w.kv, resume_from_revision=6, ignore_deletes=True) as rx:
            assert rx.caught_up
            w.bucket.mark("a")
            w.bucket.set("d")
            assert (await rx.receive()).revision == 7


async def test_a_revision_that_is_gone_or_never_was_is_refused_and_leaves_nothing() -> None:
    async with open_keys() as w:
        for key in "abab":
            w.bucket.set(key)
        with pytest.raises(errors.RevisionGoneError, match=r"'KV_b': revision 2 is gone: .* begins with 3") as gone:
            async with open_watcher(w.nursery, w.kv, resume_from_revision=2):
                pass
        assert (gone.value.revision, gone.value.first) == (2, 3)
        for on_recreate in ("fail", "restart"):
            with pytest.raises(errors.StreamRegressedError, match=r"'KV_b' .* sequence 5, but its last sequence is 4"):
                async with open_watcher(w.nursery, w.kv, resume_from_revision=6, on_recreate=on_recreate):
                    pass
        await w.nc.flush()
        assert not w.bucket.consumers


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"include_history": True, "updates_only": True}, ValueError, "include_history and updates_only exclude"),
        (
            {"include_history": True, "resume_from_revision": 3},
            ValueError,
            "include_history and resume_from_revision exclude",
        ),
        (
            {"updates_only": True, "resume_from_revision": 3},
            ValueError,
            "updates_only and resume_from_revision exclude",
        ),
        ({"resume_from_revision": 0}, ValueError, "resume_from_revision must be 1 or more, not 0"),
        ({"resume_from_revision": -1}, ValueError, "resume_from_revision"),
        ({"resume_from_revision": 1 << 63}, ValueError, "resume_from_revision"),
        ({"resume_from_revision": "7"}, TypeError, "resume_from_revision"),
        ({"resume_from_revision": True}, TypeError, "resume_from_revision"),
        ({"meta_only": 1}, TypeError, "meta_only"),
        ({"ignore_deletes": 1}, TypeError, "ignore_deletes must be True or False, not int"),
        ({"include_history": "yes"}, TypeError, "include_history must be True or False, not str"),
        ({"updates_only": None}, TypeError, "updates_only must be True or False, not None"),
        ({"keys": []}, ValueError, "keys of key-value bucket 'b': an empty sequence"),
        ({"keys": 7}, TypeError, "keys of key-value bucket 'b' must be a pattern or several, not int"),
        ({"keys": b"a"}, TypeError, "must be text"),
        ({"keys": ["a", 7]}, TypeError, "7.*: it must be text"),
        ({"keys": "a..b"}, errors.InvalidKeyError, re.escape("filter 'a..b' of bucket 'b'")),
        ({"keys": ["a", ">.b"]}, errors.InvalidKeyError, "filter '>.b'"),
        ({"on_recreate": "ignore"}, ValueError, "on_recreate must be 'fail' or 'restart'"),
        ({"timeout": 1}, TypeError, r"open_watcher\(\) takes no timeout: deadlines are cancel scopes"),
        ({"headers_only": True}, TypeError, r"'headers_only': meta_only leaves out the values"),
        ({"filters": "a"}, TypeError, r"open_watcher\(\) got an unexpected keyword argument 'filters'"),
    ],
)
async def test_options_that_cannot_be_are_refused_before_anything_is_sent(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    async with open_keys() as w:
        asked = len(w.bucket.server.sent("PUB", "$JS.API.>"))
        with pytest.raises(error, match=text):
            async with open_watcher(w.nursery, w.kv, **options):
                pass
        with pytest.raises(error, match=text):
            async with open_watcher(w.nursery, w.kv.with_codecs(values=Base64Codec()), **options):
                pass
        assert len(w.bucket.server.sent("PUB", "$JS.API.>")) == asked


@pytest.mark.parametrize("option", [{"keys": ">"}, {"meta_only": False}, {"resume_from_revision": 3}])
async def test_options_for_keys_are_refused_of_object_stores(option: dict[str, Any]) -> None:
    async with open_keys() as w:
        store = find_store(w.nc)
        with pytest.raises(TypeError, match=f"{next(iter(option))} is for key-value buckets, not for an ObjectStore"):
            async with open_watcher(w.nursery, store, **option):
                pass
        assert not w.bucket.consumers


async def test_a_barrier_sees_whose_hands_a_snapshot_is_in() -> None:
    """It takes what waits in one go, and is not done with it before it comes back."""
    async with open_keys() as w:
        for number in range(10):
            w.bucket.set(f"k{number}", b"x")
        async with open_watcher(w.nursery, w.kv) as rx, trio.open_nursery() as workers:
            await until(lambda: len(rx) == 10, pause=0)
            worked_off = trio.Event()

            async def wait() -> None:
                await w.nc.barrier()
                worked_off.set()

            workers.start_soon(wait)
            await settled()
            assert len(await rx.snapshot()) == 10
            await settled()
            assert not worked_off.is_set()
            with pytest.raises(trio.WouldBlock):
                rx.receive_nowait()
            await worked_off.wait()
