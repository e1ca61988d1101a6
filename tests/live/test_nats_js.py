"""Buckets shared with the npm packages of nats.js: skipped where there is no Node.js, or no registry to get them from.

What nats.js stores is kept as bytes in tests/floor/test_foreign.py, which always runs; here is the original.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.worlds import open_live
from trionats import ObjectStore, errors, open_watcher

VERSION = "3.4.0"
PACKAGES = [f"@nats-io/{name}@{VERSION}" for name in ("obj", "jetstream", "transport-node")]
PROGRAM = Path(__file__).parent / "nats_js.mjs"

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=60)]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the packages, and put the program beside them."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js")
    folder = tmp_path_factory.mktemp("nats_js")
    (folder / "package.json").write_text('{"private": true}')
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"the packages of nats.js cannot be installed: {error}")
    return Path(shutil.copy(PROGRAM, folder))


@asynccontextmanager
async def open_bucket(program: Path) -> AsyncGenerator[tuple[ObjectStore, Callable[..., Awaitable[Any]], trio.Nursery]]:
    """Make a bucket "b", and have nats.js do things to it."""
    async with open_live(jetstream=True) as (server, nc, nursery):

        async def js(*arguments: str) -> Any:  # noqa: ANN401 - whatever it says
            done = await trio.run_process(
                ["node", str(program), server.url, *arguments], cwd=program.parent, capture_stdout=True
            )
            return json.loads(done.stdout)

        yield await nc.jetstream().create_object_store("b"), js, nursery


async def test_links_of_nats_js(program: Path) -> None:
    """Read, listed, watched, followed, deleted and replaced; and nats.js reads what came of it."""
    async with open_bucket(program) as (store, js, nursery), open_watcher(nursery, store) as rx:
        await js("put", "plain", "data")
        await js("link", "one", "plain")
        await js("link", "two", "plain")
        await js("link", "three", "plain")
        await js("delete", "three")
        seen = [await rx.receive() for _ in range(5)]
        assert [(info.name, info.is_link(), info.deleted) for info in seen] == [
            ("plain", False, False),
            ("one", True, False),
            ("two", True, False),
            ("three", True, False),
            ("three", True, True),
        ]
        assert {info.name for info in await store.list()} == {"plain", "one", "two"}
        for name in ("one", "two"):
            assert (await store.get_info(name)).is_link()
            result = await store.get(name)
            assert (result.info.name, result.data) == ("plain", b"data")
        await store.delete("one")
        for name in ("two", "three"):
            await store.put(name, f"ours {name}")
        assert await js("get", "two") == "ours two"
        assert await js("get", "three") == "ours three"
        assert (await js("info", "one"))["deleted"] is True
        assert sorted(await js("list")) == ["plain", "three", "two"]
        # And once more, over our marker.
        await js("link", "one", "plain")
        assert (await store.get_info("one")).is_link()


@pytest.mark.parametrize("name", ["café", "\u00ff\u00fe", "\u00c3\u00a9"])
async def test_names_beyond_ascii_of_nats_js(program: Path, name: str) -> None:
    async with open_bucket(program) as (store, js, _):
        await js("put", name, "theirs")
        assert (await store.get(name)).data == b"theirs"
        assert [info.name for info in await store.list()] == [name]
        await store.put(name, "ours")
        assert await js("get", name) == "ours"
        assert await js("list") == [name]
        await store.delete(name)
        assert (await js("info", name))["deleted"] is True
        await js("put", name, "again")
        await js("delete", name)
        with pytest.raises(errors.ObjectDeletedError):
            await store.get(name)
        await store.put(name, "ours again")
        assert await js("get", name) == "ours again"


async def test_one_name_of_two_clients_and_a_renamed_object(program: Path) -> None:
    async with open_bucket(program) as (store, js, _):
        await store.put("café", "ours")
        await js("put", "café", "theirs")
        assert (await store.get("café")).data == b"ours"
        assert await js("get", "café") == "theirs"
        infos = await store.list()
        assert [info.name for info in infos] == ["café"] * 2
        assert len({info.subject for info in infos}) == 2
        await store.delete("café")
        assert (await store.get("café")).data == b"theirs"
        await js("rename", "café", "thé")
        assert (await store.get("thé")).data == b"theirs"
        with pytest.raises(errors.ObjectDeletedError):
            await store.get("café")
