"""open_events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from trio.lowlevel import checkpoint

from trionats import events
from trionats._core.messaging import messaging_of
from trionats._feeds.feed import Feed, feeding
from trionats._feeds.opening import check_nursery, opens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import trio

    from trionats._client import Client
    from trionats._core.messaging import Messaging

#: How many events may wait before the oldest are dropped: more than a reconnect gives in an hour.
EVENTS_CAPACITY = 1024


@dataclass(frozen=True, slots=True, eq=False)
class _Listener:
    """A listener made of two callables, so that a feed does not show them as its own methods."""

    push: Callable[[events.ConnectionEvent], None]
    end: Callable[[BaseException | None], None]


@final
class Events(Feed[events.ConnectionEvent]):
    """What happens to a connection: what `open_events` gives."""

    _outlasts = True

    def __init__(self, connection: Messaging) -> None:
        super().__init__("events", EVENTS_CAPACITY, connection)
        self._connection = connection
        self._listener: _Listener | None = None
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many events were dropped, the oldest first, because nobody received them."""
        return self._dropped

    def _push(self, event: events.ConnectionEvent) -> None:
        if len(self) >= EVENTS_CAPACITY:
            self._receive.receive_nowait()
            self._dropped += 1
        self._put(event)

    def _listen(self) -> None:
        self._listener = _Listener(self._push, self._end)
        self._connection.add_listener(self._listener)

    def _undo(self) -> None:
        if self._listener is not None:
            self._connection.remove_listener(self._listener)
            # The listener knows the feed, too: no circle for the garbage collector.
            self._listener = None


@opens
async def open_events(nursery: trio.Nursery, nc: Client) -> AsyncIterator[Events]:
    """Watch what happens to a client's connection.

    Entering and leaving are as for `open_subscription`. A reader that never receives delays nothing: beyond 1,024
    waiting events the oldest are dropped, and counted. The last event is `trionats.events.Closed`; on a client that is
    closed already it is the only one.

    Args:
        nursery: Where the feeding task lives.
        nc: The client.

    Returns:
        An async context manager that gives the feed of `trionats.events.ConnectionEvent`.
    """
    check_nursery(nursery, "open_events")
    connection = messaging_of(nc, "open_events")
    await checkpoint()
    feed = Events(connection)
    async with feeding(nursery, feed):
        feed._listen()
        yield feed
