"""The pool of servers: which next, when, and when to give up."""

from __future__ import annotations

import math
import random
import traceback
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nats.errors import ServerNotInPoolError

from trionats import errors
from trionats._protocol.addresses import Server, parse_servers
from trionats._protocol.servers import Dial, KnownServer, ServerPool

REFUSED = ConnectionRefusedError(111, "connection refused")
LIMIT = errors.Error("the server says: maximum account active connections exceeded")


def auth_error(text: str = "authorization violation") -> Exception:
    return errors.explained(errors.AuthorizationError, text)


def make_pool(servers: str = "a,b,c", *, seed: int = 0, **options: Any) -> ServerPool:  # noqa: ANN401 - the pool's own
    options.setdefault("dont_randomize", True)
    return ServerPool(parse_servers(servers), rng=random.Random(seed), **options)


def due(pool: ServerPool, now: float = 0.0, avoiding: Server | None = None) -> Dial:
    dial = pool.next(now, avoiding=avoiding)
    assert dial is not None
    return dial


def fail(pool: ServerPool, now: float = 0.0, error: Exception = REFUSED) -> tuple[str, float]:
    """Let the next dial fail at once; its server and time."""
    dial = due(pool, now)
    pool.failed(dial.server, error, dial.not_before)
    return dial.server.host, dial.not_before


def connect(pool: ServerPool, now: float = 0.0) -> Server:
    dial = due(pool, now)
    pool.connected(dial.server, dial.not_before)
    return dial.server


def outage(pool: ServerPool, now: float = 100.0, **how: Any) -> Server:  # noqa: ANN401 - the pool's own
    """Connect, and lose the connection."""
    server = connect(pool)
    pool.lost(server, now, **how)
    return server


def hosts(pool: ServerPool) -> list[str]:
    return [server.host for server in pool.servers]


def told(pool: ServerPool, *urls: str, **how: Any) -> list[str]:  # noqa: ANN401 - the pool's own
    """Tell of servers; those that are new."""
    return list(map(str, pool.discovered([*urls], **how)))


def told_by_seed(*urls: str) -> tuple[ServerPool, Server]:
    """Connect to the one server of a pool, and hear of others."""
    pool = make_pool("seed")
    server = connect(pool)
    pool.discovered([*urls])
    return pool, server


def test_the_order_is_shuffled_and_all_are_tried_at_once() -> None:
    pools = [make_pool(seed=seed, dont_randomize=False) for seed in [*range(100)] * 2]
    orders = [tuple(fail(pool) for _ in range(3)) for pool in pools]
    assert len(set(orders[:100])) == 6
    assert orders[:100] == orders[100:]
    assert {time for order in orders for _, time in order} == {0.0}


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_server_just_lost_goes_last(lost: int) -> None:
    pool = make_pool()
    server = pool.servers[lost]
    pool.connected(server, 0.0)
    pool.lost(server, 100.0)
    assert [fail(pool, 200.0)[0] for _ in range(3)] == [*"abc".replace(server.host, ""), server.host]


def test_the_order_is_kept_when_asked_for_and_then_the_wait_that_ends_first_decides() -> None:
    delays = iter([3.0, 1.0, 2.0, 9.0])
    pool = make_pool(reconnect_delay=lambda _: next(delays))
    assert [fail(pool) for _ in range(4)] == [("a", 0.0), ("b", 0.0), ("c", 0.0), ("b", 1.0)]
    assert due(pool, 1.0).server.host == "c"
    # a clock beyond the wait is not turned back
    assert due(pool, 50.0).not_before == 50.0


def test_a_planned_move_leaves_the_current_server_out() -> None:
    pool = make_pool("a,b")
    current = connect(pool)
    assert due(pool, 5.0, avoiding=current) == Dial(pool.servers[1], 5.0)
    assert make_pool("a").next(0.0, avoiding=current) is not None
    alone = make_pool("a")
    assert alone.next(0.0, avoiding=alone.servers[0]) is None
    # the old connection's end is no outage once another one stands
    pool.connected(pool.servers[1], 6.0)
    pool.lost(current, 7.0)
    assert pool.current is pool.servers[1]
    assert pool.last_error is None


