"""Every way to log in, against real servers whose keys and JWTs are made here; and credentials that change under us."""

from __future__ import annotations

import base64
import logging
import math
import time
import traceback
from collections import UserString
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

import trionats
from tests.keys import House, Key, User
from trionats import errors, events
from trionats.testing import NatsServer, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def house() -> House:
    return House()


@pytest.fixture(scope="module")
def operated(house: House, server_executable: Path) -> Iterator[NatsServer]:
    """A server in operator mode."""
    with NatsServer(house.config, executable=server_executable) as server:
        yield server


async def exchange(nursery: trio.Nursery, url: str, **options: Any) -> None:  # noqa: ANN401 - those of open_client
    """Log in, and see a message through."""
    async with (
        trionats.open_client(nursery, url, **options) as nc,
        trionats.open_subscription(nursery, nc, "greet") as rx,
    ):
        await nc.publish("greet", b"hello")
        assert (await rx.receive()).data == b"hello"


async def refused(nursery: trio.Nursery, url: str, **options: Any) -> Exception:  # noqa: ANN401 - those of open_client
    with pytest.raises(errors.Error) as caught:
        await exchange(nursery, url, **options)
    return caught.value


async def until(rx: trionats.Events, *kinds: type[events.ConnectionEvent]) -> events.ConnectionEvent:
    """Take events up to one of these kinds."""
    async for event in rx:
        if isinstance(event, kinds):
            return event
    raise AssertionError("no more events")


# -- the plain ways ------------------------------------------------------------------------------------------------------


async def test_user_and_password(nursery: trio.Nursery) -> None:
    async with open_server("authorization { user: u, password: s3cret }") as server:
        await exchange(nursery, server.url, user="u", password="s3cret")
        await exchange(nursery, server.url.replace("://", "://u:s3cret@"))
        await exchange(nursery, server.url.replace("://", "://u:s3cret@"), user="other", password="wrong")
        for options in ({}, {"user": "u"}, {"user": "u", "password": "wrong"}, {"token": "s3cret"}):
            error = await refused(nursery, server.url, **options)
            assert isinstance(error, errors.AuthorizationError)
            hint = "" if options else "; no credentials were given"
            assert str(error) == f"{server.url}: the server says: Authorization Violation{hint}"


async def test_token(nursery: trio.Nursery) -> None:
    async with open_server("authorization { token: s3cret }") as server:
        await exchange(nursery, server.url, token="s3cret")
        await exchange(nursery, server.url, token=lambda: "s3cret")
        await exchange(nursery, server.url.replace("://", "://s3cret@"))
        assert isinstance(await refused(nursery, server.url, token="wrong"), errors.AuthorizationError)


