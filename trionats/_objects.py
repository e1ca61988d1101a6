"""Object stores."""

from __future__ import annotations

import base64
import builtins
import io
import json
import random
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import enable_ki_protection

from trionats import api, errors
from trionats._chunks import (
    BLOCK_SIZE,
    CHUNK_SIZE,
    CLEANUP_LIMIT,
    IDLE_LIMIT,
    ChunkReader,
    ChunkWriter,
    Digest,
    idle_error,
    purge_chunks,
    queue_purge,
)
from trionats._infos import WRONG_LAST_SEQUENCE, InfoWrite, read_info, read_infos, rfc3339
from trionats._jetstream import PUBLISH_RETRY_WAIT, provide_object_stores
from trionats._protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.js.api import ObjectMeta as AnyObjectMeta

    from trionats._jetstream import JetStream

__all__ = ["ObjectGoneError", "ObjectStore", "read_info"]

#: How often a get begins again because the object was replaced while it was being read.
GET_ATTEMPTS = 10
#: A control line has 4096 bytes by default, and the name stands in it as base64, beside the bucket's and an inbox.
NAME_LIMIT = 2700

#: What an info's message has besides its meta: headers, and what is only known once the data was sent.
INFO_HEADROOM = 300

NO_MESSAGE = 10037


class ObjectGoneError(errors.ObjectDeletedError, errors.ObjectNotFoundError):
    """The object was deleted; for who does not ask for deleted ones it is simply not found."""


