"""Atomic batches against a real server: what is stored, what is refused and why, and what is left behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import pytest
import trio

from tests.clusters import NODES
from tests.live.test_domains import both, elsewhere, open_pair
from tests.live.test_streams_cluster import is_led_by, is_whole, open_replicated, where
from tests.worlds import StreamWorld, open_live, open_stream, reconnected, unique, until
from trionats import Batch, JetStream, api, errors, events
from trionats.testing import TrioNatsServer

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=60), pytest.mark.level(2)]

#: Limits that are reached sooner than those of a server that is not configured.
SMALL = 'jetstream { limits { batch { max_msgs: 10, timeout: "500ms", max_inflight_per_stream: 3 } } }'

open_atomic = partial(open_stream, allow_atomic=True, allow_direct=True)


async def stored(w: StreamWorld) -> list[tuple[str, bytes]]:
    """What the stream holds, in order."""
    count = (await w.stream.info()).state.messages
    return [(msg.subject, msg.data) for msg in await w.stream.get_msgs(seq=1, batch=max(count, 1))] if count else []


async def publish(js: JetStream, *messages: tuple[str, dict[str, Any]], made: list[Batch] | None = None) -> Batch:
    """Publish a batch to these subjects, with these options."""
    async with js.open_batch() as batch:
        if made is not None:
            made.append(batch)
        for number, (subject, options) in enumerate(messages, 1):
            await batch.publish(subject, b"%d" % number, **options)
    return batch


async def refused(js: JetStream, *messages: tuple[str, dict[str, Any]]) -> errors.BatchError:
    """The same, for one that is refused."""
    made: list[Batch] = []
    with pytest.raises(errors.BatchError) as caught:
        await publish(js, *messages, made=made)
    assert made[0].committed is False
    assert made[0].ack is None
    return caught.value


class Failed(Exception):
    """What the body of a block raises."""


# -- whole -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["memory", "file"])
@pytest.mark.parametrize("count", [1, 2, 1000])
async def test_all_of_it_is_stored_in_order_and_one_behind_the_other(
    nats_server: TrioNatsServer, count: int, storage: str
) -> None:
    async with open_atomic(nats_server, storage=storage) as w:
        await w.js.publish(w.subject, b"before")
        names = [f"{w.stream.name}.{'abc'[number % 3]}" for number in range(count)]
        batch = await publish(w.js, *[(name, {"headers": {"A": "1"}}) for name in names])
        assert batch.ack is not None
        ack = batch.ack
        assert (ack.stream, ack.seq, ack.batch, ack.count) == (w.stream.name, count + 1, batch.id, count)
        assert batch.committed
        assert (await stored(w))[1:] == [(name, b"%d" % number) for number, name in enumerate(names, 1)]
        last = await w.stream.get_msg(ack.seq)
        headers = {"A": "1", "Nats-Batch-Id": batch.id, "Nats-Batch-Sequence": str(count), "Nats-Batch-Commit": "1"}
        assert dict(last.headers) == headers


async def test_a_batch_without_messages_leaves_nothing(nats_server: TrioNatsServer) -> None:
    async with open_atomic(nats_server) as w:
        batch = await publish(w.js)
        assert (batch.ack, batch.committed, await stored(w)) == (None, False, [])


async def test_nobody_sees_a_part_of_it(nats_server: TrioNatsServer) -> None:
    async with open_atomic(nats_server) as w:
        async with w.js.open_batch() as batch:
            for _ in range(20):
                await batch.publish(w.subject, b"x")
            await w.nc.flush()
            assert await stored(w) == []
        assert len(await stored(w)) == 20


async def test_large_messages_are_held_to_what_a_stream_s_queue_takes(nats_server: TrioNatsServer) -> None:
    """Together they are more than a stream's queue takes, which drops what is too much."""
    async with open_atomic(nats_server) as w:
        data = bytes(1024 * 1024 - 200)
        async with w.js.open_batch() as batch:
            for _ in range(150):
                await batch.publish(w.subject, data)
        assert batch.ack is not None
        assert batch.ack.count == 150
        await w.stream.purge()


