"""Reading an object: its chunks, and whether they are what its info promises."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

from trionats import errors
from trionats._jetstream.api import in_store
from trionats._jetstream.objects.chunks import ChunkReader, Digest
from trionats._jetstream.objects.transfer import IDLE_LIMIT, idle_error
from trionats._protocol.jetstream.objects.infos import bad_meta

if TYPE_CHECKING:
    from trionats import api
    from trionats._jetstream.objects.access import Access

__all__ = ["Reading"]


@final
class Reading:
    """Reads objects of one bucket whole."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def read(self, info: api.ObjectInfo) -> bytes:
        """Read the data that an info promises, and verify it.

        Raises:
            trionats.errors.ObjectIncompleteError: Some of it is missing.
            trionats.errors.DigestMismatchError: It is other data.
            trionats.errors.BadObjectMetaError: The info promises what cannot be.
        """
        size, chunks, expected = self._promised(info)
        doing = f"get of object {info.name!r} from bucket {self._access.bucket!r}"
        digest, content, count = Digest(), io.BytesIO(), 0
        if chunks == 1 and (chunk := await self._only_chunk(info, doing)) is not None:
            content.write(chunk)
            count = 1
            await digest.update([chunk])
        elif chunks:
            reader: ChunkReader | None = None
            try:
                with in_store(str(self._access.names)):
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
                reader = ChunkReader(
                    self._access.api, self._access.stream, self._access.names.chunk_subject(info.nuid), chunks, doing
                )
                with suppress(errors.DisconnectedError):  # nothing was read yet: begin anew
                    await reader.open()
                    return reader
        raise idle_error(doing)

    async def _only_chunk(self, info: api.ObjectInfo, doing: str) -> bytes | None:
        """Ask for the chunk of a small object, which takes no consumer; None where that cannot be done."""
        if not self._access.names.direct:
            return None
        subject = (
            f"{self._access.api.prefix}.DIRECT.GET.{self._access.stream}.{self._access.names.chunk_subject(info.nuid)}"
        )
        try:
            with trio.fail_after(IDLE_LIMIT):
                # As for every transfer: the limit is for standing still, not for a reply.
                msg = await self._access.api.connection.with_request_timeout(None).request(subject)
        except trio.TooSlowError:
            raise idle_error(doing) from None
        except (errors.NoRespondersError, errors.DisconnectedError, errors.PermissionsViolationError):
            # The bucket or the server does not allow it, or the reply was lost: the other way is longer, and goes on.
            return None
        # Any replica responds; one that lags says that there is no such message, and the leader is asked then.
        return msg.data if msg.status is None else None

    def _promised(self, info: api.ObjectInfo) -> tuple[int, int, str]:
        if info.is_link():
            raise bad_meta(info.name, self._access.bucket, "it is a link, and links are not followed yet")
        if info.size is None or info.chunks is None or not info.digest or not info.nuid:
            raise bad_meta(info.name, self._access.bucket, "its info names no size, chunks, digest or nuid")
        return info.size, info.chunks, info.digest
