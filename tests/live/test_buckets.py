"""Buckets of both kinds as the real server has them: made, changed, listed, mirrored, collected, over domains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.live.test_domains import elsewhere, open_pair
from tests.worlds import open_live, open_stream, open_world, unique, until
from trionats import JetStream, KeyValue, api, errors, open_subscription, open_watcher
from trionats.testing import TrioNatsServer

MEMORY = api.StorageType.MEMORY


async def config_of(js: JetStream, stream: str) -> dict[str, Any]:
    """The configuration of a stream as the server says it, without what it notes itself."""
    config: dict[str, Any] = (await js.api_request(f"STREAM.INFO.{stream}"))["config"]
    own = {key: value for key, value in config.pop("metadata", {}).items() if not key.startswith("_nats.")}
    return {**config, **({"metadata": own} if own else {})}


# -- create ------------------------------------------------------------------------------------------------------------


async def test_a_bucket_is_configured_as_asked(nats_server: TrioNatsServer) -> None:
    async with open_world(nats_server) as (_, nc, _):
        js, bucket = nc.jetstream(), unique()
        rich = api.KeyValueConfig(
            bucket,
            description="d",
            max_value_size=1024,
            history=5,
            ttl=60,
            max_bytes=10**6,
            storage=MEMORY,
            placement=api.Placement(tags=[]),
            republish=api.RePublish(f"$KV.{bucket}.>", f"{bucket}.>", headers_only=True),
            compression=True,
            metadata={"owner": "me"},
            limit_marker_ttl=5,
        )
        for _ in range(2):  # the same again is as good
            kv = await js.create_key_value(rich)
        config = await config_of(js, kv.stream)
        expected: dict[str, object] = {
            "subjects": [f"$KV.{bucket}.>"],
            "description": "d",
            "max_msg_size": 1024,
            "max_msgs_per_subject": 5,
            "max_age": 60 * 10**9,
            "duplicate_window": 60 * 10**9,
            "max_bytes": 10**6,
            "storage": "memory",
            "compression": "s2",
            "metadata": {"owner": "me"},
            "republish": {"src": f"$KV.{bucket}.>", "dest": f"{bucket}.>", "headers_only": True},
            "allow_msg_ttl": True,
            "subject_delete_marker_ttl": 5 * 10**9,
            "discard": "new",
            "deny_delete": True,
            "deny_purge": False,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "max_consumers": -1,
            "retention": "limits",
        }
        assert {name: config.get(name) for name in expected} == expected
        await kv.put("k", b"value")
        status = await kv.status()
        assert (status.bucket, status.values, status.history, status.ttl) == (bucket, 1, 5, 60)
        assert (status.limit_marker_ttl, status.compressed, status.metadata) == (5, True, {"owner": "me"})
        assert await js.delete_key_value(bucket)
        for call in (
            js.key_value(bucket),
            js.delete_key_value(bucket),
            kv.status(),
            js.update_key_value(bucket=bucket),
        ):
            with pytest.raises(errors.BucketNotFoundError, match=f"there is no key-value bucket '{bucket}'"):
                await call


async def test_a_bucket_that_exists_is_as_good_if_its_configuration_says_the_same(nats_server: TrioNatsServer) -> None:
    """Whoever created it: nats-py always lets messages have a TTL, and has another duplicate window."""
    async with open_stream(nats_server) as w:
        js, bucket = w.js, unique()
        await js.add_stream(
            name=f"KV_{bucket}",
            subjects=[f"$KV.{bucket}.>"],
            storage=MEMORY,
            max_msgs_per_subject=1,
            discard=api.DiscardPolicy.NEW,
            allow_msg_ttl=True,
            allow_rollup_hdrs=True,
            deny_delete=True,
            duplicate_window=10,
        )
        before = await config_of(js, f"KV_{bucket}")
        kv = await js.create_key_value(bucket=bucket, storage=MEMORY)
        await kv.put("k", b"value")
        with pytest.raises(errors.BadRequestError) as caught:
            await js.create_key_value(bucket=bucket, storage=MEMORY, history=5, ttl=60)
        assert str(caught.value).startswith(f"key-value bucket '{bucket}': stream name already in use")
        assert str(caught.value).endswith("(code 400, error 10058): another ttl, history")
        assert caught.value.err_code == 10058
        assert await config_of(js, f"KV_{bucket}") == before, "nothing was changed"
        assert (await kv.get("k")).value == b"value"
        await js.delete_key_value(bucket)


async def test_an_object_store_that_exists_with_another_configuration_is_told_by_its_fields(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server) as w:
        bucket = unique()
        await w.js.create_object_store(bucket, storage=MEMORY, metadata={"a": "b"})
        await w.js.create_object_store(bucket, storage=MEMORY, metadata={"a": "b"})
        with pytest.raises(errors.BadRequestError, match=rf"object store '{bucket}': .*: another ttl, metadata$"):
            await w.js.create_object_store(bucket, storage=MEMORY, ttl=5)
        await w.js.delete_object_store(bucket)


# -- update ------------------------------------------------------------------------------------------------------------


async def test_an_update_by_keywords_changes_just_these_and_loses_nothing(nats_server: TrioNatsServer) -> None:
    """Neither what a bucket's configuration does not name, nor nanoseconds that no float holds."""
    async with open_stream(nats_server) as w:
        js, bucket = w.js, unique()
        stream = f"KV_{bucket}"
        await js.create_key_value(bucket=bucket, storage=MEMORY, history=5, description="d", metadata={"a": "b"})
        told = (await js.api_request(f"STREAM.INFO.{stream}"))["config"]
        await js.api_request(
            f"STREAM.UPDATE.{stream}", {**told, "max_age": 123_456_789_012_345_678, "max_consumers": 7}
        )
        before = await config_of(js, stream)
        assert (before["max_age"], before["max_consumers"]) == (123_456_789_012_345_678, 7)
        await js.update_key_value(bucket=bucket, max_value_size=1024)
        assert await config_of(js, stream) == {**before, "max_msg_size": 1024}
        await js.update_key_value(bucket=bucket, metadata={"c": "d"}, history=64, max_bytes=10**6, description="e")
        expected = {"metadata": {"c": "d"}, "max_msgs_per_subject": 64, "max_bytes": 10**6, "description": "e"}
        assert await config_of(js, stream) == {**before, "max_msg_size": 1024, **expected}
        await js.delete_key_value(bucket)


