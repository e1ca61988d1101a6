"""The bridge without a server: translation, bookkeeping, misuse, and a loop that behaves badly."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import nats.aio.client
import pytest
import trio
from nats.aio.msg import Msg as NatsPyMsg

from tests.worlds import Receiver, settled
from trionats import bridge, errors
from trionats._bridge.connection import NatsPyConnection
from trionats._bridge.loop import Host, loop_here, report, run_in, trio_asyncio
from trionats._bridge.messages import ours
from trionats._bridge.stores import read_entry
from trionats._core.messaging import messaging_of
from trionats._feeds.feed import CLEANUP_SECONDS
from trionats._protocol.jetstream.acks import AckSubject
from trionats.bridge import aio_as_trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nats.js.kv import KeyValue

    from trionats._bridge.attachments import Attachment

    Attached: TypeAlias = tuple["FakeClient", NatsPyConnection, "Leaving", Attachment]

ACK = AckSubject("S", "C", 1, 7, 3, 1_700_000_000_500_000_000, 2)


def theirs(headers: dict[str, str] | None = None, data: bytes = b"", subject: str = "a.b") -> NatsPyMsg:
    return NatsPyMsg(nats.aio.client.Client(), subject, "r", data, headers, _sid=5)


# -- nats-py's messages as ours --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "headers", "status", "description"),
    [
        (" 404 No Messages", {}, 404, "No Messages"),
        (" 503", {}, 503, ""),
        (" 503", {"Nats-Subject": "x"}, 503, ""),  # nats-py takes the header of this one for the description
        (" 408 Request Timeout", {"Nats-Pending-Messages": "4", "Nats-Pending-Bytes": "0"}, 408, "Request Timeout"),
        (" 100 Idle Heartbeat", {"Nats-Last-Consumer": "3", "Nats-Last-Stream": "9"}, 100, "Idle Heartbeat"),
        ("", {"A": "b", "C": "\u00e9"}, None, ""),
    ],
)
async def test_header_blocks_come_through_nats_py(
    line: str, headers: dict[str, str], status: int | None, description: str
) -> None:
    lines = [f"NATS/1.0{line}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    message = ours(theirs(await nats.aio.client.Client()._process_headers("\r\n".join(lines).encode())))
    assert (message.status, message.description) == (status, description)
    assert {name: value for name, value in message.headers.items() if name in headers} == headers


@pytest.mark.parametrize(
    ("given", "data", "headers"),
    [
        (None, b"1", {}),
        # What looks like a status and has a payload is a message; what no client should send is left out.
        ({"Status": "404", "Description": "mine"}, b"1", {"Status": "404", "Description": "mine"}),
        ({"Good": "1", "Bad": "a\x00b", "": "no name"}, b"", {"Good": "1"}),
    ],
)
def test_a_message_of_ours(given: dict[str, str] | None, data: bytes, headers: dict[str, str]) -> None:
    message = ours(theirs(given, data))
    assert (message.sid, message.subject, message.reply, message.data) == (5, "a.b", "r", data)
    assert message.status is None
    assert dict(message.headers) == headers


# -- entries ---------------------------------------------------------------------------------------------------------------


def entry_of(headers: Any = None, data: bytes = b"", *, ignore_deletes: bool = False) -> KeyValue.Entry | None:  # noqa: ANN401
    return read_entry("b", "$KV.b.", ignore_deletes, ours(theirs(headers, data, "$KV.b.some.key")), ACK)


def test_an_entry_is_as_nats_py_makes_it() -> None:
    entry = entry_of({"Other": "header"}, b"v", ignore_deletes=True)
    assert entry == entry_of(data=b"v")
    assert entry is not None
    assert (entry.bucket, entry.key, entry.value, entry.revision, entry.delta) == ("b", "some.key", b"v", 7, 2)
    assert entry.operation is None
    assert str(entry.created) == "2023-11-14 22:13:20.500000+00:00"


@pytest.mark.parametrize(
    ("header", "operation"),
    [
        ("KV-Operation: DEL", "DEL"),
        ("KV-Operation: PURGE", "PURGE"),
        ("Nats-Marker-Reason: MaxAge", "PURGE"),
        ("Nats-Marker-Reason: Purge", "PURGE"),
        ("Nats-Marker-Reason: Remove", "DEL"),
        # Of an unknown kind: the key is gone, whatever it means (ADR-8).
        ("Nats-Marker-Reason: Novelty", "DEL"),
        ("KV-Operation: Novelty", "DEL"),
    ],
)
def test_a_marker_says_what_became_of_a_key(header: str, operation: str | None) -> None:
    headers = dict([header.split(": ")])
    entry = entry_of(headers)
    assert (entry and entry.operation) == operation
    assert entry_of(headers, ignore_deletes=True) is None


# -- misuse ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "complaint"),
    [
        ({"nats_py_client": 42}, TypeError, r"nats-py's nats\.aio\.client\.Client, not int"),
        ({}, RuntimeError, "trio-asyncio loop that is open"),
        ({"subject": "a b"}, errors.BadSubjectError, "'a b'"),
        ({"queue": "a b"}, errors.BadSubjectError, "'a b'"),
        ({"max_msgs": -1}, ValueError, "max_msgs"),
        ({"pending_msgs_limit": 0}, ValueError, "1 or more"),
        ({"pending_bytes_limit": 0}, ValueError, "1 or more"),
        ({"overflow": "sideways"}, ValueError, "sideways"),
    ],
)
async def test_what_cannot_be_subscribed_says_why(
    options: dict[str, Any], kind: type[Exception], complaint: str, nursery: trio.Nursery
) -> None:
    given: dict[str, Any] = {"nursery": nursery, "nats_py_client": nats.aio.client.Client(), "subject": "a"}
    with pytest.raises(kind, match=complaint):
        await bridge.open_subscription(**given | options).__aenter__()
    assert not nursery.child_tasks


async def test_what_cannot_be_opened_says_why(nursery: trio.Nursery) -> None:
    with pytest.raises(TypeError, match="pull_subscribe gives, not int"):
        await bridge.open_pull_subscription(nursery, 42).__aenter__()  # type: ignore[arg-type]
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


# -- the connection --------------------------------------------------------------------------------------------------------


class Leaving(Receiver):
    """A receiver that does something when it is ended."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        super().__init__()
        self.acts = acts

    def ended(self, reason: BaseException | None) -> None:
        super().ended(reason)
        for act in self.acts:
            act()


