"""A nats-server in memory, for use as `dial=`: it has no task, no clock and no chance in it.

    server = FakeServer()
    async with trio.open_nursery() as nursery, trionats.open_client(nursery, dial=server.dial) as nc:
        ...
    server.check()

Strategy: the server works inside the client's own `send_all`: what arrives is cut into frames, acted on, and answered into
the client's receive buffer before `send_all` returns. So there is no task of the server's that a leak test would have to
overlook, and everything happens in the order in which the client does it.

What it does: INFO, CONNECT (with `authorize`), PING and PONG, a table of subscriptions for each link, PUB and HPUB routed to
SUBs (queue groups in turn, auto-unsubscribe, no_echo), "503" where nobody listens, permissions, payload limit, and
programs as responders (`server.on("$JS.API.>", answer)`).

What can be done to it: `inject` bytes, `cut` the link at once or after a number of bytes in either direction, `stall` either
direction, deliver in small `chunk`s, refuse or swallow a dial, stop answering (`mute`).

What it watches: every byte and every frame that it got, and that they are whole: `check` raises if a frame was malformed, or
if the client closed a link in the middle of one.
"""

from __future__ import annotations

import dataclasses
import errno
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

import trio

__all__ = ["FakeServer", "Frame", "Link", "Subscription"]

CRLF = b"\r\n"
NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"
VERBS = frozenset({"CONNECT", "PING", "PONG", "PUB", "HPUB", "SUB", "UNSUB"})
DIGITS = frozenset(b"0123456789")

Ending = Literal["eof", "reset"]


class MalformedFrameError(Exception):
    """The client wrote something that is no frame."""


class Frame(NamedTuple):
    """One whole frame that the client sent."""

    verb: str
    arguments: tuple[str, ...] = ()
    headers: bytes = b""
    payload: bytes = b""

    @property
    def subject(self) -> str:
        """What a PUB, HPUB or SUB is about."""
        return self.arguments[0]

    @property
    def reply(self) -> str:
        """Where a PUB or HPUB wants its answer; empty if nowhere."""
        return self.arguments[1] if len(self.arguments) > (2 if self.verb == "PUB" else 3) else ""


@dataclasses.dataclass(slots=True)
class Subscription:
    """One entry of a link's table."""

    sid: int
    subject: str
    queue: str = ""
    limit: int = 0
    delivered: int = 0


