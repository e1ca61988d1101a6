"""What nats-py's client is to do: commands, and the asyncio task that carries them out.

Trio's side only queues. One task for each client carries the commands out in their order, and ends when nothing is queued
and nobody needs it. No task of Trio's ever waits for it, so no cancellation can get lost in asyncio code.

A command may get stuck in nats-py: what waits for its flusher waits for ever once the client is closed. So a timer, and not the
task, looks at the connection meanwhile, and breaks the command off when the client is closed (design 38).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, final

from trio.lowlevel import enable_ki_protection

from trionats._bridge.loop import is_usable, trio_asyncio
from trionats._feeds.feed import CLEANUP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import nats.aio.client

    Command: TypeAlias = Callable[[], Awaitable[object]]

__all__ = ["Commands", "Keeper"]

log = logging.getLogger("trionats")

#: How often the connection is looked at, in seconds.
CHECK_EVERY: Final = 0.05


class Keeper(Protocol):
    """Whose commands they are. Its methods are called in the loop; they do not wait and do not raise."""

    @property
    def in_use(self) -> bool:
        """Whether the task is to stay although nothing is queued."""

    def task_starts(self) -> None:
        """Take note that the task is about to start."""

    def check_connection(self) -> None:
        """See what has become of the connection."""

    def loop_ends(self) -> None:
        """End what uses the loop, which ends."""

    def task_ends(self) -> None:
        """Take note that the task is about to end."""


@final
class Commands:
    """The commands of one client.

    Args:
        nc: The client.
        loop: The loop that it lives in.
        keeper: Whose commands they are.
    """

    def __init__(self, nc: nats.aio.client.Client, loop: asyncio.AbstractEventLoop, keeper: Keeper) -> None:
        self._nc = nc
        self._loop = loop
        self._keeper = keeper
        self._queued: deque[Command] = deque()
        self._aside: set[asyncio.Task[None]] = set()
        self._limit: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle
        self._wake = asyncio.Event()

    @enable_ki_protection
    def add(self, command: Command) -> None:
        """Queue a command; nothing happens where the client is closed, or its loop."""
        if not is_usable(self._loop):
            return
        if not self._nc.is_closed:
            self._queued.append(command)
            if self._task is None:
                context = contextvars.copy_context()
                context.run(trio_asyncio.current_loop.set, self._loop)
                self._keeper.task_starts()
                self._task = self._loop.create_task(self._serve(), name="trionats bridge", context=context)
                self._timer = self._loop.call_later(CHECK_EVERY, self._tick)
        self._wake.set()

    def add_aside(self, command: Command) -> None:
        """Queue a command that the next ones wait for only until it has begun."""
        self.add(partial(self._begin_aside, command))

    async def settled(self) -> None:
        """Wait until all commands of now are carried out, for a bounded time."""
        if self._nc.is_closed or not is_usable(self._loop) or asyncio.current_task() is self._task:
            return
        reached = asyncio.Event()

        async def reach() -> None:  # noqa: ASYNC124 - a command
            reached.set()

        self.add(reach)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEANUP_SECONDS):
                await reached.wait()
                if self._aside and self._nc.is_connected:
                    await asyncio.wait(self._aside)

    # Inside.

    @enable_ki_protection
    async def _serve(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "runs in a task"
        try:
            while True:
                await self._work()
                # nats-py swallows a cancellation here and there.
                if task.cancelling():
                    raise asyncio.CancelledError
                if not self._queued and not self._aside and not self._keeper.in_use:
                    return
                await self._wake.wait()
                self._wake.clear()
        except asyncio.CancelledError:
            # Whoever cancels all tasks of the loop is closing it. What is queued for that is sent still.
            self._keeper.loop_ends()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLEANUP_SECONDS):  # noqa: ASYNC102 - asyncio cancels once
                    await self._work()  # noqa: ASYNC102 - bounded by the line above
            raise
        finally:
            self._timer.cancel()
            self._keeper.task_ends()
            self._task = None
            # A consumer that opens its feed again when it ends has done so during these last words (design 39).
            self._keeper.loop_ends()

    async def _work(self) -> None:
        while self._queued:
            command = self._queued.popleft()
            try:
                async with asyncio.timeout(None) as self._limit:
                    await command()
            except Exception as error:
                # Not only its own: what it writes to a broken socket raises as well.
                log.debug("nats-py's client refused a command: %r", error)
            finally:
                self._limit = None

    async def _begin_aside(self, command: Command) -> None:
        task = self._loop.create_task(self._carry_out_aside(command), name="trionats bridge, last words")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)
        task.add_done_callback(lambda _: self._wake.set())
        # An UNSUB has to stand before the NAKs that are queued behind it: else what they give back comes here again.
        await asyncio.sleep(0)

    async def _carry_out_aside(self, command: Command) -> None:
        try:
            await command()
        except Exception as error:
            log.debug("nats-py's client refused a command: %r", error)

    @enable_ki_protection
    def _tick(self) -> None:
        self._timer = self._loop.call_later(CHECK_EVERY, self._tick)
        self._keeper.check_connection()
        if self._nc.is_closed and self._limit is not None:
            self._limit.reschedule(self._loop.time())
            self._limit = None
