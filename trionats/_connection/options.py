"""What `open_client` is told, checked and sorted: for the pool, and for the supervisor.

The public form is `ClientOptions`; the floors below see only what concerns them.
"""

from __future__ import annotations

import difflib
import math
import random
import ssl
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from trionats._connection import dial as _transport
from trionats._connection import identity as _identity
from trionats._connection.dial import TransportOptions, dial_tcp
from trionats._connection.identity import Identity
from trionats._connection.tls import TLSOptions
from trionats._protocol.auth.login import LoginOptions
from trionats._protocol.servers import ServerPool, parse_servers
from trionats._version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import trio

    from trionats._connection.identity import UserCredentials
    from trionats._protocol.servers import PickServer, Server


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


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """How to connect, and when to give up; the names are those of the client's options, in seconds and bytes."""

    identity: Identity
    transport: TransportOptions
    inbox_prefix: bytes
    retry_on_failed_connect: bool
    allow_reconnect: bool
    pick_server: PickServer | None
    connect_timeout: float
    close_timeout: float
    ping_interval: float
    max_outstanding_pings: int
    pending_size: int


#: The least that times may be, in seconds; above that all numbers are fine, those without end included. A ping each 0 s
#: would be nothing but pings.
_LEAST_SECONDS = {
    "connect_timeout": 0.0,
    "request_timeout": 0.0,
    "close_timeout": 0.0,
    "drain_timeout": 0.0,
    "ping_interval": 0.001,
    "reconnect_time_wait": 0.0,
    "max_reconnect_time_wait": 0.0,
}
_LEAST_NUMBERS = {"max_reconnect_attempts": -math.inf, "pending_size": -math.inf, "max_outstanding_pings": 1}
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
_CALLBACKS = ("reconnect_delay", "pick_server", "dial")


