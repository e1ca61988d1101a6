"""When a wait for one reply ends: the deadline in force, a `request_timeout` that was chosen, or 5 s (design 8)."""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from trionats import errors
from trionats._feeds.opening import takes_no_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


#: How many seconds a reply is waited for where nobody has said anything.
REQUEST_TIMEOUT = 5.0
#: What nats-py has as an argument of a call, and is had in another way.
_ELSEWHERE: Final = {
    ("get", "writeinto"): "get_file writes a file, and open_object gives a stream",
    ("get", "show_deleted"): "get_info has it",
    ("open_watcher", "headers_only"): "meta_only leaves out the values",
}


def seconds_to_wait(chosen: float | None) -> float:
    """Say for how long a reply is waited for, beside the deadline in force.

    Args:
        chosen: The `request_timeout` that somebody chose: it always counts. None for nobody, and then there is one only
            where no deadline is in force.

    Returns:
        Seconds.
    """
    if chosen is not None:
        return chosen
    return REQUEST_TIMEOUT if trio.current_effective_deadline() == inf else inf


@contextmanager
def reply_within(
    chosen: float | None, what: str, failure: type[errors.TimeoutError] = errors.TimeoutError
) -> Iterator[None]:
    """Bound a wait for one reply of the server.

    Args:
        chosen: As for `seconds_to_wait`.
        what: What was waited for, for the error.
        failure: The error's class.

    Raises:
        nats.errors.TimeoutError: The time passed; it names what was waited for, and how long.
    """
    seconds = seconds_to_wait(chosen)
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise too_late(seconds, what, failure)


def too_late(
    seconds: float, what: str, failure: type[errors.TimeoutError] = errors.TimeoutError
) -> errors.TimeoutError:
    """Make the error for a reply that did not come in time."""
    return errors.explained(failure, f"{what}: no answer within {seconds:g} s")


def unexpected(call: str, arguments: Mapping[str, object], of: str | None = "nc") -> TypeError:
    """Make the error for keyword arguments that a call does not have; `timeout` is one where nats-py has it.

    Args:
        call: The name of the method.
        arguments: What it was given too much.
        of: What the method is called on, as programs usually name it; None for what opens something, and is not awaited.
    """
    name = next(iter(arguments))
    if name == "timeout":
        return takes_no_timeout(call) if of is None else takes_no_timeout(call, within(call, of))
    hint = _ELSEWHERE.get((call, name))
    return TypeError(f"{call}() got an unexpected keyword argument {name!r}{f': {hint}' if hint else ''}")


def within(call: str, of: str = "nc") -> str:
    """Say how a call gets a timeout."""
    return f"with trio.fail_after(1): await {of}.{call}(...)"
