"""What replies say: that nobody is listening, and when there are enough of them, as tables."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trionats._protocol.parser import Message
from trionats._protocol.replies import Disposition, ReplyPolicy, no_jetstream, no_responders, no_stream, nobody_listens

KEEP, LAST, OVER, NOBODY = Disposition.KEEP, Disposition.LAST, Disposition.OVER, Disposition.NOBODY


def reply(data: bytes = b"x", block: bytes | None = None) -> Message:
    return Message(1, "_INBOX.a", "", data, block)


SOME, EMPTY = reply(), reply(b"")
NONE_LISTENS = reply(b"", b"NATS/1.0 503\r\nNats-Subject: ask\r\n\r\n")


@pytest.mark.parametrize(
    ("message", "nobody"),
    [
        (NONE_LISTENS, True),
        (reply(b"", b"NATS/1.0 503\r\n\r\n"), True),
        (reply(b"", b"NATS/1.0 503 No Responders Available For Request\r\n\r\n"), True),
        (reply(b"a service's own", b"NATS/1.0 503\r\n\r\n"), False),
        (reply(b"", b"NATS/1.0 404 No Messages\r\n\r\n"), False),
        (reply(b"", b"NATS/1.0\r\nStatus: 503\r\n\r\n"), False),
        (reply(b"503"), False),
        (EMPTY, False),
    ],
)
def test_only_the_servers_word_says_that_nobody_listens(message: Message, nobody: bool) -> None:
    assert nobody_listens(message) is nobody


def test_that_nobody_is_listening_is_said_in_the_words_of_what_was_done() -> None:
    assert str(no_responders("ask")) == "request to 'ask': nobody is listening there"
    publish, api = no_stream("publish to 'a'"), no_jetstream("$JS.API.INFO", "$JS.API")
    assert str(publish) == publish.description == "publish to 'a': no stream answers there"
    assert (api.code, api.err_code, api.stream, api.seq) == (503, None, None, None)
    assert str(api) == api.description
    assert "'$JS.API.INFO'" in str(api)


def is_empty(message: Message) -> bool:
    return not message.data


IDLE = reply(b"", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n")
#: What is told to it, when; what comes of it; when it would end after that.
SCRIPTS: dict[str, tuple[dict[str, Any], list[tuple[float, Message, Disposition, float]]]] = {
    "the total alone": ({"total": 5}, [(1, SOME, KEEP, 5), (4.9, SOME, KEEP, 5), (5, SOME, OVER, 5)]),
    "without any end": ({}, [(1e9, SOME, KEEP, math.inf)]),
    "a stall counts behind the first reply only": (
        {"total": 10, "stall": 1},
        [(7, SOME, KEEP, 8), (7.5, SOME, KEEP, 8.5), (8.4, SOME, KEEP, 9.4)],
    ),
    "a stall does not put off the total": ({"total": 10, "stall": 3}, [(8, SOME, KEEP, 10)]),
    "a stall longer than the total is none": ({"total": 2, "stall": 3}, [(1, SOME, KEEP, 2)]),
    "a reply behind the stall": ({"stall": 1}, [(3, SOME, KEEP, 4), (4, SOME, OVER, 4)]),
    "a count": ({"max_msgs": 2}, [(1, SOME, KEEP, math.inf), (2, SOME, LAST, math.inf)]),
    "a count of one": ({"max_msgs": 1, "total": 3}, [(1, SOME, LAST, 3)]),
    "the sentinel is not kept": ({"sentinel": is_empty, "total": 9}, [(1, SOME, KEEP, 9), (2, EMPTY, OVER, 9)]),
    "the sentinel first": ({"sentinel": is_empty}, [(1, EMPTY, OVER, math.inf)]),
    "nobody listens, whatever the sentinel says": (
        {"sentinel": is_empty, "max_msgs": 1},
        [(0.1, NONE_LISTENS, NOBODY, math.inf)],
    ),
    "other words of the server are replies": ({"total": 3}, [(1, IDLE, KEEP, 3)]),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_becomes_of_each_reply(name: str) -> None:
    options, steps = SCRIPTS[name]
    policy = ReplyPolicy(0.0, **options)
    for now, message, disposition, ends in steps:
        assert (policy.received(message, now), policy.ends) == (disposition, ends)


def test_what_the_sentinel_raises_comes_out() -> None:
    def broken(message: Message) -> bool:
        raise LookupError("mine")

    with pytest.raises(LookupError, match=r"^mine$"):
        ReplyPolicy(0.0, sentinel=broken).received(reply(), 1.0)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("max_msgs", -1, ValueError),
        ("max_msgs", 1.5, TypeError),
        ("stall", 0.0, ValueError),
        ("stall", -1.0, ValueError),
        ("stall", math.nan, ValueError),
        ("stall", "1", TypeError),
        ("sentinel", True, TypeError),
    ],
)
def test_what_nobody_means_is_refused(option: str, value: Any, error: type[Exception]) -> None:  # noqa: ANN401
    with pytest.raises(error, match="must be"):
        ReplyPolicy(0.0, **{option: value})
