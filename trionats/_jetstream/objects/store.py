"""Object stores: put, get, info, list, delete, over what the other rooms of this folder do (design 12, 40, 58)."""

from __future__ import annotations

import builtins
import io
import random
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import enable_ki_protection

from trionats import api, errors
from trionats._jetstream.api import NO_MESSAGE, Api, api_error, in_store
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.objects.buckets import max_msg_size
from trionats._jetstream.objects.chunks import BLOCK_SIZE, ChunkReader, ChunkWriter, Digest
from trionats._jetstream.objects.infos import InfoWrite, infos_in, list_infos
from trionats._jetstream.objects.purging import Purge
from trionats._jetstream.objects.transfer import CLEANUP_LIMIT, IDLE_LIMIT, idle_error
from trionats._protocol import subjects
from trionats._protocol.jetstream.objects import (
    CHUNK_SIZE,
    Limits,
    Place,
    bad_meta,
    marker,
    new_info,
    places,
    read_place,
    rfc3339,
)
from trionats._protocol.jetstream.publishing import PUBLISH_RETRY_WAIT, WRONG_LAST_SEQUENCE

if TYPE_CHECKING:
    from nats.js.api import ObjectMeta as AnyObjectMeta

    from trionats._core.messaging import Publishing
    from trionats._jetstream.entries import Entries
    from trionats._jetstream.objects.buckets import Bucket

__all__ = ["ObjectGoneError", "ObjectStore"]

#: How often a get begins again because the object was replaced while it was being read.
GET_ATTEMPTS = 10

MESSAGE_TOO_LARGE = 10054


class ObjectGoneError(errors.ObjectDeletedError, errors.ObjectNotFoundError):
    """The object was deleted; for who does not ask for deleted ones it is simply not found."""


