"""Lists and watchers in a row on a stream that has room for one consumer: each has to wait until the one before is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tests.soak.lagging import Outcome
from trionats import errors, open_client, open_watcher
from trionats.testing import open_server

if TYPE_CHECKING:
    from trionats import Client


async def one_consumer_at_a_time(count: int) -> Outcome:
    """Do so many of each in a row.

    Args:
        count: How many.
    """
    async with (
        open_server(jetstream=True) as server,
        trio.open_nursery() as nursery,
        open_client(nursery, server.url) as nc,
    ):
        outcome = Outcome()
        await in_a_row(nursery, nc, count, outcome)
    return outcome


async def in_a_row(nursery: trio.Nursery, nc: Client, count: int, outcome: Outcome) -> None:
    js = nc.jetstream()
    bucket = nc.new_token()
    subjects = [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"]
    await js.add_stream(name=f"OBJ_{bucket}", subjects=subjects, allow_rollup_hdrs=True, max_consumers=1)
    store = await js.object_store(bucket)
    await store.put("a", b"x")
    for _ in range(count):
        try:
            outcome.count("lists", "" if len(await store.list()) == 1 else "not all")
        except errors.Error as error:
            outcome.count("lists", str(error))
    for _ in range(count):
        try:
            async with open_watcher(nursery, store) as rx:
                outcome.count("watchers", "" if len(await rx.snapshot()) == 1 else "not all")
        except errors.Error as error:
            outcome.count("watchers", str(error))
    await js.delete_stream(f"OBJ_{bucket}")
