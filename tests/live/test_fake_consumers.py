"""The consumers of `tests.fake_jetstream` say what those of the real server say: the same requests, and the same statuses."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeAlias

import pytest
import trio

from tests.fake_consumers import SECOND
from tests.fake_jetstream import FakeStream
from tests.worlds import open_stream, open_world
from trionats import Client, Msg, open_subscription
from trionats.testing import TrioNatsServer

SECONDS = {"expires": SECOND // 2}
BEATS = {"expires": SECOND, "idle_heartbeat": SECOND // 4}
GROUP: dict[str, Any] = {"priority_groups": ["g"]}
PINNED = {**GROUP, "priority_policy": "pinned_client", "priority_timeout": 5 * SECOND}
OVERFLOW = {**GROUP, "priority_policy": "overflow"}
PRIORITIZED = {**GROUP, "priority_policy": "prioritized"}

#: What is asked, of a consumer with five messages of 10 bytes and this configuration, one request after the other.
CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "no wait, and too few": ({}, [{"batch": 9, "no_wait": True}]),
    "no wait, and nothing": ({}, [{"batch": 5}, {"batch": 9, "no_wait": True}]),
    "no wait, but a while": ({}, [{"batch": 5}, {"batch": 9, "no_wait": True, **SECONDS}]),
    "no wait, but a while, and some": ({}, [{"batch": 9, "no_wait": True, **SECONDS}]),
    "expired with some": ({}, [{"batch": 9, **SECONDS}]),
    "expired with nothing": ({}, [{"batch": 5}, {"batch": 9, **SECONDS}]),
    "expired with bytes": ({}, [{"batch": 9, "max_bytes": 10_000, **SECONDS}]),
    "a batch with bytes left": ({}, [{"batch": 2, "max_bytes": 10_000, **SECONDS}]),
    "bytes used up": ({}, [{"batch": 9, "max_bytes": 150, **SECONDS}]),
    "bytes too few for one": ({}, [{"batch": 9, "max_bytes": 10, **SECONDS}]),
    "heartbeats": ({}, [{"batch": 5}, {"batch": 9, **BEATS}]),
    "heartbeats too far apart": ({}, [{"batch": 9, "expires": SECOND, "idle_heartbeat": SECOND}]),
    "heartbeats without an end": ({}, [{"batch": 9, "no_wait": True, "idle_heartbeat": SECOND}]),
    "too large a batch": ({"max_batch": 3}, [{"batch": 4, **SECONDS}]),
    "too long": ({"max_expires": SECOND}, [{"batch": 4, "expires": 2 * SECOND}]),
    "too many bytes": ({"max_bytes": 100}, [{"batch": 4, "max_bytes": 101, **SECONDS}]),
    "one too many": ({"max_waiting": 1}, [{"batch": 5}, {"batch": 9, **SECONDS}, {"batch": 9, **SECONDS}]),
    "one too many, who wants heartbeats": (
        {"max_waiting": 1},
        [{"batch": 5}, {"batch": 9, **SECONDS}, {"batch": 9, **BEATS}],
    ),
    "no wait, and all unacknowledged": ({"max_ack_pending": 3}, [{"batch": 3}, {"batch": 9, "no_wait": True}]),
    "no group": (PINNED, [{"batch": 1, **SECONDS}]),
    "another group": (PINNED, [{"batch": 1, "group": "h", **SECONDS}]),
    "a pin while nobody is pinned": (PINNED, [{"batch": 1, "group": "g", "id": "x", **SECONDS}]),
    "a wrong pin": (PINNED, [{"batch": 1, "group": "g", **SECONDS}, {"batch": 1, "group": "g", "id": "x", **SECONDS}]),
    "somebody else is pinned": (PINNED, [{"batch": 1, "group": "g", **SECONDS}, {"batch": 1, "group": "g", **SECONDS}]),
    "too little is pending": (OVERFLOW, [{"batch": 1, "group": "g", "min_pending": 6, **SECONDS}]),
    "enough is pending": (OVERFLOW, [{"batch": 9, "group": "g", "min_pending": 4, **SECONDS}]),
    "enough is unacknowledged": (
        OVERFLOW,
        [{"batch": 2, "group": "g"}, {"batch": 9, "group": "g", "min_ack_pending": 2, **SECONDS}],
    ),
    "too little is unacknowledged": (
        OVERFLOW,
        [{"batch": 1, "group": "g"}, {"batch": 9, "group": "g", "min_ack_pending": 2, **SECONDS}],
    ),
    "any of both": (
        OVERFLOW,
        [{"batch": 1, "group": "g"}, {"batch": 2, "group": "g", "min_ack_pending": 2, "min_pending": 2, **SECONDS}],
    ),
    "prioritized": (PRIORITIZED, [{"batch": 9, "group": "g", "priority": 3, **SECONDS}]),
}

Ask: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[None]]


def told(msg: Msg, number: int) -> str:
    """What came for the request of that number, without what two servers cannot have in common."""
    if msg.status is None:
        pinned = " pinned" if "Nats-Pin-Id" in msg.headers else ""
        return f"{number}: {msg.reply.split('.')[5]}{pinned}"
    fields = {name: value for name, value in msg.headers.items() if name.startswith("Nats-")}
    # How long the acknowledgements' subjects are depends on the names.
    fields.pop("Nats-Pending-Bytes", None)
    return f"{number}: {msg.status} {msg.description} {fields}"


async def answers(nc: Client, ask: Ask, requests: list[dict[str, Any]]) -> list[str]:
    found: list[str] = []
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        for number, request in enumerate(requests):
            inbox = nc.new_inbox()
            rx = await stack.enter_async_context(open_subscription(nursery, nc, inbox))
            await nc.flush()
            await ask(inbox, request)
            await nc.flush()
            if request is not requests[-1] and "expires" not in request:
                found += [told(await rx.receive(), number) for _ in range(request["batch"])]
            elif request is requests[-1]:
                with trio.move_on_after(1.2):
                    async for msg in rx:
                        found.append(told(msg, number))
    return found


async def pull(nc: Client, stream: str, inbox: str, request: dict[str, Any]) -> None:
    await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.C", json.dumps(request).encode(), inbox)


async def compare(name: str, server: TrioNatsServer, found: dict[str, tuple[list[str], list[str]]]) -> None:
    config, requests = CASES[name]
    raw: dict[str, Any] = {"ack_policy": "explicit", "deliver_policy": "all", "name": "C", **config}
    async with open_stream(server) as w, open_world() as (fake, nc, _):
        stream = FakeStream(fake, w.stream.name, f"{w.stream.name}.>", timed=True)
        stream.add_consumer(**raw)
        request = json.dumps({"stream_name": stream.name, "config": raw}).encode()
        assert b"error" not in (await w.nc.request(f"$JS.API.CONSUMER.CREATE.{stream.name}.C", request)).data
        for _ in range(5):
            await w.js.publish(w.subject, b"0123456789")
            stream.store(w.subject, b"0123456789", rollup=False)
        both: dict[Client, list[str]] = {}

        async def see(client: Client) -> None:
            both[client] = await answers(client, partial(pull, client, stream.name), requests)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(see, w.nc)
            nursery.start_soon(see, nc)
        found[name] = both[w.nc], both[nc]


# The fake plays the newest server; one of 2.12 may say "no messages" to a pull right behind a publish.
@pytest.mark.level(5)
async def test_the_fake_says_what_the_server_says(nats_server: TrioNatsServer) -> None:
    found: dict[str, tuple[list[str], list[str]]] = {}
    async with trio.open_nursery() as nursery:
        for name in CASES:
            nursery.start_soon(compare, name, nats_server, found)
    different = {name: (real, fake) for name, (real, fake) in found.items() if real != fake}
    assert different == {}
    assert sum(bool(real) for real, _ in found.values()) > len(CASES) / 2
