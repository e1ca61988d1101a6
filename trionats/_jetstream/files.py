"""What is written beside its place, and takes that when it is whole: a file here, a directory in `backups.directories`.

Until then what was there is as it was, and nothing is left of the new one where that fails or is cancelled. All that may wait for a disk
runs in a worker thread, one piece at a time. A program that is killed meanwhile leaves what stands beside: it is hidden, and its
name ends in `.part`.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

import trio

from trionats._jetstream.api import CLEANUP_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar, TypeVarTuple

    T = TypeVar("T")
    Ts = TypeVarTuple("Ts")

__all__ = ["Beside", "NewFile", "Threaded", "synchronised"]

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
#: How much of the file's name is in that of the one beside it: a name has 255 bytes at most.
_NAME_BYTES: Final = 100


def synchronised(directory: str) -> None:
    """See to it that the names in a directory are on the disk, too: in a thread, and where that can be done."""
    if os.name == "posix":
        # Who may not read the directory cannot see to that.
        with suppress(PermissionError):
            file = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)


class Threaded:
    """What does its work in threads, one piece at a time.

    Args:
        call: Who is given the path, for texts.
        path: What was given.

    Raises:
        TypeError: It is no path.
        ValueError: It is an empty one.
    """

    def __init__(self, call: str, path: object) -> None:
        given = path if isinstance(path, str) else os.fspath(path) if isinstance(path, os.PathLike) else None
        if not isinstance(given, str):
            raise TypeError(f"{call}: path must be text or an os.PathLike, not {type(path).__name__}")
        if not given or "\0" in given:
            raise ValueError(f"{call}: path {given!r} is none")
        self._call, self._path = call, given
        # A limiter of its own: programs that use up Trio's default one must not stop a transfer.
        self._limiter = trio.CapacityLimiter(1)

    async def _run(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Do something in a thread. Cancelled before it begins, it is not done; behind that it is done whole."""
        return await trio.to_thread.run_sync(work, *args, limiter=self._limiter)

    async def _clean_up(self, work: Callable[[], object]) -> None:
        """Do something in a thread, even when cancelled, but wait only so long for it."""
        with trio.move_on_after(CLEANUP_LIMIT, shield=True):
            await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)


class Beside(Threaded):
    """What is written beside its place. Its kinds begin it, say how it is removed, and let it take the place."""

    def __init__(self, call: str, path: object) -> None:
        super().__init__(call, path)
        self._place = self._beside = ""

    async def discard(self) -> None:
        """Remove what is left of it, if it was not finished. Shielded, bounded, and raises nothing."""
        if self._beside:
            await self._clean_up(self._discard)

    async def _run(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        try:
            return await super()._run(work, *args)
        except OSError as error:
            # Who gave the path knows of nothing beside it, and a full disk names nothing at all.
            raise type(error)(error.errno, error.strerror, self._path) from None

    # In the thread.

    def _check_around(self) -> None:
        """See whether what the place is in is there."""
        if not os.path.isdir(os.path.dirname(self._place)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path)

    def _hidden(self) -> str:
        """Make a name beside the place that nothing has."""
        directory, name = os.path.split(self._place)
        short = os.fsdecode(os.fsencode(name)[:_NAME_BYTES])
        return os.path.join(directory, f".{short}.{secrets.token_hex(8)}.part")

    def _discard(self) -> None:
        self._remove()
        self._beside = ""

    def _remove(self) -> None:
        """Remove it, as far as that can be done."""
        raise NotImplementedError


@final
class NewFile(Beside):
    """A file to be.

    Args:
        call: Who is given the path, for texts.
        path: Where it is to be. A symbolic link is followed, as `open` does.

    Raises:
        TypeError: It is no path.
        ValueError: It is an empty one.
    """

    def __init__(self, call: str, path: str | os.PathLike[str]) -> None:
        super().__init__(call, path)
        self._file = -1

    async def check(self) -> None:
        """See whether a file can be there, before anything is made.

        Raises:
            OSError: Its directory is not there, or there is a directory in its place.
            ValueError: There is something else that is no file, such as a device.
        """
        await self._run(self._check)

    async def begin(self) -> None:
        """Begin it, also once more: what was written is dropped.

        Raises:
            OSError: It cannot be made there.
        """
        await self._run(self._begin)

    async def write(self, pieces: Sequence[bytes]) -> None:
        """Write some more.

        Raises:
            OSError: It cannot be written.
        """
        await self._run(self._write, pieces)

    async def finish(self) -> None:
        """Take the place: after that the file is there, on the disk, under its name.

        Raises:
            OSError: It cannot be.
        """
        await self._run(self._finish)

    # In the thread.

    def _check(self) -> None:
        if os.path.basename(self._path) in ("", os.curdir, os.pardir):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._path)
        self._place = os.path.realpath(self._path)
        with suppress(FileNotFoundError):
            mode = os.stat(self._place).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._path)
            if not stat.S_ISREG(mode):
                raise ValueError(f"{self._call}: what stands at path {self._path!r} is no file")
        self._check_around()

    def _begin(self) -> None:
        if self._beside:
            os.lseek(self._file, 0, os.SEEK_SET)
            os.ftruncate(self._file, 0)
            return
        beside = self._hidden()
        try:
            mode = stat.S_IMODE(os.stat(self._place).st_mode)
        except FileNotFoundError:
            mode = None
        # As `open` makes one, less what the umask takes away; one that is replaced hands its permissions on.
        self._file = os.open(beside, _FLAGS, 0o666 if mode is None else mode & 0o700)
        self._beside = beside
        if mode is not None:
            os.chmod(beside, mode)

    def _write(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def _finish(self) -> None:
        os.fsync(self._file)
        self._close()
        os.replace(self._beside, self._place)
        self._beside = ""
        synchronised(os.path.dirname(self._place))

    def _remove(self) -> None:
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            os.unlink(self._beside)

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
