"""The parser: what each line means, what ends a session, and what it costs."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from trionats import errors
from trionats._protocol import parser
from trionats._protocol.parser import Info, Message, Ok, Parser, Ping, Pong, ServerError

BLOCK = b"NATS/1.0\r\nK: V\r\n\r\n"
DENIED = 'Permissions Violation for Subscription to "a b" using queue "q"'


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


def violation(stream: bytes, **limits: Any) -> str:  # noqa: ANN401 - the parser's own options
    [error] = Parser(**limits).feed(stream)
    assert isinstance(error, errors.ProtocolError)
    return str(error)


#: What a server may send for an event; of a message, its fields.
LINES: list[tuple[object, list[bytes]]] = [
    ((1, "a", "", b"hello", None), [b"MSG a 1 5\r\nhello\r\n"]),
    ((12, "a.b", "_R.x", b"hello", None), [b"MSG a.b 12 _R.x 5\r\nhello\r\n"]),
    ((1, "a", "", b"", None), [b"MSG a 1 0\r\n\r\n"]),
    ((1, "a", "", b"\r\nMSG a\n", None), [b"MSG a 1 8\r\n\r\nMSG a\n\r\n"]),
    ((1, "a", "", b"\r\n", None), [b"MSG a 1 2\r\n\r\n\r\n"]),
    ((7, "a", "", b"hello", None), [b"MSG a 007 005\r\nhello\r\n"]),
    ((999999999999999999, "a", "", b"x", None), [b"MSG a 999999999999999999 1\r\nx\r\n"]),
    ((1, "a", "", b"xy", BLOCK), [b"HMSG a 1 18 20\r\n" + BLOCK + b"xy\r\n"]),
    ((1, "a", "r", b"", BLOCK), [b"HMSG a 1 r 18 18\r\n" + BLOCK + b"\r\n"]),
    ((1, "a", "", b"xy", b""), [b"HMSG a 1 0 2\r\nxy\r\n"]),
    # What peers may publish to, as the server delivers it (2.15.1).
    ((1, "grüße.日本", "", b"x", None), ["MSG grüße.日本 1 1\r\nx\r\n".encode()]),
    ((1, "a\udcff", "", b"x", None), [b"MSG a\xff 1 1\r\nx\r\n"]),
    ((1, "a", "\udcfe", b"x", None), [b"MSG a 1 \xfe 1\r\nx\r\n"]),
    ((1, "a\x0bb\x0c\x00\udc85", "", b"x", None), [b"MSG a\x0bb\x0c\x00\x85 1 1\r\nx\r\n"]),
    ((1, "s" * 4096, "r" * 4096, b"x", None), [b"MSG %b 1 %b 1\r\nx\r\n" % (b"s" * 4096, b"r" * 4096)]),
    ((1, "s" * 4096, "", b"x", None), [b"MSG %b 1 1\r\nx\r\n" % (b"s" * 4096)]),
    # In any case and with any white space.
    ((1, "a", "", b"x", None), [b"msg a 1 1\r\nx\r\n", b"MSG  a  1  1  \r\nx\r\n", b"MSG a 1  1\r\nx\r\n"]),
    ((1, "a", "", b"x", None), [b"MSG a 1 1 \t\r\nx\r\n"]),
    ((1, "A", "R", b"x", None), [b"mSg A 1 R 1\r\nx\r\n"]),
    ((1, "a", "", b"", BLOCK), [b"hmsg a 1 18 18\r\n" + BLOCK + b"\r\n"]),
    ((1, "a", "r", b"x", None), [b"MSG\ta\t1\tr\t1\r\nx\r\n"]),
    # What is no message.
    (Ping(), [b"PING\r\n", b"ping\r\n", b"PING \t\r\n", b"PING now\r\n"]),
    (Pong(), [b"PONG\r\n", b"Pong\r\n"]),
    (Ok(), [b"+OK\r\n", b"+ok\r\n"]),
    (Info({}), [b"INFO {}\r\n"]),
    (Info({"server_id": "x", "max_payload": 1048576}), [b'INFO {"server_id":"x","max_payload":1048576} \r\n']),
    (Info({"ldm": True}), [b'info\t{"ldm":true} \r\n']),
    (Info({"server_name": "grüße"}), ['INFO {"server_name":"grüße"}\r\n'.encode()]),
    (ServerError("Stale Connection"), [b"-ERR 'Stale Connection'\r\n"]),
    (ServerError("Invalid Subject"), [b"-err  'Invalid Subject' \r\n"]),
    (ServerError(DENIED), [f"-ERR '{DENIED}'\r\n".encode()]),
    (ServerError("plain"), [b"-ERR plain\r\n"]),
    (ServerError("'"), [b"-ERR '\r\n"]),
    (ServerError(""), [b"-ERR\r\n"]),
    (ServerError("gr\\xfc\\xdfe"), [b"-ERR 'gr\xfc\xdfe'\r\n"]),
]


@pytest.mark.parametrize(("stream", "expected"), [(stream, event) for event, many in LINES for stream in many])
def test_each_line_has_its_event_in_any_form_that_a_server_may_send(stream: bytes, expected: object) -> None:
    subject = Parser()
    # Twice: the second time what was learnt from the first is used.
    assert parsed([stream], subject) == [expected]
    assert parsed([stream + stream], subject) == [expected, expected]


def test_a_whole_session_may_come_in_one_chunk() -> None:
    stream = b"INFO {}\r\nPING\r\nMSG a 1 1\r\nx\r\n+OK\r\nHMSG a 1 18 19\r\n%by\r\nMSG a 1 1\r\nz\r\nPONG\r\n" % BLOCK
    assert [type(event) for event in Parser().feed(stream)] == [Info, Ping, Message, Ok, Message, Message, Pong]


def test_an_empty_chunk_changes_nothing() -> None:
    subject = Parser()
    assert [len(subject.feed(chunk)) for chunk in (b"", b"MSG a 1 5\r\nhe", b"", b"llo\r\n")] == [0, 0, 0, 1]


@pytest.mark.parametrize("size", [1 << 10, 1 << 15, 1 << 16, 1 << 17, 1 << 20, (1 << 22) - 1000])
def test_an_info_may_be_of_any_size(size: int) -> None:
    stream = b'INFO {"connect_urls":["%b"]}\r\nPING\r\n' % (b"x" * size)
    assert parsed([stream]) == parsed(cut(stream, 1460)) == [Info({"connect_urls": ["x" * size]}), Ping()]


def test_a_message_type_of_one_s_own() -> None:
    class Own(Message):
        __slots__ = ()

    events = Parser(Own).feed(b"MSG a 1 1\r\nx\r\nHMSG a 1 18 18\r\n" + BLOCK + b"\r\nMSG a 1 1\r\n")
    assert [type(event) for event in events] == [Own, Own]


def test_a_message_with_and_without_headers() -> None:
    message = Message(7, "a", "r", b"four", b"NATS/1.0 503 Oh\r\nK: V\r\nK: W\r\n\r\n")
    assert message.headers.getall("K") == ["V", "W"]
    assert message.headers is message.headers
    assert (message.status, message.description, message.size) == (503, "Oh", 31 + 4)
    assert repr(message) == "<Message sid=7 subject='a' reply='r' size=35>"
    message = Message(7, "a", "", b"four")
    assert message.headers == MultiDict()
    assert message.headers is message.headers
    assert (message.status, message.description, message.size, message.headers_problem) == (None, "", 4, None)


@pytest.mark.parametrize(
    ("block", "status", "description"),
    [
        (b"NATS/1.0\r\nK: V\r\n\r\n", None, ""),
        (b"NATS/1.0 404 No Messages\r\n\r\n", 404, "No Messages"),
        (b"NATS/1.0503\r\n\r\n", 503, ""),
        (b"NATS/1.0\n\n", None, ""),
        (b"A: b\r\n\r\n", None, ""),
        (b"", None, ""),
    ],
)
def test_the_status_of_a_message(block: bytes, status: int | None, description: str) -> None:
    # The quick answer is that of the whole header block.
    for message in (Message(1, "a", "", b"", block), Message(1, "a", "", b"", block)):
        assert (message.status, message.description) == (status, description)
        assert message.headers is message.headers


def test_a_malformed_header_block_costs_neither_the_message_nor_the_conversation() -> None:
    [message, ping] = Parser().feed(b"HMSG a 1 12 16\r\nA: b\r\nbad\xff\r\nfour\r\nPING\r\n")
    assert isinstance(message, Message)
    assert message.data == b"four"
    assert message.headers == MultiDict(A="b")
    assert message.headers_problem is not None
    assert ping == Ping()


def test_payloads_do_not_change_when_more_is_read() -> None:
    payloads = [bytes([i % 256]) * (i % 97) for i in range(1000)]
    stream = b"".join(b"MSG a 1 %d\r\n%b\r\n" % (len(payload), payload) for payload in payloads)
    assert parsed(cut(stream, 333)) == [(1, "a", "", payload, None) for payload in payloads]


GARBAGE: dict[str, list[bytes]] = {
    "an unknown command": [b"\r\n", b" PING\r\n", b"\x16\x03\x01\x02\x00\r\n", b"PUB a 1\r\nx\r\n", b"MSGa 1 1\r\n"],
    "an unknown command: b'HTTP/1.1 400 Bad Request": [b"HTTP/1.1 400 Bad Request\r\n"],
    "does not end with CR LF": [b"PING\n", b"MSG a 1 1\nx\r\n", b"MSG a 1 15\nx\r\n", b"\n"],
    "an INFO that is not JSON": [b"INFO\r\n", b"INFO {\r\n", b"INFO {}{}\r\n", b'INFO {"a":"\xff"}\r\n',
        b"INFO " + b"[" * 200_000 + b"\r\n", b'INFO {"a":' + b"1" * 100_000 + b"}\r\n", b"INFO {\x00}\x00\r\n"],
    "not a JSON object": [b"INFO []\r\n", b"INFO null\r\n"],
    "a malformed command": [b"MSG\r\n", b"MSG a\r\n", b"MSG a 1\r\n", b"MSG a 1 r s 1\r\nx\r\n", b"MSG  1 1\r\nx\r\n",
        b"MSG a x 1\r\nx\r\n", b"MSG a 1 x\r\nx\r\n", b"MSG a 1 -1\r\nx\r\n", b"MSG a +1 1\r\nx\r\n",
        b"MSG a 1_0 1\r\nx\r\n", b"MSG a 1 1_0\r\n0123456789\r\n", b"MSG a 1 1.0\r\nx\r\n",
        b"MSG a \xd9\xa1 1\r\nx\r\n", b"MSG a 1 1\r1\r\nx\r\n", b"MSG a 1\r 1\r\nx\r\n",
        b"MSG a 1 " + b"9" * 19 + b"\r\n", b"MSG a 1 " + b"9" * 50_000 + b"\r\n",
        b"MSG a " + b"9" * 50_000 + b" 1\r\nx\r\n", b"HMSG a 1 1\r\nx\r\n", b"HMSG a 1 2 1\r\nx\r\n",
        b"HMSG a 1 x 1\r\nx\r\n", b"HMSG a 1 r 2 1\r\nx\r\n", b"HMSG a 1 r s 1 1\r\nx\r\n"],
    "a message that is too long": [b"MSG a 1 " + b"9" * 18 + b"\r\n", b"MSG a 1 68157441\r\n"],
    "does not end after its 1 bytes: subject 'a', sid 1": [b"MSG a 1 1\r\nxyz\r\n"],
    "does not end after its 1 bytes": [b"MSG a 1 1\r\nx\n\n", b"MSG a 1 1\r\nx\r\r", b"HMSG a 1 1 1\r\nxyz"],
}  # fmt: skip


@pytest.mark.parametrize(("stream", "words"), [(stream, words) for words, many in GARBAGE.items() for stream in many])
def test_garbage_is_the_last_event(stream: bytes, words: str) -> None:
    assert words in violation(stream)
    assert len(violation(stream)) < 300
    subject = Parser()
    ping, error = subject.feed(b"PING\r\n" + stream + b"PING\r\nMSG a 1 1\r\nx\r\n")
    assert ping == Ping()
    assert isinstance(error, errors.ProtocolError)
    assert subject.feed(b"PING\r\n") == []
    assert subject.feed(b"MSG a 1 5\r\n") == []
    assert subject.wanted == 0


def test_a_dead_parser_holds_nothing() -> None:
    subject = Parser(max_control_line=1000)
    assert len(parsed([b"x" * 200] * 10 + [b"PING\r\n"], subject)) == 1
    assert not subject._pieces + subject._blocks


def test_the_same_garbage_after_a_good_message_of_the_same_kind() -> None:
    # What was learnt must not let pass what would not have passed before.
    good = b"MSG a 1 1\r\nx\r\nHMSG a 1 18 18\r\n" + BLOCK + b"\r\nHMSG a 1 0 1\r\nx\r\n"
    for bad in (b"MSG a 1 1\nx\r\n", b"MSG  1 1\r\nx\r\n", b"HMSG a 1 18 1\r\nx\r\n", b"MSG a 1\r 1\r\nx\r\n"):
        events = Parser().feed(good + bad)
        assert [type(event) for event in events[:-1]] == [Message] * 3
        assert isinstance(events[-1], errors.ProtocolError)


@pytest.mark.parametrize(
    ("verb", "limit"),
    [(b"INFO ", "max_info"), (b"info ", "max_info"), (b"MSG ", "max_control_line"), (b"-ERR ", "max_control_line")],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_line_may_be_as_long_as_the_limit_and_no_longer(verb: bytes, limit: str, size: int) -> None:
    limits: dict[str, Any] = {"max_info": 2000, "max_control_line": 200}
    for length, too_long in ((limits[limit], False), (limits[limit] + 1, True)):
        for end in (b"\r\n", b""):
            events = parsed(cut(verb.ljust(length, b"x") + end.ljust(2), size), Parser(**limits))
            assert ("a line that is too long" in str(events)) is (too_long or not end)


def test_a_message_and_the_line_of_one_may_be_as_long_as_the_limit_and_no_longer() -> None:
    stream = b"MSG %b 1 1\r\nx\r\n"
    assert len(Parser(max_control_line=100).feed(stream % (b"s" * 92))) == 1
    learnt = Parser(max_control_line=100)
    learnt.feed(b"MSG a 1 1\r\nx\r\n")
    assert isinstance(learnt.feed(stream % (b"s" * 93))[0], errors.ProtocolError)
    assert "too long" in violation(stream % (b"s" * 93), max_control_line=100)
    assert len(Parser(max_message=10).feed(b"MSG a 1 10\r\n0123456789\r\n")) == 1
    assert "too long" in violation(b"MSG a 1 11\r\n", max_message=10)
    assert "too long" in violation(b"HMSG a 1 1 11\r\n", max_message=10)


tokens = [
    b"MSG ", b"HMSG ", b"msg ", b"INFO ", b"{}", b"PING", b"PONG", b"+OK", b"-ERR ", b"'x'", b"\r\n", b"\r", b"\n",
    b" ", b"\t", b"a", b"a.b ", b"1 ", b"2 ", b"0", b"12 ", b"-1", b"99999999999", b"x", b"xy", b"\xff", BLOCK,
]  # fmt: skip


@given(st.lists(st.binary(max_size=20) | st.sampled_from(tokens), max_size=40))
def test_anything_gives_events_and_at_most_one_violation_at_the_end(pieces: list[bytes]) -> None:
    subject = Parser(max_info=64, max_control_line=64, max_message=64)
    assert not any(isinstance(event, errors.ProtocolError) for event in parsed(pieces, subject)[:-1])
    assert 0 <= subject.wanted <= 66
    assert sum(map(len, subject._pieces + subject._blocks)) <= 130


LIMITS: dict[str, Any] = {"max_info": 300, "max_control_line": 150, "max_message": 500}

STREAMS = {
    "messages": b"MSG a 1 2\r\nhi\r\nMSG a.b 2 r.s 0\r\n\r\nMSG a 1 4\r\n\r\n\r\n\r\n",
    "headers": b"HMSG a 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\nHMSG a 1 r 12 12\r\nNATS/1.0\r\n\r\n\r\nHMSG a 1 0 0\r\n\r\n",
    "others": b"INFO {\"a\":1} \r\nPING\r\npong\r\n+OK\r\n-ERR 'x y'\r\nmsg  a\t1 1 \r\nx\r\n",
    "not UTF-8": b"MSG a\xff 1 \xfe 1\r\n\xfd\r\nHMSG \xc3\xbc 1 1 2\r\n\xff\xff\r\n-ERR \xff\r\n",
    "garbage": b"PING\r\nMSG a 1 1\r\nx\r\nPANG\r\nPING\r\n",
    "no end": b"MSG a 1 1\r\nxy\r\nPING\r\n",
    "half an end": b"MSG a 1 1\r\nx\ry\nPING\r\n",
    "bare LF": b"PING\r\nPING\nPING\r\n",
    "CR in a line": b"PING\r\rPING\r\nPING\r\n",
    "bad number": b"MSG a 1 1\r\nx\r\nMSG a 1 1x\r\nPING\r\n",
    "unfinished": b"PING\r\nMSG a 1 5\r\nhell",
}


def fed(stream: bytes, cuts: Iterable[int] = (), **limits: Any) -> list[str]:  # noqa: ANN401 - the parser's own options
    """All events of a stream that is cut at some places."""
    pieces = [stream[start:end] for start, end in itertools.pairwise([0, *cuts, len(stream)])]
    return list(map(repr, parsed(pieces, Parser(**limits))))


@pytest.mark.parametrize("name", STREAMS)
def test_one_two_and_three_pieces_and_many_of_one_size(name: str) -> None:
    stream = STREAMS[name]
    whole = fed(stream)
    sizes = [range(size, len(stream), size) for size in (1, 2, 3, 5, 7, 11, 64)]
    for cuts in [*itertools.combinations_with_replacement(range(len(stream) + 1), 2), *sizes]:
        assert fed(stream, cuts) == whole, cuts


def test_byte_by_byte_with_long_ones_between() -> None:
    # Long enough for every way of holding what is not complete: short, long, and in more pieces than a list should have.
    stream = b'INFO {"a":"%b"}\r\nMSG a 1 9000\r\n%b\r\n' % (b"i" * 9000, b"\r\n" * 4500)
    stream += b"HMSG a 1 5000 9000\r\n%b\r\n" % bytes(9000)
    stream += b"MSG %b 1 %b 1\r\nx\r\nPING\r\n" % (b"s" * 5000, b"r" * 5000)
    assert len(fed(stream)) == 5
    assert fed(stream, range(1, len(stream))) == fed(stream, range(4096, len(stream), 4096)) == fed(stream)


any_words = st.binary(min_size=1, max_size=60).map(lambda raw: raw.translate(None, b" \t\r\n") or b"w")
ends = [b"\r\n", b"\r", b"\n", b"PING\r\n", b"\r\n\r\n", b"MSG a 1 1\r\nx\r\n"]
payloads = st.binary(max_size=40) | st.sampled_from(ends)
sids = st.integers(0, 10**19)
blanks = st.sampled_from([b" ", b" ", b" ", b"  ", b"\t"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    block, data = draw(st.none() | payloads), draw(payloads)
    sizes = [len(data)] if block is None else [len(block), len(block) + len(data)]
    line = [
        draw(any_words),
        b"%d" % draw(sids),
        *draw(st.lists(any_words, max_size=1)),
        *(b"%d" % size for size in sizes),
    ]
    verb = (b"" if block is None else b"H") + draw(st.sampled_from([b"MSG", b"msg", b"Msg"]))
    return verb + draw(blanks) + draw(blanks).join(line) + b"\r\n" + (block or b"") + data + b"\r\n"


others = st.sampled_from([b"PING\r\n", b"pong\r\n", b"+OK\r\n", b"-ERR 'x'\r\n", b'INFO {"a":[1]}\r\n', b"PING x\r\n"])
long_ones = st.builds(
    lambda verb, length: verb + b"x" * length + b"\r\n", st.sampled_from([b"INFO ", b"-ERR "]), st.integers(100, 350)
)
bad = [b"\r\n", b"\n", b"MSG a 1\r\n", b"MSG a 1 501\r\n", b"HMSG a 1 2 1\r\n"]
garbage = st.binary(max_size=10) | st.sampled_from(bad)


@given(st.data())
def test_any_stream_cut_anywhere(data: st.DataObject) -> None:
    frames = data.draw(st.lists(messages() | messages() | messages() | others | long_ones | garbage, max_size=8))
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    for limits in ({}, LIMITS):
        assert fed(stream, cuts, **limits) == fed(stream, range(1, len(stream)), **limits) == fed(stream, **limits)


@given(st.lists(messages() | others, max_size=8), st.data())
def test_a_good_stream_loses_nothing(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    events = fed(stream, cuts)
    assert len(events) == len(frames) or "ProtocolError" in events[-1]


def test_wanted_tells_how_much_of_a_message_is_missing() -> None:
    subject = Parser()
    pieces = (b"MSG a 1", b" 10\r\n", b"0123", b"456789", b"\r", b"\nPING\r\nMSG a 1 1\r\nx\r\n", b"MSG a 1 3\r\nab")
    for piece, wanted in zip(pieces, (0, 12, 8, 2, 1, 0, 3), strict=True):
        subject.feed(piece)
        assert subject.wanted == wanted


def seconds(work: Callable[[], object]) -> float:
    """How long something takes, at its best."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def seconds_to_parse(stream: bytes, size: int, events: int = 1) -> float:
    pieces = cut(stream, size)

    def parse() -> None:
        subject = Parser()
        assert sum(len(subject.feed(piece)) for piece in pieces) == events

    return seconds(parse)


