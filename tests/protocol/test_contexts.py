"""Contexts of the nats command line tool: where they lie and what they say (ADR-21)."""

from __future__ import annotations

import contextlib
import json
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats._protocol import contexts
from trionats._protocol.contexts import ContextError

HOME = "/home/me"


def test_contexts_lie_where_the_tool_puts_them() -> None:
    assert contexts.directory({}, HOME) == PurePath("/home/me/.config/nats")
    assert contexts.directory({"XDG_CONFIG_HOME": ""}, HOME) == PurePath("/home/me/.config/nats")
    assert contexts.directory({"XDG_CONFIG_HOME": "/etc/me"}, HOME) == PurePath("/etc/me/nats")
    assert contexts.file_name("prod.eu") == PurePath("context/prod.eu.json")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\\b", "a\nb", "a\0"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ContextError, match="no name of a nats context"):
        contexts.file_name(name)


def test_the_selected_name_stands_alone_in_its_file() -> None:
    assert contexts.selected_name(" prod\n") == "prod"
    with pytest.raises(ContextError, match="no nats context is selected"):
        contexts.selected_name("\n")


def test_every_key_of_the_tool_is_understood() -> None:
    fields = {
        "description": "production",
        "url": "nats://a,nats://b",
        "token": "t0ken",
        "user": "u",
        "password": "s3cret",
        "creds": "~/u.creds",
        "nkey": "/keys/u.nk",
        "cert": "~/c.pem",
        "key": "k.pem",
        "ca": "~",
        "nsc": "",
        "user_jwt": "a.b.c",
        "user_seed": "SU",
        "jetstream_domain": "hub",
        "jetstream_api_prefix": "JS.API",
        "jetstream_event_prefix": "JS.EVENT",
        "inbox_prefix": "_INBOX.me",
        "tls_first": True,
        "color_scheme": "",
        "windows_cert_store": None,
    }
    context = contexts.parse("prod", json.dumps(fields), HOME)
    assert (context.url, context.user, context.password, context.token) == ("nats://a,nats://b", "u", "s3cret", "t0ken")
    assert (context.creds, context.nkey) == ("/home/me/u.creds", "/keys/u.nk")
    assert (context.cert, context.key, context.ca) == ("/home/me/c.pem", "k.pem", "/home/me")
    assert (context.jetstream_domain, context.inbox_prefix, context.tls_first) == ("hub", "_INBOX.me", True)
    assert context.unknown == ("color_scheme", "jetstream_event_prefix")
    assert repr(context) == "<Context 'prod'>"


def test_an_empty_context_says_nothing() -> None:
    assert contexts.parse("x", "{}", HOME) == contexts.Context("x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON object"),
        ('{"password": "s3cret"', "no JSON object"),
        ('["s3cret"]', "no JSON object"),
        ('{"password": 5}', "password is no text"),
        ('{"tls_first": "s3cret"}', "tls_first is neither"),
        ('{"nsc": "nsc://s3cret"}', "nsc: looking credentials up with nsc is not supported"),
        ('{"socks_proxy": "s3cret"}', "SOCKS proxies"),
        ('{"creds": "op://s3cret/x"}', "creds: op:// is not supported"),
        ('{"creds": "nsc://s3cret/x"}', "creds: nsc:// is not supported"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_and_without_values(text: str, said: str) -> None:
    with pytest.raises(ContextError, match=said) as caught:
        contexts.parse("prod", text, HOME)
    assert "'prod'" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value.__context__)


@given(
    st.text() | st.builds(json.dumps, st.dictionaries(st.sampled_from(["url", "creds", "tls_first", "x"]), st.none()))
)
def test_any_text_is_a_context_or_not(text: str) -> None:
    with contextlib.suppress(ContextError):
        contexts.parse("x", text, HOME)
