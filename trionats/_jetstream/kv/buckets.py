"""Key-value buckets: their names, and what is done with whole ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from trionats import api
from trionats._jetstream.buckets import Buckets
from trionats._protocol.jetstream.buckets.configs import asked
from trionats._protocol.jetstream.buckets.kinds import KEY_VALUE
from trionats._protocol.jetstream.buckets.origins import held_under, origin_of, written_under
from trionats._protocol.jetstream.kv.configs import configuration, said_of_stream, stream_of
from trionats._protocol.jetstream.levels import Need

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.js import api as nats_api

    from trionats._core.messaging import Messaging
    from trionats._jetstream.api import Api

__all__ = ["KeyValueBucket", "change", "create", "delete", "ensure", "find", "status", "statuses"]

_MARKERS = Need("limit_marker_ttl", 1)


@final
@dataclass(frozen=True, slots=True)
class KeyValueBucket:
    """The names of a key-value bucket.

    Attributes:
        name: The bucket's name.
        read_prefix: What stands before a key in the subjects of the bucket's stream: `$KV.<name>.`, or the origin's for a mirror.
        write_prefix: What stands before a key in the subject that it is published to: with the prefix of the API where that is
            not the default one (ADR-19), and a mirror's origin's.
        direct: Whether any replica may be asked for a message. Where it may not, nobody answers, and over a leaf node nobody
            says so.
    """

    name: str
    read_prefix: str
    write_prefix: str
    direct: bool = True

    def __str__(self) -> str:
        return KEY_VALUE.title(self.name)

    @property
    def stream(self) -> str:
        """The stream that holds it."""
        return KEY_VALUE.stream(self.name)


def _named(jetstream: Api[Messaging], bucket: str, info: api.StreamInfo) -> KeyValueBucket:
    """Name a bucket by what its stream says, and note where a mirror's messages are stored first."""
    config, prefix = info.config, jetstream.prefix
    jetstream.whereabouts.origin_found(KEY_VALUE.stream(bucket), origin_of(config, prefix))
    reading, writing = held_under(KEY_VALUE, bucket, config), written_under(KEY_VALUE, bucket, config, prefix)
    return KeyValueBucket(bucket, reading, writing, bool(config.allow_direct))


def _buckets(jetstream: Api[Messaging]) -> Buckets:
    return Buckets(jetstream, KEY_VALUE)


async def _wanted(
    jetstream: Api[Messaging], call: str, config: nats_api.KeyValueConfig | None, params: Mapping[str, Any]
) -> api.KeyValueConfig:
    """Put together the configuration that a call is given, and see to it that the server knows what it says."""
    wanted = configuration(call, config, params)
    if wanted.limit_marker_ttl is not None:
        await jetstream.require(KEY_VALUE.title(wanted.bucket), _MARKERS)
    return wanted


async def create(
    jetstream: Api[Messaging], config: nats_api.KeyValueConfig | None, params: Mapping[str, Any]
) -> KeyValueBucket:
    """Create a bucket; an existing one of the same configuration is as good."""
    wanted = await _wanted(jetstream, "create_key_value", config, params)
    info = await _buckets(jetstream).create(wanted.bucket, stream_of(wanted), said_of_stream(wanted))
    return _named(jetstream, wanted.bucket, info)


async def find(jetstream: Api[Messaging], bucket: str) -> KeyValueBucket:
    """Find a bucket."""
    return _named(jetstream, bucket, await _buckets(jetstream).find(bucket))


async def change(
    jetstream: Api[Messaging], config: nats_api.KeyValueConfig | None, params: Mapping[str, Any]
) -> KeyValueBucket:
    """Change a bucket: by keywords alone just these fields, else all that a configuration says."""
    wanted = await _wanted(jetstream, "update_key_value", config, params)
    said = said_of_stream(wanted)
    changes = said if config is not None else asked(said, params)
    return _named(jetstream, wanted.bucket, await _buckets(jetstream).update(wanted.bucket, changes))


async def ensure(
    jetstream: Api[Messaging], config: nats_api.KeyValueConfig | None, params: Mapping[str, Any]
) -> KeyValueBucket:
    """Let there be a bucket of this configuration, whether one of the name exists or not."""
    wanted = await _wanted(jetstream, "create_or_update_key_value", config, params)
    info = await _buckets(jetstream).ensure(wanted.bucket, stream_of(wanted), said_of_stream(wanted))
    return _named(jetstream, wanted.bucket, info)


async def delete(jetstream: Api[Messaging], bucket: str) -> bool:
    """Delete a bucket with all its keys."""
    return await _buckets(jetstream).delete(bucket)


async def status(jetstream: Api[Messaging], bucket: str) -> api.KeyValueStatus:
    """Ask how a bucket is."""
    return api.KeyValueStatus(bucket, await _buckets(jetstream).find(bucket))


async def statuses(jetstream: Api[Messaging]) -> list[api.KeyValueStatus]:
    """Ask how all buckets are."""
    return [api.KeyValueStatus(bucket, info) for bucket, info in (await _buckets(jetstream).all()).items()]
