"""Services, against a server in memory: what they answer, how handlers share the work, and how all of it ends."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import pytest
import trio

from tests.fakes import FakeServer, Frame
from tests.worlds import Turns, assert_nothing_left, lose, nursery_elsewhere, open_world, regain, settled, takes, until
from trionats import (
    BoundedFeed,
    Client,
    Events,
    Group,
    Service,
    ServiceRequest,
    errors,
    events,
    open_endpoint,
    open_events,
    open_replies,
    open_service,
)
from trionats.api import EndpointStats, ServiceStats

pytestmark = pytest.mark.usefixtures("autojump_clock")

NOBODY_WAITS = b"NATS/1.0\r\nTrionats-Timeout: %d\r\n\r\n"


class Served(NamedTuple):
    """A service "orders" in memory; `nursery` is for its endpoints, and for tasks of the test's own."""

    server: FakeServer
    nc: Client
    service: Service
    nursery: trio.Nursery
    rx: Events

    def told(self, kind: type[events.ConnectionEvent]) -> list[Any]:
        """What has been told of that kind."""
        found = []
        while True:
            try:
                found.append(self.rx.receive_nowait())
            except trio.WouldBlock:
                return [each for each in found if isinstance(each, kind)]

    async def serve(self, name: str, handler: Callable[[ServiceRequest], Awaitable[object]], **options: Any) -> Any:  # noqa: ANN401
        """Serve, on the service itself or the `group` that is given."""
        where = options.pop("group", self.service)
        return await self.nursery.start(partial(where.serve, name, handler, **options))

    def ask(self, *payloads: bytes, subject: str = "price", headers: bytes = b"") -> None:
        """Let requests come at once; the reply subject of each is `to.` and its payload."""
        for payload in payloads:
            self.server.publish(subject, payload, reply=f"to.{payload.decode()}", headers=headers)

    def responses(self) -> list[tuple[str, bytes]]:
        """What was responded, in order: where to, and the payload, or the error that the headers say."""
        published = [frame for frame in self.server.frames if frame.verb in ("PUB", "HPUB")]
        return [
            (frame.subject.removeprefix("to."), error_of(frame) if frame.headers else frame.payload)
            for frame in published
            if frame.subject.startswith("to.")
        ]


def error_of(frame: Frame) -> bytes:
    fields = dict(line.split(b": ", 1) for line in frame.headers.split(b"\r\n") if b": " in line)
    return fields[b"Nats-Service-Error-Code"] + b" " + fields[b"Nats-Service-Error"]


@asynccontextmanager
async def open_served(server: FakeServer | None = None, **options: Any) -> AsyncIterator[Served]:  # noqa: ANN401
    async with (
        open_world(server or FakeServer(), **options.pop("client", {})) as (fake, nc, nursery),
        open_events(nursery, nc) as rx,
        open_service(nursery, nc, "orders", "1.2.3", **options) as service,
        trio.open_nursery() as workers,
    ):
        yield Served(fake, nc, service, workers, rx)
        service.stop()


async def echo(request: ServiceRequest) -> None:
    await request.respond(request.data)


async def hang(_: ServiceRequest) -> None:
    await trio.sleep(5)


async def work_on(request: ServiceRequest, *steps: Callable[[], Awaitable[object]]) -> None:
    """Enter a request, take some steps, and fail."""
    async with request:
        for step in steps:
            await step()
        raise ZeroDivisionError


# -- what it is asked --------------------------------------------------------------------------------------------------------


async def test_entering_returns_once_the_server_has_its_subscriptions_and_they_have_no_queue() -> None:
    async with open_served() as w:
        there = {each.subject: each.queue for each in w.server.subscriptions}
        who = w.service.id
        for verb in ("PING", "INFO", "STATS"):
            assert [there[f"$SRV.{verb}{level}"] for level in ("", ".orders", f".orders.{who}")] == ["", "", ""]
        await w.serve("price", echo)
        assert ("price", "q") in [(each.subject, each.queue) for each in w.server.subscriptions]


async def test_opening_goes_on_with_the_next_connection() -> None:
    async with open_world() as (server, nc, nursery):
        server.mute.add("PING")
        opened = trio.Event()

        async def open_it() -> None:
            async with open_service(nursery, nc, "orders", "1.0.0") as service, open_endpoint(nursery, service, "a"):
                opened.set()

        nursery.start_soon(open_it)
        await settled()
        await lose(server, nc)
        assert not opened.is_set()
        server.mute.clear()
        await regain(server, nc)
        await opened.wait()


@pytest.mark.parametrize("denied", ["$SRV.INFO.>", "price"])
async def test_what_the_server_refuses_is_raised_by_the_opening(denied: str) -> None:
    async with open_world(FakeServer(deny_subscribe=(denied,))) as (_, nc, nursery):
        with pytest.raises(errors.PermissionsViolationError):
            async with (
                open_service(nursery, nc, "orders", "1.0.0", queue="") as service,
                open_endpoint(nursery, service, "price"),
            ):
                pytest.fail("it was opened")
        await nc.flush()
        assert_nothing_left(nc)


async def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    async with open_world() as (server, nc, nursery):
        server.mute.add("PING")
        with takes(5), pytest.raises(errors.TimeoutError, match="service 'orders'"):
            async with open_service(nursery, nc, "orders", "1.0.0"):
                pytest.fail("it was opened")
        server.mute.clear()


