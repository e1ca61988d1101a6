"""Streams on a real server: their configurations, whole; lists, purges, mirrors; and what a handle does."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
from nats.js import api as nats_api

import trionats
from tests.worlds import StreamWorld, open_live, open_stream, seam, until
from trionats import JetStream, Stream, api, errors
from trionats._jetstream.api import Api
from trionats._protocol.jetstream import levels
from trionats.testing import TrioNatsServer

pytestmark = pytest.mark.usefixtures("server_executable")

SECOND = 10**9
SOURCE = {
    "name": "ORIGIN",
    "opt_start_time": "2026-01-01T00:00:00.123456789Z",
    "external": {"api": "$JS.other.API", "deliver": "deliver.other"},
    "subject_transforms": [{"src": "a.>", "dest": "b.>"}],
}
#: Raw configurations that together have every field of server 2.15.
EVERYTHING: dict[str, dict[str, Any]] = {
    "limits": {
        "subjects": ["all.>"],
        "description": "d",
        "retention": "limits",
        "max_consumers": 7,
        "max_msgs": 1000,
        "max_bytes": 100_000,
        "max_age": 3_600_123_456_789,
        "max_msgs_per_subject": 3,
        "max_msg_size": 1000,
        "discard": "new",
        "discard_new_per_subject": True,
        "storage": "file",
        "num_replicas": 1,
        "no_ack": True,
        "duplicate_window": 60_123_456_789,
        "compression": "s2",
        "first_seq": 5,
        "subject_transform": {"src": "all.>", "dest": "stored.>"},
        "republish": {"src": "stored.>", "dest": "again.>", "headers_only": True},
        "allow_direct": True,
        "deny_delete": True,
        "consumer_limits": {"inactive_threshold": 5_000_000_001, "max_ack_pending": 9},
        "metadata": {"k": "v"},
    },
    "interest": {
        "subjects": ["all.>"],
        "retention": "interest",
        "storage": "memory",
        "deny_purge": True,
        "allow_msg_schedules": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
        "allow_batched": True,
    },
    "markers": {
        "subjects": ["all.>"],
        "storage": "memory",
        "allow_rollup_hdrs": True,
        "subject_delete_marker_ttl": 2_000_000_000,
        "max_age": 9_223_372_036_854_775_807,
    },
    "counter": {"subjects": ["all.>"], "storage": "memory", "allow_msg_counter": True},
    "async": {"subjects": ["all.>"], "persist_mode": "async"},
    "sources": {"sources": [SOURCE, {"name": "SECOND", "filter_subject": "x"}], "storage": "memory"},
    "mirror": {"mirror": {"name": "ORIGIN", "opt_start_seq": 5}, "mirror_direct": True, "storage": "memory"},
    "consumer": {
        "mirror": {"name": "ORIGIN", "consumer": {"name": "c", "deliver_subject": "d.c"}},
        "storage": "memory",
    },
}


async def raw_config(js: JetStream, name: str) -> dict[str, Any]:
    config: dict[str, Any] = (await js.api_request(f"STREAM.INFO.{name}"))["config"]
    return config


#: Those with a field that is newer than the others.
NEWER = {"interest", "consumer"}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.level(4)] if kind in NEWER else []) for kind in EVERYTHING]
)
async def test_a_configuration_is_read_changed_in_one_field_and_written_back(
    nats_server: TrioNatsServer, kind: str
) -> None:
    async with open_live(jetstream=True) as (_, nc, _):
        js = nc.jetstream()
        await js.api_request("STREAM.CREATE.S", {"name": "S", **EVERYTHING[kind]})
        before = await raw_config(js, "S")
        known = {field.name for field in dataclasses.fields(api.StreamConfig)}
        assert before.keys() <= known, "each field has its place"
        config = (await js.stream_info("S")).config
        assert config.as_dict() == before
        config.description = "changed"
        await js.update_stream(config)
        after = await raw_config(js, "S")
        assert {**before, "description": "changed"} == after
        await js.update_stream(name="S", description="by keyword")
        assert {**before, "description": "by keyword"} == await raw_config(js, "S")


def test_together_they_have_every_field() -> None:
    told = {field for config in EVERYTHING.values() for field in config}
    ours = {field.name for field in dataclasses.fields(api.StreamConfig)}
    assert ours - told == {"name", "sealed", "template_owner", "placement", "extra"}, "sealed streams are not updated"


#: The same for consumers.
CONSUMERS: dict[str, dict[str, Any]] = {
    "pull": {
        "durable_name": "c",
        "name": "c",
        "description": "d",
        "deliver_policy": "by_start_time",
        "opt_start_time": "2026-01-01T00:00:00.123456789Z",
        "ack_policy": "explicit",
        "ack_wait": 5_000_000_001,
        "max_deliver": 5,
        "backoff": [5_000_000_001, 6_123_456_789],
        "filter_subjects": ["all.a", "all.b"],
        "replay_policy": "original",
        "sample_freq": "50",
        "max_waiting": 7,
        "max_ack_pending": 9,
        "headers_only": True,
        "max_batch": 10,
        "max_expires": 7_000_000_001,
        "max_bytes": 1000,
        "inactive_threshold": 3_600_123_456_789,
        "num_replicas": 1,
        "mem_storage": True,
        "metadata": {"k": "v"},
        "pause_until": "2199-01-01T00:00:00.123456789Z",
    },
    "push": {
        "name": "c",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": 3,
        "filter_subject": "all.>",
        "rate_limit_bps": 1_000_000,
        "flow_control": True,
        "idle_heartbeat": 5_000_000_001,
        "deliver_subject": "deliver.here",
        "deliver_group": "g",
    },
    "pinned": {
        "name": "c",
        "ack_policy": "explicit",
        "priority_groups": ["g"],
        "priority_policy": "pinned_client",
        "priority_timeout": 120_000_000_001,
    },
}


@pytest.mark.parametrize("kind", CONSUMERS)
async def test_a_consumers_configuration_is_read_changed_in_one_field_and_written_back(kind: str) -> None:
    async with open_live(jetstream=True) as (_, nc, _):
        js = nc.jetstream()
        await js.add_stream(name="S", subjects=["all.>"], storage="memory")
        await js.api_request("CONSUMER.CREATE.S.c", {"stream_name": "S", "config": CONSUMERS[kind]})
        before = (await js.api_request("CONSUMER.INFO.S.c"))["config"]
        assert before.keys() <= {field.name for field in dataclasses.fields(api.ConsumerConfig)}
        config = (await js.consumer_info("S", "c")).config
        assert config.as_dict() == before
        config.description = "changed"
        await js.add_consumer("S", config)
        assert (await js.api_request("CONSUMER.INFO.S.c"))["config"] == {**before, "description": "changed"}


def test_the_consumers_together_have_every_field() -> None:
    told = {field for config in CONSUMERS.values() for field in config}
    ours = {field.name for field in dataclasses.fields(api.ConsumerConfig)}
    assert ours - told == {"direct", "sourcing", "extra"}, "which are the server's own"


async def test_a_keyword_changes_its_field_and_leaves_the_rest(nats_server: TrioNatsServer) -> None:
    """An absent field is the server's default: an update with defaults would change the retention, and delete messages."""
    async with open_stream(nats_server, retention="interest", max_msgs=100, metadata={"k": "v"}) as w:
        for update in (w.stream.update(max_age=60), w.js.update_stream(name=w.stream.name, max_age=60)):
            info = await update
            assert (info.config.retention, info.config.max_msgs, info.config.max_age) == ("interest", 100, 60)
        assert w.stream.cached_info.config.max_age == 60
        assert (await w.stream.update(metadata=None, max_msgs=-1)).config.metadata is not None, "the server's own notes"
        assert "k" not in ((await w.stream.info()).config.metadata or {})


