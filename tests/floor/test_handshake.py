"""One attempt to get in: what is said before TLS, what is sent before what, and how a refusal is told."""

from __future__ import annotations

import json
import ssl
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trionats
from tests.certificates import Authority
from tests.fakes import FakeServer
from tests.keys import Key
from tests.peers import Peer, Peers
from tests.worlds import collect, connected, next_event, refusal, watched
from trionats import errors, events, open_client, open_events
from trionats.events import Reconnected, ReconnectFailed, ServersDiscovered

Clock = trio.testing.MockClock
Script = Callable[[Peer], Awaitable[None]]

NAME = "seed.example"
SEED = Key().seed
CONTENT = f"-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"


def serving(
    context: ssl.SSLContext | None = None,
    *,
    first: bool = False,
    later: dict[str, Any] | None = None,
    stays: bool = True,
    **info: Any,  # noqa: ANN401 - fields of INFO
) -> Script:
    """Script a server: with a context it demands TLS, behind its INFO or first; `later` are fields of a second INFO."""

    async def script(peer: Peer) -> None:
        if context and first:
            await peer.secure(context)
        await peer.info(tls_required=context is not None, **info)
        if context and not first:
            await peer.secure(context)
        await peer.log_in()
        if later:
            await peer.info(**later)
        if stays:
            await peer.serve()

    return script


async def in_clear(peer: Peer) -> None:
    """Offer no TLS, and take what comes."""
    await peer.info()
    await peer.line()


async def refused(peers: Peers, url: str = f"tls://{NAME}", **options: Any) -> Exception:  # noqa: ANN401 - any option
    return await refusal(url, dial=peers.dial, allow_reconnect=False, **options)


@pytest.mark.parametrize("wanted", ["url", "context", "callback", "True"])
async def test_where_tls_is_wanted_and_not_offered_no_byte_is_sent(wanted: str, authority: Authority) -> None:
    options: dict[str, Any] = {"context": authority.trusting(), "callback": authority.trusting, "True": True}
    server = FakeServer()
    url = f"{'tls' if wanted == 'url' else 'nats'}://u:s3cret@fake"
    error = await refusal(url, dial=server.dial, tls=options.get(wanted))
    assert isinstance(error, errors.SecureConnWantedError)
    assert "fake:4222 does not offer it" in str(error)
    assert server.link.received == b""


@pytest.mark.parametrize(
    ("url", "later", "attempts"),
    [(f"nats://u:s3cret@{NAME}", {}, 2), (f"tls://u:s3cret@{NAME}", {"connect_urls": ["10.0.0.2:4222"]}, 1)],
    ids=["the same that comes back", "a discovered one"],
)
async def test_a_server_without_tls_gets_no_byte_on_a_reconnect(
    url: str, later: dict[str, Any], attempts: int, autojump_clock: Clock, authority: Authority, nursery: trio.Nursery
) -> None:
    peers = Peers(nursery, serving(authority.server(NAME), later=later, stays=False), in_clear)
    options: dict[str, Any] = {"tls": authority.trusting(), "max_reconnect_attempts": attempts}
    seen: list[events.ConnectionEvent] = []
    async with open_client(nursery, url, dial=peers.dial, **options) as nc, open_events(nursery, nc) as rx:
        with pytest.raises(errors.Error):
            await collect(rx, seen)
    failed = [event.reason for event in seen if isinstance(event, ReconnectFailed)]
    assert [isinstance(error, errors.SecureConnWantedError) for error in failed] == [True, True]
    assert [peer.in_clear for peer in peers.peers] == [b""] * 3
    assert not later or "10.0.0.2:4222" in peers.dialled


async def test_a_websocket_in_clear_is_not_even_dialled_where_tls_is_wanted(authority: Authority) -> None:
    server = FakeServer()
    headers = {"Authorization": "Bearer s3cret"}
    error = await refusal("ws://fake", dial=server.dial, tls=authority.trusting(), ws_connection_headers=headers)
    assert isinstance(error, errors.SecureConnWantedError)
    assert "wss://" in str(error)
    assert server.dialled == []


