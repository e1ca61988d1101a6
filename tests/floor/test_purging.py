"""What a store leaves behind: a put or a delete that is cancelled, refused, cut off or believed too early, and what is purged then."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio

from tests.cancelling import Cut, cancel_everywhere
from tests.fake_jetstream import FULL, UNAVAILABLE, WRONG_SEQUENCE, FakeObjects, refusal
from tests.fakes import NO_RESPONDERS, Frame, matches
from tests.worlds import (
    assert_nothing_left,
    cut_into,
    cut_short,
    find_store,
    next_event,
    open_bucket,
    seam,
    settled,
    takes,
)
from trionats import Events, ObjectStore, errors, events, open_events
from trionats._jetstream.api import Api
from trionats._jetstream.objects import chunks
from trionats._jetstream.objects.chunks import ChunkWriter

pytestmark = pytest.mark.usefixtures("autojump_clock")


CHUNKS, METAS, PURGES = "$O.b.C.>", "$O.b.M.>", "$JS.API.STREAM.PURGE.>"
SMALL = cut_into(10)


class Frozen:
    """A server that has stopped: what is published to a pattern waits, and comes to the bucket when it thaws.

    Args:
        bucket: The bucket.
        pattern: What waits.
        meanwhile: What answers in its place.
    """

    def __init__(self, bucket: FakeObjects, pattern: str, meanwhile: object = "silence") -> None:
        self.bucket, self.pattern, self.meanwhile = bucket, pattern, meanwhile
        self.held: list[Frame] = []
        bucket.hook = self.hold

    def hold(self, frame: Frame) -> Any:  # noqa: ANN401 - whatever a hook may answer
        if not matches(self.pattern, frame.subject):
            return None
        self.held.append(frame)
        return self.meanwhile

    def thaw(self, count: int = 1000, *, silent: bool = False) -> None:
        """Work off what waits; the purges that came meanwhile were faster, as they are in the real server."""
        self.bucket.hook = lambda _: None
        for frame in self.held[:count]:
            answer = self.bucket.take(frame)
            if not silent:
                self.bucket.server.publish(frame.reply, json.dumps(answer).encode())
        del self.held[:count]
        if self.held:
            self.bucket.hook = self.hold


# -- cancelled at every step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["get", "list"])
def test_a_get_or_list_cancelled_at_any_step_leaves_nothing(what: str) -> None:
    async def scenario(cut: Cut) -> None:
        async with open_bucket() as (bucket, store, nc, _):
            bucket.add("n", *[bytes(10)] * 10)
            await cut(partial(store.get, "n") if what == "get" else store.list)
            assert_nothing_left(nc)
            await nc.flush()
            assert not bucket.consumers

    assert cancel_everywhere(scenario, ways=["woken"])["woken"] >= 2


def test_a_put_cancelled_at_any_step_is_whole_or_has_left_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No orphaned chunks, and the old object stays readable; a whole new one is the other honest outcome."""
    monkeypatch.setattr(chunks, "WINDOW_BYTES", 30)
    outcomes = set()

    async def scenario(cut: Cut) -> None:
        async with open_bucket() as (bucket, store, nc, _):
            await store.put("n", b"old")
            await cut(store.put, "n", bytes(300), SMALL)
            await nc.flush()
            outcomes.add(bucket.contents()["n"])
            assert nc.statistics().pending_requests == 0

    assert cancel_everywhere(scenario, ways=["woken"])["woken"] > 10
    assert outcomes == {b"old", bytes(300)}


def test_a_delete_cancelled_at_any_step_is_done_or_not_begun() -> None:
    """Never an info without its chunks."""
    outcomes = set()

    async def scenario(cut: Cut) -> None:
        async with open_bucket() as (bucket, store, nc, _):
            await store.put("n", b"data")
            await cut(store.delete, "n")
            await nc.flush()
            outcomes.add(frozenset(bucket.contents().items()))
            assert len(bucket.metas) == 1

    cancel_everywhere(scenario, ways=["woken"])
    assert outcomes == {frozenset(), frozenset({("n", b"data")})}


async def test_a_put_or_delete_in_a_cancelled_scope_sends_nothing() -> None:
    async with open_bucket() as (bucket, store, nc, _):
        await nc.flush()
        before = len(bucket.server.frames)
        calls: list[Callable[[], Any]] = [partial(store.put, "n", b"data"), partial(store.delete, "n")]
        for call in calls:
            await cut_short(call, after=0)
        await settled()
        assert len(bucket.server.frames) == before


