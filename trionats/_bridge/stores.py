"""nats-py's stores, as our watchers have to know them."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from nats.js.kv import KeyValue

from trionats._jetstream.api import Api
from trionats._jetstream.objects.buckets import Bucket
from trionats._jetstream.objects.infos import infos_in
from trionats._jetstream.ordered.entries import Entries
from trionats._protocol.jetstream.kv.entries import operation_of
from trionats._told.moments import moment_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.js.object_store import ObjectStore

    from trionats import api
    from trionats._bridge.connection import NatsPyConnection
    from trionats._core.message import Msg
    from trionats._protocol.jetstream.acks import AckSubject


def bridged_objects(
    connection: NatsPyConnection, store: ObjectStore, *, ignore_deletes: bool
) -> Entries[api.ObjectInfo]:
    """Say where the infos of an object store of nats-py are.

    Args:
        connection: That of its client.
        store: The store.
        ignore_deletes: Whether to leave out what tells that an object was deleted.
    """
    bucket = Bucket(store._name, store._name)
    return infos_in(Api(connection, store._js._prefix), bucket, ignore_deletes=ignore_deletes)


def bridged_entries(
    connection: NatsPyConnection,
    store: KeyValue,
    patterns: Sequence[str],
    *,
    ignore_deletes: bool,
    meta_only: bool,
) -> Entries[KeyValue.Entry]:
    """Say where the entries of a key-value bucket of nats-py are.

    Args:
        connection: That of its client.
        store: The bucket.
        patterns: Which subjects of its stream.
        ignore_deletes: Whether to leave out what tells that a key was deleted or purged.
        meta_only: Whether the values are left on the server.
    """
    name = f"key-value bucket {store._name!r}"
    read = partial(read_entry, store._name, store._pre, ignore_deletes)
    return Entries(
        name,
        Api(connection, store._js._prefix),
        store._stream,
        patterns,
        read=connection.foreign.reader(f"entries of {name}", read),
        key=attrgetter("key"),
        headers_only=meta_only,
    )


def read_entry(bucket: str, prefix: str, ignore_deletes: bool, msg: Msg, ack: AckSubject) -> KeyValue.Entry | None:
    """Make nats-py's entry of a message.

    Args:
        bucket: The bucket's name.
        prefix: What stands before the key in the subject.
        ignore_deletes: Whether markers of what was deleted are left out.
        msg: The message.
        ack: What its reply subject says.

    Returns:
        The entry, or None for a message that is left out.
    """
    operation = None if msg.header_block is None else operation_of(msg.headers)
    if ignore_deletes and operation is not None:
        return None
    return KeyValue.Entry(
        bucket=bucket,
        key=msg.subject[len(prefix) :],
        value=msg.data,
        revision=ack.sequence,
        delta=ack.pending,
        created=moment_of(ack.timestamp),  # type: ignore[arg-type]  # as nats-py does
        operation=operation,
    )
