"""Adding links to a bucket of objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats._jetstream.objects.replacing import write_info
from trionats._protocol.jetstream.objects.links import bucket_link, check_place, object_link
from trionats._protocol.jetstream.objects.names import places

if TYPE_CHECKING:
    from nats.js.api import ObjectInfo as AnyObjectInfo

    from trionats import api
    from trionats._jetstream.objects.access import Access

__all__ = ["Linking"]


@final
class Linking:
    """Adds links to one bucket."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def to_object(self, name: str, target: AnyObjectInfo) -> api.ObjectInfo:
        """Add a link to an object, as `ObjectStore.add_link` says."""
        places(name, self._access.bucket)
        return await self._add(object_link(name, self._access.bucket, self._access.nuids.next(), target))

    async def to_bucket(self, name: str, target: str) -> api.ObjectInfo:
        """Add a link to a bucket, as `ObjectStore.add_bucket_link` says."""
        places(name, self._access.bucket)
        return await self._add(bucket_link(name, self._access.bucket, self._access.nuids.next(), target))

    async def _add(self, info: api.ObjectInfo) -> api.ObjectInfo:
        access = self._access
        await access.check_fits(info)
        place = await access.find_target(info.name)
        check_place(place, info.name, access.bucket)
        await write_info(access, info, place, f"link {info.name!r} in bucket {access.bucket!r}")
        return info
