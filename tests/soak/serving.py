"""One process of a service: it says when it serves, and ends, in good order, when it is told to (SIGTERM).

python -m tests.soak.serving URL
"""

from __future__ import annotations

import random
import signal
import sys
from functools import partial

import trio

from trionats import ServiceRequest, open_client, open_service

#: How long a handler takes, in seconds: up to so much.
WORK = 0.004


async def serve(url: str) -> None:
    """Be one process of the service."""
    async with (
        trio.open_nursery() as nursery,
        open_client(nursery, url) as nc,
        open_service(nursery, nc, "worker", "1.0.0") as service,
        trio.open_nursery() as workers,
    ):

        async def work(request: ServiceRequest) -> None:
            await trio.sleep(random.random() * WORK)
            await request.respond(service.id.encode())

        await workers.start(partial(service.serve, "work", work, concurrency=50))
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            print("ready", flush=True)
            async for _ in signals:
                service.stop()
                break


if __name__ == "__main__":
    trio.run(serve, sys.argv[1])
