"""A publisher against a scripted stream: what is in flight, what is sent again, what is told, and that it all ends."""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
import trio

from tests.cancelling import Cut, cancel_everywhere
from tests.fakes import FakeServer, Frame
from tests.worlds import (
    Hosts,
    arrived,
    assert_nothing_left,
    elsewhere,
    kept,
    next_event,
    nursery_elsewhere,
    open_world,
    publish_forced,
    settled,
    takes,
    watched,
)
from trionats import Client, JetStream, Publisher, Receipt, errors, events, open_events, open_publisher
from trionats._protocol.migration import LONGEST_STAY

pytestmark = pytest.mark.usefixtures("autojump_clock")

NOBODY = b"NATS/1.0 503\r\n\r\n"
FULL = {"stream": "S", "error": {"code": 400, "err_code": 10077, "description": "maximum bytes exceeded"}}
UNDER_WAY = {"stream": "S", "error": {"code": 409, "err_code": 10158, "description": "under way"}}
CONFLICT = {"stream": "S", "error": {"code": 400, "err_code": 10071, "description": "wrong last sequence: 9"}}


class ScriptedStream:
    """A stream that stores each id once, and answers as it is told.

    Args:
        server: Where it is.
        window: Its duplicate window, in seconds.
    """

    def __init__(self, server: FakeServer, window: float = 120) -> None:
        self.server = server
        self.window = window
        #: All that came, and the payloads that were stored.
        self.heard: list[Frame] = []
        self.stored: list[bytes] = []
        #: Given the frame, what is answered in place of an acknowledgement: a mapping, bytes, `"503"`, or `"silence"` behind
        #: which it is stored all the same; None acknowledges it.
        self.hook: Callable[[Frame], Any] = lambda _: None
        self.asked = 0
        self._ids: dict[str, int] = {}
        server.on("s.>", self._publish)
        server.on("$JS.API.STREAM.NAMES", lambda _: {"streams": ["S"], "total": 1, "offset": 0, "limit": 1024})
        server.on("$JS.API.STREAM.INFO.S", self._info)

    def _info(self, _: Frame) -> dict[str, Any]:
        self.asked += 1
        config = {"name": "S", "subjects": ["s.>"], "duplicate_window": int(self.window * 1e9)}
        state = {"messages": 0, "bytes": 0, "first_seq": 1, "last_seq": 0, "consumer_count": 0}
        return {"config": config, "created": "2026-11-28T17:00:00Z", "state": state}

    def _publish(self, frame: Frame) -> Any:  # noqa: ANN401 - whatever the hook says
        self.heard.append(frame)
        answer = self.hook(frame)
        if answer == "503":
            self.server.publish(frame.reply, headers=NOBODY)
            return None
        if answer not in (None, "silence"):
            return answer
        stored = self.store(frame)
        return stored if answer is None else None

    def store(self, frame: Frame) -> dict[str, Any]:
        """Store a message, and give what is to be answered."""
        msg_id = id_of(frame)
        if msg_id in self._ids:
            return {"stream": "S", "seq": self._ids[msg_id], "duplicate": True}
        self.stored.append(frame.payload)
        if msg_id:
            self._ids[msg_id] = len(self.stored)
        return {"stream": "S", "seq": len(self.stored)}

    def acknowledge(self, frame: Frame) -> None:
        """Answer what was only stored."""
        self.server.publish(frame.reply, json.dumps({"stream": "S", "seq": 1}).encode())


def id_of(frame: Frame) -> str:
    _, _, rest = frame.headers.decode().partition("Nats-Msg-Id: ")
    return rest.partition("\r\n")[0]


def silence(_: Frame) -> str:
    return "silence"


class PublisherWorld(NamedTuple):
    """A publisher, and the stream that it publishes to."""

    server: FakeServer
    stream: ScriptedStream
    nc: Client
    js: JetStream
    pub: Publisher
    nursery: trio.Nursery
    #: What leaving the publisher raised.
    caught: list[Any]


