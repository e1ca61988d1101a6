"""Ordered consumers on a real server: in order, whole and once, through whatever happens; and what is left on the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from tests.clusters import make_replicated_stream, open_cluster
from tests.worlds import StreamWorld, open_stream, open_world, sequences, until
from trionats import Feed, JetStream, JetStreamMsg, OrderedConsumer, api, errors, open_consumer
from trionats.testing import TrioNatsServer, open_server

pytestmark = pytest.mark.usefixtures("server_executable")

STORED = 12
#: Sequence 7 is the last of the first three subjects, and 12 of the last one.
SUBJECTS = "aabbccaddddd"
STORED_THEN = f"{SUBJECTS}abd"


async def store(w: StreamWorld, *tokens: str) -> None:
    for token in tokens:
        await w.js.publish(f"{w.stream.name}.{token}", token.encode())


async def receive(rx: Feed[JetStreamMsg], count: int) -> list[int]:
    messages: list[JetStreamMsg] = []
    with trio.fail_after(20):
        while len(messages) < count:
            messages.append(await rx.receive())
    return sequences(messages)


async def consumers(js: JetStream, stream: str) -> list[str]:
    return [info.name for info in await js.consumers_info(stream)]


async def at_most(count: int, js: JetStream, stream: str, *, within: float = 2) -> None:
    """Wait until there are no more consumers than that: nobody waits for the deletion of one that was left."""

    async def few() -> bool:
        with trio.move_on_after(1), suppress(errors.Error):
            return (await js.stream_info(stream)).state.consumer_count <= count
        return False

    await until(few, within=within)


async def drop_consumers(js: JetStream, stream: str) -> int:
    """Delete all consumers of a stream; say how many there were."""
    names = await consumers(js, stream)
    for name in names:
        await js.delete_consumer(stream, name)
    return len(names)


@asynccontextmanager
async def stored(server: TrioNatsServer, **config: Any) -> AsyncIterator[StreamWorld]:  # noqa: ANN401 - of a stream
    """A stream of twelve messages; nobody's consumer is left on it."""
    async with open_stream(server, **config) as w:
        await store(w, *SUBJECTS)
        yield w
        await w.nc.flush()
        await at_most(0, w.js, w.stream.name)


# -- where it begins, and where it goes on -----------------------------------------------------------------------------------

