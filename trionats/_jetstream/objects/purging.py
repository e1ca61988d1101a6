"""Chunks that no object names any more are purged: asked for at once, and again for as long as something may be left (design 57).

How it goes on
    `_protocol.jetstream.objects.remnants` decides whether something may be left; a `Purge` does what follows from that, in `_go_on`, and has no
    task. Three things bring it there: the acknowledgement of a chunk that was under way (`_landed`), the response to a
    purge (`_purged`), and a time of the connection's own (`_due`). The first two are callbacks in the table of requests, the third is one of
    its timers. So it goes on when whoever began it is gone, and ends with the connection.

    Whoever waits for it (`wait`) waits until it rests, for a bounded time, shielded; it does not matter to the rest.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio

from trionats import errors, events
from trionats._jetstream.api import CLEANUP_LIMIT, decode
from trionats._jetstream.publishing.destination import written_at
from trionats._protocol.jetstream.objects.remnants import SETTLING, Remnant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._core.requests import PendingReply
    from trionats._jetstream.api import Api
    from trionats._protocol.timers import Timer

UNAVAILABLE: Final = 503


@final
class Purge:
    """The purge of one object's chunks: `begin` it, or `wait` for it.

    Args:
        jetstream: Where the bucket is.
        stream: The bucket's stream; where it is a mirror, its origin is purged, and then the mirror itself.
        subject: The object's own chunk subject.
        doing: What it belongs to, for texts.
        flying: The requests that stored chunks and were not looked at yet.
    """

    def __init__(
        self,
        jetstream: Api[Publishing],
        stream: str,
        subject: str,
        doing: str,
        flying: Iterable[PendingReply] = (),
    ) -> None:
        self._api, self._stream = written_at(jetstream, stream)
        self._connection = jetstream.connection
        # A mirror is not told of a purge of its origin.
        mirrors = jetstream.whereabouts.origin(stream) is not None
        self._mirror = f"{jetstream.prefix}.STREAM.PURGE.{stream}" if mirrors else ""
        self._request = json.dumps({"filter": subject}).encode()
        self._subject = subject
        self._doing = doing
        self._remnant = Remnant()
        self._settled = trio.Event()
        self._timer: Timer | None = None
        self._watched = False
        self._closed = False
        self.failure: Exception | None = None
        """Why the server does not do it."""
        replies = list(flying)
        for _ in replies:
            self._remnant.sent()
        for reply in replies:
            if not self._connection.leave(reply, partial(self._landed, reply)):
                self._remnant.unsent()
        if not self._connection.is_connected:
            self._remnant.hurry()

    def begin(self) -> None:
        """Ask for it. Synchronous; it goes on by itself."""
        self._go_on()

    async def wait(self) -> None:
        """Ask for it, and wait until nothing is under way: shielded, for `CLEANUP_LIMIT` at the most.

        It goes on by itself when it is not done by then. It raises nothing; `failure` says what the server said.
        """
        self._watched = True
        self._go_on()
        with trio.move_on_after(CLEANUP_LIMIT, shield=True):
            if self._connection.is_connected:
                await self._settled.wait()
        self._watched = False
        self._remnant.hurry()
        self._go_on()

    def tell(self) -> None:
        """Tell that the data stays."""
        assert self.failure is not None, "it has not failed"
        self._connection.emit(events.ChunksLeft(self._stream, self._subject, self.failure))

    # What brings it further.

    def _landed(self, reply: PendingReply, ack: Msg | Exception) -> None:
        if isinstance(ack, errors.ConnectionClosedError):
            self._close()
        elif reply.given_up or isinstance(ack, (errors.DisconnectedError, errors.TimeoutError)):
            self._remnant.missed()
        else:
            self._remnant.landed()
        self._go_on()

    def _purged(self, response: Msg | Exception) -> None:
        now = trio.current_time()
        try:
            if isinstance(response, Exception):
                raise response
            decode(self._doing, response.data)
            self._remnant.purged(now)
            if self._mirror:
                self._connection.publish_aside(self._mirror, self._request)
        except errors.ConnectionClosedError:
            self._close()
        except errors.DisconnectedError:
            self._remnant.lost()
        except errors.NotFoundError:
            self._remnant.purged(now)  # the bucket is gone, and the data with it
        except errors.NoRespondersError as error:
            self._not_ready(error, now)
        except errors.APIError as error:
            if error.code == UNAVAILABLE:
                self._not_ready(error, now)
            else:
                self._failed(error)
        except errors.Error as error:
            self._failed(error)
        self._go_on()

    def _not_ready(self, error: Exception, now: float) -> None:
        self._remnant.postponed(now)
        if self._remnant.given_up:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._remnant.refused()
        self.failure = error
        if not self._watched:
            self.tell()

    def _due(self) -> None:
        now = trio.current_time()
        if not self._connection.is_connected:
            self._timer = self._connection.call_at(now + SETTLING, self._due)
            return
        self._timer = None
        self._remnant.look(now)
        if self._remnant.given_up and self.failure is None:
            text = f"{self._doing}: the server does not answer the request to purge its data"
            self._failed(errors.explained(errors.TimeoutError, text))
        self._go_on()

    def _close(self) -> None:
        # Once the client is closed the chunks stay, as they would after a crash.
        self._closed = True

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed or self._remnant.rests:
            self._settled.set()
        if self._closed or self._remnant.done:
            return
        if self._remnant.ask(trio.current_time()):
            self._connection.request_aside(
                f"{self._api.prefix}.STREAM.PURGE.{self._stream}", self._request, self._purged
            )
        # While somebody waits, nothing is due as soon as that, and a timer costs a trip through the scheduler.
        if self._remnant.look_at is not None and not self._watched:
            self._timer = self._connection.call_at(self._remnant.look_at, self._due)
