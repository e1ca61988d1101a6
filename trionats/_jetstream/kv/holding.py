"""A key as somebody sees it who wants to hold it: looked at, waited for, taken, kept and given back.

What all of that means is decided in `_protocol.jetstream.kv.lease`. Here it is asked for and waited for, each step in the caller's
own task; a watcher tells of the key while somebody else holds it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

import trio

from trionats import errors
from trionats._jetstream.api import CLEANUP_LIMIT
from trionats._jetstream.jitter import JITTER
from trionats._jetstream.ordered.entries import Entries
from trionats._jetstream.ordered.watcher import watching
from trionats._jetstream.publishing.destination import bucket_destination
from trionats._jetstream.publishing.publish import publish_ack, queue_request
from trionats._protocol.jetstream.actions import Start
from trionats._protocol.jetstream.kv.lease import SPREAD, Patience, Sighting, Tenure, release_headers, sighting
from trionats._protocol.jetstream.publishing.publish import is_conflict
from trionats._protocol.jetstream.refusals import GIVEN_UP_AFTER, backoff, passes
from trionats._protocol.replies import no_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trionats._core.message import Msg
    from trionats._core.requests import PendingReply
    from trionats._jetstream.kv.access import Access
    from trionats._jetstream.ordered.watcher import Watcher
    from trionats._protocol.jetstream.acks import AckSubject

__all__ = ["Holding"]

#: What ends by itself, or with the next connection; a refusal of the API does where `passes` says so.
_OUTAGES: Final = (
    errors.DisconnectedError,
    errors.TimeoutError,
    errors.NoRespondersError,
    errors.NoStreamResponseError,
    errors.OutboundBufferLimitError,
)


@final
class Holding:
    """One key, for one who wants to hold it.

    Args:
        access: The bucket.
        doing: What it is wanted for, for texts.
        key: The key, as it stands in the bucket.
        ttl: How many seconds the server keeps what is written.
        value: What is written, as it is to stand there.
    """

    def __init__(self, access: Access, doing: str, key: str, ttl: int, value: bytes) -> None:
        self._access, self._names, self._key, self._value = access, access.names, key, value
        self._connection = access.api.connection
        self.run = self._connection.pace.run
        """The run whose clock counts."""
        self._subject = access.names.write_prefix + key
        self.doing = doing
        self._destination = bucket_destination(access.api, access.names.stream, self._subject, doing)
        self.tenure = Tenure(self._connection.new_token(), ttl)
        self._patience = Patience(Sighting(0), trio.current_time())
        self._failures = 0

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._connection.is_connected

    # Single steps.

    async def look(self) -> Sighting:
        """Look at what stands under the key, as the stream's leader has it."""
        found = await self._access.last(self._key)
        return Sighting(0) if found is None else sighting(found.seq, found.headers)

    async def write(self, expected: int, *, settle: bool = False) -> None:
        """Write once, over what is expected to be the last.

        Args:
            expected: Its sequence.
            settle: Whether, when it is cancelled, to wait all the same for what becomes of it: shielded, and bounded.

        Raises:
            trionats.errors.APIError: The stream refused, for instance since something else is the last.
            nats.errors.Error: As for any request. It may be stored, and `tenure` knows that it is in doubt.
        """
        tenure = self.tenure
        attempt = tenure.attempt(trio.current_time(), expected)

        def settled(msg: Msg) -> None:
            tenure.stored(attempt.stamp, publish_ack(self._destination.doing, msg.data).seq)

        try:
            reply = await self._queue(attempt.headers, self._value)
        except BaseException:
            tenure.refused(attempt.stamp)  # nothing was sent
            raise
        try:
            with reply:
                await self._wait(reply, settled, settle=settle)
        except errors.NoRespondersError:
            tenure.refused(attempt.stamp)
            raise
        except errors.APIError as error:
            # What was given up on may have been another domain's refusal, and what cannot be read is nobody's.
            if error.err_code is not None and not reply.given_up:
                tenure.refused(attempt.stamp)
            raise

    async def _queue(self, headers: Mapping[str, str], value: bytes) -> PendingReply:
        return await queue_request(self._connection, self._subject, value, headers, self._destination)

    async def _wait(self, reply: PendingReply, then: Callable[[Msg], None], *, settle: bool) -> None:
        try:
            msg = await reply.wait()
        except trio.Cancelled:
            # Only with a connection there is something under way.
            if settle and self._connection.is_connected:
                with suppress(errors.Error), trio.move_on_after(CLEANUP_LIMIT, shield=True):
                    then(await reply.wait())
            raise
        then(msg)

    # Taking it.

    async def take(self, nursery: trio.Nursery) -> None:
        """Wait until nobody else holds the key, and take it; failed or cancelled, it is given back.

        Args:
            nursery: Where the watcher's task lives while somebody else holds it.
        """
        try:
            self._patience.looked(await self._look_patiently(), trio.current_time())
            if self._is_free and self._patience.seen.revision:
                # It was given back a moment ago, perhaps: who comes is not to be always ahead of those who wait.
                await trio.sleep(SPREAD * JITTER.random())
            if not await self._try():
                await self._wait_for(nursery)
        except BaseException:
            await self.give_back()  # noqa: ASYNC102 - shielded and bounded inside
            raise

    @property
    def _is_free(self) -> bool:
        seen = self._patience.seen
        return not seen.taken or self.tenure.owns(seen)

    async def _try(self) -> bool:
        """Try to take the key for as long as nobody holds it; say whether that came true."""
        while self._is_free:
            if await self._write_and_look():
                return True
        return False

    async def _write_and_look(self) -> bool:
        failed = False
        try:
            await self.write(self._patience.seen.revision, settle=True)
        except errors.Error as error:
            failed = True
            if not is_conflict(error):
                await self._bear(error)  # noqa: ASYNC120 - cancelled, it is what the caller wants
        if failed:
            self._patience.looked(await self._look_patiently(), trio.current_time())
            if not self._is_free:
                return False
        # It may have taken so long that it is over already.
        if self.tenure.deadline > trio.current_time():
            return True
        if not failed:
            self._patience.looked(await self._look_patiently(), trio.current_time())
        return False

    async def _wait_for(self, nursery: trio.Nursery) -> None:
        entries = Entries(
            str(self._names),
            self._access.api,
            self._names.stream,
            [self._names.read_prefix + self._key],
            read=_read,
            key=lambda seen: None,
            headers_only=True,
        )
        async with watching(nursery, entries, Start("new"), "restart") as rx:
            # What has changed since the last look, and before the watcher. It could be asked to begin with that; but then it
            # would stand still for half a second if that is replaced while it is made, as just now it may well be.
            self._patience.looked(await self._look_patiently(), trio.current_time())
            while True:
                if not self._is_free:
                    await self._hear(rx)
                if self._is_free:
                    await trio.sleep(SPREAD * JITTER.random())
                    self._hear_on(rx)
                    if await self._try():
                        return

    async def _hear(self, rx: Watcher[Sighting]) -> None:
        """Wait for what the watcher says next; and look where it has been silent for too long."""
        with trio.move_on_at(self._patience.look_at):
            try:
                seen = await rx.receive()
            except trio.EndOfChannel:
                raise self._ended() from None
            self._patience.told(seen, trio.current_time())
            return
        self._patience.looked(await self._look_patiently(), trio.current_time())
        self._failures = 0

    def _hear_on(self, rx: Watcher[Sighting]) -> None:
        """Take note of all that the watcher has said meanwhile."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._patience.told(rx.receive_nowait(), trio.current_time())

    def _ended(self) -> Exception:
        """Say why there is nothing to hear any more."""
        if self._connection.accepting:
            return trio.ClosedResourceError(f"{self.doing}: the nursery was cancelled while somebody else held the key")
        text = f"{self.doing}: the client was closed while somebody else held the key"
        return errors.explained(errors.ConnectionClosedError, text)

    async def _look_patiently(self) -> Sighting:
        while True:
            try:
                return await self.look()
            except errors.Error as error:
                await self._bear(error)  # noqa: ASYNC120 - cancelled, it is what the caller wants

    async def _bear(self, error: errors.Error) -> None:
        """Wait a moment after what passes by itself; raise anything else."""
        if not isinstance(error, _OUTAGES) and not (isinstance(error, errors.APIError) and passes(error)):
            raise error
        self._failures += 1
        if isinstance(error, errors.NoRespondersError) and self._failures >= GIVEN_UP_AFTER:
            raise no_stream(self.doing) from None
        await trio.sleep(backoff(self._failures, JITTER))

    # And giving it back.

    async def give_back(self) -> Sighting | None:
        """Delete what is its own: shielded and bounded, also where it is in doubt whether there is any such thing.

        Returns:
            What stands there in its place; None where nothing else does, or nobody said.
        """
        tenure = self.tenure
        if not tenure.revision and not tenure.in_doubt:
            return None
        with suppress(errors.Error), trio.move_on_after(CLEANUP_LIMIT, shield=True):
            if tenure.revision and await self._deleted():
                return None
            seen = await self.look()
            if not tenure.owns(seen):
                return seen
            await self._deleted()
        return None

    async def _deleted(self) -> bool:
        """Delete the last that is known to be its own; say whether it was the key's last."""
        headers = release_headers(self.tenure.revision, self.tenure.ttl)
        while True:
            try:
                with await self._queue(headers, b"") as reply:
                    publish_ack(self._destination.doing, (await reply.wait()).data)
                return True
            except errors.NoRespondersError:
                self._failures += 1
                await trio.sleep(backoff(self._failures, JITTER))  # noqa: ASYNC120 - as it should
            except errors.APIError as error:
                if is_conflict(error):
                    return False
                raise


def _read(msg: Msg, ack: AckSubject) -> Sighting:
    return sighting(ack.sequence, msg.headers)
