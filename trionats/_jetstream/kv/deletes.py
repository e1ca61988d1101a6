"""Purging what is left of keys that are gone: their markers, and what stands before those."""

from __future__ import annotations

import json
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from trionats import errors
from trionats._jetstream.api import decode
from trionats._jetstream.kv.watch import entries_in
from trionats._jetstream.ordered.listing import list_stored
from trionats._jetstream.publishing.destination import written_at
from trionats._jetstream.publishing.publish import queue_request
from trionats._protocol.jetstream.actions import LAST_PER_SUBJECT
from trionats._protocol.jetstream.kv.codecs import ALL_KEYS
from trionats._protocol.jetstream.kv.writing import purge_request

if TYPE_CHECKING:
    from trionats._core.messaging import Publishing
    from trionats._core.requests import PendingReply
    from trionats._jetstream.api import Api
    from trionats._jetstream.kv.access import Access

__all__ = ["purge_deletes"]

#: How many purges are under way at the most.
WINDOW: Final = 64


async def purge_deletes(access: Access, olderthan: float) -> int:
    """Purge what is left of keys that are gone, as `KeyValue.purge_deletes` says."""
    names = access.names
    doing = f"purge of deleted keys of bucket {names.name!r}"
    stored = entries_in(access.api, names, ALL_KEYS, ignore_deletes=False, meta_only=True)
    markers = [entry for entry in await list_stored(stored, LAST_PER_SUBJECT, doing) if entry.operation is not None]
    now = datetime.now(UTC)
    asked = [(one, purge_request(names.read_prefix + one.key, one, now, olderthan)) for one in markers]
    requests = [request for _, request in asked if request is not None]
    there, stream = written_at(access.api, names.stream)
    await _purge(there, stream, requests, doing)
    if access.api.whereabouts.origin(names.stream) is not None:
        # A mirror is not told of a purge of its origin.
        await _purge(access.api, names.stream, requests, doing)
    return sum(request is not None and request["seq"] > one.revision for one, request in asked)


async def _purge(jetstream: Api[Publishing], stream: str, requests: list[dict[str, Any]], doing: str) -> None:
    # What the client's `request_timeout` bounds is each wait; so it is with several under way.
    subject = f"{jetstream.prefix}.STREAM.PURGE.{stream}"
    waiting: deque[PendingReply] = deque()
    try:
        for request in requests:
            if len(waiting) == WINDOW:
                await _settle(waiting.popleft(), doing)
            waiting.append(await queue_request(jetstream.connection, subject, json.dumps(request).encode()))
        while waiting:
            await _settle(waiting.popleft(), doing)
    finally:
        for reply in waiting:
            reply.close()


async def _settle(reply: PendingReply, doing: str) -> None:
    with reply:
        try:
            msg = await reply.wait()
        except errors.Error as error:
            raise errors.explained(type(error), f"{doing}: {error}", **vars(error)) from error
    decode(doing, msg.data)
