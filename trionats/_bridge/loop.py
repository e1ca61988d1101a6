"""A trio-asyncio loop that lives in a nursery, and its traps contained.

Strategy
    The loop is opened by a task in the caller's nursery, not in the caller's own task: so an exception in the caller's block
    is not wrapped in the exception groups of `open_loop`, and a cancelled nursery ends the loop wherever the block stands.

What can go wrong
    trio-asyncio's exit waits until every asyncio task has ended, and a task that swallows its cancellation makes it wait
    for ever. So `Host` cancels all tasks again and again first, and takes what is left after `CLEANUP_SECONDS` out of the
    loop's sight, with a log record that says where it stands. It waits for threads and for asynchronous generators as well:
    threads are left to themselves when who waits for them is cancelled, and generators are closed within bounds before.

    nats-py's `close` does not stop a `connect` that is under way: it goes on, and leaves a client that is connected and that
    nobody closes. So such a call is over before the goodbye begins.

    `KeyboardInterrupt` and `SystemExit`, raised in asyncio code, stop the main loop, and its exit then waits for tasks that
    nothing runs any more (trio-asyncio issues 88 and 118). So the loop's code runs with KeyboardInterrupt protection, as
    our own tasks do, and an exit that is raised all the same ends the loop in good order and comes out of the nursery.

    The loop's exception handler would raise a stray exception of any task in the middle of the nursery. Ours logs it.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, final

import trio
from trio.lowlevel import enable_ki_protection

from trionats import errors
from trionats._feeds.feed import CLEANUP_SECONDS
from trionats._feeds.opening import is_of_this_run

with warnings.catch_warnings():
    # It uses what Python 3.14 no longer has, and Python 3.12 and 3.13 say so, which would be an error under -W error.
    warnings.simplefilter("ignore", DeprecationWarning)
    import trio_asyncio  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = [
    "Host",
    "is_open",
    "is_usable",
    "loop_here",
    "report",
    "run_in",
    "runs_here",
    "trio_asyncio",
    "wait_stopped",
]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("trionats")

#: How often a task that swallows its cancellation is cancelled again.
CANCEL_AGAIN: Final = 0.05


def loop_here() -> asyncio.AbstractEventLoop | None:
    """Give the trio-asyncio loop that is open in this context, if there is one."""
    loop = trio_asyncio.current_loop.get()
    return loop if is_open(loop) else None


def is_usable(loop: object) -> bool:
    """Say whether `loop` is a trio-asyncio loop that runs, be it for its last words only."""
    return isinstance(loop, trio_asyncio.TrioEventLoop) and loop.is_running()


def is_open(loop: Any) -> bool:  # noqa: ANN401 - trio-asyncio has no types
    """Say whether something can begin in `loop`: what does while it ends, nobody cancels and nobody waits for (design 39)."""
    return is_usable(loop) and loop._nursery is not None and not loop._nursery.cancel_scope.cancel_called


def runs_here(loop: Any) -> bool:  # noqa: ANN401 - trio-asyncio has no types
    """Say whether a trio-asyncio loop that is open runs in the Trio run that this is called in."""
    return is_of_this_run(loop._nursery)


async def wait_stopped(loop: Any) -> None:  # noqa: ANN401 - trio-asyncio has no types
    """Wait until a trio-asyncio loop has stopped, however that comes."""
    await loop.wait_stopped()


async def run_in(
    loop: asyncio.AbstractEventLoop, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run an asyncio function in a loop, and let a cancellation that it swallows hold us up for a bounded time only.

    Args:
        loop: A trio-asyncio loop.
        function: The asyncio function.
        args: Its arguments.
        kwargs: Its arguments by keyword.

    Returns:
        What it returns.

    Raises:
        nats.errors.Error: It was cancelled, and not by us. Besides, it raises what the function raises.
    """

    async def call() -> T:
        return await function(*args, **kwargs)

    await trio.lowlevel.checkpoint_if_cancelled()
    done = trio.Event()
    task = loop.create_task(call(), name=f"trionats, {getattr(function, '__qualname__', 'call')}")
    task.add_done_callback(lambda _: done.set())
    try:
        await done.wait()
    except trio.Cancelled:
        task.add_done_callback(_retrieve)
        with trio.CancelScope(shield=True):
            await _cancel(loop, lambda: set() if task.done() else {task})
        raise
    try:
        return task.result()
    except asyncio.CancelledError:
        # Somebody in asyncio cancelled what it waited for: to us that is a failure, and no `BaseException`.
        raise errors.explained(errors.Error, f"{task.get_name()}: cancelled by asyncio code") from None  # noqa: ASYNC104


async def _cancel(loop: asyncio.AbstractEventLoop, alive: Callable[[], set[asyncio.Task[Any]]]) -> None:
    """Cancel asyncio tasks until none is alive, for a bounded time; one that ends may have started another."""
    with trio.move_on_after(CLEANUP_SECONDS):
        while tasks := alive():
            for task in tasks:
                task.cancel()
            await _turn(loop)
            if alive():
                await trio.sleep(CANCEL_AGAIN)


