"""Every way to log in, against real servers whose keys and JWTs are made here; and credentials that change under us."""

from __future__ import annotations

import base64
import logging
import math
import re
import time
import traceback
from collections import UserString
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.keys import House, Key, User
from tests.leaks import leaks, shown, told_by
from tests.worlds import connected, next_event, open_world, refusal, watched
from trionats import errors, issue_user_jwt, open_client, open_subscription
from trionats.events import Closed, Disconnected, Reconnected, ReconnectFailed
from trionats.testing import NatsServer, open_server
from trionats.testing._server import free_port


@pytest.fixture(scope="module")
def house() -> House:
    return House()


@pytest.fixture(scope="module")
def operated(house: House, server_executable: Path) -> Iterator[NatsServer]:
    """A server in operator mode."""
    with NatsServer(house.config, executable=server_executable) as server:
        yield server


async def exchange(url: str, **options: Any) -> None:  # noqa: ANN401 - those of open_client
    """Log in, and see a message through."""
    async with trio.open_nursery() as nursery, open_client(nursery, url, **options) as nc:
        async with open_subscription(nursery, nc, "greet") as rx:
            await nc.publish("greet", b"hello")
            assert (await rx.receive()).data == b"hello"


async def test_user_and_password() -> None:
    async with open_server("authorization { user: u, password: s3cret }") as server:
        await exchange(server.url, user="u", password="s3cret")
        await exchange(server.url.replace("://", "://u:s3cret@"))
        await exchange(server.url.replace("://", "://u:s3cret@"), user="other", password="wrong")
        for options in ({}, {"user": "u"}, {"user": "u", "password": "wrong"}, {"token": "s3cret"}):
            error = await refusal(server.url, **options)
            assert isinstance(error, errors.AuthorizationError)
            hint = "" if options else "; no credentials were given"
            assert str(error) == f"{server.url}: the server says: Authorization Violation{hint}"


async def test_a_token_and_a_callback_for_it_that_is_bounded_and_cancellable() -> None:
    async def never() -> str:
        await trio.sleep_forever()
        raise AssertionError

    async with open_server("authorization { token: s3cret }") as server:
        await exchange(server.url, token="s3cret")
        await exchange(server.url, token=lambda: "s3cret")
        await exchange(server.url.replace("://", "://s3cret@"))
        assert isinstance(await refusal(server.url, token="wrong"), errors.AuthorizationError)
        error = await refusal(server.url, token=never, connect_timeout=0.1)
        assert isinstance(error, errors.NoServersError)
        with trio.move_on_after(0.1) as scope:
            await exchange(server.url, token=never)
        assert scope.cancelled_caught


