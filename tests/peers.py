"""Scripted servers on memory streams that can do TLS: for what `FakeServer`, which has no task, cannot play.

    async def script(peer):
        await peer.info(tls_required=True)
        await peer.secure(context)
        await peer.log_in()

    peers = Peers(nursery, script, ...)
    async with open_client(nursery, "tls://name", dial=peers.dial, tls=...) as nc:

The first dial is served by the first script, and so on; the last one serves all that follow. A script that returns closes its
connection.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio
import trio.testing


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        #: What came since the last TLS handshake, and was not taken yet; and all that came before it.
        self.heard = self.in_clear = b""
        #: The fields of CONNECT.
        self.options: dict[str, Any] = {}

    async def info(self, *, behind: bytes = b"", **fields: object) -> None:
        """Send an INFO, and more bytes together with it."""
        info = {
            "server_id": "PEER",
            "version": "2.15.1",
            "proto": 1,
            "headers": True,
            "max_payload": 1_048_576,
            **fields,
        }
        await self.stream.send_all(f"INFO {json.dumps(info)}\r\n".encode() + behind)

    async def secure(self, context: ssl.SSLContext) -> None:
        """Do the server's side of the TLS handshake."""
        self.stream = trio.SSLStream(self.stream, context, server_side=True)
        await self.stream.do_handshake()

    async def line(self) -> bytes:
        """Take the next line; nothing at the end of the connection."""
        while b"\r\n" not in self.heard:
            data = bytes(await self.stream.receive_some(4096))
            if not data:
                return b""
            self.heard += data
            if not isinstance(self.stream, trio.SSLStream):
                self.in_clear += data
        line, _, self.heard = self.heard.partition(b"\r\n")
        return line

    async def log_in(self) -> dict[str, Any]:
        """Take CONNECT and PING, and answer; returns the fields of CONNECT."""
        verb, _, fields = (await self.line()).partition(b" ")
        assert verb == b"CONNECT", verb
        self.options = json.loads(fields)
        assert await self.line() == b"PING"
        await self.stream.send_all(b"PONG\r\n")
        return self.options

    async def serve(self) -> None:
        """Answer pings until the client goes."""
        while line := await self.line():
            if line == b"PING":
                await self.stream.send_all(b"PONG\r\n")


class Peers:
    """A `dial=` with a script for each connection; see the module's text."""

    def __init__(self, nursery: trio.Nursery, *scripts: Callable[[Peer], Awaitable[None]]) -> None:
        self._nursery = nursery
        self._scripts = list(scripts)
        self.dialled: list[str] = []
        self.peers: list[Peer] = []

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dialled.append(f"{host}:{port}")
        ours, theirs = trio.testing.memory_stream_pair()
        peer = Peer(theirs)
        self.peers.append(peer)
        self._nursery.start_soon(self._run, self._scripts.pop(0) if self._scripts[1:] else self._scripts[0], peer)
        return ours

    async def _run(self, script: Callable[[Peer], Awaitable[None]], peer: Peer) -> None:
        try:
            # The client may go away; the test looks at why.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await script(peer)
        finally:
            await trio.aclose_forcefully(peer.stream)