@asynccontextmanager
async def publisher(
    *,
    fails_with: tuple[type[Exception], ...] | type[Exception] = (),
    max_pending: int = 256,
    resend: bool = False,
    window: float = 120,
    server: FakeServer | None = None,
    domain: str | None = None,
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[PublisherWorld]:
    server = server or FakeServer()
    stream = ScriptedStream(server, window)
    async with open_world(server, **options) as (_, nc, nursery):
        js = nc.jetstream(domain=domain)
        caught: list[Exception] = []
        try:
            async with open_publisher(nursery, js, max_pending=max_pending, resend=resend) as pub:
                yield PublisherWorld(server, stream, nc, js, pub, nursery, caught)
        except fails_with as error:
            caught.append(error)
        assert bool(caught) is bool(fails_with)
        assert pub.pending == 0
        assert_nothing_left(nc)


async def fails(receipt: Receipt, kind: type[Exception], text: str | None = None) -> Any:  # noqa: ANN401 - the failure
    with pytest.raises(kind, match=text) as caught:
        await receipt.wait()
    return caught.value


def answer(said: object, _: Frame) -> object:
    return said


def fail(error: Exception) -> None:
    raise error


def cut(w: PublisherWorld) -> None:
    """Break the connection; the next attempt fails, the one after it does not."""
    w.server.dials = ["refuse"]
    w.server.cut()


# -- receipts ----------------------------------------------------------------------------------------------------------


async def test_each_publish_has_a_receipt_that_becomes_its_acknowledgement() -> None:
    async with publisher() as w:
        receipts = [await w.pub.publish("s.a", b"%d" % number) for number in range(10)]
        assert [receipt.done for receipt in receipts] == [False] * 10
        assert repr(w.pub) == "<Publisher open, 10 pending>"
        acks = [await receipt.wait() for receipt in receipts]
        assert [ack.seq for ack in acks] == list(range(1, 11))
        assert acks[0] is await receipts[0].wait()
        assert receipts[0].done
        assert w.pub.pending == 0
        assert w.stream.stored == [b"%d" % number for number in range(10)]
        assert (acks[0].stream, acks[0].duplicate, acks[0].batch, acks[0].count) == ("S", None, None, None)
        assert repr(receipts[0]) == "<Receipt of a publish to 's.a', stored>"
        assert repr(w.pub) == "<Publisher open, 0 pending>"


async def test_what_the_stream_is_asked_for_is_what_js_publish_asks() -> None:
    async with publisher() as w:
        options: dict[str, Any] = {"msg_id": "i", "msg_ttl": 5, "rollup": "sub", "expected_last_seq": 0, "stream": "S"}
        await w.pub.publish("s.a", "ä", headers={"A": ["1", "2"]}, **options)
        w.pub.publish_nowait("s.a", "ä", headers={"A": ["1", "2"]}, **options)
        await w.js.publish("s.a", "ä", headers={"A": ["1", "2"]}, **options)
        await w.pub.wait_all()
        assert len(w.stream.heard) == 3
        assert len({(frame.headers, frame.payload) for frame in w.stream.heard}) == 1


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"timeout": 1}, TypeError, r"publish\(\) takes no timeout: .*publisher\.publish"),
        ({"expected_last_sequence": 1}, TypeError, "it is called 'expected_last_seq' here"),
        ({"nonsense": 1}, TypeError, "unexpected keyword argument 'nonsense'"),
        ({"expected_last_seq": -1}, ValueError, "expected_last_seq"),
        ({"payload": 5}, TypeError, "payload must be bytes"),
        ({"payload": "\ud800"}, ValueError, "payload is not valid Unicode"),
        ({"subject": "s.*"}, errors.BadSubjectError, "wildcards"),
        ({"subject": ["s.a"]}, TypeError, "must be text"),
        ({"headers": ["a"]}, TypeError, "headers must be a mapping"),
        ({"headers": {"a b": "c"}}, errors.BadHeaderError, "a b"),
        ({"payload": bytes(1024 * 1024 + 1)}, errors.MaxPayloadError, r"104\d+ bytes"),
    ],
)
@pytest.mark.parametrize("resend", [False, True])
async def test_what_cannot_be_sent_is_refused_and_takes_no_place(
    arguments: dict[str, Any], kind: type[Exception], text: str, resend: bool
) -> None:
    given: dict[str, Any] = {"subject": "s.a", **arguments}
    async with publisher(max_pending=1, resend=resend) as w:
        for _ in range(2):
            with pytest.raises(kind, match=text):
                await w.pub.publish(**given)
            with pytest.raises(kind, match=text):
                w.pub.publish_nowait(**given)
        assert w.pub.pending == 0
        await w.pub.publish("s.a", b"there is room")
    assert len(w.stream.heard) == 1


async def test_a_receipt_lives_on_whoever_is_cancelled() -> None:
    async with publisher() as w:
        w.stream.hook = silence
        with trio.CancelScope() as scope:
            receipt = await w.pub.publish("s.a", b"x")
            scope.cancel()
            await receipt.wait()
        assert scope.cancelled_caught
        await settled()
        assert not receipt.done
        w.stream.acknowledge(w.stream.heard[0])
        assert (await receipt.wait()).seq == 1


async def test_several_tasks_may_wait_for_one_receipt() -> None:
    async with publisher() as w:
        w.stream.hook = silence
        good, bad = [await w.pub.publish("s.a", b"x") for _ in range(2)]
        seen: list[object] = []

        async def wait(receipt: Receipt) -> None:
            try:
                seen.append((await receipt.wait()).seq)
            except errors.TimeoutError as error:
                seen.append(error)

        async with trio.open_nursery() as nursery:
            for receipt in (good, good, bad, bad):
                nursery.start_soon(wait, receipt)
            await settled()
            w.stream.acknowledge(w.stream.heard[0])
        assert seen[:2] == [1, 1]
        assert seen[2] is not seen[3]


