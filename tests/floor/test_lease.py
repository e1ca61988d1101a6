"""Holding a key in memory: what is written when, who has it next, and how its loss ends the block."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from math import inf
from typing import Any

import pytest
import trio
import trio.testing

from tests.fake_jetstream import FULL, WRONG_SEQUENCE_OF_SEVERAL, Stored
from tests.fakes import Frame
from tests.worlds import KeysWorld, forgets_callers, lose, nursery_elsewhere, open_keys, regain, settled, takes
from trionats import Lease, errors, open_lease

pytestmark = pytest.mark.usefixtures("autojump_clock")

LOST = errors.LeaseLostError
TTL = 3


@asynccontextmanager
async def open_bucket_for_leases(**options: Any) -> AsyncIterator[KeysWorld]:  # noqa: ANN401 - those of `open_keys`
    """A bucket that can hold leases; what was silent in it answers again at the end."""
    async with open_keys(**{"limit_marker_ttl": 5, "timed": True, **options}) as w:
        yield w
        with suppress(errors.ConnectionClosedError):
            await w.nc.flush()
            assert not w.bucket.consumers


def of(w: KeysWorld, ttl: float = TTL, **more: Any) -> Any:  # noqa: ANN401 - what open_lease takes and gives
    return open_lease(w.nursery, w.kv, "k", ttl=ttl, **more)


def last(w: KeysWorld) -> Stored | None:
    """What stands under the key."""
    return next((m for m in reversed(w.bucket.messages) if m.subject == "$KV.b.k"), None)


def held(w: KeysWorld) -> bool:
    return "k" in w.bucket.values()


def writes(w: KeysWorld) -> list[Frame]:
    return w.server.sent("HPUB", "$KV.b.k")


async def hold(w: KeysWorld, entered: list[float], seconds: float = 0, ttl: float = TTL) -> None:
    """Wait for the lease, note when it came, and hold it for so long."""
    async with of(w, ttl):
        entered.append(trio.current_time())
        await trio.sleep(seconds)


async def waiting(w: KeysWorld, count: int = 1, ttl: float = TTL) -> list[float]:
    """Let so many wait for the lease; gives when they came to it."""
    entered: list[float] = []
    before = len(w.bucket.consumers)
    for _ in range(count):
        w.nursery.start_soon(hold, w, entered, 0, ttl)
    while len(w.bucket.consumers) < before + count:
        await settled()
    await w.nc.flush()
    return entered


# -- holding it ----------------------------------------------------------------------------------------------------------


def shown_elsewhere(lease: Lease) -> str:
    """What it says of itself in a thread; a thread of Trio's would let the clock jump meanwhile."""
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(repr(lease)))
    thread.start()
    thread.join()
    return said[0]


async def test_what_a_lease_says_of_itself_in_threads_and_after_its_block() -> None:
    async with open_bucket_for_leases() as w:
        async with of(w) as lease:
            assert shown_elsewhere(lease) == "<Lease of 'k' in 'b', revision 1, held>"
        for wait in (0, 2 * TTL):
            await trio.sleep(wait)
            assert repr(lease) == "<Lease of 'k' in 'b', revision 1, left>"
        with pytest.raises(errors.LeaseLostError):  # noqa: PT012 - the block is what raises
            async with of(w) as lost:
                w.bucket.set("k", b"theirs")
                await trio.sleep(TTL)
        assert shown_elsewhere(lost) == f"<Lease of 'k' in 'b', revision {lost.revision}, lost>"


@forgets_callers
async def test_a_lease_that_was_lost_leaves_no_cycle_behind() -> None:
    async with open_bucket_for_leases() as w:

        async def lose_one() -> weakref.ref[BaseException]:
            try:
                async with of(w):
                    w.bucket.forget("$KV.b.k")
                    await trio.sleep(TTL)
            except errors.LeaseLostError as lost:
                # It is not to be kept by what pytest remembers.
                return weakref.ref(lost.__cause__ or lost)
            pytest.fail("it was not lost")

        await lose_one()
        gc.collect()
        gc.disable()
        try:
            cause = await lose_one()
            await trio.testing.wait_all_tasks_blocked()
            assert cause() is None
        finally:
            gc.enable()


