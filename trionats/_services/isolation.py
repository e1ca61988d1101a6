"""A coroutine in a context of its own, as a task has one, without the price of a task."""

from __future__ import annotations

import types
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context

__all__ = ["isolated"]

A = TypeVar("A")


async def _awaited(awaitable: object, function: object) -> object:
    if not isinstance(awaitable, Awaitable):
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(f"{name} must be a coroutine function (async def), but it returned {type(awaitable).__name__}")
    return await awaitable


@types.coroutine
def isolated(
    context: Context, function: Callable[[A], Awaitable[object]], argument: A, waits: Callable[[], object]
) -> Generator[Any, Any, None]:
    """Call a coroutine function, and let it run to its end in a context of its own.

    Args:
        context: Where it finds and sets context variables.
        function: The function.
        argument: What it is given.
        waits: Called, outside of that context, when it is about to wait for the first time.
    """
    run = context.run
    called = run(function, argument)
    work = called if isinstance(called, types.CoroutineType) else _awaited(called, function)
    try:
        asked = run(work.send, None)
        waits()
        while True:
            try:
                told = yield asked
            except BaseException as error:  # noqa: ASYNC103 - whatever it is, it is for who is at work
                asked = run(work.throw, error)
            else:
                asked = run(work.send, told)
    except StopIteration:
        return
