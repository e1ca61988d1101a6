"""What the configuration of an object store may say, and what its stream is then (ADR-20)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trionats import api
from trionats._protocol import fields
from trionats._protocol.jetstream.buckets import configs
from trionats._protocol.jetstream.buckets.kinds import OBJECTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.js import api as nats_api

__all__ = ["configuration", "said_of_stream", "stream_of"]


def configuration(
    call: str, bucket: str | None, config: nats_api.ObjectStoreConfig | None, params: Mapping[str, Any]
) -> api.ObjectStoreConfig:
    """Put together the configuration that a call is given, and check it.

    Args:
        call: The call, for texts.
        bucket: The bucket's name, where it was given beside the configuration.
        config: The configuration, nats-py's class or ours.
        params: Its fields that were given by keyword.

    Raises:
        TypeError: `config` is none, or a field holds what it cannot hold.
        ValueError: So does one with a number.
        trionats.errors.InvalidBucketNameError: The name is none.
    """
    named = {} if bucket is None else {"bucket": OBJECTS.checked(bucket)}
    wanted = fields.merged(call, api.ObjectStoreConfig, config, {**named, **params})
    OBJECTS.checked(wanted.bucket or "")
    configs.check(call, wanted)
    return wanted


def said_of_stream(config: api.ObjectStoreConfig) -> dict[str, object]:
    """Say in the fields of a stream what a configuration says, as the server would complete it."""
    return configs.common(config)


def stream_of(config: api.ObjectStoreConfig) -> api.StreamConfig:
    """Make the configuration of a new bucket's stream."""
    said: dict[str, Any] = said_of_stream(config)
    bucket = config.bucket or ""
    own = OBJECTS.prefix(bucket)
    return api.StreamConfig(
        name=OBJECTS.stream(bucket),
        subjects=[f"{own}C.>", f"{own}M.>"],
        discard=api.DiscardPolicy.NEW,
        allow_rollup_hdrs=True,
        allow_direct=True,
        **said,
    )
