"""Which services are there, what do they respond to, and what have they done? Of any client library's."""

import trio

import trionats
from trionats.testing import open_server


async def greet(request: trionats.ServiceRequest) -> None:
    await request.respond(b"hello, " + request.data)


async def main() -> None:
    async with (
        open_server() as server,
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, server.url) as nc,
        trionats.open_service(nursery, nc, "greeter", "1.0.0", description="Greets whoever asks") as service,
        trio.open_nursery() as workers,
    ):
        await workers.start(service.serve, "greet", greet)
        await nc.request("greet", b"Ada")

        services = trionats.ServiceClient(nc)
        for info in await services.info():
            subjects = [endpoint.subject for endpoint in info.endpoints]
            print(f"{info.name} {info.version}: {info.description}, at {subjects}")
        for stats in await services.stats("greeter"):
            for endpoint in stats.endpoints:
                print(f"{endpoint.name}: {endpoint.num_requests} request, {endpoint.num_errors} errors")
        print("others:", await services.ping("mailer"))
        workers.cancel_scope.cancel()


trio.run(main)
