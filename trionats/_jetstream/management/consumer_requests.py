"""What consumers are managed with: one function a request, with what is checked before it and after."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import trio

from trionats import api, errors
from trionats._jetstream.api import CLEANUP_LIMIT, about, api_error, sound, unreadable
from trionats._protocol import fields, subjects
from trionats._protocol.jetstream import levels
from trionats._protocol.jetstream.acks import LARGEST, count_of
from trionats._protocol.jetstream.consumers.configs import checked, checked_group, checked_moment, left_out

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from nats.js import api as nats_api

    from trionats._core.messaging import Messaging
    from trionats._jetstream.api import Api

__all__ = ["change", "consumer_of", "create", "delete", "pause", "reset", "resume", "step_down", "unpin"]

PAUSE: Final = levels.Need("pausing consumers", 1)
GROUPS: Final = levels.Need("unpinning", 1)
RESET: Final = levels.Need("resetting consumers", 4)


def consumer_of(stream: str, consumer: str) -> str:
    """Check the names, and say which consumer it is, for texts."""
    return f"consumer {subjects.consumer_name(consumer)!r} of stream {subjects.stream_name(stream)!r}"


async def create(
    jetstream: Api[Messaging],
    call: str,
    stream: str,
    config: nats_api.ConsumerConfig | None,
    params: Mapping[str, object],
    action: Literal["create", "update", ""] = "",
    *,
    pull_only: bool = False,
) -> api.ConsumerInfo:
    """Create a consumer, or change it.

    Args:
        jetstream: Where the stream is.
        call: The call, for texts.
        stream: The stream.
        config: The configuration.
        params: Fields that replace those of `config`.
        action: What is meant: only to create it, only to change it, or both. Servers before 2.10 do not look at it.
        pull_only: Whether fields of push consumers are refused.
    """
    wanted = fields.merged(call, api.ConsumerConfig, config, params)
    if not (wanted.name or wanted.durable_name):
        wanted = replace(wanted, name=jetstream.connection.new_token())
    name = wanted.name or wanted.durable_name or ""
    what = consumer_of(stream, name)
    wanted = checked(call, wanted, pull_only=pull_only)
    sent = wanted.as_dict()
    request: dict[str, object] = {"stream_name": stream, "config": sent}
    if action:
        request["action"] = action
    subject = subjects.consumer_creation(stream, name, wanted.filter_subject)
    # Only what was to be new: one that was there, and was changed, is somebody's.
    undo = f"CONSUMER.DELETE.{stream}.{name}" if action == "create" else ""
    with about(what):
        response = await jetstream.configure(what, subject, request, levels.of_consumer(sent), undo)
        if left_out(sent, response.get("config")):
            if undo:
                with suppress(errors.Error), trio.move_on_after(CLEANUP_LIMIT, shield=True):
                    await jetstream.request(undo)
            text = "the server did not take its filters: several of them need server 2.10"
            raise api_error(errors.APIError, f"{what}: {text}", text)
        info = sound(what, api.ConsumerInfo.from_response(response))
    jetstream.deliverers.heard(info)
    return info


async def change(
    jetstream: Api[Messaging], stream: str, config: nats_api.ConsumerConfig | None, params: Mapping[str, object]
) -> api.ConsumerInfo:
    """Change a consumer that exists: to `config`, or, without one, just the fields of `params`."""
    call = "update_consumer"
    wanted = fields.merged(call, api.ConsumerConfig, config, params)
    name = wanted.name or wanted.durable_name or ""
    what = consumer_of(stream, name)
    if config is None:
        with about(what):
            response = await jetstream.request(f"CONSUMER.INFO.{stream}.{name}")
            read = sound(what, api.ConsumerInfo.from_response(response)).config
            try:
                config = checked(call, fields.merged(call, api.ConsumerConfig, read, {}))
            except errors.BadSubjectError as wrong:  # which is the server's, here
                raise unreadable(what, str(wrong)) from None
        if {"filter_subject", "filter_subjects"} & set(params):
            # Either of them takes the place of both.
            config = replace(config, filter_subject=None, filter_subjects=None)
    return await create(jetstream, call, stream, config, params, "update")


async def delete(jetstream: Api[Messaging], stream: str, consumer: str) -> object:
    """Delete a consumer.

    Returns:
        What the response says of its success.
    """
    with jetstream.deliverers.ending(stream, consumer, "was deleted"):
        response = await jetstream.request(f"CONSUMER.DELETE.{stream}.{consumer}")
    return response.get("success")


async def pause(jetstream: Api[Messaging], stream: str, consumer: str, until: str | datetime) -> api.ConsumerPause:
    """Stop a consumer's deliveries until a time."""
    what = consumer_of(stream, consumer)
    text = checked_moment("pause_consumer", "pause_until", until)
    return await _pause(jetstream, what, f"CONSUMER.PAUSE.{stream}.{consumer}", {"pause_until": text})


