"""Where the data of a new object comes from: one face for all that a program may give.

Whose it is
    What we open we close: the file of a path. What a program gives, a file, a stream or an iterable, stays the program's,
    read as far as it was read; an async generator, too, is closed by who made it, as behind any other ``async for``.
    What it raises goes to the caller as it is.

What is handed on
    Blocks that nobody changes any more. What could be changed while it is sent is copied, block by block: an object is
    always what was read, and hashed.

Time
    Nobody limits how long a program's source may take: it is under the program's own deadlines.
    Files are read in a thread, which also hashes; it is waited for, cancelled or not, as with `trio.open_file`: whoever is
    told that a put is over may close the file. What we open ourselves is nobody else's, so a put that is cancelled does not wait
    for it: a named pipe opens when somebody writes into it, and never if nobody does.
"""

from __future__ import annotations

import inspect
import io
import os
import stat
import threading
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeGuard, final

import trio

from trionats._jetstream.objects.chunks import BLOCK_SIZE, Digest

if TYPE_CHECKING:
    from trionats._protocol.commands import Payload

__all__ = ["ObjectData", "Source", "source_of"]

WELCOME: Final = "bytes, text, a path, a binary file, or a stream or an async iterable of bytes"


class Readable(Protocol):
    """A binary file, whose `read` is awaited or not."""

    def read(self, size: int, /) -> bytes | Awaitable[bytes]:
        """Read at most so many bytes; none at the end."""


#: What a program may give as the data of an object.
ObjectData: TypeAlias = (
    "str | bytes | bytearray | memoryview | os.PathLike[str] | Readable | trio.abc.ReceiveStream | AsyncIterable[bytes]"
)


def _is_readable(data: object) -> TypeGuard[Readable]:
    # `trio.open_file` makes files whose methods no look at their class can see.
    return callable(getattr(data, "read", None))


class Source(Protocol):
    """The data of one object, in order."""

    @property
    def size(self) -> int | None:
        """How much there is in all, as far as it is known; for certain behind the end."""

    async def read_block(self) -> Payload:
        """Read some more, at most `BLOCK_SIZE`; nothing means that there is no more, and is the end of it.

        Raises:
            TypeError: It gives something that is not bytes.
            BaseException: Whatever the program's own source raises.
        """

    @property
    def digest(self) -> str:
        """The digest of what was read, as an object's info names it."""

    def close(self) -> None:
        """Let go of what was opened for it. Synchronous, idempotent."""


def source_of(data: ObjectData, what: str) -> Source:
    """Find out how to read what a program gives.

    Args:
        data: What it gives.
        what: The object, for texts.

    Raises:
        TypeError: It is nothing that could be read as bytes.
        ValueError: It is text that has no bytes.
    """
    if isinstance(data, str):
        try:
            return _Memory(str.encode(data))
        except UnicodeEncodeError as error:
            raise ValueError(f"{what}: its data is no valid text") from error
    if isinstance(data, (bytes, bytearray, memoryview)):
        return _Memory(data)
    if isinstance(data, os.PathLike):
        return _InThread(what, path=data)
    if isinstance(data, trio.abc.ReceiveStream):
        return _Waiting(data.receive_some, what)
    if isinstance(getattr(data, "wrapped", data), io.TextIOBase):
        raise TypeError(f"{what}: its data must be {WELCOME}, not a file opened as text")
    if _is_readable(data):
        read = data.read
        if inspect.iscoroutinefunction(read):
            return _Waiting(lambda: read(BLOCK_SIZE), what)
        return _InThread(what, data)
    if isinstance(data, AsyncIterable):
        return _Waiting(_following(data, what), what)
    raise TypeError(f"{what}: its data must be {WELCOME}, not {type(data).__name__}")