@dataclass
class FakeSubscription:
    client: FakeClient
    subject: str
    callback: Any
    _id: int = 1

    async def unsubscribe(self, limit: int = 0) -> None:
        self.client.said.append(f"UNSUB {self.subject} {limit}".removesuffix(" 0"))

    drain = unsubscribe


class FakeClient(nats.aio.client.Client):
    """nats-py's client with a connection that the test makes up."""

    def __init__(self) -> None:
        super().__init__()
        self._status = self.CONNECTED
        self.said: list[str] = []
        self.subscriptions: list[FakeSubscription] = []
        self.published: list[tuple[str, bytes, str, Any]] = []
        self.heard: list[Exception] = []
        self.broken = self.stuck = self.swallows = False
        self.refuses: Exception | None = None
        self.drained = asyncio.Event()
        self._error_cb = self.hear

    async def hear(self, error: Exception) -> None:
        self.heard.append(error)

    async def subscribe(self, subject: str, queue: str = "", cb: Any = None, **_: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        if self.refuses is not None:
            raise self.refuses
        self.said.append(f"SUB {subject} {queue}".rstrip())
        self.subscriptions.append(FakeSubscription(self, subject, cb))
        return self.subscriptions[-1]

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: Any = None) -> None:  # noqa: ANN401
        if self.broken:
            raise OSError("broken pipe")
        if self.stuck:
            self.said.append(f"stuck at {subject}")
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:  # noqa: ASYNC103 - that is the test
                if not self.swallows:
                    raise
        self.published.append((subject, payload, reply, headers))
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


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[FakeClient, NatsPyConnection]]:
    async with trio_asyncio.open_loop() as loop:
        client = FakeClient()
        yield client, NatsPyConnection(client, loop)