@pytest.mark.parametrize("level", ["", ".orders", ".orders.{id}"])
async def test_it_answers_on_all_three_levels(level: str) -> None:
    async with open_served(description="prices", metadata={"team": "a"}, queue="mine") as w:
        await w.serve("price", echo, group=w.service.group("v1"), metadata={"unit": "eur"})
        who = {"name": "orders", "id": w.service.id, "version": "1.2.3", "metadata": {"team": "a"}}

        async def asked(verb: str) -> Any:  # noqa: ANN401 - JSON
            return json.loads((await w.nc.request(f"$SRV.{verb}{level.format(id=w.service.id)}")).data)

        assert await asked("PING") == {**who, "type": "io.nats.micro.v1.ping_response"}
        endpoint = {"name": "price", "subject": "v1.price", "queue_group": "mine", "metadata": {"unit": "eur"}}
        kind = "io.nats.micro.v1.info_response"
        assert await asked("INFO") == {**who, "type": kind, "description": "prices", "endpoints": [endpoint]}
        stats = await asked("STATS")
        assert ServiceStats.from_response(stats) == w.service.stats()
        assert stats["started"].endswith("Z")


async def test_a_question_without_a_reply_subject_is_nothing() -> None:
    async with open_served() as w:
        w.server.publish("$SRV.PING")
        assert (await w.nc.request("$SRV.PING")).data


async def test_an_answer_that_the_server_would_not_take_is_told() -> None:
    async with open_served(FakeServer(info={"max_payload": 2000}), metadata={"long": "x" * 3000}) as w:
        with pytest.raises(errors.TimeoutError):
            await w.nc.request("$SRV.PING")
        (told,) = w.told(events.HandlerFailed)
        assert (told.service, told.endpoint) == ("orders", "PING")
        assert isinstance(told.error, errors.MaxPayloadError)


async def test_a_stats_handler_tells_what_it_has_and_a_bad_one_costs_nobody_else_anything() -> None:
    def bad(_: object) -> object:
        raise ZeroDivisionError("planted")

    async with open_served() as w:
        await w.serve("good", echo, stats_handler=lambda stats: {"seen": stats.num_requests})
        await w.serve("bad", echo, stats_handler=bad)
        await w.serve("worse", echo, stats_handler=lambda _: {1, 2})
        await w.nc.request("good", b"x")
        stats = json.loads((await w.nc.request("$SRV.STATS")).data)["endpoints"]
        assert [each.get("data") for each in stats] == [{"seen": 1}, None, None]
        told = w.told(events.HandlerFailed)
        assert [(each.endpoint, type(each.error)) for each in told] == [
            ("bad", ZeroDivisionError),
            ("worse", TypeError),
        ]


async def test_a_stats_handler_that_spoils_what_it_is_given_spoils_nothing_else() -> None:
    def spoil(stats: EndpointStats) -> object:
        stats.num_requests = object()  # type: ignore[assignment]
        return told

    class Moody(dict[str, int]):
        asked = 0

        def items(self) -> Any:  # noqa: ANN401 - as a dictionary's
            self.asked += 1
            if self.asked > 1:
                raise ZeroDivisionError("planted")
            return super().items()

    told = Moody(a=1)
    async with open_served() as w:
        await w.serve("price", echo, stats_handler=spoil)
        (stats,) = json.loads((await w.nc.request("$SRV.STATS")).data)["endpoints"]
        assert (stats["num_requests"], stats["data"]) == (0, {"a": 1})


async def test_questions_are_answered_while_handlers_hang() -> None:
    async with open_served() as w:
        await w.serve("price", hang)
        w.ask(b"1", b"2")
        with takes(0):
            assert (await w.nc.request("$SRV.STATS.orders")).data


async def test_too_many_questions_are_told_and_end_nothing() -> None:
    async with open_served() as w:
        for _ in range(5000):
            w.server.publish("$SRV.PING")
        await w.nc.flush()
        assert w.told(events.SlowConsumer)
        assert (await w.nc.request("$SRV.PING")).data


async def test_questions_are_answered_no_faster_than_the_server_takes_it() -> None:
    async with open_served(metadata={"long": "x" * 10_000}, client={"pending_size": 50_000}) as w:
        for _ in range(100):
            w.server.publish("$SRV.PING", reply="to.1")
        w.server.accepting = False
        w.server.cut()
        await settled()
        assert not w.nc.is_connected
        assert 0 < w.nc.statistics().outbox_bytes < 70_000
        await regain(w.server, w.nc)
        assert (await w.nc.request("$SRV.PING")).data


async def test_permission_to_be_asked_that_is_taken_away_does_not_end_the_endpoints() -> None:
    async with open_served() as w:
        await w.serve("price", echo)
        w.server.link.error('Permissions Violation for Subscription to "$SRV.PING"')
        await w.nc.flush()
        assert w.told(events.PermissionViolation)
        assert (await w.nc.request("price", b"x")).data == b"x"
        assert (await w.nc.request("$SRV.INFO")).data


async def test_queue_groups_are_inherited_from_service_and_group_chosen_or_none() -> None:
    async with open_served(queue="s") as w:
        inner = w.service.group("a").group("b", queue="g").group("c")
        none = w.service.group("n", queue="")
        for group, options in (
            (w.service, {}),
            (inner, {}),
            (inner, {"subject": "d", "queue": "e"}),
            (inner, {"subject": "f", "queue": ""}),
            (none, {}),
        ):
            await w.serve("x", echo, group=group, **options)
        there = [
            (each.subject, each.queue) for each in w.server.subscriptions if not each.subject.startswith(("$", "_"))
        ]
        assert there == [("x", "s"), ("a.b.c.x", "g"), ("a.b.c.d", "e"), ("a.b.c.f", ""), ("n.x", "")]


