"""What `open_client` is told, checked and sorted: for the pool, and for the link.

The public form is `ClientOptions`; the floors below see only what concerns them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from trionats import _transport
from trionats._protocol.login import LoginOptions
from trionats._protocol.servers import ServerPool, parse_servers
from trionats._version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import trio


class ClientOptions(TypedDict, total=False):
    """The options of `open_client`; the names are nats-py's where it has one. All times are in seconds."""

    name: str
    user: str
    password: str
    token: str
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

    login: LoginOptions
    dial: Callable[[str, int], Awaitable[trio.abc.Stream]]
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
    """
    return ServerPool(
        parse_servers(servers),
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
    """
    unknown = sorted(set(options) - set(ClientOptions.__annotations__))
    if unknown:
        raise TypeError(f"open_client() has no option {', '.join(map(repr, unknown))}")
    who = ("name", "user", "password", "token", "no_echo", "verbose", "pedantic")
    return LinkOptions(
        login=LoginOptions(version=__version__, **{key: options[key] for key in who if key in options}),  # type: ignore[literal-required]
        dial=options.get("dial", _transport.dial_tcp),
        allow_reconnect=options.get("allow_reconnect", True),
        connect_timeout=options.get("connect_timeout", 2.0),
        close_timeout=options.get("close_timeout", 5.0),
        ping_interval=options.get("ping_interval", 120.0),
        max_outstanding_pings=options.get("max_outstanding_pings", 2),
        pending_size=options.get("pending_size", 2 * 1024 * 1024),
    )
