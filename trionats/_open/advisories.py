"""open_advisories: what servers tell of JetStream, as a feed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from trio.lowlevel import checkpoint

from trionats import events
from trionats._feeds.feed import Feed, feeding
from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.context import JetStream, jetstream_of
from trionats._protocol.jetstream.advisories import checked_kinds, patterns, read
from trionats._protocol.receivers import Intake
from trionats._protocol.server_errors import REFUSALS, refusal_of
from trionats._protocol.subjects import publish_subject
from trionats.advisories import Advisory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import trio

    from trionats._core.message import Msg
    from trionats._core.messaging import Attached, Messaging

__all__ = ["Advisories", "open_advisories"]

#: How many may wait before the oldest are dropped, and how many bytes of them: an audit repeats a request and its response.
CAPACITY: Final = 65_536
CAPACITY_BYTES: Final = 64 * 1024 * 1024
#: What advisories and metrics are published under, unless an account imports them as something else.
PREFIX: Final = "$JS.EVENT"


@final
class Advisories(Feed[Advisory]):
    """What servers tell of JetStream: what `open_advisories` gives."""

    def __init__(
        self, connection: Messaging, prefix: str, kinds: tuple[type[Advisory], ...], domain: str | None
    ) -> None:
        super().__init__("advisories", CAPACITY, connection)
        self._connection = connection
        self._prefix, self._kinds, self._domain = prefix, kinds, domain
        self._attached: list[Attached] = []
        # Of those that wait, in their order.
        self._sizes: deque[int] = deque()
        self._bytes = self._dropped = 0
        self._slow = False

    @property
    def dropped(self) -> int:
        """How many were dropped, the oldest first, because nobody received them."""
        return self._dropped

    # Inside.

    def _attach(self, subjects: Sequence[str]) -> None:
        for subject in subjects:
            self._attached.append(self._connection.attach(subject, Intake(self._deliver, self._over)))

    def _deliver(self, message: Msg) -> None:
        advisory = self._connection.foreign.read("advisories", read, message.subject, message.data)
        if not isinstance(advisory, self._kinds) or self._domain not in (None, advisory.domain):
            return
        size = len(message.data)
        # What is in the hands of who receives is not there any more, though it still counts.
        while len(self) and (len(self) >= CAPACITY or self._bytes + size > CAPACITY_BYTES):
            self._receive.receive_nowait()
            self._bytes -= self._sizes.popleft()
            self._dropped += 1
            if not self._slow:
                self._slow = True
                self._connection.emit(events.SlowConsumer(f"{self._prefix}.>", self._dropped))
        if self._put(advisory):
            self._sizes.append(size)
            self._bytes += size

    def _taken(self, item: Advisory) -> None:
        self._bytes -= self._sizes.popleft()
        if self._slow:
            self._slow = len(self._sizes) > CAPACITY / 2 or self._bytes > CAPACITY_BYTES / 2

    def _over(self, reason: BaseException | None) -> None:
        self._end(refusal_of(self._name, reason) if isinstance(reason, REFUSALS) else reason)

    def _undo(self) -> None:
        for attached in self._attached:
            attached.detach()
        # Each knows the feed, too: no circle for the garbage collector.
        self._attached.clear()


@opens
async def open_advisories(
    nursery: trio.Nursery, js: JetStream, *kinds: type[Advisory], prefix: str = PREFIX
) -> AsyncIterator[Advisories]:
    """Listen to what servers tell of JetStream: advisories and metrics.

    Servers publish them once, and only where somebody listens, so what is told while there is no connection is not heard. Entering queues
    the subscriptions and is a checkpoint; it does not wait for the server (`Client.flush` does). Leaving is as for
    `open_subscription`.

    They come in the order in which the server sends them, which need not be that of what happened. One whose kind is not known here is an `Advisory` with all that the server said; one that cannot be read is left out, counted and told
    as an `events.ForeignDataSkipped`. Reader and server never wait for who receives: beyond 65,536 advisories or 64 MiB of
    them the oldest are dropped and counted (`Advisories.dropped`), with one `events.SlowConsumer` for each episode.

    Over a leaf node, servers of both sides are heard. A context that was made for a domain (`Client.jetstream(domain=)`) hears that one
    alone. What concerns servers and not streams is told to the system account, so it is heard by a client of that.

    It ends as every feed does. `receive` raises `trionats.errors.PermissionsViolationError` when the server refuses a
    subject of it; each kind has its own, so a user needs to be allowed no more than the kinds that are asked for.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        js: The context, of a client.
        kinds: Which kinds: classes of `trionats.advisories`. None for all, those that are not known here among them.
        prefix: What their subjects begin with, where an account has imported them as something else.

    Returns:
        An async context manager that gives the feed.

    Raises:
        TypeError: `js` is no `JetStream`, or a kind is none.
        nats.errors.BadSubjectError: The prefix is none.
        nats.errors.ConnectionDrainingError: The client is being drained.
        nats.errors.ConnectionClosedError: The client is closed.
    """
    check_nursery(nursery, "open_advisories")
    jetstream = jetstream_of(js, "open_advisories")
    wanted = checked_kinds(kinds)
    publish_subject(prefix)
    await checkpoint()
    feed = Advisories(jetstream.connection, prefix, wanted, jetstream.whereabouts.chosen)
    async with feeding(nursery, feed):
        feed._attach(patterns(prefix, wanted))
        yield feed
