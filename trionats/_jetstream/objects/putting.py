"""Storing an object: its chunks, and then, when all of them are acknowledged, its info in place of the one before (design 12, 40, 58)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, final

import trio

from trionats import api, errors
from trionats._jetstream.objects.access import MESSAGE_TOO_LARGE
from trionats._jetstream.objects.chunks import ChunkWriter
from trionats._jetstream.objects.doubting import leave_in_doubt
from trionats._jetstream.objects.infos import InfoWrite
from trionats._jetstream.objects.replacing import replace_info, stamp
from trionats._jetstream.objects.sources import source_of
from trionats._jetstream.progress import ProgressTeller
from trionats._protocol.jetstream.objects.names import places
from trionats._protocol.jetstream.objects.writing import CHUNK_SIZE, new_info

if TYPE_CHECKING:
    from nats.js.api import ObjectMeta as AnyObjectMeta

    from trionats._jetstream.objects.access import Access
    from trionats._jetstream.objects.sources import ObjectData, Source
    from trionats._jetstream.progress import Progress
    from trionats._protocol.commands import Payload
    from trionats._protocol.jetstream.objects.places import Place
    from trionats._protocol.jetstream.objects.writing import Limits

__all__ = ["Putting"]


@final
class Putting:
    """Stores objects in one bucket."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def put(
        self, name: str, data: ObjectData, meta: AnyObjectMeta | None, progress: Progress | None
    ) -> api.ObjectInfo:
        """Store an object, as `ObjectStore.put` says."""
        self._access.api.connection.pace.run.check()
        places(name, self._access.bucket)
        what = f"object {name!r} in bucket {self._access.bucket!r}"
        telling = ProgressTeller(progress, what)
        info = new_info(name, self._access.bucket, self._access.nuids.next(), meta)
        source = source_of(data, what)
        try:
            return await self._put_from(source, info, telling)
        finally:
            source.close()

    async def put_file(
        self, path: str | os.PathLike[str], name: str | None, meta: AnyObjectMeta | None, progress: Progress | None
    ) -> api.ObjectInfo:
        """Store a file, as `ObjectStore.put_file` says."""
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"put_file: path must be text or a path, not {type(path).__name__}")
        given = Path(os.fsdecode(path))
        if "\0" in str(given):
            raise ValueError(f"put_file: path {str(given)!r} is no file's")
        return await self.put(given.name if name is None else name, given, meta, progress)

    async def _put_from(self, source: Source, info: api.ObjectInfo, telling: ProgressTeller) -> api.ObjectInfo:
        asked = None if info.options is None else info.options.max_chunk_size
        limits = await self._fit(info, asked, source.size)
        await trio.lowlevel.checkpoint_if_cancelled()
        # What gives no data is to show before anything is sent.
        block = await source.read_block()
        place = await self._access.find_target(info.name)
        # What the server takes may have been said just now, unasked.
        if self._access.limits != limits:
            await self._fit(info, asked, source.size)
        return await self._put(info, asked, source, block, place, telling)

    async def _fit(self, info: api.ObjectInfo, asked: int | None, size: int | None) -> Limits:
        """Decide on the size of chunks, and refuse what is too large before anything is stored."""
        options = info.options
        assert options is not None, "made with options"

        def fit(limits: Limits) -> Limits:
            options.max_chunk_size = limits.chunk_size(info, asked, size)
            limits.check_info(info, size)
            return limits

        return await self._access.fitting(fit)

    async def _learn_limit(self, error: errors.Error) -> None:
        """Ask how large a message may be, where something was refused for its size; where not, raise the refusal."""
        if isinstance(error, errors.APIError) and error.err_code == MESSAGE_TOO_LARGE:
            await self._access.ask_limit()
        elif not isinstance(error, errors.MaxPayloadError):
            raise error

    async def _put(
        self,
        info: api.ObjectInfo,
        asked: int | None,
        source: Source,
        block: Payload,
        place: Place,
        telling: ProgressTeller,
    ) -> api.ObjectInfo:
        doing = f"put of object {info.name!r} into bucket {self._access.bucket!r}"
        assert info.options is not None, "made with options"

        async def smaller(refusal: errors.Error, length: int) -> int:
            await self._learn_limit(refusal)
            size = self._access.limits.chunk_size(info, asked, length)
            if size >= length:
                raise refusal
            return size

        chunks = ChunkWriter(
            self._access.api,
            self._access.stream,
            self._access.names.chunk_subject(info.nuid),
            doing,
            info.options.max_chunk_size or CHUNK_SIZE,
            smaller=smaller,
            stored=lambda done: telling(done, source.size),
        )
        write = InfoWrite(self._access, place, doing)
        pace = self._access.api.connection.pace
        try:
            while block:
                await chunks.write(block)
                # A source that never waits may give piece by piece for long before anything is sent.
                pace.left -= 1
                if pace.left < 0 or pace.now() >= pace.due:
                    await pace.trip()
                block = await source.read_block()
            await chunks.finish()
            telling(chunks.bytes, chunks.bytes)
            info.size, info.chunks, info.digest = chunks.bytes, chunks.count, source.digest
            info.options.max_chunk_size = chunks.chunk_size
            try:
                revision = await replace_info(write, info)
            except (errors.APIError, errors.MaxPayloadError) as refusal:
                await self._learn_limit(refusal)  # noqa: ASYNC120 - cancelled, it is what the caller wants
                self._access.limits.check_info(info, info.size)
                raise
        except BaseException:
            if write.revision is not None:
                await self._access.purge_replaced(place, doing)  # noqa: ASYNC102 - shielded and bounded inside
            elif not write.in_doubt:
                await chunks.abandon()  # noqa: ASYNC102 - shielded and bounded inside
            else:
                leave_in_doubt(write)
            raise
        finally:
            write.close()
        stamp(info, place, revision)
        await self._access.purge_replaced(place, doing)
        return info
