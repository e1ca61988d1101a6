"""The buckets of object stores: their names, what their streams are, and where a mirror's messages are stored first."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import final

from nats.js import api as nats_api

from trionats import api, errors
from trionats._jetstream.api import refusal_text
from trionats._jetstream.whereabouts import Origin
from trionats._protocol import fields, subjects

#: The server's limit for a stream's name is 255; a much longer one would end the connection.
BUCKET_NAME_LIMIT = 251


@final
@dataclass(frozen=True, slots=True)
class Bucket:
    """The names of a bucket of objects.

    Attributes:
        name: The bucket's name.
        origin: The name of the bucket whose messages it holds, under that one's subjects: another one for a mirror.
    """

    name: str
    origin: str

    def __str__(self) -> str:
        return f"object store {self.name!r}"

    @property
    def stream(self) -> str:
        """The stream that holds it."""
        return f"OBJ_{self.name}"

    @property
    def infos(self) -> str:
        """The pattern that the infos of all objects match in the stream."""
        return f"$O.{self.origin}.M.>"

    def info_subject(self, token: str) -> str:
        """Name the place of an info, by the token that an object's name is encoded to."""
        return f"$O.{self.origin}.M.{token}"

    def chunk_subject(self, nuid: str) -> str:
        """Name where the chunks of an object are."""
        return f"$O.{self.origin}.C.{nuid}"


def max_msg_size(info: api.StreamInfo) -> int:
    """Say how large a message a stream takes, headers and payload together; 0 where it sets no limit."""
    size = info.config.max_msg_size
    return size if isinstance(size, int) and size > 0 else 0


def bucket_name(bucket: str) -> str:
    """Check a bucket's name.

    Raises:
        trionats.errors.InvalidBucketNameError: It is none.
    """
    if isinstance(bucket, str) and len(bucket) > BUCKET_NAME_LIMIT:
        text = f"bucket {bucket[:40]!r}...: a name has at most {BUCKET_NAME_LIMIT} letters"
        raise errors.explained(errors.InvalidBucketNameError, text, description=text)
    return subjects.bucket_name(bucket)


def of_bucket(bucket: Bucket, error: errors.APIError) -> errors.APIError:
    """Say of what a stream refused that the bucket refused it."""
    return errors.explained(type(error), refusal_text(str(bucket), error), **vars(error))


def object_store_config(
    bucket: str | None, config: nats_api.ObjectStoreConfig | None, params: api.ObjectStoreParams
) -> api.ObjectStoreConfig:
    """Put together the configuration of a new bucket, as `create_object_store` takes it.

    Raises:
        TypeError: `config` is none, or a field holds what it cannot hold.
        ValueError: So does one with a number.
        trionats.errors.InvalidBucketNameError: The name is none.
    """
    call = "create_object_store"
    ours = api.ObjectStoreConfig()
    if config is not None:
        if not isinstance(config, nats_api.ObjectStoreConfig):
            raise TypeError(f"{call}: config must be an ObjectStoreConfig, not {type(config).__name__}")
        # nats-py's own class, which a program may still hold, has neither compression nor metadata.
        ours = replace(ours, **{key: value for key, value in vars(config).items() if value is not None})
    name = {} if bucket is None else {"bucket": bucket_name(bucket)}
    return fields.merged(call, api.ObjectStoreConfig, ours, {**name, **params})


def object_stream(bucket: Bucket, config: api.ObjectStoreConfig) -> api.StreamConfig:
    """Make the configuration of a bucket's stream."""
    compression = config.compression
    if isinstance(compression, bool):
        compression = api.StoreCompression.S2 if compression else None
    return api.StreamConfig(
        name=bucket.stream,
        description=config.description,
        subjects=[bucket.chunk_subject(">"), bucket.infos],
        discard=api.DiscardPolicy.NEW,
        max_age=config.ttl,
        # Zero bytes is how "no limit" is written by who comes from Go.
        max_bytes=config.max_bytes or None,
        storage=config.storage,
        num_replicas=config.replicas,
        placement=config.placement,
        compression=compression,
        metadata=config.metadata,
        allow_rollup_hdrs=True,
        allow_direct=True,
    )


def origin_of(info: api.StreamInfo, prefix: str) -> Origin | None:
    """Find the bucket whose messages, and subjects, a mirror holds."""
    mirror = info.config.mirror
    if mirror is None or mirror.subject_transforms or not mirror.name.startswith("OBJ_"):
        return None
    if not mirror.external:
        return Origin(prefix, mirror.name, None)
    form = re.fullmatch(r"\$JS\.([^.]+)\.API", mirror.external.api)
    return Origin(mirror.external.api, mirror.name, form[1] if form is not None else "")
