"""A channel pair opened in a nursery: the promise.

Everything that arrives over time is the receive end of one real memory channel. Whoever feeds it (the client's reader, in
the hot path) calls `Feed._put`; a feeding task in the nursery that the caller passed in ties the feed's life to that
nursery. Every way to end (`stop`, the block left, the nursery cancelled, the client closed, the connection lost) comes
down to one synchronous function, `Feed._end`, which cancels the task first, cuts off what feeds it (`Feed._undo`), and then
closes the send side. Trio's channel does the rest: what is buffered can still be received, and nobody stays parked.

Scars kept as tests: a bare channel pair makes a crashed feed look complete (so a bug is recorded before the send side
closes, and `receive` raises it; design 4); `_end` cancels before it closes (else the feeding task runs into a closed
channel); `_put` swallows a closed channel (else one stopped feed kills the reader for all).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import trio
from nats.errors import Error
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, current_task, enable_ki_protection

from trionats import errors
from trionats._feeds.busy_tasks import BusyTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator

    from trionats._feeds.pace import Pace

T = TypeVar("T")

#: How long leaving a block waits for the feeding task, which only has to notice that it was cancelled.
CLEANUP_SECONDS = 2.0


class FeedOwner(Protocol):
    """What feeds belong to: a client's connection."""

    @property
    def pace(self) -> Pace:
        """When its fast paths go through the scheduler."""

    @property
    def feeds(self) -> OpenFeeds:
        """Those that are open."""


class OpenFeeds:
    """The feeds of one client that are open, in the order in which they opened."""

    def __init__(self) -> None:
        self._open: dict[Feed[Any], None] = {}
        self.noticed: Callable[[Feed[Any]], None] | None = None
        """Called with each feed that opens, while somebody wants to know."""

    def __iter__(self) -> Iterator[Feed[Any]]:
        return iter(self._open)

    def add(self, feed: Feed[Any]) -> None:
        """Enter a feed that opens."""
        self._open[feed] = None
        if self.noticed is not None:
            self.noticed(feed)

    def remove(self, feed: Feed[Any]) -> None:
        """Take out a feed whose block is left. Idempotent."""
        self._open.pop(feed, None)


