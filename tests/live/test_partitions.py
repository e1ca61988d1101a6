"""Partitioned consumer groups on a real server: who is given what, as members come and go; the server is looked at, too."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from tests.clusters import make_replicated_stream, open_cluster
from tests.worlds import StreamWorld, connected, next_event, open_stream, open_world, unique, until
from trionats import Feed, JetStream, JetStreamMsg, api, errors, events, open_events, open_partition
from trionats.testing import NatsServer

pytestmark = [pytest.mark.live(seconds=60), pytest.mark.usefixtures("server_executable")]

BUCKETS = {False: "static-consumer-groups", True: "elastic-consumer-groups"}
KEYS = 12


class Group:
    """A group on a stream of its own, and what its members were given."""

    def __init__(self, w: StreamWorld, name: str, *, elastic: bool) -> None:
        self.w, self.name, self.elastic = w, name, elastic
        self.stream = w.stream.name
        self.read_stream = f"{self.stream}-{name}" if elastic else self.stream
        self.got: dict[str, list[tuple[str, bytes]]] = {}
        self.busy: set[str] = set()

    async def create(self, count: int = 6, **more: Any) -> api.ConsumerGroup:  # noqa: ANN401 - any argument
        if self.elastic:
            # Servers of 2.11 make no partitions of whole subjects.
            more = {"filters": {f"{self.stream}.*": [1]}, **more}
        return await self.w.js.create_group(self.stream, self.name, count, elastic=self.elastic, **more)

    def open(self, member: str, js: JetStream | None = None, nursery: trio.Nursery | None = None) -> Any:  # noqa: ANN401
        chosen = js or self.w.js
        return open_partition(nursery or self.w.nursery, chosen, self.stream, self.name, member, elastic=self.elastic)

    async def work(self, member: str, *, js: JetStream | None = None, pause: float = 0) -> None:
        """Be a member; one of several processes that work on one key at a time."""
        async with self.open(member, js) as rx:
            async for msg in rx:
                await self.work_on(msg, member, pause)

    async def work_on(self, msg: JetStreamMsg, member: str, pause: float = 0) -> None:
        assert msg.subject not in self.busy, "two have it"
        self.busy.add(msg.subject)
        try:
            await trio.sleep(pause)
        finally:
            self.busy.discard(msg.subject)
        self.got.setdefault(member, []).append((msg.subject, msg.data))
        await msg.ack()

    async def publish(self, first: int, last: int) -> None:
        """Publish numbers, over all keys."""
        for number in range(first, last):
            await self.w.js.publish(f"{self.stream}.{number % KEYS}", b"%d" % number)

    @property
    def count(self) -> int:
        return sum(map(len, self.got.values()))

    async def consumers(self) -> dict[str, api.ConsumerInfo]:
        return {info.name: info for info in await self.w.js.consumers_info(self.read_stream)}

    async def stored(self) -> Mapping[str, Any]:
        kv = await self.w.js.key_value(BUCKETS[self.elastic])
        fields: Mapping[str, Any] = json.loads((await kv.get(f"{self.stream}.{self.name}")).value)
        return fields


@asynccontextmanager
async def open_group(server: NatsServer, *, elastic: bool = True, **config: Any) -> AsyncIterator[Group]:  # noqa: ANN401
    """Give a group that is not created yet; it is gone afterwards."""
    async with open_stream(server, **config) as w:
        group = Group(w, unique("g"), elastic=elastic)
        yield group
        w.nursery.cancel_scope.cancel()
        with trio.move_on_after(2, shield=True):
            with suppress(errors.NotFoundError):
                await w.js.delete_group(group.stream, group.name, elastic=elastic)


def partitioned(name: str, count: int = 6) -> dict[str, Any]:
    """Configure a stream that puts a partition before its subjects."""
    transform = api.SubjectTransform(f"{name}.*", f"{{{{Partition({count},1)}}}}.{name}.{{{{Wildcard(1)}}}}")
    return {"name": name, "subjects": [f"{name}.*"], "subject_transform": transform}


# -- static groups --------------------------------------------------------------------------------------------------------


async def test_the_members_of_a_static_group_share_a_stream_by_its_partitions(nats_server: NatsServer) -> None:
    async with open_group(nats_server, elastic=False, **partitioned(unique("S"))) as group:
        made = await group.create(members=["m1", "m2"], filters=f"{group.stream}.*")
        assert made.partitions == {"m1": (0, 1, 2), "m2": (3, 4, 5)}
        await group.publish(0, 60)
        async with trio.open_nursery() as members:
            for member in ("m1", "m2"):
                members.start_soon(group.work, member)
            await until(lambda: group.count == 60)
            members.cancel_scope.cancel()
        keys = {member: {subject for subject, _ in group.got[member]} for member in ("m1", "m2")}
        assert not keys["m1"] & keys["m2"]
        assert keys["m1"] | keys["m2"] == {f"{group.stream}.{key}" for key in range(KEYS)}
        assert_in_order(group)
        # The consumers stay, with their positions; nobody is pinned, and nothing else is there.
        there = await group.consumers()
        assert set(there) == {f"{group.name}-m1", f"{group.name}-m2"}
        info = there[f"{group.name}-m2"]
        assert info.config.filter_subjects == [f"{number}.{group.stream}.*" for number in (3, 4, 5)]
        assert (info.config.durable_name, info.config.inactive_threshold) == (f"{group.name}-m2", None)
        assert (info.num_pending, info.num_ack_pending) == (0, 0)
        await until(lambda: nobody_is_pinned(group, f"{group.name}-m2"))
        assert await group.w.js.delete_group(group.stream, group.name)
        assert await group.consumers() == {}


def assert_in_order(group: Group) -> None:
    """Each key's numbers were done once each, and rising, by whoever did them."""
    done: dict[str, list[int]] = {}
    for found in group.got.values():
        for subject, data in found:
            done.setdefault(subject, []).append(int(data))
    for numbers in done.values():
        assert len(set(numbers)) == len(numbers)
    for found in group.got.values():
        for key in done:
            rising = [int(data) for subject, data in found if subject == key]
            assert rising == sorted(rising)


