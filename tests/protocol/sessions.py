"""What the tests of the engine have in common: a session with a server that says what it is told to, and who listens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trionats import errors
from trionats._protocol import commands
from trionats._protocol.engine import Engine, Phase
from trionats._protocol.parser import Message, Parser

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trionats._protocol.happenings import Loss
    from trionats._protocol.outbox import Outbox, Queued

INFO = b'INFO {"server_id":"A","max_payload":100}\r\n'
BROKEN = errors.UnexpectedEOF()


class Recorder:
    """A receiver that writes down what it is told, and nothing comes once it has ended."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.told: list[str] = []
        self.ends: list[BaseException | None] = []

    def deliver(self, message: Message) -> None:
        assert not self.ends
        self.messages.append(message.data)

    def connection_lost(self, reason: Exception) -> None:
        assert isinstance(reason, errors.Error)
        self.told.append("lost")

    def connection_restored(self) -> None:
        self.told.append("restored")

    def ended(self, reason: BaseException | None) -> None:
        self.told.append("ended")
        self.ends.append(reason)


def online(engine: Engine | None = None, info: bytes = INFO) -> Engine:
    """Begin a session, and let the server accept us."""
    engine = engine or Engine()
    engine.begin()
    engine.receive(info)
    engine.greet({})
    engine.receive(b"PONG\r\n")
    assert engine.phase is Phase.ONLINE
    return engine


def reconnected(engine: Engine) -> Loss:
    """Lose the connection, and begin another session."""
    loss = engine.lost(BROKEN)
    online(engine)
    return loss


def sent(outbox: Outbox, limit: int = 1 << 30) -> bytes:
    """Take what is to be sent, and have it sent."""
    batch = outbox.take(limit)
    outbox.sent()
    return batch


def drained(engine: Engine) -> bytes:
    return sent(engine.outbox)


def publish(outbox: Outbox, data: bytes = b"x") -> Queued:
    return outbox.publish_tracked(commands.pub(b"s", b"", data), len(data))


def msg(sid: int, data: bytes = b"x") -> bytes:
    return b"MSG s %d %d\r\n%b\r\n" % (sid, len(data), data)


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[i : i + size] for i in range(0, len(stream), size)]


def parsed(pieces: Iterable[bytes], parser: Parser | None = None) -> list[object]:
    """All events of some pieces: those of messages as their fields, which compare."""
    parser = parser or Parser()
    return [fields(event) for piece in pieces for event in parser.feed(piece)]


def fields(event: object) -> object:
    if isinstance(event, Message):
        return event.sid, event.subject, event.reply, event.data, event.header_block
    return event


@dataclass
class Row:
    """What the server knows of one subscription."""

    subject: bytes
    queue: bytes
    limit: int = 0
    delivered: int = 0

    @property
    def left(self) -> int | None:
        """How many more it gets."""
        return self.limit - self.delivered if self.limit else None


@dataclass
class Server:
    """One connection, as a server sees it that cuts the bytes by its own rules and keeps its own table.

    It takes `limit` subscriptions, and none of the subject that it `denies`.
    """

    limit: int = 1 << 20
    denies: bytes = b""
    rows: dict[int, Row] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    unread: bytes = b""
    answers: bytes = b""
    verbs: list[bytes] = field(default_factory=list)
    published: list[bytes] = field(default_factory=list)
    sids: set[int] = field(default_factory=set)

    def take(self, data: bytes) -> None:
        """Take what the client sent, and act on each whole frame."""
        self.unread += data
        while b"\r\n" in self.unread:
            line, rest = self.unread.split(b"\r\n", 1)
            verb, *arguments = line.split(b" ")
            if verb == b"PUB":
                size = int(arguments[-1])
                if len(rest) < size + 2:
                    return
                assert rest[size : size + 2] == b"\r\n"
                payload, rest = rest[:size], rest[size + 2 :]
                self.published.append(payload)
            self.unread = rest
            self._act(verb, arguments)

    def _act(self, verb: bytes, arguments: list[bytes]) -> None:
        self.verbs.append(verb)
        if verb == b"PING":
            self.answers += b"PONG\r\n"
        elif verb == b"SUB":
            subject, *queue, sid = arguments
            assert int(sid) not in self.sids, "a sid was used again"
            self.sids.add(int(sid))
            if subject == self.denies:
                self.answers += b"-ERR 'Permissions Violation for Subscription to \"%b\"'\r\n" % subject
            elif len(self.rows) >= self.limit:
                self.refused.add(int(sid))
                self.answers += b"-ERR 'maximum subscriptions exceeded'\r\n"
            else:
                self.rows[int(sid)] = Row(subject, b"".join(queue))
        elif verb == b"UNSUB":
            row = self.rows.get(int(arguments[0]))
            if len(arguments) == 2:
                assert row is not None
                row.limit = int(arguments[1])
                if row.limit <= row.delivered:
                    del self.rows[int(arguments[0])]
            else:
                self.rows.pop(int(arguments[0]), None)
        else:
            assert verb in (b"CONNECT", b"PUB", b"PONG"), verb

    def answer(self, data: bytes) -> bytes:
        """Take something, and say at once what there is to say."""
        self.take(data)
        answers, self.answers = self.answers, b""
        return answers

    def deliver(self, subject: bytes, data: bytes) -> None:
        """Send a message to all who subscribed to it."""
        for sid in [sid for sid, row in self.rows.items() if row.subject == subject]:
            self.answers += b"MSG %b %d %d\r\n%b\r\n" % (subject, sid, len(data), data)
            row = self.rows[sid]
            row.delivered += 1
            if row.left == 0:
                del self.rows[sid]
