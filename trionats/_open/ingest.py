"""open_ingest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.context import JetStream, jetstream_of
from trionats._jetstream.publishing.accounting import accounting
from trionats._jetstream.publishing.ingest import Ingest
from trionats._jetstream.publishing.ingest_flight import IngestFlight
from trionats._protocol.fields import check_count
from trionats._protocol.jetstream.publishing.ingest import MOST_OUTSTANDING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio


@opens
async def open_ingest(
    nursery: trio.Nursery,
    js: JetStream,
    *,
    on_gap: Literal["fail", "continue"] = "fail",
    max_outstanding: int = 2,
) -> AsyncIterator[Ingest]:
    """Publish many messages into one stream by fast ingest (ADR-50, server 2.14): as fast as the stream takes them, each accounted for.

    The stream must allow it (`allow_batched`). Its acknowledgements come in steps whose size the server chooses, up to 500 messages, and so
    do its wishes how many may be under way: `Ingest.publish` waits for them. Nothing is atomic: what was acknowledged is stored, however
    the block ends.

    Entering sends nothing and does not wait. Leaving ends the batch, and waits until it is known what became of each message; then
    `Ingest.ack` is the stream's acknowledgement, and one `trionats.errors.PublishError` is raised for all messages that failed, except
    for those whose receipt has raised it already. An exception of the block's own comes out instead, with a note, once that is known; a
    leaving that is cancelled does not wait, and the receipts of what is still under way raise `trio.ClosedResourceError`,
    though it may be stored.

    Each message ends in one of three ways, which its receipt and the `PublishError` tell apart: it is stored; it certainly is not
    (`trionats.errors.APIError`, `IngestGapError`, `NoStreamResponseError`, `PermissionsViolationError`); or that is not known
    (`trionats.errors.DisconnectedError`, `nats.errors.TimeoutError`, and those of an ingest that was closed).

    When the connection breaks, what has not left us waits for the next one, and the stream is asked there what has arrived, if it
    comes within `request_timeout`, or 5 s where nobody chose one. Where all has, it goes on as if nothing were. What has not is a
    gap. What the server does not know of any more (it forgets a batch after 10 s) is not known.

    With `on_gap="fail"` no message is stored behind one that is not. The first that is not, or may not be, ends the ingest: what follows
    it fails, and `publish` raises the `PublishError`, whose `failures` are whole once the block is left. With `on_gap="continue"` it alone fails, and the others go on. There, a
    refusal can be lost with the connection, so what was under way when that broke is known to be missing, or is not known.

    The server forgets a batch that is idle, and one that is open slows the others of its stream down. So it is ended when nothing is
    published for 1 s, and the next message begins another one. The user needs to publish to `$JS.API.STREAM.NAMES` and
    `$JS.API.STREAM.INFO.<stream>`.

    Args:
        nursery: Where its task lives; when that is cancelled, it is closed.
        js: The context, of a client.
        on_gap: What to do when a message is not stored: "fail", or "continue" with the next.
        max_outstanding: How many steps may be under way, from 1 to 3: more of them keep a distant server busy.

    Returns:
        An async context manager that gives the `Ingest`.

    Raises:
        TypeError: `js` is no `JetStream`, or `max_outstanding` is of a wrong kind.
        ValueError: `on_gap` is neither, or `max_outstanding` is not from 1 to 3.
        nats.errors.ConnectionClosedError: The client is closed.
        trionats.errors.PublishError: On leaving: messages failed.
    """
    check_nursery(nursery, "open_ingest")
    jetstream = jetstream_of(js, "open_ingest")
    if on_gap not in ("fail", "continue"):
        raise ValueError(f"open_ingest: on_gap must be 'fail' or 'continue', not {on_gap!r}")
    check_count("open_ingest", "max_outstanding", max_outstanding, most=MOST_OUTSTANDING)
    flight = IngestFlight(jetstream, keep_on=on_gap == "continue", max_outstanding=max_outstanding)
    async with accounting(nursery, "ingest", flight):
        yield Ingest(jetstream.connection.pace, flight)
