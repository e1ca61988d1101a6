"""Atomic batches against a stream in memory: what is sent, what leaving does, and what is known when something breaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio

from tests.cancelling import Cut, cancel_everywhere
from tests.fake_jetstream import WRONG_SEQUENCE, FakeBatches, fields_of, refusal
from tests.fakes import FakeServer, Frame
from tests.worlds import (
    Hosts,
    assert_failures_are_let_go,
    assert_nothing_left,
    elsewhere,
    hold_back,
    lose,
    next_event,
    open_world,
    regain,
    settled,
    takes,
    watched,
)
from trionats import Batch, Client, JetStream, errors, events, open_events
from trionats._jetstream.api import CLEANUP_LIMIT

pytestmark = pytest.mark.usefixtures("autojump_clock")

GONE = refusal(404, 10059, "stream not found")
FULL = {**refusal(400, 10077, "maximum bytes exceeded"), "stream": "S", "seq": 0}
DISABLED = {**refusal(400, 10174, "atomic publish is disabled"), "stream": "S", "seq": 0}


class BatchWorld(NamedTuple):
    """A stream that takes batches, and who is connected to it."""

    server: FakeServer
    stream: FakeBatches
    nc: Client
    js: JetStream
    nursery: trio.Nursery

    @property
    def sent(self) -> list[Frame]:
        """What was published into it."""
        return self.server.sent("HPUB", "s.>")


@asynccontextmanager
async def batches(
    server: FakeServer | None = None,
    domain: str | None = None,
    **options: Any,  # noqa: ANN401 - any option
) -> AsyncIterator[BatchWorld]:
    server = server or FakeServer()
    stream = FakeBatches(server, "S", "s")
    if domain is not None:
        server.on(f"$JS.{domain}.API.INFO", lambda _: {"api": {"level": 2}})
    async with open_world(server, **options) as (_, nc, nursery):
        yield BatchWorld(server, stream, nc, nc.jetstream(domain=domain), nursery)
        assert_nothing_left(nc)


def number_of(frame: Frame) -> int:
    return int(fields_of(frame.headers)["Nats-Batch-Sequence"])


def commits(frame: Frame) -> bool:
    return "Nats-Batch-Commit" in fields_of(frame.headers)


def on_commit(answer: object) -> Callable[[Frame], object]:
    """Have the commit answered in another way."""
    return lambda frame: answer if commits(frame) else None


class Failed(Exception):
    """What the body of a block raises."""


async def fails(
    w: BatchWorld, kind: type[Exception], text: str, *subjects: str, then: Callable[[], object] = lambda: None
) -> tuple[Batch, Any]:
    """Publish to these subjects in a batch, which fails; give it, and how it failed."""
    made: list[Batch] = []

    async def use() -> None:
        async with w.js.open_batch() as batch:
            made.append(batch)
            for subject in subjects:
                await batch.publish(subject, b"x")
            await settled()
            then()

    with pytest.raises(kind, match=text) as caught:
        await use()
    return made[0], caught.value


# -- what is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 300])
async def test_leaving_stores_all_of_it_in_order(count: int) -> None:
    async with batches() as w:
        async with w.js.open_batch() as batch:
            for number in range(count):
                await batch.publish(f"s.{number % 2}", b"%d" % number, headers={"A": ["1", "2"]}, msg_id=f"i{number}")
            assert (batch.ack, batch.committed, w.stream.messages) == (None, False, [])
        assert [message.payload for message in w.stream.messages] == [b"%d" % number for number in range(count)]
        assert batch.ack is not None
        ack = batch.ack
        assert (ack.stream, ack.seq, ack.batch, ack.count) == ("S", count, batch.id, count)
        assert batch.committed
        own = w.stream.messages[-1].headers.decode().split("\r\n")
        expected = ["A: 1", "A: 2", f"Nats-Msg-Id: i{count - 1}", f"Nats-Batch-Id: {batch.id}"]
        assert own[1:5] == expected
        assert [number_of(frame) for frame in w.sent] == list(range(1, count + 1))
        assert [commits(frame) for frame in w.sent] == [False] * (count - 1) + [True]
        assert not w.stream.staged


async def test_a_batch_without_messages_sends_nothing() -> None:
    async with batches() as w:
        async with w.js.open_batch() as batch:
            pass
        assert (batch.ack, batch.committed, w.sent) == (None, False, [])
        assert not w.server.sent("SUB")[1:], "only the inbox of the request for the level"


async def test_its_messages_are_pipelined_once_the_first_was_taken() -> None:
    async with batches() as w:
        w.stream.hook = lambda frame: "silence" if number_of(frame) > 1 else None
        async with w.js.open_batch() as batch:
            for number in range(101):
                await batch.publish("s.a", b"%d" % number)
            await settled()
            assert len(w.sent) == 100
            w.stream.hook = lambda _: None
            for frame in w.sent[1:]:
                w.server.publish(frame.reply, json.dumps(w.stream.take(frame)).encode() if commits(frame) else b"")
                if not commits(frame):
                    w.stream.take(frame)
        assert batch.committed


async def test_no_second_message_is_sent_before_the_first_was_taken() -> None:
    async with batches() as w:
        w.stream.hook = lambda _: "silence"
        async with w.js.open_batch() as batch:
            await batch.publish("s.a", b"1")
            await batch.publish("s.a", b"2")
            with takes(5), pytest.raises(errors.TimeoutError, match="1 messages under way: no answer within 5 s"):
                await batch.publish("s.a", b"3")
            assert len(w.sent) == 1
            w.server.publish(w.sent[0].reply, b"")
            w.stream.hook = lambda _: None
            w.stream.take(w.sent[0])
            await batch.publish("s.a", b"4")
        assert [message.payload for message in w.stream.messages] == [b"1", b"2", b"4"]


async def test_the_time_that_was_chosen_bounds_the_wait() -> None:
    async with batches(request_timeout=2) as w:
        w.stream.hook = lambda _: "silence"
        with takes(2):
            batch, _ = await fails(w, errors.TimeoutError, "no answer within 2 s", "s.a", "s.a")
        assert (len(w.sent), batch.committed) == (1, False)


async def test_tasks_that_publish_into_one_batch_share_its_numbers() -> None:
    async with batches() as w, w.js.open_batch() as batch:

        async def publish(name: str) -> None:
            for number in range(20):
                await batch.publish(f"s.{name}", b"%d" % number)

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(publish, name)
    assert [number_of(frame) for frame in w.sent] == list(range(1, 61))
    for name in "abc":
        assert [int(payload) for payload in w.stream.payloads(f"s.{name}")] == list(range(20))


async def test_a_payload_that_is_changed_meanwhile_is_sent_as_it_was() -> None:
    async with batches() as w:
        data = bytearray(b"before")
        async with w.js.open_batch() as batch:
            await batch.publish("s.a", data)  # type: ignore[arg-type]  # as for every publish
            data[:] = b"behind"
            await batch.publish("s.a", memoryview(data))  # type: ignore[arg-type]
            data[:] = b"even l"
        assert w.stream.payloads("s.a") == [b"before", b"behind"]


async def test_a_message_that_was_stored_by_a_batch_may_be_published_with_its_headers() -> None:
    async with batches() as w:
        stored = {"Nats-Batch-Id": "x", "Nats-Batch-Sequence": "7", "Nats-Batch-Commit": "1", "A": "1"}
        async with w.js.open_batch() as batch:
            await batch.publish("s.a", b"1", headers=stored)
            await batch.publish("s.a", b"2", headers=stored)
        assert batch.ack is not None
        assert batch.ack.count == 2
        assert w.stream.messages[0].fields == {"A": "1", "Nats-Batch-Id": batch.id, "Nats-Batch-Sequence": "1"}


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"timeout": 1}, TypeError, r"publish\(\) takes no timeout: .*batch\.publish"),
        ({"expected_last_sequence": 1}, TypeError, "it is called 'expected_last_seq' here"),
        ({"expected_last_seq": -1}, ValueError, "expected_last_seq"),
        ({"expected_last_seq": 1}, ValueError, "by the first message of a batch"),
        ({"expected_last_msg_id": "i"}, ValueError, "expected_last_msg_id cannot be asked for in a batch"),
        ({"headers": {"Nats-Expected-Last-Msg-Id": "i"}}, ValueError, "expected_last_msg_id cannot be asked for"),
        ({"expected_last_subject_seq": 1}, ValueError, "has a message to 's.a' already"),
        ({"rollup": "sub"}, ValueError, "rollup 'sub' cannot be asked for"),
        ({"rollup": "all"}, ValueError, "rollup 'all' can only be asked for by the first"),
        ({"msg_id": "i"}, ValueError, "msg_id 'i' stands in the batch already"),
        ({"payload": 5}, TypeError, "payload must be bytes"),
        ({"payload": "\ud800"}, ValueError, "payload is not valid Unicode"),
        ({"subject": "s.*"}, errors.BadSubjectError, "wildcards"),
        ({"headers": ["a"]}, TypeError, "headers must be a mapping"),
        ({"headers": {"a b": "c"}}, errors.BadHeaderError, "a b"),
        ({"payload": bytes(1024 * 1024 - 90)}, errors.MaxPayloadError, "and 22 more if it is the last"),
        ({"payload": bytes(1024 * 1024)}, errors.MaxPayloadError, r"104\d+ bytes"),
    ],
)
async def test_what_cannot_be_sent_is_refused_and_is_no_part_of_it(
    arguments: dict[str, Any], kind: type[Exception], text: str
) -> None:
    given: dict[str, Any] = {"subject": "s.a", **arguments}
    async with batches() as w:
        async with w.js.open_batch() as batch:
            await batch.publish("s.a", b"1", msg_id="i")
            with pytest.raises(kind, match=text):
                await batch.publish(**given)
            await batch.publish("s.a", b"2")
        assert w.stream.payloads("s.a") == [b"1", b"2"]


async def test_a_server_that_is_too_old_is_named_and_gets_nothing() -> None:
    async with batches() as w:
        w.stream.level = 1
        for _ in range(2):
            with pytest.raises(
                errors.APIError, match=r"atomic batch: open_batch\(\) needs a server of 2\.12 .*level 1"
            ):
                async with w.js.open_batch():
                    pytest.fail("it was opened")
        assert w.sent == []
        assert len(w.server.sent("PUB", "$JS.API.INFO")) == 1


async def test_where_nobody_may_ask_for_the_level_an_old_server_stores_one_message_and_that_is_told() -> None:
    async with batches(FakeServer(deny_publish=("$JS.API.INFO",))) as w:
        w.stream.level = 1
        batch, error = await fails(
            w, errors.BatchError, r"a server that knows no batches.* by itself, as 1", *["s.a"] * 5
        )
        assert len(w.sent) == 1
        assert (error.stream, error.seq, batch.committed) == ("S", 1, False)


async def test_it_is_entered_as_other_blocks_are() -> None:
    async with batches() as w:
        with pytest.raises(TypeError, match=r"open_batch\(\) is entered with 'async with', not with 'with'"):
            with w.js.open_batch():
                pass
        with pytest.raises(TypeError, match=r"open_batch\(\) is entered with 'async with', it cannot be awaited"):
            await w.js.open_batch()
        async with w.js.open_batch() as batch:
            await batch.publish("s.a", b"x")
            await elsewhere(batch.publish, "s.a", b"x")
            assert repr(batch) == f"<Batch {batch.id!r} of 2 messages, open>"
        assert repr(batch) == f"<Batch {batch.id!r} of 2 messages, stored>"
        with pytest.raises(trio.ClosedResourceError, match=f"batch '{batch.id}': its block was left"):
            await batch.publish("s.a", b"y")
        assert len(w.stream.messages) == 2


# -- leaving without a commit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 5])
async def test_an_exception_comes_out_as_it_is_and_nothing_is_stored(count: int) -> None:
    async with batches() as w:
        failure = Failed("the body's own")

        def fail() -> None:
            raise failure

        batch, error = await fails(w, Failed, "the body's own", *["s.a"] * count, then=fail)
        assert error is failure
        assert not hasattr(failure, "__notes__")
        await w.nc.flush()
        assert (w.stream.messages, batch.committed, batch.ack) == ([], False, None)
        assert len(w.sent) == max(0, count - 1)
        assert repr(batch) == f"<Batch {batch.id!r} of {count} messages, not stored>"


async def test_what_still_waits_is_not_sent_when_it_is_left_by_an_exception() -> None:
    async with batches() as w:
        with pytest.raises(Failed):  # noqa: PT012 - the block is what raises
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
                await batch.publish("s.a", b"3")
                await hold_back(w.server, w.nc)
                await batch.publish("s.a", b"4")
                raise Failed("the body's own")
        w.server.link.resume()
        await w.nc.flush()
        assert [number_of(frame) for frame in w.sent] == [1, 2]


async def test_a_block_that_is_cancelled_stores_nothing() -> None:
    async with batches() as w:
        with trio.CancelScope() as scope:
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"x")
                await batch.publish("s.a", b"y")
                scope.cancel()
        assert scope.cancelled_caught
        assert (w.stream.messages, batch.committed) == ([], False)


async def test_a_failure_that_nobody_heard_of_is_a_note_to_the_body_s_own() -> None:
    async with batches() as w:
        w.stream.hook = lambda _: DISABLED

        def fail() -> None:
            raise Failed("the body's own")

        _, error = await fails(w, Failed, "the body's own", "s.a", "s.a", then=fail)
        assert "atomic publish is disabled" in error.__notes__[0]


def test_cancelled_at_each_step_it_is_whole_or_not_at_all() -> None:
    async def scenario(cut: Cut) -> None:
        async with batches() as w:
            seen: list[Any] = []

            async def use() -> None:
                async with w.js.open_batch() as batch:
                    seen.append(batch)
                    for number in range(4):
                        await batch.publish("s.a", b"%d" % number)

            await cut(use)
            await w.nc.flush()
            await trio.sleep(1)
            assert len(w.stream.messages) in (0, 4)
            if seen:
                assert seen[0].committed is bool(w.stream.messages), "it was found out"
            if not cut.cancelled:
                assert w.stream.messages

    assert cancel_everywhere(scenario)["woken"] >= 3


async def test_a_cancellation_behind_the_commit_has_no_effect_if_its_reply_comes_soon() -> None:
    async with batches() as w:
        w.stream.hook = on_commit("silence")
        with trio.CancelScope() as scope:
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
                w.nursery.start_soon(commit_later, w, scope, 1.5)
        assert not scope.cancelled_caught
        assert batch.committed
        assert batch.ack is not None


async def commit_later(w: BatchWorld, scope: trio.CancelScope, seconds: float) -> None:
    await trio.sleep(0.1)
    scope.cancel()
    await trio.sleep(seconds)
    frame = w.sent[-1]
    w.server.publish(frame.reply, json.dumps(w.stream.take(frame)).encode())


async def test_a_cancellation_behind_the_commit_waits_for_two_seconds_at_the_most() -> None:
    async with batches() as w:
        w.stream.hook = on_commit("silence")
        with takes(CLEANUP_LIMIT), trio.CancelScope() as scope:
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
                w.nursery.start_soon(commit_later, w, scope, 3)
        assert scope.cancelled_caught
        assert (batch.committed, batch.ack) == (None, None)
        assert repr(batch).endswith("not known whether it is stored>")


async def test_a_commit_that_never_left_us_is_taken_back() -> None:
    async with batches() as w:
        with trio.move_on_after(1) as scope:
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await hold_back(w.server, w.nc)
        assert scope.cancelled_caught
        assert batch.committed is False
        w.server.link.resume()
        await w.nc.flush()
        assert w.sent == []


async def test_who_still_waits_to_publish_when_the_block_is_left_is_told() -> None:
    async with batches() as w:
        told: list[Exception] = []
        w.stream.hook = lambda _: "silence"

        async def late(batch: Batch) -> None:
            try:
                await batch.publish("s.a", b"3")
            except trio.ClosedResourceError as closed:
                told.append(closed)

        with pytest.raises(errors.TimeoutError):  # noqa: PT012 - the block is what raises
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
                w.nursery.start_soon(late, batch)
                await settled()
        assert len(told) == 1


# -- what the stream has against it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", [1, 2, 3, 4])
async def test_a_refusal_names_the_message_and_nothing_is_stored(refused: int) -> None:
    async with batches() as w:
        w.stream.hook = lambda frame: FULL if number_of(frame) == refused else None
        text = rf"message {refused}, to 's\.{refused}' of stream 'S': maximum"
        batch, error = await fails(w, errors.BatchError, text, "s.1", "s.2", "s.3", "s.4")
        assert issubclass(type(error), errors.APIError)
        assert (error.batch, error.number, error.subject) == (batch.id, refused, f"s.{refused}")
        assert (error.code, error.err_code, error.stream, error.description) == (
            400,
            10077,
            "S",
            "maximum bytes exceeded",
        )
        assert (w.stream.messages, batch.committed) == ([], False)


async def test_a_refusal_is_raised_by_each_call_that_follows_and_nothing_more_is_sent() -> None:
    async with batches() as w:
        w.stream.hook = lambda _: DISABLED
        told = []
        with pytest.raises(errors.BatchError, match="set its allow_atomic") as caught:  # noqa: PT012 - the block is what raises
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
                for _ in range(3):
                    with pytest.raises(errors.BatchError) as each:
                        await batch.publish("s.a", b"x")
                    told.append(each.value)
        assert len(w.sent) == 1
        assert len({*map(id, told), id(caught.value)}) == 4, "each has a traceback of its own"
        assert not hasattr(caught.value, "__notes__")


async def test_a_lost_compare_and_set_stores_nothing() -> None:
    async with batches() as w:
        w.stream.store("s.a", b"old", rollup=False)
        with pytest.raises(errors.BatchError, match="something else is the last message") as caught:  # noqa: PT012
            async with w.js.open_batch() as batch:
                await batch.publish("s.b", b"x")
                await batch.publish("s.a", b"y", expected_last_subject_seq=0)
        assert caught.value.err_code == WRONG_SEQUENCE["error"]["err_code"]
        assert len(w.stream.messages) == 1


async def test_a_stream_without_a_leader_is_tried_again_with_the_first_message_only() -> None:
    async with batches() as w:
        deaf = ["503", "503"]
        w.stream.hook = lambda _: deaf.pop() if deaf else None
        with takes(0.5):
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
        assert batch.committed
        assert [number_of(frame) for frame in w.sent] == [1, 1, 1, 2]
        w.stream.hook = lambda frame: "503" if number_of(frame) == 2 else None
        with takes(0):
            batch, _ = await fails(w, errors.NoStreamResponseError, r"message 2, to 's\.a': no stream", "s.a", "s.a")
        assert batch.committed is False


async def test_a_commit_of_one_message_that_nobody_hears_is_tried_again_and_then_given_up() -> None:
    async with batches() as w:
        w.stream.hook = lambda _: "503"
        with takes(0.5), pytest.raises(errors.NoStreamResponseError, match="message 1"):
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
        assert (batch.committed, len(w.sent)) == (False, 3)


async def test_left_while_it_is_to_be_tried_again_it_is_not() -> None:
    async with batches() as w:
        w.stream.hook = lambda _: "503"
        with trio.move_on_after(0.1):
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
                await trio.sleep_forever()
        await trio.sleep(1)
        assert (len(w.sent), batch.committed) == (1, False)


async def test_a_commit_that_something_strange_answers_is_looked_for() -> None:
    for strange in (b"", b"what?"):
        async with batches() as w:
            answers: list[Any] = [strange]
            w.stream.hook = lambda frame: answers.pop() if commits(frame) and answers else None  # noqa: B023
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
            assert batch.committed, "it was sent once more"
            assert w.stream.payloads("s.a") == [b"1", b"2"]


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
async def test_a_part_that_an_account_without_room_keeps_is_not_taken_for_all_of_it(told: bool) -> None:
    async with batches() as w:
        answers: list[Any] = [{**refusal(400, 10002, "resource limits exceeded for account"), "stream": "S"}, "silence"]

        def keep_a_part(frame: Frame) -> object:
            if not commits(frame) or len(answers) < 2:
                return None
            w.stream.staged.clear()
            headers = frame.headers.replace(b"Sequence: 3", b"Sequence: 2").replace(b"Nats-Batch-Commit: 1\r\n", b"")
            w.stream.store("s.a", b"x", headers=headers)
            return answers.pop(0 if told else 1)

        w.stream.hook = keep_a_part
        kind = errors.BatchError if told else errors.TimeoutError
        text = "whether the batch is stored is not known"
        batch, error = await fails(w, kind, text, "s.a", "s.a", "s.a")
        assert (batch.committed, batch.ack) == (None, None)
        assert ("a part of the batch may be stored" in str(error)) is told


async def test_a_message_that_something_strange_answers_ends_it() -> None:
    async with batches() as w:
        w.stream.hook = lambda _: b"what?"
        batch, _ = await fails(w, errors.BatchError, "no JetStream response", "s.a", "s.a")
        assert batch.committed is False


async def test_what_the_server_refuses_to_pass_on_ends_it() -> None:
    server = FakeServer(deny_publish=("s.no",))
    async with batches(server) as w:
        text = r"message 2, to 's\.no'"
        batch, error = await fails(w, errors.PermissionsViolationError, text, "s.a", "s.no", "s.a")
        assert error.subject == "s.no"
        assert (w.stream.messages, batch.committed) == ([], False)


async def test_failures_are_let_go() -> None:
    async with batches() as w:

        async def use(*subjects: str) -> None:
            async with w.js.open_batch() as batch:
                for subject in subjects:
                    await batch.publish(subject, b"x")

        async def refused() -> None:
            w.stream.hook = lambda _: FULL
            await use("s.a", "s.a", "s.a")

        async def nobody() -> None:
            await use("nobody")

        async def strange() -> None:
            w.stream.hook = on_commit(b"what?")
            await use("s.a", "s.a")

        await assert_failures_are_let_go(refused, nobody, strange)


# -- the connection ----------------------------------------------------------------------------------------------------


async def test_a_connection_that_breaks_before_the_commit_ends_it_and_nothing_is_stored() -> None:
    async with batches() as w:
        text = "before it was committed, so nothing of it is stored"
        with pytest.raises(errors.DisconnectedError, match=text) as caught:  # noqa: PT012 - the block is what raises
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
                await lose(w.server, w.nc)
                await regain(w.server, w.nc)
                with pytest.raises(errors.DisconnectedError):
                    await batch.publish("s.a", b"3")
        assert caught.value.sent
        await w.nc.flush()
        assert (w.stream.messages, batch.committed) == ([], False)


async def test_what_was_published_without_a_connection_goes_with_the_next_one() -> None:
    async with batches() as w:
        async with w.js.open_batch() as batch:
            await batch.publish("s.a", b"1")
            await lose(w.server, w.nc)
            await batch.publish("s.a", b"2")
            assert w.sent == []
            await lose(w.server, w.nc)
            await regain(w.server, w.nc)
        assert batch.committed
        assert w.stream.payloads("s.a") == [b"1", b"2"]


async def test_a_next_server_that_takes_less_ends_it() -> None:
    async with batches() as w:
        text = r"message 1, to 's\.a': \d+ bytes are more than the new server"
        with pytest.raises(errors.MaxPayloadError, match=text):  # noqa: PT012 - the block is what raises
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", bytes(1000))
                await lose(w.server, w.nc)
                await batch.publish("s.a", b"2")
                w.server.info["max_payload"] = 500
                await regain(w.server, w.nc)
        assert (batch.committed, w.sent) == (False, [])


async def test_a_last_message_that_a_next_server_does_not_take_ends_it() -> None:
    async with batches() as w:
        with pytest.raises(errors.MaxPayloadError, match=r"publish to 's\.a': \d+ bytes of"):  # noqa: PT012
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", bytes(1000))
                w.server.info["max_payload"] = 500
                await lose(w.server, w.nc)
                await regain(w.server, w.nc)
        assert (batch.committed, w.sent) == (False, [])


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not yet"])
@pytest.mark.parametrize("count", [2, 3])
async def test_a_commit_behind_which_the_connection_breaks_is_found_out(stored: bool, count: int) -> None:
    """What was stored is found; what was not is stored by the commit that is sent once more."""
    async with batches() as w:

        def cut(frame: Frame) -> object:
            if not commits(frame) or len(w.server.links) > 1:
                return None
            if stored:
                w.stream.take(frame)
            w.server.cut()
            return "silence"

        w.stream.hook = cut
        async with w.js.open_batch() as batch:
            for number in range(count):
                await batch.publish("s.a", b"%d" % number)
        assert batch.committed
        assert batch.ack is not None
        ack = batch.ack
        assert (ack.stream, ack.seq, ack.batch, ack.count) == ("S", count, batch.id, count)
        assert w.stream.payloads("s.a") == [b"%d" % number for number in range(count)], "and once"


async def test_a_single_message_behind_which_the_connection_breaks_is_found_out_and_never_stored_twice() -> None:
    async with batches() as w:

        def cut(frame: Frame) -> object:
            if len(w.server.links) > 1:
                return None
            w.stream.take(frame)
            w.server.cut()
            return "silence"

        w.stream.hook = cut
        async with w.js.open_batch() as batch:
            await batch.publish("s.a", b"1")
        assert batch.committed
        assert batch.ack is not None
        assert (batch.ack.seq, batch.ack.count) == (1, 1)
        assert w.stream.payloads("s.a") == [b"1"]


async def commit_into_the_dark(w: BatchWorld, count: int = 2, *, touched: bool = False) -> Batch:
    """Commit, with a server that forgets all of it, as one does that is restarted."""

    def cut(frame: Frame) -> object:
        if not commits(frame) or len(w.server.links) > 1:
            return None
        w.stream.staged.clear()
        if touched:
            w.stream.stored_at = trio.current_time()
        w.server.cut()
        return "silence"

    w.stream.hook = cut
    await trio.sleep(10)
    text = "behind its commit, whose reply will not come"
    batch, error = await fails(w, errors.DisconnectedError, text, *["s.a"] * count)
    assert error.sent
    said = "nothing of it is stored" if batch.committed is False else "whether the batch is stored is not known"
    assert said in str(error)
    return batch


async def test_what_is_not_there_though_nothing_was_stored_since_is_not_stored() -> None:
    async with batches() as w:
        assert (await commit_into_the_dark(w)).committed is False


async def test_a_commit_that_is_refused_when_it_is_sent_again_is_as_if_it_had_been_refused_at_once() -> None:
    async with batches() as w:

        def cut(frame: Frame) -> object:
            if not commits(frame) or len(w.server.links) > 1:
                return None
            w.stream.store("s.a", b"another's", rollup=False)
            w.server.cut()
            return "silence"

        w.stream.hook = cut
        made: list[Batch] = []

        async def use() -> None:
            async with w.js.open_batch() as batch:
                made.append(batch)
                await batch.publish("s.a", b"1", expected_last_subject_seq=0)
                await batch.publish("s.b", b"2")

        with pytest.raises(errors.BatchError, match="something else is the last message") as caught:
            await use()
        assert (caught.value.err_code, made[0].committed) == (10071, False)
        assert w.stream.payloads("s.>") == [b"another's"]


async def test_where_others_have_stored_something_since_it_stays_unknown() -> None:
    async with batches() as w:
        assert (await commit_into_the_dark(w, touched=True)).committed is None


async def test_of_a_single_message_its_absence_proves_nothing() -> None:
    async with batches() as w:
        assert (await commit_into_the_dark(w, 1)).committed is None


async def test_a_stream_of_several_replicas_is_looked_at_for_a_while_and_its_silence_proves_nothing() -> None:
    async with batches() as w:
        w.stream.replicas = 3
        assert (await commit_into_the_dark(w)).committed is None
        assert len(w.server.sent("PUB", "$JS.API.STREAM.MSG.GET.S")) == 4


@pytest.mark.parametrize("denied", ["$JS.API.STREAM.MSG.GET.S", "$JS.API.STREAM.INFO.S", "$JS.API.STREAM.>"])
async def test_who_may_not_look_is_told_that_it_is_not_known(denied: str) -> None:
    async with batches(FakeServer(deny_publish=(denied,))) as w:
        expected = False if "MSG" in denied else None
        assert (await commit_into_the_dark(w)).committed is expected


async def test_a_stream_that_is_gone_says_nothing() -> None:
    async with batches() as w:
        w.server.on("$JS.API.STREAM.INFO.S", lambda _: GONE, first=True)
        w.server.on("$JS.API.STREAM.MSG.GET.S", lambda _: GONE, first=True)
        assert (await commit_into_the_dark(w)).committed is None


async def test_a_server_that_may_know_no_batches_is_not_given_a_single_message_twice() -> None:
    async with batches(FakeServer(deny_publish=("$JS.API.INFO",))) as w:
        assert (await commit_into_the_dark(w, 1)).committed is None
        assert len(w.sent) == 1


async def test_without_another_connection_it_stays_unknown_and_ends_in_time() -> None:
    async with batches() as w:
        w.stream.hook = on_commit("silence")

        async def cut() -> None:
            await trio.sleep(1)
            w.server.accepting = False
            w.server.cut()

        w.nursery.start_soon(cut)
        with takes(5):
            batch, _ = await fails(w, errors.DisconnectedError, "behind its commit", "s.a", "s.a")
        assert batch.committed is None
        await regain(w.server, w.nc)
        assert len(w.sent) == 2, "what was asked meanwhile was taken back"


async def test_another_connection_that_breaks_or_has_no_stream_yet_is_not_the_end_of_finding_out() -> None:
    async with batches() as w:

        def cut(frame: Frame) -> object:
            links = len(w.server.links)
            if not commits(frame) or links > 3:
                return None
            if links == 3 and len(w.sent) < 5:
                return "503"
            if links < 3:
                w.server.cut()
                return "silence"
            return None

        w.stream.hook = cut
        async with w.js.open_batch() as batch:
            await batch.publish("s.a", b"1")
            await batch.publish("s.a", b"2")
        assert batch.committed
        assert len(w.stream.messages) == 2


@pytest.mark.parametrize("known", [True, False])
async def test_a_reply_that_does_not_come_is_found_out_when_its_time_is_over(known: bool) -> None:
    async with batches() as w:
        silent = ["lost" if known else "silence"]
        w.stream.hook = lambda frame: silent.pop() if commits(frame) and silent else None
        with takes(5):
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
        assert batch.committed
        assert len(w.stream.messages) == 2


async def test_a_stream_that_stays_silent_leaves_it_unknown() -> None:
    async with batches() as w:
        w.stream.hook = on_commit("silence")
        with takes(7):
            batch, _ = await fails(w, errors.TimeoutError, "its commit: no answer within 5 s", "s.a", "s.a")
        assert batch.committed is None


async def test_a_deadline_of_the_caller_s_is_kept_to_behind_the_two_seconds() -> None:
    async with batches() as w:
        w.stream.hook = on_commit("silence")
        with takes(8), trio.move_on_after(8) as scope:
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
        assert scope.cancelled_caught
        assert batch.committed is None


async def test_a_client_that_is_closed_ends_it() -> None:
    async with batches() as w:
        with pytest.raises(errors.ConnectionClosedError, match="the client was closed"):  # noqa: PT012
            async with w.js.open_batch() as batch:
                await batch.publish("s.a", b"1")
                await batch.publish("s.a", b"2")
                await w.nc.aclose()
        assert batch.committed is False
        with pytest.raises(errors.ConnectionClosedError):
            async with w.js.open_batch():
                pytest.fail("it was opened")


async def test_a_client_that_is_closed_behind_the_commit_leaves_it_unknown() -> None:
    async with batches() as w:
        w.stream.hook = on_commit("silence")

        async def close() -> None:
            await trio.sleep(1)
            await w.nc.aclose()

        w.nursery.start_soon(close)
        batch, _ = await fails(w, errors.ConnectionClosedError, "the client was closed", "s.a", "s.a")
        assert batch.committed is None


async def test_a_refused_inbox_ends_it() -> None:
    async with batches() as w:
        async with w.js.open_batch():
            pass
        w.server.deny_subscribe = ("_INBOX.>",)  # but for that of the request for the level, which was granted
        batch, _ = await fails(w, errors.PermissionsViolationError, "batch ", "s.a", "s.a", "s.a")
        assert batch.committed is False


async def test_a_drain_waits_for_the_replies_to_a_batch() -> None:
    async with batches() as w:
        async with w.js.open_batch() as batch:
            await batch.publish("s.a", b"1")
            await batch.publish("s.a", b"2")
            w.nc.drain_nowait()
        assert batch.committed
        assert len(w.stream.messages) == 2


async def test_behind_a_planned_move_nothing_overtakes() -> None:
    """What is under way over the old connection is answered before the new one is used."""
    hosts = Hosts("a", "b")
    hosts["b"].info["server_id"] = "B"
    stream = FakeBatches(hosts["a"], "S", "s")
    hosts["b"].on("s.>", stream.take)
    stream.hook = lambda frame: "lost" if number_of(frame) == 2 else None
    async with watched(hosts) as (_, nc, rx):
        async with nc.jetstream().open_batch() as batch:
            for number in range(3):
                await batch.publish("s.a", b"%d" % number)
            await settled()
            hosts["a"].announce(ldm=True)
            await next_event(rx, events.Moved)
            with trio.move_on_after(1) as scope:
                await batch.publish("s.a", b"3")
            assert scope.cancelled_caught
            hosts["a"].publish(hosts["a"].sent("HPUB", "s.a")[1].reply)
            await batch.publish("s.a", b"3")
        assert batch.committed
        assert [number_of(frame) for frame in hosts["b"].sent("HPUB")] == [3, 4]
        assert [int(payload) for payload in stream.payloads("s.a")] == list(range(4))


# -- a certain domain --------------------------------------------------------------------------------------------------


async def test_where_a_domain_was_asked_for_only_its_acknowledgement_counts() -> None:
    async with batches(domain="D") as w, open_events(w.nursery, w.nc) as told:

        def also(frame: Frame) -> object:
            said = w.stream.take(frame)
            if not commits(frame):
                w.server.publish(frame.reply, json.dumps(DISABLED).encode())
                return said
            elsewhere = {"stream": "E", "seq": 9, "domain": "other", "batch": batch.id, "count": 2}
            w.server.publish(frame.reply, json.dumps(elsewhere).encode())
            return {**said, "domain": "D"}

        w.stream.hook = also
        async with w.js.open_batch() as batch:
            await batch.publish("s.a", b"1")
            await batch.publish("s.a", b"2")
        assert batch.ack is not None
        assert (batch.ack.stream, batch.ack.domain, batch.committed) == ("S", "D", True)
        event = await next_event(told, events.StoredElsewhere)
        assert (event.stream, event.domain) == ("E", "other")


async def test_a_refusal_with_nothing_better_behind_it_counts_in_a_domain_too() -> None:
    async with batches(domain="D") as w:
        w.stream.hook = lambda _: DISABLED
        batch, _ = await fails(w, errors.BatchError, "atomic publish is disabled", "s.a", "s.a")
        assert batch.committed is False


async def test_a_domain_that_does_not_answer_where_another_one_has_stored_it_is_told() -> None:
    async with batches(domain="D") as w:
        w.stream.hook = lambda _: {"stream": "E", "seq": 9, "domain": "other"}
        text = "no stream in domain 'D' has answered, but one in 'other'"
        batch, _ = await fails(w, errors.NoStreamResponseError, text, "s.a", "s.a")
        assert batch.committed is False
