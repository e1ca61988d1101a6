"""The bridge without a server: translation, bookkeeping, misuse, and a loop that behaves badly."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import nats.aio.client
import pytest
import trio
from nats.aio.msg import Msg as NatsPyMsg
from nats.js.kv import KeyValue

import trionats
from trionats import bridge, errors
from trionats._bridge.connection import NatsPyConnection
from trionats._bridge.loop import Host, loop_here, report, run_in, trio_asyncio
from trionats._bridge.stores import read_entry
from trionats._bridge.requests import ours
from trionats._core.message import Msg
from trionats._feeds.feed import CLEANUP_SECONDS
from trionats._protocol.jetstream.acks import AckSubject
from trionats._subscription import check_limits

if TYPE_CHECKING:
    from collections.abc import Callable

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


# -- the connection -----------------------------------------------------------------------------------------------------------


class Receiver:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.at_the_end: list[Callable[[], object]] = []

    def deliver(self, message: object, /) -> None:
        if self.told == ["bug"]:
            raise ZeroDivisionError
        self.told.append(message)

    def connection_lost(self, reason: Exception) -> None:
        self.told.append("lost")

    def connection_restored(self) -> None:
        self.told.append("restored")

    def ended(self, reason: BaseException | None) -> None:
        self.told.append(reason)
        for act in self.at_the_end:
            act()


class FakeSubscription:
    def __init__(self, client: FakeClient, subject: str, callback: Any) -> None:  # noqa: ANN401 - a callback
        self._id = 1
        self.client, self.subject, self.callback = client, subject, callback

    async def unsubscribe(self, limit: int = 0) -> None:
        self.client.said.append(f"UNSUB {self.subject} {limit}".removesuffix(" 0"))

    async def drain(self) -> None:
        self.client.said.append(f"UNSUB {self.subject}")


class FakeClient(nats.aio.client.Client):
    """nats-py's client with a connection that the test makes up."""

    def __init__(self) -> None:
        super().__init__()
        self._status = self.CONNECTED
        self.said: list[str] = []
        self.subscriptions: list[FakeSubscription] = []
        self.replies: list[str] = []
        self.heard: list[Exception] = []
        self.broken = self.stuck = self.swallows = False
        self.refuses: Exception | None = None
        self.drained = asyncio.Event()
        self._error_cb = self.hear

    async def hear(self, error: Exception) -> None:
        self.heard.append(error)

    async def subscribe(  # type: ignore[override]
        self,
        subject: str,
        queue: str = "",
        cb: Any = None,  # noqa: ANN401 - nats-py's
        **_: Any,  # noqa: ANN401 - nats-py's
    ) -> Any:  # noqa: ANN401 - nats-py's
        if self.refuses is not None:
            raise self.refuses
        self.said.append(f"SUB {subject}")
        self.subscriptions.append(FakeSubscription(self, subject, cb))
        return self.subscriptions[-1]

    async def publish(  # type: ignore[override]
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        **_: Any,  # noqa: ANN401 - nats-py's
    ) -> None:
        if self.broken:
            raise OSError("broken pipe")
        if self.stuck:
            self.said.append(f"stuck at {subject}")
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:  # noqa: ASYNC103 - that is the test
                if not self.swallows:
                    raise
        self.replies.append(reply)
        self.said.append(f"PUB {subject}")

    async def drain(self) -> None:
        if not self.is_draining:
            self.said.append("drain")
            self._status = self.DRAINING_SUBS
            await self.drained.wait()
            await self._close(self.CLOSED)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self.said.append("close")
        self._status = status


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_commands_are_carried_out_in_order_and_the_task_ends() -> None:
    async with trio_asyncio.open_loop() as loop:
        client = FakeClient()
        connection, receiver = NatsPyConnection(client, loop), Receiver()
        attachment = connection.attach_plain("a", receiver)
        connection.publish_nowait("b")
        attachment.detach()
        attachment.detach()
        connection.publish_nowait("c")
        await settled()
        # It was gone before it had been subscribed.
        assert client.said == ["PUB b", "PUB c"]
        assert not asyncio.all_tasks(loop)
        assert "_close" not in vars(client)


