"""Counters on a real server: sums, sums of sums, and what is no counter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

import trionats
from tests.worlds import StreamWorld, open_stream, until
from trionats import Counter, api, errors
from trionats.testing import TrioNatsServer

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=30), pytest.mark.level(2)]


@asynccontextmanager
async def open_counter(
    server: TrioNatsServer,
    **config: Any,  # noqa: ANN401 - any field
) -> AsyncIterator[tuple[Counter, str, StreamWorld]]:
    async with open_stream(server, **{"allow_msg_counter": True, "allow_direct": True, **config}) as w:
        yield await w.js.counter(w.stream.name), w.subject, w


async def test_a_counter_adds_up(nats_server: TrioNatsServer) -> None:
    async with open_counter(nats_server) as (counter, subject, w):
        assert (counter.name, repr(counter)) == (w.stream.name, f"<Counter {w.stream.name!r}>")
        assert [await counter.add(subject, n) for n in (5, -7, 0, 10**40)] == [5, -2, -2, 10**40 - 2]
        entry = await counter.get(subject)
        assert (entry.subject, entry.value, entry.sources, entry.seq) == (subject, 10**40 - 2, {}, 4)
        stored = await w.stream.get_last_msg(subject)
        assert (stored.time, stored.headers["Nats-Incr"]) == (entry.time, f"+{10**40}")


async def test_numbers_beyond_pythons_limit_of_digits(nats_server: TrioNatsServer) -> None:
    async with open_counter(nats_server) as (counter, subject, _):
        large = 10**20_000 - 1
        assert (await counter.add(subject, large) - large).bit_length() == 0
        assert (await counter.add(subject, -large + 5)).bit_length() == 3
        await counter.add(subject, -large)
        assert ((await counter.get(subject)).value + large).bit_length() == 3


async def test_a_number_that_is_too_large_is_refused_and_nothing_is_counted(nats_server: TrioNatsServer) -> None:
    async with open_counter(nats_server) as (counter, subject, w):
        largest = 10**65_000 - 1
        assert (await counter.add(subject, largest) - largest).bit_length() == 0
        with pytest.raises(ValueError, match=r"n has more than 65,000 digits"):
            await counter.add(subject, largest + 1)
        with pytest.raises(errors.APIError, match="64k") as caught:
            await w.js.publish(subject, headers={"Nats-Incr": "+" + "9" * 65_536})
        assert caught.value.err_code == 10097
        assert (await w.stream.info()).state.last_seq == 1


async def test_a_sum_that_is_larger_than_the_streams_messages_is_refused(nats_server: TrioNatsServer) -> None:
    async with open_counter(nats_server, max_msg_size=40) as (counter, subject, _):
        await counter.add(subject, 1)
        with pytest.raises(errors.APIError, match="message size exceeds maximum") as caught:
            await counter.add(subject, 10**30)
        assert caught.value.err_code == 10054
        assert (await counter.get(subject)).value == 1


async def test_what_many_add_at_once_is_all_counted(nats_server: TrioNatsServer) -> None:
    async with open_counter(nats_server) as (counter, subject, _):
        seen: list[int] = []

        async def add(times: int) -> None:
            for _ in range(times):
                value = await counter.add(subject, 1)
                seen.append(value)

        async with trio.open_nursery() as workers:
            for _ in range(8):
                workers.start_soon(add, 25)
        assert sorted(seen) == list(range(1, 201))
        assert (await counter.get(subject)).value == 200


async def test_many_counters_are_read_at_once(nats_server: TrioNatsServer) -> None:
    """More than one request for last messages may name."""
    async with open_counter(nats_server, allow_direct=False) as (counter, subject, w):
        assert await counter.entries() == []
        async with trionats.open_publisher(w.nursery, w.js) as publisher:
            for number in range(3000):
                await publisher.publish(f"{subject}.{number % 1500}", headers={"Nats-Incr": f"+{number}"})
        found = await counter.entries()
        assert {entry.subject: entry.value for entry in found} == {
            f"{subject}.{number}": 2 * number + 1500 for number in range(1500)
        }
        assert [entry.seq for entry in found] == list(range(1501, 3001)), "in the order of their last change"
        some = await counter.entries([f"{subject}.7", f"{subject}.*", f"{subject}.7"])
        assert some == found, "patterns may overlap"
        assert [entry.value for entry in await counter.entries(f"{subject}.7")] == [1514]

        async def gone() -> bool:
            return not await w.js.consumer_names(w.stream.name)

        await until(gone)


async def test_a_stream_of_streams_says_who_brought_what(nats_server: TrioNatsServer) -> None:
    async with open_counter(nats_server) as (eu, eu_subject, eu_w), open_counter(nats_server) as (us, us_subject, us_w):
        sources = [
            {"name": w.stream.name, "subject_transforms": [{"src": subject, "dest": f"total.{w.stream.name}.all"}]}
            for w, subject in ((eu_w, eu_subject), (us_w, us_subject))
        ]
        name = f"SUM_{eu_w.stream.name}"
        await eu_w.js.api_request(
            f"STREAM.CREATE.{name}",
            {"name": name, "sources": sources, "storage": "memory", "allow_msg_counter": True, "allow_direct": True},
        )
        total = await eu_w.js.counter(name)
        for n in (1, 10, 100):
            await eu.add(eu_subject, n)
        await us.add(us_subject, -5)

        async def arrived() -> bool:
            return len(await total.entries()) == 2 and sum(one.value for one in await total.entries()) == 106

        await until(arrived)
        entry = await total.get(f"total.{eu_w.stream.name}.all")
        assert (entry.value, entry.sources) == (111, {eu_w.stream.name: {eu_subject: 111}})
        await eu_w.js.delete_stream(name)


async def test_what_counts_nothing(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        with pytest.raises(errors.APIError, match=f"stream '{w.stream.name}': it counts nothing") as caught:
            await w.js.counter(w.stream.name)
        assert (caught.value.code, caught.value.err_code) == (400, 10168)
        with pytest.raises(errors.NotFoundError):
            await w.js.counter("NONE")
        with pytest.raises(errors.APIError, match="message counters is disabled"):
            await w.js.publish(w.subject, headers={"Nats-Incr": "+1"})


async def test_what_is_refused_before_anything_is_sent(nats_server: TrioNatsServer) -> None:
    async with open_counter(nats_server) as (counter, subject, w):
        with pytest.raises(TypeError, match=r"n must be a whole number, not float"):
            await counter.add(subject, 1.0)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"add to 'elsewhere': it is no subject of stream '{w.stream.name}'"):
            await counter.add("elsewhere", 1)
        for call in (partial(counter.add, "a.*", 1), partial(counter.get, "a.*")):
            with pytest.raises(errors.BadSubjectError, match="wildcards"):
                await call()
        with pytest.raises(ValueError, match="subjects is empty"):
            await counter.entries([])
        with pytest.raises(TypeError, match="subjects must be a pattern or several, not int"):
            await counter.entries(5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="entries: subjects"):
            await counter.entries("a..b")
        with pytest.raises(errors.NotFoundError, match=subject):
            await counter.get(subject)
        assert (await w.stream.info()).state.last_seq == 0


async def test_a_subject_that_was_added_later_counts(nats_server: TrioNatsServer) -> None:
    async with open_counter(nats_server) as (counter, _, w):
        await w.stream.update(subjects=[f"{w.stream.name}.>", f"later.{w.stream.name}"])
        assert await counter.add(f"later.{w.stream.name}", 3) == 3


async def test_a_counter_whose_last_message_was_deleted_goes_on_from_the_one_before(
    nats_server: TrioNatsServer,
) -> None:
    async with open_counter(nats_server) as (counter, subject, w):
        await counter.add(subject, 5)
        await counter.add(subject, 100)
        await w.stream.delete_msg(2)
        assert await counter.add(subject, 1) == 6


@pytest.mark.parametrize("forget", ["delete", "purge"])
async def test_a_counter_that_has_no_message_left_begins_at_zero(nats_server: TrioNatsServer, forget: str) -> None:
    async with open_counter(nats_server, max_msgs_per_subject=1) as (counter, subject, w):
        await counter.add(subject, 5)
        await counter.add(subject, 7)
        await (w.stream.delete_msg(2) if forget == "delete" else w.stream.purge(subject=subject))
        with pytest.raises(errors.NotFoundError):
            await counter.get(subject)
        assert await counter.add(subject, 1) == 1


async def test_a_total_falls_when_a_part_of_it_begins_anew(nats_server: TrioNatsServer) -> None:
    async with open_counter(nats_server) as (part, subject, w):
        name = f"SUM_{w.stream.name}"
        sources = [api.StreamSource(name=w.stream.name)]
        await w.js.create_stream(name=name, sources=sources, allow_msg_counter=True, storage="memory")
        total = await w.js.counter(name)

        async def comes_to(value: int) -> None:
            async def there() -> bool:
                return [one.value for one in await total.entries()] == [value]

            await until(there)

        await part.add(subject, 100)
        await comes_to(100)
        await w.stream.purge()
        await part.add(subject, 1)
        await comes_to(1)
        with pytest.raises(ValueError, match="it is no subject of stream"):
            await total.add(subject, 1)
        await w.js.delete_stream(name)


async def test_where_subjects_are_transformed_a_counter_is_read_under_what_it_became(
    nats_server: TrioNatsServer,
) -> None:
    transform = api.SubjectTransform(src="count.>", dest="counted.>")
    async with open_counter(nats_server, subjects=["count.>"], subject_transform=transform) as (counter, _, _):
        assert await counter.add("count.a", 5) == 5
        assert (await counter.get("counted.a")).value == 5
        with pytest.raises(errors.NotFoundError):
            await counter.get("count.a")


async def test_a_stream_that_is_gone_or_made_anew_without_counters(nats_server: TrioNatsServer) -> None:
    async with open_counter(nats_server) as (counter, subject, w):
        await counter.add(subject, 5)
        config = (await w.stream.info()).config
        await w.js.delete_stream(w.stream.name)
        with pytest.raises(errors.NoStreamResponseError, match=f"add to '{subject}'"):
            await counter.add(subject, 1)
        for call in (partial(counter.get, subject), counter.entries):
            with pytest.raises(errors.NotFoundError, match=w.stream.name):
                await call()
        await w.js.create_stream(name=config.name, subjects=config.subjects, storage="memory")
        with pytest.raises(errors.APIError, match="message counters is disabled"):
            await counter.add(subject, 1)
