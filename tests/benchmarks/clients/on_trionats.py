"""trionats."""

from __future__ import annotations

import trio

import trionats
from tests.benchmarks.measuring import BUCKET, PATIENCE, Clock, Job, content, drive, fingerprint
from tests.benchmarks.peer import CREDIT, CREDIT_SUBJECT, DATA, ECHO, FEED


async def subscribe(nc: trionats.Client, job: Job, clock: Clock) -> None:
    async with trio.open_nursery() as nursery, trionats.open_subscription(nursery, nc, DATA) as rx:
        await nc.flush()
        for goal in job.rounds:
            clock.start()
            await nc.publish(FEED, job.feed(goal))
            async for _ in rx:
                clock.done = done = clock.done + 1
                if done % CREDIT == 0:
                    await nc.publish(CREDIT_SUBJECT, b"")
                if done == goal:
                    break
            clock.stop()


async def pool(nc: trionats.Client, job: Job, clock: Clock) -> None:
    receivers = int(job.scenario.rpartition("-")[2])
    counted = 0

    async def receive(rx: trionats.Subscription) -> None:
        nonlocal counted
        async for _ in rx:
            counted += 1
            if counted % CREDIT == 0:
                await nc.publish(CREDIT_SUBJECT, b"")
            if counted == goal:
                over.set()
            await trio.lowlevel.checkpoint()

    async with (
        trio.open_nursery() as nursery,
        trionats.open_subscription(nursery, nc, DATA) as rx,
        trio.open_nursery() as workers,
    ):
        await nc.flush()
        for _ in range(receivers):
            workers.start_soon(receive, rx)
        for goal in job.rounds:
            counted, over = 0, trio.Event()
            clock.start()
            await nc.publish(FEED, job.feed(goal))
            await over.wait()
            clock.stop()
            clock.done = goal
        workers.cancel_scope.cancel()


async def publish(nc: trionats.Client, job: Job, clock: Clock) -> None:
    payload = job.payload
    for goal in job.rounds:
        clock.start()
        for _ in range(goal):
            await nc.publish("bench.nobody", payload)
        await nc.flush()
        clock.stop()
        clock.done = goal


async def request(nc: trionats.Client, job: Job, clock: Clock) -> None:
    payload = job.payload
    for goal in job.rounds:
        clock.start()
        for _ in range(goal):
            await nc.request(ECHO, payload)
            clock.done += 1
        clock.stop()


async def concurrent(nc: trionats.Client, job: Job, clock: Clock) -> None:
    payload = job.payload

    async def worker(share: int) -> None:
        for _ in range(share):
            await nc.request(ECHO, payload)
            clock.done += 1

    for goal in job.rounds:
        clock.start()
        async with trio.open_nursery() as nursery:
            for _ in range(job.workers):
                nursery.start_soon(worker, goal // job.workers)
        clock.stop()


async def put(nc: trionats.Client, job: Job, clock: Clock) -> None:
    store = await nc.jetstream().object_store(BUCKET)
    await store.put(f"warm-{job.name}", content(job.object_size // 16))
    data = content(job.object_size)
    clock.start()
    info = await store.put(job.name, data)
    clock.stop()
    clock.done = int(info.size == len(data))


async def get(nc: trionats.Client, job: Job, clock: Clock) -> None:
    store = await nc.jetstream().object_store(BUCKET)
    await store.get("warm")
    clock.start()
    result = await store.get("object")
    clock.stop()
    clock.done = int(fingerprint(result.data) == fingerprint(content(job.object_size)))


SCENARIOS = {
    "subscribe": subscribe,
    "publish": publish,
    "request": request,
    "concurrent": concurrent,
    "put": put,
    "get": get,
    "pool-10": pool,
    "pool-1000": pool,
}


async def main(job: Job, clock: Clock) -> None:
    async with trio.open_nursery() as nursery, trionats.open_client(nursery, job.url, name=job.name) as nc:
        # No deadline in force around each operation: with one, requests have none of their own, and that is cheaper.
        with trio.move_on_after(PATIENCE) if job.scenario.startswith(("subscribe", "pool")) else trio.CancelScope():
            await SCENARIOS[job.scenario](nc, job, clock)
        clock.stop()


if __name__ == "__main__":
    drive(lambda job, clock: trio.run(main, job, clock))
