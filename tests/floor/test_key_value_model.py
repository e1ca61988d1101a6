"""Random operations on a key-value bucket in memory, with lost acknowledgements, reconnects and replicas that lag, against a model."""

from __future__ import annotations

import random

import pytest
import trio.testing

from tests.key_value_model import Model, exercise
from tests.worlds import KeysWorld, open_keys
from trionats import Base64Codec

SEEDS = range(12)


class InMemory:
    """What goes wrong with a bucket in memory."""

    def __init__(self, w: KeysWorld, *, may_lag: bool) -> None:
        self._w = w
        self._may_lag = may_lag
        self.lagging = False

    def begin(self, rng: random.Random) -> None:
        how = rng.choice(["lost", "never came", "cut", "none", "none", "none", "lag", "503"])
        if how == "cut":
            self._w.server.cut()
        elif how == "lag" and self._may_lag and not self.lagging:
            self.lagging = True
            self._w.bucket.lag_behind()
        elif how in ("lost", "never came"):
            self._w.bucket.hook = lambda _: self._cut(how)
        elif how == "503":
            self._w.bucket.answer("$KV.>", "503")

    def _cut(self, how: str) -> str:
        self._w.bucket.hook = lambda _: None
        self._w.server.cut()
        return "lost" if how == "lost" else "silence"

    def end(self) -> None:
        self._w.bucket.hook = lambda _: None

    def catch_up(self) -> None:
        if self.lagging:
            self.lagging = False
            self._w.bucket.catch_up()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_bucket_is_what_a_dict_of_revisions_is(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    rng = random.Random(seed)
    history, replicas = rng.choice([1, 3]), rng.choice([1, 3])
    # A server that breaks off again and again is waited for longer and longer.
    patient = {"request_timeout": 60}
    async with open_keys(history=history, replicas=replicas, client=patient) as w:
        kv = w.kv
        if rng.random() < 0.5:
            kv = kv.with_codecs(Base64Codec(), Base64Codec())
        await exercise(kv, Model(history), InMemory(w, may_lag=replicas > 1), rng, steps=150)
        assert w.bucket.last > 30
