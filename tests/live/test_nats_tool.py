"""Buckets, backups and services shared with the `nats` tool, and so with nats.go: skipped where there is no Go, or no proxy to build it from."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.go_programs import find_go_program
from tests.worlds import open_key_value, open_store, open_stream, open_world, unique
from trionats import ServiceRequest, Stream, api, errors, open_service, open_watcher
from trionats.testing import TrioNatsServer

VERSION = "v0.5.0"

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=60)]

Tool = Callable[..., Awaitable[str]]


@pytest.fixture(scope="module")
def executable() -> Path:
    return find_go_program("github.com/nats-io/natscli/nats", VERSION)


@pytest.fixture
def tool(executable: Path, nats_server: TrioNatsServer, tmp_path: Path) -> Tool:
    """Give what runs it, away from the contexts that the user has, and gives what it says."""

    async def run(*arguments: str, check: bool = True) -> str:
        command = [str(executable), "--server", nats_server.url, *arguments]
        environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
        done = await trio.run_process(
            command, env=environment, check=check, capture_stdout=True, capture_stderr=True, stdin=b""
        )
        return (done.stdout + done.stderr).decode()

    return run


async def test_the_tool_and_we_read_the_keys_that_the_other_wrote(tool: Tool, nats_server: TrioNatsServer) -> None:
    async with (
        open_key_value(nats_server, history=3, limit_marker_ttl=60) as w,
        open_watcher(w.nursery, w.kv) as rx,
    ):
        name = w.kv.bucket
        await w.kv.put("a", "1")
        await w.kv.put("b.c", "2")
        await w.kv.delete("b.c")
        await w.kv.purge("p")
        await w.kv.create("t", "x", msg_ttl=60)
        assert await tool("kv", "get", name, "a", "--raw") == "1"
        assert (await tool("kv", "ls", name)).split() == ["a", "t"]
        assert "key not found" in await tool("kv", "get", name, "b.c", "--raw", check=False)
        history = await tool("kv", "history", name, "b.c")
        assert [word for word in history.split() if word in ("PUT", "DELETE")] == ["PUT", "DELETE"]
        status = await tool("kv", "status", name)
        assert "Limit Marker TTL: 1m0s" in status
        assert "History Kept: 3" in status
        await tool("kv", "put", name, "theirs", "v")
        await tool("kv", "create", name, "b.c", "over ours")
        await tool("kv", "del", name, "theirs", "-f")
        await tool("kv", "purge", name, "a", "-f")
        await w.kv.put("last", "")
        told = [await rx.receive() for _ in range(10)]
        assert [(one.key, one.value, one.operation) for one in told[5:]] == [
            ("theirs", b"v", None),
            ("b.c", b"over ours", None),
            ("theirs", b"", "DEL"),
            ("a", b"", "PURGE"),
            ("last", b"", None),
        ]
        assert await w.kv.keys() == ["t", "b.c", "last"]


async def test_a_mirror_of_either_is_written_by_both_and_looks_empty_to_the_tool(
    tool: Tool, nats_server: TrioNatsServer
) -> None:
    async with open_key_value(nats_server) as w:
        await w.kv.put("k", "origin's")
        ours, theirs = unique("m"), unique("m")
        mirror = api.StreamSource(w.kv.bucket)
        await w.js.create_key_value(bucket=ours, mirror=mirror, storage=api.StorageType.MEMORY)
        await tool("kv", "add", theirs, f"--mirror={w.kv.bucket}", "--storage=memory")
        for name in (ours, theirs):
            kv = await w.js.key_value(name)
            async with open_watcher(w.nursery, kv) as rx:
                assert (await rx.receive()).value == b"origin's"
            assert await kv.keys() == ["k"]
            assert "No keys" in await tool("kv", "ls", name)
            assert "key not found" in await tool("kv", "get", name, "k", "--raw", check=False)
        await tool("kv", "put", ours, "k", "through ours")
        assert (await w.kv.get("k", leader=True)).value == b"through ours"
        await (await w.js.key_value(theirs)).put("k", "through theirs")
        assert (await w.kv.get("k", leader=True)).value == b"through theirs"
        for name in (ours, theirs):
            await w.js.delete_key_value(name)


async def test_the_tool_and_we_read_the_objects_that_the_other_put(
    tool: Tool, nats_server: TrioNatsServer, tmp_path: Path
) -> None:
    async with open_store(nats_server) as (store, _, _):
        name = store.bucket
        meta = api.ObjectMeta(description="d", headers={"A": ["1"]}, metadata={"m": "x"})
        await store.put("café", b"data" * 100_000, meta)
        await store.add_link("link", await store.get_info("café"))
        await store.put("gone", "x")
        await store.delete("gone")
        for number, one in enumerate(("café", "link")):
            path = tmp_path / str(number)
            await tool("object", "get", name, one, f"--output={path}", "--no-progress")
            assert path.read_bytes() == b"data" * 100_000
        listed = await tool("object", "ls", name)
        assert "café" in listed
        assert "gone" not in listed
        said = " ".join((await tool("object", "info", name, "café")).split())
        for part in ("Description: d", "Headers: A: 1", "Chunks: 4", "m: x"):
            assert part in said
        (tmp_path / "file").write_bytes(b"theirs" * 50_000)
        await tool(*("object", "put", name, str(tmp_path / "file"), "--name=naïve", "--no-progress", "-H", "A:2", "-f"))
        result = await store.get("naïve")
        assert (result.data, result.info.headers) == (b"theirs" * 50_000, {"A": ["2"]})
        await tool("object", "del", name, "naïve", "-f")
        with pytest.raises(errors.ObjectDeletedError):
            await store.get("naïve")
        await tool("object", "del", name, "café", "-f")
        assert [info.name for info in await store.list()] == ["link"]
        assert await store.orphans() == []


async def test_a_backup_of_either_is_restored_by_the_other(
    tool: Tool, nats_server: TrioNatsServer, tmp_path: Path
) -> None:
    async with open_stream(nats_server, storage=api.StorageType.FILE, description="d") as w:
        name = w.stream.name
        for number in range(20):
            await w.js.publish(w.subject, b"%d" % number * 50_000, headers={"Number": str(number)})
        consumer = await w.stream.create_consumer(durable_name="C", ack_policy="explicit")
        for msg in await consumer.fetch(5):
            await msg.ack_sync()
        await w.stream.backup(tmp_path / "ours")
        said = await tool("backup", "stream", name, str(tmp_path / "theirs"), "--no-progress")
        assert "Received" in said
        files = {kind: names_in(tmp_path / kind) for kind in ("ours", "theirs")}
        assert files["ours"] == files["theirs"], "the same names"

        async def see(stream: Stream) -> None:
            info = await stream.info()
            assert (info.config.description, info.state.messages, info.state.last_seq) == ("d", 20, 20)
            assert (await stream.get_msg(20)).data == b"19" * 50_000
            assert dict((await stream.get_msg(7)).headers) == {"Number": "6"}
            [back] = await stream.consumers_info()
            assert (back.name, back.ack_floor and back.ack_floor.stream_seq, back.num_pending) == ("C", 5, 15)

        await w.stream.delete()
        said = await tool("backup", "restore", "stream", str(tmp_path / "ours"), "--no-progress")
        assert f'Restored stream "{name}"' in said
        await see(w.stream)
        if "stream.arc.s2" in files["ours"]:
            # Which looks at the checksums, too.
            assert (await tool("backup", "validate", str(tmp_path / "ours"), "--no-progress")).startswith("OK: ")
        await w.stream.delete()
        await see(await w.js.restore_stream(tmp_path / "theirs"))


async def test_the_tool_finds_and_reads_our_services(tool: Tool, nats_server: TrioNatsServer) -> None:
    """It checks what services say against schemas of its own, and nats.go reads it then."""
    name, subject = unique("svc"), unique("subject")

    async def echo(request: ServiceRequest) -> None:
        await request.respond(request.data)

    async with (
        open_world(nats_server) as (_, nc, nursery),
        open_service(nursery, nc, name, "1.2.3", description="ours") as service,
        trio.open_nursery() as workers,
    ):
        await workers.start(partial(service.serve, "plain", echo, subject=subject))
        await workers.start(partial(service.serve, "more", echo, subject=unique("s"), stats_handler=lambda _: {"a": 1}))
        assert (await tool("request", subject, "hello", "--raw")).strip() == "hello"
        assert service.id in await tool("service", "ls", name)
        stats = json.loads(await tool("service", "stats", name, "--json"))
        assert [(one["name"], one["num_requests"], one["data"]) for one in stats[0]["endpoints"]] == [
            ("plain", 1, None),
            ("more", 0, {"a": 1}),
        ]
        info = await tool("service", "info", name, service.id)
        assert "Description: ours" in info
        assert "plain Endpoint Statistics" in info
        service.stop()


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