async def resume(jetstream: Api[Messaging], stream: str, consumer: str) -> api.ConsumerPause:
    """Let a paused consumer deliver again."""
    what = consumer_of(stream, consumer)
    return await _pause(jetstream, what, f"CONSUMER.PAUSE.{stream}.{consumer}", None)


async def _pause(
    jetstream: Api[Messaging], what: str, subject: str, request: Mapping[str, object] | None
) -> api.ConsumerPause:
    with about(what):
        await jetstream.require(what, PAUSE)
        return sound(what, api.ConsumerPause.from_response(await jetstream.request(subject, request)))


async def reset(jetstream: Api[Messaging], stream: str, consumer: str, seq: int | None) -> api.ConsumerReset:
    """Let a consumer begin again.

    A server does not answer at all where there is no such consumer, and takes a sequence beyond the end of the stream, so both
    are looked at before, as far as that is permitted.
    """
    what = consumer_of(stream, consumer)
    fields.check_argument("reset_consumer", "seq", int | None, seq)
    if seq is not None and not 1 <= seq <= LARGEST:
        raise ValueError(f"reset_consumer: seq is {seq}: sequences begin at 1, and fit into 63 bits")
    with about(what):
        await jetstream.require(what, RESET)
        with suppress(errors.PermissionsViolationError):
            await jetstream.request(f"CONSUMER.INFO.{stream}.{consumer}")
        if seq is not None:
            await _check_end(jetstream, stream, seq)
        with jetstream.deliverers.ending(stream, consumer, "was reset"):
            request = None if seq is None else {"seq": seq}
            response = await jetstream.request(f"CONSUMER.RESET.{stream}.{consumer}", request)
            return sound(what, api.ConsumerReset.from_response(response))


async def _check_end(jetstream: Api[Messaging], stream: str, seq: int) -> None:
    with suppress(errors.PermissionsViolationError):
        state = (await jetstream.request(f"STREAM.INFO.{stream}")).get("state")
        last = count_of(state.get("last_seq")) if isinstance(state, dict) else None
        if last is not None and seq > last + 1:
            text = f"seq is {seq}, and the last message of the stream has {last}"
            raise api_error(errors.BadRequestError, text, text, code=400)


async def unpin(jetstream: Api[Messaging], stream: str, consumer: str, group: str) -> None:
    """Take the pin from the client of a priority group that has it."""
    what = consumer_of(stream, consumer)
    checked_group("unpin_consumer", group)
    with about(what):
        await jetstream.require(what, GROUPS)
        await jetstream.request(f"CONSUMER.UNPIN.{stream}.{consumer}", {"group": group})


async def step_down(jetstream: Api[Messaging], stream: str, consumer: str) -> object:
    """Have another replica lead a consumer.

    Returns:
        What the response says of its success.
    """
    with about(consumer_of(stream, consumer)):
        response = await jetstream.request(f"CONSUMER.LEADER.STEPDOWN.{stream}.{consumer}")
        return response.get("success")