# -- handlers ----------------------------------------------------------------------------------------------------------------


async def test_a_failing_handler_answers_500_with_its_class_alone_and_stops_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def price(request: ServiceRequest) -> None:
        if request.data == b"bad":
            raise KeyError("a secret")
        await request.respond(request.data)

    async with open_served() as w:
        await w.serve("price", price, concurrency=2)
        await w.serve("other", echo)
        with caplog.at_level(logging.WARNING, "trionats"):
            w.ask(b"bad", b"good")
            await settled()
        assert w.responses() == [("bad", b"500 KeyError"), ("good", b"good")]
        assert b"secret" not in w.server.link.received
        (record,) = caplog.records
        (told,) = w.told(events.HandlerFailed)
        # Where it is, in the program, and not what it says, which may be anything.
        line = price.__code__.co_firstlineno + 2
        failed = "a handler of endpoint 'price' of service 'orders' failed"
        assert record.getMessage() == f"{failed}: KeyError at {__file__}:{line}"
        assert (told.service, told.endpoint, str(told.error)) == ("orders", "price", "'a secret'")
        stats, other = w.service.stats().endpoints
        assert (stats.num_requests, stats.num_errors, stats.last_error) == (2, 1, "500:KeyError")
        assert (await w.nc.request("other", b"x")).data == b"x"
        assert other.num_errors == 0


async def test_a_handler_that_is_no_coroutine_function_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def price(_: ServiceRequest) -> Any:  # noqa: ANN401 - wrong on purpose
        return b"3"

    async with open_served() as w:
        await w.serve("price", price)
        w.ask(b"a")
        await settled()
        assert w.responses() == [("a", b"500 TypeError")]
        (told,) = w.told(events.HandlerFailed)
        assert str(told.error).endswith("price must be a coroutine function (async def), but it returned bytes")
        assert caplog.records[-1].getMessage().endswith(f" failed: TypeError: {told.error}")


async def test_handlers_run_beside_each_other_up_to_the_limit() -> None:
    running = most = 0

    async def price(request: ServiceRequest) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        await request.respond()

    async with open_served() as w:
        await w.serve("price", price, concurrency=4)
        w.ask(*(b"%d" % number for number in range(12)))
        await trio.sleep(3)
        await settled()
        assert len(w.responses()) == 12
        assert most == 4


async def test_one_slow_handler_holds_back_nobody() -> None:
    async def price(request: ServiceRequest) -> None:
        if request.data == b"slow":
            await trio.sleep(100)
        await request.respond(request.data)

    async with open_served() as w:
        await w.serve("price", price, concurrency=2)
        with takes(0):
            w.ask(b"slow", b"1", b"2", b"3")
            await settled()
        assert w.responses() == [("1", b"1"), ("2", b"2"), ("3", b"3")]


async def test_handlers_that_never_wait_cost_no_task() -> None:
    async with open_served() as w:
        await w.serve("price", echo, concurrency=50)
        before = trio.lowlevel.current_statistics().tasks_living
        w.ask(*(b"%d" % number for number in range(200)))
        await settled()
        assert len(w.responses()) == 200
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_tasks_that_are_not_needed_any_more_go() -> None:
    async def price(request: ServiceRequest) -> None:
        await trio.sleep(1)
        await request.respond()

    async with open_served() as w:
        await w.serve("price", price, concurrency=50)
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(3):
            with takes(1):
                w.ask(*(b"%d" % number for number in range(50)))
                await trio.sleep(1)
                await settled()
        assert len(w.responses()) == 150
        assert trio.lowlevel.current_statistics().tasks_living <= before + 1


async def test_handlers_do_not_see_each_others_context_variables() -> None:
    variable = ContextVar("variable", default="of nobody")
    seen = []

    async def price(request: ServiceRequest) -> None:
        seen.append(variable.get())
        variable.set(request.data.decode())
        await trio.sleep(1)
        seen.append(variable.get())

    async with open_served() as w:
        variable.set("of serve")
        await w.serve("price", price, concurrency=2)
        variable.set("later")
        w.ask(b"1", b"2", b"3")
        await trio.sleep(3)
        assert sorted(seen) == ["1", "2", "3", "of serve", "of serve", "of serve"]


async def test_a_handler_may_return_anything_that_can_be_awaited() -> None:
    class Answer:
        def __init__(self, request: ServiceRequest) -> None:
            self.request = request

        def __await__(self) -> Any:  # noqa: ANN401 - what a coroutine yields
            return self.request.respond(b"awaited").__await__()

    async with open_served() as w:
        await w.serve("price", Answer)
        await w.serve("none", lambda _: None)  # type: ignore[arg-type, return-value]
        # What it raises before there is anything to be awaited is a failure, too, even this.
        await w.serve("exhausted", lambda _: next(iter(())))
        w.ask(b"1")
        w.ask(b"2", subject="none")
        w.ask(b"3", subject="exhausted")
        await settled()
        assert sorted(w.responses()) == [("1", b"awaited"), ("2", b"500 TypeError"), ("3", b"500 RuntimeError")]


async def test_cancelling_serve_cancels_the_handlers_and_tells_all_who_wait() -> None:
    cancelled = []

    async def price(request: ServiceRequest) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(request.data)

    async with open_served() as w:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(w.service.serve, "price", price, concurrency=2))
                w.ask(b"1", b"2", b"3")
                await settled()
                scope.cancel()
        await w.nc.flush()
        assert sorted(cancelled) == [b"1", b"2"]
        assert sorted(w.responses()) == [
            ("1", b"503 cancelled"),
            ("2", b"503 cancelled"),
            ("3", b"503 this endpoint has stopped"),
        ]
        assert w.told(events.HandlerFailed) == []
        assert w.service.info().endpoints == []


