"""The client against a real nats-server: restarts, refusals, permissions, speed, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.worlds import (
    arrived,
    connected,
    next_event,
    open_live,
    open_world,
    payloads,
    publish_forced,
    reconnected,
    refusal,
    respond,
    takes,
)
from trionats import errors, events, open_events, open_subscription
from trionats.testing import TrioNatsServer, assert_no_leaks, open_server
from trionats.testing._server import free_port

pytestmark = pytest.mark.usefixtures("server_executable")


async def test_everything_once(nats_server: TrioNatsServer) -> None:
    async with assert_no_leaks(server=nats_server), open_world(nats_server, name="once") as (_, nc, nursery):
        async with open_subscription(nursery, nc, "live.*") as rx:
            await nc.publish("live.a", b"1", reply="r", headers={"K": ["v", "w"]})
            msg = await rx.receive()
            assert (msg.subject, msg.reply, msg.data, msg.headers.getall("K")) == ("live.a", "r", b"1", ["v", "w"])

            nursery.start_soon(respond, rx, lambda request: request.data.upper())
            assert (await nc.request("live.echo", b"abc")).data == b"ABC"
            with pytest.raises(errors.NoRespondersError):
                await nc.request("nobody.is.here")
            assert 0 < await nc.rtt() < 5
            assert [c.name for c in await nats_server.connections("once")] == ["once"]
            rx.stop()
        await nc.flush()
        assert nc.client_id is not None


@pytest.mark.parametrize("size", [0, 1, 1023, 4095, 4096, 65_535, 1024 * 1024])
async def test_payloads_of_all_sizes(nats_server: TrioNatsServer, size: int) -> None:
    data = (b"\r\nMSG x 1 1\r\n" * (size // 13 + 1))[:size]
    async with open_world(nats_server) as (_, nc, nursery), open_subscription(nursery, nc, "sizes") as rx:
        await nc.publish("sizes", data)
        assert (await rx.receive()).data == data


async def test_a_payload_over_the_limit_is_refused_here_and_headers_count(nats_server: TrioNatsServer) -> None:
    async with connected(nats_server) as nc:
        limit, headers = nc.max_payload, {"A": "b"}
        with pytest.raises(errors.MaxPayloadError):
            await nc.publish("a", bytes(limit + 1))
        with pytest.raises(errors.MaxPayloadError):
            await nc.publish("a", bytes(limit), headers=headers)
        await nc.publish("a", bytes(limit))
        await nc.publish("a", bytes(limit - len(b"NATS/1.0\r\nA: b\r\n\r\n")), headers=headers)
        await nc.flush()
        assert nc.statistics().reconnects == 0


async def test_subscriptions_survive_restarts() -> None:
    """Of each kind, killed and restarted three times: every message after a restart comes exactly once."""
    async with (
        open_live(reconnect_time_wait=0.1) as (server, nc, nursery),
        open_subscription(nursery, nc, "all.*") as plain,
        open_subscription(nursery, nc, "all.x", queue="q") as queued,
        open_subscription(nursery, nc, "all.>", max_msgs=10) as limited,
        open_events(nursery, nc) as told,
    ):
        await nc.flush()
        for restart in range(1, 4):
            await server.restart(kill=True)
            await reconnected(nc, restart)
            await nc.publish("all.x", b"%d" % restart)
            for rx in (plain, queued, limited):
                assert (await rx.receive()).data == b"%d" % restart
            await nc.flush()
            assert len(plain) == len(queued) == len(limited) == 0
        for number in range(20):
            await nc.publish("all.x", b"%d" % number)
        assert len(await payloads(limited)) == 7
        seen = [type(event) for event in arrived(told)]
        assert seen.count(events.Disconnected) == seen.count(events.Reconnected) == 3
        assert sorted(await server.subscriptions()) == ["all.*", "all.x"]


async def test_no_server_there(nats_server: TrioNatsServer) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    error = await refusal(url)
    assert isinstance(error, errors.NoServersError)
    assert re.search(f"{url}.*refused", str(error))
    async with connected(nats_server, [url, nats_server.url]) as nc:
        assert nc.connected_url == nats_server.url


async def test_a_frozen_server_holds_up_no_end() -> None:
    async with open_server() as server:
        with takes(0.1, 4), trio.move_on_after(0.1):  # close_timeout was 5 s if nobody said otherwise
            async with connected(server, close_timeout=0.5) as nc:
                server.pause()
                await nc.publish("a", bytes(100_000))
                await nc.flush()
        server.resume()


async def test_a_client_just_opened_is_no_leak(nats_server: TrioNatsServer) -> None:
    for _ in range(20):
        async with connected(nats_server) as nc, assert_no_leaks(nc):
            await nc.flush()


@pytest.mark.parametrize("failing", ["request", "request_many"])
async def test_trying_again_at_once_does_not_keep_the_client_from_reconnecting(failing: str) -> None:
    options: dict[str, Any] = {"pending_size": 1000, "reconnect_time_wait": 0.01}
    async with open_live(**options) as (server, nc, nursery), open_events(nursery, nc) as told:
        await server.kill()
        await next_event(told, events.Disconnected)
        publish_forced(nc, "full", bytes(1000))
        nursery.start_soon(server.start)
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


async def test_a_closed_client_does_not_freeze_who_tries_again_at_once(nats_server: TrioNatsServer) -> None:
    async with connected(nats_server) as nc:
        await nc.aclose()
        with trio.move_on_after(0.05) as scope:
            while True:
                with pytest.raises(errors.ConnectionClosedError):
                    await nc.request("a")
        assert scope.cancelled_caught


@pytest.mark.parametrize("size", [8, 128])
async def test_a_fast_consumer_is_not_starved_by_the_reader(nats_server: TrioNatsServer, size: int) -> None:
    """Far more messages than may wait, as fast as another process can send them: a consumer that receives keeps up."""
    count = 100_000
    async with (
        open_world(nats_server) as (_, nc, nursery),
        open_subscription(nursery, nc, "fast", pending_msgs_limit=1000) as rx,
    ):
        await nc.flush()
        program = FLOOD.format(url=nats_server.url, count=count, size=size)
        flood = await nursery.start(partial(trio.run_process, [sys.executable, "-c", program]))
        for number in range(count):
            assert int((await rx.receive()).data) == number
        assert rx.statistics().dropped == 0
        await flood.wait()


FLOOD = """
import socket
host, port = "{url}".removeprefix("nats://").split(":")
s = socket.create_connection((host, int(port)))
s.sendall(b'CONNECT {{"verbose":false}}\\r\\n')
frames = (b"PUB fast {size}\\r\\n%0{size}d\\r\\n" % number for number in range({count}))
s.sendall(b"".join(frames) + b"PING\\r\\n")
seen = b""
while b"PONG" not in seen:
    seen = seen[-4:] + s.recv(65536)
