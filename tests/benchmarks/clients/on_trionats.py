"""trionats."""

from __future__ import annotations

from functools import partial

import trio

import trionats
from tests.benchmarks.clients.alike import (
    be_asked,
    consume,
    fetch,
    get,
    kv_get,
    kv_put,
    publish,
    put,
    receive,
    request,
    respond,
    snapshot_with,
    work,
)
from tests.benchmarks.measuring import KEYS, PATIENCE, STORED, STREAM, Clock, Job, drive
from tests.benchmarks.peer import CREDIT, CREDIT_SUBJECT, DATA, FEED, SERVED


async def subscribe(nc: trionats.Client, job: Job, clock: Clock) -> None:
    async with trio.open_nursery() as nursery, trionats.open_subscription(nursery, nc, DATA) as rx:
        await receive(nc, job, clock, rx)


async def pool(nc: trionats.Client, job: Job, clock: Clock) -> None:
    receivers = int(job.scenario.rpartition("-")[2])
    counted = 0

    async def take(rx: trionats.Subscription) -> None:
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
            workers.start_soon(take, rx)
        for goal in job.rounds:
            counted, over = 0, trio.Event()
            clock.start()
            await nc.publish(FEED, job.feed(goal))
            await over.wait()
            clock.stop()
            clock.done = goal
        workers.cancel_scope.cancel()


async def concurrent(nc: trionats.Client, job: Job, clock: Clock) -> None:
    for goal in job.rounds:
        clock.start()
        async with trio.open_nursery() as nursery:
            for _ in range(job.workers):
                nursery.start_soon(work, nc, job, clock, goal // job.workers)
        clock.stop()


async def consumer(nc: trionats.Client, job: Job) -> trionats.Consumer:
    return await nc.jetstream().create_consumer(
        STORED, durable_name=job.name, filter_subject=STORED, ack_policy="explicit"
    )


async def consume_and_ack(nc: trionats.Client, job: Job, clock: Clock) -> None:
    reading = await consumer(nc, job)
    async with trio.open_nursery() as nursery, trionats.open_consumer(nursery, reading) as rx:
        await consume(nc, job, clock, rx)


async def fetch_and_ack(nc: trionats.Client, job: Job, clock: Clock) -> None:
    await fetch(nc, job, clock, (await consumer(nc, job)).fetch)


async def publish_pipelined(nc: trionats.Client, job: Job, clock: Clock) -> None:
    payload, js = job.payload, nc.jetstream()
    async with trio.open_nursery() as nursery:
        for goal in job.rounds:
            clock.start()
            async with trionats.open_publisher(nursery, js) as publisher:
                for _ in range(goal):
                    await publisher.publish(f"{STREAM}.a", payload)
            clock.stop()
            clock.done = goal


async def ingest(nc: trionats.Client, job: Job, clock: Clock) -> None:
    payload, js = job.payload, nc.jetstream()
    async with trio.open_nursery() as nursery:
        for goal in job.rounds:
            clock.start()
            async with trionats.open_ingest(nursery, js) as ingest:
                for _ in range(goal):
                    await ingest.publish(f"{STREAM}.a", payload)
            clock.stop()
            clock.done = 0 if ingest.ack is None else ingest.ack.count or 0


async def service(nc: trionats.Client, job: Job, clock: Clock) -> None:
    async with (
        trio.open_nursery() as nursery,
        trionats.open_service(nursery, nc, "bench", "1.0.0") as served,
        trio.open_nursery() as workers,
    ):
        await workers.start(partial(served.serve, "served", respond, subject=SERVED, concurrency=job.workers))
        await be_asked(nc.with_options(request_timeout=PATIENCE), job, clock)
        served.stop()


async def snapshot(nc: trionats.Client, job: Job, clock: Clock) -> None:
    kv = await nc.jetstream().key_value(KEYS)

    async with trio.open_nursery() as nursery:

        async def read(keys: str) -> list[trionats.api.KeyValueEntry]:
            async with trionats.open_watcher(nursery, kv, keys=keys) as rx:
                return await rx.snapshot()

        await snapshot_with(read, job, clock)


SCENARIOS = {
    "subscribe": subscribe,
    "publish": publish,
    "request": request,
    "consume": consume_and_ack,
    "fetch": fetch_and_ack,
    "concurrent": concurrent,
    "put": put,
    "get": get,
    "publish_pipelined": publish_pipelined,
    "ingest": ingest,
    "kv_get": kv_get,
    "kv_put": kv_put,
    "service": service,
    "snapshot": snapshot,
    "pool-10": pool,
    "pool-1000": pool,
}


async def main(job: Job, clock: Clock) -> None:
    async with trio.open_nursery() as nursery, trionats.open_client(nursery, job.url, name=job.name) as nc:
        # No deadline in force around each operation: with one, requests have none of their own, and that is cheaper.
        with (
            trio.move_on_after(PATIENCE)
            if job.scenario.startswith(("subscribe", "pool", "consume"))
            else trio.CancelScope()
        ):
            await SCENARIOS[job.scenario](nc, job, clock)
        clock.stop()


if __name__ == "__main__":
    drive(lambda job, clock: trio.run(main, job, clock))
