"""The Trio run that an object belongs to, and the refusal of calls from anywhere else (design 50).

A call from another thread, or from another `trio.run`, would change what the tasks of the object's own run are working
on, and wake them from where they cannot be woken: an event counts as set then, and nobody runs. So it is refused before
it touches anything. Where a call is to cost next to nothing, `Run.thread` is compared; that leaves a later run in the
same thread, whose calls meet a client that ended with its run, and are refused on the slow paths that this leads to.
"""

from __future__ import annotations

import inspect
from threading import get_ident

from trio.lowlevel import current_trio_token

__all__ = ["Run"]


class Run:
    """The Trio run in which it was made.

    Attributes:
        thread: The number of the run's thread.
    """

    __slots__ = ("_token", "thread")

    def __init__(self) -> None:
        self.thread = get_ident()
        self._token = current_trio_token()

    def check(self, call: str = "") -> None:
        """Refuse a call from anywhere else.

        Args:
            call: What was called, for the text; found out unless it is given.

        Raises:
            RuntimeError: It comes from another thread, or from another run.
        """
        try:
            here = current_trio_token()
        except RuntimeError:
            here = None
        if here is not self._token:
            raise RuntimeError(
                f"{call or _called()}() was called from outside the Trio run that the client was opened in; from another thread use "
                "trio.from_thread.run(), or trio.from_thread.run_sync() for what is not awaited"
            )


def _called() -> str:
    """Name the method of ours that a program called: of the frames that led here, the first one that is ours."""
    name = ""
    frame = inspect.currentframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] == "trionats" and module != "trionats._discretion":  # that wraps what is called
            owner = frame.f_locals.get("self")
            name = frame.f_code.co_name if owner is None else f"{type(owner).__name__}.{frame.f_code.co_name}"
        frame = frame.f_back
    return name