async def test_a_lease_is_renewed_in_each_third_of_its_ttl_and_leaves_a_marker_that_vanishes() -> None:
    async with open_bucket_for_leases() as w:
        async with of(w, value="host 7") as lease:
            assert isinstance(lease, Lease)
            assert (lease.bucket, lease.key, lease.ttl, lease.value, lease.revision) == ("b", "k", 3, b"host 7", 1)
            assert repr(lease) == "<Lease of 'k' in 'b', revision 1, held>"
            for number in range(1, 5):
                assert lease.deadline == pytest.approx(trio.current_time() + TTL, abs=0.001)
                assert w.bucket.values() == {"k": b"host 7"}
                await trio.sleep(1.0001)
                found = last(w)
                assert found is not None
                assert found.sequence == number + 1
                assert found.fields["Nats-TTL"] == "3s"
                assert found.fields["Nats-Expected-Last-Subject-Sequence"] == str(number)
            # The fencing token is that of the first.
            assert lease.revision == 1
        marker = last(w)
        assert marker is not None
        assert (marker.sequence, marker.fields["KV-Operation"], marker.fields["Nats-TTL"]) == (6, "PURGE", "3s")
        await trio.sleep(TTL + 0.1)
        assert w.bucket.messages == []


async def test_a_key_that_was_deleted_expired_or_given_back_is_taken_over_its_marker() -> None:
    async with open_bucket_for_leases() as w:
        revisions = []
        for marker in ("DEL", "PURGE", "MaxAge", "Remove", None):
            if marker is not None:
                w.bucket.mark("k", marker)
            async with of(w) as lease:
                revisions.append(lease.revision)
        assert revisions == sorted(revisions)
        assert len(w.bucket.messages) == 1


async def test_what_was_put_in_is_what_stands_there_whatever_becomes_of_it() -> None:
    async with open_bucket_for_leases() as w:
        value = bytearray(b"first")
        async with of(w, value=value) as lease:
            value[:] = b"other"
            await trio.sleep(1.5)
            assert (lease.value, w.bucket.values()) == (b"first", {"k": b"first"})


@pytest.mark.parametrize("how", ["returns", "fails", "is cancelled"])
async def test_it_is_given_back_however_the_block_ends(how: str) -> None:
    async with open_bucket_for_leases() as w:
        with trio.CancelScope() as scope:
            with pytest.raises(LookupError) if how == "fails" else nullcontext() as mine:
                async with of(w):
                    if how == "fails":
                        raise LookupError("mine")
                    if how == "is cancelled":
                        scope.cancel()
                        await trio.sleep(1)
            assert mine is None or not hasattr(mine.value, "__notes__")
        assert not held(w)
        assert last(w) is not None


async def test_leaving_waits_for_a_renewal_under_way_and_deletes_that() -> None:
    async with open_bucket_for_leases() as w:
        async with of(w):
            w.bucket.lag = 0.4
            await trio.sleep(1.1)
            assert len(writes(w)) == 2
        assert not held(w)
        assert [frame.headers.count(b"KV-Operation") for frame in writes(w)] == [0, 0, 1]
        assert b"Sequence: 2\r\n" in writes(w)[-1].headers


async def test_leaving_is_bounded_where_the_server_is_silent() -> None:
    async with open_bucket_for_leases() as w:
        async with of(w, 30):
            w.bucket.hook = lambda _: "silence"
            begun = trio.current_time()
        assert trio.current_time() - begun == pytest.approx(2)
        assert held(w)


async def test_a_renewal_without_an_answer_does_not_hold_up_leaving_for_longer() -> None:
    async with open_bucket_for_leases() as w:
        async with of(w, 30):
            w.bucket.hook = lambda _: "silence"
            await trio.sleep(10.5)
            begun = trio.current_time()
        assert trio.current_time() - begun == pytest.approx(4)


async def test_a_renewal_that_was_stored_without_our_knowing_is_deleted_too() -> None:
    async with open_bucket_for_leases() as w:
        async with of(w, 30):
            w.bucket.hook = lambda frame: None if b"KV-Operation" in frame.headers else "lost"
            await trio.sleep(10.5)
            assert len(w.bucket.messages) == 1
        assert not held(w)


# -- losing it -----------------------------------------------------------------------------------------------------------


async def test_it_is_lost_when_no_renewal_was_confirmed_for_its_ttl_counted_from_its_sending() -> None:
    async with open_bucket_for_leases() as w:
        w.bucket.lag = 0.5
        begun = trio.current_time()
        with pytest.raises(LOST, match="it was not renewed within 3 s: its last renewal: no answer within 1 s") as lost:  # noqa: PT012 - the block is what raises
            async with of(w) as lease:
                # Not from when it came to be known.
                assert trio.current_time() - begun == pytest.approx(0.5)
                assert lease.deadline - begun == pytest.approx(3)
                w.bucket.hook = lambda _: "silence"
                try:
                    await trio.sleep_forever()
                finally:
                    ended = trio.current_time()
        assert ended - begun == pytest.approx(3)
        assert (lost.value.bucket, lost.value.key) == ("b", "k")
        assert str(lost.value) == f"lease of key 'k' in bucket 'b' was lost: {lost.value.why}"
        assert isinstance(lost.value.__cause__, errors.TimeoutError)


