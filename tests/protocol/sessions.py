"""What the tests of the engine have in common: a session with a server that says what it is told to, and who listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trionats import errors
from trionats._protocol import commands
from trionats._protocol.engine import Engine, Phase

if TYPE_CHECKING:
    from trionats._protocol.outbox import Outbox, Queued
    from trionats._protocol.parser import Message

INFO = b'INFO {"server_id":"A","max_payload":100}\r\n'
BROKEN = errors.UnexpectedEOF()


class Recorder:
    """A receiver that writes down what it is told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.told: list[str] = []
        self.ends: list[BaseException | None] = []

    def deliver(self, message: Message) -> None:
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


def drained(engine: Engine) -> bytes:
    """Take all that is to be sent, and have it sent."""
    batch = engine.outbox.take(1 << 30)
    engine.outbox.sent()
    return batch


def publish(outbox: Outbox, data: bytes = b"x") -> Queued:
    """Publish something."""
    return outbox.publish_tracked(commands.pub(b"s", b"", data), len(data))


def msg(sid: int, data: bytes = b"x") -> bytes:
    """A message from the server."""
    return b"MSG s %d %d\r\n%b\r\n" % (sid, len(data), data)