@asynccontextmanager
async def attached(last_error: Exception | None = None) -> AsyncIterator[Attached]:
    """Attach a receiver to "a"; when it is detached, no asyncio task is left."""
    async with connected() as (client, connection):
        client._err = last_error
        receiver = Leaving()
        attachment = connection.attach_plain("a", receiver)
        await settled()
        yield client, connection, receiver, attachment
        attachment.detach()
        await settled()
        assert not asyncio.all_tasks(connection.loop)


async def test_a_connection_of_nats_py_is_a_seam_like_our_own() -> None:
    async with connected() as (client, connection):
        client._server_info["server_id"] = "NA"
        assert messaging_of(connection, "open_events") is connection
        assert (connection.is_connected, connection.server_id, list(connection.feeds)) == (True, "NA", [])
        assert len(connection.new_token()) == 22
        connection.attach("a.*", Receiver(), queue="q", max_msgs=2)
        await settled()
        assert client.said == ["SUB a.* q", "UNSUB a.* 2"]
        for subject, queue in (("a b", ""), ("a", "q q")):
            with pytest.raises(errors.BadSubjectError):
                connection.attach(subject, Receiver(), queue=queue)


async def test_commands_are_carried_out_in_order_and_the_task_ends() -> None:
    async with connected() as (client, connection):
        attachment = connection.attach_plain("a", Receiver())
        connection.publish_aside("b")
        attachment.detach()
        attachment.detach()
        connection.publish_aside("c")
        await settled()
        # It was gone before it had been subscribed.
        assert client.said == ["PUB b", "PUB c"]
        assert not asyncio.all_tasks(connection.loop)
        assert "_close" not in vars(client)
        # What the next connection does not need is not kept for it.
        client._status = client.RECONNECTING
        connection.publish_aside("passes", passing=True)
        connection.publish_aside("stays")
        await settled()
        assert client.said[2:] == ["PUB stays"]


async def test_a_command_that_fails_does_not_stop_the_others() -> None:
    async with connected() as (client, connection):
        client.broken = True
        connection.publish_aside("a")
        connection.attach_plain("b", Receiver()).detach()
        attachment = connection.attach_plain("c", Receiver())
        await settled()
        attachment.detach()
        await settled()
        assert client.said == ["SUB c", "UNSUB c"]


async def test_what_becomes_of_the_connection_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with attached() as (client, _, receiver, _):
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
        client._err, client._status = errors.StaleConnectionError(), client.CLOSED
        await trio.sleep(1)
        (reason,) = receiver.told[4:]
        assert isinstance(reason, errors.StaleConnectionError)
        assert "lost for good" in str(reason)


async def test_goodbyes_come_before_the_close() -> None:
    async with attached() as (client, connection, receiver, attachment):
        receiver.acts = attachment.detach, lambda: connection.publish_aside("goodbye")
        await aio_as_trio(client.close)()
        assert client.said == ["SUB a", "UNSUB a", "PUB goodbye", "close"]
        assert receiver.told == [None]
        with pytest.raises(errors.ConnectionClosedError):
            connection.attach_plain("b", receiver)
        connection.publish_aside("too late")
        with pytest.raises(errors.ConnectionClosedError):
            await connection.request("too.late")


async def test_receivers_and_error_callbacks_with_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: Exception) -> None:
        raise ZeroDivisionError

    async with connected() as (client, connection):
        receiver = Receiver(lambda message: message.sid / 0)
        attachment = connection.attach_plain("a", receiver)
        await settled()
        await aio_as_trio(client.subscriptions[0].callback)(theirs())
        assert isinstance(receiver.told[1], ZeroDivisionError)
        attachment.detach()
        await settled()
        assert [record.levelname for record in caplog.records if record.name == "trionats"] == ["ERROR"]
        client._error_cb = fails
        connection.loop.call_soon(connection.tell_error_cb, errors.Error("told"))
        await settled()
        assert not asyncio.all_tasks(connection.loop)
    assert "the error callback of nats-py's client" in caplog.text


async def ask(connection: NatsPyConnection, subject: str, failures: dict[str, Exception]) -> None:
    with pytest.raises(errors.Error) as caught:
        await connection.request(subject)
    failures[subject] = caught.value