async def test_two_batches_and_the_tasks_of_one_do_not_mix(nats_server: TrioNatsServer) -> None:
    async with open_atomic(nats_server) as w, w.js.open_batch() as one, w.js.open_batch() as other:

        async def into(batch: Batch, name: str) -> None:
            for number in range(50):
                await batch.publish(f"{w.stream.name}.{name}", b"%d" % number)

        async with trio.open_nursery() as nursery:
            for batch, name in ((one, "a"), (one, "b"), (other, "c"), (one, "d")):
                nursery.start_soon(into, batch, name)
        assert await stored(w) == []
    # The one that was opened last is left first.
    assert (one.committed, other.committed) == (True, True)
    assert one.ack is not None
    assert other.ack is not None
    assert (other.ack.seq, other.ack.count, one.ack.seq, one.ack.count) == (50, 50, 200, 150)


# -- not at all --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["exception", "cancelled"])
async def test_left_otherwise_nothing_is_stored(nats_server: TrioNatsServer, how: str) -> None:
    async with open_atomic(nats_server) as w:
        with trio.CancelScope() as scope, suppress(Failed):
            async with w.js.open_batch() as batch:
                for _ in range(5):
                    await batch.publish(w.subject, b"x")
                if how == "exception":
                    raise Failed("the body's own")
                scope.cancel()
        await w.nc.flush()
        assert (await stored(w), batch.committed, batch.ack) == ([], False, None)


async def test_nothing_is_left_of_batches_that_were_abandoned() -> None:
    """The server has as much room for batches as before, once their time is over."""
    async with open_live(SMALL.replace("500ms", "3s"), jetstream=True) as (_, nc, _):
        stream = await nc.jetstream().create_stream(name="S", subjects=["s.>"], allow_atomic=True)
        js = nc.jetstream()

        async def abandon() -> None:
            with suppress(Failed):
                async with js.open_batch() as batch:
                    for _ in range(3):
                        await batch.publish("s.a", b"x")
                    raise Failed("the body's own")

        for _ in range(3):
            await abandon()
        error = await refused(js, *[("s.a", {})] * 2)
        assert error.err_code in (10210, 10176), "2.12 has no number for it"
        assert "too many batches are open" in str(error)
        taken: list[Batch] = []

        async def takes_a_batch() -> bool:
            with suppress(errors.BatchError):
                taken.append(await publish(js, *[("s.a", {})] * 2))
            return bool(taken)

        await until(takes_a_batch, within=10, pause=0.1)
        state = (await stream.info()).state
        assert (state.messages, state.last_seq) == (2, 2), "nothing but the one that was committed"
        # As many as may be open at once: those before do not count any more.
        async with AsyncExitStack() as stack:
            for _ in range(3):
                batch = await stack.enter_async_context(js.open_batch())
                for _ in range(3):
                    await batch.publish("s.a", b"x")
        assert (await stream.info()).state.messages == 11


async def test_a_batch_that_was_idle_for_too_long_is_refused_and_told_why() -> None:
    async with open_live(SMALL, jetstream=True) as (_, nc, _):
        js = nc.jetstream()
        await js.create_stream(name="S", subjects=["s.>"], allow_atomic=True)
        made: list[Batch] = []

        async def idle() -> None:
            async with js.open_batch() as batch:
                made.append(batch)
                for _ in range(3):
                    await batch.publish("s.a", b"x")
                await trio.sleep(1)

        with pytest.raises(
            errors.BatchError, match=r"is incomplete .*or nothing came for too long \(10 s, unless"
        ) as caught:
            await idle()
        assert (caught.value.err_code, made[0].committed) == (10176, False)
        assert (await js.stream_info("S")).state.messages == 0


async def test_more_messages_than_the_server_takes_are_refused_whatever_its_limit(nats_server: TrioNatsServer) -> None:
    async with open_atomic(nats_server) as w:
        error = await refused(w.js, *[(w.subject, {})] * 1001)
        assert (error.err_code, error.number) == (10199, 1001)
        assert "too large: 1000" in str(error)
        assert await stored(w) == []
    async with open_live(SMALL, jetstream=True) as (_, nc, _):
        js = nc.jetstream()
        await js.create_stream(name="S", subjects=["s.>"], allow_atomic=True)
        error = await refused(js, *[("s.a", {})] * 11)
        assert (error.err_code, error.number) == (10199, 11)
        assert "too large: 10 " in str(error)
        batch = await publish(js, *[("s.a", {})] * 10)
        assert batch.committed


