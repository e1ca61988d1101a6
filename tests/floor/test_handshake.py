"""One attempt to get in: what is said before TLS, what is sent before what, and how a refusal is told."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import trionats
from tests.certificates import Authority
from tests.fakes import FakeServer
from tests.keys import Key
from tests.peers import Peer, Peers
from trionats import errors, events

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

NAME = "seed.example"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def upgrading(context: ssl.SSLContext, **later: Any) -> Callable[[Peer], Awaitable[None]]:  # noqa: ANN401 - fields of INFO
    """Script a server that demands TLS; `later` are fields of an INFO that it sends after the login."""

    async def script(peer: Peer) -> None:
        await peer.info(tls_required=True)
        await peer.secure(context)
        await peer.log_in()
        if later:
            await peer.info(**later)
            return
        await peer.serve()

    return script


async def in_clear(peer: Peer) -> None:
    """Offer no TLS, and take what comes."""
    await peer.info()
    await peer.line()


async def refused(nursery: trio.Nursery, peers: Peers | FakeServer, url: str, **options: Any) -> Exception:  # noqa: ANN401
    with pytest.raises(errors.Error) as caught:
        async with trionats.open_client(nursery, url, dial=peers.dial, allow_reconnect=False, **options):
            pytest.fail("it let us in")
    return caught.value


async def until_lost(nursery: trio.Nursery, nc: trionats.Client) -> list[events.ConnectionEvent]:
    """Collect what happens until the client gives up."""
    seen: list[events.ConnectionEvent] = []
    async with trionats.open_events(nursery, nc) as rx:
        with pytest.raises(errors.Error):  # noqa: PT012 - it comes when it comes
            while True:
                seen.append(await rx.receive())
    return seen


# -- H1: no credentials in clear where TLS was wanted ------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["url", "context", "callback", "True"])
async def test_h1_where_tls_is_wanted_and_not_offered_no_byte_is_sent(
    wanted: str, authority: Authority, nursery: trio.Nursery
) -> None:
    options: dict[str, dict[str, Any]] = {
        "url": {},
        "context": {"tls": authority.trusting()},
        "callback": {"tls": authority.trusting},
        "True": {"tls": True},
    }
    server = FakeServer()
    url = "tls://u:s3cret@fake" if wanted == "url" else "nats://u:s3cret@fake"
    error = await refused(nursery, server, url, **options[wanted])
    assert isinstance(error, errors.SecureConnWantedError)
    assert "fake:4222 does not offer it" in str(error)
    assert server.link.received == b""


async def test_h1_h2_a_server_that_comes_back_without_tls_gets_no_byte(
    autojump_clock: trio.testing.MockClock, authority: Authority, nursery: trio.Nursery
) -> None:
    async def first(peer: Peer) -> None:
        await peer.info(tls_required=True)
        await peer.secure(authority.server(NAME))
        await peer.log_in()

    peers = Peers(nursery, first, in_clear)
    async with trionats.open_client(
        nursery,
        f"nats://u:s3cret@{NAME}",
        dial=peers.dial,
        tls=authority.trusting(),
        max_reconnect_attempts=2,
    ) as nc:
        failed = [event.reason for event in await until_lost(nursery, nc) if isinstance(event, events.ReconnectFailed)]
    assert len(failed) == 2
    assert all(isinstance(error, errors.SecureConnWantedError) for error in failed)
    assert [peer.in_clear for peer in peers.peers] == [b""] * len(peers.peers)
    assert len(peers.peers) == 3


async def test_h1_a_discovered_server_without_tls_gets_no_byte(authority: Authority, nursery: trio.Nursery) -> None:
    first = upgrading(authority.server(NAME), connect_urls=["10.0.0.2:4222"])
    peers = Peers(nursery, first, in_clear)
    async with trionats.open_client(
        nursery,
        f"tls://u:s3cret@{NAME}",
        dial=peers.dial,
        tls=authority.trusting(),
        max_reconnect_attempts=1,
    ) as nc:
        await until_lost(nursery, nc)
    assert "10.0.0.2:4222" in peers.dialled
    assert all(peer.in_clear == b"" for peer in peers.peers)


async def test_h1_a_websocket_in_clear_is_not_even_dialled_where_tls_is_wanted(
    authority: Authority, nursery: trio.Nursery
) -> None:
    server = FakeServer()
    headers = {"Authorization": "Bearer s3cret"}
    error = await refused(nursery, server, "ws://fake", tls=authority.trusting(), ws_connection_headers=headers)
    assert isinstance(error, errors.SecureConnWantedError)
    assert "wss://" in str(error)
    assert server.dialled == []


# -- H3: names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("right", [True, False])
async def test_h3_a_discovered_address_is_verified_against_the_original_name(
    right: bool, authority: Authority, nursery: trio.Nursery
) -> None:
    name = NAME if right else "other.example"
    first = upgrading(authority.server(NAME), connect_urls=["10.0.0.2:4222"])
    second = upgrading(authority.server(name))
    peers = Peers(nursery, first, second)
    async with trionats.open_client(
        nursery, f"tls://{NAME}", dial=peers.dial, tls=authority.trusting(), max_reconnect_attempts=1
    ) as nc:
        async with trionats.open_events(nursery, nc) as rx:
            found = [await rx.receive() for _ in range(3)]
        assert isinstance(found[0], events.ServersDiscovered)
        assert peers.dialled[:2] == [f"{NAME}:4222", "10.0.0.2:4222"]
        if right:
            assert isinstance(found[2], events.Reconnected)
            assert nc.connected_url == "tls://10.0.0.2:4222"
        else:
            failed = found[2]
            assert isinstance(failed, events.ReconnectFailed)
            assert "certificate is not valid for 'seed.example'" in str(failed.reason)


async def test_tls_hostname_overrides_the_name_of_the_url(authority: Authority, nursery: trio.Nursery) -> None:
    peers = Peers(nursery, upgrading(authority.server(NAME)))
    options: dict[str, Any] = {"dial": peers.dial, "tls": authority.trusting()}
    async with trionats.open_client(nursery, "tls://10.1.1.1", tls_hostname=NAME, **options) as nc:
        assert nc.tls is not None
        assert nc.tls.version == "TLSv1.3"
        assert nc.tls.cipher
        assert nc.tls.peer_certificate
    error = await refused(nursery, peers, "tls://10.1.1.1", tls=authority.trusting())
    assert isinstance(error, errors.SecureConnFailedError)
    assert "IP address mismatch" in str(error)


async def test_no_tls_is_no_state_of_tls(nursery: trio.Nursery) -> None:
    async with trionats.open_client(nursery, dial=FakeServer().dial) as nc:
        assert nc.tls is None


# -- H4: what is said in clear -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behind", [b"MSG secret 1 5\r\nhello\r\n", b"PING\r\n", b"-ERR 'Authorization Violation'\r\n", b"x"]
)
async def test_h4_bytes_in_clear_between_info_and_tls_end_the_attempt_unread(
    behind: bytes, authority: Authority, nursery: trio.Nursery
) -> None:
    async def injecting(peer: Peer) -> None:
        await peer.info(tls_required=True, behind=behind)
        await peer.line()

    peers = Peers(nursery, injecting)
    error = await refused(nursery, peers, f"nats://{NAME}", tls=authority.trusting())
    assert isinstance(error, errors.SecureConnFailedError)
    assert (
        str(error) == f"nats://{NAME}:4222: {len(behind)} bytes came in clear, where only the TLS handshake can follow"
    )
    assert peers.peers[0].in_clear == b""


async def test_h4_an_injected_message_reaches_no_subscription_on_reconnect(
    autojump_clock: trio.testing.MockClock, authority: Authority, nursery: trio.Nursery
) -> None:
    async def first(peer: Peer) -> None:
        await peer.info(tls_required=True)
        await peer.secure(authority.server(NAME))
        await peer.log_in()
        assert await peer.line() == b"SUB news 1"

    async def injecting(peer: Peer) -> None:
        await peer.info(tls_required=True, behind=b"MSG news 1 4\r\nfake\r\n")
        await peer.line()

    async def honest(peer: Peer) -> None:
        await peer.info(tls_required=True)
        await peer.secure(authority.server(NAME))
        await peer.log_in()
        await peer.stream.send_all(b"MSG news 1 4\r\nreal\r\n")
        await peer.serve()

    peers = Peers(nursery, first, injecting, honest)
    async with (
        trionats.open_client(nursery, f"nats://{NAME}", dial=peers.dial, tls=authority.trusting()) as nc,
        trionats.open_subscription(nursery, nc, "news") as rx,
    ):
        assert (await rx.receive()).data == b"real"
    assert len(peers.peers) == 3


async def test_addresses_that_info_told_in_clear_are_not_trusted(authority: Authority, nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        await peer.info(tls_required=True, connect_urls=["evil.example:4222"], ldm=True)
        await peer.secure(authority.server(NAME))
        await peer.log_in()
        await peer.info(connect_urls=["10.0.0.2:4222"])
        await peer.serve()

    peers = Peers(nursery, script)
    async with trionats.open_client(nursery, f"nats://{NAME}", dial=peers.dial, tls=authority.trusting()) as nc:
        async with trionats.open_events(nursery, nc) as rx:
            event = await rx.receive()
        assert isinstance(event, events.ServersDiscovered)
        assert event.servers == ("nats://10.0.0.2:4222",)
        assert nc.server_info["connect_urls"] == ["10.0.0.2:4222"]


async def test_bytes_behind_info_are_read_where_no_tls_follows(nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        await peer.info(behind=b"PING\r\n-ERR 'maximum connections exceeded'\r\n")
        await peer.line()

    error = await refused(nursery, Peers(nursery, script), "nats://x")
    assert "maximum connections exceeded" in str(error)


# -- handshake first -------------------------------------------------------------------------------------------------------


async def test_handshake_first_says_nothing_in_clear(authority: Authority, nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        await peer.secure(authority.server(NAME))
        await peer.info(tls_required=True, connect_urls=["10.0.0.2:4222"])
        await peer.log_in()
        await peer.serve()

    peers = Peers(nursery, script)
    async with trionats.open_client(
        nursery, f"nats://{NAME}", dial=peers.dial, tls=authority.trusting(), tls_handshake_first=True
    ) as nc:
        assert nc.tls is not None
        assert nc.server_info["connect_urls"] == ["10.0.0.2:4222"]
        assert peers.peers[0].options["tls_required"] is True


async def test_handshake_first_with_a_server_that_speaks_first_says_so(
    authority: Authority, nursery: trio.Nursery
) -> None:
    error = await refused(
        nursery, Peers(nursery, in_clear), f"nats://{NAME}", tls=authority.trusting(), tls_handshake_first=True
    )
    assert isinstance(error, errors.SecureConnFailedError)
    assert "what the server sends is not TLS" in str(error)


async def test_a_server_that_waits_for_the_handshake_is_told_of_when_time_runs_out(
    autojump_clock: trio.testing.MockClock, authority: Authority, nursery: trio.Nursery
) -> None:
    async def silent(peer: Peer) -> None:
        await peer.line()

    error = await refused(nursery, Peers(nursery, silent), f"tls://{NAME}", tls=authority.trusting())
    text = str(error)
    assert "connected, but the server said nothing within 2 s; is this a NATS client port (4222, not 8222)?" in text
    assert text.endswith("Or it does the TLS handshake first (tls_handshake_first)")


@pytest.mark.parametrize("scheme", ["tls", "ws", "wss"])
async def test_connect_timeout_covers_the_handshakes(
    autojump_clock: trio.testing.MockClock, scheme: str, authority: Authority, nursery: trio.Nursery
) -> None:
    async def silent(peer: Peer) -> None:
        if scheme == "tls":
            await peer.info(tls_required=True)
        await trio.sleep_forever()

    start = trio.current_time()
    options = {} if scheme == "ws" else {"tls": authority.trusting()}
    error = await refused(nursery, Peers(nursery, silent), f"{scheme}://{NAME}", connect_timeout=3, **options)
    assert trio.current_time() - start == pytest.approx(3)
    what = {"tls": "no connection", "ws": "a WebSocket", "wss": "a WebSocket over TLS"}[scheme]
    assert f"{what} within 3 s" in str(error)
    nursery.cancel_scope.cancel()


# -- failures of TLS, and what they say ------------------------------------------------------------------------------------


async def test_a_certificate_of_somebody_else_names_server_and_reason(
    authority: Authority, tmp_path: Path, nursery: trio.Nursery
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    peers = Peers(nursery, upgrading(stranger.server(NAME)))
    error = await refused(nursery, peers, f"tls://{NAME}", tls=authority.trusting())
    assert isinstance(error, errors.SecureConnFailedError)
    assert str(error).startswith(f"tls://{NAME}:4222: its certificate is not accepted: ")


async def test_a_server_that_closes_in_the_handshake_is_named(authority: Authority, nursery: trio.Nursery) -> None:
    async def closing(peer: Peer) -> None:
        await peer.info(tls_required=True)

    error = await refused(nursery, Peers(nursery, closing), f"tls://{NAME}", tls=authority.trusting())
    assert isinstance(error, errors.SecureConnFailedError)
    assert f"tls://{NAME}:4222: the TLS handshake failed" in str(error)


@pytest.mark.parametrize("name", ["", ".example", "a" * 100 + ".example", "x\0y"])
async def test_a_name_that_no_certificate_can_have_fails_the_attempt(
    name: str, authority: Authority, nursery: trio.Nursery
) -> None:
    peers = Peers(nursery, upgrading(authority.server(NAME)))
    error = await refused(nursery, peers, f"tls://{NAME}", tls=authority.trusting(), tls_hostname=name)
    assert isinstance(error, errors.SecureConnFailedError)
    assert str(error).startswith(f"tls://{NAME}:4222: ")


async def test_a_server_that_leaves_right_after_the_handshake_may_want_a_certificate(
    authority: Authority, nursery: trio.Nursery
) -> None:
    async def leaving(peer: Peer) -> None:
        await peer.secure(authority.server(NAME))
        await peer.stream.aclose()

    error = await refused(
        nursery, Peers(nursery, leaving), f"tls://{NAME}", tls=authority.trusting(), tls_handshake_first=True
    )
    assert "closed the connection while we logged in; perhaps it wants a client certificate (TLS)" in str(error)


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"\x15\x03\x01"])
async def test_what_speaks_something_else_is_named(
    autojump_clock: trio.testing.MockClock, words: bytes, nursery: trio.Nursery
) -> None:
    async def other(peer: Peer) -> None:
        await peer.stream.send_all(words)
        await peer.line()

    error = await refused(nursery, Peers(nursery, other), "nats://other")
    assert isinstance(error, errors.ProtocolError | errors.NoServersError)
    assert "nats://other:4222" in str(error)


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (lambda: 1 / 0, "no TLS context: the callback failed (ZeroDivisionError at test_handshake.py:"),
        (lambda: "context", "no TLS context: the callback of tls= returned str"),
        (lambda: open("/no/such/file"), "no TLS context: No such file or directory: '/no/such/file'"),  # noqa: SIM115
    ],
)
async def test_a_context_that_cannot_be_made_fails_the_attempt(
    callback: Callable[[], Any], said: str, nursery: trio.Nursery
) -> None:
    async def script(peer: Peer) -> None:
        await peer.info(tls_required=True)
        await peer.line()

    error = await refused(nursery, Peers(nursery, script), f"tls://{NAME}", tls=callback)
    assert isinstance(error, errors.SecureConnFailedError)
    assert str(error).startswith(f"tls://{NAME}:4222: {said}")


async def test_the_context_is_made_anew_at_each_connect(authority: Authority, nursery: trio.Nursery) -> None:
    made: list[ssl.SSLContext] = []

    async def make() -> ssl.SSLContext:
        await trio.lowlevel.checkpoint()
        made.append(authority.trusting())
        return made[-1]

    async def once(peer: Peer) -> None:
        await peer.info(tls_required=True)
        await peer.secure(authority.server(NAME))
        await peer.log_in()

    peers = Peers(nursery, once, upgrading(authority.server(NAME)))
    async with trionats.open_client(nursery, f"nats://{NAME}", dial=peers.dial, tls=make) as nc:
        async with trionats.open_events(nursery, nc) as rx:
            async for event in rx:
                if isinstance(event, events.Reconnected):
                    break
    assert len(made) == 2


# -- who we are ------------------------------------------------------------------------------------------------------------


async def connect_fields(nursery: trio.Nursery, info: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    server = FakeServer(info={"nonce": "n0nce", **(info or {})})
    async with trionats.open_client(nursery, dial=server.dial, **options):
        return server.link.options


async def test_h9_all_that_is_given_is_sent(nursery: trio.Nursery) -> None:
    key = Key()
    fields = await connect_fields(
        nursery, user="u", password="p", token="t", nkeys_seed_str=key.seed, user_jwt_cb=lambda: b"a.b.c"
    )
    assert {k: fields[k] for k in ("user", "pass", "auth_token", "jwt")} == {
        "user": "u",
        "pass": "p",
        "auth_token": "t",
        "jwt": "a.b.c",
    }
    assert fields["sig"]
    fields = await connect_fields(nursery, token="t", nkeys_seed_str=key.seed)
    assert (fields["auth_token"], fields["nkey"]) == ("t", key.public)
    assert "jwt" not in fields


async def test_a_signer_and_its_public_key_are_enough(nursery: trio.Nursery) -> None:
    key = Key()

    async def sign(nonce: str) -> bytes:
        await trio.lowlevel.checkpoint()
        return key.sign(nonce.encode())

    fields = await connect_fields(nursery, nkey=key.public, signature_cb=sign)
    assert fields["nkey"] == key.public
    assert "=" not in fields["sig"]


async def test_without_a_nonce_nothing_is_signed(nursery: trio.Nursery) -> None:
    fields = await connect_fields(nursery, {"nonce": None}, nkeys_seed_str=Key().seed)
    assert "sig" not in fields
    assert "nkey" in fields


@pytest.mark.parametrize("form", [str, bytes, bytearray])
async def test_callbacks_may_be_either_kind_and_are_asked_at_each_connect(form: type, nursery: trio.Nursery) -> None:
    asked: list[str] = []

    def password() -> Any:  # noqa: ANN401 - parametrised
        asked.append("password")
        text = f"p{len(asked)}"
        return text if form is str else form(text.encode())

    async def user() -> str:
        await trio.lowlevel.checkpoint()
        return "u"

    server = FakeServer()
    async with trionats.open_client(nursery, dial=server.dial, user=user, password=password) as nc:
        assert server.link.options["pass"] == "p1"
        async with trionats.open_events(nursery, nc) as rx:
            server.cut()
            async for event in rx:
                if isinstance(event, events.Reconnected):
                    break
        assert (server.link.options["user"], server.link.options["pass"]) == ("u", "p2")


async def test_a_callback_that_fails_fails_the_attempt_and_not_the_client(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    answers = ["first", "", "third"]

    def token() -> str:
        answer = answers.pop(0)
        if not answer:
            raise KeyError("s3cret")
        return answer

    server = FakeServer()
    async with (
        trionats.open_client(nursery, dial=server.dial, token=token) as nc,
        trionats.open_events(nursery, nc) as rx,
    ):
        server.cut()
        assert isinstance(await rx.receive(), events.Disconnected)
        failed = await rx.receive()
        assert isinstance(failed, events.ReconnectFailed)
        line = token.__code__.co_firstlineno + 3
        assert str(failed.reason) == f"token: the callback failed (KeyError at test_handshake.py:{line})"
        assert isinstance(failed.reason, errors.InvalidUserCredentialsError)
        assert isinstance(await rx.receive(), events.Reconnected)
        assert server.link.options["auth_token"] == "third"


async def test_discovered_servers_inherit_the_userinfo_of_the_url(nursery: trio.Nursery) -> None:
    async def first(peer: Peer) -> None:
        await peer.info()
        await peer.log_in()
        await peer.info(connect_urls=["10.0.0.2:4222"])

    async def second(peer: Peer) -> None:
        await peer.info()
        await peer.log_in()
        await peer.serve()

    peers = Peers(nursery, first, second)
    async with trionats.open_client(nursery, "nats://u:p@seed", dial=peers.dial, user="x", password="y") as nc:
        async with trionats.open_events(nursery, nc) as rx:
            async for event in rx:
                if isinstance(event, events.Reconnected):
                    break
        assert nc.connected_url == "nats://10.0.0.2:4222"
    for peer in peers.peers:
        assert (peer.options["user"], peer.options["pass"]) == ("u", "p")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"user_credentials": "x", "user_jwt_cb": str}, "only one .* user_credentials, user_jwt_cb"),
        ({"nkeys_seed": "x", "nkeys_seed_str": "y"}, "only one .* nkeys_seed, nkeys_seed_str"),
        ({"nkeys_seed": "x", "signature_cb": str}, "only one .* nkeys_seed, signature_cb"),
        ({"nkey": "U"}, "nkey is the public key"),
        ({"nkeys_seed": Key().seed}, "nkeys_seed is a path"),
        ({"user_credentials": "-----BEGIN NATS USER JWT-----"}, "user_credentials is a path"),
    ],
)
async def test_options_that_contradict_each_other_are_refused_before_any_dial(
    options: dict[str, Any], said: str, nursery: trio.Nursery
) -> None:
    server = FakeServer()
    with pytest.raises(ValueError, match=said) as caught:
        async with trionats.open_client(nursery, dial=server.dial, **options):
            pytest.fail("it let us in")
    assert server.dialled == []
    assert "SU" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"user_credentials": lambda: "-----BEGIN NATS USER JWT-----\ns3cret"}, "content instead of a path"),
        ({"user_credentials": lambda: ("/s3cret",)}, "user_credentials: a tuple of 1"),
        ({"user_credentials": lambda: 5}, "user_credentials: cannot read int for a path"),
        ({"token": lambda: 5}, "token: this is no text but int"),
        ({"user_jwt_cb": lambda: "s3cret"}, "user_jwt_cb: no user JWT found"),
        ({"signature_cb": lambda nonce: "s3cret", "nkey": "U"}, "signature_cb: this is no Ed25519 signature"),
        ({"nkeys_seed": "/no\0where"}, "nkeys_seed: cannot read"),
    ],
)
async def test_what_a_callback_gives_is_checked(options: dict[str, Any], said: str, nursery: trio.Nursery) -> None:
    error = await refused(nursery, FakeServer(info={"nonce": "n"}), "nats://fake", **options)
    assert isinstance(error, errors.InvalidUserCredentialsError)
    assert said in str(error)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("form", ["nkeys_seed", "user_credentials", "the second of two paths", "content"])
async def test_h5_a_secret_in_the_place_of_a_path_is_not_shown(
    form: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    seed = Key().seed
    jwt_path = tmp_path / "user.jwt"
    jwt_path.write_text("a.b.c")
    content = f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    options: dict[str, dict[str, Any]] = {
        "nkeys_seed": {"user_jwt_cb": lambda: "a.b.c", "nkeys_seed": Path(seed)},
        "user_credentials": {"user_credentials": lambda: seed},
        "the second of two paths": {"user_credentials": (jwt_path, seed)},
        "content": {"user_credentials": (content, seed)},
    }
    error = await refused(nursery, FakeServer(info={"nonce": "n"}), "nats://fake", **options[form])
    assert isinstance(error, errors.InvalidUserCredentialsError)
    assert "cannot read what is no path" in str(error)
    assert seed not in "".join(traceback.format_exception(error))


async def test_a_refusal_that_is_there_before_our_login_is_heard(nursery: trio.Nursery) -> None:
    """nats-server says so where it has too many connections, and goes; what we then send breaks the connection."""
    server = FakeServer()

    async def dial(host: str, port: int) -> trio.abc.Stream:
        stream = await server.dial(host, port)
        given.append(len(server.link._down))
        return stream

    given: list[int] = []

    async def full(host: str, port: int) -> trio.abc.Stream:
        stream = await dial(host, port)
        server.link.error("maximum connections exceeded", fatal=True)
        server.chunk = given[0]  # so that it is not read together with INFO
        return stream

    with pytest.raises(errors.Error, match=r"nats://fake:4222: the server says: maximum connections exceeded$"):
        async with trionats.open_client(nursery, "nats://fake", dial=full):
            pytest.fail("it let us in")


@pytest.mark.parametrize("nonce", [5, [], {}, True])
async def test_c11_a_nonce_that_is_no_text_fails_the_attempt(nonce: object, nursery: trio.Nursery) -> None:
    options: dict[str, Any] = {"nkeys_seed_str": Key().seed}
    error = await refused(nursery, FakeServer(info={"nonce": nonce}), "nats://fake", **options)
    assert isinstance(error, errors.ProtocolError)
    assert "nats://fake:4222: the nonce" in str(error)


async def test_a_wrong_seed_is_refused_before_any_dial(nursery: trio.Nursery) -> None:
    server = FakeServer()
    with pytest.raises(errors.InvalidUserCredentialsError, match="nkeys_seed_str: this is no NKey seed"):
        async with trionats.open_client(nursery, dial=server.dial, nkeys_seed_str="SUABC"):
            pytest.fail("it let us in")
    assert server.dialled == []


@pytest.mark.parametrize("option", ["user_credentials", "nkeys_seed", "nkeys_seed_str"])
async def test_without_the_extra_the_option_and_the_remedy_are_named(
    option: str, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    options: dict[str, Any] = {option: Key().seed if option == "nkeys_seed_str" else "/a/path"}
    with pytest.raises(ImportError, match=rf"{option}.*pip install 'trionats\[nkeys\]'"):
        async with trionats.open_client(nursery, dial=FakeServer().dial, **options):
            pytest.fail("it let us in")


async def test_without_the_extra_a_websocket_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.delitem(sys.modules, "trionats._connection.websocket", raising=False)
    monkeypatch.delattr("trionats._connection.websocket", raising=False)
    monkeypatch.setitem(sys.modules, "websockets", None)
    monkeypatch.setitem(sys.modules, "websockets.client", None)
    with pytest.raises(ImportError, match=r"ws://fake:80: .*pip install 'trionats\[websocket\]'"):
        async with trionats.open_client(nursery, "ws://fake", dial=FakeServer().dial):
            pytest.fail("it let us in")
