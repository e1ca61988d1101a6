"""Object stores: put, get, info, list, delete, over what the other rooms of this folder do (design 12, 40, 58)."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Never, final

from trio.lowlevel import enable_ki_protection

from trionats import api
from trionats._core.deadlines import unexpected
from trionats._feeds.opening import opens
from trionats._jetstream.api import Api
from trionats._jetstream.objects import buckets
from trionats._jetstream.objects.access import Access
from trionats._jetstream.objects.deleting import Deleting
from trionats._jetstream.objects.editing import Editing
from trionats._jetstream.objects.infos import infos_in
from trionats._jetstream.objects.links import Linking
from trionats._jetstream.objects.orphans import Orphans
from trionats._jetstream.objects.putting import Putting
from trionats._jetstream.objects.reading import Reading
from trionats._jetstream.objects.sealing import seal
from trionats._jetstream.ordered.listing import list_stored
from trionats._protocol.fields import check_argument
from trionats._protocol.jetstream.actions import LAST_PER_SUBJECT
from trionats._protocol.jetstream.buckets.kinds import OBJECTS

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator

    from nats.js.api import ObjectInfo as AnyObjectInfo
    from nats.js.api import ObjectMeta as AnyObjectMeta

    from trionats._core.messaging import Publishing
    from trionats._jetstream.objects.buckets import Bucket
    from trionats._jetstream.objects.sources import ObjectData
    from trionats._jetstream.objects.stream import ObjectStream
    from trionats._jetstream.ordered.entries import Entries
    from trionats._jetstream.progress import Progress

__all__ = ["ObjectStore"]

#: How many seconds ago the newest chunk of an orphan was stored, at the least, where nobody says anything.
ORPHAN_AGE = 3600.0


@final
class ObjectStore:
    """A bucket of objects: data of any size under a name, with what the user says about it.

    Comes from `JetStream.create_object_store` and `JetStream.object_store`. It holds no state of its own, needs no
    closing, and may be used from several tasks at once.
    """

    def __init__(self, jetstream: Api[Publishing], bucket: Bucket, max_msg_size: int = 0) -> None:
        self._access = access = Access(jetstream, bucket, max_msg_size)
        self._reading, self._putting, self._deleting = Reading(access), Putting(access), Deleting(access)
        self._editing, self._links, self._orphanage = Editing(access), Linking(access), Orphans(access)

    def __repr__(self) -> str:
        return f"<ObjectStore {self.bucket!r}>"

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._access.bucket

    @property
    def stream(self) -> str:
        """The name of the stream that holds it."""
        return self._access.stream

    def __entries__(self, *, ignore_deletes: bool = False) -> Entries[api.ObjectInfo]:
        """Give what a watcher has to know, as `__messaging__` gives the seam to what is built on a client."""
        return infos_in(self._access.api, self._access.names, ignore_deletes=ignore_deletes)

    @enable_ki_protection
    async def put(
        self,
        name: str,
        data: ObjectData,
        meta: AnyObjectMeta | None = None,
        progress: Progress | None = None,
        **unknown: Never,
    ) -> api.ObjectInfo:
        """Store an object, replacing the one of that name.

        The data is sent in chunks of 128 KiB, or of what the server and the bucket's stream take where that is less; or
        of `meta.options.max_chunk_size`. However it comes, all but the last chunk have that size. At most 8 MiB of them are
        unacknowledged; the new object becomes visible, all at once, when every chunk is acknowledged. There is no limit to how
        long it may take, but it fails when the server says nothing for 30 s, or when the connection breaks before its last
        step. Your own source may take any time.

        A put that fails or is cancelled purges what it has stored and leaves the old object as it was. It waits for
        that, shielded, for 2 s at the most; what the server stores later than that is purged when its acknowledgement
        comes, or after the next connection, for as long as the client lives. Where the server refuses a purge, of this
        object's data or of that which it replaced, a `trionats.events.ChunksLeft` event says so.

        What stood under the name may be an object, a link, the marker of a deleted object, or what is no info at all:
        it is replaced. A name beyond ASCII that nats.js has stored in a place of its own stays in that place.

        What you give is read from where it stands to its end, and never closed: a file, a stream, an async generator. What it
        raises is raised here. A file is read in a thread; where the file is yours, that is waited for, also by a put that is cancelled.
        A file that grows or shrinks meanwhile, or a `bytearray` that somebody changes, becomes an object of what was read.

        Cancelled in its last step, when the info is under way, it may have happened all the same; the object is whole
        then. If the connection breaks in that moment, too, or the put fails there because it stays away, the info is sent once more behind the
        next one, and only if nobody has changed the object meanwhile: so the put may still happen after a long outage, for as long as
        the client lives, and what is nobody's data then is purged. Where the server does not say for some minutes what became of it, a
        `trionats.events.ChunksLeft` event says so, and `purge_orphans` finds what is left.

        Args:
            name: The object's name, any text.
            data: Its content: `bytes`, a `bytearray` or a `memoryview`; text, which is encoded as UTF-8; a path (no `str`: that
                is text), which is opened and closed; a binary file, ordinary or of `trio.open_file`; a
                `trio.abc.ReceiveStream`; or an async iterable of bytes, in pieces of any size.
            meta: Its description, headers, metadata and chunk size. `name` holds, whatever stands in `meta`.
            progress: Called in this task as `progress(done, total)`, with the number of bytes that the bucket has
                acknowledged, and of those that there are; None where that is not known yet. It never goes back, and ends with
                both the same. What it raises fails the put.

        Returns:
            The new object's info.

        Raises:
            trionats.errors.InvalidObjectNameError: The name is empty, or too long for the server.
            trionats.errors.BadObjectMetaError: `meta` says what cannot be, for instance that the object is a link; what
                it says is not text where text is meant; or the chunks that it asks for, or the info itself, are larger
                than the server or the bucket takes. Nothing is stored then.
            TypeError: `data`, or a piece of it, is nothing of the above: text from a file or an iterable, for instance.
            ValueError: `data` is text that has no UTF-8.
            OSError: A file cannot be read.
            trionats.errors.BadRequestError: Somebody else changed the object meanwhile; theirs stays.
            trionats.errors.APIError: The server refused, for instance because the bucket is full.
        """
        if unknown:
            raise unexpected("put", unknown, "store")
        return await self._putting.put(name, data, meta, progress)

    @enable_ki_protection
    async def put_file(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        meta: AnyObjectMeta | None = None,
        progress: Progress | None = None,
        **unknown: Never,
    ) -> api.ObjectInfo:
        """Store a file as an object, replacing the one of that name: `put`, given a path.

        Args:
            path: The file. It is opened before anything is sent, and closed.
            name: The object's name; the file's own, without its directories, unless one is given.
            meta: As for `put`.
            progress: As for `put`.

        Returns:
            The new object's info.

        Raises:
            OSError: The file cannot be opened, or read.
            TypeError: `path` is no path.
            ValueError: It is one that no file can have.
            nats.errors.Error: As for `put`.
        """
        if unknown:
            raise unexpected("put_file", unknown, "store")
        return await self._putting.put_file(path, name, meta, progress)

    @enable_ki_protection
    async def get(self, name: str, progress: Progress | None = None, **unknown: Never) -> api.ObjectResult:
        """Read an object whole, and verify it.

        There is no limit to how long it may take, but it fails when no chunk has come for 30 s; once its info was read (which is
        a request like any other), it goes on where it was after a reconnect. If the object is replaced while it is read, the new
        one is read.

        A link to an object, in this bucket or another one at the same API, is followed, and so are up to eight links one behind the
        other. What goes wrong on the way is told with each of them. A link to a bucket has no data.

        Args:
            name: The object's name.
            progress: Called in this task with the bytes that have come and with those there are, as often as half a MiB, and with
                the last byte. It begins anew with an object that was replaced. What it raises ends the get.

        Returns:
            The object's info and its data; where the name is a link's, those of the object that it leads to.

        Raises:
            trionats.errors.ObjectNotFoundError: There is no such object, or (also an `ObjectDeletedError`) no longer.
            trionats.errors.InvalidObjectNameError: The name is none; or, as an `InvalidBucketNameError` for a bucket's, that which a
                link names.
            trionats.errors.BucketNotFoundError: There is no such bucket; it may be one that a link leads to.
            trionats.errors.ObjectIncompleteError: Some of its chunks are missing, or do not add up to its size.
            trionats.errors.DigestMismatchError: Its chunks are not those that were put.
            trionats.errors.LinkIsABucketError: The name is that of a link to a bucket.
            trionats.errors.BadObjectMetaError: Its info cannot be true, or its links go round in a circle.
            trionats.errors.TimeoutError: Nothing came for 30 s.
            TypeError: `progress` cannot be called.
        """
        if unknown:
            raise unexpected("get", unknown, "store")
        return await self._reading.get(name, progress)

    @opens
    async def open_object(self, name: str) -> AsyncIterator[ObjectStream]:
        """Open an object as a stream of bytes, whatever its size; there is no task behind it, so it takes no nursery.

            async with store.open_object("film") as stream:
                async for piece in stream:
                    await file.write(piece)

        Entering waits for the first chunk. What is not received makes the server wait: at most 8 MiB are sent ahead. It fails
        when nothing comes for 30 s while somebody receives; who does not receive may take as long as they want.

        Count, size and digest are verified when it is read to its end: an exception comes in place of the end then. What was received
        before has been received. Where that matters, `get` gives nothing, and `get_file` leaves no file, before all is verified.

        If the object is replaced or deleted while it is read, that is a `trionats.errors.ObjectIncompleteError`: two are never mixed.

        Links are followed as `get` does. Leaving the block does not wait, and nothing is left on the server.

        Args:
            name: The object's name.

        Yields:
            The stream, with the object's info.

        Raises:
            nats.errors.Error: As for `get`; later, as `ObjectStream.receive_some` says.
        """
        stream = await self._reading.open(name)
        try:
            yield stream
        finally:
            stream.close()

    @enable_ki_protection
    async def get_file(
        self, name: str, path: str | os.PathLike[str], progress: Progress | None = None, **unknown: Never
    ) -> api.ObjectInfo:
        """Read an object into a file, which is there when it is whole, verified and on the disk, and not before.

        It is written beside its place, in the same directory, in a worker thread, and renamed when all has come. Where that fails or
        is cancelled, what stood at `path` is as it was, and nothing is left of the new file; that is waited for, shielded, for 2 s at
        the most. A program that is killed meanwhile leaves a hidden file whose name ends in ``.part``.

        Where a file is replaced, the new one gets its permissions, else those that `open` would give it. A symbolic link at `path`
        stays, and what it leads to is replaced.

        Args:
            name: The object's name.
            path: Where the file is to be; its directory must be there.
            progress: As for `get`.

        Returns:
            The object's info.

        Raises:
            nats.errors.Error: As for `get`.
            OSError: The file cannot be written there.
            TypeError: `path` is no path, or `progress` cannot be called.
            ValueError: `path` is empty, or there is something in its place that is neither file nor directory.
        """
        if unknown:
            raise unexpected("get_file", unknown, "store")
        return await self._reading.get_file(name, path, progress)

    @enable_ki_protection
    async def get_info(self, name: str, show_deleted: bool = False) -> api.ObjectInfo:
        """Read an object's info. It is read from the stream's leader, so it shows one's own last write.

        Args:
            name: The object's name.
            show_deleted: Return the marker of a deleted object instead of raising.

        Returns:
            The info.

        Raises:
            trionats.errors.ObjectNotFoundError: There is no such object, or (also an `ObjectDeletedError`) no longer.
            trionats.errors.BadObjectMetaError: What stands there is no info of an object; `put` and `delete` replace
                it.
        """
        check_argument("get_info", "show_deleted", bool, show_deleted)
        return await self._access.info(name, show_deleted=show_deleted)

    @enable_ki_protection
    async def delete(self, name: str) -> None:
        """Delete an object: its data is purged, and a marker stays that says so.

        Deleting a deleted object does nothing that shows; if a deletion was interrupted between its two steps, it finishes it.
        Links are deleted, not what they lead to. What stands under the name and is no info of an object is deleted,
        too, with the data that it names as far as that can be true.

        For the purge it waits 2 s at the most; it is done all the same, for as long as the client lives.

        Cancelled when the marker is under way, it may have happened all the same, and if the connection breaks in that
        moment, too, it may still happen behind the next one, as `put` says.

        Args:
            name: The object's name.

        Raises:
            trionats.errors.ObjectNotFoundError: There never was such an object.
            trionats.errors.BadRequestError: Somebody else changed the object meanwhile; it is not deleted.
            trionats.errors.PermissionsViolationError: The server refuses to purge. The object is deleted, and its data
                stays in the bucket until somebody who may purge deletes it once more.
            trionats.errors.APIError: The same where the server has another reason, or the server refused the marker;
                the text says which of the two it is.
        """
        await self._deleting.delete(name)

    @enable_ki_protection
    async def list(self, ignore_deletes: bool = True) -> builtins.list[api.ObjectInfo]:
        """List what the bucket holds.

        Args:
            ignore_deletes: Leave out the markers of deleted objects.

        Returns:
            The infos, the least recently changed first; an empty list for an empty bucket.

        Raises:
            trionats.errors.BucketNotFoundError: There is no such bucket any more.
            nats.errors.Error: As for any request to the JetStream API.
        """
        check_argument("list", "ignore_deletes", bool, ignore_deletes)
        infos = self.__entries__(ignore_deletes=ignore_deletes)
        return await list_stored(infos, LAST_PER_SUBJECT, f"list of bucket {self.bucket!r}")

    async def status(self) -> api.ObjectStoreStatus:
        """Ask how the bucket is: how much it holds, and what it is configured to be.

        Raises:
            trionats.errors.BucketNotFoundError: The bucket is not there any more.
        """
        return await buckets.status(self._access.api, self.bucket)

    @enable_ki_protection
    async def update_meta(self, name: str, meta: AnyObjectMeta) -> api.ObjectInfo:
        """Say something else of an object, or give it another name; its data stays where it is.

        What `meta` says takes the place of what was said before: description, headers and metadata that it leaves out are gone
        (metadata stays where `meta` is of nats-py's class, which has no word for it). To change a part, change
        `info.meta` of the info that was read. Fields that another client wrote, and this one does not know, stay.
        In a bucket with a `ttl` the data keeps its age, and expires before the new info.

        A `meta.name` renames the object. Its new info is written first, and then a marker takes the place of the old one, so that
        watchers hear of both. In between, for two round trips, both names lead to the same data; whoever deletes or replaces one
        of the two with this client leaves the data to the other, and another client, which purges it, does not. Where the client or
        the connection ends just then, both names stay, and calling this once more finishes it. Where somebody else changes the
        object meanwhile, theirs stays, and the new name goes again. Links to the old name lead nowhere from then on.

        Cancelled in its last steps, it may have happened all the same; it is not left half done for that.

        Args:
            name: The object's name; a link's own, not that of what it leads to.
            meta: What is to be said. Of its `options` nothing can be changed: they are left out, or those that the object has.

        Returns:
            The info as it is now.

        Raises:
            trionats.errors.ObjectNotFoundError: There is no such object, or (also an `ObjectDeletedError`) no longer.
            trionats.errors.ObjectAlreadyExists: Another object has the new name.
            trionats.errors.InvalidObjectNameError: One of the names is none.
            trionats.errors.BadObjectMetaError: `meta` says what cannot be, or asks for another chunk size or link; the info becomes
                too large; or an earlier renaming to another name was broken off.
            trionats.errors.BadRequestError: Somebody else changed the object, or the one of the new name, meanwhile.
            trionats.errors.APIError: The server refused.
        """
        return await self._editing.update_meta(name, meta)

    @enable_ki_protection
    async def add_link(self, name: str, target: AnyObjectInfo) -> api.ObjectInfo:
        """Add a link to an object, of this bucket or of another one; `get` follows it (ADR-20).

        The link holds the names only: it leads to whatever has that name when it is read. It replaces another link, and what
        was deleted.

        Args:
            name: The link's name.
            target: The object's info, as `get_info` gives it.

        Returns:
            The link's info.

        Raises:
            trionats.errors.ObjectAlreadyExists: An object of the link's name stands there.
            trionats.errors.BadObjectMetaError: The target was deleted, is a link itself, or is what the link replaces.
            trionats.errors.InvalidObjectNameError: A name is none.
            trionats.errors.BadRequestError: Somebody else changed what stands under the name meanwhile; theirs stays.
            trionats.errors.APIError: The server refused.
            TypeError: `target` is no `ObjectInfo`.
        """
        return await self._links.to_object(name, target)

    @enable_ki_protection
    async def add_bucket_link(self, name: str, bucket: ObjectStore | str) -> api.ObjectInfo:
        """Add a link to a whole bucket. It cannot be got; its info says where it leads.

        Args:
            name: The link's name.
            bucket: The bucket, or its name.

        Returns:
            The link's info.

        Raises:
            trionats.errors.InvalidBucketNameError: The bucket's name is none.
            nats.errors.Error: As for `add_link`.
        """
        return await self._links.to_bucket(
            name, bucket.bucket if isinstance(bucket, ObjectStore) else OBJECTS.checked(bucket)
        )

    @enable_ki_protection
    async def seal(self) -> None:
        """Let nothing be written into the bucket, nor deleted from it, any more. That cannot be undone.

        What is tried afterwards fails with a `trionats.errors.BadRequestError` that says so. The server takes the bucket's
        `ttl` away as it seals it, so what it holds stays, except for what has a TTL of its own.

        Raises:
            trionats.errors.BucketNotFoundError: There is no such bucket any more.
            trionats.errors.APIError: It is a mirror, which would stop to follow its origin without a word; or the server refused.
        """
        await seal(self._access)

    @enable_ki_protection
    async def orphans(self, older_than: float = ORPHAN_AGE) -> builtins.list[api.Orphan]:
        """Find chunks that no object names.

        A put whose process was killed leaves them, as does a deletion whose purge was refused. No client reads them again, and
        they count against the bucket's size for good.

        No data is read: the subjects of chunks are listed, compared with the infos, and of those that nobody names the headers
        are read. What is kept in memory is bounded by 100,000 subjects and what is found. For a mirror these are its own: it
        is told of no purge of its origin. There, the origin's infos count, too.

        A put that is under way has chunks that nobody names yet. So only those are told whose *newest* chunk is old. A put stores
        one within every 30 s, unless the source of its data is slower: have `older_than` longer than the longest pause of any source.

        Args:
            older_than: How many seconds ago the newest chunk was stored, at the least, by the server's clock.

        Returns:
            What was found, in no particular order.

        Raises:
            TypeError: `older_than` is no number.
            ValueError: It is negative.
            trionats.errors.BucketNotFoundError: There is no such bucket any more.
            nats.errors.Error: As for any request to the JetStream API.
        """
        return await self._orphanage.find(older_than)

    @enable_ki_protection
    async def purge_orphans(self, older_than: float = ORPHAN_AGE) -> builtins.list[api.Orphan]:
        """Find chunks that no object names, as `orphans` does, and purge them.

        The infos are read once more before each hundred of them, and what is stored later than the newest chunk that was seen stays.

        Args:
            older_than: As for `orphans`. What a put under way has stored is lost to it where the source of its data pauses longer.

        Returns:
            What was purged.

        Raises:
            nats.errors.Error: As for `orphans`; where a purge is refused, what was purged before is gone.
        """
        return await self._orphanage.purge(older_than)
