"""JWTs for users: their claims, their id, their signature, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

import trionats
from tests.keys import Key
from trionats import errors
from trionats._protocol.auth.user_jwt import user_jwt

ACCOUNT, SIGNER, USER = Key("account"), Key("account"), Key()
OPTIONS: dict[str, Any] = {"name": "", "expires_in": None, "tags": (), "now": 1_000.5}


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def claims(jwt: str) -> Any:  # noqa: ANN401
    return json.loads(decoded(jwt.split(".")[1]))


def test_the_claims_are_those_of_adr_14() -> None:
    jwt = user_jwt(SIGNER.seed, ACCOUNT.public, USER.public, **OPTIONS)
    found = claims(jwt)
    digest = hashlib.new("sha512_256", json.dumps({**found, "jti": ""}, separators=(",", ":"), sort_keys=True).encode())
    assert found.pop("jti") == base64.b32encode(digest.digest()).decode().rstrip("=")
    nats = {"issuer_account": ACCOUNT.public, "type": "user", "version": 2}
    assert found == {"iat": 1000, "iss": SIGNER.public, "sub": USER.public, "name": USER.public, "nats": nats}
    head, _, signature = jwt.rpartition(".")
    assert json.loads(decoded(head.split(".")[0])) == {"typ": "JWT", "alg": "ed25519-nkey"}
    assert decoded(signature) == SIGNER.sign(head.encode())
    options = {**OPTIONS, "name": "me", "expires_in": 60, "tags": ["a", "b"]}
    found = claims(user_jwt(SIGNER.seed, ACCOUNT.public, USER.public, **options))
    assert (found["name"], found["exp"], found["nats"]["tags"]) == ("me", 1060, ["a", "b"])


@pytest.mark.parametrize(
    ("account", "user", "expires_in", "said"),
    [
        (USER.public, USER.public, None, "account: this is no public key of kind account"),
        (ACCOUNT.public, ACCOUNT.public, None, "user: this is no public key of kind user"),
        (ACCOUNT.public, USER.seed, None, "user: this is no public key"),
        (ACCOUNT.public[:-1], USER.public, None, "account: this is no public key"),
        ("", "", None, "account: "),
        (ACCOUNT.public, USER.public, 0.5, "expires_in"),
    ],
)
def test_what_would_be_a_useless_jwt_is_refused(account: str, user: str, expires_in: float | None, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        trionats.issue_user_jwt(SIGNER.seed, account, user, expires_in=expires_in)
    assert USER.seed not in str(caught.value)


def test_a_users_own_seed_signs_no_jwt() -> None:
    said = r"signing_seed: .* of kind user, and account is needed"
    with pytest.raises(errors.InvalidUserCredentialsError, match=said):
        trionats.issue_user_jwt(USER.seed, ACCOUNT.public, USER.public)
