"""Short versions of `python -m tests.soak`."""

from __future__ import annotations

import pytest

from tests.soak.crowded import one_consumer_at_a_time
from tests.soak.lagging import Outcome, lagging_replica

pytestmark = [pytest.mark.usefixtures("server_executable")]


def check(outcome: Outcome, kinds: set[str], count: int) -> None:
    assert not outcome.wrong, str(outcome)
    assert outcome.done == dict.fromkeys(kinds, count)


@pytest.mark.live(seconds=120)
async def test_what_is_stored_is_what_the_leader_says() -> None:
    """One follower comes back and lags, while a bucket with three replicas is listed, watched and read."""
    check(await lagging_replica(1, 60), {"lists", "snapshots", "gets", "updates"}, 60)


async def test_a_stream_with_room_for_one_consumer() -> None:
    check(await one_consumer_at_a_time(60), {"lists", "watchers"}, 60)
