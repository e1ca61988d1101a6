"""Messages that the server stores at a time (ADR-51): scheduling them, taking that back, listing them."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from trionats import api, errors
from trionats._jetstream.api import about
from trionats._jetstream.management import JetStreamManager, purged
from trionats._jetstream.ordered.entries import Entries
from trionats._jetstream.ordered.listing import list_stored
from trionats._jetstream.publishing.publish import publish_until_known
from trionats._protocol.jetstream.actions import LAST_PER_SUBJECT
from trionats._protocol.jetstream.direct import read_leaders
from trionats._protocol.jetstream.schedules import hint_of, is_schedule, need_of, read_schedule
from trionats._protocol.subjects import stream_name
from trionats._told.moments import moment_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._protocol.jetstream.acks import AckSubject

__all__ = ["list_schedules", "schedule", "unschedule"]


async def schedule(
    jetstream: Api[Publishing],
    doing: str,
    subject: str,
    data: bytes,
    headers: Mapping[str, str | Sequence[str]] | None,
    asked: Mapping[str, str],
) -> api.PubAck:
    """Store a schedule, if the server knows all that it says.

    Args:
        jetstream: Where its stream is.
        doing: What is done, for the text of exceptions.
        subject: Its subject.
        data: Its payload.
        headers: All its headers.
        asked: What stands among them that makes it a schedule.

    Raises:
        trionats.errors.APIError: The server is too old, or the stream refused.
    """
    await jetstream.require(doing, need_of(asked))
    try:
        return await publish_until_known(jetstream, doing, subject, data, headers, asked)
    except errors.APIError as error:
        hint = hint_of(error.err_code)
        if not hint:
            raise
        raise errors.explained(type(error), f"{error}; {hint}", **vars(error)) from None


async def unschedule(jetstream: Api[Publishing], subject: str, stream: str | None) -> bool:
    """Remove a schedule, whatever stands on top of it.

    Args:
        jetstream: Where its stream is.
        subject: Its subject.
        stream: Its stream; None to look for the one that listens there.

    Returns:
        Whether there was one.
    """
    if stream is not None:
        stream_name(stream)
    else:
        stream = await JetStreamManager(jetstream).find_stream_name_by_subject(subject)
    # A schedule replaces all that its subject held, so it is the first message there. Whether it is armed nobody says: a message on
    # top disarms it, but not one that another schedule made, and not beyond a crash of the server.
    first = await _stored(jetstream, stream, subject, {"seq": 1, "next_by_subj": subject})
    if first is None or not is_schedule(first.headers):
        return False
    # What was stored since stays: it is not what was seen.
    return bool(await purged(jetstream, "unschedule", stream, first.seq + 1, subject, None))


async def list_schedules(jetstream: Api[Publishing], stream: str, pattern: str) -> list[api.Schedule]:
    """List the schedules of a stream.

    Args:
        jetstream: Where the stream is.
        stream: The stream.
        pattern: What their subjects match.
    """
    manager = JetStreamManager(jetstream)
    config = (await manager.stream_info(stream)).config
    if not config.allow_msg_schedules:
        return []
    doing = f"schedules of stream {stream!r}"
    foreign = jetstream.connection.foreign
    if config.retention == api.RetentionPolicy.LIMITS:
        entries = Entries(
            f"stream {stream!r}", jetstream, stream, [pattern], foreign.reader(doing, _read), attrgetter("subject")
        )
        return await list_stored(entries, LAST_PER_SUBJECT, doing)
    # A consumer beside its own would not be let in, or would change what is kept.
    info = await manager.stream_info(stream, pattern)
    found = [
        await _stored(jetstream, stream, subject, {"last_by_subj": subject}) for subject in info.state.subjects or {}
    ]
    read = [foreign.read(doing, _read_stored, stored) for stored in found if stored is not None]
    return sorted((entry for entry in read if entry is not None), key=attrgetter("seq"))


async def _stored(
    jetstream: Api[Publishing], stream: str, subject: str, asked: Mapping[str, object]
) -> api.StoredMsg | None:
    message = await jetstream.stored(stream, asked)
    if message is None:
        return None
    with about(f"message of {subject!r} of stream {stream!r}"):
        return read_leaders(stream, message)


def _read(msg: Msg, ack: AckSubject) -> api.Schedule | None:
    return read_schedule(msg.subject, ack.sequence, moment_of(ack.timestamp), msg.headers, msg.data)


def _read_stored(stored: api.StoredMsg) -> api.Schedule | None:
    return read_schedule(stored.subject, stored.seq, stored.time, stored.headers, stored.data)
