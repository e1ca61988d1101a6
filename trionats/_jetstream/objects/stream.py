"""An object as a stream of bytes, which nobody feeds: its chunks are read in the task that receives."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats import api
    from trionats._feeds.run import Run
    from trionats._jetstream.objects.reader import ObjectReader

__all__ = ["ObjectStream"]


@final
class ObjectStream(trio.abc.ReceiveStream):
    """The data of an object, as `ObjectStore.open_object` gives it: a `trio.abc.ReceiveStream`, piece by piece with `async for`.

    There is no task behind it. The server sends ahead of what is received: at most 8 MiB, and 500 chunks, are on their way or wait
    here, whatever the object's size. Who receives slowly, or not at all for hours, only makes it wait; and it goes on where
    it was after a reconnect. A drain of the client does not wait for it.
    """

    def __init__(self, reader: ObjectReader, first: Sequence[bytes], run: Run) -> None:
        self._reader = reader
        self._run = run
        # The chunk that was read last, and how much of it was received.
        self._chunk, self._at = b"".join(first), 0
        self._receiving = False
        self._closed = False
        self._ended = not first
        self._failure: Exception | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "failed" if self._failure else "at its end" if self._ended else "open"
        return f"<ObjectStream of {self.info.name!r} in bucket {self.info.bucket!r}, {state}>"

    @property
    def info(self) -> api.ObjectInfo:
        """The object's info; where a link was opened, that of the object that it leads to."""
        return self._reader.info

    @enable_ki_protection
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive the next bytes, waiting for them.

        Always a checkpoint. Cancelled, it has taken nothing. One task at a time may receive.

        The count of the chunks, the size and the digest are verified at the end: what was received before may be wrong or too little, and
        then an exception comes in place of the end, and comes again at each further call.

        Args:
            max_bytes: No more than so many, at least 1; by default whatever is there, which is one chunk at the most.

        Returns:
            The bytes; none at the end, however often it is called. They are the object whole then.

        Raises:
            trionats.errors.ObjectIncompleteError: Chunks are missing, or do not add up to its size; for instance because the object
                was replaced or deleted meanwhile, which the text says.
            trionats.errors.DigestMismatchError: The data is not what was put.
            trionats.errors.StreamRegressedError: The bucket was made anew, or restored from an older copy.
            trionats.errors.BucketNotFoundError: The bucket is gone.
            trionats.errors.TimeoutError: Nothing came for 30 s, while somebody waited here.
            nats.errors.Error: The connection is gone for good.
            trio.ClosedResourceError: The stream was closed.
            trio.BusyResourceError: Another task receives.
            TypeError: `max_bytes` is no whole number.
            ValueError: `max_bytes` is less than 1.
        """
        self._run.check()
        if max_bytes is not None and (not isinstance(max_bytes, int) or isinstance(max_bytes, bool)):
            raise TypeError(f"receive_some: max_bytes must be a whole number, not {type(max_bytes).__name__}")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"receive_some: max_bytes must be at least 1, not {max_bytes}")
        if self._receiving:
            raise trio.BusyResourceError("another task receives from this object stream")
        self._receiving = True
        try:
            if self._at < len(self._chunk) or self._closed or self._ended or self._failure is not None:
                await checkpoint()
            else:
                self._chunk, self._at = await self._next_chunk(), 0
            if self._closed:
                raise trio.ClosedResourceError("this object stream was closed")
            if self._failure is not None:
                raise errors.again(self._failure)
            begin = self._at
            self._at = len(self._chunk) if max_bytes is None else min(begin + max_bytes, len(self._chunk))
            return self._chunk[begin : self._at]
        finally:
            self._receiving = False

    async def _next_chunk(self) -> bytes:
        """Wait for a chunk that is not empty; an empty one is the end, and a failure is kept for who asks."""
        try:
            while more := await self._reader.receive(most=1):
                # Of one that has any bytes, and of those before it that have none.
                if chunk := b"".join(more):
                    return chunk
            self._ended = True
        except errors.Error as error:
            # Without its traceback, which knows this stream.
            self._failure = errors.again(error)
        self._reader.close()
        if isinstance(self._failure, errors.ObjectIncompleteError):
            # Where that cannot be asked, what has failed is the reading all the same.
            with suppress(errors.Error):
                if await self._reader.replaced():
                    text = f"{self._failure}: the object was replaced or deleted while it was read"
                    self._failure = errors.explained(errors.ObjectIncompleteError, text)
        return b""

    async def aclose(self) -> None:
        """Close it; what was not received is dropped, and the server forgets the consumer. Idempotent, and always a checkpoint.

        Who waits in `receive_some` meanwhile gets a `trio.ClosedResourceError`.
        """
        self.close()
        await checkpoint()

    def close(self) -> None:
        """Close it, as `aclose` does. Synchronous."""
        self._run.check()
        self._closed = True
        self._chunk = b""
        self._reader.close()
