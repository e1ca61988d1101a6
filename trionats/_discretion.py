"""Complaints that hold no secret, wherever it was put (design 44).

Strategy: no text is searched for secrets after it was made. Complaints about what somebody gave us are raised in words
that hold none of it, and on their way out they lose what led to them: the frames below, whose local variables are the
secrets, and the exceptions that were handled meanwhile, which show what they could not read. What remains is the
complaint, and who asked for it.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, final

from trionats import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")
R = TypeVar("R")

COMPLAINTS = (errors.Error, ValueError, TypeError, ImportError, OSError)
"""What says that something that was given cannot be used; anything else is a bug, which keeps its traceback."""


@final
class Given:
    """What somebody gave us, secrets among it: a box for local variables, which tracebacks may show.

    Args:
        servers: URLs, perhaps with userinfo.
        options: The options by name.
    """

    __slots__ = ("options", "servers")

    def __init__(self, servers: object, options: object) -> None:
        self.servers: Any = servers
        self.options: Any = options

    def __repr__(self) -> str:
        return "<Given>"


def bare(error: E, cause: BaseException | None = None) -> E:
    """Take from an exception where it came from and what was handled meanwhile: both may show secrets.

    Args:
        error: The exception; it is changed.
        cause: What it may keep as its cause.

    Returns:
        The exception, to be raised outside of any `except`.
    """
    error.__traceback__ = None
    error.__context__ = None
    error.__cause__ = cause
    return error


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """Let the complaints of a function come out bare and without its arguments."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except COMPLAINTS as error:
            failure = bare(error)
        del args, kwargs
        raise failure

    return call


def guarded_async(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Let the complaints of a coroutine function come out as `guarded` does."""

    @wraps(function)
    async def ask(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await function(*args, **kwargs)
        except COMPLAINTS as error:
            failure = bare(error)
        del args, kwargs
        raise failure

    return ask
