"""A scope in which a message is worked on: kept in progress, and then acknowledged or given back.

No task keeps it in progress but a timer of the connection's: its callback says so to the server, and sets the next one. What is
said at the end of a block that failed or was cancelled is queued in the same step: nothing waits there, so nothing can be
cancelled (design 76).
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, final

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats._protocol.jetstream.acks import ACK, IN_PROGRESS, Verdict, verdict_on

if TYPE_CHECKING:
    from types import TracebackType

    from trionats._core.messaging import Publishing
    from trionats._protocol.jetstream.acks import Standing
    from trionats._protocol.timers import Timer

__all__ = ["Processing"]

#: What is taken for the ack wait where that is not known: two thirds of the server's default of 30 s.
CAUTIOUS_WAIT: Final = 20.0
#: How many seconds lie between two signs of life at the least.
LEAST_PAUSE: Final = 0.01
#: In how many pieces a pause is cut while there is no connection to say anything over.
PIECES: Final = 4


class Workable(Protocol):
    """A message, as it is worked on."""

    due: float

    async def ack(self) -> None:
        """Acknowledge it."""

    def __check__(self) -> None:
        """Raise where nothing can be said of it any more."""

    def __standing__(self) -> Standing:
        """Say what was said of it so far."""

    def __say__(self, verdict: Verdict, body: bytes) -> bool:
        """Say something of it, whether there is room or not; give whether it might be said."""


@final
class Processing(AbstractAsyncContextManager[None]):
    """What `JetStreamMsg.processing` gives.

    Args:
        message: What is worked on.
        connection: What it came over.
        wait: The ack wait of this delivery; infinite where it is not known.
        terminal: The exceptions after which it is terminated.
    """

    __slots__ = ("_connection", "_message", "_pause", "_terminal", "_timer", "_wait")

    def __init__(
        self, message: Workable, connection: Publishing, wait: float, terminal: tuple[type[Exception], ...]
    ) -> None:
        self._message = message
        self._connection = connection
        self._wait = CAUTIOUS_WAIT if wait == inf else wait
        self._pause = max(self._wait / 2, LEAST_PAUSE)
        self._terminal = terminal
        self._timer: Timer | None = None

    @enable_ki_protection
    async def __aenter__(self) -> None:
        if self._timer is not None:
            raise RuntimeError("what processing() returns is entered once; call processing() again")
        self._message.__check__()
        await checkpoint()
        now = trio.current_time()
        # Where nobody knows since when it waits, it may be for long.
        due = self._message.due if self._message.due < inf else now
        self._timer = self._connection.call_at(max(now, due - self._pause), self._go_on)

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._timer is not None, "never entered"
        self._timer.cancel()
        if error is not None:
            self._message.__say__(*verdict_on(error, self._terminal))
        elif self._message.__standing__().after(Verdict.ACK) is None:
            await checkpoint()  # noqa: ASYNC102 - the block has not raised: it may be cancelled like any call
        else:
            try:
                await self._message.ack()  # noqa: ASYNC102 - and so may this
            except trio.Cancelled:
                # What was to be done was done.
                self._message.__say__(Verdict.ACK, ACK)
                raise

    def _go_on(self) -> None:
        """Say that it is worked on, and set the timer again."""
        now, pause = trio.current_time(), self._pause
        if self._connection.is_connected:
            if self._message.__say__(Verdict.IN_PROGRESS, IN_PROGRESS):
                self._message.due = now + self._wait
        else:
            pause = max(pause / PIECES, LEAST_PAUSE)
        self._timer = self._connection.call_at(now + pause, self._go_on)
