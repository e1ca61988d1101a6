"""Giving up a subscription without losing what is on its way, as the engine sees it."""

from __future__ import annotations

from trionats._protocol.engine import Engine
from trionats._protocol.happenings import PongArrived
from trionats._protocol.parser import Message
from trionats._protocol.registrations import Registration


class Receiver:
    def __init__(self) -> None:
        self.seen: list[bytes | str] = []

    def deliver(self, message: Message) -> None:
        self.seen.append(message.data)

    def connection_lost(self, reason: Exception) -> None:
        self.seen.append("lost")

    def connection_restored(self) -> None:
        self.seen.append("restored")

    def ended(self, reason: BaseException | None) -> None:
        self.seen.append(f"ended: {reason}")


def online(engine: Engine) -> None:
    engine.begin()
    engine.receive(b'INFO {"headers":true}\r\n')
    engine.greet({})
    engine.receive(b"PONG\r\n")


def subscribed(max_msgs: int = 0) -> tuple[Engine, Receiver, Registration]:
    engine, receiver = Engine(), Receiver()
    online(engine)
    row = engine.subscribe(b"a", b"", max_msgs, receiver)
    engine.take(100_000)
    return engine, receiver, row


def test_what_comes_before_the_pong_is_delivered() -> None:
    engine, receiver, row = subscribed()
    engine.retire(row)
    engine.retire(row)
    engine.ping("fence")
    assert engine.take(100_000) == b"UNSUB 1\r\nPING\r\n"
    assert engine.receive(b"MSG a 1 1\r\nx\r\nPONG\r\n") == [PongArrived("fence")]
    engine.complete(row)
    engine.complete(row)
    assert receiver.seen == [b"x", "ended: None"]
    assert not engine.registrations
    engine.receive(b"MSG a 1 1\r\ny\r\n")
    assert receiver.seen == [b"x", "ended: None"]


def test_leaving_one_that_is_retired_says_nothing_again() -> None:
    engine, receiver, row = subscribed()
    engine.retire(row)
    engine.unsubscribe(row)
    assert engine.take(100_000) == b"UNSUB 1\r\n"
    engine.complete(row)
    assert receiver.seen == []


def test_one_that_is_retired_is_not_replayed() -> None:
    engine, receiver, row = subscribed()
    engine.retire(row)
    engine.lost(OSError("gone"))
    online(engine)
    assert engine.take(100_000) == b""
    engine.complete(row)
    assert receiver.seen == ["lost", "restored", "ended: None"]


def test_without_a_connection_nothing_is_said() -> None:
    engine, _, row = subscribed()
    engine.lost(OSError("gone"))
    engine.retire(row)
    assert engine.take(100_000) == b""


def test_the_agreed_number_ends_it_before_the_pong() -> None:
    engine, receiver, row = subscribed(max_msgs=1)
    engine.retire(row)
    engine.receive(b"MSG a 1 1\r\nx\r\n")
    engine.complete(row)
    assert receiver.seen == [b"x", "ended: None"]


def test_one_that_has_ended_cannot_be_retired() -> None:
    engine, _, row = subscribed()
    engine.unsubscribe(row)
    engine.take(100_000)
    engine.retire(row)
    assert engine.take(100_000) == b""
