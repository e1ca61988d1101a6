"""Ordered consumers over a server in memory: one use after another, and what the server may do to one."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio

from tests.cancelling import Cut, cancel_everywhere
from tests.fake_consumers import Consumer
from tests.fake_jetstream import UNAVAILABLE, FakeStream, refusal
from tests.fakes import FakeServer, Frame
from tests.worlds import Listener, buffered, lose, numbers, open_world, regain, seam, settled, until
from trionats import Client, Feed, JetStreamMsg, OrderedConsumer, errors, events, open_consumer

pytestmark = pytest.mark.usefixtures("autojump_clock")

NO_RESOURCES = refusal(503, 10023, "insufficient resources")
NO_SUITABLE_PEERS = refusal(400, 10005, "no suitable peers for placement")
MADE_ANEW = "2099-01-01T00:00:00Z"


class Stream(FakeStream):
    """A stream whose next answers to the creation of a consumer are the test's; "silence" is one."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server, "S", "s.>", timed=True)
        self.answers: list[Any] = []
        self.created: list[tuple[float, dict[str, Any]]] = []
        self.remade = ""

    def create(self, frame: Frame) -> dict[str, Any] | None:
        self.created.append((trio.current_time(), json.loads(frame.payload)["config"]))
        if self.answers:
            answer = self.answers.pop(0)
            return None if answer == "silence" else answer
        return super().create(frame)

    def about(self) -> dict[str, Any]:
        return {**super().about(), **({"created": self.remade} if self.remade else {})}

    def remake(self) -> None:
        """Delete the stream and make one of the same name."""
        for name in list(self.consumers):
            self.delete_consumer(name)
        self.messages, self.last, self.remade = [], 0, MADE_ANEW

    @property
    def consumer(self) -> Consumer:
        (consumer,) = self.consumers.values()
        return consumer

    @property
    def started(self) -> list[tuple[object, object]]:
        """Where the consumers were to begin, one after the other."""
        return [(config["deliver_policy"], config.get("opt_start_seq")) for _, config in self.created]


class OrderedWorld(NamedTuple):
    """A stream in memory, and an ordered consumer of it."""

    stream: Stream
    ordered: OrderedConsumer
    nc: Client
    nursery: trio.Nursery

    def store(self, *numbers: int) -> None:
        for number in numbers:
            self.stream.store("s.a", b"%d" % number, rollup=False)

    async def later(self, call: Callable[[], object]) -> None:
        await trio.sleep(1)
        call()

    async def drop_consumers(self) -> None:
        for name in list(self.stream.consumers):
            self.stream.delete_consumer(name)
        await settled()


@asynccontextmanager
async def open_ordered(stored: int = 0, **options: Any) -> AsyncIterator[OrderedWorld]:  # noqa: ANN401 - of ordered_consumer
    """Open a world with so many messages, numbered from 1 on."""
    server = FakeServer()
    stream = Stream(server)
    async with open_world(server, reconnect_time_wait=0.05) as (_, nc, nursery):
        for number in range(1, stored + 1):
            stream.store("s.a", b"%d" % number, rollup=False)
        w = OrderedWorld(stream, await nc.jetstream().ordered_consumer("S", **options), nc, nursery)
        await nc.flush()
        assert not stream.consumers, "what fixes where reading begins is deleted"
        yield w
        if not nc.is_closed:
            await nc.flush()
            assert not stream.consumers


async def receive(rx: Feed[JetStreamMsg], count: int) -> list[int]:
    return numbers([await rx.receive() for _ in range(count)])


# -- one use after another -------------------------------------------------------------------------------------------------


async def test_each_use_goes_on_where_the_one_before_was_left() -> None:
    async with open_ordered(20) as w:
        assert numbers(await w.ordered.fetch(3)) == [1, 2, 3]
        msg = await w.ordered.next()
        assert msg is not None
        assert numbers([msg]) == [4]
        async with open_consumer(w.nursery, w.ordered) as rx:
            assert await receive(rx, 3) == [5, 6, 7]
        assert numbers(await w.ordered.fetch(100, no_wait=True)) == list(range(8, 21))
        assert repr(w.ordered) == "<OrderedConsumer of stream 'S', at 20>"