async def test_a_refusal_that_stays_costs_the_lease_and_is_its_reason() -> None:
    async with open_bucket_for_leases() as w:
        with pytest.raises(LOST, match="maximum bytes exceeded"):  # noqa: PT012 - the block is what raises
            async with of(w):
                w.bucket.hook = lambda frame: None if b"KV-Operation" in frame.headers else FULL
                await trio.sleep_forever()
        assert not held(w)


@pytest.mark.parametrize("answer", [FULL, "503", "silence", "lost"])
async def test_one_renewal_that_fails_costs_nothing(answer: Any) -> None:  # noqa: ANN401 - whatever a hook may answer
    async with open_bucket_for_leases() as w:
        async with of(w):
            await trio.sleep(0.9)
            w.bucket.answer("$KV.b.k", answer)
            await trio.sleep(10)
        assert not held(w)


async def test_a_conflict_of_several_replicas_is_looked_at_like_that_of_one() -> None:
    async with open_bucket_for_leases() as w:
        w.bucket.conflict = WRONG_SEQUENCE_OF_SEVERAL
        async with of(w):
            w.bucket.answer("$KV.b.k", "lost")
            await trio.sleep(10)
        with pytest.raises(LOST, match="somebody else holds it"):  # noqa: PT012 - the block is what raises
            async with of(w):
                w.bucket.set("k")
                await trio.sleep(10)


@pytest.mark.parametrize(
    ("done", "why"),
    [
        ("set", r"somebody else holds it \(revision 2\)"),
        ("DEL", r"it was deleted \(revision 2\)"),
        ("MaxAge", "it expired before a renewal of it came"),
        ("forget", "nothing stands there any more"),
    ],
)
async def test_who_replaces_or_deletes_it_ends_the_block_at_the_next_renewal(done: str, why: str) -> None:
    async with open_bucket_for_leases() as w:
        begun = trio.current_time()
        with pytest.raises(LOST, match=why) as lost:  # noqa: PT012 - the block is what raises
            async with of(w) as lease:
                if done == "set":
                    w.bucket.set("k", b"theirs")
                elif done == "forget":
                    w.bucket.forget("$KV.b.k")
                else:
                    w.bucket.mark("k", done)
                await trio.sleep(100)
        assert trio.current_time() - begun == pytest.approx(1, abs=0.1)
        # It is theirs: nothing is deleted.
        assert w.bucket.values() == ({"k": b"theirs"} if done == "set" else {})
        assert not [frame for frame in writes(w) if b"KV-Operation" in frame.headers]
        assert (lease.deadline, repr(lease)) == (-inf, "<Lease of 'k' in 'b', revision 1, lost>")
        assert isinstance(lost.value.__cause__, errors.APIError)


async def test_who_has_it_when_it_is_given_back_is_told() -> None:
    async with open_bucket_for_leases() as w:
        with pytest.raises(LOST, match=r"when it was given back, somebody else holds it \(revision 2\)"):
            async with of(w):
                w.bucket.set("k", b"theirs")
        assert w.bucket.values() == {"k": b"theirs"}


async def test_a_connection_that_comes_back_in_time_costs_nothing() -> None:
    async with open_bucket_for_leases(client={"reconnect_time_wait": 0.1}) as w:
        async with of(w, 30):
            for away in (1, 3, 4):
                await lose(w.server, w.nc)
                await trio.sleep(away)
                await regain(w.server, w.nc)
                await trio.sleep(5)
        assert not held(w)


async def test_a_connection_that_stays_away_costs_the_lease_at_its_deadline() -> None:
    async with open_bucket_for_leases(client={"reconnect_time_wait": 0.1}) as w:
        begun = trio.current_time()
        with pytest.raises(LOST, match="not renewed within 3 s"):  # noqa: PT012 - the block is what raises
            async with of(w):
                await lose(w.server, w.nc)
                await trio.sleep(100)
        assert trio.current_time() - begun == pytest.approx(3, abs=0.1)
        await regain(w.server, w.nc)