def frame(payload: int, of: bytes = b"\0") -> bytes:
    return b"MSG a 1 %d\r\n%b\r\n" % (payload, of * payload)


@pytest.mark.parametrize(("payload", "size"), [(2**23, 1460), (2**26, 2**16)])
def test_a_large_payload_is_not_copied_for_every_piece_of_it(payload: int, size: int) -> None:
    pieces = cut(frame(payload), size)
    assert parsed(pieces) == [(1, "a", "", bytes(payload), None)]
    # Concatenating what is held would copy 500 times as much in the one case, 2,900 times in the other. What else there
    # is above one copy is the price of the calls, which a coverage measurement multiplies.
    assert seconds_to_parse(frame(payload), size) < 100 * seconds(lambda: b"".join(pieces))


@pytest.mark.parametrize(("small", "large", "size"), [(2**14, 2**17, 1460), (2**17, 2**23, 1460), (2**10, 2**16, 16)])
def test_the_work_for_a_payload_grows_with_its_length_only(small: int, large: int, size: int) -> None:
    # Concatenating what is held would make a byte large/small times as expensive (8 to 64 times).
    times = large // small
    assert seconds_to_parse(frame(large, b"\r"), size) < 4 * seconds_to_parse(frame(small, b"\r") * times, size, times)


