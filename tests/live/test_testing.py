"""A real server starts, stops, crashes, freezes and comes back as it is told, and what is left behind is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import trio

from tests.worlds import Receiver, open_live, open_world, seam
from trionats import errors
from trionats.testing import NatsServer, TrioNatsServer, assert_no_leaks, find_server, open_server
from trionats.testing._server import free_port

pytestmark = pytest.mark.usefixtures("server_executable")


async def greeted(server: NatsServer | TrioNatsServer, name: str = "", commands: bytes = b"") -> trio.SocketStream:
    """Connect without any client."""
    stream = await trio.open_tcp_stream("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    assert (await stream.receive_some()).startswith(b"INFO ")
    connect = b'CONNECT {"verbose":false,"protocol":1,"name":"%s"}\r\n' % name.encode()
    await stream.send_all(connect + commands + b"PING\r\n")
    await received(stream, b"PONG\r\n")
    return stream


async def received(stream: trio.SocketStream, text: bytes) -> None:
    came = b""
    while text not in came:
        more = await stream.receive_some()
        assert more, f"{text!r} never came, only {came!r}"
        came += more


def gone(pid: int) -> bool:
    """Whether no such process runs (it may be a zombie, where nobody reaps orphans)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state or state.startswith("Z")


def test_a_fixtures_life() -> None:
    with NatsServer(jetstream=True, name="mine") as server:
        assert server.running
        assert server.monitor("varz")["server_name"] == "mine"
        assert (server.connections(), server.subscriptions(), server.consumers()) == ([], [], [])
        url, directory, pid = server.url, server.directory, server.pid
        (directory / "store" / "kept").write_text("kept")
        with pytest.raises(RuntimeError, match="running already"):
            server.start()
        server.restart()
        server.restart(kill=True)
        assert (server.url, server.pid == pid) == (url, False)
        assert (directory / "store" / "kept").exists()
        server.kill()
        server.kill()
        assert repr(server).endswith("not running>")
        assert server.url == url
        with pytest.raises(RuntimeError, match="not running"):
            server.pause()
        with pytest.raises(OSError, match="refused"):
            server.monitor("varz")
    assert not directory.exists()


def test_a_bad_configuration_is_named() -> None:
    server = NatsServer("max_payload: {")
    with pytest.raises(RuntimeError, match="Parse error"):
        server.start()
    assert not server.running
    server.close()
    with pytest.raises(RuntimeError, match="was it started"):
        _ = server.url


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with NatsServer() as server:
        other = NatsServer(port=server.port)
        with pytest.raises(RuntimeError, match="address already in use"), other:
            pytest.fail("two servers on one port")
        # Without a port of one's own, another one is taken.
        drawn = iter([server.port, server.port])
        real = free_port()
        monkeypatch.setattr("trionats.testing._server.free_port", lambda: next(drawn, real))
        with NatsServer() as third:
            assert third.port == real


def test_no_port_is_given_to_two() -> None:
    """Who was given one may listen later; of 400 out of 22,000 some four would be the same by chance."""
    assert len({free_port() for _ in range(400)}) == 400


def test_where_a_server_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server_executable: Path) -> None:
    monkeypatch.setenv("NATS_SERVER", str(server_executable))
    assert find_server() == server_executable
    monkeypatch.setenv("NATS_SERVER", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="nothing"):
        find_server()
    monkeypatch.delenv("NATS_SERVER")
    monkeypatch.setattr("importlib.metadata.distribution", Mock(side_effect=PackageNotFoundError))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="pip install"):
        find_server()
    (tmp_path / "nats-server").symlink_to(server_executable)
    assert find_server() == tmp_path / "nats-server"