@pytest.mark.parametrize("outcome", ["stored", "refused", "never known"])
async def test_a_put_cancelled_while_its_info_is_under_way_waits_for_what_becomes_of_it(outcome: str) -> None:
    """To purge the chunks of an object that was stored would be worse than to leave those of one that was not."""
    async with open_bucket() as (bucket, store, nc, nursery):
        await store.put("n", b"old")
        replies: list[str] = []

        def late(frame: Frame) -> str | None:
            if not matches(METAS, frame.subject):
                return None
            replies.append(frame.reply)
            return "silence" if outcome == "refused" else "lost"

        async def cancel_and_answer() -> None:
            await trio.sleep(1)
            scope.cancel()
            await trio.sleep(1)
            if outcome != "never known":
                answer = FULL if outcome == "refused" else {"stream": "OBJ_b", "seq": bucket.last}
                bucket.server.publish(replies[0], json.dumps(answer).encode())

        bucket.hook = late
        nursery.start_soon(cancel_and_answer)
        with trio.CancelScope() as scope:
            await store.put("n", b"newer")
        assert scope.cancelled_caught
        bucket.hook = lambda _: None
        [meta] = bucket.metas
        assert bucket.data(meta["nuid"]) == [b"old" if outcome == "refused" else b"newer"]
        assert nc.statistics().pending_requests == 0
        # What nobody found out about may leave chunks behind.
        assert bucket.chunks == (2 if outcome == "never known" else 1)


async def test_cleaning_up_takes_two_seconds_at_most() -> None:
    async with open_bucket() as (bucket, store, _, _):
        Frozen(bucket, CHUNKS)
        with takes(3), trio.move_on_after(1):
            await store.put("n", b"data")
    assert bucket.purged()


async def test_the_exception_of_the_body_is_the_one_that_comes_out() -> None:
    async with open_bucket() as (bucket, _, nc, _):

        async def no_smaller(refusal: errors.Error, length: int) -> int:
            raise refusal

        writer = ChunkWriter(Api(seam(nc)), "OBJ_b", "$O.b.C.x", "a test", 1, smaller=no_smaller, stored=lambda _: None)
        bucket.hook = lambda _: "503"
        await writer.write(b"1")
        with pytest.raises(errors.NoStreamResponseError):
            await writer.finish()
        await writer.abandon()
    assert not bucket.messages


# -- what comes late ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 10])
async def test_chunks_that_are_stored_after_a_cancelled_put_are_purged_when_they_are(count: int) -> None:
    """The purge overtakes what is on its way; the acknowledgements say when to purge again, be they together or not."""
    async with open_bucket() as (bucket, store, nc, _):
        await store.put("n", b"old")
        frozen = Frozen(bucket, CHUNKS)
        await cut_short(store.put, "n", bytes(100), SMALL)
        assert trio.current_time() < 3.5, "leaving is bounded"
        assert nc.statistics().pending_requests == 0
        while frozen.held:
            await trio.sleep(600)
            frozen.thaw(count)
        await trio.sleep(1)
        assert bucket.contents() == {"n": b"old"}
        # And then it is over.
        purges = bucket.purged()
        await trio.sleep(1000)
        assert bucket.purged() == purges


@pytest.mark.parametrize("drained", [True, False])
async def test_a_client_that_drains_or_closes_does_not_wait_for_late_chunks(drained: bool) -> None:
    async with open_bucket() as (bucket, store, nc, _):
        Frozen(bucket, CHUNKS)
        with trio.move_on_after(1):
            await store.put("n", bytes(100), SMALL)
        start = trio.current_time()
        if drained:
            await nc.drain()
    assert trio.current_time() - start < 1
    assert bucket.purged()


