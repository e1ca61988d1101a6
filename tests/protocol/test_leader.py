"""What the stream's leader says, and what an ordered reader makes of it, decision by decision."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.readers import EARLY, GONE, JSON, LATER, MADE, REFUSED, Bench, play, reading
from trionats import errors
from trionats._protocol.jetstream.actions import Create, Fail, Find, Look, Start
from trionats._protocol.jetstream.ordered.leader import Leader, StreamSaid, read_stream
from trionats._protocol.jetstream.pull import Pull

# What a response says.


NO_STATES: list[object] = [None, [], {}, *({"last_seq": number} for number in (None, True, -1, 1 << 63))]


@pytest.mark.parametrize(
    ("state", "config", "said"),
    [
        ({"last_seq": 7}, {}, StreamSaid(MADE, 7)),
        ({"last_seq": 7}, {"num_replicas": 1}, StreamSaid(MADE, 7)),
        ({"last_seq": 0}, {"num_replicas": 3}, StreamSaid(MADE, 0, True)),
        ({"last_seq": 7}, {"num_replicas": "3"}, StreamSaid(MADE, 7)),
        ({"last_seq": 7}, None, StreamSaid(MADE, 7)),
        *((state, {}, None) for state in NO_STATES),
    ],
)
def test_a_stream_info(state: object, config: object, said: StreamSaid | None) -> None:
    info = {"created": MADE, "state": state}
    assert read_stream({**info, "config": config}) == said
    if config == {}:
        assert read_stream(info) == said
    assert read_stream({**info, "created": None}) is read_stream({}) is None


@given(st.dictionaries(st.sampled_from(["created", "state", "config", "x"]), JSON))
def test_any_stream_info_is_survived(info: dict[str, object]) -> None:
    assert isinstance(read_stream(info), (StreamSaid, type(None)))


@pytest.mark.parametrize(
    ("made", "stream", "known"),
    [
        (MADE, EARLY, True),
        (MADE, MADE, True),
        (MADE, LATER, False),
        ("2026-11-28T22:53:55.1Z", "2026-11-28T22:53:55.12Z", False),
        ("2026-11-28T22:53:55.12Z", "2026-11-28T22:53:55.1Z", True),
        ("2026-11-28T22:53:55Z", "2026-11-28T17:53:55-05:00", True),
        ("2026-11-28T22:53:55", "2026-11-28T22:53:54Z", True),
        # What cannot be compared is no evidence.
        (None, LATER, True),
        ("yesterday", LATER, True),
        (MADE, "today", True),
    ],
)
def test_a_stream_that_is_younger_than_its_consumer_is_another_one(made: object, stream: str, known: bool) -> None:
    leader = Leader()
    leader.consumer_made({"created": made})
    # The second consumer is younger than both, and says nothing.
    leader.consumer_made({"created": "2026-11-28T23:00:00Z"})
    assert leader.recognizes(StreamSaid(stream, 1)) is known


def test_once_it_is_known_which_stream_it_is_no_clock_matters() -> None:
    leader = Leader()
    leader.consumer_made({"created": MADE})
    leader.hear(StreamSaid(EARLY, 1))
    assert leader.recognizes(StreamSaid(EARLY, 9))
    assert not leader.recognizes(StreamSaid("2026-11-28T22:53:50Z", 9))
    leader.meet(StreamSaid(LATER, 9))
    assert leader.recognizes(StreamSaid(LATER, 9))
    assert not leader.recognizes(StreamSaid(EARLY, 9))


# An ordered reader of a stream in a cluster, unless something else is said.


def reader(policy: str = "last_per_subject", pending: int = 0, **options: object) -> Bench:
    given: dict[str, Any] = {"clustered": True, "trusting": False, "takes": True, "one_per_subject": True, **options}
    return reading(policy, pending, **given)


STORIES = {
    "in a cluster reading goes on meanwhile": """snapshot 2 clustered one_per_subject | 1:1=+ look_alone:2 !attention
        2:0=+!""",
    "outside of one nothing is asked": "snapshot 2 one_per_subject | 1:1,2:0=++! !attention",
    "an end before the answer waits for it": """snapshot 1 clustered one_per_subject | 5:0=+ !asks look:5 caught_up
        pulls=65/30""",
    "what matches ends before the stream": """snapshot 1 clustered one_per_subject | 5:0=+ look:9 !caught_up !asks
        find:4 caught_up pulls=65/30""",
    "what matches ends where it is": """snapshot 1 clustered one_per_subject | 5:0=+ look:9 !caught_up !asks find:5
        caught_up pulls=65/30""",
    "nothing matches": """snapshot 1 clustered one_per_subject | 5:0=+ look:9 !caught_up !asks find:0 caught_up
        pulls=65/30""",
    "an empty replica is no empty stream": """snapshot 0 clustered one_per_subject | !caught_up look:3:3 !caught_up
        create_at_once:3=1 look:3 1:2,2:1,3:0=+++!""",
    "a bucket with history begins from the beginning": """snapshot 1 clustered | 1:0=+ look:3:3
        create:2=last_per_subject look:3 1:1,3:0=-+!""",
    # What was missing begins to come; nobody asks again as long as it does.
    "a second replica that lags is waited for": """all 0 clustered one_per_subject | look:3:3 create:1 look:4 1:0=+
        find:3 pulls=1/1 2:0=+ pulls=1/1 3:0=+!""",
    "a mark that was purged is asked for again": """all 0 clustered one_per_subject | look:3:3 create:0 look:3:3
        expired:1 nothing !caught_up find:0 caught_up""",
    "replicas that lag for long are left and waited for by turns": "all 0 clustered one_per_subject | look:3 "
    + "find:3 deletes create_at_once:0 look:3 find:3 expired nothing " * 3,
    "a lazy reader asks at the end": """all 2 clustered lazy one_per_subject | asks !attention 1:1,2:0=++ look:3:3
        create:1:1 look:3 2:1,3:0=-+!""",
    "what a lagging replica takes for new is not": """new 0@4 clustered one_per_subject | opening !asks look:9 !opening
        5:0,7:0,9:0,10:0=---+ reset:0=10""",
    "nor after a reset before the answer": """new 0@4 clustered one_per_subject | refuse_to_look=False create:0:4=5
        opening !asks look:9 !opening 5:0,7:0,9:0,10:0=---+ reset:0=10""",
    "alone, the consumer knows what is new": "new 0@4 one_per_subject | !opening 5:0=+",
    "and in a stream without replicas": "new 0@4 clustered one_per_subject | look_alone:9 !opening 5:0=+",
    "and where nobody may ask": "new 0@4 clustered one_per_subject | forbid_to_look=True !opening 5:0=+",
    "an empty stream made anew is told": "all 0 one_per_subject | caught_up reset look_anew:0 remade",
    # Nothing of it is handed over before.
    **{
        f"made anew, {policy}{cluster}": f"{policy} 1 one_per_subject{cluster} 4:0 reset:5 7:0=- look_anew:9 remade"
        for policy in ("all", "snapshot", "new")
        for cluster in (" |", " clustered | look_alone:4")
    },
    **{
        f"reading {policy} begins anew": f"""{policy} 1 restart one_per_subject | message:4=True caught_up reset:5=4
            look_anew:9 restarts=1 create:2={again} look_anew:9 asks message:2:1:1=True message:3:0:2=True caught_up"""
        for policy, again in {"new": "all", "all": "all", "snapshot": "last_per_subject", "last": "last"}.items()
    },
    # It could have been made anew once more.
    "where nothing was handed over it is not": """snapshot 3 one_per_subject | reset:3 look_anew:9
        create:1=last_per_subject look_anew:9 9:0=+! restarts=0""",
    "who may not ask for the stream goes on": """snapshot 1 clustered one_per_subject | forbid_to_look=True 4:0=+!
        reset:0:3 9:0=+""",
    "also at the end": "snapshot 0 clustered one_per_subject | forbid_to_look=True caught_up",
    # Which stream it is can be asked still.
    "who may not ask for messages goes on": """snapshot 1 clustered one_per_subject | 4:0=+ look:9 forbid_to_look=True
        caught_up reset:1 look_anew:9 remade""",
    "who looks in vain makes another consumer": """snapshot 1 clustered one_per_subject | 4:0=+ refuse_to_look=False
        !caught_up create:1=last_per_subject""",
    "who finds in vain, too": """snapshot 1 clustered one_per_subject | 4:0=+ look:9 refuse_to_look=False !caught_up
        create:1=last_per_subject""",
}


@pytest.mark.parametrize("title", STORIES)
def test_what_the_leader_says_is_followed(title: str) -> None:
    play(STORIES[title], trusting=False, takes=True)


@pytest.mark.parametrize(("restart", "asked"), [(False, 1), (True, 5)])
def test_a_store_that_is_not_there_may_come_back_at_once(restart: bool, asked: int) -> None:
    bench = reader("all", 1, clustered=False, restart=restart)
    bench.message(4)
    bench.refused()
    begun = bench.now
    assert refuse(bench, GONE, asked) == [False] * asked
    assert bench.due() == Fail(GONE)
    assert bench.now - begun < 1.6


def test_answers_that_nobody_waits_for_change_nothing() -> None:
    bench = reader(pending=1, clustered=False)
    bench.ordered.looked(StreamSaid(LATER, 0, True), bench.now)
    bench.ordered.found(99, bench.now)
    assert not bench.ordered.look_failed(bench.now, REFUSED)
    assert bench.feed((4, 0)) == "+!"


def test_a_place_that_was_sought_beyond_the_end_is_not_behind_it() -> None:
    bench = reading(start=Start("by_start_sequence", 1000), snapshot=False, pending=0, at=999, trusting=False)
    bench.play("reset:0:999 look:10 1000:0=+")


def refuse(bench: Bench, error: Exception, times: int) -> list[bool]:
    told = []
    for _ in range(times):
        assert isinstance(bench.due(), Create)
        told.append(bench.ordered.create_failed(bench.now, error))
    return told


LIMIT = errors.BadRequestError(code=400, err_code=10026, description="maximum consumers limit reached")


def test_refusals_in_a_row_are_told_and_then_end_it() -> None:
    bench = reader("all", 1, clustered=False)
    bench.refused()
    begun = bench.now
    assert refuse(bench, LIMIT, 15) == [False, False, True] + [False] * 12
    assert bench.due() == Fail(LIMIT)
    assert bench.ordered.refusal is LIMIT
    # Longer than the consumer of a process that crashed takes up its place.
    assert 36 < bench.now - begun < 73
    # With progress in between, or what passes, they do not add up.
    bench = reader("all", 1, clustered=False)
    bench.refused()
    refuse(bench, LIMIT, 14)
    refuse(bench, errors.ServiceUnavailableError(code=503, err_code=10008), 30)
    bench.create(1)
    bench.look(9)
    assert bench.ordered.refusal is None
    bench.refused()
    assert refuse(bench, LIMIT, 14)[2]
    assert isinstance(bench.due(), Create)


def read_until_find(bench: Bench) -> None:
    """Grant what is asked for, until it is to find the last message that matches; there is one more than is given."""
    while (action := bench.due()) != Find(("m.>",)):
        if isinstance(action, Create):
            bench.create(1)
        elif isinstance(action, Look):
            bench.look(9)
        else:
            assert isinstance(action, Pull)
            bench.message(4)


def refuse_to_find(bench: Bench) -> bool:
    read_until_find(bench)
    return bench.ordered.look_failed(bench.now, LIMIT)


def test_refusals_to_find_the_end_add_up_although_each_time_a_consumer_is_granted() -> None:
    bench = reader()
    assert [refuse_to_find(bench) for _ in range(15)] == [False, False, True] + [False] * 12
    assert bench.due() == Fail(LIMIT)
    # They are forgotten with an answer.
    bench = reader()
    assert [refuse_to_find(bench) for _ in range(14)][2]
    read_until_find(bench)
    bench.find(9)
    assert [refuse_to_find(bench) for _ in range(14)][2]
    assert isinstance(bench.due(), Create)
