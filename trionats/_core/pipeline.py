"""Many publishes in flight that each get a reply, over one inbox of their own.

What a `PendingReply` costs each is saved: there is one subscription, tokens are numbers, and one receiver takes all replies. Whose
pipeline it is keeps the books. Here is what that has to do with the client: frames, the scheduler, the outbox, a drain, and
what the server refuses without a reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

from trio.lowlevel import checkpoint_if_cancelled

from trionats import errors
from trionats._core.deadlines import REQUEST_TIMEOUT, seconds_to_wait
from trionats._core.message import Msg
from trionats._protocol.commands import CRLF, LENGTHS, with_reply
from trionats._protocol.receivers import Receiver

if TYPE_CHECKING:
    from trionats._connection.supervisor import Supervisor
    from trionats._core.frames import Frames, Headers
    from trionats._core.requests import Requests
    from trionats._feeds.pace import Pace
    from trionats._protocol.commands import Frame, Payload
    from trionats._protocol.engine import Engine
    from trionats._protocol.outbox import Queued
    from trionats._protocol.registrations import Registration

__all__ = ["Pipeline", "PipelineOwner"]


class PipelineOwner(Receiver[Msg], Protocol):
    """Whose publishes go through a pipeline, and who takes the replies; all of it is called synchronously, and must not raise."""

    ignores_repeats: bool
    """True: a reply is taken once, however often it comes."""

    def waiting(self) -> frozenset[str]:
        """Name the replies that are waited for, by their subjects."""

    def __len__(self) -> int:
        """How many replies are still to come: a drain waits for them."""

    def refused(self, subject: str, token: str, error: errors.PermissionsViolationError) -> None:
        """Take note that the server has refused a publish, or the reply to it.

        Args:
            subject: The subject that was refused, or an empty string.
            token: The token of the reply that was refused, or an empty string.
            error: What the server said.
        """


@final
class Pipeline:
    """The publishes of one owner: what `Connection.open_pipeline` gives.

    Args:
        owner: Whose they are.
        inbox: A subject that nobody else has; replies come one token below it.
        deep: They come any number of tokens below it.
        request_timeout: What somebody chose.
    """

    def __init__(
        self,
        owner: PipelineOwner,
        inbox: str,
        requests: Requests,
        engine: Engine,
        supervisor: Supervisor,
        frames: Frames,
        pace: Pace,
        request_timeout: float | None,
        *,
        deep: bool = False,
    ) -> None:
        self._owner = owner
        self._requests = requests
        self._engine = engine
        self._outbox = engine.outbox
        self._supervisor = supervisor
        self._frames = frames
        self._heads = frames.heads
        self._pace = pace
        self._prefix = f"{inbox}."
        self._prefix_bytes = self._prefix.encode()
        self._pattern = self._prefix_bytes + (b">" if deep else b"*")
        self._number = 0
        self._registration: Registration | None = None
        self._request_timeout = request_timeout
        self.patience = REQUEST_TIMEOUT if request_timeout is None else request_timeout
        """For how many seconds a reply is waited for."""
        self.now = pace.now
        """The clock by which it is done: any that runs steadily."""
        self.token_at = len(self._prefix)
        """Where the token begins in the subject of a reply."""
        requests.enter(self)

    def __len__(self) -> int:
        return len(self._owner)

    # What its owner does for each publish, in this order.

    def check_run(self) -> None:
        """Refuse a call from outside of the client's Trio run."""
        self._pace.run.check()

    def seconds_to_wait(self) -> float:
        """Say for how long whoever waits here does so for a reply, beside the deadline in force."""
        return seconds_to_wait(self._request_timeout)

    def next_token(self) -> str:
        """Make a token that no reply was expected under."""
        self._number += 1
        return str(self._number)

    def reply(self, token: str) -> str:
        """Give the subject that a reply comes to."""
        return self._prefix + token

    def frame(self, subject: str, payload: Payload, fields: Headers | None, token: str) -> tuple[Frame, int]:
        """Check a message and make its frame, as `Frames.make` does.

        Args:
            subject: Where to.
            payload: The message.
            fields: The headers, or nothing.
            token: What its reply is expected under.

        Returns:
            The frame, and how many bytes headers and payload have.
        """
        if not fields and payload.__class__ is bytes and (size := len(payload)) <= self._supervisor.small:
            try:
                head = self._heads.get(subject)
            except TypeError:
                head = None
            if head:
                reply = self._prefix_bytes + token.encode()
                return b"".join((head, reply, b" ", LENGTHS[size], payload, CRLF)), size
        return self._frames.make(subject, payload, self.reply(token), fields)

    async def turn(self) -> None:
        """Wait until the outbox has room, and give others their turn, as `Client.publish` does.

        Raises:
            nats.errors.OutboundBufferLimitError: There is no connection, and `pending_size` bytes wait for one.
            nats.errors.ConnectionClosedError: The client is closed.
        """
        pace = self._pace
        pace.left -= 1
        if pace.left < 0 or pace.now() >= pace.due:
            await pace.trip()
        else:
            await checkpoint_if_cancelled()
        supervisor = self._supervisor
        if self._outbox.bytes >= supervisor.high_water:
            supervisor.check_open()
            await supervisor.wait_room()

    def check(self) -> None:
        """Refuse what `turn` would wait for.

        Raises:
            trio.WouldBlock: `pending_size` bytes are queued.
            nats.errors.Error: As for `turn`.
        """
        self._supervisor.check_open()
        self._supervisor.check_room()

    def queue(self, frame: Frame, size: int) -> Queued:
        """Queue a frame; its reply is expected from now on."""
        if self._registration is None:
            self.listen()
        queued = self._outbox.publish_tracked(frame, size)
        if self._supervisor.idle is not None:
            self._supervisor.wake()
        return queued

    # What it does now and then.

    def listen(self) -> bool:
        """Expect replies already, and be told what happens to the connection, as from the first frame on.

        Returns:
            Whether that is new.
        """
        if self._registration is not None:
            return False
        self._registration = self._engine.subscribe(self._pattern, b"", 0, self._owner)
        self._registration.for_replies = True
        return True

    def queue_again(self, queued: Queued, token: str) -> Queued:
        """Queue the same bytes again, whether there is room or not, for another reply.

        Args:
            queued: What was queued before.
            token: What the reply is expected under.

        Raises:
            nats.errors.MaxPayloadError: It is more than the server takes by now.
        """
        # The supervisor learns what a new server takes behind those whom it concerns that there is one.
        limit = self._engine.info.get("max_payload")
        most = limit if isinstance(limit, int) and limit > 0 else self._supervisor.max_payload
        if queued.size > most:
            text = f"{queued.size} bytes of headers and payload, the server takes {most}"
            raise errors.explained(errors.MaxPayloadError, text)
        return self.queue(with_reply(queued.frame, self._prefix_bytes + token.encode()), queued.size)

    def waits(self, queued: Queued) -> bool:
        """Say whether a frame still waits, so that no server can have seen it."""
        return self._outbox.waits(queued)

    def withdraw(self, queued: Queued) -> None:
        """Take a frame back if it still waits."""
        self._outbox.withdraw(queued)

    def changed(self) -> None:
        """Tell a drain that fewer replies are to come."""
        if self._requests.settled is not None:
            self._requests.settled()

    def ended(self) -> None:
        """Take note that the subscription has ended; the next frame makes another one."""
        self._registration = None

    def refused(self, error: errors.PermissionsViolationError) -> None:
        """Tell the owner if it is its business what the server has refused."""
        if error.operation == "publish":
            self._owner.refused(error.subject, "", error)
        elif error.subject.startswith(self._prefix):
            self._owner.refused("", error.subject[len(self._prefix) :], error)

    def close(self) -> None:
        """Expect no more replies. What was queued is still sent. Synchronous, idempotent, also after the client."""
        self._requests.leave_out(self)
        registration, self._registration = self._registration, None
        if registration is not None:
            self._engine.unsubscribe(registration)
            self._supervisor.wake()