class Feed(trio.abc.ReceiveChannel[T], Generic[T]):
    """The receive end of something that arrives over time.

    Feeds come from the `open_*` functions and are used with `async for`, or with `receive` where each item needs a
    deadline of its own. Several tasks may receive from one feed; each item goes to one of them.

    What ends it: `stop`, leaving the block, cancelling the nursery that was passed in, closing the client, or losing
    what it reads from for good. In all but the second case the items that were buffered are still received first. A
    loss is raised by `receive` as the exception of `nats.errors` that says why; all other ends end the loop.
    """

    def __init__(self, name: str, capacity: float, owner: FeedOwner) -> None:
        self._name = name
        self._send, self._receive = trio.open_memory_channel[T](capacity)
        self._send_nowait = self._send.send_nowait
        self._pace = owner.pace
        self._open_feeds = owner.feeds
        self._scope = trio.CancelScope()
        self._finished = trio.Event()
        self._ended = False
        self._left = False
        self._failure: BaseException | None = None
        self._busy = BusyTasks(self._receive)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        return f"<{type(self).__name__} {self._name!r} {state}, {len(self)} buffered>"

    def __len__(self) -> int:
        return self._receive.statistics().current_buffer_used

    def __bool__(self) -> bool:
        return True

    @property
    def name(self) -> str:
        """What it reads from, for people."""
        return self._name

    # The consumer's side.

    @enable_ki_protection
    async def receive(self) -> T:
        """Receive the next item, waiting for it where there is none.

        Always a cancellation point; a scheduling point whenever it waits, at least once in 64 messages of the client,
        and whenever 1 ms has passed since the last one. A cancelled call loses no item.

        Returns:
            The next item, in the server's order.

        Raises:
            trio.EndOfChannel: The feed ended, and what was buffered has been received.
            nats.errors.Error: What it read from is lost for good; the exception says why.
            trio.BrokenResourceError: The feeding task failed through a bug, which is the cause.
            trio.ClosedResourceError: The block was left, or `aclose` called.
        """
        pace = self._pace
        if get_ident() != pace.thread:
            pace.run.check()
        busy = self._busy
        pace.left -= 1
        if pace.left < 0 or pace.now() >= pace.due:
            busy.meet(current_task())
            await pace.trip()
            busy.note(current_task())
            self._sampled()
        else:
            await checkpoint_if_cancelled()
        if busy.observers:
            busy.came_back()
        while True:
            try:
                try:
                    item = self._receive.receive_nowait()
                except trio.WouldBlock:
                    item = await busy.park()
            except trio.EndOfChannel:
                busy.came_back()
                break
            except trio.ClosedResourceError:
                raise self._was_left() from None
            if self._taken(item):
                continue
            if busy.observers or not busy.busy:
                busy.took(current_task())
            return item
        raise self._why()

    @enable_ki_protection
    def receive_nowait(self) -> T:
        """Receive the next item if one is buffered.

        Returns:
            The next item.

        Raises:
            trio.WouldBlock: Nothing is buffered.
            trio.EndOfChannel: As for `receive`, and so are the other exceptions.
        """
        if get_ident() != self._pace.thread:
            self._pace.run.check()
        busy = self._busy
        if busy.observers:
            busy.came_back()
        while True:
            try:
                item = self._receive.receive_nowait()
            except trio.WouldBlock:
                busy.came_back()
                raise
            except trio.EndOfChannel:
                busy.came_back()
                break
            except trio.ClosedResourceError:
                raise self._was_left() from None
            if self._taken(item):
                continue
            if busy.observers or not busy.busy:
                busy.took(current_task())
            return item
        raise self._why()

    def _receive_buffered(self, count: int) -> list[T]:
        """Receive some of the items that are buffered in one go; `_taken` is not called, the caller accounts for them all.

        Args:
            count: How many: no more than there are.
        """
        busy = self._busy
        if busy.observers:
            busy.came_back()
        receive = self._receive.receive_nowait
        items = [receive() for _ in range(count)]
        if busy.observers or not busy.busy:
            busy.took(current_task())
        return items

    async def wait_ended(self) -> Exception | None:
        """Wait until nothing more will come, whatever is still buffered; it receives nothing.

        Always a checkpoint.

        Returns:
            None for an end on purpose (`stop`, the client closed or drained, the agreed number has come); else the exception
            that says why, which `receive` raises after what is buffered.
        """
        self._pace.run.check()
        await checkpoint()
        await self._finished.wait()
        return None if self._failure is None else self._why()

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    @enable_ki_protection
    def stop(self) -> None:
        """End the feed: what is buffered can still be received, then the loop ends.

        Synchronous and idempotent; call it from any task of this Trio run, also from inside the loop. From another
        thread use `trio.from_thread.run_sync(rx.stop)`. Nothing feeds it any more when it returns, and the
        goodbye to the server is queued.
        """
        self._pace.run.check()
        self._end(None)

    async def aclose(self) -> None:
        """End the feed and drop what is buffered, as leaving the block does.

        Idempotent; closes also when cancelled. Later calls of `receive` raise `trio.ClosedResourceError`.
        """
        self._pace.run.check()
        self._leave()
        await checkpoint()

    # The feeding side: synchronous, total, called from the reader and from the feeding task.

    def _put(self, item: T) -> bool:
        """Hand over one item, without waiting.

        Returns:
            Whether it was taken: not when the feed has ended, nor when the channel is full.
        """
        try:
            self._send_nowait(item)
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            return False
        return True

    @enable_ki_protection
    def _end(self, reason: BaseException | None) -> None:
        """End production: cancel the feeding task, cut off what feeds it, close the send side.

        Idempotent: the first reason stays.

        Args:
            reason: None for an end on purpose; else what `receive` raises once the buffer is empty.
        """
        if self._ended:
            return
        self._pace.run.check()
        self._ended = True
        self._failure = reason
        self._scope.cancel()
        self._undo()
        self._send.close()
        self._busy.ended()

    # What the kinds of feeds add.

    def _taken(self, item: T) -> bool | None:
        """Account for an item that leaves the channel.

        Returns:
            Whether it is dropped instead of being handed over: it has waited too long.
        """

    def _undo(self) -> None:
        """Cut off what feeds it: synchronous, called once."""

    def _sampled(self) -> None:
        """Take note of what is not worth looking at for each item."""

    # What is known of its consumers, for a drain and for a barrier.

    #: Whether a drain does not wait for it, because it has something to tell to the very end.
    _outlasts = False

    def _processed(self, besides: Collection[trio.lowlevel.Task] = ()) -> bool:
        """Say whether a feed that has ended was received whole, and those who received from it came back for more.

        Args:
            besides: Tasks that wait for the reply. What only they could receive is nothing to wait for.
        """
        if self._left:
            return True
        if self._busy.occupied(besides) or not self._ended:
            return False
        return not len(self) or self._busy.belongs_to(besides)

    # Its life.

    def _leave(self) -> None:
        self._end(None)
        self._left = True
        self._receive.close()
        self._busy.left()

    def _was_left(self) -> trio.ClosedResourceError:
        self._pace.run.check()
        return trio.ClosedResourceError(f"{self._name}: its block was left")

    def _why(self) -> Exception:
        """What `receive` raises where the channel has ended."""
        self._pace.run.check()
        failure = self._failure
        if failure is None:
            return trio.EndOfChannel()
        if isinstance(failure, Error):
            # Raised each time it is asked for, and for each feed of a lost client: the same object would collect the
            # tracebacks of all, and keep alive what stands in them.
            return errors.again(failure)
        broken = trio.BrokenResourceError(f"{self._name}: the feeding task failed: {failure!r}")
        broken.__cause__ = failure
        return broken

    @enable_ki_protection
    async def _run(self, produce: Callable[[], Awaitable[None]]) -> None:
        reason: BaseException | None = None
        try:
            with self._scope:
                await produce()
        except Error as lost:
            reason = lost
        except trio.Cancelled:
            raise
        except BaseException as bug:
            reason = bug
            raise
        finally:
            self._end(reason)
            self._finished.set()


@asynccontextmanager
async def feeding(
    nursery: trio.Nursery, feed: Feed[T], produce: Callable[[], Awaitable[None]] = trio.sleep_forever
) -> AsyncIterator[None]:
    """Run a feed's task in `nursery` for as long as the block lasts.

    Entering starts the task and does not wait. Leaving ends the feed synchronously, drops what is buffered, and then
    waits until the task is gone: shielded, and for `CLEANUP_SECONDS` at the most.

    Args:
        nursery: The nursery that was passed to `open_*`.
        feed: The feed; it is ended when the task ends, for whatever reason.
        produce: What the task does; a `nats.errors.Error` that it raises is handed to the consumer.
    """
    try:
        nursery.start_soon(feed._run, produce, name=f"trionats {feed._name}")
    except RuntimeError as closed:
        feed._leave()
        raise RuntimeError(f"{feed._name}: the nursery that was passed in is closed") from closed
    feed._busy.opener = current_task()
    feed._open_feeds.add(feed)
    try:
        yield
    finally:
        feed._open_feeds.remove(feed)
        feed._leave()
        if not feed._finished.is_set():
            with trio.move_on_after(CLEANUP_SECONDS, shield=True):
                await feed._finished.wait()
