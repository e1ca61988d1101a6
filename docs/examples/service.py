"""A service with two endpoints and a group, asked by a client, found by everybody, and stopped in good order.

Run it with the URL of a server, or without: then it starts a server of its own.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import trio

import trionats
from trionats.testing import NatsServer

PRICES = {"apple": 3, "pear": 4}


async def price(request: trionats.ServiceRequest) -> None:
    """A handler: it responds. If it raised, 500 would be responded, and logged here."""
    name = request.data.decode()
    if name in PRICES:
        await request.respond(b"%d" % PRICES[name])
    else:
        await request.respond_error(404, f"there is no {name}")


async def serve(service: trionats.Service, task_status: trio.TaskStatus[None]) -> None:
    """A loop over the requests, which keeps something from one to the next."""
    async with (
        trio.open_nursery() as nursery,
        trionats.open_endpoint(nursery, service.group("v2"), "count", metadata={"unit": "calls"}) as requests,
    ):
        task_status.started()
        counted = 0
        async for request in requests:
            async with request:
                counted += 1
                await request.respond(b"%d" % counted)
    print(f"counted {counted}")


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, url) as nc,
        trionats.open_service(nursery, nc, "shop", "1.0.0", description="what fruit costs") as service,
        trio.open_nursery() as workers,
    ):
        await workers.start(partial(service.serve, "price", price, concurrency=50))
        await workers.start(serve, service)

        print("an apple costs", (await nc.request("price", b"apple")).data.decode())
        headers = (await nc.request("price", b"stone")).headers
        print("error", headers["Nats-Service-Error-Code"], headers["Nats-Service-Error"])
        await nc.request("v2.count")

        info = json.loads((await nc.request("$SRV.INFO.shop")).data)
        print("endpoints:", [endpoint["subject"] for endpoint in info["endpoints"]])
        stats = service.stats().endpoints[0]
        print(f"{stats.num_requests} requests, {stats.num_errors} errors, the last {stats.last_error}")

        # What the server has given us is still done; then the loops end, and so do the workers.
        service.stop()
    print("done")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer() as server:
            trio.run(main, server.url)