async def test_nkey_from_text_file_and_signer(tmp_path: Path) -> None:
    key = Key()
    path = tmp_path / "user.nk"
    path.write_text(f"{key.seed}\n{key.public}\n")

    async def sign(nonce: str) -> str:
        await trio.lowlevel.checkpoint()
        return base64.b64encode(key.sign(nonce.encode())).decode()

    ways: list[dict[str, Any]] = [
        *({"nkeys_seed_str": key.seed}, {"nkeys_seed": path}, {"nkeys_seed": str(path)}),
        {"nkey": key.public, "signature_cb": sign},
        {"nkey": key.public, "signature_cb": lambda nonce: key.sign(nonce.encode())},
        {"nkeys_seed_str": key.seed, "token": "s3cret", "user": "u", "password": "p"},
    ]
    async with open_server(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as server:
        for options in ways:
            await exchange(server.url, **options)
        for wrong in ({"nkeys_seed_str": Key().seed}, {}):
            assert isinstance(await refusal(server.url, **wrong), errors.AuthorizationError)
        for _ in range(200):  # with a nonce each
            async with connected(server, nkeys_seed_str=key.seed) as nc:
                assert nc.is_connected


async def test_credentials_and_jwts_from_files_memory_and_callbacks_with_whatever_signs(
    house: House, operated: NatsServer, tmp_path: Path
) -> None:
    user = house.user()
    both, jwt, seed = tmp_path / "user.creds", tmp_path / "user.jwt", tmp_path / "user.nk"
    for path, text in ((both, user.creds), (jwt, user.jwt), (seed, user.key.seed)):
        path.write_text(text)

    async def fetch() -> bytes:
        await trio.lowlevel.checkpoint()
        return user.creds.encode()

    forms: list[Any] = [both, str(both), (jwt, seed), (str(both), str(both)), user.creds.encode(), fetch]
    for form in [*forms, bytearray(user.creds.encode()), UserString(user.creds), lambda: both]:
        await exchange(operated.url, user_credentials=form)
    bearer = house.user(bearer=True)
    ways: list[dict[str, Any]] = [
        {"user_jwt_cb": lambda: user.jwt.encode(), "nkeys_seed_str": user.key.seed},
        {"user_jwt_cb": lambda: user.jwt, "signature_cb": lambda nonce: user.key.sign(nonce.encode())},
        {"user_jwt_cb": lambda: bearer.jwt},
        {"user_credentials": user.creds.encode(), "token": "t", "user": "u", "password": "p"},
    ]
    for options in ways:
        await exchange(operated.url, **options)


async def test_a_jwt_of_a_scoped_signing_key_gives_what_its_scope_gives(house: House, operated: NatsServer) -> None:
    key = Key()

    def issue() -> str:
        return issue_user_jwt(
            house.scoped.seed, house.account.public, key.public, name="greeter", expires_in=60, tags=["test"]
        )

    options: dict[str, Any] = {"user_jwt_cb": issue, "nkeys_seed_str": key.seed}
    await exchange(operated.url, **options)
    async with open_world(operated, **options) as (_, nc, nursery), open_subscription(nursery, nc, "other") as rx:
        with pytest.raises(errors.PermissionsViolationError):
            await rx.receive()


async def test_bad_credentials_are_refused_by_us_or_by_the_server(
    house: House, operated: NatsServer, tmp_path: Path
) -> None:
    user, missing = house.user(), tmp_path / "none.creds"
    for source, said in (
        (missing, f"^user_credentials: cannot read {str(missing)!r}: No such file or directory$"),
        (tmp_path, "Is a directory"),
        (user.jwt.encode(), ""),
    ):
        error = await refusal(operated.url, user_credentials=source)
        assert isinstance(error, errors.InvalidUserCredentialsError)
        assert re.search(said, str(error))
    expired = house.user(expires=time.time() - 10)
    for creds in (House().user().creds, User(Key(), user.jwt).creds, expired.creds):
        error = await refusal(operated.url, user_credentials=creds.encode())
        assert isinstance(error, errors.AuthorizationError)
    assert isinstance(await refusal(operated.url), errors.AuthorizationError)


async def test_a_refusal_tells_what_we_know_of_it(house: House, operated: NatsServer, tmp_path: Path) -> None:
    expired = math.ceil(time.time()) - 10
    user = house.user(expires=expired)
    path = tmp_path / "svc.creds"
    path.write_text(user.creds)
    when = f"expired at {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(expired))}"
    ways: list[tuple[dict[str, Any], str]] = [
        ({"user_credentials": path}, f"; the JWT in {str(path)!r} {when}"),
        ({"user_credentials": user.creds.encode()}, f"; the JWT in user_credentials {when}"),
        ({"user_jwt_cb": lambda: user.jwt, "nkeys_seed_str": user.key.seed}, f"; the JWT of user_jwt_cb {when}"),
        ({}, "; no credentials were given"),
        ({"token": "x"}, ""),
    ]
    for options, known in ways:
        error = await refusal(operated.url, **options)
        assert str(error) == f"{operated.url}: the server says: Authorization Violation{known}"
    path, seed = tmp_path / "svc.creds", tmp_path / "svc.nk"
    path.write_text("# nothing yet\n")
    seed.write_text("not a seed\n")
    error = await refusal(operated.url, user_credentials=path)
    assert str(error) == f"user_credentials: {str(path)!r}: no user JWT found"
    error = await refusal(operated.url, nkeys_seed=seed)
    assert str(error) == f"nkeys_seed: {str(seed)!r}: this is no NKey seed: not base32, or mistyped"


async def test_a_port_that_says_nothing_is_asked_about_and_one_that_is_closed_told_in_few_lines() -> None:
    websocket = free_port()
    async with open_server(f'websocket {{ listen: "127.0.0.1:{websocket}", no_tls: true }}\n') as server:
        for port in (server.server.monitor_url.rpartition(":")[2].rstrip("/"), websocket):
            error = await refusal(f"nats://127.0.0.1:{port}", connect_timeout=0.3)
            said = "connected, but the server said nothing within 0.3 s; is this a NATS client port (4222, not 8222)?"
            assert str(error) == f"no server could be reached: nats://127.0.0.1:{port}: {said}"

    error = await refusal("nats://127.0.0.1:1")
    assert len("".join(traceback.format_exception(error)).splitlines()) < 22
    assert error.__context__ is None


async def test_a_password_changed_under_a_live_client() -> None:
    password = "first"
    config = "authorization {{ user: u, password: {} }}"
    async with (
        open_server(config.format(password)) as server,
        watched(server, reconnect_time_wait=0.05, user="u", password=lambda: password) as (_, nc, rx),
        trio.open_nursery() as nursery,
        open_subscription(nursery, nc, "greet") as greetings,
    ):
        await nc.flush()
        password = "second"
        await server.reload(config.format(password))
        # nats-server says nothing to those whom it throws out for this.
        await next_event(rx, Disconnected)
        await next_event(rx, Reconnected)
        await nc.publish("greet", b"again")
        assert (await greetings.receive()).data == b"again"


async def test_a_jwt_that_expires_leads_to_a_reconnect_with_a_fresh_one(
    house: House, operated: NatsServer, nursery: trio.Nursery
) -> None:
    key = Key()
    given: list[str] = []

    def creds() -> bytes:
        # In whole seconds, rounded up: the first one has to last until the login is done and its events are read.
        lifetime = 2 if not given else 3600
        given.append(house.user(expires=math.ceil(time.time()) + lifetime, key=key).creds)
        return given[-1].encode()

    async with watched(operated, reconnect_time_wait=0.05, user_credentials=creds) as (_, nc, rx):
        lost = await next_event(rx, Disconnected)
        assert "User Authentication Expired" in str(lost.reason)
        await next_event(rx, Reconnected)
        await nc.flush()
        assert nc.statistics().reconnects == 1
    assert len(given) == 2


async def test_files_are_read_anew_at_each_connect(tmp_path: Path) -> None:
    """A user who was revoked comes back with fresh credentials, and so does one whose server has another operator."""
    house, new = House(), House()
    path = tmp_path / "user.creds"
    first = house.user()
    path.write_text(first.creds)
    async with (
        open_server(house.config) as server,
        watched(server, reconnect_time_wait=0.05, user_credentials=path) as (_, nc, rx),
    ):
        await nc.flush()
        path.write_text(house.user().creds)
        house.revoke(first)
        await server.reload(house.config)
        lost = await next_event(rx, Disconnected)
        assert isinstance(lost.reason, errors.AuthorizationError)
        await next_event(rx, Reconnected)
        await nc.flush()
        await server.stop()
        path.write_text(new.user().creds)
        server.server.config = new.config
        await server.start()
        await next_event(rx, Reconnected)
        await nc.flush()


async def test_a_seed_file_is_read_anew_and_may_be_gone_for_a_while(tmp_path: Path) -> None:
    old, new = Key(), Key()
    path = tmp_path / "user.nk"
    path.write_text(old.seed)
    config = "authorization {{ users: [ {{ nkey: {} }} ] }}"
    async with (
        open_server(config.format(old.public)) as server,
        watched(server, reconnect_time_wait=0.05, nkeys_seed=path) as (_, nc, rx),
    ):
        path.unlink()
        await server.reload(config.format(new.public))
        failed = await next_event(rx, ReconnectFailed)
        assert "nkeys_seed: cannot read" in str(failed.reason)
        path.write_text(new.seed)
        await next_event(rx, Reconnected)
        await nc.flush()


async def test_the_same_refusal_twice_from_one_server_ends_it() -> None:
    config = "authorization {{ user: u, password: {} }}"
    async with (
        open_server(config.format("first")) as server,
        watched(server, reconnect_time_wait=0.05, user="u", password="first", max_reconnect_attempts=-1) as (_, nc, rx),
    ):
        await server.reload(config.format("second"))
        closed = await next_event(rx, Closed)
        assert isinstance(closed.reason, errors.AuthorizationError)
        assert isinstance(nc.last_error, errors.AuthorizationError)
        with pytest.raises(errors.ConnectionClosedError):
            await nc.publish("greet")


PASSWORD = "swordfish-7f3a"
KEY, USER = Key(), House().user()
JWT = (USER.jwt, USER.key.seed)

#: Every way to say who we are: userinfo for the URL, options (of files in a directory, too), and what must not be shown.
MECHANISMS: dict[str, tuple[str, Callable[[Path], dict[str, Any]], tuple[str, ...]]] = {
    "user and password": ("", lambda _: {"user": "u", "password": PASSWORD}, (PASSWORD,)),
    "callbacks": ("", lambda _: {"user": "u", "password": lambda: PASSWORD}, (PASSWORD,)),
    "token": ("", lambda _: {"token": PASSWORD}, (PASSWORD,)),
    "URL userinfo": (f"u:{PASSWORD}@", lambda _: {}, (PASSWORD,)),
    "URL token": (f"{PASSWORD}@", lambda _: {}, (PASSWORD,)),
    "seed": ("", lambda _: {"nkeys_seed_str": KEY.seed}, (KEY.seed,)),
    "seed file": ("", lambda there: {"nkeys_seed": there / "user.nk"}, (KEY.seed,)),
    "credentials file": ("", lambda there: {"user_credentials": there / "user.creds"}, JWT),
    "credentials in memory": ("", lambda _: {"user_credentials": USER.creds.encode()}, JWT),
    "JWT callback": ("", lambda _: {"user_jwt_cb": lambda: USER.jwt, "nkeys_seed_str": USER.key.seed}, JWT),
    "WebSocket headers": ("", lambda _: {"ws_connection_headers": {"Authorization": PASSWORD}}, (PASSWORD,)),
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("outcome", ["in", "refused", "unreachable", "tls wanted"])
async def test_secrets_are_in_no_repr_no_log_and_no_exception(
    mechanism: str, outcome: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "user.nk").write_text(KEY.seed)
    (tmp_path / "user.creds").write_text(USER.creds)
    userinfo, make, secrets = MECHANISMS[mechanism]
    options = make(tmp_path) | ({"tls": True} if outcome == "tls wanted" else {})
    port = free_port()
    config = f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true, compression: true }}\n'
    config += "authorization { user: somebody, password: else }\n" if outcome == "refused" else ""
    told: list[tuple[str, str]] = []
    async with open_server(config) as server:
        for url in (server.url, f"ws://127.0.0.1:{port}"):
            where = f"{url[: url.rindex(':')]}:1" if outcome == "unreachable" else url
            where = where.replace("://", f"://{userinfo}")
            if outcome == "in":
                async with connected(server, where, **options) as nc:
                    told += told_by(nc)
                    await nc.flush()
            else:
                told += shown(await refusal(where, **options))
    told += [("log", record.getMessage()) for record in caplog.records]
    assert told
    assert [leak for secret in secrets for leak in leaks(secret, *told)] == []
