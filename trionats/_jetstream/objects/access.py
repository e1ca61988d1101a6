"""A bucket of objects as all that is done in it sees it: where it is, how large a message may be, and what stands in a place."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, final

from trionats import errors
from trionats._jetstream.api import NO_MESSAGE, Api, api_error, in_store
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.objects.buckets import Bucket, bucket_name, max_msg_size, origin_of
from trionats._jetstream.objects.purging import Purge
from trionats._protocol import subjects
from trionats._protocol.jetstream.objects.names import places
from trionats._protocol.jetstream.objects.places import Place, read_place
from trionats._protocol.jetstream.objects.writing import Limits

if TYPE_CHECKING:
    from trionats import api
    from trionats._core.messaging import Publishing

__all__ = ["MESSAGE_TOO_LARGE", "Access", "ObjectGoneError"]

MESSAGE_TOO_LARGE = 10054


class ObjectGoneError(errors.ObjectDeletedError, errors.ObjectNotFoundError):
    """The object was deleted; for who does not ask for deleted ones it is simply not found."""


@final
class Access:
    """A bucket, for those who read and write its objects.

    Args:
        jetstream: Where the bucket is.
        names: The bucket's names.
        limit: How large a message its stream takes, as it was said last; it may have been changed since.
    """

    def __init__(self, jetstream: Api[Publishing], names: Bucket, limit: int) -> None:
        self.api = jetstream
        self.names = names
        self.bucket, self.stream = names.name, names.stream
        self._max_msg_size = limit
        self.nuids = subjects.Nuid(random.SystemRandom())

    async def find(self, name: str) -> Place:
        """Read what stands under a name, in the place where everybody looks, or else in nats.js's."""
        first, *others = map(self.names.info_subject, places(name, self.bucket))
        found = await self.read_place(name, first)
        for subject in others if not found.taken else ():
            other = await self.read_place(name, subject)
            if other.taken or (other.elsewhere is None and other.revision and not found.revision):
                return other
        return found

    async def read_place(self, name: str, subject: str) -> Place:
        """Read what stands in one place, as the stream's leader has it."""
        with in_store(str(self.names)):
            message = await self.api.last_stored(self.stream, subject)
        return Place(subject) if message is None else read_place(self.bucket, name, subject, message)

    async def info(self, name: str, *, show_deleted: bool = False) -> api.ObjectInfo:
        """Read an object's info, as the stream's leader has it.

        Raises:
            trionats.errors.ObjectNotFoundError: There is no such object, or (also an `ObjectDeletedError`) no longer.
            trionats.errors.BadObjectMetaError: What stands there is no info of an object.
        """
        place = await self.find(name)
        if place.elsewhere is None and place.problem is not None:
            raise place.problem
        info = place.info
        if info is None or place.elsewhere is not None:
            raise self.not_found(name)
        if info.deleted and not show_deleted:
            text = f"object {name!r} in bucket {self.bucket!r} was deleted"
            raise api_error(ObjectGoneError, text, text, code=404)
        return info

    async def beside(self, bucket: str) -> Access:
        """Find another bucket at the same API.

        Raises:
            trionats.errors.InvalidBucketNameError: The name is none.
            trionats.errors.BucketNotFoundError: There is no such bucket.
        """
        found = Bucket(bucket_name(bucket), bucket)
        with in_store(str(found)):
            info = await JetStreamManager(self.api).stream_info(found.stream)
        origin = origin_of(info, self.api.prefix)
        self.api.whereabouts.origin_found(found.stream, origin)
        if origin is not None:
            found = Bucket(bucket, origin.stream.removeprefix("OBJ_"))
        return Access(self.api, found, max_msg_size(info))

    def not_found(self, name: str) -> errors.ObjectNotFoundError:
        """Make the exception for an object that there is not."""
        text = f"there is no object {name!r} in bucket {self.bucket!r}"
        return api_error(errors.ObjectNotFoundError, text, text, code=404, err_code=NO_MESSAGE)

    @property
    def limits(self) -> Limits:
        """How large a message may be, as far as is known."""
        return Limits(self.api.connection.max_payload, self._max_msg_size)

    async def ask_limit(self) -> bool:
        """Ask for the bucket's limit anew; say whether it is another one."""
        before = self._max_msg_size
        with suppress(errors.Error):
            self._max_msg_size = max_msg_size(await JetStreamManager(self.api).stream_info(self.stream))
        return self._max_msg_size != before

    # Data that nobody can find any more; what it belongs to has happened already.

    def _purge_of(self, nuid: str, doing: str) -> Purge | None:
        """Make the purge of an object's chunks; an object that has none of its own needs none."""
        return Purge(self.api, self.stream, self.names.chunk_subject(nuid), doing) if nuid else None

    def begin_purge(self, nuid: str, doing: str) -> None:
        """Purge an object's chunks, without waiting for it."""
        purge = self._purge_of(nuid, doing)
        if purge is not None:
            purge.begin()

    async def purge(self, nuid: str, doing: str) -> Purge | None:
        """Purge an object's chunks, and wait for it: shielded, and bounded."""
        purge = self._purge_of(nuid, doing)
        if purge is not None:
            await purge.wait()
        return purge

    async def purge_replaced(self, place: Place, doing: str) -> None:
        """Purge the chunks of what has stood in a place, and tell where the server does not do it."""
        purge = await self.purge(place.nuid, doing)
        if purge is not None and purge.failure is not None:
            purge.tell()
