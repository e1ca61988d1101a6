"""A stream that is restored: its archive sent to the server, piece by piece, each of them a request.

The server takes the pieces in their order and answers each, and the last request is empty: its response is the stream. The server gives
up by itself when nothing comes for 5 s. To call it off, a piece without a reply subject ends it at once. But there is no answer then, and
a server of 2.15 has something that must be deleted when it has ended. It knows a new archive that is not whole by its missing mark, so
there an end before the end does the same, and has a response. Old archives have no such mark for an old server: it would restore what it
has. After the last request has left us nothing can be called off any more: the stream is there whole, or not at all.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, final

import trio

from trionats import api, errors
from trionats._jetstream.api import CLEANUP_LIMIT, about, decode, encoded, log, sound, told, unreadable
from trionats._jetstream.backups.directories import StoredBackup
from trionats._jetstream.idle import IDLE_LIMIT, idle_error
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.progress import ProgressTeller
from trionats._protocol import fields, subjects
from trionats._protocol.jetstream import levels
from trionats._protocol.jetstream.backups import manifest
from trionats._protocol.jetstream.backups.archive import NEW
from trionats._protocol.jetstream.backups.remains import is_left, leaves_nothing
from trionats._protocol.replies import no_jetstream

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from nats.js import api as nats_api

    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._core.requests import PendingReply
    from trionats._jetstream.api import Api
    from trionats._jetstream.progress import Progress
    from trionats._protocol.jetstream.backups.archive import Form
    from trionats._protocol.jetstream.backups.manifest import Manifest

__all__ = ["restore"]

#: How large a piece is, where a message may be so large, and how many are under way.
PIECE: Final = 128 * 1024
WINDOW: Final = 16
#: How long the server may take to make the stream of what it was sent, of which it gives no sign: as long as the `nats` tool waits.
LAST_LIMIT: Final = 3600.0


async def restore(
    jetstream: Api[Publishing],
    path: str | os.PathLike[str],
    config: nats_api.StreamConfig | None,
    params: Mapping[str, object],
    progress: Progress | None,
) -> api.StreamInfo:
    """Restore a stream, as `JetStream.restore_stream` says."""
    jetstream.connection.pace.run.check()
    tell = ProgressTeller(progress, "restore_stream")
    backup = StoredBackup("restore_stream", path)
    try:
        said = await backup.open()
        doing = f"restore of stream {said.stream!r}"
        wanted = _wanted(said, config, params)
        needs = [*levels.of_stream(wanted), levels.Need("the form of this backup", backup.archive.form.level)]
        need = levels.greatest(needs)
        headers = None
        if need is not None and need.level:
            await jetstream.require(doing, need)
            headers = {levels.HEADER: str(need.level)}
        restoring = _Restoring(jetstream, said, backup.archive.form, doing)
        try:
            await restoring.begin({"config": wanted, "state": said.state}, headers)
            await restoring.send(backup, tell)
            return await restoring.finish()
        except BaseException as reason:
            if not leaves_nothing(reason):
                await restoring.call_off()  # noqa: ASYNC102 - shielded and bounded in there
            raise
    finally:
        await backup.close()  # noqa: ASYNC102 - shielded and bounded in there


def _wanted(said: Manifest, config: nats_api.StreamConfig | None, params: Mapping[str, object]) -> Mapping[str, object]:
    """Say with which configuration the stream is to come back."""
    if config is None and not params:
        return said.config
    base = manifest.configuration("restore_stream", said) if config is None else config
    wanted = fields.merged("restore_stream", api.StreamConfig, base, params)
    if wanted.name not in (None, said.stream):
        text = f"restore_stream: name is {wanted.name!r}: the backup is one of stream {said.stream!r}, and a stream comes back under its own name"
        raise ValueError(text)
    return {**wanted.as_dict(), "name": said.stream}


class _Piece(NamedTuple):
    size: int
    reply: PendingReply


@final
class _Restoring:
    """One stream on its way to the server."""

    def __init__(self, jetstream: Api[Publishing], said: Manifest, form: Form, doing: str) -> None:
        # A transfer has a limit for standing still, and none for a reply.
        self._connection = jetstream.connection.with_request_timeout(None)
        self._api, self._said, self._form, self._doing = jetstream, said, form, doing
        self._subject = f"{jetstream.prefix}.STREAM.RESTORE.{said.stream}"
        self._begun: PendingReply | None = None
        self._ended: PendingReply | None = None
        #: Where the server takes the pieces; empty while that is not known.
        self._where = ""
        self._refused = False
        self._flying: deque[_Piece] = deque()

    async def begin(self, request: Mapping[str, object], headers: Mapping[str, str] | None) -> None:
        """Ask the server to take it."""
        payload = encoded(self._doing, request)
        asked = trio.current_time()
        told("request to %s: %d bytes", self._subject, payload, headers)
        self._begun = await self._queue(self._subject, payload, headers)
        try:
            msg = await self._wait(self._begun, IDLE_LIMIT)
        except errors.NoRespondersError:
            raise no_jetstream(self._subject, self._api.prefix) from None
        told("response from %s: %d bytes in %.6f s", self._subject, msg.data, msg.headers, trio.current_time() - asked)
        self._where = self._read_where(msg)

    async def send(self, backup: StoredBackup, tell: ProgressTeller) -> None:
        """Send the archive, and wait until the server has taken all of it."""
        done, total = 0, backup.archive.size
        size = min(PIECE, self._connection.max_payload)
        while piece := await backup.read(size):
            while len(self._flying) >= WINDOW or (self._flying and self._flying[0].reply.done):
                done += await self._settle_oldest()
                tell(done, total)
            self._flying.append(_Piece(len(piece), await self._queue(self._where, piece)))
        while self._flying:
            done += await self._settle_oldest()
            tell(done, total)

    async def finish(self) -> api.StreamInfo:
        """Say that this was all, and wait for the stream."""
        # What was cancelled meanwhile is to go no further: behind this there is no way back.
        await trio.lowlevel.checkpoint()
        self._ended = await self._queue(self._where, b"")
        msg = await self._wait(self._ended, LAST_LIMIT)
        try:
            response = decode(self._doing, msg.data)
        except errors.APIError:
            self._refused = True
            raise
        with about(self._doing):
            return sound(self._doing, api.StreamInfo.from_response(response))

    async def call_off(self) -> None:
        """Have the server drop what it has, unless it has all of it. Shielded, bounded, and raises nothing."""
        for piece in self._flying:
            piece.reply.close()
        with trio.move_on_after(CLEANUP_LIMIT, shield=True), suppress(errors.Error):
            if self._refused:
                await self._clear()
            elif self._ended is not None and self._connection.leave(self._ended, _ignore):
                pass
            elif self._where or await self._begins_late():
                await self._end_early()
                await self._clear()

    async def _begins_late(self) -> bool:
        """Wait for where the server takes the pieces, if it was asked at all."""
        outcomes: list[Msg | Exception] = []
        came = trio.Event()

        def take(outcome: Msg | Exception) -> None:
            outcomes.append(outcome)
            came.set()

        if self._begun is None or not self._connection.leave(self._begun, take):
            return False
        await came.wait()
        [outcome] = outcomes
        if isinstance(outcome, Exception):
            return False
        self._where = self._read_where(outcome)
        return True

    async def _end_early(self) -> None:
        if self._form is NEW:
            with suppress(errors.Error):
                await self._connection.request(self._where)
        else:
            self._connection.publish_aside(self._where)

    async def _clear(self) -> None:
        stream = self._said.stream
        if stream not in await JetStreamManager(self._api).stream_names():
            return
        said: Mapping[str, object] | errors.APIError
        try:
            said = await self._api.request(f"STREAM.INFO.{stream}")
        except errors.APIError as error:
            said = error
        if is_left(said, self._said.state):
            await self._api.request(f"STREAM.DELETE.{stream}")
        else:
            log.warning("%s: it failed, and what has its name now is not what it left", self._doing)

    def _read_where(self, msg: Msg) -> str:
        where = decode(self._doing, msg.data).get("deliver_subject")
        if not isinstance(where, str):
            raise unreadable(self._doing, "it has no deliver_subject")
        try:
            subjects.publish_subject(where)
        except errors.BadSubjectError as error:
            raise unreadable(self._doing, f"its deliver_subject: {error}") from None
        return where

    async def _settle_oldest(self) -> int:
        """Wait until the oldest piece is taken; gives its size."""
        size, reply = self._flying[0]
        try:
            msg = await self._wait(reply, IDLE_LIMIT)
        except errors.NoRespondersError as error:
            text = f"{self._doing}: the server takes no more of it; it gives up when nothing has come for 5 s"
            raise errors.explained(errors.NoRespondersError, text, **vars(error)) from None
        if msg.data:
            decode(self._doing, msg.data)
            raise unreadable(self._doing, "it says something to a piece that is no refusal")
        self._flying.popleft()
        return size

    async def _queue(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> PendingReply:
        while True:
            try:
                return self._connection.request_nowait(subject, payload, headers)
            except (trio.WouldBlock, errors.OutboundBufferLimitError):
                pass
            with trio.move_on_after(IDLE_LIMIT) as scope:
                await self._connection.wait_writable()
            if scope.cancelled_caught:
                raise idle_error(self._doing)

    async def _wait(self, reply: PendingReply, limit: float) -> Msg:
        try:
            with trio.move_on_after(limit):
                return await reply.wait()
        except errors.NoRespondersError:
            raise
        except errors.Error as error:
            raise errors.explained(type(error), f"{self._doing}: {error}", **vars(error)) from error
        raise idle_error(self._doing)


def _ignore(_: Msg | Exception) -> None:
    """Say nothing to a response that nobody waits for any more."""
