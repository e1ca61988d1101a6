"""A key-value bucket: what is done with its keys (ADR-8, ADR-48), over what the other rooms of this folder do."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Self, final

import trio
from trio.lowlevel import enable_ki_protection

from trionats import api, errors
from trionats._jetstream.api import Api
from trionats._jetstream.kv import buckets
from trionats._jetstream.kv.access import Access, is_gone
from trionats._jetstream.kv.deletes import purge_deletes
from trionats._jetstream.kv.watch import entries_in, several_patterns
from trionats._jetstream.ordered.listing import list_stored
from trionats._protocol.fields import check_argument
from trionats._protocol.jetstream.actions import ALL, LAST_PER_SUBJECT
from trionats._protocol.jetstream.kv.codecs import ALL_KEYS, Codecs, KeyCodec, ValueCodec
from trionats._protocol.jetstream.kv.keys import several_filters
from trionats._protocol.jetstream.kv.writing import Creating, checked_age, checked_revision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._jetstream.kv.buckets import KeyValueBucket
    from trionats._jetstream.ordered.entries import Entries
    from trionats._protocol.jetstream.acks import AckSubject

__all__ = ["KeyValue", "ReadOnlyKeyValue"]

#: How old a marker has to be to be purged, in seconds, unless somebody says so.
OLD = 1800


class ReadOnlyKeyValue:
    """A bucket of keys and values, to be read: what `KeyValue.read_only` gives.

    It holds no state of its own, needs no closing, and may be used from several tasks at once. A watcher of it is opened with
    `trionats.open_watcher`.
    """

    def __init__(self, jetstream: Api[Publishing], names: KeyValueBucket, codecs: Codecs | None = None) -> None:
        self._access = Access(jetstream, names, codecs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.bucket!r}>"

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._access.names.name

    @property
    def stream(self) -> str:
        """The name of the stream that holds it."""
        return self._access.names.stream

    def __entries__(
        self, keys: str | Sequence[str] = ALL_KEYS, *, ignore_deletes: bool = False, meta_only: bool = False
    ) -> Entries[api.KeyValueEntry]:
        """Give what a watcher has to know, as `__messaging__` gives the seam to what is built on a client."""
        codecs = self._access.codecs
        if codecs is not None:
            keys = [codecs.encode_filter(one) for one in several_patterns(self._access.names, keys)]
        return self._entries(keys, ignore_deletes=ignore_deletes, meta_only=meta_only)

    def _entries(
        self, stored_keys: str | Sequence[str], *, ignore_deletes: bool, meta_only: bool
    ) -> Entries[api.KeyValueEntry]:
        """Say where entries are, given their keys as they stand in the bucket, and how each is read as the program knows it."""
        access = self._access
        stored = entries_in(access.api, access.names, stored_keys, ignore_deletes=ignore_deletes, meta_only=meta_only)
        return stored if access.codecs is None else _decoded(stored, access.codecs)

    def __access__(self) -> Access:
        """Give the bucket as what is built on it reads and writes it."""
        return self._access

    def with_codecs(
        self,
        keys: KeyCodec | Sequence[KeyCodec] | None = None,
        values: ValueCodec | Sequence[ValueCodec] | None = None,
    ) -> Self:
        """Give the same bucket, whose keys or values have another form in it than for the program (ADR-54).

        Keys are given, and come back, in the program's form everywhere: from `get`, `history`, `keys`, watchers, and in
        patterns. What a codec raises of a key or a value that is given goes to the caller, before anything is sent. A stored
        key or value that cannot be decoded, because another program wrote it, is left out of lists and watchers, and a
        `trionats.events.ForeignDataSkipped` says so; `get` of such a value raises `KeyValueError`.

        Args:
            keys: What keys are encoded with: a codec, several of which the first is applied first, or None for no change.
            values: The same for values. Markers of deleted keys have no value, and are not encoded.

        Returns:
            The bucket with these codecs, before those that it has already. Nothing is asked.

        Raises:
            TypeError: One of them is no codec.
        """
        codecs = (self._access.codecs or Codecs()).before(keys, values)
        return type(self)(self._access.api, self._access.names, codecs if codecs.keys or codecs.values else None)

    @enable_ki_protection
    async def get(self, key: str, revision: int | None = None, *, leader: bool = False) -> api.KeyValueEntry:
        """Read the value of a key.

        It is read from whichever replica of the bucket is nearest, which may be behind for a moment: what was put by someone
        else, or even by this program before, may not be there yet. That a key is not there, or deleted, is believed of the
        leader only, which is asked before it is said (where the user may ask it: ``STREAM.MSG.GET``). Read with `leader`
        where an answer that may be old will not do.

        Args:
            key: The key.
            revision: Which revision of it; by default the last one.
            leader: Ask the leader of the bucket's stream at once, of a mirror's origin where it is one: what it gives is at least
                as new as every write that was acknowledged before.

        Returns:
            The entry. Its value is empty (`b""`) where an empty one was put.

        Raises:
            trionats.errors.KeyNotFoundError: There is no such key, or this revision is not one of it, or is gone. One that was
                deleted or purged, or whose time is over, raises what is a `KeyDeletedError` as well, with the marker as
                `entry` and "DEL" or "PURGE" as `op`.
            trionats.errors.KeyValueError: The value is none of the bucket's codecs.
            trionats.errors.InvalidKeyError: No key can have this name.
            nats.errors.BucketNotFoundError: There is no such bucket.
            nats.errors.Error: As for any request.
            TypeError: `revision` is no whole number, or `leader` neither True nor False.
            ValueError: It is below 1.
        """
        if leader is not False:
            check_argument("get", "leader", bool, leader)
        if revision is not None:
            revision = checked_revision(f"get of key {key!r}", "revision", revision, least=1)
        return await self._access.get(key, revision, leader=leader)

    @enable_ki_protection
    async def history(self, key: str) -> list[api.KeyValueEntry]:
        """Read all that is stored of a key: its values and markers, as many as the bucket's `history` keeps.

        Args:
            key: The key.

        Returns:
            The entries, oldest first; none where nothing is stored of it.

        Raises:
            trionats.errors.InvalidKeyError: No key can have this name.
            nats.errors.BucketNotFoundError: There is no such bucket.
            nats.errors.TimeoutError: Nothing has come for 30 s.
        """
        stored = self._entries(self._access.stored_key(key), ignore_deletes=False, meta_only=False)
        return await list_stored(stored, ALL, f"history of key {key!r} of bucket {self.bucket!r}")

    @enable_ki_protection
    async def keys(self, filters: str | Sequence[str] | None = None) -> list[str]:
        """List the keys that have a value; the server sends no values for it.

        Args:
            filters: Which keys: a pattern, in which a whole token may be `*` and the last one `>`, or several patterns. The
                server looks for them. By default all.

        Returns:
            The keys, each once, in the order of their last change; none where there is nothing.

        Raises:
            trionats.errors.InvalidKeyError: A filter cannot be one.
            ValueError: `filters` is an empty list.
            nats.errors.BucketNotFoundError: There is no such bucket.
            nats.errors.TimeoutError: Nothing has come for 30 s.
        """
        patterns = several_filters(self.bucket, ALL_KEYS if filters is None else filters)
        stored = self.__entries__(patterns, ignore_deletes=True, meta_only=True)
        found = await list_stored(stored, LAST_PER_SUBJECT, f"keys of bucket {self.bucket!r}")
        return [entry.key for entry in found]

    async def status(self) -> api.KeyValueStatus:
        """Ask how the bucket is: what it holds, and what it is configured to be.

        Raises:
            trionats.errors.BucketNotFoundError: The bucket is not there any more.
        """
        return await buckets.status(self._access.api, self.bucket)


@final
class KeyValue(ReadOnlyKeyValue):
    """A bucket of keys and values.

    Comes from `JetStream.create_key_value` and `JetStream.key_value`. It holds no state of its own, needs no closing, and
    may be used from several tasks at once.

    What is written is stored when the call returns; where the connection breaks before the bucket's answer came, it raises
    `trionats.errors.DisconnectedError`, where none came within the client's `request_timeout`, `nats.errors.TimeoutError`, and
    whether it was stored is not known. An answer counts only from the bucket's own stream and domain. A stream without a leader is asked again twice, after a quarter of a second each.
    """

    def read_only(self) -> ReadOnlyKeyValue:
        """Give the same bucket, with the same codecs, as a handle that writes nothing."""
        return ReadOnlyKeyValue(self._access.api, self._access.names, self._access.codecs)

    @enable_ki_protection
    async def put(self, key: str, value: bytes | str) -> int:
        """Store a value under a key, whatever stands there.

        Args:
            key: The key: letters, digits and `-/_=`, in tokens separated by single dots; not beginning with `_kv` (ADR-8).
            value: The value; text is stored as UTF-8.

        Returns:
            The new revision.

        Raises:
            trionats.errors.InvalidKeyError: No key can have this name.
            trionats.errors.APIError: The bucket refused, for instance because it is full.
            trionats.errors.NoStreamResponseError: There is no such bucket, or nobody leads it.
            trionats.errors.DisconnectedError: Whether it was stored is not known.
            nats.errors.TimeoutError: Nor is it where no answer came within `request_timeout`.
        """
        access = self._access
        stored_key = access.new_key(key)
        doing = f"put of key {key!r} into bucket {self.bucket!r}"
        return await access.write(doing, stored_key, access.stored_value(doing, value))

    @enable_ki_protection
    async def create(
        self, key: str, value: bytes | str = b"", *, msg_ttl: float | Literal["never"] | None = None
    ) -> int:
        """Store a value under a key that has none: one that never had, that was deleted or purged, or whose time is over.

        Of several that create the same key at the same time, one succeeds. Where a marker stands there, it is found and
        replaced, if nothing else has come meanwhile.

        Args:
            key: The key, as for `put`.
            value: The value; text is stored as UTF-8.
            msg_ttl: After how many whole seconds it expires, for a bucket with `limit_marker_ttl`, which then leaves a marker; or
                "never", also where the bucket itself has a `ttl`.

        Returns:
            The new revision.

        Raises:
            trionats.errors.KeyWrongLastSequenceError: The key has a value.
            trionats.errors.InvalidKeyError: No key can have this name.
            trionats.errors.APIError: The bucket refused, for instance because it has no limit markers, and `msg_ttl` was given; or the
                server is older than 2.11 and knows of none.
            trionats.errors.NoStreamResponseError: There is no such bucket, or nobody leads it.
            trionats.errors.DisconnectedError: Whether it was stored is not known.
            nats.errors.TimeoutError: Nor is it where no answer came within `request_timeout`.
            TypeError: `msg_ttl` is neither a number nor "never".
            ValueError: It is not whole, or below 1.
        """
        access = self._access
        stored_key = access.new_key(key)
        doing = f"create of key {key!r} in bucket {self.bucket!r}"
        data = access.stored_value(doing, value)
        creating = Creating()
        while True:
            try:
                return await access.write(doing, stored_key, data, last=creating.expected, msg_ttl=msg_ttl)
            except errors.KeyWrongLastSequenceError as error:
                lost = error.with_traceback(None)  # which leads to this frame, and would hold all until it is collected
            # The comparison was with what the leader has, so it is asked what that is.
            there = await access.last(stored_key)
            pause = creating.found(0 if there is None else there.seq or 0, gone=is_gone(there))
            if pause is None:
                raise _taken(doing, lost, there)
            await trio.sleep(pause)

    @enable_ki_protection
    async def update(self, key: str, value: bytes | str, last: int) -> int:
        """Store a value under a key if nobody has changed it since it was read.

        Args:
            key: The key, as for `put`.
            value: The value; text is stored as UTF-8.
            last: The revision that the key has to have; 0 if nothing was ever stored under it, or nothing is left of it: not
                even a marker.

        Returns:
            The new revision.

        Raises:
            trionats.errors.KeyWrongLastSequenceError: The key has another revision.
            trionats.errors.InvalidKeyError: No key can have this name.
            trionats.errors.APIError: The bucket refused.
            trionats.errors.NoStreamResponseError: There is no such bucket, or nobody leads it.
            trionats.errors.DisconnectedError: Whether it was stored is not known.
            nats.errors.TimeoutError: Nor is it where no answer came within `request_timeout`.
            TypeError: `last` is no whole number; None is none.
            ValueError: It is negative.
        """
        access = self._access
        stored_key = access.new_key(key)
        doing = f"update of key {key!r} in bucket {self.bucket!r}"
        data = access.stored_value(doing, value)
        return await access.write(doing, stored_key, data, last=checked_revision(doing, "last", last))

    @enable_ki_protection
    async def delete(self, key: str, last: int | None = None) -> int:
        """Delete a key: a marker takes the place of its value; what the bucket's `history` keeps of it stays.

        A key that is not there gets a marker, too.

        Args:
            key: The key.
            last: The revision that the key has to have; None for any.

        Returns:
            The marker's revision.

        Raises:
            trionats.errors.KeyWrongLastSequenceError: The key has another revision than `last`.
            trionats.errors.InvalidKeyError: No key can have this name.
            trionats.errors.APIError: The bucket refused.
            trionats.errors.NoStreamResponseError: There is no such bucket, or nobody leads it.
            trionats.errors.DisconnectedError: Whether it was deleted is not known.
            nats.errors.TimeoutError: Nor is it where no answer came within `request_timeout`.
        """
        stored_key = self._access.stored_key(key)
        doing = f"delete of key {key!r} from bucket {self.bucket!r}"
        return await self._access.write(doing, stored_key, operation="DEL", last=last)

    @enable_ki_protection
    async def purge(self, key: str, *, last: int | None = None, msg_ttl: float | Literal["never"] | None = None) -> int:
        """Delete a key and all its history: only a marker stays.

        Args:
            key: The key.
            last: The revision that the key has to have; None for any.
            msg_ttl: After how many whole seconds the marker goes, too, for a bucket with `limit_marker_ttl`; or "never".

        Returns:
            The marker's revision.

        Raises:
            trionats.errors.KeyWrongLastSequenceError: The key has another revision than `last`.
            trionats.errors.InvalidKeyError: No key can have this name.
            trionats.errors.APIError: The bucket refused, for instance because it has no limit markers, and `msg_ttl` was given; or the
                server is older than 2.11 and knows of none.
            trionats.errors.NoStreamResponseError: There is no such bucket, or nobody leads it.
            trionats.errors.DisconnectedError: Whether it was purged is not known.
            nats.errors.TimeoutError: Nor is it where no answer came within `request_timeout`.
            TypeError: `msg_ttl` is neither a number nor "never".
            ValueError: It is not whole, or below 1.
        """
        stored_key = self._access.stored_key(key)
        doing = f"purge of key {key!r} from bucket {self.bucket!r}"
        return await self._access.write(doing, stored_key, operation="PURGE", last=last, msg_ttl=msg_ttl)

    @enable_ki_protection
    async def purge_deletes(self, olderthan: float = OLD) -> int:
        """Purge what is left of keys that were deleted or purged, or whose time is over: their history, and old markers.

        Younger markers stay, so that watchers that were away still see them. What is put meanwhile stays. Cancelled, or
        failed, it has been done for some of the keys.

        Args:
            olderthan: How many seconds old a marker has to be to go, by this machine's clock; a negative number for all of
                them.

        Returns:
            How many markers went.

        Raises:
            nats.errors.BucketNotFoundError: There is no such bucket.
            trionats.errors.APIError: The server refused.
            nats.errors.Error: As for any request.
            TypeError: `olderthan` is no number.
        """
        return await purge_deletes(self._access, checked_age(olderthan))


def _decoded(stored: Entries[api.KeyValueEntry], codecs: Codecs) -> Entries[api.KeyValueEntry]:
    """Read each entry as the program knows it; who asks without codecs does not come here."""
    foreign, read = stored.jetstream.connection.foreign, stored.read
    where = f"forms of keys and values in {stored.store}"
    decode = partial(codecs.decoded, meta_only=stored.headers_only)

    def read_decoded(msg: Msg, ack: AckSubject) -> api.KeyValueEntry | None:
        entry = read(msg, ack)
        return None if entry is None else foreign.read(where, decode, entry)

    return replace(stored, read=read_decoded)


def _taken(doing: str, lost: errors.APIError, there: api.StoredMsg | None) -> errors.APIError:
    why = "it changes all the time"
    if there is not None and not is_gone(there):
        why = f"it has a value, in revision {there.seq}"
    text = f"{doing}: {why} ({lost.description}, error {lost.err_code})"
    return errors.explained(errors.KeyWrongLastSequenceError, text, **vars(lost))
