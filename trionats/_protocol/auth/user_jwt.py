"""JWTs for users, issued with a scoped signing key of an account (ADR-14)."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from trionats._protocol.auth.credentials import NKey, public_role

if TYPE_CHECKING:
    from collections.abc import Sequence


def user_jwt(
    signing_seed: str, account: str, user: str, *, name: str, expires_in: float | None, tags: Sequence[str], now: float
) -> str:
    """Issue a JWT for a user; permissions and limits are those of the signing key's scope.

    Args:
        signing_seed: The seed of the account's signing key.
        account: The public key of the account.
        user: The public key of the user.
        name: The user's name; its public key where it is empty.
        expires_in: After how many seconds it expires; None for never.
        tags: The user's tags.
        now: The time, in seconds since the epoch.

    Returns:
        The JWT.

    Raises:
        ValueError: A key is not what it should be, or the JWT would have expired already.
        nats.errors.InvalidUserCredentialsError: The seed is no account's.
        ImportError: What signs is not installed.
    """
    for what, public in (("account", account), ("user", user)):
        if public_role(public) != what:
            raise ValueError(f"{what}: this is no public key of kind {what}")
    if expires_in is not None and expires_in < 1:
        raise ValueError("expires_in: a JWT knows whole seconds, and at least one")
    key = NKey(signing_seed, "signing_seed", "account")
    nats: dict[str, Any] = {"issuer_account": account, "type": "user", "version": 2}
    if tags:
        nats["tags"] = list(tags)
    claims: dict[str, Any] = {"iat": int(now), "iss": key.public, "name": name or user, "sub": user, "nats": nats}
    if expires_in is not None:
        claims["exp"] = int(now + expires_in)
    # The id is a hash of the rest, with an empty one in its place.
    digest = hashlib.new("sha512_256", _json({"jti": "", **claims})).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    body = f"{_url(_json({'typ': 'JWT', 'alg': 'ed25519-nkey'}))}.{_url(_json(claims))}"
    return f"{body}.{_url(key.sign(body.encode()))}"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
