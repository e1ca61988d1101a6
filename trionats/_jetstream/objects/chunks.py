"""The chunks of one object: sent in a bounded window, read in order, and hashed on the way.

Strategy
    A put that waits for each chunk's acknowledgement is as slow as the network is far, and one that waits for none
    drowns the server and learns too late what failed. So at most `WINDOW_BYTES` are unacknowledged at any time, and the
    acknowledgements are read in the order in which the chunks were sent.
    A get reads through an ordered source, in the caller's own task; while it hashes one batch of chunks, the server and the
    socket collect the next.

Invariants
    The chunks lie in the stream in their order: what the server refused because it was busy or without a leader is sent
    again together with all that followed it, after those of the followers that were stored have been deleted.
    So is what it refused because it takes less from now on, cut anew. What was stored before stays: chunks need not be of
    one size, and the data need not be had twice.
    When `abandon` returns, what was stored is purged, or `purging` sees to it (design 57).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import deque
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import trio

from trionats import errors
from trionats._jetstream.idle import IDLE_LIMIT, idle_error
from trionats._jetstream.jitter import JITTER
from trionats._jetstream.objects.purging import Purge
from trionats._jetstream.objects.transfer import Transfer
from trionats._jetstream.ordered.source import Handed, OrderedSource, Sink
from trionats._jetstream.publishing.destination import written_at
from trionats._protocol.jetstream.objects.cutting import Cutter
from trionats._protocol.jetstream.ordered.resuming import Ordered
from trionats._protocol.jetstream.publishing.publish import PUBLISH_RETRIES, PUBLISH_RETRY_WAIT
from trionats._protocol.replies import no_stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging, Publishing
    from trionats._core.requests import PendingReply
    from trionats._jetstream.api import Api
    from trionats._protocol.commands import Payload
    from trionats._protocol.jetstream.acks import AckSubject
    from trionats._protocol.jetstream.objects.promises import Promise

#: What may be unacknowledged. More than this gained nothing against a server on the same machine, and 8 MiB fill a line of
#: 1 Gbit/s with a round trip of 60 ms.
WINDOW_BYTES = 8 * 1024 * 1024
WINDOW_CHUNKS = 512
#: How much is looked at in one go, between two chances for other tasks.
BLOCK_SIZE = 512 * 1024
#: What a get may have been sent and not yet looked at, in chunks and bytes.
READ_CHUNKS = 500
READ_BYTES = 8 * 1024 * 1024
#: After how many seconds without a request the server forgets the consumer of a get; who reads on gets another one.
CONSUMER_IDLE = 30.0
#: SHA-256 runs at about 1 MB per ms, and handing data to a thread cost more than it gained up to this size (measured:
#: 64 MiB in blocks of 1 MiB took 20 % more CPU, and no less time). Above it the event loop would wait too long.
HASH_IN_THREAD = 2 * 1024 * 1024

TOO_MANY_REQUESTS = 429
SEALED = 10109

_digest_form = re.compile(r"sha-256=([-_+/A-Za-z0-9]{43})=?", re.IGNORECASE).fullmatch


class Digest:
    """SHA-256 of data that comes in pieces; much at once is hashed in a thread, while the network goes on."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        # A limiter of its own: programs that use up Trio's default one must not stop a transfer.
        self._limiter = trio.CapacityLimiter(1)

    async def update(self, pieces: Sequence[Payload]) -> None:
        """Hash some more."""
        if sum(map(len, pieces)) < HASH_IN_THREAD:
            self.add(pieces)
        else:
            # Some milliseconds; cancelled in there, what was received would be lost, or hashed twice.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.add, pieces, limiter=self._limiter)

    def add(self, pieces: Sequence[Payload]) -> None:
        """Hash some more at once, for who is in a thread already."""
        for piece in pieces:
            self._hash.update(piece)

    def __str__(self) -> str:
        return "SHA-256=" + base64.urlsafe_b64encode(self._hash.digest()).decode()

    def matches(self, text: str) -> bool:
        """Say whether this is the digest that an object's info names, in any of the forms that clients write."""
        form = _digest_form(text)
        if form is None:
            return False
        return base64.urlsafe_b64decode(form[1].replace("+", "-").replace("/", "_") + "=") == self._hash.digest()


class _Flying(NamedTuple):
    data: Payload
    reply: PendingReply


