"""The options of `open_client`: each one's type, default and meaning, once.

A caller writes `ClientOptions`. `Options` is made of them, once a client, with the defaults in their places, and goes whole to
whoever uses one. One that exists was checked: what can be seen here is refused here, because it would show late and far from
its cause, in the middle of an outage or in a goodbye that never ends.

What stands in the documentation of `open_client` is what stands here with each field (`describes_options`).
"""

from __future__ import annotations

import math
import os
import random
import ssl
import textwrap
from collections import UserString
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ParamSpec, TypeAlias, TypedDict, TypeVar, final

import trio

from trionats._protocol.auth import credentials
from trionats._protocol.fields import unknown_option
from trionats._protocol.servers import MAX_ATTEMPTS, MAX_RECONNECT_TIME_WAIT, RECONNECT_TIME_WAIT, PickServer
from trionats._protocol.showing import is_content, is_credential

FilePath: TypeAlias = str | os.PathLike[str]
Secret: TypeAlias = str | Callable[[], str | Awaitable[str]]
CredentialsSource: TypeAlias = FilePath | tuple[FilePath, FilePath] | bytes | bytearray | UserString
UserCredentials: TypeAlias = CredentialsSource | Callable[[], CredentialsSource | Awaitable[CredentialsSource]]
JWTCallback: TypeAlias = Callable[[], str | bytes | bytearray | Awaitable[str | bytes | bytearray]]
SignatureCallback: TypeAlias = Callable[[str], str | bytes | Awaitable[str | bytes]]
TLSContext: TypeAlias = ssl.SSLContext | bool | Callable[[], ssl.SSLContext | Awaitable[ssl.SSLContext]]
WebSocketHeaders: TypeAlias = Mapping[str, str | Sequence[str]]
HeadersSource: TypeAlias = WebSocketHeaders | Callable[[], WebSocketHeaders | Awaitable[WebSocketHeaders]]
Dialler: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]

T = TypeVar("T")
P = ParamSpec("P")
Check: TypeAlias = Callable[[str, object], None]


class ClientOptions(TypedDict, total=False):
    """The options of `open_client`; the names are nats-py's where it has one. All times are in seconds."""

    name: str
    context: str | bool
    user: str | Callable[[], str | Awaitable[str]]
    password: str | Callable[[], str | Awaitable[str]]
    token: str | Callable[[], str | Awaitable[str]]
    user_credentials: UserCredentials
    nkeys_seed: str | os.PathLike[str]
    nkeys_seed_str: str
    nkey: str
    user_jwt_cb: Callable[[], str | bytes | bytearray | Awaitable[str | bytes | bytearray]]
    signature_cb: Callable[[str], str | bytes | Awaitable[str | bytes]]
    tls: ssl.SSLContext | bool | Callable[[], ssl.SSLContext | Awaitable[ssl.SSLContext]]
    tls_hostname: str
    tls_handshake_first: bool
    ws_connection_headers: (
        Mapping[str, str | Sequence[str]]
        | Callable[[], Mapping[str, str | Sequence[str]] | Awaitable[Mapping[str, str | Sequence[str]]]]
    )
    ws_compression: bool
    verbose: bool
    pedantic: bool
    no_echo: bool
    inbox_prefix: str
    dont_randomize: bool
    ignore_discovered_servers: bool
    retry_on_failed_connect: bool
    allow_reconnect: bool
    max_reconnect_attempts: int
    reconnect_time_wait: float
    max_reconnect_time_wait: float
    reconnect_delay: Callable[[int], float]
    pick_server: PickServer
    ignore_auth_error_abort: bool
    connect_timeout: float
    request_timeout: float | None
    close_timeout: float
    drain_timeout: float
    ping_interval: float
    max_outstanding_pings: int
    pending_size: int
    dial: Callable[[str, int], Awaitable[trio.abc.Stream]]
    rng: random.Random


# -- what one option may be --------------------------------------------------------------------------------------------


