"""A lock that outlives no process, and a resource that is safe even from whoever was stopped while it had the lock.

Run it with the URL of a server with JetStream, or without: then it starts a server of its own.
"""

from __future__ import annotations

import sys
from math import inf

import trio

import trionats
from trionats import api
from trionats.testing import NatsServer


class Account:
    """Something that leases protect: it remembers the greatest token that it was shown, and refuses smaller ones."""

    def __init__(self) -> None:
        self.balance = 0
        self.token = 0

    def pay_in(self, amount: int, token: int) -> None:
        """Pay something in, for whoever has the newest lease."""
        if token < self.token:
            raise PermissionError(f"refused: {token} is older than {self.token}")
        self.balance, self.token = self.balance + amount, token


async def pay_in_once(nursery: trio.Nursery, kv: trionats.KeyValue, account: Account) -> int:
    """A step that only one process at a time may do; the others wait for it."""
    async with trionats.open_lease(nursery, kv, "account.7", ttl=5, value="a teller") as lease:
        await trio.sleep(0.01)  # whatever has to be found out first
        # Right before what matters: is it still held, at this very moment?
        lease.check()
        account.pay_in(10, lease.revision)
        return lease.revision


async def main(url: str) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
    ):
        js = nc.jetstream()
        kv = await js.create_key_value(bucket="locks", limit_marker_ttl=60, storage=api.StorageType.MEMORY)
        account = Account()

        async with trio.open_nursery() as tellers:
            for _ in range(5):
                tellers.start_soon(pay_in_once, background, kv, account)
        print("paid in:", account.balance)

        # Not everybody wants to wait: this one gives up after a moment. Inside the block it has all the time it needs.
        async with trionats.open_lease(background, kv, "account.7", ttl=5):
            with trio.move_on_after(0.2) as patience:
                async with trionats.open_lease(background, kv, "account.7", ttl=5):
                    patience.deadline = inf
            print("somebody else has it:", patience.cancelled_caught)

        # Who was stopped in the middle of a step, and goes on with it much later, comes with an old token.
        old = await pay_in_once(background, kv, account)
        await pay_in_once(background, kv, account)
        try:
            account.pay_in(1000, old)
        except PermissionError as refused:
            print("too late:", str(refused).startswith("refused"), account.balance)
        await js.delete_key_value("locks")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer(jetstream=True) as server:
            trio.run(main, server.url)
