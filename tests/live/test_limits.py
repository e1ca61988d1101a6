"""A limit of subscriptions, with a real server: what it refused says so, and all else goes on."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

import trionats
from tests.keys import House
from tests.worlds import connected, next_event, open_live, open_world, respond
from trionats import errors, events
from trionats.testing import TrioNatsServer, open_server

pytestmark = pytest.mark.usefixtures("server_executable")


async def refused(feed: trionats.Feed[Any], name: str) -> None:
    """The feed raises, and names what is not subscribed."""
    with (
        trio.fail_after(3),
        pytest.raises(errors.MaxSubscriptionsError, match=f"exceeded; '{name}' is not subscribed") as why,
    ):
        await feed.receive()
    assert (why.value.subject, why.value.queue) == (name, None)


@pytest.mark.parametrize("of", ["server", "user"])
async def test_the_feed_that_was_refused_raises(of: str) -> None:
    house = House()
    config = "max_subscriptions: 2" if of == "server" else house.config
    options: dict[str, Any] = {} if of == "server" else {"user_credentials": house.user(subs=2).creds.encode()}
    async with (
        open_live(config, **options) as (_, nc, nursery),
        trionats.open_events(nursery, nc) as happened,
        trionats.open_subscription(nursery, nc, "a") as first,
        trionats.open_subscription(nursery, nc, "b") as second,
        trionats.open_subscription(nursery, nc, "c") as third,
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
        async with trionats.open_subscription(nursery, nc, "c") as again:
            await nc.publish("c", b"1")
            assert (await again.receive()).data == b"1"
        assert nc.statistics().reconnects == 0
        assert nc.statistics().subscriptions == 1


async def test_requests_fail_at_once_and_work_again_when_there_is_room() -> None:
    async with (
        open_live("max_subscriptions: 2") as (server, other, nursery),
        trionats.open_subscription(nursery, other, "ask") as asked,
        connected(server) as nc,
        trionats.open_subscription(nursery, nc, "a"),
        trionats.open_subscription(nursery, nc, "b") as second,
    ):
        nursery.start_soon(respond, asked, lambda _: b"yes")
        text = r"request to 'ask'.*'_INBOX\."
        with trio.fail_after(3):
            for _again in range(3):
                for ask in (nc.request, nc.request_many):
                    with pytest.raises(errors.MaxSubscriptionsError, match=text):
                        await ask("ask")
                async with trionats.open_replies(nursery, nc, "ask", max_msgs=1) as rx:
                    with pytest.raises(errors.MaxSubscriptionsError, match=text):
                        await rx.receive()
        second.stop()
        with trio.fail_after(3):
            assert (await nc.request("ask")).data == b"yes"
        nursery.cancel_scope.cancel()


async def test_a_reconnect_to_a_server_with_less_room() -> None:
    async with (
        open_live("max_subscriptions: 200\n") as (_, nc, nursery),
        open_server("max_subscriptions: 100\n") as smaller,
        AsyncExitStack() as stack,
    ):
        feeds = [
            await stack.enter_async_context(trionats.open_subscription(nursery, nc, f"s{number}"))
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


async def test_stores_and_watchers_say_so() -> None:
    async with open_live("max_subscriptions: 4\n", jetstream=True) as (_, nc, nursery):
        store = await nc.jetstream().create_object_store("b")
        await store.put("name", bytes(300_000))
        async with (
            trionats.open_subscription(nursery, nc, "a"),
            trionats.open_subscription(nursery, nc, "b"),
            trionats.open_subscription(nursery, nc, "c") as last,
        ):
            await nc.flush()
            with trio.fail_after(5):
                for read in (store.get("name"), store.list()):
                    with pytest.raises(errors.MaxSubscriptionsError, match="reading of stream 'OBJ_b'"):
                        await read
                with pytest.raises(errors.MaxSubscriptionsError):
                    async with trionats.open_watcher(nursery, store) as rx:
                        await rx.receive()
            last.stop()
            with trio.fail_after(5):
                assert (await store.get("name")).data == bytes(300_000)
                async with trionats.open_watcher(nursery, store) as rx:
                    assert (await rx.receive()).name == "name"


async def test_an_overlong_subject_does_not_end_every_connection_that_follows(nats_server: TrioNatsServer) -> None:
    """A SUB over the server's control line ends the connection; replayed, it would end the next one, and so on."""
    async with (
        open_world(nats_server, reconnect_time_wait=0.01) as (_, nc, nursery),
        trionats.open_subscription(nursery, nc, "good") as good,
        trionats.open_events(nursery, nc) as told,
        trionats.open_subscription(nursery, nc, "x" * 5000) as overlong,
    ):
        with pytest.raises(errors.ProtocolError, match="control line"):
            await overlong.receive()
        await next_event(told, events.Reconnected)
        await nc.publish("good", b"still here")
        assert (await good.receive()).data == b"still here"
        assert nc.statistics().reconnects == 1
