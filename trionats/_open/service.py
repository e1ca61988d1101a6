"""open_service, open_endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import checkpoint

from trionats._core.connection import connection_of
from trionats._feeds.opening import check_nursery, opens
from trionats._services.endpoint import PENDING_MSGS, opened
from trionats._services.service import Group, Identity, Service, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import trio

    from trionats._client import Client
    from trionats._feeds.bounded import BoundedFeed
    from trionats._services.endpoint import StatsHandler
    from trionats._services.request import ServiceRequest


@opens
async def open_service(
    nursery: trio.Nursery,
    nc: Client,
    name: str,
    version: str,
    *,
    description: str = "",
    metadata: Mapping[str, str] | None = None,
    queue: str = "q",
) -> AsyncIterator[Service]:
    """Run a service (ADR-32): others find it, ask what it is and does, and share the work with it.

    Entering returns once the server has its subscriptions: from then on it answers PING, INFO and STATS. Requests come to its
    endpoints: `open_endpoint` and `Service.serve`. Leaving stops it, as `Service.stop` does, and waits, shielded and bounded, only
    until its task is gone; blocks of its endpoints that stand elsewhere go on to their own ends. `Service.drain` waits for work
    that is under way.

    When `nursery` is cancelled it is not found any more, and its endpoints end: what is buffered, then the loop ends. So it is when
    the client is closed or lost. It survives reconnects.

    Args:
        nursery: Where its tasks live, and those of what is served (`Service.serve`). A cancel scope around this call bounds the
            opening, not the service.
        nc: The client.
        name: What it is called: ASCII letters, digits, dash and underscore. Several services may be called alike.
        version: Its version (semver.org), such as "1.2.3".
        description: What it does.
        metadata: What there is to say of it besides: names and texts.
        queue: The queue group of endpoints and groups that have none of their own: each request goes to one member of it, of
            this service and of others alike. An empty string for none: each is given all requests.

    Returns:
        An async context manager that gives the `Service`.

    Raises:
        TypeError: An argument is of a wrong kind.
        ValueError: An argument cannot be.
        trionats.errors.PermissionsViolationError: The server refuses to let it be asked (`$SRV.>`).
        nats.errors.TimeoutError: The server does not say in time that it has the subscriptions, as for `Client.flush`.
        nats.errors.ConnectionDrainingError: The client is being drained.
        nats.errors.ConnectionClosedError: The client is closed.
    """
    check_nursery(nursery, "open_service")
    connection = connection_of(nc, "open_service")
    service = Service(Identity(connection, nursery, name, version, description, metadata, queue))
    await checkpoint()
    async with running(nursery, service):
        yield service


@opens
async def open_endpoint(
    nursery: trio.Nursery,
    service_or_group: Service | Group,
    name: str,
    *,
    subject: str | None = None,
    queue: str | None = None,
    metadata: Mapping[str, str] | None = None,
    stats_handler: StatsHandler | None = None,
    pending_msgs_limit: int = PENDING_MSGS,
    honour_deadline: bool = False,
) -> AsyncIterator[BoundedFeed[ServiceRequest]]:
    """Receive the requests to one subject, as one of the endpoints of a service.

    Entering returns once the server gives it requests. `stop`, of this feed or of its service, ends it behind the PONG of its
    UNSUB: what the server gave us before it knew is still received, and then the loop ends. Leaving the block, cancelling the
    nursery and closing the client end it at once: to requests that wait then, or are on their way, 503 is responded, and so it is
    to those that find no place (`pending_msgs_limit`), with one `trionats.events.SlowConsumer` for each episode. It survives
    reconnects. It is raised by `receive` when the client is lost for good.

    Each request is to be responded to; `async with request:` sees to it where that fails. It is one loop: requests are worked on
    one after the other, unless several tasks receive. `Service.serve` has handlers in place of the loop.

    Args:
        nursery: Where the feeding task lives. A cancel scope around this call bounds the opening, not the feed.
        service_or_group: Whose endpoint it is.
        name: Its name: ASCII letters, digits, dash and underscore.
        subject: Where its requests go, in place of its name, behind what the subjects of its group begin with; wildcards allowed.
        queue: The queue group; an empty string for none; None for the one of its group.
        metadata: What there is to say of it besides: names and texts.
        stats_handler: Called with its `trionats.api.EndpointStats` when statistics are asked for; what it returns is told there
            as `data`: anything that JSON has. It must not wait. Where it raises, the rest is told, and a
            `trionats.events.HandlerFailed`.
        pending_msgs_limit: How many requests may wait to be received; `math.inf` for any number (of 64 MiB).
        honour_deadline: Look at the deadlines of requesters that tell (`Client.with_options(send_deadline=True)`): a request that
            nobody waits for any more is not handed over, but counted, and others have a `deadline`.

    Returns:
        An async context manager that gives a `BoundedFeed` of `ServiceRequest`.

    Raises:
        TypeError: An argument is of a wrong kind.
        ValueError: An argument cannot be, or the service was stopped.
        trionats.errors.PermissionsViolationError: The server refuses the subject.
        nats.errors.TimeoutError: The server does not say in time that it has the subscription, as for `Client.flush`.
        nats.errors.ConnectionDrainingError: The client is being drained.
        nats.errors.ConnectionClosedError: The client is closed.
    """
    check_nursery(nursery, "open_endpoint")
    _check_group(service_or_group)
    options = subject, queue, metadata, stats_handler, pending_msgs_limit, honour_deadline
    endpoint = service_or_group.__endpoint__("open_endpoint", name, *options)
    await checkpoint()
    async with opened(nursery, endpoint):
        yield endpoint


def _check_group(given: object) -> None:
    if not isinstance(given, Group):
        text = "open_endpoint(nursery, service_or_group, ...): it must be a Service or a Group"
        raise TypeError(f"{text}, not {type(given).__name__}")
