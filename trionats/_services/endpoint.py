"""An endpoint: the requests to one subject, as a feed.

Stopping
    ends it behind the PONG of its UNSUB: what the server gave us before it knew is handed over (decision 28). The server gives
    nothing more from there on, but to the other members of the queue group; so nobody's request is lost.

Being left
    in whatever way (the block, the nursery, the client closed) ends it at once. What is buffered then, and what still comes until
    that PONG, is answered with an error: nobody waits in vain. What finds no place is answered so, too.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import trio
from trio.lowlevel import enable_ki_protection

from trionats import events
from trionats._feeds.bounded import BoundedFeed
from trionats._feeds.feed import feeding
from trionats._protocol.receivers import Intake
from trionats._protocol.services.answers import as_json
from trionats._protocol.services.deadlines import mentions, seconds_left
from trionats._protocol.services.failures import BUSY, LATE, STOPPED
from trionats._services.request import Desk, ServiceRequest
from trionats.api import EndpointInfo, EndpointStats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trionats._core.attachments import Attachment
    from trionats._core.connection import Connection
    from trionats._core.message import Msg

__all__ = ["PENDING_MSGS", "Endpoint", "Sign", "StatsHandler", "opened"]

#: How many requests may wait, unless somebody says otherwise; and how many bytes of them.
PENDING_MSGS: Final = 65_536
PENDING_BYTES: Final = 64 * 1024 * 1024

if TYPE_CHECKING:
    StatsHandler = Callable[[EndpointStats], object]


@final
class Sign(NamedTuple):
    """What stands at the door of an endpoint.

    Attributes:
        service: The service's name.
        name: Its name.
        subject: Where its requests go.
        queue: Its queue group; an empty string for none.
        metadata: What its program says of it besides.
        stats_handler: What its program tells of it in the statistics.
        pending_msgs_limit: How many requests may wait.
        honour_deadline: Whether it looks at deadlines that travel.
    """

    service: str
    name: str
    subject: str
    queue: str
    metadata: dict[str, str]
    stats_handler: StatsHandler | None
    pending_msgs_limit: float
    honour_deadline: bool


@final
class Endpoint(BoundedFeed[ServiceRequest]):
    """The requests to one subject: what `open_endpoint` gives.

    Args:
        connection: Through what they come.
        sign: What it is.
        groups: The groups it is in, up to the service.
        entered: Called when it is about to subscribe.
        left: Called when nobody receives any more.
    """

    def __init__(
        self,
        connection: Connection,
        sign: Sign,
        groups: Sequence[object],
        entered: Callable[[Endpoint], None],
        left: Callable[[Endpoint], None],
    ) -> None:
        limits: Any = sign.pending_msgs_limit, PENDING_BYTES, "drop_new"
        super().__init__(f"endpoint {sign.subject!r}", connection, sign.subject, *limits)
        self._connection = connection
        self._entered, self._gone = entered, left
        self._attachment: Attachment | None = None
        self.sign = sign
        self.desk = Desk(connection, self._name, groups)

    @enable_ki_protection
    def stop(self) -> None:
        """End it behind the PONG of its UNSUB: what the server gave us before is handed over, and then the loop ends.

        Synchronous and idempotent; call it from any task of this Trio run, also from inside the loop. Without a connection it
        ends at once.
        """
        self._pace.run.check()
        if self._attachment is not None:
            self._attachment.retire()

    # For the service.

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self._ended

    def info(self) -> EndpointInfo:
        """Say what it is."""
        sign = self.sign
        return EndpointInfo(sign.name, sign.subject, sign.queue, dict(sign.metadata))

    def stats(self) -> EndpointStats:
        """Say what it has done, with what its program has to add; where that fails, without, and it is told."""
        sign = self.sign
        stats = self.desk.tally.stats(sign.name, sign.subject, sign.queue)
        if sign.stats_handler is not None:
            try:
                data = as_json(sign.stats_handler(replace(stats)))
            except Exception as error:  # it is the program's, and no reason for others to learn nothing
                self.tell(error)
            else:
                stats.data = data
        return stats

    def tell(self, error: Exception) -> None:
        """Tell that a handler of its program failed."""
        self._connection.emit(events.HandlerFailed(self.sign.service, self.sign.name, error))

    def let_go(self) -> None:
        """Take note that the current task is done with what it took, and will not come back."""
        self._busy.came_back()

    def over(self, reason: BaseException | None) -> None:
        """End it at once: None on purpose, else why."""
        if self._ended:
            return
        closing = reason is None and not self._connection.accepting
        self._end(reason)
        if closing:
            # Nobody could respond to it any more.
            self._refuse_buffered()

    def attach(self) -> None:
        """Subscribe."""
        self._entered(self)
        receiver = Intake(self._arrived, self.over)
        self._attachment = self._connection.attach(self._subject, receiver, queue=self.sign.queue)

    async def confirm(self) -> None:
        """Wait until the server has its subscription.

        Raises:
            nats.errors.Error: It has refused it, or says nothing, or the client was lost.
        """
        await self._connection.confirm(self._name)
        if self._failure is not None:
            raise self._why()

    # Inside.

    def _arrived(self, message: Msg) -> None:
        self.desk.tally.requests += 1
        deadline = inf
        if self.sign.honour_deadline and mentions(message.header_block):
            deadline = trio.current_time() + seconds_left(message.headers)
        self._deliver(ServiceRequest(self.desk, message, deadline))

    def _taken(self, item: ServiceRequest) -> bool | None:
        super()._taken(item)
        if item.deadline != inf and item.deadline <= trio.current_time():
            item.__give_up__(LATE)
            return True
        return None

    def _measure(self, message: ServiceRequest) -> int:
        return message.size

    def _slowed(self, message: ServiceRequest) -> None:
        self._connection.emit(events.SlowConsumer(self._subject, self._dropped))

    def _overflowed(self, message: ServiceRequest, size: int) -> None:
        dropped = self._dropped
        super()._overflowed(message, size)
        if self._dropped > dropped:
            message.__refuse__(BUSY)

    def _undo(self) -> None:
        if self._attachment is not None:
            self._attachment.retire(self._arrived_late)
            self._attachment = None

    def _arrived_late(self, message: Msg) -> None:
        ServiceRequest(self.desk, message, inf).__refuse__(STOPPED)

    @enable_ki_protection
    def _leave(self) -> None:
        self._end(None)
        self._refuse_buffered()
        super()._leave()
        self._gone(self)

    def _refuse_buffered(self) -> None:
        try:
            while True:
                self._receive.receive_nowait().__refuse__(STOPPED)
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            pass


@asynccontextmanager
async def opened(nursery: trio.Nursery, endpoint: Endpoint) -> AsyncIterator[Endpoint]:
    """Have an endpoint for as long as the block lasts; entering waits until the server gives it requests.

    Args:
        nursery: Where its task lives.
        endpoint: The endpoint, which is over afterwards.

    Raises:
        nats.errors.Error: The server refuses it, or says nothing.
    """
    async with feeding(nursery, endpoint):
        endpoint.attach()
        await endpoint.confirm()
        yield endpoint
