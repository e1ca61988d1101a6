"""Handlers: a loop over an endpoint's requests, several at a time.

Who works receives by himself: so a drain, and a barrier, know what is in hand (`busy_tasks`). One works alone, until its handler
waits for something; then another one comes, unless one waits for requests already or there are enough of them. Whoever comes back
and finds nothing to do, and somebody who waits for it, goes. So handlers that never wait cost no task, and others one each.

Each request has a copy of the context in which `serve` was called, as if it had a task to itself: what a handler sets in context
variables, no other one sees.
"""

from __future__ import annotations

from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, final

import trio

from trionats import errors
from trionats._protocol.services.failures import CANCELLED, LATE, parts
from trionats._protocol.services.staffing import Staffing
from trionats._services.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trionats._services.endpoint import Endpoint
    from trionats._services.request import ServiceRequest

    Handler = Callable[[ServiceRequest], Awaitable[object]]

__all__ = ["Crew"]


@final
class Crew:
    """Who works on the requests of one endpoint.

    Args:
        endpoint: The endpoint.
        handler: What is done with each request.
        most: How many of them may be worked on at once.
    """

    def __init__(self, endpoint: Endpoint, handler: Handler, most: int) -> None:
        self._endpoint = endpoint
        self._handler = handler
        self._alone = most == 1
        self._staffing = Staffing(most)
        self._context = copy_context()
        self._failure: Exception | None = None
        self._nursery: trio.Nursery

    async def work(self) -> None:
        """Work until the endpoint has ended, and all is done.

        Raises:
            nats.errors.Error: The endpoint is lost for good.
            trio.BrokenResourceError: Its feeding task failed through a bug.
        """
        if self._alone:
            await self._work()
        else:
            async with trio.open_nursery() as self._nursery:
                await self._work()
        if self._failure is not None:
            raise self._failure

    async def _work(self) -> None:
        endpoint, staffing = self._endpoint, self._staffing
        try:
            while True:
                request = await endpoint.receive()
                staffing.took()
                await self._handle(request)
                if staffing.is_done(more=len(endpoint) > 0):
                    break
        except (trio.EndOfChannel, trio.ClosedResourceError):
            pass
        except (errors.Error, trio.BrokenResourceError) as lost:
            self._failure = lost
        else:
            endpoint.let_go()

    def _handler_waits(self) -> None:
        """See to it that somebody waits for requests while a handler waits for something else."""
        if self._staffing.handler_waits():
            self._nursery.start_soon(self._work, name=f"trionats {self._endpoint.name}")

    async def _handle(self, request: ServiceRequest) -> None:
        failed: Exception | None = None
        request.__begin__()
        try:
            work = isolated(self._context.copy(), self._handler, request, self._handler_waits)
            if request.deadline == inf:
                await work
            else:
                await self._until_nobody_waits(request, work)
        except Exception as error:  # it is the program's, and ends nothing but its own request
            failed = error
        except BaseException as error:  # noqa: ASYNC103 - a group that holds nothing but failures ends nothing, either
            ends, failed = parts(error) if isinstance(error, BaseExceptionGroup) else (error, None)
            if ends is not None:
                self._done(request, failed)
                if failed is None:
                    request.__refuse__(CANCELLED)
                if ends is error:
                    raise
                raise ends from None  # noqa: ASYNC104 - what of it is not a failure
        if failed is None:
            request.__finish__(None)
            return
        try:
            self._done(request, failed)
        finally:
            del failed  # which knows this frame

    async def _until_nobody_waits(self, request: ServiceRequest, work: Awaitable[None]) -> None:
        with trio.CancelScope(deadline=request.deadline) as scope:
            await work
        if scope.cancelled_caught:
            request.__give_up__(LATE)

    def _done(self, request: ServiceRequest, failed: Exception | None) -> None:
        request.__finish__(failed)
        if failed is not None:
            self._endpoint.tell(failed)