async def test_a_command_that_fails_does_not_stop_the_others() -> None:
    async with trio_asyncio.open_loop() as loop:
        client = FakeClient()
        connection = NatsPyConnection(client, loop)
        client.broken = True
        connection.publish_nowait("a")
        connection.attach_plain("b", Receiver()).detach()
        attachment = connection.attach_plain("c", Receiver())
        await settled()
        assert client.said == ["SUB c"]
        attachment.detach()
        await settled()
        assert client.said == ["SUB c", "UNSUB c"]


async def test_what_becomes_of_the_connection_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with trio_asyncio.open_loop() as loop:
        client, receiver = FakeClient(), Receiver()
        NatsPyConnection(client, loop).attach_plain("a", receiver)
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
        connection = NatsPyConnection(client, loop)

        receiver = Receiver()
        attachment = connection.attach_plain("a", receiver)
        receiver.at_the_end = [attachment.detach, lambda: connection.publish_nowait("goodbye")]
        await settled()
        await bridge.aio_as_trio(client.close)()
        assert client.said == ["SUB a", "UNSUB a", "PUB goodbye", "close"]
        assert receiver.told[0] is None
        with pytest.raises(errors.ConnectionClosedError):
            connection.attach_plain("b", receiver)
        connection.publish_nowait("too late")
        with pytest.raises(errors.ConnectionClosedError):
            await connection.request("too.late")


async def test_a_receiver_with_a_bug_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with trio_asyncio.open_loop() as loop:
        client, receiver = FakeClient(), Receiver()
        attachment = NatsPyConnection(client, loop).attach_plain("a", receiver)
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
        connection = NatsPyConnection(client, loop)
        failures: list[Exception] = []

        async def ask() -> None:
            try:
                await connection.request("question")
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