async def test_what_was_buffered_when_a_feed_was_left_comes_with_the_next_use() -> None:
    async with open_ordered(20) as w:
        async with open_consumer(w.nursery, w.ordered, max_messages=8) as rx:
            await settled()
            assert (await receive(rx, 2), len(rx)) == ([1, 2], 6)
        async with open_consumer(w.nursery, w.ordered) as rx:
            await settled()
            assert len(rx) == 18, "nothing was received from this one"
        async with open_consumer(w.nursery, w.ordered) as rx:
            await settled()
            rx.stop()
            assert numbers([msg async for msg in rx]) == list(range(3, 21)), "stopped, it gives what it has"
        assert await w.ordered.fetch(1, no_wait=True) == []


async def test_a_second_use_at_a_time_is_refused_and_disturbs_nothing() -> None:
    async with open_ordered(3) as w:
        async with open_consumer(w.nursery, w.ordered) as rx:
            rx.stop()
            for use in (w.ordered.fetch(1), w.ordered.next(), open_consumer(w.nursery, w.ordered).__aenter__()):
                with pytest.raises(trio.BusyResourceError, match=r"^ordered consumer of stream 'S': a feed reads it"):
                    await use
        fetched: list[int] = []

        async def fetch() -> None:
            fetched.extend(numbers(await w.ordered.fetch(4, expires=3)))

        w.nursery.start_soon(fetch)
        await settled()
        with pytest.raises(trio.BusyResourceError, match="a fetch reads it"):
            await w.ordered.next()
        w.store(4)
        await settled()
        assert fetched == [1, 2, 3, 4]


async def test_a_fetch_that_was_cancelled_loses_nothing() -> None:
    async with open_ordered(3) as w:
        for _ in range(2):
            with trio.CancelScope() as scope:
                w.nursery.start_soon(w.later, scope.cancel)
                await w.ordered.fetch(5)
            assert scope.cancelled_caught
        assert numbers(await w.ordered.fetch(5)) == [1, 2, 3]


async def test_a_fetch_ends_just_before_a_deadline_with_what_has_come() -> None:
    async with open_ordered(3) as w:
        for expected in ([1, 2, 3], []):
            with trio.move_on_after(1) as scope:
                begun = trio.current_time()
                assert numbers(await w.ordered.fetch(5)) == expected
                assert 0.97 < trio.current_time() - begun < 1
            assert not scope.cancelled_caught
        # Who is cancelled is not told why there was nothing.
        w.stream.answers = [UNAVAILABLE] * 100
        with trio.move_on_after(1) as scope:
            await w.ordered.fetch(5)
        assert scope.cancelled_caught


async def test_within_its_block_a_consumer_is_kept_and_deleted_at_its_end() -> None:
    async with open_ordered(6) as w:
        async with w.ordered:
            for first in (1, 3, 5):
                assert numbers(await w.ordered.fetch(2)) == [first, first + 1]
                info = await w.ordered.info()
                assert info is not None
                assert info.name == w.stream.consumer.name
            assert len(w.stream.created) == 2
            # It is gone meanwhile: another one goes on.
            await w.drop_consumers()
            assert await w.ordered.info() is None
            w.store(7)
            assert numbers(await w.ordered.fetch(1)) == [7]
            assert w.stream.started[2:] == [("by_start_sequence", 6)]
            # What a feed leaves is not where reading goes on.
            async with open_consumer(w.nursery, w.ordered):
                pass
            await w.nc.flush()
            assert not w.stream.consumers
            await w.ordered.fetch(1, no_wait=True)
            assert len(w.stream.consumers) == 1
        await w.nc.flush()
        assert not w.stream.consumers
        assert await w.ordered.info() is None


async def test_a_block_that_is_left_while_a_feed_reads_leaves_the_feed_alone() -> None:
    async with open_ordered(2) as w:
        async with w.ordered:
            opened = open_consumer(w.nursery, w.ordered)
            rx = await opened.__aenter__()
            assert await receive(rx, 1) == [1]
        assert await receive(rx, 1) == [2]
        await opened.__aexit__(None, None, None)