"""


@pytest.mark.parametrize("where", ["receive", "request", "flush", "busy", "connecting"])
def test_ctrl_c_ends_the_program(server_executable: Path, where: str) -> None:
    """As KeyboardInterrupt, with the goodbye sent, and long before any timeout could end it."""
    environment = {**os.environ, "NATS_SERVER": str(server_executable)}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), where]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        start = time.perf_counter()
        process.send_signal(signal.SIGINT)
        outcome = process.stdout.readline()
        seconds = time.perf_counter() - start
        rest = process.stdout.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert outcome == "interrupted\n"
    assert seconds < 4, "close_timeout, request_timeout are 5 s"
    assert where == "connecting" or rest == "goodbye\n"


PROGRAM = """
    import sys
    import threading
    import trio
    import trionats
    from trionats.testing import NatsServer

    heard = []

    async def main(server, where):
        silent = await trio.open_tcp_listeners(0, host="127.0.0.1")
        url = f"nats://127.0.0.1:{silent[0].socket.getsockname()[1]}" if where == "connecting" else server.url
        if where == "connecting":
            print("ready", flush=True)
        async with trio.open_nursery() as nursery, trionats.open_client(nursery, url, connect_timeout=60) as nc:
            async with trionats.open_subscription(nursery, nc, "void") as rx:
                await nc.flush()
                print("ready", flush=True)
                try:
                    if where == "busy":
                        # CPython 3.13 leaves the back edge of `while <condition>` out of every `try` and `with` (#130279).
                        while True:
                            await nc.publish("void", b"x")
                            await rx.receive()
                    elif where == "receive":
                        await rx.receive()
                    elif where == "request":
                        with trio.fail_after(60):
                            await nc.request("void")
                    elif where == "flush":
                        server.pause()
                        with trio.fail_after(60):
                            await nc.flush()
                finally:
                    server.resume()
                    nc.publish_nowait("last", b"goodbye")

    async def watch(server, task_status):
        async with trio.open_nursery() as nursery, trionats.open_client(nursery, server.url) as nc:
            async with trionats.open_subscription(nursery, nc, "last") as rx:
                await nc.flush()
                task_status.started()
                heard.append((await rx.receive()).data)

    def listen(server, ready):
        async def run():
            async with trio.open_nursery() as nursery:
                await nursery.start(watch, server)
                ready.set()
        trio.run(run)

    with NatsServer() as server:
        ready = threading.Event()
        thread = threading.Thread(target=listen, args=(server, ready), daemon=True)
        thread.start()
        ready.wait()
        try:
            trio.run(main, server, sys.argv[1])
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            print("interrupted" if isinstance(error, KeyboardInterrupt) else repr(error), flush=True)
        if sys.argv[1] != "connecting":
            thread.join(5)
            print(*(data.decode() for data in heard), flush=True)
"""