def check_seconds(name: str, value: object, least: float = 0.0) -> None:
    """Refuse what is no time to wait.

    Args:
        name: The option.
        value: What was given for it.
        least: The shortest that it may be; all above are fine, those without end included.

    Raises:
        TypeError: It is no number.
        ValueError: It is too short, or not a number.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _wrong_type(name, value, "a number of seconds")
    if not value >= least:
        raise ValueError(f"{name} is {value}: it must be {least:g} s or more")


def _check_pause(name: str, value: object) -> None:
    # A ping each 0 s would be nothing but pings.
    check_seconds(name, value, least=0.001)


def _check_number(name: str, value: object, least: float = -math.inf) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(name, value, "a whole number")
    if value < least:
        raise ValueError(f"{name} is {value}: it must be {least} or more")


def _check_count(name: str, value: object) -> None:
    _check_number(name, value, least=1)


def _check_function(name: str, value: object) -> None:
    if not callable(value):
        raise _wrong_type(name, value, "a function")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise _wrong_type(name, value, "text")


def _check_rng(name: str, value: object) -> None:
    if not isinstance(value, random.Random):
        raise _wrong_type(name, value, "a random.Random")


def _check_tls(name: str, value: object) -> None:
    if not isinstance(value, (bool, ssl.SSLContext)) and not callable(value):
        raise _wrong_type(name, value, "an ssl.SSLContext, True, or a function that makes a context")


def _check_credentials(name: str, value: object) -> None:
    if isinstance(value, str) and is_content(value):
        raise ValueError(f"{name} is a path; the content itself is given as bytes")
    credentials.nkeys_library(name)


def _check_seed_file(name: str, value: object) -> None:
    if _is_secret(value):
        raise ValueError(f"{name} is a path; the seed itself is given as nkeys_seed_str")
    credentials.nkeys_library(name)


def _check_seed(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise _wrong_type(name, value, "text")
    credentials.check_seed(value.strip(), name)
    credentials.nkeys_library(name)


def _check_public_key(name: str, value: object) -> None:
    if _is_secret(value):
        raise ValueError(f"{name} is the public key; the seed itself is given as nkeys_seed_str")


def _is_secret(value: object) -> bool:
    """Say whether somebody gave a secret, or the content of a file, where a path belongs."""
    return isinstance(value, str) and (is_credential(value) or credentials.seed_role(value.strip()) is not None)


def _wrong_type(name: str, value: object, wanted: str) -> TypeError:
    # Not the value: it may be a secret in the wrong place.
    return TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


# -- all of them -------------------------------------------------------------------------------------------------------


def _option(default: T, doc: str, check: Check | None = None) -> T:
    """Make a field of `Options`.

    Args:
        default: What holds where the caller says nothing.
        doc: What it means, as `open_client` documents it.
        check: Refuses what it cannot be, with its name and value; not called where both value and default are None.
    """
    return field(default=default, metadata={"doc": doc, "check": check})


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Options:
    """What a client is to do and to be: the options of `open_client`, checked, those that nobody gave included.

    The comment above each group names the rooms that use it. The `repr()` shows which were given, and of those only numbers.

    Raises:
        TypeError: (from the constructor) A value is of a wrong type.
        ValueError: A number is too small, or is none; options contradict each other; a secret stands where a path belongs.
        nats.errors.InvalidUserCredentialsError: A seed is not one.
        ImportError: What is needed for signing is not installed.
    """

    # What the server calls us: `identity`. Where the rest may come from: `cli_context`.
    name: str | None = _option(None, "What the server calls this connection.", _check_text)
    context: str | bool | None = _option(
        None,
        "The name of a context of the nats command line tool, or True for the selected one: servers and options come from "
        "there, as far as they are not given here.",
    )
    # Who we are: `identity`.
    user: Secret | None = _option(
        None,
        "The user name; what stands in the URL wins. This and all other credentials are found out anew at each connect: "
        "callbacks, which may be coroutine functions, are called, and files are read.",
    )
    password: Secret | None = _option(None, "The password, or a callback.")
    token: Secret | None = _option(
        None, "The token, instead of a user and password or beside other credentials; or a callback."
    )
    user_credentials: UserCredentials | None = _option(
        None,
        "The path of a credentials file, a tuple of the paths of a JWT and a seed, or the content of a credentials file as "
        "bytes; or a callback.",
        _check_credentials,
    )
    nkeys_seed: FilePath | None = _option(None, "The path of a file that holds an NKey seed.", _check_seed_file)
    nkeys_seed_str: str | None = _option(None, "An NKey seed.", _check_seed)
    nkey: str | None = _option(None, "The public NKey that goes with `signature_cb`.", _check_public_key)
    user_jwt_cb: JWTCallback | None = _option(None, "Gives the user's JWT.")
    signature_cb: SignatureCallback | None = _option(
        None, "Given the server's nonce, gives its signature: 64 bytes, or those in base64."
    )
    # How the connection is secured: `tls`, `dial`.
    tls: TLSContext | None = _option(
        None,
        "An `ssl.SSLContext`, a callback that makes one (called at each connect, so certificates are read again), or True "
        "for Python's default. Given, or with `tls://`, nothing is said to a server that offers no TLS. A server that "
        "demands TLS gets it anyway.",
        _check_tls,
    )
    tls_hostname: str | None = _option(
        None, "The name that the certificate must be for, instead of the URL's.", _check_text
    )
    tls_handshake_first: bool = _option(
        False, "Do the TLS handshake before the server speaks, as its `handshake_first` wants it."
    )
    # WebSockets: `dial`.
    ws_connection_headers: HeadersSource | None = _option(
        None, "Headers for the request that opens a WebSocket; or a callback."
    )
    ws_compression: bool = _option(False, "Offer to compress what a WebSocket carries.")
    # How the server is to talk to us: `identity`.
    verbose: bool = _option(False, "Ask the server to answer each command with `+OK`.")
    pedantic: bool = _option(False, "Ask the server to check subjects strictly.")
    no_echo: bool = _option(False, "Do not deliver what this client published to its own subscriptions.")
    # Where replies come: `_core.connection`, `migration`, `supervisor`.
    inbox_prefix: str = _option("_INBOX", "What the subjects for replies begin with, `_INBOX` unless said otherwise.")
    # Which server comes next, and when: `dial_plan`. Which of its addresses: `dial`. Whether one does: `supervisor`.
    dont_randomize: bool = _option(False, "Try the servers, and the addresses of a name, in the order given.")
    ignore_discovered_servers: bool = _option(False, "Use only the servers given here, not those that servers tell of.")
    retry_on_failed_connect: bool = _option(
        False, "Give the client at once, and connect in the background, again and again as after a loss."
    )
    allow_reconnect: bool = _option(
        True, "Whether a broken connection is made anew (True); otherwise it is lost for good."
    )
    max_reconnect_attempts: int = _option(
        MAX_ATTEMPTS, "How often each server is tried in one outage (60); -1 for ever.", _check_number
    )
    reconnect_time_wait: float = _option(
        RECONNECT_TIME_WAIT,
        "The first bound of the backoff (2 s), which doubles from attempt to attempt.",
        check_seconds,
    )
    max_reconnect_time_wait: float = _option(
        MAX_RECONNECT_TIME_WAIT, "The last bound of the backoff (8 s).", check_seconds
    )
    reconnect_delay: Callable[[int], float] | None = _option(
        None,
        "Given the number of failed attempts at a server, says how many seconds to wait before the next one, in place of "
        "the backoff. It must not block.",
        _check_function,
    )
    pick_server: PickServer | None = _option(
        None,
        "Given the servers that may be tried and the last server's INFO, says which is next and how many seconds to wait "
        "first; None as the server for the usual choice. It must not block.",
        _check_function,
    )
    ignore_auth_error_abort: bool = _option(
        False, "Go on even if a server refuses our credentials twice in the same words."
    )
    # How long things may take: `handshake`, `migration`, `_core.connection`, `supervisor`, `session`.
    connect_timeout: float = _option(
        2.0,
        "How long one attempt may take, from dialling to the server's welcome (2 s). The addresses of a name are tried one "
        "after the other, and share it.",
        check_seconds,
    )
    request_timeout: float | None = _option(
        None,
        "How long each wait for one reply may take, whatever deadline is in force: requests, flushes, calls of JetStream. "
        "None, unless something is chosen: 5 s where no deadline is in force, else for as long as that.",
        check_seconds,
    )
    close_timeout: float = _option(5.0, "How long the goodbye may take (5 s).", check_seconds)
    drain_timeout: float = _option(
        30.0,
        "How long `Client.drain` waits for consumers and replies (30 s); for a silent server, `request_timeout`.",
        check_seconds,
    )
    ping_interval: float = _option(120.0, "How often the server is pinged (120 s).", _check_pause)
    max_outstanding_pings: int = _option(2, "After how many unanswered pings the server is given up (2).", _check_count)
    # How much may wait to be sent: `supervisor`.
    pending_size: int = _option(
        2 * 1024 * 1024,
        "How many bytes may be queued before `publish` waits, or, without a connection, fails (2 MiB). 0 or less: without "
        "a connection nothing is queued.",
        _check_number,
    )
    # What is ours to replace, for tests above all: `dial`, `dial_plan`, `_core.connection`.
    dial: Dialler | None = _option(
        None,
        "Opens the connections, called with host and port; `trio.open_tcp_stream` has the form it needs.",
        _check_function,
    )
    rng: random.Random = field(
        default_factory=random.Random,
        repr=False,
        metadata={"doc": "The source of jitter and of unique names.", "check": _check_rng},
    )

    @classmethod
    def of(cls, given: ClientOptions) -> Options:
        """Read what a caller, and perhaps a context, gave.

        Raises:
            TypeError: There is no option of a given name, or as the constructor.
            Exception: As the constructor.
        """
        unknown = sorted(given.keys() - ClientOptions.__annotations__.keys())
        if unknown:
            raise TypeError(unknown_option("open_client", unknown, ClientOptions.__annotations__, _ELSEWHERE))
        own = given.copy()
        if own.get("rng") is None:  # where None is the default, some write it
            own.pop("rng", None)
        return cls(**own)

    def __post_init__(self) -> None:
        self._at_most_one("user_credentials", "user_jwt_cb")
        self._at_most_one("user_credentials", "nkeys_seed", "nkeys_seed_str", "signature_cb")
        if self.nkey is not None and self.signature_cb is None:
            raise ValueError("nkey is the public key that goes with signature_cb, which is missing")
        for option in fields(self):
            check: Check | None = option.metadata["check"]
            value = getattr(self, option.name)
            if check is not None and not (value is None and option.default is None):
                check(option.name, value)

    def __repr__(self) -> str:
        shown = []
        for option in fields(self):
            value = getattr(self, option.name)
            if option.repr and value != option.default:
                # What is a number by its kind is no secret; anything else may be one, perhaps in the wrong place.
                numbers = isinstance(option.default, (int, float)) and isinstance(value, (int, float))
                shown.append(f"{option.name}={value if numbers else '...'}")
        return f"Options({', '.join(shown)})"

    @property
    def tls_wanted(self) -> bool:
        """Whether TLS is demanded, whatever URL and server say."""
        return self.tls_handshake_first or self.tls not in (None, False)

    def _at_most_one(self, *names: str) -> None:
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"only one of these options can be given: {', '.join(given)}")


_DEADLINES = "deadlines are cancel scopes: with trio.fail_after(seconds)"
_EVENTS = "use open_events"
#: What other clients call something that we have in another form.
_ELSEWHERE = {
    "timeout": _DEADLINES,
    "flush_timeout": _DEADLINES,
    **dict.fromkeys(("error_cb", "disconnected_cb", "reconnected_cb", "closed_cb"), _EVENTS),
    **dict.fromkeys(("discovered_server_cb", "lame_duck_mode_cb", "event_cb"), _EVENTS),
    "reconnect_to_server_handler": "use pick_server",
    "flusher_queue_size": "use pending_size",
    "creds": "use user_credentials",
    "tls_context": "use tls",
    "jwt": "use user_jwt_cb",
    "auth_token": "use token",
    "max_reconnects": "use max_reconnect_attempts",
    "servers": "they are the second argument",
}


def describes_options(function: Callable[P, T]) -> Callable[P, T]:
    """Document what each option means where the function's docstring has a line `**options: ...`."""
    lines = []
    for line in (function.__doc__ or "").splitlines():
        before, marker, _ = line.partition("**options:")
        lines += (
            [line]
            if not marker
            else [_entry(before, option.name, option.metadata["doc"]) for option in fields(Options)]
        )
    function.__doc__ = "\n".join(lines)
    return function


def _entry(indent: str, name: str, doc: str) -> str:
    return textwrap.fill(f"{name}: {doc}", 120, initial_indent=indent, subsequent_indent=f"{indent}    ")