def test_what_fails_in_a_planned_move_is_no_part_of_the_outage_that_follows() -> None:
    pool = make_pool("a,b", max_attempts=2)
    current = connect(pool)
    refusal = auth_error()
    for now in range(2):
        pool.failed(pool.servers[1], refusal, float(now))
        assert (pool.next(100.0, avoiding=current) is None) == (now == 1), "the refusal ends no move, the number does"
    pool.lost(current, 200.0)
    assert due(pool, 300.0).server is pool.servers[1]
    pool.failed(pool.servers[1], refusal, 300.0)
    assert due(pool, 400.0).server is current
    pool.failed(pool.servers[1], refusal, 400.0)
    assert pool.next(500.0) is None, "now it is the outage's"
    assert pool.surrender() is refusal


class Pick:
    """A program's own choice: one of the first servers that it was shown, or none."""

    def __init__(self, place: int | None) -> None:
        self.place = place
        self.shown: list[KnownServer] = []

    def __call__(self, known: tuple[KnownServer, ...], _: object) -> tuple[KnownServer | None, float]:
        self.shown += known
        return None if self.place is None else self.shown[self.place], 0.0


def test_a_choice_that_was_kept_is_known_by_its_url() -> None:
    pool, pick = make_pool("a,b"), Pick(1)
    for _ in range(2):
        assert pool.picked(pick, {}, 1.0) == Dial(pool.servers[1], 1.0)
        pool.failed(pool.servers[1], REFUSED, 1.0)


@pytest.mark.parametrize("place", [0, 1])
def test_of_two_servers_that_look_the_same_the_chosen_one_is_dialled(place: int) -> None:
    pool = make_pool("nats://u:1@a,nats://v:2@a")
    assert len({str(server) for server in pool.servers}) == 1
    dial = pool.picked(Pick(place), {}, 1.0)
    assert dial is not None
    assert dial.server is pool.servers[place]


def test_a_choice_in_a_planned_move_is_among_the_others() -> None:
    pool, pick = make_pool("a,b,c"), Pick(None)
    current = connect(pool)
    assert pool.picked(Pick(-1), {}, 1.0, avoiding=current) == Dial(pool.servers[2], 1.0)
    assert pool.picked(pick, {}, 1.0, avoiding=current) == pool.next(1.0, avoiding=current)
    assert [each.url for each in pick.shown] == ["nats://b:4222", "nats://c:4222"]


def test_a_choice_is_not_asked_for_where_nothing_is_left() -> None:
    pool, pick = make_pool("a", max_attempts=1), Pick(None)
    outage(pool, 1.0)
    pool.failed(pool.servers[0], REFUSED, 2.0)
    assert pool.picked(pick, {}, 3.0) is None
    assert not pick.shown


def test_the_users_own_choice() -> None:
    pool = make_pool()
    assert pool.dial(pool.servers[2], 5.0) == Dial(pool.servers[2], 5.0)
    assert pool.dial(pool.servers[2], 5.0, 1.5).not_before == 6.5
    assert pool.dial(pool.servers[2], 5.0, -1.0).not_before == 5.0
    stranger = parse_servers("nats://u:s3cr3t@x")[0]
    with pytest.raises(ServerNotInPoolError, match=r"nats://x:4222 is not in the pool") as caught:
        pool.dial(stranger, 5.0)
    assert "s3cr3t" not in str(caught.value)


def test_back_off_is_exponential_with_full_jitter_and_a_cap() -> None:
    waits: list[list[float]] = [[] for _ in range(6)]
    for seed in range(300):
        pool = make_pool("a", seed=seed)
        now = fail(pool)[1]
        for attempt in waits:
            then = fail(pool, now)[1]
            attempt.append(then - now)
            now = then
    for attempt, bound in zip(waits, (2.0, 4.0, 8.0, 8.0, 8.0, 8.0), strict=True):
        assert min(attempt) < bound * 0.05
        assert bound * 0.95 < max(attempt) <= bound
        assert sum(attempt) / len(attempt) == pytest.approx(bound / 2, rel=0.1)