async def test_nkey_from_text_file_and_signer(tmp_path: Path, nursery: trio.Nursery) -> None:
    key = Key()
    path = tmp_path / "user.nk"
    path.write_text(f"{key.seed}\n{key.public}\n")

    async def sign(nonce: str) -> str:
        await trio.lowlevel.checkpoint()
        return base64.b64encode(key.sign(nonce.encode())).decode()

    async with open_server(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as server:
        await exchange(nursery, server.url, nkeys_seed_str=key.seed)
        await exchange(nursery, server.url, nkeys_seed=path)
        await exchange(nursery, server.url, nkeys_seed=str(path))
        await exchange(nursery, server.url, nkey=key.public, signature_cb=sign)
        await exchange(nursery, server.url, nkey=key.public, signature_cb=lambda nonce: key.sign(nonce.encode()))
        await exchange(nursery, server.url, nkeys_seed_str=key.seed, token="s3cret", user="u", password="p")
        assert isinstance(await refused(nursery, server.url, nkeys_seed_str=Key().seed), errors.AuthorizationError)
        assert isinstance(await refused(nursery, server.url), errors.AuthorizationError)


async def test_h6_two_hundred_nonces_are_signed_as_the_server_reads_it(nursery: trio.Nursery) -> None:
    key = Key()
    async with open_server(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as server:
        for _ in range(200):
            async with trionats.open_client(nursery, server.url, nkeys_seed_str=key.seed):
                pass


# -- JWTs ----------------------------------------------------------------------------------------------------------------


async def test_credentials_from_files_and_memory(
    house: House, operated: NatsServer, tmp_path: Path, nursery: trio.Nursery
) -> None:
    user = house.user()
    both, jwt, seed = tmp_path / "user.creds", tmp_path / "user.jwt", tmp_path / "user.nk"
    both.write_text(user.creds)
    jwt.write_text(user.jwt)
    seed.write_text(user.key.seed)

    async def fetch() -> bytes:
        await trio.lowlevel.checkpoint()
        return user.creds.encode()

    forms: list[Any] = [both, str(both), (jwt, seed), (str(both), str(both)), user.creds.encode(), fetch]
    for form in [*forms, bytearray(user.creds.encode()), UserString(user.creds), lambda: both]:
        await exchange(nursery, operated.url, user_credentials=form)


async def test_a_jwt_with_whatever_signs(house: House, operated: NatsServer, nursery: trio.Nursery) -> None:
    user = house.user()
    await exchange(nursery, operated.url, user_jwt_cb=lambda: user.jwt.encode(), nkeys_seed_str=user.key.seed)
    await exchange(
        nursery, operated.url, user_jwt_cb=lambda: user.jwt, signature_cb=lambda nonce: user.key.sign(nonce.encode())
    )
    bearer = house.user(bearer=True)
    await exchange(nursery, operated.url, user_jwt_cb=lambda: bearer.jwt)
    await exchange(nursery, operated.url, user_credentials=user.creds.encode(), token="t", user="u", password="p")


async def test_a_jwt_issued_by_a_scoped_signing_key_gives_what_its_scope_gives(
    house: House, operated: NatsServer, nursery: trio.Nursery
) -> None:
    key = Key()

    def issue() -> str:
        return trionats.issue_user_jwt(
            house.scoped.seed, house.account.public, key.public, name="greeter", expires_in=60, tags=["test"]
        )

    await exchange(nursery, operated.url, user_jwt_cb=issue, nkeys_seed_str=key.seed)
    async with (
        trionats.open_client(nursery, operated.url, user_jwt_cb=issue, nkeys_seed_str=key.seed) as nc,
        trionats.open_subscription(nursery, nc, "other") as rx,
    ):
        with pytest.raises(errors.PermissionsViolationError):
            await rx.receive()


async def test_bad_credentials_are_refused_by_us_or_by_the_server(
    house: House, operated: NatsServer, tmp_path: Path, nursery: trio.Nursery
) -> None:
    user, other = house.user(), Key()
    strangers = House().user()
    missing = tmp_path / "none.creds"
    error = await refused(nursery, operated.url, user_credentials=missing)
    assert isinstance(error, errors.InvalidUserCredentialsError)
    assert str(error) == f"user_credentials: cannot read {str(missing)!r}: No such file or directory"
    error = await refused(nursery, operated.url, user_credentials=tmp_path)
    assert "Is a directory" in str(error)
    error = await refused(nursery, operated.url, user_credentials=user.jwt.encode())
    assert isinstance(error, errors.InvalidUserCredentialsError)
    for creds in (strangers.creds, User(other, user.jwt).creds, house.user(expires=time.time() - 10).creds):
        error = await refused(nursery, operated.url, user_credentials=creds.encode())
        assert isinstance(error, errors.AuthorizationError)
    assert isinstance(await refused(nursery, operated.url), errors.AuthorizationError)


async def test_a_refusal_tells_what_we_know_of_it(
    house: House, operated: NatsServer, tmp_path: Path, nursery: trio.Nursery
) -> None:
    expired = math.ceil(time.time()) - 10
    user = house.user(expires=expired)
    path = tmp_path / "svc.creds"
    path.write_text(user.creds)
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expired))
    refusal = f"{operated.url}: the server says: Authorization Violation"
    error = await refused(nursery, operated.url, user_credentials=path)
    assert str(error) == f"{refusal}; the JWT in {str(path)!r} expired at {when}"
    error = await refused(nursery, operated.url, user_credentials=user.creds.encode())
    assert str(error) == f"{refusal}; the JWT in user_credentials expired at {when}"
    error = await refused(nursery, operated.url, user_jwt_cb=lambda: user.jwt, nkeys_seed_str=user.key.seed)
    assert str(error) == f"{refusal}; the JWT of user_jwt_cb expired at {when}"
    assert str(await refused(nursery, operated.url)) == f"{refusal}; no credentials were given"
    assert str(await refused(nursery, operated.url, token="x")) == refusal


async def test_the_file_without_a_jwt_is_named(operated: NatsServer, tmp_path: Path, nursery: trio.Nursery) -> None:
    path, seed = tmp_path / "svc.creds", tmp_path / "svc.nk"
    path.write_text("# nothing yet\n")
    seed.write_text("not a seed\n")
    error = await refused(nursery, operated.url, user_credentials=path)
    assert str(error) == f"user_credentials: {str(path)!r}: no user JWT found"
    error = await refused(nursery, operated.url, nkeys_seed=seed)
    assert str(error) == f"nkeys_seed: {str(seed)!r}: this is no NKey seed: not base32, or mistyped"


