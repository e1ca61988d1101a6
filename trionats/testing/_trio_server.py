"""The server for Trio code: what takes time is a coroutine and runs in a thread."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, final

import trio

from trionats.testing._server import NatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from typing import Unpack

    from trionats.testing._server import Connection, ServerOptions

__all__ = ["TrioNatsServer", "open_server"]

R = TypeVar("R")


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
