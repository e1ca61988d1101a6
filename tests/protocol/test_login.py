"""What CONNECT says, when TLS must come first, and what we know of why we were not let in."""

from __future__ import annotations

import base64
import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import errors
from trionats._protocol.addresses import Server, parse_servers
from trionats._protocol.auth.login import LoginOptions, connect_options, encode_signature, must_use_tls, why_refused

SECRET = "s3cr3t"
INFO = {"proto": 1, "headers": True}
OPTIONS = LoginOptions(version="1.2.3")


def jwt(**claims: int) -> str:
    return f"eyJ0.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x"


def one(text: str = "nats://h") -> Server:
    (server,) = parse_servers([text])
    return server


def test_connect_says_what_we_understand_and_what_the_user_wishes() -> None:
    said = {"lang": "python-trio", "version": "1.2.3", "protocol": 1, "headers": True, "no_responders": True}
    said |= {"verbose": False, "pedantic": False, "tls_required": False, "echo": True}
    assert connect_options(INFO, OPTIONS, one()) == said
    options = replace(OPTIONS, name="worker", no_echo=True, verbose=True, pedantic=True)
    wishes = {"name": "worker", "echo": False, "verbose": True, "pedantic": True}
    assert connect_options(INFO, options, one()) == {**said, **wishes}


@pytest.mark.parametrize(("info", "expected"), [({"headers": False}, False), ({"headers": True}, True), ({}, True)])
def test_headers_are_not_asked_of_a_server_that_has_none(info: dict[str, Any], expected: bool) -> None:
    fields = connect_options(info, OPTIONS, one())
    assert fields["headers"] is fields["no_responders"] is expected


def test_no_echo_needs_a_server_that_knows_it() -> None:
    assert connect_options({"proto": 0}, OPTIONS, one())["echo"]
    assert not connect_options({}, replace(OPTIONS, no_echo=True), one())["echo"]
    with pytest.raises(errors.Error, match=r"nats://h:4222 is too old for no_echo"):
        connect_options({"proto": 0}, replace(OPTIONS, no_echo=True), one(f"{SECRET}@h"))


SIGNED = {"jwt": "j", "sig": "x"}
ALL = {"user": "u", "password": "p", "token": "t"}


@pytest.mark.parametrize(
    ("url", "given", "expected"),
    [
        ("nats://h", {}, {}),
        ("nats://h", {"user": "u", "password": "p"}, {"user": "u", "pass": "p"}),
        ("nats://h", {"user": "u"}, {"user": "u"}),
        ("nats://h", {"user": "u", "password": ""}, {"user": "u", "pass": ""}),
        ("nats://h", {"token": "t"}, {"auth_token": "t"}),
        ("nats://h", ALL, {"user": "u", "pass": "p", "auth_token": "t"}),
        ("nats://v:q@h", {}, {"user": "v", "pass": "q"}),
        ("nats://v:@h", {}, {"user": "v", "pass": ""}),
        ("nats://s@h", {}, {"auth_token": "s"}),
        # what the URL says wins, as a whole
        ("nats://v:q@h", ALL, {"user": "v", "pass": "q"}),
        ("nats://s@h", ALL, {"auth_token": "s"}),
        # an auth callout may want to see all of them
        ("nats://h", {**SIGNED, "nkey": "U1", "token": "t"}, {**SIGNED, "nkey": "U1", "auth_token": "t"}),
        ("nats://v:q@h", SIGNED, {"user": "v", "pass": "q", **SIGNED}),
    ],
)
def test_which_credentials_go_along(url: str, given: dict[str, Any], expected: dict[str, str]) -> None:
    fields = connect_options(INFO, replace(OPTIONS, **given), one(url))
    found = {key: fields[key] for key in ("user", "pass", "auth_token", "nkey", "jwt", "sig") if key in fields}
    assert found == expected


@given(st.binary())
def test_a_signature_is_base64url_without_padding(signature: bytes) -> None:
    text = encode_signature(signature)
    assert not set(text) & set("=+/\n")
    assert base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) == signature


REQUIRED, AVAILABLE = {"tls_required": True}, {"tls_available": True}


