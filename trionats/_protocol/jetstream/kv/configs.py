"""What the configuration of a key-value bucket may say, and what its stream is then (ADR-8, ADR-48, ADR-57)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from trionats import api
from trionats._protocol import fields
from trionats._protocol.jetstream.buckets import configs
from trionats._protocol.jetstream.buckets.kinds import KEY_VALUE
from trionats._protocol.jetstream.buckets.origins import named_source, transformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.js import api as nats_api

__all__ = ["MOST_HISTORY", "configuration", "said_of_stream", "stream_of"]

#: ADR-8.
MOST_HISTORY: Final = 64
#: The server keeps the size of a message in 32 bits.
_MOST_BYTES: Final = 2**31 - 1


def configuration(call: str, config: nats_api.KeyValueConfig | None, params: Mapping[str, Any]) -> api.KeyValueConfig:
    """Put together the configuration that a call is given, and check it.

    Args:
        call: The call, for texts.
        config: The configuration, nats-py's class or ours.
        params: Its fields that were given by keyword.

    Returns:
        A configuration of its own, in which mirror and sources are named by their streams.

    Raises:
        TypeError: `config` is none, or a field holds what it cannot hold.
        ValueError: So does one with a number, or fields exclude each other.
        trionats.errors.InvalidBucketNameError: A name is none.
    """
    named = api.KeyValueConfig("") if config is None else config
    wanted = fields.merged(call, api.KeyValueConfig, named, params)
    KEY_VALUE.checked(wanted.bucket)
    configs.check(call, wanted)
    configs.within(f"{call}: history", wanted.history, 1, MOST_HISTORY)
    configs.within(f"{call}: max_value_size", wanted.max_value_size, -1, _MOST_BYTES)
    _check_markers(call, wanted)
    return _with_sources(call, wanted)


def _check_markers(call: str, config: api.KeyValueConfig) -> None:
    ttl = config.limit_marker_ttl
    if ttl is None:
        return
    if ttl < 1 or ttl != int(ttl):
        # The server takes a fraction, and then cuts it off.
        raise ValueError(f"{call}: limit_marker_ttl is {ttl:g}: it is a whole number of seconds, at least 1")
    if config.mirror is not None:
        raise ValueError(f"{call}: either mirror or limit_marker_ttl, not both: a mirror repeats its origin's markers")


def _with_sources(call: str, config: api.KeyValueConfig) -> api.KeyValueConfig:
    if config.mirror is not None and config.sources:
        raise ValueError(f"{call}: either mirror or sources, not both")
    mirror = None if config.mirror is None else named_source(KEY_VALUE, f"{call}: mirror", config.mirror)
    sources = [
        transformed(KEY_VALUE, config.bucket, named_source(KEY_VALUE, f"{call}: sources[{index}]", source))
        for index, source in enumerate(config.sources or ())
    ]
    return replace(config, mirror=mirror, sources=sources or None)


def said_of_stream(config: api.KeyValueConfig) -> dict[str, object]:
    """Say in the fields of a stream what a configuration says, as the server would complete it."""
    direct = {} if config.direct is None else {"allow_direct": config.direct}
    return {
        **configs.common(config),
        "max_msgs_per_subject": config.history,
        # Zero is how "no limit" is written by who comes from Go.
        "max_msg_size": config.max_value_size or -1,
        "republish": config.republish,
        "subject_delete_marker_ttl": config.limit_marker_ttl,
        "mirror": config.mirror,
        "sources": config.sources,
        **direct,
    }


def stream_of(config: api.KeyValueConfig) -> api.StreamConfig:
    """Make the configuration of a new bucket's stream."""
    mirrors = config.mirror is not None
    said: dict[str, Any] = {
        "allow_direct": True,
        "mirror_direct": True if mirrors else None,
        # A mirror takes no messages by itself that could be duplicates.
        "duplicate_window": None if mirrors else configs.duplicate_window(config.ttl or 0),
        "allow_msg_ttl": True if config.limit_marker_ttl else None,
        **said_of_stream(config),
    }
    return api.StreamConfig(
        name=KEY_VALUE.stream(config.bucket),
        subjects=None if mirrors else [f"{KEY_VALUE.prefix(config.bucket)}>"],
        discard=api.DiscardPolicy.NEW,
        allow_rollup_hdrs=True,
        deny_delete=True,
        **said,
    )
