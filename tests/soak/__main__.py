"""`python -m tests.soak`: what has to hold for longer than a test may take."""

from __future__ import annotations

import argparse
import random
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from tests.soak.batches import cancelled_batches, killed_batches
from tests.soak.crowded import one_consumer_at_a_time
from tests.soak.handing_over import handed_over
from tests.soak.lagging import lagging_replica
from tests.soak.leases import many_leases
from tests.soak.putting import MIB, cancelled_puts
from tests.soak.restarting import rolling_restart
from tests.soak.steady import many_consumed
from tests.soak.streamed import streamed
from tests.soak.watching import killed_while_watched


class Outcome(Protocol):
    """What a part found: it says so as text."""

    @property
    def wrong(self) -> Any: ...  # noqa: ANN401 - whatever is true


Part = Callable[[Namespace], Awaitable[Outcome]]

PARTS: dict[str, tuple[str, Part]] = {
    # First: the peak of this process is looked at, before it is larger for another reason.
    "steady": ("memory of a consumer: ", lambda wishes: many_consumed(wishes.messages)),
    "streamed": ("memory of streamed objects:\n", lambda wishes: streamed(wishes.megabytes)),
    "cancelled": ("puts: ", lambda wishes: cancelled_puts(max(wishes.megabytes) * MIB, wishes.cancel, wishes.seed)),
    "batches": ("batches: ", lambda wishes: cancelled_batches(100, 1000, wishes.seed)),
    "killed": ("batches whose server is killed: ", lambda wishes: killed_batches(50, 1000, wishes.seed)),
    "crowded": ("room for one consumer:\n", lambda wishes: one_consumer_at_a_time(wishes.in_a_row)),
    "lagging": ("a replica that lags:\n", lambda wishes: lagging_replica(wishes.restarts, wishes.count, print)),
    "watching": ("a watcher through kills: ", lambda wishes: killed_while_watched(wishes.keys, wishes.kills)),
    "handing_over": ("a lease given back: ", lambda _: handed_over()),
    "rolling_restart": ("a service restarted: ", lambda wishes: rolling_restart(wishes.rounds, wishes.rate)),
    "leases": ("one lease, many processes:\n", lambda wishes: many_leases(wishes.seconds, say=print)),
}


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many are consumed (%(default)s)")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[64, 256], help="sizes of objects (%(default)s)")
    parser.add_argument(
        "--cancel", type=int, default=50, help="how many puts of the largest are cancelled (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=random.randrange(1 << 32), help="of the moments when they are; else a new one"
    )
    parser.add_argument("--in-a-row", type=int, default=300, help="how many of each where there is room for one")
    parser.add_argument("--restarts", type=int, default=10, help="how often a follower is restarted (%(default)s)")
    parser.add_argument("--count", type=int, default=1000, help="how many lists, snapshots and gets (%(default)s)")
    parser.add_argument("--keys", type=int, default=100_000, help="how many keys are watched (%(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="how often the server is killed meanwhile (%(default)s)")
    parser.add_argument("--seconds", type=float, default=300, help="how long leases are contended for (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="how often each process is restarted (%(default)s)")
    parser.add_argument("--rate", type=int, default=2000, help="how many requests are made a second (%(default)s)")
    wishes = parser.parse_args()
    if unknown := set(wishes.parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    wrong = False
    for name, (title, part) in PARTS.items():
        if name in (wishes.parts or PARTS):
            outcome = trio.run(part, wishes)
            print(title, outcome, sep="", flush=True)
            wrong |= bool(outcome.wrong)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