async def test_a_handler_that_fails_while_it_is_cancelled_has_failed() -> None:
    async def price(_: ServiceRequest) -> None:
        async def fail() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("planted")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    async with open_served() as w:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(w.service.serve, "price", price))
                w.ask(b"1")
                await settled()
                scope.cancel()
        await w.nc.flush()
        (told,) = w.told(events.HandlerFailed)
        assert told.error.subgroup(ValueError) is not None
        assert [where for where, _ in w.responses()] == ["1"]


async def test_a_group_of_failures_ends_nothing_else_whatever_its_class() -> None:
    class Problems(BaseExceptionGroup[BaseException]):
        def derive(self, excs: Sequence[BaseException], /) -> Problems:  # type: ignore[override]
            return Problems(self.message, excs)

    async def price(_: ServiceRequest) -> None:
        raise Problems("planted", [ValueError()])

    async with open_served() as w:
        await w.serve("price", price)
        w.ask(b"1", b"2")
        await settled()
        assert w.responses() == [("1", b"500 ExceptionGroup"), ("2", b"500 ExceptionGroup")]
        assert len(w.told(events.HandlerFailed)) == 2


async def test_what_is_no_failure_ends_serve_as_it_would_end_any_task() -> None:
    async def price(_: ServiceRequest) -> None:
        raise SystemExit

    with pytest.RaisesGroup(SystemExit, flatten_subgroups=True):
        async with open_served() as w:
            await w.serve("price", price)
            w.ask(b"1")
            await trio.sleep_forever()
    assert w.responses() == [("1", b"503 cancelled")]


async def test_serve_ends_when_the_client_is_lost_and_says_why() -> None:
    outcome = []

    async def serve(service: Service, *, task_status: trio.TaskStatus[Any]) -> None:  # noqa: ASYNC128 - handed on
        try:
            await service.serve("price", echo, concurrency=3, task_status=task_status)
        except errors.Error as error:
            outcome.append(error)

    async with open_served(client={"allow_reconnect": False}) as w:
        await w.nursery.start(serve, w.service)
        w.server.cut()
        await until(lambda: bool(outcome), pause=0)
    assert "connection" in str(outcome[0])


# -- requests ----------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_price(w: Served, **options: Any) -> AsyncIterator[BoundedFeed[ServiceRequest]]:  # noqa: ANN401 - its options
    async with open_endpoint(w.nursery, w.service, "price", **options) as rx:
        yield rx


async def test_a_request_is_what_was_sent() -> None:
    async with open_served() as w, open_price(w) as rx:
        w.ask(b"1", headers=b"NATS/1.0\r\nA: b\r\n\r\n")
        request = await rx.receive()
        assert (request.subject, request.data, request.reply, dict(request.headers)) == (
            "price",
            b"1",
            "to.1",
            {"A": "b"},
        )
        assert request.deadline == math.inf


async def test_a_block_times_its_request_and_lets_its_exception_on() -> None:
    async with open_served() as w, open_price(w) as rx:
        w.ask(b"1", b"2", b"3")
        async with await rx.receive() as request:
            await trio.sleep(2)
            await request.respond(b"done")
        with pytest.raises(ZeroDivisionError):
            await work_on(await rx.receive())
        with trio.move_on_after(1):
            async with await rx.receive():
                await trio.sleep_forever()
        await w.nc.flush()
        # Whoever cancelled it knows better what is to be said.
        assert w.responses() == [("1", b"done"), ("2", b"500 ZeroDivisionError")]
        (stats,) = w.service.stats().endpoints
        assert (stats.num_requests, stats.num_errors, stats.processing_time) == (3, 1, 3 * 10**9)
        assert stats.average_processing_time == 10**9
        assert w.told(events.HandlerFailed) == []


async def test_a_failure_behind_a_response_is_counted_and_not_said() -> None:
    async with open_served() as w, open_price(w) as rx:
        w.ask(b"1")
        request = await rx.receive()
        with pytest.raises(ZeroDivisionError):
            await work_on(request, partial(request.respond, b"done"))
        await w.nc.flush()
        assert w.responses() == [("1", b"done")]
        assert w.service.stats().endpoints[0].num_errors == 1


async def test_an_error_response_is_counted_once() -> None:
    async with open_served() as w, open_price(w) as rx:
        w.ask(b"1")
        request = await rx.receive()
        first = partial(request.respond_error, 404, "no such thing", b"details", {"A": "b"})
        with pytest.raises(ZeroDivisionError):
            await work_on(request, first, partial(request.respond_error, "405", "again"))
        await w.nc.flush()
        assert w.responses() == [("1", b"404 no such thing"), ("1", b"405 again")]
        sent = w.server.sent("HPUB", "to.1")[0]
        assert sent.payload == b"details"
        assert b"A: b\r\n" in sent.headers
        (stats,) = w.service.stats().endpoints
        assert (stats.num_errors, stats.last_error) == (1, "404:no such thing")


async def test_one_request_may_have_many_responses() -> None:
    async def price(request: ServiceRequest) -> None:
        for number in range(3):
            await request.respond(b"%d" % number)

    async with open_served() as w:
        await w.serve("price", price)
        assert [each.data for each in await w.nc.request_many("price", max_msgs=3)] == [b"0", b"1", b"2"]


