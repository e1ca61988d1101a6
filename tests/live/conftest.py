"""A bucket on the session's server, for the tests that want one and no options."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.worlds import StoreWorld, open_store
from trionats import Client, ObjectStore
from trionats.testing import TrioNatsServer


@pytest.fixture
async def bucket_world(nats_server: TrioNatsServer) -> AsyncIterator[StoreWorld]:
    async with open_store(nats_server) as world:
        yield world


@pytest.fixture
def store(bucket_world: StoreWorld) -> ObjectStore:
    return bucket_world.store


@pytest.fixture
def nc(bucket_world: StoreWorld) -> Client:
    """The client of `store`."""
    return bucket_world.nc
