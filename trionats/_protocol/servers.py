"""Which server next, and how long to wait before it.

Strategy
--------
The pool keeps every server it was told of and never throws an explicit one away. An *outage* begins when the pool is
made or when the current server is lost, and ends with `connected`. Within an outage

* every server is dialled once without a back-off of its own, the one just lost after all others;
* after that a server waits, counted from its last failure, a random time between nothing and a bound that doubles with
  each failure (full jitter): `reconnect_time_wait`, twice that, ... up to `max_reconnect_time_wait`; the server whose
  wait ends first comes next;
* a server is dialled at most `max_attempts` times, and only a finished login (`connected`) begins the count anew: a
  server that accepts the socket and refuses the rest must not keep us trying for ever. Dials that fail in a migration,
  while the connection stands, are no part of the outage that may follow.

What begins an outage for one client usually begins it for all its neighbours in the same millisecond, and with one
server, or with one survivor, all of them would dial it in the same millisecond too. So the first dial after a loss waits
a random time up to a quarter of `reconnect_time_wait`, whichever server it goes to. Where connections do not outlive
`reconnect_time_wait` the bound of this first wait doubles from loss to loss, up to the maximum, so that a server which
lets us in and then drops us cannot make us spin. The very first connect does not wait at all.

Time is whatever the caller's clock says; randomness is a `random.Random` that the caller seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final

from nats.errors import ServerNotInPoolError

from trionats import errors
from trionats._protocol.addresses import check_list, told_servers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from trionats._protocol.addresses import Server

MAX_ATTEMPTS = 60  # nats-py and nats.go
RECONNECT_TIME_WAIT = 2.0  # nats-py and nats.go
MAX_RECONNECT_TIME_WAIT = 8.0

# Half a second by default: wide enough that, of 200 clients, no 10 ms see a tenth, also when survivors share them.
FIRST_WAIT_SHARE = 0.25

_MAX_DOUBLINGS = 30  # keeps 2.0**n finite; every bound is at its maximum long before

# What a server says about us rather than about itself: if all of them say it, it is the reason for giving up.
_VERDICTS = (
    errors.AuthorizationError,
    errors.SecureConnRequiredError,
    errors.SecureConnWantedError,
    errors.SecureConnFailedError,
)


@final
@dataclass(frozen=True, slots=True)
class KnownServer:
    """One server of the pool, as the `pick_server` option sees it.

    Attributes:
        url: Where it is, without secrets.
        discovered: Whether another server told of it.
        did_connect: Whether the client was ever connected to it.
        attempts: How many dials have failed since the client was last connected anywhere.
        last_error: Why the last one failed.
    """

    url: str
    discovered: bool
    did_connect: bool
    attempts: int
    last_error: Exception | None


PickServer: TypeAlias = Callable[[tuple[KnownServer, ...], dict[str, Any]], tuple[KnownServer | None, float]]


@dataclass(frozen=True, slots=True)
class Dial:
    """Dial `server`, but not before the clock says `not_before`."""

    server: Server
    not_before: float


class ServerPool:
    """The servers we know, in what order to dial them, and when.

    The caller asks `next`, waits until the dial's `not_before`, dials, logs in, and reports `connected` or `failed`; when
    an established connection ends it reports `lost`. `next` changes nothing, so a wait may be interrupted at any time and
    the question put again.

    Args:
        servers: What `parse_servers` returned.
        rng: For the shuffling and the jitter.
        dont_randomize: Keep the order given.
        max_attempts: Dials of each server in one outage; negative for no limit. With 0 a lost connection is not
            re-established, and the first one is dialled once.
        reconnect_time_wait: The first bound of the back-off, in seconds; with 0 there is none.
        max_reconnect_time_wait: The last bound of the back-off; `reconnect_time_wait` if that is greater.
        ignore_discovered_servers: Never add what a server says about others.
        ignore_auth_error_abort: Do not give up when a server refuses our credentials twice in the same words.
        reconnect_delay: Takes the failed attempts of a server and returns the seconds to wait, or None for the back-off.

    Raises:
        ValueError: No servers, WebSocket servers mixed with others, or a wait that is negative or not finite.
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
        reconnect_delay: Callable[[int], float | None] | None = None,
    ) -> None:
        if not 0 <= reconnect_time_wait < math.inf or not 0 <= max_reconnect_time_wait < math.inf:
            raise ValueError("reconnect_time_wait and max_reconnect_time_wait are neither negative nor infinite")
        self._rng = rng
        self._dont_randomize = dont_randomize
        self._later_limit = math.inf if max_attempts < 0 else max_attempts
        self._limit = max(self._later_limit, 1)
        self._wait = reconnect_time_wait
        self._max_wait = max(max_reconnect_time_wait, reconnect_time_wait)
        self._ignore_discovered = ignore_discovered_servers
        self._ignore_auth_abort = ignore_auth_error_abort
        self._delay = reconnect_delay
        self._servers: list[Server] = []
        self._current: Server | None = None
        self._connected_at = -math.inf
        self._just_lost: Server | None = None
        self._gate = -math.inf  # no dial before this: the wait that follows a loss
        self._short_lives = 0  # connections in a row that did not outlive reconnect_time_wait
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
        """Why the last dial failed or the connection ended; None since the last successful login."""
        return self._last_error

    def next(self, now: float, *, avoiding: Server | None = None) -> Dial | None:
        """Say which server to dial, and when.

        Args:
            now: The clock.
            avoiding: A server to leave out, for a migration away from it.

        Returns:
            The dial, or None when no server is left; `surrender` says why.
        """
        if self._refused is not None:
            return None
        candidates = self._left(avoiding)
        if not candidates:
            return None
        # min() takes the first of equals, so among the untried the order of the pool decides.
        server = min(candidates, key=lambda s: (s.tried, s.not_before if s.tried else s is self._just_lost))
        return Dial(server, max(now, self._gate, server.not_before))

    def dial(self, server: Server, now: float, delay: float = 0.0) -> Dial:
        """Make the dial that the user's own choice of a server asks for, without regard to the back-off.

        Args:
            server: One of `servers`.
            now: The clock.
            delay: The seconds to wait first.

        Returns:
            The dial.

        Raises:
            nats.errors.ServerNotInPoolError: `server` is not in the pool.
        """
        if server not in self._servers:
            raise errors.explained(ServerNotInPoolError, f"server {server} is not in the pool")
        return Dial(server, now + max(delay, 0.0))

    def picked(
        self, pick: PickServer, info: dict[str, Any], now: float, *, avoiding: Server | None = None
    ) -> Dial | None:
        """Let the user choose the next server among those that may still be tried.

        Args:
            pick: Given the servers and what the last one said of itself, returns one of them and the seconds to wait; None
                for the choice that `next` would make.
            info: What the last server said of itself.
            now: The clock.
            avoiding: A server to leave out, for a migration away from it.

        Returns:
            The dial, or None when no server is left.

        Raises:
            nats.errors.ServerNotInPoolError: The choice is not in the pool.
            Exception: Whatever `pick` raises, and what follows where it returns something else.
        """
        usual = self.next(now, avoiding=avoiding)
        if usual is None:
            return None
        left = self._left(avoiding)
        known = tuple(map(_known, left))
        chosen, delay = pick(known, info)
        if not 0 <= delay < math.inf:
            raise ValueError(f"the delay is {delay}: it must be neither negative nor infinite")
        if chosen is None:
            return Dial(usual.server, usual.not_before + delay)
        # One that was kept from an earlier call is another object, and may say other things of the same server.
        for same in (lambda its: chosen is its, lambda its: chosen.url == its.url):
            for server, its in zip(left, known, strict=True):
                if same(its):
                    return self.dial(server, now, delay)
        raise errors.explained(ServerNotInPoolError, f"server {chosen.url} is not in the pool")

    def spread(self) -> float:
        """Say how long to wait before a migration, since all clients of the server were asked to go in this moment."""
        return self._rng.uniform(0.0, min(self._wait * FIRST_WAIT_SHARE, self._max_wait))

    def connected(self, server: Server, now: float) -> None:
        """Note that the login on `server` is finished: the outage is over and every count begins anew.

        Args:
            server: The server of the dial.
            now: The clock.
        """
        server.did_connect = True
        if self._current is not None:
            self._lived(now)  # a migration: the connection that is left has not been lost
        self._current = server
        self._begin_anew()
        self._connected_at = now
        self._limit = self._later_limit
        self._just_lost = self._last_error = None
        self._gate = -math.inf

    def failed(self, server: Server, error: Exception, now: float) -> None:
        """Note that `server` could not be dialled or did not let us in.

        Args:
            server: The server of the dial.
            error: Why. The same `AuthorizationError` twice in a row from one server ends the search, unless a connection
                stands; everything else, limits of the account included, is tried again. A dial that did not get as far
                as our credentials changes nothing of that.
            now: The clock.
        """
        server.tried = True
        server.attempts += 1
        server.last_error = self._last_error = error
        if isinstance(error, errors.AuthorizationError):
            words = str(error).casefold()
            if words == server.refusal and self._current is None and not self._ignore_auth_abort:
                self._refused = error
            server.refusal = words
        server.not_before = now + self._back_off(server.attempts)

    def lost(self, server: Server, now: float, error: Exception | None = None, *, forced: bool = False) -> None:
        """Note that the established connection to `server` ended, which begins an outage.

        Args:
            server: The server of the connection. If a migration has left it behind, this is not an outage.
            now: The clock.
            error: Why it ended.
            forced: The user wanted it, so nobody else dials in this moment and nothing waits.
        """
        if server is not self._current:
            return
        self._begin_anew()
        self._current = None
        self._just_lost = server
        self._last_error = error
        short = not self._lived(now)
        if forced:
            return
        bound = min(self._wait * FIRST_WAIT_SHARE * 2.0**self._short_lives, self._max_wait)
        if short:
            self._short_lives = min(self._short_lives + 1, _MAX_DOUBLINGS)
        self._gate = now + self._rng.uniform(0.0, bound)

    def hurry(self) -> None:
        """Forget all waits: the next dial is due at once."""
        self._gate = -math.inf
        for server in self._servers:
            server.not_before = -math.inf

    def discovered(self, urls: object, via: Server | None = None) -> list[Server]:
        """Take over what a server says about the others (`connect_urls` of its INFO).

        To be asked only with an INFO that came after the login: one that comes before TLS may be anybody's. The others
        inherit scheme, userinfo and WebSocket path of the server that told of them, and a bare address also the name to
        verify its certificate against. Discovered servers that are not told of any more are forgotten, except the
        current one and the teller. A list without one readable entry says nothing.

        Args:
            urls: A list of `host:port`. It is the server's, so whatever cannot be read is skipped.
            via: The server that says so; the current one when left out.

        Returns:
            The servers that are new.
        """
        teller = via or self._current
        if self._ignore_discovered or teller is None or not isinstance(urls, (list, tuple)):
            return []
        told = {server.place: server for server in told_servers(urls, teller)}
        if not told:
            return []
        if (current := self._current) is not None and current.place in told and current not in self._servers:
            # Replaced and now told of: it must be the same object, or the server we lose would seem fresh.
            current.explicit = False
            told[current.place] = current
        self._servers = [s for s in self._servers if s.explicit or s is self._current or s is teller or s.place in told]
        known = {server.place for server in self._servers}
        new = [server for place, server in told.items() if place not in known]
        if new:
            self._servers += new
            self._shuffle()
        return new

    def replace(self, servers: Sequence[Server]) -> None:
        """Put other servers in the place of all, discovered ones included; what stays keeps its counts.

        The connection that stands is not touched: the new servers count from the next dial on.

        Args:
            servers: What `parse_servers` returned.

        Raises:
            ValueError: None, or WebSocket servers mixed with others.
        """
        check_list(servers)
        known = {server.identity: server for server in self._servers}
        if self._current is not None:
            known.setdefault(self._current.identity, self._current)
        kept: dict[tuple[object, ...], Server] = {}
        for new in servers:
            server = kept.setdefault(new.identity, known.get(new.identity, new))
            server.explicit = True
        self._servers = list(kept.values())
        self._shuffle()

    def surrender(self) -> Exception:
        """Say why `next` returned None.

        Returns:
            The refusal, when a server refused our credentials twice; the last verdict on us, when every server came to
            one of its kind (credentials refused, TLS missing or failed); else a `NoServersError` that lists the servers,
            with the last error as its cause.
        """
        if self._refused is not None:
            return self._refused
        for kind in _VERDICTS:
            if isinstance(self._last_error, kind) and all(isinstance(s.last_error, kind) for s in self._servers):
                return self._last_error
        # Only the class of each error: its text is the business of whoever made it.
        tried = [f"{s} ({s.attempts} x, {type(s.last_error).__name__})" for s in self._servers if s.last_error]
        text = f"no server left to try: {', '.join(tried)}" if tried else "no server may be tried"
        error = errors.explained(errors.NoServersError, text)
        error.__cause__ = self._last_error
        return error

    def _lived(self, now: float) -> bool:
        """Say whether the connection that ends outlived `reconnect_time_wait`; one that did makes the next wait short."""
        lived = now - self._connected_at >= self._wait
        if lived:
            self._short_lives = 0
        return lived

    def _left(self, avoiding: Server | None) -> list[Server]:
        """Give the servers that may still be tried."""
        return [s for s in self._servers if s is not avoiding and s.attempts < self._limit]

    def _begin_anew(self) -> None:
        """Forget what was tried."""
        for each in {*self._servers, *([self._current] if self._current else [])}:
            each.attempts = 0
            each.tried = False
            each.not_before = -math.inf
            each.last_error = each.refusal = None

    def _back_off(self, attempts: int) -> float:
        if self._delay is not None and (delay := self._delay(attempts)) is not None:
            return max(delay, 0.0)
        doublings = min(attempts - 1, _MAX_DOUBLINGS)
        return self._rng.uniform(0.0, min(self._wait * 2.0**doublings, self._max_wait))

    def _shuffle(self) -> None:
        if not self._dont_randomize:
            self._rng.shuffle(self._servers)


def _known(server: Server) -> KnownServer:
    return KnownServer(str(server), not server.explicit, server.did_connect, server.attempts, server.last_error)