async def cut_off(bucket: FakeObjects) -> None:
    """Lose the connection, and be refused once before there is another one."""
    await trio.sleep(1)
    bucket.server.dials = ["refuse"]
    bucket.server.cut()


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled and then cut off", "cut off"])
async def test_chunks_whose_acknowledgements_were_lost_with_the_connection_are_purged_behind_the_next_one(
    cancelled: bool,
) -> None:
    """Nothing says when they arrive, so one more purge follows."""
    async with open_bucket(reconnect_delay=lambda _: 50.0) as (bucket, store, nc, nursery):
        frozen = Frozen(bucket, CHUNKS)
        if not cancelled:
            nursery.start_soon(cut_off, bucket)
        with trio.move_on_after(1 if cancelled else 1000), suppress(errors.DisconnectedError):
            await store.put("n", bytes(100), SMALL)
        if cancelled:
            await cut_off(bucket)
        assert trio.current_time() < 4.5
        await settled()
        assert not nc.is_connected
        await nc.wait_connected()
        # The server reads what was left in its socket a moment after it has answered the purge.
        await trio.sleep(1)
        frozen.thaw(silent=True)
        assert bucket.chunks == 10
        await trio.sleep(10)
        assert bucket.chunks == 0


@pytest.mark.parametrize("outcome", ["stored", "refused", "deleted"])
async def test_an_info_or_marker_that_is_acknowledged_after_all_has_its_chunks_or_those_before_it_purged(
    outcome: str,
) -> None:
    """Cancelled in its last step, and the server stands still for longer than anybody waits."""
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", b"old")
        frozen = Frozen(bucket, METAS)
        await (cut_short(store.delete, "n") if outcome == "deleted" else cut_short(store.put, "n", b"newer"))
        assert bucket.chunks == (1 if outcome == "deleted" else 2), "it is not known which is to go"
        await trio.sleep(100)
        if outcome == "refused":
            bucket.forget(METAS)
        frozen.thaw()
        await trio.sleep(1)
        assert bucket.chunks == (0 if outcome == "deleted" else 1)
        if outcome == "stored":
            assert bucket.contents() == {"n": b"newer"}
        assert [meta["deleted"] for meta in bucket.metas] == {"stored": [False], "refused": [], "deleted": [True]}[
            outcome
        ]


async def test_an_info_that_never_left_us_has_its_chunks_purged() -> None:
    async with open_bucket() as (bucket, store, nc, _):
        await store.put("n", b"old")

        def stop(frame: Frame) -> None:
            if matches(CHUNKS, frame.subject):
                bucket.server.link.stall(up=True)
                # What the writer has in hand, and is not through with.
                nc.publish_nowait("before")

        bucket.hook = stop
        with trio.move_on_after(1):
            await store.put("n", b"newer")
        bucket.hook = lambda _: None
        bucket.server.link.resume()
        await nc.flush()
        await trio.sleep(1)
        assert bucket.contents() == {"n": b"old"}


# -- another domain's refusals -----------------------------------------------------------------------------------------


@asynccontextmanager
async def open_far() -> AsyncGenerator[tuple[FakeObjects, ObjectStore]]:
    """A bucket, found through the domain that it is in."""
    async with open_bucket() as (bucket, _, nc, _):
        bucket.also("$JS.far.API")
        yield bucket, find_store(nc, domain="far")


async def test_another_domains_refusal_of_an_info_is_not_believed_before_the_stream_itself_was_looked_at() -> None:
    """The chunks of an info that is stored later must not be purged: the object would be listed and have no data."""
    async with open_far() as (bucket, store):
        await store.put("n", b"old")
        asleep = Frozen(bucket, METAS, WRONG_SEQUENCE)
        looks = []

        def look(frame: Frame) -> dict[str, Any]:
            answer = bucket.get(frame)
            looks.append(frame)
            if len(looks) == 2:  # the API is quicker than what was published before
                asleep.thaw(silent=True)
            return answer

        bucket.server.on("$JS.far.API.STREAM.MSG.GET.>", look, first=True)
        info = await store.put("n", b"new")
        assert info.revision == bucket.last
    assert bucket.contents() == {"n": b"new"}


async def test_another_domains_conflict_behind_a_broken_connection_purges_nothing_of_the_old_object() -> None:
    """That somebody has overtaken us, and seen to the old data, is for the stream to say."""
    async with open_far() as (bucket, store):
        old = await store.put("n", b"old")
        asleep = Frozen(bucket, METAS, WRONG_SEQUENCE)

        def hook(frame: Frame) -> Any:  # noqa: ANN401 - whatever a hook may answer
            first = not asleep.held
            answer = asleep.hold(frame)
            if first and asleep.held:
                bucket.server.cut()
                return "silence"
            return answer

        bucket.hook = hook
        with pytest.raises(errors.DisconnectedError):
            await store.put("n", b"new")
        assert len(asleep.held) > 1
        assert bucket.data(old.nuid) == [b"old"]
        assert (await store.get_info("n")).nuid == old.nuid


