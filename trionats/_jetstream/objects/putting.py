"""Storing an object: its chunks, and then, when all of them are acknowledged, its info in place of the one before (design 12, 40, 58)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, final

from trionats import api, errors
from trionats._jetstream.objects.access import MESSAGE_TOO_LARGE
from trionats._jetstream.objects.chunks import BLOCK_SIZE, ChunkWriter, Digest
from trionats._jetstream.objects.infos import InfoWrite
from trionats._jetstream.objects.replacing import replace_info, stamp
from trionats._protocol.jetstream.objects.names import places
from trionats._protocol.jetstream.objects.writing import CHUNK_SIZE, Limits, new_info

if TYPE_CHECKING:
    from nats.js.api import ObjectMeta as AnyObjectMeta

    from trionats._jetstream.objects.access import Access
    from trionats._protocol.jetstream.objects.places import Place

__all__ = ["Putting"]


@final
class Putting:
    """Stores objects in one bucket."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def put(self, name: str, data: bytes | str, meta: AnyObjectMeta | None) -> api.ObjectInfo:
        """Store an object, as `ObjectStore.put` says."""
        places(name, self._access.bucket)
        info = new_info(name, self._access.bucket, self._access.nuids.next(), meta)
        content = self._content(name, data)
        asked = None if info.options is None else info.options.max_chunk_size
        limits = await self._fit(info, asked, len(content))
        place = await self._access.find_target(name)
        while True:
            # What the server takes may have been said just now, unasked.
            if self._access.limits != limits:
                limits = await self._fit(info, asked, len(content))
            try:
                return await self._put(info, content, place)
            except errors.Error as error:
                if not await self._is_smaller(limits, error):  # noqa: ASYNC120 - cancelled, it is what the caller wants
                    raise
            info = replace(info, nuid=self._access.nuids.next())

    def _content(self, name: str, data: object) -> memoryview:
        if isinstance(data, str):
            try:
                return memoryview(str.encode(data))
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"object {name!r} in bucket {self._access.bucket!r}: its data is no valid text"
                ) from error
        if isinstance(data, bytes):
            return memoryview(data)
        wrong = type(data).__name__
        raise TypeError(
            f"object {name!r} in bucket {self._access.bucket!r}: its data must be bytes or str, not {wrong}"
        )

    async def _fit(self, info: api.ObjectInfo, asked: int | None, size: int) -> Limits:
        """Decide on the size of chunks, and refuse what is too large before anything is stored."""
        try:
            return self._fitted(info, asked, size)
        except errors.BadObjectMetaError:
            # The bucket's limit may have been raised since.
            ours = self._access.limits.least < self._access.api.connection.max_payload
            if not ours or not await self._access.ask_limit():  # noqa: ASYNC120 - cancelled, it is what the caller wants
                raise
            return self._fitted(info, asked, size)

    def _fitted(self, info: api.ObjectInfo, asked: int | None, size: int) -> Limits:
        limits = self._access.limits
        assert info.options is not None, "made with options"
        info.options.max_chunk_size = limits.chunk_size(info, asked, size)
        limits.check_info(info, size)
        return limits

    async def _is_smaller(self, limits: Limits, error: errors.Error) -> bool:
        """Find out whether something was refused for its size, and less would not be."""
        if isinstance(error, errors.APIError) and error.err_code == MESSAGE_TOO_LARGE:
            await self._access.ask_limit()
        elif not isinstance(error, errors.MaxPayloadError):
            return False
        return self._access.limits.least < limits.least

    async def _put(self, info: api.ObjectInfo, content: memoryview, place: Place) -> api.ObjectInfo:
        doing = f"put of object {info.name!r} into bucket {self._access.bucket!r}"
        chunks = ChunkWriter(self._access.api, self._access.stream, self._access.names.chunk_subject(info.nuid), doing)
        write = InfoWrite(self._access.api, self._access.stream, place.subject, doing)
        try:
            await self._upload(chunks, content, info)
            revision = await replace_info(self._access, write, info, place, doing)
        except BaseException:
            if write.revision is not None:
                await self._access.purge_replaced(place, doing)  # noqa: ASYNC102 - shielded and bounded inside
            elif not write.in_doubt:
                await chunks.abandon()  # noqa: ASYNC102 - shielded and bounded inside
            else:
                write.leave(
                    lambda: self._access.begin_release(place, doing),
                    lambda: self._access.begin_purge(info.nuid, doing),
                )
            raise
        finally:
            write.close()
        stamp(info, place, revision)
        await self._access.purge_replaced(place, doing)
        return info

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