async def test_a_client_that_is_closed_behind_our_back_is_closed_on_purpose(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """`async with nc:` is left without `close`; what nats-py noted before we came is no reason."""
    async with trio_asyncio.open_loop() as loop:
        client, receiver = FakeClient(), Receiver()
        client._err = errors.StaleConnectionError()
        connection = NatsPyConnection(client, loop)
        attachment = connection.attach_plain("a", receiver)
        receiver.at_the_end = [attachment.detach, lambda: connection.publish_nowait("goodbye")]
        await settled()
        await bridge.aio_as_trio(client.__aexit__)(None, None, None)
        assert receiver.told == [None]
        assert client.said == ["SUB a", "UNSUB a", "PUB goodbye", "close"]

        client, receiver = FakeClient(), Receiver()
        NatsPyConnection(client, loop).attach_plain("a", receiver)
        await settled()
        client._status = client.CLOSED
        await trio.sleep(1)
        assert receiver.told == [None]


async def test_what_a_client_survived_is_not_what_it_is_lost_for() -> None:
    async with trio_asyncio.open_loop() as loop:
        client, receiver = FakeClient(), Receiver()
        NatsPyConnection(client, loop).attach_plain("a", receiver)
        await settled()
        client._err = errors.Error('nats: permissions violation for publish to "x"')
        await bridge.aio_as_trio(client._error_cb)(client._err)
        await bridge.aio_as_trio(client.close)()
        assert receiver.told == [None]
        assert client.heard == [client._err]


async def test_what_a_client_is_lost_for_is_told_without_goodbyes() -> None:
    async with trio_asyncio.open_loop() as loop:
        client, receiver = FakeClient(), Receiver()
        attachment = NatsPyConnection(client, loop).attach_plain("a", receiver)
        receiver.at_the_end = [attachment.detach]
        await settled()
        client._err = errors.Error("nats: maximum payload violation")
        await bridge.aio_as_trio(client.close)()
        (reason,) = receiver.told
        assert "maximum payload" in str(reason)
        assert client.said == ["SUB a", "close"]


async def test_the_patient_are_patient_however_often_a_drain_is_asked_for() -> None:
    async with trio_asyncio.open_loop() as loop, trio.open_nursery() as nursery:
        client, patient, other = FakeClient(), Receiver(), Receiver()
        connection = NatsPyConnection(client, loop)
        first = connection.attach_plain("a", patient, patient=True)
        second = connection.attach_plain("b", other)
        for _ in range(3):
            nursery.start_soon(bridge.aio_as_trio(client.drain))
        await settled()
        nursery.start_soon(bridge.aio_as_trio(client.drain))
        await settled()
        assert (patient.told, other.told) == ([], [None])
        assert client.said == ["SUB a", "SUB b", "UNSUB b", "drain"]
        with pytest.raises(errors.ConnectionDrainingError):
            connection.attach_plain("c", other)
        client.drained.set()
        await settled()
        assert patient.told == [None]
        assert client.said[4:] == ["close"]
        first.detach()
        second.detach()


async def test_the_client_is_as_it_was_afterwards() -> None:
    async def mine() -> None:
        pass

    async def theirs_now() -> None:
        pass

    async with trio_asyncio.open_loop() as loop:
        client = FakeClient()
        client.drain = mine  # type: ignore[method-assign]
        before = dict(vars(client))
        attachment = NatsPyConnection(client, loop).attach_plain("a", Receiver())
        assert vars(client)["drain"] is not mine
        attachment.detach()
        await settled()
        assert {name: vars(client)[name] for name in before} == before
        assert vars(client).keys() == before.keys()

        attachment = NatsPyConnection(client, loop).attach_plain("a", Receiver())
        client._close = theirs_now  # type: ignore[assignment, method-assign]
        attachment.detach()
        await settled()
        assert vars(client)["_close"] is theirs_now
        assert vars(client)["drain"] is mine


async def test_a_command_that_is_stuck_makes_nobody_deaf(autojump_clock: trio.testing.MockClock) -> None:
    async with trio_asyncio.open_loop() as loop:
        client, receiver = FakeClient(), Receiver()
        connection = NatsPyConnection(client, loop)
        attachment = connection.attach_plain("a", receiver)
        client.stuck = True
        connection.publish_nowait("b")
        connection.publish_nowait("c")
        await trio.sleep(1)
        client._status = client.RECONNECTING
        await trio.sleep(1)
        assert receiver.told == ["lost"]
        client._err, client._status = errors.StaleConnectionError(), client.CLOSED
        await trio.sleep(1)
        assert isinstance(receiver.told[1], errors.StaleConnectionError)
        assert client.said == ["SUB a", "stuck at b", "stuck at c"]
        attachment.detach()
        await settled()
        assert not asyncio.all_tasks(loop)


async def test_a_loop_that_ends_under_a_command_that_swallows_it(autojump_clock: trio.testing.MockClock) -> None:
    """nats-py's `publish` with a full buffer does that."""
    receiver = Receiver()
    with trio.fail_after(60):
        async with trio_asyncio.open_loop() as loop:
            client = FakeClient()
            client.swallows = client.stuck = True
            connection = NatsPyConnection(client, loop)
            connection.attach_plain("a", receiver)
            connection.publish_nowait("b")
            await settled()
    (reason,) = receiver.told
    assert "its asyncio loop ends" in str(reason)


async def test_nothing_begins_in_a_loop_that_ends() -> None:
    """A consumer that opens its feed again and again would find one in which nobody ever tells it the end."""
    refused: list[str] = []

    async with trio_asyncio.open_loop() as loop:
        client, receiver = FakeClient(), Receiver()
        connection = NatsPyConnection(client, loop)
        connection.attach_plain("a", receiver)
        receiver.at_the_end = [lambda: refused.append(attach_again(connection))]
        await settled()
    assert refused == ["subscription 'again': nats-py's client is closed"]
    with pytest.raises(errors.ConnectionClosedError, match="its asyncio loop ends"):
        await connection.wait_stopped()


def attach_again(connection: NatsPyConnection) -> str:
    try:
        connection.attach_plain("again", Receiver())
    except errors.ConnectionClosedError as error:
        return str(error)
    return "accepted"


async def test_who_comes_during_the_last_words_is_ended_with_them() -> None:
    """Where somebody cancels all tasks of a loop that goes on."""
    async with trio_asyncio.open_loop() as loop:
        client, receiver, late = FakeClient(), Receiver(), Receiver()
        connection = NatsPyConnection(client, loop)
        connection.attach_plain("a", receiver)
        receiver.at_the_end = [lambda: connection.attach_plain("late", late)]
        await settled()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        await settled()
        assert "its asyncio loop ends" in str(late.told[0])
        await settled()
        assert client.said == ["SUB a", "SUB late", "UNSUB a", "UNSUB late"]
        assert not asyncio.all_tasks(loop)


async def test_the_server_hears_of_the_end_before_what_is_given_back() -> None:
    """What is given back to a consumer that is still asking comes to it again at once."""
    async with trio_asyncio.open_loop() as loop:
        client = FakeClient()
        connection = NatsPyConnection(client, loop)
        attachment = connection.attach_plain("a", Receiver())
        await settled()
        attachment.detach(late=lambda _: None)
        connection.publish_nowait("nak")
        await settled()
        assert client.said == ["SUB a", "UNSUB a", "PUB nak"]


async def test_a_subscription_that_nats_py_refuses_ends() -> None:
    async with trio_asyncio.open_loop() as loop:
        client, receiver = FakeClient(), Receiver()
        connection = NatsPyConnection(client, loop)
        connection.attach_plain("a", receiver).detach()
        client.refuses = errors.ConnectionDrainingError()
        attachment = connection.attach_plain("b", receiver)
        await settled()
        assert receiver.told == [client.refuses]
        attachment.detach()


@pytest.mark.parametrize(
    "refusal", ['publish to "question.a"', 'publish with reply of "{inbox}"', 'subscription to "{wildcard}"']
)
async def test_a_refused_request_fails_at_once(refusal: str, autojump_clock: trio.testing.MockClock) -> None:
    async with trio_asyncio.open_loop() as loop, trio.open_nursery() as nursery:
        client = FakeClient()
        connection = NatsPyConnection(client, loop)
        outcomes: dict[str, Exception] = {}

        async def ask(subject: str) -> None:
            try:
                await connection.request(subject)
            except errors.Error as error:
                outcomes[subject] = error

        nursery.start_soon(ask, "Question.A")
        await settled()
        nursery.start_soon(ask, "question.b")
        await settled()
        (wildcard,) = (subscription.subject for subscription in client.subscriptions)
        text = refusal.format(inbox=client.replies[0], wildcard=wildcard).lower()
        await bridge.aio_as_trio(client._error_cb)(errors.Error(f"nats: permissions violation for {text}"))
        await settled()
        assert isinstance(outcomes["Question.A"], errors.PermissionsViolationError)
        assert "Question.A" in str(outcomes["Question.A"])
        await trio.sleep(10)
        kind = errors.PermissionsViolationError if "wildcard" in refusal else errors.TimeoutError
        assert isinstance(outcomes["question.b"], kind)


async def test_an_error_callback_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: Exception) -> None:
        raise ZeroDivisionError

    async with trio_asyncio.open_loop() as loop:
        client = FakeClient()
        client._error_cb = fails
        connection = NatsPyConnection(client, loop)
        loop.call_soon(connection.tell, errors.Error("told"))
        await settled()
        assert not asyncio.all_tasks(loop)
    assert "the error callback of nats-py's client" in caplog.text


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


async def test_a_call_is_over_before_the_goodbye(autojump_clock: trio.testing.MockClock) -> None:
    async def call() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)  # noqa: ASYNC102 - that is the test
            ended.append("call")

    async def goodbye() -> None:  # noqa: ASYNC124 - what a host wants
        ended.append("goodbye")

    async def enter() -> None:
        with pytest.raises(errors.ConnectionClosedError, match="passed in was cancelled"):
            await host.call(loop, call)

    ended: list[str] = []
    host = Host()
    async with trio.open_nursery() as calling:
        async with trio.open_nursery() as nursery:
            loop = await nursery.start(host.run, goodbye)
            calling.start_soon(enter)
            await settled()
            nursery.cancel_scope.cancel()
    assert ended == ["call", "goodbye"]


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
