"""The directory of a backup: one that is being written, and one that is read.

The new one is written beside its place (`Beside`), and takes that when all of it is there and on the disk.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from trionats._jetstream.files import Beside, Threaded, synchronised
from trionats._protocol.jetstream.backups import manifest
from trionats._protocol.jetstream.backups.archive import NEW, OLD, Archive

if TYPE_CHECKING:
    import io
    from collections.abc import Sequence
    from typing import TypeVar, TypeVarTuple

    from trionats._protocol.jetstream.backups.manifest import Manifest

    T = TypeVar("T")
    Ts = TypeVarTuple("Ts")

__all__ = ["NewBackup", "StoredBackup"]

#: The name that the archive has while its form is not known.
_ARCHIVE: Final = "stream"
#: As the `nats` tool makes it: a backup holds what only its owner may read.
_MODE: Final = 0o700
#: How much of an archive is read at once to see whether it is whole.
_BLOCK: Final = 1024 * 1024


@final
class NewBackup(Beside):
    """A directory to be.

    Args:
        call: Who is given the path, for texts.
        path: Where it is to be.

    Raises:
        TypeError: It is no path.
        ValueError: It is an empty one.
    """

    def __init__(self, call: str, path: str | os.PathLike[str]) -> None:
        super().__init__(call, path)
        self._place = os.path.abspath(self._path)
        self._archive = Archive()
        self._file: io.FileIO | None = None

    @property
    def size(self) -> int:
        """How large the archive is so far, in bytes."""
        return self._archive.size

    async def check(self) -> None:
        """See whether it can be there, before anything is made.

        Raises:
            FileExistsError: Something is there already.
            OSError: The directory around it is not there.
        """
        await self._run(self._check)

    async def begin(self) -> None:
        """Begin it.

        Raises:
            OSError: It cannot be made there.
        """
        await self._run(self._begin)

    async def write(self, pieces: Sequence[bytes]) -> None:
        """Write some more of its archive.

        Raises:
            OSError: It cannot be written.
            trionats.errors.BackupIncompleteError: They are none of an archive.
        """
        await self._run(self._write, pieces)
        self._see_that_it_is_whole()

    async def finish(self, said: Manifest) -> None:
        """Take the place: after that the backup is there, and on the disk.

        Raises:
            OSError: It cannot be.
            trionats.errors.BackupIncompleteError: The archive is not whole.
        """
        await self._run(self._archive.end)
        self._see_that_it_is_whole()
        await self._run(self._finish, manifest.written(said))

    def _see_that_it_is_whole(self) -> None:
        if self._archive.complaint:
            raise manifest.incomplete(self._call, f"what came is no whole archive: {self._archive.complaint}")

    # In the thread.

    def _check(self) -> None:
        if os.path.lexists(self._place):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._path)
        self._check_around()

    def _begin(self) -> None:
        beside = self._hidden()
        os.mkdir(beside, _MODE)
        self._beside = beside
        self._file = open(os.path.join(beside, _ARCHIVE), "xb", buffering=0)  # noqa: SIM115 - closed by its end

    def _write(self, pieces: Sequence[bytes]) -> None:
        assert self._file is not None
        for piece in pieces:
            self._archive.feed(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) :]

    def _finish(self, said: bytes) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()
        os.rename(os.path.join(self._beside, _ARCHIVE), os.path.join(self._beside, self._archive.form.file))
        with open(os.path.join(self._beside, manifest.FILE), "xb") as file:
            file.write(said)
            file.flush()
            os.fsync(file.fileno())
        synchronised(self._beside)
        # What has come to be there meanwhile stays, except for an empty directory.
        os.rename(self._beside, self._place)
        self._beside = ""
        synchronised(os.path.dirname(self._place))

    def _remove(self) -> None:
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        shutil.rmtree(self._beside, ignore_errors=True)


@final
class StoredBackup(Threaded):
    """A directory that is there.

    Args:
        call: Who is given the path, for texts.
        path: Where it is.

    Raises:
        TypeError: It is no path.
        ValueError: It is an empty one.
    """

    def __init__(self, call: str, path: str | os.PathLike[str]) -> None:
        super().__init__(call, path)
        self.archive = Archive()
        """What is known of its archive, once it is open."""
        self._file: io.FileIO | None = None

    async def open(self) -> Manifest:
        """Open it, and see whether its archive is whole, which reads all of it.

        Returns:
            What the server said of the stream.

        Raises:
            OSError: It is not there, or cannot be read.
            trionats.errors.BackupIncompleteError: It is no whole backup.
        """
        said = await self._run(self._open)
        while await self._run(self._look):
            pass
        if self.archive.complaint:
            raise manifest.incomplete(self._call, f"the archive in {self._path!r}: {self.archive.complaint}")
        return said

    async def read(self, size: int) -> bytes:
        """Read the next part of its archive; nothing at its end.

        Raises:
            OSError: It cannot be read.
        """
        return await self._run(self._read, size)

    async def close(self) -> None:
        """Close it. Shielded and bounded."""
        if self._file is not None:
            await self._clean_up(self._file.close)

    # In the thread.

    def _open(self) -> Manifest:
        with open(os.path.join(self._path, manifest.FILE), "rb") as file:
            said = manifest.read(f"{self._call} from {self._path!r}", file.read(manifest.MOST_BYTES))
        there = [form.file for form in (NEW, OLD) if os.path.exists(os.path.join(self._path, form.file))]
        if len(there) > 1:
            raise manifest.incomplete(self._call, f"{self._path!r} holds both {' and '.join(there)}")
        name = there[0] if there else OLD.file
        self._file = open(os.path.join(self._path, name), "rb", buffering=0)  # noqa: SIM115 - closed by its end
        return said

    def _look(self) -> bool:
        piece = self._read(_BLOCK)
        if piece and not self.archive.complaint:
            self.archive.feed(piece)
            return True
        self.archive.end()
        assert self._file is not None
        self._file.seek(0)
        return False

    def _read(self, size: int) -> bytes:
        assert self._file is not None
        return self._file.read(size)