@final
class ObjectStore:
    """A bucket of objects: data of any size under a name, with what the user says about it.

    Comes from `JetStream.create_object_store` and `JetStream.object_store`. It holds no state of its own, needs no
    closing, and may be used from several tasks at once.
    """

    def __init__(self, jetstream: Api[Publishing], bucket: Bucket, max_msg_size: int = 0) -> None:
        self._api = jetstream
        self._names = bucket
        self._bucket, self._stream = bucket.name, bucket.stream
        # As it was said last; it may have been changed since.
        self._max_msg_size = max_msg_size
        self._nuids = subjects.Nuid(random.SystemRandom())

    def __repr__(self) -> str:
        return f"<ObjectStore {self._bucket!r}>"

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket

    @property
    def stream(self) -> str:
        """The name of the stream that holds it."""
        return self._stream

    def __entries__(self, *, ignore_deletes: bool = False) -> Entries[api.ObjectInfo]:
        """Give what a watcher has to know, as `__messaging__` gives the seam to what is built on a client."""
        return infos_in(self._api, self._names, ignore_deletes=ignore_deletes)

    @enable_ki_protection
    async def put(self, name: str, data: bytes | str, meta: AnyObjectMeta | None = None) -> api.ObjectInfo:
        """Store an object, replacing the one of that name.

        The data is sent in chunks of 128 KiB, or of what the server and the bucket's stream take where that is less; or
        of `meta.options.max_chunk_size`. At most 8 MiB of them are unacknowledged; the new object becomes visible, all
        at once, when every chunk is acknowledged. There is no limit to how long it may take, but it fails when the
        server says nothing for 30 s, or when the connection breaks before its last step.

        A put that fails or is cancelled purges what it has stored and leaves the old object as it was. It waits for
        that, shielded, for 2 s at the most; what the server stores later than that is purged when its acknowledgement
        comes, or after the next connection, for as long as the client lives. Where the server refuses a purge, of this
        object's data or of that which it replaced, a `trionats.events.ChunksLeft` event says so.

        What stood under the name may be an object, a link, the marker of a deleted object, or what is no info at all:
        it is replaced. A name beyond ASCII that nats.js has stored in a place of its own stays in that place.

        Cancelled in its last step, when the info is under way, it may have happened all the same; the object is whole
        then.

        Args:
            name: The object's name, any text.
            data: Its content; text is encoded as UTF-8.
            meta: Its description, headers, metadata and chunk size. `name` holds, whatever stands in `meta`.

        Returns:
            The new object's info.

        Raises:
            trionats.errors.InvalidObjectNameError: The name is empty, or too long for the server.
            trionats.errors.BadObjectMetaError: `meta` says what cannot be, for instance that the object is a link; what
                it says is not text where text is meant; or the chunks that it asks for, or the info itself, are larger
                than the server or the bucket takes. Nothing is stored then.
            trionats.errors.BadRequestError: Somebody else changed the object meanwhile; theirs stays.
            trionats.errors.APIError: The server refused, for instance because the bucket is full.
        """
        places(name, self._bucket)
        info = new_info(name, self._bucket, self._nuids.next(), meta)
        content = self._content(name, data)
        asked = None if info.options is None else info.options.max_chunk_size
        limits = await self._fit(info, asked, len(content))
        place = await self._find(name)
        if place.elsewhere is not None and (place.info is None or not place.info.deleted):
            text = f"in its place stands object {place.elsewhere!r}, which nats.js wrote or which everybody else finds there"
            raise bad_meta(name, self._bucket, text)
        while True:
            # What the server takes may have been said just now, unasked.
            if self._limits != limits:
                limits = await self._fit(info, asked, len(content))
            try:
                return await self._put(info, content, place)
            except errors.Error as error:
                if not await self._is_smaller(limits, error):  # noqa: ASYNC120 - cancelled, it is what the caller wants
                    raise
            info = replace(info, nuid=self._nuids.next())

    @enable_ki_protection
    async def get(self, name: str) -> api.ObjectResult:
        """Read an object whole, and verify it.

        There is no limit to how long it may take, but it fails when no chunk has come for 30 s; once its info was read (which is
        a request like any other), it goes on where it was after a reconnect. If the object is replaced while it is read, the new
        one is read.

        Args:
            name: The object's name.

        Returns:
            The object's info and its data.

        Raises:
            trionats.errors.ObjectNotFoundError: There is no such object, or (also an `ObjectDeletedError`) no longer.
            trionats.errors.ObjectIncompleteError: Some of its chunks are missing, or do not add up to its size.
            trionats.errors.DigestMismatchError: Its chunks are not those that were put.
            trionats.errors.BadObjectMetaError: Its info cannot be true, or it is a link.
        """
        for attempt in range(GET_ATTEMPTS):
            info = await self.get_info(name)
            try:
                return api.ObjectResult(info, await self._read(info))
            except errors.StreamRegressedError:  # another stream took the place of the one that was read: begin anew
                if attempt + 1 == GET_ATTEMPTS:
                    raise
            except errors.ObjectIncompleteError:
                now = (await self._find(name)).info  # noqa: ASYNC120 - cancelled, it is what the caller wants to know
                if attempt + 1 == GET_ATTEMPTS or (now is not None and not now.deleted and now.nuid == info.nuid):
                    raise
        raise AssertionError("the last attempt returns or raises")

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
        place = await self._find(name)
        if place.elsewhere is None and place.problem is not None:
            raise place.problem
        info = place.info
        if info is None or place.elsewhere is not None:
            raise self._not_found(name)
        if info.deleted and not show_deleted:
            text = f"object {name!r} in bucket {self._bucket!r} was deleted"
            raise api_error(ObjectGoneError, text, text, code=404)
        return info

    @enable_ki_protection
    async def delete(self, name: str) -> None:
        """Delete an object: its data is purged, and a marker stays that says so.

        Deleting a deleted object does nothing that shows; if a deletion was interrupted between its two steps, it finishes it.
        Links are deleted, not what they lead to. What stands under the name and is no info of an object is deleted,
        too, with the data that it names as far as that can be true.

        For the purge it waits 2 s at the most; it is done all the same, for as long as the client lives.

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
        place = await self._find(name)
        if not place.revision or place.elsewhere is not None:
            raise self._not_found(name)
        doing = f"deletion of object {name!r} from bucket {self._bucket!r}"
        if place.taken:
            await self._mark_deleted(place, name, doing)
        purge = await self._purge(place.nuid, doing)
        if purge is not None and purge.failure is not None:
            raise _data_stays(doing, purge.failure) from purge.failure

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
        infos = self.__entries__(ignore_deletes=ignore_deletes)
        return await list_infos(infos, f"list of bucket {self._bucket!r}")

    # Inside.

    async def _read(self, info: api.ObjectInfo) -> bytes:
        size, chunks, expected = self._promised(info)
        doing = f"get of object {info.name!r} from bucket {self._bucket!r}"
        digest, content, count = Digest(), io.BytesIO(), 0
        if chunks == 1 and (chunk := await self._only_chunk(info, doing)) is not None:
            content.write(chunk)
            count = 1
            await digest.update([chunk])
        elif chunks:
            reader: ChunkReader | None = None
            try:
                with in_store(str(self._names)):
                    reader = await self._open_reader(info, chunks, doing)
                    while count < chunks and (more := await reader.receive()):
                        count += len(more)
                        # Each chunk is freed at once: joining all of them in the end took 20 % more.
                        content.writelines(more)
                        await digest.update(more)
            finally:
                if reader is not None:
                    reader.close()
        data = content.getvalue()
        if count != chunks or len(data) != size:
            text = f"{doing}: {count} of {chunks} chunks with {len(data)} of {size} bytes are there"
            raise errors.explained(errors.ObjectIncompleteError, text)
        if not digest.matches(expected):
            text = f"{doing}: the data has the digest {digest}, and should have {expected!r}"
            raise errors.explained(errors.DigestMismatchError, text, description=text)
        return data

    async def _open_reader(self, info: api.ObjectInfo, chunks: int, doing: str) -> ChunkReader:
        with trio.move_on_after(IDLE_LIMIT):
            while True:
                reader = ChunkReader(self._api, self._stream, self._names.chunk_subject(info.nuid), chunks, doing)
                with suppress(errors.DisconnectedError):  # nothing was read yet: begin anew
                    await reader.open()
                    return reader
        raise idle_error(doing)

    async def _only_chunk(self, info: api.ObjectInfo, doing: str) -> bytes | None:
        """Ask for the chunk of a small object, which takes no consumer; None where that cannot be done."""
        subject = f"{self._api.prefix}.DIRECT.GET.{self._stream}.{self._names.chunk_subject(info.nuid)}"
        try:
            with trio.fail_after(IDLE_LIMIT):
                # As for every transfer: the limit is for standing still, not for a reply.
                msg = await self._api.connection.with_request_timeout(None).request(subject)
        except trio.TooSlowError:
            raise idle_error(doing) from None
        except (errors.NoRespondersError, errors.DisconnectedError, errors.PermissionsViolationError):
            # The bucket or the server does not allow it, or the reply was lost: the other way is longer, and goes on.
            return None
        # Any replica responds; one that lags says that there is no such message, and the leader is asked then.
        return msg.data if msg.status is None else None

    def _promised(self, info: api.ObjectInfo) -> tuple[int, int, str]:
        if info.is_link():
            raise bad_meta(info.name, self._bucket, "it is a link, and links are not followed yet")
        if info.size is None or info.chunks is None or not info.digest or not info.nuid:
            raise bad_meta(info.name, self._bucket, "its info names no size, chunks, digest or nuid")
        return info.size, info.chunks, info.digest

    def _not_found(self, name: str) -> errors.ObjectNotFoundError:
        text = f"there is no object {name!r} in bucket {self._bucket!r}"
        return api_error(errors.ObjectNotFoundError, text, text, code=404, err_code=NO_MESSAGE)

    async def _find(self, name: str) -> Place:
        """Read what stands under a name, in the place where everybody looks, or else in nats.js's."""
        first, *others = map(self._names.info_subject, places(name, self._bucket))
        found = await self._read_place(name, first)
        for subject in others if not found.taken else ():
            other = await self._read_place(name, subject)
            if other.taken or (other.elsewhere is None and other.revision and not found.revision):
                return other
        return found

    async def _read_place(self, name: str, subject: str) -> Place:
        """Read what stands in one place, as the stream's leader has it."""
        with in_store(str(self._names)):
            message = await self._api.last_stored(self._stream, subject)
        return Place(subject) if message is None else read_place(self._bucket, name, subject, message)

    # Writing.

    @property
    def _limits(self) -> Limits:
        return Limits(self._api.connection.max_payload, self._max_msg_size)

    async def _fit(self, info: api.ObjectInfo, asked: int | None, size: int) -> Limits:
        """Decide on the size of chunks, and refuse what is too large before anything is stored."""
        try:
            return self._fitted(info, asked, size)
        except errors.BadObjectMetaError:
            # The bucket's limit may have been raised since.
            ours = self._limits.least < self._api.connection.max_payload
            if not ours or not await self._ask_limit():  # noqa: ASYNC120 - cancelled, it is what the caller wants
                raise
            return self._fitted(info, asked, size)

    def _fitted(self, info: api.ObjectInfo, asked: int | None, size: int) -> Limits:
        limits = self._limits
        assert info.options is not None, "made with options"
        info.options.max_chunk_size = limits.chunk_size(info, asked, size)
        limits.check_info(info, size)
        return limits

    async def _ask_limit(self) -> bool:
        """Ask for the bucket's limit anew; say whether it is another one."""
        before = self._max_msg_size
        with suppress(errors.Error):
            self._max_msg_size = max_msg_size(await JetStreamManager(self._api).stream_info(self._stream))
        return self._max_msg_size != before

    async def _is_smaller(self, limits: Limits, error: errors.Error) -> bool:
        """Find out whether something was refused for its size, and less would not be."""
        if isinstance(error, errors.APIError) and error.err_code == MESSAGE_TOO_LARGE:
            await self._ask_limit()
        elif not isinstance(error, errors.MaxPayloadError):
            return False
        return self._limits.least < limits.least

    async def _put(self, info: api.ObjectInfo, content: memoryview, place: Place) -> api.ObjectInfo:
        doing = f"put of object {info.name!r} into bucket {self._bucket!r}"
        chunks = ChunkWriter(self._api, self._stream, self._names.chunk_subject(info.nuid), doing)
        write = InfoWrite(self._api, self._stream, place.subject, doing)
        try:
            await self._upload(chunks, content, info)
            info.revision = await self._write(write, info, place)
        except BaseException:
            if write.revision is not None:
                await self._purge_replaced(place, doing)  # noqa: ASYNC102 - shielded and bounded inside
            elif not write.in_doubt:
                await chunks.abandon()  # noqa: ASYNC102 - shielded and bounded inside
            else:
                write.leave(lambda: self._begin_purge(place.nuid, doing), lambda: self._begin_purge(info.nuid, doing))
            raise
        finally:
            write.close()
        info.subject = place.subject
        info.mtime = rfc3339(int(datetime.now(UTC).timestamp() * 1e6) * 1000)
        await self._purge_replaced(place, doing)
        return info

    async def _mark_deleted(self, place: Place, name: str, doing: str) -> None:
        write = InfoWrite(self._api, self._stream, place.subject, doing)
        try:
            try:
                await write.send(marker(place, name, self._bucket, self._limits), place.revision)
            except errors.APIError as error:
                too_large = error.err_code == MESSAGE_TOO_LARGE
                if not too_large or not await self._ask_limit():  # noqa: ASYNC120 - cancelled, it is what the caller wants
                    raise
                await write.send(marker(place, name, self._bucket, self._limits), place.revision)
        except BaseException:
            # The data goes only once the marker stands, and then even if we are being cancelled.
            if write.revision is not None:
                await self._purge_replaced(place, doing)  # noqa: ASYNC102 - shielded and bounded inside
            elif write.in_doubt:
                write.leave(lambda: self._begin_purge(place.nuid, doing), lambda: None)
            raise
        finally:
            write.close()

    def _content(self, name: str, data: object) -> memoryview:
        if isinstance(data, str):
            try:
                return memoryview(str.encode(data))
            except UnicodeEncodeError as error:
                raise ValueError(f"object {name!r} in bucket {self._bucket!r}: its data is no valid text") from error
        if isinstance(data, bytes):
            return memoryview(data)
        wrong = type(data).__name__
        raise TypeError(f"object {name!r} in bucket {self._bucket!r}: its data must be bytes or str, not {wrong}")

    async def _upload(self, chunks: ChunkWriter, content: memoryview, info: api.ObjectInfo) -> None:
        assert info.options is not None
        size = info.options.max_chunk_size or CHUNK_SIZE
        block_size = size * max(1, BLOCK_SIZE // size)
        digest = Digest()
        count = 0
        for start in range(0, len(content), block_size):
            block = content[start : start + block_size]
            for offset in range(0, len(block), size):
                await chunks.write(block[offset : offset + size])
                count += 1
            await digest.update([block])
        await chunks.drain()
        info.size, info.chunks, info.digest = len(content), count, str(digest)

    async def _write(self, write: InfoWrite, info: api.ObjectInfo, place: Place) -> int:
        """Store an info; one whose acknowledgement was lost, or may be another domain's, is sent again until it is known what became of it.

        It is stored once at the most: each time the same last info is expected.
        """
        try:
            return await write.send(info, place.revision)
        except errors.Error as error:
            # An `APIError` in doubt may be another domain's; the one that was meant will say.
            limit = IDLE_LIMIT if isinstance(error, (errors.DisconnectedError, errors.APIError)) else CLEANUP_LIMIT
            with suppress(errors.Error), trio.move_on_after(limit):
                while write.in_doubt:
                    await self._settle(write, info, place)  # noqa: ASYNC120 - cancelled, it is what the caller wants
            if write.revision is None:
                raise
            return write.revision

    async def _settle(self, write: InfoWrite, info: api.ObjectInfo, place: Place) -> None:
        overtaken = False
        try:
            await write.send(info, place.revision)
            return
        except errors.DisconnectedError:
            return
        except errors.APIError as error:
            overtaken = error.err_code in WRONG_LAST_SEQUENCE
        except errors.NoStreamResponseError:
            pass
        # Whatever the refusal says of this time, it says nothing of the first.
        with suppress(errors.DisconnectedError):
            now = await self._read_place(info.name, place.subject)
            if now.info is not None and now.nuid == info.nuid:
                write.revision = now.revision
            elif overtaken and now.revision != place.revision:
                write.is_not_stored()
                # Who overtook us has replaced this one, or ours that had; it cannot be found any more either way.
                await self._purge_replaced(place, f"put of object {info.name!r} into bucket {self._bucket!r}")
            else:
                if now.revision == place.revision:
                    write.is_unchanged()
                if write.in_doubt:
                    await trio.sleep(PUBLISH_RETRY_WAIT)

    # Data that nobody can find any more; what it belongs to has happened already.

    def _purge_of(self, nuid: str, doing: str) -> Purge | None:
        """Make the purge of an object's chunks; an object that has none of its own needs none."""
        return Purge(self._api, self._stream, self._names.chunk_subject(nuid), doing) if nuid else None

    def _begin_purge(self, nuid: str, doing: str) -> None:
        """Purge an object's chunks, without waiting for it."""
        purge = self._purge_of(nuid, doing)
        if purge is not None:
            purge.begin()

    async def _purge(self, nuid: str, doing: str) -> Purge | None:
        """Purge an object's chunks, and wait for it: shielded, and bounded."""
        purge = self._purge_of(nuid, doing)
        if purge is not None:
            await purge.wait()
        return purge

    async def _purge_replaced(self, place: Place, doing: str) -> None:
        purge = await self._purge(place.nuid, doing)
        if purge is not None and purge.failure is not None:
            purge.tell()


def _data_stays(doing: str, why: Exception) -> Exception:
    text = f"{doing}: it is deleted, but its data stays in the bucket: {why}"
    return errors.explained(type(why), text, **vars(why))