async def test_a_port_that_says_nothing_is_asked_about(nursery: trio.Nursery) -> None:
    async with open_server('http: 127.0.0.1:-1\nwebsocket { listen: "127.0.0.1:-1", no_tls: true }\n') as server:
        ports = server.server._ports
        for where in (ports["monitoring"][0], ports["websocket"][0]):
            port = where.rpartition(":")[2].rstrip("/")
            error = await refused(nursery, f"nats://127.0.0.1:{port}", connect_timeout=0.3)
            said = "connected, but the server said nothing within 0.3 s; is this a NATS client port (4222, not 8222)?"
            assert str(error) == f"no server could be reached: nats://127.0.0.1:{port}: {said}"


async def test_one_refused_connection_is_told_in_few_lines(nursery: trio.Nursery) -> None:
    error = await refused(nursery, "nats://127.0.0.1:1")
    lines = "".join(traceback.format_exception(error)).splitlines()
    assert len(lines) < 22
    assert error.__context__ is None


# -- credentials that change ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def watched(
    nursery: trio.Nursery,
    url: str,
    **options: Any,  # noqa: ANN401 - those of open_client
) -> AsyncGenerator[tuple[trionats.Client, trionats.Events]]:
    async with (
        trionats.open_client(nursery, url, reconnect_time_wait=0.05, **options) as nc,
        trionats.open_events(nursery, nc) as rx,
    ):
        yield nc, rx


async def test_a_password_changed_under_a_live_client(nursery: trio.Nursery) -> None:
    password = "first"
    config = "authorization {{ user: u, password: {} }}"
    async with (
        open_server(config.format(password)) as server,
        watched(nursery, server.url, user="u", password=lambda: password) as (nc, rx),
        trionats.open_subscription(nursery, nc, "greet") as greetings,
    ):
        await nc.flush()
        password = "second"
        await server.reload(config.format(password))
        # nats-server says nothing to those whom it throws out for this.
        await until(rx, events.Disconnected)
        await until(rx, events.Reconnected)
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

    async with watched(nursery, operated.url, user_credentials=creds) as (nc, rx):
        lost = await until(rx, events.Disconnected)
        assert isinstance(lost, events.Disconnected)
        assert "User Authentication Expired" in str(lost.reason)
        await until(rx, events.Reconnected)
        await nc.flush()
        assert nc.statistics().reconnects == 1
    assert len(given) == 2


async def test_a_revoked_user_comes_back_with_fresh_credentials(tmp_path: Path, nursery: trio.Nursery) -> None:
    house = House()
    path = tmp_path / "user.creds"
    first = house.user()
    path.write_text(first.creds)
    async with open_server(house.config) as server, watched(nursery, server.url, user_credentials=path) as (nc, rx):
        await nc.flush()
        path.write_text(house.user().creds)
        house.revoke(first)
        await server.reload(house.config)
        lost = await until(rx, events.Disconnected)
        assert isinstance(lost, events.Disconnected)
        assert isinstance(lost.reason, errors.AuthorizationError)
        await until(rx, events.Reconnected)
        await nc.flush()


async def test_h7_files_are_read_anew_at_each_connect(tmp_path: Path, nursery: trio.Nursery) -> None:
    old, new = House(), House()
    path = tmp_path / "user.creds"
    path.write_text(old.user().creds)
    async with open_server(old.config) as server, watched(nursery, server.url, user_credentials=path) as (nc, rx):
        await server.stop()
        path.write_text(new.user().creds)
        server.server.config = new.config
        await server.start()
        await until(rx, events.Reconnected)
        await nc.flush()


async def test_h7_a_seed_file_is_read_anew_and_may_be_gone_for_a_while(tmp_path: Path, nursery: trio.Nursery) -> None:
    old, new = Key(), Key()
    path = tmp_path / "user.nk"
    path.write_text(old.seed)
    config = "authorization {{ users: [ {{ nkey: {} }} ] }}"
    async with (
        open_server(config.format(old.public)) as server,
        watched(nursery, server.url, nkeys_seed=path) as (nc, rx),
    ):
        path.unlink()
        await server.reload(config.format(new.public))
        failed = await until(rx, events.ReconnectFailed)
        assert isinstance(failed, events.ReconnectFailed)
        assert "nkeys_seed: cannot read" in str(failed.reason)
        path.write_text(new.seed)
        await until(rx, events.Reconnected)
        await nc.flush()


async def test_the_same_refusal_twice_from_one_server_ends_it(nursery: trio.Nursery) -> None:
    config = "authorization {{ user: u, password: {} }}"
    async with (
        open_server(config.format("first")) as server,
        watched(nursery, server.url, user="u", password="first", max_reconnect_attempts=-1) as (nc, rx),
    ):
        await server.reload(config.format("second"))
        closed = await until(rx, events.Closed)
        assert isinstance(closed, events.Closed)
        assert isinstance(closed.reason, errors.AuthorizationError)
        assert isinstance(nc.last_error, errors.AuthorizationError)
        with pytest.raises(errors.ConnectionClosedError):
            await nc.publish("greet")