@pytest.mark.parametrize(
    ("url", "info", "tls", "insists", "comes_next"),
    [
        ("nats://h", {}, False, False, False),
        ("nats://h", AVAILABLE, False, False, False),
        ("nats://h", REQUIRED, False, True, True),
        ("nats://h", REQUIRED, True, True, True),
        ("nats://h", AVAILABLE, True, True, True),
        ("nats://h", {}, True, True, None),
        ("tls://h", REQUIRED, False, True, True),
        ("tls://h", AVAILABLE, False, True, True),
        ("tls://h", {}, False, True, None),
        ("wss://h", {}, False, True, None),
        ("ws://h", {}, False, False, False),
        ("ws://h", REQUIRED, False, True, False),
    ],
)
def test_connect_says_whether_we_insist_on_tls_and_it_comes_next_where_it_can(
    url: str, info: dict[str, Any], tls: bool, insists: bool, comes_next: bool | None
) -> None:
    options, server = replace(OPTIONS, tls=tls), one(url)
    assert connect_options(info, options, server)["tls_required"] is insists
    if comes_next is not None:  # else it is refused, see below
        assert must_use_tls(info, options, server) is comes_next
    assert must_use_tls(info, options, server, secured=True) is False


@pytest.mark.parametrize(
    ("url", "tls"),
    [("tls://u:s3cr3t@h", False), ("nats://s3cr3t@h", True), ("wss://h/s3cr3t", False), ("ws://u:s3cr3t@h", True)],
)
@pytest.mark.parametrize("info", [{}, {"tls_required": False, "tls_available": False}])
def test_tls_wanted_and_not_offered_is_an_error(url: str, tls: bool, info: dict[str, Any]) -> None:
    server, options = one(url), replace(OPTIONS, tls=tls, password=SECRET)
    with pytest.raises(errors.SecureConnWantedError, match=f"TLS is wanted and server {server}") as caught:
        must_use_tls(info, options, server)
    assert SECRET not in str(caught.value)
    assert must_use_tls(info, options, server, secured=True) is False


JWT = "; the JWT in 'me.creds'"


@pytest.mark.parametrize(
    ("fields", "url", "said"),
    [
        ({}, "nats://h", "; no credentials were given"),
        ({"user": "", "password": "", "name": "me"}, "nats://h", "; no credentials were given"),
        ({}, "nats://token@h", ""),
        ({"user": "u"}, "nats://h", ""),
        ({"sig": "x", "nkey": "U"}, "nats://h", ""),
        ({"token": "t", "jwt": jwt(exp=1_700_000_000)}, "nats://h", f"{JWT} expired at 2023-11-14 22:13:20 UTC"),
        ({"jwt": jwt(exp=1_700_000_001)}, "nats://h", ""),
        ({"jwt": jwt(nbf=1_700_000_001)}, "nats://h", f"{JWT} is valid only from 2023-11-14 22:13:21 UTC"),
        ({"jwt": jwt(nbf=1_700_000_000)}, "nats://h", ""),
        ({"jwt": "s3cret"}, "nats://h", ""),
    ],
)
def test_what_we_know_of_a_refusal(fields: dict[str, Any], url: str, said: str) -> None:
    login = replace(OPTIONS, jwt_source="in 'me.creds'", **fields)
    assert why_refused(login, one(url), 1_700_000_000.0) == said


SHOWN = ("version", "name", "no_echo", "verbose", "pedantic", "tls", "jwt_source")
SECRETS = ("user", "password", "token", "nkey", "jwt", "sig")


def test_no_secret_in_what_the_options_show() -> None:
    # a new field must be put in one list or the other
    assert {field.name for field in fields(LoginOptions)} == {*SECRETS, *SHOWN}
    secrets: dict[str, Any] = {name: SECRET + name for name in SECRETS}
    options = replace(OPTIONS, name="worker", **secrets)
    for text in (repr(options), str(options), f"{options}", repr([options])):
        assert SECRET not in text
        assert "name='worker'" in text
        assert all(f"{name}=..." in text for name in SECRETS)
    assert "..." not in repr(OPTIONS)
    assert SECRET in json.dumps(connect_options(INFO, options, one()))
