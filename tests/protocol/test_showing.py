"""What is shown of paths, and of words that are somebody else's."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.keys import House, Key
from trionats._protocol.showing import LONGEST_FOREIGN, foreign, hidden, is_key, is_secret, shown_path

USER = House().user()
SEED = USER.key.seed
SECRETS = {
    "a JWT": USER.jwt,
    "half a JWT": USER.jwt[:40],
    "the claims of a JWT": USER.jwt.split(".")[1],
    "a seed": SEED,
    "a mistyped seed": SEED[:-1],
    "a seed in small letters": SEED.lower(),
    "an account's seed": Key("account").seed,
    "a short seed": "SUAEXAMPLESEEDTHATISSECRET",
    "credentials": USER.creds,
    "a reference": f"data:;base64,{base64.b64encode(USER.creds.encode()).decode()}",
    "credentials in base64": base64.b64encode(USER.creds.encode()).decode(),
    "a seed in base64": base64.b64encode(SEED.encode()).decode(),
    "a JWT in urlsafe base64": base64.urlsafe_b64encode(USER.jwt.encode()).decode(),
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize(
    "form",
    [str, Path, lambda text: text.encode(), " {}\n".format, "/run/secrets/{}".format, "./{}".format, "C:\\{}".format],
    ids=["text", "path", "bytes", "spaces", "a file of this name", "beside us", "on Windows"],
)
@pytest.mark.parametrize("found", [False, True])
def test_a_secret_in_the_place_of_a_path_is_not_shown(secret: str, form: object, found: bool) -> None:
    assert callable(form)
    shown = shown_path(form(secret), found=found)
    for piece in (secret, secret.strip()[:30], secret.strip()[-30:]):
        assert piece not in shown


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/run/secrets/me.creds", "'/run/secrets/me.creds'"),
        (b"/run/secrets/me.creds", "'/run/secrets/me.creds'"),
        (Path("/var/lib/my-project/with-many-words-in-its-name-as-some-have"), None),
        ("me.creds", "'me.creds'"),
        ("my.user.creds", "'my.user.creds'"),
        ("C:\\Users\\me\\my.creds", "'C:\\\\Users\\\\me\\\\my.creds'"),
        (f"/run/{SEED}/me.creds", "'/run/.../me.creds'"),
        (5, "int for a path"),
        (None, "NoneType for a path"),
        # Of a word that is no file only that it was given is said.
        ("hunter2", "the path given"),
    ],
)
def test_a_path_is_shown(path: object, shown: str | None) -> None:
    assert shown_path(path) == (shown or repr(str(path)))
    assert shown_path("hunter2", found=True) == "'hunter2'"


NO_SECRETS = ["localhost", "nats.example", "SERVER", "SERVERPRODUCTIONEUROPE", "my.user.creds", "a1b2c3"]


@pytest.mark.parametrize("text", [*NO_SECRETS, "", "eyJ", "S" * 10])
def test_what_is_no_secret_is_taken_for_none(text: str) -> None:
    assert (is_key(text), is_secret(text)) == (False, False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("it is hunter2, is it?", "it is ..., is it?"),
        ("hunter2hunter2", "......"),
        ("a fine word", "a fine word"),
        (f"not {USER.jwt}!", "not ...!"),
        # Cut off by whoever quoted it.
        (f"not {USER.jwt[:20]}", "not ..."),
        ("nothing", "nothing"),
    ],
)
def test_what_was_confided_is_left_out_of_words(text: str, shown: str) -> None:
    # What is that short may stand in any word.
    assert hidden(text, ["hunter2", USER.jwt, "ne", ""]) == shown


def test_foreign_words_stay_in_one_line() -> None:
    assert foreign("Server Shutdown") == "Server Shutdown"
    assert foreign("café 日本") == "café 日本"
    assert foreign("a\r\nb\x1b[2J\x00\x85") == "a\\r\\nb\\x1b[2J\\x00\\x85"
    # Nothing that turns the line around, hides in it, or ends it.
    assert foreign("a\u202eb\u200bc\u2028d\ud800") == "a\\u202eb\\u200bc\\u2028d\\ud800"


@given(st.text(), st.integers(0, 50))
def test_foreign_words_are_printable_and_bounded(text: str, longest: int) -> None:
    shown = foreign(text, longest)
    assert shown.isprintable()
    assert len(shown) <= longest * len("\\U0010ffff")
    assert len(foreign("x" * 10_000)) == LONGEST_FOREIGN
