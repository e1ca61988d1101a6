"""A real nats-server for tests and demos; leak assertions.

`NatsServer` is synchronous, for fixtures and scripts: `with NatsServer(jetstream=True) as server:`. `open_server` is the
same thing for Trio code: `async with open_server(jetstream=True) as server:` gives a `TrioNatsServer`, whose methods are
coroutines that leave the event loop alone.

`assert_no_leaks` compares what lives before its block with what lives after it: Trio's tasks, a client's tables, and the
server's connections, subscriptions and consumers.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

import trio

from trionats.testing._server import Connection, NatsServer, ServerOptions, find_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from typing import Unpack

__all__ = [
    "Connection",
    "HasStatistics",
    "NatsServer",
    "ServerOptions",
    "TrioNatsServer",
    "assert_no_leaks",
    "find_server",
    "open_server",
]

R = TypeVar("R")

for _public in (Connection, NatsServer, ServerOptions, find_server):
    _public.__module__ = __name__


@final
class TrioNatsServer:
    """A `NatsServer` for Trio code: what takes time is a coroutine and runs in a thread.

    Args:
        server: The server to wrap; it stays usable by itself.
    """

    def __init__(self, server: NatsServer) -> None:
        self.server = server

    def __repr__(self) -> str:
        return f"<Trio{repr(self.server)[1:]}"

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return self.server.url

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self.server.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.server.running

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return self.server.log

    def pause(self) -> None:
        """Freeze the process, as `NatsServer.pause` does."""
        self.server.pause()

    def resume(self) -> None:
        """Let a paused process go on."""
        self.server.resume()

    def lame_duck(self) -> None:
        """Tell the server to send its clients away and end."""
        self.server.lame_duck()

    async def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        await _in_thread(self.server.start)

    async def stop(self) -> None:
        """Stop the server in good order."""
        await _in_thread(self.server.stop)

    async def kill(self) -> None:
        """End the server as a crash would; its store stays."""
        await _in_thread(self.server.kill)

    async def restart(self, *, kill: bool = False) -> None:
        """Stop the server, or kill it, and start it again with the same port and store."""
        await _in_thread(partial(self.server.restart, kill=kill))

    async def reload(self, config: str | None = None) -> None:
        """Make the server read its configuration again, and wait until it has."""
        await _in_thread(partial(self.server.reload, config))

    async def monitor(self, path: str) -> Any:  # noqa: ANN401 - whatever JSON the server sends
        """Ask the monitoring port, as `NatsServer.monitor` does."""
        return await _in_thread(partial(self.server.monitor, path))

    async def connections(self, client_name: str | None = None) -> list[Connection]:
        """List the clients that are connected now."""
        return await _in_thread(partial(self.server.connections, client_name))

    async def subscriptions(self, client_name: str | None = None) -> list[str]:
        """List the subjects that clients are subscribed to now, one for each subscription."""
        return await _in_thread(partial(self.server.subscriptions, client_name))

    async def consumers(self, stream: str | None = None) -> list[str]:
        """List the JetStream consumers that exist now, as `"stream/consumer"`."""
        return await _in_thread(partial(self.server.consumers, stream))


@contextlib.asynccontextmanager
async def open_server(config: str = "", **options: Unpack[ServerOptions]) -> AsyncGenerator[TrioNatsServer]:
    """Start a nats-server for the length of a block; no task, so no nursery.

    Entering waits until the server accepts connections; leaving waits, shielded, until it has ended (`stop_timeout`
    seconds at most) and removes its directory.

    Args:
        config: The text of a configuration file.
        options: As `NatsServer` takes them.

    Yields:
        The server.

    Raises:
        FileNotFoundError: No nats-server was found.
        RuntimeError: It could not be started.
    """
    server = NatsServer(config, **options)
    try:
        await _in_thread(server.start)
        yield TrioNatsServer(server)
    finally:
        with trio.CancelScope(shield=True):
            await _in_thread(server.close)


async def _in_thread(call: Callable[[], R]) -> R:
    return await trio.to_thread.run_sync(call)


# -- leaks -------------------------------------------------------------------------------------------------------------

# What a client's statistics call the things that it holds; the other fields count what has happened.
TABLES = ("subscriptions", "pending_requests", "feeds")
LEAK_POLL = 0.02
# A client's first request makes the subscription that all its requests share. It stays, and is no leak; the inboxes of
# watchers and readers look the same, so one is granted to each connection, and no more.
SHARED_INBOX = re.compile(r"[0-9A-Za-z]{22}\.\*$")


class HasStatistics(Protocol):
    """A client, as far as `assert_no_leaks` looks at it."""

    def statistics(self) -> Any:  # noqa: ANN401 - any class with these attributes
        """Give something with `subscriptions`, `pending_requests` (numbers) and `feeds` (names)."""


@contextlib.asynccontextmanager
async def assert_no_leaks(
    *clients: HasStatistics, server: NatsServer | TrioNatsServer | None = None, within: float = 1.0
) -> AsyncGenerator[None]:
    """Assert that a block leaves nothing behind.

    Trio's tasks are compared at once when the block is left; clients' tables and the server's connections, subscriptions
    and consumers may take a moment, since the server hears of a goodbye later than we say it. What disappears is no leak,
    and a body that raises is not judged.

    Args:
        clients: Clients that live longer than the block, whose tables are looked at.
        server: A server to look at, through its monitoring port.
        within: How many seconds the tables and the server have to come back.

    Raises:
        AssertionError: Something was left; the text names each thing and how many there are.
    """
    rest = await _belongings(clients, server)
    # Only now: a client that was opened just before this block has not started all of its tasks before the next checkpoint.
    tasks = _tasks()
    yield
    new_tasks = _tasks() - tasks
    deadline = trio.current_time() + within
    while True:
        left = new_tasks + (await _belongings(clients, server) - rest)
        if not left:
            return
        if new_tasks or trio.current_time() >= deadline:
            break
        await trio.sleep(LEAK_POLL)
    raise AssertionError("left behind:\n" + "\n".join(f"  {count} x {thing}" for thing, count in sorted(left.items())))


def _tasks() -> Counter[str]:
    # By name rather than by identity: a client that reconnects has a new reader in place of the old one.
    found: Counter[str] = Counter()
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        if task is not None:
            found[f"task {task.name}"] += 1
            waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


async def _belongings(clients: Sequence[HasStatistics], server: NatsServer | TrioNatsServer | None) -> Counter[str]:
    await trio.lowlevel.checkpoint()
    found: Counter[str] = Counter()
    for number, client in enumerate(clients, 1):
        statistics = client.statistics()
        for table in TABLES:
            held = getattr(statistics, table)
            if isinstance(held, int):
                found[f"client {number}: {table}"] += held
            else:
                found.update(f"client {number}: {table}: {name}" for name in held)
    if server is not None:
        found += await _in_thread(partial(_on_server, server.server if isinstance(server, TrioNatsServer) else server))
    return found


def _on_server(server: NatsServer) -> Counter[str]:
    found: Counter[str] = Counter()
    for connection in server.connections():
        who = f"client {connection.name!r}" if connection.name else "a nameless client"
        found[f"server: connection of {who}"] += 1
        inboxes = [subject for subject in connection.subscriptions if SHARED_INBOX.search(subject)]
        others = [subject for subject in connection.subscriptions if subject not in inboxes]
        found.update(f"server: subscription of {who} to {subject!r}" for subject in others)
        if len(inboxes) > 1:
            found[f"server: subscription of {who} to an inbox"] += len(inboxes) - 1
    found.update(f"server: consumer {name!r}" for name in server.consumers())
    return found
