"""Planned moves over TLS and WebSocket: a rolling restart that nobody notices, whatever the connection is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.clusters import NODES, Cluster, no_request_fails_while, open_cluster
from tests.worlds import until
from trionats import Client
from trionats.testing._server import free_port

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

    def config(self, name: str) -> str:
        secured = self._more if self._scheme == "ws" else self._authority.config("localhost", more=self._more)
        if self._scheme != "tls":
            secured = f'websocket {{ listen: "127.0.0.1:{self._websockets[name]}", {secured} }}\n'
        return super().config(name) + secured

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
    async with open_cluster(SecuredCluster(scheme, more, authority)) as cluster:

        async def restart(asking: Client, answered: Callable[[], int]) -> None:
            await until(lambda: len(asking.discovered_servers) >= 2, within=20)
            for _ in range(2):
                before = answered()
                await cluster.roll(cluster.node(asking))
                assert answered() > before, "requests went on meanwhile"
            assert (asking.tls is not None) == (scheme != "ws")
            assert (asking.connected_url or "").startswith(f"{scheme}://")

        # One address only: the others are discovered, so they must keep the scheme and the name to verify.
        assert await no_request_fails_while(restart, cluster, cluster.url("n1"), **options) == 2
