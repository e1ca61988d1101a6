"""No complaint shows a secret: wherever it was put, in whatever form, and whatever goes wrong.

Three tables: secrets that stand where they belong while something else fails, secrets in the wrong place, and callbacks that
fail with the secret in their hands. Of each complaint all is looked at that `tests.leaks.shown` finds, and the log.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections import UserString
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
import trio.testing

import trionats
from tests.fakes import FakeServer
from tests.keys import House, Key
from tests.leaks import leaks, shown, told_by
from tests.worlds import connected, watched
from trionats import bridge, errors, events

HOUSE = House()
USER = HOUSE.user()
SEED, JWT, CREDS = USER.key.seed, USER.jwt, USER.creds
WORD = "hunter2-7f3a"
PASSWORD = "hunter2-p@ss:w0rd/7f3a%"
ENCODED = base64.b64encode(CREDS.encode()).decode()

Options = dict[str, Any]
Place = tuple[str, Options, list[str]]


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files in the task itself: no clock of Trio's waits for a thread."""

    async def run_sync(function: Callable[..., object], *arguments: object, **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Options]:
    """Write a context of the nats tool; gives the option that uses it."""
    directory = tmp_path / "config" / "nats" / "context"
    directory.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(text: str = "", **fields: object) -> Options:
        (directory / "c.json").write_text(text or json.dumps(fields))
        return {"context": "c"}

    return write


def login(secret: object) -> Any:  # noqa: ANN401 - a callback of any kind
    """Give a callback that works."""
    return lambda *_: secret


def quoted(text: str) -> str:
    return quote(text, safe="")


