"""`python -m tests.soak`: what has to hold for longer than a test may take."""

from __future__ import annotations

import argparse
import random
import sys
from functools import partial

import trio

from tests.soak.crowded import one_consumer_at_a_time
from tests.soak.lagging import lagging_replica
from tests.soak.leases import many_leases
from tests.soak.putting import MIB, cancelled_puts
from tests.soak.steady import many_consumed
from tests.soak.streamed import streamed
from tests.soak.watching import killed_while_watched

PARTS = ("steady", "streamed", "cancelled", "crowded", "lagging", "watching", "leases")


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many are consumed (%(default)s)")
    parser.add_argument("--restarts", type=int, default=10, help="how often a follower is restarted (%(default)s)")
    parser.add_argument("--count", type=int, default=1000, help="how many lists, snapshots and gets (%(default)s)")
    parser.add_argument("--in-a-row", type=int, default=300, help="how many of each where there is room for one")
    parser.add_argument("--keys", type=int, default=100_000, help="how many keys are watched (%(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="how often the server is killed meanwhile (%(default)s)")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[64, 256], help="sizes of objects (%(default)s)")
    parser.add_argument("--seconds", type=float, default=300, help="how long leases are contended for (%(default)s)")
    parser.add_argument(
        "--cancel", type=int, default=50, help="how many puts of the largest are cancelled (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=random.randrange(1 << 32), help="of the moments when they are; else a new one"
    )
    wishes = parser.parse_args()
    if unknown := set(wishes.parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    parts, wrong = wishes.parts or PARTS, False
    # First: the peak of this process is looked at, before it is larger for another reason.
    if "steady" in parts:
        steady = trio.run(many_consumed, wishes.messages)
        print(f"memory of a consumer: {steady}")
        wrong |= steady.wrong
    if "streamed" in parts:
        transfers = trio.run(streamed, wishes.megabytes)
        print(f"memory of streamed objects:\n{transfers}")
        wrong |= transfers.wrong
    if "cancelled" in parts:
        cancelled = trio.run(cancelled_puts, max(wishes.megabytes) * MIB, wishes.cancel, wishes.seed)
        print(f"puts: {cancelled}")
        wrong |= cancelled.wrong
    if "crowded" in parts:
        crowded = trio.run(one_consumer_at_a_time, wishes.in_a_row)
        print(f"room for one consumer:\n{crowded}")
        wrong |= bool(crowded.wrong)
    if "lagging" in parts:
        lagging = trio.run(partial(lagging_replica, wishes.restarts, wishes.count, print))
        print(f"a replica that lags:\n{lagging}")
        wrong |= bool(lagging.wrong)
    if "watching" in parts:
        watched = trio.run(partial(killed_while_watched, wishes.keys, wishes.kills))
        print(f"a watcher through kills: {watched}")
        wrong |= bool(watched.wrong)
    if "leases" in parts:
        leases = trio.run(partial(many_leases, wishes.seconds, say=print))
        print(f"one lease, many processes:\n{leases}")
        wrong |= bool(leases.wrong)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