async def test_closing_the_client_ends_it_at_the_next_renewal() -> None:
    async with open_bucket_for_leases() as w:
        with pytest.raises(LOST, match="client") as lost, takes(0, 2):  # noqa: PT012 - the block is what raises
            async with of(w):
                await w.nc.aclose()
                await trio.sleep(100)
        assert isinstance(lost.value.__cause__, errors.ConnectionClosedError)


async def test_a_cancelled_nursery_ends_a_block_that_stands_outside_it_and_the_key_is_given_back() -> None:
    async with open_bucket_for_leases() as w, nursery_elsewhere() as nursery:
        begun = trio.current_time()
        with pytest.raises(LOST, match="the nursery that was passed in was cancelled"):  # noqa: PT012 - the block is what raises
            async with open_lease(nursery, w.kv, "k", ttl=TTL):
                nursery.cancel_scope.cancel()
                await trio.sleep(100)
        assert trio.current_time() == begun
        assert not held(w)


async def test_an_exception_of_the_blocks_own_comes_out_with_a_note_of_the_loss() -> None:
    async with open_bucket_for_leases() as w:
        with pytest.raises(LookupError, match="mine") as mine:  # noqa: PT012 - the block is what raises
            async with of(w):
                w.bucket.hook = lambda _: "silence"
                try:
                    await trio.sleep(100)
                finally:
                    raise LookupError("mine")
        why = "it was not renewed within 3 s: its last renewal: no answer within 1 s"
        assert mine.value.__notes__ == [f"lease of key 'k' in bucket 'b' was lost meanwhile: {why}"]


async def test_a_group_of_the_blocks_own_comes_out_without_the_cancellation() -> None:
    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("mine")

    async with open_bucket_for_leases() as w:
        with pytest.RaisesGroup(LookupError):
            async with of(w), trio.open_nursery() as nursery:
                w.bucket.hook = lambda _: "silence"
                nursery.start_soon(fail_late)
                nursery.start_soon(trio.sleep_forever)


# -- a process that stands still -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["sleep", "checkpoint", "event"])
async def test_a_process_that_stood_still_for_too_long_is_cancelled_at_its_first_checkpoint(
    wait: str, autojump_clock: trio.testing.MockClock
) -> None:
    """While it stands still, the time goes on; all else waits until it moves again."""
    steps: list[str] = []

    async def stand_still() -> None:
        autojump_clock.jump(TTL)

    async with open_bucket_for_leases() as w:
        with pytest.raises(LOST, match="nobody answered, or this process stood still"):  # noqa: PT012 - the block is what raises
            async with of(w) as lease:
                await settled()
                if wait == "checkpoint":
                    autojump_clock.jump(TTL)
                    with pytest.raises(LOST):
                        lease.check()
                    await trio.lowlevel.checkpoint()
                else:
                    w.nursery.start_soon(stand_still)
                    await trio.sleep(0.5 if wait == "sleep" else inf)
                steps.append(wait)
        assert steps == []


async def test_a_wait_that_was_over_already_returns_once_and_a_check_tells(
    autojump_clock: trio.testing.MockClock,
) -> None:
    steps: list[str] = []
    ready = trio.Event()

    async def wake_and_stand_still() -> None:
        ready.set()
        autojump_clock.jump(TTL)

    async with open_bucket_for_leases() as w:
        with pytest.raises(LOST, match="this process stood still"):  # noqa: PT012 - the block is what raises
            async with of(w) as lease:
                w.nursery.start_soon(wake_and_stand_still)
                await ready.wait()
                steps.append("woken")
                with pytest.raises(LOST):
                    lease.check()
                await trio.lowlevel.checkpoint_if_cancelled()
                steps.append("went on")
        assert steps == ["woken"]


async def test_a_block_that_never_looks_up_is_told_at_its_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket_for_leases() as w:
        with pytest.raises(LOST, match="this process stood still"):
            async with of(w):
                autojump_clock.jump(TTL)
        assert not held(w)


