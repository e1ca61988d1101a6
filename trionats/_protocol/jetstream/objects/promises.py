"""What an info promises of an object's data, and whether what came is that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, final

from trionats import errors
from trionats._protocol.jetstream.objects.infos import bad_meta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trionats import api

__all__ = ["Arrivals", "Promise", "promise_of"]

#: What the server counts besides a chunk's data: its subject, and that of the acknowledgement.
_BESIDE = 256


class Promise(NamedTuple):
    """How much data an object has, in how many chunks, and which.

    Attributes:
        size: In bytes.
        chunks: In chunks.
        digest: Of the data, in any of the forms that clients write.
    """

    size: int
    chunks: int
    digest: str

    def chunks_in(self, credit: int) -> int:
        """Say how many chunks there are in so many bytes, as the server counts them: one at the least.

        Args:
            credit: The bytes.
        """
        each = self.size // max(self.chunks, 1) + _BESIDE
        return max(credit // each, 1)


def promise_of(info: api.ObjectInfo, bucket: str) -> Promise:
    """Read what an info promises.

    Args:
        info: The info, of an object that is neither deleted nor a link.
        bucket: Its bucket, for texts.

    Raises:
        trionats.errors.BadObjectMetaError: It promises nothing that could be kept.
    """
    if info.size is None or info.chunks is None or not info.digest or not info.nuid:
        raise bad_meta(info.name, bucket, "its info names no size, chunks, digest or nuid")
    return Promise(info.size, info.chunks, info.digest)


@final
@dataclass(slots=True)
class Arrivals:
    """What has come of an object, in order.

    Attributes:
        promise: What is to come.
        size: How many bytes have come.
        chunks: How many chunks.
    """

    promise: Promise
    size: int = 0
    chunks: int = 0

    @property
    def missing(self) -> int:
        """How many chunks are still to come."""
        return max(self.promise.chunks - self.chunks, 0)

    def count(self, chunks: Iterable[bytes]) -> None:
        """Take note that chunks have come."""
        for chunk in chunks:
            self.chunks += 1
            self.size += len(chunk)

    def check(self, doing: str) -> None:
        """See whether what has come is all, and no more.

        Args:
            doing: The transfer, for the text.

        Raises:
            trionats.errors.ObjectIncompleteError: It is not.
        """
        promise = self.promise
        if (self.chunks, self.size) != (promise.chunks, promise.size):
            text = (
                f"{doing}: {self.chunks} of {promise.chunks} chunks with {self.size} of {promise.size} bytes are there"
            )
            raise errors.explained(errors.ObjectIncompleteError, text)
