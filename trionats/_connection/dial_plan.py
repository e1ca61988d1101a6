"""Which server is dialled next, and when: as the user's callbacks say, or else as the pool has it.

What the callbacks do ends no connection: where one fails, an event says so, and the pool's own choice holds (design 32).
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import trio

from trionats import events
from trionats._connection.dial import usable_servers
from trionats._protocol.servers import ServerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trionats._connection.options import Options
    from trionats._protocol.addresses import Server
    from trionats._protocol.engine import Engine
    from trionats._protocol.servers import Dial


class DialPlan:
    """The servers of one client, and whose turn it is.

    Args:
        servers: One URL or several.
        options: The client's.
        engine: What the last server's INFO is in, for `pick_server`.
        emit: Tells the program of an event.

    Raises:
        ValueError: A URL or a wait is not valid.
        ImportError: A URL is a WebSocket's, and the extra `websocket` is not installed.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        options: Options,
        engine: Engine,
        emit: Callable[[events.ConnectionEvent], None],
    ) -> None:
        self._pick_server = options.pick_server
        self._reconnect_delay = options.reconnect_delay
        self._engine = engine
        self._emit = emit
        self._changed = trio.Event()
        self.pool = ServerPool(
            usable_servers(servers),
            rng=options.rng,
            dont_randomize=options.dont_randomize,
            max_attempts=options.max_reconnect_attempts,
            reconnect_time_wait=options.reconnect_time_wait,
            max_reconnect_time_wait=options.max_reconnect_time_wait,
            ignore_discovered_servers=options.ignore_discovered_servers,
            ignore_auth_error_abort=options.ignore_auth_error_abort,
            reconnect_delay=self._delay,
        )

    def next(self, avoiding: Server | None = None) -> Dial | None:
        """Say which server is next, and when.

        Args:
            avoiding: A server to leave out, for a migration away from it.

        Returns:
            The dial, or None when no server is left.
        """
        now = trio.current_time()
        if self._pick_server is None:
            return self.pool.next(now, avoiding=avoiding)
        try:
            info = copy.deepcopy(self._engine.info)
            return self.pool.picked(self._pick_server, info, now, avoiding=avoiding)
        except Exception as error:  # the user's code, or what it returned
            self._emit(events.CallbackFailed("pick_server", error))
            return self.pool.next(now, avoiding=avoiding)

    async def wait_for(self, dial: Dial) -> bool:
        """Wait until it is time for a dial.

        Returns:
            Whether it still is; not so if the plan was changed meanwhile.
        """
        self._changed = trio.Event()
        with trio.move_on_at(dial.not_before) as wait:
            await self._changed.wait()
        return wait.cancelled_caught

    def hurry(self) -> None:
        """End all waits: the next dial is due at once."""
        self.pool.hurry()
        self._changed.set()

    def replace(self, servers: str | Sequence[str]) -> None:
        """Put other servers in the place of all.

        Raises:
            ValueError: A URL is not valid.
            ImportError: A URL is a WebSocket's, and the extra `websocket` is not installed.
        """
        self.pool.replace(usable_servers(servers))
        self._changed.set()

    def _delay(self, attempts: int) -> float | None:
        if self._reconnect_delay is None:
            return None
        try:
            seconds = self._reconnect_delay(attempts)
            if not 0 <= seconds < math.inf:
                raise ValueError(f"the delay is {seconds}: it must be neither negative nor infinite")
        except Exception as error:  # the user's code, or what it returned
            self._emit(events.CallbackFailed("reconnect_delay", error))
            return None
        return seconds