def test_the_work_for_a_line_grows_with_its_length_only() -> None:
    short, long = (b'INFO {"a":"%b"}\r\n' % (b"x" * length) for length in (2**16, 2**21))
    assert seconds_to_parse(long, 64) < 4 * 2**5 * seconds_to_parse(short, 64)


@contextmanager
def measured() -> Iterator[list[int]]:
    """What memory the block holds at its end, and at most."""
    found: list[int] = []
    tracemalloc.start()
    try:
        yield found
        found += tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def test_a_payload_is_held_once() -> None:
    # The pieces themselves are the caller's and are there before; the payload is made of them in one go.
    pieces, subject = cut(frame(2**23), 2**16), Parser()
    with measured() as memory:
        events = [event for piece in pieces for event in subject.feed(piece)]
    assert len(events) == 1
    assert memory[0] < 1.1 * 2**23
    assert memory[1] < 1.2 * 2**23


@pytest.mark.parametrize("size", [1, 3, 50])
def test_tiny_pieces_take_little_more_memory_than_their_bytes(size: int) -> None:
    stream, subject = b"MSG a 1 1000000\r\n" + bytes(100_000), Parser()
    with measured() as memory:
        for start in range(0, len(stream), size):
            subject.feed(stream[start : start + size])
    assert memory[0] < 2.5 * len(stream) + 50_000


def test_what_is_learnt_is_bounded() -> None:
    subject = Parser()
    for i in range(20_000):
        size = i % 5000
        subject.feed(b"MSG a.%d %d %d\r\n%b\r\n" % (i, i, size, b"x" * size))
    assert len(subject._heads) <= parser._CACHED
    assert len(subject._numbers) <= parser._CACHED_NUMBERS + 1
    assert len(subject._sizes) <= parser._CACHED_NUMBERS + 1
    for i in range(100):
        subject.feed(b"MSG %b.%d 1 0\r\n\r\n" % (b"s" * 1000, i))
    assert all(len(line) <= parser._CACHED_LENGTH for line in subject._heads)
