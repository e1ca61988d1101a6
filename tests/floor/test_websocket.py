"""A WebSocket as a stream: Trio's own checks, and what the other end may do to it."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Event, Protocol, Side
from websockets.server import ServerProtocol

from tests.peers import Peer, Peers
from tests.worlds import next_event, refusal
from trionats import errors, events, open_client, open_events
from trionats._connection.websocket import CLOSE_SECONDS, MAX_FRAME, WebSocketStream, open_websocket
from trionats._protocol.addresses import parse_servers

Script = Callable[[Peer], Awaitable[None]]
Make = Callable[[], Awaitable[tuple[WebSocketStream, WebSocketStream]]]

URL = "ws://server.example/path/to?key=s3cret"


def pair(transports: tuple[trio.abc.Stream, trio.abc.Stream]) -> tuple[WebSocketStream, WebSocketStream]:
    """Two ends whose handshake is done."""
    ours, theirs = transports
    return WebSocketStream(ours, Protocol(Side.CLIENT)), WebSocketStream(theirs, Protocol(Side.SERVER))


async def memory() -> tuple[WebSocketStream, WebSocketStream]:
    return pair(trio.testing.memory_stream_pair())


async def lockstep() -> tuple[WebSocketStream, WebSocketStream]:
    return pair(trio.testing.lockstep_stream_pair())


@pytest.mark.parametrize(("make", "clogged"), [(memory, None), (lockstep, lockstep)], ids=["memory", "lockstep"])
async def test_it_is_a_stream_as_trio_wants_them(make: Make, clogged: Make | None) -> None:
    with trio.fail_after(30):
        await trio.testing.check_two_way_stream(make, clogged)


SERVER = parse_servers(URL)[0]


async def accept(stream: trio.abc.Stream, protocol: ServerProtocol | None = None, behind: bytes = b"") -> Request:
    """Be the server of one handshake; what comes behind it is sent together with its end."""
    protocol = protocol or ServerProtocol()
    events: list[Event] = []
    while not events:
        protocol.receive_data(bytes(await stream.receive_some()))
        events = protocol.events_received()
    request = events[0]
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    if behind:
        protocol.send_binary(behind)
    await stream.send_all(b"".join(protocol.data_to_send()))
    return request


class Ends(NamedTuple):
    """What two ends have of each other once they have shaken hands."""

    ours: WebSocketStream
    theirs: WebSocketStream
    wire: trio.abc.Stream
    """What `theirs` is on."""
    request: Request


async def shake_hands(
    url: str = URL,
    headers: dict[str, Any] | None = None,
    *,
    compression: bool = False,
    deflates: bool = False,
    behind: bytes = b"",
) -> Ends:
    ours, theirs = trio.testing.memory_stream_pair()
    factory = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
    protocol = ServerProtocol(extensions=[factory] if deflates else None)
    opened: list[WebSocketStream] = []

    async def client() -> None:
        opened.append(await open_websocket(ours, parse_servers(url)[0], headers or {}, compression=compression))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        request = await accept(theirs, protocol, behind)
    return Ends(opened[0], WebSocketStream(theirs, protocol), theirs, request)


async def test_the_request_has_path_host_and_the_users_headers_and_nothing_behind_the_answer_is_lost() -> None:
    headers = {"Authorization": "Bearer s3cret", "X-Two": ["1", "2"], "host": "proxy.example"}
    ours, theirs, _, request = await shake_hands(headers=headers, behind=b"INFO {}\r\n")
    assert [await ours.receive_some(4), await ours.receive_some()] == [b"INFO", b" {}\r\n"]
    assert request.path == "/path/to?key=s3cret"
    assert request.headers["Host"] == "proxy.example"
    assert request.headers["Authorization"] == "Bearer s3cret"
    assert request.headers.get_all("X-Two") == ["1", "2"]
    assert "Sec-WebSocket-Extensions" not in request.headers
    await ours.send_all(b"PING\r\n")
    assert await theirs.receive_some() == b"PING\r\n"


@pytest.mark.parametrize(
    ("url", "path", "host"),
    [
        ("ws://h", "/", "h"),
        ("ws://h/", "/", "h"),
        ("ws://h?x=1", "/?x=1", "h"),
        ("ws://[::1]:9", "/", "[::1]:9"),
        ("ws://server.example./x", "/x", "server.example"),  # no final dot
        ("ws://server.example.:4222", "/", "server.example:4222"),
        ("ws://u:s3cret@server.example", "/", "server.example"),
    ],
)
async def test_every_form_of_url_makes_a_request(url: str, path: str, host: str) -> None:
    request = (await shake_hands(url)).request
    assert (request.path, request.headers["Host"]) == (path, host)
    assert "Authorization" not in request.headers, "the userinfo is for NATS, and not for HTTP"
    assert "s3cret" not in str(request.headers)


@pytest.mark.parametrize(
    "headers",
    [
        *({"X": value} for value in ("a\r\nEvil: b", "s3cret\0", "s3cret☃", ["a", 5], 5, None)),
        *({name: "s3cret"} for name in ("a b", "", "X\r\nY", "Sec-WebSocket-Key", "upgrade", 5)),
        *("s3cret", [("X", "s3cret")]),
    ],
)
async def test_headers_that_would_change_the_request_are_refused_without_their_values(headers: Any) -> None:  # noqa: ANN401
    stream, _ = trio.testing.memory_stream_pair()
    with pytest.raises(errors.BadHeaderError, match="ws_connection_headers") as caught:
        await open_websocket(stream, SERVER, headers, compression=False)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "it answers HTTP 403 Forbidden"),
        (b"HTTP/1.1 301 Moved\r\nLocation: ws://evil\r\n\r\n", "it answers HTTP 301 Moved"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "Sec-WebSocket-Accept"),
        (b"INFO {}\r\n", "what it answers is no HTTP"),
        (b"", "what it answers is no HTTP"),
        (b"x" * 100_000, "expected no more than 8192 bytes"),
    ],
)
async def test_a_server_that_does_not_want_to_is_named_with_its_answer(response: bytes, said: str) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(response)
    await theirs.send_eof()
    with pytest.raises(errors.ProtocolError) as caught:
        await open_websocket(ours, SERVER, {}, compression=False)
    assert str(caught.value).startswith("ws://server.example:80 did not become a WebSocket: ")
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_frame_larger_than_any_server_sends_is_refused_by_its_header() -> None:
    """64 MiB are what a server keeps for a client at the most; nothing of more is read, or kept."""
    ours, _, wire, _ = await shake_hands()
    await wire.send_all(b"\x82\x7f" + (MAX_FRAME + 1).to_bytes(8, "big"))
    with pytest.raises(trio.BrokenResourceError) as caught:
        await ours.receive_some()
    assert isinstance(caught.value.__cause__, errors.ProtocolError)
    assert str(MAX_FRAME) in str(caught.value.__cause__)


class Raw:
    """A stream of ours, and the bare other end."""

    def __init__(self) -> None:
        ours, self.wire = trio.testing.memory_stream_pair()
        self.stream = WebSocketStream(ours, Protocol(Side.CLIENT, max_size=(None, 1000)))
        self._peer = Protocol(Side.SERVER)

    async def send(self, *frames: Frame) -> None:
        await self.wire.send_all(b"".join(frame.serialize(mask=False) for frame in frames))

    async def frames(self) -> list[Frame]:
        self._peer.receive_data(bytes(await self.wire.receive_some()))
        return [event for event in self._peer.events_received() if isinstance(event, Frame)]


@given(st.binary(min_size=1, max_size=300), st.data())
@settings(max_examples=40)
def test_bytes_arrive_however_frames_and_segments_cut_them(data: bytes, draw: st.DataObject) -> None:
    async def main() -> None:
        raw = Raw()
        rng = random.Random(draw.draw(st.integers()))
        rest, wire = data, b""
        fragmented = False
        while rest:
            size = rng.randint(0, 40)
            piece, rest = rest[:size], rest[size:]
            fin = rng.random() < 0.5
            opcode = Opcode.CONT if fragmented else Opcode.BINARY
            wire += Frame(opcode, piece, fin=fin).serialize(mask=False)
            fragmented = not fin
            if rng.random() < 0.3:
                wire += Frame(Opcode.PING, b"?").serialize(mask=False)
        got = b""
        while len(got) < len(data):
            size = rng.randint(1, 50)
            if wire:
                await raw.wire.send_all(wire[:size])
                wire = wire[size:]
                with trio.move_on_after(0):
                    while True:
                        got += await raw.stream.receive_some(rng.randint(1, 30))
            else:
                got += await raw.stream.receive_some(rng.randint(1, 30))
        assert got == data

    trio.run(main)


async def test_a_ping_is_answered_by_the_reader_while_nobody_sends() -> None:
    raw = Raw()
    await raw.send(Frame(Opcode.PING, b"are you there"), Frame(Opcode.BINARY, b"x"))
    assert await raw.stream.receive_some() == b"x"
    pong = (await raw.frames())[0]
    assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"are you there")


async def test_a_ping_is_answered_behind_the_frame_that_is_being_sent() -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    stream = WebSocketStream(ours, Protocol(Side.CLIENT))
    peer = Protocol(Side.SERVER)
    seen: list[Opcode] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"PUB")
        nursery.start_soon(stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        await theirs.send_all(Frame(Opcode.PING, b"").serialize(mask=False))
        await trio.testing.wait_all_tasks_blocked()
        while len(seen) < 2:
            peer.receive_data(bytes(await theirs.receive_some()))
            seen += [event.opcode for event in peer.events_received() if isinstance(event, Frame)]
        nursery.cancel_scope.cancel()
    assert seen == [Opcode.BINARY, Opcode.PONG]


async def test_what_is_sent_is_one_masked_binary_frame_and_closing_sends_a_close_frame() -> None:
    raw = Raw()
    await raw.stream.send_all(b"PUB a 0\r\n\r\n")
    data = bytes(await raw.wire.receive_some())
    assert data[0] == 0x82  # final, binary
    assert data[1] & 0x80  # masked
    assert b"PUB" not in data
    await raw.stream.aclose()
    close = (await raw.frames())[0]
    assert (close.opcode, bytes(close.data)) == (Opcode.CLOSE, b"\x03\xe8")
    assert await raw.wire.receive_some() == b""


async def test_closing_waits_for_nobody_who_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    stream, _ = await lockstep()
    start = trio.current_time()
    await stream.aclose()
    assert trio.current_time() - start == CLOSE_SECONDS


async def test_after_half_a_frame_nothing_more_is_sent() -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    stream = WebSocketStream(ours, Protocol(Side.CLIENT))
    with trio.move_on_after(0.01):
        await stream.send_all(b"x" * 100)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"y")
    await stream.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going away"), (1008, "Authorization Violation")])
async def test_a_close_frame_is_the_end_and_is_answered(code: int, reason: str) -> None:
    raw = Raw()
    await raw.send(Frame(Opcode.BINARY, b"-ERR"), Frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode()))
    assert await raw.stream.receive_some() == b"-ERR"
    assert await raw.stream.receive_some() == b""
    assert [frame.opcode for frame in await raw.frames()] == [Opcode.CLOSE]
    with pytest.raises(trio.BrokenResourceError) as caught:
        await raw.stream.send_all(b"x")
    assert str(code) in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (b"", "ended without a close frame"),
        (b"\x82\x05abc", "ended without a close frame"),
        (Frame(Opcode.BINARY, b"x" * 1001).serialize(mask=False), "1001 bytes"),
        (b"\x82\x7f" + (1 << 62).to_bytes(8, "big"), "exceeds limit"),
        (b"\x82\x81\x01\x02\x03\x04y", "incorrect masking"),
        (b"\x8f\x00", "invalid opcode"),
        (Frame(Opcode.CONT, b"x").serialize(mask=False), "unexpected continuation frame"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "ended without a close frame"),
    ],
)
async def test_what_is_no_websocket_breaks_the_stream_and_says_why(wire: bytes, said: str) -> None:
    raw = Raw()
    await raw.send(Frame(Opcode.BINARY, b"good"))
    await raw.wire.send_all(wire)
    await raw.wire.send_eof()
    assert await raw.stream.receive_some() == b"good"
    with pytest.raises(trio.BrokenResourceError) as caught:
        await raw.stream.receive_some()
    assert said in str(caught.value.__cause__)
    with pytest.raises(trio.BrokenResourceError):
        await raw.stream.receive_some()


def closing(code: int, reason: bytes, *, words: bytes = b"", before_login: bool = False) -> Script:
    """Play a server that sends words and closes the WebSocket: at the first message, or in one piece with its INFO."""

    async def script(peer: Peer) -> None:
        transport = peer.stream
        protocol = ServerProtocol()
        await accept(transport, protocol)
        close = Frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason).serialize(mask=False)
        if before_login:
            await transport.send_all(Frame(Opcode.BINARY, b"INFO {}\r\n" + words).serialize(mask=False) + close)
        else:
            peer.stream = WebSocketStream(transport, protocol)
            await peer.info()
            await peer.log_in()
            await peer.line()
            await peer.stream.send_all(words)
            await transport.send_all(close)
        await trio.sleep_forever()

    return script


async def lost(script: Script, **options: Any) -> events.Disconnected:  # noqa: ANN401 - any option
    """Lose a connection in the middle of a request; the request and the feed say why."""
    async with trio.open_nursery() as nursery:
        dial = Peers(nursery, script).dial
        async with (
            open_client(nursery, "ws://fake", dial=dial, allow_reconnect=False, **options) as nc,
            open_events(nursery, nc) as rx,
        ):
            with pytest.raises(errors.Error) as caught:
                await nc.request("a")
            told = await next_event(rx, events.Disconnected)
            assert str(told.reason) in str(caught.value)
        nursery.cancel_scope.cancel()
    return told


OVERSIZED = "Maximum Payload Violation"


@pytest.mark.parametrize(
    ("code", "reason", "words", "kind", "said", "shown"),
    [
        (1001, b"Server Shutdown", "", errors.UnexpectedEOF, "", "Server Shutdown"),
        # It hides no better words.
        (1009, b"Too much", OVERSIZED, errors.MaxPayloadError, f": the server says: {OVERSIZED}", "Too much"),
        # They are somebody else's.
        (1008, b"", "", errors.UnexpectedEOF, "", ""),
        (1008, b"a\r\nb\x1b[2J", "", errors.UnexpectedEOF, "", "a\\r\\nb\\x1b[2J"),
        (1008, "\u202eevil".encode(), "", errors.UnexpectedEOF, "", "\\u202eevil"),
        (1008, b"x" * 123, "", errors.UnexpectedEOF, "", "x" * 123),
    ],
)
async def test_the_code_and_the_words_of_a_close_frame_are_told(
    code: int, reason: bytes, words: str, kind: type[Exception], said: str, shown: str
) -> None:
    told = await lost(closing(code, reason, words=f"-ERR '{words}'\r\n".encode() if words else b""))
    assert (told.close_code, told.close_reason) == (code, shown)
    assert isinstance(told.reason, kind)
    closed = f"(WebSocket close {code}{': ' if shown else ''}{shown})"
    assert str(told.reason) == f"ws://fake:80{said or ' closed the connection'} {closed}"
    assert str(told.reason).isprintable()


TOKEN, KEY = "token-as-long-as-they-are", "key-for-the-proxy"


@pytest.mark.parametrize(
    ("reason", "shown"), [(f"no {TOKEN} of mine", "no ..."), (f"{TOKEN[:20]} is cut", "..."), (f"bad {KEY}", "bad ...")]
)
async def test_the_words_of_a_close_frame_do_not_repeat_what_was_confided(reason: str, shown: str) -> None:
    """Proxies answer with what they did not like."""
    confided: dict[str, Any] = {"token": TOKEN, "ws_connection_headers": {"Authorization": f"Bearer {KEY}"}}
    told = await lost(closing(1008, reason.encode()), **confided)
    assert told.close_reason.startswith(shown)
    for secret in (TOKEN[:20], KEY):
        assert secret not in f"{told!r} {told.reason}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"", "the WebSocket was closed (1008: Go Away)"),
        # A server that waits for no login: a close frame hides no better words.
        (b"-ERR 'maximum connections exceeded'\r\n", "the server says: maximum connections exceeded"),
    ],
)
async def test_a_close_frame_during_the_login_is_told(words: bytes, said: str, nursery: trio.Nursery) -> None:
    peers = Peers(nursery, closing(1008, b"Go Away", words=words, before_login=True))
    assert str(await refusal("ws://fake", dial=peers.dial)).endswith(said)
    nursery.cancel_scope.cancel()


async def test_compression_goes_both_ways_and_without_context_takeover() -> None:
    ours, theirs, _, request = await shake_hands(compression=True, deflates=True)
    offered = request.headers["Sec-WebSocket-Extensions"]
    assert offered == "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    ours.compress_up_to(1000)
    theirs.compress_up_to(1000)
    data = b"news " * 1000
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        await sender.send_all(data)
        got = b""
        while len(got) < len(data):
            got += await receiver.receive_some(333)
        assert got == data


def heads(data: bytes) -> Iterator[tuple[bool, int]]:
    """Say of each masked frame whether it is compressed, and how long it is."""
    while data:
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        yield bool(data[0] & 0x40), size
        data = data[start + 4 + size :]


async def test_nothing_is_compressed_before_the_limit_is_known_nor_above_it_nor_without_the_server() -> None:
    ours, _, wire, _ = await shake_hands(compression=True, deflates=True)
    await ours.send_all(b"x" * 500)
    ours.compress_up_to(200)
    await ours.send_all(b"x" * 500)
    await ours.send_all(b"x" * 63)
    sent = list(heads(bytes(await wire.receive_some())))
    assert [compressed for compressed, _ in sent] == [False, True, True, True, False]
    assert max(size for compressed, size in sent if compressed) < 100
    # A server that does not compress is no problem.
    ours, theirs, _, _ = await shake_hands(compression=True)
    ours.compress_up_to(1000)
    await ours.send_all(b"x" * 500)
    assert len(await theirs.receive_some()) == 500


async def test_two_tasks_may_not_read_or_write_at_once() -> None:
    ours, _ = await lockstep()
    calls: list[Callable[[], Awaitable[Any]]] = [lambda: ours.send_all(b"x"), ours.receive_some]
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        for call in calls:
            with pytest.raises(trio.BusyResourceError):
                await call()
        nursery.cancel_scope.cancel()


async def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ours, theirs, _, _ = await shake_hands(headers={"Authorization": "s3cret"})
    await ours.send_all(b"CONNECT s3cret")
    await ours.aclose()
    await theirs.aclose()
    ours_only = [record.getMessage() for record in caplog.records if record.name != "websockets.server"]
    assert "s3cret" not in "".join(ours_only)