# -- what the stream has against it ------------------------------------------------------------------------------------


async def test_a_stream_that_does_not_allow_it_says_what_to_change(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        error = await refused(w.js, *[(w.subject, {})] * 3)
        assert (error.err_code, error.number, error.stream) == (10174, 1, w.stream.name)
        assert "set its allow_atomic (server 2.12)" in str(error)
        error = await refused(w.js, (w.subject, {}))
        assert error.err_code == 10174
        await w.stream.update(allow_atomic=True)
        assert (await publish(w.js, (w.subject, {}))).committed


@pytest.mark.parametrize("other_is_atomic", [True, False])
async def test_messages_that_go_to_two_streams_are_stored_in_neither(
    nats_server: TrioNatsServer, other_is_atomic: bool
) -> None:
    async with open_atomic(nats_server) as w, open_stream(nats_server, allow_atomic=other_is_atomic) as other:
        for count in (0, 2):
            error = await refused(w.js, (w.subject, {}), (other.subject, {}), *[(w.subject, {})] * count)
            assert error.err_code == (10176 if other_is_atomic else 10174)
            assert (error.stream, error.number, error.subject) == (other.stream.name, 2, other.subject)
            assert "to several streams" in str(error) or "were taken by another" in str(error)
        assert (await stored(w), await stored(other)) == ([], [])
        error = await refused(w.js, (other.subject, {"stream": w.stream.name}))
        assert error.err_code == (10060 if other_is_atomic else 10174)


async def test_a_subject_without_a_stream_ends_it(nats_server: TrioNatsServer) -> None:
    async with open_atomic(nats_server) as w:
        made: list[Batch] = []
        with trio.fail_after(5), pytest.raises(errors.NoStreamResponseError, match=r"message 2, to 'nobody\.there'"):
            await publish(w.js, (w.subject, {}), ("nobody.there", {}), (w.subject, {}), made=made)
        assert (made[0].committed, await stored(w)) == (False, [])
        with pytest.raises(errors.NoStreamResponseError, match=r"message 1, to 'nobody\.there'"):
            await publish(w.js, ("nobody.there", {}))


Message = tuple[str, dict[str, Any]]


@pytest.mark.parametrize(
    ("config", "messages", "number", "err_code", "says"),
    [
        ({}, [("a", {}), ("b", {"expected_last_subject_seq": 9})], 2, 10071, "wrong last sequence"),
        ({}, [("a", {"expected_last_seq": 9}), ("b", {})], 2, 10071, "something else is the last message"),
        ({}, [("a", {"msg_id": "old"}), ("b", {})], 2, 10201, "of this msg_id is stored already"),
        ({}, [("a", {}), ("b", {"msg_ttl": 5})], 2, 10166, "TTL"),
        ({}, [("a", {}), ("b", {"rollup": "sub"})], 2, 10111, "rollup"),
        ({"max_msg_size": 600}, [("a", {}), ("b", {"headers": {"A": "x" * 600}}), ("c", {})], 2, 10054, "max_msg_size"),
        ({"max_msgs": 2, "discard": "new"}, [("a", {}), ("b", {})], 2, 10077, "maximum messages"),
        ({"sealed": True}, [("a", {}), ("b", {})], 1, 10109, "sealed"),
    ],
    ids=lambda given: str(given) if isinstance(given, int) else "",
)
async def test_each_refusal_is_told_with_its_number_and_what_it_means(
    nats_server: TrioNatsServer, config: dict[str, Any], messages: list[Message], number: int, err_code: int, says: str
) -> None:
    sealed = config.pop("sealed", False)
    async with open_atomic(nats_server, **config) as w:
        await w.js.publish(w.subject, b"", msg_id="old")
        if sealed:
            await w.stream.update(sealed=True)
        error = await refused(w.js, *[(f"{w.stream.name}.{name}", options) for name, options in messages])
        assert (error.err_code, error.number, error.stream) == (err_code, number, w.stream.name)
        assert says in str(error)
        assert len(await stored(w)) == 1
        if sealed:
            return
        assert (await publish(w.js, (w.subject, {}))).committed, "the stream is as before"


async def test_what_may_be_expected_inside_of_a_batch(nats_server: TrioNatsServer) -> None:
    async with open_atomic(nats_server, allow_rollup_hdrs=True, allow_msg_ttl=True) as w:
        name = w.stream.name
        await w.js.publish(f"{name}.a", b"old")
        batch = await publish(
            w.js,
            (f"{name}.b", {"expected_last_seq": 1, "expected_last_subject_seq": 0, "stream": name}),
            (f"{name}.a", {"expected_last_subject_seq": 1, "rollup": "sub"}),
            (f"{name}.c", {"expected_last_subject_seq": 1, "expected_last_subject_seq_subject": f"{name}.*"}),
            (f"{name}.a", {"msg_ttl": 60, "msg_id": "i"}),
        )
        assert batch.ack is not None
        assert batch.ack.seq == 5
        assert [subject[-1] for subject, _ in await stored(w)] == ["b", "a", "c", "a"], "the old one was rolled up"


async def test_what_servers_refuse_at_the_end_they_refuse_indeed(nats_server: TrioNatsServer) -> None:
    """Sent by hand, behind what we check: so that we refuse nothing that a server would take."""
    async with open_atomic(nats_server, allow_rollup_hdrs=True) as w:
        name = w.stream.name
        for headers in (
            {"Nats-Expected-Last-Msg-Id": "x"},
            {"Nats-Expected-Last-Sequence": "1"},
            {"Nats-Expected-Last-Subject-Sequence": "1"},
            {"Nats-Expected-Last-Subject-Sequence": "0", "Nats-Expected-Last-Subject-Sequence-Subject": f"{name}.a"},
            {"Nats-Rollup": "sub"},
            {"Nats-Rollup": "all"},
        ):
            batch = {"Nats-Batch-Id": unique("by-hand")}
            first = await w.nc.request(f"{name}.a", b"", {**batch, "Nats-Batch-Sequence": "1"})
            assert first.data == b""
            commit = {**batch, "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1", **headers}
            last = await w.nc.request(f"{name}.a", b"", commit)
            assert b'"error"' in last.data, headers
        assert await stored(w) == []


async def test_a_message_of_a_batch_is_forwarded_with_its_headers(nats_server: TrioNatsServer) -> None:
    async with open_atomic(nats_server) as w:
        batch = await publish(w.js, *[(w.subject, {"headers": {"A": str(number)}}) for number in range(3)])
        messages = await w.stream.get_msgs(seq=1, batch=3)
        async with w.js.open_batch() as again:
            for msg in messages:
                await again.publish(msg.subject, msg.data, headers=msg.headers)
        assert again.ack is not None
        assert (again.ack.seq, again.ack.count) == (6, 3)
        last = await w.stream.get_msg(6)
        assert last.headers["A"] == "2"
        assert last.headers.getall("Nats-Batch-Id") == [again.id] != [batch.id]


# -- mirrors, domains, clusters ----------------------------------------------------------------------------------------


async def test_a_mirror_has_all_of_it_and_takes_none_itself(nats_server: TrioNatsServer) -> None:
    async with open_atomic(nats_server) as w:
        name = unique("M")
        mirror = await w.js.create_stream(name=name, mirror=api.StreamSource(w.stream.name), storage="memory")
        batch = await publish(w.js, *[(w.subject, {})] * 3)

        async def is_there() -> bool:
            return (await mirror.info()).state.messages == 3

        await until(is_there, within=10, pause=0.02)
        assert "Nats-Batch-Id" not in (await mirror.get_msg(3)).headers
        assert batch.ack is not None
        assert batch.ack.stream == w.stream.name
        with pytest.raises(errors.APIError, match=r"stream mirrors can not also use atomic publishing .*10198"):
            await mirror.update(allow_atomic=True)
        await mirror.delete()


async def test_a_batch_counts_in_the_domain_that_was_asked_for() -> None:
    async with open_pair() as pair:
        hub, leaf = await both(pair, api.StreamConfig(allow_atomic=True))
        # The leaf's stream of the same subjects refuses batches, long before the hub's has taken anything.
        batch = await publish(hub, *[("s.a", {})] * 5)
        assert batch.ack is not None
        assert (batch.ack.domain, batch.ack.count) == ("hub", 5)
        assert ((await hub.stream_info("S")).state.messages, (await leaf.stream_info("S")).state.messages) == (5, 0)
        assert (await refused(leaf, *[("s.a", {})] * 3)).err_code == 10174
        await leaf.update_stream((await leaf.stream_info("S")).config, allow_atomic=True)
        batch = await publish(hub, *[("s.a", {})] * 5)
        assert batch.ack is not None
        assert batch.ack.domain == "hub"
        await until(lambda: events.StoredElsewhere("s.a", "S", "leaf", "hub") in elsewhere(pair), within=5, pause=0.02)


async def test_a_leader_that_steps_down_half_way_stores_nothing() -> None:
    async with open_replicated(allow_atomic=True) as (_, js, stream):
        made: list[Batch] = []

        async def use() -> None:
            async with js.open_batch() as batch:
                made.append(batch)
                for _ in range(5):
                    await batch.publish("s.a", b"x")
                first = (await where(stream)).leader
                await stream.step_down()
                await until(partial(is_led_by, stream, *set(NODES) - {first}), within=20, pause=0.05)

        with pytest.raises(errors.BatchError, match="or the stream has another leader since") as caught:
            await use()
        assert (caught.value.err_code, made[0].committed) == (10176, False)
        assert (await stream.info()).state.messages == 0
        await until(partial(is_whole, stream), within=20, pause=0.05)
        assert (await publish(js, *[("s.a", {})] * 5)).committed


async def test_a_leader_that_steps_down_behind_the_commit_leaves_all_of_it_or_nothing() -> None:
    async with open_replicated(allow_atomic=True) as (_, js, stream):
        for number in range(1, 4):
            subject, count = f"s.{number}", 20
            made: list[Batch] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.step_down)
                with suppress(errors.BatchError, errors.NoStreamResponseError, errors.TimeoutError):
                    await publish(js, *[(subject, {})] * count, made=made)
            await until(partial(is_whole, stream), within=20, pause=0.05)
            there = (await stream.info(subjects_filter=subject)).state.subjects or {}
            assert there.get(subject, 0) in (0, count)
            assert made[0].committed in (None, bool(there))


