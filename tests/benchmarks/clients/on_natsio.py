"""natsio, the fastest of the asyncio clients."""

from __future__ import annotations

import asyncio
from typing import Any

import natsio  # type: ignore[import-not-found,unused-ignore]

from tests.benchmarks.measuring import BUCKET, PATIENCE, Clock, Job, content, drive, fingerprint
from tests.benchmarks.peer import CREDIT, CREDIT_SUBJECT, DATA, ECHO, FEED


async def subscribe(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401 - natsio is not there for the type checker
    subscription = nc.subscribe(DATA)
    await nc.flush()
    for goal in job.rounds:
        clock.start()
        await nc.publish(FEED, job.feed(goal))
        async for _ in subscription:
            clock.done = done = clock.done + 1
            if done % CREDIT == 0:
                await nc.publish(CREDIT_SUBJECT, b"")
            if done == goal:
                break
        clock.stop()


async def publish(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    payload = job.payload
    for goal in job.rounds:
        clock.start()
        for _ in range(goal):
            await nc.publish("bench.nobody", payload)
        await nc.flush()
        clock.stop()
        clock.done = goal


async def request(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    payload = job.payload
    for goal in job.rounds:
        clock.start()
        for _ in range(goal):
            await nc.request(ECHO, payload)
            clock.done += 1
        clock.stop()


async def concurrent(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    payload = job.payload

    async def worker(share: int) -> None:
        for _ in range(share):
            await nc.request(ECHO, payload)
            clock.done += 1

    for goal in job.rounds:
        clock.start()
        await asyncio.gather(*(worker(goal // job.workers) for _ in range(job.workers)))
        clock.stop()


async def put(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    store = await nc.jetstream().object_store(BUCKET)
    await store.put(f"warm-{job.name}", content(job.object_size // 16))
    data = content(job.object_size)
    clock.start()
    info = await store.put(job.name, data)
    clock.stop()
    clock.done = int(info.size == len(data))


async def get(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    store = await nc.jetstream().object_store(BUCKET)
    await store.get_bytes("warm")
    clock.start()
    data = await store.get_bytes("object")
    clock.stop()
    clock.done = int(fingerprint(data) == fingerprint(content(job.object_size)))


SCENARIOS = {
    "subscribe": subscribe,
    "publish": publish,
    "request": request,
    "concurrent": concurrent,
    "put": put,
    "get": get,
}


async def main(job: Job, clock: Clock) -> None:
    nc = await natsio.connect(job.url, name=job.name)
    try:
        async with asyncio.timeout(PATIENCE):
            await SCENARIOS[job.scenario](nc, job, clock)
    except TimeoutError:
        clock.stop()
    await nc.close()


if __name__ == "__main__":
    drive(lambda job, clock: asyncio.run(main(job, clock)))