async def test_requests_fail_with_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (client, connection), trio.open_nursery() as nursery:
        failures: dict[str, Exception] = {}
        nursery.start_soon(ask, connection, "one", failures)
        await trio.sleep(1)
        client._status = client.RECONNECTING
        await trio.sleep(1)
        client._status = client.CONNECTED
        nursery.start_soon(ask, connection, "two", failures)
        await trio.sleep(10)
        nursery.start_soon(ask, connection, "three", failures)
        await trio.sleep(1)
        await aio_as_trio(client.close)()
        await trio.sleep(1)
        kinds = {"one": errors.DisconnectedError, "two": errors.TimeoutError, "three": errors.ConnectionClosedError}
        assert all(isinstance(failures[subject], kind) for subject, kind in kinds.items())
        assert not asyncio.all_tasks(connection.loop)


async def test_a_request_has_the_headers_that_nats_py_can_send() -> None:
    async with connected() as (client, connection):
        with pytest.raises(errors.BadHeaderError, match="one value of header 'A', not 2"):
            await connection.request("a", headers={"A": ["b", "c"]})
        with trio.move_on_after(0):
            await connection.request("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(connection.request, "a", bytearray(b"1"), {"A": "b", "C": ["d"]}))
            await settled()
            ((subject, payload, reply, headers),) = client.published
            await aio_as_trio(client.subscriptions[0].callback)(theirs(subject=reply))
        assert (subject, payload, headers) == ("a", b"1", {"A": "b", "C": "d"})


@pytest.mark.parametrize("how", ["left", "closed"])
async def test_a_client_that_is_closed_behind_our_back_is_closed_on_purpose(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    """`async with nc:` is left without `close`; what nats-py noted before we came is no reason."""
    async with attached(errors.StaleConnectionError()) as (client, connection, receiver, attachment):
        receiver.acts = attachment.detach, lambda: connection.publish_aside("goodbye")
        if how == "left":
            await aio_as_trio(client.__aexit__)(None, None, None)
            assert client.said == ["SUB a", "UNSUB a", "PUB goodbye", "close"]
        else:
            client._status = client.CLOSED
            await trio.sleep(1)
        assert receiver.told == [None]


async def test_what_a_client_survived_is_not_what_it_is_lost_for() -> None:
    async with attached() as (client, _, receiver, _):
        client._err = errors.Error('nats: permissions violation for publish to "x"')
        await aio_as_trio(client._error_cb)(client._err)
        await aio_as_trio(client.close)()
        assert (receiver.told, client.heard) == ([None], [client._err])


async def test_what_a_client_is_lost_for_is_told_without_goodbyes() -> None:
    async with attached() as (client, _, receiver, attachment):
        receiver.acts = (attachment.detach,)
        client._err = errors.Error("nats: maximum payload violation")
        await aio_as_trio(client.close)()
        (reason,) = receiver.told
        assert "maximum payload" in str(reason)
        assert client.said == ["SUB a", "close"]


async def test_the_patient_are_patient_however_often_a_drain_is_asked_for() -> None:
    async with connected() as (client, connection), trio.open_nursery() as nursery:
        patient, other = Receiver(), Receiver()
        first = connection.attach_plain("a", patient, patient=True)
        second = connection.attach_plain("b", other)
        for times in (3, 1):
            for _ in range(times):
                nursery.start_soon(aio_as_trio(client.drain))
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
    mine, somebodys = partial(trio.sleep, 0), partial(trio.sleep, 0)
    async with connected() as (client, connection):
        client.drain = mine  # type: ignore[method-assign]
        before = dict(vars(client))
        attachment = connection.attach_plain("a", Receiver())
        assert vars(client)["drain"] is not mine
        attachment.detach()
        await settled()
        assert {name: vars(client)[name] for name in before} == before
        assert vars(client).keys() == before.keys()

        attachment = connection.attach_plain("a", Receiver())
        client._close = somebodys  # type: ignore[method-assign]
        attachment.detach()
        await settled()
        assert vars(client)["_close"] is somebodys
        assert vars(client)["drain"] is mine


async def test_a_command_that_is_stuck_makes_nobody_deaf(autojump_clock: trio.testing.MockClock) -> None:
    async with attached() as (client, connection, receiver, _):
        client.stuck = True
        connection.publish_aside("b")
        connection.publish_aside("c")
        await trio.sleep(1)
        client._status = client.RECONNECTING
        await trio.sleep(1)
        assert receiver.told == ["lost"]
        client._err, client._status = errors.StaleConnectionError(), client.CLOSED
        await trio.sleep(1)
        assert isinstance(receiver.told[1], errors.StaleConnectionError)
        assert client.said == ["SUB a", "stuck at b", "stuck at c"]


async def test_a_loop_that_ends_under_a_command_that_swallows_it(autojump_clock: trio.testing.MockClock) -> None:
    """nats-py's `publish` with a full buffer does that."""
    receiver = Receiver()
    with trio.fail_after(60):
        async with connected() as (client, connection):
            client.swallows = client.stuck = True
            connection.attach_plain("a", receiver)
            connection.publish_aside("b")
            await settled()
    assert "its asyncio loop ends" in str(*receiver.told)


async def test_nothing_begins_in_a_loop_that_ends() -> None:
    """A consumer that opens its feed again and again would find one in which nobody ever tells it the end."""

    def attach_again() -> None:
        with pytest.raises(errors.ConnectionClosedError, match="'again': nats-py's client is closed"):
            connection.attach_plain("again", Receiver())
        refused.append("again")

    refused: list[str] = []
    async with connected() as (_, connection):
        connection.attach_plain("a", Leaving(attach_again))
        await settled()
    assert refused == ["again"]
    with pytest.raises(errors.ConnectionClosedError, match="its asyncio loop ends"):
        await connection.wait_stopped()


async def test_who_comes_during_the_last_words_is_ended_with_them() -> None:
    """Where somebody cancels all tasks of a loop that goes on."""
    async with connected() as (client, connection):
        late = Receiver()
        connection.attach_plain("a", Leaving(lambda: connection.attach_plain("late", late)))
        await settled()
        for task in asyncio.all_tasks(connection.loop):
            task.cancel()
        await settled()
        assert "its asyncio loop ends" in str(late.told[0])
        await settled()
        assert client.said == ["SUB a", "SUB late", "UNSUB a", "UNSUB late"]
        assert not asyncio.all_tasks(connection.loop)


async def test_the_server_hears_of_the_end_before_what_is_given_back() -> None:
    """What is given back to a consumer that is still asking comes to it again at once."""
    async with attached() as (client, connection, _, attachment):
        attachment.detach(late=lambda _: None)
        connection.publish_aside("nak")
        await settled()
        assert client.said == ["SUB a", "UNSUB a", "PUB nak"]


async def test_a_subscription_that_nats_py_refuses_ends() -> None:
    async with connected() as (client, connection):
        receiver = Receiver()
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
    async with connected() as (client, connection), trio.open_nursery() as nursery:
        failures: dict[str, Exception] = {}
        for subject in ("Question.A", "question.b"):
            nursery.start_soon(ask, connection, subject, failures)
            await settled()
        (wildcard,) = (subscription.subject for subscription in client.subscriptions)
        text = refusal.format(inbox=client.published[0][2], wildcard=wildcard).lower()
        await aio_as_trio(client._error_cb)(errors.Error(f"nats: permissions violation for {text}"))
        await settled()
        assert isinstance(failures["Question.A"], errors.PermissionsViolationError)
        assert "Question.A" in str(failures["Question.A"])
        await trio.sleep(10)
        kind = errors.PermissionsViolationError if "wildcard" in refusal else errors.TimeoutError
        assert isinstance(failures["question.b"], kind)


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
    async def call(number: int) -> int:
        await asyncio.sleep(0)
        if number < 0:
            raise asyncio.CancelledError
        return 42 // number

    async with trio_asyncio.open_loop() as loop:
        assert await run_in(loop, call, 2) == 21
        with pytest.raises(ZeroDivisionError):
            await run_in(loop, call, number=0)
        with pytest.raises(errors.Error, match="cancelled by asyncio code"):
            await run_in(loop, call, -1)
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
