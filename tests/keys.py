"""NKeys, JWTs and credentials files, made for one test: an operator, its accounts, their users.

    house = House()
    with NatsServer(house.config) as server:
        user = house.user(expires=time.time() + 2)
        ... open_client(nursery, server.url, user_credentials=user.creds.encode())

The other half of what the client does, so it is written without the client's code: Ed25519 by `cryptography`, the rest by
the standard library (the checksum of an NKey is `binascii.crc_hqx`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["operator", "account", "user", "server"]

PREFIX = {"operator": 14 << 3, "account": 0, "user": 20 << 3, "server": 13 << 3}
SEED = 18 << 3
UNLIMITED = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1) | {"wildcards": True}


class Key:
    """An NKey pair of one kind."""

    def __init__(self, kind: Kind = "user") -> None:
        self._private = Ed25519PrivateKey.generate()
        raw = self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        prefix = PREFIX[kind]
        self.seed = _text(bytes([SEED | prefix >> 5, (prefix & 31) << 3]) + raw)
        public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = _text(bytes([prefix]) + public)

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)


@dataclass(frozen=True)
class User:
    """A user: its key, and the JWT that an account has made for it."""

    key: Key
    jwt: str

    @property
    def creds(self) -> str:
        """The text of a credentials file."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{self.jwt}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.key.seed}\n------END USER NKEY SEED------\n"
        )


class House:
    """An operator, a system account and one account, and the server's configuration that trusts them."""

    def __init__(self) -> None:
        self.operator, self.system, self.account = Key("operator"), Key("account"), Key("account")
        #: A signing key of the account, whose users may use `greet` and nothing else.
        self.scoped = Key("account")
        self.revocations: dict[str, int] = {}
        nats = {"type": "operator", "version": 2, "system_account": self.system.public}
        # Once: the server refuses to load a configuration again in which this is another one.
        self._operator = jwt({"sub": self.operator.public, "name": "O", "nats": nats}, self.operator)

    @property
    def config(self) -> str:
        return (
            f"operator: {self._operator}\nsystem_account: {self.system.public}\nresolver: MEMORY\n"
            f"resolver_preload: {{\n  {self.system.public}: {self._account(self.system)}\n"
            f"  {self.account.public}: {self._account(self.account)}\n}}\n"
        )

    def user(self, *, expires: float = 0, bearer: bool = False, key: Key | None = None, subs: int = -1) -> User:
        """Make a user of the account; `expires` is seconds since the epoch, `subs` a limit of subscriptions."""
        key = key or Key()
        nats: dict[str, Any] = {"type": "user", "version": 2, "pub": {}, "sub": {}}
        nats |= {"subs": subs, "data": -1, "payload": -1}
        if bearer:
            nats["bearer_token"] = True
        claims: dict[str, Any] = {"sub": key.public, "name": "U", "nats": nats}
        if expires:
            claims["exp"] = math.ceil(expires)
        return User(key, jwt(claims, self.account))

    def revoke(self, user: User) -> None:
        """Revoke all JWTs that the user has by now; `config` has to be loaded again."""
        self.revocations[user.key.public] = int(time.time())

    def _account(self, account: Key) -> str:
        nats: dict[str, Any] = {"limits": UNLIMITED, "default_permissions": {"pub": {}, "sub": {}}}
        nats |= {"type": "account", "version": 2}
        if account is self.account:
            only = {"allow": ["greet"]}
            template = {"pub": only, "sub": only, "subs": -1, "data": -1, "payload": -1}
            scope = {"kind": "user_scope", "key": self.scoped.public, "role": "greeter", "template": template}
            nats["signing_keys"] = [scope]
            if self.revocations:
                nats["revocations"] = self.revocations
        return jwt({"sub": account.public, "name": "A", "nats": nats}, self.operator)


def jwt(claims: dict[str, Any], issuer: Key) -> str:
    """Make a JWT of version 2."""
    full = {"jti": "", "iat": int(time.time()), "iss": issuer.public, **claims}
    digest = hashlib.new("sha512_256", json.dumps(full).encode()).digest()
    full["jti"] = base64.b32encode(digest).decode().rstrip("=")
    body = ".".join(map(_part, ({"typ": "JWT", "alg": "ed25519-nkey"}, full)))
    return f"{body}.{_url(issuer.sign(body.encode()))}"


def _part(value: dict[str, Any]) -> str:
    return _url(json.dumps(value, separators=(",", ":")).encode())


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _text(raw: bytes) -> str:
    raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw).decode().rstrip("=")
