"""The scenarios that read the same with several clients, so that what is measured differs in the client alone.

Calls go to the client itself: nothing of ours stands between it and its user while the clock runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any

from tests.benchmarks.measuring import BATCH, BUCKET, KEYS, WRITTEN, Clock, Job, content, fingerprint
from tests.benchmarks.peer import ASK, CREDIT, CREDIT_SUBJECT, ECHO, FEED


async def receive(nc: Any, job: Job, clock: Clock, messages: AsyncIterable[object]) -> None:  # noqa: ANN401 - any client
    await nc.flush()
    for goal in job.rounds:
        clock.start()
        await nc.publish(FEED, job.feed(goal))
        async for _ in messages:
            clock.done = done = clock.done + 1
            if done % CREDIT == 0:
                await nc.publish(CREDIT_SUBJECT, b"")
            if done == goal:
                break
        clock.stop()


async def publish(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401 - any client
    payload = job.payload
    for goal in job.rounds:
        clock.start()
        for _ in range(goal):
            await nc.publish("bench.nobody", payload)
        await nc.flush()
        clock.stop()
        clock.done = goal


async def request(nc: Any, job: Job, clock: Clock, *how: object) -> None:  # noqa: ANN401 - any client
    for goal in job.rounds:
        clock.start()
        await work(nc, job, clock, goal, *how)
        clock.stop()


async def work(nc: Any, job: Job, clock: Clock, share: int, *how: object) -> None:  # noqa: ANN401 - any client
    """Do so many requests: all of them, or one worker's share."""
    payload = job.payload
    for _ in range(share):
        await nc.request(ECHO, payload, *how)
        clock.done += 1


async def be_asked(nc: Any, job: Job, clock: Clock, *how: object) -> None:  # noqa: ANN401 - any client
    """Let the peer make requests to a service that runs."""
    for goal in job.rounds:
        clock.start()
        response = await nc.request(ASK, job.feed(goal), *how)
        clock.stop()
        clock.done = int(response.data)


async def respond(request: Any) -> None:  # noqa: ANN401 - any client's
    """What all services do."""
    await request.respond(request.data)


async def put(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401 - any client
    await put_with((await nc.jetstream().object_store(BUCKET)).put, job, clock)


async def put_with(put_one: Callable[[str, bytes], Awaitable[Any]], job: Job, clock: Clock) -> None:
    await put_one(f"warm-{job.name}", content(job.object_size // 16))
    data = content(job.object_size)
    clock.start()
    info = await put_one(job.name, data)
    clock.stop()
    clock.done = int(info.size == len(data))


async def get(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401 - any client
    await get_with((await nc.jetstream().object_store(BUCKET)).get, job, clock)


async def get_with(get_one: Callable[[str], Awaitable[Any]], job: Job, clock: Clock) -> None:
    await get_one("warm")
    clock.start()
    result = await get_one("object")
    clock.stop()
    clock.done = int(fingerprint(getattr(result, "data", result) or b"") == fingerprint(content(job.object_size)))


async def kv_get(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401 - any client
    get_one = (await nc.jetstream().key_value(KEYS)).get
    payload = job.payload
    for goal in job.rounds:
        clock.start()
        for number in range(goal):
            entry = await get_one(f"key.{number}")
            clock.done += entry.value == payload
        clock.stop()


async def kv_put(nc: Any, job: Job, clock: Clock) -> None:  # noqa: ANN401 - any client
    put_one = (await nc.jetstream().key_value(WRITTEN)).put
    payload = job.payload
    for goal in job.rounds:
        clock.start()
        for number in range(goal):
            await put_one(f"key.{number}", payload)
            clock.done += 1
        clock.stop()


async def snapshot_with(read: Callable[[str], Awaitable[list[Any]]], job: Job, clock: Clock) -> None:
    """Read all keys that match, until the client says that these were all, into a list of entries."""
    for keys in ("warm.>", "key.>"):
        clock.start()
        entries = await read(keys)
        clock.stop()
    clock.done = len({entry.key for entry in entries if entry.value == job.payload})


async def consume(nc: Any, job: Job, clock: Clock, messages: AsyncIterable[Any]) -> None:  # noqa: ANN401 - any client
    """Acknowledge each message as it comes."""
    for goal in job.rounds:
        clock.start()
        async for msg in messages:
            await msg.ack()
            clock.done = done = clock.done + 1
            if done == goal:
                break
        await nc.flush()
        clock.stop()


async def fetch(
    nc: Any,  # noqa: ANN401 - any client
    job: Job,
    clock: Clock,
    fetch_some: Callable[[int], Awaitable[Iterable[Any]]],
) -> None:
    """Fetch, acknowledge each, and fetch again."""
    for goal in job.rounds:
        clock.start()
        while clock.done < goal:
            for msg in await fetch_some(min(BATCH, goal - clock.done)):
                await msg.ack()
                clock.done += 1
        await nc.flush()
        clock.stop()
