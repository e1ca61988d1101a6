"""TLS against real servers: each flow, each way it can go wrong, and both again after a restart."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.certificates import Authority
from tests.worlds import connected, next_event, refusal, watched
from trionats import Events, errors, open_subscription
from trionats.events import Reconnected, ReconnectFailed, ServersDiscovered
from trionats.testing import TrioNatsServer, open_server
from trionats.testing._server import free_port

ACCOUNT = "authorization { user: u, password: s3cret }\n"


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    directory = tmp_path / "stranger"
    directory.mkdir()
    return Authority(directory)


def url(server: TrioNatsServer, scheme: str = "nats", host: str = "127.0.0.1") -> str:
    return f"{scheme}://u:s3cret@{host}:{server.server.port}"


FLOWS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "upgrade": ("", "nats", {}),
    "upgrade, tls://": ("", "tls", {}),
    "offered and wanted": ("allow_non_tls: true", "tls", {}),
    "handshake first": ("handshake_first: true", "nats", {"tls_handshake_first": True}),
    "mutual": ("verify: true", "nats", {}),
    "mutual, handshake first": ("verify: true, handshake_first: true", "tls", {"tls_handshake_first": True}),
}


def flow_config(flow: str, authority: Authority, name: str = "127.0.0.1") -> str:
    more = FLOWS[flow][0]
    # `allow_non_tls` stands beside the block, not in it.
    return f"{authority.config(name)}{more}\n" if "allow" in more else authority.config(name, more=more)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_a_restart_leads_to_the_same_flow_as_the_first_connect(
    flow: str, kill: bool, authority: Authority, nursery: trio.Nursery
) -> None:
    more, scheme, options = FLOWS[flow]
    context = authority.client() if "verify" in more else authority.trusting()
    async with (
        open_server(ACCOUNT + flow_config(flow, authority)) as server,
        watched(server, url(server, scheme), tls=context, reconnect_time_wait=0.05, **options) as (_, nc, rx),
        open_subscription(nursery, nc, "greet") as greetings,
    ):
        for reconnects in range(2):
            assert nc.tls is not None
            assert nc.tls.version == "TLSv1.3"
            await nc.publish("greet", b"x" * 300_000)
            assert len((await greetings.receive()).data) == 300_000
            assert nc.statistics().reconnects == reconnects
            if not reconnects:
                await server.restart(kill=kill)
                await next_event(rx, Reconnected)
                await nc.flush()


async def test_what_is_wrong_with_a_certificate_is_told_apart(authority: Authority, stranger: Authority) -> None:
    """TLS that the server demands is done with Python's default."""
    ours = {"tls": authority.trusting()}
    async with open_server(ACCOUNT + authority.config("localhost")) as server:
        here, there = url(server, host="localhost"), url(server)
        for options in ({}, {"tls": stranger.trusting()}):
            error = await refusal(here, **options)
            assert isinstance(error, errors.SecureConnFailedError)
            said = "its certificate is not accepted: unable to get local issuer certificate"
            assert str(error) == f"nats://localhost:{server.server.port}: {said}"
        told = str(await refusal(there, **ours))
        assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in told
        told = str(await refusal(here, **ours, tls_hostname="other.example"))
        assert "Hostname mismatch, certificate is not valid for 'other.example'" in told
        told = str(await refusal(url(server, host="other.example."), **ours, dial=dial_here))
        assert "certificate is not valid for 'other.example'" in told, "the final dot changes nothing"
        async with connected(server, here, **ours), connected(server, there, **ours, tls_hostname="localhost"):
            pass


@pytest.mark.parametrize("first", [False, True], ids=["upgrade", "handshake first"])
async def test_a_missing_or_foreign_client_certificate_is_named(
    first: bool, authority: Authority, stranger: Authority
) -> None:
    foreign = authority.trusting()
    certificate, key = stranger.files()
    foreign.load_cert_chain(certificate, key)
    config = ACCOUNT + authority.config("127.0.0.1", more=f"verify: true, handshake_first: {str(first).lower()}")
    async with open_server(config) as server:
        for context in (authority.trusting(), foreign):
            error = await refusal(url(server), tls=context, tls_handshake_first=first)
            assert "certificate" in str(error)
            assert f"nats://127.0.0.1:{server.server.port}" in str(error)


async def test_no_password_in_clear_to_a_server_that_came_back_without_tls(authority: Authority) -> None:
    options: dict[str, Any] = {"reconnect_time_wait": 0.02, "max_reconnect_attempts": -1}
    async with (
        open_server(ACCOUNT + authority.config("127.0.0.1")) as server,
        watched(server, url(server, "tls"), tls=authority.trusting(), **options) as (_, _, rx),
    ):
        await server.stop()
        server.server.config = ACCOUNT
        await server.start()
        while not isinstance((await next_event(rx, ReconnectFailed)).reason, errors.SecureConnWantedError):
            pass
        assert "s3cret" not in server.log


def two_of_a_cluster(config: str, more: str = "") -> tuple[str, str]:
    """Make the configurations of two servers that know of each other; the second one's has more in it."""
    first, second = free_port(), free_port()
    cluster = 'cluster {{ name: C, listen: "127.0.0.1:{}", routes: [{}] }}\n'
    return config + cluster.format(first, ""), config + more + cluster.format(second, f'"nats://127.0.0.1:{first}"')