# -- the window --------------------------------------------------------------------------------------------------------


async def test_publishing_waits_for_a_place_and_keeps_its_order() -> None:
    async with publisher(max_pending=3) as w:
        w.stream.hook = silence
        for number in range(3):
            await w.pub.publish("s.a", b"%d" % number)
        with pytest.raises(trio.WouldBlock):
            w.pub.publish_nowait("s.a", b"no")
        done: list[int] = []

        async def more(number: int) -> None:
            await w.pub.publish("s.a", b"%d" % number)
            done.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(3, 6):
                nursery.start_soon(more, number)
                await settled()
            assert done == []
            assert w.pub.pending == 3
            w.stream.acknowledge(w.stream.heard[0])
            await settled()
            assert done == [3]
            w.stream.hook = lambda _: None
            for frame in w.stream.heard[1:]:
                w.stream.acknowledge(frame)
        assert sorted(done) == [3, 4, 5]
        assert [int(frame.payload) for frame in w.stream.heard][:4] == list(range(4))


def test_a_cancelled_publish_queued_nothing_and_leaves_its_turn_to_the_next() -> None:
    async def scenario(cut: Cut) -> None:
        async with publisher(max_pending=1) as w:
            w.stream.hook = lambda frame: "silence" if frame.payload == b"first" else None
            await w.pub.publish("s.a", b"first")
            await settled()

            async def later() -> None:
                await trio.sleep(1)
                w.stream.acknowledge(w.stream.heard[0])

            async def behind() -> None:
                await trio.sleep(0.5)
                await w.pub.publish("s.a", b"behind")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(later)
                nursery.start_soon(behind)
                await cut(w.pub.publish, "s.a", b"cut")
            await w.pub.wait_all()
            assert (b"cut" in w.stream.stored) is not cut.cancelled
            assert b"behind" in w.stream.stored

    assert cancel_everywhere(scenario)["woken"] >= 2


async def test_a_full_outbox_is_waited_for_like_a_full_window() -> None:
    async with publisher(pending_size=1000) as w:
        w.server.link.stall(up=True)
        publish_forced(w.nc, "filler", bytes(100))
        await settled()
        publish_forced(w.nc, "filler", bytes(10_000))
        with pytest.raises(trio.WouldBlock):
            w.pub.publish_nowait("s.a")
        with trio.move_on_after(1) as scope:
            await w.pub.publish("s.a")
        assert scope.cancelled_caught
        assert w.pub.pending == 0
        w.server.link.resume()
        await w.pub.publish("s.a")


async def test_acknowledgements_that_never_come_leave_no_place_taken() -> None:
    async with publisher(max_pending=4000, request_timeout=1) as w:
        w.stream.hook = silence
        receipts = [await w.pub.publish("s.a", b"x") for _ in range(4000)]
        with takes(1):
            await w.pub.wait_all()
        assert w.pub.pending == 0
        for receipt in receipts:
            await fails(receipt, errors.TimeoutError, r"^publish to 's\.a': no answer within 1 s$")
        w.stream.hook = lambda _: None
        await w.pub.publish("s.a", b"there is room")


async def test_a_late_acknowledgement_finds_nobody() -> None:
    async with publisher() as w:
        w.stream.hook = silence
        receipt = await w.pub.publish("s.a", b"x")
        with takes(5):
            await fails(receipt, errors.TimeoutError)
        w.stream.acknowledge(w.stream.heard[0])
        w.stream.acknowledge(w.stream.heard[0])
        await settled()
        await fails(receipt, errors.TimeoutError)


async def test_fairness_goes_through_the_scheduler_now_and_then() -> None:
    async with publisher(max_pending=1000) as w:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(640):
                await w.pub.publish("s.a", b"x")
            assert turns >= 8
            nursery.cancel_scope.cancel()


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_leaving_waits_for_all() -> None:
    server = FakeServer()
    stream = ScriptedStream(server)
    async with open_world(server) as (_, nc, nursery):
        async with open_publisher(nursery, nc.jetstream()) as pub:
            receipts = [await pub.publish("s.a", b"x") for _ in range(100)]
        assert all(receipt.done for receipt in receipts)
        assert len(stream.stored) == 100
        with pytest.raises(trio.ClosedResourceError, match="publisher: its block was left"):
            await pub.publish("s.a", b"x")
        with pytest.raises(trio.ClosedResourceError):
            pub.publish_nowait("s.a", b"x")
        assert repr(pub) == "<Publisher closed, 0 pending>"
        await pub.wait_all()