async def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Wait until the loop has run what is ready."""
    turned = trio.Event()
    loop.call_soon(lambda: loop.call_soon(turned.set))
    await turned.wait()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at how a task ended that nobody waits for, so that it is not called stray."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("asyncio task %r ended after we stopped waiting: %r", task.get_name(), error)


class _Threads(trio_asyncio.TrioExecutor):  # type: ignore[misc]
    """Threads that nobody waits for once who asked for them is cancelled, as in asyncio's own loops."""

    async def submit(self, function: Callable[..., object], *args: object) -> object:
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


@final
class Host:
    """A loop for the length of a block, in a task of its own; or a share in the one that is open in this context."""

    def __init__(self) -> None:
        self._joined = loop_here()
        self._leave = trio.Event()
        self._finished = trio.Event()
        self._exit: BaseException | None = None
        self._calls = trio.CancelScope()
        self._idle = trio.Event()
        self._idle.set()

    @enable_ki_protection
    async def run(  # noqa: ASYNC114 - started by one function, which waits for it
        self,
        goodbye: Callable[[], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[asyncio.AbstractEventLoop] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep the loop until `leave` is called or the nursery cancelled: the task in the caller's nursery.

        Args:
            goodbye: An asyncio function, called when it ends, that closes what used the loop.
            task_status: Where the loop goes.
        """
        try:
            async with nullcontext(self._joined) if self._joined else trio_asyncio.open_loop() as loop:
                if not self._joined:
                    await self._contain(loop)
                task_status.started(loop)
                try:
                    await self._leave.wait()
                finally:
                    with trio.CancelScope(shield=True):
                        await self._quiet(loop, goodbye)
        finally:
            self._finished.set()
            if self._exit is not None:
                raise self._exit

    async def call(
        self, loop: asyncio.AbstractEventLoop, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Like `run_in`, one call at a time, which has ended before the goodbye is said.

        Raises:
            nats.errors.ConnectionClosedError: The nursery was cancelled meanwhile, or before. Besides, as `run_in`.
        """
        self._idle = trio.Event()
        try:
            with self._calls:
                return await run_in(loop, function, *args, **kwargs)
        finally:
            self._idle.set()
        why = "the nursery that was passed in was cancelled" if self._exit is None else repr(self._exit)
        text = f"{getattr(function, '__qualname__', 'a call')}: given up, since its asyncio loop ends: {why}"
        raise errors.explained(errors.ConnectionClosedError, text)

    async def leave(self) -> None:
        """End the loop and wait until it has ended: shielded, and bounded by the limits of `run`."""
        self._leave.set()
        with trio.CancelScope(shield=True):
            await self._finished.wait()

    async def _quiet(self, loop: asyncio.AbstractEventLoop, goodbye: Callable[[], Awaitable[None]]) -> None:
        """Close what used the loop, and end every task that is left in it, so that leaving it waits for nothing."""
        if not is_usable(loop):
            return
        self._calls.cancel()
        await self._idle.wait()  # not longer than `run_in` takes with a cancellation
        try:
            with trio.move_on_after(CLEANUP_SECONDS):
                await run_in(loop, goodbye)
        except Exception as error:
            # Its connection may have broken in this very moment; nothing is lost that had a chance.
            log.debug("closing nats-py's client failed: %r", error)
        if self._joined:
            return
        await _cancel(loop, lambda: asyncio.all_tasks(loop))
        with trio.move_on_after(CLEANUP_SECONDS):
            await run_in(loop, loop.shutdown_asyncgens)
        for task in asyncio.all_tasks(loop):
            text = "asyncio task %r goes on after it was cancelled for %g s, and is left behind: %r"
            log.error(text, task.get_name(), CLEANUP_SECONDS, task.get_stack(limit=1))
            task.add_done_callback(_retrieve)
            asyncio._unregister_task(task)

    async def _contain(self, loop: Any) -> None:  # noqa: ANN401 - trio-asyncio has no types
        main_loop_one, io_task = loop._main_loop_one, loop._io_task

        @enable_ki_protection
        async def protected_main_loop_one(no_wait: bool = False) -> None:
            try:
                await main_loop_one(no_wait)
            except (KeyboardInterrupt, SystemExit) as error:
                if type(error).__module__.startswith("trio_asyncio"):  # its own way to stop
                    raise
                self._exit = self._exit or error
                self._leave.set()

        @enable_ki_protection
        async def protected_io_task(*args: object) -> None:
            await io_task(*args)

        loop._main_loop_one, loop._io_task = protected_main_loop_one, protected_io_task
        loop.set_exception_handler(report)
        loop.set_default_executor(_Threads())
        # The main loop stands in the unprotected one until it has run something.
        await _turn(loop)


def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that asyncio has nobody to give to."""
    error = context.get("exception")
    level = logging.DEBUG if isinstance(error, asyncio.CancelledError) else logging.ERROR
    log.log(level, "asyncio: %s", context.get("message") or "unhandled exception", exc_info=error)