@pytest.mark.level(5)
async def test_an_update_to_interest_deletes_at_once_what_nobody_waits_for(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await w.js.publish(w.subject, b"x")
        assert (await w.stream.info()).state.messages == 1
        await w.stream.update(retention=api.RetentionPolicy.INTEREST)
        assert (await w.stream.info()).state.messages == 0


async def test_a_sealed_stream_takes_nothing_and_loses_its_age(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, max_age=60) as w:
        info = await w.stream.update(sealed=True)
        assert (info.config.sealed, info.config.max_age) == (True, 0)
        with pytest.raises(errors.APIError, match="sealed"):
            await w.stream.purge()
        with pytest.raises(errors.APIError, match=r"stream '.*': .*seal"):
            await w.stream.update(sealed=False)


async def test_classes_of_nats_py_are_as_good(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        theirs = nats_api.StreamConfig(
            name=f"{w.stream.name}c",
            sources=[nats_api.StreamSource(w.stream.name, filter_subject=w.subject)],
            consumer_limits=nats_api.StreamConsumerLimits(inactive_threshold=5),
            storage=nats_api.StorageType.MEMORY,
            max_age=60,
        )
        for call in (w.js.create_stream, w.js.create_or_update_stream):
            stream = await call(theirs)
            config = stream.cached_info.config
            assert config.sources is not None
            assert config.consumer_limits is not None
            assert (config.sources[0].filter_subject, config.consumer_limits.inactive_threshold) == (w.subject, 5)
            assert (config.max_age, type(config.sources[0])) == (60, api.StreamSource)
        assert isinstance(stream.cached_info, nats_api.StreamInfo)
        assert (await stream.update(theirs, description="d")).config.description == "d"
        assert await stream.delete()


async def test_a_whole_configuration_is_what_the_stream_has_then(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, description="d", max_msgs=100) as w:
        name = w.stream.name
        config = api.StreamConfig(name=name, subjects=[f"{name}.>"], storage=api.StorageType.MEMORY)
        info = await w.stream.update(config)
        assert (info.config.description, info.config.max_msgs) == (None, -1)
        created = await w.js.create_or_update_stream(config, description="e")
        assert (created.name, created.cached_info.config.description) == (name, "e")


async def test_a_stream_keeps_its_name(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        for other in ({"name": "other"}, {"config": api.StreamConfig(name="other")}):
            with pytest.raises(ValueError, match=r"name is 'other', and stream '.*' keeps its own"):
                await w.stream.update(**other)


async def test_a_stream_is_created_or_changed(nats_server: TrioNatsServer) -> None:
    async with open_live(jetstream=True) as (_, nc, _):
        js = nc.jetstream()
        first = await js.create_or_update_stream(name="S", subjects=["s.>"], max_msgs=5)
        again = await js.create_or_update_stream(name="S", subjects=["s.>"], max_msgs=6)
        assert (first.cached_info.config.max_msgs, again.cached_info.config.max_msgs) == (5, 6)
        assert first.cached_info.created == again.cached_info.created
        with pytest.raises(errors.APIError, match=r"stream 'T': .*subjects overlap"):
            await js.create_or_update_stream(name="T", subjects=["s.a"])
        with pytest.raises(errors.APIError, match=r"stream 'S': .*storage"):
            await js.create_or_update_stream(name="S", subjects=["s.>"], storage="memory")


@pytest.mark.parametrize("config", [{}, {"subject_delete_marker_ttl": 5}, {"max_age": 5, "allow_msg_ttl": True}])
async def test_a_stream_of_the_same_configuration_is_as_good(
    nats_server: TrioNatsServer, config: dict[str, Any]
) -> None:
    """The server compares after its own additions: a marker's TTL alone turns on `allow_msg_ttl` and `allow_rollup_hdrs`."""
    async with open_stream(nats_server, **config) as w:
        again = await w.js.create_stream(
            name=w.stream.name, subjects=[f"{w.stream.name}.>"], storage="memory", **config
        )
        assert again.cached_info.created == w.stream.cached_info.created
        assert again.cached_info.config == w.stream.cached_info.config
        assert again.cached_info.config.allow_msg_ttl is bool(config)


async def test_a_purge_says_how_many_messages_it_deleted(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        name = w.stream.name

        async def left() -> list[int]:
            state = (await w.stream.info(deleted_details=True)).state
            return [seq for seq in range(state.first_seq, state.last_seq + 1) if seq not in (state.deleted or ())]

        for number in range(10):
            await w.js.publish(f"{name}.{number % 2}", b"x")
        for subject in (None, f"{name}.0", f"{name}.*"):
            assert await w.stream.purge(seq=1, subject=subject) == 0
            assert len(await left()) == 10, "servers up to 2.14.0 would delete all"
        assert await w.stream.purge(seq=3) == 2
        assert await left() == [3, 4, 5, 6, 7, 8, 9, 10]
        assert await w.stream.purge(subject=f"{name}.0", seq=6) == 2
        assert await left() == [4, 6, 7, 8, 9, 10]
        assert await w.stream.purge(subject=f"{name}.1", keep=1) == 3
        assert await left() == [7, 9, 10]
        assert await w.stream.purge(keep=2) == 1
        assert await w.stream.purge(subject=f"{name}.none") == 0
        assert await w.stream.purge() == 2
        assert await left() == []
        await w.stream.update(deny_purge=True)
        with pytest.raises(errors.APIError, match=f"stream '{name}'.*purge"):
            await w.stream.purge()


async def test_subjects_are_listed_beyond_what_the_server_gives_at_once(nats_server: TrioNatsServer) -> None:
    """It gives 100,000."""
    count = 100_003
    async with open_stream(nats_server) as w:
        for number in range(count):
            await w.nc.publish(f"{w.stream.name}.{number}", b"")
        await w.nc.flush()
        await until(partial(_holds, w, count), within=20, pause=0.05)
        subjects = (await w.stream.info(subjects_filter=">")).state.subjects or {}
        assert len(subjects) == count
        assert set(subjects) == {f"{w.stream.name}.{number}" for number in range(count)}
        some = await w.js.stream_info(w.stream.name, f"{w.stream.name}.5")
        assert some.state.subjects == {f"{w.stream.name}.5": 1}
        assert some.extra.keys() == {"type"}, "nothing of the page is said of the stream"


async def _holds(w: StreamWorld, count: int) -> bool:
    return (await w.stream.info()).state.messages == count


async def test_deleted_messages_are_listed_on_demand(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        for _ in range(4):
            await w.js.publish(w.subject, b"x")
        await w.js.delete_msg(w.stream.name, 2)
        state = (await w.stream.info()).state
        assert (state.deleted, state.num_deleted, state.num_subjects) == (None, 1, 1)
        assert state.last_ts is not None
        assert state.last_ts.year >= 2026
        assert (await w.stream.info(deleted_details=True)).state.deleted == [2]
        assert (await w.js.stream_info(w.stream.name, None, True)).state.deleted == [2]


async def test_lists_of_streams_are_whole_and_by_subject() -> None:
    """The server gives 256 infos at a time, and 1,024 names."""
    async with open_live(jetstream=True) as (_, nc, _):
        js = nc.jetstream()
        names = [f"S{number:04}" for number in range(260)]
        for name in names:
            await js.add_stream(name=name, subjects=[f"{name}.>", f"all.{name[-1]}.{name}"], storage="memory")
        assert [info.config.name for info in await js.streams_info()] == names
        assert [info.config.name for info in await js.streams_info(offset=255)] == names[255:]
        assert await js.stream_names() == names
        some = [name for name in names if name.endswith("7")]
        assert await js.stream_names("all.7.*") == some
        assert [info.config.name for info in await js.streams_info(subject="all.7.>")] == some
        assert await js.find_stream_name_by_subject("all.7.*") == some[0]
        assert await js.stream_names("none") == []


async def test_a_handle_knows_its_consumers(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        made = await w.stream.create_consumer(durable_name="d", ack_policy="explicit")
        assert (made.stream, made.name) == (w.stream.name, "d")
        await w.stream.create_consumer(api.ConsumerConfig(name="c"))
        assert await w.stream.consumer_names() == ["c", "d"]
        assert [info.name for info in await w.stream.consumers_info()] == ["c", "d"]
        assert (await w.stream.consumer("c")).cached_info is not None
        assert (await w.stream.consumer("unasked", bind=True)).cached_info is None
        with pytest.raises(errors.NotFoundError, match=f"consumer 'unasked' of stream '{w.stream.name}'"):
            await w.stream.consumer("unasked")
        assert await w.stream.delete_consumer("c")
        assert await w.stream.consumer_names() == ["d"]
        assert await w.stream.delete()
        with pytest.raises(errors.NotFoundError, match=f"stream '{w.stream.name}': stream not found"):
            await w.stream.info()


@pytest.mark.level(4)
async def test_a_mirror_forgets_what_its_origin_forgets(nats_server: TrioNatsServer) -> None:
    """Without `allow_msg_ttl` and `allow_rollup_hdrs` of its own it keeps everything, with a lag of 0."""
    async with open_stream(nats_server, allow_msg_ttl=True, allow_rollup_hdrs=True) as w:
        name = w.stream.name
        mirror = await w.js.create_stream(name=f"{name}m", mirror=api.StreamSource(name), storage="memory")
        plain = await w.js.create_stream(
            name=f"{name}p",
            mirror=api.StreamSource(name),
            storage="memory",
            allow_msg_ttl=False,
            allow_rollup_hdrs=False,
        )

        async def holds(stream: Stream, last: int, count: int) -> bool:
            state = (await stream.info()).state
            return (state.last_seq, state.messages) == (last, count)

        await w.js.publish(f"{name}.a", b"1")
        for stream in (mirror, plain):
            await until(partial(holds, stream, 1, 1), within=5, pause=0.02)
        await w.js.publish(f"{name}.b", b"expires", msg_ttl=1)
        await w.js.publish(f"{name}.a", b"2", headers={"Nats-Rollup": "sub"})
        for stream in (w.stream, mirror):
            await until(partial(holds, stream, 3, 1), within=5, pause=0.05)
        assert await holds(plain, 3, 3), "what the server does where it is told not to forget"
        again = await w.js.create_stream(name=f"{name}m", mirror=api.StreamSource(name), storage="memory")
        assert again.cached_info.created == mirror.cached_info.created
        again = await w.js.create_or_update_stream(
            name=f"{name}m", mirror=api.StreamSource(name), storage="memory", description="d"
        )
        assert (again.cached_info.config.allow_msg_ttl, again.cached_info.config.description) == (True, "d")
        assert await mirror.delete()
        assert await plain.delete()


async def test_a_mirror_of_another_client_is_as_good_as_ours(nats_server: TrioNatsServer) -> None:
    """Which made it without the two."""
    async with open_stream(nats_server) as w:
        name = f"{w.stream.name}m"
        config = {"name": name, "mirror": {"name": w.stream.name}, "storage": "memory"}
        await w.js.api_request(f"STREAM.CREATE.{name}", config)
        stream = await w.js.create_stream(name=name, mirror=api.StreamSource(w.stream.name), storage="memory")
        assert stream.cached_info.config.allow_msg_ttl is False
        assert await stream.delete()


async def test_sources_transforms_and_republishing_pass_through(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        name = w.stream.name
        source = api.StreamSource(name, subject_transforms=[api.SubjectTransform(f"{name}.>", f"{name}s.from.>")])
        collected = await w.js.create_stream(
            name=f"{name}s",
            subjects=[f"{name}s.own.>"],
            sources=[source],
            subject_transform=api.SubjectTransform(f"{name}s.own.>", f"{name}s.mine.>"),
            republish=api.RePublish(src=f"{name}s.>", dest=f"again.{name}.>"),
            storage="memory",
        )
        async with trionats.open_subscription(w.nursery, w.nc, f"again.{name}.>") as rx:
            await w.nc.flush()
            await w.js.publish(f"{name}.a", b"1")
            await w.js.publish(f"{name}s.own.b", b"2")
            heard = {(await rx.receive()).subject for _ in range(2)}
        assert heard == {f"again.{name}.from.a", f"again.{name}.mine.b"}
        info = await collected.info(subjects_filter=">")
        assert info.state.subjects == {f"{name}s.from.a": 1, f"{name}s.mine.b": 1}
        assert info.sources is not None
        assert (info.sources[0].name, info.sources[0].lag) == (name, 0)
        assert await collected.delete()


async def test_the_account_tells_what_it_may_use_and_what_the_server_can_do(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        info = await w.js.account_info()
        assert info.streams >= 1
        assert info.limits.max_streams == -1
        assert (info.api.level or 0) >= 2
        assert info.api.total > 0


async def test_the_server_refuses_a_level_that_it_does_not_have(nats_server: TrioNatsServer) -> None:
    """By the header alone: an older one would make the stream."""
    async with open_stream(nats_server) as w:
        with pytest.raises(errors.APIError, match="minimum api level required") as caught:
            await Api(seam(w.nc)).request("STREAM.CREATE.NEVER", {"name": "NEVER"}, {levels.HEADER: "99"})
        assert (caught.value.code, caught.value.err_code) == (412, levels.REFUSED)
        assert "NEVER" not in await w.js.stream_names()


async def test_outside_a_cluster_nobody_can_step_down(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        for call in (w.stream.step_down(), w.stream.step_down("n1"), w.stream.remove_peer("n1")):
            with pytest.raises(errors.APIError, match=f"stream '{w.stream.name}': .*cluster"):
                await call
        assert await w.stream.nearest() is w.stream
