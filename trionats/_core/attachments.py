"""The seam below the feeds: a subscription without a channel, and who listens to events.

Split off `_client`; `Messaging.attach` and `Client.add_listener` lead here, and so does what the bridge has in their
places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import enable_ki_protection

from trionats import events
from trionats._protocol.engine import Phase
from trionats._protocol.index import Index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats._connection.supervisor import Supervisor
    from trionats._core.messaging import Listener
    from trionats._protocol.engine import Engine
    from trionats._protocol.registrations import Registration


class Fence:
    """Subscriptions that end with the PONG behind their UNSUB; in a planned move, with those of both servers.

    Args:
        engine: Whose subscriptions they are.
        registrations: The subscriptions.
        pongs: How many PONGs are waited for.
    """

    def __init__(self, engine: Engine, registrations: Sequence[Registration], pongs: int = 1) -> None:
        self._engine = engine
        self._registrations = registrations
        self._missing = pongs
        self.passed = trio.Event()
        self.heard = False
        """Whether a PONG has come."""
        self.broken = False
        """Whether it is passed because the connection was lost."""

    def arrived(self) -> None:
        """Pass one PONG: its server sends nothing more."""
        self.heard = True
        self._one_less()

    def failed(self, _: Exception) -> None:
        """Pass one PONG that will not come: its connection, and what was on its way there, is lost."""
        self.broken = True
        self._one_less()

    def open(self) -> None:
        """End them."""
        for registration in self._registrations:
            self._engine.complete(registration)
        self.passed.set()

    def _one_less(self) -> None:
        self._missing -= 1
        if not self._missing:
            self.open()


def retire(engine: Engine, supervisor: Supervisor, registrations: Sequence[Registration]) -> Fence:
    """Unsubscribe, and take what is on its way; without a connection, end at once.

    Args:
        engine: Whose subscriptions they are.
        supervisor: What sends.
        registrations: The subscriptions.

    Returns:
        What says when they have ended.
    """
    beside = engine.beside if registrations else None
    # In a planned move the other server may have sent something, too.
    asked = [each for each in (engine, beside) if each is not None and each.phase is Phase.ONLINE]
    fence = Fence(engine, registrations, len(asked))
    for registration in registrations:
        engine.retire(registration)
    for each in asked:
        each.ping(fence)
    if asked:
        supervisor.wake()
    else:
        fence.open()
    return fence


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


@final
class Attachment:
    """A subscription on the seam below the feeds: what `Messaging.attach` returns."""

    __slots__ = ("_engine", "_registration", "_supervisor")

    def __init__(self, engine: Engine, supervisor: Supervisor, registration: Registration) -> None:
        self._engine = engine
        self._supervisor = supervisor
        self._registration = registration

    @property
    def subject(self) -> str:
        """The subject that was subscribed."""
        return self._registration.subject.decode()

    @property
    def sid(self) -> int:
        """The number of the subscription."""
        return self._registration.sid

    @enable_ki_protection
    def detach(self) -> None:
        """Unsubscribe: nothing is delivered any more when it returns. Synchronous, idempotent, also after the client."""
        self._supervisor.pace.run.check()
        self._engine.unsubscribe(self._registration)
        self._supervisor.wake()

    @enable_ki_protection
    def retire(self) -> None:
        """Unsubscribe, but go on delivering what the server sent before it knew; then the receiver's `ended` is called.

        Synchronous, idempotent, also after the client. Without a connection `ended` is called at once.
        """
        self._supervisor.pace.run.check()
        if self._registration.sid in self._engine.registrations and not self._registration.retired:
            retire(self._engine, self._supervisor, [self._registration])