async def test_another_domains_refusal_that_stays_leaves_the_old_object_and_nothing_of_the_new_one() -> None:
    """Also where it says that somebody else has changed it, and the chunks are stored behind it."""
    async with open_far() as (bucket, store):
        asleep = Frozen(bucket, CHUNKS, WRONG_SEQUENCE)
        with pytest.raises(errors.BadRequestError):
            await store.put("n", b"data")
        asleep.thaw(silent=True)
        assert bucket.chunks == 1
        await trio.sleep(6)
        assert not bucket.messages
        await store.put("n", b"old")
        Frozen(bucket, METAS, WRONG_SEQUENCE)
        with pytest.raises(errors.BadRequestError, match="somebody else changed it"):
            await store.put("n", b"new")
    assert bucket.contents() == {"n": b"old"}


# -- purges that fail --------------------------------------------------------------------------------------------------


async def test_a_purge_that_nobody_answers_does_not_fail_what_is_done() -> None:
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", b"old")
        await store.put("n", b"new")
        purges = bucket.purged()
        bucket.purges = False
        with takes(1.9, 2.1):
            await store.delete("n")
        bucket.purges = True
        # Asked for once more, with nobody waiting: it may be that only the response was lost.
        await trio.sleep(30)
        assert (bucket.purged(), bucket.chunks) == (purges + 2, 0)
        await trio.sleep(100)
    assert bucket.purged() == purges + 2


async def test_a_purge_whose_response_was_lost_with_the_connection_is_asked_for_again() -> None:
    async with open_bucket(reconnect_delay=lambda _: 50.0) as (bucket, store, nc, nursery):
        await store.put("n", b"old")
        bucket.purges = False
        nursery.start_soon(cut_off, bucket)
        await store.delete("n")
        await settled()
        bucket.purges = True
        assert bucket.chunks == 1
        await nc.wait_connected()
        await nc.flush()
        assert bucket.chunks == 0


@pytest.mark.parametrize("answer", [UNAVAILABLE, None], ids=["unavailable", "nobody listens"])
async def test_a_purge_that_the_server_is_not_ready_for_is_asked_for_again(answer: dict[str, Any] | None) -> None:
    async with open_bucket() as (bucket, store, _, _):
        await store.put("n", b"old")

        def purge(frame: Frame) -> dict[str, Any] | None:
            if bucket.purged() > 2:
                return bucket.purge(frame)
            if answer is None:
                bucket.server.publish(frame.reply, headers=NO_RESPONDERS)
            return answer

        bucket.server.on(PURGES, purge, first=True)
        await store.delete("n")
        assert bucket.chunks == 1
        await trio.sleep(11)
        assert bucket.chunks == 0


async def test_a_purge_that_is_never_answered_is_given_up_and_told() -> None:
    async with open_bucket(ping_interval=10_000) as (bucket, store, nc, nursery), open_events(nursery, nc) as told:
        await store.put("n", b"data")
        bucket.purges = False
        await store.delete("n")
        event = await next_event(told, events.ChunksLeft)
        assert "deletion of object 'n' from bucket 'b': the server does not answer" in str(event.reason)
        assert 100 < trio.current_time() < 130
        await trio.sleep(1000)
        assert bucket.purged() == 4


async def test_a_purge_of_a_sealed_stream_is_an_error_and_one_of_a_stream_that_is_gone_is_done() -> None:
    for answer in (refusal(500, 10109, "invalid operation on sealed stream"), refusal(404, 10059, "stream not found")):
        async with open_bucket() as (bucket, store, _, _):
            bucket.server.on(PURGES, partial(lambda answer, _: answer, answer), first=True)
            await store.put("n", b"data")
            if answer["error"]["code"] == 404:
                await store.delete("n")
                continue
            with pytest.raises(errors.ServerError, match=r"its data stays in the bucket: .*sealed stream"):
                await store.delete("n")