async def nobody_is_pinned(group: Group, consumer: str) -> bool:
    states = (await group.consumers())[consumer].priority_groups or []
    return not any(state.pinned_client_id for state in states)


async def test_who_is_no_member_of_a_static_group_is_refused(nats_server: NatsServer) -> None:
    async with open_group(nats_server, elastic=False, **partitioned(unique("S"))) as group:
        await group.create(members=["a", "b"])
        with pytest.raises(ValueError, match=r"member is 'c': static group '\w+' of stream '\w+' has 'a', 'b'"):
            async with group.open("c"):
                pass
        assert await group.consumers() == {}


async def test_a_static_consumer_that_reads_something_else_is_left_alone(nats_server: NatsServer) -> None:
    """That of member `b-c` of group `a` is called as that of member `c` of group `a-b` is."""
    async with open_group(nats_server, elastic=False, **partitioned(unique("S"))) as group:
        js, stream = group.w.js, group.stream
        await js.create_group(stream, "a", 2, members=["b-c", "x"])
        await js.create_group(stream, "a-b", 4, members=["c"])
        async with open_partition(group.w.nursery, js, stream, "a", "b-c"):
            await until(group.consumers)
        async with open_partition(group.w.nursery, js, stream, "a-b", "c") as rx:
            with pytest.raises(errors.GroupChangedError, match="consumer 'a-b-c' reads other subjects"):
                await rx.receive()
        assert (await group.consumers())["a-b-c"].config.filter_subjects == ["0.>"]
        for name in ("a", "a-b"):
            await js.delete_group(stream, name)


