"""Which server next, and how long to wait before it.

Strategy
--------
The pool keeps every server it was told of and never throws an explicit one away. An *outage* begins when the pool is
made or when the current server is lost, and ends with `connected`. Within an outage

* every server is dialled once without a wait of its own, the one just lost after all others;
* after that a server waits, counted from its last failure, a random time between nothing and a bound that doubles with
  each failure (full jitter): `reconnect_time_wait`, twice that, ... up to `max_reconnect_time_wait`;
* a server is dialled at most `max_attempts` times, and only a finished login (`connected`) resets the count: a server
  that accepts the socket and refuses the rest must not keep us trying for ever.

What begins an outage for one client usually begins it for all its neighbours in the same millisecond, and with one
server, or with one survivor, all of them would dial it in the same millisecond too. So the first dial after a loss waits
a random time up to a quarter of `reconnect_time_wait`, whichever server it goes to. Where connections do not live longer
than `reconnect_time_wait` this first wait doubles from loss to loss up to the maximum, so that a server which accepts
and then drops us cannot make us spin. The very first connect does not wait at all.

Time is whatever the caller's clock says; randomness is a `random.Random` that the caller seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from nats.errors import ServerNotInPoolError

from trionats import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from random import Random

DEFAULT_PORTS = {"nats": 4222, "tls": 4222, "ws": 80, "wss": 443}
SECURE_SCHEMES = frozenset({"tls", "wss"})
WEBSOCKET_SCHEMES = frozenset({"ws", "wss"})

MAX_ATTEMPTS = 60  # nats-py and nats.go
RECONNECT_TIME_WAIT = 2.0  # nats-py and nats.go
MAX_RECONNECT_TIME_WAIT = 8.0
_MAX_DOUBLINGS = 30  # keeps 2.0**n a small number
FIRST_WAIT_SHARE = 0.25  # of reconnect_time_wait: wide enough that 200 clients fill no 10 ms with a tenth of them


@dataclass(slots=True, eq=False, repr=False)
class Server:
    """One server: where it is, who we are there, and how it has treated us.

    Neither `str()` nor `repr()` shows the user name (which may be a token), the password, or the WebSocket path and query.
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

    did_connect: bool = False
    attempts: int = 0
    """Failed dials since the pool was last connected."""
    not_before: float = -math.inf
    tried: bool = False
    """Dialled in this outage."""
    last_error: Exception | None = None
    auth_error: str | None = None
    """The last refusal of our credentials, until a login succeeds."""

    @property
    def netloc(self) -> str:
        """`host:port`, an IPv6 host in brackets, without userinfo."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

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
        return self.tls_name or self.host

    @property
    def endpoint(self) -> tuple[str, int]:
        """What makes two servers the same to the network."""
        return self.host, self.port

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes two entries of the user's list the same."""
        return self.scheme, self.host, self.port, self.path, self.username, self.password

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    def __repr__(self) -> str:
        return f"<Server {self}{'' if self.explicit else ' (discovered)'}, {self.attempts} failed attempts>"


@dataclass(frozen=True, slots=True)
class Dial:
    """Dial `server`, but not before the clock says `not_before`."""

    server: Server
    not_before: float


def parse_servers(servers: str | Sequence[str]) -> list[Server]:
    """Read the user's list of servers.

    The forms are `nats://`, `tls://`, `ws://` and `wss://` URLs with or without port and userinfo, and bare `host`,
    `host:port`, `[v6]:port` and `v6`, which mean `nats://`. Userinfo is percent-decoded. One string may hold several,
    separated by commas (there a comma inside userinfo is written `%2C`); the items of a sequence are one server each.

    Args:
        servers: One string or a sequence of strings.

    Returns:
        One `Server` each, in order, repetitions left out.

    Raises:
        ValueError: The list is empty, an item is no server URL, or WebSocket URLs are mixed with others. The text
            shows no userinfo, path or query.
    """
    items = servers.split(",") if isinstance(servers, str) else list(servers)
    split = isinstance(servers, str)
    parsed: dict[tuple[object, ...], Server] = {}
    for number, item in enumerate(items, 1):
        where = f"server {number} of {len(items)}"
        if split and number > 1 and "@" in item and "://" not in item:
            # Most likely the tail of a password with a comma in it; taken for a URL it would be shown in the logs.
            raise ValueError(f"{where}: write the scheme before userinfo, and a comma within userinfo as %2C")
        server = _parse(item.strip(), where)
        parsed.setdefault(server.identity, server)
    result = list(parsed.values())
    _check_pool(result)
    return result


