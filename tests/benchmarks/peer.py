"""The neutral other end: feeds subscriptions, answers requests, and makes some, over a raw socket, for all clients alike.

    python -m tests.benchmarks.peer HOST PORT

It prints one line when it is ready, and ends with its standard input's process or the server.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from typing import Final

#: Where the client asks for messages (JSON with `count` and `size`), where they go, and where it says how far it is.
FEED: Final = "bench.feed"
DATA: Final = "bench.data"
CREDIT_SUBJECT: Final = "bench.credit"
#: Requests; the answer is the request.
ECHO: Final = "bench.echo"
#: Where a service asks to be asked (as for a feed), to be told the number of right responses; where its requests go, and how many
#: of them at once.
ASK: Final = "bench.ask"
SERVED: Final = "bench.served"
AT_ONCE: Final = 50
#: How far the feed may be ahead of the client, and after how many messages the client gives credit.
WINDOW: Final = 16384
CREDIT: Final = 4096
BURST: Final = 256

SUBSCRIBED = (FEED, CREDIT_SUBJECT, ECHO, ASK, "bench.response.*")
FEED_SID, CREDIT_SID, ECHO_SID, ASK_SID, RESPONSE_SID = (b"%d" % number for number in range(1, 6))


class Peer:
    """One connection, and one thing at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        options = {"verbose": False, "pedantic": False, "name": "bench-peer", "lang": "raw", "version": "0"}
        subs = "".join(f"SUB {subject} {number}\r\n" for number, subject in enumerate(SUBSCRIBED, 1))
        self.socket.sendall(f"CONNECT {json.dumps(options)}\r\n{subs}PING\r\n".encode())
        while b"PONG\r\n" not in self.buffer:
            self.buffer += self.socket.recv(65536)
        self.buffer = self.buffer.partition(b"PONG\r\n")[2]

    def serve(self) -> None:
        """Answer requests and feed until the server is gone."""
        while True:
            answers = []
            for sid, reply, payload in self.messages():
                if sid == ECHO_SID:
                    answers.append(b"PUB %s %d\r\n%s\r\n" % (reply, len(payload), payload))
                elif sid == FEED_SID:
                    self.feed(**json.loads(payload))
                elif sid == ASK_SID:
                    right = self.ask(**json.loads(payload))
                    answers.append(b"PUB %s %d\r\n%d\r\n" % (reply, len(str(right)), right))
            if answers:
                self.socket.sendall(b"".join(answers))
            self.read()

    def read(self) -> None:
        data = self.socket.recv(262144)
        if not data:
            raise EOFError
        self.buffer += data

    def messages(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Take the whole messages off the buffer; answer pings."""
        while (end := self.buffer.find(b"\r\n")) >= 0:
            verb, *arguments = self.buffer[:end].split(b" ")
            if verb != b"MSG":
                self.buffer = self.buffer[end + 2 :]
                if verb == b"PING":
                    self.socket.sendall(b"PONG\r\n")
                continue
            size = int(arguments[-1])
            if len(self.buffer) < end + size + 4:
                return
            payload = self.buffer[end + 2 : end + 2 + size]
            self.buffer = self.buffer[end + size + 4 :]
            yield arguments[1], arguments[2] if len(arguments) == 4 else b"", payload

    def feed(self, count: int, size: int) -> None:
        """Publish, at most `WINDOW` messages ahead of the credit."""
        frame = b"PUB %s %d\r\n%s\r\n" % (DATA.encode(), size, b"x" * size)
        burst = frame * BURST
        sent = credited = 0
        while sent < count:
            while sent - credited >= WINDOW:
                self.read()
                credited += CREDIT * sum(sid == CREDIT_SID for sid, _, _ in self.messages())
            wanted = min(BURST, count - sent)
            self.socket.sendall(burst if wanted == BURST else frame * wanted)
            sent += wanted

    def ask(self, count: int, size: int) -> int:
        """Make requests, `AT_ONCE` of them at a time; say how many were responded to with what they were."""
        asked = responded = right = 0
        request = b"x" * size
        while responded < count:
            wanted = min(count - asked, AT_ONCE - (asked - responded))
            numbers = range(asked, asked + wanted)
            head = SERVED.encode()
            self.socket.sendall(
                b"".join(b"PUB %s bench.response.%d %d\r\n%s\r\n" % (head, one, size, request) for one in numbers)
            )
            asked += wanted
            self.read()
            for sid, _, payload in self.messages():
                responded += sid == RESPONSE_SID
                right += payload == request
        return right


def main() -> None:
    peer = Peer(sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    try:
        peer.serve()
    except (EOFError, ConnectionError):
        return


if __name__ == "__main__":
    main()
