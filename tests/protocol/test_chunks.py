"""However a stream is cut, the same events come out of it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.sessions import parsed
from trionats._protocol.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Iterable

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
def test_one_two_and_three_pieces(name: str) -> None:
    stream = STREAMS[name]
    whole = fed(stream)
    for cuts in itertools.combinations_with_replacement(range(len(stream) + 1), 2):
        assert fed(stream, cuts) == whole, cuts


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64])
def test_pieces_of_one_size(name: str, size: int) -> None:
    stream = STREAMS[name]
    assert fed(stream, range(size, len(stream), size)) == fed(stream)


def test_byte_by_byte_with_long_ones_between() -> None:
    # Long enough for every way of holding what is not complete: short, long, and in more pieces than a list should have.
    stream = b'INFO {"a":"%b"}\r\nMSG a 1 9000\r\n%b\r\n' % (b"i" * 9000, b"\r\n" * 4500)
    stream += b"HMSG a 1 5000 9000\r\n%b\r\n" % bytes(9000)
    stream += b"MSG %b 1 %b 1\r\nx\r\nPING\r\n" % (b"s" * 5000, b"r" * 5000)
    assert len(fed(stream)) == 5
    assert fed(stream, range(1, len(stream))) == fed(stream, range(4096, len(stream), 4096)) == fed(stream)


words = st.binary(min_size=1, max_size=60).map(lambda raw: raw.translate(None, b" \t\r\n") or b"w")
ends = [b"\r\n", b"\r", b"\n", b"PING\r\n", b"\r\n\r\n", b"MSG a 1 1\r\nx\r\n"]
payloads = st.binary(max_size=40) | st.sampled_from(ends)
sids = st.integers(0, 10**19)
blanks = st.sampled_from([b" ", b" ", b" ", b"  ", b"\t"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    block, data = draw(st.none() | payloads), draw(payloads)
    sizes = [len(data)] if block is None else [len(block), len(block) + len(data)]
    line = [draw(words), b"%d" % draw(sids), *draw(st.lists(words, max_size=1)), *(b"%d" % size for size in sizes)]
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
