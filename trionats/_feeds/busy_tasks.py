"""Which tasks receive from a feed, and which of them work on what they took: what a drain and a barrier ask (design 19).

An empty buffer only says that somebody has the last item in hand. So each feed knows who has taken an item and has not come
back for another. That is known exactly while somebody observes, and before that for a consumer that is one task all the time; of
several, one may be missing that never had to wait, so that it costs the fast path of `Feed.receive` nothing.

Between the buffer and the task there is one more place where an item can be: Trio's channel hands it to a task that waits,
and that task runs later. Whoever looks in between finds the buffer empty and the task still waiting, as far as it knows.

Where many tasks wait, `AT_THE_DOOR` of them wait in the channel and the others on a bench (design 47). Else a burst of a hundred
messages would wake a hundred tasks for one message each, where ten take ten each for a fraction of that. (Where little
can be buffered all wait in the channel, which holds one message more for each of them.) Nobody is forgotten on the
bench:

* Whoever sits down leaves at least one at the door, or somebody who was handed an item and is about to run, and an
  empty buffer.
* Whoever comes from the door, with an item or cancelled, or from the bench with an item, calls others from the bench
  while something is buffered, and one to the door when nobody is left there. It calls twice as many each time, so that
  slow consumers are soon all at work; where those who are up take more than that meanwhile, they are quick, and one
  more is enough.
* The end of the feed calls all.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import trio
from trio.lowlevel import ParkingLot, current_task

if TYPE_CHECKING:
    from collections.abc import Collection

    from trio.lowlevel import Task

T = TypeVar("T")

#: How many tasks are remembered before those are sought that have ended.
MOST = 64
#: How many tasks wait in the channel itself ...
AT_THE_DOOR = 12
#: ... where it buffers at least so much, which is more than comes in one go.
ROOMY = 2048


class Observer(Protocol):
    """What is told how the consumers of a feed get on: a drain, or a barrier. Called synchronously."""

    def took(self, task: Task) -> None:
        """A task took an item."""

    def came_back(self, task: Task) -> None:
        """A task wants another item, so it is done with the last one."""

    def ended(self) -> None:
        """Nothing more will come."""

    def left(self) -> None:
        """Nobody will receive any more."""


class BusyTasks(Generic[T]):
    """The tasks that receive from one feed."""

    __slots__ = (
        "_batch",
        "_bench",
        "_called",
        "_channel",
        "_door",
        "_level",
        "_limit",
        "_reader",
        "_several",
        "_waiting",
        "busy",
        "observers",
        "opener",
    )

    def __init__(self, channel: trio.MemoryReceiveChannel[T]) -> None:
        self._channel = channel
        self._door = AT_THE_DOOR if channel.statistics().max_buffer_size >= ROOMY else math.inf
        self._bench: ParkingLot | None = None
        self._called = self._batch = self._level = 0
        self._waiting: dict[Task, None] = {}
        self._limit = MOST
        self._reader: Task | None = None
        self._several = False
        self.busy: set[Task] = set()
        """Who has taken an item and not come back for the next."""
        self.observers: dict[Observer, None] = {}
        self.opener: Task | None = None
        """Whose block it is."""

    def observe(self, observer: Observer) -> None:
        """Tell somebody from now on."""
        self.observers[observer] = None

    def unobserve(self, observer: Observer) -> None:
        """Tell them no more. Idempotent."""
        self.observers.pop(observer, None)

    def working(self, besides: Collection[Task] = ()) -> set[Task]:
        """Say which tasks, `besides` some, have an item and may still work on it."""
        self.forget_ended()
        return self.busy.union(self._handed()).difference(besides)

    def occupied(self, besides: Collection[Task] = ()) -> bool:
        """Say whether there are such tasks, in constant time: tasks that have ended count until they are forgotten."""
        if self._handed_count():
            return True
        return len(self.busy) > len(besides) or any(task not in besides for task in self.busy)

    def belongs_to(self, tasks: Collection[Task]) -> bool:
        """Say whether nobody but some of these is known to receive, where nobody else works on anything.

        Before anybody has received, that is who opened the feed (design 49).
        """
        return bool(self.busy) or (not self._several and (self._reader or self.opener) in tasks)

    def forget_ended(self) -> None:
        """Forget the tasks that have ended: nobody says so."""
        self.busy = {task for task in self.busy if _lives(task)}
        # Twice as many before it is looked again: so the search costs each item the same, however many tasks there are.
        self._limit = max(MOST, 2 * len(self.busy))

    def meet(self, task: Task) -> None:
        """Remember who receives from the feed: one task, or several."""
        if task is not self._reader and not self._several:
            self._several = self._reader is not None
            self._reader = task

    def note(self, task: Task) -> None:
        """Count a task as busy: it has an item, or is about to take one."""
        self.meet(task)
        if len(self.busy) >= self._limit:
            self.forget_ended()
        self.busy.add(task)

    def took(self, task: Task) -> None:
        """Count a task as busy, and tell the observers what it took."""
        self.note(task)
        for observer in list(self.observers):
            observer.took(task)

    def came_back(self, task: Task | None = None) -> None:
        """Count a task, the current one unless it is named, as busy no longer."""
        task = task or current_task()
        self.meet(task)
        self.busy.discard(task)
        for observer in list(self.observers):
            observer.came_back(task)

    def ended(self) -> None:
        """Call those on the bench, and tell the observers: nothing more will come."""
        if self._bench is not None:
            self._called += len(self._bench.unpark_all())
        for observer in list(self.observers):
            observer.ended()

    def left(self) -> None:
        """Forget them all: nobody receives any more."""
        self.busy.clear()
        self.opener = self._reader = None
        for observer in list(self.observers):
            observer.left()

    async def park(self) -> T:
        """Wait for an item, where there is none right now.

        Raises:
            trio.EndOfChannel: The feed ended.
        """
        task = current_task()
        self.came_back(task)
        while len(self._waiting) >= self._door:
            if self._bench is None:
                self._bench = ParkingLot()
            await self._bench.park()
            self._called -= 1
            try:
                item = self._channel.receive_nowait()
            except trio.WouldBlock:
                self._batch = 0
                continue
            except trio.ClosedResourceError:
                # The block was left meanwhile; at the door it would have been told so.
                raise trio.EndOfChannel from None
            self._call()
            self.note(task)
            return item
        self._waiting[task] = None
        try:
            item = await self._channel.receive()
        except BaseException:
            self.came_back(task)
            raise
        else:
            self.note(task)
            return item
        finally:
            del self._waiting[task]
            self._call()

    def _call(self) -> None:
        """Call some from the bench: to what is buffered, or one to the door where nobody is."""
        # Those who were called last come first; each of them gets here, too.
        if not self._bench or self._called:
            return
        state = self._channel.statistics()
        buffered = state.current_buffer_used
        if buffered:
            quick = self._level - buffered >= 2 * self._batch
            self._batch = 1 if quick else max(1, 2 * self._batch)
            self._level = buffered
        else:
            self._batch = self._level = 0
        wanted = min(self._batch, buffered) if buffered else int(not state.tasks_waiting_receive)
        self._called += len(self._bench.unpark(count=wanted))

    def _handed_count(self) -> int:
        return len(self._waiting) - self._channel.statistics().tasks_waiting_receive

    def _handed(self) -> list[Task]:
        """Name those that were handed an item while they waited, and did not run yet.

        First come, first served: these are the first of those that wait. One whose wait was cancelled and that did not
        run yet may be taken for one of them; it comes back in the very next step.
        """
        return list(islice(self._waiting, self._handed_count()))


def _lives(task: Task) -> bool:
    # Trio sees to it that there is such a frame, whatever the task runs, and looks at it for the same purpose. To look
    # for the task among those of its nursery would copy the set of all of them.
    return task.coro.cr_frame is not None