@final
class _Memory:
    """What is there already; hashed while the server works, so each block when it was sent."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        plain = view.ndim == view.itemsize == 1 and view.c_contiguous
        self._view = view if plain else memoryview(view.tobytes())
        # A view may be readonly and see what others change.
        self._fixed = isinstance(self._view.obj, bytes)
        self._digest = Digest()
        self._block: Payload = b""
        self._read = 0
        self.size = self._view.nbytes

    async def read_block(self) -> Payload:
        await self._digest.update([self._block])
        block = self._view[self._read : self._read + BLOCK_SIZE]
        self._read += len(block)
        self._block = block if self._fixed else block.tobytes()
        return self._block

    @property
    def digest(self) -> str:
        return str(self._digest)

    def close(self) -> None:
        self._view.release()


@final
class _Waiting:
    """What somebody else awaits, and gives in pieces of any size; nothing means the end."""

    def __init__(self, receive: Callable[[], Awaitable[object]], what: str) -> None:
        self._receive = receive
        self._what = what
        self._digest = Digest()
        self._block: Payload = b""
        self._left = memoryview(b"")
        self._read = 0
        self.size: int | None = None

    async def read_block(self) -> Payload:
        await self._digest.update([self._block])
        if not self._left:
            self._left = memoryview(_unchanging(await self._receive(), self._what))
        self._block, self._left = self._left[:BLOCK_SIZE], self._left[BLOCK_SIZE:]
        self._read += len(self._block)
        if not self._block:
            self.size = self._read
        return self._block

    @property
    def digest(self) -> str:
        return str(self._digest)

    def close(self) -> None:
        pass


def _following(pieces: AsyncIterable[object], what: str) -> Callable[[], Awaitable[bytes]]:
    """Make of an iterable what is called for each piece; an empty one is not the end of it."""
    iterator = aiter(pieces)

    async def following() -> bytes:
        with suppress(StopAsyncIteration):
            while not (piece := _unchanging(await anext(iterator), what)):  # noqa: ASYNC110 - nobody says that more has come
                # It may have nothing for ever, and wait for nothing.
                await trio.lowlevel.checkpoint()
            return piece
        return b""

    return following


@final
class _InThread:
    """A file, which has to be waited for in a thread; that one also hashes it.

    Args:
        what: The object, for texts.
        file: One of the program's.
        path: That of one which is opened for it, where there is none.
    """

    def __init__(self, what: str, file: Readable | None = None, *, path: str | os.PathLike[str] = "") -> None:
        self._what = what
        self._file = file
        self._path = path
        self._digest = Digest()
        # Of its own: programs that use up Trio's default one must not stop a transfer.
        self._limiter = trio.CapacityLimiter(1)
        self._ours: io.FileIO | None = None
        self._lock = threading.Lock()
        self._busy = self._closed = False
        self._read: int | None = None
        self.size: int | None = None

    async def read_block(self) -> Payload:
        [given] = await trio.to_thread.run_sync(
            self._work, abandon_on_cancel=self._file is self._ours, limiter=self._limiter
        )
        return given if isinstance(given, bytes) else self._taken(await given)

    def _work(self) -> tuple[bytes | Awaitable[object]]:
        with self._lock:
            self._busy = True
        try:
            return (self._read_block(),)  # Trio takes no awaitable from a thread
        finally:
            with self._lock:
                self._busy = False
                if self._closed and self._ours is not None:
                    self._ours.close()

    def _read_block(self) -> bytes | Awaitable[object]:
        if self._file is None:
            self._file = self._ours = io.FileIO(self._path)
        if self._read is None:
            self.size, self._read = _size_of(self._file), 0
        given: object = self._file.read(BLOCK_SIZE)
        return given if inspect.isawaitable(given) else self._taken(given)

    def _taken(self, given: object) -> bytes:
        assert self._read is not None, "it was looked at before it was read"
        block = _unchanging(given, self._what)
        self._digest.add([block])
        self._read += len(block)
        if not block:
            self.size = self._read
        return block

    @property
    def digest(self) -> str:
        return str(self._digest)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            # A thread that nobody waits for closes it behind itself.
            if self._ours is not None and not self._busy:
                self._ours.close()


def _size_of(file: object) -> int | None:
    """Say how much there is to read in a file; None where nobody can know, or it takes more than a look."""
    if isinstance(file, io.BytesIO):
        return max(len(file.getbuffer()) - file.tell(), 0)
    if not isinstance(file, (io.FileIO, io.BufferedReader, io.BufferedRandom)):
        return None
    # Only with a plain file below is its size that of what is read.
    if not isinstance(file, io.FileIO) and not isinstance(file.raw, io.FileIO):
        return None
    about = os.fstat(file.fileno())
    # Many files that the system makes up as they are read have a size of 0.
    if not stat.S_ISREG(about.st_mode) or not about.st_size:
        return None
    return max(about.st_size - file.tell(), 0)


def _unchanging(piece: object, what: str) -> bytes:
    """Check a piece, and copy it where it may be changed."""
    if type(piece) is bytes:
        return piece
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(memoryview(piece).tobytes())
    raise TypeError(f"{what}: its data must come as bytes, not {type(piece).__name__}")