async def test_leaving_raises_one_error_for_all_that_failed() -> None:
    refused = {b"1": FULL, b"3": "503", b"5": b"nonsense"}
    async with publisher(fails_with=errors.PublishError) as w:
        w.stream.hook = lambda frame: refused.get(frame.payload)
        for number in range(7):
            await w.pub.publish("s.a", b"%d" % number, msg_id=f"i{number}", headers={"A": "b"})
    assert str(w.caught[0]).startswith("3 publishes failed; the first: publish to 's.a': ")
    failures = {message.payload: (message, reason) for message, reason in w.caught[0].failures}
    assert set(failures) == set(refused)
    message, reason = failures[b"1"]
    assert isinstance(reason, errors.BadRequestError)
    assert reason.err_code == 10077
    assert (message.subject, message.msg_id) == ("s.a", "i1")
    assert message.headers is not None
    assert dict(message.headers) == {"A": "b", "Nats-Msg-Id": "i1"}
    assert isinstance(failures[b"3"][1], errors.NoStreamResponseError)
    assert isinstance(failures[b"5"][1], errors.APIError)
    assert sorted(w.stream.stored) == [b"0", b"2", b"4", b"6"]


async def test_a_message_that_failed_has_no_headers_that_it_was_not_given() -> None:
    async with publisher(fails_with=errors.PublishError) as w:
        w.stream.hook = lambda _: FULL
        await w.pub.publish("s.a", b"x")
    ((message, _),) = w.caught[0].failures
    assert message == errors.FailedMsg("s.a", b"x", None, None)


async def test_a_failure_that_a_receipt_has_raised_is_not_told_again() -> None:
    async with publisher(fails_with=errors.PublishError) as w:
        w.stream.hook = lambda _: FULL
        heard, unheard = [await w.pub.publish("s.a", payload) for payload in (b"heard", b"unheard")]
        await fails(heard, errors.BadRequestError)
        await w.pub.wait_all()
        assert unheard.done
    assert [message.payload for message, _ in w.caught[0].failures] == [b"unheard"]


async def test_the_bodys_own_exception_wins_and_says_that_others_failed() -> None:
    async with publisher(fails_with=KeyError) as w:
        w.stream.hook = lambda _: FULL
        await w.pub.publish("s.a", b"x")
        fail(KeyError("mine"))
    assert w.caught[0].args == ("mine",)
    (note,) = w.caught[0].__notes__
    assert note.startswith("besides, 1 publish failed; the first: publish to 's.a': maximum bytes exceeded")


async def test_the_bodys_own_exception_waits_until_it_is_known_what_became_of_all() -> None:
    async with publisher(fails_with=KeyError, request_timeout=1) as w:
        w.stream.hook = silence
        receipt = await w.pub.publish("s.a", b"x")
        start = trio.current_time()
        fail(KeyError())
    assert trio.current_time() - start == 1
    await fails(receipt, errors.TimeoutError)


async def test_the_bodys_own_exception_wins_over_a_cancellation_meanwhile() -> None:
    async with open_world() as (server, nc, nursery):
        ScriptedStream(server).hook = silence
        with takes(2), trio.move_on_after(2):
            with pytest.raises(KeyError):  # noqa: PT012
                async with open_publisher(nursery, nc.jetstream()) as pub:
                    await pub.publish("s.a", b"x")
                    raise KeyError


async def test_a_cancelled_leaving_does_not_wait_and_what_was_queued_is_still_sent() -> None:
    server = FakeServer()
    stream = ScriptedStream(server)
    stream.hook = silence
    async with open_world(server) as (_, nc, nursery):
        with trio.CancelScope() as scope, takes(0):
            async with open_publisher(nursery, nc.jetstream()) as pub:
                receipt = await pub.publish("s.a", b"x")
                scope.cancel()
        await fails(receipt, trio.ClosedResourceError, "publisher: its block was left")
        await nc.flush()
        assert stream.stored == [b"x"]
        assert_nothing_left(nc)


async def test_who_waits_for_a_place_is_told_that_the_publisher_was_left() -> None:
    async with nursery_elsewhere() as outer, open_world() as (server, nc, nursery):
        stream = ScriptedStream(server)
        stream.hook = silence
        told = trio.Event()

        async def publish(pub: Publisher) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await pub.publish("s.a", b"y")
            told.set()

        with trio.CancelScope() as scope:
            async with open_publisher(outer, nc.jetstream(), max_pending=1) as pub:
                await pub.publish("s.a", b"x")
                nursery.start_soon(publish, pub)
                await settled()
                scope.cancel()
        await told.wait()
        assert pub.pending == 0


