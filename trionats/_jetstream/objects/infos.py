"""What an object store knows of an object: its info, read from and written as a meta message."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

import trio

from trionats import errors
from trionats._jetstream.api import CLEANUP_LIMIT
from trionats._jetstream.objects.transfer import Transfer
from trionats._jetstream.ordered.entries import Entries
from trionats._protocol.jetstream.objects.infos import read_info
from trionats._protocol.jetstream.objects.writing import expecting, info_bytes
from trionats._protocol.jetstream.publishing.publish import PUBLISH_RETRIES, PUBLISH_RETRY_WAIT, is_conflict
from trionats._protocol.replies import no_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trionats import api
    from trionats._core.foreign import Foreign
    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging
    from trionats._core.requests import PendingReply
    from trionats._jetstream.api import Api
    from trionats._jetstream.objects.access import Access
    from trionats._jetstream.objects.buckets import Bucket
    from trionats._protocol.jetstream.acks import AckSubject
    from trionats._protocol.jetstream.objects.places import Place


class InfoWrite:
    """One replacement of an object's info, sent once or more often, and what is known of its outcome.

    Args:
        access: The bucket.
        place: What it is to take the place of.
        doing: What it is written for, for texts.
    """

    def __init__(self, access: Access, place: Place, doing: str) -> None:
        self.access, self.place, self.doing = access, place, doing
        self._transfer = Transfer(access.api, access.stream, place.subject, doing)
        self.revision: int | None = None
        """The sequence under which it was stored; None unless that is known."""
        self.info: api.ObjectInfo | None = None
        """What was sent last; None where nothing was."""
        self._under_way = False
        self._lost = False
        # Another domain may have refused it, and the one that was meant have stored it, or do so when it is awake again.
        self._disputed = False
        self._looks = 0
        self._reply: PendingReply | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether it may have been stored without our knowing: a refusal says nothing of what was sent and lost before."""
        return self.revision is None and (self._under_way or self._lost or self._disputed)

    def is_not_stored(self) -> None:
        """Take note that it is not stored, and will not be: somebody else's stands in its place."""
        self._under_way = self._lost = self._disputed = False

    def is_unchanged(self) -> None:
        """Take note that the stream itself says that nothing has changed, some time after it was refused."""
        self._looks += 1
        if self._looks > 1:
            self._disputed = False

    async def send(self, info: api.ObjectInfo) -> int:
        """Store `info` if nothing has changed in its place.

        Returns:
            The new sequence.
        """
        headers = expecting(self.place.revision)
        data = info_bytes(info)
        self.info = info
        for attempt in range(PUBLISH_RETRIES + 1):
            if attempt:
                await trio.sleep(PUBLISH_RETRY_WAIT)
            self.close()
            self._reply = await self._queue(data, headers)
            try:
                return self._stored(await self._wait(self._reply))
            except errors.NoRespondersError:
                self._under_way = False
        raise no_stream(self.doing)

    def close(self) -> None:
        """Forget what was sent. Synchronous, idempotent."""
        if self._reply is not None:
            self._reply.close()
            self._reply = None

    def leave(self, stored: Callable[[], object], refused: Callable[[], object], unknown: Callable[[], object]) -> None:
        """Wait no longer, and call one of three callbacks, unless the client is closed first. Synchronous.

        Args:
            stored: Called when it was stored.
            refused: Called when it was not, and will not be.
            unknown: Called when nothing more will be said of what was sent.
        """

        def told(outcome: Msg | Exception) -> None:
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                self._transfer.ack(outcome)
            except errors.ConnectionClosedError:
                pass  # nobody will ever know
            except (errors.NoRespondersError, errors.APIError):
                not_stored()
            except errors.Error:
                unknown()
            else:
                stored()

        def not_stored() -> None:
            # What was sent and lost before may have been stored all the same.
            if self._lost or self._disputed:
                unknown()
            else:
                refused()

        reply, self._reply = self._reply, None
        if reply is None:
            unknown()
        elif not self._transfer.leave(reply, told):
            not_stored()

    async def _queue(self, data: bytes, headers: Mapping[str, str]) -> PendingReply:
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                reply = self._transfer.send_nowait(data, headers)
            except trio.WouldBlock:
                await self._transfer.wait_writable()
                continue
            self._lost = self._lost or self._under_way
            self._under_way = True
            return reply

    async def _wait(self, reply: PendingReply) -> Msg:
        try:
            return await self._transfer.wait_reply(reply)
        except trio.Cancelled:
            # It is under way: whether the chunks are to stay depends on what becomes of it.
            with trio.move_on_after(CLEANUP_LIMIT, shield=True):
                try:
                    self._stored(await reply.wait())
                except errors.NoRespondersError:
                    self._under_way = False
                except errors.Error:
                    pass
            raise

    def _stored(self, msg: Msg) -> int:
        self._under_way = False
        self._disputed = self._disputed or (self._reply is not None and self._reply.given_up)
        try:
            self.revision = self._transfer.ack(msg).seq
        except errors.APIError as error:
            if not is_conflict(error):
                raise
            text = f"{self.doing}: somebody else changed it at the same time ({error.description})"
            raise errors.explained(type(error), text, **vars(error)) from None
        return self.revision


def infos_in(jetstream: Api[Messaging], bucket: Bucket, *, ignore_deletes: bool) -> Entries[api.ObjectInfo]:
    """Say where the infos of a bucket are and how each is read, as lists and watchers want to know.

    Args:
        jetstream: Where the bucket is.
        bucket: The bucket.
        ignore_deletes: Whether to leave out the markers of deleted objects.
    """
    return Entries(
        str(bucket),
        jetstream,
        bucket.stream,
        (bucket.infos,),
        read=partial(_read_one, jetstream.connection.foreign, bucket.name, ignore_deletes),
        # Two objects may have one name, in two places.
        key=attrgetter("subject"),
        # An info replaces the one before (`Nats-Rollup`).
        one_per_subject=True,
    )


def _read_one(foreign: Foreign, bucket: str, ignore_deletes: bool, msg: Msg, ack: AckSubject) -> api.ObjectInfo | None:
    # Anybody may write into the bucket's subjects (design 56).
    info = foreign.read(
        f"infos of bucket {bucket!r}",
        read_info,
        bucket,
        msg.data,
        revision=ack.sequence,
        stored_at=ack.timestamp,
        subject=msg.subject,
    )
    return None if info is None or (ignore_deletes and info.deleted) else info
