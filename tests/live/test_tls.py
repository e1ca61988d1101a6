"""TLS against real servers: each flow, each way it can go wrong, and both again after a restart."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio

import trionats
from tests.certificates import Authority
from trionats import errors, events
from trionats.testing import TrioNatsServer, open_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ACCOUNT = "authorization { user: u, password: s3cret }\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    directory = tmp_path / "stranger"
    directory.mkdir()
    return Authority(directory)


def url(server: TrioNatsServer, scheme: str = "nats", host: str = "127.0.0.1") -> str:
    return f"{scheme}://u:s3cret@{host}:{server.server.port}"


async def refused(nursery: trio.Nursery, where: str, **options: Any) -> Exception:  # noqa: ANN401 - those of open_client
    with pytest.raises(errors.Error) as caught:
        async with trionats.open_client(nursery, where, **options):
            pytest.fail("it let us in")
    return caught.value


async def reconnected(rx: trionats.Events) -> None:
    async for event in rx:
        if isinstance(event, events.Reconnected):
            return


FLOWS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "upgrade": ("", "nats", {}),
    "upgrade, tls://": ("", "tls", {}),
    "offered and wanted": ("allow_non_tls: true", "tls", {}),
    "handshake first": ("handshake_first: true", "nats", {"tls_handshake_first": True}),
    "mutual": ("verify: true", "nats", {}),
    "mutual, handshake first": ("verify: true, handshake_first: true", "tls", {"tls_handshake_first": True}),
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_h2_a_restart_leads_to_the_same_flow_as_the_first_connect(
    flow: str, kill: bool, authority: Authority, nursery: trio.Nursery
) -> None:
    more, scheme, options = FLOWS[flow]
    context = authority.client() if "verify" in more else authority.trusting()
    # `allow_non_tls` stands beside the block, not in it.
    config = ACCOUNT + authority.config("127.0.0.1", more="" if "allow" in more else more)
    if "allow" in more:
        config += f"{more}\n"
    async with (
        open_server(config) as server,
        trionats.open_client(nursery, url(server, scheme), tls=context, reconnect_time_wait=0.05, **options) as nc,
        trionats.open_events(nursery, nc) as rx,
        trionats.open_subscription(nursery, nc, "greet") as greetings,
    ):
        for _ in range(2):
            assert nc.tls is not None
            assert nc.tls.version == "TLSv1.3"
            await nc.publish("greet", b"x" * 300_000)
            assert len((await greetings.receive()).data) == 300_000
            if nc.statistics().reconnects:
                break
            await server.restart(kill=kill)
            await reconnected(rx)
            await nc.flush()
        assert nc.statistics().reconnects == 1


async def test_a_server_that_demands_tls_gets_it_with_pythons_default(
    authority: Authority, nursery: trio.Nursery
) -> None:
    async with open_server(ACCOUNT + authority.config("127.0.0.1")) as server:
        error = await refused(nursery, url(server))
    assert isinstance(error, errors.SecureConnFailedError)
    assert str(error) == (
        f"nats://127.0.0.1:{server.server.port}: its certificate is not accepted: unable to get local issuer certificate"
    )


async def test_wrong_authority_and_wrong_name_are_told_apart(
    authority: Authority, stranger: Authority, nursery: trio.Nursery
) -> None:
    async with open_server(ACCOUNT + authority.config("localhost")) as server:
        error = await refused(nursery, url(server, host="localhost"), tls=stranger.trusting())
        assert isinstance(error, errors.SecureConnFailedError)
        assert "its certificate is not accepted" in str(error)
        error = await refused(nursery, url(server), tls=authority.trusting())
        assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in str(error)
        async with trionats.open_client(nursery, url(server, host="localhost"), tls=authority.trusting()):
            pass
        async with trionats.open_client(nursery, url(server), tls=authority.trusting(), tls_hostname="localhost"):
            pass
        error = await refused(
            nursery, url(server, host="localhost"), tls=authority.trusting(), tls_hostname="other.example"
        )
        assert "Hostname mismatch, certificate is not valid for 'other.example'" in str(error)


@pytest.mark.parametrize("first", [False, True], ids=["upgrade", "handshake first"])
async def test_h8_a_missing_or_foreign_client_certificate_is_named(
    first: bool, authority: Authority, stranger: Authority, nursery: trio.Nursery
) -> None:
    foreign = authority.trusting()
    certificate, key = stranger.files()
    foreign.load_cert_chain(certificate, key)
    config = ACCOUNT + authority.config("127.0.0.1", more=f"verify: true, handshake_first: {str(first).lower()}")
    async with open_server(config) as server:
        for context in (authority.trusting(), foreign):
            error = await refused(nursery, url(server), tls=context, tls_handshake_first=first)
            assert "certificate" in str(error)
            assert f"nats://127.0.0.1:{server.server.port}" in str(error)


async def test_h1_no_password_in_clear_to_a_server_that_came_back_without_tls(
    authority: Authority, nursery: trio.Nursery
) -> None:
    async with (
        open_server(ACCOUNT + authority.config("127.0.0.1")) as server,
        trionats.open_client(
            nursery,
            url(server, "tls"),
            tls=authority.trusting(),
            reconnect_time_wait=0.02,
            max_reconnect_attempts=-1,
        ) as nc,
        trionats.open_events(nursery, nc) as rx,
    ):
        await server.stop()
        server.server.config = ACCOUNT
        await server.start()
        failed = None
        async for event in rx:
            if isinstance(event, events.ReconnectFailed) and isinstance(event.reason, errors.SecureConnWantedError):
                failed = event
                break
        assert failed is not None
        assert "s3cret" not in server.log


async def test_h3_bare_addresses_of_a_cluster_are_verified_against_the_name_we_know(
    authority: Authority, nursery: trio.Nursery
) -> None:
    """Two servers that advertise addresses, and whose certificates know only a name."""
    tls = authority.config("localhost")
    cluster = 'cluster {{ name: C, listen: "127.0.0.1:{port}", routes: [{routes}] }}\n'
    first = ACCOUNT + tls + cluster.format(port=-1, routes="")
    async with open_server(first, name="one") as one:
        route = one.server._ports["cluster"][0]
        second = ACCOUNT + tls + cluster.format(port=-1, routes=f'"{route}"')
        async with (
            trionats.open_client(
                nursery,
                url(one, "tls", "localhost"),
                tls=authority.trusting(),
                reconnect_time_wait=0.05,
                allow_reconnect=True,
            ) as nc,
            trionats.open_events(nursery, nc) as rx,
            open_server(second, name="two") as two,
        ):
            async for event in rx:
                if isinstance(event, events.ServersDiscovered) and any(
                    f":{two.server.port}" in server for server in event.servers
                ):
                    break
            await one.stop()
            await reconnected(rx)
            assert nc.server_name == "two"
            assert nc.connected_url == f"tls://127.0.0.1:{two.server.port}"


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
    flow: str, host: str, options: dict[str, Any], authority: Authority, nursery: trio.Nursery
) -> None:
    more, scheme, others = FLOWS[flow]
    config = authority.config("nats.example", more="" if "allow" in more else more)
    if "allow" in more:
        config += f"{more}\n"
    dialled: list[str] = []

    async def dial(name: str, port: int) -> trio.abc.Stream:
        dialled.append(name)
        return await dial_here(name, port)

    async with (
        open_server(ACCOUNT + config) as server,
        trionats.open_client(
            nursery, url(server, scheme, host), tls=authority.trusting(), dial=dial, **others, **options
        ) as nc,
    ):
        await nc.flush()
    assert dialled == [host]


async def test_the_final_dot_changes_nothing_in_what_is_verified(authority: Authority, nursery: trio.Nursery) -> None:
    async with open_server(ACCOUNT + authority.config("nats.example")) as server:
        error = await refused(nursery, url(server, host="other.example."), tls=authority.trusting(), dial=dial_here)
        assert "certificate is not valid for 'other.example'" in str(error)


async def test_discovered_servers_of_an_absolute_name(authority: Authority, nursery: trio.Nursery) -> None:
    tls = authority.config("nats.example")
    cluster = 'cluster {{ name: C, listen: "127.0.0.1:-1", routes: [{}] }}\n'
    async with open_server(ACCOUNT + tls + cluster.format(""), name="one") as one:
        route = one.server._ports["cluster"][0]
        # One tells of itself by a bare address, the other by an absolute name.
        second = ACCOUNT + tls + 'client_advertise: "nats.example.:1"\n' + cluster.format(f'"{route}"')

        async def dial(host: str, port: int) -> trio.abc.Stream:
            return await dial_here(host, two.server.port if port == 1 else port)

        async with (
            trionats.open_client(
                nursery,
                url(one, "tls", "nats.example."),
                tls=authority.trusting(),
                reconnect_time_wait=0.05,
                dial=dial,
            ) as nc,
            trionats.open_events(nursery, nc) as rx,
            open_server(second, name="two") as two,
        ):
            async for event in rx:
                if isinstance(event, events.ServersDiscovered) and "tls://nats.example.:1" in event.servers:
                    break
            await one.stop()
            await reconnected(rx)
            assert (nc.server_name, nc.connected_url) == ("two", "tls://nats.example.:1")


async def test_h7_certificates_are_read_anew_at_each_connect(tmp_path: Path, nursery: trio.Nursery) -> None:
    authorities = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        authorities.append(Authority(tmp_path / name))
    old, new = authorities
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(old.file.read_bytes())
    mine = tmp_path / "mine.pem"

    def pack(authority: Authority) -> None:
        certificate, key = authority.files()
        mine.write_bytes(key.read_bytes() + certificate.read_bytes())

    def context() -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(trusted))
        made.load_cert_chain(mine)
        return made

    pack(old)
    async with (
        open_server(ACCOUNT + old.config("127.0.0.1", more="verify: true")) as server,
        trionats.open_client(nursery, url(server), tls=context, reconnect_time_wait=0.05) as nc,
        trionats.open_events(nursery, nc) as rx,
    ):
        assert nc.tls is not None
        before = nc.tls.peer_certificate
        await server.stop()
        server.server.config = ACCOUNT + new.config("127.0.0.1", more="verify: true")
        trusted.write_bytes(new.file.read_bytes())
        pack(new)
        await server.start()
        await reconnected(rx)
        await nc.flush()
        assert nc.tls.peer_certificate != before


@pytest.mark.parametrize("first", [False, True])
async def test_a_flow_that_the_server_does_not_know_fails_and_says_why(
    first: bool, authority: Authority, nursery: trio.Nursery
) -> None:
    config = ACCOUNT + authority.config("127.0.0.1", more=f"handshake_first: {str(not first).lower()}")
    async with open_server(config) as server:
        error = await refused(
            # Where it waits for an INFO that does not come, it waits until the end of this.
            nursery,
            url(server),
            tls=authority.trusting(),
            tls_handshake_first=first,
            connect_timeout=5 if first else 1,
        )
    expected = "it does the handshake after its INFO" if first else "it does the TLS handshake first"
    assert expected in str(error)


async def test_a_callback_may_wait(authority: Authority, nursery: trio.Nursery) -> None:
    async def make() -> ssl.SSLContext:
        return await trio.to_thread.run_sync(authority.trusting)

    contexts: list[Callable[[], Any]] = [make, authority.trusting]
    async with open_server(ACCOUNT + authority.config("127.0.0.1")) as server:
        for context in contexts:
            async with trionats.open_client(nursery, url(server), tls=context) as nc:
                await nc.flush()
