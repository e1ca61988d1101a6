"""Short versions of `python -m tests.soak`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.batches import cancelled_batches, killed_batches
from tests.soak.crowded import one_consumer_at_a_time
from tests.soak.lagging import Outcome, lagging_replica
from tests.soak.leases import Leases, Step, judge, many_leases
from tests.soak.putting import MIB, cancelled_puts
from tests.soak.restarting import rolling_restart
from tests.soak.watching import killed_while_watched

ROOT = Path(__file__).parent.parent.parent

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


@pytest.mark.live(seconds=60)
async def test_a_bucket_is_watched_whole_and_in_order_through_kills_and_constant_writes() -> None:
    """The final state is the bucket's, no key's revision goes back, and each snapshot has every key once."""
    watched = await killed_while_watched(4000, 2, lambda _: None)
    assert not watched.wrong, str(watched)
    assert (watched.kills, watched.snapshots) == (2, 2)
    assert watched.received >= watched.keys


@pytest.mark.live(seconds=60)
@pytest.mark.skipif(sys.platform == "win32", reason="processes are not told to end there")
async def test_no_request_fails_while_the_processes_of_a_service_are_restarted_one_after_the_other() -> None:
    outcome = await rolling_restart()
    assert not outcome.wrong, str(outcome)
    assert (outcome.restarts, len(outcome.served_by)) == (5, 10)
    assert outcome.done > 1000


@pytest.mark.live(seconds=60)
def test_memory_does_not_grow_with_what_is_consumed() -> None:
    """In a process of its own, whose peak is that of a consumer and of nothing else."""
    command = [sys.executable, "-m", "tests.soak", "steady", "--messages", "150000"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.startswith("memory of a consumer: 150000 consumed, 0 not acknowledged"), ran.stderr
    assert ran.returncode == 0, ran.stdout


@pytest.mark.live(seconds=60)
def test_memory_does_not_grow_with_the_size_of_what_is_streamed() -> None:
    """Put and read as a stream, and from file to file, in a process of its own."""
    command = [sys.executable, "-m", "tests.soak", "streamed", "--megabytes", "48"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.count("48 MiB:") == 4, ran.stderr
    assert ran.returncode == 0, ran.stdout


@pytest.mark.live(seconds=60)
@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be stopped there")
async def test_of_many_processes_that_are_stopped_and_killed_one_at_a_time_has_the_lease() -> None:
    outcome = await many_leases(4, processes=3)
    assert not outcome.wrong, str(outcome)
    assert outcome.counts["steps"] > 0
    assert outcome.counts["lost"] > 0


def test_a_step_that_begins_after_one_of_a_later_lease_is_found() -> None:
    outcome = Leases()
    steps = [Step(1, 2, 5, True), Step(3, 12, 5, True), Step(10, 11, 8, True), Step(13, 14, 5, False)]
    judge([*steps, Step(0, 0, 0, False)], outcome)
    assert outcome.wrong == []
    assert outcome.counts["steps in which a process was stopped until another had the lease"] == 1
    assert outcome.counts["steps begun too late and not taken"] == 1
    judge([*steps, Step(13, 14, 5, True)], outcome)
    assert outcome.wrong == ["a step of 5 was begun 0.000 ms after one of 8"]


@pytest.mark.live(seconds=60)
async def test_a_put_cancelled_at_any_moment_leaves_the_old_object_and_no_chunk(seed: str) -> None:
    outcome = await cancelled_puts(24 * MIB, 20, seed)
    assert not outcome.wrong, str(outcome)
    assert outcome.cancelled + outcome.in_time == 20


@pytest.mark.live(seconds=60)
@pytest.mark.level(2)
async def test_a_batch_cancelled_at_any_moment_is_stored_whole_or_not_at_all_and_leaves_nothing(seed: str) -> None:
    """Nothing in the server's files, and as much room for batches as before."""
    outcome = await cancelled_batches(40, 200, seed, forgets_after=3)
    assert not outcome.wrong, str(outcome)
    assert outcome.counts["cancelled"] > 0
    assert outcome.counts["stored"] + outcome.counts["not stored"] == 40


@pytest.mark.live(seconds=60)
@pytest.mark.level(2)
async def test_a_batch_whose_server_is_killed_at_any_moment_is_stored_whole_or_not_at_all(seed: str) -> None:
    outcome = await killed_batches(6, 300, seed)
    assert not outcome.wrong, str(outcome)
    assert outcome.counts["stored"] + outcome.counts["not stored"] == 6
