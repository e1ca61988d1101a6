"""One session after another: handshake, subscriptions, pings, what to replay.

Strategy
    The engine has all the state of a client's sessions, and no way to wait. Bytes from the network go in by `receive`, which
    hands messages to their receivers at once and returns what else happened. What there is to say waits in its `outbox`;
    whoever owns the stream takes it from there in batches. The engine outlives sessions: `begin` starts one, `lost` ends
    one, and what must be said again is known in between.

States
    `Phase` says how far the session is. `begin` leads from OFFLINE to GREETING, the server's INFO to GREETED, `greet` to
    PROVING and the PONG behind it to ONLINE; `lost` leads from anywhere back to OFFLINE. Where TLS follows INFO, `secured`
    forgets on the way what anybody may have said (design 25).

    In a migration there are two engines (design 29): the client's own, and one made with it as its `main`, which has the same
    table of registrations and an outbox of its own. `exchange` lets them exchange sessions in the middle of both. What
    belongs to a session is in one object, and goes over with it; the table, the sids and the counters stay.

Invariants
    * CONNECT comes first on every connection, and nothing but PING follows it before the PONG.
    * A sid is never used twice. SUB and UNSUB are never kept for the next connection: they are replayed from the table, with
      what is left of each count.
    * A receiver hears of a loss only of a session that was ONLINE; that it ended it hears once at the most, and last.
    * PONGs come in the order of their PINGs, so a PING is a fence: behind its PONG, all that stands before it has been processed.
    * With a side engine, whatever ends a registration is told to both servers: a queue's messages would still be given to us.

What can go wrong
    The server may complain at any time (`Refused`), and goes on or closes the connection. It may refuse a subscription
    without saying which (`OverLimit`, `admission`; design 51), or for its length, for which it closes every connection that
    replays it (`refuse_overlong`, design 36). It may send what is not the protocol (`Garbage`). The next one may take smaller
    messages than the last one: what waits and is larger is dropped and counted.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any

from trionats import errors
from trionats._protocol import commands
from trionats._protocol.admission import Admissions
from trionats._protocol.happenings import Event, Garbage, InfoChanged, Loss, OverLimit, PongArrived, Refused
from trionats._protocol.index import Index
from trionats._protocol.outbox import Outbox
from trionats._protocol.parser import Info, Message, Parser, Ping, Pong, ServerError
from trionats._protocol.registrations import Registration, name_of
from trionats._protocol.server_errors import is_subscription_limit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trionats._protocol.receivers import Receiver

__all__ = ["CONTROL_LINE", "Engine", "Phase"]

_CONFIDED = ("pass", "auth_token", "jwt", "sig")
_UNTRUSTED = frozenset({"connect_urls", "ws_connect_urls", "ldm"})

#: The longest control line that a server takes unless it is configured otherwise; it does not tell.
CONTROL_LINE = 4096


class Phase(Enum):
    """How far the session is."""

    OFFLINE = "offline"
    GREETING = "waiting for the server's INFO"
    GREETED = "the server waits for CONNECT"
    PROVING = "waiting for the PONG behind CONNECT"
    ONLINE = "online"


class _SessionState:
    """What belongs to one session, and goes over to another engine with it."""

    __slots__ = ("admissions", "confided", "info", "keepalives", "over_limit", "parser", "phase", "pings")

    def __init__(self, message_type: type[Message]) -> None:
        self.parser = Parser(message_type)
        self.phase = Phase.OFFLINE
        self.info: dict[str, Any] = {}
        self.confided: tuple[str, ...] = ()
        self.pings: deque[object] = deque()
        self.admissions = Admissions()
        # The server's words to the last subscription that was too many.
        self.over_limit = ""
        # How many keepalive pings have had no PONG.
        self.keepalives = 0


class Engine:
    """The state of one client's sessions.

    Attributes:
        beside: The other engine, during a migration; see `_protocol.migration`.
        registrations: What is subscribed, by its sid.
        outbox: What there is to say; the same object for as long as there is the engine.
        heard: How often something came: as long as this stays the same, the server is silent.
        in_msgs: Messages that came.
        in_bytes: Their headers and payloads.
    """

    def __init__(self, message_type: type[Message] = Message, *, main: Engine | None = None) -> None:
        self.message_type = message_type
        self.beside: Engine | None = None
        self.registrations: dict[int, Registration] = {} if main is None else main.registrations
        self.outbox = Outbox()
        self.heard = self.in_msgs = self.in_bytes = 0
        self._main = main
        self._named: Index[bytes, Registration] = Index() if main is None else main._named
        self._next_sid = 1
        self._session = _SessionState(message_type)

    # The session.

    @property
    def phase(self) -> Phase:
        """How far the session is."""
        return self._session.phase

    @property
    def info(self) -> dict[str, Any]:
        """What the server has said of itself."""
        return self._session.info

    @property
    def confided(self) -> tuple[str, ...]:
        """What of our login the server must not be quoted with."""
        return self._session.confided

    @property
    def wanted(self) -> int:
        """How many bytes of a payload under way are still missing: a hint for the next read."""
        return self._session.parser.wanted

    def begin(self) -> None:
        """Start a session on a new connection: the server speaks first."""
        self._session.parser = Parser(self.message_type)
        self._session.phase = Phase.GREETING

    def secured(self) -> None:
        """Begin to believe the server, behind the TLS handshake: what was said before it in clear may have been anybody's.

        What INFO said stays as far as the login needs it. Addresses of other servers are forgotten: with our credentials we
        only go where a server says that has proved who it is.
        """
        session = self._session
        session.parser = Parser(self.message_type)
        session.info = {key: value for key, value in session.info.items() if key not in _UNTRUSTED}

    def greet(self, options: Mapping[str, Any]) -> bytes:
        """Introduce us, behind INFO: what to send before anything else.

        Args:
            options: The fields of CONNECT.

        Returns:
            CONNECT and PING; the PONG says that the server accepted us.
        """
        self._session.phase = Phase.PROVING
        self._session.confided = tuple(str(options[field]) for field in _CONFIDED if field in options)
        return commands.connect(options) + commands.PING

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the network: messages go to their receivers, everything else comes back.

        Args:
            data: What was read, cut anywhere.

        Returns:
            What happened besides messages, in order. `Garbage`, if any, is the last.
        """
        events: list[Event] = []
        message_type = self.message_type
        registration_of = self.registrations.get
        messages = size = 0
        for event in self._session.parser.feed(data):
            if event.__class__ is message_type:
                messages += 1
                block = event.header_block
                size += len(event.data) if block is None else len(event.data) + len(block)
                registration = registration_of(event.sid)
                if registration is None:
                    continue
                registration.delivered += 1
                registration.deliver(event)
                if registration.delivered == registration.max_msgs:
                    # Its receiver may have unsubscribed on this very message.
                    self.complete(registration)
            else:
                self._control(event, events)
        self.heard += 1
        self.in_msgs += messages
        self.in_bytes += size
        return events

    def lost(self, reason: Exception) -> Loss:
        """End the session: the connection is gone.

        Publishes that were not taken stay; receivers are told.

        Args:
            reason: Why, for the receivers.

        Returns:
            What this leaves open.
        """
        session = self._session
        was_online = session.phase is Phase.ONLINE
        session.phase = Phase.OFFLINE
        loss = Loss(self.outbox.lost(), [token for token in session.pings if token is not None])
        session.pings.clear()
        session.admissions = Admissions()
        session.keepalives = 0
        if was_online and self._main is None:
            for registration in list(self.registrations.values()):
                registration.receiver.connection_lost(reason)
        return loss

    def exchange(self, other: Engine) -> None:
        """Exchange sessions with another engine, in the middle of both.

        Args:
            other: One that was made with this as its `main`, and is online.
        """
        self._session, other._session = other._session, self._session
        self.outbox.exchange(other.outbox)

    def absorb(self, other: Engine) -> None:
        """Count what another engine has received, once its session is over."""
        self.in_msgs += other.in_msgs
        self.in_bytes += other.in_bytes
        other.in_msgs = other.in_bytes = 0

    # Pings, which are fences.

    def ping(self, token: object = None) -> None:
        """Queue a PING; its PONG gives `PongArrived(token)`, unless the token is None."""
        self._session.pings.append(token)
        self._session.admissions.pinged()
        self.outbox.queue(commands.PING)

    def fence(self, token: object) -> None:
        """Queue a PING as the last that this connection takes: what is queued behind it waits for the next one."""
        self.ping(token)
        self.outbox.hold_back()

    def keepalive(self, most: int) -> bool:
        """Ping an idle peer.

        Args:
            most: How many keepalive pings may be without their PONG.

        Returns:
            False when the peer is to be given up, because so many are.
        """
        if self._session.keepalives >= most:
            return False
        self._session.keepalives += 1
        self.ping()
        return True

    # Subscriptions.

    def subscribe(self, subject: bytes, queue: bytes, max_msgs: int, receiver: Receiver[Any]) -> Registration:
        """Enter a subscription into the table, and tell the server if there is one.

        Args:
            subject: The subject, checked and encoded; wildcards allowed.
            queue: The queue group, or nothing.
            max_msgs: After how many messages it ends by itself; 0 for never.
            receiver: Who takes the messages.
        """
        registration = Registration(self._next_sid, subject, queue, max_msgs, receiver)
        self._next_sid += 1
        self.registrations[registration.sid] = registration
        self._named.add(name_of(subject, queue), registration)
        if self._session.phase is Phase.ONLINE:
            self.tell([registration])
        return registration

    def tell(self, registrations: Sequence[Registration]) -> None:
        """Tell the server of subscriptions."""
        for registration in registrations:
            self.outbox.queue(registration.frames())
            if self._session.admissions.subscribed(registration):
                self.ping()

    def tell_first(self, registrations: Sequence[Registration]) -> None:
        """Tell the server of subscriptions, before anything that is queued."""
        wanted = [each for each in registrations if not each.retired]
        self.outbox.put_first([each.frames() for each in wanted])
        self._session.admissions.replayed(wanted, self.outbox.frames.count(commands.PING))

    def tell_unsubscribed(self, registration: Registration) -> None:
        """Tell the server that a subscription is over."""
        self.outbox.queue(commands.unsub(registration.sid))
        if self._session.admissions.unsubscribed(registration):
            self.ping()

    def unsubscribe(self, registration: Registration) -> None:
        """Take a subscription out of the table, and tell the server if there is one. Idempotent."""
        if self._take_out(registration):
            self._tell_unsubscribed(registration)

    def retire(self, registration: Registration) -> None:
        """Tell the server that no more is wanted, and go on taking what it has sent already. Idempotent.

        It stays in the table until `complete`, which is due with the PONG behind this, or with the connection's end.
        """
        if not registration.retired and registration.sid in self.registrations:
            self._tell_unsubscribed(registration)
            registration.retired = True

    def complete(self, registration: Registration) -> None:
        """End a subscription that has had all it will get. Idempotent."""
        if self._take_out(registration):
            if not registration.retired:
                self._session.admissions.unsubscribed(registration)
            registration.receiver.ended(None)

    def _take_out(self, registration: Registration) -> bool:
        self._named.remove(name_of(registration.subject, registration.queue), registration)
        return self.registrations.pop(registration.sid, None) is not None

    def _tell_unsubscribed(self, registration: Registration) -> None:
        if registration.retired:
            return
        if self._session.phase is Phase.ONLINE:
            self.tell_unsubscribed(registration)
        if self.beside is not None and self.beside.phase is Phase.ONLINE:
            # A queue's messages would still be given to us there, and to nobody else. A sid that is not known is ignored.
            self.beside.tell_unsubscribed(registration)

    def end_all(self, reason: BaseException | None) -> None:
        """End every subscription, telling the receivers why, and the server if there is one."""
        for registration in list(self.registrations.values()):
            self.unsubscribe(registration)
            registration.receiver.ended(reason)

    def refuse_subscription(self, subject: str, queue: str, error: Exception) -> bool:
        """End the subscriptions that the server refused.

        Args:
            subject: The subject it named.
            queue: The queue group it named, or nothing.
            error: What their receivers are told.

        Returns:
            Whether there was one.
        """
        # The server may name what we never subscribed, in characters that do not exist.
        wanted = (subject.encode(errors="replace"), queue.encode(errors="replace"))
        refused = self._named.find(name_of(*wanted))
        for registration in refused:
            self._take_out(registration)
            registration.receiver.ended(error)
        self._session.admissions.denied(*wanted)
        return bool(refused)

    def over_limit(self) -> list[Registration]:
        """Say, once for each `OverLimit`, which subscriptions were refused that are still wanted; `refuse` ends each."""
        return [each for each in self._session.admissions.settle() if each.sid in self.registrations]

    def refuse(self, registration: Registration, error: Exception) -> None:
        """End one subscription that the server refused. Idempotent.

        Args:
            registration: The subscription.
            error: What its receiver is told.
        """
        if not self._take_out(registration):
            return
        for other in (self.beside, self._main):
            # In a migration the other side may have taken it.
            if other is not None and other.phase is Phase.ONLINE:
                other.tell_unsubscribed(registration)
        registration.receiver.ended(error)

    def refuse_overlong(self, error: Exception) -> None:
        """End the subscriptions whose SUB is longer than what servers take by default.

        For a server that went because of an overlong line: replayed, they would end every connection that follows.

        Args:
            error: What their receivers are told.
        """
        for registration in list(self.registrations.values()):
            if len(commands.sub(registration.subject, registration.queue, registration.sid)) > CONTROL_LINE:
                self._take_out(registration)
                registration.receiver.ended(error)

    def drop_oversized(self) -> None:
        """Drop the publishes that wait and are more than the server takes; a program's are counted (`Outbox.oversized`)."""
        limit = self._session.info.get("max_payload")
        if isinstance(limit, int) and limit > 0:
            self.outbox.drop_oversized(limit)

    # Inside.

    def _control(self, event: object, events: list[Event]) -> None:
        session = self._session
        match event:
            case Ping():
                self.outbox.queue(commands.PONG)
            case Pong():
                self._pong(events)
            case Info():
                # The first one of a session describes the server; later ones name what changed.
                if session.phase is Phase.GREETING:
                    session.info = event.fields
                    session.phase = Phase.GREETED
                else:
                    session.info = {**session.info, **event.fields}
                events.append(InfoChanged(event.fields))
            case ServerError():
                if is_subscription_limit(event.text):
                    session.over_limit = event.text
                    if session.admissions.refused():
                        self.ping()
                events.append(Refused(event.text))
            case errors.ProtocolError():
                events.append(Garbage(event))
            case _:
                pass

    def _pong(self, events: list[Event]) -> None:
        session = self._session
        if session.phase is Phase.PROVING:
            self._go_online()
            return
        session.keepalives = 0
        if not session.pings:
            return
        token = session.pings.popleft()
        if session.admissions.ponged():
            events.append(OverLimit(session.over_limit))
        if token is not None:
            events.append(PongArrived(token))

    def _go_online(self) -> None:
        self._session.phase = Phase.ONLINE
        if self._main is not None:
            return
        self.drop_oversized()
        self.tell_first(list(self.registrations.values()))
        for registration in list(self.registrations.values()):
            registration.receiver.connection_restored()