async def test_what_is_checked_raises_in_the_block_and_after_it(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bucket_for_leases() as w:
        async with of(w) as lease:
            lease.check()
            autojump_clock.jump(TTL - 0.01)
            lease.check()
        with pytest.raises(LOST, match="its block was left"):
            lease.check()
        with pytest.raises(LOST, match="not renewed") as lost:  # noqa: PT012 - the block is what raises
            async with of(w) as lease:
                autojump_clock.jump(TTL)
                lease.check()
        assert not hasattr(lost.value, "__notes__")


# -- waiting for it ---------------------------------------------------------------------------------------------------------


async def test_the_next_one_has_it_within_a_moment_and_asks_for_nothing_meanwhile() -> None:
    async with open_bucket_for_leases() as w:
        async with of(w, 60):
            entered = await waiting(w)
            asked = len(w.server.sent("PUB", "$JS.API.STREAM.>"))
            await trio.sleep(200)
            assert entered == []
            assert 10 <= len(writes(w)) <= 11
            assert len(w.server.sent("PUB", "$JS.API.STREAM.>")) - asked < 5
            left = trio.current_time()
        await trio.sleep(1)
        assert 0 <= entered[0] - left <= 0.02


async def test_of_many_who_wait_few_try_when_it_is_free() -> None:
    async with open_bucket_for_leases() as w:
        async with of(w):
            entered = await waiting(w, 30)
            before = len(writes(w))
        await trio.sleep(60)
        assert len(entered) == 30
        # Each takes it and gives it back: hardly anybody is refused.
        assert len(writes(w)) - before < 1 + 30 * 2 + 15


async def test_a_holder_that_dies_is_followed_when_its_ttl_is_over() -> None:
    async with open_bucket_for_leases() as w:
        w.bucket.set("k", b"dead", Nats_TTL="4s", Trionats_Lease="dead.1")
        begun, entered = trio.current_time(), await waiting(w, ttl=10)
        await trio.sleep(20)
        assert 4 <= entered[0] - begun <= 4.03


async def test_a_marker_that_nobody_saw_keeps_nobody_waiting() -> None:
    """What is deleted without a marker, and markers that vanish during an outage, say nothing to watchers."""
    async with open_bucket_for_leases() as w:
        w.bucket.set("k", b"dead", Nats_TTL="4s", Trionats_Lease="dead.1")
        begun, entered = trio.current_time(), await waiting(w)
        w.bucket.forget("$KV.b.k")
        await trio.sleep(20)
        assert 4 <= entered[0] - begun <= 4.6


async def test_what_is_no_lease_is_waited_for_all_the_same() -> None:
    async with open_bucket_for_leases() as w:
        w.bucket.set("k", b"somebody's")
        entered = await waiting(w)
        await trio.sleep(300)
        assert entered == []
        w.bucket.mark("k")
        await trio.sleep(0.03)
        assert len(entered) == 1


async def test_waiting_outlasts_an_outage() -> None:
    async with open_bucket_for_leases(client={"reconnect_time_wait": 0.1}) as w:
        w.bucket.set("k", b"dead", Nats_TTL="4s", Trionats_Lease="dead.1")
        begun, entered = trio.current_time(), await waiting(w)
        await lose(w.server, w.nc)
        await trio.sleep(12)
        assert last(w) is None
        await regain(w.server, w.nc)
        await trio.sleep(10)
        assert 12 <= entered[0] - begun <= 20


@pytest.mark.parametrize("answer", ["lost", "503", "silence", WRONG_SEQUENCE_OF_SEVERAL])
async def test_a_claim_whose_answer_says_nothing_is_looked_for(answer: Any) -> None:  # noqa: ANN401 - whatever a hook may answer
    async with open_bucket_for_leases() as w:
        w.bucket.answer("$KV.b.k", answer)
        begun = trio.current_time()
        async with of(w, 10) as lease:
            # It counts from the one that was stored.
            assert lease.deadline - begun <= (10 if answer == "lost" else 15.2)
            assert held(w)
        assert not held(w)


async def test_a_claim_that_was_stored_too_long_ago_is_made_again() -> None:
    """The answer was lost, the key lives on at the server, and by our own clock it may be gone at any moment."""
    async with open_bucket_for_leases() as w:
        w.bucket.answer("$KV.b.k", "lost")
        async with of(w, 5) as lease:
            assert lease.deadline > trio.current_time()
            await trio.sleep(20)


async def test_a_claim_that_takes_longer_than_the_lease_lasts_is_made_again() -> None:
    async with open_bucket_for_leases() as w:
        w.bucket.lag = 4
        with trio.move_on_after(3600) as limit:
            async with of(w):
                pytest.fail("it cannot be held")
        assert limit.cancelled_caught
        w.bucket.lag = 0
        await trio.sleep(10)
        assert not held(w)


async def test_a_bucket_that_nobody_answers_for_is_an_error_in_the_end() -> None:
    async with open_bucket_for_leases() as w:
        w.bucket.hook = lambda _: "503"
        with pytest.raises(errors.NoStreamResponseError, match="lease of key 'k' in bucket 'b'"):
            async with of(w):
                pytest.fail("nobody stored it")


async def test_what_the_server_refuses_for_good_is_raised_at_once() -> None:
    async with open_bucket_for_leases() as w:
        w.bucket.hook = lambda _: FULL
        with pytest.raises(errors.APIError, match="maximum bytes exceeded") as refused, takes(0, 0.1):
            async with of(w):
                pytest.fail("nobody stored it")
        assert refused.value.err_code == 10077
        with pytest.raises(errors.MaxPayloadError):
            async with of(w, value=bytes(2_000_000)):
                pytest.fail("nobody stored it")


async def test_closing_the_client_ends_waiting_for_it() -> None:
    async with open_bucket_for_leases() as w:
        w.bucket.set("k")
        with pytest.raises(errors.ConnectionClosedError, match="while somebody else held the key"):  # noqa: PT012 - the block is what raises
            w.nursery.start_soon(close_later, w)
            async with of(w):
                pytest.fail("somebody else has it")


async def close_later(w: KeysWorld) -> None:
    await trio.sleep(1)
    await w.nc.aclose()


async def test_a_cancelled_nursery_ends_waiting_for_it() -> None:
    async with open_bucket_for_leases() as w, nursery_elsewhere() as nursery:
        w.bucket.set("k")
        with trio.CancelScope():
            w.nursery.start_soon(cancel_later, nursery)
            with pytest.raises(trio.ClosedResourceError, match="the nursery was cancelled"):
                async with open_lease(nursery, w.kv, "k", ttl=TTL):
                    pytest.fail("somebody else has it")


async def cancel_later(nursery: trio.Nursery) -> None:
    await trio.sleep(1)
    nursery.cancel_scope.cancel()


# -- misuse -----------------------------------------------------------------------------------------------------------------


async def test_bad_arguments_are_refused_before_anything_is_sent() -> None:
    async with open_bucket_for_leases() as w:
        await w.nc.flush()
        sent = len(w.server.frames)
        for arguments, kind, text in (
            ({"ttl": 1}, ValueError, "ttl is 1"),
            ({"ttl": 2.5}, ValueError, "ttl is 2.5"),
            ({"ttl": "5"}, TypeError, "ttl must be whole seconds"),
            ({"value": 5}, TypeError, "value must be bytes or str, not int"),
            ({"value": "\ud800"}, ValueError, "value"),
            ({"key": "a..b"}, errors.InvalidKeyError, "'a..b'"),
            ({"key": "a.*"}, errors.InvalidKeyError, "'a.*'"),
            ({"key": 5}, TypeError, "must be text"),
            ({"kv": object()}, TypeError, "kv must be a KeyValue, not object"),
            ({"timeout": 1}, TypeError, r"takes no timeout: deadlines are cancel scopes"),
            ({"history": 1}, TypeError, "unexpected keyword argument 'history'"),
        ):
            given: dict[str, Any] = {"kv": w.kv, "key": "k", "ttl": TTL, **arguments}
            with pytest.raises(kind, match=text):
                async with open_lease(w.nursery, **given):
                    pytest.fail("it was opened")
        assert len(w.server.frames) == sent


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"history": 5}, "its history must be 1"),
        ({"limit_marker_ttl": 0}, "limit_marker_ttl"),
        ({"ttl": 2}, "its ttl of 2 s ends a lease before the lease's own of 3 s"),
    ],
)
async def test_a_bucket_that_cannot_hold_a_lease_is_refused_by_what_it_lacks(
    options: dict[str, Any], missing: str
) -> None:
    async with open_bucket_for_leases(**options) as w:
        with pytest.raises(ValueError, match=f"key-value bucket 'b' cannot hold a lease: .*{missing}"):
            async with of(w):
                pytest.fail("it was opened")
        assert writes(w) == []


async def test_a_closed_nursery_is_a_clear_error_and_the_key_is_given_back() -> None:
    async with open_bucket_for_leases() as w:
        async with trio.open_nursery() as nursery:
            pass
        with pytest.raises(RuntimeError, match="the nursery that was passed in is closed"):
            async with open_lease(nursery, w.kv, "k", ttl=TTL):
                pytest.fail("it was opened")
        assert not held(w)
        with pytest.raises(TypeError, match=r"must be a trio\.Nursery"):
            async with open_lease(5, w.kv, "k", ttl=TTL):  # type: ignore[arg-type]
                pytest.fail("it was opened")