async def test_a_nursery_that_is_cancelled_elsewhere_closes_the_publisher() -> None:
    async with nursery_elsewhere() as outer, open_world() as (server, nc, _):
        ScriptedStream(server).hook = silence
        with pytest.raises(errors.PublishError, match="its nursery was cancelled"):  # noqa: PT012
            async with open_publisher(outer, nc.jetstream()) as pub:
                receipt = await pub.publish("s.a", b"x")
                outer.cancel_scope.cancel()
                await settled()
                assert receipt.done
                with pytest.raises(trio.ClosedResourceError, match="its nursery was cancelled"):
                    await pub.publish("s.a", b"x")


async def test_a_closed_nursery_is_told_and_leaves_nothing() -> None:
    async with open_world() as (_, nc, nursery):
        async with trio.open_nursery() as closed:
            pass
        before = kept(nc)
        with pytest.raises(RuntimeError, match="open_publisher: the nursery that was passed in is closed"):
            async with open_publisher(closed, nc.jetstream()):
                pytest.fail("it was opened")
        assert kept(nc) == before
        for bad, text in (
            ({"max_pending": 0}, "open_publisher: max_pending is 0: it must be 1 or more"),
            ({"max_pending": 1.5}, "max_pending"),
            ({"resend": 1}, "resend must be True or False, not int"),
            ({"max_pendign": 1}, "did you mean 'max_pending'"),
        ):
            with pytest.raises((TypeError, ValueError), match=text):
                async with open_publisher(nursery, nc.jetstream(), **bad):
                    pytest.fail("it was opened")
        with pytest.raises(TypeError, match="js must be a JetStream, not Client"):
            async with open_publisher(nursery, nc):  # type: ignore[arg-type]
                pytest.fail("it was opened")
        with pytest.raises(TypeError, match="entered with 'async with'"):
            open_publisher(nursery, nc.jetstream()).__enter__()
        assert kept(nc) == before


# -- what the server says ----------------------------------------------------------------------------------------------


def first_times(times: int, answer: Any) -> Callable[[Frame], Any]:  # noqa: ANN401 - whatever a hook may say
    """Answer each message so often in that way, and then let it be stored."""
    seen: Counter[bytes] = Counter()

    def hook(frame: Frame) -> Any:  # noqa: ANN401
        seen[frame.payload] += 1
        return answer if seen[frame.payload] <= times else None

    return hook


@pytest.mark.parametrize("resend", [False, True])
async def test_a_stream_without_a_leader_is_tried_again_with_the_same_bytes(resend: bool) -> None:
    async with publisher(resend=resend) as w:
        w.stream.hook = first_times(2, "503")
        with takes(0.5):
            ack = await (await w.pub.publish("s.a", b"x", headers={"A": "b"}, expected_last_seq=0)).wait()
        assert ack.seq == 1
        assert len(w.stream.heard) == 3
        assert len({(frame.verb, frame.headers, frame.payload) for frame in w.stream.heard}) == 1
        assert len({frame.reply for frame in w.stream.heard}) == 3


async def test_with_resend_a_stream_may_be_without_a_leader_for_longer() -> None:
    async with publisher(resend=True) as w:
        w.stream.hook = first_times(15, "503")
        assert (await (await w.pub.publish("s.a", b"x")).wait()).seq == 1
        w.stream.hook = lambda _: "503"
        with takes(5):
            await fails(await w.pub.publish("s.a", b"y"), errors.NoStreamResponseError, r"publish to 's\.a'")


async def test_a_message_whose_twin_is_under_way_waits_for_it() -> None:
    async with publisher() as w:
        w.stream.hook = first_times(3, UNDER_WAY)
        with takes(0.4):
            assert (await (await w.pub.publish("s.a", b"x", msg_id="i")).wait()).seq == 1
        w.stream.hook = lambda _: UNDER_WAY
        with takes(3.9):
            await fails(await w.pub.publish("s.a", b"y", msg_id="j"), errors.APIError, "under way")


@pytest.mark.parametrize("resend", [False, True])
async def test_a_conflict_with_itself_is_none(resend: bool) -> None:
    async with publisher(resend=resend) as w:
        asked: list[dict[str, Any]] = []
        ids: list[str] = []

        def refuse(frame: Frame) -> dict[str, Any]:
            ids.append(id_of(frame))
            return CONFLICT

        def get(frame: Frame) -> dict[str, Any]:
            asked.append(json.loads(frame.payload))
            block = f"NATS/1.0\r\nNats-Msg-Id: {ids[-1]}\r\n\r\n".encode()
            fields = {"subject": "s.a", "seq": 8, "time": "2026-11-28T17:00:00Z", "hdrs": b64encode(block).decode()}
            return {"message": fields}

        w.stream.hook = refuse
        w.server.on("$JS.API.STREAM.MSG.GET.S", get)
        ack = await (await w.pub.publish("s.a", b"x", msg_id="mine", expected_last_subject_seq=3)).wait()
        assert (ack.stream, ack.seq, ack.duplicate) == ("S", 8, True)
        assert asked == [{"seq": 4, "next_by_subj": "s.a"}]
        ids.append("other")
        w.stream.hook = lambda _: CONFLICT
        await fails(
            await w.pub.publish("s.a", b"x", msg_id="mine", expected_last_seq=3), errors.BadRequestError, "wrong"
        )


