"""The buckets of object stores: their names, and what is done with whole ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from trionats import api
from trionats._jetstream.buckets import Buckets
from trionats._protocol.jetstream.buckets.configs import asked
from trionats._protocol.jetstream.buckets.kinds import OBJECTS
from trionats._protocol.jetstream.buckets.origins import held_under, origin_of
from trionats._protocol.jetstream.objects.configs import configuration, said_of_stream, stream_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.js import api as nats_api

    from trionats._core.messaging import Messaging
    from trionats._jetstream.api import Api

__all__ = ["Bucket", "change", "create", "delete", "ensure", "find", "max_msg_size", "status", "statuses"]


@final
@dataclass(frozen=True, slots=True)
class Bucket:
    """The names of a bucket of objects.

    Attributes:
        name: The bucket's name.
        origin: The name of the bucket whose messages it holds, under that one's subjects: another one for a mirror.
        direct: Whether any replica may be asked for a message. Where it may not, nobody answers, and over a leaf node nobody
            says so.
    """

    name: str
    origin: str
    direct: bool = True

    def __str__(self) -> str:
        return OBJECTS.title(self.name)

    @property
    def stream(self) -> str:
        """The stream that holds it."""
        return OBJECTS.stream(self.name)

    @property
    def infos(self) -> str:
        """The pattern that the infos of all objects match in the stream."""
        return self.info_subject(">")

    def info_subject(self, token: str) -> str:
        """Name the place of an info, by the token that an object's name is encoded to."""
        return f"{OBJECTS.prefix(self.origin)}M.{token}"

    def chunk_subject(self, nuid: str) -> str:
        """Name where the chunks of an object are."""
        return f"{OBJECTS.prefix(self.origin)}C.{nuid}"


def max_msg_size(info: api.StreamInfo) -> int:
    """Say how large a message a stream takes, headers and payload together; 0 where it sets no limit."""
    size = info.config.max_msg_size
    return size if isinstance(size, int) and size > 0 else 0


def _named(jetstream: Api[Messaging], bucket: str, info: api.StreamInfo) -> tuple[Bucket, int]:
    """Name a bucket by what its stream says, with the size of its messages, and note where a mirror's are stored first."""
    config = info.config
    held = held_under(OBJECTS, bucket, config)
    origin = origin_of(config, jetstream.prefix)
    if origin is not None and held != OBJECTS.prefix(OBJECTS.bucket_of(origin.stream)):
        # Its messages have subjects of its own, to which nothing can be written: an object's place is one subject, here and there.
        origin = None
    jetstream.whereabouts.origin_found(OBJECTS.stream(bucket), origin)
    under = held.removeprefix(OBJECTS.subjects).removesuffix(".")
    return Bucket(bucket, under, bool(config.allow_direct)), max_msg_size(info)


def _buckets(jetstream: Api[Messaging]) -> Buckets:
    return Buckets(jetstream, OBJECTS)


async def create(
    jetstream: Api[Messaging], bucket: str | None, config: nats_api.ObjectStoreConfig | None, params: Mapping[str, Any]
) -> tuple[Bucket, int]:
    """Create a bucket; an existing one of the same configuration is as good."""
    wanted = configuration("create_object_store", bucket, config, params)
    name = wanted.bucket or ""
    return _named(jetstream, name, await _buckets(jetstream).create(name, stream_of(wanted), said_of_stream(wanted)))


async def find(jetstream: Api[Messaging], bucket: str) -> tuple[Bucket, int]:
    """Find a bucket."""
    return _named(jetstream, bucket, await _buckets(jetstream).find(bucket))


async def change(
    jetstream: Api[Messaging], bucket: str | None, config: nats_api.ObjectStoreConfig | None, params: Mapping[str, Any]
) -> tuple[Bucket, int]:
    """Change a bucket: by keywords alone just these fields, else all that a configuration says."""
    wanted = configuration("update_object_store", bucket, config, params)
    said = said_of_stream(wanted)
    changes = said if config is not None else asked(said, params)
    name = wanted.bucket or ""
    return _named(jetstream, name, await _buckets(jetstream).update(name, changes))


async def ensure(
    jetstream: Api[Messaging], bucket: str | None, config: nats_api.ObjectStoreConfig | None, params: Mapping[str, Any]
) -> tuple[Bucket, int]:
    """Let there be a bucket of this configuration, whether one of the name exists or not."""
    wanted = configuration("create_or_update_object_store", bucket, config, params)
    name = wanted.bucket or ""
    return _named(jetstream, name, await _buckets(jetstream).ensure(name, stream_of(wanted), said_of_stream(wanted)))


async def delete(jetstream: Api[Messaging], bucket: str) -> bool:
    """Delete a bucket with all its objects."""
    return await _buckets(jetstream).delete(bucket)


async def status(jetstream: Api[Messaging], bucket: str) -> api.ObjectStoreStatus:
    """Ask how a bucket is."""
    return api.ObjectStoreStatus(bucket, await _buckets(jetstream).find(bucket))


async def statuses(jetstream: Api[Messaging]) -> list[api.ObjectStoreStatus]:
    """Ask how all buckets are."""
    return [api.ObjectStoreStatus(bucket, info) for bucket, info in (await _buckets(jetstream).all()).items()]
