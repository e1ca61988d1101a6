"""What a block leaves behind: what lives before it, compared with what lives after it."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import trio

from trionats.testing._trio_server import TrioNatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from trionats.testing._server import NatsServer

__all__ = ["HasStatistics", "assert_no_leaks"]

#: What a client's statistics call the things that it holds; the other fields count what has happened.
TABLES = ("subscriptions", "pending_requests", "feeds")
#: How often it is counted again what has not come back yet, in seconds.
COUNT_EVERY = 0.02
#: A client's first request makes the subscription that all its requests share. It stays, and is no leak; the inboxes of
#: watchers and readers have the same form, so one is granted to each connection, and no more.
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
        await trio.sleep(COUNT_EVERY)
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
        plain = server.server if isinstance(server, TrioNatsServer) else server
        found += await trio.to_thread.run_sync(_on_server, plain)
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
