"""An info that nobody waits for any more is followed until it is known what became of it, and the chunks go that nobody has then (design 40).

`_protocol.jetstream.objects.doubts` decides; an `Inquiry` does what follows from that, in `_go_on`, and has no task. Two things bring it
there, as they do a `Purge`: a response, which is a callback in the table of requests, and a timer of the connection's own. So
it goes on when whoever began it is gone, waits for the next connection where there is none, and ends with the client.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, final

import trio

from trionats import errors
from trionats._jetstream.api import NO_MESSAGE, decode
from trionats._jetstream.publishing.destination import bucket_destination, written_at
from trionats._jetstream.publishing.publish import publish_ack
from trionats._protocol.jetstream.objects.doubts import PAUSE, Doubt
from trionats._protocol.jetstream.objects.places import Place, read_place
from trionats._protocol.jetstream.objects.writing import expecting, info_bytes
from trionats._protocol.jetstream.publishing.publish import is_conflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats import api
    from trionats._core.message import Msg
    from trionats._core.requests import PendingReply
    from trionats._jetstream.objects.access import Access
    from trionats._jetstream.objects.infos import InfoWrite
    from trionats._protocol.timers import Timer

__all__ = ["leave_in_doubt"]


def leave_in_doubt(write: InfoWrite) -> None:
    """Leave an info of which it is not known whether it is stored; the chunks that are nobody's then go when it is. Synchronous."""
    info, access, place, doing = write.info, write.access, write.place, write.doing
    assert info is not None, "in doubt only when it was sent"

    def not_stored() -> None:
        if info.nuid != place.nuid:
            access.begin_purge(info.nuid, doing)

    inquiry = Inquiry(access, info, place, doing)
    write.leave(inquiry.stored, not_stored, inquiry.begin)


@final
class Inquiry:
    """What becomes of one info: `begin` it, or begin with it `stored`.

    Args:
        access: The bucket.
        info: The info.
        place: What it is to take the place of.
        doing: What it was written for, for texts.
    """

    def __init__(self, access: Access, info: api.ObjectInfo, place: Place, doing: str) -> None:
        self._access, self._info, self._place, self._doing = access, info, place, doing
        self._connection = access.api.connection
        self._there, self._stream = written_at(access.api, access.stream)
        self._destination = bucket_destination(access.api, access.stream, place.subject, doing)
        self._doubt = Doubt(info, place)
        self._asked: PendingReply | None = None
        self._number = 0
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Find out. Synchronous; it goes on by itself."""
        self._go_on()

    def stored(self) -> None:
        """Begin where it is known that it is stored; what was there before may have another place. Synchronous."""
        self._doubt.acknowledged()
        self._go_on()

    # What brings it further.

    def _sent(self, reply: Msg) -> None:
        try:
            publish_ack(self._doing, reply.data)
        except errors.APIError as error:
            # What another domain says is true of another stream.
            self._doubt.refused(overtaken=is_conflict(error) and not self._given_up)
        else:
            self._doubt.acknowledged()

    def _read(self, subject: str, reply: Msg) -> None:
        try:
            message = decode(self._doing, reply.data).get("message")
        except errors.NotFoundError as error:
            if error.err_code != NO_MESSAGE:
                raise
            found = Place(subject)
        else:
            found = read_place(self._access.bucket, self._info.name, subject, message)
        self._doubt.found(found, trio.current_time())

    def _answered(self, number: int, take: Callable[[Msg], None], outcome: Msg | Exception) -> None:
        # What was not waited for any longer has been asked again.
        if number != self._number:
            return
        try:
            if isinstance(outcome, Exception):
                raise outcome
            take(outcome)
        except errors.ConnectionClosedError:
            return  # nobody will ever know
        except errors.DisconnectedError:
            self._doubt.lost()
        except errors.Error:
            self._doubt.postponed(trio.current_time())
        self._go_on()

    def _due(self) -> None:
        self._timer = None
        # Where there is no connection, nothing is late.
        if self._connection.is_connected:
            self._doubt.look(trio.current_time())
            self._go_on()
        else:
            self._timer = self._connection.call_at(trio.current_time() + PAUSE, self._due)

    @property
    def _given_up(self) -> bool:
        return self._asked is not None and self._asked.given_up

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._doubt.over:
            self._forget()
            self._finish()
            return
        if self._doubt.ask(trio.current_time()):
            self._forget()
            self._ask()
        self._timer = self._connection.call_at(self._doubt.look_at, self._due)

    def _forget(self) -> None:
        """Wait for nothing that was asked before."""
        self._number += 1
        if self._asked is not None:
            self._asked.close()
            self._asked = None

    def _ask(self) -> None:
        subject = self._doubt.reading
        if subject:
            request = json.dumps({"last_by_subj": subject}).encode()
            where = f"{self._there.prefix}.STREAM.MSG.GET.{self._stream}"
            then = partial(self._answered, self._number, partial(self._read, subject))
            self._asked = self._connection.request_aside(where, request, then)
        else:
            then = partial(self._answered, self._number, self._sent)
            self._asked = self._connection.request_aside(
                self._place.subject,
                info_bytes(self._info),
                then,
                expecting(self._place.revision),
                chooser=self._destination.chooser(),
            )

    def _finish(self) -> None:
        if self._doubt.given_up:
            text = f"{self._doing}: the server does not say what became of it, and so whose data is to go"
            why = errors.explained(errors.TimeoutError, text)
            self._access.tell_left(self._info.nuid or self._place.nuid, why)
        if self._doubt.old_goes:
            self._access.begin_purge(self._place.nuid, self._doing)
        if self._doubt.new_goes:
            self._access.begin_purge(self._info.nuid, self._doing)
