"""Writing an info in the place of another one, until it is known what became of it (design 40).

It is stored once at the most: each time the same last info is expected in its place.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

from trionats import errors
from trionats._jetstream.api import CLEANUP_LIMIT
from trionats._jetstream.idle import IDLE_LIMIT
from trionats._jetstream.objects.doubting import leave_in_doubt
from trionats._jetstream.objects.infos import InfoWrite
from trionats._protocol.jetstream.objects.doubts import is_ours
from trionats._protocol.jetstream.objects.infos import rfc3339
from trionats._protocol.jetstream.publishing.publish import PUBLISH_RETRY_WAIT, is_conflict

if TYPE_CHECKING:
    from trionats import api
    from trionats._jetstream.objects.access import Access
    from trionats._protocol.jetstream.objects.places import Place

__all__ = ["replace_info", "stamp", "write_info"]


async def replace_info(write: InfoWrite, info: api.ObjectInfo) -> int:
    """Write an info; one whose acknowledgement was lost, or may be another domain's, is sent again until it is known what became of it.

    Args:
        write: Keeps what is known of the outcome, also when this raises.
        info: The info.

    Returns:
        Its revision.

    Raises:
        nats.errors.Error: It was not stored; or, with `write.in_doubt`, nobody knows.
    """
    try:
        return await write.send(info)
    except errors.Error as error:
        # An `APIError` in doubt may be another domain's; the one that was meant will say.
        limit = IDLE_LIMIT if isinstance(error, (errors.DisconnectedError, errors.APIError)) else CLEANUP_LIMIT
        with suppress(errors.Error), trio.move_on_after(limit):
            while write.in_doubt:
                await _settle(write, info)  # noqa: ASYNC120 - cancelled, it is what the caller wants
        if write.revision is None:
            raise
        return write.revision


async def _settle(write: InfoWrite, info: api.ObjectInfo) -> None:
    access, place, overtaken = write.access, write.place, False
    try:
        await write.send(info)
        return
    except errors.DisconnectedError:
        return
    except errors.APIError as error:
        overtaken = is_conflict(error)
    except errors.NoStreamResponseError:
        pass
    # Whatever the refusal says of this time, it says nothing of the first.
    try:
        now = await access.read_place(info.name, place.subject)
    except errors.DisconnectedError:
        return
    except errors.ServiceUnavailableError:
        await trio.sleep(PUBLISH_RETRY_WAIT)  # without a leader nobody can say
        return
    with suppress(errors.DisconnectedError):
        if now.revision != place.revision and is_ours(now, info, place):
            write.revision = now.revision
        elif overtaken and now.revision != place.revision:
            write.is_not_stored()
            # Who overtook us has replaced this one, or ours that had; it cannot be found any more either way, unless it was
            # only edited or renamed.
            if place.nuid != info.nuid and not await access.is_claimed(place.nuid, now):
                await access.purge_replaced(place, write.doing)
        else:
            if now.revision == place.revision:
                write.is_unchanged()
            if write.in_doubt:
                await trio.sleep(PUBLISH_RETRY_WAIT)


async def write_info(access: Access, info: api.ObjectInfo, place: Place, doing: str) -> None:
    """Write an info that has no data of its own, or that of the info before; what the info before had alone is purged.

    Args:
        access: The bucket.
        info: The info; it gets its revision, its subject and its time.
        place: What it is to take the place of.
        doing: What it is written for, for texts.

    Raises:
        nats.errors.Error: As for `replace_info`.
    """
    write = InfoWrite(access, place, doing)
    replaces = place.nuid != info.nuid
    try:
        stamp(info, place, await replace_info(write, info))
    except BaseException:
        if write.revision is not None and replaces:
            await access.purge_replaced(place, doing)  # noqa: ASYNC102 - shielded and bounded inside
        elif write.in_doubt and replaces:
            leave_in_doubt(write)
        raise
    finally:
        write.close()
    if replaces:
        await access.purge_replaced(place, doing)


def stamp(info: api.ObjectInfo, place: Place, revision: int) -> None:
    """Say of an info that it was stored: under which sequence, where and when.

    Args:
        info: The info.
        place: Where it was stored.
        revision: Under which sequence.
    """
    info.revision, info.subject = revision, place.subject
    info.mtime = rfc3339(int(datetime.now(UTC).timestamp() * 1e6) * 1000)