def _check_pool(servers: Sequence[Server]) -> None:
    if not servers:
        raise ValueError("no servers given")
    if len({server.websocket for server in servers}) > 1:
        raise ValueError(f"WebSocket and other URLs cannot be mixed: {', '.join(map(str, servers))}")


def _parse(text: str, where: str) -> Server:
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "nats", text
    scheme = scheme.lower()
    if scheme not in DEFAULT_PORTS:
        # Not shown: "user:pass://..." would be a password.
        raise ValueError(f"{where}: the scheme is none of nats, tls, ws, wss")
    end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    authority, tail = rest[:end], rest[end:]
    userinfo, at, location = authority.rpartition("@")
    where = f"{where} ({_shown(scheme, location, tail)})"
    if scheme not in WEBSOCKET_SCHEMES and tail not in {"", "/"}:
        raise ValueError(f"{where}: only WebSocket URLs have a path; '/', '?' and '#' in userinfo are percent-encoded")
    if "#" in tail or any(ord(c) <= 32 or ord(c) == 127 for c in tail):
        raise ValueError(f"{where}: the path holds a character that must be percent-encoded")
    host, port = _split_location(location, where)
    username, password = _userinfo(userinfo, where) if at else (None, None)
    path = tail if scheme in WEBSOCKET_SCHEMES else ""
    return Server(host, port or DEFAULT_PORTS[scheme], scheme, username, password, path)


def _shown(scheme: str, location: str, tail: str) -> str:
    # With an "@" behind the authority, what looks like the host may be the beginning of a password with a "/" in it;
    # what looks like a port may be a password, cut off from its "@" by a comma.
    if "@" in tail:
        return f"{scheme}://..."
    host = location.partition("]")[0] + "]" if location.startswith("[") else location.partition(":")[0]
    return f"{scheme}://{host!r}"


