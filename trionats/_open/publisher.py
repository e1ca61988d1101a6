"""open_publisher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.context import JetStream, jetstream_of
from trionats._jetstream.publishing.accounting import accounting
from trionats._jetstream.publishing.flight import Flight
from trionats._jetstream.publishing.publisher import Publisher
from trionats._protocol.fields import check_argument, check_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio


@opens
async def open_publisher(
    nursery: trio.Nursery, js: JetStream, *, max_pending: int = 256, resend: bool = False
) -> AsyncIterator[Publisher]:
    """Publish into streams with many messages in flight, each of them accounted for.

    Entering sends nothing and does not wait. Leaving waits until it is known what became of each message, and raises one
    `trionats.errors.PublishError` for all that failed, except for those whose receipt has raised it already. An exception of
    the block's own comes out instead, with a note, once that is known; a leaving that is cancelled does not wait, and the
    receipts of what is still under way raise `trio.ClosedResourceError`, though it may be stored.

    An acknowledgement may take `request_timeout`, or 5 s where nobody chose one, whatever deadline is in force: messages outlive
    the calls that publish them. Where no stream listens, a message is sent twice more after 250 ms each (ADR-22).

    When the connection breaks, messages that had left us fail at once with `trionats.errors.DisconnectedError` (`sent` is
    True: they may be stored), and the others wait for the next connection, for as long as an acknowledgement may take. With
    `resend` nothing fails for that. Each message has an id, its own or a generated one, and what was not acknowledged is sent
    again under the same id once there is a connection, or when the time for its acknowledgement is over: for as long as the
    stream's `duplicate_window`, counted from its first sending (nine tenths of it are used), makes a second copy a duplicate,
    and then it fails with a `DisconnectedError`. So none is stored twice. What is sent again may land behind what was published
    later. The stream is asked for its window after each reconnect that leaves something unknown, for which the user needs to
    publish to `$JS.API.STREAM.NAMES` and `$JS.API.STREAM.INFO.<stream>`; where that is refused, or the stream has no window,
    nothing is sent again. A stream that goes without a leader is tried again for as long as an acknowledgement may take. What
    expects a certain last sequence or id is looked for before a conflict is told, as `JetStream.publish` does.

    Args:
        nursery: Where its task lives; when that is cancelled, it is closed.
        js: The context, of a client.
        max_pending: How many messages may be under way; `publish` waits for a place.
        resend: Send again what may have been lost with a connection.

    Returns:
        An async context manager that gives the `Publisher`.

    Raises:
        TypeError: `js` is no `JetStream`, or `max_pending` or `resend` is of a wrong kind.
        ValueError: `max_pending` is less than 1.
        nats.errors.ConnectionClosedError: The client is closed.
        trionats.errors.PublishError: On leaving: messages failed.
    """
    check_nursery(nursery, "open_publisher")
    jetstream = jetstream_of(js, "open_publisher")
    check_count("open_publisher", "max_pending", max_pending)
    check_argument("open_publisher", "resend", bool, resend)
    flight = Flight(jetstream, max_pending, resend=resend)
    async with accounting(nursery, "publisher", flight):
        yield Publisher(jetstream.connection.pace, flight)