async def complaint(*servers: Any, opener: Any = trionats.open_client, **options: Any) -> Exception:  # noqa: ANN401 - whatever is given
    """Say what is said where no client can be opened."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each has its own
            async with opener(nursery, *servers, **options):
                pytest.fail("it let us in")
    return caught.value


def hidden(*secrets: str, from_: BaseException | list[tuple[str, str]]) -> bool:
    """Say whether an exception, or what was told, shows none of these."""
    told = from_ if isinstance(from_, list) else list(shown(from_))
    found = [leak for secret in secrets for leak in leaks(secret, *told)]
    assert found == []
    return True


@dataclass
class Kit:
    """Files with secrets, and how to write a context."""

    both: Path
    jwt: Path
    seed: Path
    text: Path
    context: Callable[..., Options]


@pytest.fixture
def kit(tmp_path: Path, context: Callable[..., Options], monkeypatch: pytest.MonkeyPatch) -> Kit:
    monkeypatch.setenv("CREDS", CREDS)
    monkeypatch.setenv("WORD", PASSWORD)
    made = Kit(tmp_path / "me.creds", tmp_path / "me.jwt", tmp_path / "me.nk", tmp_path / "word.txt", context)
    for path, content in ((made.both, CREDS), (made.jwt, JWT), (made.seed, SEED), (made.text, PASSWORD)):
        path.write_text(content)
    return made


async def later() -> str:
    await trio.lowlevel.checkpoint()
    return PASSWORD


def at(*secrets: str, url: str = "nats://fake", **options: Any) -> Callable[[Kit], Place]:  # noqa: ANN401 - any option
    """Give a place that needs none of the files."""
    return lambda _: (url, options, list(secrets))


KEYS = (SEED, JWT)
URL, WS = quoted(PASSWORD), "ws://fake"

#: Every place where a secret belongs: the URL, the options, and the secrets.
PLACES: dict[str, Callable[[Kit], Place]] = {
    "password": at(PASSWORD, user="u", password=PASSWORD),
    "password callback": at(PASSWORD, user="u", password=login(PASSWORD)),
    "token": at(PASSWORD, token=PASSWORD),
    "token callback": at(PASSWORD, token=later),
    "user as token": at(PASSWORD, user=PASSWORD, password=PASSWORD),
    "password in URL": at(PASSWORD, url=f"nats://u:{URL}@fake"),
    "token in URL": at(PASSWORD, url=f"nats://{URL}@fake"),
    "seed": at(SEED, nkeys_seed_str=SEED),
    "seed file": lambda kit: ("nats://fake", {"nkeys_seed": kit.seed}, [SEED]),
    "credentials file": lambda kit: ("nats://fake", {"user_credentials": str(kit.both)}, [*KEYS]),
    "JWT and seed files": lambda kit: ("nats://fake", {"user_credentials": (kit.jwt, kit.seed)}, [*KEYS]),
    "credentials": at(*KEYS, user_credentials=CREDS.encode()),
    "credentials as UserString": at(*KEYS, user_credentials=UserString(CREDS)),
    "credentials callback": at(*KEYS, user_credentials=login(CREDS.encode())),
    "JWT callback": at(*KEYS, user_jwt_cb=login(JWT), nkeys_seed_str=SEED),
    "JWT and signature": at(JWT, user_jwt_cb=login(JWT), signature_cb=lambda nonce: USER.key.sign(nonce.encode())),
    "context: password": lambda kit: ("", kit.context(user="u", password=PASSWORD), [PASSWORD]),
    "context: token": lambda kit: ("", kit.context(token=PASSWORD), [PASSWORD]),
    "context: URL": lambda kit: ("", kit.context(url=f"nats://u:{URL}@elsewhere"), [PASSWORD]),
    "context: creds": lambda kit: ("", kit.context(creds=str(kit.both)), [*KEYS]),
    "context: creds, data": lambda kit: ("", kit.context(creds=f"data:;base64,{ENCODED}"), [*KEYS, ENCODED]),
    "context: creds, env": lambda kit: ("", kit.context(creds="env://CREDS"), [*KEYS]),
    "context: JWT and seed": lambda kit: ("", kit.context(user_jwt=JWT, user_seed=SEED), [*KEYS]),
    "context: token, env": lambda kit: ("", kit.context(token="env://WORD"), [PASSWORD]),
    "context: token, file": lambda kit: ("", kit.context(token=f"file://{kit.text}"), [PASSWORD]),
    "WebSocket header": at(PASSWORD, url=WS, ws_connection_headers={"Authorization": PASSWORD}),
    "WebSocket header callback": at(PASSWORD, url=WS, ws_connection_headers=login({"Authorization": [PASSWORD]})),
    "WebSocket query": at(PASSWORD, url=f"ws://fake/x?token={URL}"),
}


Fault = Callable[[FakeServer, Options], None]


def server_has(**attributes: Any) -> Fault:  # noqa: ANN401 - those of a `FakeServer`
    return lambda server, _: vars(server).update(attributes)


def options_have(**given: Any) -> Fault:  # noqa: ANN401 - any option
    return lambda _, options: options.update(given)


def babble(server: FakeServer, options: Options) -> None:
    def heard(fields: dict[str, Any]) -> None:
        for name in ("jwt", "sig", "auth_token", "pass"):
            server.link.write(str(fields.get(name, "")).encode())
        server.link.write(b"\r\n")

    server.authorize = heard


def broken(server: FakeServer, options: Options) -> None:
    async def dial(host: str, port: int) -> trio.abc.Stream:
        stream = await server.dial(host, port)
        server.link.cut_after(sent=30)
        return stream

    options["dial"] = dial


async def dial_with_a_bug(host: str, port: int) -> trio.abc.Stream:
    await trio.lowlevel.checkpoint()
    raise KeyError(host)


async def dial_a_proxy(host: str, port: int) -> trio.abc.Stream:
    """Reach a proxy that quotes what it did not like."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def quote_it() -> None:
        asked = bytes(await theirs.receive_some()).replace(b"\r\n", b" ")
        await theirs.send_all(asked + b"\r\nContent-Length: 0\r\n\r\n")

    await theirs.send_all(b"HTTP/1.1 401 ")
    ours.send_stream.send_all_hook = quote_it
    return ours


