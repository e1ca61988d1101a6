"""What the URL of a server says: where it is (design 46), how to reach it, who we are there.

Strategy: the URL is taken apart by hand. `urllib.parse` drops control characters silently and shows the whole text, password
included, in its complaints. Whatever is refused here is refused in words that hold no userinfo, no port (it may be a password
whose "@" was cut off by a comma), no path and no query; and nothing is raised while another exception is handled, because
the chain would show that one's text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from trionats import errors
from trionats._protocol.showing import is_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT_PORTS = {"nats": 4222, "tls": 4222, "ws": 80, "wss": 443}
SECURE_SCHEMES = frozenset({"tls", "wss"})
WEBSOCKET_SCHEMES = frozenset({"ws", "wss"})
# What people write instead. Other words before "://" are not shown: they may be the beginning of a password.
_FOREIGN_SCHEMES = frozenset(
    {
        "amqp",
        "data",
        "env",
        "file",
        "http",
        "https",
        "kafka",
        "mqtt",
        "nat",
        "natss",
        "nsc",
        "op",
        "redis",
        "ssl",
        "tcp",
        "wws",
    }
)

_LONGEST_LABEL = 63
_NOT_IN_HOSTS = re.compile(r"""[\x00-\x20\x7f!"#$%&'()*+,/;<=>?@\[\]\\^`{|}]|\s""")
# "@" would be lawful, but with it in the path the host is more likely to be the first half of a token or password.
_NOT_IN_PATHS = re.compile(r"[\x00-\x20\x7f#@]|\s")


@dataclass(slots=True, eq=False, repr=False)
class Server:
    """One server: where it is, who we are there, and how it has treated us.

    Neither `str()` nor `repr()` shows the user name (it may be a token), the password, or the WebSocket path and query.
    """

    host: str
    port: int
    scheme: str = "nats"
    username: str | None = None
    password: str | None = None
    path: str = ""
    """Path and query of a WebSocket URL, "" for none."""
    tls_name: str | None = None
    """The name to verify the certificate against when it is not `host`: set for discovered bare addresses."""
    explicit: bool = True
    """The user named it, so it is never pruned."""

    # What happened there; written by the pool only.
    did_connect: bool = False
    attempts: int = 0
    """Dials that failed since the client was last connected anywhere."""
    tried: bool = False
    """Dialled in this outage."""
    not_before: float = -math.inf
    """The end of its back-off."""
    last_error: Exception | None = None
    """Why the last dial failed; None after any successful login."""
    refusal: str | None = None
    """The words in which it refused our credentials last; None after any successful login."""

    @property
    def netloc(self) -> str:
        """`host:port`, an IPv6 host in brackets, without userinfo."""
        return _netloc(self.host, self.port)

    @property
    def authority(self) -> str:
        """The same as HTTP wants it, without the final dot of an absolute name."""
        return _netloc(*self.place)

    @property
    def token(self) -> str | None:
        """The URL's token: a user name without a password."""
        return self.username if self.password is None else None

    @property
    def secure(self) -> bool:
        """The scheme itself demands TLS."""
        return self.scheme in SECURE_SCHEMES

    @property
    def websocket(self) -> bool:
        """The scheme is `ws` or `wss`."""
        return self.scheme in WEBSOCKET_SCHEMES

    @property
    def verified_name(self) -> str:
        """The name that the server's certificate must be for, when the user overrides nothing."""
        return self.tls_name or certified(self.host)

    @property
    def endpoint(self) -> tuple[str, int]:
        """What is dialled: an absolute name keeps its final dot, which tells the resolver to add no domain of its own."""
        return self.host, self.port

    @property
    def place(self) -> tuple[str, int]:
        """What makes two servers the same; a final dot makes no difference."""
        return certified(self.host), self.port

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes two items of the user's list the same."""
        return self.scheme, *self.place, self.path, self.username, self.password

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    def __repr__(self) -> str:
        return f"<Server {self}{'' if self.explicit else ' (discovered)'}, failed attempts: {self.attempts}>"


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def certified(host: str) -> str:
    """Give a host's name as certificates, SNI (RFC 6066) and HTTP have it: without the final dot of an absolute one."""
    return host.removesuffix(".")


def parse_servers(servers: str | Sequence[str]) -> list[Server]:
    """Read the user's list of servers.

    The forms are `nats://`, `tls://`, `ws://` and `wss://` URLs with or without port and userinfo, and bare `host`,
    `host:port`, `[v6]:port` and `v6`, which mean `nats://`. Userinfo is percent-decoded. One string may hold several,
    separated by commas (there a comma inside userinfo is written `%2C`); each item of a sequence is one server.

    Args:
        servers: One string or a sequence of strings.

    Returns:
        One `Server` each, in order, repetitions left out.

    Raises:
        TypeError: It is neither, or an item is no string.
        ServerURLError: (a `ValueError`) The list is empty, an item is no server URL, or WebSocket URLs are mixed with
            others. The text shows no userinfo, port, path or query.
    """
    in_one = isinstance(servers, str)
    items = servers.split(",") if isinstance(servers, str) else list_of_urls(servers)
    parsed: dict[tuple[object, ...], Server] = {}
    for number, item in enumerate(items, 1):
        where = f"server {number} of {len(items)}"
        if in_one and number > 1 and "@" in item and "://" not in item:
            # Most likely the tail of a password with a comma in it. Guessed wrong, it would be a token that we send
            # to whatever stood before the comma.
            raise errors.ServerURLError(
                f"{where}: write the scheme before userinfo, and a comma within userinfo as %2C"
            )
        server = _parse(item.strip(), where)
        parsed.setdefault(server.identity, server)
    result = list(parsed.values())
    check_list(result)
    return result


