"""A fast ingest against a stream in memory: what it asks for, what it sends when, what is told, and that it all ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio

from tests.cancelling import Cut, cancel_everywhere
from tests.fake_ingest import IDLE_LIMIT, FakeIngestStream
from tests.fake_jetstream import refusal
from tests.fakes import FakeServer, Frame
from tests.worlds import (
    Hosts,
    arrived,
    assert_nothing_left,
    elsewhere,
    lose,
    next_event,
    nursery_elsewhere,
    open_world,
    publish_forced,
    regain,
    settled,
    takes,
    watched,
)
from trionats import Client, Ingest, IngestReceipt, JetStream, api, errors, events, open_events, open_ingest
from trionats._protocol.jetstream.publishing.ingest import IDLE, WANTED

pytestmark = pytest.mark.usefixtures("autojump_clock")

START, APPEND, END, PING = 0, 1, 3, 4


def ack_of(ingest: Ingest) -> api.PubAck:
    assert ingest.ack is not None
    return ingest.ack


class IngestWorld(NamedTuple):
    """An ingest, and the stream that it publishes to."""

    server: FakeServer
    stream: FakeIngestStream
    nc: Client
    js: JetStream
    ingest: Ingest
    nursery: trio.Nursery
    #: What leaving the ingest raised.
    caught: list[Any]

    async def publish(self, *payloads: int) -> list[IngestReceipt]:
        return [await self.ingest.publish("s.a", b"%d" % payload) for payload in payloads]


@asynccontextmanager
async def ingesting(
    *,
    fails_with: tuple[type[Exception], ...] | type[Exception] = (),
    server: FakeServer | None = None,
    domain: str | None = None,
    on_gap: Any = "fail",  # noqa: ANN401 - also what it cannot be
    max_outstanding: int = 2,
    step: int = 4,
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[IngestWorld]:
    server = server or FakeServer()
    stream = FakeIngestStream(server, step)
    async with open_world(server, **options) as (_, nc, nursery):
        js = nc.jetstream(domain=domain)
        caught: list[Exception] = []
        try:
            async with open_ingest(nursery, js, on_gap=on_gap, max_outstanding=max_outstanding) as ingest:
                yield IngestWorld(server, stream, nc, js, ingest, nursery, caught)
        except fails_with as error:
            caught.append(error)
        assert bool(caught) is bool(fails_with)
        assert ingest.pending == 0
        assert_nothing_left(nc)
        if not nc.is_closed:
            await nc.flush()
        assert stream.fast.batches == {}, "nothing is left on the server either"


async def fails(receipt: IngestReceipt, kind: type[Exception], text: str | None = None) -> Any:  # noqa: ANN401 - the failure
    with pytest.raises(kind, match=text) as caught:
        await receipt.wait()
    return caught.value


def refuse(payload: bytes, how: str = "late") -> Any:  # noqa: ANN401 - what the stream asks
    return lambda given: how if given == payload else ""


def fail(error: Exception) -> None:
    raise error


def cut(w: IngestWorld) -> None:
    """Break the connection; the next attempt fails, the one after it does not."""
    w.server.dials = ["refuse"]
    w.server.cut()


# -- the ordinary course --------------------------------------------------------------------------------------------------


async def test_all_that_is_published_is_stored_in_its_order_and_acknowledged_as_one_batch() -> None:
    async with ingesting() as w:
        receipts = await w.publish(*range(10))
        assert repr(w.ingest) == f"<Ingest into 'S' open, {w.ingest.pending} pending>"
        assert not w.ingest.ack
    assert w.stream.payloads == [b"%d" % number for number in range(10)]
    ack = ack_of(w.ingest)
    assert (ack.stream, ack.seq, ack.count) == ("S", 10, 10)
    assert ack.batch == w.stream.heard_frames[0].reply.split(".")[-6]
    assert w.stream.operations() == [START, *[APPEND] * 9, END]
    for receipt in receipts:
        assert receipt.done
        await receipt.wait()
    assert repr(receipts[0]) == "<IngestReceipt of a publish to 's.a', stored>"
    assert repr(w.ingest) == "<Ingest into 'S' closed, 0 pending>"


async def test_an_ingest_of_nothing_sends_nothing() -> None:
    async with ingesting() as w:
        before = len(w.server.frames)
    assert w.ingest.ack is None
    assert not [frame for frame in w.server.frames[before:] if frame.verb in ("PUB", "SUB")]


async def test_the_servers_window_is_the_back_pressure() -> None:
    async with ingesting(max_outstanding=1) as w:
        await w.publish(0)
        await settled()
        w.stream.hook = lambda _: "lost"
        await w.publish(1, 2, 3)
        with trio.move_on_after(0.5) as scope:
            await w.publish(4)
        assert scope.cancelled_caught
        (batch,) = w.stream.fast.batches
        w.stream.hook = lambda _: None
        ack = b'{"type":"ack","seq":4,"msgs":2}'
        w.server.publish(w.stream.heard_frames[-1].reply, ack)
        await w.publish(5, 6)
        assert w.ingest.pending == 2
        assert batch in w.stream.heard_frames[-1].reply
    assert w.stream.payloads == [b"0", b"1", b"2", b"3", b"5", b"6"]


async def test_what_the_stream_is_asked_for_is_what_js_publish_asks() -> None:
    async with ingesting() as w:
        options: dict[str, Any] = {"msg_id": "i", "msg_ttl": 5, "rollup": "sub", "expected_last_seq": 0, "stream": "S"}
        await w.ingest.publish("s.a", "ä", headers={"A": ["1", "2"]}, **options)
    (frame, _) = w.stream.heard_frames
    assert frame.payload == "ä".encode()
    for line in ("A: 1", "A: 2", "Nats-Msg-Id: i", "Nats-TTL: 5s", "Nats-Rollup: sub", "Nats-Expected-Stream: S"):
        assert f"{line}\r\n".encode() in frame.headers


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"timeout": 1}, TypeError, r"publish\(\) takes no timeout: .*ingest\.publish"),
        ({"expected_last_sequence": 1}, TypeError, "it is called 'expected_last_seq' here"),
        ({"expected_last_seq": -1}, ValueError, "expected_last_seq"),
        ({"payload": 5}, TypeError, "payload must be bytes"),
        ({"payload": "\ud800"}, ValueError, "payload is not valid Unicode"),
        ({"subject": "s.*"}, errors.BadSubjectError, "wildcards"),
        ({"subject": ["s.a"]}, TypeError, "must be text"),
        ({"headers": ["a"]}, TypeError, "headers must be a mapping"),
        ({"payload": bytes(1024 * 1024 + 1)}, errors.MaxPayloadError, r"104\d+ bytes"),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_anything_is(
    arguments: dict[str, Any], kind: type[Exception], text: str
) -> None:
    given: dict[str, Any] = {"subject": "s.a", **arguments}
    async with ingesting() as w:
        before = len(w.server.frames)
        with pytest.raises(kind, match=text):
            await w.ingest.publish(**given)
        assert len(w.server.frames) == before
        await w.publish(0)
        with pytest.raises(kind, match=text):
            await w.ingest.publish(**given)
    assert w.stream.payloads == [b"0"]


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"on_gap": "ignore"}, ValueError, "on_gap must be 'fail' or 'continue', not 'ignore'"),
        ({"max_outstanding": 0}, ValueError, "max_outstanding is 0: it must be from 1 to 3"),
        ({"max_outstanding": 4}, ValueError, "max_outstanding is 4"),
        ({"max_outstanding": True}, TypeError, "max_outstanding must be a whole number, not bool"),
        ({"timeout": 3}, TypeError, "takes no timeout: deadlines are cancel scopes"),
    ],
)
async def test_options_that_cannot_be_are_refused(arguments: dict[str, Any], kind: type[Exception], text: str) -> None:
    async with open_world() as (_, nc, nursery):
        with pytest.raises(kind, match=text):
            async with open_ingest(nursery, nc.jetstream(), **arguments):
                pass
        with pytest.raises(TypeError, match=r"js must be a JetStream, not Client"):
            async with open_ingest(nursery, nc):  # type: ignore[arg-type]
                pass


# -- which stream -----------------------------------------------------------------------------------------------------------


async def test_a_stream_that_does_not_allow_it_is_named_before_anything_is_stored() -> None:
    async with ingesting() as w:
        w.stream.config = {"name": "S", "subjects": ["s.>"]}
        with pytest.raises(
            errors.BadRequestError, match=r"stream 'S': fast ingest is not allowed.*allow_batched"
        ) as caught:
            await w.publish(0)
        assert (caught.value.code, caught.value.err_code, caught.value.stream) == (400, 10205, "S")
    assert w.stream.heard_frames == []


async def test_a_stream_that_acknowledges_nothing_is_refused() -> None:
    async with ingesting() as w:
        w.stream.config = {**w.stream.config, "no_ack": True}
        with pytest.raises(ValueError, match=r"stream 'S' acknowledges nothing \(no_ack\)"):
            await w.publish(0)
    assert w.stream.heard_frames == []


async def test_a_server_that_is_too_old_is_named_before_anything_is_stored() -> None:
    async with ingesting() as w:
        w.stream.config, w.stream.level = {"name": "S", "subjects": ["s.>"]}, 2
        text = r"publish to 's\.a': fast ingest needs a server of 2\.14 or later \(API level 4\); this one has level 2"
        with pytest.raises(errors.APIError, match=text):
            await w.publish(0)
    assert w.stream.heard_frames == []


async def test_a_subject_of_no_stream_or_of_another_one_is_refused() -> None:
    async with ingesting() as w:
        w.stream.names = lambda subject: {"s.a": ["S"], "t.a": ["T"], "mapped": ["S"]}.get(subject, [])
        with pytest.raises(errors.NoStreamResponseError, match=r"publish to 'nowhere': no stream"):
            await w.ingest.publish("nowhere")
        await w.publish(0)
        with pytest.raises(ValueError, match=r"this ingest goes to stream 'S', and that subject to 'T'"):
            await w.ingest.publish("t.a")
        asked = len(w.server.sent("PUB", "$JS.API.>"))
        for subject in ("s.b", "s.a", "s.b"):
            await w.ingest.publish(subject, b"x")
        assert len(w.server.sent("PUB", "$JS.API.>")) == asked, "the stream has said what its subjects are"
        w.server.on("mapped", w.stream.publish)
        await w.ingest.publish("mapped", b"y")
    assert w.stream.payloads == [b"0", b"x", b"x", b"x", b"y"]


async def test_two_tasks_that_publish_at_once_go_to_one_stream() -> None:
    async with ingesting() as w:
        w.stream.names = lambda subject: ["S"] if subject == "s.a" else ["T"]
        other = {"config": {"allow_batched": True, "subjects": None}}

        async def slowly(reply: str) -> None:
            await trio.sleep(1)
            w.server.publish(reply, json.dumps(other).encode())

        w.server.on("$JS.API.STREAM.INFO.T", lambda frame: w.nursery.start_soon(slowly, frame.reply))
        raised = []

        async def publish(subject: str) -> None:
            try:
                await w.ingest.publish(subject, b"x")
            except ValueError as error:
                raised.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, "s.a")
            nursery.start_soon(publish, "t.a")
        assert raised == [
            "publish to 't.a': this ingest goes to stream 'S', and that subject to 'T': one ingest has one stream"
        ]


@pytest.mark.parametrize("config", [None, 7, {}, {"allow_batched": 1}])
async def test_a_configuration_that_cannot_be_read_allows_nothing(config: object) -> None:
    async with ingesting() as w:
        w.server.on("$JS.API.STREAM.INFO.S", lambda _: {"config": config}, first=True)
        with pytest.raises(errors.BadRequestError, match="not allowed"):
            await w.publish(0)


async def test_where_two_domains_hear_it_it_is_refused() -> None:
    """Acks do not say whose they are."""
    server = FakeServer()
    near = {"config": {"name": "L"}, "domain": "leaf"}
    async with ingesting(server=server, domain="hub") as w:
        server.on("$JS.hub.API.STREAM.NAMES", lambda _: {"streams": ["S"], "total": 1, "offset": 0, "limit": 1024})
        server.on("$JS.hub.API.STREAM.INFO.S", lambda _: {**w.stream.about(), "domain": "hub"})
        server.on("$JS.API.STREAM.INFO.L", lambda _: near)
        w.stream.names = lambda _: ["L"]
        with pytest.raises(ValueError, match=r"stream 'S' of domain 'hub' hears it, and stream 'L' here"):
            await w.publish(0)
        near["domain"] = w.stream.fast.domain = "hub"
        await w.publish(0)
        w.stream.names = lambda _: []
        await w.ingest.publish("s.b", b"1")


async def test_a_puback_of_another_domain_does_not_count() -> None:
    server = FakeServer()
    async with ingesting(server=server, domain="hub") as w, open_events(w.nursery, w.nc) as told:
        server.on("$JS.hub.API.STREAM.NAMES", lambda _: {"streams": ["S"], "total": 1, "offset": 0, "limit": 1024})
        server.on("$JS.hub.API.STREAM.INFO.S", lambda _: {**w.stream.about(), "domain": "hub"})
        w.stream.names = lambda _: []
        (receipt,) = await w.publish(0)
        await settled()
        start = w.stream.heard_frames[0]
        batch = start.reply.split(".")[-6]
        said = {"stream": "S", "seq": 5, "batch": batch, "count": 1, "domain": "leaf"}
        w.server.publish(start.reply, json.dumps(said).encode())
        await settled()
        assert not receipt.done
        assert len(arrived(told, events.StoredElsewhere)) == 1
        w.server.publish(start.reply, json.dumps({**said, "domain": "hub"}).encode())
        await receipt.wait()
        w.stream.fast.batches.clear()


# -- failures ---------------------------------------------------------------------------------------------------------------


async def test_the_first_failure_ends_an_ingest_and_each_message_is_told() -> None:
    async with ingesting(fails_with=errors.PublishError) as w:
        w.stream.fast.takes = refuse(b"2")
        receipts = await w.publish(0, 1, 2, 3, 4)
        await settled()
        await receipts[0].wait()
        await fails(receipts[3], errors.IngestGapError, r"publish to 's\.a': it is not stored: it did not reach")
        await w.publish(5)
    raised = w.caught[0]
    assert str(raised) == "the ingest has failed: publish to 's.a': wrong last sequence: 9 (code 400, error 10071)"
    assert type(raised.__cause__).__name__ == "BadRequestError"
    assert not hasattr(raised, "__notes__")
    assert [(message.payload, type(reason).__name__) for message, reason in raised.failures] == [
        (b"2", "BadRequestError"),
        (b"4", "IngestGapError"),
    ], "once it is left; what a receipt has raised is not among them"
    assert w.stream.payloads == [b"0", b"1"]
    assert w.ingest.ack is None


async def test_where_it_goes_on_the_failures_are_told_at_its_end() -> None:
    async with ingesting(fails_with=errors.PublishError, on_gap="continue") as w:
        w.stream.fast.takes = refuse(b"2")
        for number in range(10):
            await w.ingest.publish("s.a", b"%d" % number, msg_id=f"i{number}")
    ((message, reason),) = w.caught[0].failures
    assert (message.subject, message.payload, message.msg_id) == ("s.a", b"2", "i2")
    assert (reason.code, reason.err_code) == (400, 10071)
    assert str(w.caught[0]).startswith("1 publish failed; the first: publish to 's.a'")
    assert len(w.stream.payloads) == 9
    assert ack_of(w.ingest).count == 10


async def test_an_exception_of_the_blocks_own_comes_out_when_all_is_known() -> None:
    async with ingesting(fails_with=KeyError, on_gap="continue") as w:
        w.stream.fast.takes = refuse(b"1")
        await w.publish(0, 1, 2)
        fail(KeyError())
    assert w.caught[0].__notes__ == [
        "besides, 1 publish failed; the first: publish to 's.a': wrong last sequence: 9 (code 400, error 10071)"
    ]
    assert w.stream.payloads == [b"0", b"2"], "what was acknowledged stays stored"


async def test_a_stream_that_stops_allowing_it_is_told_as_such() -> None:
    async with ingesting(fails_with=errors.PublishError) as w:
        await w.publish(0)
        await settled()
        w.stream.fast.allowed = False
        await w.publish(1)
        await settled()
        w.stream.fast.batches.clear()
    by_payload = {message.payload: reason for message, reason in w.caught[0].failures}
    assert by_payload[b"1"].err_code == 10205
    assert "allow_batched" in str(by_payload[b"1"])
    assert isinstance(by_payload[b"0"], errors.TimeoutError)
    assert "whether it is stored is not known" in str(by_payload[b"0"])


async def test_what_nobody_hears_is_told_after_two_more_tries() -> None:
    async with ingesting(fails_with=errors.PublishError) as w:
        w.stream.hook = lambda _: "503"
        (receipt,) = await w.publish(0)
        with takes(0.5):
            await fails(receipt, errors.NoStreamResponseError, r"publish to 's\.a'")
        await w.publish(1)
    assert len({frame.reply for frame in w.stream.heard_frames}) == 1
    assert len(w.stream.heard_frames) == 3


async def test_a_stream_that_says_nothing_is_given_up_in_time() -> None:
    async with ingesting(fails_with=errors.PublishError) as w:
        w.stream.hook = lambda _: "silence"
        (receipt,) = await w.publish(0)
        with takes(5):
            await fails(receipt, errors.TimeoutError, r"publish to 's\.a': no answer within 5 s")
        await w.publish(1)


async def test_what_cannot_be_read_is_skipped_and_told() -> None:
    async with ingesting() as w, open_events(w.nursery, w.nc) as told:
        (receipt,) = await w.publish(0)
        await settled()
        for data in (b"", b"\xff", b'{"type":"ack","seq":"x"}', b'{"a":' * 10_000):
            w.server.publish(w.stream.heard_frames[0].reply, data)
        await settled()
        assert not receipt.done
        assert len(arrived(told, events.ForeignDataSkipped)) == 1


async def test_a_publish_that_the_server_does_not_let_pass_is_told() -> None:
    server = FakeServer(deny_publish=("s.denied",))
    async with ingesting(server=server, on_gap="continue") as w:
        await w.publish(0)
        receipt = await w.ingest.publish("s.denied", b"x")
        with takes(0):
            await fails(receipt, errors.PermissionsViolationError, r"publish to 's\.denied'")
        await w.publish(1)
    assert w.stream.payloads == [b"0", b"1"]


async def test_an_inbox_that_the_server_refuses_ends_the_ingest() -> None:
    server = FakeServer()
    async with ingesting(server=server) as w:
        await w.nc.request("$JS.API.INFO")
        server.deny_subscribe = ("_INBOX.>",)
        (receipt,) = await w.publish(0)
        with takes(0):
            await fails(receipt, errors.PermissionsViolationError, "fast ingest")
        with pytest.raises(errors.PermissionsViolationError):
            await w.publish(1)
        w.stream.fast.batches.clear()


# -- receipts, and the ends of batches ------------------------------------------------------------------------------------------


async def test_a_receipt_of_the_last_messages_is_done_soon() -> None:
    async with ingesting() as w:
        receipts = await w.publish(0, 1)
        await settled()
        assert not receipts[1].done
        with takes(WANTED):
            await receipts[1].wait()
        await w.publish(2)
    assert ack_of(w.ingest).count == 1, "of the last batch"
    assert w.stream.operations() == [START, APPEND, END, START, END]


async def test_several_tasks_may_wait_for_one_receipt() -> None:
    async with ingesting() as w:
        w.stream.fast.takes = refuse(b"1")
        good, bad = await w.publish(0, 1)
        seen: list[object] = []

        async def wait(receipt: IngestReceipt) -> None:
            try:
                await receipt.wait()
                seen.append(None)
            except errors.BadRequestError as error:
                seen.append(error)

        async with trio.open_nursery() as nursery:
            for receipt in (good, good, bad, bad):
                nursery.start_soon(wait, receipt)
        assert len(seen) == 4
        refused = [error for error in seen if error is not None]
        assert len(refused) == 2
        assert refused[0] is not refused[1]


async def test_a_pause_ends_the_batch_and_what_follows_begins_another() -> None:
    async with ingesting() as w:
        await w.publish(0)
        await trio.sleep(IDLE + 0.1)
        assert w.stream.fast.batches == {}
        assert w.ingest.pending == 0
        await trio.sleep(2 * IDLE_LIMIT)
        await w.publish(1)
    assert w.stream.payloads == [b"0", b"1"]
    assert w.stream.operations() == [START, END] * 2


async def test_a_batch_that_the_server_forgot_is_begun_anew_where_all_is_known() -> None:
    async with ingesting() as w:
        await w.publish(0, 1, 2, 3)
        await settled()
        w.stream.fast.batches.clear()
        await w.publish(4, 5)
    assert w.stream.payloads == [b"%d" % number for number in range(6)]
    assert ack_of(w.ingest).count == 2


# -- the connection -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_gap", ["fail", "continue"])
async def test_a_broken_connection_is_nothing_where_all_has_arrived_and_is_acknowledged(on_gap: str) -> None:
    async with ingesting(on_gap=on_gap, reconnect_time_wait=0.1) as w:
        await w.publish(0, 1, 2, 3)
        await settled()
        cut(w)
        await settled()
        await w.publish(4, 5)
    assert w.stream.payloads == [b"%d" % number for number in range(6)]
    assert ack_of(w.ingest).count == 6, "it was one batch"


async def test_behind_a_broken_connection_it_is_asked_what_has_arrived() -> None:
    async with ingesting() as w:
        receipts = await w.publish(0, 1)
        await settled()
        cut(w)
        await settled()
        assert not receipts[0].done
        await w.publish(2)
        await receipts[1].wait()
    assert PING in w.stream.operations()
    assert w.stream.payloads == [b"0", b"1", b"2"]


async def test_what_is_lost_with_a_connection_is_told() -> None:
    async with ingesting(fails_with=errors.PublishError) as w:
        await w.publish(0)
        await settled()
        w.stream.hook = lambda frame: "silence" if frame.payload == b"1" else None
        await w.publish(1)
        await settled()
        cut(w)
        await settled()
        await w.publish(2)
    by_payload = {message.payload: type(reason).__name__ for message, reason in w.caught[0].failures}
    assert by_payload == {b"1": "IngestGapError"}
    assert w.stream.payloads == [b"0"]


async def test_where_it_goes_on_what_was_under_way_is_not_known() -> None:
    async with ingesting(on_gap="continue") as w:
        (receipt,) = await w.publish(0)
        await settled()
        cut(w)
        await settled()
        (later,) = await w.publish(1)
        error = await fails(receipt, errors.DisconnectedError, r"publish to 's\.a': the connection was lost")
        assert error.sent is True
        await later.wait()
    assert w.stream.payloads == [b"0", b"1"]


async def test_what_has_not_left_waits_for_the_next_connection() -> None:
    async with ingesting() as w:
        await w.publish(0, 1, 2, 3)
        await settled()
        w.server.link.stall(up=True)
        publish_forced(w.nc, "filler", bytes(100))
        await settled()
        receipts = await w.publish(4, 5, 6)
        cut(w)
        for receipt in receipts:
            await receipt.wait()
    assert w.stream.payloads == [b"%d" % number for number in range(7)]


@pytest.mark.parametrize("opened", ["while there is none", "before it is lost"])
async def test_an_ingest_that_begins_without_a_connection_begins_with_the_next_one(opened: str) -> None:
    server = FakeServer()
    stream = FakeIngestStream(server, 4)
    async with open_world(server) as (_, nc, nursery):
        if opened == "while there is none":
            await lose(server, nc)
        async with open_ingest(nursery, nc.jetstream()) as ingest:
            if opened == "before it is lost":
                await lose(server, nc)
            async with trio.open_nursery() as own:
                own.start_soon(ingest.publish, "s.a", b"0")
                await settled()
                await regain(server, nc)
            with takes(0, 1):
                await (await ingest.publish("s.a", b"1")).wait()
    assert stream.payloads == [b"0", b"1"]


async def test_who_still_looks_for_the_stream_when_the_ingest_is_left_leaves_no_subscription() -> None:
    async with ingesting() as w, trio.open_nursery() as own:
        async with open_ingest(own, w.js) as ingest:
            w.server.link.stall(down=True)
            own.start_soon(publish_too_late, ingest)
            await settled()
        w.server.link.resume()
    assert w.stream.payloads == []


async def publish_too_late(ingest: Ingest) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await ingest.publish("s.a", b"0")


async def test_a_connection_that_stays_away_is_given_up_and_publishing_waits() -> None:
    async with ingesting(on_gap="continue", max_reconnect_attempts=-1) as w:
        (receipt,) = await w.publish(0)
        await settled()
        w.server.accepting = False
        w.server.cut()
        with takes(5):
            await fails(receipt, errors.DisconnectedError)
        with trio.move_on_after(30) as scope:
            await w.publish(1)
        assert scope.cancelled_caught
        w.stream.fast.batches.clear()
        w.server.accepting = True
        await w.publish(2)
    assert w.stream.payloads == [b"0", b"2"]


async def test_a_connection_that_breaks_again_and_again() -> None:
    async with ingesting(on_gap="continue", fails_with=errors.PublishError, reconnect_time_wait=0.01) as w:

        async def break_it() -> None:
            for _ in range(10):
                await trio.sleep(0.3)
                w.server.cut()

        w.nursery.start_soon(break_it)
        receipts = []
        for number in range(100):
            receipts += await w.publish(number)
            await trio.sleep(0.03)
    assert {type(reason).__name__ for _, reason in w.caught[0].failures} == {"DisconnectedError"}
    numbers = list(map(int, w.stream.payloads))
    assert numbers == sorted(set(numbers))
    assert {int(message.payload) for message, _ in w.caught[0].failures} | set(numbers) == set(range(100))


async def test_what_a_new_server_does_not_take_fails() -> None:
    async with ingesting(on_gap="continue") as w:
        await w.publish(0, 1, 2, 3)
        await settled()
        w.server.link.stall(up=True)
        publish_forced(w.nc, "filler", bytes(100))
        await settled()
        large = await w.ingest.publish("s.a", bytes(5000))
        (small,) = await w.publish(4)
        w.server.info["max_payload"] = 1000
        cut(w)
        await fails(large, errors.MaxPayloadError, r"publish to 's\.a': 5000 bytes .*the server takes 1000")
        await small.wait()


async def test_a_planned_move_fails_nothing() -> None:
    hosts = Hosts("a", "b")
    streams = {name: FakeIngestStream(hosts[name]) for name in "ab"}
    streams["b"].fast = streams["a"].fast
    async with watched(hosts) as (_, nc, rx), trio.open_nursery() as nursery:
        async with open_ingest(nursery, nc.jetstream()) as ingest:
            await ingest.publish("s.a", b"0")
            await settled()
            hosts["a"].announce(ldm=True)
            await next_event(rx, events.Moved)
            receipt = await ingest.publish("s.a", b"1")
            await receipt.wait()
            await trio.sleep(15)
            assert not hosts["a"].live_links
            await ingest.publish("s.a", b"2")
    assert streams["a"].payloads == [b"0", b"1", b"2"]


async def test_closing_the_client_fails_what_is_under_way() -> None:
    async with ingesting(fails_with=errors.PublishError) as w:
        heard, _ = await w.publish(0, 1)
        await settled()
        await w.nc.aclose()
        await fails(heard, errors.ConnectionClosedError, "the client was closed")
        with pytest.raises(errors.ConnectionClosedError):
            await w.publish(2)
        w.stream.fast.batches.clear()
    ((message, reason),) = w.caught[0].failures
    assert (message.payload, type(reason).__name__) == (b"1", "ConnectionClosedError")


async def test_a_client_that_is_lost_fails_what_is_under_way() -> None:
    async with ingesting(fails_with=errors.PublishError, allow_reconnect=False) as w:
        await w.publish(0)
        await settled()
        w.server.cut()
        w.stream.fast.batches.clear()


async def test_a_drain_waits_for_what_is_under_way() -> None:
    async with ingesting() as w:
        (receipt,) = await w.publish(0)
        await settled()
        assert w.nc.statistics().pending_requests == 1
        with takes(IDLE):
            await elsewhere(w.nc.drain)
        await receipt.wait()


async def test_only_a_programs_publishes_count_as_lost() -> None:
    async with watched() as (server, nc, rx):
        stream = FakeIngestStream(server)
        async with trio.open_nursery() as nursery, open_ingest(nursery, nc.jetstream()) as ingest:
            await ingest.publish("s.a", b"0")
            await settled()
            server.dials = ["refuse"]
            server.cut()
            await settled()
        assert stream.payloads == [b"0"]
        assert not arrived(rx, events.PublishesLost)


# -- cancellation, and other ends --------------------------------------------------------------------------------------------------


def test_a_cancelled_publish_queued_nothing_and_leaves_its_turn_to_the_next() -> None:
    async def scenario(cut: Cut) -> None:
        async with ingesting(max_outstanding=1, step=1) as w:
            w.stream.hook = lambda frame: "lost" if frame.payload == b"first" else None
            await w.ingest.publish("s.a", b"first")
            await settled()

            async def later() -> None:
                await trio.sleep(0.9)
                w.server.publish(w.stream.heard_frames[0].reply, b'{"type":"ack","seq":1,"msgs":1}')

            async def behind() -> None:
                await trio.sleep(0.5)
                await w.ingest.publish("s.a", b"behind")
                assert not cut.cancelled or trio.current_time() < begun + 1, "at once, not with the next timer"

            begun = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(later)
                nursery.start_soon(behind)
                await cut(w.ingest.publish, "s.a", b"cut")
        assert (b"cut" in w.stream.payloads) is not cut.cancelled
        assert b"behind" in w.stream.payloads
        assert len(set(w.stream.payloads)) == len(w.stream.payloads)

    assert cancel_everywhere(scenario)["woken"] >= 2


def test_an_ingest_cancelled_anywhere_leaves_a_whole_beginning_of_what_was_published() -> None:
    async def scenario(cut: Cut) -> None:
        server = FakeServer(sip=7, chunk=11)
        stream = FakeIngestStream(server)
        async with open_world(server) as (_, nc, nursery):

            async def run() -> None:
                async with open_ingest(nursery, nc.jetstream()) as ingest:
                    for number in range(6):
                        await ingest.publish("s.a", b"%d" % number)

            await cut(run)
            await nc.flush()
            assert stream.payloads == [b"%d" % number for number in range(len(stream.payloads))]
            if not cut.cancelled:
                assert len(stream.payloads) == 6
            assert stream.fast.batches == {}, "the server is told that it is over"
            assert_nothing_left(nc)

    assert cancel_everywhere(scenario)["woken"] >= 6


async def test_a_leaving_that_is_cancelled_does_not_wait() -> None:
    async with open_world() as (server, nc, nursery):
        stream = FakeIngestStream(server)
        with trio.move_on_after(1) as scope, takes(1):
            async with open_ingest(nursery, nc.jetstream()) as ingest:
                receipt = await ingest.publish("s.a", b"0")
                await settled()
                stream.hook = lambda _: "silence"
        assert scope.cancelled_caught
        await fails(receipt, trio.ClosedResourceError, "its block was left")
        with pytest.raises(trio.ClosedResourceError):
            await ingest.publish("s.a", b"1")


async def test_a_nursery_that_is_cancelled_closes_the_ingest() -> None:
    async def cancel_it(nursery: trio.Nursery, ingest: Ingest) -> None:
        await ingest.publish("s.a", b"0")
        await settled()
        nursery.cancel_scope.cancel()
        await settled()
        with pytest.raises(trio.ClosedResourceError, match="its nursery was cancelled"):
            await ingest.publish("s.a", b"1")

    async with open_world() as (server, nc, _), nursery_elsewhere() as nursery:
        stream = FakeIngestStream(server)
        with pytest.raises(errors.PublishError, match="its nursery was cancelled"):
            async with open_ingest(nursery, nc.jetstream()) as ingest:
                await cancel_it(nursery, ingest)
        assert stream.payloads == [b"0"]
        assert stream.fast.batches == {}


async def test_a_closed_nursery_is_refused() -> None:
    async with open_world() as (_, nc, _):
        async with trio.open_nursery() as closed:
            pass
        with pytest.raises(RuntimeError, match="open_ingest: the nursery that was passed in is closed"):
            async with open_ingest(closed, nc.jetstream()):
                pass
        assert_nothing_left(nc)


async def test_a_stream_that_cannot_be_asked_for_is_an_error_of_its_own() -> None:
    async with ingesting() as w:
        w.server.on("$JS.API.STREAM.NAMES", lambda _: refusal(503, 10008, "not yet"), first=True)
        with pytest.raises(errors.ServiceUnavailableError):
            await w.publish(0)
    assert w.stream.heard_frames == []


def ids_of(frames: list[Frame]) -> set[str]:
    return {frame.reply.split(".")[-6] for frame in frames}


async def test_each_batch_has_an_id_of_its_own() -> None:
    async with ingesting() as w:
        for number in range(3):
            (receipt,) = await w.publish(number)
            await receipt.wait()
    assert len(ids_of(w.stream.heard_frames)) == 3