async def test_where_nobody_expects_a_response_none_is_sent() -> None:
    async with open_served() as w:
        await w.serve("price", echo)
        w.server.publish("price", b"x")
        await settled()
        assert w.service.stats().endpoints[0].num_errors == 0
        assert w.told(events.HandlerFailed) == []


async def test_where_not_even_an_error_fits_nothing_is_said_and_nothing_ends() -> None:
    async with open_served(FakeServer(info={"max_payload": 30})) as w:
        await w.serve("price", lambda _: None)  # type: ignore[arg-type, return-value]
        w.ask(b"1", b"2")
        await settled()
        assert w.responses() == []
        assert len(w.told(events.HandlerFailed)) == 2


async def test_a_response_that_is_too_large_fails_its_request_alone() -> None:
    async with open_served(FakeServer(info={"max_payload": 5000})) as w:
        await w.serve("price", lambda request: request.respond(b"x" * 6000))
        w.ask(b"1")
        await settled()
        assert w.responses() == [("1", b"500 MaxPayloadError")]


async def test_a_reply_subject_that_is_no_text_harms_nobody() -> None:
    async with open_served() as w:
        endpoint = await w.serve("price", echo)
        sid = next(each.sid for each in w.server.subscriptions if each.subject == "price")
        w.server.inject(b"MSG price %d to.\xff 1\r\nx\r\n" % sid)
        await settled()
        assert b"PUB to.\xff 1\r\nx\r\n" in w.server.link.received
        endpoint.stop()
        w.server.problems.clear()  # it reads text only


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda request: request.respond_error(True, "x"), TypeError),
        (lambda request: request.respond_error(400, ""), ValueError),
        (lambda request: request.respond_error(400, "x", headers=[1]), TypeError),
        (lambda request: request.respond(headers={"A b": "c"}), errors.BadHeaderError),
        (lambda request: request.respond("text"), TypeError),
        (lambda request: request.respond(headers=[1]), TypeError),
    ],
)
async def test_what_is_no_response_is_refused_before_anything_is_sent(
    call: Callable[[Any], Awaitable[object]], error: type[Exception]
) -> None:
    async with open_served() as w, open_price(w) as rx:
        w.ask(b"1")
        request = await rx.receive()
        with pytest.raises(error):
            await call(request)
        await w.nc.flush()
        assert w.responses() == []
        assert w.service.stats().endpoints[0].num_errors == 0


async def test_a_request_is_entered_once() -> None:
    async with open_served() as w, open_price(w) as rx:
        w.ask(b"1")
        request = await rx.receive()
        async with request:
            with pytest.raises(RuntimeError, match="entered once"):
                await request.__aenter__()


async def test_what_finds_no_place_is_answered_at_once_and_ends_nothing() -> None:
    async with open_served() as w, open_price(w, pending_msgs_limit=2) as rx:
        w.ask(*(b"%d" % number for number in range(5)))
        await settled()
        assert [where for where, what in w.responses() if what == b"503 too many requests wait here"] == ["2", "3", "4"]
        (slow,) = w.told(events.SlowConsumer)
        assert slow.subject == "price"
        assert [(await rx.receive()).data for _ in range(2)] == [b"0", b"1"]
        w.ask(b"5")
        assert (await rx.receive()).data == b"5"
        (stats,) = w.service.stats().endpoints
        assert (stats.num_requests, stats.num_errors) == (6, 3)
        assert rx.statistics().dropped == 3


# -- deadlines ---------------------------------------------------------------------------------------------------------------


async def test_requests_say_how_long_they_wait_where_that_is_chosen() -> None:
    async with open_world() as (server, nc, nursery):
        server.on("a", lambda _: b"yes")
        telling = nc.with_options(send_deadline=True)

        def said() -> list[bytes]:
            frames, server.frames[:] = [each for each in server.frames if each.arguments[:1] == ("a",)], []
            return [line for frame in frames for line in frame.headers.split(b"\r\n") if line.startswith(b"Trionats-")]

        await nc.request("a")
        assert said() == []
        await telling.request("a")
        assert said() == [b"Trionats-Timeout: 5000"]
        with trio.move_on_after(2):
            await telling.request("a", headers={"A": "b"})
        with trio.move_on_after(2):
            await telling.with_options(request_timeout=1.5).request("a")
        with trio.move_on_after(0.25), telling.request_nowait("a") as reply:
            await reply.wait()
        with trio.move_on_after(3):
            await telling.request_many("a", max_msgs=1)
        with trio.move_on_after(4):
            async with open_replies(nursery, telling, "a", max_msgs=1) as rx:
                await rx.receive()
        await telling.request("a", headers={"Trionats-Timeout": "7"})
        milliseconds = [2000, 1500, 250, 3000, 4000, 7]
        assert said() == [b"Trionats-Timeout: %d" % each for each in milliseconds]
        await telling.with_options(send_deadline=False).request("a")
        with pytest.raises(errors.NoStreamResponseError):
            await telling.jetstream().publish("a.stream", b"x")
        assert said() == []
        with pytest.raises(TypeError, match="send_deadline must be True or False, not int"):
            nc.with_options(send_deadline=1)  # type: ignore[arg-type]


async def test_work_that_nobody_waits_for_any_more_stops() -> None:
    outcome = []

    async def price(request: ServiceRequest) -> None:
        try:
            await trio.sleep(2)
            await request.respond()
        except trio.Cancelled:
            outcome.append(trio.current_time() - start)
            raise

    async with open_served() as w:
        await w.serve("price", price, honour_deadline=True, concurrency=2)
        start = trio.current_time()
        with trio.move_on_after(0.5):
            await w.nc.with_options(send_deadline=True).request("price")
        with trio.move_on_after(3):
            await w.nc.with_options(send_deadline=True).request("price")
        assert outcome == [pytest.approx(0.5)]
        (stats,) = w.service.stats().endpoints
        assert (stats.num_requests, stats.num_errors, stats.last_error) == (2, 1, "504:nobody waits any more")
        assert w.told(events.HandlerFailed) == []


