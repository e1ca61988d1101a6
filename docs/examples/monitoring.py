"""How are the servers, and who is connected to them? For users of the system account."""

import trio

import trionats
from trionats.testing import open_server

ACCOUNTS = """
server_name: hub
accounts {
    SYS { users = [{user: sys, password: secret}] }
    SHOP { jetstream: enabled, users = [{user: shop, password: secret}] }
}
system_account: SYS
"""


async def main() -> None:
    async with (
        open_server(ACCOUNTS, jetstream=True) as server,
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, server.url, user="shop", password="secret", name="till") as till,
        trionats.open_subscription(nursery, till, "orders.*"),
        trionats.open_client(nursery, server.url, user="sys", password="secret") as nc,
    ):
        await till.flush()
        system = trionats.SystemClient(nc)
        for healthz in await system.healthz():
            print(f"{healthz.server.name} is {healthz.status}")
        for connz in await system.connz(account="SHOP", subscriptions=True):
            for conn in connz.connections:
                print(f"{conn.name} is connected to {connz.server.name}, and to {conn.subscriptions_list}")
        (jsz,) = await system.jsz(server="hub", account="SHOP")
        print(f"{jsz.streams} streams, {jsz.bytes} bytes")
        try:
            await trionats.SystemClient(till).varz()
        except trionats.errors.NoRespondersError as error:
            print(error)


trio.run(main)
