"""What lists and watchers of a key-value bucket have to know: where its entries are, and how each is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from trionats import api
from trionats._jetstream.ordered.entries import Entries
from trionats._protocol.jetstream.kv.entries import operation_of
from trionats._protocol.jetstream.kv.keys import checked_filter
from trionats._protocol.subjects import widest
from trionats._told.moments import moment_of

if TYPE_CHECKING:
    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging
    from trionats._jetstream.api import Api
    from trionats._jetstream.kv.buckets import KeyValueBucket
    from trionats._protocol.jetstream.acks import AckSubject

__all__ = ["entries_in", "several_patterns"]


def several_patterns(bucket: KeyValueBucket, keys: str | Sequence[str]) -> Sequence[str]:
    """Make several patterns of one or several, in whatever form a codec may know them.

    Raises:
        TypeError: They are neither.
    """
    if not isinstance(keys, (str, Sequence)):
        raise TypeError(f"keys of {bucket} must be a pattern or several, not {type(keys).__name__}")
    return [keys] if isinstance(keys, str) else keys


def entries_in(
    jetstream: Api[Messaging],
    bucket: KeyValueBucket,
    keys: str | Sequence[str],
    *,
    ignore_deletes: bool,
    meta_only: bool,
) -> Entries[api.KeyValueEntry]:
    """Say where the entries of a bucket are and how each is read.

    Args:
        jetstream: Where the bucket is.
        bucket: The bucket.
        keys: Which keys: a pattern, or several, which may overlap.
        ignore_deletes: Whether to leave out the markers of deleted and purged keys.
        meta_only: Whether values are left on the server.

    Raises:
        trionats.errors.InvalidKeyError: A pattern is none.
        TypeError: `keys` is no text, and no sequence of texts.
        ValueError: `keys` is an empty sequence.
    """
    patterns = [checked_filter(bucket.name, one) for one in several_patterns(bucket, keys)]
    if not patterns:
        raise ValueError(f"keys of {bucket}: an empty sequence, and to the server no pattern at all means every key")
    start = len(bucket.read_prefix)
    return Entries(
        str(bucket),
        jetstream,
        bucket.stream,
        [bucket.read_prefix + one for one in widest(patterns)],
        read=jetstream.connection.foreign.reader(
            f"entries of {bucket}", partial(_read, bucket.name, start, ignore_deletes)
        ),
        key=attrgetter("key"),
        headers_only=meta_only,
    )


def _read(bucket: str, start: int, ignore_deletes: bool, msg: Msg, ack: AckSubject) -> api.KeyValueEntry | None:
    operation = None if msg.header_block is None else operation_of(msg.headers)
    if ignore_deletes and operation is not None:
        return None
    return api.KeyValueEntry(
        bucket, msg.subject[start:], msg.data, ack.sequence, moment_of(ack.timestamp), ack.pending, operation
    )
