"""Groups as they are managed: their configuration in its bucket, and the work queue of an elastic one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trionats import api, errors
from trionats._jetstream.api import CLEANUP_LIMIT
from trionats._jetstream.kv import buckets
from trionats._jetstream.kv.store import KeyValue
from trionats._jetstream.management import STREAM_EXISTS, JetStreamManager
from trionats._protocol.jetstream.levels import Need
from trionats._protocol.jetstream.partitions.assets import queue_config, see_partitions
from trionats._protocol.jetstream.partitions.groups import Stored, read, unlike

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._protocol.jetstream.partitions.groups import Place

__all__ = ["change", "create", "delete", "find_bucket", "find_group", "require"]

#: One of several processes of a member is pinned, which is what needs a server of 2.11.
_GROUPS: Final = Need("a partitioned consumer group", 1)
#: Before that, a transform has to name the wildcards that make up a key.
_WHOLE_SUBJECTS: Final = Need("an elastic group without partitioning wildcards", 2)


async def require(jetstream: Api[Publishing], place: Place) -> None:
    """See to it that the server has what groups are made of.

    Raises:
        trionats.errors.APIError: It is too old.
    """
    await jetstream.require(str(place), _GROUPS)


async def find_bucket(jetstream: Api[Publishing], place: Place) -> KeyValue:
    """Find the bucket that groups of this kind are in.

    Raises:
        trionats.errors.GroupNotFoundError: There is none, and so no group.
    """
    try:
        return KeyValue(jetstream, await buckets.find(jetstream, place.bucket))
    except errors.BucketNotFoundError:
        raise place.missing() from None


async def find_group(kv: KeyValue, place: Place) -> tuple[Stored, int]:
    """Read the configuration of a group as the leader has it, with its revision.

    Raises:
        trionats.errors.GroupNotFoundError: There is no such group.
        trionats.errors.GroupChangedError: What is stored is no configuration.
    """
    try:
        entry = await kv.get(place.key, leader=True)
    except (errors.KeyNotFoundError, errors.BucketNotFoundError):
        raise place.missing() from None
    try:
        return read(place, entry.value), entry.revision
    except ValueError as error:
        raise place.changed(str(error)) from None


async def create(jetstream: Api[Publishing], place: Place, wanted: Stored) -> api.ConsumerGroup:
    """Create a group; one that exists with the same configuration is as good.

    The configuration is stored first, as other clients do: who is told that it exists creates the same queue. Failed or cancelled, what was
    stored is deleted again.
    """
    await require(jetstream, place)
    if place.elastic and not (wanted.group.filters and all(wanted.group.filters.values())):
        await jetstream.require(str(place), _WHOLE_SUBJECTS)
    source = (await JetStreamManager(jetstream).stream_info(place.stream)).config
    if not place.elastic:
        see_partitions(place, source)
    kv = await _bucket(jetstream, place, source.num_replicas or 1)
    revision = 0
    try:
        try:
            revision = await kv.create(place.key, wanted.data)
            there = wanted
        except errors.KeyWrongLastSequenceError:
            there, _ = await find_group(kv, place)  # noqa: ASYNC120 - as it should
            if field := unlike(wanted.group, there.group):
                raise place.changed(f"it exists with another {field}") from None
        if place.elastic:
            await JetStreamManager(jetstream).add_stream(queue_config(place, there.group, source))
    except BaseException:
        if revision:
            with suppress(errors.Error), trio.move_on_after(CLEANUP_LIMIT, shield=True):
                await kv.delete(place.key, last=revision)
        raise
    return there.group


async def _bucket(jetstream: Api[Publishing], place: Place, replicas: int) -> KeyValue:
    """Find the bucket of this kind, or create it with as many replicas as the stream has, as other clients do."""
    with suppress(errors.GroupNotFoundError):
        return await find_bucket(jetstream, place)
    try:
        wanted = {"bucket": place.bucket, "replicas": replicas, "storage": api.StorageType.FILE}
        return KeyValue(jetstream, await buckets.create(jetstream, None, wanted))
    except errors.APIError as error:
        if error.err_code != STREAM_EXISTS:
            raise
    # Somebody was faster.
    return await find_bucket(jetstream, place)


async def change(jetstream: Api[Publishing], place: Place, become: Callable[[Stored], Stored]) -> api.ConsumerGroup:
    """Change who is a member of a group, however many others do so at the same time.

    Args:
        jetstream: Where it is.
        place: The group.
        become: Says what it is to be, given what it is.
    """
    kv = await find_bucket(jetstream, place)
    while True:
        before, revision = await find_group(kv, place)
        after = become(before)
        if after.fields == before.fields:
            return before.group
        try:
            await kv.update(place.key, after.data, revision)
        except errors.KeyWrongLastSequenceError:
            continue
        return after.group


async def delete(jetstream: Api[Publishing], place: Place) -> bool:
    """Delete a group: its configuration, and then what its members read with.

    What an earlier call has left, which was cancelled or has failed, is deleted as well.
    """
    kv = await find_bucket(jetstream, place)
    members: list[str] = []
    there = True
    try:
        members = list((await find_group(kv, place))[0].group.members)
    except errors.GroupNotFoundError:
        there = False
    except errors.GroupChangedError:
        # Nobody can read it. It goes all the same, and what it has left can be named by nobody.
        pass
    if there:
        await kv.delete(place.key)
    manager = JetStreamManager(jetstream)
    if place.elastic:
        there = await _delete_queue(manager, place) or there
    for member in members if not place.elastic else ():
        with suppress(errors.NotFoundError):
            await manager.delete_consumer(place.stream, place.consumer(member))
    if not there:
        raise place.missing()
    return True


async def _delete_queue(manager: JetStreamManager, place: Place) -> bool:
    """Delete the work queue of a group, unless what is called so is somebody else's stream; say whether there was one."""
    try:
        config = (await manager.stream_info(place.read_stream)).config
        sources = [source.name for source in config.sources or []]
        if config.retention != api.RetentionPolicy.WORK_QUEUE or sources != [place.stream]:
            return False
        return await manager.delete_stream(place.read_stream)
    except errors.NotFoundError:
        return False
