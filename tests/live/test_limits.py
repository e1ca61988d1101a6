"""A limit of subscriptions, with a real server: what it refused says so, and all else goes on."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

import trionats
from tests.keys import House
from trionats import errors, events
from trionats.testing import NatsServer, open_server

if TYPE_CHECKING:
    from pathlib import Path


async def refused(feed: trionats.Feed[Any], name: str) -> None:
    """The feed raises, and names what is not subscribed."""
    with (
        trio.fail_after(3),
        pytest.raises(errors.MaxSubscriptionsError, match=f"exceeded; '{name}' is not subscribed") as why,
    ):
        await feed.receive()
    assert (why.value.subject, why.value.queue) == (name, None)


@pytest.mark.parametrize("of", ["server", "user"])
async def test_the_feed_that_was_refused_raises(of: str, server_executable: Path, tmp_path: Path) -> None:
    house = House()
    user = house.user(subs=2)
    config = "max_subscriptions: 2" if of == "server" else house.config
    options = {} if of == "server" else {"user_credentials": user.creds.encode()}
    with NatsServer(config=config, executable=server_executable) as server:
        async with (
            trio.open_nursery() as background,
            trionats.open_client(background, server.url, **options) as nc,  # type: ignore[arg-type]
            trionats.open_events(background, nc) as happened,
            trionats.open_subscription(background, nc, "a") as first,
            trionats.open_subscription(background, nc, "b") as second,
            trionats.open_subscription(background, nc, "c") as third,
        ):
            await refused(third, "c")
            event = await happened.receive()
            assert isinstance(event, events.ServerRefusal)
            assert isinstance(event.error, errors.MaxSubscriptionsError)
            assert event.error.subject == "c"
            for subject, rx in (("a", first), ("b", second)):
                await nc.publish(subject, b"1")
                assert (await rx.receive()).data == b"1"
            # Where there is room again it is taken.
            second.stop()
            async with trionats.open_subscription(background, nc, "c") as again:
                await nc.publish("c", b"1")
                assert (await again.receive()).data == b"1"
            assert nc.statistics().reconnects == 0
            assert nc.statistics().subscriptions == 1


async def test_requests_fail_at_once_and_work_again_when_there_is_room(server_executable: Path) -> None:
    with NatsServer(config="max_subscriptions: 2", executable=server_executable) as server:
        async with (
            trio.open_nursery() as background,
            trionats.open_client(background, server.url) as other,
            trionats.open_subscription(background, other, "ask") as asked,
            trionats.open_client(background, server.url) as nc,
            trionats.open_subscription(background, nc, "a"),
            trionats.open_subscription(background, nc, "b") as second,
        ):

            async def answer() -> None:
                async for msg in asked:
                    await msg.respond(b"yes")

            async with trio.open_nursery() as services:
                services.start_soon(answer)
                with trio.fail_after(3):
                    for _ in range(3):
                        with pytest.raises(errors.MaxSubscriptionsError, match=r"request to 'ask'.*'_INBOX\."):
                            await nc.request("ask")
                        with pytest.raises(errors.MaxSubscriptionsError, match=r"request to 'ask'.*'_INBOX\."):
                            await nc.request_many("ask", max_msgs=1)
                        async with trionats.open_replies(background, nc, "ask", max_msgs=1) as rx:
                            with pytest.raises(errors.MaxSubscriptionsError, match=r"request to 'ask'.*'_INBOX\."):
                                await rx.receive()
                second.stop()
                with trio.fail_after(3):
                    assert (await nc.request("ask")).data == b"yes"
                services.cancel_scope.cancel()


async def test_a_reconnect_to_a_server_with_less_room(server_executable: Path) -> None:
    async with (
        open_server("max_subscriptions: 200\n", executable=server_executable) as server,
        open_server("max_subscriptions: 100\n", executable=server_executable) as smaller,
    ):
        async with (
            trio.open_nursery() as background,
            trionats.open_client(background, server.url) as nc,
            AsyncExitStack() as stack,
        ):
            feeds = [
                await stack.enter_async_context(trionats.open_subscription(background, nc, f"s{number}"))
                for number in range(150)
            ]
            await nc.flush()
            nc.set_servers(smaller.url)
            await nc.reconnect()
            for number in range(100, 150):
                await refused(feeds[number], f"s{number}")
            for number in range(100):
                await nc.publish(f"s{number}", b"1")
                with trio.fail_after(3):
                    assert (await feeds[number].receive()).data == b"1"
            assert nc.statistics().subscriptions == 100


async def test_stores_and_watchers_say_so(server_executable: Path) -> None:
    async with open_server("max_subscriptions: 4\n", jetstream=True, executable=server_executable) as server:
        async with (
            trio.open_nursery() as background,
            trionats.open_client(background, server.url) as nc,
        ):
            store = await nc.jetstream().create_object_store("b")
            await store.put("name", bytes(300_000))
            async with (
                trionats.open_subscription(background, nc, "a"),
                trionats.open_subscription(background, nc, "b"),
                trionats.open_subscription(background, nc, "c") as last,
            ):
                await nc.flush()
                with trio.fail_after(5):
                    with pytest.raises(errors.MaxSubscriptionsError, match="reading of stream 'OBJ_b'"):
                        await store.get("name")
                    with pytest.raises(errors.MaxSubscriptionsError, match="reading of stream 'OBJ_b'"):
                        await store.list()
                    with pytest.raises(errors.MaxSubscriptionsError):
                        async with trionats.open_watcher(background, store) as rx:
                            await rx.receive()
                last.stop()
                with trio.fail_after(5):
                    assert (await store.get("name")).data == bytes(300_000)
                    async with trionats.open_watcher(background, store) as rx:
                        assert (await rx.receive()).name == "name"
