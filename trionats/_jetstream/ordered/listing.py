"""Reading all that a store holds into a list: its keys, the history of one, its objects."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio

from trionats import errors
from trionats._jetstream.api import in_store
from trionats._jetstream.idle import IDLE_LIMIT, idle_error
from trionats._jetstream.ordered.source import Handed, Sink
from trionats._protocol.jetstream.actions import ALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._core.message import Msg
    from trionats._jetstream.ordered.entries import Entries
    from trionats._protocol.jetstream.acks import AckSubject
    from trionats._protocol.jetstream.actions import Start

__all__ = ["StoredReading", "list_stored"]

T = TypeVar("T")

#: How often a list begins anew because another stream took the place of the one that was read.
READ_ATTEMPTS: Final = 10


async def list_stored(entries: Entries[T], start: Start, doing: str) -> list[T]:
    """Read what a store holds, up to what was stored when the reading began, or something later.

    Args:
        entries: Where it is.
        start: `LAST_PER_SUBJECT` for the last state of each entry, `ALL` for every one that is stored.
        doing: The list, for the text of an exception.

    Returns:
        The entries, in the order of their last change. Of several states of one subject it holds the last one, unless all
        are asked for; and where that is left out, none.

    Raises:
        nats.errors.BucketNotFoundError: There is no such store.
        nats.errors.TimeoutError: Nothing has come for `IDLE_LIMIT` seconds.
        nats.errors.Error: As for any request to the JetStream API.
    """
    with in_store(entries.store):
        for _ in range(READ_ATTEMPTS - 1):
            # The stream was made anew, or went back: what was read belongs to no list.
            with suppress(errors.StreamRegressedError):
                return await _List(entries, start, doing).read()
        return await _List(entries, start, doing).read()


class StoredReading:
    """Reads what is stored, in order, to its end; it fails when nothing has come for `IDLE_LIMIT` seconds.

    Args:
        entries: Where it is.
        start: As for `list_stored`.
        doing: What it is read for, for the text of an exception.
    """

    def __init__(self, entries: Entries[Any], start: Start, doing: str) -> None:
        self._doing = doing
        self._source = entries.source(Sink(self._take, self._stored_read), start)
        self._complete = False
        self._patience = trio.CancelScope()

    async def run(self) -> None:
        """Read it all."""
        try:
            await self._source.open()
            await self._step_until(lambda: self._complete)
            await self._read_on()
        finally:
            self._source.close()

    def _look(self, msg: Msg, ack: AckSubject) -> None:
        """Take note of one message."""
        raise NotImplementedError

    async def _read_on(self) -> None:
        """Go on behind the end of what was stored, if need be."""

    async def _step_until(self, done: Callable[[], bool]) -> None:
        with trio.CancelScope(deadline=trio.current_time() + IDLE_LIMIT) as self._patience:
            while not done():
                await self._source.step()
        if not done():
            raise idle_error(self._doing, self._source.refusal)

    def _take(self, msg: Msg, ack: AckSubject, size: int) -> Handed:
        self._patience.deadline = trio.current_time() + IDLE_LIMIT
        self._look(msg, ack)
        if self._complete:
            self._source.wake()
        return Handed.DROPPED

    def _stored_read(self) -> None:
        self._complete = True
        self._source.wake()


class _List(StoredReading, Generic[T]):
    """Keeps what it reads; a later entry of the same place replaces the one before."""

    def __init__(self, entries: Entries[T], start: Start, doing: str) -> None:
        super().__init__(entries, start, doing)
        self._read_one = entries.read
        self._every = start == ALL
        self._found: dict[object, T] = {}

    async def read(self) -> list[T]:
        await self.run()
        return list(self._found.values())

    def _look(self, msg: Msg, ack: AckSubject) -> None:
        place = ack.sequence if self._every else msg.subject
        self._found.pop(place, None)
        entry = self._read_one(msg, ack)
        if entry is not None:
            self._found[place] = entry