@dataclasses.dataclass(eq=False, kw_only=True)
class FakeServer:
    """A scripted server; see the module's text."""

    #: Fields that replace those of the usual INFO, and then all of them.
    info: dict[str, Any] = dataclasses.field(default_factory=dict)
    #: Given the CONNECT's fields, says what is wrong with them, as the server would; None is welcome.
    authorize: Callable[[dict[str, Any]], str | None] | None = None
    #: Patterns that the client may not publish or subscribe to.
    deny_publish: tuple[str, ...] = ()
    deny_subscribe: tuple[str, ...] = ()
    #: How many bytes a `receive_some` gets at most; 0 for no limit.
    chunk: int = 0
    #: How many bytes of a `send_all` are taken before the next scheduling point; 0 for all of them. A `send_all` that is
    #: cancelled between two sips leaves half a frame, as a socket would.
    sip: int = 0

    def __post_init__(self) -> None:
        usual: dict[str, Any] = {"server_id": "FAKE", "server_name": "fake", "version": "2.15.1", "proto": 1}
        usual |= {"go": "go1.25", "host": "127.0.0.1", "port": 4222, "client_id": 1, "client_ip": "127.0.0.1"}
        self.info = {**usual, "headers": True, "max_payload": 1024 * 1024, "jetstream": True, **self.info}
        #: Verbs that get no answer and no effect, such as "PING" for a peer that is dead but connected.
        self.mute: set[str] = set()
        #: How the next dials end: "refuse", "hang"; when it is used up, they are accepted.
        self.dials: list[Literal["refuse", "hang", "accept"]] = []
        #: What every further dial gets once `dials` is used up.
        self.accepting = True
        self.dialled: list[tuple[str, int]] = []
        self.links: list[Link] = []
        self.frames: list[Frame] = []
        self.problems: list[str] = []
        self._responders: list[tuple[str, Callable[[Frame], Any]]] = []
        self._turns: Counter[str] = Counter()

    async def dial(self, host: str = "fake", port: int = 4222) -> trio.abc.Stream:
        """Open a link: what is given to the client as `dial=`."""
        self.dialled.append((host, port))
        await trio.lowlevel.checkpoint()
        answer = self.dials.pop(0) if self.dials else ("accept" if self.accepting else "refuse")
        if answer == "hang":
            await trio.sleep_forever()
        if answer == "refuse":
            raise OSError(errno.ECONNREFUSED, f"the fake server at {host}:{port} refuses")
        link = Link(self)
        self.links.append(link)
        link.write(b"INFO " + json.dumps(self.info).encode() + b" " + CRLF)
        return link

    @property
    def link(self) -> Link:
        """The newest link."""
        if not self.links:
            raise AssertionError("nobody has dialled")
        return self.links[-1]

    @property
    def live_links(self) -> list[Link]:
        """The links that neither side has ended."""
        return [link for link in self.links if link.alive]

    @property
    def subscriptions(self) -> list[Subscription]:
        """The subscriptions of all live links, in the order of their making."""
        return [s for link in self.live_links for s in link.subscriptions.values()]

    def sent(self, verb: str, subject: str | None = None) -> list[Frame]:
        """The frames that the client has sent so far: those of one verb, and for one subject or pattern."""
        return [f for f in self.frames if f.verb == verb and (subject is None or matches(subject, f.subject))]

    def on(self, pattern: str, responder: Callable[[Frame], Any], *, first: bool = False) -> None:
        """Answer what is published to `pattern`: bytes, str, or a mapping (as JSON) go to the reply subject; None does not.

        A responder counts as interest, so that there is no "503", and the earliest that matches is the one that answers;
        with `first` this one comes before those that are there already.
        """
        self._responders.insert(0 if first else len(self._responders), (pattern, responder))

    def publish(self, subject: str, payload: bytes = b"", *, reply: str = "", headers: bytes = b"") -> int:
        """Send a message to all who subscribe to its subject, on any link; `headers` is a whole header block.

        Returns:
            How many copies were sent.
        """
        return self._route(subject, reply, headers, payload, {id(link): link for link in self.live_links})

    def inject(self, data: bytes) -> None:
        """Write bytes to the newest link as they are."""
        self.link.write(data)

    def announce(self, **changes: object) -> None:
        """Send INFO once more to the newest link, with some fields changed: `ldm=True` is a lame duck's."""
        self.inject(b"INFO " + json.dumps({**self.info, **changes}).encode() + b" " + CRLF)

    def cut(self, how: Ending = "eof") -> None:
        """End all links at once."""
        for link in self.live_links:
            link.cut(how)

    def check(self) -> None:
        """Raise AssertionError if the client has sent anything but whole, well-formed frames."""
        torn = [f"half a frame at the end of a link: {link.torn!r}" for link in self.links if link.torn]
        assert not self.problems + torn, "; ".join(self.problems + torn)

    def handle(self, link: Link, frame: Frame) -> None:
        """Do what one frame asks for."""
        if not link.greeted and frame.verb != "CONNECT":
            self.problems.append(f"{frame.verb} before CONNECT")
        link.greeted = True
        self.frames.append(frame)
        if frame.verb in self.mute:
            return
        acts = {"CONNECT": self._connect, "SUB": self._subscribe, "UNSUB": self._unsubscribe, "PING": self._ping}
        acts |= {"PUB": self._published, "HPUB": self._published}
        if frame.verb in acts:
            acts[frame.verb](link, frame)

    def _ping(self, link: Link, _: Frame) -> None:
        link.write(b"PONG" + CRLF)

    def _connect(self, link: Link, frame: Frame) -> None:
        link.options = json.loads(frame.payload)
        if self.authorize is not None and (error := self.authorize(link.options)):
            link.error(error, fatal=True)
        elif link.options.get("verbose"):
            link.write(b"+OK" + CRLF)

    def _subscribe(self, link: Link, frame: Frame) -> None:
        subject, sid = frame.arguments[0], int(frame.arguments[-1])
        queue = frame.arguments[1] if len(frame.arguments) == 3 else ""
        if sid in link.subscriptions:
            self.problems.append(f"SUB with a sid in use: {sid}")
        if any(matches(denied, subject) for denied in self.deny_subscribe):
            link.error(f'Permissions Violation for Subscription to "{subject}"')
            return
        link.subscriptions[sid] = Subscription(sid, subject, queue)

    def _unsubscribe(self, link: Link, frame: Frame) -> None:
        sid = int(frame.arguments[0])
        limit = int(frame.arguments[1]) if len(frame.arguments) == 2 else 0
        subscription = link.subscriptions.get(sid)
        if subscription is not None and limit > subscription.delivered:
            subscription.limit = limit
        else:
            link.subscriptions.pop(sid, None)

    def _published(self, link: Link, frame: Frame) -> None:
        subject, reply = frame.subject, frame.reply
        if len(frame.headers) + len(frame.payload) > self.info["max_payload"]:
            link.error("Maximum Payload Violation", fatal=True)
            return
        if any(matches(denied, subject) for denied in self.deny_publish):
            link.error(f'Permissions Violation for Publish to "{subject}"')
            return
        links = {id(other): other for other in self.live_links}
        if link.options.get("echo") is False:
            links.pop(id(link), None)
        responder = next((call for pattern, call in self._responders if matches(pattern, subject)), None)
        heard = self._route(subject, reply, frame.headers, frame.payload, links)
        if responder is not None:
            self._answer(reply, responder(frame))
        elif not heard and reply and link.options.get("no_responders") and link.options.get("headers"):
            self._route(reply, "", NO_RESPONDERS, b"", {id(link): link})

    def _answer(self, reply: str, answer: object) -> None:
        if answer is None or not reply:
            return
        if not isinstance(answer, bytes):
            answer = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.publish(reply, answer)

    def _route(self, subject: str, reply: str, headers: bytes, payload: bytes, links: dict[int, Link]) -> int:
        groups: dict[str, list[tuple[Link, Subscription]]] = {}
        chosen: list[tuple[Link, Subscription]] = []
        for link in links.values():
            for subscription in link.subscriptions.values():
                if matches(subscription.subject, subject):
                    here = groups.setdefault(subscription.queue, []) if subscription.queue else chosen
                    here.append((link, subscription))
        for queue, members in sorted(groups.items()):
            # In turn rather than by lot: a test that fails fails again.
            chosen.append(members[self._turns[queue] % len(members)])
            self._turns[queue] += 1
        for link, subscription in chosen:
            link.deliver(subscription, subject, reply, headers, payload)
        return len(chosen)


