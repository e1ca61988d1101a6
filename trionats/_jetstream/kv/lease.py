"""open_lease: a key that is held for as long as a block lasts, and whose loss ends the block.

The loss of a lease is the deadline of its block's cancel scope, which each confirmed renewal moves forward (design 25). So nobody has
to run for it to be noticed: Trio looks at its deadlines in each pass of its loop before it lets tasks run, and a process that
was stopped comes by there before anything else.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import enable_ki_protection

from trionats import errors
from trionats._core.deadlines import too_late, unexpected
from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.api import CLEANUP_LIMIT, in_store
from trionats._jetstream.kv.access import checked_value
from trionats._jetstream.kv.holding import Holding
from trionats._jetstream.kv.store import KeyValue
from trionats._jetstream.management import JetStreamManager
from trionats._protocol.jetstream.kv.lease import checked_ttl, unfit
from trionats._protocol.jetstream.publishing.publish import is_conflict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trionats._jetstream.kv.access import Access

__all__ = ["Lease", "open_lease"]


@final
class Lease:
    """A key that is held: what `open_lease` gives."""

    __slots__ = ("_bucket", "_key", "_renewal", "_revision", "_ttl", "_value")

    def __init__(self, renewal: Renewal, bucket: str, key: str, ttl: int, value: bytes, revision: int) -> None:
        self._renewal = renewal
        self._bucket, self._key, self._ttl, self._value, self._revision = bucket, key, ttl, value, revision

    def __repr__(self) -> str:
        return f"<Lease of {self._key!r} in {self._bucket!r}, revision {self._revision}, {self._renewal.state}>"

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket

    @property
    def key(self) -> str:
        """The key."""
        return self._key

    @property
    def ttl(self) -> int:
        """For how many seconds the server keeps it without a renewal."""
        return self._ttl

    @property
    def value(self) -> bytes:
        """What stands under the key while it is held, for whoever reads that."""
        return self._value

    @property
    def revision(self) -> int:
        """The fencing token: the revision under which the key was taken.

        It is greater than that of each lease of this key before, and stays the same as long as this one is held, though each
        renewal gives the key another revision. A resource that remembers the greatest token that it was shown, and refuses
        smaller ones, is safe from whoever was stopped in the middle of a step.
        """
        return self._revision

    @property
    def deadline(self) -> float:
        """Until when nobody else can hold the key, by Trio's clock; each confirmed renewal moves it forward.

        It counts from when that renewal was sent, so nobody can have taken it before, and is the deadline of the block.
        """
        return self._renewal.deadline

    def check(self) -> None:
        """See to it that it is held at this very moment, right before a step that matters.

        A block whose lease is lost is cancelled at its next checkpoint. Between a checkpoint and what follows it a process may
        be stopped for any length of time; this looks at the clock itself, without waiting.

        Raises:
            trionats.errors.LeaseLostError: It is lost, or its block was left.
        """
        self._renewal.check()


@final
class Renewal:
    """What keeps a lease: the scope of its block, and the task that renews it.

    Args:
        holding: The key, which is held.
        lost: Makes the exception for its loss, given why.
    """

    def __init__(self, holding: Holding, lost: Callable[[str], errors.LeaseLostError]) -> None:
        self._holding, self._tenure, self._lost = holding, holding.tenure, lost
        self.scope = trio.CancelScope(deadline=holding.tenure.deadline)
        self._work = trio.CancelScope()
        self._leaving, self._ended = trio.Event(), trio.Event()
        # Why it was lost, once that is settled; and what became of the last attempt to renew it, where nothing did: without its
        # traceback, which leads back here.
        self._why = ""
        self._failure: Exception | None = None
        self._is_theirs = False

    @property
    def deadline(self) -> float:
        """Until when nobody else can hold the key; always past where it is lost."""
        return -inf if self._why else self._tenure.deadline

    @property
    def state(self) -> str:
        """How it is, for people; wherever somebody asks, be it a thread or after the run, where there is no clock."""
        if self._leaving.is_set() or not trio.lowlevel.in_trio_run():
            left = "left" if self._leaving.is_set() else "held"
            return "lost" if self._why else left
        return "lost" if self.why_lost() else "held"

    def why_lost(self) -> str:
        """Say why it is lost; empty where it is not."""
        if self._why or (trio.current_time() < self._tenure.deadline and not self.scope.cancel_called):
            return self._why
        last = "nobody answered, or this process stood still" if self._failure is None else str(self._failure)
        return f"it was not renewed within {self._tenure.ttl} s: {last}"

    def check(self) -> None:
        """Raise where it is lost or left, as `Lease.check` says."""
        self._holding.run.check()
        why = "its block was left" if self._leaving.is_set() else self.why_lost()
        if why:
            raise self._lost(why) from self._failure

    def check_left(self) -> None:
        """Raise where it was lost before it was left."""
        if self._why:
            raise self._lost(self._why) from self._failure

    @enable_ki_protection
    async def run(self) -> None:
        """Keep it until it is lost or left: what its task does."""
        try:
            with self._work:
                await self._renew()
        finally:
            if not self._leaving.is_set() and not self.why_lost():
                self._cut("the nursery that was passed in was cancelled")
            self._ended.set()

    def end(self) -> str:
        """Take note that the block has ended; say why it was lost before, if it was. Synchronous."""
        self._why = self.why_lost()
        self._leaving.set()
        return self._why

    async def leave(self) -> None:
        """Give the key back: shielded, and bounded."""
        with trio.CancelScope(shield=True):
            if not self._why:
                # What is under way may become the key's last message, and only that can be deleted.
                with trio.move_on_after(CLEANUP_LIMIT):
                    await self._ended.wait()
            self._work.cancel()
            await self._ended.wait()
            if self._is_theirs or (self._why and not self._holding.is_connected):
                return
            there = await self._holding.give_back()
        if there is not None and not self._why:
            self._why = f"when it was given back, {there}"

    def _cut(self, why: str) -> None:
        self._why = self._why or why
        self.scope.deadline = -inf

    async def _renew(self) -> None:
        while True:
            with trio.move_on_at(self._tenure.due):
                await self._leaving.wait()
            if self._leaving.is_set() or self.why_lost():
                return
            await self._renew_once()
            if self._why:
                return

    async def _renew_once(self) -> None:
        tenure, before = self._tenure, self._tenure.revision
        try:
            with trio.move_on_after(tenure.response_limit) as limit:
                await self._write()
            if limit.cancelled_caught:
                self._failure = too_late(tenure.response_limit, "its last renewal")
        except errors.ConnectionClosedError as closed:
            self._failure = closed.with_traceback(None)
            if not self._leaving.is_set():
                self._cut(str(closed))
        except errors.Error as failure:
            self._failure = failure.with_traceback(None)
        if tenure.revision == before:
            tenure.failed(trio.current_time())
        else:
            self._failure = None
        self.scope.deadline = self.deadline

    async def _write(self) -> None:
        """Write once more; where that is refused, look who did."""
        try:
            await self._holding.write(self._tenure.revision)
            return
        except errors.APIError as error:
            if not is_conflict(error):
                raise
            self._failure = error.with_traceback(None)
        seen = await self._holding.look()
        if not self._tenure.owns(seen):
            self._is_theirs = True
            self._cut(str(seen))


@opens
async def open_lease(
    nursery: trio.Nursery,
    kv: KeyValue,
    key: str,
    *,
    ttl: float,
    value: bytes | str = b"",
    **unknown: object,
) -> AsyncIterator[Lease]:
    """Hold a key of a bucket: of all who open a lease of it, one at a time is in its block.

    Entering takes the key, and waits while somebody else holds it. Whoever waits watches the key, and tries once when it is
    free, within 20 ms, so that the next one has it a few milliseconds after it was given back; which one that is, is
    nobody's promise. Anything that stands under the key counts as held, a lease's or not. Outages are waited for, too; a
    cancel scope around this call would bound the block as well, so bound the waiting with one that is cancelled by hand, or
    whose deadline is set to infinity once the block has begun.

    While the block lasts, the key is renewed in each third of `ttl`. When no renewal was confirmed for `ttl` seconds, counted from
    when the last confirmed one was sent, the block is cancelled, and `LeaseLostError` is raised from it; so it is at once when
    somebody else has replaced or deleted the key, the client is closed, or the nursery is cancelled while the block stands outside
    it. This is the deadline of a cancel scope around the block: a process that was stopped, and is woken too late, is cancelled at
    its first checkpoint. What that cannot do stands under "Leases" in the guide.

    An exception of the block's own comes out as it is, with a note if the lease was lost, too. Leaving waits, shielded and for 2 s
    at the most, for a renewal that is under way, and as long again to delete the key if it still is its own: so the next one need not wait
    for the end of `ttl`. Where that is not possible, the server deletes it.

    The messages are those of the bucket's other keys, and a lease that was given back leaves a marker for `ttl` seconds. The user
    needs to publish to the key's subject, `$JS.API.STREAM.INFO` and `$JS.API.STREAM.MSG.GET` of the bucket's stream, and to wait
    what `open_watcher` needs.

    Args:
        nursery: Where the task that renews it lives, and the watcher's while it waits.
        kv: The bucket. Its history must be 1, and it must have limit markers (`limit_marker_ttl`).
        key: The key.
        ttl: How many seconds it is held at the most after its holder was heard of last: whole, at least 2.
        value: What stands under the key meanwhile, for whoever reads it: the name of this process, for instance.
        unknown: There are no other options.

    Returns:
        An async context manager that gives the `Lease`.

    Raises:
        trionats.errors.LeaseLostError: On leaving: the lease was lost.
        trionats.errors.InvalidKeyError: The key is none.
        nats.errors.BucketNotFoundError: The bucket is gone.
        TypeError: `kv` is no `KeyValue`, or an argument is of another kind.
        ValueError: `ttl` cannot be, or the bucket cannot hold a lease; the text says what is missing.
        trionats.errors.APIError: The server refused.
        nats.errors.ConnectionClosedError: The client is closed.
        trio.ClosedResourceError: The nursery was cancelled while it waited, and the block stands outside it.
    """
    if unknown:
        raise unexpected("open_lease", unknown, None)
    check_nursery(nursery, "open_lease")
    if not isinstance(kv, KeyValue):
        raise TypeError(f"open_lease(nursery, kv, key): kv must be a KeyValue, not {type(kv).__name__}")
    seconds = checked_ttl(ttl)
    access = kv.__access__()
    # It is stored again and again, whatever becomes of the object that was given.
    stored_key, content = access.new_key(key), bytes(checked_value("open_lease()", value))
    stored_value = access.stored_value("open_lease()", content)
    access.api.connection.pace.run.check("open_lease")
    await _check_bucket(access, seconds)
    doing = f"lease of key {key!r} in bucket {kv.bucket!r}"
    holding = Holding(access, doing, stored_key, seconds, stored_value)
    async with _held(nursery, holding, kv.bucket, key, content) as lease:
        yield lease


async def _check_bucket(access: Access, ttl: int) -> None:
    with in_store(str(access.names)):
        info = await JetStreamManager(access.api).stream_info(access.names.stream)
    missing = unfit(info.config, ttl)
    if missing:
        raise ValueError(f"open_lease(): {access.names} cannot hold a lease: {'; '.join(missing)}")


@asynccontextmanager
async def _held(nursery: trio.Nursery, holding: Holding, bucket: str, key: str, value: bytes) -> AsyncIterator[Lease]:
    def lost(why: str) -> errors.LeaseLostError:
        text = f"{holding.doing} was lost: {why}"
        return errors.explained(errors.LeaseLostError, text, bucket=bucket, key=key, why=why)

    await holding.take(nursery)
    renewal = Renewal(holding, lost)
    try:
        nursery.start_soon(renewal.run, name=f"trionats {holding.doing}")
    except RuntimeError as closed:
        await holding.give_back()  # noqa: ASYNC120 - shielded and bounded inside
        raise RuntimeError(f"{holding.doing}: the nursery that was passed in is closed") from closed
    try:
        with renewal.scope:
            yield Lease(renewal, bucket, key, holding.tenure.ttl, value, holding.tenure.revision)
    except Exception as error:
        if (why := renewal.end()) and not isinstance(error, errors.LeaseLostError):
            error.add_note(f"{holding.doing} was lost meanwhile: {why}")
        raise
    finally:
        renewal.end()
        await renewal.leave()  # noqa: ASYNC102 - shielded and bounded inside
    renewal.check_left()
