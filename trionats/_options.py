"""What `open_client` is told, checked and sorted: for the pool, and for the link.

The public form is `ClientOptions`; the floors below see only what concerns them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from trionats import _identity, _transport
from trionats._identity import Identity
from trionats._protocol.login import LoginOptions
from trionats._protocol.servers import ServerPool, parse_servers
from trionats._tls import TLSOptions
from trionats._transport import TransportOptions
from trionats._version import __version__

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import trio

    from trionats._identity import UserCredentials


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
    allow_reconnect: bool
    max_reconnect_attempts: int
    reconnect_time_wait: float
    connect_timeout: float
    request_timeout: float
    close_timeout: float
    ping_interval: float
    max_outstanding_pings: int
    pending_size: int
    dial: Callable[[str, int], Awaitable[trio.abc.Stream]]
    rng: random.Random


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How to connect, and when to give up; the names are those of the client's options, in seconds and bytes."""

    identity: Identity
    transport: TransportOptions
    allow_reconnect: bool
    connect_timeout: float
    close_timeout: float
    ping_interval: float
    max_outstanding_pings: int
    pending_size: int


def server_pool(servers: str | Sequence[str], options: ClientOptions, rng: random.Random) -> ServerPool:
    """Make the pool of servers that the options describe.

    Args:
        servers: One URL or several.
        options: The client's options.
        rng: For the shuffling and the jitter.

    Returns:
        The pool.

    Raises:
        ValueError: A URL or an option is not valid.
        ImportError: A URL is a WebSocket's, and the extra `websocket` is not installed.
    """
    parsed = parse_servers(servers)
    for server in parsed:
        if server.websocket:
            _transport.require_websocket(server)
    return ServerPool(
        parsed,
        rng=rng,
        dont_randomize=options.get("dont_randomize", False),
        max_attempts=options.get("max_reconnect_attempts", 60),
        reconnect_time_wait=options.get("reconnect_time_wait", 2.0),
    )


def link_options(options: ClientOptions) -> LinkOptions:
    """Pick what concerns the link, with the defaults filled in.

    Args:
        options: The client's options.

    Returns:
        The link's.

    Raises:
        TypeError: There is no option of a given name.
        ValueError: Options contradict each other.
        nats.errors.InvalidUserCredentialsError: A seed is not one.
        ImportError: The extra `nkeys` is needed and not installed.
    """
    unknown = sorted(set(options) - set(ClientOptions.__annotations__))
    if unknown:
        raise TypeError(f"open_client() has no option {', '.join(map(repr, unknown))}")
    tls = TLSOptions(options.get("tls"), options.get("tls_hostname"), options.get("tls_handshake_first", False))
    fixed = LoginOptions(version=__version__, tls=tls.wanted, **_given(options, *_FIXED))
    return LinkOptions(
        identity=Identity(fixed, **_given(options, *_identity.OPTIONS)),
        transport=TransportOptions(
            dial=options.get("dial", _transport.dial_tcp),
            tls=tls,
            ws_connection_headers=options.get("ws_connection_headers"),
            ws_compression=options.get("ws_compression", False),
        ),
        allow_reconnect=options.get("allow_reconnect", True),
        connect_timeout=options.get("connect_timeout", 2.0),
        close_timeout=options.get("close_timeout", 5.0),
        ping_interval=options.get("ping_interval", 120.0),
        max_outstanding_pings=options.get("max_outstanding_pings", 2),
        pending_size=options.get("pending_size", 2 * 1024 * 1024),
    )


_FIXED = ("name", "no_echo", "verbose", "pedantic")


def _given(options: ClientOptions, *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}  # type: ignore[literal-required]