@final
class ObjectStore:
    """A bucket of objects: data of any size under a name, with what the user says about it.

    Comes from `JetStream.create_object_store` and `JetStream.object_store`. It holds no state of its own, needs no
    closing, and may be used from several tasks at once.
    """

    def __init__(self, js: JetStream, bucket: str, *, origin: str | None = None) -> None:
        self._js = js
        self._bucket = bucket
        # A mirror holds the messages of another bucket, under that bucket's subjects.
        self._subjects = f"$O.{origin or bucket}"
        self._nuids = subjects.Nuid(random.SystemRandom())

    def __repr__(self) -> str:
        return f"<ObjectStore {self._bucket!r}>"

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket

    @property
    def stream(self) -> str:
        """The name of the stream that holds the bucket."""
        return f"OBJ_{self._bucket}"

    @property
    def js(self) -> JetStream:
        """The JetStream that this store was found through."""
        return self._js

    @property
    def meta_subject(self) -> str:
        """The pattern that the infos of all objects match in the stream."""
        return f"{self._subjects}.M.>"

    @enable_ki_protection
    async def put(self, name: str, data: bytes | str, meta: AnyObjectMeta | None = None) -> api.ObjectInfo:
        """Store an object, replacing the one of that name.

        The data is sent in chunks of 128 KiB (or `meta.options.max_chunk_size`), with at most 8 MiB of them
        unacknowledged; the new object becomes visible, all at once, when every chunk is acknowledged. A put that fails or
        is cancelled purges what it has stored and leaves the old object as it was. There is no limit to how long it may
        take, but it fails when the server does not answer for 30 s, or when the connection breaks before its last step.

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
            trionats.errors.BadObjectMetaError: `meta` says what cannot be, for instance that the object is a link.
            trionats.errors.BadRequestError: Somebody else changed the object meanwhile; theirs stays.
            trionats.errors.APIError: The server refused, for instance because the bucket is full.
        """
        info = self._new_info(name, meta)
        content = self._content(name, data)
        doing = f"put of object {name!r} into bucket {self._bucket!r}"
        before = await self._stored(name)
        chunks = ChunkWriter(self._js, self.stream, self._chunk_subject(info.nuid), doing)
        write = InfoWrite(self._js, self._meta_subject(name), doing)
        try:
            await self._upload(chunks, content, info)
            info.revision = await self._write(write, info, before)
        except BaseException:
            if write.revision is not None:
                await self._purge(before)  # noqa: ASYNC102 - shielded and bounded inside
            elif not write.in_doubt:
                await chunks.abandon()  # noqa: ASYNC102 - shielded and bounded inside
            raise
        info.mtime = rfc3339(int(datetime.now(UTC).timestamp() * 1e6) * 1000)
        await self._purge(before)
        return info

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
                now = await self._stored(name)  # noqa: ASYNC120 - cancelled, it is what the caller wants to know
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
        """
        info = await self._stored(name)
        if info is None:
            raise self._not_found(name)
        if info.deleted and not show_deleted:
            text = f"object {name!r} in bucket {self._bucket!r} was deleted"
            raise errors.explained(
                ObjectGoneError, text, code=404, err_code=None, description=text, stream=None, seq=None
            )
        return info

    @enable_ki_protection
    async def delete(self, name: str) -> None:
        """Delete an object: its data is purged, and a marker stays that says so.

        Deleting a deleted object does nothing that shows; if a deletion was interrupted between its two steps, it finishes it.

        Args:
            name: The object's name.

        Raises:
            trionats.errors.ObjectNotFoundError: There never was such an object.
            trionats.errors.BadRequestError: Somebody else changed the object meanwhile; it is not deleted.
        """
        info = await self._stored(name)
        if info is None:
            raise self._not_found(name)
        if not info.deleted:
            marker = replace(info, deleted=True, size=0, chunks=0, digest="")
            doing = f"deletion of object {name!r} from bucket {self._bucket!r}"
            write = InfoWrite(self._js, self._meta_subject(name), doing)
            try:
                await write.send(marker, _revision(info))
            finally:
                # The data goes only once the marker stands, and then even if we are being cancelled.
                if write.revision is not None:
                    await self._purge(info)  # noqa: ASYNC102 - shielded and bounded inside
        else:
            await self._purge(info)

    @enable_ki_protection
    async def list(self, ignore_deletes: bool = True) -> builtins.list[api.ObjectInfo]:
        """List what the bucket holds.

        Args:
            ignore_deletes: Leave out the markers of deleted objects.

        Returns:
            The infos, the least recently changed first; an empty list for an empty bucket.

        Raises:
            trionats.errors.BucketNotFoundError: There is no such bucket any more.
            nats.errors.Error: As for any question to the JetStream API.
        """
        try:
            infos = await read_infos(self._js, self._bucket, self.stream, self.meta_subject)
        except errors.NotFoundError as error:
            raise self._gone(error) from None
        return [info for info in infos if not (ignore_deletes and info.deleted)]

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
                reader = await self._open_reader(info, chunks, doing)
                while count < chunks and (more := await reader.receive()):
                    count += len(more)
                    # Each chunk is freed at once: joining all of them in the end took 20 % more.
                    content.writelines(more)
                    await digest.update(more)
            except errors.NotFoundError as error:
                raise self._gone(error) from None
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
                reader = ChunkReader(self._js, self.stream, self._chunk_subject(info.nuid), chunks, doing)
                with suppress(errors.DisconnectedError):  # nothing was read yet: begin anew
                    await reader.open()
                    return reader
        raise idle_error(doing)

    async def _only_chunk(self, info: api.ObjectInfo, doing: str) -> bytes | None:
        """Ask for the chunk of a small object, which takes no consumer; None where that cannot be done."""
        subject = f"{self._js.prefix}.DIRECT.GET.{self.stream}.{self._chunk_subject(info.nuid)}"
        try:
            with trio.fail_after(IDLE_LIMIT):
                msg = await self._js.nc.request(subject)
        except trio.TooSlowError:
            raise idle_error(doing) from None
        except (errors.NoRespondersError, errors.DisconnectedError):
            return None  # the bucket does not allow it, or the answer was lost: the other way is longer, and goes on
        # Any replica answers; one that lags says that there is no such message, and the leader is asked then.
        return msg.data if msg.status is None else None

    def _promised(self, info: api.ObjectInfo) -> tuple[int, int, str]:
        if info.is_link():
            raise self._bad_meta(info.name, "it is a link, and links are not followed yet")
        if info.size is None or info.chunks is None or not info.digest or not info.nuid:
            raise self._bad_meta(info.name, "its info names no size, chunks, digest or nuid")
        return info.size, info.chunks, info.digest

    def _meta_subject(self, name: str) -> str:
        return f"{self._subjects}.M.{base64.urlsafe_b64encode(_encoded(name, self._bucket)).decode()}"

    def _chunk_subject(self, nuid: str) -> str:
        return f"{self._subjects}.C.{nuid}"

    def _not_found(self, name: str) -> errors.ObjectNotFoundError:
        text = f"there is no object {name!r} in bucket {self._bucket!r}"
        return errors.explained(
            errors.ObjectNotFoundError, text, code=404, err_code=NO_MESSAGE, description=text, stream=None, seq=None
        )

    def _gone(self, error: errors.NotFoundError) -> errors.BucketNotFoundError:
        return errors.explained(errors.BucketNotFoundError, f"there is no object store {self._bucket!r}", **vars(error))

    async def _stored(self, name: str) -> api.ObjectInfo | None:
        """Read the info that stands in the stream, be it a marker; None where there is none."""
        request = {"last_by_subj": self._meta_subject(name)}
        try:
            found = await self._js.api_request(f"STREAM.MSG.GET.{self.stream}", request)
        except errors.NotFoundError as error:
            if error.err_code == NO_MESSAGE:
                return None
            raise self._gone(error) from None
        message = found["message"]
        data = base64.b64decode(message.get("data") or "")
        return read_info(self._bucket, data, revision=message["seq"], stored_at=message["time"])

    def _new_info(self, name: str, meta: AnyObjectMeta | None) -> api.ObjectInfo:
        _encoded(name, self._bucket)
        if meta is not None and not hasattr(meta, "options"):
            raise TypeError(f"object {name!r}: meta must be an ObjectMeta, not {type(meta).__name__}")
        meta = meta or api.ObjectMeta()
        options = meta.options or api.ObjectMetaOptions()
        if options.link is not None:
            raise self._bad_meta(name, "a link is no data; its meta must not name one")
        size = options.max_chunk_size
        if size is not None and (not isinstance(size, int) or size < 1):
            raise self._bad_meta(name, f"chunks of {size!r} bytes are none")
        size = min(size or CHUNK_SIZE, self._js.nc.max_payload)
        try:
            info = api.ObjectInfo(
                name=name,
                bucket=self._bucket,
                nuid=self._nuids.next(),
                description=meta.description,
                headers=_header_lists(meta.headers),
                metadata=getattr(meta, "metadata", None),
                options=api.ObjectMetaOptions(max_chunk_size=size),
            )
            # What cannot be written, or is too much, must show before the data is sent.
            written = len(json.dumps(info.as_dict()))
        except (TypeError, ValueError, AttributeError) as error:
            raise self._bad_meta(name, f"its meta cannot be written: {error}") from error
        if written + INFO_HEADROOM > self._js.nc.max_payload:
            text = f"its meta has {written} bytes, and the server takes {self._js.nc.max_payload}"
            raise self._bad_meta(name, text)
        return info

    def _content(self, name: str, data: object) -> memoryview:
        if isinstance(data, str):
            try:
                return memoryview(data.encode())
            except UnicodeEncodeError as error:
                raise ValueError(f"object {name!r} in bucket {self._bucket!r}: its data is no valid text") from error
        if isinstance(data, bytes):
            return memoryview(data)
        wrong = type(data).__name__
        raise TypeError(f"object {name!r} in bucket {self._bucket!r}: its data must be bytes or str, not {wrong}")

    def _bad_meta(self, name: str, why: str) -> errors.BadObjectMetaError:
        text = f"object {name!r} in bucket {self._bucket!r}: {why}"
        return errors.explained(errors.BadObjectMetaError, text, description=text)

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

    async def _write(self, write: InfoWrite, info: api.ObjectInfo, before: api.ObjectInfo | None) -> int:
        """Store an info; one whose answer was lost is sent again until it is known what became of it.

        It is stored once at the most: each time the same last info is expected.
        """
        try:
            return await write.send(info, _revision(before))
        except errors.Error as error:
            limit = IDLE_LIMIT if isinstance(error, errors.DisconnectedError) else CLEANUP_LIMIT
            with suppress(errors.Error), trio.move_on_after(limit):
                while write.in_doubt:
                    await self._settle(write, info, before)  # noqa: ASYNC120 - cancelled, it is what the caller wants
            if write.revision is None:
                raise
            return write.revision

    async def _settle(self, write: InfoWrite, info: api.ObjectInfo, before: api.ObjectInfo | None) -> None:
        overtaken = False
        try:
            await write.send(info, _revision(before))
            return
        except errors.DisconnectedError:
            return
        except errors.APIError as error:
            overtaken = error.err_code in WRONG_LAST_SEQUENCE
        except errors.NoStreamResponseError:
            pass
        # Whatever the refusal says of this time, it says nothing of the first.
        with suppress(errors.DisconnectedError):
            now = await self._stored(info.name)
            if now is not None and now.nuid == info.nuid:
                write.revision = now.revision
            elif overtaken:
                write.is_not_stored()
                # Who overtook us has replaced this one, or ours that had; it cannot be found any more either way.
                await self._purge(before)
            else:
                await trio.sleep(PUBLISH_RETRY_WAIT)

    async def _purge(self, info: api.ObjectInfo | None) -> None:
        """Delete the chunks of an object that nobody can find any more; what it belongs to has happened already."""
        if info is None or not info.nuid:
            return
        subject = self._chunk_subject(info.nuid)
        try:
            with trio.move_on_after(CLEANUP_LIMIT, shield=True):
                await purge_chunks(self._js, self.stream, subject)
                return
        except errors.Error:
            pass
        queue_purge(self._js, self.stream, subject)


def _object_store(js: JetStream, bucket: str, origin: str) -> ObjectStore:
    return ObjectStore(js, bucket, origin=origin)


provide_object_stores(_object_store)


def _revision(info: api.ObjectInfo | None) -> int:
    return info.revision or 0 if info is not None else 0


def _encoded(name: str, bucket: str) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"object name {name!r} for bucket {bucket!r}: it must be text, not {type(name).__name__}")
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        encoded = b""
    if not 0 < len(encoded) <= NAME_LIMIT:
        why = f"is longer than {NAME_LIMIT} bytes" if encoded else "is empty" if not name else "is no valid text"
        text = f"object name {name[:40]!r} for bucket {bucket!r} {why}"
        raise errors.explained(errors.InvalidObjectNameError, text, description=text)
    return encoded


def _header_lists(headers: Mapping[str, str | list[str]] | None) -> dict[str, list[str]] | None:
    """Write headers the way every client reads them: each name with a list."""
    if not headers:
        return None
    lists: dict[str, list[str]] = {}
    for name, value in headers.items():
        values = [value] if isinstance(value, str) else list(value)
        if not all(isinstance(text, str) for text in (name, *values)):
            raise TypeError(f"header {name!r} is no text")
        lists.setdefault(name, []).extend(values)
    return lists
