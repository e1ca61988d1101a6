"""Deleting an object: a marker in place of its info, and then its data."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats import errors
from trionats._jetstream.objects.access import MESSAGE_TOO_LARGE
from trionats._jetstream.objects.doubting import leave_in_doubt
from trionats._jetstream.objects.infos import InfoWrite
from trionats._jetstream.objects.replacing import replace_info
from trionats._protocol.jetstream.objects.writing import marker

if TYPE_CHECKING:
    from trionats._jetstream.objects.access import Access
    from trionats._protocol.jetstream.objects.places import Place

__all__ = ["Deleting"]


@final
class Deleting:
    """Deletes objects of one bucket."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def delete(self, name: str) -> None:
        """Delete an object, as `ObjectStore.delete` says."""
        place = await self._access.find(name)
        if not place.revision or place.elsewhere is not None:
            raise self._access.not_found(name)
        doing = f"deletion of object {name!r} from bucket {self._access.bucket!r}"
        if place.taken:
            await self._mark_deleted(place, name, doing)
        failure = await self._access.release(place, doing)
        if failure is not None:
            raise _data_stays(doing, failure) from failure

    async def _mark_deleted(self, place: Place, name: str, doing: str) -> None:
        access = self._access
        write = InfoWrite(access, place, doing)
        try:
            try:
                await replace_info(write, marker(place, name, access.bucket, access.limits))
            except errors.APIError as error:
                too_large = error.err_code == MESSAGE_TOO_LARGE
                if not too_large or not await access.ask_limit():  # noqa: ASYNC120 - cancelled, it is what the caller wants
                    raise
                await replace_info(write, marker(place, name, access.bucket, access.limits))
        except BaseException:
            # The data goes only once the marker stands, and then even if we are being cancelled.
            if write.revision is not None:
                await access.purge_replaced(place, doing)  # noqa: ASYNC102 - shielded and bounded inside
            elif write.in_doubt:
                leave_in_doubt(write)
            raise
        finally:
            write.close()


def _data_stays(doing: str, why: Exception) -> Exception:
    text = f"{doing}: it is deleted, but its data stays in the bucket: {why}"
    return errors.explained(type(why), text, **vars(why))
