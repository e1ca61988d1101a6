"""A service that ends on SIGTERM: what it was asked by then gets its reply, and it ends in time whatever the server does.

Run it with the URL of a server, or without: then it starts a server of its own.
"""

from __future__ import annotations

import os
import signal
import sys

import nats.errors
import trio

import trionats
from trionats.testing import NatsServer


async def close_on_signal(
    nc: trionats.Client, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            try:
                await nc.drain()
            except nats.errors.Error as error:
                # The client is closed all the same.
                print(f"not all was done: {error}", flush=True)
            return


async def serve(url: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    async with (
        trio.open_nursery() as background,
        trionats.open_client(background, url) as nc,
        trionats.open_subscription(background, nc, "greet", queue="greeters") as rx,
        trio.open_nursery() as tasks,
    ):
        await tasks.start(close_on_signal, nc)
        await nc.flush()
        print("ready", flush=True)
        task_status.started()
        async for msg in rx:
            await msg.respond(b"Hello, " + msg.data + b"!")
    print("closed", flush=True)


async def main(url: str) -> None:
    async with trio.open_nursery() as background, trionats.open_client(background, url) as asker:
        async with trio.open_nursery() as services:
            await services.start(serve, url)
            print((await asker.request("greet", b"trio")).data.decode())
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asker.request("greet", b"again")
        except nats.errors.NoRespondersError:
            print("nobody is left")


if __name__ == "__main__":
    if sys.argv[1:]:
        trio.run(main, sys.argv[1])
    else:
        with NatsServer() as server:
            trio.run(main, server.url)
