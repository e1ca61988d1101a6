"""A backup that is made: the archive is asked of the stream's leader, which sends it to an inbox of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from trionats import api, errors, events
from trionats._jetstream.api import about, refusal, sound, unreadable
from trionats._jetstream.backups.directories import NewBackup
from trionats._jetstream.idle import IDLE_LIMIT, idle_error
from trionats._jetstream.progress import ProgressTeller
from trionats._protocol.jetstream.backups import manifest
from trionats._protocol.jetstream.backups.incoming import Incoming
from trionats._protocol.server_errors import REFUSALS, refusal_of

if TYPE_CHECKING:
    import os

    from trionats._core.message import Msg
    from trionats._core.messaging import Attached, Publishing
    from trionats._jetstream.api import Api
    from trionats._jetstream.progress import Progress
    from trionats._protocol.jetstream.backups.manifest import Manifest

__all__ = ["save"]


async def save(
    jetstream: Api[Publishing], stream: str, path: str | os.PathLike[str], progress: Progress | None
) -> api.StreamState:
    """Back a stream up, as `Stream.backup` says."""
    jetstream.connection.pace.run.check()
    doing = f"backup of stream {stream!r}"
    tell = ProgressTeller(progress, doing)
    directory = NewBackup(doing, path)
    await directory.check()
    arriving = _Arriving(jetstream, stream, doing)
    try:
        said = await arriving.open()
        with about(doing):
            state = sound(doing, api.StreamState.from_response(said.state))
        await directory.begin()
        while pieces := await arriving.receive():
            await directory.write(pieces)
            arriving.written(sum(map(len, pieces)))
            tell(directory.size, None)
        await directory.finish(said)
    finally:
        arriving.close()
        await directory.discard()  # noqa: ASYNC102 - shielded and bounded in there
    tell(directory.size, directory.size)
    return state


@final
class _Arriving:
    """What comes of one request for an archive (STREAM.SNAPSHOT): the receiver of its inbox, and the listener to what the server refuses."""

    def __init__(self, jetstream: Api[Publishing], stream: str, doing: str) -> None:
        self._api, self._connection = jetstream, jetstream.connection
        self._stream, self._doing = stream, doing
        self._incoming = Incoming()
        self._failure: Exception | None = None
        self._acknowledged = False
        self._changed = trio.Event()
        self._inbox = self._connection.new_inbox()
        self._attachment: Attached | None = self._connection.attach(self._inbox, self)

    async def open(self) -> Manifest:
        """Ask for it. Pieces may come before the response does."""
        with trio.move_on_after(IDLE_LIMIT):
            with about(self._doing):
                response = await self._api.request(f"STREAM.SNAPSHOT.{self._stream}", {"deliver_subject": self._inbox})
            said = manifest.of_response(response)
            if said is None:
                raise unreadable(self._doing, "it holds no configuration and no state")
            return said
        raise idle_error(self._doing)

    async def receive(self) -> list[bytes]:
        """Wait for more of it.

        Returns:
            The next pieces; none when there are no more.
        """
        with trio.move_on_after(IDLE_LIMIT):
            while True:
                if self._failure is not None:
                    # What is kept would know the frames that it was raised through, and so itself.
                    raise errors.again(self._failure)
                if pieces := self._incoming.pieces():
                    return pieces
                if self._incoming.over:
                    self._see_why()
                    return []
                await self._changed.wait()
                self._changed = trio.Event()
        raise idle_error(self._doing)

    def written(self, size: int) -> None:
        """Take note of what was written, in bytes."""
        self._incoming.written(size)
        self._acknowledge()

    def close(self) -> None:
        """End it: the server sends no more. Synchronous, idempotent."""
        self._connection.remove_listener(self)
        if self._attachment is not None:
            self._attachment.detach()
            # Each knows the other: no circle for the garbage collector.
            self._attachment = None

    def _see_why(self) -> None:
        if self._incoming.complaint:
            raise manifest.incomplete(self._doing, self._incoming.complaint)
        if self._incoming.refusal is not None:
            code, description = self._incoming.refusal
            raise refusal(self._doing, {"code": code, "description": description}, self._stream)

    def _acknowledge(self) -> None:
        for subject in self._incoming.due():
            if not self._acknowledged:
                # Where the first one is refused, so are all: the server would give up in the end, and not say why.
                self._acknowledged = True
                self._connection.add_listener(self, refused=subject)
            self._connection.acknowledge_aside(subject, b"")

    def _fail(self, failure: Exception) -> None:
        if not self._incoming.over and self._failure is None:
            self._failure = failure
        self._changed.set()

    # What the reader calls.

    def deliver(self, message: Msg) -> None:
        """Take a piece, or the server's last word."""
        self._incoming.take(message.data, message.reply, message.status, message.description)
        self._acknowledge()
        self._changed.set()

    def connection_lost(self, reason: Exception) -> None:
        """Fail: what was on its way is lost, and the server does not send it again."""
        text = f"{self._doing}: the connection was lost: {reason}"
        self._fail(errors.explained(errors.DisconnectedError, text, sent=True))

    def connection_restored(self) -> None:
        """Nothing to do: it has failed, or did not begin."""

    def ended(self, reason: BaseException | None) -> None:
        """Fail: the client is closed, or the server refuses our inbox."""
        if isinstance(reason, REFUSALS):
            self._fail(refusal_of(self._doing, reason))
            return
        why = "the client was closed" if reason is None else str(reason)
        error = errors.explained(errors.ConnectionClosedError, f"{self._doing}: {why}")
        error.__cause__ = reason
        self._fail(error)

    def push(self, event: events.ConnectionEvent) -> None:
        """Fail: an acknowledgement of ours was refused."""
        if isinstance(event, events.PermissionViolation):
            self._fail(refusal_of(self._doing, event.error))

    def end(self, reason: BaseException | None) -> None:
        """Nothing to do: `ended` is called."""
