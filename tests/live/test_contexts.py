"""`open_client(context=...)`: contexts of the nats command line tool, at real servers."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import trionats
from tests.certificates import Authority
from tests.fakes import FakeServer
from tests.keys import House, Key
from tests.worlds import next_event
from trionats import errors
from trionats.events import Reconnected
from trionats.testing import open_server

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a context as `nats context save` does; `select` as `nats context select` does."""
    directory = tmp_path / "config" / "nats"
    (directory / "context").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(name: str, *, select: bool = False, **fields: Any) -> None:  # noqa: ANN401 - as the file holds them
        (directory / "context" / f"{name}.json").write_text(
            json.dumps({key: str(value) if not isinstance(value, bool) else value for key, value in fields.items()})
        )
        if select:
            (directory / "context.txt").write_text(f"{name}\n")

    return write


@asynccontextmanager
async def opened(context: Any = "c", servers: str = "", **options: Any) -> AsyncIterator[trionats.Client]:  # noqa: ANN401 - None is what some write
    """Open a client with a context, and see that it works."""
    async with trio.open_nursery() as nursery:
        where = [servers] if servers else []
        async with trionats.open_client(nursery, *where, context=context, **options) as nc:
            await nc.flush()
            yield nc


async def refused(kind: type[Exception], said: str, context: Any = "c", **options: Any) -> Exception:  # noqa: ANN401 - whatever is given
    """Say why no client can be opened with a context."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(kind, match=said) as caught:
            async with trionats.open_client(nursery, context=context, **options):
                pytest.fail("it let us in")
    return caught.value


async def test_a_context_by_name_and_the_selected_one(write: Write) -> None:
    async with open_server("authorization { user: u, password: s3cret }") as server:
        write("prod", url=server.url, user="u", password="s3cret", select=True)
        for context in ("prod", True, ""):
            async with opened(context) as nc:
                assert nc.connected_url == server.url
        for none in (False, None):
            async with opened(none, server.url, user="u", password="s3cret") as nc:
                assert nc.connected_url == server.url


async def test_what_the_caller_says_wins(write: Write) -> None:
    fake = FakeServer(info={"nonce": "n"})
    write("prod", url="nats://elsewhere:1", user="u", password="wrong", token="t", inbox_prefix="_INBOX.ctx")
    async with opened("prod", "nats://here:2", dial=fake.dial, user="me") as nc:
        assert fake.dialled == [("here", 2)]
        assert fake.link.options["user"] == "me"
        assert not {"pass", "auth_token"} & set(fake.link.options)
        assert nc.new_inbox().startswith("_INBOX.ctx.")
    async with opened("prod", dial=fake.dial, inbox_prefix="_mine") as nc:
        assert fake.dialled[-1] == ("elsewhere", 1)
        assert fake.link.options["pass"] == "wrong"
        assert nc.new_inbox().startswith("_mine.")
    # Also where it is what would be meant without saying it.
    async with opened("prod", "nats://127.0.0.1:4222", dial=fake.dial):
        assert fake.dialled[-1] == ("127.0.0.1", 4222)


async def test_credentials_of_a_context(write: Write, tmp_path: Path) -> None:
    house = House()
    user, key = house.user(), Key()
    creds, seed = tmp_path / "u.creds", tmp_path / "u.nk"
    creds.write_text(user.creds)
    seed.write_text(key.seed)
    async with open_server(house.config) as server:
        write("creds", url=server.url, creds=creds)
        write("jwt", url=server.url, user_jwt=user.jwt, user_seed=user.key.seed)
        write("stranger", url=server.url, creds=seed)
        async with opened("creds"), opened("jwt"), opened("stranger", user_credentials=user.creds.encode()):
            pass
        said = f"user_credentials: '{seed}': no user JWT found"
        await refused(errors.InvalidUserCredentialsError, said, "stranger")
    async with open_server(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as server:
        write("nkey", url=server.url, nkey=seed)
        async with opened("nkey") as nc:
            assert nc.is_connected


@pytest.mark.parametrize("first", [False, True])
async def test_certificates_of_a_context(first: bool, write: Write, tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.files()
    more = f"verify: true, handshake_first: {str(first).lower()}"
    async with open_server(authority.config("127.0.0.1", more=more)) as server:
        where = server.url.replace("tls://", "nats://")
        write("tls", url=where, ca=authority.file, cert=certificate, key=key, tls_first=first)
        async with opened("tls") as nc:
            assert nc.tls is not None
        write("gone", url=where, ca=tmp_path / "none.pem", tls_first=first)
        said = r"no TLS context: No such file or directory: .*none\.pem"
        await refused(errors.SecureConnFailedError, said, "gone")


async def test_references_lead_to_credentials(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house, key = House(), Key()
    user = house.user()
    creds = tmp_path / "u.creds"
    creds.write_text(user.creds)
    embedded = f"data:;base64,{base64.b64encode(user.creds.encode()).decode()}"
    monkeypatch.setenv("MY_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("MY_CREDS", user.creds)
    monkeypatch.setenv("MY_JWT", user.jwt)
    (tmp_path / "u.nk").write_text(user.key.seed)
    async with open_server(house.config) as server:
        for fields in (
            {"creds": embedded},
            {"creds": "$MY_DIRECTORY/u.creds"},
            {"creds": "${MY_DIRECTORY}/u.creds"},
            {"creds": f"file://{creds}"},
            {"creds": "env://MY_CREDS"},
            {"user_jwt": "env://MY_JWT", "user_seed": f"file://{tmp_path}/u.nk"},
            {"user_jwt": "env://MY_JWT", "nkey": "file://$MY_DIRECTORY/u.nk"},
        ):
            write("c", url=server.url, **fields)
            async with opened() as nc:
                assert nc.is_connected
    monkeypatch.setenv("MY_SEED", key.seed)
    async with open_server(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as server:
        for nkey in ("env://MY_SEED", f"data:;base64,{base64.b64encode(key.seed.encode()).decode()}"):
            write("c", url=server.url, nkey=nkey)
            async with opened() as nc:
                assert nc.is_connected


async def test_a_password_in_a_file_is_read_anew_at_each_connect(write: Write, tmp_path: Path) -> None:
    fake = FakeServer()
    word = tmp_path / "word"
    word.write_text("first\n")
    write("c", url="nats://fake", user="u", password=f"file://{word}", token=f"file://{word}")
    async with (
        opened(dial=fake.dial, reconnect_time_wait=0.01) as nc,
        trio.open_nursery() as nursery,
        trionats.open_events(nursery, nc) as rx,
    ):
        assert (fake.link.options["pass"], fake.link.options["auth_token"]) == ("first", "first")
        word.write_text("second\r\n")
        fake.cut()
        await next_event(rx, Reconnected)
        assert fake.link.options["pass"] == "second"
    word.unlink()
    said = r"password: cannot read '.*word': No such file"
    await refused(errors.InvalidUserCredentialsError, said, dial=fake.dial)


@pytest.mark.parametrize("field", ["password", "token", "creds", "nkey", "user_jwt", "user_seed", "ca"])
@pytest.mark.parametrize("reference", ["op://vault/item/field", "nsc://o/a/u", "env://NOT_SET_ANYWHERE"])
async def test_what_a_reference_cannot_give_is_refused_by_field_and_before_any_dial(
    field: str, reference: str, write: Write
) -> None:
    fake = FakeServer()
    write("c", url="nats://fake", user="u", **{field: reference})
    await refused(ValueError, f"nats context 'c': {field}: ", dial=fake.dial)
    assert fake.dialled == []
    if field != "ca":
        # Unless the caller knows better.
        async with opened(dial=fake.dial, user="me"):
            assert fake.link.options["user"] == "me"


async def test_jetstream_goes_where_the_context_says(write: Write) -> None:
    fake = FakeServer()
    write("hub", url="nats://fake", jetstream_domain="hub")
    async with opened("hub", dial=fake.dial) as nc:
        for js, prefix in ((nc.jetstream(), "$JS.hub.API"), (nc.jetstream(domain="x"), "$JS.x.API")):
            with pytest.raises(errors.Error):
                await js.stream_info("S")
            assert fake.frames[-1].subject == f"{prefix}.STREAM.INFO.S"


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ("none", "there is no nats context 'none'"),
        (True, "no nats context is selected"),
        ("../x", "no name of a"),
        ("half", "nats context 'half': cert is of no use without key"),
        ("bad", r"nats context 'bad': '.*/nats/context/bad\.json' is no JSON object \(line 1, column"),
    ],
)
async def test_a_context_that_cannot_be_used_is_said_so_before_any_dial(
    context: str | bool, said: str, write: Write, tmp_path: Path
) -> None:
    write("half", url="nats://fake", cert="/etc/me.pem")
    (tmp_path / "config" / "nats" / "context" / "bad.json").write_text('{"password": "s3cret",}')
    fake = FakeServer()
    error = await refused(ValueError, said, context, dial=fake.dial)
    assert "s3cret" not in str(error)
    assert fake.dialled == []
