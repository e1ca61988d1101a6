"""natsio, the fastest of the asyncio clients."""

from __future__ import annotations

import asyncio
import importlib
from functools import partial
from typing import Any

import natsio  # type: ignore[import-not-found,unused-ignore]
from natsio.jetstream import ConsumerConfig  # type: ignore[import-not-found,unused-ignore]
from natsio.micro import add_service  # type: ignore[import-not-found,unused-ignore]

from tests.benchmarks.clients.alike import (
    be_asked,
    consume,
    fetch,
    get_with,
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
from tests.benchmarks.measuring import BUCKET, KEYS, PATIENCE, STORED, STREAM, Clock, Job, drive
from tests.benchmarks.peer import DATA, SERVED


async def subscribe(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401 - natsio is not there for the type checker
    await receive(nc, job, clock, nc.subscribe(DATA))


async def concurrent(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    for goal in job.rounds:
        clock.start()
        await asyncio.gather(*(work(nc, job, clock, goal // job.workers) for _ in range(job.workers)))
        clock.stop()


async def get(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    await get_with((await nc.jetstream().object_store(BUCKET)).get_bytes, job, clock)


async def consumer(nc: Any, job: Job) -> Any:  # noqa: ANN401
    config = ConsumerConfig(durable_name=job.name, filter_subject=STORED)
    return await (await nc.jetstream().stream(STORED)).create_consumer(config)


async def consume_and_ack(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    async with (await consumer(nc, job)).consume() as messages:
        await consume(nc, job, clock, messages)


async def fetch_and_ack(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    await fetch(nc, job, clock, (await consumer(nc, job)).fetch)


async def publish_pipelined(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    payload, js = job.payload, nc.jetstream()
    for goal in job.rounds:
        clock.start()
        for _ in range(goal):
            await js.publish_async(f"{STREAM}.a", payload)
        await js.publish_async_complete()
        clock.stop()
        clock.done = goal


async def ingest(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    batches = importlib.import_module("natsio.jetstream_batch")
    payload, js = job.payload, nc.jetstream()
    for goal in job.rounds:
        clock.start()
        async with batches.fast_publisher(js) as publisher:
            for _ in range(goal - 1):
                await publisher.add(f"{STREAM}.a", payload)
            ack = await publisher.commit(f"{STREAM}.a", payload)
        clock.stop()
        clock.done = ack.size


class Patient:
    """A client that waits for as long as a run may last."""

    def __init__(self, nc: Any) -> None:  # noqa: ANN401
        self.request = partial(nc.request, timeout=PATIENCE)


async def service(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    async with add_service(nc, name="bench", version="1.0.0") as served:
        served.add_endpoint("served", respond, subject=SERVED)
        await nc.flush()
        await be_asked(Patient(nc), job, clock)


async def snapshot(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401
    kv = await nc.jetstream().key_value(KEYS)

    async def read(keys: str) -> list[Any]:
        entries: list[Any] = []
        async with kv.watch(keys) as watcher:
            async for entry in watcher:
                if entry is None:
                    break
                entries.append(entry)
        return entries

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
