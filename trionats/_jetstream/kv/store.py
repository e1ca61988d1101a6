"""A key-value bucket: what is done with its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trio.lowlevel import enable_ki_protection

from trionats import api, errors
from trionats._jetstream.api import Api, api_error
from trionats._jetstream.direct import read_one
from trionats._jetstream.kv.watch import entries_in
from trionats._jetstream.publishing.publish import encoded, publish_until_known
from trionats._protocol.jetstream.kv.entries import operation_of
from trionats._protocol.jetstream.kv.keys import checked_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats._core.messaging import Publishing
    from trionats._jetstream.entries import Entries
    from trionats._jetstream.kv.buckets import KeyValueBucket

__all__ = ["KeyValue"]


@final
class KeyValue:
    """A bucket of keys and values.

    Comes from `JetStream.create_key_value` and `JetStream.key_value`. It holds no state of its own, needs no closing, and
    may be used from several tasks at once.
    """

    def __init__(self, jetstream: Api[Publishing], names: KeyValueBucket) -> None:
        self._api = jetstream
        self._names = names

    def __repr__(self) -> str:
        return f"<KeyValue {self._names.name!r}>"

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._names.name

    @property
    def stream(self) -> str:
        """The name of the stream that holds it."""
        return self._names.stream

    def __entries__(
        self, keys: str | Sequence[str] = ">", *, ignore_deletes: bool = False, meta_only: bool = False
    ) -> Entries[api.KeyValueEntry]:
        """Give what a watcher has to know, as `__messaging__` gives the seam to what is built on a client."""
        return entries_in(self._api, self._names, keys, ignore_deletes=ignore_deletes, meta_only=meta_only)

    def __bucket__(self) -> tuple[Api[Publishing], KeyValueBucket]:
        """Give what a lease has to know: where the bucket is, and its names."""
        return self._api, self._names

    @enable_ki_protection
    async def get(self, key: str) -> api.KeyValueEntry:
        """Read the last value of a key."""
        names = self._names
        subject = names.read_prefix + checked_key(names.name, key)
        what = f"key {key!r} of bucket {names.name!r}"
        try:
            found = await read_one(self._api, names.stream, {"last_by_subj": subject}, what, direct=True)
        except errors.NotFoundError:
            text = f"there is no {what}"
            raise api_error(errors.KeyNotFoundError, text, text, code=404) from None
        operation = operation_of(found.headers)
        if operation is not None:
            text = f"{what} was deleted"
            raise api_error(errors.KeyDeletedError, text, text, code=404)
        return api.KeyValueEntry(names.name, key, found.data, found.seq, found.time, 0, None)

    @enable_ki_protection
    async def put(self, key: str, value: bytes | str) -> int:
        """Store a value under a key, whatever stood there; give its revision."""
        names = self._names
        doing = f"put of key {key!r} into bucket {names.name!r}"
        subject = names.write_prefix + checked_key(names.name, key)
        return (await publish_until_known(self._api, doing, subject, encoded(doing, value), None, {})).seq