# -- a server that is killed -------------------------------------------------------------------------------------------


async def test_a_server_that_is_killed_half_way_has_stored_nothing() -> None:
    async with open_live(jetstream=True, reconnect_time_wait=0.05) as (server, nc, _):
        js = nc.jetstream()
        stream = await js.create_stream(name="S", subjects=["s.>"], allow_atomic=True)
        made: list[Batch] = []

        async def use() -> None:
            async with js.open_batch() as batch:
                made.append(batch)
                for _ in range(5):
                    await batch.publish("s.a", b"x")
                await server.restart(kill=True)
                await reconnected(nc)

        with pytest.raises(errors.DisconnectedError, match="nothing of it is stored"):
            await use()
        assert made[0].committed is False
        assert (await stream.info()).state.messages == 0
        assert (await publish(js, *[("s.a", {})] * 5)).committed


async def test_of_a_batch_beyond_the_limit_of_the_account_a_part_is_kept_and_nothing_else_is_said() -> None:
    """It is the server that breaks its word; what is told here is that it is not known."""
    small = "accounts { A { jetstream { max_file: 1MB, max_mem: 1MB }\nusers: [{user: u, password: p}] } }"
    async with open_live(small, jetstream=True, user="u", password="p", request_timeout=1) as (_, nc, _):
        js = nc.jetstream()
        stream = await js.create_stream(name="S", subjects=["s.>"], allow_atomic=True)
        made: list[Batch] = []

        async def use() -> None:
            async with js.open_batch() as batch:
                made.append(batch)
                for _ in range(20):
                    await batch.publish("s.a", bytes(100_000))

        with pytest.raises((errors.BatchError, errors.TimeoutError), match="whether the batch is stored is not known"):
            await use()
        assert (made[0].committed, made[0].ack) == (None, None)
        assert 0 < (await stream.info()).state.messages < 20