@pytest.mark.parametrize("right", [True, False])
async def test_a_discovered_address_is_verified_against_the_original_name(
    right: bool, authority: Authority, nursery: trio.Nursery
) -> None:
    first = serving(authority.server(NAME), later={"connect_urls": ["10.0.0.2:4222"]}, stays=False)
    peers = Peers(nursery, first, serving(authority.server(NAME if right else "other.example")))
    options: dict[str, Any] = {"dial": peers.dial, "tls": authority.trusting(), "max_reconnect_attempts": 1}
    async with open_client(nursery, f"tls://{NAME}", **options) as nc:
        async with open_events(nursery, nc) as rx:
            found = [await rx.receive() for _ in range(3)]
        assert isinstance(found[0], ServersDiscovered)
        assert peers.dialled[:2] == [f"{NAME}:4222", "10.0.0.2:4222"]
        if right:
            assert isinstance(found[2], Reconnected)
            assert nc.connected_url == "tls://10.0.0.2:4222"
        else:
            assert isinstance(found[2], ReconnectFailed)
            assert "certificate is not valid for 'seed.example'" in str(found[2].reason)


async def test_tls_hostname_overrides_the_name_of_the_url(authority: Authority, nursery: trio.Nursery) -> None:
    peers = Peers(nursery, serving(authority.server(NAME)))
    options: dict[str, Any] = {"dial": peers.dial, "tls": authority.trusting()}
    async with open_client(nursery, "tls://10.1.1.1", tls_hostname=NAME, **options) as nc:
        assert nc.tls is not None
        assert nc.tls.version == "TLSv1.3"
        assert nc.tls.cipher
        assert nc.tls.peer_certificate
    error = await refused(peers, "tls://10.1.1.1", tls=authority.trusting())
    assert isinstance(error, errors.SecureConnFailedError)
    assert "IP address mismatch" in str(error)


@pytest.mark.parametrize(
    "behind", [b"MSG secret 1 5\r\nhello\r\n", b"PING\r\n", b"-ERR 'Authorization Violation'\r\n", b"x"]
)
async def test_bytes_in_clear_between_info_and_tls_end_the_attempt_unread(
    behind: bytes, authority: Authority, nursery: trio.Nursery
) -> None:
    async def injecting(peer: Peer) -> None:
        await peer.info(tls_required=True, behind=behind)
        await peer.line()

    peers = Peers(nursery, injecting)
    error = await refused(peers, f"nats://{NAME}", tls=authority.trusting())
    assert isinstance(error, errors.SecureConnFailedError)
    said = f"{len(behind)} bytes came in clear, where only the TLS handshake can follow"
    assert str(error) == f"nats://{NAME}:4222: {said}"
    assert peers.peers[0].in_clear == b""


async def test_an_injected_message_reaches_no_subscription_on_reconnect(
    autojump_clock: Clock, authority: Authority, nursery: trio.Nursery
) -> None:
    async def first(peer: Peer) -> None:
        await serving(authority.server(NAME), stays=False)(peer)
        assert await peer.line() == b"SUB news 1"

    async def injecting(peer: Peer) -> None:
        await peer.info(tls_required=True, behind=b"MSG news 1 4\r\nfake\r\n")
        await peer.line()

    async def honest(peer: Peer) -> None:
        await serving(authority.server(NAME), stays=False)(peer)
        await peer.stream.send_all(b"MSG news 1 4\r\nreal\r\n")
        await peer.serve()

    peers = Peers(nursery, first, injecting, honest)
    async with (
        open_client(nursery, f"nats://{NAME}", dial=peers.dial, tls=authority.trusting()) as nc,
        trionats.open_subscription(nursery, nc, "news") as rx,
    ):
        assert (await rx.receive()).data == b"real"
    assert len(peers.peers) == 3


async def test_addresses_that_info_told_in_clear_are_not_trusted(authority: Authority, nursery: trio.Nursery) -> None:
    later = {"connect_urls": ["10.0.0.2:4222"]}
    script = serving(authority.server(NAME), later=later, connect_urls=["evil.example:4222"], ldm=True)
    dial = Peers(nursery, script).dial
    async with open_client(nursery, f"nats://{NAME}", dial=dial, tls=authority.trusting()) as nc:
        async with open_events(nursery, nc) as rx:
            assert await rx.receive() == ServersDiscovered(("nats://10.0.0.2:4222",))
        assert nc.server_info["connect_urls"] == ["10.0.0.2:4222"]