@pytest.mark.parametrize("how", ["deleted", "changed", "consumer deleted"])
async def test_a_static_member_hears_what_became_of_its_group(nats_server: NatsServer, how: str) -> None:
    async with open_group(nats_server, elastic=False, **partitioned(unique("S"))) as group:
        await group.create(members=["m"])
        async with group.open("m") as rx:
            await until(group.consumers)
            js = group.w.js
            if how == "deleted":
                await js.delete_group(group.stream, group.name)
                with pytest.raises(errors.GroupNotFoundError, match="it was deleted"):
                    await rx.receive()
            elif how == "changed":
                kv = await js.key_value(BUCKETS[False])
                await kv.put(f"{group.stream}.{group.name}", json.dumps({"max_members": 6, "members": ["m", "n"]}))
                with pytest.raises(errors.GroupChangedError, match="members is another one than it was"):
                    await rx.receive()
            else:
                await js.delete_consumer(group.stream, f"{group.name}-m")
                with pytest.raises(errors.ConsumerGoneError):
                    await rx.receive()
        assert await group.consumers() == {}


# -- elastic groups -------------------------------------------------------------------------------------------------------


async def test_a_member_that_is_added_takes_over_its_partitions_in_order(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        await group.create(members="m1")
        await group.publish(0, 120)
        async with trio.open_nursery() as members:
            for member in ("m1", "m2", "m3"):
                members.start_soon(group.work, member)
            await until(lambda: group.count >= 60)
            await group.w.js.add_members(group.stream, group.name, ["m2", "m3"])
            await group.publish(120, 360)
            await until(lambda: group.count >= 180)
            await group.w.js.drop_members(group.stream, group.name, "m1")
            await group.publish(360, 480)
            await until(lambda: group.count >= 480)
            await group.publish(480, 540)
            await until(lambda: group.count >= 540)
            before = {member: len(found) for member, found in group.got.items()}
            assert all(before.values())
            await until(lambda: members_are(group, {"m2", "m3"}))
            members.cancel_scope.cancel()
        assert group.count == 540
        assert_in_order(group)
        await until(lambda: holds(group, 0))
        assert not any(int(data) >= 480 for _, data in group.got["m1"])


async def watchers(js: JetStream) -> set[str]:
    """Who watches: processes that were killed stay among them for a while."""
    return set(await js.consumer_names(f"KV_{BUCKETS[True]}"))


async def nobody_else_watches(js: JetStream, before: set[str]) -> bool:
    return await watchers(js) <= before


async def holds(group: Group, count: int) -> bool:
    return (await group.w.js.stream_info(group.read_stream)).state.messages == count


async def members_are(group: Group, names: set[str]) -> bool:
    return set(await group.consumers()) == names


async def test_partitions_change_hands_at_once_and_a_member_hears_of_it(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group, open_events(group.w.nursery, group.w.nc) as happened:
        await group.create(members="a")
        async with group.open("a") as ours, group.open("b") as theirs:
            told = [await next_event(happened, events.PartitionsChanged) for _ in range(2)]
            assert {event.member: event.partitions for event in told} == {"a": (0, 1, 2, 3, 4, 5), "b": ()}
            await until(group.consumers)
            began = trio.current_time()
            await group.w.js.add_members(group.stream, group.name, "b")
            told = [await next_event(happened, events.PartitionsChanged) for _ in range(2)]
            assert {event.member: event.partitions for event in told} == {"a": (0, 1, 2), "b": (3, 4, 5)}
            await until(lambda: members_are(group, {"a", "b"}))
            await group.publish(0, KEYS)
            await (await theirs.receive()).ack()
            assert trio.current_time() - began < 2
            await (await ours.receive()).ack()
            await group.w.js.drop_members(group.stream, group.name, "b")
            told = [await next_event(happened, events.PartitionsChanged) for _ in range(2)]
            assert {event.member: event.partitions for event in told} == {"a": (0, 1, 2, 3, 4, 5), "b": ()}
            await until(lambda: members_are(group, {"a"}))
            with trio.move_on_after(0.1):
                pytest.fail(f"{await theirs.receive()}")
            for _ in range(KEYS - 2):
                await (await ours.receive()).ack()
        await until(lambda: holds(group, 0))


async def test_what_is_held_when_a_partition_is_lost_is_finished_first(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        await group.create(1, members="m1")
        await group.publish(0, 2)
        async with group.open("m1") as old, group.open("m0") as new:
            held = await old.receive()
            assert (held.subject, held.data) == (f"{group.stream}.0", b"0")
            await group.w.js.add_members(group.stream, group.name, {"m0": [0]})
            with trio.move_on_after(1):
                pytest.fail(f"{await new.receive()}")
            await held.ack()
            following = await new.receive()
            assert following.data == b"1"
            assert following.metadata.num_delivered == 1
            await following.ack()
        assert set(await group.consumers()) == {"m0"}


async def test_what_is_held_for_longer_than_the_ack_wait_comes_again_to_who_has_the_partition(
    nats_server: NatsServer,
) -> None:
    async with open_group(nats_server) as group:
        await group.create(1, members="m1")
        await group.publish(0, 1)
        async with group.open("m1") as old, group.open("m0") as new:
            held = await old.receive()
            began = trio.current_time()
            await group.w.js.add_members(group.stream, group.name, {"m0": [0]})
            again = await new.receive()
            assert 4 < trio.current_time() - began < 7
            assert again.data == held.data
            # Whoever held it is told that it is another's.
            with pytest.raises(errors.Error, match=r"consumer 'm1' .* was deleted"):
                await held.ack()
            await again.ack()


async def test_of_two_processes_of_a_member_one_is_given_all_and_the_other_follows_when_it_leaves(
    nats_server: NatsServer,
) -> None:
    async with open_group(nats_server) as group, connected(nats_server) as other:
        await group.create(members="m")
        await group.publish(0, 30)
        async with group.open("m", other.jetstream()) as standby:
            async with group.open("m") as first:
                pinned, waiting = await served(first, standby)
                for _ in range(10):
                    await (await pinned.receive()).ack()
                assert not len(waiting)
                last = await pinned.receive()
                await last.ack()
                if pinned is standby:
                    return  # who leaves first is the one that was not pinned
            began = trio.current_time()
            msg = await standby.receive()
            assert trio.current_time() - began < 2
            assert int(msg.data) == int(last.data) + 1
            await msg.ack()


async def served(*feeds: Feed[JetStreamMsg]) -> list[Feed[JetStreamMsg]]:
    """Give feeds in an order in which the first is the one that something comes to."""
    await until(lambda: any(len(feed) for feed in feeds))
    return sorted(feeds, key=len, reverse=True)


#: A process that takes the first message of a member, and does not come to an end.
PROCESS = """
import sys, trio, trionats
async def main(url, stream, group):
    async with trio.open_nursery() as nursery, trionats.open_client(nursery, url) as nc:
        async with trionats.open_partition(nursery, nc.jetstream(), stream, group, "m", elastic=True) as rx:
            await rx.receive()
            await trio.sleep_forever()
trio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_process_that_is_gone_without_a_word_is_followed_by_another(
    nats_server: NatsServer, how: signal.Signals
) -> None:
    async with open_group(nats_server) as group:
        await group.create(members="m")
        await group.publish(0, 3)
        command = [sys.executable, "-c", PROCESS, nats_server.url, group.stream, group.name]
        process = await trio.lowlevel.open_process(command)

        async def holds_one() -> bool:
            return any(info.num_ack_pending for info in (await group.consumers()).values())

        try:
            await until(holds_one, within=20, pause=0.02)
            async with group.open("m") as standby:
                process.send_signal(how)
                began = trio.current_time()
                # What it held comes again, and before what follows.
                msg = await standby.receive()
                assert (msg.data, msg.metadata.num_delivered) == (b"0", 2)
                assert 2 < trio.current_time() - began < 12
                await msg.ack()
                assert (await standby.receive()).data == b"1"
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


@pytest.mark.live(seconds=90)
async def test_the_members_of_a_group_go_on_when_a_server_of_the_cluster_is_killed() -> None:
    """What was acknowledged may have been lost with the server, and comes again; what has one key stays in order."""
    async with (
        open_cluster(jetstream=True) as cluster,
        open_world(cluster.servers["n1"], cluster.urls, reconnect_time_wait=0.05) as (_, nc, nursery),
    ):
        await make_replicated_stream(nc, "s.*")
        js = nc.jetstream()
        await js.create_group("S", "g", 6, elastic=True, filters={"s.*": [1]}, members=["m1", "m2"])
        config = (await js.stream_info("S-g")).config
        assert (config.num_replicas, (await js.stream_info("KV_elastic-consumer-groups")).config.num_replicas) == (3, 3)
        seen: dict[str, list[int]] = {}

        async def work(member: str) -> None:
            async with open_partition(nursery, js, "S", "g", member, elastic=True) as rx:
                async for msg in rx:
                    seen.setdefault(msg.subject, []).append(int(msg.data))
                    with suppress(errors.Error):
                        await msg.ack_sync()

        for member in ("m1", "m2"):
            nursery.start_soon(work, member)
        for number in range(120):
            await publish_patiently(js, number)
            if number == 60:
                await cluster.node(nc).kill()
        # The server may take half a minute until it takes over again from a stream that has another leader.
        await until(lambda: {n for found in seen.values() for n in found} == set(range(120)), within=75, pause=0.05)
        for found in seen.values():
            assert list(dict.fromkeys(found)) == sorted(set(found))
        nursery.cancel_scope.cancel()


async def publish_patiently(js: JetStream, number: int) -> None:
    """Publish until it is acknowledged; it is stored once."""
    while True:
        try:
            await js.publish(f"s.{number % KEYS}", b"%d" % number, msg_id=str(number))
            return
        except errors.Error:
            await trio.sleep(0.1)


async def test_a_member_goes_on_after_the_connection_was_lost(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        await group.create(members="m")
        async with group.open("m") as rx:
            await group.publish(0, 1)
            await (await rx.receive()).ack()
            await group.w.nc.reconnect()
            await group.w.nc.wait_connected()
            await group.publish(1, 3)
            found = []
            for _ in range(2):
                msg = await rx.receive()
                found.append(msg.data)
                await msg.ack()
            assert found == [b"1", b"2"]


async def test_an_elastic_consumer_that_somebody_deletes_is_created_again(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        await group.create(members="m")
        async with group.open("m") as rx:
            await until(group.consumers)
            await group.w.js.delete_consumer(group.read_stream, "m")
            await group.publish(0, 1)
            await (await rx.receive()).ack()


async def test_a_group_that_is_deleted_ends_its_members_and_leaves_nothing(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        await group.create(members="m")
        before = await watchers(group.w.js)
        async with group.open("m") as rx, group.open("n") as idle:
            await until(group.consumers)
            assert await group.w.js.delete_group(group.stream, group.name, elastic=True)
            for feed in (rx, idle):
                with pytest.raises(errors.GroupNotFoundError, match="it was deleted"):
                    await feed.receive()
        js = group.w.js
        assert group.read_stream not in await js.stream_names()
        await until(lambda: nobody_else_watches(js, before))
        with pytest.raises(errors.GroupNotFoundError):
            await js.delete_group(group.stream, group.name, elastic=True)
        with pytest.raises(errors.GroupNotFoundError):
            await js.add_members(group.stream, group.name, "m")
        with pytest.raises(errors.GroupNotFoundError):
            async with group.open("m"):
                pass


async def test_leaving_gives_back_what_was_not_received_and_leaves_no_watcher(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        await group.create(members="m")
        before = await watchers(group.w.js)
        await group.publish(0, 3)
        async with group.open("m") as rx:
            await until(lambda: len(rx))
        js = group.w.js
        await until(lambda: nobody_is_pinned(group, "m"))
        await until(lambda: nobody_else_watches(js, before))
        async with group.open("m") as rx:
            msg = await rx.receive()
            assert (msg.data, msg.metadata.num_delivered) == (b"0", 2)
            await msg.ack()
        await until(lambda: members_are(group, set()), within=15, pause=0.1)
        await until(lambda: holds(group, 2))


# -- management -----------------------------------------------------------------------------------------------------------


async def test_a_group_that_exists_is_as_good_with_the_same_configuration_only(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        await group.create(filters={f"{group.stream}.*": [1]}, members="m", max_buffered_msgs=100)
        await group.w.js.add_members(group.stream, group.name, "n")
        again = await group.create(filters={f"{group.stream}.*": [1]}, max_buffered_msgs=100)
        assert again.members == ("m", "n")
        with pytest.raises(errors.GroupChangedError, match="it exists with another max_members") as caught:
            await group.create(7)
        assert (caught.value.stream, caught.value.group) == (group.stream, group.name)
        assert await group.stored() == {
            "max_members": 6,
            "partitioning_filters": [{"filter": f"{group.stream}.*", "partitioning_wildcards": [1]}],
            "max_buffered_msg": 100,
            "members": ["m", "n"],
        }
        config = (await group.w.js.stream_info(group.read_stream)).config
        assert (config.retention, config.discard, config.max_msgs) == ("workqueue", "new", 100)


async def test_a_group_that_cannot_be_created_leaves_nothing(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        js = group.w.js
        await js.create_stream(name=group.read_stream, subjects=[f"other.{group.name}"], storage="memory")
        with pytest.raises(errors.APIError, match="already in use"):
            await group.create()
        kv = await js.key_value(BUCKETS[True])
        with pytest.raises(errors.KeyNotFoundError):
            await kv.get(f"{group.stream}.{group.name}")
        # Nor is somebody's stream deleted, which is only called like a queue.
        with pytest.raises(errors.GroupNotFoundError):
            await js.delete_group(group.stream, group.name, elastic=True)
        assert await js.delete_stream(group.read_stream)
        with pytest.raises(errors.NotFoundError, match="stream 'nobody'"):
            await js.create_group("nobody", "g", 2, members="m")
        # Who forgets that it is to be elastic would wait for ever.
        with pytest.raises(ValueError, match="no subject of the stream begins with a partition"):
            await js.create_group(group.stream, "forgotten", 2, members="m")
        with pytest.raises(errors.GroupNotFoundError):
            await js.delete_group(group.stream, "forgotten")


async def test_members_that_are_added_at_the_same_time_are_all_added(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        await group.create(10)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(group.w.js.add_members, group.stream, group.name, f"m{number}")
        found = await group.w.js.add_members(group.stream, group.name, ())
        assert found.members == tuple(f"m{number}" for number in range(10))
        with pytest.raises(ValueError, match="members: 1 more than there are partitions"):
            await group.w.js.add_members(group.stream, group.name, "one.more".replace(".", "-"))


async def test_partitions_are_given_by_hand(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        await group.create(2, mappings={"a": [1], "b": [0]})
        await group.publish(0, KEYS)
        async with group.open("a"), group.open("b"):
            await until(lambda: members_are(group, {"a", "b"}))
        there = await group.consumers()
        assert {name: info.config.filter_subjects for name, info in there.items()} == {"a": ["1.>"], "b": ["0.>"]}
        after = await group.w.js.add_members(group.stream, group.name, {"b": [0, 1]})
        assert after.members == ("b",)
        assert (await group.w.js.drop_members(group.stream, group.name, ["b"])).partitions == {}


async def test_what_is_stored_and_no_configuration_is_told_and_can_be_deleted(nats_server: NatsServer) -> None:
    async with open_group(nats_server) as group:
        await group.create()
        kv = await group.w.js.key_value(BUCKETS[True])
        await kv.put(f"{group.stream}.{group.name}", b"{}")
        with pytest.raises(errors.GroupChangedError, match="its max_members must be from 1 to 65536"):
            await group.w.js.add_members(group.stream, group.name, "m")
        with pytest.raises(errors.GroupChangedError, match="its max_members must be from 1 to 65536"):
            async with group.open("m"):
                pass
        assert await group.w.js.delete_group(group.stream, group.name, elastic=True)
        assert group.read_stream not in await group.w.js.stream_names()
