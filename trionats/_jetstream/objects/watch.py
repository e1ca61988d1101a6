"""What a watcher has to know of a bucket of objects, whoever's class its store is."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from trionats._jetstream.objects.buckets import store_name
from trionats._jetstream.objects.infos import read_entry
from trionats._jetstream.watcher import Watchable

if TYPE_CHECKING:
    from trionats import api
    from trionats._core.foreign import Foreign
    from trionats._core.message import Msg
    from trionats._core.messaging import Messaging
    from trionats._jetstream.api import Api
    from trionats._protocol.jetstream.acks import AckSubject


def watchable_objects(
    jetstream: Api[Messaging], bucket: str, stream: str, subject: str, *, ignore_deletes: bool
) -> Watchable[api.ObjectInfo]:
    """Say what a watcher of a bucket of objects reads.

    Args:
        jetstream: Where the bucket is.
        bucket: Its name.
        stream: The stream that holds it.
        subject: The pattern that the infos of all objects match.
        ignore_deletes: Whether to leave out what tells that an object was deleted.
    """
    return Watchable(
        store_name(bucket),
        jetstream,
        stream,
        [subject],
        read=partial(_read, jetstream.connection.foreign, bucket, ignore_deletes),
        # Two objects may have one name, in two places.
        key=attrgetter("subject"),
        # An object's info replaces the one before (`Nats-Rollup`).
        one_per_subject=True,
    )


def _read(foreign: Foreign, bucket: str, ignore_deletes: bool, msg: Msg, ack: AckSubject) -> api.ObjectInfo | None:
    info = read_entry(foreign, bucket, msg, ack)
    return None if info is None or (ignore_deletes and info.deleted) else info