MOMENT = object()
POLICIES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "all": ({}, list(range(1, 13))),
    "new": ({"deliver_policy": "new"}, []),
    "last": ({"deliver_policy": "last"}, [12]),
    "last of some": ({"deliver_policy": api.DeliverPolicy.LAST, "filter_subjects": ["*.a", "*.b"]}, [7]),
    "last of each subject": ({"deliver_policy": "last_per_subject"}, [4, 6, 7, 12]),
    "last of each of some": ({"deliver_policy": "last_per_subject", "filter_subjects": ["*.a", "*.d"]}, [7, 12]),
    "from a sequence": ({"deliver_policy": "by_start_sequence", "opt_start_seq": 9}, [9, 10, 11, 12]),
    "from a sequence to come": ({"deliver_policy": "by_start_sequence", "opt_start_seq": 13}, []),
    "from a time": ({"deliver_policy": "by_start_time", "opt_start_time": MOMENT}, list(range(5, 13))),
    "from before the first": (
        {"deliver_policy": "by_start_time", "opt_start_time": datetime(2020, 1, 1, tzinfo=UTC)},
        list(range(1, 13)),
    ),
    "from a time to come": (
        {"deliver_policy": "by_start_time", "opt_start_time": datetime.now(UTC) + timedelta(days=1)},
        [],
    ),
    "one filter": ({"filter_subjects": "*.d"}, list(range(8, 13))),
    "several filters": ({"filter_subjects": ["*.b", "*.d"]}, [3, 4, *range(8, 13)]),
}


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *((name, "a feed") for name in POLICIES),
        *((name, way) for name in ("all", "new", "last of each of some") for way in ("fetches", "kept fetches")),
    ],
)
async def test_each_policy_gives_what_it_names_and_then_what_comes(
    nats_server: TrioNatsServer, name: str, way: str
) -> None:
    """With its consumer deleted before the first message, after some, and twice in a row."""
    options, expected = dict(POLICIES[name][0]), list(POLICIES[name][1])
    async with stored(nats_server) as w:
        if options.get("opt_start_time") is MOMENT:
            options["opt_start_time"] = (await w.js.get_msg(w.stream.name, 5)).time
        ordered = await w.js.ordered_consumer(w.stream.name, **options)
        await at_most(0, w.js, w.stream.name)
        # What comes before anybody reads is new, too.
        later = [
            token for token in "abd" if "filter_subjects" not in options or f"*.{token}" in options["filter_subjects"]
        ]
        new = [STORED + "abd".index(token) + 1 for token in later]
        if way != "a feed":
            await read_by_fetches(w, ordered, expected, new, keep=way == "kept fetches")
            return
        async with open_consumer(w.nursery, ordered, max_messages=2) as rx:
            assert await drop_consumers(w.js, w.stream.name) == 1
            await store(w, "a", "b", "d")
            got = await receive(rx, len(expected) // 3 + 1)
            for _ in range(2):
                assert await drop_consumers(w.js, w.stream.name) <= 1
            while got[-1] != new[-1]:
                got += await receive(rx, 1)
        if "last_per_subject" not in options.values():
            assert got == expected + new
        else:
            # What was replaced before it was sent may be left out, and nothing else.
            assert got == sorted(set(got) & {*expected, *new})
            assert {STORED_THEN[seq - 1]: seq for seq in expected + new}.items() <= {
                STORED_THEN[seq - 1]: seq for seq in got
            }.items()


async def read_by_fetches(
    w: StreamWorld, ordered: OrderedConsumer, expected: list[int], new: list[int], *, keep: bool
) -> None:
    async def read() -> None:
        got: list[int] = []
        while len(got) < len(expected):
            await at_most(int(keep), w.js, w.stream.name)
            got += sequences(await ordered.fetch(2, no_wait=len(got) % 3 == 0))
        assert got == expected
        await store(w, "a", "b", "d")
        assert sequences(await ordered.fetch(len(new))) == new
        assert await ordered.fetch(1, no_wait=True) == []

    if keep:
        async with ordered:
            await read()
            assert len(await consumers(w.js, w.stream.name)) == 1
    else:
        await read()


async def test_messages_come_as_far_apart_as_they_were_stored_on_request(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await store(w, "a")
        await trio.sleep(0.3)
        await store(w, "b", "c")
        for policy in ("all", "last_per_subject"):
            ordered = await w.js.ordered_consumer(w.stream.name, deliver_policy=policy, replay_policy="original")
            async with open_consumer(w.nursery, ordered) as rx:
                assert await receive(rx, 1) == [1]
                begun = trio.current_time()
                assert await receive(rx, 2) == [2, 3]
                assert trio.current_time() - begun > 0.25


# -- what happens to its consumer ------------------------------------------------------------------------------------------------


@pytest.mark.live(seconds=20)
async def test_a_consumer_that_the_server_forgot_while_the_reader_slept_is_made_again_where_it_was(
    nats_server: TrioNatsServer,
) -> None:
    async with stored(nats_server) as w:
        ordered = await w.js.ordered_consumer(w.stream.name, inactive_threshold=1)
        async with open_consumer(w.nursery, ordered, max_messages=4, expires=1) as rx:
            assert await receive(rx, 1) == [1]
            await at_most(1, w.js, w.stream.name)
            await until(lambda: len(rx) == 3)

            async def forgotten() -> bool:
                return not await consumers(w.js, w.stream.name)

            await until(forgotten, within=10, pause=0.1)
            assert await receive(rx, 11) == list(range(2, 13))


async def test_holes_in_the_stream_are_no_gaps(nats_server: TrioNatsServer) -> None:
    async with stored(nats_server) as w:
        for sequence in (1, 4, 5, 9):
            await w.js.delete_msg(w.stream.name, sequence)
        ordered = await w.js.ordered_consumer(w.stream.name)
        async with open_consumer(w.nursery, ordered) as rx:
            assert await receive(rx, 8) == [2, 3, 6, 7, 8, 10, 11, 12]
            await w.js.delete_msg(w.stream.name, 12)
            await store(w, "a")
            assert await receive(rx, 1) == [13]
            info = await ordered.info()
            assert info is not None
            assert info.name.endswith("_2"), "the first one fixed where it begins"
            config = info.config
            assert (config.ack_policy, config.mem_storage, config.num_replicas) == (api.AckPolicy.NONE, True, 1)


async def test_a_purge_is_read_over(nats_server: TrioNatsServer) -> None:
    async with stored(nats_server) as w:
        ordered = await w.js.ordered_consumer(w.stream.name)
        async with open_consumer(w.nursery, ordered, max_messages=4) as rx:
            assert await receive(rx, 1) == [1]
            await until(lambda: len(rx) == 3)
            await w.js.purge_stream(w.stream.name)
            await store(w, "a")
            assert await receive(rx, 4) == [2, 3, 4, 13]
            await drop_consumers(w.js, w.stream.name)
            await w.js.purge_stream(w.stream.name)
            await store(w, "a")
            assert await receive(rx, 1) == [15 - 1]


@pytest.mark.parametrize("on_recreate", ["fail", "restart"])
async def test_a_stream_that_is_made_anew_is_told_or_begun_anew(nats_server: TrioNatsServer, on_recreate: Any) -> None:  # noqa: ANN401
    async with open_stream(nats_server) as w:
        await store(w, *SUBJECTS)
        ordered = await w.js.ordered_consumer(w.stream.name, on_recreate=on_recreate)
        async with open_consumer(w.nursery, ordered) as rx:
            assert await receive(rx, STORED) == list(range(1, STORED + 1))
            config = w.stream.cached_info.config
            await w.js.delete_stream(w.stream.name)
            await w.js.create_stream(config)
            await store(w, *SUBJECTS, "a")
            if on_recreate == "restart":
                assert await receive(rx, STORED + 1) == list(range(1, STORED + 2))
            else:
                with trio.fail_after(5), pytest.raises(errors.StreamRegressedError, match="made anew"):
                    await rx.receive()
        await at_most(0, w.js, w.stream.name)


async def test_a_stream_that_is_deleted_ends_it(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        ordered = await w.js.ordered_consumer(w.stream.name)
        async with open_consumer(w.nursery, ordered) as rx:
            await w.js.delete_stream(w.stream.name)
            with trio.fail_after(3), pytest.raises(errors.NotFoundError, match="stream not found"):
                await rx.receive()
        with pytest.raises(errors.NotFoundError, match="stream not found"):
            await ordered.next()
        with pytest.raises(
            errors.NotFoundError, match=f"ordered consumer of stream '{w.stream.name}': stream not found"
        ):
            await w.js.ordered_consumer(w.stream.name)


async def test_what_the_server_refuses_is_refused_when_it_is_made(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        with pytest.raises(errors.APIError, match="overlap") as caught:
            await w.js.ordered_consumer(w.stream.name, filter_subjects=[f"{w.stream.name}.>", f"{w.stream.name}.a"])
        assert caught.value.err_code == 10138


async def test_a_fetch_of_so_many_bytes_gives_no_more(nats_server: TrioNatsServer) -> None:
    async with stored(nats_server) as w:
        ordered = await w.js.ordered_consumer(w.stream.name)
        (first,) = await ordered.fetch(1)
        size = len(first.subject) + len(first.reply) + len(first.data)
        assert sequences(await ordered.fetch(10, max_bytes=4 * size)) == [2, 3, 4, 5]
        with pytest.raises(
            errors.BadRequestError, match=rf"the next message has \d+ bytes, and max_bytes is {size - 20}$"
        ):
            await ordered.fetch(10, max_bytes=size - 20)
        assert sequences(await ordered.fetch(1)) == [6]


# -- what happens to the server ----------------------------------------------------------------------------------------------------

COUNT, KILLS, DELETIONS = 20_000, 10, 5


class Marathon:
    """Three who read one stream to its end, each in its own way, and one who writes it."""

    def __init__(self, js: JetStream, nursery: trio.Nursery, bodies: list[bytes], stored: int = 0) -> None:
        self.js, self.nursery, self.bodies, self.stored = js, nursery, bodies, stored
        self.threshold = 30.0
        self.progress = self.most_buffered = 0
        self.done: list[str] = []

    async def write(self) -> None:
        """Each message again until it is known to be stored, which it is once."""
        for number in range(self.stored, len(self.bodies)):
            stored = False
            while not stored:
                with suppress(errors.Error):
                    await self.js.publish("s", self.bodies[number], msg_id=str(number))
                    stored = True
        self.done.append("write")

    async def hurry(self) -> None:
        ordered = await self.js.ordered_consumer("S", inactive_threshold=self.threshold)
        async with open_consumer(self.nursery, ordered, heartbeat=1, expires=5) as rx:
            for body in self.bodies:
                assert (await rx.receive()).data == body
                self.progress += 1
        self.done.append("hurry")

    async def sleep(self) -> None:
        ordered = await self.js.ordered_consumer("S", inactive_threshold=self.threshold)
        room: dict[str, Any] = {"max_messages": 300, "max_bytes": 20_000}
        async with open_consumer(self.nursery, ordered, **room, heartbeat=1, expires=5) as rx:
            for number, body in enumerate(self.bodies):
                if number % 200 == 0:
                    await trio.sleep(0.02)
                    self.most_buffered = max(self.most_buffered, len(rx))
                assert (await rx.receive()).data == body
        self.done.append("sleep")

    async def fetch(self) -> None:
        ordered = await self.js.ordered_consumer("S", inactive_threshold=self.threshold)
        async with ordered:
            came: list[bytes] = []
            while len(came) < len(self.bodies):
                # An election may take longer than that, and then it says so; the next one goes on all the same.
                with suppress(errors.TimeoutError):
                    came += [msg.data for msg in await ordered.fetch(700, expires=3)]
        assert came == self.bodies
        self.done.append("fetch")


@pytest.mark.live(seconds=120)
async def test_twenty_thousand_messages_come_in_order_and_once_through_kills_and_deletions() -> None:
    """To a reader that hurries, to one that sleeps, with little room, and to one that fetches."""
    bodies = [b"%05d" % number + bytes(95) for number in range(1, COUNT + 1)]
    happenings = ["kill", "kill", "delete"] * DELETIONS
    async with open_server(jetstream=True) as server, open_world(server, reconnect_time_wait=0.02) as (_, nc, nursery):
        js = nc.jetstream()
        await js.create_stream(name="S", subjects=["s"], storage=api.StorageType.FILE)
        for body in bodies[: COUNT // 2]:
            nc.publish_nowait("s", body)
        assert (await js.publish("s", bodies[COUNT // 2], msg_id=str(COUNT // 2))).seq == COUNT // 2 + 1
        run = Marathon(js, nursery, bodies, COUNT // 2)
        begun = trio.current_time()
        for part in (run.write, run.hurry, run.sleep, run.fetch):
            nursery.start_soon(part)
        for number, happening in enumerate(happenings, 1):
            due = number * COUNT // (len(happenings) + 2)
            await until(lambda: run.progress >= due, within=30)  # noqa: B023 - it is waited for here
            if happening == "kill":
                await server.restart(kill=True)
            else:
                await at_most(3, js, "S")
                await drop_consumers(js, "S")
        await until(lambda: len(run.done) == 4, within=30)
        assert happenings.count("kill") == KILLS
        assert 50 < run.most_buffered <= 20_000 // 100, "it is bounded by the bytes"
        assert trio.current_time() - begun < 60
        await at_most(0, js, "S")


async def host_of_a_reader(js: JetStream) -> str:
    """Name the node that leads a consumer of the stream; there may be none for a moment, and nobody to ask."""
    hosts: list[str] = []

    async def found() -> bool:
        with suppress(errors.Error):
            hosts.extend(
                info.cluster.leader for info in await js.consumers_info("S") if info.cluster and info.cluster.leader
            )
        return bool(hosts)

    await until(found, within=20)
    return hosts[0]


@pytest.mark.live(seconds=200)
async def test_three_nodes_whose_leaders_step_down_lose_and_double_nothing() -> None:
    """And the node goes that has the reader's consumer."""
    bodies = [b"%05d" % number + bytes(95) for number in range(1, 2001)]
    async with (
        open_cluster(jetstream=True) as cluster,
        open_world(cluster.servers["n1"], cluster.urls) as (_, nc, nursery),
    ):
        js = nc.jetstream()
        await make_replicated_stream(nc, "s")
        run = Marathon(js, nursery, bodies)
        run.threshold = 5
        for part in (run.write, run.hurry, run.fetch):
            nursery.start_soon(part)
        for step in range(1, 7):
            await until(lambda: run.progress >= step * 300, within=60)  # noqa: B023 - it is waited for here
            if step == 3:
                await cluster.servers[await host_of_a_reader(js)].restart(kill=True)
            else:
                with suppress(errors.Error):
                    await js.api_request("STREAM.LEADER.STEPDOWN.S")
        await until(lambda: len(run.done) == 3, within=60)
        # Where a deletion met an election, it was lost, and the consumer is left to its threshold. Where that met one, too, the
        # server tries again after 30 to 60 s.
        await at_most(0, js, "S", within=100)
