"""Reading what a stream holds, without a consumer: single messages, and lists of them.

What is believed of whom is decided in `_protocol.jetstream.direct`; here it is asked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import checkpoint_if_cancelled

from trionats import errors
from trionats._jetstream.api import about, api_error, unreadable
from trionats._protocol.jetstream.acks import count_of
from trionats._protocol.jetstream.direct import Ask, Page, Pause, Tail, read_direct, read_leaders
from trionats._protocol.replies import no_jetstream
from trionats._told.moments import read_moment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from trionats import api
    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging, Publishing
    from trionats._jetstream.api import Api
    from trionats._protocol.jetstream.direct import Latest, Stretch

__all__ = ["ask_replica", "read_all", "read_one"]


async def read_one(
    jetstream: Api[Messaging],
    stream: str,
    asked: Mapping[str, object],
    what: str,
    *,
    direct: bool,
    chosen: bool = False,
) -> api.StoredMsg:
    """Read one stored message.

    Args:
        jetstream: Where the stream is.
        stream: The stream.
        asked: Which message, in the words of the request.
        what: Which message, for texts.
        direct: Ask any replica first, and the leader only for what that has not.
        chosen: A program has chosen that: what a mirror says in the stream's place counts, too, and that nobody answers
            direct gets is an error. Otherwise the leader is asked then.

    Raises:
        trionats.errors.NotFoundError: There is no such message, or no such stream.
        trionats.errors.APIError: The server refused.
    """
    with about(what):
        if direct:
            unavailable: errors.ServiceUnavailableError | None = None
            found = None
            try:
                found = await ask_replica(jetstream, stream, asked)
            except errors.ServiceUnavailableError as error:
                unavailable = error
            if unavailable is not None and chosen:
                raise await _why(jetstream, stream, unavailable)
            if found is not None and (chosen or found.stream == stream):
                return found
        response = await jetstream.request(f"STREAM.MSG.GET.{stream}", asked)
        message = response.get("message")
        return read_leaders(stream, message if isinstance(message, dict) else {})


async def ask_replica(jetstream: Api[Messaging], stream: str, asked: Mapping[str, object]) -> api.StoredMsg | None:
    """Read one stored message from whoever answers direct gets: a replica, or a mirror.

    Args:
        jetstream: Where the stream is.
        stream: The stream.
        asked: Which message, in the words of the request.

    Returns:
        The message, which names the stream that it comes from; None where it has none.

    Raises:
        trionats.errors.ServiceUnavailableError: Nobody answers direct gets.
        trionats.errors.APIError: The server refused.
    """
    last = asked.get("last_by_subj")
    if isinstance(last, str) and not {"*", ">"} & set(last.split(".")):
        # So that a permission can be granted for it alone.
        msg = await jetstream.ask(f"DIRECT.GET.{stream}.{last}", b"")
    else:
        msg = await jetstream.ask(f"DIRECT.GET.{stream}", json.dumps(asked).encode())
    if msg.status is None:
        return read_direct(msg.headers, msg.data)
    if msg.status == 404:
        return None
    raise _refused(msg)


def _refused(msg: Msg) -> errors.APIError:
    kind = errors.BadRequestError if msg.status in (400, 408) else errors.APIError
    return api_error(kind, msg.description, msg.description, code=msg.status)


async def _why(jetstream: Api[Messaging], stream: str, error: errors.ServiceUnavailableError) -> errors.APIError:
    """Find out which of three things it means that nobody answers a direct get, as far as asking is permitted."""
    try:
        info = await jetstream.request(f"STREAM.INFO.{stream}")
    except errors.NotFoundError as missing:
        return missing
    except errors.Error:
        return error
    config = info.get("config")
    if isinstance(config, dict) and not config.get("allow_direct"):
        text = "direct gets are not enabled: its configuration has no allow_direct"
        return api_error(errors.ServiceUnavailableError, text, text, code=error.code)
    return error


async def read_all(jetstream: Api[Publishing], stream: str, listing: Stretch | Latest) -> list[api.StoredMsg]:
    """Read a list of stored messages.

    Args:
        jetstream: Where the stream is.
        stream: The stream.
        listing: Which messages, and what is known of them; for this call alone.

    Raises:
        trionats.errors.NotFoundError: There is no such stream.
        trionats.errors.APIError: The server refused.
        nats.errors.TimeoutError: A page did not come in time, or no replica has what the leader has.
        nats.errors.Error: As for any request.
    """
    jetstream.connection.pace.run.check()
    while (step := listing.next()) is not None:
        if isinstance(step, Ask):
            await _read_page(jetstream, stream, step.request, listing)
        elif isinstance(step, Pause):
            await trio.sleep(step.seconds)
        elif isinstance(step, Tail):
            listing.leader(await _last_sequence(jetstream, stream), None)
        else:
            listing.leader(*await _find(jetstream, stream, step.request, listing.what))
    return listing.messages


async def _read_page(
    jetstream: Api[Publishing], stream: str, asked: dict[str, object], listing: Stretch | Latest
) -> None:
    page, over = Page(stream), False

    def take(msg: Msg) -> bool:
        nonlocal over
        over = page.received(msg.status, msg.description, msg.headers, msg.data)
        return over

    subject = f"{jetstream.prefix}.DIRECT.GET.{stream}"
    nobody = False
    try:
        await jetstream.connection.request_many(subject, json.dumps(asked).encode(), sentinel=take)
    except errors.NoRespondersError:
        nobody = True
    except errors.DisconnectedError:
        over = True  # what has come has come; the rest is asked for again
    if nobody:
        with about(listing.what):
            raise await _why(jetstream, stream, no_jetstream(subject, jetstream.prefix))
    # A deadline that has passed ended it in silence.
    await checkpoint_if_cancelled()
    if not over and not page.messages:
        raise errors.explained(errors.TimeoutError, f"{listing.what}: no answer in time")
    listing.page(page)


async def _find(
    jetstream: Api[Messaging], stream: str, asked: dict[str, object], what: str
) -> tuple[int, datetime | None]:
    message = await jetstream.stored(stream, asked)
    if message is None:
        return 0, None
    with about(what):
        if not message:
            raise unreadable(what, "there is no message in it")
        return count_of(message.get("seq")) or 0, read_moment(message.get("time"))


async def _last_sequence(jetstream: Api[Messaging], stream: str) -> int:
    response = await jetstream.request(f"STREAM.INFO.{stream}")
    state = response.get("state")
    last = count_of(state.get("last_seq")) if isinstance(state, dict) else None
    if last is None:
        raise unreadable(f"stream {stream!r}", "its last sequence must be a whole number")
    return last