Cut = Callable[[], Awaitable[bool]]


class CutAtCommit(trio.abc.Stream):
    """A connection that breaks behind a commit that the server gets, or in front of one.

    Args:
        stream: The connection.
        cuts: What happens at each commit that is still to be cut off; gives whether it arrives.
    """

    def __init__(self, stream: trio.abc.Stream, cuts: list[Cut]) -> None:
        self._stream, self._cuts = stream, cuts
        self._broken = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._cuts and b"Nats-Batch-Commit" in bytes(data):
            with trio.CancelScope(shield=True):
                if await self._cuts.pop()():
                    await self._stream.send_all(data)
                self._broken = True
                await self._stream.aclose()
            raise trio.BrokenResourceError
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.ClosedResourceError:
            if not self._broken:
                raise
            return b""
        return b"" if self._broken else data

    async def aclose(self) -> None:
        await self._stream.aclose()


def cutting(cuts: list[Cut]) -> Callable[[str, int], Awaitable[trio.abc.Stream]]:
    async def dial(host: str, port: int) -> trio.abc.Stream:
        return CutAtCommit(await trio.open_tcp_stream(host, port), cuts)

    return dial


@pytest.mark.parametrize("arrives", [True, False], ids=["arrives", "does not arrive"])
@pytest.mark.parametrize("count", [1, 2, 500])
async def test_a_commit_behind_which_the_connection_breaks_is_found_out(
    nats_server: TrioNatsServer, count: int, arrives: bool
) -> None:
    """What was stored is found, and what was not is committed once more, which only a batch of one message cannot be."""
    cuts: list[Cut] = []

    async def cut() -> bool:
        await trio.lowlevel.checkpoint()
        return arrives

    async with open_atomic(nats_server, {"dial": cutting(cuts), "reconnect_time_wait": 0.01}) as w:
        await w.js.publish(w.subject, b"before")
        made: list[Batch] = []
        try:
            async with w.js.open_batch() as batch:
                made.append(batch)
                for _ in range(count):
                    await batch.publish(w.subject, b"x")
                await w.nc.flush()
                cuts.append(cut)
        except errors.DisconnectedError:
            assert (count, arrives, made[0].committed) == (1, False, None)
            assert len(await stored(w)) == 1
        else:
            assert made[0].committed
            assert made[0].ack is not None
            ack = made[0].ack
            assert (ack.stream, ack.seq, ack.batch, ack.count) == (w.stream.name, count + 1, made[0].id, count)
            assert len(await stored(w)) == count + 1
        assert w.nc.statistics().reconnects == 1
        assert cuts == []


async def test_a_commit_that_went_down_with_its_server_is_known_not_to_be_stored() -> None:
    cuts: list[Cut] = []
    patient: dict[str, Any] = {"reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}
    async with open_live(jetstream=True, dial=cutting(cuts), **patient) as (server, nc, _):
        js = nc.jetstream()
        stream = await js.create_stream(name="S", subjects=["s.>"], allow_atomic=True)
        await js.publish("s.a", b"before")
        await trio.sleep(0.5)  # it is by their times that what is stored is told from what was there
        made: list[Batch] = []

        async def kill() -> bool:
            """What was set aside goes with this process."""
            await server.restart(kill=True)
            return False

        async def use() -> None:
            async with js.open_batch() as batch:
                made.append(batch)
                for _ in range(3):
                    await batch.publish("s.a", b"x")
                await nc.flush()
                cuts.append(kill)

        with pytest.raises(errors.DisconnectedError, match="nothing of it is stored, since its commit did not arrive"):
            await use()
        assert made[0].committed is False
        assert (await stream.info()).state.messages == 1
