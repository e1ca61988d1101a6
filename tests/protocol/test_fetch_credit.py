"""The credit of one fetch of an ordered consumer: what it asks for, and when it is over."""

from __future__ import annotations

import json
import random
from math import inf

import pytest

from trionats._protocol.jetstream.ordered.fetch_credit import FetchCredit, limits_of
from trionats._protocol.jetstream.pull import Ending

UNTIL = 10.0


def batch(messages: int = 10, size: int = 0, *, no_wait: bool = False) -> FetchCredit:
    return FetchCredit(messages, size, until=UNTIL, no_wait=no_wait, heartbeat=2.0, rng=random.Random(1))


def came(opened: FetchCredit, size: int = 10, times: int = 1) -> None:
    for _ in range(times):
        opened.arrived(size, 0)
        opened.buffered(size)


def asked(opened: FetchCredit, now: float = 0.0, at_most: int = 0) -> str:
    """Say what it asks for; "over" where it is, "waits" where something is under way."""
    pull = opened.pull("C", now, at_most)
    if pull is None:
        return "over" if opened.over else "waits"
    said = json.loads(pull.body())
    waits = "no wait" if said.get("no_wait") else f"{pull.expires:g} s, {pull.heartbeat:g} s"
    return f"{pull.batch}/{pull.max_bytes}, {waits}"


def test_it_asks_for_what_is_missing_for_as_long_as_there_is_time() -> None:
    opened = batch(10, 1000)
    assert asked(opened) == "10/1000, 10 s, 2 s"
    assert asked(opened) == "waits"
    came(opened, times=8)
    opened.forget()  # another consumer follows
    assert asked(opened, 4) == "2/920, 6 s, 1.5 s"
    came(opened, times=2)
    assert asked(opened, 5) == "over"


def test_without_a_limit_in_bytes_none_matters() -> None:
    opened = batch(10)
    asked(opened)
    came(opened, 1 << 30)
    opened.forget()
    assert asked(opened).startswith("9/")
    assert not opened.over


@pytest.mark.parametrize("size", [100, 150])
def test_it_is_over_when_the_bytes_are_used_up(size: int) -> None:
    """To the last one, or as far as messages fit."""
    opened = batch(10, 250)
    asked(opened)
    came(opened, size)
    assert opened.status(1, 409, "Message Size Exceeds MaxBytes", {"Nats-Pending-Messages": "9"}, 1) is Ending.ENDED
    # Whether it is the next one's size or somebody else's request, another one tells.
    assert asked(opened, 1) == f"9/{250 - size}, 9 s, 2 s"
    opened.status(2, 409, "Message Size Exceeds MaxBytes", {"Nats-Pending-Messages": "9"}, 1)
    assert asked(opened, 1) == "over"
    exact = batch(10, 100)
    asked(exact)
    came(exact, 100)
    assert asked(exact) == "over"


def test_a_first_message_that_does_not_fit_is_asked_for_alone_to_show_its_size() -> None:
    opened = batch(10, 250)
    asked(opened)
    opened.status(1, 409, "Message Size Exceeds MaxBytes", {"Nats-Pending-Messages": "10"}, 1)
    assert asked(opened, 1) == "1/0, 9 s, 2 s"


@pytest.mark.parametrize("now", [UNTIL, UNTIL - 0.005])
def test_it_is_over_when_the_server_says_so_at_the_end_of_its_time(now: float) -> None:
    opened = batch()
    asked(opened)
    opened.status(1, 408, "Request Timeout", {"Nats-Pending-Messages": "10"}, now)
    assert asked(opened, now) == "over"


def test_a_request_that_ends_before_its_time_is_repeated() -> None:
    opened = batch()
    asked(opened)
    opened.status(1, 409, "Leadership Change", {}, 3)
    assert asked(opened, 3) == "10/1099511627776, 7 s, 1.75 s"


def test_without_waiting_the_servers_word_that_it_has_nothing_is_the_end() -> None:
    opened = batch(no_wait=True)
    assert asked(opened) == "10/1099511627776, no wait"
    came(opened)
    assert opened.status(1, 404, "No Messages", {}, 1) is Ending.EMPTY
    assert asked(opened, 1) == "over"


def test_a_snapshot_that_is_not_at_its_end_goes_on_behind_such_a_word() -> None:
    opened = batch(no_wait=True)
    assert asked(opened, at_most=3) == "3/1099511627776, no wait"
    opened.status(1, 404, "No Messages", {}, 1)
    assert asked(opened, 1, at_most=3) == "3/1099511627776, no wait"
    opened.status(2, 404, "No Messages", {}, 1)
    assert asked(opened, 1) == "over"


def test_silence_is_looked_into_but_not_at_the_end_of_its_time() -> None:
    opened = batch()
    assert opened.listen_until == inf
    asked(opened)
    assert (opened.listen_until, opened.silent_after) == (0.5, 4.0)
    came(opened)
    assert opened.listen_until == 4.0
    opened.arrived(10, 7)
    assert (opened.listen_until, opened.silent_after) == (inf, inf)
    opened.forget()
    assert asked(opened, UNTIL) == "over"
    assert opened.listen_until == -inf, "who waits has to look at once"


@pytest.mark.parametrize(
    ("expires", "deadline", "round_trip", "limits"),
    [
        (5, inf, None, (105, 105.25, False)),
        (5, 200, 3, (105, 105.25, False)),
        (5, 105.04, None, (105, 105.03, False)),
        (5, 105.01, None, (104.99, 105, True)),
        (5, 103, None, (102.98, 102.99, True)),
        (5, 103, 0.1, (102.8, 102.9, True)),
        (5, 103, 9, (101.5, 102.25, True)),
        (5, 100, 9, (100, 100, True)),
        (5, -inf, None, (-inf, -inf, True)),
    ],
)
def test_a_deadline_shortens_a_fetch(
    expires: float, deadline: float, round_trip: float | None, limits: tuple[float, float, bool]
) -> None:
    given = limits_of(100, expires, deadline, round_trip)
    assert given == pytest.approx(limits)
    assert given.bounded is limits[2]


def test_a_fetch_of_a_list_asks_for_all_that_it_wants_where_any_number_of_bytes_may_come() -> None:
    opened = FetchCredit(300, 0, until=UNTIL, no_wait=False, heartbeat=5.0, rng=random.Random(1))
    opened.by_list = True
    pull = opened.pull("C", 0.0)
    assert pull is not None
    assert (pull.batch, pull.max_bytes) == (300, 0)


def test_a_fetch_of_a_list_that_is_bounded_in_bytes_asks_for_as_many_messages_as_may_fit() -> None:
    """The last of them may be too many: whoever collects them refuses it."""
    opened = FetchCredit(300, 10_000, until=UNTIL, no_wait=False, heartbeat=5.0, rng=random.Random(1))
    opened.by_list = True
    asked = []
    for size in (100, 100, 1000, 1000):
        pull = opened.pull("C", 0.0)
        assert pull is not None
        assert pull.max_bytes == 0
        asked.append(pull.batch)
        opened.arrived(size, 0.0)
        opened.buffered(size)
        opened.status(pull.number, 408, "Request Timeout", {"Nats-Pending-Messages": f"{pull.batch - 1}"}, 0.0)
    assert asked == [64, 65, 66, 8]
