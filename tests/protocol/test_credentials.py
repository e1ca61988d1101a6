"""NKey seeds and the files that hold them: what is read, what is refused, and that nothing of it is shown."""

from __future__ import annotations

import base64
import contextlib
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.keys import House, Key
from trionats import errors
from trionats._protocol.auth import credentials
from trionats._protocol.auth.credentials import (
    NKey,
    canonical_signature,
    check_seed,
    parse_creds,
    parse_jwt,
    parse_seed,
)

JWT = "eyJ0eXAi.eyJqdGki.c2lnbmVk"
KEY = Key()


def test_a_seed_gives_the_public_key_and_signs_as_its_owner_would() -> None:
    key = NKey(f" {KEY.seed}\n")
    assert key.public == KEY.public
    assert key.sign(b"a nonce") == KEY.sign(b"a nonce")
    assert KEY.seed not in repr(key)


@pytest.mark.parametrize(
    ("seed", "said"),
    [
        *((text, "no NKey seed") for text in ("", "SUAB", "not base32!", KEY.public, KEY.seed.lower())),
        (KEY.seed[:20] + ("A" if KEY.seed[20] != "A" else "B") + KEY.seed[21:], "mistyped"),
        (KEY.seed + "AAAAAAAA", "no NKey seed"),
        ("ä" * 58, "no NKey seed"),
        (Key("account").seed, "of kind account"),
        (Key("operator").seed, "of kind operator"),
    ],
)
def test_what_is_no_users_seed_is_refused_without_showing_it(seed: str, said: str) -> None:
    with pytest.raises(errors.InvalidUserCredentialsError, match=said) as caught:
        check_seed(seed, "nkeys_seed")
    assert "nkeys_seed" in str(caught.value)
    assert caught.value.__context__ is None
    if len(seed) > 4:
        assert seed not in str(caught.value)


@pytest.mark.parametrize("seed", [KEY.seed.encode(), None, 5])
def test_what_is_no_text_is_no_seed(seed: object) -> None:
    assert credentials.seed_role(seed) is None  # type: ignore[arg-type]


def claims(**fields: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
    return f"eyJ0eXAi.{body}.c2lnbmVk"


BRACKETS = base64.urlsafe_b64encode(b"[" * 100_000).decode()


@pytest.mark.parametrize(
    ("jwt", "valid"),
    [
        (claims(exp=1_000, nbf=10.5), (10.5, 1_000.0)),
        *((jwt, (None, None)) for jwt in ("", "a.b", "a.!.b", JWT, "a.WzFd.b", f"a.{BRACKETS}.b", claims())),
        (claims(exp=0, nbf=-1), (None, None)),
        (claims(exp="1000", nbf=True), (None, None)),
        (claims(exp=10**30, nbf=float("nan")), (None, None)),
    ],
)
def test_when_a_jwt_is_valid_is_what_can_be_read_of_it(jwt: str, valid: tuple[float | None, float | None]) -> None:
    assert tuple(credentials.validity(jwt)) == valid


def test_a_credentials_file_as_nsc_writes_it_is_read() -> None:
    user = House().user()
    found = parse_creds(user.creds)
    assert found == (user.jwt, user.key.seed)
    for secret in found:
        assert secret not in repr(found)


CREDS_JWT = f"-----BEGIN NATS USER JWT-----\n{JWT}\n------END NATS USER JWT------\n"
CREDS_SEED = f"-----BEGIN USER NKEY SEED-----\n{KEY.seed}\n------END USER NKEY SEED------\n"
FILES = {
    "\n -> \r\n": (CREDS_JWT + CREDS_SEED).replace("\n", "\r\n"),
    "indented": "".join(f"  {line}  \n" for line in (CREDS_JWT + CREDS_SEED).splitlines()),
    "byte order mark": "\ufeff" + CREDS_JWT + CREDS_SEED,
    "seed first": CREDS_SEED + "\n" + CREDS_JWT,
    "no END": CREDS_JWT + f"-----BEGIN USER NKEY SEED-----\n{KEY.seed}",
    "two lines": CREDS_JWT.replace(JWT, f"{JWT[:10]}\n{JWT[10:]}") + CREDS_SEED,
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_files_that_went_through_hands_and_editors_are_read_too(text: str) -> None:
    assert parse_creds(text) == (JWT, KEY.seed)


@pytest.mark.parametrize("jwt", [JWT, f"\n# a comment\n{JWT}\n", f"---BEGIN JWT---\n{JWT}\n---END JWT---"])
@pytest.mark.parametrize("seed", [KEY.seed, f"# nk\n{KEY.seed}\n{KEY.public}\n"])
def test_a_jwt_and_a_seed_may_stand_alone(jwt: str, seed: str) -> None:
    assert (parse_jwt(jwt), parse_seed(seed)) == (JWT, KEY.seed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no user JWT"),
        (KEY.seed, "no user JWT"),
        (f"-----BEGIN USER NKEY SEED-----\n{KEY.seed}\n", "no user JWT"),
        (f"-----BEGIN NATS USER JWT-----\n{JWT}\n-----END NATS USER JWT-----\n", "no seed"),
        (f"-----BEGIN NATS USER JWT-----\n{JWT}\n-----BEGIN USER NKEY SEED-----\nSUXX\n", "no NKey seed"),
        ("-----BEGIN NATS USER JWT-----\n-----END NATS USER JWT-----\n", "no user JWT"),
    ],
)
def test_a_file_without_a_jwt_or_a_seed_is_refused(text: str, said: str) -> None:
    with pytest.raises(errors.InvalidUserCredentialsError, match=said) as caught:
        parse_creds(text, "user_credentials")
    assert "user_credentials" in str(caught.value)
    assert KEY.seed not in str(caught.value)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    credentials.seed_role(text)
    for read in (parse_creds, parse_jwt, parse_seed):
        with contextlib.suppress(errors.InvalidUserCredentialsError):
            assert read(text)


@given(st.binary(min_size=64, max_size=64))
def test_a_signature_is_read_raw_and_in_each_base64(raw: bytes) -> None:
    standard, urlsafe = base64.b64encode(raw), base64.urlsafe_b64encode(raw)
    for form in (raw, bytearray(raw), standard, urlsafe, urlsafe.rstrip(b"="), urlsafe.decode(), standard + b"\n"):
        assert canonical_signature(form) == raw


@pytest.mark.parametrize("wrong", [None, 1, b"", b"short", "x" * 88, "ä" * 64, b"\xff" * 63])
def test_what_is_no_signature_is_refused(wrong: object) -> None:
    with pytest.raises(errors.InvalidUserCredentialsError, match="signature_cb: this is no Ed25519 signature"):
        canonical_signature(wrong)


def test_without_the_extra_a_seed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    with pytest.raises(ImportError, match=r"nkeys_seed_str.*pip install 'trionats\[nkeys\]'"):
        NKey(KEY.seed, "nkeys_seed_str")
