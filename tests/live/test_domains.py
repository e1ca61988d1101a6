"""A hub and a leaf, each with its own JetStream domain: an acknowledgement counts only from the one that was asked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from tests.worlds import arrived, next_event, open_live, open_world, until
from trionats import (
    Client,
    Events,
    Feed,
    JetStream,
    ObjectStore,
    advisories,
    api,
    errors,
    events,
    open_advisories,
    open_events,
    open_ingest,
    open_watcher,
)
from trionats.testing import open_server
from trionats.testing._server import free_port

pytestmark = pytest.mark.usefixtures("server_executable")

SMALL = 600_000


class Pair(NamedTuple):
    """One client at each side, and what the one at the leaf was told."""

    hub: Client
    leaf: Client
    told: Events

    def at(self, name: str) -> Client:
        return self.hub if name == "hub" else self.leaf


@asynccontextmanager
async def open_pair() -> AsyncIterator[Pair]:
    port = free_port()
    hub_config = f'server_name: hub\njetstream {{ domain: hub }}\nleafnodes {{ listen: "127.0.0.1:{port}" }}'
    leaf_config = f'server_name: leaf\njetstream {{ domain: leaf }}\nleafnodes {{ remotes: [{{ url: "nats-leaf://127.0.0.1:{port}" }}] }}'
    async with (
        open_server(hub_config, jetstream=True) as hub,
        open_server(leaf_config, jetstream=True) as leaf,
        open_world(hub) as (_, at_hub, _),
        open_world(leaf) as (_, at_leaf, nursery),
        open_events(nursery, at_leaf) as told,
    ):

        async def acquainted() -> bool:
            with suppress(errors.ServiceUnavailableError):
                await at_leaf.jetstream(domain="hub").account_info()
                await at_hub.jetstream(domain="leaf").account_info()
                return True
            return False

        await until(acquainted, pause=0.02)
        yield Pair(at_hub, at_leaf, told)


async def both(pair: Pair, at_hub: api.StreamConfig | None = None) -> tuple[JetStream, JetStream]:
    """Make a stream of one name and subjects on both sides: gives the hub's as it is seen from the leaf, and the leaf's."""
    hub, leaf = pair.leaf.jetstream(domain="hub"), pair.leaf.jetstream(domain="leaf")
    for js, config in ((hub, at_hub), (leaf, None)):
        await js.add_stream(config, name="S", subjects=["s.>"], storage=api.StorageType.MEMORY)
    return hub, leaf


def elsewhere(pair: Pair) -> list[events.StoredElsewhere]:
    return arrived(pair.told, events.StoredElsewhere)


async def test_a_publish_counts_where_it_was_meant_to_go_and_what_reached_both_is_told() -> None:
    async with open_pair() as pair:
        hub, leaf = await both(pair)
        for js, domain, other in ((hub, "hub", "leaf"), (leaf, "leaf", "hub")):
            for number in range(5):
                ack = await js.publish("s.a", b"%d" % number, stream="S")
                assert ack.domain == domain
            await pair.leaf.flush()
            told: list[events.StoredElsewhere] = []
            with trio.fail_after(5):
                while len(told) < 5:
                    told.append(await next_event(pair.told, events.StoredElsewhere))
            assert told == [events.StoredElsewhere("s.a", "S", other, domain)] * 5


async def test_a_refusal_of_the_domain_that_was_asked_is_raised_though_the_other_has_stored_it() -> None:
    async with open_pair() as pair:
        hub, leaf = await both(pair, api.StreamConfig(max_msgs=1, discard=api.DiscardPolicy.NEW))
        await hub.publish("s.a", b"")
        with pytest.raises(errors.APIError, match=r"maximum messages exceeded") as caught:
            await hub.publish("s.b", b"")
        assert "publish to 's.b' (stored in domain 'leaf', where it was not meant to go): " in str(caught.value)
        assert (await leaf.stream_info("S")).state.messages == 2


async def test_a_refusal_of_the_other_domain_does_not_count_and_a_conflict_is_raised_soon() -> None:
    async with open_pair() as pair:
        hub, leaf = await both(pair)
        with trio.fail_after(2), pytest.raises(errors.BadRequestError, match="wrong last sequence"):
            await hub.publish("s.a", b"", expected_last_seq=9)
        # At the leaf, its own refusal comes long before the hub's acknowledgement.
        await leaf.update_stream((await leaf.stream_info("S")).config, max_msgs=1, discard=api.DiscardPolicy.NEW)
        for _ in range(3):
            assert (await hub.publish("s.a", b"")).domain == "hub"
        assert (await hub.stream_info("S")).state.messages == 3


async def test_where_only_the_other_domain_has_a_stream_nothing_is_confirmed() -> None:
    async with open_pair() as pair:
        leaf = pair.leaf.jetstream(domain="leaf")
        await leaf.add_stream(name="S", subjects=["s.>"], storage=api.StorageType.MEMORY)
        said = r"publish to 's\.a': no stream in domain 'hub' .* 'leaf'"
        with trio.fail_after(10), pytest.raises(errors.NoStreamResponseError, match=said):
            await pair.leaf.jetstream(domain="hub").publish("s.a", b"")
        # Without a domain nobody is meant in particular.
        assert (await pair.hub.jetstream().publish("s.a", b"")).domain == "leaf"


@pytest.mark.parametrize("at", ["leaf", "hub"])
async def test_sixteen_of_twenty_puts_into_a_full_bucket_are_not_reported_as_done(at: str) -> None:
    """The bucket of the other side is not full, and stores whatever is put."""
    full, other = ("hub", "leaf") if at == "leaf" else ("leaf", "hub")
    async with open_pair() as pair:
        nc = pair.at(at)
        store = await nc.jetstream(domain=full).create_object_store("b", max_bytes=SMALL)
        roomy = await nc.jetstream(domain=other).create_object_store("b")
        done, refused = [], 0
        for number in range(20):
            try:
                await store.put(f"o{number}", b"x" * 130_000)
                done.append(f"o{number}")
            except errors.APIError as error:
                refused += 1
                complaint = str(error)
                assert f"stored in domain {other!r}" in complaint
                assert "maximum bytes exceeded" in complaint
        assert sorted(info.name for info in await store.list()) == sorted(done)
        assert 0 < len(done) < 5
        assert refused == 20 - len(done)
        for name in done:
            assert (await store.get(name)).data == b"x" * 130_000
        # What reached both is in both; what was refused has no info in either.
        assert {info.name for info in await roomy.list()} <= set(done)


async def test_buckets_without_a_domain_are_those_that_the_api_names() -> None:
    async with open_pair() as pair:
        for name in ("hub", "leaf"):
            await pair.leaf.jetstream(domain=name).create_object_store("b")
        store = await pair.leaf.jetstream().object_store("b")
        await store.put("a", b"data")
        far = await pair.leaf.jetstream(domain="hub").object_store("b")
        await far.delete("a")
        with pytest.raises(errors.ObjectNotFoundError):
            await far.get("a")
        told = [event for event in elsewhere(pair) if event.wanted == "hub"]
        assert {(event.domain, event.stream) for event in told} == {("leaf", "OBJ_b")}


async def mirrored(js: JetStream, mirror: str = "copy", *, far: bool = True) -> ObjectStore:
    """Make a bucket that mirrors the hub's "b"."""
    source = api.StreamSource("OBJ_b", external=api.ExternalStream("$JS.hub.API") if far else None)
    await js.add_stream(name=f"OBJ_{mirror}", mirror=source, storage=api.StorageType.MEMORY, allow_direct=True)
    return await js.object_store(mirror)