@pytest.mark.parametrize("kind", ["keys", "objects"])
async def test_a_ttl_below_the_duplicate_window_takes_the_window_along(nats_server: TrioNatsServer, kind: str) -> None:
    async with open_stream(nats_server) as w:
        js, bucket = w.js, unique()
        update: Callable[[float], Any]
        if kind == "keys":
            stream = (await js.create_key_value(bucket=bucket, storage=MEMORY)).stream
            update = lambda ttl: js.update_key_value(bucket=bucket, ttl=ttl)  # noqa: E731
        else:
            stream = (await js.create_object_store(bucket, storage=MEMORY)).stream
            update = lambda ttl: js.update_object_store(bucket, ttl=ttl)  # noqa: E731
        for ttl, window in ((30, 30), (5, 5), (3600, 120), (0, 120)):
            await update(ttl)
            config = await config_of(js, stream)
            assert (config["max_age"], config["duplicate_window"]) == (ttl * 10**9, window * 10**9)
        await js.delete_stream(stream)


async def test_limit_markers_can_be_turned_on_later_and_not_off_again(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, bucket = w.js, unique()
        kv = await js.create_key_value(bucket=bucket, storage=MEMORY)
        assert (await kv.status()).limit_marker_ttl is None
        await js.update_key_value(bucket=bucket, limit_marker_ttl=5)
        await js.update_key_value(bucket=bucket, limit_marker_ttl=7)
        config = await config_of(js, kv.stream)
        assert (config["allow_msg_ttl"], config["subject_delete_marker_ttl"]) == (True, 7 * 10**9)
        for turn_off in (
            js.update_key_value(bucket=bucket, limit_marker_ttl=None),
            js.update_key_value(api.KeyValueConfig(bucket, storage=MEMORY)),
            js.create_or_update_key_value(bucket=bucket, storage=MEMORY),
        ):
            with pytest.raises(ValueError, match=r"limit_marker_ttl cannot be turned off again.* has 7 s"):
                await turn_off
        assert await config_of(js, kv.stream) == config
        await js.delete_key_value(bucket)


async def test_what_the_server_does_not_change_is_refused_by_the_buckets_name(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, bucket = w.js, unique()
        await js.create_key_value(bucket=bucket, storage=MEMORY)
        await js.create_object_store(bucket, storage=MEMORY)
        said = r"bucket '.*': .*can not change storage type \(code 500, error 10052\)"
        with pytest.raises(errors.ServerError, match=said):
            await js.update_key_value(bucket=bucket, storage=api.StorageType.FILE)
        said = r"object store '.*': .*can not change storage type \(code 500, error 10052\)"
        with pytest.raises(errors.ServerError, match=said):
            await js.update_object_store(bucket, storage=api.StorageType.FILE)
        await js.delete_key_value(bucket)
        await js.delete_object_store(bucket)


async def test_create_or_update_makes_what_is_not_there_and_changes_what_is(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, bucket = w.js, unique()
        kv = await js.create_or_update_key_value(bucket=bucket, storage=MEMORY, description="d", history=5)
        await kv.put("k", b"value")
        await js.create_or_update_key_value(bucket=bucket, storage=MEMORY, ttl=60)
        status = await kv.status()
        assert (status.values, status.history, status.ttl, status.description) == (1, 1, 60, None)
        store = await js.create_or_update_object_store(bucket, storage=MEMORY, max_bytes=10**6)
        await js.create_or_update_object_store(bucket, storage=MEMORY, compression=True)
        told = await store.status()
        assert (told.max_bytes, told.compressed, told.sealed, told.size) == (None, True, False, 0)
        await js.delete_key_value(bucket)
        await js.delete_object_store(bucket)


async def test_an_update_of_a_sealed_object_store_leaves_it_sealed(nats_server: TrioNatsServer) -> None:
    """The server would unseal nothing, and sets what it holds to live for ever."""
    async with open_stream(nats_server) as w:
        js, bucket = w.js, unique()
        store = await js.create_object_store(bucket, storage=MEMORY, ttl=60)
        await js.update_stream(name=store.stream, sealed=True)
        assert ((await store.status()).sealed, (await store.status()).ttl) == (True, None)
        await js.update_object_store(bucket, description="late")
        assert ((await store.status()).sealed, (await store.status()).description) == (True, "late")
        with pytest.raises(ValueError, match=f"object store '{bucket}': ttl cannot be set: the bucket is sealed"):
            await js.update_object_store(bucket, ttl=5)
        echoed = await js.update_stream(name=store.stream, max_age=200)
        assert not echoed.config.max_age, "the server says yes and does nothing"
        await js.delete_object_store(bucket)


# -- which streams are buckets -----------------------------------------------------------------------------------------


async def test_names_and_statuses_are_those_of_buckets_alone() -> None:
    async with open_live(jetstream=True) as (_, nc, _):
        js = nc.jetstream()
        assert (await js.key_value_names(), await js.key_values()) == ([], [])
        assert (await js.object_store_names(), await js.object_stores()) == ([], [])
        for bucket in ("b", "a"):
            await js.create_key_value(bucket=bucket, storage=MEMORY, description=bucket)
            await js.create_object_store(bucket, storage=MEMORY, description=bucket)
        await js.create_key_value(bucket="copy", mirror=api.StreamSource("a"), storage=MEMORY)
        await js.add_stream(name="OBJ_copy", mirror=api.StreamSource("OBJ_a"), storage=MEMORY)
        await js.add_stream(name="KV_no", subjects=["no"], storage=MEMORY)
        await js.add_stream(name="KV_all", subjects=["$KV.all.>"], storage=MEMORY)
        await js.add_stream(name="OBJ_no", subjects=["no.>"], storage=MEMORY)
        assert await js.key_value_names() == await js.object_store_names() == ["a", "b", "copy"]
        assert [status.description for status in await js.key_values()] == ["a", "b", None]
        assert [status.description for status in await js.object_stores()] == ["a", "b", None]
        assert [status.lag for status in await js.key_values()] == [None, None, 0]
        said = r"'no': stream 'KV_no' is none: its subjects are \['no'\], and not \$KV\.no\.>"
        for call in (js.key_value("no"), js.update_key_value(bucket="no", ttl=5), js.create_key_value(bucket="no")):
            with pytest.raises(errors.BadBucketError, match=said):
                await call
        with pytest.raises(
            errors.BadBucketError, match="'all': stream 'KV_all' is none: it has no limit for the history"
        ):
            await js.key_value("all")
        with pytest.raises(errors.BadBucketError, match="object store 'no': stream 'OBJ_no' is none: its subjects are"):
            await js.object_store("no")


# -- mirrors and sources -----------------------------------------------------------------------------------------------


async def caught_up(kv: KeyValue, values: int) -> None:
    """Wait until a mirror holds so many entries: the server copies when it likes."""

    async def has() -> bool:
        return (await kv.status()).values == values

    await until(has)


async def test_a_mirror_is_read_as_its_origin_and_written_there(nats_server: TrioNatsServer) -> None:
    """Other clients find nothing in it: its entries keep the subjects of the origin."""
    async with open_stream(nats_server) as w:
        js, bucket = w.js, unique()
        origin = await js.create_key_value(bucket=bucket, storage=MEMORY)
        first = await origin.put("k", b"one")
        made = await js.create_key_value(bucket=f"{bucket}-copy", mirror=api.StreamSource(bucket), storage=MEMORY)
        config = await config_of(js, made.stream)
        assert (config.get("subjects"), config["mirror"], config["mirror_direct"]) == (
            None,
            {"name": origin.stream},
            True,
        )
        # Else it would keep what has expired or was replaced in its origin.
        assert (config["allow_msg_ttl"], config["allow_rollup_hdrs"]) == (True, True)
        await caught_up(made, 1)
        for copy in (
            made,
            await js.key_value(f"{bucket}-copy"),
            await js.update_key_value(bucket=f"{bucket}-copy", description="d"),
        ):
            entry = await copy.get("k")
            assert (entry.bucket, entry.key, entry.value, entry.revision) == (copy.bucket, "k", b"one", first)
        await made.put("l", b"two")
        assert (await origin.get("l")).value == b"two"
        await caught_up(made, 2)
        async with open_watcher(w.nursery, made) as rx:
            assert [(entry.key, entry.value) for entry in await rx.snapshot()] == [("k", b"one"), ("l", b"two")]
            await made.put("k", b"three")
            entry = await rx.receive()
            assert (entry.key, entry.value) == ("k", b"three")
        with pytest.raises(ValueError, match="mirror cannot be changed"):
            await js.update_key_value(bucket=f"{bucket}-copy", mirror=api.StreamSource("other"))
        await js.delete_key_value(f"{bucket}-copy")
        await js.delete_key_value(bucket)


async def test_a_mirror_forgets_what_its_origin_forgets(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, bucket = w.js, unique()
        origin = await js.create_key_value(bucket=bucket, storage=MEMORY, history=5)
        copy = await js.create_key_value(
            bucket=f"{bucket}-copy", mirror=api.StreamSource(bucket), storage=MEMORY, history=5
        )
        for value in (b"1", b"2", b"3"):
            await origin.put("k", value)
        await caught_up(copy, 3)
        await js.publish(f"$KV.{bucket}.k", b"", headers={"KV-Operation": "PURGE", "Nats-Rollup": "sub"})
        await caught_up(copy, 1)
        await js.delete_key_value(f"{bucket}-copy")
        await js.delete_key_value(bucket)


async def test_a_bucket_collects_others_under_keys_of_its_own(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        js, one, two, both = w.js, unique(), unique(), unique()
        sources = [api.StreamSource(one), api.StreamSource(f"KV_{two}", filter_subject=f"$KV.{two}.a.*")]
        origins = [await js.create_key_value(bucket=bucket, storage=MEMORY) for bucket in (one, two)]
        kv = await js.create_key_value(bucket=both, sources=sources, storage=MEMORY)
        await js.create_key_value(bucket=both, sources=sources, storage=MEMORY)
        await origins[0].put("k", b"one")
        await origins[1].put("a.b", b"two")
        await origins[1].put("b.b", b"left out")
        await kv.put("own", b"three")
        await caught_up(kv, 3)
        assert {key: (await kv.get(key)).value for key in ("k", "a.b", "own")} == {
            "k": b"one",
            "a.b": b"two",
            "own": b"three",
        }
        assert (await kv.status()).lag == 0
        assert (await js.key_value(both)).bucket in await js.key_value_names()
        for bucket in (both, one, two):
            await js.delete_key_value(bucket)


async def test_what_is_stored_is_published_again_where_the_bucket_says_so(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        bucket = unique()
        republish = api.RePublish(f"$KV.{bucket}.>", f"{bucket}.>")
        kv = await w.js.create_key_value(bucket=bucket, storage=MEMORY, republish=republish)
        async with open_subscription(w.nursery, w.nc, f"{bucket}.>") as rx:
            await w.nc.flush()
            await kv.put("k", b"value")
            msg = await rx.receive()
            assert (msg.subject, msg.data, msg.headers["Nats-Sequence"]) == (f"{bucket}.k", b"value", "1")
        assert (await kv.get("k")).value == b"value"
        await w.js.delete_key_value(bucket)


# -- domains -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["leaf", "hub"])
async def test_what_is_put_into_a_domains_bucket_is_stored_in_that_one_alone(at: str) -> None:
    """Both sides have a bucket of one name: the prefix of the API stands before what is written, too (ADR-19)."""
    async with open_pair() as pair:
        there = {
            name: await pair.at(at).jetstream(domain=name).create_key_value(bucket="b") for name in ("hub", "leaf")
        }
        for name, kv in there.items():
            await kv.put("k", name)
            await kv.put(name, b"")
        for name, kv in there.items():
            assert (await kv.get("k")).value == name.encode()
            assert (await kv.status()).values == 2
            assert (await kv.status()).stream_info.domain == name
        assert elsewhere(pair) == []
        async with trio.open_nursery() as nursery, open_watcher(nursery, there["hub"]) as rx:
            assert [entry.key for entry in await rx.snapshot()] == ["k", "hub"]


@pytest.mark.parametrize("mirror", ["b", "copy"])
@pytest.mark.parametrize("domain", ["leaf", None])
async def test_what_is_put_through_a_mirror_is_stored_in_its_origins_domain(mirror: str, domain: str | None) -> None:
    async with open_pair() as pair:
        origin = await pair.hub.jetstream().create_key_value(bucket="b")
        first = await origin.put("k", b"one")
        js = pair.leaf.jetstream(domain=domain)
        source = api.StreamSource("b", external=api.ExternalStream.in_domain("hub"))
        copy = await js.create_key_value(bucket=mirror, mirror=source)
        await caught_up(copy, 1)
        for kv in (copy, await js.key_value(mirror)):
            assert (await kv.get("k")).revision == first
        last = await copy.create("l", b"two")
        assert (await origin.get("l")).revision == last
        await caught_up(copy, 2)
        assert (await copy.get("l")).value == b"two"
        with pytest.raises(errors.KeyWrongLastSequenceError):
            await copy.update("l", b"no", last=first)
        await copy.delete("k", last=await copy.update("k", b"three", last=first))
        await copy.purge("l", last=last)
        for key in ("k", "l"):
            with pytest.raises(errors.KeyDeletedError):
                await origin.get(key)
        last = await copy.put("k", b"four")
        async with trio.open_nursery() as nursery, open_watcher(nursery, copy) as rx:
            while (await rx.receive()).revision < last:
                pass
        assert (await copy.keys(), await origin.keys()) == (["k"], ["k"])
        assert [entry.value for entry in await copy.history("k")] == [b"four"]
        assert elsewhere(pair) == []


@pytest.mark.parametrize("far", [True, False])
async def test_a_mirrored_object_store_is_listed_read_and_watched(far: bool) -> None:
    """By the names of the origin's objects: no stream has the mirror's own subjects."""
    async with open_pair() as pair:
        hub = pair.leaf.jetstream(domain="hub")
        origin = await hub.create_object_store("b", storage=MEMORY)
        content = bytes(300_000)
        await origin.put("large", content)
        await origin.put("small", b"x")
        js = pair.leaf.jetstream(domain="leaf") if far else hub
        external = api.ExternalStream.in_domain("hub") if far else None
        await js.add_stream(name="OBJ_copy", mirror=api.StreamSource("OBJ_b", external=external), storage=MEMORY)
        copy = await js.object_store("copy")

        async def has_all() -> bool:
            return (await copy.status()).stream_info.state.last_seq == (
                await origin.status()
            ).stream_info.state.last_seq

        await until(has_all)
        assert [info.name for info in await copy.list()] == ["large", "small"]
        assert ((await copy.get("large")).data, (await copy.get("small")).data) == (content, b"x")
        assert (await copy.get_info("small")).bucket == "b"
        async with trio.open_nursery() as nursery, open_watcher(nursery, copy) as rx:
            assert [info.name for info in await rx.snapshot()] == ["large", "small"]
            await origin.put("new", b"")
            assert (await rx.receive()).name == "new"
        assert ((await copy.status()).lag, await js.object_store_names()) == (0, ["copy"] if far else ["b", "copy"])


async def test_a_bucket_without_direct_gets_is_read_by_its_leader_over_a_leaf_node_too() -> None:
    """A direct get has no answer there at all: not even that nobody answers."""
    async with open_pair() as pair:
        js = pair.leaf.jetstream(domain="hub")
        kv = await js.create_key_value(bucket="b", storage=MEMORY, direct=False)
        await kv.put("k", b"value")
        with trio.fail_after(5):
            for found in (kv, await js.key_value("b")):
                assert (await found.get("k")).value == b"value"
