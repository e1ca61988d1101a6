"""What an `open_*` function returns, and what it refuses."""

from __future__ import annotations

import inspect
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Generic, NoReturn, ParamSpec, TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from trionats._discretion import guarded
from trionats._protocol.fields import unknown_option

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

T = TypeVar("T")
P = ParamSpec("P")


class Opening(AbstractAsyncContextManager[T], Generic[T]):
    """What an `open_*` function returns: enter it with `async with`."""

    __slots__ = ("_entered", "_manager", "_name")

    def __init__(self, name: str, manager: AbstractAsyncContextManager[T]) -> None:
        self._name = name
        self._manager = manager
        self._entered = False

    # What opens and what leaves is not to be interrupted half-way: Ctrl-C comes at its next wait, or behind it.

    @enable_ki_protection
    async def __aenter__(self) -> T:
        if self._entered:
            raise RuntimeError(f"what {self._name}() returns is entered once; call {self._name}() again")
        self._entered = True
        return await self._manager.__aenter__()

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - the manager shields what waits

    def __enter__(self) -> NoReturn:
        raise TypeError(f"{self._name}() is entered with 'async with', not with 'with'")

    def __exit__(self, *_: object) -> None:
        raise AssertionError("never entered")

    def __await__(self) -> NoReturn:
        raise TypeError(f"{self._name}() is entered with 'async with', it cannot be awaited")

    def __aiter__(self) -> NoReturn:
        raise TypeError(self._remedy())

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self._remedy()}: {name!r} is asked of what that gives")

    def _remedy(self) -> str:
        given = "nc" if self._name == "open_client" else "rx"
        return f"{self._name}() gives an async context manager: async with {self._name}(...) as {given}"


def opens(function: Callable[P, AsyncIterator[T]]) -> Callable[P, Opening[T]]:
    """Turn an async generator function that yields once into an `open_*` function.

    Where the function's first parameter is a nursery, it is checked on entering: before anything is registered. A keyword that
    it does not have is refused with what may be meant, unless it takes any.
    """
    manager = asynccontextmanager(function)
    name = function.__name__
    parameters = inspect.signature(function).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())

    @wraps(function)
    @guarded
    def open_(*args: P.args, **kwargs: P.kwargs) -> Opening[T]:
        if not takes_any and (unknown := [option for option in kwargs if option not in parameters]):
            raise (
                takes_no_timeout(name) if "timeout" in unknown else TypeError(unknown_option(name, unknown, parameters))
            )
        return Opening(name, manager(*args, **kwargs))

    # sphinxcontrib-trio renders such a function as `async with`.
    open_.__returns_acontextmanager__ = True  # type: ignore[attr-defined]
    return open_


def takes_no_timeout(
    call: str, how: str = "deadlines are cancel scopes, as in `with trio.fail_after(1):`"
) -> TypeError:
    """Make the error for a call that was given a timeout, which says how to have one."""
    return TypeError(f"{call}() takes no timeout: {how}")


def check_nursery(nursery: object, opener: str) -> None:
    """Refuse what no task can be started in, with an error that says so.

    Args:
        nursery: What was passed to `opener` as its first argument.
        opener: The name of the function, for the error.

    Raises:
        TypeError: It is not a nursery.
        RuntimeError: It belongs to another Trio run.
    """
    if not isinstance(nursery, trio.Nursery):
        raise TypeError(
            f"{opener}(nursery, ...): the first argument must be a trio.Nursery, not {type(nursery).__name__}"
        )
    if not is_of_this_run(nursery):
        raise RuntimeError(f"{opener}(nursery, ...): the nursery belongs to another Trio run")


def is_of_this_run(nursery: trio.Nursery) -> bool:
    """Say whether a nursery belongs to the Trio run that this is called in."""
    task = nursery.parent_task
    while task.parent_nursery is not None:
        task = task.parent_nursery.parent_task
    return task is trio.lowlevel.current_root_task()
