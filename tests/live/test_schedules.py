"""Schedules on a real server: what it stores when, what it refuses, and what it says of what is there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from tests.worlds import open_live, open_stream, until
from trionats import Stream, api, errors
from trionats.testing import TrioNatsServer

pytestmark = [pytest.mark.usefixtures("server_executable"), pytest.mark.live(seconds=30)]

SCHEDULES: dict[str, Any] = {"allow_msg_schedules": True, "allow_msg_ttl": True, "allow_direct": True}
LATER = datetime(2099, 1, 1, tzinfo=UTC)


async def stored(stream: Stream, subject: str) -> list[api.StoredMsg]:
    return await stream.get_msgs(seq=1, next_by_subj=subject, batch=100)


async def stored_until(stream: Stream, subject: str, count: int) -> list[api.StoredMsg]:
    async def enough() -> bool:
        return len(await stored(stream, subject)) >= count

    await until(enough)
    return await stored(stream, subject)


@pytest.mark.level(2)
async def test_a_message_is_stored_at_its_time_and_the_schedule_is_gone(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, **SCHEDULES) as w:
        when = datetime.now(UTC) + timedelta(seconds=1)
        ack = await w.js.schedule(
            w.subject + ".s", "later", target=w.subject + ".t", at=when, headers={"X-Own": "1"}, ttl=60
        )
        assert (ack.stream, ack.seq) == (w.stream.name, 1)
        (message,) = await stored_until(w.stream, w.subject + ".t", 1)
        assert message.time >= when
        assert message.data == b"later"
        assert dict(message.headers) == {
            "X-Own": "1",
            "Nats-Scheduler": w.subject + ".s",
            "Nats-Schedule-Next": "purge",
            "Nats-TTL": "60s",
        }
        assert await w.js.schedules(w.stream.name) == []
        assert not await w.js.unschedule(w.subject + ".s"), "its moment has come"


@pytest.mark.level(2)
async def test_a_moment_that_has_passed_is_at_once(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, **SCHEDULES) as w:
        await w.js.schedule(w.subject + ".s", b"x", target=w.subject + ".t", at=datetime(2020, 1, 1, tzinfo=UTC))
        assert await stored_until(w.stream, w.subject + ".t", 1)


@pytest.mark.level(4)
async def test_it_is_stored_again_and_again_until_it_is_unscheduled(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, **SCHEDULES) as w:
        await w.js.schedule(w.subject + ".s", b"x", target=w.subject + ".t", every=1)
        found = await stored_until(w.stream, w.subject + ".t", 2)
        assert found[1].time - found[0].time >= timedelta(seconds=0.5)
        assert await w.js.unschedule(w.subject + ".s")
        before = len(await stored(w.stream, w.subject + ".t"))
        await w.js.schedule(w.subject + ".clock", b"", target=w.subject + ".ticks", every=1)
        await stored_until(w.stream, w.subject + ".ticks", 3)
        assert len(await stored(w.stream, w.subject + ".t")) == before, "two seconds later"
        assert not await w.js.unschedule(w.subject + ".s")


@pytest.mark.level(4)
async def test_one_that_another_made_a_message_on_top_of_goes_on_and_can_be_unscheduled(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server, **SCHEDULES) as w:
        hidden, target = w.subject + ".s", w.subject + ".t"
        await w.js.schedule(hidden, b"x", target=target, every=1)
        await w.js.schedule(w.subject + ".other", b"on top", target=hidden, at=datetime(2020, 1, 1, tzinfo=UTC))
        await stored_until(w.stream, hidden, 2)
        assert await w.js.schedules(w.stream.name) == []
        await stored_until(w.stream, target, len(await stored(w.stream, target)) + 1)
        assert await w.js.unschedule(hidden)
        before = len(await stored(w.stream, target))
        await w.js.schedule(w.subject + ".clock", b"", target=w.subject + ".ticks", every=1)
        await stored_until(w.stream, w.subject + ".ticks", 2)
        assert len(await stored(w.stream, target)) == before
        assert [one.data for one in await stored(w.stream, hidden)] == [b"on top"]


@pytest.mark.level(2)
async def test_in_a_stream_that_transforms_its_subjects_a_schedule_is_found_and_taken_back(
    nats_server: TrioNatsServer,
) -> None:
    transform = api.SubjectTransform(src="in.>", dest="kept.>")
    async with open_stream(nats_server, **SCHEDULES, subjects=["in.>"], subject_transform=transform) as w:
        await w.js.schedule("in.s", b"x", target="in.t", at=LATER)
        (found,) = await w.js.schedules(w.stream.name)
        assert found.subject == "kept.s"
        assert not await w.js.unschedule("in.s")
        with pytest.raises(errors.NotFoundError, match=r"kept\.s"):
            await w.js.unschedule("kept.s")
        with pytest.raises(errors.NotFoundError, match="NONE"):
            await w.js.unschedule("kept.s", stream="NONE")
        assert await w.js.unschedule("kept.s", stream=w.stream.name)
        assert await w.js.schedules(w.stream.name) == []


@pytest.mark.level(2)
async def test_interest_retention_forgets_a_schedule_that_nobody_listens_to(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, **SCHEDULES, retention="interest") as w:
        assert (await w.js.schedule(w.subject + ".s", b"x", target=w.subject + ".t", at=LATER)).seq == 1
        assert await w.js.schedules(w.stream.name) == []
        assert not await w.js.unschedule(w.subject + ".s")


@pytest.mark.level(4)
async def test_without_a_message_of_its_source_it_stores_its_own(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, **SCHEDULES) as w:
        source, target = w.subject + ".in", w.subject + ".t"
        await w.js.schedule(w.subject + ".s", b"own", target=target, every=1, source=source, headers={"X-Own": "1"})
        (own,) = await stored_until(w.stream, target, 1)
        assert (own.data, own.headers["X-Own"]) == (b"own", "1")
        await w.js.publish(source, b"of the source", headers={"X-Source": "1", "Nats-Msg-Id": "a"})
        other = (await stored_until(w.stream, target, 2))[1]
        assert other.data == b"of the source"
        assert set(other.headers) == {"X-Source", "Nats-Scheduler", "Nats-Schedule-Next"}


@pytest.mark.level(4)
async def test_of_both_kinds_of_day_one_is_enough(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, **SCHEDULES) as w:
        not_today = (datetime.now(UTC).isoweekday() + 3) % 7
        await w.js.schedule(w.subject + ".b", b"", target=w.subject + ".both", cron=f"* * * 1-31 * {not_today}")
        await w.js.schedule(w.subject + ".o", b"", target=w.subject + ".one", cron=f"* * * * * {not_today}")
        await stored_until(w.stream, w.subject + ".both", 2)
        assert await stored(w.stream, w.subject + ".one") == []


@pytest.mark.level(2)
async def test_a_stream_of_schedules_cannot_deny_purges_and_one_that_is_sealed_keeps_them(
    nats_server: TrioNatsServer,
) -> None:
    async with open_stream(nats_server, **SCHEDULES, deny_purge=True, deny_delete=True) as w:
        assert not (await w.stream.info()).config.deny_purge
        for name in ("s", "kept"):
            await w.js.schedule(f"{w.subject}.{name}", b"x", target=w.subject + ".t", at=LATER)
        assert await w.js.unschedule(w.subject + ".s")
        await w.stream.update(sealed=True)
        with pytest.raises(errors.APIError, match="sealed stream"):
            await w.js.unschedule(w.subject + ".kept")


@pytest.mark.level(2)
async def test_what_is_due_while_the_server_is_down_is_made_once_it_is_up() -> None:
    async with open_live(jetstream=True) as (server, nc, _):
        js = nc.jetstream()
        stream = await js.create_stream(name="S", subjects=["s.>"], allow_msg_schedules=True, allow_direct=True)
        when = datetime.now(UTC) + timedelta(seconds=1)
        await js.schedule("s.a", b"x", target="s.t", at=when)
        await server.stop()
        await trio.sleep_until(trio.current_time() + (when - datetime.now(UTC)).total_seconds() + 0.1)
        await server.start()
        assert len(await stored_until(stream, "s.t", 1)) == 1
        assert await js.schedules("S") == []


@pytest.mark.level(4)
async def test_cron_source_and_rollup(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, **SCHEDULES) as w:
        for number in range(2):
            await w.js.publish(w.subject + ".in", b"%d" % number)
        await w.js.schedule(
            w.subject + ".s", b"own", target=w.subject + ".t", cron="* * * * * *", source=w.subject + ".in", rollup=True
        )
        (first,) = await stored_until(w.stream, w.subject + ".t", 1)
        assert first.data == b"1", "the last message of the source"

        async def replaced() -> bool:
            return (await stored(w.stream, w.subject + ".t"))[-1].seq > first.seq

        await until(replaced)
        assert len(await stored(w.stream, w.subject + ".t")) == 1


@pytest.mark.level(4)
async def test_schedules_are_listed_and_a_plain_message_disarms_one(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, **SCHEDULES) as w:
        name = w.stream.name
        assert await w.js.schedules(name) == []
        await w.js.schedule(
            w.subject + ".a", b"1", target=w.subject + ".t", cron="0 0 12 * * *", time_zone="Europe/Berlin"
        )
        await w.js.schedule(w.subject + ".b", b"2", target=w.subject + ".t", at=LATER)
        await w.js.schedule(w.subject + ".b", b"3", target=w.subject + ".t", at=LATER, headers={"X-Own": "1"})
        await w.js.publish(w.subject + ".plain", b"x")
        found = await w.js.schedules(name)
        assert [(one.subject, one.data, one.seq, one.at, one.cron, one.time_zone) for one in found] == [
            (w.subject + ".a", b"1", 1, None, "0 0 12 * * *", "Europe/Berlin"),
            (w.subject + ".b", b"3", 3, LATER, None, None),
        ]
        assert dict(found[1].headers) == {"X-Own": "1"}
        assert await w.js.schedules(name, w.subject + ".b") == found[1:]
        await w.js.publish(w.subject + ".b", b"plain")
        assert await w.js.schedules(name) == found[:1]
        assert await w.js.unschedule(w.subject + ".b"), "a crash of the server would arm it again"
        assert [one.data for one in await stored(w.stream, w.subject + ".b")] == [b"plain"]
        assert not await w.js.unschedule(w.subject + ".b")

        async def gone() -> bool:
            return not await w.js.consumer_names(name)

        await until(gone)


@pytest.mark.parametrize("retention", ["workqueue", "interest"])
@pytest.mark.level(2)
async def test_schedules_of_a_work_queue_are_listed_without_a_consumer(
    nats_server: TrioNatsServer, retention: str
) -> None:
    async with open_stream(nats_server, **SCHEDULES, retention=retention) as w:
        await w.js.create_consumer(w.stream.name, durable_name="c", filter_subject=w.subject + ".>")
        await w.js.publish(w.subject + ".plain", b"x")
        for name in ("b", "a"):
            await w.js.schedule(f"{w.subject}.{name}", name, target=w.subject + ".t", at=LATER)
        found = await w.js.schedules(w.stream.name)
        assert [one.subject for one in found] == [w.subject + ".b", w.subject + ".a"]
        assert await w.js.unschedule(w.subject + ".b")
        assert await w.js.schedules(w.stream.name) == found[1:]


@pytest.mark.level(2)
async def test_a_schedule_in_a_work_queue_is_work(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server, **SCHEDULES, retention="workqueue") as w:
        consumer = await w.js.create_consumer(w.stream.name, durable_name="c")
        await w.js.schedule(w.subject + ".s", b"x", target=w.subject + ".t", at=LATER)
        msg = await consumer.next()
        assert msg is not None
        assert msg.subject == w.subject + ".s"
        await msg.ack_sync()
        assert await w.js.schedules(w.stream.name) == [], "and done with it is gone"


NEWER = pytest.mark.level(4)


@pytest.mark.level(2)
@pytest.mark.parametrize(
    ("config", "given", "number", "text"),
    [
        ({}, {}, 10188, "the stream needs allow_msg_schedules"),
        ({"allow_msg_schedules": True}, {"ttl": 5}, 10166, "the stream needs allow_msg_ttl"),
        (SCHEDULES, {"target": "nowhere"}, 10190, "target must be a subject of the same stream"),
        pytest.param(SCHEDULES, {"at": None, "cron": "0 0 0 31 2 *"}, 10189, "it never comes", marks=NEWER),
        pytest.param(
            SCHEDULES,
            {"at": None, "cron": "@daily", "time_zone": "Nowhere/Here"},
            10223,
            "time_zone must be an IANA name",
            marks=NEWER,
        ),
    ],
)
async def test_a_refusal_says_what_to_do(
    nats_server: TrioNatsServer, config: dict[str, Any], given: dict[str, Any], number: int, text: str
) -> None:
    async with open_stream(nats_server, **config) as w:
        with pytest.raises(errors.APIError, match=text) as caught:
            await w.js.schedule(w.subject + ".s", b"", **{"at": LATER, "target": w.subject + ".t", **given})
        assert (caught.value.code, caught.value.err_code) == (400, number)
        assert str(caught.value).startswith(f"schedule '{w.subject}.s': ")
        assert (await w.stream.info()).state.last_seq == 0


@pytest.mark.level(2)
async def test_what_no_stream_listens_to(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        with pytest.raises(errors.NoStreamResponseError, match=r"schedule 'nowhere'"):
            await w.js.schedule("nowhere", b"", target="t", at=LATER)
        with pytest.raises(errors.NotFoundError, match="nowhere"):
            await w.js.unschedule("nowhere")
        with pytest.raises(errors.NotFoundError, match="'NONE'"):
            await w.js.schedules("NONE")


@pytest.mark.parametrize(
    "cron",
    [
        "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly",
        "0 */5 * * * *", "0 0 0 1 1 ?", "0 0 0 ? * MON-FRI", "0 0 0 * JAN *", "0 0 0 * * SUN,TUE", "0-59/2 * * * * *",
        "5/15 * * * * *", "0 0 0 * * 0-6/2", "*/100 * * * * *", "  0 0  0 * * mon", "59 59 23 31 12 6",
    ],
)  # fmt: skip
@pytest.mark.level(4)
async def test_what_passes_here_passes_there(nats_server: TrioNatsServer, cron: str) -> None:
    async with open_stream(nats_server, **SCHEDULES) as w:
        await w.js.schedule(w.subject + ".s", b"", target=w.subject + ".t", cron=cron)
        (found,) = await w.js.schedules(w.stream.name)
        assert found.cron == " ".join(cron.split())


@pytest.mark.parametrize(
    "cron",
    [
        "* * * * *",
        "60 * * * * *",
        "0 0 24 * * *",
        "0 0 0 0 * *",
        "0 0 0 * * 7",
        "0 0 0 L * *",
        "10-5 * * * * *",
        "*/0 * * * * *",
    ],
)
@pytest.mark.level(4)
async def test_what_is_refused_here_is_refused_there(nats_server: TrioNatsServer, cron: str) -> None:
    async with open_stream(nats_server, **SCHEDULES) as w:
        with pytest.raises(ValueError, match="cron is"):
            await w.js.schedule(w.subject + ".s", b"", target=w.subject + ".t", cron=cron)
        with pytest.raises(errors.APIError, match="pattern is invalid"):
            await w.js.publish(
                w.subject + ".s", b"", headers={"Nats-Schedule": cron, "Nats-Schedule-Target": w.subject + ".t"}
            )


@pytest.mark.level(4)
async def test_an_unreadable_schedule_is_listed_as_it_stands(nats_server: TrioNatsServer) -> None:
    """One of another client, in a form that is not ours: the server takes durations as Go writes them."""
    async with open_stream(nats_server, **SCHEDULES) as w:
        headers = {"Nats-Schedule": "@every 1h30m", "Nats-Schedule-Target": w.subject + ".t", "Nats-Schedule-TTL": "1m"}
        await w.js.publish(w.subject + ".s", b"x", headers=headers)
        (found,) = await w.js.schedules(w.stream.name)
        assert (found.expression, found.every, found.ttl) == ("@every 1h30m", 5400.0, 60.0)
