"""The buckets of object stores: their names, what their streams are, and where a mirror's messages are stored first."""

from __future__ import annotations

import re
from dataclasses import replace

from nats.js import api as nats_api

from trionats import api, errors
from trionats._jetstream.api import Origin, refusal_text
from trionats._protocol import fields, subjects

BUCKET_NAME_LIMIT = 251


def max_msg_size(info: api.StreamInfo) -> int:
    """Say how large a message a stream takes, headers and payload together; 0 where it sets no limit."""
    size = info.config.max_msg_size
    return size if isinstance(size, int) and size > 0 else 0


def store_name(bucket: str) -> str:
    """Name a bucket of objects in texts."""
    return f"object store {bucket!r}"


def bucket_name(bucket: str) -> str:
    # The server's limit for a stream's name is 255; a much longer one would end the connection.
    if isinstance(bucket, str) and len(bucket) > BUCKET_NAME_LIMIT:
        text = f"bucket {bucket[:40]!r}...: a name has at most {BUCKET_NAME_LIMIT} letters"
        raise errors.explained(errors.InvalidBucketNameError, text, description=text)
    return subjects.bucket_name(bucket)


def of_bucket(bucket: str, error: errors.APIError) -> errors.APIError:
    return errors.explained(type(error), refusal_text(store_name(bucket), error), **vars(error))


def object_store_config(
    bucket: str | None, config: nats_api.ObjectStoreConfig | None, params: api.ObjectStoreParams
) -> api.ObjectStoreConfig:
    call = "create_object_store"
    ours = api.ObjectStoreConfig()
    if config is not None:
        if not isinstance(config, nats_api.ObjectStoreConfig):
            raise TypeError(f"{call}: config must be an ObjectStoreConfig, not {type(config).__name__}")
        # nats-py's own class, which a program may still hold, has neither compression nor metadata.
        ours = replace(ours, **{key: value for key, value in vars(config).items() if value is not None})
    name = {} if bucket is None else {"bucket": bucket_name(bucket)}
    return fields.merged(call, api.ObjectStoreConfig, ours, {**name, **params})


def object_stream(bucket: str, config: api.ObjectStoreConfig) -> api.StreamConfig:
    compression = config.compression
    if isinstance(compression, bool):
        compression = api.StoreCompression.S2 if compression else None
    return api.StreamConfig(
        name=f"OBJ_{bucket}",
        description=config.description,
        subjects=[f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
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
