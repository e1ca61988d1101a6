"""The task behind many publishes under way, and the account of them at the end: of a publisher, and of an ingest."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

import trio
from trio.lowlevel import enable_ki_protection

from trionats import errors
from trionats._feeds.feed import CLEANUP_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["Accountable", "accounting"]


class Accountable(Protocol):
    """Messages under way, of which each comes to an end."""

    async def work(self) -> None:
        """Do what the task does, until it is cancelled."""

    async def settle_all(self) -> None:
        """Wait until it is known what became of each message. Always a checkpoint."""

    def end(self, reason: Exception) -> None:
        """Take no more messages, and give up on those that are under way. Synchronous and idempotent.

        Args:
            reason: Why.
        """

    def account(self) -> Sequence[tuple[errors.FailedMsg, Exception]]:
        """List the messages that failed, and of which nobody has heard."""


@asynccontextmanager
async def accounting(nursery: trio.Nursery, what: str, flight: Accountable) -> AsyncIterator[None]:
    """Run the task for as long as the block lasts, and see at its end what became of all messages.

    Args:
        nursery: The nursery that was passed to what opens it.
        what: What that opens, for people: "publisher".
        flight: The messages; they are ended when the block is left.

    Raises:
        trionats.errors.PublishError: Messages failed, and nobody has heard of it.
    """
    scope, finished = trio.CancelScope(), trio.Event()

    @enable_ki_protection
    async def run() -> None:
        try:
            with scope:
                await flight.work()
        finally:
            flight.end(trio.ClosedResourceError(f"{what}: its nursery was cancelled"))
            finished.set()

    @enable_ki_protection
    def close() -> None:
        flight.end(trio.ClosedResourceError(f"{what}: its block was left"))
        scope.cancel()

    try:
        nursery.start_soon(run, name=f"trionats {what}")
    except RuntimeError as closed:
        close()
        raise RuntimeError(f"open_{what}: the nursery that was passed in is closed") from closed
    failure: Exception | None = None
    try:
        yield
        await flight.settle_all()
    except Exception as error:
        failure = error
        with suppress(trio.Cancelled):  # it is the body's own exception that is raised, whatever comes meanwhile
            await flight.settle_all()  # noqa: ASYNC120
        raise
    finally:
        close()
        if not finished.is_set():
            with trio.move_on_after(CLEANUP_SECONDS, shield=True):
                await finished.wait()
        failures = flight.account()
        if failures:
            text = f"{len(failures)} publish{'es' if len(failures) > 1 else ''} failed; the first: {failures[0][1]}"
            # What lists them itself needs no note of them.
            if failure is not None and getattr(failure, "failures", None) is not failures:
                failure.add_note(f"besides, {text}")
    if failures:
        raise errors.explained(errors.PublishError, text, failures=failures)
