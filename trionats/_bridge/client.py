"""open_nats_py: a client of nats-py, in a loop of its own."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import nats.aio.client
from trio.lowlevel import checkpoint

from trionats._bridge.loop import Host, trio_asyncio
from trionats._discretion import Given, guarded, guarded_async
from trionats._feeds.opening import check_nursery, opens
from trionats._protocol.addresses import list_of_urls

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Sequence

    import trio

__all__ = ["open_nats_py"]


@opens
async def open_nats_py(
    nursery: trio.Nursery,
    servers: str | Sequence[str] = "nats://127.0.0.1:4222",
    **nats_py_options: Any,  # noqa: ANN401 - nats-py's own
) -> AsyncIterator[nats.aio.client.Client]:
    """Connect a client of nats-py, in a trio-asyncio loop that lives exactly as long as the block.

    Inside the block, and in tasks that are started there, the loop is trio-asyncio's current one, so that any asyncio
    library runs with `aio_as_trio`. Where such a loop is open in this context already, the client joins it,
    and the loop stays as it is when the block is left.

    Entering waits until the client is connected. How long that may take says the deadline in force, or else nats-py,
    which by default tries for two minutes. Failed or cancelled, it leaves nothing. Leaving ends the feeds of the client,
    closes it with what it has to send, cancels every asyncio task that is left in the loop, closes its asynchronous
    generators, and ends the loop. Each of these is shielded and takes 2 s at the most, and 2 s more where asyncio code
    swallows its cancellation; a task that goes on even then is left behind, with a log record, and so is a thread. If the
    nursery is cancelled, the client is closed and the loop ended at once.

    In a loop of our own, KeyboardInterrupt is held back from asyncio code and comes out of the main task. An exception that
    no asyncio task retrieves is logged, at the level ERROR, and ends nothing. A `SystemExit` that asyncio code raises ends
    the block and comes out of the nursery.

    Args:
        nursery: Where the loop's task lives. A cancel scope around this call bounds the opening, not the client.
        servers: As nats-py takes them.
        nats_py_options: What else nats-py's `connect` takes.

    Returns:
        An async context manager that gives the connected `nats.aio.client.Client`.

    Raises:
        nats.errors.ConnectionClosedError: The nursery was cancelled before the client was connected.
        nats.errors.Error: As nats-py's `connect`.
        OSError: As nats-py's `connect` with `allow_reconnect=False`.
        TypeError: The servers are neither a URL nor several.
    """
    given = Given(servers, nats_py_options)
    del servers, nats_py_options  # a traceback may show local variables
    check_nursery(nursery, "open_nats_py")
    given.servers = _checked_servers(given.servers)
    client = nats.aio.client.Client()
    host = Host()
    await checkpoint()
    loop = await nursery.start(partial(host.run, partial(_say_goodbye, client)), name="trionats asyncio loop")
    token = trio_asyncio.current_loop.set(loop)
    try:
        await _connect(host, loop, client, given)
        yield client
    finally:
        # Left in another task than it was entered in: that one's context never had the loop.
        with suppress(ValueError):
            trio_asyncio.current_loop.reset(token)
        await host.leave()  # noqa: ASYNC102 - shielded and bounded inside


@guarded_async
async def _connect(host: Host, loop: asyncio.AbstractEventLoop, client: nats.aio.client.Client, given: Given) -> None:
    await host.call(loop, client.connect, given.servers, **given.options)


@guarded
def _checked_servers(servers: object) -> str | list[str]:
    """Make of the servers what nats-py takes; it would say of others what is wrong, and not with what."""
    return servers if isinstance(servers, str) else list_of_urls(servers)


async def _say_goodbye(client: nats.aio.client.Client) -> None:
    if client._flush_queue is None:  # `connect` was not called, or did not like its arguments
        return
    try:
        await client.close()
    finally:
        # One that was cancelled between two attempts counts as closed, and `close` does nothing.
        if client._transport:
            client._transport.close()  # type: ignore[no-untyped-call]
