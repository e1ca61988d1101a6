"""Services, and their groups: what `open_service` gives, and how it answers, stops and drains."""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Never, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, current_task, enable_ki_protection

from trionats._core.barrier import wait_barrier
from trionats._core.deadlines import unexpected
from trionats._feeds.feed import feeding
from trionats._protocol.fields import check_argument, check_count
from trionats._protocol.services.answers import encoded
from trionats._protocol.services.names import (
    described,
    endpoint_subject,
    group_prefix,
    metadata_of,
    name_of,
    queue_of,
    version_of,
)
from trionats._services.endpoint import PENDING_MSGS, Endpoint, Sign, opened
from trionats._services.questions import Questions
from trionats._services.request import Desk
from trionats._services.serving import Crew
from trionats.api import ServiceInfo, ServicePing, ServiceStats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from trionats._core.connection import Connection
    from trionats._feeds.bounded import BoundedFeed
    from trionats._services.endpoint import StatsHandler
    from trionats._services.request import ServiceRequest

__all__ = ["Group", "Identity", "Service", "running"]


@final
class Identity:
    """Who a service is, as it and its groups share it.

    Args:
        connection: Through what it is reached.
        nursery: Where its tasks live.
        name: Its name.
        version: Its version.
        description: What it does.
        metadata: What its program says of it besides.
        queue: The queue group of endpoints that have none of their own; an empty string for none.

    Raises:
        TypeError: One of them is of a wrong kind.
        ValueError: One of them cannot be.
    """

    def __init__(
        self,
        connection: Connection,
        nursery: trio.Nursery,
        name: str,
        version: str,
        description: str,
        metadata: Mapping[str, str] | None,
        queue: str,
    ) -> None:
        call = "open_service"
        self.connection, self.nursery = connection, nursery
        self.name = name_of(call, name)
        self.version = version_of(call, version)
        self.description = described(call, description)
        self.metadata = metadata_of(call, metadata)
        self.queue = queue_of(call, queue, None)
        self.id = connection.new_token()
        self.started = datetime.now(UTC)
        self.stopped = False


