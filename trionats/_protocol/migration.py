"""A planned migration: two sessions at once, and which of them hears what.

A server in lame duck mode asks its clients to go. So that nothing in flight is lost, the new connection comes first, and the
old one stays for a while (design 29). Each subscription goes over in one of three ways:

* `OVERLAP`: it is on both sides for a while. Queue subscriptions, since the servers give each message to one member of the
  group, whichever connection it is on; and receivers that say that they ignore what comes twice (the replies to
  requests). A queue subscription with a count does not: the server would give us more than the count, and nobody else
  would get what is too much.
* `FENCE`: it is on one side at a time. UNSUB and PING go to the old server, and only when the PONG says that nothing will
  come from there any more is the new one told. So no message comes twice. One can be missed: what is published between
  the old server's UNSUB and the moment in which the whole cluster knows of the new SUB (design 30).
* `STAY`: inboxes are where replies in flight come in, so they stay on the old side while they are open and the old side
  lasts. Those that outlast it cross like the others, and their receivers are told as of a lost connection, since a reply may
  have been missed.

The same PING holds back what is published: it goes to the old server before the fence and to the new one behind it, so
that a subscriber never sees the two in the wrong order.

Stages
    `arrive` when the newcomer has logged in: what may overlap is subscribed there, and a PING stands behind it.
    `switch` once that PONG has come: the engines exchange their sessions, and the fence goes to the old server. Until its
    PONG comes, the new session's writer writes nothing.
    `crossed` when the PONG of the fence has come, or the old server is gone: what crossed is subscribed on the new side, in front of
    what was queued meanwhile.
    `unqueue` a little later ends the overlap of queue subscriptions; `leave`, when nobody waits for the old side any more, asks for
    its last PONG; `close`, when that has come or the old side is gone, brings over what stayed.

Invariants
    * No subscription but one that overlaps is on both sides at any time.
    * What was published is on one side, once, and in order.
    * A subscription that is given up at any stage is given up on both sides; one that is made anew is made on the client's own side.
    * Whose messages may have been missed is told (`connection_lost`, `connection_restored`); nobody else is.

What can go wrong
    The newcomer is lost before the switch, or the old side is: `abandon`, and the client reconnects as ever. The old side goes between
    switch and fence: everybody is told. The new side is lost before `close`: all is replayed, and `close` changes nothing. The new
    server takes smaller messages: what is too large is dropped at the fence, and counted.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeGuard

from trionats._protocol.engine import Engine, Phase

if TYPE_CHECKING:
    from trionats._protocol.registrations import Registration

QUEUE_OVERLAP = 0.25
"""Seconds for which queue subscriptions are on both sides: until the cluster knows of the new one."""
LONGEST_STAY = 10.0
"""Seconds that the old side waits for replies in flight."""


class IgnoresRepeats(Protocol):
    """A receiver to whom it is the same whether a message comes once or twice."""

    ignores_repeats: bool

    def waiting(self) -> frozenset[str]:
        """Name the replies that are waited for."""


def ignores_repeats(receiver: object) -> TypeGuard[IgnoresRepeats]:
    """Say whether it is one; asking the protocol itself would take longer than all else that is done with a subscription."""
    return getattr(receiver, "ignores_repeats", False) is True


class Way(Enum):
    """How a subscription goes over."""

    OVERLAP = "on both sides for a while"
    FENCE = "on one side at a time"
    STAY = "on the old side while that lasts"


def way(registration: Registration, inbox_prefix: bytes) -> Way:
    """Say how a subscription goes over.

    Args:
        registration: The subscription.
        inbox_prefix: What the client's inboxes begin with, with a dot at its end.
    """
    if ignores_repeats(registration.receiver) or (registration.queue and not registration.max_msgs):
        return Way.OVERLAP
    return Way.STAY if registration.for_replies or registration.subject.startswith(inbox_prefix) else Way.FENCE


class Migration:
    """One migration, from the newcomer's greeting to the old side's end.

    Args:
        engine: The client's engine: the old session before `switch`, the new one from there on.
        inbox_prefix: What the client's inboxes begin with, with a dot at its end.
    """

    def __init__(self, engine: Engine, inbox_prefix: bytes) -> None:
        self._engine = engine
        self._prefix = inbox_prefix
        self.side = Engine(engine.message_type, main=engine)
        """The other session: the new one before `switch`, the old one from there on."""
        self._on_both: set[int] = set()
        self._crossing: list[Registration] = []
        self._staying: list[Registration] = []

    def arrive(self, token: object) -> None:
        """Subscribe on the newcomer what may be on both sides.

        Args:
            token: For the PING behind it.
        """
        self._engine.beside = self.side
        for registration in self._registrations(Way.OVERLAP):
            self.side.tell([registration])
            self._on_both.add(registration.sid)
        self.side.ping(token)

    def abandon(self) -> None:
        """Forget the newcomer: it, or the old side, was lost before `switch`."""
        self._engine.beside = None
        self._engine.absorb(self.side)

    def switch(self, token: object) -> None:
        """Make the newcomer the client's session; what was queued so far still goes to the old server.

        Args:
            token: For the PING that is the fence.
        """
        engine, side = self._engine, self.side
        late = [each for each in self._registrations(Way.OVERLAP) if each.sid not in self._on_both]
        self._crossing = self._registrations(Way.FENCE)
        self._staying = self._registrations(Way.STAY)
        engine.exchange(side)
        engine.tell_first(late)
        for registration in self._crossing:
            side.tell_unsubscribed(registration)
        side.ping(token)

    def crossed(self, reason: Exception | None) -> None:
        """Subscribe on the new side what crossed the fence, in front of what was queued meanwhile.

        Args:
            reason: Why there was no fence: the old side is gone. Then receivers are told, since replies may be missing.
        """
        self._engine.drop_oversized()
        self._bring_over(self._crossing)
        if reason is not None:
            self._bring_over(self._staying)
            self._staying = []
            self._tell(list(self._engine.registrations.values()), reason)

    def unqueue(self) -> None:
        """End the overlap of the queue subscriptions."""
        for registration in self._registrations(Way.OVERLAP):
            if registration.queue:
                self._unsubscribe(registration)

    @property
    def awaited(self) -> bool:
        """Whether an inbox that stayed on the old side is still open."""
        return any(map(self._is_open, self._staying))

    def leave(self, token: object) -> None:
        """Unsubscribe the inboxes from the old side, and ask for its last PONG.

        Args:
            token: For the PING.
        """
        for registration in self._staying:
            self._unsubscribe(registration)
        self.side.ping(token)

    def close(self, reason: Exception, *, still: bool) -> None:
        """Bring over what stayed, and forget the old side.

        Args:
            reason: What the receivers of what stayed are told.
            still: The new session is the one that this migration made. Otherwise everything was, or will be, replayed,
                and the receivers were told.
        """
        self._engine.beside = None
        self._engine.absorb(self.side)
        if not still:
            return
        staying = list(filter(self._is_open, self._staying))
        self._bring_over(staying)
        self._tell(staying, reason)

    # Inside.

    def _registrations(self, wanted: Way) -> list[Registration]:
        return [
            registration
            for registration in self._engine.registrations.values()
            if not registration.retired and way(registration, self._prefix) is wanted
        ]

    def _is_open(self, registration: Registration) -> bool:
        return registration.sid in self._engine.registrations

    def _bring_over(self, registrations: list[Registration]) -> None:
        self._engine.tell_first(list(filter(self._is_open, registrations)))

    def _unsubscribe(self, registration: Registration) -> None:
        if self._is_open(registration) and self.side.phase is Phase.ONLINE:
            self.side.tell_unsubscribed(registration)

    def _tell(self, registrations: list[Registration], reason: Exception) -> None:
        for registration in registrations:
            registration.receiver.connection_lost(reason)
        for registration in registrations:
            if self._is_open(registration):
                registration.receiver.connection_restored()
