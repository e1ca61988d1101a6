"""A receiver made of callables: each is called itself, and what is not given does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.protocol.sessions import BROKEN, drained, msg, online, reconnected
from trionats._protocol.receivers import Intake

if TYPE_CHECKING:
    from trionats._protocol.parser import Message


def test_it_is_told_all_that_a_subscription_is() -> None:
    told: list[object] = []

    def deliver(message: Message) -> None:
        told.append(message.data)

    engine = online()
    intake = Intake(deliver, told.append, told.append, lambda: told.append("restored"))
    row = engine.subscribe(b"s", b"", 2, intake)
    assert row.deliver is deliver, "nothing stands between"
    engine.receive(msg(1))
    reconnected(engine)
    engine.receive(msg(1, b"y"))
    assert told == [b"x", BROKEN, "restored", b"y", None]


def test_what_makes_no_difference_need_not_be_said() -> None:
    ends: list[BaseException | None] = []
    engine = online()
    engine.subscribe(b"s", b"", 0, Intake(lambda _: None, ends.append))
    reconnected(engine)
    assert drained(engine) == b"SUB s 1\r\n"
    engine.end_all(BROKEN)
    assert ends == [BROKEN]