@asynccontextmanager
async def open_unpurgeable() -> AsyncGenerator[tuple[FakeObjects, ObjectStore, Events]]:
    async with open_bucket() as (bucket, store, nc, nursery), open_events(nursery, nc) as told:
        bucket.server.deny_publish = (PURGES,)
        yield bucket, store, told


async def test_a_delete_that_may_not_purge_says_that_the_data_stays() -> None:
    text = r"^deletion of object 'n' from bucket 'b': it is deleted, but its data stays in the bucket: .*STREAM\.PURGE\.OBJ_b"
    async with open_unpurgeable() as (bucket, store, _):
        await store.put("n", b"data")
        for _ in range(2):
            with pytest.raises(errors.PermissionsViolationError, match=text) as caught:
                await store.delete("n")
            assert caught.value.subject == "$JS.API.STREAM.PURGE.OBJ_b"
            assert (bucket.chunks, bucket.metas[0]["deleted"]) == (1, True)
        bucket.server.deny_publish = ()
        await store.delete("n")
        assert bucket.chunks == 0


async def test_a_put_that_may_not_purge_what_it_replaced_is_done_and_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    async with open_unpurgeable() as (bucket, store, told):
        old = await store.put("n", b"old")
        info = await store.put("n", b"new")
        event = await next_event(told, events.ChunksLeft)
        assert (event.stream, event.subject) == ("OBJ_b", f"$O.b.C.{old.nuid}")
        assert isinstance(event.reason, errors.PermissionsViolationError)
        assert bucket.data(info.nuid) == [b"new"]
        assert "data of no object stays in stream 'OBJ_b', at '$O.b.C." in caplog.text


async def test_a_failed_put_and_a_cancelled_delete_that_may_not_purge_end_as_they_would_and_tell_it() -> None:
    async with open_unpurgeable() as (bucket, store, told):
        bucket.answer(CHUNKS, None, FULL)
        with pytest.raises(errors.BadRequestError, match="maximum bytes exceeded"):
            await store.put("n", bytes(100), SMALL)
        assert (await next_event(told, events.ChunksLeft)).stream == "OBJ_b"
        assert bucket.chunks
    async with open_unpurgeable() as (bucket, store, told):
        await store.put("n", b"data")
        with trio.CancelScope() as scope:
            bucket.hook = lambda frame: scope.cancel() if matches(METAS, frame.subject) else None
            await store.delete("n")
        assert scope.cancelled_caught
        assert (await next_event(told, events.ChunksLeft)).stream == "OBJ_b"
        assert (bucket.chunks, bucket.metas[0]["deleted"]) == (1, True)


# -- the last step, and nobody waits any more --------------------------------------------------------------------------

#: What became of the info that was under way when the connection broke, and what is to be there in the end, in place of b"old".
FATES = {
    "stored": b"newer",
    "lost": b"newer",
    "on its way": b"newer",
    "a rival was faster": b"rival's",
    "stored and edited": b"newer",
    "stored and replaced": b"rival's",
}


def cut_off_with_an_info_under_way(bucket: FakeObjects, fate: str, late: list[Frame]) -> None:
    """Break the connection with the next info; whoever waits for it is to be cancelled in that moment."""

    def cut(frame: Frame) -> str | None:
        if not matches(METAS, frame.subject):
            return None
        bucket.hook = lambda _: None
        if fate == "a rival was faster":
            bucket.add("n", b"rival's")
        if fate.startswith("stored"):
            bucket.take(frame)
        if fate == "on its way":
            late.append(frame)
        if fate == "stored and edited":
            bucket.store(frame.subject, frame.payload.replace(b'"name"', b'"description":"x","name"'))
        if fate == "stored and replaced":
            # As any client does it.
            replaced = json.loads(frame.payload)["nuid"]
            bucket.add("n", b"rival's")
            bucket.forget(f"$O.b.C.{replaced}")
        bucket.server.dials = ["refuse", "refuse"]
        bucket.server.cut()
        return "silence"

    bucket.hook = cut


