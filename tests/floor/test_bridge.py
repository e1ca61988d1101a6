"""The bridge without a server: translation, bookkeeping, misuse, and a loop that behaves badly."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import Any

import nats.aio.client
import pytest
import trio
from nats.aio.msg import Msg as NatsPyMsg
from nats.js.kv import KeyValue

import trionats
from trionats import bridge, errors
from trionats._answers import ours
from trionats._asyncio_loop import loop_here, report, run_in, trio_asyncio
from trionats._bridged import check_limits, read_entry
from trionats._feed import CLEANUP_SECONDS
from trionats._message import Msg
from trionats._nats_py import Carrier
from trionats._protocol.pulling import AckSubject

ACK = AckSubject("S", "C", 1, 7, 3, 1_700_000_000_500_000_000, 2)


def theirs(headers: dict[str, str] | None = None, data: bytes = b"", subject: str = "a.b") -> NatsPyMsg:
    return NatsPyMsg(nats.aio.client.Client(), subject, "r", data, headers, _sid=5)


# -- nats-py's messages as ours --------------------------------------------------------------------------------------------


async def decoded(block: bytes, data: bytes = b"") -> Msg:
    """Let nats-py read a header block, and make our message of what it made of it."""
    headers = await nats.aio.client.Client()._process_headers(block)
    return ours(theirs(headers, data))


@pytest.mark.parametrize(
    ("block", "status", "description", "headers"),
    [
        (b"NATS/1.0 404 No Messages\r\n\r\n", 404, "No Messages", {}),
        (b"NATS/1.0 503\r\n\r\n", 503, "", {}),
        # nats-py takes the header of this one for the description.
        (b"NATS/1.0 503\r\nNats-Subject: x\r\n\r\n", 503, "", {"Nats-Subject": "x"}),
        (
            b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 4\r\nNats-Pending-Bytes: 0\r\n\r\n",
            408,
            "Request Timeout",
            {"Nats-Pending-Messages": "4", "Nats-Pending-Bytes": "0"},
        ),
        (
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 3\r\nNats-Last-Stream: 9\r\n\r\n",
            100,
            "Idle Heartbeat",
            {"Nats-Last-Consumer": "3", "Nats-Last-Stream": "9"},
        ),
        (b"NATS/1.0\r\nA: b\r\nC: \xc3\xa9\r\n\r\n", None, "", {"A": "b", "C": "\u00e9"}),
    ],
)
async def test_header_blocks_come_through_nats_py(
    block: bytes, status: int | None, description: str, headers: dict[str, str]
) -> None:
    message = await decoded(block)
    assert (message.status, message.description) == (status, description)
    assert {name: value for name, value in message.headers.items() if name in headers} == headers


def test_a_message_without_headers() -> None:
    message = ours(theirs(data=b"1"))
    assert (message.sid, message.subject, message.reply, message.data) == (5, "a.b", "r", b"1")
    assert message.header_block is None
    assert message.status is None


def test_what_looks_like_a_status_and_has_a_payload_is_a_message() -> None:
    message = ours(theirs({"Status": "404", "Description": "mine"}, b"payload"))
    assert message.status is None
    assert message.headers["Status"] == "404"


def test_a_header_that_no_client_should_send_is_left_out() -> None:
    message = ours(theirs({"Good": "1", "Bad": "a\x00b", "": "no name"}))
    assert message.headers.get("Good") == "1"
    assert "Bad" not in message.headers


# -- entries ---------------------------------------------------------------------------------------------------------------


def stored(headers: dict[str, str] | None = None, data: bytes = b"v") -> Msg:
    return ours(theirs(headers, data, "$KV.b.some.key"))


def entry_of(message: Msg, *, ignore_deletes: bool = False) -> KeyValue.Entry | None:
    return read_entry("b", "$KV.b.", ignore_deletes, message, ACK)


def test_an_entry_is_as_nats_py_makes_it() -> None:
    entry = entry_of(stored())
    assert entry is not None
    assert (entry.bucket, entry.key, entry.value, entry.revision, entry.delta) == ("b", "some.key", b"v", 7, 2)
    assert entry.operation is None
    assert str(entry.created) == "2023-11-14 22:13:20.500000+00:00"


@pytest.mark.parametrize(
    ("headers", "operation"),
    [
        ({"KV-Operation": "DEL"}, "DEL"),
        ({"KV-Operation": "PURGE"}, "PURGE"),
        ({"Nats-Marker-Reason": "MaxAge"}, "PURGE"),
        ({"Nats-Marker-Reason": "Purge"}, "PURGE"),
        ({"Nats-Marker-Reason": "Remove"}, "DEL"),
    ],
)
def test_markers(headers: dict[str, str], operation: str) -> None:
    entry = entry_of(stored(headers, b""))
    assert entry is not None
    assert entry.operation == operation
    assert entry_of(stored(headers, b""), ignore_deletes=True) is None


def test_a_marker_of_an_unknown_kind_is_left_out() -> None:
    assert entry_of(stored({"Nats-Marker-Reason": "Novelty"}, b"")) is None
    assert entry_of(stored({"Other": "header"})) is not None


# -- misuse ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((-1, 1, 1, "fail"), "max_msgs"),
        ((0, 0, 1, "fail"), "1 or more"),
        ((0, 1, 0, "fail"), "1 or more"),
        ((0, 1, 1, "sideways"), "sideways"),
    ],
)
def test_limits_that_are_none(arguments: tuple[int, int, int, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_limits(*arguments)


async def test_what_cannot_be_opened_says_why() -> None:
    async with trio.open_nursery() as nursery:
        client = nats.aio.client.Client()
        with pytest.raises(TypeError, match=r"nats-py's nats\.aio\.client\.Client, not int"):
            await bridge.open_subscription(nursery, 42, "a").__aenter__()  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="trio-asyncio loop that is open"):
            await bridge.open_subscription(nursery, client, "a").__aenter__()
        with pytest.raises(errors.BadSubjectError):
            await bridge.open_subscription(nursery, client, "a b").__aenter__()
        with pytest.raises(errors.BadSubjectError):
            await bridge.open_subscription(nursery, client, "a", queue="a b").__aenter__()
        with pytest.raises(TypeError, match="must be nats-py's, not int"):
            bridge.open_watcher(nursery, 42)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=r"must be a trio\.Nursery"):
            await bridge.open_nats_py(42).__aenter__()  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="'async with'"):
            await bridge.open_nats_py(nursery)
        assert not nursery.child_tasks


def test_importing_trionats_leaves_asyncio_alone() -> None:
    program = "import sys, trionats; sys.exit('trio_asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", program], check=False).returncode == 0


# -- the carrier -----------------------------------------------------------------------------------------------------------


class Receiver:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def deliver(self, message: object, /) -> None:
        if self.told == ["bug"]:
            raise ZeroDivisionError
        self.told.append(message)

    def link_lost(self, reason: Exception) -> None:
        self.told.append("lost")

    def link_restored(self) -> None:
        self.told.append("restored")

    def ended(self, reason: BaseException | None) -> None:
        self.told.append(reason)


class FakeSubscription:
    def __init__(self, client: FakeClient, subject: str, callback: Any) -> None:  # noqa: ANN401 - a callback
        self._id = 1
        self.client, self.subject, self.callback = client, subject, callback

    async def unsubscribe(self, limit: int = 0) -> None:
        self.client.said.append(f"UNSUB {self.subject} {limit}".removesuffix(" 0"))


class FakeClient(nats.aio.client.Client):
    """nats-py's client with a connection that the test makes up."""

    def __init__(self) -> None:
        super().__init__()
        self._status = self.CONNECTED
        self.said: list[str] = []
        self.subscriptions: list[FakeSubscription] = []
        self.broken = False

    async def subscribe(  # type: ignore[override]
        self,
        subject: str,
        queue: str = "",
        cb: Any = None,  # noqa: ANN401 - nats-py's
        **_: Any,  # noqa: ANN401 - nats-py's
    ) -> Any:  # noqa: ANN401 - nats-py's
        self.said.append(f"SUB {subject}")
        self.subscriptions.append(FakeSubscription(self, subject, cb))
        return self.subscriptions[-1]

    async def publish(self, subject: str, *_: Any, **__: Any) -> None:  # noqa: ANN401 - nats-py's
        if self.broken:
            raise OSError("broken pipe")
        self.said.append(f"PUB {subject}")

    async def close(self) -> None:
        self.said.append("close")
        self._status = self.CLOSED


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_commands_are_carried_out_in_order_and_the_task_ends() -> None:
    async with trio_asyncio.open_loop() as loop:
        client = FakeClient()
        carrier, receiver = Carrier(client, loop), Receiver()
        attachment = carrier.attach_plain("a", receiver)
        carrier.publish_nowait("b")
        attachment.detach()
        attachment.detach()
        carrier.publish_nowait("c")
        await settled()
        # It was gone before it had been subscribed.
        assert client.said == ["PUB b", "PUB c"]
        assert not asyncio.all_tasks(loop)
        assert "close" not in vars(client)


