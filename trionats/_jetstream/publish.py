"""Publishing into a stream, until it is known what became of the message."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import TYPE_CHECKING

import trio
from multidict import MultiDict

from trionats import api, errors
from trionats._jetstream.api import decode, unreadable
from trionats._jetstream.destination import Destination
from trionats._jetstream.management import JetStreamManager
from trionats._protocol.replies import no_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api

#: A stream without a leader has no subscriber for a moment: how often, and after how many seconds, to try again (ADR-22).
PUBLISH_RETRIES = 2
PUBLISH_RETRY_WAIT = 0.25
#: A message of the same id is being stored: what it becomes is known soon.
UNDER_WAY = 10158
UNDER_WAY_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
#: Something else is the last of its subject, or of the stream, than what was expected.
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
WRONG_LAST = WRONG_LAST_SEQUENCE | {10070}  # or has another id


def publish_ack(doing: str, msg: Msg) -> api.PubAck:
    """Read the acknowledgement of a publish.

    Args:
        doing: What the message was published for, for the text of an exception.
        msg: The reply.

    Returns:
        Which stream stored the message, and as what.

    Raises:
        trionats.errors.APIError: The stream refused the message, or what replied is no stream.
    """
    get = decode(doing, msg.data).get
    stream, seq, domain, duplicate = get("stream"), get("seq"), get("domain"), get("duplicate")
    batch, count, val = get("batch"), get("count"), get("val")
    # Written out, since it is done for each message: every field is what it should be, or not there.
    if not (
        isinstance(stream, str)
        and type(seq) is int
        and isinstance(domain, (str, NoneType))
        and isinstance(duplicate, (bool, NoneType))
        and isinstance(batch, (str, NoneType))
        and (count is None or type(count) is int)
        and isinstance(val, (str, NoneType))
    ):
        raise unreadable(doing, f"it is no acknowledgement of a stream: {msg.data[:80]!r}")
    return api.PubAck(stream, seq, domain, duplicate, batch, count, val)


def joined(
    doing: str, headers: Mapping[str, str | Sequence[str]] | None, asked: Mapping[str, str]
) -> Mapping[str, str | Sequence[str]] | None:
    """Put what a call's own arguments say over its headers; a name that repeats stays so.

    Args:
        doing: What is published for, for the text of an exception.
        headers: The headers.
        asked: What the arguments say.
    """
    if not headers:
        return asked or None
    if not isinstance(headers, Mapping):
        raise TypeError(f"{doing}: headers must be a mapping, not {type(headers).__name__}")
    joined: MultiDict[str | Sequence[str]] = MultiDict(headers)
    joined.update(asked)
    return joined


async def publish_until_known(
    jetstream: Api[Publishing],
    doing: str,
    subject: str,
    data: bytes,
    headers: Mapping[str, str | Sequence[str]] | None,
    msg_id: str | None,
) -> api.PubAck:
    """Publish a message, and again where it is safe and may help, until it is known whether a stream has stored it.

    Args:
        jetstream: Where the streams are.
        doing: What is published for, for the text of exceptions.
        subject: Where to.
        data: The message.
        headers: Its headers.
        msg_id: The id among them, if there is one: what is stored under it already is a duplicate (design 55).

    Raises:
        trionats.errors.NoStreamResponseError: No stream is listening.
        trionats.errors.APIError: The stream refused.
    """
    tries, pauses = PUBLISH_RETRIES, iter(UNDER_WAY_PAUSES)
    while True:
        try:
            return await _publish(jetstream, doing, subject, data, headers)
        except errors.NoRespondersError:
            if not tries:
                raise no_stream(doing) from None
            tries -= 1
            pause = PUBLISH_RETRY_WAIT
        except errors.APIError as error:
            if error.err_code == UNDER_WAY:
                pause = next(pauses, 0.0)
            elif msg_id is not None and error.err_code in WRONG_LAST:
                before = await _stored_before(jetstream, error.stream or "", subject, msg_id)  # noqa: ASYNC120 - as it should
                if before is not None:
                    return before
                pause = 0.0
            else:
                raise
            if not pause:
                raise
        await trio.sleep(pause)


async def _publish(
    jetstream: Api[Publishing],
    doing: str,
    subject: str,
    data: bytes,
    headers: Mapping[str, str | Sequence[str]] | None,
) -> api.PubAck:
    if jetstream.whereabouts.chosen is None:
        return publish_ack(doing, await jetstream.connection.request(subject, data, headers=headers))
    destination = Destination(jetstream, subject, doing, jetstream.whereabouts.named or jetstream.whereabouts.chosen)
    while True:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            reply = jetstream.connection.request_nowait(subject, data, headers, chooser=destination.chooser())
        except trio.WouldBlock:
            await jetstream.connection.wait_writable()
            continue
        with reply:
            try:
                msg = await reply.wait()
            except errors.NoStreamResponseError as error:
                raise no_stream(doing, str(error)) from None
        return publish_ack(destination.doing, msg)


async def _stored_before(jetstream: Api[Publishing], stream: str, subject: str, msg_id: str) -> api.PubAck | None:
    """Find out whether what is in the way is the very message, stored by an earlier publish."""
    try:
        last = await JetStreamManager(jetstream).get_last_msg(stream, subject)
    except (errors.Error, ValueError):
        return None
    if last.seq is None or (last.headers or {}).get(api.Header.MSG_ID.value) != msg_id:
        return None
    return api.PubAck(stream, last.seq, jetstream.whereabouts.named, duplicate=True)