@pytest.mark.parametrize("mirror", ["b", "copy"])
@pytest.mark.parametrize("domain", ["leaf", None])
async def test_what_is_put_through_a_mirror_is_stored_in_its_origins_domain(mirror: str, domain: str | None) -> None:
    async with open_pair() as pair:
        origin = await pair.leaf.jetstream(domain="hub").create_object_store("b")
        js = pair.leaf.jetstream(domain=domain)
        store = await mirrored(js, mirror)
        with trio.fail_after(2):
            await store.put("a", b"data")
        assert (await origin.get("a")).data == b"data"
        assert elsewhere(pair) == []


async def test_a_mirror_and_a_bucket_of_its_origins_name_have_an_origin_each() -> None:
    """Both have the same subjects, and whichever was opened last decided for both whose acknowledgement counts."""
    async with open_pair() as pair:
        leaf = pair.leaf.jetstream()
        await pair.leaf.jetstream(domain="hub").create_object_store("b", max_bytes=SMALL)
        copy = await mirrored(leaf)
        await leaf.create_object_store("b")
        own = await leaf.object_store("b")
        with pytest.raises(errors.APIError, match=r"stored in domain 'leaf', .*maximum bytes exceeded"):
            await copy.put("a", bytes(2 * SMALL))
        await leaf.object_store("copy")
        # Its own bucket, which is nearer, refuses this one's info.
        for content in (b"one", b"two"):
            await own.put("a", content)
        hub = await pair.leaf.jetstream(domain="hub").object_store("b")
        last = await hub.put("b", b"")
        await until(partial(has_come, leaf, last.revision))
        await copy.put("a", b"data")
        assert (await hub.get("a")).data == b"data"


