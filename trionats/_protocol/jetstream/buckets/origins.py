"""Where the messages of mirrored and sourced buckets come from, and what they are called here (ADR-57).

A mirror has no subjects: its messages keep those that they were stored under first, unless it transforms them, and what is
written into it has to be published where its origin is. A sourced bucket takes what is written itself, and what it collects
has to be given its own subjects.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from trionats import api, errors
from trionats._protocol import subjects

if TYPE_CHECKING:
    from nats.js import api as nats_api

    from trionats._protocol.jetstream.buckets.kinds import Kind

__all__ = ["Origin", "held_under", "named_source", "origin_of", "transformed", "written_under"]

S = TypeVar("S", bound="nats_api.StreamSource")


class Origin(NamedTuple):
    """Where the messages of a mirror are stored first.

    Attributes:
        prefix: Of the API there.
        stream: The stream that is mirrored.
        domain: None for the mirror's own, or an empty string where it cannot be told.
    """

    prefix: str
    stream: str
    domain: str | None


def origin_of(config: api.StreamConfig, prefix: str) -> Origin | None:
    """Say where the messages of a bucket are stored first; None for in the bucket itself.

    Args:
        config: The configuration of its stream.
        prefix: Of the API where it was found.
    """
    mirror = config.mirror
    if mirror is None:
        return None
    if mirror.external is None or not mirror.external.api:
        return Origin(prefix, mirror.name, None)
    form = re.fullmatch(r"\$JS\.([^.]+)\.API", mirror.external.api)
    return Origin(mirror.external.api, mirror.name, form[1] if form is not None else "")


def held_under(kind: Kind, bucket: str, config: api.StreamConfig) -> str:
    """Say how the subjects of a bucket's messages begin: for a mirror like its origin's, unless it transforms them to its own.

    Args:
        kind: What kind of bucket it is.
        bucket: The bucket.
        config: The configuration of its stream.
    """
    own = kind.prefix(bucket)
    if config.mirror is None:
        return own
    transforms = config.mirror.subject_transforms or ()
    if transforms and all(transform.dest.startswith(own) for transform in transforms):
        return own
    return kind.prefix(kind.bucket_of(config.mirror.name))


def written_under(kind: Kind, bucket: str, config: api.StreamConfig, prefix: str) -> str:
    """Say how the subjects begin to which is published what is written into a bucket.

    With the prefix of the API where that is not the default one: the server has a mapping for it in each domain (ADR-19).

    Args:
        kind: What kind of bucket it is; there is such a mapping for keys alone.
        bucket: The bucket.
        config: The configuration of its stream.
        prefix: Of the API where it was found.
    """
    origin = origin_of(config, prefix) or Origin(prefix, kind.stream(bucket), None)
    there = kind.prefix(kind.bucket_of(origin.stream))
    return there if origin.prefix == api.DEFAULT_PREFIX else f"{origin.prefix}.{there}"


def named_source(kind: Kind, what: str, source: S) -> S:
    """Let a mirror or a source be one of a bucket, which may be named by its own name or by its stream's.

    Args:
        kind: What kind of bucket it is.
        what: Which field it stands in, for texts: "create_key_value: mirror".
        source: The mirror or source.

    Raises:
        trionats.errors.InvalidBucketNameError: The name is no bucket's.
        ValueError: It is elsewhere, and its prefix is none.
    """
    bucket = kind.checked(kind.bucket_of(source.name))
    if source.external is not None and source.external.api:
        try:
            subjects.publish_subject(source.external.api)
        except errors.BadSubjectError as error:
            raise ValueError(f"{what}.external.api: {error}") from None
    return replace(source, name=kind.stream(bucket))


def transformed(kind: Kind, bucket: str, source: S) -> S:
    """Give what a bucket collects from another one its own subjects, if nobody has said which (ADR-57).

    A filter becomes the transform of what it lets through: the server takes one of the two.

    Args:
        kind: What kind of buckets they are.
        bucket: The bucket that collects.
        source: Where from, under its stream's name.
    """
    other = kind.bucket_of(source.name)
    theirs, ours = kind.prefix(other), kind.prefix(bucket)
    if source.subject_transforms or theirs == ours:
        return source
    pattern = source.filter_subject or f"{theirs}>"
    if not pattern.startswith(theirs):
        return source
    numbers = count(1)
    tokens = [f"{{{{wildcard({next(numbers)})}}}}" if token == "*" else token for token in pattern.split(".")]
    dest = ours + ".".join(tokens).removeprefix(theirs)
    return replace(source, filter_subject=None, subject_transforms=[api.SubjectTransform(pattern, dest)])
