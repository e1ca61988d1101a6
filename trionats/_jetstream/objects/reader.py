"""One object's data, read once and in order, and whether it is what its info promises.

Where it comes from
    The chunk of a small object is asked for directly, which takes no consumer. Several are read in order through a consumer of our
    own (`ChunkReader`), with flow by credit: what was not received stays in the credit, so memory is bounded. It goes on where
    it was after a reconnect, and after its consumer was forgotten because nobody read for a while.

When it ends
    With the last chunk that was promised, or when the leader of the stream says that there are no more. What has come is compared then,
    by count, size and digest; so the end is either true or an exception. Whoever hands chunks on before has handed them on.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, final

import trio

from trionats import errors
from trionats._jetstream.api import in_store
from trionats._jetstream.idle import IDLE_LIMIT, idle_error
from trionats._jetstream.objects.chunks import BLOCK_SIZE, ChunkReader, Digest
from trionats._jetstream.ordered.source import RESPONSE_LIMIT
from trionats._protocol.jetstream.objects.promises import Arrivals, promise_of

if TYPE_CHECKING:
    from trionats import api
    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging
    from trionats._jetstream.objects.access import Access

__all__ = ["ObjectReader"]


@final
class ObjectReader:
    """Reads the data that an info promises, once.

    Args:
        access: The object's bucket.
        info: Its info.
        block: How many bytes `receive` waits for, unless no more are to come.

    Raises:
        trionats.errors.BadObjectMetaError: The info promises nothing that could be kept.
    """

    def __init__(self, access: Access, info: api.ObjectInfo, block: int = BLOCK_SIZE) -> None:
        self.info = info
        self._access, self._block = access, block
        self._doing = f"get of object {info.name!r} from bucket {access.bucket!r}"
        self._subject = access.names.chunk_subject(info.nuid)
        self._arrived = Arrivals(promise_of(info, access.bucket))
        self._digest = Digest()
        self._only: list[bytes] = []
        self._reader: ChunkReader | None = None

    async def open(self) -> None:
        """Begin to read. Failed or cancelled, nothing is left of it.

        Raises:
            trionats.errors.TimeoutError: Nothing was said for `IDLE_LIMIT` seconds.
            nats.errors.Error: As for any question to the JetStream API.
        """
        chunks = self._arrived.missing
        if chunks == 1 and (chunk := await self._ask_only_chunk()) is not None:
            self._only = [chunk]
        elif chunks:
            with in_store(str(self._access.names)):
                self._reader = await self._open_reader()

    async def receive(self, most: float = inf) -> list[bytes]:
        """Wait for more chunks. Cancelled, it has taken none.

        Args:
            most: No more of them are taken when they have so many bytes.

        Returns:
            The next chunks; none at the end, when all was as promised.

        Raises:
            trionats.errors.ObjectIncompleteError: Some are missing, or do not add up to the object's size.
            trionats.errors.DigestMismatchError: It is other data.
            trionats.errors.TimeoutError: None came for `IDLE_LIMIT` seconds.
            nats.errors.Error: The stream or the connection is gone for good.
        """
        more: list[bytes] = []
        if not self._arrived.missing:
            await trio.lowlevel.checkpoint()
        elif self._reader is None:
            await trio.lowlevel.checkpoint()
            more, self._only = self._only, []
        else:
            with in_store(str(self._access.names)):
                more = await self._reader.receive(most)
        if more:
            self._arrived.count(more)
            await self._digest.update(more)
        else:
            self._verify()
        return more

    async def replaced(self) -> bool:
        """Look whether the object is not there any more, or is another one by now: its chunks were purged then."""
        now = (await self._access.find(self.info.name)).info
        return now is None or now.deleted is True or now.nuid != self.info.nuid

    def close(self) -> None:
        """End it: nothing is left on the server. Synchronous, idempotent."""
        if self._reader is not None:
            self._reader.close()

    def _verify(self) -> None:
        self._arrived.check(self._doing)
        expected = self._arrived.promise.digest
        if not self._digest.matches(expected):
            text = f"{self._doing}: the data has the digest {self._digest}, and should have {expected!r}"
            raise errors.explained(errors.DigestMismatchError, text, description=text)

    async def _open_reader(self) -> ChunkReader:
        access, promise = self._access, self._arrived.promise
        with trio.move_on_after(IDLE_LIMIT):
            while True:
                reader = ChunkReader(access.api, access.stream, self._subject, promise, self._doing, self._block)
                # Nothing was read yet: begin anew. What was asked of a server of the cluster that dies is lost, and ours stays
                # connected.
                with suppress(errors.DisconnectedError), trio.move_on_after(RESPONSE_LIMIT):
                    await reader.open()
                    return reader
        raise idle_error(self._doing)

    async def _ask_only_chunk(self) -> bytes | None:
        """Ask for the chunk of a small object, which takes no consumer; None where that cannot be done."""
        if not self._access.names.direct:
            return None
        jetstream = self._access.api
        subject = f"{jetstream.prefix}.DIRECT.GET.{self._access.stream}.{self._subject}"
        try:
            with trio.fail_after(IDLE_LIMIT):
                msg = await self._ask_again(jetstream.connection.with_request_timeout(None), subject)
        except trio.TooSlowError:
            raise idle_error(self._doing) from None
        except (errors.NoRespondersError, errors.DisconnectedError, errors.PermissionsViolationError):
            # The bucket or the server does not allow it, or the reply was lost: the other way is longer, and goes on.
            return None
        # Any replica responds; one that lags says that there is no such message, and the leader is asked then.
        return msg.data if msg.status is None else None

    async def _ask_again(self, connection: Messaging, subject: str) -> Msg:
        """Ask until there is a reply: as for every transfer, the limit is for standing still, not for one reply."""
        while True:
            with trio.move_on_after(RESPONSE_LIMIT):
                return await connection.request(subject)
