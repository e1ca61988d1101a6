"""nats-py under asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import nats
from nats import micro
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js import JetStreamContext
from nats.micro.service import EndpointConfig

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
    await receive(nc, job, clock, (await nc.subscribe(DATA)).messages)


async def request_patiently(nc: Client, job: Job, clock: Clock) -> None:
    await request(nc, job, clock, PATIENCE)


async def concurrent(nc: Client, job: Job, clock: Clock) -> None:
    for goal in job.rounds:
        clock.start()
        await asyncio.gather(*(work(nc, job, clock, goal // job.workers, PATIENCE) for _ in range(job.workers)))
        clock.stop()


async def pull(nc: Client, job: Job) -> JetStreamContext.PullSubscription:
    return await nc.jetstream().pull_subscribe(STORED, durable=job.name, stream=STORED)


async def fetch_and_ack(nc: Client, job: Job, clock: Clock) -> None:
    subscription = await pull(nc, job)
    await fetch(nc, job, clock, subscription.fetch)


async def consume_pushed(nc: Client, job: Job, clock: Clock) -> None:
    subscription = await nc.jetstream().subscribe(STORED, durable=job.name, stream=STORED, manual_ack=True)
    await consume(nc, job, clock, subscription.messages)


async def publish_pipelined(nc: Client, job: Job, clock: Clock) -> None:
    payload, js = job.payload, nc.jetstream()
    for goal in job.rounds:
        clock.start()
        for _ in range(goal):
            await js.publish_async(f"{STREAM}.a", payload)
        await js.publish_async_completed()
        clock.stop()
        clock.done = goal


async def service(nc: Client, job: Job, clock: Clock) -> None:
    served = await micro.add_service(nc, name="bench", version="1.0.0")
    await served.add_endpoint(EndpointConfig(name="served", subject=SERVED, handler=respond))
    await nc.flush()
    await be_asked(nc, job, clock, PATIENCE)
    await served.stop()


async def snapshot(nc: Client, job: Job, clock: Clock) -> None:
    kv = await nc.jetstream().key_value(KEYS)

    async def read(keys: str) -> list[Any]:
        entries = []
        watcher = await kv.watch(keys)
        async for entry in watcher:
            if entry is None:
                break
            entries.append(entry)
        await watcher.stop()  # type: ignore[no-untyped-call]
        return entries

    await snapshot_with(read, job, clock)


SCENARIOS = {
    "subscribe": subscribe_iterate,
    "subscribe-callback": subscribe_callback,
    "publish": publish,
    "request": request_patiently,
    # Nothing of its own feeds a loop from a pull consumer: one fetches again and again, or lets the server push.
    "consume": fetch_and_ack,
    "consume-pushed": consume_pushed,
    "fetch": fetch_and_ack,
    "concurrent": concurrent,
    "put": put,
    "get": get,
    "publish_pipelined": publish_pipelined,
    "kv_get": kv_get,
    "kv_put": kv_put,
    "service": service,
    "snapshot": snapshot,
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
