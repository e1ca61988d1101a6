"""Keys and values on a real server: revisions, markers, lists, what expires, and what is compared in a bucket of three replicas."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.clusters import open_cluster
from tests.key_value_model import Model, exercise
from tests.worlds import KeyValueWorld, open_key_value, until
from trionats import JetStream, KeyValue, api, errors, open_client, open_watcher
from trionats.testing import TrioNatsServer

pytestmark = pytest.mark.usefixtures("server_executable")


async def state(w: KeyValueWorld) -> api.StreamState:
    return (await w.js.stream_info(w.kv.stream)).state


async def no_consumers(w: KeyValueWorld) -> None:
    """Wait until the server has deleted those of lists: nobody waits for that."""

    async def none() -> bool:
        return not await w.js.consumers_info(w.kv.stream)

    await until(none, within=5)


@asynccontextmanager
async def open_marking(server: TrioNatsServer, marker_ttl: float = 5, **config: Any) -> AsyncIterator[KeyValueWorld]:  # noqa: ANN401 - any field
    """A bucket with limit markers."""
    async with open_key_value(server, **config) as w:
        await w.js.update_stream(name=w.kv.stream, allow_msg_ttl=True, subject_delete_marker_ttl=marker_ttl)
        yield w


async def test_values_of_every_kind_and_an_empty_one(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server) as w:
        values: list[bytes | str] = [b"1", "é", b"", bytes(range(256)), b"x" * 500_000]
        for number, value in enumerate(values, 1):
            assert await w.kv.put("k", value) == number
            found = await w.kv.get("k")
            assert found.value == (value.encode() if isinstance(value, str) else value)
            assert (found.revision, found.operation, found.delta) == (number, None, 0)
            assert found == await w.kv.get("k", leader=True) == await w.kv.get("k", number)
        assert (await state(w)).messages == 1


async def test_history_holds_the_last_ones_in_order_markers_too(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server, history=5) as w:
        for number in range(8):
            await w.kv.put("k", b"%d" % number)
        other = await w.kv.put("other", b"x")
        await w.kv.delete("k")
        entries = await w.kv.history("k")
        assert [entry.value for entry in entries] == [b"4", b"5", b"6", b"7", b""]
        assert [entry.operation for entry in entries] == [None] * 4 + ["DEL"]
        assert [entry.revision for entry in entries] == [5, 6, 7, 8, 10]
        with pytest.raises(errors.KeyNotFoundError, match="there is no revision 9 of key 'k'"):
            await w.kv.get("k", other)
        with pytest.raises(errors.KeyNotFoundError):
            await w.kv.get("k", 3)
        purged = await w.kv.purge("k")
        assert [(entry.revision, entry.operation) for entry in await w.kv.history("k")] == [(purged, "PURGE")]
        await no_consumers(w)


async def test_keys_are_the_living_ones_that_a_wildcard_matches(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server, history=3) as w:
        for key in ("a.x", "a.y", "a.z", "aa.x", "b.a.x", "c"):
            await w.kv.put(key, b"x" * 100_000)
        await w.kv.delete("a.y")
        await w.kv.purge("a.z")
        await w.kv.delete("c")
        await w.kv.put("c", b"again")
        assert await w.kv.keys("a.*") == ["a.x"]
        assert await w.kv.keys() == ["a.x", "aa.x", "b.a.x", "c"]
        assert await w.kv.keys(["*", "b.>"]) == ["b.a.x", "c"]
        assert await w.kv.keys(["a.*", "a.x", "*.x"]) == ["a.x", "aa.x"], "patterns may overlap"
        assert await w.kv.keys("nothing.>") == []
        await no_consumers(w)


async def test_lists_under_constant_writes_have_each_key_once(nats_server: TrioNatsServer) -> None:
    names = sorted(f"k{number:02}" for number in range(20))
    async with open_key_value(nats_server, history=3) as w:
        for name in names:
            await w.kv.put(name, b"0")

        async def write() -> None:
            number = 0
            while True:
                number += 1
                await w.kv.put(names[number % len(names)], b"%d" % number)

        async with trio.open_nursery() as writers:
            writers.start_soon(write)
            writers.start_soon(write)
            for _ in range(50):
                assert sorted(await w.kv.keys()) == names
                revisions = [entry.revision for entry in await w.kv.history("k07")]
                assert revisions == sorted(set(revisions))
                assert revisions
            writers.cancel_scope.cancel()
        await no_consumers(w)


@pytest.mark.parametrize("what", ["nothing", "only deleted", "all purged while it is read"])
async def test_a_list_of_what_is_not_there_is_empty_and_ends(what: str, nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server, history=3) as w:
        if what != "nothing":
            for number in range(100):
                await w.kv.put(f"k{number}", b"x")
        if what == "only deleted":
            for number in range(100):
                await w.kv.purge(f"k{number}")
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                if what == "all purged while it is read":
                    nursery.start_soon(w.js.purge_stream, w.kv.stream)
                assert set(await w.kv.keys()) <= {f"k{number}" for number in range(100)}
            assert await w.kv.keys() == []
            assert [entry.operation for entry in await w.kv.history("k7")] == (
                ["PURGE"] if what == "only deleted" else []
            )
            assert await w.kv.purge_deletes(-1) == (100 if what == "only deleted" else 0)
        assert (await state(w)).messages == 0
        await no_consumers(w)


async def test_ten_thousand_markers_are_purged_within_seconds_and_younger_ones_stay(
    nats_server: TrioNatsServer,
) -> None:
    async with open_key_value(nats_server, history=2) as w:
        async with trio.open_nursery() as nursery:

            async def mark(first: int) -> None:
                for number in range(first, 10_000, 50):
                    await w.js.publish(f"$KV.{w.kv.bucket}.k{number}", b"", headers={"KV-Operation": "DEL"})

            for first in range(50):
                nursery.start_soon(mark, first)
        await w.kv.put("young", b"1")
        marker = await w.kv.delete("young")
        await w.kv.put("alive", b"1")
        with trio.fail_after(5):
            assert await w.kv.purge_deletes() == 0
        assert [entry.revision for entry in await w.kv.history("young")] == [marker], "only what stands before"
        with trio.fail_after(5):
            assert await w.kv.purge_deletes(-1) == 10_001
        assert await w.kv.keys() == ["alive"]
        assert (await state(w)).messages == 1
        await no_consumers(w)


async def test_a_marker_older_than_asked_for_goes_and_a_newer_one_stays(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server) as w:
        old = await w.kv.delete("old")
        await trio.sleep(0.3)
        young = await w.kv.delete("young")
        assert await w.kv.purge_deletes(0.2) == 1
        assert not await w.kv.history("old")
        assert [entry.revision for entry in await w.kv.history("young")] == [young]
        assert old < young


async def test_a_key_that_expired_is_gone_and_can_be_created_again(nats_server: TrioNatsServer) -> None:
    async with open_marking(nats_server, 60) as w, open_watcher(w.nursery, w.kv) as watcher:
        revision = await w.kv.create("k", b"lock", msg_ttl=1)
        assert (await watcher.receive()).revision == revision
        marker = await watcher.receive()
        assert (marker.key, marker.operation) == ("k", "PURGE")
        with pytest.raises(errors.KeyDeletedError, match="purged, or its time is over") as gone:
            await w.kv.get("k")
        assert gone.value.op == "PURGE"
        assert gone.value.entry.revision == marker.revision
        assert await w.kv.keys() == []
        # Who held it before has lost it.
        with pytest.raises(errors.KeyWrongLastSequenceError):
            await w.kv.update("k", b"mine", revision)
        with pytest.raises(errors.KeyWrongLastSequenceError):
            await w.kv.update("k", b"mine", 0)
        assert await w.kv.create("k", b"again") == marker.revision + 1


async def test_a_purged_key_leaves_its_marker_for_as_long_as_it_was_told(nats_server: TrioNatsServer) -> None:
    async with open_marking(nats_server, 1) as w:
        await w.kv.put("k", b"1")
        await w.kv.purge("k", msg_ttl=1)
        await w.kv.purge("kept", msg_ttl="never")

        async def gone() -> bool:
            return (await state(w)).messages == 1

        await until(gone, pause=0.05)
        with pytest.raises(errors.KeyNotFoundError, match="there is no key 'k'"):
            await w.kv.get("k")
        assert await w.kv.update("k", b"again", 0) > 2
        with pytest.raises(errors.KeyDeletedError):
            await w.kv.get("kept")


async def test_a_ttl_in_a_bucket_without_limit_markers_is_refused_by_name(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server) as w:
        with pytest.raises(errors.BadRequestError, match="msg_ttl needs a bucket with limit markers") as caught:
            await w.kv.create("k", b"x", msg_ttl=5)
        assert caught.value.err_code == 10166
        with pytest.raises(errors.KeyNotFoundError):
            await w.kv.get("k")


async def test_of_many_who_create_a_key_one_succeeds_whatever_stands_there(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server) as w:
        for before in ("nothing", "deleted", "purged"):
            key = f"key.{before}"
            if before == "deleted":
                await w.kv.delete(key)
            elif before == "purged":
                await w.kv.purge(key)
            won, lost = await race(w.kv, key, 20)
            assert (len(won), lost) == (1, 19)
            assert (await w.kv.get(key)).value == won[0]


async def race(kv: KeyValue, key: str, count: int) -> tuple[list[bytes], int]:
    won: list[bytes] = []
    lost = 0

    async def create(value: bytes) -> None:
        nonlocal lost
        try:
            await kv.create(key, value)
        except errors.KeyWrongLastSequenceError:
            lost += 1
        else:
            won.append(value)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(create, b"%d" % number)
    return won, lost


async def test_a_bucket_that_was_deleted_is_not_there(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server) as w:
        await w.js.delete_stream(w.kv.stream)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: w.kv.get("k"),
            lambda: w.kv.get("k", 1),
            lambda: w.kv.history("k"),
            w.kv.keys,
            w.kv.purge_deletes,
        ]
        for call in calls:
            with pytest.raises(errors.BucketNotFoundError, match=f"there is no key-value bucket '{w.kv.bucket}'"):
                await call()
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: w.kv.put("k", b"x"),
            lambda: w.kv.create("k"),
            lambda: w.kv.update("k", b"x", 1),
            lambda: w.kv.delete("k"),
            lambda: w.kv.purge("k"),
        ]
        for write in writes:
            with pytest.raises(
                errors.NoStreamResponseError, match=rf"^\w+ of key 'k' \w+ bucket '{w.kv.bucket}': no stream"
            ):
                await write()


async def test_what_a_get_a_list_and_a_watcher_say_of_a_revision_is_the_same(nats_server: TrioNatsServer) -> None:
    async with open_key_value(nats_server) as w, open_watcher(w.nursery, w.kv) as watcher:
        for number in range(50):
            await w.kv.put(f"k{number}", b"x")
        for number in range(50):
            seen = await watcher.receive()
            got = await w.kv.get(f"k{number}")
            listed = (await w.kv.history(f"k{number}"))[0]
            assert (seen.key, seen.value, seen.revision) == (got.key, got.value, got.revision)
            assert got.created == seen.created == listed.created
            assert got.revision == listed.revision


# -- against a model -----------------------------------------------------------------------------------------------------


class LostAcknowledgements:
    """A way to a real server on which acknowledgements get lost with their connection: what they were for was done."""

    def __init__(self) -> None:
        self.losing = False
        self.lost = 0

    lagging = False

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        return Losing(self, await trio.open_tcp_stream(host, port))

    def begin(self, rng: random.Random) -> None:
        self.losing = rng.random() < 0.2

    def end(self) -> None:
        self.losing = False

    def catch_up(self) -> None:
        """There is one replica."""


class Losing(trio.abc.Stream):
    """A connection that breaks in front of the next acknowledgement."""

    def __init__(self, faults: LostAcknowledgements, stream: trio.SocketStream) -> None:
        self._faults, self._stream = faults, stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._stream.receive_some(max_bytes)
        if self._faults.losing and b'"seq":' in data:
            self._faults.losing = False
            self._faults.lost += 1
            await self._stream.aclose()
            return b""
        return bytes(data)

    async def aclose(self) -> None:
        await self._stream.aclose()


@pytest.mark.live(seconds=30)
@pytest.mark.parametrize("history", [1, 3])
async def test_a_bucket_is_what_a_dict_of_revisions_is_on_a_real_server(
    history: int, nats_server: TrioNatsServer
) -> None:
    rng = random.Random(history)
    faults = LostAcknowledgements()
    options = {"dial": faults.dial, "reconnect_time_wait": 0.01, "request_timeout": 20}
    async with open_key_value(nats_server, client=options, history=history) as w:
        await exercise(w.kv, Model(history), faults, rng, steps=150)
        assert faults.lost


# -- three replicas --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_replicated() -> AsyncIterator[tuple[JetStream, KeyValue]]:
    async with (
        open_cluster(jetstream=True) as cluster,
        trio.open_nursery() as nursery,
        open_client(nursery, cluster.urls) as nc,
    ):
        js = nc.jetstream()
        while True:  # until there is a leader of all
            with trio.move_on_after(2):
                try:
                    kv = await js.create_key_value(bucket="b", history=3)
                    await js.update_stream(name="KV_b", num_replicas=3)
                    break
                except errors.APIError:
                    await trio.sleep(0.1)

        async def whole() -> bool:
            cluster_info = (await js.stream_info("KV_b")).cluster
            peers = cluster_info.replicas or [] if cluster_info is not None else []
            return len(peers) == 2 and all(peer.current for peer in peers)

        await until(whole, within=20, pause=0.05)
        yield js, kv


@pytest.mark.live(seconds=60)
async def test_what_is_lost_in_a_replicated_bucket_is_one_error_and_one_creator_wins() -> None:
    async with open_replicated() as (_, kv):
        for number in range(100):
            assert await kv.put("mine", b"%d" % number) == (await kv.get("mine", leader=True)).revision
        first = await kv.create("k", b"1")
        for call in (
            kv.create("k", b"2"),
            kv.update("k", b"2", first + 7),
            kv.update("k", b"2", 0),
            kv.delete("k", first + 7),
            kv.purge("k", last=first + 7),
        ):
            with pytest.raises(errors.KeyWrongLastSequenceError):
                await call
        for number in range(20):
            # Updates that are under way together are refused with a number of their own.
            won, lost = await race(kv, f"r{number}", 10)
            assert (len(won), lost) == (1, 9)
            await kv.delete(f"r{number}")
            won, lost = await race(kv, f"r{number}", 10)
            assert (len(won), lost) == (1, 9)
            assert (await kv.get(f"r{number}", leader=True)).value == won[0]