def test_the_users_wait_may_exceed_the_cap_and_may_be_nothing() -> None:
    for seed in range(3):
        pool = make_pool("a", seed=seed, reconnect_time_wait=60.0)
        assert fail(pool)[1] == 0.0 < due(pool).not_before <= 60.0
    pool = make_pool("a", reconnect_time_wait=0.0, max_attempts=100)
    assert {fail(pool)[1] for _ in range(100)} == {0.0}


@pytest.mark.parametrize("option", ["reconnect_time_wait", "max_reconnect_time_wait"])
@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_senseless_waits_are_refused(option: str, value: float) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(ValueError, match="neither negative nor infinite"):
        make_pool("a", **options)


def test_the_delay_function_replaces_the_back_off() -> None:
    seen: list[int] = []

    def delay(attempts: int) -> float:
        seen.append(attempts)
        return attempts * 10.0 if attempts < 3 else -1.0

    pool = make_pool("a", reconnect_delay=delay)
    assert [fail(pool, now)[1] for now in (0.0, 0.0, 10.0, 30.0)] == [0.0, 10.0, 30.0, 30.0]
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("servers", ["a", "a,b"])
def test_the_first_dial_after_a_loss_is_spread_whichever_server_it_goes_to(servers: str) -> None:
    pool = make_pool(servers)
    outage(pool)
    gate = due(pool, 100.0).not_before
    assert 100.0 < gate <= 100.5
    # it is one wait for all: the second server follows at once
    assert {fail(pool, 100.0)[1] for _ in pool.servers} == {gate}


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_two_hundred_clients_losing_a_server_do_not_return_as_a_herd(size: int) -> None:
    dials: dict[str, list[float]] = {}
    for seed in range(200):
        pool = make_pool(",".join("abcde"[:size]), seed=seed, dont_randomize=False)
        [lost] = [server for server in pool.servers if server.host == "a"]
        pool.connected(lost, -1000.0)
        pool.lost(lost, 0.0)
        dial = due(pool)
        dials.setdefault(dial.server.host, []).append(dial.not_before)
    assert ("a" in dials) == (size == 1)
    for times in dials.values():
        assert max(Counter(int(time / 0.010) for time in times).values()) <= len(times) / 10


def test_a_server_that_always_drops_us_does_not_make_us_spin() -> None:
    for seed in range(100):
        pool, now, dials = make_pool("a,b", seed=seed), 0.0, 0
        while now < 60.0:
            server = connect(pool, now)
            now = due(pool, now).not_before
            pool.lost(server, now)
            now = due(pool, now).not_before
            dials += 1
        assert dials < 60


def life(pool: ServerPool, begin: float, end: float, place: int = 0, **how: Any) -> float:  # noqa: ANN401 - the pool's own
    """Let a connection stand for so long; the wait after it."""
    pool.connected(pool.servers[place], begin)
    pool.lost(pool.servers[place], end, **how)
    return due(pool, end).not_before - end


def short_lives(**options: Any) -> ServerPool:  # noqa: ANN401 - the pool's own
    """A pool that lost a hundred connections the moment they stood: the bound of its first wait is at its maximum."""
    pool = make_pool(**options)
    assert max(life(pool, 0.0, 0.0) for _ in range(100)) <= 8.0
    return pool


@pytest.mark.parametrize("healthy", ["", "reconnected", "moved"])
def test_a_connection_that_lived_makes_the_very_next_wait_short_again(healthy: str) -> None:
    for seed in range(50):
        pool = short_lives(servers="a,b", seed=seed)
        # 1 s behind a reconnect or a move is a short life again, but the first one.
        if healthy:
            pool.connected(pool.servers[0], 0.0)
        if healthy == "reconnected":
            pool.lost(pool.servers[0], 86_400.0, forced=True)
        assert 0.0 <= life(pool, 86_400.0 if healthy else 0.0, 86_401.0, place=int(healthy == "moved")) <= 0.5


