"""What a bucket's configuration says of its stream: what may stand in it, what an update changes, and what is another one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from nats.js.api import Base

from trionats import api

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["STREAM_FIELDS", "asked", "check", "common", "duplicate_window", "unlike", "updated", "within"]

#: What the fields of a bucket are called in its stream, where they are called otherwise.
STREAM_FIELDS: Final = {
    "direct": "allow_direct",
    "history": "max_msgs_per_subject",
    "limit_marker_ttl": "subject_delete_marker_ttl",
    "max_value_size": "max_msg_size",
    "replicas": "num_replicas",
    "ttl": "max_age",
}
_BUCKET_FIELDS: Final = {stream: bucket for bucket, stream in STREAM_FIELDS.items()}
#: What the server takes for a duplicate window that nobody chose, where the messages live longer.
_WINDOW: Final = 120.0
#: What the server allows.
_SHORTEST: Final = 0.1
_MOST_REPLICAS: Final = 5
_MOST_BYTES: Final = 2**63 - 1
#: What says as little as if it were not there.
_NOTHING: Final[tuple[object, ...]] = (None, "", 0, [], {}, (), -1, "none")


def check(call: str, config: api.KeyValueConfig | api.ObjectStoreConfig) -> None:
    """Check what both kinds of configurations have.

    Args:
        call: The call, for texts.
        config: The configuration; its fields are of the right kinds.

    Raises:
        ValueError: A field holds what the server would refuse.
    """
    if 0 < (config.ttl or 0) < _SHORTEST:
        raise ValueError(f"{call}: ttl is {config.ttl:g}: values live for {_SHORTEST:g} s at the least")
    within(f"{call}: replicas", config.replicas, 1, _MOST_REPLICAS)
    within(f"{call}: max_bytes", config.max_bytes, -1, _MOST_BYTES)


def within(what: str, value: int | None, least: int, most: int) -> None:
    """Check a number.

    Args:
        what: Which one, for texts.
        value: The number; None where there is none.
        least: What it is at the least.
        most: What it is at the most.

    Raises:
        ValueError: It is outside.
    """
    if value is not None and not least <= value <= most:
        raise ValueError(f"{what} is {value}: it is from {least} to {most}")


def common(config: api.KeyValueConfig | api.ObjectStoreConfig) -> dict[str, object]:
    """Say in the fields of a stream what both kinds of configurations say, as the server would complete it."""
    compression = config.compression
    if isinstance(compression, bool) or compression is None:
        compression = api.StoreCompression.S2 if compression else api.StoreCompression.NONE
    return {
        "description": config.description,
        "max_age": config.ttl or 0.0,
        # Zero bytes is how "no limit" is written by who comes from Go.
        "max_bytes": config.max_bytes or -1,
        "storage": config.storage or api.StorageType.FILE,
        "num_replicas": config.replicas,
        "placement": config.placement,
        "compression": compression,
        "metadata": config.metadata,
    }


def asked(said: Mapping[str, object], given: Collection[str]) -> dict[str, object]:
    """Take of what a configuration says of a stream what stands in some fields of the bucket's."""
    return {name: value for name, value in said.items() if _BUCKET_FIELDS.get(name, name) in given}


def duplicate_window(ttl: float) -> float:
    """Say how long the server looks for duplicates in a stream whose messages live so long, where nobody chose that."""
    return min(_WINDOW, ttl or _WINDOW)


def unlike(said: Mapping[str, object], there: api.StreamConfig) -> list[str]:
    """Name the fields of a bucket's configuration in which an existing stream differs.

    What the server completes is no difference, nor is what another client has set that a bucket's configuration does not name.

    Args:
        said: What the configuration says of the stream.
        there: What the server says of it.
    """
    return [
        _BUCKET_FIELDS.get(name, name) for name, value in said.items() if _meant(value) != _meant(getattr(there, name))
    ]


def updated(title: str, now: api.StreamConfig, changes: Mapping[str, Any]) -> api.StreamConfig:
    """Change the configuration of a bucket's stream, and nothing else in it.

    The duplicate window goes along with how long messages live, unless somebody chose another one that still can be.

    Args:
        title: The bucket, for texts.
        now: The configuration as it was read.
        changes: What is to be different.

    Raises:
        ValueError: It is what a bucket is made with and keeps, or what a sealed one cannot be.
    """
    if "mirror" in changes and _meant(changes["mirror"]) != _meant(now.mirror):
        raise ValueError(f"{title}: mirror cannot be changed: what a bucket mirrors is said when it is created")
    if now.sealed and changes.get("max_age"):
        # The server would say yes, and let everything live for ever.
        raise ValueError(f"{title}: ttl cannot be set: the bucket is sealed, and what it holds stays")
    more: dict[str, Any] = {}
    marked = "subject_delete_marker_ttl"
    if marked in changes:
        if now.subject_delete_marker_ttl and not changes[marked]:
            had = f"the bucket has {now.subject_delete_marker_ttl:g} s"
            raise ValueError(f"{title}: limit_marker_ttl cannot be turned off again, and {had}")
        if changes[marked]:
            more["allow_msg_ttl"] = True
    if "max_age" in changes and now.duplicate_window:
        ttl = changes["max_age"]
        chosen = now.duplicate_window != duplicate_window(now.max_age or 0)
        if not (chosen and now.duplicate_window <= (ttl or now.duplicate_window)):
            more["duplicate_window"] = duplicate_window(ttl)
    return replace(now, **changes, **more)


def _meant(value: object) -> object:
    """Give what a field of a configuration means: what the server completes is left out again."""
    if isinstance(value, Base):
        value = value.as_dict()
    if isinstance(value, dict):
        own = {key: _meant(inner) for key, inner in value.items() if not key.startswith("_nats.")}
        value = {key: inner for key, inner in own.items() if inner is not None}
    elif isinstance(value, (list, tuple)):
        value = [_meant(inner) for inner in value]
    return None if value in _NOTHING else value