async def has_come(js: JetStream, last: int | None) -> bool:
    """Whether a mirror has everything up to a message."""
    return (await js.stream_info("OBJ_copy")).state.last_seq >= (last or 0)


async def chunks_of(js: JetStream, stream: str) -> int:
    info = await js.stream_info(stream, "$O.b.C.>")
    return sum((info.state.subjects or {}).values())


@pytest.mark.parametrize("domain", ["leaf", "hub"])
async def test_nothing_is_left_at_its_origin_of_what_was_put_through_a_mirror(domain: str) -> None:
    """It is stored there; a purge of the mirror alone would not reach it, nor the other way round."""
    async with open_pair() as pair:
        hub, js = pair.leaf.jetstream(domain="hub"), pair.leaf.jetstream(domain=domain)
        await hub.create_object_store("b", max_bytes=SMALL)
        store = await mirrored(js, far=domain != "hub")

        async def both(chunks: int, last: int | None) -> None:
            async def have() -> bool:
                return (await chunks_of(hub, "OBJ_b"), await chunks_of(js, "OBJ_copy")) == (chunks, chunks)

            await until(partial(has_come, js, last))
            await until(have)

        with pytest.raises(errors.APIError, match="maximum bytes exceeded"):
            await store.put("a", bytes(2 * SMALL))
        assert await chunks_of(hub, "OBJ_b") == 0
        for data in (b"one", b"two"):
            info = await store.put("a", data)
            await both(1, info.revision)
        await store.delete("a")
        await both(0, 0)


async def test_domains_and_prefixes_and_that_one_domain_costs_no_question_and_no_wait() -> None:
    """What is asked for is one request for each message, however the context was made."""
    async with open_live("jetstream { domain: there }", jetstream=True) as (_, nc, _):
        assert nc.jetstream().prefix == "$JS.API"
        assert (await nc.jetstream(domain="there").account_info()).domain == "there"
        assert (await nc.jetstream(prefix="$JS.there.API").account_info()).domain == "there"
        with pytest.raises(errors.ServiceUnavailableError, match=r"\$JS.elsewhere.API"):
            await nc.jetstream(domain="elsewhere").account_info()
        with pytest.raises(ValueError, match="not both"):
            nc.jetstream(domain="there", prefix="x")
        for bad in ("", "a b", "*", "a.b"):
            with pytest.raises(ValueError, match=r"JetStream domain .*: it must be one token"):
                nc.jetstream(domain=bad)
        await nc.jetstream().add_stream(name="S", subjects=["s.>"], storage=api.StorageType.MEMORY)
        for js in (nc.jetstream(), nc.jetstream(domain="there"), nc.jetstream(prefix="$JS.there.API")):
            before = nc.statistics().out_msgs
            for _ in range(10):
                assert (await js.publish("s.a", b"")).domain == "there"
            assert nc.statistics().out_msgs - before == 10
            store = await js.create_object_store("b")
            await store.put("a", b"x")
            assert (await store.get("a")).data == b"x"


async def test_a_mirror_of_another_domain_and_one_by_a_prefix_of_its_own() -> None:
    async with open_pair() as pair:
        hub, leaf = pair.leaf.jetstream(domain="hub"), pair.leaf.jetstream(domain="leaf")
        origin = await hub.create_stream(name="ORIGIN", subjects=["origin.>"], storage=api.StorageType.MEMORY)
        await pair.hub.jetstream().publish("origin.a", b"x")
        external = api.ExternalStream.in_domain("hub")
        mirror = await leaf.create_stream(
            name="MIRROR", mirror=api.StreamSource("ORIGIN", external=external), storage=api.StorageType.MEMORY
        )

        async def has_it() -> bool:
            return (await mirror.info()).state.messages == 1

        await until(has_it, pause=0.02)
        info = mirror.cached_info
        assert (info.domain, info.mirror is not None and info.mirror.name) == ("leaf", "ORIGIN")
        assert info.config.mirror is not None
        assert info.config.mirror.external == api.ExternalStream("$JS.hub.API", "")
        by_prefix = pair.leaf.jetstream(prefix="$JS.hub.API")
        assert (await by_prefix.stream("ORIGIN")).cached_info.created == origin.cached_info.created
        assert await by_prefix.stream_names() == ["ORIGIN"]


