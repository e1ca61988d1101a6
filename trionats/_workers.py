"""Which tasks work on what they took from a feed: what a drain and a barrier ask.

An empty buffer only says that somebody has the last item in hand. So each feed knows who has taken an item and has not come
back for another. That is known exactly while somebody observes, and before that for a consumer that is one task all the time; of
several, one may be missing that never had to wait, so that it costs the fast path of `Feed.receive` nothing.

Between the buffer and the task there is one more place where an item can be: Trio's channel hands it to a task that waits,
and that task runs later. Whoever looks in between finds the buffer empty and the task still waiting, as far as it knows.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from trio.lowlevel import current_task

if TYPE_CHECKING:
    from collections.abc import Collection

    import trio
    from trio.lowlevel import Task

#: How many tasks are remembered before those are sought that have ended.
MOST = 64


class Observer(Protocol):
    """What is told how the consumers of a feed get on: a drain, or a barrier. Called synchronously."""

    def took(self, task: Task) -> None:
        """Know that a task took an item."""

    def came_back(self, task: Task) -> None:
        """Know that a task wants another item, so that it is done with the last one."""

    def left(self) -> None:
        """Know that nobody will receive any more."""


class Workers:
    """The tasks that receive from one feed."""

    __slots__ = ("_channel", "_waiting", "busy", "observers")

    def __init__(self, channel: trio.MemoryReceiveChannel[Any]) -> None:
        self._channel = channel
        self._waiting: dict[Task, None] = {}
        self.busy: set[Task] = set()
        """Who has taken an item and not come back for the next."""
        self.observers: list[Observer] = []

    def observe(self, observer: Observer) -> None:
        """Tell somebody from now on."""
        self.observers.append(observer)

    def unobserve(self, observer: Observer) -> None:
        """Tell them no more. Idempotent."""
        if observer in self.observers:
            self.observers.remove(observer)

    def working(self, besides: Collection[Task] = ()) -> set[Task]:
        """Say which tasks, `besides` some, have an item and may still work on it."""
        self.busy = {task for task in self.busy if _lives(task)}
        return self.busy.union(self._handed()).difference(besides)

    def note(self, task: Task) -> None:
        """Know that a task has an item, or is about to take one."""
        if len(self.busy) >= MOST:
            self.working()
        self.busy.add(task)

    def waits(self, task: Task) -> None:
        """Know that a task begins to wait for an item."""
        self.came_back(task)
        self._waiting[task] = None

    def waited(self, task: Task) -> None:
        """Know that it runs again, with an item or without."""
        del self._waiting[task]

    def took(self, task: Task) -> None:
        """Know that a task has an item."""
        self.note(task)
        for observer in list(self.observers):
            observer.took(task)

    def came_back(self, task: Task | None = None) -> None:
        """Know that a task, the current one unless it is named, is done with what it took."""
        task = task or current_task()
        self.busy.discard(task)
        for observer in list(self.observers):
            observer.came_back(task)

    def left(self) -> None:
        """Know that nobody receives any more."""
        self.busy.clear()
        for observer in list(self.observers):
            observer.left()

    def _handed(self) -> list[Task]:
        """Name those that were handed an item while they waited, and did not run yet.

        First come, first served: these are the first of those that wait. One whose wait was cancelled and that did not
        run yet may be taken for one of them; it comes back in the very next step.
        """
        still = self._channel.statistics().tasks_waiting_receive
        return list(islice(self._waiting, len(self._waiting) - still))


def _lives(task: Task) -> bool:
    return task.parent_nursery is None or task in task.parent_nursery.child_tasks