@pytest.mark.parametrize("fate", FATES)
async def test_a_put_cancelled_in_its_last_step_as_the_connection_breaks_leaves_nothing_behind_the_next_one(
    fate: str,
) -> None:
    """Neither the old chunks nor the new ones; it may happen then."""
    async with open_bucket(reconnect_delay=lambda _: 50.0) as (bucket, store, nc, _):
        await store.put("n", b"old")
        late: list[Frame] = []
        cut_off_with_an_info_under_way(bucket, fate, late)
        await cut_short(store.put, "n", b"newer")
        assert not nc.is_connected
        await nc.wait_connected()
        for frame in late:
            bucket.take(frame)  # refused, or stored once
        await trio.sleep(10)
        assert bucket.contents() == {"n": FATES[fate]}
        assert len(bucket.metas) == 1
        assert_nothing_left(nc)


@pytest.mark.parametrize("fate", ["stored", "lost", "on its way"])
async def test_a_delete_cancelled_in_its_last_step_as_the_connection_breaks_leaves_nothing_behind_the_next_one(
    fate: str,
) -> None:
    async with open_bucket(reconnect_delay=lambda _: 50.0) as (bucket, store, nc, _):
        await store.put("n", b"old")
        late: list[Frame] = []
        cut_off_with_an_info_under_way(bucket, fate, late)
        await cut_short(store.delete, "n")
        await nc.wait_connected()
        for frame in late:
            bucket.take(frame)
        await trio.sleep(10)
        assert bucket.contents() == {}
        assert [meta["deleted"] for meta in bucket.metas] == [True]
        assert_nothing_left(nc)


@pytest.mark.parametrize("connected", [True, False], ids=["behind the next connection", "before"])
async def test_a_client_that_is_closed_does_not_wait_for_what_becomes_of_an_info(connected: bool) -> None:
    async with open_bucket(reconnect_delay=lambda _: 50.0) as (bucket, store, nc, _):
        await store.put("n", b"old")
        cut_off_with_an_info_under_way(bucket, "lost", [])
        with trio.move_on_after(1):
            await store.put("n", b"newer")
        if connected:
            Frozen(bucket, METAS)
            await nc.wait_connected()
            await trio.sleep(1)
        with takes(0, 2.5):
            await nc.aclose()
        await trio.sleep(1000)
        assert_nothing_left(nc)
        assert [bucket.data(meta["nuid"]) for meta in bucket.metas] == [[b"old"]]


@pytest.mark.parametrize("answer", ["silence", UNAVAILABLE, FULL, "503", "emptied", "no stream"], ids=str)
async def test_an_info_in_doubt_of_which_the_server_never_says_anything_is_given_up_and_told(answer: object) -> None:
    async with (
        open_bucket(ping_interval=10_000, reconnect_delay=lambda _: 50.0) as (bucket, store, nc, nursery),
        open_events(nursery, nc) as told,
    ):
        await store.put("n", b"old")
        cut_off_with_an_info_under_way(bucket, "lost", [])
        await cut_short(store.put, "n", b"newer")
        if answer == "emptied":
            bucket.forget(METAS)
        elif answer == "no stream":
            bucket.answer(METAS, *[FULL] * 1000)
            bucket.server.on("$JS.API.STREAM.MSG.GET.>", lambda _: refusal(404, 10059, "stream not found"), first=True)
        else:
            bucket.answer(METAS, *[answer] * 1000)
        event = await next_event(told, events.ChunksLeft)
        assert "put of object 'n' into bucket 'b': the server does not say what became of it" in str(event.reason)
        assert (event.stream, event.subject.rpartition(".")[0]) == ("OBJ_b", "$O.b.C")
        assert 150 < trio.current_time() < 1000
        bucket.hook = lambda _: None
        await trio.sleep(1000)
        assert bucket.chunks == 2
        assert [bucket.data(meta["nuid"]) for meta in bucket.metas] == ([] if answer == "emptied" else [[b"old"]])
        assert nc.statistics().pending_requests == 0


async def test_an_answer_that_comes_when_the_info_was_sent_once_more_changes_nothing() -> None:
    async with open_bucket(ping_interval=10_000, reconnect_delay=lambda _: 50.0) as (bucket, store, nc, _):
        await store.put("n", b"old")
        cut_off_with_an_info_under_way(bucket, "lost", [])
        await cut_short(store.put, "n", b"newer")
        frozen = Frozen(bucket, METAS)
        await nc.wait_connected()
        await trio.sleep(40)
        assert len(frozen.held) == 2
        frozen.thaw()
        await trio.sleep(10)
        assert bucket.contents() == {"n": b"newer"}
        assert_nothing_left(nc)