ORPHAN = """
import sys, os, signal
from trionats.testing import NatsServer
server = NatsServer()
server.start()
print(server.pid, server.directory, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["left", "killed"])
def test_no_server_outlives_its_process(how: str) -> None:
    child = subprocess.run([sys.executable, "-c", ORPHAN, how], stdout=subprocess.PIPE, text=True, check=False)
    pid, directory = child.stdout.split()
    assert child.returncode == (0 if how == "left" else -signal.SIGKILL)
    assert how == "killed" or not os.path.exists(directory)
    deadline = time.monotonic() + 5
    while not gone(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_in_trio() -> None:
    async with open_server(jetstream=True) as server:
        assert repr(server).startswith("<TrioNatsServer")
        url = server.url
        stream = await greeted(server, "me", b"SUB a.b 1\r\nSUB a.b 2\r\nSUB c q 3\r\n")
        (connection,) = await server.connections("me")
        assert (connection.name, connection.subscriptions) == ("me", ("a.b", "a.b", "c"))
        assert await server.subscriptions("me") == ["a.b", "a.b", "c"]
        assert await server.subscriptions("you") == []
        assert await server.consumers("none") == []
        assert (await server.monitor("/healthz"))["status"] == "ok"
        with pytest.raises(RuntimeError, match="404"):
            await server.monitor("nonsense")
        await server.restart()
        async for said in stream:
            assert said == b"PING\r\n", "which it says to a client that has been there for two seconds"
        await stream.aclose()
        await server.kill()
        await server.start()
        assert server.url == url
        await server.stop()
        assert not server.running
        pid = server.pid
    assert gone(pid)


async def test_a_paused_server_is_silent_and_a_lame_duck_says_so() -> None:
    async with open_server('lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"\n') as server:
        stream = await greeted(server)
        server.pause()
        await stream.send_all(b"PING\r\n")
        with trio.move_on_after(0.1):
            pytest.fail(f"a frozen server says {await stream.receive_some()!r}")
        server.resume()
        await received(stream, b"PONG\r\n")  # perhaps behind a PING of its own
        server.lame_duck()
        await received(stream, b'"ldm":true')
        server.pause()
        await stream.aclose()


async def test_reloading() -> None:
    async with open_server("max_payload: 2000") as server:
        assert (await server.monitor("varz"))["max_payload"] == 2000
        await server.reload("max_payload: 3000")
        assert (await server.monitor("varz"))["max_payload"] == 3000
        with pytest.raises(RuntimeError, match="Parse error"):
            await server.reload("max_payload: {")
        assert "Failed to reload" in server.log


class FakeClient(SimpleNamespace):
    """What `assert_no_leaks` knows of a client."""

    subscriptions = pending_requests = received = 0
    feeds: tuple[str, ...] = ()

    def statistics(self) -> FakeClient:
        return self


async def test_nothing_left_and_a_late_goodbye_is_waited_for(
    nats_server: TrioNatsServer, nursery: trio.Nursery
) -> None:
    client, inside = FakeClient(), trio.Event()
    async with assert_no_leaks(client, server=nats_server):
        stream = await greeted(nats_server, "short", b"SUB a 1\r\n")
        client.received += 5
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.lowlevel.checkpoint)
            inner.start_soon(stream.aclose)

    async def goodbye() -> None:
        await inside.wait()
        await trio.sleep(0.1)
        client.subscriptions = 0

    nursery.start_soon(goodbye)
    async with assert_no_leaks(client, server=nats_server):
        client.subscriptions = 1
        inside.set()
    with pytest.raises(AssertionError, match="1 x client 1: subscriptions"):
        async with assert_no_leaks(client, within=0.05):
            client.subscriptions = 1
    client.subscriptions = 0
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the body's own, whatever is left
        async with assert_no_leaks(client):
            client.subscriptions = 1
            raise ZeroDivisionError


async def test_what_is_left_is_named(nats_server: TrioNatsServer, nursery: trio.Nursery) -> None:
    client = FakeClient()
    left = assert_no_leaks(client, server=nats_server.server)
    await left.__aenter__()
    stream = await greeted(nats_server, "long", b"SUB a.b 1\r\n")
    client.pending_requests = 2
    client.feeds = ("watcher 'w'",)
    nursery.start_soon(trio.sleep_forever)
    with pytest.raises(AssertionError) as caught:
        await left.__aexit__(None, None, None)
    nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(stream)
    assert str(caught.value).splitlines() == [
        "left behind:",
        "  1 x client 1: feeds: watcher 'w'",
        "  2 x client 1: pending_requests",
        "  1 x server: connection of client 'long'",
        "  1 x server: subscription of client 'long' to 'a.b'",
        "  1 x task trio.sleep_forever",
    ]


async def test_an_inbox_that_is_left_is_seen_beside_the_one_that_requests_share(nats_server: TrioNatsServer) -> None:
    """A watcher's inbox has the form of the shared one; only one of that form is nobody's leak."""
    async with open_world(nats_server) as (_, nc, _):
        async with assert_no_leaks(server=nats_server):
            with pytest.raises(errors.NoRespondersError):
                await nc.request("nobody")
        left = assert_no_leaks(server=nats_server, within=0.05)
        await left.__aenter__()
        attachments = [seam(nc).attach(f"{nc.new_inbox()}.*", Receiver()) for _ in range(2)]
        await nc.flush()
        with pytest.raises(AssertionError, match="2 x server: subscription of a nameless client to an inbox"):
            await left.__aexit__(None, None, None)
        for attachment in attachments:
            attachment.detach()


async def test_a_store_that_only_the_configuration_asks_for_is_the_servers_own_and_consumers_are_listed() -> None:
    for _ in range(2):
        async with open_live("jetstream: enabled\n") as (server, nc, _):
            js = nc.jetstream()
            with pytest.raises(errors.BucketNotFoundError):
                await js.object_store("mine")
            await js.create_object_store("mine")
            where = (await server.monitor("jsz"))["config"]["store_dir"]
            assert where.startswith(str(server.server.directory))
            await js.add_stream(name="S", subjects=["s"])
            await js.add_consumer("S", durable_name="C")
            assert await server.consumers() == await server.consumers("S") == ["S/C"]
            assert await server.consumers("T") == []


@pytest.mark.parametrize("config", ["", "jetstream: enabled\n"])
async def test_a_store_of_ones_own_is_used_and_stays(config: str, tmp_path: Path) -> None:
    async with open_server(config, jetstream=not config, store=tmp_path / "mine") as server:
        assert (await server.monitor("jsz"))["config"]["store_dir"].startswith(str(tmp_path / "mine"))
    assert (tmp_path / "mine").exists()