# -- what is fetched -------------------------------------------------------------------------------------------------------


async def test_a_fetch_ends_by_count_by_bytes_by_time_and_by_the_servers_word() -> None:
    async with open_ordered(9) as w:
        assert len(await w.ordered.fetch(2)) == 2
        size = len("s.a") + len((await w.ordered.fetch(1))[0].reply) + 1
        assert numbers(await w.ordered.fetch(9, max_bytes=3 * size)) == [4, 5, 6]
        begun = trio.current_time()
        assert numbers(await w.ordered.fetch(9, expires=2)) == [7, 8, 9]
        assert 2 <= trio.current_time() - begun < 2.1
        assert await w.ordered.fetch(9, no_wait=True) == []
        assert await w.ordered.next(expires=1) is None
        assert trio.current_time() - begun < 3.2


async def test_a_message_that_alone_is_larger_than_max_bytes_is_told_with_both_sizes_and_stays_the_next_one() -> None:
    async with open_ordered(1) as w:
        with pytest.raises(
            errors.APIError, match=r"stream 'S': the next message has (\d+) bytes, and max_bytes is 20$"
        ):
            await w.ordered.fetch(3, max_bytes=20)
        async with open_consumer(w.nursery, w.ordered, max_bytes=20) as rx:
            with pytest.raises(errors.BadRequestError, match=r"the next message has \d+ bytes, and max_bytes is 20$"):
                await rx.receive()
        async with open_consumer(w.nursery, w.ordered) as rx:
            w.stream.store("s.a", bytes(9 << 20), rollup=False)
            assert await receive(rx, 1) == [1]
            assert len((await rx.receive()).data) == 9 << 20, "with the usual one it comes alone"


async def test_a_server_that_cannot_be_asked_is_not_taken_for_one_that_has_nothing() -> None:
    async with open_ordered(1) as w:
        w.stream.answers = [UNAVAILABLE] * 100
        with pytest.raises(errors.TimeoutError, match=r"could not be asked within 3 s: .*temporarily unavailable"):
            await w.ordered.fetch(1, expires=3)
        w.stream.answers = []
        await lose(w.stream.server, w.nc)
        w.stream.server.accepting = False
        with pytest.raises(errors.TimeoutError, match=r"could not be asked within 1 s$"):
            await w.ordered.fetch(1, expires=1, no_wait=True)
        await regain(w.stream.server, w.nc)
        assert numbers(await w.ordered.fetch(1)) == [1]


async def test_a_fetch_goes_on_with_the_next_connection_and_the_next_consumer() -> None:
    async with open_ordered(2) as w:

        async def happen() -> None:
            await trio.sleep(0.5)
            await w.drop_consumers()
            w.store(3)
            await trio.sleep(1)
            w.stream.server.cut()
            await trio.sleep(1)
            w.store(4)

        w.nursery.start_soon(happen)
        assert numbers(await w.ordered.fetch(4)) == [1, 2, 3, 4]


# -- what happens to its consumer --------------------------------------------------------------------------------------------


async def test_silence_is_a_reset_at_twice_the_heartbeat_and_not_without_a_connection() -> None:
    async with open_ordered(1) as w, open_consumer(w.nursery, w.ordered, heartbeat=2) as rx:
        assert await receive(rx, 1) == [1]
        await trio.sleep(61)
        assert len(w.stream.created) == 2, "heartbeats keep it"
        w.stream.consumer.suppressed = {"100", "408"}
        # The last one came a second ago; behind the reset there is a pause of 50 ms at the most.
        begun = trio.current_time()
        await until(lambda: len(w.stream.created) == 3)
        assert 3 < trio.current_time() - begun <= 3.06
        w.stream.consumer.suppressed = {"100", "408"}
        await trio.sleep(1)
        w.stream.server.accepting = False
        await lose(w.stream.server, w.nc)
        await trio.sleep(60)
        assert len(w.stream.created) == 3
        await regain(w.stream.server, w.nc)
        await until(lambda: len(w.stream.created) == 4)