class ChunkWriter:
    """Cuts the data of one new object into chunks, and stores them in order.

    Args:
        jetstream: Where the bucket is.
        stream: The bucket's stream.
        subject: The object's own chunk subject.
        doing: The transfer, for the text of exceptions.
        size: How large the chunks are.
        smaller: Called with the exception for a chunk that was refused, and that chunk's length. It says into what to cut
            from now on, or raises what the transfer fails with.
        stored: Called with the number of bytes that are stored, whenever it has grown.
    """

    def __init__(
        self,
        jetstream: Api[Publishing],
        stream: str,
        subject: str,
        doing: str,
        size: int,
        *,
        smaller: Callable[[errors.Error, int], Awaitable[int]],
        stored: Callable[[int], object],
    ) -> None:
        self._api = jetstream
        self._stream = stream
        self._subject = subject
        self._transfer = Transfer(jetstream, stream, subject, doing)
        self._cutter = Cutter(size)
        self._smaller = smaller
        self._tell = stored
        self._waiting: deque[Payload] = deque()
        self._flying: deque[_Flying] = deque()
        self._flying_bytes = 0
        self._window = WINDOW_BYTES
        self._refusals = 0
        self._last_seq = 0
        self._sent_any = False
        self.count = 0
        """How many chunks are stored."""
        self.bytes = 0
        """How much that is."""
        self.chunk_size = size
        """What none of those that are stored is larger than."""

    async def write(self, data: Payload) -> None:
        """Queue some more of the data, waiting for acknowledgements while the window is full. Always a checkpoint.

        Args:
            data: As much as there is, cut wherever; nobody changes it any more.

        Raises:
            nats.errors.Error: A chunk could not be stored.
        """
        self._waiting += self._cutter.cut(data)
        await self._send_waiting()
        # The writer has its turn while the data is still in the processor's caches, and the server begins at once.
        await trio.lowlevel.checkpoint()

    async def finish(self) -> None:
        """Store the rest, and wait until all chunks are acknowledged.

        Raises:
            nats.errors.Error: A chunk could not be stored.
        """
        self._waiting += self._cutter.end()
        while self._flying or self._waiting:
            await self._send_waiting()
            if self._flying:
                await self._settle_oldest()
        # Acknowledgements that had come took no checkpoint each; what was cancelled meanwhile is to go no further.
        await trio.lowlevel.checkpoint()

    async def abandon(self) -> None:
        """Purge what was stored. Shielded, bounded, and raises nothing: it runs while something else is raised.

        What the server has not acknowledged by then may still be stored; its acknowledgement leads to one more purge.
        """
        if not self._sent_any:
            return
        purge = Purge(
            self._api, self._stream, self._subject, self._transfer.doing, [flying.reply for flying in self._flying]
        )
        self._flying.clear()
        await purge.wait()
        failure = purge.failure
        # A sealed bucket takes no purge; but it has not taken any chunk either.
        spared = isinstance(failure, errors.APIError) and failure.err_code == SEALED and not self._last_seq
        if failure is not None and not spared:
            purge.tell()

    async def _send_waiting(self) -> None:
        while self._waiting:
            size = len(self._waiting[0])
            full = self._flying_bytes + size > self._window or len(self._flying) >= WINDOW_CHUNKS
            # What has failed is noticed also where the data comes so slowly that the window is never full.
            if self._flying and (full or self._flying[0].reply.done):
                await self._settle_oldest()
                continue
            try:
                reply = self._transfer.send_nowait(self._waiting[0])
            except (trio.WouldBlock, errors.OutboundBufferLimitError):
                await self._make_room()
                continue
            except errors.MaxPayloadError as error:
                self._cut_again(await self._smaller(error, size))
                continue
            self._sent_any = True
            self._flying.append(_Flying(self._waiting.popleft(), reply))
            self._flying_bytes += size

    async def _make_room(self) -> None:
        if self._flying:
            await self._settle_oldest()
        else:
            await self._transfer.wait_writable()

    async def _settle_oldest(self) -> None:
        oldest = self._flying[0]
        try:
            ack = self._transfer.ack(await self._transfer.wait_reply(oldest.reply))
        except errors.NoRespondersError:
            await self._wait_a_while(no_stream(self._transfer.doing))
            return
        except (errors.APIError, errors.MaxPayloadError) as error:
            if isinstance(error, errors.APIError) and error.code == TOO_MANY_REQUESTS:
                await self._wait_a_while(error)
                return
            size = await self._smaller(error, len(oldest.data))
            await self._go_back()
            self._cut_again(size)
            return
        if ack.seq <= self._last_seq:
            text = f"{self._transfer.doing}: the server stored a chunk at {ack.seq}, behind one at {self._last_seq}"
            raise errors.explained(errors.ObjectIncompleteError, text)
        self._last_seq = ack.seq
        self._refusals = 0
        self._flying.popleft()
        self._flying_bytes -= len(oldest.data)
        self.count += 1
        self.bytes += len(oldest.data)
        self._tell(self.bytes)

    async def _wait_a_while(self, refusal: Exception) -> None:
        """Begin again with the oldest chunk, which the server was not ready for."""
        self._refusals += 1
        if self._refusals > PUBLISH_RETRIES:
            raise refusal
        await self._go_back()
        self._window = max(self._window // 4, len(self._waiting[0]))
        await trio.sleep(PUBLISH_RETRY_WAIT)

    async def _go_back(self) -> None:
        """Let the oldest chunk, which was refused, wait to be sent again, with all that followed it."""
        for flying in list(self._flying)[1:]:
            await self._unstore(flying)
        self._waiting.extendleft(flying.data for flying in reversed(self._flying))
        self._flying.clear()
        self._flying_bytes = 0

    def _cut_again(self, size: int) -> None:
        if not self.count:
            self.chunk_size = size
        self._waiting = deque(self._cutter.again(self._waiting, size))

    async def _unstore(self, flying: _Flying) -> None:
        try:
            ack = self._transfer.ack(await self._transfer.wait_reply(flying.reply))
        except (errors.NoRespondersError, errors.APIError, errors.MaxPayloadError):
            return
        there, stream = written_at(self._api, self._stream)
        await there.request(f"STREAM.MSG.DELETE.{stream}", {"seq": ack.seq, "no_erase": True})


class ChunkReader:
    """Reads the chunks of one object, in order.

    Args:
        jetstream: Where the bucket is.
        stream: The bucket's stream.
        subject: The object's own chunk subject.
        promise: How many chunks there should be, and how large.
        doing: The transfer, for the text of exceptions.
        block: How many bytes are waited for, unless no more are to come: each look at them costs as much as a chunk.
    """

    def __init__(
        self,
        jetstream: Api[Messaging],
        stream: str,
        subject: str,
        promise: Promise,
        doing: str,
        block: int = BLOCK_SIZE,
    ) -> None:
        # No more than the bytes are enough for: what is asked for and will not come would keep the next request waiting.
        credit = min(promise.chunks_in(READ_BYTES), READ_CHUNKS)
        ordered = Ordered(
            stream,
            jetstream.connection.new_token(),
            JITTER,
            filter_subjects=[subject],
            snapshot=True,
            max_messages=credit,
            max_bytes=READ_BYTES,
            inactive_threshold=CONSUMER_IDLE,
            # Whether all that there should be has come is known without the leader.
            lazy=True,
        )
        self._source = OrderedSource(jetstream, ordered, Sink(self._take, self._stored_read))
        self._doing = doing
        self._missing = promise.chunks
        # A quarter of the credit: a half has to be free before more is asked for.
        self._block, self._quarter = block, max(credit // 4, 1)
        # With the sizes that the credit is counted in.
        self._chunks: deque[tuple[bytes, int]] = deque()
        self._bytes = 0
        self._at_end = False
        self._patience = trio.CancelScope()

    async def open(self) -> None:
        """Begin to read.

        Raises:
            nats.errors.Error: As for any question to the JetStream API.
        """
        await self._source.open()

    async def receive(self, most: float = inf) -> list[bytes]:
        """Wait for more chunks.

        Cancelled, it has taken none.

        Args:
            most: No more of them are taken when they have so many bytes; the rest keeps its part of the credit.

        Returns:
            The next chunks; none when there are no more.

        Raises:
            trionats.errors.TimeoutError: None came for `IDLE_LIMIT` seconds.
            nats.errors.Error: The stream or the connection is gone for good.
        """
        await trio.lowlevel.checkpoint()
        # Who reads slowly finds them here; that nothing came meanwhile is no standstill of the server.
        with trio.CancelScope(deadline=trio.current_time() + IDLE_LIMIT) as self._patience:
            while not self._ready:
                await self._source.step()
        if not self._ready:
            raise idle_error(self._doing, self._source.refusal)
        taken: list[bytes] = []
        size = 0
        while self._chunks and size < most:
            chunk, credit = self._chunks.popleft()
            taken.append(chunk)
            size += len(chunk)
            self._source.taken(credit)
        self._bytes -= size
        return taken

    def close(self) -> None:
        """End it. Synchronous, idempotent."""
        self._source.close()

    @property
    def _ready(self) -> bool:
        much = self._bytes >= self._block or len(self._chunks) >= self._quarter
        return much or self._at_end or self._missing <= 0

    # What the source calls.

    def _take(self, msg: Msg, ack: AckSubject, size: int) -> Handed:
        self._chunks.append((msg.data, size))
        self._bytes += len(msg.data)
        self._missing -= 1
        self._patience.deadline = trio.current_time() + IDLE_LIMIT
        if self._ready:
            self._source.wake()
        return Handed.KEPT

    def _stored_read(self) -> None:
        self._at_end = True
        self._source.wake()
