"""`open_client(context=...)`: contexts of the nats command line tool, at real servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

import trionats
from tests.certificates import Authority
from tests.fakes import FakeServer
from tests.keys import House, Key
from trionats import errors
from trionats.testing import open_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


async def test_a_context_by_name_and_the_selected_one(write: Write, nursery: trio.Nursery) -> None:
    async with open_server("authorization { user: u, password: s3cret }") as server:
        write("prod", url=server.url, user="u", password="s3cret", select=True)
        for context in ("prod", True, ""):
            async with trionats.open_client(nursery, context=context) as nc:
                assert nc.connected_url == server.url
        async with trionats.open_client(nursery, server.url, user="u", password="s3cret", context=False) as nc:
            await nc.flush()


async def test_what_the_caller_says_wins(write: Write, nursery: trio.Nursery) -> None:
    fake = FakeServer(info={"nonce": "n"})
    write("prod", url="nats://elsewhere:1", user="u", password="wrong", token="t", inbox_prefix="_INBOX.ctx")
    async with trionats.open_client(nursery, "nats://here:2", context="prod", dial=fake.dial, user="me") as nc:
        assert fake.dialled == [("here", 2)]
        assert fake.link.options["user"] == "me"
        assert not {"pass", "auth_token"} & set(fake.link.options)
        assert nc.new_inbox().startswith("_INBOX.ctx.")
    async with trionats.open_client(nursery, context="prod", dial=fake.dial, inbox_prefix="_mine") as nc:
        assert fake.dialled[-1] == ("elsewhere", 1)
        assert fake.link.options["pass"] == "wrong"
        assert nc.new_inbox().startswith("_mine.")
    # Also where it is what would be meant without saying it.
    default = "nats://127.0.0.1:4222"
    async with trionats.open_client(nursery, str(default.encode(), "ascii"), context="prod", dial=fake.dial):
        assert fake.dialled[-1] == ("127.0.0.1", 4222)


async def test_credentials_of_a_context(write: Write, tmp_path: Path, nursery: trio.Nursery) -> None:
    house = House()
    user, key = house.user(), Key()
    creds, seed = tmp_path / "u.creds", tmp_path / "u.nk"
    creds.write_text(user.creds)
    seed.write_text(key.seed)
    async with open_server(house.config) as server:
        write("creds", url=server.url, creds=creds)
        write("jwt", url=server.url, user_jwt=user.jwt, user_seed=user.key.seed)
        write("stranger", url=server.url, creds=seed)
        for context in ("creds", "jwt"):
            async with trionats.open_client(nursery, context=context) as nc:
                await nc.flush()
        with pytest.raises(errors.InvalidUserCredentialsError, match="user_credentials: no user JWT found"):
            async with trionats.open_client(nursery, context="stranger"):
                pytest.fail("it let us in")
        async with trionats.open_client(nursery, context="stranger", user_credentials=user.creds.encode()) as nc:
            await nc.flush()
    async with open_server(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as server:
        write("nkey", url=server.url, nkey=seed)
        async with trionats.open_client(nursery, context="nkey") as nc:
            await nc.flush()


@pytest.mark.parametrize("first", [False, True])
async def test_certificates_of_a_context(first: bool, write: Write, tmp_path: Path, nursery: trio.Nursery) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.files()
    more = f"verify: true, handshake_first: {str(first).lower()}"
    async with open_server(authority.config("127.0.0.1", more=more)) as server:
        where = server.url.replace("tls://", "nats://")
        write("tls", url=where, ca=authority.file, cert=certificate, key=key, tls_first=first)
        async with trionats.open_client(nursery, context="tls") as nc:
            assert nc.tls is not None
        write("gone", url=where, ca=tmp_path / "none.pem", tls_first=first)
        with pytest.raises(errors.SecureConnFailedError, match="no TLS context: No such file or directory"):
            async with trionats.open_client(nursery, context="gone"):
                pytest.fail("it let us in")


async def test_jetstream_goes_where_the_context_says(write: Write, nursery: trio.Nursery) -> None:
    fake = FakeServer()
    write("hub", url="nats://fake", jetstream_domain="hub")
    async with trionats.open_client(nursery, context="hub", dial=fake.dial) as nc:
        for js, prefix in ((nc.jetstream(), "$JS.hub.API"), (nc.jetstream(domain="x"), "$JS.x.API")):
            with pytest.raises(errors.Error):
                await js.stream_info("S")
            assert fake.frames[-1].subject == f"{prefix}.STREAM.INFO.S"


@pytest.mark.parametrize(
    ("context", "said"),
    [("none", "there is no nats context 'none'"), (True, "no nats context is selected"), ("../x", "no name of a")],
)
async def test_a_context_that_cannot_be_found_is_said_so_before_any_dial(
    context: Any,  # noqa: ANN401 - parametrised
    said: str,
    write: Write,
    nursery: trio.Nursery,
) -> None:
    fake = FakeServer()
    with pytest.raises(ValueError, match=said):
        async with trionats.open_client(nursery, context=context, dial=fake.dial):
            pytest.fail("it let us in")
    assert fake.dialled == []


@pytest.mark.parametrize("context", [None, False])
async def test_no_context_is_none(context: bool | None) -> None:
    server = FakeServer()
    async with trio.open_nursery() as nursery:
        async with trionats.open_client(nursery, dial=server.dial, context=context) as nc:  # type: ignore[arg-type,unused-ignore]
            assert nc.is_connected
