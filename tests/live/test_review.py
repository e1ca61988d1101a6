"""What a review of the whole broke: each test is named for what must not happen again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import nats.aio.client
import pytest
import trio

import trionats
from trionats import bridge, errors, events
from trionats.testing import assert_no_leaks, open_server

if TYPE_CHECKING:
    from trionats.testing import NatsServer, TrioNatsServer

pytestmark = pytest.mark.usefixtures("server_executable")


async def test_a_client_just_opened_is_no_leak(nats_server: NatsServer) -> None:
    for _ in range(20):
        async with trio.open_nursery() as nursery, trionats.open_client(nursery, nats_server.url) as nc:
            async with assert_no_leaks(nc):
                await nc.flush()


@pytest.mark.parametrize("failing", ["request", "request_many"])
async def test_trying_again_at_once_does_not_keep_the_client_from_reconnecting(failing: str) -> None:
    async with (
        open_server() as server,
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, server.url, pending_size=1000, reconnect_time_wait=0.01) as nc,
        trionats.open_events(nursery, nc) as happenings,
        trio.open_nursery() as workers,
    ):
        await server.kill()
        with trio.fail_after(10):
            assert isinstance(await happenings.receive(), events.Disconnected)
        nc.publish_nowait("full", bytes(1000), force=True)
        workers.start_soon(server.start)
        refused = 0
        with trio.fail_after(20):
            while True:
                try:
                    await getattr(nc, failing)("nobody")
                except errors.OutboundBufferLimitError:
                    refused += 1
                except errors.NoRespondersError:
                    break
        assert refused


async def test_a_closed_client_does_not_freeze_who_tries_again_at_once(nats_server: NatsServer) -> None:
    async with trio.open_nursery() as nursery, trionats.open_client(nursery, nats_server.url) as nc:
        await nc.aclose()
        with trio.move_on_after(0.05):
            while True:
                with pytest.raises(errors.ConnectionClosedError):
                    await nc.request("a")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("close_timeout", None, TypeError),
        ("close_timeout", -1, ValueError),
        ("connect_timeout", "2", TypeError),
        ("request_timeout", math.nan, ValueError),
        ("drain_timeout", -0.5, ValueError),
        ("ping_interval", 0, ValueError),
        ("max_outstanding_pings", 0, ValueError),
        ("max_reconnect_attempts", 1.5, TypeError),
        ("pending_size", "2 MiB", TypeError),
        ("reconnect_time_wait", True, TypeError),
        ("inbox_prefix", None, TypeError),
        ("name", 5, TypeError),
        ("tls", "yes", TypeError),
        ("dial", 5, TypeError),
        ("rng", 5, TypeError),
    ],
)
async def test_an_option_that_cannot_be_does_not_wait_for_the_goodbye_to_fail(
    nats_server: NatsServer, name: str, value: object, kind: type[Exception]
) -> None:
    options: Any = {name: value}
    async with trio.open_nursery() as nursery, assert_no_leaks(server=nats_server):
        with pytest.raises(kind, match=name.replace("inbox_prefix", "inbox prefix")):
            async with trionats.open_client(nursery, nats_server.url, **options):
                pytest.fail("opened")


@pytest.mark.parametrize("servers", [None, 5, b"nats://u:secret@h", [None], ["nats://h", 3], [b"nats://u:secret@h"]])
async def test_servers_of_a_wrong_type_are_named_and_not_shown(servers: object) -> None:
    given: Any = servers
    async with trio.open_nursery() as nursery:
        with pytest.raises(TypeError, match="must be a URL") as caught:
            async with trionats.open_client(nursery, given):
                pytest.fail("opened")
    assert "secret" not in str(caught.value)


async def test_arguments_of_a_wrong_type_do_not_surface_as_attribute_errors(nats_server: NatsServer) -> None:
    wrong: Any = 5
    async with trio.open_nursery() as nursery, trionats.open_client(nursery, nats_server.url) as nc:
        for open_ in (
            lambda: trionats.open_subscription(nursery, wrong, "a"),
            lambda: trionats.open_events(nursery, wrong),
            lambda: trionats.open_replies(nursery, wrong, "a"),
        ):
            with pytest.raises(TypeError, match="nc must be a Client, not int"):
                async with open_():
                    pytest.fail("opened")
        wrong = nats.aio.client.Client()
        with pytest.raises(TypeError, match="nc must be a Client, not nats-py's, for which there is"):
            async with trionats.open_subscription(nursery, wrong, "a"):
                pytest.fail("opened")
        with pytest.raises(TypeError, match="psub must be what nats-py's pull_subscribe gives, not Client"):
            async with bridge.open_pull_subscription(nursery, wrong):
                pytest.fail("opened")
        wrong = 5
        asks: dict[str, Any]
        for asks in ({"max_msgs": "x"}, {"stall": "x"}, {"sentinel": 5}):
            with pytest.raises(TypeError, match=f"^{next(iter(asks))} is "):
                await nc.request_many("a", **asks)
            with pytest.raises(TypeError, match=f"^{next(iter(asks))} is "):
                async with trionats.open_replies(nursery, nc, "a", **asks):
                    pytest.fail("opened")
        for limits in ({"max_msgs": 1.5}, {"max_msgs": None}, {"pending_msgs_limit": "x"}, {"pending_bytes_limit": ""}):
            with pytest.raises(TypeError, match=next(iter(limits))):
                async with trionats.open_subscription(nursery, nc, "a", **limits):
                    pytest.fail("opened")
        with pytest.raises(TypeError, match="headers must be a mapping, not int"):
            await nc.publish("a", headers=wrong)
        with pytest.raises(TypeError, match="publish to 5: it must be text, not int"):
            await nc.publish(wrong)
        with pytest.raises(TypeError, match="request_timeout"):
            nc.with_options(request_timeout="5")  # type: ignore[arg-type]
        store = await nc.jetstream().create_object_store("review")
        for call in (store.put(wrong, b""), store.get(wrong), store.get_info(wrong), store.delete(wrong)):
            with pytest.raises(TypeError, match="object name 5 for bucket 'review': it must be text"):
                await call
        with pytest.raises(TypeError, match="meta must be an ObjectMeta, not int"):
            await store.put("a", b"", wrong)
        await nc.jetstream().delete_object_store("review")


async def test_an_overlong_subject_does_not_end_every_connection_that_follows(nats_server: TrioNatsServer) -> None:
    """A SUB over the server's control line ends the connection; replayed, it would end the next one, and so on."""
    async with (
        trio.open_nursery() as nursery,
        trionats.open_client(nursery, nats_server.url, reconnect_time_wait=0.01) as nc,
        trionats.open_subscription(nursery, nc, "good") as good,
        trionats.open_events(nursery, nc) as told,
        trionats.open_subscription(nursery, nc, "x" * 5000) as overlong,
    ):
        with pytest.raises(errors.ProtocolError, match="control line"):
            await overlong.receive()
        async for event in told:
            if isinstance(event, events.Reconnected):
                break
        await nc.publish("good", b"still here")
        assert (await good.receive()).data == b"still here"
        assert nc.statistics().reconnects == 1