async def test_a_command_that_fails_does_not_stop_the_others() -> None:
    async with trio_asyncio.open_loop() as loop:
        client = FakeClient()
        carrier = Carrier(client, loop)
        client.broken = True
        carrier.publish_nowait("a")
        carrier.attach_plain("b", Receiver()).detach()
        attachment = carrier.attach_plain("c", Receiver())
        await settled()
        assert client.said == ["SUB c"]
        attachment.detach()
        await settled()
        assert client.said == ["SUB c", "UNSUB c"]


async def test_what_becomes_of_the_connection_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with trio_asyncio.open_loop() as loop:
        client, receiver = FakeClient(), Receiver()
        Carrier(client, loop).attach_plain("a", receiver)
        await trio.sleep(1)
        assert receiver.told == []
        client._status = client.RECONNECTING
        await trio.sleep(1)
        client._status = client.CONNECTED
        client.stats["reconnects"] += 1
        await trio.sleep(1)
        # So short a break that nobody saw it.
        client.stats["reconnects"] += 1
        await trio.sleep(1)
        assert receiver.told == ["lost", "restored"] * 2
        client._err = errors.StaleConnectionError()
        client._status = client.CLOSED
        await trio.sleep(1)
        (reason,) = receiver.told[4:]
        assert isinstance(reason, errors.StaleConnectionError)
        assert "lost for good" in str(reason)