class Group:
    """Endpoints whose subjects begin alike: what `Service.group` gives. A service is the group of all its endpoints.

    What is asked of a group is told of its endpoints only; so are they alone stopped, drained and reset.
    """

    def __init__(self, identity: Identity, prefix: str, queue: str, parent: Group | None) -> None:
        self._identity = identity
        self._prefix = prefix
        self._queue = queue
        self._parent = parent
        self._endpoints: dict[Endpoint, None] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of service {self._identity.name!r}>"

    @property
    def name(self) -> str:
        """What the subjects of its endpoints begin with."""
        return self._prefix

    @property
    def id(self) -> str:
        """The id of the service: what no other one has."""
        return self._identity.id

    @property
    def version(self) -> str:
        """The version of the service."""
        return self._identity.version

    # What is known of it.

    def info(self) -> ServiceInfo:
        """Say what the service is, with the endpoints that are open: what it answers to INFO."""
        who = self._identity
        who.connection.pace.run.check()
        endpoints = [endpoint.info() for endpoint in self._open()]
        return ServiceInfo(who.name, who.id, who.version, who.description, dict(who.metadata), endpoints)

    def stats(self) -> ServiceStats:
        """Say what the endpoints that are open have done: what the service answers to STATS.

        It calls their stats handlers. Times are in nanoseconds.
        """
        who = self._identity
        who.connection.pace.run.check()
        endpoints = [endpoint.stats() for endpoint in self._open()]
        return ServiceStats(who.name, who.id, who.version, who.started, dict(who.metadata), endpoints)

    def reset(self) -> None:
        """Let all counters begin anew; those of a service also say when (`started`)."""
        self._identity.connection.pace.run.check()
        for endpoint in self._endpoints:
            endpoint.desk.tally.reset()

    # Its end.

    @enable_ki_protection
    def stop(self) -> None:
        """End the endpoints: what the server gave us before it knew is still handed over, and then their loops end.

        Synchronous and idempotent; call it from any task of this Trio run. `Service.serve` returns once all that was handed over
        is done, and so do loops over endpoints. Where the queue group has other members, no request is lost.
        """
        self._identity.connection.pace.run.check()
        for endpoint in list(self._endpoints):
            endpoint.stop()

    async def drain(self) -> None:
        """Stop, and wait until all that the server gave us is worked off, and what was responded has reached it.

        That is: it was received, each task that received any of it came back for more, and all blocks `async with request` were
        left; a task that was handed a request is to enter it before it does anything else. It waits for your own code, so no default limits that; a deadline in force does. What only the calling task receives
        from is not waited for. For the server's last word it waits as `Client.flush` does. Cancelled after it began, it goes
        on stopping. Idempotent.

        Raises:
            nats.errors.TimeoutError: The server did not say in time that it has what was responded.
            trionats.errors.DisconnectedError: The connection broke first; whether it has is not known.
            nats.errors.ConnectionClosedError: The client is closed, or lost for good.
        """
        connection = self._identity.connection
        connection.pace.run.check()
        await checkpoint_if_cancelled()
        self.stop()
        endpoints = list(self._endpoints)
        for endpoint in endpoints:
            await endpoint.wait_ended()
        await wait_barrier(endpoints)
        # Who has just been started with a request enters it with the first step.
        await checkpoint()
        await checkpoint()
        for desk in list(connection.draining.in_hand):
            if isinstance(desk, Desk) and self in desk.groups:
                await desk.wait_idle([current_task()])
        connection.check_open(what := f"drain of service {self._identity.name!r}")
        with connection.limit(what):
            await connection.supervisor.barrier()

    # What is in it.

    def group(self, name: str, queue: str | None = None) -> Group:
        """Make a group in this one. It sends nothing.

        Args:
            name: What the subjects of its endpoints begin with, behind those of this one: a subject without `>`.
            queue: The queue group of endpoints that have none of their own; an empty string for none; None for the one of this
                group.

        Returns:
            The group.

        Raises:
            TypeError: One of them is no text.
            ValueError: One of them cannot be.
        """
        prefix = group_prefix("group", self._prefix, name)
        return Group(self._identity, prefix, queue_of("group", queue, self._queue), self)

    async def serve(
        self,
        name: str,
        handler: Callable[[ServiceRequest], Awaitable[object]],
        *,
        subject: str | None = None,
        queue: str | None = None,
        metadata: Mapping[str, str] | None = None,
        concurrency: int = 1,
        stats_handler: StatsHandler | None = None,
        pending_msgs_limit: int = PENDING_MSGS,
        honour_deadline: bool = False,
        task_status: trio.TaskStatus[BoundedFeed[ServiceRequest]] = trio.TASK_STATUS_IGNORED,
        **unknown: Never,
    ) -> None:
        """Have an endpoint whose requests a coroutine function works on, up to so many of them at once.

        To be used as `await nursery.start(partial(service.serve, "price", price, concurrency=50))`, which returns once the server
        gives it requests. It runs until the endpoint has ended (`stop`) and all that was handed over is done. Cancelled, it
        cancels the handlers; to them, and to requests that wait, 503 is responded.

        A handler responds to its request, or raises: then 500 is responded, with no more than the class of the exception, unless
        something was responded already. The exception ends nothing else: it is counted, logged at WARNING and told as
        `events.HandlerFailed`. Handlers run beside each other, in contexts of their own.

        Args:
            name: The endpoint's name: ASCII letters, digits, dash and underscore.
            handler: What is done with each request.
            subject: As for `open_endpoint`, and so are those that are not named here.
            queue: The queue group.
            metadata: What there is to say of it besides.
            concurrency: How many handlers may run at once; more requests wait.
            stats_handler: What there is to tell in the statistics.
            pending_msgs_limit: How many requests may wait.
            honour_deadline: Cancel a handler when nobody waits for its response any more.
            task_status: Trio's; it is given the endpoint, which can be stopped by itself.

        Raises:
            nats.errors.Error: The server refuses the subject, or says nothing; later, the client is lost for good.
            TypeError: An argument is of a wrong kind.
            ValueError: An argument cannot be, or the service was stopped.
        """
        self._identity.connection.pace.run.check()
        if unknown:
            raise unexpected("serve", unknown, None)
        if not callable(handler):
            raise TypeError(f"serve: handler must be a coroutine function, not {type(handler).__name__}")
        check_count("serve", "concurrency", concurrency)
        options = subject, queue, metadata, stats_handler, pending_msgs_limit, honour_deadline
        endpoint = self.__endpoint__("serve", name, *options)
        await checkpoint_if_cancelled()
        async with opened(self._identity.nursery, endpoint):
            task_status.started(endpoint)
            await Crew(endpoint, handler, concurrency).work()

    # For `open_endpoint`.

    def __endpoint__(
        self,
        call: str,
        name: str,
        subject: str | None,
        queue: str | None,
        metadata: Mapping[str, str] | None,
        stats_handler: StatsHandler | None,
        pending_msgs_limit: float,
        honour_deadline: bool,
    ) -> Endpoint:
        """Make an endpoint; nothing is sent.

        Raises:
            TypeError: An argument is of a wrong kind.
            ValueError: An argument cannot be, or the service was stopped.
        """
        identity = self._identity
        identity.connection.pace.run.check(call)
        name = name_of(call, name)
        where = endpoint_subject(call, self._prefix, name, subject)
        group = queue_of(call, queue, self._queue)
        about = metadata_of(call, metadata)
        if stats_handler is not None and (not callable(stats_handler) or inspect.iscoroutinefunction(stats_handler)):
            raise TypeError(f"{call}: stats_handler must be a function that does not wait")
        check_argument(call, "honour_deadline", bool, honour_deadline)
        if pending_msgs_limit != inf:
            check_count(call, "pending_msgs_limit", pending_msgs_limit)
        if identity.stopped:
            raise ValueError(f"{call}: service {identity.name!r} was stopped")
        sign = Sign(identity.name, name, where, group, about, stats_handler, pending_msgs_limit, honour_deadline)
        return Endpoint(identity.connection, sign, self._path(), self._enter, self._leave)

    # Inside.

    def _enter(self, endpoint: Endpoint) -> None:
        self._endpoints[endpoint] = None
        if self._parent is not None:
            self._parent._enter(endpoint)

    def _leave(self, endpoint: Endpoint) -> None:
        self._endpoints.pop(endpoint, None)
        if self._parent is not None:
            self._parent._leave(endpoint)

    def _path(self) -> list[Group]:
        return [self] if self._parent is None else [self, *self._parent._path()]

    def _open(self) -> list[Endpoint]:
        return [endpoint for endpoint in self._endpoints if not endpoint.is_over]


