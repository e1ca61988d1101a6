"""Consumers on a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.worlds import open_stream

if TYPE_CHECKING:
    from trionats.testing import TrioNatsServer


async def test_a_handle_says_what_the_server_says(nats_server: TrioNatsServer) -> None:
    async with open_stream(nats_server) as w:
        made = await w.js.create_consumer(w.stream.name, name="C", inactive_threshold=60)
        found = await w.js.consumer(w.stream.name, "C")
        assert (await found.info()).config == made.cached_info.config == found.cached_info.config  # type: ignore[union-attr]
        assert (await w.js.stream(w.stream.name)).cached_info.state.consumer_count == 1
