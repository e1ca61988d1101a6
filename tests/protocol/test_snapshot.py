"""When all has come that was stored: what is counted, what makes the count doubtful, and how the doubt ends."""

from __future__ import annotations

import json

import pytest

from tests.protocol.readers import SIZE, play, reading
from trionats._protocol.jetstream.actions import Inspect

STORIES = {
    "nothing stored": "snapshot 0 | caught_up",
    "nothing new": "new 0 | caught_up",
    "nothing that is old is new": "new 3 | caught_up",
    "it is the count that ends it, not what is said to be pending": "all 5 | 1:2,2:0,3:10,4:9,5:0=+++++!",
    # Measured: of s.0 to s.5, s.0 was read, then s.0, s.2 and s.9 written; s.2 came after the sixth message.
    "one that was overtaken": """snapshot 6 | 1:5,2:6,4:5,5:4,6:3,7:2,8:1,9:0=++++++++ inspect=False
        create_at_once:3=last_per_subject 7:2,8:1,9:0=---!""",
    "purged while it opens": "snapshot 5 | nothing=False create_at_once:0=last_per_subject caught_up !attention",
    # Where a stream has history, what is behind the cursor holds old states, too, until reading is past the consumer's making.
    "overtaken by what is younger than the consumer": """snapshot 2 | 2:1=+ young:5:0=+ inspect=False create_at_once:1=5
        young:5:0=- caught_up""",
    "overtaken, and more to come": """snapshot 3 | 2:2=+ young:5:1=+ nothing:1=False create_at_once:2=5
        young:5:1=- young:6:0=+ inspect=False create_at_once:1=6 young:6:0=- caught_up""",
    # Being asked again takes it past one hole each; where there are many, another list has none of them.
    "holes in a list": """snapshot 5 | 1:4=+ nothing:3=False pulls=3/0 4:2=+ nothing:2=False pulls=2/0 6:1,7:0=++
        inspect=False create_at_once:4=last_per_subject 1:3,4:2,6:1,7:0=----!""",
    "many holes in a list": """snapshot 5 | 1:4=+ nothing:3=False resets=0 nothing:2=False resets=0 nothing:1=False
        resets=1 create_at_once:2=last_per_subject 1:1,7:0=-+!""",
    # What it says to have left lags behind the writes that made the holes (measured): it is asked. Nor is that believed
    # before another consumer finds nothing besides what was handed over last.
    "holes": """snapshot 5 one_per_subject | 1:4=+ nothing:4 create_at_once:3=1 1:2,7:1,9:0=-++ inspect:1 pulls=1/0
        10:0=+ inspect=False create:1=10 10:0=-! !attention resets=2""",
    # Measured: of s.1 to s.3, s.1 was written again while the consumer was made, which was never told of s.1 anew.
    "a pending that stays too low": """snapshot 3 one_per_subject | 2:1,3:0=++ nothing=False create_at_once:2=3
        3:1,5:0=-+ inspect=False create_at_once:1 5:0=-!""",
    # s.2 is written again, too, and comes first: as many as were expected, and still not all.
    "and one more": """snapshot 3 one_per_subject | 2:1,3:0=++ 4:0=+ inspect=False create_at_once:2=4 4:1,5:0=-+
        inspect=False create_at_once:1 5:0=-!""",
    "a second opinion that finds nothing": "snapshot 2 one_per_subject | nothing=False create:0:7 caught_up",
    "a 404 while messages are under way": "all 5 | 1:4=+ nothing:0:2=False 2:0=+!",
    "something and gives nothing": """all 5 | nothing:5=False resets=0 nothing:5=False resets=0 nothing:5=False
        resets=0 nothing:5=False resets=1""",
    "a reset drops what was seen": "snapshot 3 | 1:2,2:1=++ reset:3=last_per_subject 1:2,2:1,3:0=--+!",
    "and may find nothing else": "snapshot 3 | 1:2=+ reset:1 1:0=-!",
    "what becomes the last before anything was read": "snapshot 1@1 | reset:1:0 1:0=+!",
    "a stream that was purged did not go backwards": "all 1 | 5:0=+! reset:0:9 pulls=499/30",
    "after the snapshot it resumes where it was": "snapshot 2 | 3:1,8:0=++! reset:1=8 8:0,9:0=-+",
}


@pytest.mark.parametrize("title", STORIES)
def test_when_all_has_come(title: str) -> None:
    play(STORIES[title])


@pytest.mark.parametrize(("policy", "caught_up"), [("all", True), ("last_per_subject", False)])
def test_who_wants_no_snapshot_waits_for_none_but_the_last_of_each(policy: str, caught_up: bool) -> None:
    assert reading(policy, 3, snapshot=False).caught_up() is caught_up


def test_what_nobody_wants_counts() -> None:
    bench = reading(pending=2)
    for seq in (1, 2):
        assert not bench.caught_up()
        ack = bench.ordered.received(f"$JS.ACK.S.pre_1.1.{seq}.{seq}.{seq}.{2 - seq}", SIZE, bench.now)
        assert ack is not None
        bench.ordered.dropped(ack)
    assert (bench.caught_up(), bench.ordered.cursor) == (True, (2, 2))


@pytest.mark.parametrize("asking", [False, True])
def test_neither_constant_writes_nor_second_opinions_put_it_off_for_ever(asking: bool) -> None:
    bench = reading(pending=2, one_per_subject=asking)
    bench.message(1, 3 if asking else 2)
    seq = 1
    while not bench.caught_up():
        seq += 1
        assert seq < 400
        bench.message(seq, 0 if asking else 2)
        while isinstance(bench.ordered.next(bench.now), Inspect):
            if not bench.inspect():
                bench.create(2)
    assert seq > 10


def test_while_it_is_read_requests_do_not_wait() -> None:
    bench = reading(pending=5, max_messages=3, takes=True)
    assert json.loads(bench.pull().body())["no_wait"] is True
    assert bench.feed((1, 4), (2, 3), (3, 2)) == "+++"
    second = bench.pull()
    assert (second.batch, second.expires) == (2, 0)
    bench.takes = False
    assert bench.feed((4, 1), (5, 0)) == "++!"
    assert not bench.asks()
    bench.ordered.taken(SIZE)
    assert bench.pull().expires == 30


def test_a_server_that_gives_nothing_of_what_it_has_is_waited_for_a_moment() -> None:
    """Writes that overtake a snapshot make the server answer 404 at once, each time, as long as they go on."""
    bench = reading("all")
    first = bench.pull()
    assert "no_wait" in json.loads(first.body())
    assert not bench.nothing(5)
    waiting = bench.pull()
    asked = json.loads(waiting.body())
    assert asked.items() >= {"expires": 1_000_000_000, "idle_heartbeat": 500_000_000}.items()
    assert "no_wait" not in asked
    # Only once: when what is left goes away in the meantime, a request that does not wait finds out.
    left = {"Nats-Pending-Messages": "5", "Nats-Pending-Bytes": str(waiting.max_bytes)}
    bench.status(waiting.number, 408, "Request Timeout", left)
    assert "no_wait" in json.loads(bench.pull().body())


def test_a_list_that_stopped_at_something_gone_is_left_once_all_has_come() -> None:
    """It would sit on what is new; and ten others that found less than they were said to have are enough."""
    bench = reading(pending=1)
    for _ in range(10):
        assert not bench.nothing()
        assert bench.create(1)[0] == "last_per_subject"
    assert bench.nothing()
    assert bench.create_at_once(0)[0] == "by_start_sequence"