@final
class Service(Group):
    """A service that runs: what `open_service` gives."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity, "", identity.queue, None)
        self._left = False
        self.__questions__ = Questions(identity.connection, identity.name, identity.id, self._answer, self._over)

    def __repr__(self) -> str:
        return f"<Service {self.name!r} {self.version} {self.id}>"

    @property
    def name(self) -> str:
        """What it is called."""
        return self._identity.name

    @enable_ki_protection
    def reset(self) -> None:
        """Let all counters begin anew, now (`started`)."""
        super().reset()
        self._identity.started = datetime.now(UTC)

    @enable_ki_protection
    def stop(self) -> None:
        """End all endpoints, as `Group.stop` does, and be found no more. No endpoint can be opened any more."""
        super().stop()
        self._identity.stopped = True
        self.__questions__.retire()

    # Inside.

    def _answer(self, verb: str) -> bytes:
        who = self._identity
        match verb:
            case "INFO":
                return encoded(self.info())
            case "STATS":
                return encoded(self.stats())
            case _:
                return encoded(ServicePing(who.name, who.id, who.version, dict(who.metadata)))

    def __leave__(self) -> None:
        """Stop for good: who still receives from an endpoint, somewhere else, is given what the server gave us before."""
        self.stop()
        self._left = True

    def _over(self, reason: BaseException | None) -> None:
        if not self._left:
            for endpoint in list(self._endpoints):
                endpoint.over(reason)


@asynccontextmanager
async def running(nursery: trio.Nursery, service: Service) -> AsyncIterator[None]:
    """Let a service be found and answer for as long as the block lasts; entering waits until the server has its subscriptions.

    Args:
        nursery: Where its tasks live.
        service: The service; it is stopped afterwards.

    Raises:
        nats.errors.Error: The server refuses one, or says nothing.
    """
    questions = service.__questions__
    async with feeding(nursery, questions, questions.respond):
        try:
            questions.attach()
            await questions.confirm()
            yield
        finally:
            service.__leave__()