async def test_work_that_ends_by_itself_behind_the_deadline_has_not_failed() -> None:
    async def price(request: ServiceRequest) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
            await request.respond(b"late")

    async with open_served() as w:
        await w.serve("price", price, honour_deadline=True)
        w.ask(b"1", headers=NOBODY_WAITS % 1000)
        await trio.sleep(3)
        assert w.responses() == [("1", b"late")]
        assert w.service.stats().endpoints[0].num_errors == 0


async def test_a_request_that_nobody_waits_for_any_more_is_not_handed_over() -> None:
    async with open_served() as w, open_price(w, honour_deadline=True) as rx:
        w.ask(b"1", headers=NOBODY_WAITS % 0)
        w.ask(b"2", headers=NOBODY_WAITS % 1000)
        w.ask(b"3", headers=NOBODY_WAITS % 3000)
        w.ask(b"4")
        await w.nc.flush()
        came = trio.current_time()
        await trio.sleep(2)
        request = await rx.receive()
        assert (request.data, request.deadline) == (b"3", came + 3)
        assert (await rx.receive()).deadline == math.inf
        await w.nc.flush()
        assert w.responses() == []
        (stats,) = w.service.stats().endpoints
        assert (stats.num_requests, stats.num_errors, stats.last_error) == (4, 2, "504:nobody waits any more")


async def test_a_request_that_comes_without_any_time_left_is_not_handed_over() -> None:
    async with open_served() as w, open_price(w, honour_deadline=True) as rx:
        w.ask(b"1", headers=NOBODY_WAITS % 0)
        w.ask(b"2")
        assert (await rx.receive()).data == b"2"


async def test_deadlines_are_looked_at_only_where_that_is_chosen() -> None:
    async with open_served() as w, open_price(w) as rx:
        w.ask(b"1", headers=NOBODY_WAITS % 0)
        assert (await rx.receive()).deadline == math.inf


# -- its end -----------------------------------------------------------------------------------------------------------------


async def test_stopping_hands_over_what_the_server_gave_us_before_it_knew() -> None:
    async with open_served() as w, open_price(w) as rx:
        (subscription,) = [each for each in w.server.subscriptions if each.subject == "price"]
        w.server.mute.add("PING")
        w.ask(b"1")
        rx.stop()
        rx.stop()
        await settled()
        assert subscription not in w.server.subscriptions
        w.server.link.deliver(subscription, "price", "to.2", b"", b"2")
        assert [(await rx.receive()).data for _ in range(2)] == [b"1", b"2"]
        w.server.mute.clear()
        w.server.inject(b"PONG\r\n")
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()
        assert w.service.info().endpoints == []


async def test_without_a_connection_stopping_ends_it_at_once() -> None:
    async with open_served() as w, open_price(w) as rx:
        await lose(w.server, w.nc)
        rx.stop()
        with takes(0), pytest.raises(trio.EndOfChannel):
            await rx.receive()
        await regain(w.server, w.nc)
        assert [each.subject for each in w.server.subscriptions if each.subject == "price"] == []


async def test_leaving_tells_those_who_wait_and_those_on_their_way() -> None:
    async with open_served() as w:
        async with open_price(w):
            (subscription,) = [each for each in w.server.subscriptions if each.subject == "price"]
            w.ask(b"1")
            await w.nc.flush()
            w.server.link.stall(up=True)
        w.server.link.deliver(subscription, "price", "to.2", b"", b"2")
        w.server.link.resume()
        await settled()
        assert w.responses() == [(each, b"503 this endpoint has stopped") for each in ("1", "2")]


async def test_closing_the_client_tells_those_who_wait() -> None:
    async with open_served() as w, open_price(w) as rx:
        w.ask(b"1")
        await w.nc.flush()
        await w.nc.aclose()
        assert w.responses() == [("1", b"503 this endpoint has stopped")]
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()


async def test_a_stopped_service_is_found_no_more_and_takes_no_endpoints() -> None:
    async with open_served() as w:
        await w.serve("price", echo)
        w.service.stop()
        w.service.stop()
        with pytest.raises(errors.NoRespondersError):
            await w.nc.request("$SRV.PING")
        with pytest.raises(errors.NoRespondersError):
            await w.nc.request("price")
        with pytest.raises(ValueError, match="open_endpoint: service 'orders' was stopped"):
            async with open_price(w):
                pytest.fail("it was opened")
        assert w.service.info().endpoints == []


async def test_serve_returns_when_all_that_was_handed_over_is_done() -> None:
    async def price(request: ServiceRequest) -> None:
        await trio.sleep(1)
        await request.respond(request.data)

    async with open_served() as w:
        with takes(2):
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(w.service.serve, "price", price, concurrency=2))
                w.ask(b"1", b"2", b"3", b"4")
                await settled()
                w.service.stop()
        await w.nc.flush()
        assert sorted(w.responses()) == [(each, each.encode()) for each in "1234"]


async def test_one_endpoint_can_be_stopped_by_itself() -> None:
    async with open_served() as w:
        price = await w.serve("price", echo)
        await w.serve("other", echo)
        price.stop()
        assert (await w.nc.request("other", b"x")).data == b"x"
        assert [each.name for each in w.service.info().endpoints] == ["other"]


