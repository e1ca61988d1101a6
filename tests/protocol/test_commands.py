"""Frames: one call is one frame, whatever text went into it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.protocol.sessions import Frame, received
from trionats import errors
from trionats._protocol import commands, headers, subjects
from trionats._protocol.commands import LARGE


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (commands.pub(b"a.b", b"", b"hello"), b"PUB a.b 5\r\nhello\r\n"),
        (commands.pub(b"a.b", b"r", b"hello"), b"PUB a.b r 5\r\nhello\r\n"),
        (commands.pub(b"a", b"", b""), b"PUB a 0\r\n\r\n"),
        (commands.pub(b"a", b"", b"\r\nPUB"), b"PUB a 5\r\n\r\nPUB\r\n"),
        (commands.hpub(b"a", b"", b"NATS/1.0\r\n\r\n", b"xy"), b"HPUB a 12 14\r\nNATS/1.0\r\n\r\nxy\r\n"),
        (commands.hpub(b"a", b"r.1", b"NATS/1.0\r\n\r\n", b""), b"HPUB a r.1 12 12\r\nNATS/1.0\r\n\r\n\r\n"),
        (commands.pub(b"a", b"r", b"x" * 4096), b"PUB a r 4096\r\n" + b"x" * 4096 + b"\r\n"),
        (commands.pub(b"a", b"", b"x" * 70_000), b"PUB a 70000\r\n" + b"x" * 70_000 + b"\r\n"),
        (commands.pub_head(b"a") + commands.LENGTHS[2] + b"xy" + commands.CRLF, commands.pub(b"a", b"", b"xy")),
        (commands.sub(b"a.*", b"", 7), b"SUB a.* 7\r\n"),
        (commands.sub(b"a.>", b"q", 8), b"SUB a.> q 8\r\n"),
        (commands.unsub(7), b"UNSUB 7\r\n"),
        (commands.unsub(7, 3), b"UNSUB 7 3\r\n"),
        (commands.connect({"verbose": False, "name": "ü"}), b'CONNECT {"verbose":false,"name":"\\u00fc"}\r\n'),
        (commands.PING, b"PING\r\n"),
        (commands.PONG, b"PONG\r\n"),
        (commands.CRLF, b"\r\n"),
    ],
)
def test_each_command_is_one_frame(frame: bytes, expected: bytes) -> None:
    assert frame == expected


def test_the_lengths_at_the_end_of_a_line() -> None:
    assert all(end == b"%d\r\n" % length for length, end in enumerate(commands.LENGTHS))
    for length in (len(commands.LENGTHS) - 1, len(commands.LENGTHS), len(commands.LENGTHS) + 1):
        assert received(commands.pub(b"a", b"", bytes(length))) == ([Frame("PUB", ("a",), b"", bytes(length))], b"")


Fields = dict[str, str] | None


@given(st.text(), st.text(), st.none() | st.dictionaries(st.text(), st.text(), max_size=3), st.binary())
@example("a", "b\r\nPUB c 0\r\n", None, b"")
@example("a b", "", None, b"")
@example("a\tb", "", None, b"")
@example("a", "", {"k": "v\r\n\r\n"}, b"")
@example("a", "", {"k\r\n": "v"}, b"\r\nPING\r\n")
@example("a", "", {"a\r\nb": "c"}, b"")
@example("a", "", {"a": "\udc0d\udc0a"}, b"")
@example("a", "b", {"k": "v"}, b"\r\nPING\r\n")
def test_no_text_of_a_publish_makes_another_frame(subject: str, reply: str, fields: Fields, data: bytes) -> None:
    try:
        to = subjects.publish_subject(subject)
        answer = subjects.publish_subject(reply) if reply else b""
        block = None if fields is None else headers.encode(fields)
    except (errors.BadSubjectError, errors.BadHeaderError):
        return
    words = (subject, reply) if reply else (subject,)
    if block is None:
        assert received(commands.pub(to, answer, data)) == ([Frame("PUB", words, b"", data)], b"")
    else:
        assert received(commands.hpub(to, answer, block, data)) == ([Frame("HPUB", words, block, data)], b"")
        version, *lines, end, rest = block.split(b"\r\n")
        assert (version, end, rest) == (b"NATS/1.0", b"", b"")
        assert [tuple(line.decode().split(": ", 1)) for line in lines] == list((fields or {}).items())
        assert not {*b"\r\n"}.intersection(b"".join(lines))


wire_text = st.text(st.characters(codec="utf-8", exclude_characters=" .*>"), min_size=1, max_size=5)


patterns = st.lists(wire_text | st.sampled_from(["*", ">"]), min_size=1, max_size=3).map(".".join)


@given(st.text() | patterns, st.text() | wire_text, st.integers(1, 10**15))
@example("a", "q 1\r\nSUB >", 1)
@example("a b", "", 1)
def test_no_text_of_a_subscription_makes_another_frame(subject: str, queue: str, sid: int) -> None:
    try:
        frame = commands.sub(subjects.subscribe_subject(subject), subjects.queue_name(queue) if queue else b"", sid)
    except errors.BadSubjectError:
        return
    words = (subject, queue, str(sid)) if queue else (subject, str(sid))
    assert received(frame) == ([Frame("SUB", words)], b"")


@given(st.dictionaries(st.text(), st.text() | st.booleans() | st.integers() | st.none()))
@example({"name": "x\r\nPUB a 0\r\n\r\n", "pass": '"}\r\n', "lang": "\u2028\x85\x00"})
def test_no_text_of_a_connect_makes_another_frame(options: dict[str, Any]) -> None:
    frame = commands.connect(options)
    assert frame.isascii()
    [(verb, [document], _, _)], rest = received(frame)
    assert (verb, json.loads(document), rest) == ("CONNECT", options, b"")


def test_a_connect_is_json_as_the_server_reads_it() -> None:
    with pytest.raises(ValueError, match="JSON"):
        commands.connect({"number": float("nan")})


wire_subject = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=5)


@given(st.tuples(wire_subject, wire_subject), st.binary(), st.none() | st.binary(min_size=1), wire_subject)
@example(("a", "r"), b"\r\nPUB a r 0\r\n", b"NATS/1.0\r\nA: b c\r\n\r\n", "other")
def test_a_publish_is_read_back_and_sent_to_another_reply(
    where: tuple[str, str], data: bytes, block: bytes | None, other: str
) -> None:
    subject, reply = (text.encode() for text in where)

    def frame(reply: bytes) -> bytes:
        return commands.pub(subject, reply, data) if block is None else commands.hpub(subject, reply, block, data)

    assert commands.taken_apart(frame(reply)) == (block, data)
    assert commands.with_reply(frame(reply), other.encode()) == frame(other.encode())


@pytest.mark.parametrize("block", [b"", b"NATS/1.0\r\nA: b c\r\n\r\n"])
@pytest.mark.parametrize("reply", [b"", b"r"])
@pytest.mark.parametrize("size", [0, LARGE - 1, LARGE, LARGE + 1])
def test_a_payload_that_cannot_change_says_the_same_uncopied(size: int, reply: bytes, block: bytes) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]

    def copied(reply: bytes) -> bytes:
        return commands.hpub(b"a", reply, block, data) if block else commands.pub(b"a", reply, data)

    whole = copied(reply)
    for payload in (data, memoryview(data), bytearray(data), memoryview(bytearray(data))):
        frame = commands.publish(b"a", reply, block, payload)
        fixed = size >= LARGE and not isinstance(payload, bytearray) and getattr(payload, "obj", data) is data
        assert isinstance(frame, commands.LargeFrame) is fixed, "what may change is copied at once"
        assert (bytes(frame), len(frame)) == (whole, len(whole))
        assert commands.is_publish(frame)
        assert commands.is_programs(frame)
        assert commands.publish_size(frame) == len(block) + size
        assert commands.taken_apart(frame) == (block or None, data)
        if reply:
            assert bytes(commands.with_reply(frame, b"other")) == copied(b"other")


def test_a_large_payload_is_sent_also_when_its_view_was_released() -> None:
    data = bytes(LARGE)
    with memoryview(data) as view:
        frame = commands.publish(b"a", b"", b"", view)
    assert bytes(frame) == commands.pub(b"a", b"", data)