async def test_what_is_no_acknowledgement_ends_only_its_own_message() -> None:
    foreign: list[Any] = [b"", b"[]", b'{"stream":5,"seq":1}', b"\xff" * 100, b'{"a":' * 10_000]
    async with publisher() as w:
        answers = iter(foreign)
        w.stream.hook = lambda frame: next(answers) if frame.payload == b"bad" else None
        for _ in foreign:
            bad, good = await w.pub.publish("s.a", b"bad"), await w.pub.publish("s.a", b"good")
            await fails(bad, errors.APIError, r"publish to 's\.a': what came back is no JetStream response")
            assert (await good.wait()).stream == "S"


async def test_only_the_domain_that_was_asked_for_counts() -> None:
    server = FakeServer()
    server.on("$JS.hub.API.INFO", lambda _: {"domain": "hub"})
    async with publisher(domain="hub", server=server) as w:
        w.stream.hook = lambda _: {"stream": "L", "seq": 5, "domain": "leaf"}
        receipt = await w.pub.publish("s.a", b"x")
        await settled()
        assert not receipt.done
        w.server.publish(w.stream.heard[-1].reply, b'{"stream":"S","seq":7,"domain":"hub"}')
        assert (await receipt.wait()).domain == "hub"
        with takes(3):
            text = "no stream in domain 'hub' has answered, but one in 'leaf'"
            await fails(await w.pub.publish("s.a", b"x"), errors.NoStreamResponseError, text)
        w.stream.hook = lambda _: FULL
        with takes(0.5):
            await fails(await w.pub.publish("s.a", b"x"), errors.BadRequestError, "maximum bytes")


async def test_what_another_domain_says_later_is_told_too_and_not_kept_for_ever() -> None:
    async with publisher(domain="hub") as w, open_events(w.nursery, w.nc) as told:
        w.stream.hook = lambda _: {"stream": "S", "seq": 7, "domain": "hub"}
        for _ in range(200):
            await (await w.pub.publish("s.a", b"x")).wait()
        for frame in w.stream.heard:
            w.server.publish(frame.reply, b'{"stream":"L","seq":5,"domain":"leaf"}')
        await trio.sleep(1)
        assert 64 <= len(arrived(told, events.StoredElsewhere)) <= 66


async def test_a_publish_that_the_server_does_not_let_pass_is_told() -> None:
    server = FakeServer(deny_publish=("s.denied",))
    async with publisher(server=server) as w:
        denied = [await w.pub.publish("s.denied", b"x") for _ in range(3)]
        allowed = await w.pub.publish("s.a", b"x")
        for receipt in denied:
            with takes(0):
                await fails(receipt, errors.PermissionsViolationError, r"publish to 's\.denied'")
        assert (await allowed.wait()).seq == 1


async def test_an_inbox_that_the_server_refuses_fails_what_would_be_replied_to_it() -> None:
    server = FakeServer(deny_subscribe=("_INBOX.>",))
    async with publisher(server=server) as w:
        for _ in range(2):
            with takes(0):
                await fails(await w.pub.publish("s.a", b"x"), errors.PermissionsViolationError, "inbox_prefix")


# -- the connection ----------------------------------------------------------------------------------------------------


async def test_what_was_sent_fails_with_the_connection_and_says_so() -> None:
    async with publisher() as w:
        w.stream.hook = silence
        sent = [await w.pub.publish("s.a", b"sent") for _ in range(3)]
        await settled()
        cut(w)
        await settled()
        assert all(receipt.done for receipt in sent)
        waiting = await w.pub.publish("s.a", b"waiting")
        for receipt in sent:
            assert (await fails(receipt, errors.DisconnectedError, r"publish to 's\.a'")).sent is True
        w.stream.hook = lambda _: None
        assert (await waiting.wait()).stream == "S"
        assert [frame.payload for frame in w.stream.heard] == [b"sent"] * 3 + [b"waiting"]


async def test_what_waits_for_a_connection_in_vain_is_taken_back() -> None:
    async with publisher(max_reconnect_attempts=-1) as w:
        w.server.accepting = False
        w.server.cut()
        await settled()
        receipt = await w.pub.publish("s.a", b"x")
        with takes(5):
            await fails(receipt, errors.TimeoutError)
        w.server.accepting = True
        await w.nc.wait_connected()
        await w.nc.flush()
        assert w.stream.heard == []