async def test_a_group_is_asked_stopped_and_reset_by_itself() -> None:
    async with open_served() as w:
        outer = w.service.group("v1")
        inner = outer.group("eu")
        for group in (w.service, outer, inner):
            await w.serve("price", echo, group=group)
        for subject in ("price", "v1.price", "v1.eu.price"):
            await w.nc.request(subject, b"x")
        assert [each.subject for each in outer.info().endpoints] == ["v1.price", "v1.eu.price"]
        assert (inner.id, inner.version, inner.name) == (w.service.id, "1.2.3", "v1.eu")
        assert repr(inner) == "<Group 'v1.eu' of service 'orders'>"
        inner.reset()
        assert [each.num_requests for each in w.service.stats().endpoints] == [1, 1, 0]
        outer.stop()
        await w.nc.flush()
        assert [each.subject for each in w.service.info().endpoints] == ["price"]
        assert isinstance(w.service, Group)


async def test_a_reset_begins_anew() -> None:
    async with open_served() as w:
        await w.serve("price", echo)
        await w.nc.request("price", b"x")
        before = w.service.stats()
        w.service.reset()
        after = w.service.stats()
        assert (before.endpoints[0].num_requests, after.endpoints[0].num_requests) == (1, 0)
        assert before.started is not None
        assert after.started is not None
        assert before.started < after.started


async def test_draining_waits_for_what_is_in_hand_wherever_that_is() -> None:
    async def work(request: ServiceRequest) -> None:
        async with request:
            await trio.sleep(3)
            await request.respond(b"done")

    async def hand_out(rx: BoundedFeed[ServiceRequest]) -> None:
        async for request in rx:
            w.nursery.start_soon(work, request)

    async with open_served() as w, open_price(w) as rx:
        w.nursery.start_soon(hand_out, rx)
        await w.serve("other", hang)
        w.ask(b"1")
        w.ask(b"2", subject="other")
        await settled()
        with takes(5):
            await w.service.drain()
        assert w.responses() == [("1", b"done")]
        with takes(0):
            await w.service.drain()


async def test_a_drain_waits_for_what_was_handed_on_in_the_same_moment() -> None:
    async def work(request: ServiceRequest) -> None:
        async with request:
            await trio.sleep(1)
            await request.respond(b"done")

    async def hand_on(rx: BoundedFeed[ServiceRequest], workers: trio.Nursery) -> None:
        async for request in rx:
            workers.start_soon(work, request)

    # In which order tasks run is up to chance.
    for _ in range(30):
        async with open_served() as w, open_price(w) as rx:
            w.ask(b"1")
            await settled()
            rx.stop()
            await w.nc.flush()
            w.nursery.start_soon(hand_on, rx, w.nursery)
            await w.service.drain()
            assert w.responses() == [("1", b"done")]


async def test_draining_is_bounded_by_a_deadline_and_goes_on_stopping() -> None:
    async with open_served() as w, open_price(w) as rx:
        w.ask(b"1")
        request = await rx.receive()

        async def hold() -> None:
            async with request:
                await trio.sleep(100)

        w.nursery.start_soon(hold)
        await settled()
        with takes(2), trio.move_on_after(2) as scope:
            await w.service.drain()
        assert scope.cancelled_caught
        assert w.service.info().endpoints == []
        w.nursery.cancel_scope.cancel()


async def test_a_handler_may_drain_its_own_service() -> None:
    async def leave(request: ServiceRequest) -> None:
        await w.service.drain()
        await request.respond(b"drained")

    async with open_served() as w:
        await w.serve("leave", leave)
        with takes(0):
            assert (await w.nc.request("leave")).data == b"drained"


async def test_a_drain_that_loses_the_connection_says_that_it_does_not_know() -> None:
    async with open_served() as w:
        await w.serve("price", echo)
        w.server.mute.add("PING")
        outcome = []

        async def drain() -> None:
            try:
                await w.service.drain()
            except errors.DisconnectedError as error:
                outcome.append(error)

        w.service.stop()
        w.server.inject(b"PONG\r\n" * 10)
        await settled()
        w.nursery.start_soon(drain)
        await settled()
        await lose(w.server, w.nc)
        await settled()
        w.server.mute.clear()
        await regain(w.server, w.nc)
        assert outcome


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_draining_the_client_lets_handlers_finish(concurrency: int) -> None:
    async def price(request: ServiceRequest) -> None:
        await trio.sleep(1)
        await request.respond(request.data)

    async with open_served() as w:
        await w.serve("price", price, concurrency=concurrency)
        w.ask(b"1", b"2", b"3")
        await settled()
        await w.nc.drain()
        assert sorted(w.responses()) == [(each, each.encode()) for each in "123"]


async def test_a_service_that_was_stopped_holds_up_no_drain_of_the_client() -> None:
    async with open_served() as w:
        w.service.stop()
        await w.nc.flush()
        with takes(0):
            await w.nc.drain()


async def test_a_service_that_is_stopped_as_the_client_closes_ends_with_it() -> None:
    async with open_served() as w:
        w.service.stop()
        await w.nc.aclose()
        with takes(0), trio.fail_after(1):
            assert await w.service.__questions__.wait_ended() is None


async def test_draining_the_client_waits_for_requests_in_other_hands() -> None:
    async def work(request: ServiceRequest) -> None:
        async with request:
            await trio.sleep(2)
            await request.respond(b"done")

    async def hand_out(rx: BoundedFeed[ServiceRequest]) -> None:
        async for request in rx:
            w.nursery.start_soon(work, request)

    async with open_served() as w, open_price(w) as rx:
        w.nursery.start_soon(hand_out, rx)
        w.ask(b"1", b"2")
        await settled()
        await w.nc.drain()
        assert sorted(w.responses()) == [("1", b"done"), ("2", b"done")]


