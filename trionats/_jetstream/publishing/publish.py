"""Publishing into a stream, until it is known what became of the message."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import TYPE_CHECKING

import trio
from multidict import MultiDict

from trionats import api, errors
from trionats._core.deadlines import unexpected
from trionats._jetstream.api import decode, unreadable
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.publishing.destination import chosen_destination
from trionats._protocol.jetstream.publishing.publish import (
    CONFLICTS,
    MSG_ID,
    UNDER_WAY,
    Attempts,
    PublishOptions,
    own_place,
    publish_headers,
)
from trionats._protocol.replies import no_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats._core.messaging import Publishing
    from trionats._core.requests import PendingReply
    from trionats._jetstream.api import Api
    from trionats._jetstream.publishing.destination import Destination


def publish_ack(doing: str, data: bytes) -> api.PubAck:
    """Read the acknowledgement of a publish.

    Args:
        doing: What the message was published for, for the text of an exception.
        data: The reply's payload.

    Returns:
        Which stream stored the message, and as what.

    Raises:
        trionats.errors.APIError: The stream refused the message, or what replied is no stream.
    """
    get = decode(doing, data).get
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
        raise unreadable(doing, f"it is no acknowledgement of a stream: {data[:80]!r}")
    return api.PubAck(stream, seq, domain, duplicate, batch, count, val)


_OPTIONS = PublishOptions.__optional_keys__
#: Other names of the arguments: those of older versions of ours, and of other clients.
_ELSEWHERE = {
    "expected_last_sequence": "expected_last_seq",
    "expected_last_subject_sequence": "expected_last_subject_seq",
    "expected_last_subject_sequence_subject": "expected_last_subject_seq_subject",
    "expected_stream": "stream",
    "ttl": "msg_ttl",
    "id": "msg_id",
}


def unexpected_publish(arguments: Mapping[str, object], of: str = "js") -> TypeError:
    """Make the error for arguments that a publish does not have, with what may be meant.

    Args:
        arguments: What it was given too much.
        of: What it is called on, as programs usually name it.
    """
    name = next(iter(arguments))
    if (meant := _ELSEWHERE.get(name)) is None:
        return unexpected("publish", arguments, of)
    return TypeError(f"publish() got an unexpected keyword argument {name!r}: it is called {meant!r} here")


def asked_for(doing: str, options: PublishOptions, of: str) -> dict[str, str]:
    """Give the headers that a publish's options stand for, or refuse those that it does not have.

    Args:
        doing: What is published for, for the text of an exception.
        options: What it was given.
        of: As for `unexpected_publish`.
    """
    if unknown := [name for name in options if name not in _OPTIONS]:
        raise unexpected_publish(dict.fromkeys(unknown), of)
    return publish_headers(doing, **options)


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


def encoded(doing: str, payload: bytes | str, called: str = "payload") -> bytes:
    """Give a payload as it is sent: text as UTF-8.

    Args:
        doing: What it is sent for, for the text of an exception.
        payload: The payload.
        called: What its argument is called.

    Raises:
        ValueError: It is text that has no form in UTF-8.
    """
    if not isinstance(payload, str):
        return payload  # what it may be besides is looked at where its frame is made
    try:
        return str.encode(payload)
    except UnicodeEncodeError as error:
        raise ValueError(f"{doing}: {called} is not valid Unicode text ({error.reason})") from None


async def publish_until_known(
    jetstream: Api[Publishing],
    doing: str,
    subject: str,
    data: bytes,
    headers: Mapping[str, str | Sequence[str]] | None,
    asked: Mapping[str, str],
    destination: Destination | None = None,
) -> api.PubAck:
    """Publish a message, and again where it is safe and may help, until it is known whether a stream has stored it.

    Args:
        jetstream: Where the streams are.
        doing: What is published for, for the text of exceptions.
        subject: Where to.
        data: The message.
        headers: Its headers, all of them: each time the same.
        asked: What stands among them that the stream was asked for. Is there an id, then what is stored under it already
            is a duplicate (design 55).
        destination: Whose acknowledgement counts; by default that of the domain that was asked for.

    Raises:
        trionats.errors.NoStreamResponseError: No stream is listening.
        trionats.errors.APIError: The stream refused.
    """
    attempts = Attempts()
    while True:
        try:
            return await _publish(jetstream, doing, subject, data, headers, destination)
        except errors.NoRespondersError:
            pause = attempts.nobody()
            if pause is None:
                raise no_stream(doing) from None
        except errors.APIError as error:
            if error.err_code == UNDER_WAY:
                pause = attempts.under_way()
            elif asked.get(MSG_ID) is not None and error.err_code in CONFLICTS:
                before = await stored_before(jetstream, error.stream, subject, asked)  # noqa: ASYNC120 - as it should
                if before is not None:
                    return before
                pause = None
            else:
                raise
            if pause is None:
                raise
        await trio.sleep(pause)


async def _publish(
    jetstream: Api[Publishing],
    doing: str,
    subject: str,
    data: bytes,
    headers: Mapping[str, str | Sequence[str]] | None,
    destination: Destination | None,
) -> api.PubAck:
    if destination is None:
        if jetstream.whereabouts.chosen is None:
            reply = await jetstream.connection.request(subject, data, headers=headers)
            return publish_ack(doing, reply.data)
        destination = chosen_destination(jetstream, subject, doing)
    with await queue_request(jetstream.connection, subject, data, headers, destination) as pending:
        try:
            reply = await pending.wait()
        except errors.NoStreamResponseError as error:
            raise no_stream(doing, str(error)) from None
    return publish_ack(destination.doing, reply.data)


async def queue_request(
    connection: Publishing,
    subject: str,
    payload: bytes,
    headers: Mapping[str, str | Sequence[str]] | None = None,
    destination: Destination | None = None,
) -> PendingReply:
    """Queue a request, when there is room for it; cancelled, nothing is sent.

    Args:
        connection: Over which.
        subject: Where to.
        payload: The request.
        headers: Names and values.
        destination: Whose reply counts; None where the first one does.
    """
    while True:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            chooser = None if destination is None else destination.chooser()
            return connection.request_nowait(subject, payload, headers, chooser=chooser)
        except trio.WouldBlock:
            await connection.wait_writable()


async def stored_before(
    jetstream: Api[Publishing], stream: str | None, subject: str, asked: Mapping[str, str]
) -> api.PubAck | None:
    """Find out whether what is in the way of a message is that very message, stored by an earlier publish (design 55, 71).

    Args:
        jetstream: Where the streams are.
        stream: The stream, as its refusal names it.
        subject: The message's subject.
        asked: What the stream was asked for, the message's id among it.

    Returns:
        What the stream would have said of the duplicate; None where it is another message, or nobody says what it is.
    """
    try:
        found = await JetStreamManager(jetstream).get_msg(stream or "", **own_place(subject, asked))
    except (errors.Error, ValueError):
        return None
    if found.seq is None or (found.headers or {}).get(MSG_ID) != asked[MSG_ID]:
        return None
    return api.PubAck(stream or "", found.seq, jetstream.whereabouts.named, duplicate=True)