async def test_with_resend_what_was_not_acknowledged_goes_again_under_its_id() -> None:
    async with publisher(resend=True) as w:
        first = await w.pub.publish("s.a", b"acknowledged")
        await first.wait()
        w.stream.hook = silence
        generated = await w.pub.publish("s.a", b"1")
        given = await w.pub.publish("s.b", b"2", msg_id="given")
        by_hand = await w.pub.publish("s.c", b"3", headers={"Nats-Msg-Id": ["by hand"]})
        await settled()
        cut(w)
        await settled()
        w.stream.hook = lambda _: None
        later = await w.pub.publish("s.a", b"later")
        acks = [await receipt.wait() for receipt in (generated, given, by_hand, later)]
        assert [ack.duplicate for ack in acks] == [True, True, True, None]
        assert w.stream.stored == [b"acknowledged", b"1", b"2", b"3", b"later"]
        assert w.stream.asked == 1
        sent: dict[bytes, set[tuple[bytes, str]]] = {}
        for frame in w.stream.heard:
            sent.setdefault(frame.payload, set()).add((frame.headers, id_of(frame)))
        assert all(len(forms) == 1 for forms in sent.values())
        assert [frame.payload for frame in w.stream.heard].count(b"later") == 1
        ids = [msg_id for forms in sent.values() for _, msg_id in forms]
        assert ids[2:4] == ["given", "by hand"]
        assert len(set(ids)) == 5


async def test_with_resend_an_acknowledgement_that_does_not_come_is_asked_for_again() -> None:
    async with publisher(resend=True) as w:
        w.stream.hook = first_times(1, "silence")
        with takes(5):
            ack = await (await w.pub.publish("s.a", b"x")).wait()
        assert ack.duplicate is True
        assert w.stream.stored == [b"x"]


async def test_what_cannot_be_sent_again_in_time_ends_as_unknown() -> None:
    async with publisher(resend=True, window=2) as w:
        w.stream.hook = silence
        receipt = await w.pub.publish("s.a", b"x")
        await settled()
        w.server.accepting = False
        w.server.cut()
        await trio.sleep(3)
        w.server.accepting = True
        text = "whether it is stored is not known: .* the duplicate window of 2 s is over"
        assert (await fails(receipt, errors.DisconnectedError, text)).sent is True
        assert len(w.stream.heard) == 1


async def test_a_server_that_stays_away_longer_than_any_window_ends_it() -> None:
    async with publisher(resend=True, max_reconnect_attempts=-1) as w:
        w.stream.hook = silence
        receipt = await w.pub.publish("s.a", b"x")
        await settled()
        w.server.accepting = False
        w.server.cut()
        with takes(108):
            await fails(receipt, errors.DisconnectedError, "within 120 s nobody said how long")
        w.server.accepting = True
        await w.nc.wait_connected()


@pytest.mark.parametrize("denied", ["$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.S"])
async def test_where_nobody_may_ask_how_long_nothing_is_sent_again(denied: str) -> None:
    async with publisher(resend=True, server=FakeServer(deny_publish=(denied,))) as w:
        w.stream.hook = silence
        receipt = await w.pub.publish("s.a", b"x")
        await settled()
        cut(w)
        await fails(receipt, errors.DisconnectedError, "how long it could be sent again nobody says")
        assert len(w.stream.heard) == 1


async def test_a_stream_that_is_gone_or_listens_elsewhere_is_not_waited_for() -> None:
    cases: list[tuple[list[object], list[str]]] = [([], ["s.>"]), (["a.b"], ["s.>"]), ([5], ["s.>"]), (["S"], ["t.>"])]
    for names, subjects in cases:
        async with publisher(resend=True) as w:
            w.stream.hook = silence
            receipt = await w.pub.publish("s.a", b"x")
            await settled()
            found = {"streams": names, "total": len(names), "offset": 0, "limit": 1024}
            config = {"name": "S", "subjects": subjects, "duplicate_window": 10**9}
            state = {"messages": 0, "bytes": 0, "first_seq": 1, "last_seq": 0, "consumer_count": 0}
            info = {"config": config, "created": "2026-11-28T17:00:00Z", "state": state}
            w.server.on("$JS.API.STREAM.NAMES", partial(answer, found), first=True)
            w.server.on("$JS.API.STREAM.INFO.S", partial(answer, info), first=True)
            cut(w)
            await fails(receipt, errors.DisconnectedError, "nobody says")


async def test_a_stream_that_takes_its_time_to_say_how_long_is_asked_again() -> None:
    async with publisher(resend=True) as w:
        w.stream.hook = silence
        receipt = await w.pub.publish("s.a", b"x")
        await settled()
        answers = iter([{"error": {"code": 503, "err_code": 10008, "description": "not yet"}}] * 3)
        names = {"streams": ["S"], "total": 1, "offset": 0, "limit": 1024}
        w.server.on("$JS.API.STREAM.NAMES", lambda _: next(answers, names), first=True)
        cut(w)
        w.stream.hook = lambda _: None
        assert (await receipt.wait()).duplicate is True