async def test_a_cancelled_nursery_ends_the_service_and_its_endpoints() -> None:
    async with open_world() as (server, nc, nursery), nursery_elsewhere() as doomed:
        async with open_service(doomed, nc, "orders", "1.0.0") as service, open_endpoint(nursery, service, "a") as rx:
            server.publish("a", b"1", reply="to.1")
            await nc.flush()
            doomed.cancel_scope.cancel()
            assert [request.data async for request in rx] == [b"1"]
            with pytest.raises(errors.NoRespondersError):
                await nc.request("$SRV.PING")


async def test_endpoints_elsewhere_outlive_the_block_of_their_service_only_for_what_was_given_to_them() -> None:
    seen: list[bytes] = []

    async def loop(service: Service, *, task_status: trio.TaskStatus[None]) -> None:
        async with open_endpoint(nursery, service, "a") as rx:
            task_status.started()
            async for request in rx:
                seen.append(request.data)
                await trio.sleep(1)

    async with open_world() as (server, nc, nursery):
        async with open_service(nursery, nc, "orders", "1.0.0") as service:
            await nursery.start(loop, service)
            for payload in (b"1", b"2", b"3"):
                server.publish("a", payload, reply="to.x")
            await settled()
        await trio.sleep(5)
        assert seen == [b"1", b"2", b"3"]
        with pytest.raises(errors.NoRespondersError):
            await nc.request("a")


async def test_after_a_reconnect_each_question_has_one_answer() -> None:
    async with open_served() as w:
        await w.serve("price", echo)
        await lose(w.server, w.nc)
        await regain(w.server, w.nc)
        assert len(await w.nc.request_many("$SRV.PING", stall=1)) == 1
        assert (await w.nc.request("price", b"x")).data == b"x"


# -- what is refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (("a b", "1.0.0"), {}, ValueError, "open_service: name"),
        ((1, "1.0.0"), {}, TypeError, "open_service: name"),
        (("a", "1.0"), {}, ValueError, "open_service: version"),
        (("a", "1.0.0"), {"queue": "a b"}, ValueError, "open_service: queue"),
        (("a", "1.0.0"), {"queue": 7}, TypeError, "open_service: queue"),
        (("a", "1.0.0"), {"description": None}, TypeError, "open_service: description"),
        (("a", "1.0.0"), {"metadata": {"a": 1}}, TypeError, "open_service: metadata"),
    ],
)
async def test_a_service_that_cannot_be_is_refused_before_anything_is_sent(
    arguments: tuple[Any, Any], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    async with open_world() as (server, nc, nursery):
        await nc.flush()
        before = len(server.frames)
        with pytest.raises(error, match=text):
            async with open_service(nursery, nc, *arguments, **options):
                pytest.fail("it was opened")
        assert len(server.frames) == before


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"name": "a.b"}, ValueError, "name 'a.b'"),
        ({"subject": "a b"}, ValueError, "subject: "),
        ({"subject": 7}, TypeError, "subject must be text"),
        ({"queue": "a b"}, ValueError, "queue group"),
        ({"metadata": [1]}, TypeError, "metadata"),
        ({"stats_handler": 7}, TypeError, "stats_handler must be a function"),
        ({"stats_handler": trio.sleep}, TypeError, "stats_handler must be a function that does not wait"),
        ({"pending_msgs_limit": 0}, ValueError, "pending_msgs_limit is 0"),
        ({"pending_msgs_limit": 1.5}, TypeError, "pending_msgs_limit must be a whole number, not float"),
        ({"honour_deadline": 1}, TypeError, "honour_deadline must be True or False, not int"),
        ({"concurrency": 0}, ValueError, "serve: concurrency is 0"),
        ({"concurrency": True}, TypeError, "serve: concurrency must be a whole number, not bool"),
        ({"handler": 7}, TypeError, "serve: handler must be a coroutine function, not int"),
        ({"timeout": 1}, TypeError, "timeout.*: deadlines are cancel scopes"),
    ],
)
async def test_an_endpoint_that_cannot_be_is_refused_before_anything_is_sent(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    async with open_served() as w:
        before = len(w.server.frames)
        given = {"name": "price", "handler": echo, **options}
        with pytest.raises(error, match=text):
            await w.service.serve(**given)
        if not {"concurrency", "handler"} & set(options):
            with pytest.raises(error, match=text):
                async with open_endpoint(w.nursery, w.service, **{"name": "price", **options}):
                    pytest.fail("it was opened")
        assert len(w.server.frames) == before


async def test_an_endpoint_needs_a_service_or_a_group() -> None:
    async with open_served() as w:
        no_service: Any = w.nc
        with pytest.raises(TypeError, match="must be a Service or a Group, not Client"):
            async with open_endpoint(w.nursery, no_service, "price"):
                pytest.fail("it was opened")
        with pytest.raises(ValueError, match="group: name"):
            w.service.group("a.>")
        async with open_price(w, pending_msgs_limit=math.inf) as rx:
            assert rx.subject == "price"


async def test_a_busy_service_lets_others_have_their_turn() -> None:
    async with open_served() as w:
        await w.serve("price", echo, concurrency=1)
        w.ask(*(b"%d" % number for number in range(500)))
        with Turns(lambda task: "serve" in task.name) as turns:
            await settled()
        assert len(w.responses()) == 500
        assert turns.count >= 500 / 64