REFUSED = "Authorization Violation"
FAULTS = {
    "refuses": server_has(authorize=lambda _: REFUSED),
    "echoes": server_has(authorize=lambda fields: f"Bad Luck {json.dumps(fields)}"),
    "echoes much": server_has(authorize=lambda fields: "x" * 490 + json.dumps(fields)),
    "babbles": babble,
    "is unreachable": server_has(accepting=False),
    "breaks": broken,
    "is silent": server_has(mute={"CONNECT", "PING"}),
    "has no TLS": options_have(tls=True),
    "dial has a bug": options_have(dial=dial_with_a_bug),
    "is no WebSocket": options_have(dial=dial_a_proxy),
    "a bad option": options_have(reconnect_time_wait="2"),
    "an unknown option": options_have(timeout=2),
    "a bad prefix": options_have(inbox_prefix="a b"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", PLACES)
async def test_a_secret_in_its_place_is_in_no_complaint(
    place: str, fault: str, kit: Kit, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.DEBUG)
    url, options, secrets = PLACES[place](kit)
    server = FakeServer(info={"nonce": "n0nce"})
    options = {**options, "dial": server.dial}
    FAULTS[fault](server, options)
    error = await complaint(*([url] if url else []), **options)
    assert hidden(*secrets, from_=[*shown(error), *logged(caplog)])


@pytest.mark.parametrize("fault", ["refuses", "echoes much", "babbles", "breaks"])
@pytest.mark.parametrize("place", [place for place in PLACES if "WebSocket" not in place])
async def test_nor_in_what_is_told_of_a_reconnect(
    place: str, fault: str, kit: Kit, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.DEBUG)
    url, options, secrets = PLACES[place](kit)
    server = FakeServer(info={"nonce": "n0nce"})
    changed: Options = {"dial": server.dial}

    async def dial(host: str, port: int) -> trio.abc.Stream:
        stream = await changed["dial"](host, port)
        assert isinstance(stream, trio.abc.Stream)
        return stream

    options = {**options, "dial": dial, "max_reconnect_attempts": 2}
    urls = [url] if url else []
    told: list[tuple[str, str]] = []
    async with (
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, *urls, **options) as nc,
        trionats.open_events(nursery, nc) as rx,
    ):
        told += told_by(nc)
        FAULTS[fault](server, changed)
        server.inject(b"-ERR 'Bad Luck " + json.dumps(server.link.options).encode() + b"'\r\n")
        server.cut()
        while True:
            try:
                event = await rx.receive()
            except errors.Error as lost:
                told += shown(lost)
                break
            told.append(("event", repr(event)))
            for error in (getattr(event, name, None) for name in ("reason", "error")):
                if isinstance(error, BaseException):
                    told += shown(error)
        with pytest.raises(errors.ConnectionClosedError) as caught:
            await nc.publish("a")
        told += shown(caught.value)
    assert hidden(*secrets, from_=[*told, *logged(caplog)])


def logged(caplog: pytest.LogCaptureFixture) -> Iterator[tuple[str, str]]:
    for record in caplog.records:
        yield "log", record.getMessage()
        if record.exc_info and record.exc_info[1]:
            yield from shown(record.exc_info[1])


MISPLACED = {
    "a JWT": JWT,
    "half a JWT": JWT[:60],
    "a seed": SEED,
    "a mistyped seed": SEED[:-1],
    "another seed": Key("account").seed,
    "credentials": CREDS,
    "credentials in base64": ENCODED,
    "a reference": f"data:;base64,{ENCODED}",
    "a word": WORD,
}


WRONG: dict[str, Callable[[str], tuple[object, Options]]] = {
    "credentials path": lambda secret: ((), {"user_credentials": secret}),
    "credentials path object": lambda secret: ((), {"user_credentials": Path(secret)}),
    "credentials path callback": lambda secret: ((), {"user_credentials": login(secret)}),
    "credentials path object callback": lambda secret: ((), {"user_credentials": login(Path(secret))}),
    "JWT path": lambda secret: ((), {"user_credentials": (secret, "/no/file")}),
    "seed path of two": lambda secret: ((), {"user_credentials": (Path(__file__), secret)}),
    "three paths": lambda secret: ((), {"user_credentials": (secret, secret, secret)}),
    "credentials content": lambda secret: ((), {"user_credentials": f"{secret}?".encode()}),
    "credentials of no type": lambda secret: ((), {"user_credentials": {"value": secret}}),
    "seed path": lambda secret: ((), {"nkeys_seed": secret}),
    "seed path object": lambda secret: ((), {"nkeys_seed": Path(secret)}),
    "seed": lambda secret: ((), {"nkeys_seed_str": f"{secret}?"}),
    "seed as bytes": lambda secret: ((), {"nkeys_seed_str": secret.encode()}),
    "seed and two signers": lambda secret: ((), {"nkeys_seed_str": secret, "nkeys_seed": secret}),
    "JWT": lambda secret: ((), {"user_jwt_cb": login(f"{secret}?")}),
    "JWT of no type": lambda secret: ((), {"user_jwt_cb": login([secret])}),
    "signature": lambda secret: ((), {"nkey": USER.key.public, "signature_cb": login(secret)}),
    "public key alone": lambda secret: ((), {"nkey": secret}),
    "password of no type": lambda secret: ((), {"user": "u", "password": {"value": secret}}),
    "token of no type": lambda secret: ((), {"token": login({"value": secret})}),
    "header name": lambda secret: (WS, {"ws_connection_headers": {"A": f"{secret}\n"}}),
    "header line for a name": lambda secret: (WS, {"ws_connection_headers": {f"Authorization: {secret}": ""}}),
    "value for a header's name": lambda secret: (WS, {"ws_connection_headers": {f"{secret} ": "x"}}),
    "headers of no type": lambda secret: (WS, {"ws_connection_headers": [secret]}),
    "context's name": lambda secret: ((), {"context": f"{secret}/x"}),
    "context's content": lambda secret: ((), {"context": json.dumps({"url": "nats://x/", "password": secret})}),
    "context of no type": lambda secret: ((), {"context": [secret]}),
    "URL with a port for a password": lambda secret: (f"nats://u:{quoted(secret)}", {}),
    "URL with a bad port": lambda secret: (f"nats://u:{quoted(secret)}@h:x", {}),
    "URL with a bad path": lambda secret: (f"nats://u:{quoted(secret)}@h/x", {}),
    "URL with a bad scheme": lambda secret: (f"http://u:{quoted(secret)}@h", {}),
    "URL whose userinfo is not encoded": lambda secret: (f"nats://u:{secret}/@h", {}),
    "servers of no type": lambda secret: ({"value": secret}, {}),
    "a server of no type": lambda secret: (["nats://h", secret.encode()], {}),
    "servers mixed": lambda secret: ([f"nats://u:{quoted(secret)}@h", f"ws://{quoted(secret)}@i"], {}),
    "TLS context": lambda secret: ("tls://fake", {"tls": login(secret)}),
}


@pytest.mark.parametrize("secret", MISPLACED.values(), ids=MISPLACED)
@pytest.mark.parametrize("where", WRONG)
async def test_a_secret_in_the_wrong_place_is_in_no_complaint(
    where: str, secret: str, context: Callable[..., Options], autojump_clock: trio.testing.MockClock
) -> None:
    servers, options = WRONG[where](secret)
    server = FakeServer(info={"nonce": "n0nce", "tls_required": "tls" in options}, authorize=lambda _: REFUSED)
    error = await complaint(servers or "nats://fake", dial=server.dial, **options)
    assert not isinstance(error, (AssertionError, AttributeError))
    # A word may be the name of a context.
    assert (where, secret) == ("context's name", WORD) or hidden(secret, from_=error)


@pytest.mark.parametrize(
    "secret", [secret for name, secret in MISPLACED.items() if name not in {"a word", "a reference"}]
)
@pytest.mark.parametrize("form", ["{}", "nats://{}", "tls://{}:4222", "ws://{}/x"])
async def test_a_key_in_the_place_of_a_server_is_in_no_complaint(secret: str, form: str) -> None:
    error = await complaint(form.format(secret))
    assert isinstance(error, ValueError)
    assert "server" in str(error)
    assert hidden(secret, from_=error)


FIELDS = [
    *("url", "token", "user", "password", "creds", "nkey", "user_jwt", "user_seed", "cert", "key", "ca", "tls_first"),
    *("nsc", "inbox_prefix", "jetstream_domain", "socks_proxy", "description"),
]


@pytest.mark.parametrize("secret", [secret for name, secret in MISPLACED.items() if name != "credentials"])
@pytest.mark.parametrize("option", ["user_credentials", "nkeys_seed", "JWT of two files", "seed of two files"])
async def test_what_stands_in_a_file_is_in_no_complaint_about_it(option: str, secret: str, tmp_path: Path) -> None:
    server = FakeServer(info={"nonce": "n0nce"})
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(CREDS)
    bad.write_bytes(b"\xff\xfe" + secret[:-1].encode() + b"\n")
    files = {"JWT of two files": (bad, good), "seed of two files": (good, bad)}
    options: Options = {"user_credentials": files[option]} if option in files else {option: bad}
    error = await complaint(dial=server.dial, **options)
    assert isinstance(error, errors.InvalidUserCredentialsError)
    assert str(bad) in str(error)
    assert hidden(secret[:-1], from_=error)


@pytest.mark.parametrize("secret", MISPLACED.values(), ids=MISPLACED)
@pytest.mark.parametrize(
    "prefix", ["", "op://", "nsc://", "env://", "env:", "data:", "data:;base64,", "file://", "file:", "/x/$"]
)
async def test_a_secret_in_any_field_of_a_context_is_in_no_complaint(
    prefix: str, secret: str, context: Callable[..., Options], autojump_clock: trio.testing.MockClock
) -> None:
    server = FakeServer(info={"nonce": "n0nce", "tls_required": True}, authorize=lambda _: REFUSED)
    for field in FIELDS:
        fields: dict[str, object] = {"user": "u", "url": "nats://fake", field: f"{prefix}{secret}"}
        text = json.dumps(fields)
        options = context(text[:-1] if field == "description" else text)
        error = await complaint(dial=server.dial, **options)
        # Subjects and hosts are shown, where they may be some.
        if field not in {"inbox_prefix", "jetstream_domain"} and (field, secret) != ("url", WORD):
            assert hidden(secret, from_=error), field


def raising(make: Callable[[], BaseException]) -> Callable[..., Any]:
    def callback(*_: object) -> Any:  # noqa: ANN401 - whatever the option wants
        password = PASSWORD
        try:
            raise KeyError(password)
        except KeyError as error:
            raise make() from error

    return callback


FAILURES: dict[str, Callable[[], BaseException]] = {
    "its words": lambda: ValueError(f"wrong password {PASSWORD}"),
    "a file name": lambda: OSError(2, "No such file", f"{PASSWORD}{SEED}"),
    "undecodable": lambda: UnicodeDecodeError("ascii", PASSWORD.encode(), 0, 1, PASSWORD),
    "a document": lambda: json.JSONDecodeError("no JSON", PASSWORD, 0),
    "our own": lambda: errors.InvalidUserCredentialsError(PASSWORD),
    "a group": lambda: ExceptionGroup(PASSWORD, [ValueError(PASSWORD)]),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(
    "option",
    ["user", "password", "token", "user_credentials", "user_jwt_cb", "signature_cb", "tls", "ws_connection_headers"],
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_a_callback_fails_with_is_its_own_business(
    option: str, failure: str, asynchronous: bool, autojump_clock: trio.testing.MockClock
) -> None:
    callback = raising(FAILURES[failure])

    async def later(*arguments: object) -> object:
        await trio.lowlevel.checkpoint()
        return callback(*arguments)

    server = FakeServer(info={"nonce": "n0nce", "tls_required": option == "tls"})
    url = "ws://fake" if option == "ws_connection_headers" else "nats://fake"
    options: Options = {option: later if asynchronous else callback}
    error = await complaint(url, dial=server.dial, **options)
    assert isinstance(error, errors.Error)
    assert hidden(PASSWORD, SEED, from_=error)
    if (option, failure) != ("tls", "a file name"):
        # What can be said: which option, what class of exception, and where.
        line = callback.__code__.co_firstlineno + 5
        assert f"({FAILURES[failure]().__class__.__name__} at test_secrets.py:{line})" in str(error)
    assert option in str(error) or option == "tls"


async def test_the_exception_of_a_dial_is_the_users_own_and_is_told_whole() -> None:
    error = await complaint("nats://fake", dial=dial_with_a_bug)
    assert isinstance(error, errors.NoServersError)
    assert "dial failed: KeyError: 'fake'" in str(error)
    bug = error.__cause__.__cause__ if error.__cause__ else None
    assert isinstance(bug, KeyError)
    assert bug.__traceback__ is not None


@pytest.mark.parametrize("secret", MISPLACED.values(), ids=MISPLACED)
def test_issuing_a_jwt_shows_no_seed(secret: str) -> None:
    account, user = Key("account"), Key()
    given_seeds: list[Any] = [f"{secret}?", SEED, secret.encode()]
    for arguments in (
        *((given, account.public, user.public) for given in given_seeds),
        *((secret, secret, user.public), (account.seed, account.public, secret), (account.seed, secret, secret)),
    ):
        with pytest.raises((ValueError, errors.Error)) as caught:
            trionats.issue_user_jwt(*arguments)
        assert hidden(secret, account.seed, SEED, from_=caught.value)


async def test_other_servers_that_are_none_are_not_shown() -> None:
    async with connected(FakeServer()) as nc:
        for servers in (f"nats://u:{URL}@h:x", [PASSWORD.encode()], f"x://{PASSWORD}", JWT):
            with pytest.raises((TypeError, ValueError)) as caught:
                nc.set_servers(servers)  # type: ignore[arg-type,unused-ignore]
            assert hidden(PASSWORD, JWT, from_=caught.value)


async def test_a_call_of_another_form_or_with_a_closed_nursery_shows_no_secret() -> None:
    async with trio.open_nursery() as closed:
        pass
    calls: list[tuple[type[Exception], str, tuple[Any, ...]]] = [
        *((TypeError, ".", call) for call in ((), ("too", "many", "arguments"), (5, f"nats://u:{WORD}@h"))),
        (RuntimeError, "the nursery is closed", (closed, f"nats://u:{WORD}@h")),
    ]
    for kind, said, arguments in calls:
        with pytest.raises(kind, match=said) as caught:
            async with trionats.open_client(*arguments, password=WORD, token=WORD):
                pytest.fail("it let us in")
        assert hidden(WORD, from_=caught.value)


@pytest.mark.parametrize(
    ("servers", "options"),
    [
        (f"nats://u:{WORD}@127.0.0.1:1", {}),
        ("nats://127.0.0.1:1", {"user": "u", "password": WORD}),
        (f"nats://127.0.0.1:{WORD}", {}),
        ("nats://127.0.0.1:1", {"token": WORD, "no_such_option": 1}),
        ([f"nats://{WORD}@127.0.0.1:1", 5], {}),
        ({"servers": WORD}, {}),
        (5, {"password": WORD}),
    ],
)
async def test_the_bridge_shows_no_secret(servers: object, options: Options) -> None:
    quick = {"max_reconnect_attempts": 1, "reconnect_time_wait": 0.01}
    assert hidden(WORD, from_=await complaint(servers, opener=bridge.open_nats_py, **quick, **options))


@pytest.mark.parametrize(
    ("servers", "said"), [(5, "not int"), (None, "not NoneType"), (b"h", "not bytes"), (["h", 5], "server 2 of 2")]
)
async def test_the_bridge_says_what_is_wrong_with_servers(servers: object, said: str) -> None:
    error = await complaint(servers, opener=bridge.open_nats_py)
    assert isinstance(error, TypeError)
    assert said in str(error)


@pytest.mark.parametrize("context", [5, 1.5, [], b"prod", {"url": "x"}])
async def test_a_context_is_a_name_or_a_boolean(context: Any) -> None:  # noqa: ANN401 - wrong on purpose
    error = await complaint(context=context)
    assert isinstance(error, TypeError)
    assert re.search(f"context must be .*, not {type(context).__name__}", str(error))


async def test_an_event_of_a_lost_connection_has_no_frames_of_ours() -> None:
    async with watched() as (server, _, rx):
        server.accepting = False
        server.cut("reset")
        lost = await rx.receive()
        assert isinstance(lost, events.Disconnected)
        assert lost.reason.__cause__ is lost.reason.__context__ is None
