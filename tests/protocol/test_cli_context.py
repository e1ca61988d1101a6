"""Contexts of the nats command line tool: where they lie and what they say (ADR-21)."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.keys import House, Key
from trionats._protocol.auth import cli_context as contexts
from trionats._protocol.auth.cli_context import ContextError

HOME = "/home/me"
USER = House().user()
KEY = USER.key


def test_contexts_lie_where_the_tool_puts_them() -> None:
    assert contexts.directory({}, HOME) == PurePath("/home/me/.config/nats")
    assert contexts.directory({"XDG_CONFIG_HOME": ""}, HOME) == PurePath("/home/me/.config/nats")
    assert contexts.directory({"XDG_CONFIG_HOME": "/etc/me"}, HOME) == PurePath("/etc/me/nats")
    assert contexts.file_name("prod.eu") == PurePath("context/prod.eu.json")
    # The selected name stands alone in its file.
    assert contexts.selected_name(" prod\n") == "prod"
    with pytest.raises(ContextError, match="no nats context is selected"):
        contexts.selected_name("\n")


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", "a\\b", "a\nb", "a\0", KEY.seed, USER.jwt, USER.creds, '{"password": "s3cret/x"}']
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ContextError, match="no name of a nats context") as caught:
        contexts.file_name(name)
    assert len(str(caught.value)) < 50


def parsed(fields: object, **environment: str) -> contexts.Context:
    text = fields if isinstance(fields, str) else json.dumps(fields)
    return contexts.parse("prod", text, contexts.Surroundings(HOME, environment), file="'/c/prod.json'")


def refusal(fields: object, **environment: str) -> str:
    """Refuse a context, naming it and showing nothing that is called s3cret, or holds a key."""
    with pytest.raises(ContextError) as caught:
        parsed(fields, **environment)
    text = str(caught.value)
    assert text.startswith("nats context 'prod': ")
    for secret in ("s3cret", KEY.seed, USER.jwt):
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode() not in text
        assert secret not in repr(caught.value.__context__)
    return text.removeprefix("nats context 'prod': ")


def test_every_key_of_the_tool_is_understood() -> None:
    plain = {"user": "u", "password": "s3cret", "token": "t0ken", "url": "nats://a,nats://b", "key": "k.pem"}
    options = {**plain, "jetstream_domain": "hub", "inbox_prefix": "_INBOX.me", "tls_first": True}
    paths = {"creds": "~/u.creds", "cert": "~/c.pem", "ca": "~"}
    unused = {"description": "production", "jetstream_api_prefix": "JS.API", "windows_cert_store": None}
    unknown = {"color_scheme": "", "jetstream_event_prefix": "JS.EVENT"}
    empty = dict.fromkeys(("nkey", "nsc", "user_jwt", "user_seed"), "")
    context = parsed({**options, **paths, **empty, **unused, **unknown})
    assert {name: getattr(context, name) for name in options} == options
    assert (context.creds, context.cert, context.ca) == ("/home/me/u.creds", "/home/me/c.pem", "/home/me")
    assert context.unknown == ("color_scheme", "jetstream_event_prefix")
    assert repr(context) == "<Context 'prod'>"
    assert parsed({"nkey": "/keys/u.nk"}).nkey == "/keys/u.nk"
    both = parsed({"user_jwt": USER.jwt, "user_seed": KEY.seed})
    assert (both.user_jwt, both.user_seed) == (USER.jwt, KEY.seed)
    assert parsed("{}") == contexts.Context("prod")


# References are resolved as jsm.go's natscontext does it.
PATHS = ("creds", "nkey", "cert", "key", "ca")
SECRETS = ("token", "password", "user_jwt", "user_seed")
UNSET = "an environment variable in it is not set"


def embedded(text: str, head: str = ";base64") -> str:
    return f"data:{head},{base64.b64encode(text.encode()).decode()}"


def fields_of(key: str, value: str) -> dict[str, str]:
    """A context with one field that matters, and what it is of no use without."""
    others = {"password": {"user": "u"}, "cert": {"key": "/k"}, "key": {"cert": "/c"}}
    return {**others.get(key, {}), key: value}


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("/a/b", "/a/b"),
        ("~/b", "/home/me/b"),
        ("~", "/home/me"),
        ("/a/~/b", "/a/~/b"),
        ("~other/b", "~other/b"),
        ("$DIR/b", "/run/b"),
        ("${DIR}/b", "/run/b"),
        ("/x$DIR/$A_1.b", "/x/run/one.b"),
        ("${DIR}b", "/runb"),
        ("$HOMELY/b", "/home/me/c/b"),
        ("/a/b$", "/a/b$"),
        ("/a/$/b", "/a/$/b"),
        ("file:///a/b", "/a/b"),
        ("FILE:///a/b", "/a/b"),
        ("file://~/b", "/home/me/b"),
        ("file://$DIR/b", "/run/b"),
        ("file://b", "b"),
        ("C:\\b", "C:\\b"),
    ],
)
def test_paths_are_expanded_as_the_tool_does(key: str, value: str, path: str) -> None:
    context = parsed(fields_of(key, value), DIR="/run", A_1="one", HOMELY="~/c")
    assert getattr(context, key) == path


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("$NONE/b", "the environment variable 'NONE' is not set"),
        ("/b/${NONE}", "the environment variable 'NONE' is not set"),
        *((f"/b/{unset}", UNSET) for unset in ("$$NONE", "$1", "${}", "${NONE", "${s3cret x}")),
        ("$EMPTY", "the environment variables in it leave nothing of it"),
        ("file://$EMPTY", "the environment variables in it leave nothing of it"),
        ("file:/a/s3cret", "the path of a file is written file:///path, or without file://"),
        ("s3://s3cret/b", "references of this kind are not supported, only the path of a file"),
    ],
)
def test_a_path_that_leads_nowhere_names_its_field(key: str, value: str, said: str) -> None:
    assert refusal(fields_of(key, value), EMPTY="") == f"{key}: {said}"


@pytest.mark.parametrize("key", ["cert", "key", "ca"])
@pytest.mark.parametrize("kind", ["env", "op", "nsc", "data"])
def test_certificates_are_files_and_nothing_else(key: str, kind: str) -> None:
    value = embedded("s3cret") if kind == "data" else f"{kind.upper()}://s3cret"
    name = "data:" if kind == "data" else f"{kind}://"
    assert refusal(fields_of(key, value)) == f"{key}: {name} is not supported, only the path of a file"


def test_credentials_come_from_a_variable_or_from_the_context_itself() -> None:
    heads = (";base64", "text/plain;base64", "text/plain; base64")
    wrapped = "data:;base64,\r\n" + base64.encodebytes(USER.creds.encode()).decode()
    for value in (*(embedded(USER.creds, head) for head in heads), wrapped, "env://MINE", "Env://$NAME"):
        assert parsed({"creds": value}, NAME="MINE", MINE=USER.creds).creds == USER.creds.encode()
    assert parsed({"nkey": embedded(f"{KEY.seed}\n")}).nkey == f"{KEY.seed}\n".encode()
    assert parsed({"nkey": "env://MINE"}, MINE=KEY.seed).nkey == KEY.seed.encode()


def test_secrets_come_from_a_file_from_a_variable_or_from_the_context_itself() -> None:
    for key, value in (("token", "t0ken"), ("password", "pa ss"), ("user_jwt", USER.jwt), ("user_seed", KEY.seed)):
        for form in (value, embedded(value), embedded(f"{value}\r\n"), "env://MINE"):
            assert getattr(parsed(fields_of(key, form), MINE=f"{value}\n"), key) == value
        assert getattr(parsed(fields_of(key, "file://~/x")), key) == contexts.Stored("/home/me/x")
    # What only looks like a reference is the secret itself, as for the tool.
    for value in ("vault://x", "$HOME", "~/x", "envelope", "C:\\x", " env://X"):
        assert parsed({"token": value}).token == value


@pytest.mark.parametrize("key", [*SECRETS, "creds", "nkey"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("op://s3cret/x", "op:// is not supported: it takes another program"),
        ("OP:s3cret", "op:// is not supported: it takes another program"),
        ("nsc://s3cret/x", "nsc:// is not supported: it takes another program"),
        ("env://NONE", "the environment variable 'NONE' is not set"),
        ("env://EMPTY", "the environment variable 'EMPTY' is empty"),
        ("env://" + Key().seed, UNSET),
        ("env:s3cret", "a variable of the environment is written env://NAME"),
        ("data:s3cret", "data: is understood in base64 only, as data:;base64,..."),
        ("data:,s3cret", "data: is understood in base64 only, as data:;base64,..."),
        ("data:;base64,s3cret", "what stands behind data: is no base64"),
        ("file:s3cret", "the path of a file is written file:///path, or without file://"),
    ],
)
def test_a_reference_that_leads_nowhere_is_never_sent_as_a_secret(key: str, value: str, said: str) -> None:
    assert refusal(fields_of(key, value), EMPTY="") == f"{key}: {said}"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("", "'/c/prod.json' is no JSON object (line 1, column 1)"),
        ('{"password": "s3cret"', "'/c/prod.json' is no JSON object (line 1, column 22)"),
        ('["s3cret"]', "'/c/prod.json' is no JSON object"),
        ('{"password": ' + "9" * 5000 + "}", "'/c/prod.json' is no JSON object that can be read"),
        ("[" * 100_000, "'/c/prod.json' is no JSON object that can be read"),
        ('{"password": 5}', "password is no text"),
        ('{"tls_first": "s3cret"}', "tls_first is neither true nor false"),
        ('{"nsc": "nsc://s3cret"}', "nsc: looking credentials up with nsc is not supported"),
        ('{"socks_proxy": "s3cret"}', "socks_proxy: SOCKS proxies are not supported"),
        ('{"windows_cert_store": "s3cret"}', "windows_cert_store: the certificate store of Windows is not supported"),
        ({"creds": embedded("s3cret")}, "creds: no user JWT found"),
        ({"creds": embedded(USER.jwt)}, "creds: this is no NKey seed: not base32, or mistyped"),
        ({"creds": "data:;base64,/w=="}, "creds: no user JWT found"),
        ({"creds": USER.jwt}, "creds: this is no path but looks like credentials"),
        ({"creds": USER.creds}, "creds: this is no path but looks like credentials"),
        ({"nkey": KEY.seed}, "nkey: this is no path but looks like credentials"),
        ({"nkey": embedded("s3cret")}, "nkey: this is no NKey seed: not base32, or mistyped"),
        ({"user_jwt": "s3cret"}, "user_jwt: no user JWT found"),
        ({"user_seed": "s3cret"}, "user_seed: this is no NKey seed: not base32, or mistyped"),
        ({"token": "data:;base64,/w=="}, "token: data: there is no text in it"),
        ({"token": "data:;base64,"}, "token: data: there is no text in it"),
        ({"url": "env://URL"}, "url: references such as env: are not resolved there"),
        ({"user": "env://USER"}, "user: references such as env: are not resolved there"),
        ({"cert": "/c.pem"}, "cert is of no use without key"),
        ({"key": "/k.pem"}, "key is of no use without cert"),
        ({"creds": "/c", "nkey": "/n"}, "only one of these can be given: creds, nkey"),
        ({"creds": "/c", "user_jwt": USER.jwt}, "only one of these can be given: creds, user_jwt"),
        ({"nkey": "/n", "user_seed": KEY.seed}, "only one of these can be given: nkey, user_seed"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_and_without_values(fields: object, said: str) -> None:
    assert refusal(fields) == said


def test_what_the_caller_knows_better_is_not_looked_at() -> None:
    fields = {**dict.fromkeys((*SECRETS, "creds", "nkey"), "op://x"), "user": "env://X", "ca": "/ca"}
    around = contexts.Surroundings(HOME, {})
    assert contexts.parse("prod", json.dumps(fields), around, identity=False) == contexts.Context("prod", ca="/ca")


KEYS = st.sampled_from(["url", "creds", "nkey", "token", "ca", "user", "tls_first", "x"])
REFERENCES = st.builds("{}{}".format, st.sampled_from(["data:", "env:", "file:", "$", "${"]), st.text())


@given(st.text() | st.builds(json.dumps, st.dictionaries(KEYS, st.none() | st.text() | REFERENCES)))
def test_any_text_is_a_context_or_not(text: str) -> None:
    with contextlib.suppress(ContextError):
        assert isinstance(parsed(text, A="x"), contexts.Context)