def list_of_urls(servers: object) -> list[str]:
    """Take a list of URLs from whatever was given as one; its items may be secrets, so only their types are named.

    Args:
        servers: What was given.

    Returns:
        The items.

    Raises:
        TypeError: It is no list, or an item is no text.
    """
    if isinstance(servers, (bytes, bytearray)) or not isinstance(servers, Iterable):
        raise TypeError(f"servers must be a URL or a list of URLs, not {type(servers).__name__}")
    items = list(servers)
    for number, item in enumerate(items, 1):
        if not isinstance(item, str):
            raise TypeError(f"server {number} of {len(items)} must be a URL, not {type(item).__name__}")
    return items


def check_list(servers: Sequence[Server]) -> None:
    """Make sure that a list of servers can be one pool.

    Raises:
        ServerURLError: It is empty, or WebSocket servers are mixed with others.
    """
    if not servers:
        raise errors.ServerURLError("no servers given")
    if len({server.websocket for server in servers}) > 1:
        raise errors.ServerURLError(f"WebSocket and other URLs cannot be mixed: {', '.join(map(str, servers))}")


def told_servers(urls: Iterable[object], teller: Server) -> Iterator[Server]:
    """Read the `connect_urls` of a server's INFO: `host:port` each; what cannot be read is skipped.

    They inherit scheme, userinfo and WebSocket path of the teller. A bare address has no name that a certificate could be
    for, so it also inherits the teller's; a host name is verified as itself.
    """
    named = not _is_address(teller.verified_name)
    for url in urls:
        if not isinstance(url, str):
            continue  # the text is the server's; nothing in it may end our reader
        try:
            host, port = _split_location(url.strip(), "discovered server")
        except errors.ServerURLError:
            continue
        yield Server(
            host,
            port or DEFAULT_PORTS[teller.scheme],
            teller.scheme,
            teller.username,
            teller.password,
            teller.path,
            tls_name=teller.verified_name if named and _is_address(certified(host)) else None,
            explicit=False,
        )


def _parse(text: str, where: str) -> Server:
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "nats", text
    scheme = scheme.lower()
    if scheme not in DEFAULT_PORTS:
        told = f"the scheme {scheme!r}" if scheme in _FOREIGN_SCHEMES else "the scheme"
        raise errors.ServerURLError(f"{where}: {told} is none of nats, tls, ws, wss")
    end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
    authority, path = rest[:end], rest[end:]
    userinfo, at, location = authority.rpartition("@")
    if any(map(is_key, location.split(":"))):
        raise errors.ServerURLError(f"{where}: this is no server but looks like credentials, which are other options")
    if any(len(label) > _LONGEST_LABEL for label in location.partition(":")[0].split(".")):
        raise errors.ServerURLError(f"{where}: no part of a host name is longer than {_LONGEST_LABEL} characters")
    where += f" ({_shown(scheme, location, path)})"
    if scheme not in WEBSOCKET_SCHEMES and path not in {"", "/"}:
        raise errors.ServerURLError(
            f"{where}: only WebSocket URLs have a path; '/', '?', '#' in userinfo are percent-encoded"
        )
    if _NOT_IN_PATHS.search(path):
        raise errors.ServerURLError(f"{where}: the path holds a character that must be percent-encoded")
    host, port = _split_location(location, where)
    username, password = _userinfo(userinfo, where) if at else (None, None)
    if scheme not in WEBSOCKET_SCHEMES:
        path = ""
    return Server(host, port or DEFAULT_PORTS[scheme], scheme, username, password, path)


def _shown(scheme: str, location: str, path: str) -> str:
    # With an "@" behind the first "/", what looks like the host may be the beginning of a password.
    if "@" in path:
        return f"{scheme}://..."
    host, bracket, _ = location.partition("]") if location.startswith("[") else location.partition(":")
    return f"{scheme}://{host}]" if bracket == "]" else f"{scheme}://{host}"


def _split_location(location: str, where: str) -> tuple[str, int]:
    """Split `host[:port]`; port 0 means that none was given."""
    if location.startswith("["):
        host, bracket, rest = location[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise errors.ServerURLError(f"{where}: an IPv6 address stands in brackets, then perhaps a colon and a port")
        return _ipv6(host.replace("%25", "%", 1), where), _port(rest[1:], where)
    if location.count(":") > 1:
        return _ipv6(location, where), 0
    host, _, port = location.partition(":")
    if not certified(host):
        raise errors.ServerURLError(f"{where}: the host is missing")
    if host.endswith(".."):
        raise errors.ServerURLError(f"{where}: a host name ends with one dot at the most")
    if _NOT_IN_HOSTS.search(host):
        raise errors.ServerURLError(f"{where}: the host holds a character that no host name has")
    return host.lower(), _port(port, where)


def _ipv6(text: str, where: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        pass
    raise errors.ServerURLError(f"{where}: this is no IPv6 address, and a host name has no colon")


def _port(text: str, where: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise errors.ServerURLError(f"{where}: the port is not a number from 1 to 65535")
    return int(text)


def _userinfo(text: str, where: str) -> tuple[str | None, str | None]:
    if not text:
        return None, None
    user, colon, password = text.partition(":")
    return _decoded(user, where), _decoded(password, where) if colon else None


def _decoded(text: str, where: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        pass
    raise errors.ServerURLError(f"{where}: the userinfo is not UTF-8 when percent-decoded")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
