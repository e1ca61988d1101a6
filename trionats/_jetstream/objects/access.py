"""A bucket of objects as all that is done in it sees it: where it is, how large a message may be, and what stands in a place.

Who may purge
    Chunks belong to the info that names them, and whoever takes that away purges them. While an object is renamed two infos name
    the same chunks, for good if that is broken off; each of them says where the other one is (`Place.shared`). So whoever
    has taken one of them away looks there first (`release`): the info is gone before the look, so of two who take away both at
    the same time, at least the later one finds nobody, and purges.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar, final

import trio

from trionats import api, errors, events
from trionats._jetstream.api import CLEANUP_LIMIT, NO_MESSAGE, Api, api_error, in_store
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.objects.buckets import find as find_bucket
from trionats._jetstream.objects.buckets import max_msg_size
from trionats._jetstream.objects.purging import Purge
from trionats._jetstream.publishing.destination import written_at
from trionats._protocol import subjects
from trionats._protocol.jetstream.objects.infos import bad_meta
from trionats._protocol.jetstream.objects.names import places
from trionats._protocol.jetstream.objects.places import Place, read_place
from trionats._protocol.jetstream.objects.writing import Limits
from trionats._protocol.jetstream.publishing.publish import PUBLISH_RETRY_WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._core.messaging import Publishing
    from trionats._jetstream.objects.buckets import Bucket

__all__ = ["MESSAGE_TOO_LARGE", "Access", "ObjectGoneError"]

T = TypeVar("T")

MESSAGE_TOO_LARGE = 10054
#: How often another place of an object is looked at: as often as fits into `CLEANUP_LIMIT`.
LOOKS: Final = 7


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
        return await self._read_place(name, subject, self.api, self.stream)

    async def read_other(self, subject: str) -> Place:
        """Read what stands in another place of an object, where it is written: a mirror may not have it yet.

        While the stream elects a leader it asks again: of what it finds depends whether data may go.
        """
        for _ in range(LOOKS - 1):
            with suppress(errors.ServiceUnavailableError, errors.DisconnectedError):
                return await self._read_place("", subject, *written_at(self.api, self.stream))
            await trio.sleep(PUBLISH_RETRY_WAIT)
        return await self._read_place("", subject, *written_at(self.api, self.stream))

    async def _read_place(self, name: str, subject: str, there: Api[Publishing], stream: str) -> Place:
        with in_store(str(self.names)):
            message = await there.last_stored(stream, subject)
        return Place(subject) if message is None else read_place(self.bucket, name, subject, message)

    async def info(self, name: str, *, show_deleted: bool = False) -> api.ObjectInfo:
        """Read an object's info, as `ObjectStore.get_info` says."""
        return self.readable(await self.find(name), name, show_deleted=show_deleted)

    async def beside(self, bucket: str) -> Access:
        """Find another bucket at the same API."""
        return Access(self.api, *await find_bucket(self.api, bucket))

    async def find_target(self, name: str) -> Place:
        """Find where an info of that name is to be written.

        Raises:
            trionats.errors.BadObjectMetaError: In its place stands another object.
        """
        place = await self.find(name)
        if place.elsewhere is not None and (place.info is None or not place.info.deleted):
            text = f"in its place stands object {place.elsewhere!r}, which nats.js wrote or which everybody else finds there"
            raise bad_meta(name, self.bucket, text)
        return place

    def readable(self, place: Place, name: str, *, show_deleted: bool = False) -> api.ObjectInfo:
        """Give the info that stands in a place, as `ObjectStore.get_info` says.

        Args:
            place: What was found.
            name: The object that was looked for.
            show_deleted: Whether a marker is an info, too.
        """
        if place.elsewhere is None and place.problem is not None:
            raise place.problem
        if place.info is None or place.elsewhere is not None:
            raise self.not_found(name)
        if place.info.deleted and not show_deleted:
            text = f"object {name!r} in bucket {self.bucket!r} was deleted"
            raise api_error(ObjectGoneError, text, text, code=404)
        return place.info

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

    async def check_fits(self, info: api.ObjectInfo) -> None:
        """Refuse an info that is too large; the bucket's limit may have been raised since it was asked for.

        Raises:
            trionats.errors.BadObjectMetaError: It is too large.
        """
        await self.fitting(lambda limits: limits.check_info(info, info.size or 0))

    async def fitting(self, check: Callable[[Limits], T]) -> T:
        """Check against the limits; and once more where that fails at the bucket's, which is another one by now.

        Raises:
            trionats.errors.BadObjectMetaError: What `check` raises.
        """
        try:
            return check(self.limits)
        except errors.BadObjectMetaError:
            ours = self.limits.least < self.api.connection.max_payload
            if not ours or not await self.ask_limit():  # noqa: ASYNC120 - cancelled, it is what the caller wants
                raise
            return check(self.limits)

    # Data that nobody can find any more; what it belongs to has happened already.

    def _purge_of(self, nuid: str, doing: str) -> Purge:
        return Purge(self.api, self.stream, self.names.chunk_subject(nuid), doing)

    def begin_purge(self, nuid: str, doing: str) -> None:
        """Purge an object's chunks, where it has any of its own, without waiting for it."""
        if nuid:
            self._purge_of(nuid, doing).begin()

    async def release(self, place: Place, doing: str) -> Exception | None:
        """Purge the chunks of what has stood in a place, unless it has another one, and wait for it: shielded, and bounded.

        Returns:
            Why they stay, where they should not.
        """
        if not place.nuid:
            return None
        if place.shared:
            try:
                with trio.fail_after(CLEANUP_LIMIT, shield=True):
                    if await self.is_claimed(place.nuid, await self.read_other(place.shared)):
                        return None
            except (errors.Error, trio.TooSlowError) as error:
                return error
        purge = self._purge_of(place.nuid, doing)
        await purge.wait()
        return purge.failure

    async def purge_replaced(self, place: Place, doing: str) -> None:
        """Release the chunks of what has stood in a place, and tell where they stay."""
        failure = await self.release(place, doing)
        if failure is not None:
            self.tell_left(place.nuid, failure)

    async def is_claimed(self, nuid: str, place: Place) -> bool:
        """Say whether an object still has these chunks: in a place, or in one that the object was renamed to from there.

        Args:
            nuid: The chunks.
            place: Where to begin.
        """
        seen = set()
        while place.claim != nuid:
            seen.add(place.subject)
            if not place.shared or place.shared in seen:
                return False
            place = await self.read_other(place.shared)
        return True

    def tell_left(self, nuid: str, why: Exception) -> None:
        """Tell that an object's chunks stay."""
        self.api.connection.emit(events.ChunksLeft(self.stream, self.names.chunk_subject(nuid), why))