async def test_a_reset_that_is_refused_for_a_while_is_repeated_with_growing_pauses_and_loses_nothing() -> None:
    async with open_ordered(2) as w, open_consumer(w.nursery, w.ordered) as rx:
        assert await receive(rx, 2) == [1, 2]
        w.stream.answers = [UNAVAILABLE, "silence", NO_RESOURCES, NO_SUITABLE_PEERS]
        before = len(w.stream.created)
        await w.drop_consumers()
        w.store(3, 4)
        assert await receive(rx, 2) == [3, 4]
        tries = w.stream.created[before:]
        assert [config.get("opt_start_seq") for _, config in tries] == [2] * 5
        assert len({config["name"] for _, config in tries}) == 5
        pauses = [second - first for (first, _), (second, _) in itertools.pairwise(tries)]
        assert pauses[0] < pauses[2] < pauses[3]
        assert pauses[1] > 5, "it waits for an answer"


async def test_a_reader_that_sleeps_asks_for_no_more_than_it_has_room_for_and_its_consumer_may_go() -> None:
    async with open_ordered(30) as w, open_consumer(w.nursery, w.ordered, max_messages=10) as rx:
        await trio.sleep(100)
        assert len(rx) == 10
        await w.drop_consumers()
        await trio.sleep(100)
        assert (len(rx), len(w.stream.created)) == (10, 2), "nobody misses it yet"
        assert await receive(rx, 30) == list(range(1, 31))


async def test_messages_of_an_earlier_consumer_are_not_taken_for_those_of_the_next() -> None:
    async with open_ordered(2) as w, open_consumer(w.nursery, w.ordered, max_messages=4) as rx:
        assert await receive(rx, 1) == [1]
        old = w.stream.consumer
        (pull,) = old.pulls
        await w.drop_consumers()
        await until(lambda: w.stream.consumers)
        w.stream.serve(w.stream.consumer)
        for sequence in (2, 3):
            reply = f"$JS.ACK.S.{old.name}.1.{sequence}.{sequence}.1.0"
            w.stream.hand_over(pull.inbox, "s.a", reply, b"", b"99")
        w.store(3)
        assert await receive(rx, 2) == [2, 3]
        assert buffered(rx) == []


@pytest.mark.parametrize("gap", ["message", "heartbeat"])
async def test_a_gap_that_is_seen_together_with_silence_is_one_reset(gap: str) -> None:
    async with open_ordered(0) as w, open_consumer(w.nursery, w.ordered, heartbeat=2) as rx:
        await settled()
        consumer = w.stream.consumer
        consumer.lose_messages = 1
        consumer.suppressed = {"100"}
        w.store(1)
        if gap == "message":
            await trio.sleep(3.9)
            w.store(2)
        assert await receive(rx, 1) == [1]
        await trio.sleep(1)
        assert len(w.stream.created) == 3
        assert w.stream.started[2] == ("by_start_sequence", 1)


async def test_leaving_in_the_middle_of_a_reset_leaves_no_consumer() -> None:
    async with open_ordered(1) as w:
        w.stream.lag = 0.05
        async with open_consumer(w.nursery, w.ordered) as rx:
            assert await receive(rx, 1) == [1]
            await w.drop_consumers()
            await until(lambda: len(w.stream.created) == 3)
            assert not w.stream.consumers
        await trio.sleep(1)
        assert not w.stream.consumers


@pytest.mark.parametrize("lag", [0, 0.05])
def test_a_reset_cancelled_anywhere_leaves_no_consumer_and_loses_nothing(lag: float) -> None:
    """In the task that reads, and in the feed's own, whose nursery it is."""

    async def read(w: OrderedWorld) -> None:
        async with trio.open_nursery() as nursery, open_consumer(nursery, w.ordered) as rx:
            given.extend(numbers([await rx.receive()]))
            for name in list(w.stream.consumers):
                w.stream.delete_consumer(name)
            w.store(3)
            while len(given) < 3:
                given.extend(numbers([await rx.receive()]))

    async def scenario(cut: Cut) -> None:
        given.clear()
        async with open_ordered(2) as w:
            w.stream.lag = lag
            await cut(read, w)
            await trio.sleep(1)
            await w.nc.flush()
            assert not w.stream.consumers
            assert not [task for task in w.nursery.child_tasks if "ordered" in task.name]
            if 3 not in given:
                w.store(*([] if w.stream.last == 3 else [3]))
                given.extend(numbers(await w.ordered.fetch(9, no_wait=True)))
            assert given == [1, 2, 3]

    given: list[int] = []
    steps = cancel_everywhere(scenario)
    assert min(steps[way] for way in ("parked", "woken")) > 4