def test_connections_that_live_for_the_wait_do_not_count_as_short() -> None:
    pool = short_lives(servers="a")
    assert 0.0 <= life(pool, 0.0, 2.0) <= 0.5
    assert 0.0 <= life(pool, 2.0, 3.0) <= 0.5  # the first short one
    assert life(pool, 3.0, 4.0) <= 1.0  # the second: twice as long at the most


def test_a_forced_end_of_a_short_life_does_not_forget_those_before_it() -> None:
    waits = []
    for seed in range(50):
        pool = short_lives(servers="a", seed=seed)
        life(pool, 0.0, 1.0, forced=True)
        waits.append(life(pool, 1.0, 1.0))
    assert max(waits) > 4.0


def test_only_a_finished_login_begins_the_count_anew() -> None:
    pool = make_pool("a,b", max_attempts=3)
    outage(pool, 0.0)
    for _ in range(5):
        fail(pool)
    connect(pool)
    assert {server.attempts for server in pool.servers} == {0}
    pool.lost(pool.servers[0], 100.0)
    pool.lost(pool.servers[1], 100.0)
    for _ in range(6):
        fail(pool)
    assert pool.next(100.0) is None


@pytest.mark.parametrize("error", [REFUSED, LIMIT])
def test_for_ever_whatever_fails_and_limits_of_the_account_do(error: Exception) -> None:
    pool = make_pool("a", max_attempts=-1)
    now = 0.0
    for _ in range(3000):
        now = fail(pool, now, error)[1]
    assert due(pool, now).not_before <= now + 8.0


def test_no_attempt_at_all() -> None:
    pool = make_pool("a", max_attempts=0)
    outage(pool)
    assert pool.next(100.0) is None
    assert str(pool.surrender()) == "no server may be tried"


LOGIN = None
OTHER = "user authentication expired"


@pytest.mark.parametrize(
    ("servers", "options", "ends"),
    [
        # The first connect is tried once at the least.
        ("a", {"max_attempts": 0}, [REFUSED]),
        ("a", {"max_attempts": 2}, [REFUSED, LOGIN, REFUSED, REFUSED]),
        # The same refusal twice on one server ends it, unless it is ignored. Another one or a login breaks the row.
        ("a,b", {"max_attempts": -1}, [auth_error(), auth_error(), auth_error("Authorization VIOLATION")]),
        ("a", {"max_attempts": -1}, [auth_error(), auth_error(OTHER), auth_error(), LOGIN, auth_error(), auth_error()]),
        ("a", {"max_attempts": -1}, [auth_error(), REFUSED, auth_error()]),
        ("a", {"max_attempts": 10, "ignore_auth_error_abort": True}, [auth_error() for _ in range(10)]),
    ],
)
def test_when_there_is_nothing_left_to_try(servers: str, options: Any, ends: list[Exception | None]) -> None:  # noqa: ANN401 - the pool's own
    pool = make_pool(servers, **options)
    for error in ends:
        if error is LOGIN:
            outage(pool)
        else:
            fail(pool, error=error)
    assert pool.next(0.0) is None
    error = pool.surrender()
    assert ends[-1] in (error, error.__cause__)