def check_options(options: ClientOptions) -> None:
    """Refuse what would show late and far from its cause: in the middle of an outage, or in a goodbye that never ends.

    What concerns credentials is looked at where they are used.

    Args:
        options: The options of `open_client`.

    Raises:
        TypeError: There is no option of a given name, or a value is of a wrong type.
        ValueError: A number is too small, or is none.
    """
    given: Mapping[str, object] = options
    unknown = sorted(set(given) - set(ClientOptions.__annotations__))
    if unknown:
        raise TypeError(f"open_client() has no option {'; '.join(map(_unknown, unknown))}")
    for name in _LEAST_SECONDS.keys() & given.keys():
        if name != "request_timeout" or given[name] is not None:
            check_seconds(name, given[name])
    for name in _LEAST_NUMBERS.keys() & given.keys():
        value = given[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong_type(name, value, "a whole number")
        if value < _LEAST_NUMBERS[name]:
            raise ValueError(f"{name} is {value}: it must be {_LEAST_NUMBERS[name]} or more")
    for name in _CALLBACKS:
        if given.get(name) is not None and not callable(given[name]):
            raise _wrong_type(name, given[name], "a function")
    for name in ("name", "tls_hostname"):
        if given.get(name) is not None and not isinstance(given[name], str):
            raise _wrong_type(name, given[name], "text")
    if given.get("rng") is not None and not isinstance(given["rng"], random.Random):
        raise _wrong_type("rng", given["rng"], "a random.Random")
    secure = given.get("tls")
    if not (secure is None or isinstance(secure, (bool, ssl.SSLContext)) or callable(secure)):
        raise _wrong_type("tls", secure, "an ssl.SSLContext, True, or a function that makes a context")


def _unknown(name: str) -> str:
    """Name an option that there is not, and what may have been meant."""
    hint = _ELSEWHERE.get(name)
    if hint is None:
        near = difflib.get_close_matches(name, ClientOptions.__annotations__, 1, 0.7)
        hint = f"did you mean {near[0]!r}?" if near else None
    return f"{name!r}{f': {hint}' if hint else ''}"


def _wrong_type(name: str, value: object, wanted: str) -> TypeError:
    # Not the value: it may be a secret in the wrong place.
    return TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


def check_seconds(name: str, value: object) -> None:
    """Refuse what is no time to wait.

    Args:
        name: The option.
        value: What was given for it.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, or not a number.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _wrong_type(name, value, "a number of seconds")
    least = _LEAST_SECONDS[name]
    if not value >= least:
        raise ValueError(f"{name} is {value}: it must be {least:g} s or more")


def usable_servers(servers: str | Sequence[str]) -> list[Server]:
    """Read a list of servers, and make sure that they can be reached.

    Args:
        servers: One URL or several.

    Returns:
        The servers.

    Raises:
        ValueError: A URL is not valid.
        ImportError: A URL is a WebSocket's, and the extra `websocket` is not installed.
    """
    parsed = parse_servers(servers)
    for server in parsed:
        if server.websocket:
            _transport.require_websocket(server)
    return parsed


def server_pool(
    servers: str | Sequence[str], options: ClientOptions, rng: random.Random, failed: Callable[[str, Exception], None]
) -> ServerPool:
    """Make the pool of servers that the options describe.

    Args:
        servers: One URL or several.
        options: The client's options.
        rng: For the shuffling and the jitter.
        failed: Told of an option whose callback failed, and why.

    Returns:
        The pool.

    Raises:
        ValueError: A URL or an option is not valid.
        ImportError: A URL is a WebSocket's, and the extra `websocket` is not installed.
    """
    return ServerPool(
        usable_servers(servers),
        rng=rng,
        dont_randomize=options.get("dont_randomize", False),
        max_attempts=options.get("max_reconnect_attempts", 60),
        reconnect_time_wait=options.get("reconnect_time_wait", 2.0),
        max_reconnect_time_wait=options.get("max_reconnect_time_wait", 8.0),
        ignore_discovered_servers=options.get("ignore_discovered_servers", False),
        ignore_auth_error_abort=options.get("ignore_auth_error_abort", False),
        reconnect_delay=None if (delay := options.get("reconnect_delay")) is None else _guarded_delay(delay, failed),
    )


def supervisor_options(options: ClientOptions, rng: random.Random) -> SupervisorOptions:
    """Pick what concerns the supervisor, with the defaults filled in.

    Args:
        options: The client's options.
        rng: For the order of a name's addresses.

    Returns:
        The supervisor's.

    Raises:
        ValueError: Options contradict each other.
        nats.errors.InvalidUserCredentialsError: A seed is not one.
        ImportError: The extra `nkeys` is needed and not installed.
    """
    tls = TLSOptions(options.get("tls"), options.get("tls_hostname"), options.get("tls_handshake_first", False))
    fixed = LoginOptions(version=__version__, tls=tls.wanted, **_given(options, *_FIXED))
    return SupervisorOptions(
        identity=Identity(fixed, **_given(options, *_identity.OPTIONS)),
        transport=TransportOptions(
            dial=options.get("dial") or partial(dial_tcp, rng=None if options.get("dont_randomize") else rng),
            tls=tls,
            ws_connection_headers=options.get("ws_connection_headers"),
            ws_compression=options.get("ws_compression", False),
        ),
        inbox_prefix=f"{options.get('inbox_prefix', '_INBOX')}.".encode(),
        retry_on_failed_connect=options.get("retry_on_failed_connect", False),
        allow_reconnect=options.get("allow_reconnect", True),
        pick_server=options.get("pick_server"),
        connect_timeout=options.get("connect_timeout", 2.0),
        close_timeout=options.get("close_timeout", 5.0),
        ping_interval=options.get("ping_interval", 120.0),
        max_outstanding_pings=options.get("max_outstanding_pings", 2),
        pending_size=options.get("pending_size", 2 * 1024 * 1024),
    )


def _guarded_delay(
    delay: Callable[[int], float], failed: Callable[[str, Exception], None]
) -> Callable[[int], float | None]:
    """Let nothing that the user's callback does end the connection: where it fails, the usual back-off holds."""

    def guarded(attempts: int) -> float | None:
        try:
            seconds = delay(attempts)
            if not 0 <= seconds < math.inf:
                raise ValueError(f"the delay is {seconds}: it must be neither negative nor infinite")
        except Exception as error:
            failed("reconnect_delay", error)
            return None
        return seconds

    return guarded


_FIXED = ("name", "no_echo", "verbose", "pedantic")


def _given(options: ClientOptions, *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}  # type: ignore[literal-required]
