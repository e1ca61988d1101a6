"""What the tests of the engine have in common: a session with a server that says what it is told to, and who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from trionats import errors
from trionats._protocol import commands
from trionats._protocol.engine import Engine, Phase
from trionats._protocol.happenings import Loss
from trionats._protocol.outbox import Outbox, Queued
from trionats._protocol.parser import Message

INFO = b'INFO {"server_id":"A","max_payload":100}\r\n'
BROKEN = errors.UnexpectedEOF()


class Recorder:
    """A receiver that writes down what it is told, and does something then; nothing comes once it has ended."""

    def __init__(self, then: Callable[[str], object] = lambda _: None) -> None:
        self.then = then
        self.messages: list[bytes] = []
        self.told: list[str] = []
        self.ends: list[BaseException | None] = []

    def deliver(self, message: Message) -> None:
        assert not self.ends
        self.messages.append(message.data)
        self.then("message")

    def connection_lost(self, reason: Exception) -> None:
        assert isinstance(reason, errors.Error)
        self._tell("lost")

    def connection_restored(self) -> None:
        self._tell("restored")

    def ended(self, reason: BaseException | None) -> None:
        self.ends.append(reason)
        self._tell("ended")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self.then(what)


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
    batch = joined(outbox.take(limit))
    outbox.sent()
    return batch


def joined(batch: bytes | list[bytes | memoryview]) -> bytes:
    """Put together what the stream gets, in one piece or in several."""
    return batch if isinstance(batch, bytes) else b"".join(batch)


def drained(engine: Engine) -> bytes:
    return sent(engine.outbox)


def publish(outbox: Outbox, data: bytes = b"x") -> Queued:
    return outbox.publish_tracked(commands.pub(b"s", b"", data), len(data))


def msg(sid: int, data: bytes = b"x") -> bytes:
    return b"MSG s %d %d\r\n%b\r\n" % (sid, len(data), data)


class Frame(NamedTuple):
    verb: str
    words: tuple[str, ...]
    block: bytes = b""
    data: bytes = b""


def received(stream: bytes) -> tuple[list[Frame], bytes]:
    """Read what a client wrote as a server does: lines, words, and payloads by their length; and what is no frame yet."""
    frames = []
    while b"\r\n" in stream:
        line, rest = stream.split(b"\r\n", 1)
        verb, *words = line.decode().replace("\t", " ").split(" ")
        block = data = b""
        if verb in ("PUB", "HPUB"):
            total = int(words.pop())
            cut = int(words.pop()) if verb == "HPUB" else 0
            if len(rest) < total + 2:
                break
            assert rest[total : total + 2] == b"\r\n"
            block, data, rest = rest[:cut], rest[cut:total], rest[total + 2 :]
        elif verb == "CONNECT":
            words = [line.decode().partition(" ")[2]]
        frames.append(Frame(verb, tuple(words), block, data))
        stream = rest
    return frames, stream


@dataclass
class Row:
    """What the server knows of one subscription, and how many messages are left of it."""

    subject: bytes
    queue: bytes
    limit: int = 0
    delivered: int = 0

    @property
    def left(self) -> int | None:
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
    verbs: list[str] = field(default_factory=list)
    published: list[bytes] = field(default_factory=list)
    sids: set[int] = field(default_factory=set)

    def take(self, data: bytes) -> None:
        """Take what the client sent, and act on each whole frame."""
        frames, self.unread = received(self.unread + data)
        for verb, words, _, payload in frames:
            self.verbs.append(verb)
            if verb == "PUB":
                self.published.append(payload)
            elif verb == "PING":
                self.answers += b"PONG\r\n"
            elif verb == "SUB":
                self._subscribe(words[0].encode(), "".join(words[1:-1]).encode(), int(words[-1]))
            elif verb == "UNSUB":
                self._unsubscribe(*map(int, words))
            else:
                assert verb in ("CONNECT", "PONG"), verb

    def _subscribe(self, subject: bytes, queue: bytes, sid: int) -> None:
        assert sid not in self.sids, "a sid was used again"
        self.sids.add(sid)
        if subject == self.denies:
            self.answers += b"-ERR 'Permissions Violation for Subscription to \"%b\"'\r\n" % subject
        elif len(self.rows) >= self.limit:
            self.refused.add(sid)
            self.answers += b"-ERR 'maximum subscriptions exceeded'\r\n"
        else:
            self.rows[sid] = Row(subject, queue)

    def _unsubscribe(self, sid: int, limit: int = 0) -> None:
        if limit:
            self.rows[sid].limit = limit
        if not limit or limit <= self.rows[sid].delivered:
            self.rows.pop(sid, None)

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
