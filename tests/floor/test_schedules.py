"""Schedules and counters, asked of servers of each age, and of ones that say what no server should."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from tests.fake_jetstream import FakeStream, refusal
from tests.fakes import FakeServer, Frame
from tests.worlds import lose, next_event, open_world, regain, until
from trionats import Client, Counter, JetStream, errors, events, open_events
from trionats._protocol.headers import encode

pytestmark = pytest.mark.usefixtures("autojump_clock")

LATER = datetime(2099, 1, 1, tzinfo=UTC)
STORED_AT = "2026-11-29T12:00:00Z"


class FakeSchedules:
    """A stream `S` of the subjects `s.>` that says yes to everything; its messages are what the test puts there."""

    def __init__(self, server: FakeServer, *, level: int | None, config: dict[str, Any]) -> None:
        self.published: list[Frame] = []
        self.purged: list[dict[str, Any]] = []
        self.last: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.first: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.refuses: dict[str, Any] | None = None
        self.stream = FakeStream(server, "S")
        about = {**self.stream.about(), "config": {"name": "S", "subjects": ["s.>"], "retention": "limits", **config}}
        server.on(
            "$JS.API.STREAM.INFO.S",
            lambda _: about | {"state": {**about["state"], "subjects": self._subjects()}},
            first=True,
        )
        server.on("$JS.API.STREAM.NAMES", lambda _: {"total": 1, "offset": 0, "limit": 1024, "streams": ["S"]})
        server.on("$JS.API.STREAM.MSG.GET.S", self._get)
        server.on("$JS.API.STREAM.PURGE.S", self._purge)
        server.on("s.>", self._publish)

        def info(_: Frame) -> object:
            if level is not None:
                return {"api": {"total": 1, "errors": 0, "level": level}}
            server.inject(b"-ERR 'Permissions Violation for Publish to \"$JS.API.INFO\"'\r\n")
            return None

        server.on("$JS.API.INFO", info)

    def _subjects(self) -> dict[str, int]:
        return dict.fromkeys(self.last, 1)

    def _publish(self, frame: Frame) -> dict[str, Any]:
        self.published.append(frame)
        return self.refuses or {"stream": "S", "seq": len(self.published)}

    def _purge(self, frame: Frame) -> dict[str, Any]:
        self.purged.append(json.loads(frame.payload))
        return {"success": True, "purged": 1}

    def _get(self, frame: Frame) -> dict[str, Any]:
        asked = json.loads(frame.payload)
        subject = asked.get("last_by_subj") or asked["next_by_subj"]
        messages = self.last if "last_by_subj" in asked else {**self.last, **self.first}
        if subject not in messages:
            return refusal(404, 10037, "no message found")
        seq, headers, data = messages[subject]
        block, body = (base64.b64encode(part).decode() for part in (encode(headers), data))
        return {"message": {"subject": subject, "seq": seq, "hdrs": block, "data": body, "time": STORED_AT}}


@asynccontextmanager
async def scheduling(
    level: int | None = 5,
    **config: Any,  # noqa: ANN401 - any field
) -> AsyncIterator[tuple[FakeSchedules, JetStream]]:
    async with open_world() as (server, nc, _):
        yield FakeSchedules(server, level=level, config={"allow_msg_schedules": True, **config}), nc.jetstream()


@pytest.mark.parametrize(
    ("level", "given", "text"),
    [
        (0, {"at": LATER}, r"a schedule needs a server of 2\.12 or later \(API level 2\); this one has level 0"),
        (1, {"at": LATER}, r"a schedule needs a server of 2\.12"),
        (3, {"every": 5}, r"every needs a server of 2\.14 or later \(API level 4\); this one has level 3"),
        (3, {"cron": "@daily"}, r"cron needs a server of 2\.14"),
        (3, {"cron": "@daily", "time_zone": "UTC"}, r"time_zone needs a server of 2\.14"),
        (3, {"at": LATER, "source": "s.in"}, r"source needs a server of 2\.14"),
        (3, {"at": LATER, "rollup": True}, r"rollup needs a server of 2\.14"),
    ],
)
async def test_a_server_that_is_too_old_is_sent_nothing(level: int, given: dict[str, Any], text: str) -> None:
    """It would store a plain message, or leave out what it does not know."""
    async with scheduling(level) as (fake, js):
        with pytest.raises(errors.APIError, match=f"^schedule 's.a': {text}") as caught:
            await js.schedule("s.a", b"x", target="s.t", **given)
        assert (caught.value.code, caught.value.err_code) == (412, 10185)
        assert fake.published == []


@pytest.mark.parametrize(("level", "given"), [(2, {"at": LATER}), (4, {"every": 5}), (None, {"every": 5})])
async def test_one_that_is_not_is_and_so_is_one_that_may_not_be_asked(level: int | None, given: dict[str, Any]) -> None:
    async with scheduling(level) as (fake, js):
        ack = await js.schedule("s.a", "text", target="s.t", headers={"X-Own": "1"}, **given)
        assert (ack.stream, ack.seq) == ("S", 1)
        (frame,) = fake.published
        assert (frame.subject, frame.payload) == ("s.a", b"text")
        assert b"X-Own: 1\r\n" in frame.headers
        assert b"Nats-Schedule-Target: s.t\r\n" in frame.headers


async def test_what_is_wrong_is_refused_before_anything_is_sent() -> None:
    async with scheduling() as (fake, js):
        sent = len(fake.stream.server.frames)
        for given, kind, text in (
            ({"target": "s.t"}, ValueError, "one of at, every and cron"),
            ({"target": "s.t", "every": 5, "timeout": 1}, TypeError, "cancel scopes|fail_after"),
            ({"target": "s.t", "every": 5, "headers": 5}, TypeError, "headers must be a mapping"),
        ):
            with pytest.raises(kind, match=text):
                await js.schedule("s.a", b"", **given)
        for subject in ("", "s.*", "s..a"):
            with pytest.raises(errors.BadSubjectError, match="schedule"):
                await js.schedule(subject, b"", target="s.t", every=5)
            with pytest.raises(errors.BadSubjectError, match="unschedule"):
                await js.unschedule(subject)
        with pytest.raises(TypeError, match=r"cancel scopes|fail_after"):
            await js.unschedule("s.a", timeout=1)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="stream"):
            await js.unschedule("s.a", stream="a.b")
        with pytest.raises(TypeError, match="stream"):
            await js.unschedule("s.a", stream=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="schedules: subjects must be text"):
            await js.schedules("S", 5)  # type: ignore[arg-type]
        assert len(fake.stream.server.frames) == sent


async def test_a_refusal_without_a_hint_stays_as_it_is() -> None:
    async with scheduling() as (fake, js):
        fake.refuses = refusal(400, 10060, "wrong expected stream")
        with pytest.raises(errors.APIError, match=r"wrong expected stream \(code 400, error 10060\)$"):
            await js.schedule("s.a", b"", target="s.t", every=5)


async def test_unscheduling_purges_up_to_the_schedule_and_no_more() -> None:
    async with scheduling() as (fake, js):
        fake.last["s.a"] = (7, {"Nats-Schedule": "@daily", "Nats-Schedule-Target": "s.t"}, b"x")
        assert await js.unschedule("s.a")
        assert fake.purged == [{"seq": 8, "filter": "s.a"}], "what comes behind it is another one"


async def test_unscheduling_removes_what_a_message_on_top_hides() -> None:
    """It may still be armed: nothing that is stored says so."""
    async with scheduling() as (fake, js):
        fake.first["s.a"] = (5, {"Nats-Schedule": "@daily", "Nats-Schedule-Target": "s.t"}, b"x")
        fake.last["s.a"] = (7, {"Nats-Scheduler": "s.b"}, b"on top")
        assert await js.unschedule("s.a")
        assert fake.purged == [{"seq": 6, "filter": "s.a"}], "and leaves that alone"


async def test_unscheduling_in_a_stream_that_was_named_looks_for_none() -> None:
    async with scheduling() as (fake, js):
        fake.last["other.a"] = (7, {"Nats-Schedule": "@daily", "Nats-Schedule-Target": "s.t"}, b"x")
        assert await js.unschedule("other.a", stream="S")
        assert not any(
            "STREAM.NAMES" in argument for frame in fake.stream.server.frames for argument in frame.arguments
        )


async def test_what_is_no_schedule_is_not_purged() -> None:
    async with scheduling() as (fake, js):
        assert not await js.unschedule("s.nothing")
        fake.last["s.plain"] = (7, {"Nats-Scheduler": "s.a"}, b"x")
        assert not await js.unschedule("s.plain")
        assert fake.purged == []


async def test_a_stream_without_schedules_has_none_and_is_not_read() -> None:
    async with scheduling(allow_msg_schedules=False) as (fake, js):
        assert await js.schedules("S") == []
        assert fake.stream.made == 0


async def test_in_a_work_queue_each_subject_is_asked_of_the_leader() -> None:
    async with scheduling(retention="workqueue") as (fake, js):
        fake.last["s.b"] = (9, {"Nats-Schedule": "@daily", "Nats-Schedule-Target": "s.t"}, b"b")
        fake.last["s.plain"] = (8, {}, b"x")
        fake.last["s.a"] = (5, {"Nats-Schedule": "@at nonsense", "X-Own": "1"}, b"a")
        found = await js.schedules("S")
        assert [(one.subject, one.seq, one.target, one.cron, one.data) for one in found] == [
            ("s.a", 5, "", None, b"a"),
            ("s.b", 9, "s.t", "@daily", b"b"),
        ]
        assert fake.stream.made == 0, "a consumer would not be let in"


@asynccontextmanager
async def counting(
    ack: Callable[[Frame], object],
) -> AsyncIterator[tuple[Counter, FakeStream, Client]]:
    """The counters of a stream `S`, whose publishes are answered by the test."""
    async with open_world() as (server, nc, _):
        stream = FakeStream(server, "S")
        about = {**stream.about(), "config": {"name": "S", "subjects": ["c.>"], "allow_msg_counter": True}}
        server.on("$JS.API.STREAM.INFO.S", lambda _: about, first=True)
        server.on("c.>", ack)
        yield await nc.jetstream().counter("S"), stream, nc


@pytest.mark.parametrize(
    ("ack", "text"),
    [
        ({"stream": "T", "seq": 1, "val": "5"}, "it was counted in stream 'T', not in 'S'"),
        ({"stream": "S", "seq": 1}, "a counter's number must be decimal text"),
        ({"stream": "S", "seq": 1, "val": "five"}, "a counter's number must be decimal text"),
    ],
)
async def test_an_acknowledgement_that_is_no_counters(ack: dict[str, Any], text: str) -> None:
    async with counting(lambda _: ack) as (counter, _, _):
        with pytest.raises(errors.APIError, match=f"add to 'c.a': .*{text}"):
            await counter.add("c.a", 1)


async def test_whether_it_was_counted_is_not_known_when_the_connection_breaks() -> None:
    async with counting(lambda _: None) as (counter, stream, nc):

        async def add() -> None:
            with pytest.raises(errors.DisconnectedError) as caught:
                await counter.add("c.a", 1)
            assert caught.value.sent

        async with trio.open_nursery() as workers:
            workers.start_soon(add)
            await until(lambda: any(frame.verb == "HPUB" for frame in stream.server.frames))
            await lose(stream.server, nc)
        await regain(stream.server, nc)


async def test_what_is_no_counters_message_ends_nothing_but_its_own_entry() -> None:
    async with counting(lambda _: None) as (counter, stream, nc), trio.open_nursery() as nursery:
        async with open_events(nursery, nc) as happened:
            stream.store("c.a", b'{"val":"7"}')
            stream.store("c.b", b"nonsense")
            stream.store("c.c", b'{"val":"8"}', headers=encode({"Nats-Counter-Sources": "nonsense"}))
            stream.store("c.d", b'{"val":"9"}')
            assert [(entry.subject, entry.value) for entry in await counter.entries()] == [("c.a", 7), ("c.d", 9)]
            skipped = await next_event(happened, events.ForeignDataSkipped)
            assert skipped.where == "counters of stream 'S'"
            assert nc.statistics().skipped == 2


@pytest.mark.parametrize(("level", "text"), [(1, r"a counter needs a server of 2\.12 "), (2, "it counts nothing")])
async def test_a_stream_that_counts_nothing_may_be_one_of_an_old_server(level: int, text: str) -> None:
    async with scheduling(level) as (_, js):
        with pytest.raises(errors.APIError, match=f"^stream 'S': {text}"):
            await js.counter("S")