class Link(trio.abc.Stream):
    """One connection of a `FakeServer`: the client's end of it, and what the test can do to it."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.options: dict[str, Any] = {}
        self.subscriptions: dict[int, Subscription] = {}
        #: All that the client has sent and that got through, byte for byte.
        self.received = bytearray()
        #: All that the client has been given.
        self.given = bytearray()
        self.greeted = self.closed = False
        self.ending: Ending | None = None
        self._unread = bytearray()
        self._down = bytearray()
        self._cut_up: int | None = None
        self._cut_down: int | None = None
        self._stalled_up: trio.Event | None = None
        self._stalled_down = False
        self._readable = trio.Event()
        self._busy: set[str] = set()

    @property
    def alive(self) -> bool:
        """Whether neither side has ended it."""
        return not self.closed and self.ending is None

    @property
    def torn(self) -> bytes:
        """What the client left unfinished when it closed the link; empty if the link was cut, and not by the client."""
        return bytes(self._unread) if self.closed and self.ending is None else b""

    def write(self, data: bytes) -> None:
        """Send bytes to the client as they are."""
        if self.alive:
            self._down += data
            self._readable.set()

    def error(self, text: str, *, fatal: bool = False) -> None:
        """Send `-ERR`, and end the link if the error is of that kind."""
        self.write(f"-ERR '{text}'".encode() + CRLF)
        if fatal:
            self.cut()

    def deliver(self, subscription: Subscription, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """Send one message to one subscription, and count it."""
        subscription.delivered += 1
        if subscription.limit and subscription.delivered >= subscription.limit:
            self.subscriptions.pop(subscription.sid, None)
        to = f"{subject} {subscription.sid} {reply + ' ' if reply else ''}"
        line = f"HMSG {to}{len(headers)} {len(headers) + len(payload)}" if headers else f"MSG {to}{len(payload)}"
        self.write(line.encode() + CRLF + headers + payload + CRLF)

    def cut(self, how: Ending = "eof") -> None:
        """End the link now, as the server does in good order ("eof"), or as a network does ("reset").

        After "eof" the client still gets what was on its way; after "reset" it does not. Sending fails after both.
        """
        if not self.alive:
            return
        self.ending = how
        if how == "reset":
            self._down.clear()
        self._readable.set()
        self.resume()

    def cut_after(self, *, sent: int | None = None, given: int | None = None) -> None:
        """End the link when exactly so many more bytes have come from the client, or have been given to it."""
        self._cut_up, self._cut_down = sent, given
        self._readable.set()

    def stall(self, *, up: bool = False, down: bool = False) -> None:
        """Take nothing more from the client (its `send_all` waits), or give nothing more to it."""
        if up and self._stalled_up is None:
            self._stalled_up = trio.Event()
        if down:
            self._stalled_down = True

    def resume(self) -> None:
        """End all stalling."""
        if self._stalled_up is not None:
            self._stalled_up.set()
            self._stalled_up = None
        self._stalled_down = False
        self._readable.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._alone("sending"):
            rest = bytes(data)
            sip = self.server.sip or len(rest)
            while True:
                await self.wait_send_all_might_not_block()
                self._take(rest[:sip])
                rest = rest[sip:]
                if not rest:
                    return

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._stalled_up is not None and self.alive:
            await self._stalled_up.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with self._alone("receiving"):
            await trio.lowlevel.checkpoint()
            while not self._can_receive():
                self._readable = trio.Event()
                await self._readable.wait()
            return self._give(max_bytes)

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if what in self._busy:
            raise trio.BusyResourceError(f"another task is {what} on this link")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)

    async def aclose(self) -> None:
        self.closed = True
        self.subscriptions.clear()
        self.resume()
        await trio.lowlevel.checkpoint()

    def _can_receive(self) -> bool:
        if self.closed or self.ending == "reset" or self._cut_down == 0:
            return True
        return not self._stalled_down and bool(self._down or self.ending)

    def _give(self, max_bytes: int | None) -> bytes:
        if self.closed:
            raise trio.ClosedResourceError("this link was closed")
        if self._cut_down == 0:
            self._cut_down = None
            self.cut("reset")
        if self.ending == "reset":
            raise trio.BrokenResourceError("this link was cut")
        limits = [n for n in (max_bytes, self.server.chunk, self._cut_down) if n]
        count = min([len(self._down), *limits])
        data = bytes(self._down[:count])
        del self._down[:count]
        self.given += data
        if self._cut_down is not None:
            self._cut_down -= count
        return data

    def _take(self, data: bytes) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this link was closed")
        if self.ending is not None:
            raise trio.BrokenResourceError("this link was cut")
        broken = self._cut_up is not None and len(data) >= self._cut_up
        if self._cut_up is not None:
            data = data[: self._cut_up]
            self._cut_up -= len(data)
        self.received += data
        self._unread += data
        try:
            while self.alive and (frame := cut_frame(self._unread)) is not None:
                self.server.handle(self, frame)
        except MalformedFrameError as error:
            self.server.problems.append(str(error))
            self.error("Unknown Protocol Operation", fatal=True)
        if broken:
            self.cut("reset")
            raise trio.BrokenResourceError("this link was cut")


# -- the wire, read on its own account: the fake must not believe what trionats believes --------------------------------


def cut_frame(buffer: bytearray) -> Frame | None:
    """Take one frame from the front of a buffer; None if there is no whole one yet."""
    end = buffer.find(CRLF)
    if end < 0:
        if len(buffer) > 1024 * 1024:
            raise MalformedFrameError(f"a line without an end: {bytes(buffer[:80])!r}")
        return None
    line = bytes(buffer[:end])
    verb, _, rest = line.partition(b" ")
    name = verb.decode("latin-1").upper()
    if name not in VERBS:
        raise MalformedFrameError(f"no verb: {line[:80]!r}")
    if name == "CONNECT":
        frame, size = Frame(name, (), b"", rest), end + 2
        _checked_json(rest)
    elif name in ("PUB", "HPUB"):
        found = _message(buffer, name, line, rest, end + 2)
        if found is None:
            return None
        frame, size = found
    else:
        frame, size = Frame(name, _arguments(name, line, rest)), end + 2
        for text in frame.arguments[-1 if name == "SUB" else 0 :]:
            _number(text, line)
    del buffer[:size]
    return frame


_COUNTS = {"PING": (0, 0), "PONG": (0, 0), "SUB": (2, 3), "UNSUB": (1, 2), "PUB": (2, 3), "HPUB": (3, 4)}


def _message(buffer: bytearray, name: str, line: bytes, rest: bytes, start: int) -> tuple[Frame, int] | None:
    arguments = _arguments(name, line, rest)
    sizes = [_number(text, line) for text in arguments[-(1 if name == "PUB" else 2) :]]
    total, header_size = sizes[-1], sizes[0] if name == "HPUB" else 0
    if header_size > total:
        raise MalformedFrameError(f"headers longer than the whole: {line[:80]!r}")
    if len(buffer) < start + total + 2:
        return None
    if buffer[start + total : start + total + 2] != CRLF:
        raise MalformedFrameError(f"a payload that does not end where it says: {line[:80]!r}")
    headers = bytes(buffer[start : start + header_size])
    if name == "HPUB" and not (headers.startswith(b"NATS/1.0") and headers.endswith(b"\r\n\r\n")):
        raise MalformedFrameError(f"no header block: {headers[:80]!r}")
    payload = bytes(buffer[start + header_size : start + total])
    return Frame(name, arguments, headers, payload), start + total + 2


def _arguments(name: str, line: bytes, rest: bytes) -> tuple[str, ...]:
    least, most = _COUNTS[name]
    try:
        arguments = tuple(rest.decode().split(" ")) if rest else ()
    except UnicodeDecodeError:
        raise MalformedFrameError(f"not UTF-8: {line[:80]!r}") from None
    if not least <= len(arguments) <= most or any(not a or not a.isprintable() for a in arguments):
        raise MalformedFrameError(f"not {least} to {most} arguments: {line[:80]!r}")
    return arguments


def _checked_json(text: bytes) -> None:
    with suppress(ValueError):
        if isinstance(json.loads(text), dict):
            return
    raise MalformedFrameError("a CONNECT without a JSON object")


def _number(text: str, line: bytes) -> int:
    if not text or len(text) > 9 or not DIGITS.issuperset(text.encode()):
        raise MalformedFrameError(f"not a number: {line[:80]!r}")
    return int(text)


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one of those that a pattern with `*` and `>` stands for."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > place
        if place >= len(tokens) or token not in ("*", tokens[place]):
            return False
    return len(wanted) == len(tokens)