# -- what happens to its stream ------------------------------------------------------------------------------------------------


async def test_a_stream_that_is_gone_ends_a_feed_and_a_fetch() -> None:
    async with open_ordered(1) as w, open_consumer(w.nursery, w.ordered) as rx:
        assert await receive(rx, 1) == [1]
        w.stream.answers = [refusal(404, 10059, "stream not found")] * 2
        await w.drop_consumers()
        with pytest.raises(errors.NotFoundError, match="stream not found"):
            await rx.receive()
    async with open_ordered(1) as w:
        w.stream.answers = [refusal(404, 10059, "stream not found")]
        with pytest.raises(errors.NotFoundError, match="stream not found"):
            await w.ordered.fetch(1)
        assert numbers(await w.ordered.fetch(1)) == [1], "it is tried anew each time"


@pytest.mark.parametrize("while_reading", [False, True])
async def test_a_stream_that_was_made_anew_is_told_each_time(while_reading: bool) -> None:
    async with open_ordered(3) as w:
        assert len(await w.ordered.fetch(2)) == 2
        if while_reading:
            async with open_consumer(w.nursery, w.ordered) as rx:
                assert await receive(rx, 1) == [3]
                w.stream.remake()
                w.store(*range(1, 9))
                with pytest.raises(errors.StreamRegressedError, match=r"'S'.*made anew"):
                    await rx.receive()
        else:
            w.stream.remake()
        for _ in range(2):
            with pytest.raises(errors.StreamRegressedError, match=r"'S'.*made anew"):
                await w.ordered.fetch(1)


async def test_a_stream_that_was_made_anew_is_read_from_its_beginning_on_request() -> None:
    async with open_ordered(20, on_recreate="restart") as w:
        seam(w.nc).add_listener(seen := Listener())
        async with open_consumer(w.nursery, w.ordered, max_messages=4) as rx:
            await settled()
            assert await receive(rx, 1) == [1]
            w.stream.remake()
            w.store(101, 102)
            # The old ones that were buffered still come; then the new ones.
            assert await receive(rx, 4) == [2, 3, 4, 101]
        assert numbers(await w.ordered.fetch(9, no_wait=True)) == [102]
        assert [event.stream for event in seen.heard(events.StreamRecreated)] == ["S"]


async def test_what_of_a_stream_that_is_gone_was_buffered_is_gone_with_it_when_its_feed_is_left() -> None:
    async with open_ordered(20, on_recreate="restart") as w:
        async with open_consumer(w.nursery, w.ordered, max_messages=4) as rx:
            await settled()
            assert await receive(rx, 2) == [1, 2]
            w.stream.remake()
            w.store(101, 102)
            await until(lambda: len(rx) == 4)
        assert numbers(await w.ordered.fetch(9, no_wait=True)) == [101, 102]


# -- options, and its end --------------------------------------------------------------------------------------------------------


async def test_its_messages_need_no_acknowledgement_and_take_none() -> None:
    async with open_ordered(1) as w:
        (msg,) = await w.ordered.fetch(1)
        assert (msg.metadata.sequence.stream, msg.metadata.stream) == (1, "S")
        with pytest.raises(errors.Error, match="ordered consumer of stream 'S'"):
            await msg.ack()
        assert not w.stream.server.sent("PUB", "$JS.ACK.>")


