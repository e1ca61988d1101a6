"""Planned moves over TLS and WebSocket: a rolling restart that nobody notices, whatever the connection is made of."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.certificates import Authority
from tests.live.test_cluster import LAME_DUCK, NODES, Cluster, answer, collect
from tests.worlds import until
from trionats import events, open_client, open_events
from trionats.testing import NatsServer, TrioNatsServer
from trionats.testing._server import free_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.live(seconds=120), pytest.mark.usefixtures("server_executable")]

#: How the nodes are reached: the scheme, and what their `tls` and `websocket` blocks hold besides.
WAYS = {
    "TLS, mutual": ("tls", "verify: true"),
    "TLS, handshake first": ("tls", "handshake_first: true"),
    "ws": ("ws", "no_tls: true, compression: true"),
    "wss": ("wss", ""),
}


class SecuredCluster(Cluster):
    """A cluster whose certificates know the name `localhost` only, and whose nodes tell bare addresses."""

    def __init__(self, scheme: str, more: str, authority: Authority) -> None:
        super().__init__()
        self._scheme = scheme
        self._more = more
        self._authority = authority
        self._websockets = {name: free_port() for name in NODES}

    def make(self, name: str) -> TrioNatsServer:
        routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in self.routes.values())
        config = LAME_DUCK + f"cluster {{ name: c, listen: 127.0.0.1:{self.routes[name]}, routes: [{routes}] }}\n"
        secured = self._more if self._scheme == "ws" else self._authority.config("localhost", more=self._more)
        if self._scheme == "tls":
            config += secured
        else:
            config += f'websocket {{ listen: "127.0.0.1:{self._websockets[name]}", {secured} }}\n'
        self.servers[name] = TrioNatsServer(NatsServer(config, name=name))
        return self.servers[name]

    def url(self, name: str) -> str:
        port = self.servers[name].server.port if self._scheme == "tls" else self._websockets[name]
        return f"{self._scheme}://localhost:{port}"


@pytest.mark.parametrize("way", WAYS)
async def test_a_rolling_restart_over(way: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    scheme, more = WAYS[way]
    options: dict[str, Any] = {} if scheme == "ws" else {"tls": authority.client()}
    if "first" in way:
        options["tls_handshake_first"] = True
    if scheme == "ws":
        options["ws_compression"] = True
    answered: dict[bytes, int] = {}
    seen: list[events.ConnectionEvent] = []
    asked = 0
    cluster = SecuredCluster(scheme, more, authority)
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for name in NODES:
            server = cluster.make(name)
            stack.callback(server.server.close)
            await server.start()
        await cluster.ready()
        # One address only: the others are discovered, so they must keep the scheme and the name to verify.
        seed = cluster.url("n1")
        async with (
            open_client(nursery, seed, **options) as asking,
            open_client(nursery, seed, **options) as answering,
            open_client(nursery, seed, **options) as helping,
            open_events(nursery, asking) as rx,
            trio.open_nursery() as workers,
        ):
            workers.start_soon(collect, rx, seen)
            for nc in (answering, helping):
                workers.start_soon(answer, nc, answered, nursery)
            await until(lambda: len(asking.discovered_servers) >= 2, within=5)
            await cluster.hear_of("work")
            rolled = trio.Event()

            async def roll() -> None:
                for _ in range(2):
                    before = len(answered)
                    await cluster.roll(cluster.node(asking))
                    assert len(answered) > before, "requests went on meanwhile"
                rolled.set()

            workers.start_soon(roll)
            while not rolled.is_set():
                number = b"%d" % asked
                asked += 1
                assert (await asking.request("work", number)).data == number
                await trio.sleep(0.002)
            secured = asking.tls is not None
            url = asking.connected_url or ""
            workers.cancel_scope.cancel()
        assert sum(nc.statistics().reconnects for nc in (asking, answering, helping)) == 0, "a move is no reconnect"
    assert secured == (scheme != "ws")
    assert url.startswith(f"{scheme}://")
    assert len(answered) == asked
    assert set(answered.values()) == {1}
    assert sum(isinstance(event, events.Moved) for event in seen) == 2
    assert not [event for event in seen if isinstance(event, (events.Disconnected, events.PublishesLost))]
