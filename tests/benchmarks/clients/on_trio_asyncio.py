"""nats-py under trio-asyncio, as a Trio program calls it."""

from __future__ import annotations

import nats
import trio
import trio_asyncio  # type: ignore[import-untyped]
from nats.aio.client import Client
from trio_asyncio import aio_as_trio

from tests.benchmarks.clients.alike import get_with, put_with
from tests.benchmarks.measuring import BUCKET, PATIENCE, Clock, Job, drive
from tests.benchmarks.peer import CREDIT, CREDIT_SUBJECT, DATA, ECHO, FEED


async def subscribe(nc: Client, job: Job, clock: Clock) -> None:
    subscription = await aio_as_trio(nc.subscribe)(DATA)
    await aio_as_trio(nc.flush)()
    messages = aio_as_trio(subscription.messages)
    for goal in job.rounds:
        clock.start()
        await aio_as_trio(nc.publish)(FEED, job.feed(goal))
        async for _ in messages:
            clock.done = done = clock.done + 1
            if done % CREDIT == 0:
                await aio_as_trio(nc.publish)(CREDIT_SUBJECT, b"")
            if done == goal:
                break
        clock.stop()


async def publish(nc: Client, job: Job, clock: Clock) -> None:
    payload = job.payload
    for goal in job.rounds:
        clock.start()
        for _ in range(goal):
            await aio_as_trio(nc.publish)("bench.nobody", payload)
        await aio_as_trio(nc.flush)()
        clock.stop()
        clock.done = goal


async def work(nc: Client, job: Job, clock: Clock, share: int) -> None:
    payload = job.payload
    for _ in range(share):
        await aio_as_trio(nc.request)(ECHO, payload, timeout=PATIENCE)
        clock.done += 1


async def request(nc: Client, job: Job, clock: Clock) -> None:
    for goal in job.rounds:
        clock.start()
        await work(nc, job, clock, goal)
        clock.stop()


async def concurrent(nc: Client, job: Job, clock: Clock) -> None:
    for goal in job.rounds:
        clock.start()
        async with trio.open_nursery() as nursery:
            for _ in range(job.workers):
                nursery.start_soon(work, nc, job, clock, goal // job.workers)
        clock.stop()


async def put(nc: Client, job: Job, clock: Clock) -> None:
    store = await aio_as_trio(nc.jetstream().object_store)(BUCKET)
    await put_with(aio_as_trio(store.put), job, clock)


async def get(nc: Client, job: Job, clock: Clock) -> None:
    store = await aio_as_trio(nc.jetstream().object_store)(BUCKET)
    await get_with(aio_as_trio(store.get), job, clock)


SCENARIOS = {
    "subscribe": subscribe,
    "publish": publish,
    "request": request,
    "concurrent": concurrent,
    "put": put,
    "get": get,
}


async def main(job: Job, clock: Clock) -> None:
    async with trio_asyncio.open_loop():
        nc = await aio_as_trio(nats.connect)(job.url, name=job.name)
        with trio.move_on_after(PATIENCE):
            await SCENARIOS[job.scenario](nc, job, clock)
        clock.stop()
        await aio_as_trio(nc.close)()


if __name__ == "__main__":
    drive(lambda job, clock: trio.run(main, job, clock))