async def test_the_servers_consumer_is_what_was_asked_for() -> None:
    options: dict[str, Any] = {
        "name_prefix": "mine",
        "metadata": {"a": "b"},
        "inactive_threshold": 7,
        "headers_only": True,
    }
    async with open_ordered(1, filter_subjects=["s.a", "s.b"], replay_policy="original", **options) as w:
        (_, config) = w.stream.created[0]
        name = config.pop("name")
        assert name.startswith("mine_")
        assert name.endswith("_1")
        given = {"metadata": {"a": "b"}, "inactive_threshold": 7 * 10**9, "headers_only": True, "deliver_policy": "all"}
        fixed = {"ack_policy": "none", "mem_storage": True, "num_replicas": 1, "replay_policy": "original"}
        assert config == {**given, **fixed, "filter_subjects": ["s.a", "s.b"]}
        await w.ordered.fetch(1)
        assert w.stream.created[1][1]["name"] == f"{name[:-2]}_2"


async def test_a_feed_stops_after_so_many_messages_and_the_next_use_has_the_others() -> None:
    async with open_ordered(9) as w:
        async with open_consumer(w.nursery, w.ordered, stop_after=3) as rx:
            assert numbers([msg async for msg in rx]) == [1, 2, 3]
        assert numbers(await w.ordered.fetch(1)) == [4]


async def test_what_cannot_be_asked_for_is_refused_before_anything_is_sent() -> None:
    async with open_ordered(1) as w:
        js, sent = w.nc.jetstream(), len(w.stream.server.link.received)
        with pytest.raises(ValueError, match="group does not apply to an ordered consumer"):
            await open_consumer(w.nursery, w.ordered, group="g").__aenter__()
        with pytest.raises(TypeError, match=r"ordered_consumer\(\) takes no timeout: .*await js.ordered_consumer"):
            await js.ordered_consumer("S", timeout=3)  # type: ignore[arg-type]
        for call in (w.ordered.fetch(1, timeout=3), w.ordered.next(timeout=3)):  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=r"takes no timeout: .*await ordered\."):
                await call
        for options, kind, text in [
            ({"on_recreate": "again"}, ValueError, "on_recreate must be"),
            ({"headers_only": 1}, TypeError, "headers_only must be"),
            ({"filter_subjects": "a b"}, ValueError, "filter_subjects"),
        ]:
            with pytest.raises(kind, match=f"ordered_consumer: {text}"):
                await js.ordered_consumer("S", **options)  # type: ignore[arg-type]
        for arguments, kind, text in [
            ((0, {}), ValueError, "batch must be from 1 to"),
            (("1", {}), TypeError, "batch must be a whole number"),
            ((1, {"expires": 0}), ValueError, "expires must be from"),
            ((1, {"max_bytes": 0}), ValueError, "max_bytes must be from 1"),
            ((1, {"no_wait": 1}), TypeError, "no_wait must be"),
        ]:
            batch, more = arguments
            with pytest.raises(kind, match=f"fetch: {text}"):
                await w.ordered.fetch(batch, **more)  # type: ignore[arg-type]
        await settled()
        assert len(w.stream.server.link.received) == sent


async def test_a_client_that_is_closed_ends_a_fetch() -> None:
    async with open_ordered(1) as w:

        async def close() -> None:
            await trio.sleep(1)
            await w.nc.aclose()

        w.nursery.start_soon(close)
        with pytest.raises(errors.ConnectionClosedError, match="'S'"):
            await w.ordered.fetch(2)
        await until(lambda: w.nc.is_closed)


async def test_a_refusal_of_its_permissions_ends_a_fetch() -> None:
    async with open_ordered(1) as w:
        w.stream.server.deny_publish = ("$JS.API.CONSUMER.MSG.NEXT.>",)
        with pytest.raises(errors.PermissionsViolationError, match=r"CONSUMER\.MSG\.NEXT"):
            await w.ordered.fetch(1)


async def test_creations_say_that_they_create() -> None:
    """So that a name that is taken, by whomever, is refused instead of shared."""
    async with open_ordered(1) as w:
        assert await w.ordered.fetch(1)
        bodies = [json.loads(frame.payload) for frame in w.stream.server.sent("PUB", "$JS.API.CONSUMER.CREATE.>")]
        assert [body["action"] for body in bodies] == ["create"] * 2
