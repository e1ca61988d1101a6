"""The neutral other end: feeds subscriptions and answers requests, over a raw socket, for all clients alike.

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
#: How far the feed may be ahead of the client, and after how many messages the client gives credit.
WINDOW: Final = 16384
CREDIT: Final = 4096
BURST: Final = 256

FEED_SID, CREDIT_SID, ECHO_SID = b"1", b"2", b"3"


class Peer:
    """One connection, and one thing at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        options = {"verbose": False, "pedantic": False, "name": "bench-peer", "lang": "raw", "version": "0"}
        self.socket.sendall(
            f"CONNECT {json.dumps(options)}\r\nSUB {FEED} 1\r\nSUB {CREDIT_SUBJECT} 2\r\nSUB {ECHO} 3\r\nPING\r\n".encode()
        )
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


def main() -> None:
    peer = Peer(sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    try:
        peer.serve()
    except (EOFError, ConnectionError):
        return


if __name__ == "__main__":
    main()
