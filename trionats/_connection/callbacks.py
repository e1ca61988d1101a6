"""What programs hand us to be called: options that may be a callback, asked anew at each connect.

One that fails makes the attempt to connect fail, and no more than that (design 26). What it raises is told by its class and
place only: its words and its frames may hold the secret that it was about to give (design 44).
"""

from __future__ import annotations

import inspect
import os
import traceback
from typing import TYPE_CHECKING, Any

from trionats import errors

if TYPE_CHECKING:
    from collections.abc import Callable


async def ask(
    option: str,
    value: Any,  # noqa: ANN401 - whatever the option's type is
    *arguments: object,
    told: Callable[[Exception], errors.Error] | None = None,
) -> Any:  # noqa: ANN401 - the same
    """Give the value of an option that may be a callback, synchronous or not.

    Args:
        option: Its name, for the complaint.
        value: The value, or what gives it.
        arguments: What the callback is called with.
        told: Makes the complaint of what the callback raised.

    Returns:
        The value.

    Raises:
        nats.errors.InvalidUserCredentialsError: The callback failed; the text says with which class of exception and
            where.
    """
    if not callable(value):
        return value
    try:
        given = value(*arguments)
        if inspect.isawaitable(given):
            given = await given
    except Exception as error:
        text = f"{option}: the callback failed ({raised(error)})"
        failure = errors.explained(errors.InvalidUserCredentialsError, text) if told is None else told(error)
    else:
        return given
    raise failure  # outside of `except`, so that it leads to nothing of the callback's


def raised(error: Exception) -> str:
    """Say what a callback raised, and where; not in its own words.

    Args:
        error: What it raised.

    Returns:
        Its class, and the file and line.
    """
    frames = traceback.extract_tb(error.__traceback__)[1:]
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
