"""What CONNECT says about who we are, whether TLS comes before it, and what the server's refusals mean.

Nothing here is kept: the client evaluates callbacks and reads files before every connect and hands over plain values, so
that rotated credentials are used from the next connect on.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trionats import errors
from trionats._protocol.auth.credentials import validity
from trionats._protocol.showing import foreign, hidden

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from trionats._protocol.servers import Server

LANG = "python-trio"
PROTOCOL = 1  # we understand INFO at any time

#: What to say of an inbox that the server refused.
INBOX_HINT = "; set inbox_prefix= to what this user may subscribe to"


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


_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_PERMISSIONS = re.compile(
    rf"permissions violation for (publish to|publish with reply of|subscription to) {_QUOTED}"
    rf"(?:, too many tokens)?(?: using queue {_QUOTED})?(?: \(sid {_QUOTED}\))?",
    re.IGNORECASE,
)
_OPERATIONS = {"publish to": "publish", "publish with reply of": "reply", "subscription to": "subscription"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.DOTALL)

# By the beginning of the text, in lower case. What is not listed (limits of the account, throttling, "authentication
# timeout") says nothing about us that another attempt could not change.
_REFUSALS: tuple[tuple[str, type[errors.Error]], ...] = (
    ("authorization violation", errors.AuthorizationError),
    ("user authentication expired", errors.AuthorizationError),
    ("user authentication revoked", errors.AuthorizationError),
    ("account authentication expired", errors.AuthorizationError),
    ("stale connection", errors.StaleConnectionError),
    ("secure connection - tls required", errors.SecureConnRequiredError),
    ("maximum payload", errors.MaxPayloadError),
    ("invalid subject", errors.BadSubjectError),
    ("invalid publish subject", errors.BadSubjectError),
    ("unknown protocol operation", errors.ProtocolError),
    ("invalid client protocol", errors.ProtocolError),
    ("maximum control line exceeded", errors.ProtocolError),
)


def server_error(text: str, confided: Iterable[str] = ()) -> errors.Error:
    """Turn the text of an `-ERR` into the exception that it means.

    The exception says nothing about whether the connection goes on: the server closes it, or leaves it open.

    Args:
        text: What stands behind `-ERR`, with or without its quotes, in upper or lower case.
        confided: What it must not be quoted with.

    Returns:
        The exception. A `PermissionsViolationError` has the attributes `operation` ("publish", "subscription", or
        "reply" for the reply subject of a publish), `subject` (both empty when the text cannot be read), `queue` (None for
        none) and `sid` (None unless the server says which subscription it removed).
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        text = text[1:-1].strip()
    explanation = f"the server says: {foreign(hidden(text, confided))}"
    lowered = text.lower()
    if lowered.startswith("permissions violation"):
        return errors.explained(errors.PermissionsViolationError, explanation, **_violation(text))
    for beginning, kind in _REFUSALS:
        if lowered.startswith(beginning):
            return errors.explained(kind, explanation)
    return errors.Error(explanation)


def _violation(text: str) -> dict[str, Any]:
    match = _PERMISSIONS.fullmatch(text)
    if match is None:
        return {"operation": "", "subject": "", "queue": None, "sid": None}
    operation, subject, queue, sid = match.groups()
    return {
        "operation": _OPERATIONS[operation.lower()],
        "subject": _unquoted(subject),
        "queue": None if queue is None else _unquoted(queue),
        "sid": int(sid) if sid and sid.isascii() and sid.isdigit() and len(sid) < 20 else None,
    }


def _unquoted(text: str) -> str:
    """Undo Go's `%q`, as far as names of subjects need it."""
    return _ESCAPE.sub(_unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    number = match[1] or match[2] or match[3]
    if number is None:
        return _CONTROLS.get(match[4], match[4])
    point = int(number, 16)
    return chr(point) if point < 0x110000 else match[0]


_CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
