"""Reading that resumes with a sequence that was noted at another time, perhaps of another stream."""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocol.readers import REFUSED, Bench
from trionats import errors
from trionats._protocol.jetstream.actions import Start

SEVEN = Start("by_start_sequence", 7, resumes=True)


def resuming(pending: int, at: int = 6, **options: Any) -> Bench:  # noqa: ANN401 - any option
    """A reader that was to resume with 7, and whose consumer begins behind `at`."""
    bench = Bench("all", trusting=False, start=SEVEN, **options)
    assert bench.create(pending, at) == ("by_start_sequence", 7)
    return bench


STORIES = {
    "what is stored from there on": "opening look_alone:9=False !opening 7:2,8:1,9:0=+++!",
    "nothing yet": "look_alone:6 !opening caught_up 7:0=+",
    "a replica that lags": "look:9=False !opening 7:0=+",
    "it goes on where it is": "look_alone:9 7:2,8:1=++ reset:2=8 look_alone:9 8:1,9:0=-+!",
}


@pytest.mark.parametrize("title", STORIES)
def test_what_comes_of_it(title: str) -> None:
    pending = 0 if title == "nothing yet" else 3
    resuming(pending, clustered="replica" in title).play(STORIES[title])


@pytest.mark.parametrize("first", [8, 100])
def test_what_is_older_than_all_that_is_stored_is_no_silent_gap(first: int) -> None:
    bench = resuming(3, at=first - 1)
    assert bench.opening()
    error = bench.failure()
    assert isinstance(error, errors.RevisionGoneError)
    assert (error.revision, error.first) == (7, first)
    assert str(error) == f"stream 'S': revision 7 is gone: what is stored begins with {first}"


def test_beyond_the_end_is_another_stream_once_the_leader_has_said_so_twice() -> None:
    bench = resuming(0)
    bench.play("look_alone:5=False opening look_alone:5")
    error = bench.failure()
    assert isinstance(error, errors.StreamRegressedError)
    assert "read up to sequence 6, but its last sequence is 5" in str(error)


def test_a_leader_that_was_mistaken_once_is_believed_the_second_time() -> None:
    resuming(1).play("look_alone:5=False look_alone:7 !opening 7:0=+!")


@pytest.mark.parametrize("restart", [False, True])
def test_a_stream_that_is_made_anew_while_it_opens_is_another_one(restart: bool) -> None:
    bench = resuming(0, restart=restart)
    bench.look_anew(20)
    assert bench.remade()


def test_a_stream_made_anew_later_is_read_from_its_beginning_where_that_was_asked_for() -> None:
    bench = resuming(1, restart=True)
    bench.play("look_alone:7 7:0=+! reset:0 look_anew:3 create:3:0=all look_anew:3")
    assert bench.restarts() == 1
    assert bench.feed((1, 2), (2, 1), (3, 0)) == "+++"


def test_even_where_nothing_had_come_of_the_old_one() -> None:
    bench = resuming(1, restart=True)
    bench.play("look_alone:7 reset:0 look_anew:3 create:3:0=all look_anew:3")
    assert bench.restarts() == 1
    assert bench.feed((1, 2), (2, 1), (3, 0)) == "+++!"


def test_who_may_not_ask_reads_on_and_is_told() -> None:
    bench = resuming(1)
    assert bench.refuse_to_look(REFUSED)
    assert not bench.opening()
    assert bench.feed((7, 0)) == "+!"