def test_giving_up_names_the_servers_and_has_the_cause() -> None:
    pool = make_pool("nats://u:s3cr3t@a,nats://s3cr3t@b", max_attempts=1)
    fail(pool, error=OSError("s3cr3t of somebody else's making"))
    fail(pool)
    error = pool.surrender()
    assert isinstance(error, errors.NoServersError)
    assert str(error).endswith(": nats://a:4222 (1 x, OSError), nats://b:4222 (1 x, ConnectionRefusedError)")
    assert error.__cause__ is pool.last_error is REFUSED
    assert "s3cr3t" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([errors.AuthorizationError] * 2, errors.AuthorizationError),
        ([errors.SecureConnWantedError] * 2, errors.SecureConnWantedError),
        ([errors.SecureConnRequiredError] * 2, errors.SecureConnRequiredError),
        ([errors.SecureConnFailedError] * 2, errors.SecureConnFailedError),
        ([errors.AuthorizationError, ConnectionRefusedError], errors.NoServersError),
        ([ConnectionRefusedError, errors.AuthorizationError], errors.NoServersError),
        ([errors.UnexpectedEOF] * 2, errors.NoServersError),
    ],
)
def test_a_verdict_common_to_all_servers_is_the_reason(found: list[type[Exception]], expected: type[Exception]) -> None:
    pool = make_pool("a,b", max_attempts=1)
    for kind in found:
        fail(pool, error=kind())
    assert type(pool.surrender()).__name__ == expected.__name__
    assert isinstance(pool.surrender(), expected)


def test_discovered_servers_come_and_go() -> None:
    pool = make_pool("tls://u:p@seed")
    connect(pool)
    assert told(pool, "1.1.1.1:1", "seed:4222", "1.1.1.2:2") == ["tls://1.1.1.1:1", "tls://1.1.1.2:2"]
    assert told(pool, "1.1.1.2:2", "1.1.1.3:3", "SEED:4222") == ["tls://1.1.1.3:3"]
    assert told(pool) == told(pool, "1.1.1.2:2", "1.1.1.3:3") == told(pool, "no good") == []
    assert [str(s) for s in pool.servers] == ["tls://seed:4222", "tls://1.1.1.2:2", "tls://1.1.1.3:3"]
    for server in pool.servers:
        assert (server.username, server.password, server.verified_name) == ("u", "p", "seed")
    assert (told(pool, "seed:4222"), hosts(pool)) == ([], ["seed"])


@pytest.mark.parametrize("nonsense", [None, 7, "b:1", {"b:1": 1}, [7, None, ["b:1"]]])
def test_what_is_no_list_of_texts_says_nothing(nonsense: object) -> None:
    pool, _ = told_by_seed("c:1")
    assert pool.discovered(nonsense) == []
    assert hosts(pool) == ["seed", "c"]


def test_the_current_server_and_the_teller_are_not_pruned() -> None:
    pool, _ = told_by_seed("b:1", "c:1", "d:1")
    b, c = pool.servers[1:3]
    pool.connected(b, 0.0)
    pool.discovered(["e:1"], via=c)
    assert hosts(pool) == ["seed", "b", "c", "e"]


def test_a_server_is_the_same_with_and_without_the_final_dot_of_its_name() -> None:
    pool = make_pool("a.,b")
    server = connect(pool)
    assert told(pool, "a:4222", "b.:4222", "c.:4222") == ["nats://c.:4222"]
    assert told(pool, "c:4222") == []
    assert list(map(str, pool.servers)) == ["nats://a.:4222", "nats://b:4222", "nats://c.:4222"]
    pool.replace(parse_servers("a"))
    assert pool.servers == (server,)


def test_discovery_can_be_ignored_and_needs_a_teller() -> None:
    pool = make_pool("seed", ignore_discovered_servers=True)
    connect(pool)
    assert told(pool, "b:1") == []
    pool = make_pool("seed")
    assert told(pool, "b:1") == []
    assert hosts(pool) == ["seed"]
    assert told(pool, "b:1", via=pool.servers[0]) == ["nats://b:1"]


def test_discovered_servers_are_shuffled_in_and_keep_no_seat_of_the_lost_one() -> None:
    orders = set()
    for seed in range(50):
        pool = make_pool("seed", seed=seed, dont_randomize=False)
        server = connect(pool)
        told(pool, "b:1", "c:1")
        pool.lost(server, 100.0)
        orders.add("".join(fail(pool, 100.0)[0] for _ in range(3)))
    assert orders == {"bcseed", "cbseed"}