def _split_location(location: str, where: str) -> tuple[str, int]:
    """Split `host[:port]`; port 0 means that none was given."""
    if location.startswith("["):
        host, bracket, rest = location[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{where}: an IPv6 address stands in brackets, then perhaps a colon and a port")
        return _ipv6(host.replace("%25", "%", 1), where), _port(rest[1:], where)
    if location.count(":") > 1:
        return _ipv6(location, where), 0
    host, _, port = location.partition(":")
    if not host:
        raise ValueError(f"{where}: the host is missing")
    if any(ord(c) <= 32 or ord(c) == 127 or c in '"%<>[]\\^`{|}' for c in host):
        raise ValueError(f"{where}: the host holds a character that no host name has")
    return host.lower(), _port(port, where)


def _ipv6(text: str, where: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        pass
    # Outside the handler: the caught error's text, and so the chain, would show what may be a password with colons.
    raise ValueError(f"{where}: not an IPv6 address, and a host name has no colon")


def _port(text: str, where: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise ValueError(f"{where}: the port is not a number from 1 to 65535")
    return int(text)


def _userinfo(text: str, where: str) -> tuple[str | None, str | None]:
    user, colon, password = text.partition(":")
    if not text:
        return None, None
    return _decoded(user, where), _decoded(password, where) if colon else None


def _decoded(text: str, where: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        pass
    # Outside the handler for the same reason as in _ipv6.
    raise ValueError(f"{where}: the userinfo is not UTF-8 when percent-decoded")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class ServerPool:
    """The servers we know, in what order to dial them, and when.

    The caller asks `next`, waits until the dial's `not_before`, dials, logs in, and reports `connected` or `failed`; when
    an established connection ends it reports `lost`. Asking again without reporting gives the same answer, so a wait may be
    interrupted and the question put again.

    Args:
        servers: What `parse_servers` returned.
        rng: For the shuffling and the jitter.
        dont_randomize: Keep the order given.
        max_attempts: Dials of each server in one outage; negative for no limit. With 0 a lost connection is not
            re-established; the first connect still tries every server once.
        reconnect_time_wait: The first bound of the back-off, in seconds.
        max_reconnect_time_wait: The last bound of the back-off.
        ignore_discovered_servers: Never add what a server says about others.
        ignore_auth_error_abort: Do not give up when a server refuses our credentials twice in the same words.
        reconnect_delay: Takes the failed attempts of a server and returns the seconds to wait; replaces the back-off.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        *,
        rng: Random,
        dont_randomize: bool = False,
        max_attempts: int = MAX_ATTEMPTS,
        reconnect_time_wait: float = RECONNECT_TIME_WAIT,
        max_reconnect_time_wait: float = MAX_RECONNECT_TIME_WAIT,
        ignore_discovered_servers: bool = False,
        ignore_auth_error_abort: bool = False,
        reconnect_delay: Callable[[int], float] | None = None,
    ) -> None:
        if not 0 <= reconnect_time_wait < math.inf or not 0 <= max_reconnect_time_wait < math.inf:
            raise ValueError("reconnect_time_wait and max_reconnect_time_wait are finite and not negative")
        self._rng = rng
        self._dont_randomize = dont_randomize
        self._max_attempts = max_attempts
        self._wait = reconnect_time_wait
        self._max_wait = max(max_reconnect_time_wait, reconnect_time_wait)
        self._ignore_discovered = ignore_discovered_servers
        self._ignore_auth_abort = ignore_auth_error_abort
        self._delay = reconnect_delay
        self._servers: list[Server] = []
        self._current: Server | None = None
        self._just_lost: Server | None = None
        self._was_connected = False
        self._connected_at = -math.inf
        self._gate = -math.inf  # no dial before this: the wait that follows a loss
        self._short_lives = 0
        self._last_error: Exception | None = None
        self._refused: Exception | None = None
        self.replace(servers)

    @property
    def servers(self) -> tuple[Server, ...]:
        """All servers, in the order in which they are dialled first."""
        return tuple(self._servers)

    @property
    def current(self) -> Server | None:
        """The server we are connected to."""
        return self._current

    @property
    def last_error(self) -> Exception | None:
        """Why the last dial or connection failed."""
        return self._last_error

    def next(self, now: float, *, avoiding: Server | None = None) -> Dial | None:
        """Say which server to dial, and when. Changes nothing.

        Args:
            now: The clock.
            avoiding: A server to leave out, for a planned move away from it.

        Returns:
            The dial, or None when no server is left; `surrender` says why.
        """
        if self._refused is not None:
            return None
        limit = self._limit()
        candidates = [s for s in self._servers if s is not avoiding and s.attempts < limit]
        if not candidates:
            return None
        # min() takes the first of equals, so that the order of the pool decides.
        server = min(candidates, key=lambda s: (s.tried, s.not_before if s.tried else s is self._just_lost))
        return Dial(server, max(now, self._gate, server.not_before))

    def dial(self, server: Server, now: float, delay: float = 0.0) -> Dial:
        """Make the dial that the user's own choice of a server asks for.

        Args:
            server: One of `servers`.
            now: The clock.
            delay: The seconds to wait first.

        Returns:
            The dial, without regard to the back-off.

        Raises:
            nats.errors.ServerNotInPoolError: `server` is not in the pool.
        """
        if server not in self._servers:
            raise errors.explained(ServerNotInPoolError, f"server {server} is not in the pool")
        return Dial(server, now + max(delay, 0.0))

    def connected(self, server: Server, now: float) -> None:
        """Note that the login on `server` is finished: the outage is over and every count begins anew.

        Args:
            server: The server of the dial.
            now: The clock.
        """
        for each in {*self._servers, server}:
            each.attempts = 0
            each.tried = False
            each.not_before = -math.inf
        server.did_connect = True
        server.last_error = server.auth_error = self._last_error = None
        self._current = server
        self._just_lost = None
        self._connected_at = now
        self._was_connected = True
        self._gate = -math.inf

    def failed(self, server: Server, error: Exception, now: float) -> None:
        """Note that `server` could not be dialled or did not let us in.

        Args:
            server: The server of the dial.
            error: Why. The same `AuthorizationError` twice in a row from one server ends the search; everything else,
                limits of the account included, is tried again.
            now: The clock.
        """
        server.tried = True
        server.attempts += 1
        server.last_error = self._last_error = error
        if isinstance(error, errors.AuthorizationError):
            text = str(error).casefold()
            if text == server.auth_error and not self._ignore_auth_abort:
                self._refused = error
            server.auth_error = text
        server.not_before = now + self._pause(server)

    def lost(self, server: Server, now: float, error: Exception | None = None, *, forced: bool = False) -> None:
        """Note that the established connection to `server` ended, which begins an outage.

        Args:
            server: The server of the connection. One that has been replaced by a planned move is not an outage.
            now: The clock.
            error: Why it ended.
            forced: We ended it ourselves, so that nobody else is dialling in this moment: no wait.
        """
        if server is not self._current:
            return
        self._current = None
        self._just_lost = server
        self._last_error = server.last_error = error
        bound = min(self._wait * FIRST_WAIT_SHARE * 2.0**self._short_lives, self._max_wait)
        short = now - self._connected_at < self._wait
        self._short_lives = min(self._short_lives + 1, _MAX_DOUBLINGS) if short else 0
        self._gate = now if forced else now + self._rng.uniform(0.0, bound)

    def discovered(self, urls: Iterable[str], via: Server | None = None) -> list[Server]:
        """Take over what a server says about the others (`connect_urls` of its INFO).

        The others inherit scheme, userinfo and WebSocket path of the server that told of them; a bare address also the
        name to verify its certificate against. Discovered servers that are not told of any more are forgotten, except
        the current one and the teller. An empty list says nothing.

        Args:
            urls: `host:port` each; what cannot be read is skipped.
            via: The server that says so; the current one when left out.

        Returns:
            The servers that are new.
        """
        teller = via or self._current
        if self._ignore_discovered or teller is None:
            return []
        told = {server.endpoint: server for server in _told(urls, teller)}
        if not told:
            return []
        keep = {*told, teller.endpoint}
        self._servers = [s for s in self._servers if s.explicit or s is self._current or s.endpoint in keep]
        known = {server.endpoint for server in self._servers}
        new = [server for endpoint, server in told.items() if endpoint not in known]
        self._servers += new
        if new:
            self._shuffle()
        return new

    def replace(self, servers: Sequence[Server]) -> None:
        """Put other servers in the place of all, discovered ones included; what stays keeps its counts.

        The connection that stands is not touched: the new servers count from the next outage or attempt on.

        Args:
            servers: What `parse_servers` returned.

        Raises:
            ValueError: None, or WebSocket servers mixed with others.
        """
        _check_pool(servers)
        known = {server.identity: server for server in self._servers}
        kept: dict[tuple[object, ...], Server] = {}
        for new in servers:
            server = kept.setdefault(new.identity, known.get(new.identity, new))
            server.explicit = True
        self._servers = list(kept.values())
        self._shuffle()

    def hurry(self) -> None:
        """Forget all waits: the next dial is due at once."""
        self._gate = -math.inf
        for server in self._servers:
            server.not_before = -math.inf

    def surrender(self) -> Exception:
        """Say why `next` returned None.

        Returns:
            The refusal when a server refused our credentials twice, else a `NoServersError` that lists the servers.
        """
        if self._refused is not None:
            return self._refused
        tried = ", ".join(f"{s} ({s.attempts} attempts)" for s in self._servers)
        error = errors.explained(errors.NoServersError, f"no server left to try: {tried}")
        error.__cause__ = self._last_error
        return error

    def _limit(self) -> float:
        if self._max_attempts < 0:
            return math.inf
        return self._max_attempts if self._was_connected else max(self._max_attempts, 1)

    def _pause(self, server: Server) -> float:
        if self._delay is not None:
            return max(self._delay(server.attempts), 0.0)
        doublings = min(server.attempts - 1, _MAX_DOUBLINGS)
        return self._rng.uniform(0.0, min(self._wait * 2.0**doublings, self._max_wait))

    def _shuffle(self) -> None:
        if not self._dont_randomize:
            self._rng.shuffle(self._servers)


def _told(urls: Iterable[str], teller: Server) -> Iterable[Server]:
    named = not _is_address(teller.verified_name)
    for url in urls:
        try:
            host, port = _split_location(url.strip(), "discovered server")
        except ValueError:
            continue
        tls_name = teller.verified_name if named and _is_address(host) else None
        yield Server(
            host,
            port or DEFAULT_PORTS[teller.scheme],
            teller.scheme,
            teller.username,
            teller.password,
            teller.path,
            tls_name,
            explicit=False,
        )