async def test_bytes_behind_info_are_read_where_no_tls_follows(nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        await peer.info(behind=b"PING\r\n-ERR 'maximum connections exceeded'\r\n")
        await peer.line()

    assert "maximum connections exceeded" in str(await refused(Peers(nursery, script), "nats://x"))


async def test_handshake_first_says_nothing_in_clear(authority: Authority, nursery: trio.Nursery) -> None:
    peers = Peers(nursery, serving(authority.server(NAME), first=True, connect_urls=["10.0.0.2:4222"]))
    options: dict[str, Any] = {"tls": authority.trusting(), "tls_handshake_first": True}
    async with open_client(nursery, f"nats://{NAME}", dial=peers.dial, **options) as nc:
        assert nc.tls is not None
        assert nc.server_info["connect_urls"] == ["10.0.0.2:4222"]
        assert peers.peers[0].options["tls_required"] is True


def stranger(authority: Authority) -> Script:
    other = authority.file.parent / "other"
    other.mkdir()
    return serving(Authority(other).server(NAME))


def closing(authority: Authority) -> Script:
    async def script(peer: Peer) -> None:
        await peer.info(tls_required=True)

    return script


def leaving(authority: Authority) -> Script:
    async def script(peer: Peer) -> None:
        await peer.secure(authority.server(NAME))
        await peer.stream.aclose()

    return script


FIRST = {"tls_handshake_first": True}
NOT_ACCEPTED = "its certificate is not accepted: "
WANTS = "closed the connection while we logged in; perhaps it wants a client certificate (TLS)"


@pytest.mark.parametrize(
    ("script", "options", "kind", "said"),
    [
        (stranger, {}, errors.SecureConnFailedError, f": {NOT_ACCEPTED}"),
        (closing, {}, errors.SecureConnFailedError, ": the TLS handshake failed"),
        (leaving, FIRST, errors.UnexpectedEOF, f" {WANTS}"),
        (lambda _: in_clear, FIRST, errors.SecureConnFailedError, ": what the server sends is not TLS"),
        *(
            (lambda a: serving(a.server(NAME)), {"tls_hostname": name}, errors.SecureConnFailedError, ": ")
            for name in ("", ".example", "a" * 100 + ".example", "x\0y")
        ),
    ],
)
async def test_a_handshake_that_fails_names_the_server_and_the_reason(
    script: Callable[[Authority], Script],
    options: dict[str, Any],
    kind: type[Exception],
    said: str,
    authority: Authority,
    nursery: trio.Nursery,
) -> None:
    error = await refused(Peers(nursery, script(authority)), tls=authority.trusting(), **options)
    told = error if isinstance(error, kind) else error.__cause__
    assert isinstance(told, kind)
    assert str(told).startswith(f"tls://{NAME}:4222{said}")


async def test_a_server_that_waits_for_the_handshake_is_told_of_when_time_runs_out(
    autojump_clock: Clock, authority: Authority, nursery: trio.Nursery
) -> None:
    async def silent(peer: Peer) -> None:
        await peer.line()

    text = str(await refused(Peers(nursery, silent), tls=authority.trusting()))
    assert "connected, but the server said nothing within 2 s; is this a NATS client port (4222, not 8222)?" in text
    assert text.endswith("Or it does the TLS handshake first (tls_handshake_first)")


@pytest.mark.parametrize(
    ("scheme", "what"), [("tls", "no connection"), ("ws", "a WebSocket"), ("wss", "a WebSocket over TLS")]
)
async def test_connect_timeout_covers_the_handshakes(
    autojump_clock: Clock, scheme: str, what: str, authority: Authority, nursery: trio.Nursery
) -> None:
    async def silent(peer: Peer) -> None:
        if scheme == "tls":
            await peer.info(tls_required=True)
        await trio.sleep_forever()

    start = trio.current_time()
    options = {} if scheme == "ws" else {"tls": authority.trusting()}
    error = await refused(Peers(nursery, silent), f"{scheme}://{NAME}", connect_timeout=3, **options)
    assert trio.current_time() - start == pytest.approx(3)
    assert f"{what} within 3 s" in str(error)
    nursery.cancel_scope.cancel()


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

    error = await refused(Peers(nursery, script), tls=callback)
    assert isinstance(error, errors.SecureConnFailedError)
    assert str(error).startswith(f"tls://{NAME}:4222: {said}")


async def test_the_context_is_made_anew_at_each_connect(authority: Authority, nursery: trio.Nursery) -> None:
    made: list[ssl.SSLContext] = []

    async def make() -> ssl.SSLContext:
        await trio.lowlevel.checkpoint()
        made.append(authority.trusting())
        return made[-1]

    context = authority.server(NAME)
    peers = Peers(nursery, serving(context, stays=False), serving(context))
    async with open_client(nursery, f"nats://{NAME}", dial=peers.dial, tls=make) as nc:
        async with open_events(nursery, nc) as rx:
            await next_event(rx, Reconnected)
    assert len(made) == 2


async def connect_fields(nonce: str | None = "n0nce", **options: Any) -> dict[str, Any]:  # noqa: ANN401 - any option
    server = FakeServer(info={"nonce": nonce})
    async with connected(server, **options):
        return server.link.options


async def test_all_that_is_given_is_sent() -> None:
    """A signer and its public key are enough, and without a nonce nothing is signed."""
    key = Key()

    async def sign(nonce: str) -> bytes:
        await trio.lowlevel.checkpoint()
        return key.sign(nonce.encode())

    given: dict[str, Any] = {"user": "u", "password": "p", "token": "t", "nkeys_seed_str": key.seed}
    fields = await connect_fields(**given, user_jwt_cb=lambda: b"a.b.c")
    assert {"user": "u", "pass": "p", "auth_token": "t", "jwt": "a.b.c"}.items() <= fields.items()
    assert fields["sig"]
    fields = await connect_fields(token="t", nkeys_seed_str=key.seed)
    assert (fields["auth_token"], fields["nkey"]) == ("t", key.public)
    assert "jwt" not in fields
    fields = await connect_fields(nkey=key.public, signature_cb=sign)
    assert fields["nkey"] == key.public
    assert "=" not in fields["sig"]
    fields = await connect_fields(None, nkeys_seed_str=Key().seed)
    assert ("sig" in fields, "nkey" in fields) == (False, True)


@pytest.mark.parametrize("form", [str, bytes, bytearray])
async def test_callbacks_may_be_either_kind_and_are_asked_at_each_connect(form: type) -> None:
    asked: list[str] = []

    def password() -> Any:  # noqa: ANN401 - parametrised
        asked.append("password")
        text = f"p{len(asked)}"
        return text if form is str else form(text.encode())

    async def user() -> str:
        await trio.lowlevel.checkpoint()
        return "u"

    async with watched(user=user, password=password) as (server, _, rx):
        assert server.link.options["pass"] == "p1"
        server.cut()
        await next_event(rx, Reconnected)
        assert (server.link.options["user"], server.link.options["pass"]) == ("u", "p2")


async def test_a_callback_that_fails_fails_the_attempt_and_not_the_client(autojump_clock: Clock) -> None:
    given = ["first", "", "third"]

    def token() -> str:
        text = given.pop(0)
        if not text:
            raise KeyError("s3cret")
        return text

    async with watched(token=token) as (server, _, rx):
        server.cut()
        assert isinstance(await rx.receive(), events.Disconnected)
        failed = await rx.receive()
        assert isinstance(failed, ReconnectFailed)
        line = token.__code__.co_firstlineno + 3
        assert str(failed.reason) == f"token: the callback failed (KeyError at test_handshake.py:{line})"
        assert isinstance(failed.reason, errors.InvalidUserCredentialsError)
        assert isinstance(await rx.receive(), Reconnected)
        assert server.link.options["auth_token"] == "third"


async def test_discovered_servers_inherit_the_userinfo_of_the_url(nursery: trio.Nursery) -> None:
    peers = Peers(nursery, serving(later={"connect_urls": ["10.0.0.2:4222"]}, stays=False), serving())
    async with open_client(nursery, "nats://u:p@seed", dial=peers.dial, user="x", password="y") as nc:
        async with open_events(nursery, nc) as rx:
            await next_event(rx, Reconnected)
        assert nc.connected_url == "nats://10.0.0.2:4222"
    assert [(peer.options["user"], peer.options["pass"]) for peer in peers.peers] == [("u", "p")] * 2


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"user_credentials": "x", "user_jwt_cb": str}, ValueError, "only one .* user_credentials, user_jwt_cb"),
        ({"nkeys_seed": "x", "nkeys_seed_str": "y"}, ValueError, "only one .* nkeys_seed, nkeys_seed_str"),
        ({"nkeys_seed": "x", "signature_cb": str}, ValueError, "only one .* nkeys_seed, signature_cb"),
        ({"nkey": "U"}, ValueError, "nkey is the public key"),
        ({"nkeys_seed": SEED}, ValueError, "nkeys_seed is a path"),
        ({"user_credentials": "-----BEGIN NATS USER JWT-----"}, ValueError, "user_credentials is a path"),
        ({"nkeys_seed_str": "SUABC"}, errors.InvalidUserCredentialsError, "nkeys_seed_str: this is no NKey seed"),
    ],
)
async def test_options_that_cannot_be_meant_are_refused_before_any_dial(
    options: dict[str, Any], kind: type[Exception], said: str, nursery: trio.Nursery
) -> None:
    server = FakeServer()
    with pytest.raises(kind, match=said) as caught:
        async with open_client(nursery, dial=server.dial, **options):
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
        # H5: a secret in the place of a path.
        ({"user_jwt_cb": lambda: "a.b.c", "nkeys_seed": Path(SEED)}, "cannot read what is no path"),
        ({"user_credentials": lambda: SEED}, "cannot read what is no path"),
        ({"user_credentials": (Path(__file__), SEED)}, "cannot read what is no path"),
        ({"user_credentials": (CONTENT, SEED)}, "cannot read what is no path"),
    ],
)
async def test_what_a_callback_gives_is_checked(options: dict[str, Any], said: str) -> None:
    error = await refusal(dial=FakeServer(info={"nonce": "n"}).dial, **options)
    assert isinstance(error, errors.InvalidUserCredentialsError)
    assert said in str(error)
    told = "".join(traceback.format_exception(error))
    assert ("s3cret" in told, SEED in told) == (False, False)