async def until_discovered(rx: Events, server: str) -> None:
    while not any(each.endswith(server) for each in (await next_event(rx, ServersDiscovered)).servers):
        pass


async def test_bare_addresses_of_a_cluster_are_verified_against_the_name_we_know(authority: Authority) -> None:
    """Two servers that advertise addresses, and whose certificates know only a name."""
    first, second = two_of_a_cluster(ACCOUNT + authority.config("localhost"))
    options: dict[str, Any] = {"tls": authority.trusting(), "reconnect_time_wait": 0.05}
    async with (
        open_server(first, name="one") as one,
        watched(one, url(one, "tls", "localhost"), **options) as (_, nc, rx),
        open_server(second, name="two") as two,
    ):
        await until_discovered(rx, f":{two.server.port}")
        await one.stop()
        await next_event(rx, Reconnected)
        assert (nc.server_name, nc.connected_url) == ("two", f"tls://127.0.0.1:{two.server.port}")


async def dial_here(host: str, port: int) -> trio.abc.Stream:
    """Take every name for this machine, as a resolver would that knows it."""
    return await trio.open_tcp_stream("127.0.0.1", port)


@pytest.mark.parametrize("flow", [flow for flow in FLOWS if "mutual" not in flow])
@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("nats.example.", {}),
        ("nats.example", {"tls_hostname": "nats.example."}),
        ("elsewhere.", {"tls_hostname": "nats.example"}),
        ("elsewhere.", {"tls_hostname": "nats.example."}),
    ],
)
async def test_the_final_dot_of_an_absolute_name_is_for_the_resolver(
    flow: str, host: str, options: dict[str, Any], authority: Authority
) -> None:
    _, scheme, others = FLOWS[flow]
    dialled: list[str] = []

    async def dial(name: str, port: int) -> trio.abc.Stream:
        dialled.append(name)
        return await dial_here(name, port)

    options = {"tls": authority.trusting(), "dial": dial, **others, **options}
    async with (
        open_server(ACCOUNT + flow_config(flow, authority, "nats.example")) as server,
        connected(server, url(server, scheme, host), **options) as nc,
    ):
        await nc.flush()
    assert dialled == [host]


async def test_discovered_servers_of_an_absolute_name(authority: Authority) -> None:
    """One tells of itself by a bare address, the other by an absolute name."""
    config = ACCOUNT + authority.config("nats.example")
    first, second = two_of_a_cluster(config, 'client_advertise: "nats.example.:1"\n')

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return await dial_here(host, two.server.port if port == 1 else port)

    options: dict[str, Any] = {"tls": authority.trusting(), "reconnect_time_wait": 0.05, "dial": dial}
    async with (
        open_server(first, name="one") as one,
        watched(one, url(one, "tls", "nats.example."), **options) as (_, nc, rx),
        open_server(second, name="two") as two,
    ):
        await until_discovered(rx, "tls://nats.example.:1")
        await one.stop()
        await next_event(rx, Reconnected)
        assert (nc.server_name, nc.connected_url) == ("two", "tls://nats.example.:1")


@pytest.mark.parametrize("waits", [False, True])
async def test_certificates_are_read_anew_at_each_connect(
    waits: bool, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    old, new = authority, stranger
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(old.file.read_bytes())
    mine = tmp_path / "mine.pem"

    def pack(authority: Authority) -> None:
        certificate, key = authority.files()
        mine.write_bytes(key.read_bytes() + certificate.read_bytes())

    def make() -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(trusted))
        made.load_cert_chain(mine)
        return made

    async def make_elsewhere() -> ssl.SSLContext:
        return await trio.to_thread.run_sync(make)

    pack(old)
    async with (
        open_server(ACCOUNT + old.config("127.0.0.1", more="verify: true")) as server,
        watched(server, url(server), tls=make_elsewhere if waits else make, reconnect_time_wait=0.05) as (_, nc, rx),
    ):
        assert nc.tls is not None
        before = nc.tls.peer_certificate
        await server.stop()
        server.server.config = ACCOUNT + new.config("127.0.0.1", more="verify: true")
        trusted.write_bytes(new.file.read_bytes())
        pack(new)
        await server.start()
        await next_event(rx, Reconnected)
        await nc.flush()
        assert nc.tls.peer_certificate != before


@pytest.mark.parametrize("first", [False, True])
async def test_a_flow_that_the_server_does_not_know_fails_and_says_why(first: bool, authority: Authority) -> None:
    config = ACCOUNT + authority.config("127.0.0.1", more=f"handshake_first: {str(not first).lower()}")
    # Where it waits for an INFO that does not come, it waits until the end of this.
    options: dict[str, Any] = {"tls_handshake_first": first, "connect_timeout": 5 if first else 1}
    async with open_server(config) as server:
        error = await refusal(url(server), tls=authority.trusting(), **options)
    expected = "it does the handshake after its INFO" if first else "it does the TLS handshake first"
    assert expected in str(error)
