"""Reading and deleting what a stream of a real server holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio

from tests.worlds import open_live, open_stream, seam, unique, until
from trionats import Stream, api, errors
from trionats._jetstream.api import Api

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.worlds import StreamWorld
    from trionats.testing import TrioNatsServer

FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
PAST = datetime(2000, 1, 1, tzinfo=UTC)


async def fill(w: StreamWorld, *subjects: str) -> None:
    for number, subject in enumerate(subjects):
        await w.js.publish(f"{w.stream.name}.{subject}", str(number).encode(), headers={"A": ["1", "2"]})


def shown(messages: list[api.StoredMsg]) -> list[tuple[str, int]]:
    return [(msg.subject.rpartition(".")[2], msg.seq) for msg in messages]


async def test_a_message_reads_the_same_from_the_leader_and_by_a_direct_get(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_direct=True) as w:
        name = w.stream.name
        # As a message that was republished into it: it names another stream, and the last value is the server's.
        foreign = {"Nats-Stream": "OTHER", "Nats-Sequence": "77", "Nats-Last-Sequence": "76", "Nats-Subject": "x.y"}
        await w.js.publish(f"{name}.a", b"one", headers={**foreign, "A": ["1", "2"]})
        await w.js.publish(f"{name}.b", b"")
        before = datetime.now(UTC)
        for asked in ({"seq": 1}, {"seq": 2}, {"next_by_subj": f"{name}.b"}, {"start_time": PAST}):
            leaders, replicas = [await w.stream.get_msg(**asked, direct=direct) for direct in (False, True)]
            assert leaders == replicas
            assert leaders.stream == name
            assert before - timedelta(seconds=5) < leaders.time < before
        first, second = await w.stream.get_msgs(seq=1, batch=2)
        assert first == await w.stream.get_msg(1)
        assert (
            second == await w.stream.get_last_msg(f"{name}.b") == await w.stream.get_last_msg(f"{name}.>", direct=True)
        )
        assert (first.data, first.headers.getall("A"), first.headers["Nats-Stream"]) == (b"one", ["1", "2"], "OTHER")
        assert (second.data, len(second.headers)) == (b"", 0)


async def test_one_message_is_found_by_subject_and_by_time(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, "a", "b", "a")
        second = await w.stream.get_msg(2)
        assert (await w.stream.get_msg(2, next_by_subj=f"{w.stream.name}.a")).seq == 3
        assert (await w.stream.get_msg(next_by_subj=f"{w.stream.name}.*")).seq == 1
        assert (await w.stream.get_msg(start_time=second.time)).seq == 2
        with pytest.raises(errors.NotFoundError, match=r"message with start_time 2100.*10037"):
            await w.stream.get_msg(start_time=FUTURE)


async def test_lists_are_read_from_a_place_on(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_direct=True) as w:
        name = w.stream.name
        await fill(w, *"abcabcabc")
        assert shown(await w.stream.get_msgs(seq=8, batch=5)) == [("b", 8), ("c", 9)]
        assert shown(await w.stream.get_msgs(start_time=PAST, batch=2)) == [("a", 1), ("b", 2)]
        assert shown(await w.stream.get_msgs(next_by_subj=f"{name}.b", batch=9)) == [("b", 2), ("b", 5), ("b", 8)]
        assert shown(await w.stream.get_msgs(seq=3, next_by_subj=f"{name}.b", batch=1)) == [("b", 5)]
        assert await w.stream.get_msgs(seq=10, batch=5) == []
        assert await w.stream.get_msgs(start_time=FUTURE, batch=5) == []
        assert len(await w.stream.get_msgs(seq=1, batch=9, max_bytes=1)) == 1


async def test_the_last_messages_of_many_subjects_are_read(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_direct=True) as w:
        name = w.stream.name
        await fill(w, *"abcabca")
        everything = [("b", 5), ("c", 6), ("a", 7)]
        assert shown(await w.stream.get_last_msgs(f"{name}.>")) == everything
        assert shown(await w.stream.get_last_msgs([f"{name}.a", f"{name}.c"])) == everything[1:]
        assert shown(await w.stream.get_last_msgs(f"{name}.>", batch=2)) == everything[:2]
        assert shown(await w.stream.get_last_msgs(f"{name}.>", up_to_seq=4)) == [("b", 2), ("c", 3), ("a", 4)]
        assert await w.stream.get_last_msgs("nothing.here") == []


@pytest.mark.parametrize("storage", api.StorageType)
async def test_a_limit_beyond_the_end_is_one_at_the_end(nats_server: TrioNatsServer, storage: api.StorageType) -> None:
    """A stream that is kept in files says then that there are no results."""
    async with open_stream(nats_server, allow_direct=True, storage=storage) as w:
        await fill(w, *"ab")
        raw = await w.nc.request(f"$JS.API.DIRECT.GET.{w.stream.name}", b'{"multi_last": [">"], "up_to_seq": 3}')
        assert (raw.description == "No Results") == (storage == api.StorageType.FILE)
        assert shown(await w.stream.get_last_msgs(">", up_to_seq=3)) == [("a", 1), ("b", 2)]
        third = await w.js.publish(f"{w.stream.name}.a", b"")
        time = (await w.stream.get_msg(third.seq)).time
        assert shown(await w.stream.get_last_msgs(">", up_to_time=time)) == [("a", 1), ("b", 2)]
        assert shown(await w.stream.get_last_msgs(">", up_to_time=FUTURE)) == [("b", 2), ("a", 3)]
        assert await w.stream.get_last_msgs(">", up_to_time=PAST) == []


async def test_more_subjects_than_the_server_takes_are_refused_by_a_text_that_helps(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server, allow_direct=True) as w:
        async with trio.open_nursery() as writers:
            for part in range(8):
                writers.start_soon(fill, w, *(f"{part}.{number}" for number in range(130)))
        for batch in (None, 5):
            with pytest.raises(errors.APIError, match="more than 1024 subjects; only a narrower filter") as refused:
                await w.stream.get_last_msgs(">", batch=batch)
            assert refused.value.code == 413
        assert len(await w.stream.get_last_msgs(">", up_to_seq=1000)) == 1000
        assert len(await w.stream.get_msgs(seq=1, batch=3000)) == 1040, "in two pages"


@pytest.mark.parametrize("storage", api.StorageType)
@pytest.mark.parametrize("direct", [False, True])
async def test_messages_are_deleted_and_erased(
    nats_server: TrioNatsServer, storage: api.StorageType, direct: bool
) -> None:
    async with open_stream(nats_server, storage=storage, allow_direct=direct) as w:
        await fill(w, *"abc")
        assert await w.stream.delete_msg(1)
        assert await w.stream.delete_msg(2, erase=True)
        assert await w.js.delete_msg(w.stream.name, 3)
        assert (await w.stream.info()).state.messages == 0
        for number in (1, 2, 3):
            with pytest.raises(errors.NotFoundError, match=f"message with seq {number} of stream .*10037"):
                await w.stream.get_msg(number)
        for number in (1, 99):
            with pytest.raises(errors.NotFoundError, match=f"message {number} of stream '{w.stream.name}'"):
                await w.stream.delete_msg(number)


CALLS: list[Callable[[Stream], Awaitable[object]]] = [
    lambda s: s.get_msg(1, direct=True),
    lambda s: s.get_msgs(seq=1, batch=1),
    lambda s: s.get_last_msgs(">"),
]


@pytest.mark.parametrize("call", CALLS)
async def test_three_reasons_why_nobody_answers_a_direct_get_are_told_apart(
    nats_server: TrioNatsServer, call: Callable[[Stream], Awaitable[object]]
) -> None:
    async with open_stream(nats_server) as w:
        await fill(w, "a")
        with pytest.raises(errors.ServiceUnavailableError, match="has no allow_direct"):
            await call(w.stream)
        await w.js.delete_stream(w.stream.name)
        with pytest.raises(errors.NotFoundError, match=r"stream not found.*10059"):
            await call(w.stream)
        info = w.stream.cached_info
    async with open_live() as (_, nc, _):
        without = Stream(Api(seam(nc)), info)
        with pytest.raises(errors.ServiceUnavailableError, match="JetStream is not enabled"):
            await call(without)


async def test_direct_gets_that_were_switched_off_are_asked_of_the_leader(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, allow_direct=True) as w:
        await fill(w, "a")
        await w.js.update_stream(w.stream.cached_info.config, allow_direct=False)
        assert (await w.stream.get_msg(1)).data == b"0"


async def test_what_a_mirror_does_not_have_is_not_missing(nats_server: TrioNatsServer) -> None:
    """A mirror answers the direct gets of its origin, too, and knows only a part of it."""
    async with open_stream(nats_server, allow_direct=True) as w:
        name = w.stream.name
        await fill(w, *"abcd" * 2)
        mirror = api.StreamSource(name=name, filter_subject=f"{name}.b")
        part = await w.js.create_stream(name=unique(), mirror=mirror, allow_direct=True, mirror_direct=True)
        try:

            async def mirrored() -> bool:
                return (await part.info()).state.messages == 2

            await until(mirrored, within=5)
            sources = set()
            for _ in range(30):
                raw = await w.nc.request(f"$JS.API.DIRECT.GET.{name}", b'{"seq": 2}')
                sources.add(raw.headers["Nats-Stream"])
                assert (await w.stream.get_msg(1)).data == b"0"
                assert (await w.stream.get_last_msg(f"{name}.d")).seq == 8
                assert (await w.js.get_msg(name, 1, direct=True)).seq == 1
                assert (await w.stream.get_msg(2)).stream == name
                assert len(await w.stream.get_msgs(seq=1, batch=9)) == 8
                assert shown(await w.stream.get_last_msgs(">")) == [("a", 5), ("b", 6), ("c", 7), ("d", 8)]
            assert sources == {name, part.name}, "both answer"
            assert shown(await part.get_msgs(seq=1, batch=9)) == [("b", 2), ("b", 6)]
        finally:
            with trio.move_on_after(5, shield=True):
                await w.js.delete_stream(part.name)
