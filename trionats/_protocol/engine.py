"""One session: handshake, sids, pings, what to replay.

Strategy: the engine owns all state that a connection to NATS has, and no way to wait. Bytes from the network go in by
`receive`, which hands messages to their subscription's receiver at once and returns what else happened. Frames to send
gather in the outbox; whoever owns the stream takes them in batches. It outlives connections: `begin` starts a
session, `lost` ends one, and what must be said again is known in between.

Invariants:
* A frame in the outbox is whole. What was taken is never put back: it may or may not have arrived (`lost` counts it).
* Disconnected, only publishes gather in the outbox; SUB and UNSUB are replayed from the table, with the remaining count.
* What is counted as waiting or lost are the publishes that a program asked for, and not our own (`commands.Aside`).
* CONNECT comes first on every connection, and nothing but PING follows it before the PONG.
* A sid is never used twice.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Any

from trionats import errors
from trionats._protocol import commands
from trionats._protocol.admission import Admissions
from trionats._protocol.commands import Passing, is_programs, is_publish
from trionats._protocol.happenings import Event, Garbage, InfoChanged, Loss, OverLimit, PongArrived, Refused
from trionats._protocol.index import Index
from trionats._protocol.numbering import Numbering
from trionats._protocol.parser import Info, Message, Parser, Ping, Pong, ServerError
from trionats._protocol.registrations import Registration, name_of
from trionats._protocol.server_errors import is_subscription_limit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trionats._protocol.receivers import Receiver


_CONVERSATION = (
    "_parser",
    "_pings",
    "_admissions",
    "_over_limit",
    "_unanswered",
    "_sending",
    "phase",
    "info",
    "confided",
)
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


class Engine:
    """The state of one client's session with its servers."""

    def __init__(self, message_type: type[Message] = Message, *, main: Engine | None = None) -> None:
        self.message_type = message_type
        self._aside = main is not None
        self._main = main
        self.beside: Engine | None = None
        """A second session, during a planned move; see `_protocol.move`."""
        self._parser = Parser(message_type)
        self._next_sid = 1
        self._pings: deque[object] = deque()
        self._admissions: Admissions = Admissions()
        self._over_limit = ""
        self._last: int | None = None
        """The number of the last frame that this connection is to take; None for no end."""
        self._unanswered = 0
        self._sending: list[bytes] = []
        self.phase = Phase.OFFLINE
        self.info: dict[str, Any] = {}
        self.registrations: dict[int, Registration] = {} if main is None else main.registrations
        self._named: Index[bytes, Registration] = Index() if main is None else main._named
        self.outbox: list[bytes] = []
        self.outbox_bytes = 0
        self._numbers = Numbering()
        self.heard = 0
        """How often something came: as long as this stays the same, the server is silent."""
        self.in_msgs = 0
        self.in_bytes = 0
        self._controls = 0
        self.out_bytes = 0
        self.confided: tuple[str, ...] = ()
        """What of our login the server must not be quoted with."""
        self.oversized = 0
        """Publishes that were dropped because the new server takes less than the last one; whoever tells it sets it to 0."""

    # The session.

    def begin(self) -> None:
        """Start a session on a new connection: the server speaks first."""
        self._parser = Parser(self.message_type)
        self.phase = Phase.GREETING

    def secured(self) -> None:
        """Know that TLS begins here: what was said before it in clear may have been anybody's.

        What INFO said stays as far as the login needs it. Addresses of other servers are forgotten: with our credentials we
        only go where a server says that has proved who it is.
        """
        self._parser = Parser(self.message_type)
        self.info = {key: value for key, value in self.info.items() if key not in _UNTRUSTED}

    def greet(self, options: Mapping[str, Any]) -> bytes:
        """Answer INFO: what to send before anything else.

        Args:
            options: The fields of CONNECT.

        Returns:
            CONNECT and PING; the PONG says that the server accepted us.
        """
        self.phase = Phase.PROVING
        self.confided = tuple(str(options[field]) for field in _CONFIDED if field in options)
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
        subscription_of = self.registrations.get
        messages = size = 0
        for event in self._parser.feed(data):
            if event.__class__ is message_type:
                messages += 1
                block = event.header_block
                size += len(event.data) if block is None else len(event.data) + len(block)
                subscription = subscription_of(event.sid)
                if subscription is None:
                    continue
                subscription.delivered += 1
                subscription.deliver(event)
                if subscription.delivered == subscription.max_msgs:
                    # Its receiver may have unsubscribed on this very message.
                    self.complete(subscription)
            else:
                self._control(event, events)
        self.heard += 1
        self.in_msgs += messages
        self.in_bytes += size
        return events

    @property
    def wanted(self) -> int:
        """How many bytes of a payload under way are still missing: a hint for the next read."""
        return self._parser.wanted

    def lost(self, reason: Exception) -> Loss:
        """End the session: the connection is gone.

        Frames that were not taken stay if they are publishes; receivers are told.

        Args:
            reason: Why, for the receivers.

        Returns:
            What this leaves open.
        """
        was_online = self.phase is Phase.ONLINE
        self.phase = Phase.OFFLINE
        loss = Loss(
            frames=sum(map(is_programs, self._sending)), pings=[token for token in self._pings if token is not None]
        )
        self._sending = []
        self._pings.clear()
        self._admissions = Admissions()
        self._unanswered = 0
        self._last = None
        passing = [frame for frame in self.outbox if frame.__class__ is Passing]
        self._controls += len(passing)
        self.out_bytes -= sum(map(commands.publish_size, passing))
        self.outbox = [frame if is_publish(frame) and frame.__class__ is not Passing else b"" for frame in self.outbox]
        self.outbox_bytes = sum(map(len, self.outbox))
        self._close_gaps()
        if was_online and not self._aside:
            for subscription in list(self.registrations.values()):
                subscription.receiver.connection_lost(reason)
        return loss

    def exchange(self, other: Engine) -> None:
        """Take over another engine's session, and give it ours, in the middle of both.

        The outbox goes with the session that it was meant for: what waits in ours counts as taken from now on.

        Args:
            other: One that was made with this as its `main`, and is online.
        """
        mine, theirs = self.outbox, other.outbox
        for name in _CONVERSATION:
            kept = getattr(self, name)
            setattr(self, name, getattr(other, name))
            setattr(other, name, kept)
        self._numbers.emptied(len(mine))
        self._last = None
        self.outbox, self.outbox_bytes = [], 0
        other.outbox, other.outbox_bytes = mine, sum(map(len, mine))
        self.put_first(theirs)

    def absorb(self, other: Engine) -> None:
        """Count what another engine has received, once its session is over."""
        self.in_msgs += other.in_msgs
        self.in_bytes += other.in_bytes
        other.in_msgs = other.in_bytes = 0

    # Subscriptions.

    def subscribe(self, subject: bytes, queue: bytes, max_msgs: int, receiver: Receiver[Any]) -> Registration:
        """Enter a subscription into the table, and tell the server if there is one.

        Args:
            subject: The subject, checked and encoded; wildcards allowed.
            queue: The queue group, or nothing.
            max_msgs: After how many messages it ends by itself; 0 for never.
            receiver: Who takes the messages.
        """
        subscription = Registration(self._next_sid, subject, queue, max_msgs, receiver)
        self._next_sid += 1
        self.registrations[subscription.sid] = subscription
        self._named.add(name_of(subject, queue), subscription)
        if self.phase is Phase.ONLINE:
            self.tell([subscription])
        return subscription

    def tell(self, rows: Sequence[Registration]) -> None:
        """Tell the server of subscriptions."""
        for row in rows:
            self.queue(row.frames())
            if self._admissions.subscribed(row):
                self.ping()

    def tell_first(self, rows: Sequence[Registration]) -> None:
        """Tell the server of subscriptions, before anything that is queued."""
        rows = [row for row in rows if not row.retired]
        self.put_first([row.frames() for row in rows])
        self._admissions.replayed(rows, self.outbox.count(commands.PING))

    def tell_unsubscribed(self, row: Registration) -> None:
        """Tell the server that a subscription is over."""
        self.queue(commands.unsub(row.sid))
        if self._admissions.unsubscribed(row):
            self.ping()

    def unsubscribe(self, subscription: Registration) -> None:
        """Take a subscription out of the table, and tell the server if there is one. Idempotent."""
        if self._take_out(subscription):
            self._tell_unsubscribed(subscription)

    def retire(self, subscription: Registration) -> None:
        """Tell the server that no more is wanted, and go on taking what it has sent already. Idempotent.

        The row stays until `complete`, which is due with the PONG behind this, or with the connection's end.
        """
        if not subscription.retired and subscription.sid in self.registrations:
            self._tell_unsubscribed(subscription)
            subscription.retired = True

    def complete(self, subscription: Registration) -> None:
        """End a subscription that has had all it will get. Idempotent."""
        if self._take_out(subscription):
            if not subscription.retired:
                self._admissions.unsubscribed(subscription)
            subscription.receiver.ended(None)

    def _take_out(self, subscription: Registration) -> bool:
        self._named.remove(name_of(subscription.subject, subscription.queue), subscription)
        return self.registrations.pop(subscription.sid, None) is not None

    def _tell_unsubscribed(self, subscription: Registration) -> None:
        if subscription.retired:
            return
        if self.phase is Phase.ONLINE:
            self.tell_unsubscribed(subscription)
        if self.beside is not None and self.beside.phase is Phase.ONLINE:
            # A queue's messages would still be given to us there, and to nobody else. A sid that is not known is ignored.
            self.beside.tell_unsubscribed(subscription)

    def end_all(self, reason: BaseException | None) -> None:
        """End every subscription, telling the receivers why, and the server if there is one."""
        for subscription in list(self.registrations.values()):
            self.unsubscribe(subscription)
            subscription.receiver.ended(reason)

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
        for subscription in refused:
            self._take_out(subscription)
            subscription.receiver.ended(error)
        self._admissions.denied(*wanted)
        return bool(refused)

    def over_limit(self) -> list[Registration]:
        """Say, once for each `OverLimit`, which subscriptions were refused that are still wanted; `refuse` ends each."""
        return [row for row in self._admissions.settle() if row.sid in self.registrations]

    def refuse(self, row: Registration, error: Exception) -> None:
        """End one subscription that the server refused. Idempotent.

        Args:
            row: The subscription.
            error: What its receiver is told.
        """
        if not self._take_out(row):
            return
        for other in (self.beside, self._main):
            # In a planned move the other side may have taken it.
            if other is not None and other.phase is Phase.ONLINE:
                other.tell_unsubscribed(row)
        row.receiver.ended(error)

    def refuse_overlong(self, error: Exception) -> None:
        """End the subscriptions whose SUB is longer than what servers take by default.

        For a server that went because of an overlong line: replayed, they would end every connection that follows.

        Args:
            error: What their receivers are told.
        """
        for subscription in list(self.registrations.values()):
            if len(commands.sub(subscription.subject, subscription.queue, subscription.sid)) > CONTROL_LINE:
                self._take_out(subscription)
                subscription.receiver.ended(error)

    # What goes out.

    def queue(self, frame: bytes) -> None:
        """Put one whole frame that is no publish into the outbox."""
        self.outbox.append(frame)
        self.outbox_bytes += len(frame)
        self._controls += 1

    def publish(self, frame: bytes, size: int) -> None:
        """Put one whole PUB or HPUB into the outbox, and count it.

        Args:
            frame: The frame.
            size: What counts towards `max_payload`: headers and payload, in bytes.
        """
        self.outbox.append(frame)
        self.outbox_bytes += len(frame)
        self.out_bytes += size

    @property
    def out_msgs(self) -> int:
        """How many messages were published."""
        return self.newest - self._controls

    @property
    def newest(self) -> int:
        """The number of the frame that was queued last, for `waits` and `withdraw`."""
        return self._numbers.taken + len(self.outbox)

    def waits(self, frame: bytes, number: int) -> bool:
        """Say whether a frame still waits in the outbox, so that no server can have seen it.

        Args:
            frame: The frame, the very object that was queued.
            number: The value of `newest` right after it was queued.
        """
        place = self._numbers.up_to(number) - 1
        return 0 <= place < len(self.outbox) and self.outbox[place] is frame

    def withdraw(self, frame: bytes, number: int, size: int = 0) -> bool:
        """Take a publish out of the outbox again, if it still waits there (see `waits`), as if it had not been.

        Args:
            frame: The frame, the very object that was queued.
            number: The value of `newest` right after it was queued.
            size: What it counted, as for `publish`.

        Returns:
            Whether it will not be sent.
        """
        if not self.waits(frame, number):
            return False
        self._make_gap(self._numbers.up_to(number) - 1)
        self.out_bytes -= size
        self._controls += 1
        # Without this an outage would fill the outbox with the gaps that requests leave when they time out.
        outbox = self.outbox
        while outbox and not outbox[-1]:
            outbox.pop()
            self._numbers.shortened(len(outbox))
            self._controls -= 1
        if self._numbers.too_many_gaps(len(outbox)):
            self._close_gaps()
        return True

    @property
    def unsent_publishes(self) -> int:
        """How many of a program's publishes were not given to the stream yet, as far as is known."""
        return sum(map(is_programs, chain(self._sending, self.outbox)))

    @property
    def holds_publishes(self) -> bool:
        """Whether there are any."""
        return any(map(is_programs, chain(self._sending, self.outbox)))

    def discard(self) -> int:
        """Give up all that waits in the outbox.

        Returns:
            How many of a program's publishes there were.
        """
        publishes = sum(map(is_programs, self.outbox))
        self._numbers.emptied(len(self.outbox))
        self.outbox = []
        self.outbox_bytes = 0
        return publishes

    def put_first(self, frames: list[bytes]) -> None:
        """Put whole frames that are no publishes in front of the outbox; the numbers of those behind them stay true."""
        self.outbox[:0] = frames
        self._numbers.lengthened(len(frames))
        self.outbox_bytes += sum(map(len, frames))

    def drop_oversized(self) -> None:
        """Drop the publishes that wait and are more than the server takes: sent, they would end the connection.

        `oversized` counts those of a program.
        """
        limit = self.info.get("max_payload")
        if not isinstance(limit, int) or limit <= 0:
            return
        for place, frame in enumerate(self.outbox):
            if len(frame) > limit and is_publish(frame) and commands.publish_size(frame) > limit:
                self._make_gap(place)
                self.oversized += is_programs(frame)

    def take(self, limit: int) -> bytes:
        """Take a batch of whole frames for the stream; call `sent` once it is written.

        Args:
            limit: Stop before the batch grows over this many bytes; one frame always comes.

        Returns:
            The batch, empty when there is nothing to send.
        """
        outbox = self.outbox
        if self._last is None and (self.outbox_bytes <= limit or len(outbox) == 1):
            self.outbox = []
            self.outbox_bytes = 0
            self._numbers.emptied(len(outbox))
            batch = outbox
        else:
            batch = self._first_frames(limit)
        self._sending = batch
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def sent(self) -> None:
        """Know that the batch taken last was written whole."""
        self._sending = []

    def ping(self, token: object = None) -> None:
        """Queue a PING; its PONG gives `PongArrived(token)`, unless the token is None.

        Everything queued before it is processed by the server before the PONG: a barrier.
        """
        self._pings.append(token)
        self._admissions.pinged()
        self.queue(commands.PING)

    def fence(self, token: object) -> None:
        """Queue a PING as the last that this connection takes: what is queued behind it waits for the next one."""
        self.ping(token)
        self._last = self.newest

    @property
    def sendable(self) -> bool:
        """Whether something waits that this connection is to take."""
        return bool(self.outbox) and (self._last is None or self._numbers.up_to(self._last) > 0)

    def keepalive(self, most: int) -> bool:
        """Ping an idle peer.

        Args:
            most: How many keepalive pings may stay unanswered.

        Returns:
            False when the peer is to be given up, because so many are.
        """
        if self._unanswered >= most:
            return False
        self._unanswered += 1
        self.ping()
        return True

    # Inside.

    def _control(self, event: object, events: list[Event]) -> None:
        match event:
            case Ping():
                self.queue(commands.PONG)
            case Pong():
                self._pong(events)
            case Info():
                # The first one of a session describes the server; later ones name what changed.
                if self.phase is Phase.GREETING:
                    self.info = event.fields
                    self.phase = Phase.GREETED
                else:
                    self.info = {**self.info, **event.fields}
                events.append(InfoChanged(event.fields))
            case ServerError():
                if is_subscription_limit(event.text):
                    self._over_limit = event.text
                    if self._admissions.refused():
                        self.ping()
                events.append(Refused(event.text))
            case errors.ProtocolError():
                events.append(Garbage(event))
            case _:
                pass

    def _pong(self, events: list[Event]) -> None:
        if self.phase is Phase.PROVING:
            self._go_online()
            return
        self._unanswered = 0
        if not self._pings:
            return
        token = self._pings.popleft()
        if self._admissions.ponged():
            events.append(OverLimit(self._over_limit))
        if token is not None:
            events.append(PongArrived(token))

    def _go_online(self) -> None:
        self.phase = Phase.ONLINE
        if self._aside:
            return
        self.drop_oversized()
        self.tell_first(list(self.registrations.values()))
        for subscription in list(self.registrations.values()):
            subscription.receiver.connection_restored()

    def _first_frames(self, limit: int) -> list[bytes]:
        most = len(self.outbox) if self._last is None else min(self._numbers.up_to(self._last), len(self.outbox))
        size = count = 0
        while count < most and (not count or size + len(self.outbox[count]) <= limit):
            size += len(self.outbox[count])
            count += 1
        batch = self.outbox[:count]
        del self.outbox[:count]
        self._numbers.went(count, batch.count(b"") if self._numbers.gaps else 0)
        self.outbox_bytes -= size
        return batch

    def _make_gap(self, place: int) -> None:
        self.outbox_bytes -= len(self.outbox[place])
        self.outbox[place] = b""
        self._numbers.gaps += 1

    def _close_gaps(self) -> None:
        kept = [place for place, frame in enumerate(self.outbox) if frame]
        self._numbers.closed(kept, len(self.outbox))
        self.outbox = [self.outbox[place] for place in kept]