async def test_a_refusal_that_is_there_before_our_login_is_heard() -> None:
    """nats-server says so where it has too many connections, and goes; what we then send breaks the connection."""
    server = FakeServer()

    async def full(host: str, port: int) -> trio.abc.Stream:
        stream = await server.dial(host, port)
        server.chunk = len(f"INFO {json.dumps(server.info)} \r\n")  # so that it is not read together with INFO
        server.link.error("maximum connections exceeded", fatal=True)
        return stream

    error = await refusal(dial=full)
    assert str(error) == "nats://fake:4222: the server says: maximum connections exceeded"


@pytest.mark.parametrize("nonce", [5, [], {}, True])
async def test_a_nonce_that_is_no_text_fails_the_attempt(nonce: object) -> None:
    error = await refusal(dial=FakeServer(info={"nonce": nonce}).dial, nkeys_seed_str=SEED)
    assert isinstance(error, errors.ProtocolError)
    assert "nats://fake:4222: the nonce" in str(error)


@pytest.mark.parametrize("option", ["user_credentials", "nkeys_seed", "nkeys_seed_str", "ws://"])
async def test_without_the_extra_the_option_and_the_remedy_are_named(
    option: str, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    options: dict[str, Any] = {option: SEED if option == "nkeys_seed_str" else "/a/path"}
    url, remedy, missing = "nats://fake", rf"{option}.*pip install 'trionats\[nkeys\]'", ["nkeys"]
    if option == "ws://":
        monkeypatch.delitem(sys.modules, "trionats._connection.websocket", raising=False)
        monkeypatch.delattr("trionats._connection.websocket", raising=False)
        options, missing = {}, ["websockets", "websockets.client"]
        url, remedy = "ws://fake", r"ws://fake:80: .*pip install 'trionats\[websocket\]'"
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=remedy):
        async with open_client(nursery, url, dial=FakeServer().dial, **options):
            pytest.fail("it let us in")
