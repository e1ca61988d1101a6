"""Lists and watchers in a row on a stream that has room for one consumer: each has to wait until the one before is gone."""

from __future__ import annotations

from tests.soak.lagging import Outcome
from tests.worlds import open_live
from trionats import errors, open_watcher


async def one_consumer_at_a_time(count: int) -> Outcome:
    """Do so many of each in a row."""
    outcome = Outcome()
    async with open_live(jetstream=True) as (_, nc, nursery):
        js = nc.jetstream()
        subjects = ["$O.b.C.>", "$O.b.M.>"]
        await js.add_stream(name="OBJ_b", subjects=subjects, allow_rollup_hdrs=True, max_consumers=1)
        store = await js.object_store("b")
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
    return outcome
