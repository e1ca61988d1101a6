"""Who is told what happens to a connection: the events that `messaging.Messaging.emit` takes, and to whom they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats import events
from trionats._protocol.index import Index

if TYPE_CHECKING:
    from trionats._core.messaging import Listener


@final
class Listeners:
    """Who is told what happens to a connection: of everything, or only that the server refused what they publish.

    So a refusal costs the same however many there are that publish.
    """

    def __init__(self, first: Listener) -> None:
        self._to_all: dict[Listener, None] = {first: None}
        self._to_refusals: Index[str, Listener] = Index()
        self._subjects: dict[Listener, str] = {}

    def __len__(self) -> int:
        return len(self._to_all) + len(self._subjects)

    def add(self, listener: Listener, refused: str = "") -> None:
        """Tell somebody from now on.

        Args:
            listener: Who is told.
            refused: The subject whose refused publishes it is told of, and of nothing else; it takes the place of the
                one before. Empty for everything that happens.
        """
        if not refused:
            self._to_all[listener] = None
            return
        self.remove(listener)
        # nats-py, whose client it may be, tells in lower case.
        self._subjects[listener] = subject = refused.lower()
        self._to_refusals.add(subject, listener)

    def remove(self, listener: Listener) -> None:
        """Tell them no more. Idempotent."""
        self._to_all.pop(listener, None)
        subject = self._subjects.pop(listener, None)
        if subject is not None:
            self._to_refusals.remove(subject, listener)

    def emit(self, event: events.ConnectionEvent) -> None:
        """Tell of an event."""
        for listener in list(self._to_all):
            listener.push(event)
            if isinstance(event, events.Closed):
                listener.end(event.reason)
        if isinstance(event, events.PermissionViolation) and event.error.operation == "publish":
            for listener in self._to_refusals.find(event.error.subject.lower()):
                listener.push(event)
