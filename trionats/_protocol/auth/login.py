"""What CONNECT says about who we are, whether TLS comes before it, and what we know of why we were not let in.

Nothing here is kept: the client evaluates callbacks and reads files before every connect and hands over plain values, so
that rotated credentials are used from the next connect on.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trionats import errors
from trionats._protocol.auth.credentials import validity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from trionats._protocol.addresses import Server

LANG = "python-trio"
PROTOCOL = 1  # we understand INFO at any time


@dataclass(frozen=True, slots=True, repr=False)
class LoginOptions:
    """What the user wants to be, for one connect; every value is evaluated already.

    The `repr()` shows which secrets are set and never what they are.
    """

    version: str
    """The version of this library."""
    name: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    nkey: str | None = None
    """The public NKey."""
    jwt: str | None = None
    sig: str | None = None
    """The signed nonce, from `encode_signature`."""
    jwt_source: str = ""
    """Where the JWT comes from, for complaints: "in '/run/me.creds'"."""
    no_echo: bool = False
    verbose: bool = False
    pedantic: bool = False
    tls: bool = False
    """TLS is wanted whatever the URL and the server say."""

    def __repr__(self) -> str:
        secrets = ("user", "password", "token", "nkey", "jwt", "sig")
        given = [f"{name}=..." for name in secrets if getattr(self, name) is not None]
        return f"LoginOptions({', '.join([f'name={self.name!r}', f'tls={self.tls}', *given])})"


def connect_options(info: Mapping[str, Any], options: LoginOptions, server: Server) -> dict[str, Any]:
    """Say what CONNECT must carry.

    Userinfo in the server's URL wins over user, password and token of the options. NKey, JWT and signature go along with
    either, since an auth callout may want to see them all.

    Args:
        info: The server's INFO.
        options: Who we are.
        server: The server, for the userinfo of its URL.

    Returns:
        The fields, those without a value left out.

    Raises:
        nats.errors.Error: `no_echo` is wanted and the server is too old for it.
    """
    if options.no_echo and info.get("proto") == 0:
        raise errors.Error(f"server {server} is too old for no_echo")
    # A server that says it has no headers closes the connection of a client that wants to be told of missing
    # responders; one that does not say is too old to mind.
    headers = info.get("headers", True) is not False
    fields: dict[str, Any] = {
        "verbose": options.verbose,
        "pedantic": options.pedantic,
        "lang": LANG,
        "version": options.version,
        "protocol": PROTOCOL,
        "echo": not options.no_echo,
        "headers": headers,
        "no_responders": headers,
        "tls_required": options.tls or server.secure or bool(info.get("tls_required")),
    }
    user, password, token = options.user, options.password, options.token
    if server.username is not None:
        user, password = (None, None) if server.password is None else (server.username, server.password)
        token = server.token
    values = {
        "name": options.name,
        "user": user,
        "pass": password,
        "auth_token": token,
        "nkey": options.nkey,
        "jwt": options.jwt,
        "sig": options.sig,
    }
    fields.update((field, value) for field, value in values.items() if value is not None)
    return fields


def must_use_tls(info: Mapping[str, Any], options: LoginOptions, server: Server, *, secured: bool = False) -> bool:
    """Decide whether the connection must be upgraded to TLS before a byte of CONNECT is sent.

    Args:
        info: The server's INFO.
        options: Whether TLS is wanted whatever the URL says.
        server: Whether its URL wants it.
        secured: The connection is encrypted already (handshake first, or `wss://`).

    Returns:
        Whether TLS comes next.

    Raises:
        nats.errors.SecureConnWantedError: We want TLS and the server does not offer it. Going on would send our secrets
            in the clear.
    """
    if secured:
        return False
    wanted = options.tls or server.secure
    if server.websocket:
        # A WebSocket is encrypted below its own handshake or not at all; INFO comes too late.
        if wanted:
            raise errors.explained(
                errors.SecureConnWantedError, f"TLS is wanted and server {server} is reached in clear"
            )
        return False
    required = bool(info.get("tls_required"))
    if wanted and not required and not info.get("tls_available"):
        raise errors.explained(errors.SecureConnWantedError, f"TLS is wanted and server {server} does not offer it")
    return wanted or required


def encode_signature(signature: bytes) -> str:
    """Encode a signed nonce as CONNECT wants it: base64url without padding."""
    return urlsafe_b64encode(signature).rstrip(b"=").decode()


def why_refused(login: LoginOptions, server: Server, now: float) -> str:
    """Say what we know ourselves of why a server may not have let us in.

    Args:
        login: Who we said we were.
        server: The server, for the userinfo of its URL.
        now: The time, in seconds since the epoch.

    Returns:
        The end of a complaint, which holds no secret; nothing if we know nothing.
    """
    if not any((login.user, login.password, login.token, login.nkey, login.jwt, login.sig, server.username)):
        return "; no credentials were given"
    valid = validity(login.jwt or "")
    if valid.ends is not None and valid.ends <= now:
        return f"; the JWT {login.jwt_source} expired at {_told(valid.ends)}"
    if valid.begins is not None and valid.begins > now:
        return f"; the JWT {login.jwt_source} is valid only from {_told(valid.begins)}"
    return ""


def _told(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
