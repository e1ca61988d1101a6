"""URLs of servers: every form, every refusal, and no secret in any of them."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.keys import Key
from trionats import errors
from trionats._protocol.addresses import Server, check_list, parse_servers, told_servers
from trionats.errors import ServerURLError

SECRET = "s3cr3t"


def one(text: str) -> Server:
    (server,) = parse_servers([text])
    return server


SHOWN = {
    "nats://demo:4222": ["demo", "demo:", "  nats://demo  ", "nats://demo/"],
    "nats://demo:1": ["demo:1"],
    "nats://demo:65535": ["demo:65535"],
    "nats://demo.example:4222": ["NATS://Demo.Example"],
    "tls://demo:4222": ["tls://demo"],
    "ws://demo:80": ["ws://demo"],
    "wss://demo:443": ["wss://demo"],
    "wss://demo:8443": ["wss://demo:8443/a/b?c=d"],
    "nats://127.0.0.1:4222": ["127.0.0.1"],
    "nats://[::1]:4222": ["::1", "[::1]"],
    "nats://[::1]:7": ["[::1]:7", "nats://[0:0::1]:7", "nats://u:p@[::1]:7"],
    "nats://[fe80::1%eth0]:7": ["nats://[fe80::1%25eth0]:7"],
    "nats://under_score.example:4222": ["under_score.example"],
    "nats://bücher.example:4222": ["bücher.example"],
}


@pytest.mark.parametrize(("text", "shown"), [(text, shown) for shown, many in SHOWN.items() for text in many])
def test_a_server_is_shown_in_one_form_however_it_is_written(text: str, shown: str) -> None:
    assert str(one(text)) == shown


#: User name, password and token, by the URLs that give them.
GIVEN: dict[tuple[str | None, str | None, str | None], list[str]] = {
    (None, None, None): ["nats://h", "nats://@h"],
    ("u", "p", None): ["nats://u:p@h", "u:p@h", "ws://u:p@h/x"],
    ("t", None, "t"): ["nats://t@h", "t@h"],
    ("u", "", None): ["nats://u:@h"],
    ("", "p", None): ["nats://:p@h"],
    ("u", "p:q", None): ["nats://u:p:q@h"],
    ("u", "p@q", None): ["nats://u:p@q@h"],
    ("a@b", ":/?#,%", None): ["nats://a%40b:%3A%2F%3f%23%2c%25@h"],
    ("u", "100%", None): ["nats://u:100%@h"],
    ("ü", "p+q", None): ["nats://%C3%BC:p+q@h"],
}


@pytest.mark.parametrize(("text", "who"), [(text, who) for who, many in GIVEN.items() for text in many])
def test_who_a_url_says_we_are(text: str, who: tuple[str | None, str | None, str | None]) -> None:
    server = one(text)
    assert (server.username, server.password, server.token, server.host) == (*who, "h")


def test_a_string_holds_several_and_a_sequence_one_each() -> None:
    assert list(map(str, parse_servers("a, nats://b:1,tls://c"))) == ["nats://a:4222", "nats://b:1", "tls://c:4222"]
    assert list(map(str, parse_servers(("b", "a")))) == ["nats://b:4222", "nats://a:4222"]
    (server,) = parse_servers(["nats://u:p,q@h"])
    assert server.password == "p,q"
    assert [s.username for s in parse_servers("t@a,nats://u:p%2Cq@b")] == ["t", "u"]


def test_repetitions_are_left_out_but_not_other_users_of_one_server() -> None:
    assert len(parse_servers(["a", "nats://A:4222", "a:4222/"])) == 1
    assert list(map(str, parse_servers("h.,h,nats://h.:4222,h:1"))) == ["nats://h.:4222", "nats://h:1"]
    assert [s.username for s in parse_servers(["u:p@a", "v:p@a", "u:p@a"])] == ["u", "v"]


REFUSED: dict[str, list[str]] = {
    "host is missing": ["", "nats://", "nats://:4222", "nats://u:s3cr3t@", "nats://u:s3cr3t@:4222"],
    "the scheme 'http' is none of": ["http://u:s3cr3t@h"],
    "the scheme is none of": ["s3cr3t://h", "u:s3cr3t://h"],
    "not a number from 1 to 65535": ["nats://u:s3cr3t", "u:s3cr3t", "h:0", "h:65536", "h:-1", "h:+1",
        "h:00001234567890", "h:\N{SUPERSCRIPT TWO}", "h:\N{ARABIC-INDIC DIGIT TWO}", "[::1]:s3cr3t"],
    "no IPv6 address": ["nats://u:s3:cr3t", "[1.2.3.4]"],
    "in brackets": ["[::1", "[::1]s3cr3t"],
    "only WebSocket URLs have a path": ["nats://h/s3cr3t", "nats://u:x/s3cr3t@h", "nats://s3cr3t/x@h",
        "nats://u:x?s3cr3t@h", "nats://u:x#s3cr3t@h"],
    "must be percent-encoded": ["ws://s3cr3t/x@h/y", "ws://h/a b?s3cr3t", "ws://h/#s3cr3t",
        "ws://h/\r\nAuthorization: s3cr3t"],
    "no host name has": ["nats://u:s3cr3t@a b", "nats://u:s3cr3t@a,b", "nats://u:s3cr3t@a\r\nb",
        "nats://u:s3cr3t@a\N{NO-BREAK SPACE}b"],
    "not UTF-8": ["nats://u:s3cr3t%ff@h", "nats://s3cr3t%ff:p@h"],
}  # fmt: skip


@pytest.mark.parametrize(("text", "complaint"), [(text, words) for words, many in REFUSED.items() for text in many])
def test_refusals_say_what_is_wrong_and_no_secret(text: str, complaint: str) -> None:
    with pytest.raises(ServerURLError, match=complaint) as caught:
        parse_servers([text])
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, errors.Error)
    assert str(caught.value).startswith("server 1 of 1")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


JWT = "eyJ0eXAiOiJKV1QifQ.eyJqdGkiOiJYIn0.c2lnbmVk"
KEYS = [JWT, "SUAEXAMPLESEEDTHATISSECRET", Key().seed, Key().seed.lower(), "c3VwZXJzZWNyZXQ" * 8, "x" * 64]
FORMS = ["{}", "nats://{}", "tls://{}:4222", "wss://{}/x", "nats://u:p@{}", "http://{}", "{}://h"]


@pytest.mark.parametrize("secret", KEYS)
@pytest.mark.parametrize("form", FORMS)
def test_a_key_in_the_place_of_a_server_is_refused_and_not_shown(secret: str, form: str) -> None:
    with pytest.raises(ServerURLError) as caught:
        parse_servers([form.format(secret)])
    for piece in (secret.lower()[:12], secret.lower()[-12:]):
        assert piece not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("http://h", "the scheme 'http' is none of nats, tls, ws, wss"),
        ("HTTPS://h", "the scheme 'https' is none of"),
        ("env://h", "the scheme 'env' is none of"),
        ("hunter2://h", "the scheme is none of"),
        ("://h", "the scheme is none of"),
        (".", "the host is missing"),
        (".:4222", "missing"),
        ("h..", "one dot"),
        ([], "no servers"),
        ("a,,b", "host is missing"),
    ],
)
def test_a_refusal_shows_a_scheme_where_it_is_one_and_says_what_is_missing(texts: str | list[str], said: str) -> None:
    with pytest.raises(ServerURLError, match=said):
        parse_servers(texts)


@pytest.mark.parametrize("text", ["nats://u:s3,cr3t@h", "h,u:s3cr3t@i", "nats://s3cr3t@h,x@i"])
def test_an_ambiguous_comma_is_refused(text: str) -> None:
    with pytest.raises(ServerURLError) as caught:
        parse_servers(text)
    assert not {SECRET, "cr3t", "s3"} & set(str(caught.value).replace(":", " ").split())


@pytest.mark.parametrize("texts", [["ws://u:s3cr3t@a", "b"], ["nats://a", "wss://s3cr3t@b"]])
def test_websocket_servers_are_not_mixed_with_others(texts: list[str]) -> None:
    with pytest.raises(ServerURLError, match=r"cannot be mixed: .*a:.*b:") as caught:
        parse_servers(texts)
    assert SECRET not in str(caught.value)
    check_list(parse_servers("ws://a,wss://b"))
    check_list(parse_servers("nats://a,tls://b"))


def test_what_a_url_says_of_its_server() -> None:
    server = one("wss://u:p@h/x?y=1")
    assert (server.netloc, server.endpoint, server.path) == ("h:443", ("h", 443), "/x?y=1")
    assert (server.secure, server.websocket, server.verified_name) == (True, True, "h")
    assert (one("tls://h").secure, one("tls://h").websocket) == (True, False)
    assert (one("nats://h").secure, one("nats://h/").path) == (False, "")


def test_an_absolute_name_keeps_its_dot_for_the_resolver_only() -> None:
    # RFC 6066: the name in SNI has no trailing dot; nor has any in a certificate.
    server = one("wss://Nats.Example.:4222/x")
    assert (server.endpoint, str(server)) == (("nats.example.", 4222), "wss://nats.example.:4222")
    assert (server.verified_name, server.authority) == ("nats.example", "nats.example:4222")
    assert one("wss://[::1]").authority == "[::1]:443"
    (told,) = told_servers(["other.example.:1"], server)
    assert (told.endpoint, told.verified_name) == (("other.example.", 1), "other.example")
    (told,) = told_servers(["1.2.3.4:1"], server)
    assert told.verified_name == "nats.example"


def test_no_secret_in_what_a_server_shows() -> None:
    server = one(f"ws://{SECRET}u:{SECRET}@h/{SECRET}?{SECRET}")
    server.explicit = False
    for text in (str(server), repr(server), f"{server}", f"{server!r}", repr([server])):
        assert SECRET not in text
    assert "discovered" in repr(server)
    assert "discovered" not in repr(one("h"))


@pytest.mark.parametrize(
    ("teller", "told", "shown", "tls_name"),
    [
        ("nats://seed", "1.2.3.4:4223", "nats://1.2.3.4:4223", "seed"),
        ("tls://seed", "[::2]:4223", "tls://[::2]:4223", "seed"),
        ("tls://seed", "other:4223", "tls://other:4223", None),
        ("tls://1.1.1.1", "1.2.3.4:4223", "tls://1.2.3.4:4223", None),
        ("wss://seed/p", "1.2.3.4", "wss://1.2.3.4:443", "seed"),
    ],
)
def test_what_discovered_servers_inherit(teller: str, told: str, shown: str, tls_name: str | None) -> None:
    seed = one(teller.replace("://", "://u:p@"))
    (server,) = told_servers([told], seed)
    assert (str(server), server.tls_name) == (shown, tls_name)
    assert (server.username, server.password, server.path) == ("u", "p", seed.path)
    assert not server.explicit
    # and so does what a discovered server tells of
    (next_one,) = told_servers(["9.9.9.9:1"], server)
    assert next_one.tls_name == (tls_name or ("other" if "other" in told else None))


def test_told_nonsense_is_skipped() -> None:
    urls: list[object] = ["a b:1", "", None, 7, "h:x", {}, "h:1", "nats://h", "u@h"]
    assert [s.netloc for s in told_servers(urls, one("seed"))] == ["h:1"]


@given(st.text())
def test_any_text_gives_servers_or_the_one_error(text: str) -> None:
    try:
        servers = parse_servers(text)
    except ServerURLError:
        return
    assert servers
    assert all(0 < s.port < 65536 and s.host for s in servers)


quoted = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(user=quoted, password=st.none() | quoted)
def test_percent_encoding_carries_any_userinfo(user: str, password: str | None) -> None:
    def encode(text: str) -> str:
        return "".join(f"%{byte:02x}" for byte in text.encode())

    userinfo = encode(user) if password is None else f"{encode(user)}:{encode(password)}"
    (server,) = parse_servers(f"nats://{userinfo}@h")
    assert (server.username, server.password) == (user, password)
    again = parse_servers(str(server))
    assert [s.endpoint for s in again] == [server.endpoint]
