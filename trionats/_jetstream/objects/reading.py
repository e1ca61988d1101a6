"""Reading objects: the way to one over links, the whole of it as bytes or into a file, and a stream of it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Protocol, TypeVar, final

from trionats import api, errors
from trionats._jetstream.files import NewFile
from trionats._jetstream.objects.chunks import BLOCK_SIZE
from trionats._jetstream.objects.reader import ObjectReader
from trionats._jetstream.objects.stream import ObjectStream
from trionats._jetstream.progress import ProgressTeller
from trionats._protocol.jetstream.objects.links import Way
from trionats._protocol.jetstream.objects.names import encoded_name

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Sequence

    from trionats._jetstream.objects.access import Access
    from trionats._jetstream.progress import Progress

__all__ = ["Reading"]

T = TypeVar("T")

#: How often a reading begins again because the object was replaced meanwhile.
ATTEMPTS = 10


class _Target(Protocol):
    """Where a whole object goes."""

    async def begin(self) -> None:
        """Begin, also once more: what was written is dropped."""

    async def write(self, pieces: Sequence[bytes]) -> None:
        """Take the next chunks."""


class _Memory:
    """Keeps it."""

    def __init__(self) -> None:
        self._content = io.BytesIO()

    async def begin(self) -> None:
        self._content = io.BytesIO()

    async def write(self, pieces: Sequence[bytes]) -> None:
        # Each chunk is freed at once: joining all of them in the end took 20 % more.
        self._content.writelines(pieces)

    @property
    def data(self) -> bytes:
        return self._content.getvalue()


@final
class Reading:
    """Reads objects of one bucket, and those that its links lead to."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def get(self, name: str, progress: Progress | None) -> api.ObjectResult:
        """Read an object whole, as `ObjectStore.get` says."""
        memory = _Memory()
        info = await self._read_into(memory, name, ProgressTeller(progress, f"get of object {name!r}"))
        return api.ObjectResult(info, memory.data)

    async def get_file(self, name: str, path: str | os.PathLike[str], progress: Progress | None) -> api.ObjectInfo:
        """Read an object into a file, as `ObjectStore.get_file` says."""
        self._access.api.connection.pace.run.check()
        encoded_name(name, self._access.bucket)
        tell = ProgressTeller(progress, f"get_file of object {name!r}")
        file = NewFile(f"get_file of object {name!r}", path)
        await file.check()
        try:
            info = await self._read_into(file, name, tell)
            await file.finish()
        finally:
            await file.discard()  # noqa: ASYNC102 - shielded and bounded in there
        return info

    async def open(self, name: str) -> ObjectStream:
        """Open a stream of an object, as `ObjectStore.open_object` says."""
        run = self._access.api.connection.pace.run

        async def begin(reader: ObjectReader) -> ObjectStream:
            await reader.open()
            # So nothing was handed over while it may still turn out that the object was just replaced.
            return ObjectStream(reader, await reader.receive(most=1), run)

        return await self._read(name, begin, block=1)

    async def _read_into(self, target: _Target, name: str, tell: ProgressTeller) -> api.ObjectInfo:
        async def transfer(reader: ObjectReader) -> api.ObjectInfo:
            await target.begin()
            await reader.open()
            size, done = reader.info.size, 0
            while more := await reader.receive():
                await target.write(more)
                done += sum(map(len, more))
                tell(done, size)
            tell(done, size)
            reader.close()
            return reader.info

        return await self._read(name, transfer)

    async def _read(self, name: str, use: Callable[[ObjectReader], Awaitable[T]], *, block: int = BLOCK_SIZE) -> T:
        """Find an object, and do something with what reads it; again with another one when it was replaced meanwhile.

        The reader is closed unless that succeeds.
        """
        for _ in range(ATTEMPTS):
            reader = await self._find(name, block)
            try:
                return await use(reader)
            except (errors.ObjectIncompleteError, errors.StreamRegressedError) as error:
                reader.close()
                failure = error
            except BaseException:
                reader.close()
                raise
            # Another stream took the place of the one that was read, or another object that of this one.
            if not isinstance(failure, errors.StreamRegressedError) and not await reader.replaced():
                break
        try:
            raise failure
        finally:
            # It knows this frame, and would be kept by it until somebody collects garbage.
            del failure

    async def _find(self, name: str, block: int) -> ObjectReader:
        """Find an object, where links lead to it."""
        access, way = self._access, Way(self._access.bucket, name)
        info = await access.info(name)
        while (step := way.follow(info)) is not None:
            bucket, name = step
            try:
                if bucket != access.bucket:
                    access = await access.beside(bucket)
                info = await access.info(name)
            except errors.Error as error:
                raise errors.explained(type(error), f"{way}: {error}", **vars(error)) from error
        return ObjectReader(access, info, block)