def test_a_server_told_of_is_known_by_its_endpoint_whatever_its_userinfo() -> None:
    pool = make_pool("nats://u:p@a,nats://v:q@a,nats://b")
    connect(pool)
    assert told(pool, "a:4222", "b:4222") == []
    assert len(pool.servers) == 3


def test_replacing_keeps_what_is_known_of_those_that_stay() -> None:
    pool = make_pool("a,b", max_attempts=2)
    fail(pool)
    fail(pool)
    old = pool.servers[1]
    pool.replace(parse_servers("b,c,nats://b:4222"))
    assert (hosts(pool), pool.servers[0], old.attempts) == (["b", "c"], old, 1)
    assert fail(pool) == ("c", 0.0)


def test_replacing_makes_a_discovered_server_explicit_and_drops_the_others() -> None:
    pool, current = told_by_seed("b:1", "c:1")
    pool.replace(parse_servers("b:1"))
    (server,) = pool.servers
    assert server.explicit
    # the connection stands although its server is not in the pool, and its end begins an outage all the same
    assert [pool.current] == [current]
    pool.lost(current, 100.0, REFUSED)
    assert pool.current is None
    assert pool.last_error is REFUSED
    assert due(pool, 100.0).server is server


def test_the_current_server_that_was_replaced_is_the_same_one_when_it_is_told_of() -> None:
    """It is a discovered one from then on, and the server that is lost goes last as ever."""
    pool, current = told_by_seed()
    pool.replace(parse_servers("b"))
    assert pool.discovered(["seed.:4222"]) == [current]
    assert not current.explicit
    pool.lost(current, 100.0)
    assert fail(pool, 100.0)[0] == "b"
    assert due(pool, 100.0).server is current


def test_a_replaced_server_may_still_report() -> None:
    pool = make_pool("a")
    dial = due(pool)
    pool.replace(parse_servers("b"))
    pool.failed(dial.server, REFUSED, 0.0)
    assert due(pool).server.host == "b"
    pool.connected(dial.server, 1.0)
    assert pool.current is dial.server
    assert dial.server.attempts == 0


def test_a_bad_replacement_changes_nothing() -> None:
    pool = make_pool("a,b")
    for bad in ([], [*parse_servers("ws://x"), *parse_servers("y")]):
        with pytest.raises(ValueError, match=r"no servers|mixed"):
            pool.replace(bad)
    assert hosts(pool) == ["a", "b"]
    with pytest.raises(ValueError, match="no servers"):
        ServerPool([], rng=random.Random(0))


HOSTS = ["a", "b", "c", "d", "e"]
ANY_SEED = st.integers(0, 1 << 16)
SOME_HOSTS = st.lists(st.sampled_from(HOSTS), min_size=1, unique=True)
WAIT = 2.0
MAX_WAIT = 8.0

connected = precondition(lambda self: self.current is not None)
disconnected = precondition(lambda self: self.current is None)


