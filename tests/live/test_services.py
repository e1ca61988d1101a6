"""Services on a real server: what it lists, what it routes, and that no request is lost when one stops."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from tests.worlds import connected, open_live, open_world, reconnected, unique, until
from trionats import BoundedFeed, Client, Group, ServiceRequest, errors, open_endpoint, open_service
from trionats.testing import TrioNatsServer

pytestmark = pytest.mark.usefixtures("server_executable")

Handler = Callable[[ServiceRequest], Awaitable[object]]


async def echo(request: ServiceRequest) -> None:
    await request.respond(request.data)


async def keep(nc: Client, name: str, subject: str, handler: Handler, task_status: trio.TaskStatus[Group]) -> None:
    """Run a service of one endpoint until it is stopped."""
    async with (
        trio.open_nursery() as nursery,
        open_service(nursery, nc, name, "1.0.0") as service,
        trio.open_nursery() as workers,
    ):
        await workers.start(partial(service.serve, "work", handler, subject=subject, concurrency=10))
        task_status.started(service)


async def test_the_server_lists_what_an_open_service_has_and_nothing_of_one_that_was_left(
    nats_server: TrioNatsServer,
) -> None:
    name, client = unique("svc"), unique("client")
    async with open_world(nats_server, name=client) as (_, nc, nursery):
        async with open_service(nursery, nc, name, "1.0.0") as service:
            asked = [f"$SRV.{verb}{level}" for verb in ("PING", "INFO", "STATS") for level in ("", f".{name}")]
            there = await nats_server.subscriptions(client)
            assert [subject for subject in there if subject in asked] == sorted(asked)
            assert len(there) == 9
            async with open_endpoint(nursery, service, name):
                assert name in await nats_server.subscriptions(client)
        await nc.flush()
        assert await nats_server.subscriptions(client) == []


async def test_stopping_ends_all_of_ten_endpoints_and_the_nursery_that_serves_them(nats_server: TrioNatsServer) -> None:
    client = unique("client")
    seen: list[bytes] = []

    async def loop(group: Group, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with open_endpoint(nursery, group, f"loop{number}") as rx:
            task_status.started()
            async for request in rx:
                seen.append(request.data)
                await request.respond()

    async with open_world(nats_server, name=client) as (_, nc, nursery):
        async with open_service(nursery, nc, unique("svc"), "1.0.0") as service, trio.open_nursery() as workers:
            group = service.group(client)
            for number in range(5):
                await workers.start(loop, group, number)
                await workers.start(partial(group.serve, f"serve{number}", echo, concurrency=3))
                await nc.request(f"{client}.loop{number}", b"x")
            assert len(await nats_server.subscriptions(client)) == 9 + 10 + 1  # and the inbox
            service.stop()
        await nc.flush()
        left = await nats_server.subscriptions(client)
        assert [subject for subject in left if not subject.startswith("_INBOX.")] == []
        assert seen == [b"x"] * 5


async def test_a_refused_endpoint_is_an_error_of_its_opening_with_a_queue_group_too() -> None:
    users = """authorization { users = [{user: u, password: p, permissions: {
        publish: ">", subscribe: {allow: ["$SRV.>", "_INBOX.>", "fine"]}
    }}] }"""
    async with open_live(users, user="u", password="p") as (_, nc, nursery):
        async with open_service(nursery, nc, "svc", "1.0.0") as service:
            for queue in ("", "q"):
                with pytest.raises(errors.PermissionsViolationError, match="secret"):
                    await service.serve("secret", echo, queue=queue)
            async with open_endpoint(nursery, service, "fine"):
                assert [each.name for each in service.info().endpoints] == ["fine"]


async def test_a_service_that_may_not_be_asked_is_an_error_of_its_opening() -> None:
    users = """authorization { users = [{user: u, password: p, permissions: {
        publish: ">", subscribe: {allow: ["$SRV.PING.>", "_INBOX.>"]}
    }}] }"""
    async with open_live(users, user="u", password="p") as (_, nc, nursery):
        with pytest.raises(errors.PermissionsViolationError, match=r"service 'svc'.*SRV"):
            async with open_service(nursery, nc, "svc", "1.0.0"):
                pytest.fail("it was opened")
        assert (await nc.rtt()) > 0


async def test_every_request_is_answered_while_instances_come_and_go(nats_server: TrioNatsServer) -> None:
    """Two at least are there at any time; each is stopped while requests are on their way to it."""
    subject, outcome = unique("work"), Counter[str]()

    async def work(request: ServiceRequest) -> None:
        await trio.sleep(0.002)
        await request.respond(request.data)

    async def hammer(nc: Client) -> None:
        while not over.is_set():
            response = await nc.request(subject, b"x")
            outcome["errors" if "Nats-Service-Error" in response.headers else "answers"] += 1

    over = trio.Event()
    async with (
        connected(nats_server) as one,
        connected(nats_server) as other,
        connected(nats_server) as asking,
        trio.open_nursery() as tasks,
    ):
        services = [await tasks.start(keep, nc, "work", subject, work) for nc in (one, other, one)]
        async with trio.open_nursery() as hammers:
            for _ in range(40):
                hammers.start_soon(hammer, asking)
            for turn in range(30):
                await trio.sleep(0.02)
                services.pop(0).stop()
                services.append(await tasks.start(keep, (one, other)[turn % 2], "work", subject, work))
            over.set()
        for service in services:
            service.stop()
    assert outcome["errors"] == 0
    assert outcome["answers"] > 100


async def test_stopped_under_load_what_was_given_to_it_is_answered_and_nobody_else_waits(
    nats_server: TrioNatsServer,
) -> None:
    subject, outcome = unique("work"), Counter[str]()

    async def ask(nc: Client) -> None:
        while True:
            try:
                await nc.request(subject, b"x")
            except errors.NoRespondersError:
                outcome["nobody"] += 1
                return
            outcome["answered"] += 1

    async with connected(nats_server) as serving, connected(nats_server) as asking, trio.open_nursery() as tasks:
        service = await tasks.start(keep, serving, "work", subject, echo)
        with trio.fail_after(4):
            async with trio.open_nursery() as hammers:
                for _ in range(100):
                    hammers.start_soon(ask, asking)
                await until(lambda: outcome["answered"] > 500)
                await service.drain()
        assert outcome["nobody"] == 100


async def test_after_a_restart_of_the_server_each_instance_answers_once() -> None:
    async with open_live(reconnect_time_wait=0.05) as (server, nc, nursery):
        async with open_service(nursery, nc, "a", "1.0.0") as one, open_service(nursery, nc, "a", "1.0.0") as other:
            await server.restart()
            await reconnected(nc)
            found = await nc.request_many("$SRV.PING", stall=0.3)
            assert sorted(json.loads(each.data)["id"] for each in found) == sorted([one.id, other.id])


async def test_a_deadline_travels_and_stops_the_work_at_the_other_end(nats_server: TrioNatsServer) -> None:
    subject, stopped = unique("work"), trio.Event()

    async def work(_: ServiceRequest) -> None:
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()

    async with connected(nats_server) as asking, open_world(nats_server) as (_, nc, nursery):
        async with open_service(nursery, nc, unique("svc"), "1.0.0") as service, trio.open_nursery() as workers:
            await workers.start(partial(service.serve, "work", work, subject=subject, honour_deadline=True))
            with trio.move_on_after(0.2):
                await asking.with_options(send_deadline=True).request(subject)
            with trio.fail_after(2):
                await stopped.wait()
            (stats,) = service.stats().endpoints
            assert stats.num_errors == 1
            assert stats.last_error.startswith("504:")
            service.stop()


async def test_without_a_queue_group_every_instance_is_given_every_request(nats_server: TrioNatsServer) -> None:
    subject = unique("work")
    async with open_world(nats_server) as (_, nc, nursery):
        async with (
            open_service(nursery, nc, "a", "1.0.0", queue="") as one,
            open_service(nursery, nc, "b", "1.0.0") as other,
            open_endpoint(nursery, one, "work", subject=subject) as first,
            open_endpoint(nursery, other, "work", subject=subject) as second,
            open_endpoint(nursery, other, "again", subject=subject) as third,
        ):
            for _ in range(20):
                await nc.publish(subject, b"x")
            await nc.flush()

            def count(rx: BoundedFeed[ServiceRequest]) -> int:
                return rx.statistics().delivered

            assert count(first) == 20
            assert count(second) + count(third) == 20
