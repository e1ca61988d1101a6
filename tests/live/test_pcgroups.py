"""Groups shared with the public pcgroups extensions: natsio's, and that of Go's orbit with its tool; skipped where they cannot be had.

A member of theirs is a process that says what it was given, line by line.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.go_programs import find_go_program
from tests.python_programs import find_packages
from tests.worlds import StreamWorld, open_stream, unique, until
from trionats import api, errors, open_partition
from trionats.testing import TrioNatsServer

NATSIO = ("natsio==1.0.1", "natsio-pcgroups==0.1.1")
ORBIT = "v0.2.2"
KEYS = 20

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=90)]

#: What natsio's process does: `call` what is asked for, or be a member that says what it is given.
PROGRAM = """
import asyncio, json, sys
import natsio
from natsio import pcgroups
from natsio.pcgroups import MemberMapping, PartitioningFilter

async def main(url, what, *given):
    nc = await natsio.connect(url)
    js = nc.jetstream()
    if what == "call":
        print(json.dumps(repr(await eval(given[0]))), flush=True)
        return
    async def handle(msg):
        print(json.dumps([msg.subject, msg.data.decode(), msg.partition]), flush=True)
        await msg.ack()
    consume = pcgroups.elastic_consume if what == "elastic" else pcgroups.static_consume
    context = await consume(js, *given, handle)
    await context.wait()
    print(json.dumps("ended"), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


class Peer:
    """Somebody else's process that is a member, and what it was given so far."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def given(self, read: Callable[[str], tuple[str, str] | None]) -> list[tuple[str, str]]:
        return [found for line in self.lines if (found := read(line)) is not None]


@asynccontextmanager
async def running(command: list[str], **environment: str) -> AsyncIterator[Peer]:
    """Run a process, and collect the lines that it says."""
    peer = Peer()
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                env={**os.environ, **environment},
            )
        )

        async def listen() -> None:
            rest = ""
            assert process.stdout is not None
            async for chunk in process.stdout:
                *lines, rest = (rest + chunk.decode()).split("\n")
                peer.lines += lines

        nursery.start_soon(listen)
        yield peer
        nursery.cancel_scope.cancel()


# -- natsio ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def natsio() -> Path:
    return find_packages(*NATSIO)


def said_by_natsio(line: str) -> tuple[str, str] | None:
    found = json.loads(line)
    return (found[0], found[1]) if isinstance(found, list) else None


async def call_natsio(natsio: Path, server: TrioNatsServer, expression: str) -> str:
    """Have natsio do something, and give what it says."""
    done = await trio.run_process(
        [str(natsio), "-c", PROGRAM, server.url, "call", expression], capture_stdout=True, capture_stderr=True
    )
    return str(json.loads(done.stdout))


async def read_ours(w: StreamWorld, group: str, member: str, got: list[tuple[str, str]], *, elastic: bool) -> None:
    async with open_partition(w.nursery, w.js, w.stream.name, group, member, elastic=elastic) as rx:
        with suppress(errors.GroupNotFoundError):
            async for msg in rx:
                got.append((msg.subject, msg.data.decode()))
                await msg.ack()


async def publish(w: StreamWorld, first: int, last: int) -> None:
    for number in range(first, last):
        await w.js.publish(f"{w.stream.name}.{number % KEYS}", str(number))


def done(*given: list[tuple[str, str]]) -> int:
    """How many have been done: natsio deletes its consumer without waiting for the server to see its last acknowledgement, so it may come again."""
    return len({data for found in given for _, data in found})


def assert_all_and_in_order(*given: list[tuple[str, str]], count: int) -> None:
    assert {int(data) for found in given for _, data in found} == set(range(count))
    for found in given:
        for key in {subject for subject, _ in found}:
            rising = [int(data) for subject, data in found if subject == key]
            assert rising == sorted(rising)


async def test_a_member_of_natsio_and_one_of_ours_share_an_elastic_group(
    natsio: Path, nats_server: TrioNatsServer
) -> None:
    async with open_stream(nats_server) as w:
        stream = w.stream.name
        made = await w.js.create_group(
            stream, "g", 6, elastic=True, filters={f"{stream}.*": [1]}, members=["ours", "theirs"]
        )
        command = [str(natsio), "-c", PROGRAM, nats_server.url, "elastic", stream, "g", "theirs"]
        ours: list[tuple[str, str]] = []
        async with running(command) as peer, trio.open_nursery() as members:

            def theirs() -> list[tuple[str, str]]:
                return peer.given(said_by_natsio)

            members.start_soon(partial(read_ours, w, "g", "ours", ours, elastic=True))
            await publish(w, 0, 60)
            await until(lambda: done(ours, theirs()) == 60, within=30)
            assert ours
            assert theirs()
            assert not {key for key, _ in ours} & {key for key, _ in theirs()}
            there = {info.name: info.config.filter_subjects for info in await w.js.consumers_info(f"{stream}-g")}
            wanted = {name: [f"{number}.{stream}.*" for number in made.partitions[name]] for name in made.members}
            assert there == wanted
            # Dropped by us, their partitions are ours.
            await w.js.drop_members(stream, "g", "theirs")
            had = len(theirs())
            await publish(w, 60, 120)
            await until(lambda: done(ours, theirs()) == 120, within=30)
            # Added by natsio, it has some again.
            added = await call_natsio(natsio, nats_server, f"pcgroups.add_members(js, {stream!r}, 'g', ['theirs'])")
            assert added == "['ours', 'theirs']"
            await until(lambda: has_consumers(w, f"{stream}-g", 2), within=30)
            await publish(w, 120, 180)
            await until(lambda: done(ours, theirs()) == 180, within=30)
            assert len(theirs()) > had
            assert_all_and_in_order(ours, theirs(), count=180)
            # Deleted by us, theirs ends.
            assert await w.js.delete_group(stream, "g", elastic=True)
            await until(lambda: '"ended"' in peer.lines, within=30)
            members.cancel_scope.cancel()


async def has_consumers(w: StreamWorld, stream: str, count: int) -> bool:
    return len(await w.js.consumer_names(stream)) == count


async def test_a_member_of_natsio_and_one_of_ours_share_a_static_group(
    natsio: Path, nats_server: TrioNatsServer
) -> None:
    name = unique("S")
    transform = api.SubjectTransform(f"{name}.*", f"{{{{Partition(6,1)}}}}.{name}.{{{{Wildcard(1)}}}}")
    async with open_stream(nats_server, name=name, subjects=[f"{name}.*"], subject_transform=transform) as w:
        made = await call_natsio(
            natsio, nats_server, f"pcgroups.create_static(js, {name!r}, 'g', 6, ['{name}.*'], ['ours', 'theirs'])"
        )
        assert "max_members=6" in made
        again = await w.js.create_group(name, "g", 6, filters=f"{name}.*", members=["theirs", "ours"])
        assert again.partitions == {"ours": (0, 1, 2), "theirs": (3, 4, 5)}
        command = [str(natsio), "-c", PROGRAM, nats_server.url, "static", name, "g", "theirs"]
        ours: list[tuple[str, str]] = []
        async with running(command) as peer, trio.open_nursery() as members:

            def theirs() -> list[tuple[str, str]]:
                return peer.given(said_by_natsio)

            members.start_soon(partial(read_ours, w, "g", "ours", ours, elastic=False))
            await publish(w, 0, 60)
            await until(lambda: done(ours, theirs()) == 60, within=30)
            assert ours
            assert theirs()
            assert_all_and_in_order(ours, theirs(), count=60)
            members.cancel_scope.cancel()
        await call_natsio(natsio, nats_server, f"pcgroups.delete_static(js, {name!r}, 'g')")
        assert await w.js.consumer_names(name) == []
        with pytest.raises(errors.GroupNotFoundError):
            await w.js.delete_group(name, "g")


async def test_groups_of_natsio_are_ours_and_ours_are_natsios(natsio: Path, nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        stream = w.stream.name
        call = partial(call_natsio, natsio, nats_server)
        wildcards = f"[PartitioningFilter(filter='{stream}.*.>', partitioning_wildcards=[1])]"
        await call(f"pcgroups.create_elastic(js, {stream!r}, 'theirs', 4, {wildcards}, 10, 0)")
        mappings = "[MemberMapping(member='a', partitions=[3, 0]), MemberMapping(member='b', partitions=[1, 2])]"
        await call(f"pcgroups.set_member_mappings(js, {stream!r}, 'theirs', {mappings})")
        found = await w.js.create_group(
            stream, "theirs", 4, elastic=True, filters={f"{stream}.*.>": [1]}, max_buffered_msgs=10
        )
        assert (found.mapped, found.partitions) == (True, {"a": (3, 0), "b": (1, 2)})
        await w.js.add_members(stream, "theirs", {"a": [0, 1, 2, 3]})
        read = await call(f"pcgroups.get_elastic_config(js, {stream!r}, 'theirs')")
        assert "member_mappings=[MemberMapping(member='a', partitions=[0, 1, 2, 3])]" in read
        # And the other way round: with the same configuration, each takes the other's for its own.
        await w.js.create_group(stream, "ours", 3, elastic=True, members=["x"])
        again = await call(f"pcgroups.create_elastic(js, {stream!r}, 'ours', 3, None, 0, 0)")
        assert "members=['x']" in again
        assert await call(f"pcgroups.list_elastic_groups(js, {stream!r})") == "['theirs', 'ours']"
        for group in ("theirs", "ours"):
            await call(f"pcgroups.delete_elastic(js, {stream!r}, {group!r})")
        assert [name for name in await w.js.stream_names() if name.startswith(f"{stream}-")] == []


# -- Go's orbit -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def executable() -> Path:
    return find_go_program("github.com/synadia-io/orbit.go/pcgroups/cg", ORBIT)


def said_by_go(line: str) -> tuple[str, str] | None:
    """Read what the tool says of a message: not its payload, but its sequence, which is one more."""
    _, found, rest = line.partition(" subject=")
    subject, _, rest = rest.partition(", seq=")
    return (subject, str(int(rest.partition(",")[0]) - 1)) if found else None


async def test_a_member_of_go_and_one_of_ours_share_an_elastic_group(
    executable: Path, nats_server: TrioNatsServer, tmp_path: Path
) -> None:
    contexts = tmp_path / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "here.json").write_text(json.dumps({"url": nats_server.url}))
    (tmp_path / "nats" / "context.txt").write_text("here")
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}

    async def tool(*arguments: str) -> str:
        done = await trio.run_process(
            [str(executable), "elastic", *arguments],
            env={**os.environ, **environment},
            stdin=b"1\n",
            capture_stdout=True,
            capture_stderr=True,
        )
        return (done.stdout + done.stderr).decode()

    async with open_stream(nats_server) as w:
        stream = w.stream.name
        await tool("create", stream, "g", "6", f"--filter={stream}.*")
        found = await w.js.create_group(stream, "g", 6, elastic=True, filters={f"{stream}.*": [1]})
        assert found.members == ()
        await w.js.add_members(stream, "g", "ours")
        await tool("add", stream, "g", "theirs")
        assert (await w.js.add_members(stream, "g", ())).members == ("ours", "theirs")
        ours: list[Any] = []
        command = [str(executable), "elastic", "--sleep=1ms", "consume", stream, "g", "theirs"]
        async with running(command, **environment) as peer, trio.open_nursery() as members:
            members.start_soon(partial(read_ours, w, "g", "ours", ours, elastic=True))
            await publish(w, 0, 60)
            await until(lambda: done(ours, peer.given(said_by_go)) == 60, within=40)
            assert ours
            assert not {key for key, _ in ours} & {key for key, _ in peer.given(said_by_go)}
            await tool("drop", stream, "g", "theirs")
            had = len(ours)
            await publish(w, 60, 120)
            await until(lambda: done(ours, peer.given(said_by_go)) == 120, within=40)
            assert len({key for key, _ in ours[had:]}) == KEYS
            assert_all_and_in_order(ours, peer.given(said_by_go), count=120)
            members.cancel_scope.cancel()
        # What we create, the tool reads.
        await w.js.create_group(stream, "h", 3, elastic=True, filters={f"{stream}.*": [1]}, members=["a", "b"])
        assert "members: [a b]" in await tool("info", stream, "h")
        await tool("delete", stream, "h", "--force")
        with pytest.raises(errors.GroupNotFoundError):
            await w.js.add_members(stream, "h", "c")
