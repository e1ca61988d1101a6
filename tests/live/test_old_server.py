"""A server that does not look at `Nats-Required-Api-Level`: skipped where there is no Go, or no proxy to build it from.

What it does is played in tests/floor/test_levels.py, which always runs; here is the original.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.go_programs import find_go_program
from tests.worlds import World, open_world
from trionats import JetStream, api, errors, open_ingest
from trionats.testing import TrioNatsServer, open_server

VERSION = "v2.11.9"

pytestmark = [pytest.mark.live(seconds=60)]


@pytest.fixture(scope="module")
def old_server() -> Path:
    return find_go_program("github.com/nats-io/nats-server/v2", VERSION)


@asynccontextmanager
async def open_old(executable: Path, config: str = "", **options: Any) -> AsyncIterator[World[TrioNatsServer]]:  # noqa: ANN401
    async with open_server(config, jetstream=True, executable=executable) as server, open_world(server, **options) as w:
        yield w


async def test_what_it_leaves_out_is_not_asked_of_it(old_server: Path) -> None:
    async with open_old(old_server) as (_, nc, _):
        js = nc.jetstream()
        assert (await js.account_info()).api.level == 1
        stream = await js.create_stream(name="S", subjects=["s.>"], allow_msg_ttl=True, storage="memory")
        assert stream.cached_info.config.allow_msg_ttl
        echoed = await js.api_request("STREAM.CREATE.T", {"name": "T", "allow_atomic": True})
        assert "allow_atomic" not in echoed["config"], "without a word"
        with pytest.raises(errors.APIError, match=r"allow_atomic needs a server of 2\.12 .*this one has level 1"):
            await js.create_stream(name="U", allow_atomic=True)
        with pytest.raises(errors.APIError, match=r"persist_mode needs a server of 2\.12 "):
            await stream.update(persist_mode="async")
        assert await js.stream_names() == ["S", "T"]


async def test_what_it_left_out_is_found_where_its_level_may_not_be_asked(old_server: Path) -> None:
    allowed = json.dumps(["$JS.API.STREAM.>"])
    config = f"""authorization {{ users = [
        {{user: u, password: p, permissions: {{publish: {{allow: {allowed}}}, subscribe: {{allow: ["_INBOX.>"]}}}}}}
    ] }}"""
    async with open_old(old_server, config, user="u", password="p") as (_, nc, _):
        js = nc.jetstream()
        with pytest.raises(errors.APIError, match=r"allow_msg_counter needs a server of 2\.12 .*this one left it out"):
            await js.create_stream(name="C", subjects=["c.>"], allow_msg_counter=True, allow_msg_ttl=True)
        await js.create_stream(name="S", subjects=["s.>"], allow_msg_ttl=True, storage="memory")
        with pytest.raises(errors.APIError, match="allow_atomic"):
            await js.create_stream(
                api.StreamConfig(name="S", subjects=["s.>"], storage=api.StorageType.MEMORY),
                allow_msg_ttl=True,
                allow_atomic=True,
            )
        assert await js.stream_names() == ["C", "S"], "it says `did_create` of both, so neither is deleted"


async def test_its_configurations_are_read_and_written_back(old_server: Path) -> None:
    async with open_old(old_server) as (_, nc, _):
        js = nc.jetstream()
        await js.create_stream(name="S", subjects=["s.>"], storage="memory", max_age=60, allow_direct=True)
        before = (await js.api_request("STREAM.INFO.S"))["config"]
        await js.update_stream(name="S", description="d")
        assert (await js.api_request("STREAM.INFO.S"))["config"] == {**before, "description": "d"}


async def test_a_mirror_and_a_stream_by_nats_py_s_names_are_made_there_too(old_server: Path) -> None:
    async with open_old(old_server) as (_, nc, _):
        js = nc.jetstream()
        await js.create_stream(name="S", subjects=["s.>"], storage="memory")
        mirror = await js.create_stream(name="M", mirror=api.StreamSource("S"), storage="memory")
        assert (mirror.cached_info.config.allow_msg_ttl, mirror.cached_info.config.allow_rollup_hdrs) == (True, True)


async def test_a_bucket_with_limit_markers_is_made_where_the_server_knows_them(old_server: Path) -> None:
    async with open_old(old_server) as (_, nc, _):
        js = nc.jetstream()
        kv = await js.create_key_value(bucket="b", storage=api.StorageType.MEMORY, limit_marker_ttl=5)
        assert (await kv.status()).limit_marker_ttl == 5
        await js.create_key_value(bucket="b", storage=api.StorageType.MEMORY, limit_marker_ttl=5)
        copy = await js.create_key_value(bucket="copy", mirror=api.StreamSource("b"), storage=api.StorageType.MEMORY)
        assert await js.key_value_names() == ["b", copy.bucket]


async def test_a_batch_is_refused_before_anything_is_stored(old_server: Path) -> None:
    async with open_old(old_server) as (_, nc, _):
        js = nc.jetstream()
        await js.create_stream(name="S", subjects=["s.>"], storage="memory")
        with pytest.raises(errors.APIError, match=r"open_batch\(\) needs a server of 2\.12 .*this one has level 1"):
            await batch_of_three(js)
        assert (await js.stream_info("S")).state.messages == 0


async def test_of_a_batch_it_stores_one_message_where_its_level_may_not_be_asked(old_server: Path) -> None:
    """It knows nothing of batches, and stores each message by itself: so no second one is sent before the word on the first."""
    allowed = json.dumps(["$JS.API.STREAM.>", "s.>"])
    config = f"""authorization {{ users = [
        {{user: u, password: p, permissions: {{publish: {{allow: {allowed}}}, subscribe: {{allow: ["_INBOX.>"]}}}}}}
    ] }}"""
    async with open_old(old_server, config, user="u", password="p") as (_, nc, _):
        js = nc.jetstream()
        await js.create_stream(name="S", subjects=["s.>"], storage="memory")
        with pytest.raises(errors.BatchError, match="stream 'S' is on a server that knows no batches"):
            await batch_of_three(js)
        assert (await js.stream_info("S")).state.messages == 1


async def batch_of_three(js: JetStream) -> None:
    async with js.open_batch() as batch:
        for _ in range(3):
            await batch.publish("s.a", b"x")


async def test_a_fast_ingest_is_refused_by_name_before_it_stores_the_first_message(old_server: Path) -> None:
    async with open_old(old_server) as (_, nc, nursery):
        js = nc.jetstream()
        stream = await js.create_stream(name="S", subjects=["s.>"], storage="memory")
        async with open_ingest(nursery, js) as ingest:
            with pytest.raises(errors.APIError, match=r"fast ingest needs a server of 2\.14 .*this one has level 1"):
                await ingest.publish("s.a", b"x")
        assert (await stream.info()).state.messages == 0


async def test_a_backup_is_restored_by_a_newer_server_and_not_the_other_way_round(
    old_server: Path, server_executable: object, tmp_path: Path
) -> None:
    async with open_old(old_server) as (_, nc, _):
        js = nc.jetstream()
        stream = await js.create_stream(name="S", subjects=["s.>"])
        for number in range(20):
            await js.publish("s.a", b"%d" % number * 50_000)
        await stream.backup(tmp_path / "old")
        memory = await js.create_stream(name="M", subjects=["m.>"], storage="memory")
        with pytest.raises(errors.ServerError, match=r"backup of stream 'M': snapshot failed: no impl"):
            await memory.backup(tmp_path / "memory")
        await stream.delete()
        assert (await js.restore_stream(tmp_path / "old")).cached_info.state.messages == 20
    async with open_server(jetstream=True) as server, open_world(server) as (_, nc, _):
        js = nc.jetstream()
        stream = await js.restore_stream(tmp_path / "old")
        assert (await stream.get_msg(20)).data == b"19" * 50_000
        await stream.backup(tmp_path / "new")
        newer = (await js.account_info()).api.level or 0
    async with open_old(old_server) as (_, nc, _):
        if newer >= 5:
            with pytest.raises(errors.APIError, match=r"the form of this backup needs a server of 2\.15 or later"):
                await nc.jetstream().restore_stream(tmp_path / "new")
        assert await nc.jetstream().stream_names() == []