async def test_a_connection_that_breaks_again_and_again() -> None:
    async with publisher(resend=True, max_pending=20, reconnect_time_wait=0.01) as w:
        quietly = first_times(1, "silence")
        w.stream.hook = lambda frame: quietly(frame) if int(frame.payload) % 3 else None

        async def break_it() -> None:
            for _ in range(10):
                await trio.sleep(0.3)
                w.server.cut()

        w.nursery.start_soon(break_it)
        receipts = []
        for number in range(100):
            receipts.append(await w.pub.publish("s.a", b"%d" % number))
            await trio.sleep(0.03)
        w.stream.hook = lambda _: None
        for receipt in receipts:
            await receipt.wait()
        assert sorted(map(int, w.stream.stored)) == list(range(100))


async def test_what_a_new_server_does_not_take_fails() -> None:
    async with publisher() as w:
        cut(w)
        await settled()
        large, small = await w.pub.publish("s.a", bytes(5000)), await w.pub.publish("s.a", b"x")
        w.server.info["max_payload"] = 1000
        await fails(large, errors.MaxPayloadError, "5000 bytes are more than the new server takes")
        assert (await small.wait()).seq == 1


async def test_what_is_sent_again_to_a_server_that_takes_less_fails() -> None:
    async with publisher(resend=True) as w:
        w.stream.hook = silence
        receipt = await w.pub.publish("s.a", bytes(5000))
        await settled()
        w.server.info["max_payload"] = 1000
        cut(w)
        await fails(receipt, errors.MaxPayloadError, "the server takes 1000")


async def test_closing_the_client_fails_what_is_under_way() -> None:
    async with publisher(fails_with=errors.PublishError) as w:
        w.stream.hook = silence
        receipt = await w.pub.publish("s.a", b"heard")
        await w.pub.publish("s.a", b"unheard")
        await settled()
        await w.nc.aclose()
        await fails(receipt, errors.ConnectionClosedError, "the client was closed")
        with pytest.raises(errors.ConnectionClosedError):
            await w.pub.publish("s.a", b"x")
        with pytest.raises(errors.ConnectionClosedError):
            w.pub.publish_nowait("s.a", b"x")
    ((message, reason),) = w.caught[0].failures
    assert (message.payload, type(reason).__name__) == (b"unheard", "ConnectionClosedError")


async def test_a_client_that_is_lost_fails_what_is_under_way() -> None:
    async with publisher(fails_with=errors.PublishError, allow_reconnect=False, resend=True) as w:
        w.stream.hook = silence
        await w.pub.publish("s.a", b"x")
        await settled()
        w.server.cut()


async def test_a_drain_waits_for_what_is_under_way() -> None:
    async with publisher() as w:
        w.stream.hook = silence
        receipt = await w.pub.publish("s.a", b"x")
        await settled()
        assert w.nc.statistics().pending_requests == 1

        async def answer() -> None:
            await trio.sleep(1)
            w.stream.acknowledge(w.stream.heard[0])

        w.nursery.start_soon(answer)
        with takes(1):
            await elsewhere(w.nc.drain)
        assert (await receipt.wait()).seq == 1


async def test_only_a_programs_publishes_count() -> None:
    async with watched() as (server, nc, rx):
        ScriptedStream(server)
        async with trio.open_nursery() as nursery, open_publisher(nursery, nc.jetstream()) as pub:
            before = nc.statistics().out_msgs
            for _ in range(5):
                await pub.publish("s.a", b"x")
            await pub.wait_all()
            assert nc.statistics().out_msgs == before + 5
        assert not arrived(rx, events.PublishesLost)


async def test_a_planned_move_fails_no_publish() -> None:
    """The inbox is on both sides, and the old server stays for the acknowledgements that are to come from there."""
    hosts = Hosts("a", "b")
    streams = {name: ScriptedStream(hosts[name]) for name in "ab"}
    for stream in streams.values():
        stream.hook = silence
    async with watched(hosts) as (_, nc, rx), trio.open_nursery() as nursery:
        async with open_publisher(nursery, nc.jetstream()) as pub:
            old = await pub.publish("s.a", b"old")
            await settled()
            hosts["a"].announce(ldm=True)
            await next_event(rx, events.Moved)
            new = await pub.publish("s.a", b"new")
            await trio.sleep(3)
            assert not old.done
            streams["a"].acknowledge(streams["a"].heard[0])
            streams["b"].acknowledge(streams["b"].heard[0])
            assert ((await old.wait()).stream, (await new.wait()).stream) == ("S", "S")
            await trio.sleep(LONGEST_STAY)
            assert not hosts["a"].live_links
            streams["b"].hook = lambda _: None
            await (await pub.publish("s.a", b"later")).wait()
    assert [stream.stored for stream in streams.values()] == [[b"old"], [b"new", b"later"]]
