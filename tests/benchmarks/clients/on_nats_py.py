"""nats-py under asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import nats
from nats.aio.msg import Msg
from nats.errors import Error

from tests.benchmarks.measuring import BUCKET, PATIENCE, Clock, Job, content, drive, fingerprint
from tests.benchmarks.peer import CREDIT, CREDIT_SUBJECT, DATA, ECHO, FEED

if TYPE_CHECKING:
    from nats.aio.client import Client


async def subscribe_callback(nc: Client, job: Job, clock: Clock) -> None:
    goal = 0
    finished = asyncio.Event()

    async def callback(_: Msg) -> None:
        clock.done = done = clock.done + 1
        if done % CREDIT == 0:
            await nc.publish(CREDIT_SUBJECT, b"")
        if done == goal:
            clock.stop()
            finished.set()

    await nc.subscribe(DATA, cb=callback)
    await nc.flush()
    for goal in job.rounds:
        finished.clear()
        clock.start()
        await nc.publish(FEED, job.feed(goal))
        await finished.wait()


async def subscribe_iterate(nc: Client, job: Job, clock: Clock) -> None:
    subscription = await nc.subscribe(DATA)
    await nc.flush()
    for goal in job.rounds:
        clock.start()
        await nc.publish(FEED, job.feed(goal))
        async for _ in subscription.messages:
            clock.done = done = clock.done + 1
            if done % CREDIT == 0:
                await nc.publish(CREDIT_SUBJECT, b"")
            if done == goal:
                break
        clock.stop()


async def publish(nc: Client, job: Job, clock: Clock) -> None:
    payload = job.payload
    for goal in job.rounds:
        clock.start()
        for _ in range(goal):
            await nc.publish("bench.nobody", payload)
        await nc.flush()
        clock.stop()
        clock.done = goal


async def request(nc: Client, job: Job, clock: Clock) -> None:
    payload = job.payload
    for goal in job.rounds:
        clock.start()
        for _ in range(goal):
            await nc.request(ECHO, payload, timeout=PATIENCE)
            clock.done += 1
        clock.stop()


async def concurrent(nc: Client, job: Job, clock: Clock) -> None:
    payload = job.payload

    async def worker(share: int) -> None:
        for _ in range(share):
            await nc.request(ECHO, payload, timeout=PATIENCE)
            clock.done += 1

    for goal in job.rounds:
        clock.start()
        await asyncio.gather(*(worker(goal // job.workers) for _ in range(job.workers)))
        clock.stop()


async def put(nc: Client, job: Job, clock: Clock) -> None:
    store = await nc.jetstream().object_store(BUCKET)
    await store.put(f"warm-{job.name}", content(job.object_size // 16))
    data = content(job.object_size)
    clock.start()
    info = await store.put(job.name, data)
    clock.stop()
    clock.done = int(info.size == len(data))


async def get(nc: Client, job: Job, clock: Clock) -> None:
    store = await nc.jetstream().object_store(BUCKET)
    await store.get("warm")
    clock.start()
    result = await store.get("object")
    clock.stop()
    clock.done = int(fingerprint(result.data or b"") == fingerprint(content(job.object_size)))


SCENARIOS = {
    "subscribe": subscribe_iterate,
    "subscribe-callback": subscribe_callback,
    "publish": publish,
    "request": request,
    "concurrent": concurrent,
    "put": put,
    "get": get,
}


async def main(job: Job, clock: Clock) -> None:
    nc = await nats.connect(job.url, name=job.name)
    try:
        async with asyncio.timeout(PATIENCE):
            await SCENARIOS[job.scenario](nc, job, clock)
    except TimeoutError:
        clock.stop()
    try:
        await nc.close()
    except Error:
        clock.stop()


if __name__ == "__main__":
    drive(lambda job, clock: asyncio.run(main(job, clock)))
