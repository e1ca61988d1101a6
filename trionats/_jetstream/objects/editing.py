"""Changing what is said of an object, and its name: its info is written anew, and its data stays where it is.

In which steps an object is renamed, and what holds when they are broken off, stands in `_protocol.jetstream.objects.editing`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, final

import trio

from trionats import api, errors
from trionats._jetstream.api import CLEANUP_LIMIT
from trionats._jetstream.objects.infos import InfoWrite
from trionats._jetstream.objects.replacing import replace_info, stamp, write_info
from trionats._protocol.jetstream.objects import editing
from trionats._protocol.jetstream.objects.infos import bad_meta
from trionats._protocol.jetstream.objects.names import places
from trionats._protocol.jetstream.publishing.publish import is_conflict

if TYPE_CHECKING:
    from nats.js.api import ObjectMeta as AnyObjectMeta

    from trionats._jetstream.objects.access import Access
    from trionats._protocol.jetstream.objects.places import Place

__all__ = ["Editing"]

#: How often a new name is taken away that somebody changes at the same time.
LEAVE_ATTEMPTS = 10


@final
class Editing:
    """Changes what is said of the objects of one bucket."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def update_meta(self, name: str, meta: AnyObjectMeta) -> api.ObjectInfo:
        """Say something else of an object, as `ObjectStore.update_meta` says."""
        access = self._access
        places(name, access.bucket)
        edit = editing.edit(name, access.bucket, meta)
        if edit.name is not None:
            places(edit.name, access.bucket)
        place = await access.find(name)
        info = edit.of(access.readable(place, name))
        if edit.name not in (None, name):
            return await _Renaming(access, place, info, name).run()
        await access.check_fits(info)
        await write_info(access, info, place, f"update of object {name!r} in bucket {access.bucket!r}")
        return info


@final
class _Renaming:
    """One renaming.

    Args:
        access: The bucket.
        source: What stands under the old name.
        info: What is to stand under the new one.
        name: The old name.
    """

    def __init__(self, access: Access, source: Place, info: api.ObjectInfo, name: str) -> None:
        self._access, self._source, self._info, self._name = access, source, editing.renamed(info, source), name
        # One for all attempts: by its nuid it is known again.
        self._nuid = access.nuids.next()
        self._doing = f"renaming of object {name!r} to {info.name!r} in bucket {access.bucket!r}"

    async def run(self) -> api.ObjectInfo:
        """Rename it."""
        access = self._access
        target = await access.find_target(self._info.name)
        editing.check_target(target, self._source, self._info.name, access.bucket)
        info = self._info
        await access.check_fits(info)
        await self._announce(target)
        write = InfoWrite(access, target, self._doing)
        leaving = InfoWrite(access, self._source, self._doing)
        try:
            stamp(info, target, await replace_info(write, info))
            await self._leave_old(leaving, info, target)
        except BaseException as error:
            if write.revision is not None and isinstance(error, trio.Cancelled):
                # From here on forward is the shorter way to one name.
                with suppress(errors.Error), trio.move_on_after(CLEANUP_LIMIT, shield=True):
                    stamp(info, target, write.revision)
                    await self._leave_old(leaving, info, target)
            raise
        finally:
            write.close()
            leaving.close()
        if target.nuid != info.nuid:
            await access.purge_replaced(target, self._doing)
        return info

    async def _announce(self, target: Place) -> None:
        """Let the old info say where the new one is going to be."""
        source, info = self._source, self._source.info
        assert info is not None, "it was read"
        if source.shared == target.subject:
            return
        if source.shared and editing.is_same(other := await self._access.read_other(source.shared), source):
            known_as = other.info.name if other.info is not None else "another name"
            text = f"a renaming was broken off, and it is also {known_as!r}: do that again, or delete one of the two"
            raise bad_meta(self._name, self._access.bucket, text)
        said = editing.announced(info, target)
        await self._access.check_fits(said)
        await write_info(self._access, said, source, self._doing)
        assert said.revision is not None, "it is stored"
        self._source = replace(source, revision=said.revision, info=said)

    async def _leave_old(self, write: InfoWrite, info: api.ObjectInfo, target: Place) -> None:
        """Take the old name away; or the new one, where somebody else has changed the old one meanwhile."""
        old = self._source.info
        assert old is not None, "it was read"
        marker, was_in_doubt = editing.gone(old, self._nuid, target), write.in_doubt
        try:
            if write.revision is None:
                await replace_info(write, marker)
        except errors.Error as error:
            refused = is_conflict(error)
            # In doubt before, it may have been the marker itself that was changed: then the new name is all that there is.
            if refused and not was_in_doubt:
                await self._leave_new(info, target)  # noqa: ASYNC120 - cancelled, it is what the caller wants
                raise
            text = f"{error}; it has its new name, and may have the old one, too, until that is done again"
            raise errors.explained(type(error), text, **vars(error)) from error

    async def _leave_new(self, info: api.ObjectInfo, target: Place) -> None:
        """Take the new name away again, and its data with it where nobody else has that."""
        assert info.revision is not None, "it is stored"
        here = replace(target, revision=info.revision, info=info, problem=None, nuid=info.nuid)
        marker = editing.gone(info, self._access.nuids.next(), self._source)
        with suppress(errors.Error):
            # Whoever says something else of it meanwhile does not keep it from going.
            for _ in range(LEAVE_ATTEMPTS):
                with suppress(errors.BadRequestError):
                    await write_info(self._access, marker, here, self._doing)
                    return
                here = await self._access.read_other(target.subject)
                if here.claim != info.nuid:
                    return
