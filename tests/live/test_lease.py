"""Leases on a real server: who has them when, and what is left of them there."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.soak.handing_over import hand_overs
from tests.soak.leases import KEY, ROOT, TTL
from tests.worlds import KeyValueWorld, connected, open_key_value, open_live, unique, until
from trionats import Base64Codec, api, errors, open_lease
from trionats.testing import NatsServer

pytestmark = pytest.mark.usefixtures("server_executable")

MARKED: dict[str, Any] = {"limit_marker_ttl": 1}


async def stored(w: KeyValueWorld, key: str = "k") -> api.StoredMsg | None:
    """What stands under a key, as the server has it."""
    stream = await w.js.stream(w.kv.stream)
    with suppress(errors.NotFoundError):
        return await stream.get_last_msg(f"$KV.{w.kv.bucket}.{key}")
    return None


async def somebody_watches(w: KeyValueWorld) -> bool:
    return await w.js.consumer_names(w.kv.stream) != []


async def nobody_watches(w: KeyValueWorld) -> None:
    async def gone() -> bool:
        return await w.js.consumer_names(w.kv.stream) == []

    await until(gone)


@pytest.mark.live(seconds=30)
async def test_a_lease_given_back_in_order_is_handed_over_at_once(nats_server: NatsServer) -> None:
    """More than a hundred times, to another client, long before its time is over; `python -m tests.soak handing_over` says how fast."""
    found = await hand_overs(nats_server)
    assert len(found.took) >= 100
    assert min(found.took) > 0
    assert found.median < 0.5
    assert max(found.took) < 4


async def test_a_lease_given_back_leaves_a_marker_and_no_watcher(nats_server: NatsServer) -> None:
    async with open_key_value(nats_server, **MARKED) as w, connected(nats_server) as other:
        theirs = await other.jetstream().key_value(w.kv.bucket)
        async with open_lease(w.nursery, w.kv, "k", ttl=5), trio.open_nursery() as workers:

            async def wait() -> None:
                async with open_lease(w.nursery, theirs, "k", ttl=5):
                    pass

            workers.start_soon(wait)
            await until(lambda: somebody_watches(w))
            workers.cancel_scope.cancel()
        await nobody_watches(w)
        marker = await stored(w)
        assert marker is not None
        assert marker.headers["KV-Operation"] == "PURGE"


@pytest.mark.live(seconds=30)
async def test_a_lease_whose_process_was_killed_is_anothers_within_a_second_of_its_ttl(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with open_key_value(nats_server, **MARKED) as w:
        command = [sys.executable, "-m", "tests.soak.leases", nats_server.url, w.kv.bucket, str(tmp_path / "notes")]
        process = await trio.lowlevel.open_process(command, cwd=ROOT)

        async def is_held() -> bool:
            message = await stored(w, KEY)
            return message is not None and message.data == str(process.pid).encode()

        await until(is_held, within=20)
        process.kill()
        killed = trio.current_time()
        async with open_lease(w.nursery, w.kv, KEY, ttl=TTL) as lease:
            took = trio.current_time() - killed
            assert lease.value == b""
        await process.wait()
        assert took <= TTL + 1


@pytest.mark.live(seconds=30)
async def test_a_renewed_lease_outlives_its_ttl_and_vanishes_without_a_trace(nats_server: NatsServer) -> None:
    async with open_key_value(nats_server, **MARKED) as w:
        async with open_lease(w.nursery, w.kv, "k", ttl=2, value="here") as lease:
            await trio.sleep(4.5)
            entry = await w.kv.get("k")
            assert (entry.value, lease.revision) == (b"here", 1)
            # It was written seven times, and there was no marker in between.
            assert entry.revision == 7
            stream = await w.js.stream(w.kv.stream)
            assert (await stream.info()).state.messages == 1

        async def vanished() -> bool:
            return await stored(w) is None

        await until(vanished, pause=0.05)


@pytest.mark.live(seconds=30)
async def test_a_lease_outlives_reconnects_and_a_server_that_starts_again() -> None:
    async with open_live(jetstream=True, reconnect_time_wait=0.05) as (server, nc, nursery):
        kv = await nc.jetstream().create_key_value(bucket="b", **MARKED)
        async with open_lease(nursery, kv, "k", ttl=15) as lease:
            for _ in range(3):
                before = lease.deadline
                await nc.reconnect()
                lease.check()
            await server.kill()
            await server.start()
            await until(lambda: lease.deadline > before, within=14)
            lease.check()
        with pytest.raises(errors.KeyDeletedError):
            await kv.get("k")


@pytest.mark.live(seconds=30)
async def test_a_lease_without_a_server_is_lost_at_its_deadline_and_those_who_wait_go_on() -> None:
    async with open_live(jetstream=True, reconnect_time_wait=0.05) as (server, nc, nursery):
        kv = await nc.jetstream().create_key_value(bucket="b", **MARKED)
        entered = trio.Event()

        async def wait() -> None:
            async with open_lease(nursery, kv, "k", ttl=2):
                entered.set()

        begun = trio.current_time()
        with pytest.raises(errors.LeaseLostError, match="not renewed within 3 s"):  # noqa: PT012 - the block is what raises
            async with open_lease(nursery, kv, "k", ttl=3):
                nursery.start_soon(wait)
                await until(lambda: nc.statistics().feeds)
                await server.kill()
                begun = trio.current_time()
                await trio.sleep_forever()
        assert trio.current_time() - begun <= 3.5
        assert not entered.is_set()
        await server.start()
        await entered.wait()


async def test_who_deletes_the_key_ends_the_block(nats_server: NatsServer) -> None:
    async with open_key_value(nats_server, **MARKED) as w, connected(nats_server) as other:
        theirs = await other.jetstream().key_value(w.kv.bucket)
        with pytest.raises(errors.LeaseLostError, match=r"it was deleted \(revision 2\)"):  # noqa: PT012 - the block is what raises
            async with open_lease(w.nursery, w.kv, "k", ttl=2):
                await theirs.delete("k")
                await trio.sleep_forever()


async def test_a_bucket_that_cannot_hold_leases_is_refused(nats_server: NatsServer) -> None:
    for config, missing in (
        ({}, "limit_marker_ttl"),
        ({**MARKED, "history": 2}, "history must be 1"),
        ({**MARKED, "ttl": 3}, "ends a lease before"),
    ):
        given: dict[str, Any] = config
        async with open_key_value(nats_server, **given) as w:
            with pytest.raises(ValueError, match=missing):
                async with open_lease(w.nursery, w.kv, "k", ttl=5):
                    pytest.fail("it was opened")
            assert await stored(w) is None


async def test_a_mirror_is_refused(nats_server: NatsServer) -> None:
    async with open_key_value(nats_server, **MARKED) as w:
        name = unique("mirror")
        mirror = await w.js.create_key_value(bucket=name, mirror=api.StreamSource(name=w.kv.bucket))
        with pytest.raises(ValueError, match="it is a mirror"):
            async with open_lease(w.nursery, mirror, "k", ttl=5):
                pytest.fail("it was opened")
        await w.js.delete_key_value(name)


async def test_what_is_encoded_is_held_under_its_encoded_key(nats_server: NatsServer) -> None:
    async with open_key_value(nats_server, **MARKED) as w:
        kv = w.kv.with_codecs(Base64Codec(), Base64Codec())
        async with open_lease(w.nursery, kv, "a b", ttl=5, value="here") as lease:
            assert (lease.key, lease.value) == ("a b", b"here")
            assert (await kv.get("a b")).value == b"here"
            assert await w.kv.keys() == ["YSBi"]