async def test_a_callback_on_the_way_is_bounded_and_cancellable(nursery: trio.Nursery) -> None:
    async def never() -> str:
        await trio.sleep_forever()
        raise AssertionError

    async with open_server("authorization { token: s3cret }") as server:
        error = await refused(nursery, server.url, token=never, connect_timeout=0.1)
        assert isinstance(error, errors.NoServersError)
        with trio.move_on_after(0.1) as scope:
            await exchange(nursery, server.url, token=never)
        assert scope.cancelled_caught


# -- secrets ---------------------------------------------------------------------------------------------------------------

PASSWORD = "swordfish-7f3a"
MECHANISMS = (
    *("user and password", "callbacks", "token", "URL userinfo", "URL token"),
    *("seed", "seed file", "credentials file", "credentials in memory", "JWT callback", "WebSocket headers"),
)


def mechanisms(tmp_path: Path, house: House) -> dict[str, tuple[str, dict[str, Any], list[str]]]:
    """Every way to say who we are: userinfo for the URL, options, and what must not be shown."""
    user, key = house.user(), Key()
    file, seed = tmp_path / "user.creds", tmp_path / "user.nk"
    file.write_text(user.creds)
    seed.write_text(key.seed)
    jwt = [user.jwt, user.key.seed]
    return {
        "user and password": ("", {"user": "u", "password": PASSWORD}, [PASSWORD]),
        "callbacks": ("", {"user": "u", "password": lambda: PASSWORD}, [PASSWORD]),
        "token": ("", {"token": PASSWORD}, [PASSWORD]),
        "URL userinfo": (f"u:{PASSWORD}@", {}, [PASSWORD]),
        "URL token": (f"{PASSWORD}@", {}, [PASSWORD]),
        "seed": ("", {"nkeys_seed_str": key.seed}, [key.seed]),
        "seed file": ("", {"nkeys_seed": seed}, [key.seed]),
        "credentials file": ("", {"user_credentials": file}, jwt),
        "credentials in memory": ("", {"user_credentials": user.creds.encode()}, jwt),
        "JWT callback": ("", {"user_jwt_cb": lambda: user.jwt, "nkeys_seed_str": user.key.seed}, jwt),
        "WebSocket headers": ("", {"ws_connection_headers": {"Authorization": PASSWORD}}, [PASSWORD]),
    }


def shown(thing: object) -> Iterator[str]:
    """Everything that `thing` says of itself, and of what it is made of."""
    seen: set[int] = set()
    todo: list[object] = [thing]
    while todo:
        each = todo.pop()
        if id(each) in seen or not type(each).__module__.startswith("trionats"):
            continue
        seen.add(id(each))
        yield repr(each)
        yield str(each)
        slots = {slot for cls in type(each).__mro__ for slot in getattr(cls, "__slots__", ())}
        names = slots | set(getattr(each, "__dict__", ()))
        todo += [getattr(each, name, None) for name in names]


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("outcome", ["in", "refused", "unreachable", "tls wanted"])
async def test_h5_secrets_are_in_no_repr_no_log_and_no_exception(
    mechanism: str,
    outcome: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    nursery: trio.Nursery,
) -> None:
    caplog.set_level(logging.DEBUG)
    userinfo, options, secrets = mechanisms(tmp_path, House())[mechanism]
    config = 'websocket { listen: "127.0.0.1:-1", no_tls: true, compression: true }\n'
    if outcome == "refused":
        config += "authorization { user: somebody, password: else }\n"
    if outcome == "tls wanted":
        options["tls"] = True
    texts: list[str] = []
    async with open_server(config) as server:
        for kind in ("nats", "websocket"):
            url = server.server._ports[kind][0].replace("://", f"://{userinfo}")
            if outcome == "unreachable":
                url = url[: url.rindex(":")] + ":1"
            try:
                async with trionats.open_client(nursery, url, dont_randomize=True, **options) as nc:
                    assert outcome == "in"
                    texts += shown(nc)
                    await nc.flush()
            except errors.Error as error:
                assert outcome != "in"
                texts += [repr(error), str(error), *traceback.format_exception(error)]
    texts += [record.getMessage() for record in caplog.records]
    assert texts
    for text in texts:
        for secret in secrets:
            assert secret not in text


def test_the_mechanisms_are_all_tried(tmp_path: Path) -> None:
    assert tuple(mechanisms(tmp_path, House())) == MECHANISMS