class PoolMachine(RuleBasedStateMachine):
    """A model that knows less than the pool: who must be in it, how often each was dialled, when each may be again."""

    pool: ServerPool

    @initialize(explicit=SOME_HOSTS, seed=ANY_SEED, keep_order=st.booleans(), attempts=st.sampled_from([1, 2, 3, 7]))
    def begin(self, explicit: list[str], seed: int, keep_order: bool, attempts: int) -> None:
        limits = {"max_attempts": attempts, "reconnect_time_wait": WAIT, "max_reconnect_time_wait": MAX_WAIT}
        self.pool = make_pool(",".join(explicit), seed=seed, dont_randomize=keep_order, **limits)
        self.attempts = attempts
        self.now = 0.0
        self.explicit = set(explicit)
        self.current: Any = None
        self.just_lost = ""
        self.dials: Counter[str] = Counter()
        self.untried = set(explicit)
        self.may_dial: dict[str, float] = {}
        self.refused: dict[str, str] = {}
        self.over = False

    def dial(self) -> Dial | None:
        """Ask, compare with the model, and go to the time that was said. To ask changes nothing."""
        dial = self.pool.next(self.now)
        assert dial == self.pool.next(self.now)
        left = [s for s in self.pool.servers if self.dials[s.host] < self.attempts]
        if self.over or not left:
            assert dial is None
            assert isinstance(self.pool.surrender(), errors.Error)
            return None
        assert dial is not None
        host = dial.server.host
        assert dial.server in left
        assert max(self.now, self.may_dial.get(host, self.now)) <= dial.not_before <= self.now + MAX_WAIT
        fresh = {s.host for s in left} & self.untried
        if fresh:
            assert host in fresh
            assert host != self.just_lost or fresh == {host}
        self.now = max(self.now, dial.not_before)
        return dial

    @disconnected
    @rule(took=st.floats(0, 3), refusal=st.sampled_from(["", "authorization violation", "user authentication expired"]))
    def dial_fails(self, took: float, refusal: str) -> None:
        if (dial := self.dial()) is None:
            return
        server, host = dial.server, dial.server.host
        self.now += took
        self.pool.failed(server, auth_error(refusal) if refusal else REFUSED, self.now)
        self.dials[host] += 1
        self.untried.discard(host)
        self.may_dial[host] = server.not_before
        assert self.now <= server.not_before <= self.now + min(WAIT * 2 ** (self.dials[host] - 1), MAX_WAIT)
        if refusal:
            self.over = self.refused.get(host) == refusal
            self.refused[host] = refusal

    @disconnected
    @rule()
    def login_succeeds(self) -> None:
        if dial := self.dial():
            self.pool.connected(dial.server, self.now)
            self.current = dial.server
            for known in (self.dials, self.refused, self.may_dial):
                known.clear()

    @connected
    @rule(lived=st.floats(0, 20), forced=st.booleans())
    def connection_ends(self, lived: float, forced: bool) -> None:
        self.now += lived
        server, self.current = self.current, None
        self.pool.lost(server, self.now, forced=forced)
        self.just_lost = server.host
        self.untried = set(HOSTS)
        if (dial := self.pool.next(self.now)) is not None:
            assert dial.not_before == self.now or not forced
            self.may_dial = dict.fromkeys(HOSTS, dial.not_before)

    @connected
    @rule(urls=st.lists(st.sampled_from([*HOSTS, "no good", ""]), unique=True))
    def servers_are_told_of(self, urls: list[str]) -> None:
        before = set(hosts(self.pool))
        readable = set(urls) & set(HOSTS)
        new = self.pool.discovered([host and f"{host}:4222" for host in urls])
        assert {s.host for s in new} == readable - before
        expected = (before & (self.explicit | readable | {self.current.host})) | readable if readable else before
        assert set(hosts(self.pool)) == expected

    @rule(explicit=SOME_HOSTS)
    def pool_is_replaced(self, explicit: list[str]) -> None:
        before = set(hosts(self.pool))
        self.pool.replace(parse_servers(explicit))
        self.explicit = set(explicit)
        assert set(hosts(self.pool)) == self.explicit
        assert self.current is None or (self.current in self.pool.servers) == (self.current.host in self.explicit)
        # what was dropped is forgotten: it comes back as a new server
        for host in set(HOSTS) - (before & self.explicit):
            for known in (self.dials, self.refused, self.may_dial):
                known.pop(host, None)
            self.untried.add(host)
            if host == self.just_lost:
                self.just_lost = ""

    @rule()
    def hurry(self) -> None:
        self.pool.hurry()
        self.may_dial.clear()
        dial = self.pool.next(self.now)
        assert dial is None or dial.not_before == self.now

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def nobody_is_lost_or_doubled(self) -> None:
        present = hosts(self.pool)
        assert len(present) == len(set(present))
        assert self.explicit <= set(present)
        assert {s.host for s in self.pool.servers if s.explicit} == self.explicit
        assert self.pool.current is self.current


PoolMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestPool = PoolMachine.TestCase
