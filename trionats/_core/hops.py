"""`Client.trace`: publish a message, and collect what the servers that it passes report of it.

It is a request for many replies (`request_many`) whose message has no reply subject: what servers report to stands in its headers,
and whoever receives it is not to respond there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import checkpoint_if_cancelled

from trionats import errors
from trionats._core.deadlines import seconds_to_wait, too_late
from trionats._core.request_many import ReplyCollector
from trionats._protocol.replies import ReplyPolicy
from trionats._protocol.server_errors import refusal_of
from trionats._protocol.tracing import LEAST_VERSION, Gathering, check_headers, read_hop, trace_fields
from trionats._protocol.versions import check_version

if TYPE_CHECKING:
    from trionats._core.connection import Connection
    from trionats._core.frames import Headers
    from trionats._core.message import Msg
    from trionats._protocol.commands import Payload
    from trionats.monitoring import Trace


async def trace_message(
    connection: Connection, subject: str, payload: Payload, headers: Headers | None, *, only: bool, stall: float
) -> Trace:
    """Publish a message and collect the reports, as `Client.trace` says."""
    await checkpoint_if_cancelled()
    what = f"trace to {subject!r}"
    if isinstance(headers, Mapping):
        check_headers(headers)
    gathering = Gathering(subject, only=only)

    def take(message: Msg) -> bool:
        hop = connection.foreign.read(what, read_hop, message)
        return hop is not None and gathering.take(hop)

    total = seconds_to_wait(connection.request_timeout)
    policy = ReplyPolicy(trio.current_time(), total=total, stall=stall, sentinel=take)
    if not connection.supervisor.has_room or not connection.supervisor.accepting:
        with connection.limit(what):
            await connection.supervisor.wait_room()
    # Of the server that it is sent to, if there is one; where there is none, it is seen when it is there.
    check_version("trace", LEAST_VERSION, str(connection.engine.info.get("version", "")))
    inbox = connection.requests.new_inbox()
    ours = trace_fields(inbox, only=only)
    # What is no mapping is refused where each message is looked at.
    fields = {**headers, **ours} if isinstance(headers, Mapping) else headers or ours
    many_request, frame, size = connection.ask_many(subject, payload, fields, inbox, doing="trace")
    collector = ReplyCollector(many_request, connection.requests, policy)
    try:
        # A server behind a gateway learns of an inbox over another connection than it gets the message, and has nowhere to report to
        # where the message is quicker. So the inbox lies within the one of all requests, which is known from then on; and the first
        # message follows only when our own server has passed it on. Nor is it sent at all where the inbox is refused.
        connection.requests.listen()
        many_request.listen(collector)
        with connection.limit(what):
            await connection.supervisor.barrier()
        if not collector.done:
            many_request.send(frame, size)
        await collector.wait()
    finally:
        collector.close()
    if gathering.empty:
        await checkpoint_if_cancelled()
        raise too_late(total, f"{what}: no server reported", errors.TimeoutError)
    if (refusal := gathering.refusal()) is not None:
        raise refusal_of(what, refusal)
    return gathering.trace()
