"""When there are enough answers to one request, as tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from trionats._protocol.parser import Message
from trionats._protocol.replies import Disposition, ReplyPolicy, nobody_listens

if TYPE_CHECKING:
    from collections.abc import Callable

KEEP, LAST, OVER, NOBODY = Disposition.KEEP, Disposition.LAST, Disposition.OVER, Disposition.NOBODY


def answer(data: bytes = b"x", block: bytes | None = None) -> Message:
    return Message(1, "_INBOX.a", "", data, block)


NONE_LISTENS = answer(b"", b"NATS/1.0 503\r\nNats-Subject: ask\r\n\r\n")


@pytest.mark.parametrize(
    ("message", "nobody"),
    [
        (NONE_LISTENS, True),
        (answer(b"", b"NATS/1.0 503\r\n\r\n"), True),
        (answer(b"", b"NATS/1.0 503 No Responders Available For Request\r\n\r\n"), True),
        (answer(b"a service's own", b"NATS/1.0 503\r\n\r\n"), False),
        (answer(b"", b"NATS/1.0 404 No Messages\r\n\r\n"), False),
        (answer(b"", b"NATS/1.0\r\nStatus: 503\r\n\r\n"), False),
        (answer(b"503"), False),
        (answer(b""), False),
    ],
)
def test_only_the_servers_word_says_that_nobody_listens(message: Message, nobody: bool) -> None:
    assert nobody_listens(message) is nobody


# What is told to it, when; what comes of it; when it would end after that.
SCRIPTS: dict[str, tuple[dict[str, object], list[tuple[float, Message, Disposition, float]]]] = {
    "the total alone": (
        {"total": 5},
        [(1, answer(), KEEP, 5), (4.9, answer(), KEEP, 5), (5, answer(), OVER, 5)],
    ),
    "without any end": ({}, [(1e9, answer(), KEEP, math.inf)]),
    "a stall counts behind the first answer only": (
        {"total": 10, "stall": 1},
        [(7, answer(), KEEP, 8), (7.5, answer(), KEEP, 8.5), (8.4, answer(), KEEP, 9.4)],
    ),
    "a stall does not put off the total": ({"total": 10, "stall": 3}, [(8, answer(), KEEP, 10)]),
    "a stall longer than the total is none": ({"total": 2, "stall": 3}, [(1, answer(), KEEP, 2)]),
    "an answer behind the stall": ({"stall": 1}, [(3, answer(), KEEP, 4), (4, answer(), OVER, 4)]),
    "a count": ({"max_msgs": 2}, [(1, answer(), KEEP, math.inf), (2, answer(), LAST, math.inf)]),
    "a count of one": ({"max_msgs": 1, "total": 3}, [(1, answer(), LAST, 3)]),
    "the sentinel is not kept": (
        {"sentinel": lambda message: not message.data, "total": 9},
        [(1, answer(), KEEP, 9), (2, answer(b""), OVER, 9)],
    ),
    "the sentinel first": ({"sentinel": lambda message: not message.data}, [(1, answer(b""), OVER, math.inf)]),
    "nobody listens, whatever the sentinel says": (
        {"sentinel": lambda message: not message.data, "max_msgs": 1},
        [(0.1, NONE_LISTENS, NOBODY, math.inf)],
    ),
    "other words of the server are answers": (
        {"total": 3},
        [(1, answer(b"", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"), KEEP, 3)],
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(name: str) -> None:
    options, steps = SCRIPTS[name]
    policy = ReplyPolicy(0.0, **options)  # type: ignore[arg-type]
    for now, message, verdict, ends in steps:
        assert (policy.received(message, now), policy.ends) == (verdict, ends)


def test_what_the_sentinel_raises_comes_out() -> None:
    def broken(message: Message) -> bool:
        raise LookupError("mine")

    with pytest.raises(LookupError, match=r"^mine$"):
        ReplyPolicy(0.0, sentinel=broken).received(answer(), 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReplyPolicy(0.0, max_msgs=-1),
        lambda: ReplyPolicy(0.0, stall=0.0),
        lambda: ReplyPolicy(0.0, stall=-1.0),
        lambda: ReplyPolicy(0.0, stall=math.nan),
    ],
)
def test_numbers_that_nobody_means_are_refused(make: Callable[[], ReplyPolicy]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()
