"""A subscription without a channel, below the feeds, and how it is given up without losing what is on its way.

The second is a fence: UNSUB and a PING, behind whose PONG nothing can come any more that the server sent before it knew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import enable_ki_protection

from trionats._protocol.engine import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from trionats._connection.supervisor import Supervisor
    from trionats._protocol.engine import Engine
    from trionats._protocol.registrations import Registration


class Fence:
    """Subscriptions that end with the PONG behind their UNSUB; in a migration, with those of both servers.

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
    # In a migration the other server may have sent something, too.
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
class Attachment:
    """A subscription without a channel: what `Connection.attach` returns."""

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
    def retire(self, late: Callable[[Any], None] | None = None) -> None:
        """Unsubscribe, but go on delivering what the server sent before it knew; then the receiver's `ended` is called.

        Synchronous, idempotent, also after the client. Without a connection `ended` is called at once.

        Args:
            late: Takes what still comes in place of the receiver; as that, it does not wait and does not raise.
        """
        self._supervisor.pace.run.check()
        if late is not None:
            self._registration.deliver = late
        if self._registration.sid in self._engine.registrations and not self._registration.retired:
            retire(self._engine, self._supervisor, [self._registration])