async def test_keys_of_the_other_domain_are_watched_there() -> None:
    """Both sides have a bucket of this name; a watcher hears of the one that it was opened with."""
    async with open_pair() as pair, trio.open_nursery() as nursery:
        hub, leaf = pair.leaf.jetstream(domain="hub"), pair.leaf.jetstream(domain="leaf")
        for js in (hub, leaf):
            await js.create_key_value(bucket="w", history=2, storage=api.StorageType.MEMORY)
        keys = await pair.hub.jetstream().key_value("w")
        await keys.put("a", b"hub's")
        async with (
            open_watcher(nursery, await hub.key_value("w"), keys=["a", "b"]) as theirs,
            open_watcher(nursery, await leaf.key_value("w"), include_history=True) as ours,
        ):
            assert [(entry.key, entry.value) for entry in await theirs.snapshot()] == [("a", b"hub's")]
            assert await ours.snapshot() == []
            await keys.put("b", b"hub's")
            await keys.delete("a")
            assert [(await theirs.receive()).operation for _ in range(2)] == [None, "DEL"]
        async with open_watcher(nursery, await hub.key_value("w"), resume_from_revision=3) as theirs:
            assert [entry.key for entry in await theirs.snapshot()] == ["a"]


async def test_a_stream_of_another_domain_is_backed_up_and_restored_over_the_leaf(tmp_path: Path) -> None:
    async with open_pair() as pair:
        here = pair.leaf.jetstream(domain="hub")
        stream = await here.create_stream(name="B", subjects=["b.>"])
        for number in range(30):
            await here.publish("b.a", os.urandom(400_000) + b"%d" % number)
        await stream.backup(tmp_path / "b")
        await stream.delete()
        back = await here.restore_stream(tmp_path / "b")
        assert (await back.info()).state.messages == 30
        assert await pair.leaf.jetstream(domain="leaf").stream_names() == []
        assert await pair.hub.jetstream().stream_names() == ["B"]


async def test_advisories_of_both_sides_are_heard_over_a_leaf_and_those_of_a_domain_alone() -> None:
    kind = advisories.StreamAction
    async with open_pair() as pair, trio.open_nursery() as nursery:
        async with (
            open_advisories(nursery, pair.leaf.jetstream(), kind) as both,
            open_advisories(nursery, pair.leaf.jetstream(domain="hub"), kind) as hub,
        ):
            await pair.leaf.flush()

            async def is_heard(rx: Feed[advisories.Advisory], domain: str) -> bool:
                # Until the other side knows that somebody listens, nothing is told there.
                js = pair.leaf.jetstream(domain=domain)
                stream = await js.create_stream(name="A", subjects=["a.>"], storage=api.StorageType.MEMORY)
                await stream.delete()
                with trio.move_on_after(0.5):
                    while (await rx.receive()).domain != domain:
                        pass
                    return True
                return False

            for domain in ("leaf", "hub"):
                await until(partial(is_heard, both, domain), pause=0.02)
            await until(partial(is_heard, hub, "hub"), pause=0.02)
            assert not await is_heard(hub, "leaf")


@pytest.mark.level(4)
async def test_a_fast_ingest_goes_to_the_domain_that_was_asked_for_or_nowhere() -> None:
    async with open_pair() as pair:
        hub, leaf = pair.leaf.jetstream(domain="hub"), pair.leaf.jetstream(domain="leaf")
        await hub.create_stream(name="S", subjects=["s.>"], storage=api.StorageType.MEMORY, allow_batched=True)
        async with trio.open_nursery() as nursery, open_ingest(nursery, hub) as ingest:
            for number in range(1000):
                await ingest.publish("s.a", b"%d" % number)
        assert ingest.ack is not None
        assert (ingest.ack.domain, ingest.ack.count) == ("hub", 1000)
        await leaf.create_stream(name="S", subjects=["s.>"], storage=api.StorageType.MEMORY, allow_batched=True)
        async with trio.open_nursery() as nursery, open_ingest(nursery, hub) as ingest:
            with pytest.raises(ValueError, match="stream 'S' of domain 'hub' hears it, and stream 'S' here"):
                await ingest.publish("s.a", b"x")
        assert (await hub.stream_info("S")).state.messages == 1000
