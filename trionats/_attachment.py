"""The seam below the feeds: a subscription without a channel, and who listens to events.

Split off `_client`; `Client.attach` and `Client.add_listener` lead here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

from trio.lowlevel import enable_ki_protection

from trionats._drain import retire

if TYPE_CHECKING:
    from trionats import events
    from trionats._link import Link
    from trionats._protocol.engine import Engine
    from trionats._protocol.engine import Subscription as Row


class Listener(Protocol):
    """What takes connection events; called synchronously."""

    def push(self, event: events.ConnectionEvent) -> None:
        """Take one event."""

    def end(self, reason: BaseException | None) -> None:
        """Know that there will be no more."""


@final
class Attachment:
    """A subscription on the seam below the feeds: what `Client.attach` returns."""

    __slots__ = ("_engine", "_link", "_row")

    def __init__(self, engine: Engine, link: Link, row: Row) -> None:
        self._engine = engine
        self._link = link
        self._row = row

    @property
    def subject(self) -> str:
        """The subject that was subscribed."""
        return self._row.subject.decode()

    @property
    def sid(self) -> int:
        """The number of the subscription."""
        return self._row.sid

    @enable_ki_protection
    def detach(self) -> None:
        """Unsubscribe: nothing is delivered any more when it returns. Synchronous, idempotent, also after the client."""
        self._link.pace.home.check()
        self._engine.unsubscribe(self._row)
        self._link.wake()

    @enable_ki_protection
    def retire(self) -> None:
        """Unsubscribe, but go on delivering what the server sent before it knew; then the receiver's `ended` is called.

        Synchronous, idempotent, also after the client. Without a connection `ended` is called at once.
        """
        self._link.pace.home.check()
        if self._row.sid in self._engine.subscriptions and not self._row.retired:
            retire(self._engine, self._link, [self._row])