async def test_goodbyes_come_before_the_close() -> None:
    async with trio_asyncio.open_loop() as loop:
        client = FakeClient()
        carrier = Carrier(client, loop)

        class Leaves(Receiver):
            def ended(self, reason: BaseException | None) -> None:
                super().ended(reason)
                attachment.detach()
                carrier.publish_nowait("goodbye")

        receiver = Leaves()
        attachment = carrier.attach_plain("a", receiver)
        await settled()
        await bridge.aio_as_trio(client.close)()
        assert client.said == ["SUB a", "UNSUB a", "PUB goodbye", "close"]
        assert receiver.told[0] is None
        with pytest.raises(errors.ConnectionClosedError):
            carrier.attach_plain("b", receiver)
        carrier.publish_nowait("too late")
        with pytest.raises(errors.ConnectionClosedError):
            await carrier.request("too.late")


async def test_a_receiver_with_a_bug_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with trio_asyncio.open_loop() as loop:
        client, receiver = FakeClient(), Receiver()
        attachment = Carrier(client, loop).attach_plain("a", receiver)
        await settled()
        receiver.told.append("bug")
        await bridge.aio_as_trio(client.subscriptions[0].callback)(theirs())
        assert isinstance(receiver.told[1], ZeroDivisionError)
        attachment.detach()
        await settled()
    assert [record.levelname for record in caplog.records if record.name == "trionats"] == ["ERROR"]


async def test_requests_fail_with_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with trio_asyncio.open_loop() as loop, trio.open_nursery() as nursery:
        client = FakeClient()
        carrier = Carrier(client, loop)
        failures: list[Exception] = []

        async def ask() -> None:
            try:
                await carrier.request("question")
            except errors.Error as error:
                failures.append(error)

        nursery.start_soon(ask)
        await trio.sleep(1)
        client._status = client.RECONNECTING
        await trio.sleep(1)
        client._status = client.CONNECTED
        nursery.start_soon(ask)
        await trio.sleep(10)
        nursery.start_soon(ask)
        await trio.sleep(1)
        await bridge.aio_as_trio(client.close)()
        await trio.sleep(1)
        kinds = [errors.DisconnectedError, errors.TimeoutError, errors.ConnectionClosedError]
        assert [isinstance(error, kind) for error, kind in zip(failures, kinds, strict=True)] == [True] * 3
        assert not asyncio.all_tasks(loop)


# -- the loop --------------------------------------------------------------------------------------------------------------


async def test_a_call_that_swallows_its_cancellation_is_left_after_a_while(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def deaf() -> None:
        while not enough:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:  # noqa: ASYNC103 - that is the test
                heard.append(trio.current_time())
        raise ZeroDivisionError

    enough: list[bool] = []
    heard: list[float] = []
    caplog.set_level(logging.DEBUG, "trionats")
    async with trio_asyncio.open_loop() as loop:
        start = trio.current_time()
        with trio.move_on_after(1) as scope:
            await run_in(loop, deaf)
        assert scope.cancelled_caught
        assert trio.current_time() - start == pytest.approx(1 + CLEANUP_SECONDS)
        assert len(heard) > 10
        enough.append(True)
        (task,) = asyncio.all_tasks(loop)
        task.cancel()
        await settled()
    assert "ended after we stopped waiting" in caplog.text


async def test_what_a_call_returns_and_raises() -> None:
    async def double(number: int, *, fail: bool = False) -> int:
        await asyncio.sleep(0)
        if fail:
            raise ZeroDivisionError
        return 2 * number

    async with trio_asyncio.open_loop() as loop:
        assert await run_in(loop, double, 21) == 42
        with pytest.raises(ZeroDivisionError):
            await run_in(loop, double, 21, fail=True)

        async def cancel_itself() -> None:
            raise asyncio.CancelledError

        with pytest.raises(errors.Error, match="cancelled by asyncio code"):
            await run_in(loop, cancel_itself)
        assert loop_here() is loop
    assert loop_here() is None


def test_stray_cancellations_are_no_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trionats")
    loop: Any = None
    report(loop, {"message": "stray", "exception": asyncio.CancelledError()})
    report(loop, {"message": "stray", "exception": ZeroDivisionError()})
    report(loop, {})
    assert [record.levelname for record in caplog.records] == ["DEBUG", "ERROR", "ERROR"]


def test_the_public_names_are_those_of_the_bridge() -> None:
    assert bridge.Subscription.__module__ == bridge.PullSubscription.__module__ == "trionats.bridge"
    assert issubclass(bridge.Subscription, trionats.Feed)
